// Package space leaves some of a file system to others while files of unknown
// size grow on it. A hostile input must not fill the disk of a host.
package space

import (
	"errors"
	"fmt"
)

// Left is how many bytes of a file system stay free.
const Left = 128 << 20

// ErrFull is the error of what would take the last of a file system.
var ErrFull = errors.New("the file system is full")

// Check returns an error that wraps [ErrFull] if n more bytes beside path would
// leave fewer than [Left] free. Where the system cannot tell, it returns nil,
// and the error is that of writing.
func Check(path string, n int64) error {
	if free, known := Free(path); known && free-n < Left {
		return fmt.Errorf("writing %d bytes beside %s: %w: %d bytes are free, and %d are left to others", n, path, ErrFull, free, Left)
	}
	return nil
}
