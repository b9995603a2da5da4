package mapped_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/mapped"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

const block = 1000

// lookup maps a disk of blocks by a kind for each: 'f' is data at its place in
// the file, 'c' compressed, '0' zeros, '-' unallocated.
func lookup(kinds string) func(off, limit int64) (mapped.Run, error) {
	return func(off, limit int64) (mapped.Run, error) {
		r := mapped.Run{Length: min(limit, block-off%block)}
		switch kinds[off/block] {
		case 'f':
			r.Kind, r.Host = mapped.Data, off
		case 'c':
			r.Kind, r.Host = mapped.Compressed, off/block
		case '0':
			r.Kind = mapped.Zeros
		case '!':
			return r, errBroken
		}
		return r, nil
	}
}

var errBroken = errors.New("broken")

func image(kinds string, parent virtual.Reader) *mapped.Image {
	return mapped.New(mapped.Mapping{
		File:      bytes.NewReader(bytes.Repeat([]byte("f"), block*len(kinds))),
		Parent:    parent,
		Size:      int64(block * len(kinds)),
		Lookup:    lookup(kinds),
		BlockSize: block,
		Decompress: func(b []byte, host int64) error {
			copy(b, bytes.Repeat([]byte{'A' + byte(host)}, block))
			return nil
		},
	})
}

func TestKindsAndParents(t *testing.T) {
	of := func(c byte, n int) []byte { return bytes.Repeat([]byte{c}, n) }
	for name, parent := range map[string][]byte{
		"none": nil, "shorter": of('p', 2*block+300), "as long": of('p', 8*block), "longer": of('p', 9*block),
	} {
		// The parent is seen in blocks 2 and 7, as far as it goes.
		below := append(bytes.Clone(parent), make([]byte, 9*block)...)
		want := slices.Concat(of('f', block), of(0, block), below[2*block:3*block], of('D', block), of('E', block), of('f', 2*block), below[7*block:8*block])
		var r virtual.Reader
		if parent != nil {
			r = bytes.NewReader(parent)
		}
		if err := disktest.TestReader(image("f0-ccff-", r), want); err != nil {
			t.Errorf("parent %s: %v", name, err)
		}
	}
}

// Blocks that share a place in the cache are told apart.
func TestCache(t *testing.T) {
	const size = 1 << 20 // of a block: there are two places
	i := mapped.New(mapped.Mapping{
		Size: 4 * size,
		Lookup: func(off, limit int64) (mapped.Run, error) {
			return mapped.Run{Kind: mapped.Compressed, Host: off / size, Length: min(limit, size-off%size)}, nil
		},
		BlockSize: size,
		Decompress: func(b []byte, host int64) error {
			b[7] = byte(host)
			return nil
		},
	})
	for _, n := range []int64{0, 1, 2, 0, 3, 1} {
		p := make([]byte, 2)
		if _, err := i.ReadAt(p, n*size+7); err != nil || int64(p[0]) != n {
			t.Errorf("block %d reads as %d, %v", n, p[0], err)
		}
	}
}

// What is wrong is told by who reads there, and by nobody else.
func TestErrors(t *testing.T) {
	i := image("f!f", nil)
	if e, err := i.NextExtent(0); e != (virtual.Extent{Length: block}) || err != nil {
		t.Errorf("got extent %+v, %v before the error", e, err)
	}
	if _, err := i.NextExtent(block); !errors.Is(err, errBroken) {
		t.Errorf("got error %v at it", err)
	}
	for off, want := range map[int64]error{0: nil, block - 1: errBroken, block: errBroken, 2 * block: nil} {
		if _, err := i.ReadAt(make([]byte, 10), off); !errors.Is(err, want) {
			t.Errorf("reading at %d: got error %v, want %v", off, err, want)
		}
	}
}

func TestJoin(t *testing.T) {
	data := func(host int64) mapped.Run { return mapped.Run{Kind: mapped.Data, Host: host, Length: 10} }
	for name, test := range map[string]struct {
		a, b mapped.Run
		want bool
	}{
		"data that goes on":     {data(5), data(15), true},
		"data elsewhere":        {data(5), data(16), false},
		"zeros":                 {mapped.Run{Kind: mapped.Zeros, Length: 10}, mapped.Run{Kind: mapped.Zeros, Length: 10}, true},
		"zeros and no block":    {mapped.Run{Kind: mapped.Zeros, Length: 10}, mapped.Run{Length: 10}, false},
		"two compressed blocks": {mapped.Run{Kind: mapped.Compressed, Length: 10}, mapped.Run{Kind: mapped.Compressed, Host: 10, Length: 10}, false},
	} {
		if got := test.a.Join(test.b); got != test.want || got && test.a.Length != 20 {
			t.Errorf("%s: %t, %d bytes", name, got, test.a.Length)
		}
	}
}
