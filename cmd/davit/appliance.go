package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/ovf"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// An appliance source is a machine that is pushed with its files.
type applianceSource struct {
	*appliance.Appliance
	path   string
	wanted *machine.Envelope // with all machines, or the one that is wanted
	names  []string          // of the disks that are wanted, in the artifact

	// own says that the source's own OVF is the config. Otherwise one is
	// written: the source has none, or several machines of which one is wanted.
	own bool

	report *appliance.Report // of verify; nil: there is no manifest
}

// newApplianceSource is about all machines of a. It tells what is not as it
// should be.
func newApplianceSource(g *globals, a *appliance.Appliance, path string) *applianceSource {
	warnQuirks(g, path, a)
	return &applianceSource{Appliance: a, path: path, wanted: a.Envelope, names: artifactNames(a.Disks), own: a.OVF != nil}
}

// maxQuirks is how many are told of those of one descriptor.
const maxQuirks = 20

// warnQuirks tells what of a descriptor was taken though it is not as it should be.
func warnQuirks(g *globals, path string, a *appliance.Appliance) {
	warnings := a.Warnings()
	for i, w := range warnings {
		if i == maxQuirks {
			g.stderr.warn("%s: %d more of the like", path, len(warnings)-i)
			return
		}
		g.stderr.warn("%s: %s", path, printable(w))
	}
}

// openAppliance opens the SOURCE that describes a machine, nil if what was named
// are disks. What -f says the format of is a disk.
func (o *pushOptions) openAppliance(ctx context.Context, sources []source) (*applianceSource, error) {
	if o.source.format.Format != "" {
		return nil, o.appliancesOnly()
	}
	for _, src := range sources {
		if src.path == "-" {
			continue
		}
		a, err := o.source.openAppliance(ctx, src.path, o.unverified)
		if err != nil {
			return nil, err
		}
		if a == nil {
			continue
		}
		s, err := o.takeAppliance(a, src, len(sources))
		if err != nil {
			return nil, errors.Join(err, a.Close())
		}
		return s, nil
	}
	return nil, o.appliancesOnly()
}

// openAppliance opens the machine at path, nil if it is none. The caller closes
// it.
func (s *sourceFlags) openAppliance(ctx context.Context, path string, unverified bool) (*appliance.Appliance, error) {
	a, err := appliance.Open(ctx, path, appliance.Options{BackingDir: s.backingDir, Unverified: unverified})
	var remote *appliance.RemoteError
	var medium *appliance.CDFormatError
	switch {
	case errors.Is(err, appliance.ErrNotMachine):
		if folderExists(path) { // nor is it a disk
			return nil, err
		}
		return nil, nil
	case errors.As(err, &remote):
		fetch, driver := fetchRemote(remote)
		return nil, withHint(err, "%s, and in the descriptor a <disk type='file'> with %s<source file='disk.img'/>", fetch, driver)
	case errors.As(err, &medium):
		return nil, withHint(err, "qemu-img convert -O raw %s cd.iso, and cd.iso in the descriptor (of libvirt: with <driver name='qemu' type='raw'/>)", quoted(medium.Name))
	case errors.Is(err, appliance.ErrHidden) && s.backingDir == "":
		return nil, withHint(err, hintHidden)
	case errors.Is(err, appliance.ErrMissing) && s.backingDir == "" && !isPackage(path):
		return nil, withHint(err, "--backing-dir DIR, the folder that the files lie in")
	}
	if err != nil && strings.EqualFold(filepath.Ext(path), ".tar") {
		err = withHint(err, "%s", untar(path))
	}
	if err == nil && s.snapshot != "" {
		err = errors.Join(usagef("--snapshot: %s is no disk", path), a.Close())
	}
	return a, err
}

