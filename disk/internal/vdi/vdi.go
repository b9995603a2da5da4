// Package vdi reads and writes VirtualBox's disk images, VDI, of versions 0.2
// and 1.1.
//
// There is no specification: the code follows what VirtualBox does, in
// src/VBox/Storage/VDICore.h and VDI.cpp, and has the names of fields from
// there. [Open] reads, [NewWriter] writes dynamic images in any order.
package vdi

import (
	"encoding/binary"
	"fmt"

	"github.com/davit-oci/davit/disk/internal/mapped"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// Options are how an image is opened.
type Options struct {
	// Folder is where a differencing image finds its parent; nil: nowhere.
	Folder virtual.Folder
}

// An Image is the content of a VDI. It is safe for concurrent use.
type Image struct {
	*mapped.Image
	file   virtual.Reader
	header header
	blocks mapped.Tables
}

// Open reads the header of an image, and those of the files among which its
// parent is, if it has one. Memory is a cache of the block map of 1 MiB,
// whatever the file says.
func Open(file virtual.Reader, o Options) (*Image, error) {
	h, err := readHeader(file)
	if err != nil {
		return nil, err
	}
	i := &Image{file: file, header: h}
	i.blocks.File = file
	if err := virtual.Inside(file, "block map", h.offBlocks, 4*h.need()); err != nil {
		return nil, err
	}
	var parent virtual.Reader
	if h.differencing() {
		if parent, err = h.openParent(o.Folder); err != nil {
			return nil, err
		}
	}
	i.Image = mapped.New(mapped.Mapping{File: file, Parent: parent, Size: h.cbDisk, Lookup: i.lookup})
	return i, nil
}

// # VDIPREHEADER, VDIHEADER0 and VDIHEADER1

const (
	signature = 0xbeda107f

	version02 = 0x00000002 // of before the first release
	version11 = 0x00010001

	preHeaderSize   = 72
	header0Size     = 348
	header1Size     = 384
	header1PlusSize = 400 // adds the LCHS geometry

	sectorSize = 512

	// VirtualBox opens blocks of 128 KiB to 128 MiB, its first versions any
	// power of two.
	minBlock = sectorSize
	maxBlock = 128 << 20
)

// An imageType is a VDIIMAGETYPE.
type imageType uint32

const (
	typeNormal imageType = 1 + iota // dynamic
	typeFixed
	typeUndo
	typeDiff
)

type header struct {
	imageType        imageType
	offBlocks        int64 // of the block map
	offData          int64
	cbDisk           int64 // size of the disk
	cbBlock          int64
	cbBlockExtra     int64 // service information before each block
	cBlocks          int64
	cBlocksAllocated int64

	uuidCreate       uuid
	uuidModify       uuid // another one each time that the disk is written to
	uuidLinkage      uuid // the parent's uuidCreate
	uuidParentModify uuid // the parent's uuidModify, when this image was made
}

func readHeader(file virtual.Reader) (h header, err error) {
	b, err := virtual.ReadHead(file, preHeaderSize+header1Size)
	if err != nil {
		return h, err
	}
	le := binary.LittleEndian
	if len(b) < preHeaderSize || le.Uint32(b[64:]) != signature {
		return h, virtual.Corrupt("not a VDI")
	}
	version := le.Uint32(b[68:])
	b = b[preHeaderSize:]
	switch {
	case version == version02 && len(b) >= header0Size:
		h = parseHeader0(b)
	case version == version11 && len(b) == header1Size:
		if n := le.Uint32(b); n < header1Size {
			return h, virtual.Corrupt("header of %d bytes", n)
		}
		h = parseHeader1(b)
		if h.offBlocks < preHeaderSize+header1Size {
			return h, virtual.Corrupt("block map at %#x", h.offBlocks)
		}
		// VirtualBox reads others, but writes none. QEMU refuses them, too.
		if h.offBlocks%sectorSize != 0 || h.offData%sectorSize != 0 {
			return h, virtual.Unsupported("block map at %#x or data at %#x: not at a sector", h.offBlocks, h.offData)
		}
	case version == version02 || version == version11:
		return h, virtual.Corrupt("header is cut short")
	default:
		return h, virtual.Unsupported("VDI version %d.%d", version>>16, version&0xffff)
	}
	return h, h.validate()
}

func parseHeader0(b []byte) (h header) {
	le := binary.LittleEndian
	h.imageType = imageType(le.Uint32(b))
	h.parseSizes(b[280:])
	h.cBlocks, h.cBlocksAllocated = int64(le.Uint32(b[292:])), int64(le.Uint32(b[296:]))
	h.parseUUIDs(b[300:348])

	// The map follows the header, and the data the map.
	h.offBlocks = preHeaderSize + header0Size
	h.offData = h.offBlocks + 4*h.cBlocks
	return h
}

func parseHeader1(b []byte) (h header) {
	le := binary.LittleEndian
	h.imageType = imageType(le.Uint32(b[4:]))
	// The flags say how VirtualBox makes a block that is new: nothing to a
	// reader. After them is a comment, after the offsets the geometry.
	h.offBlocks, h.offData = int64(le.Uint32(b[268:])), int64(le.Uint32(b[272:]))
	h.parseSizes(b[296:])
	h.cbBlockExtra = int64(le.Uint32(b[308:]))
	h.cBlocks, h.cBlocksAllocated = int64(le.Uint32(b[312:])), int64(le.Uint32(b[316:]))
	h.parseUUIDs(b[320:384])
	return h
}

func (h *header) parseSizes(b []byte) {
	h.cbDisk = -1 // too large, for validate
	if size := binary.LittleEndian.Uint64(b); size <= 1<<62 {
		h.cbDisk = int64(size)
	}
	h.cbBlock = int64(binary.LittleEndian.Uint32(b[8:]))
}

func (h *header) parseUUIDs(b []byte) {
	for _, u := range []*uuid{&h.uuidCreate, &h.uuidModify, &h.uuidLinkage, &h.uuidParentModify} {
		b = b[copy(u[:], b):]
	}
}

// validate is vdiValidateHeader, without what only a writer has to know.
func (h *header) validate() error {
	switch h.imageType {
	case typeNormal, typeFixed, typeDiff:
	case typeUndo:
		return virtual.Unsupported("VDI undo image")
	default:
		return virtual.Unsupported("VDI image type %d", h.imageType)
	}
	if h.imageType == typeDiff && h.uuidLinkage == (uuid{}) {
		return virtual.Corrupt("differencing image without the UUID of its parent")
	}
	if h.cbBlock < minBlock || h.cbBlock > maxBlock || h.cbBlock&(h.cbBlock-1) != 0 {
		return virtual.Unsupported("blocks of %d bytes", h.cbBlock)
	}
	if h.cbBlockExtra > maxBlock || h.cbBlockExtra&(h.cbBlockExtra-1) != 0 {
		return virtual.Unsupported("%d extra bytes of a block", h.cbBlockExtra)
	}
	if h.cbDisk < 0 || h.cbDisk > h.cBlocks*h.cbBlock {
		return virtual.Corrupt("%d blocks of %d bytes are less than the disk", h.cBlocks, h.cbBlock)
	}
	// VBoxManage convertfromraw once made images of any size. Like QEMU we give
	// the disk whole sectors; the guest of such an image does not see the bytes
	// after the last one.
	h.cbDisk = virtual.RoundUp(h.cbDisk, sectorSize)

	if h.cBlocksAllocated > h.cBlocks {
		return virtual.Corrupt("%d of %d blocks are allocated", h.cBlocksAllocated, h.cBlocks)
	}
	if h.offData < h.offBlocks+4*h.cBlocks {
		return virtual.Corrupt("data at %#x: the block map ends at %#x", h.offData, h.offBlocks+4*h.cBlocks)
	}
	return nil
}

// differencing reports whether blocks that are free are those of a parent. An
// image of another type that names a parent, which VirtualBox does not make, had
// better have one than zeros.
func (h *header) differencing() bool { return h.uuidLinkage != uuid{} }

// # Block map

// Entries that are no place in the file, VDI_IMAGE_BLOCK_*.
const (
	blockFree = 0xffffffff // never allocated: as in the parent, else zeros
	blockZero = 0xfffffffe // zeros, whatever the parent has
)

// need is how many blocks the disk has. There may be more in the map.
func (h *header) need() int64 { return virtual.DivUp(h.cbDisk, h.cbBlock) }

// lookup is the Lookup of a [mapped.Mapping].
func (i *Image) lookup(off, limit int64) (mapped.Run, error) {
	index, in := off/i.header.cbBlock, off%i.header.cbBlock
	b, err := i.blocks.At(i.header.offBlocks + 4*index)
	if err != nil {
		return mapped.Run{}, fmt.Errorf("reading block map: %w", err)
	}
	entry := func() int64 { return int64(binary.LittleEndian.Uint32(b)) }
	r, err := i.block(index, entry())
	if err != nil {
		return mapped.Run{}, fmt.Errorf("mapping disk offset %#x: %w", off, err)
	}
	r.Host, r.Length = r.Host+in, r.Length-in
	for b = b[4:]; r.Length < limit && len(b) >= 4; b = b[4:] {
		index++
		if next, err := i.block(index, entry()); err != nil || !r.Join(next) {
			break
		}
	}
	r.Length = min(r.Length, limit)
	return r, nil //nolint:nilerr // what is wrong with the next block is for the call that begins there
}

// block is the mapping of one block by its entry. Two blocks with one entry are
// no harm to who only reads.
func (i *Image) block(index, entry int64) (mapped.Run, error) {
	r := mapped.Run{Length: i.header.cbBlock}
	switch entry {
	case blockFree:
		return r, nil
	case blockZero:
		r.Kind = mapped.Zeros
		return r, nil
	}
	// How many blocks the header counts does not matter here, nor does it to
	// VirtualBox and QEMU: it can be one behind if they were killed.
	r.Kind = mapped.Data
	r.Host = i.header.offData + entry*(i.header.cbBlockExtra+i.header.cbBlock) + i.header.cbBlockExtra

	// All that the disk has of it is in the file: VirtualBox writes whole blocks.
	// QEMU reads zeros after the end, VirtualBox fails.
	n := min(r.Length, i.header.cbDisk-index*i.header.cbBlock)
	if size := i.file.Size(); r.Host > size-n {
		return mapped.Run{}, virtual.Corrupt("block %d of %d bytes at %#x: the file ends at %#x", index, n, r.Host, size)
	}
	return r, nil
}
