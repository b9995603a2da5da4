package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/guest"
	"github.com/davit-oci/davit/internal/fetch"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/ovf"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/verify"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

type inspectOptions struct {
	*globals
	registryFlags
	source    sourceFlags
	raw       bool
	ovf       bool
	referrers bool
}

func newInspect(g *globals) *cobra.Command {
	o := inspectOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "inspect REF|SOURCE",
		Short: "Show what is in an artifact, an appliance or a disk image",
		Long: `Show what is in an artifact, an appliance or a disk image. Of an artifact no data
is fetched, and no signature is checked; of an appliance no disk is opened.`,
		Args: exactArgs("REF or SOURCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInspect(cmd.Context(), cmd.OutOrStdout(), args[0], o)
		},
	}
	o.registryFlags.flags(cmd)
	o.source.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&o.raw, "raw", false, "print the manifest as it is stored; what is not printable is escaped")
	f.BoolVar(&o.ovf, "ovf", false, "print the OVF as it is stored; what is not printable is escaped")
	f.BoolVar(&o.referrers, "referrers", false, "print what refers to the artifact, a line each")
	return cmd
}

func runInspect(ctx context.Context, stdout io.Writer, name string, o inspectOptions) error {
	only := 0
	for _, given := range []bool{o.raw, o.ovf, o.referrers} {
		if given {
			only++
		}
	}
	if only > 1 || o.json && (o.raw || o.ovf) {
		return usagef("--raw, --ovf, --referrers and --json: one of them")
	}
	src := parseSource(name)
	if isFile(src.path) {
		if only > 0 {
			return usagef("%s: a file has no manifest; --raw, --ovf and --referrers are about artifacts", name)
		}
		return inspectFile(ctx, stdout, src, o)
	}
	ref, err := parseRef(name)
	if err != nil {
		return err
	}
	return inspectArtifact(ctx, stdout, ref, o)
}

type inspectReport struct {
	report
	Ref         string              `json:"ref"`
	Digest      digest.Digest       `json:"digest"`
	MediaType   string              `json:"mediaType"`
	Platform    string              `json:"platform"`
	Created     string              `json:"created"`
	Annotations map[string]string   `json:"annotations"`
	Machine     shownMachine        `json:"machine"`            // of several, only their disks
	Machines    []shownMachine      `json:"machines,omitempty"` // where there are several
	Disks       []inspectedDisk     `json:"disks"`
	Layers      []inspectedLayer    `json:"layers"`
	Base        *inspectedBase      `json:"base"`
	ReusedFrom  []string            `json:"reusedFrom"` // a manifest does not say
	Referrers   []inspectedReferrer `json:"referrers"`
	Manifests   []inspectedManifest `json:"manifests,omitempty"` // of an index
	Signatures  int                 `json:"signatures"`          // not checked

	envelope *machine.Envelope // nil: the OVF could not be read, or there is none
}

type inspectedDisk struct {
	Name        string        `json:"name"`
	VirtualSize int64         `json:"virtualSize"`
	SectorSize  int           `json:"logicalSectorSize,omitempty"` // where it is not 512
	DataSize    int64         `json:"dataSize,omitempty"`          // of a file: not known to be zeros
	Digest      digest.Digest `json:"digest,omitempty"`
	Format      disk.Format   `json:"format,omitempty"`
	File        string        `json:"file,omitempty"`
	Partitions  []inspectedFS `json:"partitions,omitempty"`
}

type inspectedFS struct {
	Partition  int    `json:"partition,omitempty"`
	Filesystem string `json:"filesystem,omitempty"`
	Offset     int64  `json:"offset"`
	Length     int64  `json:"length"`
}

type inspectedLayer struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	Size      int64         `json:"size"` // as stored
	Title     string        `json:"title,omitempty"`
}

type inspectedBase struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

type inspectedReferrer struct {
	Digest       digest.Digest `json:"digest"`
	ArtifactType string        `json:"artifactType"`
	Size         int64         `json:"size"`
	Signature    bool          `json:"signature"` // says that it is one
}

type inspectedManifest struct {
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	Platform  string        `json:"platform,omitempty"`
	Size      int64         `json:"size"`
}

