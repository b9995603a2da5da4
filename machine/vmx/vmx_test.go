package vmx_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/vmx"
)

// head is the least VMX.
const head = "config.version = \"8\"\n"

func parse(t *testing.T, data string) *machine.Machine {
	t.Helper()
	env, err := vmx.Parse([]byte(data))
	if err != nil {
		t.Fatalf("%v in\n%s", err, data)
	}
	return env.Machines[0]
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../../testdata/machines", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		file string
		want *machine.Machine
	}{
		{"esxi8.vmx", &machine.Machine{
			ID: "build-01", Name: "build-01", Description: "Build server\nOwner: \"platform\" team",
			CPUs: 4, CoresPerSocket: 2, Memory: 8 << 30, Firmware: machine.UEFI, SecureBoot: true,
			GuestOS: machine.GuestOS{VMware: "debian12_64Guest"}, HardwareVersion: "vmx-20",
			Controllers: []machine.Controller{
				{Name: "scsi0", Type: machine.SCSI, Model: machine.PVSCSI},
				{Name: "sata0", Type: machine.SATA},
				{Name: "nvme0", Type: machine.NVMe},
				{Name: "usb0", Type: machine.USB, Model: machine.XHCI},
			},
			Disks: []machine.Disk{
				{Name: "disk0", Controller: "scsi0", Bus: machine.SCSI, Unit: 1, Format: "vmdk", File: "build-01_1.vmdk"},
				{Name: "disk1", Controller: "scsi0", Bus: machine.SCSI, Format: "vmdk", File: "build-01.vmdk"},
				{Name: "disk2", Controller: "nvme0", Bus: machine.NVMe, Format: "vmdk", File: "/vmfs/volumes/65f0a1b2-00c3d4e5-1122-005056000001/build-01/cache.vmdk"},
			},
			CDROMs: []machine.CDROM{
				{Name: "cdrom0", Controller: "sata0", Bus: machine.SATA, File: "/vmfs/volumes/65f0a1b2-00c3d4e5-1122-005056000001/iso/debian-12.iso"},
			},
			NICs: []machine.NIC{
				{Name: "ethernet0", Type: machine.VMXNET3, Network: "VM Network", MAC: "00:50:56:ab:00:01"},
				{Name: "ethernet1", Type: machine.E1000E, MAC: "00:50:56:00:00:02"},
			},
			Display:   machine.Display{Type: "vmvga", Memory: 16 << 20},
			BootOrder: []machine.BootDevice{machine.BootCDROM, machine.BootDisk, machine.BootNetwork},
			NVRAM:     "build-01.nvram",
			Unread: []machine.Loss{
				{Field: "sched.cpu.min", Value: "2000", Reason: "reservations and limits are of the host, not of the machine"},
				{Field: "ethernet1.startConnected", Value: "FALSE", Reason: "the cable is in from the start"},
				{Field: "ethernet1.dvs.portgroupId", Value: "dvportgroup-42", Reason: "a port group of a distributed switch has no name here"},
				{Field: "serial0", Value: "telnet://:7001", Reason: "serial ports are not carried over"},
				{Field: "guestinfo.userdata", Reason: "what the guest is told may be a secret, and is not carried over"},
			},
		}},
		{"workstation17.vmx", &machine.Machine{
			ID: "Büro – €", Name: "Büro – €",
			CPUs: 2, CoresPerSocket: 2, Memory: 4 << 30, Firmware: machine.UEFI, TPM: machine.TPM20,
			GuestOS: machine.GuestOS{VMware: "windows11_64Guest"}, HardwareVersion: "vmx-21",
			Controllers: []machine.Controller{
				{Name: "sata0", Type: machine.SATA},
				{Name: "nvme0", Type: machine.NVMe},
				{Name: "usb0", Type: machine.USB, Model: machine.UHCI},
				{Name: "usb1", Type: machine.USB, Model: machine.EHCI, Number: 1},
				{Name: "usb2", Type: machine.USB, Model: machine.XHCI, Number: 2},
			},
			Disks: []machine.Disk{
				{Name: "disk0", Controller: "nvme0", Bus: machine.NVMe, Format: "vmdk", File: `C:\Users\Müller\Virtual Machines\Büro\Büro.vmdk`},
			},
			CDROMs: []machine.CDROM{{Name: "cdrom0", Controller: "sata0", Bus: machine.SATA, Unit: 1}},
			NICs: []machine.NIC{
				{Name: "ethernet0", Type: machine.E1000E, Network: "nat", MAC: "00:0c:29:01:02:03"},
				{Name: "ethernet1", Type: machine.VMXNET3, Network: "VMnet2"},
			},
			Display: machine.Display{Type: "vmvga", Monitors: 2},
			NVRAM:   "Büro.nvram",
			Unread: []machine.Loss{
				{Field: "mem.hotadd", Value: "TRUE", Reason: "adding to a running machine is not carried over"},
				{Field: "vtpm", Reason: "what is in the TPM is not carried over: what is sealed with it, such as BitLocker's key, must be recovered"},
				{Field: "mks.enable3d", Value: "TRUE", Reason: "3D graphics are not carried over"},
				{Field: "RemoteDisplay.vnc", Value: "5901", Reason: "a screen on the host's network is not carried over"},
				{Field: "sound", Reason: "sound cards are not carried over"},
				{Field: "sharedFolder0", Value: "Documents", Reason: "a folder of the host"},
			},
		}},
		{"fusion13.vmx", &machine.Machine{
			ID: "Ubuntu on Arm", Name: "Ubuntu on Arm",
			Architecture: "arm64", CPUs: 2, Memory: 4 << 30, Firmware: machine.UEFI,
			GuestOS: machine.GuestOS{VMware: "arm-ubuntu_64Guest"}, HardwareVersion: "vmx-20",
			Controllers: []machine.Controller{
				{Name: "sata0", Type: machine.SATA},
				{Name: "nvme0", Type: machine.NVMe},
				{Name: "usb0", Type: machine.USB, Model: machine.UHCI},
				{Name: "usb1", Type: machine.USB, Model: machine.EHCI, Number: 1},
				{Name: "usb2", Type: machine.USB, Model: machine.XHCI, Number: 2},
			},
			Disks:     []machine.Disk{{Name: "disk0", Controller: "nvme0", Bus: machine.NVMe, Format: "vmdk", File: "Virtual Disk.vmdk"}},
			CDROMs:    []machine.CDROM{{Name: "cdrom0", Controller: "sata0", Bus: machine.SATA, Unit: 1, File: "/Users/me/Downloads/ubuntu.iso"}},
			NICs:      []machine.NIC{{Name: "ethernet0", Type: machine.E1000E, Network: "bridged"}},
			Display:   machine.Display{Type: "vmvga"},
			BootOrder: []machine.BootDevice{machine.BootDisk, machine.BootCDROM},
			Unread: []machine.Loss{
				{Field: "sata0:1.startConnected", Value: "FALSE", Reason: "the medium is in the drive from the start"},
			},
		}},
	} {
		t.Run(test.file, func(t *testing.T) {
			data := readFile(t, test.file)
			got := parse(t, string(data))
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got\n%+v\nwant\n%+v", got, test.want)
			}
			for _, l := range got.Unread {
				if strings.Contains(l.Value, "secretkey") || strings.Contains(l.Value, "aHVudGVyMg") {
					t.Errorf("a secret is reported: %v", l)
				}
			}
		})
	}
}

func TestEnvelopeHasDisksAndFilesOnce(t *testing.T) {
	env, err := vmx.Parse([]byte(head + `
nvram = "n.nvram"
ide0:0.present = "TRUE"
ide0:0.fileName = "a.vmdk"
ide0:1.present = "TRUE"
ide0:1.fileName = "a.iso"
ide1:0.present = "TRUE"
ide1:0.deviceType = "cdrom-image"
ide1:0.fileName = "a.iso"
`))
	if err != nil {
		t.Fatal(err)
	}
	disks := []machine.Disk{{Name: "disk0", Format: "vmdk", File: "a.vmdk"}}
	if !reflect.DeepEqual(env.Disks, disks) {
		t.Errorf("got disks %v, want %v", env.Disks, disks)
	}
	files := []machine.File{{ID: "file0", Name: "a.vmdk", Size: -1}, {ID: "file1", Name: "a.iso", Size: -1}, {ID: "file2", Name: "n.nvram", Size: -1}}
	if !reflect.DeepEqual(env.Files, files) {
		t.Errorf("got files %v, want %v", env.Files, files)
	}
}

