package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/davit-oci/davit/disk"
)

// maxAllocated is what the opening of a file may allocate, all in all, whatever
// it says.
const maxAllocated = 64 << 20

// Allocated is how many bytes were ever allocated.
func Allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// A Suspect is a file that somebody has made up.
type Suspect struct {
	Open func() (disk.Reader, error)

	// Refusals are errors that Open may return besides [disk.ErrCorrupt],
	// [disk.ErrUnsupported] and [disk.ErrBackingFile].
	Refusals []error

	// A disk of up to Limit bytes is read as a whole; default: 1 MiB.
	Limit int64

	// Test is how that is tested against all other ways to read it; default:
	// [TestReader].
	Test func(r disk.Reader, content []byte) error
}

// Explore wants of a file that it is refused as what it is, or that all ways to
// read it agree with each other, in bounded memory.
func Explore(t testing.TB, s Suspect) {
	t.Helper()
	before := Allocated()
	bounded := func() {
		t.Helper()
		if n := Allocated() - before; n > maxAllocated {
			t.Errorf("allocated %d MiB", n>>20)
		}
	}
	r, err := s.Open()
	if err != nil {
		bounded()
		s.wantRefusal(t, err)
		return
	}
	// A small file can be a large disk: look around, at any size.
	rounds := 0
	for e, err := range disk.Extents(r) {
		if err != nil {
			s.wantRefusal(t, err)
			return
		}
		p := make([]byte, min(e.Length, 100))
		if n, err := r.ReadAt(p, e.Offset); n < len(p) {
			s.wantRefusal(t, err)
		}
		if rounds++; rounds == 100 {
			break
		}
	}
	bounded()
	if s.Limit == 0 {
		s.Limit = 1 << 20
	}
	if r.Size() > s.Limit {
		return
	}
	content := make([]byte, r.Size())
	if n, err := r.ReadAt(content, 0); n < len(content) {
		s.wantRefusal(t, err)
		return
	}
	if s.Test == nil {
		s.Test = TestReader
	}
	if err := s.Test(r, content); err != nil {
		t.Error(err)
	}
}

func (s *Suspect) wantRefusal(t testing.TB, err error) {
	t.Helper()
	for _, kind := range append([]error{disk.ErrCorrupt, disk.ErrUnsupported, disk.ErrBackingFile}, s.Refusals...) {
		if errors.Is(err, kind) {
			return
		}
	}
	t.Errorf("got error %v", err)
}

// A Mutation is a change of one byte of an image.
type Mutation struct {
	At   int
	Flip byte // bits that are changed

	// Seal puts checksums right; nil: there is none, or it shall be wrong.
	Seal func(image []byte)
}

// Mutations are images that differ from one that is right.
type Mutations struct {
	Format  string // as QEMU calls it
	Image   []byte
	Content []byte // of Image
	Each    []Mutation

	// What a Seal changes is in the first Head bytes of Image, or is always
	// changed.
	Head int

	Refusals []error // as those of a [Suspect]

	// Open opens an image. It is closed if it is an [io.Closer].
	Open func(image []byte) (disk.Reader, error)
}

// maxMutant is how much of a disk is read.
const maxMutant = 2 << 20

// Test wants that each mutation is refused, in bounded memory, or that it reads
// as before, or as QEMU reads it.
func (m Mutations) Test(t *testing.T) {
	t.Helper()
	mutant, buffer := bytes.Clone(m.Image), make([]byte, maxMutant)
	path := filepath.Join(t.TempDir(), "mutant")
	for _, c := range m.Each {
		mutant[c.At] ^= c.Flip
		if c.Seal != nil {
			c.Seal(mutant)
		}
		before := Allocated()
		got, err := m.read(mutant, buffer)
		if n := Allocated() - before; n > maxAllocated {
			t.Errorf("byte %#x ^ %#x: allocated %d MiB", c.At, c.Flip, n>>20)
		}
		switch {
		case err != nil:
			(&Suspect{Refusals: m.Refusals}).wantRefusal(t, err)
		case !bytes.Equal(got, m.Content):
			if err := m.compare(t, path, mutant, got); err != nil {
				t.Errorf("byte %#x ^ %#x: %v", c.At, c.Flip, err)
			}
		}
		copy(mutant, m.Image[:m.Head])
		mutant[c.At] = m.Image[c.At]
	}
}

// read walks all extents of an image, and reads into the buffer.
func (m Mutations) read(image, buffer []byte) ([]byte, error) {
	r, err := m.Open(image)
	if err != nil {
		return nil, err
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	for _, err := range disk.Extents(r) {
		if err != nil {
			return nil, err
		}
	}
	got := buffer[:min(r.Size(), int64(len(buffer)))]
	if n, err := r.ReadAt(got, 0); n < len(got) {
		return nil, err
	}
	return got, nil
}

// compare asks QEMU what an image holds.
func (m Mutations) compare(t *testing.T, path string, image, got []byte) error {
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	flat := filepath.Join(t.TempDir(), "flat.raw")
	if _, err := qemu(t, "qemu-img", "convert", "-t", "unsafe", "-f", m.Format, "-O", "raw", path, flat); err != nil {
		return fmt.Errorf("reads, but not as before, and QEMU says: %w", err)
	}
	f, err := os.Open(flat)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := make([]byte, maxMutant)
	n, err := f.ReadAt(want, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if want, got = want[:n], got[:len(got)&^511]; !bytes.Equal(got, want) { // QEMU's disks have whole sectors
		return fmt.Errorf("QEMU reads something else (%d bytes, not %d)", len(want), len(got))
	}
	return nil
}
