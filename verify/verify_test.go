package verify_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/davit-oci/davit/sign"
	"github.com/davit-oci/davit/verify"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	bundleType    = "application/vnd.dev.sigstore.bundle.v0.3+json"
	signPredicate = "https://sigstore.dev/cosign/sign/v1"
)

// A store is a registry in a map: it hands out what it holds, right or wrong.
type store struct {
	blobs     map[digest.Digest][]byte
	referrers []ocispec.Descriptor
	fail      map[digest.Digest]error // what Fetch returns
	listFail  error                   // what Referrers returns
	partly    bool                    // beside its list
	onFetch   func(ocispec.Descriptor)
}

func (s *store) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if s.onFetch != nil {
		s.onFetch(d)
	}
	if err := s.fail[d.Digest]; err != nil {
		return nil, err
	}
	data, ok := s.blobs[d.Digest]
	if !ok {
		return nil, fmt.Errorf("store: %w", fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (s *store) Referrers(context.Context, ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if s.listFail != nil && !s.partly {
		return nil, s.listFail
	}
	return s.referrers, s.listFail
}

func (s *store) put(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	s.blobs[d.Digest] = data
	return d
}

// artifact is the manifest that the tests sign.
var artifact = []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`)

func newStore() (*store, ocispec.Descriptor) {
	s := &store{blobs: make(map[digest.Digest][]byte), fail: make(map[digest.Digest]error)}
	return s, s.put(ocispec.MediaTypeImageManifest, artifact)
}

// attach pushes a bundle as cosign does; each edit changes the manifest first.
func (s *store) attach(subject ocispec.Descriptor, bundle []byte, edits ...func(*ocispec.Manifest)) ocispec.Descriptor {
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: bundleType,
		Config:       s.put(ocispec.MediaTypeEmptyJSON, []byte("{}")),
		Layers:       []ocispec.Descriptor{s.put(bundleType, bundle)},
		Subject:      &subject,
	}
	for _, edit := range edits {
		edit(&m)
	}
	data, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return s.attachManifest(data)
}

func (s *store) attachManifest(data []byte) ocispec.Descriptor {
	d := s.put(ocispec.MediaTypeImageManifest, data)
	d.ArtifactType = bundleType
	s.referrers = append(s.referrers, d)
	return d
}

// A keyPair signs by itself, not by package sign: so that it can sign what sign would not.
type keyPair struct {
	private *ecdsa.PrivateKey
	public  *verify.Key
	hint    string
}

func newKeyPair() keyPair {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		panic(err)
	}
	public, err := verify.LoadPublicKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	if err != nil {
		panic(err)
	}
	hint := sha256.Sum256(der)
	return keyPair{private, public, base64.StdEncoding.EncodeToString(hint[:])}
}

var alice, bob, mallory = newKeyPair(), newKeyPair(), newKeyPair()

// statement is what a signature of subject says, with each old text replaced by the new one that follows it.
func statement(subject ocispec.Descriptor, replace ...string) string {
	s := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"example.com/vm","digest":{"sha256":"` +
		subject.Digest.Encoded() + `"},"annotations":{"vnd.davit.sequence":"1800000000","vnd.davit.tags":"latest,v1"}}],` +
		`"predicateType":"` + signPredicate + `","predicate":{}}`
	return edited(s, replace...)
}

func edited(s string, replace ...string) string {
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(s, replace[i]) {
			panic("nothing to replace: " + replace[i])
		}
		s = strings.Replace(s, replace[i], replace[i+1], 1)
	}
	return s
}

const intoto = "application/vnd.in-toto+json"

// envelope is a bundle around a payload, signed with k as DSSE says.
func (k keyPair) envelope(payloadType, payload string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload))
	sig, err := ecdsa.SignASN1(rand.Reader, k.private, sum[:])
	if err != nil {
		panic(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	return `{"mediaType":"` + bundleType + `","verificationMaterial":{"publicKey":{"hint":"` + k.hint + `"}},` +
		`"dsseEnvelope":{"payload":"` + b64([]byte(payload)) + `","payloadType":"` + payloadType + `",` +
		`"signatures":[{"sig":"` + b64(sig) + `"}]}}`
}

func (k keyPair) bundle(payload string) []byte { return []byte(k.envelope(intoto, payload)) }

func trust(keys ...keyPair) verify.Policy {
	var p verify.Policy
	for _, k := range keys {
		p.Keys = append(p.Keys, k.public)
	}
	return p
}

func TestArtifactAccepts(t *testing.T) {
	s, subject := newStore()
	s.attach(subject, alice.bundle(statement(subject)))
	resolved := subject
	resolved.Annotations = map[string]string{"claimed": "by a registry"}
	resolved.URLs = []string{"https://elsewhere.example"}

	got, err := verify.Artifact(t.Context(), s, resolved, trust(alice))
	if err != nil {
		t.Fatal(err)
	}
	if d := got.Subject.Descriptor(); d.Digest != subject.Digest || d.Annotations != nil || d.URLs != nil {
		t.Errorf("subject is %v, want media type, digest and size alone", d)
	}
	if m := got.Subject.Manifest(); !bytes.Equal(m, artifact) {
		t.Errorf("manifest is %q", m)
	}
	if by := got.Subject.VouchedBy(); by != verify.ByKey {
		t.Errorf("vouched by %q", by)
	}
	if len(got.Signatures) != 1 || len(got.Warnings) != 0 {
		t.Fatalf("got %+v", got)
	}
	sig := got.Signatures[0]
	switch {
	case !sig.Counted, sig.Why != "", sig.Kind != "key", sig.KeyHint != alice.hint:
		t.Errorf("got %+v", sig)
	case sig.Name != "example.com/vm", !slices.Equal(sig.Tags, []string{"latest", "v1"}), sig.Sequence != 1800000000:
		t.Errorf("claims are not surfaced: %+v", sig)
	case !sig.Time.Equal(time.Unix(1800000000, 0)):
		t.Errorf("time is %v", sig.Time)
	}
	if len(got.Chain) != 2 || got.Chain[0].Link != "signature" || got.Chain[1].Link != "manifest" || !got.Chain[0].OK || !got.Chain[1].OK {
		t.Errorf("chain is %+v", got.Chain)
	}
}

// What else counts: each of these is a signature by alice that must be accepted.
func TestArtifactAcceptsToo(t *testing.T) {
	for _, tt := range []struct {
		name  string
		build func(s *store, subject ocispec.Descriptor)
	}{
		{"a statement as cosign writes it", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, alice.bundle(statement(subject, `"name":"example.com/vm",`, "",
				`"vnd.davit.sequence":"1800000000","vnd.davit.tags":"latest,v1"`, "")))
		}},
		{"no annotations at all", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, alice.bundle(statement(subject, `,"annotations":{"vnd.davit.sequence":"1800000000","vnd.davit.tags":"latest,v1"}`, "")))
		}},
		{"annotations of somebody else", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, alice.bundle(statement(subject, `"vnd.davit.tags":`, `"env":{"prod":true},"vnd.davit.tags":`)))
		}},
		{"a bad signature beside the good one", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, mallory.bundle(statement(subject)))
			s.attach(subject, alice.bundle(statement(subject)))
			s.attach(subject, []byte("{"))
		}},
		{"an attestation and an SBOM beside it", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, alice.bundle(statement(subject, signPredicate, "https://slsa.dev/provenance/v1")))
			s.attach(subject, []byte("sbom"), func(m *ocispec.Manifest) { m.ArtifactType = "application/spdx+json" })
			s.attach(subject, alice.bundle(statement(subject)))
		}},
		{"the type only in the config", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, alice.bundle(statement(subject)), func(m *ocispec.Manifest) {
				m.ArtifactType, m.Config.MediaType = "", bundleType
			})
		}},
		{"a list that says nothing about types", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, alice.bundle(statement(subject)))
			s.referrers[0].ArtifactType = ""
		}},
		{"a list that lies about types", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, alice.bundle(statement(subject)))
			s.referrers[0].ArtifactType = "application/spdx+json"
		}},
		{"the same referrer listed many times", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, alice.bundle(statement(subject)))
			s.referrers = slices.Repeat(s.referrers, 1000)
		}},
		{"listed with a wrong size as well", func(s *store, subject ocispec.Descriptor) {
			d := s.attach(subject, alice.bundle(statement(subject)))
			d.Size++
			s.referrers = slices.Insert(s.referrers, 0, d)
		}},
		{"a heap of other referrers in front", func(s *store, subject ocispec.Descriptor) {
			for i := range 1000 {
				s.attach(subject, fmt.Append(nil, i), func(m *ocispec.Manifest) { m.ArtifactType = "application/spdx+json" })
				s.referrers[i].ArtifactType = "application/spdx+json"
			}
			s.attach(subject, alice.bundle(statement(subject)))
		}},
		{"a broken network for another one", func(s *store, subject ocispec.Descriptor) {
			d := s.attach(subject, bob.bundle(statement(subject)))
			s.fail[d.Digest] = errors.New("connection reset")
			s.attach(subject, alice.bundle(statement(subject)))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, subject := newStore()
			tt.build(s, subject)
			got, err := verify.Artifact(t.Context(), s, subject, trust(alice))
			if err != nil {
				t.Fatal(err)
			}
			if n := counted(got.Signatures); n != 1 {
				t.Errorf("%d signatures counted in %+v", n, got.Signatures)
			}
		})
	}
}

