package vmx

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/attach"
)

const maxNICs = 10 // ethernet0 to ethernet9

// What a VMX says of the medium of a drive without one.
const (
	noMedium   = "emptyBackingString"
	autoDetect = "auto detect" // that of the host's first drive
)

// A reader makes the machine from the entries.
type reader struct {
	*dictionary
	m *machine.Machine
}

func (r *reader) unread(field, value, reason string) {
	r.m.Unread = append(r.m.Unread, machine.Loss{Field: field, Value: value, Reason: reason})
}

// unreadIf reports an entry that is there with another value than those of no
// consequence.
func (r *reader) unreadIf(name, reason string, harmless ...string) {
	if w := r.word(name); w != "" && !slices.Contains(harmless, w) {
		r.unread(r.get(name).name, r.text(name), reason)
	}
}

func (r *reader) read() (*machine.Envelope, error) {
	if err := r.readVersion(); err != nil {
		return nil, err
	}
	if r.encoding != "" {
		r.unread(".encoding", "", "it is not said; read as "+r.encoding)
	}
	r.readGeneral()
	r.readCPU()
	r.readFirmware()
	if err := r.readDrives(); err != nil {
		return nil, err
	}
	r.readUSB()
	r.readNICs()
	r.readDisplay()
	r.readBoot()
	r.readOthers()
	if r.err != nil {
		return nil, r.err
	}
	return r.envelope(), nil
}

// readVersion refuses what is no VMX, or none that can be read.
func (r *reader) readVersion() error {
	for _, name := range []string{"encryption.keySafe", "encryption.data"} {
		if r.get(name) != nil {
			return machine.Unsupported("the machine is encrypted (%s): nothing in it can be read; decrypt it with VMware first", name)
		}
	}
	if r.get("config.version") == nil {
		return machine.Malformed("no config.version, so this is not a VMX")
	}
	// 6 is of Workstation 4 and ESX 2, 8 of all since; the names are the same.
	if v := r.number("config.version", 0, 1000); r.err == nil && (v < 1 || v > 8) {
		return machine.Unsupported("config.version %d, not 1 to 8", v)
	}
	if v := r.number("virtualHW.version", 0, 1000); v > 0 {
		r.m.HardwareVersion = hardwareVersion(v)
	}
	return r.err
}

// hardwareVersion is as in the API and in OVFs: vmx-07, vmx-19.
func hardwareVersion(n int64) string { return fmt.Sprintf("vmx-%02d", n) }

func (r *reader) readGeneral() {
	r.m.Name = unescapeName(r.text("displayName"))
	r.m.ID = r.m.Name
	r.m.Description = r.text("annotation")
	r.m.GuestOS.VMware = guestID(r.text("guestOS"))
	r.m.GuestOS.Description = r.text("guestOSAltName")
	r.m.Architecture = r.m.GuestOS.Architecture()
}

