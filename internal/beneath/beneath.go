// Package beneath finds files below a folder, for names that somebody else
// wrote: a descriptor, or an image whose guest may have written them.
package beneath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

// ErrHidden says that a part of a path begins with a dot. There people keep
// their keys and passwords, and no machine has a disk there.
var ErrHidden = errors.New("a part of its path begins with a dot")

// Find returns the file that name means below root: relative to root and
// without symbolic links, so that opening it in root opens what was looked at.
// Symbolic links do not lead out of root, and neither they nor name to what is
// hidden, unless that is allowed. Other errors are those of [os.Root.Stat].
func Find(root *os.Root, name string, hidden bool) (string, fs.FileInfo, error) {
	if !hidden && isHidden(name) {
		return "", nil, ErrHidden
	}
	info, err := root.Stat(name)
	if err != nil || hidden {
		return name, info, err
	}
	dir, err := filepath.EvalSymlinks(root.Name())
	if err != nil {
		return "", nil, err
	}
	real, err := filepath.EvalSymlinks(filepath.Join(dir, name)) // on Windows with .ssh for SSH~1
	if err != nil {
		return "", nil, err
	}
	rel, err := filepath.Rel(dir, real)
	if err != nil {
		return "", nil, err
	}
	if isHidden(rel) {
		return "", nil, ErrHidden
	}
	return rel, info, nil
}

// isHidden says whether an element of a path begins with a dot, whatever system
// the path is of. HFS+ knows no difference between a name and one with
// invisible characters in it.
func isHidden(name string) bool {
	name = strings.ReplaceAll(filepath.Clean(name), `\`, "/")
	for element := range strings.SplitSeq(filepath.ToSlash(name), "/") {
		element = strings.TrimLeftFunc(element, func(r rune) bool {
			return unicode.In(r, unicode.Cf, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
		})
		if strings.HasPrefix(element, ".") && element != "." && element != ".." {
			return true
		}
	}
	return false
}
