package raw

import (
	"fmt"
	"iter"
	"os"
	"sync"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// headSize is how much of a device is written last, in bytes. Partition tables,
// and what file systems and volume managers are known by, begin in there.
const headSize = 1 << 20

// A DeviceWriter writes a raw image to a block device. A device has no name that
// it could get at the end, and looks like a disk as soon as it begins like one.
// So its beginning is kept in memory until Close. It is safe for concurrent use.
type DeviceWriter struct {
	*Writer
	mu   sync.Mutex
	head []byte // the disk begins with it
}

// NewDeviceWriter is [NewWriter] for a block device.
func NewDeviceWriter(f *os.File, size int64, data iter.Seq2[virtual.Extent, error]) (*DeviceWriter, error) {
	w, err := NewWriter(f, size, data)
	if err != nil {
		return nil, err
	}
	return newDeviceWriter(w)
}

func newDeviceWriter(w *Writer) (*DeviceWriter, error) {
	head := make([]byte, min(headSize, w.size))
	if n, err := w.ReadAt(head, 0); n < len(head) {
		return nil, fmt.Errorf("reading the first %d bytes: %w", len(head), err)
	}
	return &DeviceWriter{Writer: w, head: head}, nil
}

// WriteAt writes to the device what comes after the head.
func (w *DeviceWriter) WriteAt(p []byte, off int64) (int, error) {
	if err := virtual.CheckWrite(len(p), off, w.size); err != nil {
		return 0, err
	}
	if err := w.Writing(len(p)); err != nil {
		return 0, err
	}
	n := 0
	if off < int64(len(w.head)) {
		w.mu.Lock()
		n = copy(w.head[off:], p)
		w.mu.Unlock()
		if n == len(p) {
			return n, nil
		}
	}
	m, err := w.Writer.WriteAt(p[n:], off+int64(n))
	return n + m, err
}

// ReadAt reads what is going to be on the device.
func (w *DeviceWriter) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.Writer.ReadAt(p, off)
	if n > 0 && off < int64(len(w.head)) {
		w.mu.Lock()
		defer w.mu.Unlock()
		copy(p[:n], w.head[off:])
	}
	return n, err
}

// Close writes the head.
func (w *DeviceWriter) Close() error {
	if err := w.Closing(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.f.WriteAt(w.head, 0)
	return err
}
