package vhd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vhd"
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

// A variant is a way to write a VHD.
type variant struct {
	diskSize func(size int64) (int64, error)
	create   func(f *os.File, size int64, data iter.Seq2[disk.Extent, error]) (disk.Writer, error)
}

var variants = map[string]variant{
	"dynamic": {vhd.DiskSize, func(f *os.File, size int64, data iter.Seq2[disk.Extent, error]) (disk.Writer, error) {
		return vhd.NewWriter(f, size, data, id)
	}},
	"fixed": {vhd.FixedDiskSize, func(f *os.File, size int64, data iter.Seq2[disk.Extent, error]) (disk.Writer, error) {
		return vhd.NewFixed(f, size, data, id)
	}},
}

// A section is a Reader or Writer of which the contract suite sees whole sectors
// only: that fixed disks have whole MiB is not its business.
type section struct {
	disk.Reader
	disk.Writer
	size int64
}

func (s section) Size() int64 { return s.size }

func (s section) ReadAt(p []byte, off int64) (int, error) {
	return io.NewSectionReader(s.Reader, 0, s.size).ReadAt(p, off)
}

func (s section) NextExtent(off int64) (disk.Extent, error) {
	e, err := disk.NextExtent(s.Reader, off)
	if e.Offset >= s.size {
		return disk.Extent{}, err
	}
	e.Length = min(e.Length, s.size-e.Offset)
	return e, err
}

func (s section) WriteAt(p []byte, off int64) (int, error) {
	if off > s.size-int64(len(p)) {
		return 0, errors.New("outside")
	}
	return s.Writer.WriteAt(p, off)
}

