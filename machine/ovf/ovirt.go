package ovf

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/xmltree"
)

// oVirt and RHV write two kinds of OVF: that of export domains, in a namespace
// of its own with the sections of OVF 0.9, which virt-v2v writes as well, and
// since 4.2 that of OVAs, in the namespace of OVF 1. In both what a machine is
// stands beside what OVF has for it, in elements that OVF does not know.

// lun is a disk, and its file, that is of the storage and not of the package.
const lun = "LUN"

// ovirtSections are those of oVirt that a user would miss.
var ovirtSections = map[string]string{
	"SnapshotsSection": "snapshots are not read",
	"NumaNodeSection":  "NUMA nodes are not read",
}

// isOVirt says whether an envelope is one of oVirt's.
func isOVirt(root *xmltree.Element) bool {
	return root.Name.Space == namespace1+"/" || slices.ContainsFunc(root.Attrs, func(a xml.Attr) bool {
		return a.Name.Space == "xmlns" && a.Value == namespaceOVirt
	})
}

// ovirtDisk completes a disk that p.disk has read. It returns false for what is
// no disk of the package: a LUN of the storage.
func (p *parser) ovirtDisk(e *xmltree.Element, d *machine.Disk) (ok bool) {
	p.interfaces[d.Name] = p.attr(e, "disk-interface")
	if p.attr(e, "lun_id") != "" {
		p.interfaces[d.Name] = lun
		return false
	}
	return true
}

// ovirtSystem reads what is in a virtual system beside its sections.
func (s *system) ovirtSystem(e *xmltree.Element) {
	s.m.Description = e.Child("Description").TextOf()
	switch e.Child("BiosType").TextOf() {
	case "0", "1": // SeaBIOS, for an i440FX and a Q35
		s.m.Firmware = machine.BIOS
	case "2":
		s.m.Firmware = machine.UEFI
	case "3":
		s.m.Firmware, s.m.SecureBoot = machine.UEFI, true
	}
	for _, device := range ovirtBoot[e.Child("default_boot_sequence").TextOf()] {
		s.m.BootOrder = append(s.m.BootOrder, map[rune]machine.BootDevice{'C': machine.BootDisk, 'D': machine.BootCDROM, 'N': machine.BootNetwork}[device])
	}
}

// ovirtBoot are the numbers of boot sequences, with the letters of QEMU.
var ovirtBoot = map[string]string{
	"0": "C", "1": "DC", "2": "N", "3": "CDN", "4": "CND", "5": "DCN", "6": "DNC", "7": "NCD", "8": "NDC",
	"9": "CD", "10": "D", "11": "CN", "12": "DN", "13": "NC", "14": "ND",
}

// implied is the controller of a bus that disks stand for, or the first of them.
type implied struct{ number, disks int }

// ovirtPlace attaches a disk to the controller that its interface stands for:
// there is no Item of one.
func (s *system) ovirtPlace(d *machine.Disk) {
	c := machine.Controller{}
	switch s.interfaces[d.Name] {
	case "IDE":
		c.Type = machine.IDE
	case "SATA":
		c.Type, c.Model = machine.SATA, machine.AHCI
	case "VirtIO_SCSI":
		c.Type, c.Model = machine.SCSI, machine.VirtioSCSI
	case "SPAPR_VSCSI":
		c.Type, c.Model = machine.SCSI, "ibmvscsi"
	case "VirtIO": // a disk is its own
		c.Type = machine.Virtio
	default:
		return
	}
	next, seen := s.implied[c.Type]
	if !seen { // beside those that there are Items of
		next.number = freeNumber(s.m, c.Type)
	}
	d.Bus, d.Unit, c.Number = c.Type, next.disks, next.number
	if c.Type == machine.IDE {
		c.Number, d.Unit = next.number+next.disks/2, next.disks%2
	}
	next.disks++
	s.implied[c.Type] = next
	if c.Type == machine.Virtio {
		return
	}
	c.Name = fmt.Sprintf("%s%d", c.Type, c.Number)
	if d.Controller = c.Name; !seen || c.Type == machine.IDE && d.Unit == 0 {
		s.m.Controllers = append(s.m.Controllers, c)
	}
}

// ovirtDevice reads an Item by what oVirt calls it, since its numbers for
// devices are not CIM's. It returns false for those of OVF.
func (s *system) ovirtDevice(i *resource) bool {
	kind, device := i.Child("Type").TextOf(), i.Child("Device").TextOf()
	switch kind {
	case "", "disk", "interface":
		if i.kind != typeUSB { // whether devices of a console are handed on
			return false
		}
	case "controller", "balloon", "channel", "console", "rng", "memory": // as oVirt gives all machines
	case "video":
		if s.m.Display.Type != "" { // one for each monitor of a card that has one
			break
		}
		s.m.Display.Type = strings.ToLower(device)
		if n, err := parseDecimal(i.get("VirtualQuantity")); err == nil && n < 1<<10 {
			s.m.Display.Monitors = int(n)
		}
	case "tpm":
		s.m.TPM = machine.TPM20
		if host := i.get("HostResource"); host != "" {
			s.lose(i.String(), host, "the state of a TPM is not read: it is a secret of the machine")
		}
	default:
		s.lose(i.String(), strings.TrimSpace(kind+" "+device), "a device of oVirt's is not read")
	}
	return true
}

// freeNumber is the one after that of all controllers of a type.
func freeNumber(m *machine.Machine, bus machine.Bus) int {
	n := 0
	for _, c := range m.Controllers {
		if c.Type == bus {
			n = max(n, c.Number+1)
		}
	}
	return n
}
