package libvirt

import "github.com/davit-oci/davit/machine"

// architectures are libvirt's words for those that have another in Go.
var architectures = map[string]string{
	"x86_64":  "amd64",
	"i686":    "386",
	"aarch64": "arm64",
	"armv7l":  "arm",
}

// A platform is QEMU's machine for an architecture.
type platform struct {
	arch     string // libvirt's word
	chipSet  string // the machine's type; of x86 there are two
	firmware string // that of <os firmware>; empty: the machine has its own
	features []string
	cpu      string // mode
	tpm      string // model; empty: there is none, or the version decides
	video    string
	pc       bool // it has what PCs have: IDE, SATA, their timers, a keyboard
	pci      bool // it has what is on PCI: USB, cards of others
}

// platforms are the machines of QEMU that KVM runs for architectures other than
// x86. Systems for them have drivers for virtio, whatever else they have.
var platforms = map[string]platform{
	"arm64":   {arch: "aarch64", chipSet: "virt", firmware: "efi", features: []string{"acpi"}, cpu: "host-passthrough", tpm: "tpm-tis", video: "virtio", pci: true},
	"arm":     {arch: "armv7l", chipSet: "virt", firmware: "efi", cpu: "host-passthrough", tpm: "tpm-tis", video: "virtio", pci: true},
	"riscv64": {arch: "riscv64", chipSet: "virt", firmware: "efi", cpu: "host-passthrough", tpm: "tpm-tis", video: "virtio", pci: true},
	"ppc64le": {arch: "ppc64le", chipSet: "pseries", cpu: "host-model", tpm: "tpm-spapr", video: "vga", pci: true},
	"s390x":   {arch: "s390x", chipSet: "s390-ccw-virtio", cpu: "host-model", video: "virtio"},
}

// choosePlatform finds the machine for the architecture.
func (w *writer) choosePlatform() {
	p, ok := platforms[w.m.Architecture]
	if !ok {
		p = platform{arch: "x86_64", chipSet: "q35", features: []string{"acpi", "apic"}, cpu: "host-model", video: "vga", pc: true, pci: true}
		if w.m.Architecture == "386" {
			p.arch = "i686"
		} else if !machine.IsX86(w.m.Architecture) {
			w.lose("architecture", w.m.Architecture, "no machine for it is known here: x86_64 is written")
		}
	}
	w.platform = p
}

// architecture is Go's word for one of libvirt's, which most have in common.
func architecture(arch string) string {
	if goarch, ok := architectures[arch]; ok {
		return goarch
	}
	return arch
}
