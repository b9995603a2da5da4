package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"text/tabwriter"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

type lsOptions struct {
	*globals
	registryFlags
	long bool
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
	cmd.Flags().BoolVarP(&o.long, "long", "l", false, "with digest, time, sizes, and signatures, which are not checked")
	return cmd
}

type lsReport struct {
	report
	Repository string  `json:"repository"`
	Tags       []lsTag `json:"tags"`
}

type lsTag struct {
	Tag string `json:"tag"`
	*lsDetails
}

// lsDetails is what --long adds.
type lsDetails struct {
	Digest      digest.Digest `json:"digest"`
	Created     string        `json:"created,omitempty"`
	VirtualSize int64         `json:"virtualSize"` // of all disks
	StoredSize  int64         `json:"storedSize"`  // of all blobs
	Signatures  int           `json:"signatures"`  // not checked

	foreign bool // not an artifact of davit's
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
	r := lsReport{report: newReport("davit ls"), Repository: ref.Name(), Tags: make([]lsTag, len(tags))}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(o.jobs)
	for i, tag := range tags {
		r.Tags[i].Tag = tag
		if o.long {
			group.Go(func() (err error) {
				r.Tags[i].lsDetails, err = lookAt(groupCtx, repo, tag)
				return err
			})
		}
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if o.json {
		return writeJSON(stdout, r)
	}
	if !o.long {
		out := lines{w: stdout}
		for _, t := range r.Tags {
			out.printf("%s", t.Tag)
		}
		return out.err
	}
	table := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0) // keeps its first error for Flush
	// printable turns the tabs into spaces, so they are added after it.
	row := func(columns ...string) {
		for i, c := range columns {
			if i > 0 {
				fmt.Fprint(table, "\t")
			}
			fmt.Fprint(table, printable(c))
		}
		fmt.Fprintln(table)
	}
	row("TAG", "DIGEST", "CREATED", "VIRTUAL", "STORED", "SIGNATURES")
	for _, t := range r.Tags {
		virtual, stored := humanBytes(t.VirtualSize), humanBytes(t.StoredSize)
		if t.foreign {
			virtual, stored = "-", "-"
		}
		row(t.Tag, t.Digest.String(), cmp.Or(t.Created, "-"), virtual, stored, fmt.Sprint(t.Signatures))
	}
	return table.Flush()
}

// lookAt reads manifest and referrers of a tag.
func lookAt(ctx context.Context, repo *registry.Repository, tag string) (*lsDetails, error) {
	desc, err := repo.Resolve(ctx, tag)
	if err != nil {
		return nil, err
	}
	raw, err := repo.Manifest(ctx, desc)
	if err != nil {
		return nil, err
	}
	referrers, err := repo.Referrers(ctx, desc)
	if err != nil {
		return nil, err
	}
	d := &lsDetails{Digest: desc.Digest}
	for _, r := range referrers {
		if claimsSignature(r) {
			d.Signatures++
		}
	}
	m, err := artifact.ParseManifest(raw, desc)
	if err != nil { // something else, or broken: others are still worth listing
		d.foreign = true
		return d, nil
	}
	d.Created = m.Annotations[ocispec.AnnotationCreated]
	d.StoredSize = m.OVF.Size
	for _, disk := range m.Disks {
		d.VirtualSize += disk.Size
		d.StoredSize += disk.Index.Size
	}
	for _, l := range m.Layers {
		d.StoredSize += l.Size
	}
	for _, f := range m.Files {
		d.StoredSize += f.Size
	}
	return d, nil
}
