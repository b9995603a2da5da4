package qcow2

import (
	"encoding/binary"
	"os"

	"github.com/davit-oci/davit/disk/internal/gather"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

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
	*gather.Writer
	f           *os.File
	size        int64
	places      places
	compression Compression

	pending *mapping // L2 table that is being filled
	l1      []byte
	counts  [blockEntries]uint16 // refcount block that is being filled
	blocks  []byte               // refcount table
	end     int64
}

type mapping struct {
	index   int64 // in the L1 table
	entries [clusterSize]byte
}

// NewCompressor starts an image. Jobs below 1 are one per CPU that Go uses.
func NewCompressor(f *os.File, size int64, c Compression, jobs int) (*Compressor, error) {
	rounded, err := DiskSize(size)
	if err != nil {
		return nil, err
	}
	w := &Compressor{f: f, size: rounded, compression: c, l1: make([]byte, virtual.RoundUp(8*l1Entries(rounded), clusterSize))}
	w.Writer, err = gather.New(gather.Options{
		Size:        rounded,
		BlockSize:   clusterSize,
		NewCompress: func() (gather.Compress, error) { return newCompressor(c) },
		Jobs:        jobs,
		Append:      w.append,
	})
	if err != nil {
		return nil, err
	}

	// The most that the disk can become: all clusters stored as they are, each
	// table and each block with less than a cluster lost before it.
	clusters := virtual.DivUp(rounded, clusterSize)
	clusters += 2*virtual.DivUp(clusters, l2Entries) + int64(len(w.l1)/clusterSize) + maxRefcountTable + 2
	blocks := virtual.DivUp(clusters+2*virtual.DivUp(clusters, blockEntries-2), blockEntries)
	w.places.refcountTable = 1
	w.places.refcountClusters = min(virtual.DivUp(blocks, tableEntries), maxRefcountTable)
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

// append stores a cluster, and first the L2 table of the ones before it if
// another one maps it.
func (w *Compressor) append(cluster int64, plain, packed []byte) error {
	if w.pending == nil || w.pending.index != cluster/l2Entries {
		if err := w.finishTable(); err != nil {
			return err
		}
		w.pending = &mapping{index: cluster / l2Entries}
	}

	content, aligned := packed, false
	if len(packed) >= clusterSize {
		content, aligned = plain, true
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
	binary.BigEndian.PutUint64(w.pending.entries[cluster%l2Entries*8:], entry)
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
		off = virtual.RoundUp(off, clusterSize)
	}
	if boundary := virtual.RoundUp(off, refcountSpan); n > boundary-off {
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
	if err := w.Writer.Close(); err != nil {
		return err
	}
	if err := w.finishTable(); err != nil {
		return err
	}
	if err := w.finishBlock(); err != nil {
		return err
	}
	if err := w.f.Truncate(virtual.RoundUp(w.end, clusterSize)); err != nil {
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
