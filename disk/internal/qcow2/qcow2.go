// Package qcow2 reads and writes QEMU's qcow2 images, versions 2 and 3.
//
// The code follows "QCOW2 image format", docs/interop/qcow2.rst in QEMU, in
// its order and with its words; section names in comments are of that text.
// [Open] reads, [NewWriter] writes uncompressed images in any order,
// [NewCompressor] compressed ones in ascending order.
//
// Left out on purpose: refcounts (reading needs none), dirty bitmaps, the
// state of a machine's memory in a snapshot, encryption.
package qcow2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/davit-oci/davit/disk/internal/mapped"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// Options are how an image is opened.
type Options struct {
	// Snapshot is the ID or the name of the snapshot to read; empty: the
	// active state.
	Snapshot string

	// Backing opens the backing file that the image names, in the format that
	// it records ("" if it does not).
	Backing func(name, format string) (virtual.Reader, error)

	// Data opens the external data file that the image names.
	Data func(name string) (virtual.Reader, error)
}

// An Image is the content of a qcow2 image. It is safe for concurrent use.
type Image struct {
	*mapped.Image
	file   virtual.Reader
	data   virtual.Reader // where data clusters are: file, or the external data file
	header header
	size   int64 // of the active state or of the snapshot
	l1     table // likewise

	l1Tables   mapped.Tables
	l2Tables   mapped.Tables // of its own, so that the two do not push each other out
	decompress decompressor
	packed     sync.Pool // of *[]byte, for compressed clusters
}

// Open reads the header of an image, and its snapshot table if a snapshot is
// wanted. Memory is bounded whatever the file says: a cluster for the header,
// two caches of tables and one of decompressed clusters of 1 MiB each (at least two
// clusters), and two clusters for each compressed one that is being read, one
// per CPU and one per place in the cache.
func Open(file virtual.Reader, o Options) (*Image, error) {
	h, err := readHeader(file)
	if err != nil {
		return nil, err
	}
	i := &Image{
		file:   file,
		data:   file,
		header: h,
		size:   h.size,
		l1:     h.l1,
		packed: sync.Pool{New: func() any { return new([]byte) }},
	}
	i.l1Tables.File, i.l2Tables.File = file, file
	if o.Snapshot != "" {
		s, err := i.findSnapshot(o.Snapshot)
		if err != nil {
			return nil, err
		}
		if s.state {
			return nil, virtual.Unsupported("snapshot %q with the saved memory of a running machine (start the machine from it and shut it down; "+
				"qemu-img convert -l takes the disk alone, as after a power failure)", o.Snapshot)
		}
		i.size, i.l1 = s.size, s.l1
	}
	if err := i.checkL1(); err != nil {
		return nil, err
	}
	if i.decompress, err = newDecompressor(h.compression); err != nil {
		return nil, err
	}
	if h.externalData {
		if i.data, err = o.Data(h.dataFile); err != nil {
			return nil, fmt.Errorf("external data file: %w", err)
		}
	}
	var backing virtual.Reader
	if h.backingFile != "" {
		if backing, err = o.Backing(h.backingFile, h.backingFormat); err != nil {
			return nil, err
		}
	}
	i.Image = mapped.New(mapped.Mapping{
		File:       i.data,
		Parent:     backing,
		Size:       i.size,
		Lookup:     i.lookup,
		BlockSize:  h.clusterSize(),
		Decompress: i.readWhole,
	})
	return i, nil
}

// # Header

const (
	magic = "QFI\xfb"

	minClusterBits = 9  // 512 bytes
	maxClusterBits = 21 // 2 MiB, as in QEMU

	headerLengthV2 = 72
	headerLengthV3 = 104

	maxBackingName = 1023
)

// Incompatible features: who does not know one must not read the image.
const (
	// Refcounts may be wrong. Only who allocates clusters needs them, so a
	// dirty image is as good to read as a clean one.
	featureDirty = 1 << iota
	featureCorrupt
	featureExternalData
	featureCompressionType
	featureExtendedL2
)

type header struct {
	version       uint32
	backingFile   string
	backingFormat string
	clusterBits   uint
	size          int64
	l1            table
	snapshots     uint32
	snapshotTable int64
	externalData  bool // data clusters are in dataFile
	dataFile      string
	extendedL2    bool
	compression   Compression
}

// A table is an array of 8-byte entries at an offset of the file.
type table struct {
	offset  int64
	entries int64
}

