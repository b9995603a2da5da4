package subject

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// FuzzIndex wants of any image index that it is refused, or that its list of manifests is the same to a reader that compares the case of
// keys, the opposite of encoding/json.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"platform":{"os":"linux","architecture":"amd64"},` +
		`"annotations":{"vnd.davit.platform":"linux/amd64"}}]}`))
	f.Add([]byte(`{"manifests":[{"digest":"x","size":1},{"Digest":"y","digest":"x","size":1}]}`))
	f.Add([]byte(`{"manifests":[{"digest":"x","size":1},{"digest":"x","size":1},{"digest":"x","size":2}]}`))
	f.Add([]byte(`{"manifests":[],"layers":[]}`))
	f.Add([]byte(`{"Manifests":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := New(ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Size: int64(len(data))}, data, ByNobody)
		x, err := s.Index()
		if err != nil {
			if !errors.Is(err, ErrMalformedIndex) {
				t.Errorf("%v is no ErrMalformedIndex", err)
			}
			return
		}
		var top map[string]json.RawMessage
		if err := json.Unmarshal(data, &top); err != nil {
			t.Fatal(err)
		}
		var entries []map[string]json.RawMessage
		if list := top["manifests"]; list != nil {
			if err := json.Unmarshal(list, &entries); err != nil {
				t.Fatal(err)
			}
		}
		if len(entries) != len(x.Manifests) {
			t.Fatalf("%d manifests to one reader, %d to another", len(x.Manifests), len(entries))
		}
		for i, e := range entries {
			var d string
			if raw := e["digest"]; raw != nil && json.Unmarshal(raw, &d) != nil || d != string(x.Manifests[i].Digest) {
				t.Errorf("manifest %d is %s to one reader and %s to another", i, x.Manifests[i].Digest, e["digest"])
			}
		}
		children, err := s.Children()
		if err != nil || len(children) > len(entries) || (len(children) == 0) != (len(entries) == 0) {
			t.Errorf("%d children of %d entries, %v", len(children), len(entries), err)
		}
	})
}
