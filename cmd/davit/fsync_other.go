//go:build !unix

package main

import "os"

// syncFolder does nothing: folders cannot be synced here.
func syncFolder(string) error { return nil }

// closeAs closes a file and gives it its name: Windows renames none that is open.
func closeAs(f *os.File, path string) error {
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// lockFile does nothing: Windows does not let two processes rename one file.
func lockFile(*os.File) error { return nil }
