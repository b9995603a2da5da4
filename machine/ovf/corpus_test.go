package ovf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
)

// corpus is beside the repository where there is one.
const corpus = "../../../shared/corpus/ovf"

// summary is a machine in a line: ID, CPUs x cores per socket, MB of memory,
// firmware, hardware and system; controllers, disks, CD drives, cards.
func summary(m *machine.Machine) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %dx%d %dM %s %q %d/%s;", m.ID, m.CPUs, m.CoresPerSocket, m.Memory>>20, m.Firmware, m.HardwareVersion, m.GuestOS.CIM, m.GuestOS.VMware)
	for _, c := range m.Controllers {
		fmt.Fprintf(&b, " %s=%s", c.Name, c.Model)
	}
	for _, d := range m.Disks {
		fmt.Fprintf(&b, " %s@%s:%d %dM %s %s;", d.Name, d.Controller, d.Unit, d.Capacity>>20, d.Format, d.File)
	}
	for _, c := range m.CDROMs {
		fmt.Fprintf(&b, " cd@%s:%d %s;", c.Controller, c.Unit, c.File)
	}
	for _, n := range m.NICs {
		fmt.Fprintf(&b, " %s on %s;", n.Type, n.Network)
	}
	fmt.Fprintf(&b, " %d properties", len(m.Properties))
	return b.String()
}

// The OVFs of testdata/machines, in the manner of the products that their names have.
func TestCommitted(t *testing.T) {
	for name, want := range map[string][]string{
		"cot-input":       {`test 4x1 4096M  "vmx-07 vmx-08" 100/other26xLinux64Guest; scsi0=lsilogic ide1= ide0= vmdisk1@scsi0:0 1024M vmdk input.vmdk; cd@ide1:0 input.iso; cd@ide1:1 ; vmxnet3 on VM Network; vmxnet3 on VM Network; vmxnet3 on VM Network; 10 properties`},
		"cot-ubuntu-ovf2": {`ubuntu 1x0 512M  "virtualbox-2.2" 94/; ide0=piix4 ide1=piix4 sata0=ahci usb0= vmdisk1@sata0:0 8192M vmdk ubuntu.2.0-disk1.vmdk; cd@ide1:0 ; e1000 on NAT; 0 properties`},
		"esxi-8":          {`win11 4x2 8192M uefi "vmx-20" 1/windows11_64Guest; nvme0= scsi0=pvscsi sata0=ahci usb0=xhci vmdisk1@nvme0:0 65536M vmdk win11-1.vmdk; vmdisk2@scsi0:1 32768M  ; cd@sata0:0 ; vmxnet3 on VM Network; 1 properties`},
		"ovftool-vapp": {`web 4x0 2048M  "vmx-10 vmx-11" 94/ubuntu64Guest; scsi0=lsisas1068 web@scsi0:0 16384M vmdk web-disk1.vmdk; e1000e on front; vmxnet3 on back; 0 properties`,
			`db 2x0 4096M  "" 0/; scsi0=pvscsi db@scsi0:0 40960M vmdk db-disk1.vmdk.gz; 0 properties`},
		"ovirt-4": {`out 2x2 2048M uefi "ENGINE 4.4.0.0" 0/; scsi0=virtio-scsi b2a7c7a4-3f57-4a6f-8f3c-0d1e2f3a4b5c@scsi0:0 10240M qcow2 b2a7c7a4-3f57-4a6f-8f3c-0d1e2f3a4b5c; cd@:0 ; virtio on ovirtmgmt; 0 properties`},
		"ovirt-4-ova": {`4a6237d9-05a0-4d5a-a7b1-ff01764a761f 4x2 4096M uefi "ENGINE 4.5.0.0" 80/; scsi0=virtio-scsi ` +
			`0a3c9d7e-2222-4c49-9d0e-1f2a3b4c5d6e@scsi0:0 2048M qcow2 5b0e1c3a-6a0f-4c49-9d0e-1f2a3b4c5d6e; ` +
			`1b3c9d7e-3333-4c49-9d0e-1f2a3b4c5d6e@:0 5120M raw 8c7d6e5f-1111-4c49-9d0e-1f2a3b4c5d6e; cd@:0 ; e1000e on ovirtmgmt; 0 properties`},
		"virtualbox-7":     {`debian 2x0 2048M uefi "virtualbox-2.2" 96/; ide0=piix4 ide1=piix4 sata0=ahci usb0= vmdisk1@sata0:0 20480M vmdk debian-disk001.vmdk; cd@ide1:0 ; e1000 on NAT; 0 properties`},
		"xenserver-sample": {`68f97bfd-1a03-422f-97d5-db5046c20b78 1x0 64M  "xen-3.0-unknown" 0/; 64891892-169e-470b-9779-368ee4ad2c15@:0 10M vhd 5936bc8c-20ae-4052-9083-b8e5b96dc683.vhd; 0 properties`},
	} {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("../../testdata/machines", name+".ovf"))
			if err != nil {
				t.Fatal(err)
			}
			e, err := Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range e.Machines {
				got = append(got, summary(m))
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			if fault := check(e); fault != "" {
				t.Error(fault)
			}
		})
	}
}

