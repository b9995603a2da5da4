package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/delivery"
)

// convertedMachines are machines of a SOURCE that are delivered.
type convertedMachines struct {
	o     *convertOptions
	plan  *delivery.Delivery
	from  *source.Machines // nil: it is a bare disk
	disks []disk.Reader    // those of the delivery
	files map[string]appliance.File
	show  *progress
}

// convertMachine writes the machines of SOURCE, or one that has it as its disk.
func (o *convertOptions) convertMachine(ctx context.Context, src argument, from *source.Machines, scratch func() (string, error), to string, key *appliance.Key, r *convertReport) (err error) {
	images, e, err := o.openMachine(ctx, src, from, scratch)
	if err != nil {
		return err
	}
	defer closeAll(&err, images)
	disks, trimmed, err := o.trimFlag.apply(ctx, images, o.source.options(o.globals, scratch))
	if err != nil {
		return err
	}
	m := &convertedMachines{o: o, from: from, files: make(map[string]appliance.File)}
	var names []string
	if from != nil {
		for _, f := range from.Appliance.Files() {
			if f.Role != appliance.RoleManifest && f.Role != appliance.RoleCertificate {
				m.files[f.Name], names = f, append(names, f.Name)
			}
		}
	}
	if m.plan, err = o.plan(e, disks, delivery.Options{Dest: to, Files: names, Key: key}); err != nil {
		return err
	}
	var total int64
	var written []writtenFile
	for _, d := range m.plan.Disks {
		content := disks[d.Index]
		lost, err := o.destinationOf(d).fit(content.Size(), disk.SectorSize(content))
		if err != nil {
			return err
		}
		warnLosses(o.globals, d.Path, lost)
		r.Losses = append(r.Losses, lost...)
		m.disks = append(m.disks, content)
		total += dataSize(content)
		if m.plan.Archive() == "" {
			written = append(written, writtenFile{d.Path, d.Format, images[d.Index].Name, content.Size()})
		}
	}
	warnLosses(o.globals, src.path, m.plan.Losses)
	r.Losses = list(append(r.Losses, m.plan.Losses...))

	m.show = o.begin("converting "+filepath.Base(src.path), total)
	defer m.show.end()
	if err := m.plan.Write(ctx, m); err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	r.Files = append(o.writtenBeside(m.plan), written...)
	r.Trimmed, r.Bytes.Written = trimmed, m.show.done.Load()
	return nil
}

// openMachine opens the disks of the machines that are written.
func (o *convertOptions) openMachine(ctx context.Context, src argument, from *source.Machines, scratch func() (string, error)) ([]*source.Image, *machine.Envelope, error) {
	if from != nil {
		if o.machine != "" || !o.target.machine.Several {
			if err := from.Choose(o.machine); err != nil {
				return nil, nil, err
			}
		}
		images, err := from.OpenDisks(ctx)
		return images, from.Envelope, err
	}
	img, err := o.source.open(ctx, o.globals, src, scratch)
	if err != nil {
		return nil, nil, err
	}
	images := []*source.Image{img}
	e, err := o.bare.ofDisks([]machine.Disk{{Name: img.Name, Capacity: img.Size()}})
	if err != nil {
		closeAll(&err, images)
	}
	return images, e, err
}

// WriteDisk implements [delivery.Source].
func (m *convertedMachines) WriteDisk(ctx context.Context, i int, f *os.File, _ bool) error {
	return writeDisk(ctx, f, m.o.destinationOf(m.plan.Disks[i]), m.disks[i], m.o.globals, m.show)
}

// StreamDisk implements [delivery.Source].
func (m *convertedMachines) StreamDisk(ctx context.Context, i int, to io.Writer) error {
	dest := m.o.destinationOf(m.plan.Disks[i])
	w, err := disk.NewVMDKStream(to, m.disks[i].Size(), dest.options(0))
	if err != nil {
		return err
	}
	return fillDisk(ctx, w, m.disks[i], m.o.globals, m.show)
}

// CopyFile implements [delivery.Source].
func (m *convertedMachines) CopyFile(ctx context.Context, name string, w io.Writer) error {
	content := m.files[name].Content
	if _, err := io.Copy(w, source.UntilDone(ctx, io.NewSectionReader(content, 0, content.Size()))); err != nil {
		return fmt.Errorf("file %q: %w", name, err)
	}
	return nil
}

// Verify implements [delivery.Source]: what was read is compared with the manifest
// of the package.
func (m *convertedMachines) Verify(ctx context.Context) error {
	if m.from == nil {
		return nil
	}
	return m.from.Verify(ctx)
}
