package wholefile

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// TryLock takes the lock of f, which ends with the process or when f is closed.
// It returns false if somebody else has it, also by another open file of this
// process. The locked byte is far behind any content: here locks keep others
// from reading.
func TryLock(f *os.File) (bool, error) {
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

// syncDir closes the folder: NTFS journals renames, and folders cannot be synced.
// It is called with the result of an Open.
func syncDir(d *os.File, err error) error {
	if err == nil {
		d.Close()
	}
	return nil
}

// renameWhileOpen says that an open file can be renamed, with its lock.
const renameWhileOpen = false
