package ovf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/xmltree"
)

// A system is a VirtualSystem while it is read.
type system struct {
	*parser
	m            *machine.Machine
	hardwares    []*xmltree.Element
	items        []*resource
	byID         map[string]*resource    // of the items that are read
	implied      map[machine.Bus]implied // of oVirt
	notes        []string                // the texts of annotations
	extraConfigs []string                // keys of what is not read of them
	extension    *xmltree.Element        // what OVF has no word for; nil: nothing
}

func (s *system) lose(field, value, reason string) {
	s.m.Unread = append(s.m.Unread, machine.Loss{Field: field, Value: value, Reason: reason})
}

// A resource is a piece of virtual hardware: an Item, or a StorageItem or
// EthernetPortItem of OVF 2, paragraph 8.3.
type resource struct {
	*xmltree.Element
	id         string
	kind       int // rasd:ResourceType
	name       string
	controller *machine.Controller // what it is, if it is one
	parent     *resource           // of a drive whose Parent is empty; or nil
	attached   attached            // to it
	unit       int                 // of a drive, on its controller; -1: any
}

func (i *resource) String() string {
	if i.name == "" {
		return "Item " + i.id
	}
	return fmt.Sprintf("Item %s (%s)", i.id, i.name)
}

// properties are the elements of an item: CIM's of setting data of resources,
// storage and ports, and those of OVF 0.9.
var properties = makeSet("Address AddressOnParent AllocationUnits AutomaticAllocation AutomaticDeallocation Caption " +
	"ChangeableType ComponentSetting ConfigurationName Connection ConsumerVisibility Description ElementName Generation HostResource InstanceID Limit " +
	"MappingBehavior OtherResourceType Parent PoolID Reservation ResourceSubType ResourceType SoID SoOrgID VirtualQuantity VirtualQuantityUnits Weight " +
	"Access HostExtentName HostExtentNameFormat HostExtentNameNamespace HostExtentStartingAddress HostResourceBlockSize " +
	"OtherHostExtentNameFormat OtherHostExtentNameNamespace VirtualResourceBlockSize " +
	"AllowedPriorities AllowedToReceiveMACAddresses AllowedToReceiveVLANs AllowedToTransmitMACAddresses AllowedToTransmitVLANs " +
	"DefaultPortVID DefaultPriority DesiredVLANEndpointMode GroupID IsolationKey ManagerID NetworkPortProfileID NetworkPortProfileIDType " +
	"OtherEndpointMode OtherNetworkPortProfileIDTypeInfo PortCorrelationID PortVID Promiscuous ReceiveBandwidthLimit ReceiveBandwidthReservation " +
	"SourceMACFilteringEnabled TransmitBandwidthLimit TransmitBandwidthReservation VSITypeID VSITypeIDVersion " +
	"BusNumber InstanceId")

func makeSet(words string) map[string]bool {
	set := make(map[string]bool)
	for _, w := range strings.Fields(words) {
		set[w] = true
	}
	return set
}

// Names of the namespaces of items begin with one of these; the second is that
// of a draft.
const (
	cim      = "http://schemas.dmtf.org/wbem/wscim/1/cim"
	cimDraft = "http://schemas.dmtf.org/CIM_"
)

// isProperty says whether c is an element of CIM.
func isProperty(c *xmltree.Element) bool {
	return strings.HasPrefix(c.Name.Space, cim) || strings.HasPrefix(c.Name.Space, cimDraft)
}

// all returns the values of a property, in order.
func (i *resource) all(local string) []string {
	var all []string
	for _, c := range i.Children {
		if c.Name.Local == local && isProperty(c) {
			all = append(all, c.TextOf())
		}
	}
	return all
}

// get returns the value of a property, "" if there is none.
func (i *resource) get(local string) string {
	for _, v := range i.all(local) {
		return v
	}
	return ""
}

// maxHardwares bounds the virtual hardwares of a machine; one is read, and what
// is said of the others is as long as they are.
const maxHardwares = 64

// addHardware keeps a VirtualHardwareSection until all are known.
func (s *system) addHardware(e *xmltree.Element) error {
	if len(s.hardwares) == maxHardwares {
		return malformedAt(e, "more than %d VirtualHardwareSections", maxHardwares)
	}
	s.hardwares = append(s.hardwares, e)
	return nil
}

