package appliance

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
)

// What real packages have that is not as DSP0243 wants it, and cannot be
// misunderstood: it is taken, and told.

// both opens a package as an archive and as a folder.
func (p packet) both(t *testing.T, do func(t *testing.T, a *Appliance, err error)) {
	t.Helper()
	for form, path := range map[string]string{"ova": p.ova(t, tar.FormatGNU), "folder": p.folder(t)} {
		t.Run(form, func(t *testing.T) {
			a, err := Open(t.Context(), path, Options{})
			do(t, a, err)
			if a != nil {
				a.Close()
			}
		})
	}
}

// want tests what is told of a package that is taken.
func wantWarnings(t *testing.T, a *Appliance, err error, want ...string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if got := a.Warnings(); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
	if r, err := a.Verify(t.Context()); err != nil || len(r.Wrong) > 0 {
		t.Errorf("Verify: %+v, %v", r, err)
	}
}

func TestMembersOutsideOfTheFolderOfTheOVF(t *testing.T) {
	p := newPacket("SHA256", twoDisks, isoFile)
	for i := range p {
		p[i].name = "vm/" + p[i].name
	}
	// They keep their names, and do not take the place of another.
	a, err := Open(t.Context(), p.set("README", []byte("x")).set("other/disk1.vmdk", []byte("y")).ova(t, tar.FormatGNU), Options{})
	wantWarnings(t, a, err)
	var names []string
	for _, f := range a.Files() {
		names = append(names, f.Name)
	}
	if want := []string{"cd.iso", "vm.nvram", "README", "other/disk1.vmdk", "vm.mf"}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
	if s, err := a.Disk(0); err != nil || !bytes.Equal(readSection(t, s.Section), twoDisks[0].data) {
		t.Errorf("disk %+v, %v", s, err)
	}
	a.Close()
	for _, name := range []string{"disk1.vmdk", "CD.iso", "vm.MF"} {
		if a, err := Open(t.Context(), p.set(name, []byte("x")).ova(t, tar.FormatGNU), Options{}); !errors.Is(err, machine.ErrMalformed) {
			t.Errorf("%s inside and outside: %v, %v", name, a, err)
		}
	}

	// Some count from the top of the archive.
	p = newPacket("", []fileOf{{name: "disk1.vmdk", href: "vm/disk1.vmdk", data: twoDisks[0].data}}, nil)
	p[0].name, p[1].name = "vm/vm.ovf", "vm/disk1.vmdk"
	a, err = Open(t.Context(), p.set("vm/vm.mf", manifestOf("SHA1", p)).ova(t, tar.FormatGNU), Options{})
	wantWarnings(t, a, err)
	if s, err := a.Disk(0); err != nil || s.Name != "disk1.vmdk" || !bytes.Equal(readSection(t, s.Section), twoDisks[0].data) {
		t.Errorf("disk %+v, %v", s, err)
	}
	a.Close()
}

func TestManifestThatNamesItself(t *testing.T) {
	empty := "= e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n" // SHA-256 of nothing
	for _, line := range []string{"SHA256 (vm.mf) ", "SHA256(./vm.mf)", "SHA256(vm%2Emf)", "SHA2-256(vm.mf)"} {
		p := newPacket("SHA256", twoDisks, isoFile)
		p.set("vm.mf", append([]byte(line+empty), p.get("vm.mf")...)).both(t, func(t *testing.T, a *Appliance, err error) {
			wantWarnings(t, a, err, "vm.mf names vm.mf, which it cannot vouch for: the line is ignored")
			if r, err := a.Verify(t.Context()); err != nil || len(r.Files) != 5 || slices.ContainsFunc(r.Files, func(f FileReport) bool { return !f.OK }) {
				t.Errorf("report %+v, %v", r, err)
			}
		})
	}

	// The certificate is made of the manifest; a signed one that names it is checked all the same.
	p := newPacket("SHA256", twoDisks, isoFile)
	p = sign(t, p.set("vm.mf", append([]byte("SHA256(vm.cert)"+empty), p.get("vm.mf")...)), "")
	p.both(t, func(t *testing.T, a *Appliance, err error) {
		wantWarnings(t, a, err, "vm.mf names vm.cert, which it cannot vouch for: the line is ignored")
		if r, err := a.Verify(t.Context()); err != nil || !r.Certificate.SignedOK {
			t.Errorf("report %+v, %v", r, err)
		}
	})

	// One that names what is not there, it can vouch for: it is not there.
	p.without("vm.cert").both(t, func(t *testing.T, a *Appliance, err error) {
		if !errors.Is(err, ErrDigest) {
			t.Errorf("without the certificate: %v, %v", a, err)
		}
	})
}

