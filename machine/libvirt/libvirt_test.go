package libvirt

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

// The files of testdata, with all that they say.
var files = map[string]struct {
	machine machine.Machine
	unread  []string // field=value
	files   []string
}{
	"virt-install-debian12.xml": {
		machine: machine.Machine{
			ID: "web01", Name: "web01", Architecture: "amd64", Description: "nginx & certbot\nsecond line",
			CPUs: 4, CoresPerSocket: 4, Memory: 4 << 30, Firmware: machine.BIOS,
			GuestOS: machine.GuestOS{Osinfo: "http://debian.org/debian/12"}, HardwareVersion: "pc-q35-7.2",
			Controllers: []machine.Controller{
				{Name: "usb0", Type: machine.USB, Model: machine.XHCI},
				{Name: "sata0", Type: machine.SATA, Model: machine.AHCI},
			},
			Disks: []machine.Disk{
				{Name: "disk0", Bus: machine.Virtio, Format: "qcow2", File: "/var/lib/libvirt/images/web01.qcow2"},
				{Name: "disk1", Bus: machine.Virtio, Unit: 1, Format: "raw", File: "/dev/vg0/web01-data"},
			},
			CDROMs: []machine.CDROM{{Name: "cdrom0", Controller: "sata0", Bus: machine.SATA}},
			NICs: []machine.NIC{
				{Type: machine.VirtioNet, Network: "default", MAC: "52:54:00:a1:b2:c3"},
				{Type: machine.E1000E, MAC: "52:54:00:a1:b2:c4"},
			},
			Display:   machine.Display{Type: "virtio", Monitors: 1},
			BootOrder: []machine.BootDevice{machine.BootDisk, machine.BootCDROM},
			Product:   machine.Product{Name: "Web server"},
		},
		unread: []string{
			"currentMemory=2147483648 bytes", "cpu/topology/threads=2",
			"metadata/data=https://github.com/cockpit-project/cockpit-machines", "devices/disk[vdb]/serial=DATA01",
			"devices/interface[1]/type=direct", "devices/interface[1]/link=down",
		},
		files: []string{"/var/lib/libvirt/images/web01.qcow2", "/dev/vg0/web01-data"},
	},
	"virt-manager-windows11.xml": {
		machine: machine.Machine{
			ID: "win11", Name: "win11", Architecture: "amd64", CPUs: 4, CoresPerSocket: 4, Memory: 8 << 30, Firmware: machine.UEFI, SecureBoot: true, TPM: machine.TPM20,
			GuestOS: machine.GuestOS{Osinfo: "http://microsoft.com/win/11"}, HardwareVersion: "pc-q35-rhel9.2.0",
			Controllers: []machine.Controller{
				{Name: "usb0", Type: machine.USB, Model: machine.EHCI},
				{Name: "sata0", Type: machine.SATA, Model: machine.AHCI},
			},
			Disks: []machine.Disk{
				{Name: "disk0", Controller: "sata0", Bus: machine.SATA, Format: "qcow2", File: "/var/lib/libvirt/images/win11.qcow2"},
			},
			CDROMs: []machine.CDROM{
				{Name: "cdrom0", Controller: "sata0", Bus: machine.SATA, Unit: 1, File: "/var/lib/libvirt/images/Win11_22H2.iso"},
				{Name: "cdrom1", Controller: "sata0", Bus: machine.SATA, Unit: 2, File: "/var/lib/libvirt/images/virtio-win.iso"},
			},
			NICs:      []machine.NIC{{Type: machine.E1000E, Network: "br0", MAC: "52:54:00:3c:5d:6e"}},
			Display:   machine.Display{Type: "qxl", Memory: 64 << 20, Monitors: 2},
			BootOrder: []machine.BootDevice{machine.BootCDROM, machine.BootDisk},
			NVRAM:     "/var/lib/libvirt/qemu/nvram/win11_VARS.fd",
		},
		unread: []string{
			"cpu/model=Skylake-Client", "cpu/feature=vmx", "features/hyperv=custom", "devices/tpm[0]=2.0", "devices/graphics[0]=spice", "devices/sound[0]=ich9",
		},
		files: []string{
			"/var/lib/libvirt/qemu/nvram/win11_VARS.fd", "/var/lib/libvirt/images/win11.qcow2",
			"/var/lib/libvirt/images/Win11_22H2.iso", "/var/lib/libvirt/images/virtio-win.iso",
		},
	},
	"libvirt-i440fx-passthrough.xml": {
		machine: machine.Machine{
			ID: "lab-router", Name: "lab-router", Architecture: "amd64", CPUs: 2, Memory: 600e6, Firmware: machine.UEFI, HardwareVersion: "pc-i440fx-2.11",
			Controllers: []machine.Controller{
				{Name: "scsi0", Type: machine.SCSI, Model: machine.VirtioSCSI},
				{Name: "scsi1", Type: machine.SCSI, Model: machine.PVSCSI, Number: 1},
				{Name: "usb0", Type: machine.USB, Model: machine.UHCI},
				{Name: "ide0", Type: machine.IDE},
				{Name: "ide1", Type: machine.IDE, Number: 1},
			},
			Disks: []machine.Disk{
				{Name: "disk0", Controller: "ide0", Bus: machine.IDE, Format: "raw", File: "/srv/images/system.img"},
				{Name: "disk1", Controller: "ide1", Bus: machine.IDE, Unit: 1, Format: "raw", File: "rbd://ceph1.example.org:6789/pool/data"},
				{Name: "disk2", Controller: "scsi0", Bus: machine.SCSI, Unit: 2, Format: "qcow2", File: "volume:default/scratch.qcow2"},
				{Name: "disk3", Controller: "scsi0", Bus: machine.SCSI, Unit: 3, Format: "vhd", File: "/srv/images/old.vhd", ReadOnly: true},
				{Name: "disk4", Controller: "usb0", Bus: machine.USB, Format: "raw", File: "/srv/images/stick.img"},
			},
			CDROMs:    []machine.CDROM{{Name: "cdrom0", Controller: "ide1", Bus: machine.IDE}},
			NICs:      []machine.NIC{{Type: machine.RTL8139}},
			BootOrder: []machine.BootDevice{machine.BootDisk, machine.BootNetwork},
		},
		unread: []string{
			"cputune=", "commandline=http://libvirt.org/schemas/domain/qemu/1.0", "maxMemory=4294967296 bytes", "vcpu/current=1",
			"vcpu/cpuset=0-3", "os/kernel=/boot/vmlinuz-debug", "os/cmdline=", "clock=variable", "devices/disk[hdd]/auth=",
			"devices/disk[sda]/shareable=", "devices/disk[sdd]=lun", "devices/disk[hdc]/source=block", "devices/disk[fda]=floppy",
			"devices/disk[vda]=nvme", "devices/disk[sdb]/address=target 0, unit 2", "devices/interface[0]=hostdev", "devices/interface[1]/type=user",
			"devices/tpm[0]=tpm-tis", "devices/serial[0]=tcp", "devices/parallel[0]=pty", "devices/hostdev[0]=usb",
			"devices/filesystem[0]=mount", "devices/watchdog[0]=i6300esb", "devices/vsock[0]=virtio", "devices/boot=disk 1",
		},
		files: []string{
			"/srv/images/system.img", "rbd://ceph1.example.org:6789/pool/data", "volume:default/scratch.qcow2", "/srv/images/old.vhd", "/srv/images/stick.img",
		},
	},
	"esx-appliance.xml": {
		machine: machine.Machine{
			ID: "mail/relay", Name: "mail/relay", Architecture: "amd64", CPUs: 2, Memory: 1 << 30, Firmware: machine.UEFI,
			Controllers: []machine.Controller{
				{Name: "scsi0", Type: machine.SCSI, Model: machine.PVSCSI},
				{Name: "ide1", Type: machine.IDE, Number: 1},
			},
			Disks: []machine.Disk{
				{Name: "disk0", Controller: "scsi0", Bus: machine.SCSI, File: "[datastore1] relay/relay.vmdk"},
				{Name: "disk1", Controller: "scsi0", Bus: machine.SCSI, Unit: 9, File: "[datastore1] relay/relay_1.vmdk"},
			},
			CDROMs:  []machine.CDROM{{Name: "cdrom0", Controller: "ide1", Bus: machine.IDE, File: "[datastore1] iso/debian.iso"}},
			NICs:    []machine.NIC{{Type: machine.VMXNET3, Network: "VM Network", MAC: "00:0c:29:ab:cd:ef"}},
			Display: machine.Display{Type: "vmvga", Memory: 8 << 20},
		},
		unread: []string{"cputune=", "datacenterpath=http://libvirt.org/schemas/domain/vmware/1.0"},
		files:  []string{"[datastore1] relay/relay.vmdk", "[datastore1] relay/relay_1.vmdk", "[datastore1] iso/debian.iso"},
	},
}

