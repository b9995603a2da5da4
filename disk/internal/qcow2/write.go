package qcow2

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/bits"
	"os"
	"sort"

	"github.com/davit-oci/davit/disk/internal/hostfile"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// What we write: version 3, clusters of 64 KiB, refcounts of 16 bits.
const (
	clusterBits = 16
	clusterSize = 1 << clusterBits

	l2Entries    = clusterSize / 8
	l2Span       = l2Entries * clusterSize
	tableEntries = clusterSize / 8 // of a cluster of the refcount table
	blockEntries = clusterSize / 2 // of a refcount block
	refcountBits = 4               // 2^4 bits

	// maxRefcountTable is QEMU's limit of 8 MiB, in clusters. It limits a file
	// to 2 PiB.
	maxRefcountTable = 8 << 20 / clusterSize
)

func divUp(n, by int64) int64 { return (n + by - 1) / by }

func roundUp(n, to int64) int64 { return divUp(n, to) * to }

// diskSize is the virtual size, in whole sectors.
func diskSize(size int64) (int64, error) {
	if size > maxL1*l2Span {
		return 0, virtual.Unsupported("virtual size of %d bytes", size)
	}
	return roundUp(size, 512), nil
}

// regularSize is the size of a file that can be cut to the size of an image.
func regularSize(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, virtual.Unsupported("a qcow2 image in what is no regular file")
	}
	return info.Size(), nil
}

// l1Entries is the length of an L1 table; also that of an empty disk has a
// place in the file.
func l1Entries(size int64) int64 { return max(1, divUp(size, l2Span)) }

// places are where the metadata of an image is, in clusters.
type places struct {
	refcountTable, refcountClusters int64
	l1                              int64
}

// encodeHeader makes the first cluster of an image.
func encodeHeader(size int64, p places, c Compression) []byte {
	b := make([]byte, clusterSize)
	be := binary.BigEndian
	copy(b, magic)
	be.PutUint32(b[4:], 3)
	be.PutUint32(b[20:], clusterBits)
	be.PutUint64(b[24:], uint64(size))
	be.PutUint32(b[36:], uint32(l1Entries(size)))
	be.PutUint64(b[40:], uint64(p.l1*clusterSize))
	be.PutUint64(b[48:], uint64(p.refcountTable*clusterSize))
	be.PutUint32(b[56:], uint32(p.refcountClusters))
	be.PutUint32(b[96:], refcountBits)
	be.PutUint32(b[100:], headerLengthV3)
	if c == Zlib {
		return b
	}

	be.PutUint64(b[72:], featureCompressionType)
	be.PutUint32(b[100:], headerLengthV3+8)
	b[104] = byte(c)

	// So that a QEMU before 5.1 can say what it lacks.
	x := b[headerLengthV3+8:]
	be.PutUint32(x, extensionFeatureNames)
	be.PutUint32(x[4:], 48)
	x[9] = byte(bits.TrailingZeros(featureCompressionType))
	copy(x[10:], "compression type")
	return b
}

// A Writer writes an uncompressed image in any order, and reads what it has.
// It is safe for concurrent use: nothing changes after NewWriter.
//
// The file is, in whole clusters,
//
//	header | refcount table | refcount blocks | L1 table | L2 tables | data
//
// where data has the clusters that hold data, in the order of the disk. So a
// range of such clusters is one range of the file.
type Writer struct {
	f      *os.File
	size   int64
	tables []l2Table
	places places
	l2     int64 // first cluster of the L2 tables
	data   int64 // first cluster of data
	end    int64 // the clusters of the file
}

// An l2Table says which of its clusters are allocated. That takes a bit per
// 64 KiB of the parts of a disk that have data: 2 MiB for 1 TiB.
type l2Table struct {
	index int64 // in the L1 table
	first int64 // allocated clusters of all tables before this one
	bits  [l2Entries / 64]uint64
}

func (t *l2Table) has(entry int64) bool { return t.bits[entry/64]>>(entry%64)&1 != 0 }

// rank counts the allocated clusters before entry.
func (t *l2Table) rank(entry int64) int64 {
	n := bits.OnesCount64(t.bits[entry/64] & (1<<(entry%64) - 1))
	for _, word := range t.bits[:entry/64] {
		n += bits.OnesCount64(word)
	}
	return int64(n)
}

