package guest

import (
	"errors"
	"fmt"
	"iter"

	"github.com/davit-oci/davit/disk"
)

// ErrNotClean: a file system has a journal to replay, was not unmounted, or
// contradicts itself, so that what it says is free may not be.
var ErrNotClean = errors.New("file system is not clean")

// errUnknown: a file system has something about it that its opener does not
// know. It is left as it is; the message after "unknown: " says what it has.
var errUnknown = errors.New("unknown")

// notClean returns an error that is [ErrNotClean] and says why.
func notClean(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrNotClean, fmt.Errorf(format, args...))
}

// unknown returns an error that is errUnknown and says what is, as in "feature 0x1000".
func unknown(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errUnknown, fmt.Errorf(format, args...))
}

// A volume is what a file system lies on: a partition, or a whole disk. Its
// ReadAt fails once the caller's context is done.
type volume = disk.Reader

// An opener reads the superblock of a file system and returns the ranges of
// the volume, in bytes, that it says are free: ascending, not overlapping, not
// empty, inside the volume; they may touch. Its error is errUnknown, ErrNotClean or
// one of reading. The sequence may end with an error, and then nothing is
// trimmed. It keeps no more than a few MiB, whatever the file system says.
type opener func(v volume) (iter.Seq2[disk.Extent, error], error)

// openers are the file systems that can be trimmed, by the names that
// [Partition] has for them.
var openers = map[string]opener{}