func counted(signatures []verify.Signature) (n int) {
	for _, s := range signatures {
		if s.Counted {
			n++
		}
	}
	return n
}

// Every refusal: the manifest must not be used, and the reason says why.
func TestArtifactRefuses(t *testing.T) {
	with := func(bundle func(subject ocispec.Descriptor) []byte, edits ...func(*ocispec.Manifest)) func(*store, ocispec.Descriptor) {
		return func(s *store, subject ocispec.Descriptor) { s.attach(subject, bundle(subject), edits...) }
	}
	good := func(subject ocispec.Descriptor) []byte { return alice.bundle(statement(subject)) }
	says := func(replace ...string) func(*store, ocispec.Descriptor) {
		return with(func(subject ocispec.Descriptor) []byte { return alice.bundle(statement(subject, replace...)) })
	}
	form := func(replace ...string) func(*store, ocispec.Descriptor) {
		return with(func(subject ocispec.Descriptor) []byte {
			return []byte(edited(alice.envelope(intoto, statement(subject)), replace...))
		})
	}
	manifest := func(replace ...string) func(*store, ocispec.Descriptor) {
		return func(s *store, subject ocispec.Descriptor) {
			d := s.attach(subject, good(subject))
			s.referrers = nil
			s.attachManifest([]byte(edited(string(s.blobs[d.Digest]), replace...)))
		}
	}
	other := digest.FromString("another manifest")

	for _, tt := range []struct {
		name  string
		build func(s *store, subject ocispec.Descriptor)
		code  verify.Code
		why   string // a part of the reason
	}{
		{"no signature", func(*store, ocispec.Descriptor) {}, verify.NoSignature, "no signature"},
		{"an SBOM is no signature", with(good, func(m *ocispec.Manifest) { m.ArtifactType = "application/spdx+json" }),
			verify.NoSignature, "no signature"},
		{"listed as an index", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, good(subject))
			s.referrers[0].MediaType = ocispec.MediaTypeImageIndex
		}, verify.Malformed, "not as an image manifest"},
		{"another index", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, good(subject))
			s.referrers[0].MediaType, s.referrers[0].ArtifactType = ocispec.MediaTypeImageIndex, "application/spdx+json"
		}, verify.NoSignature, "no signature"},

		// The key.
		{"wrong key", with(func(subject ocispec.Descriptor) []byte { return mallory.bundle(statement(subject)) }),
			verify.UntrustedKey, "no key of the policy"},
		{"wrong key with the right hint", with(func(subject ocispec.Descriptor) []byte {
			return []byte(edited(string(mallory.bundle(statement(subject))), mallory.hint, alice.hint))
		}), verify.UntrustedKey, "changed after signing"},
		{"payload of another signature", with(func(subject ocispec.Descriptor) []byte {
			b64 := base64.StdEncoding.EncodeToString
			return []byte(edited(alice.envelope(intoto, statement(subject)),
				b64([]byte(statement(subject))), b64([]byte(statement(subject, "latest,v1", "latest,v2")))))
		}), verify.UntrustedKey, "changed after signing"},
		{"signature of another payload", with(func(subject ocispec.Descriptor) []byte {
			a, b := alice.envelope(intoto, statement(subject)), alice.envelope(intoto, statement(subject, "v1", "v2"))
			_, sigA, _ := strings.Cut(a, `"signatures"`)
			_, sigB, _ := strings.Cut(b, `"signatures"`)
			return []byte(edited(a, sigA, sigB))
		}), verify.UntrustedKey, "changed after signing"},
		{"signature that is not DER", form(`"sig":"M`, `"sig":"A`), verify.UntrustedKey, "changed after signing"},
		{"empty signature", with(func(subject ocispec.Descriptor) []byte {
			a := alice.envelope(intoto, statement(subject))
			before, _, _ := strings.Cut(a, `"sig":"`)
			return []byte(before + `"sig":""}]}}`)
		}), verify.UntrustedKey, "changed after signing"},
		{"payload type is signed", form(intoto, "application/vnd.in-toto.x+json"), verify.Unsupported, "not a statement"},
		{"certificate instead of a key", with(func(subject ocispec.Descriptor) []byte {
			return []byte(edited(alice.envelope(intoto, statement(subject)),
				`"publicKey":{"hint":"`+alice.hint+`"}`, `"certificate":{"rawBytes":"`+selfSigned(alice)+`"}`))
		}), verify.Unsupported, "certificate"},
		{"certificate that is none", form(`"publicKey":{"hint":"`+alice.hint+`"}`, `"certificate":{"rawBytes":"AAAA"}`), verify.Malformed, "the bundle"},
		{"certificate chain", with(func(subject ocispec.Descriptor) []byte {
			return []byte(edited(alice.envelope(intoto, statement(subject)),
				`"publicKey":{"hint":"`+alice.hint+`"}`, `"x509CertificateChain":{"certificates":[{"rawBytes":"`+selfSigned(alice)+`"}]}`))
		}), verify.Malformed, "chain"},
		{"no verification material", form(`"publicKey":{"hint":"`+alice.hint+`"}`, ""), verify.Malformed, "verification material"},

		// The statement.
		{"attestation only", says(signPredicate, "https://slsa.dev/provenance/v1"), verify.NotASignature, "attestation"},
		{"no predicate type", says(signPredicate, ""), verify.NotASignature, "attestation"},
		{"predicate type with more at its end", says(signPredicate, signPredicate+"/"), verify.NotASignature, "attestation"},
		{"old statement type", says("Statement/v1", "Statement/v0.1"), verify.Unsupported, "Statement/v0.1"},
		{"predicate with content", says(`"predicate":{}`, `"predicate":{"only":"for staging"}`), verify.Unsupported, "predicate"},
		{"other subject digest", with(func(subject ocispec.Descriptor) []byte {
			return alice.bundle(statement(subject, subject.Digest.Encoded(), other.Encoded()))
		}), verify.OtherSubject, other.Encoded()},
		{"other digest algorithm", says(`"sha256":`, `"sha512":`), verify.OtherSubject, "sha512"},
		{"two digests", says(`"digest":{`, `"digest":{"sha512":"00",`), verify.Malformed, "2 digests"},
		{"no digest", with(func(subject ocispec.Descriptor) []byte {
			return alice.bundle(statement(subject, `"sha256":"`+subject.Digest.Encoded()+`"`, ""))
		}), verify.Malformed, "0 digests"},
		{"no subject", with(func(subject ocispec.Descriptor) []byte {
			s := statement(subject)
			return alice.bundle(s[:strings.Index(s, "[")+1] + s[strings.Index(s, "]"):]) //nolint:gocritic // it has both
		}), verify.Malformed, "0 subjects"},
		{"two subjects", says(`"subject":[`, `"subject":[{"digest":{"sha256":"`+other.Encoded()+`"}},`), verify.Malformed, "2 subjects"},
		{"subject with a media type", says(`"name":`, `"mediaType":"text/plain","name":`), verify.Unsupported, "more than a name"},
		{"subject with content", says(`"name":`, `"content":"AAAA","name":`), verify.Unsupported, "more than a name"},
		{"subject with a URI", says(`"name":`, `"uri":"x:y","name":`), verify.Unsupported, "more than a name"},
		{"subject with a place", says(`"name":`, `"downloadLocation":"x:y","name":`), verify.Unsupported, "more than a name"},
		{"name that draws on the terminal", says("example.com/vm", `example.com/\u001b[2Jvm`), verify.Malformed, "no name has"},
		{"name without end", says("example.com/vm", strings.Repeat("x", 512)), verify.Malformed, "512 bytes"},
		{"unknown field in the statement", says(`"predicate":{}`, `"predicate":{},"expires":"today"`), verify.Malformed, "expires"},
		{"unknown field in the subject", says(`"name":`, `"expires":"today","name":`), verify.Malformed, "expires"},
		{"field in another case", says(`"predicateType"`, `"PredicateType"`), verify.Malformed, "PredicateType"},
		{"duplicate key in the statement", says(`"predicate":{}`, `"predicate":{},"predicateType":"x"`), verify.Malformed, "twice"},
		{"duplicate key in the annotations", says(`"vnd.davit.tags":`, `"vnd.davit.tags":"v1","vnd.davit.tags":`), verify.Malformed, "twice"},
		{"duplicate digest", says(`"sha256":`, `"sha256":"`+other.Encoded()+`","sha256":`), verify.Malformed, "twice"},
		{"statement and more", says(`"predicate":{}}`, `"predicate":{}} {}`), verify.Malformed, "more than one"},
		{"statement that is not UTF-8", says("latest", "l\xfftest"), verify.Malformed, "UTF-8"},
		{"tags out of order", says("latest,v1", "v1,latest"), verify.Malformed, "sorted"},
		{"tags twice", says("latest,v1", "v1,v1"), verify.Malformed, "sorted"},
		{"tag that is none", says("latest,v1", "latest,/v1"), verify.Malformed, "not a tag"},
		{"tags that are no text", says(`"latest,v1"`, `["latest"]`), verify.Malformed, "not a text"},
		{"empty tags", says(`"latest,v1"`, `""`), verify.Malformed, "tag"},
		{"empty sequence", says(`"1800000000"`, `""`), verify.Malformed, "sequence"},
		{"sequence with a sign", says("1800000000", "+1800000000"), verify.Malformed, "sequence"},
		{"sequence with a leading zero", says("1800000000", "01800000000"), verify.Malformed, "sequence"},
		{"negative sequence", says("1800000000", "-1"), verify.Malformed, "sequence"},
		{"sequence beyond 63 bits", says("1800000000", "9223372036854775808"), verify.Malformed, "sequence"},
		{"sequence that is a number", says(`"1800000000"`, `1800000000`), verify.Malformed, "not a text"},

		// The bundle.
		{"not JSON", with(func(ocispec.Descriptor) []byte { return []byte("hello") }), verify.Malformed, "JSON"},
		{"empty bundle", with(func(ocispec.Descriptor) []byte { return nil }), verify.Malformed, "JSON"},
		{"JSON null", with(func(ocispec.Descriptor) []byte { return []byte("null") }), verify.Malformed, "bundle"},
		{"nested too deep", with(func(ocispec.Descriptor) []byte {
			return []byte(strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000))
		}), verify.Malformed, "deep"},
		{"unknown field in the bundle", form(`"mediaType"`, `"x":1,"mediaType"`), verify.Malformed, `"x"`},
		{"unknown field in the envelope", form(`"payload"`, `"x":1,"payload"`), verify.Malformed, `"x"`},
		{"duplicate key in the bundle", form(`"mediaType"`, `"mediaType":"`+bundleType+`","mediaType"`), verify.Malformed, "twice"},
		{"duplicate payload", form(`"payload"`, `"payload":"e30=","payload"`), verify.Malformed, "twice"},
		{"two contents", form(`"dsseEnvelope"`, `"messageSignature":{"signature":"AAAA"},"dsseEnvelope"`), verify.Malformed, "bundle"},
		{"bundle 0.2", form(bundleType, "application/vnd.dev.sigstore.bundle+json;version=0.2"), verify.Unsupported, "0.2"},
		{"bundle 0.4", form(bundleType, "application/vnd.dev.sigstore.bundle.v0.4+json"), verify.Malformed, "v0.4"},
		{"no bundle type", form(`"mediaType":"`+bundleType+`",`, ""), verify.Malformed, "media type"},
		{"two signatures", form(`"signatures":[`, `"signatures":[{"sig":"AAAA"},`), verify.Malformed, "2 signatures"},
		{"no signatures", with(func(subject ocispec.Descriptor) []byte {
			before, _, _ := strings.Cut(alice.envelope(intoto, statement(subject)), `"signatures"`)
			return []byte(before + `"signatures":[]}}`)
		}), verify.Malformed, "0 signatures"},
		{"no payload", form(`"payload":"`, `"payloadType":"`, `"payloadType":"application/vnd.in-toto+json",`, ""), verify.Malformed, "envelope"},
		{"no payload type", form(`"payloadType":"application/vnd.in-toto+json",`, ""), verify.Unsupported, "payload"},
		{"signature without a statement", with(func(ocispec.Descriptor) []byte {
			sum := sha256.Sum256(artifact)
			sig, err := ecdsa.SignASN1(rand.Reader, alice.private, sum[:])
			if err != nil {
				panic(err)
			}
			b64 := base64.StdEncoding.EncodeToString
			return []byte(`{"mediaType":"` + bundleType + `","verificationMaterial":{"publicKey":{"hint":"` + alice.hint + `"}},` +
				`"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"` + b64(sum[:]) + `"},"signature":"` + b64(sig) + `"}}`)
		}), verify.Unsupported, "without a statement"},
		{"oversized bundle", with(func(subject ocispec.Descriptor) []byte {
			return append(good(subject), bytes.Repeat([]byte(" "), 1<<20)...)
		}), verify.TooLarge, "limit"},
		{"bundle not there", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, good(subject))
			delete(s.blobs, bundleOf(s))
		}, verify.Missing, "not there"},
		{"bundle changed in storage", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, good(subject))
			s.blobs[bundleOf(s)] = alice.bundle(statement(subject))
		}, verify.DigestMismatch, "has"},
		{"bundle longer than its descriptor", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, good(subject))
			s.blobs[bundleOf(s)] = append(good(subject), ' ')
		}, verify.DigestMismatch, "bytes"},

		// The manifest that attaches it.
		{"referrer of another subject", with(good, func(m *ocispec.Manifest) { m.Subject.Digest = other }), verify.OtherSubject, other.String()},
		{"referrer without a subject", with(good, func(m *ocispec.Manifest) { m.Subject = nil }), verify.OtherSubject, "no subject"},
		{"no layer", with(good, func(m *ocispec.Manifest) { m.Layers = nil }), verify.Malformed, "0 layers"},
		{"two layers", with(good, func(m *ocispec.Manifest) { m.Layers = append(m.Layers, m.Layers[0]) }), verify.Malformed, "2 layers"},
		{"layer of another type", with(good, func(m *ocispec.Manifest) { m.Layers[0].MediaType = "text/plain" }), verify.Malformed, "text/plain"},
		{"bundle digest of a weak kind", with(good, func(m *ocispec.Manifest) {
			m.Layers[0].Digest = "md5:d41d8cd98f00b204e9800998ecf8427e"
		}), verify.Malformed, "not a digest"},
		{"bundle of negative size", with(good, func(m *ocispec.Manifest) { m.Layers[0].Size = -1 }), verify.TooLarge, "limit"},
		{"referrer of another schema", with(good, func(m *ocispec.Manifest) { m.SchemaVersion = 1 }), verify.Malformed, "image manifest"},
		{"referrer that says it is an index", with(good, func(m *ocispec.Manifest) { m.MediaType = ocispec.MediaTypeImageIndex }),
			verify.Malformed, "image manifest"},
		{"duplicate key in the referrer", manifest(`"artifactType"`, `"artifactType":"x","artifactType"`), verify.Malformed, "twice"},
		{"case variant in the referrer", manifest(`"artifactType"`, `"ArtifactType":"x","artifactType"`), verify.Malformed, "another case"},
		{"case variant inside the subject", manifest(`"subject":{`, `"subject":{"Digest":"x",`), verify.Malformed, "another case"},
		{"referrer that is not JSON", func(s *store, subject ocispec.Descriptor) { s.attachManifest([]byte("{")) }, verify.Malformed, "JSON"},
		{"referrer with a list as subject", manifest(`"subject":{`, `"subject":[],"x":{`), verify.Malformed, "manifest"},
		{"oversized referrer", func(s *store, subject ocispec.Descriptor) {
			d := s.attach(subject, good(subject))
			s.referrers = nil
			s.attachManifest(append(s.blobs[d.Digest], bytes.Repeat([]byte(" "), 256<<10)...))
		}, verify.TooLarge, "limit"},
		{"referrer changed in storage", func(s *store, subject ocispec.Descriptor) {
			d := s.attach(subject, good(subject))
			s.blobs[d.Digest] = bytes.Replace(s.blobs[d.Digest], []byte("e"), []byte("a"), 1)
		}, verify.DigestMismatch, "digest"},
		{"referrer shorter than listed", func(s *store, subject ocispec.Descriptor) {
			d := s.attach(subject, good(subject))
			s.blobs[d.Digest] = s.blobs[d.Digest][1:]
		}, verify.DigestMismatch, "bytes"},
		{"referrer not there", func(s *store, subject ocispec.Descriptor) {
			d := s.attach(subject, good(subject))
			delete(s.blobs, d.Digest)
		}, verify.Missing, "not there"},
		{"referrer with a digest that is none", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, good(subject))
			s.referrers[0].Digest = "sha256:../../etc"
		}, verify.Malformed, "not a digest"},
		// The manifest itself.
		{"manifest changed", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, good(subject))
			s.blobs[subject.Digest] = bytes.Replace(artifact, []byte("[]"), []byte("{}"), 1)
		}, verify.DigestMismatch, "manifest: "},
		{"manifest longer than resolved", func(s *store, subject ocispec.Descriptor) {
			s.attach(subject, good(subject))
			s.blobs[subject.Digest] = append(bytes.Clone(artifact), '\n')
		}, verify.DigestMismatch, "manifest: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, subject := newStore()
			tt.build(s, subject)
			e := mustRefuse(t, s, subject, trust(alice, bob))
			if !slices.ContainsFunc(e.Reasons, func(r verify.Reason) bool { return r.Code == tt.code && strings.Contains(r.Why, tt.why) }) {
				t.Errorf("got %+v, want %s: … %s …", e.Reasons, tt.code, tt.why)
			}
			if got, want := errors.Is(e, verify.ErrDigestMismatch), tt.code == verify.DigestMismatch; got != want {
				t.Errorf("is ErrDigestMismatch: %t, want %t", got, want)
			}
		})
	}
}

