package ovf

import (
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/attach"
)

// A Target is who imports what is written.
type Target string

// The targets. For none, the OVF is the config of an artifact: it says what the
// machine has, and nothing in its place.
const (
	VMware     Target = "vmware" // ESXi 6.5 and Workstation 14 or later
	VirtualBox Target = "virtualbox"
)

// WriteOptions say for what an OVF is written. The zero value is for the config
// of an artifact: disks whose Format is not said are davit's own.
type WriteOptions struct {
	Target Target

	// Populated are bytes of the disks that are not zero, by name, where they
	// are known. A hypervisor shows them before it imports.
	Populated map[string]int64
}

// Write returns an OVF 1.1 of e, which validates against DMTF DSP8023 1.1.1 and
// depends on e and o alone. [Parse] reads it as e, but that
//   - what belongs to no list is not there: Unread, Warnings, and how Envelope.Disks are
//     attached, which Machine.Disks say;
//   - names of files are URIs, so a "#" is %23;
//   - the files of disks are in the order of the disks;
//   - formats of disks have no variant: vmdk:stream is vmdk;
//   - space around IDs and the texts of a collection is gone;
//   - an architecture of amd64 is said only of a guest for another;
//   - a machine without an ID is vm, and characters that XML cannot hold are
//     U+FFFD. The latter is a loss.
//
// Where OVF and VMware's extension of it have no word, the nearest one stands
// for it, and an extension of ours says what the model has. For a target, which
// reads OVF alone, that is a loss.
//
// What an OVF cannot hold is [machine.ErrMalformed]: a disk or file that is not
// in the envelope's list, one name for two of them, several machines in no
// collection. More drives than the target takes are [machine.ErrUnsupported].
func Write(e *machine.Envelope, o WriteOptions) ([]byte, []machine.Loss, error) {
	given := e
	e, losses, err := prepare(e)
	if err != nil {
		return nil, nil, err
	}
	// Read back, since what reading does not give is what the extension is for.
	w := writer{e: e, o: o, losses: losses}
	w.loseSectors(given)
	data := w.envelope(nil)
	if w.err != nil {
		return nil, nil, w.err
	}
	is, err := Parse(data)
	if err != nil {
		return nil, nil, fmt.Errorf("reading what was written: %w", err)
	}
	if len(is.Machines) != len(e.Machines) {
		return nil, nil, machine.Malformed("%d machines are read as %d", len(e.Machines), len(is.Machines))
	}
	extensions := make([][]field, len(e.Machines))
	extended := false
	for i, m := range e.Machines {
		extensions[i] = differences(fields(is.Machines[i]), fields(m))
		extended = extended || len(extensions[i]) > 0
		for _, f := range extensions[i] {
			if isReference(f.path) {
				return nil, nil, machine.Malformed("an OVF cannot hold %s %q of machine %q", f.path, f.value, m.ID)
			}
		}
	}
	if extended {
		again := writer{e: e, o: o}
		data = again.envelope(extensions)
		if is, err = Parse(data); err != nil {
			return nil, nil, fmt.Errorf("reading what was written: %w", err)
		}
	}
	if err := compare(is, e); err != nil {
		return nil, nil, err
	}
	return data, w.losses, nil
}

