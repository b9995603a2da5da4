package libvirt

import (
	"fmt"
	"slices"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/xmltree"
)

// buses are libvirt's words for what a disk is attached to.
var buses = map[string]machine.Bus{
	"ide":    machine.IDE,
	"sata":   machine.SATA,
	"scsi":   machine.SCSI,
	"nvme":   machine.NVMe,
	"virtio": machine.Virtio,
	"usb":    machine.USB,
	"fdc":    machine.Floppy,
	"sd":     machine.SD,
	"xen":    machine.Xen,
}

// hasController says whether disks of a bus are attached to a controller of
// the model.
func hasController(bus machine.Bus) bool {
	switch bus {
	case machine.IDE, machine.SATA, machine.SCSI, machine.NVMe, machine.USB:
		return true
	}
	return false
}

// models are libvirt's words for controllers that have another here.
var models = map[string]machine.ControllerModel{
	"auto":                    "",
	"vmpvscsi":                machine.PVSCSI,
	"virtio-transitional":     machine.VirtioSCSI,
	"virtio-non-transitional": machine.VirtioSCSI,
	"piix3-uhci":              machine.UHCI,
	"piix4-uhci":              machine.UHCI,
	"vt82c686b-uhci":          machine.UHCI,
	"ich9-uhci1":              machine.UHCI,
	"ich9-uhci2":              machine.UHCI,
	"ich9-uhci3":              machine.UHCI,
	"pci-ohci":                machine.UHCI,
	"ich9-ehci1":              machine.EHCI,
	"nec-xhci":                machine.XHCI,
	"qemu-xhci":               machine.XHCI,
	"qusb1":                   machine.UHCI,
	"qusb2":                   machine.EHCI,
}

func (r *reader) controllers(all []*xmltree.Element) error {
	// Those without an index have the lowest that is free, in order.
	used := make(map[string]map[int]bool)
	indexes := make([]int, len(all))
	for i, e := range all {
		kind := e.Get("type")
		if used[kind] == nil {
			used[kind] = make(map[int]bool)
		}
		indexes[i] = -1
		if s := e.Get("index"); s != "" {
			n, err := number(e, "index", s, machine.MaxDisks)
			if err != nil {
				return err
			}
			indexes[i] = n
			// EHCI hands the devices of USB 1 to others of its index.
			if used[kind][n] && kind != "usb" {
				return malformed(e, "a second %s controller %d", kind, n)
			}
			used[kind][n] = true
		}
	}
	for i, e := range all {
		kind := e.Get("type")
		if indexes[i] < 0 {
			for indexes[i] = 0; used[kind][indexes[i]]; {
				indexes[i]++
			}
			used[kind][indexes[i]] = true
		}
		word := strings.ToLower(e.Get("model"))
		model, ok := models[word]
		if !ok {
			model = machine.ControllerModel(word)
		}
		n := indexes[i]
		switch kind {
		case "":
			return malformed(e, "no type")
		case "ide": // two channels, of which those without a drive are removed
			r.addController(machine.IDE, 2*n, model)
			r.addController(machine.IDE, 2*n+1, model)
		case "sata":
			r.addController(machine.SATA, n, machine.AHCI) // the only one there is
		case "scsi":
			r.addController(machine.SCSI, n, model)
		case "nvme":
			r.addController(machine.NVMe, n, model)
		case "usb":
			if word != "none" && e.Child("master") == nil && r.controller(machine.USB, n) == nil {
				r.addController(machine.USB, n, model)
			}
		}
	}
	return nil
}

func (r *reader) addController(bus machine.Bus, n int, model machine.ControllerModel) {
	r.m.Controllers = append(r.m.Controllers, machine.Controller{Name: fmt.Sprint(bus, n), Type: bus, Model: model, Number: n})
}

func (r *reader) controller(bus machine.Bus, n int) *machine.Controller {
	for i := range r.m.Controllers {
		if c := &r.m.Controllers[i]; c.Type == bus && c.Number == n {
			return c
		}
	}
	return nil
}

// A slot is where a drive is attached.
type slot struct {
	bus    machine.Bus
	number int // of the controller; 0 if the bus has none
	unit   int
}

// An address is that of <address type='drive'>.
type address struct{ controller, bus, target, unit int }

// A drive is a disk or a CD drive, which has a place of its own.
type drive struct {
	e       *xmltree.Element
	dev     string // target dev: unique in the domain
	slot    slot
	address *address // nil: not said, libvirt makes it from dev
	cdrom   bool
	sector  int // as machine.Disk has it
}

