package raw

import (
	"fmt"
	"io"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// A StreamWriter writes a raw image to something that cannot seek.
type StreamWriter struct {
	w         io.Writer
	off, size int64
	err       error // of w: after it nobody knows what w has got
}

// NewStreamWriter starts a stream of size bytes.
func NewStreamWriter(w io.Writer, size int64) *StreamWriter {
	return &StreamWriter{w: w, size: size}
}

// WriteAt writes p, and zeros before it.
func (s *StreamWriter) WriteAt(p []byte, off int64) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	if err := virtual.CheckWrite(len(p), off, s.size); err != nil {
		return 0, err
	}
	if off < s.off {
		return 0, fmt.Errorf("writing at %d after %d: a stream is written in ascending order", off, s.off)
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

// Close writes the zeros after the last byte that was written.
func (s *StreamWriter) Close() error {
	if s.err != nil {
		return s.err
	}
	return s.fillTo(s.size)
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
