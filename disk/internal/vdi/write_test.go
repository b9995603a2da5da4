package vdi_test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vdi"
)

var id = [16]byte(uuidOf(1))

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
			f := disktest.CreateFile(t)
			if _, err := f.Write(fill(0xee, before)); err != nil {
				t.Fatal(err)
			}
			w, err := vdi.NewWriter(f, test.size, disktest.Extents(test.data...), id)
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
			if got := disktest.ReadFile(t, f.Name()); !bytes.Equal(got, want) {
				t.Errorf("%s: got another image (%d bytes, want %d)", name, len(got), len(want))
			}
			disktest.QEMU(t, "qemu-img", "check", "-q", "-f", "vdi", f.Name())
		}
	}
}

func TestQEMUReadsWhatWeWrite(t *testing.T) {
	for _, size := range []int{1, 512, mib, mib + 1, 5*mib + 512, 6 * mib} {
		content := disktest.Mixture(size, uint64(size))
		f := disktest.CreateFile(t)
		w, err := vdi.NewWriter(f, int64(size), disktest.Extents(disk.Extent{Length: int64(size)}), id)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(disktest.Flat(t, "-f", "vdi", f.Name()), append(content, make([]byte, -size&511)...)) {
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
		_, werr := vdi.NewWriter(disktest.CreateFile(t), size, nil, id)
		if err == nil || werr == nil {
			t.Errorf("%d: got %v, %v", size, err, werr)
		}
	}
}

// Every byte of a header, changed.
func TestHeaderMutations(t *testing.T) {
	content := slices.Concat(fill('a', mib), fill('b', 512))
	m := disktest.Mutations{
		Format:  "vdi",
		Image:   spec{id: 1, size: mib + 512, blocks: [][]byte{content[:mib], content[mib:]}, align: 512}.build(),
		Content: content,
		Open:    func(image []byte) (disk.Reader, error) { return vdi.Open(bytes.NewReader(image), vdi.Options{}) },
	}
	for off := 64; off < 520; off++ {
		if off >= 84 && off < 340 && off%16 != 0 {
			continue // the comment
		}
		if off >= 380 && off < 384 {
			continue // cbBlockExtra: QEMU does not look at it
		}
		m.Each = append(m.Each, disktest.Mutation{At: off, Flip: 0x01}, disktest.Mutation{At: off, Flip: 0x84})
	}
	m.Test(t)
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
		disktest.Explore(t, disktest.Suspect{Open: func() (disk.Reader, error) {
			return vdi.Open(bytes.NewReader(image), vdi.Options{Folder: parents})
		}})
	})
}
