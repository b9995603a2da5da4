package disk

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/davit-oci/davit/disk/internal/vhd"
	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/davit-oci/davit/disk/internal/vmdk"
)

// A magic says what a file is. Things that this package does not read are known
// so that they are not taken for the bytes of a disk.
type magic struct {
	offset int // from the end of the file if negative
	magic  string
	format Format // "" if it is not read
	name   string // of what is not read
}

// magics are looked for in this order.
var magics = []magic{
	{0, "QFI\xfb\x00\x00\x00\x01", "", "QCOW"},
	{0, "QFI\xfb", QCOW2, ""},
	{0, "KDMV", VMDK, ""},
	{0, "COWD", VMDK, ""},
	{0, "\xbe\xba\xfe\xca\x00\x00\x00\x00", VMDK, ""}, // SESPARSE
	{0x40, "\x7f\x10\xda\xbe", VDI, ""},
	{0, "vhdxfile", VHDX, ""},
	{0, "conectix", VHD, ""},

	{0, "kdmv\x03\x00\x00\x00", "", "VMDK that vmdk-convert has not finished"},
	{0, "QED\x00", "", "QED"},
	{0, "WithoutFreeSpace", "", "Parallels"},
	{0, "WithouFreSpacExt", "", "Parallels"},
	{0, "Bochs Virtual HD Image", "", "Bochs"},
	{0, "EVF\x09\x0d\x0a\xff\x00", "", "EnCase"},
	{0, "MSWIM\x00\x00\x00", "", "WIM"},

	// The memory of a machine, which lies beside its disks.
	{0, "\xd0\xbe\xd2\xbe", "", "saved memory of a VMware machine"},
	{0, "\xd1\xba\xd1\xba", "", "saved memory of a VMware machine"},
	{0, "\xd2\xbe\xd2\xbe", "", "saved memory of a VMware machine"},
	{0, "\x7fVirtualBox SavedState", "", "saved memory of a VirtualBox machine"},
	{0, "LibvirtQemudSave", "", "saved memory of a libvirt machine"},
	{0, "LibvirtQemudPart", "", "saved memory of a libvirt machine"},
	{0, "QEVM", "", "saved memory of a QEMU machine"},

	{-512, "koly", "", "DMG"},
}

// A FormatError says that a file is not of the format that somebody said, which
// is [ErrCorrupt] as well if it is of another one.
type FormatError struct {
	Said  Format
	Found string // another format, as people call it; empty: none that is known, so that it is raw or damaged
	err   error  // of who read it as Said
}

func (e *FormatError) Error() string {
	if e.Found == "" {
		return e.err.Error()
	}
	return fmt.Sprintf("%v: it is %s, not %s", ErrCorrupt, e.Found, e.Said.Title())
}

// Unwrap returns what its reader said of it.
func (e *FormatError) Unwrap() []error {
	if e.Found == "" {
		return []error{e.err}
	}
	return []error{ErrCorrupt, e.err}
}

// orAnother is why a file is not what it was said to be: err, or that it is
// something else.
func orAnother(file Reader, said Format, err error) error {
	found, other := detect(file)
	var is string
	switch unknown := (*unknownError)(nil); {
	case errors.Is(other, ErrCompressed):
		return other // what is unpacked can be it
	case errors.As(other, &unknown):
		is = unknown.format
	case other != nil || found == said || said == Raw:
		return err
	case found == Raw:
	default:
		is = found.Title()
	}
	return &FormatError{said, is, err}
}

// An unknownError is of a format that is known, and not read.
type unknownError struct{ format string }

func (e *unknownError) Error() string {
	return fmt.Sprintf("%v: format %s (if these are the bytes of a disk, say that it is raw)", ErrUnsupported, e.format)
}

// Is is for [errors.Is].
func (e *unknownError) Is(target error) bool { return target == ErrUnsupported }

// Looks says what a file is by its content, as people call it: the title of a
// format, or the name of one that is not read. Empty: it is raw, as far as one can
// tell, or it cannot be read.
func Looks(r Reader) string {
	found, err := detect(r)
	var unknown *unknownError
	var compressed *CompressedError
	switch {
	case errors.As(err, &unknown):
		return unknown.format
	case errors.As(err, &compressed):
		return "compressed by " + compressed.By
	case err != nil || found == Raw:
		return ""
	}
	return found.Title()
}

// detect finds the format of a file by its content. A file without a known
// magic number is raw.
//
// A fixed VHD has its mark at the end, and a guest that owns the beginning; the
// clusters of other formats can end in what a guest wrote. A file that is both
// could be either.
func detect(r Reader) (Format, error) {
	n := min(headLen, r.Size())
	head, tail := make([]byte, n), make([]byte, n)
	if m, err := r.ReadAt(head, 0); m < len(head) {
		return "", err
	}
	if m, err := r.ReadAt(tail, r.Size()-n); m < len(tail) {
		return "", err
	}
	format, err := detectHead(head, tail)
	if !vhd.HasFooter(tail) || format == VHD {
		return format, err
	}
	if err != nil {
		return "", err
	}
	if format != Raw {
		return "", virtual.Unsupported("a VHD by its end and %s by its beginning (say which of them it is)", format)
	}
	return VHD, nil
}

func detectHead(head, tail []byte) (Format, error) {
	if by := virtual.CompressedBy(head); by != "" {
		return "", &CompressedError{by}
	}
	if vmdk.IsDescriptor(head) {
		return VMDK, nil
	}
	for _, m := range magics {
		part, at := head, m.offset
		if at < 0 {
			part, at = tail, len(tail)+at
		}
		if at < 0 || at > len(part) || !bytes.HasPrefix(part[at:], []byte(m.magic)) {
			continue
		}
		if m.format == "" {
			return "", &unknownError{m.name}
		}
		return m.format, nil
	}
	return Raw, nil
}
