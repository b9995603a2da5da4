package verify

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/davit-oci/davit/internal/bundle"
	"github.com/davit-oci/davit/internal/strictjson"
	intoto "github.com/in-toto/attestation/go/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	sgbundle "github.com/sigstore/sigstore-go/pkg/bundle"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"
)

// errOtherKind says that a referrer is something else than a bundle.
var errOtherKind = errors.New("not a bundle")

// parseReferrer returns the descriptor of the bundle that the manifest in data attaches to subject. The caller has checked that
// data is what its digest says.
func parseReferrer(data []byte, subject ocispec.Descriptor) (ocispec.Descriptor, error) {
	var none ocispec.Descriptor
	if err := strictjson.CheckNames(data); err != nil {
		return none, refusef(Malformed, "its manifest: %.200v", err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return none, refusef(Malformed, "its manifest: %.200v", err)
	}
	// The image spec: without an artifactType, the config's media type is the type.
	kind := m.ArtifactType
	if kind == "" {
		kind = m.Config.MediaType
	}
	if kind != bundle.MediaType {
		return none, errOtherKind
	}
	switch {
	case m.SchemaVersion != 2, m.MediaType != ocispec.MediaTypeImageManifest:
		return none, refusef(Malformed, "its manifest is not an OCI image manifest")
	case m.Subject == nil:
		return none, refusef(OtherSubject, "its manifest has no subject")
	case m.Subject.Digest != subject.Digest:
		return none, refusef(OtherSubject, "its manifest is attached to %.100q", m.Subject.Digest)
	case len(m.Layers) != 1:
		return none, refusef(Malformed, "its manifest has %d layers instead of the bundle alone", len(m.Layers))
	case m.Layers[0].MediaType != bundle.MediaType:
		return none, refusef(Malformed, "its layer is a %.100q, not a bundle", m.Layers[0].MediaType)
	}
	return plain(m.Layers[0]), nil
}

// readBundle reads the bundle in data and fills in what it says. Nothing of that is believed yet; but what is malformed, or says itself
// that it is about something else, is refused without a look at its signature.
func readBundle(s *Signature, data []byte, subject ocispec.Descriptor) (*signedBundle, error) {
	b, err := parseBundle(data)
	if err != nil {
		return nil, err
	}
	s.Kind, s.KeyHint = "key", b.hint

	c, err := b.claims()
	if err != nil {
		return nil, err
	}
	s.Name, s.Tags, s.Sequence, s.Time = c.name, c.tags, c.sequence, c.time()
	if c.predicateType != bundle.PredicateType {
		return nil, refusef(NotASignature, "it is an attestation of type %.200q, not a signature", c.predicateType)
	}
	if c.algorithm != subject.Digest.Algorithm().String() || c.digest != subject.Digest.Encoded() {
		return nil, refusef(OtherSubject, "it signs %.150q", c.algorithm+":"+c.digest)
	}
	return b, nil
}

// check decides whether p counts the signature, which one of keys must have made.
func (b *signedBundle) check(s *Signature, keys []*Key, p Policy) error {
	key, err := b.signer(keys)
	if err != nil {
		return err
	}
	s.KeyHint = key.hint
	return p.binds(s)
}

// A signedBundle is a bundle whose form is right. Nothing in it is believed yet.
type signedBundle struct {
	hint     string
	envelope *sgbundle.Envelope
	material sgverify.VerificationContent
}

// parseBundle reads a bundle. sigstore-go refuses unknown fields and versions, as cosign does; what it is lenient about, and what
// it would verify without a trusted key, is refused here.
func parseBundle(data []byte) (*signedBundle, error) {
	if err := strictjson.Check(data); err != nil {
		return nil, refusef(Malformed, "the bundle: %.200v", err)
	}
	var b sgbundle.Bundle
	if err := b.UnmarshalJSON(data); err != nil {
		return nil, refusef(Malformed, "the bundle: %.200v", err)
	}
	if b.MediaType != bundle.MediaType {
		return nil, refusef(Unsupported, "it is a bundle of type %.200q, not %s", b.MediaType, bundle.MediaType)
	}
	material, err := b.VerificationContent()
	if err != nil {
		return nil, refusef(Malformed, "the bundle: %.200v", err)
	}
	// A certificate in a bundle brings its own key: verifying with that one proves nothing as long as nobody asks who issued it.
	if material.PublicKey() == nil {
		return nil, refusef(Unsupported, "it is signed with a certificate, not with a key")
	}
	if b.GetDsseEnvelope() == nil {
		return nil, refusef(Unsupported, "it is a signature without a statement, which does not say what it signs")
	}
	envelope, err := b.Envelope()
	if err != nil {
		return nil, refusef(Malformed, "the bundle: %.200v", err)
	}
	if n := len(envelope.Signatures); n != 1 {
		return nil, refusef(Malformed, "the envelope has %d signatures instead of one", n)
	}
	return &signedBundle{hint: shown(material.PublicKey().Hint()), envelope: envelope, material: material}, nil
}

// hinted are the keys that the hint names. Anybody can write one: it says which to try first, and no more.
func (b *signedBundle) hinted(keys []*Key) []*Key {
	return slices.DeleteFunc(slices.Clone(keys), func(k *Key) bool { return k.hint != b.hint })
}

// signer returns the key that the envelope is signed with.
func (b *signedBundle) signer(keys []*Key) (*Key, error) {
	for _, key := range keys {
		for _, tm := range key.material {
			if err := sgverify.VerifySignature(b.envelope, b.material, tm); err == nil {
				return key, nil
			}
		}
	}
	why := "no key of the policy made this signature"
	for _, key := range keys {
		if key.hint == b.hint {
			why = "it names a key of the policy, which did not sign this content: it was changed after signing"
		}
	}
	return nil, refusef(UntrustedKey, "%s", why)
}

// claims are what a statement says: true for whoever trusts its signer.
type claims struct {
	predicateType     string
	algorithm, digest string
	name              string
	tags              []string
	sequence          int64
}

// time is when the signer says it signed.
func (c *claims) time() time.Time {
	const year9999 = 253402300799 // the last second that RFC 3339 can write
	if c.sequence == 0 || c.sequence > year9999 {
		return time.Time{}
	}
	return time.Unix(c.sequence, 0).UTC()
}

// claims reads the payload. Of an attestation it reads the type only. A signature must have the one form that cosign and davit
// write: a field that we do not know could limit what the signer meant.
func (b *signedBundle) claims() (*claims, error) {
	if b.envelope.PayloadType != bundle.PayloadType {
		return nil, refusef(Unsupported, "its payload is a %.100q, not a statement", b.envelope.PayloadType)
	}
	payload, err := b.envelope.DecodeB64Payload()
	if err != nil {
		return nil, refusef(Malformed, "the payload: %.200v", err)
	}
	if err := strictjson.Check(payload); err != nil {
		return nil, refusef(Malformed, "the statement: %.200v", err)
	}
	// Not Envelope.Statement: it does the same, but does not say what is wrong.
	var st intoto.Statement
	if err := protojson.Unmarshal(payload, &st); err != nil {
		return nil, refusef(Malformed, "the statement: %.200v", err)
	}
	c := &claims{predicateType: st.GetPredicateType()}
	if c.predicateType != bundle.PredicateType {
		return c, nil
	}

	switch {
	case st.GetType() != bundle.StatementType:
		return nil, refusef(Unsupported, "its statement is a %.100q, not %s", st.GetType(), bundle.StatementType)
	case len(st.GetPredicate().GetFields()) != 0:
		return nil, refusef(Unsupported, "its statement has a predicate, where a signature has none")
	case len(st.GetSubject()) != 1:
		return nil, refusef(Malformed, "its statement has %d subjects instead of one", len(st.GetSubject()))
	}
	subject := st.GetSubject()[0]
	switch {
	case len(subject.GetDigest()) != 1:
		return nil, refusef(Malformed, "its subject has %d digests instead of one", len(subject.GetDigest()))
	case subject.GetUri() != "", subject.GetMediaType() != "", subject.GetDownloadLocation() != "", len(subject.GetContent()) != 0:
		return nil, refusef(Unsupported, "its subject has more than a name, a digest and annotations")
	}
	if err := bundle.CheckName(subject.GetName()); err != nil {
		return nil, refusef(Malformed, "its subject: %v", err)
	}
	c.name = subject.GetName()
	for c.algorithm, c.digest = range subject.GetDigest() {
	}

	annotations := subject.GetAnnotations().AsMap()
	if c.tags, err = annotated(annotations, bundle.AnnotationTags, bundle.ParseTags); err != nil {
		return nil, err
	}
	if c.sequence, err = annotated(annotations, bundle.AnnotationSequence, bundle.ParseSequence); err != nil {
		return nil, err
	}
	return c, nil
}

// annotated returns the value of an annotation, or the zero value when there is none.
func annotated[T any](annotations map[string]any, name string, parse func(string) (T, error)) (value T, err error) {
	v, ok := annotations[name]
	if !ok {
		return value, nil
	}
	text, ok := v.(string)
	if !ok {
		return value, refusef(Malformed, "its annotation %s is not a text", name)
	}
	if value, err = parse(text); err != nil {
		return value, refusef(Malformed, "its annotation %s: %.200v", name, err)
	}
	return value, nil
}

// shown returns s if it can stand in a terminal or a log without harm, else "": a hint comes from strangers.
func shown(s string) string {
	if bundle.CheckName(s) != nil {
		return ""
	}
	return s
}
