package guest

import (
	"bytes"
	"encoding/binary"
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

// The sectors of a disk can have 4096 bytes.
func TestPartitions4K(t *testing.T) {
	p := make([]byte, 8<<20)
	entry(p, 0, 0xEE, 1, 1<<11)
	h, entries := p[4096:8192], p[8192:8192+4*128]
	entries[0], entries[128] = 1, 1
	binary.LittleEndian.PutUint64(entries[32:], 256)
	binary.LittleEndian.PutUint64(entries[40:], 511)
	binary.LittleEndian.PutUint64(entries[128+32:], 1024)
	binary.LittleEndian.PutUint64(entries[128+40:], 1024)
	copy(h, "EFI PART\x00\x00\x01\x00\x5C")
	h[72], h[80], h[84] = 2, 4, 128
	binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
	binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:92]))

	got := readTable(bytes.NewReader(p))
	want := []Partition{{Number: 1, Start: 1 << 20, End: 2 << 20}, {Number: 2, Start: 4 << 20, End: 4<<20 + 4096}}
	if !slices.Equal(got.partitions, want) || got.doubt != "" {
		t.Errorf("partitions %+v, want %+v", got, want)
	}
}

// Whatever a guest writes, partitions lie in its disk.
func FuzzPartitions(f *testing.F) {
	f.Add(mbrDisk()[:1<<16])
	f.Add(gptDisk()[:1<<16])
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, p := range Partitions(bytes.NewReader(content)) {
			if p.Start < 0 || p.Start >= p.End || p.End > int64(len(content)) {
				t.Errorf("%+v in a disk of %d bytes", p, len(content))
			}
		}
	})
}