// Where the folders of govmomi are that most of the corpus is in.
const (
	external = "vmware__govmomi/ovf/fixtures/external/"
	ovftool  = external + "OVFToolTemplates/OVF/xmltestfiles/"
)

// refused are the OVFs of the corpus that are refused, by path, with a part of
// the reason. All others are read.
var refused = map[string]string{
	// Templates: what is between @@ or # is filled in by a program.
	"flatcar__scripts/template_vmware.ovf":                 "@@VMDK_FILE_SIZE@@",
	"libguestfs__virt-v2v/tests/test-o-ovirt.ovf.expected": "#SIZE#",
	"vmware__open-vmdk/templates/template-hw10.ovf":        "@@VMDK_FILE_SIZE@@",
	"vmware__open-vmdk/templates/template-hw11.ovf":        "@@VMDK_FILE_SIZE@@",
	"vmware__open-vmdk/templates/template-hw13.ovf":        "@@VMDK_FILE_SIZE@@",
	"vmware__open-vmdk/templates/template-hw17.ovf":        "@@VMDK_FILE_SIZE@@",
	"vmware__open-vmdk/templates/template-hw18.ovf":        "@@VMDK_FILE_SIZE@@",
	"vmware__open-vmdk/templates/template-hw21.ovf":        "@@VMDK_FILE_SIZE@@",

	// No OVF.
	external + "DeleteHDTestdata/PvScsis_old/descriptor.ovf":                                               "<HTML>",
	external + "jeos_corrupted.ovf":                                                                        "illegal character",
	external + "invalid_ovf/path1/testLonCharacterPathLimit/testDBpathLimitwwwwwwwwwwwwwww/descriptor.ovf": "no XML document",

	// Made to be refused, or broken.
	"glennmatthews__cot/COT/tests/ersatz_ovf_3.0.ovf":                           `version "3"`,
	"glennmatthews__cot/COT/tests/invalid.ovf":                                  `"flash2" is no file (9.1)`,
	"proxmox__pve-storage/src/test/ovf_manifests/XEE.ovf":                       "document type",
	"vmware__govmomi/ovf/fixtures/empty.ovf":                                    "(7.2)",
	external + "ImportOvf2014/invalid.ovf":                                      "without ovf:id (7.2)",
	external + "ovf_negative_test/New_folder/haoUnOS2VMs/haoUnOS2VMs.ovf":       "without ovf:id (7.2)",
	external + "ovf_negative_test/ovf_with_missing_ovf_content/haoUnOS2VMs.ovf": "(9.2)",
	external + "security-test-content/ovf/large-disk/haoUnOS2VMs.ovf":           "populatedSize",
	external + "security-test-content/ovf/negative-size-disk/haoUnOS2VMs.ovf":   "ovf:size",
	external + "security-test-content/ovf/out-of-bounds-disk/haoUnOS2VMs.ovf":   "ovf:size",
	external + "unsupported-ovfs/unsupportedSection.ovf":                        "<UnsupportedSectionFoo>",
	// What VMware's ovftool refuses.
	ovftool + "DiskSection/Neg/dup_diskid.ovf":                     `two disks called "vmdisk1" (9.1)`,
	ovftool + "DiskSection/Neg/no_capacity.ovf":                    "capacity",
	ovftool + "DiskSection/Neg/no_diskid.ovf":                      "without ovf:diskId (9.1)",
	ovftool + "DiskSection/Neg/popsize_gt_capacity.ovf":            "populatedSize",
	ovftool + "DiskSection_1_0/Neg/dup_diskid.ovf":                 `two disks called "vmdisk1" (9.1)`,
	ovftool + "DiskSection_1_0/Neg/not_in_order_disks.ovf":         "in the order of References",
	ovftool + "Envelope/Neg/content_vmwithnoid.ovf":                "without ovf:id (7.2)",
	ovftool + "Envelope/Neg/invalid_empty_env.ovf":                 "(7.2)",
	ovftool + "Envelope/Neg/invalid_env.ovf":                       "<FakeEnvelope>",
	ovftool + "Envelope/Neg/invalid_namespace.ovf":                 "<Content>",
	ovftool + "Envelope/Neg/invalid_neg_chunk.ovf":                 `ovf:size "abcd"`,
	ovftool + "Envelope/Neg/invalid_no_file_in_ref.ovf":            `"file1" is no file (9.1)`,
	ovftool + "Envelope/Neg/invalid_no_version.ovf":                "without ovf:version",
	ovftool + "Envelope/Neg/invalid_ref_id.ovf":                    "a File without ovf:id",
	ovftool + "Envelope/Neg/invalid_zero_capacity.ovf":             "without <Info>",
	ovftool + "Envelope/Neg/no_content.ovf":                        "(7.2)",
	ovftool + "Envelope/Neg/section_compatibility_rec.ovf":         "<UnknownSection> in DiskSection is not known (7.3)",
	ovftool + "Envelope_1_0/Neg/bare_minimal.ovf":                  "without <Info>",
	ovftool + "Envelope_1_0/Neg/content_withnoinfo.ovf":            "without <Info>",
	ovftool + "Envelope_1_0/Neg/fileelements_samefile.ovf":         "two File elements",
	ovftool + "Envelope_1_0/Neg/invalid_empty_env.ovf":             "(7.2)",
	ovftool + "Envelope_1_0/Neg/invalid_env.ovf":                   "<FakeEnvelope>",
	ovftool + "Envelope_1_0/Neg/invalid_neg_chunk.ovf":             `ovf:size "abcd"`,
	ovftool + "Envelope_1_0/Neg/invalid_ref_dup_id.ovf":            `two files "file1" (7.1)`,
	ovftool + "Envelope_1_0/Neg/invalid_version.ovf":               "<References> of",
	ovftool + "Envelope_1_0/Neg/invalid_zero_capacity.ovf":         "without <Info>",
	ovftool + "Envelope_1_0/Neg/no_content.ovf":                    "(7.2)",
	ovftool + "Envelope_1_0/Neg/section_compatibility_rec.ovf":     "<UnknownSection> in DiskSection is not known (7.3)",
	ovftool + "NetworkSection/Neg/net_sec_elsewhr.ovf":             "NetworkSection cannot stand",
	ovftool + "NetworkSection_1_0/Neg/no_net.ovf":                  `"VM Network 1" is not in a NetworkSection (9.2)`,
	ovftool + "ProductSection/Neg/prop_invalid_type.ovf":           "nosuchtype",
	ovftool + "ProductSection/Neg/prop_no_key.ovf":                 "without ovf:key (9.5.1)",
	ovftool + "ProductSection/Neg/prop_no_type.ovf":                `ovf:type ""`,
	ovftool + "ProductSection_1_0/Neg/dup_prodsec.ovf":             "two ProductSections",
	ovftool + "ProductSection_1_0/Neg/prop_no_key.ovf":             "without ovf:key (9.5.1)",
	ovftool + "RASection/Neg/ras_sec_elsewhr.ovf":                  "ResourceAllocationSection cannot stand",
	ovftool + "RASection_1_0/Neg/ras_sec_elsewhr.ovf":              "ResourceAllocationSection cannot stand",
	ovftool + "VirtualHardware/Neg/dup_instanceid.ovf":             `two Items of InstanceID "6" (8.3)`,
	ovftool + "VirtualHardware/Neg/empty_item.ovf":                 "without InstanceID (8.3)",
	ovftool + "VirtualHardware/Neg/invalid_multiple_vh.ovf":        "without InstanceID (8.3)",
	ovftool + "VirtualHardware/Neg/maxwith_nonormal.ovf":           "a bound and no value (8.4)",
	ovftool + "VirtualHardware/Neg/noninteger_range.ovf":           `"Thousand and twenty four"`,
	ovftool + "VirtualHardware/Neg/twomin_rangemarker.ovf":         "two min bounds",
	ovftool + "VirtualHardware_1_0/Neg/child_uitem_req_true.ovf":   "<Unknown> in an Item",
	ovftool + "VirtualHardware_1_0/Neg/child_uitem_req_unspec.ovf": "<Unknown> in an Item",
	ovftool + "VirtualHardware_1_0/Neg/no_vh.ovf":                  "no VirtualHardwareSection (8.1)",
	ovftool + "VirtualHardware_1_0/Neg/noninteger_range.ovf":       `"Thousand and Twenty Four"`,
	ovftool + "VirtualHardware_1_0/Neg/twomin_rangemarker.ovf":     "two min bounds",
}

