package ovf

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/davit-oci/davit/machine"
)

// The OVF of bare disks, as docs/spec.md has it. Every byte counts: the OVF is
// the config of an artifact, and the artifact has the same digest wherever it
// is made. A file's name is that of a raw disk, which is never there: it is for
// tools that want one.
const (
	bareHead = `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References>
`
	bareFile = `    <File ovf:id="file%[1]d" ovf:href="disk%[1]d.img"/>
`
	bareDisks = `  </References>
  <DiskSection>
    <Info>Virtual disks</Info>
`
	bareDisk = `    <Disk ovf:diskId="%[2]s" ovf:fileRef="file%[1]d" ovf:capacity="%[3]d" ovf:format="https://github.com/davit-oci/davit#disk"/>
`
	bareSystem = `  </DiskSection>
  <VirtualSystem ovf:id="vm">
    <Info>A virtual machine</Info>
    <VirtualHardwareSection>
      <Info>Virtual hardware</Info>
      <Item>
        <rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits>
        <rasd:ElementName>CPU</rasd:ElementName>
        <rasd:InstanceID>1</rasd:InstanceID>
        <rasd:ResourceType>3</rasd:ResourceType>
        <rasd:VirtualQuantity>1</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits>
        <rasd:ElementName>Memory</rasd:ElementName>
        <rasd:InstanceID>2</rasd:InstanceID>
        <rasd:ResourceType>4</rasd:ResourceType>
        <rasd:VirtualQuantity>1024</rasd:VirtualQuantity>
      </Item>
      <Item>
        <rasd:Address>0</rasd:Address>
        <rasd:ElementName>SATA controller</rasd:ElementName>
        <rasd:InstanceID>3</rasd:InstanceID>
        <rasd:ResourceSubType>AHCI</rasd:ResourceSubType>
        <rasd:ResourceType>20</rasd:ResourceType>
      </Item>
`
	bareItem = `      <Item>
        <rasd:AddressOnParent>%[1]d</rasd:AddressOnParent>
        <rasd:ElementName>%[2]s</rasd:ElementName>
        <rasd:HostResource>ovf:/disk/%[2]s</rasd:HostResource>
        <rasd:InstanceID>%[3]d</rasd:InstanceID>
        <rasd:Parent>3</rasd:Parent>
        <rasd:ResourceType>17</rasd:ResourceType>
      </Item>
`
	bareEnd = `    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`
	bareFirstDisk = 4 // rasd:InstanceID of the first disk, after CPU, memory and controller
)

// Bare returns the OVF of a machine that is known by its disks alone. It
// depends on names and capacities, and validates against DMTF DSP8023 1.1.1.
// There is at least one disk.
func Bare(disks []machine.Disk) []byte {
	var b bytes.Buffer
	b.WriteString(bareHead)
	for n := range disks {
		fmt.Fprintf(&b, bareFile, n)
	}
	b.WriteString(bareDisks)
	for n, d := range disks {
		fmt.Fprintf(&b, bareDisk, n, escape(d.Name), d.Capacity)
	}
	b.WriteString(bareSystem)
	for n, d := range disks {
		fmt.Fprintf(&b, bareItem, n, escape(d.Name), bareFirstDisk+n)
	}
	b.WriteString(bareEnd)
	return b.Bytes()
}

// escape changes nothing in a name that an artifact can have.
func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder does not fail
	return b.String()
}
