package artifact

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/disk"
)

// Scan reads a disk, cuts it and calls emit, which may be nil, with its chunks
// in order. It returns the disk digest. memory bounds the buffers, in bytes; 0
// is 64 MiB.
func Scan(ctx context.Context, r disk.Reader, p chunker.Profile, memory int64, emit func(Chunk) error) (digest [sha256.Size]byte, err error) {
	if memory <= 0 {
		memory = 64 << 20
	}
	d := chunker.NewDisk(p)
	var region chunker.Region
	number := uint32(0)
	endRegion := func() {
		if region.Chunks() > 0 {
			id := region.Identity()
			d.Add(number, &id)
		}
	}
	err = scan(ctx, r, p, memory, func(n uint32, chunks []foundChunk) error {
		if n != number {
			endRegion()
			number = n
		}
		for i := range chunks {
			c := &chunks[i]
			region.Add(c.start, c.blocks, &c.digest)
			if emit != nil {
				off := int64(n)*chunker.RegionSize + int64(c.start)*chunker.BlockSize
				if err := emit(Chunk{off, int64(len(c.data)), c.digest}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	endRegion()
	return d.Digest(), err
}

// Check reads every byte of every blob that the manifest names and checks all
// of it: the digests of blobs, every frame and chunk, dead ones as well, every
// page, and that each disk is cut as its profile says, if the profile is known. progress, which may be
// nil, is told the bytes that were read.
func (im *Image) Check(ctx context.Context, jobs int, progress func(int64)) error {
	if jobs <= 0 {
		jobs = 8
	}
	if err := im.checkBlob(ctx, PartConfig, im.OVF, progress); err != nil {
		return err
	}
	for _, desc := range im.Files {
		if err := im.checkBlob(ctx, PartFile, desc, progress); err != nil {
			return err
		}
	}
	for _, desc := range slices.Concat(im.Originals, im.Others) {
		if err := im.checkBlob(ctx, PartBlob, desc, progress); err != nil {
			return err
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for _, desc := range im.Layers {
		g.Go(func() error { return im.checkLayer(gctx, desc, progress) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, d := range im.Disks {
		if !d.Index.Profile.Known() { // all can be checked but the cuts
			if _, err := d.Restore(ctx, nowhere{}, RestoreOptions{Jobs: jobs}); err != nil {
				return err
			}
			continue
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
			if _, err := d.Restore(gctx, c, RestoreOptions{InOrder: true, Jobs: jobs}); err != nil {
				return err
			}
			return c.cut(true)
		})
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// checkBlob reads a blob and checks its digest.
func (im *Image) checkBlob(ctx context.Context, part string, desc ocispec.Descriptor, progress func(int64)) error {
	rc, err := im.src.Fetch(ctx, desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	return hashRest(part, desc, rc, sha256.New(), 0, progress)
}

// hashRest reads what is left of a blob of which n bytes went into h.
func hashRest(part string, desc ocispec.Descriptor, r io.Reader, h interface {
	io.Writer
	Sum([]byte) []byte
}, n int64, progress func(int64)) error {
	rest, err := io.Copy(h, io.LimitReader(r, desc.Size-n+1))
	if err != nil {
		return fmt.Errorf("reading %s: %w", desc.Digest, err)
	}
	if progress != nil {
		progress(rest)
	}
	if n+rest != desc.Size {
		return refuse(part, string(desc.Digest), "its size is not the %d bytes of its descriptor", desc.Size)
	}
	var s sum
	if h.Sum(s[:0]); Digest(s) != desc.Digest {
		return refuse(part, string(desc.Digest), "its bytes hash to %s", Digest(s))
	}
	return nil
}

// checkLayer reads a layer whole: its frames by its directory, if a disk lists
// it, and its digest.
func (im *Image) checkLayer(ctx context.Context, desc ocispec.Descriptor, progress func(int64)) error {
	var dir *directory
	for _, d := range im.Disks {
		for i := range d.layers {
			if d.layers[i].Digest == desc.Digest && dir == nil {
				var err error
				if dir, err = d.directory(ctx, i); err != nil {
					return err
				}
			}
		}
	}
	if dir == nil {
		return im.checkBlob(ctx, PartLayer, desc, progress)
	}
	return im.checkFrames(ctx, dir, progress)
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
	h := sha256.New()
	var stored []byte
	var f *frame
	at := int64(0)
	for i := range dir.frames {
		e, err := dir.frame(i)
		if err != nil {
			return err
		}
		if cap(stored) < int(e.stored) {
			stored = make([]byte, e.stored)
		}
		stored = stored[:e.stored]
		if _, err := io.ReadFull(rc, stored); err != nil {
			return fmt.Errorf("reading layer %s at %d: %w", desc.Digest, at, noEOF(err))
		}
		h.Write(stored)
		at += int64(len(stored))
		if progress != nil {
			progress(int64(len(stored)))
		}
		if f, err = dir.decode(i, &e, stored, f); err != nil {
			return err
		}
	}
	return hashRest(PartLayer, desc, rc, h, at, progress)
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
