package artifact

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/ulikunitz/xz"

	"github.com/davit-oci/davit/chunker"
)

// eachSeed calls f with what the vectors hold, good and bad: manifests and
// indexes as they are. Large ones make poor seeds.
func eachSeed(f *testing.F, add func(v *artifactVector, raw []byte, m *Manifest)) {
	f.Helper()
	for _, v := range loadVectors(f) {
		raw := v.store.blobs[string(v.desc.Digest)]
		if len(raw) > 64<<10 {
			continue
		}
		m, _ := ParseManifest(raw, v.desc)
		add(&v, raw, m)
	}
}

// eachIndex calls f with the indexes of the vectors.
func eachIndex(f *testing.F, add func(v *artifactVector, b []byte)) {
	f.Helper()
	eachSeed(f, func(v *artifactVector, _ []byte, m *Manifest) {
		if m == nil {
			return
		}
		for _, d := range m.Disks {
			if b := v.store.blobs[string(d.Index.Digest)]; len(b) >= indexHeader && len(b) < 64<<10 {
				add(v, b)
			}
		}
	})
}

// eachLayer calls f with the layers of the vectors that an index lists.
func eachLayer(f *testing.F, add func(l *IndexLayer, mediaType string, b []byte)) {
	f.Helper()
	eachIndex(f, func(v *artifactVector, b []byte) {
		x := headOf(b)
		if x == nil {
			return
		}
		m, _ := ParseManifest(v.store.blobs[string(v.desc.Digest)], v.desc)
		for i := range x.Layers {
			l := &x.Layers[i]
			for _, desc := range m.Layers {
				blob := v.store.blobs[string(desc.Digest)]
				if desc.Digest == Digest(l.Digest) && len(blob) < 64<<10 && l.DirOffset <= int64(len(blob)) {
					add(l, desc.MediaType, blob)
				}
			}
		}
	})
}

func headOf(b []byte) *Index {
	n, err := headLength(b, int64(len(b)), "seed")
	if err != nil {
		return nil
	}
	x, _ := parseHead(b[:n], int64(len(b)), "seed")
	return x
}

// A head that is taken is written again with the same bytes.
func FuzzParseHead(f *testing.F) {
	eachIndex(f, func(_ *artifactVector, b []byte) {
		head := indexHeader + indexLayerSize*int64(binary.LittleEndian.Uint32(b[68:])) + indexRegionSize*int64(binary.LittleEndian.Uint32(b[72:]))
		f.Add(b[:min(head, int64(len(b)))], int64(len(b)))
	})
	f.Fuzz(func(t *testing.T, b []byte, size int64) {
		x, err := parseHead(b, size, "fuzz")
		if err != nil {
			return
		}
		if got := x.encodeHead(); !bytes.Equal(got, b) {
			t.Errorf("parsed and written again:\n%x, was\n%x", got, b)
		}
		end := int64(len(b))
		for _, r := range x.Regions {
			end += int64(r.PageLength)
		}
		if end != size {
			t.Errorf("head and pages have %d bytes, the index %d", end, size)
		}
	})
}

// A page that is taken is the one that a writer makes of its chunks.
func FuzzParsePage(f *testing.F) {
	eachIndex(f, func(_ *artifactVector, b []byte) {
		x := headOf(b)
		if x == nil {
			return
		}
		var layers []byte
		for _, l := range x.Layers {
			layers = binary.LittleEndian.AppendUint32(layers, l.Chunks)
		}
		for _, r := range x.Regions {
			f.Add(b[r.PageOffset:r.PageOffset+int64(r.PageLength)], layers)
		}
	})
	f.Fuzz(func(t *testing.T, b, table []byte) {
		var layers []IndexLayer
		for ; len(table) >= 4 && len(layers) < 300; table = table[4:] {
			layers = append(layers, IndexLayer{Chunks: binary.LittleEndian.Uint32(table)})
		}
		runs, err := parsePage(b, layers, "fuzz")
		if err != nil {
			return
		}
		var w pageWriter
		at := 0
		for _, r := range runs {
			at += r.start
			for i := range r.count {
				w.add(at, 1, r.layer, r.first+i)
				at++
			}
		}
		if got := w.bytes(); !bytes.Equal(got, b) {
			t.Errorf("parsed and written again: %x, was %x", got, b)
		}
	})
}

