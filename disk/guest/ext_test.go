package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/internal/programs"
)

// tool runs a program that is where administrators' are.
func tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), programs.Need(t, name), args...)
	cmd.Env = append(os.Environ(), "DEBUGFS_PAGER=cat", "PAGER=cat", "LC_ALL=C", "E2FSPROGS_FAKE_TIME=1700000000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// rubbish fills p with what earlier files could have left: no block of it is
// zeros.
func rubbish(p []byte) {
	rand.NewChaCha8([32]byte{1}).Read(p)
}

// makeExt returns the path of a file of this size with an ext file system at
// off, rubbish in all that is free, and files that came and went.
func makeExt(t testing.TB, size, off, fsSize int64, options ...string) string {
	t.Helper()
	dir := t.TempDir()
	image, tree := filepath.Join(dir, "image"), filepath.Join(dir, "tree")
	content := make([]byte, size)
	rubbish(content)
	if err := os.WriteFile(image, content, 0o600); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	var remove, add strings.Builder
	for i := range 36 {
		p := make([]byte, 1+random.IntN(30_000))
		for j := range p {
			p[j] = byte(random.Uint32())
		}
		name := fmt.Sprintf("folder%d/file%d", i%3, i)
		path := filepath.Join(tree, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, p, 0o600)); err != nil {
			t.Fatal(err)
		}
		switch i % 3 {
		case 0:
			fmt.Fprintf(&remove, "rm %s\n", name)
		case 1:
			fmt.Fprintf(&add, "write %s again%d\n", path, i)
		}
	}
	if err := errors.Join(
		os.Symlink("file1", filepath.Join(tree, "link")),
		os.WriteFile(filepath.Join(tree, "empty"), nil, 0o600),
		os.WriteFile(filepath.Join(tree, "zeros"), make([]byte, 100_000), 0o600),
		os.WriteFile(filepath.Join(dir, "commands"), []byte(remove.String()+add.String()), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"-q", "-F", "-d", tree, "-U", "00112233-4455-6677-8899-aabbccddeeff"}, options...)
	if !slices.Contains(options, "-E") {
		args = append(args, "-E", fmt.Sprintf("nodiscard,offset=%d", off))
	}
	tool(t, "mke2fs", append(args, image, fmt.Sprintf("%dk", fsSize>>10))...)
	tool(t, "debugfs", "-w", "-f", filepath.Join(dir, "commands"), at(image, off))
	return image
}

// at is how e2fsprogs call a file system inside of a file.
func at(image string, off int64) string { return fmt.Sprintf("%s?offset=%d", image, off) }