// TestParseLines has what a line can look like.
func TestParseLines(t *testing.T) {
	for _, test := range []struct {
		name, line, want string // displayName
	}{
		{"quotes", `displayName = "a b"`, "a b"},
		{"no quotes", `displayName = a`, "a"},
		{"no spaces", `displayName="a"`, "a"},
		{"tabs", "\tdisplayName\t=\t\"a\"\t", "a"},
		{"a comment after it", `displayName = "a" # b`, "a"},
		{"a comment after no quotes", `displayName = a#b`, "a"},
		{"a # in quotes", `displayName = "a#b"`, "a#b"},
		{"no value", `displayName =`, ""},
		{"a comment as value", `displayName = # b`, ""},
		{"case of the name", `DISPLAYNAME = "A"`, "A"},
		{"escapes", `displayName = "|22a|22 |7C |0A|0a |41"`, "\"a\" | \n\n A"},
		{"what is no escape", `displayName = "a|b |zz |2"`, "a|b |zz |2"},
		{"spaces in quotes", `displayName = " a "`, " a "},
		{"vSphere's escapes", `displayName = "a%2fb%5Cc%25d%20"`, `a/b\c%d%20`},
		{"the end of a line in DOS", "displayName = \"a\"\r", "a"},
		{"the same again", "displayName = \"a\"\ndisplayname = \"a\"", "a"},
		{"a mark of UTF-8 in the middle", "displayName = \"\uFEFFa\"", "\uFEFFa"},
		{"Latin 1 without a word", "displayName = \"B\xFCro \x80\"", "Büro €"},
		{"an escape in Latin 1", ".encoding = \"windows-1252\"\ndisplayName = \"B|FCro\"", "Büro"},
		{"ISO 8859-1", ".encoding = \"ISO-8859-1\"\ndisplayName = \"B\xFCro\"", "Büro"},
		{"Shift_JIS", ".encoding = \"Shift_JIS\"\ndisplayName = \"\x83\x65\x83\x58\x83\x67\"", "テスト"},
		{"GBK by escape", ".encoding = \"GBK\"\ndisplayName = \"|B2|E2\"", "测"},
		{"a code page of DOS", ".encoding = \"IBM850\"\ndisplayName = \"B\x81ro\"", "Büro"},
		{"ASCII in another encoding", ".encoding = \"GBK\"\ndisplayName = \"a\"", "a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := parse(t, head+test.line+"\n").Name; got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	if got := parse(t, "config.version = 1\ndisplayName = a").Name; got != "a" {
		t.Errorf("the first version: got %q", got)
	}
	if got := parse(t, "\uFEFF"+head+"displayName = \"a\"").Name; got != "a" {
		t.Errorf("with a mark of UTF-8: got %q", got)
	}
}

func TestParseValues(t *testing.T) {
	drive := func(lines ...string) string {
		return "scsi0.present = \"TRUE\"\nscsi0:0.present = \"true\"\nscsi0:0." + strings.Join(lines, "\nscsi0:0.")
	}
	for _, test := range []struct {
		name, lines string
		get         func(m *machine.Machine) any
		want        any
	}{
		{"32 MiB if nothing is said", "", func(m *machine.Machine) any { return m.Memory }, int64(32 << 20)},
		{"one CPU if nothing is said", "", func(m *machine.Machine) any { return m.CPUs }, 1},
		{"BIOS if nothing is said", "", func(m *machine.Machine) any { return m.Firmware }, machine.BIOS},
		{"no secure boot without UEFI", `uefi.secureBoot.enabled = "TRUE"`, func(m *machine.Machine) any { return m.SecureBoot }, false},
		{"no version if none is said", "", func(m *machine.Machine) any { return m.HardwareVersion }, ""},
		{"version 7 has two digits", `virtualHW.version = "7"`, func(m *machine.Machine) any { return m.HardwareVersion }, "vmx-07"},
		{"a TPM", `vtpm.present = "TRUE"`, func(m *machine.Machine) any { return m.TPM }, machine.TPM20},
		{"a controller without a word for its model", "scsi1.present = \"TRUE\"", func(m *machine.Machine) any { return m.Controllers },
			[]machine.Controller{{Name: "scsi1", Type: machine.SCSI, Number: 1}}},
		{"a controller's model in capitals", "scsi0.present = \"TRUE\"\nscsi0.virtualDev = \"LSIlogic\"", func(m *machine.Machine) any { return m.Controllers[0].Model }, machine.LSILogic},
		{"a disk on a controller that is not there", "scsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"", func(m *machine.Machine) any { return len(m.Disks) + 10*len(m.Unread) }, 10},
		{"a disk at the controller's own place", "scsi0.present = \"TRUE\"\nscsi0:7.present = \"TRUE\"\nscsi0:7.fileName = \"a.vmdk\"", func(m *machine.Machine) any { return m.Unread[0].Field }, "scsi0:7"},
		{"a disk that is not present", "ide0:0.fileName = \"a.vmdk\"", func(m *machine.Machine) any { return len(m.Disks) }, 0},
		{"a partition of the host", drive(`deviceType = "plainDisk"`, `fileName = "a.pln"`), func(m *machine.Machine) any { return len(m.Disks) + 10*len(m.Unread) }, 10},
		{"a floppy first", `bios.bootOrder = "floppy0,fd,hdd"`, func(m *machine.Machine) any { return m.BootOrder }, []machine.BootDevice{machine.BootFloppy, machine.BootDisk}},
		{"a bridge has no virtual network", "ethernet0.present = \"TRUE\"\nethernet0.connectionType = \"bridged\"\nethernet0.vnet = \"VMnet5\"", func(m *machine.Machine) any { return m.NICs[0].Network }, "bridged"},
		{"an ISO without a type", drive(`fileName = "a.ISO"`), func(m *machine.Machine) any { return m.CDROMs[0].File }, "a.ISO"},
		{"no format for what is no VMDK", drive(`fileName = "a.dsk"`), func(m *machine.Machine) any { return m.Disks[0].Format }, ""},
		{"an RDM is a disk", drive(`deviceType = "scsi-nonpassthru-rdm"`, `fileName = "a.vmdk"`), func(m *machine.Machine) any { return len(m.Disks) }, 1},
		{"a disk of the host is none of ours", drive(`deviceType = "rawDisk"`, `fileName = "a.vmdk"`), func(m *machine.Machine) any { return m.Unread[0].Value }, "a.vmdk"},
		{"a device of the host is none of ours", drive(`deviceType = "scsi-passthru"`, `fileName = "/dev/sg0"`), func(m *machine.Machine) any { return m.Unread[0].Value }, "/dev/sg0"},
		{"a drive of the host is an empty one", drive(`deviceType = "cdrom-raw"`, `fileName = "E:"`), func(m *machine.Machine) any { return m.CDROMs[0].File + m.Unread[0].Value }, "E:"},
		{"a drive of the client is reported", drive(`deviceType = "atapi-cdrom"`, `clientDevice = "TRUE"`), func(m *machine.Machine) any { return m.Unread[0].Field }, "scsi0:0"},
		{"changes that are discarded are reported", drive(`fileName = "a.vmdk"`, `mode = "independent-nonpersistent"`), func(m *machine.Machine) any { return m.Unread[0].Value }, "independent-nonpersistent"},
		{"the disk that is tried first is the first", "bios.hddOrder = \"IDE1:0, scsi9:9,ide1:0\"\nide0:0.present = \"TRUE\"\nide0:0.fileName = \"a\"\nide1:0.present = \"TRUE\"\nide1:0.fileName = \"b\"",
			func(m *machine.Machine) any { return m.Disks[0].File + m.Disks[1].File }, "ba"},
		{"VMXNET 2", "ethernet0.present = \"TRUE\"\nethernet0.virtualDev = \"vmxnet\"\nethernet0.features = \"15\"", func(m *machine.Machine) any { return m.NICs[0].Type }, machine.VMXNET2},
		{"a card without a word", "ethernet0.present = \"TRUE\"", func(m *machine.Machine) any { return m.NICs[0] }, machine.NIC{Name: "ethernet0"}},
		{"a virtual network by path", "ethernet0.present = \"TRUE\"\nethernet0.connectionType = \"custom\"\nethernet0.vnet = \"/dev/vmnet2\"", func(m *machine.Machine) any { return m.NICs[0].Network }, "vmnet2"},
		{"a MAC with dashes", "ethernet0.present = \"TRUE\"\nethernet0.addressType = \"static\"\nethernet0.address = \"00-50-56-AA-BB-CC\"", func(m *machine.Machine) any { return m.NICs[0].MAC }, "00:50:56:aa:bb:cc"},
		{"an eleventh card is reported", "ethernet10.present = \"TRUE\"", func(m *machine.Machine) any { return m.Unread[0].Field }, "ethernet10"},
		{"no screen", `svga.present = "FALSE"`, func(m *machine.Machine) any { return m.Display }, machine.Display{}},
		{"the boot order of old products", `bios.bootDeviceClasses = "allow:net,hd,cd"`, func(m *machine.Machine) any { return m.BootOrder }, []machine.BootDevice{machine.BootNetwork, machine.BootDisk, machine.BootCDROM}},
		{"a boot device that is not known", `bios.bootOrder = "usb,hdd"`, func(m *machine.Machine) any { return m.Unread[0].Value }, "usb"},
		{"a device that is passed through", `pciPassthru0.present = "TRUE"`, func(m *machine.Machine) any { return m.Unread[0].Field }, "pciPassthru0"},
		{"a pattern is no device", `pciPassthru*.present = "False"`, func(m *machine.Machine) any { return len(m.Unread) }, 0},
		{"a device that nobody knows", `nvdimm0.present = "TRUE"`, func(m *machine.Machine) any { return m.Unread[0].Reason }, "a device that is not known here"},
		{"a suspended machine", `checkpoint.vmState = "a.vmss"`, func(m *machine.Machine) any { return m.Unread[0].Value }, "a.vmss"},
		{"a mask of CPUID without effect", `cpuid.1.eax = "----:----"`, func(m *machine.Machine) any { return len(m.Unread) }, 0},
		{"a mask of CPUID", `cpuid.1.eax = "----:---1"`, func(m *machine.Machine) any { return m.Unread[0].Field }, "cpuid.1.eax"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.get(parse(t, head+test.lines)); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

// TestParseReports has entries that the model has no word for, each with a value
// that says nothing.
func TestParseReports(t *testing.T) {
	const scsi = "scsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n"
	const card = "ethernet0.present = \"TRUE\"\n"
	for _, test := range []struct{ before, name, value, harmless string }{
		{"", "sched.cpu.min", "1", "0"},
		{"", "sched.cpu.max", "1000", "unlimited"},
		{"", "sched.cpu.shares", "high", "normal"},
		{"", "sched.cpu.affinity", "0,1", "all"},
		{"", "sched.cpu.latencySensitivity", "high", "normal"},
		{"", "sched.mem.min", "16", "0"},
		{"", "sched.mem.minsize", "16", "0"},
		{"memsize = \"64\"\n", "sched.mem.max", "16", "64"},
		{"", "sched.mem.shares", "1000", "normal"},
		{"", "vcpu.hotadd", "TRUE", "FALSE"},
		{"", "vhv.enable", "TRUE", "FALSE"},
		{"", "smbios.reflectHost", "TRUE", "FALSE"},
		{"", "disk.EnableUUID", "TRUE", "false"},
		{"", "mks.enable3d", "TRUE", "FALSE"},
		{"", "checkpoint.vmState", "a.vmss", ""},
		{"", "guestinfo.metadata", "", ""},
		{scsi, "scsi0.sharedBus", "physical", "none"},
		{scsi, "scsi0:0.redo", "a.REDO", ""},
		{scsi, "scsi0:0.mode", "undoable", "independent-persistent"},
		{card, "ethernet0.startConnected", "FALSE", "TRUE"},
		{card, "ethernet0.dvs.portgroupId", "dvportgroup-1", ""},
		{card, "ethernet0.opaqueNetwork.id", "a-b", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			line := func(value string) string { return head + test.before + test.name + ` = "` + value + `"` }
			got := parse(t, line(test.value)).Unread
			if len(got) != 1 || got[0].Field != test.name || got[0].Value != test.value || got[0].Reason == "" {
				t.Errorf("got %v, want %s = %s", got, test.name, test.value)
			}
			if test.value == test.harmless {
				return
			}
			if got := parse(t, line(test.harmless)).Unread; len(got) > 0 {
				t.Errorf("%q is reported: %v", test.harmless, got)
			}
		})
	}
	for line, field := range map[string]string{
		"usb:0.present = \"TRUE\"\nusb:0.deviceType = \"disk\"": "usb:0",
		"usb:0.present = \"TRUE\"\nusb:0.deviceType = \"hub\"":  "",
		"displayName = \"\xFC\"":                                ".encoding",
		"vwdt.present = \"TRUE\"":                               "vwdt",
		"hpet0.present = \"TRUE\"":                              "",
	} {
		got := parse(t, head+line).Unread
		if field == "" && len(got) > 0 || field != "" && (len(got) != 1 || got[0].Field != field) {
			t.Errorf("%s: got %v, want %q", line, got, field)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct {
		name, data string
		want       error
		text       string // in the error
	}{
		{"nothing", "", machine.ErrMalformed, "no config.version"},
		{"another file", "a = b\n", machine.ErrMalformed, "no config.version"},
		{"too much", strings.Repeat("#", machine.MaxDescriptor+1), machine.ErrMalformed, "bytes, more than"},
		{"a line without =", head + "displayName", machine.ErrMalformed, "line 2"},
		{"a line without a name", head + "= \"a\"", machine.ErrMalformed, "line 2"},
		{"no quote at the end", head + "displayName = \"a", machine.ErrMalformed, "line 2"},
		{"text after the quotes", head + "displayName = \"a\" b", machine.ErrMalformed, "line 2"},
		{"a quote in quotes", head + "displayName = \"a\"b\"", machine.ErrMalformed, "line 2"},
		{"a space without quotes", head + `scsi0:0.fileName = C:\my disks\a.vmdk`, machine.ErrMalformed, "line 2"},
		{"two values", head + "memsize = \"4\"\n# \nMemSize = \"8\"", machine.ErrMalformed, "line 4: MemSize has another value on line 2"},
		{"a NUL byte", head + "a = \"\x00\"", machine.ErrMalformed, "NUL"},
		{"a NUL byte before it", head + "\x00a = \"b\"", machine.ErrMalformed, "NUL"},
		{"an escaped NUL byte", head + "a = \"|00\"", machine.ErrMalformed, "NUL"},
		{"not in UTF-8", head + ".encoding = \"UTF-8\"\na = \"\xFF\"", machine.ErrMalformed, "not in UTF-8"},
		{"not in UTF-8 by escape", head + ".encoding = \"UTF-8\"\na = \"|FF\"", machine.ErrMalformed, "not in UTF-8"},
		{"not in Shift_JIS", head + ".encoding = \"Shift_JIS\"\na = \"\x83\"", machine.ErrMalformed, "Shift_JIS"},
		{"no encoding at all", head + ".encoding = \"UTF-7\"", machine.ErrUnsupported, "UTF-7"},
		{"an encrypted machine", ".encoding = \"UTF-8\"\ndisplayName = \"a\"\nencryption.keySafe = \"vmware:key/list/(x)\"\nencryption.data = \"x\"", machine.ErrUnsupported, "encryption.keySafe"},
		{"encrypted data", head + "encryption.data = \"x\"", machine.ErrUnsupported, "encryption.data"},
		{"a new version of the file", "config.version = \"9\"", machine.ErrUnsupported, "9"},
		{"no version of the file", "config.version = \"0\"", machine.ErrUnsupported, "0"},
		{"a version that is no number", "config.version = \"x\"", machine.ErrMalformed, "line 1"},
		{"memory that is no number", head + "memsize = \"lots\"", machine.ErrMalformed, "line 2: memsize = \"lots\""},
		{"negative memory", head + "memsize = \"-4\"", machine.ErrMalformed, "memsize"},
		{"too much memory", head + "memsize = \"99999999999\"", machine.ErrMalformed, "is more than"},
		{"more than 64 bits of memory", head + "memsize = \"99999999999999999999999\"", machine.ErrMalformed, "is more than"},
		{"too many CPUs", head + "numvcpus = \"65537\"", machine.ErrMalformed, "numvcpus"},
		{"too many screens", head + "svga.numDisplays = \"65\"", machine.ErrMalformed, "numDisplays"},
		{"a long boot order", head + "bios.bootOrder = \"" + strings.Repeat("x,", machine.MaxDisks+1) + "\"", machine.ErrMalformed, "more than"},
		{"a firmware that is not known", head + "firmware = \"coreboot\"", machine.ErrMalformed, "coreboot"},
		{"neither true nor false", head + "scsi0.present = \"maybe\"", machine.ErrMalformed, "scsi0.present"},
		{"a disk without a file", head + "ide0:0.present = \"TRUE\"", machine.ErrMalformed, "ide0:0"},
		{"a type of device that is not known", head + "ide0:0.present = \"TRUE\"\nide0:0.deviceType = \"tape\"\nide0:0.fileName = \"a\"", machine.ErrUnsupported, "tape"},
		{"a MAC that is none", head + "ethernet0.present = \"TRUE\"\nethernet0.generatedAddress = \"00:11\"", machine.ErrMalformed, "MAC"},
		{"a MAC of letters", head + "ethernet0.present = \"TRUE\"\nethernet0.generatedAddress = \"zz:zz:zz:zz:zz:zz\"", machine.ErrMalformed, "MAC"},
	} {
		t.Run(test.name, func(t *testing.T) {
			env, err := vmx.Parse([]byte(test.data))
			if !errors.Is(err, test.want) || !strings.Contains(fmt.Sprint(err), test.text) {
				t.Errorf("got %v, want %v with %q", err, test.want, test.text)
			}
			if env != nil {
				t.Error("it is refused and read")
			}
		})
	}
	var many strings.Builder
	many.WriteString(head)
	for i := range 1 << 16 {
		fmt.Fprintf(&many, "a%d=1\n", i)
	}
	if _, err := vmx.Parse([]byte(many.String())); !errors.Is(err, machine.ErrMalformed) {
		t.Errorf("too many entries: got %v", err)
	}
}

// TestGuests has words of products for the same system.
func TestGuests(t *testing.T) {
	for vmxWord, id := range map[string]string{
		"debian12-64": "debian12_64Guest", "debian12": "debian12Guest", "ubuntu-64": "ubuntu64Guest", "ubuntu": "ubuntuGuest",
		"rhel9-64": "rhel9_64Guest", "centos-64": "centos64Guest", "centos7-64": "centos7_64Guest", "sles-64": "sles64Guest", "sles15-64": "sles15_64Guest",
		"oraclelinux8-64": "oracleLinux8_64Guest", "oraclelinux-64": "oracleLinux64Guest", "vmware-photon-64": "vmwarePhoton64Guest",
		"other-64": "otherGuest64", "other": "otherGuest", "otherlinux-64": "otherLinux64Guest", "otherlinux": "otherLinuxGuest",
		"other5xlinux-64": "other5xLinux64Guest", "other26xlinux": "other26xLinuxGuest",
		"windows9-64": "windows9_64Guest", "windows11-64": "windows11_64Guest", "windows7srv-64": "windows7Server64Guest", "windows9srv-64": "windows9Server64Guest",
		"windows2019srv-64": "windows2019srv_64Guest", "windows2019srvnext-64": "windows2019srvNext_64Guest",
		"longhorn-64": "winLonghorn64Guest", "winnetstandard": "winNetStandardGuest", "winxppro-64": "winXPPro64Guest", "winvista": "winVistaGuest",
		"darwin20-64": "darwin20_64Guest", "freebsd13-64": "freebsd13_64Guest", "freebsd-64": "freebsd64Guest", "vmkernel7": "vmkernel7Guest", "solaris11-64": "solaris11_64Guest",
		"rockylinux-64": "rockylinux_64Guest", "amazonlinux2-64": "amazonlinux2_64Guest", "dos": "dosGuest",
	} {
		if got := parse(t, head+`guestOS = "`+vmxWord+`"`).GuestOS.VMware; got != id {
			t.Errorf("%s is %s, want %s", vmxWord, got, id)
		}
		data, losses, err := vmx.Write(&machine.Machine{Memory: 1 << 30, GuestOS: machine.GuestOS{VMware: id}})
		if err != nil || len(losses) > 0 || !bytes.Contains(data, []byte("\nguestOS = \""+vmxWord+"\"\n")) {
			t.Errorf("%s: %v, %v in\n%s", id, err, losses, data)
		}
	}
	if got := parse(t, head+`guestOS = "linux"`).GuestOS.VMware; got != "otherLinuxGuest" {
		t.Errorf("linux is %s", got)
	}
}

// full has one of nearly everything that a VMX has a word for.
func full() *machine.Machine {
	return &machine.Machine{
		ID: "web", Name: "web", Description: "two\nlines", CPUs: 4, CoresPerSocket: 2, Memory: 2 << 30,
		Firmware: machine.UEFI, SecureBoot: true, GuestOS: machine.GuestOS{VMware: "debian12_64Guest", Description: "Debian GNU/Linux 12 (64-bit)"}, HardwareVersion: "vmx-19",
		Controllers: []machine.Controller{
			{Name: "scsi0", Type: machine.SCSI, Model: machine.PVSCSI},
			{Name: "sata0", Type: machine.SATA},
			{Name: "ide1", Type: machine.IDE, Number: 1},
			{Name: "usb0", Type: machine.USB, Model: machine.XHCI},
		},
		Disks: []machine.Disk{
			{Name: "disk0", Controller: "sata0", Bus: machine.SATA, Format: "vmdk", File: "disk0.vmdk"},
			{Name: "disk1", Controller: "scsi0", Bus: machine.SCSI, Unit: 16, Format: "vmdk", File: "disk1.vmdk"},
		},
		CDROMs: []machine.CDROM{
			{Name: "cdrom0", Controller: "sata0", Bus: machine.SATA, Unit: 1, File: "seed.iso"},
			{Name: "cdrom1", Controller: "ide1", Bus: machine.IDE},
		},
		NICs: []machine.NIC{
			{Name: "ethernet0", Type: machine.VMXNET3, Network: "VM Network", MAC: "52:54:00:12:34:56"},
			{Name: "ethernet1", Type: machine.E1000, Network: "nat"},
		},
		Display:   machine.Display{Type: "vmvga", Memory: 16 << 20, Monitors: 1},
		BootOrder: []machine.BootDevice{machine.BootDisk, machine.BootNetwork},
		NVRAM:     "web.nvram",
	}
}

func TestWrite(t *testing.T) {
	const want = `.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
virtualHW.productCompatibility = "hosted"
displayName = "web"
annotation = "two|0Alines"
guestOS = "debian12-64"
guestOSAltName = "Debian GNU/Linux 12 (64-bit)"
numvcpus = "4"
cpuid.coresPerSocket = "2"
memsize = "2048"
firmware = "efi"
uefi.secureBoot.enabled = "TRUE"
nvram = "web.nvram"
pciBridge0.present = "TRUE"
pciBridge4.present = "TRUE"
pciBridge4.virtualDev = "pcieRootPort"
pciBridge4.functions = "8"
pciBridge5.present = "TRUE"
pciBridge5.virtualDev = "pcieRootPort"
pciBridge5.functions = "8"
pciBridge6.present = "TRUE"
pciBridge6.virtualDev = "pcieRootPort"
pciBridge6.functions = "8"
pciBridge7.present = "TRUE"
pciBridge7.virtualDev = "pcieRootPort"
pciBridge7.functions = "8"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:16.present = "TRUE"
scsi0:16.deviceType = "scsi-hardDisk"
scsi0:16.fileName = "disk1.vmdk"
sata0.present = "TRUE"
sata0:0.present = "TRUE"
sata0:0.deviceType = "disk"
sata0:0.fileName = "disk0.vmdk"
sata0:1.present = "TRUE"
sata0:1.deviceType = "cdrom-image"
sata0:1.fileName = "seed.iso"
ide1:0.present = "TRUE"
ide1:0.deviceType = "cdrom-image"
ide1:0.fileName = "emptyBackingString"
ide1:0.startConnected = "FALSE"
usb_xhci.present = "TRUE"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.connectionType = "bridged"
ethernet0.networkName = "VM Network"
ethernet0.addressType = "static"
ethernet0.address = "52:54:00:12:34:56"
ethernet0.checkMACAddress = "FALSE"
ethernet1.present = "TRUE"
ethernet1.virtualDev = "e1000"
ethernet1.connectionType = "nat"
ethernet1.addressType = "generated"
svga.present = "TRUE"
svga.autodetect = "FALSE"
svga.vramSize = "16777216"
svga.numDisplays = "1"
bios.bootOrder = "hdd,ethernet0"
bios.hddOrder = "sata0:0,scsi0:16"
floppy0.present = "FALSE"
`
	got, losses, err := vmx.Write(full())
	if err != nil {
		t.Fatal(err)
	}
	if len(losses) > 0 {
		t.Errorf("a VMX has words for all, but %v", losses)
	}
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if back := parse(t, want); !reflect.DeepEqual(back, full()) {
		t.Errorf("got\n%+v\nwant\n%+v", back, full())
	}
}

// TestWriteLoses changes one thing in a machine that a VMX has words for.
func TestWriteLoses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(m *machine.Machine)
		field  string // of the losses; empty: there is none
		want   string // in the VMX
	}{
		{"memory is a multiple of 4 MiB", func(m *machine.Machine) { m.Memory = 1<<30 - 1 }, "memory", `memsize = "1024"`},
		{"memory is not said", func(m *machine.Machine) { m.Memory = 0 }, "memory", `memsize = "1024"`},
		{"sockets are full", func(m *machine.Machine) { m.CoresPerSocket = 3 }, "coresPerSocket", `numvcpus = "4"`},
		{"more CPUs than VMware has", func(m *machine.Machine) { m.CPUs, m.CoresPerSocket, m.HardwareVersion = 770, 0, "vmx-18" }, "cpus", `virtualHW.version = "18"`},
		{"a TPM needs encryption", func(m *machine.Machine) { m.TPM = machine.TPM20 }, "tpm", ""},
		{"secure boot without UEFI", func(m *machine.Machine) { m.Firmware = machine.BIOS }, "secureBoot", `firmware = "bios"`},
		{"a version for many CPUs", func(m *machine.Machine) { m.CPUs, m.HardwareVersion, m.NVRAM = 200, "", "" }, "", `virtualHW.version = "15"`},
		{"a version for much memory", func(m *machine.Machine) { m.Memory, m.HardwareVersion, m.NVRAM = 8<<40, "", "" }, "", `virtualHW.version = "18"`},
		{"a version is raised", func(m *machine.Machine) { m.HardwareVersion = "vmx-07" }, "hardwareVersion", `virtualHW.version = "14"`},
		{"the first of several that has all", func(m *machine.Machine) { m.HardwareVersion = "vmx-21 vmx-10 vmx-14" }, "hardwareVersion", `virtualHW.version = "14"`},
		{"a version of another product", func(m *machine.Machine) { m.HardwareVersion, m.NVRAM = "virtualbox-2.2", "" }, "hardwareVersion", `virtualHW.version = "14"`},
		{"a version that is one space", func(m *machine.Machine) { m.HardwareVersion, m.NVRAM = " ", "" }, "hardwareVersion", `virtualHW.version = "14"`},
		{"a version with NVMe", func(m *machine.Machine) {
			m.HardwareVersion = ""
			m.NVRAM = ""
			m.Controllers = []machine.Controller{{Name: "nvme0", Type: machine.NVMe}}
			m.Disks = []machine.Disk{{Controller: "nvme0", Bus: machine.NVMe, Unit: 15, File: "a.vmdk"}}
			m.CDROMs = nil
		}, "", `virtualHW.version = "21"`},
		{"a guest that VMware does not know", func(m *machine.Machine) { m.GuestOS = machine.GuestOS{Osinfo: "http://example.com/plan9"} }, "guestOS", `guestOS = "other-64"`},
		{"a Linux that VMware does not know", func(m *machine.Machine) { m.GuestOS = machine.GuestOS{Description: "Void Linux"} }, "guestOS", `guestOS = "otherlinux-64"`},
		{"a guest in VirtualBox's words", func(m *machine.Machine) { m.GuestOS = machine.GuestOS{VirtualBox: "Debian11_64"} }, "", `guestOS = "debian11-64"`},
		{"ARM, of which its guest says nothing", func(m *machine.Machine) { m.Architecture = "arm64" }, "architecture", `guestOS = "debian12-64"`},
		{"ARM with a guest for it", func(m *machine.Machine) {
			m.Architecture, m.GuestOS = "arm64", machine.GuestOS{VMware: "arm-debian12_64Guest"}
		}, "", `guestOS = "arm-debian12-64"`},
		{"a guest that is none", func(m *machine.Machine) { m.GuestOS = machine.GuestOS{VMware: "a\"\nb = \"cGuest"} }, "guestOS", `guestOS = "other-64"`},
		{"virtio is SATA", func(m *machine.Machine) {
			m.Disks[1].Bus, m.Disks[1].Controller, m.Disks[1].Unit = machine.Virtio, "", 0
		}, "disks[1].bus", `sata0:2.fileName = "disk1.vmdk"`},
		{"a disk of no bus is beside the others", func(m *machine.Machine) {
			m.Disks[1].Bus, m.Disks[1].Controller, m.Disks[1].Unit = "", "", 0
		}, "disks[1].bus", `sata0:2.fileName = "disk1.vmdk"`},
		{"a controller that has too high a number", func(m *machine.Machine) {
			m.Controllers[0].Name, m.Controllers[0].Number, m.Disks[1].Controller, m.Disks[1].Unit = "scsi7", 7, "scsi7", 0
		}, "controllers[0].number disks[1].unit", `scsi0:0.fileName = "disk1.vmdk"`},
		{"USB is SATA", func(m *machine.Machine) { m.Disks[0].Bus, m.Disks[0].Controller = machine.USB, "usb0" }, "disks[0].bus", `sata0:0.fileName = "disk0.vmdk"`},
		{"a unit twice", func(m *machine.Machine) { m.CDROMs[0].Unit = 0 }, "cdroms[0].unit", `sata0:1.fileName = "seed.iso"`},
		{"the unit of the controller", func(m *machine.Machine) { m.Disks[1].Unit = 7 }, "disks[1].unit", `scsi0:0.fileName = "disk1.vmdk"`},
		{"a unit that is too high", func(m *machine.Machine) { m.Disks[1].Unit = 65 }, "disks[1].unit", `scsi0:0.fileName = "disk1.vmdk"`},
		{"a negative unit", func(m *machine.Machine) { m.Disks[1].Unit = -1 }, "disks[1].unit", `scsi0:0.fileName = "disk1.vmdk"`},
		{"a controller without a model", func(m *machine.Machine) { m.Controllers[0].Model, m.Disks[1].Unit = "", 0 }, "controllers[0].model", `scsi0.virtualDev = "lsilogic"`},
		{"a controller that is too many", func(m *machine.Machine) {
			m.Controllers[3] = machine.Controller{Name: "sata4", Type: machine.SATA, Number: 4}
		}, "controllers[3]", ""},
		{"a controller twice", func(m *machine.Machine) { m.Controllers[3] = machine.Controller{Name: "sata9", Type: machine.SATA} }, "controllers[3]", ""},
		{"a controller that VMware has not", func(m *machine.Machine) { m.Controllers[3] = machine.Controller{Name: "xen0", Type: machine.Xen} }, "controllers[3]", ""},
		{"USB 2 has USB 1", func(m *machine.Machine) { m.Controllers[3].Model = machine.EHCI }, "controllers[3]", "usb.present = \"TRUE\"\nehci.present = \"TRUE\""},
		{"USB twice", func(m *machine.Machine) {
			m.Controllers = append(m.Controllers, machine.Controller{Name: "usb1", Type: machine.USB, Model: machine.XHCI, Number: 1})
		}, "controllers[4]", ""},
		{"a controller without a model in a Windows", func(m *machine.Machine) {
			m.Controllers[0].Model, m.Disks[1].Unit, m.GuestOS.VMware = "", 0, "windows9_64Guest"
		}, "controllers[0].model", `scsi0.virtualDev = "lsisas1068"`},
		{"a USB controller that VMware has not", func(m *machine.Machine) { m.Controllers[3].Model = "piix4-uhci" }, "controllers[3].model", ""},
		{"an eleventh card", func(m *machine.Machine) {
			for len(m.NICs) < 11 {
				m.NICs = append(m.NICs, m.NICs[1])
			}
		}, "nics[10]", "ethernet9.present"},
		{"VMXNET 2", func(m *machine.Machine) { m.NICs[0].Type = machine.VMXNET2 }, "", "ethernet0.virtualDev = \"vmxnet\"\nethernet0.features = \"15\""},
		{"a disk on IDE", func(m *machine.Machine) {
			m.Disks[1].Bus, m.Disks[1].Controller, m.Disks[1].Unit = machine.IDE, "ide1", 1
		}, "", `ide1:1.deviceType = "ata-hardDisk"`},
		{"a disk on a controller that is not there", func(m *machine.Machine) { m.Disks[1].Controller = "scsi1" }, "disks[1].bus", `sata0:2.fileName = "disk1.vmdk"`},
		{"a CD drive on NVMe", func(m *machine.Machine) {
			m.Controllers[2] = machine.Controller{Name: "nvme0", Type: machine.NVMe}
			m.CDROMs[1].Bus, m.CDROMs[1].Controller = machine.NVMe, "nvme0"
		}, "cdroms[1].bus", "sata0:2.deviceType = \"cdrom-image\""},
		{"a guest of which VMware has a like word", func(m *machine.Machine) { m.GuestOS.VMware = "plan964Guest" }, "guestOS.vmware", `guestOS = "plan9-64"`},
		{"a guest in a VMX's word", func(m *machine.Machine) { m.GuestOS = machine.GuestOS{VMware: "debian12-64"} }, "guestOS", `guestOS = "other-64"`},
		{"a guest without a name", func(m *machine.Machine) { m.GuestOS.VMware = "Guest" }, "guestOS", `guestOS = "other`},
		{"a disk without a file", func(m *machine.Machine) { m.Disks[1].File = "" }, "disks[1]", ""},
		{"sectors of 4096 bytes", func(m *machine.Machine) { m.Disks[1].SectorSize = 4096 }, "disks[1].logicalSectorSize", ""},
		{"a disk that is read only", func(m *machine.Machine) { m.Disks[1].ReadOnly = true }, "disks[1].readOnly", ""},
		{"a path in a drive", func(m *machine.Machine) { m.CDROMs[0].File = "/etc/passwd" }, "cdroms[0].file", "sata0:1.fileName = \"emptyBackingString\"\nsata0:1.startConnected = \"FALSE\""},
		{"a device in a drive", func(m *machine.Machine) { m.CDROMs[0].File = "Auto Detect" }, "cdroms[0].file", `sata0:1.fileName = "emptyBackingString"`},
		{"a path for the variables", func(m *machine.Machine) { m.NVRAM = `..\a.nvram` }, "nvram", ""},
		{"variables of another product", func(m *machine.Machine) { m.NVRAM = "OVMF_VARS.fd" }, "nvram", ""},
		{"virtio of a Linux", func(m *machine.Machine) { m.NICs[0].Type = machine.VirtioNet }, "nics[0].type", `ethernet0.virtualDev = "vmxnet3"`},
		{"a flexible card", func(m *machine.Machine) { m.NICs[0].Type = machine.Flexible }, "nics[0].type", `ethernet0.virtualDev = "vlance"`},
		{"a card that is not said", func(m *machine.Machine) { m.NICs[0].Type = "" }, "nics[0].type", `ethernet0.virtualDev = "e1000"`},
		{"a card with a hostile type", func(m *machine.Machine) { m.NICs[0].Type = "e\"\nx" }, "nics[0].type", `ethernet0.virtualDev = "e1000"`},
		{"an address of a group", func(m *machine.Machine) { m.NICs[0].MAC = "01:00:5e:00:00:01" }, "nics[0].mac", `ethernet0.addressType = "generated"`},
		{"no address", func(m *machine.Machine) { m.NICs[0].MAC = "00:00:00:00:00:00" }, "nics[0].mac", `ethernet0.addressType = "generated"`},
		{"VMware's own address", func(m *machine.Machine) { m.NICs[0].MAC = "00:50:56:3f:00:01" }, "", "ethernet0.address = \"00:50:56:3f:00:01\"\nethernet1"},
		{"a virtual network of Workstation", func(m *machine.Machine) { m.NICs[0].Network = "VMnet3" }, "", "ethernet0.connectionType = \"custom\"\nethernet0.vnet = \"VMnet3\"\n"},
		{"VirtualBox's network", func(m *machine.Machine) { m.NICs[0].Network = "NAT" }, "", "ethernet0.connectionType = \"nat\"\nethernet0.networkName = \"NAT\"\n"},
		{"another graphics card", func(m *machine.Machine) { m.Display.Type = "qxl" }, "display.type", ""},
		{"much video memory", func(m *machine.Machine) { m.Display.Memory = 1 << 30 }, "display.memory", ""},
		{"many screens", func(m *machine.Machine) { m.Display.Monitors = 16 }, "display.monitors", ""},
		{"no card to boot from", func(m *machine.Machine) { m.NICs = nil }, "bootOrder[1]", `bios.bootOrder = "hdd"`},
		{"a boot device twice", func(m *machine.Machine) { m.BootOrder[1] = machine.BootDisk }, "bootOrder[1]", `bios.bootOrder = "hdd"`},
		{"a product", func(m *machine.Machine) { m.Product.Name = "x" }, "product", ""},
		{"a licence", func(m *machine.Machine) { m.EULAs = []string{"x"} }, "eulas[0]", ""},
		{"a property", func(m *machine.Machine) { m.Properties = []machine.Property{{Key: "k", Value: "hunter2"}} }, "properties[0]", ""},
		{"a transport", func(m *machine.Machine) { m.Transport = []string{"iso"} }, "transport", ""},
		{"a NUL byte in the name", func(m *machine.Machine) { m.Name = "a\x00b" }, "name", "displayName = \"a\uFFFDb\""},
		{"no UTF-8 in the text", func(m *machine.Machine) { m.Description = "a\xFFb" }, "description", "annotation = \"a\uFFFDb\""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := full()
			test.change(m)
			data, losses, err := vmx.Write(m)
			if err != nil {
				t.Fatal(err)
			}
			var fields []string
			for _, l := range losses {
				fields = append(fields, l.Field)
			}
			if !slices.Equal(fields, strings.Fields(test.field)) {
				t.Errorf("got losses %v, want those of %q", losses, test.field)
			}
			if !strings.Contains(string(data), test.want) {
				t.Errorf("%s is not in\n%s", test.want, data)
			}
			if strings.Contains(fmt.Sprint(losses), "hunter2") {
				t.Errorf("a secret is reported: %v", losses)
			}
			checkRoundTrip(t, m)
		})
	}
}

// TestWriteVersion has the versions that one thing needs, of a machine that is
// of the first version otherwise.
func TestWriteVersion(t *testing.T) {
	on := func(bus machine.Bus, model machine.ControllerModel, unit int) func(m *machine.Machine) {
		return func(m *machine.Machine) {
			m.Controllers = []machine.Controller{{Name: "c", Type: bus, Model: model}}
			m.Disks = []machine.Disk{{Controller: "c", Bus: bus, Unit: unit, File: "a.vmdk"}}
		}
	}
	card := func(n machine.NICType) func(m *machine.Machine) {
		return func(m *machine.Machine) { m.NICs = []machine.NIC{{Type: n}} }
	}
	usb := func(model machine.ControllerModel) func(m *machine.Machine) {
		return func(m *machine.Machine) {
			m.Controllers = []machine.Controller{{Name: "usb0", Type: machine.USB, Model: model}}
		}
	}
	for _, test := range []struct {
		name   string
		change func(m *machine.Machine)
		want   int
	}{
		{"nothing", func(*machine.Machine) {}, 4},
		{"IDE", on(machine.IDE, "", 0), 4},
		{"LSI Logic", on(machine.SCSI, machine.LSILogic, 15), 4},
		{"LSI Logic SAS", on(machine.SCSI, machine.LSILogicSAS, 0), 7},
		{"PVSCSI", on(machine.SCSI, machine.PVSCSI, 15), 7},
		{"wide PVSCSI", on(machine.SCSI, machine.PVSCSI, 16), 14},
		{"SATA", on(machine.SATA, "", 16), 10},
		{"NVMe", on(machine.NVMe, "", 14), 13},
		{"wide NVMe", on(machine.NVMe, "", 15), 21},
		{"virtio, which is on SATA", on(machine.Virtio, "", 0), 10},
		{"a disk on no controller", func(m *machine.Machine) {
			m.Disks = []machine.Disk{{Controller: "scsi0", Bus: machine.SCSI, File: "a.vmdk"}}
		}, 10},
		{"E1000", card(machine.E1000), 4},
		{"E1000E", card(machine.E1000E), 8},
		{"VMXNET 2", card(machine.VMXNET2), 4},
		{"VMXNET 3", card(machine.VMXNET3), 7},
		{"USB 1", usb(machine.UHCI), 7},
		{"USB 3", usb(machine.XHCI), 8},
		{"BIOS", func(m *machine.Machine) { m.Firmware = machine.BIOS }, 4},
		{"UEFI", func(m *machine.Machine) { m.Firmware = machine.UEFI }, 8},
		{"secure boot", func(m *machine.Machine) { m.Firmware, m.SecureBoot = machine.UEFI, true }, 13},
		{"4 CPUs", func(m *machine.Machine) { m.CPUs = 4 }, 4},
		{"8 CPUs", func(m *machine.Machine) { m.CPUs = 8 }, 7},
		{"32 CPUs", func(m *machine.Machine) { m.CPUs = 32 }, 8},
		{"64 CPUs", func(m *machine.Machine) { m.CPUs = 64 }, 9},
		{"128 CPUs", func(m *machine.Machine) { m.CPUs = 128 }, 11},
		{"256 CPUs", func(m *machine.Machine) { m.CPUs = 256 }, 15},
		{"257 CPUs", func(m *machine.Machine) { m.CPUs = 257 }, 18},
		{"64 GiB", func(m *machine.Machine) { m.Memory = 64 << 30 }, 4},
		{"5 TiB", func(m *machine.Machine) { m.Memory = 5 << 40 }, 13},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := &machine.Machine{Memory: 1 << 30, HardwareVersion: "vmx-04"}
			test.change(m)
			data, _, err := vmx.Write(m)
			if err != nil {
				t.Fatal(err)
			}
			back := parse(t, string(data))
			if want := fmt.Sprintf("vmx-%02d", test.want); back.HardwareVersion != want {
				t.Errorf("got %s, want %s", back.HardwareVersion, want)
			}
			if bridges := strings.Contains(string(data), "pcieRootPort"); bridges != (test.want >= 7) {
				t.Errorf("PCI bridges: %v", bridges)
			}
			checkRoundTrip(t, m)

			// A version that is enough is kept.
			m.HardwareVersion = back.HardwareVersion
			if data, _, err = vmx.Write(m); err != nil || parse(t, string(data)).HardwareVersion != m.HardwareVersion {
				t.Errorf("%s is not kept: %v", m.HardwareVersion, err)
			}
		})
	}
	for version, want := range map[string]string{"": "vmx-13", "vmx-99": "vmx-99", "vmx-0": "vmx-13", "vmx-100": "vmx-13", "vmx-1x": "vmx-13", "pc-q35-9.0": "vmx-13"} {
		data, _, err := vmx.Write(&machine.Machine{Memory: 1 << 30, HardwareVersion: version})
		if err != nil || parse(t, string(data)).HardwareVersion != want {
			t.Errorf("%q: want %s, got %v\n%s", version, want, err, data)
		}
	}
}

// TestWriteSubstitutes a machine of KVM, which has nothing that VMware has.
func TestWriteSubstitutes(t *testing.T) {
	m := &machine.Machine{
		Memory: 1 << 30, CPUs: 1, GuestOS: machine.GuestOS{Osinfo: "http://microsoft.com/win/10"},
		Controllers: []machine.Controller{{Name: "scsi0", Type: machine.SCSI, Model: machine.VirtioSCSI}},
		Disks: []machine.Disk{
			{Bus: machine.Virtio, File: "a.vmdk"},
			{Bus: machine.SCSI, Controller: "scsi0", Unit: 3, File: "b.vmdk"},
		},
		CDROMs: []machine.CDROM{{Bus: machine.SCSI, Controller: "scsi0"}},
		NICs:   []machine.NIC{{Type: machine.VirtioNet}},
	}
	_, losses, err := vmx.Write(m)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range losses {
		got = append(got, l.Field)
	}
	want := []string{"controllers[0].model", "disks[0].bus", "disks[1].bus", "cdroms[0].bus", "nics[0].type"}
	if !slices.Equal(got, want) {
		t.Errorf("got losses %v, want %v", got, want)
	}
	checkRoundTrip(t, m)
	data, _, _ := vmx.Write(m)
	back := parse(t, string(data))
	for i, d := range back.Disks {
		if d.Controller != "sata0" || d.Unit != i {
			t.Errorf("disk %d is at %s:%d", i, d.Controller, d.Unit)
		}
	}
	if back.NICs[0].Type != machine.E1000 {
		t.Errorf("a Windows has %s, of which it may have no driver", back.NICs[0].Type)
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(m *machine.Machine)
		want   error
	}{
		{"a path", func(m *machine.Machine) { m.Disks[0].File = "/etc/passwd" }, machine.ErrMalformed},
		{"a path up", func(m *machine.Machine) { m.Disks[0].File = "../a.vmdk" }, machine.ErrMalformed},
		{"a folder", func(m *machine.Machine) { m.Disks[0].File = ".." }, machine.ErrMalformed},
		{"a path of Windows", func(m *machine.Machine) { m.Disks[0].File = `a\b.vmdk` }, machine.ErrMalformed},
		{"a drive of Windows", func(m *machine.Machine) { m.Disks[0].File = "c:a.vmdk" }, machine.ErrMalformed},
		{"a datastore", func(m *machine.Machine) { m.Disks[0].File = "[ds] a.vmdk" }, machine.ErrMalformed},
		{"a line", func(m *machine.Machine) { m.Disks[0].File = "a\nb.vmdk" }, machine.ErrMalformed},
		{"a long name", func(m *machine.Machine) { m.Disks[0].File = strings.Repeat("a", 256) }, machine.ErrMalformed},
		{"a word of VMware's", func(m *machine.Machine) { m.Disks[0].File = "EmptyBackingString" }, machine.ErrMalformed},
		{"no VMDK", func(m *machine.Machine) { m.Disks[0].Format = "qcow2" }, machine.ErrUnsupported},
		{"fewer than no CPUs", func(m *machine.Machine) { m.CPUs = -1 }, machine.ErrMalformed},
		{"less than no memory", func(m *machine.Machine) { m.Memory = -1 }, machine.ErrMalformed},
		{"more memory than there is", func(m *machine.Machine) { m.Memory = machine.MaxMemory + 1 }, machine.ErrMalformed},
		{"too many disks", func(m *machine.Machine) {
			m.Disks = nil
			for i := range 200 { // 120 of SATA, 64 of PVSCSI, 2 of the channel that it has
				m.Disks = append(m.Disks, machine.Disk{Bus: machine.Virtio, Unit: i, File: "a.vmdk"})
			}
		}, machine.ErrUnsupported},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := full()
			test.change(m)
			data, _, err := vmx.Write(m)
			if !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if data != nil {
				t.Error("it is refused and written")
			}
		})
	}
}

