package artifact

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/internal/space"
)

// Limits of a layer (docs/spec.md, "Layers").
const (
	maxFramePlain  = 512 << 10 // bytes in a frame
	maxLayerChunks = 1 << 20   // keeps a directory within 80 MB of memory

	dirMagic     = "DAVITDR1"
	dirHeader    = 16
	dirFrameSize = 44
	dirChunkSize = 34
)

// maxStored returns the size above which a frame of plain bytes is refused:
// no codec expands that much, so it is padding or an attack.
func maxStored(plain int64) int64 { return 2*plain + 1024 }

// maxDirectory returns the size above which the plain bytes of a directory that
// is stored in so many bytes are refused: it is made to fill the memory of
// readers. Digests cannot be compressed, and 32 of 34 or 44 bytes of an entry
// are one, so honest ones have less than 1.4 times as many.
func maxDirectory(stored int64) int64 { return 4*stored + 4096 }

// A frameEntry says where a frame of a layer is and what it holds.
type frameEntry struct {
	offset int64 // in the layer
	stored uint32
	plain  uint32
	first  uint32 // number of its first chunk in the layer
	chunks uint32
	digest sum // of the stored bytes
}

// A chunkEntry is a chunk of a layer.
type chunkEntry struct {
	blocks uint16
	frame  uint32
	digest sum // of the plain bytes
}

const (
	frameRecord = 8 + 4*4 + sha256.Size
	chunkRecord = 2 + 4 + sha256.Size
)

// A directory lists the frames and chunks of a layer. It is kept outside of
// the heap where it is large, so it is read by number. Safe for concurrent use.
type directory struct {
	layer  ocispec.Descriptor
	frames int
	chunks int
	blocks int64 // of all its chunks
	data   io.ReaderAt
}

// parseDirectory checks the plain bytes of a directory against its entry in
// the layer table and returns its records.
func parseDirectory(b []byte, desc ocispec.Descriptor, l *IndexLayer) (*directory, []byte, error) {
	bad := func(why string, args ...any) (*directory, []byte, error) {
		return nil, nil, refuse(PartDirectory, "of layer "+string(desc.Digest), why, args...)
	}
	le := binary.LittleEndian
	if len(b) < dirHeader || string(b[:8]) != dirMagic {
		return bad("it does not begin with %s", dirMagic)
	}
	frames, chunks := le.Uint32(b[8:]), le.Uint32(b[12:])
	if chunks > maxLayerChunks {
		return bad("it lists %d chunks, more than %d", chunks, maxLayerChunks)
	}
	if chunks != l.Chunks {
		return bad("it lists %d chunks, the index says %d", chunks, l.Chunks)
	}
	if want := dirHeader + dirFrameSize*int64(frames) + dirChunkSize*int64(chunks); int64(len(b)) != want {
		return bad("it has %d bytes, %d frames and %d chunks take %d", len(b), frames, chunks, want)
	}
	d := &directory{layer: desc, frames: int(frames), chunks: int(chunks)}
	rec := make([]byte, 0, d.frames*frameRecord+d.chunks*chunkRecord)
	fb, cb := b[dirHeader:dirHeader+dirFrameSize*d.frames], b[dirHeader+dirFrameSize*d.frames:]

	var offset int64
	first := uint32(0)
	for i := range d.frames {
		e := fb[i*dirFrameSize:]
		stored, plain, n := le.Uint32(e), le.Uint32(e[4:]), le.Uint32(e[8:])
		switch {
		case plain > maxFramePlain:
			return bad("frame %d has %d plain bytes, more than %d", i, plain, maxFramePlain)
		case int64(stored) > maxStored(int64(plain)):
			return bad("frame %d stores %d plain bytes in %d", i, plain, stored)
		case n == 0 || n > chunks-first:
			return bad("frame %d has %d chunks, %d are left", i, n, chunks-first)
		case int64(stored) > l.DirOffset-offset:
			return bad("frame %d ends after the directory begins", i)
		}
		rec = le.AppendUint64(rec, uint64(offset))
		rec = le.AppendUint32(rec, stored)
		rec = le.AppendUint32(rec, plain)
		rec = le.AppendUint32(rec, first)
		rec = le.AppendUint32(rec, n)
		rec = append(rec, e[12:12+sha256.Size]...)
		offset += int64(stored)
		first += n
	}
	if offset != l.DirOffset {
		return bad("its frames have %d bytes, the data of the layer %d", offset, l.DirOffset)
	}
	if first != chunks {
		return bad("its frames have %d chunks, not %d", first, chunks)
	}

	c := 0
	for i := range d.frames {
		plain, n := int64(le.Uint32(fb[i*dirFrameSize+4:])), int(le.Uint32(fb[i*dirFrameSize+8:]))
		for range n {
			e := cb[c*dirChunkSize:]
			blocks := le.Uint16(e)
			if blocks < 1 || blocks > chunker.MaxBlocks {
				return bad("chunk %d has %d blocks", c, blocks)
			}
			plain -= int64(blocks) * chunker.BlockSize
			d.blocks += int64(blocks)
			rec = le.AppendUint16(rec, blocks)
			rec = le.AppendUint32(rec, uint32(i))
			rec = append(rec, e[2:2+sha256.Size]...)
			c++
		}
		if plain != 0 {
			return bad("the chunks of frame %d are not its plain size", i)
		}
	}
	return d, rec, nil
}

