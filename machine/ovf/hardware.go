package ovf

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/machine"
)

// An item is an Item of the VirtualHardwareSection: its elements in the order
// of the schema, which is that of the alphabet. Empty ones are not written.
type item struct {
	optional            bool // an import goes on without it
	address             string
	addressOnParent     string
	allocationUnits     string
	automaticAllocation string
	connection          string
	name                string // ElementName
	hostResource        string
	parent              string
	subType             string
	resourceType        int
	quantity            int64
	coresPerSocket      int
	config              []string // keys and values of vmw:Config, in turn
}

// item writes an Item with the next InstanceID, and returns that.
func (w *writer) item(i item) string {
	w.instances++
	id := strconv.Itoa(w.instances)
	var required []string
	if i.optional {
		required = []string{"ovf:required", "false"}
	}
	w.begin("Item", required...)
	for _, e := range []struct{ name, text string }{
		{"Address", i.address},
		{"AddressOnParent", i.addressOnParent},
		{"AllocationUnits", i.allocationUnits},
		{"AutomaticAllocation", i.automaticAllocation},
		{"Connection", i.connection},
	} {
		if e.text != "" {
			w.text("rasd:"+e.name, e.text)
		}
	}
	w.text("rasd:ElementName", i.name)
	if i.hostResource != "" {
		w.text("rasd:HostResource", i.hostResource)
	}
	w.text("rasd:InstanceID", id)
	if i.parent != "" {
		w.text("rasd:Parent", i.parent)
	}
	if i.subType != "" {
		w.text("rasd:ResourceSubType", i.subType)
	}
	w.number("rasd:ResourceType", int64(i.resourceType))
	if i.quantity > 0 {
		w.number("rasd:VirtualQuantity", i.quantity)
	}
	if i.coresPerSocket > 0 {
		w.use("vmw")
		w.number("vmw:CoresPerSocket", int64(i.coresPerSocket), "ovf:required", "false")
	}
	for n := 0; n < len(i.config); n += 2 {
		w.config("Config", i.config[n], i.config[n+1])
	}
	w.end()
	return id
}

// config writes a setting of VMware's.
func (w *writer) config(element, key, value string) {
	w.use("vmw")
	w.empty("vmw:"+element, "ovf:required", "false", "vmw:key", key, "vmw:value", value)
}

const mib = 1 << 20

func (w *writer) hardware(m *machine.Machine) {
	w.instances = 0
	w.begin("VirtualHardwareSection", "ovf:transport?", strings.Join(m.Transport, " "))
	w.text("Info", "Virtual hardware")
	w.family(m)
	w.architecture(m)
	if cpus := w.cpus(m); cpus > 0 {
		w.item(item{
			allocationUnits: "hertz * 10^6", name: "CPU", resourceType: typeCPU,
			quantity: int64(cpus), coresPerSocket: m.CoresPerSocket,
		})
	}
	if memory := w.memory(m); memory > 0 {
		w.item(item{allocationUnits: "byte * 2^20", name: "Memory", resourceType: typeMemory, quantity: memory})
	}
	w.storage(m)
	w.nics(m)
	w.display(m.Display)
	w.settings(m)
	w.bootOrder(m.BootOrder)
	w.extension()
	w.end()
}

// architecture reports what importers tell by their word for the guest alone.
func (w *writer) architecture(m *machine.Machine) {
	g := m.GuestOS.Complete()
	if w.o.Target == VirtualBox {
		g.VMware = ""
	} else {
		g.VirtualBox = ""
	}
	if !g.IsFor(m.Architecture) {
		w.lose(m.Architecture, "OVF has no word for it: "+cmp.Or(g.Architecture(), "amd64")+" instead", "architecture")
	}
}

// family says the version of the hardware. VMware imports no other's, and for
// VirtualBox it makes no difference.
func (w *writer) family(m *machine.Machine) {
	family := m.HardwareVersion
	if w.o.Target != "" && !strings.HasPrefix(family, "vmx-") {
		family = leastHardware(m)
		if m.HardwareVersion != "" && w.o.Target == VMware {
			w.lose(m.HardwareVersion, "VMware has other hardware: "+family+" instead", "hardwareVersion")
		}
	}
	if family == "" {
		return
	}
	w.use("vssd")
	w.begin("System")
	w.text("vssd:ElementName", "Virtual Hardware Family")
	w.text("vssd:InstanceID", "0")
	w.text("vssd:VirtualSystemType", family)
	w.end()
}

