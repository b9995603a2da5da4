package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
)

// convertedMachines are machines of a SOURCE that are delivered.
type convertedMachines struct {
	*convertOptions
	*delivery
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
	m := &convertedMachines{convertOptions: o, source: from, files: make(map[string]appliance.File)}
	var names []string
	if from != nil {
		for _, f := range from.Files() {
			if f.Role != appliance.RoleManifest && f.Role != appliance.RoleCertificate {
				m.files[f.Name], names = f, append(names, f.Name)
			}
		}
	}
	if m.delivery, err = o.plan(e, disks, names, to, key); err != nil {
		return err
	}
	var total int64
	var written []writtenFile
	for _, d := range m.delivery.disks {
		lost, err := d.dest.fit(disks[d.number].Size(), disk.SectorSize(disks[d.number]))
		if err != nil {
			return err
		}
		warnLosses(o.globals, d.dest.path, lost)
		r.Losses = append(r.Losses, lost...)
		m.disks = append(m.disks, disks[d.number])
		total += dataSize(disks[d.number])
		if !m.archive {
			written = append(written, writtenFile{d.dest.path, d.dest.format, images[d.number].name, disks[d.number].Size()})
		}
	}
	warnLosses(o.globals, src.path, m.losses)
	r.Losses = list(append(r.Losses, m.losses...))

	m.show = o.begin("converting "+filepath.Base(src.path), total)
	defer m.show.end()
	if err := m.deliver(ctx, m); err != nil {
		return fmt.Errorf("%s: %w", to, err)
	}
	r.Files = append(m.written(), written...)
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

func (m *convertedMachines) writeDisk(ctx context.Context, i int, out *wholefile.Set) error {
	dest := m.delivery.disks[i].dest
	part, err := out.CreateEmpty(dest.path, dest.force)
	if err != nil {
		return err
	}
	return writeDisk(ctx, part.File, dest, m.disks[i], m.globals, m.show)
}

func (m *convertedMachines) streamDisk(ctx context.Context, i int, to io.Writer) error {
	dest := m.delivery.disks[i].dest
	w, err := disk.NewVMDKStream(to, m.disks[i].Size(), dest.options(0))
	if err != nil {
		return err
	}
	return fillDisk(ctx, w, dest, m.disks[i], m.globals, m.show)
}

// copyFile copies a file that travels as it is.
func (m *convertedMachines) copyFile(ctx context.Context, name string, w io.Writer) error {
	content := m.files[name].Content
	if _, err := io.Copy(w, untilDone(ctx, io.NewSectionReader(content, 0, content.Size()))); err != nil {
		return fmt.Errorf("file %q: %w", name, err)
	}
	return nil
}

func (m *convertedMachines) verify(ctx context.Context) error {
	if m.source == nil {
		return nil
	}
	return m.source.verify(ctx, m.globals)
}
