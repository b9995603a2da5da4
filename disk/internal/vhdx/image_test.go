package vhdx_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/davit-oci/davit/disk"
)

// What QEMU cannot make is made here, from the specification and without the
// code under test.

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
	tib = 1 << 40
)

var le = binary.LittleEndian

// A memory is a sparse file.
type memory struct {
	size  int64
	pages map[int64][]byte
}

const page = 4096

func (m *memory) Size() int64 { return m.size }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	for n < len(p) && off < m.size {
		part := p[n : n+int(min(int64(len(p)-n), page-off%page, m.size-off))]
		clear(part)
		if b := m.pages[off/page]; b != nil {
			copy(part, b[off%page:])
		}
		n, off = n+len(part), off+int64(len(part))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if m.pages == nil {
		m.pages = map[int64][]byte{}
	}
	n := len(p)
	m.size = max(m.size, off+int64(n))
	for len(p) > 0 {
		b := m.pages[off/page]
		if b == nil {
			b = make([]byte, page)
			m.pages[off/page] = b
		}
		k := copy(b[off%page:], p)
		p, off = p[k:], off+int64(k)
	}
	return n, nil
}

func (m *memory) NextExtent(off int64) (disk.Extent, error) {
	if off < 0 {
		return disk.Extent{}, fmt.Errorf("negative offset")
	}
	first := int64(-1)
	for n := range m.pages {
		if n >= off/page && (first < 0 || n < first) {
			first = n
		}
	}
	if off >= m.size || first < 0 {
		return disk.Extent{}, nil
	}
	start := max(off, first*page)
	return disk.Extent{Offset: start, Length: min(first*page+page, m.size) - start}, nil
}

