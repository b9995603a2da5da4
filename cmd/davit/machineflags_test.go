package main

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
	"github.com/spf13/cobra"
)

// machineOf is the machine of two disks that the given flags describe.
func machineOf(t *testing.T, args ...string) (*machine.Envelope, error) {
	t.Helper()
	var f machineFlags
	cmd := &cobra.Command{}
	f.flags(cmd)
	if err := cmd.ParseFlags(args); err != nil {
		return nil, usageError{err}
	}
	if err := f.load(nil); err != nil {
		return nil, err
	}
	return f.envelope([]machine.Disk{{Name: "root", Capacity: 1 << 30}, {Name: "data", Capacity: 4096}})
}

func TestMachineFlags(t *testing.T) {
	if e, err := machineOf(t); e != nil || err != nil {
		t.Errorf("without flags: %v, %v; want nothing, so that the OVF is that of bare disks", e, err)
	}
	e, err := machineOf(t, "--cpus=4", "--memory=2G", "--firmware=uefi-secure", "--nic=vmxnet3,network=VM Network, 2nd", "--nic", "virtio")
	if err != nil {
		t.Fatal(err)
	}
	want := &machine.Envelope{
		Machines: []*machine.Machine{{
			ID: "vm", CPUs: 4, Memory: 2 << 30, Firmware: machine.UEFI, SecureBoot: true,
			Controllers: []machine.Controller{{Name: "sata0", Type: machine.SATA, Model: machine.AHCI}},
			Disks: []machine.Disk{
				{Name: "root", Controller: "sata0", Bus: machine.SATA, Capacity: 1 << 30, File: "disk0.img", Format: "raw"},
				{Name: "data", Controller: "sata0", Bus: machine.SATA, Unit: 1, Capacity: 4096, File: "disk1.img", Format: "raw"},
			},
			NICs: []machine.NIC{{Type: machine.VMXNET3, Network: "VM Network, 2nd"}, {Type: machine.VirtioNet}},
		}},
		Disks: []machine.Disk{{Name: "root", Capacity: 1 << 30, File: "disk0.img", Format: "raw"}, {Name: "data", Capacity: 4096, File: "disk1.img", Format: "raw"}},
		Files: []machine.File{{ID: "file0", Name: "disk0.img", Size: -1}, {ID: "file1", Name: "disk1.img", Size: -1}},
	}
	if !reflect.DeepEqual(e, want) {
		t.Errorf("got %+v, machine %+v", e, e.Machines[0])
	}
	if e, err = machineOf(t, "--firmware", "bios"); err != nil || e.Machines[0].CPUs != 1 || e.Machines[0].Memory != 1<<30 {
		t.Errorf("defaults: %+v, %v; want 1 CPU and 1 GiB", e, err)
	}
}

func TestMachineFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vm.yaml")
	write(t, path, `
# everything
name: web
description: a web server
cpus: 4
coresPerSocket: 2
memory: 1536M
firmware: uefi
secureBoot: true
tpm: "2.0"
guestOS: debian12_64Guest
bus: scsi
disks: [{name: data, bus: virtio}]
nics:
- {type: vmxnet3, network: VM Network, mac: "00-50-56-AA-00-01"}
- {type: e1000}
bootOrder: [cdrom, disk]
product: {name: Web, vendor: ACME, version: 1.10, fullVersion: 1.10-3, url: "http://a", vendorUrl: "http://b", appUrl: "http://c"}
eula: |
  You may.
properties:
- {class: com.acme, instance: "1", key: port, type: uint16, value: 080, label: Port, description: of it, category: Net, userConfigurable: true}
- {key: admin, password: true}
`)
	e, err := machineOf(t, "--machine-file", path)
	if err != nil {
		t.Fatal(err)
	}
	got := e.Machines[0]
	if got.GuestOS.VMware != "debian12_64Guest" || got.GuestOS.Osinfo != "http://debian.org/debian/12" {
		t.Errorf("guest OS: %+v", got.GuestOS)
	}
	got.GuestOS = machine.GuestOS{}
	want := &machine.Machine{
		ID: "vm", Name: "web", Description: "a web server", CPUs: 4, CoresPerSocket: 2, Memory: 1536 << 20,
		Firmware: machine.UEFI, SecureBoot: true, TPM: machine.TPM20,
		Controllers: []machine.Controller{{Name: "scsi0", Type: machine.SCSI}},
		Disks: []machine.Disk{
			{Name: "root", Controller: "scsi0", Bus: machine.SCSI, Capacity: 1 << 30, File: "disk0.img", Format: "raw"},
			{Name: "data", Bus: machine.Virtio, Capacity: 4096, File: "disk1.img", Format: "raw"},
		},
		NICs:      []machine.NIC{{Type: machine.VMXNET3, Network: "VM Network", MAC: "00:50:56:aa:00:01"}, {Type: machine.E1000}},
		BootOrder: []machine.BootDevice{machine.BootCDROM, machine.BootDisk},
		Product:   machine.Product{Name: "Web", Vendor: "ACME", Version: "1.10", FullVersion: "1.10-3", URL: "http://a", VendorURL: "http://b", AppURL: "http://c"},
		EULAs:     []string{"You may.\n"},
		Properties: []machine.Property{
			{Class: "com.acme", Instance: "1", Key: "port", Type: "uint16", Value: "080", Label: "Port", Description: "of it", Category: "Net", UserConfigurable: true},
			{Key: "admin", Type: "string", Password: true},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// Secure boot is the firmware's, so that it says which.
func TestSecureBootIsUEFI(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vm.yaml")
	write(t, path, "secureBoot: true")
	e, err := machineOf(t, "--machine-file", path)
	if err != nil || e.Machines[0].Firmware != machine.UEFI || !e.Machines[0].SecureBoot {
		t.Errorf("got %+v, %v; want UEFI", e, err)
	}
}

// The documentation shows every member, and each is as davit reads it.
func TestMachineFileDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/machine-file.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	var f machineFile
	if err := decodeMachineFile([]byte(example), &f); err != nil {
		t.Fatal(err)
	}
	if err := f.check(""); err != nil {
		t.Error(err)
	}
	var members func(path string, of reflect.Type)
	members = func(path string, of reflect.Type) {
		switch of.Kind() {
		case reflect.Slice:
			members(path, of.Elem())
		case reflect.Struct:
			for i := range of.NumField() {
				member := of.Field(i).Tag.Get("yaml")
				for name, text := range map[string]string{"the page": example, "the help": machineFileHelp} {
					if !regexp.MustCompile(`\b` + member + `\b`).MatchString(text) {
						t.Errorf("%s does not have %s%s", name, path, member)
					}
				}
				members(path+member+".", of.Field(i).Type)
			}
		}
	}
	members("", reflect.TypeFor[machineFile]())
	for _, n := range nicTypes {
		if !strings.Contains(string(page), string(n)) {
			t.Errorf("the page does not have the card %s", n)
		}
	}
	if names(nicTypes) != nicTypeNames {
		t.Errorf("the help has the cards %s, want %s", nicTypeNames, names(nicTypes))
	}
}

// Each is refused by name, before anything is touched.
func TestMachineFlagsRefuses(t *testing.T) {
	for _, test := range []struct{ name, args, file, want string }{
		{name: "flags beside a file", args: "--cpus=2", file: "cpus: 3", want: "--cpus, --memory, --firmware and --nic"},
		{name: "no CPUs", args: "--cpus=0", want: "not 1 to"},
		{name: "CPUs that are no number", args: "--cpus=2x", want: "not 1 to"},
		{name: "too many CPUs", args: "--cpus=65537", want: "not 1 to"},
		{name: "memory in bytes", args: "--memory=1024", want: "write 512M"},
		{name: "too much memory", args: "--memory=1025T", want: "--memory: "},
		{name: "unknown firmware", args: "--firmware=efi", want: "bios, uefi, uefi-secure"},
		{name: "unknown card", args: "--nic=vmxnet4", want: nicTypeNames},
		{name: "card with an unknown option", args: "--nic=e1000,mac=00:00:00:00:00:00", want: "network=NAME"},
		{name: "card in a network without a name", args: "--nic=e1000,network=", want: "network=NAME"},
		{name: "empty file", file: "# nothing", want: "it is empty"},
		{name: "unknown member", file: "name: a\ncpu: 3", want: "line 2: field cpu not found"},
		{name: "unknown member of a disk", file: "disks:\n- name: root\n  boot: 1", want: "line 3: field boot not found"},
		{name: "member twice", file: "cpus: 3\ncpus: 4", want: `"cpus" already defined`},
		{name: "anchor", file: "name: &a x\ndescription: *a", want: "line 1: anchors"},
		{name: "firmware of the file", file: "name: a\nfirmware: efi", want: "bios, uefi, uefi-secure"},
		{name: "two documents", file: "cpus: 3\n---\ncpus: 4", want: "more than one document"},
		{name: "a list", file: "- cpus", want: "line 1: cannot unmarshal"},
		{name: "too long", file: "# " + strings.Repeat("x", maxMachineFile), want: "more than 1048576 bytes"},
		{name: "negative CPUs", file: "cpus: -1", want: "cpus: -1 is not"},
		{name: "sockets of part of a CPU", file: "cpus: 4\ncoresPerSocket: 3", want: "coresPerSocket: "},
		{name: "memory without unit", file: "memory: 2048", want: "memory: 2048 bytes"},
		{name: "secure boot of a BIOS", file: "firmware: bios\nsecureBoot: true", want: "secureBoot: it needs firmware: uefi"},
		{name: "unknown TPM", file: "tpm: 2", want: `tpm: "2" is not one of`},
		{name: "unknown bus", file: "bus: esdi", want: "sata, scsi, virtio, ide, nvme"},
		{name: "disk without bus", file: "disks: [{name: root}]", want: "disks[0].bus: "},
		{name: "disk that is not there", file: "disks: [{name: boot, bus: ide}]", want: `no disk is called "boot"`},
		{name: "disk twice", file: "disks: [{name: root, bus: ide}, {name: root, bus: scsi}]", want: `"root" is there twice`},
		{name: "card without type", file: "nics: [{network: a}]", want: `nics[0].type: "" is not one of e1000`},
		{name: "no MAC", file: "nics: [{type: e1000, mac: 1234}]", want: "nics[0].mac: "},
		{name: "MAC of eight bytes", file: "nics: [{type: e1000, mac: 00-00-00-00-00-00-00-01}]", want: "nics[0].mac: "},
		{name: "unknown boot device", file: "bootOrder: [usb]", want: "disk, cdrom, network, floppy"},
		{name: "boot device twice", file: "bootOrder: [disk, disk]", want: "bootOrder[1]: disk is there twice"},
		{name: "property without key", file: "properties: [{value: a}]", want: "properties[0].key: "},
		{name: "property twice", file: "properties: [{key: a}, {key: a}]", want: "properties[1].key: a is there twice"},
	} {
		t.Run(test.name, func(t *testing.T) {
			args := strings.Fields(test.args)
			if test.file != "" {
				path := filepath.Join(t.TempDir(), "vm.yaml")
				write(t, path, test.file)
				args = append(args, "--machine-file", path)
			}
			_, err := machineOf(t, args...)
			if !isUsage(err) || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "main.") {
				t.Errorf("got %v; want a usage error that says %q", err, test.want)
			}
		})
	}
	if _, err := machineOf(t, "--machine-file", filepath.Join(t.TempDir(), "missing")); err == nil || isUsage(err) {
		t.Errorf("missing file: %v; want an error that is no usage error", err)
	}
}

