package vdi

import (
	"bufio"
	"encoding/binary"
	"io"
	"iter"
	"os"

	"github.com/davit-oci/davit/disk/internal/blocks"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// What we write: version 1.1, as VirtualBox does in vdiInitHeader.
const (
	blockSize = 1 << 20 // VDI_IMAGE_DEFAULT_BLOCK_SIZE, the only one that QEMU reads
	dataAlign = 1 << 20 // VDI_DATA_ALIGN, for the block map and for the data

	// offData has 32 bits, and the map ends before it. That is 1 PiB less 512 GiB,
	// and below QEMU's limit of 1 PiB.
	maxBlocks = (1<<32 - 2*dataAlign) / 4

	fileInfo = "<<< Oracle VM VirtualBox Disk Image >>>\n"
)

// DiskSize is the virtual size that the image of a disk of size bytes has: whole
// sectors, because VirtualBox cuts off what is less than one.
func DiskSize(size int64) (int64, error) {
	if size > maxBlocks*blockSize {
		return 0, virtual.Unsupported("virtual size of %d bytes in a VDI", size)
	}
	return virtual.RoundUp(size, sectorSize), nil
}

// NewWriter lays out a dynamic image and writes all of it but the data, which
// is then written in any order. The file is, each part at a whole MiB,
//
//	header | block map | data
//
// where data has the blocks that hold data, in the order of the disk. The id is
// the image's UUID: VirtualBox does not register two disks with the same one.
//
// VirtualBox opens no disk of 0 bytes.
func NewWriter(f *os.File, size int64, data iter.Seq2[virtual.Extent, error], id [16]byte) (*blocks.Writer, error) {
	rounded, err := DiskSize(size)
	if err != nil {
		return nil, err
	}
	m, err := blocks.NewMap(blockSize, size, data)
	if err != nil {
		return nil, err
	}
	count := virtual.DivUp(rounded, blockSize)
	h := header{
		imageType: typeNormal,
		offBlocks: dataAlign,
		offData:   dataAlign + virtual.RoundUp(4*count, dataAlign),
		cbDisk:    rounded,
		cbBlock:   blockSize,
		cBlocks:   count,

		cBlocksAllocated: m.Len(),
		uuidCreate:       id,
		uuidModify:       modified(id),
	}
	w, err := blocks.NewWriter(f, m, blocks.Layout{Size: rounded, First: h.offData, End: h.offData + m.Len()*blockSize}, data)
	if err != nil {
		return nil, err
	}
	if _, err := f.WriteAt(h.encode(), 0); err != nil {
		return nil, err
	}
	return w, writeBlocks(f, h, m)
}

// modified is another UUID than id. It must not be null, but may be any.
func modified(id uuid) uuid {
	id[15] ^= 0xff
	return id
}

// encode makes the pre-header and the VDIHEADER1PLUS.
func (h *header) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, preHeaderSize+header1PlusSize)
	b = append(b, fileInfo...)
	b = append(b, make([]byte, 64-len(fileInfo))...)
	b = le.AppendUint32(b, signature)
	b = le.AppendUint32(b, version11)

	b = le.AppendUint32(b, header1PlusSize)
	b = le.AppendUint32(b, uint32(h.imageType))
	b = le.AppendUint32(b, 0)           // fFlags
	b = append(b, make([]byte, 256)...) // szComment
	b = le.AppendUint32(b, uint32(h.offBlocks))
	b = le.AppendUint32(b, uint32(h.offData))
	b = appendGeometry(b)     // LegacyGeometry; QEMU wants its sector size
	b = le.AppendUint32(b, 0) // u32Dummy
	b = le.AppendUint64(b, uint64(h.cbDisk))
	b = le.AppendUint32(b, uint32(h.cbBlock))
	b = le.AppendUint32(b, uint32(h.cbBlockExtra))
	b = le.AppendUint32(b, uint32(h.cBlocks))
	b = le.AppendUint32(b, uint32(h.cBlocksAllocated))
	b = append(b, h.uuidCreate[:]...)
	b = append(b, h.uuidModify[:]...)
	b = append(b, h.uuidLinkage[:]...)
	b = append(b, h.uuidParentModify[:]...)
	return appendGeometry(b) // LCHSGeometry
}

// appendGeometry adds a geometry that VirtualBox takes as "not calculated yet":
// the BIOS of the machine does.
func appendGeometry(b []byte) []byte {
	b = append(b, make([]byte, 12)...) // cylinders, heads, sectors
	return binary.LittleEndian.AppendUint32(b, sectorSize)
}

// writeBlocks writes the block map. All blocks without data are free.
func writeBlocks(f *os.File, h header, m *blocks.Map) error {
	w := bufio.NewWriterSize(io.NewOffsetWriter(f, h.offBlocks), 1<<20)
	for place := range m.Places(h.cBlocks) {
		entry := uint32(blockFree)
		if place >= 0 {
			entry = uint32(place)
		}
		_, _ = w.Write(binary.LittleEndian.AppendUint32(w.AvailableBuffer(), entry)) // errors stay until Flush
	}
	return w.Flush()
}
