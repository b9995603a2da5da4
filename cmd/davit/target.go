package main

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/hyperv"
	"github.com/davit-oci/davit/machine/libvirt"
	"github.com/davit-oci/davit/machine/ovf"
	"github.com/davit-oci/davit/machine/vmx"
)

// A target is what machines are written for: a descriptor in the words of its
// hypervisor, and disks beside it in the format that it takes.
type target struct {
	name    string
	ext     string      // of the descriptor
	disks   disk.Format // of the disks' files
	archive bool        // descriptor and disks make one file, an OVA
	several bool        // one descriptor takes all machines of an envelope
	blank   bool        // a disk without a file is made by the hypervisor
	sectors bool        // a disk can have sectors of 4096 bytes

	// write returns the descriptor of e, of its one machine unless several. The
	// disks in it are in the files that e names (see [target.place]), which lie
	// beside it in dir, an absolute path.
	write func(e *machine.Envelope, dir string) ([]byte, []machine.Loss, error)
}

// targets are all, in the order in which they are told to users.
var targets = []target{
	{name: "ova", ext: ".ovf", disks: disk.VMDKStream, archive: true, several: true, blank: true, write: writeOVF(ovf.VMware)},
	{name: "ovf", ext: ".ovf", disks: disk.VMDKStream, several: true, blank: true, write: writeOVF(ovf.VMware)},
	{name: "vmware", ext: ".vmx", disks: disk.VMDK, write: writeVMX},
	{name: "virtualbox", ext: ".ovf", disks: disk.VMDKStream, archive: true, several: true, blank: true, write: writeOVF(ovf.VirtualBox)},
	{name: "libvirt", ext: ".xml", disks: disk.QCOW2, sectors: true, write: writeDomain},
	{name: "hyperv", ext: ".ps1", disks: disk.VHDX, blank: true, sectors: true, write: writeScript},
}

func writeVMX(e *machine.Envelope, _ string) ([]byte, []machine.Loss, error) {
	return vmx.Write(e.Machines[0])
}

func writeScript(e *machine.Envelope, _ string) ([]byte, []machine.Loss, error) {
	return hyperv.Write(e.Machines[0])
}

func writeDomain(e *machine.Envelope, dir string) ([]byte, []machine.Loss, error) {
	return libvirt.Write(e.Machines[0], libvirt.WriteOptions{Dir: dir})
}

func writeOVF(importer ovf.Target) func(*machine.Envelope, string) ([]byte, []machine.Loss, error) {
	return func(e *machine.Envelope, _ string) ([]byte, []machine.Loss, error) {
		return ovf.Write(e, ovf.WriteOptions{Target: importer})
	}
}

// targetNames are the names of -O that are about machines.
const targetNames = "ova, ovf, vmware, virtualbox, libvirt, hyperv"

// targetsHelp is how the help of a command describes them.
const targetsHelp = `With -O ` + targetNames + ` the machine is written as well,
as that product imports it. ova and virtualbox make one file, an OVA; the others
fill a folder: the descriptor, the disks in the format that it takes, and the
files that it names. What the target cannot express is listed on stderr.`

// findTarget returns the target that -O names, nil if it names none.
func findTarget(name string) *target {
	i := slices.IndexFunc(targets, func(t target) bool { return t.name == name })
	if i < 0 {
		return nil
	}
	return &targets[i]
}

// A descriptor is a file that describes machines.
type descriptor struct {
	name string // of the file, with extension; it is never a path
	data []byte
}

// describe returns the descriptors of e for t in dir, one for each machine unless
// one takes all, and what they cannot express. Where there are several, fields of
// losses begin with the machine, as in "machines[1].nics[0].type". The names
// differ, on file systems that ignore case as well.
func (t *target) describe(e *machine.Envelope, dir string) (files []descriptor, losses []machine.Loss, err error) {
	if t.several {
		data, losses, err := t.write(e, dir)
		if err != nil {
			return nil, nil, err
		}
		name := cmp.Or(e.Name, e.ID)
		if len(e.Machines) == 1 {
			name = cmp.Or(e.Machines[0].Name, e.Machines[0].ID)
		}
		return []descriptor{{machine.FileName(name, "vm") + t.ext, data}}, list(losses), nil
	}
	var names uniqueNames
	for i, m := range e.Machines {
		one := *e
		one.Machines = []*machine.Machine{m}
		data, lost, err := t.write(&one, dir)
		if err != nil {
			if len(e.Machines) > 1 {
				err = fmt.Errorf("machine %q: %w", m.ID, err)
			}
			return nil, nil, err
		}
		files = append(files, descriptor{names.file(cmp.Or(m.Name, m.ID), "vm", i) + t.ext, data})
		for _, l := range lost {
			l.Field = machineField(e, i, l.Field)
			losses = append(losses, l)
		}
	}
	losses = append(losses, e.CommonLosses()...)
	return files, list(losses), nil
}

