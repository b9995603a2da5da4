package verify

import (
	"context"
	"fmt"

	"github.com/davit-oci/davit/internal/subject"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Subject is a manifest or an image index that was let through, and what package artifact reads an artifact by. [Artifact], [Pinned] and
// [Unverified] make one. The zero Subject is refused with [ErrNoSubject] wherever one is needed. A Subject can be copied, and is safe for
// concurrent use. It has these methods:
//
//	Descriptor() ocispec.Descriptor            // media type, digest and size, and no other claim of a registry
//	Manifest() []byte                          // a copy of the content, whose digest was checked
//	VouchedBy() Voucher                        // ByKey, ByDigest or ByNobody
//	IsIndex() bool                             // by its media type
//	Index() (*ocispec.Index, error)            // the index, or an ErrMalformedIndex
//	Children() ([]ocispec.Descriptor, error)   // what the index lists, each once
//	Child(ctx, fetcher, desc) (Subject, error) // fetches a manifest that the index lists, else ErrNotListed
//
// No signature covers the media type of a descriptor: a reader compares it with the one in the manifest, as package artifact does. An index
// vouches for its children by their digests, so that a child has the voucher of its index.
type Subject = subject.Subject

// A Voucher says who has vouched for a [Subject].
type Voucher = subject.Voucher

// The vouchers of subjects.
const (
	ByKey    = subject.ByKey    // "key": a key of the policy has signed it; of [Artifact]
	ByDigest = subject.ByDigest // "digest": the caller has named its digest; of [Pinned]
	ByNobody = subject.ByNobody // "none": it can be anything; of [Unverified]
)

// Errors of a [Subject].
var (
	// ErrNoSubject is the error for the zero Subject.
	ErrNoSubject = subject.ErrZero

	// ErrMalformedIndex is wrapped by errors about an image index that is not well-formed, or that two parsers could read differently.
	ErrMalformedIndex = subject.ErrMalformedIndex

	// ErrNotListed is wrapped by errors about a child that the index does not list.
	ErrNotListed = subject.ErrNotListed
)

// Pinned fetches the manifest desc, which the caller has named by its digest, pin: nobody need have signed it. desc is what a registry made
// of the caller's words, and must have that digest.
//
// On an error the Result is nil. An [*UntrustedError] is a decision: the digest or the content is another, or no digest is pinned. Any
// other error means that there was none.
func Pinned(ctx context.Context, src Fetcher, desc ocispec.Descriptor, pin digest.Digest) (*Result, error) {
	desc = plain(desc)
	if pin == "" {
		return nil, refuse(desc, nil, Reason{Code: NoTrustSource, Why: "no trust source: no digest is pinned", err: ErrNoTrustSource})
	}
	if desc.Digest != pin {
		return nil, refuse(desc, nil, Reason{Code: DigestMismatch, Why: fmt.Sprintf("the pinned digest is %.200s", pin), err: ErrDigestMismatch})
	}
	manifest, err := readManifest(ctx, src, desc)
	if err != nil {
		return nil, err
	}
	return &Result{
		Subject: subject.New(desc, manifest, ByDigest),
		Chain:   []Link{{Link: "manifest", Subject: desc.Digest.String(), OK: true, Why: "named by its digest"}},
	}, nil
}

// Unverified fetches the manifest desc and lets it through, whoever wrote it. Whoever can write to the registry can have put anything
// there. Only that the content has the digest and size of desc is checked.
//
// It is for looking at an artifact, and for whoever has said that the artifact need not be signed. On an error the Result is nil. An
// [*UntrustedError] says that the content is not what desc says.
func Unverified(ctx context.Context, src Fetcher, desc ocispec.Descriptor) (*Result, error) {
	desc = plain(desc)
	manifest, err := readManifest(ctx, src, desc)
	if err != nil {
		return nil, err
	}
	return &Result{Subject: subject.New(desc, manifest, ByNobody)}, nil
}
