package disk

import (
	"bytes"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// A magic number says what a file is. Formats that this package does not read
// are known so that they are not taken for the bytes of a disk.
var magics = []struct {
	name   string
	offset int // from the end of the file if negative
	magic  string
}{
	{"QCOW", 0, "QFI\xfb\x00\x00\x00\x01"},
	{"VMDK", 0, "KDMV"},
	{"VMDK (ESX 3 sparse)", 0, "COWD"},
	{"VMDK descriptor", 0, "# Disk DescriptorFile"},
	{"VDI", 0x40, "\x7f\x10\xda\xbe"},
	{"VHDX", 0, "vhdxfile"},
	{"VHD", 0, "conectix"},
	{"VHD", -512, "conectix"}, // fixed VHDs have nothing else
	{"VHD", -511, "conectix"}, // Virtual PC before 2004 left out one byte
	{"QED", 0, "QED\x00"},
	{"Parallels", 0, "WithoutFreeSpace"},
	{"Parallels", 0, "WithouFreSpacExt"},
	{"Bochs", 0, "Bochs Virtual HD Image"},
	{"DMG", -512, "koly"},
	{"EnCase", 0, "EVF\x09\x0d\x0a\xff\x00"},
	{"WIM", 0, "MSWIM\x00\x00\x00"},
}

const qcow2Magic = "QFI\xfb"

// detect finds the format of a file by its content. A file without a known
// magic number is raw.
func detect(r Reader) (Format, error) {
	n := min(headLen, r.Size())
	head, tail := make([]byte, n), make([]byte, n)
	if m, err := r.ReadAt(head, 0); m < len(head) {
		return "", err
	}
	if m, err := r.ReadAt(tail, r.Size()-n); m < len(tail) {
		return "", err
	}
	for _, m := range magics {
		part, at := head, m.offset
		if at < 0 {
			part, at = tail, len(tail)+at
		}
		if at >= 0 && at <= len(part) && bytes.HasPrefix(part[at:], []byte(m.magic)) {
			return "", virtual.Unsupported("format %s (if these are the bytes of a disk, say that it is raw)", m.name)
		}
	}
	if by := compressedBy(head); by != "" {
		return "", &CompressedError{by}
	}
	if bytes.HasPrefix(head, []byte(qcow2Magic)) {
		return QCOW2, nil
	}
	return Raw, nil
}
