package vmdk_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vmdk"
)

func line(content []byte, kind, name string) string {
	return fmt.Sprintf("RW %d %s \"%s\"", len(content)/sectorSize, kind, name)
}

// Every way to build a hosted sparse extent is read as it was meant, and as QEMU
// reads it, where QEMU can.
func TestHosted(t *testing.T) {
	content := disktest.Mixture(300<<10+3*sectorSize, 1)
	for name, h := range map[string]hosted{
		"plain":                          {},
		"holes":                          {kinds: "dudduu"},
		"version 2, zeroed grains":       {version: 2, kinds: "dzudzz"},
		"version 3, zeroed grains":       {version: 3, kinds: "zdu"},
		"grains of 512 bytes":            {grainSize: 1, kinds: "ddu"},
		"grains of 4 KiB":                {grainSize: 8, kinds: "dduzd"},
		"grains of 1 MiB":                {grainSize: 2048},
		"tables of 128 entries":          {grainSize: 8, gtes: 128, kinds: "ddddddu"},
		"tables of 4 entries":            {grainSize: 8, gtes: 4, kinds: "uuuuuuuuuddddddd"},
		"unclean shutdown":               {unclean: true},
		"last grain cut":                 {cutLast: true},
		"stream, head":                   {version: 3, stream: "head"},
		"stream, tail":                   {version: 3, stream: "tail", kinds: "ddu"},
		"stream, footer":                 {version: 3, stream: "footer", kinds: "ddu"},
		"stream, version 1":              {stream: "footer"},
		"stream, zeroed grains":          {version: 3, stream: "footer", kinds: "dzu"},
		"stream, last grain cut":         {version: 3, stream: "footer", cutLast: true},
		"stream, grains of 4 KiB":        {version: 3, stream: "footer", grainSize: 8},
		"stream, grains of 512 bytes":    {version: 3, stream: "footer", grainSize: 1},
		"stream, grains of 1 MiB":        {version: 3, stream: "footer", grainSize: 2048},
		"stream, tables of 4 entries":    {version: 3, stream: "footer", grainSize: 8, gtes: 4},
		"no markers, head":               {version: 3, stream: "head", bare: "nothing"},
		"no markers, tail":               {version: 3, stream: "tail", bare: "nothing", cutLast: true},
		"no markers but sizes":           {version: 3, stream: "head", bare: "size"},
		"no markers but sizes, cut":      {version: 3, stream: "head", bare: "size", cutLast: true},
		"more capacity than that":        {capacity: 640},
		"tables of 1024 entries":         {grainSize: 1, gtes: 1024, kinds: "du"},
		"stream, padded":                 {version: 3, stream: "footer", padding: 5000},
		"stream, many tables":            {version: 3, stream: "footer", grainSize: 1, gtes: 1},
		"unknown flags that are no harm": {flags: 0xff00},
	} {
		t.Run(name, func(t *testing.T) {
			content := content
			if h.stream != "" && h.grainSize == 1 { // each of which is inflated again and again
				content = content[:60<<10+3*sectorSize]
			}
			// It has been renamed since, and had a name that cannot be read here.
			h.descriptor = describe("monolithicSparse", line(content, "SPARSE", "vsan://\x90\xe0"), "encoding=GBK")
			want := h.disk(content, nil)
			want = append(want, make([]byte, max(0, h.capacity*sectorSize-len(want)))...)
			path := write(t, t.TempDir(), "image.vmdk", h.build(want))
			testImage(t, path, want)

			// QEMU wants the file to end with the stream, reads a bare grain only
			// if it has no size before it, and allows no large tables.
			if h.padding == 0 && h.bare != "size" && h.gtes <= 512 {
				if !bytes.Equal(disktest.Flat(t, "-f", "vmdk", path), want) {
					t.Error("QEMU reads something else")
				}
			}
		})
	}
}

// A stream may have its descriptor in a file of its own.
func TestStreamWithDescriptorFile(t *testing.T) {
	content, dir := disktest.Mixture(300<<10+3*sectorSize, 1), t.TempDir()
	write(t, dir, "x", hosted{version: 3, stream: "footer", cutLast: true}.build(content))
	testImage(t, write(t, dir, "disk.vmdk", []byte(describe("streamOptimized", line(content, "SPARSE", "x")))), content)
}

// Thousands of extents share their caches.
func TestManyExtents(t *testing.T) {
	content := disktest.Mixture(9<<10, 1)
	extent := hosted{grainSize: 1, gtes: 4, kinds: "d"}.build(content)
	descriptor := []byte(describe("custom", strings.Repeat(line(content, "SPARSE", "x")+"\n", 4096)))
	before := disktest.Allocated()
	img, err := vmdk.Open(bytes.NewReader(descriptor), vmdk.Options{Folder: shelf{files: map[string][]byte{"x": extent}}})
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(content))
	for n := range 4096 {
		if _, err := img.ReadAt(got, int64(n*len(content))); err != nil || !bytes.Equal(got, content) {
			t.Fatalf("extent %d reads something else, %v", n, err)
		}
	}
	if n := disktest.Allocated() - before; n > 16<<20 {
		t.Errorf("allocated %d MiB", n>>20)
	}
}

