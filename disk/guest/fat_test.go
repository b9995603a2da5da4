package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/programs"
)

func TestFAT(t *testing.T) {
	for name, test := range map[string]struct {
		size int64
		args string
	}{
		"FAT12":                         {1 << 20, "-F 12"},
		"floppy":                        {1440 << 10, "-F 12"},
		"FAT12, large sectors":          {4 << 20, "-F 12 -S 4096 -s 1"},
		"FAT16":                         {4 << 20, "-F 16 -s 1"},
		"FAT16, one table":              {6 << 20, "-F 16 -s 2 -f 1"},
		"FAT16, sectors of 1024":        {8 << 20, "-F 16 -S 1024 -s 1"},
		"FAT32":                         {34 << 20, "-F 32 -s 1"},
		"FAT32, one table":              {34 << 20, "-F 32 -s 1 -f 1"},
		"shorter than its partition":    {6 << 20, "-F 16 -s 1 @5003"},
		"clusters do not fill the last": {5<<20 + 512, "-F 16 -s 2 -a"},

		// Which mtools takes for FAT16, as the specification wants it.
		"FAT32, few clusters":                  {4 << 20, "-F 32 -s 1"},
		"FAT32, few clusters, sectors of 4096": {4 << 20, "-F 32 -S 4096 -s 1"},
	} {
		t.Run(name, func(t *testing.T) {
			path := stale(t, test.size)
			args, blocks, _ := strings.Cut(test.args, "@")
			command := append(strings.Fields(args), path)
			if blocks != "" {
				command = append(command, strings.TrimSpace(blocks))
			}
			tool(t, "mkfs.fat", command...)
			var files map[string][]byte
			if !strings.Contains(name, "few clusters") {
				files = fatFiles(t, path)
			}

			used, total := fatClusters(t, path)
			var free int64
			for _, e := range trimFile(t, path, openFAT) {
				free += e.Length
			}
			clusterSize := int64(fatSector(t, path)) * int64(head(t, path)[13])
			if want := (total - used) * clusterSize; free != want {
				t.Errorf("%d bytes are free, fsck.fat has %d", free, want)
			}

			fatClusters(t, path)
			for name, want := range files {
				if got := tool(t, "mcopy", "-n", "-i", path, "::"+name, "-"); got != string(want) {
					t.Errorf("%s has changed", name)
				}
			}
		})
	}
}

// fatFiles fills a file system, with gaps where files were deleted, and returns what it holds.
func fatFiles(t *testing.T, path string) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	files := make(map[string][]byte)
	tool(t, "mmd", "-i", path, "::folder")
	for i := range 12 {
		name := fmt.Sprintf("folder/f%d", i)
		content := bytes.Repeat([]byte(name), 700*(i+1))
		host := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(host, content, 0o600); err != nil {
			t.Fatal(err)
		}
		tool(t, "mcopy", "-i", path, host, "::"+name)
		files[name] = content
	}
	for i := 0; i < 12; i += 3 {
		name := fmt.Sprintf("folder/f%d", i)
		tool(t, "mdel", "-i", path, "::"+name)
		delete(files, name)
	}
	return files
}

// fatClusters is what fsck.fat counts, in a file system that it has nothing to say about.
func fatClusters(t *testing.T, path string) (used, total int64) {
	t.Helper()
	out := tool(t, "fsck.fat", "-n", path)
	m := regexp.MustCompile(`files, (\d+)/(\d+) clusters`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("fsck.fat says %s", out)
	}
	return number(t, m[1]), number(t, m[2])
}

func fatSector(t *testing.T, path string) uint16 {
	return binary.LittleEndian.Uint16(head(t, path)[11:])
}

