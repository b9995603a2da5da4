package qcow2_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
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
		disktest.Explore(t, disktest.Suspect{
			Open: func() (disk.Reader, error) {
				img, err := qcow2.Open(bytes.NewReader(image), qcow2.Options{
					Snapshot: snapshot,
					Backing:  func(string, string) (virtual.Reader, error) { return backing, nil },
					Data:     func(string) (virtual.Reader, error) { return data, nil },
				})
				if errors.Is(err, disk.ErrBackingFile) { // it has both
					t.Errorf("got error %v", err)
				}
				return img, err
			},
			Refusals: []error{disk.ErrUnknownSnapshot},
		})
	})
}
