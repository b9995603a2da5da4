package vbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
)

const (
	testdata = "../../testdata/machines"
	corpus   = "../../../shared/corpus/vbox/*" // beside the repository, on some machines
)

// The files of testdata, with all that they say.
var files = map[string]struct {
	machine machine.Machine
	unread  []string // field=value
	parents []machine.Disk
	files   []string
}{
	"virtualbox-4.1-snapshot.vbox": {
		machine: machine.Machine{
			ID: "Büro XP", Name: "Büro XP", Description: "Buchhaltung & Café\nzweite Zeile",
			CPUs: 1, Memory: 512 << 20, Firmware: machine.BIOS,
			GuestOS: machine.GuestOS{VirtualBox: "WindowsXP"},
			Controllers: []machine.Controller{
				{Name: "usb0", Type: machine.USB, Model: machine.UHCI},
				{Name: "usb1", Type: machine.USB, Model: machine.EHCI, Number: 1},
				{Name: "ide0", Type: machine.IDE, Model: machine.PIIX4},
				{Name: "ide1", Type: machine.IDE, Model: machine.PIIX4, Number: 1},
			},
			Disks: []machine.Disk{
				{Name: "disk0", Controller: "ide0", Bus: machine.IDE, Format: "vdi", File: "Snapshots/{c02f0d8e-9a3f-4f0d-8a2e-5a7b6c5d4e05}.vdi", Parent: "disk2"},
				{Name: "disk1", Controller: "ide1", Bus: machine.IDE, Unit: 1, Format: "vmdk", File: "daten.vmdk"},
			},
			CDROMs: []machine.CDROM{{Name: "cdrom0", Controller: "ide1", Bus: machine.IDE}},
			NICs: []machine.NIC{
				{Type: machine.PCnet, Network: "NAT", MAC: "08:00:27:d0:a1:b2"},
				{Type: machine.E1000, Network: "eth0", MAC: "08:00:27:d0:a1:b3"},
			},
			Display:   machine.Display{Type: "vboxvga", Memory: 16 << 20, Monitors: 1},
			BootOrder: []machine.BootDevice{machine.BootFloppy, machine.BootCDROM, machine.BootDisk},
		},
		unread: []string{
			"USB/DeviceFilter=Dongle", "Network/Adapter[0]/NAT/Forwarding=rdp: 13389 to 3389", "Network/Adapter[1]/cable=false",
			"UART/Port=0 HostPipe", "AudioAdapter=AC97", "RemoteDisplay=true", "SharedFolder=austausch",
			"AttachedDevice/HostDrive=/dev/sr0", "AttachedDevice=Floppy", "Snapshot=vor SP3",
		},
		parents: []machine.Disk{{Name: "disk2", Format: "vdi", File: "Büro XP.vdi"}},
		files:   []string{"Snapshots/{c02f0d8e-9a3f-4f0d-8a2e-5a7b6c5d4e05}.vdi", "daten.vmdk", "Büro XP.vdi"},
	},
	"virtualbox-6.1-server.vbox": {
		machine: machine.Machine{
			ID: "build server", Name: "build server",
			CPUs: 4, Memory: 4 << 30, Firmware: machine.BIOS,
			GuestOS: machine.GuestOS{VirtualBox: "Ubuntu_64"},
			Controllers: []machine.Controller{
				{Name: "usb0", Type: machine.USB, Model: machine.UHCI},
				{Name: "usb1", Type: machine.USB, Model: machine.EHCI, Number: 1},
				{Name: "ide0", Type: machine.IDE, Model: machine.ICH6},
				{Name: "ide1", Type: machine.IDE, Model: machine.ICH6, Number: 1},
				{Name: "sata0", Type: machine.SATA, Model: machine.AHCI},
				{Name: "scsi0", Type: machine.SCSI, Model: machine.LSILogicSAS},
				{Name: "scsi1", Type: machine.SCSI, Model: machine.BusLogic, Number: 1},
				{Name: "scsi2", Type: machine.SCSI, Model: machine.LSILogic, Number: 2},
			},
			Disks: []machine.Disk{
				{Name: "disk0", Controller: "sata0", Bus: machine.SATA, Unit: 2, Format: "vdi", File: "build server.vdi"},
				{Name: "disk1", Controller: "scsi0", Bus: machine.SCSI, Format: "vhd", File: `D:\VMs\shared\cache.vhd`},
				{Name: "disk2", Controller: "scsi1", Bus: machine.SCSI, Unit: 15, File: "scratch.qcow"},
				{Name: "disk3", Controller: "scsi2", Bus: machine.SCSI, Format: "vmdk", File: "tools.vmdk", ReadOnly: true},
				{Name: "disk4", Bus: machine.USB, Format: "vdi", File: "stick.vdi"},
			},
			CDROMs: []machine.CDROM{
				{Name: "cdrom0", Controller: "ide1", Bus: machine.IDE, File: "C:/Program Files/Oracle/VirtualBox/VBoxGuestAdditions.iso"},
				{Name: "cdrom1", Controller: "ide1", Bus: machine.IDE, Unit: 1},
				{Name: "cdrom2", Controller: "sata0", Bus: machine.SATA, Unit: 1},
			},
			NICs: []machine.NIC{
				{Type: machine.E1000, Network: "Intel(R) Ethernet Connection (7) I219-V", MAC: "08:00:27:aa:aa:01"},
				{Type: machine.VirtioNet, Network: "VirtualBox Host-Only Ethernet Adapter", MAC: "08:00:27:aa:aa:02"},
				{Type: machine.PCnet, Network: "intnet", MAC: "08:00:27:aa:aa:03"},
				{Type: machine.E1000, Network: "NatNetwork", MAC: "08:00:27:aa:aa:04"},
				{Type: "ne2000", Network: "Generic", MAC: "08:00:27:aa:aa:05"},
				{Type: machine.E1000, MAC: "08:00:27:aa:aa:06"},
			},
			Display:   machine.Display{Type: "vmvga", Memory: 128 << 20, Monitors: 2},
			BootOrder: []machine.BootDevice{machine.BootCDROM, machine.BootDisk, machine.BootNetwork},
		},
		unread: []string{
			"Machine/stateFile=Snapshots/2020-08-14T10-11-12-000000000Z.sav",
			"CPU/hotplug=true", "CPU/executionCap=80", "CPU/CpuProfile=Intel Core i7-6700K", "CPU/NestedHWVirt=true", "CPU/CpuIdTree=1 leaves",
			"Chipset=ICH9", "Guest/memoryBalloonSize=512", "Display/accelerate3D=true",
			"USB/DeviceFilter=YubiKey", "EmulatedUSB/CardReader=true",
			"Network/Adapter[0]/promiscuousModePolicy=AllowAll", "Network/Adapter[3]/bandwidthGroup=slow", "Network/Adapter[4]/GenericInterface=UDPTunnel",
			"LPT/Port=0", "AudioAdapter=HDA", "VideoCapture=true", "HostPci/Device=Wi-Fi", "IO/BandwidthGroup=slow",
			"AttachedDevice/Image={99999999-0000-4000-8000-000000000099}", "HardDisk/type=Shareable",
		},
		files: []string{
			"C:/Program Files/Oracle/VirtualBox/VBoxGuestAdditions.iso", "build server.vdi", `D:\VMs\shared\cache.vhd`, "scratch.qcow", "tools.vmdk", "stick.vdi",
		},
	},
	"virtualbox-7.0-windows11.vbox": {
		machine: machine.Machine{
			ID: "win11", Name: "win11",
			CPUs: 2, Memory: 8 << 30, Firmware: machine.UEFI, TPM: machine.TPM20,
			GuestOS: machine.GuestOS{VirtualBox: "Windows11_64"},
			Controllers: []machine.Controller{
				{Name: "usb0", Type: machine.USB, Model: machine.XHCI},
				{Name: "sata0", Type: machine.SATA, Model: machine.AHCI},
			},
			Disks:     []machine.Disk{{Name: "disk0", Controller: "sata0", Bus: machine.SATA, Format: "vdi", File: "win11.vdi"}},
			CDROMs:    []machine.CDROM{{Name: "cdrom0", Controller: "sata0", Bus: machine.SATA, Unit: 1, File: "/home/eve/iso/Win11_22H2_x64.iso"}},
			NICs:      []machine.NIC{{Type: machine.E1000, Network: "NAT", MAC: "08:00:27:bb:bb:01"}},
			Display:   machine.Display{Type: "vboxsvga", Memory: 128 << 20},
			BootOrder: []machine.BootDevice{machine.BootCDROM, machine.BootDisk},
			NVRAM:     "win11.nvram",
		},
		unread: []string{"NVRAM=win11.nvram", "AudioAdapter=HDA"},
		files:  []string{"win11.nvram", "win11.vdi", "/home/eve/iso/Win11_22H2_x64.iso"},
	},
	"virtualbox-7.1-debian.vbox": {
		machine: machine.Machine{
			ID: "debian", Name: "debian",
			CPUs: 2, Memory: 2 << 30, Firmware: machine.UEFI,
			GuestOS: machine.GuestOS{VirtualBox: "Debian12_64"},
			Controllers: []machine.Controller{
				{Name: "nvme0", Type: machine.NVMe},
				{Name: "scsi0", Type: machine.SCSI, Model: machine.VirtioSCSI},
			},
			Disks: []machine.Disk{
				{Name: "disk0", Controller: "nvme0", Bus: machine.NVMe, Format: "vdi", File: "debian.vdi"},
				{Name: "disk1", Controller: "scsi0", Bus: machine.SCSI, Unit: 1, Format: "vhdx", File: "data.vhdx"},
			},
			CDROMs:    []machine.CDROM{{Name: "cdrom0", Controller: "scsi0", Bus: machine.SCSI, Unit: 2}},
			NICs:      []machine.NIC{{Type: machine.E1000E, Network: "NAT", MAC: "08:00:27:cc:cc:01"}},
			Display:   machine.Display{Type: "vmvga", Memory: 16 << 20},
			BootOrder: []machine.BootDevice{machine.BootCDROM, machine.BootDisk},
			NVRAM:     "debian.nvram",
		},
		unread: []string{"CPU/NestedHWVirt=true", "Iommu=Intel", "NVRAM=debian.nvram"},
		files:  []string{"debian.nvram", "debian.vdi", "data.vhdx"},
	},
}

