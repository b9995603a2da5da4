// Package vhd reads and writes virtual hard disks of Virtual PC, Hyper-V and
// Azure: fixed, dynamic and differencing ones.
//
// The code follows the "Virtual Hard Disk Image Format Specification" of
// Microsoft, version 1.0, in its order and with its words; section names in
// comments are of that text. [Open] reads, [NewWriter] writes dynamic and
// [NewFixed] fixed disks in any order.
//
// Left out on purpose: disks that Virtual PC split into files of 4 GB.
package vhd

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/davit-oci/davit/disk/internal/mapped"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// Options are how an image is opened.
type Options struct {
	// Folder is where a differencing disk finds its parent; nil: nowhere.
	Folder virtual.Folder
}

// An Image is the content of a VHD. It is safe for concurrent use.
type Image struct {
	*mapped.Image
	file   virtual.Reader
	size   int64
	header header // of a disk that is not fixed

	bat     mapped.Tables
	bitmaps mapped.Tables // of its own, so that the two do not push each other out
}

// Open reads the footer and the header of an image, and those of the files that
// may be its parent. Memory is two caches of 1 MiB, for the block allocation
// table and for the sector bitmaps, whatever the file says.
func Open(file virtual.Reader, o Options) (*Image, error) {
	f, err := findFooter(file)
	if err != nil {
		return nil, err
	}
	i := &Image{file: file, size: f.currentSize}
	m := mapped.Mapping{File: file, Size: i.size}
	switch f.diskType {
	case typeFixed:
		if f.currentSize > f.dataEnd {
			return nil, virtual.Corrupt("a fixed disk of %d bytes: the file has %d", f.currentSize, f.dataEnd)
		}
		m.Lookup = func(off, limit int64) (mapped.Run, error) {
			return mapped.Run{Kind: mapped.Data, Length: limit, Host: off}, nil
		}
		i.Image = mapped.New(m)
		return i, nil
	case typeDynamic, typeDifferencing:
	default:
		return nil, virtual.Unsupported("VHD disk type %d", f.diskType)
	}

	if i.header, err = readHeader(file, f); err != nil {
		return nil, err
	}
	i.bat.File, i.bitmaps.File = file, file
	m.Lookup = i.lookup
	if f.diskType == typeDifferencing {
		if m.Parent, err = i.header.openParent(file, o.Folder); err != nil {
			return nil, err
		}
	}
	i.Image = mapped.New(m)
	return i, nil
}

// # Hard Disk Footer Format

const (
	footerCookie = "conectix"
	footerSize   = 512
	sectorSize   = 512

	// versionMajor is of the footer and of the header of dynamic disks: readers
	// of one do not understand another. The lower half is the minor version.
	versionMajor = 1

	checksumAt = 64
)

// Disk types. The others are reserved.
const (
	typeFixed        = 2
	typeDynamic      = 3
	typeDifferencing = 4
)

type footer struct {
	version        uint32
	dataOffset     int64 // of the dynamic disk header
	creator        string
	creatorVersion uint32
	currentSize    int64
	diskType       uint32
	uniqueID       [16]byte
	savedState     bool

	dataEnd int64 // where the file has the footer: a fixed disk is before it
}

// findFooter finds the footer at the end of the file, or its copy at the head.
//
// The end comes first because that is the product's: what a fixed disk begins
// with is the guest's. The copy counts if the end has none, or a damaged one:
// XenServer marks a disk that is in use so.
func findFooter(file virtual.Reader) (footer, error) {
	size := file.Size()
	damaged := false
	// Versions previous to Microsoft Virtual PC 2004 left out the last byte.
	for _, n := range []int64{footerSize, footerSize - 1} {
		if size < n {
			continue
		}
		b, err := readFooter(file, size-n, n)
		if err != nil {
			return footer{}, err
		}
		damaged = damaged || hasCookie(b)
		if f, ok := parseFooter(b); ok {
			f.dataEnd = size - n
			return f, f.validate()
		}
	}
	if size >= footerSize {
		b, err := readFooter(file, 0, footerSize)
		if err != nil {
			return footer{}, err
		}
		damaged = damaged || hasCookie(b)
		if f, ok := parseFooter(b); ok && f.diskType != typeFixed {
			return f, f.validate()
		}
	}
	if damaged {
		return footer{}, virtual.Corrupt("the checksum of the footer is wrong")
	}
	return footer{}, virtual.Corrupt("not a VHD")
}

// readFooter reads n bytes, and zeros up to the size of a footer.
func readFooter(file virtual.Reader, off, n int64) ([]byte, error) {
	b := make([]byte, footerSize)
	if m, err := file.ReadAt(b[:n], off); int64(m) < n {
		return nil, fmt.Errorf("reading footer: %w", err)
	}
	return b, nil
}

func hasCookie(b []byte) bool { return string(b[:len(footerCookie)]) == footerCookie }

