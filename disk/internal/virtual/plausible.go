package virtual

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
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
// anything. One that has partitions or a file system is a disk, whatever else it
// begins with. What has no bytes has no secrets.
func CheckDisk(file Reader, unit int64) error { return checkDisk(file, unit, true) }

// CheckPart is CheckDisk for what comes after the beginning of a disk: a file of
// its guest may begin there, of whatever kind.
func CheckPart(file Reader, unit int64) error { return checkDisk(file, unit, false) }

func checkDisk(file Reader, unit int64, begins bool) error {
	size := file.Size()
	bad := func(format string, args ...any) error {
		return Unsupported("%w: %s", ErrNotDisk, fmt.Sprintf(format, args...))
	}
	if size == 0 {
		return nil
	}
	head, err := ReadPart(file, "file", 0, min(HeadSize, size))
	if err != nil {
		return err
	}
	end := min(2*4096, size)
	tail, err := ReadPart(file, "file", size-end, end)
	if err != nil {
		return err
	}
	if !hasDisk(head, tail) {
		if kind := otherKind(head, size); begins && kind != "" {
			return bad("it is %s", kind)
		}
		text, err := isText(file)
		if err != nil {
			return err
		}
		if text {
			return bad("it is text")
		}
	}
	if size%unit != 0 { // or less than one
		return bad("it has %d bytes, no whole number of sectors", size)
	}
	return nil
}

// hasDisk says whether a file with that beginning and end has the marks of a boot
// sector, a partition table or a file system.
func hasDisk(head, tail []byte) bool {
	has := func(b []byte, at int, magic string) bool {
		return at >= 0 && at <= len(b) && bytes.HasPrefix(b[at:], []byte(magic))
	}
	for _, sector := range []int{512, 4096} { // GPT, and the copy at its end
		if has(head, sector, "EFI PART") || has(tail, len(tail)-sector, "EFI PART") {
			return true
		}
	}
	return has(head, 510, "\x55\xaa") || // of a boot sector
		has(head, 0, "ER\x02\x00") || // Apple's partition map
		isSunLabel(head) || isExt(head) || len(Signatures(head)) > 0
}

// isExt is stricter than the two bytes of its magic number.
func isExt(head []byte) bool {
	if len(head) < 2048 {
		return false
	}
	super := head[1024:]
	field := func(at int) uint32 { return binary.LittleEndian.Uint32(super[at:]) }
	blockSize, revision := field(0x18), field(0x4c)
	return string(super[0x38:0x3a]) == "\x53\xef" && blockSize <= 6 && revision <= 1 && field(0) > 0 && field(4) > 0
}

// isSunLabel recognises the partition table of Solaris for SPARC by its magic
// number and its sum.
func isSunLabel(head []byte) bool {
	if len(head) < 512 || string(head[508:510]) != "\xda\xbe" {
		return false
	}
	var sum uint16
	for i := 0; i < 512; i += 2 {
		sum ^= binary.BigEndian.Uint16(head[i:])
	}
	return sum == 0
}

// encodings are those of texts: how many bytes a character has, and which of them
// is that of ASCII. UTF-16 often has no mark of its order.
var encodings = []struct{ unit, low int }{{1, 0}, {2, 0}, {2, 1}}

// isText says whether file is text at its beginning, in its middle and at its end,
// all in one encoding: a disk may well have text in one of these places.
func isText(file Reader) (bool, error) {
	size := file.Size()
	n := min(sample, size)
	possible := slices.Clone(encodings)
	for _, off := range []int64{0, (size - n) / 2 &^ 1, (size - n) &^ 1} {
		p, err := ReadPart(file, "file", off, n)
		if err != nil {
			return false, err
		}
		possible = slices.DeleteFunc(possible, func(e struct{ unit, low int }) bool {
			if e.unit == 1 {
				return !isBytes(p)
			}
			return !isUTF16(p, e.low)
		})
	}
	return len(possible) > 0, nil
}