// A directory that is taken is written again with the same bytes, and what it
// says of each frame and chunk stays within the layer.
func FuzzParseDirectory(f *testing.F) {
	eachLayer(f, func(l *IndexLayer, mediaType string, b []byte) {
		if plain, err := decodeFrame(mediaType, b[l.DirOffset:], int(l.DirPlain), nil); err == nil {
			f.Add(plain, l.DirOffset, l.Chunks)
		}
	})
	f.Fuzz(func(t *testing.T, b []byte, dirOffset int64, chunks uint32) {
		d, records, err := parseDirectory(b, ocispec.Descriptor{}, &IndexLayer{DirOffset: dirOffset, Chunks: chunks})
		if err != nil {
			return
		}
		d.data = bytesReaderAt(records)
		le := binary.LittleEndian
		got := le.AppendUint32(le.AppendUint32([]byte(dirMagic), uint32(d.frames)), uint32(d.chunks))
		var chunkPart []byte
		var at, blocks int64
		for i := range d.frames {
			e, err := d.frame(i)
			if err != nil {
				t.Fatal(err)
			}
			if e.offset != at || e.offset+int64(e.stored) > dirOffset {
				t.Errorf("frame %d is at %d to %d of %d bytes", i, e.offset, e.offset+int64(e.stored), dirOffset)
			}
			at += int64(e.stored)
			got = append(le.AppendUint32(le.AppendUint32(le.AppendUint32(got, e.stored), e.plain), e.chunks), e.digest[:]...)
			list, err := d.chunkEntries(nil, int(e.first), int(e.chunks))
			if err != nil {
				t.Fatal(err)
			}
			plain := int64(0)
			for _, c := range list {
				if int(c.frame) != i {
					t.Errorf("a chunk of frame %d says %d", i, c.frame)
				}
				plain += int64(c.blocks) * chunker.BlockSize
				blocks += int64(c.blocks)
				chunkPart = append(le.AppendUint16(chunkPart, c.blocks), c.digest[:]...)
			}
			if plain != int64(e.plain) {
				t.Errorf("frame %d has %d bytes in chunks, and says %d", i, plain, e.plain)
			}
		}
		if got = append(got, chunkPart...); !bytes.Equal(got, b) {
			t.Errorf("parsed and written again:\n%x, was\n%x", got, b)
		}
		if blocks != d.blocks {
			t.Errorf("it has %d blocks, not %d", blocks, d.blocks)
		}
	})
}

// A frame that is taken has the bytes that the decoders of others find in it,
// all of it and no more than was asked for.
func FuzzDecodeFrame(f *testing.F) {
	eachLayer(f, func(l *IndexLayer, mediaType string, b []byte) {
		if len(b) > 8<<10 {
			return
		}
		f.Add(b[l.DirOffset:], uint16(l.DirPlain), mediaType == TypeLayerXZ)
		f.Add(b[:l.DirOffset], uint16(4096), mediaType == TypeLayerXZ)
	})
	for _, c := range []string{"zstd:1", "zstd", "xz"} {
		codec, err := ParseCodec(c)
		if err != nil {
			f.Fatal(err)
		}
		enc, err := newEncoder(codec)
		if err != nil {
			f.Fatal(err)
		}
		for _, plain := range [][]byte{{}, bytes.Repeat([]byte("davit"), 1000), testDisk(1, 30000)} {
			b, err := enc.encode(nil, plain)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b, uint16(len(plain)), c == "xz")
		}
		enc.close()
	}
	others, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(64<<20), zstd.WithDecoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte, plain uint16, isXZ bool) {
		mediaType := TypeLayerZstd
		if isXZ {
			mediaType = TypeLayerXZ
		}
		got, err := decodeFrame(mediaType, b, int(plain), nil)
		if err != nil {
			return
		}
		if len(got) != int(plain) || cap(got) != int(plain) {
			t.Errorf("%d bytes of %d, want %d", len(got), cap(got), plain)
		}
		var want []byte
		if isXZ {
			r, err := xz.NewReader(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if want, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		} else if want, err = others.DecodeAll(b, nil); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("taken as %x, others find %x", got, want)
		}
	})
}

