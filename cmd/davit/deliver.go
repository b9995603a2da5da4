package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/delivery"
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
		f.target.machine = delivery.Find("ova")
	}
	t := f.target.machine
	switch {
	case t == nil && f.machine != "":
		return nil, withHint(usagef("--machine: only disks are written"), "-O FORMAT, one of %s", targetNames)
	case f.certKey != "" && (t == nil || !t.Several):
		return nil, usagef("--cert-key: only OVF packages are signed: -O ova, ovf or virtualbox")
	case t == nil:
		return nil, nil
	case f.disk != "":
		return nil, usagef("--disk: -O %s writes the machine with all its disks", t.Name)
	case dest == "-" || dest == "":
		return nil, usagef("-O %s: DEST is a file or a folder", t.Name)
	}
	if !delivery.IsFolder(dest) { // whose files have no names yet
		if _, err := os.Stat(dest); err == nil && !t.Archive {
			return nil, usagef("%s: -O %s writes a folder, and this is a file: name a folder", dest, t.Name)
		}
		if _, err := wholefile.Check(dest, f.target.force); err != nil && t.Archive {
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
	if f.machine == "" && f.target.machine.Several {
		return e, nil
	}
	return e.Only(f.machine)
}

// targetNames are the names of -O that are about machines.
const targetNames = "ova, ovf, vmware, virtualbox, libvirt, hyperv"

// targetsHelp is how the help of a command describes them.
const targetsHelp = `With -O ` + targetNames + ` the machine is written as well,
as that product imports it. ova and virtualbox make one file, an OVA; the others
fill a folder: the descriptor, the disks in the format that it takes, and the
files that it names. What the target cannot express is listed on stderr.`

// plan settles which files are written where; see [delivery.New].
func (f *deliveryFlags) plan(e *machine.Envelope, disks []disk.Reader, o delivery.Options) (*delivery.Delivery, error) {
	o.Target, o.Replace = f.target.machine, f.target.force
	d, err := delivery.New(e, disks, o)
	if target, ok := errors.AsType[*delivery.TargetError](err); ok {
		err = fmt.Errorf("-O %s: %w", target.Target.Name, target.Err)
	}
	if _, ok := errors.AsType[*delivery.SectorError](err); ok {
		err = withHint(err, "-O libvirt or -O hyperv, which have such sectors; or a FORMAT of disks, without the machine")
	}
	return d, err
}

// destinationOf is where a disk of a delivery goes.
func (f *deliveryFlags) destinationOf(d delivery.Disk) destination {
	to := destination{path: d.Path, format: d.Format, force: f.target.force, adapter: d.Adapter, described: true}
	if d.Member {
		to.kind = toMember
	}
	return to
}

// writtenBeside are the files of the report that are not those of disks.
func (f *deliveryFlags) writtenBeside(d *delivery.Delivery) (files []writtenFile) {
	for _, file := range d.Files() {
		w := writtenFile{Path: file.Path, Format: disk.Format(f.target.machine.Name), Size: file.Size}
		if file.Copied {
			w.Format = "file"
		}
		files = append(files, w)
	}
	return files
}
