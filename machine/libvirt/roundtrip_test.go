package libvirt

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/internal/programs"
	"github.com/davit-oci/davit/machine"
)

const dir = "/srv/vm & co's" // of libvirt's host

// roundTrip writes m, reads that and writes it again, and returns what was
// written and what is wrong with it.
func roundTrip(m *machine.Machine) ([]byte, error) {
	data, losses, err := Write(m, WriteOptions{Dir: dir})
	if err != nil {
		return nil, err
	}
	e, err := Parse(data)
	if err != nil {
		return data, fmt.Errorf("what was written cannot be read: %w", err)
	}
	got := e.Machines[0]
	for _, l := range got.Unread {
		if l.Field != "devices/tpm[0]" {
			return data, fmt.Errorf("what was written has %v, which cannot be read", l)
		}
	}
	for i := range got.Disks {
		got.Disks[i].File = plain(got.Disks[i].File)
	}
	for i := range got.CDROMs {
		got.CDROMs[i].File = plain(got.CDROMs[i].File)
	}
	got.NVRAM = plain(got.NVRAM)
	if faults := compare(m, got, losses); len(faults) > 0 {
		return data, fmt.Errorf("not the same machine, for losses %v:\n%s", losses, strings.Join(faults, "\n"))
	}
	again, losses, err := Write(got, WriteOptions{Dir: dir})
	if err != nil {
		return data, fmt.Errorf("writing what was read: %w", err)
	}
	if !bytes.Equal(again, data) {
		return data, fmt.Errorf("writing what was read gives\n%s", again)
	}
	if len(losses) > 0 {
		return data, fmt.Errorf("what libvirt has is lost: %v", losses)
	}
	return data, nil
}

// plain is the name of a file in dir.
func plain(file string) string {
	if name, ok := strings.CutPrefix(file, dir+"/"); ok {
		return name
	}
	return file // a fault
}

