package main

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
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

// A partFile is a file that is going to appear whole under its name. Until then
// it is .NAME.davit-part beside it, where a run that comes after a killed one
// finds what was written, and nobody but this user can read or write it.
type partFile struct {
	*os.File
	id      fs.FileInfo // of the file, to tell it from another one
	folder  *os.Root    // that it lies in
	name    string      // that it is going to have there
	path    string      // the same, for messages
	force   bool
	resumed bool // it was there

	resumable bool // the next run can go on with it
	replaced  bool // commit has replaced a file
}

// openPart opens or makes the part of the file of this name in a folder.
func openPart(folder *os.Root, name string, force bool) (*partFile, error) {
	p := &partFile{folder: folder, name: name, path: filepath.Join(folder.Name(), name), force: force}
	if _, err := p.replaces(); err != nil {
		return nil, err
	}
	var err error
	p.File, err = folder.OpenFile(p.part(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		p.resumed = true
		p.File, err = own.OpenIn(folder, p.part(), os.O_RDWR)
		if foreign := (*own.Error)(nil); errors.As(err, &foreign) {
			err = fmt.Errorf("%w: nothing is written to it: remove it, or choose another DEST", err)
		}
	}
	if err == nil {
		p.id, err = p.Stat()
	}
	if err != nil {
		p.Close()
		return nil, p.failed(err)
	}
	if err := lockFile(p.File); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another davit is writing it: %w", p.path, err), p.Close())
	}
	if !p.has(p.part()) { // it has got its name since it was opened
		return nil, errors.Join(fmt.Errorf("%s: another davit has just written it", p.path), p.Close())
	}
	if err := p.setMode(0o600); err != nil { // one of an older davit
		return nil, errors.Join(p.failed(err), p.Close())
	}
	return p, nil
}

// part is the name of the part. One that is too long for the addition is cut and
// told apart by its digest.
func (p *partFile) part() string {
	const longest = 255 - len("..davit-part") // of a name, in bytes
	name := p.name
	if len(name) > longest {
		sum := sha256.Sum256([]byte(name))
		name = fmt.Sprintf("%s-%x", name[:100], sum[:16])
	}
	return "." + name + ".davit-part"
}

// replaces returns the file that has the name, nil if none has it. There may be
// one if it is to be replaced.
func (p *partFile) replaces() (fs.FileInfo, error) {
	info, err := p.folder.Lstat(p.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, p.failed(err)
	case !p.force:
		return nil, errExists(p.path)
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("%s: a symbolic link, which is not followed", p.path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", p.path)
	}
	return info, nil
}

// has says whether the file has that name, and not by way of a link.
func (p *partFile) has(name string) bool {
	now, err := p.folder.Lstat(name)
	return err == nil && os.SameFile(p.id, now)
}

// failed says of which file an error in the folder is.
func (p *partFile) failed(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return &fs.PathError{Op: strings.TrimSuffix(e.Op, "at"), Path: p.path, Err: e.Err}
	}
	return err
}

// setMode changes the permissions, which some file systems do not have.
func (p *partFile) setMode(mode fs.FileMode) error {
	info, err := p.Stat()
	if err != nil || info.Mode().Perm() == mode {
		return err
	}
	return p.Chmod(mode)
}

// commit gives the file, which is on the disk, its name.
func (p *partFile) commit() error {
	// Somebody else may have been quicker.
	old, err := p.replaces()
	if err != nil {
		return err
	}
	if !p.has(p.part()) {
		return fmt.Errorf("%s: somebody has taken its part away, or replaced it", p.path)
	}
	p.replaced = old != nil
	if err := closeAs(p); err != nil {
		return p.failed(err)
	}
	if !p.has(p.name) { // in a folder in which others may rename
		return fmt.Errorf("%s: somebody has put another file in its place", p.path)
	}
	return nil
}

// takeBack undoes commit, unless a file was replaced, which is gone.
func (p *partFile) takeBack() error {
	if p.replaced {
		return nil
	}
	return p.folder.Rename(p.name, p.part())
}

// abandon closes the part, and removes it unless the next run can use it.
func (p *partFile) abandon(useful bool) {
	p.Close()
	if !useful && p.has(p.part()) {
		p.folder.Remove(p.part())
	}
}

