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
	"github.com/davit-oci/davit/internal/programs"
)

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
	content := disktest.Mixture(1<<20+3*512, 1)
	source := disktest.WriteFile(t, "source.raw", content)

	var cases []string // arguments of qemu-img convert
	for size := 512; size <= 2<<20; size *= 2 {
		o := fmt.Sprintf("-o cluster_size=%d", size)
		cases = append(cases, o, o+" -c")
		if size >= 16<<10 {
			cases = append(cases, o+",extended_l2=on")
		}
		if size == 512 || size == 64<<10 || size == 2<<20 {
			cases = append(cases, o+",compression_type=zstd -c", o+",compat=0.10", o+",compat=0.10 -c")
		}
	}
	cases = append(cases, "-o extended_l2=on,compression_type=zstd -c")
	for _, how := range []string{"off", "metadata", "falloc", "full"} {
		cases = append(cases, "-o preallocation="+how, "-S 0 -o extended_l2=on,preallocation="+how)
	}
	for _, bits := range []int{1, 8, 64} {
		cases = append(cases, fmt.Sprintf("-o refcount_bits=%d", bits))
	}
	cases = append(cases, "-o lazy_refcounts=on", "-S 0", "-S 4k", "-W -m 16")

	for _, c := range cases {
		t.Run(c, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "image")
			args := append([]string{"qemu-img", "convert", "-t", "unsafe", "-f", "raw", "-O", "qcow2"}, strings.Fields(c)...)
			disktest.QEMU(t, append(args, source, path)...)
			testImage(t, path, disk.OpenOptions{}, content)
		})
	}
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
			disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", o, path, fmt.Sprint(size))
			disktest.Edit(t, path, "qcow2", size, uint64(seed))
			testImage(t, path, disk.OpenOptions{}, disktest.Flat(t, path))
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
				disktest.QEMU(t, create...)
				disktest.Edit(t, path, format, size, uint64(seed*3+n))
				backing = []string{"-b", fmt.Sprint(n), "-F", format}
				size += 1<<20 + 512
			}
			testImage(t, path, disk.OpenOptions{BackingDir: dir}, disktest.Flat(t, path))
		})
	}
}

func TestQEMUSnapshots(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "image")
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
	write := func(args ...string) {
		t.Helper()
		disktest.QEMU(t, append(append([]string{"qemu-io", "-t", "unsafe", "-f", "qcow2"}, args...), path)...)
	}
	write("-c", "write -P 1 0 512k")
	disktest.QEMU(t, "qemu-img", "snapshot", "-c", "first", path)
	disktest.QEMU(t, "qemu-img", "snapshot", "-c", "1", path) // the name of one, the ID of the other
	disktest.QEMU(t, "qemu-img", "resize", "-q", path, "3M")
	write("-c", "write -P 2 100k 2M")
	disktest.QEMU(t, "qemu-img", "snapshot", "-c", "2nd", path)
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
			content := disktest.Flat(t, append(args, path)...)[:test.size]
			testImage(t, path, disk.OpenOptions{Snapshot: test.snapshot}, content)
		})
	}

	for _, path := range []string{path, disktest.WriteFile(t, "disk.raw", []byte("raw"))} {
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
	if err := disk.Copy(t.Context(), w, r, disk.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
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
		disktest.QEMU(t, "qemu-img", "check", "-q", "-f", name, path)
	}
}

func TestQEMUReadsWhatWeWrite(t *testing.T) {
	random := make([]byte, 1<<20)
	rand.NewChaCha8([32]byte{}).Read(random)
	for name, content := range map[string][]byte{
		"mixture":        disktest.Mixture(3<<20, 1),
		"odd size":       disktest.Mixture(1<<20+77, 1),
		"no bytes":       {},
		"one byte":       {1},
		"a bit more":     disktest.Mixture(64<<10+1, 1),
		"empty disk":     make([]byte, 2<<20),
		"incompressible": random,
	} {
		for _, format := range writable {
			t.Run(fmt.Sprint(name, " as ", format), func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(t.TempDir(), "image")
				create(t, path, format, disktest.Sparse(content), disk.WriteOptions{})
				if format == disk.Raw {
					if !bytes.Equal(disktest.ReadFile(t, path), content) {
						t.Fatal("raw image differs")
					}
					return
				}
				check(t, path, format)
				size, err := format.DiskSize(int64(len(content)), 0)
				if err != nil {
					t.Fatal(err)
				}
				want := append(bytes.Clone(content), make([]byte, size-int64(len(content)))...)
				if !bytes.Equal(disktest.Flat(t, "-f", qemuFormat(format), path), want) {
					t.Fatal("QEMU reads something else")
				}
				testImage(t, path, disk.OpenOptions{}, want)
			})
		}
	}
}

