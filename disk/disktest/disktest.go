// Package disktest says what a [disk.Reader] and a [disk.Writer] promise, as
// functions that try it out on any of them and return all faults.
package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/davit-oci/davit/disk"
)

// faults gathers what is wrong, up to a number that somebody would still read.
type faults struct {
	mu   sync.Mutex
	errs []error
}

func (f *faults) addf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.errs) < 20 {
		f.errs = append(f.errs, fmt.Errorf(format, args...))
	}
}

func (f *faults) join() error { return errors.Join(f.errs...) }

// TestReader tests that r is a Reader of a disk with this content: all of it,
// any range of it, from several goroutines, at its end and beyond, and with
// extents that leave out nothing but zeros. The result is nil or joins all
// faults.
func TestReader(r disk.Reader, content []byte) error {
	var f faults
	if got, want := r.Size(), int64(len(content)); got != want {
		f.addf("Size() = %d, want %d", got, want)
		return f.join()
	}
	testWhole(&f, r, content)
	testEnd(&f, r, content)
	testRanges(&f, r, content)
	testExtents(&f, r, content)
	return f.join()
}

// canary is what buffers hold before a read, so that it shows what the read
// left alone.
const canary = 0xc5

var canaries = bytes.Repeat([]byte{canary}, 4096)

// prepare fills p with canaries.
func prepare(p []byte) []byte {
	for rest := p; len(rest) > 0; {
		rest = rest[copy(rest, canaries):]
	}
	return p
}

func testWhole(f *faults, r disk.Reader, content []byte) {
	p := prepare(make([]byte, len(content)))
	n, err := r.ReadAt(p, 0)
	if n != len(p) || !nilOrEOF(err) {
		f.addf("ReadAt(%d bytes, 0) = %d, %v", len(p), n, err)
	}
	if at := firstDifference(p[:n], content[:n]); at >= 0 {
		f.addf("ReadAt(%d bytes, 0): byte %d is %#x, want %#x", len(p), at, p[at], content[at])
	}
}

func testEnd(f *faults, r disk.Reader, content []byte) {
	size := int64(len(content))
	buffer := make([]byte, 70001)
	for _, test := range []struct {
		off  int64
		n    int
		want int
		err  func(error) bool
		says string
	}{
		{0, 0, 0, nilOrEOF, "nil"},
		{size, 0, 0, nilOrEOF, "nil or io.EOF"},
		{size, 1, 0, isEOF, "io.EOF"},
		{size + 1, 1, 0, isEOF, "io.EOF"},
		{size + 1<<40, 70000, 0, isEOF, "io.EOF"},
		{max(0, size-5), 10, int(min(5, size)), isEOF, "io.EOF"},
		{max(0, size-70000), 70001, int(min(70000, size)), isEOF, "io.EOF"},
		{-1, 1, 0, isError, "an error"},
	} {
		p := prepare(buffer[:test.n])
		n, err := r.ReadAt(p, test.off)
		if n != test.want || !test.err(err) {
			f.addf("ReadAt(%d bytes, %d) = %d, %v, want %d, %s", test.n, test.off, n, err, test.want, test.says)
			continue
		}
		if n > 0 && !bytes.Equal(p[:n], content[test.off:][:n]) {
			f.addf("ReadAt(%d bytes, %d): wrong content", test.n, test.off)
		}
	}
}

func isEOF(err error) bool    { return err == io.EOF } //nolint:errorlint // it is to be that itself
func nilOrEOF(err error) bool { return err == nil || isEOF(err) }
func isError(err error) bool  { return err != nil }

// maxRange is the longest range that testRanges reads. Its buffers are used
// again: fresh memory takes longer than all else.
const maxRange = 300000

var buffers = sync.Pool{New: func() any { return new([maxRange]byte) }}

// testRanges reads small and large ranges from several goroutines.
func testRanges(f *faults, r disk.Reader, content []byte) {
	if len(content) == 0 {
		return
	}
	var wg sync.WaitGroup
	for seed := range uint64(4) {
		wg.Go(func() {
			random := rand.New(rand.NewPCG(1, seed))
			buffer := buffers.Get().(*[maxRange]byte)
			defer buffers.Put(buffer)
			for i := range 16 {
				longest := min(len(content), []int{600, 5000, 70000, maxRange}[i%4])
				off := random.IntN(len(content))
				n := min(1+random.IntN(longest), len(content)-off)
				if i%2 == 0 { // a multiple of a sector, as most readers ask
					off &^= 511
				}
				p := prepare(buffer[:n:n])
				got, err := r.ReadAt(p, int64(off))
				if got != n || !nilOrEOF(err) || err != nil && off+n < len(content) {
					f.addf("ReadAt(%d bytes, %d) = %d, %v", n, off, got, err)
					continue
				}
				if at := firstDifference(p, content[off:][:n]); at >= 0 {
					f.addf("ReadAt(%d bytes, %d): byte %d is %#x, want %#x", n, off, at, p[at], content[off+at])
				}
			}
		})
	}
	wg.Wait()
}

