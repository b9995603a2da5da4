package vhdx_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vhdx"
)

var id = [16]byte{0: 0xd1, 1: 0x5c, 15: 1}

func check(t *testing.T, f *os.File) {
	t.Helper()
	disktest.QEMU(t, "qemu-img", "check", "-q", "-f", "vhdx", f.Name())
}

func write(t *testing.T, f *os.File, content []byte) {
	t.Helper()
	r := disktest.Sparse(content)
	w, err := vhdx.NewWriter(f, r.Size(), 512, disk.Extents(r), id)
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.Copy(t.Context(), w, r, disk.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestQEMUReadsWhatWeWrite(t *testing.T) {
	for name, content := range map[string][]byte{
		"mixture":    disktest.Mixture(6*mib, 20),
		"odd size":   disktest.Mixture(3*mib+77, 21),
		"empty disk": make([]byte, 2*mib),
		"no bytes":   nil,
		"one byte":   {1},
		"one block":  disktest.Mixture(mib, 22),
		"a bit more": disktest.Mixture(mib+1, 23),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := disktest.CreateFile(t)
			write(t, f, content)
			check(t, f)
			size, err := vhdx.DiskSize(int64(len(content)), 512)
			if err != nil {
				t.Fatal(err)
			}
			want := append(bytes.Clone(content), make([]byte, size-int64(len(content)))...)
			if !bytes.Equal(disktest.Flat(t, "-f", "vhdx", f.Name()), want) {
				t.Error("QEMU reads something else")
			}
			// A product that writes to it finds all that it needs.
			disktest.QEMU(t, "qemu-io", "-t", "unsafe", "-f", "vhdx", "-c", "write -P 7 0 512", f.Name())
			copy(want, bytes.Repeat([]byte{7}, 512))
			if !bytes.Equal(disktest.Flat(t, "-f", "vhdx", f.Name()), want) {
				t.Error("QEMU reads something else than it wrote")
			}
			testContent(t, open(t, raw(t, f.Name()), vhdx.Options{}), want)
		})
	}
}

// One disk with one ID is one file, over whatever the file held, and blocks are
// in the order of the disk. Another ID changes what shall be unique.
func TestImagesAreDeterministic(t *testing.T) {
	content := disktest.Mixture(3*mib+4096, 24)
	f := disktest.CreateFile(t)
	write(t, f, content)
	want := disktest.ReadFile(t, f.Name())
	if !bytes.Equal(want[4*mib:][:len(content)], content) {
		t.Error("blocks are in no order, or not where they were")
	}
	for _, old := range [][]byte{bytes.Repeat([]byte{0xee}, 9*mib), want[:5*mib], disktest.Mixture(2*mib, 25)} {
		f := disktest.CreateFile(t)
		f.Write(old)
		write(t, f, content)
		if !bytes.Equal(disktest.ReadFile(t, f.Name()), want) {
			t.Errorf("other bytes over a file of %d bytes", len(old))
		}
	}

	id := id
	id[3]++
	w, err := vhdx.NewWriter(f, int64(len(content)), 512, disk.Extents(bytes.NewReader(content)), id)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	got := disktest.ReadFile(t, f.Name())
	for what, r := range map[string][2]int{
		"FileWriteGuid": {128*kib + 16, 16}, "DataWriteGuid": {128*kib + 32, 16}, "Virtual Disk ID": {2*mib + 64*kib + 16, 16},
	} {
		if bytes.Equal(got[r[0]:][:r[1]], want[r[0]:][:r[1]]) {
			t.Errorf("%s is the same", what)
		}
	}
	if !bytes.Equal(got[2*mib+64*kib+16:][:16], id[:]) {
		t.Error("the Virtual Disk ID is another")
	}
	if bytes.Equal(got[128*kib+16:][:16], got[128*kib+32:][:16]) {
		t.Error("FileWriteGuid and DataWriteGuid are the same")
	}
}

// After kill -9, the next writer reads what the last one wrote, and nothing
// that was there before either shows outside of the data.
func TestOldFiles(t *testing.T) {
	const size = 5 * mib
	data := []disk.Extent{{Offset: 100, Length: 200}, {Offset: mib + 4096, Length: mib}, {Offset: 4*mib + 512, Length: 10}}
	extents := disktest.Extents(data...)
	f := disktest.CreateFile(t)
	f.Write(bytes.Repeat([]byte{0xee}, 7*mib))
	want := make([]byte, size)
	for _, e := range data {
		copy(want[e.Offset:e.End()], bytes.Repeat([]byte{0xee}, int(e.Length)))
	}
	copy(want[4*mib+512:4*mib+522], make([]byte, 10)) // the file ended before it
	for round := range 3 {
		w, err := vhdx.NewWriter(f, size, 512, extents, id)
		if err != nil {
			t.Fatal(err)
		}
		testContent(t, w, want)
		testContent(t, open(t, raw(t, f.Name()), vhdx.Options{}), want)
		p := bytes.Repeat([]byte{byte(round + 1)}, 5000)
		if _, err := w.WriteAt(p, mib+10000); err != nil {
			t.Fatal(err)
		}
		copy(want[mib+10000:], p)
		if _, err := w.WriteAt(p, 3*mib); err == nil {
			t.Error("a write outside of the data is taken")
		}
	}
	check(t, f)
}

