package vmdk

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/davit-oci/davit/internal/charset"
)

// # The Descriptor File

// maxDescriptor is far above what products write, a few KiB; thousands of
// extents need some hundred.
const maxDescriptor = 1 << 20

// maxRemains is how much of a longer text may follow a descriptor: QEMU writes a
// new content ID without its leading zeros, and then a NUL over the end.
const maxRemains = 16

// noParent is the parentCID of a disk that is no delta, CID_NOPARENT.
const noParent = 0xffffffff

// A descriptor says of which extents a disk is made, and in which parent it
// continues. What else it says is for machines.
type descriptor struct {
	encoding   string // of names, which are as they are in the file
	cid        uint32
	parentCID  uint32
	parentHint string // parentFileNameHint
	extents    []extentLine

	// By VirtualBox, which does not use content IDs; empty if there is none.
	uuid, parentUUID                 string
	modification, parentModification string // when they were written to last
}

// An extentLine is an extent description.
type extentLine struct {
	size   int64 // in bytes, as offset
	kind   string
	name   string
	offset int64
}

const isRaw = "(if these are the bytes of a disk, say that it is raw)"

// readDescriptor reads a descriptor file. A disk whose guest has written a
// descriptor to its first sector is not one: it is too large, or has bytes that
// are no text.
func readDescriptor(file virtual.Reader) (*descriptor, error) {
	if size := file.Size(); size > maxDescriptor {
		return nil, virtual.Corrupt("descriptor of %d bytes %s", size, isRaw)
	}
	b, err := virtual.ReadPart(file, "descriptor", 0, file.Size())
	if err != nil {
		return nil, err
	}
	b, rest, _ := bytes.Cut(b, []byte{0})
	if len(bytes.TrimRight(rest, "\x00")) > maxRemains {
		return nil, virtual.Corrupt("descriptor with bytes that are no text %s", isRaw)
	}
	if !IsDescriptor(b) {
		return nil, virtual.Corrupt("neither a sparse extent nor a descriptor %s", isRaw)
	}
	return parseDescriptor(b)
}

// IsDescriptor reports whether b begins as a descriptor file does: with its
// signature, perhaps after other comments.
func IsDescriptor(b []byte) bool {
	for line := range bytes.Lines(bytes.TrimPrefix(b, []byte("\ufeff"))) {
		line = bytes.TrimSpace(line)
		comment, ok := bytes.CutPrefix(line, []byte("#"))
		if !ok && len(line) > 0 {
			break
		}
		if strings.EqualFold(string(bytes.TrimSpace(comment)), "Disk DescriptorFile") {
			return true
		}
	}
	return false
}

// readEmbedded reads the descriptor that is embedded in a hosted sparse extent.
// Not all have the signature.
func readEmbedded(file virtual.Reader) (*descriptor, error) {
	h, err := readHeader(file, 0)
	if err != nil {
		return nil, err
	}
	off, n := sectors(h.descriptorOffset), sectors(h.descriptorSize)
	if n > maxDescriptor {
		return nil, virtual.Corrupt("descriptor of %d bytes", n)
	}
	if off == 0 {
		n = 0
	}
	b, err := virtual.ReadPart(file, "descriptor", off, n)
	if err != nil {
		return nil, err
	}
	b, _, _ = bytes.Cut(b, []byte{0})
	if len(bytes.TrimSpace(b)) == 0 { // extents of split disks have none, or room for one
		return nil, errNoDescriptor
	}
	return parseDescriptor(b)
}

var errNoDescriptor = virtual.Unsupported("an extent without a descriptor: open the descriptor file that names it")

