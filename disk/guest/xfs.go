package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
	"math/bits"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// An xfs is an XFS of version 4 or 5. The names are those of "XFS Algorithms &
// Data Structures" and of the kernel, whose checks these are.
//
// The file system is cut into allocation groups (AGs). Each has its own B+tree
// of free extents by block number, whose root is in the header of its free
// space (AGF). Blocks that are kept for the trees to grow (AGFL) are in none.
type xfs struct {
	v          volume
	v5         bool     // metadata carries checksums and says where it belongs
	uuid       [16]byte // that people see, and the log
	metaUUID   [16]byte // of metadata
	blockLog   uint
	blocks     int64
	agBlocks   int64 // of each AG but the last
	agCount    int64
	sectorSize int64
	log        xfsExtent // in blocks, counted through all AGs
}

// An xfsExtent is a range of blocks.
type xfsExtent struct{ start, n int64 }

// openXFS wants an XFS with a clean log inside. Faults of an AG show only as
// errors of the sequence.
func openXFS(v volume) (iter.Seq2[disk.Extent, error], error) {
	x, err := readXFSSuperblock(v)
	if err != nil {
		return nil, err
	}
	if err := x.checkLog(); err != nil {
		return nil, err
	}
	return func(yield func(disk.Extent, error) bool) {
		for ag := range x.agCount {
			switch err := x.freeIn(ag, yield); {
			case errors.Is(err, errEnough):
				return
			case err != nil:
				yield(disk.Extent{}, fmt.Errorf("allocation group %d: %w", ag, err))
				return
			}
		}
	}, nil
}

// # Superblock

const (
	xfsMinBlockLog  = 9
	xfsMaxBlockLog  = 16
	xfsMaxSectorLog = 15
	xfsMinAGBlocks  = 64

	xfsROCompat = 0x0f // free inode tree, reverse mapping, reference counts, inode counts

	// File types in folders, sparse inodes, UUID of metadata, large times, large
	// extent counters, exchange of ranges, parents, folders of metadata. Not
	// NEEDSREPAIR (0x10), nor zones.
	xfsIncompat         = 0x1ef
	xfsIncompatMetaUUID = 0x04
	xfsNeedsRepair      = 0x10
)

func readXFSSuperblock(v volume) (*xfs, error) {
	b, err := load(v, 0, 512, "superblock")
	if err != nil {
		return nil, err
	}
	be := binary.BigEndian
	if string(b[:4]) != "XFSB" {
		return nil, unknown("superblock that is none of XFS")
	}
	x := &xfs{v: v}
	switch version := be.Uint16(b[100:]) & 0x0f; version {
	case 4:
	case 5:
		x.v5 = true
	default:
		return nil, unknown("XFS version %d", version)
	}

	// sb_sectsize decides how much the checksum is of.
	x.sectorSize = int64(be.Uint16(b[102:]))
	if log := b[121]; log < 9 || log > xfsMaxSectorLog || x.sectorSize != 1<<log {
		return nil, notClean("sectors of %d = 2^%d bytes", x.sectorSize, log)
	}
	if x.v5 {
		if b, err = load(v, 0, x.sectorSize, "superblock"); err != nil {
			return nil, err
		}
		if !xfsChecksum(b, 224) {
			return nil, notClean("wrong checksum of the superblock")
		}
		ro, incompat := be.Uint32(b[212:]), be.Uint32(b[216:])
		// sb_features_log_incompat is about logs that are not clean.
		switch {
		case incompat&xfsNeedsRepair != 0:
			return nil, notClean("it needs xfs_repair")
		case incompat&^xfsIncompat != 0:
			return nil, unknown("XFS with incompatible features %#x", incompat&^xfsIncompat)
		case ro&^xfsROCompat != 0:
			return nil, unknown("XFS with read-only compatible features %#x", ro&^xfsROCompat)
		}
		copy(x.metaUUID[:], b[32:])
		if incompat&xfsIncompatMetaUUID != 0 {
			copy(x.metaUUID[:], b[248:])
		}
	}
	copy(x.uuid[:], b[32:])
	if b[126] != 0 {
		return nil, notClean("mkfs or xfs_growfs has not finished (sb_inprogress)")
	}
	// A realtime device is a second device, or has its own space in this one.
	if rblocks := be.Uint64(b[16:]); rblocks != 0 {
		return nil, unknown("XFS with a realtime device")
	}

	x.blockLog = uint(b[120])
	if blockSize := be.Uint32(b[4:]); x.blockLog < xfsMinBlockLog || x.blockLog > xfsMaxBlockLog || blockSize != 1<<x.blockLog {
		return nil, notClean("blocks of %d = 2^%d bytes", blockSize, x.blockLog)
	}
	if x.sectorSize > 1<<x.blockLog {
		return nil, notClean("blocks of %d bytes and sectors of %d", 1<<x.blockLog, x.sectorSize)
	}
	blocks := be.Uint64(b[8:])
	x.blocks = v.Size() >> x.blockLog
	if blocks > uint64(x.blocks) {
		return nil, notClean("%d blocks of %d bytes: the volume has %d bytes", blocks, 1<<x.blockLog, v.Size())
	}
	x.blocks = int64(blocks)
	x.agBlocks, x.agCount = int64(be.Uint32(b[84:])), int64(be.Uint32(b[88:]))
	if x.agBlocks < xfsMinAGBlocks || x.agCount == 0 ||
		x.agCount != virtual.DivUp(x.blocks, x.agBlocks) || x.agLength(x.agCount-1) < xfsMinAGBlocks {
		return nil, notClean("%d blocks in %d allocation groups of %d", x.blocks, x.agCount, x.agBlocks)
	}

	// A block number is that of the AG, and below it, in sb_agblklog bits, one
	// inside of it.
	agLog := uint(b[124])
	if int(agLog) != bits.Len32(uint32(x.agBlocks-1)) {
		return nil, notClean("block numbers of %d bits in allocation groups of %d blocks", agLog, x.agBlocks)
	}
	start, n := be.Uint64(b[48:]), int64(be.Uint32(b[96:]))
	if start == 0 {
		return nil, unknown("XFS with an external log")
	}
	ag, first := start>>agLog, int64(start&(1<<agLog-1))
	if ag >= uint64(x.agCount) || n == 0 || first > x.agLength(int64(ag)) || n > x.agLength(int64(ag))-first {
		return nil, notClean("log of %d blocks at block %d of allocation group %d", n, first, ag)
	}
	x.log = xfsExtent{int64(ag)*x.agBlocks + first, n}
	return x, nil
}

