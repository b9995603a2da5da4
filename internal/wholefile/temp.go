package wholefile

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/davit-oci/davit/internal/own"
)

// A Temp is a file that appears whole under its final name, or not at all. It is
// locked while it is open, so that [Sweep] can tell it from files that killed
// processes have left.
type Temp struct {
	*os.File
	done bool
}

const (
	tempPrefix = ".davit-tmp-"

	// tempAge is the age after which a Temp that nobody has locked was left by a
	// killed process.
	tempAge = 10 * time.Minute
)

// IsTemp says whether a file is called as a [Temp] is.
func IsTemp(name string) bool { return strings.HasPrefix(name, tempPrefix) }

// CreateTemp makes a file in dir, a folder of davit's. The caller closes it.
func CreateTemp(dir string, perm fs.FileMode) (*Temp, error) {
	for {
		path := filepath.Join(dir, tempPrefix+rand.Text())
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if err != nil {
			return nil, err
		}
		ok, err := TryLock(f)
		if err == nil && ok && IsNamed(f, path) {
			return &Temp{File: f}, nil
		}
		f.Close()
		if err != nil {
			os.Remove(path)
			return nil, err
		}
		// A sweep came between. It cannot, by age, but clocks jump.
	}
}

// Commit renames the file to path, on the same file system, and closes it. A file
// that has that name is replaced.
func (t *Temp) Commit(path string) error {
	if err := t.Sync(); err != nil {
		return err
	}
	if !IsNamed(t.File, t.Name()) { // where others may rename what is ours
		return fmt.Errorf("%s was replaced while it was written", t.Name())
	}
	if !renameWhileOpen {
		if err := t.File.Close(); err != nil {
			return err
		}
	}
	if err := os.Rename(t.Name(), path); err != nil {
		return err
	}
	t.done = true
	if renameWhileOpen {
		if err := t.File.Close(); err != nil {
			return err
		}
	}
	return syncDir(os.Open(filepath.Dir(path)))
}

// Close removes the file unless it was committed.
func (t *Temp) Close() error {
	if t.done {
		return nil
	}
	t.done = true
	t.File.Close() // already closed when commit failed late
	return os.Remove(t.Name())
}

// Replace makes the file at path have this content, by a [Temp] beside it.
func Replace(path string, content []byte, perm fs.FileMode) error {
	p, err := CreateTemp(filepath.Dir(path), perm)
	if err != nil {
		return err
	}
	defer p.Close()
	if _, err := p.Write(content); err != nil {
		return err
	}
	return p.Commit(path)
}

// Sweep removes the files of [CreateTemp] that killed processes left in dir. A
// file that cannot be removed stays.
func Sweep(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !IsTemp(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < tempAge {
			continue
		}
		path := filepath.Join(dir, e.Name())
		f, err := own.Open(path, os.O_RDWR)
		if err != nil {
			continue
		}
		if ok, err := TryLock(f); err == nil && ok && IsNamed(f, path) {
			_ = RemoveLocked(f, path)
			continue
		}
		f.Close()
	}
}
