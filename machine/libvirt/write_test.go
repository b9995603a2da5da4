package libvirt

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
)

// One domain to its last byte, with all that the model has.
func TestWrite(t *testing.T) {
	m := &machine.Machine{
		Name: "web <01>", Description: "first\n\tsecond & last", Product: machine.Product{Name: "Web server"},
		CPUs: 4, CoresPerSocket: 2, Memory: 2 << 30, Firmware: machine.UEFI, SecureBoot: true, TPM: machine.TPM20,
		GuestOS: machine.GuestOS{Osinfo: "http://microsoft.com/win/11"}, HardwareVersion: "q35",
		Controllers: []machine.Controller{
			{Name: "usb0", Type: machine.USB, Model: machine.EHCI},
			{Name: "scsi0", Type: machine.SCSI, Model: machine.PVSCSI},
			{Name: "scsi2", Type: machine.SCSI, Number: 2, Model: machine.LSILogic},
			{Name: "sata1", Type: machine.SATA, Number: 1, Model: machine.AHCI},
		},
		Disks: []machine.Disk{
			{Name: "disk0", Controller: "scsi0", Bus: machine.SCSI, Unit: 3, Format: "qcow2:zstd", File: "disk0.qcow2"},
			{Name: "disk1", Controller: "scsi2", Bus: machine.SCSI, Unit: 6, Format: "vhd", File: "it's.vhd", ReadOnly: true},
			{Name: "disk2", Bus: machine.Virtio, Unit: 2, Format: "raw", File: "disk2.raw"},
		},
		CDROMs: []machine.CDROM{
			{Name: "cdrom0", Controller: "sata1", Bus: machine.SATA, File: "tools.iso"},
			{Name: "cdrom1", Controller: "sata1", Bus: machine.SATA, Unit: 1},
		},
		NICs:      []machine.NIC{{Type: machine.VMXNET3, Network: "default", MAC: "00:0c:29:01:02:03"}},
		Display:   machine.Display{Type: "qxl", Memory: 16 << 20, Monitors: 2},
		BootOrder: []machine.BootDevice{machine.BootCDROM, machine.BootDisk},
		NVRAM:     "vm_VARS.fd",
	}
	const want = `<domain type='kvm'>
  <name>web &lt;01&gt;</name>
  <title>Web server</title>
  <description>first
	second &amp; last</description>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo='http://libosinfo.org/xmlns/libvirt/domain/1.0'>
      <libosinfo:os id='http://microsoft.com/win/11'/>
    </libosinfo:libosinfo>
  </metadata>
  <memory unit='KiB'>2097152</memory>
  <vcpu>4</vcpu>
  <os firmware='efi'>
    <type arch='x86_64' machine='q35'>hvm</type>
    <firmware>
      <feature enabled='yes' name='enrolled-keys'/>
      <feature enabled='yes' name='secure-boot'/>
    </firmware>
    <nvram>/srv/vm &amp; co&#39;s/vm_VARS.fd</nvram>
    <boot dev='cdrom'/>
    <boot dev='hd'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <cpu mode='host-model'>
    <topology sockets='2' cores='2' threads='1'/>
  </cpu>
  <clock offset='localtime'>
    <timer name='rtc' tickpolicy='catchup'/>
    <timer name='pit' tickpolicy='delay'/>
    <timer name='hpet' present='no'/>
  </clock>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='/srv/vm &amp; co&#39;s/disk0.qcow2'/>
      <target dev='sda' bus='scsi'/>
      <address type='drive' controller='0' bus='0' target='3' unit='0'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='vpc'/>
      <source file='/srv/vm &amp; co&#39;s/it&#39;s.vhd'/>
      <target dev='sdb' bus='scsi'/>
      <readonly/>
      <address type='drive' controller='2' bus='0' target='0' unit='6'/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/srv/vm &amp; co&#39;s/disk2.raw'/>
      <target dev='vdc' bus='virtio'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <source file='/srv/vm &amp; co&#39;s/tools.iso'/>
      <target dev='sdc' bus='sata'/>
      <readonly/>
      <address type='drive' controller='1' bus='0' target='0' unit='0'/>
    </disk>
    <disk type='file' device='cdrom'>
      <driver name='qemu' type='raw'/>
      <target dev='sdd' bus='sata'/>
      <readonly/>
      <address type='drive' controller='1' bus='0' target='0' unit='1'/>
    </disk>
    <controller type='usb' index='0' model='ich9-ehci1'/>
    <controller type='usb' index='0' model='ich9-uhci1'>
      <master startport='0'/>
    </controller>
    <controller type='usb' index='0' model='ich9-uhci2'>
      <master startport='2'/>
    </controller>
    <controller type='usb' index='0' model='ich9-uhci3'>
      <master startport='4'/>
    </controller>
    <controller type='scsi' index='0' model='vmpvscsi'/>
    <controller type='scsi' index='2' model='lsilogic'/>
    <controller type='sata' index='1'/>
    <input type='tablet' bus='usb'/>
    <interface type='network'>
      <mac address='00:0c:29:01:02:03'/>
      <source network='default'/>
      <model type='vmxnet3'/>
    </interface>
    <serial type='pty'/>
    <console type='pty'/>
    <tpm model='tpm-crb'>
      <backend type='emulator' version='2.0'/>
    </tpm>
    <graphics type='vnc'>
      <listen type='none'/>
    </graphics>
    <video>
      <model type='qxl' vram='16384' heads='2'/>
    </video>
  </devices>
</domain>
`
	got, losses, err := Write(m, WriteOptions{Dir: dir})
	if err != nil || len(losses) > 0 {
		t.Fatalf("losses %v, error %v", losses, err)
	}
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	data, err := roundTrip(m)
	if err != nil {
		t.Error(err)
	}
	defines(t, [][]byte{data})
}