// agLength is how many blocks an AG has: the last may be shorter.
func (x *xfs) agLength(ag int64) int64 { return min(x.agBlocks, x.blocks-ag*x.agBlocks) }

// offset is where a block of an AG is on the volume.
func (x *xfs) offset(ag, block int64) int64 { return (ag*x.agBlocks + block) << x.blockLog }

// xfsChecksum compares the CRC32C at off of b with that of b with zeros there.
func xfsChecksum(b []byte, off int) bool {
	sum := crc32.Update(0, castagnoli, b[:off])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	sum = crc32.Update(sum, castagnoli, b[off+4:])
	return sum == binary.LittleEndian.Uint32(b[off:]) // the one number of XFS that is
}

// # AG free space

// errEnough: the consumer of a sequence wants no more of it.
var errEnough = errors.New("enough")

// xfsMaxLevels is XFS_BTREE_MAXLEVELS.
const xfsMaxLevels = 9

// freeIn yields the free extents of an AG.
func (x *xfs) freeIn(ag int64, yield func(disk.Extent, error) bool) error {
	b, err := load(x.v, x.offset(ag, 0)+x.sectorSize, x.sectorSize, "AGF")
	if err != nil {
		return err
	}
	be := binary.BigEndian
	switch {
	case string(b[:4]) != "XAGF" || be.Uint32(b[4:]) != 1:
		return notClean("no AGF")
	case x.v5 && !xfsChecksum(b, 216):
		return notClean("wrong checksum of the AGF")
	case x.v5 && !bytes.Equal(b[64:80], x.metaUUID[:]):
		return notClean("the AGF is that of another file system")
	case int64(be.Uint32(b[8:])) != ag || int64(be.Uint32(b[12:])) != x.agLength(ag):
		return notClean("AGF of allocation group %d, with %d blocks", be.Uint32(b[8:]), be.Uint32(b[12:]))
	}
	root, levels, freeBlocks := be.Uint32(b[16:]), be.Uint32(b[28:]), be.Uint32(b[52:])
	if levels < 1 || levels > xfsMaxLevels {
		return notClean("free space B+tree of %d levels", levels)
	}
	t := xfsFreeTree{
		xfs:   x,
		ag:    ag,
		yield: yield,
		// Superblock, AGF, AGI and AGFL have a sector each.
		next: virtual.DivUp(4*x.sectorSize, 1<<x.blockLog),
	}
	if err := t.walk(root, int(levels)-1); err != nil {
		return err
	}
	if t.free != int64(freeBlocks) {
		return notClean("%d free blocks, the AGF has %d", t.free, freeBlocks)
	}
	return nil
}

