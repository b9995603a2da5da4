package appliance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// A counted file counts the bytes that are read of it.
type counted struct {
	*bytes.Reader
	bytes atomic.Int64
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Reader.ReadAt(p, off)
	c.bytes.Add(int64(n))
	return n, err
}

// A readPlan is what the codec of a disk reads of a file.
type readPlan []early

// buffers are used again, as those of artifact are.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// run reads the ranges in parallel, as artifact scans a disk: as far ahead of
// the one that takes longest as 6 windows, which are an eighth of those of 2 MiB.
func (p readPlan) run(t *testing.T, r io.ReaderAt, want []byte, workers int) {
	t.Helper()
	const ahead = 12 << 17
	done := make([]chan struct{}, len(p))
	limit := make(chan struct{}, workers)
	oldest, inFlight := 0, 0
	for i, e := range p {
		for inFlight += len(e.data); inFlight > ahead && oldest < i; oldest++ {
			<-done[oldest]
			inFlight -= len(p[oldest].data)
		}
		done[i] = make(chan struct{})
		limit <- struct{}{}
		go func() {
			buffer := buffers.Get().(*[]byte)
			defer buffers.Put(buffer)
			*buffer = slices.Grow((*buffer)[:0], len(e.data))
			b := (*buffer)[:len(e.data)]
			if n, err := r.ReadAt(b, e.off); n < len(b) || !bytes.Equal(b, want[e.off:][:n]) {
				t.Errorf("reading %d bytes at %d: %d, %v", len(b), e.off, n, err)
			}
			<-limit
			close(done[i])
		}()
	}
	for _, d := range done {
		<-d
	}
}

// unread is how many bytes of a file are in no range.
func (p readPlan) unread(size int64) int64 {
	sorted := slices.SortedFunc(slices.Values(p), func(a, b early) int { return int(a.off - b.off) })
	var at, n int64
	for _, e := range sorted {
		n += max(0, e.off-at)
		at = max(at, e.end())
	}
	return n + size - at
}

func (p readPlan) bytes() (n int64) {
	for _, e := range p {
		n += int64(len(e.data))
	}
	return n
}

// anEighth are limits for files and windows of an eighth.
var anEighth = limits{maxHeld / 8, maxHeldAll / 8, maxAhead / 8}

// hashed is a file whose SHA-256 is taken.
func hashed(h *hashing, s Section) *hashedSection {
	f := h.add(s)
	f.also(sha256.New())
	return f
}

func sumOf(ctx context.Context, f *hashedSection) ([]byte, error) {
	sums, err := f.sums(ctx)
	if err != nil {
		return nil, err
	}
	return sums[0], nil
}

func TestDigestsOfFilesInEveryOrder(t *testing.T) {
	const size = 40<<17 + 1234
	data := noise(1, size)
	want := sha256.Sum256(data)
	cut := func(off, n int) early { return early{int64(off), data[off:min(off+n, size)]} }
	every := func(from, step, n int) (p readPlan) {
		for off := from; off < size; off += step {
			p = append(p, cut(off, n))
		}
		return p
	}
	random := every(0, 64<<7, 64<<7)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(random), func(i, j int) { random[i], random[j] = random[j], random[i] })

	for _, test := range []struct {
		name string
		plan readPlan
		most float64 // of what is read twice, by the file's size
	}{
		{"front to back", every(0, 2<<17, 2<<17), 0},
		{"not at all", nil, 0},
		{"only the end", readPlan{cut(size-100, 100)}, 0.001},
		{"blocks with space between them", every(0, 64<<7, 7500), 0},
		{"small blocks with space between them", every(64, 1500, 1250), 0},
		{"tables at the end come first", append(readPlan{cut(size-64, 64), cut(size-8750, 8600)}, every(0, 2<<17, 2<<17)...), 0.01},
		{"tables all over the file come first", append(every(32<<7, 1<<17, 256), every(0, 1<<17, 1<<17)...), 0.01},
		{"some ranges again and again", slices.Concat(every(0, 8<<17, 512), every(0, 8<<17, 512), every(0, 2<<17, 2<<17)), 0.01},
		{"a hole that nobody reads", append(every(0, 2<<17, 2<<17)[:3], every(24<<17, 2<<17, 2<<17)...), 0.33}, // maxHeld, until it is one
		{"back to front", reversed(every(0, 1<<17, 1<<17)), 1},
		{"at random", random, 1},
		{"ranges that overlap", every(0, 1<<17, 3<<17), 0.01},
	} {
		t.Run(test.name, func(t *testing.T) {
			src := &counted{Reader: bytes.NewReader(data)}
			h := newHashing()
			h.limits = anEighth
			f := hashed(h, src)
			test.plan.run(t, f, data, 6)
			if f.held > anEighth.file+(6<<17) || f.held != h.held {
				t.Errorf("%d bytes are kept, %d of all files", f.held, h.held)
			}
			sum, err := sumOf(t.Context(), f)
			if err != nil || !bytes.Equal(sum, want[:]) {
				t.Fatalf("digest %x, %v; want %x", sum, err, want)
			}
			if f.held != 0 || h.held != 0 {
				t.Errorf("%d bytes are kept at the end, %d of all files", f.held, h.held)
			}
			again := float64(src.bytes.Load()-test.plan.bytes()-test.plan.unread(size)) / size
			t.Logf("%.2f %% were read twice", 100*again)
			if again > test.most {
				t.Errorf("%.2f %% of the file were read twice, want at most %.2f %%", 100*again, 100*test.most)
			}
		})
	}
}

