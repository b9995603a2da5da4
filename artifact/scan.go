package artifact

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/disk"
)

// ScanOptions are the options of [Scan]. The zero value is right.
type ScanOptions struct {
	Profile chunker.Profile // how the disk is cut; 0 is [chunker.Profile1]

	// Memory bounds the buffers, in bytes; 0 is [DefaultMemory]. At least 10 MiB
	// are used.
	Memory int64

	// Found, if it is not nil, is called with the chunks in order, one at a time.
	// Its error ends the scan.
	Found func(Chunk) error

	Progress func(bytes int64) // is told of data that was read and hashed; may be nil
}

// Scan reads a disk, cuts it into chunks and returns the disk digest. The error
// is [ErrNewer] for a profile that is not [chunker.Profile.Known], or that of r
// or of Found.
func Scan(ctx context.Context, r disk.Reader, o ScanOptions) (digest [sha256.Size]byte, err error) {
	if o.Profile == 0 {
		o.Profile = chunker.Profile1
	}
	if o.Memory <= 0 {
		o.Memory = DefaultMemory
	}
	if !o.Profile.Known() {
		return digest, fmt.Errorf("cutting by profile %s: %w", o.Profile, ErrNewer)
	}
	d := chunker.NewDisk(o.Profile)
	err = scanRegions(ctx, r, o, func(region uint32, c *foundChunk) error {
		found := c.chunk(region)
		if o.Progress != nil {
			o.Progress(found.Length)
		}
		if o.Found == nil {
			return nil
		}
		return o.Found(found)
	}, func(region uint32, identity *sum, _ int) { d.Add(region, identity) })
	return d.Digest(), err
}

