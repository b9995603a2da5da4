// Package own opens files that other users of the host may have put there
// first: parts of files, locks, what is pending, what a local store holds.
//
// One rule is for all of them. What is there counts only if it is this user's,
// others cannot write to it, it is a folder or a regular file with one name, and
// it was opened without following a link. Whatever else is there is an [Error],
// and stays as it is: it is not opened to write, not locked and not waited for.
//
// Root is a user like others here: what belongs to somebody else does not count
// for it either.
package own

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// An Error says why something that is there does not count.
type Error struct {
	Path string
	Why  string // in the form "belongs to user 1000"
}

func (e *Error) Error() string { return e.Path + " " + e.Why }

// Open opens a regular file that is there. The flag has neither O_CREATE nor
// O_TRUNC. A file that does not count is an [Error].
func Open(path string, flag int) (*os.File, error) {
	return open(path, func() (fs.FileInfo, error) { return os.Lstat(path) },
		func() (*os.File, error) { return os.OpenFile(path, flag|noFollow|noWait, 0) })
}

// OpenIn is Open for a name in the folder of root.
func OpenIn(root *os.Root, name string, flag int) (*os.File, error) {
	return open(filepath.Join(root.Name(), name), func() (fs.FileInfo, error) { return root.Lstat(name) },
		func() (*os.File, error) { return root.OpenFile(name, flag|noWait, 0) })
}

// maxTries is how often a file is opened that is another one by then. Locks come
// and go while others wait for them.
const maxTries = 1000

func open(path string, lstat func() (fs.FileInfo, error), open func() (*os.File, error)) (*os.File, error) {
	for range maxTries {
		info, err := lstat()
		if err != nil {
			return nil, err
		}
		// By its name first: opening a pipe or a device does something to it.
		if err := checkFile(path, info); err != nil {
			return nil, err
		}
		f, err := open()
		if err != nil {
			return nil, err
		}
		now, err := f.Stat()
		if err == nil && os.SameFile(info, now) {
			if err = checkFile(path, now); err == nil {
				err = checkNames(path, f, now)
			}
			if err == nil {
				return f, nil
			}
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, errBusy(path)
}

// OpenOrCreate is Open for a file that is made if it is not there.
func OpenOrCreate(path string, flag int, perm fs.FileMode) (*os.File, error) {
	for range maxTries {
		f, err := os.OpenFile(path, flag|os.O_CREATE|os.O_EXCL, perm) // O_EXCL follows no link
		if !errors.Is(err, fs.ErrExist) {
			return f, err
		}
		if f, err = Open(path, flag); !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, errBusy(path)
}

func errBusy(path string) error { return &Error{path, "is replaced whenever it is opened"} }

// CheckFolder says whether a folder counts. A link to one does not.
func CheckFolder(path string) error {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return &Error{path, "is a symbolic link"}
	case !info.IsDir():
		return &Error{path, "is no folder"}
	}
	return checkOwner(path, info)
}

// MkdirAll makes a folder and those that it lies in, unless they are there, and
// returns the path to it as [Resolve] does: nothing is made by way of a link that
// is not followed.
func MkdirAll(path string, perm fs.FileMode) (string, error) {
	real, err := Resolve(path)
	if errors.Is(err, fs.ErrNotExist) {
		parent := strings.TrimRightFunc(path, isSeparator)
		name := parent[strings.LastIndexFunc(parent, isSeparator)+1:]
		if parent = parent[:len(parent)-len(name)]; parent != "" && name != "" {
			if _, err := MkdirAll(parent, perm); err != nil {
				return "", err
			}
		}
		real, err = Resolve(parent + name)
	}
	if err != nil {
		return "", err
	}
	return real, os.MkdirAll(real, perm)
}

func isSeparator(r rune) bool { return r < 0x80 && os.IsPathSeparator(uint8(r)) }

// OpenAny opens a file to read, whoever it belongs to, by links or not, if it is
// a regular one: a pipe in its place would make that wait.
func OpenAny(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &Error{path, "is not a regular file"}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|noWait, 0)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = &Error{path, "is not a regular file"}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// ReadFile reads a file of at most limit bytes that Open opens.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := Open(path, os.O_RDONLY)
	return read(f, err, limit)
}

// ReadAny reads a file of at most limit bytes that OpenAny opens.
func ReadAny(path string, limit int64) ([]byte, error) {
	f, err := OpenAny(path)
	return read(f, err, limit)
}

func read(f *os.File, err error, limit int64) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", f.Name(), limit)
	}
	return b, nil
}

// checkFile is the part of the rule that is about what a file's name tells.
func checkFile(path string, info fs.FileInfo) error {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return &Error{path, "is a symbolic link"}
	case !info.Mode().IsRegular():
		return &Error{path, "is not a regular file"}
	}
	return checkOwner(path, info)
}

func checkNumber(path string, names uint64) error {
	switch names {
	case 0: // removed since
		return &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	case 1:
		return nil
	}
	return &Error{path, fmt.Sprintf("is a hard link: the file has %d names", names)}
}