// HasFooter reports whether a file with these last 512 bytes is a VHD. Fixed
// disks have no other mark, and of dynamic ones the copy at the head may be
// damaged. The guest of a raw disk could have made it, as any other header.
func HasFooter(tail []byte) bool {
	for _, n := range []int{footerSize, footerSize - 1} {
		if len(tail) < n {
			continue
		}
		b := make([]byte, footerSize)
		copy(b, tail[len(tail)-n:])
		if _, ok := parseFooter(b); ok {
			return true
		}
	}
	return false
}

// parseFooter is false for what has not the cookie and the right checksum.
func parseFooter(b []byte) (f footer, ok bool) {
	be := binary.BigEndian
	if !hasCookie(b) || be.Uint32(b[checksumAt:]) != checksum(b, checksumAt) {
		return f, false
	}
	f.version = be.Uint32(b[12:])
	f.dataOffset = int64(be.Uint64(b[16:]))
	f.creator, f.creatorVersion = string(b[28:32]), be.Uint32(b[32:])
	f.currentSize = int64(be.Uint64(b[48:]))
	f.diskType = be.Uint32(b[60:])
	copy(f.uniqueID[:], b[68:])
	f.savedState = b[84] != 0
	return f, true
}

// validate leaves out the Features, of which none matters to a reader, and the
// Disk Geometry.
//
// The geometry is a second size, and a smaller one: the appendix rounds it down,
// and it ends at 127 GB. What a guest sees was decided by the product. Virtual
// PC took the geometry, with ATA disks. Hyper-V, Azure, VirtualBox, XenServer
// and Disk2vhd take the Current Size. QEMU knows some of them by their Creator
// Application and, before 10.0, cuts off the end of all others' disks, those of
// VirtualBox among them. A disk of Virtual PC that is a few sectors too large
// is one that Hyper-V shows, too; one that is too small has lost something.
// So Current Size it is, for all creators. Old QEMU, which also goes by the
// geometry for its own "qemu", writes the same size in both.
func (f *footer) validate() error {
	if f.version>>16 != versionMajor {
		return virtual.Unsupported("VHD version %d.%d", f.version>>16, f.version&0xffff)
	}
	if f.currentSize < 0 || f.currentSize%sectorSize != 0 {
		return virtual.Corrupt("a disk of %d bytes", uint64(f.currentSize))
	}
	if f.savedState {
		return virtual.Unsupported("the disk of a machine whose memory is saved (start the machine and shut it down)")
	}
	return nil
}

// checksum is the one's complement of the sum of all bytes but those at off,
// where the checksum is.
func checksum(b []byte, off int) uint32 {
	var sum uint32
	for n, c := range b {
		if n < off || n >= off+4 {
			sum += uint32(c)
		}
	}
	return ^sum
}

// # Dynamic Disk Header Format

const (
	headerCookie = "cxsparse"
	headerSize   = 1024

	headerChecksumAt = 36

	// The specification wants a power of two of sectors, and its products were
	// tested with 512 KiB and 2 MiB. The upper limit keeps all offsets far below
	// 2^63.
	minBlock = sectorSize
	maxBlock = 256 << 20
)

type header struct {
	tableOffset int64
	blockSize   int64
	bitmapSize  int64 // of a block, in bytes, with its padding

	parentID   [16]byte
	parentName []byte // UTF-16
	locators   [8]locator
}

// A locator is an entry of the parent locator table.
type locator struct {
	code           uint32
	offset, length int64
}

func readHeader(file virtual.Reader, f footer) (h header, err error) {
	// Before version 1.0 of its driver, XenServer had the bits of the sector
	// bitmaps in another order.
	if f.creator == "tap\x00" && f.creatorVersion == 0x00000001 {
		return h, virtual.Unsupported("dynamic disk of tapdisk 0.1")
	}
	b, err := virtual.ReadPart(file, "dynamic disk header", f.dataOffset, headerSize)
	if err != nil {
		return h, err
	}
	be := binary.BigEndian
	if string(b[:len(headerCookie)]) != headerCookie {
		return h, virtual.Corrupt("no dynamic disk header at %#x", f.dataOffset)
	}
	if be.Uint32(b[headerChecksumAt:]) != checksum(b, headerChecksumAt) {
		return h, virtual.Corrupt("the checksum of the dynamic disk header is wrong")
	}
	if v := be.Uint32(b[24:]); v>>16 != versionMajor {
		return h, virtual.Unsupported("dynamic disk header version %d.%d", v>>16, v&0xffff)
	}
	h.blockSize = int64(be.Uint32(b[32:]))
	if h.blockSize < minBlock || h.blockSize > maxBlock || h.blockSize&(h.blockSize-1) != 0 {
		return h, virtual.Unsupported("blocks of %d bytes", h.blockSize)
	}
	h.bitmapSize = bitmapSize(h.blockSize)
	if err := h.parseTable(b, f, file.Size()); err != nil {
		return h, err
	}

	copy(h.parentID[:], b[40:])
	h.parentName = b[64:576]
	for n := range h.locators {
		// Platform Data Space is in sectors, but in bytes in what products write.
		// Nobody needs it.
		b := b[576+24*n:]
		h.locators[n] = locator{
			code:   be.Uint32(b),
			length: int64(be.Uint32(b[8:])),
			offset: int64(be.Uint64(b[16:])),
		}
	}
	return h, nil
}

