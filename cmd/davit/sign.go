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
	"github.com/davit-oci/davit/store"
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
func signOne(ctx context.Context, store *store.Store, ref registry.Reference, keys []*sign.Key, o signOptions) (_ signedArtifact, err error) {
	repo, err := o.open(ctx, o.globals, ref)
	if err != nil {
		return signedArtifact{}, err
	}
	defer closeInto(&err, repo)
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return signedArtifact{}, err
	}
	found, err := verify.Unverified(ctx, repo, desc) // it is read before it is signed: by checkBeforeSigning, or by the signer with --any
	if err != nil {
		return signedArtifact{}, err
	}
	targets, err := o.targets(ctx, repo, found.Subject)
	if errors.Is(err, artifact.ErrNotArtifact) {
		return signedArtifact{}, withHint(refusedError{"not-an-artifact", err}, "davit sign --any")
	}
	if err != nil {
		return signedArtifact{}, err
	}
	var tags []string
	if tag := ref.TagOrLatest(); tag != "" {
		tags = []string{tag}
	}
	s := signedArtifact{Ref: ref.WithDigest(desc.Digest).String(), Digest: desc.Digest}
	for _, desc := range targets {
		target := found.Subject
		if desc.Digest != target.Descriptor().Digest {
			if target, err = found.Subject.Child(ctx, repo, desc); err != nil {
				return s, err
			}
		}
		subject, err := newSubject(ref, desc, tags, 0)
		if err != nil {
			return s, err
		}
		maps.Copy(subject.Annotations, o.annotations)
		checked := false
		for _, key := range keys {
			bundles, err := signedBy(ctx, repo, desc, key, subject.Name, tags)
			if err != nil {
				return s, err
			}
			if len(bundles) > 0 && len(o.annotations) == 0 {
				o.say("%s is signed by this key already", ref.WithDigest(desc.Digest))
				s.Signatures = append(s.Signatures, bundles...)
				continue
			}
			if !checked {
				if err := o.checkBeforeSigning(ctx, store, repo, target, keys); err != nil {
					return s, err
				}
				checked = true
			}
			if bundles, err = attachSignatures(ctx, repo, desc, []*sign.Key{key}, subject); err != nil {
				return s, err
			}
			s.Signatures = append(s.Signatures, bundles...)
			if name := ref.WithDigest(desc.Digest).String(); !slices.Contains(s.made, name) {
				s.made = append(s.made, name)
			}
		}
	}
	return s, nil
}

// targets returns what a signer of s signs: what an index lists, and s itself
// last, when the rest has been signed. Each is there, and is what the index
// says, as a pull wants it. Without --any, each is an artifact of davit's: a
// tag can have been moved to what the signer has never seen. Their manifests
// are not kept: there can be thousands.
func (o *signOptions) targets(ctx context.Context, repo *registry.Repository, s verify.Subject) (all []ocispec.Descriptor, err error) {
	if !s.IsIndex() {
		if !o.any {
			err = checkDavits(s)
		}
		return []ocispec.Descriptor{s.Descriptor()}, err
	}
	children, err := s.Children()
	if err != nil {
		return nil, err
	}
	index := s.Descriptor().Digest
	if len(children) == 0 && !o.any {
		return nil, fmt.Errorf("index %s of nothing: %w", index, artifact.ErrNotArtifact)
	}
	for _, m := range children {
		if !o.any && (!registry.IsManifest(m.MediaType) || m.MediaType == ocispec.MediaTypeImageIndex) {
			return nil, fmt.Errorf("index %s: %s of type %q: %w", index, m.Digest, m.MediaType, artifact.ErrNotArtifact)
		}
		if !registry.IsManifest(m.MediaType) {
			continue
		}
		child, err := s.Child(ctx, repo, m)
		if err != nil {
			return nil, fmt.Errorf("not signed: %w", err)
		}
		if !o.any {
			if err := checkDavits(child); err != nil {
				return nil, fmt.Errorf("index %s: %w", index, err)
			}
		}
		all = append(all, m)
	}
	return append(all, s.Descriptor()), nil
}

// checkDavits refuses a manifest that is no artifact of davit's. One that needs
// a newer davit is one.
func checkDavits(s verify.Subject) error {
	_, err := artifact.ParseManifest(s.Manifest(), s.Descriptor())
	if errors.Is(err, artifact.ErrNewer) {
		return nil
	}
	return err
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