// mustRefuse calls Artifact and checks what every refusal has in common.
func mustRefuse(t *testing.T, s verify.Source, subject ocispec.Descriptor, p verify.Policy) *verify.UntrustedError {
	t.Helper()
	got, err := verify.Artifact(t.Context(), s, subject, p)
	if got != nil {
		t.Errorf("accepted: %+v", got)
	}
	e, ok := errors.AsType[*verify.UntrustedError](err)
	if !ok {
		t.Fatalf("got %v, want an UntrustedError", err)
	}
	if e.Subject.Digest != subject.Digest || len(e.Reasons) == 0 || counted(e.Signatures) != 0 {
		t.Errorf("got %+v", e)
	}
	for _, sig := range e.Signatures {
		if sig.Why == "" || sig.Code == "" {
			t.Errorf("no reason in %+v", sig)
		}
	}
	for i, r := range e.Reasons {
		if r.Code == "" || r.Why == "" || i < 5 && !strings.Contains(e.Error(), r.Why) {
			t.Errorf("%+v is not in %q", r, e)
		}
	}
	if n := len(e.Error()); n > 4000 {
		t.Errorf("an error of %d bytes", n)
	}
	if n := len(e.Chain); n == 0 || slices.ContainsFunc(e.Chain, func(l verify.Link) bool { return l.OK || l.Why == "" }) {
		t.Errorf("chain is %+v", e.Chain)
	}
	if _, err := json.Marshal(e.Signatures); err != nil {
		t.Error(err)
	}
	return e
}