// No two disks are in one place, and none in that of a SCSI controller.
func TestMachineDisksAttached(t *testing.T) {
	for bus, want := range map[machine.Bus]struct {
		controllers int
		last        string // of 40 disks
	}{
		machine.SATA:   {2, "sata1:9"},
		machine.SCSI:   {3, "scsi2:10"},
		machine.NVMe:   {3, "nvme2:9"},
		machine.Virtio: {0, "virtio"},
	} {
		f := machineFlags{file: "vm.yaml", spec: machineFile{Bus: bus}}
		var disks []machine.Disk
		for _, name := range strings.Split(strings.Repeat("d ", 40), " ")[:40] {
			disks = append(disks, machine.Disk{Name: name, Capacity: 1})
		}
		e, err := f.envelope(disks)
		if err != nil {
			t.Fatal(err)
		}
		m := e.Machines[0]
		if len(m.Controllers) != want.controllers {
			t.Errorf("%s: %d controllers, want %d", bus, len(m.Controllers), want.controllers)
		}
		taken := make(map[string]bool)
		for i, d := range m.Disks {
			at := attachment(d.Controller, d.Bus, d.Unit)
			if d.Controller != "" && (taken[at] || bus == machine.SCSI && d.Unit == 7) {
				t.Errorf("%s: disk %d is at %s", bus, i, at)
			}
			taken[at] = true
			if i == len(m.Disks)-1 && at != want.last {
				t.Errorf("%s: the last disk is at %s, want %s", bus, at, want.last)
			}
		}
	}
	f := machineFlags{file: "vm.yaml", spec: machineFile{Bus: machine.IDE}}
	if _, err := f.envelope(make([]machine.Disk, 4)); err != nil {
		t.Errorf("four disks on IDE: %v", err)
	}
	if _, err := f.envelope(make([]machine.Disk, 5)); !isUsage(err) {
		t.Errorf("five disks on IDE: %v; want a usage error", err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// The beginning of a value, as the decoder quotes it, can be one of a password.
func TestYAMLErrorsQuoteNoValue(t *testing.T) {
	for _, file := range []string{"network: Sw0rdFish", "cpus: 1\nnics: {a: Sw0rd`Fi`sh}", "machine: !!int Sw0rdFish", "plainHTTP: Sw0rdFish", "jobs: \"user:Sw0rdFish\"",
		"registries: Sw0rdFish", "registries: {h: {plainHTTP: Sw0rdFish}}", "forbidUnverified: !!bool Sw0rdFish"} {
		path := filepath.Join(t.TempDir(), "file.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		g := &globals{stderr: &console{}}
		_, err := g.readConfig(path)
		for _, err := range []error{err, decodeMachineFile([]byte(file), new(machineFile))} {
			if err != nil && (strings.Contains(err.Error(), "Sw") || strings.Contains(err.Error(), "`")) {
				t.Errorf("%s: %v", file, err)
			}
		}
		if err == nil {
			t.Errorf("%s is read", file)
		}
	}
}