// A disk of no bytes is one; QEMU makes it, but does not open it.
func TestNoBytes(t *testing.T) {
	for _, h := range []hosted{{}, {version: 3, stream: "head"}, {version: 3, stream: "footer"}} {
		h.descriptor = describe("monolithicSparse", "RW 0 SPARSE \"x\"")
		testImage(t, write(t, t.TempDir(), "image.vmdk", h.build(nil)), nil)
	}
	path := filepath.Join(t.TempDir(), "image.vmdk")
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "vmdk", path, "0")
	testImage(t, path, nil)
}

// A disk of 64 TiB that is empty is walked by its directory.
func TestLargeDisk(t *testing.T) {
	const size = 64 << 40
	h := hosted{capacity: 1, descriptor: describe("monolithicSparse")}
	b := poke(h.build(make([]byte, sectorSize)), 12, 0, 16, size/sectorSize>>32, 56, 1<<10)
	path := write(t, t.TempDir(), "image.vmdk", b)
	if err := os.Truncate(path, 16<<20); err != nil {
		t.Fatal(err)
	}
	img, err := open(t, path)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := img.NextExtent(0); e.Length != 0 || err != nil || img.Size() != size {
		t.Errorf("got an extent of %d bytes, %v, on a disk of %d", e.Length, err, img.Size())
	}
}

func TestCOWD(t *testing.T) {
	for grainSize, size := range map[int]int{
		1:   2<<20 + 300<<10 + 3*sectorSize, // more than a grain table maps
		8:   200<<10 + 3*sectorSize,
		128: 200<<10 + 3*sectorSize,
	} {
		for _, kinds := range []string{"d", "dduddddu", "u"} {
			t.Run(fmt.Sprint(grainSize, kinds), func(t *testing.T) {
				content := disktest.Mixture(size, 2)
				want := hosted{grainSize: grainSize, kinds: kinds}.disk(content, nil)
				dir := t.TempDir()
				testImage(t, write(t, dir, "root-delta.vmdk", cowd(content, grainSize, kinds)), want)

				path := write(t, dir, "root.vmdk", []byte(describe("vmfsSparse", line(content, "VMFSSPARSE", "root-delta.vmdk"))))
				testImage(t, path, want)
				if !bytes.Equal(disktest.Flat(t, "-f", "vmdk", path), want) {
					t.Error("QEMU reads something else")
				}
			})
		}
	}
}

func TestSESparse(t *testing.T) {
	for kinds, size := range map[string]int{
		"dduznddu": 17 << 20, // more than a grain table maps
		"d":        1<<20 + 3*sectorSize,
		"u":        1 << 20,
	} {
		t.Run(kinds, func(t *testing.T) {
			content := disktest.Mixture(size, 3)
			want := hosted{grainSize: 8, kinds: kinds}.disk(content, nil)
			for n := range len(want) / 4096 {
				if kinds[n%len(kinds)] == 'n' {
					clear(want[n*4096 : (n+1)*4096])
				}
			}
			dir := t.TempDir()
			write(t, dir, "disk-sesparse.vmdk", seSparse(content, kinds))
			path := write(t, dir, "disk.vmdk", []byte(describe("seSparse", line(content, "SESPARSE", "disk-sesparse.vmdk"))))
			testImage(t, path, want)
			if !bytes.Equal(disktest.Flat(t, "-f", "vmdk", path), want) {
				t.Error("QEMU reads something else")
			}
		})
	}
}

// Extents of all kinds in one disk, at odd places.
func TestExtents(t *testing.T) {
	content := disktest.Mixture(1<<20, 4)
	part := func(from, to int) []byte { return content[from*sectorSize : to*sectorSize] }
	dir := t.TempDir()
	write(t, dir, "flat.vmdk", append(make([]byte, 7*sectorSize), content...))
	write(t, dir, "disk-s001.vmdk", hosted{grainSize: 8, kinds: "ddu"}.build(part(0, 300)))
	write(t, dir, "sub/disk-s002.vmdk", hosted{version: 2, grainSize: 128, kinds: "dz", capacity: 512}.build(part(300, 700)))
	write(t, dir, "cow.vmdk", cowd(part(700, 800), 1, "ddddu"))
	write(t, dir, "empty.vmdk", nil)
	lines := []string{
		line(part(0, 300), "SPARSE", "disk-s001.vmdk"),
		"",
		"  rdonly\t400  Sparse \"sub\\disk-s002.vmdk\"  ",
		"RW 0 FLAT \"empty.vmdk\" 0",
		line(part(700, 800), "SPARSE", "cow.vmdk"),
		"RW 9 ZERO",
		`RDONLY 1000 FLAT "flat.vmdk" 816`, // 7 and 809
		`RW 100 VMFS "flat.vmdk"`,
		`RW 100 FLAT "flat.vmdk" 7 some thing`,
	}
	want := hosted{grainSize: 8, kinds: "ddu"}.disk(part(0, 300), nil)
	want = append(want, hosted{kinds: "dz"}.disk(part(300, 700), nil)...)
	want = append(want, hosted{grainSize: 1, kinds: "ddddu"}.disk(part(700, 800), nil)...)
	want = append(want, make([]byte, 9*sectorSize)...)
	want = append(want, part(809, 1809)...)
	want = append(append(want, make([]byte, 7*sectorSize)...), part(0, 93)...)
	want = append(want, part(0, 100)...)
	testImage(t, write(t, dir, "disk.vmdk", []byte(describe("custom", lines...))), want)
}

