// Package vhdx reads and writes Hyper-V's VHDX images.
//
// The code follows "[MS-VHDX]: Virtual Hard Disk v2 (VHDX) File Format" in its
// order and with its words; section numbers in comments are of that text.
// [Open] reads fixed, dynamic and differencing images, [NewWriter] writes
// dynamic ones in any order.
//
// The log of an image that was not closed is replayed in memory. The file stays
// as it is.
//
// Left out on purpose: whether blocks overlap each other (reading does not
// care), parents that are no VHDX images, and metadata that a machine may ask
// for but not read its disk by.
package vhdx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/davit-oci/davit/disk/internal/mapped"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// Options are how an image is opened.
type Options struct {
	// Folder opens the parent of a differencing image; nil: no other file may
	// be opened.
	Folder virtual.Folder
}

// An Image is the content of a VHDX image. It is safe for concurrent use.
type Image struct {
	*mapped.Image
	dataWriteGUID guid
	metadata      metadata

	file    virtual.Reader // with its log replayed
	bat     region
	others  []region      // where no block may be
	entries mapped.Tables // BAT
	bitmaps mapped.Tables // sector bitmap blocks
}

// Open reads the headers, the log if it has to be replayed, the region table
// and the metadata of an image. Memory is bounded whatever the file says: 2 MiB
// for caches, some KiB for metadata, 1 MiB for the parent locator, and up to
// 32 MiB for where the log has what.
func Open(file virtual.Reader, o Options) (*Image, error) {
	if err := readIdentifier(file); err != nil {
		return nil, err
	}
	h, err := readHeaders(file)
	if err != nil {
		return nil, err
	}
	if h.logGUID != zeroGUID {
		if file, err = replay(file, h); err != nil {
			return nil, fmt.Errorf("replaying the log: %w", err)
		}
	}
	regions, err := readRegions(file)
	if err != nil {
		return nil, err
	}
	m, err := readMetadata(file, regions[regionMetadata])
	if err != nil {
		return nil, fmt.Errorf("reading metadata: %w", err)
	}

	i := &Image{dataWriteGUID: h.dataWriteGUID, metadata: m, file: file, bat: regions[regionBAT]}
	i.others = []region{h.log, i.bat, regions[regionMetadata]}
	i.entries.File, i.bitmaps.File = file, file
	if err := i.checkBAT(); err != nil {
		return nil, err
	}
	var parent virtual.Reader
	if m.hasParent {
		if parent, err = openParent(m, o.Folder); err != nil {
			return nil, err
		}
	}
	i.Image = mapped.New(mapped.Mapping{
		File:   file,
		Parent: parent,
		Size:   m.size,
		Lookup: i.lookup,
	})
	return i, nil
}

// SectorSize is the size of a logical sector in bytes, 512 or 4096: that of the
// parents as well.
func (i *Image) SectorSize() int { return int(i.metadata.sectorSize) }

const (
	kib = 1 << 10
	mib = 1 << 20
	tib = 1 << 40

	// maxOffset bounds what an image says about places in its file, so that
	// sums of two of them are no surprise.
	maxOffset = 1 << 62
)

var le = binary.LittleEndian

// A guid is in its usual form, in lower case and without braces.
type guid string

const zeroGUID guid = "00000000-0000-0000-0000-000000000000"

func readGUID(b []byte) guid {
	return guid(fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16]))
}

