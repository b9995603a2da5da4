package vmdk

import (
	"sort"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// files are the bytes of all files of the extents, one after the other, so that
// one cache and one mapping are enough for all of them. Between two there are
// zeros, so that no page has bytes of both.
type files struct {
	parts []part
	end   int64
}

type part struct {
	base int64
	file virtual.Reader
}

const fileAlign = 4 << 10

// add returns where the bytes of file begin.
func (f *files) add(file virtual.Reader) (base int64, err error) {
	if file.Size() > maxSize-f.end {
		return 0, virtual.Corrupt("extent files of more than %d bytes", int64(maxSize))
	}
	base = f.end
	f.parts = append(f.parts, part{base, file})
	f.end += virtual.RoundUp(max(1, file.Size()), fileAlign)
	return base, nil
}

// reader is f, or its only file.
func (f *files) reader() virtual.Reader {
	if len(f.parts) == 1 {
		return f.parts[0].file
	}
	return f
}

func (f *files) Size() int64 { return f.end }

// at is the index of the file that has off.
func (f *files) at(off int64) int {
	return sort.Search(len(f.parts), func(n int) bool { return f.parts[n].base > off }) - 1
}

func (f *files) ReadAt(p []byte, off int64) (int, error) {
	return virtual.ReadAt(p, off, f.end, func(p []byte, off int64) error {
		for n := f.at(off); len(p) > 0; n++ {
			next := f.end
			if n+1 < len(f.parts) {
				next = f.parts[n+1].base
			}
			part := p[:min(int64(len(p)), next-off)]
			if err := virtual.ReadZeroExtended(f.parts[n].file, part, off-f.parts[n].base); err != nil {
				return err
			}
			p, off = p[len(part):], next
		}
		return nil
	})
}

func (f *files) NextExtent(off int64) (virtual.Extent, error) {
	for n := max(0, f.at(off)); n < len(f.parts); n++ {
		part := f.parts[n]
		e, err := virtual.NextExtent(part.file, max(0, off-part.base))
		if e.Length > 0 || err != nil {
			return virtual.Extent{Offset: part.base + e.Offset, Length: e.Length}, err
		}
	}
	return virtual.Extent{}, nil
}
