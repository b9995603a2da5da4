package hostfile

import (
	"os"

	"golang.org/x/sys/windows"
)

// MarkSparse allows f to have holes. A file system that has none, FAT say, is no
// error: the file then takes all its size.
func MarkSparse(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return c.Control(func(handle uintptr) {
		var n uint32
		_ = windows.DeviceIoControl(windows.Handle(handle), windows.FSCTL_SET_SPARSE, nil, 0, nil, 0, &n, nil)
	})
}
