package vmdk_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"sync"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/davit-oci/davit/disk/internal/vmdk"
)

// A shelf is a folder in memory. Its files have no parents but each other.
type shelf struct {
	files map[string][]byte
	depth int
}

func (s shelf) Extent(name string) (virtual.Reader, error) {
	if b, ok := s.files[name]; ok {
		return bytes.NewReader(b), nil
	}
	return nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
}

func (s shelf) Parent(name string) (virtual.Reader, virtual.Folder, error) {
	if s.depth == 5 {
		return nil, nil, virtual.Corrupt("a loop")
	}
	s.depth++
	r, err := s.Extent(name)
	return r, s, err
}

func (s shelf) NamesIn(string) ([]string, error) { return []string{"base.vmdk", "extent"}, nil }

// seeds are small images, one for each way to map a grain.
func seeds() map[string][]byte {
	content := disktest.Mixture(9<<10, 1)
	const kinds = "dudz"
	one := line(content, "SPARSE", "x")
	return map[string][]byte{
		"sparse":     hosted{grainSize: 1, gtes: 4, kinds: kinds, descriptor: describe("monolithicSparse", one)}.build(content),
		"delta":      hosted{grainSize: 8, gtes: 4, kinds: kinds, descriptor: delta("base.vmdk", "monolithicSparse", one)}.build(content),
		"stream":     hosted{version: 3, stream: "footer", grainSize: 8, gtes: 4, kinds: kinds, descriptor: describe("streamOptimized", one)}.build(content),
		"tail":       hosted{version: 3, stream: "tail", grainSize: 8, gtes: 4, descriptor: describe("streamOptimized", one)}.build(content),
		"bare":       hosted{version: 3, stream: "head", bare: "nothing", grainSize: 8, gtes: 4, descriptor: describe("streamOptimized", one)}.build(content),
		"sizes":      hosted{version: 3, stream: "head", bare: "size", grainSize: 8, gtes: 4, descriptor: describe("streamOptimized", one)}.build(content),
		"COWD":       cowd(content, 1, kinds),
		"seSparse":   seSparse(content, kinds),
		"VirtualBox": hosted{descriptor: describe("monolithicSparse", one, `ddb.uuid.parent="12345678-0000-0000-0000-000000000000"`)}.build(content),
		"flat":       []byte(describe("vmfs", line(content, "VMFS", "extent"))),
		"all":        []byte(delta("base.vmdk", "custom", `RW 3 FLAT "extent" 1`, "RW 4 ZERO", `RDONLY 9 SPARSE "base.vmdk"`, `RW 18 SESPARSE "extent"`)),
	}
}

// look opens an image whose extents are all the same file, and wants that it is
// refused as what it is, or that all ways to read it agree with each other, in
// bounded memory.
func look(t *testing.T, image, extent []byte, test func(r disk.Reader, content []byte) error) {
	t.Helper()
	in := shelf{files: map[string][]byte{"base.vmdk": base(), "extent": extent}}
	disktest.Explore(t, disktest.Suspect{
		Open: func() (disk.Reader, error) {
			return vmdk.Open(bytes.NewReader(image), vmdk.Options{Folder: in})
		},
		Refusals: []error{fs.ErrNotExist},
		Limit:    1 << 18,
		Test:     test,
	})
}

var base = sync.OnceValue(func() []byte {
	h := hosted{grainSize: 8, descriptor: describe("monolithicSparse", `RW 18 SPARSE "x"`, `ddb.uuid.image="12345678-0000-0000-0000-000000000000"`)}
	return h.build(disktest.Mixture(9<<10, 2))
})

func FuzzOpen(f *testing.F) {
	all := seeds()
	for _, image := range all {
		f.Add(image, all["COWD"])
		f.Add(image, all["seSparse"])
	}
	f.Fuzz(func(t *testing.T, image, extent []byte) { look(t, image, extent, disktest.TestReader) })
}

// Each byte of a header and of a descriptor, with bits changed.
func TestMutations(t *testing.T) {
	all := seeds()
	for name, image := range all {
		t.Run(name, func(t *testing.T) {
			var places []int // of headers and, less closely, padding, descriptor, directory, and a footer
			for n := range min(len(image), 3*sectorSize) {
				if n < 80 || n%17 == 0 {
					places = append(places, n)
				}
			}
			for n := range 16 {
				places = append(places, min(len(image)-1, 4*sectorSize+n), min(len(image)-1, 8*sectorSize+64*sectorSize+n))
			}
			for n := range 80 {
				places = append(places, max(0, len(image)-3*sectorSize+n), max(0, len(image)-2*sectorSize+n))
			}
			for n, place := range places {
				changed := bytes.Clone(image)
				changed[place] ^= []byte{0xff, 1, 0x80, 0x10, 2}[n%5]
				look(t, changed, all["seSparse"], testPieces)
			}
			for _, n := range []int{0, 1, min(len(image), sectorSize), len(image) / 2, len(image) - 1} {
				look(t, image[:n], all["seSparse"], testPieces)
			}
		})
	}
}

// testPieces is a lighter disktest.TestReader, for thousands of images.
func testPieces(r disk.Reader, content []byte) error {
	p := make([]byte, 700)
	for off := 0; off < len(content); off += len(p) {
		n, err := r.ReadAt(p, int64(off))
		if want := content[off:min(len(content), off+len(p))]; !bytes.Equal(p[:n], want) {
			return fmt.Errorf("reads something else at %d: %w", off, err)
		}
	}
	return nil
}
