// Package verify decides whether a manifest is signed by someone the caller trusts.
//
// [Artifact] is the one thing to call: it takes a digest and a [Policy] and returns what was verified, or an [UntrustedError]
// that has the reason for every signature that did not count. The [Result] holds the manifest's bytes; the next step takes them,
// or its Subject, by digest, and not the tag that led there. Everything below the manifest is bound by digests and is the
// artifact package's to check.
//
// Signatures are Sigstore bundles v0.3 attached as OCI referrers, as cosign 3 and package sign write them. Keys only: bundles
// with certificates are refused, transparency log entries and timestamps in a bundle are neither needed nor checked, and the
// older .sig tags are not read. An artifact that has attestations only is not signed.
package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/davit-oci/davit/internal/bundle"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Errors that an [UntrustedError] matches with errors.Is.
var (
	// ErrNoTrustSource is the reason when the policy trusts nobody. The ways out of that are the caller's to know.
	ErrNoTrustSource = errors.New("no trust source: no key says whose signatures count")

	// ErrDigestMismatch is among the reasons when bytes were not what a digest says.
	ErrDigestMismatch = errors.New("bytes are not what their digest says")
)

// A Source is where a manifest and its signatures are. Its methods are called concurrently. It need not check digests: what it
// returns is checked here, whereas an error from Fetch counts as a failure of the network, not as a forgery. The exception is an
// error that matches [fs.ErrNotExist], for content that certainly is not there.
type Source interface {
	// Fetch opens a manifest or blob by the descriptor's media type, digest and size.
	Fetch(ctx context.Context, target ocispec.Descriptor) (io.ReadCloser, error)

	// Referrers lists what refers to target, of any type. Descriptors are believed to be places to look, no more.
	Referrers(ctx context.Context, target ocispec.Descriptor) ([]ocispec.Descriptor, error)
}

// A Policy says whose signatures count. The zero value trusts nothing.
type Policy struct {
	// Keys: a signature by any one of them counts.
	Keys []*Key

	// Bind is the HOST/REPO that the signature itself must name, or [BindAny] to accept any name in silence. With a repository a
	// signature that names none does not count. Empty: Name decides about warnings.
	Bind string

	// Name is HOST/REPO, the logical repository that the artifact is accessed by. A signature made for another counts with a
	// warning, unless one counts that was made for this. Empty: there is none (an OCI layout), and no name is warned about.
	Name string
}

// BindAny is a [Policy.Bind] that accepts signatures made for any repository.
const BindAny = "any"

// Limits of what a registry can make us fetch and hold. A signature as cosign writes it is two documents of about 1 KB; with
// certificates and log entries it is about 12 KB.
const (
	maxManifest         = 4 << 20   // the manifest itself: what the distribution spec asks registries to take
	maxReferrers        = 128       // how many referrers are looked at, those listed as bundles first
	maxReferrerManifest = 256 << 10 // the manifest of a referrer
	maxBundle           = 1 << 20   // a bundle
	fetches             = 8         // referrers looked at at the same time
)

// A Result is what was verified. Only [Artifact] makes one.
type Result struct {
	// Subject has the media type, digest and size of the manifest, and nothing else that a registry may have claimed. The media
	// type is the caller's: no signature covers it, so a reader compares it with the one in Manifest.
	Subject ocispec.Descriptor

	// Manifest is the content of Subject.
	Manifest []byte

	// Signatures are all that were found, in the order of their digests. At least one is counted.
	Signatures []Signature

	// Warnings are for the user to see: one sentence each, without a full stop.
	Warnings []string

	// Chain is the way of the trust: each signature that counted, then the manifest.
	Chain []Link
}

