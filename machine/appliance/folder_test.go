package appliance

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
)

const vmxHead = `.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "vm"
guestOS = "debian12-64"
memsize = "64"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
`

// vmxOf is a VMX with these disks, and perhaps a CD image.
func vmxOf(cd string, disks ...string) string {
	s := vmxHead
	for i, d := range disks {
		s += fmt.Sprintf("scsi0:%d.present = \"TRUE\"\nscsi0:%d.fileName = \"%s\"\n", i, i, d)
	}
	if cd != "" {
		s += "ide1:0.present = \"TRUE\"\nide1:0.deviceType = \"cdrom-image\"\nide1:0.fileName = \"" + cd + "\"\n"
	}
	return s
}

// domainOf is a libvirt domain with one raw disk and one CD image.
func domainOf(disk, cd string) string {
	return `<domain type='kvm'><name>vm</name><memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os><devices>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='` + disk + `'/><target dev='vda' bus='virtio'/></disk>
<disk type='file' device='cdrom'><driver name='qemu' type='raw'/><source file='` + cd + `'/><target dev='sda' bus='sata'/></disk>
</devices></domain>`
}

// cdOf is the image of a CD with some content, as far as anybody looks.
func cdOf(content []byte) []byte {
	return append(append(make([]byte, 16*2048), "\x01CD001\x01\x00"...), content...)
}

// nvramOf is a file of VMware's with some content.
func nvramOf(content []byte) []byte { return append([]byte("MRVN\x01\x00\x00\x00"), content...) }

// layout makes files, whose content is their name, below a folder, and returns
// it without symbolic links. CD images and variables are such.
func layout(t *testing.T, names ...string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		data := []byte(name)
		switch filepath.Ext(name) {
		case ".iso":
			data = cdOf(data)
		case ".nvram":
			data = nvramOf(data)
		}
		writeFile(t, path, data)
	}
	return dir
}

func TestDisksBesideADescriptor(t *testing.T) {
	dir := layout(t, "vm/disk.vmdk", "vm/sub/disk.vmdk", "vm/vm_1.vmdk", "vm/cd.iso", "store/disk.vmdk", "store/base/x.vmdk", "secret.vmdk")
	store := filepath.Join(dir, "store")
	if runtime.GOOS != "windows" {
		for link, to := range map[string]string{"vm/out.vmdk": "../secret.vmdk", "vm/in.vmdk": "disk.vmdk", "vm/into.vmdk": "../store/disk.vmdk"} {
			if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
	}
	abs := func(name string) string { return filepath.ToSlash(filepath.Join(dir, name)) }
	for _, test := range []struct {
		name    string
		file    string
		backing string
		want    string // path; empty: refused
		called  string
	}{
		{"beside it", "disk.vmdk", "", "vm/disk.vmdk", "disk.vmdk"},
		{"below it", "sub/disk.vmdk", "", "vm/sub/disk.vmdk", "sub/disk.vmdk"},
		{"below it, of Windows", `sub\disk.vmdk`, "", "vm/sub/disk.vmdk", "sub/disk.vmdk"},
		{"absolute and beside it", abs("vm/disk.vmdk"), "", "vm/disk.vmdk", "disk.vmdk"},
		{"of a datastore", "[datastore1] vm/vm_1.vmdk", "", "vm/vm_1.vmdk", "vm_1.vmdk"},
		{"of an ESXi host", "/vmfs/volumes/4af0231d-1eff559a/vm/vm_1.vmdk", "", "vm/vm_1.vmdk", "vm_1.vmdk"},
		{"of a Windows host", `C:\VMs\vm\vm_1.vmdk`, "", "vm/vm_1.vmdk", "vm_1.vmdk"},
		{"another folder, allowed", abs("store/base/x.vmdk"), store, "store/base/x.vmdk", "x.vmdk"},
		{"another folder by a relative name, allowed", "../store/base/x.vmdk", store, "store/base/x.vmdk", "x.vmdk"},
		{"another folder", abs("store/base/x.vmdk"), "", "", ""},
		{"another folder by a relative name", "../store/base/x.vmdk", "", "", ""},
		{"outside of what is allowed", abs("secret.vmdk"), store, "", ""},
		{"not there", "gone.vmdk", "", "", ""},
		{"a folder", "sub", "", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := writeFile(t, filepath.Join(dir, "vm", "vm.vmx"), []byte(vmxOf("", test.file)))
			checkBeside(t, path, dir, Options{BackingDir: test.backing}, test.want, test.called)
		})
	}
	if runtime.GOOS == "windows" {
		return
	}
	for _, test := range []struct{ name, file, backing, want, called string }{
		{"link within the folder", "in.vmdk", "", "vm/in.vmdk", "in.vmdk"},
		{"link out of the folder", "out.vmdk", "", "", ""},
		{"link into an allowed folder", "into.vmdk", store, "", ""}, // named where it is, it is allowed
	} {
		t.Run(test.name, func(t *testing.T) {
			path := writeFile(t, filepath.Join(dir, "vm", "vm.vmx"), []byte(vmxOf("", test.file)))
			checkBeside(t, path, dir, Options{BackingDir: test.backing}, test.want, test.called)
		})
	}
}

