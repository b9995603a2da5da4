package ovf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/davit-oci/davit/machine"
)

// attached are the units of a controller that are taken.
type attached map[int]bool

// controllerModels are the words of products for controllers.
var controllerModels = map[machine.Bus]map[string]machine.ControllerModel{
	machine.IDE: {
		"piix3": machine.PIIX3, "piix4": machine.PIIX4, "ich6": machine.ICH6,
	},
	machine.SCSI: {
		"lsilogic": machine.LSILogic, "buslogic": machine.BusLogic,
		"lsilogicsas": machine.LSILogicSAS, "lsisas1068": machine.LSILogicSAS,
		"virtualscsi": machine.PVSCSI, "pvscsi": machine.PVSCSI,
		"virtio": machine.VirtioSCSI, "virtio-scsi": machine.VirtioSCSI, "virtioscsi": machine.VirtioSCSI,
	},
	machine.SATA: {
		"ahci": machine.AHCI, "vmware.sata.ahci": machine.AHCI, "intelahci": machine.AHCI,
	},
	machine.NVMe: {
		"nvme": "", "vmware.nvme.controller": "",
	},
	machine.USB: {
		"vmware.usb.ehci": machine.EHCI, "ehci": machine.EHCI, "vmware.usb.xhci": machine.XHCI, "xhci": machine.XHCI,
		"ohci": machine.UHCI, "uhci": machine.UHCI, "vmware.usb.uhci": machine.UHCI,
	},
}

// controllerOf says what controller an item is, if it is one.
func (s *system) controllerOf(i *resource) (bus machine.Bus, ok bool) {
	subtype := strings.ToLower(i.get("ResourceSubType"))
	switch i.kind {
	case typeIDE:
		return machine.IDE, true
	case typeSCSI:
		return machine.SCSI, true
	case typeUSB:
		return machine.USB, !s.ovirt // there it is how devices of a console are handed on
	case typeOtherStorage:
		switch {
		case s.ovirt: // its graphics card
			return "", false
		case strings.Contains(subtype, "nvme"):
			return machine.NVMe, true
		case strings.Contains(subtype, "virtio"):
			return machine.SCSI, true
		case strings.Contains(subtype, "nvdimm"):
			return "", false
		}
		return machine.SATA, true
	}
	return "", false
}

// controllers reads the controllers, and gives each its number: its Address,
// BusNumber in OVF 0.9, if no other of its type has that, else the next.
func (s *system) controllers() {
	type number struct {
		bus machine.Bus
		n   int
	}
	taken := make(map[number]bool)
	var all []*resource
	for _, i := range s.items {
		bus, ok := s.controllerOf(i)
		if !ok {
			continue
		}
		i.attached = make(attached)
		i.controller = &machine.Controller{Type: bus, Model: choose(i.get("ResourceSubType"), controllerModels[bus]), Number: -1}
		address := i.get("Address")
		if address == "" {
			address = i.get("BusNumber")
		}
		if n, err := parseDecimal(address); err == nil && address != "" && n < 16 && bus != machine.USB && !taken[number{bus, int(n)}] {
			i.controller.Number = int(n)
			taken[number{bus, int(n)}] = true
		}
		all = append(all, i)
	}
	next := make(map[machine.Bus]int)
	for _, i := range all {
		c := i.controller
		for c.Number < 0 {
			if n := next[c.Type]; !taken[number{c.Type, n}] {
				c.Number = n
			}
			next[c.Type]++
		}
		c.Name = fmt.Sprintf("%s%d", c.Type, c.Number)
		s.m.Controllers = append(s.m.Controllers, *c)
	}
}

// adopt finds the controllers of drives whose Parent is there and empty, as
// open-vmdk writes it for all disks but the first: that of the disk before it, else
// the only one there is. CD drives are on IDE where there is any.
func (s *system) adopt() {
	last := s.onlyController()
	for _, i := range s.items {
		if !isDrive(i) {
			continue
		}
		disk := i.kind != typeCD && i.kind != typeDVD
		if parent := s.byID[i.get("Parent")]; parent != nil && parent.controller != nil {
			if disk {
				last = parent
			}
			continue
		}
		parents := i.all("Parent")
		if s.ovirt || len(parents) == 0 || parents[0] != "" {
			continue
		}
		found := last
		if n := slices.IndexFunc(s.items, func(c *resource) bool { return c.controller != nil && c.controller.Type == machine.IDE }); !disk && n >= 0 {
			found = s.items[n]
		}
		if found != nil {
			i.parent = found
			s.warn(i.Element, "%s: its Parent is empty: %s is taken for it", i, found)
		}
	}
}

