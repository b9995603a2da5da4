package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/sign"
	"github.com/davit-oci/davit/store"
	"github.com/davit-oci/davit/verify"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// lastTags is how many artifacts are looked at when the tag that moves is new.
const lastTags = 3

// maxBases bounds how many artifacts a push opens by itself: an OCI index can list any number.
const maxBases = 32

// A reuse is the artifacts whose layers a push may reference, and what is known
// of them. Everything but without has an entry for each base.
type reuse struct {
	bases   []*artifact.Base
	names   []string               // pinned
	named   []bool                 // by --reuse, so that a fault is an error
	from    []*registry.Repository // where it is: if it was not named, the one that is pushed to
	trusted []bool                 // signed by one of the keys, and checked before that

	checked  checkedRecord
	without  map[digest.Digest]bool // layers that turned out not to be there
	sequence int64                  // of the signature of the artifact whose tag moves
	warn     func(format string, args ...any)
}

// findReuse opens the artifacts that --reuse names, or those that a push looks
// at by itself: the one whose tag moves, else the last three of the repository.
func (o *pushOptions) findReuse(ctx context.Context, store *store.Store, repo *registry.Repository, plan pushPlan, keys []*sign.Key) (_ *reuse, err error) {
	r := &reuse{checked: store.Checked(), without: map[digest.Digest]bool{}, warn: o.stderr.warn}
	defer func() {
		if err != nil {
			closeInto(&err, r)
		}
	}()
	for _, name := range o.reuse {
		if name == "none" && len(o.reuse) > 1 {
			return nil, usagef("--reuse none stands alone")
		}
	}
	wanted := o.reuse
	if len(wanted) == 0 {
		wanted = []string{"auto"}
	}
	scratch, _, err := store.Scratch()
	if err != nil {
		return nil, err
	}
	open := o.openOptions(scratch)
	for _, name := range wanted {
		switch name {
		case "none":
		case "auto":
			err = r.addAuto(ctx, repo, plan, keys, open)
		default:
			err = r.addNamed(ctx, o, name, keys, open)
		}
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// addAuto adds what is there. That it cannot be used is no error, but a warning
// where it lies.
func (r *reuse) addAuto(ctx context.Context, repo *registry.Repository, plan pushPlan, keys []*sign.Key, open artifact.OpenOptions) error {
	var descs []ocispec.Descriptor
	for _, tag := range plan.tags {
		desc, err := repo.Resolve(ctx, tag)
		if errors.Is(err, registry.ErrNotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("looking up %s: %w", tag, err)
		}
		if !slices.ContainsFunc(descs, func(d ocispec.Descriptor) bool { return d.Digest == desc.Digest }) {
			descs = append(descs, desc)
		}
	}
	moving := len(descs)
	if moving == 0 {
		tags, err := repo.Tags(ctx)
		if err != nil {
			return ctx.Err() // a registry need not list tags
		}
		registry.SortTags(tags)
		for _, tag := range slices.Backward(tags) {
			desc, err := repo.Resolve(ctx, tag)
			if err == nil && !slices.ContainsFunc(descs, func(d ocispec.Descriptor) bool { return d.Digest == desc.Digest }) {
				descs = append(descs, desc)
			}
			if len(descs) == lastTags {
				break
			}
		}
	}
	descs, moving = expandIndexes(ctx, repo, descs, moving)
	if len(descs) > maxBases {
		r.warn("only the first %d of the %d artifacts that %s has under these tags are reused", maxBases, len(descs), repo.Reference().Name())
		descs, moving = descs[:maxBases], min(moving, maxBases)
	}
	for i, desc := range descs {
		name := repo.Reference().WithDigest(desc.Digest).String()
		base, err := openBase(ctx, repo, desc, open)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, artifact.ErrNotArtifact), errors.Is(err, artifact.ErrNewer):
			continue
		case len(refusals(err)) > 0 || errors.Is(err, registry.ErrNotFound) || errors.Is(err, artifact.ErrMemory):
			r.warn("%s is not reused: %v", name, err)
			continue
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		}
		trusted, sequence := vouched(ctx, repo, desc, keys)
		if i < moving {
			r.sequence = max(r.sequence, sequence)
		}
		r.add(base, name, repo, false, trusted)
	}
	return nil
}

// expandIndexes puts the children of OCI indexes in the place of these. Each
// artifact comes once.
func expandIndexes(ctx context.Context, repo *registry.Repository, descs []ocispec.Descriptor, moving int) (out []ocispec.Descriptor, outMoving int) {
	seen := map[digest.Digest]bool{}
	for i, desc := range descs {
		children := []ocispec.Descriptor{desc}
		if desc.MediaType == ocispec.MediaTypeImageIndex {
			children = nil
			if index, err := verify.Unverified(ctx, repo, desc); err == nil {
				children, _ = index.Subject.Children() // there is nothing to reuse in what is malformed
			}
		}
		for _, c := range children { // tags name artifacts that an index has, too
			if !seen[c.Digest] {
				seen[c.Digest] = true
				out = append(out, c)
			}
		}
		if i < moving {
			outMoving = len(out)
		}
	}
	return out, outMoving
}

// addNamed adds an artifact that --reuse names; it must be what it says.
func (r *reuse) addNamed(ctx context.Context, o *pushOptions, name string, keys []*sign.Key, open artifact.OpenOptions) error {
	ref, err := parseRef(name)
	if err != nil {
		return usagef("--reuse %s: neither REF nor auto nor none", name)
	}
	repo, err := o.open(ctx, o.globals, ref)
	if err != nil {
		return err
	}
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return errors.Join(fmt.Errorf("--reuse %s: %w", name, err), repo.Close())
	}
	base, err := openBase(ctx, repo, desc, open)
	if err != nil {
		return errors.Join(fmt.Errorf("--reuse %s: %w", name, err), repo.Close())
	}
	trusted, _ := vouched(ctx, repo, desc, keys)
	r.add(base, ref.WithDigest(desc.Digest).String(), repo, true, trusted)
	return nil
}

