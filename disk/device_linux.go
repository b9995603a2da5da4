package disk

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/davit-oci/davit/disk/internal/hostfile"
	"github.com/davit-oci/davit/disk/internal/virtual"
	"golang.org/x/sys/unix"
)

func openDevice(path string, size int64) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !hostfile.IsBlockDevice(info) {
		return nil, virtual.Unsupported("not a block device")
	}

	// Without O_CREAT, O_EXCL claims a block device: it fails if the device or
	// a partition of it is mounted, swapped on or part of another device, and
	// keeps those from happening while it is open.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, err
	}
	if err := checkDevice(f, size); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func checkDevice(f *os.File, size int64) error {
	have, err := hostfile.Size(f)
	if err != nil {
		return err
	}
	if have < size {
		return fmt.Errorf("%w: it has %d of %d bytes", ErrTooSmall, have, size)
	}

	// The claim should have failed already. To write over a mounted file
	// system is so bad that it does not rest on one check.
	info, err := f.Stat()
	if err != nil {
		return err
	}
	rdev := info.Sys().(*syscall.Stat_t).Rdev
	devices := partitions("/sys/dev/block", fmt.Sprintf("%d:%d", unix.Major(rdev), unix.Minor(rdev)))
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if where := mountedAt(mounts, devices); where != "" {
		return fmt.Errorf("%w: mounted at %s", ErrInUse, where)
	}
	return nil
}

// partitions are a device and its partitions, as major:minor, in the order in
// which sysfs lists them.
func partitions(sysfs, device string) []string {
	devices := []string{device}
	files, _ := filepath.Glob(filepath.Join(sysfs, device, "*", "partition"))
	for _, file := range files {
		if dev, err := os.ReadFile(filepath.Join(filepath.Dir(file), "dev")); err == nil {
			devices = append(devices, string(bytes.TrimSpace(dev)))
		}
	}
	return devices
}

// mountedAt finds the first mount of one of devices in the text of
// /proc/self/mountinfo (proc(5)): "ID PARENT MAJOR:MINOR ROOT MOUNTPOINT …".
func mountedAt(mountinfo []byte, devices []string) string {
	for line := range bytes.Lines(mountinfo) {
		if field := bytes.Fields(line); len(field) > 4 && slices.Contains(devices, string(field[2])) {
			return string(field[4])
		}
	}
	return ""
}
