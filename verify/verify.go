// Package verify decides whether a manifest is signed by someone the caller trusts.
//
// [Artifact] is the one thing to call: it takes a digest and a [Policy] and returns what was verified, or an [UntrustedError]
// that has the reason for every signature that did not count. The [Result] has a [Subject], by which package artifact reads. So
// the next step goes by the digest that was verified, and not by the tag that led there. Everything below the manifest is bound by
// digests and is the artifact package's to check.
//
// Who does without a signature says so: with [Pinned], which takes a digest that the user named, or with [Unverified]. There is no
// other way to a Subject.
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

	"github.com/davit-oci/davit/internal/fetch"
	"github.com/davit-oci/davit/internal/subject"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Errors that an [UntrustedError] matches with errors.Is.
var (
	// ErrNoTrustSource is the reason when the policy trusts nobody. The ways out of that are the caller's to know.
	ErrNoTrustSource = errors.New("no trust source: no key says whose signatures count")

	// ErrDigestMismatch is among the reasons when bytes were not what a digest says. It is the value of the same name in package
	// registry.
	ErrDigestMismatch = fetch.ErrDigestMismatch
)

// A Fetcher opens a manifest or blob by the descriptor's media type, digest and size. It need not check digests: what it returns is
// checked here.
type Fetcher interface {
	Fetch(ctx context.Context, target ocispec.Descriptor) (io.ReadCloser, error)
}

// A Source is where a manifest and its signatures are. Its methods are called concurrently. An error counts as a failure of the network,
// not as a forgery. The exceptions are errors that match [fs.ErrNotExist], for content that certainly is not there, and [fs.ErrInvalid],
// for what is wrong where it is kept.
type Source interface {
	Fetcher

	// Referrers lists what refers to target, of any type. Descriptors are believed to be places to look, no more. What is returned
	// beside an error is looked at, too: a signature that is found counts, however much is missing.
	Referrers(ctx context.Context, target ocispec.Descriptor) ([]ocispec.Descriptor, error)
}

// A Policy says whose signatures count. The zero value trusts nothing.
type Policy struct {
	// Keys: a signature by any one of them counts.
	Keys []*Key

	// Bind is the HOST/REPO that the signature itself must name, or [BindAny] to accept any name and any tags in silence. With a
	// repository a signature that names none does not count, nor one that does not hold Tag. Empty: Name and Tag decide about warnings.
	Bind string

	// Name is HOST/REPO, the logical repository that the artifact is accessed by. A signature made for another counts with a
	// warning, unless one counts that was made for this. Empty: there is none (an OCI layout), and no name is warned about.
	Name string

	// Tag is the tag that led to the artifact. A signature made for other tags counts with a warning, like one for another name:
	// somebody has moved the tag. Empty: a digest led there.
	Tag string
}

// BindAny is a [Policy.Bind] that accepts signatures made for any repository.
const BindAny = "any"

// A Result is what was let through, and why.
type Result struct {
	// Subject is what the next step takes. It says who has vouched for it.
	Subject Subject

	// Signatures are all that [Artifact] found, in the order of their digests. At least one is counted. Nobody else looks for any.
	Signatures []Signature

	// Warnings are for the user to see: one sentence each, without a full stop.
	Warnings []string

	// Chain is the way of the trust: each signature that counted, then the manifest. It is empty where nothing was verified.
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
	Incomplete     Code = "incomplete"      // the list of referrers breaks off
	Missing        Code = "missing"         // listed, but not there
	Malformed      Code = "malformed"       // not a well-formed referrer, bundle or statement
	OtherSubject   Code = "other-subject"   // about another manifest
	NotASignature  Code = "not-a-signature" // an attestation
	Unsupported    Code = "unsupported"     // a certificate, a signature without a statement
	UntrustedKey   Code = "untrusted-key"   // signed by no key of the policy, or changed after signing
	OtherName      Code = "other-name"      // made for another repository than Bind
	OtherTag       Code = "other-tag"       // made for other tags, where Bind says that they count
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
	// Subject has the media type, digest and size of what is refused.
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

// Artifact fetches the manifest desc and decides whether p trusts it. desc is media type, digest and size, as the caller resolved them;
// annotations and other fields are ignored.
//
// On an error the Result is nil. An [*UntrustedError] is a decision; any other error means that there was none: a network that
// failed, also when it failed for one signature of which nobody can tell now whether it would have counted.
func Artifact(ctx context.Context, src Source, desc ocispec.Descriptor, p Policy) (*Result, error) {
	desc = plain(desc)
	keys := slices.DeleteFunc(slices.Clone(p.Keys), func(k *Key) bool { return !k.usable() })
	if len(keys) == 0 {
		return nil, refuse(desc, nil, Reason{Code: NoTrustSource, Why: ErrNoTrustSource.Error(), err: ErrNoTrustSource})
	}
	manifest, err := readManifest(ctx, src, desc)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	listed, listing := src.Referrers(ctx, desc)
	candidates, left := choose(listed)
	s := search{src: src, subject: desc, keys: keys, policy: p, unseen: left}
	// A slow list leaves half of the time to look at what it names.
	s.look(ctx, candidates, later(start.Add(maxTime), time.Now().Add(maxTime/2)))
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("verifying %s: %w", desc.Digest, err)
	}
	return decide(manifest, &s, len(candidates)+left, listing)
}

