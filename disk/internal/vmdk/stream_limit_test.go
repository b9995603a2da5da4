package vmdk

import (
	"errors"
	"io"
	"math"
	"testing"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// The tables say in 32 bits where a grain and a table is.
func TestStreamLimit(t *testing.T) {
	// A grain of text, its table behind it.
	text := []byte("a few bytes")
	for _, test := range []struct {
		next    int64
		refused bool
	}{
		{math.MaxUint32 - 3, false},
		{math.MaxUint32 - 2, false},
		{math.MaxUint32 - 1, true}, // the table is behind its marker
		{math.MaxUint32, true},
		{math.MaxUint32 + 1, true},
		{math.MaxUint32 * 2, true},
	} {
		s, err := NewStream(io.Discard, 1<<20, WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		s.next = test.next // as if much had been written
		if _, err := s.WriteAt(text, 0); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); errors.Is(err, virtual.ErrUnsupported) != test.refused || !test.refused && err != nil {
			t.Errorf("from sector %d: %v", test.next, err)
		}
	}
}
