package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/davit-oci/davit/internal/fetch"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A source gives one reader, whatever is asked for.
type source struct {
	io.Reader
	fetched bool
}

func (s *source) Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	s.fetched = true
	return io.NopCloser(s.Reader), nil
}

var errBroken = errors.New("broken")

func TestAll(t *testing.T) {
	const content = "some content"
	of := func(d digest.Digest, size int64) ocispec.Descriptor { return ocispec.Descriptor{Digest: d, Size: size} }
	good := of(digest.FromString(content), int64(len(content)))
	for _, tt := range []struct {
		name    string
		desc    ocispec.Descriptor
		given   io.Reader
		limit   int64
		want    error // nil: content
		fetched bool
	}{
		{"content", good, strings.NewReader(content), 100, nil, true},
		{"content at the limit", good, strings.NewReader(content), good.Size, nil, true},
		{"nothing", of(digest.FromString(""), 0), strings.NewReader(""), 0, nil, true},
		{"failure after the last byte", good, io.MultiReader(strings.NewReader(content), iotest.ErrReader(errBroken)), 100, nil, true},

		{"other content", good, strings.NewReader("Some content"), 100, fetch.ErrDigestMismatch, true},
		{"one byte more", good, strings.NewReader(content + "."), 100, fetch.ErrDigestMismatch, true},
		{"one byte less", good, strings.NewReader(content[1:]), 100, fetch.ErrDigestMismatch, true},
		{"size of a prefix", of(digest.FromString(content), 4), strings.NewReader(content), 100, fetch.ErrDigestMismatch, true},
		{"other content that the source calls broken", good, io.MultiReader(strings.NewReader("Some content"), iotest.ErrReader(errBroken)), 100, fetch.ErrDigestMismatch, true},
		{"failure before the last byte", good, io.MultiReader(strings.NewReader(content[1:]), iotest.ErrReader(errBroken)), 100, errBroken, true},
		{"over the limit", good, strings.NewReader(content), good.Size - 1, fetch.ErrTooLarge, false},
		{"negative size", of(good.Digest, -1), strings.NewReader(content), 100, fetch.ErrTooLarge, false},
		{"no digest", of("", good.Size), strings.NewReader(content), 100, fetch.ErrMalformedDigest, false},
		{"digest with a path in it", of("sha256:../../etc", good.Size), strings.NewReader(content), 100, fetch.ErrMalformedDigest, false},
		{"another digest algorithm", of("sha512:"+digest.Digest(strings.Repeat("0", 128)), good.Size), strings.NewReader(content), 100, fetch.ErrMalformedDigest, false},
		{"upper-case digest", of("sha256:"+digest.Digest(strings.ToUpper(good.Digest.Encoded())), good.Size), strings.NewReader(content), 100, fetch.ErrMalformedDigest, false},
		{"weak digest", of("md5:d41d8cd98f00b204e9800998ecf8427e", good.Size), strings.NewReader(content), 100, fetch.ErrMalformedDigest, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &source{Reader: tt.given}
			got, err := fetch.All(t.Context(), s, tt.desc, tt.limit)
			if !errors.Is(err, tt.want) || (err != nil) != (got == nil) {
				t.Errorf("got %q, %v, want %v", got, err, tt.want)
			}
			if s.fetched != tt.fetched {
				t.Errorf("fetched: %t, want %t", s.fetched, tt.fetched)
			}
			if _, ok := errors.AsType[*fetch.Fault](err); ok != (err != nil && !errors.Is(err, errBroken)) {
				t.Errorf("%v is a Fault: %t", err, ok)
			}
			if tt.want == fetch.ErrDigestMismatch && !errors.Is(err, fs.ErrInvalid) {
				t.Errorf("%v is no fs.ErrInvalid", err)
			}
		})
	}
}

func TestReader(t *testing.T) {
	content := bytes.Repeat([]byte("content "), 1000)
	desc := ocispec.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	flipped := bytes.Clone(content)
	flipped[1] ^= 1
	for _, tt := range []struct {
		name  string
		given []byte
		desc  ocispec.Descriptor
		want  error
	}{
		{"content", content, desc, nil},
		{"a flipped bit", flipped, desc, fetch.ErrDigestMismatch},
		{"longer", append(bytes.Clone(content), 0), desc, fetch.ErrDigestMismatch},
		{"shorter", content[1:], desc, fetch.ErrDigestMismatch},
		{"empty", nil, desc, fetch.ErrDigestMismatch},
		{"no digest", content, ocispec.Descriptor{Size: desc.Size}, fetch.ErrMalformedDigest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []io.Reader{bytes.NewReader(tt.given), iotest.DataErrReader(bytes.NewReader(tt.given)), iotest.OneByteReader(bytes.NewReader(tt.given))} {
				got, err := io.ReadAll(fetch.Reader(r, tt.desc))
				if !errors.Is(err, tt.want) || tt.want == nil && !bytes.Equal(got, tt.given) {
					t.Errorf("got %d bytes and %v, want %v", len(got), err, tt.want)
				}
			}
		})
	}
}
