package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// openMachines opens the SOURCE that describes machines, nil if what was named are
// disks.
func (o *pushOptions) openMachines(ctx context.Context, args []argument, from source.Options) (*source.Machines, error) {
	for _, arg := range args {
		m, err := o.source.openMachines(ctx, arg.path, from)
		if err != nil {
			return nil, err
		}
		if m == nil {
			continue
		}
		if err := o.takeMachines(m, arg, len(args)); err != nil {
			return nil, errors.Join(err, m.Close())
		}
		return m, nil
	}
	if o.machineID != "" {
		return nil, usagef("--machine %s: SOURCE describes no machine", o.machineID)
	}
	if o.unverified {
		return nil, usagef("--unverified-package: SOURCE is no package")
	}
	return nil, nil
}

// errNamed refuses a name for the disk of what has several.
func errNamed(src argument) error {
	return usagef("%s=%s: a machine's disks have names", src.name, src.path)
}

// errMachineGiven refuses flags that describe the machine of bare disks.
func errMachineGiven(path string) error {
	return usagef("%s: it describes a machine; flags describe that of bare disks", path)
}

// takeMachines checks that machines can be pushed as the flags say, and tells what
// gets published.
func (o *pushOptions) takeMachines(s *source.Machines, src argument, sources int) error {
	path := src.path
	if sources > 1 {
		return usagef("%s: a machine brings its own disks; it is the only SOURCE", path)
	}
	if src.named {
		return errNamed(src)
	}
	if o.machineID != "" && o.original && len(s.Appliance.Machines) > 1 {
		return usagef("--keep-original keeps all of %s; with --machine a part of it is pushed", path)
	}
	if o.machine.given() {
		return errMachineGiven(path)
	}
	if o.machineID != "" {
		if err := s.Choose(o.machineID); err != nil {
			return err
		}
	}
	if !s.OwnOVF { // else the OVF has it
		warnLosses(o.globals, path, s.Envelope.AllUnread())
		_, losses, err := s.Describe(nil)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		warnLosses(o.globals, "the OVF", losses)
	}
	warnPublished(o.globals, s.Envelope)
	sayAlong(o.globals, path, s.Files())
	for _, f := range s.Files() {
		if strings.EqualFold(machine.Base(f.Name), "tpm.dat") { // oVirt's, of which no OVF says what it is
			o.stderr.warn("%s is published: it is the state of a TPM, with its keys", f.Name)
		}
	}
	if o.original && s.OVF == nil {
		o.stderr.warn("%s is published as it is (--keep-original): with paths of this host, and all passwords that are in it", s.Descriptor.Name)
	}
	return nil
}

// layerTypes are the media types of package files.
var layerTypes = map[appliance.Role]string{
	appliance.RoleFile:        artifact.TypeFile,
	appliance.RoleCD:          artifact.TypeFile,
	appliance.RoleNVRAM:       artifact.TypeNVRAM,
	appliance.RoleManifest:    artifact.TypeOVFManifest,
	appliance.RoleCertificate: artifact.TypeOVFCert,
}

// pushFiles reads the files that travel as they are, and sends them.
func (p *pusher) pushFiles(ctx context.Context) ([]ocispec.Descriptor, error) {
	var descs []ocispec.Descriptor
	for _, f := range p.machines.Files() {
		desc, err := artifact.PushFile(ctx, p.target, artifact.File{Type: layerTypes[f.Role], Name: f.Name, Content: f.Content})
		if err != nil {
			return nil, err
		}
		descs = append(descs, desc)
	}
	return descs, nil
}

// verifyPackage compares what was read with the manifest of the package, and tells
// what is wrong with one that is pushed all the same.
func (p *pusher) verifyPackage(ctx context.Context) error {
	if err := p.machines.Verify(ctx); err != nil {
		return err
	}
	if r := p.machines.Report; r != nil {
		for _, why := range r.Wrong {
			p.stderr.warn("%s: pushed all the same, as --unverified-package says: %s", p.machines.Path, why)
		}
	}
	return nil
}
