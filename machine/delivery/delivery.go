// Package delivery writes machines with all that they need, as a product imports
// them: descriptors, disks in the format that the product takes, and the files
// that the machines name. A folder gets them, or one archive.
//
// [New] settles which files are written where, before any disk is read, and says
// what gets lost. [Delivery.Write] writes them from a [Source]: an artifact, or
// files of this host. The package does not read disks itself.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/guest"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
)

// ErrMissing is wrapped by the error about a file that a machine names and that
// did not come with it.
var ErrMissing = errors.New("not found")

// A TargetError is about a machine that the target cannot have.
type TargetError struct {
	Target *Target
	Err    error
}

func (e *TargetError) Error() string { return e.Target.Name + ": " + e.Err.Error() }

func (e *TargetError) Unwrap() error { return e.Err }

// A SectorError says that no guest could use its disk on the target: its
// partition table counts in sectors of another size than the machine would have.
// It comes in a [TargetError].
type SectorError struct {
	Disk string
	Size int // of the disk's logical sectors, in bytes
}

func (e *SectorError) Error() string {
	return fmt.Sprintf("disk %q is partitioned for sectors of %d bytes, and the machine would have sectors of %d: its guest would find no partition",
		e.Disk, e.Size, disk.DefaultSector)
}

// Options are what [New] needs beside the machines.
type Options struct {
	// Target is required.
	Target *Target

	// Dest is the folder or the archive. A path that is a folder, or ends in a
	// slash, is a folder: an archive gets a name in it.
	Dest string

	// Replace allows that files exist.
	Replace bool

	// Files are the names of the files that come with the machines, beside disks,
	// as the envelope has them.
	Files []string

	// Key signs the OVF package. nil: it is not signed. Only OVF packages can be.
	Key *appliance.Key

	// Keep says whether the disks that are complete in part are worth keeping for
	// a later run, after this error. nil: nothing is kept, and nothing that an
	// earlier run has left is used.
	Keep func(error) bool
}

// A Source is where disks and files come from.
type Source interface {
	// WriteDisk writes disk i of [Delivery.Disks] to f. resume says that f has
	// content of an earlier run.
	WriteDisk(ctx context.Context, i int, f *os.File, resume bool) error

	// StreamDisk writes disk i to w, in order.
	StreamDisk(ctx context.Context, i int, w io.Writer) error

	// CopyFile writes the file of this name, one of Options.Files, as it is.
	CopyFile(ctx context.Context, name string, w io.Writer) error

	// Verify is called when everything was read, before any file has its name. An
	// error leaves none.
	Verify(ctx context.Context) error
}

// A Delivery is machines with all that they need, and where they go.
type Delivery struct {
	// Disks are those that get a file, in the order of the files.
	Disks []Disk

	// Losses are what the target cannot express, and what did not fit.
	Losses []machine.Loss

	target      *Target
	o           Options
	dest        string            // the folder, or the archive
	folder      string            // to be made unless it exists
	envelope    *machine.Envelope // its files are as they are written: those of Disks come first
	descriptors []Descriptor
	origin      map[string]string // what the other files are called in Options.Files, by name
	unused      map[string]bool   // files that came along and that the target has no use for, by name
}

// A Disk is a disk that gets a file.
type Disk struct {
	Index   int         // of the envelope's disks
	Path    string      // of the file; in an archive its last element is the member's name
	Format  disk.Format // of the file
	Adapter string      // as disk.WriteOptions has it
	Member  bool        // of an OVF package: it is written in order
}

