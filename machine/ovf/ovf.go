// Package ovf reads and writes Open Virtualization Format descriptors: OVF 0.9
// of VMware, 1.x and 2.x of the DMTF (DSP0243).
//
// [Parse] reads what products write, of which a third validates against the
// schema. [Write] writes OVF 1.1 that does. [Bare] is the OVF of an artifact
// of disks alone.
package ovf

// The namespaces of elements and attributes.
const (
	namespace09 = "http://www.vmware.com/schema/ovf/1/envelope"
	namespace1  = "http://schemas.dmtf.org/ovf/envelope/1"
	namespace2  = "http://schemas.dmtf.org/ovf/envelope/2"

	namespaceRASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
	namespaceVSSD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"

	namespaceVMware     = "http://www.vmware.com/schema/ovf"
	namespaceXenServer  = "http://schemas.citrix.com/ovf/envelope/1"
	namespaceVirtualBox = "http://www.virtualbox.org/ovf/machine"
	namespaceOVirt      = "http://www.ovirt.org/ovf"
	namespaceXSI        = "http://www.w3.org/2001/XMLSchema-instance"
	namespaceDavit      = "https://github.com/davit-oci/davit#machine" // what OVF has no word for
)

// The values of rasd:ResourceType, CIM_ResourceAllocationSettingData.ResourceType,
// that describe a virtual machine.
const (
	typeOther        = 1
	typeCPU          = 3
	typeMemory       = 4
	typeIDE          = 5
	typeSCSI         = 6
	typeFibreChannel = 7
	typeISCSI        = 8
	typeInfiniBand   = 9
	typeEthernet     = 10
	typeOtherNetwork = 11
	typeIOSlot       = 12
	typeIODevice     = 13
	typeFloppy       = 14
	typeCD           = 15
	typeDVD          = 16
	typeDisk         = 17
	typeTape         = 18
	typeStorage      = 19 // Storage Extent
	typeOtherStorage = 20 // SATA controllers, by all who have them
	typeSerial       = 21
	typeParallel     = 22
	typeUSB          = 23
	typeGraphics     = 24
	typeFireWire     = 25
	typeLogicalDisk  = 31
	typeTPM          = 34 // "Memory Module" by CIM; a TPM by vSphere
	typeSound        = 35 // by VirtualBox; CIM has none
)

// The media types of a Disk element, ovf:format. VMware's are followed by #
// and the kind of VMDK.
const (
	formatStreamOptimized = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
	formatVHD             = "http://go.microsoft.com/fwlink/?LinkId=137171"
	formatVHDX            = "https://www.microsoft.com/en-us/download/details.aspx?id=34750"
	formatQCOW2           = "http://www.gnome.org/~markmc/qcow-image-format.html"
	formatBare            = "https://github.com/davit-oci/davit#disk" // the content, in no file
	formatVDI             = "https://github.com/davit-oci/davit#vdi"  // nobody else has one
	formatUnknown         = "https://github.com/davit-oci/davit#unknown"
)

// formats says what a file holds, as package disk names formats, by the ovf:format
// of its Disk in lower case, up to # where it is not here as a whole.
var formats = map[string]string{
	"http://www.vmware.com/interfaces/specifications/vmdk.html":             "vmdk",
	"http://www.vmware.com/interfaces/interfaces/specifications/vmdk.html":  "vmdk", // a mistake of early ovftools
	"http://www.vmware.com/specifications/vmdk.html":                        "vmdk", // OVF 0.9
	"http://go.microsoft.com/fwlink/?linkid=137171":                         "vhd",  // VirtualBox
	"http://www.microsoft.com/technet/virtualserver/downloads/vhdspec.mspx": "vhd",  // XenServer
	"https://www.microsoft.com/en-us/download/details.aspx?id=34750":        "vhdx",
	"http://www.gnome.org/~markmc/qcow-image-format.html":                   "qcow2", // Red Hat
	formatBare: "raw",
	formatVDI:  "vdi",
}
