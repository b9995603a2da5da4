package artifact

import (
	"context"
	"io"
	"slices"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/internal/fetch"
)

// CheckOptions are the options of [Image.Check].
type CheckOptions struct {
	Jobs     int               // requests at once; 0 is 8
	Progress func(bytes int64) // is told of bytes that were read; may be nil

	// Known, if it is not nil, says which layers need not be read.
	Known func(LayerID) bool

	// Digests has the bytes of known layers read nevertheless, for their digests
	// alone: where somebody could have put other bytes under these.
	Digests bool

	// Uncut leaves out whether each disk is cut as its profile says, for which
	// all of its data is read once more.
	Uncut bool
}

// Check reads every byte of every blob that the manifest names and checks all
// of it: the digests of blobs, every frame and chunk, dead ones as well, every
// page, and that each disk is cut as its profile says, if the profile is known.
func (im *Image) Check(ctx context.Context, o CheckOptions) error {
	if o.Jobs <= 0 {
		o.Jobs = 8
	}
	if err := im.checkBlob(ctx, PartConfig, im.OVF, o.Progress); err != nil {
		return err
	}
	for _, desc := range im.Files {
		if err := im.checkBlob(ctx, PartFile, desc, o.Progress); err != nil {
			return err
		}
	}
	for _, desc := range slices.Concat(im.Originals, im.Others) {
		if err := im.checkBlob(ctx, PartBlob, desc, o.Progress); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(o.Jobs)
	for _, desc := range im.Layers {
		g.Go(func() error { return im.checkLayer(gctx, desc, &o) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, d := range im.Disks {
		if err := d.check(ctx, &o); err != nil {
			return err
		}
	}
	return nil
}

// check checks what the index of the disk says: its pages, and its cuts.
func (d *Disk) check(ctx context.Context, o *CheckOptions) error {
	switch {
	case o.Uncut:
		for _, err := range d.Chunks(ctx) {
			if err != nil {
				return err
			}
		}
		return nil
	case !d.Index.Profile.Known(): // all can be checked but the cuts
		_, err := d.Restore(ctx, nowhere{}, RestoreOptions{Jobs: o.Jobs})
		return err
	}
	c := &cutChecker{d: d, chunks: make(chan Chunk, 1024)}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(c.chunks)
		for chunk, err := range d.Chunks(gctx) {
			if err != nil {
				return err
			}
			select {
			case c.chunks <- chunk:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	g.Go(func() error {
		if _, err := d.Restore(gctx, c, RestoreOptions{Jobs: o.Jobs}); err != nil {
			return err
		}
		return c.cut(true)
	})
	return g.Wait()
}

// checkBlob reads a blob and checks its digest.
func (im *Image) checkBlob(ctx context.Context, part string, desc ocispec.Descriptor, progress func(int64)) error {
	rc, err := im.src.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	return readRest(part, desc, fetch.Reader(rc, desc), progress)
}

// readRest reads what is left of a blob, which r checks.
func readRest(part string, desc ocispec.Descriptor, r io.Reader, progress func(int64)) error {
	rest, err := io.Copy(io.Discard, r)
	if progress != nil {
		progress(rest)
	}
	if err != nil {
		return readError(part, desc, err)
	}
	return nil
}

// checkLayer reads a layer whole: its frames by each directory that a disk has
// for it, or its digest alone if no disk lists it.
func (im *Image) checkLayer(ctx context.Context, desc ocispec.Descriptor, o *CheckOptions) error {
	seen := map[LayerID]bool{}
	known, read := false, false
	for _, d := range im.Disks {
		for i := range d.layers {
			id := d.Index.Layers[i].id(desc.MediaType)
			if d.layers[i].Digest != desc.Digest || seen[id] {
				continue
			}
			seen[id] = true
			if o.Known != nil && o.Known(id) {
				known = true
				continue
			}
			dir, err := d.directory(ctx, i)
			if err != nil {
				return err
			}
			if err := im.checkFrames(ctx, dir, o.Progress); err != nil {
				return err
			}
			im.checked(id)
			read = true
		}
	}
	if len(seen) == 0 || known && !read && o.Digests {
		return im.checkBlob(ctx, PartLayer, desc, o.Progress)
	}
	return nil
}

// checkFrames reads a layer whole: every frame and chunk that its directory
// lists, and its digest.
func (im *Image) checkFrames(ctx context.Context, dir *directory, progress func(int64)) error {
	desc := dir.layer
	rc, err := im.src.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	whole := fetch.Reader(rc, desc)
	var stored []byte
	var f *frame
	for i := range dir.frames {
		e, err := dir.frame(i)
		if err != nil {
			return err
		}
		if cap(stored) < int(e.stored) {
			stored = make([]byte, e.stored)
		}
		stored = stored[:e.stored]
		if _, err := io.ReadFull(whole, stored); err != nil {
			return readError(PartLayer, desc, noEOF(err))
		}
		if progress != nil {
			progress(int64(len(stored)))
		}
		if f, err = dir.decode(i, &e, stored, f); err != nil {
			return err
		}
	}
	return readRest(PartLayer, desc, whole, progress)
}

type nowhere struct{}

func (nowhere) WriteAt(p []byte, off int64) (int, error) { return len(p), nil }
func (nowhere) Close() error                             { return nil }

// A cutChecker is a [disk.Writer] that is written in order and checks that the
// content is cut as recorded.
type cutChecker struct {
	d      *Disk
	chunks chan Chunk // as recorded, in order

	mu  sync.Mutex
	buf []byte // not cut yet
	off int64  // of buf on the disk
}

// InOrder is what [disk.InOrder] calls.
func (c *cutChecker) InOrder() bool { return true }

func (c *cutChecker) WriteAt(p []byte, off int64) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.buf) > 0 && (off != c.off+int64(len(c.buf)) || off%chunker.RegionSize == 0) {
		if err := c.cut(true); err != nil {
			return 0, err
		}
	}
	if len(c.buf) == 0 {
		c.off = off
	}
	c.buf = append(c.buf, p...)
	return len(p), c.cut(false)
}

func (c *cutChecker) Close() error { return nil }

// cut cuts what is decided; at the end of a run, everything.
func (c *cutChecker) cut(end bool) error {
	if end {
		if n := len(c.buf) % chunker.BlockSize; n != 0 {
			c.buf = append(c.buf, make([]byte, chunker.BlockSize-n)...)
		}
	}
	b := c.buf
	for len(b) >= chunker.Window || end && len(b) > 0 {
		n := int64(c.d.Index.Profile.Next(b)) * chunker.BlockSize
		got, ok := <-c.chunks
		if !ok || got.Offset != c.off || got.Length != n {
			return refuse(PartDisk, "of "+c.d.Name, "the chunk at %d is not cut as profile %s says", c.off, c.d.Index.Profile)
		}
		b = b[n:]
		c.off += n
	}
	c.buf = append(c.buf[:0], b...)
	return nil
}
