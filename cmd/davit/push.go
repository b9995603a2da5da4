package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/ovf"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/sign"
	"github.com/davit-oci/davit/store"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

type pushOptions struct {
	*globals
	registryFlags
	signerFlags
	source sourceFlags
	trimFlag
	machine     machineFlags
	machineID   string
	unverified  bool
	original    bool
	sign        bool
	tags        []string
	reuse       []string
	scrub       bool
	dryRun      bool
	base        string
	platform    string
	created     string
	compat      string
	compression string
	profile     string
	annotations annotations
}

func newPush(g *globals) *cobra.Command {
	o := pushOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "push SOURCE... REF",
		Short: "Put disks into a registry",
		Long: `Put disks into a registry as one artifact. Only what the registry does not have
yet is sent: the artifact that the tag names now is where davit looks first.

SOURCE is a disk image, "-" for a raw disk on stdin, or NAME=SOURCE; or a machine
with its disks: an OVA, an OVF or a folder with one, a VMX, a libvirt domain, a
.vbox. The manifest (.mf) of an OVF is checked while its disks are read. The tag
moves last, when everything is there and, with --sign, signed.

Bare disks get a machine of one CPU and 1 GiB of memory, unless flags or a file
describe another one. ` + machineFileHelp,
		Args: minArgs("SOURCE", "REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !o.sign && cmd.Flags().Changed("key") {
				return usagef("--key without --sign: push checks nothing, it signs")
			}
			last := len(args) - 1
			return runPush(cmd.Context(), cmd.OutOrStdout(), args[:last], args[last], o)
		},
	}
	o.registryFlags.flags(cmd)
	o.source.flags(cmd)
	o.trimFlag.flags(cmd)
	o.machine.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.sign, "sign", false, "sign the artifact with --key before the tag moves")
	o.signerFlags.flags(cmd)
	f.StringArrayVar(&o.tags, "tag", nil, "`TAG` to move; again: all of them; with a REF without tag: no latest")
	f.StringArrayVar(&o.reuse, "reuse", nil, "`REF` whose stored chunks may be referenced, auto, or none\n(default auto: the tag that moves, else the last three)")
	f.BoolVar(&o.scrub, "scrub", false, "reference no layer that has chunks this disk does not need")
	f.BoolVar(&o.dryRun, "dry-run", false, "do everything but send")
	f.StringVar(&o.base, "base", "", "parent `REF`, noted as org.opencontainers.image.base")
	f.StringVar(&o.platform, "platform", "", "`OS/ARCH[/VARIANT]` of the machine")
	f.StringVar(&o.created, "created", "", "`TIME` for org.opencontainers.image.created, RFC 3339 or Unix seconds\n(default: none, or $SOURCE_DATE_EPOCH)")
	f.StringVar(&o.machineID, "machine", "", "only the machine with this `ID`, of several")
	f.BoolVar(&o.unverified, "unverified-package", false, "push a package whose digests or signature are wrong; the artifact says so")
	f.BoolVar(&o.original, "keep-original", false, "store what is needed to build the files of SOURCE again,\nbyte for byte (pull --original)")
	f.StringVar(&o.compat, "compat", "", "gitlab: a form that GitLab's registry accepts")
	f.StringVar(&o.compression, "compression", "", "`CODEC`: zstd[:LEVEL], xz, none (default zstd:1)")
	f.StringVar(&o.profile, "profile", "1", "`NAME` of the chunk parameters")
	f.VarP(&o.annotations, "annotation", "a", "`K=V` for the manifest")
	return cmd
}

