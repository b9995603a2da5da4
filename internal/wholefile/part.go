package wholefile

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/davit-oci/davit/internal/own"
)

// A Part is a file of a [Set] that is being written. It is called
// .NAME.davit-part until the set is committed. A run after one that was killed
// finds it there with what was written. Only this user can read or write it.
type Part struct {
	*os.File

	// Resumed says that the part existed, with the content of an earlier run.
	Resumed bool

	// Resumable says that a later run can go on with this content. The caller
	// sets it: [Set.Abandon] keeps such a part.
	Resumable bool

	id       fs.FileInfo // of the file, to tell it from another one
	folder   *os.Root    // that it lies in
	name     string      // that it is going to have there
	path     string      // the same, for messages
	replace  bool        // an existing file
	replaced bool        // commit has replaced a file
}

// openPart opens or makes the part of the file of this name in a folder.
func openPart(folder *os.Root, name string, replace bool) (*Part, error) {
	p := &Part{folder: folder, name: name, path: filepath.Join(folder.Name(), name), replace: replace}
	if _, err := p.replaces(); err != nil {
		return nil, err
	}
	var err error
	p.File, err = folder.OpenFile(p.part(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		p.Resumed = true
		p.File, err = own.OpenIn(folder, p.part(), os.O_RDWR)
		if foreign := (*own.Error)(nil); errors.As(err, &foreign) {
			err = fmt.Errorf("%w: nothing is written to it: remove it, or choose another destination", err)
		}
	}
	if err == nil {
		p.id, err = p.Stat()
	}
	if err != nil {
		p.Close()
		return nil, p.failed(err)
	}
	if locked, err := TryLock(p.File); err != nil || !locked {
		return nil, errors.Join(fmt.Errorf("%s: another davit is writing it", p.path), err, p.Close())
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
func (p *Part) part() string {
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
func (p *Part) replaces() (fs.FileInfo, error) {
	info, err := p.folder.Lstat(p.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, p.failed(err)
	case !p.replace:
		return nil, &ExistsError{p.path}
	case info.Mode()&fs.ModeSymlink != 0:
		return nil, fmt.Errorf("%s: a symbolic link, which is not followed", p.path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: not a regular file", p.path)
	}
	return info, nil
}

// has says whether the file has that name, and not by way of a link.
func (p *Part) has(name string) bool {
	now, err := p.folder.Lstat(name)
	return err == nil && os.SameFile(p.id, now)
}

// failed says of which file an error in the folder is.
func (p *Part) failed(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return &fs.PathError{Op: strings.TrimSuffix(e.Op, "at"), Path: p.path, Err: e.Err}
	}
	return err
}

// setMode changes the permissions, which some file systems do not have.
func (p *Part) setMode(mode fs.FileMode) error {
	info, err := p.Stat()
	if err != nil || info.Mode().Perm() == mode {
		return err
	}
	return p.Chmod(mode)
}

// commit gives the file its name. The file was synced before.
func (p *Part) commit() error {
	// Somebody else may have been quicker.
	old, err := p.replaces()
	if err != nil {
		return err
	}
	if !p.has(p.part()) {
		return fmt.Errorf("%s: somebody has taken its part away, or replaced it", p.path)
	}
	p.replaced = old != nil
	if err := p.rename(); err != nil {
		return p.failed(err)
	}
	if !p.has(p.name) { // in a folder in which others may rename
		return fmt.Errorf("%s: somebody has put another file in its place", p.path)
	}
	return nil
}

// rename gives the part its name and closes it. Where the system allows it, the
// lock lasts until the file has its name: nobody takes it for a part that was
// left behind.
func (p *Part) rename() error {
	if !renameWhileOpen {
		if err := p.Close(); err != nil {
			return err
		}
	}
	defer p.Close() // it was synced
	return p.folder.Rename(p.part(), p.name)
}

// takeBack undoes commit, unless a file was replaced, which is gone.
func (p *Part) takeBack() error {
	if p.replaced {
		return nil
	}
	return p.folder.Rename(p.name, p.part())
}

// abandon closes the part, and removes it unless the next run can use it.
func (p *Part) abandon(useful bool) {
	p.Close()
	if !useful && p.has(p.part()) {
		_ = p.folder.Remove(p.part())
	}
}
