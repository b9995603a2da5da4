package vhdx

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"unicode/utf16"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// # 2.6.2.6 Parent Locator

// locatorVHDX is the only type of a locator that the specification defines.
const locatorVHDX guid = "b04aefb7-d19e-4a81-b789-25b8e9445913"

// parseLocator returns the keys and values of a parent locator.
func parseLocator(b []byte) (map[string]string, error) {
	// 2.6.2.6.1 Parent Locator Header
	if len(b) < 20 {
		return nil, virtual.Corrupt("parent locator of %d bytes", len(b))
	}
	if kind := readGUID(b); kind != locatorVHDX {
		return nil, virtual.Unsupported("parent of type {%s}", kind)
	}
	count := int(le.Uint16(b[18:]))
	if count > (len(b)-20)/12 {
		return nil, virtual.Corrupt("parent locator of %d bytes with %d entries", len(b), count)
	}

	// 2.6.2.6.2 Parent Locator Entry
	pairs := map[string]string{}
	text := func(off uint32, length uint16) (string, error) {
		if int64(off) > int64(len(b)) || int(length) > len(b)-int(off) || length%2 != 0 {
			return "", virtual.Corrupt("text of %d bytes at %d in a parent locator of %d bytes", length, off, len(b))
		}
		units := make([]uint16, length/2)
		for n := range units {
			units[n] = le.Uint16(b[int(off)+2*n:])
		}
		return strings.TrimRight(string(utf16.Decode(units)), "\x00"), nil
	}
	for n := range count {
		entry := b[20+12*n:][:12]
		key, err := text(le.Uint32(entry), le.Uint16(entry[8:]))
		if err != nil {
			return nil, err
		}
		if _, ok := pairs[key]; ok {
			return nil, virtual.Corrupt("parent locator with two entries %q", key)
		}
		if pairs[key], err = text(le.Uint32(entry[4:]), le.Uint16(entry[10:])); err != nil {
			return nil, err
		}
	}
	return pairs, nil
}

// # 2.6.2.6.3 VHDX Parent Locator

// openParent finds the parent by the paths of the locator in the order that the
// specification wants, and last by its name beside the image.
func openParent(m metadata, folder virtual.Folder) (*Image, error) {
	locator, err := parseLocator(m.parentLocator)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, key := range []string{"relative_path", "volume_path", "absolute_win32_path"} {
		if path := locator[key]; path != "" {
			paths = append(paths, strings.ReplaceAll(path, `\`, "/"))
		}
	}
	if len(paths) == 0 {
		return nil, virtual.Corrupt("parent locator without a path")
	}
	if folder == nil {
		return nil, fmt.Errorf("%w: %q", virtual.ErrBackingFile, paths[0])
	}
	last := paths[len(paths)-1]
	paths = append(paths, last[strings.LastIndex(last, "/")+1:])

	var missing, denied error // the first of each
	for _, path := range paths {
		file, beside, err := folder.Parent(path)
		switch {
		case errors.Is(err, virtual.ErrBackingFile):
			denied = cmp.Or(denied, err)
			continue
		case errors.Is(err, fs.ErrNotExist):
			missing = cmp.Or(missing, err)
			continue
		case err != nil:
			return nil, err
		}
		parent, err := checkParent(file, beside, locator, m)
		if err != nil {
			return nil, fmt.Errorf("opening parent %q: %w", path, err)
		}
		return parent, nil
	}
	// The paths of another machine are often denied; the one that could be here
	// is more to the point.
	return nil, cmp.Or(missing, denied)
}

// checkParent opens a parent and makes sure that it is the one.
func checkParent(file virtual.Reader, folder virtual.Folder, locator map[string]string, child metadata) (*Image, error) {
	parent, err := Open(file, Options{Folder: folder})
	if err != nil {
		return nil, err
	}
	// The second linkage is there while a merge changes the parent's GUID.
	is := false
	for _, key := range []string{"parent_linkage", "parent_linkage2"} {
		is = is || strings.EqualFold(locator[key], "{"+string(parent.dataWriteGUID)+"}")
	}
	if !is {
		return nil, virtual.Corrupt("is not the parent: it has DataWriteGuid {%s}, wanted %s", parent.dataWriteGUID, locator["parent_linkage"])
	}
	if parent.metadata.sectorSize != child.sectorSize {
		return nil, virtual.Corrupt("sectors of %d bytes, those of its child have %d", parent.metadata.sectorSize, child.sectorSize)
	}
	return parent, nil
}
