package gather_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk/internal/gather"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

const blockSize = 10

// newWriter makes a Writer whose blocks become lines: number, content, and its
// compressed form, which is the content twice.
func newWriter(t *testing.T, blocks int64, jobs int, got *strings.Builder, fail func(block int64) error) *gather.Writer {
	t.Helper()
	o := gather.Options{Size: blocks * blockSize, BlockSize: blockSize, Jobs: jobs}
	o.NewCompress = func() (gather.Compress, error) {
		return func(dst, src []byte) ([]byte, error) {
			if src[0] == '!' {
				return nil, errBroken
			}
			return append(append(dst, src...), src...), nil
		}, nil
	}
	o.Append = func(block int64, plain, packed []byte) error {
		if !bytes.Equal(packed, append(bytes.Clone(plain), plain...)) {
			return fmt.Errorf("block %d is packed as another", block)
		}
		fmt.Fprintf(got, "%d:%s ", block, bytes.TrimRight(plain, "\x00"))
		return fail(block)
	}
	w, err := gather.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

var errBroken = errors.New("broken")

func never(int64) error { return nil }

// Blocks come in order, without those that are zeros, however they are written.
func TestOrder(t *testing.T) {
	const count = 200 // several batches
	content := make([]byte, count*blockSize)
	var want strings.Builder
	for n := range count {
		if n%3 == 1 {
			continue
		}
		part := fmt.Appendf(nil, "b%d", 1000-n) // the first one is longer
		copy(content[n*blockSize:], part)
		fmt.Fprintf(&want, "%d:%s ", n, part)
	}
	for _, jobs := range []int{1, 2, 5} {
		for _, step := range []int{1, 7, 10, 33, len(content)} {
			var got strings.Builder
			w := newWriter(t, count, jobs, &got, never)
			for off := 0; off < len(content); off += step {
				if step == blockSize && off/blockSize%3 == 1 {
					continue // as one that is not told of zeros
				}
				p := bytes.Clone(content[off:min(len(content), off+step)])
				if step == blockSize {
					p = bytes.TrimRight(p, "\x00")
				}
				if n, err := w.WriteAt(p, int64(off)); n != len(p) || err != nil {
					t.Fatal(n, err)
				}
				clear(p)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if got.String() != want.String() {
				t.Errorf("%d jobs, %d bytes at a time: got %s", jobs, step, &got)
			}
			if _, err := w.WriteAt([]byte{1}, int64(len(content)-1)); !errors.Is(err, os.ErrClosed) {
				t.Errorf("writing after Close: got error %v", err)
			}
		}
	}
}

// After an error nothing is appended, and it is told again.
func TestErrorsEndIt(t *testing.T) {
	for name, test := range map[string]struct {
		content string // of block 40
		fail    func(block int64) error
		last    string
	}{
		"of Append": {"x", func(block int64) error {
			if block == 40 {
				return errBroken
			}
			return nil
		}, "40:x "},
		"of Compress": {"!", never, "39:x "},
	} {
		var got strings.Builder
		w := newWriter(t, 200, 2, &got, test.fail)
		var err error
		for n := int64(0); n < 200 && err == nil; n++ {
			c := "x"
			if n == 40 {
				c = test.content
			}
			_, err = w.WriteAt([]byte(c), n*blockSize)
		}
		_, again := w.WriteAt([]byte("x"), 1999)
		if closed := w.Close(); !errors.Is(err, errBroken) || !errors.Is(again, errBroken) || !errors.Is(closed, errBroken) {
			t.Errorf("%s: got errors %v, %v, %v", name, err, again, closed)
		}
		if !strings.HasSuffix(got.String(), test.last) {
			t.Errorf("%s: got %s", name, &got)
		}
	}
}

func TestRefusals(t *testing.T) {
	var got strings.Builder
	w := newWriter(t, 3, 1, &got, never)
	if _, err := w.WriteAt([]byte("abc"), 5); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{-1, 28, 31} {
		if _, err := w.WriteAt([]byte("abc"), off); err == nil {
			t.Errorf("writing at %d: no error", off)
		}
	}
	if err := w.Close(); err != nil || got.String() != "0:\x00\x00\x00\x00\x00abc " {
		t.Errorf("got %q, %v", &got, err)
	}
}

// A wrong order, and Abort, end it: no image is made of what came before.
func TestEndedByTheCaller(t *testing.T) {
	for want, end := range map[error]func(w *gather.Writer){
		virtual.ErrOutOfOrder: func(w *gather.Writer) { w.WriteAt([]byte("abc"), 7) },
		virtual.ErrAborted:    func(w *gather.Writer) { w.Abort() },
	} {
		var got strings.Builder
		w := newWriter(t, 3, 1, &got, never)
		if _, err := w.WriteAt([]byte("abc"), 5); err != nil {
			t.Fatal(err)
		}
		end(w)
		if _, err := w.WriteAt([]byte("abc"), 10); !errors.Is(err, want) {
			t.Errorf("writing after %v: %v", want, err)
		}
		w.Abort()
		if err := w.Close(); !errors.Is(err, want) || got.Len() > 0 {
			t.Errorf("closing after %v: %v, appended %q", want, err, &got)
		}
	}
}
