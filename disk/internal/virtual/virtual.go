// Package virtual has the words that every format of package disk speaks: the
// content of a virtual disk, a range of it, and the reasons to refuse a file.
// Package disk exports them under the same names.
package virtual

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
)

// The reasons to refuse a file; package disk says what they mean.
var (
	ErrBackingFile     = errors.New("image needs a backing file")
	ErrUnknownSnapshot = errors.New("unknown snapshot")
	ErrUnsupported     = errors.New("unsupported image")
	ErrCorrupt         = errors.New("corrupt image")
	ErrEncrypted       = errors.New("encryption")
)

// The reasons of a Writer to refuse; package disk says what they mean.
var (
	ErrOutOfOrder = errors.New("out of order")
	ErrAborted    = errors.New("writing of the image was aborted")
)

// OutOfOrder returns an error that is [ErrOutOfOrder]: a write at off came
// after one that ended at end.
func OutOfOrder(off, end int64, what string) error {
	return fmt.Errorf("writing at %d after %d: %w: %s is written in ascending order", off, end, ErrOutOfOrder, what)
}

// Corrupt returns an error that is [ErrCorrupt] and says what is wrong.
func Corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrCorrupt, fmt.Errorf(format, args...))
}

// Unsupported returns an error that is [ErrUnsupported] and says what is.
func Unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUnsupported, fmt.Errorf(format, args...))
}

// A Reader is the content of a virtual disk, as its guest sees it.
type Reader interface {
	io.ReaderAt
	Size() int64
}

// An Extent is a range of bytes of a virtual disk.
type Extent struct{ Offset, Length int64 }

// End is the first byte after e.
func (e Extent) End() int64 { return e.Offset + e.Length }

// NextExtent is disk.NextExtent.
func NextExtent(r Reader, off int64) (Extent, error) {
	if m, ok := r.(interface {
		NextExtent(off int64) (Extent, error)
	}); ok {
		return m.NextExtent(off)
	}
	if off < 0 {
		return Extent{}, fmt.Errorf("finding data at offset %d: negative offset", off)
	}
	if off >= r.Size() {
		return Extent{}, nil
	}
	return Extent{off, r.Size() - off}, nil
}

// Ascending passes on the extents of data and ends with an error at the first
// that is empty, not after the one before it, or not inside a disk of size
// bytes. Extents may touch. A nil data has no extents.
func Ascending(data iter.Seq2[Extent, error], size int64) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		if data == nil {
			return
		}
		var end int64
		for e, err := range data {
			switch {
			case err != nil:
			case e.Offset < end || e.Length <= 0 || e.Offset > size || e.Length > size-e.Offset:
				err = fmt.Errorf("data extent of %d bytes at %d: not in ascending order inside a disk of %d bytes, or empty",
					e.Length, e.Offset, size)
			}
			if err != nil {
				yield(Extent{}, err)
				return
			}
			if !yield(e, nil) {
				return
			}
			end = e.End()
		}
	}
}

// CheckWrite refuses a write of n bytes at off that is not inside a disk of
// size bytes.
func CheckWrite(n int, off, size int64) error {
	if off < 0 || off > size || int64(n) > size-off {
		return fmt.Errorf("writing %d bytes at %d: outside of the disk of %d bytes", n, off, size)
	}
	return nil
}

// A WriteState is what a Writer that takes any order remembers of its calls.
// The Writer embeds it. It is safe for concurrent use.
type WriteState struct {
	aborted atomic.Bool
	written atomic.Bool // or there was something from the start
}

// Start says whether the whole disk reads as zeros now. It is called before
// the Writer is used.
func (s *WriteState) Start(blank bool) { s.written.Store(!blank) }

// Abort is what disk.Abort calls.
func (s *WriteState) Abort() { s.aborted.Store(true) }

// Blank reports whether the whole disk still reads as zeros.
func (s *WriteState) Blank() bool { return !s.written.Load() }

// Writing is called before each write, with how many bytes it has.
func (s *WriteState) Writing(n int) error {
	if n > 0 && !s.written.Load() { // a store each time would cost the other writers their cache line
		s.written.Store(true)
	}
	return s.Closing()
}

// Closing is called when the Writer is closed. The error is [ErrAborted].
func (s *WriteState) Closing() error {
	if s.aborted.Load() {
		return ErrAborted
	}
	return nil
}

// ReadAt is an [io.ReaderAt] over a disk of size bytes: fill reads ranges that
// lie inside of the disk and are not empty.
func ReadAt(p []byte, off, size int64, fill func(p []byte, off int64) error) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at offset %d: negative offset", off)
	}
	if off >= size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	var eof error
	if int64(len(p)) > size-off {
		p, eof = p[:size-off], io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := fill(p, off); err != nil {
		return 0, err
	}
	return len(p), eof
}

// ReadZeroExtended reads from r, and zeros where r has ended.
func ReadZeroExtended(r Reader, p []byte, off int64) error {
	inside := p[:max(0, min(int64(len(p)), r.Size()-off))]
	clear(p[len(inside):])
	if n, err := r.ReadAt(inside, off); n < len(inside) {
		return err
	}
	return nil
}

// ReadHead reads the first n bytes of a file, or all if it is shorter.
func ReadHead(file Reader, n int64) ([]byte, error) {
	return ReadPart(file, "header", 0, min(n, file.Size()))
}

// ReadPart reads n bytes at off, all of which must be in the file. Errors call
// them what. N is bounded by who calls.
func ReadPart(file Reader, what string, off, n int64) ([]byte, error) {
	if err := Inside(file, what, off, n); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if n, err := file.ReadAt(b, off); n < len(b) {
		return nil, fmt.Errorf("reading %s: %w", what, err)
	}
	return b, nil
}

// Inside refuses n bytes at off that are not all in the file.
func Inside(file Reader, what string, off, n int64) error {
	if size := file.Size(); off < 0 || off > size || n > size-off {
		return Corrupt("%s of %d bytes at %#x: the file ends at %#x", what, n, uint64(off), size)
	}
	return nil
}

// DivUp is n/by, rounded up; neither is negative.
func DivUp(n, by int64) int64 { return n/by + (n%by+by-1)/by }

// RoundUp is n or the next multiple of to.
func RoundUp(n, to int64) int64 { return DivUp(n, to) * to }

// A Folder opens the other files of an image that needs more than one. It
// decides what may be opened; what it has opened is closed with the image.
//
// Names are as the image has them, with slashes. Errors are [ErrBackingFile] if
// a file may not be opened, and [io/fs.ErrNotExist] if it is not there.
type Folder interface {
	// Parent opens the image file that this one continues in, and the Folder
	// for the names in that one.
	Parent(name string) (Reader, Folder, error)

	// Extent opens a file that holds a part of this image itself.
	Extent(name string) (Reader, error)

	// NamesIn are the names of the files in a folder, sorted, for a format that
	// knows its parent by something else. "." is where this image lies.
	NamesIn(dir string) ([]string, error)
}

// Forget closes a file that f has opened as a parent, and that is another one.
// A Folder that has no such method keeps it open.
func Forget(f Folder, file Reader) {
	if f, ok := f.(interface{ Forget(file Reader) }); ok {
		f.Forget(file)
	}
}
