package wholefile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/davit-oci/davit/internal/own"
)

// Lock takes the lock that is the file at path. It waits for it until ctx ends.
// release gives the lock back and removes the file. A file that is no lock of
// this user is an [own.Error], and is not waited for: nobody may ever remove it.
func Lock(ctx context.Context, path string) (release func(), err error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		f, err := own.OpenOrCreate(path, os.O_RDWR, 0o600)
		if foreign := (*own.Error)(nil); errors.As(err, &foreign) {
			return nil, fmt.Errorf("locking: %w: it is no lock of this user: remove it, unless another davit is at work here", err)
		}
		if err != nil {
			return nil, fmt.Errorf("locking: %w", err)
		}
		ok, err := TryLock(f)
		if err != nil {
			f.Close()
			return nil, err
		}
		// Whoever had it before may have removed the file between our opening and locking it; then ours is a lock on nothing.
		if ok && IsNamed(f, path) {
			return func() {
				_ = RemoveLocked(f, path)
			}, nil
		}
		f.Close()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("waiting for the lock %s: %w", path, context.Cause(ctx))
		}
	}
}

// RemoveLocked removes the file at path, which f has locked, and closes f. Where
// an open file cannot be removed, it is closed first: then the removal fails,
// and should, if somebody else has opened the file.
func RemoveLocked(f *os.File, path string) error {
	if renameWhileOpen {
		err := os.Remove(path)
		return errors.Join(err, f.Close())
	}
	err := f.Close()
	return errors.Join(err, os.Remove(path))
}

// IsNamed says whether path still names f, and not by way of a link.
func IsNamed(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}