// extCases are what mke2fs has to offer that changes where things are. All have several groups.
var extCases = []struct {
	name    string
	options []string
}{
	{"ext2, 1K", []string{"-t", "ext2", "-b", "1024", "-g", "512"}},
	{"ext2, 4K", []string{"-t", "ext2", "-b", "4096", "-g", "256"}},
	{"ext2, revision 0", []string{"-t", "ext2", "-r", "0", "-b", "1024", "-g", "512"}},
	{"ext2 without sparse_super", []string{"-t", "ext2", "-O", "^sparse_super,^resize_inode", "-b", "1024", "-g", "512"}},
	{"ext3, 1K", []string{"-t", "ext3", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4, 1K", []string{"-t", "ext4", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4, 2K", []string{"-t", "ext4", "-b", "2048", "-g", "512", "-J", "size=2"}},
	{"ext4, 4K", []string{"-t", "ext4", "-b", "4096", "-g", "256", "-O", "^has_journal"}},
	{"ext4, 64K", []string{"-t", "ext4", "-b", "65536", "-O", "^has_journal"}},
	{"ext4, one group", []string{"-t", "ext4", "-b", "4096", "-O", "^has_journal"}},
	{"ext4 of 32 bits", []string{"-t", "ext4", "-O", "^64bit", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4 without flex_bg", []string{"-t", "ext4", "-O", "^flex_bg", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4 with small flex_bg", []string{"-t", "ext4", "-G", "4", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4 with uninit_bg", []string{"-t", "ext4", "-O", "^metadata_csum,uninit_bg", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4 with uninit_bg of 32 bits", []string{"-t", "ext4", "-O", "^metadata_csum,^64bit,uninit_bg", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4 with no checksums", []string{"-t", "ext4", "-O", "^metadata_csum,^uninit_bg", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4 with metadata_csum_seed", []string{"-t", "ext4", "-O", "metadata_csum_seed", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4 with meta_bg", []string{"-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "256", "-O", "^has_journal"}},
	{"ext4 with meta_bg, without flex_bg", []string{"-t", "ext4", "-O", "meta_bg,^resize_inode,^flex_bg,^has_journal", "-b", "1024", "-g", "256", "-N", "512"}},
	{"ext4 with bigalloc, 1K", []string{"-t", "ext4", "-O", "bigalloc", "-b", "1024", "-C", "8192", "-g", "2048", "-J", "size=1"}},
	{"ext4 with bigalloc, 4K", []string{"-t", "ext4", "-O", "bigalloc", "-b", "4096", "-C", "65536", "-O", "^has_journal"}},
	{"ext4 with sparse_super2", []string{"-t", "ext4", "-O", "sparse_super2", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4 with sparse_super2 and one copy", []string{"-t", "ext4", "-O", "sparse_super2", "-E", "num_backup_sb=1,nodiscard", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4, tables made at once", []string{"-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4 with orphan_file", []string{"-t", "ext4", "-O", "orphan_file", "-b", "1024", "-g", "512", "-J", "size=1"}},
	{"ext4 with all else", []string{"-t", "ext4", "-I", "256",
		"-O", "project,inline_data,encrypt,casefold,verity,ea_inode,large_dir", "-b", "1024", "-g", "512", "-J", "size=1"}},
}

// What is free is gone, and nothing else: dumpe2fs says what is free, e2fsck
// that the file system is all right, debugfs that all files are as they were.
func TestTrimExt(t *testing.T) {
	for _, test := range extCases {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			// The last group is cut off, and the disk ends inside of a block.
			const size, fsSize = 4<<20 + 700, 4<<20 - 200<<10
			image := makeExt(t, size, 0, fsSize, test.options...)
			content, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			r, reports, err := Trim(t.Context(), bytes.NewReader(content))
			if err != nil {
				t.Fatal(err)
			}
			got := readAll(t, r)
			dropped := checkDropped(t, content, got, freeBlocks(t, image, 0))
			if len(reports) != 1 || reports[0].Kept != "" || reports[0].Freed != dropped {
				t.Errorf("reports %+v, want one of %d bytes", reports, dropped)
			}
			if err := disktest.TestReader(r, got); err != nil {
				t.Error(err)
			}
			checkFiles(t, image, got, 0)
		})
	}
}

func readAll(t testing.TB, r disk.Reader) []byte {
	t.Helper()
	p := make([]byte, r.Size())
	if n, err := r.ReadAt(p, 0); n < len(p) {
		t.Fatalf("reading: %v", err)
	}
	return p
}

var (
	freeLine    = regexp.MustCompile(`(?m)^  Free blocks: (.*)$`)
	blockLine   = regexp.MustCompile(`(?m)^Block size: +([0-9]+)$`)
	clusterLine = regexp.MustCompile(`(?m)^Cluster size: +([0-9]+)$`)
)

// freeBlocks are the ranges of bytes that dumpe2fs says are free.
func freeBlocks(t testing.TB, image string, off int64) (free []disk.Extent) {
	t.Helper()
	out := tool(t, "dumpe2fs", at(image, off))
	number := func(s string) int64 {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	blockSize := number(blockLine.FindStringSubmatch(out)[1])
	unit := blockSize // of which dumpe2fs names the first block
	if line := clusterLine.FindStringSubmatch(out); line != nil {
		unit = number(line[1])
	}
	for _, line := range freeLine.FindAllStringSubmatch(out, -1) {
		for _, r := range strings.Split(line[1], ", ") {
			if r == "" {
				continue
			}
			first, last, found := strings.Cut(r, "-")
			if !found {
				last = first
			}
			n := number(last) - number(first)
			free = append(free, disk.Extent{Offset: off + number(first)*blockSize, Length: n*blockSize + unit})
		}
	}
	return free
}

// checkDropped wants got to be content without what is free: whole blocks of
// 4 KiB, nearly all of them. It returns how much is.
func checkDropped(t *testing.T, content, got []byte, free []disk.Extent) (dropped int64) {
	t.Helper()
	isFree := make([]bool, len(content)/512+1) // a sector
	var all int64
	for _, f := range free {
		all += f.Length
		for off := f.Offset; off < min(f.End(), int64(len(content))); off += 512 {
			isFree[off/512] = true
		}
	}
	zeros := make([]byte, block)
	for off := 0; off < len(content); off += block {
		a, b := content[off:min(len(content), off+block)], got[off:min(len(content), off+block)]
		whole := len(b) == block && !slices.Contains(isFree[off/512:off/512+block/512], false)
		switch {
		case whole && bytes.Equal(b, zeros):
			dropped += block
		case !bytes.Equal(a, b) && bytes.Equal(b, zeros):
			t.Fatalf("block at %d was dropped and is in use", off)
		case !bytes.Equal(a, b):
			t.Fatalf("block at %d is neither as it was nor zeros", off)
		}
	}
	if dropped*100 < all*90 {
		t.Errorf("%d of %d free bytes dropped", dropped, all)
	}
	return dropped
}

// checkFiles wants the trimmed content to be a clean file system with the files
// of image.
func checkFiles(t *testing.T, image string, content []byte, off int64) {
	t.Helper()
	trimmed := filepath.Join(t.TempDir(), "trimmed")
	if err := os.WriteFile(trimmed, content, 0o600); err != nil {
		t.Fatal(err)
	}
	tool(t, "e2fsck", "-fn", at(trimmed, off))
	want, got := files(t, at(image, off)), files(t, at(trimmed, off))
	if len(want) < 30 {
		t.Errorf("only %d files: %v", len(want), slices.Collect(maps.Keys(want)))
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d files, not those %d that were there", len(got), len(want))
	}
}

// files are the contents of all files of a file system.
func files(t testing.TB, name string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	tool(t, "debugfs", "-R", "rdump / "+dir, name)
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		switch {
		case e.Type()&fs.ModeSymlink != 0:
			all[rel], err = os.Readlink(path)
		case e.Type().IsRegular():
			var p []byte
			p, err = os.ReadFile(path)
			all[rel] = string(p)
		default:
			all[rel] = e.Type().String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// setSuper changes the superblock of an image in memory, and makes its checksum fit.
func setSuper(image []byte, change func(sb []byte)) {
	sb := image[1024:2048]
	change(sb)
	binary.LittleEndian.PutUint32(sb[0x3FC:], ^crc32.Checksum(sb[:0x3FC], crc32.MakeTable(crc32.Castagnoli)))
}

// A file system in which bitmaps may not be what they will be is an error; one
// that could be anything is left alone.
func TestTrimExtRefuses(t *testing.T) {
	image, err := os.ReadFile(makeExt(t, 4<<20, 0, 4<<20, "-t", "ext4", "-b", "1024", "-g", "1024", "-J", "size=1"))
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	or := func(at int, bits uint32) func([]byte) {
		return func(sb []byte) { le.PutUint32(sb[at:], le.Uint32(sb[at:])|bits) }
	}
	put := func(at int, n uint32) func([]byte) { return func(sb []byte) { le.PutUint32(sb[at:], n) } }
	put16 := func(at int, n uint16) func([]byte) { return func(sb []byte) { le.PutUint16(sb[at:], n) } }
	for _, test := range []struct {
		name   string
		change func(sb []byte)
		kept   string // "" for ErrNotClean
	}{
		{"journal to replay", or(0x60, 0x4), ""},
		{"not unmounted", put16(0x3A, 0), ""},
		{"errors found", put16(0x3A, 3), ""},
		{"orphans", put(0xE8, 12), ""},
		{"orphan file", or(0x64, 0x10000), ""},
		{"blocks of 2^20 bytes", put(0x18, 10), ""},
		{"blocks of 2^(2^32-1) bytes", put(0x18, 1<<32-1), ""},
		{"groups of no blocks", put(0x20, 0), ""},
		{"groups of more blocks than a bitmap has bits", put(0x20, 8200), ""},
		{"groups of no inodes", put(0x28, 0), ""},
		{"inodes of 100 bytes", put16(0x58, 100), ""},
		{"descriptors of 0 bytes", put16(0xFE, 0), ""},
		{"first block is 5", put(0x14, 5), ""},
		{"no blocks", put(0x04, 0), ""},
		{"larger than the disk", put(0x04, 4097), "ext4 that is larger than its volume"},
		{"2^63 blocks", put(0x150, 1<<31), "ext4 that is larger than its volume"},
		{"compression", or(0x60, 0x1), "ext4 with incompatible features 0x1"},
		{"features of tomorrow", or(0x60, 1<<31|1<<30), "ext4 with incompatible features 0xc0000000"},
		{"read-only features of tomorrow", or(0x64, 1<<31), "ext4 with read-only features 0x80000000"},
		{"snapshots", or(0x64, 0x80), "ext4 with read-only features 0x80"},
		{"journal device", or(0x60, 0x8), "journal of another ext4"},
		{"copy of the superblock", put16(0x5A, 3), "copy of the superblock of an ext4"},
		{"unknown checksums", func(sb []byte) { sb[0x175] = 2 }, "ext4 with checksums of type 2"},
		{"revision 2", put(0x4C, 2), "ext4 of revision 2"},
		{"lazy_bg", or(0x5C, 0x40), "ext4 with lazy_bg"},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := bytes.Clone(image)
			setSuper(changed, test.change)
			r, reports, err := Trim(t.Context(), bytes.NewReader(changed))
			if test.kept == "" {
				if !errors.Is(err, ErrNotClean) || r != nil {
					t.Errorf("error %v, reports %+v, want ErrNotClean", err, reports)
				}
				return
			}
			if err != nil || len(reports) != 1 || reports[0].Kept != test.kept || reports[0].Freed != 0 {
				t.Fatalf("error %v, reports %+v, want %q", err, reports, test.kept)
			}
			if !bytes.Equal(readAll(t, r), changed) {
				t.Error("the disk is not as it was")
			}
		})
	}

	// Behind the superblock.
	for _, test := range []struct {
		name string
		off  int
	}{
		{"superblock without its checksum", 1024 + 0x88},
		{"descriptor without its checksum", 2048 + 0x0C},
		{"bitmap without its checksum", int(le.Uint32(image[2048:]))*1024 + 100},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := bytes.Clone(image)
			changed[test.off] ^= 0x10
			if _, _, err := Trim(t.Context(), bytes.NewReader(changed)); !errors.Is(err, ErrNotClean) {
				t.Errorf("error %v, want ErrNotClean", err)
			}
		})
	}
}

// A bitmap with as many free blocks as before, but others, does not fit its
// checksum. A group without bitmap whose descriptor has another number of free
// blocks than there would be stays as it is.
func TestTrimExtGroups(t *testing.T) {
	path := makeExt(t, 4<<20, 0, 4<<20, "-t", "ext4", "-b", "1024", "-g", "512", "-O", "^has_journal")
	image, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fs, err := openExt(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	var swapped, uninit bool
	for g, err := range fs.descriptors {
		if err != nil {
			t.Fatal(err)
		}
		changed := bytes.Clone(image)
		bits := bitmap(changed[g.blockBitmap<<10:][:fs.perGroup/8])
		switch {
		case g.uninit && !uninit:
			uninit = true
			d := changed[2048+g.number*fs.descSize:][:fs.descSize]
			d[0x0C]-- // the lower byte of how many are free
			sum := extSum(extSum(fs.seed, binary.LittleEndian.AppendUint32(nil, uint32(g.number))), d[:0x1E])
			sum = extSum(extSum(sum, []byte{0, 0}), d[0x20:])
			binary.LittleEndian.PutUint16(d[0x1E:], uint16(sum))
			r, _, err := Trim(t.Context(), bytes.NewReader(changed))
			if err != nil {
				t.Fatal(err)
			}
			from, to := fs.start(g.number)<<10, fs.start(g.number+1)<<10
			if !bytes.Equal(readAll(t, r)[from:to], changed[from:to]) {
				t.Errorf("group %d is not as it was", g.number)
			}
			if bytes.Equal(readAll(t, r), changed) {
				t.Error("nothing at all was dropped")
			}
		case !g.uninit && !swapped && bits.zeros(fs.perGroup) > 0 && bits.zeros(fs.perGroup) < fs.perGroup/2:
			swapped = true
			free := bits.next(0, fs.perGroup, false)
			used := fs.perGroup - 1
			for bits.next(used, fs.perGroup, true) != used {
				used--
			}
			bits.set(free, free+1)
			bits[used/8] &^= 1 << (used % 8)
			if _, _, err := Trim(t.Context(), bytes.NewReader(changed)); !errors.Is(err, ErrNotClean) {
				t.Errorf("error %v, want ErrNotClean", err)
			}
		}
	}
	if !swapped || !uninit {
		t.Error("the file system has not all kinds of groups")
	}
}

// Where copies of superblock and descriptors are, mke2fs's way.
func TestExtCopies(t *testing.T) {
	for _, test := range []struct {
		name string
		fs   extFS
		want map[int64]int64 // others have none
	}{
		{"all", extFS{blockSize: 4096, descSize: 32, descBlocks: 1}, map[int64]int64{0: 2, 1: 2, 2: 2, 3: 2, 4: 2, 5: 2, 6: 2, 7: 2, 8: 2, 9: 2}},
		{"sparse_super", extFS{blockSize: 4096, descSize: 32, descBlocks: 3, reserved: 5, roCompat: extROSparse},
			map[int64]int64{0: 9, 1: 9, 3: 9, 5: 9, 7: 9, 9: 9, 25: 9, 27: 9, 49: 9, 81: 9, 125: 9}},
		{"sparse_super2", extFS{blockSize: 4096, descSize: 32, descBlocks: 3, compat: extCompatSparse2, backups: [2]int64{1, 99}}, map[int64]int64{0: 4, 1: 4, 99: 4}},
		{"bigalloc of 1K", extFS{blockSize: 1024, descSize: 32, descBlocks: 1, roCompat: extROSparse | extROBigalloc},
			map[int64]int64{0: 3, 1: 2, 3: 2, 5: 2, 7: 2, 9: 2, 25: 2, 27: 2, 49: 2, 81: 2, 125: 2}},
		{"meta_bg", extFS{blockSize: 1024, first: 1, descSize: 32, descBlocks: 4, roCompat: extROSparse, incompat: extMetaBG},
			map[int64]int64{0: 2, 1: 2, 3: 1, 5: 1, 7: 1, 9: 1, 25: 1, 27: 1, 31: 1, 32: 1, 33: 1, 49: 1, 63: 1, 64: 1, 65: 1, 81: 1, 95: 1, 96: 1, 97: 1, 125: 1, 127: 1}},
		{"meta_bg from the second block on", extFS{blockSize: 1024, first: 1, descSize: 32, descBlocks: 4, roCompat: extROSparse, incompat: extMetaBG, firstMetaBG: 1},
			map[int64]int64{0: 2, 1: 2, 3: 2, 5: 2, 7: 2, 9: 2, 25: 2, 27: 2, 32: 1, 33: 1, 49: 1, 63: 1, 64: 1, 65: 1, 81: 1, 95: 1, 96: 1, 97: 1, 125: 1, 127: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			groups := int64(128)
			if test.name == "all" {
				groups = 10
			}
			for group := range groups {
				if got := test.fs.copies(group); got != test.want[group] {
					t.Errorf("%d blocks of copies in group %d, want %d", got, group, test.want[group])
				}
			}
		})
	}
}

// Without checksums, a bitmap is believed if it has as many free blocks as its
// descriptor says and if metadata is not among them.
func TestTrimExtContradicts(t *testing.T) {
	image, err := os.ReadFile(makeExt(t, 4<<20, 0, 4<<20, "-t", "ext2", "-b", "1024", "-g", "1024"))
	if err != nil {
		t.Fatal(err)
	}
	// The block bitmap of the second group, and where it has free blocks.
	second := 2048 + 32
	first := int(binary.LittleEndian.Uint32(image[second:])) * 1024
	free := bytes.IndexByte(image[first:first+128], 0)
	if free < 0 {
		t.Fatal("no free blocks in the second group")
	}
	for _, test := range []struct {
		name   string
		change func(p []byte)
	}{
		{"a free block more", func(p []byte) { p[first+free] |= 1 }},
		{"a free block less", func(p []byte) { p[first] &^= 1 }},
		{"metadata in place of a free block", func(p []byte) { p[first+free] |= 1; p[first] &^= 1 }},
		{"bitmap beyond the end", func(p []byte) { binary.LittleEndian.PutUint32(p[second:], 1<<30) }},
		{"bitmap on the superblock", func(p []byte) { binary.LittleEndian.PutUint32(p[second:], 0) }},
		{"inode table over the end", func(p []byte) { binary.LittleEndian.PutUint32(p[second+8:], 4095) }},
		{"one table for two groups", func(p []byte) { copy(p[second+8:], p[2048+8:2048+12]) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := bytes.Clone(image)
			test.change(changed)
			if _, _, err := Trim(t.Context(), bytes.NewReader(changed)); !errors.Is(err, ErrNotClean) {
				t.Errorf("error %v, want ErrNotClean", err)
			}
		})
	}
}

// A scattered file system has a million groups, and no two of its tables touch.
type scattered struct{ superblock []byte }

const scatteredBlocks = 1 << 23

func (scattered) Size() int64 { return scatteredBlocks << 10 }

func (s scattered) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off <= 1024 && 2048 <= off+int64(len(p)) {
		copy(p[1024-off:], s.superblock)
	}
	for group := (off - 2048) / 32; off >= 2048 && len(p) >= 32; group, p = group+1, p[32:] {
		for i := range uint32(3) {
			binary.LittleEndian.PutUint32(p[4*i:], uint32(100_000+6*group)+2*i)
		}
	}
	return len(p), nil
}

// What a file system says does not decide how much memory its opener takes.
func TestExtMemory(t *testing.T) {
	sb := make([]byte, 1024)
	for at, n := range map[int]uint32{
		0x04: scatteredBlocks, 0x14: 1, 0x20: 8, 0x28: 8, 0x38: 0xEF53, 0x3A: 1, // blocks, first, per group, inodes per group, magic, state
		0x4C: 1, 0x58: 128, // revision, inodes
	} {
		binary.LittleEndian.PutUint32(sb[at:], binary.LittleEndian.Uint32(sb[at:])|n)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := ext(scattered{sb})
	runtime.ReadMemStats(&after)
	if want := "ext with more than 262144 scattered tables"; !errors.Is(err, errUnknown) || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<20 {
		t.Errorf("%d bytes allocated for a file system that is refused", got)
	}
}
