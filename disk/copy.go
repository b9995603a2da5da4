package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/davit-oci/davit/internal/sparse"
)

// CopyOptions are the options of [Copy]. The zero value is right.
type CopyOptions struct {
	// Jobs is how many pieces of 1 MiB are read at the same time. The default,
	// and the maximum, is the number of CPUs that Go uses, plus one. For a Writer
	// that is [InOrder] it is always one.
	Jobs int

	// Progress, if it is not nil, is called with the number of bytes of each
	// piece that was read. Calls can be concurrent.
	Progress func(bytes int64)
}

// copyStep is what is read and written at a time, in bytes. It is a multiple of
// [sparse.Unit] and of all clusters but qcow2's largest.
const copyStep = 1 << 20

// Copy writes the [Extents] of r to w, in the order that w needs. It leaves out
// zeros, from 64 KiB on, if w reads as zeros where it was not written. That is
// so if w is [InOrder], or has a method Blank() bool that returns true, as the
// Writers of new files do.
//
// Copy does not close w. If it fails, it calls [Abort]. Errors are those of r, of
// w and of ctx.
func Copy(ctx context.Context, w Writer, r Reader, o CopyOptions) error {
	err := copyExtents(ctx, w, r, o)
	if err != nil {
		Abort(w)
	}
	return err
}

func copyExtents(ctx context.Context, w Writer, r Reader, o CopyOptions) error {
	write := sparse.Write
	if !InOrder(w) && !blank(w) {
		write = func(w io.WriterAt, p []byte, off int64) error {
			_, err := w.WriteAt(p, off)
			return err
		}
	}
	// A piece that waits for the disk is enough beside one for each CPU.
	jobs := runtime.GOMAXPROCS(0) + 1
	switch {
	case InOrder(w):
		jobs = 1
	case o.Jobs > 0:
		jobs = min(jobs, o.Jobs)
	}

	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(jobs)
	buffers := make(chan []byte, jobs)
	for range jobs {
		buffers <- nil
	}
	// Linux lets one write into a file at a time; the others would wait for it
	// by spinning, a quarter of all CPU time.
	var writing sync.Mutex
	for e, err := range Extents(r) {
		if err != nil {
			group.Go(func() error { return err })
			break
		}
		for off := e.Offset; off < e.End() && groupCtx.Err() == nil; {
			// To the next multiple, so that pieces share no cluster.
			at, n := off, min(e.End(), off-off%copyStep+copyStep)-off
			group.Go(func() error {
				buf := <-buffers
				if buf == nil {
					buf = make([]byte, copyStep)
				}
				defer func() { buffers <- buf }()
				if got, err := r.ReadAt(buf[:n], at); int64(got) < n {
					return fmt.Errorf("reading %d bytes at %d: %w", n, at, err)
				}
				if o.Progress != nil {
					o.Progress(n)
				}
				writing.Lock()
				defer writing.Unlock()
				return write(w, buf[:n], at)
			})
			off += n
		}
	}
	return errors.Join(group.Wait(), ctx.Err())
}

// blank reports whether all of w is known to read as zeros.
func blank(w Writer) bool {
	b, ok := w.(interface{ Blank() bool })
	return ok && b.Blank()
}
