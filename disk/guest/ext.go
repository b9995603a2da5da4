package guest

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"math/bits"
	"slices"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// The features that decide what bitmaps mean (Linux, fs/ext4/ext4.h), and those that
// change nothing but what is inside of used blocks.
const (
	extCompatJournal = 0x4
	extCompatLazyBG  = 0x40 // an experiment of 2006: groups without bitmap that say so nowhere else
	extCompatSparse2 = 0x200

	extROSparse     = 0x1
	extROGDTSum     = 0x10
	extROBigalloc   = 0x200
	extROMetaSum    = 0x400
	extROOrphans    = 0x10000
	extROHarmless   = 0x2 | 0x4 | 0x8 | 0x20 | 0x40 | 0x100 | 0x1000 | 0x2000 | 0x4000 | 0x8000
	extROKnown      = extROSparse | extROGDTSum | extROBigalloc | extROMetaSum | extROOrphans | extROHarmless
	extRecover      = 0x4
	extJournalDev   = 0x8
	extMetaBG       = 0x10
	extExtents      = 0x40
	ext64Bit        = 0x80
	extFlexBG       = 0x200
	extSumSeed      = 0x2000
	extHarmless     = 0x2 | extExtents | 0x100 | extFlexBG | 0x400 | 0x4000 | 0x8000 | 0x10000 | 0x20000
	extKnown        = extRecover | extJournalDev | extMetaBG | ext64Bit | extSumSeed | extHarmless
	extBlockUninit  = 0x2 // of a group
	extMaxGroups    = 1 << 20
	extMaxTables    = 1 << 18 // ranges of metadata that do not touch, 16 bytes each
	extSuperblockAt = 1024
)

// extVersion names an ext file system by its superblock.
func extVersion(sb []byte) string {
	switch {
	case binary.LittleEndian.Uint32(sb[0x60:])&extExtents != 0:
		return "ext4"
	case binary.LittleEndian.Uint32(sb[0x5C:])&extCompatJournal != 0:
		return "ext3"
	}
	return "ext2"
}

// An extFS is the geometry of an ext2, ext3 or ext4 file system. All numbers of blocks
// are of the whole file system.
type extFS struct {
	v         volume
	blockSize int64
	blocks    int64
	first     int64 // first block of group 0
	perGroup  int64 // blocks
	ratio     int64 // blocks of a cluster, which a bit of the bitmaps stands for
	groups    int64

	inodeTable  int64 // blocks of each
	descSize    int64
	descBlocks  int64 // of all groups
	reserved    int64 // blocks after the descriptors, for more of them
	compat      uint32
	incompat    uint32
	roCompat    uint32
	firstMetaBG int64    // with meta_bg: which block of descriptors is the first that is elsewhere
	backups     [2]int64 // with sparse_super2: groups with a copy of the superblock
	uuid        []byte
	seed        uint32 // of checksums

	tables []disk.Extent // bitmaps and inode tables of all groups, in blocks, ascending
}

// ext is the opener of ext2, ext3 and ext4 (Linux,
// Documentation/filesystems/ext4). It believes a bitmap that fits its
// checksum, its descriptor's count and the metadata that it must cover. Where
// there is none yet (BLOCK_UNINIT), only metadata is in use.
func ext(v volume) (iter.Seq2[disk.Extent, error], error) {
	fs, err := openExt(v)
	if err != nil {
		return nil, err
	}
	if err := fs.findTables(); err != nil {
		return nil, err
	}
	return fs.free, nil
}

