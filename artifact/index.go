package artifact

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/davit-oci/davit/chunker"
)

// Sizes and limits of an index (docs/spec.md, "Index").
const (
	indexMagic      = "DAVITIX1"
	indexHeader     = 76
	indexLayerSize  = 92
	indexRegionSize = 80

	maxVirtualSize = 1 << 58

	// maxHead bounds the memory of a head, in bytes: 50 TiB of data.
	maxHead = 64 << 20

	// maxPage is what 8192 runs of one chunk can take, in bytes.
	maxPage = chunker.MaxRegionChunks * 4 * 5
)

// An Index is the head of a disk index: which layers there are and which page
// says what a region holds.
type Index struct {
	Optional   uint64 // feature bits that a reader may ignore
	Profile    chunker.Profile
	Size       int64 // virtual size of the disk, in bytes
	DiskDigest [sha256.Size]byte
	Layers     []IndexLayer
	Regions    []IndexRegion // those that are not empty, ascending
}

// An IndexLayer is a line of the layer table.
type IndexLayer struct {
	Digest    [sha256.Size]byte
	Size      int64
	DirOffset int64
	DirStored uint32
	DirPlain  uint32
	DirDigest [sha256.Size]byte // of the stored bytes
	Chunks    uint32
}

// An IndexRegion is a line of the region table.
type IndexRegion struct {
	Number     uint32
	Identity   [sha256.Size]byte
	PageOffset int64 // in the index
	PageLength uint32
	PageDigest [sha256.Size]byte
}

// headSize returns the length of the head in bytes.
func (x *Index) headSize() int64 {
	return indexHeader + indexLayerSize*int64(len(x.Layers)) + indexRegionSize*int64(len(x.Regions))
}

// encodeHead returns header and tables.
func (x *Index) encodeHead() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, x.headSize())
	b = append(b, indexMagic...)
	b = le.AppendUint64(b, 0)
	b = le.AppendUint64(b, x.Optional)
	b = le.AppendUint32(b, uint32(x.Profile))
	b = le.AppendUint64(b, uint64(x.Size))
	b = append(b, x.DiskDigest[:]...)
	b = le.AppendUint32(b, uint32(len(x.Layers)))
	b = le.AppendUint32(b, uint32(len(x.Regions)))
	for i := range x.Layers {
		b = x.Layers[i].append(b)
	}
	for i := range x.Regions {
		r := &x.Regions[i]
		b = le.AppendUint32(b, r.Number)
		b = append(b, r.Identity[:]...)
		b = le.AppendUint64(b, uint64(r.PageOffset))
		b = le.AppendUint32(b, r.PageLength)
		b = append(b, r.PageDigest[:]...)
	}
	return b
}

// append appends the line to b.
func (l *IndexLayer) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, l.Digest[:]...)
	b = le.AppendUint64(b, uint64(l.Size))
	b = le.AppendUint64(b, uint64(l.DirOffset))
	b = le.AppendUint32(b, l.DirStored)
	b = le.AppendUint32(b, l.DirPlain)
	b = append(b, l.DirDigest[:]...)
	return le.AppendUint32(b, l.Chunks)
}

// headLength reads the header of an index of size bytes and returns the
// length of its head.
func headLength(header []byte, size int64, name string) (int64, error) {
	bad := func(why string, args ...any) (int64, error) { return 0, refuse(PartIndex, "of "+name, why, args...) }
	le := binary.LittleEndian
	if len(header) < indexHeader || string(header[:8]) != indexMagic {
		return bad("it does not begin with %s", indexMagic)
	}
	if f := le.Uint64(header[8:]); f != 0 {
		return 0, fmt.Errorf("index of %s: %w: incompatible feature bit %d", name, ErrNewer, bits.TrailingZeros64(f))
	}
	head := indexHeader + indexLayerSize*int64(le.Uint32(header[68:])) + indexRegionSize*int64(le.Uint32(header[72:]))
	if head > size {
		return bad("its tables of %d bytes are longer than its %d", head, size)
	}
	if head > maxHead {
		return 0, fmt.Errorf("index of %s: its head of %d bytes is over davit's limit of %d", name, head, maxHead)
	}
	return head, nil
}

