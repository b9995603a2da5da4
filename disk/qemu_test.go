package disk_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

// qemu runs qemu-img or qemu-io, which decide here what an image holds.
func qemu(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(args[0]); err != nil {
		t.Fatalf("%v: install qemu-utils", err)
	}
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// mixture is the content of a disk: text, random bytes, zeros, and single
// bytes in zeros.
func mixture(size int) []byte {
	content := make([]byte, size)
	random := rand.New(rand.NewPCG(7, 8))
	for off := 0; off < size; {
		part := content[off:min(size, off+1+random.IntN(150000))]
		switch random.IntN(4) {
		case 0:
			for i := range part {
				part[i] = "a line of text\n"[(off+i)%15]
			}
		case 1:
			for i := range part {
				part[i] = byte(random.Uint32())
			}
		case 2:
			part[len(part)/2] = 1
		}
		off += len(part)
	}
	return content
}

func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// testImage tests that the image at path has this content.
func testImage(t *testing.T, path string, o disk.OpenOptions, content []byte) {
	t.Helper()
	img, err := disk.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if err := disktest.TestReader(img, content); err != nil {
		t.Error(err)
	}
}

func TestQEMUImages(t *testing.T) {
	content := mixture(2<<20 + 3*512)
	source := writeFile(t, "source.raw", content)

	var cases []string // arguments of qemu-img convert
	for size := 512; size <= 2<<20; size *= 2 {
		o := fmt.Sprintf("-o cluster_size=%d", size)
		cases = append(cases, o, o+",compat=0.10", o+",compat=0.10 -c", o+" -c", o+",compression_type=zstd -c")
		if size >= 16<<10 {
			cases = append(cases, o+",extended_l2=on", o+",extended_l2=on,compression_type=zstd -c")
		}
	}
	for _, how := range []string{"off", "metadata", "falloc", "full"} {
		cases = append(cases, "-o preallocation="+how, "-S 0 -o extended_l2=on,preallocation="+how)
	}
	for bits := 1; bits <= 64; bits *= 2 {
		cases = append(cases, fmt.Sprintf("-o refcount_bits=%d", bits))
	}
	cases = append(cases, "-o lazy_refcounts=on", "-S 0", "-S 4k", "-W -m 16")

	for _, c := range cases {
		t.Run(c, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "image")
			args := append([]string{"qemu-img", "convert", "-t", "unsafe", "-f", "raw", "-O", "qcow2"}, strings.Fields(c)...)
			qemu(t, append(args, source, path)...)
			testImage(t, path, disk.OpenOptions{}, content)
		})
	}
}

// An edit is a list of qemu-io commands that leave clusters of all kinds:
// data, parts of clusters, zeros, discarded ones.
func edit(seed uint64, size int) []string {
	random := rand.New(rand.NewPCG(9, seed))
	var args []string
	for range 12 {
		off := random.IntN(size/512) * 512
		n := min(512*(1+random.IntN(300)), size-off)
		switch random.IntN(4) {
		case 0:
			args = append(args, "-c", fmt.Sprintf("write -z %d %d", off, n))
		case 1:
			args = append(args, "-c", fmt.Sprintf("discard %d %d", off, n))
		default:
			args = append(args, "-c", fmt.Sprintf("write -P %d %d %d", 1+random.IntN(255), off, n))
		}
	}
	return args
}

// flat is what QEMU says that an image holds.
func flat(t *testing.T, args ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flat.raw")
	qemu(t, append(append([]string{"qemu-img", "convert", "-t", "unsafe", "-O", "raw"}, args...), path)...)
	return readFile(t, path)
}

func TestQEMUEdits(t *testing.T) {
	const size = 2 << 20
	for seed, o := range []string{
		"cluster_size=512", "cluster_size=4k", "cluster_size=64k", "cluster_size=2M",
		"cluster_size=64k,compat=0.10",
		"cluster_size=16k,extended_l2=on", "cluster_size=64k,extended_l2=on", "cluster_size=2M,extended_l2=on",
	} {
		t.Run(o, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "image")
			qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", o, path, fmt.Sprint(size))
			qemu(t, append(append([]string{"qemu-io", "-t", "unsafe", "-f", "qcow2"}, edit(uint64(seed), size)...), path)...)
			testImage(t, path, disk.OpenOptions{}, flat(t, path))
		})
	}
}