func openExt(v volume) (*extFS, error) {
	sb := make([]byte, 1024)
	if err := readVolume(v, sb, extSuperblockAt); err != nil {
		return nil, fmt.Errorf("reading the superblock: %w", err)
	}
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(sb[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(sb[at:])) }

	fs := &extFS{v: v, blocks: u32(0x04), first: u32(0x14), perGroup: u32(0x20), uuid: sb[0x68:0x78], descSize: 32}
	inodeSize := int64(128)
	revision := u32(0x4C)
	if revision > 0 { // before, there were no features
		fs.compat, fs.incompat, fs.roCompat = uint32(u32(0x5C)), uint32(u32(0x60)), uint32(u32(0x64))
		inodeSize = u16(0x58)
	}
	name := extVersion(sb)
	switch {
	case revision > 1:
		return nil, unknown("%s of revision %d", name, revision)
	case fs.incompat&^uint32(extKnown) != 0:
		return nil, unknown("%s with incompatible features %#x", name, fs.incompat&^uint32(extKnown))
	case fs.roCompat&^uint32(extROKnown) != 0:
		return nil, unknown("%s with read-only features %#x", name, fs.roCompat&^uint32(extROKnown))
	case fs.compat&extCompatLazyBG != 0:
		return nil, unknown("%s with lazy_bg", name)
	case fs.incompat&extJournalDev != 0:
		return nil, unknown("journal of another %s", name)
	case fs.roCompat&extROMetaSum != 0 && sb[0x175] != 1:
		return nil, unknown("%s with checksums of type %d", name, sb[0x175])
	case u16(0x5A) != 0:
		return nil, unknown("copy of the superblock of an %s", name)
	}
	fs.seed = extSum(^uint32(0), fs.uuid)
	if fs.incompat&extSumSeed != 0 {
		fs.seed = uint32(u32(0x270))
	}

	// What was not written back yet is not in the bitmaps either.
	state := u16(0x3A)
	switch {
	case fs.incompat&extRecover != 0:
		return nil, notClean("its journal has to be replayed")
	case state&0x1 == 0:
		return nil, notClean("it was not unmounted")
	case state&0x2 != 0:
		return nil, notClean("errors were found in it")
	case state&0x4 != 0, u32(0xE8) != 0, fs.roCompat&extROOrphans != 0:
		return nil, notClean("deleted files are still to be freed")
	case fs.roCompat&extROMetaSum != 0 && extSum(^uint32(0), sb[:0x3FC]) != uint32(u32(0x3FC)):
		return nil, notClean("the superblock does not fit its checksum")
	}

	// From here on every number is checked against those before it.
	logBlock, logCluster := u32(0x18), u32(0x1C)
	if logBlock > 6 || logCluster > 29 {
		return nil, notClean("blocks of 2^%d and clusters of 2^%d bytes", logBlock+10, logCluster+10)
	}
	fs.blockSize, fs.ratio = 1024<<logBlock, 1
	bigalloc := fs.roCompat&extROBigalloc != 0
	if bigalloc {
		if logCluster < logBlock {
			return nil, notClean("clusters that are smaller than blocks")
		}
		fs.ratio = 1 << (logCluster - logBlock)
	}
	if fs.incompat&ext64Bit != 0 {
		fs.blocks |= u32(0x150) << 32
		fs.descSize = u16(0xFE)
	}
	clusters := u32(0x24) // per group
	if !bigalloc {
		clusters = fs.perGroup
	}
	wantFirst := int64(0)
	if logBlock == 0 && (!bigalloc || logCluster == 0) {
		wantFirst = 1
	}
	inodes := u32(0x28) // per group
	switch {
	case fs.blocks > v.Size()/fs.blockSize || fs.blocks < 0:
		return nil, unknown("%s that is larger than its volume", name)
	case fs.first != wantFirst || fs.blocks <= fs.first:
		return nil, notClean("%d blocks, of which %d is the first", fs.blocks, fs.first)
	case clusters == 0 || clusters > 8*fs.blockSize || clusters%8 != 0 || clusters*fs.ratio != fs.perGroup:
		return nil, notClean("groups of %d blocks", fs.perGroup)
	case inodeSize < 128 || inodeSize > fs.blockSize || inodeSize&(inodeSize-1) != 0:
		return nil, notClean("inodes of %d bytes", inodeSize)
	case inodes == 0 || inodes > 8*fs.blockSize:
		return nil, notClean("groups of %d inodes", inodes)
	case fs.descSize < 32 || fs.descSize > 1024 || fs.descSize&(fs.descSize-1) != 0,
		fs.incompat&ext64Bit != 0 && fs.descSize < 64:
		return nil, notClean("group descriptors of %d bytes", fs.descSize)
	}
	if string(readAt(v, fs.blocks*fs.blockSize, len(verityMagic))) == verityMagic {
		return nil, unknown("%s with checksums of its blocks behind it (%s)", name, verity)
	}
	fs.inodeTable = virtual.DivUp(inodes*inodeSize, fs.blockSize)
	fs.groups = virtual.DivUp(fs.blocks-fs.first, fs.perGroup)
	if fs.groups > extMaxGroups {
		return nil, unknown("%s of more than %d groups", name, extMaxGroups)
	}
	fs.descBlocks = virtual.DivUp(fs.groups*fs.descSize, fs.blockSize)
	fs.reserved = u16(0xCE)
	if fs.incompat&extMetaBG != 0 {
		fs.firstMetaBG = u32(0x104)
	}
	fs.backups = [2]int64{u32(0x24C), u32(0x250)}
	return fs, nil
}