// Claims are what signatures of subject say, whoever made them: nothing is verified, none is counted, and Code says so. They tell what
// a signature is worth adding for, never whom to trust.
func Claims(ctx context.Context, src Source, subject ocispec.Descriptor) ([]Signature, error) {
	listed, err := src.Referrers(ctx, plain(subject))
	candidates, _ := choose(listed)
	s := search{src: src, subject: plain(subject)}
	s.look(ctx, candidates, time.Now().Add(maxTime))
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	var all []Signature
	for _, sig := range s.found {
		if sig.Code == UntrustedKey { // a signature of subject, by somebody
			all = append(all, *sig)
		}
	}
	return all, err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// plain leaves of a descriptor what a digest covers. The rest came from a registry, and goes no further.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// decide makes the verdict of what was found among all referrers. listing is what is wrong with their list.
func decide(manifest []byte, s *search, all int, listing error) (*Result, error) {
	var (
		signatures []Signature
		warnings   []string
		reasons    []Reason
		failures   []error
	)
	for _, sig := range s.found {
		signatures = append(signatures, *sig)
	}
	slices.SortFunc(signatures, func(a, b Signature) int {
		return cmp.Or(cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.Referrer, b.Referrer))
	})

	// What is about all of them comes first.
	if s.unseen > 0 {
		why := fmt.Sprintf("%d of %d referrers were not looked at: the limits are %d, %d MiB and %v", s.unseen, all, maxReferrers, maxBytes>>20, maxTime)
		reasons = append(reasons, Reason{Code: TooMany, Why: why})
		warnings = append(warnings, why)
	}
	if listing != nil {
		why := fmt.Sprintf("the list of signatures is not complete: %v", listing)
		warnings = append(warnings, why)
		if errors.Is(listing, fs.ErrInvalid) {
			reasons = append(reasons, Reason{Code: Incomplete, Why: why})
		} else {
			failures = append(failures, fmt.Errorf("listing signatures of %s: %w", s.subject.Digest, listing))
		}
	}
	manifestLink := Link{Link: "manifest", Subject: s.subject.Digest.String()}
	var counted, broken []Link
	var unfetched []string
	for _, sig := range signatures {
		id := cmp.Or(sig.Digest, sig.Referrer)
		switch {
		case sig.Counted:
			counted = append(counted, Link{Link: "signature", Subject: id.String(), OK: true, Why: sig.says()})
			continue
		case sig.Code == notFetched:
			failures = append(failures, fmt.Errorf("fetching signature %s: %w", id, sig.err))
			unfetched = append(unfetched, fmt.Sprintf("signature %s could not be fetched", id))
		default:
			reasons = append(reasons, Reason{Code: sig.Code, Digest: id, Why: sig.Why, err: sig.err})
		}
		broken = append(broken, Link{Link: "signature", Subject: id.String(), Why: sig.Why})
	}

	if len(counted) > 0 {
		manifestLink.OK, manifestLink.Why = true, "signed by digest"
		return &Result{
			Subject:    subject.New(s.subject, manifest, ByKey),
			Signatures: signatures,
			Warnings:   slices.Concat(shortened(s.policy.warnings(signatures)), warnings, shortened(unfetched)),
			Chain:      append(counted, manifestLink),
		}, nil
	}
	if len(failures) > 0 {
		return nil, errors.Join(failures[:min(len(failures), most)]...)
	}
	if len(reasons) == 0 {
		reasons = []Reason{{Code: NoSignature, Why: "there is no signature"}}
	}
	e := refuse(s.subject, signatures, reasons...)
	e.Chain = append(broken, e.Chain...)
	return nil, e
}

// most is how many sentences of a kind are for people to read: whoever can push can make many.
const most = 5

// shortened leaves of warnings as many as are read.
func shortened(warnings []string) []string {
	if n := len(warnings) - most; n > 0 {
		return append(warnings[:most:most], fmt.Sprintf("and %d more warnings like this", n))
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

// readManifest reads the manifest desc. The error is an [*UntrustedError] where the bytes are at fault.
func readManifest(ctx context.Context, src fetch.Source, desc ocispec.Descriptor) ([]byte, error) {
	manifest, err := fetchContent(ctx, src, desc, fetch.MaxManifest)
	if r, ok := asRefusal(err); ok {
		return nil, refuse(desc, nil, Reason{Code: r.code, Why: "manifest: " + r.why, err: r.err})
	}
	if err != nil {
		return nil, fmt.Errorf("fetching manifest %s: %w", desc.Digest, err)
	}
	return manifest, nil
}

// fetchContent reads the content of desc and checks it before anyone parses it.
func fetchContent(ctx context.Context, src fetch.Source, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	data, err := fetch.All(ctx, src, desc, limit)
	f, ok := errors.AsType[*fetch.Fault](err)
	switch {
	case !ok:
		return data, err
	case errors.Is(f.Kind, fetch.ErrMalformedDigest):
		return nil, refusef(Malformed, "%.200q %s", f.Digest, f.Why)
	case errors.Is(f.Kind, fetch.ErrTooLarge):
		return nil, refusef(TooLarge, "content of %s %s", f.Digest, f.Why)
	}
	return nil, &refusal{DigestMismatch, fmt.Sprintf("content of %s %s", f.Digest, f.Why), ErrDigestMismatch}
}