// onlyController is the one for disks, if there are no two: nil. IDE counts if
// there is no other, since CD drives are on it.
func (s *system) onlyController() (only *resource) {
	for _, i := range s.items {
		switch {
		case i.controller == nil || i.controller.Type == machine.USB:
		case only == nil || only.controller.Type == machine.IDE && i.controller.Type != machine.IDE:
			only = i
		case i.controller.Type != machine.IDE:
			return nil
		}
	}
	return only
}

func isDrive(i *resource) bool {
	switch i.kind {
	case typeDisk, typeLogicalDisk, typeStorage, typeCD, typeDVD:
		return true
	}
	return false
}

// parentOf is the item that a drive is attached to; nil: none that is there.
func (s *system) parentOf(i *resource) *resource {
	if i.parent != nil {
		return i.parent
	}
	return s.byID[i.get("Parent")]
}

// reserve gives each drive that says its unit that one: the first of those that
// say the same, as VirtualBox wrote them for IDE until version 4. Those that do
// not say their controller come last.
func (s *system) reserve() error {
	s.adopt()
	drives := slices.DeleteFunc(slices.Clone(s.items), func(i *resource) bool { return !isDrive(i) })
	slices.SortStableFunc(drives, func(a, b *resource) int {
		switch {
		case a.parent == nil && b.parent != nil:
			return -1
		case a.parent != nil && b.parent == nil:
			return 1
		}
		return 0
	})
	for _, i := range drives {
		parent, address := s.parentOf(i), i.get("AddressOnParent")
		if i.unit = -1; parent == nil || parent.controller == nil || address == "" {
			continue
		}
		n, err := parseDecimal(address)
		if err != nil || n >= machine.MaxDisks {
			return malformedAt(i.Element, "%s: AddressOnParent %q is no number of a unit (8.3)", i, address)
		}
		if unit := int(n); !parent.attached[unit] && (parent.controller.Type != machine.IDE || unit < 2 || unit < 4 && s.ideControllers() == 1) {
			parent.attached[unit] = true
			i.unit = unit
		}
	}
	return nil
}

func (s *system) ideControllers() (n int) {
	for _, i := range s.items {
		if i.controller != nil && i.controller.Type == machine.IDE {
			n++
		}
	}
	return n
}

// place finds where a drive is attached: the unit of its Parent that it said, or
// the next that is free.
func (s *system) place(i *resource) (controller string, bus machine.Bus, unit int, err error) {
	id := i.get("Parent")
	parent := s.parentOf(i)
	switch {
	case parent == nil && (id == "" || s.ovirt && strings.Trim(id, "0-") == ""):
		return "", "", 0, nil
	case parent == nil:
		return "", "", 0, malformedAt(i.Element, "%s: Parent %q is no Item (8.3)", i, id)
	}
	c := parent.controller
	if c == nil {
		s.lose(i.String(), parent.String(), "what it is attached to is not read")
		return "", "", 0, nil
	}
	if i.unit < 0 {
		for i.unit = 0; parent.attached[i.unit]; i.unit++ {
		}
		parent.attached[i.unit] = true
	}
	if c.Type != machine.IDE || i.unit < 2 {
		return c.Name, c.Type, i.unit, nil
	}
	name, ok := s.channel(c, i.unit/2)
	if !ok && i.parent != nil { // which nobody said
		s.lose(i.String(), parent.String(), "it has no place for another drive")
		return "", "", 0, nil
	}
	if !ok {
		return "", "", 0, malformedAt(i.Element, "%s: %s has more than two drives", i, parent)
	}
	return name, machine.IDE, i.unit % 2, nil
}

// channel returns the channel that follows that of c, if c is the only IDE
// controller there is: with VirtualBox until version 3 that is both channels.
func (s *system) channel(c *machine.Controller, n int) (name string, ok bool) {
	if n > 1 || s.ideControllers() > 1 {
		return "", false
	}
	second := *c
	second.Number = (c.Number + n) % 2
	second.Name = fmt.Sprintf("ide%d", second.Number)
	if !slices.Contains(s.m.Controllers, second) {
		s.m.Controllers = append(s.m.Controllers, second)
	}
	return second.Name, true
}

