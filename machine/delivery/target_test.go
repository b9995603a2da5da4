package delivery

import (
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/machine"
)

// twoDisks is a machine with a disk in a file, a blank one and CDs, one of
// which is on the host that the machine comes from.
func twoDisks() *machine.Envelope {
	disks := []machine.Disk{{Name: "root", Capacity: 1 << 30, Format: "vmdk", File: "/vm/root.vmdk", Parent: "base"}, {Name: "../data", Capacity: 1 << 20}}
	attached := []machine.Disk{disks[1], disks[0]}
	for i := range attached {
		attached[i].Controller, attached[i].Bus, attached[i].Unit = "sata0", machine.SATA, i
	}
	return &machine.Envelope{
		Disks: disks,
		Files: []machine.File{{ID: "a", Name: "/vm/root.vmdk", Size: 5}, {ID: "b", Name: "tools.iso", Size: 6}},
		Machines: []*machine.Machine{{
			ID: "vm", Name: "a machine", CPUs: 1, Memory: 1 << 30,
			Controllers: []machine.Controller{{Name: "sata0", Type: machine.SATA, Model: machine.AHCI}},
			Disks:       attached,
			CDROMs: []machine.CDROM{
				{Name: "cd0", Controller: "sata0", Bus: machine.SATA, Unit: 2, File: "tools.iso"},
				{Name: "cd1", Controller: "sata0", Bus: machine.SATA, Unit: 3, File: `C:\isos\secret.iso`},
				{Name: "cd2", Controller: "sata0", Bus: machine.SATA, Unit: 4, File: "tools.iso"},
			},
			NVRAM: "../vm.nvram",
		}},
	}
}

func TestPlace(t *testing.T) {
	for _, target := range targets {
		e := twoDisks()
		placed, losses := target.Place(e)
		if !reflect.DeepEqual(e, twoDisks()) {
			t.Fatalf("%s: the envelope has changed", target.Name)
		}
		root := "root" + target.Disks.Ext()
		data := "disk1" + target.Disks.Ext() // since a path is no name
		files := []machine.File{{ID: "file0", Name: root, Size: -1}, {ID: "file1", Name: data, Size: -1}, {ID: "file2", Name: "tools.iso", Size: -1}}
		dataFormat := string(target.Disks)
		if target.Blank {
			data, dataFormat = "", ""
			files = []machine.File{{ID: "file0", Name: root, Size: -1}, {ID: "file1", Name: "tools.iso", Size: -1}}
		}
		m := placed.Machines[0]
		for _, d := range []machine.Disk{placed.Disks[0], m.Disks[1]} {
			if d.File != root || d.Format != string(target.Disks) || d.Parent != "" {
				t.Errorf("%s: root is %+v", target.Name, d)
			}
		}
		for _, d := range []machine.Disk{placed.Disks[1], m.Disks[0]} {
			if d.File != data || d.Format != dataFormat {
				t.Errorf("%s: data is %+v", target.Name, d)
			}
		}
		if !reflect.DeepEqual(placed.Files, files) {
			t.Errorf("%s: files are %+v, want %+v", target.Name, placed.Files, files)
		}
		if m.CDROMs[0].File != "tools.iso" || m.CDROMs[1].File != "" || m.CDROMs[2].File != "tools.iso" || m.NVRAM != "" {
			t.Errorf("%s: CDs %+v, variables %q", target.Name, m.CDROMs, m.NVRAM)
		}
		const why = "it lies somewhere else than the descriptor"
		want := []machine.Loss{{Field: "cdroms[1].file", Value: "secret.iso", Reason: why}, {Field: "nvram", Value: "vm.nvram", Reason: why}}
		if !reflect.DeepEqual(losses, want) {
			t.Errorf("%s: losses %+v", target.Name, losses)
		}
	}
}

// A disk does not take the name of another file.
func TestPlaceBesideFilesOfThatName(t *testing.T) {
	for _, target := range targets {
		e := twoDisks()
		cd := "ROOT" + target.Disks.Ext()
		e.Machines[0].CDROMs[0].File = cd
		placed, _ := target.Place(e)
		if got, want := placed.Disks[0].File, "disk0"+target.Disks.Ext(); got != want || placed.Machines[0].CDROMs[0].File != cd {
			t.Errorf("%s: the disk is in %s, and the CD in %s", target.Name, got, placed.Machines[0].CDROMs[0].File)
		}
	}
}

// Every target writes a descriptor, which names no file of the host.
func TestDescribe(t *testing.T) {
	for _, target := range targets {
		placed, _ := target.Place(twoDisks())
		files, _, err := target.Describe(placed, "/somewhere")
		if err != nil {
			t.Errorf("%s: %v", target.Name, err)
			continue
		}
		if len(files) != 1 || files[0].Name != "a-machine"+target.Ext {
			t.Errorf("%s: %d files, %+v", target.Name, len(files), files)
		}
		text := string(files[0].Data)
		if !strings.Contains(text, "root"+target.Disks.Ext()) || strings.Contains(text, "secret") || strings.Contains(text, "/vm/") {
			t.Errorf("%s: the descriptor is\n%s", target.Name, text)
		}
	}
}

// Machines of one name get files of their own, and losses that say whose they are.
func TestDescribeSeveral(t *testing.T) {
	e := &machine.Envelope{ID: "all"}
	for i, name := range []string{"web", "WEB", "../web", "vm3", "nul", ""} {
		e.Machines = append(e.Machines, &machine.Machine{
			ID: fmt.Sprint("m", i), Name: name, CPUs: 1, Memory: 1 << 30, EULAs: []string{"You may."},
		})
	}
	files, losses, err := Find("vmware").Describe(e, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	taken := make(map[string]bool)
	for _, f := range files {
		if lower := strings.ToLower(f.Name); taken[lower] || !machine.IsPlainName(f.Name) || filepath.Ext(f.Name) != ".vmx" {
			t.Errorf("file %q of %+v", f.Name, files)
		} else {
			taken[lower] = true
		}
	}
	if len(files) != len(e.Machines) || len(losses) < len(e.Machines) {
		t.Fatalf("%d files, losses %+v", len(files), losses)
	}
	if last := losses[len(losses)-1].Field; !strings.HasPrefix(last, "machines[5].") {
		t.Errorf("the last loss is of %s", last)
	}
}

// No two names are one on any file system.
func TestUniqueNames(t *testing.T) {
	var u uniqueNames
	for i, test := range []struct{ name, want string }{
		{"root", "root"}, {"ROOT", "disk1"}, {"disk3", "disk3"}, {"../x", "disk4"}, {"con", "_con"}, {"", "disk5"}, {"disk5", "disk6"},
	} {
		if got := u.disk(test.name, i); got != test.want {
			t.Errorf("%q is %q, want %q", test.name, got, test.want)
		}
	}
}

func TestTargets(t *testing.T) {
	for _, target := range Targets() {
		if found := Find(target.Name); found != target {
			t.Errorf("%s is not found", target.Name)
		}
		if _, err := disk.ParseFormat(target.Name); err == nil {
			t.Errorf("%s is a format of disks as well", target.Name)
		}
	}
	if Find("qcow2") != nil {
		t.Error("qcow2 is a target")
	}
}
