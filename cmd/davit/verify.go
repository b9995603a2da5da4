package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/store"
	"github.com/davit-oci/davit/verify"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

type verifyOptions struct {
	*globals
	registryFlags
	trustFlags
	format   formatValue
	disks    []string
	deep     bool
	platform string
}

func newVerify(g *globals) *cobra.Command {
	o := verifyOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "verify REF",
		Short: "Say whether an artifact is signed by someone you trust",
		Long: `Say whether an artifact is signed by someone you trust, and how that is known.

The chain of trust is printed on stderr, the digest that passed on stdout.

With --deep every byte of every blob is fetched and checked; of an index every
artifact, unless --platform names one. With --disk a disk image on this host is
read and compared with the artifact's disk; of an index with that of --platform,
or of this host's architecture.`,
		Args: exactArgs("REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runVerify(cmd.Context(), cmd.OutOrStdout(), args[0], o)
		},
	}
	o.registryFlags.flags(cmd)
	o.trustFlags.flags(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&o.disks, "disk", nil, "[NAME=]`FILE` that must be the artifact's disk NAME; again: each")
	f.VarP(&o.format, "source-format", "f", "`FORMAT` of the files of --disk (default: as pulled, else the extension, else by content)")
	f.BoolVar(&o.deep, "deep", false, "read every byte of the artifact")
	f.StringVar(&o.platform, "platform", "", "the artifact for `OS/ARCH[/VARIANT]` of an index")
	return cmd
}

type verifyReport struct {
	report
	Verdict    string             `json:"verdict"` // "accepted", "refused"
	Reasons    []reason           `json:"reasons,omitempty"`
	Ref        string             `json:"ref"`
	Digest     digest.Digest      `json:"digest,omitempty"`
	Warnings   []string           `json:"warnings"`
	Chain      []verify.Link      `json:"chain"`
	Policies   []struct{}         `json:"policies"` // none yet
	Signatures []verify.Signature `json:"signatures"`
}

func runVerify(ctx context.Context, stdout io.Writer, name string, o verifyOptions) (err error) {
	ref, err := parseRef(name)
	if err != nil {
		return err
	}
	r := verifyReport{report: newReport("davit verify"), Verdict: "accepted", Ref: ref.String(), Policies: []struct{}{}, Warnings: []string{}}
	defer func() {
		// A refusal is a result, too: it says as much as there is to say.
		if reasons := refusals(err); len(reasons) > 0 && o.json {
			r.Verdict, r.Reasons = "refused", reasons
			r.Chain, r.Signatures = list(r.Chain), list(r.Signatures)
			_ = writeJSON(stdout, r) // err says more
		}
	}()

	if o.platform != "" {
		if err := checkPlatform(o.platform); err != nil {
			return err
		}
	}
	var files []argument
	for _, name := range o.disks {
		files = append(files, parseSource(name))
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
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return err
	}
	r.Ref, r.Digest = ref.WithDigest(desc.Digest).String(), desc.Digest

	passed, err := o.check(ctx, &r, repo, desc, trust)
	if err != nil {
		return err
	}
	deep, compared, err := o.choose(ctx, &r, repo, passed.Subject, len(files) > 0)
	if err != nil {
		return err
	}
	if o.deep || len(files) > 0 {
		if err := o.audit(ctx, &r, repo, deep, compared, files); err != nil {
			return err
		}
	}
	r.Chain, r.Signatures = list(r.Chain), list(r.Signatures)
	if o.json {
		return writeJSON(stdout, r)
	}
	_, err = fmt.Fprintln(stdout, r.Ref)
	return err
}

// check decides, prints the chain, and leaves in r what a refusal knows.
func (o *verifyOptions) check(ctx context.Context, r *verifyReport, repo *registry.Repository, desc ocispec.Descriptor, t trust) (*verify.Result, error) {
	passed, err := t.artifact(ctx, o.globals, repo, desc)
	var untrusted *verify.UntrustedError
	if asError(err, &untrusted) {
		r.Chain, r.Signatures = untrusted.Chain, untrusted.Signatures
		o.printChain(untrusted.Chain)
	}
	if err != nil {
		return nil, err
	}
	r.Chain, r.Signatures, r.Warnings = passed.Chain, passed.Signatures, list(passed.Warnings)
	o.printChain(passed.Chain)
	return passed, nil
}

