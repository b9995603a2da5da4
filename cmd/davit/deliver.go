package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/ovf"
	"github.com/davit-oci/davit/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A delivery is machines of an artifact with all that they need, and where it
// goes to: a folder, or an archive.
type delivery struct {
	*target
	repo        *registry.Repository
	dest        string            // the folder, or the archive
	folder      string            // to be made if it is not there
	envelope    *machine.Envelope // with the files as they lie there
	descriptors []descriptor
	disks       []pullTarget                  // those that get files
	files       map[string]ocispec.Descriptor // blobs of the other files, by name
	key         *appliance.Key
	losses      []machine.Loss
}

// checkDelivery refuses what makes no sense for -O, without a look at the
// artifact, and reads the key of --cert-key.
func (o *pullOptions) checkDelivery(dest string) (*appliance.Key, error) {
	t := o.target.machine
	switch {
	case t == nil && o.machine != "":
		return nil, withHint(usagef("--machine: only disks are written"), "-O FORMAT, one of %s", targetNames)
	case o.certKey != "" && (t == nil || !t.several):
		return nil, usagef("--cert-key: only OVF packages are signed: -O ova, ovf or virtualbox")
	case t == nil:
		return nil, nil
	case o.disk != "":
		return nil, usagef("--disk: -O %s writes the machine with all its disks", t.name)
	case dest == "-" || dest == "":
		return nil, usagef("-O %s: DEST is a file or a folder", t.name)
	}
	if info, err := os.Stat(dest); err == nil && !info.IsDir() && !t.archive {
		return nil, usagef("%s: -O %s fills a folder, and this is none", dest, t.name)
	}
	if o.certKey == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(o.certKey)
	if err != nil {
		return nil, err
	}
	key, err := appliance.ParseKey(pem)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.certKey, err)
	}
	return key, nil
}

