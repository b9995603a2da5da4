package guest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"testing"
)

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
		want []Partition
	}{
		{"nothing", make([]byte, 4096), nil},
		{"empty disk", nil, nil},
		{"tiny disk", []byte{1, 2, 3}, nil},
		{"no partitions", whole, []Partition{{End: 1 << 20, Filesystem: "ext2"}}},
		{"btrfs", btrfs, []Partition{{End: 1 << 20, Filesystem: "btrfs"}}},
		{"mbr", mbrDisk(), []Partition{
			{Number: 1, Start: 1 << 20, End: 2 << 20, Filesystem: "ext4"},
			{Number: 5, Start: 6152 * 512, End: 6252 * 512},
			{Number: 6, Start: 7231 * 512, End: 7331 * 512, Filesystem: "ntfs"},
		}},
		{"gpt", gptDisk(), []Partition{{Number: 3, Start: 1 << 20, End: 2 << 20, Filesystem: "xfs"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := Partitions(bytes.NewReader(test.disk)); !slices.Equal(got, test.want) {
				t.Errorf("partitions %+v, want %+v", got, test.want)
			}
		})
	}
	if got := Partitions(bytes.NewReader(cycle)); len(got) > maxPartitions {
		t.Errorf("a table that leads to itself gives %d partitions", len(got))
	}
}

// A sectored disk says what sectors it has.
type sectored struct {
	*bytes.Reader
	size int
}

func (s sectored) SectorSize() int { return s.size }

// addGPT puts a table with one partition onto a disk, for sectors of that size.
func addGPT(p []byte, sector int, start, end uint64) {
	entry(p, 0, 0xEE, 1, uint32(len(p)/sector-1))
	h, entries := p[sector:][:512], p[24*sector:][:4*128] // of the other size, nothing is there
	entries[0] = 1
	binary.LittleEndian.PutUint64(entries[32:], start)
	binary.LittleEndian.PutUint64(entries[40:], end)
	copy(h, "EFI PART\x00\x00\x01\x00\x5C")
	h[72], h[80], h[84] = 24, 4, 128
	clear(h[16:20])
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))
}

// The sectors of a disk can have 4096 bytes. Two tables are two disks: which one,
// the size of its sectors says. Without it nothing may be trimmed.
func TestPartitions4K(t *testing.T) {
	small, large := make([]byte, 8<<20), make([]byte, 8<<20)
	addGPT(small, 512, 2048, 4095)
	addGPT(large, 4096, 512, 1023)
	both := bytes.Clone(small)
	addGPT(both, 4096, 512, 1023)
	broken := bytes.Clone(large)
	broken[4096+40]++
	unmarked := bytes.Clone(large)
	clear(unmarked[510:512])
	mbr := make([]byte, 16<<20)
	entry(mbr, 0, 0x83, 256, 256)
	entry(mbr, 1, 0x05, 1024, 2048)
	entry(mbr[1024*4096:], 0, 0x83, 256, 256)
	entry(mbr[1024*4096:], 1, 0x05, 1024, 512)
	entry(mbr[2048*4096:], 0, 0x83, 1, 255)

	first := []Partition{{Number: 1, Start: 1 << 20, End: 2 << 20}}
	second := []Partition{{Number: 1, Start: 2 << 20, End: 4 << 20}}
	const two, other = "there are two partition tables, for sectors of 512 and of 4096 bytes", "the partition table is for sectors of %d bytes, and the disk has %d"
	for _, test := range []struct {
		name  string
		disk  []byte
		said  int
		want  []Partition
		doubt string
		found int // SectorSize
	}{
		{"512", small, 0, first, "", 512},
		{"512, said", small, 512, first, "", 512},
		{"512, 4096 said", small, 4096, first, fmt.Sprintf(other, 512, 4096), 512},
		{"4096", large, 0, second, "", 4096},
		{"4096, said", large, 4096, second, "", 4096},
		{"4096, 512 said", large, 512, second, fmt.Sprintf(other, 4096, 512), 4096},
		{"both", both, 0, first, two, 0},
		{"both, 512 said", both, 512, first, "", 0},
		{"both, 4096 said", both, 4096, second, "", 0},
		{"4096, broken", broken, 0, second, "the partition table is damaged", 0},
		{"4096, without its mark", unmarked, 0, nil, "", 0},
		{"mbr, 4096 said", mbr, 4096, []Partition{
			{Number: 1, Start: 1 << 20, End: 2 << 20}, {Number: 5, Start: 5 << 20, End: 6 << 20}, {Number: 6, Start: 8<<20 + 4096, End: 9 << 20},
		}, "", 4096},
		{"mbr, 512 said", mbr[:5<<20], 512, []Partition{{Number: 1, Start: 256 * 512, End: 512 * 512}}, "the chain of logical partitions is broken", 0},
	} {
		r := sectored{bytes.NewReader(test.disk), test.said}
		if got := readTable(r); !slices.Equal(got.partitions, test.want) || got.doubt != test.doubt {
			t.Errorf("%s: partitions %+v, doubt %q, want %+v, %q", test.name, got.partitions, got.doubt, test.want, test.doubt)
		}
		if got := SectorSize(r); got != test.found {
			t.Errorf("%s: it was partitioned for sectors of %d bytes, want %d", test.name, got, test.found)
		}
	}

	// Of an entry of no bytes, or of a table outside of the disk, nothing is read.
	for _, at := range []int{72, 84} {
		p := bytes.Clone(large)
		copy(p[4096+at:], map[int]string{72: "\x00\x00\x00\x00\x00\x00\x00\x70", 84: "\x00\x00\x00\x00"}[at])
		if got := readTable(bytes.NewReader(p)); len(got.partitions) > 0 || got.doubt == "" {
			t.Errorf("byte %d of the header: %+v", at, got)
		}
	}
}

// Whatever a guest writes, partitions lie in its disk.
func FuzzPartitions(f *testing.F) {
	f.Add(mbrDisk()[:1<<16])
	f.Add(gptDisk()[:1<<16])
	large := make([]byte, 1<<17)
	addGPT(large, 4096, 26, 30)
	f.Add(large)
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, said := range []int{0, 512, 4096} {
			for _, p := range Partitions(sectored{bytes.NewReader(content), said}) {
				if p.Start < 0 || p.Start >= p.End || p.End > int64(len(content)) {
					t.Errorf("%+v in a disk of %d bytes", p, len(content))
				}
			}
		}
		SectorSize(bytes.NewReader(content))
	})
}
