package vhdx_test

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vhdx"
	"github.com/davit-oci/davit/internal/programs"
)

// The image of TestLog: block 0 is there, block 1 is elsewhere in the file
// without an entry that says so.
func unlogged() (i *image, a, b []byte, elsewhere uint64) {
	a, b = disktest.Mixture(mib, 11), disktest.Mixture(mib, 12)
	i = newImage(2*mib, mib, 512, nil)
	i.block(0, 6, a)
	at := i.allocate(mib)
	i.patch(at, b)
	return i, a, b, uint64(at) | 6
}

// What a log says is what the disk holds. Whether QEMU replays the log and then
// reads the same is asked where it can be: it does not look at tails.
func TestLog(t *testing.T) {
	zeros := make([]byte, mib)
	junk := bytes.Repeat([]byte{0xdd}, 4096)
	for name, test := range map[string]struct {
		log  func(i *image, elsewhere uint64)
		want string // a block each: "a", "b", zeros, or an error
		qemu bool
	}{
		"an entry": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 7, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
		}, "ab", true},
		"zeros": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 1, updates: []logUpdate{{off: batAt, length: 4096}}})
		}, "00", true},
		"zeros, then data": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 1, updates: []logUpdate{{off: batAt, length: 65536}, i.sectorOf(batAt+8, e)}})
		}, "ab", true},
		"data, then zeros": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 1, updates: []logUpdate{i.sectorOf(batAt+8, e), {off: batAt - 65536, length: 128 * kib}}})
		}, "00", true},
		"several entries": {func(i *image, e uint64) {
			next := i.log(0, logEntry{sequence: 3, updates: []logUpdate{i.sectorOf(batAt, 2)}})
			next = i.log(next, logEntry{sequence: 4, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
			i.log(next, logEntry{sequence: 5, updates: []logUpdate{{off: batAt + 4096, length: 4096}}})
		}, "ab", true},
		"not at its beginning": {func(i *image, e uint64) {
			i.log(5*4096, logEntry{sequence: 3, tail: 5 * 4096, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
		}, "ab", true},
		"an empty entry": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 1})
		}, "a0", true},
		"sectors after the data": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 1, padding: 3, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
		}, "ab", true},
		"two sectors of descriptors": {func(i *image, e uint64) {
			var updates []logUpdate
			for n := range int64(200) {
				updates = append(updates, logUpdate{off: 8*mib + 4096*n, length: 4096})
			}
			i.log(0, logEntry{sequence: 1, updates: append(updates, i.sectorOf(batAt+8, e))})
		}, "ab", false}, // QEMU 7.2 reads the second sector over the first
		"the newest of two sequences": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 10, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
			i.log(8*4096, logEntry{sequence: 8, tail: 8 * 4096, updates: []logUpdate{{off: batAt, length: 4096}}})
		}, "ab", true},
		"another newest of two sequences": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 8, updates: []logUpdate{{off: batAt, length: 4096}}})
			i.log(8*4096, logEntry{sequence: 1 << 40, tail: 8 * 4096, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
		}, "ab", true},
		"an old entry behind it": {func(i *image, e uint64) {
			next := i.log(0, logEntry{sequence: 8, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
			i.log(next, logEntry{sequence: 2, tail: next, updates: []logUpdate{{off: batAt, length: 4096}}})
		}, "ab", false},
		"an entry of another log": {func(i *image, e uint64) {
			next := i.log(0, logEntry{sequence: 8, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
			i.log(next, logEntry{sequence: 9, guid: dataGUID, updates: []logUpdate{{off: batAt, length: 4096}}})
		}, "ab", true},
		"entries that are in place already": {func(i *image, e uint64) {
			next := i.log(0, logEntry{sequence: 3, updates: []logUpdate{{off: batAt, length: 4096}}})
			i.log(next, logEntry{sequence: 4, tail: next, updates: []logUpdate{{off: batAt + 4096, length: 4096}}})
		}, "a0", false},
		"around the end": {func(i *image, e uint64) {
			start := int64(mib - 3*4096)
			next := i.log(start, logEntry{sequence: 3, tail: start, updates: []logUpdate{i.sectorOf(batAt, 2)}})
			next = i.log(next, logEntry{sequence: 4, tail: start, updates: []logUpdate{i.sectorOf(batAt+8, e)}}) // itself around the end
			i.log(next, logEntry{sequence: 5, tail: start, updates: []logUpdate{{off: batAt + 8192, length: 4096}}})
		}, "ab", false},
		"around the end, between two": {func(i *image, e uint64) {
			start := int64(mib - 2*4096)
			next := i.log(start, logEntry{sequence: 3, tail: start, updates: []logUpdate{i.sectorOf(batAt, 2)}})
			i.log(next, logEntry{sequence: 4, tail: start, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
		}, "ab", false},
		"a torn last entry": {func(i *image, e uint64) {
			next := i.log(0, logEntry{sequence: 3, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
			i.log(next, logEntry{sequence: 4, updates: []logUpdate{{off: batAt, sector: junk}, {off: batAt + 4096, sector: junk}}})
			i.patch(logAt+next+2*4096, junk)
		}, "ab", true},
		"a torn last entry, by its checksum": {func(i *image, e uint64) {
			next := i.log(0, logEntry{sequence: 3, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
			i.log(next, logEntry{sequence: 4, updates: []logUpdate{{off: batAt, sector: junk}}})
			i.patch(logAt+next+4096+100, []byte{1})
		}, "ab", true},
		"a gap in the numbers": {func(i *image, e uint64) {
			next := i.log(0, logEntry{sequence: 3, updates: []logUpdate{{off: batAt, length: 4096}}})
			i.log(next, logEntry{sequence: 5, tail: next, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
		}, "ab", false},
		"a tail that is no more": {func(i *image, e uint64) {
			next := i.log(0, logEntry{sequence: 3, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
			i.log(next+4096, logEntry{sequence: 5, tail: next, updates: []logUpdate{{off: batAt, length: 4096}}})
		}, "ab", false},
		"the region table": {func(i *image, e uint64) {
			table := make([]byte, 4096)
			i.ReadAt(table, 192*kib)
			i.patch(192*kib, junk)
			i.patch(256*kib, junk)
			i.log(0, logEntry{sequence: 3, updates: []logUpdate{{off: 192 * kib, sector: table}, i.sectorOf(batAt+8, e)}})
		}, "ab", true},
		"a file that grows": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 3, last: 9 * mib, updates: []logUpdate{i.sectorOf(batAt+8, 8*mib|6)}})
		}, "a0", false},
		"a file that grows by zeros": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 3, updates: []logUpdate{i.sectorOf(batAt+8, 8*mib|6), {off: 9*mib - 4096, length: 4096}}})
		}, "a0", true},
		"a file that was cut": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 3, flushed: 7 * mib, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
		}, "cut short", true},
		"a file that was not cut": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 3, flushed: 6 * mib, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
		}, "ab", true},
		"nothing":    {func(*image, uint64) {}, "no valid sequence", false},
		"wrong GUID": {func(i *image, e uint64) { i.log(0, logEntry{sequence: 3, guid: dataGUID}) }, "no valid sequence", false},
		"number 0":   {func(i *image, e uint64) { i.log(0, logEntry{}) }, "no valid sequence", false},
		"a crooked offset": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 3, updates: []logUpdate{{off: batAt + 512, length: 4096}}})
		}, "no valid sequence", false},
		"a crooked length": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 3, updates: []logUpdate{{off: batAt, length: 512}}})
		}, "no valid sequence", false},
		"offsets that overflow": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 3, updates: []logUpdate{{off: 1<<63 - 4096, length: 8192}}})
		}, "no valid sequence", false},
		"a crooked entry": {func(i *image, e uint64) { i.log(0, logEntry{sequence: 3, padding: 1, length: 8192 - 512}) }, "no valid sequence", false},
		"fewer descriptors than it says": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 3, length: 4096, updates: make([]logUpdate, 200)})
		}, "no valid sequence", false},
		"less data than descriptors": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 3, length: 8192, updates: []logUpdate{i.sectorOf(batAt+8, e), i.sectorOf(batAt+4096, e)}})
		}, "no valid sequence", false},
		"data of another entry": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 3, change: func(b []byte) { b[4100]++ }, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
		}, "no valid sequence", false},
		"data of another entry, at its end": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 3, change: func(b []byte) { b[8188]++ }, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
		}, "no valid sequence", false},
		"a descriptor of another entry": {func(i *image, e uint64) {
			i.log(0, logEntry{sequence: 3, change: func(b []byte) { b[64+24]++ }, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
		}, "no valid sequence", false},
		"a crooked tail behind it": {func(i *image, e uint64) {
			next := i.log(0, logEntry{sequence: 3, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
			i.log(next, logEntry{sequence: 4, tail: 8, updates: []logUpdate{{off: batAt, length: 4096}}})
		}, "ab", false},
		"a gap in the numbers, a tail before it": {func(i *image, e uint64) {
			next := i.log(0, logEntry{sequence: 3, updates: []logUpdate{i.sectorOf(batAt+8, e)}})
			i.log(next, logEntry{sequence: 5, updates: []logUpdate{{off: batAt, length: 4096}}})
		}, "ab", false},
		"a crooked tail": {func(i *image, e uint64) { i.log(0, logEntry{sequence: 3, tail: 8}) }, "no valid sequence", false},
		"no log": {func(i *image, e uint64) {
			i.header(1, func(b []byte) { clear(b[68:80]) })
		}, "log of 0 bytes", false},
		"no space for a log": {func(i *image, e uint64) {
			i.header(1, func(b []byte) { clear(b[68:72]) })
		}, "no valid sequence", false},
		"a log that is not there": {func(i *image, e uint64) {
			i.header(1, func(b []byte) { le.PutUint64(b[72:], 6*mib) })
		}, "log of 1048576 bytes at 0x600000: the file ends", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i, a, b, elsewhere := unlogged()
			i.dirty()
			test.log(i, elsewhere)
			blocks := map[byte][]byte{'a': a, 'b': b, '0': zeros}
			img, err := vhdx.Open(i, vhdx.Options{})
			content := append(bytes.Clone(blocks[test.want[0]]), blocks[test.want[1]]...)
			if len(test.want) > 2 {
				wantRefusal(t, err, disk.ErrCorrupt, test.want)
				wantRefusal(t, err, disk.ErrCorrupt, "log")
			} else if err != nil {
				t.Fatal(err)
			} else {
				testContent(t, img, content)
			}
			if !test.qemu {
				return
			}
			path := i.save(t, tempFile(t))
			out, err := exec.CommandContext(t.Context(), programs.Need(t, "qemu-img"), "check", "-T", "unsafe", "-r", "all", "-f", "vhdx", path).CombinedOutput()
			if (err == nil) != (len(test.want) == 2) {
				t.Errorf("QEMU's replay: %v\n%s", err, out)
			} else if err == nil && !bytes.Equal(disktest.Flat(t, "-f", "vhdx", path), content) {
				t.Error("QEMU reads something else")
			}
		})
	}
}

// An image as QEMU leaves it when it is killed after it has written its log and
// before it has written the BAT.
func TestQEMULog(t *testing.T) {
	for _, log := range []string{"1M", "2M"} {
		path := tempFile(t)
		disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "vhdx", "-o", "block_size=1M,log_size="+log, path, "5M")
		disktest.QEMU(t, "qemu-io", "-t", "unsafe", "-f", "vhdx", "-c", "write -P 1 1M 2M", path)
		before := load(t, path)
		disktest.QEMU(t, "qemu-io", "-t", "unsafe", "-f", "vhdx", "-c", "write -P 3 4M 512k", path)
		want := disktest.Flat(t, "-f", "vhdx", path)

		i := &image{memory: load(t, path)}
		table := make([]byte, 32)
		i.ReadAt(table, 192*kib+16)
		at := int64(le.Uint64(table[16:]))
		bat := make([]byte, 4096)
		before.ReadAt(bat, at)
		i.patch(at, bat)
		entry := make([]byte, 64)
		i.ReadAt(entry, 1*mib)
		for n := range 2 {
			i.header(n, func(b []byte) { copy(b[48:], entry[32:48]) })
		}
		testContent(t, open(t, i, vhdx.Options{}), want)

		disktest.QEMU(t, "qemu-img", "check", "-q", "-T", "unsafe", "-r", "all", "-f", "vhdx", i.save(t, path))
		if !bytes.Equal(disktest.Flat(t, "-f", "vhdx", path), want) {
			t.Error("QEMU reads something else")
		}
	}
}