// NewWriter lays out the image and writes all of it but the data.
func NewWriter(f *os.File, size int64, data iter.Seq2[virtual.Extent, error]) (*Writer, error) {
	rounded, err := diskSize(size)
	if err != nil {
		return nil, err
	}
	before, err := regularSize(f)
	if err != nil {
		return nil, err
	}
	w := &Writer{f: f, size: rounded}
	if err := w.layOut(virtual.Ascending(data, size)); err != nil {
		return nil, err
	}
	if err := f.Truncate(w.end * clusterSize); err != nil {
		return nil, err
	}
	if err := w.writeTables(); err != nil {
		return nil, err
	}
	if before > w.data*clusterSize {
		if err := w.zeroGaps(virtual.Ascending(data, size), before); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *Writer) layOut(data iter.Seq2[virtual.Extent, error]) error {
	clusters := int64(0)
	for e, err := range data {
		if err != nil {
			return err
		}
		for c := e.Offset / clusterSize; c <= (e.End()-1)/clusterSize; c++ {
			if n := len(w.tables); n == 0 || w.tables[n-1].index != c/l2Entries {
				w.tables = append(w.tables, l2Table{index: c / l2Entries, first: clusters})
			}
			t := &w.tables[len(w.tables)-1]
			if entry := c % l2Entries; !t.has(entry) {
				t.bits[entry/64] |= 1 << (entry % 64)
				clusters++
			}
		}
	}

	// Refcounts cover themselves, so their size is found step by step.
	table, blocks := int64(1), int64(1)
	for {
		w.places.refcountTable = 1
		w.places.refcountClusters = table
		w.places.l1 = 1 + table + blocks
		w.l2 = w.places.l1 + divUp(8*l1Entries(w.size), clusterSize)
		w.data = w.l2 + int64(len(w.tables))
		w.end = w.data + clusters
		needBlocks := divUp(w.end, blockEntries)
		needTable := divUp(needBlocks, tableEntries)
		if needBlocks == blocks && needTable == table {
			break
		}
		blocks, table = needBlocks, needTable
	}
	if table > maxRefcountTable {
		return virtual.Unsupported("%d clusters of data", clusters)
	}
	return nil
}

// writeTables writes all clusters before the data.
func (w *Writer) writeTables() error {
	b := bufio.NewWriterSize(io.NewOffsetWriter(w.f, 0), 1<<20)
	entry := make([]byte, 8)
	put := func(n int64) {
		binary.BigEndian.PutUint64(entry, uint64(n))
		b.Write(entry) // errors stay until Flush
	}
	pad := func(entries int64) {
		for range entries {
			put(0)
		}
	}

	b.Write(encodeHeader(w.size, w.places, Zlib))

	block := w.places.refcountTable + w.places.refcountClusters
	for c := block; c < w.places.l1; c++ {
		put(c * clusterSize)
	}
	pad(w.places.refcountClusters*tableEntries - (w.places.l1 - block))

	ones := bytes.Repeat([]byte{0, 1}, blockEntries)
	for n := w.end; n > 0; n -= blockEntries {
		b.Write(ones[:2*min(n, blockEntries)])
	}
	b.Write(make([]byte, 2*((w.places.l1-block)*blockEntries-w.end)))

	l1 := int64(0)
	for n := range w.tables {
		for ; l1 < w.tables[n].index; l1++ {
			put(0)
		}
		put((w.l2+int64(n))*clusterSize | copied)
		l1++
	}
	pad((w.l2-w.places.l1)*tableEntries - l1)

	next := w.data
	for n := range w.tables {
		for e := range int64(l2Entries) {
			if !w.tables[n].has(e) {
				put(0)
				continue
			}
			put(next*clusterSize | copied)
			next++
		}
	}
	return b.Flush()
}

// copied is entryCopied as the sign of an int64.
const copied = -1 << 63

// zeroGaps zeroes what a file of before bytes already had in allocated
// clusters, but not in data.
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
	done := int64(0) // all before it is in order
	for e, err := range data {
		if err != nil {
			return err
		}
		if _, ok := w.host(e.Offset); !ok {
			return errChanged
		}
		tail, head := roundUp(done, clusterSize), e.Offset/clusterSize*clusterSize
		if err := zero(done, min(tail, e.Offset)); err != nil {
			return err
		}
		if err := zero(max(tail, head), e.Offset); err != nil {
			return err
		}
		done = e.End()
	}
	return zero(done, roundUp(done, clusterSize))
}

