package artifact

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
)

// A chunkTable finds chunks by digest: a map from digest to numbers that may
// hold more than fits in memory. What is added collects in memory and is
// written to sorted files, which are merged as they become many. A look-up
// asks a small filter first and then reads one block of a file.
//
// (A Go map takes 88 bytes an entry, and a mapped file counts as resident: 100
// GB of disk are about 2 million chunks, worst case 12 million.)
//
// It is not safe for concurrent use.
type chunkTable struct {
	dir  string
	mem  map[sum]int32 // index of the newest entry in recs
	recs []tableEntry
	runs []*tableRun // longest first
	buf  [tableBlock * tableRecord]byte
}

type tableEntry struct {
	digest sum
	value  uint64
	older  int32 // index of another entry with this digest, or -1
}

const (
	tableRecord = sha256.Size + 8
	tableBlock  = 64      // records that a look-up reads
	tableMemory = 1 << 16 // entries in memory, about 10 MB
	tableFanout = 4       // runs of about one length that are merged
)

// A tableRun is a file of sorted records.
type tableRun struct {
	file   *os.File
	n      int
	fences []uint64 // first 8 bytes of the first digest of each block
	filter []uint64 // a Bloom filter of 8 bits and 4 probes for each entry
}

func newChunkTable(dir string) *chunkTable { return &chunkTable{dir: dir, mem: map[sum]int32{}} }

// add adds a number under a digest. A digest can have several.
func (t *chunkTable) add(digest *sum, value uint64) error {
	older := int32(-1)
	if i, ok := t.mem[*digest]; ok {
		older = i
	}
	t.mem[*digest] = int32(len(t.recs))
	t.recs = append(t.recs, tableEntry{*digest, value, older})
	if len(t.recs) < tableMemory {
		return nil
	}
	return t.spill()
}

// lookup returns the numbers of a digest, ascending.
func (t *chunkTable) lookup(dst []uint64, digest *sum) ([]uint64, error) {
	dst = dst[:0]
	if i, ok := t.mem[*digest]; ok {
		for ; i >= 0; i = t.recs[i].older {
			dst = append(dst, t.recs[i].value)
		}
	}
	for _, r := range t.runs {
		var err error
		if dst, err = t.find(dst, r, digest); err != nil {
			return nil, err
		}
	}
	slices.Sort(dst)
	return dst, nil
}

func (t *chunkTable) find(dst []uint64, r *tableRun, digest *sum) ([]uint64, error) {
	if !r.mayHold(digest) {
		return dst, nil
	}
	key := binary.BigEndian.Uint64(digest[:])
	block, _ := slices.BinarySearch(r.fences, key)
	if block > 0 {
		block-- // the one before may end with it
	}
	for ; block < len(r.fences) && r.fences[block] <= key; block++ {
		n := min(tableBlock, r.n-block*tableBlock)
		b := t.buf[:n*tableRecord]
		if _, err := r.file.ReadAt(b, int64(block)*int64(len(t.buf))); err != nil {
			return nil, fmt.Errorf("reading the chunk table: %w", err)
		}
		for ; len(b) > 0; b = b[tableRecord:] {
			switch bytes.Compare(b[:sha256.Size], digest[:]) {
			case 0:
				dst = append(dst, binary.BigEndian.Uint64(b[sha256.Size:]))
			case 1:
				return dst, nil
			}
		}
	}
	return dst, nil
}

// probes calls f with the bits of a digest in a filter of that many words.
func probes(digest []byte, words int, f func(word int, bit uint64) bool) bool {
	for i := range 4 {
		h := binary.LittleEndian.Uint64(digest[i*8:])
		if !f(int((h>>6)%uint64(words)), 1<<(h&63)) {
			return false
		}
	}
	return true
}

func (r *tableRun) mayHold(digest *sum) bool {
	return probes(digest[:], len(r.filter), func(w int, bit uint64) bool { return r.filter[w]&bit != 0 })
}

// spill writes what is in memory to a run and merges runs.
func (t *chunkTable) spill() error {
	slices.SortFunc(t.recs, func(a, b tableEntry) int {
		return cmp.Or(bytes.Compare(a.digest[:], b.digest[:]), cmp.Compare(a.value, b.value))
	})
	w, err := newRunWriter(t.dir, len(t.recs))
	if err != nil {
		return err
	}
	var rec [tableRecord]byte
	for i := range t.recs {
		copy(rec[:], t.recs[i].digest[:])
		binary.BigEndian.PutUint64(rec[sha256.Size:], t.recs[i].value)
		if err := w.add(rec[:]); err != nil {
			return err
		}
	}
	run, err := w.finish()
	if err != nil {
		return err
	}
	clear(t.mem)
	t.recs = t.recs[:0]
	t.runs = append(t.runs, run)

	for n := len(t.runs); n >= tableFanout; n = len(t.runs) {
		last := t.runs[n-tableFanout:]
		if last[0].n > 2*last[len(last)-1].n {
			break
		}
		merged, err := mergeRuns(t.dir, last)
		if err != nil {
			return err
		}
		t.runs = append(t.runs[:n-tableFanout], merged)
	}
	return nil
}

func (t *chunkTable) close() error {
	var errs []error
	for _, r := range t.runs {
		errs = append(errs, removeTemp(r.file))
	}
	t.runs, t.mem, t.recs = nil, nil, nil
	return errors.Join(errs...)
}

type runWriter struct {
	run *tableRun
	w   *bufio.Writer
}

// newRunWriter writes a run of at most n records.
func newRunWriter(dir string, n int) (*runWriter, error) {
	f, err := tempFile(dir)
	if err != nil {
		return nil, err
	}
	return &runWriter{&tableRun{file: f, filter: make([]uint64, n/8+1)}, bufio.NewWriterSize(f, 1<<18)}, nil
}

func (w *runWriter) add(rec []byte) error {
	r := w.run
	if r.n%tableBlock == 0 {
		r.fences = append(r.fences, binary.BigEndian.Uint64(rec))
	}
	probes(rec, len(r.filter), func(i int, bit uint64) bool { r.filter[i] |= bit; return true })
	r.n++
	_, err := w.w.Write(rec)
	return err
}

func (w *runWriter) finish() (*tableRun, error) {
	if err := w.w.Flush(); err != nil {
		_ = removeTemp(w.run.file)
		return nil, fmt.Errorf("writing the chunk table: %w", err)
	}
	return w.run, nil
}

// mergeRuns merges runs into one and removes them.
func mergeRuns(dir string, runs []*tableRun) (*tableRun, error) {
	n := 0
	var inputs []io.Reader
	for _, r := range runs {
		n += r.n
		inputs = append(inputs, bufio.NewReaderSize(io.NewSectionReader(r.file, 0, int64(r.n)*tableRecord), 1<<18))
	}
	w, err := newRunWriter(dir, n)
	if err != nil {
		return nil, err
	}
	if err := mergeRecords(inputs, tableRecord, w.add); err != nil {
		_ = removeTemp(w.run.file)
		return nil, fmt.Errorf("merging the chunk table: %w", err)
	}
	out, err := w.finish()
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		if err := removeTemp(r.file); err != nil {
			return nil, err
		}
	}
	return out, nil
}
