package raw

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// The beginning of a device is written at the end, and not at all if the rest is
// not. A file does for a device here: real ones are in disk/device_loop_test.go.
func TestHeadOfDeviceIsLast(t *testing.T) {
	const size = headSize + 100_000
	old := bytes.Repeat([]byte{0xee}, size)
	for _, test := range []struct {
		name   string
		writes []virtual.Extent
		abort  bool
	}{
		{"in order", []virtual.Extent{{Offset: 0, Length: headSize}, {Offset: headSize, Length: 100_000}}, false},
		{"across the end of the head", []virtual.Extent{{Offset: 3000, Length: size - 3000}, {Offset: 0, Length: 2000}}, false},
		{"not the head", []virtual.Extent{{Offset: headSize, Length: 7}}, false},
		{"nothing", nil, false},
		{"aborted", []virtual.Extent{{Offset: 0, Length: size}}, true},
	} {
		path := filepath.Join(t.TempDir(), "device")
		if err := os.WriteFile(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		head := make([]byte, headSize)
		on := func(when string, want []byte) {
			t.Helper()
			if _, err := f.ReadAt(head, 0); err != nil || !bytes.Equal(head, want[:headSize]) {
				t.Errorf("%s: wrong head on the device %s, %v", test.name, when, err)
			}
		}

		plain, err := NewWriter(f, size, func(yield func(virtual.Extent, error) bool) {
			yield(virtual.Extent{Length: size}, nil) // what is there stays
		})
		if err != nil {
			t.Fatal(err)
		}
		w, err := newDeviceWriter(plain)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(old)
		for _, e := range test.writes {
			p := want[e.Offset:e.End()]
			copy(p, bytes.Repeat([]byte("new data "), len(p)/9+1))
			if n, err := w.WriteAt(p, e.Offset); n != len(p) || err != nil {
				t.Errorf("%s: writing %+v: %d, %v", test.name, e, n, err)
			}
		}
		on("before Close", old)
		got := make([]byte, size)
		if _, err := w.ReadAt(got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: does not read what was written, %v", test.name, err)
		}
		if _, err := w.WriteAt(make([]byte, 2), size-1); err == nil {
			t.Errorf("%s: wrote beyond the end", test.name)
		}
		if test.abort {
			w.Abort()
			if err := w.Close(); !errors.Is(err, virtual.ErrAborted) {
				t.Errorf("%s: closed: %v", test.name, err)
			}
			on("after Abort", old)
			continue
		}
		if err := w.Close(); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: wrong content on the device, %v", test.name, err)
		}
	}
}
