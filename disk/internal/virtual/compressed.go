package virtual

import (
	"bytes"
	"encoding/binary"
)

// compressions are told by what a file begins with.
var compressions = []struct {
	by     string
	offset int
	magic  string
}{
	{"gzip", 0, "\x1f\x8b\x08"},
	{"xz", 0, "\xfd7zXZ\x00"},
	{"zstd", 0, "\x28\xb5\x2f\xfd"},
	{"bzip2", 0, "BZh"},
	{"lz4", 0, "\x04\x22\x4d\x18"},
	{"lz4", 0, "\x02\x21\x4c\x18"}, // before version 1.4
	{"lzip", 0, "LZIP"},
	{"lzop", 0, "\x89LZO\x00\x0d\x0a\x1a\x0a"},
	{"compress", 0, "\x1f\x9d\x90"},
	{"zip", 0, "PK\x03\x04"},
	{"7z", 0, "7z\xbc\xaf\x27\x1c"},
	{"rar", 0, "Rar!\x1a\x07"},
	{"tar", 257, "ustar"}, // an OVA, perhaps
}

// CompressedBy is what a file that begins with head is compressed by, or what
// kind of archive it is, "" if nothing known.
func CompressedBy(head []byte) string {
	// RFC 8878, 3.1.2: pzstd begins with such a frame. So may lz4, which zstd
	// then refuses.
	if len(head) >= 8 && binary.LittleEndian.Uint32(head)&^0xf == 0x184d2a50 {
		return "zstd"
	}
	if isLZMA(head) {
		return "lzma"
	}
	for _, c := range compressions {
		if len(head) > c.offset && bytes.HasPrefix(head[c.offset:], []byte(c.magic)) {
			return c.by
		}
	}
	return ""
}

// isLZMA recognises the header of LZMA_Alone, which has no magic number, as xz
// does: usual properties, a dictionary of 2^n or 2^n + 2^(n-1) bytes, and a size
// that is unknown or below 256 GiB.
func isLZMA(head []byte) bool {
	if len(head) < 13 || head[0] != 0x5d {
		return false
	}
	dictionary, size := binary.LittleEndian.Uint32(head[1:]), binary.LittleEndian.Uint64(head[5:])
	top := dictionary
	for top&(top-1) != 0 {
		top &= top - 1
	}
	return dictionary >= 1<<12 && (dictionary == top || dictionary == top|top>>1) && (size == 1<<64-1 || size < 1<<38)
}
