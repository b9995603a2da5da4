// Package raw is the format without a format: byte n of the file is byte n of
// the disk.
package raw

import (
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/davit-oci/davit/disk/internal/hostfile"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// An Image is a regular file or a block device, read as it is.
type Image struct {
	f    *os.File
	size int64
}

// Open returns the content of f, with the size that f has now.
func Open(f *os.File) (*Image, error) {
	size, err := hostfile.Size(f)
	if err != nil {
		return nil, err
	}
	return &Image{f, size}, nil
}

// Size is the size that the file had when it was opened, in bytes.
func (i *Image) Size() int64 { return i.size }

// SectorSize is the size of a logical sector of a block device in bytes. A
// regular file has none, which is 0, as is what cannot be asked.
func (i *Image) SectorSize() int { return hostfile.SectorSize(i.f) }

// ReadAt reads the file.
func (i *Image) ReadAt(p []byte, off int64) (int, error) {
	return virtual.ReadAt(p, off, i.size, func(p []byte, off int64) error {
		n, err := i.f.ReadAt(p, off)
		if n == len(p) {
			return nil
		}
		if err == io.EOF {
			return io.ErrUnexpectedEOF // somebody has cut the file short
		}
		return err
	})
}

// NextExtent asks the file system for holes.
func (i *Image) NextExtent(off int64) (virtual.Extent, error) {
	if off < 0 {
		return virtual.Extent{}, fmt.Errorf("finding data at offset %d: negative offset", off)
	}
	start, n, err := hostfile.NextData(i.f, off, i.size)
	return virtual.Extent{Offset: start, Length: n}, err
}

// A Writer writes a raw image to a regular file or a block device. It also
// reads what is there. It is safe for concurrent use.
type Writer struct {
	Image
	virtual.WriteState
}

// NewWriter gives a regular file its size and zeroes all that is not in data;
// in a new file that costs nothing. A block device must be large enough; what
// it has beyond size stays.
func NewWriter(f *os.File, size int64, data iter.Seq2[virtual.Extent, error]) (*Writer, error) {
	if err := hostfile.MarkSparse(f); err != nil {
		return nil, err
	}
	return NewDenseWriter(f, size, data)
}

// NewDenseWriter is NewWriter for a file that must not be marked sparse, which
// matters on Windows: Hyper-V opens no VHD that is.
func NewDenseWriter(f *os.File, size int64, data iter.Seq2[virtual.Extent, error]) (*Writer, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !hostfile.IsBlockDevice(info) {
		if err := f.Truncate(size); err != nil {
			return nil, err
		}
	}

	zeroFrom := int64(0)
	stale := size // end of what may hold other than zeros
	if info.Mode().IsRegular() {
		stale = min(info.Size(), size)
	}
	zeroTo := func(off int64) error {
		off = min(off, stale)
		if off <= zeroFrom {
			return nil
		}
		return hostfile.Zero(f, zeroFrom, off-zeroFrom)
	}
	for e, err := range virtual.Ascending(data, size) {
		if err != nil {
			return nil, err
		}
		if err := zeroTo(e.Offset); err != nil {
			return nil, err
		}
		zeroFrom = e.End()
	}
	if err := zeroTo(size); err != nil {
		return nil, err
	}
	w := &Writer{Image: Image{f, size}}
	w.Start(info.Mode().IsRegular() && info.Size() == 0)
	return w, nil
}

// WriteAt writes into the file.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	if err := virtual.CheckWrite(len(p), off, w.size); err != nil {
		return 0, err
	}
	if err := w.Writing(len(p)); err != nil {
		return 0, err
	}
	return w.f.WriteAt(p, off)
}

// Close has nothing to do: the image is whole from the start.
func (w *Writer) Close() error { return w.Closing() }
