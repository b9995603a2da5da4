package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/secret"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/ovf"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// machineFlags describe the machine of bare disks: by flags, or by a file.
type machineFlags struct {
	cpus     cpuCount
	memory   size
	firmware firmwareValue
	nics     nicValues
	file     string

	spec machineFile // what load has read
}

func (f *machineFlags) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Var(&f.cpus, "cpus", "`N` virtual CPUs of the machine (default 1)")
	flags.Var(&f.memory, "memory", "memory of the machine, `SIZE` (default 1G)")
	flags.Var(&f.firmware, "firmware", "`KIND` of firmware: bios, uefi, uefi-secure")
	flags.Var(&f.nics, "nic", "`TYPE[,network=NAME]` of a network card; again: one more. Types:\n"+nicTypeNames)
	flags.StringVar(&f.file, "machine-file", "", "`YAML` file that describes the machine, instead of these flags")
}

// machineFileHelp is how the help of a command describes the file.
const machineFileHelp = `The YAML of --machine-file has these members, all optional:

  name: web                      eula: text of the licence
  description: a web server      bus: sata     of all disks: sata, scsi, virtio, ide, nvme
  cpus: 4                        disks: [{name: disk0, bus: virtio}]
  coresPerSocket: 2              nics: [{type: vmxnet3, network: VM Network, mac: "00:50:56:00:00:01"}]
  memory: 4G                     bootOrder: [disk, cdrom, network, floppy]
  firmware: uefi                 product: {name, vendor, version, fullVersion, url, vendorUrl, appUrl}
  secureBoot: true               properties: [{key, type, value, label, description, category,
  tpm: "2.0"                                   class, instance, userConfigurable, password}]
  guestOS: debian12_64Guest      or the URL of libosinfo, or a description`

// given says whether there is a machine to describe.
func (f *machineFlags) given() bool { return f.file != "" || f.byFlags() }

func (f *machineFlags) byFlags() bool {
	return f.cpus != 0 || f.memory != 0 || f.firmware != "" || len(f.nics) > 0
}

// load checks the flags and reads the file, if one is given. What is wrong with
// it is a usage error. secrets learns what is in the file, which errors quote.
func (f *machineFlags) load(secrets *secret.Filter) error {
	if f.file == "" {
		f.spec = machineFile{CPUs: int(f.cpus), Memory: f.memory, Firmware: f.firmware, NICs: f.nics}
		return f.spec.check("--")
	}
	if f.byFlags() {
		return usagef("--machine-file describes the machine: --cpus, --memory, --firmware and --nic cannot be given as well")
	}
	spec, err := readMachineFile(f.file, secrets)
	if err != nil {
		return err
	}
	f.spec = spec
	return f.spec.check(f.file + ": ")
}

// envelope returns the machine of the given disks, which have names and
// capacities. It is nil if no flag describes it. load comes before it.
func (f *machineFlags) envelope(disks []machine.Disk) (*machine.Envelope, error) {
	if !f.given() {
		return nil, nil
	}
	m := f.spec.machine()
	buses, err := f.spec.buses(disks)
	if err != nil {
		return nil, usagef("%s: %w", f.file, err)
	}
	e := &machine.Envelope{Machines: []*machine.Machine{m}}
	next := make(map[machine.Bus]int)
	for i, d := range disks {
		file := machine.File{ID: fmt.Sprint("file", i), Name: fmt.Sprintf("disk%d.img", i), Size: -1}
		d := machine.Disk{Name: d.Name, Capacity: d.Capacity, File: file.Name, Format: string(disk.Raw)} // as in the OVF of bare disks
		e.Files, e.Disks = append(e.Files, file), append(e.Disks, d)
		d.Bus = buses[i]
		d.Controller, d.Unit, err = attach(m, d.Bus, next[d.Bus])
		if err != nil {
			return nil, usagef("disk %s: %w", d.Name, err)
		}
		next[d.Bus]++
		m.Disks = append(m.Disks, d)
	}
	return e, nil
}

// ofDisks is envelope, but for the OVF of bare disks if no flag describes a
// machine.
func (f *machineFlags) ofDisks(disks []machine.Disk) (*machine.Envelope, error) {
	e, err := f.envelope(disks)
	if e == nil && err == nil {
		e, err = ovf.Parse(ovf.Bare(disks))
	}
	return e, err
}