func TestQEMUChains(t *testing.T) {
	// The base is shorter than what lies on it, which is shorter again.
	for seed, o := range [][3]string{
		{"cluster_size=64k", "cluster_size=64k", "cluster_size=64k"},
		{"cluster_size=2M", "cluster_size=512", "cluster_size=64k,extended_l2=on"},
		{"cluster_size=16k,extended_l2=on", "cluster_size=4k,compat=0.10", "cluster_size=1M,compression_type=zstd"},
		{"raw", "cluster_size=64k,compat=0.10", "cluster_size=128k,extended_l2=on"},
	} {
		t.Run(o[0]+" "+o[1]+" "+o[2], func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			backing := []string{}
			path, size := "", 1<<20
			for n, o := range o {
				path = filepath.Join(dir, fmt.Sprint(n))
				format := "qcow2"
				create := []string{"qemu-img", "create", "-q"}
				if o == "raw" {
					format = "raw"
				} else {
					create = append(create, "-o", o)
				}
				create = append(append(append(create, "-f", format), backing...), path, fmt.Sprint(size))
				qemu(t, create...)
				qemu(t, append(append([]string{"qemu-io", "-t", "unsafe", "-f", format}, edit(uint64(seed*3+n), size)...), path)...)
				backing = []string{"-b", fmt.Sprint(n), "-F", format}
				size += 1<<20 + 512
			}
			testImage(t, path, disk.OpenOptions{BackingDir: dir}, flat(t, path))
		})
	}
}

func TestQEMUSnapshots(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "image")
	qemu(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
	write := func(args ...string) {
		t.Helper()
		qemu(t, append(append([]string{"qemu-io", "-t", "unsafe", "-f", "qcow2"}, args...), path)...)
	}
	write("-c", "write -P 1 0 512k")
	qemu(t, "qemu-img", "snapshot", "-c", "first", path)
	qemu(t, "qemu-img", "snapshot", "-c", "1", path) // the name of one, the ID of the other
	qemu(t, "qemu-img", "resize", "-q", path, "3M")
	write("-c", "write -P 2 100k 2M")
	qemu(t, "qemu-img", "snapshot", "-c", "2nd", path)
	write("-c", "write -z 0 1M")

	for name, test := range map[string]struct {
		snapshot string
		size     int
	}{
		"active state": {"", 3 << 20},
		"by name":      {"2nd", 3 << 20},
		"by ID":        {"3", 3 << 20},
		// QEMU appends zeros, up to the size that the disk has now.
		"of a smaller disk":         {"first", 1 << 20},
		"by ID that is also a name": {"1", 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			var args []string
			if test.snapshot != "" {
				args = []string{"-l", test.snapshot}
			}
			content := flat(t, append(args, path)...)[:test.size]
			testImage(t, path, disk.OpenOptions{Snapshot: test.snapshot}, content)
		})
	}

	for _, path := range []string{path, writeFile(t, "disk.raw", []byte("raw"))} {
		img, err := disk.Open(path, disk.OpenOptions{Snapshot: "third"})
		wantError(t, img, err, disk.ErrUnknownSnapshot, `"third"`)
	}
}

// create makes a disk with this content at path, told of these extents.
func create(t *testing.T, path string, format disk.Format, r disk.Reader, o disk.WriteOptions) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w, err := disk.NewWriter(f, format, r.Size(), disk.Extents(r), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Copy(t.Context(), w, r); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// sparse is content whose extents are all ranges of whole 4 KiB that are not zero.
type sparse struct{ *bytes.Reader }

func (s sparse) NextExtent(off int64) (disk.Extent, error) {
	if off < 0 {
		return disk.Extent{}, fmt.Errorf("negative offset")
	}
	block := make([]byte, 4096)
	for off < s.Size() {
		n, _ := s.ReadAt(block[:4096-off%4096], off)
		if !bytes.Equal(block[:n], make([]byte, n)) {
			return disk.Extent{Offset: off, Length: int64(n)}, nil
		}
		off += int64(n)
	}
	return disk.Extent{}, nil
}

// writable are all formats, anyOrder those that are written in any order.
var (
	writable = append([]disk.Format{disk.QCOW2Zlib, disk.QCOW2Zstd, disk.VMDKStream}, anyOrder...)
	anyOrder = []disk.Format{disk.Raw, disk.QCOW2, disk.VMDK, disk.VDI, disk.VHD, disk.VHDFixed, disk.VHDX}
)

// qemuFormat is QEMU's name of a format.
func qemuFormat(f disk.Format) string {
	name := strings.TrimPrefix(f.Ext(), ".")
	if name == "vhd" {
		return "vpc"
	}
	return name
}

// check asks QEMU whether an image is consistent, in the formats that it can
// tell of.
func check(t *testing.T, path string, format disk.Format) {
	t.Helper()
	if name := qemuFormat(format); name != "raw" && name != "vpc" {
		qemu(t, "qemu-img", "check", "-q", "-f", name, path)
	}
}

func TestQEMUReadsWhatWeWrite(t *testing.T) {
	random := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(random)
	for name, content := range map[string][]byte{
		"mixture":        mixture(6 << 20),
		"odd size":       mixture(3<<20 + 77),
		"no bytes":       {},
		"one byte":       {1},
		"one zero":       {0},
		"one sector":     mixture(512),
		"one cluster":    mixture(64 << 10),
		"a bit more":     mixture(64<<10 + 1),
		"empty disk":     make([]byte, 2<<20),
		"incompressible": random,
	} {
		for _, format := range writable {
			t.Run(fmt.Sprint(name, " as ", format), func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(t.TempDir(), "image")
				create(t, path, format, sparse{bytes.NewReader(content)}, disk.WriteOptions{})
				if format == disk.Raw {
					if !bytes.Equal(readFile(t, path), content) {
						t.Fatal("raw image differs")
					}
					return
				}
				check(t, path, format)
				size, err := format.DiskSize(int64(len(content)))
				if err != nil {
					t.Fatal(err)
				}
				want := append(bytes.Clone(content), make([]byte, size-int64(len(content)))...)
				if !bytes.Equal(flat(t, "-f", qemuFormat(format), path), want) {
					t.Fatal("QEMU reads something else")
				}
				testImage(t, path, disk.OpenOptions{}, want)
			})
		}
	}
}