func reversed(p readPlan) readPlan {
	slices.Reverse(p)
	return p
}

func TestDigestsOfManyFilesShareTheirMemory(t *testing.T) {
	data := noise(1, 20<<17)
	h := newHashing()
	h.limits = anEighth
	var files []*hashedSection
	for range 6 { // each is left with an eighth of 15 MiB that wait for their turn
		f := hashed(h, bytes.NewReader(data))
		files = append(files, f)
		for off := 1 << 17; off < 16<<17; off += 1 << 17 {
			if _, err := f.ReadAt(make([]byte, 1<<17), int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		if h.held > anEighth.all {
			t.Fatalf("%d bytes are kept", h.held)
		}
	}
	want := sha256.Sum256(data)
	for i, f := range files {
		if sum, err := sumOf(t.Context(), f); err != nil || !bytes.Equal(sum, want[:]) {
			t.Errorf("file %d: %x, %v", i, sum, err)
		}
	}
}

// zeros is a file of that many zeros.
type zeros struct{ size int64 }

func (z zeros) Size() int64                         { return z.size }
func (zeros) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

// The tables of a large image are read before all else, and must not make us
// read what is before them.
func TestTablesAtTheEndOfALargeFile(t *testing.T) {
	const size = 1 << 30
	f := hashed(newHashing(), zeros{size})
	for off := int64(size) - 30<<20; off < size; off += 64 << 10 {
		if _, err := f.ReadAt(make([]byte, 64<<10), off); err != nil {
			t.Fatal(err)
		}
	}
	if f.next > 2*maxAhead || f.held > 0 {
		t.Errorf("%d bytes were read before them, %d are kept", f.next, f.held)
	}
}

func TestWhatIsReadAgainIsKeptOnce(t *testing.T) {
	f := hashed(newHashing(), zeros{4 << 20})
	for range 3 {
		for _, e := range []struct{ off, n int64 }{{1 << 20, 1 << 20}, {1 << 20, 1000}, {1<<20 + 5000, 1<<20 - 5000}} {
			if _, err := f.ReadAt(make([]byte, e.n), e.off); err != nil {
				t.Fatal(err)
			}
		}
	}
	if f.held != 1<<20+earlyCost {
		t.Errorf("%d bytes are kept of 1 MiB", f.held)
	}
}

// A torn file ends in the middle, of which its size says nothing.
type torn struct{ *bytes.Reader }

func (t torn) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > t.Size()/2 {
		return 0, io.EOF
	}
	return t.Reader.ReadAt(p, off)
}

func TestDigestOfAFileThatCannotBeRead(t *testing.T) {
	f := hashed(newHashing(), torn{bytes.NewReader(noise(1, 1<<20))})
	if sum, err := sumOf(t.Context(), f); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("digest %x, %v", sum, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f = hashed(newHashing(), bytes.NewReader(noise(1, 1<<20)))
	if sum, err := sumOf(ctx, f); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: digest %x, %v", sum, err)
	}
}

func TestPartsAreOneFile(t *testing.T) {
	data := noise(1, 10000)
	whole := new(parts)
	for _, p := range []struct{ from, to int }{{0, 4000}, {4000, 4000}, {4000, 8000}, {8000, 10000}} {
		whole.append(member{name: "part", Section: bytes.NewReader(data[p.from:p.to])})
	}
	if whole.Size() != int64(len(data)) {
		t.Fatalf("%d bytes", whole.Size())
	}
	for _, r := range []struct{ off, n int }{{0, 10000}, {0, 1}, {3999, 2}, {4000, 4000}, {7999, 2001}, {9999, 1}} {
		p := make([]byte, r.n)
		if n, err := whole.ReadAt(p, int64(r.off)); err != nil || !bytes.Equal(p, data[r.off:r.off+r.n]) {
			t.Errorf("reading %d at %d: %d, %v", r.n, r.off, n, err)
		}
	}
	for _, off := range []int64{10000, 10001, 1 << 62} {
		if n, err := whole.ReadAt(make([]byte, 1), off); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("reading at %d: %d, %v", off, n, err)
		}
	}
	if n, err := whole.ReadAt(make([]byte, 5), 9998); n != 2 || !errors.Is(err, io.EOF) {
		t.Errorf("reading over the end: %d, %v", n, err)
	}
	if _, err := whole.ReadAt(make([]byte, 5), -1); err == nil {
		t.Error("reading before the start: no error")
	}
	if got, err := io.ReadAll(io.NewSectionReader(new(parts), 0, 10)); err != nil || len(got) != 0 {
		t.Errorf("no parts: %q, %v", got, err)
	}
}