func (r *reader) disks(all []*xmltree.Element) error {
	var (
		drives    []drive
		devs      = make(map[string]bool)
		addresses = make(map[machine.Bus]map[address]bool)
	)
	for _, e := range all {
		d, err := r.drive(e)
		if err != nil {
			return err
		}
		dev := d.dev
		if r.hypervisor == "vmware" { // libvirt gives the disks of SATA and SCSI one name there
			dev = string(d.slot.bus) + " " + dev
		}
		if devs[dev] {
			return malformed(e, "a second target %s", d.dev)
		}
		devs[dev] = true
		if d.address != nil {
			if addresses[d.slot.bus] == nil {
				addresses[d.slot.bus] = make(map[address]bool)
			}
			if addresses[d.slot.bus][*d.address] {
				return malformed(e, "two drives at controller %d, bus %d, target %d, unit %d of %s",
					d.address.controller, d.address.bus, d.address.target, d.address.unit, d.slot.bus)
			}
			addresses[d.slot.bus][*d.address] = true
		}
		kept, err := r.media(&d)
		if err != nil {
			return err
		}
		if kept {
			drives = append(drives, d)
		}
	}
	r.place(drives)

	var disks, cdroms int // among drives
	for _, d := range drives {
		kind, i := machine.BootDisk, &disks
		if d.cdrom {
			kind, i = machine.BootCDROM, &cdroms
		}
		if err := r.boot(d.e, kind, *i); err != nil {
			return err
		}
		controller := ""
		if hasController(d.slot.bus) {
			controller = fmt.Sprint(d.slot.bus, d.slot.number)
			if r.controller(d.slot.bus, d.slot.number) == nil {
				r.addController(d.slot.bus, d.slot.number, implied[d.slot.bus])
			}
		}
		if d.cdrom {
			c := &r.m.CDROMs[*i]
			c.Controller, c.Bus, c.Unit = controller, d.slot.bus, d.slot.unit
		} else {
			c := &r.m.Disks[*i]
			c.Controller, c.Bus, c.Unit = controller, d.slot.bus, d.slot.unit
		}
		*i++
	}
	// The machine has the channels of IDE that are used.
	channels := make(map[int]bool)
	for _, d := range drives {
		if d.slot.bus == machine.IDE {
			channels[d.slot.number] = true
		}
	}
	r.m.Controllers = slices.DeleteFunc(r.m.Controllers, func(c machine.Controller) bool {
		return c.Type == machine.IDE && !channels[c.Number]
	})
	return nil
}

// implied are the models of controllers that libvirt adds.
var implied = map[machine.Bus]machine.ControllerModel{machine.SATA: machine.AHCI}

// drive reads where a disk is attached.
func (r *reader) drive(e *xmltree.Element) (drive, error) {
	d := drive{e: e, cdrom: e.Get("device") == "cdrom"}
	target := e.Child("target")
	if target == nil || target.Get("dev") == "" {
		return d, malformed(e, "no target dev")
	}
	d.dev = strings.TrimPrefix(target.Get("dev"), "ioemu:") // Xen of old
	prefix, index, ok := parseDev(d.dev)
	if !ok {
		return d, malformed(target, "dev %q names no disk", d.dev)
	}
	if bus := target.Get("bus"); bus == "" {
		d.slot.bus = devBuses[prefix]
	} else if d.slot.bus, ok = buses[bus]; !ok {
		return d, malformed(target, "%q is no bus of disks", bus)
	}

	// Where libvirt puts it when nothing else is said.
	switch s := &d.slot; s.bus {
	case machine.IDE: // two channels of two
		s.number, s.unit = index/2, index%2
	case machine.SATA:
		s.number, s.unit = index/6, index%6
	case machine.SCSI:
		if r.hypervisor == "vmware" { // 16 at a controller, which is itself number 7
			s.number, s.unit = index/15, index%15
			if s.unit >= 7 {
				s.unit++
			}
		} else {
			s.number, s.unit = index/7, index%7
		}
	case machine.NVMe:
		s.number = index
	case machine.USB:
	default:
		s.unit = index
	}

	a := e.Child("address")
	if a == nil {
		return d, nil
	}
	switch {
	case a.Get("type") == "usb" && d.slot.bus == machine.USB:
		if bus := a.Get("bus"); bus != "" {
			var err error
			if d.slot.number, err = number(a, "bus", bus, machine.MaxDisks); err != nil {
				return d, err
			}
		}
	case a.Get("type") == "drive" && d.slot.bus != machine.USB && hasController(d.slot.bus):
		var at address
		for _, part := range []struct {
			name string
			n    *int
		}{{"controller", &at.controller}, {"bus", &at.bus}, {"target", &at.target}, {"unit", &at.unit}} {
			if s := a.Get(part.name); s != "" {
				var err error
				if *part.n, err = number(a, part.name, s, machine.MaxDisks); err != nil {
					return d, err
				}
			}
		}
		d.address = &at
		d.slot.number, d.slot.unit = at.controller, at.unit
		switch d.slot.bus {
		case machine.IDE:
			// libvirt takes the third and fourth drive as units of the first bus.
			n := 2*at.bus + at.unit
			if at.bus > 1 || n > 3 {
				return d, malformed(a, "IDE has bus and unit 0 and 1")
			}
			d.slot.number, d.slot.unit = 2*at.controller+n/2, n%2
		case machine.SCSI:
			// A disk is a target of some controllers, and a unit of one target
			// of others. The model has one number for that.
			if at.unit == 0 {
				d.slot.unit = at.target
			}
		}
	}
	return d, nil
}

