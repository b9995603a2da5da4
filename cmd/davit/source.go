package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/space"
	"github.com/davit-oci/davit/registry"
)

// An image is an open SOURCE: the content of one disk.
type image struct {
	*disk.Image
	name    string       // the disk's, "" if none was given
	path    string       // "-" is stdin
	spooled bool         // what is open is not the file at path
	packed  *os.File     // the file at path that was unpacked; nil: it was not
	cleanup func() error // after the files are closed
	sector  int          // see findSectors
}

func (i *image) Close() error {
	errs := []error{i.Image.Close()}
	if i.packed != nil {
		errs = append(errs, i.packed.Close())
	}
	return errors.Join(append(errs, i.cleanup())...)
}

// source is the file at path, or what came from stdin.
func (i *image) source() *os.File {
	if i.packed != nil {
		return i.packed
	}
	return i.Files()[0]
}

// others are the files in which the one at path continues.
func (i *image) others() []*os.File {
	if files := i.Files(); len(files) > 1 {
		return files[1:]
	}
	return nil
}

func (i *image) ReadAt(p []byte, off int64) (int, error) {
	n, err := i.Image.ReadAt(p, off)
	return n, i.reading(err)
}

// NextExtent is what [disk.NextExtent] calls.
func (i *image) NextExtent(off int64) (disk.Extent, error) {
	e, err := i.Image.NextExtent(off)
	return e, i.reading(err)
}

func (i *image) reading(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return sourceError{fmt.Errorf("reading %s: %w", i.path, err)}
}

// A sourceError is of an image that is read: what is written has no part in it.
type sourceError struct{ error }

func (e sourceError) Unwrap() error { return e.error }

// open opens a SOURCE. A raw disk on stdin, and what a compressed file holds,
// is first written to a temporary file, without its zeros. The caller closes
// the image.
func (s *sourceFlags) open(ctx context.Context, g *globals, src source) (*image, error) {
	img, err := s.openImage(ctx, g, src)
	if err == nil {
		img.findSectors(g, 0)
	}
	return img, err
}

func (s *sourceFlags) openImage(ctx context.Context, g *globals, src source) (*image, error) {
	o := disk.OpenOptions{Format: s.format.Format, BackingDir: s.backingDir, Hidden: true, Extents: true, Snapshot: s.snapshot}
	if src.path == "-" {
		return s.openStdin(ctx, g, src, o)
	}
	img, err := disk.Open(src.path, o)
	var compressed *disk.CompressedError
	switch {
	case errors.As(err, &compressed):
		return s.openCompressed(ctx, g, src, o, err)
	case errors.Is(err, disk.ErrBackingFile) && s.backingDir != "":
		return nil, err // which says what is wrong with it
	case err != nil:
		return nil, hintForImage(err, src.path)
	}
	warnMoved(g, img, src.path)
	return &image{img, src.name, src.path, false, nil, func() error { return nil }, 0}, nil
}

// warnMoved tells of files that an image has elsewhere.
func warnMoved(g *globals, img *disk.Image, path string) {
	for _, f := range img.Moved() {
		g.stderr.warn("%s: nothing is at %s, which it continues in: %s is read instead", path, printable(f.Name), f.Path)
	}
}

func (s *sourceFlags) openStdin(ctx context.Context, g *globals, src source, o disk.OpenOptions) (*image, error) {
	if o.Format != "" && o.Format != disk.Raw {
		return nil, usagef("-f %s: what comes from stdin is a raw disk", o.Format)
	}
	o.Format = disk.Raw

	p := g.begin("reading stdin", 0)
	defer p.end()
	stdin := interruptibleReader(ctx, g.stdin)
	return g.openSpooled(ctx, src, o, "reading stdin", counting(stdin, p.add), math.MaxInt64)
}

