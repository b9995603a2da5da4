package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/delivery"
	"github.com/davit-oci/davit/machine/ovf"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/verify"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

func newMachine(g *globals) *cobra.Command {
	return newGroup("machine", "Show and convert descriptions of machines", newMachineShow(g), newMachineConvert(g))
}

type machineShowOptions struct {
	*globals
	registryFlags
	machine string
}

func newMachineShow(g *globals) *cobra.Command {
	o := machineShowOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "show REF|SOURCE",
		Short: "Show the machine of an artifact, or of a descriptor",
		Long: `Show the machine that an artifact or a descriptor describes: what it is made of,
and what the descriptor has beside that. SOURCE is an OVA, an OVF, a folder with
one, a VMX, a libvirt domain or a .vbox. No disk is opened or fetched, and no
signature is checked. Passwords are not shown.

With --json it is one machine: of several, the one of --machine. Of a collection
without machines it is what that says of all, and "machines" is there and empty.`,
		Args: exactArgs("REF or SOURCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runMachineShow(cmd.Context(), cmd.OutOrStdout(), args[0], o)
		},
	}
	o.registryFlags.flags(cmd)
	cmd.Flags().StringVar(&o.machine, "machine", "", "only the machine with this `ID`")
	return cmd
}

type machineShowReport struct {
	report
	shownMachine
	Machines *[]shownMachine `json:"machines,omitempty"` // of a collection without machines: empty
}

func runMachineShow(ctx context.Context, stdout io.Writer, name string, o machineShowOptions) error {
	var e *machine.Envelope
	var err error
	if isFile(name) {
		e, err = readDescriptor(ctx, o.globals, name)
	} else {
		e, err = o.fetchEnvelope(ctx, name)
	}
	if err != nil {
		return err
	}
	if o.json && o.machine == "" && len(e.Machines) == 0 {
		return writeJSON(stdout, machineShowReport{newReport("davit machine show"), showNone(e), &[]shownMachine{}})
	}
	if o.machine != "" || o.json {
		if e, err = e.Only(o.machine); err != nil {
			return err
		}
	}
	if o.json {
		return writeJSON(stdout, machineShowReport{newReport("davit machine show"), showOnly(e), nil})
	}
	return printEnvelope(stdout, e, true)
}

// readDescriptor reads a SOURCE that describes machines. No other file is
// opened.
func readDescriptor(ctx context.Context, g *globals, path string) (e *machine.Envelope, err error) {
	if path == "-" {
		return nil, usagef(`"-" is a disk: a descriptor is a file`)
	}
	a, err := appliance.Open(ctx, path, appliance.Options{DescriptorOnly: true})
	if errors.Is(err, appliance.ErrNotMachine) {
		return nil, withHint(err, "davit inspect %s", path)
	}
	if err != nil {
		return nil, err
	}
	defer closeInto(&err, a)
	source.WarnQuirks(path, a, observer{g})
	return a.Envelope, nil
}

// fetchEnvelope reads the machines of an artifact from its manifest and its
// OVF. Nothing else is fetched.
func (o *machineShowOptions) fetchEnvelope(ctx context.Context, name string) (_ *machine.Envelope, err error) {
	ref, err := parseRef(name)
	if err != nil {
		return nil, err
	}
	repo, err := o.open(ctx, o.globals, ref)
	if err != nil {
		return nil, err
	}
	defer closeInto(&err, repo)
	e, err := envelopeOf(ctx, repo)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return e, nil
}

func envelopeOf(ctx context.Context, repo *registry.Repository) (*machine.Envelope, error) {
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return nil, err
	}
	if desc.MediaType == ocispec.MediaTypeImageIndex {
		return nil, fmt.Errorf("an index of several artifacts; name one of them: %w", errNotFound)
	}
	found, err := verify.Unverified(ctx, repo, desc) // it is shown, and nothing else is done with it
	if err != nil {
		return nil, err
	}
	m, err := artifact.ParseManifest(found.Subject.Manifest(), found.Subject.Descriptor())
	if err != nil {
		return nil, err
	}
	return readMachines(ctx, repo, m)
}

// readMachines fetches the OVF of an artifact and reads it.
func readMachines(ctx context.Context, repo *registry.Repository, m *artifact.Manifest) (*machine.Envelope, error) {
	data, err := readOVF(ctx, repo, m)
	if err != nil {
		return nil, err
	}
	e, err := ovf.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("its OVF: %w", err)
	}
	addSectors(e, m)
	return e, nil
}