// mutations are changes of every byte of a qcow2 header.
func mutations(t *testing.T, path string, o disk.OpenOptions) disktest.Mutations {
	o.Format = disk.QCOW2
	m := disktest.Mutations{
		Format:  "qcow2",
		Image:   disktest.ReadFile(t, path),
		Content: disktest.Flat(t, path),
		Open: func(image []byte) (disk.Reader, error) {
			if err := os.WriteFile(path, image, 0o600); err != nil {
				return nil, err
			}
			return disk.Open(path, o)
		},
	}
	for off := range 200 {
		m.Each = append(m.Each, disktest.Mutation{At: off, Flip: 0x01}, disktest.Mutation{At: off, Flip: 0x84})
	}
	return m
}

func TestHeaderMutations(t *testing.T) {
	for _, o := range []string{"cluster_size=4k", "cluster_size=64k,compression_type=zstd"} {
		path := filepath.Join(t.TempDir(), "image")
		disktest.Make(t, path, "qcow2", disktest.Mixture(100<<10, 1), "-c", "-o", o)
		mutations(t, path, disk.OpenOptions{}).Test(t)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	createEdited(t, path, "qcow2", "-o cluster_size=4k,data_file="+filepath.Join(dir, "data"), 300<<10, 6)
	m := mutations(t, path, disk.OpenOptions{BackingDir: dir})
	m.Refusals = []error{os.ErrNotExist} // by another name
	m.Test(t)
}

// readAll is the content of a qcow2 image, by way of all its extents.
func readAll(path string) ([]byte, error) {
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
	got := make([]byte, img.Size())
	if n, err := img.ReadAt(got, 0); n < len(got) {
		return nil, err
	}
	return got, nil
}

// 7-Zip has readers of its own for what others wrote, and takes no word of ours
// from QEMU.
func TestSevenZipReadsWhatWeWrite(t *testing.T) {
	for _, content := range [][]byte{disktest.Mixture(5<<19, 1), disktest.Mixture(1<<20+7*512, 1)} {
		for _, format := range writable {
			if format == disk.Raw || format == disk.QCOW2Zstd { // which it does not know
				continue
			}
			if format == disk.VHDX && len(content)%4096 != 0 { // which it refuses from QEMU, too
				continue
			}
			testSevenZip(t, format, 0, content)
		}
	}
	// QEMU opens no VHDX of such sectors, and 7-Zip none of an odd number of them.
	for _, size := range []int{5 << 19, 1<<20 + 4096 + 77} {
		testSevenZip(t, disk.VHDX, 4096, disktest.Mixture(size, 2))
	}
}

func testSevenZip(t *testing.T, format disk.Format, sector int, content []byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image"+format.Ext())
	create(t, path, format, disktest.Sparse(content), disk.WriteOptions{SectorSize: sector})
	size, err := format.DiskSize(int64(len(content)), sector)
	if err != nil {
		t.Fatal(err)
	}
	got, err := exec.CommandContext(t.Context(), programs.Need(t, "7zz"), "e", "-so", path).Output()
	if err != nil {
		t.Errorf("%s, sectors of %d bytes: %v", format, sector, err)
	}
	if want := append(bytes.Clone(content), make([]byte, size-int64(len(content)))...); !bytes.Equal(got, want) {
		t.Errorf("%s, sectors of %d bytes: 7-Zip reads something else, %d bytes of %d", format, sector, len(got), len(want))
	}
}
