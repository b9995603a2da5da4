package vmx_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/vmx"
)

// libvirtSets are the tests of libvirt's VMX driver: what a VMX is as a domain,
// and a domain as a VMX. They are on some machines only, as they are under the
// LGPL, which this project is not.
var libvirtSets = []string{
	"../../../shared/corpus/vmx/libvirt__vmx2xmldata",
	"../../../shared/corpus/vmx/libvirt__xml2vmxdata",
	"../../../shared/corpus/vmx/libguestfs__virt-v2v/tests", // VMX only
}

// A libvirtDomain is as much of a domain as a VMX and the model have.
type libvirtDomain struct {
	Name        string `xml:"name"`
	Description string `xml:"description"`
	Memory      struct {
		Unit string `xml:"unit,attr"`
		N    int64  `xml:",chardata"`
	} `xml:"memory"`
	VCPU     int `xml:"vcpu"`
	Topology struct {
		Cores int `xml:"cores,attr"`
	} `xml:"cpu>topology"`
	OS struct {
		Firmware string `xml:"firmware,attr"`
		Type     struct {
			Arch string `xml:"arch,attr"`
		} `xml:"type"`
	} `xml:"os"`
	Devices struct {
		Disks       []libvirtDisk `xml:"disk"`
		Controllers []struct {
			Type  string `xml:"type,attr"`
			Index int    `xml:"index,attr"`
			Model string `xml:"model,attr"`
		} `xml:"controller"`
		Interfaces []struct {
			Type string `xml:"type,attr"`
			MAC  struct {
				Address string `xml:"address,attr"`
			} `xml:"mac"`
			Source struct {
				Bridge string `xml:"bridge,attr"`
			} `xml:"source"`
			Model struct {
				Type string `xml:"type,attr"`
			} `xml:"model"`
		} `xml:"interface"`
		VRAM struct {
			KiB int64 `xml:"vram,attr"`
		} `xml:"video>model"`
		Others []struct {
			XMLName xml.Name
		} `xml:",any"`
	} `xml:"devices"`
}

type libvirtDisk struct {
	Device string `xml:"device,attr"`
	Source struct {
		File string `xml:"file,attr"`
		Dev  string `xml:"dev,attr"`
	} `xml:"source"`
	Target struct {
		Dev string `xml:"dev,attr"`
		Bus string `xml:"bus,attr"`
	} `xml:"target"`
	Address *struct {
		Controller int `xml:"controller,attr"`
		Bus        int `xml:"bus,attr"`
		Unit       int `xml:"unit,attr"`
	} `xml:"address"`
}

// place is where the disk is, in the words of a VMX.
func (d libvirtDisk) place() string {
	controller, unit := 0, 0
	if d.Address != nil {
		controller, unit = d.Address.Controller, d.Address.Unit
		if d.Target.Bus == "ide" {
			controller = d.Address.Bus
		}
	} else { // of a domain that was not completed: the name says it
		n := int(d.Target.Dev[2] - 'a')
		if len(d.Target.Dev) == 4 {
			n = (n+1)*26 + int(d.Target.Dev[3]-'a')
		}
		if per := map[string]int{"ide": 2, "scsi": 15, "sata": 30}[d.Target.Bus]; per > 0 {
			controller, unit = n/per, n%per
		}
		if d.Target.Bus == "scsi" && unit >= 7 {
			unit++
		}
	}
	return fmt.Sprintf("%s%d:%d", d.Target.Bus, controller, unit)
}

