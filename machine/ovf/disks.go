package ovf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/machine"
)

// A Disk is a virtual disk of a machine.
type Disk struct {
	Name     string // its ovf:diskId
	Capacity int64  // bytes
	FileRef  string // the ovf:id of the file that holds it; empty: none does, the disk is blank
}

// Limits of what an OVF can make us do.
const (
	maxOVF      = 16 << 20 // bytes; the largest real one we know has 3 MB
	maxDepth    = 64       // elements within elements; real ones have about 12
	maxDisks    = 4096     // more than any hypervisor attaches
	maxCapacity = 1 << 58  // bytes; what an artifact can describe
)

// Disks returns the Disk elements of an OVF 1.x or 2.x, in order. A document
// type, an entity of its own, an encoding other than UTF-8, a disk without
// capacity and two disks of one name are [machine.ErrMalformed].
func Disks(ovf []byte) ([]Disk, error) {
	if len(ovf) > maxOVF {
		return nil, malformed("%d bytes, more than %d", len(ovf), maxOVF)
	}
	// Its own decoder, token by token: Unmarshal would believe any namespace,
	// take the last of two sections, and skip what we have to refuse.
	d := xml.NewDecoder(bytes.NewReader(ovf))
	var (
		path  []xml.Name // open elements
		disks []Disk
		names = make(map[string]bool)
		ended bool
	)
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", machine.ErrMalformed, err)
		}
		switch t := token.(type) {
		case xml.Directive:
			return nil, malformed("it has a document type")
		case xml.StartElement:
			if len(path) == 0 {
				if ended {
					return nil, malformed("two documents in one")
				}
				if t.Name.Local != "Envelope" || t.Name.Space != namespace1 && t.Name.Space != namespace2 {
					return nil, malformed("it begins with <%s> of %q, not with an Envelope of OVF 1 or 2", t.Name.Local, t.Name.Space)
				}
			}
			if len(path) == maxDepth {
				return nil, malformed("elements nested deeper than %d", maxDepth)
			}
			path = append(path, t.Name)
			if !isDisk(path) {
				continue
			}
			disk, err := parseDisk(t)
			if err != nil {
				return nil, err
			}
			if names[disk.Name] {
				return nil, malformed("two disks called %q", disk.Name)
			}
			if len(disks) == maxDisks {
				return nil, malformed("more than %d disks", maxDisks)
			}
			names[disk.Name] = true
			disks = append(disks, disk)
		case xml.EndElement:
			path = path[:len(path)-1]
			ended = len(path) == 0
		case xml.CharData:
			if len(path) == 0 && len(bytes.TrimSpace(t)) > 0 {
				return nil, malformed("text outside the Envelope")
			}
		}
	}
	if !ended {
		return nil, malformed("no Envelope")
	}
	return disks, nil
}

// isDisk says whether the innermost element of path is a Disk in the envelope's
// DiskSection. A Disk elsewhere is somebody's extension.
func isDisk(path []xml.Name) bool {
	names := []string{"Envelope", "DiskSection", "Disk"}
	return len(path) == len(names) && slices.EqualFunc(path, names, func(n xml.Name, local string) bool {
		return n.Local == local && n.Space == path[0].Space
	})
}

func parseDisk(e xml.StartElement) (Disk, error) {
	// The attributes of OVF are in its namespace; any other is an extension.
	attrs := make(map[string]string)
	for _, a := range e.Attr {
		if a.Name.Space != e.Name.Space {
			continue
		}
		if _, twice := attrs[a.Name.Local]; twice {
			return Disk{}, malformed("a disk with two attributes %s", a.Name.Local)
		}
		attrs[a.Name.Local] = a.Value
	}
	disk := Disk{Name: attrs["diskId"], FileRef: attrs["fileRef"]}
	if disk.Name == "" {
		return Disk{}, malformed("a disk without diskId")
	}
	units, given := attrs["capacityAllocationUnits"]
	if !given {
		units = "byte"
	}
	var err error
	if disk.Capacity, err = parseCapacity(attrs["capacity"], units); err != nil {
		return Disk{}, malformed("disk %q: %v", disk.Name, err)
	}
	return disk, nil
}

// parseCapacity returns a number of units in bytes. A capacity that is a
// property of the machine ("${size}") has no number here and is an error.
func parseCapacity(capacity, units string) (int64, error) {
	n, err := parseDecimal(capacity)
	if err != nil {
		return 0, fmt.Errorf("capacity %q is not a number of bytes", capacity)
	}
	factor, err := parseUnits(units)
	if err != nil {
		return 0, err
	}
	if n > maxCapacity/factor {
		return 0, fmt.Errorf("capacity %s of %q is more than 2^58 bytes", capacity, units)
	}
	return n * factor, nil
}

// parseUnits reads a programmatic unit of DSP0004, annex C, as far as it can
// be about bytes: "byte", "byte * 2^30", "byte * 10^9", "byte * 1024 * 1024".
func parseUnits(units string) (int64, error) {
	factors := strings.Split(units, "*")
	if strings.TrimSpace(factors[0]) != "byte" {
		return 0, fmt.Errorf("units %q are not bytes", units)
	}
	bytes := int64(1)
	for _, f := range factors[1:] {
		base, exponent, power := strings.Cut(strings.TrimSpace(f), "^")
		b, err := parseDecimal(strings.TrimSpace(base))
		e := int64(1)
		if err == nil && power {
			e, err = parseDecimal(strings.TrimSpace(exponent))
		}
		if err != nil || b == 0 {
			return 0, fmt.Errorf("units %q cannot be read", units)
		}
		for range min(e, 64) { // 2^64 is too much already; 1^e is 1
			if b > maxCapacity/bytes {
				return 0, fmt.Errorf("units %q are more than 2^58 bytes", units)
			}
			bytes *= b
		}
	}
	return bytes, nil
}

// parseDecimal reads digits and nothing else: no sign, no "_", no spaces.
func parseDecimal(s string) (int64, error) {
	if strings.ContainsFunc(s, func(r rune) bool { return r < '0' || r > '9' }) {
		return 0, strconv.ErrSyntax
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > math.MaxInt64 {
		return 0, strconv.ErrRange
	}
	return int64(n), nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", machine.ErrMalformed, fmt.Sprintf(format, args...))
}