// planDelivery settles which files are written where, before any disk is
// fetched.
func (o *pullOptions) planDelivery(ctx context.Context, repo *registry.Repository, img *artifact.Image, dest string, key *appliance.Key) (*delivery, error) {
	d := &delivery{target: o.target.machine, repo: repo, dest: dest, key: key}
	e, disks, err := d.readMachines(ctx, img)
	if err != nil {
		return nil, err
	}
	if o.machine != "" || !d.several {
		if e, err = oneMachine(e, o.machine); err != nil {
			return nil, err
		}
	}
	dir, err := filepath.Abs(dest) // no descriptor of an archive has it
	if err != nil {
		return nil, err
	}
	var moved, lost []machine.Loss
	d.envelope, moved = d.place(e)
	if d.descriptors, lost, err = d.describe(d.envelope, dir); err != nil {
		return nil, fmt.Errorf("-O %s: %w", d.name, err)
	}
	d.losses = slices.Concat(unreadOf(e), moved, lost)
	if !d.archive || isFolder(dest) {
		d.folder = filepath.Clean(dest)
	}
	if d.archive && isFolder(dest) {
		d.dest = filepath.Join(dest, d.packageName()+".ova")
	}

	written := make(map[string]bool)
	for _, placed := range d.envelope.Disks {
		if placed.File == "" { // the hypervisor makes it
			continue
		}
		to := destination{path: filepath.Join(d.dest, placed.File), format: d.target.disks, force: o.target.force, adapter: adapterOf(e, placed.Name)}
		if d.several {
			to.kind = toMember
		}
		d.disks = append(d.disks, pullTarget{disk: disks[placed.Name], dest: to, archived: d.archive})
		written[placed.File] = true
	}
	if err := d.findFiles(img, written); err != nil {
		return nil, err
	}
	for _, path := range d.paths() {
		if _, err := mayWrite(path, o.target.force); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// readMachines reads the OVF of an artifact, and says which of its disks are
// which of the artifact's. The sizes are what the files are going to have.
func (d *delivery) readMachines(ctx context.Context, img *artifact.Image) (*machine.Envelope, map[string]*artifact.Disk, error) {
	data, err := readOVF(ctx, d.repo, img.Manifest)
	if err != nil {
		return nil, nil, err
	}
	e, err := ovf.Parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("its OVF: %w", err)
	}
	if len(e.Disks) != len(img.Disks) {
		return nil, nil, fmt.Errorf("the artifact has %d disks, and its OVF has %d", len(img.Disks), len(e.Disks))
	}
	disks := make(map[string]*artifact.Disk)
	for i := range e.Disks {
		size, err := d.target.disks.DiskSize(img.Disks[i].Size)
		if err != nil {
			return nil, nil, fmt.Errorf("disk %q: %w", img.Disks[i].Name, err)
		}
		e.Disks[i].Capacity = size
		disks[e.Disks[i].Name] = img.Disks[i]
		for _, m := range e.Machines {
			for n := range m.Disks {
				if m.Disks[n].Name == e.Disks[i].Name {
					m.Disks[n].Capacity = size
				}
			}
		}
	}
	return e, disks, nil
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

// findFiles finds the blobs of the files that are no disks.
func (d *delivery) findFiles(img *artifact.Image, disks map[string]bool) error {
	blobs := make(map[string]ocispec.Descriptor)
	for _, f := range img.Files {
		blobs[f.Annotations[ocispec.AnnotationTitle]] = f
	}
	d.files = make(map[string]ocispec.Descriptor)
	for _, f := range d.envelope.Files {
		if disks[f.Name] {
			continue
		}
		blob, ok := blobs[f.Name]
		if !ok {
			return fmt.Errorf("file %q: %w: the OVF names it, and the artifact does not have it", f.Name, errNotFound)
		}
		d.files[f.Name] = blob
	}
	for _, f := range img.Files {
		name := f.Annotations[ocispec.AnnotationTitle]
		// The signed list of the source's files is about other files.
		ext := strings.ToLower(filepath.Ext(name))
		if _, ok := d.files[name]; !ok && ext != ".mf" && ext != ".cert" {
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

// written are the files of the report beside disks.
func (d *delivery) written() []writtenFile {
	if d.archive {
		return []writtenFile{{Path: d.dest, Format: disk.Format(d.name)}}
	}
	var files []writtenFile
	for _, f := range d.descriptors {
		files = append(files, writtenFile{Path: filepath.Join(d.dest, f.name), Format: disk.Format(d.name)})
	}
	return files
}

// deliver writes everything. Files get their names when all are complete.
func (o *pullOptions) deliver(ctx context.Context, d *delivery, seeds *pullSeeds) (all []artifact.Restored, err error) {
	if o.dryRun {
		return o.fillDisks(ctx, nil, d.disks, seeds)
	}
	var out outputs
	defer func() { out.abandon(exitCode(err) == exitRefused) }()
	if d.folder != "" {
		if err := out.folder(d.folder); err != nil {
			return nil, err
		}
	}
	if d.several {
		all, err = o.deliverPackage(ctx, d, &out, seeds)
	} else {
		all, err = o.deliverFolder(ctx, d, &out, seeds)
	}
	if err != nil {
		return nil, err
	}
	return all, out.commit()
}

// deliverFolder writes descriptors, and disks and files beside them.
func (o *pullOptions) deliverFolder(ctx context.Context, d *delivery, out *outputs, seeds *pullSeeds) ([]artifact.Restored, error) {
	all, err := o.fillDisks(ctx, out, d.disks, seeds)
	if err != nil {
		return nil, err
	}
	for _, f := range d.envelope.Files {
		if _, ok := d.files[f.Name]; !ok {
			continue
		}
		part, err := o.createEmpty(d, out, f.Name)
		if err != nil {
			return nil, err
		}
		if err := o.copyFile(ctx, d, f.Name, part); err != nil {
			return nil, err
		}
	}
	for _, f := range d.descriptors {
		if err := out.write(filepath.Join(d.dest, f.name), o.target.force, f.data); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// deliverPackage writes an OVF package. All of it is written in order, so that
// nothing is left for a next run to go on with.
func (o *pullOptions) deliverPackage(ctx context.Context, d *delivery, out *outputs, seeds *pullSeeds) (all []artifact.Restored, err error) {
	p := appliance.Package{Name: d.packageName(), Envelope: d.envelope, Key: d.key,
		Descriptor: func(e *machine.Envelope) ([]byte, []machine.Loss, error) { return d.write(e, "") }}
	var w *appliance.Writer
	if d.archive {
		part, err := o.createEmpty(d, out, "")
		if err != nil {
			return nil, err
		}
		w, err = appliance.NewOVA(part, p)
		if err != nil {
			return nil, err
		}
	} else {
		w, err = appliance.NewFolder(func(name string) (io.Writer, error) { return o.createEmpty(d, out, name) }, p)
		if err != nil {
			return nil, err
		}
	}
	disks := d.disks // in the order of the envelope's files, which begin with them
	for _, f := range d.envelope.Files {
		member, err := w.Create(f.Name)
		if err != nil {
			return nil, err
		}
		if _, ok := d.files[f.Name]; ok {
			if err := o.copyFile(ctx, d, f.Name, member); err != nil {
				return nil, err
			}
			continue
		}
		t := disks[0]
		disks = disks[1:]
		t.member = member
		done, err := o.pullDisk(ctx, t, nil, seeds)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.dest.path, err)
		}
		all = append(all, done)
	}
	return all, w.Close()
}

// createEmpty begins a file that is written from its start: the archive, or
// the one of this name in the folder.
func (o *pullOptions) createEmpty(d *delivery, out *outputs, name string) (*partFile, error) {
	part, err := out.create(filepath.Join(d.dest, name), o.target.force)
	if err != nil {
		return nil, err
	}
	return part, part.Truncate(0) // of a run that was killed
}

// copyFile copies a file of the package to w. The repository checks its digest.
func (o *pullOptions) copyFile(ctx context.Context, d *delivery, name string, w io.Writer) (err error) {
	blob := d.files[name]
	show := o.begin("fetching "+name, blob.Size)
	defer show.end()
	rc, err := d.repo.Fetch(ctx, blob)
	if err == nil {
		_, err = io.Copy(w, rc)
		err = errors.Join(err, rc.Close())
	}
	if err != nil {
		return fmt.Errorf("file %q: %w", name, err)
	}
	show.add(blob.Size)
	return nil
}
