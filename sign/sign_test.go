package sign_test

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/davit-oci/davit/sign"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func testKey(t *testing.T) *sign.Key {
	t.Helper()
	key, err := sign.LoadKey(plainPEM(t, "p256"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestNextSequence(t *testing.T) {
	now := time.Unix(1_800_000_000, 999_999_999)
	for _, tt := range []struct {
		name           string
		previous, want int64
	}{
		{"first push", 0, 1_800_000_000},
		{"previous is older", 1_700_000_000, 1_800_000_000},
		{"previous was made this second", 1_800_000_000, 1_800_000_001},
		{"clock went back", 1_900_000_000, 1_900_000_001},
		{"the end of numbers does not wrap", math.MaxInt64, math.MaxInt64},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := sign.NextSequence(now, tt.previous); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestAnnotations(t *testing.T) {
	got, err := sign.Annotations([]string{"v1.2", "latest", "v1.2"}, 42)
	if err != nil {
		t.Fatal(err)
	}
	if got["vnd.davit.tags"] != "latest,v1.2" || got["vnd.davit.sequence"] != "42" || len(got) != 2 {
		t.Errorf("got %v", got)
	}
	if got, err := sign.Annotations(nil, 7); err != nil || len(got) != 1 {
		t.Errorf("without tags: %v, %v; want the sequence alone", got, err)
	}
	for _, tag := range []string{"", "a,b", "a b", "-x", strings.Repeat("x", 129)} {
		if _, err := sign.Annotations([]string{tag}, 1); err == nil {
			t.Errorf("%q is signed as a tag", tag)
		}
	}
	if _, err := sign.Annotations(nil, -1); err == nil {
		t.Error("a negative sequence is signed")
	}
}

// decodeBundle returns the bundle and its statement as plain JSON values.
func decodeBundle(t *testing.T, data []byte) (bundle, statement map[string]any) {
	t.Helper()
	if err := json.Unmarshal(data, &bundle); err != nil {
		t.Fatal(err)
	}
	var envelope struct {
		DSSEEnvelope struct{ Payload []byte }
	}
	if err := json.Unmarshal(data, &envelope); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(envelope.DSSEEnvelope.Payload, &statement); err != nil {
		t.Fatal(err)
	}
	return bundle, statement
}

func TestBundleStatement(t *testing.T) {
	d := digest.FromString("manifest")
	for _, tt := range []struct {
		name    string
		subject sign.Subject
		want    string
	}{
		{
			"of a push",
			sign.Subject{Digest: d, Name: "example.com/vm", Annotations: map[string]string{"vnd.davit.tags": "v1", "vnd.davit.sequence": "5"}},
			`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"example.com/vm","digest":{"sha256":"` + d.Encoded() +
				`"},"annotations":{"vnd.davit.sequence":"5","vnd.davit.tags":"v1"}}],` +
				`"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`,
		},
		{
			"in a layout has no name",
			sign.Subject{Digest: d},
			`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + d.Encoded() +
				`"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data, err := sign.Bundle(t.Context(), testKey(t), tt.subject)
			if err != nil {
				t.Fatal(err)
			}
			var b struct {
				DSSEEnvelope struct{ Payload []byte }
			}
			if err := json.Unmarshal(data, &b); err != nil {
				t.Fatal(err)
			}
			if got := string(b.DSSEEnvelope.Payload); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// The bundle has the fields of cosign's and no others: cosign and sigstore-go refuse a bundle with more.
func TestBundleHasTheFieldsOfCosigns(t *testing.T) {
	theirs, err := os.ReadFile(filepath.Join("..", "verify", "testdata", "bundles", "cosign-sign-annotated.json"))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := sign.Bundle(t.Context(), testKey(t), sign.Subject{
		Digest:      digest.FromString("manifest"),
		Annotations: map[string]string{"foo": "bar"},
	})
	if err != nil {
		t.Fatal(err)
	}
	gotBundle, gotStatement := decodeBundle(t, ours)
	wantBundle, wantStatement := decodeBundle(t, theirs)
	if got, want := shape(gotBundle), shape(wantBundle); got != want {
		t.Errorf("bundle:\ngot  %s\nwant %s", got, want)
	}
	if got, want := shape(gotStatement), shape(wantStatement); got != want {
		t.Errorf("statement:\ngot  %s\nwant %s", got, want)
	}
}

// shape is v as JSON with every text replaced.
func shape(v any) string {
	var blank func(v any) any
	blank = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k := range v {
				v[k] = blank(v[k])
			}
			return v
		case []any:
			for i := range v {
				v[i] = blank(v[i])
			}
			return v
		}
		return "x"
	}
	data, err := json.Marshal(blank(v))
	if err != nil {
		return err.Error()
	}
	return string(data)
}

func TestBundleRefuses(t *testing.T) {
	for _, d := range []digest.Digest{"", "sha256:12", "md5:d41d8cd98f00b204e9800998ecf8427e", "latest"} {
		if _, err := sign.Bundle(t.Context(), testKey(t), sign.Subject{Digest: d}); err == nil {
			t.Errorf("%q is signed", d)
		}
	}
	for name, s := range map[string]sign.Subject{
		"name":              {Name: "example.com/\x1bvm"},
		"tags out of order": {Annotations: map[string]string{"vnd.davit.tags": "b,a"}},
		"empty tags":        {Annotations: map[string]string{"vnd.davit.tags": ""}},
		"sequence":          {Annotations: map[string]string{"vnd.davit.sequence": "one"}},
		"annotation":        {Annotations: map[string]string{"a": "\xff"}},
		"annotation's name": {Annotations: map[string]string{"\xff": "a"}},
	} {
		s.Digest = digest.FromString("x")
		if _, err := sign.Bundle(t.Context(), testKey(t), s); err == nil {
			t.Errorf("%s: %+v is signed, and nobody would accept it", name, s)
		}
	}
	if _, err := sign.Bundle(t.Context(), nil, sign.Subject{Digest: digest.FromString("x")}); err == nil {
		t.Error("no key signs")
	}
	if _, err := sign.Bundle(t.Context(), new(sign.Key), sign.Subject{Digest: digest.FromString("x")}); err == nil {
		t.Error("the zero key signs")
	}
}

// The files in verify/testdata are what cosign 3.1.3 pushed: given its bundle and time, we write its manifest, byte for byte.
func TestReferrerIsCosigns(t *testing.T) {
	dir := filepath.Join("..", "verify", "testdata")
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	subject, bundle, want := read("subject.json"), read("bundles/cosign-sign.json"), read("cosign-referrer.json")

	created := time.Date(2026, 11, 23, 18, 31, 27, 123, time.FixedZone("", 0))
	manifest, blobs, err := sign.Referrer(ocispec.Descriptor{
		MediaType:    ocispec.MediaTypeImageManifest,
		Digest:       digest.FromBytes(subject),
		Size:         int64(len(subject)),
		ArtifactType: "application/x-not-copied",
		Annotations:  map[string]string{"not": "copied"},
	}, bundle, created)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(manifest.Data, want) {
		t.Errorf("got  %s\nwant %s", manifest.Data, want)
	}
	if manifest.Descriptor.Digest != digest.FromBytes(want) || manifest.Descriptor.Size != int64(len(want)) {
		t.Errorf("descriptor %v is not that of the manifest", manifest.Descriptor)
	}
	if len(blobs) != 2 || string(blobs[0].Data) != "{}" || !bytes.Equal(blobs[1].Data, bundle) {
		t.Errorf("blobs are not the empty config and the bundle: %v", blobs)
	}
	for _, b := range blobs {
		if b.Descriptor.Digest != digest.FromBytes(b.Data) || b.Descriptor.Size != int64(len(b.Data)) {
			t.Errorf("descriptor %v is not that of its blob", b.Descriptor)
		}
	}
}
