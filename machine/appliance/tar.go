package appliance

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/davit-oci/davit/machine"
)

// maxMembers limits the entries of an OVA: the files of all disks and folders,
// and what a package has beside them.
const maxMembers = machine.MaxDisks + 64

// A member is a file of the package, where it lies.
type member struct {
	name string
	Section
	offset int64 // in the archive
}

// readTar finds the members of a tar archive, of which it reads the headers
// alone. An archive that two programs could unpack to different files is
// malformed: names are relative, each is there once, and all of them are
// regular files. What real products leave out is no fault: padding, the blocks
// of zeros at the end, and the order of DSP0243.
func readTar(ctx context.Context, r io.ReaderAt, size int64) ([]member, error) {
	var (
		members []member
		at      = io.NewSectionReader(r, 0, size) // archive/tar seeks in it, and reads nothing ahead
		archive = tar.NewReader(at)
		known   = make(map[string]bool)
	)
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return members, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, machine.Malformed("tar archive, entry %d: %w", n, err)
		}
		if n == maxMembers {
			return nil, machine.Malformed("tar archive: more than %d entries", maxMembers)
		}
		name, err := memberName(h.Name)
		if err != nil {
			return nil, machine.Malformed("tar archive, entry %d: %w", n, err)
		}
		switch {
		case h.Typeflag == tar.TypeXGlobalHeader:
			// Comments of git archive, say. archive/tar heeds none of it.
			for _, key := range []string{"path", "linkpath", "size"} {
				if _, set := h.PAXRecords[key]; set {
					return nil, machine.Malformed("tar archive, entry %d: it sets the %s of all members", n, key)
				}
			}
			continue
		case h.Typeflag == tar.TypeDir:
			continue // a folder is made for what is in it
		case isSparse(h):
			return nil, machine.Malformed("tar archive: %q is stored with holes (tar --sparse)", name)
		case h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeCont:
			return nil, machine.Malformed("tar archive: %q is no regular file (type %q)", name, h.Typeflag)
		case name == "":
			return nil, machine.Malformed("tar archive, entry %d: it has no name", n)
		case isAppleDouble(name):
			continue
		}
		if lower := strings.ToLower(name); known[lower] {
			return nil, machine.Malformed("tar archive: two members are called %q", name)
		} else {
			known[lower] = true
		}
		off, err := at.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if h.Size > size-off {
			return nil, machine.Malformed("tar archive: it ends in %q, which has %d bytes from %d; the archive has %d", name, h.Size, off, size)
		}
		members = append(members, member{name, io.NewSectionReader(r, off, h.Size), off})
	}
}

// isSparse knows the forms of GNU tar: one of its own and three of PAX.
func isSparse(h *tar.Header) bool {
	return h.Typeflag == tar.TypeGNUSparse ||
		slices.ContainsFunc(slices.Collect(maps.Keys(h.PAXRecords)), func(key string) bool { return strings.HasPrefix(key, "GNU.sparse.") })
}

// isAppleDouble knows what the tar of macOS puts before a file that has
// attributes: ._NAME. It is about the Mac that the file was on.
func isAppleDouble(name string) bool {
	return strings.HasPrefix(name[strings.LastIndexByte(name, '/')+1:], "._")
}

// memberName returns a name of a package in the one form that it has here:
// relative to the descriptor, with slashes, of UTF-8. "" is the folder itself.
func memberName(s string) (string, error) {
	name := s
	for strings.HasPrefix(name, "./") {
		name = strings.TrimLeft(name[2:], "/")
	}
	if name == "" || name == "." {
		return "", nil
	}
	name = strings.TrimSuffix(name, "/")
	bad := len(name) > 1024 || !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) ||
		strings.Contains(name, `\`) || len(name) > 1 && name[1] == ':' // Windows: a folder, a drive
	for e := range strings.SplitSeq(name, "/") {
		bad = bad || e == "" || e == "." || e == ".."
	}
	if bad {
		return "", fmt.Errorf("%q is no name of a file in the package", s)
	}
	return name, nil
}

// checkTitle says whether a layer can have a name for its title: a relative
// path, with slashes, that means the same file on every system.
func checkTitle(name string) error {
	if m, err := memberName(name); err != nil || m == "" || m != name {
		return fmt.Errorf("%q is no name of a file in the package", name)
	}
	if len(name) > 255 {
		return fmt.Errorf("the file %q cannot be kept under its name, which has more than 255 bytes", name)
	}
	for elem := range strings.SplitSeq(name, "/") {
		if err := machine.CheckName(elem); err != nil {
			return fmt.Errorf("the file %q cannot be kept under its name: %w", name, err)
		}
	}
	return nil
}
