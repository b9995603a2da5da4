//go:build linux || darwin

package space

import "golang.org/x/sys/unix"

// Free returns how many bytes the user can still write to the file system of
// path. known is false where the system cannot tell.
func Free(path string) (n int64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true //nolint:unconvert // macOS has other types
}