func testExtents(f *faults, r disk.Reader, content []byte) {
	size := int64(len(content))
	hole := func(from, to int64) {
		for from < to {
			n := min(to-from, int64(len(page)))
			if at := firstDifference(content[from:from+n], page[:n]); at >= 0 {
				f.addf("byte %d is %#x but in no extent", from+int64(at), content[from+int64(at)])
				return
			}
			from += n
		}
	}

	var all []disk.Extent
	end := int64(0)
	for end < size {
		e, err := disk.NextExtent(r, end)
		if err != nil {
			f.addf("NextExtent(%d): %v", end, err)
			return
		}
		if e.Length == 0 {
			break
		}
		if e.Offset < end || e.Length < 0 || e.Offset > size || e.Length > size-e.Offset {
			f.addf("NextExtent(%d) = %+v on a disk of %d bytes", end, e, size)
			return
		}
		hole(end, e.Offset)
		all = append(all, e)
		end = e.End()
	}
	hole(end, size)

	// From the middle of an extent it goes on, and after the last is none.
	for _, e := range all[:min(len(all), 100)] {
		mid := e.Offset + e.Length/2
		if got, err := disk.NextExtent(r, mid); err != nil || got.Offset < mid || got.Offset < e.End() && got.Length <= 0 {
			f.addf("NextExtent(%d) = %+v, %v, inside of %+v", mid, got, err, e)
		}
	}
	for _, off := range []int64{size, size + 1, size + 1<<40} {
		if e, err := disk.NextExtent(r, off); err != nil || e.Length != 0 {
			f.addf("NextExtent(%d) = %+v, %v, on a disk of %d bytes", off, e, err, size)
		}
	}
	if e, err := disk.NextExtent(r, -1); err == nil {
		f.addf("NextExtent(-1) = %+v, nil", e)
	}
}

// firstDifference is -1 if a and b are the same.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// A Target makes images for [TestWriter], one after another.
type Target struct {
	// Create starts an image over whatever the image before has left.
	Create func(size int64, data iter.Seq2[disk.Extent, error]) (disk.Writer, error)

	// Open opens the image that was completed last. It is closed if it is an
	// [io.Closer].
	Open func() (disk.Reader, error)
}

// TestWriter tests that the Writers of t make images that read as what was
// written: empty, tiny, full and sparse disks, ranges that share a cluster,
// writes that cross what any format may have for clusters, in any order unless
// they are InOrder; that they refuse what lies outside of the disk; that those
// which were written in a wrong order, or aborted, say so when they are closed;
// and that nothing shows of the images before. Sizes may be rounded up to whole
// MiB. The result is nil or joins all faults.
func TestWriter(t Target) error {
	var errs []error
	for name, test := range map[string]func(*faults, disk.Writer){
		"wrong order": testOrder,
		"abort":       testAbort,
	} {
		var f faults
		w, err := t.Create(testdiskSize, func(yield func(disk.Extent, error) bool) {
			yield(disk.Extent{Offset: 0, Length: testdiskSize}, nil)
		})
		if err != nil {
			f.addf("creating a disk: %w", err)
		} else {
			test(&f, w)
		}
		if err := f.join(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	for _, d := range disks() {
		if err := testDisk(t, d); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.name, err))
		}
	}
	return errors.Join(errs...)
}

type testdisk struct {
	name string
	size int64
	data []disk.Extent
}

func disks() []testdisk {
	random := rand.New(rand.NewPCG(2, 3))
	scattered := func(size, longest int64) (data []disk.Extent) {
		for off := random.Int64N(longest); off < size; {
			n := min(1+random.Int64N(longest), size-off)
			data = append(data, disk.Extent{Offset: off, Length: n})
			off += n + random.Int64N(2*longest)
		}
		return data
	}
	const mib = 1 << 20
	return []testdisk{
		{"full disk", mib, []disk.Extent{{Offset: 0, Length: mib}}},
		{"ranges of a few bytes", 200000, scattered(200000, 300)},
		{"ranges of a few KiB", mib + 4096, scattered(mib+4096, 12000)},
		{"ranges of a few hundred KiB", 3*mib + 512, scattered(3*mib+512, 300000)},
		{"ranges that touch", mib, []disk.Extent{{Offset: 10, Length: 5}, {Offset: 15, Length: 100000}, {Offset: 100015, Length: 1}}},
		{"odd size", 1234567, []disk.Extent{{Offset: 1, Length: 1234566}}},
		{"empty disk", 2 * mib, nil},
		{"one byte", 1, []disk.Extent{{Offset: 0, Length: 1}}},
		{"one sector", 512, []disk.Extent{{Offset: 0, Length: 512}}},
		{"no bytes", 0, nil},
		{"last byte", mib + 1, []disk.Extent{{Offset: mib, Length: 1}}},
	}
}

