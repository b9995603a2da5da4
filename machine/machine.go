// Package machine is a small model of a virtual machine, as hypervisors
// describe it: what it is made of, in units that are explicit in every field.
//
// Descriptors are read and written by the packages below it: ovf, vmx,
// libvirt, vbox and hyperv. Package appliance finds a machine with its files.
//
// The model holds what can be carried from one hypervisor to another. What a
// reader met beside that is in [Machine.Unread]; what a writer could not
// express it returns. Nothing is dropped in silence, and what is written comes
// from the model alone: no path of a host, no device that is passed through.
package machine

import (
	"errors"
	"fmt"
)

var (
	// ErrMalformed is wrapped by errors about a descriptor that breaks its
	// format, or asks for more than any machine has.
	ErrMalformed = errors.New("malformed")

	// ErrUnsupported is wrapped by errors about a descriptor that is well-formed
	// and needs something that is not read here. The message names it.
	ErrUnsupported = errors.New("unsupported")
)

// Malformed returns an error that is [ErrMalformed] and says what is wrong.
func Malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}

// Unsupported returns an error that is [ErrUnsupported] and says what is.
func Unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUnsupported, fmt.Errorf(format, args...))
}

// Limits of what a descriptor can make us do.
const (
	MaxDescriptor = 16 << 20 // bytes; the largest real one we know has 3 MB
	MaxMachines   = 1024     // in one envelope
	MaxDisks      = 4096     // more than any hypervisor attaches; so for all devices of a kind, and for files
	MaxCPUs       = 1 << 16
	MaxMemory     = 1 << 50 // bytes
	MaxCapacity   = 1 << 58 // bytes of a disk; what an artifact can describe
)

// An Envelope is what a descriptor describes: the machines in it, and the
// disks and files that they share. All but an OVF have one machine.
type Envelope struct {
	ID   string // of the collection of several machines; empty: there is none
	Name string // of the collection

	Machines []*Machine

	// Disks are all disks, in the order of the descriptor: the Disk elements
	// of an OVF. They are attached nowhere; [Machine.Disks] are.
	Disks []Disk

	// Files are the files that belong to the machines, in the order of the
	// descriptor: the References of an OVF.
	Files []File

	Product    *Product   // of the collection, where it differs from the machines'
	EULAs      []string   // of the collection
	Properties []Property // of the collection
	Unread     []Loss     // of what belongs to no single machine

	// Warnings say what a reader took though it is not as the format wants it.
	Warnings []string
}

// CommonLosses are what a descriptor of one machine does not say: what e says of
// all. Fields begin with "envelope".
func (e *Envelope) CommonLosses() (losses []Loss) {
	lose := func(field, value string) {
		losses = append(losses, Loss{"envelope." + field, value, "it is said of all machines together, and the target has one"})
	}
	if e.Product != nil && *e.Product != (Product{}) {
		lose("product", e.Product.Name)
	}
	for i := range e.EULAs {
		lose(fmt.Sprintf("eulas[%d]", i), "")
	}
	for i, p := range e.Properties {
		lose(fmt.Sprintf("properties[%d]", i), p.Key)
	}
	return losses
}

// A File is a file of the package. Name is as the descriptor has it: checked
// for nothing, it may be a path or a URL.
type File struct {
	ID          string
	Name        string
	Size        int64  // bytes; -1: not said
	Compression string // "", "gzip" or "bzip2"
	ChunkSize   int64  // bytes; not 0: it is cut into NAME.000000000, NAME.000000001 ...
}

