package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/sign"
	"github.com/davit-oci/davit/verify"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

type signOptions struct {
	*globals
	registryFlags
	signerFlags
	annotations annotations
	any         bool
}

func newSign(g *globals) *cobra.Command {
	o := signOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "sign REF...",
		Short: "Sign artifacts that are in a registry",
		Long: `Sign artifacts that are in a registry, by the digest that REF has now.

The signature is a Sigstore bundle beside the artifact, as cosign writes it. What
neither this host nor the key has checked before is read first: what is signed
can be pulled.
An artifact that the key has signed already stays as it is. With an index each
artifact in it is signed, too. What is no artifact of davit's is signed with
--any only.`,
		Args: minArgs("REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSign(cmd.Context(), cmd.OutOrStdout(), args, o)
		},
	}
	o.registryFlags.flags(cmd)
	o.signerFlags.flags(cmd)
	cmd.Flags().VarP(&o.annotations, "annotation", "a", "`K=V` to sign as well")
	cmd.Flags().BoolVar(&o.any, "any", false, "sign what is no artifact of davit's, too")
	return cmd
}

type signReport struct {
	report
	Signed []signedArtifact `json:"signed"`
}

type signedArtifact struct {
	Ref        string          `json:"ref"`
	Digest     digest.Digest   `json:"digest"`
	Signatures []digest.Digest `json:"signatures"`

	made []string // what has a signature now that it had not before
}

func runSign(ctx context.Context, stdout io.Writer, names []string, o signOptions) (err error) {
	var refs []registry.Reference
	for _, name := range names {
		ref, err := parseRef(name)
		if err != nil {
			return err
		}
		refs = append(refs, ref)
	}
	keys, err := o.signerFlags.load(ctx, o.globals)
	if err != nil {
		return err
	}
	store, err := o.store(ctx)
	if err != nil {
		return err
	}
	defer closeInto(&err, store)
	r := signReport{report: newReport("davit sign")}
	for _, ref := range refs {
		signed, err := signOne(ctx, store, ref, keys, o)
		if err != nil {
			// Nobody takes these signatures back.
			for _, s := range append(r.Signed, signed) {
				for _, name := range s.made {
					o.stderr.warn("%s is signed: what failed came after it", name)
				}
			}
			return fmt.Errorf("%s: %w", ref, err)
		}
		r.Signed = append(r.Signed, signed)
	}
	if o.json {
		return writeJSON(stdout, r)
	}
	for _, s := range r.Signed {
		if _, err := fmt.Fprintln(stdout, s.Ref); err != nil {
			return err
		}
	}
	return nil
}

// signOne signs what ref names. With an error it returns what was made before it.
func signOne(ctx context.Context, store *registry.Store, ref registry.Reference, keys []*sign.Key, o signOptions) (_ signedArtifact, err error) {
	repo, err := o.open(ctx, o.globals, ref)
	if err != nil {
		return signedArtifact{}, err
	}
	defer closeInto(&err, repo)
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return signedArtifact{}, err
	}
	if !o.any {
		err := checkDavits(ctx, repo, desc)
		if errors.Is(err, artifact.ErrNotArtifact) {
			return signedArtifact{}, withHint(refusedError{"not-an-artifact", err}, "davit sign --any")
		}
		if err != nil {
			return signedArtifact{}, err
		}
	}
	var tags []string
	if tag := ref.TagOrLatest(); tag != "" {
		tags = []string{tag}
	}
	// Who signs an index signs what is in it; the index itself last, when the
	// rest has been signed.
	targets, err := manifestsOf(ctx, repo, desc)
	if err != nil {
		return signedArtifact{}, err
	}
	s := signedArtifact{Ref: ref.WithDigest(desc.Digest).String(), Digest: desc.Digest}
	for _, target := range append(targets, desc) {
		subject, err := newSubject(ref, target, tags, 0)
		if err != nil {
			return s, err
		}
		maps.Copy(subject.Annotations, o.annotations)
		checked := false
		for _, key := range keys {
			bundles, err := signedBy(ctx, repo, target, key, subject.Name, tags)
			if err != nil {
				return s, err
			}
			if len(bundles) > 0 && len(o.annotations) == 0 {
				o.say("%s is signed by this key already", ref.WithDigest(target.Digest))
				s.Signatures = append(s.Signatures, bundles...)
				continue
			}
			if !checked {
				if err := o.checkBeforeSigning(ctx, store, repo, target, keys); err != nil {
					return s, err
				}
				checked = true
			}
			if bundles, err = attachSignatures(ctx, repo, target, []*sign.Key{key}, subject); err != nil {
				return s, err
			}
			s.Signatures = append(s.Signatures, bundles...)
			if name := ref.WithDigest(target.Digest).String(); !slices.Contains(s.made, name) {
				s.made = append(s.made, name)
			}
		}
	}
	return s, nil
}