// prepare returns a copy of e that can be written.
func prepare(e *machine.Envelope) (*machine.Envelope, []machine.Loss, error) {
	if n := len(e.Machines); n != 1 && e.ID == "" {
		return nil, nil, machine.Malformed("%d machines without an ID for the collection of them", n)
	}
	var losses []machine.Loss
	var bad []string // names that others refer to
	c := copied(reflect.ValueOf(e), "", func(path, s string) string {
		k := kind(path)
		say := sayable(s)
		if say != s {
			if k == "id" || k == "machines.id" || strings.HasPrefix(k, "files.") || strings.HasPrefix(k, "disks.") {
				bad = append(bad, s)
			}
			if len(e.Machines) == 1 {
				path = strings.TrimPrefix(path, "machines[0].")
			}
			losses = append(losses, machine.Loss{Field: path, Reason: "XML cannot hold some of its characters"})
		}
		switch k {
		case "files.name", "disks.file", "machines.disks.file", "machines.cdroms.file", "machines.nvram":
			return uriOf(say)
		case "disks.format", "machines.disks.format":
			say, _, _ = strings.Cut(say, ":") // the variant that is written
		case "id", "name", "machines.id":
			return strings.TrimSpace(say)
		}
		if k != "properties.value" && (k == "eulas" || strings.HasPrefix(k, "product.") || strings.HasPrefix(k, "properties.")) {
			return strings.TrimSpace(say)
		}
		return say
	}).Interface().(*machine.Envelope)
	if len(bad) > 0 {
		return nil, nil, machine.Malformed("XML cannot hold the name %q", bad[0])
	}
	orderFiles(c)
	for i := range c.Disks {
		d := &c.Disks[i]
		d.Controller, d.Bus, d.Unit, d.ReadOnly, d.SectorSize = "", "", 0, false, 0 // is for machines to say
		if d.File != "" && fileID(c, d.File) == "" {
			return nil, nil, machine.Malformed("disk %q is in %q, which is not in the list of files", d.Name, d.File)
		}
	}
	for _, m := range c.Machines {
		if m.ID == "" { // OVF has to have one
			m.ID = "vm"
		}
		if m.Architecture == "amd64" && m.GuestOS.Architecture() == "" { // it is what all take a machine for
			m.Architecture = ""
		}
		for i, d := range m.Disks {
			if !slices.ContainsFunc(c.Disks, func(o machine.Disk) bool { return o.Name == d.Name }) {
				return nil, nil, machine.Malformed("disk %q of machine %q is not in the list of disks", d.Name, m.ID)
			}
			m.Disks[i].SectorSize = 0 // an OVF does not say it: see loseSectors
		}
		for _, cd := range m.CDROMs {
			if cd.File != "" && fileID(c, cd.File) == "" {
				return nil, nil, machine.Malformed("%q, in CD drive %q of machine %q, is not in the list of files", cd.File, cd.Name, m.ID)
			}
		}
		if m.NVRAM != "" && fileID(c, m.NVRAM) == "" {
			return nil, nil, machine.Malformed("%q, the variables of machine %q, is not in the list of files", m.NVRAM, m.ID)
		}
	}
	return c, losses, nil
}

// orderFiles brings the files of disks into the order in which disks name them,
// as importers want it. Others stay where they are.
func orderFiles(e *machine.Envelope) {
	var places []int
	var files []machine.File
	for _, d := range e.Disks {
		i := slices.IndexFunc(e.Files, func(f machine.File) bool { return f.Name == d.File })
		if i >= 0 && !slices.Contains(places, i) {
			places = append(places, i)
			files = append(files, e.Files[i])
		}
	}
	slices.Sort(places)
	for n, i := range places {
		e.Files[i] = files[n]
	}
}

// fileID is the ID of the first file of that name.
func fileID(e *machine.Envelope, name string) string {
	i := slices.IndexFunc(e.Files, func(f machine.File) bool { return f.Name == name })
	if i < 0 {
		return ""
	}
	return e.Files[i].ID
}

// compare says what of want was read as something else. It is no machine that
// a reader makes.
func compare(is, want *machine.Envelope) error {
	if d := differences(fields(is), fields(want)); len(d) > 0 {
		return machine.Malformed("an OVF cannot hold %s %q", d[0].path, d[0].value)
	}
	return nil
}

// The rest writes, from the top of the document down.

type writer struct {
	document
	e      *machine.Envelope
	o      WriteOptions
	losses []machine.Loss

	machine    int                 // that is being written
	drives     []*attach.Drive     // of it: disks, then CD drives
	attached   []attach.Controller // of it, for them
	moved      []machine.Loss      // of them
	instances  int                 // Items that it has so far
	err        error               // the first
	extensions [][]field           // by machine; nil: not known yet
	used       map[string]bool     // prefixes of namespaces
}

// prefixes are those of namespaces that are declared where they are used.
var prefixes = []struct{ prefix, namespace string }{
	{"vssd", namespaceVSSD},
	{"vmw", namespaceVMware},
	{"vbox", namespaceVirtualBox},
	{"davit", namespaceDavit},
}

func (w *writer) envelope(extensions [][]field) []byte {
	w.extensions = extensions
	w.used = make(map[string]bool)
	w.open = []string{"Envelope"}
	w.references()
	w.disks()
	w.networks()
	if w.e.ID != "" {
		w.collection()
	} else { // what is said of all machines can stand in the envelope
		w.common()
		w.system(w.e.Machines[0])
	}
	w.end()

	var head document
	a := []string{"xmlns", namespace1, "xmlns:ovf", namespace1, "xmlns:rasd", namespaceRASD}
	for _, p := range prefixes {
		if w.used[p.prefix] {
			a = append(a, "xmlns:"+p.prefix, p.namespace)
		}
	}
	head.b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n")
	head.begin("Envelope", a...)
	return []byte(head.b.String() + w.b.String())
}

