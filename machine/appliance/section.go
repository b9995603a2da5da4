package appliance

import (
	"bytes"
	"context"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
)

const (
	// maxHeld limits the bytes of a file that were read before their turn, and
	// are kept to be hashed. Scanning a disk has at most a dozen windows of 2 MiB
	// in flight, and fewer bytes of a file that is compressed.
	maxHeld = 16 << 20

	// maxHeldAll limits those of all files of a package.
	maxHeldAll = 64 << 20

	// maxAhead is how far before its turn a range is worth keeping: tables at
	// the end of a file are read twice rather than kept until the end. If more
	// than tables is read there, nobody reads what is before it.
	maxAhead = 32 << 20

	// fillStep is how much is read at once of what no one else read.
	fillStep = 256 << 10

	// earlyCost is what a range that is kept costs beside its bytes.
	earlyCost = 128
)

// limits are [maxHeld] and what follows it; with less, a test has less to read.
type limits struct {
	file  int64 // bytes that are kept of one
	all   int64 // of all files
	ahead int64 // how far before its turn a range is worth keeping
}

// hashing is what the files of a package have in common while they are hashed.
type hashing struct {
	limits limits

	mu    sync.Mutex
	moved sync.Cond // a file's next or held has changed
	held  int64     // of all files
	files []*hashedSection
}

func newHashing() *hashing {
	h := &hashing{limits: limits{maxHeld, maxHeldAll, maxAhead}}
	h.moved.L = &h.mu
	return h
}

// A hashedSection hashes a file while somebody reads it in about ascending
// order, in parallel. What is read in its turn is hashed at once, by the
// reader's own goroutine and from its own buffer; what is read a little before
// is kept until then. What nobody seems to read (the space between two blocks
// of an image) or was not worth keeping is read here, when there is no room
// left to keep what follows it, or at the end, by sums.
type hashedSection struct {
	Section
	all    *hashing
	hashes []hash.Hash

	// With all.mu held, but for what the goroutine does that set busy.
	next    int64   // all before it is hashed
	busy    bool    // somebody hashes at next
	ahead   []early // by offset; they may overlap
	held    int64
	dropped int64 // bytes too far ahead to be kept, since that was last looked at
	err     error // of reading here; the end of hashing
}

// An early is a range of a file, read before its turn.
type early struct {
	off  int64
	data []byte
}

func (s early) end() int64 { return s.off + int64(len(s.data)) }

func (h *hashing) add(s Section) *hashedSection {
	f := &hashedSection{Section: s, all: h}
	h.files = append(h.files, f)
	return f
}

// also adds a hash to a file of which nothing was read yet, and returns which of
// its sums is that.
func (f *hashedSection) also(h hash.Hash) int {
	f.hashes = append(f.hashes, h)
	return len(f.hashes) - 1
}

func (f *hashedSection) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.Section.ReadAt(p, off)
	if n > 0 {
		f.saw(p[:n], off)
	}
	return n, err
}

// saw hashes p, or keeps it to be hashed. It waits while others hash and there
// is no room for more.
func (f *hashedSection) saw(p []byte, off int64) {
	h, end := f.all, off+int64(len(p))
	cost := int64(len(p)) + earlyCost
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case end <= f.next || f.err != nil || f.keeps(off, end):
			return
		case off-f.next > h.limits.ahead:
			f.dropped += int64(len(p))
			if f.dropped <= h.limits.file || f.busy {
				return
			}
			f.dropped = 0
			f.work(func() { f.fill(min(off, f.next+f.all.limits.ahead)) })
		case off <= f.next && !f.busy:
			f.work(func() { f.feed(p[f.next-off:]) })
			return
		case f.held+cost > h.limits.file && f.busy:
			h.moved.Wait()
		case f.held+cost > h.limits.file:
			f.work(func() { f.fill(off) })
		case h.held+cost > h.limits.all && !h.forget(f):
			return
		case h.held+cost > h.limits.all:
		default:
			f.keep(p, off, cost)
			return
		}
	}
}

// work makes the caller the one who hashes, and goes on with what is kept.
func (f *hashedSection) work(first func()) {
	f.busy = true
	first()
	for f.err == nil && len(f.ahead) > 0 && f.ahead[0].off <= f.next {
		s := f.ahead[0]
		f.ahead = slices.Delete(f.ahead, 0, 1)
		f.release(int64(len(s.data)) + earlyCost)
		if s.end() > f.next {
			f.feed(s.data[f.next-s.off:])
		}
	}
	f.busy = false
	f.all.moved.Broadcast()
}

