package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/internal/programs"
)

const mib = 1 << 20

// smallExt is a clean ext4 file system of 2 MiB.
func smallExt(t testing.TB) []byte {
	t.Helper()
	p, err := os.ReadFile(makeExt(t, 2*mib, 0, 2*mib, "-t", "ext4", "-b", "1024", "-O", "^has_journal"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// partitioned is a disk of rubbish with the partition table that sfdisk makes
// of a script.
func partitioned(t testing.TB, size int, script string) []byte {
	t.Helper()
	p := make([]byte, size)
	rubbish(p)
	clear(p[:64<<10]) // what sfdisk could take for something
	clear(p[size-64<<10:])
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), programs.Need(t, "sfdisk"), "-q", path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// swapSpace is what mkswap makes of 1 MiB.
func swapSpace(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "swap")
	if err := os.WriteFile(path, make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkswap", path)
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Of a disk that says its sectors have 4096 bytes, the table counts in those; of
// one that says nothing and has two tables nothing is trimmed.
func TestTrimSectors(t *testing.T) {
	ext := smallExt(t)
	mbr, gpt := make([]byte, 8*mib), make([]byte, 8*mib)
	rubbish(mbr)
	rubbish(gpt)
	clear(mbr[:4096])
	clear(gpt[:mib])
	entry(mbr, 0, 0x83, 1024, 512)
	addGPT(gpt, 512, 2048, 2048+4095)
	addGPT(gpt, 4096, 1024, 1535)
	for _, p := range [][]byte{mbr, gpt} {
		copy(p[4*mib:], ext)
		copy(p[mib:], ext)
	}
	for _, test := range []struct {
		name string
		disk []byte
		said int
		want string
	}{
		{"mbr", mbr, 4096, "1 at 4194304 true: "},
		{"gpt", gpt, 4096, "1 at 4194304 true: "},
		{"gpt of 512", gpt, 512, "1 at 1048576 true: "},
		{"gpt, not said", gpt, 0, "1 at 1048576 false: there are two partition tables, for sectors of 512 and of 4096 bytes"},
	} {
		r, reports, err := Trim(t.Context(), sectored{bytes.NewReader(test.disk), test.said})
		if err != nil {
			t.Fatal(err)
		}
		p := reports[0]
		if got := fmt.Sprintf("%d at %d %t: %s", p.Number, p.Start, p.Freed > 0, p.Kept); got != test.want || len(reports) != 1 {
			t.Errorf("%s: %d reports, %s, want %s", test.name, len(reports), got, test.want)
		}
		if got := disk.SectorSize(r); got != test.said {
			t.Errorf("%s: the trimmed disk has sectors of %d bytes", test.name, got)
		}
	}
}

// Each partition is taken for what it is, and what is between them stays.
func TestTrimDisk(t *testing.T) {
	ext, swap := smallExt(t), swapSpace(t)
	for _, test := range []struct{ name, script string }{
		{"gpt", "label: gpt\nstart=2048 size=4096\nstart=7000 size=4096\nstart=12288 size=2048 type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F\n" +
			"start=14336 size=2048\nstart=16384 size=2048 type=E6D6D379-F507-44C2-A23C-238F2A3DF928\nstart=18432 size=2048\n"},
		{"mbr", "label: dos\nstart=2048 size=4096\nstart=7000 size=4096\nstart=12288 size=2048 type=82\nstart=14400 size=9000 type=5\n" +
			"start=14500 size=2000\nstart=16600 size=2000 type=8e\nstart=18700 size=2000\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			content := partitioned(t, 12*mib, test.script)
			parts := Partitions(bytes.NewReader(content))
			if len(parts) != 6 {
				t.Fatalf("partitions %+v, want 6", parts)
			}
			copy(content[parts[0].Start:], ext)
			copy(content[parts[1].Start:], ext)
			copy(content[parts[2].Start:], swap)
			copy(content[parts[3].Start:], "LUKS\xBA\xBE\x00\x02")
			copy(content[parts[4].Start+512:], "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00LVM2 001")
			original := bytes.Clone(content)

			r, reports, err := Trim(t.Context(), bytes.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			got := readAll(t, r)
			if !bytes.Equal(content, original) {
				t.Error("Trim has written")
			}
			var lines []string
			var freed int64
			for _, r := range reports {
				lines = append(lines, fmt.Sprintf("%d %s %t: %s", r.Number, r.Filesystem, r.Freed > 0, r.Kept))
				freed += r.Freed
			}
			want := []string{"1 ext4 true: ", "2 ext4 true: ", "3 swap false: swap", "4 luks false: luks", "5 lvm false: lvm", "6  false: unknown content"}
			if test.name == "mbr" { // logical partitions have higher numbers
				want = []string{"1 ext4 true: ", "2 ext4 true: ", "3 swap false: swap", "5 luks false: luks", "6 lvm false: lvm", "7  false: unknown content"}
			}
			if fmt.Sprint(lines) != fmt.Sprint(want) {
				t.Errorf("reports %q, want %q", lines, want)
			}

			image := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(image, content, 0o600); err != nil {
				t.Fatal(err)
			}
			var free []disk.Extent
			for _, p := range parts[:2] {
				free = append(free, freeBlocks(t, image, p.Start)...)
				checkFiles(t, image, got, p.Start)
			}
			if dropped := checkDropped(t, content, got, free); dropped != freed {
				t.Errorf("%d bytes dropped, %d reported", dropped, freed)
			}
			if err := disktest.TestReader(r, got); err != nil {
				t.Error(err)
			}
		})
	}
}

// What could be something else is left as it is.
func TestTrimKeeps(t *testing.T) {
	ext := smallExt(t)
	const gpt = "label: gpt\nstart=2048 size=4096\n"
	put := func(off int, magic string) func(p []byte) { return func(p []byte) { copy(p[off:], magic) } }
	const start, end, size = 1 * mib, 3 * mib, 4 * mib
	disks := map[string][]byte{} // by script
	for _, test := range []struct {
		name, script string
		change       func(p []byte)
		want         string
	}{
		{"mdraid 1.0", gpt, put(end-0x2000, mdMagic), "it looks like ext4 and like mdraid"},
		{"mdraid 0.90", gpt, put(end-0x10000, mdMagic), "it looks like ext4 and like mdraid"},
		{"mdraid 0.90 of a big-endian machine", gpt, put(end-0x10000, "\xA9\x2B\x4E\xFC"), "it looks like ext4 and like mdraid"},
		{"mdraid 1.1", gpt, put(start, mdMagic), "it looks like mdraid and like ext4"},
		{"drbd", gpt, put(end-4096+60, "\x83\x74\x02\x6B"), "it looks like ext4 and like drbd"},
		{"isw raid", gpt, put(end-1024, "Intel Raid ISM Cfg Sig. 1.0"), "it looks like ext4 and like isw raid"},
		{"ddf raid", gpt, put(end-512, "\xDE\x11\xDE\x11"), "it looks like ext4 and like ddf raid"},
		{"zfs", gpt, put(end-128<<10+9<<10, "\x0C\xB1\xBA\x00\x00\x00\x00\x00"), "it looks like ext4 and like zfs"},
		{"btrfs", gpt, put(start+0x10040, "_BHRfS_M"), "it looks like btrfs and like ext4"},
		{"bcache", gpt, put(start+4096+24, "\xC6\x85\x73\xF6\x4E\x1A\x45\xCA\x82\x65\xF5\x7F\x48\xBA\x6D\x81"), "it looks like bcache and like ext4"},
		{"LUKS over ext4", gpt, put(start, "LUKS\xBA\xBE"), "it looks like luks and like ext4"},
		{"raid by its type", "label: gpt\nstart=2048 size=4096 type=A19D880F-05FC-4D3B-A006-743F0F84911E\n", nil, "its type is raid"},
		{"raid by its type, mbr", "label: dos\nstart=2048 size=4096 type=fd\n", nil, "its type is raid"},
		{"dynamic disk", "label: dos\nstart=2048 size=4096 type=42\n", nil, "its type is ldm"},
		{"partition smaller than its file system", "label: dos\nstart=2048 size=4095\n", nil, "ext4 that is larger than its volume"},
		{"dm-verity in the same partition", "label: gpt\nstart=2048 size=4104\n", put(end, "verity\x00\x00\x01"), "ext4 with checksums of its blocks behind it (dm-verity)"},
		{"dm-verity in another partition", "label: gpt\nstart=2048 size=4096\nstart=6144 size=100\n", put(end, "verity\x00\x00\x01"), "partition 2 has checksums of blocks (dm-verity)"},
		{"whole disk in a RAID", gpt, put(size-0x2000, mdMagic), "the disk as a whole looks like mdraid"},
		{"file system over the whole disk", "label: dos\nstart=2048 size=4096\n", func(p []byte) { copy(p[1024:], ext[1024:2048]) }, "the disk as a whole looks like ext4"},
		{"GPT with a wrong entry", gpt, func(p []byte) { p[1024+40]++ }, "the partition table is damaged"},
		{"GPT with a wrong header", gpt, func(p []byte) { p[512+56]++ }, "the partition table is damaged"},
		{"GPT that begins beyond the end", gpt, put(512+72, "\x00\x00\x00\x00\x00\x00\x00\x10"), "the partition table is damaged"},
		{"GPT that is gone", gpt, func(p []byte) { clear(p[512:1024]) }, "the partition table, a GPT, cannot be found"},
		{"partition beyond the end", "label: dos\nstart=2048 size=4096\n", func(p []byte) { entry(p, 1, 0x83, 8000, 8000) }, "partition 2 does not lie in the disk"},
		{"overlap", "label: dos\nstart=2048 size=4096\n", func(p []byte) { entry(p, 2, 0x83, 6000, 200) }, "it overlaps partition 3"},
		{"overlap with one that it covers", "label: dos\nstart=2048 size=4096\n", func(p []byte) { entry(p, 2, 0x83, 3000, 200); entry(p, 3, 0x83, 5000, 10) }, "it overlaps partition 4"},
		{"chain to itself", "label: dos\nstart=2048 size=4096\n", func(p []byte) {
			entry(p, 1, 0x05, 6200, 100)
			entry(p[6200*512:], 0, 0x83, 1, 10)
			entry(p[6200*512:], 1, 0x05, 0, 100)
		}, "the chain of logical partitions is broken"},
		{"chain to nowhere", "label: dos\nstart=2048 size=4096\n", func(p []byte) { entry(p, 1, 0x05, 1<<30, 100) }, "the chain of logical partitions is broken"},
		{"two extended partitions", "label: dos\nstart=2048 size=4096\n", func(p []byte) {
			entry(p, 1, 0x05, 6200, 100)
			entry(p, 2, 0x0F, 6300, 100)
			entry(p[6300*512:], 0, 0x83, 1, 10)
		}, "the partition table has two extended partitions"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if disks[test.script] == nil {
				disks[test.script] = partitioned(t, size, test.script)
				copy(disks[test.script][start:], ext)
			}
			content := bytes.Clone(disks[test.script])
			if _, reports, err := Trim(t.Context(), bytes.NewReader(content)); test.change != nil && (err != nil || reports[0].Kept != "") {
				t.Fatalf("before the change: error %v, reports %+v", err, reports)
			}
			if test.change != nil {
				test.change(content)
			}
			r, reports, err := Trim(t.Context(), bytes.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			if reports[0].Kept != test.want {
				t.Errorf("left as it is: %q, want %q", reports[0].Kept, test.want)
			}
			if !bytes.Equal(readAll(t, r), content) {
				t.Error("the disk is not as it was")
			}
		})
	}
}

// An empty disk, or one of something unknown, is one volume.
func TestTrimWholeDisk(t *testing.T) {
	unknown := make([]byte, mib)
	rubbish(unknown)
	for _, test := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"zeros", make([]byte, mib), "unknown content"},
		{"empty disk", nil, "unknown content"},
		{"tiny disk", []byte{1, 2, 3}, "unknown content"},
		{"rubbish", unknown, "unknown content"},
		{"swap", swapSpace(t), "swap"},
		{"boot sector with code where an MBR has entries", func() []byte {
			p := make([]byte, mib)
			copy(p[446:], bytes.Repeat([]byte{0x55}, 64))
			p[510], p[511] = 0x55, 0xAA
			return p
		}(), "unknown content"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, reports, err := Trim(t.Context(), bytes.NewReader(test.content))
			if err != nil || len(reports) != 1 || reports[0].Kept != test.want || reports[0].Number != 0 || reports[0].End != int64(len(test.content)) {
				t.Errorf("error %v, reports %+v, want %q", err, reports, test.want)
			}
			if err == nil && !bytes.Equal(readAll(t, r), test.content) {
				t.Error("the disk is not as it was")
			}
		})
	}
}

// One file system that is not clean keeps all others from being trimmed, and is named.
func TestTrimNotClean(t *testing.T) {
	ext := smallExt(t)
	content := partitioned(t, 6*mib, "label: gpt\nstart=2048 size=4096\nstart=6144 size=4096\n")
	copy(content[1*mib:], ext)
	copy(content[3*mib:], ext)
	setSuper(content[3*mib:], func(sb []byte) { sb[0x60] |= 4 })
	r, _, err := Trim(t.Context(), bytes.NewReader(content))
	if !errors.Is(err, ErrNotClean) || !strings.Contains(err.Error(), "partition 2 (ext4)") || r != nil {
		t.Errorf("error %v, want ErrNotClean of partition 2", err)
	}
}

// A sparse disk has data only in some ranges.
type sparse struct {
	*bytes.Reader
	data []disk.Extent
}

func (s *sparse) NextExtent(off int64) (disk.Extent, error) {
	if off < 0 {
		return disk.Extent{}, errors.New("negative offset")
	}
	for _, e := range s.data {
		if e.End() > off {
			start := max(off, e.Offset)
			return disk.Extent{Offset: start, Length: e.End() - start}, nil
		}
	}
	return disk.Extent{}, nil
}

// randomRanges are ascending ranges in a disk, some of which touch.
func randomRanges(random *rand.Rand, size, unit int64) (all []disk.Extent) {
	for off := random.Int64N(20) * unit; off < size; {
		n := min((1+random.Int64N(12))*unit, size-off)
		all = append(all, disk.Extent{Offset: off, Length: n})
		off += n + random.Int64N(12)*unit
	}
	return all
}

// However free ranges and data lie to each other, what is free reads as zeros,
// the rest as it was, and Freed is what of the data was free.
func TestTrimmedReader(t *testing.T) {
	for seed := range uint64(20) {
		random := rand.New(rand.NewPCG(seed, 0))
		const size = 600<<10 + 123
		content := make([]byte, size)
		s := &sparse{data: randomRanges(random, size, 1000)}
		for _, e := range s.data {
			rubbish(content[e.Offset:e.End()])
		}
		s.Reader = bytes.NewReader(content)

		free := randomRanges(random, size&^4095, 4096)
		want := bytes.Clone(content)
		var freed int64
		for _, f := range free {
			clear(want[f.Offset:f.End()])
			for _, e := range s.data {
				freed += max(0, min(e.End(), f.End())-max(e.Offset, f.Offset))
			}
		}
		r := &trimmed{s, free}
		if err := disktest.TestReader(r, want); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		reports := []Report{{Partition: Partition{End: size / 2}}, {Partition: Partition{Start: size / 2, End: size}}}
		if err := countFreed(t.Context(), s, reports, free); err != nil {
			t.Fatal(err)
		}
		if got := reports[0].Freed + reports[1].Freed; got != freed {
			t.Errorf("seed %d: %d bytes freed, want %d", seed, got, freed)
		}
		for e, err := range disk.Extents(r) {
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range free {
				if e.Offset < f.End() && f.Offset < e.End() {
					t.Errorf("seed %d: extent %+v has free %+v in it", seed, e, f)
				}
			}
		}
	}
}

// Only whole blocks of the disk are free, and only so many ranges of them are
// kept: the longest.
func TestFreeList(t *testing.T) {
	var l freeList
	for _, e := range [][2]int64{{0, 4095}, {4097, 12287}, {20479, 28673}, {40960, 45056}, {50000, 57344}} {
		l.add(e[0], e[1])
	}
	want := fmt.Sprint([]disk.Extent{{Offset: 20480, Length: 8192}, {Offset: 40960, Length: 4096}, {Offset: 53248, Length: 4096}})
	if got := fmt.Sprint(l.ranges); got != want {
		t.Errorf("ranges %s, want %s", got, want)
	}

	l = freeList{}
	const longest = 8
	for i := range int64(2 * maxRanges) {
		off := i * 10 * block
		l.add(off, off+(1+i%longest)*block)
	}
	if len(l.ranges) > maxRanges || len(l.ranges) < maxRanges/4 {
		t.Errorf("%d ranges are kept, of at most %d", len(l.ranges), maxRanges)
	}
	var kept int
	for i, e := range l.ranges {
		if e.Length < l.shortest || i > 0 && e.Offset < l.ranges[i-1].End() {
			t.Fatalf("range %+v after %+v, none shorter than %d", e, l.ranges[i-1], l.shortest)
		}
		if e.Length == longest*block {
			kept++
		}
	}
	if kept != 2*maxRanges/longest {
		t.Errorf("%d of the longest ranges are kept, of %d", kept, 2*maxRanges/longest)
	}
}

// What cannot be read is not taken for what is not there.
func TestTrimReadError(t *testing.T) {
	content := partitioned(t, 4*mib, "label: gpt\nstart=2048 size=4096\n")
	copy(content[mib:], smallExt(t))
	bad := errors.New("bad sector")
	for _, off := range []int64{0, 512, mib, mib + 1024, 3*mib - 4096, mib + 4096} {
		_, _, err := Trim(t.Context(), &badReader{bytes.NewReader(content), off, bad})
		if !errors.Is(err, bad) && off != mib+4096 { // there is nothing that Trim needs
			t.Errorf("a bad sector at %d: error %v", off, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Trim(ctx, bytes.NewReader(content)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that it was cancelled", err)
	}
}

type badReader struct {
	*bytes.Reader
	off int64
	err error
}

func (b *badReader) ReadAt(p []byte, off int64) (int, error) {
	if off <= b.off && b.off < off+int64(len(p)) {
		return 0, b.err
	}
	return b.Reader.ReadAt(p, off)
}

// FuzzTrim wants of any disk that it is refused, or that it reads as before but
// for zeros where a report says so. Disks are what mke2fs and sfdisk make, with
// changes: three bytes say where, one what.
func FuzzTrim(f *testing.F) {
	var disks [][]byte
	for _, options := range [][]string{
		{"-t", "ext4", "-b", "1024", "-O", "^has_journal"},
		{"-t", "ext2", "-b", "1024", "-g", "256"},
		{"-t", "ext4", "-b", "1024", "-g", "256", "-O", "meta_bg,^resize_inode,^has_journal,^metadata_csum"},
		{"-t", "ext4", "-b", "1024", "-C", "4096", "-O", "bigalloc,^has_journal,^metadata_csum"},
	} {
		image := filepath.Join(f.TempDir(), "image")
		p := make([]byte, mib/2)
		rubbish(p)
		if err := os.WriteFile(image, p, 0o600); err != nil {
			f.Fatal(err)
		}
		tool(f, "mke2fs", append(options, "-q", "-F", "-E", "nodiscard", image)...)
		p, err := os.ReadFile(image)
		if err != nil {
			f.Fatal(err)
		}
		disks = append(disks, p)
	}
	for _, script := range []string{
		"label: gpt\nfirst-lba: 128\nstart=128 size=1024\n",
		"label: dos\nstart=128 size=1024\nstart=1200 size=400 type=5\nstart=1201 size=200\n",
	} {
		p := partitioned(f, mib, script)
		copy(p[128*512:], disks[0])
		disks = append(disks, p)
	}
	for i := range disks {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{0, 4, 0x18, 1, 0, 8, 0x0C, 1, 0, 8, 0, 5}) // block size, descriptor
		f.Add(uint8(i), []byte{0, 4, 0x60, 0x10, 0, 4, 0x64, 0x04, 0, 4, 0x04, 0xFF})
		f.Add(uint8(i), []byte{0, 1, 0xC2, 0x05, 0, 2, 0x50, 0xFF})
	}

	f.Fuzz(func(t *testing.T, which uint8, changes []byte) {
		content := bytes.Clone(disks[int(which)%len(disks)])
		for ; len(changes) >= 4; changes = changes[4:] {
			off := int(changes[0])<<16 | int(changes[1])<<8 | int(changes[2])
			content[off%len(content)] ^= changes[3]
		}
		if content[1024+0x38] == 0x53 {
			setSuper(content, func([]byte) {}) // so that changes get behind it
		}
		r, reports, err := Trim(t.Context(), bytes.NewReader(content))
		if err != nil {
			return
		}
		got := readAll(t, r)
		var freed int64
		for _, p := range reports {
			if p.Kept != "" && p.Freed != 0 || p.Start < 0 || p.Start > p.End || p.End > int64(len(content)) {
				t.Errorf("%+v in a disk of %d bytes", p, len(content))
			}
			freed += p.Freed
		}
		end := int64(0)
		for e, err := range disk.Extents(r) {
			if err != nil {
				t.Fatal(err)
			}
			freed -= e.Offset - end
			if bytes.Count(got[end:e.Offset], []byte{0}) != int(e.Offset-end) {
				t.Fatalf("something else than zeros in what was dropped before %d", e.Offset)
			}
			if !bytes.Equal(got[e.Offset:e.End()], content[e.Offset:e.End()]) {
				t.Fatalf("%+v is not as it was", e)
			}
			end = e.End()
		}
		if freed != int64(len(content))-end {
			t.Errorf("%d bytes too many are said to be freed", freed-int64(len(content))+end)
		}
	})
}
