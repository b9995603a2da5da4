package disk

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"

	"github.com/davit-oci/davit/disk/internal/hostfile"
	"github.com/davit-oci/davit/disk/internal/qcow2"
	"github.com/davit-oci/davit/disk/internal/raw"
	"github.com/davit-oci/davit/disk/internal/vdi"
	"github.com/davit-oci/davit/disk/internal/vhd"
	"github.com/davit-oci/davit/disk/internal/vhdx"
	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/davit-oci/davit/disk/internal/vmdk"
)

// A Writer makes an image from the content of a disk. What is never written
// reads as zeros.
//
// WriteAt is safe for concurrent use and takes any order, unless the Writer is
// [InOrder]. Close completes the image. It is called when all content was
// written; if that is not possible, [Abort] is called instead. Close neither
// closes nor syncs the file: a full file system can show as late as in the
// caller's Sync. After an error the file is of no use.
type Writer interface {
	io.WriterAt
	io.Closer
}

// InOrder reports whether w must be written in ascending order: one call of
// WriteAt after another, with ranges that do not overlap. The Writers of
// compressed formats ([Format.InOrder]) and of streams are such. A call in
// another order returns [ErrOutOfOrder], and so does every call after it, also
// Close: the image is never completed.
//
// A Writer that must be written in order has a method InOrder() bool. A Writer
// without this method takes any order. A type that wraps a Writer must have the
// method if that Writer has it, and an Abort method as well.
func InOrder(w Writer) bool {
	o, ok := w.(interface{ InOrder() bool })
	return ok && o.InOrder()
}

// Abort ends w without completing its image. After it WriteAt and Close write
// nothing, and return [ErrAborted] or an earlier error. Close need not be called.
// After Close, Abort does nothing, so that it can be deferred. [Copy] and
// artifact.Disk.Restore call it when they fail.
//
// All Writers of this package have a method Abort(), which is safe for concurrent
// use. For a Writer without this method Abort does nothing.
func Abort(w Writer) {
	if a, ok := w.(interface{ Abort() }); ok {
		a.Abort()
	}
}

// WriteOptions are how an image is written. The zero value is right.
type WriteOptions struct {
	// Jobs is how many clusters are compressed at the same time; default: one
	// per CPU that Go uses. It does not change the image.
	Jobs int

	// Name is the name that the file is going to have, which a VMDK has in its
	// descriptor; default: that of the file.
	Name string

	// Adapter is what a VMDK says that it is attached to: "ide", "buslogic" or
	// "lsilogic" (default), which stands for everything newer as well.
	Adapter string

	// SectorSize is the size of the disk's logical sectors in bytes, 512 or 4096;
	// default: [DefaultSector]. A VHDX says it, images of other formats cannot
	// ([Format.RecordsSector]).
	SectorSize int

	// ID identifies the disk in VDI, VHD and VHDX images, where hypervisors
	// refuse two disks with one ID, and in VMDKs that can have a delta, which
	// knows by it that its parent was replaced. Default: a random one. All else
	// in an image depends on the disk alone.
	ID [16]byte
}

// NewWriter starts an image of a disk of size bytes in f, which is open for
// reading and writing and, but for raw images, a regular file.
//
// Data is every range that will be written, as [Extents] gives them; nil is an
// empty disk. It may be ranged over twice and must give the same ranges again.
//
// An image that is not compressed has its tables and its size when NewWriter
// returns; they depend on nothing but size and data. What f already held in the
// ranges of data stays, all else is zeroed. So the file of a writer that was
// killed can be given to a new one, which is a [Reader] as well: it reads what
// is there now, and who knows digests of the content can tell what need not be
// written again. Ranges of data that are not written read as zeros in a new
// file, as what was there in an old one.
//
// Compressed images begin anew: whatever f held is lost.
//
// The disk gets the size that [Format.DiskSize] says. A raw image of a block
// device ends at size; what the device has after it stays. The first MiB of a
// device is written by Close, so that it does not look complete before it is.
func NewWriter(f *os.File, format Format, size int64, data iter.Seq2[Extent, error], o WriteOptions) (Writer, error) {
	w, err := newWriter(f, format, size, data, o)
	if err != nil {
		return nil, fmt.Errorf("starting a %s image in %s: %w", format, f.Name(), err)
	}
	return w, nil
}