// No frame makes its reader use more memory than the limits say, whatever
// it asks for.
func TestDecodeFrameMemory(t *testing.T) {
	d, err := zstdDecoder() // its first use takes memory that stays
	if err != nil {
		t.Fatal(err)
	}
	d.DecodeAll([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0}, nil)
	for _, v := range loadVectors(t) {
		m, _ := ParseManifest(v.store.blobs[string(v.desc.Digest)], v.desc)
		if m == nil || len(m.Layers) == 0 {
			continue
		}
		for _, desc := range m.Layers {
			b := v.store.blobs[string(desc.Digest)]
			if len(b) > 1<<20 {
				continue
			}
			x := v.firstIndex(m)
			if x == nil {
				continue
			}
			for _, l := range x.Layers {
				if Digest(l.Digest) != desc.Digest || l.DirOffset > int64(len(b)) || l.DirPlain > 1<<20 {
					continue
				}
				for _, frame := range [][]byte{b[:l.DirOffset], b[l.DirOffset:]} {
					var before, after runtime.MemStats
					runtime.ReadMemStats(&before)
					decodeFrame(desc.MediaType, frame, int(l.DirPlain), nil)
					runtime.ReadMemStats(&after)
					// The decoders' own tables and buffers are below 2 MiB.
					if used, limit := after.TotalAlloc-before.TotalAlloc, uint64(maxDictionary+l.DirPlain+2<<20); used > limit {
						t.Errorf("%s: %d bytes were taken, more than %d; %s", v.name, used, limit, v.header["note"])
					}
				}
			}
		}
	}
}

func (v *artifactVector) firstIndex(m *Manifest) *Index {
	if len(m.Disks) == 0 {
		return nil
	}
	b := v.store.blobs[string(m.Disks[0].Index.Digest)]
	if len(b) < indexHeader {
		return nil
	}
	return headOf(b)
}

// A manifest that is taken means the same when it is written again, and the
// writer has one way to write it.
func FuzzParseManifest(f *testing.F) {
	eachSeed(f, func(_ *artifactVector, raw []byte, _ *Manifest) { f.Add(raw) })
	f.Fuzz(func(t *testing.T, raw []byte) {
		parse := func(b []byte) (*Manifest, error) {
			return ParseManifest(b, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(b), Size: int64(len(b))})
		}
		m, err := parse(raw)
		if err != nil {
			var refused *RefusedError
			if !errors.As(err, &refused) && !errors.Is(err, ErrNotArtifact) && !errors.Is(err, ErrNewer) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		once, err := m.Encode()
		if err != nil {
			t.Fatalf("parsed, and cannot be written: %v", err)
		}
		again, err := parse(once)
		if err != nil {
			t.Fatalf("what was written is refused: %v\n%s", err, once)
		}
		twice, err := again.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(once, twice) {
			t.Errorf("written twice:\n%s\n%s", once, twice)
		}
		if !reflect.DeepEqual(m.Layers, again.Layers) || !reflect.DeepEqual(m.Files, again.Files) || len(m.Disks) != len(again.Disks) {
			t.Errorf("not the same:\n%s\n%s", raw, once)
		}
		for i := range m.Disks {
			a, b := m.Disks[i], again.Disks[i]
			if a.Name != b.Name || a.Size != b.Size || a.Digest != b.Digest || a.Head != b.Head || a.Index.Digest != b.Index.Digest || a.Index.Size != b.Index.Size {
				t.Errorf("disk %d is another:\n%s\n%s", i, raw, once)
			}
		}
	})
}
