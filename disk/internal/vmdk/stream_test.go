package vmdk_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"
	"testing"

	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vmdk"
)

// A piece is what a test writes to a disk.
type piece struct {
	off  int64
	data []byte
}

// stream is the image of a disk with these pieces.
func stream(t *testing.T, size int64, o vmdk.WriteOptions, pieces ...piece) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := vmdk.NewStream(&b, size, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		if n, err := w.WriteAt(p.data, p.off); n != len(p.data) || err != nil {
			t.Fatalf("WriteAt(%d bytes, %d) = %d, %v", len(p.data), p.off, n, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A walk is a stream as one reads it from its start to its end, without any
// table: what markers say.
type walk struct {
	header      []byte
	grains      []grainAt
	tables      []block
	directories []block
	footers     []block
}

type grainAt struct {
	lba   uint64
	place int64 // sector of its marker
	plain []byte
}

type block struct {
	place int64
	data  []byte
	after int // grains before it
}

func walkStream(t *testing.T, b []byte) (w walk) {
	t.Helper()
	le := binary.LittleEndian
	zeros := func(what string, b []byte) {
		t.Helper()
		if len(bytes.Trim(b, "\x00")) > 0 {
			t.Errorf("%s is not zeros", what)
		}
	}
	if len(b)%512 != 0 {
		t.Errorf("%d bytes are not whole sectors", len(b))
	}
	w.header = b[:512]
	at := int64(le.Uint64(w.header[64:])) * 512
	zeros("what is between descriptor and overhead", b[21*512:at])
	for {
		if at >= int64(len(b)) {
			t.Fatal("no end-of-stream marker")
		}
		m := b[at:]
		val, size, kind := le.Uint64(m), int64(le.Uint32(m[8:])), le.Uint32(m[12:])
		if size > 0 {
			end := (12 + size + 511) / 512 * 512
			if end > grain+512 {
				t.Errorf("grain at %d takes %d bytes: more than VirtualBox has room for", val, end)
			}
			z, err := zlib.NewReader(bytes.NewReader(m[12:][:size]))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(z)
			if err != nil || len(plain) != grain {
				t.Fatalf("grain at %d inflates to %d bytes, %v", val, len(plain), err)
			}
			zeros("padding of a grain", m[12+size:end])
			w.grains = append(w.grains, grainAt{val, at / 512, plain})
			at += end
			continue
		}
		zeros("padding of a marker", m[16:512])
		at += 512
		if kind == 0 {
			zeros("end-of-stream marker", m[:512])
			if at != int64(len(b)) {
				t.Errorf("%d bytes after the end of the stream", int64(len(b))-at)
			}
			return w
		}
		data := block{at / 512, b[at:][:val*512], len(w.grains)}
		at += int64(val) * 512
		switch kind {
		case 1:
			w.tables = append(w.tables, data)
		case 2:
			w.directories = append(w.directories, data)
		case 3:
			w.footers = append(w.footers, data)
		default:
			t.Fatalf("marker of type %d", kind)
		}
	}
}

func TestStream(t *testing.T) {
	text := bytes.Repeat([]byte("does shrink "), 3*grain/12)
	wild := noise(2*grain, 9)
	for _, test := range []struct {
		name   string
		size   int64
		pieces []piece
	}{
		{"nothing", 40 * mib, nil},
		{"no disk", 0, nil},
		{"a byte", 1, []piece{{0, []byte{1}}}},
		{"text", mib, []piece{{grain, text}}},
		{"what does not shrink", mib, []piece{{3*grain + 1, wild}}},
		{"zeros are no grains", mib, []piece{{0, make([]byte, 3*grain)}, {5 * grain, wild[:grain]}}},
		{"tables that are full, empty, in the middle, at the end", 5*span + 3*512, []piece{
			{span - grain, text[:2*grain]}, {3*span + 7*grain, text[:20]}, {4*span + 2*grain, make([]byte, grain)}, {5*span + 512, []byte{1, 2, 3}}}},
		{"last byte of a large disk", 3*tib - 1, []piece{{0, []byte{1}}, {3*tib - 2, []byte{1}}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := stream(t, test.size, vmdk.WriteOptions{}, test.pieces...)
			w := walkStream(t, b)
			le := binary.LittleEndian
			size := max(1, (test.size+grain-1)/grain) * grain

			header := append([]byte("KDMV"), make([]byte, 512-4)...)
			le.PutUint32(header[4:], 3)       // version
			le.PutUint32(header[8:], 0x30001) // flags
			le.PutUint64(header[12:], uint64(size/512))
			le.PutUint64(header[20:], 128)       // grainSize
			le.PutUint64(header[28:], 1)         // descriptorOffset
			le.PutUint64(header[36:], 20)        // descriptorSize
			le.PutUint32(header[44:], 512)       // numGTEsPerGT
			le.PutUint64(header[56:], 1<<64-1)   // gdOffset; rgdOffset is 0
			le.PutUint64(header[64:], 128)       // overHead
			copy(header[73:], "\n \r\n\x01\x00") // compressAlgorithm
			if !bytes.Equal(w.header, header) {
				t.Errorf("header\n%x, want\n%x", w.header, header)
			}
			if len(w.directories) != 1 || len(w.footers) != 1 {
				t.Fatalf("%d grain directories, %d footers", len(w.directories), len(w.footers))
			}
			le.PutUint64(header[56:], uint64(w.directories[0].place))
			if !bytes.Equal(w.footers[0].data, header) {
				t.Errorf("footer\n%x, want\n%x", w.footers[0].data, header)
			}

			// The tables say what the stream says.
			gd := make([]byte, (4*((size+span-1)/span)+512-1)/512*512)
			gts := map[uint64][]byte{}
			for n, g := range w.grains {
				if n > 0 && g.lba <= w.grains[n-1].lba || g.lba%128 != 0 {
					t.Errorf("grain at %d after others", g.lba)
				}
				index := g.lba / (span / 512)
				if gts[index] == nil {
					gts[index] = make([]byte, 2048)
				}
				le.PutUint32(gts[index][g.lba/128%512*4:], uint32(g.place))
			}
			if len(w.tables) != len(gts) {
				t.Errorf("%d grain tables, want %d", len(w.tables), len(gts))
			}
			for _, table := range w.tables {
				index := w.grains[table.after-1].lba / (span / 512)
				if !bytes.Equal(table.data, gts[index]) {
					t.Errorf("grain table %d has other entries", index)
				}
				le.PutUint32(gd[4*index:], uint32(table.place))
			}
			if !bytes.Equal(w.directories[0].data, gd) {
				t.Error("grain directory has other entries")
			}

			// The grains are the disk.
			for _, p := range test.pieces {
				for len(p.data) > 0 {
					n := min(int64(len(p.data)), grain-p.off%grain)
					got := make([]byte, n)
					for _, g := range w.grains {
						if int64(g.lba)*512 == p.off/grain*grain {
							copy(got, g.plain[p.off%grain:])
						}
					}
					if !bytes.Equal(got, p.data[:n]) {
						t.Errorf("%d bytes at %d are others", n, p.off)
					}
					p.data, p.off = p.data[n:], p.off+n
				}
			}
			for _, g := range w.grains {
				if !slices.ContainsFunc(g.plain, func(b byte) bool { return b != 0 }) {
					t.Errorf("grain at %d is zeros", g.lba)
				}
			}

			path := disktest.CreateFile(t).Name()
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			disktest.QEMU(t, "qemu-img", "check", "-q", "-f", "vmdk", path)
		})
	}
}

// How many compress shows nowhere, nor where the bytes go.
func TestStreamIsTheSame(t *testing.T) {
	content := append(bytes.Repeat([]byte("text "), 20*grain/5), noise(5*grain, 3)...)
	want := stream(t, int64(len(content)), vmdk.WriteOptions{Jobs: 1}, piece{0, content})
	for _, jobs := range []int{0, 2, 7} {
		var pieces []piece
		for off := 0; off < len(content); off += 12345 * (jobs + 1) {
			pieces = append(pieces, piece{int64(off), content[off:min(off+12345*(jobs+1), len(content))]})
		}
		if got := stream(t, int64(len(content)), vmdk.WriteOptions{Jobs: jobs}, pieces...); !bytes.Equal(got, want) {
			t.Errorf("%d jobs make another stream", jobs)
		}
	}

	f := disktest.CreateFile(t)
	if _, err := f.Write(noise(2*len(want), 4)); err != nil {
		t.Fatal(err)
	}
	w, err := vmdk.NewStreamFile(f, int64(len(content)), vmdk.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a file has another stream, %v", err)
	}
}

// full fails after some bytes.
type full struct{ left int }

var errFull = errors.New("full")

func (f *full) Write(p []byte) (int, error) {
	n := min(len(p), f.left)
	f.left -= n
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func TestStreamThatFails(t *testing.T) {
	whole := len(stream(t, mib, vmdk.WriteOptions{}, piece{0, noise(grain, 1)}))
	for _, left := range []int{0, 100, 64 << 10, 65 << 10, whole - 2000, whole - 1500, whole - 1000, whole - 1, whole} {
		w, err := vmdk.NewStream(&full{left}, mib, vmdk.WriteOptions{})
		if err == nil {
			_, err = w.WriteAt(noise(grain, 1), 0)
		}
		if err == nil {
			err = w.Close()
		}
		if want := left < whole; errors.Is(err, errFull) != want {
			t.Errorf("room for %d of %d bytes: %v", left, whole, err)
		}
	}

	w, err := vmdk.NewStream(io.Discard, mib-100, vmdk.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt(make([]byte, 10), mib-109); err == nil {
		t.Error("writes past the end of the disk")
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if _, err := w.WriteAt([]byte{1}, 0); err == nil {
		t.Error("writes after Close")
	}
}