func TestSeveralDigestsOfAFile(t *testing.T) {
	good := newPacket("SHA256", twoDisks, isoFile)
	lines := map[string][]byte{"SHA256": good.get("vm.mf")}
	for _, algorithm := range []string{"SHA1", "SHA512"} {
		lines[algorithm] = manifestOf(algorithm, good.without("vm.mf"))
	}
	good.set("vm.mf", slices.Concat(lines["SHA1"], lines["SHA256"], lines["SHA512"], lines["SHA1"])).both(t, func(t *testing.T, a *Appliance, err error) {
		wantWarnings(t, a, err)
		if r, err := a.Verify(t.Context()); err != nil || len(r.Files) != 15 || !slices.Equal(r.Algorithms, []string{"SHA1", "SHA256", "SHA512"}) ||
			slices.ContainsFunc(r.Files, func(f FileReport) bool { return !f.OK }) {
			t.Errorf("report %+v, %v", r, err)
		}
	})

	// Each is checked, whichever comes first.
	for _, file := range []string{"vm.ovf", "disk1.vmdk", "cd.iso"} {
		for _, order := range [][]string{{"SHA1", "SHA256"}, {"SHA256", "SHA1"}} {
			other := bytes.Clone(good.get(file))
			other[0] ^= 1
			wrong := manifestOf(order[1], good.without("vm.mf").set(file, other))
			good.set("vm.mf", slices.Concat(lines[order[0]], wrong)).both(t, func(t *testing.T, a *Appliance, err error) {
				if err == nil {
					_, err = a.Verify(t.Context())
				}
				if !errors.Is(err, ErrDigest) || !strings.Contains(err.Error(), file+" has "+order[1]) {
					t.Errorf("%s: %v; want a wrong %s", file, err, order[1])
				}
			})
		}
	}
}

func TestFilesOfAnotherSizeThanTheOVFSays(t *testing.T) {
	for size, want := range map[string][]string{
		`ovf:size="5000"`:  nil,
		`ovf:size="-1"`:    nil,
		`ovf:size="5001"`:  {"d.vmdk has 5000 bytes, and vm.ovf says 5001: it may have been cut short"},
		`ovf:size="4999"`:  {"d.vmdk has 5000 bytes, and vm.ovf says 4999"},
		`ovf:size="0"`:     {"d.vmdk has 5000 bytes, and vm.ovf says 0"},
		`ovf:size="12345"`: {"d.vmdk has 5000 bytes, and vm.ovf says 12345: it may have been cut short"},
	} {
		newPacket("", []fileOf{{name: "d.vmdk", data: noise(1, 5000), attrs: size}}, nil).both(t, func(t *testing.T, a *Appliance, err error) {
			wantWarnings(t, a, err, want...)
		})
	}
}

func TestNamesThatDifferInCase(t *testing.T) {
	p := newPacket("", []fileOf{{name: "Sub/Disk1.VMDK", href: "sub/disk1.vmdk", data: twoDisks[0].data}}, nil)
	check := func(want ...string) func(t *testing.T, a *Appliance, err error) {
		return func(t *testing.T, a *Appliance, err error) {
			wantWarnings(t, a, err, want...)
			if s, err := a.Disk(0); err != nil || s.Name != "Sub/Disk1.VMDK" || !bytes.Equal(readSection(t, s.Section), twoDisks[0].data) {
				t.Errorf("disk %+v, %v", s, err)
			}
		}
	}
	insensitive := false
	if _, err := namesIn(filepath.Join(filepath.Dir(p.folder(t)), "sub")); err == nil {
		insensitive = true
	}
	told := `"sub/disk1.vmdk" is not in the package: "Sub/Disk1.VMDK" is taken for it`
	if !insensitive {
		p.both(t, check(told))
		p.set("vm.mf", []byte(strings.ReplaceAll(string(manifestOf("SHA256", p)), "Sub/", "SUB/"))).both(t,
			check(`"SUB/Disk1.VMDK" is not in the package: "Sub/Disk1.VMDK" is taken for it`, told))

		// Where two fit, nobody knows which is meant.
		path := p.set("sub/DISK1.vmdk", []byte("x")).folder(t)
		if a, err := Open(t.Context(), path, Options{}); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "2 files") {
			t.Errorf("two that fit: %v, %v", a, err)
		}
	}

	// A name that is there is that, whatever else there is.
	q := newPacket("", []fileOf{{name: "disk1.vmdk", data: twoDisks[0].data}}, nil).set("other/DISK1.vmdk", []byte("x"))
	q.both(t, func(t *testing.T, a *Appliance, err error) { wantWarnings(t, a, err) })
}

// So it is with a VMX or a .vbox, which come from Windows; libvirt's do not.
func TestNamesBesideADescriptorThatDifferInCase(t *testing.T) {
	dir := layout(t, "Sub/Disk.VMDK", "other.vmdk")
	if _, err := os.Stat(filepath.Join(dir, "sub")); err == nil {
		return // this system takes one for the other itself
	}
	vmx := writeFile(t, filepath.Join(dir, "vm.vmx"), []byte(vmxOf("", `sub\disk.vmdk`, "other.vmdk")))
	a, err := Open(t.Context(), vmx, Options{})
	wantWarnings(t, a, err, `"sub\\disk.vmdk" is not there: "Sub/Disk.VMDK" is taken for it`)
	defer a.Close()
	if s, err := a.Disk(0); err != nil || s.Path != filepath.Join(dir, "Sub", "Disk.VMDK") {
		t.Errorf("disk %+v, %v", s, err)
	}
	layout := func(name string) { writeFile(t, filepath.Join(dir, "Sub", name), []byte("x")) }
	layout("DISK.vmdk")
	if a, err := Open(t.Context(), vmx, Options{}); !errors.Is(err, ErrMissing) {
		t.Errorf("two that fit: %v, %v", a, err)
	}
	xml := writeFile(t, filepath.Join(dir, "vm.xml"), []byte(domainOf(filepath.Join(dir, "Other.vmdk"), "")))
	if a, err := Open(t.Context(), xml, Options{}); !errors.Is(err, ErrMissing) {
		t.Errorf("libvirt: %v, %v", a, err)
	}
}
