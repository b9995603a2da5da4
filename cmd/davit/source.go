package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/registry"
)

// An image is an open SOURCE: the content of one disk.
type image struct {
	*disk.Image
	name    string       // the disk's, "" if none was given
	path    string       // "-" is stdin
	cleanup func() error // after the files are closed
}

func (i *image) Close() error {
	return errors.Join(i.Image.Close(), i.cleanup())
}

// open opens a SOURCE. A raw disk on stdin is first written to a temporary
// file, without its zeros. The caller closes the image.
func (s *sourceFlags) open(ctx context.Context, g *globals, src source) (*image, error) {
	o := disk.OpenOptions{Format: s.format.Format, BackingDir: s.backingDir, Extents: true, Snapshot: s.snapshot}
	if src.path != "-" {
		img, err := disk.Open(src.path, o)
		if err != nil {
			return nil, hintForImage(err, src.path)
		}
		return &image{img, src.name, src.path, func() error { return nil }}, nil
	}
	if o.Format != "" && o.Format != disk.Raw {
		return nil, usagef("-f %s: what comes from stdin is a raw disk", o.Format)
	}
	o.Format = disk.Raw

	store, err := g.store(ctx)
	if err != nil {
		return nil, err
	}
	path, err := g.spool(ctx, store, g.stdin)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading stdin: %w", err), store.Close())
	}
	img, err := disk.Open(path, o)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &image{img, src.name, src.path, store.Close}, nil
}

// hintForImage adds the command that mends an image that cannot be read as it is.
func hintForImage(err error, path string) error {
	if errors.Is(err, disk.ErrBackingFile) {
		return withHint(err, "--backing-dir %s", filepath.Dir(path))
	}
	return err
}

const (
	spoolStep = 1 << 20
	zeroUnit  = 64 << 10 // runs of zeros from this size on are left out of files
)

// spool writes r to a scratch file of the store, whose path it returns. Zeros
// become holes.
func (g *globals) spool(ctx context.Context, store *registry.Store, r io.Reader) (string, error) {
	dir, _, err := store.Scratch()
	if err != nil {
		return "", err
	}
	f, err := os.Create(filepath.Join(dir, "stdin.raw"))
	if err != nil {
		return "", err
	}
	defer f.Close()
	p := g.begin("reading stdin", 0)
	defer p.end()
	r = interruptibleReader(ctx, r)
	buf := make([]byte, spoolStep)
	for off := int64(0); ; {
		n, err := io.ReadFull(r, buf)
		if werr := writeSparse(f, buf[:n], off); werr != nil {
			return "", werr
		}
		off += int64(n)
		p.add(int64(n))
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			if err := f.Truncate(off); err != nil {
				return "", err
			}
			return f.Name(), f.Close()
		case err != nil:
			return "", err
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

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
