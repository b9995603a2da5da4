// Package vmx reads and writes the .vmx files of VMware: of ESX and ESXi,
// Workstation, Player, Fusion, GSX and VMware Server.
//
// There is no specification. The lines are read as VMware reads them (lib/dict
// of open-vm-tools), and what they mean is as products write it.
package vmx

import "github.com/davit-oci/davit/machine"

// Parse returns the machine of a VMX. Names of files are as it has them: paths
// of Windows and of datastores, too.
//
// A VMX has no order, so disks are in the order in which its BIOS tries them
// (bios.hddOrder), and else, as CD drives, in that of their places: SCSI, SATA,
// NVMe, IDE. An encrypted VMX is [machine.ErrUnsupported].
func Parse(data []byte) (*machine.Envelope, error) {
	d, err := parseDictionary(data)
	if err != nil {
		return nil, err
	}
	r := reader{dictionary: d, m: &machine.Machine{}}
	return r.read()
}

// Write returns a VMX for the machine, which Workstation, Fusion and ESXi take,
// and what of the machine it cannot say. Each disk's File is the name of a VMDK
// in the folder of the VMX; it is an error if one is a path.
func Write(m *machine.Machine) ([]byte, []machine.Loss, error) {
	w := writer{m: m}
	data, err := w.write()
	if err != nil {
		return nil, nil, err
	}
	return data, w.losses, nil
}