// A log that is made to take long to read, or much memory, is refused.
func TestHostileLogs(t *testing.T) {
	for name, test := range map[string]struct {
		log   func(i *image)
		kind  error
		words string
	}{
		"every sector begins an entry that is broken": {func(i *image) {
			e := logEntry{sequence: 1}.encode()
			le.PutUint32(e[8:], mib)
			for place := int64(0); place < mib; place += 4096 {
				i.patch(logAt+place, e)
			}
		}, disk.ErrCorrupt, "too many broken entries"},
		"updates without end": {func(i *image) {
			// A log that is larger than what is there, with holes.
			i.header(1, func(b []byte) { le.PutUint32(b[68:], 64*mib); le.PutUint64(b[72:], 8*mib) })
			var updates []logUpdate
			for n := range int64(32 << 10) {
				updates = append(updates, logUpdate{off: n * 8192, length: 1 << 50})
			}
			place := int64(8 * mib)
			for n := range uint64(9) {
				e := logEntry{sequence: n + 1, updates: updates}.encode()
				i.patch(place, e)
				place += int64(len(e))
			}
			i.memory.size = 80 * mib
		}, disk.ErrUnsupported, "294912 updates"},
		"a log of 4 GiB": {func(i *image) {
			i.header(1, func(b []byte) { le.PutUint32(b[68:], 4095*mib); le.PutUint64(b[72:], 8*mib) })
			i.memory.size = 8 * gib
		}, disk.ErrUnsupported, "log of 4293918720 bytes"},
		"a file without end": {func(i *image) {
			i.log(0, logEntry{sequence: 1, last: 1 << 62 * 3 / 2})
		}, disk.ErrCorrupt, "entry 1: a file"},
	} {
		i, _, _, _ := unlogged()
		i.dirty()
		test.log(i)
		before := disktest.Allocated()
		_, err := vhdx.Open(i, vhdx.Options{})
		if n := disktest.Allocated() - before; n > 64<<20 {
			t.Errorf("%s: allocated %d MiB", name, n>>20)
		}
		t.Run(name, func(t *testing.T) { wantRefusal(t, err, test.kind, test.words) })
	}
}

