package vmdk

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"iter"
	"math"
	"os"
	"strings"

	"github.com/davit-oci/davit/disk/internal/blocks"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// What we write has the sizes that VMware's own images have: grains of 64 KiB
// ("the default is currently 128"), tables of 512 entries ("there are always
// 512"). Its disklib opens no others: vmware/open-vmdk, vmdk/sparse.c.
const (
	grainSectors = 128
	grainBytes   = grainSectors * sectorSize

	gtEntries = 512
	gtBytes   = 4 * gtEntries
	gtSectors = gtBytes / sectorSize

	// The descriptor is in the 20 sectors that ESXi and QEMU give it, too.
	// VirtualBox adds its UUIDs to a descriptor when it opens a disk for
	// writing, and fails if they do not fit.
	descriptorOffset  = 1
	descriptorSectors = 20

	// Tables have sectors of the file in 32 bits.
	maxFile = (math.MaxUint32 + 1) * sectorSize

	// maxDisk is more than any product of VMware takes: 62 TB is the limit of
	// vSphere, 8 TB that of Workstation. It bounds a grain directory to 8 MiB.
	maxDisk = 64 << 40
)

// DiskSize is the virtual size that both kinds of images store for a disk of
// size bytes: whole grains, because the capacity "should be a multiple of the
// grain size" (Hosted Sparse Extent Header). Disks of whole MiB stay as they
// are. An empty disk gets a grain: to QEMU a capacity of 0 says that the
// extents are elsewhere.
func DiskSize(size int64) (int64, error) {
	if size > maxDisk {
		return 0, virtual.Unsupported("virtual size of %d bytes: the limit of a VMDK is %d", size, int64(maxDisk))
	}
	return max(1, virtual.DivUp(size, grainBytes)) * grainBytes, nil
}

// gtCount is how many grain tables map a disk of size bytes.
func gtCount(size int64) int64 { return virtual.DivUp(size, gtEntries*grainBytes) }

// WriteOptions are what an image says besides the disk. The zero value is right.
type WriteOptions struct {
	// Name is the base name that the file is going to have, which the
	// descriptor repeats. Nobody relies on it: ovftool writes
	// "generated-stream.vmdk" into all of its images. Characters other than
	// printable ASCII become underscores.
	Name string

	// Adapter is the ddb.adapterType: "ide", "buslogic", "lsilogic" (default)
	// or "legacyESX". The technical note has no others; a disk at any newer
	// adapter is one of lsilogic.
	Adapter string

	// ID goes into the content ID, see there. All other bytes depend on the
	// disk alone.
	ID [16]byte

	// Jobs is how many grains of a stream are compressed at the same time;
	// below 1: one per CPU that Go uses. It does not change the image.
	Jobs int
}

// # Hosted Sparse Extent Header

func (h *header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, magic)
	le := binary.LittleEndian
	le.PutUint32(b[4:], h.version)
	le.PutUint32(b[8:], h.flags)
	le.PutUint64(b[12:], h.capacity)
	le.PutUint64(b[20:], h.grainSize)
	le.PutUint64(b[28:], h.descriptorOffset)
	le.PutUint64(b[36:], h.descriptorSize)
	le.PutUint32(b[44:], h.numGTEsPerGT)
	le.PutUint64(b[48:], h.rgdOffset)
	le.PutUint64(b[56:], h.gdOffset)
	le.PutUint64(b[64:], h.overHead)
	if h.uncleanShutdown {
		b[72] = 1
	}
	copy(b[73:], h.newLines[:])
	le.PutUint16(b[77:], h.compressAlgorithm)
	return b
}

// newHeader has what all headers that we write have in common, for a disk of
// whole grains.
func newHeader(size int64) header {
	return header{
		flags:            flagNewLineTest,
		capacity:         uint64(size / sectorSize),
		grainSize:        grainSectors,
		descriptorOffset: descriptorOffset,
		descriptorSize:   descriptorSectors,
		numGTEsPerGT:     gtEntries,
		newLines:         [4]byte([]byte(newLineTest)),
	}
}

