package libvirt

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/davit-oci/davit/machine"
)

// WriteOptions are settings of [Write].
type WriteOptions struct {
	Dir string // absolute path on libvirt's host of the folder with the files; needed if there are any
}

const (
	maxName       = 200     // bytes; libvirt makes names of files from it
	defaultMemory = 1 << 30 // bytes, of a machine that does not say how much it has
)

// Write returns the domain of a machine, which virsh define takes as it is, and
// what of the machine it does not say. It is for KVM, of libvirt 8 or later, on
// the machine's architecture. No path is in it but those of the machine's files, which are in o.Dir.
//
// What the machine does not say is what virt-install chooses, but that a disk of
// no bus is where the machine's others are. Networks are the host's own: every card is in the one that libvirt calls default, as a name
// from elsewhere is that of no network here, or of one that the machine has no
// business in.
//
// It is an error if a file's name is not plain, if the format of a disk's file
// is not said or is none that libvirt has, if a number is none that a machine
// has, and if there are more drives than places for them.
func Write(m *machine.Machine, o WriteOptions) ([]byte, []machine.Loss, error) {
	w := writer{m: m, o: o}
	if err := w.check(); err != nil {
		return nil, nil, err
	}
	w.choosePlatform()
	if err := w.plan(); err != nil {
		return nil, nil, err
	}

	w.put(0, "<domain type='kvm'>")
	w.general()
	w.resources()
	w.os()
	w.features()
	w.cpu()
	w.clock()
	w.put(1, "<devices>")
	w.drives()
	w.controllers()
	w.nics()
	w.rest()
	w.put(1, "</devices>")
	w.put(0, "</domain>")
	w.others()
	return w.b.Bytes(), w.losses, nil
}

// A writer has what is written of a machine.
type writer struct {
	m      *machine.Machine
	o      WriteOptions
	b      bytes.Buffer
	losses []machine.Loss

	platform
	older   bool // chip set of PCs, not q35
	planned []planned
	kept    []machine.Controller            // those that are written
	scsi    map[int]machine.ControllerModel // of those of SCSI, by number
}

// markup is what put writes as it is.
type markup string

// put writes a line. Args are escaped, for texts as for attributes.
func (w *writer) put(indent int, format string, args ...any) {
	for i, a := range args {
		if _, ok := a.(markup); ok {
			continue
		}
		var b strings.Builder
		_ = xml.EscapeText(&b, []byte(fmt.Sprint(a))) // a Builder takes all
		args[i] = b.String()
	}
	w.b.WriteString(strings.Repeat("  ", indent))
	fmt.Fprintf(&w.b, format, args...)
	w.b.WriteByte('\n')
}

func (w *writer) lose(field string, value any, reason string) {
	w.losses = append(w.losses, machine.Loss{Field: field, Value: fmt.Sprint(value), Reason: reason})
}