// compare says in what got is not want, unless that was reported or want does
// not say it. Names of devices are of the descriptor.
func compare(want, got *machine.Machine, losses []machine.Loss) (faults []string) {
	reported := make(map[string]bool)
	for _, l := range losses {
		reported[l.Field] = true
	}
	lost := func(field string) bool { return reported[field] }
	check := func(field string, w, g any) {
		if !lost(field) && !reflect.ValueOf(w).IsZero() && w != g {
			faults = append(faults, fmt.Sprintf("%s: got %v, want %v", field, g, w))
		}
	}
	absent := func(field string, set bool) { // a domain never has it
		if set && !lost(field) {
			faults = append(faults, field+": neither written nor reported")
		}
	}
	same := func(field string, w, g int) bool {
		if w != g {
			faults = append(faults, fmt.Sprintf("%s: got %d, want %d", field, g, w))
		}
		return w == g
	}

	check("name", want.Name, got.Name)
	check("description", strings.ReplaceAll(strings.TrimSpace(want.Description), "\r\n", "\n"), got.Description)
	check("architecture", want.Architecture, got.Architecture)
	check("cpus", want.CPUs, got.CPUs)
	check("coresPerSocket", want.CoresPerSocket, got.CoresPerSocket)
	check("memory", want.Memory, got.Memory)
	check("firmware", want.Firmware, got.Firmware)
	if want.SecureBoot != got.SecureBoot {
		absent("secureBoot", true)
	}
	check("tpm", want.TPM, got.TPM)
	check("guestOS", want.GuestOS.Complete().Osinfo, got.GuestOS.Osinfo)
	check("hardwareVersion", want.HardwareVersion, got.HardwareVersion)
	check("nvram", want.NVRAM, got.NVRAM)
	check("display.type", want.Display.Type, got.Display.Type)
	check("display.memory", want.Display.Memory, got.Display.Memory)
	check("display.monitors", want.Display.Monitors, got.Display.Monitors)
	check("product.name", strings.TrimSpace(want.Product.Name), got.Product.Name)
	absent("product.vendor", want.Product.Vendor != "")
	absent("product.version", want.Product.Version != "")
	absent("product.fullVersion", want.Product.FullVersion != "")
	absent("product.url", want.Product.URL != "")
	absent("product.vendorUrl", want.Product.VendorURL != "")
	absent("product.appUrl", want.Product.AppURL != "")
	for i := range want.EULAs {
		absent(fmt.Sprintf("eulas[%d]", i), true)
	}
	for i := range want.Properties {
		absent(fmt.Sprintf("properties[%d]", i), true)
	}
	for i := range want.Transport {
		absent(fmt.Sprintf("transport[%d]", i), true)
	}

	used := make(map[string]bool)
	wanted := make(map[string]bool)
	for _, d := range want.Disks {
		wanted[d.Controller] = true
	}
	for _, c := range want.CDROMs {
		wanted[c.Controller] = true
	}
	attached := func(field, wc string, wb machine.Bus, wu int, gc string, gb machine.Bus, gu int) {
		used[gc] = true
		if wb == "" || lost(field+".bus") || lost(field+".unit") {
			return
		}
		if wc == "" {
			wc = gc
		}
		if w, g := fmt.Sprint(wb, wc, wu), fmt.Sprint(gb, gc, gu); w != g {
			faults = append(faults, fmt.Sprintf("%s: at %s, want %s", field, g, w))
		}
	}
	var n int
	for i, w := range want.Disks {
		field := fmt.Sprintf("disks[%d]", i)
		if lost(field) {
			continue
		}
		if n == len(got.Disks) {
			return append(faults, field+": not written")
		}
		g := got.Disks[n]
		n++
		attached(field, w.Controller, w.Bus, w.Unit, g.Controller, g.Bus, g.Unit)
		check(field+".file", w.File, g.File)
		format, _, _ := strings.Cut(w.Format, ":")
		check(field+".format", format, g.Format)
		check(field+".parent", w.Parent, g.Parent)
		if w.SectorSize != g.SectorSize {
			faults = append(faults, fmt.Sprintf("%s: sectors of %d bytes, want %d", field, g.SectorSize, w.SectorSize))
		}
		if w.ReadOnly != g.ReadOnly && !lost(field+".readOnly") {
			faults = append(faults, field+".readOnly")
		}
	}
	same("disks", n, len(got.Disks))
	if same("cdroms", len(want.CDROMs), len(got.CDROMs)) {
		for i, w := range want.CDROMs {
			g, field := got.CDROMs[i], fmt.Sprintf("cdroms[%d]", i)
			attached(field, w.Controller, w.Bus, w.Unit, g.Controller, g.Bus, g.Unit)
			if w.File != g.File {
				faults = append(faults, fmt.Sprintf("%s: got %q, want %q", field, g.File, w.File))
			}
		}
	}
	for i, w := range want.Controllers {
		field := fmt.Sprintf("controllers[%d]", i)
		if lost(field) || w.Type == machine.IDE && !wanted[w.Name] {
			continue
		}
		g := slices.IndexFunc(got.Controllers, func(g machine.Controller) bool { return g.Name == w.Name })
		if g < 0 {
			// One whose disks are blank is not there, either.
			if w.Type != machine.IDE {
				faults = append(faults, field+": not written")
			}
			continue
		}
		check(field+".model", w.Model, got.Controllers[g].Model)
		used[w.Name] = true
	}
	for _, g := range got.Controllers {
		if !used[g.Name] {
			faults = append(faults, "a controller "+g.Name+" that nothing needs")
		}
	}
	if same("nics", len(want.NICs), len(got.NICs)) {
		for i, w := range want.NICs {
			field := fmt.Sprintf("nics[%d]", i)
			check(field+".type", w.Type, got.NICs[i].Type)
			check(field+".network", w.Network, got.NICs[i].Network)
			check(field+".mac", w.MAC, got.NICs[i].MAC)
		}
	}
	var order []machine.BootDevice
	for i, b := range want.BootOrder {
		if !lost(fmt.Sprintf("bootOrder[%d]", i)) {
			order = append(order, b)
		}
	}
	if !slices.Equal(order, got.BootOrder) {
		faults = append(faults, fmt.Sprintf("bootOrder: got %v, want %v", got.BootOrder, order))
	}
	return faults
}