// openCompressed unpacks a file that [disk.Open] has refused. What comes out is
// an image in one file: beside it lies nothing that it could name.
func (s *sourceFlags) openCompressed(ctx context.Context, g *globals, src source, o disk.OpenOptions, refused error) (img *image, err error) {
	f, err := os.Open(src.path)
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
	p := g.begin("unpacking "+filepath.Base(src.path), info.Size())
	defer p.end()
	plain, err := disk.NewDecompressor(counting(untilDone(ctx, f), p.add))
	if errors.Is(err, disk.ErrCompressed) {
		return nil, hintForImage(refused, src.path)
	} else if err != nil {
		return nil, fmt.Errorf("unpacking %s: %w", src.path, err)
	}
	defer plain.Close()

	o.BackingDir, o.Extents = "", false
	img, err = g.openSpooled(ctx, src, o, "unpacking "+src.path, plain, int64(s.maxUnpacked))
	if errors.Is(err, disk.ErrBackingFile) || errors.Is(err, disk.ErrUnsupported) {
		return nil, hintToUnpack(err, refused, src.path)
	}
	if err != nil {
		return nil, err
	}
	img.packed = f
	return img, nil
}

// openSpooled opens what r reads, up to limit bytes.
func (g *globals) openSpooled(ctx context.Context, src source, o disk.OpenOptions, what string, r io.Reader, limit int64) (*image, error) {
	store, err := g.store(ctx)
	if err != nil {
		return nil, err
	}
	path, err := spool(ctx, store, r, limit)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", what, err), store.Close())
	}
	img, err := disk.Open(path, o)
	if err != nil {
		// Without the name of the temporary file, which is gone.
		if inner := errors.Unwrap(err); inner != nil {
			err = inner
		}
		return nil, errors.Join(fmt.Errorf("%s: what came out: %w", what, err), store.Close())
	}
	return &image{img, src.name, src.path, true, nil, store.Close, 0}, nil
}

// openAsIs opens an image that is never unpacked: a seed, or what is audited.
func openAsIs(path string, o disk.OpenOptions) (*disk.Image, error) {
	img, err := disk.Open(path, o)
	if errors.Is(err, disk.ErrCompressed) {
		err = fmt.Errorf("%w: it is not unpacked here", err)
	}
	return img, hintForImage(err, path)
}

const hintHidden = "--backing-dir DIR, the folder that the file lies in, if it may be published"

// hintForImage adds the command that mends an image that cannot be read as it is.
func hintForImage(err error, path string) error {
	second, _ := errors.AsType[*disk.BackingFileError](err)
	switch {
	case errors.Is(err, disk.ErrCompressed):
		return hintToUnpack(err, err, path)
	case errors.Is(err, disk.ErrEncrypted):
		return withHint(err, "qemu-img convert --object secret,id=key,file=PASSWORD --image-opts driver=qcow2,encrypt.key-secret=key,file.filename=%s -O qcow2 plain.qcow2", path)
	case errors.Is(err, disk.ErrHidden), second != nil && second.Folder == "":
		// Who follows a hint must not publish what the image's author wants.
		return withHint(err, hintHidden)
	case second != nil && second.Continues:
		return withHint(err, "--backing-dir %s, if all files that it and its parents name in there may be published", second.Folder)
	case second != nil:
		return withHint(err, "--backing-dir %s", second.Folder)
	}
	return err
}

// unpackers unpack what [disk.CompressedError] names.
var unpackers = map[string]string{
	"gzip":     "gzip -dc %s >disk.img",
	"xz":       "xz -dc %s >disk.img",
	"zstd":     "zstd -dc %s >disk.img",
	"bzip2":    "bzip2 -dc %s >disk.img",
	"lz4":      "lz4 -dc %s >disk.img",
	"lzip":     "lzip -dc %s >disk.img",
	"lzma":     "xz --format=lzma -dc %s >disk.img",
	"lzop":     "lzop -dc %s >disk.img",
	"compress": "gzip -dc %s >disk.img",
	"zip":      "unzip %s",
	"7z":       "7z x %s",
	"rar":      "7z x %s",
}

// hintToUnpack adds the command that unpacks the file at path, which was
// refused because it is compressed.
func hintToUnpack(err, refused error, path string) error {
	var compressed, inside *disk.CompressedError
	if errors.As(err, &inside) && inside.By == "tar" { // tar finds out by itself what is around it
		return withHint(err, "%s", untar(path))
	}
	if errors.As(refused, &compressed) && unpackers[compressed.By] != "" {
		return withHint(err, unpackers[compressed.By], path)
	}
	return err
}

