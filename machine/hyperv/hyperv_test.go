package hyperv

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/davit-oci/davit/machine"
)

// A small machine of generation 2, in which every text is told apart.
func small() *machine.Machine {
	return &machine.Machine{
		Name: "name", Description: "description", Firmware: machine.UEFI, CPUs: 2, Memory: 2 << 30,
		Disks:  []machine.Disk{{Name: "disk0", Bus: machine.SCSI, File: "disk0.vhdx", Format: "vhdx"}},
		CDROMs: []machine.CDROM{{Name: "cdrom0", Bus: machine.SCSI, File: "seed.iso"}},
		NICs:   []machine.NIC{{Name: "card", Network: "network", Type: machine.Synthetic, MAC: "52:54:00:12:34:56"}},
	}
}

func TestWrite(t *testing.T) {
	ide := func(n int) machine.Controller {
		return machine.Controller{Name: fmt.Sprintf("ide%d", n), Type: machine.IDE, Model: machine.PIIX4, Number: n}
	}
	onIDE := func(name string, channel, unit int) machine.Disk {
		return machine.Disk{Name: name, Bus: machine.IDE, Controller: fmt.Sprintf("ide%d", channel), Unit: unit, File: name + ".vhdx"}
	}
	cdOnIDE := func(channel, unit int) machine.CDROM {
		return machine.CDROM{Bus: machine.IDE, Controller: fmt.Sprintf("ide%d", channel), Unit: unit}
	}
	for _, test := range []struct {
		name    string
		machine machine.Machine
		lines   []string // in the script, in this order
		without []string // nowhere in the script
		losses  []string // field=value
	}{
		{
			name:    "what is not said is Hyper-V's to choose",
			machine: machine.Machine{Name: "m"},
			lines:   []string{"[string]$Name = 'm',", "Generation = 1;", "New-VM @new", "} catch {", "Remove-VM -VM $vm -Force", "throw"},
			without: []string{"-Count", "MemoryStartupBytes", "-Notes", "Add-VM", "Set-VMBios", "Set-VMFirmware", "SecureBootTemplate", "Start-VM", "foreach ($file"},
		},
		{
			name:    "a machine without a name has its ID",
			machine: machine.Machine{Name: " ", ID: "id"},
			lines:   []string{"$Name = 'id',"},
		},
		{
			name:    "a machine without name and ID has some name",
			machine: machine.Machine{},
			lines:   []string{"$Name = 'vm',"},
		},
		{
			name:    "generation 2",
			machine: *small(),
			lines: []string{
				"#Requires -Version 5.1", "[string]$Name = 'name',", "Set-StrictMode", "$ErrorActionPreference = 'Stop'",
				"if (Get-VM | Where-Object { $_.Name -eq $Name }) { throw", "'disk0.vhdx'", "'seed.iso'", "Test-Path -LiteralPath",
				"Generation = 2; NoVHD = $true", "$new['MemoryStartupBytes'] = 2147483648", "-DynamicMemoryEnabled $false", "-Count 2", "-Notes 'description'",
				"Remove-VMNetworkAdapter", "Remove-VMDvdDrive", "Count -lt 1) { Add-VMScsiController",
				"$disk0 = Add-VMHardDiskDrive -VM $vm -ControllerType SCSI -ControllerNumber 0 -ControllerLocation 0 -Path (Join-Path $PSScriptRoot 'disk0.vhdx') -Passthru",
				"$cdrom0 = Add-VMDvdDrive -VM $vm -ControllerNumber 0 -ControllerLocation 1 -Path (Join-Path $PSScriptRoot 'seed.iso') -Passthru",
				"$nic0 = Add-VMNetworkAdapter -VM $vm -Name 'card' -StaticMacAddress '525400123456' -Passthru", "Connect-Network $nic0 'network'",
				"-EnableSecureBoot Off", "-BootOrder @($disk0, $cdrom0, $nic0)", "} catch {",
			},
			without: []string{"IsLegacy", "TPM", "Set-VMBios", "overwritten", "SecureBootTemplate"},
		},
		{
			name: "generation 1 starts from IDE 0:0",
			machine: machine.Machine{
				Name: "m", Controllers: []machine.Controller{ide(0), ide(1)},
				Disks:  []machine.Disk{{Bus: machine.SATA, File: "a.vhdx"}, {Bus: machine.SATA, File: "b.vhdx"}},
				CDROMs: []machine.CDROM{{Bus: machine.SATA}},
			},
			lines: []string{
				"$disk0 = Add-VMHardDiskDrive -VM $vm -ControllerType IDE -ControllerNumber 0 -ControllerLocation 0 -Path (Join-Path $PSScriptRoot 'a.vhdx')",
				"$disk1 = Add-VMHardDiskDrive -VM $vm -ControllerType SCSI -ControllerNumber 0 -ControllerLocation 0 -Path (Join-Path $PSScriptRoot 'b.vhdx')",
				"$cdrom0 = Add-VMDvdDrive -VM $vm -ControllerNumber 1 -ControllerLocation 0 -Passthru",
			},
			losses: []string{"disks[0].bus=sata", "disks[1].bus=sata", "cdroms[0].bus=sata"},
		},
		{
			name: "what is on IDE stays in its place",
			machine: machine.Machine{
				Name: "m", Controllers: []machine.Controller{ide(0), ide(1)},
				Disks:  []machine.Disk{onIDE("a", 0, 0), onIDE("b", 1, 1)},
				CDROMs: []machine.CDROM{cdOnIDE(0, 1)},
			},
			lines: []string{
				"IDE -ControllerNumber 0 -ControllerLocation 0", "IDE -ControllerNumber 1 -ControllerLocation 1", "Add-VMDvdDrive -VM $vm -ControllerNumber 0 -ControllerLocation 1",
			},
			without: []string{"Add-VMScsiController"},
		},
		{
			name: "a disk of no bus is where the others are",
			machine: machine.Machine{
				Name: "m", Controllers: []machine.Controller{ide(0)},
				Disks: []machine.Disk{onIDE("a", 0, 0), {File: "b.vhdx"}},
			},
			lines:   []string{"'a.vhdx'", "$disk1 = Add-VMHardDiskDrive -VM $vm -ControllerType IDE -ControllerNumber 0 -ControllerLocation 1"},
			without: []string{"Add-VMScsiController"},
			losses:  []string{"disks[1].bus="},
		},
		{
			name: "a disk of no bus beside one on SCSI",
			machine: machine.Machine{
				Name: "m", Firmware: machine.UEFI, Disks: []machine.Disk{{Bus: machine.SCSI, File: "a.vhdx"}, {File: "b.vhdx"}},
			},
			lines:  []string{"$disk1 = Add-VMHardDiskDrive -VM $vm -ControllerType SCSI -ControllerNumber 0 -ControllerLocation 1"},
			losses: []string{"disks[1].bus="},
		},
		{
			name: "a first disk that is not at IDE 0:0 goes there, and makes place",
			machine: machine.Machine{
				Name: "m", Controllers: []machine.Controller{ide(0), ide(1)},
				Disks: []machine.Disk{{Name: "nothing"}, onIDE("a", 1, 0), onIDE("b", 0, 0)},
			},
			lines: []string{
				"$disk1 = Add-VMHardDiskDrive -VM $vm -ControllerType IDE -ControllerNumber 0 -ControllerLocation 0", "$disk2 = Add-VMHardDiskDrive -VM $vm -ControllerType IDE -ControllerNumber 0 -ControllerLocation 1",
			},
			losses: []string{"disks[0]=nothing", "disks[1].unit=1:0", "disks[2].unit=0:0"},
		},
		{
			name: "a full IDE",
			machine: machine.Machine{
				Name: "m", Controllers: []machine.Controller{ide(0), ide(1), ide(2)},
				Disks:  []machine.Disk{onIDE("a", 0, 0), onIDE("b", 0, 1), onIDE("c", -1, 7)},
				CDROMs: []machine.CDROM{cdOnIDE(0, 0), cdOnIDE(2, 0), {File: "x.iso"}, {File: "y.iso"}},
			},
			lines:   []string{"'c.vhdx'", "$disk2 = Add-VMHardDiskDrive -VM $vm -ControllerType SCSI", "-ControllerLocation 1 -Passthru"},
			without: []string{"y.iso"},
			losses:  []string{"disks[1].bus=ide", "disks[2].bus=ide", "cdroms[0].unit=0:0", "cdroms[1].unit=2:0", "cdroms[3]=y.iso", "controllers[2]=ide2"},
		},
		{
			name: "64 drives on a controller",
			machine: machine.Machine{
				Name: "m", Firmware: machine.UEFI, Disks: slices.Repeat([]machine.Disk{{Bus: machine.SCSI, File: "d.vhdx"}}, 65),
			},
			lines: []string{"Count -lt 2) { Add-VMScsiController", "$disk63 = Add-VMHardDiskDrive -VM $vm -ControllerType SCSI -ControllerNumber 0 -ControllerLocation 63", "$disk64 = Add-VMHardDiskDrive -VM $vm -ControllerType SCSI -ControllerNumber 1 -ControllerLocation 0"},
		},
		{
			name: "blank disks are made, and unmade if that fails",
			machine: machine.Machine{
				Name: "m", Firmware: machine.UEFI,
				Disks: []machine.Disk{{Name: "a", File: "DATA.vhdx", Bus: machine.SCSI}, {Name: "data", Capacity: 1 << 30, Bus: machine.SCSI}, {Name: "data-0", Capacity: 2 << 30, Bus: machine.SCSI}, {Name: "none"}},
			},
			lines: []string{
				"foreach ($file in @(", "'data-0.vhdx'", "'data-0-0.vhdx'", "would be overwritten",
				"$blanks += New-VHD -Dynamic -SizeBytes 1073741824 -Path (Join-Path $PSScriptRoot 'data-0.vhdx')", "$disk1 = Add-VMHardDiskDrive", "'data-0.vhdx'",
				"SizeBytes 2147483648", "foreach ($blank in $blanks) { Remove-Item -LiteralPath $blank.Path",
			},
			without: []string{"$disk3", "none"},
			losses:  []string{"disks[3]=none"},
		},
		{
			name: "IDE has no sectors of 4096 bytes",
			machine: machine.Machine{
				Name: "m", Controllers: []machine.Controller{ide(0)},
				Disks: []machine.Disk{
					{Name: "a", Bus: machine.IDE, Controller: "ide0", File: "a.vhdx", SectorSize: 4096},
					onIDE("b", 0, 1),
					{Name: "c", Bus: machine.SCSI, Capacity: 1 << 30, SectorSize: 4096},
				},
			},
			lines: []string{
				"$disk0 = Add-VMHardDiskDrive -VM $vm -ControllerType SCSI -ControllerNumber 0 -ControllerLocation 0", "'a.vhdx'",
				"$disk1 = Add-VMHardDiskDrive -VM $vm -ControllerType IDE -ControllerNumber 0 -ControllerLocation 0", "'b.vhdx'",
				"$blanks += New-VHD -Dynamic -SizeBytes 1073741824 -LogicalSectorSizeBytes 4096 -Path",
			},
			losses: []string{"disks[0].bus=ide", "disks[1].unit=0:1"},
		},
		{
			name:    "a file of two drives is looked for once",
			machine: machine.Machine{Name: "m", Firmware: machine.UEFI, CDROMs: []machine.CDROM{{File: "a.iso"}, {File: "a.iso"}}},
			lines:   []string{"@(\r\n    'a.iso'\r\n)"},
		},
		{
			name:    "memory is a multiple of 2 MiB",
			machine: machine.Machine{Name: "m", Memory: 1<<30 + 1},
			lines:   []string{"$new['MemoryStartupBytes'] = 1075838976"},
			losses:  []string{"memory=1073741825"},
		},
		{
			name:    "memory is at least 32 MiB",
			machine: machine.Machine{Name: "m", Memory: 4 << 20},
			lines:   []string{"$new['MemoryStartupBytes'] = 33554432"},
			losses:  []string{"memory=4194304"},
		},
		{
			name:    "Secure Boot of Linux",
			machine: machine.Machine{Name: "m", Firmware: machine.UEFI, SecureBoot: true, GuestOS: machine.GuestOS{VirtualBox: "Debian12_64"}},
			lines:   []string{".PARAMETER SecureBootTemplate", "[string]$SecureBootTemplate = 'MicrosoftUEFICertificateAuthority'", "-EnableSecureBoot On -SecureBootTemplate $SecureBootTemplate"},
			losses:  []string{"guestOS=Debian12_64"},
		},
		{
			name:    "Secure Boot of Windows by VirtualBox's word",
			machine: machine.Machine{Name: "m", Firmware: machine.UEFI, SecureBoot: true, GuestOS: machine.GuestOS{VirtualBox: "Windows11_64"}},
			lines:   []string{"= 'MicrosoftWindows'"},
			losses:  []string{"guestOS=Windows11_64"},
		},
		{
			name:    "Secure Boot of Windows by VMware's word",
			machine: machine.Machine{Name: "m", Firmware: machine.UEFI, SecureBoot: true, GuestOS: machine.GuestOS{VMware: "windows2019srv_64Guest"}},
			lines:   []string{"= 'MicrosoftWindows'"},
			losses:  []string{"guestOS=windows2019srv_64Guest"},
		},
		{
			name:    "Secure Boot of Windows by libosinfo's word",
			machine: machine.Machine{Name: "m", Firmware: machine.UEFI, SecureBoot: true, GuestOS: machine.GuestOS{Osinfo: "http://microsoft.com/win/99"}},
			lines:   []string{"= 'MicrosoftWindows'"},
			losses:  []string{"guestOS=http://microsoft.com/win/99"},
		},
		{
			name:    "Secure Boot of a guest that is not said",
			machine: machine.Machine{Name: "m", Firmware: machine.UEFI, SecureBoot: true},
			lines:   []string{"= 'MicrosoftUEFICertificateAuthority'"},
			losses:  []string{"guestOS="},
		},
		{
			name:    "TPM 2.0 has a key protector first",
			machine: machine.Machine{Name: "m", Firmware: machine.UEFI, TPM: machine.TPM20},
			lines:   []string{"Set-VMKeyProtector -VM $vm -NewLocalKeyProtector", "Enable-VMTPM -VM $vm"},
		},
		{
			name:    "TPM 1.2 is not TPM 2.0",
			machine: machine.Machine{Name: "m", Firmware: machine.UEFI, TPM: machine.TPM12},
			without: []string{"TPM"},
			losses:  []string{"tpm=1.2"},
		},
		{
			name:    "BIOS has neither TPM nor Secure Boot",
			machine: machine.Machine{Name: "m", Firmware: machine.BIOS, TPM: machine.TPM20, SecureBoot: true},
			without: []string{"TPM", "SecureBoot"},
			losses:  []string{"secureBoot=true", "tpm=2.0"},
		},
		{
			name:    "boot order of generation 1 names all kinds",
			machine: machine.Machine{Name: "m", BootOrder: []machine.BootDevice{machine.BootNetwork, machine.BootDisk, machine.BootNetwork}},
			lines:   []string{"Set-VMBios -VM $vm -StartupOrder @('LegacyNetworkAdapter', 'IDE', 'CD', 'Floppy')"},
		},
		{
			name: "boot order of generation 2 names devices",
			machine: machine.Machine{
				Name: "m", Firmware: machine.UEFI, Disks: []machine.Disk{{Bus: machine.SCSI, File: "a.vhdx"}, {Name: "none"}, {Bus: machine.SCSI, File: "b.vhdx"}}, NICs: []machine.NIC{{}, {}},
				BootOrder: []machine.BootDevice{machine.BootFloppy, machine.BootNetwork, machine.BootDisk, machine.BootCDROM, machine.BootDisk},
			},
			lines:  []string{"-BootOrder @($nic0, $nic1, $disk0, $disk2)"},
			losses: []string{"disks[1]=none", "bootOrder[0]=floppy"},
		},
		{
			name:    "a boot order of what is not there",
			machine: machine.Machine{Name: "m", Firmware: machine.UEFI, BootOrder: []machine.BootDevice{machine.BootDisk}},
			without: []string{"-BootOrder"},
		},
		{
			name: "cards of old guests are emulated in generation 1, four of them",
			machine: machine.Machine{
				Name: "m", NICs: append(slices.Repeat([]machine.NIC{{Type: machine.PCnet}}, 3), slices.Repeat([]machine.NIC{{Type: machine.RTL8139}}, 2)...),
			},
			lines:   []string{"$nic0 = Add-VMNetworkAdapter -VM $vm -IsLegacy $true", "$nic3 = Add-VMNetworkAdapter -VM $vm -IsLegacy $true", "$nic4 = Add-VMNetworkAdapter -VM $vm -Passthru"},
			without: []string{"StaticMacAddress"},
			losses:  []string{"nics[0].type=pcnet", "nics[1].type=pcnet", "nics[2].type=pcnet", "nics[3].type=rtl8139", "nics[4].type=rtl8139"},
		},
		{
			name:    "no card is emulated in generation 2",
			machine: machine.Machine{Name: "m", Firmware: machine.UEFI, NICs: []machine.NIC{{Type: machine.PCnet}, {Type: machine.VirtioNet}, {Type: machine.Synthetic}}},
			without: []string{"IsLegacy"},
			losses:  []string{"nics[0].type=pcnet", "nics[1].type=virtio"},
		},
		{
			name:    "addresses of no one card",
			machine: machine.Machine{Name: "m", NICs: []machine.NIC{{MAC: "01:00:5e:00:00:01"}, {MAC: "00:00:00:00:00:00"}, {MAC: "52-54-00-12-34-56"}, {MAC: "0000:52:54:00:12"}, {MAC: "52:54:00:12:34:5g"}}},
			without: []string{"StaticMacAddress"},
			losses:  []string{"nics[0].mac=01:00:5e:00:00:01", "nics[1].mac=00:00:00:00:00:00", "nics[2].mac=52-54-00-12-34-56", "nics[3].mac=0000:52:54:00:12", "nics[4].mac=52:54:00:12:34:5g"},
		},
		{
			name:    "texts with what does not print",
			machine: machine.Machine{Name: "a\nb", NICs: []machine.NIC{{Name: "c\x1bd", Network: "e\u202ef"}}},
			lines:   []string{"$Name = 'a b',", "-Name 'c d'", "Connect-Network $nic0 'e f'"},
			losses:  []string{"name=a b", "nics[0].name=c d", "nics[0].network=e f"},
		},
		{
			name:    "a description of several lines",
			machine: machine.Machine{Name: "m", Description: "one\r\ntwo\n\nfour\n"},
			lines:   []string{"-Notes (@(", "'one'", "'two'", "''", "'four'", ") -join \"`r`n\")"},
		},
		{
			name:    "a description with what does not print",
			machine: machine.Machine{Name: "m", Description: "\x1b[2Jone\u2028two"},
			lines:   []string{"-Notes ' [2Jone two'"},
			losses:  []string{"description="},
		},
		{
			name: "what Hyper-V has not",
			machine: machine.Machine{
				Name: "m", Architecture: "arm64", Firmware: machine.UEFI, CPUs: 8, CoresPerSocket: 4, HardwareVersion: "vmx-19", NVRAM: "m.nvram",
				GuestOS: machine.GuestOS{Osinfo: "http://debian.org/debian/12"},
				Controllers: []machine.Controller{
					{Name: "ide0", Type: machine.IDE, Model: machine.PIIX4}, {Name: "sata0", Type: machine.SATA}, {Name: "scsi0", Type: machine.SCSI, Model: machine.PVSCSI},
					{Name: "nvme0", Type: machine.NVMe}, {Name: "usb0", Type: machine.USB}, {Name: "scsi1", Type: machine.SCSI},
				},
				Disks:      []machine.Disk{{File: "a.vhdx", Bus: machine.Virtio, ReadOnly: true}},
				Display:    machine.Display{Type: "vmvga", Memory: 16 << 20, Monitors: 2},
				Product:    machine.Product{Name: "P"},
				EULAs:      []string{"agree"},
				Properties: []machine.Property{{Key: "user", Value: "secret"}},
				Transport:  []string{"iso"},
			},
			without: []string{"agree", "secret", "vmvga", "m.nvram"},
			losses: []string{
				"coresPerSocket=4", "disks[0].bus=virtio", "disks[0].readOnly=true",
				"controllers[0]=ide0", "controllers[1]=sata0", "controllers[2].model=pvscsi", "controllers[3]=nvme0", "controllers[4]=usb0",
				"display.type=vmvga", "display.memory=16777216", "display.monitors=2", "hardwareVersion=vmx-19", "guestOS=http://debian.org/debian/12",
				"architecture=arm64", "nvram=m.nvram", "product=P", "eulas[0]=", "properties[0]=user", "transport=iso",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			data, losses, err := Write(&test.machine)
			if err != nil {
				t.Fatal(err)
			}
			wellFormed(t, data)
			rest := string(data)
			for _, line := range test.lines {
				_, after, found := strings.Cut(rest, line)
				if !found {
					t.Fatalf("no %q where it should be in\n%s", line, data)
				}
				rest = after
			}
			for _, line := range test.without {
				if strings.Contains(string(data), line) {
					t.Errorf("%q is in\n%s", line, data)
				}
			}
			var got []string
			for _, l := range losses {
				got = append(got, l.Field+"="+l.Value)
				if l.Reason == "" || strings.Contains(l.Value, "secret") {
					t.Errorf("loss %+v", l)
				}
			}
			if !slices.Equal(got, test.losses) {
				t.Errorf("losses:\n got %q\nwant %q", got, test.losses)
			}
		})
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(m *machine.Machine)
		want   error
	}{
		{"disk with a path", func(m *machine.Machine) { m.Disks[0].File = "../x.vhdx" }, machine.ErrMalformed},
		{"disk with a path of Windows", func(m *machine.Machine) { m.Disks[0].File = `\\server\x.vhdx` }, machine.ErrMalformed},
		{"disk on another drive", func(m *machine.Machine) { m.Disks[0].File = "C:x.vhdx" }, machine.ErrMalformed},
		{"disk that is the folder", func(m *machine.Machine) { m.Disks[0].File = ".." }, machine.ErrMalformed},
		{"disk that is this folder", func(m *machine.Machine) { m.Disks[0].File = "." }, machine.ErrMalformed},
		{"disk with a line end", func(m *machine.Machine) { m.Disks[0].File = "x\n.vhdx" }, machine.ErrMalformed},
		{"disk with a name that is no UTF-8", func(m *machine.Machine) { m.Disks[0].File = "x\xff.vhdx" }, machine.ErrMalformed},
		{"CD image with a path", func(m *machine.Machine) { m.CDROMs[0].File = "/etc/passwd" }, machine.ErrMalformed},
		{"disk of another format", func(m *machine.Machine) { m.Disks[0].Format = "qcow2" }, machine.ErrUnsupported},
		{"NUL in the name", func(m *machine.Machine) { m.Name = "a\x00b" }, machine.ErrMalformed},
		{"NUL in the description", func(m *machine.Machine) { m.Description = "a\n\x00b" }, machine.ErrMalformed},
		{"NUL in a network", func(m *machine.Machine) { m.NICs[0].Network = "a\x00b" }, machine.ErrMalformed},
		{"NUL in a card", func(m *machine.Machine) { m.NICs[0].Name = "a\x00b" }, machine.ErrMalformed},
		{"more drives than SCSI has", func(m *machine.Machine) { m.Disks = slices.Repeat(m.Disks, 256) }, machine.ErrUnsupported},
		{"more cards than Hyper-V has", func(m *machine.Machine) { m.NICs = slices.Repeat(m.NICs, 65) }, machine.ErrUnsupported},
		{"memory that overflows", func(m *machine.Machine) { m.Memory = 1<<63 - 1 }, machine.ErrMalformed},
		{"too many CPUs", func(m *machine.Machine) { m.CPUs = machine.MaxCPUs + 1 }, machine.ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := small()
			test.change(m)
			if data, losses, err := Write(m); !errors.Is(err, test.want) || data != nil || losses != nil {
				t.Errorf("Write = %q, %v, %v; want %v", data, losses, err, test.want)
			}
		})
	}
}

