// Package disk reads and writes the files that hold virtual disks.
//
// A [Reader] is the content of a disk, as its guest sees it, in whatever file
// it was stored. [Open] finds out what a file is and returns its content.
//
// A [Writer] makes an image of a [Format] from the content of a disk, and
// [Copy] brings one to the other. [Create] returns the Writer of a new file,
// which appears when it is complete; [NewWriter] that of a file or a device that
// the caller has opened, [NewStreamWriter] that of a raw stream. Each Writer
// knows the order in which it must be written, and Copy and
// artifact.Disk.Restore ask it: see [InOrder].
//
// The package trusts no image: every offset and size that a file names is
// checked before it is used, memory stays bounded, and no file opens because
// another one names it, unless [OpenOptions] say where it may lie. It does not
// lock images: whoever reads the disk of a running machine reads a torn one.
package disk

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"os"

	"github.com/davit-oci/davit/disk/internal/qcow2"
	"github.com/davit-oci/davit/disk/internal/raw"
	"github.com/davit-oci/davit/disk/internal/vdi"
	"github.com/davit-oci/davit/disk/internal/vhd"
	"github.com/davit-oci/davit/disk/internal/vhdx"
	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/davit-oci/davit/disk/internal/vmdk"
	"github.com/davit-oci/davit/internal/beneath"
)

var (
	// ErrBackingFile says that the image continues in a second file, and that file may
	// not be opened or its format is not known for sure.
	ErrBackingFile = virtual.ErrBackingFile

	// ErrHidden says that a second file has a part of its path that begins with a dot,
	// which is [ErrBackingFile] as well: see [OpenOptions].
	ErrHidden = beneath.ErrHidden

	// ErrUnknownSnapshot says that the image has no snapshot of that name or ID.
	ErrUnknownSnapshot = virtual.ErrUnknownSnapshot

	// ErrUnsupported says that the image is of a format, or needs a feature, that this
	// package does not read. The message names it.
	ErrUnsupported = virtual.ErrUnsupported

	// ErrEncrypted says that the image is encrypted, which is [ErrUnsupported] as well.
	ErrEncrypted = virtual.ErrEncrypted

	// ErrCorrupt says that the image contradicts its format or itself, or is cut short.
	ErrCorrupt = virtual.ErrCorrupt

	// ErrNotDisk says that a raw file that somebody else than the user named does not
	// look like a disk, which is [ErrUnsupported] as well.
	ErrNotDisk = virtual.ErrNotDisk

	// ErrOutOfOrder says that a [Writer] that is [InOrder] was written in another
	// order. Its image can no longer be completed.
	ErrOutOfOrder = virtual.ErrOutOfOrder

	// ErrAborted says that [Abort] was called for a [Writer].
	ErrAborted = virtual.ErrAborted

	// ErrInUse says that a block device is mounted or held by somebody.
	ErrInUse = errors.New("device is in use")

	// ErrTooSmall says that the disk does not fit on the block device.
	ErrTooSmall = errors.New("device is too small")
)

// A Reader is the content of a virtual disk, as its guest sees it.
// [*bytes.Reader] and [*io.SectionReader] are Readers.
//
// ReadAt is safe for concurrent use. Size is in bytes and does not change.
// A Reader that can tell where it has no data also has a method
// NextExtent(off int64) (Extent, error); call it through [NextExtent].
type Reader interface {
	io.ReaderAt
	Size() int64
}

// An Extent is a range of bytes of a disk: its Offset and Length. End is the
// offset of the first byte after it.
type Extent = virtual.Extent

// NextExtent returns the first range at or after off that may hold data: from
// off to there r reads as zeros. Length 0 means that all the rest does. The
// range may hold zeros as well, and the next one may touch it. Without a
// NextExtent method of r's own, all is data. It is safe for concurrent use.
func NextExtent(r Reader, off int64) (Extent, error) { return virtual.NextExtent(r, off) }

// DefaultSector is the size in bytes of the logical sectors of a disk about
// which nothing else is said.
const DefaultSector = 512

// LargeSector is the only other size of logical sectors that disks have, in bytes.
const LargeSector = 4096

// SectorSize is the size in bytes of the logical sectors in which a guest sees
// r, 0 if r does not say. A Reader that can tell has a method SectorSize() int.
// Partition tables count in those sectors, so that a guest which gets others
// finds no partition.
func SectorSize(r Reader) int {
	if s, ok := r.(interface{ SectorSize() int }); ok {
		return s.SectorSize()
	}
	return 0
}

// Extents are all ranges of r that may hold data, in ascending order. Its last
// pair may be an error instead.
func Extents(r Reader) iter.Seq2[Extent, error] {
	return func(yield func(Extent, error) bool) {
		for off := int64(0); off < r.Size(); {
			e, err := NextExtent(r, off)
			if err != nil {
				yield(Extent{}, err)
				return
			}
			if e.Length == 0 || !yield(e, nil) {
				return
			}
			off = e.End()
		}
	}
}