func TestParseFiles(t *testing.T) {
	all, err := filepath.Glob("../../testdata/machines/*.xml")
	if err != nil || len(all) != len(files) {
		t.Errorf("%d files, %d are known: %v", len(all), len(files), err)
	}
	for name, want := range files {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("../../testdata/machines", name))
			if err != nil {
				t.Fatal(err)
			}
			e, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			got := *e.Machines[0]
			if unread := fields(got.Unread); !slices.Equal(unread, want.unread) {
				t.Errorf("unread\n%q\nwant\n%q", unread, want.unread)
			}
			for _, l := range got.Unread {
				for _, secret := range []string{"hunter2", "correct horse", "s3cret", "client.libvirt"} {
					if strings.Contains(fmt.Sprint(l), secret) {
						t.Errorf("a secret is told: %v", l)
					}
				}
			}
			got.Unread = nil
			if !reflect.DeepEqual(got, want.machine) {
				t.Errorf("got\n%+v\nwant\n%+v", got, want.machine)
			}
			var names []string
			for i, f := range e.Files {
				names = append(names, f.Name)
				if f.ID != fmt.Sprint("file", i) || f.Size != -1 {
					t.Errorf("file %+v", f)
				}
			}
			if !slices.Equal(names, want.files) {
				t.Errorf("files %q, want %q", names, want.files)
			}
			if len(e.Disks) != len(want.machine.Disks) {
				t.Fatalf("%d disks in the envelope, want %d", len(e.Disks), len(want.machine.Disks))
			}
			for i, d := range want.machine.Disks {
				d.Controller, d.Bus, d.Unit = "", "", 0
				if e.Disks[i] != d {
					t.Errorf("envelope's disk %+v, want %+v", e.Disks[i], d)
				}
			}
		})
	}
}

