// Package chunker cuts the content of a virtual disk into chunks and names
// what it finds. It is the part of the artifact format that everyone must
// agree on for chunks to meet: a pure function of the bytes a guest sees,
// whatever file format they came in and however many processors cut them.
//
// A disk is a sequence of regions of [RegionSize] bytes that are cut
// independently of each other. Within a region, [Profile.Next] says where the
// chunk that begins at a block ends. [Region] and [Disk] hash the cuts into
// the region identity and the disk digest.
//
// The package does no I/O and imports only the standard library. See
// docs/spec.md, "Cutting" and "Names of content".
package chunker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	// BlockSize is the unit of cutting, in bytes. Guest file systems place
	// data on multiples of it.
	BlockSize = 4096

	// RegionSize is the part of a disk that is cut by itself, in bytes. No
	// chunk crosses a multiple of it.
	RegionSize = 64 << 20

	// RegionBlocks is the number of blocks in a region.
	RegionBlocks = RegionSize / BlockSize

	// MaxBlocks is the length of the longest chunk, in blocks.
	MaxBlocks = 128

	// MaxChunk is the length of the longest chunk, in bytes.
	MaxChunk = MaxBlocks * BlockSize

	// MaxRegionChunks is the largest number of chunks in a region.
	MaxRegionChunks = 8192

	// Window is how many bytes [Profile.Next] may look at: the longest chunk,
	// or a first block and the blocks that decide whether a file begins behind it.
	Window = MaxChunk
)

// The parameters of profile 1.
const (
	tailBytes = 16      // zeros at the end of a block that make it a tail
	minTail   = 2       // a chunk of this many blocks ends at a tail
	lookahead = 8       // blocks without a tail that a large file starts with
	minHash   = 16      // blocks before the checksum may end a chunk
	hashBelow = 1 << 28 // CRC-32C below which a block ends a chunk: one in 16
)

// Profile is the rule that chunks are cut by. It is recorded in the index, so
// that disks cut by one rule are recognised.
type Profile uint32

// Profile1 is the rule of docs/spec.md, "Cutting".
const Profile1 Profile = 1

// Known reports whether this package can cut by p. Reading an artifact does
// not need it, since cuts are recorded there.
func (p Profile) Known() bool { return p == Profile1 }

func (p Profile) String() string { return fmt.Sprintf("%d", uint32(p)) }

var (
	zeros      [BlockSize]byte
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// IsHole reports whether b, usually a block, is zeros.
func IsHole(b []byte) bool {
	for len(b) > BlockSize {
		if !bytes.Equal(b[:BlockSize], zeros[:]) {
			return false
		}
		b = b[BlockSize:]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// Holes returns how many of the blocks at the start of b are holes.
func Holes(b []byte) int {
	n := 0
	for len(b) >= BlockSize && IsHole(b[:BlockSize]) {
		b = b[BlockSize:]
		n++
	}
	return n
}

func isTail(block []byte) bool {
	return binary.LittleEndian.Uint64(block[BlockSize-tailBytes:]) == 0 &&
		binary.LittleEndian.Uint64(block[BlockSize-tailBytes/2:]) == 0
}

// Next returns the length, in blocks, of the chunk at the start of b, whose
// first block is not a hole. b is whole blocks; it ends at the end of the
// region or of the disk (its last block padded with zeros), or it holds at
// least [Window] bytes. Next panics if p is not [Profile.Known].
func (p Profile) Next(b []byte) int {
	if p != Profile1 {
		panic("chunker: cutting with unknown profile " + p.String())
	}
	for n := 1; ; n++ {
		last := b[(n-1)*BlockSize : n*BlockSize]
		rest := b[n*BlockSize:]
		switch {
		case n == MaxBlocks || len(rest) == 0 || IsHole(rest[:BlockSize]):
			return n
		case isTail(last):
			if n >= minTail || startsFile(rest) {
				return n
			}
		case n >= minHash && crc32.Checksum(last, castagnoli) < hashBelow:
			return n
		}
	}
}

// startsFile reports whether the next blocks are all in the run and none of
// them is a tail: a large file begins here.
func startsFile(b []byte) bool {
	if len(b) < lookahead*BlockSize {
		return false
	}
	for i := range lookahead {
		// A hole is a tail, too, so this also finds the end of the run.
		if isTail(b[i*BlockSize : (i+1)*BlockSize]) {
			return false
		}
	}
	return true
}