// parseDescriptor parses the lines of a descriptor. Keys are read in any case;
// what is not known does not matter.
func parseDescriptor(b []byte) (*descriptor, error) {
	d := &descriptor{parentCID: noParent}
	values := map[string]string{}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if access := strings.Fields(line)[0]; isAccess(access) {
			e, err := parseExtent(access, line[len(access):])
			if err != nil {
				return nil, fmt.Errorf("extent %q: %w", line, err)
			}
			if d.extents = append(d.extents, e); len(d.extents) > maxExtents {
				return nil, virtual.Unsupported("more than %d extents", maxExtents)
			}
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, virtual.Corrupt("line %d of the descriptor: %q", n, line)
		}
		key = strings.ToLower(strings.TrimSpace(key))
		if _, ok := values[key]; !ok {
			values[key] = strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return d, d.set(values)
}

func isAccess(word string) bool {
	return strings.EqualFold(word, "RW") || strings.EqualFold(word, "RDONLY") || strings.EqualFold(word, "NOACCESS")
}

// set takes what matters out of the values, by keys in lower case.
func (d *descriptor) set(values map[string]string) error {
	if err := checkFeatures(values); err != nil {
		return err
	}
	var err error
	if d.cid, err = parseCID(values, "cid"); err != nil {
		return err
	}
	if d.parentCID, err = parseCID(values, "parentcid"); err != nil {
		return err
	}
	d.encoding, d.parentHint = values["encoding"], values["parentfilenamehint"]
	if d.parentCID == noParent && d.parentHint != "" {
		return virtual.Corrupt("a disk that has no parent, but names %q", d.parentHint)
	}
	d.uuid, d.parentUUID = uuid(values["ddb.uuid.image"]), uuid(values["ddb.uuid.parent"])
	d.modification, d.parentModification = uuid(values["ddb.uuid.modification"]), uuid(values["ddb.uuid.parentmodification"])
	return nil
}

// checkFeatures refuses, by name, what the disk needs and we have not.
func checkFeatures(values map[string]string) error {
	if v, ok := values["version"]; ok {
		switch v {
		case "1", "2", "3", "4": // later ones only add keys: change tracking, native snapshots
		default:
			return virtual.Unsupported("descriptor of version %q", v)
		}
	}
	// The extents say where the disk is. A type that nobody has is a disk that
	// VMware does not open, and of which something may be other than we think.
	switch strings.ToLower(values["createtype"]) {
	case "", "custom", "monolithicsparse", "monolithicflat", "streamoptimized",
		"2gbmaxextentsparse", "2gbmaxextentflat", "twogbmaxextentsparse", "twogbmaxextentflat",
		"vmfs", "vmfspreallocated", "vmfseagerzeroedthick", "vmfsthin", "vmfssparse", "vmfssesparse", "sesparse":
	case "fulldevice", "partitioneddevice",
		"vmfsraw", "vmfsrdm", "vmfsrdmp", "vmfsrawdevicemap", "vmfspassthroughrawdevicemap":
		return virtual.Unsupported("createType %q: the disk is a device of its host", values["createtype"])
	default:
		return virtual.Unsupported("createType %q is none that is known", values["createtype"])
	}
	for key, value := range values {
		if strings.HasPrefix(key, "encryption") || key == "ddb.iofilters" && strings.Contains(value, "crypt") {
			return virtual.Unsupported("encryption")
		}
	}
	return nil
}

// parseCID is a content ID, noParent if there is none: no delta has that for its
// parent's.
func parseCID(values map[string]string, key string) (uint32, error) {
	value, ok := values[key]
	if !ok {
		return noParent, nil
	}
	id, err := strconv.ParseUint(value, 16, 32)
	if err != nil {
		return 0, virtual.Corrupt("%s of the descriptor: %q", key, value)
	}
	return uint32(id), nil
}

// uuid is a UUID of VirtualBox in one spelling, empty if it is none.
func uuid(s string) string {
	if strings.Trim(s, "0-") == "" {
		return ""
	}
	return strings.ToLower(s)
}

// # Extent descriptions

// parseExtent parses what follows the access of an extent: size, type, and, but
// for ZERO, name, then perhaps the offset in the file and what devices have.
func parseExtent(access, rest string) (extentLine, error) {
	if strings.EqualFold(access, "NOACCESS") {
		return extentLine{}, virtual.Unsupported("access %s", access)
	}
	front, behind, _ := strings.Cut(rest, `"`)
	words := strings.Fields(front)
	if len(words) != 2 {
		return extentLine{}, virtual.Corrupt("want a size and a type, and behind them a name in quotes")
	}
	size, err := parseSectors(words[0])
	if err != nil {
		return extentLine{}, err
	}
	e := extentLine{size: size, kind: strings.ToUpper(words[1])}
	switch e.kind {
	case "ZERO":
		return e, nil
	case "FLAT", "VMFS", "SPARSE", "VMFSSPARSE", "SESPARSE":
	case "VMFSRDM", "VMFSRAW":
		return extentLine{}, virtual.Unsupported("type %s: it is a device of its host", e.kind)
	default:
		return extentLine{}, virtual.Unsupported("type %s", e.kind)
	}

	name, behind, ok := strings.Cut(behind, `"`)
	if e.name = name; !ok || name == "" {
		return extentLine{}, virtual.Corrupt("no name in quotes")
	}
	if words = strings.Fields(behind); len(words) > 0 {
		e.offset, err = parseSectors(words[0])
	}
	return e, err
}

// parseSectors parses a number of sectors, and returns bytes.
func parseSectors(s string) (int64, error) {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n > maxSize/sectorSize {
		return 0, virtual.Corrupt("%q sectors", s)
	}
	return int64(n) * sectorSize, nil
}

// # Names

// fileName is a name of the descriptor as one in UTF-8, with slashes.
func (d *descriptor) fileName(name string) (string, error) {
	switch {
	case strings.HasPrefix(name, "/dev/"), strings.HasPrefix(name, "/vmfs/devices/"), strings.HasPrefix(name, `\\.\`):
		return "", virtual.Unsupported("%q is a device of its host", name)
	case strings.Contains(name, "://"):
		return "", virtual.Unsupported("%q is an object of a datastore: export the disk", name)
	}
	name, err := decode(name, d.encoding)
	return strings.ReplaceAll(name, `\`, "/"), err
}

// decode is a name in UTF-8. If the encoding is not said it is that, unless it
// cannot be.
func decode(name, encoding string) (string, error) {
	if isASCII(name) {
		return name, nil
	}
	if encoding == "" {
		if utf8.ValidString(name) {
			return name, nil
		}
		encoding = "windows-1252"
	}
	from, ok := charset.Find(encoding)
	if !ok {
		return "", virtual.Unsupported("name %q in encoding %.40q", name, encoding)
	}
	decoded, err := charset.Decode(from, name)
	if err != nil {
		return "", virtual.Corrupt("name %q is not in %.40s, which the descriptor says", name, encoding)
	}
	return decoded, nil
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}
