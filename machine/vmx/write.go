package vmx

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/attach"
)

// Versions of virtual hardware, from the table of vSphere 8 ("Hardware Features
// Available with Virtual Machine Compatibility Settings") and KB 1003746.
const (
	// defaultHardware is of ESXi 6.5, Workstation 14 and Fusion 10, from 2016 on:
	// the first with all that a machine needs to start.
	defaultHardware = 13

	hardwarePCIe       = 7 // PCI bridges, VMXNET3, PVSCSI, LSI Logic SAS
	hardwareUEFI       = 8
	hardwareXHCI       = 8
	hardwareE1000E     = 8
	hardwareSATA       = 10
	hardwareNVMe       = 13
	hardwareSecureBoot = 13
	hardwareWidePVSCSI = 14 // units above 15
	hardwareWideNVMe   = 21 // units above 14
	maxHardware        = 99
)

// Limits of a machine of VMware's.
const (
	memoryStep     = 4 << 20   // bytes; what memory is a multiple of
	defaultMemory  = 1 << 30   // bytes, where none is said: VMware's own 32 MiB start nothing
	maxCPUs        = 768       // from vmx-18 on
	maxVideoMemory = 128 << 20 // bytes
	maxDisplays    = 10
	maxFileName    = 255 // bytes
)

// A limit is what a version of the hardware has at most.
type limit struct {
	version int
	cpus    int
	memory  int64 // GiB
}

var limits = []limit{
	{4, 4, 64}, {7, 8, 255}, {8, 32, 1011}, {9, 64, 1011}, {11, 128, 4080}, {13, 128, 6128}, {15, 256, 6128}, {18, maxCPUs, 24560},
}

// A writer makes the lines of a VMX.
type writer struct {
	m        *machine.Machine
	out      bytes.Buffer
	losses   []machine.Loss
	guest    string // guestOS
	hardware int    // the least version that has all devices
}

func (w *writer) lose(field, value, reason string, args ...any) {
	w.losses = append(w.losses, machine.Loss{Field: field, Value: value, Reason: fmt.Sprintf(reason, args...)})
}

// set writes a line. Names are ours; values can be anything.
func (w *writer) set(name, value string) {
	fmt.Fprintf(&w.out, "%s = \"%s\"\n", name, escape(value))
}

func (w *writer) setNumber(name string, n int64) { w.set(name, strconv.FormatInt(n, 10)) }

func (w *writer) setTrue(name string) { w.set(name, "TRUE") }

// need raises the version of the hardware.
func (w *writer) need(version int) { w.hardware = max(w.hardware, version) }

// text returns a text as a VMX can have it.
func (w *writer) text(field, s string) string {
	clean := strings.Map(func(r rune) rune {
		if !machine.Visible(r) && !strings.ContainsRune("\t\r\n", r) {
			return utf8.RuneError
		}
		return r
	}, s)
	if clean != s {
		w.lose(field, clean, "no text has what is not UTF-8, control characters or what cannot be seen; they are replaced")
	}
	return clean
}

// A drive is a disk or a CD drive of the machine.
type drive struct {
	*attach.Drive
	file string // of a CD drive: none if it is empty
}

// rank is the place of a bus in the order of a machine's disks.
func rank(bus machine.Bus) int {
	return slices.IndexFunc(attach.VMX.Buses, func(b attach.Bus) bool { return b.Bus == bus })
}

func compareDrives(a, b *drive) int {
	return cmp.Or(cmp.Compare(rank(a.Place.Bus), rank(b.Place.Bus)), cmp.Compare(a.Place.Number, b.Place.Number), cmp.Compare(a.Place.Unit, b.Place.Unit))
}

