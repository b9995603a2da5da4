// Package vbox reads the .vbox files of VirtualBox: the settings of one
// machine, with a registry of the media that it uses.
//
// It follows VirtualBox's own reader (src/VBox/Main/xml/Settings.cpp) more than
// its schema, which few files validate against. Settings of version 1.9 to 1.22
// were seen, of VirtualBox 3.1 to 7.2; newer ones of version 1 are read as well,
// as VirtualBox does. Nothing is written: VirtualBox imports OVF.
package vbox

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/xmltree"
)

// The namespaces of settings, of VirtualBox up to 4.3 and from 5.0 on.
const (
	namespaceInnotek    = "http://www.innotek.de/VirtualBox-settings"
	namespaceVirtualBox = "http://www.virtualbox.org/"
)

// minVersion is the first 1.x whose drives are all below StorageControllers.
const minVersion = 9

// Limits of what has none in package machine.
const (
	maxMonitors    = 64        // of the schema
	maxVideoMemory = 1 << 20   // MiB; VirtualBox allows 256
	maxPort        = 1<<16 - 1 // of a controller; VirtualBox allows 255
)

// Parse reads a .vbox file. Its disks are those of the current state: with
// snapshots, deltas whose [machine.Disk.Parent] is in the envelope as well.
//
// A disk that the file has no location for is [machine.ErrUnsupported], as are
// encrypted machines and disks, and settings of VirtualBox before 3.1.
func Parse(data []byte) (*machine.Envelope, error) {
	root, err := xmltree.Parse(data)
	if err != nil {
		return nil, err
	}
	e, err := findMachine(root)
	if err != nil {
		return nil, err
	}
	r := reader{
		machine: e,
		media:   make(map[string]*medium),
		taken:   make(map[string]bool),
		count:   make(map[machine.Bus]int),
		env:     &machine.Envelope{Machines: []*machine.Machine{{Firmware: machine.BIOS, CPUs: 1}}},
	}
	r.m = r.env.Machines[0]
	r.readMachine()
	if r.err != nil {
		return nil, r.err
	}
	return r.env, nil
}

// findMachine returns the Machine element, if this is a file that we read.
func findMachine(root *xmltree.Element) (*xmltree.Element, error) {
	if root.Name.Local != "VirtualBox" || root.Name.Space != namespaceInnotek && root.Name.Space != namespaceVirtualBox {
		return nil, machine.Malformed("it begins with <%s> of %q, not with VirtualBox's settings", root.Name.Local, root.Name.Space)
	}
	// "1.19-linux": the host's system says how its paths are written.
	version, _, _ := strings.Cut(root.Get("version"), "-")
	major, minor, _ := strings.Cut(version, ".")
	n, err := strconv.ParseUint(minor, 10, 16)
	if err != nil || major != "1" {
		return nil, machine.Unsupported("settings of version %q, not of 1.%d or later", root.Get("version"), minVersion)
	}
	if n < minVersion {
		return nil, machine.Unsupported("settings of version %s, of VirtualBox before 3.1; a newer VirtualBox can export the machine as OVA", version)
	}
	if root.Child("MachineEncrypted") != nil {
		return nil, machine.Unsupported("the machine is encrypted (MachineEncrypted)")
	}
	machines := root.All("Machine")
	if len(machines) == 0 && root.Child("Global") != nil {
		return nil, machine.Unsupported("settings of VirtualBox itself; a machine's are in its .vbox file")
	}
	if len(machines) != 1 {
		return nil, machine.Malformed("%d elements Machine, want one", len(machines))
	}
	return machines[0], nil
}

// A reader makes an envelope with one machine from a Machine element. Its
// methods do nothing harmful after an error; the first is kept.
type reader struct {
	machine *xmltree.Element
	media   map[string]*medium  // by UUID, in lower case
	taken   map[string]bool     // places on controllers
	count   map[machine.Bus]int // of controllers
	env     *machine.Envelope
	m       *machine.Machine
	err     error
}

