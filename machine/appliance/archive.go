package appliance

import (
	"fmt"
	"io"
	"strconv"
)

// An OVA is a tar archive in the format ustar (DSP0243, "Virtual machine
// image"): headers, each with the blocks of its file behind it.
const (
	tarBlock   = 512
	maxUstar   = 1<<33 - 1 // bytes of a file: eleven octal digits
	memberMode = 0o644

	// memberTime is 1980-01-01 00:00:00 UTC, the same in every package. FAT and
	// ZIP know nothing earlier, and GNU tar warns of 1970.
	memberTime = 315532800
)

// archive writes a package as an OVA.
type archive struct {
	f      io.WriterAt
	end    int64            // of what was written or reserved
	places map[string]place // that are reserved
	start  int64            // of the current member's header
}

// place is where a member goes whose bytes come later.
type place struct{ offset, size int64 }

func (a *archive) reserve(name string, size int64) error {
	a.places[name] = place{a.end, size}
	a.end += tarBlock + roundUp(size)
	return nil
}

// create leaves a block for the header: the size in it is known later.
func (a *archive) create(string) (io.Writer, error) {
	a.start = a.end
	a.end += tarBlock
	return a, nil
}

// Write appends to the current member.
func (a *archive) Write(p []byte) (int, error) {
	n, err := a.f.WriteAt(p, a.end)
	a.end += int64(n)
	return n, err
}

func (a *archive) finish(name string, size int64) error {
	if _, err := a.Write(make([]byte, roundUp(size)-size)); err != nil {
		return err
	}
	_, err := a.f.WriteAt(tarHeader(name, size), a.start)
	return err
}

func (a *archive) write(name string, data []byte) error {
	p, ok := a.places[name]
	if !ok || int64(len(data)) != p.size {
		return fmt.Errorf("%s has %d bytes, %d were foreseen", name, len(data), p.size)
	}
	b := append(tarHeader(name, p.size), data...)
	b = append(b, make([]byte, roundUp(p.size)-p.size)...)
	_, err := a.f.WriteAt(b, p.offset)
	return err
}

// close ends the archive, with two blocks of zeros.
func (a *archive) close() error {
	_, err := a.Write(make([]byte, 2*tarBlock))
	return err
}

func roundUp(n int64) int64 { return (n + tarBlock - 1) / tarBlock * tarBlock }

// tarHeader returns the header of a plain file whose name has at most 100 bytes.
//
// Eight GiB and more cannot be said in ustar. Such a file, and it alone, has
// the header of GNU tar, with its size in base 256: vSphere and VirtualBox read
// that and not the extended headers of pax.
func tarHeader(name string, size int64) []byte {
	h := make([]byte, tarBlock)
	copy(h[0:100], name)
	octal(h[100:108], memberMode)
	octal(h[108:116], 0) // owner
	octal(h[116:124], 0) // group
	magic := "ustar\x0000"
	if size <= maxUstar {
		octal(h[124:136], size)
	} else {
		magic = "ustar  \x00"
		h[124] = 0x80
		for i := range 8 {
			h[135-i] = byte(size >> (8 * i))
		}
	}
	octal(h[136:148], memberTime)
	h[156] = '0' // a plain file
	copy(h[257:265], magic)
	octal(h[329:337], 0) // device
	octal(h[337:345], 0)

	// The sum of all bytes, those of the sum itself being spaces.
	copy(h[148:156], "        ")
	sum := int64(0)
	for _, c := range h {
		sum += int64(c)
	}
	octal(h[148:155], sum)
	return h
}

// octal fills a field with digits and a final NUL.
func octal(field []byte, n int64) {
	digits := strconv.FormatInt(n, 8)
	for i := range field {
		field[i] = '0'
	}
	last := len(field) - 1
	field[last] = 0
	copy(field[last-len(digits):], digits)
}