// hardware reads the VirtualHardwareSection, paragraph 8. Several are for
// several hypervisors; which is best for another is not said. VMware's is read
// first, since our words for hardware are mostly its own.
func (s *system) hardware(virtualSystem *xmltree.Element) error {
	if len(s.hardwares) == 0 {
		return malformedAt(virtualSystem, "machine %q has no VirtualHardwareSection (8.1)", s.m.ID)
	}
	chosen := s.hardwares[0]
	for _, family := range []string{"virtualbox-", "vmx-"} { // the last that is there
		for _, e := range slices.Backward(s.hardwares) {
			if strings.Contains(strings.ToLower(s.systemType(e)), family) {
				chosen = e
			}
		}
	}
	for _, e := range s.hardwares {
		if e != chosen {
			s.lose("VirtualHardwareSection", s.systemType(e), "of several the first for VMware is read, else for VirtualBox, else the first")
		}
	}
	if err := s.info(chosen); err != nil {
		return err
	}

	s.m.HardwareVersion = s.systemType(chosen)
	s.m.Transport = strings.Fields(s.attr(chosen, "transport"))
	var xen bool
	for _, c := range chosen.Children {
		var err error
		switch {
		case c.Name.Space == s.ns && slices.Contains([]string{"Info", "System"}, c.Name.Local):
		case c.Name.Space == s.ns && slices.Contains([]string{"Item", "StorageItem", "EthernetPortItem"}, c.Name.Local):
			err = s.addItem(c)
		case c.Name.Space == namespaceVMware && c.Name.Local == "Config":
			s.config(c)
		case c.Name.Space == namespaceVMware && c.Name.Local == "ExtraConfig":
			s.extraConfig(c)
		case c.Name.Space == namespaceDavit && c.Name.Local == "Machine":
			if s.extension != nil {
				err = malformedAt(c, "a second <%s> of ours", c.Name.Local)
			}
			s.extension = c
		case c.Name.Space == namespaceXenServer: // and for no other to understand
			xen = true
		case s.required(c) && !s.ovirt:
			err = unsupportedAt(c, "<%s> in VirtualHardwareSection is not known (8.2)", c.Name.Local)
		}
		if err != nil {
			return err
		}
	}
	if len(s.extraConfigs) > 0 {
		s.lose("vmw:ExtraConfig", strings.Join(s.extraConfigs, " "), "lines of a VMX are not read from an OVF")
	}
	if xen {
		s.lose("VirtualSystemOtherConfigurationData", "", "XenServer's own settings are not read")
	}
	if err := s.checkBounds(); err != nil {
		return err
	}
	return s.readItems()
}

// systemType returns the hypervisors that a VirtualHardwareSection is for, with
// one space between.
func (s *system) systemType(e *xmltree.Element) string {
	var all []string
	for _, system := range e.All("System") {
		for _, c := range system.Children {
			if c.Name.Local == "VirtualSystemType" {
				all = append(all, strings.FieldsFunc(c.Text, func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })...)
			}
		}
	}
	return strings.Join(all, " ")
}

// addItem checks what an item is by itself.
func (s *system) addItem(e *xmltree.Element) error {
	if len(s.items) == 4*machine.MaxDisks {
		return malformedAt(e, "more than %d items", 4*machine.MaxDisks)
	}
	i := &resource{Element: e}
	seen := make(map[string]bool)
	for _, c := range e.Children {
		local := c.Name.Local
		if s.ovirt {
			continue
		}
		if c.Name.Space == namespaceVMware && local == "StorageGroup" {
			s.lose(local, c.TextOf(), "on which storage a disk comes is for vSphere")
			continue
		}
		if !isProperty(c) || !properties[local] {
			known := c.Name.Space == namespaceVMware && (local == "Config" || local == "CoresPerSocket")
			if s.required(c) && !known {
				return unsupportedAt(c, "<%s> in an Item is not known (8.2)", local)
			}
			continue
		}
		switch local {
		case "HostResource", "Connection", "Caption", "Description", "ElementName", "ComponentSetting", "ConfigurationName":
		default:
			if seen[local] && !strings.HasPrefix(local, "Allowed") {
				return malformedAt(c, "an Item with two %s", local)
			}
			seen[local] = true
		}
	}
	if i.id = i.get("InstanceID"); i.id == "" {
		i.id = i.get("InstanceId")
	}
	if i.id == "" {
		return malformedAt(e, "an Item without InstanceID (8.3)")
	}
	if i.name = i.get("ElementName"); i.name == "" {
		i.name = i.get("Caption")
	}
	kind, err := parseDecimal(i.get("ResourceType"))
	if err != nil || kind > 1<<16 {
		return malformedAt(e, "Item %s: ResourceType %q is not a number (8.3)", i.id, i.get("ResourceType"))
	}
	i.kind = int(kind)
	for _, local := range []string{"VirtualQuantity", "Reservation", "Limit", "Weight"} {
		if v := i.get(local); v != "" {
			if _, err := parseDecimal(v); err != nil {
				return malformedAt(e, "%s: %s %q is not a number (8.3)", i, local, v)
			}
		}
	}
	s.items = append(s.items, i)
	return nil
}