func (w *writer) write() ([]byte, error) {
	drives, err := w.drives()
	if err != nil {
		return nil, err
	}
	if w.m.CPUs < 0 || w.m.CPUs > machine.MaxCPUs || w.m.CoresPerSocket < 0 || w.m.Memory < 0 || w.m.Memory > machine.MaxMemory {
		return nil, machine.Malformed("a machine with %d CPUs, %d cores per socket and %d bytes of memory", w.m.CPUs, w.m.CoresPerSocket, w.m.Memory)
	}
	w.guest = w.guestOS()
	controllers, err := w.attach(drives)
	if err != nil {
		return nil, err
	}
	version := w.hardwareVersion(drives, controllers)

	w.set(".encoding", "UTF-8")
	w.set("config.version", "8")
	w.setNumber("virtualHW.version", int64(version))
	w.set("virtualHW.productCompatibility", "hosted")
	if name := cmp.Or(w.m.Name, w.m.ID); name != "" {
		w.set("displayName", escapeName(w.text("name", name)))
	}
	if w.m.Description != "" {
		w.set("annotation", w.text("description", w.m.Description))
	}
	w.set("guestOS", w.guest)
	if d := w.m.GuestOS.Description; d != "" {
		w.set("guestOSAltName", w.text("guestOS.description", d))
	}
	w.writeCPU()
	w.writeFirmware()
	if version >= hardwarePCIe {
		w.writeBridges()
	}
	w.writeDrives(drives, controllers)
	w.writeUSB()
	w.writeNICs()
	w.writeDisplay()
	w.writeBoot(drives)
	w.set("floppy0.present", "FALSE") // it is present if nothing is said
	w.loseRest()
	return w.out.Bytes(), nil
}

// drives checks what the disks are in, and leaves out what cannot be a drive.
func (w *writer) drives() ([]*drive, error) {
	var drives []*drive
	for i, d := range w.m.Disks {
		field := fmt.Sprintf("disks[%d]", i)
		if d.File == "" {
			w.lose(field, d.Name, "a VMX has no disk without a file")
			continue
		}
		if err := checkFileName(d.File); err != nil {
			return nil, machine.Malformed("%s.file: %v", field, err)
		}
		if d.Format != "" && d.Format != "vmdk" {
			return nil, machine.Unsupported("%s is %s; VMware has VMDK only", field, shorten(d.Format))
		}
		if d.SectorSize != 0 {
			w.lose(field+".logicalSectorSize", strconv.Itoa(d.SectorSize), "a VMX does not say it, and the guest gets sectors of 512 bytes")
		}
		if d.ReadOnly {
			w.lose(field+".readOnly", "true", "a VMX has no disk that the guest cannot write to")
		}
		drives = append(drives, &drive{&attach.Drive{Field: field, Controller: d.Controller, Bus: d.Bus, Unit: d.Unit}, d.File})
	}
	for i, d := range w.m.CDROMs {
		field := fmt.Sprintf("cdroms[%d]", i)
		file := d.File
		if err := checkFileName(file); file != "" && err != nil {
			w.lose(field+".file", file, "%v; the drive is empty", err)
			file = ""
		}
		drives = append(drives, &drive{&attach.Drive{Field: field, CD: true, Controller: d.Controller, Bus: d.Bus, Unit: d.Unit}, file})
	}
	return drives, nil
}

// checkFileName refuses what VMware looks for elsewhere than in the VMX's
// folder, or takes for something else than a file.
func checkFileName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("no name")
	case len(name) > maxFileName || !utf8.ValidString(name):
		return fmt.Errorf("%q is no file name", shorten(name))
	case strings.ContainsAny(name, `/\:`) || name == "." || name == ".." || name[0] == '[': // [datastore] name
		return fmt.Errorf("%q is a path, not the name of a file beside the VMX", shorten(name))
	case strings.ContainsFunc(name, func(r rune) bool { return !machine.Visible(r) }):
		return fmt.Errorf("%q has a control character, or one that cannot be seen", shorten(name))
	case strings.EqualFold(name, noMedium) || strings.EqualFold(name, autoDetect):
		return fmt.Errorf("%q means something else to VMware", name)
	}
	return nil
}

