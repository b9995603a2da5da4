package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A partFile is a file that is going to appear whole under its name. Until then
// it is .NAME.davit-part beside it, where a run that comes after a killed one
// finds what was written.
type partFile struct {
	*os.File
	path    string
	force   bool
	resumed bool // it was there

	resumable bool // the next run can go on with it
	replaced  bool // commit has replaced a file
}

// openPart opens or makes the part of the file at path.
func openPart(path string, force bool) (*partFile, error) {
	old, err := mayWrite(path, force)
	if err != nil {
		return nil, err
	}
	mode := fs.FileMode(0o666)
	if old != nil {
		mode = old.Mode().Perm()
		// A link stays a link, to the new content.
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, err
		}
	}
	p := &partFile{path: path, force: force}
	part := partPath(path)
	p.File, err = os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		p.resumed = true
		p.File, err = openOwn(part)
	}
	if err != nil {
		return nil, err
	}
	if err := lockFile(p.File); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: another davit is writing it: %w", path, err), p.Close())
	}
	if !isNamed(p.File, part) { // it has got its name since it was opened
		return nil, errors.Join(fmt.Errorf("%s: another davit has just written it", path), p.Close())
	}
	return p, nil
}

// partPath is the part of the file at path. A name that is too long for the
// addition is cut and told apart by its digest.
func partPath(path string) string {
	const longest = 255 - len("..davit-part") // of a name, in bytes
	name := filepath.Base(path)
	if len(name) > longest {
		sum := sha256.Sum256([]byte(name))
		name = fmt.Sprintf("%s-%x", name[:100], sum[:16])
	}
	return filepath.Join(filepath.Dir(path), "."+name+".davit-part")
}

// openOwn opens a part that is there. It must be a plain file: what somebody
// else has put there, a link say, is not followed.
func openOwn(part string) (*os.File, error) {
	info, err := os.Lstat(part)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", part)
	}
	f, err := os.OpenFile(part, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if now, err := f.Stat(); err != nil || !os.SameFile(info, now) {
		return nil, errors.Join(fmt.Errorf("%s: replaced while it was opened", part), f.Close())
	}
	return f, nil
}

// isNamed says whether the file has that name, and not by way of a link.
func isNamed(f *os.File, name string) bool {
	now, err := os.Lstat(name)
	if err != nil {
		return false
	}
	info, err := f.Stat()
	return err == nil && os.SameFile(info, now)
}

// commit gives the file, which is on the disk, its name.
func (p *partFile) commit() error {
	// Somebody else may have been quicker.
	old, err := mayWrite(p.path, p.force)
	if err != nil {
		return err
	}
	p.replaced = old != nil
	return closeAs(p.File, p.path)
}

// takeBack undoes commit, unless a file was replaced, which is gone.
func (p *partFile) takeBack() error {
	if p.replaced {
		return nil
	}
	return os.Rename(p.path, p.Name())
}

// abandon closes the part, and removes it unless the next run can use it.
func (p *partFile) abandon(useful bool) {
	p.Close()
	if !useful {
		os.Remove(p.Name())
	}
}

// outputs are the files that a command writes. They appear together, when all
// of them are complete.
type outputs struct {
	parts []*partFile
	undo  []func() // of folders that were made
}

// folder makes a folder whose parent is there, unless it is there.
func (o *outputs) folder(path string) error {
	remove, err := makeFolder(path)
	if err == nil {
		o.undo = append(o.undo, remove)
	}
	return err
}

// folders makes those between the folder top and path, which is inside of it.
func (o *outputs) folders(top, path string) error {
	if path == top {
		return nil
	}
	if err := o.folders(top, filepath.Dir(path)); err != nil {
		return err
	}
	return o.folder(path)
}

// create opens a part of what is going to be the file at path.
func (o *outputs) create(path string, force bool) (*partFile, error) {
	part, err := openPart(path, force)
	if err == nil {
		o.parts = append(o.parts, part)
	}
	return part, err
}

// createEmpty is create for a file that is written from its start, whatever a
// run that was killed has left.
func (o *outputs) createEmpty(path string, force bool) (*partFile, error) {
	part, err := o.create(path, force)
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
	for _, p := range o.parts {
		if err := p.Sync(); err != nil {
			return err
		}
		if _, err := mayWrite(p.path, p.force); err != nil {
			return err
		}
	}
	var folders, replaced []string
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
		if dir := filepath.Dir(p.path); !slices.Contains(folders, dir) {
			folders = append(folders, dir)
		}
	}
	o.parts, o.undo = nil, nil
	for _, dir := range folders {
		if err := syncFolder(dir); err != nil {
			return err
		}
	}
	return nil
}

// abandon closes what was not committed. Nothing of it stays, unless refused is
// false, and a part is one that the next run can go on with.
func (o *outputs) abandon(refused bool) {
	for _, p := range o.parts {
		p.abandon(p.resumed || p.resumable && !refused)
	}
	for _, u := range slices.Backward(o.undo) {
		u()
	}
}

// makeFolder makes a folder whose parent is there, and returns what undoes it.
func makeFolder(path string) (undo func(), err error) {
	err = os.Mkdir(path, 0o777)
	if errors.Is(err, fs.ErrExist) {
		return func() {}, nil
	}
	return func() { os.Remove(path) }, err
}
