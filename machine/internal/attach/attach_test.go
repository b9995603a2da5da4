package attach

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
)

// scsi is a controller of SCSI that is at number n of a machine, and so on.
func scsi(n int, model machine.ControllerModel) Controller {
	return Controller{Controller: machine.Controller{Name: fmt.Sprint("scsi", n), Type: machine.SCSI, Model: model, Number: n}}
}

func other(bus machine.Bus, n int) Controller {
	return Controller{Controller: machine.Controller{Name: fmt.Sprint(bus, n), Type: bus, Number: n}}
}

// on is a drive at unit of a controller.
func on(c Controller, unit int) *Drive {
	return &Drive{Controller: c.Name, Bus: c.Type, Unit: unit}
}

// full are the drives of a controller from unit 0 on.
func full(c Controller, n int) (drives []*Drive) {
	for unit := range n {
		drives = append(drives, on(c, unit))
	}
	return drives
}

func TestAttach(t *testing.T) {
	bios, uefi := VirtualBox(machine.BIOS), VirtualBox(machine.UEFI)
	vmware := VMware(machine.PVSCSI)
	lsi0, lsi1, pv, virtio, sas := scsi(0, machine.LSILogic), scsi(1, machine.LSILogic), scsi(0, machine.PVSCSI), scsi(0, machine.VirtioSCSI), scsi(1, machine.LSILogicSAS)
	sata0, sata1, nvme0, nvme1 := other(machine.SATA, 0), other(machine.SATA, 1), other(machine.NVMe, 0), other(machine.NVMe, 1)
	ide0, ide1, ide2 := other(machine.IDE, 0), other(machine.IDE, 1), other(machine.IDE, 2)
	onVirtio, onUSB, nowhere := &Drive{Bus: machine.Virtio}, &Drive{Bus: machine.USB}, &Drive{}
	cd := func(d Drive) *Drive { d.CD = true; return &d }
	for _, test := range []struct {
		name        string
		target      *Target
		controllers []Controller
		drives      []*Drive // disks, then CD drives
		want        string   // places
		losses      []string
	}{
		{"all is where it was", bios, []Controller{lsi0, sata0, ide0}, []*Drive{on(lsi0, 3), on(sata0, 29), cd(*on(ide0, 1))}, "scsi0:3 sata0:29 ide0:1", nil},
		{"a second controller of SCSI", bios, []Controller{lsi0, lsi1}, []*Drive{on(lsi0, 0), on(lsi1, 0)}, "scsi0:0 scsi0:1", []string{
			"controllers[1] scsi1: VirtualBox takes one SCSI controller",
			"disks[1].unit scsi1:0: moved from SCSI controller 1, unit 0 to SCSI controller 0, unit 1: VirtualBox takes one SCSI controller",
		}},
		{"a second of another model", bios, []Controller{lsi0, sas}, []*Drive{on(lsi0, 0), on(sas, 0)}, "scsi0:0 scsi0:1", []string{
			"controllers[1] scsi1: VirtualBox takes one SCSI controller",
			"disks[1].unit scsi1:0: moved from SCSI controller 1, unit 0 to SCSI controller 0, unit 1: VirtualBox takes one SCSI controller",
		}},
		{"the controller that stays is that of the first disk", bios, []Controller{lsi0, lsi1}, []*Drive{on(lsi1, 0)}, "scsi1:0", []string{
			"controllers[0] scsi0: VirtualBox takes one SCSI controller",
		}},
		{"disks of USB", bios, []Controller{}, []*Drive{onUSB, onUSB}, "sata0:0 sata0:1", []string{
			"disks[0].bus usb: moved to SATA controller 0, unit 0: VirtualBox takes no disks on USB",
			"disks[1].bus usb: moved to SATA controller 0, unit 1: VirtualBox takes no disks on USB",
		}},
		{"a CD drive of USB", bios, []Controller{ide1}, []*Drive{cd(*onUSB)}, "ide1:0", []string{
			"cdroms[0].bus usb: moved to IDE controller 1, unit 0: VirtualBox takes no CD drives on USB",
		}},
		{"a CD drive on NVMe", vmware, []Controller{nvme0}, []*Drive{cd(*on(nvme0, 0))}, "ide0:0", []string{
			"cdroms[0].bus nvme: moved from NVMe controller 0, unit 0 to IDE controller 0, unit 0: VMware takes no CD drives on NVMe",
		}},
		{"the unit of a controller of SCSI", vmware, []Controller{lsi0}, []*Drive{on(lsi0, 7), on(lsi0, 15)}, "scsi0:0 scsi0:15", []string{
			"disks[0].unit scsi0:7: moved from SCSI controller 0, unit 7 to SCSI controller 0, unit 0: it takes units 0 to 15, without 7",
		}},
		{"a unit twice", vmware, []Controller{lsi0}, []*Drive{on(lsi0, 0), on(lsi0, 0)}, "scsi0:0 scsi0:1", []string{
			"disks[1].unit scsi0:0: moved from SCSI controller 0, unit 0 to SCSI controller 0, unit 1: the unit is taken",
		}},
		{"a third channel of IDE", vmware, []Controller{ide0, ide1, ide2}, append(full(ide0, 2), append(full(ide1, 2), on(ide2, 1))...), "ide0:0 ide0:1 ide1:0 ide1:1 sata0:0", []string{
			"controllers[2] ide2: VMware takes two IDE controllers",
			"disks[4].bus ide: moved from IDE controller 2, unit 1 to SATA controller 0, unit 0: VMware takes two IDE controllers",
		}},
		{"a controller with a number that there is not", vmware, []Controller{scsi(9, machine.LSILogic)}, []*Drive{on(scsi(9, ""), 2)}, "scsi0:2", []string{
			"controllers[0].number 9: it is 0: VMware has no such number, or another controller has it",
			"disks[0].unit scsi9:2: moved from SCSI controller 9, unit 2 to SCSI controller 0, unit 2: VMware has no such controller",
		}},
		{"one that nothing needs", vmware, []Controller{scsi(9, machine.LSILogic)}, nil, "", []string{
			"controllers[0] scsi9: it has the number of another, or none that VMware has",
		}},
		{"one port of NVMe", bios, []Controller{nvme0, nvme1}, []*Drive{on(sata0, 0), on(nvme0, 0), on(nvme1, 0)}, "sata0:0 nvme0:0 sata0:1", []string{
			"controllers[1] nvme1: VirtualBox takes one NVMe controller",
			"disks[0].bus sata: moved from a controller that is not there to SATA controller 0, unit 0: VirtualBox has no such controller",
			"disks[2].bus nvme: moved from NVMe controller 1, unit 0 to SATA controller 0, unit 1: VirtualBox takes one NVMe controller",
		}},

		{"no disk goes before the first one", bios, []Controller{lsi0}, []*Drive{on(lsi0, 0), onVirtio}, "scsi0:0 scsi0:1", []string{
			"disks[1].bus virtio: moved to SCSI controller 0, unit 1: VirtualBox takes no disks on virtio",
		}},
		{"the first one goes first where there is no room beside it", bios, []Controller{virtio}, full(virtio, 3), "sata0:0 scsi0:0 sata0:1", []string{
			"disks[0].bus scsi: moved from SCSI controller 0, unit 0 to SATA controller 0, unit 0: VirtualBox starts from that place, and this is the first disk",
			"disks[1].unit scsi0:1: moved from SCSI controller 0, unit 1 to SCSI controller 0, unit 0: it takes unit 0 only",
			"disks[2].bus scsi: moved from SCSI controller 0, unit 2 to SATA controller 0, unit 1: it takes unit 0 only",
		}},
		{"the first one goes before one that has a place", bios, []Controller{sata0}, []*Drive{onVirtio, on(sata0, 0)}, "sata0:0 sata0:1", []string{
			"disks[0].bus virtio: moved to SATA controller 0, unit 0: VirtualBox takes no disks on virtio",
			"disks[1].unit sata0:0: moved from SATA controller 0, unit 0 to SATA controller 0, unit 1: VirtualBox would start from it, and it is not the first disk",
		}},
		{"what joins the first one goes after it", bios, []Controller{lsi0, lsi1}, []*Drive{on(lsi0, 1), on(lsi1, 0)}, "scsi0:1 scsi0:2", []string{
			"controllers[1] scsi1: VirtualBox takes one SCSI controller",
			"disks[1].unit scsi1:0: moved from SCSI controller 1, unit 0 to SCSI controller 0, unit 2: VirtualBox takes one SCSI controller",
		}},
		{"what joins the first one at the last unit goes there", bios, []Controller{lsi0, lsi1}, []*Drive{on(lsi0, 15), on(lsi1, 0)}, "scsi0:0 scsi0:15", []string{
			"controllers[1] scsi1: VirtualBox takes one SCSI controller",
			"disks[0].unit scsi0:15: moved from SCSI controller 0, unit 15 to SCSI controller 0, unit 0: VirtualBox starts from that place, and this is the first disk",
			"disks[1].unit scsi1:0: moved from SCSI controller 1, unit 0 to SCSI controller 0, unit 15: VirtualBox takes one SCSI controller",
		}},
		{"what had its places keeps them", bios, []Controller{lsi0, sata0}, []*Drive{on(lsi0, 0), on(sata0, 0)}, "scsi0:0 sata0:0", nil},
		{"UEFI finds the first one", uefi, []Controller{virtio}, full(virtio, 2), "scsi0:0 sata0:0", []string{
			"disks[1].bus scsi: moved from SCSI controller 0, unit 1 to SATA controller 0, unit 0: it takes unit 0 only",
		}},
		{"beside the first one of SATA", vmware, []Controller{sata1}, []*Drive{on(sata1, 4), onVirtio}, "sata1:4 sata1:5", []string{
			"disks[1].bus virtio: moved to SATA controller 1, unit 5: VMware takes no disks on virtio",
		}},

		{"no bus: beside the others", vmware, []Controller{lsi0}, []*Drive{on(lsi0, 0), nowhere, nowhere}, "scsi0:0 scsi0:1 scsi0:2", []string{
			"disks[1].bus : it is not said: scsi instead", "disks[2].bus : it is not said: scsi instead",
		}},
		{"no bus: the first one goes first", vmware, []Controller{lsi0}, []*Drive{nowhere, on(lsi0, 1)}, "scsi0:0 scsi0:1", []string{"disks[0].bus : it is not said: scsi instead"}},
		{"no bus at all", bios, nil, []*Drive{nowhere, cd(*nowhere)}, "sata0:0 ide0:0", []string{
			"disks[0].bus : it is not said: sata instead", "cdroms[0].bus : it is not said: ide instead",
		}},

		{"high units of PVSCSI", vmware, []Controller{pv}, []*Drive{on(pv, 0), on(pv, 64), on(pv, 65)}, "scsi0:0 scsi0:64 scsi0:1", []string{
			"disks[2].unit scsi0:65: moved from SCSI controller 0, unit 65 to SCSI controller 0, unit 1: it takes units 0 to 64, without 7",
		}},
		{"a VMX says which is first", &VMX, []Controller{ide0, ide1}, append(full(ide0, 2), append(full(ide1, 2), onVirtio)...), "ide0:0 ide0:1 ide1:0 ide1:1 sata0:0", []string{
			"disks[4].bus virtio: moved to SATA controller 0, unit 0: VMware takes no disks on virtio",
		}},
		{"an artifact has all as it is", &Artifact, []Controller{lsi0, lsi1, ide2, other(machine.USB, 7)}, []*Drive{on(lsi0, 7), on(lsi1, 99), on(ide2, 9), on(other(machine.USB, 7), 0), on(lsi0, 7), onVirtio},
			"scsi0:7 scsi1:99 ide2:9 usb7:0 scsi0:7 sata0:0", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			controllers, drives := slices.Clone(test.controllers), []*Drive{}
			for i := range controllers {
				controllers[i].Index = i
			}
			disks, cds := 0, 0
			for _, d := range test.drives {
				c := *d
				if c.CD {
					c.Field = fmt.Sprintf("cdroms[%d]", cds)
					cds++
				} else {
					c.Field = fmt.Sprintf("disks[%d]", disks)
					disks++
				}
				drives = append(drives, &c)
			}
			kept, losses, err := test.target.Attach(controllers, drives)
			if err != nil {
				t.Fatal(err)
			}
			var places, said []string
			for _, d := range drives {
				places = append(places, d.Place.String())
				if !slices.ContainsFunc(kept, func(c Controller) bool { return c.Type == d.Place.Bus && c.Number == d.Place.Number }) {
					t.Errorf("%s is at %s, of which there is no controller", d.Field, d.Place)
				}
			}
			for _, l := range losses {
				said = append(said, fmt.Sprintf("%s %s: %s", l.Field, l.Value, l.Reason))
			}
			if got := strings.Join(places, " "); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if !test.target.Any && !slices.Equal(said, test.losses) {
				t.Errorf("got losses\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(test.losses, "\n"))
			}
		})
	}
}

