package main

import (
	"bytes"
	"encoding/binary"

	"github.com/davit-oci/davit/disk"
)

// A partition is a part of a disk with a file system, as far as can be told.
type partition struct {
	number     int // 0: the whole disk, which has no partitions
	start, end int64
	filesystem string // "" if unknown
}

// Limits of what a partition table, which a guest has written, can make us do.
const (
	maxPartitions = 256
	maxGPTEntry   = 4096 // bytes
)

// partitions reads the partition table of a disk, MBR or GPT. It guesses for
// people to read; what cannot be read is not there.
func partitions(r disk.Reader) []partition {
	var found []partition
	sector := readAt(r, 0, 512)
	if len(sector) == 512 && sector[510] == 0x55 && sector[511] == 0xAA {
		found = gpt(r)
		if found == nil {
			found = mbr(r, sector)
		}
	}
	if len(found) == 0 {
		if fs := filesystem(r, 0); fs != "" {
			return []partition{{0, 0, r.Size(), fs}}
		}
	}
	for i := range found {
		found[i].filesystem = filesystem(r, found[i].start)
	}
	return found
}

// gpt reads a GUID partition table, with sectors of 512 or 4096 bytes (UEFI
// specification, 5.3).
func gpt(r disk.Reader) []partition {
	for _, sector := range []int64{512, 4096} {
		header := readAt(r, sector, 92)
		if len(header) < 92 || !bytes.HasPrefix(header, []byte("EFI PART")) {
			continue
		}
		first := int64(binary.LittleEndian.Uint64(header[72:]))
		count := binary.LittleEndian.Uint32(header[80:])
		size := int64(binary.LittleEndian.Uint32(header[84:]))
		if first < 0 || first > r.Size()/sector || size < 128 || size > maxGPTEntry {
			return nil
		}
		var found []partition
		for n := range int64(min(count, maxPartitions)) {
			entry := readAt(r, first*sector+n*size, 128)
			if len(entry) < 128 || bytes.Equal(entry[:16], make([]byte, 16)) {
				continue
			}
			start, end := binary.LittleEndian.Uint64(entry[32:]), binary.LittleEndian.Uint64(entry[40:])
			found = appendPartition(found, r, int(n)+1, start, end-start+1, sector)
		}
		return found
	}
	return nil
}

// mbr reads a master boot record and the chain of its logical partitions.
func mbr(r disk.Reader, sector []byte) []partition {
	entries := func(sector []byte) (e [4]struct {
		kind         byte
		start, count uint32
	}) {
		for i := range e {
			raw := sector[446+16*i:]
			e[i].kind = raw[4]
			e[i].start, e[i].count = binary.LittleEndian.Uint32(raw[8:]), binary.LittleEndian.Uint32(raw[12:])
		}
		return e
	}
	extended := func(kind byte) bool { return kind == 0x05 || kind == 0x0F || kind == 0x85 }

	var found []partition
	var chain uint64 // start of the extended partition
	for i, e := range entries(sector) {
		if extended(e.kind) {
			chain = uint64(e.start)
		} else if e.kind != 0 {
			found = appendPartition(found, r, i+1, uint64(e.start), uint64(e.count), 512)
		}
	}
	for number, at := 5, chain; at != 0 && number < maxPartitions; number++ {
		sector := readAt(r, int64(at)*512, 512)
		if len(sector) < 512 || sector[510] != 0x55 || sector[511] != 0xAA {
			break
		}
		e := entries(sector)
		found = appendPartition(found, r, number, at+uint64(e[0].start), uint64(e[0].count), 512)
		if at = 0; extended(e[1].kind) {
			at = chain + uint64(e[1].start)
		}
	}
	return found
}

// appendPartition adds a partition if it lies in the disk.
func appendPartition(found []partition, r disk.Reader, number int, start, count uint64, sector int64) []partition {
	all := uint64(r.Size()) / uint64(sector)
	if start == 0 || start > all || count == 0 || count > all-start {
		return found
	}
	return append(found, partition{number: number, start: int64(start) * sector, end: int64(start+count) * sector})
}

// filesystem names what begins at off by its magic bytes.
func filesystem(r disk.Reader, off int64) string {
	head := readAt(r, off, 4096)
	has := func(at int, magic string) bool {
		return at+len(magic) <= len(head) && string(head[at:at+len(magic)]) == magic
	}
	switch {
	case has(1024+56, "\x53\xEF"):
		const journal, extents = 0x4, 0x40
		switch {
		case binary.LittleEndian.Uint32(head[1024+0x60:])&extents != 0:
			return "ext4"
		case binary.LittleEndian.Uint32(head[1024+0x5C:])&journal != 0:
			return "ext3"
		}
		return "ext2"
	case has(0, "XFSB"):
		return "xfs"
	case has(3, "NTFS    "):
		return "ntfs"
	case has(3, "EXFAT   "):
		return "exfat"
	case has(82, "FAT32   "), has(54, "FAT16   "), has(54, "FAT12   "):
		return "fat"
	case has(4086, "SWAPSPACE2"):
		return "swap"
	case has(0, "LUKS\xBA\xBE"):
		return "luks"
	case has(512, "LABELONE"):
		return "lvm"
	case has(0, "hsqs"):
		return "squashfs"
	case string(readAt(r, off+0x10040, 8)) == "_BHRfS_M":
		return "btrfs"
	}
	return ""
}

// readAt returns up to n bytes, fewer where the disk ends or cannot be read.
func readAt(r disk.Reader, off int64, n int) []byte {
	if off < 0 || off >= r.Size() {
		return nil
	}
	p := make([]byte, min(int64(n), r.Size()-off))
	got, err := r.ReadAt(p, off)
	if got < len(p) && err != nil {
		return nil
	}
	return p[:got]
}