func (h *header) clusterSize() int64 { return 1 << h.clusterBits }

// An L2 table has the size of a cluster.
func (h *header) l2EntrySize() int64 {
	if h.extendedL2 {
		return 16
	}
	return 8
}
func (h *header) l2Entries() int64 { return h.clusterSize() / h.l2EntrySize() }

// l2Span is how many bytes of the disk an L2 table maps. At most 2 MiB of
// clusters in 2^18 entries, it is no more than 2^39.
func (h *header) l2Span() int64 { return h.clusterSize() * h.l2Entries() }

func readHeader(file virtual.Reader) (h header, err error) {
	b, err := virtual.ReadHead(file, headerLengthV3+8)
	if err != nil {
		return h, err
	}
	if len(b) < headerLengthV2 || string(b[:4]) != magic {
		return h, virtual.Corrupt("not a qcow2 image")
	}
	be := binary.BigEndian
	h.version = be.Uint32(b[4:])
	if h.version != 2 && h.version != 3 {
		return h, virtual.Unsupported("qcow2 version %d", h.version)
	}
	clusterBits := be.Uint32(b[20:])
	if clusterBits < minClusterBits || clusterBits > maxClusterBits {
		return h, virtual.Unsupported("clusters of 2^%d bytes", clusterBits)
	}
	h.clusterBits = uint(clusterBits)

	// All of the header, its extensions and the backing file's name are in
	// the first cluster.
	b, err = virtual.ReadHead(file, h.clusterSize())
	if err != nil {
		return h, err
	}
	length := uint32(headerLengthV2)
	var incompatible uint64
	if h.version >= 3 {
		if len(b) < headerLengthV3 {
			return h, virtual.Corrupt("header is cut short")
		}
		incompatible = be.Uint64(b[72:])
		length = be.Uint32(b[100:])
		if length < headerLengthV3 || int64(length) > h.clusterSize() || int(length) > len(b) {
			return h, virtual.Corrupt("header length %d", length)
		}
	}
	backingOffset, backingSize := be.Uint64(b[8:]), be.Uint32(b[16:])
	end := uint64(len(b))
	if backingOffset != 0 {
		if backingOffset > end || backingSize > maxBackingName || uint64(backingSize) > end-backingOffset || backingOffset < uint64(length) {
			return h, virtual.Corrupt("backing file name of %d bytes at %d", backingSize, backingOffset)
		}
		h.backingFile = string(b[backingOffset:][:backingSize])
		end = backingOffset
	}
	x, err := parseExtensions(b[length:end])
	if err != nil {
		return h, err
	}
	h.backingFormat = x.backingFormat

	if err := checkFeatures(incompatible, x); err != nil {
		return h, err
	}
	h.externalData, h.dataFile = incompatible&featureExternalData != 0, x.dataFile
	if h.externalData && h.dataFile == "" {
		return h, virtual.Unsupported("external data file without a name")
	}
	h.extendedL2 = incompatible&featureExtendedL2 != 0
	if h.extendedL2 && h.clusterBits < minExtendedBits {
		return h, virtual.Corrupt("subclusters in clusters of %d bytes", h.clusterSize())
	}
	if length > headerLengthV3 {
		h.compression = Compression(b[104])
	}
	if zlib := h.compression == Zlib; zlib == (incompatible&featureCompressionType != 0) {
		return h, virtual.Corrupt("compression type %d contradicts its feature bit", h.compression)
	}

	switch method := be.Uint32(b[32:]); method {
	case 0:
	case 1:
		return h, virtual.Unsupported("%w (AES)", virtual.ErrEncrypted)
	case 2:
		return h, virtual.Unsupported("%w (LUKS)", virtual.ErrEncrypted)
	default:
		return h, virtual.Unsupported("encryption method %d", method)
	}
	size := be.Uint64(b[24:])
	if size > maxL1*uint64(h.l2Span()) {
		return h, virtual.Unsupported("virtual size of %d bytes", size)
	}
	h.size = int64(size)
	h.l1, err = newTable(be.Uint64(b[40:]), be.Uint32(b[36:]))
	if err != nil {
		return h, err
	}
	h.snapshots = be.Uint32(b[60:])
	h.snapshotTable = int64(be.Uint64(b[64:])) // checked when it is used
	return h, nil
}

func newTable(offset uint64, entries uint32) (table, error) {
	if entries > maxL1 {
		return table{}, virtual.Corrupt("L1 table of %d entries", entries)
	}
	if offset > offsetMask {
		return table{}, virtual.Corrupt("L1 table at %#x", offset)
	}
	return table{int64(offset), int64(entries)}, nil
}

