package vhd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vhd"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

const mib = 1 << 20

// open opens an image that needs no other file.
func open(t *testing.T, image []byte) *vhd.Image {
	t.Helper()
	img, err := vhd.Open(bytes.NewReader(image), vhd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestQEMUImages(t *testing.T) {
	for _, size := range []int{512, 2*mib - 512, 2 * mib, 4*mib + 1536} {
		for _, o := range []string{
			"-S 4k -o subformat=dynamic", "-S 0 -o subformat=dynamic", "-S 4k -o subformat=dynamic,force_size=on", "-S 0 -o subformat=dynamic,force_size=on",
			"-S 4k -o subformat=fixed", "-S 4k -o subformat=fixed,force_size=on",
		} {
			t.Run(fmt.Sprint(size, " ", o), func(t *testing.T) {
				t.Parallel()
				content := disktest.Mixture(size, uint64(size))
				image := filepath.Join(t.TempDir(), "image")
				disktest.Make(t, image, "vpc", content, strings.Fields(o)...)

				// Without force_size, QEMU makes the disk larger, up to a geometry.
				img := open(t, disktest.ReadFile(t, image))
				if grown := img.Size() - int64(size); grown > 0 && !strings.Contains(o, "force_size") {
					content = append(content, make([]byte, grown)...)
				}
				if err := disktest.TestReader(img, content); err != nil {
					t.Error(err)
				}
				if !bytes.Equal(disktest.Flat(t, "-f", "vpc", image), content) {
					t.Error("QEMU reads something else")
				}
			})
		}
	}
}

func TestQEMUEdits(t *testing.T) {
	const size = 7*mib + 512
	for seed, o := range []string{"subformat=dynamic,force_size=on", "subformat=dynamic", "subformat=fixed"} {
		t.Run(o, func(t *testing.T) {
			t.Parallel()
			image := filepath.Join(t.TempDir(), "image")
			disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "vpc", "-o", o, image, fmt.Sprint(size))
			disktest.Edit(t, image, "vpc", size, uint64(seed))
			if err := disktest.TestReader(open(t, disktest.ReadFile(t, image)), disktest.Flat(t, "-f", "vpc", image)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Disks that other products made: see testdata/disks/ORIGIN.
func TestProducts(t *testing.T) {
	read := func(name string) []byte { return disktest.ReadFile(t, filepath.Join("testdata", "disks", name)) }
	for name, size := range map[string]int64{
		"qemu.vhd": 41953280, "vbox.vhd": 40 * mib, "xapi.vhd": 40 * mib, "win8.vhd": 40 * mib, "win8.1-1GB.vhd": 1 << 30, "win8-child.vhd": 40 * mib,
	} {
		img, err := vhd.Open(bytes.NewReader(read(name)), vhd.Options{Folder: folder{"win8.vhd": read("win8.vhd")}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if e, err := img.NextExtent(0); img.Size() != size || e.Length != 0 || err != nil {
			t.Errorf("%s: got %d bytes, extent %+v, %v, want an empty disk of %d bytes", name, img.Size(), e, err, size)
		}
	}
	img, err := vhd.Open(bytes.NewReader(read("win8-child.vhd")), vhd.Options{})
	if img != nil || !errors.Is(err, disk.ErrBackingFile) || !strings.Contains(fmt.Sprint(err), `"win8.vhd"`) {
		t.Errorf("child without parent: got %v, %v", img, err)
	}
}

// A spec says what a VHD is made of. It is written as the specification is: an
// image that is built of it does not come from the code under test.
type spec struct {
	diskType  uint32 // default: 3, or 4 with a parent
	creator   string // default: "win "
	version   uint32 // of the creator
	size      uint64
	blockSize int // default: 2 MiB
	id        byte

	parent     byte // 0: none
	parentName []byte
	locators   []locator

	fixed  []byte // the content of a fixed disk
	blocks []block
	order  []int // of the blocks that are there; default: ascending

	// change, if not nil, changes the structures before their checksums are made.
	change func(footer, header []byte)
}

type locator struct {
	code string
	data []byte
}

// A block is its content, nil if it is not there, and the sectors that its
// bitmap has; nil: all.
type block struct {
	data []byte
	bits []int
}

func uuidOf(b byte) []byte {
	if b == 0 {
		return make([]byte, 16)
	}
	return bytes.Repeat([]byte{b}, 16)
}

// sign puts in the checksum.
func sign(b []byte, at int) {
	copy(b[at:], make([]byte, 4))
	sum := uint32(0)
	for _, c := range b {
		sum += uint32(c)
	}
	binary.BigEndian.PutUint32(b[at:], ^sum)
}

func (s spec) footer() []byte {
	if s.diskType == 0 {
		s.diskType = 3
		if s.parent != 0 {
			s.diskType = 4
		}
		if s.fixed != nil {
			s.diskType, s.size = 2, uint64(len(s.fixed))
		}
	}
	if s.creator == "" {
		s.creator = "win "
	}
	be := binary.BigEndian
	b := make([]byte, 512)
	copy(b, "conectix")
	be.PutUint32(b[8:], 2)
	be.PutUint32(b[12:], 0x00010000)
	be.PutUint64(b[16:], 512)
	if s.fixed != nil {
		be.PutUint64(b[16:], 0xffffffffffffffff)
	}
	be.PutUint32(b[24:], 0x1c6c0c56)
	copy(b[28:], s.creator)
	be.PutUint32(b[32:], s.version)
	copy(b[36:], "Wi2k")
	be.PutUint64(b[40:], s.size)
	be.PutUint64(b[48:], s.size)
	copy(b[56:], "\x00\x01\x04\x11") // a geometry of 34 KiB
	be.PutUint32(b[60:], s.diskType)
	copy(b[68:], uuidOf(s.id))
	return b
}

func (s spec) build() []byte {
	footer := s.footer()
	if s.fixed != nil {
		if s.change != nil {
			s.change(footer, make([]byte, 1024))
		}
		sign(footer, 64)
		return append(bytes.Clone(s.fixed), footer...)
	}
	if s.blockSize == 0 {
		s.blockSize = 2 * mib
	}
	be := binary.BigEndian
	up := func(n int) int { return (n + 511) &^ 511 }
	h := make([]byte, 1024)
	copy(h, "cxsparse\xff\xff\xff\xff\xff\xff\xff\xff")
	be.PutUint64(h[16:], 1536)
	be.PutUint32(h[24:], 0x00010000)
	be.PutUint32(h[28:], uint32(len(s.blocks)))
	be.PutUint32(h[32:], uint32(s.blockSize))
	copy(h[40:], uuidOf(s.parent))
	copy(h[64:], s.parentName)

	at := 1536 + up(4*len(s.blocks))
	var names []byte
	for n, l := range s.locators {
		b := h[576+24*n:]
		copy(b, l.code)
		be.PutUint32(b[4:], 512)
		be.PutUint32(b[8:], uint32(len(l.data)))
		be.PutUint64(b[16:], uint64(at+len(names)))
		names = append(append(names, l.data...), make([]byte, up(len(l.data))-len(l.data))...)
	}
	at += len(names)

	table := bytes.Repeat([]byte{0xff}, up(4*len(s.blocks)))
	bitmap := up((s.blockSize/512 + 7) / 8)
	stride := bitmap + s.blockSize
	var data []byte
	place := 0
	for n, block := range s.blocks {
		if block.data == nil {
			continue
		}
		to := place
		if s.order != nil {
			to = s.order[place]
		}
		place++
		be.PutUint32(table[4*n:], uint32((at+to*stride)/512))
		if need := (to + 1) * stride; len(data) < need {
			data = append(data, make([]byte, need-len(data))...)
		}
		b := data[to*stride:][:stride]
		if block.bits == nil {
			copy(b, bytes.Repeat([]byte{0xff}, bitmap))
		}
		for _, sector := range block.bits {
			b[sector/8] |= 0x80 >> (sector % 8)
		}
		copy(b[bitmap:], block.data)
	}
	if s.change != nil {
		s.change(footer, h)
	}
	sign(footer, 64)
	sign(h, 36)
	return bytes.Join([][]byte{footer, h, table, names, data, footer}, nil)
}

// fill is the content of a block.
func fill(c byte, n int) []byte { return bytes.Repeat([]byte{c}, n) }

func TestBuiltImages(t *testing.T) {
	const b = 4096
	blocks := []block{{data: fill('a', b)}, {}, {data: fill('c', b)}, {data: fill('d', b)}}
	small := func(s spec) []byte {
		s.blockSize = b
		if s.blocks == nil {
			s.blocks, s.size = blocks, 4*b
		}
		return s.build()
	}
	content := slices.Concat(fill('a', b), make([]byte, b), fill('c', b), fill('d', b))
	damage := func(image []byte, at int) []byte {
		image[at+100]++
		return image
	}
	var scattered []int
	for n := range 4096 {
		if n%512 < 300 && n/512 != 5 {
			scattered = append(scattered, n)
		}
	}
	half := fill('x', 2*mib)
	for n := range 4096 {
		if n%512 >= 300 || n/512 == 5 {
			clear(half[512*n:][:512])
		}
	}
	head := small(spec{id: 7})[:2048]

	for name, test := range map[string]struct{ image, want []byte }{
		"blocks in any order":      {small(spec{order: []int{2, 0, 1}}), content},
		"last block of one sector": {small(spec{size: 3*b + 512, blocks: blocks}), content[:3*b+512]},
		"entries beyond the disk":  {small(spec{size: 2 * b, blocks: blocks}), content[:2*b]},
		"empty disk":               {small(spec{size: 0, blocks: []block{}}), nil},
		"blocks of 512 bytes":      {spec{size: 1536, blockSize: 512, blocks: []block{{data: fill('a', 512)}, {}, {data: fill('c', 512)}}}.build(), slices.Concat(fill('a', 512), make([]byte, 512), fill('c', 512))},
		"blocks of 4 MiB":          {spec{size: 5 * mib, blockSize: 4 * mib, blocks: []block{{data: fill('a', 4*mib)}, {data: fill('b', 4*mib)}}}.build(), slices.Concat(fill('a', 4*mib), fill('b', mib))},
		"only some sectors":        {spec{size: 2 * mib, blocks: []block{{data: fill('x', 2*mib), bits: scattered}}}.build(), half},
		"the least of bits":        {small(spec{size: b, blocks: []block{{data: fill('a', b), bits: []int{0, 7}}}}), slices.Concat(fill('a', 512), make([]byte, b-1024), fill('a', 512))},
		"no bits":                  {small(spec{size: b, blocks: []block{{data: fill('a', b), bits: []int{}}}}), make([]byte, b)},
		"temporary":                {small(spec{change: func(f, _ []byte) { f[11] = 3 }}), content},
		"table and header elsewhere": {func() []byte {
			image := small(spec{change: func(f, h []byte) { f[22], h[22] = 0x80, 0x90 }})
			image = append(image, make([]byte, 0x9200-len(image))...)
			copy(image[0x8000:], image[512:1536])
			copy(image[0x9000:], image[1536:2048])
			clear(image[512:2048])
			return append(image, image[:512]...)
		}(), content},

		"footer damaged": {func() []byte { i := small(spec{}); return damage(i, len(i)-512) }(), content},
		"footer missing": {func() []byte { i := small(spec{}); return i[:len(i)-512] }(), content},
		"footer marked as in use": {func() []byte {
			i := small(spec{creator: "tap\x00", version: 0x00010003})
			copy(i[len(i)-512:], fill(0xc7, 512))
			return i
		}(), content},
		"copy of the footer damaged":              {damage(small(spec{}), 0), content},
		"footer of 511 bytes":                     {func() []byte { i := small(spec{}); return i[:len(i)-1] }(), content},
		"fixed":                                   {spec{fixed: content}.build(), content},
		"fixed, no bytes":                         {spec{fixed: []byte{}}.build(), nil},
		"fixed, footer of 511 bytes":              {func() []byte { i := spec{fixed: content}.build(); return i[:len(i)-1] }(), content},
		"fixed, larger file":                      {spec{fixed: content, change: func(f, _ []byte) { f[54] -= 2 }}.build(), content[:len(content)-512]},
		"fixed, its guest wrote a dynamic header": {spec{fixed: head}.build(), head},
		"larger than its geometry":                {small(spec{size: 100 * b, blocks: make([]block, 100), creator: "vbox"}), make([]byte, 100*b)},
		"larger than its geometry, Virtual PC":    {small(spec{size: 100 * b, blocks: make([]block, 100), creator: "vpc "}), make([]byte, 100*b)},
	} {
		img, err := vhd.Open(bytes.NewReader(test.image), vhd.Options{})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := disktest.TestReader(img, test.want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHasFooter(t *testing.T) {
	fixed := spec{fixed: fill('a', 1024)}.build()
	dynamic := spec{size: 512, blockSize: 512, blocks: []block{{}}}.build()
	for name, test := range map[string]struct {
		tail []byte
		want bool
	}{
		"fixed":          {fixed[1024:], true},
		"511 bytes":      {fixed[1023:][:512], true},
		"more before it": {fixed, true},
		"dynamic":        {dynamic, true},
		"wrong checksum": {append(bytes.Clone(fixed[1024:1535]), 1), false},
		"too short":      {fixed[1026:], false},
		"nothing":        {nil, false},
	} {
		if got := vhd.HasFooter(test.tail); got != test.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// A folder has files by their names.
type folder map[string][]byte

func (f folder) Parent(name string) (virtual.Reader, virtual.Folder, error) {
	if strings.Contains(name, ":") || path.IsAbs(name) {
		return nil, nil, fmt.Errorf("%w: %q", virtual.ErrBackingFile, name)
	}
	image, ok := f[path.Clean(name)]
	if !ok {
		return nil, nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	return bytes.NewReader(image), f, nil
}
func (f folder) Extent(string) (virtual.Reader, error) { return nil, virtual.ErrBackingFile }
func (f folder) NamesIn(string) ([]string, error)      { return nil, virtual.ErrBackingFile }

func utf16Of(s string, bigEndian bool) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		if bigEndian {
			b = binary.BigEndian.AppendUint16(b, u)
		} else {
			b = binary.LittleEndian.AppendUint16(b, u)
		}
	}
	return b
}

func TestDifferencing(t *testing.T) {
	const b = 4096
	small := func(s spec) []byte {
		s.blockSize = b
		return s.build()
	}
	child := func(s spec) []byte {
		s.id, s.parent, s.size = 3, 2, 5*b
		s.blocks = []block{{data: fill('x', b)}, {}, {data: fill('y', b), bits: []int{1, 2}}, {}, {}}
		return small(s)
	}
	base := small(spec{id: 1, size: 5 * b, blocks: []block{{data: fill('a', b)}, {data: fill('b', b)}, {data: fill('c', b)}, {data: fill('d', b)}, {}}})
	middle := small(spec{id: 2, parent: 1, parentName: utf16Of("base.vhd", true), size: 5 * b, blocks: []block{
		{data: fill('m', b)}, {data: fill('m', b), bits: []int{7}}, {data: fill('m', b), bits: []int{0, 1}}, {}, {},
	}})
	want := slices.Concat(fill('x', b), fill('b', b-512), fill('m', 512), fill('m', 512), fill('y', 1024), fill('c', b-1536), fill('d', b), make([]byte, b))
	files := folder{"p.vhd": middle, "sub/p.vhd": middle, "ö p.vhd": middle, "base.vhd": base, "sub/base.vhd": base, "other.vhd": base, "junk.vhd": []byte("junk")}

	for name, s := range map[string]spec{
		"relative":                        {locators: []locator{{"W2ru", utf16Of(`.\p.vhd`, false)}}},
		"relative, in a folder":           {locators: []locator{{"W2ru", utf16Of(`sub\p.vhd`, false)}}},
		"relative, big endian":            {locators: []locator{{"W2ru", utf16Of(`.\p.vhd`, true)}}},
		"relative, ended by NUL":          {locators: []locator{{"W2ru", utf16Of(".\\p.vhd\x00\x00", false)}}},
		"relative, not ASCII":             {locators: []locator{{"W2ru", utf16Of(`.\ö p.vhd`, false)}}},
		"absolute, moved":                 {locators: []locator{{"W2ku", utf16Of(`C:\VMs\p.vhd`, false)}}},
		"on a share":                      {locators: []locator{{"W2ku", utf16Of(`\\host\VMs\p.vhd`, false)}}},
		"relative, moved":                 {locators: []locator{{"W2ru", utf16Of(`..\..\VMs\p.vhd`, false)}}},
		"URL":                             {locators: []locator{{"MacX", []byte("file://localhost/p.vhd")}}},
		"URL of XenServer":                {locators: []locator{{"MacX", []byte("file://./%C3%B6%20p.vhd")}}},
		"deprecated":                      {locators: []locator{{"Wi2r", []byte(".\\p.vhd\x00")}}},
		"deprecated, absolute":            {locators: []locator{{"Wi2k", []byte(`D:\p.vhd`)}}},
		"only the Parent Unicode Name":    {parentName: utf16Of("p.vhd", true)},
		"Parent Unicode Name is a path":   {parentName: utf16Of(`C:\Users\me\p.vhd`, true)},
		"name is little endian":           {parentName: utf16Of("p.vhd", false)},
		"locators of others":              {locators: []locator{{"Mac ", []byte("alias")}, {"????", []byte("?")}, {"W2ku", nil}, {"W2ru", utf16Of("p.vhd", false)}}},
		"locator of no bytes":             {parentName: utf16Of("p.vhd", true), locators: []locator{{"W2ku", nil}}, change: func(_, h []byte) { h[576+16] = 0xff }},
		"another file has the first name": {locators: []locator{{"W2ku", utf16Of(`C:\p.vhd`, false)}, {"W2ru", utf16Of("other.vhd", false)}}},
		"junk has the first name":         {locators: []locator{{"W2ku", utf16Of(`C:\p.vhd`, false)}, {"W2ru", utf16Of("junk.vhd", false)}}},
	} {
		img, err := vhd.Open(bytes.NewReader(child(s)), vhd.Options{Folder: files})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err := disktest.TestReader(img, want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	named := spec{parentName: utf16Of("p.vhd", true)}
	d := func(n int) []byte { return fill('d', n) }
	for name, test := range map[string]struct{ parent, want []byte }{
		"fixed":   {spec{id: 2, fixed: d(5 * b)}.build(), slices.Concat(fill('x', b), d(b), d(512), fill('y', 1024), d(b-1536), d(2*b))},
		"shorter": {spec{id: 2, fixed: d(3*b + 512)}.build(), slices.Concat(fill('x', b), d(b), d(512), fill('y', 1024), d(b-1536), d(512), make([]byte, 2*b-512))},
		"longer":  {spec{id: 2, fixed: d(7 * b)}.build(), slices.Concat(fill('x', b), d(b), d(512), fill('y', 1024), d(b-1536), d(2*b))},
	} {
		img, err := vhd.Open(bytes.NewReader(child(named)), vhd.Options{Folder: folder{"p.vhd": test.parent}})
		if err != nil {
			t.Errorf("parent %s: %v", name, err)
			continue
		}
		if err := disktest.TestReader(img, test.want); err != nil {
			t.Errorf("parent %s: %v", name, err)
		}
	}

	for name, test := range map[string]struct {
		spec   spec
		folder virtual.Folder
		want   error
		says   string
	}{
		"no folder":             {named, nil, disk.ErrBackingFile, `"p.vhd"`},
		"not there":             {named, folder{}, disk.ErrBackingFile, `"p.vhd"`},
		"wrong parent":          {named, folder{"p.vhd": base}, disk.ErrCorrupt, `"p.vhd" is not the parent: it has ID 01010101010101010101010101010101, wanted 0202`},
		"parent is junk":        {named, folder{"p.vhd": []byte("junk")}, disk.ErrCorrupt, "not a VHD"},
		"its parent is missing": {named, folder{"p.vhd": middle}, disk.ErrBackingFile, `"base.vhd"`},
		"no name":               {spec{}, files, disk.ErrCorrupt, "does not name its parent"},
		"locator outside": {spec{locators: []locator{{"W2ru", []byte("?")}}, change: func(_, h []byte) { h[576+16+4] = 1 }},
			files, disk.ErrCorrupt, "parent locator of 1 bytes"},
		"locator at 2^63": {spec{locators: []locator{{"W2ru", []byte("?")}}, change: func(_, h []byte) { h[576+16] = 0x80 }},
			files, disk.ErrCorrupt, "parent locator of 1 bytes"},
		"locator that ends outside": {spec{locators: []locator{{"W2ru", []byte("?")}}, change: func(_, h []byte) { h[576+10] = 0xff }},
			files, disk.ErrCorrupt, "parent locator of 65281 bytes"},
		"locator too long": {spec{locators: []locator{{"W2ru", fill('a', 70000)}}}, files, disk.ErrCorrupt, "parent locator of 70000 bytes"},
		"wrong parents": {spec{locators: []locator{{"W2ru", utf16Of("other.vhd", false)}}, parentName: utf16Of("base.vhd", true)},
			files, disk.ErrCorrupt, `"other.vhd" is not the parent`},
		"wrong parent beside, another out of bounds": {spec{locators: []locator{{"W2ku", utf16Of(`C:\base.vhd`, false)}}},
			files, disk.ErrCorrupt, `"base.vhd" is not the parent`},
		"locator of 16 MiB": {spec{locators: []locator{{"W2ru", []byte("?")}}, change: func(_, h []byte) { h[576+8] = 1 }},
			files, disk.ErrCorrupt, "parent locator of 16777217 bytes"},
	} {
		img, err := vhd.Open(bytes.NewReader(child(test.spec)), vhd.Options{Folder: test.folder})
		if img != nil || !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.says) {
			t.Errorf("%s: got %v, %v, want %v that says %s", name, img, err, test.want, test.says)
		}
	}
}

func TestRefusals(t *testing.T) {
	const b = 4096
	good := spec{size: 3 * b, blockSize: b, blocks: []block{{data: fill('a', b)}, {}, {data: fill('c', b)}}}
	in := func(change func(f, h []byte)) []byte {
		s := good
		s.change = change
		return s.build()
	}
	be := binary.BigEndian
	image := good.build()
	fixed := spec{fixed: fill('a', b)}.build()
	for name, test := range map[string]struct {
		image []byte
		want  error
		says  string
	}{
		"empty file":                     {nil, disk.ErrCorrupt, "not a VHD"},
		"no cookie":                      {make([]byte, 5000), disk.ErrCorrupt, "not a VHD"},
		"both footers damaged":           {func() []byte { i := bytes.Clone(image); i[50]++; i[len(i)-50]++; return i }(), disk.ErrCorrupt, "checksum of the footer"},
		"footer of a fixed disk damaged": {func() []byte { i := bytes.Clone(fixed); i[len(i)-50]++; return i }(), disk.ErrCorrupt, "checksum of the footer"},
		"fixed disk cut short":           {fixed[512:], disk.ErrCorrupt, "a fixed disk of 4096 bytes: the file has 3584"},
		"fixed disk without footer":      {func() []byte { return append(bytes.Clone(fixed[b:]), make([]byte, 5000)...) }(), disk.ErrCorrupt, "checksum of the footer"},
		"version":                        {in(func(f, _ []byte) { f[13] = 2 }), disk.ErrUnsupported, "version 2.0"},
		"size of no whole sectors":       {in(func(f, _ []byte) { f[55] = 1 }), disk.ErrCorrupt, "a disk of 12289 bytes"},
		"size of 2^63":                   {in(func(f, _ []byte) { f[48] = 0x80 }), disk.ErrCorrupt, "a disk of 9223372036854788096 bytes"},
		"saved state":                    {in(func(f, _ []byte) { f[84] = 1 }), disk.ErrUnsupported, "memory is saved"},
		"disk type":                      {in(func(f, _ []byte) { f[63] = 5 }), disk.ErrUnsupported, "disk type 5"},
		"no header":                      {in(func(f, _ []byte) { f[22] = 0x04 }), disk.ErrCorrupt, "no dynamic disk header at 0x400"},
		"header outside":                 {in(func(f, _ []byte) { f[20] = 1 }), disk.ErrCorrupt, "header of 1024 bytes at 0x1000200"},
		"header at 2^64-1":               {in(func(f, _ []byte) { copy(f[16:], fill(0xff, 8)) }), disk.ErrCorrupt, "header of 1024 bytes at 0xffffffffffffffff"},
		"header's checksum":              {func() []byte { i := bytes.Clone(image); i[1500]++; return i }(), disk.ErrCorrupt, "checksum of the dynamic disk header"},
		"header's version":               {in(func(_, h []byte) { h[25] = 2 }), disk.ErrUnsupported, "header version 2.0"},
		"old tapdisk":                    {in(func(f, _ []byte) { copy(f[28:], "tap\x00\x00\x00\x00\x01") }), disk.ErrUnsupported, "tapdisk 0.1"},
		"block size no power":            {in(func(_, h []byte) { h[34] = 0x11 }), disk.ErrUnsupported, "blocks of 4352"},
		"block size 0":                   {in(func(_, h []byte) { h[34] = 0 }), disk.ErrUnsupported, "blocks of 0"},
		"block size 2^31":                {in(func(_, h []byte) { be.PutUint32(h[32:], 1<<31) }), disk.ErrUnsupported, "blocks of 2147483648"},
		"table too short":                {in(func(_, h []byte) { h[31] = 2 }), disk.ErrCorrupt, "2 entries: the disk has 3 blocks"},
		"table outside":                  {in(func(_, h []byte) { h[20] = 1 }), disk.ErrCorrupt, "block allocation table of 12 bytes at 0x1000600"},
		"table cut short":                {image[:1540], disk.ErrCorrupt, "block allocation table of 12 bytes at 0x600"},
		"table at 2^63":                  {in(func(_, h []byte) { h[16] = 0x80 }), disk.ErrCorrupt, "block allocation table"},
		"table not at a sector":          {in(func(_, h []byte) { h[23] = 4 }), disk.ErrCorrupt, "block allocation table"},
		"2^61 bytes":                     {in(func(f, h []byte) { f[48] = 0x20; copy(h[28:], fill(0xff, 4)) }), disk.ErrCorrupt, "entries"},
	} {
		img, err := vhd.Open(bytes.NewReader(test.image), vhd.Options{})
		if img != nil || !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.says) {
			t.Errorf("%s: got %v, %v, want %v that says %q", name, img, err, test.want, test.says)
		}
	}

	for name, image := range map[string][]byte{
		"block outside of the file": func() []byte { i := bytes.Clone(image); i[1536+1] = 1; return i }(),
		"file cut short":            image[:len(image)-513],
	} {
		img := open(t, image)
		if _, err := img.ReadAt(make([]byte, 3*b), 0); !errors.Is(err, disk.ErrCorrupt) {
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

// A header that claims much costs what its file has.
func TestHugeDisk(t *testing.T) {
	const blocks = 1 << 16
	image := spec{size: blocks << 28, blockSize: 1 << 28, blocks: make([]block, blocks)}.build()
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