// A Signature is one bundle that was found for the subject, and what became of it. Fields after Why are what the bundle says:
// a claim of the signer when Counted, and of nobody otherwise.
type Signature struct {
	// Digest is that of the bundle; empty when there was no way to know which it is.
	Digest digest.Digest `json:"digest,omitempty"`

	// Referrer is the digest of the manifest that attaches the bundle.
	Referrer digest.Digest `json:"referrer"`

	// Kind is "key", or empty when the bundle could not be read.
	Kind string `json:"kind,omitempty"`

	// KeyHint names the key that verified the signature when Counted; otherwise the key that the bundle claims.
	KeyHint string `json:"keyHint,omitempty"`

	// Time is when the signer says it signed, read from its sequence; zero when it does not say. No clock but the signer's
	// stands behind it.
	Time time.Time `json:"time,omitzero"`

	// Counted says that this signature makes the artifact trusted; Code and Why say why not.
	Counted bool   `json:"counted"`
	Code    Code   `json:"code,omitempty"`
	Why     string `json:"why,omitempty"`

	// Name is HOST/REPO that the signature was made for, Tags the tags of that push, Sequence its place in their history.
	Name     string   `json:"name,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	Sequence int64    `json:"sequence,omitempty"`

	err error
}

// A Link is a step of the chain of trust: that link vouches for subject.
type Link struct {
	Link    string `json:"link"` // "signature", "manifest"; package artifact continues with "index", "page" and so on
	Subject string `json:"subject"`
	OK      bool   `json:"ok"`
	Why     string `json:"why"`
}

// A Code is a reason in one word, for programs.
type Code string

// Why a manifest or a signature is refused.
const (
	NoTrustSource  Code = "no-trust-source" // the policy is empty
	NoSignature    Code = "no-signature"    // nothing that could be a signature
	DigestMismatch Code = "digest-mismatch" // bytes are not what a digest says
	TooLarge       Code = "too-large"       // beyond a limit that protects us
	TooMany        Code = "too-many"        // more referrers than are looked at
	Missing        Code = "missing"         // listed, but not there
	Malformed      Code = "malformed"       // not a well-formed referrer, bundle or statement
	OtherSubject   Code = "other-subject"   // about another manifest
	NotASignature  Code = "not-a-signature" // an attestation
	Unsupported    Code = "unsupported"     // a certificate, a signature without a statement
	UntrustedKey   Code = "untrusted-key"   // signed by no key of the policy, or changed after signing
	OtherName      Code = "other-name"      // made for another repository than Bind
	notFetched     Code = "not-fetched"     // the network failed; only beside signatures that count
)

// A Reason is why something did not count.
type Reason struct {
	Code Code `json:"code"`

	// Digest is that of the bundle, else of the manifest that attaches it. Empty for reasons that are about all of it.
	Digest digest.Digest `json:"digest,omitempty"`

	Why string `json:"why"`

	err error
}

// An UntrustedError says that the subject must not be used: no signature counts, or the manifest is not what its digest says.
// It is never about a network that failed.
type UntrustedError struct {
	// Subject is as in [Result].
	Subject ocispec.Descriptor

	// Reasons has at least one.
	Reasons []Reason

	// Signatures are all that were found, none of them counted.
	Signatures []Signature

	// Chain is the way of the trust that was tried: each signature, then the manifest, none of them OK.
	Chain []Link
}

// Error names the subject and the first reasons; a registry can make many.
func (e *UntrustedError) Error() string {
	const most = 5
	var whys []string
	for _, r := range e.Reasons[:min(len(e.Reasons), most)] {
		if r.Digest != "" {
			whys = append(whys, fmt.Sprintf("signature %s: %s", r.Digest, r.Why))
		} else {
			whys = append(whys, r.Why)
		}
	}
	if n := len(e.Reasons) - most; n > 0 {
		whys = append(whys, fmt.Sprintf("and %d more reasons", n))
	}
	return fmt.Sprintf("%s is not trusted: %s", e.Subject.Digest, strings.Join(whys, "; "))
}

// Unwrap makes errors.Is find [ErrNoTrustSource] and [ErrDigestMismatch].
func (e *UntrustedError) Unwrap() []error {
	var errs []error
	for _, r := range e.Reasons {
		if r.err != nil {
			errs = append(errs, r.err)
		}
	}
	return errs
}

// Artifact fetches the manifest that subject names and decides whether p trusts it. subject is digest and size, as the caller
// resolved them; annotations and other fields are ignored.
//
// On an error the Result is nil. An [*UntrustedError] is a decision; any other error means that there was none: a network that
// failed, also when it failed for one signature of which nobody can tell now whether it would have counted.
func Artifact(ctx context.Context, src Source, subject ocispec.Descriptor, p Policy) (*Result, error) {
	subject = plain(subject)
	keys := slices.DeleteFunc(slices.Clone(p.Keys), func(k *Key) bool { return !k.usable() })
	if len(keys) == 0 {
		return nil, refuse(subject, nil, Reason{Code: NoTrustSource, Why: ErrNoTrustSource.Error(), err: ErrNoTrustSource})
	}
	manifest, err := fetch(ctx, src, subject, maxManifest)
	if err != nil {
		if r, ok := asRefusal(err); ok {
			return nil, refuse(subject, nil, Reason{Code: r.code, Why: "manifest: " + r.why, err: r.err})
		}
		return nil, fmt.Errorf("fetching manifest %s: %w", subject.Digest, err)
	}
	listed, err := src.Referrers(ctx, subject)
	if err != nil {
		return nil, fmt.Errorf("listing signatures of %s: %w", subject.Digest, err)
	}
	candidates, left := choose(listed)

	found := make([]*Signature, len(candidates))
	var g errgroup.Group
	g.SetLimit(fetches)
	for i, desc := range candidates {
		g.Go(func() error {
			found[i] = examine(ctx, src, subject, desc, keys, p)
			return nil
		})
	}
	g.Wait() // no error: what went wrong with a candidate is kept with it
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("verifying %s: %w", subject.Digest, err)
	}
	return decide(subject, manifest, found, left, p)
}

// plain leaves of a descriptor what a digest covers. The rest came from a registry, and goes no further.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// choose returns the referrers to look at, each once, and the number of those that are beyond the limit. What is listed as a
// bundle comes first, so that nobody can hide a signature behind a heap of other referrers; but a listing's type is a hint that
// some registries get wrong, so no type is left out.
func choose(listed []ocispec.Descriptor) (candidates []ocispec.Descriptor, left int) {
	// By size too: a list with a wrong size must not take the place of the right one.
	type id struct {
		digest digest.Digest
		size   int64
	}
	seen := make(map[id]bool)
	for _, d := range listed {
		if d.MediaType == ocispec.MediaTypeImageManifest && !seen[id{d.Digest, d.Size}] {
			seen[id{d.Digest, d.Size}] = true
			candidates = append(candidates, d)
		}
	}
	slices.SortStableFunc(candidates, func(a, b ocispec.Descriptor) int {
		return cmp.Compare(likeliness(a), likeliness(b))
	})
	n := min(len(candidates), maxReferrers)
	return candidates[:n], len(candidates) - n
}

func likeliness(d ocispec.Descriptor) int {
	switch {
	case d.ArtifactType == bundle.MediaType && d.Annotations[bundle.AnnotationPredicateType] == bundle.PredicateType:
		return 0
	case d.ArtifactType == bundle.MediaType:
		return 1
	}
	return 2
}

// decide makes the verdict of what was found; nil stands for a referrer that is no signature at all.
func decide(subject ocispec.Descriptor, manifest []byte, found []*Signature, left int, p Policy) (*Result, error) {
	var (
		signatures []Signature
		warnings   []string
		reasons    []Reason
		failures   []error
	)
	for _, s := range found {
		if s != nil {
			signatures = append(signatures, *s)
		}
	}
	slices.SortFunc(signatures, func(a, b Signature) int {
		return cmp.Or(cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.Referrer, b.Referrer))
	})
	manifestLink := Link{Link: "manifest", Subject: subject.Digest.String()}
	var counted, broken []Link
	for _, s := range signatures {
		id := cmp.Or(s.Digest, s.Referrer)
		switch {
		case s.Counted:
			counted = append(counted, Link{Link: "signature", Subject: id.String(), OK: true, Why: "by key " + s.KeyHint})
			continue
		case s.Code == notFetched:
			failures = append(failures, fmt.Errorf("fetching signature %s: %w", id, s.err))
			warnings = append(warnings, fmt.Sprintf("signature %s could not be fetched", id))
		default:
			reasons = append(reasons, Reason{Code: s.Code, Digest: id, Why: s.Why, err: s.err})
		}
		broken = append(broken, Link{Link: "signature", Subject: id.String(), Why: s.Why})
	}
	if left > 0 {
		why := fmt.Sprintf("%d referrers more than the %d that were looked at", left, maxReferrers)
		reasons = append(reasons, Reason{Code: TooMany, Why: why})
		warnings = append(warnings, why)
	}

	if len(counted) > 0 {
		manifestLink.OK, manifestLink.Why = true, "signed by digest"
		return &Result{
			Subject:    subject,
			Manifest:   manifest,
			Signatures: signatures,
			Warnings:   append(nameWarnings(signatures, p), warnings...),
			Chain:      append(counted, manifestLink),
		}, nil
	}
	if len(failures) > 0 {
		return nil, errors.Join(failures...)
	}
	if len(reasons) == 0 {
		reasons = []Reason{{Code: NoSignature, Why: "there is no signature"}}
	}
	e := refuse(subject, signatures, reasons...)
	e.Chain = append(broken, e.Chain...)
	return nil, e
}

// nameWarnings says that the artifact was signed for other names than the one it is accessed by: a copy, or a swap.
func nameWarnings(signatures []Signature, p Policy) (warnings []string) {
	if p.Bind != "" || p.Name == "" {
		return nil
	}
	for _, s := range signatures {
		switch {
		case !s.Counted || s.Name == "":
		case s.Name == p.Name:
			return nil
		default:
			warnings = append(warnings, fmt.Sprintf("signature %s was made for %s, not for %s", s.Digest, s.Name, p.Name))
		}
	}
	return warnings
}

func refuse(subject ocispec.Descriptor, signatures []Signature, reasons ...Reason) *UntrustedError {
	return &UntrustedError{
		Subject:    subject,
		Reasons:    reasons,
		Signatures: signatures,
		Chain:      []Link{{Link: "manifest", Subject: subject.Digest.String(), Why: reasons[0].Why}},
	}
}

// A refusal is a candidate's reason on its way up: content that is there and that does not count.
type refusal struct {
	code Code
	why  string
	err  error
}

func (r *refusal) Error() string { return r.why }

func refusef(code Code, format string, args ...any) error {
	return &refusal{code: code, why: fmt.Sprintf(format, args...)}
}

func asRefusal(err error) (*refusal, bool) {
	return errors.AsType[*refusal](err)
}

// fetch reads the content of desc and checks it before anyone parses it.
func fetch(ctx context.Context, src Source, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if err := desc.Digest.Validate(); err != nil {
		return nil, refusef(Malformed, "%q is not a digest", desc.Digest)
	}
	if desc.Size < 0 || desc.Size > limit {
		return nil, refusef(TooLarge, "%d bytes; the limit is %d", desc.Size, limit)
	}
	rc, err := src.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	// One byte more than there may be, to see that there is none. A source that checks digests itself fails after the last byte;
	// by then the bytes are here, and speak for themselves.
	data, err := io.ReadAll(io.LimitReader(rc, desc.Size+1))
	if err != nil && int64(len(data)) < desc.Size {
		return nil, err
	}
	if int64(len(data)) != desc.Size {
		return nil, &refusal{DigestMismatch, fmt.Sprintf("content of %s has not the %d bytes of its descriptor", desc.Digest, desc.Size), ErrDigestMismatch}
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return nil, &refusal{DigestMismatch, fmt.Sprintf("content of %s has the digest %s", desc.Digest, got), ErrDigestMismatch}
	}
	return data, nil
}

// examine looks at one referrer. It returns nil for one that is of another kind, such as an SBOM.
func examine(ctx context.Context, src Source, subject, desc ocispec.Descriptor, keys []*Key, p Policy) *Signature {
	s := &Signature{Referrer: desc.Digest}
	err := func() error {
		data, err := fetch(ctx, src, plain(desc), maxReferrerManifest)
		if err != nil {
			return err
		}
		layer, err := parseReferrer(data, subject)
		if err != nil {
			return err
		}
		s.Digest = layer.Digest
		data, err = fetch(ctx, src, layer, maxBundle)
		if err != nil {
			return err
		}
		return check(s, data, subject, keys, p)
	}()
	if errors.Is(err, errOtherKind) {
		return nil
	}
	r, refused := asRefusal(err)
	switch {
	case err == nil:
		s.Counted = true
	case refused:
		s.Code, s.Why, s.err = r.code, r.why, r.err
	case errors.Is(err, fs.ErrNotExist):
		s.Code, s.Why = Missing, "it is listed, but not there"
	default:
		s.Code, s.Why, s.err = notFetched, "could not be fetched", err
	}
	return s
}
