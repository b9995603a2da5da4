//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncFolder makes a rename last.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// closeAs gives a file its name and closes it. Its lock lasts until it has the
// name: nobody takes it for a part that was left behind.
func closeAs(f *os.File, path string) error {
	defer f.Close() // it was synced
	return os.Rename(f.Name(), path)
}

// lockFile fails if another process has locked the file. The lock ends with it.
func lockFile(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