// random returns a machine with whatever other products have, and more.
func random(r *rand.Rand) *machine.Machine {
	text := func() string {
		words := []string{"", "web01", " spaces ", "a/b", "tab\tand\nline", "\x01\x1f\x7f", "\xff\xfe", "ünïcödé 😀", "\ufffe\uffff\u2028",
			`'"<&>]]>`, "</name><x/>", "..", "-rf", "${x}", strings.Repeat("long", 90), "line\r\nline", "\u00a0", "&#10;"}
		return words[r.IntN(len(words))] + words[r.IntN(len(words))]
	}
	file := func() string {
		return []string{"disk.qcow2", "a b'&;.img", "ünï.vmdk", "-x", "vm_VARS.fd", "%s{}$(x);", "json{}"}[r.IntN(7)]
	}
	m := &machine.Machine{
		ID: text(), Name: text(), Description: text(),
		Architecture: []string{"", "", "", "amd64", "386", "arm64", "arm", "riscv64", "ppc64le", "s390x", "sparc64", text()}[r.IntN(12)],
		CPUs:         r.IntN(9), CoresPerSocket: r.IntN(4), Memory: r.Int64N(1 << uint(1+r.IntN(49))),
		Firmware:        []machine.Firmware{"", machine.BIOS, machine.UEFI, "uboot"}[r.IntN(4)],
		SecureBoot:      r.IntN(2) == 0,
		TPM:             []machine.TPM{"", machine.TPM12, machine.TPM20, "3"}[r.IntN(4)],
		HardwareVersion: []string{"", "vmx-19", "pc", "q35", "pc-i440fx-8.1", text()}[r.IntN(6)],
		Display:         machine.Display{Type: []string{"", "vmvga", "vga", "qxl", "cirrus", "virtio", text()}[r.IntN(7)], Memory: r.Int64N(3) << uint(r.IntN(33)), Monitors: r.IntN(20)},
		Product:         machine.Product{Name: text(), Vendor: text(), URL: text()},
		GuestOS: []machine.GuestOS{{}, {VMware: "windows9_64Guest"}, {Osinfo: "http://debian.org/debian/12"}, {Osinfo: text()}, {VirtualBox: "x"},
			{CIM: 101}}[r.IntN(6)],
	}
	if r.IntN(3) == 0 {
		m.NVRAM = file()
	}
	if r.IntN(3) == 0 {
		m.EULAs, m.Transport = []string{text()}, []string{"iso"}
		m.Properties = []machine.Property{{Key: text(), Value: "secret", Password: true}}
	}
	names := make(map[string]bool)
	for range r.IntN(7) {
		c := machine.Controller{
			Type: []machine.Bus{machine.IDE, machine.IDE, machine.SATA, machine.SCSI, machine.SCSI, machine.NVMe, machine.USB, machine.Floppy, "x"}[r.IntN(9)],
			Model: []machine.ControllerModel{"", machine.PIIX4, machine.AHCI, machine.BusLogic, machine.LSILogic, machine.LSILogicSAS,
				machine.PVSCSI, machine.VirtioSCSI, machine.EHCI, machine.XHCI, machine.UHCI, "x"}[r.IntN(12)],
			Number: r.IntN(4),
		}
		if r.IntN(30) == 0 {
			c.Number = r.IntN(5000)
		}
		c.Name = fmt.Sprint(c.Type, c.Number)
		if !names[c.Name] {
			names[c.Name] = true
			m.Controllers = append(m.Controllers, c)
		}
	}
	where := func() (string, machine.Bus, int) {
		if len(m.Controllers) == 0 || r.IntN(3) == 0 {
			return "", []machine.Bus{"", machine.IDE, machine.SCSI, machine.Virtio, machine.Xen, machine.SD, machine.USB, machine.NVMe, "x"}[r.IntN(9)], r.IntN(3)
		}
		c := m.Controllers[r.IntN(len(m.Controllers))]
		unit := r.IntN(3)
		if r.IntN(5) == 0 {
			unit = r.IntN(300) - 1
		}
		return c.Name, c.Type, unit
	}
	for i := range r.IntN(9) {
		d := machine.Disk{
			Name: fmt.Sprint("disk", i), File: file(), Capacity: 1 << 30, ReadOnly: r.IntN(4) == 0,
			Format:     []string{"raw", "qcow2", "qcow2:zstd", "vmdk", "vmdk:stream", "vdi", "vhd"}[r.IntN(7)],
			SectorSize: []int{0, 0, 4096}[r.IntN(3)],
		}
		d.Controller, d.Bus, d.Unit = where()
		switch r.IntN(9) {
		case 0:
			d.File = ""
		case 1:
			d.Parent = "disk0"
		}
		m.Disks = append(m.Disks, d)
	}
	for range r.IntN(3) {
		c := machine.CDROM{}
		c.Controller, c.Bus, c.Unit = where()
		if r.IntN(2) == 0 {
			c.File = file()
		}
		m.CDROMs = append(m.CDROMs, c)
	}
	for range r.IntN(4) {
		m.NICs = append(m.NICs, machine.NIC{
			Name:    text(),
			Type:    []machine.NICType{"", machine.E1000, machine.E1000E, machine.VMXNET3, machine.Flexible, machine.Synthetic, machine.PCnet, machine.NICType(text())}[r.IntN(8)],
			Network: []string{"", "default", "VM Network", text()}[r.IntN(4)],
			MAC:     []string{"", "00:0c:29:01:02:03", "01:00:5e:00:00:01", text()}[r.IntN(4)],
		})
	}
	for range r.IntN(5) {
		m.BootOrder = append(m.BootOrder, []machine.BootDevice{machine.BootDisk, machine.BootCDROM, machine.BootNetwork, machine.BootFloppy, "tape"}[r.IntN(5)])
	}
	return m
}

