package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/internal/programs"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/ovf"
)

// vCenter, as far as govmomi simulates it, imports an OVA that davit writes, and then has that machine.
func TestVSphereImports(t *testing.T) {
	programs.Need(t, "govcsim")
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
	w, err := appliance.NewOVA(ova, appliance.Package{Name: "web", Envelope: e, Descriptor: func(e *machine.Envelope) ([]byte, error) {
		data, _, err := ovf.Write(e, ovf.WriteOptions{Target: ovf.VMware})
		return data, err
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

	vm := importOVA(h, "web.ova")
	if vm.Config.GuestID != "debian12_64Guest" || vm.Config.Version != "vmx-10" || vm.Config.Hardware.NumCPU != 4 || vm.Config.Hardware.MemoryMB != 3<<10 {
		t.Errorf("the machine is %+v", vm.Config)
	}
	if p := vm.Config.VAppConfig.Property; len(p) != 1 || p[0].ID != "hostname" || p[0].DefaultValue != "web" {
		t.Errorf("its properties are %+v", p)
	}
	got := vm.devices()
	want := []string{"disk root on lsilogic, 65536 KB", "disk data on pvscsi, 1048576 KB", "CD on ide", "NIC", "NIC"}
	if !slices.Equal(got, want) {
		t.Errorf("it has %q, want %q", got, want)
	}
}

// So it does with one that was pulled.
func TestVSphereImportsPulled(t *testing.T) {
	t.Parallel()
	programs.Need(t, "govcsim")
	h := newHost(t)
	writeFileAt(t, h.path("root.raw"), 9<<20, map[int64][]byte{0: prose(1, 1<<20)})
	writeFileAt(t, h.path("data.raw"), 3<<20+512, map[int64][]byte{1 << 20: fill(2, 1<<20)})
	machine := `{name: shop, cpus: 2, memory: 2G, guestOS: debian12_64Guest, bus: scsi, disks: [{name: data, bus: ide}],
nics: [{type: virtio, network: LAN}], properties: [{key: hostname, value: shop1, userConfigurable: true}]}`
	if err := os.WriteFile(h.path("machine.yaml"), []byte(machine), 0o600); err != nil {
		t.Fatal(err)
	}
	ref := newOlareg(t).host + "/shop:v1"
	h.ok("push", "--machine-file", "machine.yaml", "root=root.raw", "data=data.raw", ref)
	h.ok("pull", "--unverified", ref, "shop.ova")

	vm := importOVA(h, "shop.ova")
	if vm.Config.GuestID != "debian12_64Guest" || vm.Config.Hardware.NumCPU != 2 || vm.Config.Hardware.MemoryMB != 2<<10 {
		t.Errorf("the machine is %+v", vm.Config)
	}
	if p := vm.Config.VAppConfig.Property; len(p) != 1 || p[0].ID != "hostname" || p[0].DefaultValue != "shop1" {
		t.Errorf("its properties are %+v", p)
	}
	got := vm.devices()
	want := []string{"disk root on lsilogic, 9216 KB", "disk data on ide, 3136 KB", "NIC"} // a VMDK of this kind has whole grains of 64 KiB
	if !slices.Equal(got, want) {
		t.Errorf("it has %q, want %q", got, want)
	}
}

// A vsphereVM is a virtual machine as vCenter reports it.
type vsphereVM struct {
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

// importOVA imports an OVA into a vCenter of its own.
func importOVA(h *host, ova string) vsphereVM {
	h.t.Helper()
	out := h.tool("govcsim", "import.ova", "-name", "vm", ova, "--", "vm.info", "-json", "vm")
	var report struct{ VirtualMachines []vsphereVM }
	_, object, _ := strings.Cut(out, "\n{") // before it is the progress of the import
	if err := json.Unmarshal([]byte("{"+object), &report); err != nil || len(report.VirtualMachines) != 1 {
		h.t.Fatalf("%v\n%s", err, out)
	}
	return report.VirtualMachines[0]
}

// devices are those that davit writes.
func (vm *vsphereVM) devices() (names []string) {
	labels := make(map[int]string)
	for _, d := range vm.Config.Hardware.Device {
		labels[d.Key] = d.DeviceInfo.Label
		on := strings.TrimRight(labels[d.ControllerKey], "-0123456789")
		switch {
		case d.CapacityInKB > 0:
			names = append(names, fmt.Sprintf("disk %s on %s, %d KB", d.DeviceInfo.Label, on, d.CapacityInKB))
		case strings.HasSuffix(d.Backing.FileName, ".iso"):
			names = append(names, "CD on "+on)
		case d.MacAddress != "":
			names = append(names, "NIC")
		}
	}
	return names
}
