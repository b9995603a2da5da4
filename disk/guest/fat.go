package guest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// A fat is a FAT file system: a boot sector, tables with an entry for each
// cluster, the root folder of the two smaller kinds, clusters. It is written
// along Microsoft's "FAT32 File System Specification" (fatgen103), in its
// order. What that leaves open is done as Linux and Windows do it.
type fat struct {
	v           volume
	media       byte
	entryBits   int64   // 12, 16 or 32
	tables      []int64 // where they begin; all hold the same
	clusters    int64   // the first has number 2
	data        int64   // where cluster 2 begins
	clusterSize int64
}

// fatChunk is how much of a table is read at a time, in bytes: whole entries
// of each kind.
const fatChunk = 3 << 14

// openFAT wants a FAT12, FAT16 or FAT32 that was unmounted. Copies of the table
// that differ show only as an error of the sequence.
func openFAT(v volume) (iter.Seq2[disk.Extent, error], error) {
	f, err := readBootSector(v)
	if err != nil {
		return nil, err
	}
	if err := f.checkReserved(); err != nil {
		return nil, err
	}
	return f.free, nil
}

// # Boot sector and BPB

func readBootSector(v volume) (*fat, error) {
	b, err := load(v, 0, 512, "boot sector")
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if b[510] != 0x55 || b[511] != 0xaa || b[0] != 0xeb && b[0] != 0xe9 {
		return nil, unknown("boot sector that is none of FAT")
	}
	sectorSize := int64(le.Uint16(b[11:]))
	if bits.OnesCount64(uint64(sectorSize)) != 1 || sectorSize < 512 || sectorSize > 4096 {
		return nil, unknown("FAT with sectors of %d bytes", sectorSize)
	}
	sectorsPerCluster := int64(b[13])
	if bits.OnesCount8(b[13]) != 1 {
		return nil, unknown("FAT with clusters of %d sectors", sectorsPerCluster)
	}
	reserved, tables := int64(le.Uint16(b[14:])), int64(b[16])
	if reserved == 0 || tables != 1 && tables != 2 {
		return nil, unknown("FAT with %d reserved sectors and %d tables", reserved, tables)
	}
	f := &fat{v: v, media: b[21], clusterSize: sectorsPerCluster * sectorSize}
	if f.media != 0xf0 && f.media < 0xf8 {
		return nil, unknown("FAT on media %#x", f.media)
	}

	rootEntries := int64(le.Uint16(b[17:]))
	total := int64(le.Uint16(b[19:]))
	if total == 0 {
		total = int64(le.Uint32(b[32:]))
	}
	if total > v.Size()/sectorSize {
		return nil, notClean("FAT of %d sectors of %d bytes: the volume has %d bytes", total, sectorSize, v.Size())
	}
	tableSectors := int64(le.Uint16(b[22:]))
	fat32 := tableSectors == 0
	if fat32 {
		tableSectors = int64(le.Uint32(b[36:]))
	}
	rootSectors := virtual.DivUp(32*rootEntries, sectorSize)
	first := reserved + tables*tableSectors + rootSectors // of the data
	if tableSectors == 0 || first >= total || fat32 != (rootEntries == 0) {
		return nil, notClean("FAT of %d sectors: data after %d, %d entries in the root folder", total, first, rootEntries)
	}
	f.data = first * sectorSize
	f.clusters = (total - first) / sectorsPerCluster

	// The specification tells the kinds apart by the number of clusters alone,
	// Linux and Windows tell FAT32 by its BPB: EFI partitions that are too
	// small for their FAT32 are common.
	switch {
	case fat32:
		f.entryBits = 32
	case f.clusters < 4085:
		f.entryBits = 12
	default:
		f.entryBits = 16
	}
	if most := [...]int64{12: 4084, 16: 65524, 32: 0x0ffffff5}[f.entryBits]; f.clusters == 0 || f.clusters > most {
		return nil, notClean("FAT%d of %d clusters", f.entryBits, f.clusters)
	}
	if f.tableBytes() > tableSectors*sectorSize {
		return nil, notClean("FAT%d of %d clusters: a table has %d bytes", f.entryBits, f.clusters, tableSectors*sectorSize)
	}

	for i := range tables {
		f.tables = append(f.tables, (reserved+i*tableSectors)*sectorSize)
	}
	state := b[37]
	if fat32 {
		state = b[65]
		if version := le.Uint16(b[42:]); version != 0 {
			return nil, unknown("FAT32 version %#x", version)
		}
		if flags := le.Uint16(b[40:]); flags&0x80 != 0 { // one table is used, the others are stale
			active := int64(flags & 0x0f)
			if active >= tables {
				return nil, notClean("FAT32 with table %d of %d", active, tables)
			}
			f.tables = f.tables[active:][:1]
		}
	}
	// Not in the specification: Windows NT and Linux set bit 0 while the volume
	// is mounted, bit 1 after a disk error.
	if state&0x03 != 0 {
		return nil, notClean("it was not unmounted (state %#x in the boot sector)", state)
	}
	return f, nil
}