type pushReport struct {
	report
	Ref        string        `json:"ref"`
	Digest     digest.Digest `json:"digest"`
	DiskDigest digest.Digest `json:"diskDigest"`
	Disks      []pushedDisk  `json:"disks"`
	Layers     struct {
		New  int `json:"new"`
		Kept int `json:"kept"`
	} `json:"layers"`
	ReusedFrom []string          `json:"reusedFrom"`
	Trimmed    int64             `json:"trimmed"`           // of free blocks that held something
	Package    *appliance.Report `json:"package,omitempty"` // that of SOURCE, if it has a manifest
	Signature  *pushSignature    `json:"signature"`
	Bytes      struct {
		Read    int64 `json:"read"`    // plain, of the disks
		Sent    int64 `json:"sent"`    // to the registry
		Reused  int64 `json:"reused"`  // plain, found in layers that were there
		Mounted int64 `json:"mounted"` // of layers from other repositories
	} `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

type pushedDisk struct {
	Name        string        `json:"name"`
	VirtualSize int64         `json:"virtualSize"`
	SectorSize  int           `json:"logicalSectorSize,omitempty"` // where it is not 512
	DataSize    int64         `json:"dataSize"`
	Digest      digest.Digest `json:"digest"`
}

type pushSignature struct {
	Digests []digest.Digest `json:"digests"` // of the bundles
	Tags    []string        `json:"tags"`
}

func runPush(ctx context.Context, stdout io.Writer, sources []string, name string, o pushOptions) (err error) {
	start := time.Now()
	plan, err := o.plan(sources, name)
	if err != nil {
		return err
	}
	var keys []*sign.Key
	if o.sign {
		if keys, err = o.signerFlags.load(ctx, o.globals); err != nil {
			return err
		}
	}
	store, err := o.store(ctx)
	if err != nil {
		return err
	}
	defer closeInto(&err, store)
	scratch, _, err := store.Scratch()
	if err != nil {
		return err
	}
	from := o.source.options(o.globals, func() (string, error) { return scratch, nil })
	from.Unverified = o.unverified
	machines, err := o.openMachines(ctx, plan.sources, from)
	if err != nil {
		return err
	}
	if machines != nil {
		defer closeInto(&err, machines)
		defer func() { err = machines.Explain(ctx, err) }()
	}
	images, err := o.openSources(ctx, plan.sources, machines, from)
	if err != nil {
		return err
	}
	defer closeAll(&err, images)
	disks, trimmed, err := o.trimFlag.apply(ctx, images, from)
	if err != nil {
		return err
	}
	p := &pusher{pushOptions: &o, pushPlan: plan, store: store, images: images, disks: disks, machines: machines}
	if o.original {
		if err := p.checkOriginal(); err != nil {
			return err
		}
	}
	repo, err := o.open(ctx, o.globals, plan.ref)
	if err != nil {
		return err
	}
	defer closeInto(&err, repo)
	p.repo, p.target = repo, repo
	if o.dryRun {
		p.target = new(artifact.DryRun)
	}

	// What is there already, and what of it may be referenced.
	reuse, err := o.findReuse(ctx, store, repo, plan, keys)
	if err != nil {
		return err
	}
	defer closeInto(&err, reuse)

	pushed, err := p.push(ctx, reuse, o.sign)
	if err != nil {
		return err
	}
	defer closeInto(&err, pushed)

	r := pushed.report(plan.ref, reuse)
	r.Trimmed = trimmed
	if machines != nil {
		r.Package = machines.Report
	}
	if !o.dryRun {
		// Last, so that no tag ever names an artifact that is not whole and signed.
		if o.sign {
			bundles, err := p.signAll(ctx, pushed.desc, keys, reuse.sequence)
			if err != nil {
				return err
			}
			r.Signature = &pushSignature{bundles, plan.tags}
		}
		for _, tag := range plan.tags {
			if err := repo.Tag(ctx, pushed.desc, tag); err != nil {
				return fmt.Errorf("tagging %s: %w", tag, err)
			}
		}
		if err := recordChecked(store, repo, pushed.Checked()); err != nil {
			return err
		}
		if !o.trim { // the files hold the free blocks, too
			pushed.remember()
		}
		if err := p.finished.Remove(); err != nil {
			return err
		}
	}
	if pushed.Dead > 0 {
		o.say("%s of chunks that this disk does not need stay reachable in layers it shares; --scrub rewrites those", humanBytes(pushed.Dead))
	}
	r.Bytes.Sent, _, r.Bytes.Mounted = repo.Stats()
	r.Seconds = time.Since(start).Seconds()
	if o.json {
		return writeJSON(stdout, r)
	}
	_, err = fmt.Fprintln(stdout, r.Ref)
	return err
}

// A pushPlan is what the arguments of a push come to.
type pushPlan struct {
	sources []argument
	ref     registry.Reference
	tags    []string // sorted, at least one
	codec   artifact.Codec
	gitlab  bool
	created time.Time // for the manifest; zero is none
}

// plan checks all arguments before anything is touched.
func (o *pushOptions) plan(sources []string, name string) (p pushPlan, err error) {
	if p.ref, err = parseRef(name); err != nil {
		return p, err
	}
	if p.ref.Digest != "" {
		return p, usagef("%s: what a push will come to is not known before; name a tag", name)
	}
	if p.tags, err = pushTags(p.ref, o.tags); err != nil {
		return p, err
	}
	p.codec, err = artifact.ParseCodec(cmp.Or(o.compression, "zstd"))
	if err != nil {
		return p, usagef("--compression: %w", err)
	}
	if o.profile != "1" {
		return p, usagef("--profile %s: the profiles are: 1", o.profile)
	}
	if o.compat != "" && o.compat != "gitlab" {
		return p, usagef("--compat %s: the forms are: gitlab", o.compat)
	}
	p.gitlab = o.compat == "gitlab"
	if p.created, err = o.createdTime(); err != nil {
		return p, err
	}
	if o.platform != "" {
		if err := checkPlatform(o.platform); err != nil {
			return p, err
		}
	}
	names := map[string]bool{}
	stdin := false
	for i, s := range sources {
		src := parseSource(s)
		if !src.named {
			src.name = "disk" + strconv.Itoa(i)
		}
		if lower := strings.ToLower(src.name); names[lower] {
			return p, usagef("two disks are called %s", src.name)
		} else {
			names[lower] = true
		}
		if src.path == "-" && stdin {
			return p, usagef(`"-" is named twice`)
		}
		stdin = stdin || src.path == "-"
		p.sources = append(p.sources, src)
	}
	return p, o.planMachine(p.sources)
}

// planMachine writes the machine that the flags describe, as far as it is known
// before the disks are read, and warns of what is in it.
func (o *pushOptions) planMachine(sources []argument) error {
	if err := o.machine.load(o.stderr.secrets); err != nil {
		return err
	}
	var disks []machine.Disk
	for _, src := range sources {
		disks = append(disks, machine.Disk{Name: src.name, Capacity: 1})
	}
	e, err := o.machine.envelope(disks)
	if e == nil || err != nil {
		return err
	}
	_, losses, err := ovf.Write(e, ovf.WriteOptions{})
	if err != nil {
		return err
	}
	warnLosses(o.globals, "the OVF", losses)
	warnPublished(o.globals, e)
	return nil
}

// pushTags returns the tags that move: those of --tag, that of the reference,
// latest if there is neither.
func pushTags(ref registry.Reference, tags []string) ([]string, error) {
	tags = slices.Clone(tags)
	for _, tag := range tags {
		if !registry.ValidTag(tag) {
			return nil, usagef("--tag %s: not a tag", tag)
		}
	}
	if ref.Tag != "" || len(tags) == 0 {
		tags = append(tags, ref.TagOrLatest())
	}
	slices.Sort(tags)
	return slices.Compact(tags), nil
}

// createdTime is when the image was made, as far as the user says: nothing else, not
// the clock either, gets into a manifest.
func (o *pushOptions) createdTime() (time.Time, error) {
	created := cmp.Or(o.created, os.Getenv("SOURCE_DATE_EPOCH"))
	if created == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, created); err == nil {
		return t, nil
	}
	if seconds, err := strconv.ParseInt(created, 10, 64); err == nil {
		return time.Unix(seconds, 0), nil
	}
	return time.Time{}, usagef("--created %s: neither RFC 3339 nor Unix seconds", created)
}

// openSources opens all images, so that a missing one is found before anything is sent.
func (o *pushOptions) openSources(ctx context.Context, args []argument, machines *source.Machines, from source.Options) (images []*source.Image, err error) {
	if machines != nil {
		return machines.OpenDisks(ctx)
	}
	for _, arg := range args {
		img, err := o.source.open(ctx, o.globals, arg, from.Scratch)
		if err != nil {
			closeAll(&err, images)
			return nil, err
		}
		images = append(images, img)
	}
	return images, nil
}

func closeAll(err *error, images []*source.Image) {
	for _, img := range images {
		closeInto(err, img)
	}
}

// A pusher makes the artifact and sends all of it but tags and signatures.
type pusher struct {
	*pushOptions
	pushPlan
	repo   *registry.Repository
	target pushTarget // repo, unless it is a dry run
	store  *store.Store
	images []*source.Image
	disks  []disk.Reader // what is pushed of the images

	machines *source.Machines // whose disks the images are; nil: they are bare disks

	finished *pushJournal
}

// A pushTarget is where blobs and manifest go.
type pushTarget interface {
	artifact.Target
	artifact.BlobPusher
}

// A pushed is an artifact that is in the registry.
type pushed struct {
	*artifact.Packed
	p     *pusher
	desc  ocispec.Descriptor
	lists []*store.ChunkList // of the chunks of each disk
}

// push packs and sends. Where what it wanted to reuse turns out not to be
// there, or not to be what it says, it does so again without that.
func (p *pusher) push(ctx context.Context, reuse *reuse, signed bool) (*pushed, error) {
	for again := false; ; again = true {
		out, err := p.pack(ctx, reuse)
		if err != nil {
			return nil, err
		}
		err = p.complete(ctx, out, reuse, signed)
		if err == nil {
			return out, nil
		}
		err = errors.Join(err, out.Close())
		// A registry that reports other missing blobs each time must not keep this going.
		_, lying := errors.AsType[*artifact.BaseError](err)
		if last := again && !lying && p.ref.Kind == registry.Remote; last || !reuse.drop(ctx, p, out, err) {
			return nil, err
		}
	}
}

// pack reads the disks and sends new layers and the indexes.
func (p *pusher) pack(ctx context.Context, reuse *reuse) (_ *pushed, err error) {
	scratch, _, err := p.store.Scratch()
	if err != nil {
		return nil, err
	}
	out := &pushed{p: p}
	var disks []artifact.Source
	var total int64
	for i, img := range p.images {
		disks = append(disks, artifact.Source{Name: img.Name, Reader: p.disks[i]})
		total += dataSize(p.disks[i])
		list, err := p.store.NewChunkList()
		if err != nil {
			return nil, err
		}
		out.lists = append(out.lists, list)
	}
	show := p.begin("pushing "+p.ref.String(), total)
	defer show.end()
	out.Packed, err = artifact.Pack(ctx, p.target, disks, artifact.PackOptions{
		Codec:     p.codec,
		Bases:     reuse.bases,
		Without:   reuse.without,
		Scrub:     p.scrub,
		Jobs:      p.jobs,
		MaxMemory: int64(p.maxMemory) / 2,
		Journal:   p.journal(),
		Scratch:   scratch,
		Progress:  show.add,
		Found:     func(disk int, c artifact.Chunk) error { return out.lists[disk].Add(c) },
	})
	return out, err
}

// journal returns the journal of pushes to this repository, nil for a dry run.
func (p *pusher) journal() artifact.Journal {
	if p.dryRun {
		return nil
	}
	if p.finished == nil {
		p.finished = &pushJournal{p.store.Journal(p.repo.Reference().Name()), p.repo}
	}
	return p.finished
}

// A pushJournal is a journal of the local store, of whose layers the registry may
// have lost some since.
type pushJournal struct {
	*store.Journal
	repo *registry.Repository
}

// Find implements [artifact.Journal]: the registry is asked whether it still
// has the layer.
func (j *pushJournal) Find(ctx context.Context, first [sha256.Size]byte) (artifact.LayerRecord, bool) {
	r, ok := j.Journal.Find(first)
	if !ok {
		return r, false
	}
	there, err := j.repo.Exists(ctx, r.Descriptor())
	return r, err == nil && there
}

// remember puts the files that were pushed into the catalogue of the local store.
// That one could not be remembered is no failure.
func (out *pushed) remember() {
	for i, img := range out.p.images {
		if img.Spooled || out.p.cache == store.None {
			continue
		}
		f := store.DiskFile{Path: img.Path, Format: img.Format(), Digest: artifact.Digest(out.Disks[i].Digest)}
		_ = out.p.store.Remember(f, out.lists[i])
	}
}

// complete makes kept layers available, checks what is going to be signed, and
// pushes config and manifest.
func (p *pusher) complete(ctx context.Context, out *pushed, reuse *reuse, signed bool) error {
	if signed {
		if err := out.CheckReused(ctx, artifact.CheckReusedOptions{Jobs: p.jobs, Known: reuse.knows}); err != nil {
			return reuse.blame(err)
		}
	}
	c := artifact.Content{
		Packed:      out.Packed,
		Annotations: p.annotations,
		Created:     p.pushPlan.created,
		Platform:    p.platform,
		Unverified:  p.unverified,
		Gitlab:      p.gitlab,
	}
	var err error
	if c.OVF, err = p.describe(out.Disks); err != nil {
		return err
	}
	if p.machines != nil {
		if c.Files, err = p.pushFiles(ctx); err != nil {
			return err
		}
		if err := p.verifyPackage(ctx); err != nil {
			return err
		}
	}
	if p.original {
		if c.Originals, err = p.pushOriginal(ctx, &c); err != nil {
			return err
		}
	}
	if c.Base, err = p.baseImage(ctx); err != nil {
		return err
	}
	if !p.dryRun {
		if err := reuse.provide(ctx, p.repo, out.Packed); err != nil {
			return err
		}
	}
	out.desc, err = artifact.Publish(ctx, p.target, c)
	return err
}

// describe returns the OVF of the machine: the appliance's, the one that the
// flags describe, or that of the disks alone.
func (p *pusher) describe(disks []artifact.DiskDescriptor) ([]byte, error) {
	if p.machines != nil {
		return p.machines.OVFOf(disks)
	}
	var bare []machine.Disk
	for _, d := range disks {
		bare = append(bare, machine.Disk{Name: d.Name, Capacity: d.Size})
	}
	e, err := p.machine.envelope(bare)
	if e == nil || err != nil {
		return ovf.Bare(bare), err
	}
	data, _, err := ovf.Write(e, ovf.WriteOptions{})
	return data, err
}

// signAll signs with every key. Where no tag moves, since all name this artifact
// already, a signature that says the same is not made again.
func (p *pusher) signAll(ctx context.Context, desc ocispec.Descriptor, keys []*sign.Key, previous int64) ([]digest.Digest, error) {
	subject, err := newSubject(p.ref, desc, p.pushPlan.tags, previous)
	if err != nil {
		return nil, err
	}
	moves := false
	for _, tag := range p.pushPlan.tags {
		now, err := p.repo.Resolve(ctx, tag)
		moves = moves || err != nil || now.Digest != desc.Digest
	}
	var all []digest.Digest
	for _, key := range keys {
		var bundles []digest.Digest
		if !moves {
			if bundles, err = signedBy(ctx, p.repo, desc, key, subject.Name, p.pushPlan.tags); err != nil {
				return nil, err
			}
		}
		if len(bundles) == 0 {
			if bundles, err = attachSignatures(ctx, p.repo, desc, []*sign.Key{key}, subject); err != nil {
				return nil, err
			}
		}
		all = append(all, bundles...)
	}
	return all, nil
}

// baseImage is the parent image that --base names.
func (p *pusher) baseImage(ctx context.Context) (base artifact.BaseImage, err error) {
	if p.base == "" {
		return base, nil
	}
	ref, err := parseRef(p.base)
	if err != nil {
		return base, err
	}
	repo, err := p.open(ctx, p.globals, ref)
	if err != nil {
		return base, err
	}
	defer closeInto(&err, repo)
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return base, fmt.Errorf("--base: %w", err)
	}
	return artifact.BaseImage{Name: ref.String(), Digest: desc.Digest}, nil
}

func (out *pushed) report(ref registry.Reference, reuse *reuse) pushReport {
	r := pushReport{report: newReport("davit push"), Ref: ref.WithDigest(out.desc.Digest).String(), Digest: out.desc.Digest}
	r.Disks = []pushedDisk{}
	for i, d := range out.Disks {
		r.Disks = append(r.Disks, pushedDisk{d.Name, d.Size, d.Sector, out.DataSize[i], artifact.Digest(d.Digest)})
		r.Bytes.Read += out.DataSize[i]
	}
	if len(r.Disks) > 0 {
		r.DiskDigest = r.Disks[0].Digest
	}
	r.Layers.Kept, r.Layers.New = out.Kept, len(out.Layers)-out.Kept
	r.Bytes.Reused = out.Reused
	used := map[int]bool{}
	r.ReusedFrom = []string{}
	for _, from := range out.From {
		if !used[from] {
			used[from] = true
			r.ReusedFrom = append(r.ReusedFrom, reuse.names[from])
		}
	}
	return r
}