// check refuses what no reader gives, and names that are dangerous.
func (w *writer) check() error {
	m := w.m
	switch {
	case m.CPUs < 0 || m.CPUs > machine.MaxCPUs || m.CoresPerSocket < 0:
		return machine.Malformed("%d CPUs, %d in a socket", m.CPUs, m.CoresPerSocket)
	case m.Memory < 0 || m.Memory > machine.MaxMemory:
		return machine.Malformed("%d bytes of memory", m.Memory)
	case len(m.Disks)+len(m.CDROMs) > machine.MaxDisks || len(m.NICs) > machine.MaxDisks || len(m.Controllers) > machine.MaxDisks:
		return machine.Malformed("more than %d devices of a kind", machine.MaxDisks)
	}
	controllers := make(map[string]bool)
	slots := make(map[slot]bool)
	for i, c := range m.Controllers {
		at := slot{bus: c.Type, number: c.Number}
		if controllers[c.Name] || slots[at] {
			return machine.Malformed("controllers[%d]: a second %s", i, c.Name)
		}
		if c.Number < 0 {
			return machine.Malformed("controllers[%d]: number %d", i, c.Number)
		}
		controllers[c.Name], slots[at] = true, true
	}
	type file struct{ field, name string }
	var files []file
	for i, d := range m.Disks {
		field := fmt.Sprintf("disks[%d]", i)
		if d.SectorSize != 0 && d.SectorSize != 4096 {
			return machine.Malformed("%s: sectors of %d bytes", field, d.SectorSize)
		}
		if d.Controller != "" && !controllers[d.Controller] {
			return machine.Malformed("%s: no controller %q", field, d.Controller)
		}
		if d.File != "" {
			if driverType(d.Format) == "" {
				// Never left to be guessed from what a guest can write.
				return machine.Unsupported("%s: libvirt has no disks of format %q", field, d.Format)
			}
			files = append(files, file{field, d.File})
		}
	}
	for i, c := range m.CDROMs {
		field := fmt.Sprintf("cdroms[%d]", i)
		if c.Controller != "" && !controllers[c.Controller] {
			return machine.Malformed("%s: no controller %q", field, c.Controller)
		}
		if c.File != "" {
			files = append(files, file{field, c.File})
		}
	}
	if m.NVRAM != "" {
		files = append(files, file{"nvram", m.NVRAM})
	}
	for _, f := range files {
		if !machine.IsPlainName(f.name) || clean(f.name) != f.name {
			return machine.Malformed("%s: %q is not a plain name of a file", f.field, f.name)
		}
	}
	if len(files) > 0 && (!path.IsAbs(w.o.Dir) || holdable(w.o.Dir) != w.o.Dir) {
		return fmt.Errorf("folder %q: libvirt needs an absolute path that XML can hold", w.o.Dir)
	}
	return nil
}

// clean is s with a "-" for what is no character of XML, for what would end
// a line, and for what cannot be seen: libvirt's programs print names as they
// are.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !machine.Visible(r) {
			return '-'
		}
		return r
	}, holdable(s))
}

// holdable is s with a "-" for what is no character of XML, and for what would
// end a line.
func holdable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError || r == 0xfffe || r == 0xffff || r == '\u2028' || r == '\u2029' {
			return '-'
		}
		return r
	}, strings.ToValidUTF8(s, "-"))
}