// use declares the namespace of a prefix.
func (w *writer) use(prefix string) { w.used[prefix] = true }

func (w *writer) lose(value, reason, field string, args ...any) {
	if w.o.Target == "" {
		return // nobody but us reads it
	}
	field = fmt.Sprintf(field, args...)
	if len(w.e.Machines) > 1 {
		field = fmt.Sprintf("machines[%d].%s", w.machine, field)
	}
	w.losses = append(w.losses, machine.Loss{Field: field, Value: value, Reason: reason})
}

// loseSectors tells of the sectors that disks have in what was given: an OVF does
// not say it. An artifact does, beside its OVF.
func (w *writer) loseSectors(given *machine.Envelope) {
	for i, m := range given.Machines {
		w.machine = i
		for n, d := range m.Disks {
			if d.SectorSize != 0 {
				w.lose(strconv.Itoa(d.SectorSize), "an OVF does not say it, and the guest gets sectors of 512 bytes", "disks[%d].logicalSectorSize", n)
			}
		}
	}
	w.machine = 0
}

func (w *writer) references() {
	w.begin("References")
	for _, f := range w.e.Files {
		w.empty("File", "ovf:id", f.ID, "ovf:href", f.Name, "ovf:size?", unless(f.Size, -1),
			"ovf:compression?", f.Compression, "ovf:chunkSize?", unless(f.ChunkSize, 0))
	}
	w.end()
}

func (w *writer) disks() {
	if len(w.e.Disks) == 0 {
		return
	}
	w.begin("DiskSection")
	w.text("Info", "Virtual disks")
	for _, d := range w.e.Disks {
		populated := min(w.o.Populated[d.Name], d.Capacity)
		units := ""
		if w.o.Target != "" {
			units = "byte" // what it is if it is not said; not all that import know that
		}
		w.empty("Disk", "ovf:diskId", d.Name, "ovf:fileRef?", fileID(w.e, d.File), "ovf:capacity", strconv.FormatInt(d.Capacity, 10),
			"ovf:capacityAllocationUnits?", units, "ovf:format?", diskFormat(d), "ovf:parentRef?", d.Parent, "ovf:populatedSize?", unless(populated, 0))
	}
	w.end()
}

// diskFormat is the ovf:format of a disk. One in a file has to have some.
func diskFormat(d machine.Disk) string {
	if d.Format == "" && d.File == "" {
		return ""
	}
	uri, ok := map[string]string{
		"vmdk":  formatStreamOptimized,
		"vhd":   formatVHD,
		"vhdx":  formatVHDX,
		"qcow2": formatQCOW2,
		"vdi":   formatVDI,
		"raw":   formatBare,
	}[d.Format]
	if !ok {
		return formatUnknown
	}
	return uri
}