// An xfsFreeTree is the B+tree of an AG's free extents by block number (bnobt)
// while it is walked through.
type xfsFreeTree struct {
	*xfs
	ag    int64
	yield func(disk.Extent, error) bool
	next  int64 // what is free begins here or later
	free  int64 // blocks, so far
}

// walk yields what is below block. Every leaf has a record, and records
// ascend: so no block is read twice, whatever the pointers are.
func (t *xfsFreeTree) walk(block uint32, level int) error {
	if int64(block) >= t.agLength(t.ag) {
		return notClean("block %d of the free space B+tree is outside", block)
	}
	off := t.offset(t.ag, int64(block))
	b, err := load(t.v, off, 1<<t.blockLog, "free space B+tree")
	if err != nil {
		return err
	}
	be := binary.BigEndian
	magic, header := "ABTB", 16
	if t.v5 {
		magic, header = "AB3B", 56
	}
	switch {
	case string(b[:4]) != magic || int(be.Uint16(b[4:])) != level:
		return notClean("block %d is not of level %d of the free space B+tree", block, level)
	case t.v5 && !xfsChecksum(b, 52):
		return notClean("wrong checksum of block %d, free space B+tree", block)
	case t.v5 && (be.Uint64(b[16:]) != uint64(off)/512 || !bytes.Equal(b[32:48], t.metaUUID[:]) || int64(be.Uint32(b[48:])) != t.ag):
		return notClean("block %d is of another free space B+tree", block)
	}
	n := int(be.Uint16(b[6:]))
	b = b[header:]

	if level == 0 {
		// A full AG has a tree without records.
		if n > len(b)/8 || n == 0 && t.free > 0 {
			return notClean("%d records in block %d of the free space B+tree", n, block)
		}
		for ; n > 0; n, b = n-1, b[8:] {
			if err := t.add(int64(be.Uint32(b)), int64(be.Uint32(b[4:]))); err != nil {
				return err
			}
		}
		return nil
	}
	most := len(b) / 12 // keys of 8 bytes each, then as many pointers of 4
	if n == 0 || n > most {
		return notClean("%d pointers in block %d of the free space B+tree", n, block)
	}
	for i := range n {
		before := t.free
		if err := t.walk(be.Uint32(b[8*most+4*i:]), level-1); err != nil {
			return err
		}
		if t.free == before {
			return notClean("empty leaf in the free space B+tree")
		}
	}
	return nil
}

// add yields a record.
func (t *xfsFreeTree) add(start, n int64) error {
	if start < t.next || n == 0 || n > t.agLength(t.ag)-start {
		return notClean("%d free blocks at block %d, where they cannot be", n, start)
	}
	// The log lies in an AG like a file.
	if first := t.ag*t.agBlocks + start; first < t.log.start+t.log.n && t.log.start < first+n {
		return notClean("%d free blocks at block %d, where the log is", n, start)
	}
	t.next = start + n
	t.free += n
	if !t.yield(disk.Extent{Offset: t.offset(t.ag, start), Length: n << t.blockLog}, nil) {
		return errEnough
	}
	return nil
}

// # Journaling log
//
// The log is a ring of basic blocks of 512 bytes. Each begins with the number
// of the cycle in which it was written, a record header with a magic number
// before it. So the blocks of the running cycle are followed by those of the
// one before, and where they meet is the head. The log is clean if the record
// before the head is that of an unmount: xlog_find_tail and
// xlog_check_unmount_rec in fs/xfs/xfs_log_recover.c.

const (
	basicBlock = 512

	xlogMagic = 0xfeedbabe

	// xlogInFlight is how many blocks can be on their way to the disk at once:
	// XLOG_MAX_ICLOGS buffers of XLOG_MAX_RECORD_BSIZE. So far around the head
	// a crash can leave cycles in disorder, and no record is longer.
	xlogInFlight = 8 * (256 << 10) / basicBlock

	xlogChunk = 128 // blocks that are read at a time

	// A header has the first words of 32 KiB of its record, further ones follow it.
	xlogCycleSize = 32 << 10

	xlogUnmountTrans = 0x20
)

// An xlog reads blocks of the log, which is a ring.
type xlog struct {
	v      volume
	start  int64
	blocks int64
	chunk  int64  // the first block in buf
	buf    []byte // xlogChunk blocks, fewer at the end
}