func (r *reader) readMachine() {
	e := r.machine
	r.m.Name = e.Get("name")
	if r.m.Name == "" {
		r.malformed(e, "no name")
		return
	}
	r.m.ID = r.m.Name
	r.m.GuestOS.VirtualBox = e.Get("OSType")
	r.m.Description = e.Get("Description") // of a few versions
	if d := r.one(e, "Description"); d != nil {
		r.m.Description = d.Text
	}
	if e.Get("stateFile") != "" {
		r.unread("Machine/stateFile", e.Get("stateFile"), "the machine is suspended: its memory stays behind, and its disks are as after a power failure")
	}
	r.readMedia()

	// From version 1.20 on what depends on the architecture is in Platform.
	hardware := r.one(e, "Hardware")
	if hardware == nil {
		r.malformed(e, "no Hardware")
		return
	}
	platform := r.one(e, "Platform")
	if platform == nil {
		platform = hardware
	} else {
		switch a := platform.Get("architecture"); strings.ToLower(a) {
		case "x86":
		case "arm":
			r.m.Architecture = "arm64" // there is no other with VirtualBox
		default:
			r.unread("Platform/architecture", a, "it is none that is known")
		}
	}
	r.readCPU(platform)
	r.readChipset(platform)
	r.readMemory(hardware)
	r.readFirmware(hardware)
	r.readTPM(hardware)
	r.readDisplay(hardware)
	r.readUSB(hardware)
	r.readNetwork(hardware)
	r.readUnread(hardware)
	// From version 1.19 on they are in Hardware.
	for _, parent := range []*xmltree.Element{hardware, e} {
		r.readStorage(parent)
	}
	r.readBoot(hardware) // after the drives: what it is without a word depends on them
	r.nameParents()
	if s := e.Child("Snapshot"); s != nil {
		r.unread("Snapshot", s.Get("name"), "snapshots stay behind, the machine is as it is now")
	}
}

// A medium is an image in the registry. A hard disk within another is a delta
// to it.
type medium struct {
	element *xmltree.Element
	parent  *medium
	disk    string // Disk.Name, if it has been given one
	cd      bool
}

func (r *reader) readMedia() {
	registry := r.one(r.machine, "MediaRegistry")
	for _, d := range r.one(registry, "HardDisks").All("HardDisk") {
		r.addMedium(d, nil)
	}
	for _, d := range r.one(registry, "DVDImages").All("Image") {
		r.addMedium(d, nil).cd = true
	}
	// Floppies are not read.
}

func (r *reader) addMedium(e *xmltree.Element, parent *medium) *medium {
	m := &medium{element: e, parent: parent}
	uuid := strings.ToLower(e.Get("uuid"))
	if uuid == "" {
		r.malformed(e, "no uuid")
	}
	if r.media[uuid] != nil {
		r.malformed(e, "two media with uuid %q", uuid)
	}
	if e.Get("location") == "" {
		r.malformed(e, "no location")
	}
	r.media[uuid] = m
	for _, child := range e.All("HardDisk") {
		r.addMedium(child, m)
	}
	return m
}

func (r *reader) readCPU(platform *xmltree.Element) {
	e := r.one(platform, "CPU")
	if _, given := e.Attr("", "count"); given {
		r.m.CPUs = int(r.number(e, "count", 1, machine.MaxCPUs))
	}
	if r.flag(e, "hotplug") {
		r.unread("CPU/hotplug", "true", "CPUs cannot be added while the machine runs")
	}
	if s := e.Get("executionCap"); s != "" && s != "100" {
		r.unread("CPU/executionCap", s, "the machine gets all of its CPUs")
	}
	if s := e.Get("CpuProfile"); s != "" && s != "host" {
		r.unread("CPU/CpuProfile", s, "the model of the CPU is chosen where the machine runs")
	}
	for _, parent := range []*xmltree.Element{e, platform.Path("x86", "CPU"), platform.Path("arm", "CPU")} {
		if r.flag(parent.Child("NestedHWVirt"), "enabled") {
			r.unread("CPU/NestedHWVirt", "true", "the guest may lack virtualization of its own")
		}
		if t := parent.Child("CpuIdTree"); t != nil && len(t.Children) > 0 {
			r.unread("CPU/CpuIdTree", fmt.Sprintf("%d leaves", len(t.Children)), "features of the CPU are chosen where the machine runs")
		}
	}
}

func (r *reader) readChipset(platform *xmltree.Element) {
	if s := r.one(platform, "Chipset").Get("type"); s != "" && s != "PIIX3" {
		r.unread("Chipset", s, "the chipset is chosen where the machine runs")
	}
	if s := r.one(platform, "Iommu").Get("type"); s != "" && s != "None" {
		r.unread("Iommu", s, "the machine has no IOMMU")
	}
}

