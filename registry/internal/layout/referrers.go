package layout

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/davit-oci/davit/registry/internal/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Referrers reads the manifests that index.json lists, and those that a listed index has in it: other tools copy the referrers tag
// schema into layouts as an index. A layout holds all there is, not the referrers of one subject, so that each has to be read; those
// that cannot be read could be referrers and are listed as such.
func (l *Layout) Referrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	index, err := l.files.index()
	if err != nil {
		return nil, err
	}
	list := slices.Clone(index.Manifests)
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] != oci.ReferrersTag(subject.Digest) || !oci.IsIndex(d.MediaType) || oci.CheckManifest(d) != nil {
			continue
		}
		content, err := l.Manifest(ctx, d)
		if errors.Is(err, oci.ErrNotFound) || oci.IsInvalid(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		inner := oci.ReferrerList{Left: oci.MaxManifest}
		if _, err := inner.Add(content); err != nil {
			continue
		}
		list = append(list, inner.Entries...)
	}
	list = slices.DeleteFunc(list, func(d ocispec.Descriptor) bool {
		return oci.CheckManifest(d) != nil || d.Digest == subject.Digest
	})
	list = oci.UniqueReferrers(list)
	slices.SortStableFunc(list, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Size, b.Size) })

	start := time.Now()
	found := make([]*ocispec.Descriptor, len(list))
	left := 0
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readJobs)
	for i, desc := range list {
		if time.Since(start) > oci.MaxReferrerTime {
			left = len(list) - i
			break
		}
		g.Go(func() error {
			d, err := oci.ReadReferrer(gctx, l.Manifest, subject, desc)
			if oci.IsInvalid(err) {
				found[i] = &desc
				return nil
			}
			found[i] = d
			return err
		})
	}
	err = g.Wait()
	if err == nil && left > 0 {
		err = oci.Incompletef("%d manifests of the layout were not looked at within %v", left, oci.MaxReferrerTime)
	}
	var refer []ocispec.Descriptor
	for _, d := range found {
		if d != nil {
			refer = append(refer, *d)
		}
	}
	return refer, err
}

// readJobs is how many manifests of a layout are read at a time.
const readJobs = 4