func TestParseFiles(t *testing.T) {
	for name, want := range files {
		t.Run(name, func(t *testing.T) {
			e, err := Parse(read(t, filepath.Join(testdata, name)))
			if err != nil {
				t.Fatal(err)
			}
			if err := check(e); err != nil {
				t.Error(err)
			}
			got := *e.Machines[0]
			if u := fields(got.Unread); !slices.Equal(u, want.unread) {
				t.Errorf("unread:\n got %q\nwant %q", u, want.unread)
			}
			got.Unread = nil
			if !reflect.DeepEqual(got, want.machine) {
				t.Errorf("machine:\n got %+v\nwant %+v", got, want.machine)
			}
			if p := e.Disks[len(got.Disks):]; !slices.Equal(p, want.parents) {
				t.Errorf("parents:\n got %+v\nwant %+v", p, want.parents)
			}
			var names []string
			for _, f := range e.Files {
				names = append(names, f.Name)
			}
			if !slices.Equal(names, want.files) {
				t.Errorf("files:\n got %q\nwant %q", names, want.files)
			}
		})
	}
}

// Every file that is there is read, with what holds for all.
func TestParseAll(t *testing.T) {
	for _, glob := range []string{testdata + "/*.vbox", corpus + "/*.vbox"} {
		names, err := filepath.Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			t.Run(filepath.Base(name), func(t *testing.T) {
				e, err := Parse(read(t, name))
				if err != nil {
					t.Fatal(err)
				}
				if err := check(e); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func fields(losses []machine.Loss) []string {
	var all []string
	for _, l := range losses {
		all = append(all, l.Field+"="+l.Value)
	}
	return all
}

// check says what does not hold of an envelope that Parse returned.
func check(e *machine.Envelope) error {
	m := e.Machines[0]
	if m.Name == "" || m.CPUs < 1 || m.CPUs > machine.MaxCPUs || m.Memory < 1 || m.Memory > machine.MaxMemory {
		return fmt.Errorf("name %q, %d CPUs, %d bytes of memory", m.Name, m.CPUs, m.Memory)
	}
	names := make(map[string]machine.Bus)
	for _, c := range m.Controllers {
		if names[c.Name] != "" || c.Name != fmt.Sprintf("%s%d", c.Type, c.Number) {
			return fmt.Errorf("controller %+v", c)
		}
		names[c.Name] = c.Type
	}
	files := make(map[string]bool)
	for i, f := range e.Files {
		if f.Name == "" || files[f.Name] || f.ID != fmt.Sprintf("file%d", i) || f.Size != -1 {
			return fmt.Errorf("file %+v", f)
		}
		files[f.Name] = true
	}
	taken := make(map[string]bool)
	place := func(controller string, bus machine.Bus, unit int) error {
		at := fmt.Sprint(controller, bus, unit)
		if taken[at] || unit < 0 || bus != names[controller] && (controller != "" || bus != machine.USB && bus != machine.Floppy) {
			return fmt.Errorf("a drive on bus %q at %q, unit %d", bus, controller, unit)
		}
		taken[at] = true
		return nil
	}
	disks := make(map[string]bool)
	for i, d := range e.Disks {
		if d.Name != fmt.Sprintf("disk%d", i) || !files[d.File] || d.Controller != "" || d.Bus != "" || d.Unit != 0 {
			return fmt.Errorf("disk %+v of the envelope", d)
		}
		disks[d.Name] = true
	}
	for _, d := range e.Disks {
		if d.Parent != "" && !disks[d.Parent] {
			return fmt.Errorf("no parent %q of disk %q", d.Parent, d.Name)
		}
	}
	for i, d := range m.Disks {
		if err := place(d.Controller, d.Bus, d.Unit); err != nil {
			return err
		}
		d.Controller, d.Bus, d.Unit = "", "", 0
		if d != e.Disks[i] {
			return fmt.Errorf("disk %+v is %+v in the envelope", d, e.Disks[i])
		}
	}
	for _, c := range m.CDROMs {
		if err := place(c.Controller, c.Bus, c.Unit); err != nil {
			return err
		}
		if c.File != "" && !files[c.File] {
			return fmt.Errorf("no file %q", c.File)
		}
	}
	if m.NVRAM != "" && !files[m.NVRAM] {
		return fmt.Errorf("no file %q", m.NVRAM)
	}
	for i, d := range m.BootOrder {
		if slices.Contains(m.BootOrder[:i], d) {
			return fmt.Errorf("boots twice from %q", d)
		}
	}
	return nil
}

// settings is a file with a machine of 1 MiB and two disks, child and parent,
// in which each marker stands for what is put there.
func settings(replace ...string) string {
	s := `<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux">
<Machine name="m" OSType="Other">
<MediaRegistry><HardDisks>
<HardDisk uuid="{1}" location="1.vdi" format="VDI" type="Normal"><!--parent--><HardDisk uuid="{2}" location="2.vdi" format="VDI"><!--child--></HardDisk></HardDisk><!--disks-->
</HardDisks><DVDImages><Image uuid="{3}" location="3.iso"/></DVDImages></MediaRegistry>
<Hardware><CPU count="1"/><Memory RAMSize="1"/><!--hardware-->
<StorageControllers><StorageController type="AHCI"><!--drives--></StorageController><!--controllers--></StorageControllers>
</Hardware><!--machine-->
</Machine></VirtualBox>`
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(s, replace[i]) {
			panic("no " + replace[i])
		}
		s = strings.Replace(s, replace[i], replace[i+1], 1)
	}
	return s
}

func drive(kind, uuid string, port, device int) string {
	return fmt.Sprintf(`<AttachedDevice type="%s" port="%d" device="%d"><Image uuid="%s"/></AttachedDevice>`, kind, port, device, uuid)
}

func TestParseOne(t *testing.T) {
	for _, test := range []struct {
		name, file string
		want       func(e *machine.Envelope, m *machine.Machine) bool
	}{
		{"nothing is attached", settings(), func(e *machine.Envelope, m *machine.Machine) bool {
			return len(e.Disks) == 0 && len(e.Files) == 0 && m.Display == (machine.Display{}) && slices.Equal(m.BootOrder, []machine.BootDevice{machine.BootDisk})
		}},
		{"two deltas of one parent", settings("<!--parent-->", `<HardDisk uuid="{4}" location="4.vdi" format="VDI"/>`, "<!--drives-->", drive("HardDisk", "{2}", 0, 0)+drive("HardDisk", "{4}", 1, 0)), func(e *machine.Envelope, m *machine.Machine) bool {
			return len(e.Disks) == 3 && m.Disks[0].Parent == "disk2" && m.Disks[1].Parent == "disk2" && e.Disks[2].File == "1.vdi"
		}},
		{"a delta and its parent are both attached", settings("<!--drives-->", drive("HardDisk", "{2}", 0, 0)+drive("HardDisk", "{1}", 1, 0)), func(e *machine.Envelope, m *machine.Machine) bool {
			return len(e.Disks) == 2 && m.Disks[0].Parent == "disk1" && m.Disks[1].Parent == ""
		}},
		{"a chain of 60 snapshots", settings("<!--disks-->", chain(60), "<!--drives-->", drive("HardDisk", "{d59}", 0, 0)), func(e *machine.Envelope, m *machine.Machine) bool {
			return len(e.Disks) == 60 && e.Disks[58].Parent == "disk59" && e.Disks[59].File == "d0"
		}},
		{"250 snapshots", settings("<!--machine-->", strings.Repeat(`<Snapshot name="s"><Snapshots>`, 250)+strings.Repeat(`</Snapshots></Snapshot>`, 250)), func(_ *machine.Envelope, m *machine.Machine) bool {
			return len(m.Unread) == 1 && m.Unread[0].Field == "Snapshot"
		}},
		{"uuid in another case", settings("{1}", "{AbC}", "<!--drives-->", drive("HardDisk", "{aBc}", 0, 0)), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.Disks[0].File == "1.vdi"
		}},
		{"one image in two drives is one file", settings("<!--drives-->", drive("DVD", "{3}", 0, 0)+drive("DVD", "{3}", 1, 0)), func(e *machine.Envelope, m *machine.Machine) bool {
			return len(e.Files) == 1 && m.CDROMs[0].File == "3.iso" && m.CDROMs[1].File == "3.iso"
		}},
		{"a CD drive does not take a disk", settings("<!--drives-->", drive("DVD", "{1}", 0, 0)), func(e *machine.Envelope, m *machine.Machine) bool {
			return len(e.Files) == 0 && m.CDROMs[0].File == "" && len(m.Unread) == 1
		}},
		{"two IDE controllers are four channels", settings(`"AHCI"`, `"PIIX3"`, "<!--controllers-->", `<StorageController type="PIIX4">`+drive("HardDisk", "{1}", 1, 1)+`</StorageController>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return len(m.Controllers) == 4 && m.Disks[0].Controller == "ide3" && m.Disks[0].Unit == 1
		}},
		{"controllers beside Hardware", settings("<!--machine-->", `<StorageControllers><StorageController type="LsiLogic">`+drive("HardDisk", "{1}", 3, 0)+`</StorageController></StorageControllers>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.Disks[0].Controller == "scsi0" && m.Disks[0].Unit == 3
		}},
		{"no CPU element is one CPU", settings(`<CPU count="1"/>`, ""), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.CPUs == 1
		}},
		{"a newer version", settings("1.19-linux", "1.99-haiku"), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.Name == "m"
		}},
		{"unknown graphics card", settings("<!--hardware-->", `<Display controller="CGA"/>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.Display.Type == "cga"
		}},
		{"network of others", settings("<!--hardware-->", `<Network><Adapter enabled="true"><x:NAT xmlns:x="urn:x"/><Tunnel name="t"/></Adapter></Network>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.NICs[0].Network == ""
		}},
		{"sound card by default, and a teleporter", settings("<!--hardware-->", `<AudioAdapter enabled="true"/>`, "<!--machine-->", `<Teleporter enabled="true" port="1" password="secret"/>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return slices.Equal(fields(m.Unread), []string{"AudioAdapter=AC97", "Teleporter=true"})
		}},
		{"description of an attribute", settings(`name="m"`, `name="m" Description="d"`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.Description == "d"
		}},
		{"other processor", settings("<!--machine-->", `<Platform architecture="ARM"><CPU count="8"/></Platform>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.CPUs == 8 && m.Architecture == "arm64" && len(m.Unread) == 0
		}},
		{"processor that is not known", settings("<!--machine-->", `<Platform architecture="None"/>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.Architecture == "" && slices.Equal(fields(m.Unread), []string{"Platform/architecture=None"})
		}},
		{"TPM of the host", settings("<!--hardware-->", `<TrustedPlatformModule type="Host"/>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.TPM == "" && slices.Equal(fields(m.Unread), []string{"TrustedPlatformModule=Host"})
		}},
		{"TPM 1.2", settings("<!--hardware-->", `<TrustedPlatformModule type="v1_2"/>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.TPM == machine.TPM12 && len(m.Unread) == 0
		}},
		{"firmware by number", settings("<!--hardware-->", `<Firmware type="2"/>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.Firmware == machine.UEFI && len(m.Unread) == 0
		}},
		{"firmware of 32 bits", settings("<!--hardware-->", `<Firmware type="EFI32"/>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.Firmware == machine.UEFI && slices.Equal(fields(m.Unread), []string{"Firmware=EFI32"})
		}},
		{"encrypted firmware variables stay behind", settings("<!--hardware-->", `<BIOS><NVRAM path="m.nvram" keyId="k" keyStore="secret"/></BIOS>`), func(e *machine.Envelope, m *machine.Machine) bool {
			return m.NVRAM == "" && len(e.Files) == 0 && slices.Equal(fields(m.Unread), []string{"NVRAM=m.nvram"})
		}},
		{"all boot devices are None", settings("<!--hardware-->", `<Boot><Order position="1" device="None"/></Boot>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return len(m.BootOrder) == 0
		}},
		{"elements of others are skipped", settings("<!--hardware-->", `<x:Memory xmlns:x="urn:x" RAMSize="7"/>`), func(_ *machine.Envelope, m *machine.Machine) bool {
			return m.Memory == 1<<20
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := Parse([]byte(test.file))
			if err != nil {
				t.Fatal(err)
			}
			if err := check(e); err != nil {
				t.Error(err)
			}
			if !test.want(e, e.Machines[0]) {
				t.Errorf("read %+v, disks %+v, files %+v", *e.Machines[0], e.Disks, e.Files)
			}
		})
	}
}

