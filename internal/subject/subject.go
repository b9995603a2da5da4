// Package subject holds the type of what was let through: a manifest, and who has vouched for it. Package verify makes subjects and
// gives the type its public name. Package artifact reads what they name.
//
// The package exists so that neither of the two has to import the other. imports_test.go sees to it that nobody else imports it, and
// that only verify calls [New].
package subject

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/davit-oci/davit/internal/fetch"
	"github.com/davit-oci/davit/internal/strictjson"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	// ErrZero is the error for the zero Subject.
	ErrZero = errors.New("no subject: nothing was verified, pinned or declared unverified")

	// ErrMalformedIndex is wrapped by errors about an image index that is not well-formed, or that two parsers could read differently.
	ErrMalformedIndex = errors.New("malformed image index")

	// ErrNotListed is wrapped by errors about a descriptor that an index does not list.
	ErrNotListed = errors.New("not listed in the index")
)

// A Voucher says who has vouched for a subject.
type Voucher string

// The vouchers. A child of an index has the voucher of the index.
const (
	ByKey    Voucher = "key"    // a key of the policy has signed it
	ByDigest Voucher = "digest" // the caller has named its digest
	ByNobody Voucher = "none"   // it can be anything
)

// A Subject is a manifest or an image index that was let through. It can be copied, and is safe for concurrent use.
type Subject struct {
	*content // nil in the zero value
}

type content struct {
	desc     ocispec.Descriptor
	manifest []byte
	by       Voucher
	index    func() (*index, error)
}

// New makes a subject. manifest is the content of desc, which the caller has checked; it belongs to the subject from now on. Only package
// verify calls New.
func New(desc ocispec.Descriptor, manifest []byte, by Voucher) Subject {
	c := &content{desc: plain(desc), manifest: manifest, by: by}
	c.index = sync.OnceValues(c.parseIndex)
	return Subject{c}
}

// plain leaves of a descriptor what identifies content. The rest is a claim of a registry, and goes no further.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// Descriptor returns the media type, digest and size of the manifest, and nothing else. No signature covers the media type: a reader
// compares it with the one in the manifest. The descriptor of the zero Subject is zero.
func (s Subject) Descriptor() ocispec.Descriptor {
	if s.content == nil {
		return ocispec.Descriptor{}
	}
	return s.desc
}

// Manifest returns a copy of the manifest, whose digest was checked. That of the zero Subject is nil.
func (s Subject) Manifest() []byte {
	if s.content == nil {
		return nil
	}
	return bytes.Clone(s.manifest)
}

// VouchedBy says why the subject was let through. That of the zero Subject is empty.
func (s Subject) VouchedBy() Voucher {
	if s.content == nil {
		return ""
	}
	return s.by
}

// IsIndex reports whether the subject is an image index.
func (s Subject) IsIndex() bool { return s.Descriptor().MediaType == ocispec.MediaTypeImageIndex }

// Index returns the image index that the subject is. Its entries are in the order of the index, and one can be there more than once. What
// the index says of them besides type, digest and size are claims of whoever wrote it. The caller may change the Index. The error wraps
// [ErrMalformedIndex], or [ErrZero].
func (s Subject) Index() (*ocispec.Index, error) {
	x, err := s.parsed()
	if err != nil {
		return nil, err
	}
	out := x.Index
	out.Manifests = slices.Clone(out.Manifests)
	return &out, nil
}

// Children returns the manifests that the index lists, each once and in the order of the index: two platforms can have the same one, and
// whoever can push can list one thousands of times. The descriptors have media type, digest and size. The error is as of Index.
func (s Subject) Children() ([]ocispec.Descriptor, error) {
	x, err := s.parsed()
	if err != nil {
		return nil, err
	}
	return slices.Clone(x.children), nil
}

// Child fetches a manifest that the index lists and returns it as a subject, with the voucher of the index: the digest of the index covers
// those of its children. desc is an entry of the index. If the index lists none of its media type, digest and size, the error wraps
// [ErrNotListed], and nothing is fetched.
func (s Subject) Child(ctx context.Context, src fetch.Source, desc ocispec.Descriptor) (Subject, error) {
	x, err := s.parsed()
	if err != nil {
		return Subject{}, err
	}
	desc = plain(desc)
	if !x.lists[idOf(desc)] {
		return Subject{}, fmt.Errorf("%.200s: %w %s", desc.Digest, ErrNotListed, s.desc.Digest)
	}
	manifest, err := fetch.All(ctx, src, desc, fetch.MaxManifest)
	if err != nil {
		return Subject{}, fmt.Errorf("in the index: %w", err)
	}
	return New(desc, manifest, s.by), nil
}

// An index is an image index that was read strictly. Its size bounds how many manifests it lists.
type index struct {
	ocispec.Index
	children []ocispec.Descriptor
	lists    map[id]bool
}

// An id is what makes two entries the same child.
type id struct {
	mediaType string
	digest    digest.Digest
	size      int64
}

func idOf(d ocispec.Descriptor) id { return id{d.MediaType, d.Digest, d.Size} }

func (s Subject) parsed() (*index, error) {
	if s.content == nil {
		return nil, ErrZero
	}
	return s.index()
}

func (c *content) parseIndex() (*index, error) {
	malformed := func(format string, args ...any) (*index, error) {
		return nil, fmt.Errorf("%w %s: %w", ErrMalformedIndex, c.desc.Digest, fmt.Errorf(format, args...))
	}
	if c.desc.MediaType != ocispec.MediaTypeImageIndex {
		return malformed("it is of type %.100q", c.desc.MediaType)
	}
	if err := strictjson.CheckManifest(c.manifest); err != nil {
		return malformed("%w", err)
	}
	var in struct {
		ocispec.Index
		Layers json.RawMessage `json:"layers"`
	}
	if err := json.Unmarshal(c.manifest, &in); err != nil {
		return malformed("%w", err)
	}
	switch {
	case in.MediaType != "" && in.MediaType != c.desc.MediaType:
		return malformed("its mediaType is %.100q, its descriptor says %q", in.MediaType, c.desc.MediaType)
	case in.Layers != nil:
		return malformed("it has both layers and manifests") // another reader could take it for an image manifest
	}
	x := &index{Index: in.Index, lists: make(map[id]bool)}
	for _, m := range x.Manifests {
		if !x.lists[idOf(m)] {
			x.lists[idOf(m)] = true
			x.children = append(x.children, plain(m))
		}
	}
	return x, nil
}
