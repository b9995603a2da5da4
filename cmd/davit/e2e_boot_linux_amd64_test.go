package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/davit-oci/davit/internal/programs"
)

// A machine goes from bare disk to OVA to libvirt by way of a registry, and
// libvirt boots what was written: a disk of the demo, which says a word.
func TestLibvirtBoots(t *testing.T) {
	for _, test := range []struct {
		name    string
		disk    string // as demo/disk makes it
		machine string
		says    []string // beside the word
	}{
		{"BIOS", "new", "{name: demo, memory: 256M, disks: [{name: disk0, bus: virtio}]}", nil},
		{"Secure Boot and TPM", "uefi", "{name: demo, memory: 512M, firmware: uefi, secureBoot: true, tpm: '2.0'}", []string{"secure boot: 1\r\n", "TPM: 2\r\n"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			nonce := rand.Text()
			said := bootsInLibvirt(t, test.disk, nonce, test.machine)
			for _, want := range append(test.says, "nonce: "+nonce+"\r\n") {
				if !strings.Contains(said, "davit-demo "+want) {
					t.Errorf("the guest does not say %q: %q", want, said)
				}
			}
		})
	}
}

// bootsInLibvirt returns what the guest says on its console.
func bootsInLibvirt(t *testing.T, kind, nonce, machine string) string {
	t.Helper()
	programs.Need(t, "virt-qemu-run") // comes with the driver, which is no program
	programs.Need(t, "swtpm_setup")
	programs.Need(t, "dpkg-deb")
	h := newHost(t)
	makeDemoDisk(t, kind, nonce, h.path("disk.raw"))
	if err := os.WriteFile(h.path("machine.yaml"), []byte(machine), 0o600); err != nil {
		t.Fatal(err)
	}
	repo := newDistribution(t, "registry").host + "/demo/vm"
	h.ok("push", "--machine-file", "machine.yaml", "disk.raw", repo+":disk")
	h.ok("pull", "--unverified", "-O", "ova", repo+":disk", "demo.ova")
	h.ok("push", "demo.ova", repo+":ova")

	// Without KVM, and with a console that is a file; all else is as davit wrote it.
	host := newLibvirt(t)
	vm := filepath.Join(host.dir, "vm")
	h.ok("pull", "--unverified", "-O", "libvirt", repo+":ova", vm)
	domain, err := os.ReadFile(filepath.Join(vm, "demo.xml"))
	if err != nil {
		t.Fatal(err)
	}
	console := filepath.Join(host.dir, "console")
	for _, r := range [][2]string{
		{"<domain type='kvm'>", "<domain type='qemu'>"},
		{"<serial type='pty'/>", fmt.Sprintf("<serial type='file'><source path='%s'/></serial>", console)},
		{"<console type='pty'/>", ""},
	} {
		if n := bytes.Count(domain, []byte(r[0])); n != 1 {
			t.Fatalf("the domain has %d of %s:\n%s", n, r[0], domain)
		}
		domain = bytes.Replace(domain, []byte(r[0]), []byte(r[1]), 1)
	}
	run := filepath.Join(host.dir, "run.xml")
	if err := os.WriteFile(run, domain, 0o644); err != nil {
		t.Fatal(err)
	}

	// A guest that has not come to its end would outlive virsh.
	out := host.virsh("create " + run + "; event --domain demo --event lifecycle --timeout 300; destroy demo")
	said, err := os.ReadFile(console)
	if err != nil || len(said) == 0 {
		t.Fatalf("the guest says nothing: %v\n%s", err, out)
	}
	return string(said)
}

// makeDemoDisk makes a disk with the packages of Debian that make demo keeps for
// that: the one that it boots, or one for UEFI. It says the nonce, and powers off.
func makeDemoDisk(t *testing.T, kind, nonce, path string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "../../demo/disk", kind, t.TempDir(), nonce, path).CombinedOutput()
	if err != nil {
		t.Fatalf("demo/disk: %v\n%s", err, out)
	}
}

// A libvirtHost has libvirt's driver of QEMU in virsh itself, for one command:
// nothing runs before it or after, and all files are in a folder.
type libvirtHost struct {
	t   *testing.T
	dir string // also of the files of machines
}

func newLibvirt(t *testing.T) *libvirtHost {
	t.Helper()
	dir, err := os.MkdirTemp("", "davit") //nolint:usetesting // a short path: there are going to be sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	etc := filepath.Join(dir, "embed", "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	// Otherwise it starts a daemon for the log, which stays for two minutes.
	if err := os.WriteFile(filepath.Join(etc, "qemu.conf"), []byte("stdio_handler = \"file\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return &libvirtHost{t, dir}
}

// virsh runs commands and returns what it says, of errors as well. It does so as
// nobody if the tests run as root: for root libvirt wants groups of processes that
// no container has.
func (l *libvirtHost) virsh(commands string) string {
	l.t.Helper()
	cmd := exec.CommandContext(l.t.Context(), programs.Need(l.t, "virsh"), "-c", "qemu:///embed?root="+filepath.Join(l.dir, "embed"), commands)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.dir, "XDG_RUNTIME_DIR=" + filepath.Join(l.dir, "run")}
	if os.Getuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		err := filepath.WalkDir(l.dir, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, nobody, nobody)
		})
		if err != nil {
			l.t.Fatal(err)
		}
	}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError // says which of the commands failed last
	if err != nil && !errors.As(err, &exit) {
		l.t.Fatal(err)
	}
	return string(out)
}