// fetchRemote is the command that makes a file of what a descriptor has in a
// network or in a pool, and what the driver of its disk becomes by that. Names in
// it are somebody else's; so is what the disk begins with, which is why the format
// is said.
func fetchRemote(e *appliance.RemoteError) (command, driver string) {
	scheme, rest, _ := strings.Cut(e.URL, ":")
	switch scheme {
	case "volume":
		pool, volume, _ := strings.Cut(rest, "/")
		return fmt.Sprintf("virsh vol-download --pool %s %s disk.img", quoted(pool), quoted(volume)), ""
	case "rbd":
		_, image, _ := strings.Cut(strings.TrimPrefix(rest, "//"), "/") // which follows the host
		return fmt.Sprintf("rbd export %s disk.img", quoted(image)), ""
	}
	format := ""
	switch f := disk.Format(e.Format); f {
	case "":
	case disk.VHD:
		format = "-f vpc "
	default:
		format = fmt.Sprintf("-f %s ", quoted(string(f)))
	}
	return fmt.Sprintf("qemu-img convert %s-O raw %s disk.img", format, quoted(e.URL)), "<driver name='qemu' type='raw'/> and "
}

// isPackage says whether path is named as an OVF package is, or is a folder:
// its files are where it is, and nowhere else.
func isPackage(path string) bool {
	ext := strings.ToLower(filepath.Ext(path))
	return !isFile(path) || ext == ".ova" || ext == ".ovf"
}

// appliancesOnly refuses flags that disks alone have no use for.
func (o *pushOptions) appliancesOnly() error {
	if o.machineID != "" {
		return usagef("--machine %s: SOURCE describes no machine", o.machineID)
	}
	if o.unverified {
		return usagef("--unverified-package: SOURCE is no package")
	}
	return nil
}

// errNamed refuses a name for the disk of what has several.
func errNamed(src source) error {
	return usagef("%s=%s: a machine's disks have names", src.name, src.path)
}

// errMachineGiven refuses flags that describe the machine of bare disks.
func errMachineGiven(path string) error {
	return usagef("%s: it describes a machine; flags describe that of bare disks", path)
}

