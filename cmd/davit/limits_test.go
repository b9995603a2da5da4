package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/delivery"
	"github.com/davit-oci/davit/machine/libvirt"
	"github.com/davit-oci/davit/machine/ovf"
	"github.com/davit-oci/davit/machine/vmx"
)

// What products take, as their documents and sources say it. It is not the table that is tested.
type productLimits struct {
	controllers map[string]int // by kind
	units       map[string]int // on one, from 0
	order       []string       // in which a BIOS looks for the disk that it starts from; nil: what is written says it
}

var vmwareLimits = productLimits{
	controllers: map[string]int{"ide": 2, "sata": 4, "scsi": 4, "nvme": 4},
	units:       map[string]int{"ide": 2, "sata": 30, "buslogic": 16, "lsilogic": 16, "lsisas1068": 16, "pvscsi": 65, "nvme": 15},
}

var productsLimits = map[string]productLimits{
	"ova": vmwareLimits,
	"ovf": vmwareLimits,
	"vmware": {
		controllers: vmwareLimits.controllers,
		units:       map[string]int{"ide": 2, "sata": 30, "buslogic": 16, "lsilogic": 16, "lsisas1068": 16, "pvscsi": 65, "nvme": 64},
	},
	"virtualbox": {
		controllers: map[string]int{"ide": 2, "sata": 1, "scsi": 1, "virtio-scsi": 1, "nvme": 1},
		units:       map[string]int{"ide": 2, "sata": 30, "buslogic": 16, "lsilogic": 16, "lsisas1068": 8, "virtio-scsi": 1, "nvme": 1},
		order:       []string{"ide", "sata", "scsi", "nvme"},
	},
	"libvirt": {
		controllers: map[string]int{"ide": 2, "sata": 100, "scsi": 100, "usb": 100, "virtio": 1},
		units:       map[string]int{"ide": 2, "sata": 6, "lsilogic": 7, "lsisas1068": 8, "pvscsi": 64, "virtio-scsi": 100, "usb": 4096, "virtio": 4096},
	},
	"hyperv": {
		controllers: map[string]int{"ide": 2, "scsi": 4},
		units:       map[string]int{"ide": 2, "scsi": 64},
	},
}

// A writtenDrive is a disk or a CD drive as a descriptor has it.
type writtenDrive struct {
	name   string // of a disk: that of its file, or of the disk
	bus    string
	model  string // of SCSI
	number int
	unit   int
}

func (d writtenDrive) place() string { return fmt.Sprintf("%s%d:%d", d.bus, d.number, d.unit) }

func (d writtenDrive) controller() string { return fmt.Sprintf("%s%d", d.bus, d.number) }

// kind is the key of units.
func (d writtenDrive) kind() string {
	if d.bus == "scsi" && d.model != "" {
		return d.model
	}
	return d.bus
}

// writtenMachine is what one of the descriptors says of a machine's drives.
type writtenMachine struct {
	controllers map[string]string // kind by name
	disks, cds  []writtenDrive
}

// ovfItems reads an OVF as an importer does that knows no extension: by its items.
func ovfItems(t *testing.T, target string, data []byte) (m writtenMachine) {
	t.Helper()
	var doc struct {
		Items []struct {
			Type    int    `xml:"ResourceType"`
			SubType string `xml:"ResourceSubType"`
			ID      string `xml:"InstanceID"`
			Address string
			Parent  string
			Unit    int    `xml:"AddressOnParent"`
			Host    string `xml:"HostResource"`
		} `xml:"VirtualSystem>VirtualHardwareSection>Item"`
	}
	if err := xml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	m.controllers = make(map[string]string)
	controllers := make(map[string]writtenDrive)
	lastIDE := -1
	for _, i := range doc.Items {
		subtype := strings.ToLower(i.SubType)
		c := writtenDrive{bus: map[int]string{5: "ide", 6: "scsi", 20: "sata", 23: "usb"}[i.Type]}
		switch {
		case c.bus == "":
			continue
		case strings.Contains(subtype, "nvme"):
			c.bus = "nvme"
		case strings.Contains(subtype, "virtio"):
			c.bus, c.model = "scsi", "virtio-scsi"
		case c.bus == "scsi":
			c.model = map[string]string{"virtualscsi": "pvscsi", "lsilogicsas": "lsisas1068"}[subtype]
			if c.model == "" {
				c.model = subtype
			}
		}
		c.number, _ = strconv.Atoi(i.Address)
		if _, twice := m.controllers[c.controller()]; twice && c.bus != "usb" {
			t.Errorf("two controllers %s", c.controller())
		}
		if c.bus == "ide" {
			if c.number < lastIDE && target == "virtualbox" { // which takes the first for the primary
				t.Errorf("channels of IDE in another order")
			}
			lastIDE = c.number
		}
		m.controllers[c.controller()] = c.bus
		if c.model == "virtio-scsi" {
			m.controllers[c.controller()] = c.model
		}
		controllers[i.ID] = c
	}
	for _, i := range doc.Items {
		if i.Type != 17 && i.Type != 15 {
			continue
		}
		d, ok := controllers[i.Parent]
		if !ok {
			t.Errorf("a drive on %q, which is no controller", i.Parent)
		}
		d.unit, d.name = i.Unit, strings.TrimPrefix(i.Host, "ovf:/disk/")
		if i.Type == 17 {
			m.disks = append(m.disks, d)
		} else {
			m.cds = append(m.cds, d)
		}
	}
	return m
}

