package qcow2_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/qcow2"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// FuzzOpen wants of any file that it is refused as what it is, or that all ways
// to read it agree with each other, in bounded memory. Its seeds were made by
// qemu-img 7.2, one for each way to map a cluster.
func FuzzOpen(f *testing.F) {
	seeds, err := filepath.Glob(filepath.Join("testdata", "images", "*.qcow2"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, seed := range seeds {
		image, err := os.ReadFile(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(image, "")
		f.Add(image, "first")
	}
	backing := bytes.NewReader(bytes.Repeat([]byte("backing file "), 1600))
	data := bytes.NewReader(bytes.Repeat([]byte("data file"), 8000))

	f.Fuzz(func(t *testing.T, image []byte, snapshot string) {
		before := allocated()
		img, err := qcow2.Open(bytes.NewReader(image), qcow2.Options{
			Snapshot: snapshot,
			Backing:  func(string, string) (virtual.Reader, error) { return backing, nil },
			Data:     func(string) (virtual.Reader, error) { return data, nil },
		})
		if err != nil {
			wantRefusal(t, err)
			return
		}

		// A small file can be a large disk: look around, at any size.
		covered, rounds := int64(0), 0
		for e, err := range disk.Extents(img) {
			if err != nil {
				wantRefusal(t, err)
				return
			}
			p := make([]byte, min(e.Length, 100))
			if n, err := img.ReadAt(p, e.Offset); n < len(p) {
				wantRefusal(t, err)
			}
			covered += e.Length
			if rounds++; rounds == 100 {
				break
			}
		}
		if n := allocated() - before; n > 64<<20 {
			t.Errorf("allocated %d MiB for a file of %d bytes", n>>20, len(image))
		}
		if img.Size() > 1<<20 {
			return
		}
		content := make([]byte, img.Size())
		if n, err := img.ReadAt(content, 0); n < len(content) {
			wantRefusal(t, err)
			return
		}
		if err := disktest.TestReader(img, content); err != nil {
			t.Error(err)
		}
	})
}

func wantRefusal(t *testing.T, err error) {
	t.Helper()
	for _, kind := range []error{disk.ErrCorrupt, disk.ErrUnsupported, disk.ErrUnknownSnapshot} {
		if errors.Is(err, kind) {
			return
		}
	}
	t.Errorf("got error %v", err)
}

// allocated is how many bytes were ever allocated.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}
