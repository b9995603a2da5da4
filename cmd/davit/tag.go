package main

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/verify"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

type tagOptions struct {
	*globals
	registryFlags
}

func newTag(g *globals) *cobra.Command {
	o := tagOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "tag REF TAG...",
		Short: "Give an artifact more tags",
		Args:  minArgs("REF", "TAG"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runTag(cmd.Context(), cmd.OutOrStdout(), args[0], args[1:], o)
		},
	}
	o.registryFlags.flags(cmd)
	return cmd
}

func runTag(ctx context.Context, stdout io.Writer, name string, tags []string, o tagOptions) (err error) {
	ref, err := parseRef(name)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if !registry.ValidTag(tag) {
			return usagef("%q is no tag", tag)
		}
	}
	repo, err := o.open(ctx, o.globals, ref)
	if err != nil {
		return err
	}
	defer closeInto(&err, repo)
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if err := repo.Tag(ctx, desc, tag); err != nil {
			return err
		}
	}
	o.warnUnsigned(ctx, repo, desc, tags)
	pinned := ref.WithDigest(desc.Digest)
	if o.json {
		return writeJSON(stdout, struct {
			report
			Ref    string   `json:"ref"`
			Digest string   `json:"digest"`
			Tags   []string `json:"tags"`
		}{newReport("davit tag"), pinned.String(), desc.Digest.String(), tags})
	}
	_, err = fmt.Fprintln(stdout, pinned)
	return err
}

// warnUnsigned says which of the tags no signature names: with --bind they are
// refused. That the signatures cannot be read is no reason to fail.
func (o *tagOptions) warnUnsigned(ctx context.Context, repo *registry.Repository, desc ocispec.Descriptor, tags []string) {
	claims, _ := verify.Claims(ctx, repo, desc)
	if len(claims) == 0 {
		return
	}
	for _, tag := range tags {
		if !slices.ContainsFunc(claims, func(s verify.Signature) bool { return slices.Contains(s.Tags, tag) }) {
			o.stderr.warn("%s is signed, but no signature names the tag %s: davit sign --key KEY %s adds one that does",
				desc.Digest, tag, repo.Reference().WithTag(tag))
		}
	}
}
