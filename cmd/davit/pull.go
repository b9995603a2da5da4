package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/store"
	"github.com/davit-oci/davit/verify"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

type pullOptions struct {
	*globals
	registryFlags
	trustFlags
	deliveryFlags
	platform string
	seeds    []string
	original bool
	dryRun   bool
}

func newPull(g *globals) *cobra.Command {
	o := pullOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "pull REF DEST",
		Short: "Write the disks of an artifact, or its machine, to files",
		Long: `Write the disks of an artifact to files, verified: first the signature, then
every byte before it is written. What is on this host already is not fetched.

DEST is a file, a block device, "-" for raw bytes on stdout, or a folder, in which
every disk becomes DISK.EXT.

` + targetsHelp,
		Args: exactArgs("REF", "DEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPull(cmd.Context(), cmd.OutOrStdout(), args[0], args[1], o)
		},
	}
	o.registryFlags.flags(cmd)
	o.trustFlags.pullFlags(cmd)
	o.deliveryFlags.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.platform, "platform", "", "`OS/ARCH[/VARIANT]` to choose (default: this host's architecture)")
	f.StringArrayVar(&o.seeds, "seed", nil, "take what is the same from this `FILE`, folder or REF")
	f.BoolVar(&o.original, "original", false, "write the files that were pushed, byte for byte (push --keep-original)")
	f.BoolVar(&o.dryRun, "dry-run", false, "verify and say what would be fetched; write nothing")
	return cmd
}

