// Package bundle is what a signature looks like: the media types, names and claims that package sign writes and package verify
// reads. The two never import each other, so the words that both must say the same way live here and nowhere else.
//
// A signature is a Sigstore bundle v0.3 that holds one DSSE envelope around an in-toto statement, stored as an OCI referrer of
// the manifest it signs, as cosign 3 writes it.
package bundle

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Media types and type names of a signature.
const (
	// MediaType is the media type of a bundle blob and the artifactType of the manifest that attaches it.
	MediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"

	// PayloadType is the type of what the envelope holds.
	PayloadType = "application/vnd.in-toto+json"

	// StatementType is the type of the statement in the payload.
	StatementType = "https://in-toto.io/Statement/v1"

	// PredicateType is what makes a statement a signature. Attestations have others.
	PredicateType = "https://sigstore.dev/cosign/sign/v1"
)

// Annotations of the manifest that attaches a bundle. They are for lists; no signature covers them.
const (
	AnnotationContent       = "dev.sigstore.bundle.content"
	AnnotationPredicateType = "dev.sigstore.bundle.predicateType"

	// ContentDSSE is the value of AnnotationContent for a DSSE envelope.
	ContentDSSE = "dsse-envelope"
)

// Annotations of the statement's subject, covered by the signature: davit's claims about a push.
const (
	// AnnotationTags holds all tags of the push, sorted, comma-separated.
	AnnotationTags = "vnd.davit.tags"

	// AnnotationSequence holds a decimal that grows with every signature of a tag: Unix seconds, or one more than the last.
	AnnotationSequence = "vnd.davit.sequence"
)

// KeyHint names a public key as cosign does: base64 of the SHA-256 of its DER encoding. It finds keys; it proves nothing.
func KeyHint(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("encoding public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:]), nil
}

// CheckKey refuses kinds and sizes of keys that signatures are not made with: both sides of a signature ask it, so that nobody
// signs with what nobody verifies.
func CheckKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case ed25519.PublicKey:
		return nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return nil
		}
		return fmt.Errorf("ECDSA keys on %s are not supported", key.Curve.Params().Name)
	case *rsa.PublicKey:
		switch bits := key.N.BitLen(); bits {
		case 2048, 3072, 4096:
			return nil
		default:
			return fmt.Errorf("RSA keys of %d bits are not supported", bits)
		}
	}
	return fmt.Errorf("keys of type %T are not supported", key)
}

// maxName bounds a name: 255 bytes for the host and 255 for the repository, as registries do.
const maxName = 511

// CheckName refuses names that cannot be HOST/REPO and would do harm in a terminal or a log. Empty is none.
func CheckName(name string) error {
	if len(name) > maxName {
		return fmt.Errorf("a name of %d bytes", len(name))
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] > '~' {
			return fmt.Errorf("the name %q has characters that no name has", name)
		}
	}
	return nil
}

// tagPattern is what the distribution spec allows as a tag. No comma: so a list of tags needs no escapes.
var tagPattern = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// FormatTags returns the value of [AnnotationTags]: sorted, each once, at least one.
func FormatTags(tags []string) (string, error) {
	if len(tags) == 0 {
		return "", errors.New("a list of no tags")
	}
	for _, tag := range tags {
		if !tagPattern.MatchString(tag) {
			return "", fmt.Errorf("%q is not a tag", tag)
		}
	}
	sorted := slices.Clone(tags)
	slices.Sort(sorted)
	return strings.Join(slices.Compact(sorted), ","), nil
}

// ParseTags is the inverse of [FormatTags]. It refuses any text that FormatTags does not write, so that one list has one form.
func ParseTags(s string) ([]string, error) {
	tags := strings.Split(s, ",")
	if again, err := FormatTags(tags); err != nil {
		return nil, err
	} else if again != s {
		return nil, fmt.Errorf("tags %q are not sorted, each once", s)
	}
	return tags, nil
}

// FormatSequence returns the value of [AnnotationSequence].
func FormatSequence(n int64) (string, error) {
	if n < 0 {
		return "", fmt.Errorf("sequence %d is negative", n)
	}
	return strconv.FormatInt(n, 10), nil
}

// ParseSequence is the inverse of [FormatSequence]: no sign, no leading zero.
func ParseSequence(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != s {
		return 0, fmt.Errorf("sequence %q is not a decimal of 63 bits", s)
	}
	return n, nil
}
