package delivery

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

// A Target is a product that machines are written for. It has a descriptor of its
// own, and takes disks in one format. The values are those of [Targets].
type Target struct {
	Name    string      // as users write it: "vmware"
	Ext     string      // of the descriptor's file: ".vmx"
	Disks   disk.Format // of the files of disks
	Archive bool        // descriptor and disks are one file, an OVA
	Several bool        // one descriptor has all machines of an envelope
	Blank   bool        // the product makes the disks that have no file
	Sectors bool        // a disk can have sectors of 4096 bytes

	// write returns the descriptor of e: of its only machine, unless Several. Its
	// disks are in the files that e names (see [Target.Place]), beside the
	// descriptor in dir, an absolute path.
	write func(e *machine.Envelope, dir string) ([]byte, []machine.Loss, error)
}

// Targets returns all targets, in the order in which users are told of them.
func Targets() []*Target {
	all := make([]*Target, len(targets))
	for i := range targets {
		all[i] = &targets[i]
	}
	return all
}

var targets = []Target{
	{Name: "ova", Ext: ".ovf", Disks: disk.VMDKStream, Archive: true, Several: true, Blank: true, write: writeOVF(ovf.VMware)},
	{Name: "ovf", Ext: ".ovf", Disks: disk.VMDKStream, Several: true, Blank: true, write: writeOVF(ovf.VMware)},
	{Name: "vmware", Ext: ".vmx", Disks: disk.VMDK, write: writeVMX},
	{Name: "virtualbox", Ext: ".ovf", Disks: disk.VMDKStream, Archive: true, Several: true, Blank: true, write: writeOVF(ovf.VirtualBox)},
	{Name: "libvirt", Ext: ".xml", Disks: disk.QCOW2, Sectors: true, write: writeDomain},
	{Name: "hyperv", Ext: ".ps1", Disks: disk.VHDX, Blank: true, Sectors: true, write: writeScript},
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

// Find returns the target of this name, nil if none has it.
func Find(name string) *Target {
	i := slices.IndexFunc(targets, func(t Target) bool { return t.Name == name })
	if i < 0 {
		return nil
	}
	return &targets[i]
}

// A Descriptor is the file that describes machines.
type Descriptor struct {
	Name string // of the file, with extension; it is never a path
	Data []byte
}

// Describe returns the descriptors of e for t in dir, one for each machine unless
// one takes all, and what they cannot express. Where there are several, fields of
// losses begin with the machine, as in "machines[1].nics[0].type". The names
// differ, on file systems that ignore case as well.
func (t *Target) Describe(e *machine.Envelope, dir string) (files []Descriptor, losses []machine.Loss, err error) {
	if t.Several {
		data, losses, err := t.write(e, dir)
		if err != nil {
			return nil, nil, err
		}
		name := cmp.Or(e.Name, e.ID)
		if len(e.Machines) == 1 {
			name = cmp.Or(e.Machines[0].Name, e.Machines[0].ID)
		}
		return []Descriptor{{machine.FileName(name, "vm") + t.Ext, data}}, losses, nil
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
		files = append(files, Descriptor{names.file(cmp.Or(m.Name, m.ID), "vm", i) + t.Ext, data})
		for _, l := range lost {
			l.Field = e.Field(i, l.Field)
			losses = append(losses, l)
		}
	}
	losses = append(losses, e.CommonLosses()...)
	return files, losses, nil
}

// Place returns a copy of e whose files are beside a descriptor for t. Each disk is
// in NAME.EXT, in the format that t takes; blank disks that the product makes have
// no file. Other files, such as images of CDs, keep their name if it is no path. A
// path is of the host that e comes from: the file is left out, which is a loss.
// Sizes of files are not known.
func (t *Target) Place(e *machine.Envelope) (*machine.Envelope, []machine.Loss) {
	placed := *e
	placed.Disks, placed.Files = slices.Clone(e.Disks), nil
	var names uniqueNames
	for _, m := range e.Machines { // what keeps its name comes before what is given one
		names.reserve(m.NVRAM, t.Disks.Ext())
		for _, cd := range m.CDROMs {
			names.reserve(cd.File, t.Disks.Ext())
		}
	}
	files := make(map[string]string) // by disk
	for i := range placed.Disks {
		d := &placed.Disks[i]
		if d.File != "" || !t.Blank {
			files[d.Name] = names.disk(d.Name, i) + t.Disks.Ext()
		}
		t.put(d, files)
		placed.AddFile(d.File)
	}

	var losses []machine.Loss
	keep := func(field, name string) string {
		if name == "" || machine.IsPlainName(name) {
			placed.AddFile(name)
			return name
		}
		losses = append(losses, machine.Loss{Field: field, Value: machine.Base(name), Reason: "it lies somewhere else than the descriptor"})
		return ""
	}
	placed.Machines = make([]*machine.Machine, len(e.Machines))
	for i, m := range e.Machines {
		field := func(format string, args ...any) string {
			return e.Field(i, fmt.Sprintf(format, args...))
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
func (t *Target) rename(e *machine.Envelope, there []string) (*machine.Envelope, map[string]string) {
	taken := make(map[string]bool)
	reserve := func(name, id string) {
		for _, ext := range []string{t.Ext, ".mf", ".cert"} {
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
			stem := machine.FileName(strings.TrimSuffix(machine.Base(old), ext), "file")
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
func (t *Target) put(d *machine.Disk, files map[string]string) {
	d.File, d.Format, d.Parent = files[d.Name], "", ""
	if d.File != "" {
		d.Format = string(t.Disks)
	}
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

// disk is file for disk number i of an envelope. A name that no disk of an
// artifact could have becomes diskI.
func (u *uniqueNames) disk(name string, i int) string {
	if !artifact.ValidDiskName(name) {
		name = ""
	}
	return u.file(name, "disk", i)
}