// checkDavits refuses a manifest that is no artifact of davit's, and an index
// that has anything else in it: a tag can have been moved to what the signer
// has never seen.
func checkDavits(ctx context.Context, repo *registry.Repository, desc ocispec.Descriptor) error {
	raw, err := repo.Manifest(ctx, desc)
	if err != nil {
		return err
	}
	if desc.MediaType != ocispec.MediaTypeImageIndex {
		_, err := artifact.ParseManifest(raw, desc)
		if errors.Is(err, artifact.ErrNewer) {
			return nil
		}
		return err
	}
	index, err := parseIndex(raw)
	if err != nil {
		return err
	}
	if len(index.Manifests) == 0 {
		return fmt.Errorf("index %s of nothing: %w", desc.Digest, artifact.ErrNotArtifact)
	}
	for _, m := range manifestsIn(index) {
		if !registry.IsManifest(m.MediaType) || m.MediaType == ocispec.MediaTypeImageIndex {
			return fmt.Errorf("index %s: %s of type %q: %w", desc.Digest, m.Digest, m.MediaType, artifact.ErrNotArtifact)
		}
		if err := checkDavits(ctx, repo, m); err != nil {
			return fmt.Errorf("index %s: %w", desc.Digest, err)
		}
	}
	return nil
}

// manifestsOf returns the manifests in an index, none for anything else.
func manifestsOf(ctx context.Context, repo *registry.Repository, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if desc.MediaType != ocispec.MediaTypeImageIndex {
		return nil, nil
	}
	raw, err := repo.Manifest(ctx, desc)
	if err != nil {
		return nil, err
	}
	index, err := parseIndex(raw)
	if err != nil {
		return nil, err
	}
	var found []ocispec.Descriptor
	for _, m := range manifestsIn(index) {
		if !registry.IsManifest(m.MediaType) {
			continue
		}
		// It is there, and is what the index says, as a pull wants it: or nobody signs it.
		if _, err := repo.Manifest(ctx, m); err != nil {
			return nil, fmt.Errorf("not signed: in the index: %w", err)
		}
		found = append(found, m)
	}
	return found, nil
}

// newSubject is what a signature of desc, published as ref with tags, is about.
// previous is the sequence of the artifact whose tag moves, 0 if none does.
func newSubject(ref registry.Reference, desc ocispec.Descriptor, tags []string, previous int64) (sign.Subject, error) {
	annotations, err := sign.Annotations(tags, sign.NextSequence(time.Now(), previous))
	if err != nil {
		return sign.Subject{}, err
	}
	s := sign.Subject{Digest: desc.Digest, Annotations: annotations}
	if ref.Kind == registry.Remote { // a folder can be moved, its name says nothing
		s.Name = ref.Name()
	}
	return s, nil
}

// signedBy returns the signatures of desc by key that say what a new one would.
// Signing again each night must not heap up signatures.
func signedBy(ctx context.Context, repo *registry.Repository, desc ocispec.Descriptor, key *sign.Key, name string, tags []string) ([]digest.Digest, error) {
	public, err := publicKey(key)
	if err != nil {
		return nil, err
	}
	result, err := verify.Artifact(ctx, repo, desc, verify.Policy{Keys: []*verify.Key{public}, Bind: verify.BindAny})
	var untrusted *verify.UntrustedError
	if asError(err, &untrusted) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, s := range result.Signatures {
		covers := !slices.ContainsFunc(tags, func(tag string) bool { return !slices.Contains(s.Tags, tag) })
		if s.Counted && s.Name == name && covers {
			return []digest.Digest{s.Digest}, nil
		}
	}
	return nil, nil
}

// annotations is the flag -a K=V.
type annotations map[string]string

func (a *annotations) Set(s string) error {
	k, v, ok := strings.Cut(s, "=")
	if !ok || k == "" {
		return fmt.Errorf("%q is not K=V", s)
	}
	if strings.HasPrefix(k, "vnd.davit.") {
		return fmt.Errorf("%q: vnd.davit. is davit's own", k)
	}
	if _, twice := (*a)[k]; twice {
		return fmt.Errorf("%q: given twice", k)
	}
	if *a == nil {
		*a = make(annotations)
	}
	(*a)[k] = v
	return nil
}

func (a *annotations) Type() string { return "K=V" }

func (a *annotations) String() string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(*a)) {
		all = append(all, k+"="+(*a)[k])
	}
	return strings.Join(all, " ")
}
