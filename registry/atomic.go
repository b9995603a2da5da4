package registry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/davit-oci/davit/internal/own"
)

// Names of files that are being written, and when one of them that nobody has locked is taken for left behind by a killed process.
const (
	pendingPrefix = ".davit-tmp-"
	pendingAge    = 10 * time.Minute
)

// A pending file appears whole under its final name, or not at all. It is locked while it is open, so that a sweep can tell it from
// those of killed processes.
type pending struct {
	*os.File
	done bool
}

func createPending(dir string, perm fs.FileMode) (*pending, error) {
	for {
		path := filepath.Join(dir, pendingPrefix+rand.Text())
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if err != nil {
			return nil, err
		}
		ok, err := tryLock(f)
		if err == nil && ok && sameFile(f, path) {
			return &pending{File: f}, nil
		}
		f.Close()
		if err != nil {
			os.Remove(path)
			return nil, err
		}
		// A sweep came between. It cannot, by age, but clocks jump.
	}
}

// sameFile reports whether path still names f.
func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// commit renames the file to path, which must be in the directory that the file is in or on the same file system.
func (p *pending) commit(path string) error {
	if err := p.Sync(); err != nil {
		return err
	}
	if !sameFile(p.File, p.Name()) { // where others may rename what is ours
		return fmt.Errorf("%s was replaced while it was written", p.Name())
	}
	if !renameWhileOpen {
		if err := p.File.Close(); err != nil {
			return err
		}
	}
	if err := os.Rename(p.Name(), path); err != nil {
		return err
	}
	p.done = true
	if renameWhileOpen {
		if err := p.File.Close(); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(path))
}

// Close removes the file unless it was committed.
func (p *pending) Close() error {
	if p.done {
		return nil
	}
	p.done = true
	p.File.Close() // already closed when commit failed late
	return os.Remove(p.Name())
}

// writeFile replaces path by content, whole or not at all.
func writeFile(path string, content []byte, perm fs.FileMode) error {
	p, err := createPending(filepath.Dir(path), perm)
	if err != nil {
		return err
	}
	defer p.Close()
	if _, err := p.Write(content); err != nil {
		return err
	}
	return p.commit(path)
}

// sweepPending removes what killed processes left in dir. What cannot be removed stays; it is nobody's problem now.
func sweepPending(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !isPending(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err != nil || time.Since(info.ModTime()) < pendingAge {
			continue
		}
		path := filepath.Join(dir, e.Name())
		f, err := own.Open(path, os.O_RDWR)
		if err != nil {
			continue
		}
		if ok, err := tryLock(f); err == nil && ok && sameFile(f, path) {
			if renameWhileOpen {
				os.Remove(path)
				f.Close()
			} else {
				f.Close()
				os.Remove(path)
			}
			continue
		}
		f.Close()
	}
}

// acquire takes the lock that is the file at path, waiting for it until ctx ends. release gives it back and removes the file. What is no
// lock of ours is not waited for: nobody may ever give it back.
func acquire(ctx context.Context, path string) (release func(), err error) {
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		f, err := own.OpenOrCreate(path, os.O_RDWR, 0o600)
		if foreign := (*own.Error)(nil); errors.As(err, &foreign) {
			return nil, fmt.Errorf("locking: %w: it is no lock of this user: remove it, unless another davit is at work here", err)
		}
		if err != nil {
			return nil, fmt.Errorf("locking: %w", err)
		}
		ok, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, err
		}
		// Whoever had it before may have removed the file between our opening and locking it; then ours is a lock on nothing.
		if ok && sameFile(f, path) {
			return func() {
				if renameWhileOpen {
					os.Remove(path)
					f.Close()
				} else {
					f.Close()
					os.Remove(path) // fails, and should, when somebody else has opened it
				}
			}, nil
		}
		f.Close()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("waiting for the lock %s: %w", path, context.Cause(ctx))
		}
	}
}

// mayWriteTo says whether a folder, which need not be there, is written to: not if somebody else's link leads to it.
func mayWriteTo(dir string) error {
	_, err := own.Resolve(dir + string(filepath.Separator))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func isPending(name string) bool { return strings.HasPrefix(name, pendingPrefix) }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
