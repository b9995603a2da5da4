// Package hostfile asks the host about the file or block device that holds a
// disk: its size, its holes, and ranges of zeros without writing them all.
package hostfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// Size is the size of a regular file or block device in bytes.
func Size(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Mode().IsRegular() {
		return info.Size(), nil
	}
	if !IsBlockDevice(info) {
		return 0, fmt.Errorf("opening %s: neither a regular file nor a block device", f.Name())
	}
	return deviceSize(f)
}

// IsBlockDevice reports whether info is that of a block device.
func IsBlockDevice(info fs.FileInfo) bool {
	return info.Mode()&fs.ModeDevice != 0 && info.Mode()&fs.ModeCharDevice == 0
}

// SectorSize is the size of a logical sector of a block device in bytes, 0 if f
// is none or cannot be asked.
func SectorSize(f *os.File) int {
	info, err := f.Stat()
	if err != nil || !IsBlockDevice(info) {
		return 0
	}
	n, err := sectorSize(f)
	if err != nil {
		return 0
	}
	return n
}

// NextData is the first range at or after off, below size, that the host does
// not know to be a hole. It is safe for concurrent use. A length of 0 means
// that there is none. What cannot be asked is data.
func NextData(f *os.File, off, size int64) (start, length int64, err error) {
	if off >= size {
		return size, 0, nil
	}
	start, end, err := seekData(f, off)
	switch {
	case errors.Is(err, errNoData):
		return size, 0, nil
	case errors.Is(err, errors.ErrUnsupported):
		return off, size - off, nil
	case err != nil:
		return 0, 0, fmt.Errorf("finding data of %s at %d: %w", f.Name(), off, err)
	}
	// A file that changes meanwhile can give a hole that ends before it starts.
	start, end = min(max(start, off), size), min(end, size)
	if end <= start {
		return start, size - start, nil
	}
	return start, end - start, nil
}

// errNoData is what seekData returns after the last data.
var errNoData = errors.New("no data")

// Zero makes n bytes at off read as zeros: by a hole where the host can, else
// by writing them. The range may lie beyond the end of a regular file, which
// does not grow then.
func Zero(f *os.File, off, n int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().IsRegular() {
		n = min(n, info.Size()-off)
	}
	if n <= 0 {
		return nil
	}
	if err := zero(f, info, off, n); !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return writeZeros(f, off, n)
}

var zeros [64 << 10]byte

func writeZeros(w io.WriterAt, off, n int64) error {
	for n > 0 {
		m, err := w.WriteAt(zeros[:min(n, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off, n = off+int64(m), n-int64(m)
	}
	return nil
}
