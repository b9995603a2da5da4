package attach

import (
	"fmt"

	"github.com/davit-oci/davit/machine"
)

// A Target is what a product takes.
type Target struct {
	Name        string
	Buses       []Bus   // in the order in which its firmware looks for the disk to start from
	Unsure      bool    // which place that is, is not known
	Ordered     bool    // what is written says which disk is first, wherever that is
	Disks       []Spare // where disks go that it has no place for, in this order
	Paravirtual []Spare // and before that those whose guest has the drivers of a hypervisor, or that say no bus
	CDs         []Spare // and CD drives
	Any         bool    // it has every place there can be, and only what has none gets a spare one
}

// A Bus is a row of the table: the controllers of one bus and their drives.
type Bus struct {
	Bus         machine.Bus
	Model       machine.ControllerModel         // the row is that of this model; empty: of all that have no row
	Controllers int                             // at most
	Numbers     int                             // they are numbered from 0 to below it; 0: as one likes
	Units       int                             // on each, from 0
	Others      map[machine.ControllerModel]int // units of models that have other ones
	Self        bool                            // unit 7 is the controller's own
	NoCD        bool                            // CD drives are not on it
}

// A Spare is a kind of controller that takes what has no place.
type Spare struct {
	Bus   machine.Bus
	Model machine.ControllerModel
	Units int // that are used; 0: all
}

// Self is the unit that a controller of SCSI has for itself.
const Self = 7

// VirtualBox is what it imports: ApplianceImplImport.cpp of VirtualBox 5 to 7.
// Of a second SCSI controller it warns, whatever its model, and then it finds no
// place for the disks on it. A controller that is imported has the ports of a
// new one: 16 of SCSI, 8 of SAS, and one of virtio and NVMe.
//
// Its BIOS starts from IDE before SATA before SCSI (PC/BIOS/orgs.asm). Its UEFI
// looks for a boot loader, wherever that is.
//
// AHCI is what a disk goes to, as that has most ports and all guests have a
// driver.
func VirtualBox(firmware machine.Firmware) *Target {
	const numbers = 16 // which it does not look at; more than that is an address of something else
	return &Target{
		Name: "VirtualBox",
		Buses: []Bus{
			{Bus: machine.IDE, Controllers: 2, Numbers: 2, Units: 2},
			{Bus: machine.SATA, Controllers: 1, Numbers: numbers, Units: 30},
			{Bus: machine.SCSI, Controllers: 1, Numbers: numbers, Units: 16, Others: map[machine.ControllerModel]int{machine.LSILogicSAS: 8}, Self: true},
			{Bus: machine.SCSI, Model: machine.VirtioSCSI, Controllers: 1, Numbers: numbers, Units: 1},
			{Bus: machine.NVMe, Controllers: 1, Numbers: numbers, Units: 1, NoCD: true},
		},
		Unsure: firmware == machine.UEFI,
		Disks:  []Spare{{Bus: machine.SATA, Model: machine.AHCI}, {Bus: machine.SCSI, Model: machine.LSILogic}, {Bus: machine.IDE, Model: machine.PIIX4}},
		CDs:    []Spare{{Bus: machine.IDE, Model: machine.PIIX4}, {Bus: machine.SATA, Model: machine.AHCI}},
	}
}

// vmware is what ESXi and Workstation have: "Configuration Maximums" of
// vSphere 8, virtual machines. PVSCSI has 64 disks from hardware version 14 on,
// NVMe 63 from 21 on.
func vmware(nvme int) []Bus {
	return []Bus{
		{Bus: machine.SCSI, Controllers: 4, Numbers: 4, Units: 16, Others: map[machine.ControllerModel]int{machine.PVSCSI: 65}, Self: true},
		{Bus: machine.SATA, Controllers: 4, Numbers: 4, Units: 30},
		{Bus: machine.NVMe, Controllers: 4, Numbers: 4, Units: nvme, NoCD: true},
		{Bus: machine.IDE, Controllers: 2, Numbers: 2, Units: 2},
	}
}