// All places are used before drives are refused.
func TestAttachTakesAll(t *testing.T) {
	many := func(target *Target, have []Controller, n int) error {
		var drives []*Drive
		for i := range n {
			drives = append(drives, &Drive{Field: fmt.Sprintf("disks[%d]", i), Bus: machine.Virtio})
		}
		_, _, err := target.Attach(have, drives)
		return err
	}
	lsi := []Controller{scsi(0, machine.LSILogic)}
	for _, test := range []struct {
		name   string
		target *Target
		have   []Controller
		most   int
	}{
		{"VirtualBox", VirtualBox(machine.BIOS), nil, 4 + 30 + 15},
		{"VirtualBox with BusLogic", VirtualBox(machine.BIOS), []Controller{scsi(0, machine.BusLogic)}, 4 + 30 + 15},
		{"VirtualBox with SAS, virtio and NVMe", VirtualBox(machine.UEFI), []Controller{scsi(0, machine.LSILogicSAS), {Controller: scsi(1, machine.VirtioSCSI).Controller, Index: 1}, {Controller: other(machine.NVMe, 0).Controller, Index: 2}}, 4 + 30 + 7 + 1 + 1},
		{"VMware", VMware(machine.LSILogicSAS), nil, 4*15 + 4*30 + 4},
		{"VMware with another controller", VMware(machine.LSILogicSAS), lsi, 4*15 + 4*30 + 4},
		{"a VMX", &VMX, nil, 4 * 30},
		{"a VMX with SCSI", &VMX, lsi, 4*30 + 15},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := many(test.target, test.have, test.most); err != nil {
				t.Errorf("%d disks: %v", test.most, err)
			}
			err := many(test.target, test.have, test.most+1)
			if !errors.Is(err, machine.ErrUnsupported) || !strings.Contains(fmt.Sprint(err), fmt.Sprintf("disks[%d]: %s has no place for it", test.most, test.target.Name)) {
				t.Errorf("%d disks: %v", test.most+1, err)
			}
		})
	}
}

// A hostile machine costs no more than its size.
func TestAttachMany(t *testing.T) {
	for _, target := range []*Target{VirtualBox(machine.BIOS), VMware(machine.PVSCSI), &VMX, &Artifact} {
		var have []Controller
		var drives []*Drive
		for i := range machine.MaxDisks {
			have = append(have, Controller{Controller: scsi(i, machine.PVSCSI).Controller, Index: i})
			drives = append(drives, &Drive{Field: fmt.Sprintf("disks[%d]", i), Controller: have[i].Name, Bus: machine.SCSI, Unit: 1 << 40})
		}
		if _, _, err := target.Attach(have, drives); err != nil && !errors.Is(err, machine.ErrUnsupported) {
			t.Error(err)
		}
	}
}