// checkBounds checks that items are told apart, paragraphs 8.3 and 8.4, and
// finds those that are read: without a bound, and of the configuration before
// those of all.
func (s *system) checkBounds() error {
	type key struct{ id, bound, config string }
	seen := make(map[key]bool)
	s.byID = make(map[string]*resource)
	bounds, values := make(map[string]*resource), make(map[string]bool)
	for _, i := range s.items {
		bound := s.attr(i.Element, "bound")
		switch bound {
		case "", "normal":
			bound = ""
		case "min", "max":
			bounds[i.id] = i
		default:
			return malformedAt(i.Element, "%s: ovf:bound %q is neither min, max nor normal (8.4)", i, bound)
		}
		// Not one by one: an item of "medium large" is followed by one of "large".
		configs := strings.Fields(s.attr(i.Element, "configuration"))
		slices.Sort(configs)
		k := key{i.id, bound, strings.Join(configs, " ")}
		if seen[k] && bound != "" {
			return malformedAt(i.Element, "two %s bounds of Item %s (8.4)", bound, i.id)
		}
		if seen[k] {
			return malformedAt(i.Element, "two Items of InstanceID %q (8.3)", i.id)
		}
		seen[k] = true
		if bound == "" {
			values[i.id] = true
		}
		if own, is := s.configured(i.Element); is && bound == "" {
			if s.byID[i.id] == nil || own {
				s.byID[i.id] = i
			}
		}
	}
	for _, i := range s.items {
		if bounds[i.id] == i && !values[i.id] {
			return malformedAt(i.Element, "%s has a bound and no value (8.4)", i)
		}
	}
	s.items = slices.DeleteFunc(s.items, func(i *resource) bool { return s.byID[i.id] != i })
	return nil
}

// readItems reads the items: controllers first, since devices name them by
// InstanceID wherever they stand.
func (s *system) readItems() error {
	s.controllers()
	if err := s.reserve(); err != nil {
		return err
	}
	for _, i := range s.items {
		if err := s.device(i); err != nil {
			return err
		}
	}
	return nil
}

// device reads one item that is no controller.
func (s *system) device(i *resource) error {
	if i.controller != nil || s.ovirt && s.ovirtDevice(i) {
		return nil
	}
	switch i.kind {
	case typeCPU:
		return s.cpus(i)
	case typeMemory:
		return s.memory(i)
	case typeDisk, typeLogicalDisk, typeStorage: // XenServer has disks as storage extents
		return s.disk(i)
	case typeCD, typeDVD:
		return s.cdrom(i)
	case typeEthernet:
		return s.nic(i)
	case typeGraphics:
		s.display(i)
	case typeOther, typeTPM:
		s.other(i)
	default:
		s.unread(i)
	}
	return nil
}

// unreadKinds are devices that the model has not, as users call them.
var unreadKinds = map[int]string{
	typeFibreChannel: "Fibre Channel adapter",
	typeISCSI:        "iSCSI adapter",
	typeInfiniBand:   "InfiniBand adapter",
	typeOtherNetwork: "network adapter of another kind",
	typeIOSlot:       "slot",
	typeIODevice:     "device of the host",
	typeFloppy:       "floppy drive",
	typeTape:         "tape drive",
	typeSerial:       "serial port",
	typeParallel:     "parallel port",
	typeSound:        "sound card",
	typeFireWire:     "FireWire controller",
}