// isControl says whether no text has the character.
func isControl(c rune) bool {
	return c < '\b' || c > '\r' && c < ' ' && c != 0x1b || c == 0x7f
}

// isBytes says whether p has no byte that no text has, whatever its encoding, and
// more than a pattern.
func isBytes(p []byte) bool {
	var ascii [0x80]bool
	kinds := 0
	for _, c := range p {
		if c >= 0x80 { // of another script
			continue
		}
		if isControl(rune(c)) {
			return false
		}
		if !ascii[c] {
			ascii[c] = true
			kinds++
		}
	}
	return kinds >= min(12, (len(p)+3)/4)
}

// isUTF16 says the same of UTF-16. Of other bytes some make what is no character,
// or half of one.
func isUTF16(p []byte, low int) bool {
	kinds := make(map[rune]bool)
	enough := min(12, (len(p)/2+3)/4)
	ascii, high := false, false
	for ; len(p) >= 2; p = p[2:] {
		c := rune(p[low]) | rune(p[1-low])<<8
		pair := high
		high = c >= 0xd800 && c < 0xdc00
		if isLow := c >= 0xdc00 && c < 0xe000; isLow != pair || c >= 0xfffe || c >= 0xfdd0 && c < 0xfdf0 || isControl(c) {
			return false
		}
		ascii = ascii || c < 0x80
		kinds[c] = true
	}
	return ascii && len(kinds) >= enough
}

