package artifact

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/disk"
)

// RestoreOptions are the options of [Disk.Restore]. The zero value is right.
type RestoreOptions struct {
	Seeds *Seeds // what is here already; may be nil

	// Resume says that the writer may hold what an earlier Restore wrote. If it
	// is a [disk.Reader], this is read, and what is right is kept. It is ignored
	// for a writer that is [disk.InOrder], which has nothing to keep.
	Resume bool

	// DryRun finds out what would be fetched, and neither fetches nor writes it.
	// The writer may be nil.
	DryRun bool

	Jobs     int               // requests at once; 0 is 8
	Progress func(bytes int64) // is told of data written or found in place; may be nil
}

// Restored says where the content of a disk came from, in bytes of plain data
// except Fetched.
type Restored struct {
	Fetched int64 // from the repository, compressed
	Seeded  int64 // from seeds that were read
	Listed  int64 // from seeds whose chunks a list named
	Kept    int64 // found in place
	Written int64
}

// Restore writes the data of the disk to w, in the order that w needs; holes are
// not written. Every region is checked before its first frame is fetched, every
// frame before it is decompressed, every chunk before it is written. A chunk that
// is at several places of the disk is fetched once. For a writer that is
// [disk.InOrder], data is fetched ahead into a scratch file.
//
// Restore does not close w. If it fails, it calls [disk.Abort].
func (d *Disk) Restore(ctx context.Context, w disk.Writer, o RestoreOptions) (Restored, error) {
	if o.Jobs <= 0 {
		o.Jobs = 8
	}
	r := &restorer{d: d, w: w, o: o}
	var err error
	switch {
	case o.DryRun:
		err = r.anyOrder(ctx)
	case disk.InOrder(w):
		err = r.inOrder(ctx)
	default:
		err = r.anyOrder(ctx)
	}
	if err != nil && !o.DryRun {
		disk.Abort(w)
	}
	return Restored{r.fetched.Load(), r.seeded.Load(), r.listed.Load(), r.kept.Load(), r.written.Load()}, err
}

type restorer struct {
	d *Disk
	w disk.Writer
	o RestoreOptions

	fetched, seeded, listed, kept, written atomic.Int64
}

// write writes a checked chunk without its padding.
func (r *restorer) write(off int64, chunk []byte) error {
	chunk, err := r.d.unpad(off, chunk)
	if err != nil {
		return err
	}
	if r.o.DryRun {
		return nil
	}
	if _, err := r.w.WriteAt(chunk, off); err != nil {
		return fmt.Errorf("writing %d bytes at %d: %w", len(chunk), off, err)
	}
	r.written.Add(int64(len(chunk)))
	r.progress(len(chunk))
	return nil
}

func (r *restorer) progress(n int) {
	if r.o.Progress != nil {
		r.o.Progress(int64(n))
	}
}

