// Package disk reads and writes the files that hold virtual disks.
//
// A [Reader] is the content of a disk, as its guest sees it, in whatever file
// it was stored. [Open] finds out what a file is and returns its content.
// [NewWriter] makes a file of any [Format] from content that arrives in any
// order, [NewStreamWriter] a raw stream, and [Copy] brings one to the other.
//
// The package trusts no image: every offset and size that a file names is
// checked before it is used, memory stays bounded, and no file opens because
// another one names it, unless [OpenOptions] say where it may lie. It does not
// lock images: whoever reads the disk of a running machine reads a torn one.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/davit-oci/davit/disk/internal/qcow2"
	"github.com/davit-oci/davit/disk/internal/raw"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

var (
	// ErrBackingFile: the image continues in a second file, and that file may
	// not be opened or its format is not known for sure.
	ErrBackingFile = virtual.ErrBackingFile

	// ErrUnknownSnapshot: the image has no snapshot of that name or ID.
	ErrUnknownSnapshot = virtual.ErrUnknownSnapshot

	// ErrUnsupported: the image is of a format, or needs a feature, that this
	// package does not read. The message names it.
	ErrUnsupported = virtual.ErrUnsupported

	// ErrCorrupt: the image contradicts its format or itself, or is cut short.
	ErrCorrupt = virtual.ErrCorrupt

	// ErrInUse: a block device is mounted or held by somebody.
	ErrInUse = errors.New("device is in use")

	// ErrTooSmall: the disk does not fit on the block device.
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

// copyStep is how much Copy reads at a time, in bytes: whole clusters of
// almost every image.
const copyStep = 1 << 20

// Copy writes the [Extents] of r to w, in ascending order, zeros among them
// included. It does not close w.
func Copy(ctx context.Context, w Writer, r Reader) error {
	buf := make([]byte, min(copyStep, r.Size()))
	for e, err := range Extents(r) {
		if err != nil {
			return err
		}
		for off := e.Offset; off < e.End(); {
			if err := ctx.Err(); err != nil {
				return err
			}
			p := buf[:min(int64(len(buf)), e.End()-off)]
			if n, err := r.ReadAt(p, off); n < len(p) {
				return fmt.Errorf("reading %d bytes at %d: %w", len(p), off, err)
			}
			if _, err := w.WriteAt(p, off); err != nil {
				return fmt.Errorf("writing %d bytes at %d: %w", len(p), off, err)
			}
			off += int64(len(p))
		}
	}
	return nil
}

// A Format is a format of image files.
type Format string

const (
	Raw       Format = "raw"        // the bytes of the disk
	QCOW2     Format = "qcow2"      // QEMU's; written without compression
	QCOW2Zlib Format = "qcow2:zlib" // qcow2 that is written with deflated clusters
	QCOW2Zstd Format = "qcow2:zstd" // qcow2 that is written with zstd clusters; QEMU 5.1 or later
)

// ParseFormat returns the format that users call s: one of the constants, or
// "img" for raw. Any other is [ErrUnsupported].
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case Raw, QCOW2, QCOW2Zlib, QCOW2Zstd:
		return f, nil
	case "img":
		return Raw, nil
	}
	return "", virtual.Unsupported("format %q", s)
}

// FormatOf is the format that the extension of path stands for, in any case of
// letters; false if it stands for none.
func FormatOf(path string) (Format, bool) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".raw", ".img":
		return Raw, true
	case ".qcow2":
		return QCOW2, true
	}
	return "", false
}

// InOrder reports whether a [Writer] of f has to be fed in ascending order.
func (f Format) InOrder() bool { return f == QCOW2Zlib || f == QCOW2Zstd }

// Ext is the usual extension of files of f, with its dot.
func (f Format) Ext() string {
	if f == Raw {
		return ".raw"
	}
	return ".qcow2"
}

// OpenOptions say how far [Open] may go. The zero value finds the format by
// content, opens no second file and reads the active state.
type OpenOptions struct {
	// Format ends the guessing when it is not empty. A guest decides what its
	// raw disk begins with, so what is known to be raw should be opened as Raw.
	// The qcow2 formats are one for reading.
	Format Format

	// BackingDir is the folder in which backing files may lie, none if empty.
	// A name is taken relative to the folder of the image that has it, an
	// absolute name as it is; symbolic links must not lead out either.
	//
	// A backing file is read as the format that the image records. If it
	// records none, only a file that looks like no format at all is read, as
	// raw: the guest of a raw disk could have written a header onto it.
	BackingDir string

	// Snapshot is the ID or the name of an internal snapshot to read instead
	// of the active state; IDs come first.
	Snapshot string
}

// An Image is an open image file: a [Reader] with a NextExtent method.
type Image struct {
	content virtual.Reader
	format  Format
	files   []*os.File
}

// Open opens the regular file or block device at path for reading.
//
// Errors are [ErrBackingFile], [ErrUnknownSnapshot], [ErrUnsupported],
// [ErrCorrupt], or those of [os.Open].
func Open(path string, o OpenOptions) (*Image, error) {
	// A named pipe would keep os.Open waiting for its other end.
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() && info.Mode()&os.ModeDevice == 0 {
		return nil, fmt.Errorf("opening %s: %w", path, virtual.Unsupported("neither a regular file nor a block device"))
	}

	img := &Image{}
	if err := img.open(path, o); err != nil {
		img.Close()
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return img, nil
}

func (i *Image) open(path string, o OpenOptions) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	i.files = append(i.files, f)

	file, err := raw.Open(f)
	if err != nil {
		return err
	}
	i.format = o.Format
	if i.format == "" {
		if i.format, err = detect(file); err != nil {
			return err
		}
	}
	switch i.format {
	case Raw:
		if o.Snapshot != "" {
			return fmt.Errorf("%w %q: raw images have none", ErrUnknownSnapshot, o.Snapshot)
		}
		i.content = file
		return nil
	case QCOW2, QCOW2Zlib, QCOW2Zstd:
		i.format = QCOW2
		chain, err := newChain(path, f, o.BackingDir)
		if err != nil {
			return err
		}
		defer chain.close()
		i.content, err = qcow2.Open(file, qcow2.Options{Snapshot: o.Snapshot, Backing: chain.open})
		i.files = append(i.files, chain.files...)
		return err
	}
	return virtual.Unsupported("format %q", o.Format)
}

// Size is the virtual size in bytes.
func (i *Image) Size() int64 { return i.content.Size() }

// ReadAt reads the content of the disk. It is safe for concurrent use.
func (i *Image) ReadAt(p []byte, off int64) (int, error) { return i.content.ReadAt(p, off) }

// NextExtent is what [NextExtent] calls.
func (i *Image) NextExtent(off int64) (Extent, error) { return virtual.NextExtent(i.content, off) }

// Format is what the file turned out to be: [Raw] or [QCOW2].
func (i *Image) Format() Format { return i.format }

// Close closes all files of the image. Nothing may be read after it.
func (i *Image) Close() error {
	var errs []error
	for _, f := range i.files {
		errs = append(errs, f.Close())
	}
	i.files = nil
	return errors.Join(errs...)
}
