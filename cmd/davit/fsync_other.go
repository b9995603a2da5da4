//go:build !unix

package main

import "os"

// syncFolder does nothing: folders cannot be synced here.
func syncFolder(*os.Root) error { return nil }

// closeAs closes a part and gives it its name: Windows renames none that is open.
func closeAs(p *partFile) error {
	if err := p.Close(); err != nil {
		return err
	}
	return p.folder.Rename(p.part(), p.name)
}

// lockFile does nothing: Windows does not let two processes rename one file.
func lockFile(*os.File) error { return nil }