// anyOrder restores the disk in the order that is fastest: first what is here,
// region by region, then what is not, layer by layer.
func (r *restorer) anyOrder(ctx context.Context) error {
	wants := newSorter(r.d.im.scratch.dir)
	defer wants.close()
	var mu sync.Mutex // of wants
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(2, min(r.o.Jobs, runtime.GOMAXPROCS(0))))
	for i := range r.d.Index.Regions {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error {
			missing, err := r.local(gctx, i)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for _, w := range missing {
				if err := wants.add(w); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := errors.Join(g.Wait(), ctx.Err()); err != nil { // no goroutine says that the loop ended early
		return err
	}
	if r.o.DryRun {
		n, err := sizeWants(ctx, r.d.directory, wants)
		r.fetched.Add(n)
		return err
	}
	n, err := fetchWants(ctx, r.d.im.src, r.d.directory, wants, r.o.Jobs, r.write)
	r.fetched.Add(n)
	return err
}

// local writes the chunks of a region that are here, and returns the others.
func (r *restorer) local(ctx context.Context, i int) (missing []want, err error) {
	places, err := r.d.region(ctx, i, nil)
	if err != nil {
		return nil, err
	}
	base := int64(r.d.Index.Regions[i].Number) * chunker.RegionSize
	current, _ := r.w.(disk.Reader)
	buf := make([]byte, chunker.MaxChunk)
	for j := range places {
		p := &places[j]
		off := base + int64(p.start)*chunker.BlockSize
		chunk := buf[:int(p.blocks)*chunker.BlockSize]
		if r.o.Resume && current != nil && readPadded(current, chunk, off) && sha256.Sum256(chunk) == p.digest {
			r.kept.Add(int64(len(chunk)))
			r.progress(len(chunk))
			continue
		}
		found, err := r.seed(off, chunk, &p.digest)
		if err != nil {
			return nil, err
		}
		if !found {
			missing = append(missing, want{p.layer, p.chunk, off})
		}
	}
	return missing, ctx.Err()
}

// seed writes a chunk that a seed has; buf has its length.
func (r *restorer) seed(off int64, buf []byte, digest *sum) (found bool, err error) {
	kind, err := r.o.Seeds.read(buf, digest)
	if err != nil || kind == noSeed {
		return false, err
	}
	if kind == listedSeed {
		r.listed.Add(int64(len(buf)))
	} else {
		r.seeded.Add(int64(len(buf)))
	}
	return true, r.write(off, buf)
}

// maxSpoolFrames bounds the memory of a spool: 2 TB in frames of usual size.
const maxSpoolFrames = 4 << 20

// A spool has the fetched frames of an in-order restore, checked and still
// compressed, in a scratch file, so that fetching goes on while the writer is
// busy and no frame is fetched twice.
type spool struct {
	mu     sync.Mutex
	cond   *sync.Cond
	frames [][]int64 // by layer and frame: offset in the scratch file + 1, or 0, or pending
	count  int
	err    error
}

const pending = math.MinInt64

// inOrder restores the disk from its first byte to its last.
func (r *restorer) inOrder(ctx context.Context) error {
	s := &spool{frames: make([][]int64, len(r.d.layers))}
	s.cond = sync.NewCond(&s.mu)
	g, gctx := errgroup.WithContext(ctx)
	tasks := make(chan *task)
	for range r.o.Jobs {
		g.Go(func() error {
			var f frameFetcher
			for t := range tasks {
				if err := r.spoolTask(gctx, s, &f, t); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(tasks)
		return r.request(gctx, s, tasks)
	})
	g.Go(func() error { return r.replay(gctx, s) })
	stop := context.AfterFunc(gctx, func() { s.fail(context.Cause(gctx)) })
	defer stop()
	return g.Wait()
}

func (s *spool) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	s.cond.Broadcast()
}

// claim reports whether the caller is the first who needs a frame.
func (s *spool) claim(layer, frame, frames int) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.frames[layer] == nil {
		if s.count += frames; s.count > maxSpoolFrames {
			return false, fmt.Errorf("the layers have %d frames, more than %d: pull to raw or plain qcow2 instead", s.count, maxSpoolFrames)
		}
		s.frames[layer] = make([]int64, frames)
	}
	if s.frames[layer][frame] != 0 {
		return false, nil
	}
	s.frames[layer][frame] = pending
	return true, nil
}

func (s *spool) deliver(layer, frame int, offset int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames[layer][frame] = offset + 1
	s.cond.Broadcast()
}

// wait returns where a frame is in the scratch file when it has been fetched.
func (s *spool) wait(layer, frame int) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && (s.frames[layer] == nil || s.frames[layer][frame] <= 0) {
		s.cond.Wait()
	}
	if s.err != nil {
		return 0, s.err
	}
	return s.frames[layer][frame] - 1, nil
}

// request has the frames fetched that are needed, in the order they are.
func (r *restorer) request(ctx context.Context, s *spool, tasks chan<- *task) error {
	var places []place
	buf := make([]byte, chunker.MaxChunk)
	for i := range r.d.Index.Regions {
		var err error
		if places, err = r.d.region(ctx, i, places[:0]); err != nil {
			return err
		}
		p := taskPlanner{emit: func(t *task) error {
			r.fetched.Add(t.end - t.start)
			return t.send(ctx, tasks)
		}}
		last := -1
		for j := range places {
			pl := &places[j]
			if kind, err := r.o.Seeds.read(buf[:int(pl.blocks)*chunker.BlockSize], &pl.digest); err != nil {
				return err
			} else if kind != noSeed {
				continue
			}
			dir, err := r.d.directory(ctx, pl.layer)
			if err != nil {
				return err
			}
			first, err := s.claim(pl.layer, int(pl.frame), dir.frames)
			if err != nil {
				return err
			}
			if !first {
				continue
			}
			// The planner wants ascending frames of one layer.
			if p.cur != nil && (pl.layer != p.layer || pl.chunk < last) {
				if err := p.end(); err != nil {
					return err
				}
			}
			last = pl.chunk
			if err := p.add(dir, want{layer: pl.layer, chunk: pl.chunk}); err != nil {
				return err
			}
		}
		if err := p.end(); err != nil {
			return err
		}
	}
	return nil
}

// spoolTask fetches and checks the frames of a task.
func (r *restorer) spoolTask(ctx context.Context, s *spool, f *frameFetcher, t *task) error {
	return f.each(ctx, r.d.im.src, t, func(nf *neededFrame, stored []byte) error {
		if got := sha256.Sum256(stored); got != nf.digest {
			return refuse(PartFrame, t.dir.where(nf.number), "its bytes hash to %s, not %s", Digest(got), Digest(nf.digest))
		}
		off, err := r.d.im.scratch.put(stored)
		if err == nil {
			s.deliver(nf.wants[0].layer, nf.number, off)
		}
		return err
	})
}

// unseededNow fetches the frame of a chunk whose seed was right when frames
// were requested and is not any more.
func (r *restorer) unseededNow(ctx context.Context, s *spool, dir *directory, p *place) error {
	if ok, err := r.o.Seeds.has(&p.digest); !ok || err != nil {
		return err
	}
	first, err := s.claim(p.layer, int(p.frame), dir.frames)
	if !first || err != nil {
		return err
	}
	planner := taskPlanner{emit: func(t *task) error {
		r.fetched.Add(t.end - t.start)
		return r.spoolTask(ctx, s, &frameFetcher{}, t)
	}}
	if err := planner.add(dir, want{layer: p.layer, chunk: p.chunk}); err != nil {
		return err
	}
	return planner.end()
}

// replay writes the disk in order.
func (r *restorer) replay(ctx context.Context, s *spool) error {
	cache := frameCache{max: 32}
	var old *frame
	var places []place
	var stored []byte
	buf := make([]byte, chunker.MaxChunk)
	for i := range r.d.Index.Regions {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if places, err = r.d.region(ctx, i, places[:0]); err != nil {
			return err
		}
		base := int64(r.d.Index.Regions[i].Number) * chunker.RegionSize
		for j := range places {
			p := &places[j]
			off := base + int64(p.start)*chunker.BlockSize
			chunk := buf[:int(p.blocks)*chunker.BlockSize]
			if found, err := r.seed(off, chunk, &p.digest); err != nil {
				return err
			} else if found {
				continue
			}
			f, ok := cache.get(p.layer, int(p.frame))
			if !ok {
				dir, err := r.d.directory(ctx, p.layer)
				if err != nil {
					return err
				}
				if err := r.unseededNow(ctx, s, dir, p); err != nil {
					return err
				}
				e, err := dir.frame(int(p.frame))
				if err != nil {
					return err
				}
				at, err := s.wait(p.layer, int(p.frame))
				if err != nil {
					return err
				}
				if cap(stored) < int(e.stored) {
					stored = make([]byte, e.stored)
				}
				stored = stored[:e.stored]
				if _, err := r.d.im.scratch.ReadAt(stored, at); err != nil && !errors.Is(err, io.EOF) {
					return fmt.Errorf("reading scratch file: %w", err)
				}
				if f, err = dir.decode(int(p.frame), &e, stored, old); err != nil {
					return err
				}
				old = cache.put(p.layer, int(p.frame), f)
			}
			if err := r.write(off, f.chunk(p.chunk)); err != nil {
				return err
			}
		}
	}
	return nil
}

// unpad cuts a chunk off at the end of the disk, where it must be zeros.
func (d *Disk) unpad(off int64, chunk []byte) ([]byte, error) {
	left := d.Size - off
	if left >= int64(len(chunk)) {
		return chunk, nil
	}
	if !chunker.IsHole(chunk[left:]) {
		return nil, refuse(PartChunk, fmt.Sprintf("at %d of %s", off, d.Name), "its padding beyond the virtual size of %d bytes is not zeros", d.Size)
	}
	return chunk[:left], nil
}