// openBase opens a base, which nobody need have signed: its directories are
// checked here, and the layers of it that are kept are read before the new
// artifact is signed.
func openBase(ctx context.Context, repo *registry.Repository, desc ocispec.Descriptor, open artifact.OpenOptions) (*artifact.Base, error) {
	found, err := verify.Unverified(ctx, repo, desc)
	if err != nil {
		return nil, err
	}
	return artifact.OpenBase(ctx, repo, found.Subject, open)
}

func (r *reuse) add(base *artifact.Base, name string, from *registry.Repository, named, trusted bool) {
	r.bases = append(r.bases, base)
	r.names = append(r.names, name)
	r.from = append(r.from, from)
	r.named = append(r.named, named)
	r.trusted = append(r.trusted, trusted)
}

// vouched reports whether one of the keys has signed an artifact that it had
// checked: a signature of davit's, which says so by its sequence. Those of other
// tools say who, and not that somebody has read the layers. Of a registry's it
// must say that it was made for this repository; see [checkedRecord]. It returns
// the sequence, 0 if there is none.
func vouched(ctx context.Context, repo *registry.Repository, desc ocispec.Descriptor, keys []*sign.Key) (bool, int64) {
	var public []*verify.Key
	for _, key := range keys {
		if k, err := publicKey(key); err == nil {
			public = append(public, k)
		}
	}
	if len(public) == 0 {
		return false, 0
	}
	result, err := verify.Artifact(ctx, repo, desc, verify.Policy{Keys: public, Bind: verify.BindAny})
	if err != nil {
		return false, 0
	}
	var sequence int64
	here := false
	for _, s := range result.Signatures {
		if s.Counted {
			sequence = max(sequence, s.Sequence)
			here = here || s.Sequence > 0 && (s.Name == repo.Reference().Name() || !checksDigests(repo))
		}
	}
	return here, sequence
}

// knows reports whether a layer of a base need not be read before it is signed.
// If the base is in a layout or an archive, its bytes are still hashed: when the
// manifest that names it is written there, or when it is copied.
func (r *reuse) knows(base int, layer artifact.LayerID) bool {
	return r.trusted[base] || r.checked.has(r.from[base], layer)
}

// blame names the base in an error that it is to blame for.
func (r *reuse) blame(err error) error {
	if fault, ok := errors.AsType[*artifact.BaseError](err); ok {
		return fmt.Errorf("reused %s: %w", r.names[fault.Base], err)
	}
	return err
}

// drop takes what err blames out of the reuse, and reports whether it is worth
// while to try again.
func (r *reuse) drop(ctx context.Context, p *pusher, out *pushed, err error) bool {
	if fault, ok := errors.AsType[*artifact.BaseError](err); ok {
		i := fault.Base
		if r.named[i] || len(refusals(err)) == 0 && !errors.Is(err, registry.ErrNotFound) || ctx.Err() != nil {
			return false
		}
		r.warn("not reused: %v", err)
		for _, l := range r.bases[i].Layers {
			r.without[l.Digest] = true
		}
		return true
	}
	if !errors.Is(err, registry.ErrManifestBlobUnknown) {
		return false
	}
	// The registry has collected layers, whatever it said when asked before.
	before := len(r.without)
	if unknown, ok := errors.AsType[*registry.BlobUnknownError](err); ok && len(unknown.Digests) > 0 {
		for _, d := range unknown.Digests {
			r.without[d] = true
		}
		if p.ref.Kind == registry.Remote {
			r.warn("the registry has lost blobs of %s; they are sent again", p.ref.Name())
		} else {
			r.warn("blobs of %s are gone, or something else is under their names; they are written again", p.ref.Name())
		}
		return len(r.without) > before
	}
	for _, l := range out.Layers[:out.Kept] {
		r.without[l.Digest] = true
	}
	if len(r.without) == before {
		return false
	}
	r.warn("the registry lacks layers of %s and does not say which: none of an older artifact is used", p.ref.Name())
	return true
}

// provide makes kept layers available in repo that are in other repositories:
// mounted where the registry can, else copied.
func (r *reuse) provide(ctx context.Context, repo *registry.Repository, packed *artifact.Packed) error {
	for i, from := range packed.From {
		if !r.named[from] {
			continue // it is in repo
		}
		src := r.from[from]
		desc := packed.Layers[i]
		a, b := src.Reference(), repo.Reference()
		if a.Kind == registry.Remote && b.Kind == registry.Remote && a.Host == b.Host {
			if a.Repository == b.Repository {
				continue
			}
			mounted, err := repo.Mount(ctx, desc, a.Repository)
			if err != nil {
				return fmt.Errorf("mounting layer %s: %w", desc.Digest, err)
			}
			if mounted {
				continue
			}
		}
		if err := repo.PushBlob(ctx, desc, func() (io.ReadCloser, error) { return src.Fetch(ctx, desc) }); err != nil {
			return fmt.Errorf("copying layer %s: %w", desc.Digest, err)
		}
	}
	return nil
}

// Close closes all bases.
func (r *reuse) Close() error {
	var errs []error
	for i, b := range r.bases {
		errs = append(errs, b.Close())
		if r.named[i] {
			errs = append(errs, r.from[i].Close())
		}
	}
	return errors.Join(errs...)
}
