// Package blocks writes images whose file has blocks of one size, and only
// those of the disk that hold data.
//
// The blocks are in the order of the disk. So it is known where each one is
// before any is written, the tables of an image can be written first, and the
// file of a writer that was killed is worth something to the next one. A format
// makes a [Map] of the blocks, lays out its file, has [NewWriter] make room in
// it, and writes its tables.
package blocks

import (
	"errors"
	"fmt"
	"iter"
	"math/bits"
	"os"
	"sort"

	"github.com/davit-oci/davit/disk/internal/hostfile"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// GroupLen is how many blocks a [Group] has.
const GroupLen = 8192

// A Map says which blocks of a disk are allocated: those that hold data. That
// takes a bit per block of the groups that have any.
type Map struct {
	blockSize int64
	groups    []Group // ascending
	len       int64
}

// A Group is [GroupLen] blocks in a row, not all of which are unallocated.
type Group struct {
	Index int64 // its first block is Index*GroupLen
	First int64 // allocated blocks of all groups before it
	bits  [GroupLen / 64]uint64
}

// Has reports whether block n of the group is allocated.
func (g *Group) Has(n int64) bool { return g.bits[n/64]>>(n%64)&1 != 0 }

// rank counts the allocated blocks before block n of the group.
func (g *Group) rank(n int64) int64 {
	count := bits.OnesCount64(g.bits[n/64] & (1<<(n%64) - 1))
	for _, word := range g.bits[:n/64] {
		count += bits.OnesCount64(word)
	}
	return int64(count)
}

// NewMap allocates the blocks that data, extents of a disk of size bytes,
// touches. Sizes are in bytes.
func NewMap(blockSize, size int64, data iter.Seq2[virtual.Extent, error]) (*Map, error) {
	m := &Map{blockSize: blockSize}
	for e, err := range virtual.Ascending(data, size) {
		if err != nil {
			return nil, err
		}
		for b := e.Offset / blockSize; b <= (e.End()-1)/blockSize; b++ {
			if n := len(m.groups); n == 0 || m.groups[n-1].Index != b/GroupLen {
				m.groups = append(m.groups, Group{Index: b / GroupLen, First: m.len})
			}
			g := &m.groups[len(m.groups)-1]
			if n := b % GroupLen; !g.Has(n) {
				g.bits[n/64] |= 1 << (n % 64)
				m.len++
			}
		}
	}
	return m, nil
}

// Len is how many blocks are allocated.
func (m *Map) Len() int64 { return m.len }

// Groups are the groups that have an allocated block, ascending.
func (m *Map) Groups() []Group { return m.groups }

// All are the allocated blocks, ascending: the first has place 0 in the file.
func (m *Map) All() iter.Seq2[int64, int64] {
	return func(yield func(place, block int64) bool) {
		place := int64(0)
		for n := range m.groups {
			for word, rest := range m.groups[n].bits {
				for ; rest != 0; rest &= rest - 1 {
					if !yield(place, m.groups[n].Index*GroupLen+int64(word*64+bits.TrailingZeros64(rest))) {
						return
					}
					place++
				}
			}
		}
	}
}

// Places are the places of the first n blocks of the disk; -1: not allocated.
func (m *Map) Places(n int64) iter.Seq[int64] {
	return func(yield func(place int64) bool) {
		next := int64(0)
		for place, block := range m.All() {
			for ; next < min(block, n); next++ {
				if !yield(-1) {
					return
				}
			}
			if next == n || !yield(place) {
				return
			}
			next++
		}
		for ; next < n && yield(-1); next++ {
		}
	}
}

// group returns the group of a block, or the next one.
func (m *Map) group(block int64) (n int, exact bool) {
	index := block / GroupLen
	n = sort.Search(len(m.groups), func(n int) bool { return m.groups[n].Index >= index })
	return n, n < len(m.groups) && m.groups[n].Index == index
}

// place is which one of the allocated blocks this one is, or the first after
// it; m.len if there is none.
func (m *Map) place(block int64) (place int64, allocated bool) {
	n, exact := m.group(block)
	switch {
	case n == len(m.groups):
		return m.len, false
	case !exact:
		return m.groups[n].First, false
	}
	g := &m.groups[n]
	return g.First + g.rank(block%GroupLen), g.Has(block % GroupLen)
}

// block is the reverse of place.
func (m *Map) block(place int64) int64 {
	n := sort.Search(len(m.groups), func(n int) bool { return m.groups[n].First > place }) - 1
	g := &m.groups[n]
	place -= g.First
	word := 0
	for ; int64(bits.OnesCount64(g.bits[word])) <= place; word++ {
		place -= int64(bits.OnesCount64(g.bits[word]))
	}
	rest := g.bits[word]
	for range place {
		rest &= rest - 1 // without its lowest bit
	}
	return g.Index*GroupLen + int64(word*64+bits.TrailingZeros64(rest))
}

// allocated is how many bytes from off on, up to limit, are in blocks that are
// (or are not) allocated.
func (m *Map) allocated(off, limit int64) (length int64, is bool) {
	b := off / m.blockSize
	n, _ := m.group(b)
	at := func(b int64) bool {
		for n < len(m.groups) && m.groups[n].Index < b/GroupLen {
			n++
		}
		return n < len(m.groups) && m.groups[n].Index == b/GroupLen && m.groups[n].Has(b%GroupLen)
	}
	is = at(b)
	end := b + 1
	for end*m.blockSize-off < limit && at(end) == is {
		end++
	}
	return min(end*m.blockSize-off, limit), is
}

// A Layout says where a file has its blocks. All is in bytes.
type Layout struct {
	Size   int64 // of the disk, as the image has it
	First  int64 // where the first block begins
	Stride int64 // from one block to the next; 0: they follow each other
	End    int64 // size of the file

	// Dense keeps the file from being marked sparse, which matters on Windows:
	// Hyper-V opens no VHD or VHDX file that is.
	Dense bool
}

// A Writer writes the blocks of an image in any order, and reads what the file
// has. It is safe for concurrent use.
type Writer struct {
	virtual.WriteState
	f *os.File
	m *Map
	l Layout
}

// NewWriter gives f, a regular file, its size, and zeroes what it held before the
// first block, and in allocated blocks but not in data, the extents that m was
// made of. What it held in data stays. All outside of blocks is the format's to
// write; before the first one it may leave out zeros.
func NewWriter(f *os.File, m *Map, l Layout, data iter.Seq2[virtual.Extent, error]) (*Writer, error) {
	if l.Stride == 0 {
		l.Stride = m.blockSize
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !l.Dense {
		if err := hostfile.MarkSparse(f); err != nil {
			return nil, err
		}
	}
	if err := f.Truncate(l.End); err != nil {
		return nil, err
	}
	w := &Writer{f: f, m: m, l: l}
	before := info.Size()
	w.Start(before == 0)
	if err := hostfile.Zero(f, 0, min(l.First, before)); err != nil {
		return nil, err
	}
	if before > l.First {
		if err := w.zeroGaps(virtual.Ascending(data, l.Size), before); err != nil {
			return nil, err
		}
	}
	return w, nil
}

var errChanged = errors.New("data has other extents when it is ranged over again")

// zeroGaps zeroes what a file of before bytes already had in allocated blocks,
// but not in data.
func (w *Writer) zeroGaps(data iter.Seq2[virtual.Extent, error], before int64) error {
	zero := func(from, to int64) error {
		if from >= to {
			return nil
		}
		host, ok := w.host(from)
		if !ok {
			return errChanged
		}
		return hostfile.Zero(w.f, host, min(to-from, before-host))
	}
	size := w.m.blockSize
	done := int64(0) // all before it is in order
	for e, err := range data {
		if err != nil {
			return err
		}
		if _, ok := w.host(e.Offset); !ok {
			return errChanged
		}
		tail, head := virtual.RoundUp(done, size), e.Offset/size*size
		if err := zero(done, min(tail, e.Offset)); err != nil {
			return err
		}
		if err := zero(max(tail, head), e.Offset); err != nil {
			return err
		}
		done = e.End()
	}
	return zero(done, virtual.RoundUp(done, size))
}

// host is where the file has byte off of the disk; false if nowhere: then it is
// where the next allocated block begins.
func (w *Writer) host(off int64) (int64, bool) {
	place, ok := w.m.place(off / w.m.blockSize)
	host := w.l.First + place*w.l.Stride
	if ok {
		host += off % w.m.blockSize
	}
	return host, ok
}

// run is how many bytes from off on, up to limit, are one range of the file, or
// all in blocks that are not allocated.
func (w *Writer) run(off, limit int64) (length int64, allocated bool) {
	if w.l.Stride != w.m.blockSize {
		limit = min(limit, w.m.blockSize-off%w.m.blockSize)
	}
	return w.m.allocated(off, limit)
}

// WriteAt refuses what is in no block that has data.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	if err := virtual.CheckWrite(len(p), off, w.l.Size); err != nil {
		return 0, err
	}
	if len(p) > 0 {
		if n, is := w.m.allocated(off, int64(len(p))); !is || n < int64(len(p)) {
			return 0, fmt.Errorf("writing %d bytes at %d: not all of it is in the data that was announced", len(p), off)
		}
	}
	if err := w.Writing(len(p)); err != nil {
		return 0, err
	}
	written := 0
	for len(p) > 0 {
		n, _ := w.run(off, int64(len(p)))
		host, _ := w.host(off)
		m, err := w.f.WriteAt(p[:n], host)
		written += m
		if err != nil {
			return written, err
		}
		p, off = p[n:], off+n
	}
	return written, nil
}

