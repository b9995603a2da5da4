package registry

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock takes f's lock, which ends with the process or when f is closed. False: somebody has it, maybe through another open file of
// this same process. The locked byte is far behind any content: here locks keep others from reading.
func tryLock(f *os.File) (bool, error) {
	at := &windows.Overlapped{Offset: 0xffffffff, OffsetHigh: 0x7fffffff}
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, at)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION), errors.Is(err, windows.ERROR_IO_PENDING):
		return false, nil
	}
	return false, fmt.Errorf("locking %s: %w", f.Name(), err)
}

// syncDir: NTFS journals renames, and directories cannot be flushed.
func syncDir(string) error { return nil }

// renameWhileOpen: a file that is open cannot be renamed.
const renameWhileOpen = false
