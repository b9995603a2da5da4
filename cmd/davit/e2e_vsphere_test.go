package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/ovf"
)

// vCenter, as far as govmomi simulates it, imports an OVA that davit writes, and then has that machine.
func TestVSphereImports(t *testing.T) {
	needTool(t, "govcsim")
	root := machine.Disk{Name: "root", Capacity: 64 << 20, Format: "vmdk", File: "root.vmdk"}
	data := machine.Disk{Name: "data", Capacity: 1 << 30, Format: "vmdk", File: "data.vmdk"}
	on := func(d machine.Disk, controller string, bus machine.Bus, unit int) machine.Disk {
		d.Controller, d.Bus, d.Unit = controller, bus, unit
		return d
	}
	e := &machine.Envelope{
		Files: []machine.File{{ID: "file0", Name: "root.vmdk"}, {ID: "file1", Name: "data.vmdk"}, {ID: "file2", Name: "seed.iso"}},
		Disks: []machine.Disk{root, data},
		Machines: []*machine.Machine{{
			ID: "web", Name: "web", CPUs: 4, CoresPerSocket: 2, Memory: 3 << 30, Firmware: machine.UEFI,
			GuestOS:     machine.GuestOS{Osinfo: "http://debian.org/debian/12"},
			Controllers: []machine.Controller{{Name: "scsi0", Type: machine.SCSI, Model: machine.LSILogic}, {Name: "ide0", Type: machine.IDE}},
			Disks:       []machine.Disk{on(root, "scsi0", machine.SCSI, 3), on(data, "", machine.Virtio, 0)},
			CDROMs:      []machine.CDROM{{Controller: "ide0", Bus: machine.IDE, Unit: 1, File: "seed.iso"}},
			NICs:        []machine.NIC{{Type: machine.VirtioNet, Network: "lan"}, {Type: machine.VMXNET3, Network: "VM Network"}},
			Properties:  []machine.Property{{Key: "hostname", Type: "string", Value: "web", UserConfigurable: true}},
			EULAs:       []string{"Agree."},
		}},
	}

	h := newHost(t)
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(h.path(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("disk.img", bytes.Repeat([]byte("davit"), 64<<20/5+1)[:64<<20])
	h.ok("convert", "-O", "vmdk:stream", "disk.img", "root.vmdk")
	h.ok("convert", "-O", "vmdk:stream", "disk.img", "data.vmdk")
	write("seed.iso", []byte("a CD"))
	ova, err := os.Create(h.path("web.ova"))
	if err != nil {
		t.Fatal(err)
	}
	defer ova.Close()
	w, err := appliance.NewOVA(ova, appliance.Package{Name: "web", Envelope: e, Descriptor: func(e *machine.Envelope) ([]byte, []machine.Loss, error) {
		return ovf.Write(e, ovf.WriteOptions{Target: ovf.VMware})
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range e.Files {
		content, err := os.ReadFile(h.path(f.Name))
		if err != nil {
			t.Fatal(err)
		}
		member, err := w.Create(f.Name)
		if err == nil {
			_, err = member.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	out := h.tool("govcsim", "import.ova", "-name", "web", "web.ova", "--", "vm.info", "-json", "web")
	var report struct {
		VirtualMachines []struct {
			Config struct {
				GuestID  string
				Version  string
				Hardware struct {
					NumCPU, MemoryMB int
					Device           []struct {
						DeviceInfo    struct{ Label string }
						Key           int
						ControllerKey int
						UnitNumber    int
						CapacityInKB  int64
						MacAddress    string
						Backing       struct{ FileName string }
					}
				}
				VAppConfig struct {
					Property []struct{ ID, DefaultValue string }
				}
			}
		}
	}
	_, object, _ := strings.Cut(out, "\n{") // before it is the progress of the import
	if err := json.Unmarshal([]byte("{"+object), &report); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	vm := report.VirtualMachines[0].Config
	if vm.GuestID != "debian12_64Guest" || vm.Version != "vmx-10" || vm.Hardware.NumCPU != 4 || vm.Hardware.MemoryMB != 3<<10 {
		t.Errorf("the machine is %+v", vm)
	}
	if p := vm.VAppConfig.Property; len(p) != 1 || p[0].ID != "hostname" || p[0].DefaultValue != "web" {
		t.Errorf("its properties are %+v", p)
	}
	var got []string
	labels := make(map[int]string)
	for _, d := range vm.Hardware.Device {
		labels[d.Key] = d.DeviceInfo.Label
		on := strings.TrimRight(labels[d.ControllerKey], "-0123456789")
		switch {
		case d.CapacityInKB > 0:
			got = append(got, fmt.Sprintf("disk %s on %s, %d KB", d.DeviceInfo.Label, on, d.CapacityInKB))
		case strings.HasSuffix(d.Backing.FileName, ".iso"):
			got = append(got, "CD on "+on)
		case d.MacAddress != "":
			got = append(got, "NIC")
		}
	}
	want := []string{"disk root on lsilogic, 65536 KB", "disk data on pvscsi, 1048576 KB", "CD on ide", "NIC", "NIC"}
	if !slices.Equal(got, want) {
		t.Errorf("it has %q, want %q", got, want)
	}
}
