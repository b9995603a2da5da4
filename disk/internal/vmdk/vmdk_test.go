package vmdk_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/raw"
	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/davit-oci/davit/disk/internal/vmdk"
)

// A folder opens whatever lies in a directory, and remembers what.
type folder struct {
	t      *testing.T
	root   string
	dir    string // in root
	opened *[]string
	depth  int
}

func newFolder(t *testing.T, dir string) folder { return folder{t, dir, ".", new([]string), 0} }

func (f folder) Extent(name string) (virtual.Reader, error) {
	*f.opened = append(*f.opened, name)
	local := filepath.Join(f.dir, name)
	if !filepath.IsLocal(local) || filepath.IsAbs(name) {
		return nil, fmt.Errorf("%w: %q", virtual.ErrBackingFile, name)
	}
	file, err := os.Open(filepath.Join(f.root, local))
	if err != nil {
		return nil, fmt.Errorf("opening %q: %w", name, err)
	}
	f.t.Cleanup(func() { file.Close() })
	return raw.Open(file)
}

func (f folder) Parent(name string) (virtual.Reader, virtual.Folder, error) {
	if f.depth == 10 {
		return nil, nil, virtual.Corrupt("a loop")
	}
	f.depth++
	r, err := f.Extent(name)
	f.dir = filepath.Join(f.dir, filepath.Dir(name))
	return r, f, err
}

func (f folder) NamesIn(dir string) ([]string, error) {
	local := filepath.Join(f.dir, dir)
	if !filepath.IsLocal(local) {
		return nil, fmt.Errorf("%w: %q", virtual.ErrBackingFile, dir)
	}
	entries, err := os.ReadDir(filepath.Join(f.root, local))
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

func open(t *testing.T, path string) (*vmdk.Image, error) {
	t.Helper()
	return openIn(t, path, newFolder(t, filepath.Dir(path)))
}

func openIn(t *testing.T, path string, in virtual.Folder) (*vmdk.Image, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	file, err := raw.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return vmdk.Open(file, vmdk.Options{Folder: in})
}

func testImage(t *testing.T, path string, content []byte) {
	t.Helper()
	img, err := open(t, path)
	if err != nil {
		t.Error(err)
		return
	}
	if err := disktest.TestReader(img, content); err != nil {
		t.Error(err)
	}
}

func wantError(t *testing.T, err, want error, words string) {
	t.Helper()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), words) {
		t.Errorf("got error %v, want %v, %q", err, want, words)
	}
}

func write(t *testing.T, dir, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// # What QEMU writes

var subformats = []string{"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"}

func TestQEMUImages(t *testing.T) {
	content := disktest.Mixture(1<<20+3*512, 7)
	var cases []string
	for _, s := range subformats {
		o := "subformat=" + s
		cases = append(cases, o, o+",compat6=on", o+",hwversion=13,toolsversion=2147483647")
		if !strings.HasSuffix(s, "Flat") {
			cases = append(cases, o+",zeroed_grain=on")
		}
	}
	for _, a := range []string{"ide", "buslogic", "lsilogic", "legacyESX"} {
		cases = append(cases, "adapter_type="+a)
	}
	for _, c := range cases {
		t.Run(c, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "image.vmdk")
			disktest.Make(t, path, "vmdk", content, "-o", c)
			testImage(t, path, content)
		})
	}
}

func TestQEMUSizes(t *testing.T) {
	for _, s := range subformats {
		for _, size := range []int{512, 65536 - 512, 65536, 65536 + 512, 3*65536 + 5*512} {
			t.Run(fmt.Sprint(s, " ", size), func(t *testing.T) {
				t.Parallel()
				content := bytes.Repeat([]byte("content\n"), size/8)
				path := filepath.Join(t.TempDir(), "image.vmdk")
				disktest.Make(t, path, "vmdk", content, "-o", "subformat="+s)
				testImage(t, path, content)
			})
		}
	}
}

func TestQEMUEdits(t *testing.T) {
	const size = 2<<20 + 3*512
	for seed, o := range []string{
		"subformat=monolithicSparse", "subformat=monolithicSparse,zeroed_grain=on", "subformat=monolithicFlat",
		"subformat=twoGbMaxExtentSparse", "subformat=twoGbMaxExtentSparse,zeroed_grain=on", "subformat=twoGbMaxExtentFlat",
	} {
		t.Run(o, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "image with spaces.vmdk")
			disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "vmdk", "-o", o, path, fmt.Sprint(size))
			disktest.Edit(t, path, "vmdk", size, uint64(seed))
			testImage(t, path, disktest.Flat(t, "-f", "vmdk", path))
		})
	}
}

// Images of several extents, with data where they meet.
func TestQEMUSplit(t *testing.T) {
	for _, s := range []string{"twoGbMaxExtentSparse", "twoGbMaxExtentFlat"} {
		t.Run(s, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image.vmdk")
			disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat="+s, path, "4G")
			disktest.QEMU(t, "qemu-io", "-t", "unsafe", "-f", "vmdk", "-c", "write -P 1 2146500000 2000000", "-c", "write -P 2 4294966784 512", path)
			img, err := open(t, path)
			if err != nil {
				t.Fatal(err)
			}
			if img.Size() != 4<<30 {
				t.Errorf("got a disk of %d bytes", img.Size())
			}
			got := make([]byte, 4<<20)
			off := int64(2<<30 - 2<<20)
			if _, err := img.ReadAt(got, off); err != nil {
				t.Error(err)
			}
			want := make([]byte, 4<<20)
			for i := range 2000000 {
				want[2146500000-off+int64(i)] = 1
			}
			if !bytes.Equal(got, want) {
				t.Error("reads something else where two extents meet")
			}
			var covered int64
			for e, err := range disk.Extents(img) {
				if err != nil {
					t.Fatal(err)
				}
				covered += e.Length
			}
			if covered < 2000512 || covered > 4<<20 {
				t.Errorf("data of %d bytes", covered)
			}
		})
	}
}

