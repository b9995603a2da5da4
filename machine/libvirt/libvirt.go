// Package libvirt reads and writes the domain XML of libvirt: one machine, as
// virsh dumpxml prints it and virsh define takes it.
//
// [Parse] takes a domain of any hypervisor that libvirt manages, but no
// container. [Write] makes one for KVM.
//
// https://libvirt.org/formatdomain.html, as of libvirt 11.10
package libvirt

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/xmltree"
)

// namespaceOsinfo is that of libosinfo's element in <metadata>, which says what
// the guest is. virt-install and virt-manager write it.
const namespaceOsinfo = "http://libosinfo.org/xmlns/libvirt/domain/1.0"

// Parse returns the machine of a domain. Names of files are what the domain
// has: a path, or for what is no file of the host a URL.
//
// A domain that libvirt refuses for what is read here is
// [machine.ErrMalformed]. A container, a snapshot, and a disk of which only
// libvirt can read the content (encrypted, or a slice of a file) are
// [machine.ErrUnsupported].
func Parse(data []byte) (*machine.Envelope, error) {
	root, err := xmltree.Parse(data)
	if err != nil {
		return nil, err
	}
	if root.Name.Space != "" || root.Name.Local != "domain" {
		return nil, notDomain(root)
	}
	r := reader{hypervisor: root.Get("type"), m: new(machine.Machine), top: make(map[string]*xmltree.Element)}
	switch r.hypervisor {
	case "":
		return nil, malformed(root, "no type")
	case "lxc", "openvz", "uml":
		return nil, unsupported(root, "type %s is no virtual machine", r.hypervisor)
	}
	for _, c := range root.Children {
		if err := r.element(c); err != nil {
			return nil, err
		}
	}
	for _, read := range []func() error{r.general, r.memory, r.cpus, r.os, r.features, r.metadata, r.clock, r.devices} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	return r.envelope(), nil
}

func notDomain(root *xmltree.Element) error {
	switch root.Name.Local {
	case "domainsnapshot", "domaincheckpoint", "domainbackup", "domstatus":
		return unsupported(root, "what describes a machine is a <domain>: virsh dumpxml --inactive prints it")
	}
	return malformed(root, "it begins with <%s> of %q, not with <domain>", root.Name.Local, root.Name.Space)
}

// A reader has what is read of a domain.
type reader struct {
	hypervisor string
	m          *machine.Machine
	files      []machine.File

	top   map[string]*xmltree.Element // of those below the root that are there once
	boots []boot
}

// element sorts what is directly below the root.
func (r *reader) element(e *xmltree.Element) error {
	name := e.Name.Local
	if e.Name.Space != "" {
		// Of one hypervisor: qemu:commandline is arguments for QEMU, which can
		// do anything to the host, and may hold a secret.
		r.unread(name, e.Name.Space, "an extension of one hypervisor is never carried")
		return nil
	}
	switch name {
	case "name", "title", "description", "metadata", "memory", "currentMemory", "maxMemory", "vcpu", "cpu", "os", "features", "clock", "devices":
		// libvirt takes the first of two, others the last.
		if r.top[name] != nil {
			return malformed(e, "a second one")
		}
		r.top[name] = e
	case "uuid", "genid", "on_poweroff", "on_reboot", "on_crash", "on_lockfailure", "pm", "perf", "vcpus", "seclabel",
		"resource", "iothreads", "iothreadids", "defaultiothread":
		// Of the host, or what every machine has.
	case "cputune", "memtune", "numatune", "blkiotune", "memoryBacking":
		r.unread(name, "", "what one host was tuned for is not carried")
	case "bootloader":
		r.unread(name, e.TextOf(), "a program of the host is never carried")
	case "bootloader_args":
	default:
		r.unread(name, brief(e), "it is not carried")
	}
	return nil
}

