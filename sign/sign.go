// Package sign turns a manifest digest into a Sigstore signature: keys, bundles, and the OCI referrer that carries a bundle.
//
// Call [LoadKey] (or [GenerateKey] once), then [Bundle] for the digest that was pushed, then [Referrer] for the manifest and
// blobs to push beside it. What it writes is what cosign 3 writes and accepts; package verify reads it.
//
// Nothing here talks to a network: the caller pushes the blobs, then the referrer manifest, then moves the tag.
package sign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"
	"unicode/utf8"

	"github.com/davit-oci/davit/internal/bundle"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

// A Subject is what a signature is about.
type Subject struct {
	// Digest is the digest of the manifest.
	Digest digest.Digest

	// Name is HOST/REPO, where it is published. Empty for an OCI layout, and then the statement has no name.
	Name string

	// Annotations are signed with the digest. [Annotations] makes the ones that davit itself reads.
	Annotations map[string]string
}

// Annotations returns the claims that bind a signature to a push: all its tags, and a sequence from [NextSequence].
// A push without a tag has no tags annotation.
func Annotations(tags []string, sequence int64) (map[string]string, error) {
	m := make(map[string]string)
	if len(tags) > 0 {
		list, err := bundle.FormatTags(tags)
		if err != nil {
			return nil, err
		}
		m[bundle.AnnotationTags] = list
	}
	n, err := bundle.FormatSequence(sequence)
	if err != nil {
		return nil, err
	}
	m[bundle.AnnotationSequence] = n
	return m, nil
}

// NextSequence returns the sequence of a signature made now, where previous is that of the artifact whose tag moves, or 0:
// Unix seconds, but always more than previous, so that a clock that went back does not make a new push look old. There is nothing after the greatest integer: it stays.
func NextSequence(now time.Time, previous int64) int64 {
	if previous == math.MaxInt64 {
		return previous
	}
	return max(now.Unix(), previous+1)
}

