package verify

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/davit-oci/davit/internal/bundle"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// seeds adds the files that match, which there must be.
func seeds(f *testing.F, pattern string) (all [][]byte) {
	f.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		f.Fatalf("no seeds in %s: %v", pattern, err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
		all = append(all, data)
	}
	return all
}

// FuzzBundle looks for a bundle that counts without cosign's key having signed it. The seeds are bundles by that key, so nothing
// counts but what one of them says.
func FuzzBundle(f *testing.F) {
	public, err := os.ReadFile("testdata/cosign.pub")
	if err != nil {
		f.Fatal(err)
	}
	key, err := LoadPublicKey(public)
	if err != nil {
		f.Fatal(err)
	}
	manifest, err := os.ReadFile("testdata/subject.json")
	if err != nil {
		f.Fatal(err)
	}
	subject := ocispec.Descriptor{Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	try := func(data []byte) (Signature, error) {
		var s Signature
		b, err := readBundle(&s, data, subject)
		if err == nil {
			err = b.check(&s, []*Key{key}, Policy{})
		}
		s.err = nil
		return s, err
	}
	var accepted []Signature
	for _, data := range seeds(f, "testdata/bundles/*.json") {
		if s, err := try(data); err == nil {
			accepted = append(accepted, s)
		}
	}
	if len(accepted) != 2 {
		f.Fatalf("%d of the seeds count, want 2", len(accepted))
	}

	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := try(data)
		if err != nil {
			if _, ok := asRefusal(err); !ok {
				t.Errorf("%v is not a refusal", err)
			}
			return
		}
		for _, a := range accepted {
			if reflect.DeepEqual(s, a) {
				return
			}
		}
		t.Errorf("counted %+v", s)
	})
}

// FuzzReferrer: a manifest that is accepted means the same to a reader that compares the case of keys and lets the first of two
// win, the opposite of encoding/json.
func FuzzReferrer(f *testing.F) {
	manifest, err := os.ReadFile("testdata/subject.json")
	if err != nil {
		f.Fatal(err)
	}
	subject := ocispec.Descriptor{Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	counts := 0
	for _, data := range seeds(f, "testdata/cosign-referrer*.json") {
		if _, err := parseReferrer(data, subject); err == nil {
			counts++
		}
	}
	if counts == 0 {
		f.Fatal("no seed is accepted")
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		layer, err := parseReferrer(data, subject)
		if err != nil {
			return
		}
		var m map[string]json.RawMessage
		var layers []map[string]json.RawMessage
		if json.Unmarshal(data, &m) != nil || json.Unmarshal(m["layers"], &layers) != nil || len(layers) != 1 {
			t.Fatal("accepted, and not a manifest with one layer")
		}
		var of map[string]json.RawMessage
		if json.Unmarshal(m["subject"], &of) != nil || stringOf(of["digest"]) != subject.Digest.String() {
			t.Errorf("accepted for subject %s", m["subject"])
		}
		if got := stringOf(layers[0]["digest"]); got != layer.Digest.String() {
			t.Errorf("layer is %s to one reader and %s to another", layer.Digest, got)
		}
		if got := stringOf(layers[0]["mediaType"]); got != bundle.MediaType {
			t.Errorf("layer is a %q to another reader", got)
		}
	})
}

func stringOf(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// FuzzLoadPublicKey wants of any key file that it is refused, or that it holds
// one key, public, whose name is that of its canonical form.
func FuzzLoadPublicKey(f *testing.F) {
	seeds(f, "testdata/*.pub")
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Add([]byte("-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := LoadPublicKey(data)
		if err != nil {
			if key != nil {
				t.Error("refused, and yet there is a key")
			}
			return
		}
		block, rest := pem.Decode(data)
		if more, _ := pem.Decode(rest); block == nil || more != nil || bytes.Contains(data, []byte("PRIVATE KEY-----\n")) {
			t.Error("the file does not hold just one public key")
		}
		public, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		again, err := LoadPublicKey(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		if err != nil || again.Hint() != key.Hint() {
			t.Errorf("as it is written canonically it is another: %v", err)
		}
	})
}
