// Package wholefile writes files that appear whole under their names, or not at
// all.
//
// A [Set] is files in folders of the user, which others may be able to read: they
// appear together, and a killed run can be resumed. [Write] is a Set of one file.
// A [Temp] is a file in a folder that davit owns, such as a store or a layout.
// [Lock] keeps processes apart.
//
// What other users of the host may have put in the place of a file is never
// followed, locked or written: see package own.
package wholefile

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/davit-oci/davit/internal/own"
)

// An ExistsError says that a file exists and may not be replaced. It is an
// [fs.ErrExist].
type ExistsError struct{ Path string }

func (e *ExistsError) Error() string { return e.Path + ": " + fs.ErrExist.Error() }

func (e *ExistsError) Unwrap() error { return fs.ErrExist }

// Write makes the file at path appear whole: write gets the part, which takes
// the name afterwards. After an error nothing is left, and a file that existed
// is as it was. With replace the file may exist.
func Write(path string, replace bool, write func(*os.File) error) error {
	var set Set
	defer set.Abandon(false)
	part, err := set.CreateEmpty(path, replace)
	if err != nil {
		return err
	}
	if err := write(part.File); err != nil {
		return err
	}
	return set.Commit()
}

// WriteNew makes a file with this content and mode. After an error nothing is
// left. A file that exists is an [fs.ErrExist].
func WriteNew(path string, mode fs.FileMode, content []byte) error {
	path, err := Resolve(path)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// Check says whether a file can get this name, before its content is made. It
// returns the path of the file itself: a link of this user is followed, and what
// it leads to need not exist.
func Check(path string, replace bool) (string, error) {
	_, err := os.Lstat(path)
	exists := !errors.Is(err, fs.ErrNotExist)
	if err != nil && exists {
		return "", err
	}
	if exists && !replace {
		return "", &ExistsError{path}
	}
	real, err := Resolve(path)
	if !exists && errors.Is(err, fs.ErrNotExist) { // its folder does not exist either
		return path, nil
	}
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(real)
	switch {
	case !exists && errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s: not a regular file", path)
	}
	return real, nil
}

// Resolve is [own.Resolve], with an error that says what can be done about the
// link of another user.
func Resolve(path string) (string, error) {
	real, err := own.Resolve(path)
	if e := (*own.Error)(nil); errors.As(err, &e) {
		err = fmt.Errorf("%w: remove it, or choose another destination", err)
	}
	return real, err
}

// A Set is files that appear together, when all of them are complete. The zero
// value is an empty set. The caller calls Abandon at the end, also after Commit.
// A set is not safe for concurrent use.
type Set struct {
	parts   []*Part
	folders map[string]*os.Root // that are open, by path
	undo    []func()            // of folders that were made
}

// Create opens the part of what is going to be the file at path. If the path is
// a link of this user, the file that it leads to is written. With replace the
// file may exist, else that is an [ExistsError].
func (s *Set) Create(path string, replace bool) (*Part, error) {
	real, err := Check(path, replace)
	if err != nil {
		return nil, err
	}
	dir, name := filepath.Split(real)
	folder, err := s.open(cmp.Or(dir, "."))
	if err != nil {
		return nil, err
	}
	return s.add(openPart(folder, name, replace))
}

func (s *Set) add(part *Part, err error) (*Part, error) {
	if err == nil {
		s.parts = append(s.parts, part)
	}
	return part, err
}

// open opens a folder, whose path has no links that are not followed.
func (s *Set) open(dir string) (*os.Root, error) {
	if s.folders[dir] == nil {
		folder, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		s.keep(dir, folder)
	}
	return s.folders[dir], nil
}

func (s *Set) keep(dir string, folder *os.Root) {
	if s.folders == nil {
		s.folders = make(map[string]*os.Root)
	}
	s.folders[dir] = folder
}

// CreateBelow is [Set.Create] for a name that somebody else has chosen, with
// slashes. The file is below the folder top: links in there are not followed,
// whoever made them.
func (s *Set) CreateBelow(top, name string, replace bool) (*Part, error) {
	top, err := Resolve(top)
	if err != nil {
		return nil, err
	}
	folder, err := s.open(top)
	if err != nil {
		return nil, err
	}
	for elem := range strings.SplitSeq(path.Dir(name), "/") {
		if elem == "." {
			break
		}
		if folder, err = s.openBelow(folder, elem); err != nil {
			return nil, err
		}
	}
	return s.add(openPart(folder, path.Base(name), replace))
}

// openBelow opens a folder in another one, and makes it unless it is there.
func (s *Set) openBelow(parent *os.Root, name string) (*os.Root, error) {
	dir := filepath.Join(parent.Name(), name)
	if s.folders[dir] != nil {
		return s.folders[dir], nil
	}
	err := parent.Mkdir(name, 0o777)
	if err == nil {
		s.undo = append(s.undo, func() { os.Remove(dir) })
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	info, err := parent.Lstat(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s: a symbolic link, which is not followed", dir)
	}
	folder, err := parent.OpenRoot(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if now, err := folder.Stat("."); err != nil || !os.SameFile(info, now) {
		return nil, errors.Join(fmt.Errorf("%s: replaced while it was opened", dir), folder.Close())
	}
	s.keep(dir, folder)
	return folder, nil
}

// Folder makes a folder unless it exists. Its parent exists.
func (s *Set) Folder(path string) error {
	path, err := Resolve(path)
	if err != nil {
		return err
	}
	err = os.Mkdir(path, 0o777)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		s.undo = append(s.undo, func() { os.Remove(path) })
	}
	return err
}

// Empty removes what an earlier run has written: the file is written from its
// start.
func (p *Part) Empty() error {
	p.Resumed = false
	return p.Truncate(0)
}

// CreateEmpty is [Set.Create] for a file that is written from its start.
func (s *Set) CreateEmpty(path string, replace bool) (*Part, error) {
	part, err := s.Create(path, replace)
	if err != nil {
		return nil, err
	}
	return part, part.Empty()
}

// Write makes a small file with this content.
func (s *Set) Write(path string, replace bool, content []byte) error {
	part, err := s.CreateEmpty(path, replace)
	if err != nil {
		return err
	}
	_, err = part.WriteAt(content, 0)
	return err
}

// Commit gives all files their names. Everything that can fail is done before
// the first file has its name, except the renames. If a rename fails, new files
// lose their names again, and the error says which files were replaced.
func (s *Set) Commit() error {
	modes := make(map[*os.Root]fs.FileMode)
	for _, p := range s.parts {
		old, err := p.replaces()
		if err != nil {
			return err
		}
		if _, ok := modes[p.folder]; !ok {
			if modes[p.folder], err = modeOfNew(p.folder); err != nil {
				return p.failed(err)
			}
		}
		mode := modes[p.folder]
		if old != nil { // what others could not read before stays so
			mode &= old.Mode().Perm()
		}
		if err := p.setMode(mode); err != nil {
			return err
		}
		if err := p.Sync(); err != nil {
			return err
		}
	}
	var folders []*os.Root
	var replaced []string
	for i, p := range s.parts {
		if err := p.commit(); err != nil {
			for _, done := range s.parts[:i] {
				err = errors.Join(err, done.takeBack())
			}
			if len(replaced) > 0 {
				err = fmt.Errorf("%w; replaced before that: %s", err, strings.Join(replaced, ", "))
			}
			return err
		}
		if p.replaced {
			replaced = append(replaced, p.path)
		}
		if !slices.Contains(folders, p.folder) {
			folders = append(folders, p.folder)
		}
	}
	s.parts, s.undo = nil, nil
	for _, folder := range folders {
		if err := syncDir(folder.Open(".")); err != nil {
			return err
		}
	}
	return nil
}

// modeOfNew is the mode that new files get in a folder: the system alone knows,
// by a umask and by access control lists.
func modeOfNew(folder *os.Root) (fs.FileMode, error) {
	name := ".davit-tmp-" + rand.Text()
	f, err := folder.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return 0, err
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close(), folder.Remove(name)); err != nil {
		return 0, err
	}
	return info.Mode().Perm(), nil
}

// Abandon closes what was not committed, and removes it. With keep it leaves
// parts that a later run can go on with. What an earlier run has left stays in
// any case.
func (s *Set) Abandon(keep bool) {
	for _, p := range s.parts {
		p.abandon(p.Resumed || p.Resumable && keep)
	}
	for _, folder := range s.folders {
		folder.Close()
	}
	for _, u := range slices.Backward(s.undo) {
		u()
	}
}