func newWriter(f *os.File, format Format, size int64, data iter.Seq2[Extent, error], o WriteOptions) (Writer, error) {
	if size < 0 {
		return nil, fmt.Errorf("size of %d bytes", size)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if format != Raw && !info.Mode().IsRegular() {
		return nil, virtual.Unsupported("a %s image in what is no regular file", format)
	}
	name := o.Name
	if name == "" {
		name = filepath.Base(f.Name())
	}
	if o.ID == [16]byte{} {
		o.ID = newID()
	}
	switch format {
	case Raw:
		if hostfile.IsBlockDevice(info) {
			return raw.NewDeviceWriter(f, size, data)
		}
		return raw.NewWriter(f, size, data)
	case QCOW2:
		return qcow2.NewWriter(f, size, data)
	case QCOW2Zlib:
		return qcow2.NewCompressor(f, size, qcow2.Zlib, o.Jobs)
	case QCOW2Zstd:
		return qcow2.NewCompressor(f, size, qcow2.Zstd, o.Jobs)
	case VMDK:
		return vmdk.NewWriter(f, size, data, vmdk.WriteOptions{Name: name, Adapter: o.Adapter, ID: o.ID})
	case VMDKStream:
		return vmdk.NewStreamFile(f, size, vmdk.WriteOptions{Name: name, Adapter: o.Adapter, Jobs: o.Jobs})
	case VDI:
		return vdi.NewWriter(f, size, data, o.ID)
	case VHD:
		return vhd.NewWriter(f, size, data, o.ID)
	case VHDFixed:
		return vhd.NewFixed(f, size, data, o.ID)
	case VHDX:
		return vhdx.NewWriter(f, size, int64(cmp.Or(o.SectorSize, DefaultSector)), data, o.ID)
	}
	return nil, virtual.Unsupported("format %q", format)
}

// newID is a random UUID (RFC 9562, version 4). Some formats have the third
// field in little endian, so the version is in either half of it.
func newID() (id [16]byte) {
	rand.Read(id[:])
	id[6] = id[6]&0x0f | 0x40
	id[7] = id[7]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

// NewStreamWriter writes the bytes of a disk of size bytes to w, each byte
// once, and so is [InOrder]. The zeros between and after what is written are
// filled in. It does not close w.
func NewStreamWriter(w io.Writer, size int64) Writer { return raw.NewStreamWriter(w, size) }

// NewVMDKStream writes a [VMDKStream] image to w, each byte once, as the member
// of an archive needs it. It is [InOrder], as the [Writer] of such a file is. It
// does not close w.
func NewVMDKStream(w io.Writer, size int64, o WriteOptions) (Writer, error) {
	s, err := vmdk.NewStream(w, size, vmdk.WriteOptions{Name: o.Name, Adapter: o.Adapter, Jobs: o.Jobs})
	if err != nil {
		return nil, fmt.Errorf("starting a %s image: %w", VMDKStream, err)
	}
	return s, nil
}

// OpenDevice opens the block device at path for a [NewWriter] of a raw image of
// size bytes, and keeps others from mounting it until it is closed. It refuses
// a device that is mounted or otherwise in use, or has a partition that is
// ([ErrInUse]), one with less than size bytes ([ErrTooSmall]), what is not a
// block device, and systems other than Linux ([ErrUnsupported]).
func OpenDevice(path string, size int64) (*os.File, error) {
	f, err := openDevice(path, size)
	if err != nil {
		return nil, fmt.Errorf("opening device %s: %w", path, err)
	}
	return f, nil
}