// devBuses say which bus the disk of a name has, if nothing else does.
var devBuses = map[string]machine.Bus{
	"fd": machine.Floppy, "hd": machine.IDE, "sd": machine.SCSI, "vd": machine.Virtio, "xvd": machine.Xen, "ubd": machine.Virtio, "nvme": machine.NVMe,
}

// parseDev reads the name of a disk as a guest might call it: a prefix, and its
// number in letters of which "z" is followed by "aa".
func parseDev(dev string) (prefix string, index int, ok bool) {
	if n, nvme := strings.CutPrefix(dev, "nvme"); nvme {
		var namespace int
		if _, err := fmt.Sscanf(n, "%dn%d", &index, &namespace); err != nil || index < 0 || index > machine.MaxDisks {
			return "", 0, false
		}
		return "nvme", index, true
	}
	for _, prefix := range []string{"fd", "hd", "sd", "vd", "xvd", "ubd"} {
		letters, found := strings.CutPrefix(dev, prefix)
		if !found {
			continue
		}
		letters = strings.TrimRight(letters, "0123456789") // a partition of Xen's
		n := 0
		for _, c := range []byte(letters) {
			if c < 'a' || c > 'z' || n > machine.MaxDisks {
				return "", 0, false
			}
			n = n*26 + int(c-'a') + 1
		}
		if n == 0 || n > machine.MaxDisks {
			return "", 0, false
		}
		return prefix, n - 1, true
	}
	return "", 0, false
}

// place gives each drive a slot of its own: those that say one have it, and
// one that is taken is exchanged for the next.
func (r *reader) place(drives []drive) {
	taken := make(map[slot]bool)
	usb := make(map[int]int) // in the order of the ports, by controller
	for _, explicit := range []bool{true, false} {
		for i := range drives {
			d := &drives[i]
			if (d.address != nil) != explicit {
				continue
			}
			if d.slot.bus == machine.USB {
				d.slot.unit = usb[d.slot.number]
				usb[d.slot.number]++
				continue
			}
			asked := d.slot
			for taken[d.slot] {
				d.slot.unit++
				if d.slot.bus == machine.IDE && d.slot.unit > 1 {
					d.slot.number, d.slot.unit = d.slot.number+1, 0
				}
			}
			taken[d.slot] = true
			if explicit && d.slot != asked {
				r.unread(r.field(d)+"/address", fmt.Sprintf("target %d, unit %d", d.address.target, d.address.unit),
					fmt.Sprintf("a disk has one number, and %d was taken", asked.unit))
			}
		}
	}
}

func (r *reader) field(d *drive) string { return "devices/disk[" + d.dev + "]" }

