package appliance

import (
	"archive/tar"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrNotMedium says that a file beside a descriptor is not what the descriptor
// has it for: a CD image or a firmware's variables. Whatever a descriptor names
// so travels with its machine, and it may name a private key.
var ErrNotMedium = errors.New("it is not what the descriptor says")

// A CDFormatError is an [ErrNotMedium] of a CD image in a format of disks, which
// QEMU takes, and nothing else does.
type CDFormatError struct {
	Name   string // of the file
	Format string // as people call it
}

func (e *CDFormatError) Error() string {
	return fmt.Sprintf("%v: no CD image, but %s", ErrNotMedium, e.Format)
}

func (e *CDFormatError) Unwrap() error { return ErrNotMedium }

// checkRole looks at a file of the host that travels as it is.
func checkRole(role Role, s Section, name, compression string) error {
	switch role {
	case RoleCD:
		return checkCD(s, name, compression)
	case RoleNVRAM:
		return checkNVRAM(s)
	}
	return nil
}

// cdHead is up to where file systems of CDs have their marks: the first volume
// descriptors, and those of UDF behind them, in sectors of 2352 bytes as well.
const cdHead = 24 * 2352

// checkCD returns an error for what is no CD image: it has a file system of one,
// is that of a disk, or begins with zeros alone.
func checkCD(s Section, name, compression string) error {
	var r io.Reader = io.NewSectionReader(s, 0, s.Size())
	switch compression {
	case "gzip":
		z, err := gzip.NewReader(r)
		if err != nil {
			return fmt.Errorf("%w: no CD image that is compressed by gzip", ErrNotMedium)
		}
		r = z
	case "bzip2":
		r = bzip2.NewReader(r)
	}
	head := make([]byte, cdHead)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: no CD image: %w", ErrNotMedium, err)
	}
	tail := make([]byte, min(tarBlock, s.Size()))
	if err := readFull(s, tail, s.Size()-int64(len(tail))); err != nil {
		return err
	}
	if !isCD(head[:n]) && !bytes.HasPrefix(tail, []byte("koly")) { // a DMG, which VirtualBox takes
		for _, f := range diskFormats {
			if f.offset <= n && bytes.HasPrefix(head[f.offset:n], []byte(f.magic)) {
				return &CDFormatError{name, f.name}
			}
		}
		return fmt.Errorf("%w: no CD image", ErrNotMedium)
	}
	return nil
}

// diskFormats are those that a libvirt domain can say of a CD image.
var diskFormats = []struct {
	offset int
	magic  string
	name   string
}{
	{0, "QFI\xfb", "qcow2"},
	{0, "KDMV", "VMDK"},
	{0x40, "\x7f\x10\xda\xbe", "VDI"},
	{0, "vhdxfile", "VHDX"},
	{0, "conectix", "VHD"},
}

func isCD(head []byte) bool {
	has := func(off int, magic string) bool {
		return off <= len(head) && bytes.HasPrefix(head[off:], []byte(magic))
	}
	switch {
	case isZero(head),
		has(510, "\x55\xaa"),                                  // a disk's, as those of hybrids and floppies
		has(1080, "\x53\xef"), has(0, "XFSB"), has(0, "hsqs"), // Linux's, of a medium without partitions
		has(1024, "H+"), has(1024, "HX"), has(1024, "BD"), // HFS
		has(0, "ER\x02\x00"),                             // Apple's partition map
		has(0, "\x00"+strings.Repeat("\xff", 10)+"\x00"): // sectors of 2352 bytes
		return true
	}
	// ECMA 119 and 167: the descriptors begin at sector 16.
	for n := 16; n < 24; n++ {
		for _, id := range []string{"CD001", "BEA01", "NSR02", "NSR03"} {
			if has(n*2048+1, id) {
				return true
			}
		}
		if has(n*2048+9, "CDROM") { // High Sierra
			return true
		}
	}
	return false
}

// maxNVRAM is far above what any firmware keeps: the largest flash of QEMU's
// machines has 64 MiB.
const maxNVRAM = 128 << 20

// checkNVRAM returns an error for what are no variables of a firmware.
func checkNVRAM(s Section) error {
	const (
		volume    = 40 // of the signature of a volume, in its header
		qcow2Size = 24
	)
	head := make([]byte, min(scanStretch, s.Size()))
	if err := readFull(s, head, 0); err != nil {
		return err
	}
	isVolume := func(head []byte) bool {
		return len(head) > volume && bytes.HasPrefix(head[volume:], []byte("_FVH"))
	}
	ok := false
	switch {
	case s.Size() > maxNVRAM:
	case bytes.HasPrefix(head, []byte("MRVN")): // VMware
		ok = true
	case isVolume(head), isZero(head), len(bytes.Trim(head, "\xff")) == 0: // of UEFI, and erased flash
		ok = true
	case bytes.HasPrefix(head, []byte("QFI\xfb")) && len(head) >= 32: // libvirt, with another flash in it, and no backing file
		ok = binary.BigEndian.Uint64(head[8:]) == 0 && binary.BigEndian.Uint64(head[qcow2Size:]) <= maxNVRAM
	case isTar(head): // VirtualBox, with the state of the TPM
		h, err := tar.NewReader(bytes.NewReader(head)).Next()
		ok = err == nil && (strings.Contains(h.Name, "nvram") || strings.Contains(h.Name, "tpm"))
	}
	if !ok {
		return fmt.Errorf("%w: no variables of a firmware", ErrNotMedium)
	}
	return nil
}