// save writes a memory to a file with holes.
func (m *memory) save(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(m.size); err != nil {
		t.Fatal(err)
	}
	for n, b := range m.pages {
		if _, err := f.WriteAt(b[:min(page, m.size-n*page)], n*page); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// load is the reverse of save.
func load(t *testing.T, path string) *memory {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{}
	for off := 0; off < len(b); off += page {
		if part := b[off:min(len(b), off+page)]; !bytes.Equal(part, make([]byte, len(part))) {
			m.WriteAt(part, int64(off))
		}
	}
	m.size = int64(len(b))
	return m
}

// guid is the binary form of a GUID.
func guid(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != 16 {
		panic(text)
	}
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return b
}

// seal sets the Checksum field of a structure.
func seal(b []byte) []byte {
	clear(b[4:8])
	le.PutUint32(b[4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}

const (
	logGUID  = "11223344-5566-7788-99aa-bbccddeeff00"
	dataGUID = "83ed0ec3-24c8-49a6-a959-5e4bf1288bfb"

	logAt      = 1 * mib
	metadataAt = 2 * mib
	batAt      = 3 * mib
)

// An image is a VHDX file in the making.
type image struct {
	*memory
	size, blockSize, sector int64
	end                     int64 // of the last block
}

// newImage makes an image without data; it has a parent if it has a locator.
func newImage(size, blockSize, sector int64, locator []byte) *image {
	i := &image{memory: &memory{}, size: size, blockSize: blockSize, sector: sector}
	i.patch(0, []byte("vhdxfile"))
	for n := range 2 {
		i.header(n, func(b []byte) {
			copy(b, "head")
			le.PutUint64(b[8:], uint64(n+1))
			copy(b[16:], guid("00000000-1111-2222-3333-444444444444"))
			copy(b[32:], guid(dataGUID))
			le.PutUint16(b[66:], 1)
			le.PutUint32(b[68:], mib)
			le.PutUint64(b[72:], logAt)
		})
	}

	blocks, ratio := (size+blockSize-1)/blockSize, i.ratio()
	bat := ((blocks+ratio-1)/ratio*(ratio+1)*8 + mib) / mib * mib
	i.end = batAt + bat
	i.memory.size = i.end
	for n := range 2 {
		i.regions(n, func(b []byte) {
			copy(b, "regi")
			le.PutUint32(b[8:], 2)
			copy(b[16:], entry32(guid("2DC27766-F623-4200-9D64-115E9BFD4A08"), batAt, uint32(bat), 1))
			copy(b[48:], entry32(guid("8B7CA206-4790-4B9A-B8FE-575F050F886E"), metadataAt, mib, 1))
		})
	}

	var parameters uint32
	items := []struct {
		id    string
		flags uint32
		value []byte
	}{
		{"BECA12AB-B2E6-4523-93EF-C309E000C746", 6, guid(dataGUID)},
		{"8141BF1D-A96F-4709-BA47-F233A8FAAB5F", 6, le.AppendUint32(nil, uint32(sector))},
		{"CDA348C7-445D-4471-9CC9-E9885251C556", 6, le.AppendUint32(nil, 4096)},
		{"2FA54224-CD1B-4876-B211-5DBED83BF4B8", 6, le.AppendUint64(nil, uint64(size))},
		{"CAA16737-FA36-4D43-B3B6-33F0AA44E76B", 4, nil},
	}
	if locator != nil {
		items = append(items, struct {
			id    string
			flags uint32
			value []byte
		}{"A8D35F2D-B30B-454D-ABF7-D3D84834AB0C", 4, locator})
		parameters = 2
	}
	items[4].value = le.AppendUint32(le.AppendUint32(nil, uint32(blockSize)), parameters)
	i.patch(metadataAt, []byte("metadata"))
	i.patch(metadataAt+10, []byte{byte(len(items)), 0})
	at := int64(64*kib + 100) // items need not be aligned
	for n, item := range items {
		b := append(guid(item.id), make([]byte, 16)...)
		le.PutUint32(b[16:], uint32(at))
		le.PutUint32(b[20:], uint32(len(item.value)))
		le.PutUint32(b[24:], item.flags)
		i.patch(metadataAt+32+32*int64(n), b)
		i.patch(metadataAt+at, item.value)
		at += int64(len(item.value)) + 3
	}
	return i
}

func entry32(id []byte, off uint64, length, required uint32) []byte {
	b := le.AppendUint64(bytes.Clone(id), off)
	return le.AppendUint32(le.AppendUint32(b, length), required)
}

func (i *image) ratio() int64 { return (1 << 23) * i.sector / i.blockSize }

func (i *image) patch(off int64, b []byte) { i.WriteAt(b, off) }

func (i *image) edit(off, n int64, change func(b []byte)) {
	b := make([]byte, n)
	i.ReadAt(b, off)
	change(b)
	i.WriteAt(b, off)
}

// header changes one of the headers, 0 or 1.
func (i *image) header(n int, change func(b []byte)) {
	i.edit(64*kib*int64(n+1), 4*kib, func(b []byte) { change(b); seal(b) })
}

// regions changes one of the region tables.
func (i *image) regions(n int, change func(b []byte)) {
	i.edit(64*kib*int64(n+3), 64*kib, func(b []byte) { change(b); seal(b) })
}

// allocate takes n bytes at the end of the file.
func (i *image) allocate(n int64) int64 {
	at := i.end
	i.end += n
	i.memory.size = max(i.memory.size, i.end)
	return at
}

func (i *image) entry(index int64, value uint64) {
	i.patch(batAt+8*index, le.AppendUint64(nil, value))
}

// block sets the entry of a payload block, which gets a place if it has content.
func (i *image) block(n int64, state uint64, content []byte) {
	index := n + n/i.ratio()
	if content == nil {
		i.entry(index, state)
		return
	}
	at := i.allocate(i.blockSize)
	i.patch(at, content)
	i.entry(index, uint64(at)|state)
}

// bitmap gives a chunk its sector bitmap block with bits set for these sectors,
// counted from the beginning of the chunk.
func (i *image) bitmap(chunk int64, sectors ...int64) {
	at := i.allocate(mib)
	i.entry(chunk*(i.ratio()+1)+i.ratio(), uint64(at)|6)
	for _, s := range sectors {
		i.edit(at+s/8, 1, func(b []byte) { b[0] |= 1 << (s % 8) })
	}
}

// locator makes a parent locator of keys and values in turn.
func locator(pairs ...string) []byte {
	text := func(s string) (b []byte) {
		for _, unit := range utf16.Encode([]rune(s)) {
			b = le.AppendUint16(b, unit)
		}
		return b
	}
	head := append(guid("B04AEFB7-D19E-4A81-B789-25B8E9445913"), 0, 0, byte(len(pairs)/2), 0)
	var tail []byte
	base := len(head) + 12*len(pairs)/2
	for n := 0; n < len(pairs); n += 2 {
		key, value := text(pairs[n]), text(pairs[n+1])
		head = le.AppendUint32(head, uint32(base+len(tail)))
		head = le.AppendUint32(head, uint32(base+len(tail)+len(key)))
		head = le.AppendUint16(head, uint16(len(key)))
		head = le.AppendUint16(head, uint16(len(value)))
		tail = append(append(tail, key...), value...)
	}
	return append(head, tail...)
}

// A logEntry is an entry of the log. A nil sector in updates is zeros of length.
type logEntry struct {
	sequence      uint64
	tail          int64
	updates       []logUpdate
	guid          string // default: logGUID
	flushed, last int64
	padding       int    // sectors at its end
	length        uint32 // instead of the right one
	change        func(b []byte)
}

type logUpdate struct {
	off    int64
	sector []byte
	length int64
}

func (e logEntry) encode() []byte {
	if e.guid == "" {
		e.guid = logGUID
	}
	b := append([]byte("loge"), make([]byte, 60)...)
	le.PutUint32(b[12:], uint32(e.tail))
	le.PutUint64(b[16:], e.sequence)
	le.PutUint32(b[24:], uint32(len(e.updates)))
	copy(b[32:], guid(e.guid))
	le.PutUint64(b[48:], uint64(e.flushed))
	le.PutUint64(b[56:], uint64(e.last))
	var sectors []byte
	for _, u := range e.updates {
		d := make([]byte, 32)
		le.PutUint64(d[16:], uint64(u.off))
		le.PutUint64(d[24:], e.sequence)
		if u.sector == nil {
			copy(d, "zero")
			le.PutUint64(d[8:], uint64(u.length))
		} else {
			copy(d, "desc")
			copy(d[4:], u.sector[4092:])
			copy(d[8:16], u.sector)
			s := bytes.Clone(u.sector)
			copy(s, "data")
			le.PutUint32(s[4:], uint32(e.sequence>>32))
			le.PutUint32(s[4092:], uint32(e.sequence))
			sectors = append(sectors, s...)
		}
		b = append(b, d...)
	}
	b = append(b, make([]byte, -len(b)&4095)...)
	b = append(append(b, sectors...), bytes.Repeat([]byte{0xee}, 4096*e.padding)...)
	le.PutUint32(b[8:], uint32(len(b)))
	if e.length != 0 {
		le.PutUint32(b[8:], e.length)
		b = b[:(e.length+4095)&^4095]
	}
	if e.change != nil {
		e.change(b)
	}
	return seal(b)
}

// log writes an entry into the log, around its end if need be, and returns the
// place after it.
func (i *image) log(place int64, e logEntry) int64 {
	for b := e.encode(); len(b) > 0; b = b[4096:] {
		i.patch(logAt+place, b[:4096])
		place = (place + 4096) % mib
	}
	return place
}

// dirty makes an image whose log has to be replayed.
func (i *image) dirty() {
	i.header(1, func(b []byte) { copy(b[48:], guid(logGUID)) })
}

// sectorOf is the 4 KiB of the file that off is in, with 8 bytes changed.
func (i *image) sectorOf(off int64, value uint64) logUpdate {
	b := make([]byte, 4096)
	i.ReadAt(b, off&^4095)
	le.PutUint64(b[off&4095:], value)
	return logUpdate{off: off &^ 4095, sector: b}
}

func tempFile(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "disk.vhdx")
}