// Every byte of a header, changed: the image is refused, or it is what QEMU
// says, or the byte did not matter. Memory is bounded.
func TestHeaderMutations(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	source := writeFile(t, "source.raw", mixture(300<<10))
	for _, o := range []string{"cluster_size=4k", "cluster_size=64k,compression_type=zstd"} {
		qemu(t, "qemu-img", "convert", "-t", "unsafe", "-f", "raw", "-O", "qcow2", "-c", "-o", o, source, path)
		image := readFile(t, path)
		want := flat(t, path)
		for off := range 200 {
			for _, flip := range []byte{0x01, 0x84} {
				mutant := bytes.Clone(image)
				mutant[off] ^= flip
				if err := os.WriteFile(path, mutant, 0o600); err != nil {
					t.Fatal(err)
				}
				got, err := readSome(path)
				if err != nil || bytes.Equal(got, want) {
					continue
				}
				flat := filepath.Join(dir, "flat.raw")
				out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-t", "unsafe", "-O", "raw", path, flat).CombinedOutput()
				if err != nil {
					t.Errorf("%s: byte %d ^ %#x: reads, but not as before, and QEMU says: %s", o, off, flip, out)
					continue
				}
				want := readFile(t, flat)
				want = want[:min(len(want), readMax)]
				got = got[:len(got)&^511] // as QEMU cuts it
				if !bytes.Equal(got, want) {
					t.Errorf("%s: byte %d ^ %#x: QEMU reads something else (%d and %d bytes)", o, off, flip, len(want), len(got))
				}
			}
		}
	}
}

const readMax = 2 << 20

// readSome walks all extents of an image, and reads up to readMax bytes.
func readSome(path string) ([]byte, error) {
	img, err := disk.Open(path, disk.OpenOptions{Format: disk.QCOW2})
	if err != nil {
		return nil, err
	}
	defer img.Close()
	for _, err := range disk.Extents(img) {
		if err != nil {
			return nil, err
		}
	}
	got := make([]byte, min(img.Size(), readMax))
	if n, err := img.ReadAt(got, 0); n < len(got) {
		return nil, err
	}
	return got, nil
}

// 7-Zip has readers of its own for what others wrote, and takes no word of ours
// from QEMU.
func TestSevenZipReadsWhatWeWrite(t *testing.T) {
	if _, err := exec.LookPath("7zz"); err != nil {
		t.Fatalf("%v: install 7zip", err)
	}
	for _, content := range [][]byte{mixture(5 << 20), mixture(3<<20 + 7*512)} {
		for _, format := range writable {
			if format == disk.Raw || format == disk.QCOW2Zstd { // which it does not know
				continue
			}
			if format == disk.VHDX && len(content)%4096 != 0 { // which it refuses from QEMU, too
				continue
			}
			path := filepath.Join(t.TempDir(), "image"+format.Ext())
			create(t, path, format, sparse{bytes.NewReader(content)}, disk.WriteOptions{})
			size, err := format.DiskSize(int64(len(content)))
			if err != nil {
				t.Fatal(err)
			}
			got, err := exec.CommandContext(t.Context(), "7zz", "e", "-so", path).Output()
			if err != nil {
				t.Errorf("%s: %v", format, err)
			}
			if want := append(bytes.Clone(content), make([]byte, size-int64(len(content)))...); !bytes.Equal(got, want) {
				t.Errorf("%s: 7-Zip reads something else, %d bytes of %d", format, len(got), len(want))
			}
		}
	}
}