// leastHardware is the oldest hardware of VMware's that has what m needs, so
// that as many hosts as can be take it.
func leastHardware(m *machine.Machine) string {
	switch {
	case m.TPM != "":
		return "vmx-14" // ESXi 6.7
	case m.SecureBoot, slices.ContainsFunc(m.Controllers, func(c machine.Controller) bool { return c.Type == machine.NVMe }):
		return "vmx-13" // ESXi 6.5
	}
	return "vmx-10" // ESXi 5.5: the first that has SATA
}

func (w *writer) cpus(m *machine.Machine) int {
	if m.CPUs == 0 && w.o.Target != "" {
		w.lose("", "it is not said: 1 instead", "cpus")
		return 1
	}
	return m.CPUs
}

// memory is in MiB, which all importers read.
func (w *writer) memory(m *machine.Machine) int64 {
	if m.Memory == 0 && w.o.Target != "" {
		w.lose("", "it is not said: 1 GiB instead", "memory")
		return 1024
	}
	n := (m.Memory + mib - 1) / mib
	if n*mib != m.Memory {
		w.lose(strconv.FormatInt(m.Memory, 10), fmt.Sprintf("it is not a whole number of MiB: %d MiB instead", n), "memory")
	}
	return n
}

// storage writes the controllers, and the disks and CD drives on them.
func (w *writer) storage(m *machine.Machine) {
	instances := make(map[string]string) // InstanceID by Controller.Name
	for i, c := range m.Controllers {
		if item, ok := w.controller(i, c); ok {
			instances[c.Name] = w.item(item)
		}
	}
	// What OVF has no bus for gets a place that the target can start from.
	spare := w.spare(m)
	spareCD := spareController{w: w, last: machine.Controller{Type: machine.IDE, Model: machine.PIIX4, Number: freeNumber(m, machine.IDE)}, units: 2}
	type place struct{ parent, unit string }
	find := func(controller string, unit int, bus machine.Bus, spare *spareController, field string, i int) place {
		if parent, ok := instances[controller]; ok {
			return place{parent, strconv.Itoa(unit)}
		}
		if bus == "" {
			w.lose("", fmt.Sprintf("it is not said: %s instead", spare.last.Type), field, i)
		} else {
			w.lose(string(bus), fmt.Sprintf("OVF has no such bus: %s instead", spare.last.Type), field, i)
		}
		parent, unit := spare.next()
		return place{parent, strconv.Itoa(unit)}
	}
	disks := make([]place, len(m.Disks))
	for i, d := range m.Disks {
		disks[i] = find(d.Controller, d.Unit, d.Bus, &spare, "disks[%d].bus", i)
	}
	cds := make([]place, len(m.CDROMs))
	for i, cd := range m.CDROMs {
		cds[i] = find(cd.Controller, cd.Unit, cd.Bus, &spareCD, "cdroms[%d].bus", i)
	}
	for i, d := range m.Disks {
		it := item{
			addressOnParent: disks[i].unit, name: d.Name, hostResource: "ovf:/disk/" + d.Name,
			parent: disks[i].parent, resourceType: typeDisk,
		}
		if d.ReadOnly {
			it.config = []string{"guestReadOnly", "true"}
			if w.o.Target == VirtualBox {
				w.lose("true", "VirtualBox imports disks that the guest can write to", "disks[%d].readOnly", i)
			}
		}
		w.item(it)
	}
	for i, cd := range m.CDROMs {
		it := item{
			addressOnParent: cds[i].unit, automaticAllocation: "false", name: cd.Name, optional: true,
			parent: cds[i].parent, resourceType: typeCD,
		}
		if cd.Name == "" && w.o.Target != "" {
			it.name = "CD drive " + strconv.Itoa(i+1)
		}
		if w.o.Target == VMware {
			it.subType = "vmware.cdrom.remoteatapi"
		}
		if cd.File != "" {
			it.automaticAllocation, it.optional = "true", false
			it.hostResource = "ovf:/file/" + fileID(w.e, cd.File)
			if w.o.Target == VMware {
				it.subType = "vmware.cdrom.iso"
			}
			if w.o.Target == VirtualBox {
				w.lose(cd.File, "VirtualBox imports no images of CDs: the drive is empty", "cdroms[%d].file", i)
			}
		}
		w.item(it)
	}
}

// A spareController is the controllers that are made for what has none.
type spareController struct {
	w      *writer
	last   machine.Controller
	units  int    // that one has
	parent string // InstanceID of the last; empty: there is none yet
	unit   int    // next on it
}