type pullReport struct {
	report
	Ref        string         `json:"ref"`
	Digest     digest.Digest  `json:"digest"`
	DiskDigest digest.Digest  `json:"diskDigest"`
	Verified   any            `json:"verified"`
	Files      []writtenFile  `json:"files"`
	Losses     []machine.Loss `json:"losses"`
	Warnings   []string       `json:"warnings"` // about the trust
	Bytes      struct {
		Fetched int64 `json:"fetched"` // from the registry, all of it
		Seeded  int64 `json:"seeded"`  // plain, from --seed or the file that was there
		Cached  int64 `json:"cached"`  // plain, from files that the local store remembers
		Written int64 `json:"written"` // plain
	} `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

func runPull(ctx context.Context, stdout io.Writer, name, dest string, o pullOptions) (err error) {
	start := time.Now()
	ref, err := parseRef(name)
	if err != nil {
		return err
	}
	if o.platform != "" {
		if err := checkPlatform(o.platform); err != nil {
			return err
		}
	}
	key, err := o.checkDest(dest)
	if err != nil {
		return err
	}
	trust, err := o.trustFlags.resolve(o.globals, ref)
	if err != nil {
		return err
	}
	repo, err := o.open(ctx, o.globals, ref)
	if err != nil {
		return err
	}
	defer closeInto(&err, repo)
	store, err := o.store(ctx)
	if err != nil {
		return err
	}
	defer closeInto(&err, store)
	scratch, _, err := store.Scratch()
	if err != nil {
		return err
	}

	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return err
	}
	passed, err := trust.artifact(ctx, o.globals, repo, desc)
	if err != nil {
		return err
	}
	subject, err := choosePlatform(ctx, repo, passed.Subject, o.platform)
	if err != nil {
		return err
	}
	img, err := artifact.Open(ctx, repo, subject, o.openOptions(scratch))
	if err != nil {
		return err
	}
	defer closeInto(&err, img)

	r := pullReport{report: newReport("davit pull"), Ref: ref.WithDigest(desc.Digest).String(), Digest: desc.Digest,
		Verified: verifiedBy(passed), Losses: []machine.Loss{}, Warnings: list(passed.Warnings)}
	p := &puller{pullOptions: &o, repo: repo, store: store, scratch: scratch, img: img}
	if o.original {
		if r.Files, err = o.pullOriginal(ctx, repo, img.Manifest, dest); err != nil {
			return fmt.Errorf("the original: %w", err)
		}
		for _, f := range r.Files {
			r.Bytes.Written += f.Size
		}
		if len(img.Disks) > 0 {
			r.DiskDigest = artifact.Digest(img.Disks[0].Digest)
		}
	} else if err := p.pull(ctx, dest, key, &r); err != nil {
		return err
	}

	_, fetched, _ := repo.Stats()
	r.Bytes.Fetched += fetched
	r.Seconds = time.Since(start).Seconds()
	if dest == "-" {
		stdout = o.stderr
	}
	if o.json {
		return writeJSON(stdout, r)
	}
	_, err = fmt.Fprintln(stdout, r.Ref)
	return err
}

// checkDest refuses what makes no sense, as far as that can be said without a
// look at the artifact.
func (o *pullOptions) checkDest(dest string) (*appliance.Key, error) {
	if o.original {
		if o.disk != "" || (*targetValue)(&o.target).String() != "" || o.machine != "" || o.certKey != "" || len(o.seeds) > 0 {
			return nil, usagef("--original: all files as they were; no --disk, no --machine, no -O, no --cert-key, no --seed")
		}
		return nil, nil
	}
	key, err := o.resolveMachine(dest)
	if err == nil && dest == "-" {
		_, err = o.target.resolve(dest, "")
	}
	return key, err
}

// A puller writes disks of an artifact that was found good.
type puller struct {
	*pullOptions
	repo    *registry.Repository
	store   *store.Store
	scratch string
	img     *artifact.Image
}

// pull writes what -O asks for, and reports it.
func (p *puller) pull(ctx context.Context, dest string, key *appliance.Key, r *pullReport) (err error) {
	var machines *pulledMachines // nil: only disks are written
	var targets []pullTarget
	if p.target.machine != nil {
		if machines, err = p.planMachines(ctx, dest, key); err != nil {
			return err
		}
		targets = machines.targets
	} else if targets, err = p.targets(p.img, dest); err != nil {
		return err
	}
	for _, t := range targets {
		lost, err := t.dest.fit(t.disk.Size, t.disk.Sector)
		if err != nil {
			return err
		}
		warnLosses(p.globals, t.dest.path, lost)
		r.Losses = append(r.Losses, lost...)
	}
	if machines != nil {
		warnLosses(p.globals, dest, machines.plan.Losses)
		r.Losses = append(r.Losses, machines.plan.Losses...)
	}
	seeds, err := p.findSeeds(ctx, p.store, p.scratch, targets)
	if err != nil {
		return err
	}
	defer closeInto(&err, seeds)

	var restored []artifact.Restored
	if machines != nil && !p.dryRun {
		machines.seeds = seeds
		err = machines.plan.Write(ctx, machines)
		restored = machines.restored
	} else {
		restored, err = p.pullDisks(ctx, targets, seeds)
	}
	if err != nil {
		return err
	}
	r.Files = []writtenFile{}
	if machines != nil {
		r.Files = p.writtenBeside(machines.plan)
		if p.dryRun {
			r.Bytes.Fetched += machines.filesSize()
		}
	}
	if len(targets) > 0 {
		r.DiskDigest = artifact.Digest(targets[0].disk.Digest)
	}
	for i, t := range targets {
		r.add(t, restored[i])
		if p.dryRun {
			r.Bytes.Fetched += restored[i].Fetched // would be
		} else if t.file() == t.dest.path {
			p.remember(ctx, t)
		}
	}
	return nil
}

// remember puts a file that was pulled into the catalogue of the local store.
// That it could not be remembered is no failure.
func (p *puller) remember(ctx context.Context, t pullTarget) {
	if p.cache != store.None {
		_ = p.store.RememberDisk(ctx, store.DiskFile{Path: t.dest.path, Format: t.dest.format}, t.disk)
	}
}

// A pullTarget is a disk and where it goes to.
type pullTarget struct {
	disk    *artifact.Disk
	dest    destination
	folder  string    // to be made if it is not there
	member  io.Writer // of what goes to a member of a package
	archive string    // that it goes to, "" if its file is one of its own
}

// file is the file that it is in, "" if it goes to no file.
func (t *pullTarget) file() string {
	switch {
	case t.archive != "":
		return t.archive
	case t.dest.kind == toFile, t.dest.kind == toMember:
		return t.dest.path
	}
	return ""
}

// targets settles which disks are written where, before anything is fetched.
func (o *pullOptions) targets(img *artifact.Image, dest string) ([]pullTarget, error) {
	disks := img.Disks
	if o.disk != "" {
		d := img.Disk(o.disk)
		if d == nil {
			return nil, fmt.Errorf("disk %q: %w: the artifact has %s", o.disk, errNotFound, diskNames(img))
		}
		disks = []*artifact.Disk{d}
	}
	if len(disks) == 0 {
		return nil, fmt.Errorf("the artifact has no disks: %w", errNotFound)
	}
	if len(disks) > 1 {
		info, err := os.Stat(dest)
		if dest == "-" || err == nil && !info.IsDir() || err != nil && !strings.HasSuffix(dest, "/") {
			if err == nil || dest == "-" || filepath.Ext(dest) != "" {
				return nil, withHint(usagef("%s: the artifact has %d disks (%s); DEST must be a folder", dest, len(disks), diskNames(img)), "--disk NAME")
			}
		}
		if !strings.HasSuffix(dest, "/") {
			dest += "/"
		}
	}
	folder := ""
	if strings.HasSuffix(dest, "/") {
		folder = filepath.Clean(dest)
	}
	var targets []pullTarget
	for _, d := range disks {
		t, err := o.target.resolve(dest, d.Name)
		if err != nil {
			return nil, err
		}
		targets = append(targets, pullTarget{disk: d, dest: t, folder: folder})
	}
	return targets, nil
}

func diskNames(img *artifact.Image) string {
	var names []string
	for _, d := range img.Disks {
		names = append(names, d.Name)
	}
	return strings.Join(names, ", ")
}

// pullDisks writes all disks. Files get their names when all are complete.
func (o *pullOptions) pullDisks(ctx context.Context, targets []pullTarget, seeds *pullSeeds) (all []artifact.Restored, err error) {
	var out wholefile.Set
	defer func() { out.Abandon(keepParts(err)) }()
	for _, t := range targets {
		done, err := o.fillDisk(ctx, &out, t, seeds)
		if err != nil {
			return nil, err
		}
		all = append(all, done)
	}
	return all, out.Commit()
}

// keepParts says whether the next pull can go on with what this one has written: not
// if the artifact was refused.
func keepParts(err error) bool { return exitCode(err) != exitRefused }

// fillDisk writes a disk to where it goes; if that is a file, to one of out,
// which has no name yet.
func (o *pullOptions) fillDisk(ctx context.Context, out *wholefile.Set, t pullTarget, seeds *pullSeeds) (done artifact.Restored, err error) {
	var f *os.File
	resume := false
	if t.dest.kind == toFile && !o.dryRun {
		if t.folder != "" {
			if err := out.Folder(t.folder); err != nil {
				return done, err
			}
		}
		part, err := out.Create(t.dest.path, t.dest.force)
		if err != nil {
			return done, err
		}
		part.Resumable = !t.dest.format.InOrder()
		f, resume = part.File, part.Resumed
	}
	if done, err = o.pullDisk(ctx, t, f, resume, seeds); err != nil {
		return done, fmt.Errorf("%s: %w", t.dest.path, err)
	}
	return done, nil
}

// pullDisk writes one disk. f is the file that it goes to, if it goes to one, and
// resume says that an earlier run has written some of it.
func (o *pullOptions) pullDisk(ctx context.Context, t pullTarget, f *os.File, resume bool, seeds *pullSeeds) (done artifact.Restored, err error) {
	d := t.disk
	size, err := d.DataSize(ctx) // checks all pages and directories
	if err != nil {
		return done, err
	}
	show := o.begin("pulling "+d.Name, size)
	defer show.end()
	restore := artifact.RestoreOptions{Seeds: seeds.seeds, Jobs: o.jobs, Progress: show.add}
	if o.dryRun {
		restore.DryRun = true
		return d.Restore(ctx, nil, restore)
	}
	write := func(w disk.Writer, err error) error {
		if err != nil {
			return err
		}
		if done, err = d.Restore(ctx, w, restore); err != nil {
			return err
		}
		return w.Close()
	}
	toImage := func(f *os.File) error {
		return write(disk.NewWriter(f, t.dest.format, d.Size, d.Extents(ctx), t.dest.options(d.Sector)))
	}
	switch t.dest.kind {
	case toStdout:
		err = write(disk.NewStreamWriter(o.stdout, d.Size), nil)
	case toMember:
		err = write(disk.NewVMDKStream(t.member, d.Size, t.dest.options(d.Sector)))
	case toDevice:
		err = t.dest.write(d.Size, o.stdout, toImage)
	default:
		restore.Resume = resume
		err = toImage(f)
	}
	return done, err
}

func (r *pullReport) add(t pullTarget, done artifact.Restored) {
	if t.archive == "" {
		r.Files = append(r.Files, writtenFile{t.dest.path, t.dest.format, t.disk.Name, t.disk.Size})
	}
	r.Bytes.Written += done.Written
	r.Bytes.Seeded += done.Seeded + done.Kept
	r.Bytes.Cached += done.Listed
}

// A pullSeeds is what a pull can use instead of fetching.
type pullSeeds struct {
	seeds  *artifact.Seeds
	opened []io.Closer
}

// findSeeds opens what --seed names, the file that is going to be replaced, and
// files that the local store remembers.
func (o *pullOptions) findSeeds(ctx context.Context, store *store.Store, scratch string, targets []pullTarget) (_ *pullSeeds, err error) {
	s := &pullSeeds{seeds: artifact.NewSeeds(scratch)}
	defer func() {
		if err != nil {
			closeInto(&err, s)
		}
	}()
	if len(targets) == 0 { // of a machine without disks
		return s, nil
	}
	profile := targets[0].disk.Index.Profile
	if !profile.Known() {
		if len(o.seeds) > 0 {
			o.stderr.warn("seeds are not used: the disk is cut by profile %s, which this davit does not know", profile)
		}
		return s, nil
	}
	for _, name := range o.seeds {
		if err := o.addSeed(ctx, s, scratch, name); err != nil {
			return nil, fmt.Errorf("--seed %s: %w", name, err)
		}
	}
	var replaced []string
	for _, t := range targets {
		if path := t.file(); path != "" && !slices.Contains(replaced, path) {
			replaced = append(replaced, path)
		}
	}
	for _, path := range replaced {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		// What is going to be replaced is a seed if it can be read.
		if err := o.addSeed(ctx, s, scratch, path); err != nil && ctx.Err() != nil {
			return nil, err
		}
	}
	for _, img := range store.AddSeeds(s.seeds) {
		s.opened = append(s.opened, img)
	}
	return s, nil
}

// addSeed adds an image file, the images in a folder, or an artifact.
func (o *pullOptions) addSeed(ctx context.Context, s *pullSeeds, scratch, name string) error {
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		entries, err := os.ReadDir(name)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Type().IsRegular() {
				if err := o.addSeed(ctx, s, scratch, filepath.Join(name, e.Name())); err != nil && ctx.Err() != nil {
					return err
				}
			}
		}
		return nil
	case err == nil:
		img, err := source.OpenAsIs(name, disk.OpenOptions{})
		var packed *disk.CompressedError
		if errors.As(err, &packed) && packed.By == "tar" {
			return o.addOVA(ctx, s, name)
		}
		if err != nil {
			return err
		}
		return o.addImage(ctx, s, name, img)
	case !errors.Is(err, fs.ErrNotExist) || isFile(name):
		return err
	}
	ref, err := parseRef(name)
	if err != nil {
		return err
	}
	repo, err := o.open(ctx, o.globals, ref)
	if err != nil {
		return err
	}
	s.opened = append(s.opened, repo)
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return err
	}
	found, err := verify.Unverified(ctx, repo, desc) // each chunk of a seed is hashed before it is used
	if err != nil {
		return err
	}
	img, err := artifact.Open(ctx, repo, found.Subject, o.openOptions(scratch))
	if err != nil {
		return err
	}
	s.opened = append(s.opened, img)
	for _, d := range img.Disks {
		if err := s.seeds.AddDisk(ctx, d.Reader(ctx), d); err != nil {
			return err
		}
	}
	return nil
}

// addImage reads an image that was opened for this.
func (o *pullOptions) addImage(ctx context.Context, s *pullSeeds, name string, img *disk.Image) error {
	s.opened = append(s.opened, img)
	show := o.begin("reading seed "+filepath.Base(name), dataSize(img))
	defer show.end()
	return s.seeds.Add(ctx, img, artifact.SeedOptions{Memory: int64(o.maxMemory) / 4, Progress: show.add})
}

// addOVA adds the disks in an OVA. Whether they are what its manifest says is
// no matter here.
func (o *pullOptions) addOVA(ctx context.Context, s *pullSeeds, name string) error {
	a, err := appliance.Open(ctx, name, appliance.Options{Unverified: true})
	if err != nil {
		return err
	}
	s.opened = append(s.opened, a)
	for i := range a.Disks {
		from, err := a.Disk(i)
		if err != nil {
			return err
		}
		if from.Section == nil || from.Compression != "" { // blank, or nothing that can be read anywhere
			continue
		}
		img, err := disk.OpenReader(from.Section, disk.OpenOptions{Format: disk.Format(from.Format)})
		if err != nil {
			return err
		}
		if err := o.addImage(ctx, s, name, img); err != nil {
			return err
		}
	}
	return nil
}

func (s *pullSeeds) Close() error {
	errs := []error{s.seeds.Close()}
	for i := len(s.opened) - 1; i >= 0; i-- {
		errs = append(errs, s.opened[i].Close())
	}
	return errors.Join(errs...)
}