// attach returns where disk number n of a bus is attached to m, and adds the
// controller that it needs.
func attach(m *machine.Machine, bus machine.Bus, n int) (controller string, unit int, err error) {
	perController := map[machine.Bus]int{machine.IDE: 2, machine.SATA: 30, machine.SCSI: 15, machine.NVMe: 15}[bus]
	if perController == 0 {
		return "", n, nil
	}
	number, unit := n/perController, n%perController
	switch {
	case bus == machine.IDE && number > 1:
		return "", 0, errors.New("IDE has four places")
	case bus == machine.SCSI && unit >= 7:
		unit++ // 7 is the controller's own
	}
	c := machine.Controller{Name: fmt.Sprint(bus, number), Type: bus, Number: number}
	if bus == machine.SATA {
		c.Model = machine.AHCI
	}
	if !slices.Contains(m.Controllers, c) {
		m.Controllers = append(m.Controllers, c)
	}
	return c.Name, unit, nil
}

// A machineFile is what --machine-file has. Members are called as in the JSON
// of machine show.
type machineFile struct {
	Name           string               `yaml:"name"`
	Description    string               `yaml:"description"`
	CPUs           int                  `yaml:"cpus"`
	CoresPerSocket int                  `yaml:"coresPerSocket"`
	Memory         size                 `yaml:"memory"`
	Firmware       firmwareValue        `yaml:"firmware"`
	SecureBoot     bool                 `yaml:"secureBoot"`
	TPM            machine.TPM          `yaml:"tpm"`
	GuestOS        string               `yaml:"guestOS"`
	Bus            machine.Bus          `yaml:"bus"`
	Disks          []machineFileDisk    `yaml:"disks"`
	NICs           []machineFileNIC     `yaml:"nics"`
	BootOrder      []machine.BootDevice `yaml:"bootOrder"`
	Product        struct {
		Name        string `yaml:"name"`
		Vendor      string `yaml:"vendor"`
		Version     string `yaml:"version"`
		FullVersion string `yaml:"fullVersion"`
		URL         string `yaml:"url"`
		VendorURL   string `yaml:"vendorUrl"`
		AppURL      string `yaml:"appUrl"`
	} `yaml:"product"`
	EULA       string                `yaml:"eula"`
	Properties []machineFileProperty `yaml:"properties"`
}

type machineFileDisk struct {
	Name string      `yaml:"name"`
	Bus  machine.Bus `yaml:"bus"`
}

type machineFileNIC struct {
	Type    machine.NICType `yaml:"type"`
	Network string          `yaml:"network"`
	MAC     string          `yaml:"mac"`
}

type machineFileProperty struct {
	Class            string `yaml:"class"`
	Instance         string `yaml:"instance"`
	Key              string `yaml:"key"`
	Type             string `yaml:"type"` // default: string
	Value            string `yaml:"value"`
	Label            string `yaml:"label"`
	Description      string `yaml:"description"`
	Category         string `yaml:"category"`
	UserConfigurable bool   `yaml:"userConfigurable"`
	Password         bool   `yaml:"password"`
}

// maxMachineFile is the largest file that is read, in bytes. Licences are long.
const maxMachineFile = 1 << 20

// readMachineFile reads a file strictly: a member that is misspelt is not one
// that is missing.
func readMachineFile(path string, secrets *secret.Filter) (m machineFile, err error) {
	f, err := os.Open(path)
	if err != nil {
		return m, fmt.Errorf("--machine-file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxMachineFile+1))
	if err != nil {
		return m, fmt.Errorf("--machine-file: %w", err)
	}
	if len(data) > maxMachineFile {
		return m, usagef("%s: more than %d bytes", path, maxMachineFile)
	}
	secrets.LearnInput(string(data))
	if err := decodeMachineFile(data, &m); err != nil {
		return m, usagef("%s: %w", path, err)
	}
	return m, nil
}

func decodeMachineFile(data []byte, m *machineFile) error {
	// One value for many is how a small file becomes a large one.
	var document yaml.Node
	d := yaml.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&document); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("it is empty")
		}
		return err
	}
	if line := aliasIn(&document); line > 0 {
		return fmt.Errorf("line %d: anchors and aliases are not read", line)
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return errors.New("more than one document")
	}

	d = yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	err := d.Decode(m)
	return yamlError(err)
}

// yamlError is an error of decoding without the names of our types, and without
// the value that it quotes the beginning of: that can be one of a password.
func yamlError(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if wrong := (*yaml.TypeError)(nil); errors.As(err, &wrong) && len(wrong.Errors) > 0 {
		text, _, _ = strings.Cut(wrong.Errors[0], " in type main.")
		text, _, _ = strings.Cut(text, " into main.")
	}
	if text = yamlValue.ReplaceAllString(text, "$1"); text == err.Error() {
		return err
	}
	return errors.New(text)
}

var yamlValue = regexp.MustCompile("(?s)(cannot (?:unmarshal|decode|construct) !!\\w+) `.*`")