// attach gives each drive a place, and returns the controllers that are written.
func (w *writer) attach(drives []*drive) ([]attach.Controller, error) {
	var have []attach.Controller
	for i, c := range w.m.Controllers {
		field := fmt.Sprintf("controllers[%d]", i)
		switch {
		case c.Type == machine.USB:
			continue
		case rank(c.Type) < 0:
			w.lose(field, c.Name, "VMware has no controller of type %s", c.Type)
			continue
		case c.Type != machine.SCSI:
		case c.Model == "":
			c.Model = machine.LSILogic
			if strings.HasPrefix(w.guest, "win") || strings.HasPrefix(w.guest, "longhorn") {
				c.Model = machine.LSILogicSAS // of which Windows has a driver since 2006
			}
			w.lose(field+".model", "", "it is not said; %s", c.Model)
		case !slices.Contains(scsiModels, c.Model):
			w.lose(field+".model", string(c.Model), "VMware has no such controller; what is on it is on SATA")
			continue
		}
		have = append(have, attach.Controller{Controller: c, Index: i})
	}
	var all []*attach.Drive
	for _, d := range drives {
		all = append(all, d.Drive)
	}
	controllers, losses, err := attach.VMX.Attach(have, all)
	w.losses = append(w.losses, losses...)
	return controllers, err
}

// scsiModels are those that VMware has.
var scsiModels = []machine.ControllerModel{machine.BusLogic, machine.LSILogic, machine.LSILogicSAS, machine.PVSCSI}

var versionWord = regexp.MustCompile(`^vmx-([0-9]{1,3})$`)

// hardwareVersion returns the machine's version, raised to what its devices
// need.
func (w *writer) hardwareVersion(drives []*drive, controllers []attach.Controller) int {
	w.hardware = 1
	for _, c := range controllers {
		switch c.Type {
		case machine.SATA:
			w.need(hardwareSATA)
		case machine.NVMe:
			w.need(hardwareNVMe)
		case machine.SCSI:
			if c.Model == machine.PVSCSI || c.Model == machine.LSILogicSAS {
				w.need(hardwarePCIe)
			}
		}
	}
	for _, d := range drives {
		switch at := d.Place; {
		case at.Bus == machine.SCSI && at.Unit > 15:
			w.need(hardwareWidePVSCSI)
		case at.Bus == machine.NVMe && at.Unit > 14:
			w.need(hardwareWideNVMe)
		}
	}
	if w.m.Firmware == machine.UEFI {
		w.need(hardwareUEFI)
		if w.m.SecureBoot {
			w.need(hardwareSecureBoot)
		}
	}
	for _, n := range w.m.NICs {
		switch w.nicType(n.Type) {
		case machine.VMXNET3:
			w.need(hardwarePCIe)
		case machine.E1000E:
			w.need(hardwareE1000E)
		}
	}
	for _, c := range w.m.Controllers {
		if c.Type == machine.USB && c.Model == machine.XHCI {
			w.need(hardwareXHCI)
		} else if c.Type == machine.USB {
			w.need(hardwarePCIe)
		}
	}
	i := slices.IndexFunc(limits, func(l limit) bool { return w.m.CPUs <= l.cpus && w.m.Memory <= l.memory<<30 })
	if i < 0 {
		i = len(limits) - 1
	}
	w.need(limits[i].version)

	said := strings.Fields(w.m.HardwareVersion)
	var versions []int
	for _, word := range said {
		if match := versionWord.FindStringSubmatch(word); match != nil {
			if n, _ := strconv.Atoi(match[1]); n > 0 && n <= maxHardware {
				versions = append(versions, n)
			}
		}
	}
	slices.Sort(versions)
	version := max(w.hardware, defaultHardware)
	if len(versions) > 0 {
		version = max(w.hardware, versions[len(versions)-1])
	}
	if i = slices.IndexFunc(versions, func(n int) bool { return n >= w.hardware }); i >= 0 {
		version = versions[i]
	}
	if word := hardwareVersion(int64(version)); w.m.HardwareVersion != "" && w.m.HardwareVersion != word {
		w.lose("hardwareVersion", w.m.HardwareVersion, "it is %s, which has all its devices", word)
	}
	return version
}