// ofModel is what a reader of ours says.
func ofModel(r *machine.Machine) (m writtenMachine) {
	m.controllers = make(map[string]string)
	drive := func(name, controller string, bus machine.Bus, unit int) writtenDrive {
		d := writtenDrive{name: name, bus: string(bus), unit: unit}
		for _, c := range r.Controllers {
			if c.Name == controller {
				d.number, d.model = c.Number, string(c.Model)
			}
		}
		return d
	}
	for _, c := range r.Controllers {
		m.controllers[c.Name] = string(c.Type)
	}
	for _, d := range r.Disks {
		m.disks = append(m.disks, drive(d.File, d.Controller, d.Bus, d.Unit))
	}
	for _, c := range r.CDROMs {
		m.cds = append(m.cds, drive("", c.Controller, c.Bus, c.Unit))
	}
	return m
}

var (
	hypervDisk = regexp.MustCompile(`Add-VMHardDiskDrive -VM \$vm -ControllerType (\w+) -ControllerNumber (\d+) -ControllerLocation (\d+) -Path \(Join-Path \$PSScriptRoot '([^']+)'`)
	hypervCD   = regexp.MustCompile(`Add-VMDvdDrive -VM \$vm -ControllerNumber (\d+) -ControllerLocation (\d+)`)
)

func ofScript(script string, generation2 bool) (m writtenMachine) {
	m.controllers = make(map[string]string)
	drive := func(bus, number, unit, name string) writtenDrive {
		d := writtenDrive{name: name, bus: strings.ToLower(bus)}
		d.number, _ = strconv.Atoi(number)
		d.unit, _ = strconv.Atoi(unit)
		m.controllers[d.controller()] = d.bus
		return d
	}
	for _, f := range hypervDisk.FindAllStringSubmatch(script, -1) {
		m.disks = append(m.disks, drive(f[1], f[2], f[3], f[4]))
	}
	for _, f := range hypervCD.FindAllStringSubmatch(script, -1) {
		bus := "ide"
		if generation2 {
			bus = "scsi"
		}
		m.cds = append(m.cds, drive(bus, f[1], f[2], ""))
	}
	return m
}

// readWritten reads a descriptor for a target.
func readWritten(t *testing.T, target string, data []byte, generation2 bool) writtenMachine {
	t.Helper()
	var e *machine.Envelope
	var err error
	switch target {
	case "hyperv":
		return ofScript(string(data), generation2)
	case "vmware":
		e, err = vmx.Parse(data)
	case "libvirt":
		e, err = libvirt.Parse(data)
	default:
		m := ovfItems(t, target, data)
		// Our own reader finds the same without the extension.
		bare := regexp.MustCompile(`(?s)<davit:Machine.*</davit:Machine>`).ReplaceAll(data, nil)
		if e, err = ovf.Parse(bare); err == nil {
			for i, d := range ofModel(e.Machines[0]).disks {
				if d.place() != m.disks[i].place() {
					t.Errorf("disk %d is at %s, and is read at %s", i, m.disks[i].place(), d.place())
				}
			}
			return m
		}
	}
	if err != nil {
		t.Fatalf("what was written is not read: %v\n%s", err, data)
	}
	return ofModel(e.Machines[0])
}

