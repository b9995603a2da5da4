package artifact

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

// shuffled is an artifact whose layers have the chunks of its disk in another
// order than the disk: a version whose files have moved since the one before.
func shuffled(t testing.TB, m *memory) (ocispec.Descriptor, []byte) {
	t.Helper()
	const piece = 2 << 20
	old := testDisk(7, 48<<20)
	clear(old[10*piece : 12*piece])
	base, _ := m.pack(t, []Source{{"disk0", bytes.NewReader(old)}}, PackOptions{})
	content := make([]byte, chunker.RegionSize+48<<20+4096+77) // in two regions
	for to, from := range rand.New(rand.NewPCG(8, 1)).Perm(len(old) / piece) {
		at := to * piece
		if to%3 == 2 {
			at += chunker.RegionSize
		}
		copy(content[at:], old[from*piece:(from+1)*piece])
	}
	copy(content[len(content)-77:], "the last bytes")
	desc, p := m.pack(t, []Source{{"disk0", bytes.NewReader(content)}}, PackOptions{Bases: []*Base{m.base(t, base)}})
	if p.Kept == 0 {
		t.Fatal("no layer of the base is kept")
	}
	return desc, content
}

// The content of an artifact is a disk as any other.
func TestDiskReader(t *testing.T) {
	m := newMemory()
	for _, content := range [][]byte{nil, testDisk(1, 3<<20+5), make([]byte, 1<<20)} {
		desc, _ := m.pack(t, []Source{{"disk0", bytes.NewReader(content)}}, PackOptions{})
		d := m.open(t, desc).Disk("disk0")
		if err := disktest.TestReader(d.Reader(t.Context()), content); err != nil {
			t.Error(err)
		}
	}

	// In larger ones the extents are those of the disk, but for ends of regions.
	desc, _ := shuffled(t, m)
	d := m.open(t, desc).Disk("disk0")
	var got, want []disk.Extent
	for x, err := range disk.Extents(d.Reader(t.Context())) {
		if err != nil {
			t.Fatal(err)
		}
		if n := len(got); n > 0 && got[n-1].End() == x.Offset {
			got[n-1].Length += x.Length
			continue
		}
		got = append(got, x)
	}
	for x, err := range d.Extents(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, x)
	}
	if len(got) < 5 || !slices.Equal(got, want) {
		t.Errorf("the reader has extents %v, the disk %v", got, want)
	}
	// From the middle of one as well.
	for _, x := range want {
		if y, err := d.Reader(t.Context()).NextExtent(x.Offset + 1); err != nil || y.Offset != x.Offset+1 {
			t.Errorf("after %d comes %+v, %v", x.Offset+1, y, err)
		}
	}
}
