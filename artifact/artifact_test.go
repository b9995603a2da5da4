package artifact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/verify"
)

// A memory is a registry for tests: blobs by digest, and what was pushed.
type memory struct {
	mu     sync.Mutex
	blobs  map[string][]byte
	pushed int // blobs that were not there
	ranges int64
}

func newMemory() *memory { return &memory{blobs: map[string][]byte{}} }

func (m *memory) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[string(d.Digest)]
	if !ok {
		return nil, fmt.Errorf("%s: %w", d.Digest, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (m *memory) FetchRange(_ context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.blobs[string(d.Digest)]
	if !ok {
		return nil, fmt.Errorf("%s: %w", d.Digest, fs.ErrNotExist)
	}
	m.ranges += n
	return io.NopCloser(io.NewSectionReader(bytes.NewReader(b), off, n)), nil
}

func (m *memory) Push(_ context.Context, d ocispec.Descriptor, content io.Reader) error {
	b, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	if err := checkBlob("pushed blob", d, b); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.blobs[string(d.Digest)]; !ok {
		m.pushed++
		m.blobs[string(d.Digest)] = b
	}
	return nil
}

// pack packs disks and returns the descriptor of the manifest.
func (m *memory) pack(t testing.TB, disks []Source, o PackOptions) (ocispec.Descriptor, *Packed) {
	t.Helper()
	o.Scratch = t.TempDir()
	p, err := Pack(t.Context(), m, disks, o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	pushed := m.pushed // tests count what Pack pushes
	desc, err := Publish(t.Context(), m, Content{OVF: []byte("<Envelope/>"), Packed: p})
	if err != nil {
		t.Fatal(err)
	}
	m.pushed = pushed
	return desc, p
}

// openUnverified opens what desc says, whoever wrote it.
func openUnverified(ctx context.Context, src Fetcher, desc ocispec.Descriptor, o OpenOptions) (*Image, error) {
	found, err := verify.Unverified(ctx, src, desc)
	if err != nil {
		return nil, err
	}
	return Open(ctx, src, found.Subject, o)
}

func (m *memory) open(t testing.TB, desc ocispec.Descriptor) *Image {
	t.Helper()
	im, err := openUnverified(t.Context(), m, desc, OpenOptions{Scratch: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { im.Close() })
	return im
}

func (m *memory) base(t testing.TB, desc ocispec.Descriptor) *Base {
	t.Helper()
	found, err := verify.Unverified(t.Context(), m, desc)
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenBase(t.Context(), m, found.Subject, OpenOptions{Scratch: t.TempDir(), Jobs: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// A target is a [disk.Writer] in memory that can be read back. It fails when
// it is written out of order and should not be.
type target struct {
	mu      sync.Mutex
	b       []byte
	ordered bool
	end     int64
}

func (w *target) WriteAt(p []byte, off int64) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ordered && off < w.end {
		return 0, errors.New("written out of order")
	}
	w.end = off + int64(len(p))
	return copy(w.b[off:], p), nil
}
func (w *target) ReadAt(p []byte, off int64) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.NewReader(w.b).ReadAt(p, off)
}
func (w *target) Size() int64   { return int64(len(w.b)) }
func (w *target) InOrder() bool { return w.ordered }
func (w *target) Close() error  { return nil }

var _ disk.Reader = (*target)(nil)

// testDisk makes content with files, slack, holes and repetitions.
func testDisk(seed uint64, size int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	random := rand.NewChaCha8([32]byte{byte(seed)})
	text := bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog "), 8000)
	b := make([]byte, size)
	for at := 0; at < size; {
		n := min(size-at, 1+rng.IntN(300_000))
		switch rng.IntN(4) {
		case 0: // a hole
		case 1: // text
			copy(b[at:at+n], text[rng.IntN(44):])
		case 2: // random
			random.Read(b[at : at+n])
		case 3: // what was there before
			copy(b[at:at+n], b[:at])
		}
		at = (at + n + chunker.BlockSize) &^ (chunker.BlockSize - 1)
	}
	return b
}

// restore restores a disk over what have holds; nil is nothing.
func restore(t testing.TB, im *Image, name string, o RestoreOptions, have []byte) ([]byte, Restored) {
	t.Helper()
	if have == nil {
		have = make([]byte, im.Disk(name).Size)
	}
	return restoreTo(t, im, name, o, &target{b: have})
}

func restoreTo(t testing.TB, im *Image, name string, o RestoreOptions, w *target) ([]byte, Restored) {
	t.Helper()
	r, err := im.Disk(name).Restore(t.Context(), w, o)
	if err != nil {
		t.Fatal(err)
	}
	return w.b, r
}

// What is packed comes back, in any order, by any codec, at any size.
func TestRoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 511, 4096, 4097, 1<<20 + 5, chunker.RegionSize + 12345} {
		for _, codec := range []string{"zstd", "xz", "none"} {
			if codec == "xz" && size > 4<<20 {
				continue
			}
			c, err := ParseCodec(codec)
			if err != nil {
				t.Fatal(err)
			}
			want := testDisk(uint64(size), size)
			m := newMemory()
			desc, _ := m.pack(t, []Source{{"disk0", bytes.NewReader(want)}}, PackOptions{Codec: c})
			im := m.open(t, desc)
			for _, inOrder := range []bool{false, true} {
				got, _ := restoreTo(t, im, "disk0", RestoreOptions{}, &target{b: make([]byte, size), ordered: inOrder})
				if !bytes.Equal(got, want) {
					t.Errorf("%s, %d bytes, in order %v: content differs", codec, size, inOrder)
				}
			}
			r := im.Disk("disk0").Reader(t.Context())
			got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %d bytes: reading differs, %v", codec, size, err)
			}
			if err := im.Check(t.Context(), CheckOptions{Jobs: 2}); err != nil {
				t.Errorf("%s, %d bytes: %v", codec, size, err)
			}
		}
	}
}

// A disk that is pushed onto itself stores nothing and has the same digest.
func TestFixedPoint(t *testing.T) {
	m := newMemory()
	content := testDisk(3, 100<<20)
	src := []Source{{"disk0", bytes.NewReader(content)}}
	first, _ := m.pack(t, src, PackOptions{})

	pushed := m.pushed
	second, p := m.pack(t, src, PackOptions{Bases: []*Base{m.base(t, first)}})
	if first.Digest != second.Digest {
		t.Errorf("pushed again: digest %s, want %s", second.Digest, first.Digest)
	}
	if m.pushed != pushed || p.New != 0 {
		t.Errorf("pushed again: %d new blobs, %d new bytes", m.pushed-pushed, p.New)
	}
}

// An update stores what is new, and is complete with what is old.
func TestUpdate(t *testing.T) {
	m := newMemory()
	content := testDisk(4, 100<<20)
	first, _ := m.pack(t, []Source{{"disk0", bytes.NewReader(content)}}, PackOptions{})

	changed := bytes.Clone(content)
	for i := range 1 << 20 {
		changed[40<<20+i] = byte(i * i >> 3)
	}
	second, p := m.pack(t, []Source{{"disk0", bytes.NewReader(changed)}}, PackOptions{Bases: []*Base{m.base(t, first)}})
	if p.New > 3<<20 {
		t.Errorf("1 MiB changed, %d bytes are new", p.New)
	}
	im := m.open(t, second)
	seeds := NewSeeds(t.TempDir())
	defer seeds.Close()
	if err := seeds.Add(t.Context(), bytes.NewReader(content), SeedOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, inOrder := range []bool{false, true} {
		got, r := restoreTo(t, im, "disk0", RestoreOptions{Seeds: seeds}, &target{b: make([]byte, len(changed)), ordered: inOrder})
		if !bytes.Equal(got, changed) {
			t.Errorf("in order %v: content differs", inOrder)
		}
		if r.Fetched > 3<<20 {
			t.Errorf("in order %v: %d bytes fetched", inOrder, r.Fetched)
		}
	}
	if got, r := restore(t, im, "disk0", RestoreOptions{Resume: true}, bytes.Clone(content)); !bytes.Equal(got, changed) && r.Fetched > 3<<20 {
		t.Errorf("resumed over the old version: equal %v, fetched %d", bytes.Equal(got, changed), r.Fetched)
	}
}

// A layer of which little is left is rewritten, and so is a scrubbed one.
func TestRewrite(t *testing.T) {
	m := newMemory()
	content := testDisk(5, 64<<20)
	first, _ := m.pack(t, []Source{{"disk0", bytes.NewReader(content)}}, PackOptions{})

	small := bytes.Clone(content[:8<<20])
	second, p := m.pack(t, []Source{{"disk0", bytes.NewReader(small)}}, PackOptions{Bases: []*Base{m.base(t, first)}})
	if p.Kept != 0 {
		t.Errorf("%d layers are kept of which 1 in 8 blocks is needed", p.Kept)
	}
	if got, _ := restore(t, m.open(t, second), "disk0", RestoreOptions{}, nil); !bytes.Equal(got, small) {
		t.Error("content differs after a rewrite")
	}

	most := bytes.Clone(content[:56<<20])
	third, p := m.pack(t, []Source{{"disk0", bytes.NewReader(most)}}, PackOptions{Bases: []*Base{m.base(t, first)}, Scrub: true})
	if p.Dead != 0 {
		t.Errorf("%d dead bytes after a scrub", p.Dead)
	}
	if got, _ := restore(t, m.open(t, third), "disk0", RestoreOptions{}, nil); !bytes.Equal(got, most) {
		t.Error("content differs after a scrub")
	}
}

// A journal for tests, and how often it was asked and had an answer.
type journal struct {
	mu      sync.Mutex
	records map[sum]LayerRecord
	found   int
}

func (j *journal) Find(_ context.Context, first sum) (LayerRecord, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, ok := j.records[first]
	if ok {
		j.found++
	}
	return r, ok
}

func (j *journal) Done(r LayerRecord) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.records[r.First] = r
	return nil
}

// What the journal has is not pushed again, and the artifact is the same; a
// layer that only begins like one of the journal is written as it is.
func TestJournal(t *testing.T) {
	m := newMemory()
	j := &journal{records: map[sum]LayerRecord{}}
	content := make([]byte, 100<<20) // of which no layer takes more than 48 MiB
	rand.NewChaCha8([32]byte{6}).Read(content)
	first, _ := m.pack(t, []Source{{"disk0", bytes.NewReader(content)}}, PackOptions{Journal: j})
	layers := len(j.records)
	if layers < 2 {
		t.Fatalf("only %d layers", layers)
	}
	j.found = 0
	again, p := m.pack(t, []Source{{"disk0", bytes.NewReader(content)}}, PackOptions{Journal: j})
	if again.Digest != first.Digest || j.found != layers {
		t.Errorf("digest %s, want %s; %d of %d layers found", again.Digest, first.Digest, j.found, layers)
	}
	if len(p.Layers) != layers {
		t.Errorf("%d layers, want %d", len(p.Layers), layers)
	}

	changed := bytes.Clone(content)
	copy(changed[80<<20:], "something else")
	want, _ := newMemory().pack(t, []Source{{"disk0", bytes.NewReader(changed)}}, PackOptions{})
	got, _ := m.pack(t, []Source{{"disk0", bytes.NewReader(changed)}}, PackOptions{Journal: j})
	if got.Digest != want.Digest {
		t.Errorf("with the journal of another disk the digest is %s, want %s", got.Digest, want.Digest)
	}
	if back, _ := restore(t, m.open(t, got), "disk0", RestoreOptions{}, nil); !bytes.Equal(back, changed) {
		t.Error("content differs")
	}
}

// What nobody has let through is not even fetched.
func TestOpenRefusesTheZeroSubject(t *testing.T) {
	var none Fetcher
	if im, err := Open(t.Context(), none, verify.Subject{}, OpenOptions{}); im != nil || !errors.Is(err, verify.ErrNoSubject) {
		t.Errorf("Open: got %v, %v, want ErrNoSubject", im, err)
	}
	if b, err := OpenBase(t.Context(), none, verify.Subject{}, OpenOptions{}); b != nil || !errors.Is(err, verify.ErrNoSubject) {
		t.Errorf("OpenBase: got %v, %v, want ErrNoSubject", b, err)
	}
}
