package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/delivery"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pulledMachines are machines of an artifact that are delivered.
type pulledMachines struct {
	*puller
	plan     *delivery.Delivery
	targets  []pullTarget // its disks
	seeds    *pullSeeds
	restored []artifact.Restored // of targets, as many as are done
	files    map[string]ocispec.Descriptor
}

// planMachines settles which files are written where, before any disk is
// fetched.
func (p *puller) planMachines(ctx context.Context, dest string, key *appliance.Key) (*pulledMachines, error) {
	all, err := readMachines(ctx, p.repo, p.img.Manifest)
	if err != nil {
		return nil, err
	}
	if len(all.Disks) != len(p.img.Disks) {
		return nil, fmt.Errorf("the artifact has %d disks, and its OVF has %d", len(p.img.Disks), len(all.Disks))
	}
	content := make(map[string]*artifact.Disk)
	for i, d := range all.Disks {
		content[d.Name] = p.img.Disks[i]
	}
	e, err := p.choose(all)
	if err != nil {
		return nil, err
	}
	for _, m := range e.Machines { // most OVFs do not say it
		m.Architecture = cmp.Or(m.Architecture, platformArchitecture(p.img.Manifest.Annotations[artifact.AnnotationPlatform]))
	}
	var disks []*artifact.Disk
	var readers []disk.Reader
	for _, d := range e.Disks {
		disks, readers = append(disks, content[d.Name]), append(readers, content[d.Name].Reader(ctx))
	}

	m := &pulledMachines{puller: p, files: make(map[string]ocispec.Descriptor)}
	var names []string
	for _, f := range p.img.Files {
		// The signed list of the source's files is about other files.
		if name := f.Annotations[ocispec.AnnotationTitle]; f.MediaType != artifact.TypeOVFManifest && f.MediaType != artifact.TypeOVFCert {
			m.files[name], names = f, append(names, name)
		}
	}
	m.findFiles(e)
	if m.plan, err = p.plan(e, readers, delivery.Options{Dest: dest, Files: names, Key: key, Keep: keepParts}); err != nil {
		return nil, err
	}
	for _, d := range m.plan.Disks {
		m.targets = append(m.targets, pullTarget{disk: disks[d.Index], dest: p.destinationOf(d), archive: m.plan.Archive()})
	}
	return m, nil
}

// findFiles brings the names of files in e to those in the artifact: the OVF of a
// package may have others for them.
func (m *pulledMachines) findFiles(e *machine.Envelope) {
	find := func(ref *string) {
		for _, name := range appliance.Names(*ref) {
			if _, ok := m.files[name]; ok {
				*ref = name
				return
			}
		}
		for _, name := range appliance.Names(*ref) { // the push has told that
			var similar []string
			for title := range m.files {
				if strings.EqualFold(title, name) {
					similar = append(similar, title)
				}
			}
			if len(similar) == 1 {
				*ref = similar[0]
				return
			}
		}
	}
	for i := range e.Files {
		find(&e.Files[i].Name)
	}
	for _, of := range e.Machines {
		find(&of.NVRAM)
		for i := range of.CDROMs {
			find(&of.CDROMs[i].File)
		}
	}
}

// WriteDisk implements [delivery.Source].
func (m *pulledMachines) WriteDisk(ctx context.Context, i int, f *os.File, resume bool) error {
	return m.restore(ctx, m.targets[i], f, resume)
}

// StreamDisk implements [delivery.Source].
func (m *pulledMachines) StreamDisk(ctx context.Context, i int, w io.Writer) error {
	t := m.targets[i]
	t.member = w
	return m.restore(ctx, t, nil, false)
}

func (m *pulledMachines) restore(ctx context.Context, t pullTarget, f *os.File, resume bool) error {
	done, err := m.pullDisk(ctx, t, f, resume, m.seeds)
	m.restored = append(m.restored, done)
	if err != nil {
		return fmt.Errorf("%s: %w", t.dest.path, err)
	}
	return nil
}

// filesSize is how many bytes the files have that come beside disks.
func (m *pulledMachines) filesSize() (n int64) {
	for _, name := range m.plan.Copied() {
		n += m.files[name].Size
	}
	return n
}

// CopyFile implements [delivery.Source]. The repository checks the file's digest.
func (m *pulledMachines) CopyFile(ctx context.Context, name string, w io.Writer) error {
	blob := m.files[name]
	show := m.begin("fetching "+name, blob.Size)
	defer show.end()
	rc, err := m.repo.Fetch(ctx, blob)
	if err == nil {
		_, err = io.Copy(w, source.Counting(rc, show.add))
		err = errors.Join(err, rc.Close())
	}
	if err != nil {
		return fmt.Errorf("file %q: %w", name, err)
	}
	return nil
}

// Verify implements [delivery.Source]: no byte was written that was not verified.
func (m *pulledMachines) Verify(context.Context) error { return nil }
