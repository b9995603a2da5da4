package artifact

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/disk"
)

// A largeDisk is a disk of any size with data in a few places. It counts what is read.
type largeDisk struct {
	size int64
	data map[int64][]byte // by offset, which is a multiple of the length of all
	step int64
	read atomic.Int64
}

func newLargeDisk(size int64, pieces int) *largeDisk {
	const length = 1 << 20
	d := &largeDisk{size: size, data: map[int64][]byte{}, step: length}
	rng := rand.New(rand.NewPCG(uint64(size), 1))
	for i := range pieces {
		b := testDisk(uint64(i), length)
		d.data[rng.Int64N(size/length)*length] = b
	}
	return d
}

func (d *largeDisk) Size() int64 { return d.size }

func (d *largeDisk) ReadAt(p []byte, off int64) (int, error) {
	d.read.Add(int64(len(p)))
	clear(p)
	for at := off - off%d.step; at < off+int64(len(p)); at += d.step {
		if b := d.data[at]; b != nil {
			copy(p[max(0, at-off):], b[max(0, off-at):])
		}
	}
	if off+int64(len(p)) > d.size {
		return int(d.size - off), io.EOF
	}
	return len(p), nil
}

func (d *largeDisk) NextExtent(off int64) (disk.Extent, error) {
	next := int64(-1)
	for at := range d.data {
		if at+d.step > off && (next < 0 || at < next) {
			next = at
		}
	}
	if next < 0 {
		return disk.Extent{}, nil
	}
	return disk.Extent{Offset: next, Length: d.step}, nil
}

// comparing is a [disk.Writer] that wants to be written what a largeDisk holds.
type comparing struct {
	*largeDisk
	inOrder bool

	mu    sync.Mutex
	wrong int
	n     int64
}

func (c *comparing) InOrder() bool { return c.inOrder }

func (c *comparing) WriteAt(p []byte, off int64) (int, error) {
	want := make([]byte, len(p))
	c.largeDisk.ReadAt(want, off)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += int64(len(p))
	if !bytes.Equal(p, want) {
		c.wrong++
	}
	return len(p), nil
}

func (c *comparing) Close() error { return nil }

// The virtual size costs nothing: the same data on a disk of 1 TiB takes the
// same reads, blobs and requests as on one of 1 GiB, or a few more bytes where
// it is spread over more regions.
func TestVirtualSizeIsFree(t *testing.T) {
	const pieces = 16
	var blobs [2]int64
	for i, size := range []int64{1 << 30, 1 << 40} {
		d := newLargeDisk(size, pieces)
		m := newMemory()
		desc, p := m.pack(t, []Source{{"disk0", d}}, PackOptions{})
		if got, limit := d.read.Load(), int64(len(d.data))*d.step; got > limit {
			t.Errorf("%d bytes of disk: %d were read, more than the %d of data", size, got, limit)
		}
		blobs[i] = p.Blobs

		im := m.open(t, desc)
		for _, inOrder := range []bool{false, true} {
			w := &comparing{largeDisk: d, inOrder: inOrder}
			r, err := im.Disk("disk0").Restore(t.Context(), w, RestoreOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if w.wrong > 0 || w.n != p.DataSize[0] || r.Written != p.DataSize[0] {
				t.Errorf("%d bytes of disk, in order %v: %d writes are wrong, %d bytes written of %d", size, inOrder, w.wrong, w.n, p.DataSize[0])
			}
		}
	}
	// A region costs 80 bytes and its page.
	if blobs[1] > blobs[0]+pieces*200 {
		t.Errorf("%d bytes are stored for 1 TiB, %d for 1 GiB", blobs[1], blobs[0])
	}
}

// What is kept in memory for the chunks of bases is little for each: 100 GB
// against three bases of 100 GB are 6 million and more.
func TestBaseTableMemory(t *testing.T) {
	const layer = 1 << 16
	heap := func() int64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return int64(s.HeapAlloc)
	}
	build := func(layers int) int64 {
		dir := t.TempDir()
		var bases []*Base
		n := uint64(0)
		for range 2 {
			// Its directories are in files, as those of a large artifact are.
			s := newScratch(dir, &Memory{})
			defer s.close()
			b := &Base{Image: &Image{}}
			for range layers {
				n++
				b.layers = append(b.layers, madeLayer(t, s, n, layer))
			}
			bases = append(bases, b)
		}
		before := heap()
		table, err := newBaseTable(dir, bases, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer table.close()
		used := heap() - before
		if table.chunks != uint64(2*layers*layer) {
			t.Errorf("the table has %d chunks, want %d", table.chunks, 2*layers*layer)
		}
		// It finds what it holds where it is, and nothing else.
		for at := uint64(0); at < table.chunks; at += 7919 {
			d := madeDigest(at/layer+1, int(at%layer))
			got, err := table.table.lookup(nil, &d)
			if err != nil || len(got) != 1 || got[0] != at {
				t.Fatalf("looking up chunk %d: %v, %v", at, got, err)
			}
			l, e, err := table.chunk(at)
			if err != nil || l != int(at/layer) || e.digest != d {
				t.Fatalf("chunk %d is in layer %d with %x, %v", at, l, e.digest, err)
			}
		}
		runtime.KeepAlive(bases)
		return used
	}
	few, many := build(1), build(5)
	const more = 8 * layer
	t.Logf("%.1f bytes for each of %d chunks more", float64(many-few)/more, more)
	// Fence and filter take 1.2 bytes, the bit that says it is used 0.1; a map
	// would take 88.
	if many-few > 3*more {
		t.Errorf("%d bytes for %d chunks more", many-few, more)
	}
}

func madeDigest(layer uint64, chunk int) sum {
	return sha256.Sum256(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, layer), uint64(chunk)))
}

// madeLayer is a layer that consists of its directory.
func madeLayer(t *testing.T, s *scratch, number uint64, chunks int) baseLayer {
	var b dirBuilder
	const perFrame = 16
	for c := 0; c < chunks; c += perFrame {
		b.addFrame([]byte("a frame"), perFrame*chunker.BlockSize, perFrame)
		for i := range perFrame {
			d := madeDigest(number, c+i)
			b.addChunk(1, &d)
		}
	}
	l := IndexLayer{Digest: madeDigest(number, -1), Chunks: uint32(chunks), DirOffset: int64(len("a frame")) * int64(chunks/perFrame)}
	dir, records, err := parseDirectory(b.plain(), descriptorOf(TypeLayerZstd, nil), &l)
	if err != nil {
		t.Fatal(err)
	}
	if dir.data, err = s.keep(records); err != nil {
		t.Fatal(err)
	}
	return baseLayer{IndexLayer: l, dir: dir}
}