// reference returns what a HostResource names, "disk" or "file": ovf:/disk/ID,
// and /disk/ID in OVF 0.9.
func reference(s, kind string) (id string, ok bool) {
	s = strings.TrimLeft(strings.TrimPrefix(strings.TrimSpace(s), "ovf:"), "/")
	return strings.CutPrefix(s, kind+"/")
}

// disk reads a disk drive.
func (s *system) disk(i *resource) error {
	controller, bus, unit, err := s.place(i)
	if err != nil {
		return err
	}
	d, ok, err := s.backing(i)
	if err != nil || !ok {
		return err
	}
	d.Controller, d.Bus, d.Unit = controller, bus, unit
	if s.ovirt && controller == "" {
		s.ovirtPlace(&d)
	}
	for _, c := range i.Children {
		key, _ := c.Attr(namespaceVMware, "key")
		value, _ := c.Attr(namespaceVMware, "value")
		if c.Name.Space == namespaceVMware && c.Name.Local == "Config" && key == "guestReadOnly" {
			d.ReadOnly = isTrue(value)
		}
	}
	if len(s.m.Disks) == machine.MaxDisks {
		return malformedAt(i.Element, "more than %d disks", machine.MaxDisks)
	}
	s.m.Disks = append(s.m.Disks, d)
	return nil
}

// backing returns the disk that a drive has.
func (s *system) backing(i *resource) (d machine.Disk, ok bool, err error) {
	for _, host := range i.all("HostResource") {
		if id, is := reference(host, "disk"); is {
			if d, ok = s.disks[id]; !ok {
				return d, false, malformedAt(i.Element, "%s: HostResource %q is no disk (8.3)", i, host)
			}
			return d, true, nil
		}
		if id, is := reference(host, "file"); is {
			name, ok := s.files[id]
			if !ok {
				return d, false, malformedAt(i.Element, "%s: HostResource %q is no file (8.3)", i, host)
			}
			return s.fileDisk(id, name), true, nil
		}
		if id := host[strings.LastIndex(host, "/")+1:]; s.ovirt {
			if d, ok := s.disks[id]; ok || s.interfaces[id] == lun {
				return d, ok, nil
			}
		}
		if host != "" {
			return d, false, malformedAt(i.Element, "%s: HostResource %q is neither ovf:/disk/ nor ovf:/file/ (8.3)", i, host)
		}
	}
	s.lose(i.String(), "", "a drive without a disk is not read")
	return d, false, nil
}

// fileDisk is the disk of a drive that names a file without a Disk between.
func (s *system) fileDisk(id, name string) machine.Disk {
	for _, d := range s.env.Disks {
		if d.File == name {
			return d
		}
	}
	d := machine.Disk{Name: id, File: name}
	for n := 0; s.disks[d.Name].Name != ""; n++ {
		d.Name = fmt.Sprintf("%s-%d", id, n)
	}
	s.disks[d.Name] = d
	s.env.Disks = append(s.env.Disks, d)
	return d
}

// cdrom reads a CD or DVD drive.
func (s *system) cdrom(i *resource) error {
	cd := machine.CDROM{Name: i.name}
	var err error
	if cd.Controller, cd.Bus, cd.Unit, err = s.place(i); err != nil {
		return err
	}
	for _, host := range i.all("HostResource") {
		if id, is := reference(host, "file"); is {
			name, ok := s.files[id]
			if !ok {
				return malformedAt(i.Element, "%s: HostResource %q is no file (8.3)", i, host)
			}
			cd.File = name
			break
		}
		if id, is := reference(host, "disk"); is {
			d, ok := s.disks[id]
			if !ok {
				return malformedAt(i.Element, "%s: HostResource %q is no disk (8.3)", i, host)
			}
			cd.File = d.File
			break
		}
		if host != "" {
			s.lose(i.String(), host, "a drive of the host is not read")
		}
	}
	if len(s.m.CDROMs) == machine.MaxDisks {
		return malformedAt(i.Element, "more than %d CD drives", machine.MaxDisks)
	}
	s.m.CDROMs = append(s.m.CDROMs, cd)
	return nil
}
