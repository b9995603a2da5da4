package guest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
)

func TestXFS(t *testing.T) {
	for name, test := range map[string]struct {
		size int64
		args string
	}{
		"version 5":                 {32 << 20, "-d agcount=2"},
		"version 4":                 {32 << 20, "-m crc=0 -d agcount=2"},
		"version 4, log version 1":  {24 << 20, "-m crc=0 -l version=1 -d agcount=1"},
		"blocks of 512":             {20 << 20, "-m crc=0 -b size=512 -d agcount=1"},
		"blocks of 1024":            {20 << 20, "-b size=1024 -d agcount=1"},
		"blocks of 64 KiB":          {80 << 20, "-b size=65536 -d agcount=1"},
		"sectors of 4096":           {32 << 20, "-s size=4096 -d agcount=2"},
		"reverse mapping":           {32 << 20, "-m rmapbt=1 -d agcount=2"},
		"striped log":               {40 << 20, "-l su=256k -d agcount=2"},
		"AGs of which one is short": {39<<20 + 4096, "-d agsize=16m"},
		"shorter than its volume":   {48 << 20, "-d size=36m,agcount=2"},
	} {
		t.Run(name, func(t *testing.T) {
			path := stale(t, test.size)
			files := mkfsXFS(t, path, test.args)

			freeBlocks := int64(0)
			ags := xfsDB(t, path, "sb 0", "p agcount")
			for ag := range number(t, ags[0]) {
				freeBlocks += number(t, xfsDB(t, path, fmt.Sprintf("agf %d", ag), "p freeblks")[0])
			}
			blockSize := number(t, xfsDB(t, path, "sb 0", "p blocksize")[0])
			agBlocks := number(t, xfsDB(t, path, "sb 0", "p agblocks")[0])

			var free int64
			for _, e := range trimFile(t, path, openXFS) {
				free += e.Length
			}
			if want := freeBlocks * blockSize; free != want {
				t.Errorf("%d bytes are free, xfs_db has %d", free, want)
			}

			tool(t, "xfs_repair", "-n", "-f", "-o", "force_geometry", path)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range files {
				out := tool(t, "xfs_db", "-r", "-c", "path "+name, "-c", "bmap", path)
				var got []byte
				for _, m := range regexp.MustCompile(`\((\d+)/(\d+)\) count (\d+)`).FindAllStringSubmatch(out, -1) {
					start := (number(t, m[1])*agBlocks + number(t, m[2])) * blockSize
					got = append(got, b[start:][:number(t, m[3])*blockSize]...)
				}
				if len(got) < len(want) || !bytes.Equal(got[:len(want)], want) {
					t.Errorf("%s has changed, or is not found: %s", name, out)
				}
			}
		})
	}
}