// chain is n disks d0, d1 ..., each a delta to the one before.
func chain(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `<HardDisk uuid="{d%d}" location="d%[1]d" format="VDI">`, i)
	}
	return b.String() + strings.Repeat("</HardDisk>", n)
}

func TestParseRefuses(t *testing.T) {
	m, u := machine.ErrMalformed, machine.ErrUnsupported
	hw := func(s string) string { return settings("<!--hardware-->", s) }
	drives := func(s ...string) string { return settings("<!--drives-->", strings.Join(s, "")) }
	adapter := func(attrs, content string) string {
		return hw(`<Network><Adapter enabled="true" ` + attrs + `>` + content + `</Adapter></Network>`)
	}
	for _, test := range []struct {
		name, file string
		want       error
		says       string
	}{
		{"nothing", "", m, ""},
		{"document type", "<!DOCTYPE VirtualBox>" + settings(), m, "document type"},
		{"another document", "<domain/>", m, "<domain>"},
		{"another namespace", settings("http://www.virtualbox.org/", "urn:x"), m, "urn:x"},
		{"no version", settings(`version="1.19-linux"`, ""), u, "version"},
		{"version 2", settings("1.19-linux", "2.0-linux"), u, "2.0"},
		{"version before 3.1", settings("1.19-linux", "1.8-windows"), u, "1.8"},
		{"version of words", settings("1.19-linux", "1.x"), u, "1.x"},
		{"VirtualBox's own settings", `<VirtualBox xmlns="http://www.virtualbox.org/" version="1.12-linux"><Global/></VirtualBox>`, u, "itself"},
		{"encrypted machine", `<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux"><MachineEncrypted keyId="k" keyStore="s">AAAA</MachineEncrypted></VirtualBox>`, u, "encrypted"},
		{"no machine", `<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux"/>`, m, "Machine"},
		{"two machines", settings("</VirtualBox>", `<Machine name="b"/></VirtualBox>`), m, "2 elements"},
		{"no name", settings(`name="m"`, ""), m, "name"},
		{"no hardware", `<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux"><Machine name="m"/></VirtualBox>`, m, "Hardware"},
		{"two hardwares", settings("<!--machine-->", "<Hardware/>"), m, "second"},
		{"two registries", settings("<!--machine-->", "<MediaRegistry/>"), m, "second"},
		{"two memories", hw(`<Memory RAMSize="2"/>`), m, "second"},
		{"no memory", settings(`<Memory RAMSize="1"/>`, ""), m, "no Memory"},
		{"memory without size", settings(`RAMSize="1"`, ""), m, "RAMSize"},
		{"memory of 0", settings(`RAMSize="1"`, `RAMSize="0"`), m, "RAMSize"},
		{"memory that overflows", settings(`RAMSize="1"`, `RAMSize="17592186044416"`), m, "RAMSize"},
		{"memory of words", settings(`RAMSize="1"`, `RAMSize="1G"`), m, `"1G"`},
		{"no CPUs", settings(`count="1"`, `count="0"`), m, "count"},
		{"65537 CPUs", settings(`count="1"`, `count="65537"`), m, "count"},
		{"negative CPUs", settings(`count="1"`, `count="-1"`), m, "count"},
		{"unknown firmware", hw(`<Firmware type="OpenBIOS"/>`), m, "OpenBIOS"},
		{"unknown TPM", hw(`<TrustedPlatformModule type="v3_0"/>`), m, "v3_0"},
		{"unknown boot device", hw(`<Boot><Order position="1" device="Tape"/></Boot>`), m, "Tape"},
		{"two devices at one boot position", hw(`<Boot><Order position="1" device="DVD"/><Order position="1" device="None"/></Boot>`), m, "position 1"},
		{"too many monitors", hw(`<Display monitorCount="65"/>`), m, "monitorCount"},
		{"too much video memory", hw(`<Display VRAMSize="1048577"/>`), m, "VRAMSize"},
		{"unknown USB controller", hw(`<USB><Controllers><Controller type="WHCI"/></Controllers></USB>`), m, "WHCI"},
		{"flag of words", adapter(`cable="maybe"`, ""), m, "maybe"},
		{"MAC too short", adapter(`MACAddress="080027"`, ""), m, "080027"},
		{"MAC of other letters", adapter(`MACAddress="08002700000g"`, ""), m, "MACAddress"},
		{"card connected twice", adapter("", `<NAT/><InternalNetwork name="i"/>`), m, "twice"},
		{"disk without uuid", settings("<!--disks-->", `<HardDisk location="x" format="VDI"/>`), m, "uuid"},
		{"disk without location", settings("<!--disks-->", `<HardDisk uuid="{4}" format="VDI"/>`), m, "location"},
		{"two disks of one uuid", settings("<!--disks-->", `<HardDisk uuid="{2}" location="x" format="VDI"/>`), m, "two media"},
		{"disk and CD image of one uuid", settings(`"{3}"`, `"{1}"`), m, "two media"},
		{"disk of an unknown type", settings(`type="Normal"`, `type="Volatile"`, "<!--drives-->", drive("HardDisk", "{1}", 0, 0)), m, "Volatile"},
		{"encrypted disk", settings("<!--child-->", `<Property name="CRYPT/KeyStore" value="secret"/>`, "<!--drives-->", drive("HardDisk", "{2}", 0, 0)), u, `"2.vdi" is encrypted`},
		{"encrypted parent", settings("<!--parent-->", `<Property name="CRYPT/KeyId" value="id"/>`, "<!--drives-->", drive("HardDisk", "{2}", 0, 0)), u, `"1.vdi" is encrypted`},
		{"disk over iSCSI", settings(`format="VDI"`, `format="iSCSI"`, "<!--drives-->", drive("HardDisk", "{1}", 0, 0)), u, "iSCSI"},
		{"disk that is in no registry", drives(drive("HardDisk", "{7}", 0, 0)), u, "{7}"},
		{"disk that is a CD image", drives(drive("HardDisk", "{3}", 0, 0)), m, "CD image"},
		{"hard disk without image", drives(`<AttachedDevice type="HardDisk" port="0" device="0"/>`), m, "without Image"},
		{"disk attached twice", drives(drive("HardDisk", "{1}", 0, 0), drive("HardDisk", "{1}", 1, 0)), m, "twice"},
		{"two drives at one port", drives(drive("HardDisk", "{1}", 0, 0), drive("DVD", "{3}", 0, 0)), m, "two devices"},
		{"drive without port", drives(`<AttachedDevice type="DVD" device="0"/>`), m, "port"},
		{"second device at a port of SATA", drives(drive("DVD", "{3}", 0, 1)), m, "device 1"},
		{"third channel of IDE", settings(`"AHCI"`, `"PIIX4"`, "<!--drives-->", drive("DVD", "{3}", 2, 0)), m, "port 2"},
		{"third device of IDE", settings(`"AHCI"`, `"PIIX4"`, "<!--drives-->", drive("DVD", "{3}", 0, 2)), m, "device 2"},
		{"unknown drive", drives(drive("Tape", "{3}", 0, 0)), m, "Tape"},
		{"unknown storage controller", settings(`"AHCI"`, `"ESDI"`), m, "ESDI"},
		{"too many drives", settings("<!--drives-->", many(machine.MaxDisks+1)), m, "4096"},
		{"too many parents", settings("<!--disks-->", chains(9, 500), "<!--drives-->", tips(9, 500)), m, "4096"},
		{"too many network cards", hw("<Network>" + strings.Repeat(`<Adapter enabled="1"/>`, machine.MaxDisks+1) + "</Network>"), m, "4096"},
		{"too many controllers", settings("<!--controllers-->", strings.Repeat(`<StorageController type="NVMe"/>`, machine.MaxDisks)), m, "4096"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse([]byte(test.file))
			if !errors.Is(err, test.want) || got != nil {
				t.Fatalf("Parse = %v, %v; want %v", got, err, test.want)
			}
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("%q does not say %q", err, test.says)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%q has a secret", err)
			}
		})
	}
}

// chains are n chains of disks, and tips drives with the last of each.
func chains(n, length int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.ReplaceAll(chain(length), "{d", fmt.Sprintf("{%d-", i)))
	}
	return b.String()
}

func tips(n, length int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(drive("HardDisk", fmt.Sprintf("{%d-%d}", i, length-1), i, 0))
	}
	return b.String()
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(drive("DVD", "{3}", i, 0))
	}
	return b.String()
}

// What is read holds together, and is the same when it is read again.
func FuzzParse(f *testing.F) {
	for name := range files {
		data, err := os.ReadFile(filepath.Join(testdata, name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(settings("<!--drives-->", drive("HardDisk", "{2}", 0, 0))))
	f.Add([]byte(settings(`"AHCI"`, `"ICH6"`, "<!--hardware-->", `<Boot><Order position="3" device="Network"/></Boot>`)))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Parse(data)
		if err != nil {
			if !errors.Is(err, machine.ErrMalformed) && !errors.Is(err, machine.ErrUnsupported) {
				t.Errorf("error %v is of no kind", err)
			}
			return
		}
		if err := check(e); err != nil {
			t.Error(err)
		}
		if again, err := Parse(data); err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("read %+v, and again %+v, %v", e, again, err)
		}
	})
}
