package vmdk_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/hostfile"
	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/davit-oci/davit/disk/internal/vmdk"
)

const (
	grain = 64 << 10
	span  = 512 * grain // of a grain table
	mib   = 1 << 20
	tib   = 1 << 40
)

func noise(n int, seed byte) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(p)
	return p
}

var kinds = []struct {
	name   string
	create func(f *os.File, size int64, data iter.Seq2[virtual.Extent, error], o vmdk.WriteOptions) (disk.Writer, error)
}{
	{"monolithicSparse", func(f *os.File, size int64, data iter.Seq2[virtual.Extent, error], o vmdk.WriteOptions) (disk.Writer, error) {
		return vmdk.NewWriter(f, size, data, o)
	}},
	{"streamOptimized", func(f *os.File, size int64, _ iter.Seq2[virtual.Extent, error], o vmdk.WriteOptions) (disk.Writer, error) {
		return vmdk.NewStreamFile(f, size, o)
	}},
}

// QEMU reads what we write; see package disk for what we read of it.
func TestWriters(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			f := disktest.CreateFile(t)
			err := disktest.TestWriter(disktest.Target{
				Create: func(size int64, data iter.Seq2[disk.Extent, error]) (disk.Writer, error) {
					return kind.create(f, size, data, vmdk.WriteOptions{Jobs: 3})
				},
				Open: func() (disk.Reader, error) { return bytes.NewReader(disktest.Flat(t, "-f", "vmdk", f.Name())), nil },
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDiskSize(t *testing.T) {
	for _, test := range []struct{ size, want int64 }{
		{0, grain}, // to QEMU, no capacity means something else
		{1, grain},
		{512, grain},
		{grain, grain},
		{grain + 1, 2 * grain},
		{mib, mib},
		{3*mib + 512, 3*mib + grain},
		{1<<40 + 1, 1<<40 + grain},
		{64 * tib, 64 * tib},
	} {
		if got, err := vmdk.DiskSize(test.size); got != test.want || err != nil {
			t.Errorf("DiskSize(%d) = %d, %v, want %d", test.size, got, err, test.want)
		}
	}
	for _, size := range []int64{64*tib + 1, 1<<63 - 1} {
		if got, err := vmdk.DiskSize(size); !errors.Is(err, virtual.ErrUnsupported) {
			t.Errorf("DiskSize(%d) = %d, %v", size, got, err)
		}
		for _, kind := range kinds {
			if _, err := kind.create(disktest.CreateFile(t), size, nil, vmdk.WriteOptions{}); !errors.Is(err, virtual.ErrUnsupported) {
				t.Errorf("%s of %d bytes: %v", kind.name, size, err)
			}
		}
	}
}

// info is what QEMU reads in a descriptor, and the text of it.
func info(t *testing.T, path string) (size int64, createType, cid, text string) {
	t.Helper()
	var v struct {
		VirtualSize int64 `json:"virtual-size"`
		Specific    struct {
			Data struct {
				CID        uint32 `json:"cid"`
				ParentCID  uint32 `json:"parent-cid"`
				CreateType string `json:"create-type"`
			}
		} `json:"format-specific"`
	}
	if err := json.Unmarshal([]byte(disktest.QEMU(t, "qemu-img", "info", "--output=json", "-f", "vmdk", path)), &v); err != nil {
		t.Fatal(err)
	}
	if got := v.Specific.Data.ParentCID; got != 0xffffffff {
		t.Errorf("QEMU reads parent CID %08x", got)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 20*512)
	if _, err := f.ReadAt(b, 512); err != nil {
		t.Fatal(err)
	}
	b, rest, _ := bytes.Cut(b, []byte{0})
	if len(bytes.Trim(rest, "\x00")) > 0 {
		t.Error("something is behind the descriptor")
	}
	return v.VirtualSize, v.Specific.Data.CreateType, fmt.Sprintf("%08x", v.Specific.Data.CID), string(b)
}

func TestWrittenDescriptor(t *testing.T) {
	const gib = 1 << 30
	for _, test := range []struct {
		title string
		size  int64
		o     vmdk.WriteOptions
		want  []string
	}{
		// Geometries as in images of ovftool and ESXi.
		{"30 MiB", 30 * mib, vmdk.WriteOptions{Name: "a disk.vmdk"}, []string{
			`RW 61440 SPARSE "a disk.vmdk"`, `ddb.adapterType = "lsilogic"`, `ddb.geometry.cylinders = "30"`, `ddb.geometry.heads = "64"`, `ddb.geometry.sectors = "32"`}},
		{"1 MiB", mib, vmdk.WriteOptions{Adapter: "lsilogic"}, []string{
			`RW 2048 SPARSE "disk.vmdk"`, `ddb.geometry.cylinders = "1"`, `ddb.geometry.heads = "64"`, `ddb.geometry.sectors = "32"`}},
		{"8 GiB", 8 * gib, vmdk.WriteOptions{Adapter: "buslogic"}, []string{
			`ddb.adapterType = "buslogic"`, `ddb.geometry.cylinders = "1044"`, `ddb.geometry.heads = "255"`, `ddb.geometry.sectors = "63"`}},
		{"1 GiB", gib, vmdk.WriteOptions{Adapter: "legacyESX"}, []string{
			`ddb.adapterType = "legacyESX"`, `ddb.geometry.cylinders = "512"`, `ddb.geometry.heads = "128"`, `ddb.geometry.sectors = "32"`}},
		{"2 GiB", 2 * gib, vmdk.WriteOptions{}, []string{
			`ddb.geometry.cylinders = "261"`, `ddb.geometry.heads = "255"`, `ddb.geometry.sectors = "63"`}},
		{"4 TiB", 4 * tib, vmdk.WriteOptions{}, []string{`RW 8589934592 SPARSE`, `ddb.geometry.cylinders = "65535"`}},
		{"8 GiB at IDE", 8 * gib, vmdk.WriteOptions{Adapter: "ide"}, []string{
			`ddb.adapterType = "ide"`, `ddb.geometry.cylinders = "16383"`, `ddb.geometry.heads = "16"`, `ddb.geometry.sectors = "63"`}},
		{"empty disk", 0, vmdk.WriteOptions{}, []string{`RW 128 SPARSE`, `ddb.geometry.cylinders = "1"`}},
		{"odd size", 5*mib + 1, vmdk.WriteOptions{}, []string{`RW 10368 SPARSE`}},
		{"name with a line of its own", mib, vmdk.WriteOptions{Name: "a\"\nRW 1 FLAT \"/etc/passwd\" 0"}, []string{`RW 2048 SPARSE "a__RW 1 FLAT __etc_passwd_ 0"`}},
		{"name that is not ASCII", mib, vmdk.WriteOptions{Name: "größe\xff\x7f.vmdk"}, []string{`RW 2048 SPARSE "gr__e__.vmdk"`}},
		{"name that is too long", mib, vmdk.WriteOptions{Name: strings.Repeat("x", 20000)}, []string{`RW 2048 SPARSE "` + strings.Repeat("x", 255) + `"`}},
	} {
		for _, kind := range kinds {
			f := disktest.CreateFile(t)
			w, err := kind.create(f, test.size, nil, test.o)
			if err != nil {
				t.Errorf("%s: %v", test.title, err)
				continue
			}
			if err := w.Close(); err != nil {
				t.Errorf("%s: %v", test.title, err)
			}
			size, createType, cid, text := info(t, f.Name())
			if want, _ := vmdk.DiskSize(test.size); size != want || createType != kind.name {
				t.Errorf("%s: QEMU says: %s of %d bytes", test.title, createType, size)
			}
			lines := strings.Split(text, "\n")
			want := append(slices.Clone(test.want), "# Disk DescriptorFile", "version=1", "CID="+cid, "parentCID=ffffffff", `createType="`+kind.name+`"`, "#DDB")
			for _, line := range want {
				if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, line) }) {
					t.Errorf("%s, %s: no line %q in\n%s", test.title, kind.name, line, text)
				}
			}
			if n := strings.Count(text, "\nRW "); n != 1 {
				t.Errorf("%s: %d extents", test.title, n)
			}
		}
	}
	for _, adapter := range []string{"pvscsi", "LSILOGIC", "ide\"\nx = \"", " "} {
		for _, kind := range kinds {
			f := disktest.CreateFile(t)
			f.WriteString("still there")
			if _, err := kind.create(f, mib, nil, vmdk.WriteOptions{Adapter: adapter}); err == nil {
				t.Errorf("%s: adapter %q is fine", kind.name, adapter)
			}
			if b, err := os.ReadFile(f.Name()); string(b) != "still there" && kind.name == "monolithicSparse" {
				t.Errorf("%s: the file has %d bytes, %v", kind.name, len(b), err)
			}
		}
	}
}