func newInspectReport() inspectReport {
	return inspectReport{
		report:      newReport("davit inspect"),
		Annotations: map[string]string{},
		Machine:     showMachine(&machine.Machine{}),
		Disks:       []inspectedDisk{},
		Layers:      []inspectedLayer{},
		ReusedFrom:  []string{},
		Referrers:   []inspectedReferrer{},
	}
}

func inspectArtifact(ctx context.Context, stdout io.Writer, ref registry.Reference, o inspectOptions) (err error) {
	repo, err := o.open(ctx, o.globals, ref)
	if err != nil {
		return err
	}
	defer closeInto(&err, repo)
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return err
	}
	found, err := verify.Unverified(ctx, repo, desc) // it is shown, and nothing else is done with it
	if err != nil {
		return err
	}
	raw := found.Subject.Manifest()
	if o.raw {
		return o.printStored(stdout, raw, printableJSON(raw), "manifest "+desc.Digest.String())
	}

	r := newInspectReport()
	r.Ref, r.Digest, r.MediaType = ref.WithDigest(desc.Digest).String(), desc.Digest, desc.MediaType
	if found.Subject.IsIndex() {
		err = r.addIndex(found.Subject)
	} else {
		err = o.addArtifact(ctx, &r, repo, desc, raw)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.Ref, err)
	}
	if o.ovf {
		return o.printOVF(ctx, stdout, repo, desc, raw)
	}
	referrers, err := repo.ReadReferrers(ctx, desc)
	if errors.Is(err, registry.ErrIncomplete) {
		o.stderr.warn("not all referrers are shown: %v", err)
	} else if err != nil {
		return err
	}
	r.addReferrers(referrers)
	switch {
	case o.json:
		return writeJSON(stdout, r)
	case o.referrers:
		return r.printReferrers(stdout)
	}
	return r.print(stdout)
}

// addArtifact adds what manifest and OVF say. Nothing else is fetched.
func (o *inspectOptions) addArtifact(ctx context.Context, r *inspectReport, repo *registry.Repository, desc ocispec.Descriptor, raw []byte) error {
	m, err := artifact.ParseManifest(raw, desc)
	if err != nil {
		return err
	}
	if m.Annotations != nil {
		r.Annotations = m.Annotations
	}
	r.Platform = m.Annotations[artifact.AnnotationPlatform]
	r.Created = m.Annotations[ocispec.AnnotationCreated]
	if name := m.Annotations[ocispec.AnnotationBaseImageName]; name != "" {
		r.Base = &inspectedBase{name, m.Annotations[ocispec.AnnotationBaseImageDigest]}
	}
	for _, d := range m.Disks {
		r.Disks = append(r.Disks, inspectedDisk{Name: d.Name, VirtualSize: d.Size, SectorSize: usualIsZero(d.Sector), Digest: artifact.Digest(d.Digest)})
	}
	for _, l := range slices.Concat(m.Layers, m.Files) {
		r.Layers = append(r.Layers, inspectedLayer{l.Digest, l.MediaType, l.Size, l.Annotations[ocispec.AnnotationTitle]})
	}
	config, err := readOVF(ctx, repo, m)
	if err != nil {
		return err
	}
	e, err := ovf.Parse(config)
	if err != nil {
		o.stderr.warn("the OVF cannot be read: %v", err)
		return nil
	}
	addSectors(e, m)
	r.addMachines(e)
	return nil
}

func (r *inspectReport) addMachines(e *machine.Envelope) {
	r.envelope = e
	if len(e.Machines) == 1 {
		r.Machine = showOnly(e)
		return
	}
	r.Machine = showMachine(&machine.Machine{Disks: e.Disks, Unread: e.Unread})
	for _, m := range e.Machines {
		r.Machines = append(r.Machines, showMachine(m))
	}
}

// readOVF fetches the OVF alone.
func readOVF(ctx context.Context, repo *registry.Repository, m *artifact.Manifest) ([]byte, error) {
	return readBlob(ctx, repo, m.OVF, "the OVF", machine.MaxDescriptor)
}

// readBlob fetches a blob that is kept in memory, of up to limit bytes. what
// it is called is for errors.
func readBlob(ctx context.Context, repo *registry.Repository, desc ocispec.Descriptor, what string, limit int64) ([]byte, error) {
	data, err := fetch.All(ctx, repo, desc, limit)
	if f, ok := errors.AsType[*fetch.Fault](err); ok && errors.Is(f.Kind, fetch.ErrTooLarge) {
		return nil, refusedError{"too-large", fmt.Errorf("%s %s", what, f.Why)}
	}
	return data, err
}