// A delta of every kind, on a parent of every kind, with its extents beside it
// in another folder.
func TestDeltas(t *testing.T) {
	base, middle, top := disktest.Mixture(160<<10, 5), disktest.Mixture(160<<10+sectorSize, 6), disktest.Mixture(200<<10, 7)
	half := func(b []byte) ([]byte, []byte) { return b[:100<<10+sectorSize], b[100<<10+sectorSize:] }
	type kind struct {
		name  string
		build func(t *testing.T, dir, parent string, content []byte)
	}
	describeIt := func(parent, createType string, lines ...string) string {
		if parent == "" {
			return describe(createType, lines...)
		}
		return delta(parent, createType, lines...)
	}
	const kinds = "duudduduuu"
	all := []kind{
		{"monolithicSparse", func(t *testing.T, dir, parent string, content []byte) {
			h := hosted{grainSize: 8, kinds: kinds, descriptor: describeIt(parent, "monolithicSparse", line(content, "SPARSE", "x.vmdk"))}
			write(t, dir, "disk.vmdk", h.build(content))
		}},
		{"twoGbMaxExtentSparse", func(t *testing.T, dir, parent string, content []byte) {
			a, b := half(content)
			write(t, dir, "disk-s001.vmdk", hosted{grainSize: 8, kinds: kinds}.build(a))
			write(t, dir, "disk-s002.vmdk", hosted{grainSize: 8, kinds: kinds}.build(b))
			write(t, dir, "disk.vmdk", []byte(describeIt(parent, "twoGbMaxExtentSparse",
				line(a, "SPARSE", "disk-s001.vmdk"), line(b, "SPARSE", "disk-s002.vmdk"))))
		}},
		{"vmfsSparse", func(t *testing.T, dir, parent string, content []byte) {
			write(t, dir, "disk-delta.vmdk", cowd(content, 8, kinds))
			write(t, dir, "disk.vmdk", []byte(describeIt(parent, "vmfsSparse", line(content, "VMFSSPARSE", "disk-delta.vmdk"))))
		}},
		{"seSparse", func(t *testing.T, dir, parent string, content []byte) {
			write(t, dir, "disk-sesparse.vmdk", seSparse(content, kinds))
			write(t, dir, "disk.vmdk", []byte(describeIt(parent, "seSparse", line(content, "SESPARSE", "disk-sesparse.vmdk"))))
		}},
		{"streamOptimized", func(t *testing.T, dir, parent string, content []byte) {
			h := hosted{version: 3, stream: "footer", grainSize: 8, kinds: kinds}
			h.descriptor = describeIt(parent, "streamOptimized", line(content, "SPARSE", "x.vmdk"))
			write(t, dir, "disk.vmdk", h.build(content))
		}},
	}
	disk := func(k kind, content, parent []byte) []byte {
		h := hosted{grainSize: 8, kinds: kinds}
		if k.name != "twoGbMaxExtentSparse" {
			return h.disk(content, parent)
		}
		a, b := half(content)
		pa, pb := half(parent)
		return append(h.disk(a, pa), h.disk(b, pb)...)
	}
	for _, m := range all {
		for _, k := range all {
			t.Run(k.name+" on "+m.name, func(t *testing.T) {
				dir := t.TempDir()
				write(t, filepath.Join(dir, "base"), "disk-flat.vmdk", base)
				write(t, filepath.Join(dir, "base"), "disk.vmdk", []byte(describe("vmfs", line(base, "VMFS", "disk-flat.vmdk"))))
				m.build(t, filepath.Join(dir, "base", "middle"), "../disk.vmdk", middle)
				k.build(t, dir, "base/middle/disk.vmdk", top)
				want := disk(k, top, disk(m, middle, base))
				testImage(t, filepath.Join(dir, "disk.vmdk"), want)
			})
		}
	}
}