// untar is what to do with an archive: it is no disk, but has one in it.
func untar(path string) string {
	what := "the disk or the descriptor"
	if strings.EqualFold(filepath.Ext(path), ".box") { // Vagrant's: of VirtualBox, VMware or libvirt
		what = "the box.ovf, the .vmx or the box.img"
	}
	return fmt.Sprintf("tar -xf %s, and then davit with %s that was in it", path, what)
}

const (
	spoolStep = 1 << 20
	zeroUnit  = 64 << 10 // runs of zeros from this size on are left out of files

	// After how many bytes a file system is asked what is free. What is smaller
	// than that may fill it.
	spaceStep = 64 << 20
)

// spool writes r to a scratch file of the store, whose path it returns. Zeros
// become holes. It takes no more than limit bytes.
func spool(ctx context.Context, store *registry.Store, r io.Reader, limit int64) (string, error) {
	dir, _, err := store.Scratch()
	if err != nil {
		return "", err
	}
	// The name says no format: a descriptor of VMDK extents is none here.
	f, err := os.Create(filepath.Join(dir, "spooled"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	s := &spoolFile{File: f, free: space.Free, unasked: spaceStep}
	buf := make([]byte, spoolStep)
	for off := int64(0); ctx.Err() == nil; {
		n, err := readFull(r, buf)
		if int64(n) > limit-off {
			return "", fmt.Errorf("more than the %s that --max-unpacked allows", (*size)(&limit))
		}
		if werr := writeSparse(s, buf[:n], off); werr != nil {
			return "", werr
		}
		off += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			if err := f.Truncate(off); err != nil {
				return "", err
			}
			return f.Name(), f.Close()
		case err != nil:
			return "", err
		}
	}
	return "", context.Cause(ctx)
}

// readFull reads until buf is full or r ends. Unlike [io.ReadFull] it does not
// change the error of r.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// A spoolFile leaves some space of its file system to others.
type spoolFile struct {
	*os.File
	free    func(path string) (n int64, known bool)
	unasked int64 // how much is written before free is asked
}

func (f *spoolFile) WriteAt(p []byte, off int64) (int, error) {
	if f.unasked -= int64(len(p)); f.unasked < 0 {
		if n, known := f.free(f.Name()); known && n-int64(len(p)) < space.Left {
			return 0, fmt.Errorf("writing %s: %w but for %s", f.Name(), space.ErrFull, humanBytes(n))
		}
		f.unasked = spaceStep
	}
	return f.File.WriteAt(p, off)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// counting tells count of the bytes that are read from r.
func counting(r io.Reader, count func(int64)) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		count(int64(n))
		return n, err
	})
}

// untilDone reads from a file until ctx ends.
func untilDone(ctx context.Context, r io.Reader) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
		return r.Read(p)
	})
}

// interruptibleReader reads from r until ctx ends. A read from a pipe cannot be
// cancelled: its goroutine stays behind, and the process ends.
func interruptibleReader(ctx context.Context, r io.Reader) io.Reader {
	type result struct {
		n   int
		err error
	}
	results := make(chan result, 1)
	var buf []byte
	return readerFunc(func(p []byte) (int, error) {
		if len(buf) < len(p) {
			buf = make([]byte, len(p))
		}
		go func(buf []byte) {
			n, err := r.Read(buf)
			results <- result{n, err}
		}(buf[:len(p)])
		select {
		case got := <-results:
			return copy(p, buf[:got.n]), got.err
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	})
}

// writeSparse writes p at off but for its zeros, where w has zeros already.
func writeSparse(w io.WriterAt, p []byte, off int64) error {
	for start := 0; start < len(p); {
		end := min(len(p), start+zeroUnit)
		if isZero(p[start:end]) {
			start = end
			continue
		}
		for end < len(p) && !isZero(p[end:min(len(p), end+zeroUnit)]) {
			end = min(len(p), end+zeroUnit)
		}
		if _, err := w.WriteAt(p[start:end], off+int64(start)); err != nil {
			return err
		}
		start = end
	}
	return nil
}

func isZero(p []byte) bool {
	// Compared with itself, shifted by one: memequal is as fast as it gets.
	return len(p) == 0 || p[0] == 0 && string(p[1:]) == string(p[:len(p)-1])
}
