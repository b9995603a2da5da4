package sparse

import (
	"bytes"
	"fmt"
	"testing"
)

// A file has content, and where it was written.
type file struct {
	content []byte
	writes  []string // in units: offset and length
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.writes = append(f.writes, fmt.Sprintf("%g+%g", float64(off)/Unit, float64(len(p))/Unit))
	return copy(f.content[off:], p), nil
}

func TestWrite(t *testing.T) {
	for _, test := range []struct {
		data string // one letter for each half of a unit, "." for zeros
		want string
	}{
		{"", "[]"},
		{"....", "[]"},
		{".", "[]"},
		{"aabbcc", "[0+3]"},
		{"..aa..bb", "[1+1 3+1]"},
		{"a.......", "[0+1]"}, // a unit is zeros, or it is written
		{".......a", "[3+1]"},
		{".a..a", "[0+1 2+0.5]"},
		{"aa..b.b.", "[0+1 2+2]"},
	} {
		var p []byte
		for _, c := range []byte(test.data) {
			p = append(p, bytes.Repeat([]byte{c}, Unit/2)...)
		}
		for i, c := range p {
			if c == '.' {
				p[i] = 0
			}
		}
		f := &file{content: make([]byte, len(p)+Unit)}
		if err := Write(f, p, Unit); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(f.content[Unit:], p) {
			t.Errorf("%q: content differs", test.data)
		}
		f.writes, f.content = nil, make([]byte, len(p))
		if err := Write(f, p, 0); err != nil || fmt.Sprint(f.writes) != test.want {
			t.Errorf("%q: written %v, want %s, error %v", test.data, f.writes, test.want, err)
		}
	}
}