func TestWriteLosses(t *testing.T) {
	one := func(bus machine.Bus, model machine.ControllerModel, unit int) machine.Machine {
		name := fmt.Sprint(bus, 0)
		return machine.Machine{
			Controllers: []machine.Controller{{Name: name, Type: bus, Model: model}},
			Disks:       []machine.Disk{{Controller: name, Bus: bus, Unit: unit, Format: "raw", File: "a"}},
		}
	}
	beside := func(bus machine.Bus, model machine.ControllerModel) machine.Machine {
		m := one(bus, model, 0)
		m.Disks = append(m.Disks, machine.Disk{Format: "raw", File: "b"})
		return m
	}
	readOnly := one(machine.SATA, "", 0)
	readOnly.Disks[0].ReadOnly = true
	blank := one(machine.SATA, "", 0)
	blank.Disks[0] = machine.Disk{Name: "disk0", Bus: machine.SATA, Controller: "sata0", Capacity: 1 << 30}
	delta := one(machine.SATA, "", 0)
	delta.Disks[0].Parent = "base"
	of4096 := func(bus machine.Bus, model machine.ControllerModel) machine.Machine {
		m := one(bus, model, 0)
		m.Disks[0].SectorSize = 4096
		return m
	}
	secureIDE := one(machine.IDE, "", 1)
	secureIDE.Firmware, secureIDE.SecureBoot = machine.UEFI, true
	arm := machine.Machine{
		Architecture: "arm64", Firmware: machine.BIOS, Display: machine.Display{Type: "vmvga"},
		Controllers: []machine.Controller{{Name: "ide0", Type: machine.IDE}, {Name: "sata0", Type: machine.SATA, Model: machine.AHCI}},
		Disks:       []machine.Disk{{Controller: "ide0", Bus: machine.IDE, Format: "raw", File: "a"}},
		CDROMs:      []machine.CDROM{{Controller: "sata0", Bus: machine.SATA, File: "b.iso"}},
		NICs:        []machine.NIC{{Type: machine.Flexible}},
	}
	var all [][]byte
	for _, test := range []struct {
		name    string
		machine machine.Machine
		losses  []string // field=value
		writes  string
	}{
		{"nothing said", machine.Machine{}, []string{"memory=0", "cpus=0"}, "<name>vm</name>"},
		{"name from the ID", machine.Machine{ID: "vm-1", CPUs: 1, Memory: 1 << 20}, nil, "<name>vm-1</name>"},
		{"name with a slash and two lines", machine.Machine{Name: "a/b\nc", CPUs: 1, Memory: 1 << 20}, []string{"name=a/b\nc"}, "<name>a-b-c</name>"},
		{"name that is a folder", machine.Machine{Name: "..", CPUs: 1, Memory: 1 << 20}, []string{"name=.."}, "<name>vm</name>"},
		{"name too long, cut between characters", machine.Machine{Name: strings.Repeat("ü", 101), CPUs: 1, Memory: 1 << 20},
			[]string{"name=" + strings.Repeat("ü", 101)}, "<name>" + strings.Repeat("ü", 100) + "</name>"},
		{"name that is no UTF-8", machine.Machine{Name: "a\xff", CPUs: 1, Memory: 1 << 20}, []string{"name=a\xff"}, "<name>a-</name>"},
		{"title of two lines", machine.Machine{Product: machine.Product{Name: "a\nb"}}, []string{"product.name=a\nb"}, "<title>a-b</title>"},
		{"description with what XML has not", machine.Machine{Description: "a\x00b\r\nc"}, []string{"description="}, "<description>a-b\nc</description>"},
		{"memory that is no KiB", machine.Machine{Memory: 1025}, []string{"memory=1025"}, "<memory unit='KiB'>2</memory>"},
		{"sockets that are not whole", machine.Machine{CPUs: 3, CoresPerSocket: 2}, []string{"coresPerSocket=2"}, "<cpu mode='host-model'/>"},
		{"unknown firmware", machine.Machine{Firmware: "x"}, []string{"firmware=x"}, "<os>"},
		{"secure boot of BIOS", machine.Machine{SecureBoot: true}, []string{"secureBoot=true"}, "<os>"},
		{"no secure boot", machine.Machine{Firmware: machine.UEFI}, nil, "<feature enabled='no' name='secure-boot'/>"},
		{"hardware of VMware", machine.Machine{HardwareVersion: "vmx-19"}, []string{"hardwareVersion=vmx-19"}, "machine='q35'"},
		{"older chip set", machine.Machine{HardwareVersion: "pc-i440fx-9.0"}, []string{"hardwareVersion=pc-i440fx-9.0"}, "machine='pc'"},
		{"variables of VMware", machine.Machine{Firmware: machine.UEFI, NVRAM: "vm.nvram"}, []string{"nvram=vm.nvram"}, "<os firmware='efi'>"},
		{"variables of no UEFI", machine.Machine{NVRAM: "vm.fd"}, []string{"nvram=vm.fd"}, "<os>"},
		{"guest that is not known", machine.Machine{GuestOS: machine.GuestOS{VMware: "xGuest"}}, []string{"guestOS=xGuest"}, "<cpu"},
		{"guest that is known by another word", machine.Machine{GuestOS: machine.GuestOS{VMware: "windows9_64Guest"}}, nil, "microsoft.com/win/10"},
		{"boot devices", machine.Machine{BootOrder: []machine.BootDevice{"disk", "tape", "disk", "floppy"}}, []string{"bootOrder[1]=tape", "bootOrder[2]=disk"}, "<boot dev='fd'/>"},
		{"BusLogic", one(machine.SCSI, machine.BusLogic, 0), []string{"controllers[0].model=buslogic"}, "model='lsilogic'"},
		{"SCSI of no model", one(machine.SCSI, "", 0), nil, "model='virtio-scsi'"},
		{"number that QEMU's controller has not", one(machine.SCSI, machine.LSILogic, 9), []string{"disks[0].unit=scsi0 unit 9"}, "target='0' unit='0'"},
		{"port that QEMU's SATA has not", one(machine.SATA, machine.AHCI, 29), []string{"disks[0].unit=sata0 unit 29"}, "unit='0'"},
		{"NVMe", one(machine.NVMe, "", 0), []string{"disks[0].bus=nvme", "controllers[0]=nvme0"}, "bus='sata'"},
		{"empty drive of USB", machine.Machine{CDROMs: []machine.CDROM{{Bus: machine.USB}}}, []string{"cdroms[0].bus=usb"}, "bus='sata'"},
		{"IDE is in the older chip set", one(machine.IDE, machine.PIIX4, 1), []string{"controllers[0].model=piix4"}, "machine='pc'"},
		{"IDE beside secure boot", secureIDE, []string{"disks[0].bus=ide", "controllers[0]=ide0"}, "machine='q35'"},
		{"read-only disk of SATA", readOnly, []string{"disks[0].readOnly=true"}, "bus='sata'"},
		{"blank disk", blank, []string{"disks[0]=disk0"}, "<controller type='sata'"},
		{"delta", delta, []string{"disks[0].parent=base"}, "<source"},
		{"disk of no bus", machine.Machine{Disks: []machine.Disk{{Format: "raw", File: "a"}}}, []string{"disks[0].bus="}, "bus='virtio'"},
		{"disk of no bus beside one on SCSI", beside(machine.SCSI, machine.LSILogic), []string{"disks[1].bus="},
			"<target dev='sdb' bus='scsi'/>\n      <address type='drive' controller='0' bus='0' target='0' unit='1'/>"},
		{"disk of no bus beside one on IDE", beside(machine.IDE, ""), []string{"disks[1].bus="}, "<target dev='hdb' bus='ide'/>"},
		{"disk of no bus beside one on NVMe", beside(machine.NVMe, ""), []string{"disks[0].bus=nvme", "disks[1].bus=", "controllers[0]=nvme0"}, "<target dev='sdb' bus='sata'/>"},
		{"no USB", machine.Machine{}, nil, "<controller type='usb' model='none'/>"},
		{"USB of no controller", machine.Machine{Disks: []machine.Disk{{Bus: machine.USB, Format: "raw", File: "a"}}}, nil, "model='qemu-xhci'"},
		{"cards of VMware and Hyper-V", machine.Machine{NICs: []machine.NIC{{Type: machine.Flexible}, {Type: machine.VMXNET2}, {Type: machine.Synthetic}}},
			[]string{"nics[0].type=flexible", "nics[1].type=vmxnet2", "nics[2].type=synthetic"}, "model type='pcnet'"},
		{"network of the host that it is from", machine.Machine{NICs: []machine.NIC{{Network: "VM Network"}}}, []string{"nics[0].network=VM Network"}, "network='default'"},
		{"address that is none", machine.Machine{NICs: []machine.NIC{{MAC: "'/><x"}}}, []string{"nics[0].mac='/><x"}, "type='network'>\n      <source"},
		{"graphics of VMware", machine.Machine{Display: machine.Display{Type: "vmvga", Memory: 5 << 20, Monitors: 2}},
			[]string{"display.type=vmvga", "display.memory=5242880", "display.monitors=2"}, "<model type='vga'/>"},
		{"ARM has UEFI and virtio", arm, []string{"disks[0].bus=ide", "cdroms[0].bus=sata", "controllers[0]=ide0", "controllers[1]=sata0", "firmware=bios", "nics[0].type=flexible", "display.type=vmvga"},
			"<type arch='aarch64' machine='virt'>"},
		{"ARM of which little is said", machine.Machine{Architecture: "arm64", TPM: machine.TPM20, NICs: make([]machine.NIC, 1)}, nil, "<os firmware='efi'>"},
		{"old TPM of ARM", machine.Machine{Architecture: "arm64", TPM: machine.TPM12}, []string{"tpm=1.2"}, "<input type='keyboard' bus='virtio'/>"},
		{"card that ARM has on PCI", machine.Machine{Architecture: "arm64", NICs: []machine.NIC{{Type: machine.E1000E}}}, nil, "<model type='e1000e'/>"},
		{"RISC-V", machine.Machine{Architecture: "riscv64", Firmware: machine.UEFI}, nil, "<type arch='riscv64' machine='virt'>"},
		{"POWER has firmware of its own", machine.Machine{Architecture: "ppc64le", Firmware: machine.UEFI, SecureBoot: true}, []string{"firmware=uefi", "secureBoot=true"}, "<type arch='ppc64le' machine='pseries'>"},
		{"mainframe has no PCI", machine.Machine{Architecture: "s390x", NICs: []machine.NIC{{Type: machine.E1000}}, TPM: machine.TPM20,
			Controllers: []machine.Controller{{Name: "usb0", Type: machine.USB}}, Disks: []machine.Disk{{Controller: "usb0", Bus: machine.USB, Format: "raw", File: "a"}}},
			[]string{"disks[0].bus=usb", "controllers[0]=usb0", "nics[0].type=e1000", "tpm=2.0"}, "<type arch='s390x' machine='s390-ccw-virtio'>"},
		{"PC of 32 bits", machine.Machine{Architecture: "386"}, nil, "<type arch='i686' machine='q35'>"},
		{"architecture that is not known", machine.Machine{Architecture: "vax"}, []string{"architecture=vax"}, "arch='x86_64'"},
		{"sectors of 4096 bytes on SCSI", of4096(machine.SCSI, machine.LSILogicSAS), nil,
			"<blockio logical_block_size='4096' physical_block_size='4096'/>\n      <target dev='sda' bus='scsi'/>"},
		{"sectors of 4096 bytes on SATA, with which QEMU does not start", of4096(machine.SATA, machine.AHCI), []string{"disks[0].bus=sata"},
			"<blockio logical_block_size='4096' physical_block_size='4096'/>\n      <target dev='vda' bus='virtio'/>"},
		{"sectors of 4096 bytes on IDE", of4096(machine.IDE, ""), []string{"disks[0].bus=ide", "controllers[0]=ide0"}, "machine='q35'"},
		{"unknown TPM", machine.Machine{TPM: "3"}, []string{"tpm=3"}, "<devices>"},
		{"what a domain has not", machine.Machine{
			Product: machine.Product{Vendor: "a", Version: "b", FullVersion: "c", URL: "d", VendorURL: "e", AppURL: "f"}, EULAs: []string{"long"},
			Properties: []machine.Property{{Key: "password", Value: "s3cret", Password: true}}, Transport: []string{"iso"}},
			[]string{"product.vendor=a", "product.version=b", "product.fullVersion=c", "product.url=d", "product.vendorUrl=e", "product.appUrl=f",
				"eulas[0]=", "properties[0]=password", "transport[0]=iso"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := test.machine
			if m.ID == "" && test.name != "nothing said" {
				if m.Name == "" {
					m.Name = "vm"
				}
				m.CPUs, m.Memory = max(m.CPUs, 1), max(m.Memory, 1024)
			}
			data, losses, err := Write(&m, WriteOptions{Dir: "/srv"})
			if err != nil {
				t.Fatal(err)
			}
			if got := fields(losses); !slices.Equal(got, test.losses) {
				t.Errorf("losses %q, want %q", got, test.losses)
			}
			if !strings.Contains(string(data), test.writes) {
				t.Errorf("no %s in\n%s", test.writes, data)
			}
			written, err := roundTrip(&m)
			if err != nil {
				t.Error(err)
			}
			all = append(all, written)
		})
	}
	defines(t, all)
}