func (r *reader) readMemory(hardware *xmltree.Element) {
	e := r.one(hardware, "Memory")
	if e == nil {
		r.malformed(hardware, "no Memory")
		return
	}
	r.m.Memory = r.number(e, "RAMSize", 1, machine.MaxMemory>>20) << 20
	if s := r.one(hardware, "Guest").Get("memoryBalloonSize"); s != "" && s != "0" {
		r.unread("Guest/memoryBalloonSize", s, "the machine keeps all of its memory")
	}
}

func (r *reader) readFirmware(hardware *xmltree.Element) {
	e := r.one(hardware, "Firmware")
	switch t := e.Get("type"); t {
	case "", "BIOS", "1": // numbers are of a few builds before 3.1
	case "EFI", "EFI64", "2":
		r.m.Firmware = machine.UEFI
	case "EFI32", "EFIDUAL":
		r.m.Firmware = machine.UEFI
		r.unread("Firmware", t, "the firmware has 64 bits")
	default:
		r.malformed(e, "type %q is no firmware", t)
	}
	// From version 1.20 on its settings are in Firmware.
	for _, parent := range []*xmltree.Element{r.one(hardware, "BIOS"), e} {
		nvram := r.one(parent, "NVRAM")
		path := nvram.Get("path")
		if path == "" {
			continue
		}
		if nvram.Get("keyId") != "" {
			r.unread("NVRAM", path, "it is encrypted")
			continue
		}
		r.m.NVRAM = path
		r.addFile(path)
		if r.m.Firmware == machine.UEFI {
			r.unread("NVRAM", path, "whether Secure Boot is on is in this file alone")
		}
	}
}

func (r *reader) readTPM(hardware *xmltree.Element) {
	e := r.one(hardware, "TrustedPlatformModule")
	switch t := e.Get("type"); t {
	case "", "None":
	case "v1_2":
		r.m.TPM = machine.TPM12
	case "v2_0":
		r.m.TPM = machine.TPM20
	case "Host", "Swtpm":
		r.unread("TrustedPlatformModule", t, "it belongs to the host")
	default:
		r.malformed(e, "type %q is no TPM", t)
	}
}

// bootDevices are what Boot/Order may name, but for None.
var bootDevices = map[string]machine.BootDevice{
	"HardDisk": machine.BootDisk,
	"DVD":      machine.BootCDROM,
	"Network":  machine.BootNetwork,
	"Floppy":   machine.BootFloppy,
}

func (r *reader) readBoot(hardware *xmltree.Element) {
	e := r.one(hardware, "Boot")
	if e == nil {
		// From version 1.17 on the default is not written. It begins with the
		// floppy, which most machines have not.
		if len(r.m.CDROMs) > 0 {
			r.m.BootOrder = append(r.m.BootOrder, machine.BootCDROM)
		}
		r.m.BootOrder = append(r.m.BootOrder, machine.BootDisk)
		return
	}
	order := e.All("Order") // in any order
	positions := make(map[int64]machine.BootDevice)
	var sorted []int64
	for _, o := range order {
		n := r.number(o, "position", 1, maxPort)
		name := o.Get("device")
		device, known := bootDevices[name]
		if !known && name != "None" {
			r.malformed(o, "device %q is none to boot from", name)
		}
		if _, twice := positions[n]; twice {
			r.malformed(o, "two devices at position %d", n)
		}
		positions[n] = device
		sorted = append(sorted, n)
	}
	slices.Sort(sorted)
	for _, n := range sorted {
		if d := positions[n]; d != "" && !slices.Contains(r.m.BootOrder, d) {
			r.m.BootOrder = append(r.m.BootOrder, d)
		}
	}
}

// displays are VirtualBox's graphics cards, in lower case: case differs between
// versions.
var displays = map[string]string{
	"":                 "vboxvga",
	"vboxvga":          "vboxvga",
	"vboxsvga":         "vboxsvga",
	"vmsvga":           "vmvga",
	"qemuramfb":        "ramfb",
	"virtiogpu":        "virtio",
	"vgawithvirtiogpu": "virtio",
	"none":             "none",
}