// TestWriteHostileText puts text into each field that can have any: it comes
// back as that text, and nothing else does.
func TestWriteHostileText(t *testing.T) {
	texts := []string{
		"a\"\nscsi0:0.fileName = \"/etc/passwd", "\r\nscsi0:0.fileName = \"/etc/passwd\"\r\n", `a" # b`, `|22`, `a|7C|`, `\"`, "\t", " a ", "%2f%5c%25%",
		"é\u3000\u00a0\U0001F4A9❤\uFE0F", `#`, `=`, strings.Repeat(`"|`, 1000), "..", "%25252f",
	}
	fields := map[string]func(m *machine.Machine) *string{
		"name":                func(m *machine.Machine) *string { return &m.Name },
		"description":         func(m *machine.Machine) *string { return &m.Description },
		"guestOS.description": func(m *machine.Machine) *string { return &m.GuestOS.Description },
		"nics[0].network":     func(m *machine.Machine) *string { return &m.NICs[0].Network },
	}
	for name, field := range fields {
		for _, text := range texts {
			m := full()
			*field(m) = text
			m.ID = m.Name
			data, losses, err := vmx.Write(m)
			if err != nil || len(losses) > 0 {
				t.Fatalf("%s = %q: %v, %v", name, text, err, losses)
			}
			if got := parse(t, string(data)); !reflect.DeepEqual(got, m) {
				t.Errorf("%s = %q: got\n%+v\nwant\n%+v", name, text, got, m)
			}
			for line := range bytes.Lines(data) {
				if bytes.Count(line, []byte(`"`)) != 2 || bytes.ContainsAny(line[:len(line)-1], "\r\n\x00\x1b\x7f") {
					t.Errorf("%s = %q: the line %q", name, text, line)
				}
			}
		}
	}
	// In a name of a file quotes may be.
	m := full()
	m.Disks[0].File, m.CDROMs[0].File, m.NVRAM = `"|".vmdk`, `a" # |22.iso`, `|".nvram`
	data, losses, err := vmx.Write(m)
	if err != nil || len(losses) > 0 {
		t.Fatal(err, losses)
	}
	if got := parse(t, string(data)); !reflect.DeepEqual(got, m) {
		t.Errorf("got\n%+v\nwant\n%+v", got, m)
	}
}

