package delivery

import (
	"testing"

	"github.com/davit-oci/davit/machine"
)

// The disk from which a machine starts decides whether a BIOS can start it.
func TestFirmwareForLargeSectors(t *testing.T) {
	for _, test := range []struct {
		name  string
		disks []int
		is    machine.Firmware
		want  machine.Firmware
		loss  bool
	}{
		{"one of them", []int{4096}, "", machine.UEFI, true},
		{"all of them", []int{4096, 4096}, "", machine.UEFI, true},
		{"the system, and a usual disk for data", []int{4096, 0}, "", machine.UEFI, true},
		{"the same with a BIOS that is said", []int{4096, 512}, machine.BIOS, machine.BIOS, true},
		{"UEFI already", []int{4096, 0}, machine.UEFI, machine.UEFI, false},
		{"a usual system, and one for data", []int{0, 4096}, "", "", false},
		{"usual ones", []int{512, 0}, machine.BIOS, machine.BIOS, false},
		{"no disk", nil, "", "", false},
	} {
		m := &machine.Machine{Firmware: test.is}
		for _, size := range test.disks {
			m.Disks = append(m.Disks, machine.Disk{SectorSize: size})
		}
		losses := chooseFirmware(&machine.Envelope{Machines: []*machine.Machine{m}})
		if m.Firmware != test.want || len(losses) > 0 != test.loss {
			t.Errorf("%s: firmware %q, losses %v; want %q", test.name, m.Firmware, losses, test.want)
		}
	}
}
