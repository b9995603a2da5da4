package ovf

import (
	"fmt"
	"slices"
	"strings"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/internal/xmltree"
)

// What OVF and VMware's extension of it have no word for is in one element in a
// VirtualHardwareSection, as docs/spec.md has it: fields of the machine, which
// are what they say whatever the rest of the OVF does.
//
//	<davit:Machine ovf:required="false">
//	  <davit:Field name="nics[0].type">virtio</davit:Field>
//	</davit:Machine>

// extension writes what reading the rest does not give.
func (w *writer) extension() {
	if w.extensions == nil || len(w.extensions[w.machine]) == 0 {
		return
	}
	w.use("davit")
	w.begin("davit:Machine", "ovf:required", "false")
	for _, f := range w.extensions[w.machine] {
		w.text("davit:Field", f.value, "name", f.path)
	}
	w.end()
}

// readExtension sets the fields of m that an extension has; nil has none.
func readExtension(e *xmltree.Element, m *machine.Machine) error {
	if e == nil {
		return nil
	}
	seen := make(map[string]bool)
	for _, c := range e.Children {
		if c.Name.Space != namespaceDavit || c.Name.Local != "Field" {
			return malformedAt(c, "<%s> in our extension is not known", c.Name.Local)
		}
		f := field{path: c.Get("name"), value: c.Text}
		if seen[f.path] {
			return malformedAt(c, "two fields %q", f.path)
		}
		seen[f.path] = true
		if isReference(f.path) {
			return malformedAt(c, "%q is no field of our extension: OVF has a word for it", f.path)
		}
		if err := checkWord(f); err != nil {
			return malformedAt(c, "%v", err)
		}
		if err := set(m, f); err != nil {
			return malformedAt(c, "%v", err)
		}
	}
	return checkAttached(m)
}

// words are the values of fields that have no other.
var words = map[string][]string{
	"firmware":         {"", string(machine.BIOS), string(machine.UEFI)},
	"tpm":              {"", string(machine.TPM12), string(machine.TPM20)},
	"bootOrder":        {string(machine.BootDisk), string(machine.BootCDROM), string(machine.BootNetwork), string(machine.BootFloppy)},
	"controllers.type": buses,
	"disks.bus":        buses,
	"cdroms.bus":       buses,
}

var buses = []string{
	"", string(machine.IDE), string(machine.SATA), string(machine.SCSI), string(machine.NVMe), string(machine.Virtio),
	string(machine.USB), string(machine.Floppy), string(machine.SD), string(machine.Xen),
}

// checkWord says whether a field can have its value.
func checkWord(f field) error {
	k := kind(f.path)
	if all, ok := words[k]; ok && !slices.Contains(all, f.value) {
		return fmt.Errorf("%s is %q, none of %q", f.path, f.value, all)
	}
	if k == "nics.mac" && f.value != macOf(f.value) {
		return fmt.Errorf("%s is %q, no MAC address in lower case with colons", f.path, f.value)
	}
	return nil
}

// isReference says whether a field is about the files and disks of an envelope.
// An OVF says that in its own words, so that all who read it see the same.
func isReference(path string) bool {
	switch k := kind(path); k {
	case "disks.controller", "disks.bus", "disks.unit":
		return false
	case "id", "nvram", "cdroms.file":
		return true
	default:
		return strings.HasPrefix(k, "disks.")
	}
}

// checkAttached says what is wrong with the controllers of m.
func checkAttached(m *machine.Machine) error {
	var names []string
	for _, c := range m.Controllers {
		if slices.Contains(names, c.Name) {
			return machine.Malformed("two controllers %q", c.Name)
		}
		names = append(names, c.Name)
	}
	for _, d := range m.Disks {
		if d.Controller != "" && !slices.Contains(names, d.Controller) {
			return machine.Malformed("disk %q is on a controller %q that is not there", d.Name, d.Controller)
		}
	}
	for _, cd := range m.CDROMs {
		if cd.Controller != "" && !slices.Contains(names, cd.Controller) {
			return machine.Malformed("CD drive %q is on a controller %q that is not there", cd.Name, cd.Controller)
		}
	}
	return nil
}