func (r *reader) readDisplay(hardware *xmltree.Element) {
	e := r.one(hardware, "Display")
	if e == nil {
		return
	}
	controller := strings.ToLower(e.Get("controller"))
	t, known := displays[controller]
	if !known {
		t = controller
	}
	r.m.Display.Type = t
	if e.Get("VRAMSize") != "" {
		r.m.Display.Memory = r.number(e, "VRAMSize", 0, maxVideoMemory) << 20
	}
	for _, name := range []string{"MonitorCount", "monitorCount"} { // the first before 1.5, the second wins
		if e.Get(name) != "" {
			r.m.Display.Monitors = int(r.number(e, name, 1, maxMonitors))
		}
	}
	if r.flag(e, "accelerate3D") {
		r.unread("Display/accelerate3D", "true", "the graphics card draws without the host's")
	}
}

// usbControllers are the models of those that devices are plugged in.
var usbControllers = map[string]machine.ControllerModel{
	"OHCI": machine.UHCI,
	"EHCI": machine.EHCI,
	"XHCI": machine.XHCI,
}

func (r *reader) readUSB(hardware *xmltree.Element) {
	// Up to version 1.14.
	if e := r.one(hardware, "USBController"); e != nil {
		if r.flag(e, "enabled") {
			r.addController(machine.USB, machine.UHCI)
		}
		if r.flag(e, "enabledEhci") {
			r.addController(machine.USB, machine.EHCI)
		}
		r.readFilters(e)
	}
	usb := r.one(hardware, "USB")
	for _, c := range r.one(usb, "Controllers").All("Controller") {
		model, known := usbControllers[c.Get("type")]
		if !known {
			r.malformed(c, "type %q is no USB controller", c.Get("type"))
		}
		r.addController(machine.USB, model)
	}
	r.readFilters(r.one(usb, "DeviceFilters"))
	if r.flag(hardware.Path("EmulatedUSB", "CardReader"), "enabled") {
		r.unread("EmulatedUSB/CardReader", "true", "there is no word for a card reader")
	}
}

func (r *reader) readFilters(parent *xmltree.Element) {
	for _, f := range parent.All("DeviceFilter") {
		if r.flag(f, "active") {
			r.unread("USB/DeviceFilter", f.Get("name"), "devices of the host stay there")
		}
	}
}

// nicTypes are VirtualBox's network cards.
var nicTypes = map[string]machine.NICType{
	"":          machine.PCnet, // the default is not written
	"Am79C960":  machine.PCnet,
	"Am79C970A": machine.PCnet,
	"Am79C973":  machine.PCnet,
	"82540EM":   machine.E1000,
	"82543GC":   machine.E1000,
	"82545EM":   machine.E1000,
	"82574":     machine.E1000E, // from 7.1 on, as the next
	"82583V":    machine.E1000E,
	"virtio":    machine.VirtioNet,
}

// networks are what a card can be connected to, with the name of the network
// where it has none of its own: VirtualBox's name for it in an OVF.
var networks = map[string]string{
	"NAT":               "NAT",
	"HostInterface":     "Bridged", // before 3.0
	"BridgedInterface":  "Bridged",
	"InternalNetwork":   "Internal",
	"HostOnlyInterface": "HostOnly",
	"HostOnlyNetwork":   "HostOnly",
	"NATNetwork":        "NATNetwork",
	"CloudNetwork":      "CloudNetwork",
	"VDE":               "VDE",
	"GenericInterface":  "Generic",
}

func (r *reader) readNetwork(hardware *xmltree.Element) {
	for _, a := range r.one(hardware, "Network").All("Adapter") {
		if r.flag(a, "enabled") {
			r.readAdapter(a)
		}
	}
}

func (r *reader) readAdapter(a *xmltree.Element) {
	if len(r.m.NICs) == machine.MaxDisks {
		r.malformed(a, "more than %d network cards", machine.MaxDisks)
		return
	}
	nic := machine.NIC{MAC: r.mac(a)}
	name := a.Get("type")
	nic.Type = machine.NICType(strings.ToLower(name))
	if t, known := nicTypes[name]; known {
		nic.Type = t
	}
	field := fmt.Sprintf("Network/Adapter[%d]", len(r.m.NICs))
	for _, mode := range a.Children {
		network, known := networks[mode.Name.Local]
		if mode.Name.Space != a.Name.Space || !known {
			continue // DisabledModes has what was chosen before
		}
		if nic.Network != "" {
			r.malformed(a, "connected twice")
		}
		nic.Network = network
		if n := mode.Get("name"); n != "" {
			nic.Network = n
		}
		for _, f := range mode.All("Forwarding") {
			r.unread(field+"/NAT/Forwarding", fmt.Sprintf("%s: %s to %s", f.Get("name"), f.Get("hostport"), f.Get("guestport")), "ports of the host are not forwarded")
		}
		if mode.Name.Local == "GenericInterface" {
			r.unread(field+"/GenericInterface", mode.Get("driver"), "there is no word for the driver")
		}
	}
	if c, given := a.Attr("", "cable"); given && !r.flag(a, "cable") {
		r.unread(field+"/cable", c, "the card is connected")
	}
	if p := a.Get("promiscuousModePolicy"); p != "" && p != "Deny" {
		r.unread(field+"/promiscuousModePolicy", p, "what a card may listen to is the network's to say")
	}
	if g := a.Get("bandwidthGroup"); g != "" {
		r.unread(field+"/bandwidthGroup", g, "the card has no limit")
	}
	r.m.NICs = append(r.m.NICs, nic)
}

