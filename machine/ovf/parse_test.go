package ovf

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

const spaces = `xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" ` +
	`xmlns:rasd="` + namespaceRASD + `" xmlns:vssd="` + namespaceVSSD + `" xmlns:vmw="` + namespaceVMware + `" xmlns:vbox="` + namespaceVirtualBox + `"`

const files = `<References><File ovf:id="f" ovf:href="f.vmdk"/><File ovf:id="cd" ovf:href="a.iso"/><File ovf:id="nv" ovf:href="a.nvram"/></References>`

// envelope is an OVF of two files, with the given content of its DiskSection and
// a machine without hardware.
func envelope(disks string) string {
	return `<Envelope ` + spaces + `>` + files + `<DiskSection><Info>x</Info>` + disks + `</DiskSection>` + system1("") + `</Envelope>`
}

// system1 is a machine with the given hardware.
func system1(hardware string) string {
	return `<VirtualSystem ovf:id="vm"><Info>x</Info><VirtualHardwareSection><Info>x</Info>` + hardware + `</VirtualHardwareSection></VirtualSystem>`
}

// withHardware is an OVF of two disks and two networks, with the given hardware.
func withHardware(hardware string) string {
	return `<Envelope ` + spaces + `>` + files +
		`<DiskSection><Info>x</Info><Disk ovf:diskId="a" ovf:fileRef="f" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^20" ovf:format="` + formatStreamOptimized + `"/><Disk ovf:diskId="b" ovf:capacity="512"/></DiskSection>` +
		`<NetworkSection><Info>x</Info><Network ovf:name="red"/><Network ovf:name="blue"/></NetworkSection>` + system1(hardware) + `</Envelope>`
}

// withSystem is an OVF with the given sections of its machine.
func withSystem(sections string) string {
	return `<Envelope ` + spaces + `>` + files + strings.Replace(system1(""), "<VirtualHardware", sections+"<VirtualHardware", 1) + `</Envelope>`
}

// rasd is an Item: words are NAME=VALUE, and what begins with < as it is; an
// attribute of the item begins with @.
func rasd(id string, words ...string) string {
	var attrs, body string
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		switch {
		case strings.HasPrefix(w, "<"):
			body += w
		case strings.HasPrefix(w, "@"):
			attrs += ` ovf:` + name[1:] + `="` + value + `"`
		default:
			body += `<rasd:` + name + `>` + value + `</rasd:` + name + `>`
		}
	}
	return `<Item` + attrs + `>` + body + `<rasd:InstanceID>` + id + `</rasd:InstanceID></Item>`
}

func one(t *testing.T, ovf string) (*machine.Envelope, *machine.Machine) {
	t.Helper()
	e, err := Parse([]byte(ovf))
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	if len(e.Machines) != 1 {
		t.Fatalf("%d machines", len(e.Machines))
	}
	return e, e.Machines[0]
}

// What can hardly be misunderstood is read, and told.
func TestParseWarns(t *testing.T) {
	disk := func(attrs string) string {
		return envelope(`<Disk ovf:diskId="a" ovf:fileRef="f" ` + attrs + `/>`)
	}
	in := func(units string) string {
		return disk(`ovf:capacity="8" ovf:format="x" ovf:capacityAllocationUnits="` + units + `"`)
	}
	words := func(units string) []string {
		return []string{`line 1: disk "a": units "` + units + `" are no units of DSP0004: they are taken for those of memory`}
	}
	for _, test := range []struct {
		name     string
		ovf      string
		capacity int64
		want     []string
	}{
		{"as it should be", in("byte * 2^30"), 8 << 30, nil},
		{"MegaBytes", in("MegaBytes"), 8 << 20, words("MegaBytes")},
		{"GigaBytes", in("GigaBytes"), 8 << 30, words("GigaBytes")},
		{"GB", in("GB"), 8 << 30, words("GB")},
		{"gigabyte", in("gigabyte"), 8 << 30, words("gigabyte")},
		{"KiB", in("KiB"), 8 << 10, words("KiB")},
		{"TeraBytes", in("TeraBytes"), 8 << 40, words("TeraBytes")},
		{"bytes", in("bytes"), 8, words("bytes")},
		{"capitals", in("Byte * 2^20"), 8 << 20, words("Byte * 2^20")},
		{"several bytes", in("bytes * 2^20"), 8 << 20, words("bytes * 2^20")},
		{"no format", disk(`ovf:capacity="1"`), 1, []string{`line 1: disk "a": it has no ovf:format: its content says what it is`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := Parse([]byte(test.ovf))
			if err != nil {
				t.Fatal(err)
			}
			if len(e.Disks) != 1 || e.Disks[0].Capacity != test.capacity || e.Disks[0].Format != "" || !slices.Equal(e.Warnings, test.want) {
				t.Errorf("disks %+v, warnings %q; want %d bytes, %q", e.Disks, e.Warnings, test.capacity, test.want)
			}
		})
	}
}

// open-vmdk leaves the Parent of all disks but the first empty.
func TestParseEmptyParents(t *testing.T) {
	scsi := func(id, address string) string {
		return rasd(id, "Address="+address, "ElementName=SCSI "+address, "ResourceType=6", "ResourceSubType=lsilogic")
	}
	ide := rasd("9", "Address=0", "ResourceType=5")
	drive := func(id, kind, parent, unit string) string {
		return rasd(id, "ResourceType="+kind, "<rasd:Parent>"+parent+"</rasd:Parent>", "AddressOnParent="+unit, "HostResource=ovf:/disk/a")
	}
	const typeOfDisk, typeOfCD = "17", "15"
	for _, test := range []struct {
		name  string
		items string
		want  string // controllers and units of disks, and of CDs
		told  int
	}{
		{"a CD drive, on IDE", ide + scsi("3", "0") + drive("5", typeOfDisk, "3", "0") + drive("8", typeOfCD, "", "0"), "scsi0:0 ide0:0", 1},
		{"a CD drive without IDE", scsi("3", "0") + drive("5", typeOfDisk, "3", "0") + drive("8", typeOfCD, "", "0"), "scsi0:0 scsi0:1", 1},
		{"a CD drive that says no Parent", ide + rasd("8", "ResourceType=15"), ":0", 0},
		{"three CD drives and one channel", ide + drive("6", typeOfCD, "", "0") + drive("7", typeOfCD, "", "1") + drive("8", typeOfCD, "", "2"), "ide0:0 ide0:1 ide1:0", 3},
		{"five of them", ide + drive("6", typeOfCD, "", "0") + drive("7", typeOfCD, "", "1") + drive("8", typeOfCD, "", "2") + drive("10", typeOfCD, "", "3") + drive("11", typeOfCD, "", "4"), "ide0:0 ide0:1 ide1:0 ide1:1 :0", 5},
		{"as open-vmdk writes it", scsi("3", "0") + drive("5", typeOfDisk, "3", "0") + drive("6", typeOfDisk, "", "1") + drive("7", typeOfDisk, "", "2"), "scsi0:0 scsi0:1 scsi0:2", 2},
		{"the controller of the disk before it", scsi("3", "0") + scsi("4", "1") + drive("5", typeOfDisk, "4", "0") + drive("6", typeOfDisk, "", "1"), "scsi1:0 scsi1:1", 1},
		{"a unit that is taken", scsi("3", "0") + drive("6", typeOfDisk, "", "1") + drive("5", typeOfDisk, "3", "1"), "scsi0:0 scsi0:1", 1},
		{"the only controller", scsi("3", "0") + drive("5", typeOfDisk, " ", "0"), "scsi0:0", 1},
		{"the only one that is not for CDs", ide + scsi("3", "0") + drive("5", typeOfDisk, "", "0"), "scsi0:0", 1},
		{"one of two", scsi("3", "0") + scsi("4", "1") + drive("5", typeOfDisk, "", "0"), ":0", 0},
		{"no controller", drive("5", typeOfDisk, "", "0"), ":0", 0},
		{"no Parent at all", scsi("3", "0") + rasd("5", "ResourceType=17", "HostResource=ovf:/disk/a"), ":0", 0},
		{"after a CD drive", ide + scsi("3", "0") + drive("5", typeOfDisk, "3", "0") + drive("8", typeOfCD, "9", "0") + drive("6", typeOfDisk, "", "1"), "scsi0:0 scsi0:1 ide0:0", 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, m := one(t, withHardware(test.items))
			var got []string
			for _, d := range m.Disks {
				got = append(got, fmt.Sprintf("%s:%d", d.Controller, d.Unit))
			}
			for _, cd := range m.CDROMs {
				got = append(got, fmt.Sprintf("%s:%d", cd.Controller, cd.Unit))
			}
			if strings.Join(got, " ") != test.want || len(e.Warnings) != test.told {
				t.Errorf("disks %q, warnings %q; want %q, %d", got, e.Warnings, test.want, test.told)
			}
			for _, w := range e.Warnings {
				if !strings.Contains(w, "its Parent is empty: Item ") {
					t.Errorf("warning %q", w)
				}
			}
		})
	}
}

