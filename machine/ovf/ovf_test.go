package ovf

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/internal/programs"
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
	got := string(Bare([]machine.Disk{{Name: "disk0", Capacity: 16384}}))
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
		e, err := Parse(want)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		disks := e.Disks
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
	xmllint := programs.Need(t, "xmllint")
	for _, disks := range [][]machine.Disk{
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