// checkFeatures refuses, by name, what the image needs and we have not.
func checkFeatures(incompatible uint64, x extensions) error {
	if incompatible&featureCorrupt != 0 {
		return virtual.Corrupt("image is marked as corrupt")
	}
	unknown := incompatible &^ (featureDirty | featureExternalData | featureCompressionType | featureExtendedL2)
	for bit := range 64 {
		if unknown>>bit&1 == 0 {
			continue
		}
		if name := x.features[bit]; name != "" {
			return virtual.Unsupported("incompatible feature %q (bit %d)", name, bit)
		}
		return virtual.Unsupported("incompatible feature bit %d", bit)
	}
	return nil
}

// # Header extensions

const (
	extensionEnd           = 0
	extensionBackingFormat = 0xe2792aca
	extensionFeatureNames  = 0x6803f857
	extensionDataFile      = 0x44415441
)

type extensions struct {
	backingFormat string
	dataFile      string
	features      map[int]string // of incompatible features, by bit
}

// parseExtensions skips extensions that it does not know, as it should.
func parseExtensions(b []byte) (x extensions, err error) {
	for len(b) >= 8 {
		kind, length := binary.BigEndian.Uint32(b), uint64(binary.BigEndian.Uint32(b[4:]))
		if kind == extensionEnd {
			break
		}
		b = b[8:]
		if length > uint64(len(b)) {
			return x, virtual.Corrupt("header extension %#x of %d bytes", kind, length)
		}
		data := b[:length]
		switch kind {
		case extensionBackingFormat:
			x.backingFormat = string(data)
		case extensionDataFile:
			x.dataFile = string(data)
		case extensionFeatureNames:
			x.features = parseFeatureNames(data)
		}
		b = b[min((length+7)&^7, uint64(len(b))):]
	}
	return x, nil
}

// # Feature name table

func parseFeatureNames(b []byte) map[int]string {
	names := map[int]string{}
	for ; len(b) >= 48; b = b[48:] {
		if b[0] == 0 { // incompatible
			name, _, _ := bytes.Cut(b[2:48], []byte{0})
			names[int(b[1])] = string(name)
		}
	}
	return names
}

// # Cluster mapping

const (
	// maxL1 is QEMU's limit of 32 MiB for an L1 table. It keeps the walk over
	// the table of an empty disk short and all offsets far below 2^63.
	maxL1 = 32 << 20 / 8

	// Bits 9 to 55 of L1 and L2 entries are an offset in the file; the lower
	// ones are zero as clusters are aligned.
	offsetMask = 1<<56 - 1<<9

	entryZero       = 1 << 0
	entryCompressed = 1 << 62
	entryCopied     = 1 << 63 // refcount is one

	minExtendedBits = 14
	subclusters     = 32
)

func (i *Image) checkL1() error {
	// What maps nothing of the disk (memory of a snapshot) is not our business.
	need := virtual.DivUp(i.size, i.header.l2Span())
	if need > i.l1.entries {
		return virtual.Corrupt("L1 table of %d entries maps less than %d bytes", i.l1.entries, i.size)
	}
	if i.l1.entries = need; need == 0 {
		return nil
	}
	if i.l1.offset%i.header.clusterSize() != 0 || i.l1.offset == 0 {
		return virtual.Corrupt("L1 table at %#x: not at the start of a cluster", i.l1.offset)
	}
	return virtual.Inside(i.file, "L1 table", i.l1.offset, 8*need)
}

// l2Table is the offset of the L2 table with this index; 0: all that it would
// map is unallocated.
func (i *Image) l2Table(index int64) (int64, error) {
	if index >= i.l1.entries {
		return 0, nil
	}
	b, err := i.l1Tables.At(i.l1.offset + 8*index)
	if err != nil {
		return 0, fmt.Errorf("reading L1 table: %w", err)
	}
	off := int64(binary.BigEndian.Uint64(b) & offsetMask)
	if off == 0 {
		return 0, nil
	}
	if off%i.header.clusterSize() != 0 {
		return 0, virtual.Corrupt("L2 table at %#x: not at the start of a cluster", off)
	}
	return off, virtual.Inside(i.file, "L2 table", off, i.header.clusterSize())
}