// notRefused are those of ovftool's negative ones that are read: the fault is in a file beside the OVF, and davit push finds it
// (TestFaultsBesideAnOVF of cmd/davit), or there is none.
var notRefused = map[string]string{
	ovftool + "DigitalCertificates/Neg/valid_certificate.ovf":        "its certificate",
	ovftool + "DiskSection/Neg/invalid_createType_disk.ovf":          "its VMDK",
	ovftool + "DiskSection/Neg/invalid_delta_reference_disk.ovf":     "its VMDK",
	ovftool + "DiskSection_1_0/Neg/invalid_delta_reference_disk.ovf": "its VMDK",
	ovftool + "Envelope/Neg/gzip_compression.ovf":                    "its VMDK, which is not compressed",
	ovftool + "HttpLocators/Neg/valid_no_disk.ovf":                   "its VMDK, which is not there",
	ovftool + "Envelope_1_0/Neg/invalid_no_version.ovf":              "no fault: an Envelope of OVF 1 has no ovf:version, those of ovftool's positive files neither",
}

// read are facts of some that are read.
var read = map[string]string{
	"glennmatthews__cot/COT/tests/iosv.ovf":                                       `com.cisco.iosv 1x0 384M  "vmx-08 Cisco:Internal:VMCloud-01" 100/otherGuest; ide0=virtio vios-adventerprisek9-m.vmdk@ide0:0 1024M vmdk input.vmdk; flash2@ide0:1 128M vmdk ;`,
	"libguestfs__virt-v2v/tests/test-i-ova-snapshots.ovf":                         `2K8R2EESP1_2_Medium 1x0 1024M uefi "vmx-10" 103/windows7Server64Guest; scsi0=lsisas1068 ide1= ide0= vmdisk1@scsi0:0 51200M vmdk disk1.vmdk;`,
	"proxmox__pve-storage/src/test/ovf_manifests/Win10-Liz_no_default_ns.ovf":     `vm 4x0 6144M uefi "vmx-11" 1/windows9_64Guest; sata0=ahci usb0=xhci usb1=ehci scsi0=lsisas1068 vmdisk1@scsi0:0 131072M vmdk Win10-Liz-disk1.vmdk; cd@sata0:1 ; e1000e on bridged;`,
	"vmware-tanzu__vm-operator/test/resource/photon-ova.ovf":                      `vm 1x0 2048M  "vmx-11" 100/other3xLinux64Guest; scsi0=pvscsi ide1= vmdisk1@scsi0:0 16384M vmdk photon-ova-disk1.vmdk; cd@ide1:0 ; vmxnet3 on None;`,
	external + "2011OVFs/Win2k3ToolsHWv9/w2k3R2_32-toolsHWv9.ovf":                 `w2k3R2_32-toolsHWv9 1x0 512M bios "vmx-09" 69/winNetStandardGuest; scsi0=lsilogic`,
	external + "DeleteHDTestdata/IdeSas/IdeSas.ovf":                               `Vm1 1x1 256M bios "vmx-07" 79/rhel6Guest; ide1= scsi1=lsisas1068 ide0=`,
	external + "JeOS/VM_OVF10.ovf":                                                `cd@ide1:1 custom.iso;`,
	external + "OP2013OVFs/SingleVM/MultiVMMultiNics.ovf":                         `MultiVMMultiNics 4x2 4096M`,
	external + "SugarCRM/SugarCRM.ovf":                                            `web 1x0 256M  "vmx-04" 93/; scsi0=lsilogic ide0= vmdisk1@scsi0:0 1024M vmdk SugarCRM-disk1.vmdk; vmdisk2@scsi0:1 1024M vmdk ; vmdisk3@scsi0:2 8192M`,
	external + "VM_with_nvram/newVM-with-nvram.ovf":                               `newVM-with-nvram 1x1 1024M uefi "vmx-17" 107/centos8_64Guest; scsi0=pvscsi sata0=ahci`,
	external + "evdc/haoUnOS2VMs-1GHz-1GB-4cpu/haoUnOS2VMs.ovf":                   `vm1 4x0 1024M`,
	external + "guestos/Windows8_ent_x32/WINDOWS8_ENT_X32.ovf":                    `vmdisk1@ide0:0 61440M vmdk WINDOWS8_ENT_X32-disk1.vmdk; cd@ide1:0 ; e1000 on VM Network; e1000 on InternalNetwork;`,
	ovftool + "DiskSection_1_0/Pos/no_fileref.ovf":                                `vmdisk1@scsi0:0 313M vmdk ;`,
	ovftool + "Envelope/Pos/http_uri_in_file.ovf":                                 `vmdk http://vmweb.vmware.com/~vappa/valid_disk.vmdk;`,
	ovftool + "NetworkSection/Pos/sub_E10000.ovf":                                 `e10000 on VM Network 1;`,
	ovftool + "VirtualHardware/Pos/valid_multiple_subtypes_comsep.ovf":            `"vmx-04 xen3"`,
	ovftool + "VirtualHardware_1_0/Pos/maxonly_bound.ovf":                         `0x0 512M`,
	ovftool + "LaxMode/Pos/vbox5_all_storage_controllers_0.9/vbox5_0.9.ovf":       `vbox5 1x0 384M  "vmx-6" 93/; ide1=ich6 sata0=ahci usb0= vmdisk1@ide1:0 4M vmdk vbox5.vmdk; vmdisk2@sata0:1 10240M vmdk vbox2.vmdk; pcnet on NAT;`,
	ovftool + "LaxMode/Pos/vbox10_four_different_network_adapters/vbox10_0.9.ovf": `pcnet on NAT; pcnet on Bridged; e1000 on Internal; e1000 on HostOnly;`,
	ovftool + "LaxMode/Pos/vbox4_three_devices_IDE_0.9/vbox4_0.9.ovf":             `vmdisk1@ide1:0 8192M vmdk vbox4.vmdk; cd@ide1:1 ; cd@ide0:0 ;`,
	"xenserver__xenadmin/sample_app.ovf":                                          `1x0 64M  "xen-3.0-unknown" 0/;`,
}

