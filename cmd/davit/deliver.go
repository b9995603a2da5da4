package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/spf13/cobra"
)

// deliveryFlags are of the commands that write disks, or machines with all that
// they need.
type deliveryFlags struct {
	target  targetFlags
	disk    string
	machine string
	certKey string
}

func (f *deliveryFlags) flags(cmd *cobra.Command) {
	f.target.flags(cmd, formatNames+",\n"+targetNames)
	flags := cmd.Flags()
	flags.StringVar(&f.disk, "disk", "", "the disk `NAME` only")
	flags.StringVar(&f.machine, "machine", "", "only the machine with this `ID`")
	flags.StringVar(&f.certKey, "cert-key", "", "sign the OVF package with the key and certificates in the PEM `FILE`")
}

// resolveMachine looks at DEST and at the flags before any work is spent on
// them: whether a machine is to be written, and if so, whether that makes sense.
// It reads the key of --cert-key.
func (f *deliveryFlags) resolveMachine(dest string) (*appliance.Key, error) {
	if f.target.machine == nil && f.target.format.Format == "" && strings.EqualFold(filepath.Ext(dest), ".ova") {
		f.target.machine = findTarget("ova")
	}
	t := f.target.machine
	switch {
	case t == nil && f.machine != "":
		return nil, withHint(usagef("--machine: only disks are written"), "-O FORMAT, one of %s", targetNames)
	case f.certKey != "" && (t == nil || !t.several):
		return nil, usagef("--cert-key: only OVF packages are signed: -O ova, ovf or virtualbox")
	case t == nil:
		return nil, nil
	case f.disk != "":
		return nil, usagef("--disk: -O %s writes the machine with all its disks", t.name)
	case dest == "-" || dest == "":
		return nil, usagef("-O %s: DEST is a file or a folder", t.name)
	}
	if !isFolder(dest) { // whose files have no names yet
		if _, err := os.Stat(dest); err == nil && !t.archive {
			return nil, usagef("%s: -O %s fills a folder, and this is none", dest, t.name)
		}
		if _, err := wholefile.Check(dest, f.target.force); err != nil && t.archive {
			return nil, err
		}
	}
	if f.certKey == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(f.certKey)
	if err != nil {
		return nil, err
	}
	key, err := appliance.ParseKey(pem)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.certKey, err)
	}
	return key, nil
}

// choose returns the machines of e that are written, and their disks.
func (f *deliveryFlags) choose(e *machine.Envelope) (*machine.Envelope, error) {
	if f.machine == "" && f.target.machine.several {
		return e, nil
	}
	return oneMachine(e, f.machine)
}

// A delivery is machines with all that they need, and where it goes to: a
// folder, or an archive.
type delivery struct {
	*target
	force       bool
	dest        string            // the folder, or the archive
	folder      string            // to be made if it is not there
	envelope    *machine.Envelope // its files as they lie there: those of disks come first
	descriptors []descriptor
	disks       []placedDisk      // of the envelope's first files, in the same order
	called      map[string]string // where they come from, of its other files by name
	useless     map[string]bool   // files that came along, and that the target has no use for, by name
	key         *appliance.Key
	losses      []machine.Loss
}

// A placedDisk is a disk that gets a file.
type placedDisk struct {
	number int // of the envelope's disks
	dest   destination
}

// deliverable is where machines with all that they need come from: an artifact,
// or a SOURCE.
type deliverable interface {
	// writeDisk writes disk i of the delivery's to a file of out, which has no
	// name yet.
	writeDisk(ctx context.Context, i int, out *wholefile.Set) error
	// streamDisk writes it to w, in order.
	streamDisk(ctx context.Context, i int, w io.Writer) error
	// copyFile writes the file of that name as it is.
	copyFile(ctx context.Context, name string, w io.Writer) error
	// verify comes when all was read, and nothing has a name yet.
	verify(ctx context.Context) error
}

