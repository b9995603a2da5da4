// Package libvirt reads and writes the domain XML of libvirt: one machine, as
// virsh dumpxml prints it and virsh define takes it.
//
// [Parse] takes a domain of any hypervisor that libvirt manages, but no
// container. [Write] makes one for KVM.
//
// https://libvirt.org/formatdomain.html, up to version 11.5
package libvirt

import (
	"fmt"

	"github.com/davit-oci/davit/machine"
)

// Parse returns the machine of a domain. Names of files are what the domain
// has: a path, or for what is no file a URL. A domain that libvirt would not
// define, as far as it is read here, is [machine.ErrMalformed]; a container, a
// snapshot and disks that only libvirt can read (encrypted ones, a slice of a
// file) are [machine.ErrUnsupported].
func Parse(data []byte) (*machine.Envelope, error) {
	return nil, fmt.Errorf("%w: domain XML is not read yet", machine.ErrUnsupported)
}

// WriteOptions are settings of [Write].
type WriteOptions struct {
	Dir string // absolute path on libvirt's host of the folder with the files; needed if there are any
}

// Write returns the domain of a machine, which virsh define takes as it is, and
// what of the machine it cannot say. It is for KVM on x86-64, and has no path
// but those of the machine's files, which are in o.Dir.
//
// It is an error if a file's name is not plain, if the format of a disk is not
// said or is none that QEMU has, and if a number is none that a machine has.
func Write(m *machine.Machine, o WriteOptions) ([]byte, []machine.Loss, error) {
	return nil, nil, fmt.Errorf("%w: domain XML is not written yet", machine.ErrUnsupported)
}
