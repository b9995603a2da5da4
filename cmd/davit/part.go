package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// writePart makes the file at path appear whole, like [writeFile], but what a
// killed run has written is found again: write gets .NAME.davit-part and whether
// it was there. After an error it is removed if refused says so and it was not
// there before, else kept for the next run.
func writePart(path string, force bool, refused func(error) bool, write func(f *os.File, resumed bool) error) (err error) {
	old, err := mayWrite(path, force)
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o666)
	if old != nil {
		mode = old.Mode().Perm()
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
	}
	part := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".davit-part")
	f, resumed, err := openPart(part, mode)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lockFile(f); err != nil {
		return fmt.Errorf("%s: another davit is writing it: %w", path, err)
	}
	if err := write(f, resumed); err != nil {
		if refused(err) && !resumed {
			err = errors.Join(err, os.Remove(part))
		}
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if _, err := mayWrite(path, force); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// openPart opens or makes the file. It must be a plain file of our own: what
// somebody else has put there, a link say, is not followed.
func openPart(part string, mode fs.FileMode) (f *os.File, resumed bool, err error) {
	f, err = os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if err == nil || !errors.Is(err, fs.ErrExist) {
		return f, false, err
	}
	info, err := os.Lstat(part)
	if err != nil {
		return nil, false, err
	}
	if !info.Mode().IsRegular() {
		return nil, false, fmt.Errorf("%s: not a regular file", part)
	}
	f, err = os.OpenFile(part, os.O_RDWR, 0)
	if err != nil {
		return nil, false, err
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(info, now) {
		return nil, false, errors.Join(fmt.Errorf("%s: replaced while it was opened", part), f.Close())
	}
	return f, true, nil
}

// orDefault returns s, or def if s is empty.
func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// lowerASCII is how names are compared that become parts of file names.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