// parseHead parses and checks the head of an index of size bytes. Pages are
// not looked at. The disk digest is recomputed from the region table.
func parseHead(b []byte, size int64, name string) (*Index, error) {
	bad := func(why string, args ...any) (*Index, error) { return nil, refuse(PartIndex, "of "+name, why, args...) }
	if n, err := headLength(b, size, name); err != nil {
		return nil, err
	} else if n != int64(len(b)) {
		return bad("its head has %d bytes, not %d", n, len(b))
	}
	le := binary.LittleEndian
	virtual := le.Uint64(b[28:])
	if virtual > maxVirtualSize {
		return bad("the virtual size of %d bytes is over the limit of 2^58", virtual)
	}
	x := &Index{
		Optional: le.Uint64(b[16:]),
		Profile:  chunker.Profile(le.Uint32(b[24:])),
		Size:     int64(virtual),
		Layers:   make([]IndexLayer, le.Uint32(b[68:])),
		Regions:  make([]IndexRegion, le.Uint32(b[72:])),
	}
	copy(x.DiskDigest[:], b[36:])
	b = b[indexHeader:]

	seen := make(map[sum]bool, len(x.Layers))
	for i := range x.Layers {
		l := &x.Layers[i]
		size, offset := le.Uint64(b[32:]), le.Uint64(b[40:])
		*l = IndexLayer{Size: int64(size), DirOffset: int64(offset), DirStored: le.Uint32(b[48:]), DirPlain: le.Uint32(b[52:]), Chunks: le.Uint32(b[88:])}
		copy(l.Digest[:], b)
		copy(l.DirDigest[:], b[56:])
		switch {
		case seen[l.Digest]:
			return bad("layer %s is in its table twice", Digest(l.Digest))
		case offset > size || size-offset != uint64(l.DirStored) || size > 1<<62:
			return bad("the directory of layer %s does not end where the layer ends", Digest(l.Digest))
		case l.Chunks == 0 || l.Chunks > maxLayerChunks:
			return bad("layer %s has %d chunks, not 1 to %d", Digest(l.Digest), l.Chunks, maxLayerChunks)
		case int64(l.DirPlain) > maxDirectory(int64(l.DirStored)):
			return bad("the directory of layer %s stores %d bytes in %d, out of proportion to what a directory holds", Digest(l.Digest), l.DirPlain, l.DirStored)
		}
		seen[l.Digest] = true
		b = b[indexLayerSize:]
	}

	disk := chunker.NewDisk(x.Profile)
	page := x.headSize()
	for i := range x.Regions {
		r := &x.Regions[i]
		offset := le.Uint64(b[36:])
		*r = IndexRegion{Number: le.Uint32(b), PageOffset: int64(offset), PageLength: le.Uint32(b[44:])}
		copy(r.Identity[:], b[4:])
		copy(r.PageDigest[:], b[48:])
		switch {
		case i > 0 && r.Number <= x.Regions[i-1].Number:
			return bad("its regions do not ascend at %d", r.Number)
		case int64(r.Number)*chunker.RegionSize >= x.Size:
			return bad("region %d is beyond the virtual size of %d bytes", r.Number, x.Size)
		case offset != uint64(page):
			return bad("the page of region %d is at %d, not at %d", r.Number, offset, page)
		case r.PageLength > maxPage:
			return bad("the page of region %d has %d bytes, more than %d", r.Number, r.PageLength, maxPage)
		case int64(r.PageLength) > size-page:
			return bad("the page of region %d ends after the index", r.Number)
		}
		page += int64(r.PageLength)
		disk.Add(r.Number, &r.Identity)
		b = b[indexRegionSize:]
	}
	if page != size {
		return bad("it has %d bytes, head and pages are %d", size, page)
	}
	if got := disk.Digest(); got != x.DiskDigest {
		return bad("its regions hash to the disk digest %s, not %s", Digest(got), Digest(x.DiskDigest))
	}
	return x, nil
}