// choose goes from what passed to the artifacts that are looked at: those that
// --deep reads, and the one whose disks are compared. A single artifact is
// both. Of an index the one for --platform is; without it, --deep reads all
// that are davit's, and disks are those for this host, as a pull has them.
func (o *verifyOptions) choose(ctx context.Context, r *verifyReport, repo *registry.Repository, passed verify.Subject, disks bool) (deep []verify.Subject, compared verify.Subject, err error) {
	none := verify.Subject{}
	if !passed.IsIndex() || o.platform != "" || disks {
		if compared, err = choosePlatform(ctx, repo, passed, o.platform); err != nil {
			return nil, none, err
		}
		deep = []verify.Subject{compared}
	}
	if passed.IsIndex() && o.platform == "" && o.deep {
		if deep, err = o.artifactsOf(ctx, r, repo, passed); err != nil {
			return nil, none, err
		}
	}
	named := deep
	if compared != none && !slices.ContainsFunc(deep, func(s verify.Subject) bool { return digestOf(s) == digestOf(compared) }) {
		named = append(named[:len(named):len(named)], compared)
	}
	for _, s := range named {
		if digestOf(s) != digestOf(passed) {
			o.addLink(r, verify.Link{Link: "manifest", Subject: digestOf(s).String(), OK: true, Why: "named by the index"})
		}
	}
	return deep, compared, nil
}

func digestOf(s verify.Subject) digest.Digest { return s.Descriptor().Digest }

// artifactsOf returns the artifacts of davit's in an index. There is at least
// one; what else is in it is told.
func (o *verifyOptions) artifactsOf(ctx context.Context, r *verifyReport, repo *registry.Repository, index verify.Subject) (found []verify.Subject, err error) {
	children, err := index.Children()
	if err != nil {
		return nil, err
	}
	foreign := fmt.Errorf("the index has no artifact: %w", artifact.ErrNotArtifact)
	for _, m := range children {
		if registry.IsManifest(m.MediaType) {
			s, err := index.Child(ctx, repo, m)
			if err != nil {
				return nil, err
			}
			if _, err = artifact.ParseManifest(s.Manifest(), s.Descriptor()); !errors.Is(err, artifact.ErrNotArtifact) {
				found = append(found, s) // what is wrong with it is said when it is opened
				continue
			}
			foreign = err
		}
		r.Warnings = append(r.Warnings, fmt.Sprintf("%s in the index is no artifact of davit's, and was not read", m.Digest))
		o.stderr.warn("%s", r.Warnings[len(r.Warnings)-1])
	}
	if len(found) == 0 {
		return nil, refusedError{"not-an-artifact", foreign}
	}
	return found, nil
}

// audit goes on from the manifest to the bytes: of the artifacts, and of disks
// on this host.
func (o *verifyOptions) audit(ctx context.Context, r *verifyReport, repo *registry.Repository, deep []verify.Subject, compared verify.Subject, files []argument) (err error) {
	store, err := o.store(ctx)
	if err != nil {
		return err
	}
	defer closeInto(&err, store)
	scratch, _, err := store.Scratch()
	if err != nil {
		return err
	}
	// What fails is a link that does not hold; each that holds is added below.
	defer func() {
		var refused *artifact.RefusedError
		if asError(err, &refused) {
			o.addLink(r, verify.Link{Link: refused.Part, Subject: cmp.Or(refused.Where, r.Digest.String()), Why: refused.Why})
		}
	}()
	open := func(s verify.Subject, look func(*artifact.Image) error) (err error) {
		img, err := artifact.Open(ctx, repo, s, o.openOptions(scratch))
		if err != nil {
			return err
		}
		defer closeInto(&err, img)
		return look(img)
	}
	seen := map[digest.Digest]bool{}
	addIndexes := func(img *artifact.Image) {
		if seen[img.Descriptor.Digest] {
			return
		}
		seen[img.Descriptor.Digest] = true
		for _, d := range img.Disks {
			o.addLink(r, verify.Link{Link: "index", Subject: d.DiskDescriptor.Index.Digest.String(), OK: true, Why: "of disk " + d.Name + ", named by the manifest"})
		}
	}
	if o.deep {
		for _, s := range deep {
			err := open(s, func(img *artifact.Image) error {
				addIndexes(img)
				if err := o.checkDeep(ctx, r, img); err != nil {
					return err
				}
				return recordChecked(store, repo, img.Checked())
			})
			if err != nil {
				return err
			}
		}
		if err := checkSignatureConfig(ctx, repo, r.Signatures); err != nil {
			return err
		}
	}
	if len(files) == 0 {
		return nil
	}
	return open(compared, func(img *artifact.Image) error {
		addIndexes(img)
		for _, file := range files {
			if err := o.checkDisk(ctx, r, store, img, file); err != nil {
				return err
			}
		}
		return nil
	})
}