func testDisk(t Target, d testdisk) error {
	var f faults
	content := make([]byte, d.size)
	for _, e := range d.data {
		fill(content[e.Offset:e.End()], e.Offset)
	}

	w, err := t.Create(d.size, func(yield func(disk.Extent, error) bool) {
		for _, e := range d.data {
			if !yield(e, nil) {
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("creating a disk of %d bytes: %w", d.size, err)
	}
	for _, off := range []int64{-1, d.size + 1<<20, 1 << 62} {
		if n, err := w.WriteAt([]byte{1}, off); err == nil {
			f.addf("WriteAt(1 byte, %d) = %d, nil, on a disk of %d bytes", off, n, d.size)
		}
	}
	write(&f, w, content, pieces(d.data))
	if r, ok := w.(disk.Reader); ok {
		if err := TestReader(r, padded(content, r.Size())); err != nil {
			f.addf("before Close: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		f.addf("Close: %v", err)
	}

	r, err := t.Open()
	if err != nil {
		f.addf("opening the image: %w", err)
		return f.join()
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	if err := TestReader(r, padded(content, r.Size())); err != nil {
		f.addf("reading the image: %w", err)
	}
	return f.join()
}

// testdiskSize is that of the disks of testOrder and testAbort, in bytes.
const testdiskSize = 2 << 20

// testOrder tests that a wrong order is refused, and ends w.
func testOrder(f *faults, w disk.Writer) {
	p := bytes.Repeat([]byte("x"), 100_000)
	if !disk.InOrder(w) {
		return // nothing is wrong
	}
	if n, err := w.WriteAt(p, 500_000); n != len(p) || err != nil {
		f.addf("WriteAt(%d bytes, 500000) = %d, %v", len(p), n, err)
	}
	for _, off := range []int64{599_999, 1_000_000} { // the second is right, and too late
		if n, err := w.WriteAt(p, off); n != 0 || !errors.Is(err, disk.ErrOutOfOrder) {
			f.addf("WriteAt(%d bytes, %d) = %d, %v, after WriteAt(…, 599999)", len(p), off, n, err)
		}
	}
	disk.Abort(w) // which hides no error
	if err := w.Close(); !errors.Is(err, disk.ErrOutOfOrder) {
		f.addf("Close = %v, after a write in wrong order", err)
	}
}

// testAbort tests that nothing can be done with w after Abort.
func testAbort(f *faults, w disk.Writer) {
	p := bytes.Repeat([]byte("x"), 100_000)
	if n, err := w.WriteAt(p, 0); n != len(p) || err != nil {
		f.addf("WriteAt(%d bytes, 0) = %d, %v", len(p), n, err)
	}
	disk.Abort(w)
	if n, err := w.WriteAt(p, 500_000); n != 0 || !errors.Is(err, disk.ErrAborted) {
		f.addf("WriteAt = %d, %v after Abort", n, err)
	}
	for range 2 {
		if err := w.Close(); !errors.Is(err, disk.ErrAborted) {
			f.addf("Close = %v after Abort", err)
		}
	}
}

// fill makes bytes that compress, bytes that do not, and zeros.
func fill(p []byte, seed int64) {
	random := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	for i := 0; len(p) > 0; i++ {
		part := p[:min(len(p), 1<<16)]
		switch i % 4 {
		case 0, 1:
			copy(part, letters()[(seed+int64(i)*9973)%(1<<16):])
		case 3:
			_, _ = random.Read(part)
		}
		p = p[len(part):]
	}
}

// letters are random, but compress.
var letters = sync.OnceValue(func() []byte {
	p := make([]byte, 1<<17)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(p)
	for i := range p {
		p[i] = p[i]%4 + 'a'
	}
	return p
})

// padded is content with the zeros that a format adds to make it whole sectors,
// grains or MiB, if size is that.
func padded(content []byte, size int64) []byte {
	if more := size - int64(len(content)); more > 0 && more <= 1<<20 {
		return append(slices.Clone(content), make([]byte, more)...)
	}
	return content
}

// pieces cuts extents into what a caller would write at once.
func pieces(data []disk.Extent) []disk.Extent {
	random := rand.New(rand.NewPCG(4, 5))
	var all []disk.Extent
	for _, e := range data {
		for e.Length > 0 {
			n := min(e.Length, 1+random.Int64N(200000))
			all = append(all, disk.Extent{Offset: e.Offset, Length: n})
			e.Offset, e.Length = e.Offset+n, e.Length-n
		}
	}
	return all
}

func write(f *faults, w disk.Writer, content []byte, pieces []disk.Extent) {
	one := func(e disk.Extent) {
		p := slices.Clone(content[e.Offset:e.End()])
		if n, err := w.WriteAt(p, e.Offset); n != len(p) || err != nil {
			f.addf("WriteAt(%d bytes, %d) = %d, %v", len(p), e.Offset, n, err)
		}
		if !bytes.Equal(p, content[e.Offset:e.End()]) {
			f.addf("WriteAt(%d bytes, %d) changed them", len(p), e.Offset)
		}
		clear(p) // the Writer must not keep it
	}
	if disk.InOrder(w) {
		for _, e := range pieces {
			one(e)
		}
		return
	}
	rand.New(rand.NewPCG(6, 7)).Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
	var wg sync.WaitGroup
	const workers = 4
	for n := range workers {
		wg.Go(func() {
			for i := n; i < len(pieces); i += workers {
				one(pieces[i])
			}
		})
	}
	wg.Wait()
}
