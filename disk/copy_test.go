package disk_test

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

// A recorder is a Writer in memory that says what it is told to say, and keeps
// where it was written.
type recorder struct {
	inOrder, blank bool
	fail           error

	mu      sync.Mutex
	content []byte
	writes  []disk.Extent
	aborted bool
	closed  bool
}

func (r *recorder) InOrder() bool { return r.inOrder }
func (r *recorder) Blank() bool   { return r.blank }
func (r *recorder) Abort()        { r.aborted = true }
func (r *recorder) Close() error  { r.closed = true; return nil }

func (r *recorder) WriteAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes = append(r.writes, disk.Extent{Offset: off, Length: int64(len(p))})
	return copy(r.content[off:], p), r.fail
}

// Every byte of data arrives, in the order that the writer wants; zeros are left
// out where the writer says that it has them.
func TestCopy(t *testing.T) {
	content := disktest.Mixture(9<<20+513, 1)
	clear(content[2<<20 : 4<<20])
	r := bytes.NewReader(content) // which does not know its holes
	data := r.Size()
	for _, jobs := range []int{0, 1, 3} {
		for _, test := range []struct{ inOrder, blank bool }{{true, false}, {false, true}, {false, false}} {
			w := &recorder{inOrder: test.inOrder, blank: test.blank, content: make([]byte, len(content))}
			var told atomic.Int64
			if err := disk.Copy(t.Context(), w, r, disk.CopyOptions{Jobs: jobs, Progress: func(n int64) { told.Add(n) }}); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(w.content, content) || w.aborted || w.closed {
				t.Errorf("%d jobs, %+v: content is equal %v, aborted %v, closed %v", jobs, test, bytes.Equal(w.content, content), w.aborted, w.closed)
			}
			if told.Load() != data {
				t.Errorf("%d jobs, %+v: told of %d bytes of %d", jobs, test, told.Load(), data)
			}
			var end, written int64
			for _, e := range w.writes {
				if test.inOrder && e.Offset < end {
					t.Errorf("%d jobs: wrote at %d after %d", jobs, e.Offset, end)
				}
				end, written = e.End(), written+e.Length
			}
			if sparse := test.inOrder || test.blank; sparse == (written == data) {
				t.Errorf("%d jobs, %+v: %d bytes of %d were written", jobs, test, written, data)
			}
		}
	}
}

// An old file does not keep what should be zeros.
func TestCopyOverOldContent(t *testing.T) {
	content := make([]byte, 3<<20)
	copy(content[1<<20:], disktest.Mixture(1<<20, 1))
	for _, format := range writable {
		f := disktest.CreateFile(t)
		if _, err := f.Write(bytes.Repeat([]byte{0xee}, 8<<20)); err != nil {
			t.Fatal(err)
		}
		create(t, f.Name(), format, bytes.NewReader(content), disk.WriteOptions{})
		img, err := disk.Open(f.Name(), disk.OpenOptions{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(content))
		if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: wrong content, %v", format, err)
		}
		img.Close()
	}
}

// What cannot be read, or written, ends the writer.
func TestCopyFails(t *testing.T) {
	broken := errors.New("broken")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx  context.Context
		r    disk.Reader
		fail error
		want error
	}{
		"reading":   {t.Context(), brokenReader{bytes.NewReader(make([]byte, 4<<20)), broken}, nil, broken},
		"extents":   {t.Context(), brokenExtents{bytes.NewReader(make([]byte, 4<<20)), broken}, nil, broken},
		"writing":   {t.Context(), bytes.NewReader(bytes.Repeat([]byte{1}, 4<<20)), broken, broken},
		"cancelled": {ctx, bytes.NewReader(make([]byte, 4<<20)), nil, context.Canceled},
	} {
		w := &recorder{content: make([]byte, 4<<20), fail: test.fail}
		if err := disk.Copy(test.ctx, w, test.r, disk.CopyOptions{}); !errors.Is(err, test.want) {
			t.Errorf("%s: got error %v", name, err)
		}
		if !w.aborted || w.closed {
			t.Errorf("%s: aborted %v, closed %v", name, w.aborted, w.closed)
		}
	}
}

type brokenReader struct {
	*bytes.Reader
	err error
}

func (r brokenReader) ReadAt(p []byte, off int64) (int, error) {
	if off >= 2<<20 {
		return 0, r.err
	}
	return r.Reader.ReadAt(p, off)
}

type brokenExtents struct {
	*bytes.Reader
	err error
}

func (r brokenExtents) NextExtent(off int64) (disk.Extent, error) {
	if off >= 2<<20 {
		return disk.Extent{}, r.err
	}
	return disk.Extent{Offset: off, Length: 1 << 20}, nil
}
