package artifact

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
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

var allFormats = []disk.Format{disk.Raw, disk.QCOW2, disk.QCOW2Zlib, disk.QCOW2Zstd, disk.VMDK, disk.VMDKStream,
	disk.VDI, disk.VHD, disk.VHDFixed, disk.VHDX}

// A disk becomes an image of any format without a word about the order that the
// format wants.
func TestRestoreToAllFormats(t *testing.T) {
	m := newMemory()
	desc, content := shuffled(t, m)
	d := m.open(t, desc).Disk("disk0")
	for _, format := range allFormats {
		path := filepath.Join(t.TempDir(), "disk"+format.Ext())
		f, err := disk.Create(path, format, d.Reader(t.Context()), disk.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer f.Abort()
		if _, err := d.Restore(t.Context(), f, RestoreOptions{}); err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		if err := f.Close(); err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		img, err := disk.Open(path, disk.OpenOptions{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		want, err := format.DiskSize(d.Size, d.Sector)
		if err != nil || img.Size() != want {
			t.Errorf("%s: %d bytes, want %d, %v", format, img.Size(), want, err)
		}
		got := make([]byte, img.Size())
		if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, append(bytes.Clone(content), make([]byte, int(want)-len(content))...)) {
			t.Errorf("%s: the content differs, %v", format, err)
		}
		img.Close()
	}
}

// A restore that fails leaves no file, and no writer that could be closed to one.
func TestRestoreFailsToAllFormats(t *testing.T) {
	m := newMemory()
	desc, _ := shuffled(t, m)
	d := m.open(t, desc).Disk("disk0")
	for i := range d.layers { // all checked tables are read by now; the data is not
		if _, err := d.directory(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	delete(m.blobs, string(d.layers[len(d.layers)-1].Digest))
	for _, format := range allFormats {
		dir := t.TempDir()
		f, err := disk.Create(filepath.Join(dir, "disk"), format, d.Reader(t.Context()), disk.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Restore(t.Context(), f, RestoreOptions{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", format, err)
		}
		if err := f.Close(); !errors.Is(err, disk.ErrAborted) {
			t.Errorf("%s: closed: %v", format, err)
		}
		if entries, err := os.ReadDir(dir); len(entries) > 0 || err != nil {
			t.Errorf("%s: left %v, %v", format, entries, err)
		}
	}
}

// A writer that hides what order it wants gets another one, and refuses it.
func TestRestoreInWrongOrder(t *testing.T) {
	m := newMemory()
	desc, _ := shuffled(t, m)
	d := m.open(t, desc).Disk("disk0")
	for _, format := range allFormats {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w, err := disk.NewWriter(f, format, d.Size, d.Extents(t.Context()), disk.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Restore(t.Context(), struct{ disk.Writer }{w}, RestoreOptions{})
		closed := w.Close()
		if !format.InOrder() && errors.Join(err, closed) != nil || format.InOrder() && !(errors.Is(err, disk.ErrOutOfOrder) && errors.Is(closed, disk.ErrOutOfOrder)) {
			t.Errorf("%s: restored: %v; closed: %v", format, err, closed)
		}
	}
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
