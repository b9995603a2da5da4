// Package gather cuts a disk that is written in ascending order into blocks and
// compresses them, several at the same time.
package gather

import (
	"bytes"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// perJob is how many blocks are gathered for each job before they are
// compressed: enough that jobs do not wait long for the last of them.
const perJob = 16

// A Compress appends the compressed form of src to dst.
type Compress func(dst, src []byte) ([]byte, error)

// Options are all needed, but for Jobs.
type Options struct {
	Size      int64 // of the disk in bytes
	BlockSize int64 // in bytes; the last block of a disk is filled up with zeros

	// NewCompress makes a Compress for each of the jobs. Below 1, Jobs is one
	// per CPU that Go uses.
	NewCompress func() (Compress, error)
	Jobs        int

	// Append gets each block that is not all zeros, in ascending order, one at
	// a time. It may keep neither plain nor packed.
	Append func(block int64, plain, packed []byte) error
}

// A Writer gathers blocks. Calls can be concurrent, but only one order of
// them is right.
type Writer struct {
	mu      sync.Mutex
	o       Options
	jobs    []Compress
	written int64    // end of the last WriteAt
	batch   []*block // to compress, ascending; the last may get more
	free    []*block // can be used again
	zeros   []byte   // a block of them
	err     error    // after it nothing is appended
}

type block struct {
	index  int64
	plain  []byte
	packed []byte
	zero   bool
	err    error
}

// New returns a Writer that has nothing yet.
func New(o Options) (*Writer, error) {
	w := &Writer{o: o, zeros: make([]byte, o.BlockSize)}
	if o.Jobs < 1 {
		o.Jobs = runtime.GOMAXPROCS(0)
	}
	for range o.Jobs {
		compress, err := o.NewCompress()
		if err != nil {
			return nil, err
		}
		w.jobs = append(w.jobs, compress)
	}
	return w, nil
}

// InOrder is what disk.InOrder calls.
func (w *Writer) InOrder() bool { return true }

// WriteAt takes p, which it does not keep. What is never written is zeros.
// After [virtual.ErrOutOfOrder] the writer is of no use: a caller that goes
// back may have left out what it cannot bring any more.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	if err := virtual.CheckWrite(len(p), off, w.o.Size); err != nil {
		return 0, err
	}
	if off < w.written {
		w.err = virtual.OutOfOrder(off, w.written, "a compressed image")
		return 0, w.err
	}
	n := len(p)
	for len(p) > 0 {
		b, err := w.last(off / w.o.BlockSize)
		if err != nil {
			return n - len(p), err
		}
		m := copy(b.plain[off%w.o.BlockSize:], p)
		p, off = p[m:], off+int64(m)
		w.written = off
	}
	return n, nil
}

// last returns the block that is gathered last, zeros where it has got nothing
// yet.
func (w *Writer) last(index int64) (*block, error) {
	if n := len(w.batch); n > 0 && w.batch[n-1].index == index {
		return w.batch[n-1], nil
	}
	if len(w.batch) == perJob*len(w.jobs) {
		if err := w.flush(); err != nil {
			return nil, err
		}
	}
	b := &block{}
	if n := len(w.free); n > 0 {
		b, w.free = w.free[n-1], w.free[:n-1]
		clear(b.plain)
	} else {
		b.plain = make([]byte, w.o.BlockSize)
	}
	b.index = index
	w.batch = append(w.batch, b)
	return b, nil
}

// flush compresses the blocks that were gathered, all at the same time, and
// appends them, one after another.
func (w *Writer) flush() error {
	if w.err != nil {
		return w.err
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for _, compress := range w.jobs {
		wg.Go(func() {
			for n := next.Add(1) - 1; n < int64(len(w.batch)); n = next.Add(1) - 1 {
				b := w.batch[n]
				if b.zero = bytes.Equal(b.plain, w.zeros); !b.zero {
					b.packed, b.err = compress(b.packed[:0], b.plain)
				}
			}
		})
	}
	wg.Wait()
	for _, b := range w.batch {
		if w.err == nil && !b.zero {
			if w.err = b.err; w.err == nil {
				w.err = w.o.Append(b.index, b.plain, b.packed)
			}
		}
	}
	w.batch, w.free = w.batch[:0], append(w.free, w.batch...)
	return w.err
}

// Abort is what disk.Abort calls.
func (w *Writer) Abort() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = virtual.ErrAborted
	}
}

// Close compresses and appends what is left. Nothing can be written after it.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.flush(); err != nil {
		return err
	}
	w.err = os.ErrClosed
	return nil
}