// lookup finds how the disk is mapped from off on, for up to limit bytes. The
// run may end before the mapping changes, but is never empty.
func (i *Image) lookup(off, limit int64) (mapped.Run, error) {
	span := i.header.l2Span()
	l2, err := i.l2Table(off / span)
	if err != nil {
		return mapped.Run{}, err
	}
	if l2 == 0 {
		end := off/span*span + span
		for end-off < limit {
			if next, err := i.l2Table(end / span); next != 0 || err != nil {
				break
			}
			end += span
		}
		return mapped.Run{Kind: mapped.Unallocated, Length: min(end-off, limit)}, nil //nolint:nilerr // as below
	}

	size, entry := i.header.clusterSize(), i.header.l2EntrySize()
	index, in := off%span/size, off%size
	b, err := i.l2Tables.At(l2 + index*entry)
	if err != nil {
		return mapped.Run{}, fmt.Errorf("reading L2 table: %w", err)
	}
	b = b[:min(int64(len(b)), (i.header.l2Entries()-index)*entry)]

	var r mapped.Run
	for r.Length < limit && len(b) > 0 {
		next, err := i.cluster(b, off+r.Length, in)
		if r.Length == 0 {
			r = next
			if err != nil {
				return mapped.Run{}, fmt.Errorf("mapping disk offset %#x: %w", off, err)
			}
		} else if err != nil || !r.Join(next) {
			break
		}
		if in += next.Length; in == size {
			b, in = b[entry:], 0
		}
	}
	r.Length = min(r.Length, limit)
	return r, nil //nolint:nilerr // what is wrong with the next cluster is for the call that begins there
}

// cluster is the mapping of one cluster from its byte in on, which is at off of
// the disk, by the L2 entry that b begins with.
func (i *Image) cluster(b []byte, off, in int64) (mapped.Run, error) {
	entry := binary.BigEndian.Uint64(b)
	r := mapped.Run{Length: i.header.clusterSize() - in}
	if entry&entryCompressed != 0 {
		if i.header.externalData {
			return mapped.Run{}, virtual.Corrupt("compressed cluster in an image with an external data file")
		}
		r.Kind, r.Host = mapped.Compressed, int64(entry&^(entryCompressed|entryCopied))
		return r, nil
	}

	// Standard Cluster Descriptor
	host := int64(entry & offsetMask)
	// "The offset may only be 0 with bit 63 set (indicating a host cluster
	// offset of 0) when an external data file is used."
	allocated := host != 0 || i.header.externalData && entry&entryCopied != 0
	switch {
	case i.header.extendedL2:
		var err error
		if r, err = i.subclusters(binary.BigEndian.Uint64(b[8:]), allocated, in); err != nil {
			return mapped.Run{}, err
		}
	case entry&entryZero != 0 && i.header.version < 3:
		return mapped.Run{}, virtual.Corrupt("zero cluster in an image of version %d", i.header.version)
	case entry&entryZero != 0:
		r.Kind = mapped.Zeros
	case allocated:
		r.Kind = mapped.Data
	}
	if r.Kind != mapped.Data {
		return r, nil
	}
	if host%i.header.clusterSize() != 0 {
		return mapped.Run{}, virtual.Corrupt("data cluster at %#x: not aligned", host)
	}
	// The last cluster of a file may be cut short, and then reads as zeros. One
	// that is not there at all is missing; QEMU's check says so too, but its
	// convert reads zeros.
	if host >= i.data.Size() {
		return mapped.Run{}, virtual.Corrupt("data cluster at %#x: the file ends at %#x", host, i.data.Size())
	}
	r.Host = host + in
	if i.header.externalData && r.Host != off {
		return mapped.Run{}, virtual.Corrupt("data cluster at %#x of an external data file: not at its place in the disk", host)
	}
	return r, nil
}

// # Extended L2 Entries

// subclusters is the mapping of a cluster from its byte in on by the bitmap of
// an extended entry: bit x says that subcluster x is allocated, bit 32+x that
// it reads as zeros.
func (i *Image) subclusters(bitmap uint64, allocated bool, in int64) (mapped.Run, error) {
	size := i.header.clusterSize() / subclusters
	var r mapped.Run
	for x := in / size; x < subclusters; x++ {
		next := mapped.Run{Length: size - in%size}
		switch alloc, zero := bitmap>>x&1 != 0, bitmap>>(32+x)&1 != 0; {
		case alloc && (zero || !allocated):
			return mapped.Run{}, virtual.Corrupt("subcluster %d with bitmap %#016x", x, bitmap)
		case zero:
			next.Kind = mapped.Zeros
		case alloc:
			next.Kind = mapped.Data
		}
		if r.Length == 0 {
			r = next
		} else if r.Kind == next.Kind {
			r.Length += next.Length
		} else {
			break
		}
		in += next.Length
	}
	return r, nil
}