// checksum is the CRC-32C of a structure, taking its Checksum field, bytes 4 to
// 7, for zeros.
func checksum(b []byte) uint32 {
	crc := crc32.Update(0, castagnoli, b[:4])
	crc = crc32.Update(crc, castagnoli, make([]byte, 4))
	return crc32.Update(crc, castagnoli, b[8:])
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// signed reports whether b begins with a signature and has the right checksum.
func signed(b []byte, signature string) bool {
	return string(b[:4]) == signature && le.Uint32(b[4:]) == checksum(b)
}

// # 2.2 Header Section

const (
	signature = "vhdxfile"

	headerSize      = 4 * kib
	regionTableSize = 64 * kib
	headerSection   = 1 * mib // before all other structures
)

var (
	headerOffsets      = [2]int64{64 * kib, 128 * kib}
	regionTableOffsets = [2]int64{192 * kib, 256 * kib}
)

// # 2.2.1 File Type Identifier

func readIdentifier(file virtual.Reader) error {
	b := make([]byte, len(signature))
	if err := virtual.ReadZeroExtended(file, b, 0); err != nil {
		return err
	}
	if string(b) != signature {
		return virtual.Corrupt("not a VHDX image")
	}
	return nil
}

// # 2.2.2 Headers

type header struct {
	dataWriteGUID guid
	logGUID       guid
	log           region
}

// readHeaders reads the current one of the two headers.
func readHeaders(file virtual.Reader) (h header, err error) {
	var current []byte
	for _, off := range headerOffsets {
		b := make([]byte, headerSize)
		if err := virtual.ReadZeroExtended(file, b, off); err != nil {
			return h, fmt.Errorf("reading header: %w", err)
		}
		switch {
		case !signed(b, "head"):
		case current == nil || sequenceNumber(b) > sequenceNumber(current):
			current = b
		case sequenceNumber(b) == sequenceNumber(current) && !bytes.Equal(b, current):
			// Two that are the same are no contradiction. Microsoft's Disk2vhd
			// writes such images, and QEMU reads them.
			return h, virtual.Corrupt("two different headers with sequence number %d", sequenceNumber(b))
		}
	}
	if current == nil {
		return h, virtual.Corrupt("neither header is valid")
	}
	return parseHeader(current)
}

func sequenceNumber(header []byte) uint64 { return le.Uint64(header[8:]) }

func parseHeader(b []byte) (h header, err error) {
	if version := le.Uint16(b[66:]); version != 1 {
		return h, virtual.Unsupported("VHDX version %d", version)
	}
	h.dataWriteGUID = readGUID(b[32:])
	h.logGUID = readGUID(b[48:])
	h.log, err = newRegion("log", le.Uint64(b[72:]), le.Uint32(b[68:]))
	if h.logGUID == zeroGUID {
		return h, nil // there is nothing in it
	}
	if version := le.Uint16(b[64:]); version != 0 {
		return h, virtual.Unsupported("a log of version %d to replay", version)
	}
	return h, err
}

// # 2.2.3 Region Table

const maxRegions = 2047

const (
	regionBAT      guid = "2dc27766-f623-4200-9d64-115e9bfd4a08"
	regionMetadata guid = "8b7ca206-4790-4b9a-b8fe-575f050f886e"
)

// A region is a range of the file. That it is inside of the file is checked
// where it is used.
type region struct{ offset, length int64 }

func (r region) overlaps(s region) bool {
	return r.offset < s.offset+s.length && s.offset < r.offset+r.length
}

func newRegion(what string, offset uint64, length uint32) (region, error) {
	if offset%mib != 0 || offset < headerSection || offset > maxOffset || length%mib != 0 {
		return region{}, virtual.Corrupt("%s of %d bytes at %#x", what, length, offset)
	}
	return region{int64(offset), int64(length)}, nil
}

// readRegions finds the regions that we know, all of which are required, in the
// first table that is valid.
func readRegions(file virtual.Reader) (map[guid]region, error) {
	b := make([]byte, regionTableSize)
	for _, off := range regionTableOffsets {
		if err := virtual.ReadZeroExtended(file, b, off); err != nil {
			return nil, fmt.Errorf("reading region table: %w", err)
		}
		if signed(b, "regi") {
			return parseRegions(b)
		}
	}
	return nil, virtual.Corrupt("neither region table is valid")
}

func parseRegions(b []byte) (map[guid]region, error) {
	count := le.Uint32(b[8:])
	if count > maxRegions {
		return nil, virtual.Corrupt("region table of %d entries", count)
	}
	regions := map[guid]region{}
	for n := range count {
		entry := b[16+32*n:][:32]
		id := readGUID(entry)
		if id != regionBAT && id != regionMetadata {
			if le.Uint32(entry[28:])&1 != 0 {
				return nil, virtual.Unsupported("region {%s}", id)
			}
			continue
		}
		if _, ok := regions[id]; ok {
			return nil, virtual.Corrupt("two regions {%s}", id)
		}
		r, err := newRegion("region {"+string(id)+"}", le.Uint64(entry[16:]), le.Uint32(entry[24:]))
		if err != nil {
			return nil, err
		}
		regions[id] = r
	}
	for _, id := range []guid{regionBAT, regionMetadata} {
		if _, ok := regions[id]; !ok {
			return nil, virtual.Corrupt("no region {%s}", id)
		}
	}
	if regions[regionBAT].overlaps(regions[regionMetadata]) {
		return nil, virtual.Corrupt("the regions overlap")
	}
	return regions, nil
}

// # 2.4 Blocks

const (
	minBlockSize = 1 * mib
	maxBlockSize = 256 * mib

	// A sector bitmap block has a bit for each sector of its chunk.
	bitmapBlockSize  = 1 * mib
	sectorsPerBitmap = 8 * bitmapBlockSize
)

// chunkRatio is the number of payload blocks per sector bitmap block: 16 to
// 32768.
func (m *metadata) chunkRatio() int64 { return sectorsPerBitmap * m.sectorSize / m.blockSize }

// # 2.5 BAT

// Each chunk has an entry for each payload block, then one for its sector
// bitmap block, also where there is none.
func batIndex(block, ratio int64) int64 { return block + block/ratio }

// firstBlock is the first payload block whose entry has this index or a higher
// one.
func firstBlock(index, ratio int64) int64 { return index/(ratio+1)*ratio + index%(ratio+1) }

// batEntries is how many entries of the BAT are used.
func (m *metadata) batEntries() int64 {
	blocks, ratio := virtual.DivUp(m.size, m.blockSize), m.chunkRatio()
	if m.hasParent {
		return virtual.DivUp(blocks, ratio) * (ratio + 1)
	}
	if blocks == 0 {
		return 0
	}
	return batIndex(blocks-1, ratio) + 1
}

func (i *Image) checkBAT() error {
	need := 8 * i.metadata.batEntries()
	if need > i.bat.length {
		return virtual.Corrupt("BAT of %d bytes: a disk of %d bytes needs %d", i.bat.length, i.metadata.size, need)
	}
	if err := virtual.Inside(i.file, "BAT", i.bat.offset, need); err != nil || i.metadata.size > 0 {
		return err
	}
	// A size that was lost leaves blocks behind.
	b, err := i.entry(0)
	if err == nil && le.Uint64(b)&entryState == payloadFullyPresent {
		err = virtual.Corrupt("a disk of 0 bytes with a block")
	}
	return err
}

// lookup finds how the disk is mapped from off on, for up to limit bytes. The
// run may end before the mapping changes, but is never empty.
func (i *Image) lookup(off, limit int64) (mapped.Run, error) {
	size, ratio := i.metadata.blockSize, i.metadata.chunkRatio()
	block, in := off/size, off%size
	index := batIndex(block, ratio)
	b, err := i.entry(index)
	if err != nil {
		return mapped.Run{}, err
	}

	var r mapped.Run
	for r.Length < limit && len(b) > 0 {
		if index%(ratio+1) == ratio { // sector bitmap block
			b, index = b[8:], index+1
			continue
		}
		next, err := i.payload(le.Uint64(b), block, in)
		if r.Length == 0 {
			r = next
			if err != nil {
				return mapped.Run{}, fmt.Errorf("mapping disk offset %#x: %w", off, err)
			}
		} else if err != nil || !r.Join(next) {
			break
		}
		if in += next.Length; in == size {
			b, index, block, in = b[8:], index+1, block+1, 0
		}
	}
	if len(b) == 0 && r.Kind == mapped.Unallocated && r.Length < limit {
		if next := i.skipHole(index); next > block {
			r.Length += (next - block) * size
		}
	}
	r.Length = min(r.Length, limit)
	return r, nil
}

// entry returns the BAT from this index on, up to the end of a page.
func (i *Image) entry(index int64) ([]byte, error) {
	b, err := i.entries.At(i.bat.offset + 8*index)
	if err != nil {
		return nil, fmt.Errorf("reading BAT: %w", err)
	}
	return b, nil
}

// skipHole returns a block up to which all blocks from this entry on are not
// present, because the file has a hole there: the BAT of an empty disk may have
// half a GiB.
func (i *Image) skipHole(index int64) int64 {
	e, err := virtual.NextExtent(i.file, i.bat.offset+8*index)
	if err != nil {
		return 0 // for the call that reads there
	}
	if e.Length > 0 {
		index = min((e.Offset-i.bat.offset)/8, i.metadata.batEntries())
	} else {
		index = i.metadata.batEntries()
	}
	return firstBlock(index, i.metadata.chunkRatio())
}

// # 2.5.1 BAT Entry

const (
	entryState  = 7
	entryOffset = 1<<64 - 1<<20
)

// # 2.5.1.1 Payload BAT Entry States

const (
	payloadNotPresent       = 0
	payloadUndefined        = 1
	payloadZero             = 2
	payloadUnmapped         = 3
	payloadFullyPresent     = 6
	payloadPartiallyPresent = 7
)

// payload is the mapping of a payload block from its byte in on.
func (i *Image) payload(entry uint64, block, in int64) (mapped.Run, error) {
	r := mapped.Run{Length: i.metadata.blockSize - in}
	state := entry & entryState
	switch state {
	case payloadNotPresent:
		return r, nil
	case payloadUndefined, payloadZero, payloadUnmapped:
		// Of the answers that are allowed for undefined and for unmapped
		// blocks, zeros are the one that tells nothing old; QEMU gives it, too.
		r.Kind = mapped.Zeros
		return r, nil
	case payloadFullyPresent:
	case payloadPartiallyPresent:
		if !i.metadata.hasParent {
			return r, virtual.Corrupt("block %d is partially present, but the disk has no parent", block)
		}
	default:
		return r, virtual.Corrupt("block %d has the reserved state %d", block, state)
	}

	// Nobody misses what the last block has after the end of the disk.
	host, err := i.place("block", entry, min(i.metadata.blockSize, i.metadata.size-block*i.metadata.blockSize))
	if err != nil {
		return r, err
	}
	if state == payloadPartiallyPresent {
		return i.sectors(block, host, in)
	}
	r.Kind, r.Host = mapped.Data, host+in
	return r, nil
}

// place is where the file has the n bytes that an entry points to.
func (i *Image) place(what string, entry uint64, n int64) (int64, error) {
	off := entry & entryOffset
	if off < headerSection || off > maxOffset {
		return 0, virtual.Corrupt("%s at %#x", what, off)
	}
	r := region{int64(off), n}
	for _, other := range i.others {
		if r.overlaps(other) {
			return 0, virtual.Corrupt("%s at %#x: there is something else, at %#x", what, off, other.offset)
		}
	}
	return r.offset, virtual.Inside(i.file, what, r.offset, n)
}

// # 2.5.1.2 Sector Bitmap BAT Entry States

const bitmapPresent = 6

// sectors is the mapping of a partially present block at host from its byte in
// on: a bit of one says that the sector is here, zero that the parent has it.
func (i *Image) sectors(block, host, in int64) (mapped.Run, error) {
	ratio, sector := i.metadata.chunkRatio(), i.metadata.sectorSize
	b, err := i.entry(block/ratio*(ratio+1) + ratio)
	if err != nil {
		return mapped.Run{}, err
	}
	entry := le.Uint64(b)
	if entry&entryState != bitmapPresent {
		return mapped.Run{}, virtual.Corrupt("block %d is partially present, but its sector bitmap has state %d", block, entry&entryState)
	}
	bitmap, err := i.place("sector bitmap block", entry, bitmapBlockSize)
	if err != nil {
		return mapped.Run{}, err
	}

	bit := (block%ratio*i.metadata.blockSize + in) / sector
	if b, err = i.bitmaps.At(bitmap + bit/8); err != nil {
		return mapped.Run{}, fmt.Errorf("reading sector bitmap: %w", err)
	}
	present := b[0]>>(bit%8)&1 != 0
	same := byte(0) // eight sectors like the first
	if present {
		same = 0xff
	}
	// Up to the end of the page or of the block, both of which have whole bytes.
	end := min(int64(len(b))*8, bit%8+i.metadata.blockSize/sector-in/sector)
	n := bit%8 + 1
	for n < end && (b[n/8]^same)>>(n%8)&1 == 0 {
		if n%8 == 0 && b[n/8] == same {
			n += 8
		} else {
			n++
		}
	}
	r := mapped.Run{Length: (n-bit%8)*sector - in%sector}
	if present {
		r.Kind, r.Host = mapped.Data, host+in
	}
	return r, nil
}

// # 2.6 Metadata Region

const (
	metadataTableSize = 64 * kib
	maxItems          = 2047
	maxItemSize       = 1 * mib

	itemIsUser     = 1 << 0
	itemIsRequired = 1 << 2
)

// # 2.6.2 Known Metadata Items

const (
	itemFileParameters     guid = "caa16737-fa36-4d43-b3b6-33f0aa44e76b"
	itemVirtualDiskSize    guid = "2fa54224-cd1b-4876-b211-5dbed83bf4b8"
	itemVirtualDiskID      guid = "beca12ab-b2e6-4523-93ef-c309e000c746"
	itemLogicalSectorSize  guid = "8141bf1d-a96f-4709-ba47-f233a8faab5f"
	itemPhysicalSectorSize guid = "cda348c7-445d-4471-9cc9-e9885251c556"
	itemParentLocator      guid = "a8d35f2d-b30b-454d-abf7-d3d84834ab0c"
)

const (
	parametersHasParent = 1 << 1

	maxSize = 64 * tib
)

type metadata struct {
	blockSize     int64
	hasParent     bool
	size          int64
	sectorSize    int64  // logical
	parentLocator []byte // if it has a parent
}

func readMetadata(file virtual.Reader, r region) (m metadata, err error) {
	items, err := readItems(file, r)
	if err != nil {
		return m, err
	}
	// What we need none of must be there all the same.
	for id, length := range map[guid]int64{
		itemFileParameters: 8, itemVirtualDiskSize: 8, itemVirtualDiskID: 16, itemLogicalSectorSize: 4, itemPhysicalSectorSize: 4,
	} {
		if item, ok := items[id]; !ok || item.length != length {
			return m, virtual.Corrupt("item {%s} has %d bytes, not %d", id, item.length, length)
		}
	}
	read := func(id guid) (b []byte) {
		if b = make([]byte, items[id].length); err == nil {
			err = virtual.ReadZeroExtended(file, b, items[id].offset)
		}
		return b
	}

	parameters, size, sector := read(itemFileParameters), read(itemVirtualDiskSize), read(itemLogicalSectorSize)
	if err != nil {
		return m, err
	}
	m.blockSize = int64(le.Uint32(parameters))
	if m.blockSize < minBlockSize || m.blockSize > maxBlockSize || m.blockSize&(m.blockSize-1) != 0 {
		return m, virtual.Corrupt("blocks of %d bytes", m.blockSize)
	}
	m.hasParent = le.Uint32(parameters[4:])&parametersHasParent != 0
	m.sectorSize = int64(le.Uint32(sector))
	if !validSector(m.sectorSize) {
		return m, virtual.Corrupt("sectors of %d bytes", m.sectorSize)
	}
	n := le.Uint64(size)
	if n > maxSize || n%uint64(m.sectorSize) != 0 {
		return m, virtual.Corrupt("virtual disk size of %d bytes", n)
	}
	m.size = int64(n)
	if m.hasParent {
		m.parentLocator = read(itemParentLocator)
	}
	return m, err
}

// validSector says whether a logical sector can have that size (2.6.2.4).
func validSector(size int64) bool { return size == 512 || size == 4096 }

// # 2.6.1 Metadata Table

// readItems finds the system's items that we know, by ID.
func readItems(file virtual.Reader, r region) (map[guid]region, error) {
	if r.length < metadataTableSize {
		return nil, virtual.Corrupt("region of %d bytes", r.length)
	}
	b, err := virtual.ReadPart(file, "metadata table", r.offset, metadataTableSize)
	if err != nil {
		return nil, err
	}
	count := le.Uint16(b[10:])
	if string(b[:8]) != "metadata" || count > maxItems {
		return nil, virtual.Corrupt("no table of up to %d items", maxItems)
	}

	items := map[guid]region{}
	for n := range int(count) {
		entry := b[32+32*n:][:32]
		id, flags := readGUID(entry), le.Uint32(entry[24:])
		switch {
		case flags&itemIsUser == 0 && known(id):
		case flags&itemIsRequired != 0:
			return nil, virtual.Unsupported("metadata item {%s}", id)
		default:
			continue
		}
		if _, ok := items[id]; ok {
			return nil, virtual.Corrupt("two items {%s}", id)
		}
		off, length := int64(le.Uint32(entry[16:])), int64(le.Uint32(entry[20:]))
		if off < metadataTableSize || length > maxItemSize || off > r.length || length > r.length-off {
			return nil, virtual.Corrupt("item {%s} of %d bytes at %d of the region", id, length, off)
		}
		if err := virtual.Inside(file, "metadata item", r.offset+off, length); err != nil {
			return nil, err
		}
		items[id] = region{r.offset + off, length}
	}
	return items, nil
}

func known(id guid) bool {
	switch id {
	case itemFileParameters, itemVirtualDiskSize, itemVirtualDiskID, itemLogicalSectorSize, itemPhysicalSectorSize, itemParentLocator:
		return true
	}
	return false
}