func (r *reader) general() error {
	name := r.top["name"]
	r.m.Name = name.TextOf()
	if r.m.Name == "" {
		return machine.Malformed("the domain has no <name>")
	}
	if strings.Contains(r.m.Name, "\n") {
		return malformed(name, "%q is two lines", r.m.Name)
	}
	switch r.hypervisor {
	case "kvm", "qemu", "xen", "test", "bhyve", "hvf":
		// For the others a name is no file.
		if strings.Contains(r.m.Name, "/") {
			return malformed(name, "%q has a \"/\", which libvirt takes in no name of %s", r.m.Name, r.hypervisor)
		}
	}
	r.m.ID = r.m.Name
	// A line for people. libvirt has nothing else that says what a machine is.
	r.m.Product.Name = r.top["title"].TextOf()
	r.m.Description = r.top["description"].TextOf()
	return nil
}

func (r *reader) memory() error {
	m := &r.m.Memory
	var err error
	if e := r.top["memory"]; e != nil {
		if *m, err = scaled(e, e.TextOf(), e.Get("unit")); err != nil {
			return err
		}
	} else {
		for _, cell := range r.top["cpu"].Child("numa").All("cell") {
			n, err := scaled(cell, cell.Get("memory"), cell.Get("unit"))
			if err != nil {
				return err
			}
			if n > machine.MaxMemory-*m {
				return malformed(cell, "more than 2^50 bytes of memory in all")
			}
			*m += n
		}
	}
	if *m == 0 {
		return machine.Malformed("the domain has no <memory>")
	}
	for _, name := range []string{"currentMemory", "maxMemory"} {
		e := r.top[name]
		if e == nil {
			continue
		}
		n, err := scaled(e, e.TextOf(), e.Get("unit"))
		if err != nil {
			return err
		}
		// libvirt takes no more than <memory> for the one, no less for the other.
		if n != 0 && (name == "currentMemory" && n < *m || name == "maxMemory" && n > *m) {
			r.unread(name, fmt.Sprint(n, " bytes"), "the machine has all of its memory from the start, and no more")
		}
	}
	return nil
}

// scaled reads a number of bytes as virScaleInteger does, for which KiB is the
// unit that is not said.
func scaled(e *xmltree.Element, number, unit string) (int64, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64)
	if err != nil {
		return 0, malformed(e, "%q is not an amount of memory", number)
	}
	factor := uint64(1024)
	switch u := strings.ToLower(unit); u {
	case "":
	case "b", "byte", "bytes":
		factor = 1
	default:
		power := strings.IndexByte("kmgtpe", u[0]) + 1
		base := uint64(1024)
		switch u[1:] {
		case "", "ib":
		case "b":
			base = 1000
		default:
			power = 0
		}
		if power == 0 {
			return 0, malformed(e, "unit %q is none of memory", unit)
		}
		factor = 1
		for range power {
			factor *= base // at most 2^60
		}
	}
	if n > machine.MaxMemory/factor {
		return 0, malformed(e, "%s of %q is more than 2^50 bytes", number, unit)
	}
	return int64(n * factor), nil
}

func (r *reader) cpus() error {
	r.m.CPUs = 1
	if e := r.top["vcpu"]; e != nil {
		n, err := number(e, "its number of CPUs", e.TextOf(), machine.MaxCPUs)
		if err != nil {
			return err
		}
		if n == 0 {
			return malformed(e, "no CPU")
		}
		r.m.CPUs = n
		if current := e.Get("current"); current != "" {
			c, err := number(e, "current", current, n)
			if err != nil {
				return err
			}
			if c != n {
				r.unread("vcpu/current", current, "the machine has all of its CPUs from the start")
			}
		}
		if set := e.Get("cpuset"); set != "" {
			r.unread("vcpu/cpuset", set, "what one host was tuned for is not carried")
		}
	}
	cpu := r.top["cpu"]
	if cpu == nil {
		return nil
	}
	for _, c := range cpu.Children {
		switch name := c.Name.Local; name {
		case "topology":
			if err := r.topology(c); err != nil {
				return err
			}
		case "model":
			if c.TextOf() != "" {
				r.unread("cpu/model", c.TextOf(), "the machine gets the CPU that its host has")
			}
		case "maxphysaddr", "vendor":
		default:
			r.unread("cpu/"+name, brief(c), "the machine gets the CPU that its host has")
		}
	}
	return nil
}

