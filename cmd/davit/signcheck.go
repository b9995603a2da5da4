package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/sign"
	"github.com/davit-oci/davit/store"
	"github.com/davit-oci/davit/verify"
)

// checkBeforeSigning reads an artifact of davit's, as far as nobody has who can
// be believed: this host, or one of the keys, in this repository. A signature of
// davit's says that what it is about can be pulled; see [vouched] and
// [checkedRecord].
func (o *signOptions) checkBeforeSigning(ctx context.Context, store *store.Store, repo *registry.Repository, s verify.Subject, keys []*sign.Key) (err error) {
	desc := s.Descriptor()
	if _, err := artifact.ParseManifest(s.Manifest(), desc); errors.Is(err, artifact.ErrNotArtifact) {
		return nil // an index, or what --any allows: nobody builds on it
	}
	trusted, _ := vouched(ctx, repo, desc, keys)
	if trusted && checksDigests(repo) {
		return nil
	}
	scratch, cleanup, err := store.Scratch()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanup()) }()
	img, err := artifact.Open(ctx, repo, s, o.openOptions(scratch))
	if err != nil {
		return fmt.Errorf("not signed: %w", err)
	}
	defer closeInto(&err, img)
	var total int64
	for _, l := range img.Layers {
		total += l.Size
	}
	checked := checkedRecord(store.Checked())
	show := o.begin("reading "+desc.Digest.String()+" before it is signed", total)
	defer show.end()
	if err := img.Check(ctx, artifact.CheckOptions{
		Jobs:     o.jobs,
		Progress: show.add,
		Known:    func(l artifact.LayerID) bool { return trusted || checked.has(repo, l) },
		Digests:  !checksDigests(repo),
		Uncut:    true,
	}); err != nil {
		return fmt.Errorf("not signed: %w", err)
	}
	return recordChecked(store, repo, img.Checked())
}
