package vmdk

import (
	"encoding/binary"
	"fmt"

	"github.com/davit-oci/davit/disk/internal/mapped"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// # Space-Efficient Sparse Extents
//
// VMware has not published them. What is known is what QEMU's block/vmdk.c
// knows, from files of ESXi: two headers of a sector, constant and volatile, a
// grain directory, grain tables one after the other, grains one after the
// other, and a journal; entries have 64 bits and are numbers, not offsets. As
// there, what is not as ever seen is refused.

const (
	seMagic         = "\xbe\xba\xfe\xca\x00\x00\x00\x00" // 0xcafebabe as it lies in the file
	seVolatileMagic = 0xcafecafe
	seVersion       = 0x2_0000_0001 // 2.1
	seGrainSize     = 8             // sectors
	seTableSize     = 64            // sectors
)

// openSESparse fills s in by the headers of its file.
func (s *sparse) openSESparse() error {
	header, err := readFields(s.file, 0)
	if err != nil {
		return fmt.Errorf("reading constant header: %w", err)
	}
	version, capacity, grainSize, tableSize, flags := header[1], header[2], header[3], header[4], header[5]
	volatile, gd, gdSize, tables, grains := header[10], header[16], header[17], header[18], header[24]
	switch {
	case version != seVersion:
		return virtual.Unsupported("seSparse extent of version %#x", version)
	case grainSize != seGrainSize || tableSize != seTableSize || flags != 0:
		return virtual.Unsupported("seSparse extent with grains of %d sectors, tables of %d, flags %#x", grainSize, tableSize, flags)
	case capacity > maxSize/sectorSize:
		return virtual.Corrupt("capacity of %d sectors", capacity)
	}
	state, err := readFields(s.file, sectors(volatile))
	if err != nil {
		return fmt.Errorf("reading volatile header: %w", err)
	}
	if state[0] != seVolatileMagic {
		return virtual.Corrupt("no volatile header: magic number %#x", state[0])
	}
	if state[3] != 0 {
		return virtual.Unsupported("seSparse extent with a journal to replay: start and stop the machine, or consolidate its snapshots")
	}

	s.size, s.grainSize = sectors(capacity), seGrainSize*sectorSize
	s.gtes, s.entrySize = seTableSize*sectorSize/8, 8
	s.gd = sectors(gd)
	s.table = func(entry uint64) (int64, error) {
		switch {
		case entry == 0:
			return 0, nil
		case entry>>32 != 0x10000000:
			return 0, virtual.Corrupt("grain directory entry %#016x", entry)
		}
		return placed(tables, entry&(1<<32-1), seTableSize), nil
	}
	s.grain = func(entry uint64) (mapped.Kind, int64, error) {
		switch number := entry & (1<<60 - 1); {
		case entry == 0:
			return mapped.Unallocated, 0, nil
		case entry>>60 == 1, entry>>60 == 2: // unmapped by the guest; zero
			return mapped.Zeros, 0, nil
		case entry>>60 == 3: // the upper 12 bits of the number are the lowest
			return mapped.Data, placed(grains, number>>48|number<<12&(1<<60-1), seGrainSize), nil
		}
		return 0, 0, virtual.Corrupt("grain table entry %#016x", entry)
	}
	if err := s.check(); err != nil {
		return err
	}
	if have := sectors(gdSize) / 8; s.gdes() > have {
		return virtual.Corrupt("grain directory of %d entries maps less than %d bytes", have, s.size)
	}
	return nil
}

// placed is the offset of the piece with this number, of those of size sectors
// that begin at the sector start.
func placed(start, number, size uint64) int64 {
	if start > maxSize/sectorSize || number > maxSize/sectorSize/size {
		return sectors(1 << 63) // in no file
	}
	return sectors(start + number*size)
}

// readFields reads a sector of 64-bit fields.
func readFields(file virtual.Reader, off int64) ([]uint64, error) {
	b, err := virtual.ReadPart(file, "header", off, sectorSize)
	if err != nil {
		return nil, err
	}
	fields := make([]uint64, sectorSize/8)
	for n := range fields {
		fields[n] = binary.LittleEndian.Uint64(b[8*n:])
	}
	return fields, nil
}