func (s *system) unread(i *resource) {
	kind, ok := unreadKinds[i.kind]
	if !ok {
		kind = fmt.Sprintf("device of type %d", i.kind)
	}
	s.lose(i.String(), i.get("ResourceSubType"), "a "+kind+" is not read")
}

// other reads a device that only its subtype names.
func (s *system) other(i *resource) {
	switch strings.ToLower(i.get("ResourceSubType")) {
	case "vmware.vtpm":
		s.m.TPM = machine.TPM20
	case "vmware.vmci": // all machines of VMware have it
	case "ensoniq1371", "sb16", "hdaudio", "vmware.soundcard.ensoniq1371", "vmware.soundcard.hdaudio":
		s.lose(i.String(), i.get("ResourceSubType"), "a sound card is not read")
	default:
		s.unread(i)
	}
}

// cpus reads the number of processors.
func (s *system) cpus(i *resource) error {
	n := int64(1) // an Item is one
	if v := i.get("VirtualQuantity"); v != "" {
		n, _ = parseDecimal(v) // addItem has
	}
	if s.ovirt && i.get("num_of_sockets") != "" {
		sockets, err1 := parseDecimal(i.get("num_of_sockets"))
		cores, err2 := parseDecimal(i.get("cpu_per_socket"))
		if err1 != nil || err2 != nil || sockets > machine.MaxCPUs || cores > machine.MaxCPUs {
			return malformedAt(i.Element, "%s: sockets and cores are not numbers", i)
		}
		n, s.m.CoresPerSocket = sockets*cores, int(cores)
	}
	if n > machine.MaxCPUs-int64(s.m.CPUs) {
		return malformedAt(i.Element, "%s: more than %d CPUs", i, machine.MaxCPUs)
	}
	s.m.CPUs += int(n)
	for _, c := range i.Children {
		if c.Name.Space == namespaceVMware && c.Name.Local == "CoresPerSocket" {
			cores, err := parseDecimal(c.TextOf())
			if err != nil || cores > machine.MaxCPUs {
				return malformedAt(c, "%s: vmw:CoresPerSocket %q is not a number", i, c.TextOf())
			}
			s.m.CoresPerSocket = int(cores)
		}
	}
	s.shares(i)
	return nil
}

// shares reports what is reserved for a machine.
func (s *system) shares(i *resource) {
	if v := i.get("Reservation"); v != "" && strings.Trim(v, "0") != "" {
		s.lose(i.String(), v, "what is reserved for the machine is not read")
	}
	if v := i.get("Limit"); v != "" {
		s.lose(i.String(), v, "limits of the machine's share are not read")
	}
}

// memory reads the amount of memory. Without units it is megabytes, as all who
// forget them mean, unless that would be more than 16 TB.
func (s *system) memory(i *resource) error {
	v := i.get("VirtualQuantity")
	if v == "" { // what is reserved says nothing of what there is
		s.lose(i.String(), "", "a memory without a size is not read")
		s.shares(i)
		return nil
	}
	n, _ := parseDecimal(v) // addItem has
	units := int64(1)
	if u := i.get("AllocationUnits"); u != "" {
		var err error
		if units, err = parseMemoryUnits(u); err != nil {
			return malformedAt(i.Element, "%s: %v (8.3)", i, err)
		}
	} else if n < 1<<24 {
		units = 1 << 20
	}
	if n > (machine.MaxMemory-s.m.Memory)/units {
		return malformedAt(i.Element, "%s: %s of %q is more than %d bytes", i, v, i.get("AllocationUnits"), int64(machine.MaxMemory))
	}
	s.m.Memory += n * units
	s.shares(i)
	return nil
}

// display reads the graphics card.
func (s *system) display(i *resource) {
	s.m.Display.Type = strings.ToLower(i.get("ResourceSubType"))
	for _, c := range i.Children {
		key, _ := c.Attr(namespaceVMware, "key")
		value, _ := c.Attr(namespaceVMware, "value")
		n, err := parseDecimal(value)
		if err != nil || n > 1<<30 || c.Name.Space != namespaceVMware || c.Name.Local != "Config" {
			continue
		}
		switch key {
		case "videoRamSizeInKB":
			s.m.Display.Memory = n << 10
		case "numDisplays":
			s.m.Display.Monitors = int(n)
		}
	}
}