// The most that a log may say, and the way it overlaps, is sorted out in time.
func TestManyUpdates(t *testing.T) {
	i, a, b, elsewhere := unlogged()
	i.dirty()
	i.header(1, func(b []byte) { le.PutUint32(b[68:], 16*mib); le.PutUint64(b[72:], 8*mib) })
	var updates []logUpdate
	for n := range int64(200 << 10) {
		updates = append(updates, logUpdate{off: 32*mib + n%1000*4096, length: 4096 * (1 + n*7%5000)})
	}
	i.patch(8*mib, logEntry{sequence: 1, updates: append(updates, i.sectorOf(batAt+8, elsewhere))}.encode())
	i.memory.size = 24 * mib
	before := disktest.Allocated()
	img := open(t, i, vhdx.Options{})
	if n := disktest.Allocated() - before; n > 64<<20 {
		t.Errorf("allocated %d MiB", n>>20)
	}
	testContent(t, img, append(bytes.Clone(a), b...))
}

// A file keeps its log until somebody who may write has replayed it.
func TestFileIsNotChanged(t *testing.T) {
	i, _, _, elsewhere := unlogged()
	i.dirty()
	i.log(0, logEntry{sequence: 1, updates: []logUpdate{i.sectorOf(batAt+8, elsewhere)}})
	path := i.save(t, filepath.Join(t.TempDir(), "disk.vhdx"))
	before := disktest.ReadFile(t, path)
	img := open(t, raw(t, path), vhdx.Options{})
	for e, err := range disk.Extents(img) {
		if _, err2 := img.ReadAt(make([]byte, 1), e.Offset); errors.Join(err, err2) != nil {
			t.Fatal(fmt.Sprint(err, err2))
		}
	}
	if !bytes.Equal(disktest.ReadFile(t, path), before) {
		t.Error("the file is another")
	}
}