// mac returns MACAddress, twelve hexadecimal digits, with colons.
func (r *reader) mac(a *xmltree.Element) string {
	s := strings.ToLower(a.Get("MACAddress"))
	if s == "" {
		return ""
	}
	if len(s) != 12 || strings.Trim(s, "0123456789abcdef") != "" {
		r.malformed(a, "MACAddress %q is not twelve hexadecimal digits", s)
		return ""
	}
	return strings.Join([]string{s[:2], s[2:4], s[4:6], s[6:8], s[8:10], s[10:]}, ":")
}

// readUnread tells what the model has no words for.
func (r *reader) readUnread(hardware *xmltree.Element) {
	for _, kind := range []string{"UART", "LPT"} {
		for _, p := range hardware.Child(kind).All("Port") {
			if r.flag(p, "enabled") {
				r.unread(kind+"/Port", strings.TrimSpace(p.Get("slot")+" "+p.Get("hostMode")), "there is no word for ports")
			}
		}
	}
	if a := hardware.Child("AudioAdapter"); r.flag(a, "enabled") {
		r.unread("AudioAdapter", cmp.Or(a.Get("controller"), "AC97"), "there is no word for sound cards")
	}
	if r.flag(hardware.Child("RemoteDisplay"), "enabled") {
		r.unread("RemoteDisplay", "true", "the display is seen where the machine runs")
	}
	for _, parent := range []*xmltree.Element{hardware, r.machine} {
		for _, kind := range []string{"VideoCapture", "Recording"} {
			if r.flag(parent.Child(kind), "enabled") {
				r.unread(kind, "true", "the display is not recorded")
			}
		}
	}
	for _, f := range hardware.Child("SharedFolders").All("SharedFolder") {
		r.unread("SharedFolder", f.Get("name"), "folders of the host stay there")
	}
	for _, d := range hardware.Path("HostPci", "Devices").All("Device") {
		r.unread("HostPci/Device", cmp.Or(d.Get("name"), d.Get("host")), "devices of the host stay there")
	}
	for _, g := range hardware.Path("IO", "BandwidthGroups").All("BandwidthGroup") {
		r.unread("IO/BandwidthGroup", g.Get("name"), "the machine has no limits")
	}
	if r.flag(r.machine.Child("Teleporter"), "enabled") {
		r.unread("Teleporter", "true", "the machine waits for no other")
	}
}

// storageControllers are the types of StorageController.
var storageControllers = map[string]struct {
	bus   machine.Bus
	model machine.ControllerModel
}{
	"PIIX3":       {machine.IDE, machine.PIIX3},
	"PIIX4":       {machine.IDE, machine.PIIX4},
	"ICH6":        {machine.IDE, machine.ICH6},
	"AHCI":        {machine.SATA, machine.AHCI},
	"LsiLogic":    {machine.SCSI, machine.LSILogic},
	"BusLogic":    {machine.SCSI, machine.BusLogic},
	"LsiLogicSas": {machine.SCSI, machine.LSILogicSAS},
	"VirtioSCSI":  {machine.SCSI, machine.VirtioSCSI},
	"NVMe":        {machine.NVMe, ""},
	"USB":         {machine.USB, ""},
	"I82078":      {machine.Floppy, ""},
}

func (r *reader) readStorage(parent *xmltree.Element) {
	for _, c := range r.one(parent, "StorageControllers").All("StorageController") {
		t, known := storageControllers[c.Get("type")]
		if !known {
			r.malformed(c, "type %q is no storage controller", c.Get("type"))
			return
		}
		// What a device's port and device attributes name. A controller of IDE
		// is two of ours, one a channel; USB drives are in no controller of
		// their own, and floppies not read.
		var names []string
		switch t.bus {
		case machine.IDE:
			names = []string{r.addController(t.bus, t.model), r.addController(t.bus, t.model)}
		case machine.USB, machine.Floppy:
		default:
			names = []string{r.addController(t.bus, t.model)}
		}
		for _, d := range c.All("AttachedDevice") {
			r.readDevice(d, t.bus, names)
		}
	}
}