// topology counts whatever is in a socket as cores.
func (r *reader) topology(e *xmltree.Element) error {
	per := map[string]int{}
	all := 1
	for _, level := range []string{"sockets", "dies", "clusters", "cores", "threads"} {
		n := 1
		if s := e.Get(level); s != "" {
			var err error
			if n, err = number(e, level, s, machine.MaxCPUs); err != nil {
				return err
			}
		}
		if n == 0 || n > machine.MaxCPUs/all {
			return malformed(e, "%s %d: not a number of CPUs", level, n)
		}
		per[level] = n
		all *= n
	}
	if all < r.m.CPUs {
		return malformed(e, "%d CPUs in all, for a machine of %d", all, r.m.CPUs)
	}
	if all > r.m.CPUs {
		r.unread("cpu/topology", strconv.Itoa(all), fmt.Sprintf("it is for another number of CPUs than %d", r.m.CPUs))
		return nil
	}
	r.m.CoresPerSocket = all / per["sockets"]
	for _, level := range []string{"dies", "clusters", "threads"} {
		if per[level] > 1 {
			r.unread("cpu/topology/"+level, strconv.Itoa(per[level]), "they are counted as cores")
		}
	}
	return nil
}

func (r *reader) os() error {
	e := r.top["os"]
	kind := e.Child("type")
	switch t := kind.TextOf(); t {
	case "hvm":
	case "xen", "xenpvh", "linux":
		r.unread("os/type", t, "the machine becomes one with hardware of its own, for which its disk may lack the drivers")
	case "exe":
		return unsupported(kind, "a container is no virtual machine")
	case "":
		if r.hypervisor != "xen" { // has a bootloader instead
			return machine.Malformed("the domain has no <type> in <os>")
		}
	default:
		return malformed(kind, "%q is no kind of guest", t)
	}
	if kind != nil {
		r.m.Architecture = architecture(kind.Get("arch"))
		r.m.HardwareVersion = kind.Get("machine")
	}
	if e == nil {
		return nil
	}
	if err := r.firmware(e); err != nil {
		return err
	}
	if r.m.Firmware == "" && machine.IsX86(r.m.Architecture) && kind.TextOf() == "hvm" {
		r.m.Firmware = machine.BIOS
	}
	for _, c := range e.Children {
		switch name := c.Name.Local; name {
		case "boot":
			device, ok := bootDevices[c.Get("dev")]
			if !ok {
				return malformed(c, "%q is no kind of boot device", c.Get("dev"))
			}
			r.m.BootOrder = append(r.m.BootOrder, device)
		case "kernel", "initrd", "dtb":
			r.unread("os/"+name, c.TextOf(), "the machine starts from its disk, not from a kernel of the host")
		case "cmdline":
			r.unread("os/"+name, "", "the machine starts from its disk, not from a kernel of the host")
		case "acpi":
			r.unread("os/"+name, "", "a table of the host's firmware is not carried")
		}
	}
	return nil
}

// bootDevices are the words of <boot dev>.
var bootDevices = map[string]machine.BootDevice{
	"hd":      machine.BootDisk,
	"cdrom":   machine.BootCDROM,
	"network": machine.BootNetwork,
	"fd":      machine.BootFloppy,
}

func (r *reader) firmware(os *xmltree.Element) error {
	switch f := os.Get("firmware"); f {
	case "":
	case "efi":
		r.m.Firmware = machine.UEFI
	case "bios":
		r.m.Firmware = machine.BIOS
	default:
		return malformed(os, "firmware %q is neither efi nor bios", f)
	}
	for _, f := range os.Child("firmware").All("feature") {
		if f.Get("name") == "secure-boot" && f.Get("enabled") == "yes" {
			r.m.SecureBoot = true
		}
	}
	// Before libvirt 5.3 firmware was a file of the host. Which one that is
	// does not matter, its kind does.
	if loader := os.Child("loader"); loader != nil {
		if r.m.Firmware == "" {
			path := strings.ToLower(loader.TextOf())
			for _, word := range []string{"ovmf", "aavmf", "edk2", "efi"} {
				if loader.Get("type") == "pflash" || strings.Contains(path, word) {
					r.m.Firmware = machine.UEFI
				}
			}
		}
		if loader.Get("secure") == "yes" {
			r.m.SecureBoot = true
		}
	}
	nvram := os.Child("nvram")
	if nvram == nil {
		return nil
	}
	r.m.NVRAM = nvram.TextOf()
	if source := nvram.Child("source"); source != nil {
		if r.m.NVRAM = source.Get("file"); r.m.NVRAM == "" {
			r.unread("os/nvram", nvram.Get("type"), "it is no file")
		}
	}
	r.file(r.m.NVRAM)
	return nil
}