// aliasIn returns the line of an anchor or alias, 0 if there is none.
func aliasIn(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return n.Line
	}
	for _, c := range n.Content {
		if line := aliasIn(c); line > 0 {
			return line
		}
	}
	return 0
}

// check says what no machine can have. prefix is before the name of a member.
func (f *machineFile) check(prefix string) error {
	wrong := func(member, format string, args ...any) error {
		return usagef("%s%s: %s", prefix, member, fmt.Sprintf(format, args...))
	}
	if f.CPUs < 0 || f.CPUs > machine.MaxCPUs {
		return wrong("cpus", "%d is not 1 to %d", f.CPUs, machine.MaxCPUs)
	}
	if cpus := max(f.CPUs, 1); f.CoresPerSocket < 0 || f.CoresPerSocket > 0 && cpus%f.CoresPerSocket != 0 {
		return wrong("coresPerSocket", "%d CPUs are no sockets of %d", cpus, f.CoresPerSocket)
	}
	const mib = 1 << 20
	if f.Memory%mib != 0 || f.Memory > machine.MaxMemory {
		return wrong("memory", "%d bytes are not whole MiB, up to %d: write 512M or 4G", int64(f.Memory), machine.MaxMemory/mib)
	}
	if f.SecureBoot && f.Firmware == "bios" {
		return wrong("secureBoot", "it needs firmware: uefi")
	}
	if err := oneOf(f.TPM, "", machine.TPM12, machine.TPM20); err != nil {
		return wrong("tpm", "%v", err)
	}
	if err := oneOf(f.Bus, diskBuses...); err != nil && f.Bus != "" {
		return wrong("bus", "%v", err)
	}
	for i, d := range f.Disks {
		if err := oneOf(d.Bus, diskBuses...); err != nil {
			return wrong(fmt.Sprintf("disks[%d].bus", i), "%v", err)
		}
	}
	for i, n := range f.NICs {
		if err := oneOf(n.Type, nicTypes...); err != nil {
			return wrong(fmt.Sprintf("nics[%d].type", i), "%v", err)
		}
		if mac, err := net.ParseMAC(n.MAC); n.MAC != "" && (err != nil || len(mac) != 6) {
			return wrong(fmt.Sprintf("nics[%d].mac", i), "%q is not six bytes in hex with colons", n.MAC)
		}
	}
	for i, b := range f.BootOrder {
		member := fmt.Sprintf("bootOrder[%d]", i)
		if err := oneOf(b, machine.BootDisk, machine.BootCDROM, machine.BootNetwork, machine.BootFloppy); err != nil {
			return wrong(member, "%v", err)
		}
		if slices.Contains(f.BootOrder[:i], b) {
			return wrong(member, "%s is there twice", b)
		}
	}
	keys := make(map[machine.Property]bool)
	for i, p := range f.Properties {
		id := machine.Property{Class: p.Class, Instance: p.Instance, Key: p.Key}
		switch {
		case p.Key == "":
			return wrong(fmt.Sprintf("properties[%d].key", i), "it is missing")
		case keys[id]:
			return wrong(fmt.Sprintf("properties[%d].key", i), "%s is there twice", propertyName(id))
		}
		keys[id] = true
	}
	return nil
}

// oneOf is an error unless v is one of known.
func oneOf[T ~string](v T, known ...T) error {
	if slices.Contains(known, v) {
		return nil
	}
	return fmt.Errorf("%q is not one of %s", v, names(known))
}

// names are known with commas.
func names[T ~string](known []T) string {
	var all []string
	for _, k := range known {
		all = append(all, string(k))
	}
	return joined(all...)
}

