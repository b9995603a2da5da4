//go:build !unix

package main

import "os"

// syncFolder does nothing: folders cannot be synced here.
func syncFolder(string) error { return nil }

// lockFile does nothing: Windows does not let two processes rename one file.
func lockFile(*os.File) error { return nil }
