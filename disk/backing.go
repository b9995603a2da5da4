package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/davit-oci/davit/disk/internal/qcow2"
	"github.com/davit-oci/davit/disk/internal/raw"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// maxChain limits the images of a backing chain. It bounds open files and
// caches, and ends a chain that is made to be endless.
const maxChain = 32

// A chain opens backing files, one below the other, inside of one folder.
type chain struct {
	root  *os.Root // nil: no second file
	roots []string // absolute names of root's folder
	dirs  []string // absolute names of the folder of the last image
	seen  []os.FileInfo
	files []*os.File
}

func newChain(path string, f *os.File, backingDir string) (*chain, error) {
	c := &chain{}
	if backingDir == "" {
		return c, nil
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	c.seen = append(c.seen, info)
	if c.roots, err = names(backingDir); err != nil {
		return nil, err
	}
	if c.dirs, err = names(filepath.Dir(path)); err != nil {
		return nil, err
	}
	c.root, err = os.OpenRoot(backingDir)
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

func (c *chain) close() {
	if c.root != nil {
		c.root.Close()
	}
}

// open opens the backing file of the image that was opened last.
func (c *chain) open(name, format string) (virtual.Reader, error) {
	if c.root == nil {
		return nil, fmt.Errorf("%w: %q", ErrBackingFile, name)
	}
	local, err := c.local(name)
	if err != nil {
		return nil, err
	}
	file, err := c.openFile(local)
	if err != nil {
		return nil, fmt.Errorf("opening backing file %q: %w", name, err)
	}

	// A second detection of an image that somebody else may write to is no
	// risk: only the answer "raw" counts, and raw interprets nothing.
	if format == "" {
		found, err := detect(file)
		if err != nil || found != Raw {
			return nil, fmt.Errorf("%w: the image does not record the format of %q, and guessing it is not safe", ErrBackingFile, name)
		}
		format = string(Raw)
	}

	c.dirs = []string{filepath.Dir(filepath.Join(c.roots[1], local))}
	switch Format(format) {
	case Raw:
		return file, nil
	case QCOW2:
		r, err := qcow2.Open(file, qcow2.Options{Backing: c.open})
		if err != nil {
			return nil, fmt.Errorf("opening backing file %q: %w", name, err)
		}
		return r, nil
	}
	return nil, fmt.Errorf("opening backing file %q: %w", name, virtual.Unsupported("format %q", format))
}

// local is the name of a backing file inside of root. What symbolic links make
// of it is root's to check.
func (c *chain) local(name string) (string, error) {
	path := name
	if scheme, rest, ok := strings.Cut(name, ":"); ok && !strings.Contains(scheme, "/") && filepath.VolumeName(name) == "" {
		if scheme != "file" {
			return "", fmt.Errorf("%w: %q is not the name of a file", ErrBackingFile, name)
		}
		path = rest
	}
	path = filepath.FromSlash(path)
	for _, dir := range c.dirs {
		abs := filepath.Clean(path)
		if !filepath.IsAbs(path) {
			abs = filepath.Join(dir, path)
		}
		for _, root := range c.roots {
			if rel, err := filepath.Rel(root, abs); err == nil && filepath.IsLocal(rel) {
				return rel, nil
			}
		}
	}
	return "", fmt.Errorf("%w: %q is outside of %s", ErrBackingFile, name, c.roots[0])
}

func (c *chain) openFile(local string) (*raw.Image, error) {
	if len(c.seen) == maxChain {
		return nil, virtual.Unsupported("a chain of more than %d images", maxChain)
	}
	// Asked first, because opening a named pipe waits for its other end.
	info, err := c.root.Stat(local)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, virtual.Unsupported("not a regular file")
	}
	for _, s := range c.seen {
		if os.SameFile(s, info) {
			return nil, virtual.Corrupt("the backing chain is a loop")
		}
	}
	f, err := c.root.Open(local)
	if err != nil {
		return nil, err
	}
	c.seen = append(c.seen, info)
	c.files = append(c.files, f)
	return raw.Open(f)
}
