package vdi_test

import (
	"bytes"
	"errors"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vdi"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

func createFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

var id = [16]byte(uuidOf(1))

func extents(all ...disk.Extent) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func TestWriter(t *testing.T) {
	f := createFile(t)
	err := disktest.TestWriter(disktest.Target{
		Create: func(size int64, data iter.Seq2[disk.Extent, error]) (disk.Writer, error) {
			return vdi.NewWriter(f, size, data, id)
		},
		Open: func() (disk.Reader, error) {
			qemu(t, "qemu-img", "check", "-q", "-f", "vdi", f.Name())
			return vdi.Open(bytes.NewReader(readFile(t, f.Name())), vdi.Options{})
		},
	})
	if err != nil {
		t.Error(err)
	}
}

// What we write is what VirtualBox's structures say, to the last byte, whatever
// the file held before, and QEMU reads it.
func TestImageBytes(t *testing.T) {
	for name, test := range map[string]struct {
		size int64
		data []disk.Extent
		spec
	}{
		"empty disk": {5 * mib, nil, spec{size: 5 * mib, blocks: make([][]byte, 5)}},
		"no bytes":   {0, nil, spec{}},
		"odd size":   {100, []disk.Extent{{Offset: 10, Length: 90}}, spec{size: 512, blocks: [][]byte{append(make([]byte, 10), fill('x', 90)...)}}},
		"some blocks": {4*mib + 512, []disk.Extent{{Offset: mib - 1, Length: 1}, {Offset: 3 * mib, Length: mib + 512}}, spec{
			size:   4*mib + 512,
			blocks: [][]byte{append(make([]byte, mib-1), 'x'), free, free, fill('x', mib), fill('x', 512)},
		}},
	} {
		for _, before := range []int{0, 9 * mib} {
			f := createFile(t)
			if _, err := f.Write(fill(0xee, before)); err != nil {
				t.Fatal(err)
			}
			w, err := vdi.NewWriter(f, test.size, extents(test.data...), id)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range test.data {
				if _, err := w.WriteAt(fill('x', int(e.Length)), e.Offset); err != nil {
					t.Fatal(err)
				}
			}
			test.id = 1
			want := test.build()
			copy(want[408:], append(uuidOf(1)[:15], 0xfe)) // uuidModify
			if got := readFile(t, f.Name()); !bytes.Equal(got, want) {
				t.Errorf("%s: got another image (%d bytes, want %d)", name, len(got), len(want))
			}
			qemu(t, "qemu-img", "check", "-q", "-f", "vdi", f.Name())
		}
	}
}

func TestQEMUReadsWhatWeWrite(t *testing.T) {
	for _, size := range []int{1, 512, mib, mib + 1, 5*mib + 512, 6 * mib} {
		content := mixture(uint64(size), size)
		f := createFile(t)
		w, err := vdi.NewWriter(f, int64(size), extents(disk.Extent{Length: int64(size)}), id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(flat(t, f.Name()), append(content, make([]byte, -size&511)...)) {
			t.Errorf("%d bytes: QEMU reads something else", size)
		}
	}
}

func TestDiskSize(t *testing.T) {
	for size, want := range map[int64]int64{0: 0, 1: 512, 512: 512, 513: 1024, 1 << 40: 1 << 40, 1023 << 40: 1023 << 40} {
		if got, err := vdi.DiskSize(size); got != want || err != nil {
			t.Errorf("%d: got %d, %v", size, got, err)
		}
	}
	for _, size := range []int64{1 << 50, 1<<63 - 1} {
		_, err := vdi.DiskSize(size)
		_, werr := vdi.NewWriter(createFile(t), size, nil, id)
		if err == nil || werr == nil {
			t.Errorf("%d: got %v, %v", size, err, werr)
		}
	}
}

// Every byte of a header, changed: the image is refused, or it is what QEMU
// says, or the byte did not matter. Memory is bounded.
func TestHeaderMutations(t *testing.T) {
	image := spec{id: 1, size: mib + 512, blocks: [][]byte{fill('a', mib), fill('b', 512)}, align: 512}.build()
	want := some(slicesOf(fill('a', mib), fill('b', 512)))
	path := filepath.Join(t.TempDir(), "image")
	flat := filepath.Join(t.TempDir(), "flat")
	for off := 64; off < 520; off++ {
		if off >= 84 && off < 340 && off%16 != 0 {
			continue // the comment
		}
		if off >= 380 && off < 384 {
			continue // cbBlockExtra: QEMU does not look at it
		}
		for _, flip := range []byte{0x01, 0x84} {
			mutant := bytes.Clone(image[:1024])
			mutant[off] ^= flip
			before := allocated()
			got, err := readSome(patched{bytes.NewReader(image), mutant})
			if n := allocated() - before; err != nil && n > 64<<20 {
				t.Errorf("byte %d ^ %#x: allocated %d MiB to refuse it", off, flip, n>>20)
			}
			if err != nil {
				wantRefusal(t, err)
				continue
			}
			if bytes.Equal(got, want) {
				continue
			}
			if err := os.WriteFile(path, append(mutant, image[1024:]...), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-t", "unsafe", "-f", "vdi", "-O", "raw", path, flat).CombinedOutput()
			if err != nil {
				t.Errorf("byte %d ^ %#x: reads, but not as before, and QEMU says: %s", off, flip, out)
				continue
			}
			if !bytes.Equal(got, some(readFile(t, flat))) {
				t.Errorf("byte %d ^ %#x: QEMU reads something else", off, flip)
			}
		}
	}
}

// patched is a file that begins with other bytes.
type patched struct {
	*bytes.Reader
	head []byte
}

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.Reader.ReadAt(b, off)
	if off < int64(len(p.head)) {
		copy(b[:n], p.head[off:])
	}
	return n, err
}

// places are where some reads.
var places = []int64{0, mib - 4096, mib, mib + 4096}

// some is a few KiB of a disk's content.
func some(content []byte) (got []byte) {
	for _, at := range places {
		at = min(at, int64(len(content)))
		got = append(got, content[at:min(at+4096, int64(len(content)))]...)
	}
	return got
}

// readSome walks all extents of an image, and reads some of it.
func readSome(file virtual.Reader) (got []byte, err error) {
	img, err := vdi.Open(file, vdi.Options{})
	if err != nil {
		return nil, err
	}
	for _, err := range disk.Extents(img) {
		if err != nil {
			return nil, err
		}
	}
	for _, at := range places {
		p := make([]byte, 4096)
		n, err := img.ReadAt(p, at)
		if n < len(p) && !errors.Is(err, io.EOF) {
			return nil, err
		}
		got = append(got, p[:n]...)
	}
	return got, nil
}

// FuzzOpen wants of any file that it is refused as what it is, or that all ways
// to read it agree with each other, in bounded memory.
func FuzzOpen(f *testing.F) {
	const b = 512
	small := func(s spec) []byte {
		s.blockSize, s.align = b, 512
		return s.build()
	}
	blocks := [][]byte{fill('a', b), free, zero, fill('b', b)}
	f.Add(small(spec{id: 1, size: 4 * b, blocks: blocks}))
	f.Add(small(spec{id: 1, size: 3*b + 7, blocks: blocks, order: []uint32{1, 0}}))
	f.Add(small(spec{id: 1, size: 4 * b, blocks: blocks, extra: 512}))
	f.Add(small(spec{version: 2, id: 1, size: 4 * b, blocks: blocks}))
	f.Add(small(spec{imageType: 2, id: 1, size: b, blocks: blocks[:1]}))
	f.Add(small(spec{id: 3, parent: 2, size: 4 * b, blocks: blocks}))
	parents := folder{"p.vdi": small(spec{id: 2, size: 6 * b, blocks: [][]byte{free, fill('p', b), free, free, free, fill('p', b)}})}

	f.Fuzz(func(t *testing.T, image []byte) {
		before := allocated()
		img, err := vdi.Open(bytes.NewReader(image), vdi.Options{Folder: parents})
		if err != nil {
			wantRefusal(t, err)
			return
		}
		rounds := 0
		for e, err := range disk.Extents(img) {
			if err != nil {
				wantRefusal(t, err)
				return
			}
			p := make([]byte, min(e.Length, 100))
			if n, err := img.ReadAt(p, e.Offset); n < len(p) {
				wantRefusal(t, err)
			}
			if rounds++; rounds == 100 {
				break
			}
		}
		if n := allocated() - before; n > 64<<20 {
			t.Errorf("allocated %d MiB for a file of %d bytes", n>>20, len(image))
		}
		if img.Size() > 1<<20 {
			return
		}
		content := make([]byte, img.Size())
		if n, err := img.ReadAt(content, 0); n < len(content) {
			wantRefusal(t, err)
			return
		}
		if err := disktest.TestReader(img, content); err != nil {
			t.Error(err)
		}
	})
}

func wantRefusal(t *testing.T, err error) {
	t.Helper()
	for _, kind := range []error{disk.ErrCorrupt, disk.ErrUnsupported, disk.ErrBackingFile} {
		if errors.Is(err, kind) {
			return
		}
	}
	t.Errorf("got error %v", err)
}
