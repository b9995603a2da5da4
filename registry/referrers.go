package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/davit-oci/davit/registry/internal/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Referrers are the places to look for manifests whose subject is the one given. They are what lists say: nothing of an entry has been
// fetched or checked, and the size, type and annotations of one are claims. No filter is applied; callers pick by what the manifest
// itself says. None is no error.
//
// Where a registry has the referrers API, its answer is all there is. Where it has none, davit's own tags and the index of the referrers
// tag schema are; the tags come first, since each took a push, and one push writes an index of thousands. What was listed before an
// error is returned with it, and is as good as without; an [ErrIncomplete] means that the rest will not come by asking again.
func (r *Repository) Referrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if err := oci.CheckManifest(subject); err != nil {
		return nil, err
	}
	list, err := r.backend.Referrers(ctx, subject)
	if err != nil {
		err = fmt.Errorf("listing referrers of %s: %w", subject.Digest, err)
	}
	return oci.UniqueReferrers(list), err
}

// ReadReferrers are the manifests whose subject is the one given, sorted by digest. Each has been fetched and verified; MediaType,
// ArtifactType and Annotations are the manifest's own, whatever a list said of it. With an [ErrIncomplete] comes what could be read.
func (r *Repository) ReadReferrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	list, listing := r.Referrers(ctx, subject)
	if listing != nil && !errors.Is(listing, ErrIncomplete) {
		return nil, listing
	}
	found, reading := oci.ReadReferrers(ctx, subject, list, r.backend.Manifest)
	if reading != nil && !errors.Is(reading, ErrIncomplete) {
		return nil, fmt.Errorf("reading referrers of %s: %w", subject.Digest, reading)
	}
	return found, cmp.Or(listing, reading)
}