func (w *writer) guestOS() string {
	g := w.m.GuestOS.Complete()
	word := guestWord(g.VMware)
	if word != "" {
		if id := guestID(word); !strings.EqualFold(id, g.VMware) {
			w.lose("guestOS.vmware", g.VMware, "it is taken for %s", id)
		}
		w.loseArchitecture(g)
		return word
	}
	w.loseArchitecture(machine.GuestOS{})
	word = defaultGuest
	if soundsLinux(g) {
		word = defaultLinux
	}
	if w.m.GuestOS != (machine.GuestOS{}) {
		w.lose("guestOS", cmp.Or(g.VMware, g.Osinfo, g.VirtualBox, g.Description, strconv.Itoa(g.CIM)), "VMware has no word for it that is known here; %s", word)
	}
	return word
}

// loseArchitecture reports that a machine with g for its guest becomes one of
// another architecture.
func (w *writer) loseArchitecture(g machine.GuestOS) {
	if !g.IsFor(w.m.Architecture) {
		w.lose("architecture", w.m.Architecture, "VMware tells it by the guest's system alone: it is %s", cmp.Or(g.Architecture(), "amd64"))
	}
}

// soundsLinux says whether a system that VMware has no word for is a Linux.
func soundsLinux(g machine.GuestOS) bool {
	for _, s := range []string{g.VirtualBox, g.Osinfo, g.Description} {
		if strings.Contains(strings.ToLower(s), "linux") {
			return true
		}
	}
	return false
}

func (w *writer) writeCPU() {
	cpus := max(1, w.m.CPUs)
	if cpus > maxCPUs {
		w.lose("cpus", strconv.Itoa(cpus), "VMware has up to %d; %[1]d", maxCPUs)
		cpus = maxCPUs
	}
	w.setNumber("numvcpus", int64(cpus))
	if n := w.m.CoresPerSocket; n > 0 && cpus%n == 0 {
		w.setNumber("cpuid.coresPerSocket", int64(n))
	} else if n > 0 {
		w.lose("coresPerSocket", strconv.Itoa(n), "VMware has full sockets only, and there are %d CPUs", cpus)
	}
	memory := w.m.Memory
	if memory == 0 {
		memory = defaultMemory
		w.lose("memory", "0", "it is not said; 1 GiB")
	}
	if over := memory % memoryStep; over > 0 {
		memory += memoryStep - over
		w.lose("memory", strconv.FormatInt(w.m.Memory, 10), "VMware's memory is a multiple of 4 MiB; %d bytes", memory)
	}
	w.setNumber("memsize", memory>>20)
}

func (w *writer) writeFirmware() {
	switch w.m.Firmware {
	case machine.UEFI:
		w.set("firmware", "efi")
		if w.m.SecureBoot {
			w.setTrue("uefi.secureBoot.enabled")
		}
	default:
		w.set("firmware", "bios")
		if w.m.SecureBoot {
			w.lose("secureBoot", "true", "it needs UEFI")
		}
	}
	if w.m.TPM != "" {
		w.lose("tpm", string(w.m.TPM), "VMware's TPM needs an encrypted machine: encrypt it, then add one")
	}
	if name := w.m.NVRAM; name != "" {
		switch err := checkFileName(name); {
		case err != nil:
			w.lose("nvram", name, "%v", err)
		case !strings.Contains(w.m.HardwareVersion, "vmx-") || !strings.HasSuffix(strings.ToLower(name), ".nvram"):
			w.lose("nvram", name, "VMware does not read the variables of another product's firmware")
		default:
			w.set("nvram", name)
		}
	}
}

// writeBridges writes the bridges that VMware gives to each machine: without
// them there is no slot for what is on PCI Express.
func (w *writer) writeBridges() {
	w.setTrue("pciBridge0.present")
	for n := 4; n <= 7; n++ {
		name := fmt.Sprint("pciBridge", n)
		w.setTrue(name + ".present")
		w.set(name+".virtualDev", "pcieRootPort")
		w.set(name+".functions", "8")
	}
}

