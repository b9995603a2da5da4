package qcow2

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"iter"
	"math/bits"
	"os"

	"github.com/davit-oci/davit/disk/internal/blocks"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// What we write: version 3, clusters of 64 KiB, refcounts of 16 bits.
const (
	clusterBits = 16
	clusterSize = 1 << clusterBits

	l2Entries    = blocks.GroupLen // a cluster of entries of 8 bytes
	l2Span       = l2Entries * clusterSize
	tableEntries = clusterSize / 8 // of a cluster of the refcount table
	blockEntries = clusterSize / 2 // of a refcount block
	refcountBits = 4               // 2^4 bits

	// maxRefcountTable is QEMU's limit of 8 MiB, in clusters. It limits a file
	// to 2 PiB.
	maxRefcountTable = 8 << 20 / clusterSize
)

// DiskSize is the virtual size of an image for a disk of size bytes: whole
// sectors.
func DiskSize(size int64) (int64, error) {
	if size > maxL1*l2Span {
		return 0, virtual.Unsupported("virtual size of %d bytes", size)
	}
	return virtual.RoundUp(size, 512), nil
}

// l1Entries is the length of an L1 table; also that of an empty disk has a
// place in the file.
func l1Entries(size int64) int64 { return max(1, virtual.DivUp(size, l2Span)) }

// places are where the metadata of an image is, in clusters.
type places struct {
	refcountTable, refcountClusters int64
	l1                              int64

	// Of uncompressed images only:
	l2   int64
	data int64
	end  int64 // clusters of the file
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

// NewWriter lays out an uncompressed image and writes all of it but the data,
// which is then written in any order. The file is, in whole clusters,
//
//	header | refcount table | refcount blocks | L1 table | L2 tables | data
//
// where data has the clusters that hold data, in the order of the disk. So a
// range of such clusters is one range of the file.
func NewWriter(f *os.File, size int64, data iter.Seq2[virtual.Extent, error]) (*blocks.Writer, error) {
	rounded, err := DiskSize(size)
	if err != nil {
		return nil, err
	}
	clusters, err := blocks.NewMap(clusterSize, size, data)
	if err != nil {
		return nil, err
	}
	p, err := layOut(rounded, clusters)
	if err != nil {
		return nil, err
	}
	w, err := blocks.NewWriter(f, clusters, blocks.Layout{Size: rounded, First: p.data * clusterSize, End: p.end * clusterSize}, data)
	if err != nil {
		return nil, err
	}
	return w, writeTables(f, rounded, p, clusters)
}

// layOut finds a place for everything. An L2 table maps a group of clusters.
func layOut(size int64, clusters *blocks.Map) (p places, err error) {
	// Refcounts cover themselves, so their size is found step by step.
	table, blocks := int64(1), int64(1)
	for {
		p.refcountTable = 1
		p.refcountClusters = table
		p.l1 = 1 + table + blocks
		p.l2 = p.l1 + virtual.DivUp(8*l1Entries(size), clusterSize)
		p.data = p.l2 + int64(len(clusters.Groups()))
		p.end = p.data + clusters.Len()
		needBlocks := virtual.DivUp(p.end, blockEntries)
		needTable := virtual.DivUp(needBlocks, tableEntries)
		if needBlocks == blocks && needTable == table {
			break
		}
		blocks, table = needBlocks, needTable
	}
	if table > maxRefcountTable {
		return p, virtual.Unsupported("%d clusters of data", clusters.Len())
	}
	return p, nil
}

// writeTables writes all clusters before the data.
func writeTables(f *os.File, size int64, p places, clusters *blocks.Map) error {
	b := bufio.NewWriterSize(io.NewOffsetWriter(f, 0), 1<<20)
	entry := make([]byte, 8)
	put := func(n int64) {
		binary.BigEndian.PutUint64(entry, uint64(n))
		_, _ = b.Write(entry) // errors stay until Flush
	}
	pad := func(entries int64) {
		for range entries {
			put(0)
		}
	}

	_, _ = b.Write(encodeHeader(size, p, Zlib))

	block := p.refcountTable + p.refcountClusters
	for c := block; c < p.l1; c++ {
		put(c * clusterSize)
	}
	pad(p.refcountClusters*tableEntries - (p.l1 - block))

	ones := bytes.Repeat([]byte{0, 1}, blockEntries)
	for n := p.end; n > 0; n -= blockEntries {
		_, _ = b.Write(ones[:2*min(n, blockEntries)])
	}
	_, _ = b.Write(make([]byte, 2*((p.l1-block)*blockEntries-p.end)))

	groups := clusters.Groups()
	l1 := int64(0)
	for n := range groups {
		for ; l1 < groups[n].Index; l1++ {
			put(0)
		}
		put((p.l2+int64(n))*clusterSize | copied)
		l1++
	}
	pad((p.l2-p.l1)*tableEntries - l1)

	next := p.data
	for n := range groups {
		for e := range int64(l2Entries) {
			if !groups[n].Has(e) {
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