func (r *reader) readDevice(d *xmltree.Element, bus machine.Bus, controllers []string) {
	port := int(r.number(d, "port", 0, maxPort))
	device := int(r.number(d, "device", 0, maxPort))
	controller, unit := "", port
	switch {
	case bus == machine.IDE && port <= 1 && device <= 1:
		controller, unit = controllers[port], device
	case bus == machine.IDE, device != 0:
		r.malformed(d, "no port %d and device %d on bus %s", port, device, bus)
		return
	case len(controllers) > 0:
		controller = controllers[0]
	}
	place := fmt.Sprintf("%s %s %d", bus, controller, unit)
	if r.taken[place] {
		r.malformed(d, "two devices at port %d and device %d of one controller", port, device)
	}
	r.taken[place] = true
	if len(r.m.Disks)+len(r.m.CDROMs) == machine.MaxDisks {
		r.malformed(d, "more than %d drives", machine.MaxDisks)
		return
	}
	switch t := d.Get("type"); t {
	case "HardDisk":
		m := r.image(d)
		if m == nil {
			return
		}
		if m.disk != "" {
			r.malformed(d, "disk %q is attached twice", m.element.Get("location"))
		}
		disk := r.addDisk(m)
		disk.Controller, disk.Bus, disk.Unit = controller, bus, unit
		r.m.Disks = append(r.m.Disks, disk)
	case "DVD":
		r.readDVD(d, machine.CDROM{Controller: controller, Bus: bus, Unit: unit})
	case "Floppy":
		r.unread("AttachedDevice", t, "there is no word for floppy drives")
	default:
		r.malformed(d, "type %q is no drive", t)
	}
}

func (r *reader) readDVD(d *xmltree.Element, drive machine.CDROM) {
	drive.Name = fmt.Sprintf("cdrom%d", len(r.m.CDROMs))
	if h := d.Child("HostDrive"); h != nil {
		r.unread("AttachedDevice/HostDrive", h.Get("src"), "drives of the host stay there, this one is empty")
	} else if i := d.Child("Image"); i != nil {
		if m := r.media[strings.ToLower(i.Get("uuid"))]; m == nil || !m.cd {
			// An image of another machine, or of VirtualBox's own registry.
			r.unread("AttachedDevice/Image", i.Get("uuid"), "the file does not say where the image is, the drive is empty")
		} else {
			drive.File = r.addFile(m.element.Get("location"))
		}
	}
	r.m.CDROMs = append(r.m.CDROMs, drive)
}

// image returns the hard disk that d has, which must be in the registry.
func (r *reader) image(d *xmltree.Element) *medium {
	i := r.one(d, "Image")
	if i == nil {
		r.malformed(d, "a hard disk without Image")
		return nil
	}
	m := r.media[strings.ToLower(i.Get("uuid"))]
	if m == nil {
		r.unsupported(i, "disk %s is not in the MediaRegistry of this file: VirtualBox alone knows where it is, and can export the machine as OVA", i.Get("uuid"))
		return nil
	}
	if m.cd {
		r.malformed(i, "the hard disk is a CD image")
		return nil
	}
	return m
}

// formats are those of package disk in VirtualBox's words. It calls both
// versions of QCOW one; the file says which.
var formats = map[string]string{
	"VDI":  "vdi",
	"VMDK": "vmdk",
	"VHD":  "vhd",
	"VHDX": "vhdx",
	"RAW":  "raw",
}

