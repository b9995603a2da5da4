package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/davit-oci/davit/registry"
	"github.com/spf13/cobra"
)

type lsOptions struct {
	*globals
	registryFlags
}

func newLs(g *globals) *cobra.Command {
	o := lsOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "ls REPO",
		Short: "List the tags of a repository",
		Args:  exactArgs("REPO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLs(cmd.Context(), cmd.OutOrStdout(), args[0], o)
		},
	}
	o.registryFlags.flags(cmd)
	return cmd
}

type lsReport struct {
	report
	Repository string  `json:"repository"`
	Tags       []lsTag `json:"tags"`
}

type lsTag struct {
	Tag string `json:"tag"`
}

func runLs(ctx context.Context, stdout io.Writer, name string, o lsOptions) (err error) {
	ref, err := parseRepo(name)
	if err != nil {
		return err
	}
	repo, err := o.open(ctx, o.globals, ref)
	if err != nil {
		return err
	}
	defer closeInto(&err, repo)
	tags, err := repo.Tags(ctx)
	if err != nil {
		return err
	}
	// An empty folder has no tags, a missing one is missing.
	if ref.Kind != registry.Remote && len(tags) == 0 {
		if _, err := os.Lstat(ref.Path); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", ref.Path, errNotFound)
		}
	}
	r := lsReport{report: newReport("davit ls"), Repository: ref.Name(), Tags: []lsTag{}}
	for _, tag := range tags {
		r.Tags = append(r.Tags, lsTag{tag})
	}
	if o.json {
		return writeJSON(stdout, r)
	}
	for _, t := range r.Tags {
		if _, err := fmt.Fprintln(stdout, t.Tag); err != nil {
			return err
		}
	}
	return nil
}