// checkDeep reads every byte.
func (o *verifyOptions) checkDeep(ctx context.Context, r *verifyReport, img *artifact.Image) error {
	var total int64
	for _, l := range img.Layers {
		total += l.Size
	}
	show := o.begin("reading "+r.Ref, total)
	defer show.end()
	if err := img.Check(ctx, artifact.CheckOptions{Jobs: o.jobs, Progress: show.add}); err != nil {
		return err
	}
	show.end()
	o.addLink(r, verify.Link{Link: "config", Subject: img.OVF.Digest.String(), OK: true, Why: "the OVF, read as a whole"})
	for _, d := range img.Disks {
		o.addLink(r, verify.Link{Link: "page", Subject: d.Name, OK: true, Why: fmt.Sprintf("every page of %d regions", len(d.Index.Regions))})
	}
	for _, l := range img.Layers {
		o.addLink(r, verify.Link{Link: "layer", Subject: l.Digest.String(), OK: true, Why: "directory, every frame and every chunk"})
	}
	return nil
}

// checkSignatureConfig reads the empty config that the manifests of signatures
// name. It decides nothing, and neither does what else such a manifest names:
// anybody can attach a copy of a bundle to an artifact.
func checkSignatureConfig(ctx context.Context, repo *registry.Repository, signatures []verify.Signature) error {
	if !slices.ContainsFunc(signatures, func(s verify.Signature) bool { return s.Counted }) {
		return nil
	}
	rc, err := repo.Fetch(ctx, ocispec.DescriptorEmptyJSON)
	if isNotFound(err) {
		return nil // registries need not store it, everybody has it
	}
	if err == nil {
		// Fetch checks the digest at the end of what it gives.
		_, err = io.Copy(io.Discard, rc)
		err = errors.Join(err, rc.Close())
	}
	if err != nil {
		return fmt.Errorf("config of the signatures: blob %s: %w", ocispec.DescriptorEmptyJSON.Digest, err)
	}
	return nil
}

// checkDisk compares a disk on this host with that of the artifact.
func (o *verifyOptions) checkDisk(ctx context.Context, r *verifyReport, store *store.Store, img *artifact.Image, file argument) (err error) {
	var d *artifact.Disk
	switch {
	case file.name != "":
		if d = img.Disk(file.name); d == nil {
			return fmt.Errorf("disk %q: %w: the artifact has %s", file.name, errNotFound, diskNames(img))
		}
	case len(img.Disks) == 1:
		d = img.Disks[0]
	default:
		return usagef("--disk %s: the artifact has %d disks (%s): write NAME=FILE", file.path, len(img.Disks), diskNames(img))
	}
	if err := checkProfile(d); err != nil {
		return err
	}
	f, err := source.OpenAsIs(file.path, disk.OpenOptions{Format: o.recordedFormat(store, file.path)})
	if err != nil {
		return err
	}
	defer closeInto(&err, f)
	content, err := o.sameSize(f, d, file.path)
	if err != nil {
		o.addLink(r, verify.Link{Link: "disk", Subject: file.path, Why: err.Error()})
		return err
	}

	show := o.begin("reading "+filepath.Base(file.path), dataSize(content))
	defer show.end()
	var scanned scannedDisk
	scan := artifact.ScanOptions{Profile: d.Index.Profile, Memory: int64(o.maxMemory) / 4, Progress: show.add}
	c, err := compareChunks(d.Chunks(ctx), scanned.scanChunks(ctx, content, scan))
	if err != nil {
		return fmt.Errorf("comparing %s: %w", file.path, err)
	}
	show.end()
	if want := artifact.Digest(d.Digest); scanned.digest != want || len(c.areas) > 0 {
		why := fmt.Sprintf("content is %s, not %s", scanned.digest, want)
		if len(c.areas) > 0 {
			why += fmt.Sprintf("; it differs in %d places, first at byte %d", len(c.areas), c.areas[0].Offset)
		}
		o.addLink(r, verify.Link{Link: "disk", Subject: file.path, Why: why})
		return refusedError{"disk-differs", fmt.Errorf("%s: not disk %s of %s: %s", file.path, d.Name, r.Ref, why)}
	}
	o.addLink(r, verify.Link{Link: "disk", Subject: file.path, OK: true, Why: fmt.Sprintf("content is disk %s, %s", d.Name, scanned.digest)})
	return nil
}

