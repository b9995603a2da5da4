package hostfile

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestZero(t *testing.T) {
	const size = 300000
	for _, test := range []struct{ off, n int64 }{
		{0, size}, {1, 1}, {5, 200000}, {4096, 8192}, {size - 1, 1}, {size - 5, 100}, {size, 10}, {size + 10, 10}, {7, 0}, {7, -3},
	} {
		for name, zero := range map[string]func(f *os.File, off, n int64) error{
			"as the host can": Zero,
			"by writing": func(f *os.File, off, n int64) error {
				return writeZeros(f, off, min(n, size-off))
			},
		} {
			path := filepath.Join(t.TempDir(), "file")
			want := bytes.Repeat([]byte{0xee}, size)
			if err := os.WriteFile(path, want, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := zero(f, test.off, test.n); err != nil {
				t.Errorf("%s: zeroing %d bytes at %d: %v", name, test.n, test.off, err)
			}
			f.Close()
			clear(want[min(test.off, size):max(min(test.off, size), min(test.off+test.n, size))])
			got, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: zeroing %d bytes at %d: other content (%d bytes), %v", name, test.n, test.off, len(got), err)
			}
		}
	}
}

func TestNextDataOfAFileThatShrank(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range []int64{0, 999, 1000, 5000, 9999} {
		start, n, err := NextData(f, off, 10000)
		if err != nil || start < off || n < 0 || n > 10000-start {
			t.Errorf("NextData(%d) = %d, %d, %v", off, start, n, err)
		}
	}
}