func TestRoundTripOfAnyMachine(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var written [][]byte
	for i := range 1000 {
		data, err := roundTrip(random(r))
		if err != nil {
			t.Fatalf("machine %d: %.2000v\n%.4000s", i, err, data)
		}
		if i < 100 {
			written = append(written, data)
		}
	}
	defines(t, written)
}

// A machine with the most disks that there can be, none of which is where QEMU
// has a place.
func TestRoundTripOfManyDisks(t *testing.T) {
	var written [][]byte
	for _, test := range []struct {
		bus  machine.Bus
		most int // disks
	}{
		{machine.IDE, 4 + 600}, {machine.SATA, 600}, {machine.NVMe, 600}, {machine.SCSI, 4096}, {machine.Virtio, 4096}, {machine.USB, 4096},
	} {
		m := &machine.Machine{Name: "many", CPUs: 1, Memory: 1 << 30, Controllers: []machine.Controller{
			{Name: fmt.Sprint(test.bus, 0), Type: test.bus}, {Name: "scsi7", Type: machine.SCSI, Number: 7, Model: machine.LSILogic},
		}}
		controller := ""
		if hasController(test.bus) {
			controller = m.Controllers[0].Name
		}
		for range machine.MaxDisks {
			m.Disks = append(m.Disks, machine.Disk{Controller: controller, Bus: test.bus, Unit: 300, Format: "raw", File: "disk"})
		}
		if test.most < len(m.Disks) {
			if _, err := roundTrip(m); !errors.Is(err, machine.ErrUnsupported) {
				t.Errorf("%s: Write = %v, want an error that is %v", test.bus, err, machine.ErrUnsupported)
			}
			m.Disks = m.Disks[:test.most]
		}
		data, err := roundTrip(m)
		if err != nil {
			t.Fatalf("%s: %.2000v", test.bus, err)
		}
		if len(m.Disks) < 1000 { // libvirt takes a second for more
			written = append(written, data)
		}
	}
	defines(t, written)
}

