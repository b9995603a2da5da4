//go:build !linux

package disk

import (
	"os"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

func openDevice(string, int64) (*os.File, error) {
	return nil, virtual.Unsupported("writing to block devices on this system")
}
