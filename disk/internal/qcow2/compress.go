package qcow2

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// batchPerJob is how many clusters are gathered for each job before they are
// compressed: enough that jobs do not wait long for the last of them.
const batchPerJob = 16

// refcountSpan is what a refcount block counts, in bytes of the file.
const refcountSpan = blockEntries * clusterSize

// A Compressor writes a compressed image in ascending order. It is not safe
// for concurrent use; compression itself is concurrent.
//
// The file grows at its end only. An L2 table follows the clusters that it
// maps, compressed clusters follow each other without a gap, and those that do
// not shrink are stored as they are, aligned. The first refcount block comes
// after the L1 table, every other one is the first of the clusters that it
// counts, so that it is known where it is before it is known what it says.
type Compressor struct {
	f           *os.File
	size        int64
	places      places
	compression Compression
	jobs        []func(dst, src []byte) ([]byte, error)

	written int64     // end of the last WriteAt
	batch   []*gather // clusters to compress, ascending; the last may get more
	free    []*gather // gathers that can be used again
	pending *mapping  // L2 table that is being filled
	l1      []byte
	counts  [blockEntries]uint16 // refcount block that is being filled
	blocks  []byte               // refcount table
	end     int64
	err     error
}

// A gather is a cluster on its way into the file.
type gather struct {
	cluster int64
	plain   [clusterSize]byte
	packed  []byte // nil: does not shrink
	zero    bool
	err     error
}

type mapping struct {
	index   int64 // in the L1 table
	entries [clusterSize]byte
}

// NewCompressor starts an image. Jobs below 1 are one per CPU that Go uses.
func NewCompressor(f *os.File, size int64, c Compression, jobs int) (*Compressor, error) {
	rounded, err := diskSize(size)
	if err != nil {
		return nil, err
	}
	if _, err := regularSize(f); err != nil {
		return nil, err
	}
	w := &Compressor{f: f, size: rounded, compression: c, l1: make([]byte, roundUp(8*l1Entries(rounded), clusterSize))}
	if jobs < 1 {
		jobs = runtime.GOMAXPROCS(0)
	}
	for range jobs {
		compress, err := newCompressor(c)
		if err != nil {
			return nil, err
		}
		w.jobs = append(w.jobs, compress)
	}

	// The most that the disk can become: all clusters stored as they are, each
	// table and each block with less than a cluster lost before it.
	clusters := divUp(rounded, clusterSize)
	clusters += 2*divUp(clusters, l2Entries) + int64(len(w.l1)/clusterSize) + maxRefcountTable + 2
	blocks := divUp(clusters+2*divUp(clusters, blockEntries-2), blockEntries)
	w.places.refcountTable = 1
	w.places.refcountClusters = min(divUp(blocks, tableEntries), maxRefcountTable)
	w.places.l1 = 1 + w.places.refcountClusters

	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	w.end = (w.places.l1 + int64(len(w.l1)/clusterSize)) * clusterSize
	for c := range w.end / clusterSize {
		w.counts[c] = 1
	}
	first, err := w.allocate(clusterSize, true)
	if err != nil {
		return nil, err
	}
	w.blocks = binary.BigEndian.AppendUint64(nil, uint64(first))
	return w, nil
}

// WriteAt gathers p.
func (w *Compressor) WriteAt(p []byte, off int64) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	if err := virtual.CheckWrite(len(p), off, w.size); err != nil {
		return 0, err
	}
	if off < w.written {
		return 0, fmt.Errorf("writing at %d after %d: a compressed image is written in ascending order", off, w.written)
	}
	n := len(p)
	for len(p) > 0 {
		g, err := w.gather(off / clusterSize)
		if err != nil {
			return n - len(p), err
		}
		m := copy(g.plain[off%clusterSize:], p)
		p, off = p[m:], off+int64(m)
		w.written = off
	}
	return n, nil
}

// gather returns the cluster that is gathered last, zeros where it has got
// nothing yet.
func (w *Compressor) gather(cluster int64) (*gather, error) {
	if n := len(w.batch); n > 0 && w.batch[n-1].cluster == cluster {
		return w.batch[n-1], nil
	}
	if len(w.batch) == batchPerJob*len(w.jobs) {
		if err := w.flush(); err != nil {
			return nil, err
		}
	}
	g := &gather{}
	if n := len(w.free); n > 0 {
		g, w.free = w.free[n-1], w.free[:n-1]
		clear(g.plain[:])
	}
	g.cluster = cluster
	w.batch = append(w.batch, g)
	return g, nil
}