// VMware is what imports an OVF. Guests with drivers of their hypervisor, as
// those on virtio are, have them for the paravirtual controller of that model,
// which gets seven disks before there is another.
func VMware(paravirtual machine.ControllerModel) *Target {
	return &Target{
		Name:        "VMware",
		Buses:       vmware(15),
		Unsure:      true,
		Disks:       []Spare{{Bus: machine.SATA, Model: machine.AHCI}, {Bus: machine.SCSI, Model: paravirtual, Units: wide}, {Bus: machine.IDE, Model: machine.PIIX4}},
		Paravirtual: []Spare{{Bus: machine.SCSI, Model: paravirtual, Units: Self}, {Bus: machine.SCSI, Model: paravirtual, Units: wide}},
		CDs:         []Spare{{Bus: machine.IDE, Model: machine.PIIX4}, {Bus: machine.SATA, Model: machine.AHCI}},
	}
}

// VMX is VMware's own file, whose disks are in the order of Buses if it does not
// say another. What moves is on SATA: AHCI is what every system
// that can be on virtio or another product's own controller has a driver for
// without VMware's tools, and Windows without PVSCSI's.
var VMX = Target{
	Name:    "VMware",
	Buses:   vmware(64),
	Disks:   []Spare{{Bus: machine.SATA}},
	CDs:     []Spare{{Bus: machine.SATA}},
	Ordered: true,
}

// Artifact is the config of an artifact, which keeps all as it is. What OVF has
// no bus for has a place that is easy to start from.
var Artifact = Target{
	Name: "OVF",
	Buses: []Bus{
		{Bus: machine.IDE, Units: 2}, {Bus: machine.SATA, Units: 30},
	},
	Disks: []Spare{{Bus: machine.SATA, Model: machine.AHCI}},
	CDs:   []Spare{{Bus: machine.IDE, Model: machine.PIIX4}},
	Any:   true,
}

// row is that of a controller; nil: the target has none of its kind.
func (t *Target) row(bus machine.Bus, model machine.ControllerModel) *Bus {
	var row *Bus
	for i := range t.Buses {
		switch b := &t.Buses[i]; {
		case b.Bus != bus:
		case b.Model == model:
			return b
		case b.Model == "":
			row = b
		}
	}
	return row
}

// rank is the place of a bus in the order of the firmware.
func (t *Target) rank(bus machine.Bus) int {
	for i, b := range t.Buses {
		if b.Bus == bus {
			return i
		}
	}
	return len(t.Buses)
}

// numbers is how many numbers the controllers of a bus have; 0: any.
func (t *Target) numbers(bus machine.Bus) int {
	if row := t.row(bus, ""); row != nil {
		return row.Numbers
	}
	return 0
}

// Most is how many units a controller has at most, whatever its model.
func (b *Bus) Most() int {
	n := b.Units
	for _, units := range b.Others {
		n = max(n, units)
	}
	return n
}

// units are those of a controller, the one of its own among them.
func (b *Bus) units(model machine.ControllerModel) int {
	if n, ok := b.Others[model]; ok {
		return n
	}
	return b.Units
}

// drives is how many a controller takes.
func (b *Bus) drives(model machine.ControllerModel) int {
	if b.Self && b.units(model) > Self {
		return b.units(model) - 1
	}
	return b.units(model)
}

// unitWords are the units that a drive can have.
func (b *Bus) unitWords(model machine.ControllerModel) string {
	last := b.units(model) - 1
	switch {
	case last == 0:
		return "unit 0 only"
	case b.Self && last == Self:
		return fmt.Sprintf("units 0 to %d", Self-1)
	case b.Self:
		return fmt.Sprintf("units 0 to %d, without %d", last, Self)
	}
	return fmt.Sprintf("units 0 to %d", last)
}