type machineConvertOptions struct {
	*globals
	target  string
	machine string
	force   bool
}

func newMachineConvert(g *globals) *cobra.Command {
	o := machineConvertOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "convert SOURCE DEST",
		Short: "Write a descriptor for another hypervisor",
		Long: `Write a descriptor for another hypervisor. No disk is read or written: the
descriptor names disks beside it, as "davit convert" and "davit pull" write them.

SOURCE is an OVA, an OVF, a folder with one, a VMX, a libvirt domain or a .vbox.
DEST is a file, or a folder for the descriptors of several machines. What the
target cannot express is listed on stderr.`,
		Args: exactArgs("SOURCE", "DEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runMachineConvert(cmd.Context(), cmd.OutOrStdout(), args[0], args[1], o)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.target, "target-format", "O", "", "`FORMAT` to write: "+descriptorNames+"\n(default: the extension of DEST)")
	f.StringVar(&o.machine, "machine", "", "only the machine with this `ID`")
	f.BoolVar(&o.force, "force", false, "replace an existing file")
	return cmd
}

type machineConvertReport struct {
	report
	Files  []convertedDescriptor `json:"files"`
	Losses []machine.Loss        `json:"losses"`
}

type convertedDescriptor struct {
	Path   string `json:"path"`
	Format string `json:"format"` // the name of the target
}

func runMachineConvert(ctx context.Context, stdout io.Writer, from, to string, o machineConvertOptions) (err error) {
	t, err := o.findTarget(from, to)
	if err != nil {
		return err
	}
	e, err := readDescriptor(ctx, o.globals, from)
	if err != nil {
		return err
	}
	if o.machine != "" || len(e.Machines) == 0 && !t.Several {
		if e, err = e.Only(o.machine); err != nil {
			return err
		}
	}
	folder := delivery.IsFolder(to)
	if len(e.Machines) > 1 && !t.Several && !folder {
		err := usagef("%s: a descriptor for %s has one machine, and there are %d", to, t.Name, len(e.Machines))
		return withHint(err, "--machine %s, or a folder as DEST", quoted(e.Machines[0].ID))
	}

	dir := filepath.Dir(to)
	if folder {
		dir = to
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	placed, moved := t.Place(e)
	files, lost, err := t.Describe(placed, dir)
	if err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	unread, lost := e.AllUnread(), slices.Concat(moved, lost)

	r := machineConvertReport{report: newReport("davit machine convert"), Losses: list(slices.Concat(unread, lost))}
	var out wholefile.Set
	defer func() { out.Abandon(false) }()
	if folder {
		if err := out.Folder(filepath.Clean(to)); err != nil {
			return err
		}
	}
	for _, f := range files {
		path := to
		if folder {
			path = filepath.Join(to, f.Name)
		}
		if err := out.Write(path, o.force, f.Data); err != nil {
			return err
		}
		r.Files = append(r.Files, convertedDescriptor{path, t.Name})
	}
	if err := out.Commit(); err != nil {
		return err
	}
	warnLosses(o.globals, from, unread)
	warnLosses(o.globals, to, lost)
	if o.json {
		return writeJSON(stdout, r)
	}
	return nil
}

// descriptorNames are the targets that have a descriptor of their own.
const descriptorNames = "ovf, vmware, virtualbox, libvirt, hyperv"

// findTarget returns the target of -O or, without it, the one whose
// descriptors have the extension of DEST.
func (o *machineConvertOptions) findTarget(from, to string) (*delivery.Target, error) {
	if to == "-" || to == "" {
		return nil, usagef("DEST is a file or a folder")
	}
	if o.target == "" {
		ext := strings.ToLower(filepath.Ext(to))
		for _, t := range delivery.Targets() {
			if t.Ext == ext && t.Name != "ova" {
				return t, nil
			}
		}
		return nil, withHint(usagef("%s: the extension says no format: -O is missing", to), "-O FORMAT, one of %s", descriptorNames)
	}
	t := delivery.Find(o.target)
	_, err := disk.ParseFormat(o.target)
	switch {
	case o.target == "ova":
		return nil, withHint(usagef("-O ova: an OVA has the disks in it"), "davit convert -O ova %s %s", from, to)
	case t == nil && err == nil:
		return nil, withHint(usagef("-O %s: a format of disks", o.target), "davit convert -O %s %s %s", o.target, from, to)
	case t == nil:
		return nil, withHint(usagef("-O %s: no such format", o.target), "-O FORMAT, one of %s", descriptorNames)
	}
	return t, nil
}
