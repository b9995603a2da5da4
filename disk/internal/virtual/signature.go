package virtual

import "bytes"

// A signature is what something begins with that lies on a volume.
type signature struct {
	name  string
	at    int
	magic string
}

// signatures are those within HeadSize of the beginning. What holds something
// else comes before what it could hold.
var signatures = []signature{
	{"luks", 0, "LUKS\xBA\xBE"},
	{"luks", 0x4000, "SKUL\xBA\xBE"}, // the second header, at the first place of it
	{"lvm", 0x000, "LABELONE"},
	{"lvm", 0x200, "LABELONE"},
	{"lvm", 0x400, "LABELONE"},
	{"lvm", 0x600, "LABELONE"},
	{"mdraid", 0x0000, MDMagic}, // 1.1
	{"mdraid", 0x1000, MDMagic}, // 1.2
	{"bcache", 0x1018, "\xC6\x85\x73\xF6\x4E\x1A\x45\xCA\x82\x65\xF5\x7F\x48\xBA\x6D\x81"},
	{"bcachefs", 0x1018, "\xC6\x85\x73\xF6\x66\xCE\x90\xA9\xD9\x6A\x60\xCF\x80\x3D\xF7\xEF"},
	{"vdo", 0, "dmvdo001"},
	{"stratis", 0x204, "!Stra0tis\x86\xFF\x02^\x41rh"},
	{"stratis", 0x1204, "!Stra0tis\x86\xFF\x02^\x41rh"},
	{Verity, 0, VerityMagic},
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
	// HeadSize is how much of a volume has all signatures, in bytes.
	HeadSize = 0x10600

	// MDMagic is MD_SB_MAGIC of Linux's software RAID, little-endian.
	MDMagic = "\xFC\x4E\x2B\xA9"

	// Verity is what a volume is called that begins with [VerityMagic].
	Verity = "dm-verity"

	// VerityMagic begins the hashes of dm-verity.
	VerityMagic = "verity\x00\x00"
)

// Signatures names what a volume that begins with head could be taken for by its
// magic bytes alone. Those of ext have two bytes, and are not among them.
func Signatures(head []byte) (names []string) {
	for _, s := range signatures {
		if s.at <= len(head) && bytes.HasPrefix(head[s.at:], []byte(s.magic)) {
			names = append(names, s.name)
		}
	}
	return names
}