// plan settles which files are written where, before any disk is read as a whole.
// disks are those of e; files are the names of the other files that there are.
func (f *deliveryFlags) plan(e *machine.Envelope, disks []disk.Reader, files []string, dest string, key *appliance.Key) (*delivery, error) {
	d := &delivery{target: f.target.machine, force: f.target.force, dest: dest, key: key}
	dir, err := filepath.Abs(dest) // no descriptor of an archive has it
	if err != nil {
		return nil, err
	}
	packed := compressed(e)
	e, d.called = d.rename(e, files)
	var moved, lost []machine.Loss
	d.envelope, moved = d.place(e)
	if err := d.setDisks(disks); err != nil {
		return nil, err
	}
	if d.sectors {
		moved = append(moved, chooseFirmware(d.envelope)...)
	}
	if d.descriptors, lost, err = d.describe(d.envelope, dir); err != nil {
		return nil, fmt.Errorf("-O %s: %w", d.name, err)
	}
	if d.leaveOut(lost) { // what no descriptor names does not come along
		if d.descriptors, _, err = d.describe(d.envelope, dir); err != nil {
			return nil, fmt.Errorf("-O %s: %w", d.name, err)
		}
	}
	d.losses = slices.Concat(unreadOf(e), moved, lost, packed)
	if !d.archive || isFolder(dest) {
		d.folder = filepath.Clean(dest)
	}
	if d.archive && isFolder(dest) {
		d.dest = filepath.Join(dest, d.packageName()+".ova")
	}
	for i, placed := range d.envelope.Disks {
		if placed.File == "" { // the hypervisor makes it
			continue
		}
		to := destination{path: filepath.Join(d.dest, placed.File), format: d.target.disks, force: d.force, adapter: adapterOf(e, placed.Name), described: true}
		if d.several {
			to.kind = toMember
		}
		d.disks = append(d.disks, placedDisk{i, to})
	}
	if err := d.checkFiles(files); err != nil {
		return nil, err
	}
	for _, path := range d.paths() {
		if _, err := wholefile.Check(path, d.force); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// leaveOut takes the files out of the envelope that the target has no use for, and
// says whether there are any.
func (d *delivery) leaveOut(lost []machine.Loss) bool {
	fields := make(map[string]bool)
	for _, l := range lost {
		fields[l.Field] = true
	}
	d.useless = make(map[string]bool)
	used := make(map[string]bool)
	check := func(field string, name *string) {
		if !fields[field] || *name == "" {
			used[*name] = true
			return
		}
		d.useless[*name] = true
		*name = ""
	}
	for i, m := range d.envelope.Machines {
		check(machineField(d.envelope, i, "nvram"), &m.NVRAM)
		for n := range m.CDROMs {
			check(machineField(d.envelope, i, fmt.Sprintf("cdroms[%d].file", n)), &m.CDROMs[n].File)
		}
	}
	d.envelope.Files = slices.DeleteFunc(d.envelope.Files, func(f machine.File) bool { return d.useless[f.Name] && !used[f.Name] })
	return len(d.useless) > 0
}

// compressed are the files of drives that are delivered as they are in a package,
// compressed, which no hypervisor reads.
func compressed(e *machine.Envelope) (losses []machine.Loss) {
	by := make(map[string]string)
	for _, f := range e.Files {
		by[f.Name] = f.Compression
	}
	for i, m := range e.Machines {
		for n, cd := range m.CDROMs {
			if c := by[cd.File]; c != "" && cd.File != "" {
				field := machineField(e, i, fmt.Sprintf("cdroms[%d].file", n))
				losses = append(losses, machine.Loss{Field: field, Value: cd.File, Reason: "it is compressed (" + c + ") and stays so: decompress it"})
			}
		}
	}
	return losses
}

// setDisks says what sectors the disks have, and how large they are going to be:
// in their format, some get zeros added.
func (d *delivery) setDisks(disks []disk.Reader) error {
	capacity := make(map[string]int64)
	for i := range d.envelope.Disks {
		to := &d.envelope.Disks[i]
		if err := d.checkSectors(to.Name, disks[i]); err != nil {
			return err
		}
		setSector(d.envelope, i, sectorOf(disks[i]))
		size, err := d.target.disks.DiskSize(disks[i].Size(), disk.SectorSize(disks[i]))
		if err != nil {
			return fmt.Errorf("disk %q: %w", to.Name, err)
		}
		to.Capacity, capacity[to.Name] = size, size
	}
	for _, m := range d.envelope.Machines {
		for i := range m.Disks {
			if size, ok := capacity[m.Disks[i].Name]; ok {
				m.Disks[i].Capacity = size
			}
		}
	}
	return nil
}

// adapterOf is what a VMDK says that the disk of this name is attached to.
func adapterOf(e *machine.Envelope, name string) string {
	for _, m := range e.Machines {
		for _, d := range m.Disks {
			if d.Name != name {
				continue
			}
			if d.Bus == machine.IDE {
				return "ide"
			}
			for _, c := range m.Controllers {
				if c.Name == d.Controller && c.Model == machine.BusLogic {
					return "buslogic"
				}
			}
		}
	}
	return ""
}

// checkFiles refuses a delivery that has a file which is not among those there
// are; one of those that it does not have is a loss.
func (d *delivery) checkFiles(there []string) error {
	wanted := make(map[string]bool)
	for name := range d.useless { // of which it is told
		wanted[d.called[name]] = true
	}
	for _, f := range d.envelope.Files[len(d.disks):] {
		name, ok := d.called[f.Name]
		if !ok {
			return fmt.Errorf("file %q: %w: the descriptor names it, and nothing of that name came with it", f.Name, errNotFound)
		}
		wanted[name] = true
	}
	for _, name := range there {
		if !wanted[name] {
			d.losses = append(d.losses, machine.Loss{Field: "files", Value: name, Reason: "no device of the machine has it"})
		}
	}
	return nil
}

// packageName is the name of the descriptor, without extension.
func (d *delivery) packageName() string {
	return strings.TrimSuffix(d.descriptors[0].name, d.ext)
}

// paths are all files that are going to be written.
func (d *delivery) paths() []string {
	if d.archive {
		return []string{d.dest}
	}
	var names []string
	for _, f := range d.descriptors {
		names = append(names, f.name)
	}
	if d.several {
		names = append(names, d.packageName()+".mf")
	}
	if d.key != nil {
		names = append(names, d.packageName()+".cert")
	}
	for _, f := range d.envelope.Files {
		names = append(names, f.Name)
	}
	for i, name := range names {
		names[i] = filepath.Join(d.dest, name)
	}
	return names
}

// written are the files of the report beside disks: the archive, or descriptors
// and what is beside them. Sizes are known when they are there.
func (d *delivery) written() (files []writtenFile) {
	others := make(map[string]bool) // that came as they are
	for _, f := range d.envelope.Files[len(d.disks):] {
		others[filepath.Join(d.dest, f.Name)] = true
	}
	disks := make(map[string]bool)
	for _, placed := range d.disks {
		disks[placed.dest.path] = true
	}
	for _, path := range d.paths() {
		f := writtenFile{Path: path, Format: disk.Format(d.name)}
		if others[path] {
			f.Format = "file"
		}
		if info, err := os.Stat(path); err == nil {
			f.Size = info.Size()
		}
		if !disks[path] {
			files = append(files, f)
		}
	}
	return files
}

// deliver writes everything. Files get their names when all are complete.
func (d *delivery) deliver(ctx context.Context, from deliverable) (err error) {
	var out wholefile.Set
	defer func() { out.Abandon(exitCode(err) != exitRefused) }()
	if d.folder != "" {
		if err := out.Folder(d.folder); err != nil {
			return err
		}
	}
	if d.several {
		err = d.writePackage(ctx, from, &out)
	} else {
		err = d.writeFolder(ctx, from, &out)
	}
	if err != nil {
		return err
	}
	if err := from.verify(ctx); err != nil {
		return err
	}
	return out.Commit()
}

// writeFolder writes disks and files, and descriptors beside them.
func (d *delivery) writeFolder(ctx context.Context, from deliverable, out *wholefile.Set) error {
	for i := range d.disks {
		if err := from.writeDisk(ctx, i, out); err != nil {
			return err
		}
	}
	for _, f := range d.envelope.Files[len(d.disks):] {
		part, err := d.createEmpty(out, f.Name)
		if err != nil {
			return err
		}
		if err := from.copyFile(ctx, d.called[f.Name], part); err != nil {
			return err
		}
	}
	for _, f := range d.descriptors {
		if err := out.Write(filepath.Join(d.dest, f.name), d.force, f.data); err != nil {
			return err
		}
	}
	return nil
}

// writePackage writes an OVF package. All of it is written in order, so that
// nothing is left for a next run to go on with.
func (d *delivery) writePackage(ctx context.Context, from deliverable, out *wholefile.Set) error {
	w, err := d.newPackage(out)
	if err != nil {
		return err
	}
	for i, f := range d.envelope.Files {
		member, err := w.Create(f.Name)
		if err != nil {
			return err
		}
		if i < len(d.disks) {
			err = from.streamDisk(ctx, i, member)
		} else {
			err = from.copyFile(ctx, d.called[f.Name], member)
		}
		if err != nil {
			return err
		}
	}
	return w.Close()
}

func (d *delivery) newPackage(out *wholefile.Set) (*appliance.Writer, error) {
	p := appliance.Package{Name: d.packageName(), Envelope: d.envelope, Key: d.key,
		Descriptor: func(e *machine.Envelope) (data []byte, err error) {
			data, _, err = d.write(e, "") // plan has told what it loses
			return data, err
		}}
	if !d.archive {
		return appliance.NewFolder(func(name string) (io.Writer, error) { return d.createEmpty(out, name) }, p)
	}
	part, err := d.createEmpty(out, "")
	if err != nil {
		return nil, err
	}
	return appliance.NewOVA(part, p)
}

// createEmpty begins a file that is written from its start: the archive, or
// the one of this name in the folder.
func (d *delivery) createEmpty(out *wholefile.Set, name string) (*wholefile.Part, error) {
	return out.CreateEmpty(filepath.Join(d.dest, name), d.force)
}
