package disk_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

func TestWriters(t *testing.T) {
	for _, format := range writable {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			f := disktest.CreateFile(t)
			err := disktest.TestWriter(disktest.Target{
				Create: func(size int64, data iter.Seq2[disk.Extent, error]) (disk.Writer, error) {
					w, err := disk.NewWriter(f, format, size, data, disk.WriteOptions{Jobs: 3})
					if err == nil && disk.InOrder(w) != format.InOrder() {
						t.Errorf("the writer says in order %v", disk.InOrder(w))
					}
					return w, err
				},
				Open: func() (disk.Reader, error) {
					check(t, f.Name(), format)
					return disk.Open(f.Name(), disk.OpenOptions{Format: format})
				},
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStreamWriter(t *testing.T) {
	t.Parallel()
	var stream *bytes.Buffer
	err := disktest.TestWriter(disktest.Target{
		Create: func(size int64, data iter.Seq2[disk.Extent, error]) (disk.Writer, error) {
			stream = new(bytes.Buffer)
			return disk.NewStreamWriter(stream, size), nil
		},
		Open: func() (disk.Reader, error) { return bytes.NewReader(stream.Bytes()), nil },
	})
	if err != nil {
		t.Error(err)
	}
}

// A suite that finds nothing tests nothing.
func TestWriterContractFindsFaults(t *testing.T) {
	f := disktest.CreateFile(t)
	for name, test := range map[string]struct {
		format disk.Format
		wrap   func(w disk.Writer) disk.Writer
		want   string // in the fault; empty: none
	}{
		"forgets":         {disk.Raw, func(w disk.Writer) disk.Writer { return forgetful{passing{w}} }, "wrong content"},
		"shifts":          {disk.Raw, func(w disk.Writer) disk.Writer { return shifting{passing{w}} }, "wrong content"},
		"does not abort":  {disk.Raw, func(w disk.Writer) disk.Writer { return struct{ disk.Writer }{w} }, "after Abort"},
		"hides its order": {disk.QCOW2Zlib, func(w disk.Writer) disk.Writer { return struct{ disk.Writer }{w} }, "out of order"},
		"any order is fine": {disk.VDI, func(w disk.Writer) disk.Writer { return ordered{passing{w}} },
			"wrong order: WriteAt(100000 bytes, 599999) = 100000, <nil>"},
		"passes all on": {disk.Raw, func(w disk.Writer) disk.Writer { return passing{w} }, ""},
	} {
		err := disktest.TestWriter(disktest.Target{
			Create: func(size int64, data iter.Seq2[disk.Extent, error]) (disk.Writer, error) {
				w, err := disk.NewWriter(f, test.format, size, data, disk.WriteOptions{})
				return test.wrap(w), err
			},
			Open: func() (disk.Reader, error) { return disk.Open(f.Name(), disk.OpenOptions{Format: test.format}) },
		})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q in it", name, err, test.want)
		}
	}
}

// passing has all methods that a Writer of this package has and that are not
// those of a Reader.
type passing struct{ disk.Writer }

func (p passing) InOrder() bool { return disk.InOrder(p.Writer) }
func (p passing) Abort()        { disk.Abort(p.Writer) }

type ordered struct{ passing }

func (ordered) InOrder() bool { return true }

type forgetful struct{ passing }

func (f forgetful) WriteAt(p []byte, off int64) (int, error) {
	if off > 1<<20 {
		return len(p), nil
	}
	return f.Writer.WriteAt(p, off)
}

type shifting struct{ passing }

func (s shifting) WriteAt(p []byte, off int64) (int, error) { return s.Writer.WriteAt(p, off+1) }

// A wrong order is told at once, and what was written is no image.
func TestWrongOrderMakesNoImage(t *testing.T) {
	p := disktest.Mixture(1<<20, 1)
	for _, format := range []disk.Format{disk.QCOW2Zlib, disk.QCOW2Zstd, disk.VMDKStream} {
		f := disktest.CreateFile(t)
		w, err := disk.NewWriter(f, format, 64<<20, disktest.Extents(disk.Extent{Length: 64 << 20}), disk.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(p, 40<<20); err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(p, 20<<20); !errors.Is(err, disk.ErrOutOfOrder) {
			t.Errorf("%s: going back: %v", format, err)
		}
		if err := w.Close(); !errors.Is(err, disk.ErrOutOfOrder) {
			t.Errorf("%s: closing: %v", format, err)
		}
		if img, err := disk.Open(f.Name(), disk.OpenOptions{Format: format}); err == nil {
			img.Close()
			t.Errorf("%s: the file opens", format)
		}
	}
}

// One disk is one file, however it is written.
func TestImagesAreDeterministic(t *testing.T) {
	t.Parallel()
	content := disktest.Sparse(disktest.Mixture(2<<20+4096, 1))
	old := disktest.Mixture(6<<20, 2)
	for _, format := range writable {
		var want []byte
		for jobs := range 3 {
			f := disktest.CreateFile(t)
			if jobs%2 == 1 { // over what another image has left
				if _, err := f.Write(old); err != nil {
					t.Fatal(err)
				}
			}
			create(t, f.Name(), format, content, disk.WriteOptions{Jobs: jobs, Name: "image", ID: [16]byte{1, 2, 3}})
			got := disktest.ReadFile(t, f.Name())
			if want == nil {
				want = got
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: other bytes in attempt %d", format, jobs)
			}
		}
	}
}

// After kill -9, the next writer reads what the last one wrote.
func TestHalfWrittenImagesAreKept(t *testing.T) {
	const size = 10 << 20
	data := []disk.Extent{{Offset: 4096, Length: 1 << 20}, {Offset: 5 << 20, Length: 1 << 20}, {Offset: 8<<20 + 8192, Length: 4096}}
	for _, format := range anyOrder {
		f := disktest.CreateFile(t)
		w, err := disk.NewWriter(f, format, size, disktest.Extents(data...), disk.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		content := make([]byte, size)
		half := content[5<<20+500 : 5<<20+200000]
		copy(half, disktest.Mixture(len(half), 1))
		if _, err := w.WriteAt(half, 5<<20+500); err != nil {
			t.Fatal(err)
		}

		w, err = disk.NewWriter(f, format, size, disktest.Extents(data...), disk.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		r := w.(disk.Reader)
		if err := disktest.TestReader(r, content); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		if e, err := disk.NextExtent(r, 0); err != nil || disktest.KnowsHoles(t) && (e.Offset < 5<<20 || e.Length > 1<<20) {
			t.Errorf("%s: looks for what is there in %+v, %v", format, e, err)
		}
	}
}

// What a file held outside of the data is gone, also inside of its clusters.
func TestNothingOldShows(t *testing.T) {
	const size = 3 << 20
	data := []disk.Extent{{Offset: 100, Length: 200}, {Offset: 65536 + 4096, Length: 4096}, {Offset: 65536 + 12288, Length: 1}, {Offset: 1 << 20, Length: 100000}, {Offset: size - 10, Length: 3}}
	for _, format := range anyOrder {
		f := disktest.CreateFile(t)
		if _, err := f.Write(bytes.Repeat([]byte{0xee}, size+8<<20)); err != nil {
			t.Fatal(err)
		}
		w, err := disk.NewWriter(f, format, size, disktest.Extents(data...), disk.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := make([]byte, size)
		for _, e := range data {
			copy(want[e.Offset:e.End()], bytes.Repeat([]byte{0xee}, int(e.Length)))
		}
		if err := disktest.TestReader(w.(disk.Reader), want); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		testImage(t, f.Name(), disk.OpenOptions{Format: format}, want)
	}
}

func TestWritersRefuse(t *testing.T) {
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		format disk.Format
		size   int64
		data   iter.Seq2[disk.Extent, error]
	}{
		"format":             {"qed", 512, nil},
		"negative size":      {disk.Raw, -1, nil},
		"size of 2^62 bytes": {disk.QCOW2, 1<<62 + 1<<61, nil},
		"data beyond":        {disk.QCOW2, 512, disktest.Extents(disk.Extent{Offset: 500, Length: 13})},
		"data descending":    {disk.QCOW2, 512, disktest.Extents(disk.Extent{Offset: 50, Length: 1}, disk.Extent{Offset: 0, Length: 1})},
		"data twice":         {disk.Raw, 512, disktest.Extents(disk.Extent{Offset: 50, Length: 10}, disk.Extent{Offset: 59, Length: 10})},
		"data of no bytes":   {disk.Raw, 512, disktest.Extents(disk.Extent{Offset: 50})},
		"data overflows":     {disk.Raw, 512, disktest.Extents(disk.Extent{Offset: 50, Length: 1<<63 - 1})},
		"data with an error": {disk.QCOW2, 512, func(yield func(disk.Extent, error) bool) { yield(disk.Extent{}, broken) }},
	} {
		if w, err := disk.NewWriter(disktest.CreateFile(t), test.format, test.size, test.data, disk.WriteOptions{}); err == nil || w != nil {
			t.Errorf("%s: got writer %v, error %v", name, w, err)
		}
	}

	w, err := disk.NewWriter(disktest.CreateFile(t), disk.QCOW2, 1<<20, disktest.Extents(disk.Extent{Offset: 65536, Length: 65536}), disk.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []disk.Extent{{Offset: 0, Length: 1}, {Offset: 65535, Length: 2}, {Offset: 131071, Length: 2}} {
		if _, err := w.WriteAt(make([]byte, e.Length), e.Offset); err == nil {
			t.Errorf("a write of %d bytes at %d, outside of the data, is taken", e.Length, e.Offset)
		}
	}
}

// A device has no end where a format could have something.
func TestWritersWantFiles(t *testing.T) {
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, format := range writable {
		if _, err := disk.NewWriter(f, format, 1<<20, nil, disk.WriteOptions{}); format != disk.Raw && !errors.Is(err, disk.ErrUnsupported) {
			t.Errorf("%s: got error %v", format, err)
		}
	}
}

// A full file system, or any other fault of the file, is told at the latest by
// Close.
func TestWriteErrorsSurface(t *testing.T) {
	content := disktest.Mixture(1<<20, 1)
	for _, format := range writable {
		f := disktest.CreateFile(t)
		w, err := disk.NewWriter(f, format, int64(len(content)), disktest.Extents(disk.Extent{Length: int64(len(content))}), disk.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		_, err = w.WriteAt(content, 0)
		if err := errors.Join(err, w.Close()); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: got error %v", format, err)
		}
	}

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return // not Linux
	}
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	w := disk.NewStreamWriter(full, 10<<20)
	if _, err := w.WriteAt(content, 0); err == nil {
		t.Error("stream: no error from a full device")
	}
	if err := w.Close(); err == nil {
		t.Error("stream: Close forgets the error")
	}
}

// A disk of 256 GiB with little data costs no more than its data.
func TestHugeDisks(t *testing.T) {
	const size = 256 << 30
	var data []disk.Extent
	for off := int64(0); off < size; off += 16 << 30 {
		data = append(data, disk.Extent{Offset: off + 12345, Length: 10})
	}
	for _, format := range writable {
		f := disktest.CreateFile(t)
		before := disktest.Allocated()
		w, err := disk.NewWriter(f, format, size, disktest.Extents(data...), disk.WriteOptions{Jobs: 2})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range data {
			if _, err := w.WriteAt(bytes.Repeat([]byte{'x'}, int(e.Length)), e.Offset); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		img, err := disk.Open(f.Name(), disk.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		if format != disk.Raw || disktest.KnowsHoles(t) {
			total := int64(0)
			for e, err := range disk.Extents(img) {
				if err != nil {
					t.Fatal(err)
				}
				total += e.Length
			}
			if total < int64(10*len(data)) || total > int64(len(data))*(128<<10) {
				t.Errorf("%s: extents of %d bytes", format, total)
			}
		}
		p := make([]byte, 12)
		if _, err := img.ReadAt(p, data[10].Offset-1); err != nil || string(p) != "\x00xxxxxxxxxx\x00" {
			t.Errorf("%s: read %q, %v", format, p, err)
		}
		if n := disktest.Allocated() - before; n > 32<<20 {
			t.Errorf("%s: allocated %d MiB", format, n>>20)
		}
		check(t, f.Name(), format)
	}
}

func TestCopyStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	content := bytes.NewReader(disktest.Mixture(1<<20, 1))
	w := disk.NewStreamWriter(new(bytes.Buffer), 1<<20)
	if err := disk.Copy(ctx, w, content, disk.CopyOptions{}); !errors.Is(err, ctx.Err()) {
		t.Errorf("got error %v", err)
	}
	if err := w.Close(); !errors.Is(err, disk.ErrAborted) {
		t.Errorf("closed after that: %v", err)
	}
}

// FuzzWriter writes a disk that data describes, in two bytes for a gap and two
// for a length of data, and reads it back.
func FuzzWriter(f *testing.F) {
	seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", "FuzzWriter", "*"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	f.Fuzz(func(t *testing.T, which uint8, tail uint16, script []byte) {
		format := writable[int(which)%len(writable)]
		var data []disk.Extent
		size := int64(0)
		for ; len(script) >= 4 && size < 2<<20; script = script[4:] {
			size += int64(script[0])<<8 | int64(script[1])
			n := 1 + int64(script[2])<<8 + int64(script[3])
			data = append(data, disk.Extent{Offset: size, Length: n})
			size += n
		}
		size += int64(tail)
		content := make([]byte, size+1<<20) // room for what formats add
		for i, e := range data {
			copy(content[e.Offset:e.End()], bytes.Repeat([]byte(fmt.Sprint(i)), int(e.Length)))
		}
		file := disktest.CreateFile(t)
		for range 2 {
			w, err := disk.NewWriter(file, format, size, disktest.Extents(data...), disk.WriteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range data {
				if _, err := w.WriteAt(content[e.Offset:e.End()], e.Offset); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			img, err := disk.Open(file.Name(), disk.OpenOptions{Format: format})
			if err != nil {
				t.Fatal(err)
			}
			if err := disktest.TestReader(img, content[:img.Size()]); err != nil {
				t.Fatal(err)
			}
			if err := img.Close(); err != nil {
				t.Fatal(err)
			}
			// The second time over something else.
			if _, err := file.WriteAt(disktest.Mixture(100000, 1), 1<<20); err != nil {
				t.Fatal(err)
			}
		}
	})
}
