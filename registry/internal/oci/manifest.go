// Package oci is what registries, layouts and archives have in common: manifests and blobs that descriptors name, how both are
// checked, manifests that refer to others, and the errors for all that.
//
// Nothing that is stored is believed. [Check] and [CheckManifest] are for every descriptor that comes in, [ReadVerified] and
// [NewVerifier] for all that is read by one. The package moves no bytes itself.
package oci

import (
	"encoding/json"
	"fmt"
	"mime"
	"slices"
	"sync/atomic"

	"github.com/davit-oci/davit/internal/fetch"
	"github.com/davit-oci/davit/registry/internal/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// MaxManifest is the size in bytes over which manifests, indexes and referrer lists are refused: the limit that the distribution spec
// asks of registries. It bounds what a registry can make us hold in memory.
const MaxManifest = fetch.MaxManifest

// Stats are bytes of blobs and manifests, counted where they move. Safe for concurrent use.
type Stats struct{ Sent, Fetched, Mounted atomic.Int64 }

const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// ManifestTypes are the media types that are more than a blob to a registry.
var ManifestTypes = []string{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex, dockerManifest, dockerManifestList}

// IsManifest reports whether content of the media type is stored as a manifest rather than as a blob.
func IsManifest(mediaType string) bool { return slices.Contains(ManifestTypes, mediaType) }

// IsIndex reports whether the media type is that of an index: a manifest that lists manifests.
func IsIndex(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageIndex || mediaType == dockerManifestList
}

// Check is for every descriptor that comes in: what passes has a digest that is safe in paths and URLs, and a size.
func Check(desc ocispec.Descriptor) error {
	if !reference.ValidDigest(desc.Digest) {
		return Invalidf("%.100q: not a sha256 digest", desc.Digest)
	}
	if desc.Size < 0 {
		return Invalidf("%s: negative size", desc.Digest)
	}
	return nil
}

// CheckManifest is Check for the descriptor of a manifest, whose type must be one of a manifest and whose size bounded.
func CheckManifest(desc ocispec.Descriptor) error {
	if err := Check(desc); err != nil {
		return err
	}
	if !IsManifest(desc.MediaType) {
		return Invalidf("%s: %.100q is not the type of a manifest", desc.Digest, desc.MediaType)
	}
	if desc.Size > MaxManifest {
		return Invalidf("%s: a manifest of %d bytes, over the limit of %d", desc.Digest, desc.Size, MaxManifest)
	}
	return nil
}

// ManifestType is the manifest's own word on what it is, else the header's. The digest covers only the former.
func ManifestType(content []byte, header string) string {
	var m struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Layers    []json.RawMessage `json:"layers"`
	}
	if json.Unmarshal(content, &m) == nil && m.MediaType != "" {
		return m.MediaType
	}
	if t, _, err := mime.ParseMediaType(header); err == nil && IsManifest(t) {
		return t
	}
	switch {
	case m.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case m.Layers != nil:
		return ocispec.MediaTypeImageManifest
	}
	return header
}

// A Referrer is what has to be known of a manifest: whose it is, and of what type. Only one with a Subject refers to another manifest.
type Referrer struct {
	MediaType    string              `json:"mediaType"`
	ArtifactType string              `json:"artifactType"`
	Config       *ocispec.Descriptor `json:"config"`
	Subject      *ocispec.Descriptor `json:"subject"`
	Annotations  map[string]string   `json:"annotations"`
}

// ParseReferrer parses any manifest.
func ParseReferrer(manifest []byte) (Referrer, error) {
	var m Referrer
	if err := json.Unmarshal(manifest, &m); err != nil {
		return Referrer{}, fmt.Errorf("parsing the manifest: %w", err)
	}
	return m, nil
}

// Describe completes desc as the distribution spec ("Listing Referrers") wants the entries of a list.
func (m Referrer) Describe(desc ocispec.Descriptor) ocispec.Descriptor {
	d := ocispec.Descriptor{
		MediaType:    desc.MediaType,
		Digest:       desc.Digest,
		Size:         desc.Size,
		ArtifactType: m.ArtifactType,
		Annotations:  m.Annotations,
	}
	if d.ArtifactType == "" && m.Config != nil && !IsIndex(desc.MediaType) {
		d.ArtifactType = m.Config.MediaType
	}
	return d
}