// A run is chunks that are consecutive in a layer and adjacent on the disk.
type run struct {
	start int // first block, from the start of the region
	layer int // in the layer table
	first int // number of the first chunk in the layer
	count int
}

// A pageWriter encodes the runs of a region. Zero it for the next region.
type pageWriter struct {
	b   []byte
	end int // block after the last chunk
	run run
	len int // blocks of the current run
}

// add adds the next chunk.
func (p *pageWriter) add(start, blocks, layer, chunk int) {
	if p.run.count > 0 && start == p.run.start+p.len && layer == p.run.layer && chunk == p.run.first+p.run.count {
		p.run.count++
		p.len += blocks
		return
	}
	p.flush()
	p.run = run{start, layer, chunk, 1}
	p.len = blocks
}

func (p *pageWriter) flush() {
	if p.run.count == 0 {
		return
	}
	p.b = binary.AppendUvarint(p.b, uint64(p.run.start-p.end))
	p.b = binary.AppendUvarint(p.b, uint64(p.run.layer))
	p.b = binary.AppendUvarint(p.b, uint64(p.run.first))
	p.b = binary.AppendUvarint(p.b, uint64(p.run.count))
	p.end = p.run.start + p.len
	p.run.count = 0
}

// bytes returns the page. It has no bytes if no chunk was added.
func (p *pageWriter) bytes() []byte {
	p.flush()
	return p.b
}

// parsePage decodes the runs of a page. Gaps become starts when the lengths
// of chunks are known, so run.start holds the gap; see [walkPage].
func parsePage(b []byte, layers []IndexLayer, where string) ([]run, error) {
	bad := func(why string, args ...any) ([]run, error) { return nil, refuse(PartPage, where, why, args...) }
	if len(b) == 0 {
		return bad("it has no runs")
	}
	var runs []run
	chunks := 0
	for len(b) > 0 {
		var v [4]uint64
		for i := range v {
			var n int
			if v[i], n = uvarint(b); n == 0 {
				return bad("it ends within a run or has an overlong number")
			}
			b = b[n:]
		}
		r := run{int(v[0]), int(v[1]), int(v[2]), int(v[3])}
		switch {
		case v[0] >= chunker.RegionBlocks:
			return bad("a gap of %d blocks leaves the region", v[0])
		case v[1] >= uint64(len(layers)):
			return bad("layer %d is not in the table of %d", v[1], len(layers))
		case r.count == 0:
			return bad("a run has no chunks")
		case v[2]+v[3] > uint64(layers[r.layer].Chunks):
			return bad("a run ends at chunk %d of layer %d, which has %d", v[2]+v[3], r.layer, layers[r.layer].Chunks)
		}
		if chunks += r.count; chunks > chunker.MaxRegionChunks {
			return bad("it has more than %d chunks", chunker.MaxRegionChunks)
		}
		if n := len(runs); n > 0 {
			if l := runs[n-1]; r.start == 0 && l.layer == r.layer && l.first+l.count == r.first {
				return bad("two runs could be one")
			}
		}
		runs = append(runs, r)
	}
	return runs, nil
}

// uvarint decodes an unsigned LEB128 number below 2^32 in its shortest form.
// n is 0 if there is none.
func uvarint(b []byte) (v uint64, n int) {
	v, n = binary.Uvarint(b)
	if n <= 0 || v >= 1<<32 || (n > 1 && b[n-1] == 0) {
		return 0, 0
	}
	return v, n
}

// checkPage checks the bytes of a page against the region table.
func checkPage(b []byte, r *IndexRegion, where string) error {
	if got := sha256.Sum256(b); !bytes.Equal(got[:], r.PageDigest[:]) {
		return refuse(PartPage, where, "its bytes hash to %s, not %s", Digest(got), Digest(r.PageDigest))
	}
	return nil
}
