package disk

import (
	"cmp"
	"path/filepath"
	"strings"

	"github.com/davit-oci/davit/disk/internal/qcow2"
	"github.com/davit-oci/davit/disk/internal/vdi"
	"github.com/davit-oci/davit/disk/internal/vhd"
	"github.com/davit-oci/davit/disk/internal/vhdx"
	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/davit-oci/davit/disk/internal/vmdk"
)

// A Format is a format of image files, with the variant of it that is written.
type Format string

// The formats. For reading, all variants of one are the same.
const (
	Raw        Format = "raw"         // the bytes of the disk
	QCOW2      Format = "qcow2"       // QEMU's; written without compression
	QCOW2Zlib  Format = "qcow2:zlib"  // qcow2 that is written with deflated clusters
	QCOW2Zstd  Format = "qcow2:zstd"  // qcow2 that is written with zstd clusters; QEMU 5.1 or later
	VMDK       Format = "vmdk"        // VMware's; written as monolithicSparse
	VMDKStream Format = "vmdk:stream" // VMDK that is written as streamOptimized, compressed
	VDI        Format = "vdi"         // VirtualBox's; written as dynamic
	VHD        Format = "vhd"         // Virtual PC's and Hyper-V's; written as dynamic
	VHDFixed   Format = "vhd:fixed"   // VHD of all bytes, whole MiB of them, as Azure takes it
	VHDX       Format = "vhdx"        // Hyper-V's; written as dynamic
)

// formats are all, in the order in which they are told to users.
var formats = []Format{Raw, QCOW2, QCOW2Zlib, QCOW2Zstd, VMDK, VMDKStream, VDI, VHD, VHDFixed, VHDX}

// aliases are other names that users give to formats; img and vpc are QEMU's.
var aliases = map[string]Format{"img": Raw, "vmdk:sparse": VMDK, "vhd:dynamic": VHD, "vpc": VHD}

// ParseFormat returns the format that users call s: one of the constants,
// "img", "vmdk:sparse", "vhd:dynamic" or "vpc". Any other is [ErrUnsupported].
func ParseFormat(s string) (Format, error) {
	if f, ok := aliases[s]; ok {
		return f, nil
	}
	for _, f := range formats {
		if string(f) == s {
			return f, nil
		}
	}
	return "", virtual.Unsupported("format %q", s)
}

// Title is what people call the format of a file, whatever its variant: VMDK,
// but qcow2 and raw.
func (f Format) Title() string {
	switch f = f.container(); f {
	case VMDK, VDI, VHD, VHDX:
		return strings.ToUpper(string(f))
	}
	return string(f)
}

// FormatOf is the format that the extension of path stands for, in any case of
// letters; false if it stands for none.
func FormatOf(path string) (Format, bool) {
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".raw", ".img":
		return Raw, true
	case ".qcow2", ".vmdk", ".vdi", ".vhd", ".vhdx":
		return Format(ext[1:]), true
	}
	return "", false
}

// container is the format without its variant: what a reader has to know.
func (f Format) container() Format {
	c, _, _ := strings.Cut(string(f), ":")
	return Format(c)
}

// InOrder reports whether a [Writer] of f is [InOrder], and so begins anew when
// it is interrupted.
func (f Format) InOrder() bool { return f == QCOW2Zlib || f == QCOW2Zstd || f == VMDKStream }

// RecordsSector reports whether an image of f says which logical sectors its
// disk has. Whoever attaches an image of another format has to know.
func (f Format) RecordsSector() bool { return f == VHDX }

// Ext is the usual extension of files of f, with its dot.
func (f Format) Ext() string { return "." + string(f.container()) }

// DiskSize is the virtual size that an image of f has for a disk of size bytes
// and logical sectors of sector bytes (0 is 512). Formats that hold whole sectors
// or more add zeros. It is [ErrUnsupported] if the disk is too large for the
// format.
func (f Format) DiskSize(size int64, sector int) (int64, error) {
	switch f {
	case Raw:
		return size, nil
	case QCOW2, QCOW2Zlib, QCOW2Zstd:
		return qcow2.DiskSize(size)
	case VMDK, VMDKStream:
		return vmdk.DiskSize(size)
	case VDI:
		return vdi.DiskSize(size)
	case VHD:
		return vhd.DiskSize(size)
	case VHDFixed:
		return vhd.FixedDiskSize(size)
	case VHDX:
		return vhdx.DiskSize(size, int64(cmp.Or(sector, DefaultSector)))
	}
	return 0, virtual.Unsupported("format %q", f)
}