// fields are losses without their reasons.
func fields(losses []machine.Loss) []string {
	var all []string
	for _, l := range losses {
		all = append(all, l.Field+"="+l.Value)
	}
	return all
}

// domain is one of type kvm with the least that libvirt wants, and more.
func domain(more string) string {
	return `<domain type='kvm'><name>vm</name><memory>1024</memory><os><type>hvm</type></os>` + more + `</domain>`
}

func devices(all string) string { return domain("<devices>" + all + "</devices>") }

func disk(more string) string {
	return `<disk type='file' device='disk'><source file='/a'/>` + more + `</disk>`
}

func TestParseRefuses(t *testing.T) {
	for _, test := range []struct {
		name, domain string
		err          error
		says         string
	}{
		{"nothing", "", machine.ErrMalformed, "no XML"},
		{"document type", "<!DOCTYPE domain>" + domain(""), machine.ErrMalformed, "document type"},
		{"other document", "<network/>", machine.ErrMalformed, "<network>"},
		{"namespace", "<domain xmlns='urn:x' type='kvm'/>", machine.ErrMalformed, "urn:x"},
		{"snapshot", "<domainsnapshot/>", machine.ErrUnsupported, "<domainsnapshot>"},
		{"backup", "<domainbackup/>", machine.ErrUnsupported, "<domainbackup>"},
		{"running domain's state", "<domstatus/>", machine.ErrUnsupported, "virsh dumpxml"},
		{"no type", "<domain><name>a</name></domain>", machine.ErrMalformed, "no type"},
		{"container", "<domain type='lxc'><name>a</name></domain>", machine.ErrUnsupported, "lxc"},
		{"container of others", "<domain type='vz'><name>a</name><memory>1</memory><os><type>exe</type></os></domain>", machine.ErrUnsupported, "container"},
		{"no name", "<domain type='kvm'><memory>1</memory><os><type>hvm</type></os></domain>", machine.ErrMalformed, "<name>"},
		{"two names", domain("<name>b</name>"), machine.ErrMalformed, "second"},
		{"slash in the name", strings.Replace(domain(""), ">vm<", ">a/b<", 1), machine.ErrMalformed, "a/b"},
		{"two lines of name", strings.Replace(domain(""), ">vm<", ">a\nb<", 1), machine.ErrMalformed, "two lines"},
		{"no memory", strings.Replace(domain(""), "<memory>1024</memory>", "", 1), machine.ErrMalformed, "<memory>"},
		{"no memory at all", strings.Replace(domain(""), ">1024<", ">0<", 1), machine.ErrMalformed, "<memory>"},
		{"memory that is no number", strings.Replace(domain(""), ">1024<", ">-1<", 1), machine.ErrMalformed, `"-1"`},
		{"memory in no unit", strings.Replace(domain(""), "<memory>", "<memory unit='kibi'>", 1), machine.ErrMalformed, "kibi"},
		{"too much memory", strings.Replace(domain(""), "<memory>", "<memory unit='EiB'>", 1), machine.ErrMalformed, "2^50"},
		{"memory that overflows", strings.Replace(domain(""), ">1024<", ">18446744073709551615<", 1), machine.ErrMalformed, "2^50"},
		{"cells of memory that overflow", strings.Replace(domain("<cpu><numa><cell memory='1' unit='PiB'/><cell memory='1'/></numa></cpu>"), "<memory>1024</memory>", "", 1),
			machine.ErrMalformed, "2^50"},
		{"no CPU", domain("<vcpu>0</vcpu>"), machine.ErrMalformed, "no CPU"},
		{"too many CPUs", domain("<vcpu>65537</vcpu>"), machine.ErrMalformed, "65536"},
		{"CPUs in words", domain("<vcpu>two</vcpu>"), machine.ErrMalformed, `"two"`},
		{"more CPUs at first than ever", domain("<vcpu current='3'>2</vcpu>"), machine.ErrMalformed, "current"},
		{"topology of nothing", domain("<cpu><topology sockets='0' cores='1' threads='1'/></cpu>"), machine.ErrMalformed, "sockets"},
		{"topology that overflows", domain("<cpu><topology sockets='65536' dies='65536' clusters='65536' cores='65536' threads='65536'/></cpu>"), machine.ErrMalformed, "dies"},
		{"topology for fewer CPUs", domain("<vcpu>4</vcpu><cpu><topology sockets='1' cores='2' threads='1'/></cpu>"), machine.ErrMalformed, "2 CPUs"},
		{"no kind of guest", strings.Replace(domain(""), "<type>hvm</type>", "", 1), machine.ErrMalformed, "<type>"},
		{"unknown kind of guest", strings.Replace(domain(""), ">hvm<", ">x<", 1), machine.ErrMalformed, `"x"`},
		{"unknown firmware", strings.Replace(domain(""), "<os>", "<os firmware='x'>", 1), machine.ErrMalformed, `"x"`},
		{"unknown boot device", strings.Replace(domain(""), "</os>", "<boot dev='tape'/></os>", 1), machine.ErrMalformed, "tape"},
		{"boot twice over", strings.Replace(devices(disk("<target dev='vda'/><boot order='1'/>")), "</os>", "<boot dev='hd'/></os>", 1), machine.ErrMalformed, "<boot dev>"},
		{"two that boot first", devices(disk("<target dev='vda'/><boot order='1'/>") + "<interface type='user'><boot order='1'/></interface>"), machine.ErrMalformed, "order 1"},
		{"disk without target", devices(disk("")), machine.ErrMalformed, "target dev"},
		{"target that is none", devices(disk("<target dev='disk'/>")), machine.ErrMalformed, `"disk"`},
		{"target with too many letters", devices(disk("<target dev='vdzzzzzzzzzzzzzzzzzzz'/>")), machine.ErrMalformed, "vdzzz"},
		{"two targets of one name", devices(disk("<target dev='vda'/>") + disk("<target dev='vda'/>")), machine.ErrMalformed, "vda"},
		{"unknown bus", devices(disk("<target dev='vda' bus='x'/>")), machine.ErrMalformed, `"x"`},
		{"unknown device", devices("<disk device='x'><target dev='vda'/></disk>"), machine.ErrMalformed, `"x"`},
		{"address that is no number", devices(disk("<target dev='sda'/><address type='drive' unit='-1'/>")), machine.ErrMalformed, "unit"},
		{"address too far", devices(disk("<target dev='sda'/><address type='drive' controller='4294967296'/>")), machine.ErrMalformed, "controller"},
		{"fifth drive of IDE", devices(disk("<target dev='hda'/><address type='drive' bus='0' unit='4'/>")), machine.ErrMalformed, "IDE"},
		{"two targets of one name on two buses of KVM", devices(disk("<target dev='sda' bus='scsi'/>") + disk("<target dev='sda' bus='sata'/>")), machine.ErrMalformed, "sda"},
		{"third channel of IDE", devices(disk("<target dev='hda'/><address type='drive' bus='2'/>")), machine.ErrMalformed, "IDE"},
		{"two drives in one place", devices(disk("<target dev='sda'/><address type='drive' unit='1'/>") + disk("<target dev='sdb'/><address type='drive' unit='1'/>")),
			machine.ErrMalformed, "two drives"},
		{"encrypted disk", devices(disk("<target dev='vda'/><encryption format='luks'/>")), machine.ErrUnsupported, "encrypted"},
		{"encrypted source", devices("<disk type='file'><source file='/a'><encryption format='luks'/></source><target dev='vda'/></disk>"), machine.ErrUnsupported, "encrypted"},
		{"encrypted format", devices(disk("<driver type='luks'/><target dev='vda'/>")), machine.ErrUnsupported, "encrypted"},
		{"slice of a file", devices("<disk type='file'><source file='/a'><slices><slice type='storage' offset='1' size='2'/></slices></source><target dev='vda'/></disk>"),
			machine.ErrUnsupported, "slice"},
		{"two controllers in one place", devices("<controller type='scsi' index='1'/><controller type='scsi' index='1'/>"), machine.ErrMalformed, "second scsi"},
		{"controller without type", devices("<controller/>"), machine.ErrMalformed, "type"},
		{"controller too far", devices("<controller type='scsi' index='4097'/>"), machine.ErrMalformed, "4096"},
		{"too many disks", devices(strings.Repeat("<disk/>", 4097)), machine.ErrMalformed, "4096"},
		{"card without type", devices("<interface/>"), machine.ErrMalformed, "type"},
		{"address of five bytes", devices("<interface type='user'><mac address='52:54:00:11:22'/></interface>"), machine.ErrMalformed, "52:54"},
		{"address in no hex", devices("<interface type='user'><mac address='52:54:00:11:22:+3'/></interface>"), machine.ErrMalformed, "+3"},
		{"address of several cards", devices("<interface type='user'><mac address='01:00:5e:00:00:01'/></interface>"), machine.ErrMalformed, "several"},
		{"video memory", devices("<video><model type='vga' vram='99999999999'/></video>"), machine.ErrMalformed, "vram"},
		{"monitors", devices("<video><model type='vga' heads='x'/></video>"), machine.ErrMalformed, "heads"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := Parse([]byte(test.domain))
			if !errors.Is(err, test.err) || !strings.Contains(fmt.Sprint(err), test.says) || e != nil {
				t.Errorf("Parse = %v, %v; want an error that is %v and says %q", e, err, test.err, test.says)
			}
		})
	}
}