// TestLibvirt compares what a VMX is to us with what it is to libvirt.
//
// They differ in what libvirt completes (memory to a multiple of 4 MiB, one
// CPU), in words (an IDE channel is a controller here) and in the drives and
// devices of the host, which are reported here and are no part of the machine.
func TestLibvirt(t *testing.T) {
	all, compared := 0, 0
	for _, dir := range libvirtSets {
		names, err := filepath.Glob(filepath.Join(dir, "*.vmx"))
		if err != nil {
			t.Fatal(err)
		}
		all += len(names)
		for _, name := range names {
			key := filepath.Base(filepath.Dir(name)) + "/" + strings.TrimSuffix(filepath.Base(name), ".vmx")
			t.Run(key, func(t *testing.T) {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				env, err := vmx.Parse(data)
				if err != nil {
					t.Fatal(err)
				}
				domain, err := os.ReadFile(strings.TrimSuffix(name, ".vmx") + ".xml")
				if errors.Is(err, os.ErrNotExist) {
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				compared++
				var want libvirtDomain
				if err := xml.Unmarshal(domain, &want); err != nil {
					t.Fatal(err)
				}
				for _, fault := range compareDomain(env.Machines[0], want) {
					t.Error(fault)
				}
			})
		}
	}
	t.Logf("%d VMX, %d of them with a domain", all, compared)
	if all > 0 && compared == 0 {
		t.Error("not one VMX was compared with its domain")
	}
}

// compareDomain returns where the machine of a VMX is not that of the domain.
func compareDomain(m *machine.Machine, d libvirtDomain) (faults []string) {
	fault := func(what string, got, want any) {
		if fmt.Sprint(got) != fmt.Sprint(want) {
			faults = append(faults, fmt.Sprintf("%s: got %v, want %v", what, got, want))
		}
	}
	unit := map[string]int64{"": 1 << 10, "KiB": 1 << 10, "MiB": 1 << 20}[d.Memory.Unit]
	fault("name", m.Name, d.Name)
	fault("description", m.Description, d.Description)
	const step = 4 << 20 // of memory in a VMX: libvirt rounds up when it writes one
	fault("memory", m.Memory, (d.Memory.N*unit+step-1)/step*step)
	fault("CPUs", m.CPUs, max(1, d.VCPU)) // a domain that was not completed
	if d.Topology.Cores > 0 {
		fault("cores per socket", m.CoresPerSocket, d.Topology.Cores)
	}
	fault("firmware is UEFI", m.Firmware == machine.UEFI, d.OS.Firmware == "efi")
	if m.GuestOS.VMware != "" {
		fault("64 bits", strings.Contains(m.GuestOS.VMware, "64"), d.OS.Type.Arch == "x86_64")
	}

	// Disks and CD drives with their files by place; what is of the host, as
	// libvirt's drives and LUNs with a device are, is among what was not read.
	got, want := map[string]string{}, map[string]string{}
	for _, disk := range m.Disks {
		got[fmt.Sprintf("disk %s:%d", disk.Controller, disk.Unit)] = libvirtFile(disk.File)
	}
	for _, drive := range m.CDROMs {
		got[fmt.Sprintf("cdrom %s:%d", drive.Controller, drive.Unit)] = libvirtFile(drive.File)
	}
	for _, disk := range d.Devices.Disks {
		place := disk.place()
		switch disk.Device {
		case "floppy":
			continue
		case "lun":
			if _, drive := got["cdrom "+place]; drive { // cdrom-raw
				want["cdrom "+place] = ""
			}
		default:
			want[disk.Device+" "+place] = disk.Source.File
		}
		if dev := disk.Source.Dev; dev != "" && !slices.ContainsFunc(m.Unread, func(l machine.Loss) bool { return l.Value == dev }) {
			faults = append(faults, fmt.Sprintf("%s is not reported: %v", dev, m.Unread))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok {
			faults = append(faults, key+" is too many")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if file, ok := got[key]; !ok {
			faults = append(faults, key+" is missing")
		} else {
			fault(key, file, libvirtFile(want[key]))
		}
	}
	for _, c := range d.Devices.Controllers {
		if c.Type != "scsi" {
			continue
		}
		name := fmt.Sprint("scsi", c.Index)
		i := slices.IndexFunc(m.Controllers, func(got machine.Controller) bool { return got.Name == name })
		if i < 0 {
			faults = append(faults, name+" is missing")
			continue
		}
		fault(name, m.Controllers[i].Model, strings.TrimPrefix(c.Model, "vm")) // vmpvscsi
	}

	if len(m.NICs) != len(d.Devices.Interfaces) {
		fault("NICs", len(m.NICs), len(d.Devices.Interfaces))
		return faults
	}
	for i, want := range d.Devices.Interfaces {
		nic, model := m.NICs[i], strings.ToLower(want.Model.Type)
		if model == "vlance" {
			model = "pcnet"
		}
		fault(nic.Name+" type", nic.Type, model)
		fault(nic.Name+" MAC", strings.TrimPrefix(nic.MAC, noMAC), strings.TrimPrefix(strings.ToLower(want.MAC.Address), noMAC))
		switch network := want.Source.Bridge; want.Type {
		case "user":
			fault(nic.Name+" network", nic.Network, "nat")
		case "bridge":
			if network == "" {
				network = "bridged"
			}
			fault(nic.Name+" network", nic.Network, network)
		default:
			fault(nic.Name+" network", nic.Network, "")
		}
	}

	if n := m.Display.Memory; n > 0 && d.Devices.VRAM.KiB > 0 {
		fault("video memory", n>>10, d.Devices.VRAM.KiB)
	}
	for _, other := range d.Devices.Others {
		switch kind := other.XMLName.Local; kind {
		case "serial", "parallel", "filesystem", "graphics":
			prefix := map[string]string{"filesystem": "sharedFolder", "graphics": "RemoteDisplay"}[kind]
			if prefix == "" {
				prefix = kind
			}
			if !slices.ContainsFunc(m.Unread, func(l machine.Loss) bool { return strings.HasPrefix(l.Field, prefix) }) {
				faults = append(faults, kind+" is not reported")
			}
		}
	}
	return faults
}

// noMAC is how libvirt writes that there is none.
const noMAC = "00:00:00:00:00:00"

// libvirtFile is the path of a datastore as its tests have it: that of a name
// is "[datastore] directory/".
func libvirtFile(name string) string {
	if rest, ok := strings.CutPrefix(name, "/vmfs/volumes/"); ok {
		store, path, _ := strings.Cut(rest, "/")
		return "[" + store + "] " + path
	}
	if name != "" && !strings.ContainsAny(name, `/\`) {
		return "[datastore] directory/" + name
	}
	return name
}
