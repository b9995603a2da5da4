package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/machine"
)

// A shownMachine is a machine in JSON: that of machine show, and the machine of
// inspect.
type shownMachine struct {
	*machine.Machine
	GuestOS        string          `json:"guestOS"` // for people; of the names in the details the first
	GuestOSDetails machine.GuestOS `json:"guestOSDetails"`
	Properties     []shownProperty `json:"properties"`
	Unread         []machine.Loss  `json:"unread"` // what the descriptor has beside this
}

// A shownProperty is a property whose value is empty where it is a secret.
type shownProperty struct {
	machine.Property
	Withheld bool `json:"withheld"` // there is a value, and it is not shown
}

// showMachine returns what is shown of a machine. Its lists are never null.
func showMachine(m *machine.Machine) shownMachine {
	c := *m
	c.Controllers, c.Disks, c.CDROMs, c.NICs = list(m.Controllers), list(m.Disks), list(m.CDROMs), list(m.NICs)
	c.BootOrder, c.EULAs = list(m.BootOrder), list(m.EULAs)
	return shownMachine{
		Machine:        &c,
		GuestOS:        guestName(m.GuestOS),
		GuestOSDetails: m.GuestOS,
		Properties:     showProperties(m.Properties),
		Unread:         list(m.Unread),
	}
}

// showOnly is what is shown of the only machine of e, with what was not read
// and belongs to no machine.
func showOnly(e *machine.Envelope) shownMachine {
	shown := showMachine(e.Machines[0])
	shown.Unread = list(slices.Concat(shown.Unread, e.Unread))
	return shown
}

// showNone is what is shown of e, which has no machines: what it says of all.
func showNone(e *machine.Envelope) shownMachine {
	all := machine.Machine{ID: e.ID, Name: e.Name, Disks: e.Disks, EULAs: e.EULAs, Properties: e.Properties, Unread: e.Unread}
	if e.Product != nil {
		all.Product = *e.Product
	}
	return showMachine(&all)
}

func showProperties(properties []machine.Property) []shownProperty {
	shown := []shownProperty{}
	for _, p := range properties {
		withheld := secretIn(p) != ""
		if withheld {
			p.Value = ""
		}
		shown = append(shown, shownProperty{p, withheld})
	}
	return shown
}

// guestName is the name of an operating system that says most.
func guestName(os machine.GuestOS) string {
	for _, name := range []string{os.VMware, os.Osinfo, os.VirtualBox, os.Description} {
		if name != "" {
			return name
		}
	}
	if os.CIM != 0 {
		return strings.TrimSpace(fmt.Sprintf("CIM %d %s", os.CIM, os.Version))
	}
	return ""
}

// printEnvelope prints all machines, and what belongs to none of them.
func printEnvelope(w io.Writer, e *machine.Envelope, details bool) error {
	t := newMachineTable(w)
	for _, m := range e.Machines {
		t.machine(m, details)
	}
	t.collection(e, details)
	return t.Flush()
}

// A machineTable prints machines for people: a line for each thing that is
// said, with its name in front.
type machineTable struct {
	*tabwriter.Writer // keeps its first error for Flush
}

func newMachineTable(w io.Writer) machineTable {
	return machineTable{tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)}
}

// row prints a line, unless it says nothing.
func (t machineTable) row(name, format string, args ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	if text != "" {
		// printable turns tabs into spaces: the one between columns is added after it.
		fmt.Fprintf(t, "  %s\t%s\n", cell(name), cell(text))
	}
}

// cell returns the beginning of s, printable.
func cell(s string) string {
	const most = 200 // characters; descriptions have whole manuals in them
	n := 0
	for i := range s {
		if n++; n > most {
			return printable(s[:i]) + "..."
		}
	}
	return printable(s)
}

