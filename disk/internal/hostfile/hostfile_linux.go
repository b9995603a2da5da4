package hostfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

func deviceSize(f *os.File) (int64, error) {
	return lseek(f, 0, unix.SEEK_END)
}

func seekData(f *os.File, off int64) (start, end int64, err error) {
	start, err = lseek(f, off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return 0, 0, errNoData
	}
	if err != nil {
		return 0, 0, unsupported(err)
	}
	end, err = lseek(f, start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, unsupported(err)
	}
	return start, end, nil
}

// lseek does not use f's position for its result, and all reads and writes of
// this module name their offset, so nobody minds that it moves the position.
func lseek(f *os.File, off int64, whence int) (n int64, err error) {
	control(f, &err, func(fd int) {
		n, err = unix.Seek(fd, off, whence)
	})
	return n, err
}

// zeroStep bounds one BLKZEROOUT, so that a device without a fast way to zero
// can be interrupted and does not trip the kernel's hung task timer.
const zeroStep = 64 << 20

func zero(f *os.File, info fs.FileInfo, off, n int64) error {
	if !IsBlockDevice(info) {
		var err error
		control(f, &err, func(fd int) {
			err = unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
		})
		return unsupported(err)
	}

	// BLKZEROOUT guarantees zeros; discarded blocks may read as anything. It
	// takes whole logical blocks, so the ends are written.
	sector, err := sectorSize(f)
	if err != nil {
		return err
	}
	block := int64(sector)
	if head := min(n, -off&(block-1)); head > 0 {
		if err := writeZeros(f, off, head); err != nil {
			return err
		}
		off, n = off+head, n-head
	}
	for n >= block {
		step := min(n, zeroStep) &^ (block - 1)
		span := [2]uint64{uint64(off), uint64(step)}
		var errno unix.Errno
		control(f, &err, func(fd int) {
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKZEROOUT, uintptr(unsafe.Pointer(&span)))
		})
		if err != nil {
			return err
		}
		if errno != 0 {
			return fmt.Errorf("zeroing %d bytes of %s at %d: %w", step, f.Name(), off, unsupported(errno))
		}
		off, n = off+step, n-step
	}
	return writeZeros(f, off, n)
}

func sectorSize(f *os.File) (int, error) {
	var n int
	var err error
	control(f, &err, func(fd int) {
		n, err = unix.IoctlGetInt(fd, unix.BLKSSZGET)
	})
	if err != nil {
		return 0, fmt.Errorf("asking %s for its sector size: %w", f.Name(), err)
	}
	if n <= 0 || n&(n-1) != 0 {
		return 0, fmt.Errorf("asking %s for its sector size: got %d", f.Name(), n)
	}
	return n, nil
}

// control runs do with f's descriptor, which cannot be closed meanwhile.
func control(f *os.File, err *error, do func(fd int)) {
	c, e := f.SyscallConn()
	if e == nil {
		e = c.Control(func(fd uintptr) { do(int(fd)) })
	}
	if e != nil {
		*err = e
	}
}

// unsupported folds the ways in which kernels and file systems say that they
// cannot do it into [errors.ErrUnsupported].
func unsupported(err error) error {
	for _, e := range []error{unix.EINVAL, unix.EOPNOTSUPP, unix.ENOSYS, unix.ENOTTY, unix.ESPIPE} {
		if errors.Is(err, e) {
			return errors.ErrUnsupported
		}
	}
	return err
}