func (w *writer) writeDrives(drives []*drive, controllers []attach.Controller) {
	drives = slices.Clone(drives)
	slices.SortFunc(drives, compareDrives)
	for _, b := range attach.VMX.Buses {
		for n := range b.Controllers {
			i := slices.IndexFunc(controllers, func(c attach.Controller) bool { return c.Type == b.Bus && c.Number == n })
			if i < 0 {
				continue
			}
			name := fmt.Sprint(b.Bus, n)
			if b.Bus != machine.IDE {
				w.setTrue(name + ".present")
			}
			if b.Bus == machine.SCSI {
				w.set(name+".virtualDev", string(controllers[i].Model))
			}
			for _, d := range drives {
				if d.Place.Bus == b.Bus && d.Place.Number == n {
					w.writeDrive(d)
				}
			}
		}
	}
}

func (w *writer) writeDrive(d *drive) {
	name := d.Place.String()
	w.setTrue(name + ".present")
	switch {
	case d.CD:
		w.set(name+".deviceType", "cdrom-image")
	case d.Place.Bus == machine.SCSI:
		w.set(name+".deviceType", "scsi-hardDisk")
	case d.Place.Bus == machine.IDE:
		w.set(name+".deviceType", "ata-hardDisk")
	default:
		w.set(name+".deviceType", "disk")
	}
	if d.CD && d.file == "" {
		// Not the host's own drive, which is what VMware has in new machines.
		w.set(name+".fileName", noMedium)
		w.set(name+".startConnected", "FALSE")
		return
	}
	w.set(name+".fileName", d.file)
}

func (w *writer) writeUSB() {
	present := make(map[machine.ControllerModel]bool)
	for i, c := range w.m.Controllers {
		if c.Type != machine.USB {
			continue
		}
		field, model := fmt.Sprintf("controllers[%d]", i), c.Model
		if model == "" {
			model = machine.UHCI
		}
		switch {
		case present[model]:
			w.lose(field, c.Name, "VMware has one of each kind")
		case !slices.ContainsFunc(usbControllers, func(u usbController) bool { return u.model == model }):
			w.lose(field+".model", string(model), "VMware has no such controller")
		default:
			present[model] = true
		}
	}
	if i := slices.IndexFunc(w.m.Controllers, func(c machine.Controller) bool { return c.Model == machine.EHCI }); present[machine.EHCI] && !present[machine.UHCI] {
		w.lose(fmt.Sprintf("controllers[%d]", i), string(machine.EHCI), "VMware has EHCI with UHCI only; both are there")
		present[machine.UHCI] = true
	}
	for _, c := range usbControllers {
		if present[c.model] {
			w.setTrue(c.name + ".present")
		}
	}
}

