package ovf

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
)

// As the generator of testdata/vectors writes it, which is not this code.
const oneDisk = `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References>
    <File ovf:id="file0" ovf:href="disk0.img"/>
  </References>
  <DiskSection>
    <Info>Virtual disks</Info>
    <Disk ovf:diskId="disk0" ovf:fileRef="file0" ovf:capacity="16384" ovf:format="https://github.com/davit-oci/davit#disk"/>
  </DiskSection>
`

func TestBareBytes(t *testing.T) {
	got := string(Bare([]Disk{{Name: "disk0", Capacity: 16384}}))
	if !strings.HasPrefix(got, oneDisk) {
		t.Errorf("Bare begins with\n%s", got[:min(len(got), len(oneDisk))])
	}
	// The config of a vector: "size":1899 in testdata/vectors, for a disk of five digits and one that is called disk0.
	if len(got) != 1899 {
		t.Errorf("Bare has %d bytes, want 1899", len(got))
	}
}

// The vectors were made by another program: each config in them that names a bare disk is what Bare writes.
func TestBareVectors(t *testing.T) {
	files, err := filepath.Glob("../../testdata/vectors/ok-*.vec")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	var checked int
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		start := strings.Index(string(data), `<?xml version="1.0" encoding="UTF-8"?>`+"\n<Envelope")
		end := strings.LastIndex(string(data), "</Envelope>\n")
		if start < 0 || end < start {
			continue
		}
		want := data[start : end+len("</Envelope>\n")]
		disks, err := Disks(want)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if len(disks) == 0 {
			continue
		}
		checked++
		if got := Bare(disks); string(got) != string(want) {
			t.Errorf("%s: Bare(%v) is\n%s\nwant\n%s", file, disks, got, want)
		}
	}
	if checked == 0 {
		t.Error("no vector has the OVF of a bare disk")
	}
}

func TestBareValidates(t *testing.T) {
	xmllint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("xmllint is missing: apt-get install libxml2-utils runs this test")
	}
	for _, disks := range [][]Disk{
		{{Name: "disk0", Capacity: 16384}},
		{{Name: "disk0"}, {Name: "data.1", Capacity: 1 << 57}, {Name: "A_b-c", Capacity: 513}},
	} {
		path := filepath.Join(t.TempDir(), "vm.ovf")
		if err := os.WriteFile(path, Bare(disks), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), xmllint, "--nonet", "--noout",
			"--schema", "../../testdata/schema/dsp8023_1.1.1.xsd", path).CombinedOutput()
		if err != nil {
			t.Errorf("OVF of %v: %v\n%s", disks, err, out)
		}
	}
}

// envelope is an OVF with the given content of its DiskSection.
func envelope(disks string) string {
	return `<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">` +
		`<DiskSection><Info>x</Info>` + disks + `</DiskSection></Envelope>`
}

func TestDisks(t *testing.T) {
	for _, test := range []struct {
		name string
		ovf  string
		want []Disk
	}{
		{"no disk", envelope(``), nil},
		{"bytes", envelope(`<Disk ovf:diskId="a" ovf:fileRef="f" ovf:capacity="513"/>`), []Disk{{"a", 513, "f"}}},
		{"blank disk", envelope(`<Disk ovf:diskId="a" ovf:capacity="1"/>`), []Disk{{"a", 1, ""}}},
		{"order is kept", envelope(`<Disk ovf:diskId="b" ovf:capacity="1"/><Disk ovf:diskId="a" ovf:capacity="2"/>`), []Disk{{"b", 1, ""}, {"a", 2, ""}}},
		{"binary units", envelope(`<Disk ovf:diskId="a" ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2^30"/>`), []Disk{{"a", 8 << 30, ""}}},
		{"units without spaces", envelope(`<Disk ovf:diskId="a" ovf:capacity="8" ovf:capacityAllocationUnits="byte*2^20"/>`), []Disk{{"a", 8 << 20, ""}}},
		{"decimal units", envelope(`<Disk ovf:diskId="a" ovf:capacity="8" ovf:capacityAllocationUnits="byte * 10^9"/>`), []Disk{{"a", 8e9, ""}}},
		{"units of several factors", envelope(`<Disk ovf:diskId="a" ovf:capacity="8" ovf:capacityAllocationUnits="byte * 1024 * 2^10"/>`), []Disk{{"a", 8 << 20, ""}}},
		{"largest", envelope(`<Disk ovf:diskId="a" ovf:capacity="268435456" ovf:capacityAllocationUnits="byte * 2^30"/>`), []Disk{{"a", 1 << 58, ""}}},
		{"predefined entity", envelope(`<Disk ovf:diskId="a&amp;&#98;" ovf:capacity="1"/>`), []Disk{{"a&b", 1, ""}}},
		{"OVF 2", strings.ReplaceAll(envelope(`<Disk ovf:diskId="a" ovf:capacity="1"/>`), "envelope/1", "envelope/2"), []Disk{{"a", 1, ""}}},
		{"attributes of others are skipped", envelope(`<Disk ovf:diskId="a" ovf:capacity="1" capacity="2" xmlns:x="urn:x" x:capacity="3"/>`), []Disk{{"a", 1, ""}}},
		{"a Disk of others is no disk", envelope(`<x:Disk xmlns:x="urn:x" ovf:diskId="b"/><Disk ovf:diskId="a" ovf:capacity="1"><Disk/></Disk>`), []Disk{{"a", 1, ""}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := Disks([]byte(test.ovf))
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("Disks = %v, %v; want %v", got, err, test.want)
			}
		})
	}
}