// recordedFormat is how a file of --disk is read. The guest that owns a raw
// disk can write the header of another format onto it, so its content is the
// last to be asked.
func (o *verifyOptions) recordedFormat(store *store.Store, path string) disk.Format {
	if o.format.Format != "" {
		return o.format.Format
	}
	if abs, err := filepath.Abs(path); err == nil {
		files, err := store.DiskFiles()
		if err == nil {
			for _, f := range files {
				if f.Path == abs {
					return f.Format
				}
			}
		}
	}
	if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeDevice != 0 {
		return disk.Raw
	}
	format, _ := disk.FormatOf(path)
	return format
}

// sameSize returns what of a disk on this host is the artifact's disk: all of a
// file, but for zeros that fill up what its format rounds up to, and the
// beginning of a device.
func (o *verifyOptions) sameSize(f *disk.Image, d *artifact.Disk, path string) (disk.Reader, error) {
	size := f.Size()
	unit := int64(max(disk.DefaultSector, f.SectorSize())) // those of a VHDX
	if f.Format() == disk.VMDK || f.Format() == disk.VHD {
		unit = 1 << 20 // grains of a streamOptimized VMDK, MiB of a fixed VHD
	}
	info, err := os.Stat(path)
	switch {
	case size == d.Size, size > d.Size && size-d.Size < unit && size%512 == 0:
		return f, nil
	case err == nil && info.Mode()&fs.ModeDevice != 0 && size > d.Size:
		return beginning{f, d.Size}, nil
	}
	return nil, refusedError{"disk-differs", fmt.Errorf("%s: has %d bytes, and disk %s %d", path, size, d.Name, d.Size)}
}

// beginning is the first size bytes of a disk.
type beginning struct {
	disk.Reader
	size int64
}

func (b beginning) Size() int64 { return b.size }

func (b beginning) ReadAt(p []byte, off int64) (int, error) {
	return io.NewSectionReader(b.Reader, 0, b.size).ReadAt(p, off)
}

// addLink prints a link of the chain and notes it for the report.
func (o *verifyOptions) addLink(r *verifyReport, link verify.Link) {
	r.Chain = append(r.Chain, link)
	o.printChain([]verify.Link{link})
}

// maxPrinted is how many signatures that hold, and how many that do not, are
// printed: whoever can push can attach thousands. The JSON has all.
const maxPrinted = 16

func (g *globals) printChain(chain []verify.Link) {
	if g.quiet {
		return
	}
	signatures := map[bool]int{}
	more := func(mark string, ok bool) {
		if n := signatures[ok] - maxPrinted; n > 0 {
			g.stderr.line("%s  signature: %d more", mark, n)
		}
		signatures[ok] = 0
	}
	for _, link := range chain {
		mark := "ok     "
		if !link.OK {
			mark = "refused"
		}
		if link.Link == "signature" {
			if signatures[link.OK]++; signatures[link.OK] > maxPrinted {
				continue
			}
		} else {
			more("ok     ", true)
			more("refused", false)
		}
		g.stderr.line("%s  %s %s: %s", mark, link.Link, link.Subject, link.Why)
	}
}