// bundleOf is the digest of the bundle that the only referrer attaches.
func bundleOf(s *store) digest.Digest {
	var m ocispec.Manifest
	if err := json.Unmarshal(s.blobs[s.referrers[0].Digest], &m); err != nil {
		panic(err)
	}
	return m.Layers[0].Digest
}

func selfSigned(k keyPair) string {
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.private.Public(), k.private)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

func TestZeroPolicyTrustsNothing(t *testing.T) {
	s, subject := newStore()
	s.attach(subject, alice.bundle(statement(subject)))
	for name, p := range map[string]verify.Policy{
		"zero":       {},
		"names only": {Bind: verify.BindAny, Name: "example.com/vm"},
		"a nil key":  {Keys: []*verify.Key{nil}},
		"a zero key": {Keys: []*verify.Key{new(verify.Key)}},
	} {
		t.Run(name, func(t *testing.T) {
			e := mustRefuse(t, s, subject, p)
			if !errors.Is(e, verify.ErrNoTrustSource) || e.Reasons[0].Code != verify.NoTrustSource {
				t.Errorf("got %v", e)
			}
		})
	}
	if e := mustRefuse(t, s, subject, trust(mallory)); errors.Is(e, verify.ErrNoTrustSource) {
		t.Errorf("a policy with a key is no trust source: %v", e)
	}
}