var (
	vnetWord      = regexp.MustCompile(`(?i)^vmnet[0-9]{1,3}$`)
	connections   = []string{"bridged", "nat", "hostonly"} // and networks of the same name
	vmwareAddress = regexp.MustCompile(`^00:50:56:[0-3][0-9a-f]:`)
	macAddress    = regexp.MustCompile(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`)
)

// nicType is what VMware has in the place of a card. E1000 has a driver in all
// systems; a Linux has one for VMXNET3 since 2009, and a virtio guest wants it
// fast.
func (w *writer) nicType(t machine.NICType) machine.NICType {
	switch t {
	case machine.E1000, machine.E1000E, machine.VMXNET, machine.VMXNET2, machine.VMXNET3, machine.PCnet:
		return t
	case machine.Flexible:
		return machine.PCnet // which VMware's tools turn into the other
	case machine.VirtioNet, machine.Synthetic:
		if isLinux(w.guest) {
			return machine.VMXNET3
		}
	}
	return machine.E1000
}

func (w *writer) writeNICs() {
	for i, nic := range w.m.NICs {
		field := fmt.Sprintf("nics[%d]", i)
		if i >= maxNICs {
			w.lose(field, nic.Network, "VMware has %d cards", maxNICs)
			continue
		}
		name := fmt.Sprint("ethernet", i)
		w.setTrue(name + ".present")
		t := w.nicType(nic.Type)
		if t != nic.Type {
			w.lose(field+".type", string(nic.Type), "VMware has no such card; %s", t)
		}
		switch t {
		case machine.PCnet:
			w.set(name+".virtualDev", "vlance")
		case machine.VMXNET2:
			w.set(name+".virtualDev", "vmxnet")
			w.set(name+".features", "15")
		default:
			w.set(name+".virtualDev", string(t))
		}
		// ESXi takes the name, Workstation the type of the connection.
		network := w.text(field+".network", nic.Network)
		switch kind := strings.ToLower(network); {
		case network == "":
		case slices.Contains(connections, kind):
			w.set(name+".connectionType", kind)
			if network != kind {
				w.set(name+".networkName", network)
			}
		case vnetWord.MatchString(network):
			w.set(name+".connectionType", "custom")
			w.set(name+".vnet", network)
		default:
			w.set(name+".connectionType", "bridged")
			w.set(name+".networkName", network)
		}
		w.writeMAC(name, field, nic.MAC)
	}
}

func (w *writer) writeMAC(name, field, mac string) {
	valid := macAddress.MatchString(mac) && mac != "00:00:00:00:00:00"
	if valid {
		first, _ := strconv.ParseUint(mac[:2], 16, 8)
		valid = first&1 == 0 // of one card, not of a group
	}
	if !valid {
		if mac != "" {
			w.lose(field+".mac", mac, "no card has this address; VMware makes one")
		}
		w.set(name+".addressType", "generated")
		return
	}
	w.set(name+".addressType", "static")
	w.set(name+".address", mac)
	if !vmwareAddress.MatchString(mac) {
		w.set(name+".checkMACAddress", "FALSE") // VMware refuses others than its own
	}
}

func (w *writer) writeDisplay() {
	d := w.m.Display
	if d.Type != "" && d.Type != "vmvga" {
		w.lose("display.type", d.Type, "VMware has its own; vmvga")
	}
	w.setTrue("svga.present")
	switch {
	case d.Memory > maxVideoMemory || d.Memory < 0:
		w.lose("display.memory", strconv.FormatInt(d.Memory, 10), "VMware has up to %d bytes", maxVideoMemory)
	case d.Memory > 0:
		w.set("svga.autodetect", "FALSE")
		w.setNumber("svga.vramSize", d.Memory)
	}
	switch {
	case d.Monitors > maxDisplays || d.Monitors < 0:
		w.lose("display.monitors", strconv.Itoa(d.Monitors), "VMware has up to %d", maxDisplays)
	case d.Monitors > 0:
		w.setNumber("svga.numDisplays", int64(d.Monitors))
	}
}

func (w *writer) writeBoot(drives []*drive) {
	var words []string
	for i, device := range w.m.BootOrder {
		word := ""
		switch device {
		case machine.BootDisk:
			word = "hdd"
		case machine.BootCDROM:
			word = "cdrom"
		case machine.BootFloppy:
			word = "floppy"
		case machine.BootNetwork:
			if len(w.m.NICs) > 0 {
				word = "ethernet0"
			}
		}
		if word == "" || slices.Contains(words, word) {
			w.lose(fmt.Sprintf("bootOrder[%d]", i), string(device), "the machine has no such device, or it is there twice")
			continue
		}
		words = append(words, word)
	}
	if len(words) > 0 {
		w.set("bios.bootOrder", strings.Join(words, ","))
	}

	// The order of the disks, where it is not that of their places.
	var disks []*drive
	words = nil
	for _, d := range drives {
		if !d.CD {
			disks, words = append(disks, d), append(words, d.Place.String())
		}
	}
	if !slices.IsSortedFunc(disks, compareDrives) {
		w.set("bios.hddOrder", strings.Join(words, ","))
	}
}

// loseRest reports what a VMX has no word for.
func (w *writer) loseRest() {
	if p := w.m.Product; p != (machine.Product{}) {
		w.lose("product", strings.TrimSpace(p.Name+" "+p.Version), "a VMX has no word for it")
	}
	for i := range w.m.EULAs {
		w.lose(fmt.Sprintf("eulas[%d]", i), "", "a VMX has no licence")
	}
	for i, p := range w.m.Properties {
		w.lose(fmt.Sprintf("properties[%d]", i), p.Key, "a VMX has no properties")
	}
	if len(w.m.Transport) > 0 {
		w.lose("transport", strings.Join(w.m.Transport, " "), "a VMX has no properties")
	}
}