// A Machine is a virtual machine. The zero value of a field is "not said".
type Machine struct {
	ID              string       `json:"id"` // what --machine takes: the ovf:id, else the name
	Name            string       `json:"name"`
	Description     string       `json:"description"`
	Architecture    string       `json:"architecture,omitempty"` // of the CPUs, as GOARCH has it: arm64, riscv64, 386; empty: not said, which is x86
	CPUs            int          `json:"cpus"`                   // virtual CPUs, in all sockets
	CoresPerSocket  int          `json:"coresPerSocket"`
	Memory          int64        `json:"memory"` // bytes
	Firmware        Firmware     `json:"firmware"`
	SecureBoot      bool         `json:"secureBoot"`
	TPM             TPM          `json:"tpm"`
	GuestOS         GuestOS      `json:"guestOS"`
	HardwareVersion string       `json:"hardwareVersion"` // as its product names it: vmx-19, virtualbox-2.2; several: with spaces
	Controllers     []Controller `json:"controllers"`
	Disks           []Disk       `json:"disks"`
	CDROMs          []CDROM      `json:"cdroms"`
	NICs            []NIC        `json:"nics"`
	Display         Display      `json:"display"`
	BootOrder       []BootDevice `json:"bootOrder"`
	NVRAM           string       `json:"nvram,omitempty"` // File.Name of the firmware's variables
	Product         Product      `json:"product"`
	EULAs           []string     `json:"eulas"`
	Properties      []Property   `json:"properties"`
	Transport       []string     `json:"transport,omitempty"` // how the guest gets its properties: iso, com.vmware.guestInfo
	Unread          []Loss       `json:"-"`                   // what the descriptor had and the model has not
}

// Firmware is what starts the guest.
type Firmware string

// The kinds of firmware.
const (
	BIOS Firmware = "bios"
	UEFI Firmware = "uefi"
)

// TPM is the version of a trusted platform module; empty: there is none.
type TPM string

// The versions of TPMs.
const (
	TPM12 TPM = "1.2"
	TPM20 TPM = "2.0"
)

// GuestOS is the operating system that the machine was made for, in the words
// of the products that have some. [GuestOS.Complete] translates.
type GuestOS struct {
	CIM         int    `json:"cim,omitempty"`        // CIM_OperatingSystem.OSType, 0: not said; 1: other
	Version     string `json:"version,omitempty"`    // of the OVF's section
	VMware      string `json:"vmware,omitempty"`     // in the form of vmw:osType: debian12_64Guest
	VirtualBox  string `json:"virtualBox,omitempty"` // Debian12_64
	Osinfo      string `json:"osinfo,omitempty"`     // libosinfo: http://debian.org/debian/12
	Description string `json:"description,omitempty"`
}

// Bus is how a device is attached.
type Bus string

// The buses.
const (
	IDE    Bus = "ide"
	SATA   Bus = "sata"
	SCSI   Bus = "scsi" // SAS as well; Controller.Model says which
	NVMe   Bus = "nvme"
	Virtio Bus = "virtio" // virtio-blk: a disk is its own controller
	USB    Bus = "usb"
	Floppy Bus = "fdc"
	SD     Bus = "sd"
	Xen    Bus = "xen"
)

// A Controller is what disks and CD drives are attached to. A channel of IDE is
// a controller of its own: number 0 is the primary.
type Controller struct {
	Name   string          `json:"name"` // unique in the machine: BUS and NUMBER, as in scsi0
	Type   Bus             `json:"type"`
	Model  ControllerModel `json:"model,omitempty"`
	Number int             `json:"number"` // among those of its type, from 0
}

// ControllerModel is what the guest's driver sees.
type ControllerModel string

// The models of controllers; for one that is not here the descriptor's own
// word, in lower case.
const (
	PIIX3       ControllerModel = "piix3"
	PIIX4       ControllerModel = "piix4"
	ICH6        ControllerModel = "ich6"
	AHCI        ControllerModel = "ahci"
	BusLogic    ControllerModel = "buslogic"
	LSILogic    ControllerModel = "lsilogic"
	LSILogicSAS ControllerModel = "lsisas1068"
	PVSCSI      ControllerModel = "pvscsi"
	VirtioSCSI  ControllerModel = "virtio-scsi"
	UHCI        ControllerModel = "uhci" // USB 1.1, as OHCI
	EHCI        ControllerModel = "ehci" // USB 2
	XHCI        ControllerModel = "xhci" // USB 3
)