// spare is for disks. VMware has a bus for guests that have drivers of their
// hypervisor, as those on virtio do; but Windows has that from VMware Tools.
// Else it is SATA, which every guest can start from.
func (w *writer) spare(m *machine.Machine) spareController {
	c, units := machine.Controller{Type: machine.SATA, Model: machine.AHCI}, 30
	if w.o.Target == VMware {
		c, units = machine.Controller{Type: machine.SCSI, Model: machine.PVSCSI}, 7 // the eighth is the controller itself
		if strings.HasPrefix(m.GuestOS.Complete().VMware, "win") {
			c.Model = machine.LSILogicSAS
		}
	}
	c.Number = freeNumber(m, c.Type)
	return spareController{w: w, last: c, units: units}
}

func (s *spareController) next() (parent string, unit int) {
	if s.parent == "" || s.unit == s.units {
		if s.parent != "" {
			s.last.Number++
		}
		item, _ := s.w.controller(-1, s.last)
		s.parent, s.unit = s.w.item(item), 0
	}
	s.unit++
	return s.parent, s.unit - 1
}

// freeNumber is the one after that of all controllers of a type.
func freeNumber(m *machine.Machine, bus machine.Bus) int {
	n := 0
	for _, c := range m.Controllers {
		if c.Type == bus {
			n = max(n, c.Number+1)
		}
	}
	return n
}

// controller returns the Item of controller i of a machine, false if OVF has
// none for it.
func (w *writer) controller(i int, c machine.Controller) (item, bool) {
	it := item{address: strconv.Itoa(c.Number)}
	switch c.Type {
	case machine.IDE:
		it.name, it.resourceType = "IDE controller", typeIDE
		it.subType = map[machine.ControllerModel]string{machine.PIIX3: "PIIX3", machine.PIIX4: "PIIX4", machine.ICH6: "ICH6"}[c.Model]
	case machine.SATA:
		it.name, it.resourceType, it.subType = "SATA controller", typeOtherStorage, "AHCI"
		if w.o.Target == VMware {
			it.subType = "vmware.sata.ahci"
		}
	case machine.SCSI:
		it.name, it.resourceType = "SCSI controller", typeSCSI
		it.subType = w.scsi(i, c.Model)
		if it.subType == virtioSCSI {
			it.resourceType = typeOtherStorage
		}
	case machine.NVMe:
		it.name, it.resourceType, it.subType = "NVMe controller", typeOtherStorage, "vmware.nvme.controller"
	case machine.USB:
		it.name, it.resourceType = "USB controller", typeUSB
		it.subType, it.optional = "vmware.usb.ehci", true
		if c.Model == machine.XHCI {
			it.subType = "vmware.usb.xhci"
		}
	default:
		w.lose(string(c.Type), "OVF has no such controllers", "controllers[%d].type", i)
		return item{}, false
	}
	if c.Number > 0 {
		it.name += " " + strconv.Itoa(c.Number)
	}
	return it, true
}

const virtioSCSI = "VirtioSCSI" // VirtualBox's word, from 6.1

// scsi is the word for a model of SCSI controllers.
func (w *writer) scsi(i int, m machine.ControllerModel) string {
	switch m {
	case machine.BusLogic:
		return "buslogic"
	case machine.LSILogic:
		return "lsilogic"
	case machine.LSILogicSAS:
		return "lsilogicsas"
	case machine.PVSCSI:
		if w.o.Target == VirtualBox {
			w.lose(string(m), "VirtualBox has no such controllers: lsilogic instead", "controllers[%d].model", i)
			return "lsilogic"
		}
		return "VirtualSCSI"
	case machine.VirtioSCSI:
		if w.o.Target == VMware {
			w.lose(string(m), "VMware has no such controllers: pvscsi instead", "controllers[%d].model", i)
			return "VirtualSCSI"
		}
		return virtioSCSI
	}
	if m != "" {
		w.lose(string(m), "OVF has no word for such controllers: lsilogic instead", "controllers[%d].model", i)
	}
	return "lsilogic"
}

func (w *writer) nics(m *machine.Machine) {
	for i, n := range m.NICs {
		name := n.Name
		if name == "" && w.o.Target != "" {
			name = "Network adapter " + strconv.Itoa(i+1)
		}
		it := item{
			address: n.MAC, automaticAllocation: "true", connection: w.network(n), name: name,
			subType: w.nic(i, n.Type), resourceType: typeEthernet,
		}
		if w.o.Target == VMware {
			it.addressOnParent = strconv.Itoa(7 + i) // as VMware counts, which orders them
		}
		w.item(it)
	}
}