// otherKinds are files that are kept in whole sectors, or that are often private.
// Where a file of a guest may begin they say nothing.
var otherKinds = []struct {
	offset int
	magic  string
	name   string
}{
	{0, "SQLite format 3\x00", "a database of SQLite"},
	{0, "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of Microsoft Office"},
	{0, "!BDN", "a mailbox of Outlook"},
	{0, "regf", "a part of the Windows registry"},
	{0, "ElfFile\x00", "an event log of Windows"},
	{4, "\xef\xcd\xab\x89", "a database of Windows"},
	{4, "Standard Jet DB\x00", "a database of Microsoft Access"},
	{4, "Standard ACE DB\x00", "a database of Microsoft Access"},
	{12, "\x62\x31\x05\x00", "a database of Berkeley DB"},
	{12, "\x00\x05\x31\x62", "a database of Berkeley DB"},
	{12, "\x61\x15\x06\x00", "a database of Berkeley DB"},
	{12, "\x00\x06\x15\x61", "a database of Berkeley DB"},
	{16, "\xde\xc0\xef\xbe", "a database of LMDB"},
	{16, "\xed\xda\x0c\xed", "a database of bbolt"},
	{0, "\xce\x9a\x57\x13", "a database of GDBM"},
	{0, "\xcf\x9a\x57\x13", "a database of GDBM"},
	{0, "TDB file\n", "a database of Samba"},
	{0, "LPKSHHRH", "a journal of systemd"},

	{0, "\x03\xd9\xa2\x9a", "a database of KeePass"},
	{8, "KBXf", "a key ring of GnuPG"},
	{0, "\xfe\xed\xfe\xed", "a key store of Java"},
	{0, "\xce\xce\xce\xce", "a key store of Java"},
	{0, "GnomeKeyring\n\r\x00\n", "a key ring of GNOME"},
	{0, "KWALLET\n\r\x00\r\n", "a wallet of KDE"},
	{0, "kych\x00", "a key chain of macOS"},
	{0, "\x05\x02\x00\x00\x00", "a key table of Kerberos"},
	{0, "\x05\x04\x00\x0c\x00\x01", "credentials of Kerberos"},
	{0, "age-encryption.org/", "encrypted by age"},
	{0, "Salted__", "encrypted by OpenSSL"},
	{0, "\x85\x01\x0c", "encrypted by OpenPGP"}, // for RSA of 2048 bits, and so on
	{0, "\x85\x01\x8c", "encrypted by OpenPGP"},
	{0, "\x85\x02\x0c", "encrypted by OpenPGP"},
	{0, "\x84\x5e\x03", "encrypted by OpenPGP"},
	{0, "\x8c\x0d\x04", "encrypted by OpenPGP"},
	{0, "\xc3\x0d\x04", "encrypted by OpenPGP"},

	{0, "\x7fELF", "an ELF file"},
	{0, "\xcf\xfa\xed\xfe", "a Mach-O file"},
	{0, "PAGEDU", "saved memory of Windows"},
	{0, "MDMP\x93\xa7", "saved memory of Windows"},
	{0, "HIBR", "saved memory of Windows"},
	{0, "hibr", "saved memory of Windows"},
	{0, "KDUMP   ", "saved memory of Linux"},
	{0, "makedumpfile\x00", "saved memory of Linux"},
	{0, "EMiL", "saved memory of Linux"}, // LiME
	{0, "\xd0\xbe\xd2\xbe", "saved memory of a VMware machine"},
	{0, "\xd1\xba\xd1\xba", "saved memory of a VMware machine"},
	{0, "\xd2\xbe\xd2\xbe", "saved memory of a VMware machine"},
	{0, "\x7fVirtualBox SavedState", "saved memory of a VirtualBox machine"},
	{0, "LibvirtQemudSave", "saved memory of a libvirt machine"},
	{0, "LibvirtQemudPart", "saved memory of a libvirt machine"},
	{0, "QEVM", "saved memory of a QEMU machine"},
	{0, "JAVA PROFILE 1.0", "saved memory of Java"},
	{0, "\xd4\xc3\xb2\xa1", "captured packets"},
	{0, "\xa1\xb2\xc3\xd4", "captured packets"},
	{0, "\x4d\x3c\xb2\xa1", "captured packets"},
	{0, "\x0a\x0d\x0d\x0a", "captured packets"},

	{0, "PK\x03\x04", "a ZIP archive"},
	{0, "070701", "a cpio archive"},
	{0, "070702", "a cpio archive"},
	{0, "070707", "a cpio archive"},
	{0, "!<arch>\n", "an ar archive"},
	{0, "xar!\x00", "a xar archive"},
	{0, "MSCF\x00\x00\x00\x00", "a CAB archive"},
	{0, "MSWIM\x00\x00\x00", "a WIM archive"},
	{0, "\xed\xab\xee\xdb", "an RPM package"},
	{24, "\x6c\xea\x00\x00", "an archive of dump"},
	{24, "\x00\x00\xea\x6c", "an archive of dump"},
	{0, "mozLz40\x00", "compressed by Mozilla"},

	{0, "%PDF-", "a PDF document"},
	{0, "%!PS-", "a PostScript document"},
	{0, "\xff\xd8\xff", "a JPEG picture"},
	{0, "\x89PNG\r\n\x1a\n", "a PNG picture"},
	{0, "GIF87a", "a GIF picture"},
	{0, "GIF89a", "a GIF picture"},
	{0, "II*\x00", "a TIFF picture"},
	{0, "MM\x00*", "a TIFF picture"},
	{0, "8BPS\x00\x01", "a picture of Photoshop"},
	{4, "ftyp", "a picture or a film"},
	{4, "moov", "a film"},
	{0, "\x1a\x45\xdf\xa3", "a film"},
	{8, "AVI LIST", "a film"},
	{8, "WAVEfmt ", "a recording"},
	{8, "WEBPVP8", "a picture"},
	{0, "OggS\x00", "a recording"},
	{0, "fLaC\x00", "a recording"},
	{0, "ID3\x03\x00", "a recording"},
	{0, "ID3\x04\x00", "a recording"},
}