// # The Descriptor File

// encodeDescriptor fills descriptorSectors. The lines are those that ESXi
// writes, but for the encoding, since all is ASCII, and for ddb.uuid and
// ddb.longContentID: ovftool, QEMU and the note do without the one or both.
// VirtualBox gives a disk the ddb.uuid.image that it lacks.
func encodeDescriptor(createType string, size int64, o WriteOptions) ([]byte, error) {
	adapter := o.Adapter
	switch adapter {
	case "":
		adapter = "lsilogic"
	case "ide", "buslogic", "lsilogic", "legacyESX":
	default:
		return nil, fmt.Errorf("adapter type %q: not ide, buslogic, lsilogic or legacyESX", adapter)
	}
	sectors := size / sectorSize
	g := geometryOf(adapter, sectors)

	// Streams of ovftool are RDONLY, but in QEMU's eyes only RW extents are any.
	// The hardware version mattered to ESX 3 and before (open-vmdk).
	text := fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=%08x
parentCID=ffffffff
createType="%s"

# Extent description
RW %d SPARSE "%s"

# The Disk Data Base
#DDB

ddb.adapterType = "%s"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "%d"
ddb.virtualHWVersion = "4"
`, contentID(o.ID, size), createType, sectors, extentName(o.Name), adapter, g.cylinders, g.heads, g.sectors)

	b := make([]byte, descriptorSectors*sectorSize)
	copy(b, text)
	return b, nil
}

// contentID makes the CID. VMware draws a new one when a disk is opened and
// written to for the first time, and a delta remembers that of its parent. It
// compares nothing else: disks may share a CID. But if a disk that has a delta
// is replaced by another one, only another CID shows it, so that should depend
// on more than the size. It is not known here what the content will be.
//
// ffffffff would be no disk at all, fffffffe one that nobody has written to;
// open-vmdk avoids both.
func contentID(id [16]byte, size int64) uint32 {
	h := fnv.New32a()
	h.Write(id[:])
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(size)))
	return min(h.Sum32(), 0xfffffffd)
}

// maxName is what file systems have as the limit of a name. The descriptor has
// room for much more.
const maxName = 255

// extentName makes a name that needs neither quoting nor an encoding.
func extentName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || strings.ContainsRune(`"/\`, r) {
			return '_'
		}
		return r
	}, name)
	if name == "" {
		return "disk.vmdk"
	}
	return name[:min(len(name), maxName)]
}

type geometry struct{ cylinders, heads, sectors int64 }

// geometryOf is the geometry that VMware gives to a disk: for SCSI the
// translation of BusLogic adapters, for IDE that of ATA with its limit. A last
// cylinder that is not whole does not count. open-vmdk stops at 65535
// cylinders.
func geometryOf(adapter string, sectors int64) geometry {
	const gib = 1 << 30 / sectorSize
	g, limit := geometry{heads: 255, sectors: 63}, int64(65535)
	switch {
	case adapter == "ide":
		g, limit = geometry{heads: 16, sectors: 63}, 16383
	case sectors < gib:
		g = geometry{heads: 64, sectors: 32}
	case sectors < 2*gib:
		g = geometry{heads: 128, sectors: 32}
	}
	g.cylinders = min(max(1, sectors/(g.heads*g.sectors)), limit)
	return g
}

// # Hosted Sparse Extents

// places are where a monolithicSparse image has its metadata, in sectors.
type places struct {
	tables   int64 // number of grain tables in each directory
	rgd, rgt int64 // redundant grain directory, first redundant grain table
	gd, gt   int64
	grains   int64
}