// machine prints m. With details, properties and what was not read have lines
// of their own; without, it says how many there are.
func (t machineTable) machine(m *machine.Machine, details bool) {
	title := cmp.Or(m.Name, m.ID)
	if m.ID != title {
		title += " (" + m.ID + ")"
	}
	fmt.Fprintf(t, "machine %s\n", cell(title))
	t.row("description", "%s", m.Description)
	t.row("architecture", "%s", m.Architecture)
	if m.CPUs > 0 {
		sockets := ""
		if m.CoresPerSocket > 0 {
			sockets = fmt.Sprintf(", %d per socket", m.CoresPerSocket)
		}
		t.row("CPUs", "%d%s", m.CPUs, sockets)
	}
	if m.Memory > 0 {
		t.row("memory", "%s", binaryBytes(m.Memory))
	}
	firmware := string(m.Firmware)
	if m.SecureBoot {
		firmware = cmp.Or(firmware, "unknown") + ", secure boot"
	}
	t.row("firmware", "%s", firmware)
	t.row("variables", "%s", m.NVRAM)
	t.row("TPM", "%s", m.TPM)
	t.row("guest OS", "%s", guestName(m.GuestOS))
	t.row("hardware", "%s", m.HardwareVersion)
	t.row("display", "%s", displayText(m.Display))
	for _, c := range m.Controllers {
		t.row("controller "+c.Name, "%s", cmp.Or(string(c.Model), string(c.Type)))
	}
	for _, d := range m.Disks {
		t.row("disk "+d.Name, "%s", diskText(d))
	}
	for _, c := range m.CDROMs {
		t.row("CD "+c.Name, "%s", joined(attachment(c.Controller, c.Bus, c.Unit), cmp.Or(c.File, "empty")))
	}
	for _, n := range m.NICs {
		t.row("NIC "+n.Name, "%s", joined(string(n.Type), prefixed("network ", n.Network), n.MAC))
	}
	var boot []string
	for _, b := range m.BootOrder {
		boot = append(boot, string(b))
	}
	t.row("boot order", "%s", joined(boot...))
	t.row("product", "%s", productText(m.Product))
	if len(m.EULAs) > 0 {
		t.row("EULAs", "%d", len(m.EULAs))
	}
	t.properties(m.Properties, details)
	t.unread(m.Unread, details)
}

// collection prints what belongs to no single machine of e.
func (t machineTable) collection(e *machine.Envelope, details bool) {
	product := ""
	if e.Product != nil {
		product = productText(*e.Product)
	}
	if e.ID == "" && e.Name == "" && product == "" && len(e.EULAs)+len(e.Properties)+len(e.Unread) == 0 {
		return
	}
	fmt.Fprintf(t, "%s\n", cell(strings.TrimSpace("all machines "+cmp.Or(e.Name, e.ID))))
	t.row("product", "%s", product)
	if len(e.EULAs) > 0 {
		t.row("EULAs", "%d", len(e.EULAs))
	}
	t.properties(e.Properties, details)
	t.unread(e.Unread, details)
}

// properties prints properties without their secrets.
func (t machineTable) properties(properties []machine.Property, details bool) {
	if !details {
		if len(properties) > 0 {
			t.row("properties", "%d", len(properties))
		}
		return
	}
	for _, p := range showProperties(properties) {
		value := cmp.Or(p.Value, "no default")
		if p.Withheld {
			value = "(not shown)"
		}
		t.row("property "+propertyName(p.Property), "%s", value)
	}
}

func (t machineTable) unread(losses []machine.Loss, details bool) {
	if !details {
		if len(losses) > 0 {
			t.row("not read", "%d; davit machine show lists them", len(losses))
		}
		return
	}
	for _, l := range losses {
		t.row("not read", "%s", lossText(l))
	}
}

func lossText(l machine.Loss) string {
	return strings.TrimSpace(l.Field+" "+l.Value) + ": " + l.Reason
}

func diskText(d machine.Disk) string {
	size, from := "", cmp.Or(d.File, "blank")
	if d.Capacity > 0 {
		size = binaryBytes(d.Capacity)
	}
	size = joined(size, sectorText(d.SectorSize))
	if d.Parent != "" {
		from += " on " + d.Parent
	}
	if d.ReadOnly {
		from += ", read-only"
	}
	return joined(attachment(d.Controller, d.Bus, d.Unit), size, from, d.Format)
}

// sectorText says what sectors a disk has, where they are not the usual ones.
func sectorText(size int) string {
	if size == 0 || size == disk.DefaultSector {
		return ""
	}
	return fmt.Sprintf("sectors of %d bytes", size)
}

// attachment is where a device is attached: "scsi0:1", or the bus where it has no
// controllers.
func attachment(controller string, bus machine.Bus, unit int) string {
	if controller == "" {
		return string(bus)
	}
	return fmt.Sprintf("%s:%d", controller, unit)
}

func displayText(d machine.Display) string {
	var memory, monitors string
	if d.Memory > 0 {
		memory = binaryBytes(d.Memory)
	}
	if d.Monitors > 1 { // one is what every machine has
		monitors = fmt.Sprintf("%d monitors", d.Monitors)
	}
	return joined(d.Type, memory, monitors)
}

func productText(p machine.Product) string {
	name := strings.TrimSpace(p.Name + " " + cmp.Or(p.FullVersion, p.Version))
	return joined(name, p.Vendor, p.URL)
}

// joined is what there is of parts, with commas.
func joined(parts ...string) string {
	var said []string
	for _, p := range parts {
		if p != "" {
			said = append(said, p)
		}
	}
	return strings.Join(said, ", ")
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// binaryBytes is n in units of 1024, in which memory and virtual disks come:
// exact where that takes few digits.
func binaryBytes(n int64) string {
	for _, u := range []struct {
		name string
		size int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size && n%u.size == 0 || n >= 10*u.size {
			return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(n)/float64(u.size)), ".0") + " " + u.name
		}
	}
	return fmt.Sprintf("%d B", n)
}
