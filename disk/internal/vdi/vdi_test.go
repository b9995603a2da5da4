package vdi_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vdi"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

const mib = 1 << 20

// open opens an image that needs no other file.
func open(t *testing.T, image []byte) *vdi.Image {
	t.Helper()
	img, err := vdi.Open(bytes.NewReader(image), vdi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestQEMUImages(t *testing.T) {
	for _, size := range []int{512, mib - 512, mib, mib + 512, 4*mib + 1536} {
		for _, o := range []string{"-S 4k", "-S 0", "-o static=on", "-o static=on -S 0"} {
			t.Run(fmt.Sprint(size, " ", o), func(t *testing.T) {
				t.Parallel()
				content := disktest.Mixture(size, uint64(size))
				image := filepath.Join(t.TempDir(), "image")
				disktest.Make(t, image, "vdi", content, strings.Fields(o)...)
				if err := disktest.TestReader(open(t, disktest.ReadFile(t, image)), content); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestQEMUEdits(t *testing.T) {
	const size = 6*mib + 512
	for seed, o := range []string{"static=off", "static=on"} {
		t.Run(o, func(t *testing.T) {
			t.Parallel()
			image := filepath.Join(t.TempDir(), "image")
			disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "vdi", "-o", o, image, fmt.Sprint(size))
			disktest.Edit(t, image, "vdi", size, uint64(seed))
			if err := disktest.TestReader(open(t, disktest.ReadFile(t, image)), disktest.Flat(t, "-f", "vdi", image)); err != nil {
				t.Error(err)
			}
		})
	}
}

// A spec says what a VDI is made of. It is written as VirtualBox's structures
// are: an image that is built of it does not come from the code under test.
type spec struct {
	version      uint32 // default: 1.1
	headerSize   uint32 // default: 400
	imageType    uint32 // default: 1, or 4 with a parent
	size         uint64
	blockSize    uint32 // default: 1 MiB
	extra        uint32
	align        int // of the map and the data; default: 1 MiB
	id, modify   byte
	parent       byte // 0: none
	parentModify byte

	// A block is its content, or free, or zero.
	blocks [][]byte

	order []uint32 // entries of the blocks that have content; default: ascending
}

var free, zero []byte = nil, []byte{}

func uuidOf(b byte) []byte {
	if b == 0 {
		return make([]byte, 16)
	}
	return bytes.Repeat([]byte{b}, 16)
}

func (s spec) build() []byte {
	set := func(v *uint32, to uint32) {
		if *v == 0 {
			*v = to
		}
	}
	set(&s.version, 0x00010001)
	set(&s.headerSize, 400)
	set(&s.blockSize, mib)
	set(&s.imageType, 1)
	if s.parent != 0 {
		s.imageType = 4
	}
	if s.align == 0 {
		s.align = mib
	}
	if s.modify == 0 {
		s.modify = ^s.id
	}
	up := func(n int) int { return (n + s.align - 1) / s.align * s.align }
	blocksAt := up(472)
	dataAt := up(blocksAt + 4*len(s.blocks))
	if s.version == 2 {
		blocksAt = 420
		dataAt = blocksAt + 4*len(s.blocks)
	}

	var table []uint32
	var data []byte
	allocated := uint32(0)
	for _, block := range s.blocks {
		switch {
		case block == nil:
			table = append(table, 0xffffffff)
			continue
		case len(block) == 0:
			table = append(table, 0xfffffffe)
			continue
		}
		entry := allocated
		if s.order != nil {
			entry = s.order[allocated]
		}
		allocated++
		table = append(table, entry)
		stride := int(s.extra + s.blockSize)
		if need := (int(entry) + 1) * stride; len(data) < need {
			data = append(data, bytes.Repeat([]byte{0xee}, need-len(data))...)
		}
		clear(data[int(entry)*stride+int(s.extra):][:s.blockSize])
		copy(data[int(entry)*stride+int(s.extra):], block)
	}

	le := binary.LittleEndian
	b := make([]byte, 64)
	copy(b, "<<< Oracle VM VirtualBox Disk Image >>>\n")
	u32 := func(v ...uint32) {
		for _, v := range v {
			b = le.AppendUint32(b, v)
		}
	}
	u32(0xbeda107f, s.version)
	if s.version != 2 {
		u32(s.headerSize)
	}
	u32(s.imageType, 0)
	b = append(b, make([]byte, 256)...)
	if s.version != 2 {
		u32(uint32(blocksAt), uint32(dataAt))
	}
	u32(0, 0, 0, 512)
	if s.version != 2 {
		u32(0)
	}
	b = le.AppendUint64(b, s.size)
	u32(s.blockSize)
	if s.version != 2 {
		u32(s.extra)
	}
	u32(uint32(len(s.blocks)), allocated)
	for _, id := range []byte{s.id, s.modify, s.parent, s.parentModify} {
		b = append(b, uuidOf(id)...)
	}
	if s.version == 2 {
		b = b[:len(b)-16] // no uuidParentModify
	} else if s.headerSize >= 400 {
		u32(0, 0, 0, 512)
	}
	b = append(b, make([]byte, blocksAt-len(b))...)
	u32(table...)
	b = append(b, make([]byte, dataAt-len(b))...)
	return append(b, data...)
}

// fill is a block's content.
func fill(c byte, n int) []byte { return bytes.Repeat([]byte{c}, n) }

func TestBuiltImages(t *testing.T) {
	for name, test := range map[string]struct {
		spec
		want []byte
	}{
		"blocks in any order": {
			spec{id: 1, size: 4 * mib, blocks: [][]byte{fill('a', mib), free, fill('b', mib), fill('c', mib)}, order: []uint32{2, 0, 1}},
			slices.Concat(fill('a', mib), make([]byte, mib), fill('b', mib), fill('c', mib)),
		},
		"zero blocks": {
			spec{id: 1, size: 3 * mib, blocks: [][]byte{zero, fill('b', mib), zero}},
			slices.Concat(make([]byte, mib), fill('b', mib), make([]byte, mib)),
		},
		"two blocks with one entry": {
			spec{id: 1, size: 2 * mib, blocks: [][]byte{fill('a', mib), fill('a', mib)}, order: []uint32{0, 0}},
			fill('a', 2*mib),
		},
		"blocks of 4 KiB": {
			spec{id: 1, size: 10000, blockSize: 4096, align: 512, blocks: [][]byte{fill('a', 4096), free, fill('b', 4096)}},
			slices.Concat(fill('a', 4096), make([]byte, 4096), fill('b', 10240-8192)),
		},
		"blocks of 4 MiB": {
			spec{id: 1, size: 5 * mib, blockSize: 4 * mib, blocks: [][]byte{free, fill('b', 4*mib)}},
			slices.Concat(make([]byte, 4*mib), fill('b', mib)),
		},
		"extra data before each block": {
			spec{id: 1, size: 3 * 4096, blockSize: 4096, extra: 512, align: 512, blocks: [][]byte{fill('a', 4096), fill('b', 4096), fill('c', 4096)}, order: []uint32{1, 0, 2}},
			slices.Concat(fill('a', 4096), fill('b', 4096), fill('c', 4096)),
		},
		"more blocks than the disk has": {
			spec{id: 1, size: 4096, blockSize: 4096, align: 512, blocks: [][]byte{fill('a', 4096), fill('b', 4096)}},
			fill('a', 4096),
		},
		"version 0.2": {
			spec{version: 2, id: 1, size: 2*mib - 512, blocks: [][]byte{free, fill('b', mib)}},
			slices.Concat(make([]byte, mib), fill('b', mib-512)),
		},
		"version 1.1 without LCHS": {
			spec{headerSize: 384, align: 512, id: 1, size: mib, blocks: [][]byte{fill('b', mib)}},
			fill('b', mib),
		},
		"fixed": {
			spec{imageType: 2, id: 1, size: 2 * mib, blocks: [][]byte{fill('a', mib), fill('b', mib)}},
			slices.Concat(fill('a', mib), fill('b', mib)),
		},
		// As QEMU.
		"size that is no multiple of a sector": {
			spec{id: 1, size: mib + 100, blocks: [][]byte{free, append(fill('b', 100), make([]byte, mib-100)...)}},
			slices.Concat(make([]byte, mib), fill('b', 100), make([]byte, 412)),
		},
	} {
		if err := disktest.TestReader(open(t, test.build()), test.want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A folder has files by their names, and those of the folder above as "../x".
type folder map[string][]byte

func (f folder) Parent(name string) (virtual.Reader, virtual.Folder, error) {
	name = path.Clean(name)
	image, ok := f[name]
	if !ok {
		return nil, nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	if image == nil {
		return nil, nil, virtual.Corrupt("%q: a loop", name)
	}
	if path.Dir(name) == ".." {
		below := folder{}
		for name, image := range f {
			if rest, ok := strings.CutPrefix(name, "../"); ok {
				below[rest] = image
			}
		}
		return bytes.NewReader(image), below, nil
	}
	return bytes.NewReader(image), f, nil
}

func (f folder) Extent(string) (virtual.Reader, error) { return nil, virtual.ErrBackingFile }

func (f folder) NamesIn(dir string) (names []string, err error) {
	for name := range f {
		if path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

func TestDifferencing(t *testing.T) {
	const b = 4096
	small := func(s spec) []byte {
		s.blockSize, s.align = b, 512
		return s.build()
	}
	child := small(spec{id: 3, parent: 2, parentModify: 22, size: 5 * b, blocks: [][]byte{fill('x', b), free, zero, free, free}})
	middle := small(spec{id: 2, modify: 22, parent: 1, parentModify: 11, size: 5 * b, blocks: [][]byte{fill('m', b), fill('m', b), fill('m', b), free, free}})
	base := small(spec{id: 1, modify: 11, size: 5 * b, blocks: [][]byte{fill('a', b), fill('b', b), fill('c', b), fill('d', b), free}})
	want := slices.Concat(fill('x', b), fill('m', b), make([]byte, b), fill('d', b), make([]byte, b))

	shorter := small(spec{id: 2, modify: 22, size: 3*b + 512, blocks: [][]byte{free, fill('m', b), fill('m', b), fill('d', b)}})
	longer := small(spec{id: 2, modify: 22, size: 7 * b, blocks: [][]byte{free, fill('m', b), free, fill('d', b), free, fill('e', b), fill('f', b)}})
	fixed := small(spec{imageType: 2, id: 2, modify: 22, size: 5 * b, blocks: [][]byte{fill('m', b), fill('m', b), fill('m', b), fill('d', b), make([]byte, b)}})
	old := small(spec{version: 2, id: 2, modify: 22, size: 5 * b, blocks: [][]byte{fill('m', b), fill('m', b), fill('m', b), fill('d', b), free}})

	changed := small(spec{id: 2, modify: 23, size: b, blocks: [][]byte{free}})

	crowd := folder{}
	for n := range 300 {
		crowd[fmt.Sprintf("%04d.vdi", n)] = []byte("junk")
	}
	with := func(f folder, name string, image []byte) folder {
		f = maps.Clone(f)
		f[name] = image
		return f
	}
	unlinked := small(spec{id: 2, modify: 22, parent: 1, size: 5 * b, blocks: [][]byte{fill('m', b), fill('m', b), fill('m', b), free, free}})
	normal := bytes.Clone(middle)
	normal[76] = 1

	for name, test := range map[string]struct {
		folder folder
		want   []byte
	}{
		"by its own UUID, in a crowd":       {with(crowd, "{02020202-0202-0202-0202-020202020202}.vdi", fixed), want},
		"parent does not know a state":      {folder{"p.vdi": unlinked, "q.vdi": base}, want},
		"parent is normal but has a parent": {folder{"p.vdi": normal, "q.vdi": base}, want},
		"three deep":                        {folder{"child.vdi": nil, "Other.VDI": middle, "junk.vdi": []byte("junk"), "b.vdi": base, "base.img": []byte("?")}, want},
		"by its own UUID":                   {folder{"{02020202-0202-0202-0202-020202020202}.vdi": middle, "{01010101-0101-0101-0101-010101010101}.vdi": base}, want},
		"in the folder above":               {folder{"{02020202-0202-0202-0202-020202020202}.vdi": middle, "../machine.vdi": base}, want},
		"parent shorter":                    {folder{"p.vdi": shorter}, slices.Concat(want[:3*b], fill('d', 512), make([]byte, 2*b-512))},
		"parent longer":                     {folder{"p.vdi": longer}, want},
		"parent fixed":                      {folder{"p.vdi": fixed}, want},
		"parent of version 0.2":             {folder{"p.vdi": old}, want},
		"copy of the parent, changed":       {folder{"a.vdi": changed, "p.vdi": middle, "q.vdi": base}, want},
	} {
		img, err := vdi.Open(bytes.NewReader(child), vdi.Options{Folder: test.folder})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := disktest.TestReader(img, test.want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	for name, test := range map[string]struct {
		folder virtual.Folder
		want   error
		says   string
	}{
		"no folder":                {nil, disk.ErrBackingFile, "{02020202-0202-0202-0202-020202020202}"},
		"not there":                {folder{"base.vdi": base}, disk.ErrBackingFile, "{02020202-0202-0202-0202-020202020202}"},
		"not named .vdi":           {folder{"middle.img": middle}, disk.ErrBackingFile, "UUID"},
		"parent of parent missing": {folder{"p.vdi": middle}, disk.ErrBackingFile, "{01010101-0101-0101-0101-010101010101}"},
		"parent was changed":       {folder{"p.vdi": changed}, disk.ErrCorrupt, `"p.vdi" was changed`},
		"only itself":              {folder{"child.vdi": nil}, disk.ErrBackingFile, "UUID"},
		"last in a crowd":          {with(crowd, "p.vdi", fixed), disk.ErrBackingFile, "UUID"},
		"nothing may be opened":    {closed{}, disk.ErrBackingFile, "{02020202-0202-0202-0202-020202020202}"},
	} {
		img, err := vdi.Open(bytes.NewReader(child), vdi.Options{Folder: test.folder})
		if img != nil || !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.says) {
			t.Errorf("%s: got %v, %v, want %v that says %s", name, img, err, test.want, test.says)
		}
		if !errors.Is(test.want, disk.ErrCorrupt) && errors.Is(err, disk.ErrCorrupt) {
			t.Errorf("%s: is corrupt, too: %v", name, err)
		}
	}
}

// closed opens nothing.
type closed struct{}

func (closed) Parent(name string) (virtual.Reader, virtual.Folder, error) {
	return nil, nil, fmt.Errorf("%w: %q", virtual.ErrBackingFile, name)
}
func (closed) Extent(string) (virtual.Reader, error) { return nil, virtual.ErrBackingFile }
func (closed) NamesIn(string) ([]string, error)      { return nil, virtual.ErrBackingFile }

func TestRefusals(t *testing.T) {
	good := spec{id: 1, size: 3 * 4096, blockSize: 4096, align: 512, blocks: [][]byte{fill('a', 4096), free, fill('c', 4096)}}
	put := func(at int, v uint32) func(b []byte) []byte {
		return func(b []byte) []byte {
			binary.LittleEndian.PutUint32(b[at:], v)
			return b
		}
	}
	for name, test := range map[string]struct {
		change func(b []byte) []byte
		want   error
		says   string
	}{
		"empty file":             {func(b []byte) []byte { return nil }, disk.ErrCorrupt, "not a VDI"},
		"no signature":           {put(64, 1), disk.ErrCorrupt, "not a VDI"},
		"header cut short":       {func(b []byte) []byte { return b[:455] }, disk.ErrCorrupt, "cut short"},
		"version":                {put(68, 0x00020000), disk.ErrUnsupported, "version 2.0"},
		"header size":            {put(72, 100), disk.ErrCorrupt, "header of 100 bytes"},
		"undo image":             {put(76, 3), disk.ErrUnsupported, "undo image"},
		"image type":             {put(76, 5), disk.ErrUnsupported, "image type 5"},
		"parent without UUID":    {put(76, 4), disk.ErrCorrupt, "without the UUID"},
		"map in the header":      {put(340, 72), disk.ErrCorrupt, "block map at"},
		"map not aligned":        {put(340, 516), disk.ErrUnsupported, "not at a sector"},
		"data not aligned":       {put(344, 1028), disk.ErrUnsupported, "not at a sector"},
		"map after the data":     {put(344, 0), disk.ErrCorrupt, "data at"},
		"map outside":            {func(b []byte) []byte { return b[:520] }, disk.ErrCorrupt, "block map of 12 bytes"},
		"size above 2^62":        {put(372, 1<<31), disk.ErrCorrupt, "less than the disk"},
		"size above all blocks":  {put(368, 3*4096+1), disk.ErrCorrupt, "less than the disk"},
		"block size no power":    {put(376, 4097), disk.ErrUnsupported, "blocks of 4097"},
		"block size 0":           {put(376, 0), disk.ErrUnsupported, "blocks of 0"},
		"block size 2^31":        {put(376, 1<<31), disk.ErrUnsupported, "blocks of 2147483648"},
		"extra no power":         {put(380, 513), disk.ErrUnsupported, "513 extra bytes"},
		"extra 2^31":             {put(380, 1<<31), disk.ErrUnsupported, "extra bytes"},
		"more allocated than is": {put(388, 4), disk.ErrCorrupt, "4 of 3 blocks"},
	} {
		img, err := vdi.Open(bytes.NewReader(test.change(good.build())), vdi.Options{})
		if img != nil || !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.says) {
			t.Errorf("%s: got %v, %v, want %v that says %q", name, img, err, test.want, test.says)
		}
	}

	image := good.build()
	for name, image := range map[string][]byte{
		"block outside of the file": put(512, 2)(bytes.Clone(image)),
		"file cut short":            image[:len(image)-1],
	} {
		img := open(t, image)
		p := make([]byte, 3*4096)
		if _, err := img.ReadAt(p, 0); !errors.Is(err, disk.ErrCorrupt) {
			t.Errorf("%s: reading: got error %v", name, err)
		}
		var err error
		for _, err = range disk.Extents(img) {
			if err != nil {
				break
			}
		}
		if !errors.Is(err, disk.ErrCorrupt) {
			t.Errorf("%s: walking: got error %v", name, err)
		}
	}
}

// A header that claims 8 TiB costs what its file has.
func TestHugeDisk(t *testing.T) {
	const blocks = 1 << 16
	s := spec{id: 1, size: blocks << 27, blockSize: 128 * mib, align: 512}
	s.blocks = make([][]byte, blocks)
	image := s.build()
	before := disktest.Allocated()
	img := open(t, image)
	if e, err := img.NextExtent(0); err != nil || e.Length != 0 {
		t.Errorf("got extent %+v, %v", e, err)
	}
	p := make([]byte, 1000)
	if n, err := img.ReadAt(p, img.Size()-1000); n != 1000 {
		t.Errorf("got %d, %v", n, err)
	}
	if n := disktest.Allocated() - before; n > 64<<20 {
		t.Errorf("allocated %d MiB", n>>20)
	}
}
