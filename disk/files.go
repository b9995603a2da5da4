package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/davit-oci/davit/disk/internal/raw"
	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/davit-oci/davit/internal/beneath"
)

const (
	// maxChain limits the images of a chain, each of which continues in the
	// next. It bounds caches, and ends a chain that is made to be endless.
	maxChain = 32

	// maxFiles limits the open files of an image: a split VMDK has one for each
	// 2 GiB.
	maxFiles = 4096

	// maxNames limits the files of a folder that are looked through.
	maxNames = 10000
)

// files are all the files of an image, and where they may lie. An image names
// other files, but its guest may have written those names.
type files struct {
	path   string     // of the image that the user named; empty: it is part of something else
	root   *os.Root   // BackingDir; nil: no second file
	roots  []string   // absolute names of root's folder
	hidden bool       // what is hidden below root may be opened
	beside *os.Root   // the folder of a descriptor that is named .vmdk, for its extents; or nil
	opened []openFile // to be closed with the image
}

type openFile struct {
	*os.File
	image *raw.Image // nil: that of the file that the user named
	named string     // what an image calls it that has it elsewhere; empty: it is there
}

// A folder opens files for the names in one image: it is its [virtual.Folder].
type folder struct {
	*files
	dirs  []string      // absolute names of the folder of the image
	above []os.FileInfo // the image, and those that continue in it
	first bool          // it is the image that the user named
}

// newFolder prepares for the image at path, open as f.
func newFolder(path string, f *os.File, o OpenOptions) (*folder, error) {
	all := &files{path: path, opened: []openFile{{File: f}}, hidden: o.Hidden}
	c := &folder{files: all, first: true}
	info, err := f.Stat()
	if err != nil {
		return c, err
	}
	c.above = []os.FileInfo{info}
	if o.Extents {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return c, err
		}
		if strings.EqualFold(filepath.Ext(real), ".vmdk") {
			if all.beside, err = os.OpenRoot(filepath.Dir(real)); err != nil {
				return c, err
			}
		}
	}
	if o.BackingDir == "" {
		return c, nil
	}
	if all.roots, err = names(o.BackingDir); err != nil {
		return c, err
	}
	if c.dirs, err = names(filepath.Dir(path)); err != nil {
		return c, err
	}
	all.root, err = os.OpenRoot(o.BackingDir)
	return c, err
}

// names are the absolute names of a folder: as it is called, and without
// symbolic links. The user names it, so its links are as good as itself.
func names(dir string) ([]string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return nil, err
	}
	return []string{abs, real}, nil
}

// closeRoots ends the opening of files.
func (a *files) closeRoots() {
	for _, root := range []*os.Root{a.root, a.beside} {
		if root != nil {
			root.Close()
		}
	}
}

func (a *files) close() error {
	var errs []error
	for _, f := range a.opened {
		errs = append(errs, f.Close())
	}
	a.opened = nil
	return errors.Join(errs...)
}

// Parent opens the image file that the one of c continues in.
//
// The formats that ask here know their parents by IDs, and look for a file that
// was moved by its last element, when they have tried all the names that they
// have.
func (c *folder) Parent(name string) (virtual.Reader, virtual.Folder, error) {
	file, parent, err := c.parent(name, !strings.ContainsAny(name, `/\`))
	return file, parent, opening("parent", name, continuing(err))
}

func (c *folder) parent(name string, moved bool) (*raw.Image, *folder, error) {
	if len(c.above) == maxChain {
		return nil, nil, virtual.Unsupported("a chain of more than %d images", maxChain)
	}
	file, info, local, err := c.second(name, moved)
	if err != nil {
		return nil, nil, err
	}
	if c.inChain(info) {
		c.Forget(file)
		return nil, nil, virtual.Corrupt("the backing chain is a loop: %q is in it already", name)
	}
	return file, &folder{
		files: c.files,
		dirs:  []string{filepath.Dir(filepath.Join(c.roots[1], local))},
		above: append(slices.Clone(c.above), info),
	}, nil
}

func (c *folder) inChain(info os.FileInfo) bool {
	return slices.ContainsFunc(c.above, func(i os.FileInfo) bool { return os.SameFile(i, info) })
}

// second opens a second file of the image of c, which it returns with its name
// in root. Images are moved with their files, and have the paths of the host that
// they were on: where nothing is at such a path, and that is allowed, the file is
// looked for by its last element, beside the image and in root.
func (c *folder) second(name string, moved bool) (*raw.Image, os.FileInfo, string, error) {
	if c.root == nil {
		return nil, nil, "", c.refused(name)
	}
	local, err := c.local(name)
	if err == nil {
		var file *raw.Image
		var info os.FileInfo
		if file, info, err = c.open(c.root, local); err == nil {
			return file, info, local, nil
		}
	}
	if !moved || !errors.Is(err, fs.ErrNotExist) && !(errors.Is(err, errOutside) && !c.exists(name)) {
		return nil, nil, "", err
	}
	loop := false
	for _, local := range c.elsewhere(name) {
		file, info, other := c.open(c.root, local)
		switch {
		case errors.Is(other, fs.ErrNotExist):
			continue
		case other != nil:
			return nil, nil, "", other
		case c.inChain(info): // an image can be called as its backing file was
			c.Forget(file)
			loop = loop || !os.SameFile(info, c.above[len(c.above)-1])
			continue
		}
		c.opened[len(c.opened)-1].named = name
		return file, info, local, nil
	}
	if loop {
		return nil, nil, "", virtual.Corrupt("the backing chain is a loop: nothing is at %q, and the file of that name is in the chain already", name)
	}
	return nil, nil, "", err
}

// A BackingFileError is [ErrBackingFile] of an image for which no second file may
// be opened, as [OpenOptions] have no BackingDir. None was: where it lies is known
// from names alone.
type BackingFileError struct {
	Name      string // as the image has it
	Folder    string // of the image, if the file is in there as BackingDir would find it; else empty
	Continues bool   // the file may name others, which that folder would allow as well
}

func (e *BackingFileError) Error() string { return fmt.Sprintf("%v: %q", ErrBackingFile, e.Name) }

// Is is for [errors.Is].
func (e *BackingFileError) Is(target error) bool { return target == ErrBackingFile }

// continuing says of a file that is not opened that it may name others.
func continuing(err error) error {
	if e, ok := errors.AsType[*BackingFileError](err); ok {
		e.Continues = true
	}
	return err
}

// refused is why the image of c may have no second file: a [BackingFileError], or,
// of a name that a BackingDir should not be given for, [ErrHidden] or plain
// [ErrBackingFile].
func (c *folder) refused(name string) error {
	unknown := &BackingFileError{Name: name}
	if c.path == "" {
		return unknown
	}
	dir := filepath.Dir(c.path)
	roots, err := names(dir)
	if err != nil {
		return unknown
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return unknown
	}
	defer root.Close()
	try := &folder{files: &files{root: root, roots: roots}, dirs: roots, above: c.above}

	local, err := try.local(name)
	locals := []string{local}
	switch {
	case errors.Is(err, errOutside):
		if locals = try.elsewhere(name); try.exists(name) {
			return unknown
		}
	case err != nil: // it is no file
		return err
	default:
		locals = append(locals, try.elsewhere(name)...)
	}
	for _, local := range locals {
		_, info, err := beneath.Find(root, local, false)
		switch {
		case errors.Is(err, beneath.ErrHidden):
			return fmt.Errorf("%w: %q: %w", ErrBackingFile, name, err)
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil: // a link leads out
			return unknown
		case !c.inChain(info):
			return &BackingFileError{Name: name, Folder: dir}
		}
	}
	return unknown
}

// elsewhere are the names in root under which a file may lie that is called name.
func (c *folder) elsewhere(name string) (locals []string) {
	if isDrive(name) {
		name = strings.ReplaceAll(name, `\`, "/")
	}
	last := name[strings.LastIndex(name, "/")+1:]
	if !filepath.IsLocal(last) || last == "." {
		return nil
	}
	if beside, err := c.local(last); err == nil {
		locals = append(locals, beside)
	}
	return append(locals, last)
}

// exists says whether a file is at a path outside of root: then it was not
// moved, and the user did not allow it. Nobody is asked over a network.
func (c *folder) exists(name string) bool {
	paths, err := c.paths(name)
	if err != nil || strings.HasPrefix(name, `\\`) || strings.HasPrefix(name, "//") {
		return false
	}
	return slices.ContainsFunc(paths, func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	})
}

// Forget closes a file of Parent that is not the one: it is no part of the image.
func (a *files) Forget(file virtual.Reader) {
	i := slices.IndexFunc(a.opened, func(o openFile) bool { return o.image != nil && virtual.Reader(o.image) == file })
	if i >= 0 {
		a.opened[i].Close()
		a.opened = slices.Delete(a.opened, i, i+1)
	}
}

// Extent opens a file that holds a part of the image of c.
func (c *folder) Extent(name string) (virtual.Reader, error) {
	root, local := c.beside, name
	// A descriptor that says ".vmdk" promises extents beside it, and nowhere else.
	if root == nil || !c.first || strings.ContainsAny(name, `/\:`) || !filepath.IsLocal(name) {
		file, _, _, err := c.second(name, true)
		if err != nil {
			return nil, opening("extent", name, err)
		}
		return file, nil
	}
	file, _, err := c.open(root, local)
	if errors.Is(err, beneath.ErrHidden) && root == c.beside && c.root != nil {
		if local, err = c.local(name); err == nil {
			file, _, err = c.open(c.root, local)
		}
	}
	if err != nil {
		return nil, opening("extent", name, err)
	}
	return file, nil
}

// data opens the file that has the data clusters of a qcow2 image. The
// exception for what lies beside a .vmdk is not for it: a raw extent is named so
// as well, and its guest may have written a header onto it.
func (c *folder) data(name string) (virtual.Reader, error) {
	file, _, _, err := c.second(name, true)
	if err == nil {
		err = virtual.CheckDisk(file, virtual.Sector)
	}
	if err != nil && !errors.Is(err, ErrBackingFile) {
		err = fmt.Errorf("opening %q: %w", name, err)
	}
	if err != nil {
		return nil, err
	}
	return file, nil
}

// NamesIn are the files in a folder that the image of c names.
func (c *folder) NamesIn(dir string) ([]string, error) {
	if c.root == nil {
		return nil, &BackingFileError{Name: dir, Continues: true}
	}
	local, err := c.local(dir)
	if err != nil {
		return nil, err
	}
	f, err := c.root.Open(local)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	found, err := f.Readdirnames(maxNames)
	slices.Sort(found)
	return found, err
}

// backing opens a backing file that may be of any format ("" if the image does
// not record it).
func (c *folder) backing(name, format string) (virtual.Reader, error) {
	file, below, err := c.parent(name, true)
	if err != nil {
		if format != "" && Format(format).container() != Raw {
			err = continuing(err)
		}
		return nil, opening("backing file", name, err)
	}
	f := Raw
	if format == "" {
		// A second detection of an image that somebody else may write to is no
		// risk: only the answer "raw" counts, and raw interprets nothing.
		if found, err := detect(file); err != nil || found != Raw {
			return nil, fmt.Errorf("%w: the image does not record the format of %q, and guessing it is not safe", ErrBackingFile, name)
		}
	} else if f, err = ParseFormat(format); err != nil {
		return nil, fmt.Errorf("opening backing file %q: %w", name, err)
	}
	if f.container() == Raw {
		if err := virtual.CheckDisk(file, 1); err != nil { // QEMU reads zeros behind its end
			return nil, fmt.Errorf("opening backing file %q: %w", name, err)
		}
	}
	r, err := openContent(file, f, below, "")
	if err != nil {
		return nil, fmt.Errorf("opening backing file %q: %w", name, err)
	}
	return r, nil
}

var errOutside = errors.New("it is outside")

// local is the name of a file inside of root. What symbolic links make of it is
// root's to check.
func (c *folder) local(name string) (string, error) {
	paths, err := c.paths(name)
	if err != nil {
		return "", err
	}
	for _, path := range paths {
		for _, root := range c.roots {
			if rel, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(rel) {
				return rel, nil
			}
		}
	}
	return "", outsideError{fmt.Errorf("%w: %q is outside of %s", ErrBackingFile, name, c.roots[0])}
}

// An outsideError is also errOutside.
type outsideError struct{ error }

func (e outsideError) Unwrap() []error { return []error{e.error, errOutside} }

// paths are the absolute names of a file that the image of c names.
func (c *folder) paths(name string) ([]string, error) {
	path := name
	if scheme, rest, ok := strings.Cut(name, ":"); ok && !strings.Contains(scheme, "/") && filepath.VolumeName(name) == "" {
		switch {
		case scheme == "file":
			path = rest
		case isDrive(name):
			return nil, outsideError{fmt.Errorf("%w: %q is outside of %s", ErrBackingFile, name, c.roots[0])}
		default:
			return nil, fmt.Errorf("%w: %q is not the name of a file", ErrBackingFile, name)
		}
	}
	path = filepath.FromSlash(path)
	if filepath.IsAbs(path) {
		return []string{filepath.Clean(path)}, nil
	}
	var paths []string
	for _, dir := range c.dirs {
		paths = append(paths, filepath.Join(dir, path))
	}
	return paths, nil
}

// isDrive says whether name is a path of Windows with a drive.
func isDrive(name string) bool {
	return len(name) > 2 && name[1] == ':' && (name[2] == '\\' || name[2] == '/') &&
		(name[0]|0x20 >= 'a' && name[0]|0x20 <= 'z')
}

// opening says which file err was met with.
func opening(what, name string, err error) error {
	if err == nil || errors.Is(err, ErrBackingFile) { // which has the name
		return err
	}
	return fmt.Errorf("opening %s %q: %w", what, name, err)
}

// reason is err without the name of the file, which its user says in the words
// of the image.
func reason(err error) error {
	if path := (*os.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}

func (a *files) open(root *os.Root, local string) (*raw.Image, os.FileInfo, error) {
	if len(a.opened) == maxFiles {
		return nil, nil, virtual.Unsupported("an image of more than %d files", maxFiles)
	}
	if strings.Contains(local, "\x00") {
		return nil, nil, virtual.Corrupt("a name with a byte 0")
	}
	// Asked first, because opening a named pipe waits for its other end.
	name := filepath.ToSlash(local)
	local, info, err := beneath.Find(root, local, a.hidden && root == a.root)
	if errors.Is(err, beneath.ErrHidden) {
		return nil, nil, fmt.Errorf("%w: %q: %w", ErrBackingFile, name, err)
	}
	if err != nil {
		return nil, nil, reason(err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, virtual.Unsupported("not a regular file")
	}
	f, err := root.Open(local)
	if err != nil {
		return nil, nil, reason(err)
	}
	file, err := raw.Open(f)
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	a.opened = append(a.opened, openFile{File: f, image: file})
	return file, info, nil
}