// hostile texts would each do something if they got out of their literal.
var hostile = []string{
	`'; Remove-Item -Recurse C:\; '`,
	`''; calc; ''`,
	"\u2019; calc; \u2018",
	"\u2018\u2019\u201a\u201b'",
	"'\u2019; calc #",
	"\u201b'\u201a; calc #",
	"a\u2019\u2019b'\u2018c",
	`"; calc; "`,
	"\u201c; calc; \u201d\u201e",
	"`'; calc; `\"",
	`$(calc)`,
	`${env:USERNAME} $Name @calc`,
	"x\r\ncalc\r\n",
	"x\ncalc",
	"'\ncalc\n'",
	"x\u2028calc\u2029calc\u0085calc",
	"#> calc <#",
	"# calc",
	"@'\ncalc\n'@",
	"%!s(MISSING) %d %[1]s {{.}}",
	"-Force",
	"*[a-z]?",
	"\u202egnp.exe\u202c \u200d \u00ad \ufeff",
	"\x1b]0;title\x07 \x7f \u009b2J",
	"\xff\xfe broken \xc0\xaf",
	"\u00a0\u3000 space",
	`\`,
	`'`,
	``,
	` `,
}

// A text is in one literal, whole, wherever the model has one: all else of the
// script is what it is with any other text.
func TestHostileTexts(t *testing.T) {
	for _, text := range hostile {
		if text == "" || text == " " {
			continue // no name at all
		}
		for _, field := range []struct {
			name  string
			set   func(m *machine.Machine, s string)
			times int
		}{
			{"name", func(m *machine.Machine, s string) { m.Name = s }, 1},
			{"card", func(m *machine.Machine, s string) { m.NICs[0].Name = s }, 1},
			{"network", func(m *machine.Machine, s string) { m.NICs[0].Network = s }, 1},
		} {
			t.Run(fmt.Sprintf("%s %q", field.name, text), func(t *testing.T) {
				m, plain := small(), small()
				field.set(m, text)
				field.set(plain, "plain")
				want, wantTexts := literals(t, plain)
				got, gotTexts := literals(t, m)
				if got != want {
					t.Errorf("the script is another one:\n got %s\nwant %s", got, want)
				}
				times := 0
				for i := range wantTexts {
					if wantTexts[i] == "plain" {
						times++
						wantTexts[i] = printable(text)
					}
				}
				if times != field.times || !slices.Equal(gotTexts, wantTexts) {
					t.Errorf("texts:\n got %q\nwant %q", gotTexts, wantTexts)
				}
			})
		}
	}
}