func TestWriteRefuses(t *testing.T) {
	file := func(name string) machine.Machine {
		return machine.Machine{CDROMs: []machine.CDROM{{File: name}}}
	}
	disk := func(d machine.Disk) machine.Machine { return machine.Machine{Disks: []machine.Disk{d}} }
	for _, test := range []struct {
		name    string
		machine machine.Machine
		dir     string
		says    string
	}{
		{"path of a host", file("/etc/shadow"), "/srv", "/etc/shadow"},
		{"path upwards", file("../a"), "/srv", "../a"},
		{"folder", file(".."), "/srv", `".."`},
		{"path of Windows", file(`C:\a`), "/srv", "plain"},
		{"file of two lines", file("a\nb"), "/srv", "plain"},
		{"file that is no UTF-8", file("a\xff"), "/srv", "plain"},
		{"disk's path", disk(machine.Disk{Format: "raw", File: "/dev/sda"}), "/srv", "disks[0]"},
		{"path of variables", machine.Machine{NVRAM: "/a"}, "/srv", "nvram"},
		{"no folder", file("a"), "", "absolute"},
		{"relative folder", file("a"), "srv", "absolute"},
		{"folder of two lines", file("a"), "/srv\n", "absolute"},
		{"format that is not said", disk(machine.Disk{File: "a"}), "/srv", "format"},
		{"format of others", disk(machine.Disk{Format: "vhdx", File: "a"}), "/srv", "vhdx"},
		{"format that is markup", disk(machine.Disk{Format: "raw'/><x", File: "a"}), "/srv", "format"},
		{"unknown controller", disk(machine.Disk{Format: "raw", File: "a", Controller: "scsi0"}), "/srv", "scsi0"},
		{"unknown controller of a CD", machine.Machine{CDROMs: []machine.CDROM{{Controller: "ide9"}}}, "/srv", "ide9"},
		{"two controllers of one name", machine.Machine{Controllers: []machine.Controller{{Name: "a", Type: machine.SCSI}, {Name: "a", Type: machine.SATA}}}, "/srv", "second"},
		{"two controllers of one number", machine.Machine{Controllers: []machine.Controller{{Name: "a", Type: machine.SCSI}, {Name: "b", Type: machine.SCSI}}}, "/srv", "second"},
		{"negative number", machine.Machine{Controllers: []machine.Controller{{Name: "a", Type: machine.SCSI, Number: -1}}}, "/srv", "-1"},
		{"negative CPUs", machine.Machine{CPUs: -1}, "/srv", "-1"},
		{"too many CPUs", machine.Machine{CPUs: machine.MaxCPUs + 1}, "/srv", "65537"},
		{"negative memory", machine.Machine{Memory: -1}, "/srv", "-1"},
		{"too much memory", machine.Machine{Memory: machine.MaxMemory + 1}, "/srv", "memory"},
		{"too many cards", machine.Machine{NICs: make([]machine.NIC, machine.MaxDisks+1)}, "/srv", "4096"},
	} {
		t.Run(test.name, func(t *testing.T) {
			data, losses, err := Write(&test.machine, WriteOptions{Dir: test.dir})
			if err == nil || !strings.Contains(err.Error(), test.says) || data != nil || losses != nil {
				t.Errorf("Write = %q, %v, %v; want an error that says %q", data, losses, err, test.says)
			}
			if test.says != "absolute" && !errors.Is(err, machine.ErrMalformed) && !errors.Is(err, machine.ErrUnsupported) {
				t.Errorf("%v is an error of no kind", err)
			}
		})
	}
}