func (o *pushOptions) takeAppliance(a *appliance.Appliance, src source, sources int) (*applianceSource, error) {
	path := src.path
	if sources > 1 {
		return nil, usagef("%s: a machine brings its own disks; it is the only SOURCE", path)
	}
	if src.named {
		return nil, errNamed(src)
	}
	if o.machineID != "" && o.original && len(a.Machines) > 1 {
		return nil, usagef("--keep-original keeps all of %s; with --machine a part of it is pushed", path)
	}
	if o.machine.given() {
		return nil, errMachineGiven(path)
	}
	s := newApplianceSource(o.globals, a, path)
	if o.machineID != "" {
		var err error
		if s.wanted, err = oneMachine(a.Envelope, o.machineID); err != nil {
			return nil, err
		}
		s.own = s.own && len(a.Machines) == 1
		s.names = artifactNames(s.wanted.Disks)
	}
	if !s.own { // else the OVF has it
		warnLosses(o.globals, path, s.wanted.AllUnread())
		_, losses, err := s.describe(nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		warnLosses(o.globals, "the OVF", losses)
	}
	warnPublished(o.globals, s.wanted)
	sayAlong(o.globals, path, s.files())
	for _, f := range s.files() {
		if strings.EqualFold(machine.Base(f.Name), "tpm.dat") { // oVirt's, of which no OVF says what it is
			o.stderr.warn("%s is published: it is the state of a TPM, with its keys", f.Name)
		}
	}
	if o.original && a.OVF == nil {
		o.stderr.warn("%s is published as it is (--keep-original): with paths of this host, and all passwords that are in it", a.Descriptor.Name)
	}
	return s, nil
}

// artifactNames are what the disks of an envelope are called in an artifact:
// their own names, but numbers where a name does not fit. Where that gives one
// name to two, all have numbers.
func artifactNames(disks []machine.Disk) []string {
	names := make([]string, len(disks))
	seen := make(map[string]bool)
	for i, d := range disks {
		names[i] = d.Name
		if !artifact.ValidDiskName(d.Name) {
			names[i] = "disk" + strconv.Itoa(i)
		}
		seen[strings.ToLower(names[i])] = true
	}
	if len(seen) < len(disks) {
		for i := range disks {
			names[i] = "disk" + strconv.Itoa(i)
		}
	}
	return names
}

// images opens the disks.
func (s *applianceSource) images(ctx context.Context, g *globals, o *sourceFlags) (images []*image, err error) {
	for i := range s.wanted.Disks {
		img, err := s.open(ctx, g, o, i)
		if err != nil {
			closeAll(&err, images)
			return nil, err
		}
		images = append(images, img)
	}
	return images, nil
}

// find returns the number of the disk of that name, or of the only one.
func (s *applianceSource) find(name string) (int, error) {
	i := slices.Index(s.names, name)
	if name == "" && len(s.names) == 1 {
		i = 0
	}
	all := cmp.Or(strings.Join(s.names, ", "), "no disks")
	switch {
	case i < 0 && name == "" && len(s.names) > 1:
		return 0, withHint(usagef("%s: %d disks: which one? It has %s", s.path, len(s.names), all), "--disk %s", s.names[0])
	case i < 0:
		return 0, fmt.Errorf("disk %q: %w: %s has %s", name, errNotFound, s.path, all)
	}
	return i, nil
}

// open opens disk i of those that are wanted.
func (s *applianceSource) open(ctx context.Context, g *globals, o *sourceFlags, i int) (*image, error) {
	img, err := s.openContent(ctx, g, o, s.wanted.Disks[i].Name)
	if err != nil {
		return nil, sourceError{fmt.Errorf("%s: disk %s: %w", s.path, s.names[i], s.misnamed(i, err))}
	}
	img.name = s.names[i]
	img.findSectors(g, describedSector(s.wanted, s.wanted.Disks[i].Name))
	if s.wanted.Disks[i].Format == string(disk.Raw) {
		// Its guest may have written that, so it stays what it is called.
		if looks := disk.Looks(img); looks != "" {
			g.stderr.warn("%s: disk %s: %s calls it raw, and it looks like %s: it is read as raw", s.path, img.name, descriptors[s.Kind], looks)
		}
	}
	if said := s.wanted.Disks[i].Capacity; said > 0 && said != img.Size() {
		g.stderr.warn("%s: disk %s has %d bytes, and %s says %d", s.path, img.name, img.Size(), s.Descriptor.Name, said)
	}
	return img, nil
}

// descriptors are what people call the files that describe machines.
var descriptors = map[appliance.Kind]string{
	appliance.OVA: "the OVF", appliance.OVF: "the OVF", appliance.VMX: "the VMX", appliance.Libvirt: "the domain", appliance.VirtualBox: "the .vbox",
}

// misnamed says of a disk that cannot be opened that it is another format than
// the descriptor says, if it is.
func (s *applianceSource) misnamed(i int, err error) error {
	said := disk.Format(s.wanted.Disks[i].Format)
	var is string
	var other *disk.FormatError
	var compressed *disk.CompressedError
	switch {
	case errors.As(err, &other) && other.Found == "":
		return fmt.Errorf("%s: %s calls it %s, and it is raw or damaged: %w", printable(s.wanted.Disks[i].File), descriptors[s.Kind], said.Title(), err)
	case errors.As(err, &other):
		is = other.Found
	case said != "" && errors.As(err, &compressed):
		is = "compressed by " + compressed.By
	default:
		return err
	}
	return fmt.Errorf("%s: %s calls it %s, and it is %s", printable(s.wanted.Disks[i].File), descriptors[s.Kind], said.Title(), is)
}

// openContent opens the disk of that name in the envelope.
func (s *applianceSource) openContent(ctx context.Context, g *globals, o *sourceFlags, name string) (*image, error) {
	// The appliance has all disks, the rest is about those of the machine that is wanted.
	i := slices.IndexFunc(s.Envelope.Disks, func(d machine.Disk) bool { return d.Name == name })
	from, err := s.Disk(i)
	if err != nil {
		return nil, err
	}
	path := s.path
	var img *disk.Image
	switch format := disk.Format(from.Format); {
	case from.Compression != "":
		return s.openCompressed(ctx, g, o, from)
	case from.Section != nil:
		path += ": " + from.Name
		img, err = disk.OpenReader(from.Section, disk.OpenOptions{Format: format, Described: true})
	case from.Path != "":
		path = from.Path
		img, err = disk.Open(path, disk.OpenOptions{
			Format: format, Described: true, BackingDir: from.BackingDir, Hidden: from.Hidden, Extents: true,
		})
		err = hintForImage(err, path)
	default:
		img, err = disk.OpenReader(blankDisk(s.Envelope.Disks[i].Capacity), disk.OpenOptions{Format: disk.Raw})
	}
	if err != nil {
		return nil, err
	}
	warnMoved(g, img, path)
	return &image{img, "", path, true, nil, func() error { return nil }, 0}, nil
}

// openCompressed unpacks a file of a package. What its disk cannot have is a
// bomb, whatever --max-unpacked allows.
func (s *applianceSource) openCompressed(ctx context.Context, g *globals, o *sourceFlags, from appliance.Source) (*image, error) {
	size := from.Section.Size()
	p := g.begin("unpacking "+from.Name, size)
	defer p.end()
	packed := counting(untilDone(ctx, io.NewSectionReader(from.Section, 0, size)), p.add)
	plain, err := disk.NewDecompressor(packed)
	if err != nil {
		return nil, fmt.Errorf("unpacking %s, which the OVF calls %s: %w", from.Name, from.Compression, err)
	}
	defer plain.Close()

	left := from.Limit
	bounded := readerFunc(func(b []byte) (int, error) {
		n, err := plain.Read(b)
		if left -= int64(n); left < 0 {
			return 0, machine.Malformed("it has more than %d bytes, too many for its disk", from.Limit)
		}
		return n, err
	})
	src := source{path: s.path + ": " + from.Name}
	return g.openSpooled(ctx, src, disk.OpenOptions{Format: disk.Format(from.Format), Described: true}, "unpacking "+from.Name, bounded, int64(o.maxUnpacked))
}

// A blankDisk has a size and no content.
type blankDisk int64

func (b blankDisk) Size() int64 { return int64(b) }

func (b blankDisk) ReadAt(p []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(p)), int64(b)-off)))
	clear(p[:n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// NextExtent is what [disk.NextExtent] calls.
func (b blankDisk) NextExtent(int64) (disk.Extent, error) { return disk.Extent{}, nil }

// config returns the OVF of the artifact: the source's own, or one that is
// written.
func (s *applianceSource) config(disks []artifact.DiskDescriptor) ([]byte, error) {
	if s.own {
		return s.OVF, nil
	}
	data, _, err := s.describe(disks)
	return data, err
}

// describe returns an OVF that says what the source says of machines whose disks
// are those of an artifact; nil: their sizes are as the source has them.
func (s *applianceSource) describe(disks []artifact.DiskDescriptor) ([]byte, []machine.Loss, error) {
	e := *s.wanted
	e.Disks, e.Files, e.Machines = slices.Clone(e.Disks), nil, nil
	place := func(d *machine.Disk) {
		for i, name := range s.names {
			if s.wanted.Disks[i].Name == d.Name {
				d.Name, d.File, d.Format, d.Parent = name, fmt.Sprintf("disk%d.img", i), string(disk.Raw), ""
				if disks != nil {
					d.Capacity = disks[i].Size
				}
				return
			}
		}
	}
	for i := range e.Disks {
		place(&e.Disks[i])
		e.AddFile(e.Disks[i].File)
	}
	for _, m := range s.wanted.Machines {
		m := *m
		m.Disks = slices.Clone(m.Disks)
		for i := range m.Disks {
			place(&m.Disks[i])
		}
		for _, cd := range m.CDROMs {
			e.AddFile(cd.File)
		}
		e.AddFile(m.NVRAM)
		e.Machines = append(e.Machines, &m)
	}
	return ovf.Write(&e, ovf.WriteOptions{})
}

// layerTypes are the media types of package files.
var layerTypes = map[appliance.Role]string{
	appliance.RoleFile:        artifact.TypeFile,
	appliance.RoleCD:          artifact.TypeFile,
	appliance.RoleNVRAM:       artifact.TypeNVRAM,
	appliance.RoleManifest:    artifact.TypeOVFManifest,
	appliance.RoleCertificate: artifact.TypeOVFCert,
}

// files are those that travel as they are. The manifest and its certificate
// belong to the source's own OVF.
func (s *applianceSource) files() []appliance.File {
	files := s.Files()
	if s.own {
		return files
	}
	named := make(map[string]bool)
	for _, m := range s.wanted.Machines {
		named[m.NVRAM] = true
		for _, cd := range m.CDROMs {
			named[cd.File] = true
		}
	}
	return slices.DeleteFunc(files, func(f appliance.File) bool {
		return f.Role == appliance.RoleManifest || f.Role == appliance.RoleCertificate || !named[f.Name]
	})
}

// pushFiles reads the files that travel as they are, and sends them.
func (p *pusher) pushFiles(ctx context.Context) ([]ocispec.Descriptor, error) {
	var descs []ocispec.Descriptor
	for _, f := range p.appliance.files() {
		size := f.Content.Size()
		h := sha256.New()
		if _, err := io.Copy(h, untilDone(ctx, io.NewSectionReader(f.Content, 0, size))); err != nil {
			return nil, fmt.Errorf("reading %s: %w", f.Name, err)
		}
		desc := ocispec.Descriptor{
			MediaType:   layerTypes[f.Role],
			Digest:      artifact.Digest([sha256.Size]byte(h.Sum(nil))),
			Size:        size,
			Annotations: map[string]string{ocispec.AnnotationTitle: f.Name},
		}
		descs = append(descs, desc)
		if p.dryRun {
			continue
		}
		err := p.repo.PushBlob(ctx, desc, func() (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(f.Content, 0, size)), nil
		})
		if err != nil {
			return nil, fmt.Errorf("pushing %s: %w", f.Name, err)
		}
	}
	return descs, nil
}

// blame finds the reason why a disk cannot be read: if the package is not what its
// manifest says, it was changed.
func (s *applianceSource) blame(ctx context.Context, err error) error {
	if source := (sourceError{}); !errors.As(err, &source) || errors.Is(err, appliance.ErrDigest) {
		return err
	}
	if _, wrong := s.Verify(ctx); errors.Is(wrong, appliance.ErrDigest) {
		return fmt.Errorf("%s: %w: %w", s.path, wrong, err)
	}
	return err
}

// verify compares what was read with the manifest of the package. It comes before
// anything names what was made of it.
func (s *applianceSource) verify(ctx context.Context, g *globals) error {
	r, err := s.Verify(ctx)
	if err != nil {
		return sourceError{fmt.Errorf("%s: %w", s.path, err)}
	}
	if r.Manifest == "" {
		return nil
	}
	s.report = &r
	for _, why := range r.Wrong {
		g.stderr.warn("%s: pushed all the same, as --unverified-package says: %s", s.path, why)
	}
	for _, name := range r.Unlisted {
		g.stderr.warn("%s: its manifest does not name %s, which is not checked", s.path, name)
	}
	if len(r.Wrong) == 0 {
		files := make(map[string]bool) // which can have several digests
		for _, f := range r.Files {
			files[f.Name] = true
		}
		g.say("%s: %d files are what its manifest says", s.path, len(files))
	}
	switch c := r.Certificate; {
	case c == nil || !c.SignedOK:
	case c.Trusted:
		g.say("%s: signed by %s, whose certificate %s vouches for", s.path, c.Subject, c.Issuer)
	default:
		g.stderr.warn("%s: signed by %s, who is not known here: %s", s.path, c.Subject, c.Chain)
	}
	return nil
}
