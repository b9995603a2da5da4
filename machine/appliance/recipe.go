package appliance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// What of a source file gets into the recipe itself.
const (
	scanStretch  = 64 << 10 // bytes; stretches up to this are searched for short runs of zeros
	minZeros     = tarBlock // what counts as a run there
	maxLiteral   = 4 << 10  // bytes of a stretch without its runs of zeros: headers and padding of a member are less
	literalRoom  = 1 << 20  // bytes of all literals, so that the recipe stays below MaxRecipe
	minPartZeros = 64 << 10 // what counts as a run of zeros in a part, at least
	maxZeroRuns  = 8 << 10  // of these in all files, about
)

// A SourceFile is a file of which [NewRecipe] makes an original.
type SourceFile struct {
	Name    string // relative, with slashes; of a single file, not what it is called on this host
	Content Section

	// Members are stretches of it, ascending and apart from each other: the
	// members of an archive; of any other file, all of it. What is between
	// them gets into the recipe.
	Members []Member
}

// A Member is a stretch of a file.
type Member struct {
	Offset, Size int64
	Digest       string // of the blob of the artifact that has the same bytes; empty: there is none
}

// A Part is a blob that an original needs and the artifact has not: bytes of a
// source file as they are, but for long runs of zeros.
type Part struct {
	Blob
	content Section
	extents []extent
}

type extent struct{ offset, size int64 }

// Open returns the part's bytes, from the source file, which must still be open.
func (p *Part) Open() io.Reader {
	readers := make([]io.Reader, len(p.extents))
	for i, s := range p.extents {
		readers[i] = io.NewSectionReader(p.content, s.offset, s.size)
	}
	return io.MultiReader(readers...)
}

// NewRecipe reads files, each once and front to back, and returns the recipe
// for them and the parts that it needs beside the blobs of members, each once.
// Both depend on nothing but names, bytes and members.
func NewRecipe(ctx context.Context, files []SourceFile) (*Recipe, []Part, error) {
	return newRecipe(ctx, files, maxPart)
}

// CheckNames says whether an original can have files of these names, before any
// of them is read.
func CheckNames(files []SourceFile) error {
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	return checkNames(names)
}

func newRecipe(ctx context.Context, files []SourceFile, partSize int64) (*Recipe, []Part, error) {
	if err := CheckNames(files); err != nil {
		return nil, nil, err
	}
	c := recipeBuilder{ctx: ctx, partSize: partSize, room: literalRoom, blobs: make(map[string]int), buf: make([]byte, scanStretch)}
	var total int64
	for _, f := range files {
		if f.Content.Size() > maxOriginal-total {
			return nil, nil, fmt.Errorf("the files of the original have more than %d bytes", int64(maxOriginal))
		}
		total += f.Content.Size()
	}
	c.minZeros = max(minPartZeros, total/maxZeroRuns)
	c.recipe.Blobs = []Blob{}
	for i := range files {
		if err := c.file(&files[i]); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", files[i].Name, err)
		}
	}
	return &c.recipe, c.parts, nil
}

// A recipeBuilder makes a recipe.
type recipeBuilder struct {
	ctx      context.Context // of NewRecipe, which it does not outlive
	partSize int64           // bytes of a part, at most
	minZeros int64           // length of the shortest run of zeros that no part has
	room     int             // bytes that literals may still take

	recipe Recipe
	parts  []Part
	blobs  map[string]int // digest to the index in recipe.Blobs
	buf    []byte

	content  Section
	sum      hash.Hash // of the file
	segments []segment // of the file

	// The part that is being filled; there is none if size is 0.
	part    hash.Hash
	size    int64
	extents []extent
	waiting []int // those of segments whose blob it is
}

func (c *recipeBuilder) file(f *SourceFile) error {
	c.content, c.sum, c.segments = f.Content, sha256.New(), []segment{}
	size, end := f.Content.Size(), int64(0)
	for _, m := range append(f.Members[:len(f.Members):len(f.Members)], Member{Offset: size}) {
		if m.Offset < end || m.Size < 0 || m.Offset > size || m.Size > size-m.Offset {
			return fmt.Errorf("a member at byte %d with %d bytes overlaps another, or the end", m.Offset, m.Size)
		}
		if err := c.bytes(end, m.Offset-end); err != nil {
			return err
		}
		var err error
		if m.Digest != "" {
			err = c.known(m)
		} else {
			err = c.bytes(m.Offset, m.Size)
		}
		if err != nil {
			return err
		}
		end = m.Offset + m.Size
	}
	c.recipe.Files = append(c.recipe.Files, OriginalFile{
		Name: f.Name, Size: size, SHA256: hex.EncodeToString(c.sum.Sum(nil)), Segments: c.segments})
	return nil
}

// read gives a stretch of the file to use, by pieces, all but the last of
// scanStretch bytes.
func (c *recipeBuilder) read(offset, size int64, use func(offset int64, p []byte)) error {
	for size > 0 {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		p := c.buf[:min(size, scanStretch)]
		if n, err := c.content.ReadAt(p, offset); n < len(p) {
			return fmt.Errorf("reading %d bytes at %d: %w", len(p), offset, err)
		}
		c.sum.Write(p)
		use(offset, p)
		offset += int64(len(p))
		size -= int64(len(p))
	}
	return nil
}

