package libvirt

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/davit-oci/davit/machine"
)

// maxController is the highest number of a controller in libvirt's schema.
const maxController = 99

// A planned drive is one that is written.
type planned struct {
	field    string // of the model: disks[0]
	cdrom    bool
	file     string
	format   string // the driver's word
	readOnly bool
	sector   int // as machine.Disk has it

	asked slot        // as the machine has it
	like  machine.Bus // of the machine's other disks, if its own is not said
	model machine.ControllerModel
	named bool // asked is of a controller that the machine has

	slot slot // in QEMU's machine
	dev  string
}

// plan chooses the chip set, and a slot for each drive: its own wherever QEMU
// has that.
func (w *writer) plan() error {
	controllers := make(map[string]machine.Controller)
	for _, c := range w.m.Controllers {
		controllers[c.Name] = c
	}
	add := func(p planned, controller string, bus machine.Bus, unit int) {
		p.asked = slot{bus: bus, unit: unit}
		if c, ok := controllers[controller]; ok && hasController(c.Type) {
			p.asked.bus, p.asked.number, p.model, p.named = c.Type, c.Number, c.Model, true
		}
		w.planned = append(w.planned, p)
	}
	for i, d := range w.m.Disks {
		field := fmt.Sprintf("disks[%d]", i)
		if d.File == "" {
			w.lose(field, d.Name, "it is blank, and libvirt attaches files: qemu-img create makes one")
			continue
		}
		if d.Parent != "" {
			w.lose(field+".parent", d.Parent, "the disk has to be whole in its file")
		}
		add(planned{field: field, file: d.File, format: driverType(d.Format), readOnly: d.ReadOnly, sector: d.SectorSize}, d.Controller, d.Bus, d.Unit)
	}
	for i, c := range w.m.CDROMs {
		add(planned{field: fmt.Sprintf("cdroms[%d]", i), cdrom: true, file: c.File, format: "raw"}, c.Controller, c.Bus, c.Unit)
	}

	// A disk whose bus is not said is where the others are.
	isSaid := func(p planned) bool { return !p.cdrom && p.asked.bus != "" }
	if i := slices.IndexFunc(w.planned, isSaid); i >= 0 {
		for n := range w.planned {
			if p := &w.planned[n]; !p.cdrom && p.asked.bus == "" {
				p.like, p.model = w.planned[i].asked.bus, w.planned[i].model
			}
		}
	}

	// IDE is in the older of QEMU's two chip sets alone, and what enforces
	// secure boot in the newer.
	ide := slices.ContainsFunc(w.planned, func(p planned) bool { return p.asked.bus == machine.IDE && p.sector == 0 })
	enforced := w.m.SecureBoot && w.m.Firmware == machine.UEFI
	w.older = (ide || isPC(w.m.HardwareVersion)) && !enforced && w.platform.pc

	if err := w.place(); err != nil {
		return err
	}
	w.nameDrives()
	w.report()
	return nil
}

// isPC says whether a machine type of QEMU's has the older chip set.
func isPC(version string) bool {
	return version == "pc" || strings.HasPrefix(version, "pc-i440fx-")
}

// bus is where a drive can be.
func (w *writer) bus(p *planned) machine.Bus {
	bus := cmp.Or(p.asked.bus, p.like)
	if p.sector != 0 && bus != machine.SCSI && bus != machine.USB {
		return machine.Virtio // QEMU starts with no other sectors than those of 512 bytes on IDE and SATA
	}
	switch bus {
	case machine.SCSI:
		return bus
	case machine.SATA:
		if w.platform.pc {
			return bus
		}
	case machine.USB:
		if p.file != "" && w.pci { // QEMU's has no drive without a medium
			return bus
		}
	case machine.IDE:
		if w.older {
			return bus
		}
	case machine.Virtio, "":
		if !p.cdrom {
			return machine.Virtio
		}
	}
	if !w.platform.pc {
		return machine.SCSI
	}
	return machine.SATA // needs no driver that a system may lack
}