// frame returns the entry of frame i, which must be less than d.frames.
func (d *directory) frame(i int) (f frameEntry, err error) {
	var b [frameRecord]byte
	if _, err := d.data.ReadAt(b[:], int64(i)*frameRecord); err != nil {
		return f, fmt.Errorf("reading the directory of layer %s: %w", d.layer.Digest, err)
	}
	le := binary.LittleEndian
	f = frameEntry{offset: int64(le.Uint64(b[:])), stored: le.Uint32(b[8:]), plain: le.Uint32(b[12:]),
		first: le.Uint32(b[16:]), chunks: le.Uint32(b[20:])}
	copy(f.digest[:], b[24:])
	return f, nil
}

// chunkEntries appends the entries of n chunks from number first on.
func (d *directory) chunkEntries(dst []chunkEntry, first, n int) ([]chunkEntry, error) {
	b := make([]byte, n*chunkRecord)
	if _, err := d.data.ReadAt(b, int64(d.frames)*frameRecord+int64(first)*chunkRecord); err != nil {
		return nil, fmt.Errorf("reading the directory of layer %s: %w", d.layer.Digest, err)
	}
	for ; len(b) > 0; b = b[chunkRecord:] {
		e := chunkEntry{blocks: binary.LittleEndian.Uint16(b), frame: binary.LittleEndian.Uint32(b[2:])}
		copy(e.digest[:], b[6:])
		dst = append(dst, e)
	}
	return dst, nil
}

// where names frame i for an error.
func (d *directory) where(i int) string { return fmt.Sprintf("%d of layer %s", i, d.layer.Digest) }

// A frame is the checked content of a frame.
type frame struct {
	first  int // number of its first chunk in the layer
	plain  []byte
	starts []int // of its chunks in plain, and the end of the last
}

// chunk returns the bytes of a chunk, which must be in the frame.
func (f *frame) chunk(number int) []byte {
	i := number - f.first
	return f.plain[f.starts[i]:f.starts[i+1]]
}

// decode checks the stored bytes of frame i, decompresses them and checks all
// its chunks. The memory of old is used again, if it is not nil.
func (d *directory) decode(i int, e *frameEntry, stored []byte, old *frame) (*frame, error) {
	if got := sha256.Sum256(stored); got != e.digest {
		return nil, refuse(PartFrame, d.where(i), "its bytes hash to %s, not %s", Digest(got), Digest(e.digest))
	}
	if old == nil {
		old = &frame{}
	}
	plain, err := decodeFrame(d.layer.MediaType, stored, int(e.plain), old.plain)
	if err != nil {
		return nil, refuse(PartFrame, d.where(i), "%v", err)
	}
	*old = frame{first: int(e.first), plain: plain, starts: append(old.starts[:0], 0)}
	at := 0
	chunks, err := d.chunkEntries(nil, int(e.first), int(e.chunks))
	if err != nil {
		return nil, err
	}
	for j := range chunks {
		n := int(chunks[j].blocks) * chunker.BlockSize
		if got := sha256.Sum256(plain[at : at+n]); got != chunks[j].digest {
			return nil, refuse(PartChunk, d.where(int(e.first)+j), "its bytes hash to %s, not %s", Digest(got), Digest(chunks[j].digest))
		}
		at += n
		old.starts = append(old.starts, at)
	}
	return old, nil
}