// layOut keeps to the order in which VMware's images are, which is also that of
// the technical note.
func layOut(size int64) (p places) {
	p.tables = gtCount(size)
	directory := virtual.DivUp(4*p.tables, sectorSize)
	p.rgd = descriptorOffset + descriptorSectors
	p.rgt = p.rgd + directory
	p.gd = p.rgt + p.tables*gtSectors
	p.gt = p.gd + directory
	p.grains = virtual.RoundUp(p.gt+p.tables*gtSectors, grainSectors)
	return p
}

// NewWriter lays out a monolithicSparse image and writes all of it but the
// data, which is then written in any order. The file is
//
//	header | descriptor | redundant directory | redundant tables | directory | tables | grains
//
// where grains has those that hold data, in the order of the disk. So a range
// of such grains is one range of the file.
//
// All grain tables have their place, because "all the grain tables are created
// when the sparse extent is created" and VMware cannot use images in which some
// are missing (VirtualBox, VMDK.cpp). Those without a grain are holes of the
// file, so that a large disk with little data remains a small file.
func NewWriter(f *os.File, size int64, data iter.Seq2[virtual.Extent, error], o WriteOptions) (*blocks.Writer, error) {
	rounded, err := DiskSize(size)
	if err != nil {
		return nil, err
	}
	descriptor, err := encodeDescriptor("monolithicSparse", rounded, o)
	if err != nil {
		return nil, err
	}
	grains, err := blocks.NewMap(grainBytes, size, data)
	if err != nil {
		return nil, err
	}
	p := layOut(rounded)
	layout := blocks.Layout{Size: rounded, First: p.grains * sectorSize}
	layout.End = layout.First + grains.Len()*grainBytes
	if layout.End > maxFile {
		return nil, virtual.Unsupported("a VMDK with %d bytes of data: its file cannot be larger than %d", grains.Len()*grainBytes, int64(maxFile))
	}

	w, err := blocks.NewWriter(f, grains, layout, data)
	if err != nil {
		return nil, err
	}
	return w, writeMetadata(f, rounded, p, descriptor, grains)
}

// writeMetadata writes all that is not zeros before the grains.
func writeMetadata(f *os.File, size int64, p places, descriptor []byte, grains *blocks.Map) error {
	h := newHeader(size)
	h.version = 1
	h.flags |= flagRedundantGT
	h.rgdOffset = uint64(p.rgd)
	h.gdOffset = uint64(p.gd)
	h.overHead = uint64(p.grains)
	if _, err := f.WriteAt(append(h.encode(), descriptor...), 0); err != nil {
		return err
	}
	if err := writeDirectory(f, p.rgd, p.rgt, p.tables); err != nil {
		return err
	}
	if err := writeDirectory(f, p.gd, p.gt, p.tables); err != nil {
		return err
	}

	next := p.grains
	groups := grains.Groups()
	table := make([]byte, gtBytes)
	for n := range groups {
		for first := int64(0); first < blocks.GroupLen; first += gtEntries {
			before := next
			for e := range int64(gtEntries) {
				entry := uint32(gteUnallocated)
				if groups[n].Has(first + e) {
					entry = uint32(next)
					next += grainSectors
				}
				binary.LittleEndian.PutUint32(table[4*e:], entry)
			}
			if next == before {
				continue
			}
			place := (groups[n].Index*blocks.GroupLen + first) / gtEntries * gtSectors
			for _, tables := range []int64{p.rgt, p.gt} {
				if _, err := f.WriteAt(table, (tables+place)*sectorSize); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// writeDirectory writes the grain directory of n tables that follow each other.
func writeDirectory(f *os.File, directory, table, n int64) error {
	b := bufio.NewWriterSize(io.NewOffsetWriter(f, directory*sectorSize), 64<<10)
	entry := make([]byte, 4)
	for range n {
		binary.LittleEndian.PutUint32(entry, uint32(table))
		if _, err := b.Write(entry); err != nil {
			return err
		}
		table += gtSectors
	}
	return b.Flush()
}