// at is a block; index may be up to a whole ring off.
func (l *xlog) at(index int64) ([]byte, error) {
	index = (index + l.blocks) % l.blocks
	if chunk := index &^ (xlogChunk - 1); l.buf == nil || chunk != l.chunk {
		b, err := load(l.v, l.start+chunk*basicBlock, min(xlogChunk, l.blocks-chunk)*basicBlock, "log")
		if err != nil {
			return nil, err
		}
		l.chunk, l.buf = chunk, b
	}
	return l.buf[(index-l.chunk)*basicBlock:][:basicBlock], nil
}

// cycle is when a block was written.
func (l *xlog) cycle(index int64) (uint32, error) {
	b, err := l.at(index)
	if err != nil {
		return 0, err
	}
	be := binary.BigEndian
	if be.Uint32(b) == xlogMagic {
		return be.Uint32(b[4:]), nil
	}
	return be.Uint32(b), nil
}

// checkLog wants a log with nothing to replay, and is stricter than the kernel:
// a log whose head is in disorder has seen a crash.
func (x *xfs) checkLog() error {
	l := &xlog{v: x.v, start: x.log.start << x.blockLog, blocks: x.log.n << x.blockLog / basicBlock}
	head, err := l.head()
	if err != nil {
		return err
	}

	// The header of the last record, xlog_rseek_logrec_hdr.
	be := binary.BigEndian
	at := head - 1
	for ; ; at-- {
		if head-at > min(xlogInFlight, l.blocks) {
			return notClean("no record at the head of the log")
		}
		b, err := l.at(at)
		if err != nil {
			return err
		}
		if be.Uint32(b) == xlogMagic {
			break
		}
	}
	header, err := l.at(at)
	if err != nil {
		return err
	}
	version, length, operations, size := be.Uint32(header[8:]), int64(be.Uint32(header[12:])), be.Uint32(header[40:]), int64(be.Uint32(header[320:]))
	if !bytes.Equal(header[304:320], x.uuid[:]) {
		return notClean("the log is that of another file system")
	}
	headers := int64(1)
	if version&2 != 0 && size > xlogCycleSize {
		headers = virtual.DivUp(size, xlogCycleSize)
	}
	end := at + headers + virtual.DivUp(length, basicBlock)
	if end != head || operations != 1 || headers >= head-at {
		return notClean("there is a log to replay")
	}

	// Its one operation, after a header of 12 bytes.
	op, err := l.at(at + headers)
	if err != nil {
		return err
	}
	if flags := op[9]; flags&xlogUnmountTrans == 0 {
		return notClean("there is a log to replay")
	}
	return nil
}

// head is the first block that was not written in the last cycle, like
// xlog_find_head: 0 if that went up to the end.
func (l *xlog) head() (int64, error) {
	first, err := l.cycle(0)
	if err != nil {
		return 0, err
	}
	last, err := l.cycle(l.blocks - 1)
	if err != nil {
		return 0, err
	}
	// mkfs writes the record of an unmount: a log is never empty.
	if first == 0 || last != first && last != first-1 {
		return 0, notClean("log from cycle %d to %d", first, last)
	}
	head := int64(0)
	if last != first {
		low, high := int64(0), l.blocks-1 // of these cycles
		for high-low > 1 {
			middle := low + (high-low)/2
			c, err := l.cycle(middle)
			if err != nil {
				return 0, err
			}
			switch c {
			case first:
				low = middle
			case last, 0: // see inOrder
				high = middle
			default:
				return 0, notClean("block of cycle %d in a log of cycle %d", c, first)
			}
		}
		head = high
	}

	around := min(xlogInFlight, l.blocks)
	for i := max(0, head-around); i < min(head+around, l.blocks); i++ {
		if err := l.inOrder(i, head, first, last); err != nil {
			return 0, err
		}
	}
	// The ring goes on, at its end and at its beginning.
	for i := l.blocks + min(0, head-around); i < l.blocks; i++ {
		if err := l.inOrder(i, head, first, last); err != nil {
			return 0, err
		}
	}
	for i := range max(0, head+around-l.blocks) {
		if err := l.inOrder(i, head, first, last); err != nil {
			return 0, err
		}
	}
	return head, nil
}

// inOrder wants a block to be of the cycle first before the head, else of last.
// Behind it can also be zeros: xfs_repair -L and a change of the UUID write the
// record of an unmount, zeros up to 256 KiB, and then records of the cycle
// before (libxfs_log_clear).
func (l *xlog) inOrder(index, head int64, first, last uint32) error {
	want := last
	if index < head {
		want = first
	}
	c, err := l.cycle(index)
	if err != nil || c == want || c == 0 && index >= head && first != last {
		return err
	}
	return notClean("the cycles of the log are in disorder")
}
