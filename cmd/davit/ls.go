package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"text/tabwriter"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/verify"
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
	Signatures  *int          `json:"signatures"`  // not checked; null: they could not be listed

	foreign bool // not an artifact of davit's
}

// lsLists is how many lists of referrers are in memory at a time: whoever can
// push can make them long.
const lsLists = 4

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
	look := lister{globals: o.globals, repo: repo, lists: make(chan struct{}, lsLists)}
	for i, tag := range tags {
		r.Tags[i].Tag = tag
		if o.long {
			group.Go(func() (err error) {
				r.Tags[i].lsDetails, err = look.at(groupCtx, tag)
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
		if t.lsDetails == nil {
			row(t.Tag, "?", "?", "?", "?", "?")
			continue
		}
		virtual, stored, signatures := humanBytes(t.VirtualSize), humanBytes(t.StoredSize), "?"
		if t.foreign {
			virtual, stored = "-", "-"
		}
		if t.Signatures != nil {
			signatures = fmt.Sprint(*t.Signatures)
		}
		row(t.Tag, t.Digest.String(), cmp.Or(t.Created, "-"), virtual, stored, signatures)
	}
	return table.Flush()
}

// A lister looks at tags. One whose manifest or signatures are not what they
// should be costs itself, and is told.
type lister struct {
	*globals
	repo  *registry.Repository
	lists chan struct{} // lists of referrers that are in memory
}

// at reads the manifest of a tag, nil if it cannot be read, and lists its
// referrers.
func (l *lister) at(ctx context.Context, tag string) (*lsDetails, error) {
	desc, err := l.repo.Resolve(ctx, tag)
	var found *verify.Result
	if err == nil {
		found, err = verify.Unverified(ctx, l.repo, desc) // it is listed, and nothing else is done with it
	}
	if errors.Is(err, fs.ErrInvalid) || errors.Is(err, fs.ErrNotExist) {
		l.stderr.warn("%s: %v", tag, err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := &lsDetails{Digest: desc.Digest}
	signatures, err := l.signatures(ctx, desc)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		l.stderr.warn("%s: signatures not counted: %v", tag, err)
	} else {
		d.Signatures = &signatures
	}
	m, err := artifact.ParseManifest(found.Subject.Manifest(), desc)
	if err != nil { // something else, or broken: others are still worth listing
		d.foreign = true
		return d, nil //nolint:nilerr // see above
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

// signatures counts what lists call signatures. Only of an entry that does not
// say what it is, the manifests are read.
func (l *lister) signatures(ctx context.Context, desc ocispec.Descriptor) (n int, err error) {
	l.lists <- struct{}{}
	defer func() { <-l.lists }()
	referrers, err := l.repo.Referrers(ctx, desc)
	if err == nil && slices.ContainsFunc(referrers, func(d ocispec.Descriptor) bool { return d.ArtifactType == "" }) {
		referrers, err = l.repo.ReadReferrers(ctx, desc)
	}
	if err != nil {
		return 0, err
	}
	for _, r := range referrers {
		if claimsSignature(r) {
			n++
		}
	}
	return n, nil
}
