package ovf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/internal/programs"
	"github.com/davit-oci/davit/machine"
)

// targets are all for which an OVF is written.
var targets = []Target{"", VMware, VirtualBox}

// fixed says what is wrong where an envelope that was read does not come back from what is written of it, field by field, or
// where that is not written again byte for byte. It returns what was written for each target.
func fixed(e *machine.Envelope, targets ...Target) (written [][]byte, err error) {
	for _, target := range targets {
		o := WriteOptions{Target: target}
		data, _, err := Write(e, o)
		if err != nil {
			return nil, fmt.Errorf("writing for %q: %w", target, err)
		}
		again, err := Parse(data)
		if err != nil {
			return nil, fmt.Errorf("reading what was written for %q: %w\n%s", target, err, data)
		}
		if d := differences(fields(again), fields(e)); len(d) > 0 {
			return nil, fmt.Errorf("written for %q, %s is no longer %q\n%s", target, d[0].path, d[0].value, data)
		}
		if target != "" { // the same fields, and so the same bytes: it is enough to see that once
			written = append(written, data)
			continue
		}
		twice, _, err := Write(again, o)
		if err != nil {
			return nil, fmt.Errorf("writing again for %q: %w", target, err)
		}
		if !bytes.Equal(twice, data) {
			return nil, fmt.Errorf("written again for %q it is\n%s\nwant\n%s", target, twice, data)
		}
		written = append(written, data)
	}
	return written, nil
}

// validate checks documents against the schema of OVF 1.1.1.
func validate(t *testing.T, documents map[string][]byte) {
	t.Helper()
	xmllint := programs.Need(t, "xmllint")
	dir := t.TempDir()
	args := []string{"--nonet", "--noout", "--schema", "../../testdata/schema/dsp8023_1.1.1.xsd"}
	for name, data := range documents {
		path := filepath.Join(dir, name+".ovf")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out, err := exec.CommandContext(t.Context(), xmllint, args...).CombinedOutput()
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if strings.HasPrefix(line, dir) && !strings.HasSuffix(line, " validates") {
			t.Error(strings.TrimPrefix(line, dir))
		}
	}
	t.Error(err)
}

// descriptors are OVFs of products: those that are committed, and where it is there the corpus beside the repository.
func descriptors(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, root := range []string{"../../testdata/machines", "../../../shared/corpus"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".ovf") {
				files = append(files, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return files
}

// What products describe comes back from what is written of it, is written the same again, and is OVF 1.1 by the schema.
func TestWrittenDescriptorsComeBack(t *testing.T) {
	files := descriptors(t)
	const parts = 4 // at a time
	for part := range parts {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			t.Parallel()
			documents := make(map[string][]byte)
			seen := make(map[string]bool) // ovftool's tests differ in what is not read
			for i := part * len(files) / parts; i < (part+1)*len(files)/parts; i++ {
				data, err := os.ReadFile(files[i])
				if err != nil {
					t.Fatal(err)
				}
				e, err := Parse(data)
				if err != nil {
					continue // the reader's tests say which, and why
				}
				same := fmt.Sprint(fields(e))
				if seen[same] {
					continue
				}
				seen[same] = true
				written, err := fixed(e, "")
				if err != nil {
					t.Errorf("%s: %v", files[i], err)
				}
				for _, target := range targets[1:] { // of which Write sees that they come back; random machines see that it does
					data, _, err := Write(e, WriteOptions{Target: target})
					if err != nil {
						t.Errorf("%s, for %s: %v", files[i], target, err)
					}
					written = append(written, data)
				}
				for n, document := range written {
					documents[fmt.Sprintf("%d-%d-%s", i, n, filepath.Base(files[i]))] = document
				}
			}
			validate(t, documents)
		})
	}
}

// Machines as no product has them come back as well.
func TestWrittenRandomMachinesComeBack(t *testing.T) {
	t.Parallel()
	documents := make(map[string][]byte)
	for seed := range int64(32) {
		e := randomEnvelope(rand.New(rand.NewSource(seed)))
		written, err := fixed(e, targets...)
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		for n, document := range written {
			documents[fmt.Sprintf("%d-%d", seed, n)] = document
		}
	}
	validate(t, documents)
}