// New settles which files are written where. disks are those of e, in its order.
// It refuses what cannot be written, and files that exist unless o.Replace.
func New(e *machine.Envelope, disks []disk.Reader, o Options) (*Delivery, error) {
	t := o.Target
	d := &Delivery{target: t, o: o, dest: o.Dest}
	dir, err := filepath.Abs(o.Dest) // no descriptor of an archive has it
	if err != nil {
		return nil, err
	}
	packed := compressed(e)
	e, d.origin = t.rename(e, o.Files)
	var moved, lost []machine.Loss
	d.envelope, moved = t.Place(e)
	if err := d.setDisks(disks); err != nil {
		return nil, err
	}
	if t.Sectors {
		moved = append(moved, chooseFirmware(d.envelope)...)
	}
	if d.descriptors, lost, err = t.Describe(d.envelope, dir); err != nil {
		return nil, &TargetError{t, err}
	}
	if d.leaveOut(lost) { // what no descriptor names does not come along
		if d.descriptors, _, err = t.Describe(d.envelope, dir); err != nil {
			return nil, &TargetError{t, err}
		}
	}
	d.Losses = slices.Concat(e.AllUnread(), moved, lost, packed)
	if !t.Archive || IsFolder(o.Dest) {
		d.folder = filepath.Clean(o.Dest)
	}
	if t.Archive && IsFolder(o.Dest) {
		d.dest = filepath.Join(o.Dest, d.packageName()+".ova")
	}
	for i, placed := range d.envelope.Disks {
		if placed.File == "" { // the product makes it
			continue
		}
		d.Disks = append(d.Disks, Disk{
			Index: i, Path: filepath.Join(d.dest, placed.File), Format: t.Disks, Adapter: adapterOf(e, placed.Name), Member: t.Several,
		})
	}
	if err := d.checkFiles(); err != nil {
		return nil, err
	}
	for _, path := range d.paths() {
		if _, err := wholefile.Check(path, o.Replace); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// IsFolder says whether a path is a folder, or is meant to become one: it ends in
// a slash.
func IsFolder(path string) bool {
	if strings.HasSuffix(path, "/") {
		return true
	}
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// leaveOut removes the files from the envelope that the target has no use for, and
// says whether there were any.
func (d *Delivery) leaveOut(lost []machine.Loss) bool {
	fields := make(map[string]bool)
	for _, l := range lost {
		fields[l.Field] = true
	}
	d.unused = make(map[string]bool)
	used := make(map[string]bool)
	check := func(field string, name *string) {
		if !fields[field] || *name == "" {
			used[*name] = true
			return
		}
		d.unused[*name] = true
		*name = ""
	}
	for i, m := range d.envelope.Machines {
		check(d.envelope.Field(i, "nvram"), &m.NVRAM)
		for n := range m.CDROMs {
			check(d.envelope.Field(i, fmt.Sprintf("cdroms[%d].file", n)), &m.CDROMs[n].File)
		}
	}
	d.envelope.Files = slices.DeleteFunc(d.envelope.Files, func(f machine.File) bool { return d.unused[f.Name] && !used[f.Name] })
	return len(d.unused) > 0
}

// compressed are the losses of drives whose files are compressed in a package, and
// stay so: no product reads them.
func compressed(e *machine.Envelope) (losses []machine.Loss) {
	by := make(map[string]string)
	for _, f := range e.Files {
		by[f.Name] = f.Compression
	}
	for i, m := range e.Machines {
		for n, cd := range m.CDROMs {
			if c := by[cd.File]; c != "" && cd.File != "" {
				field := e.Field(i, fmt.Sprintf("cdroms[%d].file", n))
				losses = append(losses, machine.Loss{Field: field, Value: cd.File, Reason: "it is compressed (" + c + ") and stays so: decompress it"})
			}
		}
	}
	return losses
}

// setDisks says which sectors the disks have, and how large they become: in some
// formats a disk gets zeros added.
func (d *Delivery) setDisks(disks []disk.Reader) error {
	capacity := make(map[string]int64)
	for i := range d.envelope.Disks {
		to := &d.envelope.Disks[i]
		if err := d.target.checkSectors(to.Name, disks[i]); err != nil {
			return err
		}
		d.envelope.SetSectorSize(i, disk.SectorSize(disks[i]))
		size, err := d.target.Disks.DiskSize(disks[i].Size(), disk.SectorSize(disks[i]))
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

// checkSectors refuses a disk that no guest of t could use.
func (t *Target) checkSectors(name string, r disk.Reader) error {
	size := disk.SectorSize(r)
	if size == 0 || size == disk.DefaultSector || t.Sectors || guest.SectorSize(r) != size {
		return nil
	}
	return &TargetError{t, &SectorError{name, size}}
}

// chooseFirmware makes machines start from disks of 4096-byte sectors, which no
// BIOS does, and says what that changes. The sectors of the first disk count: a
// machine starts from it.
func chooseFirmware(e *machine.Envelope) (losses []machine.Loss) {
	for i, m := range e.Machines {
		if len(m.Disks) == 0 || m.Disks[0].SectorSize != disk.LargeSector || !machine.IsX86(m.Architecture) {
			continue
		}
		lose := func(reason string) {
			losses = append(losses, machine.Loss{Field: e.Field(i, "firmware"), Value: string(m.Firmware), Reason: reason})
		}
		switch m.Firmware {
		case "":
			lose("it is not said: UEFI is written, as no BIOS starts from sectors of 4096 bytes")
			m.Firmware = machine.UEFI
		case machine.BIOS:
			lose("no BIOS starts from sectors of 4096 bytes")
		}
	}
	return losses
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

// checkFiles refuses a delivery with a file that did not come with it. A file that
// came and is not needed is a loss.
func (d *Delivery) checkFiles() error {
	wanted := make(map[string]bool)
	for name := range d.unused { // which is told already
		wanted[d.origin[name]] = true
	}
	for _, f := range d.otherFiles() {
		name, ok := d.origin[f.Name]
		if !ok {
			return fmt.Errorf("file %q: %w: the descriptor names it, and nothing of that name came with it", f.Name, ErrMissing)
		}
		wanted[name] = true
	}
	for _, name := range d.o.Files {
		if !wanted[name] {
			d.Losses = append(d.Losses, machine.Loss{Field: "files", Value: name, Reason: "no device of the machine has it"})
		}
	}
	return nil
}

// otherFiles are those that are no disks.
func (d *Delivery) otherFiles() []machine.File { return d.envelope.Files[len(d.Disks):] }

// Copied are the names of the files that are copied as they are, out of
// Options.Files.
func (d *Delivery) Copied() (names []string) {
	for _, f := range d.otherFiles() {
		names = append(names, d.origin[f.Name])
	}
	return names
}

// Archive is the path of the archive that everything goes to, "" if the files are
// in a folder.
func (d *Delivery) Archive() string {
	if d.target.Archive {
		return d.dest
	}
	return ""
}

// packageName is the name of the descriptor, without extension.
func (d *Delivery) packageName() string {
	return strings.TrimSuffix(d.descriptors[0].Name, d.target.Ext)
}

// paths are all files that are written.
func (d *Delivery) paths() []string {
	if d.target.Archive {
		return []string{d.dest}
	}
	var names []string
	for _, f := range d.descriptors {
		names = append(names, f.Name)
	}
	if d.target.Several {
		names = append(names, d.packageName()+".mf")
	}
	if d.o.Key != nil {
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

// A File is one that is written, and is not that of a disk.
type File struct {
	Path   string
	Copied bool  // as it came
	Size   int64 // in bytes; 0 before it is written
}

// Files are the archive, or descriptors and what lies beside them but for disks.
func (d *Delivery) Files() (files []File) {
	copied, disks := make(map[string]bool), make(map[string]bool)
	for _, f := range d.otherFiles() {
		copied[filepath.Join(d.dest, f.Name)] = true
	}
	for _, placed := range d.Disks {
		disks[placed.Path] = true
	}
	for _, path := range d.paths() {
		f := File{Path: path, Copied: copied[path]}
		if info, err := os.Stat(path); err == nil {
			f.Size = info.Size()
		}
		if !disks[path] {
			files = append(files, f)
		}
	}
	return files
}

// Write writes everything. The files get their names when all of them are complete
// and from.Verify has returned nil.
func (d *Delivery) Write(ctx context.Context, from Source) (err error) {
	var set wholefile.Set
	defer func() { set.Abandon(d.o.Keep != nil && d.o.Keep(err)) }()
	if d.folder != "" {
		if err := set.Folder(d.folder); err != nil {
			return err
		}
	}
	if d.target.Several {
		err = d.writePackage(ctx, from, &set)
	} else {
		err = d.writeFolder(ctx, from, &set)
	}
	if err != nil {
		return err
	}
	if err := from.Verify(ctx); err != nil {
		return err
	}
	return set.Commit()
}

// writeFolder writes disks and files, and descriptors beside them.
func (d *Delivery) writeFolder(ctx context.Context, from Source, set *wholefile.Set) error {
	for i, to := range d.Disks {
		part, err := d.createDisk(set, to)
		if err != nil {
			return err
		}
		if err := from.WriteDisk(ctx, i, part.File, part.Resumed); err != nil {
			return err
		}
	}
	for _, f := range d.otherFiles() {
		part, err := d.createEmpty(set, f.Name)
		if err != nil {
			return err
		}
		if err := from.CopyFile(ctx, d.origin[f.Name], part); err != nil {
			return err
		}
	}
	for _, f := range d.descriptors {
		if err := set.Write(filepath.Join(d.dest, f.Name), d.o.Replace, f.Data); err != nil {
			return err
		}
	}
	return nil
}

// createDisk opens the part of a disk's file. One that a later run can go on with is
// of a format whose bytes have fixed places.
func (d *Delivery) createDisk(set *wholefile.Set, to Disk) (*wholefile.Part, error) {
	if d.o.Keep == nil {
		return set.CreateEmpty(to.Path, d.o.Replace)
	}
	part, err := set.Create(to.Path, d.o.Replace)
	if err == nil {
		part.Resumable = !to.Format.InOrder()
	}
	return part, err
}

// writePackage writes an OVF package. All of it is written in order, so that
// nothing is left that a later run could go on with.
func (d *Delivery) writePackage(ctx context.Context, from Source, set *wholefile.Set) error {
	w, err := d.newPackage(set)
	if err != nil {
		return err
	}
	for i, f := range d.envelope.Files {
		member, err := w.Create(f.Name)
		if err != nil {
			return err
		}
		if i < len(d.Disks) {
			err = from.StreamDisk(ctx, i, member)
		} else {
			err = from.CopyFile(ctx, d.origin[f.Name], member)
		}
		if err != nil {
			return err
		}
	}
	return w.Close()
}

func (d *Delivery) newPackage(set *wholefile.Set) (*appliance.Writer, error) {
	p := appliance.Package{Name: d.packageName(), Envelope: d.envelope, Key: d.o.Key,
		Descriptor: func(e *machine.Envelope) (data []byte, err error) {
			data, _, err = d.target.write(e, "") // New has told what it loses
			return data, err
		}}
	if !d.target.Archive {
		return appliance.NewFolder(func(name string) (io.Writer, error) { return d.createEmpty(set, name) }, p)
	}
	part, err := d.createEmpty(set, "")
	if err != nil {
		return nil, err
	}
	return appliance.NewOVA(part, p)
}

// createEmpty begins a file that is written from its start: the archive, or the
// one of this name in the folder.
func (d *Delivery) createEmpty(set *wholefile.Set, name string) (*wholefile.Part, error) {
	return set.CreateEmpty(filepath.Join(d.dest, name), d.o.Replace)
}
