package qcow2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/davit-oci/davit/internal/programs"
)

func createFile(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func check(t *testing.T, f *os.File) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), programs.Need(t, "qemu-img"), "check", "-f", "qcow2", f.Name()).CombinedOutput(); err != nil {
		t.Errorf("qemu-img check: %v\n%s", err, out)
	}
}

type file struct {
	*os.File
	size int64
}

func (f file) Size() int64 { return f.size }

// A compressed image that grows past the clusters of its first refcount block,
// at any place in a cluster.
func TestCompressorAcrossRefcountBlocks(t *testing.T) {
	content := make([]byte, 40*clusterSize)
	for c := range 40 {
		part := content[c*clusterSize:][:clusterSize]
		if c%3 == 0 {
			rand.NewChaCha8([32]byte{byte(c)}).Read(part) // stored, aligned
		} else {
			rand.NewChaCha8([32]byte{byte(c)}).Read(part[:20000*(c%3)])
		}
	}
	for _, before := range []int64{0, 1, 511, 512, 30000, clusterSize - 1, clusterSize, clusterSize + 1, 10 * clusterSize} {
		f := createFile(t)
		w, err := NewCompressor(f, int64(len(content)), Zstd, 2)
		if err != nil {
			t.Fatal(err)
		}
		w.end = refcountSpan - before // as if much had been written
		if _, err := w.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		check(t, f)
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		img, err := Open(file{f, info.Size()}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(content))
		if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes before the boundary: reads something else, %v", before, err)
		}
	}
}

// Plain images with one refcount block, with just two, and with several.
func TestWriterWithRefcountBlocks(t *testing.T) {
	for _, clusters := range []int64{blockEntries - 10, blockEntries - 9, blockEntries - 8, blockEntries - 7, 2*blockEntries - 20, 5 * blockEntries} {
		t.Run(fmt.Sprint(clusters, " clusters"), func(t *testing.T) {
			f := createFile(t)
			size := clusters * clusterSize
			_, err := NewWriter(f, size, func(yield func(virtual.Extent, error) bool) {
				yield(virtual.Extent{Offset: 0, Length: size}, nil)
			})
			if err != nil {
				t.Fatal(err)
			}
			check(t, f)
		})
	}
}