func (o *inspectOptions) printOVF(ctx context.Context, stdout io.Writer, repo *registry.Repository, desc ocispec.Descriptor, raw []byte) error {
	if desc.MediaType == ocispec.MediaTypeImageIndex {
		return fmt.Errorf("an index of several artifacts has no OVF; name one of them: %w", errNotFound)
	}
	m, err := artifact.ParseManifest(raw, desc)
	if err != nil {
		return err
	}
	config, err := readOVF(ctx, repo, m)
	if err != nil {
		return err
	}
	return o.printStored(stdout, config, printableXML(config), "OVF "+m.OVF.Digest.String())
}

// printStored prints a blob, whose bytes are those of its digest unless some
// of them are not printable.
func (o *inspectOptions) printStored(stdout io.Writer, stored, shown []byte, name string) error {
	if !bytes.Equal(stored, shown) {
		o.stderr.warn("the %s has characters that are not printable: they are escaped or replaced, and what is printed has another digest", name)
	}
	_, err := stdout.Write(shown)
	return err
}

// addIndex adds the artifacts that an index has.
func (r *inspectReport) addIndex(s verify.Subject) error {
	index, err := s.Index()
	if err != nil {
		return err
	}
	if index.Annotations != nil {
		r.Annotations = index.Annotations
	}
	r.Created = index.Annotations[ocispec.AnnotationCreated]
	for _, m := range index.Manifests {
		r.Manifests = append(r.Manifests, inspectedManifest{m.Digest, m.MediaType, platformOf(m), m.Size})
	}
	return nil
}

// platformOf is what the descriptor in an index says, as OS/ARCH[/VARIANT].
func platformOf(m ocispec.Descriptor) string {
	if p := m.Annotations[artifact.AnnotationPlatform]; p != "" || m.Platform == nil {
		return p
	}
	p := m.Platform.OS + "/" + m.Platform.Architecture
	if m.Platform.Variant != "" {
		p += "/" + m.Platform.Variant
	}
	return p
}

func (r *inspectReport) addReferrers(referrers []ocispec.Descriptor) {
	for _, d := range referrers {
		signature := claimsSignature(d)
		if signature {
			r.Signatures++
		}
		r.Referrers = append(r.Referrers, inspectedReferrer{d.Digest, d.ArtifactType, d.Size, signature})
	}
}

// claimsSignature says whether a referrer's annotations call it a signature,
// as cosign and davit write them. Only verifying tells if it is one.
func claimsSignature(d ocispec.Descriptor) bool {
	kind := d.Annotations["dev.sigstore.bundle.predicateType"]
	return strings.HasPrefix(d.ArtifactType, "application/vnd.dev.sigstore.bundle.") &&
		(kind == "" || kind == "https://sigstore.dev/cosign/sign/v1")
}

// A lines writes lines until one fails. What registries and files say is made printable.
type lines struct {
	w   io.Writer
	err error
}

func (l *lines) printf(format string, args ...any) {
	if l.err == nil {
		_, l.err = fmt.Fprintln(l.w, printable(fmt.Sprintf(format, args...)))
	}
}

func (r *inspectReport) printReferrers(w io.Writer) error {
	out := lines{w: w}
	for _, f := range r.Referrers {
		out.printf("%s %s %d", f.Digest, f.ArtifactType, f.Size)
	}
	return out.err
}