// hasSuper reports whether a group begins with a copy of the superblock.
func (fs *extFS) hasSuper(group int64) bool {
	power := func(of int64) bool {
		n := of
		for n < group {
			n *= of
		}
		return n == group
	}
	switch {
	case group == 0:
		return true
	case fs.compat&extCompatSparse2 != 0:
		return group == fs.backups[0] || group == fs.backups[1]
	case group == 1 || fs.roCompat&extROSparse == 0:
		return true
	}
	return power(3) || power(5) || power(7)
}

// copies is how many blocks at the beginning of a group are superblock and
// descriptors. With meta_bg, each block of descriptors is in the first, the second
// and the last of the groups it describes.
func (fs *extFS) copies(group int64) (n int64) {
	if fs.hasSuper(group) {
		n++
		if group == 0 && fs.blockSize == 1024 && fs.first == 0 {
			n++ // the superblock is in block 1
		}
	}
	perBlock := fs.blockSize / fs.descSize
	switch meta := fs.incompat&extMetaBG != 0; {
	case meta && group/perBlock >= fs.firstMetaBG:
		if at := group % perBlock; at <= 1 || at == perBlock-1 {
			n++
		}
	case n > 0 && meta:
		n += fs.firstMetaBG + fs.reserved
	case n > 0:
		n += fs.descBlocks + fs.reserved
	}
	return n
}

// start is the first block of a group.
func (fs *extFS) start(group int64) int64 { return fs.first + group*fs.perGroup }

// descriptorBlock is where the nth block of descriptors is.
func (fs *extFS) descriptorBlock(n int64) int64 {
	zero := fs.first
	if fs.blockSize == 1024 {
		zero = 1
	}
	if fs.incompat&extMetaBG == 0 || n < fs.firstMetaBG {
		return zero + 1 + n
	}
	group := n * (fs.blockSize / fs.descSize)
	return fs.start(group) + fs.copies(group) - 1
}

// An extGroup is a group descriptor.
type extGroup struct {
	number                               int64
	blockBitmap, inodeBitmap, inodeTable int64 // blocks
	free                                 int64 // clusters
	uninit                               bool
	sum                                  uint32 // of the block bitmap
}

// descriptors are all group descriptors, in ascending order.
func (fs *extFS) descriptors(yield func(extGroup, error) bool) {
	buf := make([]byte, fs.blockSize)
	perBlock := fs.blockSize / fs.descSize
	for group := range fs.groups {
		at := group % perBlock
		if at == 0 {
			block := fs.descriptorBlock(group / perBlock)
			if block >= fs.blocks {
				yield(extGroup{}, notClean("the descriptor of group %d is beyond the end", group))
				return
			}
			if err := readVolume(fs.v, buf, block*fs.blockSize); err != nil {
				yield(extGroup{}, fmt.Errorf("reading group descriptors: %w", err))
				return
			}
		}
		g, err := fs.descriptor(group, buf[at*fs.descSize:][:fs.descSize])
		if !yield(g, err) || err != nil {
			return
		}
	}
}