func TestDisksRefuses(t *testing.T) {
	one := `<Disk ovf:diskId="a" ovf:capacity="1"/>`
	disk := func(attrs string) string { return envelope(`<Disk ` + attrs + `/>`) }
	for _, test := range []struct{ name, ovf string }{
		{"nothing", ""},
		{"no XML", "DAVITIX1"},
		{"cut short", envelope(one)[:100]},
		{"another document", "<html/>"},
		{"no namespace", "<Envelope/>"},
		{"document type", `<!DOCTYPE Envelope>` + envelope(one)},
		{"entity", `<!DOCTYPE e [<!ENTITY x "1">]>` + envelope(disk(`ovf:diskId="a" ovf:capacity="&x;"`))},
		{"unknown entity", disk(`ovf:diskId="a&x;" ovf:capacity="1"`)},
		{"other encoding", `<?xml version="1.0" encoding="ISO-8859-1"?>` + envelope(one)},
		{"two documents", envelope(one) + envelope("")},
		{"text after the end", envelope(one) + "x"},
		{"depth", envelope(strings.Repeat("<a>", maxDepth) + strings.Repeat("</a>", maxDepth))},
		{"size", envelope(strings.Repeat(" ", maxOVF))},
		{"too many disks", envelope(strings.Join(manyDisks(maxDisks+1), ""))},
		{"two disks of one name", envelope(one + one)},
		{"one attribute twice", disk(`ovf:diskId="a" ovf:diskId="b" ovf:capacity="1"`)},
		{"no name", disk(`ovf:capacity="1"`)},
		{"no capacity", disk(`ovf:diskId="a"`)},
		{"capacity that is a property", disk(`ovf:diskId="a" ovf:capacity="${size}"`)},
		{"signed capacity", disk(`ovf:diskId="a" ovf:capacity="+1"`)},
		{"negative capacity", disk(`ovf:diskId="a" ovf:capacity="-1"`)},
		{"huge capacity", disk(`ovf:diskId="a" ovf:capacity="99999999999999999999"`)},
		{"capacity over 2^58", disk(`ovf:diskId="a" ovf:capacity="288230376151711745"`)},
		{"capacity that overflows", disk(`ovf:diskId="a" ovf:capacity="17179869185" ovf:capacityAllocationUnits="byte * 2^30"`)},
		{"units that overflow", disk(`ovf:diskId="a" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^64"`)},
		{"units of 0", disk(`ovf:diskId="a" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 0"`)},
		{"units that are none", disk(`ovf:diskId="a" ovf:capacity="1" ovf:capacityAllocationUnits="furlong"`)},
		{"empty units", disk(`ovf:diskId="a" ovf:capacity="1" ovf:capacityAllocationUnits=""`)},
		{"units of an unknown form", disk(`ovf:diskId="a" ovf:capacity="1" ovf:capacityAllocationUnits="byte / 2"`)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := Disks([]byte(test.ovf)); !errors.Is(err, machine.ErrMalformed) || got != nil {
				t.Errorf("Disks = %v, %v; want ErrMalformed", got, err)
			}
		})
	}
}

func manyDisks(n int) []string {
	disks := make([]string, n)
	for i := range disks {
		disks[i] = `<Disk ovf:diskId="` + strings.Repeat("a", i+1) + `" ovf:capacity="1"/>`
	}
	return disks
}

// What was read can be written, and is then read as the same.
func FuzzDisks(f *testing.F) {
	f.Add(Bare([]Disk{{Name: "disk0", Capacity: 16384}}))
	f.Add(Bare([]Disk{{Name: "a"}, {Name: "b", Capacity: 1 << 58}}))
	f.Add([]byte(envelope(`<Disk ovf:diskId="a&#10;" ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2^30"/>`)))
	f.Add([]byte(`<!DOCTYPE e [<!ENTITY x "1">]>` + envelope("&x;")))
	f.Fuzz(func(t *testing.T, ovf []byte) {
		disks, err := Disks(ovf)
		if err != nil || len(disks) == 0 {
			return
		}
		again, err := Disks(Bare(disks))
		if err != nil {
			t.Fatalf("reading back %+v: %v", disks, err)
		}
		for i := range again {
			again[i].FileRef = disks[i].FileRef
		}
		if !slices.Equal(again, disks) {
			t.Errorf("read %+v, and from what was written %+v", disks, again)
		}
	})
}
