package appliance

import (
	"context"
	"io"
)

// Limits of originals.
const (
	MaxRecipe   = 4 << 20   // bytes of a recipe, what registries take for a manifest
	maxPart     = 512 << 20 // bytes of a part: what every registry takes as a blob
	maxOriginal = 1 << 46   // bytes of all files: 64 TiB, the largest disk that any format has
)

// The media types of an original: its recipe, and the parts of its files that
// are in no other blob of the artifact.
const (
	TypeOriginal     = "application/vnd.davit.original.v1+json"
	TypeOriginalPart = "application/vnd.davit.original.part.v1"
)

// A Blob is content by its digest.
type Blob struct {
	Digest string // sha256: and hex
	Size   int64
}

// A Recipe says how the files of an original are made of the blobs of an
// artifact, byte for byte.
type Recipe struct {
	Files []OriginalFile
	Blobs []Blob // that the files are made of, each once, in the order of their first use
}

// An OriginalFile is a file that a recipe makes.
type OriginalFile struct {
	Name   string // relative, with slashes, the same on every system
	Size   int64
	SHA256 string // hex

	segments []segment
}

// A segment is a stretch of a file.
type segment struct {
	literal []byte
	zeros   int64
	blob    int // index of Recipe.Blobs, where length is not 0
	length  int64
}

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
// source file as they are.
type Part struct {
	Blob
	content Section
	offset  int64
}

// Open returns the part's bytes, from the source file, which is still open.
func (p *Part) Open() io.Reader { return io.NewSectionReader(p.content, p.offset, p.Size) }

// NewRecipe reads files, each once and front to back, and returns the recipe
// for them and the parts that it needs beside the blobs of members: each once,
// in order.
func NewRecipe(ctx context.Context, files []SourceFile) (*Recipe, []Part, error) {
	return nil, nil, errTODO
}

// Encode returns the canonical form of the recipe.
func (r *Recipe) Encode() ([]byte, error) { return nil, errTODO }

// ParseRecipe returns the recipe of a blob. Listed are the blobs of its
// manifest: a recipe that needs others, that is not in canonical form or that
// asks for what no recipe does is [machine.ErrMalformed].
func ParseRecipe(data []byte, listed []Blob) (*Recipe, error) { return nil, errTODO }

// Restore makes the files. Fetch returns a blob, whose bytes need not have been
// checked; each is read once for each time that the recipe uses it, one at a
// time. Create returns what takes the file of that name, which reads as zeros
// where nothing is written; its caller makes it appear when Restore has
// returned nil. A file that did not become what the recipe says is [ErrDigest].
func (r *Recipe) Restore(ctx context.Context, fetch func(context.Context, Blob) (io.ReadCloser, error), create func(name string, size int64) (io.WriterAt, error)) error {
	return errTODO
}