// place gives each drive a slot: first those that get their own.
func (w *writer) place() error {
	scsi := make(map[int]machine.ControllerModel) // by number
	for _, c := range w.m.Controllers {
		if c.Type == machine.SCSI {
			scsi[c.Number] = w.scsiModel(c.Model)
		}
	}
	ports := func(s slot) int { // of a controller; 0: there is no such
		switch {
		case s.bus == machine.IDE && s.number <= 1:
			return 2
		case s.bus == machine.SATA:
			return 6
		case s.bus == machine.SCSI:
			return targets[scsi[s.number]]
		}
		return 0
	}
	taken := make(map[slot]bool)
	units := make(map[int]int) // of USB, by controller: in order
	moved := make([]bool, len(w.planned))
	for i := range w.planned {
		p := &w.planned[i]
		p.slot = p.asked
		p.slot.bus = w.bus(p)
		switch {
		case p.slot.bus == machine.USB:
			if p.slot.number > maxController {
				p.slot.number = 0
			}
			p.slot.unit = units[p.slot.number]
			units[p.slot.number]++
			continue
		case p.slot.bus != p.asked.bus || p.slot.number > maxController || p.slot.unit < 0 || taken[p.slot]:
			moved[i] = true
		case p.slot.bus == machine.Virtio:
			moved[i] = p.slot.unit >= machine.MaxDisks
		default:
			if p.slot.bus == machine.SCSI && !p.named && scsi[0] == "" {
				scsi[0] = w.scsiModel("")
			}
			moved[i] = p.slot.unit >= ports(p.slot)
		}
		if !moved[i] {
			taken[p.slot] = true
		}
	}
	next := make(map[machine.Bus]slot)
	for i := range w.planned {
		p := &w.planned[i]
		if !moved[i] {
			continue
		}
		if _, ok := next[p.slot.bus]; !ok {
			next[p.slot.bus] = slot{bus: p.slot.bus}
		}
		s := next[p.slot.bus]
		for {
			if s.bus == machine.SCSI && scsi[s.number] == "" {
				scsi[s.number] = w.scsiModel(p.model)
			}
			if s.bus != machine.Virtio && s.unit >= ports(s) {
				s.number, s.unit = s.number+1, 0
				if s.bus == machine.IDE && s.number > 1 {
					// Both channels are full.
					next[machine.IDE] = s
					if s = next[machine.SATA]; s.bus == "" {
						s.bus = machine.SATA
					}
				}
				continue
			}
			if s.number > maxController {
				return machine.Unsupported("%s: libvirt has no place for so many drives of %s", p.field, p.slot.bus)
			}
			if !taken[s] {
				break
			}
			s.unit++
		}
		taken[s] = true
		p.slot = s
		next[s.bus] = s
	}
	w.scsi = scsi
	return nil
}

// targets are how many disks a controller of SCSI has in QEMU. libvirt's
// lsilogic is not VMware's, but of the same family.
var targets = map[machine.ControllerModel]int{
	machine.LSILogic:    7,
	machine.LSILogicSAS: 8,
	machine.PVSCSI:      64,
	machine.VirtioSCSI:  100, // 256 in QEMU; libvirt's schema has two digits
}

// scsiModel is the model that QEMU has for another.
func (w *writer) scsiModel(model machine.ControllerModel) machine.ControllerModel {
	if !w.platform.pc {
		return machine.VirtioSCSI
	}
	if _, ok := targets[model]; ok {
		return model
	}
	if model == machine.BusLogic {
		return machine.LSILogic // the nearest in age
	}
	return machine.VirtioSCSI
}

