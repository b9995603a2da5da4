//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncFolder makes a rename last.
func syncFolder(folder *os.Root) error {
	d, err := folder.Open(".")
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// closeAs gives a part its name and closes it. Its lock lasts until it has the
// name: nobody takes it for a part that was left behind.
func closeAs(p *partFile) error {
	defer p.Close() // it was synced
	return p.folder.Rename(p.part(), p.name)
}

// lockFile fails if another process has locked the file. The lock ends with it.
func lockFile(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }
