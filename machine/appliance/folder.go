package appliance

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/davit-oci/davit/internal/beneath"
	"github.com/davit-oci/davit/machine"
)

// maxNames limits the files of a folder in which an OVF is looked for.
const maxNames = 10000

// findOVF is the one OVF in a folder.
func findOVF(dir string) (string, error) {
	names, err := namesIn(dir)
	if err != nil {
		return "", err
	}
	var found []string
	for _, name := range names {
		if isOVF(name) && !isAppleDouble(name) {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return "", ErrNoOVF
	case 1:
		return found[0], nil
	}
	return "", machine.Malformed("there are %d OVFs in it: name one, such as %s", len(found), found[0])
}

func namesIn(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(maxNames)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// A fileSection is a file, of the size that it had when it was opened.
type fileSection struct {
	*os.File
	size int64
}

func (f fileSection) Size() int64 { return f.size }

// openIn opens a regular file below a root, out of which no symbolic link
// leads, nor to what is hidden unless that is allowed. A pipe would keep it
// waiting for the other end.
func openIn(root *os.Root, name string, hidden bool) (*fileSection, error) {
	name, info, err := beneath.Find(root, name, hidden)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		return nil, err
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err = f.Stat(); err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return &fileSection{f, info.Size()}, nil
}

// A tree is a folder in which files of a machine may lie.
type tree struct {
	root   *os.Root
	names  []string // absolute: as it is called, and without symbolic links
	hidden bool     // what is hidden in it may be opened: the user has named the folder for that
}

func openTree(dir string, hidden bool) (tree, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return tree{}, err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil {
		return tree{}, err
	}
	root, err := os.OpenRoot(real)
	return tree{root, []string{abs, real}, hidden}, err
}

// local are the names in the tree of a file that has an absolute name.
func (p tree) local(abs string) (names []string) {
	for _, root := range p.names {
		if rel, err := filepath.Rel(root, abs); err == nil && filepath.IsLocal(rel) && rel != "." {
			names = append(names, rel)
		}
	}
	return names
}

// maxSimilar bounds what is looked through for files that differ in case.
const maxSimilar = 16

// similar are the files of the tree whose names, with slashes, differ from name
// in case alone.
func (p tree) similar(name string) []string {
	found := []string{""}
	for element := range strings.SplitSeq(name, "/") {
		var next []string
		for _, dir := range found {
			d, err := p.root.Open(filepath.FromSlash(path.Join(".", dir)))
			if err != nil {
				continue
			}
			names, _ := d.Readdirnames(maxNames) // those that there are
			d.Close()
			for _, n := range names {
				if strings.EqualFold(n, element) && len(next) < maxSimilar {
					next = append(next, path.Join(dir, n))
				}
			}
		}
		found = next
	}
	return found
}

// real is the folder without symbolic links.
func (p tree) real() string { return p.names[1] }

// A beside finds the files of a VMX, a libvirt domain or a .vbox: in the
// descriptor's folder, and in the one that the user allows.
type beside struct {
	trees []tree // the descriptor's folder last
	kind  Kind
}

// A located file is one that is there, and may be opened.
type located struct {
	path  string
	local string // in the descriptor's folder, with slashes; empty: it is not in there
	in    tree
	rel   string

	instead string // what the descriptor calls it, in other case; empty: it is called so
}

func (f located) open() (*fileSection, error) { return openIn(f.in.root, f.rel, f.in.hidden) }

// find returns the file that a descriptor means. [ErrMissing] is one that is
// not there or not in a tree, which the message tells apart, [ErrHidden] one
// that is there for others; or it is a [RemoteError].
func (b *beside) find(name string) (located, error) {
	if remoteName.MatchString(name) {
		return located{}, &RemoteError{URL: name}
	}
	dir := b.trees[len(b.trees)-1]
	var problem error
	for i, spelling := range b.spellings(name) {
		if i > 0 && b.kind == VMX && errors.Is(problem, beneath.ErrHidden) && !strings.ContainsAny(spelling, `/\`) {
			break // not another file for one that must not be read
		}
		for _, base := range dir.names {
			abs := filepath.Clean(spelling)
			if !filepath.IsAbs(spelling) {
				abs = filepath.Join(base, spelling)
			}
			for i, p := range b.trees {
				for _, rel := range p.local(abs) {
					_, info, err := beneath.Find(p.root, rel, p.hidden)
					if err == nil && !info.Mode().IsRegular() && (info.Mode()&os.ModeDevice == 0 || info.Mode()&os.ModeCharDevice != 0) {
						err = errors.New("it is no regular file")
					}
					if err != nil {
						if problem == nil || errors.Is(problem, fs.ErrNotExist) || errors.Is(err, beneath.ErrHidden) {
							problem = reason(err)
						}
						continue
					}
					f := located{path: filepath.Join(p.real(), rel), in: p, rel: rel}
					if i == len(b.trees)-1 {
						f.local = filepath.ToSlash(rel)
					} else if in, err := filepath.Rel(dir.real(), f.path); err == nil && filepath.IsLocal(in) {
						f.local = filepath.ToSlash(in)
					}
					return f, nil
				}
			}
		}
	}
	if errors.Is(problem, fs.ErrNotExist) && b.kind != Libvirt { // which has all names from a system that tells case apart
		if f, ok := b.findSimilar(name); ok {
			return f, nil
		}
	}
	switch {
	case problem == nil:
		return located{}, fmt.Errorf("%w: %q lies outside of %s, and its folder was not allowed", ErrMissing, name, dir.names[0])
	case errors.Is(problem, beneath.ErrHidden):
		return located{}, fmt.Errorf("%w: %q: %w", ErrHidden, name, problem)
	}
	return located{}, fmt.Errorf("%w: %q: %w", ErrMissing, name, problem)
}

// findSimilar returns the only file beside the descriptor whose name differs from
// the one that it has in case alone.
func (b *beside) findSimilar(name string) (located, bool) {
	dir := b.trees[len(b.trees)-1]
	for _, spelling := range b.spellings(name) {
		abs := spelling
		if !filepath.IsAbs(abs) {
			abs = filepath.Join(dir.real(), spelling)
		}
		for _, rel := range dir.local(abs) {
			if similar := dir.similar(filepath.ToSlash(rel)); len(similar) == 1 {
				f, err := b.find(similar[0])
				f.instead = name
				return f, err == nil
			}
		}
	}
	return located{}, false
}

// spellings are the paths that a name can mean here. The name of a VMX may be
// of a datastore or of another system: who copies a machine's folder has its
// files beside the VMX, so that is where they are looked for at last.
func (b *beside) spellings(name string) []string {
	spellings := []string{filepath.FromSlash(name)}
	if b.kind == Libvirt {
		return spellings
	}
	slashes := strings.ReplaceAll(name, `\`, "/")
	if slashes != name {
		spellings = append(spellings, filepath.FromSlash(slashes))
	}
	if b.kind == VMX {
		if _, inDatastore, ok := strings.Cut(slashes, "] "); ok {
			slashes = inDatastore
		}
		spellings = append(spellings, path.Base(slashes))
	}
	return spellings
}

// reason is err without the name of the file, which is said in the descriptor's
// words.
func reason(err error) error {
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (b *beside) close() error {
	var errs []error
	for _, p := range b.trees {
		errs = append(errs, p.root.Close())
	}
	return errors.Join(errs...)
}

// openBeside finds the files of a machine that its descriptor at path names,
// and calls them what they are called here: no path of the host where the
// machine was remains in the envelope. A CD image or a firmware's variables
// that are not there are a loss; a disk that is not is an error.
func (a *Appliance) openBeside(path string, o Options) error {
	b := &beside{kind: a.Kind}
	a.closeLater(b.close)
	if o.BackingDir != "" {
		p, err := openTree(o.BackingDir, true)
		if err != nil {
			return err
		}
		b.trees = append(b.trees, p)
	}
	p, err := openTree(filepath.Dir(path), false)
	if err != nil {
		return err
	}
	b.trees = append(b.trees, p)

	a.paths = make(map[string]located)
	renamed := make(map[string]string) // "" is a file that is not there
	titles := map[string]bool{strings.ToLower(a.Descriptor.Name): true}
	used := fileUses(a.Envelope)
	var files []machine.File
	for _, f := range a.Envelope.Files {
		if _, again := renamed[f.Name]; again {
			continue
		}
		found, err := b.find(f.Name)
		if err != nil {
			if used[f.Name] == RoleDisk {
				var remote *RemoteError
				if i := slices.IndexFunc(a.Envelope.Disks, func(d machine.Disk) bool { return d.File == f.Name }); i >= 0 && errors.As(err, &remote) {
					remote.Format = a.Envelope.Disks[i].Format
				}
				return fmt.Errorf("a disk of %s: %w", a.Descriptor.Name, err)
			}
			if errors.Is(err, ErrHidden) {
				return fmt.Errorf("a file of %s: %w", a.Descriptor.Name, err)
			}
			a.lose(f.Name, reasonOf(f.Name, err))
			renamed[f.Name] = ""
			continue
		}
		if found.instead != "" {
			a.warn("%q is not there: %q is taken for it", found.instead, found.local)
		}
		name := title(found, titles)
		renamed[f.Name], a.paths[name] = name, found
		if used[f.Name] != RoleDisk {
			s, err := found.open()
			if err != nil {
				return fmt.Errorf("opening %q: %w", name, reason(err))
			}
			a.closeLater(s.Close)
			role := used[f.Name]
			if err := checkRole(role, s, name, ""); err != nil {
				return fmt.Errorf("%q: %w", f.Name, err)
			}
			if role == "" {
				role = RoleFile
			}
			a.files = append(a.files, File{name, role, s})
		}
		f.Name = name
		files = append(files, f)
	}
	a.Envelope.Files = files
	renameFiles(a.Envelope, renamed)
	return nil
}

// reasonOf is why the file of that name is missing.
func reasonOf(name string, err error) string {
	why := strings.TrimPrefix(err.Error(), ErrMissing.Error()+": ")
	return strings.TrimPrefix(why, fmt.Sprintf("%q: ", name))
}

// title is what a file is called in the package: as beside the descriptor, or
// by its own name alone, with a number if there is another.
func title(f located, titles map[string]bool) string {
	name := f.local
	if checkTitle(name) != nil {
		name = filepath.Base(f.path)
	}
	ext := path.Ext(name)
	stem := strings.TrimSuffix(name, ext)
	if checkTitle(name) != nil {
		ext = machine.FileName(ext, "")
		if ext != "" {
			ext = "." + ext
		}
		stem = machine.FileName(stem, "file")
	}
	name = stem + ext
	for n := 2; titles[strings.ToLower(name)]; n++ {
		name = fmt.Sprintf("%s-%d%s", stem, n, ext)
	}
	titles[strings.ToLower(name)] = true
	return name
}

// fileUses says what the files of an envelope are for, by File.Name. A file
// that nothing refers to is not in it.
func fileUses(e *machine.Envelope) map[string]Role {
	uses := make(map[string]Role)
	for _, m := range e.Machines {
		if m.NVRAM != "" {
			uses[m.NVRAM] = RoleNVRAM
		}
		for _, c := range m.CDROMs {
			uses[c.File] = RoleCD
		}
	}
	for _, d := range e.Disks {
		uses[d.File] = RoleDisk
	}
	delete(uses, "")
	return uses
}

// renameFiles brings the names of files to what they are called in the package.
// Envelope.Files has been changed; those that are not there are "".
func renameFiles(e *machine.Envelope, names map[string]string) {
	rename := func(s *string) {
		if name, ok := names[*s]; ok {
			*s = name
		}
	}
	for i := range e.Disks {
		rename(&e.Disks[i].File)
	}
	for _, m := range e.Machines {
		rename(&m.NVRAM)
		for i := range m.Disks {
			rename(&m.Disks[i].File)
		}
		for i := range m.CDROMs {
			rename(&m.CDROMs[i].File)
		}
	}
}

// lose notes that a file is not there.
func (a *Appliance) lose(name, reason string) {
	l := machine.Loss{Field: "file", Value: name, Reason: reason}
	if len(a.Machines) == 1 {
		a.Machines[0].Unread = append(a.Machines[0].Unread, l)
		return
	}
	a.Envelope.Unread = append(a.Envelope.Unread, l)
}