// feed hashes p, which is at f.next. Others go on meanwhile.
func (f *hashedSection) feed(p []byte) {
	f.all.mu.Unlock()
	for _, h := range f.hashes {
		h.Write(p)
	}
	f.all.mu.Lock()
	f.next += int64(len(p))
	f.all.moved.Broadcast()
}

// fill reads and hashes what is missing before the first range that is kept, or
// before off.
func (f *hashedSection) fill(off int64) {
	if len(f.ahead) > 0 {
		off = min(off, f.ahead[0].off)
	}
	for buf := []byte(nil); f.next < off && f.err == nil; {
		p := f.buffer(&buf, off)
		at := f.next
		f.all.mu.Unlock()
		err := readFull(f.Section, p, at)
		f.all.mu.Lock()
		if err != nil {
			f.err = err
			return
		}
		f.feed(p)
	}
}

// buffer is of what fill reads next.
func (f *hashedSection) buffer(buf *[]byte, end int64) []byte {
	n := min(fillStep, end-f.next)
	if int64(len(*buf)) < n {
		*buf = make([]byte, n)
	}
	return (*buf)[:n]
}

// keeps says whether a range is kept already.
func (f *hashedSection) keeps(off, end int64) bool {
	i := f.search(off + 1)
	return i > 0 && f.ahead[i-1].end() >= end
}

func (f *hashedSection) search(off int64) int {
	i, _ := slices.BinarySearchFunc(f.ahead, off, func(s early, off int64) int {
		if s.off < off {
			return -1
		}
		return 1
	})
	return i
}

// keep copies p, with the room for it taken and the lock released.
func (f *hashedSection) keep(p []byte, off, cost int64) {
	f.release(-cost)
	f.all.mu.Unlock()
	s := early{off, bytes.Clone(p)}
	f.all.mu.Lock()
	f.ahead = slices.Insert(f.ahead, f.search(off), s)
	if !f.busy && off <= f.next { // its turn came meanwhile
		f.work(func() {})
	}
}

func (f *hashedSection) release(n int64) {
	f.held -= n
	f.all.held -= n
}

// forget drops what is kept of the file that has most, but not of f: nobody
// reads all disks at once, so it is one that is done with, or given up. It is
// false if there is none.
func (h *hashing) forget(f *hashedSection) bool {
	var most *hashedSection
	for _, o := range h.files {
		if o != f && !o.busy && len(o.ahead) > 0 && (most == nil || o.held > most.held) {
			most = o
		}
	}
	if most == nil {
		return false
	}
	for _, s := range most.ahead {
		most.release(int64(len(s.data)) + earlyCost)
	}
	most.ahead = nil
	h.moved.Broadcast()
	return true
}

// sums reads what is missing and returns the digests of the file.
func (f *hashedSection) sums(ctx context.Context) (sums [][]byte, err error) {
	h := f.all
	h.mu.Lock()
	defer h.mu.Unlock()
	for f.err == nil && (f.busy || f.next < f.Size()) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if f.busy {
			h.moved.Wait()
			continue
		}
		f.work(func() { f.fill(min(f.next+f.all.limits.ahead, f.Size())) })
	}
	if f.err != nil {
		return nil, f.err
	}
	for _, h := range f.hashes {
		sums = append(sums, h.Sum(nil))
	}
	return sums, nil
}

// readFull reads len(p) bytes.
func readFull(r io.ReaderAt, p []byte, off int64) error {
	if n, err := r.ReadAt(p, off); n < len(p) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("reading %d bytes at %d: %w", len(p), off, err)
	}
	return nil
}

// parts is one file that was cut into several.
type parts struct {
	files []member
	ends  []int64
}

func (p *parts) append(m member) {
	p.files = append(p.files, m)
	p.ends = append(p.ends, p.Size()+m.Size())
}

func (p *parts) Size() int64 {
	if len(p.ends) == 0 {
		return 0
	}
	return p.ends[len(p.ends)-1]
}

func (p *parts) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("reading at %d", off)
	}
	for n < len(b) {
		i := slices.IndexFunc(p.ends, func(end int64) bool { return end > off })
		if i < 0 {
			return n, io.EOF
		}
		c := b[n:min(int64(len(b)), int64(n)+p.ends[i]-off)]
		got, err := p.files[i].ReadAt(c, off-(p.ends[i]-p.files[i].Size()))
		n += got
		off += int64(got)
		if got < len(c) {
			return n, fmt.Errorf("reading %s: %w", p.files[i].name, err)
		}
	}
	return n, nil
}