// outputs are the files that a command writes. They appear together, when all
// of them are complete.
type outputs struct {
	parts   []*partFile
	folders map[string]*os.Root // that are open, by path
	undo    []func()            // of folders that were made
}

// create opens a part of what is going to be the file at path.
func (o *outputs) create(path string, force bool) (*partFile, error) {
	real, err := mayWrite(path, force)
	if err != nil {
		return nil, err
	}
	dir, name := filepath.Split(real)
	folder, err := o.open(cmp.Or(dir, "."))
	if err != nil {
		return nil, err
	}
	return o.add(openPart(folder, name, force))
}

func (o *outputs) add(part *partFile, err error) (*partFile, error) {
	if err == nil {
		o.parts = append(o.parts, part)
	}
	return part, err
}

// open opens a folder, whose path has no links that are not followed.
func (o *outputs) open(dir string) (*os.Root, error) {
	if o.folders[dir] == nil {
		folder, err := os.OpenRoot(dir)
		if err != nil {
			return nil, err
		}
		o.keep(dir, folder)
	}
	return o.folders[dir], nil
}

func (o *outputs) keep(dir string, folder *os.Root) {
	if o.folders == nil {
		o.folders = make(map[string]*os.Root)
	}
	o.folders[dir] = folder
}

// createBelow is create for a file that somebody else has given its name, with
// slashes. It lies below the folder top: no link that is in there is followed,
// whoever has made it.
func (o *outputs) createBelow(top, name string, force bool) (*partFile, error) {
	top, err := own.Resolve(top)
	if err != nil {
		return nil, err
	}
	folder, err := o.open(top)
	if err != nil {
		return nil, err
	}
	for elem := range strings.SplitSeq(path.Dir(name), "/") {
		if elem == "." {
			break
		}
		if folder, err = o.openBelow(folder, elem); err != nil {
			return nil, err
		}
	}
	return o.add(openPart(folder, path.Base(name), force))
}

// openBelow opens a folder in another one, and makes it unless it is there.
func (o *outputs) openBelow(parent *os.Root, name string) (*os.Root, error) {
	dir := filepath.Join(parent.Name(), name)
	if o.folders[dir] != nil {
		return o.folders[dir], nil
	}
	err := parent.Mkdir(name, 0o777)
	if err == nil {
		o.undo = append(o.undo, func() { os.Remove(dir) })
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
	o.keep(dir, folder)
	return folder, nil
}

// folder makes a folder whose parent is there, unless it is there.
func (o *outputs) folder(path string) error {
	path, err := own.Resolve(path)
	if err != nil {
		return foreignDest(err)
	}
	err = os.Mkdir(path, 0o777)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		o.undo = append(o.undo, func() { os.Remove(path) })
	}
	return err
}

// createEmpty is create for a file that is written from its start, whatever a
// run that was killed has left.
func (o *outputs) createEmpty(path string, force bool) (*partFile, error) {
	return emptied(o.create(path, force))
}

func emptied(part *partFile, err error) (*partFile, error) {
	if err != nil {
		return nil, err
	}
	part.resumed = false
	return part, part.Truncate(0)
}

// write makes a small file of the given bytes.
func (o *outputs) write(path string, force bool, data []byte) error {
	part, err := o.createEmpty(path, force)
	if err != nil {
		return err
	}
	_, err = part.WriteAt(data, 0)
	return err
}

// commit gives all files their names. What can fail comes before the first of
// them has one, but for the renaming: if that fails, new files lose theirs
// again, and which ones were replaced is told.
func (o *outputs) commit() error {
	modes := make(map[*os.Root]fs.FileMode)
	for _, p := range o.parts {
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
	for i, p := range o.parts {
		if err := p.commit(); err != nil {
			for _, done := range o.parts[:i] {
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
	o.parts, o.undo = nil, nil
	for _, folder := range folders {
		if err := syncFolder(folder); err != nil {
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

// abandon closes what was not committed. Nothing of it stays, unless refused is
// false, and a part is one that the next run can go on with.
func (o *outputs) abandon(refused bool) {
	for _, p := range o.parts {
		p.abandon(p.resumed || p.resumable && !refused)
	}
	for _, folder := range o.folders {
		folder.Close()
	}
	for _, u := range slices.Backward(o.undo) {
		u()
	}
}
