package disk

import (
	"cmp"
	"os"
	"path/filepath"
	"sync"

	"github.com/davit-oci/davit/internal/wholefile"
)

// CreateOptions are the options of [Create]. The zero value is right.
type CreateOptions struct {
	// Write is how the image is written. The default of its SectorSize is that of
	// the disk, and the default of its Name is that of the file.
	Write WriteOptions

	// Replace allows a regular file to exist at the path. It stays as it is until
	// the new one is complete.
	Replace bool
}

// A File is an image file that is being written. It is a [Writer] whose file
// appears at its path when the image is complete, or never.
//
// WriteAt is safe for concurrent use, as [Writer] says. Close and Abort are not:
// they are called when no call of WriteAt is running.
type File struct {
	w    Writer
	file *wholefile.Set // nil after Close and Abort

	mu  sync.Mutex
	err error // the first
}

// Create starts an image of the disk r in a new file. The file appears at path
// when [File.Close] returns without an error. Create takes the size, the
// [SectorSize] and the [Extents] from r. The caller writes the content, with
// [Copy], with artifact.Disk.Restore, or with calls of WriteAt in the order that
// [InOrder] says:
//
//	f, err := disk.Create("disk.qcow2", disk.QCOW2Zstd, r, disk.CreateOptions{})
//	if err != nil {
//		return err
//	}
//	defer f.Abort() // nothing is left after an error
//	if err := disk.Copy(ctx, f, r, disk.CopyOptions{}); err != nil {
//		return err
//	}
//	return f.Close()
//
// Until then the file is called .NAME.davit-part, in the same folder, and only
// one File at a time can be written for a path. A symbolic link at path is
// followed if it belongs to this user.
//
// The error is [os.ErrExist] if a file exists at path and may not be replaced,
// or one of [NewWriter] or of the file system. Something at path that is not a
// regular file is always an error. For a device call [OpenDevice].
func Create(path string, format Format, r Reader, o CreateOptions) (*File, error) {
	file := new(wholefile.Set)
	part, err := file.CreateEmpty(path, o.Replace)
	if err != nil {
		file.Abandon(false)
		return nil, err
	}
	o.Write.Name = cmp.Or(o.Write.Name, filepath.Base(path))
	o.Write.SectorSize = cmp.Or(o.Write.SectorSize, SectorSize(r))
	w, err := NewWriter(part.File, format, r.Size(), Extents(r), o.Write)
	if err != nil {
		file.Abandon(false)
		return nil, err
	}
	return &File{w: w, file: file}, nil
}

// InOrder is what [InOrder] calls.
func (f *File) InOrder() bool { return InOrder(f.w) }

// Blank is what [Copy] calls.
func (f *File) Blank() bool { return blank(f.w) }

// WriteAt writes content of the disk. After an error the file never appears.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.w.WriteAt(p, off)
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.err = cmp.Or(f.err, err)
	}
	return n, err
}

// Close completes the image, syncs the file and gives it its name. After an error
// no file appears. The error is that of a WriteAt that failed, [ErrAborted], or
// one of the file system. A second call returns the same error, or
// [os.ErrClosed] if there was none.
func (f *File) Close() error {
	if f.file == nil {
		return cmp.Or(f.err, os.ErrClosed)
	}
	if f.err == nil {
		f.err = f.w.Close()
	}
	if f.err == nil {
		f.err = f.file.Commit()
	}
	f.file.Abandon(false) // what was not committed
	f.file = nil
	return f.err
}

// Abort removes what was written, unless Close was called before.
func (f *File) Abort() {
	if f.file == nil {
		return
	}
	Abort(f.w)
	f.file.Abandon(false)
	f.file, f.err = nil, cmp.Or(f.err, ErrAborted)
}