// vSphere has %2f, %5c and %25 in the name of a machine for slash, backslash and
// percent.
var (
	nameEscapes   = strings.NewReplacer("%2f", "/", "%2F", "/", "%5c", `\`, "%5C", `\`, "%25", "%")
	nameUnescapes = strings.NewReplacer("%2f", "%252f", "%2F", "%252F", "%5c", "%255c", "%5C", "%255C", "%25", "%2525")
)

func unescapeName(s string) string { return nameEscapes.Replace(s) }

// escapeName leaves a percent that is taken for itself, as Workstation knows
// nothing of all this.
func escapeName(s string) string { return nameUnescapes.Replace(s) }

func (r *reader) readCPU() {
	r.m.Memory = max(1, r.number("memsize", 32, machine.MaxMemory>>20)) << 20
	r.m.CPUs = int(max(1, r.number("numvcpus", 1, machine.MaxCPUs)))
	r.m.CoresPerSocket = int(r.number("cpuid.coresPerSocket", 0, machine.MaxCPUs)) // 0: as the host likes

	const reservation = "reservations and limits are of the host, not of the machine"
	r.unreadIf("sched.cpu.min", reservation, "0")
	r.unreadIf("sched.cpu.max", reservation, "-1", "unlimited")
	r.unreadIf("sched.cpu.shares", reservation, "normal")
	r.unreadIf("sched.cpu.affinity", "which CPUs of the host it runs on is of the host", "all")
	r.unreadIf("sched.cpu.latencySensitivity", reservation, "normal")
	r.unreadIf("sched.mem.min", reservation, "0")
	r.unreadIf("sched.mem.minsize", reservation, "0")
	r.unreadIf("sched.mem.max", reservation, "-1", "unlimited", r.word("memsize"))
	r.unreadIf("sched.mem.shares", reservation, "normal")
	for _, name := range []string{"vcpu.hotadd", "vcpu.hotremove", "mem.hotadd"} {
		r.unreadIf(name, "adding to a running machine is not carried over", "false")
	}
	for _, name := range []string{"vhv.enable", "vvtd.enable", "vbs.enabled", "windows.vbsEnabled", "vpmc.enable", "sev.enable", "smbios.reflectHost"} {
		r.unreadIf(name, "features of the processor and the board are not carried over", "false")
	}
	for _, e := range r.order {
		if strings.HasPrefix(strings.ToLower(e.name), "cpuid.") && strings.Trim(e.value, "-:") != "" && !e.used {
			r.unread(e.name, e.value, "features of the processor are not carried over")
		}
	}
}

func (r *reader) readFirmware() {
	switch w := r.word("firmware"); w {
	case "", "bios":
		r.m.Firmware = machine.BIOS
	case "efi":
		r.m.Firmware = machine.UEFI
	default:
		r.fail(r.get("firmware"), "is neither bios nor efi")
	}
	r.m.SecureBoot = r.truth("uefi.secureBoot.enabled", false) && r.m.Firmware == machine.UEFI
	if r.truth("vtpm.present", false) || r.word("managedvm.autoAddVTPM") == "software" {
		r.m.TPM = machine.TPM20
		r.unread("vtpm", "", "what is in the TPM is not carried over: what is sealed with it, such as BitLocker's key, must be recovered")
	}
	r.m.NVRAM = r.text("nvram")
}

// readDrives reads controllers with the disks and CD drives on them.
func (r *reader) readDrives() error {
	var order []string // of the disks
	for _, b := range attach.VMX.Buses {
		for n := range b.Controllers {
			c := machine.Controller{Name: fmt.Sprint(b.Bus, n), Type: b.Bus, Number: n}
			present := r.truth(c.Name+".present", b.Bus == machine.IDE)
			if !present {
				continue
			}
			if b.Bus == machine.SCSI {
				// Without a word it is as the product likes for the guest's system.
				c.Model = machine.ControllerModel(r.word(c.Name + ".virtualDev"))
				r.unreadIf(c.Name+".sharedBus", "sharing disks with another machine is not carried over", "none")
			}
			used := false
			for unit := range b.Most() {
				if b.Self && unit == attach.Self {
					continue
				}
				name := fmt.Sprintf("%s:%d", c.Name, unit)
				if !r.truth(name+".present", false) {
					continue
				}
				disks := len(r.m.Disks)
				if err := r.readDrive(name, c, unit); err != nil {
					return err
				}
				if len(r.m.Disks) > disks {
					order = append(order, name)
				}
				used = true
			}
			if used || b.Bus != machine.IDE { // which every machine has
				r.m.Controllers = append(r.m.Controllers, c)
			}
		}
	}
	r.orderDisks(order)
	return nil
}

// hostDisks are words for a disk or a partition of the host.
var hostDisks = []string{"rawdisk", "plaindisk", "physicaldisk", "physicaldrive0"}

// readDrive reads what is at a place, such as scsi0:0.
func (r *reader) readDrive(name string, c machine.Controller, unit int) error {
	kind, file := r.word(name+".deviceType"), r.text(name+".fileName")
	lower := strings.ToLower(file)
	cdrom := strings.HasPrefix(kind, "cdrom") || kind == "atapi-cdrom" || kind == "" && strings.HasSuffix(lower, ".iso")
	switch {
	case r.truth(name+".clientDevice", false) && !strings.HasSuffix(lower, ".vmdk"):
		// libvirt leaves them out as well.
		r.unread(name, kind, "the drive is one of the computer with VMware's client")

	case cdrom:
		d := machine.CDROM{Name: fmt.Sprint("cdrom", len(r.m.CDROMs)), Controller: c.Name, Bus: c.Type, Unit: unit}
		empty := file == "" || strings.EqualFold(file, noMedium) || strings.EqualFold(file, autoDetect)
		switch {
		case empty:
		case kind == "atapi-cdrom" || kind == "cdrom-raw":
			r.unread(name+".fileName", file, "the drive of the host that is passed through; it is an empty one")
		default:
			d.File = file
			r.unreadIf(name+".startConnected", "the medium is in the drive from the start", "true", "yes", "1")
		}
		r.m.CDROMs = append(r.m.CDROMs, d)

	case slices.Contains(hostDisks, kind) || strings.HasPrefix(kind, "scsi-passthr") && !strings.HasSuffix(kind, "-rdm"):
		r.unread(name, file, "a device of the host that is passed through")

	case kind == "" || kind == "disk" || strings.HasSuffix(kind, "harddisk") || strings.HasSuffix(kind, "-rdm"):
		if file == "" {
			return machine.Malformed("%s is a disk without fileName", name)
		}
		d := machine.Disk{Controller: c.Name, Bus: c.Type, Unit: unit, File: file}
		if strings.HasSuffix(lower, ".vmdk") {
			d.Format = "vmdk"
		}
		r.m.Disks = append(r.m.Disks, d)
		r.unreadIf(name+".mode", "changes are kept, and are part of snapshots", "persistent", "independent-persistent")
		r.unreadIf(name+".redo", "changes that were not committed to the disk stay behind")

	default:
		return machine.Unsupported("%s.deviceType = %q", name, shorten(kind))
	}
	return nil
}

// orderDisks puts first the disks that the BIOS tries first, and names them.
// places are where they are now.
func (r *reader) orderDisks(places []string) {
	var disks []machine.Disk
	taken := make([]bool, len(places))
	for _, word := range r.list("bios.hddOrder") {
		if i := slices.Index(places, word); i >= 0 && !taken[i] {
			disks, taken[i] = append(disks, r.m.Disks[i]), true
		}
	}
	for i, d := range r.m.Disks {
		if !taken[i] {
			disks = append(disks, d)
		}
	}
	for i := range disks {
		disks[i].Name = fmt.Sprint("disk", i)
	}
	r.m.Disks = disks
}

func (r *reader) readUSB() {
	number := 0
	for _, c := range usbControllers {
		if r.truth(c.name+".present", false) {
			r.m.Controllers = append(r.m.Controllers, machine.Controller{Name: fmt.Sprint("usb", number), Type: machine.USB, Model: c.model, Number: number})
			number++
		}
	}
}

type usbController struct {
	name  string
	model machine.ControllerModel
}

var usbControllers = []usbController{
	{"usb", machine.UHCI},
	{"ehci", machine.EHCI},
	{"usb_xhci", machine.XHCI},
}

func (r *reader) readNICs() {
	for n := range maxNICs {
		name := fmt.Sprint("ethernet", n)
		if !r.truth(name+".present", false) {
			continue
		}
		nic := machine.NIC{Name: name, Network: r.text(name + ".networkName")}
		// Without a word it is as the product likes for the guest's system.
		switch w := r.word(name + ".virtualDev"); w {
		case "vlance":
			nic.Type = machine.PCnet
		case "vmxnet":
			nic.Type = machine.VMXNET
			if r.word(name+".features") == "15" {
				nic.Type = machine.VMXNET2
			}
		default:
			nic.Type = machine.NICType(w)
		}
		if nic.Network == "" {
			// ovftool has networks called bridged, nat and hostonly for these.
			nic.Network = r.word(name + ".connectionType")
			if vnet := r.text(name + ".vnet"); nic.Network == "custom" && vnet != "" {
				nic.Network = vnet[strings.LastIndexByte(vnet, '/')+1:] // /dev/vmnet2
			}
		}
		address := name + ".generatedAddress"
		if r.word(name+".addressType") == "static" {
			address = name + ".address"
		}
		if r.word(address) != "" {
			nic.MAC = r.mac(address)
		}
		r.m.NICs = append(r.m.NICs, nic)

		r.unreadIf(name+".startConnected", "the cable is in from the start", "true", "yes", "1")
		r.unreadIf(name+".dvs.portgroupId", "a port group of a distributed switch has no name here")
		r.unreadIf(name+".opaqueNetwork.id", "a network of NSX has no name here")
	}
}

// mac returns the address in the form of the model.
func (r *reader) mac(name string) string {
	e := r.get(name)
	parts := strings.Split(strings.ReplaceAll(r.word(name), "-", ":"), ":")
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 16, 8); err != nil || len(p) != 2 {
			r.fail(e, "is not a MAC address")
			return ""
		}
	}
	if len(parts) != 6 {
		r.fail(e, "is not a MAC address")
		return ""
	}
	return strings.Join(parts, ":")
}

func (r *reader) readDisplay() {
	if r.truth("svga.present", true) {
		r.m.Display.Type = "vmvga"
	}
	r.m.Display.Memory = r.number("svga.vramSize", 0, machine.MaxMemory)
	r.m.Display.Monitors = int(r.number("svga.numDisplays", 0, maxMonitors))
	r.unreadIf("mks.enable3d", "3D graphics are not carried over", "false")
	if r.truth("RemoteDisplay.vnc.enabled", false) {
		r.unread("RemoteDisplay.vnc", r.text("RemoteDisplay.vnc.port"), "a screen on the host's network is not carried over")
	}
}

const maxMonitors = 64 // VMware allows 10

func (r *reader) readBoot() {
	name := "bios.bootOrder"
	if r.word(name) == "" {
		name = "bios.bootDeviceClasses"
	}
	for _, word := range r.list(name) {
		var device machine.BootDevice
		switch word = strings.TrimPrefix(word, "allow:"); {
		case word == "hdd" || word == "hd" || word == "disk":
			device = machine.BootDisk
		case strings.HasPrefix(word, "cd"):
			device = machine.BootCDROM
		case strings.HasPrefix(word, "ethernet") || strings.HasPrefix(word, "net"):
			device = machine.BootNetwork
		case strings.HasPrefix(word, "floppy") || word == "fd":
			device = machine.BootFloppy
		default:
			r.unread(name, word, "not a device to boot from that is known here")
			continue
		}
		if !slices.Contains(r.m.BootOrder, device) {
			r.m.BootOrder = append(r.m.BootOrder, device)
		}
	}
}

// notDevices are present in most machines and are part of every one, or no
// guest misses them.
var notDevices = []string{"pcibridge", "vmci", "hpet", "svga", "mouse", "vmmouse", "smc", "ich7m", "monitor", "ide", "scsi", "sata", "nvme"}

// otherDevices are what else can be in a machine.
var otherDevices = []struct{ prefix, reason string }{
	{"floppy", "floppy drives are not carried over"},
	{"serial", "serial ports are not carried over"},
	{"parallel", "parallel ports are not carried over"},
	{"sound", "sound cards are not carried over"},
	{"pcipassthru", "a device of the host that is passed through"},
	{"sharedfolder", "a folder of the host"},
	{"usb", "USB devices are not carried over"},
	{"ehci", "USB devices are not carried over"},
	{"vwdt", "watchdogs are not carried over"},
	{"ethernet", "VMware has ethernet0 to ethernet9"},
}

// readOthers reports what is left.
func (r *reader) readOthers() {
	r.unreadIf("disk.enableUUID", "whether the guest sees the serial numbers of disks is not carried over", "false")
	r.unreadIf("checkpoint.vmState", "the machine is suspended: its memory stays behind, and its disks are as after a power failure")
	for _, e := range r.order {
		lower := strings.ToLower(e.name)
		if device, ok := strings.CutSuffix(lower, ".present"); ok && !e.used && strings.EqualFold(strings.TrimSpace(e.value), "TRUE") {
			r.readOther(e.name[:len(device)], device)
		}
		if key, ok := strings.CutPrefix(lower, "guestinfo."); ok && !isToolsInfo(key) {
			r.unread(e.name, "", "what the guest is told may be a secret, and is not carried over")
		}
	}
}

// readOther reports a device that is not in the model. Its name is as it is
// written, and in lower case.
func (r *reader) readOther(name, lower string) {
	class := lower
	if i := strings.IndexAny(class, "0123456789:."); i >= 0 {
		class = class[:i]
	}
	switch kind := r.word(name + ".deviceType"); {
	case (class == "usb" || class == "usb_xhci" || class == "ehci") && (kind == "hid" || kind == "hub"):
		return // the mouse, and what it is plugged into
	case slices.Contains(notDevices, class):
		if strings.Contains(lower, ":") {
			r.unread(name, r.text(name+".fileName"), "nothing can be at this place, or its controller is not present")
		}
		return
	}
	value := r.text(name + ".fileName")
	switch value {
	case "":
		value = r.text(name + ".guestName") // of a shared folder
	case "-1": // the sound card that the host plays on
		value = ""
	}
	reason := "a device that is not known here"
	for _, d := range otherDevices {
		if strings.HasPrefix(class, d.prefix) {
			reason = d.reason
		}
	}
	r.unread(name, value, reason)
}

// isToolsInfo says whether the guest's tools wrote a value themselves.
func isToolsInfo(key string) bool {
	for _, prefix := range []string{"detailed.data", "vmtools.", "appinfo", "driver.", "toolsinstallerrcode", "hostname.query"} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// envelope lists what the machine has.
func (r *reader) envelope() *machine.Envelope {
	env := &machine.Envelope{Machines: []*machine.Machine{r.m}}
	seen := make(map[string]bool)
	file := func(name string) {
		if name != "" && !seen[name] {
			seen[name] = true
			env.Files = append(env.Files, machine.File{ID: fmt.Sprint("file", len(env.Files)), Name: name, Size: -1})
		}
	}
	for _, d := range r.m.Disks {
		file(d.File)
		d.Controller, d.Bus, d.Unit = "", "", 0
		env.Disks = append(env.Disks, d)
	}
	for _, d := range r.m.CDROMs {
		file(d.File)
	}
	file(r.m.NVRAM)
	return env
}
