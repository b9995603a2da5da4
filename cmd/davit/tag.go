package main

import (
	"context"
	"fmt"
	"io"

	"github.com/davit-oci/davit/registry"
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