var errChanged = errors.New("data has other extents when it is ranged over again")

// table returns the table of a cluster of the disk, or the next one.
func (w *Writer) table(cluster int64) (n int, exact bool) {
	index := cluster / l2Entries
	n = sort.Search(len(w.tables), func(n int) bool { return w.tables[n].index >= index })
	return n, n < len(w.tables) && w.tables[n].index == index
}

// host is where the file has byte off of the disk; false if nowhere.
func (w *Writer) host(off int64) (int64, bool) {
	c := off / clusterSize
	n, ok := w.table(c)
	if !ok || !w.tables[n].has(c%l2Entries) {
		return 0, false
	}
	t := &w.tables[n]
	return (w.data+t.first+t.rank(c%l2Entries))*clusterSize + off%clusterSize, true
}

// allocated is how many bytes from off on, up to limit, are in clusters that
// are (or are not) allocated.
func (w *Writer) allocated(off, limit int64) (length int64, is bool) {
	c := off / clusterSize
	n, exact := w.table(c)
	at := func(c int64) bool {
		for n < len(w.tables) && w.tables[n].index < c/l2Entries {
			n++
		}
		return n < len(w.tables) && w.tables[n].index == c/l2Entries && w.tables[n].has(c%l2Entries)
	}
	is = exact && at(c)
	end := c + 1
	for end*clusterSize-off < limit && at(end) == is {
		end++
	}
	return min(end*clusterSize-off, limit), is
}

// WriteAt refuses what is in no cluster that has data.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	if err := virtual.CheckWrite(len(p), off, w.size); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if n, is := w.allocated(off, int64(len(p))); !is || n < int64(len(p)) {
		return 0, fmt.Errorf("writing %d bytes at %d: not all of it is in the data that was announced", len(p), off)
	}
	host, _ := w.host(off)
	return w.f.WriteAt(p, host)
}

// Close has nothing to do: the image is whole from the start.
func (w *Writer) Close() error { return nil }

// Size is the virtual size in bytes.
func (w *Writer) Size() int64 { return w.size }

// ReadAt reads what the file holds now.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) {
	return virtual.ReadAt(p, off, w.size, func(p []byte, off int64) error {
		for len(p) > 0 {
			n, is := w.allocated(off, int64(len(p)))
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

// NextExtent knows the holes of the file: clusters that nobody has written yet.
func (w *Writer) NextExtent(off int64) (virtual.Extent, error) {
	if off < 0 {
		return virtual.Extent{}, fmt.Errorf("finding data at offset %d: negative offset", off)
	}
	if off >= w.size {
		return virtual.Extent{}, nil
	}
	host, ok := w.host(off)
	if !ok {
		host = w.nextHost(off / clusterSize)
	}
	start, length, err := hostfile.NextData(w.f, host, w.end*clusterSize)
	if err != nil || length == 0 {
		return virtual.Extent{}, err
	}
	if off = w.guest(start); off >= w.size {
		return virtual.Extent{}, nil
	}
	length, _ = w.allocated(off, min(length, w.size-off, maxExtent))
	return virtual.Extent{Offset: off, Length: length}, nil
}

// nextHost is the file's end or where it has the first data after a cluster of
// the disk, which itself is not allocated.
func (w *Writer) nextHost(cluster int64) int64 {
	n, exact := w.table(cluster)
	switch {
	case n == len(w.tables):
		return w.end * clusterSize
	case exact:
		return (w.data + w.tables[n].first + w.tables[n].rank(cluster%l2Entries)) * clusterSize
	}
	return (w.data + w.tables[n].first) * clusterSize
}

// guest is the reverse of host, for an offset of the file that is in data.
func (w *Writer) guest(host int64) int64 {
	nth := host/clusterSize - w.data
	n := sort.Search(len(w.tables), func(n int) bool { return w.tables[n].first > nth }) - 1
	t := &w.tables[n]
	nth -= t.first
	word := 0
	for ; int64(bits.OnesCount64(t.bits[word])) <= nth; word++ {
		nth -= int64(bits.OnesCount64(t.bits[word]))
	}
	rest := t.bits[word]
	for range nth {
		rest &= rest - 1 // without its lowest bit
	}
	entry := int64(word)*64 + int64(bits.TrailingZeros64(rest))
	return (t.index*l2Entries+entry)*clusterSize + host%clusterSize
}
