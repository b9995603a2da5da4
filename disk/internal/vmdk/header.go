package vmdk

import (
	"encoding/binary"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// # Hosted Sparse Extent Header

const (
	sectorSize = 512
	headerSize = 512
	magic      = "KDMV" // SPARSE_MAGICNUMBER 0x564d444b as it lies in the file

	// Bits of flags.
	flagNewLineTest    = 1 << 0  // valid new line detection test
	flagRedundantGT    = 1 << 1  // redundant grain table will be used
	flagZeroedGrain    = 1 << 2  // zeroed-grain GTE: version 2 and later
	flagCompressed     = 1 << 16 // the grains are compressed
	flagMarkers        = 1 << 17 // there are markers in the virtual disk
	newLineTest        = "\n \r\n"
	compressionNone    = 0 // compressAlgorithm
	compressionDeflate = 1
	gdAtEnd            = 1<<64 - 1 // GD_AT_END, a gdOffset: the footer has it

	// Grain table entries that are no offsets of grains.
	gteUnallocated = 0
	gteZeroed      = 1 // with flagZeroedGrain
)

// A header is the SparseExtentHeader, which a footer repeats. Offsets and sizes
// are in sectors.
type header struct {
	version           uint32
	flags             uint32
	capacity          uint64
	grainSize         uint64
	descriptorOffset  uint64
	descriptorSize    uint64
	numGTEsPerGT      uint32
	rgdOffset         uint64
	gdOffset          uint64
	overHead          uint64
	uncleanShutdown   bool
	newLines          [4]byte // singleEndLineChar, nonEndLineChar, doubleEndLineChar1 and 2
	compressAlgorithm uint16
}

// parseHeader reads a header of headerSize bytes. It checks nothing but the
// magic number: whether the fields make sense is for their user to say.
func parseHeader(b []byte) (*header, error) {
	if string(b[:4]) != magic {
		return nil, virtual.Corrupt("no sparse extent header: magic number %q", b[:4])
	}
	le := binary.LittleEndian
	return &header{
		version:           le.Uint32(b[4:]),
		flags:             le.Uint32(b[8:]),
		capacity:          le.Uint64(b[12:]),
		grainSize:         le.Uint64(b[20:]),
		descriptorOffset:  le.Uint64(b[28:]),
		descriptorSize:    le.Uint64(b[36:]),
		numGTEsPerGT:      le.Uint32(b[44:]),
		rgdOffset:         le.Uint64(b[48:]),
		gdOffset:          le.Uint64(b[56:]),
		overHead:          le.Uint64(b[64:]),
		uncleanShutdown:   b[72] != 0,
		newLines:          [4]byte(b[73:77]),
		compressAlgorithm: le.Uint16(b[77:]),
	}, nil
}

// # Markers

// A marker is what precedes a grain or metadata in a stream-optimized extent.
// It fills a sector, but for that of a grain, whose data follow at once.
const (
	grainMarkerSize = 12 // LBA in 8 bytes, size of the data in 4

	// Types of the markers of metadata: offset 12, after the number of sectors
	// of the metadata in 8 bytes and a size of 0 in 4.
	markerEOS    = 0
	markerGT     = 1
	markerGD     = 2
	markerFooter = 3
)
