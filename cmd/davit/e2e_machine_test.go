package main

import (
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// pushedMachine pushes a machine with two disks, a CD and firmware variables.
func pushedMachine(t *testing.T, h *host, size int64, ref string) (root, data string) {
	t.Helper()
	pieces := func(seed uint64) map[int64][]byte {
		at := map[int64][]byte{}
		for off := int64(0); off < size; off += 4 << 20 {
			at[off] = fill(seed+uint64(off), 400_000)
			at[off+1<<20] = prose(seed+uint64(off), 1<<20)
		}
		return at
	}
	root = writeFileAt(t, h.path("root.raw"), size, pieces(1))
	data = writeFileAt(t, h.path("data.raw"), size, pieces(2))
	h.ok("convert", "root.raw", "root.vmdk")
	h.ok("convert", "data.raw", "data.vmdk")
	for name, content := range map[string][]byte{
		"seed.iso":  append(make([]byte, 16*2048), "\x01CD001"+string(fill(3, 300_000))...),
		"web.nvram": variables,
		"web.vmx": []byte(`.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "web"
memsize = "512"
firmware = "efi"
nvram = "web.nvram"
scsi0.present = "TRUE"
scsi0.virtualDev = "lsilogic"
scsi0:0.present = "TRUE"
scsi0:0.fileName = "root.vmdk"
scsi0:1.present = "TRUE"
scsi0:1.fileName = "data.vmdk"
ide1:0.present = "TRUE"
ide1:0.deviceType = "cdrom-image"
ide1:0.fileName = "seed.iso"
`),
	} {
		if err := os.WriteFile(h.path(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.ok("push", "--cache", "none", "web.vmx", ref)
	return root, data
}

// variables are those of a firmware, as VMware keeps them.
var variables = append([]byte("MRVN"), fill(4, 9_000)...)

// machineFiles are what that machine is in for each product: disks first.
var machineFiles = map[string][]string{
	"libvirt": {"disk0.qcow2", "disk1.qcow2", "seed.iso", "web.xml"},
	"hyperv":  {"disk0.vhdx", "disk1.vhdx", "seed.iso", "web.ps1"},
	"vmware":  {"disk0.vmdk", "disk1.vmdk", "seed.iso", "web.nvram", "web.vmx"},
	"ovf":     {"disk0.vmdk", "disk1.vmdk", "seed.iso", "web.mf", "web.nvram", "web.ovf"},
}

// A machine of which a pull was killed is not there in part, and the next pull
// goes on where that one was.
func TestE2EKilledPullOfMachine(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := newWire(t, newOlareg(t))
	ref := w.host + "/web:v1"
	root, data := pushedMachine(t, h, 32<<20, ref)
	w.take()
	h.ok("pull", "--cache", "none", "--unverified", "-O", "libvirt", ref, "cold")
	cold := w.take().received

	rng := rand.New(rand.NewPCG(killSeed, 2))
	t.Logf("seed %d, cold %d bytes", killSeed, cold)
	for _, target := range []string{"libvirt", "libvirt", "hyperv", "vmware", "libvirt", "ovf"} {
		h := &host{t: t, dir: t.TempDir(), exe: h.exe, env: h.env}
		args := []string{"pull", "--cache", "none", "--unverified", "-O", target, ref, "web"}
		at := cold/2 + rng.Int64N(cold*4/10)
		w.rate.Store(64 << 20)
		if h.killed(w, func(_, received int64) bool { return received >= at }, args...) {
			t.Errorf("%s: killed when %d of %d bytes were fetched, the pull was complete", target, at, cold)
		}
		w.rate.Store(0)
		for _, name := range fileNames(h.path("web")) {
			if !strings.HasSuffix(name, ".davit-part") {
				t.Errorf("%s: killed when %d bytes were fetched: %s is there", target, at, name)
			}
		}
		h.ok(args...)
		total := w.take().received
		if limit := cold * 13 / 10; target != "ovf" && total > limit { // what is written in order begins again
			t.Errorf("%s: killed when %d bytes were fetched: both runs fetched %d, cold is %d", target, at, total, cold)
		}
		if got := fileNames(h.path("web")); !slices.Equal(got, machineFiles[target]) {
			t.Errorf("%s: the folder has %q, want %q", target, got, machineFiles[target])
		}
		h.sameDisk(root, h.path("web/"+machineFiles[target][0]))
		h.sameDisk(data, h.path("web/"+machineFiles[target][1]))
	}
}

// Wrong bytes of a machine, in any of its blobs, leave everything as it was:
// a folder that is not there, and one with other files.
func TestE2ERefusedPullOfMachine(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	s := newOlareg(t)
	ref := s.host + "/web:v1"
	pushedMachine(t, h, 4<<20, ref)
	blobs := blobFiles(t, s.dir)
	if len(blobs) < 6 { // manifest, OVF, index, layer, CD, variables
		t.Fatalf("only %d blobs", len(blobs))
	}
	rng := rand.New(rand.NewPCG(12, 12))
	for d, path := range blobs {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		bit := rng.Int64N(8 * info.Size())
		back := flipBit(t, path, bit)
		for target, files := range machineFiles {
			if d == digest.FromBytes(variables) && !slices.Contains(files, "web.nvram") {
				continue // it is not fetched
			}
			h := &host{t: t, dir: t.TempDir(), exe: h.exe, env: h.env}
			old := []string{files[0], files[len(files)-1], "notes.txt"}
			for _, name := range old {
				if err := os.MkdirAll(h.path("old"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(h.path("old/"+name), []byte("what was there before"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			h.refuses([]string{d.Encoded()[:12]}, "pull", "--cache", "none", "--unverified", "-O", target, ref, "new")
			h.refuses([]string{d.Encoded()[:12]}, "pull", "--cache", "none", "--unverified", "--force", "-O", target, ref, "old")
			h.refuses([]string{d.Encoded()[:12]}, "pull", "--cache", "none", "--unverified", ref, "new.ova")
			if got := fileNames(h.dir); !slices.Equal(got, []string{"old"}) {
				t.Errorf("the folder has %q", got)
			}
			if t.Failed() {
				t.Fatalf("-O %s, with bit %d of the %d bytes of %s", target, bit, info.Size(), d)
			}
		}
		back()
	}
}

// fileNames are the names of what is in a folder, sorted; none if it is not there.
func fileNames(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
