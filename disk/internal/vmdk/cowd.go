package vmdk

import (
	"encoding/binary"

	"github.com/davit-oci/davit/disk/internal/mapped"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// # ESXi Host Sparse Extents

const (
	cowMagic      = "COWD" // COWDISK_MAGIC 0x44574f43 as it lies in the file
	cowHeaderSize = 2048
	cowGTEs       = 4096 // entries of a grain table, always
)

// openCOW fills s in by the header of its file, COWDisk_Header.
func (s *sparse) openCOW() error {
	b, err := virtual.ReadPart(s.file, "COWD header", 0, cowHeaderSize)
	if err != nil {
		return err
	}
	field := func(off int) uint64 { return uint64(binary.LittleEndian.Uint32(b[off:])) }
	version, numSectors, grainSize, gdOffset, numGDEntries := field(4), field(12), field(16), field(20), field(24)
	if version != 1 { // Workstation 3 wrote 3, with other tables
		return virtual.Unsupported("COWD extent of version %d", version)
	}

	s.size, s.grainSize = sectors(numSectors), sectors(grainSize)
	s.gtes, s.entrySize = cowGTEs, 4
	s.gd = sectors(gdOffset)
	s.table = func(entry uint64) (int64, error) { return sectors(entry), nil }
	s.grain = func(entry uint64) (mapped.Kind, int64, error) {
		switch {
		case entry == 0:
			return mapped.Unallocated, 0, nil
		case entry < cowHeaderSize/sectorSize:
			return 0, 0, virtual.Corrupt("grain at %#x, in the header", sectors(entry))
		}
		return mapped.Data, sectors(entry), nil
	}
	if err := s.check(); err != nil {
		return err
	}
	if uint64(s.gdes()) > numGDEntries {
		return virtual.Corrupt("grain directory of %d entries maps less than %d bytes", numGDEntries, s.size)
	}
	return nil
}

// readRoot returns an empty descriptor for an extent that is a root: it may be
// a disk by itself, as it was for the first products of VMware.
func readRoot(file virtual.Reader) (*descriptor, error) {
	b, err := virtual.ReadPart(file, "COWD header", 0, cowHeaderSize)
	if err != nil {
		return nil, err
	}
	// A union: the geometry of a root, the name of the parent of a child. No
	// disk of 2 TB has 2^24 cylinders.
	if parentFileName := b[32:1056]; parentFileName[3] != 0 {
		return nil, errNoDescriptor
	}
	return &descriptor{cid: noParent, parentCID: noParent}, nil
}