// place returns a copy of e with its files as they lie beside a descriptor for
// t: each disk is whole in NAME.EXT, in the format that t takes, but for blank
// ones where the hypervisor makes them. Files of other kinds, such as images of
// CDs, keep a name that is no path. Other names are places of the host that e
// comes from and are left out, which is a loss. Sizes are not known.
func (t *target) place(e *machine.Envelope) (*machine.Envelope, []machine.Loss) {
	placed := *e
	placed.Disks, placed.Files = slices.Clone(e.Disks), nil
	var names uniqueNames
	for _, m := range e.Machines { // what keeps its name comes before what is given one
		names.reserve(m.NVRAM, t.disks.Ext())
		for _, cd := range m.CDROMs {
			names.reserve(cd.File, t.disks.Ext())
		}
	}
	files := make(map[string]string) // by disk
	for i := range placed.Disks {
		d := &placed.Disks[i]
		if d.File != "" || !t.blank {
			files[d.Name] = names.disk(d.Name, i) + t.disks.Ext()
		}
		t.put(d, files)
		placeFile(&placed, d.File)
	}

	var losses []machine.Loss
	keep := func(field, name string) string {
		if name == "" || machine.IsPlainName(name) {
			placeFile(&placed, name)
			return name
		}
		losses = append(losses, machine.Loss{Field: field, Value: pathBase(name), Reason: "it lies somewhere else than the descriptor"})
		return ""
	}
	placed.Machines = make([]*machine.Machine, len(e.Machines))
	for i, m := range e.Machines {
		field := func(format string, args ...any) string {
			return machineField(e, i, fmt.Sprintf(format, args...))
		}
		m := *m
		m.Disks, m.CDROMs = slices.Clone(m.Disks), slices.Clone(m.CDROMs)
		for n := range m.Disks {
			t.put(&m.Disks[n], files)
		}
		for n := range m.CDROMs {
			m.CDROMs[n].File = keep(field("cdroms[%d].file", n), m.CDROMs[n].File)
		}
		m.NVRAM = keep(field("nvram"), m.NVRAM)
		placed.Machines[i] = &m
	}
	return &placed, losses
}

// rename returns a copy of e in which the files that are there have names that
// are good in any folder and archive, and beside any descriptor of t; and what
// they are called there, by the new name. Products name files as their machine:
// "Windows 10 x64.nvram".
func (t *target) rename(e *machine.Envelope, there []string) (*machine.Envelope, map[string]string) {
	taken := make(map[string]bool)
	reserve := func(name, id string) {
		for _, ext := range []string{t.ext, ".mf", ".cert"} {
			taken[strings.ToLower(machine.FileName(cmp.Or(name, id), "vm")+ext)] = true
		}
	}
	reserve(e.Name, e.ID)
	for _, m := range e.Machines {
		reserve(m.Name, m.ID)
	}
	called, names := make(map[string]string), make(map[string]string)
	rename := func(name *string) {
		old := *name
		if !slices.Contains(there, old) {
			return
		}
		if names[old] == "" {
			ext := filepath.Ext(old)
			stem := machine.FileName(strings.TrimSuffix(pathBase(old), ext), "file")
			if ext = machine.FileName(ext, ""); ext != "" {
				ext = "." + ext
			}
			unique := stem + ext
			for n := 2; taken[strings.ToLower(unique)]; n++ {
				unique = fmt.Sprintf("%s-%d%s", stem, n, ext)
			}
			taken[strings.ToLower(unique)] = true
			names[old], called[unique] = unique, old
		}
		*name = names[old]
	}
	renamed := *e
	renamed.Machines = make([]*machine.Machine, len(e.Machines))
	for i, m := range e.Machines {
		m := *m
		m.CDROMs = slices.Clone(m.CDROMs)
		for n := range m.CDROMs {
			rename(&m.CDROMs[n].File)
		}
		rename(&m.NVRAM)
		renamed.Machines[i] = &m
	}
	return &renamed, called
}

// put says in which of files, by disk, d is.
func (t *target) put(d *machine.Disk, files map[string]string) {
	d.File, d.Format, d.Parent = files[d.Name], "", ""
	if d.File != "" {
		d.Format = string(t.disks)
	}
}

// placeFile adds a file to those of e, once.
func placeFile(e *machine.Envelope, name string) {
	if name == "" || slices.ContainsFunc(e.Files, func(f machine.File) bool { return f.Name == name }) {
		return
	}
	e.Files = append(e.Files, machine.File{ID: fmt.Sprint("file", len(e.Files)), Name: name, Size: -1})
}

// machineField is how a loss names a field of machine i of e.
func machineField(e *machine.Envelope, i int, field string) string {
	if len(e.Machines) == 1 {
		return field
	}
	return fmt.Sprintf("machines[%d].%s", i, field)
}

// uniqueNames makes names of files from names of strangers.
type uniqueNames map[string]bool

// reserve keeps the name of a file with that extension from others.
func (u *uniqueNames) reserve(name, ext string) {
	if stem, ok := strings.CutSuffix(strings.ToLower(name), ext); ok {
		u.add(stem)
	}
}

func (u *uniqueNames) add(name string) {
	if *u == nil {
		*u = make(uniqueNames)
	}
	(*u)[strings.ToLower(name)] = true
}

// file returns the name that [machine.FileName] makes of name. Where nothing is
// left of it, or it was returned before, it is fallback and the next number
// from the given one.
func (u *uniqueNames) file(name, fallback string, number int) string {
	name = machine.FileName(name, fmt.Sprint(fallback, number))
	for ; (*u)[strings.ToLower(name)]; number++ {
		name = fmt.Sprint(fallback, number)
	}
	u.add(name)
	return name
}

// disk is file for disk number i of an envelope, called as in an artifact.
func (u *uniqueNames) disk(name string, i int) string {
	if !artifact.ValidDiskName(name) {
		name = ""
	}
	return u.file(name, "disk", i)
}

// pathBase is the last element of a path of any system.
func pathBase(path string) string {
	return path[strings.LastIndexAny(path, `/\`)+1:]
}