// The entries of a disk's last blocks may fill the BAT to its end. What comes
// after it stays.
func TestOldDataBehindTheBAT(t *testing.T) {
	const size = 131040 * mib
	f := disktest.CreateFile(t)
	for _, want := range []string{"\x00\x00\x00", "old", "old"} {
		w, err := vhdx.NewWriter(f, size, 512, func(yield func(disk.Extent, error) bool) {
			_ = yield(disk.Extent{Offset: 0, Length: 3}, nil) && yield(disk.Extent{Offset: size - 1, Length: 1}, nil)
		}, id)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := f.Stat(); err != nil || info.Size() != 6*mib {
			t.Fatalf("a file of %d bytes, %v: the BAT has not 1 MiB", info.Size(), err)
		}
		p := make([]byte, 3)
		if _, err := w.ReadAt(p, 0); err != nil || string(p) != want {
			t.Errorf("there is %q, %v, want %q", p, err, want)
		}
		if _, err := w.WriteAt([]byte("old"), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// What no reader here looks at, but Hyper-V may.
func TestFields(t *testing.T) {
	f := disktest.CreateFile(t)
	write(t, f, disktest.Mixture(mib, 26))
	b := disktest.ReadFile(t, f.Name())
	const header, regions, table, items = 128 * kib, 192 * kib, 2 * mib, 2*mib + 64*kib
	required, virtualDisk := []byte{4, 0, 0, 0}, []byte{6, 0, 0, 0}
	for name, want := range map[string]struct {
		at    int
		bytes []byte
	}{
		"Creator":                      {8, []byte("d\x00a\x00v\x00i\x00t\x00\x00\x00")},
		"LogGuid":                      {header + 48, make([]byte, 16)},
		"LogVersion, Version":          {header + 64, []byte{0, 0, 1, 0}},
		"LogLength, LogOffset":         {header + 68, []byte{0, 0, 0x10, 0, 0, 0, 0x10, 0, 0, 0, 0, 0}},
		"BAT is required":              {regions + 16 + 28, []byte{1, 0, 0, 0}},
		"metadata is required":         {regions + 48 + 28, []byte{1, 0, 0, 0}},
		"File Parameters' flags":       {table + 32 + 24, required},
		"Virtual Disk Size's flags":    {table + 2*32 + 24, virtualDisk},
		"Virtual Disk ID's flags":      {table + 3*32 + 24, virtualDisk},
		"Logical Sector Size's flags":  {table + 4*32 + 24, virtualDisk},
		"Physical Sector Size's flags": {table + 5*32 + 24, virtualDisk},
		"File Parameters":              {items, []byte{0, 0, 0x10, 0, 0, 0, 0, 0}},
		"sector sizes":                 {items + 32, []byte{0, 2, 0, 0, 0, 0x10, 0, 0}},
		"sector bitmap blocks":         {3*mib + 8, make([]byte, mib-8)},
	} {
		if got := b[want.at:][:len(want.bytes)]; !bytes.Equal(got, want.bytes) {
			t.Errorf("%s: got %x", name, got)
		}
	}
	if !bytes.Equal(b[192*kib:256*kib], b[256*kib:320*kib]) {
		t.Error("the region tables differ")
	}
	for _, at := range []int{header + 16, header + 32} {
		if b[at+7]>>4 != 8 || b[at+8]>>6 != 2 {
			t.Errorf("GUID %x is of no version that somebody made himself", b[at:at+16])
		}
	}
}

// Disks up to 64 TiB, with little data, take little space, time and memory.
func TestHugeImages(t *testing.T) {
	for _, size := range []int64{8 * tib, 8*tib + 512, 64 * tib} {
		f := disktest.CreateFile(t)
		data := []disk.Extent{{Offset: 12345, Length: 10}, {Offset: size / 3, Length: 10}, {Offset: size - 10, Length: 10}}
		before := disktest.Allocated()
		w, err := vhdx.NewWriter(f, size, 512, disktest.Extents(data...), id)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range data {
			if _, err := w.WriteAt([]byte("0123456789"), e.Offset); err != nil {
				t.Fatal(err)
			}
		}
		img := open(t, raw(t, f.Name()), vhdx.Options{})
		total := int64(0)
		for e, err := range disk.Extents(img) {
			if err != nil {
				t.Fatal(err)
			}
			total += e.Length
		}
		if total < 30 || total > 30*mib {
			t.Errorf("%d bytes: extents of %d bytes", size, total)
		}
		for _, e := range data {
			p := make([]byte, 12)
			n, err := img.ReadAt(p, e.Offset-1)
			if err != nil && !errors.Is(err, io.EOF) || string(p[:min(n, 11)]) != "\x000123456789" {
				t.Errorf("%d bytes: read %q, %v", size, p, err)
			}
		}
		if n := disktest.Allocated() - before; disktest.KnowsHoles(t) && n > 16<<20 {
			t.Errorf("%d bytes: allocated %d MiB", size, n>>20)
		}
		if info, err := f.Stat(); err != nil || info.Size() > 100*mib {
			t.Errorf("%d bytes: a file of %d bytes, %v", size, info.Size(), err)
		}
		check(t, f)
		os.Remove(f.Name())
	}

	for size, want := range map[int64]int64{0: 512, 1: 512, 512: 512, 513: 1024, 64 * tib: 64 * tib, 64*tib - 1: 64 * tib} {
		if got, err := vhdx.DiskSize(size, 512); got != want || err != nil {
			t.Errorf("DiskSize(%d) = %d, %v, want %d", size, got, err, want)
		}
	}
	if _, err := vhdx.DiskSize(64*tib+1, 512); err == nil {
		t.Error("DiskSize takes more than 64 TiB")
	}
	if _, err := vhdx.NewWriter(disktest.CreateFile(t), 64*tib+1, 512, nil, id); err == nil {
		t.Error("NewWriter takes more than 64 TiB")
	}
}