// server is a machine with something of everything.
func server() *machine.Envelope {
	root := machine.Disk{Name: "root", Capacity: 1 << 30, Format: "vmdk", File: "root.vmdk"}
	data := machine.Disk{Name: "data", Capacity: 2 << 30, Format: "vmdk", File: "data.vmdk"}
	blank := machine.Disk{Name: "swap", Capacity: 3 << 30}
	on := func(d machine.Disk, controller string, bus machine.Bus) machine.Disk {
		d.Controller, d.Bus = controller, bus
		return d
	}
	readOnly := on(data, "", machine.Virtio)
	readOnly.ReadOnly, readOnly.SectorSize = true, 4096
	return &machine.Envelope{
		Files: []machine.File{
			{ID: "file0", Name: "root.vmdk", Size: 65536}, {ID: "file1", Name: "data.vmdk", Size: -1},
			{ID: "file2", Name: "seed & co.iso", Size: 4096}, {ID: "file3", Name: "vm.nvram", Size: 512},
		},
		Disks: []machine.Disk{root, data, blank},
		Machines: []*machine.Machine{{
			ID: "web", Name: "Web <server>", Description: "first line\nsecond line", CPUs: 4, CoresPerSocket: 2, Memory: 3<<30 + 1,
			Firmware: machine.UEFI, SecureBoot: true, TPM: machine.TPM20, GuestOS: machine.GuestOS{CIM: 96, Version: "12"},
			HardwareVersion: "pc-q35-8.2",
			Controllers: []machine.Controller{
				{Name: "scsi0", Type: machine.SCSI, Model: machine.VirtioSCSI}, {Name: "sata0", Type: machine.SATA, Model: machine.AHCI},
				{Name: "usb0", Type: machine.USB, Model: machine.XHCI}, {Name: "nvme0", Type: machine.NVMe}, {Name: "ide1", Type: machine.IDE, Number: 1},
			},
			Disks:  []machine.Disk{on(root, "scsi0", machine.SCSI), readOnly, on(blank, "nvme0", machine.NVMe)},
			CDROMs: []machine.CDROM{{Controller: "sata0", Bus: machine.SATA, Unit: 1, File: "seed & co.iso"}, {Bus: machine.USB}},
			NICs: []machine.NIC{
				{Type: machine.VirtioNet, Network: "lan", MAC: "52:54:00:12:34:56"}, {Name: "second", Type: machine.VMXNET3, Network: "dmz"}, {Type: machine.RTL8139, Network: "lan"}, {},
			},
			Display: machine.Display{Type: "qxl", Memory: 16 << 20, Monitors: 2}, BootOrder: []machine.BootDevice{machine.BootNetwork, machine.BootDisk},
			NVRAM: "vm.nvram", Product: machine.Product{Name: "Web", Version: "1.0"}, EULAs: []string{"Agree."}, Transport: []string{"iso", "com.vmware.guestInfo"},
			Properties: []machine.Property{
				{Key: "hostname", Type: "string", Value: "web", Label: "Name", Description: "of the host", Category: "Network", UserConfigurable: true},
				{Class: "org.example", Key: "pw", Type: "string", Qualifiers: "MinLen(8)", Password: true, UserConfigurable: true},
			},
		}},
	}
}