// tableBytes is how much of a table is used.
func (f *fat) tableBytes() int64 { return virtual.DivUp((f.clusters+2)*f.entryBits, 8) }

// # FAT data structure

// entry is the nth in b, which begins with a whole one.
func (f *fat) entry(b []byte, n int64) uint32 {
	le := binary.LittleEndian
	switch f.entryBits {
	case 12:
		return uint32(le.Uint16(b[n*3/2:])) >> (n % 2 * 4) & 0x0fff
	case 16:
		return uint32(le.Uint16(b[2*n:]))
	}
	return le.Uint32(b[4*n:]) & 0x0fffffff
}

// checkReserved looks at the entries 0 and 1, which are of no cluster. The first has the
// media byte below ones, so it also shows that entries have the size that we
// believe. The two high bits of the second are set in a volume that was
// unmounted and had no disk errors; FAT12 has none.
func (f *fat) checkReserved() error {
	b, err := load(f.v, f.tables[0], 8, "FAT")
	if err != nil {
		return err
	}
	used := min(f.entryBits, 28)
	ones := uint32(1)<<used - 1
	if first := f.entry(b, 0); first != ones&^0xff|uint32(f.media) {
		return notClean("FAT%d begins with %#x, and the media is %#x", f.entryBits, first, f.media)
	}
	clean := uint32(3) << (used - 2)
	if second := f.entry(b, 1); f.entryBits != 12 && second&clean != clean {
		return notClean("it was not unmounted, or has disk errors (%#x in the FAT)", second)
	}
	return nil
}

// free yields the clusters whose entry is 0. Bad ones and the reserved values
// are not free.
func (f *fat) free(yield func(disk.Extent, error) bool) {
	g := gatherer{yield: yield, base: f.data - 2*f.clusterSize, unit: f.clusterSize}
	perChunk := fatChunk * 8 / f.entryBits
	one, other := make([]byte, fatChunk), make([]byte, fatChunk)
	for n, off := int64(0), int64(0); n < f.clusters+2; n, off = n+perChunk, off+fatChunk {
		one = one[:min(fatChunk, f.tableBytes()-off)]
		if err := f.read(one, 0, off); err != nil {
			yield(disk.Extent{}, err)
			return
		}
		for t := 1; t < len(f.tables); t++ {
			other = other[:len(one)]
			if err := f.read(other, t, off); err != nil {
				yield(disk.Extent{}, err)
				return
			}
			if !bytes.Equal(one, other) {
				yield(disk.Extent{}, notClean("the copies of the FAT differ"))
				return
			}
		}
		for i := range min(perChunk, f.clusters+2-n) {
			if n+i >= 2 && f.entry(one, i) == 0 && !g.add(n+i, 1) {
				return
			}
		}
	}
	g.flush()
}

// read fills p from off of a table.
func (f *fat) read(p []byte, table int, off int64) error {
	if err := readVolume(f.v, p, f.tables[table]+off); err != nil {
		return fmt.Errorf("reading FAT %d at %d: %w", table, off, err)
	}
	return nil
}

// A gatherer makes extents of units (clusters, blocks) that come in ascending
// order: those that follow each other become one.
type gatherer struct {
	yield      func(disk.Extent, error) bool
	base       int64 // where unit 0 begins
	unit       int64 // bytes
	start, end int64 // of the units that were not yielded yet
}

// add returns false when no more is wanted.
func (g *gatherer) add(first, n int64) bool {
	if first == g.end && g.start < g.end {
		g.end += n
		return true
	}
	if !g.flush() {
		return false
	}
	g.start, g.end = first, first+n
	return true
}

// flush yields what is left.
func (g *gatherer) flush() bool {
	start, n := g.start, g.end-g.start
	g.start = g.end
	return n == 0 || g.yield(disk.Extent{Offset: g.base + start*g.unit, Length: n * g.unit}, nil)
}

// load reads n bytes of v, which are few. A file system that has what there is
// outside of its volume contradicts itself.
func load(v volume, off, n int64, what string) ([]byte, error) {
	if size := v.Size(); off < 0 || off > size || n > size-off {
		return nil, notClean("%s of %d bytes at %#x: the volume ends at %#x", what, n, off, size)
	}
	b := make([]byte, n)
	if err := readVolume(v, b, off); err != nil {
		return nil, fmt.Errorf("reading %s at %#x: %w", what, off, err)
	}
	return b, nil
}
