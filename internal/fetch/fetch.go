// Package fetch reads content by its descriptor: its size is bounded before it is fetched, and it is hashed before anybody parses it.
//
// What is wrong with content is a [Fault]. Packages that return errors of their own make them of its fields, so that no Fault of one
// package is taken for a finding of another.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifest is the size in bytes of the largest manifest or image index that is read. The distribution spec asks registries to accept
// manifests of this size. The limit bounds what a registry can make us hold in memory and parse.
const MaxManifest = 4 << 20

// The kinds of a [Fault].
var (
	// ErrDigestMismatch: bytes are not what their digest or size says. It is an [fs.ErrInvalid].
	ErrDigestMismatch error = invalidError("content does not match its digest")

	// ErrTooLarge: the descriptor has a size that is over the limit, or below zero. Nothing was fetched.
	ErrTooLarge = errors.New("too large")

	// ErrMalformedDigest: the digest of the descriptor is not that of docs/spec.md, "sha256:" and 64 lower-case hex digits. Nothing was
	// fetched.
	ErrMalformedDigest = errors.New("malformed digest")
)

type invalidError string

func (e invalidError) Error() string      { return string(e) }
func (invalidError) Is(target error) bool { return target == fs.ErrInvalid }

// A Fault says what is wrong with content or with its descriptor. It is not about a source that failed.
type Fault struct { //nolint:errname // fetch.Fault says what it is
	Kind   error         // [ErrDigestMismatch], [ErrTooLarge] or [ErrMalformedDigest]
	Digest digest.Digest // of the descriptor; can be any text if it is malformed
	Why    string        // what Digest names, as in "has 3 bytes, not 4"
}

func (f *Fault) Error() string { return fmt.Sprintf("%v: %.200s %s", f.Kind, f.Digest, f.Why) }
func (f *Fault) Unwrap() error { return f.Kind }

// A Source opens content by its descriptor. The caller closes it.
type Source interface {
	Fetch(ctx context.Context, target ocispec.Descriptor) (io.ReadCloser, error)
}

// All returns the content of desc, which may have up to limit bytes. The bytes are those of the digest. Any error but a [*Fault] is the
// source's.
func All(ctx context.Context, src Source, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if !valid(desc.Digest) {
		return nil, malformed(desc)
	}
	switch {
	case desc.Size < 0:
		return nil, &Fault{ErrTooLarge, desc.Digest, fmt.Sprintf("cannot have %d bytes; the limit is %d", desc.Size, limit)}
	case desc.Size > limit:
		return nil, &Fault{ErrTooLarge, desc.Digest, fmt.Sprintf("has %d bytes, more than the limit of %d", desc.Size, limit)}
	}
	rc, err := src.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return Read(rc, desc)
}

// Read reads r to its end and returns the bytes if they are the content of desc. The caller has bounded the size of desc. Any error
// but a [*Fault] is the reader's.
func Read(r io.Reader, desc ocispec.Descriptor) ([]byte, error) {
	// One byte more than there may be shows whether there is more. A reader that checks digests itself fails after the last byte. All
	// bytes are here then, and are checked below.
	data, err := io.ReadAll(io.LimitReader(r, desc.Size+1))
	if err != nil && int64(len(data)) < desc.Size {
		return nil, fmt.Errorf("reading %s: %w", desc.Digest, err)
	}
	if err := Check(data, desc); err != nil {
		return nil, err
	}
	return data, nil
}

// Check returns nil if data is the content of desc, else a [*Fault].
func Check(data []byte, desc ocispec.Descriptor) error {
	if !valid(desc.Digest) {
		return malformed(desc)
	}
	return check(desc, int64(len(data)), func() digest.Digest { return digest.FromBytes(data) })
}

func check(desc ocispec.Descriptor, n int64, sum func() digest.Digest) error {
	if n != desc.Size {
		return &Fault{ErrDigestMismatch, desc.Digest, fmt.Sprintf("has %d bytes, not %d", n, desc.Size)}
	}
	if got := sum(); got != desc.Digest {
		return &Fault{ErrDigestMismatch, desc.Digest, fmt.Sprintf("has the digest %s", got)}
	}
	return nil
}

func valid(d digest.Digest) bool { return d.Validate() == nil && d.Algorithm() == digest.SHA256 }

func malformed(desc ocispec.Descriptor) *Fault {
	return &Fault{ErrMalformedDigest, desc.Digest, "is not a digest: sha256: and 64 lower-case hex digits"}
}

// Reader returns a reader of r that checks content of any size while it is read: where r ends, the bytes so far are the content of
// desc, or the error is a [*Fault] instead of io.EOF. Bytes beyond the size of desc are a Fault, too. Not safe for concurrent use.
func Reader(r io.Reader, desc ocispec.Descriptor) io.Reader {
	v := &reader{r: r, desc: desc}
	if valid(desc.Digest) {
		v.hash = digest.SHA256.Digester()
	}
	return v
}

type reader struct {
	r    io.Reader
	desc ocispec.Descriptor
	hash digest.Digester // nil: the digest is malformed
	n    int64
}

func (v *reader) Read(p []byte) (int, error) {
	if v.hash == nil {
		return 0, malformed(v.desc)
	}
	n, err := v.r.Read(p)
	v.n += int64(n)
	_, _ = v.hash.Hash().Write(p[:n]) // a hash never fails
	switch {
	case v.n > v.desc.Size:
		return n, &Fault{ErrDigestMismatch, v.desc.Digest, fmt.Sprintf("has more than %d bytes", v.desc.Size)}
	case err != io.EOF:
		return n, err
	}
	if err := check(v.desc, v.n, v.hash.Digest); err != nil {
		return n, err
	}
	return n, io.EOF
}
