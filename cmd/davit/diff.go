package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/guest"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/verify"
	"github.com/spf13/cobra"
)

type diffOptions struct {
	*globals
	registryFlags
	source   sourceFlags
	exitCode bool
}

func newDiff(g *globals) *cobra.Command {
	o := diffOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Say where two disks differ",
		Long: `Say where two disks differ, chunk by chunk. A and B are REFs or disk images.

Of an artifact only the lists of its chunks are fetched, and of a disk that
differs the partition table. No signature is checked.`,
		Args: exactArgs("A", "B"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runDiff(cmd.Context(), cmd.OutOrStdout(), args[0], args[1], o)
		},
	}
	o.registryFlags.flags(cmd)
	o.source.flags(cmd)
	cmd.Flags().BoolVar(&o.exitCode, "exit-code", false, "exit 5 if they differ")
	return cmd
}

type diffReport struct {
	report
	Equal  bool       `json:"equal"`
	Chunks diffCount  `json:"chunks"`
	Bytes  diffCount  `json:"bytes"` // plain
	Areas  []diffArea `json:"areas"`
}

type diffCount struct {
	Same    int64 `json:"same"`
	Changed int64 `json:"changed"`
}

type diffArea struct {
	Disk       string `json:"disk"`
	Partition  int    `json:"partition"` // 0: outside of all
	Filesystem string `json:"filesystem"`
	Offset     int64  `json:"offset"` // in the disk
	Length     int64  `json:"length"`
}

func runDiff(ctx context.Context, stdout io.Writer, nameA, nameB string, o diffOptions) (err error) {
	if nameA == "-" && nameB == "-" {
		return usagef(`"-" is named twice`)
	}
	for _, name := range []string{nameA, nameB} {
		if !isFile(parseSource(name).path) {
			if _, err := parseRef(name); err != nil {
				return err
			}
		}
	}
	a, err := o.openSide(ctx, nameA)
	if err != nil {
		return err
	}
	defer closeInto(&err, a)
	b, err := o.openSide(ctx, nameB)
	if err != nil {
		return err
	}
	defer closeInto(&err, b)

	r := diffReport{report: newReport("davit diff"), Equal: true, Areas: []diffArea{}}
	for _, p := range pairDisks(a.disks, b.disks) {
		if err := o.diffDisk(ctx, &r, p); err != nil {
			return err
		}
	}
	if o.json {
		err = writeJSON(stdout, r)
	} else {
		err = r.print(stdout)
	}
	if err == nil && o.exitCode && !r.Equal {
		return errDiffers
	}
	return err
}

// A diffSide is A or B: its disks, and what has to be closed.
type diffSide struct {
	disks  []diffDisk
	opened []io.Closer
}

func (s *diffSide) Close() error {
	var errs []error
	for i := len(s.opened) - 1; i >= 0; i-- {
		errs = append(errs, s.opened[i].Close())
	}
	return errors.Join(errs...)
}

// A diffDisk is a disk that has been cut, or will be.
type diffDisk struct {
	name    string
	profile chunker.Profile // 0: any
	reader  disk.Reader
	stored  *artifact.Disk // nil for a file
}

func (o *diffOptions) openSide(ctx context.Context, name string) (s *diffSide, err error) {
	s = &diffSide{}
	defer func() {
		if err != nil {
			closeInto(&err, s)
		}
	}()
	if src := parseSource(name); isFile(src.path) {
		store := &lazyStore{ctx: ctx, g: o.globals}
		s.opened = append(s.opened, store)
		m, err := o.source.openMachines(ctx, src.path, o.source.options(o.globals, store.Scratch))
		if err != nil {
			return s, err
		}
		if m != nil {
			return s, openMachines(ctx, s, m)
		}
		img, err := o.source.open(ctx, o.globals, src, store.Scratch)
		if err != nil {
			return s, err
		}
		s.opened = append(s.opened, img)
		s.disks = []diffDisk{{name: cmp.Or(src.name, "disk0"), reader: img}}
		return s, nil
	}
	ref, err := parseRef(name)
	if err != nil {
		return s, err
	}
	img, err := o.openArtifact(ctx, s, ref)
	if err != nil {
		return s, err
	}
	for _, d := range img.Disks {
		s.disks = append(s.disks, diffDisk{d.Name, d.Index.Profile, d.Reader(ctx), d})
	}
	return s, nil
}

// openMachines opens the disks of all machines of a SOURCE.
func openMachines(ctx context.Context, s *diffSide, from *source.Machines) error {
	s.opened = append(s.opened, from)
	images, err := from.OpenDisks(ctx)
	for _, img := range images {
		s.opened = append(s.opened, img)
		s.disks = append(s.disks, diffDisk{name: img.Name, reader: img})
	}
	return err
}

