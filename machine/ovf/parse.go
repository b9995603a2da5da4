package ovf

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/xmltree"
)

// Paragraphs in comments are those of DSP0243 1.1.

// Parse returns what an OVF 0.9, 1.x or 2.x describes. Errors wrap
// [machine.ErrMalformed], or [machine.ErrUnsupported] where the OVF requires
// something that is not read here.
//
// A third of the OVFs of products is not as the schema wants it. What cannot be
// misunderstood is read: elements in any order, InstanceId for InstanceID,
// attributes and elements without a namespace, a memory without units. What is
// hardly misunderstood is read and is in Warnings: units in words, a disk that
// says no format, a drive whose Parent is empty. What has two meanings or points
// to nothing is refused: an identifier twice, a number that is none, a file,
// disk, parent or network that is not there.
//
// Of several configurations the default is read, of several virtual hardwares
// one; Unread says which were not. A capacity that is a property (${size}) is
// the property's default.
func Parse(data []byte) (*machine.Envelope, error) {
	root, err := xmltree.Parse(data)
	if err != nil {
		return nil, err
	}
	p := &parser{
		env:        &machine.Envelope{},
		files:      make(map[string]string),
		disks:      make(map[string]machine.Disk),
		interfaces: make(map[string]string),
		networks:   make(map[string]bool),
		messages:   make(map[string]string),
		ids:        make(map[string]bool),
	}
	if err := p.envelope(root); err != nil {
		return nil, err
	}
	return p.env, nil
}

// A parser holds what sections say for others.
type parser struct {
	env        *machine.Envelope
	ns         string                  // of the envelope
	ovirt      bool                    // it is in the manner of oVirt, which is much of its own
	files      map[string]string       // File.Name by ID
	disks      map[string]machine.Disk // by Name
	interfaces map[string]string       // of disks by Name, in the words of oVirt
	networks   map[string]bool
	config     string            // the configuration that is read; empty: there are none
	lang       string            // of the texts
	messages   map[string]string // of that language, by ovf:msgid
	defaults   map[string]string // of properties, by key, and by class, key and instance with dots; nil: not gathered
	ids        map[string]bool   // of virtual systems and collections
}

// A place is where a section can stand.
type place int

const (
	inEnvelope place = 1 << iota
	inCollection
	inSystem
)

// sections are those of OVF, with where they can stand, paragraph 9. A product and
// its license can stand in the envelope for us, since products put them there.
var sections = map[string]place{
	"DiskSection":               inEnvelope,
	"NetworkSection":            inEnvelope,
	"DeploymentOptionSection":   inEnvelope,
	"ResourceAllocationSection": inCollection,
	"StartupSection":            inEnvelope | inCollection, // XenServer's is in the envelope
	"VirtualHardwareSection":    inSystem,
	"OperatingSystemSection":    inSystem,
	"InstallSection":            inSystem,
	"AnnotationSection":         inCollection | inSystem,
	"ProductSection":            inEnvelope | inCollection | inSystem,
	"EulaSection":               inEnvelope | inCollection | inSystem,
}