func TestHostileDescription(t *testing.T) {
	all := strings.Join(hostile, "\n")
	m, plain := small(), small()
	m.Description = all
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(all, "\r\n", "\n")), "\n")
	plain.Description = strings.Repeat("plain\n", len(lines))
	want, wantTexts := literals(t, plain)
	got, gotTexts := literals(t, m)
	if got != want {
		t.Errorf("the script is another one:\n got %s\nwant %s", got, want)
	}
	first := slices.Index(wantTexts, "plain")
	for i, line := range lines {
		wantTexts[first+i] = printable(line)
	}
	if !slices.Equal(gotTexts, wantTexts) {
		t.Errorf("texts:\n got %q\nwant %q", gotTexts, wantTexts)
	}
}

// Names of files are refused or are in a literal, whole.
func TestHostileFiles(t *testing.T) {
	refused := 0
	for _, text := range hostile {
		m, plain := small(), small()
		m.Disks[0].File, plain.Disks[0].File = text+".vhdx", "plain.vhdx"
		if _, _, err := Write(m); err != nil {
			refused++
			continue
		}
		want, wantTexts := literals(t, plain)
		got, gotTexts := literals(t, m)
		for i := range wantTexts {
			if wantTexts[i] == "plain.vhdx" {
				wantTexts[i] = text + ".vhdx"
			}
		}
		if got != want || !slices.Equal(gotTexts, wantTexts) {
			t.Errorf("%q: texts %q, want %q", text, gotTexts, wantTexts)
		}
	}
	if refused == 0 || refused == len(hostile) {
		t.Errorf("%d of %d refused", refused, len(hostile))
	}
}

