package ovf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
)

// targets are all for which an OVF is written.
var targets = []Target{"", VMware, VirtualBox}

// fixed says what is wrong where an envelope that was read does not come back from what is written of it, field by field, or
// where that is not written again byte for byte. It returns what was written for each target.
func fixed(e *machine.Envelope) (written [][]byte, err error) {
	for _, target := range targets {
		o := WriteOptions{Target: target}
		data, _, err := Write(e, o)
		if err != nil {
			return nil, fmt.Errorf("writing for %q: %w", target, err)
		}
		again, err := Parse(data)
		if err != nil {
			return nil, fmt.Errorf("reading what was written for %q: %w\n%s", target, err, data)
		}
		if d := differences(fields(again), fields(e)); len(d) > 0 {
			return nil, fmt.Errorf("written for %q, %s is no longer %q\n%s", target, d[0].path, d[0].value, data)
		}
		twice, _, err := Write(again, o)
		if err != nil {
			return nil, fmt.Errorf("writing again for %q: %w", target, err)
		}
		if !bytes.Equal(twice, data) {
			return nil, fmt.Errorf("written again for %q it is\n%s\nwant\n%s", target, twice, data)
		}
		written = append(written, data)
	}
	return written, nil
}

// validate checks documents against the schema of OVF 1.1.1.
func validate(t *testing.T, documents map[string][]byte) {
	t.Helper()
	xmllint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("xmllint is missing: apt-get install libxml2-utils runs this test")
	}
	dir := t.TempDir()
	args := []string{"--nonet", "--noout", "--schema", "../../testdata/schema/dsp8023_1.1.1.xsd"}
	for name, data := range documents {
		path := filepath.Join(dir, name+".ovf")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out, err := exec.CommandContext(t.Context(), xmllint, args...).CombinedOutput()
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(string(out), "\n") {
		if strings.HasPrefix(line, dir) && !strings.HasSuffix(line, " validates") {
			t.Error(strings.TrimPrefix(line, dir))
		}
	}
	t.Error(err)
}