// Every OVF of the corpus is read, or refused for the reason that it was made
// for. Without the corpus the tables alone are checked.
func TestCorpus(t *testing.T) {
	t.Parallel()
	for path := range notRefused {
		if refused[path] != "" {
			t.Errorf("%s is in both tables", path)
		}
	}
	if _, err := os.Stat(corpus); errors.Is(err, fs.ErrNotExist) {
		return
	}
	var ok, bad int
	seen := make(map[string]bool)
	err := filepath.WalkDir(corpus, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(corpus, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		seen[rel] = true
		e, err := Parse(data)
		want := refused[rel]
		if err != nil {
			if bad++; want == "" || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want %q", rel, err, want)
			}
			return nil
		}
		if ok++; want != "" {
			t.Errorf("%s is read; want an error with %q", rel, want)
		}
		if fault := check(e); fault != "" {
			t.Errorf("%s: %s", rel, fault)
		}
		if want := read[rel]; want != "" {
			var all []string
			for _, m := range e.Machines {
				all = append(all, summary(m))
			}
			if got := strings.Join(all, "\n"); !strings.Contains(got, want) {
				t.Errorf("%s:\n%s\nwant\n%s", rel, got, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []map[string]string{refused, notRefused, read} {
		for path := range table {
			if !seen[path] {
				t.Errorf("%s is not in the corpus", path)
			}
		}
	}
	t.Logf("%d OVFs are read, %d refused", ok, bad)
}
