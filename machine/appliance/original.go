package appliance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/davit-oci/davit/machine"
)

// Limits of originals.
const (
	MaxRecipe   = 4 << 20   // bytes of a recipe, what registries take for a manifest
	maxSegments = 1 << 17   // of all files, with other objects; in memory a segment can take twenty times its bytes
	maxPart     = 512 << 20 // bytes of a part: what every registry takes as a blob
	maxOriginal = 1 << 46   // bytes of all files: 64 TiB, the largest disk that any format has
)

// A Blob is content by its digest.
type Blob struct {
	Digest string `json:"digest"` // sha256: and hex
	Size   int64  `json:"size"`
}

// A Recipe says how the files of an original are made of the blobs of an
// artifact, byte for byte.
//
// No offset is in it: a blob is used front to back and to its end, before the
// next one begins, and may then be used again. So nobody can make a reader
// fetch more than it writes.
type Recipe struct {
	Files []OriginalFile `json:"files"`
	Blobs []Blob         `json:"blobs"` // that the files are made of, each once, in the order of their first use
}

// An OriginalFile is a file that a recipe makes.
type OriginalFile struct {
	Name     string    `json:"name"` // relative, with slashes, as the title of a layer
	Size     int64     `json:"size"`
	SHA256   string    `json:"sha256"` // hex
	Segments []segment `json:"segments"`
}

// A segment is a stretch of a file: bytes that are here, zeros, or the next
// bytes of a blob. It is one of the three.
type segment struct {
	Data  []byte `json:"data,omitempty"`
	Zeros int64  `json:"zeros,omitempty"`
	Blob  *int   `json:"blob,omitempty"` // index of Recipe.Blobs
	Size  int64  `json:"size,omitempty"` // bytes of the blob
}

func (s *segment) length() int64 { return int64(len(s.Data)) + s.Zeros + s.Size }

// ParseRecipe returns the recipe of a blob. Listed are the blobs of its
// manifest: a recipe that needs others, that is not in canonical form or that
// asks for what no recipe does is [machine.ErrMalformed].
func ParseRecipe(data []byte, listed []Blob) (*Recipe, error) {
	bad := func(why string, args ...any) (*Recipe, error) {
		return nil, fmt.Errorf("recipe of the original: %w", machine.Malformed(why, args...))
	}
	if len(data) > MaxRecipe {
		return bad("%d bytes, more than %d", len(data), MaxRecipe)
	}
	if n := bytes.Count(data, []byte("{")); n > maxSegments {
		return bad("%d objects, more than %d", n, maxSegments)
	}
	r := new(Recipe)
	if err := json.Unmarshal(data, r); err != nil {
		return bad("%v", err)
	}
	for i := range r.Files {
		if r.Files[i].Segments == nil {
			r.Files[i].Segments = []segment{}
		}
	}
	if r.Blobs == nil {
		r.Blobs = []Blob{}
	}
	// What we would not write we do not read: no member that is unknown or
	// there twice, no second spelling of anything.
	if again, err := r.Encode(); err != nil || !bytes.Equal(again, data) {
		return bad("it is not in canonical form")
	}
	sizes := make(map[string]int64, len(listed))
	for _, b := range listed {
		sizes[b.Digest] = b.Size
	}
	for _, b := range r.Blobs {
		size, ok := sizes[b.Digest]
		if !ok {
			return bad("the manifest does not list blob %q, or it is there twice", b.Digest)
		}
		if b.Size != size || size <= 0 {
			return bad("blob %s has %d bytes, the manifest says %d", b.Digest, b.Size, size)
		}
		delete(sizes, b.Digest)
	}
	var names []string
	for _, f := range r.Files {
		names = append(names, f.Name)
	}
	if err := checkNames(names); err != nil {
		return bad("%v", err)
	}
	if err := r.checkSegments(); err != nil {
		return bad("%v", err)
	}
	return r, nil
}

// Encode returns the canonical form of the recipe: compact JSON, without what
// is zero, and no line break at its end.
func (r *Recipe) Encode() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("encoding the recipe of the original: %w", err)
	}
	data := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(data) > MaxRecipe {
		return nil, fmt.Errorf("the recipe of the original has %d bytes, more than %d", len(data), MaxRecipe)
	}
	return data, nil
}

// checkNames says whether files of these names can all be made, in one folder on
// every system.
func checkNames(names []string) error {
	if len(names) == 0 || len(names) > machine.MaxDisks {
		return fmt.Errorf("it has %d files, not 1 to %d", len(names), machine.MaxDisks)
	}
	files, folders := make(map[string]bool), make(map[string]bool)
	for _, name := range names {
		if err := checkTitle(name); err != nil {
			return err
		}
		lower := strings.ToLower(name)
		if files[lower] {
			return fmt.Errorf("two files are called %q", name)
		}
		files[lower] = true
		for i := range len(lower) {
			if lower[i] == '/' {
				folders[lower[:i]] = true
			}
		}
	}
	for _, name := range names {
		if folders[strings.ToLower(name)] {
			return fmt.Errorf("%q is a file and a folder", name)
		}
	}
	return nil
}