// descriptors are OVFs of products: those that are committed, and where it is there the corpus beside the repository.
func descriptors(t *testing.T) []string {
	t.Helper()
	var files []string
	for _, root := range []string{"../../testdata/machines", "../../../shared/corpus"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && strings.HasSuffix(path, ".ovf") {
				files = append(files, path)
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return files
}

// What products describe comes back from what is written of it, is written the same again, and is OVF 1.1 by the schema.
func TestWrittenDescriptorsComeBack(t *testing.T) {
	documents := make(map[string][]byte)
	for i, file := range descriptors(t) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		e, err := Parse(data)
		if err != nil {
			continue // the reader's tests say which, and why
		}
		written, err := fixed(e)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		for n, document := range written {
			documents[fmt.Sprintf("%d-%d-%s", i, n, filepath.Base(file))] = document
		}
	}
	if len(documents) > 0 {
		t.Logf("%d documents", len(documents))
		validate(t, documents)
	}
}

// Machines as no product has them come back as well.
func TestWrittenRandomMachinesComeBack(t *testing.T) {
	documents := make(map[string][]byte)
	for seed := range int64(300) {
		e := randomEnvelope(rand.New(rand.NewSource(seed)))
		written, err := fixed(e)
		if err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
		for n, document := range written {
			documents[fmt.Sprintf("%d-%d", seed, n)] = document
		}
	}
	validate(t, documents)
}

// hostile are texts that have meant something else than themselves to somebody.
var hostile = []string{
	"", " ", "x", "plain text", `"quotes" and 'apostrophes'`, "<&>", "]]>", "<![CDATA[x]]>", "&amp;", "&#0;", "<!-- x -->", "</davit:Field>",
	"two\nlines", "\ttab", "carriage\rreturn", "\r\n", " spaces around ", "no\u00a0break", "\u202egnp.exe\u202c", "\u2066isolate\u2069", "\ufeffmark",
	"\u0085next line", "\u2028line", "日本語", "e\u0301", "🖥", "${property}", "%20", "a/b", `C:\x`, "-rf", "true", "0", "false", "null", "a b  c",
	"$(reboot)", "`id`", "%s%n", strings.Repeat("long ", 2000),
}

type random struct{ *rand.Rand }

func randomEnvelope(r *rand.Rand) *machine.Envelope {
	g := random{r}
	e := &machine.Envelope{}
	for i := range g.Intn(5) {
		f := machine.File{ID: fmt.Sprint("f", i, g.word()), Name: fmt.Sprint(i, g.of("disk.vmdk", "my disk.vmdk", "ü%20.iso", "{x}.vmdk", "a/b'c", "x&y")), Size: g.Int63() >> g.Intn(63)}
		if g.yes() {
			f.Size = -1
		}
		if g.yes() {
			f.Compression, f.ChunkSize = "gzip", 1+g.Int63n(1<<40)
		}
		e.Files = append(e.Files, f)
	}
	for i := range g.Intn(5) {
		d := machine.Disk{Name: fmt.Sprint("d", i, g.word()), Capacity: g.Int63() >> (5 + g.Intn(58)), Format: g.of("raw", "vmdk", "qcow2", "vhd", "vhdx", "vdi", "")}
		d.File = g.file(e)
		if len(e.Disks) > 0 && g.yes() {
			d.Parent = e.Disks[g.Intn(len(e.Disks))].Name
		}
		e.Disks = append(e.Disks, d)
	}
	n := 1
	if g.yes() {
		e.ID, e.Name = "collection", g.word()
		n = g.Intn(4)
	}
	for i := range n {
		e.Machines = append(e.Machines, g.machine(e, fmt.Sprint("vm", i, g.word())))
	}
	if g.yes() {
		e.Product = &machine.Product{Name: "p" + g.word(), Vendor: g.word()}
	}
	for range g.Intn(3) {
		e.EULAs = append(e.EULAs, "text"+g.word())
	}
	return e
}

func (g random) machine(e *machine.Envelope, id string) *machine.Machine {
	m := &machine.Machine{
		ID:              id,
		Name:            g.text(),
		Description:     g.text(),
		CPUs:            g.Intn(machine.MaxCPUs),
		CoresPerSocket:  g.Intn(9),
		Memory:          g.Int63() >> (13 + g.Intn(50)),
		Firmware:        machine.Firmware(g.of("", "bios", "uefi")),
		SecureBoot:      g.yes(),
		TPM:             machine.TPM(g.of("", "", "1.2", "2.0")),
		GuestOS:         machine.GuestOS{CIM: g.Intn(1 << 16), Version: g.text(), VMware: g.of("", "debian12_64Guest", g.text()), VirtualBox: g.of("", "Debian12_64", g.text()), Osinfo: g.text(), Description: g.text()},
		HardwareVersion: g.of("", "vmx-19", "vmx-07 vmx-08", "virtualbox-2.2", "pc-q35-8.2", g.text()),
		Display:         machine.Display{Type: g.of("", "vmvga", "qxl", g.text()), Memory: g.Int63() >> (13 + g.Intn(50)), Monitors: g.Intn(3)},
		NVRAM:           g.file(e),
		Product:         machine.Product{Name: g.text(), Vendor: g.text(), Version: g.text(), FullVersion: g.text(), URL: g.text(), VendorURL: g.text(), AppURL: g.text()},
	}
	for i := range g.Intn(5) {
		c := machine.Controller{Name: fmt.Sprint("c", i), Type: machine.Bus(g.of(buses[1:]...)), Number: g.Intn(40)}
		c.Model = machine.ControllerModel(g.of("", "piix4", "ahci", "lsilogic", "lsisas1068", "buslogic", "pvscsi", "virtio-scsi", "xhci", "uhci", g.text()))
		if g.yes() { // as readers call them
			c.Number = len(m.Controllers)
			c.Name = fmt.Sprint(c.Type, c.Number)
		}
		m.Controllers = append(m.Controllers, c)
	}
	attach := func() (string, machine.Bus, int) {
		if n := len(m.Controllers); n > 0 && g.yes() {
			c := m.Controllers[g.Intn(n)]
			unit := g.Intn(16)
			if c.Type == machine.IDE {
				unit = 0
			}
			return c.Name, c.Type, unit
		}
		return "", machine.Bus(g.of("virtio", "usb", "sd", "xen", "")), g.Intn(4)
	}
	for _, d := range e.Disks {
		if g.yes() {
			d.Controller, d.Bus, d.Unit = attach()
			d.ReadOnly = g.yes()
			if !g.onIDE(m, d.Controller) {
				m.Disks = append(m.Disks, d)
			}
		}
	}
	for range g.Intn(3) {
		cd := machine.CDROM{Name: g.text(), File: g.file(e)}
		cd.Controller, cd.Bus, cd.Unit = attach()
		if !g.onIDE(m, cd.Controller) {
			m.CDROMs = append(m.CDROMs, cd)
		}
	}
	for range g.Intn(4) {
		m.NICs = append(m.NICs, machine.NIC{Name: g.text(), Type: machine.NICType(g.of("", "e1000", "e1000e", "vmxnet3", "virtio", "synthetic", "flexible", g.text())), Network: g.text(), MAC: g.of("", "52:54:00:12:34:56")})
	}
	for range g.Intn(4) {
		m.BootOrder = append(m.BootOrder, machine.BootDevice(g.of("disk", "cdrom", "network", "floppy")))
	}
	for range g.Intn(3) {
		m.EULAs = append(m.EULAs, g.text())
	}
	for range g.Intn(3) {
		m.Transport = append(m.Transport, g.of("iso", "com.vmware.guestInfo", g.text()))
	}
	for i := range g.Intn(6) {
		m.Properties = append(m.Properties, machine.Property{
			Class: g.of("", "a", "b<"), Instance: g.of("", "1"), Key: fmt.Sprint("k", i), Type: g.of("string", "uint8", "boolean", "password", "ip"), Value: g.text(), Qualifiers: g.text(),
			Label: g.text(), Description: g.text(), Category: g.text(), UserConfigurable: g.yes(), Password: g.yes(),
		})
	}
	return m
}

// onIDE says whether a channel of IDE has a drive already: it has room for two, and the units of more have no meaning.
func (g random) onIDE(m *machine.Machine, controller string) bool {
	if !strings.HasPrefix(controller, "ide") && !slices.ContainsFunc(m.Controllers, func(c machine.Controller) bool { return c.Name == controller && c.Type == machine.IDE }) {
		return false
	}
	return slices.ContainsFunc(m.Disks, func(d machine.Disk) bool { return d.Controller == controller }) ||
		slices.ContainsFunc(m.CDROMs, func(c machine.CDROM) bool { return c.Controller == controller })
}

func (g random) yes() bool                 { return g.Intn(2) == 0 }
func (g random) of(words ...string) string { return words[g.Intn(len(words))] }
func (g random) text() string              { return g.of(hostile...) }

// word is text without space around it.
func (g random) word() string { return strings.TrimSpace(g.text()) }

func (g random) file(e *machine.Envelope) string {
	if len(e.Files) == 0 || g.yes() {
		return ""
	}
	return e.Files[g.Intn(len(e.Files))].Name
}