// addDisk adds a disk to the envelope, and returns it.
func (r *reader) addDisk(m *medium) machine.Disk {
	e := m.element
	if len(r.env.Disks) == machine.MaxDisks {
		r.malformed(e, "more than %d disks", machine.MaxDisks)
		return machine.Disk{}
	}
	m.disk = fmt.Sprintf("disk%d", len(r.env.Disks))
	if f := e.Get("format"); strings.EqualFold(f, "iSCSI") {
		r.unsupported(e, "the disk is a target of iSCSI")
	}
	for _, p := range e.All("Property") {
		// The one of the base is for all of a chain.
		if name := p.Get("name"); name == "CRYPT/KeyStore" || name == "CRYPT/KeyId" {
			r.unsupported(e, "disk %q is encrypted; VirtualBox can decrypt it", e.Get("location"))
		}
	}
	disk := machine.Disk{
		Name:   m.disk,
		Format: formats[strings.ToUpper(e.Get("format"))],
		File:   r.addFile(e.Get("location")),
	}
	switch t := e.Get("type"); strings.ToLower(t) {
	case "", "normal", "writethrough": // which has no snapshots, and we have none
	case "readonly":
		disk.ReadOnly = true
	case "immutable", "multiattach", "shareable":
		r.unread("HardDisk/type", t, "disks are for one machine, which writes to them")
	default:
		r.malformed(e, "type %q of a disk", t)
	}
	r.env.Disks = append(r.env.Disks, disk)
	return disk
}

// nameParents adds the disks that those in the envelope are deltas to, and
// their parents: the slice grows as it is walked.
func (r *reader) nameParents() {
	named := make(map[string]*medium)
	for _, m := range r.media {
		if m.disk != "" {
			named[m.disk] = m
		}
	}
	for i := 0; i < len(r.env.Disks) && r.err == nil; i++ {
		parent := named[r.env.Disks[i].Name].parent
		if parent == nil {
			continue
		}
		if parent.disk == "" {
			r.addDisk(parent)
			named[parent.disk] = parent
		}
		r.env.Disks[i].Parent = parent.disk
		if i < len(r.m.Disks) {
			r.m.Disks[i].Parent = parent.disk
		}
	}
}

// addController adds the next controller of its type, and returns its name.
func (r *reader) addController(bus machine.Bus, model machine.ControllerModel) string {
	if len(r.m.Controllers) == machine.MaxDisks {
		r.malformed(r.machine, "more than %d controllers", machine.MaxDisks)
		return ""
	}
	n := r.count[bus]
	r.count[bus]++
	c := machine.Controller{Name: fmt.Sprintf("%s%d", bus, n), Type: bus, Model: model, Number: n}
	r.m.Controllers = append(r.m.Controllers, c)
	return c.Name
}

// addFile adds a file to the envelope unless it has it, and returns its name.
func (r *reader) addFile(name string) string {
	if !slices.ContainsFunc(r.env.Files, func(f machine.File) bool { return f.Name == name }) {
		r.env.Files = append(r.env.Files, machine.File{ID: fmt.Sprintf("file%d", len(r.env.Files)), Name: name, Size: -1})
	}
	return name
}

func (r *reader) unread(field, value, reason string) {
	r.m.Unread = append(r.m.Unread, machine.Loss{Field: field, Value: value, Reason: reason})
}

// one returns the child element of that name, nil if there is none. Two are an
// error: VirtualBox would take some of each.
func (r *reader) one(parent *xmltree.Element, local string) *xmltree.Element {
	all := parent.All(local)
	if len(all) > 1 {
		r.malformed(all[1], "a second one in <%s>", parent.Name.Local)
	}
	return parent.Child(local)
}

// number returns the value of an attribute that must be there.
func (r *reader) number(e *xmltree.Element, attr string, least, most int64) int64 {
	n, err := strconv.ParseUint(strings.TrimSpace(e.Get(attr)), 10, 63)
	if err != nil || int64(n) < least || int64(n) > most {
		r.malformed(e, "%s %q is not a number from %d to %d", attr, e.Get(attr), least, most)
		return least
	}
	return int64(n)
}

// flag returns the value of a boolean attribute, false if it is not there, or e
// is not.
func (r *reader) flag(e *xmltree.Element, attr string) bool {
	switch v := strings.ToLower(strings.TrimSpace(e.Get(attr))); v {
	case "true", "yes", "on", "1":
		return true
	case "", "false", "no", "off", "0":
		return false
	default:
		r.malformed(e, "%s %q is neither true nor false", attr, v)
		return false
	}
}

func (r *reader) malformed(e *xmltree.Element, format string, args ...any) {
	r.fail(machine.Malformed("line %d: <%s>: %w", e.Line, e.Name.Local, fmt.Errorf(format, args...)))
}

func (r *reader) unsupported(e *xmltree.Element, format string, args ...any) {
	r.fail(machine.Unsupported("line %d: <%s>: %w", e.Line, e.Name.Local, fmt.Errorf(format, args...)))
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}