// OpenOptions say how far [Open] may go. The zero value finds the format by
// content, opens no second file and reads the active state.
type OpenOptions struct {
	// Format ends the guessing when it is not empty. A guest decides what its
	// raw disk begins with, so what is known to be raw should be opened as Raw.
	// For reading, all variants of a format are one.
	Format Format

	// BackingDir is the folder in which the other files of an image may lie,
	// none if empty: backing files, parents, extents, data files. A name is
	// taken relative to the folder of the image that has it, an absolute name
	// as it is; symbolic links must not lead out either. Where nothing is under
	// that name the file is looked for by the last element of it, beside the image
	// and in BackingDir: see [Image.Moved].
	//
	// A backing file is read as the format that the image records. If it
	// records none, only a file that looks like no format at all is read, as
	// raw: the guest of a raw disk could have written a header onto it.
	BackingDir string

	// Hidden allows files whose path below BackingDir has a part that begins
	// with a dot, after symbolic links as well: .ssh, .config. Extents beside a
	// descriptor never are such.
	Hidden bool

	// Described says that a descriptor named the file, not the user. Then a raw
	// disk must look like one, as every raw file must that an image names: a
	// text, or what is no whole number of sectors, is [ErrNotDisk].
	Described bool

	// Extents allows a VMDK descriptor that is itself named .vmdk to have its
	// extents beside it, without BackingDir.
	Extents bool

	// Snapshot is the ID or the name of an internal snapshot to read instead
	// of the active state; IDs come first. Only qcow2 images have any.
	Snapshot string
}

// An Image is an open image file: a [Reader] with a NextExtent method.
type Image struct {
	content virtual.Reader
	format  Format
	files   *files
}

// Open opens the regular file or block device at path for reading.
//
// Errors are [ErrBackingFile], [ErrUnknownSnapshot], [ErrUnsupported],
// [ErrCompressed], [ErrCorrupt], or those of [os.Open].
func Open(path string, o OpenOptions) (*Image, error) {
	// A named pipe would keep os.Open waiting for its other end.
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() && info.Mode()&os.ModeDevice == 0 {
		return nil, fmt.Errorf("opening %s: %w", path, virtual.Unsupported("neither a regular file nor a block device"))
	}

	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	folder, err := newFolder(path, f, o)
	img := &Image{files: folder.files}
	var file *raw.Image
	if err == nil {
		file, err = raw.Open(f)
	}
	if err == nil {
		img.content, img.format, err = open(file, folder, o)
	}
	folder.closeRoots()
	if err != nil {
		img.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return img, nil
}

// OpenReader opens an image file that is part of something else: a member of
// an archive, say. It has no second file, whatever o says. The caller closes r
// after the image.
//
// Errors are those of [Open] but for ErrBackingFile's way out.
func OpenReader(r Reader, o OpenOptions) (*Image, error) {
	alone := &folder{files: &files{}, first: true}
	content, format, err := open(r, alone, o)
	if err != nil {
		return nil, err
	}
	return &Image{content, format, alone.files}, nil
}

func open(file virtual.Reader, c *folder, o OpenOptions) (_ virtual.Reader, _ Format, err error) {
	format := o.Format.container()
	if format == "" {
		if format, err = detect(file); err != nil {
			return nil, "", err
		}
	}
	if format == Raw && o.Described {
		if err := virtual.CheckDisk(file, virtual.Sector); err != nil {
			return nil, "", err
		}
	}
	content, err := openContent(file, format, c, o.Snapshot)
	if o.Format != "" && (errors.Is(err, ErrCorrupt) || errors.Is(err, ErrUnsupported)) {
		err = orAnother(file, format, err)
	}
	return content, format, err
}

// openContent reads file as an image of this format.
func openContent(file virtual.Reader, f Format, c *folder, snapshot string) (virtual.Reader, error) {
	if snapshot != "" && f.container() != QCOW2 {
		return nil, fmt.Errorf("%w %q: %s images have none", ErrUnknownSnapshot, snapshot, f)
	}
	switch f.container() {
	case Raw:
		return file, nil
	case QCOW2:
		return qcow2.Open(file, qcow2.Options{Snapshot: snapshot, Backing: c.backing, Data: c.data})
	case VMDK:
		return vmdk.Open(file, vmdk.Options{Folder: c})
	case VDI:
		return vdi.Open(file, vdi.Options{Folder: c})
	case VHD:
		return vhd.Open(file, vhd.Options{Folder: c})
	case VHDX:
		return vhdx.Open(file, vhdx.Options{Folder: c})
	}
	return nil, virtual.Unsupported("format %q", f)
}

// Size is the virtual size in bytes.
func (i *Image) Size() int64 { return i.content.Size() }

// ReadAt reads the content of the disk. It is safe for concurrent use.
func (i *Image) ReadAt(p []byte, off int64) (int, error) { return i.content.ReadAt(p, off) }

// NextExtent is what [NextExtent] calls.
func (i *Image) NextExtent(off int64) (Extent, error) { return virtual.NextExtent(i.content, off) }

// SectorSize is what [SectorSize] calls: that of a VHDX image, and of the block
// device that a raw disk is.
func (i *Image) SectorSize() int { return SectorSize(i.content) }

// Format is what the file turned out to be: [Raw], [QCOW2], [VMDK], [VDI],
// [VHD] or [VHDX].
func (i *Image) Format() Format { return i.format }

// Files are the files of the image, while it is open: the one that was named,
// and those that continue it. There are none if it is part of something else.
func (i *Image) Files() []*os.File {
	files := make([]*os.File, len(i.files.opened))
	for n, f := range i.files.opened {
		files[n] = f.File
	}
	return files
}

// A MovedFile is a second file of an image that is not where the image has it.
type MovedFile struct {
	Name string // as the image has it
	Path string // where it was found by its last element
}

// Moved are the files of the image that lie elsewhere than it says. For a backing
// file or a data file of qcow2, and an extent of a VMDK, nothing but that name
// says that it is the one.
func (i *Image) Moved() (moved []MovedFile) {
	for _, f := range i.files.opened {
		if f.named != "" {
			moved = append(moved, MovedFile{f.named, f.Name()})
		}
	}
	return moved
}

// Close closes all files of the image. Nothing may be read after it.
func (i *Image) Close() error { return i.files.close() }