// envelope reads the whole, paragraph 7.
func (p *parser) envelope(root *xmltree.Element) error {
	p.ns = root.Name.Space
	if p.ns == "" { // vCloud has written <Envelope xmlns:ovf="…">
		p.ns = declared(root)
	}
	p.ovirt = isOVirt(root)
	switch p.ns {
	case namespace1, namespace2:
	case namespace09:
		switch version, ok := root.Attr(p.ns, "version"); {
		case root.Name.Local != "Envelope":
		case !ok:
			return malformedAt(root, "an Envelope of OVF 0.9 without ovf:version")
		case strings.TrimSpace(version) != "0.9":
			return malformedAt(root, "an Envelope of OVF 0.9 of version %q", version)
		}
	case namespace1 + "/": // of oVirt's export domains
	default:
		if root.Name.Local == "Envelope" && strings.HasPrefix(p.ns, strings.TrimSuffix(namespace1, "1")) {
			return unsupportedAt(root, "an OVF of version %q", strings.TrimPrefix(p.ns, strings.TrimSuffix(namespace1, "1")))
		}
		return machine.Malformed("it begins with <%s> of %q, not with an Envelope of OVF 0.9, 1 or 2", root.Name.Local, p.ns)
	}
	if root.Name.Local != "Envelope" {
		return machine.Malformed("it begins with <%s>, not with an Envelope", root.Name.Local)
	}
	p.normalize(root)

	// Twice each: who takes the first and who takes the last would not have the same machine.
	for _, name := range []string{"References", "DiskSection", "DeploymentOptionSection"} {
		if all := root.All(name); len(all) > 1 {
			return malformedAt(all[1], "a second <%s>", name)
		}
	}
	p.strings(root)
	if err := p.uniqueProducts(root); err != nil {
		return err
	}
	if err := p.references(root.Child("References")); err != nil {
		return err
	}
	if err := p.deployment(root.Child("DeploymentOptionSection")); err != nil {
		return err
	}
	if err := p.diskSection(root); err != nil {
		return err
	}
	if err := p.networkSections(root); err != nil {
		return err
	}

	var contents int
	content := func(read func(*xmltree.Element) error) func(*xmltree.Element) error {
		return func(e *xmltree.Element) error {
			if contents++; contents > 1 {
				return malformedAt(e, "a second VirtualSystem or VirtualSystemCollection; several are within a VirtualSystemCollection (7.2)")
			}
			return read(e)
		}
	}
	done := func(*xmltree.Element) error { return nil }
	if err := p.each(root, inEnvelope, &p.env.Unread, map[string]func(*xmltree.Element) error{
		"References":              done,
		"Strings":                 done,
		"DiskSection":             done,
		"NetworkSection":          done,
		"DeploymentOptionSection": done,
		"ProductSection":          p.collectionProduct,
		"EulaSection":             p.collectionEULA,
		"StartupSection":          p.startup,
		"VirtualSystem":           content(p.system),
		"VirtualSystemCollection": content(p.collection),
	}); err != nil {
		return err
	}
	if contents == 0 {
		return machine.Malformed("neither a VirtualSystem nor a VirtualSystemCollection (7.2)")
	}
	return nil
}

// declared returns the namespace of OVF 1 if an envelope declares that and is not
// in it.
func declared(root *xmltree.Element) string {
	for _, a := range root.Attrs {
		if a.Name.Space == "xmlns" && a.Value == namespace1 {
			return namespace1
		}
	}
	return ""
}

// normalize gives elements without a namespace that of the envelope, since the
// schema of OVF 0.9 has local elements without one, and the sections of 0.9 the
// names of 1.0: <Section xsi:type="ovf:DiskSection_Type">.
func (p *parser) normalize(e *xmltree.Element) {
	if e.Name.Space == "" {
		e.Name.Space = p.ns
	}
	if kind, ok := e.Attr(namespaceXSI, "type"); ok && e.Name.Space == p.ns && (e.Name.Local == "Section" || e.Name.Local == "Content") {
		_, local, prefixed := strings.Cut(kind, ":")
		if !prefixed {
			local = kind
		}
		e.Name.Local = strings.TrimSuffix(local, "_Type")
	}
	for _, c := range e.Children {
		p.normalize(c)
	}
}

