package ovf

import (
	"encoding/xml"
	"slices"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/xmltree"
)

// bootOrder reads the sections of it, VMware's and that of OVF 2.
func (s *system) bootOrder(e *xmltree.Element) {
	for _, c := range e.Children {
		switch c.Name {
		case xml.Name{Space: namespace2, Local: "BootDeviceSection"}:
			s.bootDevices(c)
		case xml.Name{Space: namespaceVMware, Local: "BootOrderSection"}:
			kinds, _ := c.Attr(namespaceVMware, "type")
			for _, kind := range strings.Fields(kinds) {
				s.boots(kind)
			}
		}
	}
}

// boots adds a kind of device to the boot order.
func (s *system) boots(kind string) {
	device, ok := map[string]machine.BootDevice{
		"disk": machine.BootDisk, "cdrom": machine.BootCDROM, "net": machine.BootNetwork, "ethernet": machine.BootNetwork, "floppy": machine.BootFloppy,
	}[kind]
	if ok && !slices.Contains(s.m.BootOrder, device) {
		s.m.BootOrder = append(s.m.BootOrder, device)
	}
}

// bootDevices reads the BootDeviceSection of OVF 2: CIM_BootSourceSettings in
// the order of a CIM_BootConfigSetting. One that is no kind of device, or of an
// Item, makes another order of the rest, so then none is read.
func (s *system) bootDevices(section *xmltree.Element) {
	configs := children(section, "CIM_BootConfigSetting")
	if len(configs) == 0 {
		return
	}
	if len(configs) > 1 {
		s.lose(section.Name.Local, "", "of several orders of boot devices the first is read")
	}
	var order []machine.BootDevice
	for _, source := range children(configs[0], "CIM_BootSourceSetting") {
		device, ok := s.bootSource(source)
		if !ok {
			s.lose(section.Name.Local, firstText(source, "StructuredBootString", "BootString", "InstanceID", "Caption"), "a boot device that is not known: the order is not read")
			return
		}
		if !slices.Contains(order, device) {
			order = append(order, device)
		}
	}
	s.m.BootOrder = order
}

// bootSource is the kind of a device, as CIM calls it (CIM:Hard-Disk:1), or as
// that of the Item that it names.
func (s *system) bootSource(source *xmltree.Element) (machine.BootDevice, bool) {
	for _, name := range []string{"StructuredBootString", "BootString", "InstanceID"} {
		word := firstText(source, name)
		if kind, ok := strings.CutPrefix(word, "CIM:"); ok {
			kind, _, _ = strings.Cut(kind, ":")
			device, ok := map[string]machine.BootDevice{
				"Hard-Disk": machine.BootDisk, "CD/DVD": machine.BootCDROM, "Network": machine.BootNetwork, "Floppy": machine.BootFloppy,
			}[kind]
			return device, ok
		}
		if i := s.byID[word]; i != nil {
			switch i.kind {
			case typeDisk, typeLogicalDisk, typeStorage:
				return machine.BootDisk, true
			case typeCD, typeDVD:
				return machine.BootCDROM, true
			case typeEthernet:
				return machine.BootNetwork, true
			case typeFloppy:
				return machine.BootFloppy, true
			}
		}
	}
	return "", false
}

// children are the child elements of that name in any namespace: CIM's classes
// have one each.
func children(e *xmltree.Element, local string) (all []*xmltree.Element) {
	for _, c := range e.Children {
		if c.Name.Local == local {
			all = append(all, c)
		}
	}
	return all
}

// firstText is the text of the first of those elements that has some.
func firstText(e *xmltree.Element, locals ...string) string {
	for _, local := range locals {
		for _, c := range children(e, local) {
			if text := c.TextOf(); text != "" {
				return text
			}
		}
	}
	return ""
}