func TestAnyKeyOfThePolicyCounts(t *testing.T) {
	s, subject := newStore()
	s.attach(subject, bob.bundle(statement(subject)))
	got, err := verify.Artifact(t.Context(), s, subject, trust(alice, mallory, bob))
	if err != nil {
		t.Fatal(err)
	}
	if got.Signatures[0].KeyHint != bob.hint {
		t.Errorf("counted for %s, want bob's key", got.Signatures[0].KeyHint)
	}
	mustRefuse(t, s, subject, trust(alice, mallory))

	s.attach(subject, alice.bundle(statement(subject)))
	got, err = verify.Artifact(t.Context(), s, subject, trust(alice, bob))
	if err != nil {
		t.Fatal(err)
	}
	if n := counted(got.Signatures); n != 2 {
		t.Errorf("%d of two signatures counted", n)
	}
}

// A hint is no proof, and finds no key by itself: a signature counts whatever its hint says.
func TestHintIsNotBelieved(t *testing.T) {
	s, subject := newStore()
	s.attach(subject, []byte(edited(string(alice.bundle(statement(subject))), alice.hint, mallory.hint)))
	got, err := verify.Artifact(t.Context(), s, subject, trust(alice))
	if err != nil {
		t.Fatal(err)
	}
	if got.Signatures[0].KeyHint != alice.hint {
		t.Errorf("hint is %s, want that of the key that verified it", got.Signatures[0].KeyHint)
	}
}

func TestBinding(t *testing.T) {
	const (
		refused = "refused"
		silent  = "counts"
		warned  = "counts, with a warning"
	)
	for _, tt := range []struct {
		name             string
		signed           string
		bind, accessedBy string
		want             string
	}{
		{"bound to the name", "example.com/vm", "example.com/vm", "example.com/vm", silent},
		{"bound, and fetched from a mirror", "example.com/vm", "example.com/vm", "mirror.example/vm", silent},
		{"bound to another", "example.com/vm", "example.com/other", "example.com/vm", refused},
		{"bound to the beginning", "example.com/vm", "example.com", "example.com/vm", refused},
		{"bound, case differs", "example.com/VM", "example.com/vm", "example.com/vm", refused},
		{"bound, no name", "", "example.com/vm", "example.com/vm", refused},
		{"any, another name", "example.com/vm", verify.BindAny, "example.com/other", silent},
		{"any, no name", "", verify.BindAny, "example.com/vm", silent},
		{"unbound, same name", "example.com/vm", "", "example.com/vm", silent},
		{"unbound, another name", "example.com/vm", "", "example.com/other", warned},
		{"unbound, no name", "", "", "example.com/vm", silent},
		{"unbound, in a layout", "example.com/vm", "", "", silent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, subject := newStore()
			s.attach(subject, alice.bundle(statement(subject, "example.com/vm", tt.signed)))
			p := trust(alice)
			p.Bind, p.Name = tt.bind, tt.accessedBy
			if tt.want == refused {
				e := mustRefuse(t, s, subject, p)
				saw := cmp.Or(tt.signed, "names no repository")
				if r := e.Reasons[0]; r.Code != verify.OtherName || !strings.Contains(r.Why, tt.bind) || !strings.Contains(r.Why, saw) {
					t.Errorf("got %+v", r)
				}
				return
			}
			got, err := verify.Artifact(t.Context(), s, subject, p)
			if err != nil {
				t.Fatal(err)
			}
			if got.Signatures[0].Name != tt.signed {
				t.Errorf("name is %q, want %q", got.Signatures[0].Name, tt.signed)
			}
			if (len(got.Warnings) > 0) != (tt.want == warned) {
				t.Errorf("warnings are %q, want: %s", got.Warnings, tt.want)
			}
		})
	}
}

