// Package store keeps what this host remembers between two runs of davit: the
// layers that unfinished pushes have sent ([Store.Journal]), the layers that
// were checked ([Store.Checked]), and the files that hold disks, with lists of
// their chunks ([Store.Remember], [Store.AddSeeds]). It also has a place for
// files of one run ([Store.Scratch]).
//
// Call [Open] first, and Close at the end. A store is a folder that only this
// user can write to; a store of somebody else is refused, because what a store
// says is believed. Several processes can use one at the same time. After
// kill -9 a store is as it was before the last write.
//
// What is remembered saves work, and nothing else: a store can be deleted at
// any time. It holds no content of disks but scratch files, it knows no
// registry, and it does not limit its own size.
//
// The package knows the types of artifact, because records of layers and lists
// of chunks are facts about artifacts. Package artifact does not know it.
package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/davit-oci/davit/internal/own"
	"github.com/davit-oci/davit/internal/wholefile"
)

// A Store is an open store. It is safe for concurrent use.
type Store struct {
	dir  string
	lock *os.File // of a store that ends with Close, else nil

	mu   sync.Mutex
	open map[string]func() error // by path, how to remove what must not outlive Close; nil once closed
}

// The names in a store.
const (
	scratchDir  = "scratch"
	journalDir  = "journal"
	disksDir    = "disks"
	listsDir    = "lists"
	checkedFile = "checked.jsonl"

	// tempStore is how folders of stores without a place of their own begin.
	tempStore = "davit-store-"
)

// None as a folder means a store that Close removes.
const None = "none"

// Open opens the store in dir, and makes it if it does not exist. If dir is
// empty, the store is in $DAVIT_CACHE, $XDG_CACHE_HOME/davit or ~/.cache/davit;
// [None] makes one in the system's temporary folder. Scratch files of processes
// that were killed are removed. The caller closes the store.
//
// A store that others can write to, or that is not this user's, is an
// [own.Error].
func Open(ctx context.Context, dir string) (*Store, error) {
	dir, err := place(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{open: make(map[string]func() error)}
	if dir == None {
		root, err := own.Resolve(os.TempDir() + string(filepath.Separator))
		if err != nil {
			return nil, fmt.Errorf("making a temporary store: %w", err)
		}
		sweepLocked(root, tempStore)
		if dir, s.lock, err = lockedDir(root, tempStore); err != nil {
			return nil, fmt.Errorf("making a temporary store: %w", err)
		}
		s.dir = dir
	}
	if dir, err = filepath.Abs(dir); err == nil {
		err = s.prepare(ctx, dir)
	}
	if err != nil {
		if s.lock != nil {
			s.Close()
		}
		return nil, fmt.Errorf("opening the local store: %w", err)
	}
	return s, nil
}

// place returns the folder that is meant by dir.
func place(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	if dir = os.Getenv("DAVIT_CACHE"); dir != "" {
		return dir, nil
	}
	if dir = os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "davit"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding a place for the local store: %w", err)
	}
	return filepath.Join(home, ".cache", "davit"), nil
}

func (s *Store) prepare(ctx context.Context, dir string) error {
	// Users have it in another file system, by a link.
	real, err := own.MkdirAll(dir, 0o700)
	if err != nil {
		return err
	}
	s.dir = real
	// The outer one first: what is in a folder of somebody else is as good as theirs.
	for _, d := range []string{"", scratchDir, journalDir, disksDir, listsDir} {
		if err := os.Mkdir(s.path(d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := own.CheckFolder(s.path(d)); err != nil {
			return err
		}
	}
	for _, d := range []string{"", disksDir, listsDir} {
		wholefile.Sweep(s.path(d))
	}
	sweepLocked(s.path(scratchDir), "")
	return ctx.Err()
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// Close removes scratch folders and lists that were not remembered, and a store
// of [None] as a whole.
func (s *Store) Close() error {
	s.mu.Lock()
	left := s.open
	s.open = nil
	s.mu.Unlock()
	var errs []error
	for _, remove := range left {
		errs = append(errs, remove())
	}
	if s.lock != nil {
		errs = append(errs, os.RemoveAll(s.dir), wholefile.RemoveLocked(s.lock, s.lock.Name()))
		s.lock = nil
	}
	return errors.Join(errs...)
}

// removeAtClose has Close call remove, unless forget is called before.
// A store that is closed already removes at once, and that is an error.
func (s *Store) removeAtClose(path string, remove func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		return errors.Join(errors.New("the store is closed"), remove())
	}
	s.open[path] = remove
	return nil
}

func (s *Store) forget(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, path)
}

// Scratch makes a folder for files of this run. The returned function removes
// it, as Close does. If the process is killed, the next Open removes it.
func (s *Store) Scratch() (dir string, cleanup func() error, err error) {
	dir, lock, err := lockedDir(s.path(scratchDir), "")
	if err != nil {
		return "", nil, fmt.Errorf("making a scratch folder: %w", err)
	}
	remove := sync.OnceValue(func() error {
		err := os.RemoveAll(dir)
		return errors.Join(err, wholefile.RemoveLocked(lock, lock.Name()))
	})
	if err := s.removeAtClose(dir, remove); err != nil {
		return "", nil, fmt.Errorf("making a scratch folder: %w", err)
	}
	return dir, func() error {
		s.forget(dir)
		return remove()
	}, nil
}

// A folder of a process is beside a file of the same name and this ending, which the process has locked.
const lockSuffix = ".lock"

// lockedDir makes a folder that [sweepLocked] leaves alone as long as lock is open.
func lockedDir(root, prefix string) (dir string, lock *os.File, err error) {
	for {
		f, err := os.CreateTemp(root, prefix+"*"+lockSuffix)
		if err != nil {
			return "", nil, err
		}
		ok, err := wholefile.TryLock(f)
		if err != nil {
			wholefile.RemoveLocked(f, f.Name())
			return "", nil, err
		}
		if !ok || !wholefile.IsNamed(f, f.Name()) { // a sweep was faster; it removes the file
			f.Close()
			continue
		}
		dir := f.Name()[:len(f.Name())-len(lockSuffix)]
		err = os.Mkdir(dir, 0o700)
		if errors.Is(err, fs.ErrExist) { // somebody else's, where all can write
			wholefile.RemoveLocked(f, f.Name())
			continue
		}
		if err != nil {
			wholefile.RemoveLocked(f, f.Name())
			return "", nil, err
		}
		return dir, f, nil
	}
}

// sweepLocked removes the folders of processes that are gone, which is when their locks can be had. What cannot be removed stays.
func sweepLocked(root, prefix string) {
	locks, err := filepath.Glob(filepath.Join(root, prefix+"*"+lockSuffix))
	if err != nil {
		return
	}
	for _, path := range locks {
		f, err := own.Open(path, os.O_RDWR)
		if err != nil {
			continue
		}
		if ok, err := wholefile.TryLock(f); err != nil || !ok || !wholefile.IsNamed(f, path) {
			f.Close()
			continue
		}
		if os.RemoveAll(path[:len(path)-len(lockSuffix)]) == nil {
			wholefile.RemoveLocked(f, f.Name())
		} else {
			f.Close()
		}
	}
}

// nameOf turns any text into the name of a file.
func nameOf(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}