// printable says what becomes of a text, in other words than package hyperv.
func printable(s string) string {
	var out []rune
	for _, r := range s {
		switch {
		case r < ' ', r >= 0x7f && r <= 0x9f, r == 0xad, r >= 0x200b && r <= 0x200f, r >= 0x2028 && r <= 0x202e, r == 0xfeff:
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}

// literals returns a script with 'TEXT' for its single-quoted strings, and what
// is in them. It is PowerShell's tokenizer as far as scripts of ours need it,
// written from its source (CharTraits.cs, tokenizer.cs) and not from the writer.
func literals(t *testing.T, m *machine.Machine) (script string, texts []string) {
	t.Helper()
	data, _, err := Write(m)
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, data)
	in := []rune(string(data))
	single := func(i int) bool {
		return i < len(in) && (in[i] == '\'' || in[i] >= 0x2018 && in[i] <= 0x201b)
	}
	double := func(i int) bool {
		return i < len(in) && (in[i] == '"' || in[i] >= 0x201c && in[i] <= 0x201e)
	}
	var out []rune
	for i := 0; i < len(in); i++ {
		switch {
		case in[i] == '<' && in[i+1] == '#': // to #>
			for in[i] != '#' || in[i+1] != '>' {
				out = append(out, in[i])
				i++
			}
		case in[i] == '#': // to the end of the line
			for in[i] != '\n' && in[i] != '\r' {
				out = append(out, in[i])
				i++
			}
		case in[i] == '@' && (single(i+1) || double(i+1)):
			t.Fatal("a here-string")
		case single(i):
			var text []rune
			for i++; ; i++ {
				if i == len(in) {
					t.Fatal("a string without an end")
				}
				if single(i) {
					if !single(i + 1) {
						break
					}
					i++ // the second of two is what it means
				}
				if in[i] == '\n' || in[i] == '\r' {
					t.Fatal("a line end in a string")
				}
				text = append(text, in[i])
			}
			texts = append(texts, string(text))
			out = append(out, []rune("'TEXT'")...)
			continue
		case double(i):
			out = append(out, in[i])
			for i++; !double(i); i++ {
				if in[i] == '`' {
					out = append(out, in[i])
					i++
				}
				out = append(out, in[i])
			}
		case in[i] == '`':
			t.Fatal("a backtick out of a string")
		}
		out = append(out, in[i])
	}
	return string(out), texts
}

// wellFormed says what is wrong with the bytes of a script.
func wellFormed(t *testing.T, data []byte) {
	t.Helper()
	text, marked := bytes.CutPrefix(data, []byte("\xef\xbb\xbf"))
	lines := bytes.Count(text, []byte("\n"))
	switch {
	case !marked:
		t.Error("no byte order mark: Windows PowerShell 5.1 would take it for another encoding")
	case !utf8.Valid(text):
		t.Error("not UTF-8")
	case bytes.Count(text, []byte("\r\n")) != lines || bytes.Count(text, []byte("\r")) != lines:
		t.Error("line ends of several kinds")
	case bytes.IndexFunc(text, func(r rune) bool { return r < ' ' && r != '\r' && r != '\n' || r == 0x7f }) >= 0:
		t.Error("control characters")
	}
}

// Whatever the texts are, the script is the same but for its literals, or there
// is none; and it is the same every time.
func FuzzWrite(f *testing.F) {
	for i, text := range hostile {
		f.Add(text, hostile[len(hostile)-1-i], i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, a, b string, uefi bool) {
		m, plain := small(), small()
		if !uefi {
			m.Firmware, plain.Firmware = machine.BIOS, machine.BIOS
		}
		m.Name, m.NICs[0].Network, m.NICs[0].Name = a, b, a+b
		if m.NICs[0].Name == "" {
			plain.NICs[0].Name = ""
		}
		first, _, err := Write(m)
		if err != nil {
			if !errors.Is(err, machine.ErrMalformed) {
				t.Errorf("error %v", err)
			}
			return
		}
		if second, _, err := Write(m); err != nil || !bytes.Equal(first, second) {
			t.Errorf("two scripts of one machine, %v", err)
		}
		got, _ := literals(t, m)
		want, _ := literals(t, plain)
		if got != want {
			t.Errorf("the script is another one:\n got %s\nwant %s", got, want)
		}
	})
}