// otherKind is what a file of size bytes that begins with head is if it is not a
// disk, "" if nothing known.
func otherKind(head []byte, size int64) string {
	for _, k := range otherKinds {
		if k.offset <= len(head) && bytes.HasPrefix(head[k.offset:], []byte(k.magic)) {
			return k.name
		}
	}
	switch by := CompressedBy(head); {
	case by == "tar" || isTar(head):
		return "a tar archive"
	case by != "":
		return "compressed by " + by
	case isCpio(head, binary.LittleEndian), isCpio(head, binary.BigEndian):
		return "a cpio archive"
	case isDER(head, size):
		return "a key or a certificate"
	case isOpenPGPKey(head):
		return "a key of OpenPGP"
	}
	return ""
}

// isTar recognises a header by its sum, which the archives of version 7 have
// instead of a magic number.
func isTar(head []byte) bool {
	const at, n = 148, 8 // of the sum
	if len(head) < 512 || head[0] == 0 {
		return false
	}
	text := strings.Trim(string(head[at:at+n]), " \x00")
	said, err := strconv.ParseUint(text, 8, 32)
	if err != nil {
		return false
	}
	var unsigned, signed int64
	for i, c := range head[:512] {
		if i >= at && i < at+n {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return int64(said) == unsigned || int64(said) == signed
}

// isCpio recognises the binary format, which has a magic number of two bytes: by
// the kind of the first file and by its name.
func isCpio(head []byte, order binary.ByteOrder) bool {
	const header = 26
	if len(head) < header || order.Uint16(head) != 0o070707 {
		return false
	}
	kind, nameLen := order.Uint16(head[6:])>>12, int(order.Uint16(head[20:]))
	if nameLen < 2 || header+nameLen > len(head) {
		return false
	}
	return bytes.IndexByte(head[header:], 0) == nameLen-1 && slices.Contains([]uint16{1, 2, 4, 6, 8, 10, 12}, kind)
}

// isDER recognises private keys, PKCS #12, certificates and the like: a sequence
// that is the whole file, or one that begins with a version.
func isDER(head []byte, size int64) bool {
	if len(head) < 8 || head[0] != 0x30 {
		return false
	}
	length, rest := int64(head[1]), head[2:]
	if n := int(head[1]) - 0x80; n >= 0 {
		if n > 4 {
			return false
		}
		length = 0
		for _, c := range rest[:n] {
			length = length<<8 | int64(c)
		}
		rest = rest[n:]
	}
	whole := int64(len(head)-len(rest)) + length
	if whole == size {
		return true
	}
	const sequence, octets, integer = 0x30, 0x04, 0x02
	return len(rest) >= 4 && rest[0] == integer && rest[1] == 1 && rest[2] <= 3 &&
		(rest[3] == sequence || rest[3] == octets || rest[3] == integer) &&
		(whole < size || head[1] == 0x80)
}

// isOpenPGPKey recognises the packet of a key, RFC 9580, 4.2 and 5.5.2, by all that
// it must have: a version, a time since 1990 and an algorithm.
func isOpenPGPKey(head []byte) bool {
	if len(head) < 16 {
		return false
	}
	const secret, public = 5, 6
	tag, at := 0, 0
	switch c := head[0]; {
	case c&0xc0 == 0xc0:
		tag, at = int(c&0x3f), 2
		if head[1] >= 192 {
			at = 3
		}
	case c&0xc0 == 0x80 && c&3 < 2:
		tag, at = int(c>>2&0xf), 2+int(c&3)
	}
	if tag != secret && tag != public {
		return false
	}
	version, created, algorithm := head[at], binary.BigEndian.Uint32(head[at+1:]), head[at+5]
	if version == 3 { // days of its validity
		algorithm = head[at+7]
	}
	return version >= 3 && version <= 6 && created > 20*365*24*3600 && created < 1<<31 &&
		(algorithm >= 1 && algorithm <= 3 || algorithm >= 16 && algorithm <= 22 || algorithm >= 25 && algorithm <= 28)
}