func checkBeside(t *testing.T, path, dir string, o Options, want, called string) {
	t.Helper()
	a, err := Open(t.Context(), path, o)
	if want == "" {
		if !errors.Is(err, ErrMissing) {
			t.Errorf("Open = %v, %v; want ErrMissing", a, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	s, err := a.Disk(0)
	if err != nil || s.Path != filepath.Join(dir, filepath.FromSlash(want)) || s.Section != nil || s.Name != called || s.Format != "vmdk" {
		t.Errorf("disk %+v, %v; want %s", s, err, want)
	}
	for _, d := range []string{a.Disks[0].File, a.Machines[0].Disks[0].File, a.Envelope.Files[0].Name} {
		if d != called {
			t.Errorf("the machine calls it %q, want %q", d, called)
		}
	}
	if in, err := filepath.Rel(s.BackingDir, s.Path); err != nil || !filepath.IsLocal(in) {
		t.Errorf("further files may lie in %s, the disk is %s", s.BackingDir, s.Path)
	}
}

func TestFilesBesideADescriptor(t *testing.T) {
	dir := layout(t, "vm.vmx", "disk.vmdk", "cd.iso", "vm.nvram", "sub/disk.vmdk", "iso/cd.iso")
	vmx := filepath.Join(dir, "vm.vmx")

	// What is there travels, and what is not is a loss.
	writeFile(t, vmx, []byte(vmxOf("cd.iso", "disk.vmdk", "sub/disk.vmdk")+"firmware = \"efi\"\nnvram = \"vm.nvram\"\n"))
	a := mustOpen(t, vmx, Options{})
	var names []string
	for _, f := range a.Files() {
		data := readSection(t, f.Content)
		names = append(names, f.Name+" "+string(f.Role)+" "+string(data[max(0, len(data)-len(f.Name)):]))
	}
	slices.Sort(names)
	if want := []string{"cd.iso cd cd.iso", "vm.nvram nvram vm.nvram"}; !slices.Equal(names, want) {
		t.Errorf("files %q, want %q", names, want)
	}
	if r, err := a.Verify(t.Context()); err != nil || r.Manifest != "" || len(r.Files) > 0 {
		t.Errorf("Verify: %+v, %v", r, err)
	}
	if files, err := a.SourceFiles(nil); err != nil || len(files) != 5 || files[0].Name != "vm.vmx" {
		t.Errorf("source files %+v, %v", files, err)
	}

	writeFile(t, vmx, []byte(vmxOf("/vmimages/tools-isoimages/linux.iso", "disk.vmdk")))
	a = mustOpen(t, vmx, Options{})
	m := a.Machines[0]
	if len(m.CDROMs) != 1 || m.CDROMs[0].File != "" || len(a.Files()) != 0 || len(a.Envelope.Files) != 1 {
		t.Errorf("without the CD image: %+v, %v", m.CDROMs, a.Files())
	}
	if !slices.ContainsFunc(m.Unread, func(l machine.Loss) bool { return strings.Contains(l.Value, "linux.iso") }) {
		t.Errorf("no loss of the CD image: %+v", m.Unread)
	}

	// Two files of one name in two folders have two names in the package.
	other := layout(t, "cd.iso")
	xml := writeFile(t, filepath.Join(dir, "vm.xml"), []byte(domainOf(filepath.Join(dir, "disk.vmdk"), filepath.Join(other, "cd.iso"))))
	a = mustOpen(t, xml, Options{BackingDir: other})
	if s, err := a.Disk(0); err != nil || s.Format != "raw" || s.Path != filepath.Join(dir, "disk.vmdk") {
		t.Errorf("disk %+v, %v", s, err)
	}
	if f := a.Files(); len(f) != 1 || f[0].Name != "cd.iso" || a.Machines[0].CDROMs[0].File != "cd.iso" {
		t.Errorf("files %+v of %+v", f, a.Machines[0].CDROMs)
	}
	// A domain's files are where it says, and nowhere else.
	writeFile(t, xml, []byte(domainOf("/var/lib/libvirt/images/disk.vmdk", "")))
	if a, err := Open(t.Context(), xml, Options{}); !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "not allowed") {
		t.Errorf("Open = %v, %v", a, err)
	}
}

// The guest of a raw disk could have written a header to it that names a file
// beside it. So where the format is not said, only the user allows that.
func TestFurtherFilesOfADiskOfUnknownFormat(t *testing.T) {
	a := &Appliance{
		Envelope: &machine.Envelope{Disks: []machine.Disk{{Name: "disk0", File: "disk.img"}, {Name: "disk1", File: "disk.img", Format: "qcow2"}}},
		paths:    map[string]located{"disk.img": {path: "/vm/disk.img", local: "disk.img", in: tree{names: []string{"/vm", "/vm"}}}},
	}
	for i, want := range []string{"", "/vm"} {
		if s, err := a.Disk(i); err != nil || s.BackingDir != want || s.Hidden {
			t.Errorf("disk %d: %+v, %v; want %q", i, s, err, want)
		}
	}
}

func TestTitlesOfFiles(t *testing.T) {
	titles := make(map[string]bool)
	for _, test := range []struct{ path, local, want string }{
		{"/a/disk.vmdk", "disk.vmdk", "disk.vmdk"},
		{"/b/disk.vmdk", "", "disk-2.vmdk"},
		{"/b/Disk.VMDK", "", "Disk-3.VMDK"},
		{"/a/sub/disk.vmdk", "sub/disk.vmdk", "sub/disk.vmdk"},
		{"/c/a:b*.iso", "", "a-b.iso"},
		{"/c/" + strings.Repeat("x", 300), "", strings.Repeat("x", 63)},
		{"/c/größe", "", "größe"},
		{"/c/a\nb", "", "a-b"},
	} {
		if got := title(located{path: filepath.FromSlash(test.path), local: test.local}, titles); got != test.want {
			t.Errorf("title(%q) = %q, want %q", test.path, got, test.want)
		}
	}
}

// A descriptor in somebody's home must not publish what they hide there, whatever
// it calls it, and wherever a link leads.
func TestHiddenFilesAreNotOpened(t *testing.T) {
	dir := layout(t, "disk.vmdk", ".ssh/id_ed25519", ".docker/config.json", "a/.git/config", ".netrc", ".iso/cd.iso", ".iso/vm.nvram", ".iso/disk.vmdk")
	names := []string{".ssh/id_ed25519", ".docker/config.json", "a/.git/config", ".netrc", "./.netrc", "a/../.netrc", ".iso/cd.iso", ".iso/disk.vmdk"}
	if runtime.GOOS != "windows" {
		for link, to := range map[string]string{"link.vmdk": ".ssh/id_ed25519", "folder": ".ssh"} {
			if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
		names = append(names, "link.vmdk", "folder/id_ed25519")
	}
	abs := func(name string) string { return filepath.ToSlash(filepath.Join(dir, name)) }
	for _, name := range names {
		descriptors := map[string]string{
			"disk.vmx":  vmxOf("", name),
			"cd.vmx":    vmxOf(name, "disk.vmdk"),
			"win.vmx":   vmxOf(strings.ReplaceAll(name, "/", `\`), "disk.vmdk"),
			"abs.vmx":   vmxOf(abs(name), "disk.vmdk"),
			"nvram.vmx": vmxOf("", "disk.vmdk") + "nvram = \"" + name + "\"\n",
			"disk.xml":  domainOf(abs(name), ""),
			"cd.xml":    domainOf(abs("disk.vmdk"), abs(name)),
		}
		if !strings.Contains(name, "..") { // which no OVF may have
			descriptors["disk.ovf"] = ovfOf([]fileOf{{name: name}}, nil)
			descriptors["file.ovf"] = ovfOf(nil, []fileOf{{name: name}})
			descriptors["cd.ovf"] = ovfOf(nil, []fileOf{{name: "cd.iso", href: name}})
			descriptors["percent.ovf"] = ovfOf(nil, []fileOf{{name: name, href: strings.ReplaceAll(name, ".", "%2E")}})
			descriptors["mf.ovf"] = ovfOf(nil, nil)
		}
		for kind, text := range descriptors {
			path := writeFile(t, filepath.Join(dir, kind), []byte(text))
			if kind == "mf.ovf" {
				writeFile(t, filepath.Join(dir, "mf.mf"), []byte("SHA256("+name+")= "+strings.Repeat("0", 64)+"\n"))
			}
			if a, err := Open(t.Context(), path, Options{}); !errors.Is(err, ErrHidden) {
				t.Errorf("%s of %s: %v, %v; want ErrHidden", kind, name, a, err)
			}
			for _, remove := range []string{path, filepath.Join(dir, "mf.mf")} {
				if err := os.Remove(remove); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
		}
	}

	// Who names the folder allows it, and no other.
	path := writeFile(t, filepath.Join(dir, "vm.vmx"), []byte(vmxOf(".iso/cd.iso", ".iso/disk.vmdk")+"nvram = \".iso/vm.nvram\"\n"))
	a := mustOpen(t, path, Options{BackingDir: filepath.Join(dir, ".iso")})
	if s, err := a.Disk(0); err != nil || s.Path != filepath.Join(dir, ".iso", "disk.vmdk") || !s.Hidden {
		t.Errorf("disk %+v, %v", s, err)
	}
	if len(a.Files()) != 2 {
		t.Errorf("files %+v", a.Files())
	}
	path = writeFile(t, filepath.Join(dir, "vm.ovf"), []byte(ovfOf([]fileOf{{name: ".iso/disk.vmdk"}}, []fileOf{{name: ".iso/cd.iso"}})))
	mustOpen(t, path, Options{BackingDir: filepath.Join(dir, ".iso")})
	if a, err := Open(t.Context(), path, Options{BackingDir: filepath.Join(dir, ".ssh")}); !errors.Is(err, ErrHidden) {
		t.Errorf("another folder is allowed: %v, %v", a, err)
	}

	// The descriptor is what the user named.
	hidden := writeFile(t, filepath.Join(dir, ".vm.ovf"), []byte(ovfOf([]fileOf{{name: "disk.vmdk"}}, nil)))
	mustOpen(t, hidden, Options{})
}

// What a descriptor calls a CD image or a firmware's variables travels as it is.
func TestFilesAreWhatTheDescriptorSays(t *testing.T) {
	key := []byte("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmU\n-----END OPENSSH PRIVATE KEY-----\n")
	at := func(off int, mark string) []byte { return append(make([]byte, off), mark...) }
	sized := func(b []byte, n int) []byte { return append(b, noise(3, n-len(b))...) }
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(cdOf(nil)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	tarOfVBox, _ := tarOf(t, tar.FormatUSTAR, []tarMember{{"efi/nvram", at(40, "_FVH")}})
	tarOfKeys, _ := tarOf(t, tar.FormatUSTAR, []tarMember{{"id_rsa", key}})
	qcow2 := func(backing, size byte) []byte {
		return append([]byte("QFI\xfb\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00"), backing, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, size, 0, 0, 0)
	}
	for _, test := range []struct {
		name  string
		data  []byte
		cd    bool
		nvram bool
	}{
		{"a private key", key, false, false},
		{"a key with as many bytes as a sector", bytes.Repeat(key, 2048)[:2048], false, false},
		{"a database", sized([]byte("SQLite format 3\x00"), 65536), false, false},
		{"noise", noise(1, 64<<10), false, false},
		{"ISO 9660", cdOf(nil), true, false},
		{"ISO 9660 behind boot code", append(sized(nil, 16*2048), "\x01CD001"...), true, false},
		{"UDF", at(16*2048, "\x00BEA01"), true, false},
		{"UDF, its second descriptor", append(sized(nil, 17*2048), "\x00NSR03"...), true, false},
		{"HFS+", at(1024, "H+"), true, false},
		{"ext4 on a whole medium", at(1080, "\x53\xef"), true, false},
		{"XFS on a whole medium", at(0, "XFSB\x00\x00\x10\x00"), true, false},
		{"squashfs", at(0, "hsqs\x07"), true, false},
		{"a hybrid", append(sized(nil, 510), "\x55\xaa"...), true, false},
		{"sectors of 2352 bytes", sized([]byte("\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00"), 65536), true, false},
		{"a DMG", append(sized(nil, 4096), at(0, "koly"+strings.Repeat("\x01", 508))...), true, false},
		{"nothing", nil, true, true},
		{"zeros", make([]byte, 65536), true, true},
		{"VMware's variables", nvramOf(noise(1, 8000)), false, true},
		{"UEFI's variables", at(40, "_FVH\x01\x02"), false, true},
		{"erased flash", bytes.Repeat([]byte{0xff}, 65536), false, true},
		{"VirtualBox's variables with a TPM", tarOfVBox, false, true},
		{"an archive of something else", tarOfKeys, false, false},
		{"flash in a qcow2", qcow2(0, 4), false, true},
		{"a disk in a qcow2", qcow2(0, 100), false, false},
		{"a qcow2 on another file", qcow2(1, 4), false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := layout(t, "disk.vmdk")
			writeFile(t, filepath.Join(dir, "file"), test.data)
			for kind, text := range map[string]string{
				"cd.vmx":    vmxOf("file", "disk.vmdk"),
				"nvram.vmx": vmxOf("", "disk.vmdk") + "nvram = \"file\"\n",
				"cd.xml":    domainOf(filepath.Join(dir, "disk.vmdk"), filepath.Join(dir, "file")),
				"cd.ovf":    ovfOf(nil, []fileOf{{name: "cd.iso", href: "file"}}),
			} {
				path := writeFile(t, filepath.Join(dir, kind), []byte(text))
				want := test.cd
				if strings.HasPrefix(kind, "nvram") {
					want = test.nvram
				}
				a, err := Open(t.Context(), path, Options{BackingDir: dir}) // which allows hidden files, not these
				if want && err != nil || !want && !errors.Is(err, ErrNotMedium) {
					t.Errorf("%s: %v", kind, err)
				}
				if a != nil {
					a.Close()
				}
			}
		})
	}

	dir := layout(t, "disk.vmdk")
	for _, test := range []struct {
		attrs string
		data  []byte
		ok    bool
	}{
		{`ovf:compression="gzip"`, packed.Bytes(), true},
		{`ovf:compression="gzip"`, key, false},
		{`ovf:compression="bzip2"`, key, false},
		{"", packed.Bytes(), false},
	} {
		writeFile(t, filepath.Join(dir, "cd.iso"), test.data)
		path := writeFile(t, filepath.Join(dir, "vm.ovf"), []byte(ovfOf(nil, []fileOf{{name: "cd.iso", attrs: test.attrs}})))
		a, err := Open(t.Context(), path, Options{})
		if test.ok != (err == nil) {
			t.Errorf("%q of %d bytes: %v", test.attrs, len(test.data), err)
		}
		if a != nil {
			a.Close()
		}
	}
}
