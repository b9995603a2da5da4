// Package source opens what a user names as the source of disks: an image file in
// any format, also compressed; a raw disk on stdin; or the descriptor of machines,
// with their disks ([OpenMachine]).
//
// A disk that cannot be read in any order is first written to a scratch file,
// without its zeros. Descriptors and images are input of strangers: which files
// they may name is decided by packages disk and appliance.
package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/guest"
)

// An Observer is told what happens. Its methods are safe for concurrent use.
type Observer interface {
	// Warn is called with something that the user should know.
	Warn(message string)

	// Note is called with something that is good to know.
	Note(message string)

	// Begin is called when a step begins that takes time. total is its bytes, 0
	// if they are not known. add is called with bytes that are done, end at the
	// end.
	Begin(step string, total int64) (add func(n int64), end func())
}

// Options say how sources are read.
type Options struct {
	// Format is that of image files. Empty: it is found out by the content.
	Format disk.Format

	// BackingDir is the folder in which backing files, parents and extents may
	// lie. Empty: none is opened, except extents beside a descriptor that is named
	// .vmdk.
	BackingDir string

	// Snapshot is the internal snapshot that is read. Empty: the current state.
	Snapshot string

	// MaxUnpacked is how many bytes a compressed source may unpack to. 0:
	// [DefaultMaxUnpacked].
	MaxUnpacked int64

	// Unverified takes packages whose digests or signature are wrong.
	Unverified bool

	// Stdin is read for the path "-". It is required for that.
	Stdin io.Reader

	// Scratch returns a folder for what is unpacked. It is called when the folder
	// is needed. What is written there is removed when images are closed.
	Scratch func() (string, error)

	// Observer is required.
	Observer Observer
}

// DefaultMaxUnpacked is the largest disk that an MBR or a VHD allows for. Much of
// what a small file unpacks to is zeros, which take time but no space.
const DefaultMaxUnpacked = 2 << 40