// Bytes are kept: an OVF that davit writes is in artifacts, whose digests people compare.
func TestWriteBytes(t *testing.T) {
	for _, target := range targets {
		name := "testdata/server.ovf"
		if target != "" {
			name = "testdata/server-" + string(target) + ".ovf"
		}
		got, _, err := Write(server(), WriteOptions{Target: target, Populated: map[string]int64{"root": 1 << 20, "data": 1 << 62}})
		if err != nil {
			t.Error(err)
			continue
		}
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(name, got, 0o644); err != nil {
				t.Error(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s (UPDATE=1 writes it) is no longer what is written:\n%s", name, got)
		}
	}
}

// What a target has in another way, or not at all, is said, by field.
func TestWriteLosses(t *testing.T) {
	for _, test := range []struct {
		target Target
		want   []string
	}{
		{"", nil},
		{VMware, []string{
			`disks[1].logicalSectorSize "4096": an OVF does not say it, and the guest gets sectors of 512 bytes`,
			`hardwareVersion "pc-q35-8.2": VMware has other hardware: vmx-14 instead`,
			`memory "3221225473": it is not a whole number of MiB: 3073 MiB instead`,
			`controllers[0].model "virtio-scsi": VMware has no such controllers: pvscsi instead`,
			`disks[1].bus "virtio": moved to SCSI controller 0, unit 1: VMware takes no disks on virtio`,
			`cdroms[1].bus "usb": moved to IDE controller 1, unit 0: VMware takes no CD drives on USB`,
			`nics[0].type "virtio": the target has no such network cards: e1000e instead`,
			`nics[2].type "rtl8139": the target has no such network cards: e1000e instead`,
			`display.type "qxl": OVF has no word for it: the target's own instead`,
			`bootOrder "network": OVF has no word for it: the target tries disks first`,
		}},
		{VirtualBox, []string{
			`disks[1].logicalSectorSize "4096": an OVF does not say it, and the guest gets sectors of 512 bytes`,
			`memory "3221225473": it is not a whole number of MiB: 3073 MiB instead`,
			`disks[1].bus "virtio": moved to SATA controller 0, unit 0: VirtualBox takes no disks on virtio`,
			`cdroms[1].bus "usb": moved to IDE controller 1, unit 0: VirtualBox takes no CD drives on USB`,
			`disks[1].readOnly "true": VirtualBox imports disks that the guest can write to`,
			`cdroms[0].file "seed & co.iso": VirtualBox imports no images of CDs: the drive is empty`,
			`nics[1].type "vmxnet3": the target has no such network cards: e1000 instead`,
			`nics[2].type "rtl8139": the target has no such network cards: e1000 instead`,
			`display.type "qxl": OVF has no word for it: the target's own instead`,
			`display "": VirtualBox imports its own`,
			`firmware "uefi": VirtualBox does not import it: set it after the import`,
			`secureBoot "true": VirtualBox does not import it: set it after the import`,
			`tpm "2.0": VirtualBox does not import it: set it after the import`,
			`nvram "vm.nvram": VirtualBox does not import it: set it after the import`,
			`bootOrder "network": OVF has no word for it: the target tries disks first`,
		}},
	} {
		_, losses, err := Write(server(), WriteOptions{Target: test.target})
		if err != nil {
			t.Error(err)
		}
		if got := said(losses); !slices.Equal(got, test.want) {
			t.Errorf("for %q:\n%s\nwant\n%s", test.target, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
		}
	}
}

func said(losses []machine.Loss) []string {
	var all []string
	for _, l := range losses {
		all = append(all, fmt.Sprintf("%s %q: %s", l.Field, l.Value, l.Reason))
	}
	return all
}

// withOne returns a machine after a change.
func withOne(change func(*machine.Machine)) *machine.Envelope {
	m := &machine.Machine{ID: "vm", CPUs: 1, Memory: 1 << 30}
	change(m)
	return &machine.Envelope{Machines: []*machine.Machine{m}}
}

func TestWriteLossesOfOne(t *testing.T) {
	for _, test := range []struct {
		name   string
		e      *machine.Envelope
		target Target
		want   []string
	}{
		{"nothing is lost", withOne(func(*machine.Machine) {}), VMware, nil},
		{"CPUs and memory that are not said", withOne(func(m *machine.Machine) { m.CPUs, m.Memory = 0, 0 }), VirtualBox, []string{
			`cpus "": it is not said: 1 instead`, `memory "": it is not said: 1 GiB instead`,
		}},
		{"hardware of VMware is kept", withOne(func(m *machine.Machine) { m.HardwareVersion = "vmx-07 vmx-08" }), VMware, nil},
		{"hardware of VirtualBox is no loss to it", withOne(func(m *machine.Machine) { m.HardwareVersion = "virtualbox-2.2" }), VirtualBox, nil},
		{"ARM that VMware is told by the guest", withOne(func(m *machine.Machine) {
			m.Architecture, m.GuestOS.VMware = "arm64", "arm-ubuntu_64Guest"
		}), VMware, nil},
		{"ARM that VirtualBox is not told", withOne(func(m *machine.Machine) {
			m.Architecture, m.GuestOS.VMware = "arm64", "arm-ubuntu_64Guest"
		}), VirtualBox, []string{`architecture "arm64": OVF has no word for it: amd64 instead`}},
		{"ARM that VirtualBox is told by the guest", withOne(func(m *machine.Machine) {
			m.Architecture, m.GuestOS.VirtualBox = "arm64", "Ubuntu_arm64"
		}), VirtualBox, nil},
		{"guest of ARM in a PC", withOne(func(m *machine.Machine) {
			m.Architecture, m.GuestOS.VMware = "amd64", "arm-ubuntu_64Guest"
		}), VMware, []string{`architecture "amd64": OVF has no word for it: arm64 instead`}},
		{"PCs", withOne(func(m *machine.Machine) { m.Architecture = "386" }), VMware, nil},
		{"RISC-V, in an artifact", withOne(func(m *machine.Machine) { m.Architecture = "riscv64" }), "", nil},
		{"TPM 1.2", withOne(func(m *machine.Machine) { m.TPM = machine.TPM12 }), VMware, []string{`tpm "1.2": OVF has no word for it`}},
		{"disks are tried first anyway", withOne(func(m *machine.Machine) { m.BootOrder = []machine.BootDevice{machine.BootDisk, machine.BootNetwork} }), VMware, nil},
		{"a controller without a word", withOne(func(m *machine.Machine) { m.Controllers = []machine.Controller{{Name: "xen0", Type: machine.Xen}} }), VMware, []string{
			`controllers[0].type "xen": OVF has no such controllers`,
		}},
		{"a model without a word", withOne(func(m *machine.Machine) {
			m.Controllers = []machine.Controller{{Name: "scsi0", Type: machine.SCSI, Model: "megasas"}}
		}), VMware, []string{`controllers[0].model "megasas": OVF has no word for such controllers: lsilogic instead`}},
		{"PVSCSI", withOne(func(m *machine.Machine) {
			m.Controllers = []machine.Controller{{Name: "scsi0", Type: machine.SCSI, Model: machine.PVSCSI}}
		}), VirtualBox, []string{`controllers[0].model "pvscsi": VirtualBox has no such controllers: lsilogic instead`}},
		{"characters that XML cannot hold", withOne(func(m *machine.Machine) { m.Description, m.EULAs = "bell\a", []string{"x", "\xff"} }), "", []string{
			`description "": XML cannot hold some of its characters`, `eulas[1] "": XML cannot hold some of its characters`,
		}},
		{"which of several machines", &machine.Envelope{ID: "two", Machines: []*machine.Machine{
			{ID: "a", Name: "\x00", CPUs: 1, Memory: 1 << 30}, {ID: "b", CPUs: 1, Memory: 1 << 30, TPM: machine.TPM12},
		}}, VMware, []string{`machines[0].name "": XML cannot hold some of its characters`, `machines[1].tpm "1.2": OVF has no word for it`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, losses, err := Write(test.e, WriteOptions{Target: test.target})
			if got := said(losses); err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%v\n%s\nwant\n%s", err, strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// An artifact says the architecture of a machine, if it is not that of a PC.
func TestWriteArchitecture(t *testing.T) {
	plain, _, err := Write(withOne(func(*machine.Machine) {}), WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for architecture, want := range map[string]string{"": "", "amd64": "", "386": "386", "arm64": "arm64", "s390x": "s390x"} {
		data, _, err := Write(withOne(func(m *machine.Machine) { m.Architecture = architecture }), WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		e, err := Parse(data)
		if err != nil || e.Machines[0].Architecture != want || want == "" && !bytes.Equal(data, plain) {
			t.Errorf("%q is read as %+v, %v, of\n%s", architecture, e, err, data)
		}
	}
}

// What importers look at.
func TestWriteSays(t *testing.T) {
	eight := &machine.Envelope{Machines: []*machine.Machine{{ID: "vm", Controllers: []machine.Controller{{Name: "scsi0", Type: machine.SCSI, Model: machine.BusLogic}}}}}
	for i := range 8 {
		d := machine.Disk{Name: fmt.Sprint("d", i), Bus: machine.Virtio, Unit: i}
		eight.Disks, eight.Machines[0].Disks = append(eight.Disks, d), append(eight.Machines[0].Disks, d)
	}
	for _, test := range []struct {
		name   string
		e      *machine.Envelope
		target Target
		want   []string // in this order
	}{
		{"secure boot needs ESXi 6.5", withOne(func(m *machine.Machine) { m.SecureBoot = true }), VMware, []string{"VirtualSystemType>vmx-13<"}},
		{"SATA needs ESXi 5.5", withOne(func(*machine.Machine) {}), VMware, []string{"VirtualSystemType>vmx-10<"}},
		{"a machine without an ID", withOne(func(m *machine.Machine) { m.ID, m.Name = "", "web" }), "", []string{`ovf:id="vm"`, "<Name>web</Name>"}},
		{"space around an ID", withOne(func(m *machine.Machine) { m.ID = " vm\n" }), "", []string{`ovf:id="vm"`}},
		{"memory of the display in part of a KB", withOne(func(m *machine.Machine) { m.Display.Memory = 1025 }), VMware, []string{`vmw:key="videoRamSizeInKB" vmw:value="2"`}},
		{"no character", withOne(func(m *machine.Machine) { m.Description = "\ufffe\uffff" }), "", []string{"<Annotation>\ufffd\ufffd</Annotation>"}},
		{"line breaks and quotes", withOne(func(m *machine.Machine) { m.Description = "a\r\n\"b\"" }), "", []string{"<Annotation>a&#xD;&#xA;&#34;b&#34;</Annotation>"}},
		{"a CD of USB is one of IDE", withOne(func(m *machine.Machine) {
			m.CDROMs = []machine.CDROM{{Bus: machine.USB}}
		}), VMware, []string{"IDE controller", ">PIIX4<", ">5<"}},
		{"a category is said once", withOne(func(m *machine.Machine) {
			m.Properties = []machine.Property{{Key: "a", Type: "string", Category: "C"}, {Key: "b", Type: "string", Category: "C"}, {Key: "c", Type: "string"}}
		}), "", []string{
			"<Category>C</Category>\n      <Property ovf:key=\"a\" ovf:type=\"string\"/>\n      <Property ovf:key=\"b\" ovf:type=\"string\"/>\n      <Category></Category>\n      <Property ovf:key=\"c\"",
		}},
		{"seven drives on a controller", eight, VMware, []string{
			"SCSI controller<", ">buslogic<", "SCSI controller 1<", ">VirtualSCSI<", "SCSI controller 2<", ">VirtualSCSI<",
			"AddressOnParent>6<", ">ovf:/disk/d6<", "AddressOnParent>0<", ">ovf:/disk/d7<",
		}},
		{"all drives on a controller", eight, VirtualBox, []string{"SCSI controller<", "SATA controller<", "AddressOnParent>6<", ">ovf:/disk/d6<", "AddressOnParent>7<", ">ovf:/disk/d7<"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			data, _, err := Write(test.e, WriteOptions{Target: test.target})
			if err != nil {
				t.Fatal(err)
			}
			rest := string(data)
			for _, want := range test.want {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("no %s in order in\n%s", want, data)
				}
				rest = after
			}
		})
	}
	windows := eight.Machines[0]
	windows.GuestOS.VMware = "windows2019srv_64Guest"
	data, _, err := Write(eight, WriteOptions{Target: VMware})
	if err != nil || strings.Count(string(data), ">lsilogicsas<") != 2 {
		t.Errorf("Windows on virtio has not two LSI Logic SAS, %v:\n%s", err, data)
	}
}

// Write changes neither what it is given, nor what is nobody's business.
func TestWriteLeavesItsArgument(t *testing.T) {
	e := server()
	e.Machines[0].Name = "control\x01"
	e.Machines[0].Unread = []machine.Loss{{Field: "secret"}}
	e.Disks[0].Format = "vmdk:stream"
	e.Disks[1].ReadOnly, e.Disks[1].Bus = true, machine.Virtio
	data, _, err := Write(e, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if e.Machines[0].Name != "control\x01" || e.Disks[0].Format != "vmdk:stream" || !e.Disks[1].ReadOnly || len(e.Machines[0].Unread) != 1 {
		t.Errorf("Write changed %+v", e)
	}
	got, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if m := got.Machines[0]; m.Name != "control\ufffd" || got.Disks[0].Format != "vmdk" || got.Disks[1].ReadOnly || len(m.Unread) != 0 {
		t.Errorf("read back as %+v", got)
	}
}

func TestWriteNamesOfFiles(t *testing.T) {
	for _, test := range []struct{ name, want string }{
		{"disk.vmdk", "disk.vmdk"},
		{"my disk.vmdk", "my disk.vmdk"},
		{" disk ", "%20disk%20"},
		{"disk%20.vmdk", "disk%20.vmdk"},
		{"100%", "100%25"},
		{"a#1[2].iso", "a%231%5B2%5D.iso"},
		{"{0d71}.vmdk", "{0d71}.vmdk"},
		{"Müller.iso", "Müller.iso"},
		{`C:\vm\disk.vmdk`, `C:\vm\disk.vmdk`},
		{":x", "%3Ax"},
		{"nbd://::1:6000/x", "nbd%3A//%3A%3A1%3A6000/x"},
		{"nbd://[::1]:6000/x", "nbd%3A//%5B%3A%3A1%5D%3A6000/x"},
		{"http://h:80/x", "http://h:80/x"},
		{"//a:b", "//a%3Ab"},
		{"http://example.com/disk.vmdk", "http://example.com/disk.vmdk"},
		{"two\nlines", "two%0Alines"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := withOne(func(m *machine.Machine) { m.NVRAM = test.name })
			e.Files = []machine.File{{ID: "f", Name: test.name, Size: -1}}
			data, _, err := Write(e, WriteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			got, err := Parse(data)
			if err != nil || got.Files[0].Name != test.want || got.Machines[0].NVRAM != test.want {
				t.Errorf("%v, %+v; want %q", err, got, test.want)
			}
			validate(t, map[string][]byte{"vm": data})
		})
	}
}

// Who imports a stream wants files in the order of disks.
func TestWriteOrdersFilesAsDisks(t *testing.T) {
	e := withOne(func(m *machine.Machine) { m.NVRAM = "n" })
	for i, name := range []string{"a", "n", "b", "c"} {
		e.Files = append(e.Files, machine.File{ID: fmt.Sprint(i), Name: name, Size: -1})
	}
	for _, name := range []string{"c", "a", "c"} {
		e.Disks = append(e.Disks, machine.Disk{Name: fmt.Sprint("disk", len(e.Disks)), Capacity: 1, File: name})
	}
	data, _, err := Write(e, WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range got.Files {
		names = append(names, f.Name)
	}
	if !slices.Equal(names, []string{"c", "n", "b", "a"}) {
		t.Errorf("files in the order %q", names)
	}
}

func TestWriteRefuses(t *testing.T) {
	disk := machine.Disk{Name: "a", Capacity: 1, Format: "raw", File: "a.img"}
	files := []machine.File{{ID: "f", Name: "a.img", Size: -1}}
	vm := func() []*machine.Machine { return []*machine.Machine{{ID: "vm"}} }
	for _, test := range []struct {
		name string
		e    *machine.Envelope
	}{
		{"no machine", &machine.Envelope{}},
		{"machines without a collection", &machine.Envelope{Machines: append(vm(), &machine.Machine{ID: "b"})}},
		{"two machines of one ID", &machine.Envelope{ID: "c", Machines: append(vm(), vm()...)}},
		{"disk in no file of the list", &machine.Envelope{Machines: vm(), Disks: []machine.Disk{disk}}},
		{"two disks of one name", &machine.Envelope{Machines: vm(), Files: files, Disks: []machine.Disk{disk, disk}}},
		{"two files of one ID", &machine.Envelope{Machines: vm(), Files: []machine.File{{ID: "f", Name: "a"}, {ID: "f", Name: "b"}}}},
		{"two files of one name", &machine.Envelope{Machines: vm(), Files: []machine.File{{ID: "f", Name: "a b"}, {ID: "g", Name: "a b"}}}},
		{"disk of the machine that is not in the list", withOne(func(m *machine.Machine) { m.Disks = []machine.Disk{{Name: "x"}} })},
		{"disk of the machine that is another in the list", &machine.Envelope{Disks: []machine.Disk{{Name: "a"}}, Machines: []*machine.Machine{{ID: "vm", Disks: []machine.Disk{{Name: "a", Capacity: 1}}}}}},
		{"CD in no file of the list", withOne(func(m *machine.Machine) { m.CDROMs = []machine.CDROM{{File: "x.iso"}} })},
		{"variables in no file of the list", withOne(func(m *machine.Machine) { m.NVRAM = "x" })},
		{"parent that is no disk", &machine.Envelope{Machines: vm(), Disks: []machine.Disk{{Name: "a", Parent: "b"}}}},
		{"unknown format", &machine.Envelope{Machines: vm(), Files: files, Disks: []machine.Disk{{Name: "a", Format: "qed", File: "a.img"}}}},
		{"control character in a file's name", &machine.Envelope{Machines: vm(), Files: []machine.File{{ID: "f", Name: "a\x01"}}}},
		{"control character in a disk's name", &machine.Envelope{Machines: vm(), Disks: []machine.Disk{{Name: "a\x01"}}}},
		{"control character in an ID", &machine.Envelope{Machines: []*machine.Machine{{ID: "a\x01"}}}},
		{"negative CPUs", withOne(func(m *machine.Machine) { m.CPUs = -1 })},
		{"too much memory", withOne(func(m *machine.Machine) { m.Memory = machine.MaxMemory + 1 })},
		{"too many CPUs", withOne(func(m *machine.Machine) { m.CPUs = machine.MaxCPUs + 1 })},
		{"negative capacity", &machine.Envelope{Machines: vm(), Disks: []machine.Disk{{Name: "a", Capacity: -1}}}},
		{"no firmware", withOne(func(m *machine.Machine) { m.Firmware = "coreboot" })},
		{"no MAC address", withOne(func(m *machine.Machine) { m.NICs = []machine.NIC{{MAC: "52:54:00:12:34:5G"}} })},
		{"a drive on no controller", withOne(func(m *machine.Machine) { m.CDROMs = []machine.CDROM{{Controller: "sata7", Bus: machine.SATA}} })},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, target := range targets {
				if data, _, err := Write(test.e, WriteOptions{Target: target}); !errors.Is(err, machine.ErrMalformed) || data != nil {
					t.Errorf("for %q: %v; want ErrMalformed\n%s", target, err, data)
				}
			}
		})
	}
}

// extended is an OVF of one disk and an empty drive whose extension has the given content.
func extended(fields string) []byte {
	e := withOne(func(m *machine.Machine) {
		m.Disks = []machine.Disk{{Name: "a"}}
		m.CDROMs = []machine.CDROM{{}}
		m.NICs = []machine.NIC{{}}
	})
	e.Disks = e.Machines[0].Disks
	w := writer{e: e}
	end := "    </VirtualHardwareSection>"
	extension := `<davit:Machine xmlns:davit="https://github.com/davit-oci/davit#machine" ovf:required="false">` + fields + `</davit:Machine>`
	return []byte(strings.Replace(string(w.envelope(nil)), end, extension+end, 1))
}

func fieldElement(name, value string) string {
	return `<davit:Field name="` + name + `">` + value + `</davit:Field>`
}

func TestReadExtension(t *testing.T) {
	for _, test := range []struct {
		field, value string
		got          func(*machine.Machine) any
		want         any
	}{
		{"name", " a\tb ", func(m *machine.Machine) any { return m.Name }, " a\tb "},
		{"cpus", "65536", func(m *machine.Machine) any { return m.CPUs }, 65536},
		{"memory", "1", func(m *machine.Machine) any { return m.Memory }, int64(1)},
		{"secureBoot", "true", func(m *machine.Machine) any { return m.SecureBoot }, true},
		{"firmware", "uefi", func(m *machine.Machine) any { return m.Firmware }, machine.UEFI},
		{"guestOS.osinfo", "http://debian.org/debian/12", func(m *machine.Machine) any { return m.GuestOS.Osinfo }, "http://debian.org/debian/12"},
		{"disks[0].bus", "virtio", func(m *machine.Machine) any { return m.Disks[0].Bus }, machine.Virtio},
		{"nics.length", "0", func(m *machine.Machine) any { return len(m.NICs) }, 0},
		{"nics.length", "2", func(m *machine.Machine) any { return m.NICs[1] }, machine.NIC{}},
		{"nics[0].mac", "52:54:00:12:34:56", func(m *machine.Machine) any { return m.NICs[0].MAC }, "52:54:00:12:34:56"},
	} {
		e, err := Parse(extended(fieldElement(test.field, test.value)))
		if err != nil {
			t.Errorf("%s: %v", test.field, err)
		} else if got := test.got(e.Machines[0]); got != test.want {
			t.Errorf("%s = %v, want %v", test.field, got, test.want)
		}
	}
}

func TestReadExtensionRefuses(t *testing.T) {
	f := fieldElement
	for _, test := range []struct{ name, fields string }{
		{"a field twice", f("name", "a") + f("name", "b")},
		{"an element that is no Field", `<davit:X/>`},
		{"no name", f("", "")},
		{"no such field", f("colour", "red")},
		{"no such element", f("nics[1].type", "x")},
		{"no number of an element", f("nics[-1].type", "x")},
		{"element that is not closed", f("nics[0.type", "x")},
		{"field of a text", f("name.x", "x")},
		{"length of a text", f("name.length", "1")},
		{"a list as a whole", f("nics", "x")},
		{"an element as a whole", f("nics[0]", "x")},
		{"element of what is no list", f("name[0]", "x")},
		{"a struct as a whole", f("guestOS", "x")},
		{"what was not read", f("unread.length", "1")},
		{"Go's name", f("CPUs", "1")},
		{"the ID", f("id", "x")},
		{"variables of the firmware", f("nvram", "/etc/passwd")},
		{"file of a CD", f("cdroms[0].file", "/etc/passwd")},
		{"file of a disk", f("disks[0].file", "/etc/passwd")},
		{"name of a disk", f("disks[0].name", "b")},
		{"format of a disk", f("disks[0].format", "raw")},
		{"capacity of a disk", f("disks[0].capacity", "1")},
		{"number of disks", f("disks.length", "0")},
		{"no number", f("cpus", "many")},
		{"negative number", f("cpus", "-1")},
		{"number over its limit", f("cpus", "65537")},
		{"memory over its limit", f("memory", "1125899906842625")},
		{"a long list", f("nics.length", "4097")},
		{"neither true nor false", f("secureBoot", "1")},
		{"no such firmware", f("firmware", "bios uefi")},
		{"no such TPM", f("tpm", "3")},
		{"no such bus", f("disks[0].bus", "fibre")},
		{"no such boot device", f("bootOrder.length", "1") + f("bootOrder[0]", "tape")},
		{"no MAC address", f("nics[0].mac", "52-54-00-12-34-56")},
		{"no such controller", f("disks[0].controller", "scsi9")},
		{"no such controller for a CD", f("cdroms[0].controller", "scsi9")},
		{"two controllers of one name", f("controllers[1].name", "sata0")},
		{"a second extension", `</davit:Machine><davit:Machine xmlns:davit="https://github.com/davit-oci/davit#machine" ovf:required="false">`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if e, err := Parse(extended(test.fields)); !errors.Is(err, machine.ErrMalformed) || e != nil {
				t.Errorf("Parse = %+v, %v; want ErrMalformed", e, err)
			}
		})
	}
}

// hostile are texts that have meant something else than themselves to somebody.
var hostile = []string{
	"", " ", "x", "plain text", `"quotes" and 'apostrophes'`, "<&>", "]]>", "<![CDATA[x]]>", "&amp;", "&#0;", "<!-- x -->", "</davit:Field>",
	"two\nlines", "\ttab", "carriage\rreturn", "\r\n", " spaces around ", "no\u00a0break", "\u202egnp.exe\u202c", "\u2066isolate\u2069", "\ufeffmark",
	"\u0085next line", "\u2028line", "日本語", "e\u0301", "🖥", "${property}", "%20", "a/b", `C:\x`, "-rf", "true", "0", "false", "null", "a b  c",
	"$(reboot)", "`id`", "%s%n", strings.Repeat("long ", 500),
}

type random struct{ *rand.Rand }

func randomEnvelope(r *rand.Rand) *machine.Envelope {
	g := random{r}
	e := &machine.Envelope{}
	for i := range g.Intn(5) {
		f := machine.File{ID: fmt.Sprint("f", i, g.word()), Name: fmt.Sprint(i, g.of("disk.vmdk", "my disk.vmdk", "ü%20.iso", "{x}.vmdk", "a/b'c", "x&y")), Size: g.Int63() >> g.Intn(63)}
		if g.yes() {
			f.Size = -1
		}
		if g.yes() {
			f.Compression, f.ChunkSize = "gzip", 1+g.Int63n(1<<40)
		}
		e.Files = append(e.Files, f)
	}
	last := 0
	for i := range g.Intn(5) {
		d := machine.Disk{Name: fmt.Sprint("d", i, g.word()), Capacity: g.Int63() >> (5 + g.Intn(58)), Format: g.of("raw", "vmdk", "qcow2", "vhd", "vhdx", "vdi", "")}
		if d.File = g.file(e); d.File != "" { // in the order of the files
			i := slices.IndexFunc(e.Files, func(f machine.File) bool { return f.Name == d.File })
			if i < last {
				d.File = ""
			}
			last = max(last, i)
		}
		if len(e.Disks) > 0 && g.yes() {
			d.Parent = e.Disks[g.Intn(len(e.Disks))].Name
		}
		e.Disks = append(e.Disks, d)
	}
	n := 1
	if g.yes() {
		e.ID, e.Name = "collection", g.word()
		n = g.Intn(4)
	}
	for i := range n {
		e.Machines = append(e.Machines, g.machine(e, fmt.Sprint("vm", i, g.word())))
	}
	if g.yes() {
		e.Product = &machine.Product{Name: "p" + g.word(), Vendor: g.word()}
	}
	for range g.Intn(3) {
		e.EULAs = append(e.EULAs, "text"+g.word())
	}
	return e
}

func (g random) machine(e *machine.Envelope, id string) *machine.Machine {
	m := &machine.Machine{
		ID:              id,
		Name:            g.text(),
		Description:     g.text(),
		Architecture:    g.of("", "", "386", "arm64", "riscv64"),
		CPUs:            g.Intn(machine.MaxCPUs),
		CoresPerSocket:  g.Intn(9),
		Memory:          g.Int63() >> (13 + g.Intn(50)),
		Firmware:        machine.Firmware(g.of("", "bios", "uefi")),
		SecureBoot:      g.yes(),
		TPM:             machine.TPM(g.of("", "", "1.2", "2.0")),
		GuestOS:         machine.GuestOS{CIM: g.Intn(1 << 16), Version: g.text(), VMware: g.of("", "debian12_64Guest", "arm-ubuntu_64Guest", g.text()), VirtualBox: g.of("", "Debian12_64", "Debian_arm64", g.text()), Osinfo: g.text(), Description: g.text()},
		HardwareVersion: g.of("", "vmx-19", "vmx-07 vmx-08", "virtualbox-2.2", "pc-q35-8.2", g.text()),
		Display:         machine.Display{Type: g.of("", "vmvga", "qxl", g.text()), Memory: g.Int63() >> (13 + g.Intn(50)), Monitors: g.Intn(3)},
		NVRAM:           g.file(e),
		Product:         machine.Product{Name: g.text(), Vendor: g.text(), Version: g.text(), FullVersion: g.text(), URL: g.text(), VendorURL: g.text(), AppURL: g.text()},
	}
	for i := range g.Intn(5) {
		c := machine.Controller{Name: fmt.Sprint("c", i), Type: machine.Bus(g.of(buses[1:]...)), Number: g.Intn(40)}
		c.Model = machine.ControllerModel(g.of("", "piix4", "ahci", "lsilogic", "lsisas1068", "buslogic", "pvscsi", "virtio-scsi", "xhci", "uhci", g.text()))
		if g.yes() { // as readers call them
			c.Number = len(m.Controllers)
			c.Name = fmt.Sprint(c.Type, c.Number)
		}
		m.Controllers = append(m.Controllers, c)
	}
	attach := func() (string, machine.Bus, int) {
		if n := len(m.Controllers); n > 0 && g.yes() {
			c := m.Controllers[g.Intn(n)]
			unit := g.Intn(16)
			if c.Type == machine.IDE {
				unit = 0
			}
			return c.Name, c.Type, unit
		}
		return "", machine.Bus(g.of("virtio", "usb", "sd", "xen", "")), g.Intn(4)
	}
	for _, d := range e.Disks {
		if g.yes() {
			d.Controller, d.Bus, d.Unit = attach()
			d.ReadOnly = g.yes()
			if !g.onIDE(m, d.Controller) {
				m.Disks = append(m.Disks, d)
			}
		}
	}
	for range g.Intn(3) {
		cd := machine.CDROM{Name: g.text(), File: g.file(e)}
		cd.Controller, cd.Bus, cd.Unit = attach()
		if !g.onIDE(m, cd.Controller) {
			m.CDROMs = append(m.CDROMs, cd)
		}
	}
	for range g.Intn(4) {
		m.NICs = append(m.NICs, machine.NIC{Name: g.text(), Type: machine.NICType(g.of("", "e1000", "e1000e", "vmxnet3", "virtio", "synthetic", "flexible", g.text())), Network: g.text(), MAC: g.of("", "52:54:00:12:34:56")})
	}
	for range g.Intn(4) {
		m.BootOrder = append(m.BootOrder, machine.BootDevice(g.of("disk", "cdrom", "network", "floppy")))
	}
	for range g.Intn(3) {
		m.EULAs = append(m.EULAs, g.text())
	}
	for range g.Intn(3) {
		m.Transport = append(m.Transport, g.of("iso", "com.vmware.guestInfo", g.text()))
	}
	for i := range g.Intn(6) {
		m.Properties = append(m.Properties, machine.Property{
			Class: g.of("", "a", "b<"), Instance: g.of("", "1"), Key: fmt.Sprint("k", i), Type: g.of("string", "uint8", "boolean", "password", "ip"), Value: g.text(), Qualifiers: g.text(),
			Label: g.text(), Description: g.text(), Category: g.text(), UserConfigurable: g.yes(), Password: g.yes(),
		})
	}
	return m
}

// onIDE says whether a channel of IDE has a drive already: it has room for two, and the units of more have no meaning.
func (g random) onIDE(m *machine.Machine, controller string) bool {
	if !strings.HasPrefix(controller, "ide") && !slices.ContainsFunc(m.Controllers, func(c machine.Controller) bool { return c.Name == controller && c.Type == machine.IDE }) {
		return false
	}
	return slices.ContainsFunc(m.Disks, func(d machine.Disk) bool { return d.Controller == controller }) ||
		slices.ContainsFunc(m.CDROMs, func(c machine.CDROM) bool { return c.Controller == controller })
}

func (g random) yes() bool                 { return g.Intn(2) == 0 }
func (g random) of(words ...string) string { return words[g.Intn(len(words))] }
func (g random) text() string              { return g.of(hostile...) }

// word is text without space around it.
func (g random) word() string { return strings.TrimSpace(g.text()) }

func (g random) file(e *machine.Envelope) string {
	if len(e.Files) == 0 || g.yes() {
		return ""
	}
	return e.Files[g.Intn(len(e.Files))].Name
}