// A tag that was moved to what was signed for another one is told, and refused where the signature must bind.
func TestTagBinding(t *testing.T) {
	const signed = `"vnd.davit.tags":"latest,v1"`
	for _, tt := range []struct {
		name    string
		says    string // instead of signed
		tag     string
		bind    string
		warning string
		refusal string
	}{
		{name: "its tag", says: signed, tag: "v1"},
		{name: "its other tag", says: signed, tag: "latest"},
		{name: "by digest", says: signed},
		{name: "moved", says: signed, tag: "v2", warning: "was made for the tags latest, v1, not for v2"},
		{name: "moved, one tag", says: `"vnd.davit.tags":"v1"`, tag: "v10", warning: "was made for the tag v1, not for v10"},
		{name: "no tags, as cosign signs", says: `"who":"cosign"`, tag: "v2"},
		{name: "bound, its tag", says: signed, tag: "v1", bind: "example.com/vm"},
		{name: "bound, by digest", says: signed, bind: "example.com/vm"},
		{name: "bound, moved", says: signed, tag: "v2", bind: "example.com/vm", refusal: "it was made for the tags latest, v1; v2 is asked for"},
		{name: "bound, no tags", says: `"who":"cosign"`, tag: "v2", bind: "example.com/vm", refusal: "it names no tag; v2 is asked for"},
		{name: "any, moved", says: signed, tag: "v2", bind: verify.BindAny},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, subject := newStore()
			s.attach(subject, alice.bundle(statement(subject, signed, tt.says)))
			p := trust(alice)
			p.Name, p.Tag, p.Bind = "example.com/vm", tt.tag, tt.bind
			if tt.refusal != "" {
				if r := mustRefuse(t, s, subject, p).Reasons[0]; r.Code != verify.OtherTag || r.Why != tt.refusal {
					t.Errorf("got %+v", r)
				}
				return
			}
			got, err := verify.Artifact(t.Context(), s, subject, p)
			if err != nil {
				t.Fatal(err)
			}
			if all := strings.Join(got.Warnings, "\n"); (all == "") != (tt.warning == "") || !strings.Contains(all, tt.warning) {
				t.Errorf("warnings are %q, want %q", all, tt.warning)
			}
			// A second signature, for this tag, ends the warning; one by somebody else does not.
			s.attach(subject, mallory.bundle(statement(subject, signed, `"vnd.davit.tags":"`+cmp.Or(tt.tag, "x")+`"`)))
			if again, err := verify.Artifact(t.Context(), s, subject, p); err != nil || !slices.Equal(again.Warnings, got.Warnings) {
				t.Errorf("with a signature of a stranger: %v, %v", again, err)
			}
			s.attach(subject, alice.bundle(statement(subject, signed, `"vnd.davit.tags":"`+cmp.Or(tt.tag, "x")+`"`)))
			if again, err := verify.Artifact(t.Context(), s, subject, p); err != nil || len(again.Warnings) != 0 {
				t.Errorf("signed for this tag as well: %v, %v", again, err)
			}
		})
	}
}

// The line of a signature says what it is for.
func TestChainSaysTagsAndSequence(t *testing.T) {
	s, subject := newStore()
	s.attach(subject, alice.bundle(statement(subject)))
	got, err := verify.Artifact(t.Context(), s, subject, trust(alice))
	if err != nil {
		t.Fatal(err)
	}
	want := "by key " + alice.hint + ", for example.com/vm, the tags latest, v1, sequence 1800000000 (2027-01-15T08:00:00Z)"
	if got.Chain[0].Why != want {
		t.Errorf("got  %s\nwant %s", got.Chain[0].Why, want)
	}
}

// A copy that was signed again for its new place is not warned about for the old one.
func TestNoWarningWhenOneSignatureIsForThisName(t *testing.T) {
	s, subject := newStore()
	s.attach(subject, alice.bundle(statement(subject)))
	s.attach(subject, alice.bundle(statement(subject, "example.com/vm", "example.com/copy")))
	for name, warnings := range map[string]int{"example.com/vm": 0, "example.com/copy": 0, "example.com/swap": 2} {
		p := trust(alice)
		p.Name = name
		got, err := verify.Artifact(t.Context(), s, subject, p)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Warnings) != warnings {
			t.Errorf("%s: warnings are %q, want %d", name, got.Warnings, warnings)
		}
	}
	// A stranger's signature for this name silences nothing.
	s.attach(subject, mallory.bundle(statement(subject, "example.com/vm", "example.com/swap")))
	p := trust(alice)
	p.Name = "example.com/swap"
	if got, err := verify.Artifact(t.Context(), s, subject, p); err != nil || len(got.Warnings) != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A network that fails is no verdict, in neither direction.