// attr returns an attribute of OVF. Its namespace is forgotten often enough, by
// Tanzu for one, and VMware's own tests use a prefix that is not declared.
func (p *parser) attr(e *xmltree.Element, local string) string {
	for _, space := range []string{p.ns, "", "ovf"} {
		if v, ok := e.Attr(space, local); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// required says whether who does not understand an element must refuse it,
// paragraph 7.3.
func (p *parser) required(e *xmltree.Element) bool {
	switch strings.ToLower(p.attr(e, "required")) {
	case "false", "0":
		return false
	}
	return true
}

// each reads the children of an envelope, collection or system. do has what is
// understood there.
func (p *parser) each(e *xmltree.Element, here place, unread *[]machine.Loss, do map[string]func(*xmltree.Element) error) error {
	for _, c := range e.Children {
		if read := do[c.Name.Local]; read != nil && c.Name.Space == p.ns {
			if err := read(c); err != nil {
				return err
			}
			continue
		}
		if where, ok := sections[c.Name.Local]; ok && c.Name.Space == p.ns && where&here == 0 {
			return malformedAt(c, "%s cannot stand in <%s> (9)", c.Name.Local, e.Name.Local)
		}
		if err := p.passOver(c, unread); err != nil {
			return err
		}
	}
	return nil
}

// unreadSections are sections that are known, and can be required, without being
// read; the empty reason is for one that is read elsewhere.
var unreadSections = map[xml.Name]string{
	{Space: namespaceVMware, Local: "BootOrderSection"}:              "",
	{Space: namespaceVMware, Local: "IpAssignmentSection"}:           "how addresses are assigned is for vSphere",
	{Space: namespaceVMware, Local: "StorageSection"}:                "on which storage disks come is for vSphere",
	{Space: namespaceVMware, Local: "StorageGroupSection"}:           "on which storage disks come is for vSphere",
	{Space: namespaceVMware, Local: "TagBasedPlacementSection"}:      "on which hosts machines come is for vSphere",
	{Space: namespaceVMware, Local: "TagBasedPlacementGroupSection"}: "on which hosts machines come is for vSphere",
	{Space: namespaceVMware, Local: "CpuCompatibilitySection"}:       "features that the CPU must have are not read",
	{Space: namespaceVMware, Local: "VirtualDeviceGroupSection"}:     "groups of devices of the host, which are passed through, are not read",
	{Space: namespaceVMware, Local: "vServiceDependencySection"}:     "a service of vSphere that the machine uses is not there elsewhere",
	// Of OVF 2. VMware writes them in envelopes of OVF 1.
	{Space: namespace2, Local: "PlacementSection"}:        "on which hosts machines come is for who deploys them",
	{Space: namespace2, Local: "PlacementGroupSection"}:   "on which hosts machines come is for who deploys them",
	{Space: namespace2, Local: "ScaleOutSection"}:         "how many machines there are is for who deploys them: it is read as one",
	{Space: namespace2, Local: "BootDeviceSection"}:       "",
	{Space: namespace2, Local: "EnvironmentFilesSection"}: "files that the guest gets in its environment are not read",
}

// passOver reports a section that is not read.
func (p *parser) passOver(e *xmltree.Element, unread *[]machine.Loss) error {
	reason, known := unreadSections[e.Name]
	switch {
	case known && reason == "":
		return nil
	case known:
	case e.Name.Local == "Strings": // in a namespace of its own in drafts of OVF 1.0; read already
		return nil
	case p.ovirt:
		if reason = ovirtSections[e.Name.Local]; reason == "" {
			return nil
		}
	case p.required(e):
		return unsupportedAt(e, "it requires <%s> of %q, which is not known (7.3)", e.Name.Local, e.Name.Space)
	default:
		reason = "it is optional, and not read"
	}
	*unread = append(*unread, machine.Loss{Field: e.Name.Local, Value: e.Name.Space, Reason: reason})
	return nil
}

// understood checks the children of a section of OVF: if one that is not known
// is required, the section is not understood, paragraph 7.3. It returns false if
// the section itself is optional, and then to be passed over.
func (p *parser) understood(section *xmltree.Element, unread *[]machine.Loss, known ...string) (bool, error) {
	if p.ovirt {
		return true, nil
	}
	for _, c := range section.Children {
		if c.Name.Space == p.ns && (c.Name.Local == "Info" || slices.Contains(known, c.Name.Local)) || !p.required(c) {
			continue
		}
		if !p.required(section) {
			*unread = append(*unread, machine.Loss{Field: section.Name.Local, Reason: fmt.Sprintf("it has <%s>, which is not known", c.Name.Local)})
			return false, nil
		}
		return false, unsupportedAt(c, "<%s> in %s is not known (7.3)", c.Name.Local, section.Name.Local)
	}
	return true, nil
}

// info checks that a section says what it is, which the schema wants of each.
func (p *parser) info(e *xmltree.Element) error {
	if e.Child("Info") == nil && !p.ovirt {
		return malformedAt(e, "%s without <Info>", e.Name.Local)
	}
	return nil
}

// references reads the files, paragraph 7.1.
func (p *parser) references(e *xmltree.Element) error {
	hrefs := make(map[string]bool)
	for _, c := range e.All("File") {
		f := machine.File{ID: p.attr(c, "id"), Name: p.attr(c, "href"), Size: -1, Compression: p.attr(c, "compression")}
		if f.ID == "" || f.Name == "" {
			return malformedAt(c, "a File without ovf:id or ovf:href (7.1)")
		}
		if _, twice := p.files[f.ID]; twice {
			return malformedAt(c, "two files %q (7.1)", f.ID)
		}
		if hrefs[f.Name] {
			return malformedAt(c, "two File elements of %q (7.1)", f.Name)
		}
		if len(p.env.Files) == machine.MaxDisks {
			return malformedAt(c, "more than %d files", machine.MaxDisks)
		}
		var err error
		if s := p.attr(c, "size"); s != "" && s != "-1" && s != "-2" { // not known, which ovftool takes
			if f.Size, err = parseDecimal(s); err != nil {
				return malformedAt(c, "file %q: ovf:size %q is not a number of bytes (7.1)", f.ID, s)
			}
		}
		if s := p.attr(c, "chunkSize"); s != "" {
			if f.ChunkSize, err = parseDecimal(s); err != nil || f.ChunkSize == 0 {
				return malformedAt(c, "file %q: ovf:chunkSize %q is not a number of bytes (7.1)", f.ID, s)
			}
		}
		switch f.Compression {
		case "", "gzip", "bzip2": // the latter by the schema
		case "identity":
			f.Compression = ""
		default:
			return unsupportedAt(c, "file %q: compression %q; gzip and bzip2 are (7.1)", f.ID, f.Compression)
		}
		p.files[f.ID], hrefs[f.Name] = f.Name, true
		if p.ovirt && p.attr(c, "disk_storage_type") == lun {
			continue
		}
		p.env.Files = append(p.env.Files, f)
	}
	return nil
}

// deployment finds the default configuration: the one that says so, else the
// first, paragraph 9.8.
func (p *parser) deployment(e *xmltree.Element) error {
	if e == nil {
		return nil
	}
	if ok, err := p.understood(e, &p.env.Unread, "Configuration"); err != nil || !ok {
		return err
	}
	var ids []string
	for _, c := range e.All("Configuration") {
		id := p.attr(c, "id")
		if id == "" || slices.Contains(ids, id) {
			return malformedAt(c, "a Configuration without an ovf:id of its own (9.8)")
		}
		if len(ids) == machine.MaxMachines {
			return malformedAt(c, "more than %d configurations", machine.MaxMachines)
		}
		if ids = append(ids, id); p.config == "" || p.attr(c, "default") == "true" {
			p.config = id
		}
	}
	if others := slices.DeleteFunc(ids, func(id string) bool { return id == p.config }); len(others) > 0 {
		p.env.Unread = append(p.env.Unread, machine.Loss{Field: "DeploymentOptionSection", Value: strings.Join(others, " "),
			Reason: fmt.Sprintf("only the default configuration %q is read", p.config)})
	}
	return nil
}

// configured says whether e is for the configuration that is read: the list of
// its own, or all.
func (p *parser) configured(e *xmltree.Element) (own, is bool) {
	list := strings.Fields(p.attr(e, "configuration"))
	if len(list) == 0 {
		return false, true
	}
	return true, slices.Contains(list, p.config)
}

// diskSection reads the disks, paragraph 9.1.
func (p *parser) diskSection(root *xmltree.Element) error {
	e := root.Child("DiskSection")
	if e == nil {
		return nil
	}
	if ok, err := p.understood(e, &p.env.Unread, "Disk"); err != nil || !ok {
		return err
	}
	for _, c := range e.All("Disk") {
		d, err := p.disk(root, c)
		if err != nil {
			return err
		}
		if p.ovirt && !p.ovirtDisk(c, &d) {
			p.env.Unread = append(p.env.Unread, machine.Loss{Field: "Disk " + d.Name, Reason: "a LUN of the storage is never carried"})
			continue
		}
		if _, twice := p.disks[d.Name]; twice {
			return malformedAt(c, "two disks called %q (9.1)", d.Name)
		}
		if len(p.env.Disks) == machine.MaxDisks {
			return malformedAt(c, "more than %d disks", machine.MaxDisks)
		}
		p.disks[d.Name] = d
		p.env.Disks = append(p.env.Disks, d)
	}
	for _, d := range p.env.Disks {
		if _, ok := p.disks[d.Parent]; d.Parent != "" && !ok {
			return malformedAt(e, "disk %q: ovf:parentRef %q is no disk (9.1)", d.Name, d.Parent)
		}
	}
	if p.ovirt { // has no stream
		return nil
	}
	return p.diskOrder(e)
}

// diskOrder checks that files come in the order in which disks first name them,
// for who imports a stream. vSphere refuses another (OvfDiskOrderConstraint),
// and no product writes one.
func (p *parser) diskOrder(e *xmltree.Element) error {
	ahead := make(map[string]int, len(p.env.Files)) // files that no disk has named yet, with their places
	for i, f := range p.env.Files {
		ahead[f.Name] = i
	}
	last := -1
	for _, d := range p.env.Disks {
		i, first := ahead[d.File]
		if !first {
			continue
		}
		if i < last {
			return malformedAt(e, "disk %q: its file %q is before that of a disk above, and disks are in the order of References", d.Name, d.File)
		}
		last = i
		delete(ahead, d.File)
	}
	return nil
}

func (p *parser) disk(root, e *xmltree.Element) (machine.Disk, error) {
	d := machine.Disk{Name: p.attr(e, "diskId"), Parent: p.attr(e, "parentRef")}
	if d.Name == "" {
		return d, malformedAt(e, "a disk without ovf:diskId (9.1)")
	}
	bad := func(format string, args ...any) (machine.Disk, error) {
		return machine.Disk{}, malformedAt(e, "disk %q: %s (9.1)", d.Name, fmt.Sprintf(format, args...))
	}
	if ref := p.attr(e, "fileRef"); ref != "" {
		var ok bool
		if d.File, ok = p.files[ref]; !ok && p.ovirt { // its files have paths for an ID
			d.File, ok = p.files[ref[strings.LastIndex(ref, "/")+1:]]
		}
		if !ok {
			return bad("ovf:fileRef %q is no file", ref)
		}
	}

	capacity := p.attr(e, "capacity")
	if key, ok := strings.CutPrefix(capacity, "${"); ok && strings.HasSuffix(key, "}") {
		value, ok := p.defaultOf(root, strings.TrimSuffix(key, "}"))
		if !ok {
			return bad("ovf:capacity %s is no property of a machine here", capacity)
		}
		capacity = value
	}
	units := p.attr(e, "capacityAllocationUnits")
	if units == "" {
		units = "byte"
	}
	if p.ovirt && capacity == "" {
		if capacity, units = p.attr(e, "size"), "byte * 2^30"; capacity == "" {
			capacity = "0" // of a LUN
		}
	}
	var err error
	if _, err := parseUnits(units); err != nil {
		if _, err := parseMemoryUnits(units); err == nil {
			p.warn(e, "disk %q: units %q are no units of DSP0004: they are taken for those of memory", d.Name, units)
		}
	}
	if d.Capacity, err = parseCapacity(capacity, units); err != nil {
		return bad("%v", err)
	}
	if s := p.attr(e, "populatedSize"); s != "" {
		if n, err := parseDecimal(s); err != nil || n > d.Capacity && !p.ovirt { // its is that of a qcow2
			return bad("ovf:populatedSize %q is not a number up to its capacity of %d bytes", s, d.Capacity)
		}
	}

	format := p.attr(e, "format")
	if format == "" && d.File != "" && !p.ovirt { // of a blank disk there is none to tell
		p.warn(e, "disk %q: it has no ovf:format: its content says what it is", d.Name)
	}
	whole := strings.ToLower(format)
	before, _, _ := strings.Cut(whole, "#")
	if d.Format = formats[whole]; d.Format == "" {
		d.Format = formats[before]
	}
	switch p.attr(e, "volume-format") { // oVirt calls a raw disk a VMDK
	case "RAW":
		d.Format = "raw"
	case "COW":
		d.Format = "qcow2"
	}
	return d, nil
}

// networkSections reads the names of networks, paragraph 9.2.
func (p *parser) networkSections(root *xmltree.Element) error {
	for _, e := range root.All("NetworkSection") {
		if ok, err := p.understood(e, &p.env.Unread, "Network"); err != nil || !ok {
			return err
		}
		for _, c := range e.All("Network") {
			if len(p.networks) == machine.MaxDisks {
				return malformedAt(c, "more than %d networks", machine.MaxDisks)
			}
			p.networks[p.attr(c, "name")] = true
		}
	}
	return nil
}

// collection reads a VirtualSystemCollection, which can have others in it. The
// outermost is the envelope's.
func (p *parser) collection(e *xmltree.Element) error {
	id, name, err := p.identity(e)
	if err != nil {
		return err
	}
	if p.env.ID == "" {
		p.env.ID, p.env.Name = id, name
	}
	if err := p.uniqueProducts(e); err != nil {
		return err
	}
	done := func(*xmltree.Element) error { return nil }
	if err := p.each(e, inCollection, &p.env.Unread, map[string]func(*xmltree.Element) error{
		"Info":                      done,
		"Name":                      done,
		"AnnotationSection":         done,
		"ProductSection":            p.collectionProduct,
		"EulaSection":               p.collectionEULA,
		"StartupSection":            p.startup,
		"ResourceAllocationSection": p.allocation,
		"VirtualSystem":             p.system,
		"VirtualSystemCollection":   p.collection,
	}); err != nil {
		return err
	}
	return p.startupNames(e)
}

// identity returns ovf:id and Name of a virtual system or a collection.
func (p *parser) identity(e *xmltree.Element) (id, name string, err error) {
	if id = p.attr(e, "id"); id == "" {
		return "", "", malformedAt(e, "a %s without ovf:id (7.2)", e.Name.Local)
	}
	unique := e.Name.Local + " " + id // vCloud names a collection like a machine in it
	if p.ids[unique] {
		return "", "", malformedAt(e, "two %s of ovf:id %q (7.2)", e.Name.Local, id)
	}
	p.ids[unique] = true
	if err := p.info(e); err != nil {
		return "", "", err
	}
	return id, p.text(e.Child("Name")), nil
}

// startupNames checks that the items of a StartupSection are of machines and
// collections that are in the collection, paragraph 9.7.
func (p *parser) startupNames(collection *xmltree.Element) error {
	ids := make(map[string]bool)
	for _, c := range collection.Children {
		if c.Name.Local == "VirtualSystem" || c.Name.Local == "VirtualSystemCollection" {
			ids[p.attr(c, "id")] = true
		}
	}
	for _, section := range collection.All("StartupSection") {
		for _, c := range section.All("Item") {
			if id := p.attr(c, "id"); !ids[id] {
				return malformedAt(c, "StartupSection: %q is not in the collection (9.7)", id)
			}
		}
	}
	return nil
}

// startup reports the order in which the machines of a collection start.
func (p *parser) startup(e *xmltree.Element) error {
	if ok, err := p.understood(e, &p.env.Unread, "Item"); err != nil || !ok {
		return err
	}
	var order []string
	for _, c := range e.All("Item") {
		if n := p.attr(c, "order"); n != "" && n != "0" {
			order = append(order, p.attr(c, "id")+" "+n)
		}
	}
	if len(order) > 0 {
		p.env.Unread = append(p.env.Unread, machine.Loss{Field: "StartupSection", Value: strings.Join(order, ", "), Reason: "the order in which machines start is not kept"})
	}
	return nil
}

// allocation reports the resources that the machines of a collection share.
func (p *parser) allocation(e *xmltree.Element) error {
	p.env.Unread = append(p.env.Unread, machine.Loss{Field: "ResourceAllocationSection", Reason: "resources of a collection are reserved by vSphere alone"})
	return nil
}

// system reads a VirtualSystem.
func (p *parser) system(e *xmltree.Element) error {
	if len(p.env.Machines) == machine.MaxMachines {
		return malformedAt(e, "more than %d machines", machine.MaxMachines)
	}
	id, name, err := p.identity(e)
	if err != nil {
		return err
	}
	if err := p.uniqueProducts(e); err != nil {
		return err
	}
	s := &system{parser: p, m: &machine.Machine{ID: id, Name: name}, implied: make(map[machine.Bus]implied)}
	done := func(*xmltree.Element) error { return nil }
	product := s.product
	if p.ovirt { // what is installed in the guest
		product = done
	}
	if err := p.each(e, inSystem, &s.m.Unread, map[string]func(*xmltree.Element) error{
		"Info":                   done,
		"Name":                   done,
		"InstallSection":         done,
		"AnnotationSection":      s.annotation,
		"ProductSection":         product,
		"EulaSection":            s.eula,
		"OperatingSystemSection": s.operatingSystem,
		"VirtualHardwareSection": s.addHardware,
	}); err != nil {
		return err
	}
	s.m.Description = strings.Join(s.notes, "\n\n")
	if p.ovirt {
		s.ovirtSystem(e)
	}
	if err := s.hardware(e); err != nil {
		return err
	}
	s.virtualBox(e)
	s.bootOrder(e)
	s.m.Architecture = s.m.GuestOS.Architecture()
	if err := readExtension(s.extension, s.m); err != nil {
		return err
	}
	p.env.Machines = append(p.env.Machines, s.m)
	return nil
}

// strings reads the messages of the envelope's language, paragraph 10. Those in
// files of their own are not opened.
func (p *parser) strings(root *xmltree.Element) {
	p.lang = lang(root)
	if p.lang == "" {
		p.lang = "en-US"
	}
	for _, e := range root.Children {
		if e.Name.Local != "Strings" {
			continue
		}
		if ref := p.attr(e, "fileRef"); ref != "" {
			p.env.Unread = append(p.env.Unread, machine.Loss{Field: "Strings", Value: ref, Reason: "texts in files of their own are not read"})
			continue
		}
		if !strings.EqualFold(lang(e), p.lang) {
			continue
		}
		for _, c := range e.Children {
			p.messages[p.attr(c, "msgid")] = c.TextOf()
		}
	}
}

// lang returns xml:lang.
func lang(e *xmltree.Element) string {
	for _, a := range e.Attrs {
		if a.Name.Local == "lang" && a.Name.Space != "" {
			return a.Value
		}
	}
	return ""
}

// text returns the text of an element, or the message that it names.
func (p *parser) text(e *xmltree.Element) string {
	if e == nil {
		return ""
	}
	if t := e.TextOf(); t != "" {
		return t
	}
	return p.messages[p.attr(e, "msgid")]
}

// warn notes what is read though it is not as the standard wants it.
func (p *parser) warn(e *xmltree.Element, format string, args ...any) {
	p.env.Warnings = append(p.env.Warnings, fmt.Sprintf("line %d: %s", e.Line, fmt.Sprintf(format, args...)))
}

func malformedAt(e *xmltree.Element, format string, args ...any) error {
	return machine.Malformed("line %d: %w", e.Line, fmt.Errorf(format, args...))
}

func unsupportedAt(e *xmltree.Element, format string, args ...any) error {
	return machine.Unsupported("line %d: %w", e.Line, fmt.Errorf(format, args...))
}
