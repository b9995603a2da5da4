package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/delivery"
)

// convertedMachines are machines of a SOURCE that are delivered.
type convertedMachines struct {
	o      *convertOptions
	plan   *delivery.Delivery
	source *applianceSource // nil: it is a bare disk
	disks  []disk.Reader    // those of the delivery
	files  map[string]appliance.File
	show   *progress
}

// convertMachine writes the machines of SOURCE, or one that has it as its disk.
func (o *convertOptions) convertMachine(ctx context.Context, src source, from *applianceSource, to string, key *appliance.Key, r *convertReport) (err error) {
	images, e, err := o.openMachine(ctx, src, from)
	if err != nil {
		return err
	}
	defer closeAll(&err, images)
	disks, trimmed, err := o.applyAll(ctx, o.globals, images)
	if err != nil {
		return err
	}
	m := &convertedMachines{o: o, source: from, files: make(map[string]appliance.File)}
	var names []string
	if from != nil {
		for _, f := range from.Files() {
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
			written = append(written, writtenFile{d.Path, d.Format, images[d.Index].name, content.Size()})
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
func (o *convertOptions) openMachine(ctx context.Context, src source, from *applianceSource) ([]*image, *machine.Envelope, error) {
	if from != nil {
		var err error
		if from.wanted, err = o.choose(from.Envelope); err != nil {
			return nil, nil, err
		}
		from.names = artifactNames(from.wanted.Disks)
		images, err := from.images(ctx, o.globals, &o.source)
		return images, from.wanted, err
	}
	img, err := o.source.open(ctx, o.globals, src)
	if err != nil {
		return nil, nil, err
	}
	images := []*image{img}
	e, err := o.bare.ofDisks([]machine.Disk{{Name: img.name, Capacity: img.Size()}})
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
	return fillDisk(ctx, w, dest, m.disks[i], m.o.globals, m.show)
}

// CopyFile implements [delivery.Source].
func (m *convertedMachines) CopyFile(ctx context.Context, name string, w io.Writer) error {
	content := m.files[name].Content
	if _, err := io.Copy(w, untilDone(ctx, io.NewSectionReader(content, 0, content.Size()))); err != nil {
		return fmt.Errorf("file %q: %w", name, err)
	}
	return nil
}

// Verify implements [delivery.Source]: what was read is compared with the manifest
// of the package.
func (m *convertedMachines) Verify(ctx context.Context) error {
	if m.source == nil {
		return nil
	}
	return m.source.verify(ctx, m.o.globals)
}