// nameDrives gives each drive a name that libvirt wants: unique, and with the
// prefix of its bus.
func (w *writer) nameDrives() {
	sd := 0
	for i := range w.planned {
		switch p := &w.planned[i]; p.slot.bus {
		case machine.IDE:
			p.dev = devName("hd", 2*p.slot.number+p.slot.unit)
		case machine.Virtio:
			p.dev = devName("vd", p.slot.unit)
		default:
			p.dev = devName("sd", sd)
			sd++
		}
	}
}

// devName is what [parseDev] reads.
func devName(prefix string, index int) string {
	var letters []byte
	for n := index + 1; n > 0; n = (n - 1) / 26 {
		letters = append(letters, byte('a'+(n-1)%26))
	}
	slices.Reverse(letters)
	return prefix + string(letters)
}

// report says what is not as the machine has it.
func (w *writer) report() {
	for i := range w.planned {
		p := &w.planned[i]
		switch {
		case p.slot.bus != p.asked.bus:
			why := fmt.Sprintf("not a bus that QEMU's %s has for it", w.machineType())
			switch {
			case p.asked.bus == "":
				why = "it is not said"
			case p.sector != 0 && (p.asked.bus == machine.IDE || p.asked.bus == machine.SATA):
				why = fmt.Sprintf("QEMU has no disks of %d-byte sectors there", p.sector)
			}
			w.lose(p.field+".bus", p.asked.bus, fmt.Sprintf("%s: %s is written", why, p.slot.bus))
		case p.slot.unit != p.asked.unit || p.slot.number != p.asked.number:
			w.lose(p.field+".unit", place(p.asked), "no place of its own in QEMU: it is "+place(p.slot))
		}
		if p.readOnly && (p.slot.bus == machine.IDE || p.slot.bus == machine.SATA) {
			w.lose(p.field+".readOnly", true, "QEMU has no such disks of "+string(p.slot.bus))
			p.readOnly = false
		}
	}
	used := make(map[slot]bool)
	for _, p := range w.planned {
		used[slot{bus: p.slot.bus, number: p.slot.number}] = true
	}
	asked := make(map[slot]bool)
	for _, p := range w.planned {
		asked[slot{bus: p.asked.bus, number: p.asked.number}] = true
	}
	for i, c := range w.m.Controllers {
		field := fmt.Sprintf("controllers[%d]", i)
		at := slot{bus: c.Type, number: c.Number}
		written := c.Model
		switch c.Type {
		case machine.IDE:
			// A channel without drives is nothing to miss.
			if asked[at] && !used[at] {
				w.lose(field, c.Name, "QEMU has two channels of IDE, in its older chip set for x86")
				continue
			}
			if !used[at] {
				continue
			}
			written = machine.PIIX3
		case machine.SATA:
			if !w.platform.pc {
				w.lose(field, c.Name, fmt.Sprintf("QEMU's %s has none", w.chipSet))
				continue
			}
			written = machine.AHCI
		case machine.SCSI:
			written = w.scsi[c.Number]
		case machine.USB:
			if !w.pci {
				w.lose(field, c.Name, fmt.Sprintf("QEMU's %s has none", w.chipSet))
				continue
			}
			if usbModels[c.Model] == nil || !w.platform.pc {
				written = machine.XHCI
			}
		default:
			w.lose(field, c.Name, "libvirt has no such controller for QEMU")
			continue
		}
		if c.Number > maxController {
			w.lose(field, c.Name, fmt.Sprintf("controllers are numbered up to %d", maxController))
			continue
		}
		if c.Model != "" && c.Model != written {
			w.lose(field+".model", c.Model, fmt.Sprintf("QEMU has no such controller: %s is written", written))
		}
		w.kept = append(w.kept, machine.Controller{Type: c.Type, Number: c.Number, Model: written})
		delete(used, at)
	}
	// What drives need beside.
	for _, p := range w.planned {
		at := slot{bus: p.slot.bus, number: p.slot.number}
		if hasController(at.bus) && used[at] {
			c := machine.Controller{Type: at.bus, Number: at.number}
			if at.bus == machine.SCSI {
				c.Model = w.scsi[at.number]
			}
			w.kept = append(w.kept, c)
			delete(used, at)
		}
	}
}