// VMware finds out by the CID that the parent of a delta is another one.
func TestContentID(t *testing.T) {
	seen := map[string]bool{}
	for _, kind := range kinds {
		clear(seen)
		for _, size := range []int64{mib, 2 * mib} {
			for id := range byte(3) {
				var again string
				for range 2 {
					f := disktest.CreateFile(t)
					w, err := kind.create(f, size, nil, vmdk.WriteOptions{ID: [16]byte{15: id}})
					if err != nil {
						t.Fatal(err)
					}
					if err := w.Close(); err != nil {
						t.Fatal(err)
					}
					_, _, cid, _ := info(t, f.Name())
					if cid >= "fffffffe" || again != "" && again != cid {
						t.Errorf("CID %s, before %s", cid, again)
					}
					again = cid
				}
				if seen[again] {
					t.Errorf("%d bytes, ID %d: CID %s is that of another disk", size, id, again)
				}
				seen[again] = true
			}
		}
	}
}

// metadata is a monolithicSparse image, up to its grains, by its own header.
type metadata struct {
	head     []byte
	rgd, gd  []uint32
	grains   int64    // bytes
	rgt, gts []uint32 // all tables, one after another
}

func readMetadata(t *testing.T, f *os.File, tables int64) (m metadata) {
	t.Helper()
	read := func(off, n int64) []byte {
		t.Helper()
		b := make([]byte, n)
		if _, err := f.ReadAt(b, off); err != nil {
			t.Fatal(err)
		}
		return b
	}
	entries := func(b []byte) (all []uint32) {
		for ; len(b) > 0; b = b[4:] {
			all = append(all, binary.LittleEndian.Uint32(b))
		}
		return all
	}
	m.head = read(0, 512)
	le := binary.LittleEndian
	m.rgd = entries(read(int64(le.Uint64(m.head[48:]))*512, 4*tables))
	m.gd = entries(read(int64(le.Uint64(m.head[56:]))*512, 4*tables))
	m.grains = int64(le.Uint64(m.head[64:])) * 512
	for n := range tables {
		m.rgt = append(m.rgt, entries(read(int64(m.rgd[n])*512, 2048))...)
		m.gts = append(m.gts, entries(read(int64(m.gd[n])*512, 2048))...)
	}
	return m
}