// A Disk is a virtual disk.
type Disk struct {
	Name       string `json:"name"`       // its ovf:diskId; unique in the envelope
	Controller string `json:"controller"` // Controller.Name; empty: attached nowhere, or its bus needs none
	Bus        Bus    `json:"bus"`
	Unit       int    `json:"unit"`                        // on its controller, from 0; on a bus without controllers, the disk's number
	Capacity   int64  `json:"capacity"`                    // bytes; 0: not said, the file knows
	SectorSize int    `json:"logicalSectorSize,omitempty"` // bytes of the sectors that the guest sees: 4096; 0: not said, which is 512
	Format     string `json:"format"`                      // of the file, as package disk names formats; empty: not said
	File       string `json:"file"`                        // File.Name of what holds it; empty: the disk is blank
	Parent     string `json:"parent,omitempty"`            // Disk.Name of what it is a delta to
	ReadOnly   bool   `json:"readOnly,omitempty"`          // for the guest
}

// A CDROM is a drive with or without a medium.
type CDROM struct {
	Name       string `json:"name"`
	Controller string `json:"controller"`
	Bus        Bus    `json:"bus"`
	Unit       int    `json:"unit"`
	File       string `json:"file,omitempty"` // File.Name of the image in it; empty: none
}

// A NIC is a network card.
type NIC struct {
	Name    string  `json:"name,omitempty"` // as the descriptor calls it
	Type    NICType `json:"type"`
	Network string  `json:"network"` // the network's name; empty: connected to nothing by name
	MAC     string  `json:"mac"`     // six bytes in lower-case hex with colons; empty: made when it is deployed
}

// NICType is the card that the guest's driver sees.
type NICType string

// The types of cards; for one that is not here the descriptor's own word, in
// lower case.
const (
	E1000     NICType = "e1000"
	E1000E    NICType = "e1000e"
	VMXNET    NICType = "vmxnet"
	VMXNET2   NICType = "vmxnet2"
	VMXNET3   NICType = "vmxnet3"
	PCnet     NICType = "pcnet" // PCnet32, vlance, AMD PCnet FAST III
	RTL8139   NICType = "rtl8139"
	VirtioNet NICType = "virtio"
	Flexible  NICType = "flexible"  // VMware: pcnet or vmxnet, as the guest has a driver
	Synthetic NICType = "synthetic" // Hyper-V's own
)

// Display is the graphics card.
type Display struct {
	Type     string `json:"type,omitempty"`     // vmvga, vga, qxl, virtio, cirrus, vboxvga, vboxsvga ...
	Memory   int64  `json:"memory,omitempty"`   // bytes of video memory
	Monitors int    `json:"monitors,omitempty"` // that can be attached
}

// BootDevice is a kind of device that the firmware tries.
type BootDevice string

// The kinds of boot devices.
const (
	BootDisk    BootDevice = "disk"
	BootCDROM   BootDevice = "cdrom"
	BootNetwork BootDevice = "network"
	BootFloppy  BootDevice = "floppy"
)

// Product is what the machine is, for people.
type Product struct {
	Name        string `json:"name,omitempty"`
	Vendor      string `json:"vendor,omitempty"`
	Version     string `json:"version,omitempty"`
	FullVersion string `json:"fullVersion,omitempty"`
	URL         string `json:"url,omitempty"`
	VendorURL   string `json:"vendorUrl,omitempty"`
	AppURL      string `json:"appUrl,omitempty"`
}

// A Property is a setting that the guest gets when it is deployed.
type Property struct {
	Class            string `json:"class,omitempty"` // of its ProductSection
	Instance         string `json:"instance,omitempty"`
	Key              string `json:"key"`
	Type             string `json:"type"` // string, uint8 ... real64, boolean; ip and others of products as they are
	Value            string `json:"value"`
	Qualifiers       string `json:"qualifiers,omitempty"`
	Label            string `json:"label,omitempty"`
	Description      string `json:"description,omitempty"`
	Category         string `json:"category,omitempty"`
	UserConfigurable bool   `json:"userConfigurable"`
	Password         bool   `json:"password"` // Value is a secret
}

// A Loss is what cannot be carried over: by a reader into the model, by a
// writer into its format.
type Loss struct {
	Field  string `json:"field"` // in the words of the JSON of [Machine]: nics[0].type; of a reader, the descriptor's
	Value  string `json:"value"` // never a secret
	Reason string `json:"reason"`
}
