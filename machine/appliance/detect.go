package appliance

import (
	"archive/tar"
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"path/filepath"
	"strings"

	"github.com/davit-oci/davit/machine"
)

// headSize is how much of a file says what it is, in bytes: comments may stand
// before the root of an XML document, and settings before the version in a VMX.
const headSize = 64 << 10

// extensions are those that nobody gives to a disk.
var extensions = map[string]Kind{".ova": OVA, ".ovf": OVF, ".vmx": VMX, ".vmtx": VMX, ".vbox": VirtualBox, ".xml": Libvirt}

// detect says what the file is that is called name, by its beginning.
//
// A guest can write anything to the beginning of its raw disk, and must not
// make it a machine by that. So text is believed below the size of any real
// disk only, or if the file is named for it, and a tar archive if it is named
// for it or has an OVF in front. What is named for a machine and is none is an
// error: it is no disk either.
func detect(r io.ReaderAt, size int64, name string) (Kind, error) {
	ext := strings.ToLower(filepath.Ext(name))
	named, isNamed := extensions[ext]
	head := make([]byte, min(headSize, size))
	if err := readFull(r, head, 0); err != nil {
		return "", err
	}
	switch {
	case isTar(head):
		if named == OVA || ext == ".tar" || beginsWithOVF(r, size) {
			return OVA, nil
		}
	case bytes.HasPrefix(head, []byte("\x1f\x8b")):
		if named == OVA || strings.Contains(strings.ToLower(filepath.Base(name)), ".ova.") {
			return "", machine.Unsupported("the whole OVA is compressed by gzip: gunzip it first")
		}
	case size > machine.MaxDescriptor:
	case looksLikeXML(head):
		if kind := kindOfXML(head); kind != "" {
			return kind, nil
		}
		if isNamed && named != OVA && named != VMX && ext != ".xml" {
			return named, nil // its reader says what is wrong
		}
	case named == VMX && len(head) > 0 && bytes.IndexByte(head, 0) < 0, isVMX(head):
		return VMX, nil
	}
	if !isNamed {
		return "", ErrNotMachine
	}
	if size > machine.MaxDescriptor && named != OVA {
		return "", machine.Malformed("it is named %s and has %d bytes, more than %d", ext, size, machine.MaxDescriptor)
	}
	what := map[Kind]string{
		OVA: "tar archive", OVF: "XML document", VMX: "configuration of VMware", VirtualBox: "XML document", Libvirt: "domain of libvirt",
	}[named]
	return "", machine.Malformed("it is named %s, and is no %s", ext, what)
}

// isTar says whether head is an entry of a tar archive: of any form, for all
// have this sum of its bytes, those of the sum taken as spaces.
func isTar(head []byte) bool {
	const block, from, to = 512, 148, 156
	if len(head) < block {
		return false
	}
	var sum int64
	for i, c := range head[:block] {
		if i >= from && i < to {
			c = ' '
		}
		sum += int64(c)
	}
	var want int64
	digits := strings.Trim(string(head[from:to]), " \x00")
	for _, c := range []byte(digits) {
		if c < '0' || c > '7' {
			return false
		}
		want = want<<3 | int64(c-'0')
	}
	return digits != "" && sum == want
}

// beginsWithOVF says whether the first member of an archive is an OVF, as
// DSP0243 wants it.
func beginsWithOVF(r io.ReaderAt, size int64) bool {
	archive := tar.NewReader(io.NewSectionReader(r, 0, size))
	for range 4 { // after folders, and what macOS adds
		h, err := archive.Next()
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return false
		}
		if name, err := memberName(h.Name); err != nil || h.Typeflag == tar.TypeReg && !isAppleDouble(name) {
			return err == nil && isOVF(name)
		}
	}
	return false
}

func isOVF(name string) bool { return hasExtension(name, ".ovf") }

func hasExtension(name, ext string) bool {
	return len(name) > len(ext) && strings.EqualFold(name[len(name)-len(ext):], ext)
}

func looksLikeXML(head []byte) bool {
	for _, mark := range []string{"\xff\xfe<\x00", "\xfe\xff\x00<", "<\x00", "\x00<"} { // UTF-16
		if bytes.HasPrefix(head, []byte(mark)) {
			return true
		}
	}
	return bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n"), []byte("<"))
}

// kindOfXML goes by the root element alone.
func kindOfXML(head []byte) Kind {
	if bytes.IndexByte(head[:min(4, len(head))], 0) >= 0 { // UTF-16: names of elements are ASCII
		head = bytes.ReplaceAll(bytes.TrimLeft(head, "\xff\xfe"), []byte{0}, nil)
		if i := bytes.Index(head, []byte("?>")); i >= 0 {
			head = head[i+2:]
		}
	}
	d := xml.NewDecoder(bytes.NewReader(head))
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil }
	d.Strict = false
	for {
		token, err := d.Token()
		if err != nil {
			return ""
		}
		if e, ok := token.(xml.StartElement); ok {
			return map[string]Kind{"Envelope": OVF, "domain": Libvirt, "VirtualBox": VirtualBox}[e.Name.Local]
		}
	}
}

// isVMX looks for one of the settings that every VMX has.
func isVMX(head []byte) bool {
	if bytes.IndexByte(head, 0) >= 0 {
		return false
	}
	for line := range bytes.Lines(head) {
		key, _, ok := bytes.Cut(line, []byte("="))
		key = bytes.ToLower(bytes.TrimSpace(key))
		if ok && (string(key) == "config.version" || string(key) == "virtualhw.version") {
			return true
		}
	}
	return false
}