// TestWriteInvisibleText puts what no text of a machine has into each field
// that can have any: programs print the lines of a VMX, and the name in it.
func TestWriteInvisibleText(t *testing.T) {
	const invisible = "\x01\x1b\x7f\u0085\u009b\u00ad\u061c\u200b\u200d\u200e\u2028\u202e\u2066\u2069\u3164\ue000\ufeff\U000e0041"
	fields := map[string]func(m *machine.Machine) *string{
		"name":                func(m *machine.Machine) *string { return &m.Name },
		"description":         func(m *machine.Machine) *string { return &m.Description },
		"guestOS.description": func(m *machine.Machine) *string { return &m.GuestOS.Description },
		"nics[0].network":     func(m *machine.Machine) *string { return &m.NICs[0].Network },
	}
	for name, field := range fields {
		for _, r := range invisible {
			m := full()
			*field(m) = "a" + string(r) + "b"
			data, losses, err := vmx.Write(m)
			if err != nil || len(losses) != 1 || losses[0].Field != name || losses[0].Value != "a\uFFFDb" {
				t.Errorf("%s with %U: %v, losses %v", name, r, err, losses)
				continue
			}
			if got := *field(parse(t, string(data))); got != "a\uFFFDb" {
				t.Errorf("%s with %U is read as %q", name, r, got)
			}
			if bytes.ContainsRune(data, r) {
				t.Errorf("%s: %U is in the file", name, r)
			}
		}
	}
	m := full()
	m.Disks[0].File = "a\u202exdmv.exe"
	if _, _, err := vmx.Write(m); !errors.Is(err, machine.ErrMalformed) {
		t.Errorf("a file of a disk with a mark of direction in its name: %v", err)
	}
}

