package guest

import (
	"encoding/binary"
	"slices"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

const (
	headSize = virtual.HeadSize
	mdMagic  = virtual.MDMagic
	verity   = virtual.Verity

	verityMagic = virtual.VerityMagic
)

// filesystem names what begins at off by its magic bytes. People read it, of
// disks in registries as well: it looks at no more than the beginning.
func filesystem(r disk.Reader, off int64) string {
	if names := headSignatures(readAt(r, off, headSize)); len(names) > 0 {
		return names[0]
	}
	return ""
}

func headSignatures(head []byte) []string {
	names := virtual.Signatures(head)
	if len(head) >= 2048 && string(head[1024+0x38:1024+0x3A]) == "\x53\xEF" {
		names = append(names, extVersion(head[1024:]))
	}
	return names
}

// allSignatures names everything that a volume could be taken for, in the
// order of the table, each once. Superblocks at the end are of those that put a
// file system on top of several volumes: that of the guest then begins where
// ours does, but is not ours to read.
func allSignatures(v volume) (names []string) {
	names = headSignatures(readAt(v, 0, headSize))

	size := v.Size()
	at := func(off int64, magic string) bool { return string(readAt(v, off, len(magic))) == magic }
	sectors := size / 512
	switch { // md(4): 0.90 in the last whole 64 KiB but one, 1.0 in the last 8 KiB
	case at(size&^0xFFFF-0x10000, mdMagic), at(size&^0xFFFF-0x10000, "\xA9\x2B\x4E\xFC"), at(size&^0xFFF-0x2000, mdMagic):
		names = append(names, "mdraid")
	}
	for _, magic := range []string{"\x83\x74\x02\x6B", "\x83\x74\x02\x6C", "\x83\x74\x02\x6D"} {
		if at(size-4096+60, magic) { // drbd_meta_data.h: the last 4 KiB
			names = append(names, "drbd")
		}
	}
	if at((sectors-2)*512, "Intel Raid ISM Cfg Sig. ") {
		names = append(names, "isw raid")
	}
	for _, n := range []int64{1, 257} { // SNIA DDF 2.0: the anchor
		if at((sectors-n)*512, "\xDE\x11\xDE\x11") || at((sectors-n)*512, "\x11\xDE\x11\xDE") {
			names = append(names, "ddf raid")
		}
	}
	if isZFS(v) {
		names = append(names, "zfs")
	}

	seen := make(map[string]bool)
	return slices.DeleteFunc(names, func(name string) bool {
		again := seen[name]
		seen[name] = true
		return again
	})
}

// isZFS looks for an uberblock in any of the four labels of a vdev (ZFS on-disk
// specification, 1.2: 256 KiB each, two at either end, uberblocks in the second
// half, in steps of at least 1 KiB).
func isZFS(v volume) bool {
	const label, ring, magic = 256 << 10, 128 << 10, 0x00BAB10C
	size := v.Size() &^ (label - 1)
	for _, off := range []int64{0, label, size - 2*label, size - label} {
		blocks := readAt(v, off+ring, ring)
		for ; len(blocks) >= 1024; blocks = blocks[1024:] {
			if binary.LittleEndian.Uint64(blocks) == magic || binary.BigEndian.Uint64(blocks) == magic {
				return true
			}
		}
	}
	return false
}
