package verify_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/davit-oci/davit/verify"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestZeroSubjectIsNothing(t *testing.T) {
	var zero verify.Subject
	if d := zero.Descriptor(); d.Digest != "" || zero.Manifest() != nil || zero.VouchedBy() != "" || zero.IsIndex() {
		t.Errorf("the zero subject is %v, %q, %q", d, zero.Manifest(), zero.VouchedBy())
	}
	if _, err := zero.Index(); !errors.Is(err, verify.ErrNoSubject) {
		t.Errorf("Index: %v", err)
	}
	if _, err := zero.Children(); !errors.Is(err, verify.ErrNoSubject) {
		t.Errorf("Children: %v", err)
	}
	s, desc := newStore()
	if got, err := zero.Child(t.Context(), s, desc); got != zero || !errors.Is(err, verify.ErrNoSubject) {
		t.Errorf("Child: %v, %v", got, err)
	}
}

// unsigned are the two ways to a subject that nobody has signed.
var unsigned = map[string]func(t *testing.T, s *store, desc ocispec.Descriptor) (*verify.Result, error){
	"pinned": func(t *testing.T, s *store, desc ocispec.Descriptor) (*verify.Result, error) {
		return verify.Pinned(t.Context(), s, desc, desc.Digest)
	},
	"unverified": func(t *testing.T, s *store, desc ocispec.Descriptor) (*verify.Result, error) {
		return verify.Unverified(t.Context(), s, desc)
	},
}

func TestUnsigned(t *testing.T) {
	for name, by := range map[string]verify.Voucher{"pinned": verify.ByDigest, "unverified": verify.ByNobody} {
		t.Run(name, func(t *testing.T) {
			s, desc := newStore()
			claims := desc
			claims.Annotations, claims.URLs = map[string]string{"a": "b"}, []string{"https://example.com"}
			got, err := unsigned[name](t, s, claims)
			if err != nil {
				t.Fatal(err)
			}
			if d := got.Subject.Descriptor(); d.Digest != desc.Digest || d.Size != desc.Size || d.MediaType != desc.MediaType || d.Annotations != nil || d.URLs != nil {
				t.Errorf("subject is %v, want media type, digest and size alone", d)
			}
			if got.Subject.VouchedBy() != by || len(got.Signatures) != 0 {
				t.Errorf("vouched by %q, with %d signatures", got.Subject.VouchedBy(), len(got.Signatures))
			}
			// Who changes the bytes changes a copy.
			clear(got.Subject.Manifest())
			if m := got.Subject.Manifest(); !bytes.Equal(m, artifact) {
				t.Errorf("manifest is %q", m)
			}
		})
	}
}

func TestUnsignedRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		build func(s *store, desc *ocispec.Descriptor)
		code  verify.Code
	}{
		{"changed content", func(s *store, desc *ocispec.Descriptor) {
			s.blobs[desc.Digest] = bytes.Replace(artifact, []byte("[]"), []byte("{}"), 1)
		}, verify.DigestMismatch},
		{"longer content", func(s *store, desc *ocispec.Descriptor) {
			s.blobs[desc.Digest] = append(bytes.Clone(artifact), '\n')
		}, verify.DigestMismatch},
		{"shorter content", func(s *store, desc *ocispec.Descriptor) { s.blobs[desc.Digest] = artifact[1:] }, verify.DigestMismatch},
		{"another size", func(s *store, desc *ocispec.Descriptor) { desc.Size-- }, verify.DigestMismatch},
		{"a size beyond the limit", func(s *store, desc *ocispec.Descriptor) {
			*desc = s.put(ocispec.MediaTypeImageManifest, append(bytes.Clone(artifact), make([]byte, 4<<20)...))
		}, verify.TooLarge},
		{"a negative size", func(s *store, desc *ocispec.Descriptor) { desc.Size = -1 }, verify.TooLarge},
		{"a digest that is none", func(s *store, desc *ocispec.Descriptor) {
			s.blobs["sha256:../x"], desc.Digest = artifact, "sha256:../x"
		}, verify.Malformed},
	} {
		for name, open := range unsigned {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				s, desc := newStore()
				tt.build(s, &desc)
				got, err := open(t, s, desc)
				e, ok := errors.AsType[*verify.UntrustedError](err)
				if got != nil || !ok || e.Reasons[0].Code != tt.code || e.Subject.Digest != desc.Digest {
					t.Errorf("got %v, %v, want %s", got, err, tt.code)
				}
				if is := errors.Is(err, verify.ErrDigestMismatch); is != (tt.code == verify.DigestMismatch) {
					t.Errorf("is ErrDigestMismatch: %t", is)
				}
			})
		}
	}
}

func TestUnsignedFailures(t *testing.T) {
	for name, open := range unsigned {
		t.Run(name, func(t *testing.T) {
			s, desc := newStore()
			broken := errors.New("broken")
			s.fail[desc.Digest] = broken
			got, err := open(t, s, desc)
			if _, decided := errors.AsType[*verify.UntrustedError](err); got != nil || decided || !errors.Is(err, broken) {
				t.Errorf("got %v, %v, want that there was no decision", got, err)
			}
		})
	}
}

