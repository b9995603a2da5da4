package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/ovf"
)

// ErrNotFound is wrapped by the error about a disk that a machine does not have.
var ErrNotFound = errors.New("not found")

// A WhichDiskError says that there are several disks, and that one of them must be
// named.
type WhichDiskError struct {
	Path  string
	Names []string // of the disks; at least two
}

func (e *WhichDiskError) Error() string {
	return fmt.Sprintf("%s: %d disks: which one? It has %s", e.Path, len(e.Names), strings.Join(e.Names, ", "))
}

// Machines are the machines of a source, with the files that belong to them.
type Machines struct {
	*appliance.Appliance

	// Path is that of the source.
	Path string

	// Envelope describes all machines, or the only one after [Machines.Choose]. It
	// takes the place of Appliance.Envelope.
	Envelope *machine.Envelope

	// Names are those of the envelope's disks in an artifact.
	Names []string

	// OwnOVF says that the source's own OVF describes exactly the envelope.
	// Otherwise one is written: the source has none, or more machines.
	OwnOVF bool

	// Report is what [Machines.Verify] has found out. nil: it was not called, or
	// there is no manifest.
	Report *appliance.Report

	o Options
}

// OpenMachines opens the descriptor at path with its machines. It warns of what was
// taken although it breaks the descriptor's format. Errors are those of
// [appliance.Open], in an [Error]: [appliance.ErrNotMachine] may be a disk. The
// caller closes the machines.
func OpenMachines(ctx context.Context, path string, o Options) (*Machines, error) {
	a, err := appliance.Open(ctx, path, appliance.Options{BackingDir: o.BackingDir, Unverified: o.Unverified})
	if err != nil {
		return nil, o.failed(path, err)
	}
	WarnQuirks(path, a, o.Observer)
	return &Machines{Appliance: a, Path: path, Envelope: a.Envelope, Names: diskNames(a.Disks), OwnOVF: a.OVF != nil, o: o}, nil
}

// maxQuirks is how many are told of those of one descriptor.
const maxQuirks = 20

// WarnQuirks warns of what of a descriptor was taken although it breaks the
// format.
func WarnQuirks(path string, a *appliance.Appliance, to Observer) {
	warnings := a.Warnings()
	for i, w := range warnings {
		if i == maxQuirks {
			to.Warn(fmt.Sprintf("%s: %d more of the like", path, len(warnings)-i))
			return
		}
		to.Warn(fmt.Sprintf("%s: %s", path, w))
	}
}

// Choose makes s about the machine with this ID, or with an empty id about the
// only one. Errors are those of [machine.Envelope.Only].
func (s *Machines) Choose(id string) error {
	one, err := s.Appliance.Envelope.Only(id)
	if err != nil {
		return err
	}
	s.Envelope, s.Names = one, diskNames(one.Disks)
	s.OwnOVF = s.OVF != nil && len(s.Appliance.Machines) == 1
	return nil
}

