package blocks_test

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/blocks"
)

const (
	blockSize = 64 << 10
	gap       = 4 << 10
	first     = 8 << 10
)

// create makes a file whose blocks have a gap before each, of 0xee.
func create(t *testing.T, size int64, data iter.Seq2[disk.Extent, error]) *blocks.Writer {
	t.Helper()
	f := disktest.CreateFile(t)
	m, err := blocks.NewMap(blockSize, size, data)
	if err != nil {
		t.Fatal(err)
	}
	end := first + m.Len()*(gap+blockSize)
	w, err := blocks.NewWriter(f, m, blocks.Layout{Size: size, First: first, Stride: gap + blockSize, End: end}, data)
	if err != nil {
		t.Fatal(err)
	}
	for place := range m.All() {
		if _, err := f.WriteAt(bytes.Repeat([]byte{0xee}, gap), first+place*(gap+blockSize)-gap); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// What a format has between the blocks is not seen in the disk, and is no data.
func TestStride(t *testing.T) {
	var w *blocks.Writer
	err := disktest.TestWriter(disktest.Target{
		Create: func(size int64, data iter.Seq2[disk.Extent, error]) (disk.Writer, error) {
			w = create(t, size, data)
			return w, nil
		},
		Open: func() (disk.Reader, error) { return struct{ disk.Reader }{w}, nil },
	})
	if err != nil {
		t.Error(err)
	}

	// A walk over blocks of which one is written ends with it, though there is
	// data between the others.
	const size = 40 * blockSize
	data := disktest.Extents(disk.Extent{Offset: 5, Length: 1}, disk.Extent{Offset: 7 * blockSize, Length: 3 * blockSize}, disk.Extent{Offset: size - 1, Length: 1})
	w = create(t, size, data)
	p := bytes.Repeat([]byte("x"), 2*blockSize)
	if _, err := w.WriteAt(p, 7*blockSize); err != nil {
		t.Fatal(err)
	}
	var got []disk.Extent
	for e, err := range disk.Extents(w) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	want := []disk.Extent{{Offset: 7 * blockSize, Length: blockSize}, {Offset: 8 * blockSize, Length: blockSize}}
	if disktest.KnowsHoles(t) && !slices.Equal(got, want) {
		t.Errorf("got extents %+v, want %+v", got, want)
	}
}

func TestMap(t *testing.T) {
	const far = 3*blocks.GroupLen + 5 // in another group
	m, err := blocks.NewMap(10, far*10+10, disktest.Extents(
		disk.Extent{Offset: 25, Length: 1}, disk.Extent{Offset: 26, Length: 14}, disk.Extent{Offset: far * 10, Length: 10}))
	if err != nil {
		t.Fatal(err)
	}
	var all [][2]int64
	for place, block := range m.All() {
		all = append(all, [2]int64{place, block})
	}
	if want := [][2]int64{{0, 2}, {1, 3}, {2, far}}; !slices.Equal(all, want) || m.Len() != 3 {
		t.Errorf("got %d blocks %v, want %v", m.Len(), all, want)
	}
	for n, want := range map[int64]string{1: "[-1]", 2: "[-1 -1]", 3: "[-1 -1 0]", 6: "[-1 -1 0 1 -1 -1]"} {
		if got := fmt.Sprint(slices.Collect(m.Places(n))); got != want {
			t.Errorf("places of %d blocks: %s, want %s", n, got, want)
		}
	}
	if places := slices.Collect(m.Places(far + 2)); len(places) != far+2 || places[far] != 2 || places[far+1] != -1 || places[far-1] != -1 {
		t.Errorf("got %d places, the last are %v", len(places), places[len(places)-3:])
	}
}