// cleanText is clean for several lines.
func cleanText(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		parts := strings.Split(strings.TrimSuffix(l, "\r"), "\t")
		for n, p := range parts {
			parts[n] = clean(p)
		}
		lines[i] = strings.Join(parts, "\t")
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// driverType is libvirt's word for the format of a disk's file, "" if it has
// none: QEMU reads VHDX, but libvirt cannot say so. How a qcow2 is compressed
// is nothing to either.
func driverType(format string) string {
	kind, _, _ := strings.Cut(format, ":")
	switch kind {
	case "raw", "qcow2", "vmdk", "vdi":
		return kind
	case "vhd":
		return "vpc"
	}
	return ""
}

func (w *writer) general() {
	w.put(1, "<name>%s</name>", w.name())
	if title := strings.TrimSpace(w.m.Product.Name); title != "" {
		line := strings.TrimSpace(clean(title))
		if line != title {
			w.lose("product.name", title, "a title is one line of text: "+line)
		}
		w.put(1, "<title>%s</title>", line)
	}
	if d := strings.TrimSpace(w.m.Description); d != "" {
		text := cleanText(d)
		if text != strings.ReplaceAll(d, "\r\n", "\n") {
			w.lose("description", "", "it has characters that XML has not, or that cannot be seen")
		}
		var b bytes.Buffer
		_ = xml.EscapeText(&b, []byte(text)) // a Buffer takes all
		// Lines stay lines, for people.
		fmt.Fprintf(&w.b, "  <description>%s</description>\n", strings.NewReplacer("&#xA;", "\n", "&#x9;", "\t").Replace(b.String()))
	}
	g := w.m.GuestOS.Complete()
	if g.Osinfo == "" || clean(g.Osinfo) != g.Osinfo {
		for _, word := range []string{g.Osinfo, g.VMware, g.VirtualBox, g.Description} {
			if word != "" {
				w.lose("guestOS", word, "libosinfo has no word for it that is known here")
				break
			}
		}
		return
	}
	w.put(1, "<metadata>")
	w.put(2, "<libosinfo:libosinfo xmlns:libosinfo='%s'>", namespaceOsinfo)
	w.put(3, "<libosinfo:os id='%s'/>", g.Osinfo)
	w.put(2, "</libosinfo:libosinfo>")
	w.put(1, "</metadata>")
}

// name is one that libvirt takes, for names of files as well.
func (w *writer) name() string {
	name := strings.TrimSpace(w.m.Name)
	if name == "" {
		name = strings.TrimSpace(w.m.ID)
	}
	name = strings.ReplaceAll(clean(name), "/", "-")
	if len(name) > maxName {
		cut := maxName
		for !utf8.RuneStart(name[cut]) {
			cut--
		}
		name = name[:cut]
	}
	name = strings.TrimSpace(name)
	switch name {
	case "", ".", "..":
		name = "vm"
	}
	if w.m.Name != "" && name != w.m.Name { // a machine without one has to be called something
		w.lose("name", w.m.Name, fmt.Sprintf("not a name for libvirt: %q is written", name))
	}
	return name
}

func (w *writer) resources() {
	memory := w.m.Memory
	if memory == 0 {
		memory = defaultMemory
		w.lose("memory", 0, "how much it needs is not said: 1 GiB is written")
	}
	kib := (memory + 1023) / 1024
	if kib*1024 != memory {
		w.lose("memory", memory, fmt.Sprintf("libvirt counts in KiB: %d are written", kib))
	}
	w.put(1, "<memory unit='KiB'>%v</memory>", kib)
	cpus := w.m.CPUs
	if cpus == 0 {
		cpus = 1
		w.lose("cpus", 0, "how many it needs is not said: 1 is written")
	}
	w.put(1, "<vcpu>%v</vcpu>", cpus)
}

// machineType is the chip set. Versions of QEMU's are not carried, as not every
// host has them.
func (w *writer) machineType() string {
	if w.older {
		return "pc"
	}
	return w.chipSet
}

func (w *writer) os() {
	m := w.m
	uefi := w.uefi()
	var firmware markup
	if uefi {
		firmware = " firmware='efi'"
	}
	if m.SecureBoot && !uefi {
		w.lose("secureBoot", true, "it needs UEFI")
	}
	w.put(1, "<os%s>", firmware)
	w.put(2, "<type arch='%s' machine='%s'>hvm</type>", w.arch, w.machineType())
	if m.HardwareVersion != "" && m.HardwareVersion != w.machineType() {
		w.lose("hardwareVersion", m.HardwareVersion, "the machine is QEMU's "+w.machineType())
	}
	if uefi {
		enabled := "no"
		if m.SecureBoot {
			enabled = "yes"
		}
		w.put(2, "<firmware>")
		if m.SecureBoot { // without keys it would start whatever there is
			w.put(3, "<feature enabled='yes' name='enrolled-keys'/>")
		}
		w.put(3, "<feature enabled='%s' name='secure-boot'/>", enabled)
		w.put(2, "</firmware>")
	}
	if m.NVRAM != "" {
		// Those of other products are in formats of their own, with which
		// QEMU's firmware does not start.
		if uefi && strings.HasSuffix(strings.ToLower(m.NVRAM), ".fd") {
			w.put(2, "<nvram>%s</nvram>", path.Join(w.o.Dir, m.NVRAM))
		} else {
			w.lose("nvram", m.NVRAM, "QEMU's firmware does not read it: the machine starts with variables of its own, from \\EFI\\BOOT")
		}
	}
	var done []machine.BootDevice
	for i, device := range m.BootOrder {
		field := fmt.Sprintf("bootOrder[%d]", i)
		word := ""
		for libvirts, ours := range bootDevices {
			if ours == device {
				word = libvirts
			}
		}
		switch {
		case word == "":
			w.lose(field, device, "libvirt has no such device")
		case slices.Contains(done, device):
			w.lose(field, device, "it is there a second time")
		default:
			done = append(done, device)
			w.put(2, "<boot dev='%s'/>", word)
		}
	}
	w.put(1, "</os>")
}

// uefi says whether UEFI starts the machine.
func (w *writer) uefi() bool {
	f := w.m.Firmware
	switch {
	case w.firmware != "": // and nothing else
		if f != "" && f != machine.UEFI {
			w.lose("firmware", f, fmt.Sprintf("QEMU's %s has UEFI", w.chipSet))
		}
		return true
	case !w.platform.pc:
		if f != "" {
			w.lose("firmware", f, fmt.Sprintf("QEMU's %s has firmware of its own", w.chipSet))
		}
		return false
	case f != "" && f != machine.BIOS && f != machine.UEFI:
		w.lose("firmware", f, "libvirt has BIOS and UEFI: BIOS is written")
	}
	return f == machine.UEFI
}

func (w *writer) features() {
	if len(w.platform.features) == 0 {
		return
	}
	w.put(1, "<features>")
	for _, f := range w.platform.features {
		w.put(2, "<%s/>", f)
	}
	w.put(1, "</features>")
}

func (w *writer) cpu() {
	cores, cpus := w.m.CoresPerSocket, w.m.CPUs
	if cores != 0 && cpus%cores == 0 && cpus != 0 {
		// The CPU of the host, as far as QEMU can name it: the default is one
		// that new systems do not start on.
		w.put(1, "<cpu mode='%s'>", w.platform.cpu)
		w.put(2, "<topology sockets='%v' cores='%v' threads='1'/>", cpus/cores, cores)
		w.put(1, "</cpu>")
		return
	}
	if cores != 0 {
		w.lose("coresPerSocket", cores, fmt.Sprintf("%d CPUs are not whole sockets of it", cpus))
	}
	w.put(1, "<cpu mode='%s'/>", w.platform.cpu)
}

func (w *writer) clock() {
	if !w.platform.pc { // nor its timers
		w.put(1, "<clock offset='%s'/>", clockOf(w.m.GuestOS))
		return
	}
	w.put(1, "<clock offset='%s'>", clockOf(w.m.GuestOS))
	w.put(2, "<timer name='rtc' tickpolicy='catchup'/>")
	w.put(2, "<timer name='pit' tickpolicy='delay'/>")
	w.put(2, "<timer name='hpet' present='no'/>")
	w.put(1, "</clock>")
}

// cards are the types of network cards that QEMU has.
var cards = []machine.NICType{machine.E1000, machine.E1000E, machine.VMXNET3, machine.PCnet, machine.RTL8139, machine.VirtioNet}

func (w *writer) nics() {
	for i, n := range w.m.NICs {
		field := fmt.Sprintf("nics[%d]", i)
		w.put(2, "<interface type='network'>")
		if n.MAC != "" {
			if mac, err := parseMAC(n.MAC); err == nil {
				w.put(3, "<mac address='%s'/>", mac)
			} else {
				w.lose(field+".mac", n.MAC, "not an address of a card: libvirt makes one")
			}
		}
		if n.Network != "" && n.Network != "default" {
			w.lose(field+".network", n.Network, "networks are the host's: its network default is written")
		}
		w.put(3, "<source network='default'/>")
		card := n.Type
		if !slices.Contains(cards, card) || !w.pci {
			card = machine.VirtioNet
			if w.platform.pc {
				card = machine.E1000 // for which every system has a driver
			}
			if n.Type == machine.Flexible && w.platform.pc {
				card = machine.PCnet // as which it starts
			}
			if n.Type != "" && n.Type != card {
				w.lose(field+".type", n.Type, fmt.Sprintf("QEMU has no such card: %s is written", card))
			}
		}
		w.put(3, "<model type='%s'/>", card)
		w.put(2, "</interface>")
	}
}

// rest is what a person needs to see the machine, and its TPM.
func (w *writer) rest() {
	w.put(2, "<serial type='pty'/>")
	w.put(2, "<console type='pty'/>")
	switch model := w.platform.tpm; {
	case w.m.TPM == "":
	case !w.platform.pc && (w.m.TPM != machine.TPM20 || model == ""):
		w.lose("tpm", w.m.TPM, fmt.Sprintf("QEMU has no such TPM for %s", w.arch))
	case !w.platform.pc:
		w.put(2, "<tpm model='%s'>", model)
		w.put(3, "<backend type='emulator' version='2.0'/>")
		w.put(2, "</tpm>")
	case w.m.TPM == machine.TPM12:
		w.put(2, "<tpm model='tpm-tis'>")
		w.put(3, "<backend type='emulator' version='1.2'/>")
		w.put(2, "</tpm>")
	case w.m.TPM == machine.TPM20:
		w.put(2, "<tpm model='tpm-crb'>")
		w.put(3, "<backend type='emulator' version='2.0'/>")
		w.put(2, "</tpm>")
	default:
		w.lose("tpm", w.m.TPM, "libvirt has TPMs of versions 1.2 and 2.0")
	}
	// No port is open for it: libvirt hands it to its own clients.
	w.put(2, "<graphics type='vnc'>")
	w.put(3, "<listen type='none'/>")
	w.put(2, "</graphics>")
	w.video()
}

func (w *writer) video() {
	d := w.m.Display
	kind := d.Type
	known := kind == w.platform.video || kind == "virtio"
	if w.platform.pc {
		// With vmvga, Linux shows nothing since it asks for more than QEMU has.
		known = slices.Contains([]string{"vga", "cirrus", "qxl", "virtio", "bochs"}, kind)
	}
	if !known {
		kind = w.platform.video
		if d.Type != "" {
			w.lose("display.type", d.Type, fmt.Sprintf("not a card that works in QEMU: %s is written", kind))
		}
	}
	var attributes markup
	const MiB = 1 << 20
	switch {
	case d.Memory == 0:
	case d.Memory < MiB || d.Memory > 512*MiB || d.Memory&(d.Memory-1) != 0,
		kind == "cirrus" && (d.Memory < 4*MiB || d.Memory > 16*MiB):
		w.lose("display.memory", d.Memory, "not an amount that QEMU's cards have")
	default:
		attributes = markup(fmt.Sprintf(" vram='%d'", d.Memory>>10))
	}
	switch {
	case d.Monitors == 0:
	case d.Monitors != 1 && (d.Monitors < 0 || d.Monitors > 16 || kind != "qxl" && kind != "virtio"):
		w.lose("display.monitors", d.Monitors, "the graphics card has one")
	default:
		attributes += markup(fmt.Sprintf(" heads='%d'", d.Monitors))
	}
	w.put(2, "<video>")
	w.put(3, "<model type='%s'%s/>", kind, attributes)
	w.put(2, "</video>")
}

// others is what a domain has no words for.
func (w *writer) others() {
	p := w.m.Product
	for _, f := range []struct{ name, value string }{
		{"vendor", p.Vendor}, {"version", p.Version}, {"fullVersion", p.FullVersion}, {"url", p.URL}, {"vendorUrl", p.VendorURL}, {"appUrl", p.AppURL},
	} {
		if f.value != "" {
			w.lose("product."+f.name, f.value, "a domain does not say it")
		}
	}
	for i := range w.m.EULAs {
		w.lose(fmt.Sprintf("eulas[%d]", i), "", "a domain has no licence to agree to")
	}
	for i, p := range w.m.Properties {
		w.lose(fmt.Sprintf("properties[%d]", i), p.Key, "a domain has no properties for its guest")
	}
	for i, t := range w.m.Transport {
		w.lose(fmt.Sprintf("transport[%d]", i), t, "a domain has no properties for its guest")
	}
}