// scanRegions is scan chunk by chunk, with o's profile and memory. It calls end
// with each region that has chunks, after these: with its identity, and how many
// they are.
func scanRegions(ctx context.Context, r disk.Reader, o ScanOptions,
	emit func(region uint32, c *foundChunk) error, end func(region uint32, identity *sum, chunks int)) error {
	var region chunker.Region
	number := uint32(0)
	endRegion := func() {
		if n := region.Chunks(); n > 0 {
			id := region.Identity()
			end(number, &id, n)
		}
	}
	err := scan(ctx, r, o.Profile, o.Memory, func(n uint32, chunks []foundChunk) error {
		if n != number {
			endRegion()
			number = n
		}
		for i := range chunks {
			c := &chunks[i]
			region.Add(c.start, c.blocks, &c.digest)
			if err := emit(n, c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	endRegion()
	return nil
}

const (
	// windowSize is how much of a disk is read at once, in bytes.
	windowSize = 2 << 20

	// headroom before the data of a window is for the end of the one before
	// it, which is cut together with it.
	headroom = chunker.Window
)

// A foundChunk is a chunk of a disk. Its data is valid until the function that
// got it returns.
type foundChunk struct {
	start  int // block in the region
	blocks int
	digest sum
	data   []byte
}

// chunk returns c as a chunk of the disk.
func (c *foundChunk) chunk(region uint32) Chunk {
	off := int64(region)*chunker.RegionSize + int64(c.start)*chunker.BlockSize
	return Chunk{off, int64(len(c.data)), c.digest}
}

// A window is a part of a region that is read, cut and hashed.
type window struct {
	buf    []byte // headroom, then data
	region uint32
	block  int           // first block of the data, in the region
	n      int           // bytes of the data, whole blocks
	valid  int           // bytes of the data that are on the disk
	read   chan error    // gives the result of reading once
	hashed chan struct{} // closed when chunks have digests
	chunks []foundChunk
}

// scan reads a disk, cuts it into chunks and hashes them. It reads, cuts and
// hashes ahead of emit, which it calls in disk order and not concurrently, with
// chunks of one region. Memory is bounded by memory bytes, but at least 4
// windows are used.
func scan(ctx context.Context, r disk.Reader, p chunker.Profile, memory int64, emit func(region uint32, chunks []foundChunk) error) error {
	workers := runtime.GOMAXPROCS(0)
	buffers := min(2*workers+2, max(4, int(memory/(windowSize+headroom))))
	free := make(chan []byte, buffers)
	for range buffers {
		free <- nil // allocated when first used
	}
	g, ctx := errgroup.WithContext(ctx)
	reading := make(chan *window, buffers)
	hashing := make(chan *window, buffers)

	g.Go(func() error { // reads ahead
		defer close(reading)
		var wg errgroup.Group
		defer wg.Wait() //nolint:errcheck // its functions return nil
		wg.SetLimit(max(2, workers))
		return windows(r, func(w *window) error {
			select {
			case w.buf = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			if w.buf == nil {
				w.buf = make([]byte, headroom+windowSize)
			}
			w.read = make(chan error, 1)
			wg.Go(func() error {
				w.read <- w.fill(r)
				return nil
			})
			reading <- w
			return nil
		})
	})
	g.Go(func() error { // cuts, in order, and hashes ahead
		defer close(hashing)
		var wg errgroup.Group
		defer wg.Wait() //nolint:errcheck // its functions return nil
		wg.SetLimit(max(2, workers))
		c := cutter{profile: p}
		send := func(w *window) {
			wg.Go(func() error {
				for i := range w.chunks {
					w.chunks[i].digest = sha256.Sum256(w.chunks[i].data)
				}
				close(w.hashed)
				return nil
			})
			hashing <- w
		}
		for w := range reading {
			select {
			case err := <-w.read:
				if err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
			w.hashed = make(chan struct{})
			if done := c.next(w); done != nil {
				send(done)
			}
		}
		if done := c.next(nil); done != nil {
			send(done)
		}
		return nil
	})
	g.Go(func() error {
		for w := range hashing {
			<-w.hashed
			if err := ctx.Err(); err != nil {
				return err
			}
			if len(w.chunks) > 0 {
				if err := emit(w.region, w.chunks); err != nil {
					return err
				}
			}
			free <- w.buf
		}
		return nil
	})
	return g.Wait()
}

// windows calls yield with the windows of r that may hold data, ascending and
// without overlap.
func windows(r disk.Reader, yield func(*window) error) error {
	const block = chunker.BlockSize
	size := r.Size()
	for at := int64(0); at < size; {
		x, err := disk.NextExtent(r, at)
		if err != nil {
			return err
		}
		if x.Length == 0 {
			return nil
		}
		at = max(at, x.Offset&^(block-1))
		end := x.Offset + x.Length
		for at < end && at < size {
			inRegion := at % chunker.RegionSize
			n := min(windowSize, chunker.RegionSize-inRegion, (end-at+block-1)&^(block-1))
			w := &window{region: uint32(at / chunker.RegionSize), block: int(inRegion / block), n: int(n), valid: int(min(n, size-at))}
			if err := yield(w); err != nil {
				return err
			}
			at += n
		}
	}
	return nil
}

// fill reads the data of the window and pads it to whole blocks.
func (w *window) fill(r disk.Reader) error {
	data := w.buf[headroom : headroom+w.n]
	off := int64(w.region)*chunker.RegionSize + int64(w.block)*chunker.BlockSize
	n, err := r.ReadAt(data[:w.valid], off)
	if n < w.valid {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("reading %d bytes at %d of the disk: %w", w.valid, off, err)
	}
	clear(data[w.valid:])
	return nil
}

// A cutter cuts windows that come in order. What is left at the end of a
// window is cut together with the next one, if they are adjacent.
type cutter struct {
	profile chunker.Profile
	last    *window
	rest    []byte // of last, not cut yet
	block   int    // of rest, in the region
}

// next takes a window, or nil at the end, and returns the one before it, if
// there was one, whose chunks are now complete.
func (c *cutter) next(w *window) (done *window) {
	done = c.last
	var b []byte
	if w != nil {
		b = w.buf[headroom : headroom+w.n]
		c.last = w
	}
	block := 0
	if w != nil {
		block = w.block
	}
	if len(c.rest) > 0 {
		if w != nil && w.region == done.region && w.block == c.block+len(c.rest)/chunker.BlockSize {
			b = w.buf[headroom-len(c.rest) : headroom+w.n]
			copy(b, c.rest)
			block = c.block
			c.rest = nil
		} else {
			c.cut(done, c.rest, c.block, true)
		}
	}
	if w != nil {
		end := w.block+w.n/chunker.BlockSize == chunker.RegionBlocks
		c.cut(w, b, block, end)
	} else {
		c.last = nil
	}
	return done
}

// cut adds the chunks of b, which begins at block, to w. Unless b ends its
// region or run, it stops where the next window could decide.
func (c *cutter) cut(w *window, b []byte, block int, end bool) {
	for len(b) > 0 {
		if n := chunker.Holes(b); n > 0 {
			b = b[n*chunker.BlockSize:]
			block += n
			continue
		}
		if !end && len(b) < chunker.Window {
			break
		}
		n := c.profile.Next(b)
		w.chunks = append(w.chunks, foundChunk{start: block, blocks: n, data: b[:n*chunker.BlockSize]})
		b = b[n*chunker.BlockSize:]
		block += n
	}
	c.rest, c.block = b, block
}