// The JSON of a bundle and its statement, in the order of cosign's. Structs and not the generated protobuf types: protojson
// changes its white space from build to build on purpose, and these bytes are hashed.
type (
	bundleJSON struct {
		MediaType            string       `json:"mediaType"`
		VerificationMaterial materialJSON `json:"verificationMaterial"`
		Envelope             envelopeJSON `json:"dsseEnvelope"`
	}
	materialJSON struct {
		PublicKey publicKeyJSON `json:"publicKey"`
	}
	publicKeyJSON struct {
		Hint string `json:"hint"`
	}
	envelopeJSON struct {
		Payload     []byte          `json:"payload"`
		PayloadType string          `json:"payloadType"`
		Signatures  []signatureJSON `json:"signatures"`
	}
	signatureJSON struct {
		Sig []byte `json:"sig"`
	}

	statementJSON struct {
		Type          string        `json:"_type"`
		Subject       []subjectJSON `json:"subject"`
		PredicateType string        `json:"predicateType"`
		Predicate     struct{}      `json:"predicate"`
	}
	subjectJSON struct {
		Name        string            `json:"name,omitempty"`
		Digest      map[string]string `json:"digest"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
)

// Bundle signs s with key and returns a Sigstore bundle v0.3.
func Bundle(ctx context.Context, key *Key, s Subject) ([]byte, error) {
	if key == nil || key.signer == nil {
		return nil, errors.New("signing without a key")
	}
	if err := s.Digest.Validate(); err != nil {
		return nil, fmt.Errorf("signing %q: %w", s.Digest, err)
	}
	if err := checkClaims(s); err != nil {
		return nil, fmt.Errorf("signing %s: %w", s.Digest, err)
	}
	payload, err := json.Marshal(statementJSON{
		Type: bundle.StatementType,
		Subject: []subjectJSON{{
			Name:        s.Name,
			Digest:      map[string]string{s.Digest.Algorithm().String(): s.Digest.Encoded()},
			Annotations: s.Annotations,
		}},
		PredicateType: bundle.PredicateType,
	})
	if err != nil {
		return nil, fmt.Errorf("encoding statement: %w", err)
	}
	signed := dsse.PAE(bundle.PayloadType, payload)
	sig, err := key.signer.SignMessage(bytes.NewReader(signed), options.WithContext(ctx))
	if err != nil {
		return nil, fmt.Errorf("signing %s: %w", s.Digest, err)
	}
	return json.Marshal(bundleJSON{
		MediaType:            bundle.MediaType,
		VerificationMaterial: materialJSON{publicKeyJSON{key.hint}},
		Envelope: envelopeJSON{
			Payload:     payload,
			PayloadType: bundle.PayloadType,
			Signatures:  []signatureJSON{{sig}},
		},
	})
}

// checkClaims refuses what package verify would refuse: nobody signs what nobody accepts.
func checkClaims(s Subject) error {
	if err := bundle.CheckName(s.Name); err != nil {
		return err
	}
	for name, value := range s.Annotations {
		// JSON would change these to something else than what was asked for.
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return fmt.Errorf("annotation %q is not UTF-8", name)
		}
	}
	if tags, ok := s.Annotations[bundle.AnnotationTags]; ok {
		if _, err := bundle.ParseTags(tags); err != nil {
			return err
		}
	}
	if sequence, ok := s.Annotations[bundle.AnnotationSequence]; ok {
		if _, err := bundle.ParseSequence(sequence); err != nil {
			return err
		}
	}
	return nil
}

// A Blob is bytes and the descriptor that names them.
type Blob struct {
	Descriptor ocispec.Descriptor
	Data       []byte
}

// referrerJSON is an OCI image manifest in the order of cosign's, so that equal inputs make equal digests with either tool.
type referrerJSON struct {
	specs.Versioned
	MediaType    string            `json:"mediaType"`
	Config       descriptorJSON    `json:"config"`
	Layers       []descriptorJSON  `json:"layers"`
	Annotations  map[string]string `json:"annotations"`
	Subject      descriptorJSON    `json:"subject"`
	ArtifactType string            `json:"artifactType"`
}

type descriptorJSON struct {
	MediaType    string        `json:"mediaType"`
	Size         int64         `json:"size"`
	Digest       digest.Digest `json:"digest"`
	ArtifactType string        `json:"artifactType,omitempty"`
}

// Referrer returns the manifest that attaches a bundle to subject, and the blobs that manifest needs, which are pushed first.
// It depends on its arguments only; created is what the manifest says about its age, to the second.
//
// It is for bundles that [Bundle] made: the annotations say that the bundle is a signature.
func Referrer(subject ocispec.Descriptor, bundleJSON []byte, created time.Time) (manifest Blob, blobs []Blob, err error) {
	config := newBlob(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	layer := newBlob(bundle.MediaType, bundleJSON)
	annotations := map[string]string{
		bundle.AnnotationContent:       bundle.ContentDSSE,
		bundle.AnnotationPredicateType: bundle.PredicateType,
		ocispec.AnnotationCreated:      created.UTC().Format(time.RFC3339),
	}
	data, err := json.Marshal(referrerJSON{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		// cosign puts the artifactType here as well; registries that do not know the manifest's own list referrers by it.
		Config:       descriptorJSON{config.Descriptor.MediaType, config.Descriptor.Size, config.Descriptor.Digest, bundle.MediaType},
		Layers:       []descriptorJSON{{layer.Descriptor.MediaType, layer.Descriptor.Size, layer.Descriptor.Digest, ""}},
		Annotations:  annotations,
		Subject:      descriptorJSON{subject.MediaType, subject.Size, subject.Digest, ""},
		ArtifactType: bundle.MediaType,
	})
	if err != nil {
		return Blob{}, nil, fmt.Errorf("encoding referrer of %s: %w", subject.Digest, err)
	}
	manifest = newBlob(ocispec.MediaTypeImageManifest, data)
	manifest.Descriptor.ArtifactType = bundle.MediaType
	manifest.Descriptor.Annotations = annotations
	return manifest, []Blob{config, layer}, nil
}

func newBlob(mediaType string, data []byte) Blob {
	return Blob{
		Descriptor: ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))},
		Data:       data,
	}
}
