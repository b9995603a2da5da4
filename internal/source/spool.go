package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/davit-oci/davit/internal/space"
	"github.com/davit-oci/davit/internal/sparse"
)

const (
	spoolStep = 1 << 20

	// After how many bytes a file system is asked what is free. What is smaller
	// than that may fill it.
	spaceStep = 64 << 20
)

// A LimitError says that what comes out of a compressed source is larger than
// allowed.
type LimitError struct {
	Limit int64 // in bytes
}

func (e *LimitError) Error() string { return fmt.Sprintf("more than %d bytes", e.Limit) }

// spool writes r to a new file in dir, whose path it returns. Zeros become holes.
// More than limit bytes are a [LimitError].
func spool(ctx context.Context, dir string, r io.Reader, limit int64) (path string, err error) {
	// The name says no format: the file is no descriptor of VMDK extents.
	f, err := os.CreateTemp(dir, "spooled-")
	if err != nil {
		return "", err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	s := &spoolFile{File: f, free: space.Free, unasked: spaceStep}
	buf := make([]byte, spoolStep)
	for off := int64(0); ctx.Err() == nil; {
		n, err := readFull(r, buf)
		if int64(n) > limit-off {
			return "", &LimitError{limit}
		}
		if werr := sparse.Write(s, buf[:n], off); werr != nil {
			return "", werr
		}
		off += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			if err := f.Truncate(off); err != nil {
				return "", err
			}
			return f.Name(), f.Close()
		case err != nil:
			return "", err
		}
	}
	return "", context.Cause(ctx)
}

// readFull reads until buf is full or r ends. Unlike [io.ReadFull] it does not
// change the error of r.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// A spoolFile leaves some space of its file system to others.
type spoolFile struct {
	*os.File
	free    func(path string) (n int64, known bool)
	unasked int64 // how much is written before free is asked
}

func (f *spoolFile) WriteAt(p []byte, off int64) (int, error) {
	if f.unasked -= int64(len(p)); f.unasked < 0 {
		if n, known := f.free(f.Name()); known && n-int64(len(p)) < space.Left {
			return 0, fmt.Errorf("writing %s: %w but for %d bytes", f.Name(), space.ErrFull, n)
		}
		f.unasked = spaceStep
	}
	return f.File.WriteAt(p, off)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Counting returns a reader that calls count with the number of bytes of each read from r.
func Counting(r io.Reader, count func(int64)) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		count(int64(n))
		return n, err
	})
}

// UntilDone returns a reader that reads from r until ctx ends. It is for files,
// whose reads end.
func UntilDone(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return r.Read(p)
	})
}

// Interruptible reads from r until ctx ends. A read from a pipe cannot be
// cancelled: its goroutine stays behind, and the process ends.
func Interruptible(ctx context.Context, r io.Reader) io.Reader {
	type result struct {
		n   int
		err error
	}
	results := make(chan result, 1)
	var buf []byte
	return readerFunc(func(p []byte) (int, error) {
		if len(buf) < len(p) {
			buf = make([]byte, len(p))
		}
		go func(buf []byte) {
			n, err := r.Read(buf)
			results <- result{n, err}
		}(buf[:len(p)])
		select {
		case got := <-results:
			return copy(p, buf[:got.n]), got.err
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	})
}