// media reads what is in a drive, and adds it to the model unless it is a
// device of the host.
func (r *reader) media(d *drive) (kept bool, err error) {
	e, field := d.e, r.field(d)
	switch device := e.Get("device"); device {
	case "", "disk", "cdrom":
	case "floppy":
		r.unread(field, device, "a floppy drive is not carried")
		return false, nil
	case "lun":
		r.unread(field, device, "a device of the host is never carried")
		return false, nil
	default:
		return false, malformed(e, "device %q", device)
	}
	source := e.Child("source")
	if e.Child("encryption") != nil || source.Child("encryption") != nil {
		return false, unsupported(e, "disk %s is encrypted: decrypt it first", d.dev)
	}
	if source.Child("slices") != nil {
		return false, unsupported(e, "disk %s is a slice of a file", d.dev)
	}
	file, ok := sourceFile(e.Get("type"), source)
	if d.cdrom && (e.Get("type") == "block" || !ok) {
		r.unread(field+"/source", e.Get("type"), "a drive of the host is never carried")
		file = ""
	} else if !ok {
		r.unread(field, e.Get("type"), "a device of the host is never carried")
		return false, nil
	}
	r.file(file)
	r.driveOptions(d)
	if d.cdrom {
		r.m.CDROMs = append(r.m.CDROMs, machine.CDROM{Name: fmt.Sprint("cdrom", len(r.m.CDROMs)), File: file})
		return true, nil
	}
	disk := machine.Disk{Name: fmt.Sprint("disk", len(r.m.Disks)), File: file, ReadOnly: e.Child("readonly") != nil, SectorSize: d.sector}
	if file != "" {
		disk.Format = r.format(e.Child("driver"))
		if disk.Format == "luks" {
			return false, unsupported(e, "disk %s is encrypted: decrypt it first", d.dev)
		}
	}
	r.m.Disks = append(r.m.Disks, disk)
	return true, nil
}

// sourceFile is the name of what a disk's content is in, "" if it is empty. A
// volume and what is in a network have a URL, which nobody opens by mistake.
func sourceFile(kind string, source *xmltree.Element) (file string, ok bool) {
	if source == nil {
		return "", kind == "" || kind == "file" || kind == "block"
	}
	switch kind {
	case "", "file":
		return source.Get("file"), true
	case "block":
		// Of Hyper-V it is a number.
		dev := source.Get("dev")
		return dev, strings.HasPrefix(dev, "/")
	case "volume":
		return "volume:" + source.Get("pool") + "/" + source.Get("volume"), true
	case "network":
		host := ""
		if h := source.Child("host"); h != nil {
			host = h.Get("name")
			host = host[strings.LastIndexByte(host, '@')+1:]
			if strings.Contains(host, ":") && host[0] != '[' { // IPv6, which is in brackets in a URL
				host = "[" + host + "]"
			}
			if port := h.Get("port"); port != "" {
				host += ":" + port
			}
		}
		// Without what may be a secret: who logs in, and the query.
		name, _, _ := strings.Cut(source.Get("name"), "?")
		return source.Get("protocol") + "://" + host + "/" + strings.TrimPrefix(name, "/"), true
	}
	return "", false
}

// formats are the words of <driver type> that have another here.
var formats = map[string]string{
	"aio": "raw", // of Xen
	"iso": "raw",
	"vpc": "vhd",
}

// format is that of a disk's file. QEMU's drivers of libvirt never guess: a
// guest can write what looks like another format.
func (r *reader) format(driver *xmltree.Element) string {
	word := ""
	if driver != nil {
		word = driver.Get("type")
	}
	if word == "" && (r.hypervisor == "kvm" || r.hypervisor == "qemu") {
		return "raw"
	}
	if f, ok := formats[word]; ok {
		return f
	}
	return word
}

// driveOptions notes what a user would miss.
func (r *reader) driveOptions(d *drive) {
	for _, c := range d.e.Children {
		switch name := c.Name.Local; name {
		case "source", "target", "address", "driver", "boot", "alias", "readonly", "backingStore", "acpi", "backenddomain":
		case "serial", "wwn", "vendor", "product":
			r.unread(r.field(d)+"/"+name, c.TextOf(), "it is not carried: a guest that looks for it finds another")
		case "auth":
			r.unread(r.field(d)+"/"+name, "", "a secret is never carried")
		case "blockio":
			r.blockIO(d, c)
		default:
			r.unread(r.field(d)+"/"+name, brief(c), "it is not carried")
		}
	}
}

// blockIO reads the size of the sectors that the guest sees. Where one logical
// sector is one physical, that is all there is to say.
func (r *reader) blockIO(d *drive, e *xmltree.Element) {
	logical := e.Get("logical_block_size")
	if logical == "4096" && !d.cdrom {
		d.sector = 4096
	}
	for _, a := range e.Attrs {
		switch {
		case a.Name.Local == "logical_block_size" && (d.sector != 0 || a.Value == "512"):
		case a.Name.Local == "physical_block_size" && (a.Value == logical || logical == "" && a.Value == "512"):
		default:
			r.unread(r.field(d)+"/blockio", a.Name.Local+" "+a.Value, "it is not carried")
		}
	}
}
