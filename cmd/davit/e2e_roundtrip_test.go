package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// testDisks makes disks as machines have them, and as none has.
func testDisks(t *testing.T, h *host) map[string]string {
	t.Helper()
	tree := filepath.Join(t.TempDir(), "tree")
	for i := range 40 {
		dir := filepath.Join(tree, fmt.Sprintf("dir%d", i%5))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		content := prose(uint64(i), 100+i*i*97)
		if i%8 == 0 {
			content = fill(uint64(i), 300_000)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file%d", i)), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	blank := func(name string, size int64) string { return writeFileAt(t, h.path(name), size, nil) }
	ext4 := blank("ext4.part", 24<<20)
	h.tool("mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, ext4)
	fat := blank("fat.part", 12<<20)
	h.tool("mkfs.vfat", fat)
	h.tool("mcopy", "-s", "-i", fat, filepath.Join(tree, "dir0"), "::")
	ntfs := blank("ntfs.part", 12<<20)
	h.tool("mkntfs", "-F", "-q", "-s", "512", "-p", "0", "-H", "255", "-S", "63", ntfs)
	for i := range 5 {
		h.tool("ntfscp", "-q", ntfs, filepath.Join(tree, fmt.Sprintf("dir%d/file%d", i, i+30)), fmt.Sprintf("file%d", i))
	}
	proto := h.path("xfs.proto")
	if err := os.WriteFile(proto, fmt.Appendf(nil, "/\n0 0\nd--755 0 0\na ---644 0 0 %s\nb ---644 0 0 %s\nsub d--755 0 0\nc ---644 0 0 %[1]s\n$\n$\n",
		filepath.Join(tree, "dir0/file0"), filepath.Join(tree, "dir4/file39")), 0o600); err != nil {
		t.Fatal(err)
	}
	xfs := blank("xfs.part", 300<<20)
	h.tool("mkfs.xfs", "-q", "-f", "-p", proto, xfs)

	read := func(path string) []byte {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	disks := map[string]string{}
	add := func(name string, size int64, pieces map[int64][]byte) string {
		disks[name] = writeFileAt(t, h.path(strings.ReplaceAll(name, " ", "-")+".raw"), size, pieces)
		return disks[name]
	}
	gpt := add("gpt with ext4 and fat", 40<<20, nil)
	h.tool("sgdisk", "-n", "1:2048:+24M", "-n", "2:0:+12M", "-t", "2:0700", gpt)
	writeFileAt(t, gpt, 40<<20, map[int64][]byte{1 << 20: read(ext4), 25 << 20: read(fat)})
	mbr := add("mbr with ntfs at sector 63", 16<<20, nil)
	script := h.path("sfdisk.script")
	if err := os.WriteFile(script, []byte("label: dos\n63,24576,7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.tool("sh", "-c", "sfdisk -q "+mbr+" <"+script)
	writeFileAt(t, mbr, 16<<20, map[int64][]byte{63 * 512: read(ntfs)})
	disks["xfs"] = h.path("xfs.raw")
	if err := os.Rename(xfs, disks["xfs"]); err != nil {
		t.Fatal(err)
	}
	add("no whole block", 3<<20+512, map[int64][]byte{0: prose(1, 70_001), 3 << 20: fill(2, 512)})
	add("no whole sector", 5<<20+1234, map[int64][]byte{4096: prose(3, 70_001), 5<<20 + 1: fill(4, 1233)})
	add("one byte", 1, map[int64][]byte{0: {7}})
	add("zeros", 16<<20, nil)
	add("nothing", 0, nil)
	add("random", 9<<20, map[int64][]byte{0: fill(5, 9<<20)})
	return disks
}

// pulled are ways to pull: the file, and -O if its extension is not enough.
var pulled = [][]string{
	{"x.raw"}, {"x.qcow2"}, {"x.vmdk"}, {"x.vdi"}, {"x.vhd"}, {"x.vhdx"},
	{"zlib.qcow2", "-O", "qcow2:zlib"}, {"zstd.qcow2", "-O", "qcow2:zstd"}, {"stream.vmdk", "-O", "vmdk:stream"}, {"fixed.vhd", "-O", "vhd:fixed"},
}

// A disk comes out of every kind of place as it went in, in every format.
func TestE2ERoundTrip(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	disks := testDisks(t, h)
	for p, place := range []struct {
		name  string
		start func(t *testing.T) (ref func(i int) string)
	}{
		{"layout", func(t *testing.T) func(int) string {
			dir := t.TempDir()
			return func(i int) string { return fmt.Sprintf("oci:%s/layout:v%d", dir, i) }
		}},
		{"archive", func(t *testing.T) func(int) string {
			dir := t.TempDir()
			return func(i int) string { return fmt.Sprintf("oci-archive:%s/%d.tar:v1", dir, i) }
		}},
		{"olareg", func(t *testing.T) func(int) string { return inRegistry(newOlareg(t)) }},
		{"docker-registry 2.8", func(t *testing.T) func(int) string { return inRegistry(newDistribution(t, "docker-registry")) }},
		{"distribution 3", func(t *testing.T) func(int) string { return inRegistry(newDistribution(t, "registry")) }},
	} {
		t.Run(place.name, func(t *testing.T) {
			t.Parallel()
			ref := place.start(t)
			for i, name := range slices.Sorted(maps.Keys(disks)) {
				h := &host{t: t, dir: t.TempDir(), exe: h.exe, env: h.env}
				h.ok("push", "--cache", "none", "-f", "raw", disks[name], ref(i))
				for n, to := range pulled {
					if (n+p+i)%3 != 0 { // each disk in each format somewhere, and each format everywhere
						continue
					}
					h.ok(append([]string{"pull", "--cache", "none", "--unverified", ref(i)}, to...)...)
					h.sameDisk(disks[name], h.path(to[0]))
					if t.Failed() {
						t.Fatalf("as %s", to)
					}
				}
				if t.Failed() {
					t.Fatalf("the disk: %s", name)
				}
			}
		})
	}
}

func inRegistry(s server) func(int) string {
	return func(i int) string { return fmt.Sprintf("%s/team/vm%d:v1", s.host, i) }
}