func (r *reader) features() error {
	e := r.top["features"]
	if e == nil {
		return nil
	}
	for _, c := range e.Children {
		switch name := c.Name.Local; name {
		case "acpi", "apic", "pae", "vmport", "smm", "hap", "gic":
			// What every machine has, or that follows from the rest.
		default:
			r.unread("features/"+name, brief(c), "it is not carried")
		}
	}
	return nil
}

func (r *reader) metadata() error {
	e := r.top["metadata"]
	if e == nil {
		return nil
	}
	for _, c := range e.Children {
		if c.Name.Space != namespaceOsinfo {
			r.unread("metadata/"+c.Name.Local, c.Name.Space, "notes of other programs are not carried")
			continue
		}
		os := c.Child("os")
		switch {
		case os == nil:
		case clean(os.Get("id")) != os.Get("id"):
			r.unread("metadata/os", os.Get("id"), "it has characters that cannot be seen, and names no system")
		default:
			r.m.GuestOS.Osinfo = os.Get("id")
		}
	}
	return nil
}

// clock is after metadata: what it should be is for the guest's system to say.
func (r *reader) clock() error {
	offset := "utc"
	if e := r.top["clock"]; e != nil && e.Get("offset") != "" {
		offset = e.Get("offset")
	}
	if offset != clockOf(r.m.GuestOS) {
		r.unread("clock", offset, "the machine's clock is "+clockOf(r.m.GuestOS))
	}
	return nil
}

// clockOf is the offset of the clock that the system expects: Windows takes the
// one of the hardware for local time.
func clockOf(g machine.GuestOS) string {
	g = g.Complete()
	if strings.HasPrefix(g.VMware, "win") || strings.HasPrefix(g.VirtualBox, "Windows") || strings.Contains(g.Osinfo, "//microsoft.com/win") {
		return "localtime"
	}
	return "utc"
}

// envelope is the machine with its disks and files.
func (r *reader) envelope() *machine.Envelope {
	e := &machine.Envelope{Machines: []*machine.Machine{r.m}, Files: r.files}
	for _, d := range r.m.Disks {
		d.Controller, d.Bus, d.Unit = "", "", 0
		e.Disks = append(e.Disks, d)
	}
	return e
}

// file adds a file to those of the machine, once.
func (r *reader) file(name string) {
	if name == "" {
		return
	}
	for _, f := range r.files {
		if f.Name == name {
			return
		}
	}
	r.files = append(r.files, machine.File{ID: fmt.Sprint("file", len(r.files)), Name: name, Size: -1})
}

func (r *reader) unread(field, value, reason string) {
	r.m.Unread = append(r.m.Unread, machine.Loss{Field: field, Value: value, Reason: reason})
}

// brief says what e is, by its attributes that never are a secret.
func brief(e *xmltree.Element) string {
	for _, name := range []string{"model", "type", "mode", "state", "name"} {
		if v := e.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// number reads digits, and nothing else.
func number(e *xmltree.Element, what, s string, limit int) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	switch {
	case errors.Is(err, strconv.ErrSyntax):
		return 0, malformed(e, "%s: %q is not a number", what, s)
	case err != nil || n > uint64(limit):
		return 0, malformed(e, "%s: %s is more than %d", what, s, limit)
	}
	return int(n), nil
}

func malformed(e *xmltree.Element, format string, args ...any) error {
	return machine.Malformed("line %d: <%s>: %w", e.Line, e.Name.Local, fmt.Errorf(format, args...))
}

func unsupported(e *xmltree.Element, format string, args ...any) error {
	return machine.Unsupported("line %d: <%s>: %w", e.Line, e.Name.Local, fmt.Errorf(format, args...))
}