func TestNetworkFailureIsNotARefusal(t *testing.T) {
	reset := errors.New("connection reset")
	for _, tt := range []struct {
		name   string
		breaks func(s *store, subject, referrer ocispec.Descriptor)
	}{
		{"manifest", func(s *store, subject, _ ocispec.Descriptor) { s.fail[subject.Digest] = reset }},
		{"list", func(s *store, _, _ ocispec.Descriptor) { s.listFail = reset }},
		{"referrer", func(s *store, _, referrer ocispec.Descriptor) { s.fail[referrer.Digest] = reset }},
		{"bundle", func(s *store, _, _ ocispec.Descriptor) { s.fail[bundleOf(s)] = reset }},
		{"one of two, the other refused", func(s *store, subject, referrer ocispec.Descriptor) {
			s.fail[referrer.Digest] = reset
			s.attach(subject, mallory.bundle(statement(subject)))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, subject := newStore()
			tt.breaks(s, subject, s.attach(subject, alice.bundle(statement(subject))))
			got, err := verify.Artifact(t.Context(), s, subject, trust(alice))
			if got != nil || !errors.Is(err, reset) {
				t.Fatalf("got %v, %v", got, err)
			}
			if _, ok := errors.AsType[*verify.UntrustedError](err); ok {
				t.Errorf("%v is a refusal", err)
			}
		})
	}
	t.Run("in the middle of a body", func(t *testing.T) {
		s, subject := newStore()
		s.attach(subject, alice.bundle(statement(subject)))
		got, err := verify.Artifact(t.Context(), halfway{s}, subject, trust(alice))
		if _, ok := errors.AsType[*verify.UntrustedError](err); got != nil || err == nil || ok {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("cancelled", func(t *testing.T) {
		s, subject := newStore()
		s.attach(subject, alice.bundle(statement(subject)))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got, err := verify.Artifact(ctx, s, subject, trust(alice)); got != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

// A source that checks digests itself and fails at the end of the body does not make a forgery look like a broken network.
func TestMismatchToldBySourceIsARefusal(t *testing.T) {
	s, subject := newStore()
	s.attach(subject, alice.bundle(statement(subject)))
	if _, err := verify.Artifact(t.Context(), checking{s}, subject, trust(alice)); err != nil {
		t.Fatal(err)
	}
	s.blobs[bundleOf(s)] = bytes.Replace(s.blobs[bundleOf(s)], []byte("media"), []byte("Media"), 1)
	if e := mustRefuse(t, checking{s}, subject, trust(alice)); e.Reasons[0].Code != verify.DigestMismatch {
		t.Errorf("got %v", e)
	}
}

// checking ends bodies that are not what their digest says with an error of its own.
type checking struct{ *store }

func (c checking) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := c.store.Fetch(ctx, d)
	if err != nil || digest.FromBytes(c.blobs[d.Digest]) == d.Digest {
		return rc, err
	}
	return io.NopCloser(io.MultiReader(rc, iotest.ErrReader(errors.New("wrong digest")))), nil
}

// halfway breaks off every body.
type halfway struct{ *store }

func (h halfway) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := h.store.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(rc, d.Size/2), iotest.ErrReader(io.ErrUnexpectedEOF))), nil
}

func TestManifestNotThereIsNotARefusal(t *testing.T) {
	s, subject := newStore()
	delete(s.blobs, subject.Digest)
	_, err := verify.Artifact(t.Context(), s, subject, trust(alice))
	if _, ok := errors.AsType[*verify.UntrustedError](err); ok || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want the source's own error", err)
	}
}

func TestManifestLimits(t *testing.T) {
	for name, edit := range map[string]func(*ocispec.Descriptor){
		"too large":      func(d *ocispec.Descriptor) { d.Size = 4<<20 + 1 },
		"negative":       func(d *ocispec.Descriptor) { d.Size = -1 },
		"no digest":      func(d *ocispec.Descriptor) { d.Digest = "" },
		"unknown digest": func(d *ocispec.Descriptor) { d.Digest = "md5:d41d8cd98f00b204e9800998ecf8427e" },
	} {
		t.Run(name, func(t *testing.T) {
			s, subject := newStore()
			s.attach(subject, alice.bundle(statement(subject)))
			edit(&subject)
			mustRefuse(t, s, subject, trust(alice))
		})
	}
}

// flips calls f with data once for each bit, that bit flipped, on both cores.
func flips(data []byte, f func(bit int, flipped []byte)) {
	var wg sync.WaitGroup
	const workers = 4
	for w := range workers {
		wg.Go(func() {
			for bit := w; bit < 8*len(data); bit += workers {
				flipped := bytes.Clone(data)
				flipped[bit/8] ^= 1 << (bit % 8)
				f(bit, flipped)
			}
		})
	}
	wg.Wait()
}

// A flip in storage is told from the digest, wherever it is.
func TestEveryFlippedBitInStorageIsRefused(t *testing.T) {
	s, subject := newStore()
	referrer := s.attach(subject, alice.bundle(statement(subject)))
	for name, d := range map[string]digest.Digest{"manifest": subject.Digest, "referrer": referrer.Digest, "bundle": bundleOf(s)} {
		t.Run(name, func(t *testing.T) {
			flips(s.blobs[d], func(bit int, flipped []byte) {
				broken := &store{blobs: maps.Clone(s.blobs), referrers: s.referrers}
				broken.blobs[d] = flipped
				got, err := verify.Artifact(t.Context(), broken, subject, trust(alice))
				if _, ok := errors.AsType[*verify.UntrustedError](err); got != nil || !ok || !errors.Is(err, verify.ErrDigestMismatch) ||
					!strings.Contains(err.Error(), d.String()) {
					t.Errorf("bit %d: got %v, %v", bit, got, err)
				}
			})
		})
	}
}

// An attacker who flips bits and corrects the digests above them may get a signature refused, or change what no claim depends on
// (a hint, the white space, the spare bits of base64), but never what a counted signature says.
func TestNoFlippedBitChangesWhatCounts(t *testing.T) {
	s, subject := newStore()
	referrer := s.attach(subject, alice.bundle(statement(subject)))
	want, err := verify.Artifact(t.Context(), s, subject, trust(alice))
	if err != nil {
		t.Fatal(err)
	}
	try := func(t *testing.T, bit int, build func(*store)) {
		broken := &store{blobs: maps.Clone(s.blobs)}
		build(broken)
		got, err := verify.Artifact(t.Context(), broken, subject, trust(alice))
		if _, ok := errors.AsType[*verify.UntrustedError](err); err != nil && !ok {
			t.Errorf("bit %d: %v is no refusal", bit, err)
		}
		if err != nil {
			return
		}
		a, b := got.Signatures[0], want.Signatures[0]
		if a.Name != b.Name || !slices.Equal(a.Tags, b.Tags) || a.Sequence != b.Sequence || a.KeyHint != b.KeyHint ||
			got.Subject.Descriptor().Digest != want.Subject.Descriptor().Digest || !bytes.Equal(got.Subject.Manifest(), want.Subject.Manifest()) {
			t.Errorf("bit %d: counted %+v, want %+v", bit, a, b)
		}
	}
	t.Run("bundle", func(t *testing.T) {
		flips(s.blobs[bundleOf(s)], func(bit int, flipped []byte) {
			try(t, bit, func(s *store) { s.attach(subject, flipped) })
		})
	})
	t.Run("referrer", func(t *testing.T) {
		flips(s.blobs[referrer.Digest], func(bit int, flipped []byte) {
			try(t, bit, func(s *store) { s.attachManifest(flipped) })
		})
	})
}

func TestLoadPublicKey(t *testing.T) {
	block := func(pemType string, der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	}
	public := func(key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		return block("PUBLIC KEY", der, err)
	}
	ec := func(c elliptic.Curve) *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsa2048, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsa1024, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	cosign, err := os.ReadFile(filepath.Join("testdata", "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	p256 := ec(elliptic.P256())
	pkcs8, err := x509.MarshalPKCS8PrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}

	for name, data := range map[string][]byte{
		"P-256": public(p256.Public()), "P-384": public(ec(elliptic.P384()).Public()), "P-521": public(ec(elliptic.P521()).Public()),
		"Ed25519": public(ed), "RSA 2048": public(rsa2048.Public()), "cosign.pub": cosign,
		"text around it": append([]byte("alice's key\n"), public(p256.Public())...),
	} {
		if key, err := verify.LoadPublicKey(data); err != nil || key.Hint() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, data := range map[string][]byte{
		"P-224": public(ec(elliptic.P224()).Public()), "RSA 1024": public(rsa1024.Public()), "empty": nil, "text": []byte("hello"),
		"two keys":                           append(public(p256.Public()), public(ed)...),
		"a key that is called a certificate": bytes.ReplaceAll(public(ed), []byte("PUBLIC KEY"), []byte("CERTIFICATE")),
		"certificate":                        block("CERTIFICATE", pkcs8, nil), "garbage": block("PUBLIC KEY", []byte("x"), nil),
		"too big": append(public(ed), make([]byte, 64<<10)...),
	} {
		if _, err := verify.LoadPublicKey(data); err == nil || errors.Is(err, verify.ErrPrivateKey) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for name, data := range map[string][]byte{
		"plain": block("PRIVATE KEY", pkcs8, nil), "cosign.key": block("ENCRYPTED SIGSTORE PRIVATE KEY", pkcs8, nil),
		"old cosign.key": block("ENCRYPTED COSIGN PRIVATE KEY", pkcs8, nil), "SEC 1": block("EC PRIVATE KEY", pkcs8, nil),
	} {
		_, err := verify.LoadPublicKey(data)
		if !errors.Is(err, verify.ErrPrivateKey) || !strings.Contains(fmt.Sprint(err), "this is a private key; use the .pub") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// plainKey makes a private key, as PKCS #8.
func plainKey(t *testing.T, kind string) []byte {
	t.Helper()
	var key any
	var err error
	switch kind {
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "P-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "RSA":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// What sign writes, verify counts, for every kind of key.
func TestRoundTrip(t *testing.T) {
	for _, kind := range []string{"P-256", "P-384", "P-521", "Ed25519", "RSA"} {
		t.Run(kind, func(t *testing.T) {
			key, err := sign.LoadKey(plainKey(t, kind), nil)
			if err != nil {
				t.Fatal(err)
			}
			s, subject := newStore()
			push(t, s, key, sign.Subject{Digest: subject.Digest, Name: "example.com/vm", Annotations: annotations(t, 5, "v2", "v1")}, subject)

			got, err := verify.Artifact(t.Context(), s, subject, verify.Policy{Keys: []*verify.Key{publicOf(t, key)}, Bind: "example.com/vm"})
			if err != nil {
				t.Fatal(err)
			}
			sig := got.Signatures[0]
			if sig.KeyHint != key.Hint() || !slices.Equal(sig.Tags, []string{"v1", "v2"}) || sig.Sequence != 5 {
				t.Errorf("got %+v", sig)
			}
			mustRefuse(t, s, subject, trust(alice))
		})
	}
}

// push signs with package sign and stores what it says to store.
func push(t *testing.T, s *store, key *sign.Key, what sign.Subject, subject ocispec.Descriptor) {
	t.Helper()
	bundle, err := sign.Bundle(t.Context(), key, what)
	if err != nil {
		t.Fatal(err)
	}
	manifest, blobs, err := sign.Referrer(subject, bundle, time.Unix(1_800_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		s.blobs[b.Descriptor.Digest] = b.Data
	}
	s.blobs[manifest.Descriptor.Digest] = manifest.Data
	s.referrers = append(s.referrers, manifest.Descriptor)
}

func annotations(t *testing.T, sequence int64, tags ...string) map[string]string {
	t.Helper()
	m, err := sign.Annotations(tags, sequence)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func publicOf(t *testing.T, key *sign.Key) *verify.Key {
	t.Helper()
	data, err := key.PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	public, err := verify.LoadPublicKey(data)
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// The files in testdata are what cosign 3.1.3 wrote: sign, sign -a foo=bar, attest, sign-blob.
func TestBundlesOfCosign(t *testing.T) {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	public, err := verify.LoadPublicKey(read("cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		bundle string
		code   verify.Code // empty: counts
	}{
		{"cosign-sign", ""},
		{"cosign-sign-annotated", ""},
		{"cosign-attest", verify.NotASignature},
		{"cosign-sign-blob", verify.Unsupported},
	} {
		t.Run(tt.bundle, func(t *testing.T) {
			s, _ := newStore()
			subject := s.put(ocispec.MediaTypeImageManifest, read("subject.json"))
			s.attach(subject, read("bundles/"+tt.bundle+".json"))
			p := verify.Policy{Keys: []*verify.Key{public}, Name: "example.com/vm"}
			if tt.code != "" {
				if e := mustRefuse(t, s, subject, p); e.Reasons[0].Code != tt.code {
					t.Errorf("got %+v, want %s", e.Reasons, tt.code)
				}
				return
			}
			got, err := verify.Artifact(t.Context(), s, subject, p)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Warnings) != 0 || got.Signatures[0].Sequence != 0 || !got.Signatures[0].Time.IsZero() {
				t.Errorf("got %+v", got)
			}
			p.Bind = "example.com/vm"
			mustRefuse(t, s, subject, p)
		})
	}
}

func TestSignatureJSON(t *testing.T) {
	s, subject := newStore()
	s.attach(subject, mallory.bundle(statement(subject)))
	e := mustRefuse(t, s, subject, trust(alice))
	data, err := json.Marshal(e.Signatures[0])
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf(`{"digest":%q,"referrer":%q,"kind":"key","keyHint":%q,"time":"2027-01-15T08:00:00Z","counted":false,`+
		`"code":"untrusted-key","why":"no key of the policy made this signature","name":"example.com/vm","tags":["latest","v1"],"sequence":1800000000}`,
		bundleOf(s), s.referrers[0].Digest, mallory.hint)
	if string(data) != want {
		t.Errorf("got  %s\nwant %s", data, want)
	}
}