// bitmapSize is the size of a block's bitmap, padded to whole sectors.
func bitmapSize(block int64) int64 {
	return virtual.RoundUp(virtual.DivUp(block/sectorSize, 8), sectorSize)
}

// parseTable finds the block allocation table, of which all that the disk needs
// has to be in the file.
func (h *header) parseTable(b []byte, f footer, fileSize int64) error {
	entries := int64(binary.BigEndian.Uint32(b[28:]))
	need := virtual.DivUp(f.currentSize, h.blockSize)
	if entries < need {
		return virtual.Corrupt("block allocation table of %d entries: the disk has %d blocks", entries, need)
	}
	h.tableOffset = int64(binary.BigEndian.Uint64(b[16:]))
	if h.tableOffset < 0 || h.tableOffset%sectorSize != 0 || 4*need > fileSize-h.tableOffset {
		return virtual.Corrupt("block allocation table of %d bytes at %#x: not at a sector, or the file ends at %#x", 4*need, uint64(h.tableOffset), fileSize)
	}
	return nil
}

// # Block Allocation Table and Data Blocks

// unused is an entry of a block that is not in the file.
const unused = 0xffffffff

// lookup is the Lookup of a [mapped.Mapping].
func (i *Image) lookup(off, limit int64) (mapped.Run, error) {
	index, in := off/i.header.blockSize, off%i.header.blockSize
	b, err := i.bat.At(i.header.tableOffset + 4*index)
	if err != nil {
		return mapped.Run{}, fmt.Errorf("reading block allocation table: %w", err)
	}
	if entry := binary.BigEndian.Uint32(b); entry != unused {
		r, err := i.block(index, int64(entry)*sectorSize, in)
		if err != nil {
			return mapped.Run{}, fmt.Errorf("mapping disk offset %#x: %w", off, err)
		}
		r.Length = min(r.Length, limit)
		return r, nil
	}
	r := mapped.Run{Length: i.header.blockSize - in}
	for b = b[4:]; r.Length < limit && len(b) >= 4 && binary.BigEndian.Uint32(b) == unused; b = b[4:] {
		r.Length += i.header.blockSize
	}
	r.Length = min(r.Length, limit)
	return r, nil
}

// block is the mapping of a block that begins at host, from its byte in on.
//
// A sector whose bit is zero is the parent's or, in a dynamic disk, was never
// written. Then it "must contain 512 bytes of zero on disk", so QEMU, which
// does not read bitmaps, and VirtualBox, which does, agree. Where it has
// something else all the same, that is nothing that a guest has written.
func (i *Image) block(index, host, in int64) (mapped.Run, error) {
	h := &i.header
	data := host + h.bitmapSize

	// All that the disk has of it is in the file. QEMU refuses such an image, too.
	n := min(h.blockSize, i.size-index*h.blockSize)
	if size := i.file.Size(); data > size-n {
		return mapped.Run{}, virtual.Corrupt("block %d of %d bytes at %#x: the file ends at %#x", index, n, data, size)
	}
	sector, sectors := in/sectorSize, h.blockSize/sectorSize
	b, err := i.bitmaps.At(host + sector/8)
	if err != nil {
		return mapped.Run{}, fmt.Errorf("reading sector bitmap: %w", err)
	}
	is, count := bitRun(b, int(sector%8), int(sectors-sector))
	r := mapped.Run{Length: int64(count)*sectorSize - in%sectorSize}
	if is {
		r.Kind, r.Host = mapped.Data, data+in
	}
	return r, nil
}

// bitRun is the bit number from, and how many bits from there on are like it, up
// to limit or the end of b. The first bit of a byte is the most significant one.
func bitRun(b []byte, from, limit int) (is bool, count int) {
	bit := func(n int) bool { return b[n/8]>>(7-n%8)&1 != 0 }
	is = bit(from)
	end := min(8*len(b), from+limit)
	n := from
	for n < end && n%8 != 0 && bit(n) == is {
		n++
	}
	for n < end && n%8 == 0 {
		word := [8]byte{}
		copy(word[:], b[n/8:])
		like := binary.BigEndian.Uint64(word[:])
		if is {
			like = ^like
		}
		same := bits.LeadingZeros64(like)
		n += same
		if same < 64 {
			break
		}
	}
	return is, min(n, end) - from
}
