package vhdx

import (
	"crypto/sha256"
	"encoding/hex"
	"iter"
	"os"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/davit-oci/davit/disk/internal/blocks"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// What we write: a dynamic image of version 1 with the logical sectors of its
// disk, told to be 4096 bytes physically, as Hyper-V's own are. The file is
//
//	header section | log, empty | metadata region | BAT | payload blocks
//
// where the blocks that hold data are in the order of the disk. So a range of
// such blocks is one range of the file.
const (
	physicalSectorSize = 4096

	logOffset      = 1 * mib
	logLength      = 1 * mib // Hyper-V's default; it writes there when it opens the image
	metadataOffset = 2 * mib
	metadataLength = 1 * mib
	batOffset      = 3 * mib

	// maxBlocks bounds the BAT to about 64 MiB: up to 8 TiB, blocks have 1 MiB,
	// those of 64 TiB 8 MiB.
	maxBlocks = 8 * tib / mib
)

// blockSize is as small as it can be. Microsoft wants blocks of 1 MiB for Linux
// guests, whose file systems touch one here, one there ("Best practices for
// running Linux on Hyper-V"). What a guest with larger ones wrote takes no more
// space in smaller ones.
func blockSize(size int64) int64 {
	n := int64(minBlockSize)
	for virtual.DivUp(size, n) > maxBlocks {
		n *= 2
	}
	return n
}

// DiskSize is the virtual size of the image of a disk of size bytes, which is
// whole logical sectors (2.6.2.2) of 512 or 4096 bytes, and at least one: QEMU
// opens no image of 0 bytes.
func DiskSize(size, sector int64) (int64, error) {
	if size > maxSize {
		return 0, virtual.Unsupported("virtual size of %d bytes, a VHDX image has up to %d", size, int64(maxSize))
	}
	if !validSector(sector) {
		return 0, virtual.Unsupported("logical sectors of %d bytes, those of a VHDX image have 512 or 4096", sector)
	}
	return max(sector, virtual.RoundUp(size, sector)), nil
}

// NewWriter lays out an image and writes all of it but the data, which is then
// written in any order. Sector is the size of a logical sector. ID becomes the
// Virtual Disk ID; all else depends on nothing but it, size, sector and data.
func NewWriter(f *os.File, size, sector int64, data iter.Seq2[virtual.Extent, error], id [16]byte) (*blocks.Writer, error) {
	rounded, err := DiskSize(size, sector)
	if err != nil {
		return nil, err
	}
	m := metadata{size: rounded, blockSize: blockSize(rounded), sectorSize: sector}
	payload, err := blocks.NewMap(m.blockSize, size, data)
	if err != nil {
		return nil, err
	}
	bat := region{batOffset, max(mib, virtual.RoundUp(8*m.batEntries(), mib))}
	first := bat.offset + bat.length
	w, err := blocks.NewWriter(f, payload, blocks.Layout{
		Size:  rounded,
		First: first,
		End:   first + payload.Len()*m.blockSize,
		Dense: true,
	}, data)
	if err != nil {
		return nil, err
	}

	// What is not written here is zeros, and most of the BAT of a large disk.
	for _, part := range []struct {
		offset int64
		bytes  []byte
	}{
		{0, encodeIdentifier()},
		{headerOffsets[0], encodeHeader(id, 1)},
		{headerOffsets[1], encodeHeader(id, 2)}, // the current one
		{regionTableOffsets[0], encodeRegions(bat)},
		{regionTableOffsets[1], encodeRegions(bat)},
		{metadataOffset, encodeMetadata(m, id)},
	} {
		if _, err := f.WriteAt(part.bytes, part.offset); err != nil {
			return nil, err
		}
	}
	return w, writeBAT(f, bat, first, m, payload)
}

func encodeIdentifier() []byte {
	b := []byte(signature)
	for _, unit := range utf16.Encode([]rune("davit")) { // Creator
		b = le.AppendUint16(b, unit)
	}
	return b
}

func encodeHeader(id [16]byte, sequence uint64) []byte {
	b := make([]byte, headerSize)
	copy(b, "head")
	le.PutUint64(b[8:], sequence)
	copy(b[16:], derived(id, "FileWriteGuid"))
	copy(b[32:], derived(id, "DataWriteGuid"))
	// LogGuid 0: nothing to replay. LogVersion 0.
	le.PutUint16(b[66:], 1) // Version
	le.PutUint32(b[68:], logLength)
	le.PutUint64(b[72:], logOffset)
	return sign(b)
}

// sign sets the Checksum field.
func sign(b []byte) []byte {
	le.PutUint32(b[4:], checksum(b))
	return b
}

// derived is a GUID for a use, made of id: of version 8 (RFC 9562, 5.8), whose
// number is in the upper half of the third field, little-endian here.
func derived(id [16]byte, use string) []byte {
	sum := sha256.Sum256(append(id[:], use...))
	b := sum[:16]
	b[7] = b[7]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	return b
}

// appendGUID is the reverse of readGUID.
func appendGUID(b []byte, id guid) []byte {
	g, err := hex.DecodeString(strings.ReplaceAll(string(id), "-", ""))
	if err != nil {
		panic(err) // one of our constants is none
	}
	slices.Reverse(g[0:4])
	slices.Reverse(g[4:6])
	slices.Reverse(g[6:8])
	return append(b, g...)
}

func encodeRegions(bat region) []byte {
	b := append([]byte("regi"), make([]byte, 12)...)
	regions := []struct {
		id guid
		region
	}{
		{regionBAT, bat},
		{regionMetadata, region{metadataOffset, metadataLength}},
	}
	le.PutUint32(b[8:], uint32(len(regions)))
	for _, r := range regions {
		b = appendGUID(b, r.id)
		b = le.AppendUint64(b, uint64(r.offset))
		b = le.AppendUint32(b, uint32(r.length))
		b = le.AppendUint32(b, 1) // Required
	}
	return sign(append(b, make([]byte, regionTableSize-len(b))...))
}

func encodeMetadata(m metadata, id [16]byte) []byte {
	const isVirtualDisk = 1 << 1 // goes to a child with the disk; File Parameters belong to the file
	items := []struct {
		id    guid
		flags uint32
		value []byte
	}{
		{itemFileParameters, itemIsRequired, le.AppendUint64(nil, uint64(m.blockSize))}, // no flags: dynamic
		{itemVirtualDiskSize, itemIsRequired | isVirtualDisk, le.AppendUint64(nil, uint64(m.size))},
		{itemVirtualDiskID, itemIsRequired | isVirtualDisk, id[:]},
		{itemLogicalSectorSize, itemIsRequired | isVirtualDisk, le.AppendUint32(nil, uint32(m.sectorSize))},
		{itemPhysicalSectorSize, itemIsRequired | isVirtualDisk, le.AppendUint32(nil, physicalSectorSize)},
	}
	table := append([]byte("metadata"), make([]byte, 24)...)
	le.PutUint16(table[10:], uint16(len(items)))
	var values []byte
	for _, item := range items {
		table = appendGUID(table, item.id)
		table = le.AppendUint32(table, uint32(metadataTableSize+len(values)))
		table = le.AppendUint32(table, uint32(len(item.value)))
		table = le.AppendUint32(table, item.flags)
		table = le.AppendUint32(table, 0)
		values = append(values, item.value...)
	}
	return slices.Concat(table, make([]byte, metadataTableSize-len(table)), values)
}

// writeBAT writes the entries of blocks that are there. A group has whole
// chunks, or is in one, so its entries are one range of the BAT.
func writeBAT(f *os.File, bat region, first int64, m metadata, payload *blocks.Map) error {
	ratio := m.chunkRatio()
	place := first
	groups := payload.Groups()
	for n := range groups {
		off := 8 * batIndex(groups[n].Index*blocks.GroupLen, ratio)
		b := make([]byte, min(8*batIndex(blocks.GroupLen, ratio), bat.length-off))
		for block := range int64(blocks.GroupLen) {
			if groups[n].Has(block) {
				le.PutUint64(b[8*batIndex(block, ratio):], uint64(place)|payloadFullyPresent)
				place += m.blockSize
			}
		}
		if _, err := f.WriteAt(b, bat.offset+off); err != nil {
			return err
		}
	}
	return nil
}
