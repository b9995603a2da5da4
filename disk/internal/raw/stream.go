package raw

import (
	"io"
	"os"
	"sync"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// A StreamWriter writes a raw image to something that cannot seek. Calls can
// be concurrent, but only one order of them is right.
type StreamWriter struct {
	mu        sync.Mutex
	w         io.Writer
	off, size int64
	err       error // after it nothing goes to w
}

// NewStreamWriter starts a stream of size bytes.
func NewStreamWriter(w io.Writer, size int64) *StreamWriter {
	return &StreamWriter{w: w, size: size}
}

// InOrder is what disk.InOrder calls.
func (s *StreamWriter) InOrder() bool { return true }

// WriteAt writes p, and zeros before it.
func (s *StreamWriter) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return 0, s.err
	}
	if err := virtual.CheckWrite(len(p), off, s.size); err != nil {
		return 0, err
	}
	if off < s.off {
		s.err = virtual.OutOfOrder(off, s.off, "a stream")
		return 0, s.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.fillTo(off); err != nil {
		return 0, err
	}
	n, err := s.w.Write(p)
	s.off, s.err = s.off+int64(n), err
	return n, err
}

// Abort is what disk.Abort calls. The stream ends where it is: zeros to its end
// would make it look like a disk that has them.
func (s *StreamWriter) Abort() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = virtual.ErrAborted
	}
}

// Close writes the zeros after the last byte that was written.
func (s *StreamWriter) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if err := s.fillTo(s.size); err != nil {
		return err
	}
	s.err = os.ErrClosed
	return nil
}

var zeros [256 << 10]byte

func (s *StreamWriter) fillTo(off int64) error {
	for s.off < off && s.err == nil {
		var n int
		n, s.err = s.w.Write(zeros[:min(off-s.off, int64(len(zeros)))])
		s.off += int64(n)
	}
	return s.err
}