// domains are the files of testdata, and the corpus beside the repository,
// which is on some machines only.
func domains(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../../testdata/machines/*.xml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no domains: %v", err)
	}
	for _, pattern := range []string{"libvirt/*/*.xml", "vmx/*/*.xml"} {
		more, err := filepath.Glob("../../../shared/corpus/" + pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	return files
}

// refused are the domains that are not read, and why. libvirt refuses more: for
// consoles, caches and screens, which are not read here.
var refused = map[string]string{
	"name-slash-fail.xml": `"foo/bar" has a "/"`,
}

func TestRoundTripOfDomains(t *testing.T) {
	var written [][]byte
	for _, file := range domains(t) {
		name := filepath.Base(file)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Parse(data)
		if why, ok := refused[name]; ok {
			if err == nil || !strings.Contains(err.Error(), why) {
				t.Errorf("%s: Parse = %v, want an error with %s", name, err, why)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		out, err := roundTrip(placed(e.Machines[0]))
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
			continue
		}
		written = append(written, out)
	}
	t.Logf("%d domains", len(written))
	defines(t, written)
}

// placed is m with its files in one folder, in formats that are said.
func placed(m *machine.Machine) *machine.Machine {
	n := 0
	put := func(name *string) {
		if *name != "" {
			*name = fmt.Sprint("file", n, path.Ext(*name))
			if !machine.IsPlainName(*name) || clean(*name) != *name {
				*name = fmt.Sprint("file", n)
			}
			n++
		}
	}
	for i := range m.Disks {
		d := &m.Disks[i]
		put(&d.File)
		if driverType(d.Format) == "" {
			d.Format = "vmdk"
		}
	}
	for i := range m.CDROMs {
		put(&m.CDROMs[i].File)
	}
	put(&m.NVRAM)
	return m
}

// schema is what virt-xml-validate uses.
const schema = "/usr/share/libvirt/schemas/domain.rng"

// defines has libvirt's test driver define domains, and its schema validate
// them.
func defines(t *testing.T, domains [][]byte) {
	t.Helper()
	virsh, xmllint := programs.Need(t, "virsh"), programs.Need(t, "xmllint")
	folder := t.TempDir()
	write := func(name string, data []byte) string {
		name = filepath.Join(folder, name)
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	var commands []string
	validate := []string{"--noout", "--nonet", "--relaxng", schema}
	for i, d := range domains {
		validate = append(validate, write(fmt.Sprint(i, ".xml"), d))
		// No host has two machines of one name.
		d = bytes.Replace(d, []byte("</name>"), fmt.Appendf(nil, "-%d</name>", i), 1)
		commands = append(commands, "define "+write(fmt.Sprint("define", i, ".xml"), d))
	}
	host := write("host.xml", []byte("<node/>")) // without machines
	out, err := exec.CommandContext(t.Context(), virsh, "-c", "test://"+host, strings.Join(commands, "; ")).CombinedOutput()
	if err != nil || bytes.Count(out, []byte(" defined from ")) != len(domains) {
		t.Errorf("libvirt does not define %d domains: %v\n%s", len(domains), err, out)
	}
	if out, err := exec.CommandContext(t.Context(), xmllint, validate...).CombinedOutput(); err != nil {
		t.Errorf("not all are valid: %v\n%s", err, out)
	}
}