func (o *diffOptions) openArtifact(ctx context.Context, s *diffSide, ref registry.Reference) (*artifact.Image, error) {
	store, err := o.store(ctx)
	if err != nil {
		return nil, err
	}
	s.opened = append(s.opened, store)
	scratch, _, err := store.Scratch()
	if err != nil {
		return nil, err
	}
	repo, err := o.open(ctx, o.globals, ref)
	if err != nil {
		return nil, err
	}
	s.opened = append(s.opened, repo)
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return nil, err
	}
	found, err := verify.Unverified(ctx, repo, desc) // what differs is shown, and nothing else is done with it
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	img, err := artifact.Open(ctx, repo, found.Subject, o.openOptions(scratch))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	s.opened = append(s.opened, img)
	return img, nil
}

// pairDisks puts disks of one name together, and two that are alone whatever
// their names.
func pairDisks(a, b []diffDisk) [][2]diffDisk {
	if len(a) == 1 && len(b) == 1 {
		return [][2]diffDisk{{a[0], b[0]}}
	}
	var pairs [][2]diffDisk
	paired := make(map[string]bool)
	for _, x := range a {
		pair := [2]diffDisk{x}
		for _, y := range b {
			if y.name == x.name {
				pair[1], paired[y.name] = y, true
			}
		}
		pairs = append(pairs, pair)
	}
	for _, y := range b {
		if !paired[y.name] {
			pairs = append(pairs, [2]diffDisk{{}, y})
		}
	}
	return pairs
}

// diffDisk compares two disks, one of which may be missing.
func (o *diffOptions) diffDisk(ctx context.Context, r *diffReport, pair [2]diffDisk) error {
	profile := chunker.Profile1
	for _, d := range pair {
		if d.profile != 0 {
			profile = d.profile
		}
	}
	var sides [2]chunks
	var total, size int64
	name := ""
	for i, d := range pair {
		if d.reader == nil {
			continue
		}
		name, size = d.name, max(size, d.reader.Size())
		if d.stored == nil {
			total += dataSize(d.reader)
		} else if d.profile != profile {
			return fmt.Errorf("disk %s is cut by profile %s on one side and by %s on the other", d.name, d.profile, profile)
		}
		if d.stored == nil && !profile.Known() {
			return checkProfile(pair[1-i].stored)
		}
	}
	show := o.begin("comparing "+name, total)
	defer show.end()
	for i, d := range pair {
		switch {
		case d.reader == nil:
			sides[i] = noChunks
		case d.stored != nil:
			sides[i] = d.stored.Chunks(ctx)
		default:
			scan := artifact.ScanOptions{Profile: profile, Memory: int64(o.maxMemory) / 4, Progress: show.add}
			sides[i] = new(scannedDisk).scanChunks(ctx, d.reader, scan)
		}
	}
	c, err := compareChunks(sides[0], sides[1])
	if err != nil {
		return err
	}
	show.end()

	sameSize := pair[0].reader != nil && pair[1].reader != nil && pair[0].reader.Size() == pair[1].reader.Size()
	r.Equal = r.Equal && sameSize && len(c.areas) == 0
	r.Chunks.Same += int64(c.same)
	r.Chunks.Changed += int64(c.changed)
	r.Bytes.Same += c.sameBytes
	r.Bytes.Changed += c.changedBytes
	if len(c.areas) == 0 {
		return nil
	}
	// Where it is now, or was, if it is gone.
	var table []guest.Partition
	for _, d := range []diffDisk{pair[1], pair[0]} {
		if d.reader != nil && len(table) == 0 {
			table = guest.Partitions(d.reader)
		}
	}
	r.Areas = append(r.Areas, locate(name, c.areas, table, size)...)
	return nil
}

// locate says in which partitions areas lie. An area in several becomes several.
func locate(name string, areas []disk.Extent, table []guest.Partition, size int64) []diffArea {
	var located []diffArea
	for _, area := range areas {
		for off, end := area.Offset, min(area.End(), size); off < end; {
			a := diffArea{Disk: name, Offset: off}
			stop := end
			for _, p := range table {
				switch {
				case p.Start <= off && off < p.End:
					a.Partition, a.Filesystem = p.Number, p.Filesystem
					stop = min(stop, p.End)
				case p.Start > off:
					stop = min(stop, p.Start)
				}
			}
			a.Length = stop - off
			located = append(located, a)
			off = stop
		}
	}
	return located
}

func (r *diffReport) print(w io.Writer) error {
	if r.Equal {
		_, err := fmt.Fprintln(w, "equal")
		return err
	}
	_, err := fmt.Fprintf(w, "%d chunks changed, %s; %d the same, %s\n",
		r.Chunks.Changed, humanBytes(r.Bytes.Changed), r.Chunks.Same, humanBytes(r.Bytes.Same))
	for _, a := range r.Areas {
		if err != nil {
			return err
		}
		where := "in no partition"
		switch {
		case a.Partition > 0 && a.Filesystem != "":
			where = fmt.Sprintf("in partition %d, %s", a.Partition, a.Filesystem)
		case a.Partition > 0:
			where = fmt.Sprintf("in partition %d", a.Partition)
		case a.Filesystem != "":
			where = "in " + a.Filesystem
		}
		_, err = fmt.Fprintf(w, "%s: %d bytes at %d, %s\n", a.Disk, a.Length, a.Offset, where)
	}
	return err
}
