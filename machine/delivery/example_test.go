package delivery_test

import (
	"fmt"
	"log"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/delivery"
)

// A machine is described for VMware. The descriptor names disks beside it, and what
// a VMX cannot express is told.
func ExampleTarget_Describe() {
	root := machine.Disk{Name: "root", Capacity: 8 << 30, File: "root.img", Controller: "scsi0", Bus: machine.SCSI}
	e := &machine.Envelope{
		Disks: []machine.Disk{root},
		Machines: []*machine.Machine{{
			ID: "vm", Name: "web", CPUs: 2, Memory: 2 << 30,
			Controllers: []machine.Controller{{Name: "scsi0", Type: machine.SCSI}},
			Disks:       []machine.Disk{root},
			EULAs:       []string{"You may use it."},
		}},
	}
	target := delivery.Find("vmware")
	placed, losses := target.Place(e)
	files, lost, err := target.Describe(placed, "/vm/web")
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range files {
		fmt.Println(f.Name, "names", placed.Disks[0].File)
	}
	for _, l := range append(losses, lost...) {
		fmt.Println("lost:", l.Field)
	}
	// Output:
	// web.vmx names root.vmdk
	// lost: controllers[0].model
	// lost: eulas[0]
}