// network is what the NIC is connected to. For a target it has a name: an
// importer asks what is meant by it.
func (w *writer) network(n machine.NIC) string {
	if n.Network == "" && w.o.Target != "" {
		return "VM Network"
	}
	return n.Network
}

// nic is the word for a type of NICs.
func (w *writer) nic(i int, t machine.NICType) string {
	word, ok := map[machine.NICType]string{
		machine.E1000:     "E1000",
		machine.E1000E:    "E1000e",
		machine.VMXNET:    "vmxnet",
		machine.VMXNET2:   "VmxNet2",
		machine.VMXNET3:   "VmxNet3",
		machine.PCnet:     "PCNet32",
		machine.Flexible:  "Flexible",
		machine.VirtioNet: "virtio",
	}[t]
	switch {
	case w.o.Target == "" && !ok:
		return string(t)
	case w.o.Target == VirtualBox && (t == machine.E1000E || t == machine.VMXNET || t == machine.VMXNET2 || t == machine.VMXNET3),
		w.o.Target == VMware && t == machine.VirtioNet,
		t != "" && !ok:
		instead := w.defaultNIC()
		w.lose(string(t), fmt.Sprintf("the target has no such network cards: %s instead", strings.ToLower(instead)), "nics[%d].type", i)
		return instead
	case t == "" && w.o.Target != "":
		return w.defaultNIC()
	}
	return word
}

// defaultNIC is a card that every guest has a driver for: Windows has none of
// its own for the older E1000.
func (w *writer) defaultNIC() string {
	if w.o.Target == VMware {
		return "E1000e"
	}
	return "E1000"
}

func (w *writer) display(d machine.Display) {
	if d.Type != "" && d.Type != "vmvga" {
		w.lose(d.Type, "OVF has no word for it: the target's own instead", "display.type")
	}
	if d.Memory == 0 && d.Monitors == 0 {
		return
	}
	it := item{name: "Display", optional: true, resourceType: typeGraphics}
	if w.o.Target == "" {
		it.subType = d.Type
	}
	if d.Memory > 0 {
		it.config = append(it.config, "videoRamSizeInKB", strconv.FormatInt((d.Memory+1023)/1024, 10))
	}
	if d.Monitors > 0 {
		it.config = append(it.config, "numDisplays", strconv.Itoa(d.Monitors))
	}
	w.item(it)
	if w.o.Target == VirtualBox {
		w.lose("", "VirtualBox imports its own", "display")
	}
}

// settings are what VMware has outside of items, and the TPM.
func (w *writer) settings(m *machine.Machine) {
	switch m.TPM {
	case "":
	case machine.TPM20:
		w.item(item{automaticAllocation: "false", name: "Virtual TPM", optional: true, subType: "vmware.vtpm", resourceType: typeOther})
	default:
		w.lose(string(m.TPM), "OVF has no word for it", "tpm")
	}
	switch m.Firmware {
	case "":
	case machine.UEFI:
		w.config("Config", "firmware", "efi")
	case machine.BIOS:
		w.config("Config", "firmware", "bios")
	default:
		w.lose(string(m.Firmware), "OVF has no word for it", "firmware")
	}
	if m.SecureBoot {
		w.config("Config", "bootOptions.efiSecureBootEnabled", "true")
	}
	if m.NVRAM != "" {
		w.config("ExtraConfig", "nvram", "ovf:/file/"+fileID(w.e, m.NVRAM))
	}
	if w.o.Target == VirtualBox {
		const reason = "VirtualBox does not import it: set it after the import"
		for _, s := range []struct {
			field, value string
			lost         bool
		}{
			{"firmware", string(m.Firmware), m.Firmware == machine.UEFI},
			{"secureBoot", "true", m.SecureBoot},
			{"tpm", string(m.TPM), m.TPM != ""},
			{"nvram", m.NVRAM, m.NVRAM != ""},
		} {
			if s.lost {
				w.lose(s.value, reason, s.field)
			}
		}
	}
}

// bootOrder writes nothing. That disks come first is what a target does.
func (w *writer) bootOrder(order []machine.BootDevice) {
	if len(order) > 0 && order[0] != machine.BootDisk {
		w.lose(string(order[0]), "OVF has no word for it: the target tries disks first", "bootOrder")
	}
}