// buses returns the bus of each disk.
func (f *machineFile) buses(disks []machine.Disk) ([]machine.Bus, error) {
	buses := slices.Repeat([]machine.Bus{machine.SATA}, len(disks))
	if f.Bus != "" {
		buses = slices.Repeat([]machine.Bus{f.Bus}, len(disks))
	}
	said := make(map[string]bool)
	for _, d := range f.Disks {
		i := slices.IndexFunc(disks, func(have machine.Disk) bool { return have.Name == d.Name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("disks: no disk is called %q", d.Name)
		case said[d.Name]:
			return nil, fmt.Errorf("disks: %q is there twice", d.Name)
		}
		said[d.Name] = true
		buses[i] = d.Bus
	}
	return buses, nil
}

// machine returns the machine without its disks. What is not said is as in the
// OVF of bare disks.
func (f *machineFile) machine() *machine.Machine {
	m := &machine.Machine{
		ID:             "vm",
		Name:           f.Name,
		Description:    f.Description,
		CPUs:           max(f.CPUs, 1),
		CoresPerSocket: f.CoresPerSocket,
		Memory:         int64(f.Memory),
		Firmware:       f.Firmware.kind(),
		SecureBoot:     f.SecureBoot || f.Firmware == secureUEFI,
		TPM:            f.TPM,
		GuestOS:        parseGuestOS(f.GuestOS),
		BootOrder:      f.BootOrder,
		Product:        machine.Product(f.Product),
	}
	if m.Memory == 0 {
		m.Memory = 1 << 30
	}
	if m.SecureBoot {
		m.Firmware = machine.UEFI
	}
	for _, n := range f.NICs {
		m.NICs = append(m.NICs, machine.NIC{Type: n.Type, Network: n.Network, MAC: strings.ToLower(strings.ReplaceAll(n.MAC, "-", ":"))})
	}
	if f.EULA != "" {
		m.EULAs = []string{f.EULA}
	}
	for _, p := range f.Properties {
		m.Properties = append(m.Properties, machine.Property{
			Class: p.Class, Instance: p.Instance, Key: p.Key, Type: cmp.Or(p.Type, "string"), Value: p.Value,
			Label: p.Label, Description: p.Description, Category: p.Category,
			UserConfigurable: p.UserConfigurable, Password: p.Password,
		})
	}
	return m
}

// parseGuestOS tells in whose words an operating system is named.
func parseGuestOS(s string) machine.GuestOS {
	switch {
	case strings.HasPrefix(s, "http://"), strings.HasPrefix(s, "https://"):
		return machine.GuestOS{Osinfo: s}.Complete()
	case !strings.Contains(s, " ") && (strings.HasSuffix(s, "Guest") || strings.HasSuffix(s, "Guest64")):
		return machine.GuestOS{VMware: s}.Complete()
	}
	return machine.GuestOS{Description: s}
}

// diskBuses are the buses that a disk can be given.
var diskBuses = []machine.Bus{machine.SATA, machine.SCSI, machine.Virtio, machine.IDE, machine.NVMe}

// nicTypes are the network cards that a machine can be given.
var nicTypes = []machine.NICType{machine.E1000, machine.E1000E, machine.VMXNET3, machine.VirtioNet, machine.PCnet, machine.RTL8139,
	machine.VMXNET2, machine.VMXNET, machine.Flexible, machine.Synthetic}

const nicTypeNames = "e1000, e1000e, vmxnet3, virtio, pcnet, rtl8139, vmxnet2, vmxnet, flexible, synthetic"

// A cpuCount is the flag for a number of CPUs; 0: not given.
type cpuCount int

func (c *cpuCount) Set(s string) error {
	var n int
	if _, err := fmt.Sscanf(s, "%d", &n); err != nil || fmt.Sprint(n) != s || n < 1 || n > machine.MaxCPUs {
		return fmt.Errorf("%q is not 1 to %d", s, machine.MaxCPUs)
	}
	*c = cpuCount(n)
	return nil
}

func (c *cpuCount) Type() string { return "N" }

func (c *cpuCount) String() string {
	if *c == 0 {
		return ""
	}
	return fmt.Sprint(int(*c))
}

// A firmwareValue is a kind of firmware as users name it; empty: not given.
type firmwareValue string

const secureUEFI firmwareValue = "uefi-secure"

func (f *firmwareValue) Set(s string) error {
	*f = firmwareValue(s)
	return oneOf(*f, "bios", "uefi", secureUEFI)
}

// UnmarshalText is what the file's member is read with.
func (f *firmwareValue) UnmarshalText(text []byte) error {
	if err := f.Set(string(text)); err != nil {
		return fmt.Errorf("firmware: %w", err)
	}
	return nil
}

func (f *firmwareValue) Type() string   { return "KIND" }
func (f *firmwareValue) String() string { return string(*f) }

func (f firmwareValue) kind() machine.Firmware {
	if f == secureUEFI {
		return machine.UEFI
	}
	return machine.Firmware(f)
}

// nicValues are the values of --nic: TYPE[,network=NAME]. A name goes on to the
// end, commas included.
type nicValues []machineFileNIC

func (v *nicValues) Set(s string) error {
	kind, option, more := strings.Cut(s, ",")
	n := machineFileNIC{Type: machine.NICType(kind)}
	if err := oneOf(n.Type, nicTypes...); err != nil {
		return err
	}
	if more {
		var ok bool
		if n.Network, ok = strings.CutPrefix(option, "network="); !ok || n.Network == "" {
			return fmt.Errorf("%q is not network=NAME", option)
		}
	}
	*v = append(*v, n)
	return nil
}

func (v *nicValues) Type() string { return "TYPE[,network=NAME]" }

func (v *nicValues) String() string {
	var all []string
	for _, n := range *v {
		all = append(all, string(n.Type)+prefixed(",network=", n.Network))
	}
	return strings.Join(all, " ")
}
