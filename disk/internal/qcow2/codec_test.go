package qcow2

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func clusters() map[string][]byte {
	random := make([]byte, clusterSize)
	rand.NewChaCha8([32]byte{1}).Read(random)
	half := bytes.Repeat([]byte("half of it is text\n"), clusterSize)[:clusterSize]
	copy(half[clusterSize/2:], random)
	far := bytes.Clone(random)
	copy(far[50000:], far[:10000]) // a match that is farther away than zlib's window
	return map[string][]byte{
		"zeros": make([]byte, clusterSize), "random": random, "half": half, "far": far,
		"text": bytes.Repeat([]byte("a line of text\n"), clusterSize)[:clusterSize],
	}
}

// A compressed cluster depends on nothing that was compressed before it, and
// nothing after it matters to who reads it.
func TestCodecs(t *testing.T) {
	for _, c := range []Compression{Zlib, Zstd} {
		used, err := newCompressor(c)
		if err != nil {
			t.Fatal(err)
		}
		decompress, err := newDecompressor(c)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for name, plain := range clusters() {
				packed, err := used(nil, plain)
				if err != nil {
					t.Fatal(err)
				}
				fresh, err := newCompressor(c)
				if err != nil {
					t.Fatal(err)
				}
				if again, err := fresh(nil, plain); err != nil || !bytes.Equal(packed, again) {
					t.Errorf("type %d, %s: a fresh compressor gives %d other bytes, %v", c, name, len(again), err)
				}
				got := make([]byte, clusterSize)
				if err := decompress(got, append(bytes.Clone(packed), packed...)); err != nil || !bytes.Equal(got, plain) {
					t.Errorf("type %d, %s: reads something else, %v", c, name, err)
				}
				if err := decompress(got, packed[:len(packed)/2]); err == nil {
					t.Errorf("type %d, %s: half of it is enough", c, name)
				}
			}
		}
	}
}

func TestZstdFrames(t *testing.T) {
	decompress, err := newDecompressor(Zstd)
	if err != nil {
		t.Fatal(err)
	}
	encoder := func(o ...zstd.EOption) *zstd.Encoder {
		e, err := zstd.NewWriter(nil, o...)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	frame := func(n int, o ...zstd.EOption) []byte {
		return encoder(o...).EncodeAll(bytes.Repeat([]byte("content "), n)[:n], nil)
	}
	stream := func(n int) []byte { // a window far larger than the cluster
		var b bytes.Buffer
		e := encoder(zstd.WithWindowSize(16 << 20))
		e.Reset(&b)
		e.Write(bytes.Repeat([]byte("content "), n)[:n])
		e.Flush()
		e.Close()
		return b.Bytes()
	}
	empty := encoder(zstd.WithZeroFrames(true)).EncodeAll(nil, nil)
	rubbish := []byte("rubbish")
	for name, test := range map[string]struct {
		src  [][]byte
		want bool
	}{
		"one":                    {[][]byte{frame(4096)}, true},
		"with rubbish behind it": {[][]byte{frame(4096), rubbish}, true},
		"with a checksum":        {[][]byte{frame(4096, zstd.WithEncoderCRC(true)), rubbish}, true},
		"without a size":         {[][]byte{stream(4096), rubbish}, true},
		"two":                    {[][]byte{frame(4000), frame(96), rubbish}, true},
		"more than a cluster":    {[][]byte{frame(4097)}, false},
		"far more":               {[][]byte{stream(1 << 24)}, false},
		"less than a cluster":    {[][]byte{frame(4095)}, false},
		"two, too long":          {[][]byte{frame(4000), frame(97)}, false},
		"less, and rubbish":      {[][]byte{frame(4095), rubbish}, false},
		"empty ones":             {[][]byte{empty, empty, frame(4096)}, false},
		"skippable":              {[][]byte{{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, frame(4096)}, false},
		"nothing":                {nil, false},
	} {
		got := make([]byte, 4096)
		err := decompress(got, bytes.Join(test.src, nil))
		if (err == nil) != test.want || test.want && !bytes.Equal(got, bytes.Repeat([]byte("content "), 512)) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

// The space after a cluster's frames may hold anything, and memory is bounded
// by what a cluster holds.
func FuzzDecompress(f *testing.F) {
	seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", "FuzzDecompress", "*"))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	f.Fuzz(func(t *testing.T, src []byte, c uint8) {
		decompress, err := newDecompressor(Compression(c % 2))
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 4096)
		if err := decompress(got, src); err != nil {
			return
		}
		again := bytes.Repeat([]byte{1}, 4096)
		if err := decompress(again, append(bytes.Clone(src), "rubbish"...)); err != nil || !bytes.Equal(got, again) {
			t.Errorf("rubbish behind it matters: %v", err)
		}
	})
}