func TestHostedSparseExtent(t *testing.T) {
	f := disktest.CreateFile(t)
	// What no table is written over must not show.
	if _, err := f.Write(noise(mib, 1)); err != nil {
		t.Fatal(err)
	}
	const size = 4*span + 2*mib
	data := []virtual.Extent{{Offset: 5*grain + 1000, Length: grain}, {Offset: span - 1, Length: 2}, {Offset: 3*span + grain, Length: 3 * grain}, {Offset: size - 10, Length: 10}}
	w, err := vmdk.NewWriter(f, size, disktest.Extents(data...), vmdk.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m := readMetadata(t, f, 5)

	le := binary.LittleEndian
	want := append([]byte("KDMV"), make([]byte, 512-4)...)
	le.PutUint32(want[4:], 1)          // version
	le.PutUint32(want[8:], 3)          // new line test, redundant tables
	le.PutUint64(want[12:], size/512)  // capacity
	le.PutUint64(want[20:], 128)       // grainSize
	le.PutUint64(want[28:], 1)         // descriptorOffset
	le.PutUint64(want[36:], 20)        // descriptorSize
	le.PutUint32(want[44:], 512)       // numGTEsPerGT
	le.PutUint64(want[48:], 21)        // rgdOffset
	le.PutUint64(want[56:], 21+1+5*4)  // gdOffset
	le.PutUint64(want[64:], 128)       // overHead
	copy(want[73:], "\n \r\n\x00\x00") // compressAlgorithm
	if !bytes.Equal(m.head, want) {
		t.Errorf("header\n%x, want\n%x", m.head, want)
	}
	for n := range uint32(5) {
		if m.rgd[n] != 22+4*n || m.gd[n] != 43+4*n {
			t.Errorf("directories have %d, %d at %d", m.rgd[n], m.gd[n], n)
		}
	}
	wantEntries := make([]uint32, 5*512)
	for place, g := range []int64{5, 6, 511, 512, 3*512 + 1, 3*512 + 2, 3*512 + 3, size/grain - 1} {
		wantEntries[g] = uint32(128 + 128*place)
	}
	if !slices.Equal(m.gts, wantEntries) || !slices.Equal(m.rgt, wantEntries) {
		t.Error("other grain tables")
	}

	fill(t, w, data)
	wantFilled(t, f.Name(), size, data)

	// Once more: the file of a writer that was killed.
	before, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vmdk.NewWriter(f, size, disktest.Extents(data...), vmdk.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(before, after) {
		t.Errorf("a new writer changes the image, %v", err)
	}
}

// A large disk costs what it holds, and its directories.
func TestLargeDisks(t *testing.T) {
	for _, test := range []struct{ size, most int64 }{
		{tib, 2 * mib},
		{64 * tib, 17 * mib},
	} {
		f := disktest.CreateFile(t)
		var data []virtual.Extent
		for n := range int64(8) {
			data = append(data, virtual.Extent{Offset: test.size / 8 * n, Length: 512})
		}
		w, err := vmdk.NewWriter(f, test.size, disktest.Extents(data...), vmdk.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		fill(t, w, data)
		used := int64(0)
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		for off := int64(0); ; {
			start, n, err := hostfile.NextData(f, off, info.Size())
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			used, off = used+n, start+n
		}
		if used > test.most {
			t.Errorf("%d bytes: the file has %d bytes of data", test.size, used)
		}
		wantFilled(t, f.Name(), test.size, data)
	}
}

// fill writes 1s to the first extent, 2s to the second.
func fill(t *testing.T, w disk.Writer, data []virtual.Extent) {
	t.Helper()
	for n, e := range data {
		if _, err := w.WriteAt(bytes.Repeat([]byte{byte(n + 1)}, int(e.Length)), e.Offset); err != nil {
			t.Fatal(err)
		}
	}
}

// wantFilled asks QEMU for the data, and for zeros before and after them.
// qemu-img would look at every grain of a large disk.
func wantFilled(t *testing.T, path string, size int64, data []virtual.Extent) {
	t.Helper()
	args := []string{"qemu-io", "-r", "-f", "vmdk"}
	read := func(pattern int, from, to int64) {
		if from < to {
			args = append(args, "-c", fmt.Sprintf("read -P %d %d %d", pattern, from, to-from))
		}
	}
	end := int64(0)
	for n, e := range data {
		read(0, max(end, e.Offset-span), e.Offset)
		read(n+1, e.Offset, e.End())
		read(0, e.End(), min(e.End()+grain, size))
		end = min(e.End()+grain, size)
	}
	if out := disktest.QEMU(t, append(args, path)...); strings.Contains(out, "failed") {
		t.Errorf("%d bytes: QEMU reads other content:\n%s", size, out)
	}
}

func TestTooMuchData(t *testing.T) {
	f := disktest.CreateFile(t)
	f.WriteString("still there")
	_, err := vmdk.NewWriter(f, 4*tib, disktest.Extents(virtual.Extent{Offset: tib, Length: 2 * tib}), vmdk.WriteOptions{})
	if !errors.Is(err, virtual.ErrUnsupported) {
		t.Errorf("2 TiB of data: %v", err)
	}
	if b, err := os.ReadFile(f.Name()); string(b) != "still there" {
		t.Errorf("the file has %d bytes, %v", len(b), err)
	}
}
