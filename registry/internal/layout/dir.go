package layout

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/davit-oci/davit/internal/own"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dirFiles is a layout in a directory.
//
// A kill at any moment leaves a valid layout: blobs, oci-layout and index.json appear by rename, each after what it needs.
// Processes that change index.json at the same time take turns.
type dirFiles struct {
	dir   string
	ready atomic.Bool // prepare has succeeded
}

// OpenDir opens the layout in a folder. It need not exist: the first write makes it. Bytes are counted in s.
func OpenDir(dir string, s *oci.Stats) (*Layout, error) {
	f := &dirFiles{dir: dir}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("opening layout: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("opening layout: %s is not a directory", dir)
	default:
		if err := f.check(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("opening layout %s: %w", dir, err)
		}
	}
	return &Layout{files: f, stats: s}, nil
}

func (f *dirFiles) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

func (f *dirFiles) blob(d digest.Digest) string { return f.path(blobsDir + "/" + d.Encoded()) }

// check says whether the directory is a layout; fs.ErrNotExist: it has no oci-layout.
func (f *dirFiles) check() error {
	b, err := own.ReadAny(f.path(layoutFile), 4096)
	if err != nil {
		return err
	}
	return checkLayoutFile(b)
}

// prepare makes the directory a layout.
func (f *dirFiles) prepare(ctx context.Context) error {
	if f.ready.Load() {
		return nil
	}
	if err := f.check(); errors.Is(err, fs.ErrNotExist) {
		// Only an empty directory becomes one; what a killed prepare has left is as good as nothing.
		entries, err := os.ReadDir(f.dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if n := e.Name(); n != "blobs" && n != indexFile && n != layoutFile && n != lockName && !wholefile.IsTemp(n) {
				return fmt.Errorf("%s is neither empty nor an OCI layout", f.dir)
			}
		}
	} else if err != nil {
		return err
	}
	if err := mayWriteTo(f.dir); err != nil {
		return err
	}
	// The user has named the folder, and nothing in it: no link of others that is there is followed, whoever's folder it lies in.
	for _, dir := range []string{"blobs", blobsDir} {
		if _, err := own.Resolve(f.path(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if _, err := own.MkdirAll(f.path(blobsDir), 0o777); err != nil {
		return err
	}
	wholefile.Sweep(f.dir)
	if !exists(f.path(layoutFile)) {
		if err := wholefile.Replace(f.path(layoutFile), []byte(layoutContent), 0o666); err != nil {
			return err
		}
	}
	// A layout without index.json is not one: it is made at once and not with the first manifest.
	if !exists(f.path(indexFile)) {
		if err := f.update(ctx, func(*ocispec.Index) {}); err != nil {
			return err
		}
	}
	f.ready.Store(true)
	return nil
}

func (f *dirFiles) index() (ocispec.Index, error) {
	b, err := own.ReadAny(f.path(indexFile), maxIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return ocispec.Index{}, nil
	}
	if err != nil {
		return ocispec.Index{}, err
	}
	return parseIndex(b)
}

// lockName is the file that is there while index.json is changed.
const lockName = ".davit-lock"

func (f *dirFiles) update(ctx context.Context, change func(*ocispec.Index)) error {
	if err := mayWriteTo(f.dir); err != nil {
		return err
	}
	release, err := wholefile.Lock(ctx, f.path(lockName))
	if err != nil {
		return err
	}
	defer release()
	index, err := f.index()
	if err != nil {
		return err
	}
	change(&index)
	b, err := formatIndex(index)
	if err != nil {
		return err
	}
	if old, err := own.ReadAny(f.path(indexFile), maxIndex); err == nil && bytes.Equal(old, b) {
		return nil
	}
	return wholefile.Replace(f.path(indexFile), b, 0o666)
}

func (f *dirFiles) open(d digest.Digest) (layoutBlob, error) { return openBlobFile(f.blob(d)) }

func (f *dirFiles) put(ctx context.Context, desc ocispec.Descriptor, content io.Reader) error {
	if err := f.prepare(ctx); err != nil {
		return err
	}
	p, err := wholefile.CreateTemp(f.dir, 0o666)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := oci.CopyVerified(ctx, p, content, desc); err != nil {
		return err
	}
	return p.Commit(f.blob(desc.Digest))
}

func (f *dirFiles) close() error { return nil }

// A blobFile is an open file and the size it had then.
type blobFile struct {
	*os.File
	size int64
}

func (b blobFile) Size() int64 { return b.size }

func openBlobFile(path string) (layoutBlob, error) {
	file, err := own.OpenAny(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, oci.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	return blobFile{file, info.Size()}, nil
}

// mayWriteTo returns an error if the path of a folder leads through a link of another user. The folder need not exist.
func mayWriteTo(dir string) error {
	_, err := own.Resolve(dir + string(filepath.Separator))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
