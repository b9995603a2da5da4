package disktest

import (
	"bytes"
	"fmt"
	"iter"
	"math/rand/v2"

	"github.com/davit-oci/davit/disk"
)

var text = bytes.Repeat([]byte("a line of text\n"), 1<<13)

// Mixture is the content of a disk: text, random bytes, zeros, and single bytes
// in zeros, up to 150000 of each at a time.
func Mixture(size int, seed uint64) []byte {
	content := make([]byte, size)
	random := rand.New(rand.NewPCG(7, seed))
	for off := 0; off < size; {
		part := content[off:min(size, off+1+random.IntN(150000))]
		switch random.IntN(4) {
		case 0:
			for n := 0; n < len(part); {
				n += copy(part[n:], text[(off+n)%15:])
			}
		case 1:
			_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(off), byte(off >> 8), byte(off >> 16)}).Read(part)
		case 2:
			part[len(part)/2] = 1
		}
		off += len(part)
	}
	return content
}

// Sparse is a disk whose extents are all ranges of whole 4 KiB that are not zero.
func Sparse(content []byte) disk.Reader { return sparse{bytes.NewReader(content)} }

type sparse struct{ *bytes.Reader }

var page [4096]byte

// NextExtent is the rest of the first range of 4 KiB with something in it.
func (s sparse) NextExtent(off int64) (disk.Extent, error) {
	if off < 0 {
		return disk.Extent{}, fmt.Errorf("negative offset")
	}
	block := make([]byte, len(page))
	for off < s.Size() {
		n, _ := s.ReadAt(block[:4096-off%4096], off)
		if !bytes.Equal(block[:n], page[:n]) {
			return disk.Extent{Offset: off, Length: int64(n)}, nil
		}
		off += int64(n)
	}
	return disk.Extent{}, nil
}

// Extents are these, without an error.
func Extents(all ...disk.Extent) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
	}
}