// smallFAT is the image of a file system that mkfs.fat made.
func smallFAT(t testing.TB, kind string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fat")
	size := map[string]int64{"12": 256 << 10, "16": 2200 << 10, "32": 512 << 10}[kind]
	create(t, path, size)
	tool(t, "mkfs.fat", "-F", kind, "-s", "1", path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tables are where the two tables of a FAT begin.
func fatTables(b []byte) (first, second int) {
	le := binary.LittleEndian
	first = int(le.Uint16(b[14:])) * 512
	size := int(le.Uint16(b[22:]))
	if size == 0 {
		size = int(le.Uint32(b[36:]))
	}
	return first, first + size*512
}

// fatData is the sector with which clusters begin, of a FAT12.
func fatData(b []byte) int {
	_, second := fatTables(b)
	return second/512 + int(le.Uint16(b[22:])) + int(le.Uint16(b[17:]))*32/512
}

func TestFATRefuses(t *testing.T) {
	both := func(b []byte, off int, p ...byte) {
		first, second := fatTables(b)
		copy(b[first+off:], p)
		copy(b[second+off:], p)
	}
	for name, test := range map[string]struct {
		kind string
		do   func(b []byte)
		want error
		says string
	}{
		"mounted FAT12":       {"12", func(b []byte) { b[37] = 1 }, ErrNotClean, "not unmounted"},
		"mounted FAT16":       {"16", func(b []byte) { b[37] = 1 }, ErrNotClean, "not unmounted"},
		"mounted FAT32":       {"32", func(b []byte) { b[65] = 1 }, ErrNotClean, "not unmounted"},
		"disk errors":         {"32", func(b []byte) { b[65] = 2 }, ErrNotClean, "not unmounted"},
		"FAT16 not shut down": {"16", func(b []byte) { both(b, 3, 0x7f) }, ErrNotClean, "not unmounted"},
		"FAT16 with errors":   {"16", func(b []byte) { both(b, 3, 0xbf) }, ErrNotClean, "not unmounted"},
		"FAT32 not shut down": {"32", func(b []byte) { both(b, 7, 0xf7) }, ErrNotClean, "not unmounted"},
		"FAT32 with errors":   {"32", func(b []byte) { both(b, 7, 0xfb) }, ErrNotClean, "not unmounted"},
		"other media":         {"16", func(b []byte) { both(b, 0, 0xf0) }, ErrNotClean, "media is 0xf8"},
		"tables that differ": {"12", func(b []byte) {
			_, second := fatTables(b)
			b[second+200] = 1
		}, ErrNotClean, "copies of the FAT differ"},
		"no active table":     {"32", func(b []byte) { b[40] = 0x82 }, ErrNotClean, "table 2 of 2"},
		"FAT32 of the future": {"32", func(b []byte) { b[42] = 1 }, errUnknown, "version 0x1"},
		"cut short":           {"16", func(b []byte) { b[32], b[33], b[34] = 0, 0, 1; b[19], b[20] = 0, 0 }, ErrNotClean, "the volume has"},
		"tables too short":    {"16", func(b []byte) { b[22] = 2 }, ErrNotClean, "a table has 1024 bytes"},
		"nothing but tables":  {"16", func(b []byte) { b[23] = 0x10 }, ErrNotClean, "data after"},
		"no cluster":          {"12", func(b []byte) { b[13] = 0x80; le.PutUint16(b[19:], uint16(fatData(b)+100)) }, ErrNotClean, "FAT12 of 0 clusters"},
		"three tables":        {"16", func(b []byte) { b[16] = 3 }, errUnknown, "3 tables"},
		"sectors of 768":      {"16", func(b []byte) { b[12] = 3 }, errUnknown, "sectors of 768 bytes"},
		"clusters of 3":       {"16", func(b []byte) { b[13] = 3 }, errUnknown, "clusters of 3 sectors"},
		"exFAT":               {"32", func(b []byte) { clear(b[11:90]); copy(b[3:], "EXFAT   ") }, errUnknown, "FAT"},
		"no boot sector":      {"16", func(b []byte) { b[511] = 0 }, errUnknown, "none of FAT"},
	} {
		t.Run(name, func(t *testing.T) {
			b := smallFAT(t, test.kind)
			test.do(b)
			wantRefused(t, bytes.NewReader(b), openFAT, test.want, test.says)
		})
	}
	wantRefused(t, bytes.NewReader(nil), openFAT, ErrNotClean, "volume ends")
}

// Only the active table counts where they are not copies.
func TestFAT32ActiveTable(t *testing.T) {
	b := smallFAT(t, "32")
	before, err := freeOf(bytes.NewReader(b), openFAT)
	if err != nil {
		t.Fatal(err)
	}
	first, second := fatTables(b)
	b[40] = 0x81
	clear(b[first:second])
	after, err := freeOf(bytes.NewReader(b), openFAT)
	if err != nil || fmt.Sprint(before) != fmt.Sprint(after) {
		t.Errorf("got %v, %v, want %v", after, err, before)
	}
}

// Neither bad clusters nor reserved values are free, and the values above the
// 28 bits of an entry are nothing.
func TestFATEntries(t *testing.T) {
	for kind, bits := range map[string]int{"12": 12, "16": 16, "32": 32} {
		b := smallFAT(t, kind)
		before, err := freeOf(bytes.NewReader(b), openFAT)
		if err != nil || len(before) != 1 {
			t.Fatalf("FAT%s: %v, %v", kind, before, err)
		}
		first, second := fatTables(b)
		set := func(n int, value uint32) {
			for _, table := range []int{first, second} {
				p := b[table+n*bits/8:]
				v := binary.LittleEndian.Uint32(p)
				shift := n * bits % 8
				mask := uint32(1<<bits-1) << shift
				binary.LittleEndian.PutUint32(p, v&^mask|value<<shift&mask)
			}
		}
		set(10, 0x0ffffff7) // bad
		set(11, 0x0fffffff) // end of a chain
		set(12, 1)          // reserved
		set(14, 0x0ffffff0) // reserved
		if kind == "32" {
			set(16, 0xf0000000)
		}
		got, err := freeOf(bytes.NewReader(b), openFAT)
		if err != nil {
			t.Fatal(err)
		}
		cluster := func(n int64) int64 { return before[0].End() - 512*(lastCluster(t, b, bits)+1-n) }
		want := []disk.Extent{
			{Offset: before[0].Offset, Length: cluster(10) - before[0].Offset},
			{Offset: cluster(13), Length: 512},
			{Offset: cluster(15), Length: before[0].End() - cluster(15)},
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("FAT%s: got %v, want %v", kind, got, want)
		}
	}
}

// lastCluster counts as fsck.fat does.
func lastCluster(t *testing.T, b []byte, bits int) int64 {
	path := filepath.Join(t.TempDir(), "fat"+strconv.Itoa(bits))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ := exec.CommandContext(t.Context(), programs.Need(t, "fsck.fat"), "-n", "-v", path).CombinedOutput()
	m := regexp.MustCompile(`/(\d+) clusters`).FindStringSubmatch(string(out))
	if m == nil {
		t.Fatalf("fsck.fat says %s", out)
	}
	return number(t, m[1]) + 1
}

func TestFATMutations(t *testing.T) {
	for _, kind := range []string{"12", "16", "32"} {
		b := smallFAT(t, kind)
		first, _ := fatTables(b)
		mutate(t, b, openFAT, 0, 96) // then there is the boot loader
		mutate(t, b, openFAT, 508, 512)
		mutate(t, b, openFAT, first, first+16)
	}
}

func FuzzFAT(f *testing.F) {
	var bases [][]byte
	for _, kind := range []string{"12", "16", "32"} {
		bases = append(bases, smallFAT(f, kind))
	}
	fuzzOpener(f, openFAT, bases, 0, 11, 13, 14, 17, 22, 36, 40, 65, 512, 16384)
}

// A disk that cannot be read is an error as such, wherever it happens, and a
// consumer that has enough is not asked again.
func TestOpenersStop(t *testing.T) {
	for name, test := range map[string]struct {
		open  opener
		image []byte
	}{
		"fat":  {openFAT, smallFAT(t, "12")},
		"ntfs": {openNTFS, smallNTFS(t, "hiberfil.sys", strings.Repeat("\x00", 8192))},
		"xfs":  {openXFS, handXFS(5, 5, fragmented())},
	} {
		reads := 0
		for ; ; reads++ {
			v := &failing{bytes.NewReader(test.image), reads}
			_, err := freeOf(v, test.open)
			if v.reads >= 0 {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				break
			}
			if !errors.Is(err, errBroken) || errors.Is(err, ErrNotClean) || errors.Is(err, errUnknown) {
				t.Fatalf("%s: read %d fails, and the error is %v", name, reads, err)
			}
		}
		if reads < 3 {
			t.Errorf("%s: %d reads", name, reads)
		}

		ranges, err := test.open(bytes.NewReader(test.image))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for range ranges {
			n++
			break
		}
		if n != 1 {
			t.Errorf("%s: %d ranges", name, n)
		}
	}
}

var errBroken = errors.New("broken disk")

// failing is a volume of which only some reads succeed.
type failing struct {
	*bytes.Reader
	reads int
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) {
	if f.reads--; f.reads < 0 {
		return 0, errBroken
	}
	return f.Reader.ReadAt(p, off)
}

// # What the tests of all openers share

func number(t testing.TB, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// create makes a file of zeros.
func create(t testing.TB, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// stale makes a file that is full of what was there before.
func stale(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := bytes.Repeat([]byte("stale..."), 8<<10)
	for off := int64(0); off < size; off += int64(len(p)) {
		if _, err := f.WriteAt(p[:min(int64(len(p)), size-off)], off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func head(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 512)
	if _, err := f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// trimFile zeroes what is free in the file at path, and returns it.
func trimFile(t *testing.T, path string, open opener) []disk.Extent {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	free, err := freeOf(fileVolume{f, info.Size()}, open)
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	found := false
	p := make([]byte, 512)
	for _, e := range free {
		if _, err := f.ReadAt(p, e.Offset); err != nil {
			t.Fatal(err)
		}
		found = found || !bytes.Equal(p, zeros[:len(p)])
		for off := e.Offset; off < e.End(); off += int64(len(zeros)) {
			if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), e.End()-off)], off); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !found {
		t.Error("what is free was zero before: that shows nothing")
	}
	return free
}

type fileVolume struct {
	*os.File
	size int64
}

func (f fileVolume) Size() int64 { return f.size }

// freeOf is what open says is free: as an opener promises it, and the same
// when it is asked again.
func freeOf(v volume, open opener) ([]disk.Extent, error) {
	ranges, err := open(v)
	if (ranges == nil) == (err == nil) {
		return nil, fmt.Errorf("there are ranges, or nothing, besides the error %w", err)
	}
	if err != nil {
		return nil, err
	}
	return collect(ranges, v.Size())
}

func collect(ranges iter.Seq2[disk.Extent, error], size int64) (free []disk.Extent, err error) {
	end := int64(0)
	for e, err := range ranges {
		if err != nil {
			return nil, err
		}
		if e.Offset < end || e.Length <= 0 || e.Offset > size || e.Length > size-e.Offset {
			return nil, fmt.Errorf("%d bytes at %d are not after %d, inside %d", e.Length, e.Offset, end, size)
		}
		end = e.End()
		free = append(free, e)
	}
	return free, nil
}

// wantRefused wants the error of open, or at the end of its sequence.
func wantRefused(t *testing.T, v volume, open opener, kind error, says string) {
	t.Helper()
	_, err := freeOf(v, open)
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), says) {
		t.Errorf("got error %v, want one that is %q and says %q", err, kind, says)
	}
}

// wantRangesOrRefusal wants of whatever a guest wrote that it is refused, or
// ranges in the volume.
func wantRangesOrRefusal(t *testing.T, v volume, open opener) {
	t.Helper()
	ranges, err := open(v)
	if err == nil {
		// Not all at once: the ranges of a large volume are the caller's business.
		n, end := 0, int64(0)
		for e, rangeErr := range ranges {
			if err = rangeErr; err != nil {
				break
			}
			if e.Offset < end || e.Length <= 0 || e.Offset > v.Size() || e.Length > v.Size()-e.Offset {
				t.Errorf("%d bytes at %d are not after %d, inside %d", e.Length, e.Offset, end, v.Size())
				break
			}
			end = e.End()
			if n++; n == 1000 {
				break
			}
		}
	}
	if err != nil && !errors.Is(err, ErrNotClean) && !errors.Is(err, errUnknown) {
		t.Errorf("got error %v", err)
	}
}

// wantLittleMemory wants do to allocate no more than 16 MiB in all.
func wantLittleMemory(t *testing.T, do func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	do()
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("allocated %d MiB", n>>20)
	}
}

// mutate opens b with each byte of a part of it changed.
func mutate(t *testing.T, b []byte, open opener, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		old := b[i]
		wantLittleMemory(t, func() {
			for _, value := range []byte{0x00, 0xff, old + 1, old ^ 0x80} {
				b[i] = value
				wantRangesOrRefusal(t, bytes.NewReader(b), open)
			}
		})
		b[i] = old
		if t.Failed() {
			t.Fatalf("byte %d", i)
		}
	}
}

// fuzzOpener fuzzes changes to an image: each is 4 bytes of where, 1 of how
// many, and these bytes. Seeds change something at each of the offsets.
func fuzzOpener(f *testing.F, open opener, bases [][]byte, offsets ...uint32) {
	for i := range bases {
		f.Add(uint8(i), []byte{})
		for _, off := range offsets {
			change := binary.LittleEndian.AppendUint32(nil, off)
			f.Add(uint8(i), append(change, 4, 0x01, 0x80, 0x00, 0xff))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, changes []byte) {
		v := &patched{base: bases[int(which)%len(bases)]}
		for len(changes) > 5 {
			off := int64(binary.LittleEndian.Uint32(changes)) % int64(len(v.base))
			n := min(int(changes[4]), len(changes)-5, len(v.base)-int(off))
			v.patches = append(v.patches, patch{off, changes[5:][:n]})
			changes = changes[5+n:]
		}
		wantLittleMemory(t, func() { wantRangesOrRefusal(t, v, open) })
	})
}

// patched is a base with some bytes changed.
type patched struct {
	base    []byte
	patches []patch
}

type patch struct {
	off  int64
	data []byte
}

func (p *patched) Size() int64 { return int64(len(p.base)) }

func (p *patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := bytes.NewReader(p.base).ReadAt(b, off)
	for _, patch := range p.patches {
		if at := patch.off - off; at >= 0 && at < int64(n) {
			copy(b[at:n], patch.data)
		} else if at < 0 && -at < int64(len(patch.data)) {
			copy(b[:n], patch.data[-at:])
		}
	}
	return n, err
}