// A chain of four, made and read by QEMU; each is larger than the one below.
func TestQEMUChain(t *testing.T) {
	dir := t.TempDir()
	path, size := "", 1<<20
	var backing []string
	for n, o := range []string{"subformat=monolithicFlat", "subformat=monolithicSparse", "zeroed_grain=on", "compat6=on"} {
		path = filepath.Join(dir, fmt.Sprint(n, ".vmdk"))
		create := append([]string{"qemu-img", "create", "-q", "-f", "vmdk", "-o", o}, backing...)
		disktest.QEMU(t, append(create, path, fmt.Sprint(size))...)
		disktest.Edit(t, path, "vmdk", size, uint64(n))
		backing = []string{"-b", fmt.Sprint(n, ".vmdk"), "-F", "vmdk"}
		size += 512 * 100
	}
	testImage(t, path, disktest.Flat(t, "-f", "vmdk", path))

	_, err := openIn(t, path, nil)
	wantError(t, err, disk.ErrBackingFile, `"2.vmdk"`)

	// A parent that has been written to since is no parent any more.
	disktest.QEMU(t, "qemu-io", "-t", "unsafe", "-f", "vmdk", "-c", "write 0 512", filepath.Join(dir, "1.vmdk"))
	_, err = open(t, path)
	wantError(t, err, disk.ErrCorrupt, `"1.vmdk" is not the parent, or has changed since`)
}

// # What other products wrote

// TestCorpus reads the disks of testdata/disks and, where a larger collection
// lies beside the repository, those of it, too.
func TestCorpus(t *testing.T) {
	refused := map[string]struct {
		kind  error
		words string
	}{
		// Extents of these are not in the corpus.
		"monolithicFlat.vmdk":       {fs.ErrNotExist, `"monolithicFlat-flat.vmdk"`},
		"twoGbMaxExtentFlat.vmdk":   {fs.ErrNotExist, `"twoGbMaxExtentFlat-f001.vmdk"`},
		"twoGbMaxExtentSparse.vmdk": {fs.ErrNotExist, `"twoGbMaxExtentSparse-s001.vmdk"`},
		"vmfs_thick-000001.vmdk":    {fs.ErrNotExist, `"vmfs_thick-000001-delta.vmdk"`},
		// An extent by itself, which is the bytes of the disk.
		"vmfs_thick-flat.vmdk": {disk.ErrCorrupt, "say that it is raw"},
		// The first 1 MiB of 10 MB, as the appliance's manifest has it.
		"ttylinux-pc_i486-16.1-disk1.vmdk": {disk.ErrCorrupt, "cut short"},
	}
	root := filepath.Join("..", "..", "..")
	corpus := filepath.Join(root, "..", "shared", "corpus", "disks")
	var paths []string
	for _, pattern := range []string{filepath.Join(root, "testdata", "disks", "*.vmdk"), filepath.Join(corpus, "*", "*.vmdk")} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		if paths = append(paths, found...); len(paths) == 0 {
			t.Fatal("no disks")
		}
	}
	ovas, err := filepath.Glob(filepath.Join(corpus, "*", "*.ova"))
	if err != nil {
		t.Fatal(err)
	}
	for _, ova := range ovas {
		paths = append(paths, unpack(t, ova)...)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			img, err := open(t, path)
			if r, ok := refused[filepath.Base(path)]; ok {
				wantError(t, err, r.kind, r.words)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			testSame(t, img, convert(t, path))
		})
	}
}

// testSame tests that two disks have the same content, without reading the
// gigabytes that neither has.
func testSame(t *testing.T, got, want disk.Reader) {
	t.Helper()
	if got.Size() != want.Size() {
		t.Fatalf("got a disk of %d bytes, want %d", got.Size(), want.Size())
	}
	for _, r := range []disk.Reader{got, want} {
		for e, err := range disk.Extents(r) {
			if err != nil {
				t.Fatal(err)
			}
			a, b := make([]byte, 1<<20), make([]byte, 1<<20)
			for off := e.Offset; off < e.End(); off += int64(len(a)) {
				n := min(int64(len(a)), e.End()-off)
				if _, err := got.ReadAt(a[:n], off); err != nil {
					t.Fatal(err)
				}
				if _, err := want.ReadAt(b[:n], off); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(a[:n], b[:n]) {
					t.Fatalf("reads something else in the %d bytes from %d on", n, off)
				}
			}
		}
	}
}

// convert is what QEMU says that an image holds.
func convert(t *testing.T, path string) disk.Reader {
	t.Helper()
	out := filepath.Join(t.TempDir(), "flat.raw")
	disktest.QEMU(t, "qemu-img", "convert", "-t", "unsafe", "-f", "vmdk", "-O", "raw", path, out)
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	r, err := raw.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// unpack unpacks the disks of an appliance.
func unpack(t *testing.T, path string) []string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir, r := t.TempDir(), tar.NewReader(f)
	var paths []string
	for {
		h, err := r.Next()
		if err == io.EOF {
			slices.Sort(paths)
			return paths
		}
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(h.Name) == ".vmdk" {
			b, err := io.ReadAll(r)
			if err != nil {
				t.Fatal(err)
			}
			paths = append(paths, write(t, dir, filepath.Base(h.Name), b))
		}
	}
}