// randomDrives is a machine with controllers and drives of all kinds, as readers make it.
func randomDrives(r *rand.Rand) *machine.Envelope {
	m := &machine.Machine{ID: "m", Name: "m", CPUs: 1, Memory: 1 << 30}
	if r.IntN(2) == 0 {
		m.Firmware = machine.UEFI
	}
	if r.IntN(3) == 0 {
		m.GuestOS.VMware = "windows2019srv_64Guest"
	}
	buses := []machine.Bus{machine.IDE, machine.SATA, machine.SCSI, machine.SCSI, machine.NVMe, machine.USB}
	models := []machine.ControllerModel{"", machine.LSILogic, machine.LSILogic, machine.LSILogicSAS, machine.BusLogic, machine.PVSCSI, machine.VirtioSCSI, "megasas"}
	model := models[r.IntN(len(models))]
	for range r.IntN(9) {
		c := machine.Controller{Type: buses[r.IntN(len(buses))], Number: r.IntN(3)}
		if r.IntN(6) == 0 {
			c.Number = r.IntN(20)
		}
		switch c.Type {
		case machine.SCSI:
			if c.Model = model; r.IntN(3) == 0 {
				c.Model = models[r.IntN(len(models))]
			}
		case machine.SATA:
			c.Model = machine.AHCI
		}
		c.Name = fmt.Sprint(c.Type, c.Number)
		if !slices.ContainsFunc(m.Controllers, func(o machine.Controller) bool { return o.Name == c.Name }) {
			m.Controllers = append(m.Controllers, c)
		}
	}
	taken := make(map[string]bool)
	where := func() (string, machine.Bus, int) {
		if len(m.Controllers) == 0 || r.IntN(4) == 0 {
			bus := []machine.Bus{"", machine.Virtio, machine.USB, machine.SD, machine.Xen}[r.IntN(5)]
			for unit := 0; ; unit++ {
				if place := fmt.Sprint(bus, unit); !taken[place] {
					taken[place] = true
					return "", bus, unit
				}
			}
		}
		c := m.Controllers[r.IntN(len(m.Controllers))]
		unit := r.IntN(4)
		if c.Type == machine.IDE {
			unit = r.IntN(2)
		} else if r.IntN(4) == 0 {
			unit = r.IntN(70)
		}
		for ; ; unit++ {
			if place := fmt.Sprint(c.Name, unit); !taken[place] {
				taken[place] = true
				return c.Name, c.Type, unit
			}
		}
	}
	e := &machine.Envelope{Machines: []*machine.Machine{m}}
	disks := 1 + r.IntN(8)
	if r.IntN(4) == 0 {
		disks = 1 + r.IntN(90)
	}
	for i := range disks {
		d := machine.Disk{Name: fmt.Sprint("d", i), Capacity: 1 << 20, File: fmt.Sprintf("d%d.img", i), Format: "raw"}
		e.Disks = append(e.Disks, d)
		d.Controller, d.Bus, d.Unit = where()
		m.Disks = append(m.Disks, d)
	}
	for range r.IntN(4) {
		var cd machine.CDROM
		cd.Controller, cd.Bus, cd.Unit = where()
		m.CDROMs = append(m.CDROMs, cd)
	}
	return e
}