// known adds a stretch that the artifact has as a blob.
func (c *recipeBuilder) known(m Member) error {
	h := sha256.New()
	if err := c.read(m.Offset, m.Size, func(_ int64, p []byte) { h.Write(p) }); err != nil {
		return err
	}
	if got := blobDigest(h); got != m.Digest {
		return fmt.Errorf("%w: the bytes at %d hash to %s, those in the artifact to %s", ErrDigest, m.Offset, got, m.Digest)
	}
	if m.Size > 0 {
		n, _ := c.blob(Blob{m.Digest, m.Size})
		c.segments = append(c.segments, segment{Blob: &n, Size: m.Size})
	}
	return nil
}

// blob returns the index of a blob, and whether it is new.
func (c *recipeBuilder) blob(b Blob) (n int, fresh bool) {
	n, ok := c.blobs[b.Digest]
	if !ok {
		n = len(c.recipe.Blobs)
		c.blobs[b.Digest] = n
		c.recipe.Blobs = append(c.recipe.Blobs, b)
	}
	return n, !ok
}

// bytes adds a stretch that no blob has: into the recipe if it is short, else
// into parts, without the long runs of zeros. What is all zeros gets into none.
func (c *recipeBuilder) bytes(offset, size int64) error {
	var zeros int64 // before the current piece, from which they are not yet told apart
	start := offset
	err := c.read(offset, size, func(offset int64, p []byte) {
		switch {
		case int64(len(p)) == size && c.literals(p):
		case isZero(p):
			zeros += int64(len(p))
		default:
			if zeros >= c.minZeros {
				c.zeros(zeros)
			} else {
				c.fill(offset-zeros, zeros, nil)
			}
			zeros = 0
			c.fill(offset, int64(len(p)), p)
		}
	})
	if err != nil {
		return err
	}
	if zeros >= c.minZeros || zeros == size {
		c.zeros(zeros)
	} else {
		c.fill(start+size-zeros, zeros, nil)
	}
	c.endPart()
	return nil
}

func (c *recipeBuilder) zeros(n int64) {
	if n > 0 {
		c.segments = append(c.segments, segment{Zeros: n})
	}
}

// literals adds a short stretch, if the recipe has room for it.
func (c *recipeBuilder) literals(p []byte) bool {
	var pieces []segment
	rest, room := maxLiteral, c.room
	for len(p) > 0 {
		n := zeroPrefix(p)
		if n >= minZeros || n == len(p) {
			pieces = append(pieces, segment{Zeros: int64(n)})
			p = p[n:]
			continue
		}
		// Up to the next run of zeros.
		for n < len(p) {
			z := zeroPrefix(p[n:])
			if z >= minZeros || z == len(p)-n && z > 0 {
				break
			}
			n += z + 1
			n = min(n, len(p))
		}
		pieces = append(pieces, segment{Data: append([]byte(nil), p[:n]...)})
		rest -= n
		room -= n
		p = p[n:]
	}
	if rest < 0 || room < 0 {
		return false
	}
	c.room = room
	c.segments = append(c.segments, pieces...)
	return true
}

// fill adds a stretch of the file to parts. Its bytes are p, or zeros if p is nil.
func (c *recipeBuilder) fill(offset, size int64, p []byte) {
	for size > 0 {
		if c.size == c.partSize {
			c.endPart()
		}
		n := min(size, c.partSize-c.size)
		if c.size == 0 {
			c.part = sha256.New()
		}
		if p == nil {
			writeZeros(c.part, n)
		} else {
			c.part.Write(p[:n])
			p = p[n:]
		}
		if last := len(c.extents) - 1; last >= 0 && c.extents[last].offset+c.extents[last].size == offset {
			c.extents[last].size += n
			c.segments[len(c.segments)-1].Size += n
		} else {
			c.extents = append(c.extents, extent{offset, n})
			c.waiting = append(c.waiting, len(c.segments))
			c.segments = append(c.segments, segment{Size: n})
		}
		c.size += n
		offset += n
		size -= n
	}
}

// endPart ends the part that is being filled, if there is one.
func (c *recipeBuilder) endPart() {
	if c.size == 0 {
		return
	}
	b := Blob{blobDigest(c.part), c.size}
	n, fresh := c.blob(b)
	if fresh {
		c.parts = append(c.parts, Part{Blob: b, content: c.content, extents: c.extents})
	}
	for _, i := range c.waiting {
		c.segments[i].Blob = &n
	}
	c.size, c.extents, c.waiting = 0, nil, nil
}

var noBytes [scanStretch]byte

func isZero(p []byte) bool { return zeroPrefix(p) == len(p) }

// zeroPrefix is the number of zeros that p begins with.
func zeroPrefix(p []byte) int {
	n := 0
	for len(p)-n >= tarBlock && [tarBlock]byte(p[n:]) == [tarBlock]byte{} {
		n += tarBlock
	}
	for n < len(p) && p[n] == 0 {
		n++
	}
	return n
}

func writeZeros(h hash.Hash, n int64) {
	for n > 0 {
		z := min(n, int64(len(noBytes)))
		h.Write(noBytes[:z])
		n -= z
	}
}
