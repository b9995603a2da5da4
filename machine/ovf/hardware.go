package ovf

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/attach"
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
	w.attach(m)
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
		family = w.leastHardware(m)
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
func (w *writer) leastHardware(m *machine.Machine) string {
	wide := func(d *attach.Drive) bool { return d.Place.Bus == machine.SCSI && d.Place.Unit > 15 }
	switch {
	case m.TPM != "", slices.ContainsFunc(w.drives, wide):
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

// attach gives the drives of a machine places that the target takes.
func (w *writer) attach(m *machine.Machine) {
	target := &attach.Artifact
	switch w.o.Target {
	case VMware:
		// Windows has a driver for PVSCSI from VMware Tools alone.
		paravirtual := machine.PVSCSI
		if strings.HasPrefix(m.GuestOS.Complete().VMware, "win") {
			paravirtual = machine.LSILogicSAS
		}
		target = attach.VMware(paravirtual)
	case VirtualBox:
		target = attach.VirtualBox(m.Firmware)
	}
	var have []attach.Controller
	for i, c := range m.Controllers {
		if w.o.Target != "" && !slices.Contains(onBus, c.Type) {
			continue
		}
		if c.Type == machine.SCSI {
			c.Model = w.scsiModel(c.Model)
		}
		have = append(have, attach.Controller{Controller: c, Index: i})
	}
	w.drives = nil
	for i, d := range m.Disks {
		w.drives = append(w.drives, &attach.Drive{Field: fmt.Sprintf("disks[%d]", i), Controller: d.Controller, Bus: d.Bus, Unit: d.Unit})
	}
	for i, cd := range m.CDROMs {
		w.drives = append(w.drives, &attach.Drive{Field: fmt.Sprintf("cdroms[%d]", i), CD: true, Controller: cd.Controller, Bus: cd.Bus, Unit: cd.Unit})
	}
	var err error
	w.attached, w.moved, err = target.Attach(have, w.drives)
	if err != nil && w.err == nil {
		w.err = err
		if len(w.e.Machines) > 1 {
			w.err = fmt.Errorf("machine %q: %w", m.ID, err)
		}
	}
}

// controllers are those that are written of a machine, with their index in it;
// -1: it has none such, and drives need it.
func (w *writer) controllers(m *machine.Machine) (all []attach.Controller) {
	usb := make(map[string]bool)
	for i, c := range m.Controllers {
		switch {
		case w.o.Target == "" || slices.Contains(onBus, c.Type):
			n := slices.IndexFunc(w.attached, func(a attach.Controller) bool { return a.Index == i })
			if n < 0 {
				continue // the target has less
			}
			c.Number = w.attached[n].Number
		case c.Type == machine.USB:
			word := usbWord(c.Model)
			if usb[word] {
				w.lose(c.Name, fmt.Sprintf("a machine has one %s", word), "controllers[%d]", i)
				continue
			}
			usb[word] = true
		}
		all = append(all, attach.Controller{Controller: c, Index: i})
	}
	for _, c := range w.attached {
		if c.Index < 0 {
			all = append(all, c)
		}
	}
	if w.o.Target == VirtualBox { // which takes the first channel of IDE for the primary
		var places []int
		var channels []attach.Controller
		for i, c := range all {
			if c.Type == machine.IDE {
				places, channels = append(places, i), append(channels, c)
			}
		}
		slices.SortFunc(channels, func(a, b attach.Controller) int { return cmp.Compare(a.Number, b.Number) })
		for n, i := range places {
			all[i] = channels[n]
		}
	}
	return all
}

// onBus are the buses whose controllers have drives.
var onBus = []machine.Bus{machine.IDE, machine.SATA, machine.SCSI, machine.NVMe}

// storage writes the controllers, and the disks and CD drives on them.
func (w *writer) storage(m *machine.Machine) {
	type controller struct {
		bus    machine.Bus
		number int
	}
	instances := make(map[controller]string) // InstanceID
	for _, c := range w.controllers(m) {
		if item, ok := w.controller(c.Index, c.Controller); ok {
			instances[controller{c.Type, c.Number}] = w.item(item)
		}
	}
	for _, l := range w.moved {
		w.lose(l.Value, l.Reason, "%s", l.Field)
	}
	place := func(i int) (parent, unit string) {
		p := w.drives[i].Place
		return instances[controller{p.Bus, p.Number}], strconv.Itoa(p.Unit)
	}
	for i, d := range m.Disks {
		it := item{name: d.Name, hostResource: "ovf:/disk/" + d.Name, resourceType: typeDisk}
		it.parent, it.addressOnParent = place(i)
		if d.ReadOnly {
			it.config = []string{"guestReadOnly", "true"}
			if w.o.Target == VirtualBox {
				w.lose("true", "VirtualBox imports disks that the guest can write to", "disks[%d].readOnly", i)
			}
		}
		w.item(it)
	}
	for i, cd := range m.CDROMs {
		it := item{automaticAllocation: "false", name: cd.Name, optional: true, resourceType: typeCD}
		it.parent, it.addressOnParent = place(len(m.Disks) + i)
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
		it.subType, it.optional = usbWord(c.Model), true
	default:
		w.lose(string(c.Type), "OVF has no such controllers", "controllers[%d].type", i)
		return item{}, false
	}
	if c.Number > 0 {
		it.name += " " + strconv.Itoa(c.Number)
	}
	return it, true
}

// usbWord is the word for a model of USB controllers.
func usbWord(m machine.ControllerModel) string {
	if m == machine.XHCI {
		return "vmware.usb.xhci"
	}
	return "vmware.usb.ehci"
}

const virtioSCSI = "VirtioSCSI" // VirtualBox's word, from 6.1

// scsi is the word for a model of SCSI controllers.
func (w *writer) scsi(i int, m machine.ControllerModel) string {
	model := w.scsiModel(m)
	if m != "" && m != model {
		who := "OVF has no word for"
		switch m {
		case machine.PVSCSI, machine.VirtioSCSI:
			who = map[Target]string{VMware: "VMware", VirtualBox: "VirtualBox"}[w.o.Target] + " has no"
		}
		w.lose(string(m), fmt.Sprintf("%s such controllers: %s instead", who, model), "controllers[%d].model", i)
	}
	return map[machine.ControllerModel]string{
		machine.BusLogic:    "buslogic",
		machine.LSILogic:    "lsilogic",
		machine.LSILogicSAS: "lsilogicsas",
		machine.PVSCSI:      "VirtualSCSI",
		machine.VirtioSCSI:  virtioSCSI,
	}[model]
}

// scsiModel is the model that stands for one of SCSI controllers.
func (w *writer) scsiModel(m machine.ControllerModel) machine.ControllerModel {
	switch {
	case m == machine.BusLogic, m == machine.LSILogicSAS,
		m == machine.PVSCSI && w.o.Target != VirtualBox,
		m == machine.VirtioSCSI && w.o.Target != VMware:
		return m
	case m == machine.VirtioSCSI:
		return machine.PVSCSI
	}
	return machine.LSILogic
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