// TestRoundTrip writes each machine that there is a VMX of.
func TestRoundTrip(t *testing.T) {
	names, err := filepath.Glob("../../testdata/machines/*.vmx")
	if err != nil || len(names) == 0 {
		t.Fatal("no VMX", err)
	}
	for _, dir := range libvirtSets {
		more, err := filepath.Glob(filepath.Join(dir, "*.vmx"))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, more...)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			m := parse(t, string(data))
			besideVMX(m)
			checkRoundTrip(t, m)
		})
	}
}

// besideVMX gives the disks names as they have when they were pulled.
func besideVMX(m *machine.Machine) {
	for i := range m.Disks {
		m.Disks[i].File, m.Disks[i].Format = fmt.Sprintf("disk%d.vmdk", i), "vmdk"
	}
}

// checkRoundTrip writes a machine and reads that: it is the machine but for
// what Write said is lost, nothing is unread, and it is written as the same
// bytes again, with nothing lost but what VMware's machine itself has not.
func checkRoundTrip(t *testing.T, m *machine.Machine) {
	t.Helper()
	data, losses, err := vmx.Write(m)
	if err != nil {
		t.Fatal(err)
	}
	back := parse(t, string(data))
	for _, fault := range compare(back, m, losses) {
		t.Errorf("%s\nlosses %v in\n%s", fault, losses, data)
	}
	if len(back.Unread) > 0 {
		t.Errorf("what was written is not read: %v", back.Unread)
	}
	again, losses, err := vmx.Write(back)
	if err != nil || len(losses) > 0 {
		t.Errorf("the second time: %v, losses %v", err, losses)
	}
	if !bytes.Equal(again, data) {
		t.Errorf("the second time it is\n%s\nthe first\n%s", again, data)
	}
}

