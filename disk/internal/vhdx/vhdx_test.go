package vhdx_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vhdx"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// raw opens a file without looking into it; it knows its holes.
func raw(t *testing.T, path string) *disk.Image {
	t.Helper()
	f, err := disk.Open(path, disk.OpenOptions{Format: disk.Raw})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func open(t *testing.T, file virtual.Reader, o vhdx.Options) *vhdx.Image {
	t.Helper()
	i, err := vhdx.Open(file, o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func testContent(t *testing.T, r disk.Reader, content []byte) {
	t.Helper()
	if err := disktest.TestReader(r, content); err != nil {
		t.Error(err)
	}
}

// wantRefusal wants an error of a kind that tells these words.
func wantRefusal(t *testing.T, err, kind error, words string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), words) {
		t.Errorf("got error %v, want %v that tells %q", err, kind, words)
	}
}

func TestQEMUImages(t *testing.T) {
	content := disktest.Mixture(2<<20+3*512, 1)
	var cases []string
	for _, sub := range []string{"dynamic", "fixed"} {
		for size := 1; size <= 256; size *= 2 {
			cases = append(cases, fmt.Sprintf("subformat=%s,block_size=%dM", sub, size))
		}
		cases = append(cases,
			"block_state_zero=on,subformat="+sub, "block_state_zero=off,subformat="+sub,
			"log_size=1M,subformat="+sub, "log_size=5M,block_size=1M,subformat="+sub)
	}
	for _, c := range cases {
		t.Run(c, func(t *testing.T) {
			t.Parallel()
			path := tempFile(t)
			disktest.Make(t, path, "vhdx", content, "-o", c)
			testContent(t, open(t, raw(t, path), vhdx.Options{}), content)
		})
	}
}

func TestQEMUEdits(t *testing.T) {
	const size = 5<<20 + 512
	for seed, o := range []string{
		"block_size=1M", "block_size=2M", "block_size=256M", "block_size=1M,block_state_zero=off", "block_size=1M,subformat=fixed",
		"block_size=1M,log_size=3M",
	} {
		t.Run(o, func(t *testing.T) {
			t.Parallel()
			path := tempFile(t)
			disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "vhdx", "-o", o, path, fmt.Sprint(size))
			disktest.Edit(t, path, "vhdx", size, uint64(seed))
			testContent(t, open(t, raw(t, path), vhdx.Options{}), disktest.Flat(t, "-f", "vhdx", path))
		})
	}
}

// Every state of a block, in disks whose end is not that of a block.
func TestBlockStates(t *testing.T) {
	for sector, blockSize := range map[int64]int64{512: mib, 4096: 2 * mib} {
		size := 5*blockSize + 3*sector
		data := disktest.Mixture(int(blockSize), 2)
		i := newImage(size, blockSize, sector, nil)
		i.block(1, 1, nil)
		i.block(2, 2, data) // zeros, whatever lies there
		i.block(3, 3, data)
		i.block(4, 6, data)
		i.block(5, 6, data)
		i.memory.size -= blockSize - 3*sector // nobody needs the rest
		content := make([]byte, size)
		copy(content[4*blockSize:], data)
		copy(content[5*blockSize:], data)
		testContent(t, open(t, i, vhdx.Options{}), content)
		if sector == 512 {
			i.memory.size += blockSize - 3*sector // QEMU needs it
			if !bytes.Equal(disktest.Flat(t, "-f", "vhdx", i.save(t, tempFile(t))), content) {
				t.Error("QEMU reads something else")
			}
		}
	}
}