// An Error is about a source. What is written has no part in it.
type Error struct {
	Path       string // of the source, or of an image that it names; "-" is stdin
	BackingDir string // Options.BackingDir
	Err        error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// An UnpackError is about a compressed source whose content cannot be used.
type UnpackError struct {
	By  string // what the file is compressed by, as disk.CompressedError has it
	Err error
}

func (e *UnpackError) Error() string { return e.Err.Error() }

func (e *UnpackError) Unwrap() error { return e.Err }

// An Image is an open source: the content of one disk.
type Image struct {
	*disk.Image

	// Name is the disk's, "" if none was given.
	Name string

	// Path is that of the source; "-" is stdin.
	Path string

	// Spooled says that the file that is open is not the file at Path.
	Spooled bool

	packed  *os.File // the compressed file at Path; nil: it is not compressed
	spooled string   // the scratch file, "" if there is none
	sector  int
}

// Close closes the image and removes what was unpacked.
func (i *Image) Close() error {
	errs := []error{i.Image.Close()}
	if i.packed != nil {
		errs = append(errs, i.packed.Close())
	}
	if i.spooled != "" {
		errs = append(errs, os.Remove(i.spooled))
	}
	return errors.Join(errs...)
}

// File is the file at Path, or the file that stdin was written to.
func (i *Image) File() *os.File {
	if i.packed != nil {
		return i.packed
	}
	return i.Files()[0]
}

// MoreFiles are the files in which the one at Path continues.
func (i *Image) MoreFiles() []*os.File {
	if files := i.Files(); len(files) > 1 {
		return files[1:]
	}
	return nil
}

// ReadAt implements [io.ReaderAt]. Its errors but io.EOF are an [Error].
func (i *Image) ReadAt(p []byte, off int64) (int, error) {
	n, err := i.Image.ReadAt(p, off)
	return n, i.reading(err)
}

// NextExtent is what [disk.NextExtent] calls.
func (i *Image) NextExtent(off int64) (disk.Extent, error) {
	e, err := i.Image.NextExtent(off)
	return e, i.reading(err)
}

func (i *Image) reading(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &Error{Path: i.Path, Err: fmt.Errorf("reading %s: %w", i.Path, err)}
}

// SectorSize is what [disk.SectorSize] calls: 512 or 4096.
func (i *Image) SectorSize() int { return i.sector }

// findSectors finds out which sectors the disk has: those that the description of
// its machine says (0: nothing), else those that the image says. Most images say
// 512 bytes where nobody knows it, so a partition table for others is believed
// before them: it counts in sectors, and a guest that sees its disk in others
// finds no partition.
func (i *Image) findSectors(o Options, described int) {
	said := cmp.Or(described, disk.SectorSize(i.Image))
	i.sector = said
	switch partitioned := guest.SectorSize(i.Image); {
	case said == disk.LargeSector:
	case partitioned == disk.LargeSector:
		if said != 0 {
			o.warn("%s: partitioned for sectors of %d bytes, and it says that they have %d: taken for a disk of %d", i.Path, partitioned, said, partitioned)
		}
		i.sector = partitioned
	case said != 0 && said != disk.DefaultSector:
		o.warn("%s: sectors of %d bytes are not carried: they become %d", i.Path, said, disk.DefaultSector)
		i.sector = disk.DefaultSector
	}
}

func (o *Options) warn(format string, args ...any) { o.Observer.Warn(fmt.Sprintf(format, args...)) }
func (o *Options) note(format string, args ...any) { o.Observer.Note(fmt.Sprintf(format, args...)) }

func (o *Options) failed(path string, err error) error { return &Error{path, o.BackingDir, err} }

func (o *Options) maxUnpacked() int64 { return cmp.Or(o.MaxUnpacked, DefaultMaxUnpacked) }

// Open opens an image file, or stdin if path is "-". name is that of its disk, ""
// for none. The caller closes the image. Errors are those of [disk.Open] in an
// [Error], and of what was unpacked in an [UnpackError].
func Open(ctx context.Context, name, path string, o Options) (*Image, error) {
	img, err := open(ctx, path, o)
	if err != nil {
		return nil, o.failed(path, err)
	}
	img.Name = name
	img.findSectors(o, 0)
	return img, nil
}

func open(ctx context.Context, path string, o Options) (*Image, error) {
	how := disk.OpenOptions{Format: o.Format, BackingDir: o.BackingDir, Hidden: true, Extents: true, Snapshot: o.Snapshot}
	if path == "-" {
		return openStdin(ctx, how, o)
	}
	img, err := disk.Open(path, how)
	if compressed, ok := errors.AsType[*disk.CompressedError](err); ok {
		return openCompressed(ctx, path, how, compressed, o)
	}
	if err != nil {
		return nil, err
	}
	warnMoved(img, path, o)
	return &Image{Image: img, Path: path}, nil
}

// warnMoved tells of files of an image that are elsewhere than it says.
func warnMoved(img *disk.Image, path string, o Options) {
	for _, f := range img.Moved() {
		o.warn("%s: nothing is at %s, which it continues in: %s is read instead", path, f.Name, f.Path)
	}
}

func openStdin(ctx context.Context, how disk.OpenOptions, o Options) (*Image, error) {
	how.Format = disk.Raw
	add, end := o.Observer.Begin("reading stdin", 0)
	defer end()
	stdin := Interruptible(ctx, o.Stdin)
	return openSpooled(ctx, "-", how, "reading stdin", Counting(stdin, add), math.MaxInt64, o)
}

// openCompressed unpacks a file. What comes out is an image in one file: nothing
// lies beside it that it could name.
func openCompressed(ctx context.Context, path string, how disk.OpenOptions, compressed *disk.CompressedError, o Options) (img *Image, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if img == nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	add, end := o.Observer.Begin("unpacking "+filepath.Base(path), info.Size())
	defer end()
	plain, err := disk.NewDecompressor(Counting(UntilDone(ctx, f), add))
	if errors.Is(err, disk.ErrCompressed) {
		return nil, compressed
	} else if err != nil {
		return nil, fmt.Errorf("unpacking %s: %w", path, err)
	}
	defer plain.Close()

	how.BackingDir, how.Extents = "", false
	img, err = openSpooled(ctx, path, how, "unpacking "+path, plain, o.maxUnpacked(), o)
	if errors.Is(err, disk.ErrBackingFile) || errors.Is(err, disk.ErrUnsupported) {
		return nil, &UnpackError{compressed.By, err}
	}
	if err != nil {
		return nil, err
	}
	img.packed = f
	return img, nil
}

// openSpooled opens what r reads, up to limit bytes.
func openSpooled(ctx context.Context, path string, how disk.OpenOptions, what string, r io.Reader, limit int64, o Options) (*Image, error) {
	dir, err := o.Scratch()
	if err != nil {
		return nil, err
	}
	file, err := spool(ctx, dir, r, limit)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	img, err := disk.Open(file, how)
	if err != nil {
		// Without the name of the scratch file, which is gone.
		if inner := errors.Unwrap(err); inner != nil {
			err = inner
		}
		return nil, errors.Join(fmt.Errorf("%s: what came out: %w", what, err), os.Remove(file))
	}
	return &Image{Image: img, Path: path, Spooled: true, spooled: file}, nil
}

// OpenAsIs opens an image that is never unpacked: a seed, or what is audited.
// Errors are those of [disk.Open], in an [Error].
func OpenAsIs(path string, o disk.OpenOptions) (*disk.Image, error) {
	img, err := disk.Open(path, o)
	if errors.Is(err, disk.ErrCompressed) {
		err = fmt.Errorf("%w: it is not unpacked here", err)
	}
	if err != nil {
		return nil, &Error{Path: path, Err: err}
	}
	return img, nil
}
