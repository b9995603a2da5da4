package vhdx_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vhdx"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// Images with logical sectors of 4096 bytes. QEMU opens none, so that the
// oracles are an image built by hand, and 7-Zip, in disk/qemu_test.go.

// A chunk of 1 MiB blocks is 32 GiB long where a sector has 4096 bytes: the
// entry after its blocks, that of the sector bitmap, is eight times as far as
// with 512. What the file held before is in no entry.
func TestBATOf4096(t *testing.T) {
	const size = 70 * gib
	built := newImage(size, mib, 4096, nil)
	var data []disk.Extent
	written := []int64{0, 1, 8191, 8192, 32766, 32767, 32768, 40959, 65535, 65536, 71679}
	for _, block := range written {
		built.block(block, 6, bytes.Repeat([]byte{byte(block), byte(block >> 8), 1}, 30))
		data = append(data, disk.Extent{Offset: block * mib, Length: 90})
	}

	f := disktest.CreateFile(t)
	f.Write(bytes.Repeat([]byte{0xee}, 5*mib)) // all of the BAT, and a block
	w, err := vhdx.NewWriter(f, size, 4096, disktest.Extents(data...), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range written {
		if _, err := w.WriteAt(bytes.Repeat([]byte{byte(block), byte(block >> 8), 1}, 30), block*mib); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	for name, file := range map[string]disk.Reader{"built by hand": built, "written": raw(t, f.Name())} {
		for _, block := range written {
			index := block + block/32768
			entry := make([]byte, 8)
			if _, err := file.ReadAt(entry, batAt+8*index); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 3)
			if _, err := file.ReadAt(got, int64(le.Uint64(entry)&^7)); err != nil || le.Uint64(entry)&7 != 6 || !bytes.Equal(got, []byte{byte(block), byte(block >> 8), 1}) {
				t.Errorf("%s: entry %d is %x, which leads to %x, %v: not block %d", name, index, entry, got, err, block)
			}
		}
		for _, index := range []int64{2, 8190, 32768, 32770, 65537, 71682, 80000} {
			entry := make([]byte, 8)
			if _, err := file.ReadAt(entry, batAt+8*index); err != nil || le.Uint64(entry) != 0 {
				t.Errorf("%s: entry %d is %x, %v, and is none of a block that is there", name, index, entry, err)
			}
		}
		img := open(t, file, vhdx.Options{})
		if img.SectorSize() != 4096 || img.Size() != size {
			t.Errorf("%s: %d bytes in sectors of %d", name, img.Size(), img.SectorSize())
		}
		for _, block := range written {
			p := make([]byte, 92)
			want := append(bytes.Repeat([]byte{byte(block), byte(block >> 8), 1}, 30), 0, 0)
			if _, err := img.ReadAt(p, block*mib); err != nil || !bytes.Equal(p, want) {
				t.Errorf("%s: block %d reads as %x, %v", name, block, p, err)
			}
		}
		var found []int64
		for e, err := range disk.Extents(img) {
			if err != nil {
				t.Fatal(err)
			}
			for block := e.Offset / mib; block*mib < e.End(); block++ {
				found = append(found, block)
			}
		}
		if len(found) != len(written) {
			t.Errorf("%s: blocks %v are there, want %v", name, found, written)
		}
	}
}

func TestSectorSizesWeWrite(t *testing.T) {
	for _, sector := range []int64{512, 4096} {
		for _, content := range [][]byte{disktest.Mixture(3*mib+77, 40), disktest.Mixture(2*mib, 41), {1}, nil} {
			f := disktest.CreateFile(t)
			r := disktest.Sparse(content)
			w, err := vhdx.NewWriter(f, r.Size(), sector, disk.Extents(r), id)
			if err != nil {
				t.Fatal(err)
			}
			if err := disk.Copy(t.Context(), w, r, disk.CopyOptions{}); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			// The specification wants whole sectors.
			size := max(sector, (int64(len(content))+sector-1)/sector*sector)
			img := open(t, raw(t, f.Name()), vhdx.Options{})
			if img.SectorSize() != int(sector) {
				t.Errorf("sectors of %d bytes, want %d", img.SectorSize(), sector)
			}
			testContent(t, img, append(bytes.Clone(content), make([]byte, size-int64(len(content)))...))
			b := disktest.ReadFile(t, f.Name())
			if got := b[2*mib+64*kib+32:][:8]; !bytes.Equal(got, le.AppendUint32(le.AppendUint32(nil, uint32(sector)), 4096)) {
				t.Errorf("logical and physical sector size are %x", got)
			}
		}
	}

	for size, want := range map[int64]int64{0: 4096, 1: 4096, 4096: 4096, 4097: 8192, 64 * tib: 64 * tib, 64*tib - 512: 64 * tib} {
		if got, err := vhdx.DiskSize(size, 4096); got != want || err != nil {
			t.Errorf("DiskSize(%d, 4096) = %d, %v, want %d", size, got, err, want)
		}
	}
	for _, sector := range []int64{-512, 0, 1024, 8192} {
		if _, err := vhdx.NewWriter(disktest.CreateFile(t), mib, sector, nil, id); err == nil || !strings.Contains(err.Error(), "512 or 4096") {
			t.Errorf("NewWriter with sectors of %d bytes: %v", sector, err)
		}
	}
}

// Disks of all sizes up to 64 TiB: blocks are of 1 to 8 MiB, and a chunk has 32768
// to 4096 of them.
func TestHugeImagesOf4096(t *testing.T) {
	for _, size := range []int64{8 * tib, 8*tib + 4096, 17 * tib, 64 * tib} {
		f := disktest.CreateFile(t)
		data := []disk.Extent{{Offset: 12345, Length: 10}, {Offset: size / 3, Length: 10}, {Offset: size - 10, Length: 10}}
		w, err := vhdx.NewWriter(f, size, 4096, disktest.Extents(data...), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range data {
			if _, err := w.WriteAt([]byte("0123456789"), e.Offset); err != nil {
				t.Fatal(err)
			}
		}
		img := open(t, raw(t, f.Name()), vhdx.Options{})
		for _, e := range data {
			p := make([]byte, 10)
			if _, err := img.ReadAt(p, e.Offset); err != nil || string(p) != "0123456789" {
				t.Errorf("%d bytes: at %d is %q, %v", size, e.Offset, p, err)
			}
		}
		if n, err := virtual.NextExtent(img, size/2); err != nil || n.Offset < size-8*mib {
			t.Errorf("%d bytes: data at %d, %v", size, n.Offset, err)
		}
		os.Remove(f.Name())
	}
}

// The bits of a sector bitmap stand for sectors of 4096 bytes, and a bitmap for
// 32 GiB.
func TestDifferencingOf4096(t *testing.T) {
	const blockSize = 256 * mib // 128 to a chunk
	base := newImage(33*gib, blockSize, 4096, nil)
	base.block(127, 6, bytes.Repeat([]byte("base"), 8192))
	base.block(128, 6, bytes.Repeat([]byte("base"), 8192))
	child := newImage(33*gib, blockSize, 4096, locator("parent_linkage", "{"+dataGUID+"}", "relative_path", "base.vhdx"))
	child.block(127, 7, bytes.Repeat([]byte("here"), 8192))
	child.block(128, 7, bytes.Repeat([]byte("here"), 8192))
	child.bitmap(0, 127*(blockSize/4096)+1)
	child.bitmap(1, 0, 3)
	var asked []string
	img := open(t, child, vhdx.Options{Folder: folder{map[string]virtual.Reader{"/base.vhdx": base}, "/", &asked}})
	if img.SectorSize() != 4096 {
		t.Errorf("sectors of %d bytes", img.SectorSize())
	}
	for block, want := range map[int64]string{127: "base here base base base", 128: "here base base here base"} {
		var got []string
		for s := range int64(5) {
			p := make([]byte, 4)
			if _, err := img.ReadAt(p, block*blockSize+s*4096+4092); err != nil {
				t.Fatal(err)
			}
			got = append(got, string(p))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("block %d: got %s, want %s", block, s, want)
		}
	}
}
