package guest

import (
	"encoding/binary"
	"slices"

	"github.com/davit-oci/davit/disk"
)

// A signature is what something begins with that lies on a volume.
type signature struct {
	name  string
	at    int64
	magic string
}

// signatures are those within headSize of the beginning. What holds something
// else comes before what it could hold.
var signatures = []signature{
	{"luks", 0, "LUKS\xBA\xBE"},
	{"luks", 0x4000, "SKUL\xBA\xBE"}, // the second header, at the first place of it
	{"lvm", 0x000, "LABELONE"},
	{"lvm", 0x200, "LABELONE"},
	{"lvm", 0x400, "LABELONE"},
	{"lvm", 0x600, "LABELONE"},
	{"mdraid", 0x0000, mdMagic}, // 1.1
	{"mdraid", 0x1000, mdMagic}, // 1.2
	{"bcache", 0x1018, "\xC6\x85\x73\xF6\x4E\x1A\x45\xCA\x82\x65\xF5\x7F\x48\xBA\x6D\x81"},
	{"bcachefs", 0x1018, "\xC6\x85\x73\xF6\x66\xCE\x90\xA9\xD9\x6A\x60\xCF\x80\x3D\xF7\xEF"},
	{"vdo", 0, "dmvdo001"},
	{"stratis", 0x204, "!Stra0tis\x86\xFF\x02^\x41rh"},
	{"stratis", 0x1204, "!Stra0tis\x86\xFF\x02^\x41rh"},
	{verity, 0, verityMagic},
	{"dm-integrity", 0, "integrt\x00"},
	{"dm-snapshot", 0, "SnAp"},
	{"bluestore", 0, "bluestore block device"},
	{"bitlocker", 3, "-FVE-FS-"},

	{"xfs", 0, "XFSB"},
	{"ntfs", 3, "NTFS    "},
	{"exfat", 3, "EXFAT   "},
	{"refs", 3, "ReFS\x00\x00\x00\x00"},
	{"fat", 82, "FAT32   "},
	{"fat", 54, "FAT16   "},
	{"fat", 54, "FAT12   "},
	{"swap", 0x1000 - 10, "SWAPSPACE2"},
	{"swap", 0x1000 - 10, "SWAP-SPACE"},
	{"swap", 0x2000 - 10, "SWAPSPACE2"}, // pages of other processors
	{"swap", 0x4000 - 10, "SWAPSPACE2"},
	{"swap", 0x8000 - 10, "SWAPSPACE2"},
	{"swap", 0x10000 - 10, "SWAPSPACE2"},
	{"swap", 0x1000 - 10, "S1SUSPEND\x00"}, // with a sleeping system
	{"swap", 0x1000 - 10, "S2SUSPEND\x00"},
	{"swap", 0x1000 - 10, "ULSUSPEND\x00"},
	{"squashfs", 0, "hsqs"},
	{"erofs", 1024, "\xE2\xE1\xF5\xE0"},
	{"f2fs", 1024, "\x10\x20\xF5\xF2"},
	{"hfs+", 1024, "H+\x00\x04"},
	{"hfs+", 1024, "HX\x00\x05"},
	{"apfs", 32, "NXSB"},
	{"nilfs2", 1024, "\x02\x00\x00\x00\x00\x00\x34\x34"},
	{"ocfs2", 0x0400, "OCFSV2"},
	{"ocfs2", 0x0800, "OCFSV2"},
	{"ocfs2", 0x1000, "OCFSV2"},
	{"jfs", 0x8000, "JFS1"},
	{"iso9660", 0x8001, "CD001"},
	{"udf", 0x8001, "BEA01"},
	{"reiserfs", 0x2034, "ReIsErFs"},
	{"reiserfs", 0x10034, "ReIsErFs"},
	{"reiserfs", 0x10034, "ReIsEr2Fs"},
	{"reiserfs", 0x10034, "ReIsEr3Fs"},
	{"reiser4", 0x10000, "ReIsEr4"},
	{"gfs2", 0x10000, "\x01\x16\x19\x70\x00\x00\x00\x01"},
	{"ufs", 0x2000 + 1372, "\x54\x19\x01\x00"},
	{"ufs", 0x2000 + 1372, "\x19\x54\x01\x19"},
	{"ufs", 0x10000 + 1372, "\x19\x01\x54\x19"},
	{"btrfs", 0x10040, "_BHRfS_M"},
}

const (
	headSize = 0x10600
	mdMagic  = "\xFC\x4E\x2B\xA9" // MD_SB_MAGIC, little-endian

	verity      = "dm-verity"
	verityMagic = "verity\x00\x00"
)

// filesystem names what begins at off by its magic bytes. People read it, of
// disks in registries as well: it looks at no more than the beginning.
func filesystem(r disk.Reader, off int64) string {
	if names := headSignatures(readAt(r, off, headSize)); len(names) > 0 {
		return names[0]
	}
	return ""
}

func headSignatures(head []byte) (names []string) {
	for _, s := range signatures {
		if int64(len(head)) >= s.at+int64(len(s.magic)) && string(head[s.at:s.at+int64(len(s.magic))]) == s.magic {
			names = append(names, s.name)
		}
	}
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
