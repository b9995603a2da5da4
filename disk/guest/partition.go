package guest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/davit-oci/davit/disk"
)

// A Partition is a part of a disk with a file system, as far as can be told.
type Partition struct {
	Number     int // 0: the whole disk, which has no partitions
	Start, End int64
	Filesystem string // "" if unknown
	kind       string // what the table says it is for, if it is something that is not to be trimmed
}

// Limits of what a partition table, which a guest has written, can make us do.
const (
	maxPartitions = 256
	maxGPTEntry   = 4096 // bytes
)

// Partitions reads the partition table of a disk, MBR or GPT, which counts in the
// sectors that [disk.SectorSize] tells. It guesses for people to read; what
// cannot be read is not there.
func Partitions(r disk.Reader) []Partition {
	found := readTable(r).partitions
	if len(found) == 0 {
		if fs := filesystem(r, 0); fs != "" {
			return []Partition{{End: r.Size(), Filesystem: fs}}
		}
	}
	for i := range found {
		found[i].Filesystem = filesystem(r, found[i].Start)
	}
	return found
}

// A table is what a disk says about its partitions.
type table struct {
	partitions []Partition

	// doubt says why the guest may see other partitions than these, "" if it
	// cannot.
	doubt string
}

func (t *table) doubtf(format string, args ...any) {
	if t.doubt == "" {
		t.doubt = fmt.Sprintf(format, args...)
	}
}

func readTable(r disk.Reader) *table {
	t := &table{}
	switch sector, kind := readMBR(r); kind {
	case partitionedMBR:
		t.mbr(r, sector)
	case protectiveMBR:
		t.gpt(r)
	}
	return t
}

// The kinds of first sectors.
const (
	noMBR = iota
	partitionedMBR
	protectiveMBR // there is a GPT; without this mark, one is of an earlier life of the disk
)

func readMBR(r disk.Reader) (sector []byte, kind int) {
	sector = readAt(r, 0, 512)
	if len(sector) < 512 || sector[510] != 0x55 || sector[511] != 0xAA {
		return nil, noMBR
	}
	kind = partitionedMBR
	for i, e := range mbrEntries(sector) {
		// The boot sector of a file system has code here. The kernel looks at
		// the same byte to tell them apart.
		if sector[446+16*i]&0x7F != 0 {
			return nil, noMBR
		}
		if e.kind == 0xEE {
			kind = protectiveMBR
		}
	}
	return sector, kind
}

// SectorSize is the size in bytes of the sectors that a disk was partitioned
// for, 512 or 4096, whatever [disk.SectorSize] says: where its only GPT is. A
// guest that has other sectors finds no partition. It is 0 if that cannot be
// told: no GPT that is whole, or one for either size. An MBR is at the same
// place for both, and counts in the sectors that a disk is said to have: where
// those have 4096 bytes, and its partitions lie in the disk, it is for them.
func SectorSize(r disk.Reader) int {
	switch _, kind := readMBR(r); {
	case kind == partitionedMBR && disk.SectorSize(r) == 4096 && len(readTable(r).partitions) > 0:
		return 4096
	case kind != protectiveMBR:
		return 0
	}
	found := 0
	for _, sector := range []int64{512, 4096} {
		g := readGPT(r, sector)
		switch {
		case g == nil:
		case !g.checked || found != 0:
			return 0
		default:
			found = int(sector)
		}
	}
	return found
}

// A gpt is a GUID partition table (UEFI specification, 5.3).
type gpt struct {
	sector  int64 // bytes
	first   int64 // sector of the entries
	count   uint32
	size    int64 // bytes of an entry
	entries []byte
	checked bool // its checksums are right
}

// readGPT reads the table of a disk with sectors of that size, nil if it has none.
func readGPT(r disk.Reader, sector int64) *gpt {
	header := readAt(r, sector, int(sector))
	if len(header) < 512 || !bytes.HasPrefix(header, []byte("EFI PART")) {
		return nil
	}
	g := &gpt{
		sector: sector,
		first:  int64(binary.LittleEndian.Uint64(header[72:])),
		count:  binary.LittleEndian.Uint32(header[80:]),
		size:   int64(binary.LittleEndian.Uint32(header[84:])),
	}
	if g.first < 0 || g.first > r.Size()/sector || g.size < 128 || g.size > maxGPTEntry {
		return g
	}
	g.entries = readAt(r, g.first*sector, int(int64(min(g.count, maxPartitions))*g.size))
	g.checked = gptChecked(header, g.entries)
	return g
}

// gpt adds the partitions of a GPT.
func (t *table) gpt(r disk.Reader) {
	said := disk.SectorSize(r)
	g, other := readGPT(r, 512), readGPT(r, 4096)
	if g == nil || said == 4096 && other != nil {
		g, other = other, g
	}
	switch {
	case g == nil:
		t.doubtf("the partition table, a GPT, cannot be found")
		return
	case said == 0 && other != nil:
		t.doubtf("there are two partition tables, for sectors of 512 and of 4096 bytes")
	case said != 0 && said != int(g.sector):
		t.doubtf("the partition table is for sectors of %d bytes, and the disk has %d", g.sector, said)
	}
	if g.count > maxPartitions {
		t.doubtf("the partition table has more than %d entries", maxPartitions)
	}
	if !g.checked {
		t.doubtf("the partition table is damaged")
	}
	if g.entries == nil {
		return
	}
	for n, entries := 0, g.entries; int64(len(entries)) >= g.size; n, entries = n+1, entries[g.size:] {
		if bytes.Equal(entries[:16], make([]byte, 16)) {
			continue
		}
		start, end := binary.LittleEndian.Uint64(entries[32:]), binary.LittleEndian.Uint64(entries[40:])
		t.add(r, n+1, start, end-start+1, g.sector, gptKinds[[16]byte(entries[:16])])
	}
}