// nicTypes are the words of products for network cards.
var nicTypes = map[string]machine.NICType{
	"e1000": machine.E1000, "82540em": machine.E1000, "82543gc": machine.E1000, "82545em": machine.E1000,
	"e1000e": machine.E1000E, "82574l": machine.E1000E,
	"vmxnet": machine.VMXNET, "vmxnet2": machine.VMXNET2, "vmxnet3": machine.VMXNET3,
	"pcnet": machine.PCnet, "pcnet32": machine.PCnet, "vlance": machine.PCnet, "am79c970a": machine.PCnet, "am79c973": machine.PCnet,
	"rtl8139": machine.RTL8139, "flexible": machine.Flexible, "synthetic": machine.Synthetic,
	"virtio": machine.VirtioNet, "virtio-net": machine.VirtioNet, "virtionet": machine.VirtioNet,
}

// ovirtNICs are oVirt's numbers.
var ovirtNICs = map[string]machine.NICType{"0": machine.RTL8139, "1": machine.RTL8139, "2": machine.E1000, "3": machine.VirtioNet, "5": "sriov", "6": machine.E1000E}

// nic reads a network card.
func (s *system) nic(i *resource) error {
	nic := machine.NIC{Name: i.name}
	subtype := i.get("ResourceSubType")
	if nic.Type = ovirtNICs[subtype]; !s.ovirt || nic.Type == "" {
		nic.Type = choose(subtype, nicTypes)
	}
	if nic.Type == "vmware.sriov" || nic.Type == "sriov" {
		s.lose(i.String(), subtype, "a function of a card of the host, which is passed through, is not read")
	}
	connections := i.all("Connection")
	connections = slices.DeleteFunc(connections, func(c string) bool { return c == "" })
	for n, c := range connections {
		if !s.networks[c] && !s.ovirt {
			return malformedAt(i.Element, "%s: the network %q is not in a NetworkSection (9.2)", i, c)
		}
		if n > 0 {
			s.lose(i.String(), c, "a second network of one card is not read")
		}
	}
	if len(connections) > 0 {
		nic.Network = connections[0]
	}
	nic.MAC = macOf(i.get("Address"))
	if s.ovirt {
		nic.MAC = macOf(i.get("MACAddress"))
	}
	if len(s.m.NICs) == machine.MaxDisks {
		return malformedAt(i.Element, "more than %d network cards", machine.MaxDisks)
	}
	s.m.NICs = append(s.m.NICs, nic)
	return nil
}

// choose returns the model of the first word of a subtype that is known, since
// a subtype lists the alternatives in order, paragraph 8.3; else the first word.
func choose[M ~string](subtype string, models map[string]M) M {
	words := strings.FieldsFunc(strings.ToLower(subtype), func(r rune) bool { return strings.ContainsRune(", \t\r\n", r) })
	for _, w := range words {
		if m, ok := models[w]; ok {
			return m
		}
	}
	if len(words) == 0 {
		return ""
	}
	return M(words[0])
}

// macOf returns a MAC address as the model has it; "" for what is none: an
// Address is the slot of a card as well.
func macOf(s string) string {
	hex := strings.ToLower(strings.NewReplacer(":", "", "-", "").Replace(s))
	if len(hex) != 12 || strings.Trim(hex, "0123456789abcdef") != "" {
		return ""
	}
	var b []string
	for n := 0; n < len(hex); n += 2 {
		b = append(b, hex[n:n+2])
	}
	return strings.Join(b, ":")
}

// configLosses are settings of VMware that a user would miss, if they are true.
var configLosses = map[string]string{
	"nestedHVEnabled":              "virtualization within the machine",
	"flags.vbsEnabled":             "virtualization-based security",
	"flags.vvtdEnabled":            "an IOMMU for the guest",
	"memoryHotAddEnabled":          "memory that is added while the machine runs",
	"cpuHotAddEnabled":             "CPUs that are added while the machine runs",
	"cpuHotRemoveEnabled":          "CPUs that are removed while the machine runs",
	"vPMCEnabled":                  "performance counters of the CPU",
	"sevEnabled":                   "encrypted memory (SEV)",
	"sevSnpEnabled":                "encrypted memory (SEV-SNP)",
	"tdxEnabled":                   "encrypted memory (TDX)",
	"memoryReservationLockedToMax": "memory that is reserved in full",
}

