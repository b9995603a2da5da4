package artifact

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/davit-oci/davit/internal/space"
)

// A want is a chunk that has to be fetched, and where on the disk it goes to.
type want struct {
	layer  int
	chunk  int
	offset int64 // in bytes
}

const wantRecord = 16

const (
	// maxGap is how many unneeded bytes of a layer are fetched rather than
	// asking for two ranges.
	maxGap = 256 << 10

	// maxTask is how many bytes one request asks for. A registry that
	// answers every range with the whole blob makes large requests cheaper.
	maxTask = 64 << 20

	// maxTaskWants bounds the memory of a task, by chunks.
	maxTaskWants = 1 << 16
)

// A task is frames of a layer that one request fetches.
type task struct {
	dir    *directory
	frames []neededFrame
	wants  []want
	start  int64 // in the layer
	end    int64
}

// send hands the task to a worker, unless ctx ends first.
func (t *task) send(ctx context.Context, workers chan<- *task) error {
	select {
	case workers <- t:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type neededFrame struct {
	number int
	frameEntry
	wants []want // the chunks that are needed
}

// fetchWants fetches the frames that hold the wanted chunks, checks them and
// calls sink with each wanted chunk, concurrently. It returns how many bytes
// it asked for.
func fetchWants(ctx context.Context, src Fetcher, dirs func(ctx context.Context, layer int) (*directory, error), wants *sorter, jobs int, sink func(offset int64, chunk []byte) error) (fetched int64, err error) {
	g, ctx := errgroup.WithContext(ctx)
	tasks := make(chan *task)
	for range max(1, jobs) {
		g.Go(func() error {
			var r frameFetcher
			for t := range tasks {
				if err := r.fetch(ctx, src, t, sink); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer close(tasks)
		return planTasks(ctx, dirs, wants, func(t *task) error {
			fetched += t.end - t.start
			return t.send(ctx, tasks)
		})
	})
	err = g.Wait()
	return fetched, err
}

// sizeWants returns how many bytes fetchWants would ask for.
func sizeWants(ctx context.Context, dirs func(ctx context.Context, layer int) (*directory, error), wants *sorter) (n int64, err error) {
	err = planTasks(ctx, dirs, wants, func(t *task) error {
		n += t.end - t.start
		return nil
	})
	return n, err
}

func planTasks(ctx context.Context, dirs func(ctx context.Context, layer int) (*directory, error), wants *sorter, emit func(*task) error) error {
	p := taskPlanner{emit: emit}
	err := wants.each(func(w want) error {
		dir, err := dirs(ctx, w.layer)
		if err != nil {
			return err
		}
		return p.add(dir, w)
	})
	if err != nil {
		return err
	}
	return p.end()
}

// A taskPlanner turns wants, sorted by layer and chunk, into tasks.
type taskPlanner struct {
	emit func(*task) error
	cur  *task

	layer int // of the last want
	chunk int
}

func (p *taskPlanner) add(dir *directory, w want) error {
	t := p.cur
	if t != nil && p.layer == w.layer && p.chunk == w.chunk {
		t.wants = append(t.wants, w) // one chunk in two places
		return nil
	}
	var e [1]chunkEntry
	if _, err := dir.chunkEntries(e[:0], w.chunk, 1); err != nil {
		return err
	}
	p.chunk = w.chunk
	number := int(e[0].frame)
	if t != nil && p.layer == w.layer && t.frames[len(t.frames)-1].number == number {
		t.wants = append(t.wants, w)
		return nil
	}
	f, err := dir.frame(number)
	if err != nil {
		return err
	}
	if t != nil && (p.layer != w.layer || f.offset-t.end > maxGap || f.offset+int64(f.stored)-t.start > maxTask || len(t.wants) >= maxTaskWants) {
		if err := p.end(); err != nil {
			return err
		}
		t = nil
	}
	if t == nil {
		t = &task{dir: dir, start: f.offset}
		p.cur, p.layer = t, w.layer
	}
	t.frames = append(t.frames, neededFrame{number: number, frameEntry: f})
	t.wants = append(t.wants, w)
	t.end = f.offset + int64(f.stored)
	return nil
}

func (p *taskPlanner) end() error {
	t := p.cur
	if t == nil {
		return nil
	}
	p.cur = nil
	rest := t.wants
	for i := range t.frames {
		f := &t.frames[i]
		n := 0
		for n < len(rest) && rest[n].chunk < int(f.first+f.chunks) {
			n++
		}
		f.wants, rest = rest[:n], rest[n:]
	}
	return p.emit(t)
}

// A frameFetcher has the buffers of one worker.
type frameFetcher struct {
	stored []byte
	frame  *frame
}

func (r *frameFetcher) fetch(ctx context.Context, src Fetcher, t *task, sink func(int64, []byte) error) error {
	return r.each(ctx, src, t, func(f *neededFrame, stored []byte) error {
		var err error
		if r.frame, err = t.dir.decode(f.number, &f.frameEntry, stored, r.frame); err != nil {
			return err
		}
		for _, w := range f.wants {
			if err := sink(w.offset, r.frame.chunk(w.chunk)); err != nil {
				return err
			}
		}
		return nil
	})
}

// each calls f with the stored bytes of each frame of a task, not checked.
func (r *frameFetcher) each(ctx context.Context, src Fetcher, t *task, f func(*neededFrame, []byte) error) error {
	rc, err := fetchRange(ctx, src, t.dir.layer, t.start, t.end-t.start)
	if err != nil {
		return err
	}
	defer rc.Close()
	at := t.start
	for i := range t.frames {
		nf := &t.frames[i]
		if _, err := io.CopyN(io.Discard, rc, nf.offset-at); err != nil {
			return fmt.Errorf("reading layer %s at %d: %w", t.dir.layer.Digest, at, noEOF(err))
		}
		r.stored = slices.Grow(r.stored[:0], int(nf.stored))[:nf.stored]
		if _, err := io.ReadFull(rc, r.stored); err != nil {
			return fmt.Errorf("reading layer %s at %d: %w", t.dir.layer.Digest, nf.offset, noEOF(err))
		}
		at = nf.offset + int64(nf.stored)
		if err := f(nf, r.stored); err != nil {
			return err
		}
	}
	return nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A sorter sorts wants, in a file where they are many.
type sorter struct {
	dir  string
	mem  [][wantRecord]byte
	runs []*os.File
}

// sorterMemory is how many wants stay in memory: 8 MiB.
const sorterMemory = 1 << 19

func newSorter(dir string) *sorter { return &sorter{dir: dir} }

func (s *sorter) add(w want) error {
	var r [wantRecord]byte
	binary.BigEndian.PutUint32(r[0:], uint32(w.layer))
	binary.BigEndian.PutUint32(r[4:], uint32(w.chunk))
	binary.BigEndian.PutUint64(r[8:], uint64(w.offset))
	s.mem = append(s.mem, r)
	if len(s.mem) < sorterMemory {
		return nil
	}
	s.sort()
	if err := space.Check(cmp.Or(s.dir, os.TempDir()), wantRecord*sorterMemory); err != nil {
		return err
	}
	f, err := tempFile(s.dir)
	if err != nil {
		return err
	}
	s.runs = append(s.runs, f)
	w2 := bufio.NewWriterSize(f, 1<<18)
	for i := range s.mem {
		if _, err := w2.Write(s.mem[i][:]); err != nil {
			return fmt.Errorf("writing scratch file: %w", err)
		}
	}
	s.mem = s.mem[:0]
	if err := w2.Flush(); err != nil {
		return fmt.Errorf("writing scratch file: %w", err)
	}
	return nil
}

func (s *sorter) sort() {
	slices.SortFunc(s.mem, func(a, b [wantRecord]byte) int { return bytes.Compare(a[:], b[:]) })
}

// each calls f with the wants by layer, chunk and offset.
func (s *sorter) each(f func(want) error) error {
	s.sort()
	call := func(r []byte) error {
		return f(want{int(binary.BigEndian.Uint32(r)), int(binary.BigEndian.Uint32(r[4:])), int64(binary.BigEndian.Uint64(r[8:]))})
	}
	if len(s.runs) == 0 {
		for i := range s.mem {
			if err := call(s.mem[i][:]); err != nil {
				return err
			}
		}
		return nil
	}
	var inputs []io.Reader
	for _, r := range s.runs {
		inputs = append(inputs, bufio.NewReaderSize(io.NewSectionReader(r, 0, 1<<62), 1<<16))
	}
	at := 0
	inputs = append(inputs, readerFunc(func(p []byte) (int, error) {
		if at == len(s.mem) {
			return 0, io.EOF
		}
		at++
		return copy(p, s.mem[at-1][:]), nil
	}))
	return mergeRecords(inputs, wantRecord, call)
}

func (s *sorter) close() error {
	var errs []error
	for _, f := range s.runs {
		errs = append(errs, removeTemp(f))
	}
	s.runs, s.mem = nil, nil
	return errors.Join(errs...)
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// mergeRecords calls f with the records of sorted inputs in order.
func mergeRecords(inputs []io.Reader, size int, f func(rec []byte) error) error {
	var h recordHeap
	for _, r := range inputs {
		c := &recordCursor{r: r, rec: make([]byte, size)}
		switch _, err := io.ReadFull(c.r, c.rec); err {
		case nil:
			h = append(h, c)
		case io.EOF:
		default:
			return fmt.Errorf("reading scratch file: %w", err)
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		if err := f(h[0].rec); err != nil {
			return err
		}
		switch _, err := io.ReadFull(h[0].r, h[0].rec); err {
		case nil:
			heap.Fix(&h, 0)
		case io.EOF:
			heap.Pop(&h)
		default:
			return fmt.Errorf("reading scratch file: %w", err)
		}
	}
	return nil
}

type recordCursor struct {
	r   io.Reader
	rec []byte
}

type recordHeap []*recordCursor

func (h recordHeap) Len() int           { return len(h) }
func (h recordHeap) Less(i, j int) bool { return bytes.Compare(h[i].rec, h[j].rec) < 0 }
func (h recordHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *recordHeap) Push(x any)        { *h = append(*h, x.(*recordCursor)) }
func (h *recordHeap) Pop() any {
	x := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return x
}