// fetchDirectory fetches, checks and parses the directory of a layer.
func fetchDirectory(ctx context.Context, src Fetcher, desc ocispec.Descriptor, l *IndexLayer, scratch *scratch) (*directory, error) {
	where := "of layer " + string(desc.Digest)
	if int64(l.DirPlain) < dirHeader || int64(l.DirPlain) > dirHeader+(dirFrameSize+dirChunkSize)*maxLayerChunks {
		return nil, refuse(PartDirectory, where, "its size of %d bytes is impossible", l.DirPlain)
	}
	if int64(l.DirStored) > maxStored(int64(l.DirPlain)) {
		return nil, refuse(PartDirectory, where, "it stores %d bytes in %d", l.DirPlain, l.DirStored)
	}
	// Its bytes as stored and as plain, and its records, which are a little larger.
	done, err := scratch.memory.load(ctx, int64(l.DirStored)+5*int64(l.DirPlain)/2)
	if err != nil {
		return nil, fmt.Errorf("the directory of layer %s: %w", desc.Digest, err)
	}
	defer done()
	stored, err := readRange(ctx, src, desc, l.DirOffset, int64(l.DirStored))
	if err != nil {
		return nil, fmt.Errorf("reading the directory of layer %s: %w", desc.Digest, err)
	}
	if got := sha256.Sum256(stored); got != l.DirDigest {
		return nil, refuse(PartDirectory, where, "its bytes hash to %s, the index says %s", Digest(got), Digest(l.DirDigest))
	}
	plain, err := decodeFrame(desc.MediaType, stored, int(l.DirPlain), nil)
	if err != nil {
		return nil, refuse(PartDirectory, where, "%v", err)
	}
	d, records, err := parseDirectory(plain, desc, l)
	if err != nil {
		return nil, err
	}
	d.data, err = scratch.keep(records)
	return d, err
}

// A dirBuilder encodes a directory while the frames of a layer are written.
type dirBuilder struct {
	frames []byte
	chunks []byte
}

func (b *dirBuilder) addFrame(stored []byte, plain, chunks int) {
	le := binary.LittleEndian
	s := sha256.Sum256(stored)
	b.frames = le.AppendUint32(b.frames, uint32(len(stored)))
	b.frames = le.AppendUint32(b.frames, uint32(plain))
	b.frames = le.AppendUint32(b.frames, uint32(chunks))
	b.frames = append(b.frames, s[:]...)
}

func (b *dirBuilder) addChunk(blocks int, digest *sum) {
	b.chunks = binary.LittleEndian.AppendUint16(b.chunks, uint16(blocks))
	b.chunks = append(b.chunks, digest[:]...)
}

// plain returns the directory before compression.
func (b *dirBuilder) plain() []byte {
	out := make([]byte, 0, dirHeader+len(b.frames)+len(b.chunks))
	out = append(out, dirMagic...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(b.frames)/dirFrameSize))
	out = binary.LittleEndian.AppendUint32(out, uint32(len(b.chunks)/dirChunkSize))
	out = append(out, b.frames...)
	return append(out, b.chunks...)
}

// scratch keeps what was read and checked: small things in memory, as far as
// that goes, the rest in one file. Safe for concurrent use.
type scratch struct {
	dir    string
	memory *Memory

	mu   sync.Mutex
	file *os.File
	size int64 // of file
	kept int64 // bytes in memory
}

func newScratch(dir string, memory *Memory) *scratch { return &scratch{dir: dir, memory: memory} }

// keep returns a reader of b, whose bytes the caller gives away.
func (s *scratch) keep(b []byte) (io.ReaderAt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.memory.keep(len(b)) {
		s.kept += int64(len(b))
		return bytesReaderAt(b), nil
	}
	off, err := s.reserve(int64(len(b)))
	if err != nil {
		return nil, err
	}
	if _, err := s.file.WriteAt(b, off); err != nil {
		return nil, fmt.Errorf("writing scratch file: %w", err)
	}
	return io.NewSectionReader(s.file, off, int64(len(b))), nil
}

// reserve makes room for n bytes in the file and returns where. How much it is
// in all, somebody else decides, so some of the file system is left to others.
func (s *scratch) reserve(n int64) (int64, error) {
	if err := space.Check(cmp.Or(s.dir, os.TempDir()), n); err != nil {
		return 0, err
	}
	if s.file == nil {
		f, err := tempFile(s.dir)
		if err != nil {
			return 0, err
		}
		s.file = f
	}
	off := s.size
	s.size += n
	return off, nil
}

// put appends b to the file and returns where it is.
func (s *scratch) put(b []byte) (int64, error) {
	s.mu.Lock()
	off, err := s.reserve(int64(len(b)))
	f := s.file
	s.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if _, err := f.WriteAt(b, off); err != nil {
		return 0, fmt.Errorf("writing scratch file: %w", err)
	}
	return off, nil
}

func (s *scratch) ReadAt(p []byte, off int64) (int, error) { return s.file.ReadAt(p, off) }

func (s *scratch) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.memory.free(s.kept, 0)
	s.kept = 0
	if s.file == nil {
		return nil
	}
	err := removeTemp(s.file)
	s.file = nil
	return err
}

// tempFile creates a scratch file in dir, or in the system's folder for them.
func tempFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "davit-scratch-")
	if err != nil {
		return nil, fmt.Errorf("creating scratch file: %w", err)
	}
	return f, nil
}

func removeTemp(f *os.File) error {
	err := f.Close()
	if e := os.Remove(f.Name()); err == nil {
		err = e
	}
	return err
}

type bytesReaderAt []byte

func (b bytesReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(b)) {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