// firmwares are VMware's words.
var firmwares = map[string]machine.Firmware{"efi": machine.UEFI, "bios": machine.BIOS}

// config reads a vmw:Config of the machine.
func (s *system) config(e *xmltree.Element) {
	key, _ := e.Attr(namespaceVMware, "key")
	value, _ := e.Attr(namespaceVMware, "value")
	switch key {
	case "firmware":
		if s.m.Firmware = firmwares[strings.ToLower(value)]; s.m.Firmware == "" {
			s.lose("vmw:Config firmware", value, "a firmware that is not known")
		}
	case "bootOptions.efiSecureBootEnabled":
		s.m.SecureBoot = isTrue(value)
	default:
		if reason := configLosses[key]; reason != "" && isTrue(value) {
			s.lose("vmw:Config "+key, value, reason+" is not read")
		}
	}
}

// extraConfig reads a line of a VMX that an OVF carries. Its values can be
// secrets, and are not reported.
func (s *system) extraConfig(e *xmltree.Element) {
	key, _ := e.Attr(namespaceVMware, "key")
	value, _ := e.Attr(namespaceVMware, "value")
	if id, ok := reference(value, "file"); ok && key == "nvram" {
		if name, ok := s.files[id]; ok {
			s.m.NVRAM = name
			return
		}
	}
	if key == "firmware" && s.m.Firmware == "" { // vmw:Config has the last word
		s.m.Firmware = firmwares[strings.ToLower(value)]
		return
	}
	s.extraConfigs = append(s.extraConfigs, key)
}

// virtualBox reads from vbox:Machine what the rest of an OVF of VirtualBox lacks.
func (s *system) virtualBox(e *xmltree.Element) {
	i := slices.IndexFunc(e.Children, func(c *xmltree.Element) bool {
		return c.Name.Space == namespaceVirtualBox && c.Name.Local == "Machine"
	})
	if i < 0 {
		return
	}
	s.m.Unread = slices.DeleteFunc(s.m.Unread, func(l machine.Loss) bool { return l.Field == "Machine" && l.Value == namespaceVirtualBox })
	hardware := anyChild(e.Children[i], "Hardware")
	if hardware == nil {
		return
	}
	firmware := anyChild(hardware, "Firmware") // of Hardware until VirtualBox 7.1, of BIOS since
	if firmware == nil {
		firmware = anyChild(anyChild(hardware, "BIOS"), "Firmware")
	}
	if firmware != nil {
		switch kind := strings.ToUpper(firmware.Get("type")); {
		case strings.HasPrefix(kind, "EFI"):
			s.m.Firmware = machine.UEFI
		case kind == "BIOS":
			s.m.Firmware = machine.BIOS
		}
	}
	if tpm := anyChild(hardware, "TrustedPlatformModule"); tpm != nil {
		switch tpm.Get("type") {
		case "v1_2":
			s.m.TPM = machine.TPM12
		case "v2_0":
			s.m.TPM = machine.TPM20
		}
	}
	if display := anyChild(hardware, "Display"); display != nil && s.m.Display == (machine.Display{}) {
		s.m.Display.Type = strings.ToLower(display.Get("controller"))
		if n, err := parseDecimal(display.Get("VRAMSize")); err == nil && n < 1<<20 {
			s.m.Display.Memory = n << 20
		}
		if n, err := parseDecimal(display.Get("monitorCount")); err == nil && n < 1<<10 {
			s.m.Display.Monitors = int(n)
		}
	}
	if boot := anyChild(hardware, "Boot"); boot != nil {
		for _, c := range boot.Children {
			s.boots(map[string]string{"HardDisk": "disk", "DVD": "cdrom", "Network": "net", "Floppy": "floppy"}[c.Get("device")])
		}
	}
}

// anyChild returns the first child element of that name in any namespace: in
// vbox:Machine they are in OVF's by mistake.
func anyChild(e *xmltree.Element, local string) *xmltree.Element {
	if e == nil {
		return nil
	}
	for _, c := range e.Children {
		if c.Name.Local == local {
			return c
		}
	}
	return nil
}