func TestWriters(t *testing.T) {
	for name, v := range variants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := createFile(t)
			var whole int64
			err := disktest.TestWriter(disktest.Target{
				Create: func(size int64, data iter.Seq2[disk.Extent, error]) (disk.Writer, error) {
					whole = (size + 511) &^ 511
					w, err := v.create(f, size, data)
					if err != nil {
						return nil, err
					}
					return section{w.(disk.Reader), w, whole}, nil
				},
				Open: func() (disk.Reader, error) {
					img, err := vhd.Open(bytes.NewReader(readFile(t, f.Name())), vhd.Options{})
					if err != nil {
						return nil, err
					}
					return struct{ disk.Reader }{section{Reader: img, size: whole}}, nil
				},
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// QEMU reads the same disk, of the same size, whatever the file held before; and
// the file does not depend on that.
func TestQEMUReadsWhatWeWrite(t *testing.T) {
	for name, v := range variants {
		for _, size := range []int{1, 512, mib, 2 * mib, 2*mib + 1, 5*mib + 512, 6 * mib} {
			content := mixture(uint64(size), size)
			data := []disk.Extent{{Offset: int64(size / 2), Length: 1}, {Offset: int64(size/2 + 1), Length: int64(size - size/2 - 1)}}
			if data[1].Length == 0 {
				data = data[:1]
			}
			clear(content[:size/2])
			var first []byte
			for _, before := range []int{0, 9 * mib} {
				f := createFile(t)
				if _, err := f.Write(fill(0xee, before)); err != nil {
					t.Fatal(err)
				}
				w, err := v.create(f, int64(size), extents(data...))
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range data {
					if _, err := w.WriteAt(content[e.Offset:e.End()], e.Offset); err != nil {
						t.Fatal(err)
					}
				}
				if before > 0 {
					if !bytes.Equal(readFile(t, f.Name()), first) {
						t.Errorf("%s, %d bytes: another file over an old one", name, size)
					}
					continue
				}
				first = readFile(t, f.Name())
				rounded, err := v.diskSize(int64(size))
				if err != nil {
					t.Fatal(err)
				}
				want := append(bytes.Clone(content), make([]byte, rounded-int64(size))...)
				if !bytes.Equal(flat(t, f.Name()), want) {
					t.Errorf("%s, %d bytes: QEMU reads something else", name, size)
				}
				if err := disktest.TestReader(open(t, first), want); err != nil {
					t.Errorf("%s, %d bytes: %v", name, size, err)
				}
			}
		}
	}
}

// The file is what its comment says, field by field.
func TestDynamicLayout(t *testing.T) {
	f := createFile(t)
	size := int64(5*mib + 512)
	if _, err := vhd.NewWriter(f, size, extents(disk.Extent{Offset: 10, Length: 1}, disk.Extent{Offset: 5 * mib, Length: 1}), id); err != nil {
		t.Fatal(err)
	}
	s := spec{size: uint64(size), version: 0x000a0000, id: 1, change: func(f, _ []byte) {
		clear(f[24:28]) // Time Stamp
		copy(f[56:], "\x00\x96\x04\x11")
	}}
	s.blocks = make([]block, 3)
	want := s.build()[:1536] // footer and header
	footer := want[:512]

	table := fill(0xff, 512)
	const first = 4096 // page before the first block
	binary.BigEndian.PutUint32(table[0:], (first+4096-512)/512)
	binary.BigEndian.PutUint32(table[8:], (first+4096+2*mib+4096-512)/512)
	want = append(append(want, table...), make([]byte, first-2048)...)
	for range 2 {
		want = append(append(want, make([]byte, 4096-512)...), fill(0xff, 512)...)
		want = append(want, make([]byte, 2*mib)...)
	}
	want = append(want, footer...)
	if got := readFile(t, f.Name()); !bytes.Equal(got, want) {
		t.Errorf("got another file (%d bytes, want %d)", len(got), len(want))
	}
}

func TestGeometry(t *testing.T) {
	for size, want := range map[int64]string{
		40 << 20:              "\x03\xc3\x05\x11", // as Windows, VirtualBox and XenServer
		1 << 30:               "\x08\x20\x10\x3f", // as Windows
		5 << 30:               "\x28\xa2\x10\x3f", // as Azure
		65535 * 16 * 63 * 512: "\x3f\x3f\x10\xff",
		200 << 20:             "\x03\x39\x10\x1f",
		300 << 20:             "\x02\x61\x10\x3f",
		127 << 30:             "\xfe\xfe\x10\xff",
		128 << 30:             "\xff\xff\x10\xff",
		2040 << 30:            "\xff\xff\x10\xff",
		0:                     "\x00\x00\x04\x11",
	} {
		f := createFile(t)
		if _, err := vhd.NewWriter(f, size, nil, id); err != nil {
			t.Fatal(err)
		}
		if got := readFile(t, f.Name())[56:60]; string(got) != want {
			t.Errorf("%d bytes: got % x, want % x", size, got, want)
		}
		img := open(t, readFile(t, f.Name()))
		if img.Size() != size {
			t.Errorf("%d bytes: reads as %d", size, img.Size())
		}
	}
}

func TestDiskSize(t *testing.T) {
	for size, want := range map[int64][2]int64{
		0: {0, mib}, 1: {512, mib}, 512: {512, mib}, mib: {mib, mib}, mib + 1: {mib + 512, 2 * mib}, 2040 << 30: {2040 << 30, 2040 << 30},
	} {
		dynamic, err := vhd.DiskSize(size)
		fixed, ferr := vhd.FixedDiskSize(size)
		if dynamic != want[0] || fixed != want[1] || err != nil || ferr != nil {
			t.Errorf("%d: got %d and %d, %v, %v", size, dynamic, fixed, err, ferr)
		}
	}
	for _, size := range []int64{2040<<30 + 1, 1<<63 - 1} {
		for name, v := range variants {
			_, err := v.diskSize(size)
			if _, werr := v.create(createFile(t), size, nil); !errors.Is(err, disk.ErrUnsupported) || !errors.Is(werr, disk.ErrUnsupported) {
				t.Errorf("%s, %d: got %v, %v", name, size, err, werr)
			}
		}
	}
}

// Every byte of a footer and a header, changed, with checksums that are right
// and that are not: the image is refused, or it is what QEMU says, or the byte
// did not matter. Memory is bounded.
func TestHeaderMutations(t *testing.T) {
	const b = 512 << 10
	s := spec{size: b + 512, blockSize: b, blocks: []block{{data: fill('a', b)}, {data: fill('b', 512)}}}
	image := s.build()
	want := some(all(fill('a', b), fill('b', 512)))
	path, flat := filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "flat")
	end := len(image) - 512
	for off := range 1536 {
		if off >= 88 && off < 512 && off%16 != 0 || off >= 576 && off < 1536 && off%16 != 0 {
			continue // reserved, parent
		}
		for _, flip := range []byte{0x01, 0x84} {
			for _, signed := range []bool{true, false} {
				mutant := bytes.Clone(image[:2048])
				mutant[off] ^= flip
				if signed {
					sign(mutant[:512], 64)
					sign(mutant[512:1536], 36)
				}
				file := patched{bytes.NewReader(image), mutant, end}
				before := allocated()
				got, err := readSome(file)
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
				whole := make([]byte, len(image))
				if _, err := file.ReadAt(whole, 0); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, whole, 0o600); err != nil {
					t.Fatal(err)
				}
				out, err := exec.CommandContext(t.Context(), "qemu-img", "convert", "-t", "unsafe", "-f", "vpc", "-O", "raw", path, flat).CombinedOutput()
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
}

// patched is a file that begins with other bytes, and has the first 512 of them
// also at the end.
type patched struct {
	*bytes.Reader
	head []byte
	end  int
}

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.Reader.ReadAt(b, off)
	for at := range b[:n] {
		switch i := int(off) + at; {
		case i < len(p.head):
			b[at] = p.head[i]
		case i >= p.end:
			b[at] = p.head[i-p.end]
		}
	}
	return n, err
}

// places are where some reads.
var places = []int64{0, 512<<10 - 4096, 512 << 10}

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
	img, err := vhd.Open(file, vhd.Options{})
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
// to read it agree with each other, in bounded memory. Checksums are put right
// on demand: a fuzzer would not find them.
func FuzzOpen(f *testing.F) {
	const b = 1024
	small := func(s spec) []byte {
		s.blockSize = b
		return s.build()
	}
	blocks := []block{{data: fill('a', b)}, {}, {data: fill('c', b), bits: []int{1}}, {data: fill('d', b)}}
	for _, signed := range []bool{false, true} {
		f.Add(small(spec{size: 4 * b, blocks: blocks}), signed)
		f.Add(small(spec{size: 3*b + 512, blocks: blocks, order: []int{1, 0, 2}}), signed)
		f.Add(small(spec{id: 3, parent: 2, size: 4 * b, blocks: blocks, locators: []locator{{"W2ru", utf16Of(`.\p.vhd`, false)}}}), signed)
		f.Add(spec{fixed: fill('x', 1000)}.build(), signed)
		f.Add(spec{fixed: fill('x', 1024)}.build(), signed)
	}
	products, err := filepath.Glob(filepath.Join("testdata", "disks", "*.vhd"))
	if err != nil || len(products) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range products {
		image, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(image[:min(len(image), 10000)], true)
	}
	parents := folder{"p.vhd": spec{id: 2, fixed: fill('p', 3*b)}.build()}

	f.Fuzz(func(t *testing.T, image []byte, signed bool) {
		if image = bytes.Clone(image); signed && len(image) >= 1536 {
			sign(image[len(image)-512:], 64)
			sign(image[512:1536], 36)
			sign(image[:512], 64)
		}
		before := allocated()
		img, err := vhd.Open(bytes.NewReader(image), vhd.Options{Folder: parents})
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