// place is how people call a slot.
func place(s slot) string {
	if !hasController(s.bus) {
		return fmt.Sprintf("%s %d", s.bus, s.unit)
	}
	return fmt.Sprintf("%s%d unit %d", s.bus, s.number, s.unit)
}

func (w *writer) drives() {
	for _, p := range w.planned {
		device := "disk"
		if p.cdrom {
			device = "cdrom"
		}
		w.put(2, "<disk type='file' device='%s'>", device)
		w.put(3, "<driver name='qemu' type='%s'/>", p.format)
		if p.file != "" {
			w.put(3, "<source file='%s'/>", path.Join(w.o.Dir, p.file))
		}
		if p.sector != 0 {
			w.put(3, "<blockio logical_block_size='%[1]v' physical_block_size='%[1]v'/>", p.sector)
		}
		w.put(3, "<target dev='%s' bus='%s'/>", p.dev, p.slot.bus)
		if p.cdrom || p.readOnly {
			w.put(3, "<readonly/>")
		}
		s := p.slot
		switch s.bus {
		case machine.IDE:
			w.put(3, "<address type='drive' controller='0' bus='%v' target='0' unit='%v'/>", s.number, s.unit)
		case machine.SATA:
			w.put(3, "<address type='drive' controller='%v' bus='0' target='0' unit='%v'/>", s.number, s.unit)
		case machine.SCSI:
			// QEMU's lsilogic has a disk for each unit, the others for each target.
			target, unit := s.unit, 0
			if w.scsi[s.number] == machine.LSILogic {
				target, unit = 0, s.unit
			}
			w.put(3, "<address type='drive' controller='%v' bus='0' target='%v' unit='%v'/>", s.number, target, unit)
		case machine.USB:
			w.put(3, "<address type='usb' bus='%v'/>", s.number)
		}
		w.put(2, "</disk>")
	}
}

// usbModels are libvirt's words for a controller of USB, which for USB 2 is
// several: EHCI hands the devices of USB 1 to its companions.
var usbModels = map[machine.ControllerModel][]string{
	"":           {"qemu-xhci"},
	machine.XHCI: {"qemu-xhci"},
	machine.EHCI: {"ich9-ehci1", "ich9-uhci1", "ich9-uhci2", "ich9-uhci3"},
	machine.UHCI: {"piix3-uhci"},
}

func (w *writer) controllers() {
	ide, usb := false, false
	for _, c := range w.kept {
		switch c.Type {
		case machine.IDE:
			if !ide { // both channels
				ide = true
				w.put(2, "<controller type='ide' index='0' model='piix3'/>")
			}
		case machine.SCSI:
			model := string(c.Model)
			if c.Model == machine.PVSCSI {
				model = "vmpvscsi"
			}
			w.put(2, "<controller type='scsi' index='%v' model='%s'/>", c.Number, model)
		case machine.SATA:
			w.put(2, "<controller type='sata' index='%v'/>", c.Number)
		case machine.USB:
			usb = true
			models := usbModels[c.Model]
			w.put(2, "<controller type='usb' index='%v' model='%s'/>", c.Number, models[0])
			for i, companion := range models[1:] {
				w.put(2, "<controller type='usb' index='%v' model='%s'>", c.Number, companion)
				w.put(3, "<master startport='%v'/>", 2*i)
				w.put(2, "</controller>")
			}
		}
	}
	if !usb {
		w.put(2, "<controller type='usb' model='none'/>") // else libvirt adds one
	}
	// A pointer that is where the person's is, and the keyboard that PCs have.
	switch {
	case !w.platform.pc:
		w.put(2, "<input type='keyboard' bus='virtio'/>")
		w.put(2, "<input type='tablet' bus='virtio'/>")
	case usb:
		w.put(2, "<input type='tablet' bus='usb'/>")
	}
}