// What one element says, or two.
func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, domain string
		get          func(m *machine.Machine) any
		want         any
	}{
		{"memory is in KiB", domain(""), memory, int64(1 << 20)},
		{"memory in bytes", strings.Replace(domain(""), "<memory>", "<memory unit='bytes'>", 1), memory, int64(1024)},
		{"memory in b", strings.Replace(domain(""), "<memory>", "<memory unit='b'>", 1), memory, int64(1024)},
		{"memory in k", strings.Replace(domain(""), "<memory>", "<memory unit='k'>", 1), memory, int64(1 << 20)},
		{"memory in KB", strings.Replace(domain(""), "<memory>", "<memory unit='KB'>", 1), memory, int64(1024000)},
		{"memory in G", strings.Replace(domain(""), "<memory>", "<memory unit='G'>", 1), memory, int64(1 << 40)},
		{"memory in gb", strings.Replace(domain(""), "<memory>", "<memory unit='gb'>", 1), memory, int64(1024e9)},
		{"memory in GiB, with space around", strings.Replace(domain(""), "<memory>1024", "<memory unit='GiB' dumpCore='off'> 1 ", 1), memory, int64(1 << 30)},
		{"memory in cells", strings.Replace(domain("<cpu><numa><cell memory='1' unit='GiB'/><cell memory='1024'/></numa></cpu>"), "<memory>1024</memory>", "", 1),
			memory, int64(1<<30 + 1<<20)},
		{"third drive of IDE as a unit of the first bus", devices(disk("<target dev='hda'/>") + disk("<target dev='hdc'/><address type='drive' bus='0' unit='2'/>")), slots, "ide0 0, ide1 0"},
		{"disks of VMware on two buses with one name", strings.Replace(devices(disk("<target dev='sda' bus='scsi'/>")+disk("<target dev='sda' bus='sata'/>")), "kvm", "vmware", 1), slots, "scsi0 0, sata0 0"},
		{"one CPU if none is said", domain(""), func(m *machine.Machine) any { return m.CPUs }, 1},
		{"cores of dies and clusters", domain("<vcpu>16</vcpu><cpu><topology sockets='2' dies='2' clusters='2' cores='2' threads='1'/></cpu>"),
			func(m *machine.Machine) any { return []int{m.CPUs, m.CoresPerSocket} }, []int{16, 8}},
		{"topology for more CPUs", domain("<vcpu>2</vcpu><cpu><topology sockets='2' cores='2' threads='1'/></cpu>"),
			func(m *machine.Machine) any { return []int{m.CPUs, m.CoresPerSocket} }, []int{2, 0}},
		{"slash in a name of VMware's", strings.NewReplacer("kvm", "vmware", ">vm<", ">a/b<").Replace(domain("")), func(m *machine.Machine) any { return m.Name }, "a/b"},
		{"BIOS by default", domain(""), firmware, "bios false"},
		{"BIOS by name", strings.Replace(domain(""), "<os>", "<os firmware='bios'>", 1), firmware, "bios false"},
		{"BIOS of Xen", strings.Replace(domain(""), "</os>", "<loader>/usr/lib/xen/boot/hvmloader</loader></os>", 1), firmware, "bios false"},
		{"UEFI by name", strings.Replace(domain(""), "<os>", "<os firmware='efi'>", 1), firmware, "uefi false"},
		{"UEFI by loader", strings.Replace(domain(""), "</os>", "<loader type='rom'>/usr/share/OVMF/OVMF.fd</loader></os>", 1), firmware, "uefi false"},
		{"UEFI of ARM", strings.Replace(domain(""), "</os>", "<loader>/usr/share/AAVMF/AAVMF_CODE.fd</loader></os>", 1), firmware, "uefi false"},
		{"UEFI in flash", strings.Replace(domain(""), "</os>", "<loader type='pflash'>/x</loader></os>", 1), firmware, "uefi false"},
		{"secure loader", strings.Replace(domain(""), "</os>", "<loader type='pflash' secure='yes'>/x</loader></os>", 1), firmware, "uefi true"},
		{"secure boot", strings.Replace(domain(""), "<os>", "<os firmware='efi'><firmware><feature name='secure-boot' enabled='yes'/></firmware>", 1), firmware, "uefi true"},
		{"no secure boot", strings.Replace(domain(""), "<os>", "<os firmware='efi'><firmware><feature name='secure-boot' enabled='no'/></firmware>", 1), firmware, "uefi false"},
		{"firmware of another architecture", strings.Replace(domain(""), "<type>", "<type arch='ppc64le'>", 1), firmware, " false"},
		{"variables in a source", strings.Replace(domain(""), "</os>", "<nvram type='file' template='/x'><source file='/vars.fd'/></nvram></os>", 1),
			func(m *machine.Machine) any { return m.NVRAM }, "/vars.fd"},
		{"variables that are made", strings.Replace(domain(""), "</os>", "<nvram template='/x'/></os>", 1), func(m *machine.Machine) any { return m.NVRAM }, ""},
		{"TPM of TIS", devices("<tpm model='tpm-tis'><backend type='emulator'/></tpm>"), tpm, machine.TPM12},
		{"TPM of CRB", devices("<tpm model='tpm-crb'><backend type='emulator'/></tpm>"), tpm, machine.TPM20},
		{"TPM by version", devices("<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>"), tpm, machine.TPM20},
		{"local time of Windows", domain("<clock offset='localtime'/><metadata><l:libosinfo xmlns:l='" + namespaceOsinfo + "'><l:os id='http://microsoft.com/win/10'/></l:libosinfo></metadata>"),
			unread, ""},
		{"local time of others", domain("<clock offset='localtime'/>"), unread, "clock=localtime"},
		{"UTC of Windows", domain("<metadata><l:libosinfo xmlns:l='" + namespaceOsinfo + "'><l:os id='http://microsoft.com/win/10'/></l:libosinfo></metadata>"), unread, "clock=utc"},
		{"ARM of 64 bits", strings.Replace(domain(""), "<type>", "<type arch='aarch64'>", 1), architectureOf, "arm64"},
		{"x86 of 64 bits", strings.Replace(domain(""), "<type>", "<type arch='x86_64'>", 1), architectureOf, "amd64"},
		{"x86 of 32 bits", strings.Replace(domain(""), "<type>", "<type arch='i686'>", 1), architectureOf, "386"},
		{"architecture of one word everywhere", strings.Replace(domain(""), "<type>", "<type arch='ppc64le'>", 1), architectureOf, "ppc64le"},
		{"architecture that is not said", domain(""), architectureOf, ""},
		{"Xen's own guests", strings.Replace(domain(""), ">hvm<", ">xen<", 1), unread, "os/type=xen"},
		{"screen for all", devices("<graphics type='vnc' listen='0.0.0.0'/>"), unread, "devices/graphics[0]=vnc"},
		{"screen with a password", devices("<graphics type='vnc' passwd='x'/>"), unread, "devices/graphics[0]=vnc"},
		{"screen for its own host", devices("<graphics type='vnc' autoport='yes'><listen type='address'/></graphics>"), unread, ""},
		{"console that is the serial port", devices("<serial type='tcp'/><console type='tcp'/>"), unread, "devices/serial[0]=tcp"},
		{"second serial port", devices("<serial type='pty'/><serial type='pty'/>"), unread, "devices/serial[1]=pty"},
		{"device of input that is the host's", devices("<input type='evdev'/><input type='mouse' bus='ps2'/>"), unread, "devices/input[0]=evdev"},
		{"bus by the name of the disk", devices(disk("<target dev='hdd'/>") + disk("<target dev='sdi'/>") + disk("<target dev='vdab'/>") + disk("<target dev='xvda2'/>") + disk("<target dev='ioemu:hda'/>")),
			slots, "ide1 1, scsi1 1, virtio 27, xen 0, ide0 0"},
		{"places that are not said", devices(disk("<target dev='sdh' bus='sata'/>") + disk("<target dev='sdz' bus='usb'/>") + disk("<target dev='nvme1n1' bus='nvme'/>")),
			slots, "sata1 1, usb0 0, nvme1 0"},
		{"targets of SCSI", devices(disk("<target dev='sda'/><address type='drive' target='3' unit='0'/>") + disk("<target dev='sdb'/><address type='drive' target='0' unit='3'/>")),
			slots, "scsi0 3, scsi0 4"},
		{"a place that is said goes first", devices(disk("<target dev='sda'/>") + disk("<target dev='sdb'/><address type='drive' unit='0'/>")), slots, "scsi0 1, scsi0 0"},
		{"USB in order", devices("<controller type='usb' index='1' model='qemu-xhci'/>" + disk("<target dev='sda' bus='usb'/><address type='usb' bus='1' port='4'/>") + disk("<target dev='sdb' bus='usb'/><address type='usb' bus='1' port='2'/>")),
			slots, "usb1 0, usb1 1"},
		{"second IDE controller", devices(disk("<target dev='hda'/><address type='drive' controller='1' bus='1' unit='1'/>")), slots, "ide3 1"},
		{"controllers in a row", devices("<controller type='scsi'/><controller type='scsi' index='0'/><controller type='scsi'/>"), controllers, "scsi1 scsi0 scsi2"},
		{"words for controllers", devices("<controller type='scsi' model='vmpvscsi'/><controller type='scsi' model='lsisas1068'/><controller type='scsi' model='auto'/>" +
			"<controller type='usb' model='nec-xhci'/><controller type='usb' model='none'/><controller type='pci'/><controller type='virtio-serial'/><controller type='ide' model='piix4'/>"),
			controllers, "scsi0:pvscsi scsi1:lsisas1068 scsi2 usb0:xhci"},
		{"controllers that are implied", devices(disk("<target dev='sda'/>") + disk("<target dev='sdb' bus='sata'/>") + disk("<target dev='hda'/>")), controllers, "scsi0 sata0:ahci ide0"},
		{"format is raw if none is said", devices(disk("<target dev='vda'/>")), format, "raw"},
		{"format of another hypervisor", strings.Replace(devices(disk("<target dev='vda'/>")), "kvm", "vmware", 1), format, ""},
		{"format of Xen", devices(disk("<driver name='tap' type='aio'/><target dev='vda'/>")), format, "raw"},
		{"format that is not known here", devices(disk("<driver name='qemu' type='qed'/><target dev='vda'/>")), format, "qed"},
		{"sectors of 4096 bytes", devices(disk("<blockio logical_block_size='4096' physical_block_size='4096'/><target dev='vda'/>") + disk("<blockio logical_block_size='4096'/><target dev='vdb'/>") +
			disk("<blockio logical_block_size='512' physical_block_size='512'/><target dev='vdc'/>")), sectors, "4096 4096 0, unread "},
		{"sectors that are not carried", devices(disk("<blockio logical_block_size='8192' physical_block_size='8192'/><target dev='vda'/>") + disk("<blockio physical_block_size='4096' discard_granularity='4096'/><target dev='vdb'/>") +
			disk("<blockio logical_block_size='4096' physical_block_size='8192'/><target dev='vdc'/>") + "<disk type='file' device='cdrom'><target dev='sda'/><blockio logical_block_size='4096'/></disk>"), sectors,
			"0 0 4096, unread devices/disk[vda]/blockio=logical_block_size 8192 devices/disk[vdb]/blockio=physical_block_size 4096 devices/disk[vdb]/blockio=discard_granularity 4096 " +
				"devices/disk[vdc]/blockio=physical_block_size 8192 devices/disk[sda]/blockio=logical_block_size 4096"},
		{"disk of the host that is a number", devices("<disk type='block'><source dev='2'/><target dev='sda'/></disk>"), unread, "devices/disk[sda]=block"},
		{"disk of the host that is a path", devices("<disk type='block'><source dev='/dev/vg/a'/><target dev='sda'/></disk>"),
			func(m *machine.Machine) any { return m.Disks[0].File }, "/dev/vg/a"},
		{"words for cards", devices("<interface type='user'><model type='vlance'/></interface><interface type='user'><model type='82540eM'/></interface><interface type='user'><model type='Igb'/></interface>"),
			func(m *machine.Machine) any { return []machine.NICType{m.NICs[0].Type, m.NICs[1].Type, m.NICs[2].Type} }, []machine.NICType{machine.PCnet, machine.E1000, "igb"}},
		{"address with one digit", devices("<interface type='user'><mac address='0:C:29:1:2:F'/></interface>"), func(m *machine.Machine) any { return m.NICs[0].MAC }, "00:0c:29:01:02:0f"},
		{"disk at an address of IPv6", devices("<disk type='network'><source protocol='nbd' name='x'><host name='::1' port='6000'/></source><target dev='vda'/></disk>"), func(m *machine.Machine) any { return m.Disks[0].File }, "nbd://[::1]:6000/x"},
		{"disk behind a password", devices("<disk type='network'><source protocol='https' name='x.img?sig=abc'><host name='ci:hunter2@h'/></source><target dev='vda'/></disk>"), func(m *machine.Machine) any { return m.Disks[0].File }, "https://h/x.img"},
		{"network of Hyper-V", devices("<interface type='internal'><source name='LAN'/></interface>"), func(m *machine.Machine) any { return m.NICs[0].Network }, "LAN"},
		{"cards of hosts do not count for booting", devices("<interface type='hostdev'><boot order='1'/></interface><interface type='user'><boot order='2'/></interface>"),
			func(m *machine.Machine) any { return m.BootOrder }, []machine.BootDevice{machine.BootNetwork}},
		{"no graphics card", devices("<video><model type='none'/></video>"), func(m *machine.Machine) any { return m.Display }, machine.Display{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := Parse([]byte(test.domain))
			if err != nil {
				t.Fatal(err)
			}
			if got := test.get(e.Machines[0]); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func memory(m *machine.Machine) any         { return m.Memory }
func firmware(m *machine.Machine) any       { return fmt.Sprint(m.Firmware, " ", m.SecureBoot) }
func architectureOf(m *machine.Machine) any { return m.Architecture }
func tpm(m *machine.Machine) any            { return m.TPM }
func unread(m *machine.Machine) any         { return strings.Join(fields(m.Unread), " ") }
func format(m *machine.Machine) any         { return m.Disks[0].Format }

func sectors(m *machine.Machine) any {
	var sizes []string
	for _, d := range m.Disks {
		sizes = append(sizes, fmt.Sprint(d.SectorSize))
	}
	return fmt.Sprint(strings.Join(sizes, " "), ", unread ", unread(m))
}

func slots(m *machine.Machine) any {
	var all []string
	for _, d := range m.Disks {
		at := d.Controller
		if at == "" {
			at = string(d.Bus)
		}
		all = append(all, fmt.Sprint(at, " ", d.Unit))
	}
	return strings.Join(all, ", ")
}

func controllers(m *machine.Machine) any {
	var all []string
	for _, c := range m.Controllers {
		name := c.Name
		if c.Model != "" {
			name += ":" + string(c.Model)
		}
		all = append(all, name)
	}
	return strings.Join(all, " ")
}

// FuzzParse: what is read is written, is read the same, and is written the
// same again.
func FuzzParse(f *testing.F) {
	for name := range files {
		data, err := os.ReadFile(filepath.Join("../../testdata/machines", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte(devices(disk("<target dev='sda'/><address type='drive' target='3' unit='1'/>") + disk("<target dev='nvme0n1' bus='nvme'/>"))))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Parse(data)
		if err != nil {
			if !errors.Is(err, machine.ErrMalformed) && !errors.Is(err, machine.ErrUnsupported) {
				t.Errorf("Parse = %v, an error of no kind", err)
			}
			return
		}
		out, err := roundTrip(placed(e.Machines[0]))
		if err != nil && !errors.Is(err, machine.ErrUnsupported) { // more drives than libvirt has places for
			t.Errorf("%v\n%s", err, out)
		}
	})
}