// A digest is a trust source if the caller has named it, and no other is.
func TestPinnedWantsTheDigestThatWasNamed(t *testing.T) {
	s, desc := newStore()
	fetched := false
	s.onFetch = func(ocispec.Descriptor) { fetched = true }
	for _, tt := range []struct {
		pin  digest.Digest
		want error
	}{
		{"", verify.ErrNoTrustSource},
		{digest.FromString("another"), verify.ErrDigestMismatch},
	} {
		got, err := verify.Pinned(t.Context(), s, desc, tt.pin)
		if _, ok := errors.AsType[*verify.UntrustedError](err); got != nil || !ok || !errors.Is(err, tt.want) {
			t.Errorf("pinned to %q: got %v, %v, want %v", tt.pin, got, err, tt.want)
		}
	}
	if fetched {
		t.Error("it was fetched")
	}
}

// putIndex stores an index of manifests.
func (s *store) putIndex(t *testing.T, manifests ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
	if err != nil {
		t.Fatal(err)
	}
	return s.put(ocispec.MediaTypeImageIndex, data)
}

func TestChild(t *testing.T) {
	s, listed := newStore()
	other := s.put(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
	twice := listed
	twice.Annotations = map[string]string{"vnd.davit.platform": "linux/arm64"}
	index := s.putIndex(t, listed, twice)
	s.attach(index, alice.bundle(statement(index)))

	result, err := verify.Artifact(t.Context(), s, index, trust(alice))
	if err != nil {
		t.Fatal(err)
	}
	parent := result.Subject
	if children, err := parent.Children(); err != nil || len(children) != 1 || children[0].Digest != listed.Digest || children[0].Annotations != nil {
		t.Errorf("children are %v, %v, want the one manifest", children, err)
	}
	x, err := parent.Index()
	if err != nil || len(x.Manifests) != 2 || x.Manifests[1].Annotations["vnd.davit.platform"] != "linux/arm64" {
		t.Errorf("index is %v, %v, want both entries", x, err)
	}
	child, err := parent.Child(t.Context(), s, twice)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(child.Manifest(), artifact) || child.Descriptor().Digest != listed.Digest || child.VouchedBy() != verify.ByKey {
		t.Errorf("child is %v, vouched by %q", child.Descriptor(), child.VouchedBy())
	}

	// What the caller writes into an index lists nothing.
	x.Manifests[0] = other
	fetched := false
	s.onFetch = func(ocispec.Descriptor) { fetched = true }
	otherType, otherSize := listed, listed
	otherType.MediaType = ocispec.MediaTypeImageIndex
	otherSize.Size++
	for name, desc := range map[string]ocispec.Descriptor{
		"a manifest of the repository": other, "the index itself": index, "another media type": otherType, "another size": otherSize, "nothing": {},
	} {
		if got, err := parent.Child(t.Context(), s, desc); got != (verify.Subject{}) || !errors.Is(err, verify.ErrNotListed) {
			t.Errorf("%s: got %v, %v, want ErrNotListed", name, got, err)
		}
	}
	if fetched {
		t.Error("what is not listed was fetched")
	}

	s.blobs[listed.Digest] = bytes.Replace(artifact, []byte("[]"), []byte("{}"), 1)
	if got, err := parent.Child(t.Context(), s, listed); got != (verify.Subject{}) || !errors.Is(err, verify.ErrDigestMismatch) {
		t.Errorf("changed content: got %v, %v, want ErrDigestMismatch", got, err)
	}
	if got, err := child.Child(t.Context(), s, listed); got != (verify.Subject{}) || !errors.Is(err, verify.ErrMalformedIndex) {
		t.Errorf("of a manifest: got %v, %v, want ErrMalformedIndex", got, err)
	}
}

func TestMalformedIndex(t *testing.T) {
	const entry = `{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}`
	const good = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` + entry + `]}`
	for _, tt := range []struct{ name, json, why string }{
		{"well-formed", good, ""},
		{"no media type of its own", strings.Replace(good, `"mediaType":"application/vnd.oci.image.index.v1+json",`, "", 1), ""},
		{"no manifests", `{"schemaVersion":2}`, ""},
		{"not JSON", good[1:], "JSON"},
		{"an array", "[" + good + "]", "object"},
		{"a list of manifests twice", strings.Replace(good, `"manifests":`, `"manifests":[],"manifests":`, 1), "twice"},
		{"a list of manifests in another case", strings.Replace(good, `"manifests":`, `"Manifests":[],"manifests":`, 1), "another case"},
		{"something after it", good + "\n", "after"},
		{"an entry without a size", strings.Replace(good, `,"size":0`, "", 1), "size"},
		{"a size that is a text", strings.Replace(good, `"size":0`, `"size":"0"`, 1), "size"},
		{"the media type of a manifest", strings.Replace(good, "image.index", "image.manifest", 1), "mediaType"},
		{"layers, too", strings.Replace(good, `"manifests":`, `"layers":[],"manifests":`, 1), "layers"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, _ := newStore()
			got, err := verify.Unverified(t.Context(), s, s.put(ocispec.MediaTypeImageIndex, []byte(tt.json)))
			if err != nil {
				t.Fatal(err)
			}
			_, err = got.Subject.Index()
			if tt.why == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, verify.ErrMalformedIndex) || !strings.Contains(fmt.Sprint(err), tt.why) {
				t.Errorf("got %v, want ErrMalformedIndex: … %s …", err, tt.why)
			}
			if _, err := got.Subject.Children(); !errors.Is(err, verify.ErrMalformedIndex) {
				t.Errorf("Children: %v", err)
			}
		})
	}
}
