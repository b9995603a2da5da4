package oci

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/davit-oci/davit/internal/fetch"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// mismatch turns what package fetch finds wrong with content into an [ErrDigestMismatch].
func mismatch(err error) error {
	if f, ok := errors.AsType[*fetch.Fault](err); ok {
		return fmt.Errorf("%w: %s %s", ErrDigestMismatch, f.Digest, f.Why)
	}
	return err
}

// ReadVerified reads all of r and checks that it is what desc says. The caller has bounded desc.Size.
func ReadVerified(r io.Reader, desc ocispec.Descriptor) ([]byte, error) {
	b, err := fetch.Read(r, desc)
	return b, mismatch(err)
}

// Verify checks that b is what desc says. If it is not, the error is an [ErrDigestMismatch].
func Verify(b []byte, desc ocispec.Descriptor) error { return mismatch(fetch.Check(b, desc)) }

// NewVerifier checks a blob while it is read. verified is called when all of it was read and is right; it may be nil.
func NewVerifier(rc io.ReadCloser, desc ocispec.Descriptor, verified func()) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{verifier{fetch.Reader(rc, desc), verified}, rc}
}

type verifier struct {
	r        io.Reader
	verified func()
}

func (v verifier) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	if errors.Is(err, io.EOF) && v.verified != nil {
		v.verified()
	}
	return n, mismatch(err)
}

// CopyVerified copies the content of desc from r to w, and fails if r has anything else.
func CopyVerified(ctx context.Context, w io.Writer, r io.Reader, desc ocispec.Descriptor) error {
	verified := fetch.Reader(r, desc)
	buf := make([]byte, 256<<10)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := verified.Read(buf)
		if err != nil && err != io.EOF {
			return mismatch(err)
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
	}
}
