package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
)

// Everything in it is hostile.
func hostileMachine() *machine.Machine {
	const bad = "a\x1b[2J\nb\tc\u202e"
	return &machine.Machine{
		ID: bad, Name: "n" + bad, Description: strings.Repeat(bad, 100), CPUs: 1 << 60, CoresPerSocket: -1, Memory: 1<<63 - 1,
		Firmware: bad, SecureBoot: true, TPM: bad, GuestOS: machine.GuestOS{VMware: bad}, HardwareVersion: bad,
		Controllers: []machine.Controller{{Name: bad, Type: bad, Model: bad, Number: -1}},
		Disks:       []machine.Disk{{Name: bad, Controller: bad, Bus: bad, Unit: -1, Capacity: 5, Format: bad, File: bad, Parent: bad, ReadOnly: true}},
		CDROMs:      []machine.CDROM{{Name: bad, Controller: bad, Bus: bad, File: bad}},
		NICs:        []machine.NIC{{Name: bad, Type: bad, Network: bad, MAC: bad}},
		Display:     machine.Display{Type: bad, Memory: 1, Monitors: 1},
		BootOrder:   []machine.BootDevice{bad}, NVRAM: bad,
		Product: machine.Product{Name: bad, Vendor: bad, Version: bad, URL: bad},
		EULAs:   []string{bad},
		Properties: []machine.Property{
			{Class: bad, Key: bad, Value: bad},
			{Key: "password", Value: "hunter2"}, {Key: "a", Value: "hunter2", Password: true},
		},
		Unread: []machine.Loss{{Field: bad, Value: bad, Reason: bad}},
	}
}

func TestMachineTableIsPrintable(t *testing.T) {
	var b strings.Builder
	e := &machine.Envelope{Name: "all\x1b", Machines: []*machine.Machine{hostileMachine()}, Unread: hostileMachine().Unread}
	if err := printEnvelope(&b, e, true); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	for i, line := range lines {
		if line != printable(line) || len(line) > 2000 {
			t.Errorf("line %q", line)
		}
		if title := !strings.HasPrefix(line, "  "); title && !strings.HasPrefix(line, []string{"machine na", "all machines all"}[min(i, 1)]) {
			t.Errorf("a name has made a line of its own: %q", line)
		}
	}
	if strings.Contains(b.String(), "hunter2") {
		t.Errorf("a password is printed:\n%s", b.String())
	}
}

func TestShownMachineJSON(t *testing.T) {
	hostile := hostileMachine()
	text, err := json.Marshal(showMachine(hostile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hunter2") {
		t.Errorf("a password is in the JSON: %s", text)
	}
	if !reflect.DeepEqual(hostile, hostileMachine()) {
		t.Error("showing a machine has changed it")
	}

	text, err = json.Marshal(showMachine(&machine.Machine{}))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"name", "description", "cpus", "coresPerSocket", "memory", "firmware", "secureBoot", "tpm", "guestOS", "hardwareVersion",
		"controllers", "disks", "cdroms", "nics", "bootOrder", "properties", "eulas", "unread", "product", "display", "guestOSDetails"} {
		if value, ok := got[name]; !ok || value == nil {
			t.Errorf("%s is %v in %s", name, value, text)
		}
	}
	if _, ok := got["guestOS"].(string); !ok {
		t.Errorf("guestOS is %v, want a text", got["guestOS"])
	}
}

// What was not read is told, whatever it belongs to.
func TestShownUnread(t *testing.T) {
	e := &machine.Envelope{
		Machines: []*machine.Machine{{ID: "a", Unread: []machine.Loss{{Field: "serial0"}}}},
		Unread:   []machine.Loss{{Field: "DeploymentOptionSection"}},
	}
	want := []machine.Loss{{Field: "serial0"}, {Field: "DeploymentOptionSection"}}
	if got := showOnly(e).Unread; !reflect.DeepEqual(got, want) {
		t.Errorf("of one machine: %+v", got)
	}
	if got := e.AllUnread(); len(got) != 2 {
		t.Errorf("converted: %+v", got)
	}
	e.Machines = append(e.Machines, &machine.Machine{ID: "b"})
	r := newInspectReport()
	r.addMachines(e)
	if len(r.Machine.Unread) != 1 || len(r.Machines) != 2 || len(r.Machines[0].Unread) != 1 {
		t.Errorf("of two machines: %+v", r)
	}
}

func TestBinaryBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 512: "512 B", 1024: "1 KiB", 1 << 30: "1 GiB", 1536 << 20: "1536 MiB", 1030 << 20: "1030 MiB",
		40 << 30: "40 GiB", 40<<30 + 512: "40 GiB", 1<<63 - 1: "8388608 TiB",
	} {
		if got := binaryBytes(n); got != want {
			t.Errorf("binaryBytes(%d) = %q, want %q", n, got, want)
		}
	}
}

// A warning names the property, and never what is in it.
func TestWarnPublished(t *testing.T) {
	for _, test := range []struct {
		name string
		p    machine.Property
		want string
	}{
		{"password", machine.Property{Key: "pw", Value: "hunter2", Password: true}, "pw is published: it looks like a password"},
		{"password by name", machine.Property{Class: "com.acme", Key: "admin_passwd", Instance: "1", Value: "hunter2", Type: "string"}, "com.acme.admin_passwd.1 is published"},
		{"password by label", machine.Property{Key: "p1", Label: "Root Password", Value: "hunter2"}, "p1 is published"},
		{"token", machine.Property{Key: "joinToken", Value: "hunter2"}, "joinToken is published"},
		{"key in PEM", machine.Property{Key: "x", Value: "-----BEGIN RSA PRIVATE KEY-----\nhunter2", Type: "string"}, "x is published: it looks like a private key"},
		{"key by name", machine.Property{Key: "ssh_private_key", Value: "hunter2"}, "it looks like a private key"},
		{"product key", machine.Property{Key: "License Key", Value: "hunter2"}, "it looks like a product key"},
		{"password without default", machine.Property{Key: "pw", Password: true}, ""},
		{"whether passwords are allowed", machine.Property{Key: "PasswordAuth", Value: "True", Type: "boolean"}, ""},
		{"yes without a type", machine.Property{Key: "passwordAuth", Value: "true"}, ""},
		{"days of a password", machine.Property{Key: "password.days", Value: "90", Type: "uint16"}, ""},
		{"public key", machine.Property{Key: "ssh_public_host_key", Value: "ssh-ed25519 AAAA"}, ""},
		{"harmless", machine.Property{Key: "hostname", Value: "web"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := stderrOf(t, func(g *globals) {
				warnPublished(g, &machine.Envelope{Machines: []*machine.Machine{{ID: "vm", Properties: []machine.Property{test.p}}}})
			})
			if got == "" && test.want != "" || !strings.Contains(got, test.want) || test.want == "" && got != "" || strings.Contains(got, "hunter2") {
				t.Errorf("got %q, want %q", got, test.want)
			}
			shown := showProperties([]machine.Property{test.p})[0]
			if shown.Withheld != (test.want != "") || shown.Withheld != (shown.Value == "" && test.p.Value != "") {
				t.Errorf("shown as %+v", shown)
			}
		})
	}
	got := stderrOf(t, func(g *globals) {
		warnPublished(g, &machine.Envelope{
			Properties: []machine.Property{{Key: "pw", Value: "hunter2", Password: true}},
			Machines: []*machine.Machine{
				{ID: "a", NVRAM: "a.nvram"},
				{ID: "b", NVRAM: "b.nvram", TPM: machine.TPM20, Properties: []machine.Property{{Key: "pw", Value: "hunter2", Password: true}}},
			},
		})
	})
	want := `davit: warning: the default of property pw is published: it looks like a password
davit: warning: a.nvram of machine a is published: the firmware's variables can hold keys
davit: warning: the default of property pw of machine b is published: it looks like a password
davit: warning: b.nvram of machine b is published: the firmware's variables can hold keys, and so can the state of the TPM
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// stderrOf is what do prints there.
func stderrOf(t *testing.T, do func(*globals)) string {
	t.Helper()
	path := t.TempDir() + "/stderr"
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	do(&globals{stderr: &console{file: f}})
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What people see of machines as products describe them. A reader that learns
// more changes these tables: they are to be looked at, then written anew with
// "davit machine show".
func TestMachineTables(t *testing.T) {
	tables, err := filepath.Glob("testdata/tables/*.txt")
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	for _, table := range tables {
		name := strings.TrimSuffix(filepath.Base(table), ".txt")
		e, err := readDescriptor(t.Context(), &globals{stderr: &console{file: os.Stderr}}, filepath.Join("../../testdata/machines", name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		if err := printEnvelope(&got, e, true); err != nil {
			t.Fatal(err)
		}
		if got.String() != string(want) {
			t.Errorf("%s is shown as\n%s\nwant\n%s", name, got.String(), want)
		}
	}
}
