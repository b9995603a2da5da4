package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
)

// diskOf is chunks of 4 KiB: each letter is the content of a block, a space a hole.
func diskOf(content string) chunks {
	return func(yield func(artifact.Chunk, error) bool) {
		for i, c := range []byte(content) {
			if c != ' ' && !yield(artifact.Chunk{Offset: int64(i) * 4096, Length: 4096, Digest: [32]byte{c}}, nil) {
				return
			}
		}
	}
}

func TestCompareChunks(t *testing.T) {
	for _, test := range []struct {
		name, a, b    string
		same, changed int
		areas         []disk.Extent // in blocks
	}{
		{"empty disks are equal", "", "  ", 0, 0, nil},
		{"equal", "ab c", "ab c", 3, 0, nil},
		{"one changed", "abc", "aXc", 2, 1, []disk.Extent{{Offset: 1, Length: 1}}},
		{"neighbours are one area", "abcd", "aXYd", 2, 2, []disk.Extent{{Offset: 1, Length: 2}}},
		{"a hole where data was", "abc", "a c", 2, 1, []disk.Extent{{Offset: 1, Length: 1}}},
		{"data where a hole was", "a c", "abc", 2, 1, []disk.Extent{{Offset: 1, Length: 1}}},
		{"the same elsewhere is a change", "ab  ", "  ab", 0, 2, []disk.Extent{{Offset: 0, Length: 4}}},
		{"against nothing", "ab", "", 0, 2, []disk.Extent{{Offset: 0, Length: 2}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := compareChunks(diskOf(test.a), diskOf(test.b))
			if err != nil {
				t.Fatal(err)
			}
			var bytes int64
			var areas []disk.Extent
			for _, e := range got.areas {
				areas = append(areas, disk.Extent{Offset: e.Offset / 4096, Length: e.Length / 4096})
				bytes += e.Length
			}
			if got.same != test.same || got.changed != test.changed || !slices.Equal(areas, test.areas) ||
				got.sameBytes != int64(test.same)*4096 || got.changedBytes != bytes {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestCompareChunksOverlap(t *testing.T) {
	large := func(yield func(artifact.Chunk, error) bool) {
		yield(artifact.Chunk{Offset: 0, Length: 3 * 4096, Digest: [32]byte{'x'}}, nil)
	}
	got, err := compareChunks(large, diskOf("ab"))
	if err != nil || got.changed != 2 || got.changedBytes != 3*4096 || len(got.areas) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestCompareChunksErrors(t *testing.T) {
	broken := errors.New("broken")
	late := func(yield func(artifact.Chunk, error) bool) {
		for c := range diskOf("ab") {
			if !yield(c, nil) {
				return
			}
		}
		yield(artifact.Chunk{}, broken)
	}
	if _, err := compareChunks(late, diskOf("ab")); !errors.Is(err, broken) {
		t.Errorf("error of the first: %v", err)
	}
	if _, err := compareChunks(diskOf("ab"), late); !errors.Is(err, broken) {
		t.Errorf("error of the second: %v", err)
	}
}

// entry is a line of a master boot record.
func entry(p []byte, n int, kind byte, start, count uint32) {
	e := p[446+16*n:]
	e[4] = kind
	binary.LittleEndian.PutUint32(e[8:], start)
	binary.LittleEndian.PutUint32(e[12:], count)
	p[510], p[511] = 0x55, 0xAA
}

// mbrDisk has two primary partitions, one of them beyond the disk, and two logical ones.
func mbrDisk() []byte {
	p := make([]byte, 8<<20)
	entry(p, 0, 0x83, 2048, 2048)
	entry(p, 1, 0x83, 10, 1<<31)
	entry(p, 2, 0x05, 6144, 8192)
	entry(p[6144*512:], 0, 0x83, 8, 100)
	entry(p[6144*512:], 1, 0x05, 1024, 1000)
	entry(p[(6144+1024)*512:], 0, 0x07, 63, 100)
	copy(p[2048*512+1080:], "\x53\xEF")
	p[2048*512+1024+0x60] = 0x40
	copy(p[(6144+1024+63)*512:], "\xEB\x52\x90NTFS    ")
	return p
}

// gptDisk has one partition, the third of the table.
func gptDisk() []byte {
	p := make([]byte, 8<<20)
	entry(p, 0, 0xEE, 1, 1<<14)
	h := p[512:]
	copy(h, "EFI PART")
	binary.LittleEndian.PutUint64(h[72:], 2)
	binary.LittleEndian.PutUint32(h[80:], 128)
	binary.LittleEndian.PutUint32(h[84:], 128)
	e := p[1024+2*128:]
	e[0] = 1
	binary.LittleEndian.PutUint64(e[32:], 2048)
	binary.LittleEndian.PutUint64(e[40:], 4095)
	copy(p[2048*512:], "XFSB")
	return p
}

func TestPartitions(t *testing.T) {
	whole := make([]byte, 1<<20)
	copy(whole[1080:], "\x53\xEF")
	btrfs := make([]byte, 1<<20)
	copy(btrfs[0x10040:], "_BHRfS_M")
	cycle := mbrDisk()
	entry(cycle[6144*512:], 1, 0x05, 0, 1000)
	for _, test := range []struct {
		name string
		disk []byte
		want []partition
	}{
		{"nothing", make([]byte, 4096), nil},
		{"empty disk", nil, nil},
		{"tiny disk", []byte{1, 2, 3}, nil},
		{"no partitions", whole, []partition{{0, 0, 1 << 20, "ext2"}}},
		{"btrfs", btrfs, []partition{{0, 0, 1 << 20, "btrfs"}}},
		{"mbr", mbrDisk(), []partition{{1, 1 << 20, 2 << 20, "ext4"}, {5, 6152 * 512, 6252 * 512, ""}, {6, 7231 * 512, 7331 * 512, "ntfs"}}},
		{"gpt", gptDisk(), []partition{{3, 1 << 20, 2 << 20, "xfs"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := partitions(bytes.NewReader(test.disk)); !slices.Equal(got, test.want) {
				t.Errorf("partitions %+v, want %+v", got, test.want)
			}
		})
	}
	if got := partitions(bytes.NewReader(cycle)); len(got) > maxPartitions {
		t.Errorf("a table that leads to itself gives %d partitions", len(got))
	}
}

func TestLocate(t *testing.T) {
	table := []partition{{1, 100, 200, "ext4"}, {2, 200, 300, ""}}
	got := locate("disk0", []disk.Extent{{Offset: 50, Length: 300}, {Offset: 400, Length: 100}}, table, 450)
	want := []diffArea{
		{"disk0", 0, "", 50, 50}, {"disk0", 1, "ext4", 100, 100}, {"disk0", 2, "", 200, 100}, {"disk0", 0, "", 300, 50},
		{"disk0", 0, "", 400, 50}, // the end of the last block is beyond the disk
	}
	if !slices.Equal(got, want) {
		t.Errorf("located %+v, want %+v", got, want)
	}
}

// Whatever a guest writes, partitions lie in its disk.
func FuzzPartitions(f *testing.F) {
	f.Add(mbrDisk()[:1<<16])
	f.Add(gptDisk()[:1<<16])
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, p := range partitions(bytes.NewReader(content)) {
			if p.start < 0 || p.start >= p.end || p.end > int64(len(content)) {
				t.Errorf("%+v in a disk of %d bytes", p, len(content))
			}
		}
	})
}