// networks are those of all machines, each once.
func (w *writer) networks() {
	var names []string
	for _, m := range w.e.Machines {
		for _, n := range m.NICs {
			if name := w.network(n); name != "" && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return
	}
	w.begin("NetworkSection")
	w.text("Info", "Logical networks")
	for _, name := range names {
		w.empty("Network", "ovf:name", name)
	}
	w.end()
}

func (w *writer) collection() {
	w.begin("VirtualSystemCollection", "ovf:id", w.e.ID)
	w.text("Info", "Virtual machines")
	if w.e.Name != "" {
		w.text("Name", w.e.Name)
	}
	w.common()
	for i, m := range w.e.Machines {
		w.machine = i
		w.system(m)
	}
	w.end()
}

// common is what is said of all machines.
func (w *writer) common() {
	w.licenses(w.e.EULAs)
	var product machine.Product
	if w.e.Product != nil {
		product = *w.e.Product
	}
	w.products(product, w.e.Properties)
}

func (w *writer) system(m *machine.Machine) {
	w.begin("VirtualSystem", "ovf:id", m.ID)
	w.text("Info", "A virtual machine")
	if m.Name != "" {
		w.text("Name", m.Name)
	}
	w.guest(m.GuestOS)
	w.hardware(m)
	if m.Description != "" {
		w.begin("AnnotationSection")
		w.text("Info", "A description of the machine")
		w.text("Annotation", m.Description)
		w.end()
	}
	w.licenses(m.EULAs)
	w.products(m.Product, m.Properties)
	w.end()
}

// guest says the guest's system in all words that are known for a target.
func (w *writer) guest(g machine.GuestOS) {
	if w.o.Target != "" {
		g = g.Complete()
	}
	g.Osinfo = ""
	if g == (machine.GuestOS{}) {
		return
	}
	a := []string{"ovf:id", strconv.Itoa(g.CIM), "ovf:version?", g.Version}
	if g.VMware != "" {
		w.use("vmw")
		a = append(a, "vmw:osType", g.VMware)
	}
	w.begin("OperatingSystemSection", a...)
	w.text("Info", "The guest's operating system")
	if g.Description != "" {
		w.text("Description", g.Description)
	}
	if g.VirtualBox != "" {
		w.use("vbox")
		w.text("vbox:OSType", g.VirtualBox, "ovf:required", "false")
	}
	w.end()
}

func (w *writer) licenses(eulas []string) {
	for _, text := range eulas {
		w.begin("EulaSection")
		w.text("Info", "A license agreement")
		w.text("License", text)
		w.end()
	}
}

// products writes a section for each class and instance of properties, the one
// for the product itself first.
func (w *writer) products(p machine.Product, properties []machine.Property) {
	type section struct{ class, instance string }
	var sections []section
	if p != (machine.Product{}) {
		sections = append(sections, section{})
	}
	for _, property := range properties {
		if s := (section{property.Class, property.Instance}); !slices.Contains(sections, s) {
			sections = append(sections, s)
		}
	}
	for i, s := range sections {
		w.begin("ProductSection", "ovf:class?", s.class, "ovf:instance?", s.instance)
		w.text("Info", "The product")
		if i == 0 {
			w.product(p)
		}
		category := ""
		for _, property := range properties {
			if property.Class != s.class || property.Instance != s.instance {
				continue
			}
			if property.Category != category {
				category = property.Category
				w.text("Category", category)
			}
			w.property(property)
		}
		w.end()
	}
}

func (w *writer) product(p machine.Product) {
	for _, e := range []struct{ name, text string }{
		{"Product", p.Name},
		{"Vendor", p.Vendor},
		{"Version", p.Version},
		{"FullVersion", p.FullVersion},
		{"ProductUrl", p.URL},
		{"VendorUrl", p.VendorURL},
		{"AppUrl", p.AppURL},
	} {
		if e.text != "" {
			w.text(e.name, e.text)
		}
	}
}

func (w *writer) property(p machine.Property) {
	a := []string{"ovf:key", p.Key, "ovf:type", p.Type, "ovf:value?", p.Value, "ovf:qualifiers?", p.Qualifiers}
	if p.UserConfigurable {
		a = append(a, "ovf:userConfigurable", "true")
	}
	if p.Password {
		a = append(a, "ovf:password", "true")
	}
	if p.Label == "" && p.Description == "" {
		w.empty("Property", a...)
		return
	}
	w.begin("Property", a...)
	if p.Label != "" {
		w.text("Label", p.Label)
	}
	if p.Description != "" {
		w.text("Description", p.Description)
	}
	w.end()
}

// unless is a number as an attribute; "", and so none, if it is n.
func unless(number, n int64) string {
	if number == n {
		return ""
	}
	return strconv.FormatInt(number, 10)
}

// uriOf is a file's name as anyURI of XML Schema, which has spaces, braces and
// letters of all languages as they are: what that cannot have is escaped. All
// else stays, as VirtualBox takes an ovf:href for a name.
func uriOf(name string) string {
	u, err := url.Parse(name)
	looks := err != nil || strings.Count(u.Host, ":") > 1 // an address of IPv6, for which a name has no brackets
	var b strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case c == '%' && i+2 < len(name) && isHex(name[i+1]) && isHex(name[i+2]): // is escaped
			b.WriteByte(c)
		case c < ' ', c == 0x7f, c == '%', c == '#', c == '[', c == ']',
			c == ' ' && (i == 0 || i == len(name)-1),
			c == ':' && looks: // it looks like that of a scheme or a port, and is not
			fmt.Fprintf(&b, "%%%02X", c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