func (fs *extFS) descriptor(group int64, d []byte) (g extGroup, err error) {
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(d[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(d[at:])) }
	g = extGroup{
		number:      group,
		blockBitmap: u32(0x00),
		inodeBitmap: u32(0x04),
		inodeTable:  u32(0x08),
		free:        u16(0x0C),
		sum:         uint32(u16(0x18)),
	}
	if fs.descSize >= 64 {
		g.blockBitmap |= u32(0x20) << 32
		g.inodeBitmap |= u32(0x24) << 32
		g.inodeTable |= u32(0x28) << 32
		g.free |= u16(0x2C) << 16
		g.sum |= uint32(u16(0x38)) << 16
	}

	var sum int64
	number := binary.LittleEndian.AppendUint32(nil, uint32(group))
	switch {
	case fs.roCompat&extROMetaSum != 0:
		s := extSum(fs.seed, number)
		s = extSum(s, d[:0x1E])
		s = extSum(s, []byte{0, 0})
		sum = int64(extSum(s, d[0x20:]) & 0xFFFF)
	case fs.roCompat&extROGDTSum != 0:
		sum = int64(crc16(crc16(crc16(crc16(0xFFFF, fs.uuid), number), d[:0x1E]), d[0x20:]))
	default:
		sum = u16(0x1E)
	}
	if sum != u16(0x1E) {
		return g, notClean("the descriptor of group %d does not fit its checksum", group)
	}
	g.uninit = fs.roCompat&(extROMetaSum|extROGDTSum) != 0 && u16(0x12)&extBlockUninit != 0

	for _, e := range fs.tablesOf(g) {
		if e.Offset < fs.first || e.Offset > fs.blocks || e.Length > fs.blocks-e.Offset {
			return g, notClean("the tables of group %d are beyond the end", group)
		}
	}
	return g, nil
}

// tablesOf are the blocks that a descriptor names.
func (fs *extFS) tablesOf(g extGroup) [3]disk.Extent {
	return [3]disk.Extent{
		{Offset: g.blockBitmap, Length: 1}, {Offset: g.inodeBitmap, Length: 1}, {Offset: g.inodeTable, Length: fs.inodeTable},
	}
}