// # Compressed Clusters Descriptor

// readWhole is what the package mapped calls Decompress.
func (i *Image) readWhole(cluster []byte, descriptor int64) error {
	offset, length := i.header.compressedRange(descriptor)
	if offset >= i.file.Size() {
		return virtual.Corrupt("compressed cluster at %#x: the file ends at %#x", offset, i.file.Size())
	}

	// The length is in whole sectors, and the last one may be cut short.
	buf := i.packed.Get().(*[]byte)
	defer i.packed.Put(buf)
	length = min(length, i.file.Size()-offset)
	*buf = slices.Grow((*buf)[:0], int(length))
	b := (*buf)[:length]
	if n, err := i.file.ReadAt(b, offset); n < len(b) {
		return fmt.Errorf("reading compressed cluster at %#x: %w", offset, err)
	}
	if err := i.decompress(cluster, b); err != nil {
		return virtual.Corrupt("compressed cluster at %#x: %w", offset, err)
	}
	return nil
}

// compressedRange is where the file has the data of a compressed cluster, and
// what follows it up to the end of a sector: Bits 0 to x-1 are the offset, bits
// x to 61 the number of sectors besides the first.
func (h *header) compressedRange(descriptor int64) (offset, length int64) {
	x := 62 - (h.clusterBits - 8)
	offset = descriptor & (1<<x - 1)
	return offset, (descriptor>>x+1)*512 - offset%512
}

// # Snapshots

const (
	maxSnapshots     = 65536 // as in QEMU; ends the search in a crafted table
	maxSnapshotExtra = 1024  // likewise
)

type snapshot struct {
	id, name string
	l1       table
	size     int64
	state    bool // it has the memory of a running machine
}

// findSnapshot looks for an ID before it looks for a name, as QEMU does.
func (i *Image) findSnapshot(wanted string) (*snapshot, error) {
	if i.header.snapshots > maxSnapshots {
		return nil, virtual.Corrupt("%d snapshots", i.header.snapshots)
	}
	off := i.header.snapshotTable
	var named *snapshot
	for n := range i.header.snapshots {
		s, next, err := i.readSnapshot(off)
		if err != nil {
			return nil, fmt.Errorf("reading snapshot %d: %w", n, err)
		}
		if s.id == wanted {
			return s, nil
		}
		if s.name == wanted && named == nil {
			named = s
		}
		off = next
	}
	if named == nil {
		return nil, fmt.Errorf("%w %q", virtual.ErrUnknownSnapshot, wanted)
	}
	return named, nil
}

// readSnapshot reads the entry of the snapshot table at off and finds the next.
func (i *Image) readSnapshot(off int64) (s *snapshot, next int64, err error) {
	b, err := virtual.ReadPart(i.file, "snapshot table", off, 40)
	if err != nil {
		return nil, 0, err
	}
	be := binary.BigEndian
	s = &snapshot{size: i.header.size, state: be.Uint32(b[32:]) != 0}
	if s.l1, err = newTable(be.Uint64(b), be.Uint32(b[8:])); err != nil {
		return nil, 0, err
	}
	idLength, nameLength, extraLength := int(be.Uint16(b[12:])), int(be.Uint16(b[14:])), be.Uint32(b[36:])
	if extraLength > maxSnapshotExtra {
		return nil, 0, virtual.Corrupt("%d bytes of extra data", extraLength)
	}
	b, err = virtual.ReadPart(i.file, "snapshot table", off+40, int64(extraLength)+int64(idLength+nameLength))
	if err != nil {
		return nil, 0, err
	}
	if extraLength >= 8 && be.Uint64(b) != 0 {
		s.state = true
	}
	if extraLength >= 16 {
		size := be.Uint64(b[8:])
		if size > maxL1*uint64(i.header.l2Span()) {
			return nil, 0, virtual.Corrupt("virtual size of %d bytes", size)
		}
		s.size = int64(size)
	}
	names := b[extraLength:]
	s.id, s.name = string(names[:idLength]), string(names[idLength:])
	return s, (off + 40 + int64(len(b)) + 7) &^ 7, nil
}
