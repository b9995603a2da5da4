//go:build !linux

package hostfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

func deviceSize(f *os.File) (int64, error) {
	return 0, fmt.Errorf("asking %s for its size: block devices: %w", f.Name(), errors.ErrUnsupported)
}

func sectorSize(*os.File) (int, error) { return 0, errors.ErrUnsupported }

func seekData(*os.File, int64) (start, end int64, err error) {
	return 0, 0, errors.ErrUnsupported
}

func zero(*os.File, fs.FileInfo, int64, int64) error {
	return errors.ErrUnsupported
}