// checkSegments says whether segments make files of the sizes that they say,
// and use blobs as they must.
func (r *Recipe) checkSegments() error {
	left := int64(maxOriginal) // bytes of files to come
	used := 0                  // blobs
	for _, f := range r.Files {
		if sum, err := hex.DecodeString(f.SHA256); err != nil || len(sum) != sha256.Size || hex.EncodeToString(sum) != f.SHA256 {
			return fmt.Errorf("%q: %q is no SHA-256 in lower-case hex", f.Name, f.SHA256)
		}
		if f.Size < 0 || f.Size > left {
			return fmt.Errorf("%q: a size of %d bytes, or more than %d in all", f.Name, f.Size, int64(maxOriginal))
		}
		left -= f.Size
		rest := f.Size             // bytes of the file
		blob, ahead := 0, int64(0) // the blob in use, and its bytes to come
		for n, s := range f.Segments {
			if !s.valid() {
				return fmt.Errorf("%q: segment %d is not one of bytes, zeros and a blob", f.Name, n)
			}
			if s.length() > rest {
				return fmt.Errorf("%q: its segments have more than its %d bytes", f.Name, f.Size)
			}
			rest -= s.length()
			if s.Blob == nil {
				continue
			}
			if *s.Blob < 0 || *s.Blob > used || *s.Blob >= len(r.Blobs) {
				return fmt.Errorf("%q: segment %d is of blob %d, the next one is %d", f.Name, n, *s.Blob, used)
			}
			if ahead == 0 {
				blob, ahead = *s.Blob, r.Blobs[*s.Blob].Size
				used = max(used, blob+1)
			}
			if *s.Blob != blob || s.Size > ahead {
				return fmt.Errorf("%q: segment %d leaves blob %d, which has %d more bytes", f.Name, n, blob, ahead)
			}
			ahead -= s.Size
		}
		if rest != 0 || ahead != 0 {
			return fmt.Errorf("%q: its segments end %d bytes before it, and %d before a blob", f.Name, rest, ahead)
		}
	}
	if used != len(r.Blobs) {
		return fmt.Errorf("%d of %d blobs are used", used, len(r.Blobs))
	}
	return nil
}

func (s *segment) valid() bool {
	switch {
	case s.Blob != nil:
		return s.Size > 0 && s.Zeros == 0 && len(s.Data) == 0
	case s.Zeros != 0:
		return s.Zeros > 0 && s.Size == 0 && len(s.Data) == 0
	}
	return len(s.Data) > 0 && s.Size == 0
}

// Restore makes the files. Fetch returns a blob, whose bytes need not have been
// checked; each is read once for each time that the recipe uses it, one at a
// time. Create returns what takes the file of that name, which reads as zeros
// where nothing is written; its caller makes it appear when Restore has
// returned nil. A blob or file that is not what the recipe says is [ErrDigest].
func (r *Recipe) Restore(ctx context.Context, fetch func(context.Context, Blob) (io.ReadCloser, error), create func(name string, size int64) (io.WriterAt, error)) error {
	buf := make([]byte, 256<<10)
	for i := range r.Files {
		f := &r.Files[i]
		dst, err := create(f.Name, f.Size)
		if err != nil {
			return err
		}
		m := &maker{ctx: ctx, fetch: fetch, blobs: r.Blobs, dst: dst, sum: sha256.New(), buf: buf}
		err = m.make(f)
		if m.blob != nil {
			err = errors.Join(err, m.blob.Close())
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	return nil
}

// maker makes a file.
type maker struct {
	ctx   context.Context // of Restore, which it does not outlive
	fetch func(context.Context, Blob) (io.ReadCloser, error)
	blobs []Blob
	dst   io.WriterAt
	end   int64     // of what is made
	sum   hash.Hash // of that
	buf   []byte

	blob    io.ReadCloser // that is being read; nil: none
	blobSum hash.Hash
	ahead   int64 // bytes of it to come
}

func (m *maker) make(f *OriginalFile) error {
	for _, s := range f.Segments {
		var err error
		switch {
		case s.Blob != nil:
			err = m.copy(m.blobs[*s.Blob], s.Size)
		case s.Zeros != 0:
			err = m.skip(s.Zeros)
		default:
			err = m.write(s.Data)
		}
		if err != nil {
			return err
		}
	}
	if got := hex.EncodeToString(m.sum.Sum(nil)); got != f.SHA256 {
		return fmt.Errorf("%w: SHA-256 is %s, the recipe says %s", ErrDigest, got, f.SHA256)
	}
	return nil
}

// write appends to the file.
func (m *maker) write(p []byte) error {
	m.sum.Write(p)
	_, err := m.dst.WriteAt(p, m.end)
	m.end += int64(len(p))
	return err
}

// skip appends zeros, which are there.
func (m *maker) skip(n int64) error {
	clear(m.buf)
	m.end += n
	for n > 0 {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		z := min(n, int64(len(m.buf)))
		m.sum.Write(m.buf[:z])
		n -= z
	}
	return nil
}

// copy appends the next n bytes of a blob.
func (m *maker) copy(b Blob, n int64) error {
	if m.blob == nil {
		rc, err := m.fetch(m.ctx, b)
		if err != nil {
			return err
		}
		m.blob, m.blobSum, m.ahead = rc, sha256.New(), b.Size
	}
	m.ahead -= n
	for n > 0 {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		p := m.buf[:min(n, int64(len(m.buf)))]
		if _, err := io.ReadFull(m.blob, p); err != nil {
			return fmt.Errorf("reading %s: %w", b.Digest, err)
		}
		m.blobSum.Write(p)
		if err := m.write(p); err != nil {
			return err
		}
		n -= int64(len(p))
	}
	if m.ahead > 0 {
		return nil
	}
	err := m.blob.Close()
	m.blob = nil
	if got := blobDigest(m.blobSum); got != b.Digest {
		return fmt.Errorf("%w: %s has bytes that hash to %s", ErrDigest, b.Digest, got)
	}
	return err
}

func blobDigest(h hash.Hash) string { return "sha256:" + hex.EncodeToString(h.Sum(nil)) }