// A chunk of 1 MiB blocks is 4 GiB long, and has an entry after its blocks that
// is none of a block.
func TestChunks(t *testing.T) {
	i := newImage(9*gib, mib, 512, nil)
	for _, n := range []int64{0, 4095, 4096, 4097, 8192, 9215} {
		i.block(n, 6, bytes.Repeat([]byte{byte(n), byte(n >> 8), 1}, 30))
	}
	img := open(t, i, vhdx.Options{})
	var got []string
	for e, err := range disk.Extents(img) {
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 3)
		if _, err := img.ReadAt(p, e.Offset); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(e.Offset/mib, ":", int(p[0])|int(p[1])<<8, ":", e.Length/kib))
	}
	want := "0:0:4 4095:4095:4 4096:4096:4 4097:4097:4 8192:8192:4 9215:9215:4"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got blocks %s, want %s", s, want)
	}
	path := i.save(t, tempFile(t))
	out := filepath.Join(t.TempDir(), "flat.raw")
	disktest.QEMU(t, "qemu-img", "convert", "-t", "unsafe", "-f", "vhdx", "-O", "raw", path, out)
	r := raw(t, out)
	for _, n := range []int64{0, 4094, 4095, 4096, 4097, 4098, 8190, 8191, 8192, 8193, 9214, 9215} {
		p, q := make([]byte, 300), make([]byte, 300)
		if _, err := img.ReadAt(p, n*mib-min(100, n*mib)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReadAt(q, n*mib-min(100, n*mib)); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, q) {
			t.Errorf("block %d: QEMU reads something else", n)
		}
	}
}

func TestHeaders(t *testing.T) {
	content := disktest.Mixture(mib, 3)
	for name, test := range map[string]struct {
		change func(i *image)
		kind   error // nil: reads
		words  string
	}{
		"as they are":            {func(*image) {}, nil, ""},
		"first is current":       {func(i *image) { i.header(0, func(b []byte) { le.PutUint64(b[8:], 1<<63) }) }, nil, ""},
		"first is broken":        {func(i *image) { i.patch(64*kib+5, []byte{1}) }, nil, ""},
		"second is broken":       {func(i *image) { i.patch(128*kib+4000, []byte{1}) }, nil, ""},
		"second has no name":     {func(i *image) { i.header(1, func(b []byte) { b[0] = 'H' }) }, nil, ""},
		"both are the same":      {func(i *image) { i.header(0, func(b []byte) { le.PutUint64(b[8:], 2) }) }, nil, ""},
		"same number, different": {func(i *image) { i.header(0, func(b []byte) { le.PutUint64(b[8:], 2); b[16] = 7 }) }, disk.ErrCorrupt, "sequence number 2"},
		"both are broken": {func(i *image) {
			i.patch(64*kib+5, []byte{1})
			i.patch(128*kib+5, []byte{1})
		}, disk.ErrCorrupt, "neither header"},
		"version 2":            {func(i *image) { i.header(1, func(b []byte) { b[66] = 2 }) }, disk.ErrUnsupported, "version 2"},
		"version 2, not now":   {func(i *image) { i.header(0, func(b []byte) { b[66] = 2 }) }, nil, ""},
		"log version 1, empty": {func(i *image) { i.header(1, func(b []byte) { b[64] = 1 }) }, nil, ""},
		"no log":               {func(i *image) { i.header(1, func(b []byte) { clear(b[68:80]) }) }, nil, ""},
		"log version 1": {func(i *image) {
			i.header(1, func(b []byte) { b[64] = 1; b[48] = 1 })
		}, disk.ErrUnsupported, "log of version 1"},
		"not VHDX":               {func(i *image) { i.patch(0, []byte("VHDX")) }, disk.ErrCorrupt, "not a VHDX"},
		"first table is broken":  {func(i *image) { i.patch(192*kib+9, []byte{1}) }, nil, ""},
		"second table is broken": {func(i *image) { i.patch(256*kib+9, []byte{1}) }, nil, ""},
		"both tables are broken": {func(i *image) {
			i.patch(192*kib+9, []byte{1})
			i.patch(256*kib+9, []byte{1})
		}, disk.ErrCorrupt, "neither region table"},
		"a required region": {func(i *image) {
			i.regions(0, func(b []byte) {
				b[8] = 3
				copy(b[80:], entry32(guid("00112233-4455-6677-8899-aabbccddeeff"), 8*mib, mib, 1))
			})
		}, disk.ErrUnsupported, "{00112233-4455-6677-8899-aabbccddeeff}"},
		"another region": {func(i *image) {
			i.regions(0, func(b []byte) {
				b[8] = 3
				copy(b[80:], entry32(guid("00112233-4455-6677-8899-aabbccddeeff"), 8*mib, mib, 0))
			})
		}, nil, ""},
		"two BATs": {func(i *image) {
			i.regions(0, func(b []byte) { b[8] = 3; copy(b[80:], b[16:48]) })
		}, disk.ErrCorrupt, "two regions"},
		"no BAT":                {func(i *image) { i.regions(0, func(b []byte) { b[8] = 1; copy(b[16:], b[48:80]) }) }, disk.ErrCorrupt, "no region {2dc2"},
		"no metadata":           {func(i *image) { i.regions(0, func(b []byte) { b[8] = 1 }) }, disk.ErrCorrupt, "no region {8b7c"},
		"2048 regions":          {func(i *image) { i.regions(0, func(b []byte) { le.PutUint32(b[8:], 2048) }) }, disk.ErrCorrupt, "2048"},
		"BAT in headers":        {func(i *image) { i.regions(0, func(b []byte) { le.PutUint64(b[32:], 0) }) }, disk.ErrCorrupt, "0x0"},
		"BAT not aligned":       {func(i *image) { i.regions(0, func(b []byte) { b[32] = 8 }) }, disk.ErrCorrupt, "0x300008"},
		"BAT far away":          {func(i *image) { i.regions(0, func(b []byte) { b[39] = 0xff }) }, disk.ErrCorrupt, "0xff"},
		"no place for a BAT":    {func(i *image) { i.regions(0, func(b []byte) { copy(b[32:40], b[64:72]) }) }, disk.ErrCorrupt, "overlap"},
		"BAT not there":         {func(i *image) { i.regions(0, func(b []byte) { b[37] = 0x10 }) }, disk.ErrCorrupt, "the file ends at"},
		"BAT too short":         {func(i *image) { i.regions(0, func(b []byte) { clear(b[40:44]) }) }, disk.ErrCorrupt, "BAT of 0 bytes"},
		"metadata of no length": {func(i *image) { i.regions(0, func(b []byte) { clear(b[72:76]) }) }, disk.ErrCorrupt, "region of 0 bytes"},
		"no metadata there":     {func(i *image) { i.regions(0, func(b []byte) { le.PutUint64(b[64:], 1*mib) }) }, disk.ErrCorrupt, "no table"},
	} {
		t.Run(name, func(t *testing.T) { testChanged(t, content, test.change, test.kind, test.words) })
	}
}

