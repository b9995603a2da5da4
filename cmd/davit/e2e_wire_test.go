package main

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// One content is one artifact, whatever file it comes in and however many
// hands pack it; and a registry that has it is sent nothing.
func TestE2EOneContentOneDigest(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const size = 24 << 20
	raw := writeFileAt(t, h.path("sparse.raw"), size, map[int64][]byte{
		0: prose(1, 3<<20), 5<<20 + 512: fill(2, 2<<20), 12<<20 - 3: prose(3, 1<<20), size - 5000: fill(4, 5000)})
	disks := map[string][]string{"sparse raw": {raw}}
	convert := func(name, file string, args ...string) {
		h.tool("qemu-img", append(append([]string{"convert", "-f", "raw"}, args...), raw, h.path(file))...)
		disks[name] = []string{h.path(file)}
	}
	convert("raw without holes", "full.raw", "-O", "raw", "-S", "0")
	convert("preallocated raw", "pre.raw", "-O", "raw", "-o", "preallocation=falloc")
	convert("qcow2", "plain.qcow2", "-O", "qcow2")
	convert("compressed qcow2", "zlib.qcow2", "-c", "-O", "qcow2", "-o", "compression_type=zlib")
	convert("qcow2 compressed with zstd", "zstd.qcow2", "-c", "-O", "qcow2", "-o", "compression_type=zstd")
	convert("qcow2 with extended L2", "l2.qcow2", "-O", "qcow2", "-o", "extended_l2=on")
	convert("qcow2 with small clusters", "small.qcow2", "-O", "qcow2", "-o", "cluster_size=512")
	convert("VMDK", "sparse.vmdk", "-O", "vmdk")
	convert("flat VMDK", "flat.vmdk", "-O", "vmdk", "-o", "subformat=monolithicFlat")
	convert("split VMDK", "split.vmdk", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse")
	convert("compressed VMDK", "stream.vmdk", "-O", "vmdk", "-o", "subformat=streamOptimized")
	convert("VDI", "dynamic.vdi", "-O", "vdi")
	convert("static VDI", "static.vdi", "-O", "vdi", "-o", "static=on")
	convert("VHD", "dynamic.vhd", "-O", "vpc", "-o", "force_size=on")
	convert("fixed VHD", "fixed.vhd", "-O", "vpc", "-o", "subformat=fixed,force_size=on")
	convert("VHDX", "dynamic.vhdx", "-O", "vhdx")
	convert("fixed VHDX", "fixed.vhdx", "-O", "vhdx", "-o", "subformat=fixed")
	for _, to := range pulled[1:] {
		h.ok(append([]string{"convert", raw, "davit-" + to[0]}, to[1:]...)...)
		disks["davit's "+to[0]] = []string{h.path("davit-" + to[0])}
	}
	for _, pack := range [][]string{{"gzip", "-1"}, {"xz", "-0"}, {"zstd", "-q"}, {"bzip2", "-1"}} {
		h.tool(pack[0], append(pack[1:], "-k", "-f", "plain.qcow2")...)
	}
	for _, ext := range []string{".gz", ".xz", ".zst", ".bz2"} {
		disks["qcow2 in "+ext] = []string{h.path("plain.qcow2" + ext)}
	}
	writeFileAt(t, h.path("base.raw"), size, map[int64][]byte{0: prose(1, 3<<20), 6 << 20: fill(9, 1<<20), 15 << 20: fill(8, 1<<20)})
	h.tool("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "base.raw", "base.qcow2")
	convert("qcow2 on a backing file", "overlay.qcow2", "-O", "qcow2", "-B", "base.qcow2", "-F", "qcow2")
	disks["qcow2 on a backing file"] = append(disks["qcow2 on a backing file"], "--backing-dir", h.dir)

	olareg := newOlareg(t)
	w := newWire(t, olareg)
	first := h.report("push", "--reuse", "none", raw, w.host+"/vm:v1")
	if x := w.take(); x.uploads == 0 || x.sent < 2<<20 {
		t.Errorf("the first push: %+v, so nothing was counted", x)
	}
	jobs := 0
	for name, args := range disks {
		jobs = jobs%8 + 1
		again := func(ref string, more ...string) e2eReport {
			return h.report(append(append([]string{"push", "--cache", "none", "--jobs", fmt.Sprint(jobs)}, args...), append(more, ref)...)...)
		}
		alone := again("oci:"+t.TempDir()+"/layout:v1", "--reuse", "none")
		if alone.Digest != first.Digest || alone.DiskDigest != first.DiskDigest {
			t.Errorf("%s, --jobs %d: artifact %s of disk %s, want %s of %s", name, jobs, alone.Digest, alone.DiskDigest, first.Digest, first.DiskDigest)
		}
		w.take()
		onto := again(w.host + "/vm:v1")
		if x := w.take(); x.uploads != 0 || x.sent > 4096 {
			t.Errorf("%s: pushed onto itself it brought %d blobs and %d bytes", name, x.uploads, x.sent)
		}
		if onto.Digest != first.Digest || onto.Layers.New != 0 || onto.Bytes.Sent > 4096 {
			t.Errorf("%s: pushed onto itself it is %s of %d new layers and %d bytes, want %s", name, onto.Digest, onto.Layers.New, onto.Bytes.Sent, first.Digest)
		}
		// What there is of it somewhere else has the same disk digest.
		other := again("oci:"+t.TempDir()+"/layout:v1", "--reuse", w.host+"/vm:v1", "-a", "other=one")
		if other.DiskDigest != first.DiskDigest || other.Digest == first.Digest {
			t.Errorf("%s: with another annotation, artifact %s of disk %s", name, other.Digest, other.DiskDigest)
		}
	}
}

// realFiles puts some 100 MB of this machine's files into a folder: Go's own,
// and some libraries.
func realFiles(t *testing.T, h *host) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "files")
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	copied := 0
	for _, from := range []struct {
		root string
		most int
	}{{filepath.Join(strings.TrimSpace(string(out)), "src"), 12 << 20}, {"/usr/share", 30 << 20}, {"/usr/lib", 100 << 20}} {
		err := filepath.WalkDir(from.root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // what cannot be read is left out
			}
			info, err := d.Info()
			if err != nil || copied+int(info.Size()) > from.most {
				return nil
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			to := filepath.Join(dir, path)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				return err
			}
			copied += len(b)
			return os.WriteFile(to, b, 0o644)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if copied < 60<<20 {
		t.Fatalf("found only %d bytes of files", copied)
	}
	return dir
}

// What changes is what travels, both ways; counted outside of davit.
func TestE2EDeltas(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	files := realFiles(t, h)
	const size = 192 << 20
	// Blocks of 4096 bytes, as on any disk of half a GB and more; mke2fs takes 1024 for one as small as this.
	mkfs := func(name, uuid string) string {
		path := writeFileAt(t, h.path(name), size, nil)
		h.tool("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-U", uuid, "-E", "hash_seed="+uuid, "-d", files, path)
		return path
	}
	v1 := mkfs("v1.raw", "11111111-2222-3333-4444-555555555555")
	w := newWire(t, newOlareg(t))
	h.ok("push", v1, w.host+"/vm:v1")
	cold := w.take()
	if cold.sent < 20<<20 {
		t.Fatalf("the first push sent %d bytes", cold.sent)
	}

	change := func(name string, n int, piece int) string {
		path := h.path(name)
		h.tool("cp", "--sparse=always", v1, path)
		rng := rand.New(rand.NewPCG(1, uint64(n)))
		pieces := map[int64][]byte{}
		for len(pieces) < n {
			pieces[(8<<20+rng.Int64N(96<<20))&^4095] = fill(rng.Uint64(), piece)
		}
		return writeFileAt(t, path, size, pieces)
	}
	for _, test := range []struct {
		name   string
		disk   func() string
		most   int64 // bytes that may be sent
		pulled int64 // and fetched
	}{
		{"1 MB in one place", func() string { return change("one.raw", 1, 1<<20) }, 2 << 20, 2 << 20},
		{"256 blocks anywhere", func() string { return change("scattered.raw", 256, 4096) }, 20 << 20, 20 << 20},
		{"the same files in a new file system", func() string { return mkfs("new.raw", "99999999-8888-7777-6666-555555555555") }, cold.sent * 12 / 100, cold.sent * 12 / 100},
	} {
		path := test.disk()
		ref := w.host + "/vm:" + strings.ReplaceAll(filepath.Base(path), ".raw", "")
		w.take()
		h.ok("push", "--cache", "none", "--reuse", w.host+"/vm:v1", path, ref)
		push := w.take()
		h.ok("pull", "--cache", "none", "--unverified", "--seed", v1, ref, "pulled.qcow2")
		pull := w.take()
		t.Logf("%s: %d KB sent, %d KB fetched with the old version as seed; cold %d KB", test.name, push.sent>>10, pull.received>>10, cold.sent>>10)
		if push.sent > test.most {
			t.Errorf("%s: %d bytes were sent, more than %d", test.name, push.sent, test.most)
		}
		if pull.received > test.pulled {
			t.Errorf("%s: %d bytes were fetched, more than %d", test.name, pull.received, test.pulled)
		}
		h.sameDisk(path, h.path("pulled.qcow2"))
		os.Remove(h.path("pulled.qcow2"))

		// The host that has pulled the old version needs no --seed.
		if test.name == "1 MB in one place" {
			puller := newHost(t)
			puller.ok("pull", "--unverified", w.host+"/vm:v1", "old.raw")
			w.take()
			puller.ok("pull", "--unverified", ref, "new.raw")
			if got := w.take().received; got > test.pulled {
				t.Errorf("%s, on a host that has the old version: %d bytes were fetched", test.name, got)
			}
			puller.sameDisk(path, puller.path("new.raw"))
			// Nor does the file that is replaced.
			puller.ok("pull", "--cache", "none", "--force", "--unverified", w.host+"/vm:v1", "new.raw")
			if got := w.take().received; got > test.pulled {
				t.Errorf("%s, back again: %d bytes were fetched", test.name, got)
			}
			puller.sameDisk(v1, puller.path("new.raw"))
		}
	}
}