// mkfsXFS makes a file system with files in it, and returns these.
func mkfsXFS(t *testing.T, path, args string) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	files := make(map[string][]byte)
	prototype := "/none\n0 0\nd--755 0 0\n"
	for i := range 5 {
		name := fmt.Sprintf("file%d", i)
		content := bytes.Repeat([]byte(name+"..."), 1+i*i*9000)
		host := filepath.Join(dir, name)
		if err := os.WriteFile(host, content, 0o600); err != nil {
			t.Fatal(err)
		}
		prototype += name + " ---644 0 0 " + host + "\n"
		files["/"+name] = content
	}
	proto := filepath.Join(dir, "prototype")
	if err := os.WriteFile(proto, []byte(prototype+"$\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	options := append(strings.Fields(args), "-q", "-f", "-K", "-p", proto, path)
	// Since 5.19 small file systems want an option that was not there before.
	var major, minor int
	version := tool(t, "mkfs.xfs", "-V")
	if _, err := fmt.Sscanf(version, "mkfs.xfs version %d.%d", &major, &minor); err != nil {
		t.Fatalf("mkfs.xfs -V says %q", version)
	}
	if major > 5 || major == 5 && minor >= 19 {
		options = append([]string{"--unsupported"}, options...)
	}
	tool(t, "mkfs.xfs", options...)
	return files
}

// xfsDB runs commands of xfs_db, which print fields.
func xfsDB(t *testing.T, path string, commands ...string) (values []string) {
	t.Helper()
	args := []string{"-r", "-f"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out := tool(t, "xfs_db", append(args, path)...)
	for line := range strings.Lines(out) {
		if _, value, ok := strings.Cut(line, " = "); ok {
			values = append(values, strings.TrimSpace(value))
		}
	}
	if len(values) == 0 {
		t.Fatalf("xfs_db %v says %s", commands, out)
	}
	return values
}

// # File systems by hand
//
// Written from "XFS Algorithms & Data Structures", 3rd edition: what mkfs does
// not make without a kernel that mounts it, and faults.

const (
	handBlock  = 512
	handAG     = 256 // blocks of an AG
	handBlocks = handAG + 200
	handLog    = 100 // the block of AG 1 in which the log begins
	handLogLen = 64
)

var be = binary.BigEndian

// handXFS is a file system of two AGs, with free extents in trees whose leaves have no more
// than perLeaf records, and nodes no more than perLeaf pointers.
func handXFS(version int, perLeaf int, free [2][]xfsExtent) []byte {
	b := make([]byte, handBlocks*handBlock)
	copy(b, "XFSB")
	be.PutUint32(b[4:], handBlock)
	be.PutUint64(b[8:], handBlocks)
	copy(b[32:48], "uuid of the file")
	be.PutUint64(b[48:], 1<<8|handLog)
	be.PutUint32(b[84:], handAG)
	be.PutUint32(b[88:], 2)
	be.PutUint32(b[96:], handLogLen)
	be.PutUint16(b[100:], 0xb4a0|uint16(version))
	be.PutUint16(b[102:], 512)
	b[120], b[121], b[124] = 9, 9, 8

	for ag := range 2 {
		agf := b[ag*handAG*handBlock+512:][:512]
		copy(agf, "XAGF")
		be.PutUint32(agf[4:], 1)
		be.PutUint32(agf[8:], uint32(ag))
		be.PutUint32(agf[12:], uint32(min(handAG, handBlocks-ag*handAG)))
		copy(agf[64:80], "uuid of the file")
		total := int64(0)
		for _, e := range free[ag] {
			total += e.n
		}
		be.PutUint32(agf[52:], uint32(total))
		next := uint32(4) // the block for the next part of the tree
		handTree(b, version, ag, agf, perLeaf, free[ag], &next)
	}
	handRecord(b, 1, 0, 1, true)
	signXFS(b, version)
	return b
}

func handTree(b []byte, version, ag int, agf []byte, perLeaf int, free []xfsExtent, next *uint32) {
	magic, header := "ABTB", 16
	if version == 5 {
		magic, header = "AB3B", 56
	}
	most := (handBlock - header) / 12
	newBlock := func(level int, n int) []byte {
		p := b[(ag*handAG+int(*next))*handBlock:][:handBlock]
		clear(p)
		copy(p, magic)
		be.PutUint16(p[4:], uint16(level))
		be.PutUint16(p[6:], uint16(n))
		be.PutUint32(p[8:], 0xffffffff)
		be.PutUint32(p[12:], 0xffffffff)
		if version == 5 {
			be.PutUint64(p[16:], uint64(ag*handAG+int(*next)))
			copy(p[32:48], "uuid of the file")
			be.PutUint32(p[48:], uint32(ag))
		}
		*next++
		return p[header:]
	}
	type child struct {
		key   xfsExtent
		block uint32
	}
	var row []child
	for i := 0; i == 0 || i < len(free); i += perLeaf {
		records := free[i:min(i+perLeaf, len(free))]
		c := child{block: *next}
		p := newBlock(0, len(records))
		for j, e := range records {
			c.key = records[0]
			be.PutUint32(p[8*j:], uint32(e.start))
			be.PutUint32(p[8*j+4:], uint32(e.n))
		}
		row = append(row, c)
	}
	level := 0
	for len(row) > 1 {
		level++
		var above []child
		for i := 0; i < len(row); i += perLeaf {
			children := row[i:min(i+perLeaf, len(row))]
			above = append(above, child{children[0].key, *next})
			p := newBlock(level, len(children))
			for j, c := range children {
				be.PutUint32(p[8*j:], uint32(c.key.start))
				be.PutUint32(p[8*j+4:], uint32(c.key.n))
				be.PutUint32(p[8*most+4*j:], c.block)
			}
		}
		row = above
	}
	be.PutUint32(agf[16:], row[0].block)
	be.PutUint32(agf[28:], uint32(level+1))
}

// handRecord writes a record of one operation to the log, which takes blocks
// at and at + 1; headers of version 2 are 1 block for 32 KiB of h_size.
func handRecord(b []byte, cycle uint32, at int, operations uint32, unmount bool) {
	for i := range 2 {
		clear(logBlock(b, at+i))
	}
	h := logBlock(b, at)
	be.PutUint32(h, 0xfeedbabe)
	be.PutUint32(h[4:], cycle)
	be.PutUint32(h[8:], 2)
	be.PutUint32(h[12:], 512)
	be.PutUint32(h[40:], operations)
	be.PutUint32(h[300:], 1)
	copy(h[304:320], "uuid of the file")
	be.PutUint32(h[320:], 32<<10)
	op := logBlock(b, at+1)
	be.PutUint32(op, cycle)
	op[8] = 0xaa
	if unmount {
		op[9] = 0x20
	}
}

func logBlock(b []byte, n int) []byte {
	return b[((handAG+handLog)*handBlock + (n+handLogLen)%handLogLen*512):][:512]
}

// cycles gives blocks of the log their cycle.
func cycles(b []byte, from, to int, cycle uint32) {
	for i := from; i < to; i++ {
		p := logBlock(b, i)
		clear(p)
		be.PutUint32(p, cycle)
	}
}

// signXFS puts the checksums of version 5.
func signXFS(b []byte, version int) {
	if version != 5 {
		return
	}
	sign := func(p []byte, off int) {
		clear(p[off : off+4])
		binary.LittleEndian.PutUint32(p[off:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	}
	sign(b[:512], 224)
	for ag := range 2 {
		sign(b[ag*handAG*handBlock+512:][:512], 216)
		for p := b[ag*handAG*handBlock:]; len(p) >= handBlock; p = p[handBlock:] {
			if string(p[:4]) == "AB3B" {
				sign(p[:handBlock], 52)
			}
		}
	}
}

// fragmented are free extents: 40 in AG 0, 3 in AG 1.
func fragmented() (free [2][]xfsExtent) {
	for i := range int64(40) {
		free[0] = append(free[0], xfsExtent{60 + 4*i, 1 + i%3})
	}
	free[1] = []xfsExtent{{50, 50}, {handLog + handLogLen, 1}, {190, 10}}
	return free
}

func TestXFSTrees(t *testing.T) {
	for _, version := range []int{4, 5} {
		for _, perLeaf := range []int{2, 5, 41, 57} {
			for name, free := range map[string][2][]xfsExtent{
				"fragmented": fragmented(),
				"full":       {},
				"half full":  {1: {{170, 30}}},
			} {
				if version == 5 && perLeaf == 41 {
					continue // as many pointers do not fit
				}
				var want []disk.Extent
				for ag := range free {
					for _, e := range free[ag] {
						want = append(want, disk.Extent{Offset: (int64(ag)*handAG + e.start) * handBlock, Length: e.n * handBlock})
					}
				}
				got, err := freeOf(bytes.NewReader(handXFS(version, perLeaf, free)), openXFS)
				if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("version %d, %d in a leaf, %s: got %v, %v, want %v", version, perLeaf, name, got, err, want)
				}
			}
		}
	}
}

func TestXFSLogs(t *testing.T) {
	clean := ""
	for name, test := range map[string]struct {
		do   func(b []byte)
		says string
	}{
		"of mkfs":           {func([]byte) {}, clean},
		"of a second mount": {func(b []byte) { cycles(b, 0, 20, 1); handRecord(b, 1, 20, 1, true) }, clean},
		"of many mounts":    {func(b []byte) { cycles(b, 0, 30, 8); handRecord(b, 8, 30, 1, true); cycles(b, 32, 64, 7) }, clean},
		"up to the end":     {func(b []byte) { cycles(b, 0, 64, 8); handRecord(b, 8, 62, 1, true) }, clean},
		"across the end":    {func(b []byte) { cycles(b, 0, 64, 7); handRecord(b, 7, 63, 1, true); be.PutUint32(logBlock(b, 0), 8) }, clean},
		"before its last":   {func(b []byte) { cycles(b, 0, 63, 8); handRecord(b, 8, 61, 1, true); cycles(b, 63, 64, 7) }, clean},
		"after one block": {func(b []byte) {
			cycles(b, 0, 64, 7)
			handRecord(b, 7, 63, 1, true)
			cycles(b, 0, 1, 8)
			logBlock(b, 0)[9] = 0x20
		}, clean},
		"with a long record": {func(b []byte) {
			cycles(b, 0, 8, 1)
			handRecord(b, 1, 2, 1, true)
			cycles(b, 4, 8, 1)
			be.PutUint32(logBlock(b, 2)[12:], 5*512)
		}, clean},
		"with two headers": {func(b []byte) {
			handRecord(b, 1, 1, 1, true)
			handRecord(b, 1, 0, 1, false)
			be.PutUint32(logBlock(b, 0)[320:], 64<<10)
		}, clean},
		"version 1":             {func(b []byte) { be.PutUint32(logBlock(b, 0)[8:], 1); be.PutUint32(logBlock(b, 0)[320:], 0) }, clean},
		"cleared by xfs_repair": {func(b []byte) { cycles(b, 0, 40, 0); cycles(b, 40, 64, 4); handRecord(b, 5, 0, 1, true) }, clean},
		"cleared, in use again": {func(b []byte) { cycles(b, 0, 40, 0); cycles(b, 40, 64, 4); handRecord(b, 5, 0, 1, false) }, "log to replay"},
		"zeros in a full one":   {func(b []byte) { cycles(b, 0, 64, 8); handRecord(b, 8, 62, 1, true); cycles(b, 50, 51, 0) }, "disorder"},
		"zeros before the head": {func(b []byte) {
			cycles(b, 0, 30, 8)
			handRecord(b, 8, 30, 1, true)
			cycles(b, 32, 64, 7)
			cycles(b, 9, 10, 0)
		}, "disorder"},
		"no unmount":         {func(b []byte) { handRecord(b, 1, 0, 1, false) }, "log to replay"},
		"two operations":     {func(b []byte) { handRecord(b, 1, 0, 2, true) }, "log to replay"},
		"after an unmount":   {func(b []byte) { handRecord(b, 1, 2, 1, false) }, "log to replay"},
		"many after unmount": {func(b []byte) { cycles(b, 2, 40, 1); handRecord(b, 1, 40, 7, false) }, "log to replay"},
		"half written":       {func(b []byte) { cycles(b, 2, 5, 1) }, "log to replay"},
		"wrapped":            {func(b []byte) { cycles(b, 0, 30, 8); handRecord(b, 8, 30, 1, false); cycles(b, 32, 64, 7) }, "log to replay"},
		"hole": {func(b []byte) {
			cycles(b, 0, 30, 8)
			handRecord(b, 8, 30, 1, true)
			cycles(b, 32, 64, 7)
			cycles(b, 9, 10, 7)
		}, "disorder"},
		"ahead": {func(b []byte) {
			cycles(b, 0, 30, 8)
			handRecord(b, 8, 30, 1, true)
			cycles(b, 32, 64, 7)
			cycles(b, 40, 41, 8)
		}, ""},
		"hole in a full one":  {func(b []byte) { cycles(b, 0, 64, 8); handRecord(b, 8, 62, 1, true); cycles(b, 50, 51, 7) }, "disorder"},
		"begun in a full one": {func(b []byte) { cycles(b, 0, 64, 8); handRecord(b, 8, 62, 1, true); cycles(b, 2, 3, 9) }, "disorder"},
		"zeros":               {func(b []byte) { cycles(b, 0, 64, 0) }, "cycle 0 to 0"},
		"noise":               {func(b []byte) { cycles(b, 0, 32, 9); cycles(b, 32, 64, 4) }, "cycle 9 to 4"},
		"noise inside":        {func(b []byte) { cycles(b, 0, 30, 8); cycles(b, 30, 64, 7); cycles(b, 31, 32, 5) }, "cycle 5"},
		"no record":           {func(b []byte) { cycles(b, 0, 64, 8) }, "no record"},
		"of another":          {func(b []byte) { logBlock(b, 0)[304]++ }, "another file system"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, version := range []int{4, 5} {
				b := handXFS(version, 5, fragmented())
				test.do(b)
				if name == "ahead" { // wherever the search lands, it is seen
					if _, err := freeOf(bytes.NewReader(b), openXFS); err == nil {
						t.Error("is clean")
					}
					continue
				}
				if test.says != clean {
					wantRefused(t, bytes.NewReader(b), openXFS, ErrNotClean, test.says)
				} else if _, err := freeOf(bytes.NewReader(b), openXFS); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// In a long log, what a crash can have left around the head is looked at, and
// no more: the ring goes on at its end.
func TestXFSLongLog(t *testing.T) {
	const blocks, inFlight = 3 * 4096, 4096
	for _, head := range []int{0, 100, 6001, blocks - 100} {
		for _, test := range []struct {
			odd   int // from the head on
			found bool
		}{
			{-2, true}, {-99, true}, {-101, true}, {1 - inFlight, true}, {-inFlight, true}, {-inFlight - 300, false},
			{99, true}, {101, true}, {inFlight - 2, true}, {inFlight + 300, false},
		} {
			ring := make([]byte, blocks*512)
			for i := range blocks {
				cycle := uint32(8)
				if head > 0 && i >= head {
					cycle = 7
				}
				be.PutUint32(ring[i*512:], cycle)
			}
			odd := (head + test.odd + blocks) % blocks
			if odd == blocks-1 || odd == 0 {
				continue // they decide what the cycles are
			}
			be.PutUint32(ring[odd*512:], 15-be.Uint32(ring[odd*512:])) // of the other cycle
			l := &xlog{v: bytes.NewReader(ring), blocks: blocks}
			got, err := l.head()
			if test.found != (err != nil) || err == nil && got != int64(head) {
				t.Errorf("head at %d, disorder %d blocks from it: got %d, %v", head, test.odd, got, err)
			}
		}
	}
}

func TestXFSRefuses(t *testing.T) {
	agf := func(b []byte, ag int) []byte { return b[ag*handAG*handBlock+512:] }
	root := func(b []byte) []byte { return b[be.Uint32(agf(b, 0)[16:])*handBlock:] }
	leaf := func(b []byte) []byte { return b[4*handBlock:] }
	for name, test := range map[string]struct {
		versions string
		do       func(b []byte)
		want     error
		says     string
	}{
		"other magic":           {"4 5", func(b []byte) { b[0] = 'x' }, errUnknown, "none of XFS"},
		"version 3":             {"4", func(b []byte) { b[101] = 3 }, errUnknown, "version 3"},
		"version 6":             {"5", func(b []byte) { b[101] = 6 }, errUnknown, "version 6"},
		"sectors of 768":        {"4 5", func(b []byte) { b[102] = 3 }, ErrNotClean, "sectors of"},
		"sectors of 2^8":        {"4 5", func(b []byte) { b[102], b[103], b[121] = 1, 0, 8 }, ErrNotClean, "sectors of"},
		"needs repair":          {"5", func(b []byte) { b[219] = 0x10 }, ErrNotClean, "xfs_repair"},
		"unknown feature":       {"5", func(b []byte) { b[218] = 0x02 }, errUnknown, "features 0x200"},
		"unknown ro feature":    {"5", func(b []byte) { b[215] = 0x10 }, errUnknown, "read-only compatible features 0x10"},
		"in progress":           {"4 5", func(b []byte) { b[126] = 1 }, ErrNotClean, "inprogress"},
		"realtime device":       {"4 5", func(b []byte) { b[23] = 1 }, errUnknown, "realtime"},
		"external log":          {"4 5", func(b []byte) { clear(b[48:56]) }, errUnknown, "external log"},
		"blocks of 256":         {"4 5", func(b []byte) { b[6], b[120] = 1, 8 }, ErrNotClean, "blocks of"},
		"blocks of 128 KiB":     {"4 5", func(b []byte) { b[5], b[6], b[120] = 2, 0, 17 }, ErrNotClean, "blocks of"},
		"blocks contradict":     {"4 5", func(b []byte) { b[120] = 10 }, ErrNotClean, "blocks of"},
		"sectors over blocks":   {"4", func(b []byte) { b[102], b[121] = 4, 10 }, ErrNotClean, "and sectors of 1024"},
		"too large":             {"4 5", func(b []byte) { be.PutUint64(b[8:], handBlocks+1) }, ErrNotClean, "the volume has"},
		"far too large":         {"4 5", func(b []byte) { b[8] = 0x80 }, ErrNotClean, "the volume has"},
		"tiny AGs":              {"4 5", func(b []byte) { be.PutUint32(b[84:], 32) }, ErrNotClean, "allocation groups"},
		"too many AGs":          {"4 5", func(b []byte) { b[91] = 3 }, ErrNotClean, "allocation groups"},
		"no AGs":                {"4 5", func(b []byte) { b[91] = 0 }, ErrNotClean, "allocation groups"},
		"tiny last AG":          {"4 5", func(b []byte) { be.PutUint64(b[8:], handAG+63) }, ErrNotClean, "allocation groups"},
		"block numbers":         {"4 5", func(b []byte) { b[124] = 9 }, ErrNotClean, "9 bits"},
		"log outside its AG":    {"4 5", func(b []byte) { b[99] = 101 }, ErrNotClean, "log of 101 blocks"},
		"log in no AG":          {"4 5", func(b []byte) { b[54] = 2 }, ErrNotClean, "log of"},
		"no log":                {"4 5", func(b []byte) { b[99] = 0 }, ErrNotClean, "log of 0 blocks"},
		"no AGF":                {"4 5", func(b []byte) { agf(b, 1)[0] = 0 }, ErrNotClean, "allocation group 1: "},
		"AGF version 2":         {"4 5", func(b []byte) { agf(b, 1)[7] = 2 }, ErrNotClean, "no AGF"},
		"AGF of another":        {"5", func(b []byte) { agf(b, 0)[64]++ }, ErrNotClean, "of another file system"},
		"AGF of AG 1":           {"4 5", func(b []byte) { agf(b, 0)[11] = 1 }, ErrNotClean, "AGF of allocation group 1"},
		"AGF of another size":   {"4 5", func(b []byte) { agf(b, 1)[15]++ }, ErrNotClean, "with 201 blocks"},
		"tree without levels":   {"4 5", func(b []byte) { agf(b, 0)[31] = 0 }, ErrNotClean, "0 levels"},
		"tree of 10 levels":     {"4 5", func(b []byte) { agf(b, 0)[31] = 10 }, ErrNotClean, "10 levels"},
		"root outside":          {"4 5", func(b []byte) { agf(b, 0)[18] = 1 }, ErrNotClean, "is outside"},
		"free blocks":           {"4 5", func(b []byte) { agf(b, 0)[55]++ }, ErrNotClean, "the AGF has"},
		"no root":               {"4 5", func(b []byte) { root(b)[0] = 0 }, ErrNotClean, "level 2"},
		"root of level 1":       {"4 5", func(b []byte) { root(b)[5] = 1 }, ErrNotClean, "level 2"},
		"empty node":            {"4 5", func(b []byte) { root(b)[7] = 0 }, ErrNotClean, "0 pointers"},
		"node over its end":     {"4 5", func(b []byte) { root(b)[7] = 42 }, ErrNotClean, "42 pointers"},
		"empty leaf":            {"4 5", func(b []byte) { leaf(b)[7] = 0 }, ErrNotClean, "empty leaf"},
		"empty leaf, not first": {"4 5", func(b []byte) { b[5*handBlock+7] = 0 }, ErrNotClean, "0 records"},
		"leaf over its end":     {"4 5", func(b []byte) { leaf(b)[7] = 63 }, ErrNotClean, "63 records"},
		"block of elsewhere":    {"5", func(b []byte) { leaf(b)[23]++ }, ErrNotClean, "another free space B+tree"},
		"block of another":      {"5", func(b []byte) { leaf(b)[32]++ }, ErrNotClean, "another free space B+tree"},
		"block of AG 1":         {"5", func(b []byte) { leaf(b)[51]++ }, ErrNotClean, "another free space B+tree"},
		"a leaf twice":          {"4 5", func(b []byte) { twice(root(b)) }, ErrNotClean, "where they cannot be"},
		"record in the header":  {"4 5", func(b []byte) { records(leaf(b))[3] = 3 }, ErrNotClean, "where they cannot be"},
		"record of nothing":     {"4 5", func(b []byte) { records(leaf(b))[7] = 0 }, ErrNotClean, "where they cannot be"},
		"record over the end":   {"4 5", func(b []byte) { records(leaf(b))[7] = 200 }, ErrNotClean, "where they cannot be"},
		"record far outside":    {"4 5", func(b []byte) { records(leaf(b))[0] = 0xff }, ErrNotClean, "where they cannot be"},
		"records overlap":       {"4 5", func(b []byte) { records(leaf(b))[7] = 5 }, ErrNotClean, "where they cannot be"},
		"record in the log":     {"4 5", func(b []byte) { records(b[(handAG+4)*handBlock:])[7] = 51 }, ErrNotClean, "where the log is"},
	} {
		for _, version := range []int{4, 5} {
			if !strings.Contains(test.versions, fmt.Sprint(version)) {
				continue
			}
			t.Run(fmt.Sprintf("%s, version %d", name, version), func(t *testing.T) {
				b := handXFS(version, 5, fragmented())
				test.do(b)
				signXFS(b, version)
				wantRefused(t, bytes.NewReader(b), openXFS, test.want, test.says)
			})
		}
	}
	wantRefused(t, bytes.NewReader(nil), openXFS, ErrNotClean, "volume ends")
}

// twice lets a node point to its first child where the second was.
func twice(node []byte) {
	pointers := records(node)[(handBlock-16)/12*8:]
	if string(node[:4]) == "AB3B" {
		pointers = records(node)[(handBlock-56)/12*8:]
	}
	copy(pointers[4:8], pointers[:4])
}

// records are those of a leaf, of any version.
func records(leaf []byte) []byte {
	if string(leaf[:4]) == "AB3B" {
		return leaf[56:]
	}
	return leaf[16:]
}

func TestXFSChecksums(t *testing.T) {
	for says, off := range map[string]int{
		"checksum of the superblock":   200,
		"checksum of the AGF":          512 + 100,
		"checksum of block 5, free sp": 5*handBlock + 400,
	} {
		b := handXFS(5, 5, fragmented())
		b[off]++
		wantRefused(t, bytes.NewReader(b), openXFS, ErrNotClean, says)
	}
}

// With META_UUID, metadata keeps its UUID when the file system gets another,
// which the log has.
func TestXFSMetaUUID(t *testing.T) {
	b := handXFS(5, 5, fragmented())
	b[219] = 0x04
	copy(b[248:264], b[32:48])
	copy(b[32:48], "a new uuid......")
	signXFS(b, 5)
	wantRefused(t, bytes.NewReader(b), openXFS, ErrNotClean, "log is that of another")
	copy(logBlock(b, 0)[304:], "a new uuid......")
	if _, err := freeOf(bytes.NewReader(b), openXFS); err != nil {
		t.Error(err)
	}
}

// What people do to images, and what the log looks like then.
func TestXFSTools(t *testing.T) {
	path := stale(t, 32<<20)
	mkfsXFS(t, path, "-d agcount=2")
	for _, command := range [][]string{
		{"xfs_repair", "-L", "-f", path},
		{"xfs_db", "-x", "-f", "-c", "uuid generate", path},
		{"xfs_db", "-x", "-f", "-c", "uuid restore", path},
	} {
		tool(t, command[0], command[1:]...)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if free, err := freeOf(bytes.NewReader(b), openXFS); err != nil || len(free) == 0 {
			t.Errorf("%v: got %v, %v", command, free, err)
		}
	}
	trimFile(t, path, openXFS)
	tool(t, "xfs_repair", "-n", "-f", path)
}

// A consumer that has enough is not asked again.
func TestXFSEnough(t *testing.T) {
	ranges, err := openXFS(bytes.NewReader(handXFS(5, 5, fragmented())))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range ranges {
		if n++; n == 7 {
			break
		}
	}
	if n != 7 {
		t.Errorf("got %d ranges", n)
	}
}

func TestXFSMutations(t *testing.T) {
	b := handXFS(4, 5, fragmented())
	mutate(t, b, openXFS, 0, 272)
	mutate(t, b, openXFS, handBlock, handBlock+64)
	mutate(t, b, openXFS, 4*handBlock, 4*handBlock+64)
	root := int(be.Uint32(b[512+16:])) * handBlock
	mutate(t, b, openXFS, root, root+32)
	mutate(t, b, openXFS, root+344, root+356) // its pointers
	mutate(t, b, openXFS, handAG*handBlock+512, handAG*handBlock+512+64)
	log := (handAG + handLog) * handBlock
	mutate(t, b, openXFS, log, log+64)
	mutate(t, b, openXFS, log+300, log+512+32)
	mutate(t, handXFS(5, 5, fragmented()), openXFS, 0, 272)
}

func FuzzXFS(f *testing.F) {
	log := uint32((handAG + handLog) * handBlock)
	fuzzOpener(f, openXFS, [][]byte{
		handXFS(4, 2, fragmented()),
		handXFS(4, 57, fragmented()),
		handXFS(5, 5, fragmented()),
	}, 4, 8, 48, 84, 96, 100, 120, 512+16, 512+28, 4*handBlock+4, 4*handBlock+16, 20*handBlock+4, log, log+4, log+512)
}