// checkLimits returns what a product would not take of the descriptor for it, and what was moved in silence.
func checkLimits(target string, e *machine.Envelope, got writtenMachine, losses []machine.Loss) (faults []string) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	limits, m := productsLimits[target], e.Machines[0]
	has := make(map[string]int)
	for _, kind := range got.controllers {
		has[kind]++
	}
	for kind, n := range has {
		if most, ok := limits.controllers[kind]; ok && n > most {
			fault("%d controllers of %s, and there can be %d", n, kind, most)
		}
	}
	taken := make(map[string]bool)
	for _, d := range slices.Concat(got.disks, got.cds) {
		most, ok := limits.units[d.kind()]
		switch {
		case !ok:
			fault("a drive at %s of %s, where there can be none", d.place(), d.kind())
		case d.unit < 0 || d.unit >= most:
			fault("a drive at %s of %s, where there are %d", d.place(), d.kind(), most)
		case d.bus == "scsi" && d.unit == 7 && target != "libvirt" && target != "hyperv":
			fault("a drive at %s, which is the controller's own", d.place())
		}
		if taken[d.place()] && d.bus != "usb" {
			fault("two drives at %s", d.place())
		}
		taken[d.place()] = true
	}
	for _, d := range got.cds {
		if d.bus == "nvme" {
			fault("a CD drive at %s", d.place())
		}
	}

	told := func(field string) bool {
		return slices.ContainsFunc(losses, func(l machine.Loss) bool {
			return (l.Field == field || l.Field == field+".bus" || l.Field == field+".unit") && l.Reason != ""
		})
	}
	asked := func(controller string, bus machine.Bus, unit int) string {
		d := writtenDrive{bus: string(bus), number: -1, unit: unit}
		for _, c := range m.Controllers {
			if c.Name == controller {
				d.number = c.Number
			}
		}
		if bus == machine.Virtio {
			d.number = 0
		}
		return d.place()
	}
	moved := false
	if len(got.disks) != len(m.Disks) {
		fault("%d disks, of %d", len(got.disks), len(m.Disks))
		return faults
	}
	for i, d := range m.Disks {
		field, g := fmt.Sprintf("disks[%d]", i), got.disks[i]
		if name, _, _ := strings.Cut(machine.Base(g.name), "."); name != d.Name {
			fault("%s is %s, and not %s", field, g.name, d.Name)
		}
		want := asked(d.Controller, d.Bus, d.Unit)
		if target == "hyperv" && g.bus == "scsi" && d.Bus == machine.SCSI || target == "libvirt" && g.bus == "usb" && d.Bus == machine.USB {
			continue // of which the guest sees no units
		}
		if g.place() != want {
			moved = true
			if !told(field) {
				fault("%s was at %s and is at %s, in silence", field, want, g.place())
			}
		} else if told(field) {
			fault("%s is said to have moved, and is at %s as before", field, want)
		}
	}
	for i, cd := range m.CDROMs {
		field := fmt.Sprintf("cdroms[%d]", i)
		if want := asked(cd.Controller, cd.Bus, cd.Unit); cd.Bus != "" && cd.Bus != machine.SCSI && cd.Bus != machine.USB && !told(field) &&
			!slices.ContainsFunc(got.cds, func(g writtenDrive) bool { return g.place() == want }) {
			fault("%s was at %s and is elsewhere, in silence", field, want)
		}
	}
	if limits.order != nil && moved && m.Firmware != machine.UEFI {
		first := slices.MinFunc(got.disks, func(a, b writtenDrive) int {
			if a.bus != b.bus {
				return slices.Index(limits.order, a.bus) - slices.Index(limits.order, b.bus)
			}
			if a.number != b.number {
				return a.number - b.number
			}
			return a.unit - b.unit
		})
		stays := first.place() == asked(m.Disks[0].Controller, m.Disks[0].Bus, m.Disks[0].Unit)
		if i := slices.Index(got.disks, first); i != 0 && !stays && (told("disks[0]") || told(fmt.Sprintf("disks[%d]", i))) {
			fault("it starts from disks[%d] at %s, and not from the first", i, first.place())
		}
	}
	return faults
}

// A descriptor has no more controllers and drives than its product takes, every disk is in it once, and what is not at its place is
// told: of any machine, for every target.
func TestTargetLimits(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 7))
	for n := range 200 {
		e := randomDrives(r)
		for _, target := range delivery.Targets() {
			placed, _ := target.Place(e)
			files, losses, err := target.Describe(placed, "/srv")
			if errors.Is(err, machine.ErrUnsupported) && len(e.Machines[0].Disks) > 30 {
				continue
			}
			if err != nil {
				t.Fatalf("machine %d for %s: %v", n, target.Name, err)
			}
			got := readWritten(t, target.Name, files[0].Data, e.Machines[0].Firmware == machine.UEFI)
			if faults := checkLimits(target.Name, e, got, losses); len(faults) > 0 {
				t.Fatalf("machine %d for %s:\n%s\nlosses %v\n%s", n, target.Name, strings.Join(faults, "\n"), losses, files[0].Data)
			}
		}
	}
}
