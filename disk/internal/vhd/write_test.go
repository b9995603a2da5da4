package vhd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vhd"
)

var id = [16]byte(uuidOf(1))

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

// QEMU reads the same disk, of the same size, whatever the file held before; and
// the file does not depend on that.
func TestQEMUReadsWhatWeWrite(t *testing.T) {
	for name, v := range variants {
		for _, size := range []int{1, 512, mib, 2 * mib, 2*mib + 1, 5*mib + 512, 6 * mib} {
			content := disktest.Mixture(size, uint64(size))
			data := []disk.Extent{{Offset: int64(size / 2), Length: 1}, {Offset: int64(size/2 + 1), Length: int64(size - size/2 - 1)}}
			if data[1].Length == 0 {
				data = data[:1]
			}
			clear(content[:size/2])
			var first []byte
			for _, before := range []int{0, 9 * mib} {
				f := disktest.CreateFile(t)
				if _, err := f.Write(fill(0xee, before)); err != nil {
					t.Fatal(err)
				}
				w, err := v.create(f, int64(size), disktest.Extents(data...))
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range data {
					if _, err := w.WriteAt(content[e.Offset:e.End()], e.Offset); err != nil {
						t.Fatal(err)
					}
				}
				if before > 0 {
					if !bytes.Equal(disktest.ReadFile(t, f.Name()), first) {
						t.Errorf("%s, %d bytes: another file over an old one", name, size)
					}
					continue
				}
				first = disktest.ReadFile(t, f.Name())
				rounded, err := v.diskSize(int64(size))
				if err != nil {
					t.Fatal(err)
				}
				want := append(bytes.Clone(content), make([]byte, rounded-int64(size))...)
				if !bytes.Equal(disktest.Flat(t, "-f", "vpc", f.Name()), want) {
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
	f := disktest.CreateFile(t)
	size := int64(5*mib + 512)
	if _, err := vhd.NewWriter(f, size, disktest.Extents(disk.Extent{Offset: 10, Length: 1}, disk.Extent{Offset: 5 * mib, Length: 1}), id); err != nil {
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
	if got := disktest.ReadFile(t, f.Name()); !bytes.Equal(got, want) {
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
		f := disktest.CreateFile(t)
		if _, err := vhd.NewWriter(f, size, nil, id); err != nil {
			t.Fatal(err)
		}
		if got := disktest.ReadFile(t, f.Name())[56:60]; string(got) != want {
			t.Errorf("%d bytes: got % x, want % x", size, got, want)
		}
		img := open(t, disktest.ReadFile(t, f.Name()))
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
			if _, werr := v.create(disktest.CreateFile(t), size, nil); !errors.Is(err, disk.ErrUnsupported) || !errors.Is(werr, disk.ErrUnsupported) {
				t.Errorf("%s, %d: got %v, %v", name, size, err, werr)
			}
		}
	}
}

// Every byte of a footer and a header, changed, with checksums that are right
// and that are not. The footer at the end is the one at the head.
func TestHeaderMutations(t *testing.T) {
	const b = 512 << 10
	content := slices.Concat(fill('a', b), fill('b', 512))
	m := disktest.Mutations{
		Format:  "vpc",
		Image:   spec{size: b + 512, blockSize: b, blocks: []block{{data: content[:b]}, {data: content[b:]}}}.build(),
		Content: content,
		Head:    1536,
		Open:    func(image []byte) (disk.Reader, error) { return vhd.Open(bytes.NewReader(image), vhd.Options{}) },
	}
	unsigned := func(image []byte) { copy(image[len(image)-512:], image[:512]) }
	signed := func(image []byte) {
		sign(image[:512], 64)
		sign(image[512:1536], 36)
		unsigned(image)
	}
	for off := range 1536 {
		if off >= 88 && off < 512 && off%16 != 0 || off >= 576 && off < 1536 && off%16 != 0 {
			continue // reserved, parent
		}
		for _, flip := range []byte{0x01, 0x84} {
			m.Each = append(m.Each, disktest.Mutation{At: off, Flip: flip, Seal: signed}, disktest.Mutation{At: off, Flip: flip, Seal: unsigned})
		}
	}
	m.Test(t)
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
		disktest.Explore(t, disktest.Suspect{Open: func() (disk.Reader, error) {
			return vhd.Open(bytes.NewReader(image), vhd.Options{Folder: parents})
		}})
	})
}