// Close has nothing to do: the image is whole from the start.
func (w *Writer) Close() error { return w.Closing() }

// Size is the virtual size in bytes.
func (w *Writer) Size() int64 { return w.l.Size }

// ReadAt reads what the file holds now.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) {
	return virtual.ReadAt(p, off, w.l.Size, func(p []byte, off int64) error {
		for len(p) > 0 {
			n, is := w.run(off, int64(len(p)))
			if !is {
				clear(p[:n])
			} else {
				host, _ := w.host(off)
				if m, err := w.f.ReadAt(p[:n], host); int64(m) < n {
					return err
				}
			}
			p, off = p[n:], off+n
		}
		return nil
	})
}

// maxExtent bounds the walk of one call of NextExtent, in bytes of the disk.
const maxExtent = 256 << 20

// NextExtent knows the holes of the file: blocks that nobody has written yet.
func (w *Writer) NextExtent(off int64) (virtual.Extent, error) {
	if off < 0 {
		return virtual.Extent{}, fmt.Errorf("finding data at offset %d: negative offset", off)
	}
	end := w.l.First + w.m.len*w.l.Stride
	for off < w.l.Size {
		host, _ := w.host(off)
		start, length, err := hostfile.NextData(w.f, host, end)
		if err != nil || length == 0 {
			return virtual.Extent{}, err
		}
		place, in := (start-w.l.First)/w.l.Stride, (start-w.l.First)%w.l.Stride
		off = w.m.block(place)*w.m.blockSize + min(in, w.m.blockSize)
		if in >= w.m.blockSize { // between two blocks
			if place+1 == w.m.len {
				break
			}
			off = w.m.block(place+1) * w.m.blockSize
			continue
		}
		if off >= w.l.Size {
			break
		}
		length, _ = w.run(off, min(length, w.l.Size-off, maxExtent))
		return virtual.Extent{Offset: off, Length: length}, nil
	}
	return virtual.Extent{}, nil
}