// flush compresses the clusters that were gathered, all at the same time, and
// appends them, one after another.
func (w *Compressor) flush() error {
	var next atomic.Int64
	var wg sync.WaitGroup
	for _, compress := range w.jobs {
		wg.Go(func() {
			for n := next.Add(1) - 1; n < int64(len(w.batch)); n = next.Add(1) - 1 {
				w.batch[n].pack(compress)
			}
		})
	}
	wg.Wait()
	for _, g := range w.batch {
		if w.err == nil {
			w.err = w.append(g)
		}
	}
	w.batch, w.free = w.batch[:0], append(w.free, w.batch...)
	return w.err
}

var zeroCluster [clusterSize]byte

func (g *gather) pack(compress func(dst, src []byte) ([]byte, error)) {
	if g.zero = bytes.Equal(g.plain[:], zeroCluster[:]); g.zero {
		return
	}
	g.packed, g.err = compress(g.packed[:0], g.plain[:])
}

func (w *Compressor) append(g *gather) error {
	if g.zero || g.err != nil {
		return g.err
	}
	if w.pending == nil || w.pending.index != g.cluster/l2Entries {
		if err := w.finishTable(); err != nil {
			return err
		}
		w.pending = &mapping{index: g.cluster / l2Entries}
	}

	content, aligned := g.packed, false
	if len(content) >= clusterSize {
		content, aligned = g.plain[:], true
	}
	off, err := w.store(content, aligned)
	if err != nil {
		return err
	}
	entry := uint64(off) | entryCopied
	if !aligned {
		sectors := (off+int64(len(content))-1)/512 - off/512
		entry = entryCompressed | uint64(sectors)<<(62-(clusterBits-8)) | uint64(off)
	}
	binary.BigEndian.PutUint64(w.pending.entries[g.cluster%l2Entries*8:], entry)
	return nil
}

// finishTable stores the L2 table that is being filled, if there is one.
func (w *Compressor) finishTable() error {
	if w.pending == nil {
		return nil
	}
	off, err := w.store(w.pending.entries[:], true)
	binary.BigEndian.PutUint64(w.l1[8*w.pending.index:], uint64(off)|entryCopied)
	return err
}

func (w *Compressor) store(b []byte, aligned bool) (off int64, err error) {
	if off, err = w.allocate(int64(len(b)), aligned); err != nil {
		return 0, err
	}
	_, err = w.f.WriteAt(b, off)
	return off, err
}

// allocate takes n bytes, at most a cluster, from the end of the file and
// counts them.
func (w *Compressor) allocate(n int64, aligned bool) (int64, error) {
	off := w.end
	if aligned {
		off = roundUp(off, clusterSize)
	}
	if boundary := roundUp(off, refcountSpan); n > boundary-off {
		if err := w.finishBlock(); err != nil {
			return 0, err
		}
		w.blocks = binary.BigEndian.AppendUint64(w.blocks, uint64(boundary))
		if int64(len(w.blocks)) > w.places.refcountClusters*clusterSize {
			return 0, virtual.Unsupported("an image of more than %d bytes", boundary)
		}
		w.counts = [blockEntries]uint16{1}
		off = boundary + clusterSize
	}
	for c := off / clusterSize; c <= (off+n-1)/clusterSize; c++ {
		w.counts[c%blockEntries]++
	}
	w.end = off + n
	return off, nil
}

// finishBlock writes the refcount block that is being filled.
func (w *Compressor) finishBlock() error {
	b := make([]byte, 0, clusterSize)
	for _, count := range w.counts {
		b = binary.BigEndian.AppendUint16(b, count)
	}
	place := binary.BigEndian.Uint64(w.blocks[len(w.blocks)-8:])
	_, err := w.f.WriteAt(b, int64(place))
	return err
}

// Close completes the image. The header comes last: without it, the file is no
// image.
func (w *Compressor) Close() error {
	if w.err == nil {
		w.err = w.finish()
	}
	if w.err != nil {
		return w.err
	}
	w.err = os.ErrClosed
	return nil
}

func (w *Compressor) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	if err := w.finishTable(); err != nil {
		return err
	}
	if err := w.finishBlock(); err != nil {
		return err
	}
	if err := w.f.Truncate(roundUp(w.end, clusterSize)); err != nil {
		return err
	}
	for off, b := range map[int64][]byte{
		w.places.refcountTable: w.blocks,
		w.places.l1:            w.l1,
	} {
		if _, err := w.f.WriteAt(b, off*clusterSize); err != nil {
			return err
		}
	}
	_, err := w.f.WriteAt(encodeHeader(w.size, w.places, w.compression), 0)
	return err
}