func TestParseDisks(t *testing.T) {
	disk := func(name string, capacity int64) []machine.Disk {
		return []machine.Disk{{Name: name, Capacity: capacity}}
	}
	for _, test := range []struct {
		name string
		ovf  string
		want []machine.Disk
	}{
		{"no disk", envelope(``), nil},
		{"bytes", envelope(`<Disk ovf:diskId="a" ovf:fileRef="f" ovf:capacity="513" ovf:format="x"/>`), []machine.Disk{{Name: "a", Capacity: 513, File: "f.vmdk"}}},
		{"VMDK", envelope(`<Disk ovf:diskId="a" ovf:fileRef="f" ovf:capacity="1" ovf:format="` + formatStreamOptimized + `"/>`), []machine.Disk{{Name: "a", Capacity: 1, File: "f.vmdk", Format: "vmdk"}}},
		{"VMDK of OVF 0.9", envelope(`<Disk ovf:diskId="a" ovf:fileRef="f" ovf:capacity="1" ovf:format="http://www.vmware.com/specifications/vmdk.html#sparse"/>`), []machine.Disk{{Name: "a", Capacity: 1, File: "f.vmdk", Format: "vmdk"}}},
		{"raw, as an artifact has it", envelope(`<Disk ovf:diskId="a" ovf:fileRef="f" ovf:capacity="1" ovf:format="` + formatBare + `"/>`), []machine.Disk{{Name: "a", Capacity: 1, File: "f.vmdk", Format: "raw"}}},
		{"oVirt's raw is no VMDK", envelope(`<Disk ovf:diskId="a" ovf:fileRef="f" ovf:capacity="1" ovf:volume-format="RAW" ovf:format="http://www.vmware.com/specifications/vmdk.html#sparse"/>`), []machine.Disk{{Name: "a", Capacity: 1, File: "f.vmdk", Format: "raw"}}},
		{"blank disk", envelope(`<Disk ovf:diskId="a" ovf:capacity="1"/>`), disk("a", 1)},
		{"delta", envelope(`<Disk ovf:diskId="a" ovf:capacity="1"/><Disk ovf:diskId="b" ovf:parentRef="a" ovf:capacity="1"/>`), []machine.Disk{{Name: "a", Capacity: 1}, {Name: "b", Capacity: 1, Parent: "a"}}},
		{"order is kept", envelope(`<Disk ovf:diskId="b" ovf:capacity="1"/><Disk ovf:diskId="a" ovf:capacity="2"/>`), append(disk("b", 1), disk("a", 2)...)},
		{"two disks begin with one file, among others", strings.Replace(envelope(`<Disk ovf:diskId="a" ovf:fileRef="f" ovf:capacity="1" ovf:format="x"/><Disk ovf:diskId="b" ovf:fileRef="g" ovf:capacity="1" ovf:format="x"/>`+
			`<Disk ovf:diskId="c" ovf:fileRef="f" ovf:capacity="1" ovf:format="x"/>`), "</References>", `<File ovf:id="g" ovf:href="g.vmdk"/></References>`, 1),
			[]machine.Disk{{Name: "a", Capacity: 1, File: "f.vmdk"}, {Name: "b", Capacity: 1, File: "g.vmdk"}, {Name: "c", Capacity: 1, File: "f.vmdk"}}},
		{"binary units", envelope(`<Disk ovf:diskId="a" ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2^30"/>`), disk("a", 8<<30)},
		{"units without spaces", envelope(`<Disk ovf:diskId="a" ovf:capacity="8" ovf:capacityAllocationUnits="byte*2^20"/>`), disk("a", 8<<20)},
		{"units with more spaces", envelope(`<Disk ovf:diskId="a" ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2 ^ 20"/>`), disk("a", 8<<20)},
		{"decimal units", envelope(`<Disk ovf:diskId="a" ovf:capacity="8" ovf:capacityAllocationUnits="byte * 10^9"/>`), disk("a", 8e9)},
		{"units of several factors", envelope(`<Disk ovf:diskId="a" ovf:capacity="8" ovf:capacityAllocationUnits="byte * 1024 * 2^10"/>`), disk("a", 8<<20)},
		{"largest", envelope(`<Disk ovf:diskId="a" ovf:capacity="268435456" ovf:capacityAllocationUnits="byte * 2^30"/>`), disk("a", 1<<58)},
		{"predefined entity", envelope(`<Disk ovf:diskId="a&amp;&#98;" ovf:capacity="1"/>`), disk("a&b", 1)},
		{"OVF 2", strings.ReplaceAll(envelope(`<Disk ovf:diskId="a" ovf:capacity="1"/>`), "envelope/1", "envelope/2"), disk("a", 1)},
		{"attributes of others are skipped", envelope(`<Disk ovf:diskId="a" ovf:capacity="1" capacity="2" xmlns:x="urn:x" x:capacity="3"/>`), disk("a", 1)},
		{"attributes without a namespace", envelope(`<Disk diskId="a" capacity="1"/>`), disk("a", 1)},
		{"a Disk of others is no disk", envelope(`<x:Disk xmlns:x="urn:x" ovf:required="false" ovf:diskId="b"/><Disk ovf:diskId="a" ovf:capacity="1"/>`), disk("a", 1)},
		{"ISO-8859-1", `<?xml version="1.0" encoding="ISO-8859-1"?>` + envelope("<Disk ovf:diskId=\"\xe4\" ovf:capacity=\"1\"/>"), disk("ä", 1)},
		{"populated as much as it holds", envelope(`<Disk ovf:diskId="a" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^10" ovf:populatedSize="1024"/>`), disk("a", 1024)},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := Parse([]byte(test.ovf))
			if err != nil || !slices.Equal(e.Disks, test.want) {
				t.Errorf("Parse = %+v, %v; want %+v", e, err, test.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const disk1 = `<Disk ovf:diskId="a" ovf:capacity="1"/>`
	disk := func(attrs string) string { return envelope(`<Disk ` + attrs + `/>`) }
	memory := rasd("1", "ResourceType=4", "VirtualQuantity=1", "AllocationUnits=byte * 2^30")
	scsi := rasd("3", "ResourceType=6", "ResourceSubType=lsilogic")
	for _, test := range []struct{ name, ovf, want string }{
		{"nothing", "", "no XML"},
		{"no XML", "DAVITIX1", "outside"},
		{"cut short", envelope(disk1)[:100], "EOF"},
		{"another document", "<html/>", "begins with <html>"},
		{"no namespace", "<Envelope/>", "begins with <Envelope>"},
		{"another name", strings.NewReplacer("<Envelope ", "<Folder ", "</Envelope>", "</Folder>").Replace(envelope(disk1)), "begins with <Folder>"},
		{"OVF 3", strings.ReplaceAll(envelope(disk1), "envelope/1", "envelope/3"), `version "3"`},
		{"OVF 0.9 of another version", strings.Replace(strings.ReplaceAll(envelope(disk1), namespace1, namespace09), "<Envelope ", `<Envelope ovf:version="1.3" `, 1), `of version "1.3"`},
		{"annotation of the envelope", strings.Replace(envelope(disk1), "<VirtualSystem ", "<AnnotationSection><Info/></AnnotationSection><VirtualSystem ", 1), "cannot stand"},
		{"guest system without Info", withSystem(`<OperatingSystemSection ovf:id="1"/>`), "without <Info>"},
		{"start of a machine that is not there", `<Envelope ` + spaces + `><VirtualSystemCollection ovf:id="c"><Info/><StartupSection><Info/><Item ovf:id="vm"/><Item ovf:id="db"/></StartupSection>` + system1("") + `</VirtualSystemCollection></Envelope>`, `"db" is not in the collection`},
		{"one property with two values", withSystem(`<ProductSection><Info/><Property ovf:key="k" ovf:type="string" ovf:value="a"/><Property ovf:key="k" ovf:type="string" ovf:value="b"/></ProductSection>`), `different property "k"`},
		{"OVF 0.9 without version", strings.ReplaceAll(envelope(disk1), namespace1, namespace09), "ovf:version"},
		{"disks not in the order of their files", strings.Replace(envelope(`<Disk ovf:diskId="a" ovf:fileRef="g" ovf:capacity="1" ovf:format="x"/><Disk ovf:diskId="b" ovf:fileRef="f" ovf:capacity="1" ovf:format="x"/>`),
			"</References>", `<File ovf:id="g" ovf:href="g.vmdk"/></References>`, 1), "in the order of References"},
		{"document type", `<!DOCTYPE Envelope>` + envelope(disk1), "document type"},
		{"entity", `<!DOCTYPE e [<!ENTITY x "1">]>` + disk(`ovf:diskId="a" ovf:capacity="&x;"`), "document type"},
		{"unknown entity", disk(`ovf:diskId="a&x;" ovf:capacity="1"`), "entity"},
		{"two documents", envelope(disk1) + envelope(""), "two documents"},
		{"text after the end", envelope(disk1) + "x", "outside"},
		{"size", envelope(strings.Repeat(" ", machine.MaxDescriptor)), "bytes, more than"},

		{"no machine", `<Envelope ` + spaces + `>` + files + `</Envelope>`, "neither a VirtualSystem"},
		{"two machines without a collection", strings.Replace(envelope(""), "</Envelope>", strings.ReplaceAll(system1(""), `"vm"`, `"vm2"`)+"</Envelope>", 1), "a second VirtualSystem"},
		{"machine without ID", strings.Replace(envelope(""), ` ovf:id="vm"`, "", 1), "without ovf:id"},
		{"machine without Info", strings.Replace(envelope(""), `<VirtualSystem ovf:id="vm"><Info>x</Info>`, `<VirtualSystem ovf:id="vm">`, 1), "without <Info>"},
		{"two machines of one ID", `<Envelope ` + spaces + `><VirtualSystemCollection ovf:id="c"><Info/>` + system1("") + system1("") + `</VirtualSystemCollection></Envelope>`, `"vm"`},
		{"no hardware", strings.NewReplacer("<VirtualHardwareSection>", "<!--", "</VirtualHardwareSection>", "-->").Replace(envelope("")), "no VirtualHardwareSection"},
		{"too many hardwares", withSystem(strings.Repeat(`<VirtualHardwareSection><Info/></VirtualHardwareSection>`, maxHardwares)), "more than 64 VirtualHardwareSections"},
		{"two DiskSections", strings.Replace(envelope(disk1), "<VirtualSystem", "<DiskSection/><VirtualSystem", 1), "second <DiskSection>"},
		{"required section of OVF that is none", withSystem(`<NewSection/>`), "<NewSection>"},
		{"required section of others", withSystem(`<x:S xmlns:x="urn:x"/>`), "<S>"},
		{"required element in a section", envelope(disk1 + `<Other/>`), "<Other> in DiskSection"},
		{"required element in hardware", withHardware(`<Other/>`), "<Other>"},
		{"required element in an item", withHardware(rasd("1", "ResourceType=4", "Unknown=1")), "<Unknown>"},
		{"networks within a machine", withSystem(`<NetworkSection/>`), "cannot stand"},
		{"resources of a collection within a machine", withSystem(`<ResourceAllocationSection/>`), "cannot stand"},

		{"two configurations of one ID", strings.Replace(envelope(""), "<VirtualSystem", `<DeploymentOptionSection><Info/><Configuration ovf:id="a"/><Configuration ovf:id="a"/></DeploymentOptionSection><VirtualSystem`, 1), "ovf:id of its own"},
		{"configuration without ID", strings.Replace(envelope(""), "<VirtualSystem", `<DeploymentOptionSection><Info/><Configuration/></DeploymentOptionSection><VirtualSystem`, 1), "ovf:id of its own"},
		{"too many configurations", strings.Replace(envelope(""), "<VirtualSystem", "<DeploymentOptionSection><Info/>"+many(machine.MaxMachines, `<Configuration ovf:id="%d"/>`)+"</DeploymentOptionSection><VirtualSystem", 1), "more than 1024 configurations"},
		{"too many networks", strings.Replace(envelope(""), "<VirtualSystem", "<NetworkSection><Info/>"+many(machine.MaxDisks, `<Network ovf:name="%d"/>`)+"</NetworkSection><VirtualSystem", 1), "more than 4096 networks"},
		{"too many files", strings.Replace(envelope(""), "</References>", many(machine.MaxDisks, `<File ovf:id="%d" ovf:href="%[1]d"/>`)+"</References>", 1), "more than 4096 files"},
		{"too many machines", `<Envelope ` + spaces + `><VirtualSystemCollection ovf:id="c"><Info/>` + many(machine.MaxMachines, strings.Replace(system1(""), "vm", "%d", 1)) + `</VirtualSystemCollection></Envelope>`, "more than 1024 machines"},
		{"too many items", withHardware(many(4*machine.MaxDisks, rasd("%d", "ResourceType=14"))), "more than 16384 items"},
		{"too many network cards", withHardware(many(machine.MaxDisks, rasd("%d", "ResourceType=10"))), "more than 4096 network cards"},
		{"too many disk drives", withHardware(many(machine.MaxDisks, rasd("%d", "ResourceType=17", "HostResource=ovf:/disk/b"))), "more than 4096 disks"},
		{"too many CD drives", withHardware(many(machine.MaxDisks, rasd("%d", "ResourceType=15"))), "more than 4096 CD drives"},
		{"too many properties", withSystem("<ProductSection><Info/>" + many(machine.MaxDisks, `<Property ovf:key="%d" ovf:type="string"/>`) + "</ProductSection>"), "more than 4096 properties"},

		{"file without ID", strings.Replace(envelope(""), ` ovf:id="f"`, "", 1), "without ovf:id"},
		{"two files of one ID", strings.Replace(envelope(""), `ovf:id="cd"`, `ovf:id="f"`, 1), `two files "f"`},
		{"one file twice", strings.Replace(envelope(""), `a.iso`, `f.vmdk`, 1), "two File elements"},
		{"size that is none", strings.Replace(envelope(""), `ovf:id="f"`, `ovf:id="f" ovf:size="-3"`, 1), "ovf:size"},
		{"size over 63 bits", strings.Replace(envelope(""), `ovf:id="f"`, `ovf:id="f" ovf:size="9223372036854775808"`, 1), "ovf:size"},
		{"chunks of nothing", strings.Replace(envelope(""), `ovf:id="f"`, `ovf:id="f" ovf:chunkSize="0"`, 1), "ovf:chunkSize"},
		{"other compression", strings.Replace(envelope(""), `ovf:id="f"`, `ovf:id="f" ovf:compression="lzma"`, 1), `compression "lzma"`},

		{"too many disks", envelope(many(machine.MaxDisks, `<Disk ovf:diskId="%d" ovf:capacity="1"/>`)), "more than 4096 disks"},
		{"two disks of one name", envelope(disk1 + disk1), `two disks called "a"`},
		{"one attribute twice", disk(`ovf:diskId="a" ovf:diskId="b" ovf:capacity="1"`), "two attributes"},
		{"no name", disk(`ovf:capacity="1"`), "without ovf:diskId"},
		{"no capacity", disk(`ovf:diskId="a"`), `capacity ""`},
		{"file that is not there", disk(`ovf:diskId="a" ovf:fileRef="g" ovf:capacity="1" ovf:format="x"`), `"g" is no file`},
		{"parent that is not there", disk(`ovf:diskId="a" ovf:parentRef="g" ovf:capacity="1"`), `"g" is no disk`},
		{"populated beyond its capacity", disk(`ovf:diskId="a" ovf:populatedSize="2" ovf:capacity="1"`), "populatedSize"},
		{"capacity that is a property of nobody", disk(`ovf:diskId="a" ovf:capacity="${size}"`), "${size}"},
		{"signed capacity", disk(`ovf:diskId="a" ovf:capacity="+1"`), "capacity"},
		{"negative capacity", disk(`ovf:diskId="a" ovf:capacity="-1"`), "capacity"},
		{"huge capacity", disk(`ovf:diskId="a" ovf:capacity="99999999999999999999"`), "capacity"},
		{"capacity over 2^58", disk(`ovf:diskId="a" ovf:capacity="288230376151711745"`), "2^58"},
		{"capacity that overflows", disk(`ovf:diskId="a" ovf:capacity="17179869185" ovf:capacityAllocationUnits="byte * 2^30"`), "2^58"},
		{"units that overflow", disk(`ovf:diskId="a" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^64"`), "2^58"},
		{"units of 0", disk(`ovf:diskId="a" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 0"`), "cannot be read"},
		{"units that are none", disk(`ovf:diskId="a" ovf:capacity="1" ovf:capacityAllocationUnits="furlong"`), "not bytes"},
		{"units of an unknown form", disk(`ovf:diskId="a" ovf:capacity="1" ovf:capacityAllocationUnits="byte / 2"`), "not bytes"},

		{"item of nothing", withHardware("<Item/>"), "without InstanceID"},
		{"item without a type", withHardware(rasd("1")), "ResourceType"},
		{"two items of one ID", withHardware(memory + rasd("1", "ResourceType=3", "VirtualQuantity=1")), "two Items"},
		{"two minima", withHardware(memory + strings.Repeat(rasd("1", "@bound=min", "ResourceType=4", "Reservation=1"), 2)), "two min bounds"},
		{"bound without a value", withHardware(rasd("1", "@bound=max", "ResourceType=4", "Reservation=1")), "bound and no value"},
		{"bound that is none", withHardware(rasd("1", "@bound=about", "ResourceType=4", "VirtualQuantity=1")), "about"},
		{"quantity that is no number", withHardware(rasd("1", "ResourceType=4", "VirtualQuantity=much")), "much"},
		{"reservation that is no number", withHardware(memory + rasd("1", "@bound=max", "ResourceType=4", "Reservation=much")), "much"},
		{"two quantities", withHardware(rasd("1", "ResourceType=4", "VirtualQuantity=1", "VirtualQuantity=2")), "two VirtualQuantity"},
		{"memory beyond any", withHardware(rasd("1", "ResourceType=4", "VirtualQuantity=1025", "AllocationUnits=byte * 2^40")), "more than"},
		{"memory in hertz", withHardware(rasd("1", "ResourceType=4", "VirtualQuantity=1", "AllocationUnits=hertz * 10^6")), "not bytes"},
		{"CPUs beyond any", withHardware(rasd("1", "ResourceType=3", "VirtualQuantity=65537")), "more than 65536 CPUs"},
		{"network that is not there", withHardware(rasd("1", "ResourceType=10", "Connection=green")), `"green"`},
		{"disk that is not there", withHardware(scsi + rasd("4", "ResourceType=17", "Parent=3", "HostResource=ovf:/disk/c")), "is no disk"},
		{"file that is not there", withHardware(scsi + rasd("4", "ResourceType=15", "Parent=3", "HostResource=ovf:/file/c")), "is no file"},
		{"file of a drive that is not there", withHardware(scsi + rasd("4", "ResourceType=17", "Parent=3", "HostResource=ovf:/file/c")), "is no file"},
		{"disk of a CD that is not there", withHardware(scsi + rasd("4", "ResourceType=15", "Parent=3", "HostResource=ovf:/disk/c")), "is no disk"},
		{"five drives on two IDE channels", withHardware(rasd("x", "ResourceType=5") + many(4, rasd("%d", "ResourceType=15", "Parent=x"))), "more than two drives"},
		{"cores that are no number", withHardware(rasd("1", "ResourceType=3", `<vmw:CoresPerSocket>two</vmw:CoresPerSocket>`)), "CoresPerSocket"},
		{"oVirt's sockets without number", strings.ReplaceAll(withHardware(rasd("1", "ResourceType=3", "num_of_sockets=65537", "cpu_per_socket=1")), namespace1, namespace1+"/"), "sockets and cores"},
		{"path of a host as disk", withHardware(scsi + rasd("4", "ResourceType=17", "Parent=3", "HostResource=/etc/passwd")), "neither"},
		{"controller that is not there", withHardware(rasd("4", "ResourceType=17", "Parent=3", "HostResource=ovf:/disk/a")), "is no Item"},
		{"unit beyond any", withHardware(scsi + rasd("4", "ResourceType=17", "Parent=3", "AddressOnParent=4096", "HostResource=ovf:/disk/a")), "no number of a unit"},

		{"property without key", withSystem(`<ProductSection><Info/><Property ovf:type="string"/></ProductSection>`), "without ovf:key"},
		{"property without type", withSystem(`<ProductSection><Info/><Property ovf:key="k"/></ProductSection>`), `type ""`},
		{"property of a type that is none", withSystem(`<ProductSection><Info/><Property ovf:key="k" ovf:type="nosuchtype"/></ProductSection>`), "nosuchtype"},
		{"two products of one name", withSystem(strings.Repeat(`<ProductSection ovf:class="c" ovf:instance="1"><Info/></ProductSection>`, 2)), "two ProductSections"},
		{"system that is no number", withSystem(`<OperatingSystemSection ovf:id="linux"><Info/></OperatingSystemSection>`), `"linux"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Parse([]byte(test.ovf))
			if !errors.Is(err, machine.ErrMalformed) && !errors.Is(err, machine.ErrUnsupported) || got != nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Parse = %v, %v; want an error with %q", got, err, test.want)
			}
		})
	}
}

// many is format with the numbers from 0 to n.
func many(n int, format string) string {
	var b strings.Builder
	for i := range n + 1 {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

func TestParseHardware(t *testing.T) {
	ide := func(id, address string) string { return rasd(id, "ResourceType=5", "Address="+address) }
	cd := func(id, parent, unit string) string {
		return rasd(id, "ResourceType=15", "Parent="+parent, "AddressOnParent="+unit)
	}
	a := machine.Disk{Name: "a", Capacity: 1 << 20, File: "f.vmdk", Format: "vmdk", Controller: "scsi0", Bus: machine.SCSI}
	b := machine.Disk{Name: "b", Capacity: 512}
	scsi0 := machine.Controller{Name: "scsi0", Type: machine.SCSI, Model: machine.LSILogic}
	on := func(d machine.Disk, unit int) machine.Disk { d.Unit = unit; return d }
	for _, test := range []struct {
		name, hardware string
		want           machine.Machine // without ID and Unread
	}{
		{"nothing", "", machine.Machine{}},
		{"system types with commas", `<System><vssd:VirtualSystemType>vmx-04, xen-3,  kvm</vssd:VirtualSystemType></System>`, machine.Machine{HardwareVersion: "vmx-04 xen-3 kvm"}},
		{"CPUs and cores", rasd("1", "ResourceType=3", "VirtualQuantity=4", `<vmw:CoresPerSocket ovf:required="false">2</vmw:CoresPerSocket>`), machine.Machine{CPUs: 4, CoresPerSocket: 2}},
		{"a CPU without a number is one", rasd("1", "ResourceType=3"), machine.Machine{CPUs: 1}},
		{"memory in programmatic units", rasd("1", "ResourceType=4", "VirtualQuantity=2", "AllocationUnits=byte * 2^30"), machine.Machine{Memory: 2 << 30}},
		{"memory in words", rasd("1", "ResourceType=4", "VirtualQuantity=512", "AllocationUnits=MegaBytes"), machine.Machine{Memory: 512 << 20}},
		{"memory in MB", rasd("1", "ResourceType=4", "VirtualQuantity=512", "AllocationUnits=MB"), machine.Machine{Memory: 512 << 20}},
		{"memory without units is in megabytes", rasd("1", "ResourceType=4", "VirtualQuantity=512"), machine.Machine{Memory: 512 << 20}},
		{"memory without units that can only be bytes", rasd("1", "ResourceType=4", "VirtualQuantity=536870912"), machine.Machine{Memory: 512 << 20}},
		{"InstanceId of OVF 0.9", strings.ReplaceAll(rasd("1", "ResourceType=3"), "InstanceID", "InstanceId"), machine.Machine{CPUs: 1}},
		{"bounds are not values", rasd("1", "ResourceType=4", "VirtualQuantity=512") + rasd("1", "@bound=min", "ResourceType=4", "VirtualQuantity=256") + rasd("1", "@bound=max", "ResourceType=4", "VirtualQuantity=1024"), machine.Machine{Memory: 512 << 20}},
		{"disk before its controller", rasd("4", "ResourceType=17", "Parent=3", "AddressOnParent=2", "HostResource=ovf:/disk/a") + rasd("3", "ResourceType=6", "ResourceSubType=lsilogic"),
			machine.Machine{Controllers: []machine.Controller{scsi0}, Disks: []machine.Disk{on(a, 2)}}},
		{"disks without units are in order", rasd("3", "ResourceType=6", "ResourceSubType=someother, LsiLogic") + rasd("4", "ResourceType=17", "Parent=3", "HostResource=/disk/a") + rasd("5", "ResourceType=17", "Parent=3", "HostResource=disk/b"),
			machine.Machine{Controllers: []machine.Controller{scsi0}, Disks: []machine.Disk{a, {Name: "b", Capacity: 512, Controller: "scsi0", Bus: machine.SCSI, Unit: 1}}}},
		{"file as disk is the disk of the file", rasd("3", "ResourceType=6", "ResourceSubType=lsilogic") + rasd("4", "ResourceType=17", "Parent=3", "HostResource=ovf:/file/f"),
			machine.Machine{Controllers: []machine.Controller{scsi0}, Disks: []machine.Disk{a}}},
		{"disk on nothing", rasd("4", "ResourceType=17", "HostResource=ovf:/disk/b"), machine.Machine{Disks: []machine.Disk{b}}},
		{"SCSI controllers of all kinds", rasd("1", "ResourceType=6", "ResourceSubType=VirtualSCSI") + rasd("2", "ResourceType=6", "ResourceSubType= lsilogicsas ") + rasd("3", "ResourceType=6", "ResourceSubType=BusLogic") + rasd("4", "ResourceType=20", "ResourceSubType=VirtioSCSI"),
			machine.Machine{Controllers: []machine.Controller{{Name: "scsi0", Type: machine.SCSI, Model: machine.PVSCSI}, {Name: "scsi1", Type: machine.SCSI, Model: machine.LSILogicSAS, Number: 1}, {Name: "scsi2", Type: machine.SCSI, Model: machine.BusLogic, Number: 2}, {Name: "scsi3", Type: machine.SCSI, Model: machine.VirtioSCSI, Number: 3}}}},
		{"other buses", rasd("1", "ResourceType=20", "ResourceSubType=vmware.sata.ahci") + rasd("2", "ResourceType=20", "ResourceSubType=vmware.nvme.controller") + rasd("3", "ResourceType=23", "ResourceSubType=vmware.usb.xhci"),
			machine.Machine{Controllers: []machine.Controller{{Name: "sata0", Type: machine.SATA, Model: machine.AHCI}, {Name: "nvme0", Type: machine.NVMe}, {Name: "usb0", Type: machine.USB, Model: machine.XHCI}}}},
		{"addresses number controllers", ide("1", "1") + ide("2", "0"), machine.Machine{Controllers: []machine.Controller{{Name: "ide1", Type: machine.IDE, Number: 1}, {Name: "ide0", Type: machine.IDE}}}},
		{"one address twice", ide("1", "0") + ide("2", "0"), machine.Machine{Controllers: []machine.Controller{{Name: "ide0", Type: machine.IDE}, {Name: "ide1", Type: machine.IDE, Number: 1}}}},
		{"one IDE controller that is both channels", ide("1", "0") + cd("2", "1", "0") + cd("3", "1", "2"),
			machine.Machine{Controllers: []machine.Controller{{Name: "ide0", Type: machine.IDE}, {Name: "ide1", Type: machine.IDE, Number: 1}}, CDROMs: []machine.CDROM{{Controller: "ide0", Bus: machine.IDE}, {Controller: "ide1", Bus: machine.IDE}}}},
		{"two drives at one address", ide("1", "0") + cd("2", "1", "0") + cd("3", "1", "0"),
			machine.Machine{Controllers: []machine.Controller{{Name: "ide0", Type: machine.IDE}}, CDROMs: []machine.CDROM{{Controller: "ide0", Bus: machine.IDE}, {Controller: "ide0", Bus: machine.IDE, Unit: 1}}}},
		{"CD with an image", ide("1", "0") + rasd("2", "ResourceType=16", "ElementName=DVD", "Parent=1", "HostResource=ovf:/file/cd"),
			machine.Machine{Controllers: []machine.Controller{{Name: "ide0", Type: machine.IDE}}, CDROMs: []machine.CDROM{{Name: "DVD", Controller: "ide0", Bus: machine.IDE, File: "a.iso"}}}},
		{"network cards", rasd("1", "ResourceType=10", "ElementName=eth0", "ResourceSubType=VMXNET3 virtio", "Connection=red", "Address=00-16-8B-DB-00-5E") + rasd("2", "ResourceType=10", "ResourceSubType=Foo", "Connection=blue", "Address=7") + rasd("3", "ResourceType=10", "ResourceSubType=PCNet32"),
			machine.Machine{NICs: []machine.NIC{{Name: "eth0", Type: machine.VMXNET3, Network: "red", MAC: "00:16:8b:db:00:5e"}, {Type: "foo", Network: "blue"}, {Type: machine.PCnet}}}},
		{"graphics", rasd("1", "ResourceType=24", `<vmw:Config ovf:required="false" vmw:key="videoRamSizeInKB" vmw:value="4096"/>`, `<vmw:Config ovf:required="false" vmw:key="numDisplays" vmw:value="2"/>`), machine.Machine{Display: machine.Display{Memory: 4 << 20, Monitors: 2}}},
		{"firmware", `<vmw:Config ovf:required="false" vmw:key="firmware" vmw:value="efi"/><vmw:Config ovf:required="false" vmw:key="bootOptions.efiSecureBootEnabled" vmw:value="true"/>`, machine.Machine{Firmware: machine.UEFI, SecureBoot: true}},
		{"TPM", rasd("1", "ResourceType=1", "ResourceSubType=vmware.vtpm"), machine.Machine{TPM: machine.TPM20}},
		{"TPM of a type of its own", rasd("1", "ResourceType=34", "ResourceSubType=vmware.vtpm"), machine.Machine{TPM: machine.TPM20}},
		{"firmware as in a VMX", `<vmw:ExtraConfig ovf:required="false" vmw:key="firmware" vmw:value="efi"/>`, machine.Machine{Firmware: machine.UEFI}},
		{"variables of the firmware", `<vmw:ExtraConfig ovf:required="false" vmw:key="nvram" vmw:value="ovf:/file/nv"/>`, machine.Machine{NVRAM: "a.nvram"}},
		{"optional elements of others are skipped", `<x:y xmlns:x="urn:x" ovf:required="false"/>` + rasd("1", "ResourceType=3", `<x:y xmlns:x="urn:x" ovf:required="false"/>`), machine.Machine{CPUs: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, got := one(t, withHardware(test.hardware))
			got.ID, got.Unread = "", nil
			if len(got.Transport) == 0 {
				got.Transport = nil
			}
			if !reflect.DeepEqual(*got, test.want) {
				t.Errorf("got\n%+v, want\n%+v", *got, test.want)
			}
		})
	}
}

func TestParseUnread(t *testing.T) {
	for _, test := range []struct{ name, hardware, field, value string }{
		{"floppy", rasd("7", "ResourceType=14", "ElementName=Floppy 1"), "Item 7 (Floppy 1)", ""},
		{"sound", rasd("7", "ResourceType=1", "ResourceSubType=ensoniq1371"), "Item 7", "ensoniq1371"},
		{"serial port", rasd("7", "ResourceType=21"), "Item 7", ""},
		{"device that is not known", rasd("7", "@required=false", "ResourceType=89", "ResourceSubType=x"), "Item 7", "x"},
		{"reservation", rasd("7", "ResourceType=3", "Reservation=500"), "Item 7", "500"},
		{"drive without a disk", rasd("7", "ResourceType=17"), "Item 7", ""},
		{"setting", `<vmw:Config ovf:required="false" vmw:key="nestedHVEnabled" vmw:value="true"/>`, "vmw:Config nestedHVEnabled", "true"},
		{"lines of a VMX, without values", `<vmw:ExtraConfig vmw:key="guestinfo.password" vmw:value="secret"/><vmw:ExtraConfig vmw:key="a.b" vmw:value="c"/>`, "vmw:ExtraConfig", "guestinfo.password a.b"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, m := one(t, withHardware(test.hardware))
			if len(m.Unread) != 1 || m.Unread[0].Field != test.field || m.Unread[0].Value != test.value || m.Unread[0].Reason == "" {
				t.Errorf("Unread %+v; want %q of %q", m.Unread, test.field, test.value)
			}
		})
	}
}

// The order of boot devices in the manner of OVF 2.
func TestParseBootDevices(t *testing.T) {
	source := func(name, value string) string {
		return "<boots:CIM_BootSourceSetting><boots:" + name + ">" + value + "</boots:" + name + "></boots:CIM_BootSourceSetting>"
	}
	config := func(sources ...string) string {
		return `<bootc:CIM_BootConfigSetting xmlns:bootc="urn:c" xmlns:boots="urn:s"><bootc:Caption>x</bootc:Caption>` + strings.Join(sources, "") + `</bootc:CIM_BootConfigSetting>`
	}
	for _, test := range []struct {
		name, configs string
		want          []machine.BootDevice
		unread        string // its value
	}{
		{"CIM's words", config(source("StructuredBootString", "CIM:Network:1"), source("BootString", "CIM:CD/DVD:1"), source("InstanceID", "CIM:Hard-Disk:2"), source("StructuredBootString", "CIM:Floppy")),
			[]machine.BootDevice{machine.BootNetwork, machine.BootCDROM, machine.BootDisk, machine.BootFloppy}, "-"},
		{"Items", config(source("InstanceID", "5"), source("InstanceID", "4")), []machine.BootDevice{machine.BootCDROM, machine.BootDisk}, "-"},
		{"one kind twice", config(source("StructuredBootString", "CIM:Hard-Disk:1"), source("StructuredBootString", "CIM:Hard-Disk:2")), []machine.BootDevice{machine.BootDisk}, "-"},
		{"several orders", config(source("InstanceID", "4")) + config(source("InstanceID", "5")), []machine.BootDevice{machine.BootDisk}, ""},
		{"another kind", config(source("InstanceID", "4"), source("StructuredBootString", "CIM:USB:1")), nil, "CIM:USB:1"},
		{"no kind at all", config(source("Caption", "Fix-point DVD")), nil, "Fix-point DVD"},
		{"nothing", "", nil, "-"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, m := one(t, strings.Replace(withHardware(rasd("3", "ResourceType=6")+rasd("4", "ResourceType=17", "HostResource=ovf:/disk/b", "Parent=3")+rasd("5", "ResourceType=15")),
				"</VirtualSystem>", `<o2:BootDeviceSection xmlns:o2="`+namespace2+`"><o2:Info/>`+test.configs+`</o2:BootDeviceSection></VirtualSystem>`, 1))
			unread := "-"
			for _, l := range m.Unread {
				unread = l.Value
			}
			if !slices.Equal(m.BootOrder, test.want) || unread != test.unread {
				t.Errorf("%v, unread %v; want %v", m.BootOrder, m.Unread, test.want)
			}
		})
	}
}

// What products write that the schema does not have.
func TestParseTakes(t *testing.T) {
	for _, test := range []struct{ name, ovf string }{
		{"a size that is not known", strings.Replace(envelope(""), `ovf:id="f"`, `ovf:id="f" ovf:size="-2"`, 1)},
		{"an envelope in no namespace", strings.Replace(envelope(""), `xmlns="`+namespace1+`"`, "", 1)},
		{"items in the namespace of a draft", strings.ReplaceAll(withHardware(rasd("1", "ResourceType=3")), namespaceRASD, "http://schemas.dmtf.org/CIM_ResourceAllocationSettingData")},
	} {
		t.Run(test.name, func(t *testing.T) {
			if e, _ := one(t, test.ovf); len(e.Files) != 3 || e.Files[0].Size != -1 {
				t.Errorf("Files %+v", e.Files)
			}
		})
	}
}

// Sections of VMware's that need not say that they are optional.
func TestParseUnreadSections(t *testing.T) {
	for _, test := range []struct{ name, section, field string }{
		{"features of the CPU", `<vmw:CpuCompatibilitySection><Info/><vmw:Level vmw:level="1"/></vmw:CpuCompatibilitySection>`, "CpuCompatibilitySection"},
		{"a system that CIM has no number for", `<OperatingSystemSection ovf:id="-100" vmw:osType="other3xLinux64Guest"><Info/></OperatingSystemSection>`, "OperatingSystemSection"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, m := one(t, withSystem(test.section))
			if len(m.Unread) != 1 || m.Unread[0].Field != test.field || m.GuestOS.CIM != 0 {
				t.Errorf("Unread %+v, guest %+v; want %q", m.Unread, m.GuestOS, test.field)
			}
		})
	}
}

// What oVirt says beside OVF, and what is of its storage.
func TestParseOVirt(t *testing.T) {
	const head = `<ovf:Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1/" xmlns:xsi="` + namespaceXSI + `" xmlns:rasd="` + namespaceRASD + `" ovf:version="3.5.0.0"><References>` +
		`<File ovf:href="g/a" ovf:id="a"/><File ovf:href="g/b" ovf:id="b"/><File ovf:href="g/c" ovf:id="c"/><File ovf:href="lun" ovf:id="lun" ovf:disk_storage_type="LUN"/></References><Section xsi:type="ovf:DiskSection_Type">` +
		`<Disk ovf:diskId="a" ovf:size="1" ovf:fileRef="g/a" ovf:volume-format="RAW" ovf:disk-interface="IDE"/><Disk ovf:diskId="b" ovf:size="2" ovf:fileRef="g/b" ovf:disk-interface="IDE"/>` +
		`<Disk ovf:diskId="c" ovf:size="3" ovf:fileRef="g/c" ovf:disk-interface="IDE"/><Disk ovf:diskId="lun" ovf:fileRef="lun" ovf:lun_id="36001405" ovf:disk-interface="VirtIO_SCSI"/></Section>`
	item := func(id, kind string, words ...string) string {
		return strings.ReplaceAll(rasd(id, append(words, "ResourceType="+kind)...), "InstanceID", "InstanceId")
	}
	disk := func(id string) string { return item(id, "17", "HostResource=g/"+id) }
	e, m := one(t, head+`<Content ovf:id="out" xsi:type="ovf:VirtualSystem_Type"><Name>n</Name><Description>d</Description><BiosType>1</BiosType><default_boot_sequence>7</default_boot_sequence>`+
		`<Section xsi:type="ovf:VirtualHardwareSection_Type"><Info/>`+disk("a")+disk("b")+disk("c")+disk("lun")+
		item("1", "10", "ResourceSubType=5")+item("2", "0", `<Type>sound</Type><Device>ich6</Device>`)+item("3", "0", `<Type>balloon</Type>`)+
		item("4", "20", `<Type>video</Type><Device>qxl</Device>`, "VirtualQuantity=2")+item("5", "23", "UsbPolicy=DISABLED")+
		`</Section><Section xsi:type="ovf:SnapshotsSection_Type"/></Content></ovf:Envelope>`)
	want := machine.Machine{
		ID: "out", Name: "n", Description: "d", Firmware: machine.BIOS,
		Controllers: []machine.Controller{{Name: "ide0", Type: machine.IDE}, {Name: "ide1", Type: machine.IDE, Number: 1}},
		Disks: []machine.Disk{
			{Name: "a", Controller: "ide0", Bus: machine.IDE, Capacity: 1 << 30, Format: "raw", File: "g/a"},
			{Name: "b", Controller: "ide0", Bus: machine.IDE, Unit: 1, Capacity: 2 << 30, File: "g/b"},
			{Name: "c", Controller: "ide1", Bus: machine.IDE, Capacity: 3 << 30, File: "g/c"},
		},
		NICs:      []machine.NIC{{Type: "sriov"}},
		Display:   machine.Display{Type: "qxl", Monitors: 2},
		BootOrder: []machine.BootDevice{machine.BootNetwork, machine.BootDisk, machine.BootCDROM},
	}
	var unread []string
	for _, l := range append(e.Unread, m.Unread...) {
		unread = append(unread, l.Field+"="+l.Value)
	}
	if want := []string{"Disk lun=", "SnapshotsSection=" + namespace1 + "/", "Item 1=5", "Item 2=sound ich6"}; !slices.Equal(unread, want) {
		t.Errorf("Unread %q, want %q", unread, want)
	}
	if m.Unread, m.Transport = nil, nil; !reflect.DeepEqual(*m, want) {
		t.Errorf("got\n%+v, want\n%+v", *m, want)
	}
	if len(e.Files) != 3 {
		t.Errorf("Files %+v; want those of the package", e.Files)
	}

	// One controller of Items, and one that disks stand for.
	_, m = one(t, strings.Replace(strings.Replace(withHardware(rasd("1", "ResourceType=6", "ResourceSubType=virtio-scsi")+rasd("2", "ResourceType=17", "HostResource=ovf:/disk/a")+rasd("3", "ResourceType=17", "Parent=1", "HostResource=ovf:/disk/b")),
		`<Envelope `, `<Envelope xmlns:ovirt="`+namespaceOVirt+`" `, 1), ` ovf:diskId="a"`, ` ovf:diskId="a" ovf:disk-interface="VirtIO_SCSI"`, 1))
	if len(m.Disks) != 2 || m.Disks[1].Controller != "scsi0" || m.Disks[0].Controller != "scsi1" {
		t.Errorf("disks %+v", m.Disks)
	}
}

func TestParseConfiguration(t *testing.T) {
	options := `<DeploymentOptionSection><Info/><Configuration ovf:id="small"/><Configuration ovf:id="big" ovf:default="true"/></DeploymentOptionSection>`
	doc := strings.Replace(withHardware(rasd("1", "ResourceType=3", "VirtualQuantity=1")+
		rasd("1", "@configuration=small big", "ResourceType=3", "VirtualQuantity=2")+
		rasd("1", "@configuration=big", "ResourceType=3", "VirtualQuantity=4")+
		rasd("2", "@configuration=small", "ResourceType=4", "VirtualQuantity=4")), "<NetworkSection>", options+"<NetworkSection>", 1)
	e, m := one(t, doc)
	if m.CPUs != 4 || m.Memory != 0 {
		t.Errorf("%d CPUs, memory %d; want those of the default configuration", m.CPUs, m.Memory)
	}
	if len(e.Unread) != 1 || e.Unread[0].Value != "small" {
		t.Errorf("Unread %+v", e.Unread)
	}
	_, m = one(t, strings.Replace(doc, ` ovf:default="true"`, "", 1))
	if m.CPUs != 2 || m.Memory != 4<<20 {
		t.Errorf("%d CPUs, memory %d; want those of the first configuration", m.CPUs, m.Memory)
	}
}

func TestParseHardwareForSeveral(t *testing.T) {
	vhs := func(system, cpus string) string {
		return `<VirtualHardwareSection><Info/><System><vssd:VirtualSystemType>` + system + `</vssd:VirtualSystemType></System>` + rasd("1", "ResourceType=3", "VirtualQuantity="+cpus) + `</VirtualHardwareSection>`
	}
	_, m := one(t, `<Envelope `+spaces+`><VirtualSystem ovf:id="vm"><Info/>`+vhs("xen-3", "1")+vhs("vmx-13", "2")+vhs("vmx-19", "4")+`</VirtualSystem></Envelope>`)
	if m.HardwareVersion != "vmx-13" || m.CPUs != 2 || len(m.Unread) != 2 {
		t.Errorf("%q, %d CPUs, unread %+v", m.HardwareVersion, m.CPUs, m.Unread)
	}
}

func TestParseProduct(t *testing.T) {
	_, m := one(t, strings.Replace(withSystem(`<AnnotationSection><Info/><Annotation ovf:msgid="note"/></AnnotationSection>`+
		`<OperatingSystemSection ovf:id="96" ovf:version="12" vmw:osType="debian12_64Guest"><Info/><Description>Debian</Description><vbox:OSType ovf:required="false">Debian12_64</vbox:OSType></OperatingSystemSection>`+
		`<EulaSection><Info/><License xml:lang="da">nej</License><License xml:lang="en-US">no</License></EulaSection>`+
		`<ProductSection><Info/><Product>P</Product><Vendor>V</Vendor><Version>1</Version><Category>Net</Category>`+
		`<Property ovf:key="ip" ovf:type="string" ovf:userConfigurable="true" ovf:value="1.2.3.4"><Label>IP</Label><Description>address</Description></Property>`+
		`<Property ovf:key="pw" ovf:type="string" ovf:password="true" ovf:value=" secret "/></ProductSection>`+
		`<ProductSection ovf:class="c" ovf:instance="1"><Info/><Product>Q</Product><Property ovf:key="n" ovf:type="uint8" ovf:qualifiers="MinValue(1)"/></ProductSection>`),
		"</Envelope>", `<Strings xml:lang="en-us"><Msg ovf:msgid="note">a note</Msg></Strings><Strings xml:lang="da"><Msg ovf:msgid="note">en note</Msg></Strings></Envelope>`, 1))
	if m.Description != "a note" {
		t.Errorf("Description %q", m.Description)
	}
	if want := (machine.GuestOS{CIM: 96, Version: "12", VMware: "debian12_64Guest", VirtualBox: "Debian12_64", Description: "Debian"}); m.GuestOS != want {
		t.Errorf("GuestOS %+v", m.GuestOS)
	}
	if !slices.Equal(m.EULAs, []string{"no"}) {
		t.Errorf("EULAs %q", m.EULAs)
	}
	if want := (machine.Product{Name: "P", Vendor: "V", Version: "1"}); m.Product != want {
		t.Errorf("Product %+v", m.Product)
	}
	want := []machine.Property{
		{Key: "ip", Type: "string", Value: "1.2.3.4", Label: "IP", Description: "address", Category: "Net", UserConfigurable: true},
		{Key: "pw", Type: "string", Value: " secret ", Category: "Net", Password: true},
		{Class: "c", Instance: "1", Key: "n", Type: "uint8", Qualifiers: "MinValue(1)"},
	}
	if !slices.Equal(m.Properties, want) {
		t.Errorf("Properties\n%+v, want\n%+v", m.Properties, want)
	}
	if len(m.Unread) != 1 || m.Unread[0].Field != "ProductSection" {
		t.Errorf("Unread %+v", m.Unread)
	}
}

func TestParseCapacityOfProperty(t *testing.T) {
	doc := strings.Replace(withHardware(""), `ovf:capacity="512"`, `ovf:capacity="${size}" ovf:capacityAllocationUnits="byte * 2^30"`, 1)
	product := func(value string) string {
		return strings.Replace(doc, "<VirtualHardware", `<ProductSection><Info/><Property ovf:key="size" ovf:type="uint32" ovf:value="`+value+`"/></ProductSection><VirtualHardware`, 1)
	}
	if e, _ := one(t, product("20")); e.Disks[1].Capacity != 20<<30 {
		t.Errorf("disk %+v", e.Disks[1])
	}
	if e, err := Parse([]byte(product("much"))); !errors.Is(err, machine.ErrMalformed) {
		t.Errorf("capacity of a property that is no number: %+v, %v", e, err)
	}
}

func TestParseCollection(t *testing.T) {
	vm := func(id string) string {
		return strings.ReplaceAll(system1(rasd("1", "ResourceType=3")), `"vm"`, `"`+id+`"`)
	}
	e, err := Parse([]byte(`<Envelope ` + spaces + `><VirtualSystemCollection ovf:id="c"><Info/><Name>All</Name>` +
		`<ProductSection><Info/><Product>P</Product><Property ovf:key="k" ovf:type="string"/></ProductSection>` +
		`<StartupSection><Info/><Item ovf:id="c" ovf:order="1"/><Item ovf:id="d" ovf:order="0"/></StartupSection>` +
		vm("c") + `<VirtualSystemCollection ovf:id="d"><Info/>` + vm("b") + `</VirtualSystemCollection></VirtualSystemCollection></Envelope>`))
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Machines) != 2 || e.Machines[0].ID != "c" || e.Machines[1].ID != "b" || e.Machines[1].CPUs != 1 {
		t.Errorf("machines %+v", e.Machines)
	}
	if e.ID != "c" || e.Name != "All" || e.Product == nil || e.Product.Name != "P" || len(e.Properties) != 1 {
		t.Errorf("collection %+v", e)
	}
	if len(e.Unread) != 1 || e.Unread[0].Value != "c 1" {
		t.Errorf("Unread %+v", e.Unread)
	}
}

// OVF 0.9 has sections that say what they are by xsi:type, elements without a
// namespace and any prefix.
func TestParse09(t *testing.T) {
	e, m := one(t, `<o:Envelope xmlns:o="`+namespace09+`" xmlns:xsi="`+namespaceXSI+`" xmlns:r="`+namespaceRASD+`" o:version="0.9">`+
		`<References><File o:id="f" o:href="f.vmdk" o:size="7" o:chunkSize="5" o:compression="gzip"/></References>`+
		`<Section xsi:type="ovf:DiskSection_Type"><Info/><Disk o:diskId="d" o:fileRef="f" o:capacity="1" o:format="http://www.vmware.com/specifications/vmdk.html#sparse"/></Section>`+
		`<Content xsi:type="o:VirtualSystem_Type" o:id="vm"><Info/><Section xsi:type="o:VirtualHardwareSection_Type"><Info/>`+
		`<Item><r:InstanceId>1</r:InstanceId><r:ResourceType>6</r:ResourceType><r:ResourceSubType>lsilogic</r:ResourceSubType><r:BusNumber>1</r:BusNumber></Item>`+
		`<Item><r:Caption>Disk</r:Caption><r:InstanceId>2</r:InstanceId><r:ResourceType>17</r:ResourceType><r:HostResource>disk/d</r:HostResource><r:Parent>1</r:Parent></Item>`+
		`</Section></Content></o:Envelope>`)
	if want := (machine.File{ID: "f", Name: "f.vmdk", Size: 7, ChunkSize: 5, Compression: "gzip"}); len(e.Files) != 1 || e.Files[0] != want {
		t.Errorf("files %+v", e.Files)
	}
	if want := (machine.Disk{Name: "d", Controller: "scsi1", Bus: machine.SCSI, Capacity: 1, Format: "vmdk", File: "f.vmdk"}); len(m.Disks) != 1 || m.Disks[0] != want {
		t.Errorf("disks %+v", m.Disks)
	}
}

func TestParseVirtualBox(t *testing.T) {
	_, m := one(t, strings.Replace(envelope(""), "</VirtualSystem>", `<vbox:Machine ovf:required="false"><ovf:Info/><Hardware><Firmware type="EFI"/><TrustedPlatformModule type="v2_0"/>`+
		`<Boot><Order position="1" device="DVD"/><Order position="2" device="HardDisk"/></Boot><Display controller="VMSVGA" VRAMSize="16"/></Hardware></vbox:Machine></VirtualSystem>`, 1))
	if m.Firmware != machine.UEFI || m.TPM != machine.TPM20 || len(m.Unread) != 0 {
		t.Errorf("firmware %q, TPM %q, unread %+v", m.Firmware, m.TPM, m.Unread)
	}
	if want := []machine.BootDevice{machine.BootCDROM, machine.BootDisk}; !slices.Equal(m.BootOrder, want) {
		t.Errorf("boot order %q", m.BootOrder)
	}
	if want := (machine.Display{Type: "vmsvga", Memory: 16 << 20}); m.Display != want {
		t.Errorf("display %+v", m.Display)
	}
}

// What is read of an OVF has references that hold, and can be written, and is
// then read as the same.
func FuzzParse(f *testing.F) {
	paths, err := filepath.Glob("../../testdata/machines/*.ovf")
	if err != nil || len(paths) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add(Bare([]machine.Disk{{Name: "disk0", Capacity: 16384}}))
	f.Add([]byte(envelope(`<Disk ovf:diskId="a&#10;" ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2^30"/>`)))
	f.Add([]byte(withHardware(rasd("3", "ResourceType=6") + rasd("4", "ResourceType=17", "Parent=3", "HostResource=ovf:/disk/a") + rasd("5", "ResourceType=10", "Connection=red"))))
	f.Add([]byte(withSystem(`<ProductSection><Info/><Property ovf:key="k" ovf:type="string"/></ProductSection>`)))
	f.Add([]byte(`<!DOCTYPE e [<!ENTITY x "1">]>` + envelope("&x;")))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Parse(data)
		if err != nil {
			if !errors.Is(err, machine.ErrMalformed) && !errors.Is(err, machine.ErrUnsupported) {
				t.Errorf("%v is of no kind", err)
			}
			return
		}
		if fault := check(e); fault != "" {
			t.Error(fault)
		}
		for _, f := range e.Files {
			if uriOf(f.Name) != f.Name {
				return // is written as another
			}
		}
		if _, err := fixed(e, targets...); err != nil {
			t.Error(err)
		}
	})
}

// check returns what does not hold in an envelope.
func check(e *machine.Envelope) string {
	disks, files := make(map[string]bool), make(map[string]bool)
	for _, f := range e.Files {
		files[f.Name] = true
	}
	for _, d := range e.Disks {
		if disks[d.Name] || d.Controller != "" || d.File != "" && !files[d.File] {
			return "disk " + d.Name
		}
		disks[d.Name] = true
	}
	for _, m := range e.Machines {
		controllers, units := make(map[string]bool), make(map[string]bool)
		for _, c := range m.Controllers {
			if controllers[c.Name] {
				return "two controllers " + c.Name
			}
			controllers[c.Name] = true
		}
		at := func(controller string, unit int) bool {
			key := controller + string(rune('0'+unit))
			ok := controller == "" || controllers[controller] && !units[key]
			units[key] = controller != ""
			return ok
		}
		for _, d := range m.Disks {
			if !disks[d.Name] || !at(d.Controller, d.Unit) {
				return "attached disk " + d.Name
			}
		}
		for _, cd := range m.CDROMs {
			if cd.File != "" && !files[cd.File] || !at(cd.Controller, cd.Unit) {
				return "CD drive " + cd.Name
			}
		}
		if m.CPUs < 0 || m.Memory < 0 || m.Memory > machine.MaxMemory {
			return "machine " + m.ID
		}
	}
	return ""
}
