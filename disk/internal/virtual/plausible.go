package virtual

import (
	"bytes"
	"errors"
	"fmt"
)

// ErrNotDisk says that a raw file is none that holds a disk.
var ErrNotDisk = errors.New("it does not look like a disk")

// sample is how much of a file is looked at, in bytes, in each of three places.
const sample = 64 << 10

// Sector is the smallest of a disk, in bytes.
const Sector = 512

// CheckDisk returns an error that is [ErrNotDisk] for a file that is no raw disk:
// text, a file of another kind, or of a size that is no multiple of unit. It is
// for files that an image or a descriptor names. Such a name can be of a private
// key or of a password store, and raw is what every file can be.
//
// It knows what is no disk, rather than what is one: a disk can begin with
// anything. What has no bytes has no secrets.
func CheckDisk(file Reader, unit int64) error {
	size := file.Size()
	bad := func(format string, args ...any) error {
		return Unsupported("%w: %s", ErrNotDisk, fmt.Sprintf(format, args...))
	}
	if size == 0 {
		return nil
	}
	n := min(sample, size)
	text := true // at the beginning, in the middle and at the end, or a disk may well have text there
	for i, off := range []int64{0, (size - n) / 2, size - n} {
		p, err := ReadPart(file, "file", off, n)
		if err != nil {
			return err
		}
		if text = text && isText(p); i == 0 {
			if kind := otherKind(p); kind != "" {
				return bad("it is %s", kind)
			}
		}
	}
	switch {
	case text:
		return bad("it is text")
	case size%unit != 0: // or less than one
		return bad("it has %d bytes, no whole number of sectors", size)
	}
	return nil
}

// isText says whether p has no byte that no text has, whatever its encoding, and
// more than a pattern.
func isText(p []byte) bool {
	unit, low := 1, 0 // bytes of a character, and which of them is that of ASCII
	switch {
	case bytes.HasPrefix(p, []byte("\xff\xfe")): // UTF-16
		unit = 2
	case bytes.HasPrefix(p, []byte("\xfe\xff")):
		unit, low = 2, 1
	}
	var ascii [0x80]bool
	kinds := 0
	for i := low; i < len(p); i += unit {
		c := p[i]
		if unit == 2 && (i|1 >= len(p) || p[i^1] != 0) || c >= 0x80 {
			continue // of another script
		}
		if c < '\b' || c > '\r' && c < ' ' && c != 0x1b || c == 0x7f {
			return false
		}
		if !ascii[c] {
			ascii[c] = true
			kinds++
		}
	}
	return kinds >= min(12, (len(p)+3)/4)
}

// otherKinds are files that are kept in whole sectors, or that are often private.
var otherKinds = []struct {
	offset int
	magic  string
	name   string
}{
	{0, "SQLite format 3\x00", "a database of SQLite"},
	{0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of Microsoft Office"},
	{0, "!BDN", "a mailbox of Outlook"},
	{0, "regf", "a part of the Windows registry"},
	{4, "\xef\xcd\xab\x89", "a database of Windows"},
	{12, "\x62\x31\x05\x00", "a database of Berkeley DB"},
	{12, "\x00\x05\x31\x62", "a database of Berkeley DB"},
	{12, "\x61\x15\x06\x00", "a database of Berkeley DB"},
	{12, "\x00\x06\x15\x61", "a database of Berkeley DB"},
	{0, "\x03\xd9\xa2\x9a", "a database of KeePass"},
	{8, "KBXf", "a key ring of GnuPG"},
	{0, "\xfe\xed\xfe\xed", "a key store of Java"},
	{0, "GnomeKeyring\n\r\x00\n", "a key ring of GNOME"},
	{0, "kych\x00", "a key chain of macOS"},
	{0, "PK\x03\x04", "a ZIP archive"},
	{0, "%PDF-", "a PDF document"},
}

func otherKind(head []byte) string {
	for _, k := range otherKinds {
		if k.offset <= len(head) && bytes.HasPrefix(head[k.offset:], []byte(k.magic)) {
			return k.name
		}
	}
	return ""
}
