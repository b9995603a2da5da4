package ovf

import (
	"fmt"

	"github.com/davit-oci/davit/machine"
)

// Bare returns the OVF of a machine that is known by its disks alone, as
// docs/spec.md has it: what [Write] returns for one CPU, 1024 MiB, and the disks
// on SATA. It depends on their names, which are those that an artifact can have,
// and capacities. There is at least one disk.
//
// Every byte counts: the OVF is the config of an artifact, and the artifact has
// the same digest wherever it is made. A file's name is that of a raw disk,
// which is never there: it is for tools that want one.
func Bare(disks []machine.Disk) []byte {
	const controller = "sata0"
	m := &machine.Machine{
		ID:          "vm",
		CPUs:        1,
		Memory:      1024 * mib,
		Controllers: []machine.Controller{{Name: controller, Type: machine.SATA, Model: machine.AHCI}},
	}
	e := &machine.Envelope{Machines: []*machine.Machine{m}}
	for n, d := range disks {
		d = machine.Disk{Name: d.Name, Capacity: d.Capacity, Format: "raw", File: fmt.Sprintf("disk%d.img", n)}
		e.Disks = append(e.Disks, d)
		e.Files = append(e.Files, machine.File{ID: fmt.Sprintf("file%d", n), Name: d.File, Size: -1})
		d.Controller, d.Bus, d.Unit = controller, machine.SATA, n
		m.Disks = append(m.Disks, d)
	}
	// Nothing here is beyond OVF, so there is nothing to read back for.
	w := writer{e: e}
	return w.envelope(nil)
}