// gptChecked reports whether the checksums of a header and its entries fit.
func gptChecked(header, entries []byte) bool {
	size := binary.LittleEndian.Uint32(header[12:])
	if size < 92 || size > uint32(len(header)) {
		return false
	}
	h := bytes.Clone(header[:size])
	clear(h[16:20])
	return crc32.ChecksumIEEE(h) == binary.LittleEndian.Uint32(header[16:]) &&
		crc32.ChecksumIEEE(entries) == binary.LittleEndian.Uint32(header[88:])
}

type mbrEntry struct {
	kind         byte
	start, count uint32
}

func mbrEntries(sector []byte) (e [4]mbrEntry) {
	for i := range e {
		raw := sector[446+16*i:]
		e[i] = mbrEntry{raw[4], binary.LittleEndian.Uint32(raw[8:]), binary.LittleEndian.Uint32(raw[12:])}
	}
	return e
}

// mbr reads a master boot record and the chain of its logical partitions.
func (t *table) mbr(r disk.Reader, sector []byte) {
	unit := int64(disk.DefaultSector)
	if disk.SectorSize(r) == 4096 {
		unit = 4096
	}
	extended := func(kind byte) bool { return kind == 0x05 || kind == 0x0F || kind == 0x85 }

	var chain uint64 // start of the extended partition
	for i, e := range mbrEntries(sector) {
		if extended(e.kind) {
			if chain != 0 {
				t.doubtf("the partition table has two extended partitions")
			}
			chain = uint64(e.start)
		} else if e.kind != 0 {
			t.add(r, i+1, uint64(e.start), uint64(e.count), unit, mbrKinds[e.kind])
		}
	}
	number := 5
	for at := chain; at != 0; number++ {
		sector := readAt(r, int64(at)*unit, 512)
		if number == maxPartitions || len(sector) < 512 || sector[510] != 0x55 || sector[511] != 0xAA {
			t.doubtf("the chain of logical partitions is broken")
			return
		}
		e := mbrEntries(sector)
		if e[0].kind != 0 {
			t.add(r, number, at+uint64(e[0].start), uint64(e[0].count), unit, mbrKinds[e[0].kind])
		}
		if at = 0; extended(e[1].kind) {
			at = chain + uint64(e[1].start)
		}
	}
}

// add adds a partition if it lies in the disk.
func (t *table) add(r disk.Reader, number int, start, count uint64, sector int64, kind string) {
	all := uint64(r.Size()) / uint64(sector)
	if start == 0 || start > all || count == 0 || count > all-start {
		t.doubtf("partition %d does not lie in the disk", number)
		return
	}
	t.partitions = append(t.partitions, Partition{Number: number, Start: int64(start) * sector, End: int64(start+count) * sector, kind: kind})
}

// Types of partitions that hold a part of something, or nothing to keep. What
// looks like a file system in them is none, or not theirs alone.
var (
	mbrKinds = map[byte]string{
		0x42: "ldm", // Windows' dynamic disks
		0x82: "swap",
		0x8E: "lvm",
		0xFD: "raid",
	}
	gptKinds = map[[16]byte]string{
		guid(0x0657FD6D, 0xA4AB, 0x43C4, 0x84E50933C84B4F4F): "swap",
		guid(0xE6D6D379, 0xF507, 0x44C2, 0xA23C238F2A3DF928): "lvm",
		guid(0xA19D880F, 0x05FC, 0x4D3B, 0xA006743F0F84911E): "raid",
		guid(0xCA7D7CCB, 0x63ED, 0x4C53, 0x861C1742536059CC): "luks",
		guid(0x7FFEC5C9, 0x2D00, 0x49B7, 0x89413EA10A5586B7): "dm-crypt",
		guid(0x6A898CC3, 0x1DD2, 0x11B2, 0x99A6080020736631): "zfs",
		guid(0x5808C8AA, 0x7E8F, 0x42E0, 0x85D2E1E90434CFB3): "ldm", // its metadata
		guid(0xAF9B60A0, 0x1431, 0x4F62, 0xBC683311714A69AD): "ldm",
		guid(0xE75CAF8F, 0xF680, 0x4CEE, 0xAFA3B001E56EFC2D): "storage spaces",
	}
)

// guid is a GUID as it is stored: its first three numbers little-endian.
func guid(a uint32, b, c uint16, d uint64) (g [16]byte) {
	binary.LittleEndian.PutUint32(g[0:], a)
	binary.LittleEndian.PutUint16(g[4:], b)
	binary.LittleEndian.PutUint16(g[6:], c)
	binary.BigEndian.PutUint64(g[8:], d)
	return g
}

// readAt returns up to n bytes, fewer where the disk ends or cannot be read.
func readAt(r disk.Reader, off int64, n int) []byte {
	if off < 0 || off >= r.Size() {
		return nil
	}
	p := make([]byte, min(int64(n), r.Size()-off))
	got, err := r.ReadAt(p, off)
	if got < len(p) && err != nil {
		return nil
	}
	return p[:got]
}