// testChanged opens an image of one block after a change to it, and wants the
// content, or a refusal if kind is not nil.
func testChanged(t *testing.T, content []byte, change func(*image), kind error, words string) {
	t.Helper()
	i := newImage(mib, mib, 512, nil)
	i.block(0, 6, content)
	change(i)
	img, err := vhdx.Open(i, vhdx.Options{})
	if kind != nil {
		wantRefusal(t, err, kind, words)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	testContent(t, img, content)
}

func TestMetadata(t *testing.T) {
	// Items in the order of newImage.
	const (
		id, logical, physical, size, parameters = 0, 1, 2, 3, 4
	)
	table := func(item int, change func(b []byte)) func(i *image) {
		return func(i *image) { i.edit(metadataAt+32+32*int64(item), 32, change) }
	}
	value := func(item int, b ...byte) func(i *image) {
		return func(i *image) {
			var at int64
			table(item, func(b []byte) { at = int64(le.Uint32(b[16:])) })(i)
			i.patch(metadataAt+at, b)
		}
	}
	unknown := func(flags byte) func(i *image) {
		return func(i *image) {
			i.patch(metadataAt+10, []byte{6})
			i.patch(metadataAt+32+5*32, append(guid("00112233-4455-6677-8899-aabbccddeeff"), 0, 0, 2, 0, 1, 0, 0, 0, flags))
		}
	}
	for name, test := range map[string]struct {
		change func(i *image)
		kind   error
		words  string
	}{
		"a required item": {unknown(4), disk.ErrUnsupported, "{00112233-4455-6677-8899-aabbccddeeff}"},
		"another item":    {unknown(3), nil, ""},
		"a user's item":   {table(id, func(b []byte) { b[24] = 1 }), disk.ErrCorrupt, "{beca12ab"},
		"a user's item of the same ID": {func(i *image) {
			unknown(1)(i)
			i.patch(metadataAt+32+5*32, guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8"))
		}, nil, ""},
		"two sizes": {func(i *image) {
			unknown(6)(i)
			i.patch(metadataAt+32+5*32, guid("2FA54224-CD1B-4876-B211-5DBED83BF4B8"))
		}, disk.ErrCorrupt, "two items {2fa5"},
		"no items":         {func(i *image) { i.patch(metadataAt+10, []byte{0}) }, disk.ErrCorrupt, "0 bytes"},
		"2048 items":       {func(i *image) { i.patch(metadataAt+10, []byte{0, 8}) }, disk.ErrCorrupt, "2047"},
		"no physical size": {table(physical, func(b []byte) { b[0]++; b[24] = 0 }), disk.ErrCorrupt, "{cda348c7"},
		"item in the table": {table(size, func(b []byte) { le.PutUint32(b[16:], 65535) }), disk.ErrCorrupt,
			"at 65535 of the region"},
		"item after the region": {table(size, func(b []byte) { le.PutUint32(b[16:], mib-7) }), disk.ErrCorrupt, "of the region"},
		"item of 4 GiB":         {table(size, func(b []byte) { le.PutUint32(b[20:], 1<<32-1) }), disk.ErrCorrupt, "of the region"},
		"item of more than 1 MiB": {func(i *image) {
			all := make([]byte, mib)
			i.ReadAt(all, metadataAt)
			i.patch(8*mib, all)
			i.memory.size = 12 * mib
			i.regions(0, func(b []byte) { le.PutUint64(b[64:], 8*mib); le.PutUint32(b[72:], 4*mib) })
			i.edit(8*mib+32+32*size, 32, func(b []byte) { le.PutUint32(b[20:], mib+1) })
		}, disk.ErrCorrupt, "1048577 bytes at"},
		"item of 9 bytes":      {table(size, func(b []byte) { b[20]++ }), disk.ErrCorrupt, "9 bytes, not 8"},
		"blocks of 512 KiB":    {value(parameters, 0, 0, 8, 0), disk.ErrCorrupt, "524288"},
		"blocks of 3 MiB":      {value(parameters, 0, 0, 0x30, 0), disk.ErrCorrupt, "blocks"},
		"blocks of 512 MiB":    {value(parameters, 0, 0, 0, 0x20), disk.ErrCorrupt, "blocks"},
		"sectors of 1024":      {value(logical, 0, 4), disk.ErrCorrupt, "sectors of 1024"},
		"half a sector":        {value(size, 0, 1), disk.ErrCorrupt, "virtual disk size"},
		"65 TiB":               {value(size, 0, 0, 0, 0, 0, 65), disk.ErrCorrupt, "virtual disk size"},
		"no space in the BAT":  {value(size, 0, 0, 0, 0, 0, 1), disk.ErrCorrupt, "BAT of"},
		"parent not located":   {value(parameters, 0, 0, 0x10, 0, 2), disk.ErrCorrupt, "parent locator of 0 bytes"},
		"all blocks allocated": {value(parameters, 0, 0, 0x10, 0, 1), nil, ""},
	} {
		t.Run(name, func(t *testing.T) { testChanged(t, disktest.Mixture(mib, 4), test.change, test.kind, test.words) })
	}
}

// What is wrong with a block is told by who reads it, and by nobody else.
func TestBlockErrors(t *testing.T) {
	for name, test := range map[string]struct {
		entry uint64
		words string
	}{
		"reserved state 4":     {4, "reserved state 4"},
		"reserved state 5":     {5, "reserved state 5"},
		"partly, of no parent": {4<<20 | 7, "no parent"},
		"in the header":        {6, "0x0"},
		"in the BAT":           {batAt | 6, "something else"},
		"in the metadata":      {metadataAt | 6, "something else"},
		"in the log":           {logAt | 6, "something else"},
		"beyond the file":      {1<<30 | 6, "the file ends"},
		"half in the file":     {5<<20 | 6, "the file ends"},
		"far away":             {0xffffffff_fff00000 | 6, "0xfffffffffff00000"},
	} {
		i := newImage(3*mib, mib, 512, nil) // ends at 4 MiB
		i.block(0, 6, []byte{1})            // at 4 MiB
		i.memory.size += mib / 2
		i.entry(1, test.entry)
		img := open(t, i, vhdx.Options{})
		p := make([]byte, 10)
		for _, off := range []int64{0, 2 * mib} {
			if _, err := img.ReadAt(p, off); err != nil {
				t.Errorf("%s: reading at %d: %v", name, off, err)
			}
		}
		_, err := img.ReadAt(p, mib-5)
		wantRefusal(t, err, disk.ErrCorrupt, test.words)
		wantRefusal(t, err, disk.ErrCorrupt, "disk offset 0x100000")
		if _, err := img.NextExtent(mib); err == nil {
			t.Errorf("%s: NextExtent knows what is there", name)
		}
	}
}

// A folder is what a differencing image may open.
type folder struct {
	files map[string]virtual.Reader // by absolute names
	dir   string
	asked *[]string
}

func (f folder) Parent(name string) (virtual.Reader, virtual.Folder, error) {
	*f.asked = append(*f.asked, name)
	if path.IsAbs(name) {
		return nil, nil, fmt.Errorf("%w: %q", virtual.ErrBackingFile, name)
	}
	name = path.Join(f.dir, name)
	file, ok := f.files[name]
	if !ok {
		return nil, nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	return file, folder{f.files, path.Dir(name), f.asked}, nil
}

func (folder) Extent(string) (virtual.Reader, error) { panic("no VHDX image has one") }
func (folder) NamesIn(string) ([]string, error)      { panic("no VHDX image needs them") }

func TestDifferencing(t *testing.T) {
	linkage := "{" + dataGUID + "}"
	for _, sector := range []int64{512, 4096} {
		// The grandparent is shorter, the parent has other blocks.
		a, b, c := disktest.Mixture(4*mib, 5), disktest.Mixture(6*mib, 6), disktest.Mixture(6*mib, 7)
		base := newImage(3*mib+sector, mib, sector, nil)
		base.block(0, 6, a[:mib])
		base.block(1, 6, a[mib:2*mib])
		base.block(3, 6, a[3*mib:4*mib]) // more than the disk has
		content := make([]byte, 5*mib+3*sector)
		copy(content, a[:2*mib])
		copy(content[3*mib:], a[3*mib:3*mib+sector])

		parent := newImage(5*mib+3*sector, 2*mib, sector, locator("parent_linkage", linkage, "relative_path", `..\base.vhdx`))
		parent.block(0, 7, b[:2*mib])
		parent.block(1, 3, nil) // unmapped: zeros, not the parent's
		parent.block(2, 7, b[4*mib:6*mib])
		random := rand.New(rand.NewPCG(1, uint64(sector)))
		var sectors []int64
		clear(content[2*mib : 4*mib])
		for s := range 6 * mib / sector {
			here := s < 9 || s >= 16 && s < 40 || s*sector >= 5*mib-100*sector && random.IntN(2) == 0
			if !here || s*sector/(2*mib) == 1 {
				continue
			}
			sectors = append(sectors, s)
			if off := s * sector; off < int64(len(content)) {
				copy(content[off:], b[off:off+sector])
			}
		}
		parent.bitmap(0, sectors...)

		child := newImage(5*mib+3*sector, mib, sector, locator("volume_path", `\\?\Volume{x}\a\parent.vhdx`,
			"parent_linkage", "{00000000-24c8-49a6-a959-5e4bf1288bfb}", "relative_path", `.\sub\Parent 1.vhdx`, "parent_linkage2", strings.ToUpper(linkage)))
		child.block(1, 6, c[mib:2*mib]) // all of it: no bitmap is asked
		copy(content[mib:2*mib], c[mib:2*mib])
		child.block(2, 2, nil)
		child.block(4, 7, c[4*mib:5*mib])
		child.bitmap(0, 4*mib/sector+7, 5*mib/sector-1)
		for _, off := range []int64{4*mib + 7*sector, 5*mib - sector} {
			copy(content[off:off+sector], c[off:])
		}
		clear(content[2*mib : 3*mib])

		var asked []string
		all := map[string]virtual.Reader{"/vm/sub/Parent 1.vhdx": parent, "/vm/base.vhdx": base}
		img := open(t, child, vhdx.Options{Folder: folder{all, "/vm", &asked}})
		testContent(t, img, content)
		if got, want := strings.Join(asked, ", "), "./sub/Parent 1.vhdx, ../base.vhdx"; got != want {
			t.Errorf("asked for %s, want %s", got, want)
		}
	}
}

// A run of bits ends with its block: the next one is elsewhere.
func TestAdjacentPartialBlocks(t *testing.T) {
	child := newImage(2*mib, mib, 512, locator("parent_linkage", "{"+dataGUID+"}", "relative_path", "base.vhdx"))
	content := disktest.Mixture(2*mib, 31)
	child.block(1, 7, content[mib:])
	child.block(0, 7, content[:mib])
	var sectors []int64
	for s := range int64(4096 - 3) {
		sectors = append(sectors, s)
	}
	child.bitmap(0, sectors...)
	clear(content[(4096-3)*512:])
	var asked []string
	all := map[string]virtual.Reader{"/base.vhdx": newImage(2*mib, mib, 512, nil)}
	testContent(t, open(t, child, vhdx.Options{Folder: folder{all, "/", &asked}}), content)
}

// Bits of the second chunk are in the second sector bitmap block.
func TestDifferencingAcrossChunks(t *testing.T) {
	base := newImage(6*gib, 256*mib, 512, nil) // 16 blocks to a chunk
	base.block(15, 6, bytes.Repeat([]byte("base"), 1024))
	base.block(16, 6, bytes.Repeat([]byte("base"), 1024))
	child := newImage(6*gib, 256*mib, 512, locator("parent_linkage", "{"+dataGUID+"}", "relative_path", "base.vhdx"))
	child.block(15, 7, bytes.Repeat([]byte("here"), 1024))
	child.block(16, 7, bytes.Repeat([]byte("here"), 1024))
	child.bitmap(0, 15*(256*mib/512)+1)
	child.bitmap(1, 0, 3)
	var asked []string
	img := open(t, child, vhdx.Options{Folder: folder{map[string]virtual.Reader{"/base.vhdx": base}, "/", &asked}})
	for block, want := range map[int64]string{15: "base here base base base", 16: "here base base here base"} {
		var got []string
		for s := range int64(5) {
			p := make([]byte, 4)
			if _, err := img.ReadAt(p, block*256*mib+s*512+508); err != nil {
				t.Fatal(err)
			}
			got = append(got, string(p))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("block %d: got %s, want %s", block, s, want)
		}
	}

	child.entry(33, 0) // of the second bitmap: 17 entries to a chunk
	img = open(t, child, vhdx.Options{Folder: folder{map[string]virtual.Reader{"/base.vhdx": base}, "/", &asked}})
	_, err := img.ReadAt(make([]byte, 1), 4*gib)
	wantRefusal(t, err, disk.ErrCorrupt, "sector bitmap has state 0")
	child.entry(33, 1<<40|6)
	img = open(t, child, vhdx.Options{Folder: folder{map[string]virtual.Reader{"/base.vhdx": base}, "/", &asked}})
	_, err = img.ReadAt(make([]byte, 1), 4*gib)
	wantRefusal(t, err, disk.ErrCorrupt, "sector bitmap block of 1048576 bytes")
}

func TestParents(t *testing.T) {
	linkage := []string{"parent_linkage", "{" + dataGUID + "}"}
	relative := []string{"relative_path", `..\x\parent.vhdx`}
	volume := []string{"volume_path", `\\?\Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}\x\volume.vhdx`}
	absolute := []string{"absolute_win32_path", `\\?\d:\x\absolute.vhdx`}
	with := func(pairs ...[]string) (all []string) {
		for _, p := range pairs {
			all = append(all, p...)
		}
		return all
	}
	for name, test := range map[string]struct {
		pairs []string
		has   []string // names in the folder /vm
		kind  error
		words string
		asked string
	}{
		"by its relative path": {with(absolute, linkage, volume, relative), []string{"/x/parent.vhdx", "/vm/absolute.vhdx"}, nil, "",
			"../x/parent.vhdx"},
		"by its name": {with(linkage, relative, volume, absolute), []string{"/vm/absolute.vhdx"}, nil, "",
			"../x/parent.vhdx //?/Volume{26A21BDA-A627-11D7-9931-806E6F6E6963}/x/volume.vhdx //?/d:/x/absolute.vhdx absolute.vhdx"},
		"not there":          {with(linkage, relative), nil, fs.ErrNotExist, "x/parent.vhdx", "../x/parent.vhdx parent.vhdx"},
		"another's":          {with([]string{"parent_linkage", "{00000000-0000-0000-0000-000000000000}"}, relative), []string{"/x/parent.vhdx"}, disk.ErrCorrupt, "{" + dataGUID + "}, wanted {0000", ""},
		"no linkage":         {with(relative), []string{"/x/parent.vhdx"}, disk.ErrCorrupt, "is not the parent", ""},
		"no path":            {with(linkage), nil, disk.ErrCorrupt, "without a path", ""},
		"two paths of a key": {with(linkage, relative, relative), nil, disk.ErrCorrupt, "two entries", ""},
	} {
		t.Run(name, func(t *testing.T) {
			parent := newImage(mib, mib, 512, nil)
			parent.block(0, 6, disktest.Mixture(mib, 8))
			child := newImage(mib, mib, 512, locator(test.pairs...))
			all := map[string]virtual.Reader{}
			for _, name := range test.has {
				all[name] = parent
			}
			var asked []string
			img, err := vhdx.Open(child, vhdx.Options{Folder: folder{all, "/vm", &asked}})
			if test.kind != nil {
				wantRefusal(t, err, test.kind, test.words)
			} else if err != nil {
				t.Fatal(err)
			} else {
				testContent(t, img, disktest.Mixture(mib, 8))
			}
			if got := strings.Join(asked, " "); test.asked != "" && got != test.asked {
				t.Errorf("asked for %s, want %s", got, test.asked)
			}
		})
	}

	child := newImage(mib, mib, 512, locator(with(linkage, relative)...))
	_, err := vhdx.Open(child, vhdx.Options{})
	wantRefusal(t, err, virtual.ErrBackingFile, "../x/parent.vhdx")
	var asked []string
	_, err = vhdx.Open(newImage(mib, mib, 512, locator(with(linkage, absolute)...)), vhdx.Options{Folder: folder{nil, "/", &asked}})
	wantRefusal(t, err, fs.ErrNotExist, "absolute.vhdx")
	other := folder{map[string]virtual.Reader{"/x/parent.vhdx": newImage(mib, mib, 4096, nil)}, "/vm", &asked}
	_, err = vhdx.Open(child, vhdx.Options{Folder: other})
	wantRefusal(t, err, disk.ErrCorrupt, "sectors of 4096 bytes")
	other.files["/x/parent.vhdx"] = bytes.NewReader(make([]byte, 4*mib))
	_, err = vhdx.Open(child, vhdx.Options{Folder: other})
	wantRefusal(t, err, disk.ErrCorrupt, `opening parent "../x/parent.vhdx"`)

	l := locator(with(linkage, relative)...)
	for name, test := range map[string]struct {
		change func(b []byte)
		kind   error
		words  string
	}{
		"an iSCSI parent":     {func(b []byte) { b[0] = 1 }, disk.ErrUnsupported, "parent of type {b04aef01"},
		"too many entries":    {func(b []byte) { b[18] = 99 }, disk.ErrCorrupt, "99 entries"},
		"a key elsewhere":     {func(b []byte) { le.PutUint32(b[20:], 1<<32-2) }, disk.ErrCorrupt, "at 4294967294"},
		"a long value":        {func(b []byte) { le.PutUint16(b[30:], 65534) }, disk.ErrCorrupt, "65534 bytes"},
		"half a UTF-16 value": {func(b []byte) { b[30]-- }, disk.ErrCorrupt, "parent locator"},
	} {
		b := bytes.Clone(l)
		test.change(b)
		_, err := vhdx.Open(newImage(mib, mib, 512, b), vhdx.Options{Folder: other})
		t.Run(name, func(t *testing.T) { wantRefusal(t, err, test.kind, test.words) })
	}
}

// The BAT of a disk of 64 TiB may have 513 MiB. Where the file has holes, so
// has the disk.
func TestHugeDisk(t *testing.T) {
	i := newImage(64*tib, mib, 512, nil)
	data := disktest.Mixture(3000, 9)
	for _, n := range []int64{0, 5000000, 64<<20 - 1} {
		i.block(n, 6, data)
	}
	path := i.save(t, tempFile(t))
	before := disktest.Allocated()
	img := open(t, raw(t, path), vhdx.Options{})
	var found []int64
	for e, err := range disk.Extents(img) {
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, len(data))
		if _, err := img.ReadAt(p, e.Offset); err != nil || !bytes.Equal(p, data) {
			t.Errorf("%+v reads as something else, %v", e, err)
		}
		found = append(found, e.Offset/mib)
	}
	if got, want := fmt.Sprint(found), "[0 5000000 67108863]"; disktest.KnowsHoles(t) && got != want {
		t.Errorf("found blocks %s, want %s", got, want)
	}
	if n := disktest.Allocated() - before; disktest.KnowsHoles(t) && n > 16<<20 {
		t.Errorf("allocated %d MiB", n>>20)
	}
}

// Every byte of what Open reads, changed, with a checksum that is right then.
func TestMutations(t *testing.T) {
	path := tempFile(t)
	content := disktest.Mixture(mib+512, 10)
	disktest.Make(t, path, "vhdx", content, "-o", "block_size=1M")
	b := disktest.ReadFile(t, path)
	m := disktest.Mutations{
		Format:  "vhdx",
		Image:   b,
		Content: content,
		Head:    320 * kib,
		Open:    func(image []byte) (disk.Reader, error) { return vhdx.Open(bytes.NewReader(image), vhdx.Options{}) },
	}
	bat, meta := int(le.Uint64(b[192*kib+32:])), int(le.Uint64(b[192*kib+64:]))
	for _, part := range []struct{ at, n, sealed int }{ // sealed: length of what has a checksum, but for that itself
		{0, 8, 0},
		{128 * kib, 80, 4 * kib}, {64 * kib, 80, 4 * kib}, {192 * kib, 80, 64 * kib}, {256 * kib, 80, 64 * kib},
		{meta, 200, 0}, {meta + 64*kib, 40, 0}, {bat, 40, 0},
	} {
		for n := range part.n {
			c := disktest.Mutation{At: part.at + n}
			if part.sealed > 0 && n/4 != 1 {
				c.Seal = func(image []byte) { seal(image[part.at:][:part.sealed]) }
			}
			for _, c.Flip = range []byte{0x01, 0x84} {
				m.Each = append(m.Each, c)
			}
		}
	}
	m.Test(t)
}