// compare returns where got is not what want says, and no loss tells.
func compare(got, want *machine.Machine, losses []machine.Loss) (faults []string) {
	lost := func(field string) bool {
		return slices.ContainsFunc(losses, func(l machine.Loss) bool {
			return l.Field == field || strings.HasPrefix(l.Field, field+".") || strings.HasPrefix(field, l.Field+".")
		})
	}
	check := func(field string, g, w any) {
		zero := reflect.ValueOf(w).IsZero() // not said
		if !lost(field) && !zero && !reflect.DeepEqual(g, w) {
			faults = append(faults, fmt.Sprintf("%s: got %v, want %v", field, g, w))
		}
	}
	check("name", got.Name, want.Name)
	check("description", got.Description, want.Description)
	check("cpus", got.CPUs, want.CPUs)
	check("coresPerSocket", got.CoresPerSocket, want.CoresPerSocket)
	check("memory", got.Memory, want.Memory)
	check("firmware", got.Firmware, want.Firmware)
	check("secureBoot", got.SecureBoot, want.SecureBoot)
	check("tpm", got.TPM, want.TPM)
	check("guestOS", strings.ToLower(got.GuestOS.VMware), strings.ToLower(want.GuestOS.VMware))
	check("guestOS.description", got.GuestOS.Description, want.GuestOS.Description)
	check("hardwareVersion", got.HardwareVersion, want.HardwareVersion)
	check("display.type", got.Display.Type, want.Display.Type)
	check("display.memory", got.Display.Memory, want.Display.Memory)
	check("display.monitors", got.Display.Monitors, want.Display.Monitors)
	check("nvram", got.NVRAM, want.NVRAM)
	for i, c := range want.Controllers {
		field := fmt.Sprintf("controllers[%d]", i)
		if c.Type == machine.IDE { // which is always there
			continue
		}
		j := slices.IndexFunc(got.Controllers, func(g machine.Controller) bool {
			if c.Type == machine.USB { // of which there is one of each kind
				return g.Type == c.Type && g.Model == c.Model
			}
			return g.Type == c.Type && g.Number == c.Number
		})
		switch {
		case lost(field):
		case j < 0:
			faults = append(faults, field+" is missing")
		case c.Type == machine.SCSI || c.Type == machine.USB:
			check(field+".model", got.Controllers[j].Model, c.Model)
		}
	}
	where := func(controller string, unit int) string {
		if i := slices.IndexFunc(want.Controllers, func(c machine.Controller) bool { return c.Name == controller }); i >= 0 {
			controller = fmt.Sprint(want.Controllers[i].Type, want.Controllers[i].Number)
		}
		return fmt.Sprintf("%s:%d", controller, unit)
	}
	j := 0
	for i, d := range want.Disks {
		field := fmt.Sprintf("disks[%d]", i)
		if slices.ContainsFunc(losses, func(l machine.Loss) bool { return l.Field == field }) {
			continue
		}
		if j == len(got.Disks) {
			return append(faults, field+" is missing")
		}
		check(field+".file", got.Disks[j].File, d.File)
		if !lost(field+".bus") && !lost(field+".unit") {
			check(field, where(got.Disks[j].Controller, got.Disks[j].Unit), where(d.Controller, d.Unit))
		}
		j++
	}
	if j != len(got.Disks) {
		faults = append(faults, "a disk too many")
	}
	drives := map[string]string{}
	for _, d := range got.CDROMs {
		drives[where(d.Controller, d.Unit)] = d.File
	}
	for i, d := range want.CDROMs {
		field := fmt.Sprintf("cdroms[%d]", i)
		file, ok := drives[where(d.Controller, d.Unit)]
		if lost(field+".bus") || lost(field+".unit") {
			continue
		}
		if !ok {
			faults = append(faults, field+" is missing")
		}
		check(field+".file", file, d.File)
	}
	if len(got.CDROMs) != len(want.CDROMs) {
		faults = append(faults, fmt.Sprintf("%d CD drives, want %d", len(got.CDROMs), len(want.CDROMs)))
	}
	for i, n := range want.NICs {
		field := fmt.Sprintf("nics[%d]", i)
		if i >= len(got.NICs) {
			if !lost(field) {
				faults = append(faults, field+" is missing")
			}
			continue
		}
		check(field+".type", got.NICs[i].Type, n.Type)
		check(field+".network", got.NICs[i].Network, n.Network)
		check(field+".mac", got.NICs[i].MAC, n.MAC)
	}
	if len(got.NICs) > len(want.NICs) {
		faults = append(faults, "a card too many")
	}
	var boot []machine.BootDevice
	for i, d := range want.BootOrder {
		if !lost(fmt.Sprintf("bootOrder[%d]", i)) {
			boot = append(boot, d)
		}
	}
	check("boot", got.BootOrder, boot)
	for field, there := range map[string]bool{
		"product": want.Product != machine.Product{}, "eulas[0]": len(want.EULAs) > 0, "properties[0]": len(want.Properties) > 0, "transport": len(want.Transport) > 0,
	} {
		if there && !lost(field) {
			faults = append(faults, field+" is lost in silence")
		}
	}
	return faults
}

