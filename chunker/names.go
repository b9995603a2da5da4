package chunker

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
)

// A Digest is a SHA-256 digest: of a chunk's bytes, a region or a disk.
type Digest = [sha256.Size]byte

// A Region hashes the chunks of one region into its identity. The zero value
// is a region without chunks.
type Region struct {
	h      hash.Hash
	chunks int
}

// Add adds the next chunk: start is its first block, counted from the start of
// the region, blocks its length.
func (r *Region) Add(start, blocks int, chunk *Digest) {
	if r.h == nil {
		r.h = sha256.New()
	}
	var b [4 + sha256.Size]byte
	binary.LittleEndian.PutUint16(b[0:], uint16(start))
	binary.LittleEndian.PutUint16(b[2:], uint16(blocks))
	copy(b[4:], chunk[:])
	r.h.Write(b[:])
	r.chunks++
}

// Chunks returns how many chunks were added.
func (r *Region) Chunks() int { return r.chunks }

// Identity returns the region identity (docs/spec.md, "Names of content") and
// makes r ready for the next region.
func (r *Region) Identity() (id Digest) {
	if r.h == nil {
		r.h = sha256.New()
	}
	r.h.Sum(id[:0])
	r.h.Reset()
	r.chunks = 0
	return id
}

// A Disk hashes the identities of regions into the disk digest.
type Disk struct{ h hash.Hash }

// NewDisk returns the digest of a disk without chunks, cut by p.
func NewDisk(p Profile) *Disk {
	h := sha256.New()
	h.Write([]byte("davit disk 1\x00"))
	h.Write(binary.LittleEndian.AppendUint32(nil, uint32(p)))
	return &Disk{h}
}

// Add adds a region that has chunks. Regions come in ascending order.
func (d *Disk) Add(region uint32, identity *Digest) {
	var b [4 + sha256.Size]byte
	binary.LittleEndian.PutUint32(b[0:], region)
	copy(b[4:], identity[:])
	d.h.Write(b[:])
}

// Digest returns the disk digest of the regions added so far.
func (d *Disk) Digest() (sum Digest) {
	d.h.Sum(sum[:0])
	return sum
}