// findTables fills fs.tables. With flex_bg, those of a group can be in any
// other; then they lie side by side, and make few ranges.
func (fs *extFS) findTables() error {
	var open [3]disk.Extent
	for g, err := range fs.descriptors {
		if err != nil {
			return err
		}
		for i, e := range fs.tablesOf(g) {
			if open[i].End() == e.Offset {
				open[i].Length += e.Length
				continue
			}
			if open[i].Length > 0 {
				fs.tables = append(fs.tables, open[i])
			}
			open[i] = e
		}
		if len(fs.tables) > extMaxTables {
			return unknown("ext with more than %d scattered tables", extMaxTables)
		}
	}
	fs.tables = append(fs.tables, open[:]...)
	slices.SortFunc(fs.tables, func(a, b disk.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	for i := 1; i < len(fs.tables); i++ {
		// Those of a file system that is all right do not overlap.
		if a, b := fs.tables[i-1], fs.tables[i]; a.End() > b.Offset {
			return notClean("two tables of inodes and blocks overlap at block %d", b.Offset)
		}
	}
	return nil
}

// free are the ranges that the block bitmaps say are free.
func (fs *extFS) free(yield func(disk.Extent, error) bool) {
	tables := fs.tables // those that do not end before the group
	size := fs.perGroup / fs.ratio / 8
	meta, used := make(bitmap, (size+7)&^7), make(bitmap, (size+7)&^7)
	for g, err := range fs.descriptors {
		if err != nil {
			yield(disk.Extent{}, err)
			return
		}
		start := fs.start(g.number)
		blocks := min(fs.perGroup, fs.blocks-start)
		clusters := virtual.DivUp(blocks, fs.ratio)

		// What is in use in any case.
		clear(meta)
		mark := func(from, to int64) {
			from, to = max(from-start, 0), min(to-start, blocks)
			meta.set(from/fs.ratio, virtual.DivUp(to, fs.ratio))
		}
		mark(start, start+fs.copies(g.number))
		for len(tables) > 0 && tables[0].End() <= start {
			tables = tables[1:]
		}
		for _, t := range tables {
			if t.Offset >= start+blocks {
				break
			}
			mark(t.Offset, t.End())
		}

		if err := fs.readUsed(used, size, g, meta, clusters); err != nil {
			yield(disk.Extent{}, err)
			return
		}
		for from, to := range used.gaps(clusters) {
			from, to := start+from*fs.ratio, min(start+to*fs.ratio, fs.blocks)
			if !yield(disk.Extent{Offset: from * fs.blockSize, Length: (to - from) * fs.blockSize}, nil) {
				return
			}
		}
	}
}

// readUsed reads the block bitmap, of size bytes, of a group of n clusters that
// has this metadata in it.
func (fs *extFS) readUsed(used bitmap, size int64, g extGroup, meta bitmap, n int64) error {
	if g.uninit {
		// The bitmap that the kernel would make now. If the descriptor has
		// another number in mind, it knows of something else that is in use.
		if copy(used, meta); used.zeros(n) != g.free {
			used.set(0, n)
		}
		return nil
	}
	if err := readVolume(fs.v, used[:size], g.blockBitmap*fs.blockSize); err != nil {
		return fmt.Errorf("reading the block bitmap of group %d: %w", g.number, err)
	}
	if fs.roCompat&extROMetaSum != 0 {
		sum := extSum(fs.seed, used[:size])
		if fs.descSize < 64 {
			sum &= 0xFFFF
		}
		if sum != g.sum {
			return notClean("the block bitmap of group %d does not fit its checksum", g.number)
		}
	}
	if free := used.zeros(n); free != g.free {
		return notClean("group %d has %d free clusters in its block bitmap and %d in its descriptor", g.number, free, g.free)
	}
	if !used.covers(meta) {
		return notClean("the block bitmap of group %d says that metadata is free", g.number)
	}
	return nil
}

// A bitmap has a bit for each cluster of a group, the lowest of a byte first.
// Its length is a multiple of 8 bytes.
type bitmap []byte

func (b bitmap) word(i int64) uint64 { return binary.LittleEndian.Uint64(b[i*8:]) }

// set sets the bits from from to before to.
func (b bitmap) set(from, to int64) {
	for ; from < to && from%8 != 0; from++ {
		b[from/8] |= 1 << (from % 8)
	}
	for ; to-from >= 8; from += 8 {
		b[from/8] = 0xFF
	}
	for ; from < to; from++ {
		b[from/8] |= 1 << (from % 8)
	}
}

// zeros is how many of the first n bits are clear.
func (b bitmap) zeros(n int64) (count int64) {
	for from, to := range b.gaps(n) {
		count += to - from
	}
	return count
}

// covers reports whether every bit that other has is set.
func (b bitmap) covers(other bitmap) bool {
	for i := range int64(len(b) / 8) {
		if other.word(i)&^b.word(i) != 0 {
			return false
		}
	}
	return true
}

// next is the first bit at or after from, before n, that is set, or clear; n
// if there is none.
func (b bitmap) next(from, n int64, set bool) int64 {
	for from < n {
		w := b.word(from / 64)
		if !set {
			w = ^w
		}
		if w >>= from % 64; w != 0 {
			return min(n, from+int64(bits.TrailingZeros64(w)))
		}
		from += 64 - from%64
	}
	return n
}

// gaps are the runs of clear bits among the first n: from, and where it ends.
func (b bitmap) gaps(n int64) iter.Seq2[int64, int64] {
	return func(yield func(from, to int64) bool) {
		for from := b.next(0, n, false); from < n; {
			to := b.next(from, n, true)
			if !yield(from, to) {
				return
			}
			from = b.next(to, n, false)
		}
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// extSum continues a CRC-32C. Unlike others, ext4 inverts it neither before nor after.
func extSum(sum uint32, p []byte) uint32 { return ^crc32.Update(^sum, castagnoli, p) }

// crc16 continues the CRC-16 of uninit_bg, with the polynomial 0x8005, reflected.
func crc16(sum uint16, p []byte) uint16 {
	for _, b := range p {
		sum ^= uint16(b)
		for range 8 {
			low := sum & 1
			if sum >>= 1; low != 0 {
				sum ^= 0xA001
			}
		}
	}
	return sum
}

// readVolume fills p.
func readVolume(v volume, p []byte, off int64) error {
	n, err := v.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
