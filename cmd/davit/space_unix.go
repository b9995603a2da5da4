//go:build linux || darwin

package main

import "golang.org/x/sys/unix"

// freeSpace is how many bytes the user can still write to the file system of path.
func freeSpace(path string) (n int64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail * uint64(s.Bsize)), true
}
