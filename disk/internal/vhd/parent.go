package vhd

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// Platform codes of parent locators, in the order in which they are tried: a
// relative name survives that all files move.
const (
	codeW2ru = 0x57327275 // relative, for Windows, UTF-16
	codeW2ku = 0x57326b75 // absolute
	codeMacX = 0x4d616358 // a file URL, UTF-8; XenServer has relative ones
	codeWi2r = 0x57693272 // deprecated: relative
	codeWi2k = 0x5769326b // deprecated: absolute

	// maxLocator bounds the name of a file. Windows has no longer ones.
	maxLocator = 64 << 10
)

// # Implementing a Differencing Hard Disk

// openParent finds the parent by the names that the disk has of it, and knows it
// by its Unique ID. The Parent Time Stamp says nothing: a copy of a file is
// younger than it.
func (h *header) openParent(file virtual.Reader, folder virtual.Folder) (virtual.Reader, error) {
	names, err := h.parentNames(file)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, virtual.Corrupt("differencing disk that does not name its parent")
	}
	missing := fmt.Errorf("%w: %q", virtual.ErrBackingFile, names[0])
	if folder == nil {
		return nil, missing
	}
	gone := false    // one of the names could have been opened
	var denied error // of the first that may not be
	var wrong error  // about the first file that is there, but is not it
	for _, name := range names {
		file, below, err := folder.Parent(name)
		switch {
		case errors.Is(err, virtual.ErrBackingFile):
			denied = cmp.Or(denied, err)
			continue
		case errors.Is(err, fs.ErrNotExist):
			gone = true
			continue
		case err == nil:
			if err = h.checkParent(name, file); err != nil {
				virtual.Forget(folder, file)
			}
		}
		if err != nil {
			if wrong == nil {
				wrong = err
			}
			continue
		}
		r, err := Open(file, Options{Folder: below})
		if err != nil {
			return nil, fmt.Errorf("opening parent %q: %w", name, err)
		}
		return r, nil
	}
	if wrong != nil {
		return nil, wrong
	}
	if gone {
		return nil, missing
	}
	return nil, cmp.Or(denied, missing)
}

func (h *header) checkParent(name string, file virtual.Reader) error {
	f, err := findFooter(file)
	if err != nil {
		return fmt.Errorf("opening parent %q: %w", name, err)
	}
	if f.uniqueID != h.parentID {
		return virtual.Corrupt("%q is not the parent: it has ID %x, wanted %x", name, f.uniqueID, h.parentID)
	}
	return nil
}

// parentNames are the names that the disk has of its parent, as names with
// slashes, and then what is left of them when the parent lies beside it.
func (h *header) parentNames(file virtual.Reader) (names []string, err error) {
	for _, code := range []uint32{codeW2ru, codeW2ku, codeMacX, codeWi2r, codeWi2k} {
		for _, l := range h.locators {
			if l.code != code || l.length == 0 {
				continue
			}
			name, err := l.read(file)
			if err != nil {
				return nil, err
			}
			names = append(names, name)
		}
	}
	// Windows has its whole path here.
	names = append(names, windowsPath(utf16Name(h.parentName, true)))
	for _, name := range slices.Clone(names) {
		names = append(names, path.Base(name))
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" || name == "." || name == "/" })
	return uniq(names), nil
}

// uniq leaves out all but the first of names that are the same.
func uniq(names []string) (once []string) {
	for _, name := range names {
		if !slices.Contains(once, name) {
			once = append(once, name)
		}
	}
	return once
}

func (l locator) read(file virtual.Reader) (string, error) {
	if l.length > maxLocator {
		return "", virtual.Corrupt("parent locator of %d bytes", l.length)
	}
	b, err := virtual.ReadPart(file, "parent locator", l.offset, l.length)
	if err != nil {
		return "", err
	}
	switch l.code {
	case codeW2ru, codeW2ku:
		return windowsPath(utf16Name(b, false)), nil
	case codeMacX:
		return fileURL(untilNUL(string(b))), nil
	}
	return windowsPath(untilNUL(string(b))), nil
}

// utf16Name decodes a name, up to its first NUL. The specification has no word
// on the byte order: all is big endian, and so is the Parent Unicode Name that
// Windows writes, but its locators are not. As others were misled by that, and
// every name has some ASCII, the order counts that gives more of it.
func utf16Name(b []byte, bigEndian bool) string {
	var little, big []uint16
	surplus := 0 // of ASCII in big
	for ; len(b) >= 2; b = b[2:] {
		little = append(little, uint16(b[1])<<8|uint16(b[0]))
		big = append(big, uint16(b[0])<<8|uint16(b[1]))
		if b[0] == 0 && b[1] != 0 && b[1] < 0x80 {
			surplus++
		}
		if b[1] == 0 && b[0] != 0 && b[0] < 0x80 {
			surplus--
		}
	}
	units := little
	if surplus > 0 || surplus == 0 && bigEndian {
		units = big
	}
	return untilNUL(strings.TrimPrefix(string(utf16.Decode(units)), "\ufeff"))
}

func untilNUL(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s
}

// windowsPath has slashes. A drive letter, or the two slashes of a share, is for
// the [virtual.Folder] to judge.
func windowsPath(s string) string { return clean(strings.ReplaceAll(s, `\`, "/")) }

// fileURL is the path of a URL as "file://localhost/directory/parent.vhd".
// XenServer has "file://./parent.vhd".
func fileURL(s string) string {
	rest, ok := strings.CutPrefix(s, "file://")
	if !ok {
		return ""
	}
	if local, ok := strings.CutPrefix(rest, "localhost/"); ok {
		rest = "/" + local
	}
	name, err := url.PathUnescape(rest)
	if err != nil {
		return ""
	}
	return clean(name)
}

func clean(s string) string {
	switch {
	case s == "":
		return ""
	case strings.HasPrefix(s, "//"): // a share
		return "/" + path.Clean(s[1:])
	}
	return path.Clean(s)
}