// diskNames are what the disks of an envelope are called in an artifact: their own
// names, and numbers where a name does not fit. Where that gives one name to two
// disks, all have numbers.
func diskNames(disks []machine.Disk) []string {
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

// OpenDisks opens all disks of the envelope, in its order. The caller closes them.
func (s *Machines) OpenDisks(ctx context.Context) (images []*Image, err error) {
	for i := range s.Envelope.Disks {
		img, err := s.OpenDisk(ctx, i)
		if err != nil {
			for _, open := range images {
				err = errors.Join(err, open.Close())
			}
			return nil, err
		}
		images = append(images, img)
	}
	return images, nil
}

// Find returns the index of the disk with this name, or with an empty name of the
// only disk. Errors are [ErrNotFound] and [WhichDiskError].
func (s *Machines) Find(name string) (int, error) {
	i := slices.Index(s.Names, name)
	if name == "" && len(s.Names) == 1 {
		i = 0
	}
	switch {
	case i < 0 && name == "" && len(s.Names) > 1:
		return 0, &WhichDiskError{s.Path, s.Names}
	case i < 0:
		return 0, fmt.Errorf("disk %q: %w: %s has %s", name, ErrNotFound, s.Path, cmp.Or(strings.Join(s.Names, ", "), "no disks"))
	}
	return i, nil
}

// OpenDisk opens disk i of the envelope. The caller closes it.
func (s *Machines) OpenDisk(ctx context.Context, i int) (*Image, error) {
	d := s.Envelope.Disks[i]
	img, err := s.openContent(ctx, d.Name)
	if err != nil {
		return nil, &Error{s.Path, s.o.BackingDir, fmt.Errorf("%s: disk %s: %w", s.Path, s.Names[i], s.misnamed(i, err))}
	}
	img.Name = s.Names[i]
	img.findSectors(s.o, s.Envelope.SectorSize(d.Name))
	if d.Format == string(disk.Raw) {
		// Its guest may have written that, so it stays what it is called.
		if looks := disk.Looks(img); looks != "" {
			s.o.warn("%s: disk %s: %s calls it raw, and it looks like %s: it is read as raw", s.Path, img.Name, descriptors[s.Kind], looks)
		}
	}
	if d.Capacity > 0 && d.Capacity != img.Size() {
		s.o.warn("%s: disk %s has %d bytes, and %s says %d", s.Path, img.Name, img.Size(), s.Descriptor.Name, d.Capacity)
	}
	return img, nil
}

// descriptors are what people call the files that describe machines.
var descriptors = map[appliance.Kind]string{
	appliance.OVA: "the OVF", appliance.OVF: "the OVF", appliance.VMX: "the VMX", appliance.Libvirt: "the domain", appliance.VirtualBox: "the .vbox",
}

// misnamed says of a disk that cannot be opened that it is of another format than
// the descriptor says, if it is.
func (s *Machines) misnamed(i int, err error) error {
	said := disk.Format(s.Envelope.Disks[i].Format)
	var is string
	var other *disk.FormatError
	var compressed *disk.CompressedError
	switch {
	case errors.As(err, &other) && other.Found == "":
		return fmt.Errorf("%s: %s calls it %s, and it is raw or damaged: %w", s.Envelope.Disks[i].File, descriptors[s.Kind], said.Title(), err)
	case errors.As(err, &other):
		is = other.Found
	case said != "" && errors.As(err, &compressed):
		is = "compressed by " + compressed.By
	default:
		return err
	}
	return fmt.Errorf("%s: %s calls it %s, and it is %s", s.Envelope.Disks[i].File, descriptors[s.Kind], said.Title(), is)
}

// openContent opens the disk of that name in the descriptor.
func (s *Machines) openContent(ctx context.Context, name string) (*Image, error) {
	// The appliance has all disks, the envelope perhaps those of one machine.
	all := s.Appliance.Envelope.Disks
	i := slices.IndexFunc(all, func(d machine.Disk) bool { return d.Name == name })
	from, err := s.Disk(i)
	if err != nil {
		return nil, err
	}
	path := s.Path
	var img *disk.Image
	switch format := disk.Format(from.Format); {
	case from.Compression != "":
		return s.openCompressed(ctx, from)
	case from.Section != nil:
		path += ": " + from.Name
		img, err = disk.OpenReader(from.Section, disk.OpenOptions{Format: format, Described: true})
	case from.Path != "":
		path = from.Path
		img, err = disk.Open(path, disk.OpenOptions{
			Format: format, Described: true, BackingDir: from.BackingDir, Hidden: from.Hidden, Extents: true,
		})
		if err != nil {
			err = &Error{path, s.o.BackingDir, err}
		}
	default:
		img, err = disk.OpenReader(blankDisk(all[i].Capacity), disk.OpenOptions{Format: disk.Raw})
	}
	if err != nil {
		return nil, err
	}
	warnMoved(img, path, s.o)
	return &Image{Image: img, Path: path, Spooled: true}, nil
}

// openCompressed unpacks a file of a package. More than its disk can have is a
// bomb, whatever Options.MaxUnpacked allows.
func (s *Machines) openCompressed(ctx context.Context, from appliance.Source) (*Image, error) {
	size := from.Section.Size()
	add, end := s.o.Observer.Begin("unpacking "+from.Name, size)
	defer end()
	packed := Counting(UntilDone(ctx, io.NewSectionReader(from.Section, 0, size)), add)
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
	how := disk.OpenOptions{Format: disk.Format(from.Format), Described: true}
	return openSpooled(ctx, s.Path+": "+from.Name, how, "unpacking "+from.Name, bounded, s.o.maxUnpacked(), s.o)
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

// OVFOf returns the OVF of an artifact with these disks: the source's own, or one
// that is written.
func (s *Machines) OVFOf(disks []artifact.DiskDescriptor) ([]byte, error) {
	if s.OwnOVF {
		return s.OVF, nil
	}
	data, _, err := s.Describe(disks)
	return data, err
}

// Describe returns an OVF that says what the source says of machines whose disks
// are those of an artifact. With nil disks their sizes are as the source has them.
func (s *Machines) Describe(disks []artifact.DiskDescriptor) ([]byte, []machine.Loss, error) {
	e := *s.Envelope
	e.Disks, e.Files, e.Machines = slices.Clone(e.Disks), nil, nil
	place := func(d *machine.Disk) {
		for i, name := range s.Names {
			if s.Envelope.Disks[i].Name == d.Name {
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
	for _, m := range s.Envelope.Machines {
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

// Files are the files that travel as they are. The manifest and its certificate
// belong to the source's own OVF.
func (s *Machines) Files() []appliance.File {
	files := s.Appliance.Files()
	if s.OwnOVF {
		return files
	}
	named := make(map[string]bool)
	for _, m := range s.Envelope.Machines {
		named[m.NVRAM] = true
		for _, cd := range m.CDROMs {
			named[cd.File] = true
		}
	}
	return slices.DeleteFunc(files, func(f appliance.File) bool {
		return f.Role == appliance.RoleManifest || f.Role == appliance.RoleCertificate || !named[f.Name]
	})
}

// Explain returns err with the reason why the source cannot be read: if the
// package is not what its manifest says, it was changed.
func (s *Machines) Explain(ctx context.Context, err error) error {
	if _, ok := errors.AsType[*Error](err); !ok || errors.Is(err, appliance.ErrDigest) {
		return err
	}
	if _, wrong := s.Appliance.Verify(ctx); errors.Is(wrong, appliance.ErrDigest) {
		return fmt.Errorf("%s: %w: %w", s.Path, wrong, err)
	}
	return err
}

// Verify compares what was read with the manifest of the package. It is called
// before anything names what was made of the source. With Options.Unverified wrong
// digests are no error: they are in s.Report.
func (s *Machines) Verify(ctx context.Context) error {
	r, err := s.Appliance.Verify(ctx)
	if err != nil {
		return &Error{s.Path, s.o.BackingDir, fmt.Errorf("%s: %w", s.Path, err)}
	}
	if r.Manifest == "" {
		return nil
	}
	s.Report = &r
	for _, name := range r.Unlisted {
		s.o.warn("%s: its manifest does not name %s, which is not checked", s.Path, name)
	}
	if len(r.Wrong) == 0 {
		files := make(map[string]bool) // which can have several digests
		for _, f := range r.Files {
			files[f.Name] = true
		}
		s.o.note("%s: %d files are what its manifest says", s.Path, len(files))
	}
	switch c := r.Certificate; {
	case c == nil || !c.SignedOK:
	case c.Trusted:
		s.o.note("%s: signed by %s, whose certificate %s vouches for", s.Path, c.Subject, c.Issuer)
	default:
		s.o.warn("%s: signed by %s, who is not known here: %s", s.Path, c.Subject, c.Chain)
	}
	return nil
}