// FuzzParse writes what was read, and reads that.
func FuzzParse(f *testing.F) {
	for _, name := range []string{"esxi8.vmx", "workstation17.vmx", "fusion13.vmx"} {
		f.Add(readFile(f, name))
	}
	data, _, err := vmx.Write(full())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		env, err := vmx.Parse(data)
		if err != nil {
			if !errors.Is(err, machine.ErrMalformed) && !errors.Is(err, machine.ErrUnsupported) {
				t.Fatalf("no kind of error: %v", err)
			}
			return
		}
		m := env.Machines[0]
		besideVMX(m)
		checkRoundTrip(t, m)
	})
}

// FuzzWrite writes machines that no VMX can have described.
func FuzzWrite(f *testing.F) {
	f.Add("web", "two\nlines", "VM Network", "debian12_64Guest", "vmx-19", "52:54:00:12:34:56", "vmxnet3", "disk0.vmdk", "scsi", "pvscsi", 0, 3, 4, int64(1<<30))
	f.Add("a\"\nb = \"c", "|22", "NAT", "otherGuest64", "virtualbox-2.2", "00:50:56:00:00:01", "virtio", "[ds] a", "virtio", "", 1, 7, 3, int64(1))
	f.Add("%2f", "\x00", "VMnet1", "x\"Guest", "vmx-99 vmx-4", "", "flexible", "a|.vmdk", "nvme", "virtio-scsi", 3, 40, 300, int64(1<<45))
	f.Add("", "\xFF", "", "windows1serverGuest", "vmx-07", "01:00:00:00:00:00", "", "a", "ide", "ehci", -1, -1, 0, int64(0))
	f.Fuzz(func(t *testing.T, name, text, network, guest, version, mac, card, file, bus, model string, number, unit, cpus int, memory int64) {
		m := full()
		m.Name, m.Description, m.NICs[0].Network, m.GuestOS.VMware, m.HardwareVersion = name, text, network, guest, version
		m.NICs[0].MAC, m.NICs[0].Type, m.NICs[1].Network = mac, machine.NICType(card), name
		m.Disks[0].File, m.CDROMs[0].File, m.NVRAM = file, file+".iso", file+".nvram"
		m.Controllers = append(m.Controllers, machine.Controller{Name: "x", Type: machine.Bus(bus), Model: machine.ControllerModel(model), Number: number})
		m.Disks[1].Controller, m.Disks[1].Bus, m.Disks[1].Unit = "x", machine.Bus(bus), unit
		m.CDROMs[1].Controller, m.CDROMs[1].Bus, m.CDROMs[1].Unit = "x", machine.Bus(bus), unit+number
		m.CPUs, m.CoresPerSocket, m.Memory = cpus, unit, memory
		if _, _, err := vmx.Write(m); err != nil {
			if !errors.Is(err, machine.ErrMalformed) && !errors.Is(err, machine.ErrUnsupported) {
				t.Fatalf("no kind of error: %v", err)
			}
			return
		}
		checkRoundTrip(t, m)
	})
}