func (r *inspectReport) print(w io.Writer) error {
	out := lines{w: w}
	out.printf("%s", r.Ref)
	if r.Created != "" {
		out.printf("created %s", r.Created)
	}
	if r.Platform != "" {
		out.printf("platform %s", r.Platform)
	}
	for _, m := range r.Manifests {
		out.printf("for %s: %s", cmp.Or(m.Platform, "no platform"), m.Digest)
	}
	if out.err == nil && r.envelope != nil {
		out.err = printEnvelope(w, r.envelope, false)
	}
	for _, d := range r.Disks {
		out.printf("disk %s: %s, content %s", d.Name, joined(humanBytes(d.VirtualSize), sectorText(d.SectorSize)), d.Digest)
	}
	var stored int64
	for _, l := range r.Layers {
		stored += l.Size
	}
	if len(r.Layers) > 0 {
		out.printf("layers: %d, %s stored", len(r.Layers), humanBytes(stored))
	}
	for _, l := range r.Layers {
		if l.Title != "" {
			out.printf("file %s: %s", l.Title, humanBytes(l.Size))
		}
	}
	if r.Base != nil {
		out.printf("base %s %s", r.Base.Name, r.Base.Digest)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Annotations)) {
		if !strings.HasPrefix(k, "org.opencontainers.image.base.") && k != ocispec.AnnotationCreated && k != artifact.AnnotationPlatform {
			out.printf("%s=%s", k, r.Annotations[k])
		}
	}
	noun := "signatures"
	if r.Signatures == 1 {
		noun = "signature"
	}
	out.printf("%d %s, not checked", r.Signatures, noun)
	return out.err
}

// inspectFile shows a SOURCE: a disk, or an appliance if no format is given for it.
func inspectFile(ctx context.Context, stdout io.Writer, src argument, o inspectOptions) error {
	if o.source.format.Format == "" && src.path != "-" {
		a, err := appliance.Open(ctx, src.path, appliance.Options{DescriptorOnly: true})
		if err == nil {
			source.WarnQuirks(src.path, a, observer{o.globals})
			return inspectAppliance(stdout, src, a, o)
		}
		if !errors.Is(err, appliance.ErrNotMachine) {
			return err
		}
	}
	return inspectDisk(ctx, stdout, src, o)
}

// inspectAppliance shows what the descriptor of an appliance says. Its disks
// are not opened.
func inspectAppliance(stdout io.Writer, src argument, a *appliance.Appliance, o inspectOptions) (err error) {
	defer closeInto(&err, a)
	r := newInspectReport()
	r.addMachines(a.Envelope)
	for _, d := range a.Disks {
		r.Disks = append(r.Disks, inspectedDisk{Name: d.Name, VirtualSize: d.Capacity, SectorSize: a.Envelope.SectorSize(d.Name), Format: disk.Format(d.Format), File: d.File})
	}
	if o.json {
		return writeJSON(stdout, r)
	}
	out := lines{w: stdout}
	out.printf("%s: %s", src.path, a.Kind)
	if out.err == nil {
		out.err = printEnvelope(stdout, a.Envelope, false)
	}
	for _, f := range a.Envelope.Files {
		size := ""
		if f.Size >= 0 {
			size = ": " + humanBytes(f.Size)
		}
		out.printf("file %s%s", f.Name, size)
	}
	return out.err
}

func inspectDisk(ctx context.Context, stdout io.Writer, src argument, o inspectOptions) (err error) {
	store := &lazyStore{ctx: ctx, g: o.globals}
	defer closeInto(&err, store)
	img, err := o.source.open(ctx, o.globals, src, store.Scratch)
	if err != nil {
		return err
	}
	defer closeInto(&err, img)
	d := inspectedDisk{Name: cmp.Or(src.name, "disk0"), VirtualSize: img.Size(), SectorSize: sectorOf(img), Format: img.Format(), File: src.path}
	for e, err := range disk.Extents(img) {
		if err != nil {
			return err
		}
		d.DataSize += e.Length
	}
	for _, p := range guest.Partitions(img) {
		d.Partitions = append(d.Partitions, inspectedFS{p.Number, p.Filesystem, p.Start, p.End - p.Start})
	}
	if o.json {
		r := newInspectReport()
		r.Disks = append(r.Disks, d)
		return writeJSON(stdout, r)
	}
	out := lines{w: stdout}
	out.printf("%s: %s, %s, up to %s of data", d.File, d.Format, joined(humanBytes(d.VirtualSize), sectorText(d.SectorSize)), humanBytes(d.DataSize))
	for _, p := range d.Partitions {
		where := fmt.Sprintf("partition %d", p.Partition)
		if p.Partition == 0 {
			where = "no partitions"
		}
		note := ""
		if p.Offset%4096 != 0 {
			note = "; does not begin at a multiple of 4096, so that it shares little with others"
		}
		out.printf("%s: %s, %s at %d%s", where, cmp.Or(p.Filesystem, "unknown content"), humanBytes(p.Length), p.Offset, note)
	}
	return out.err
}
