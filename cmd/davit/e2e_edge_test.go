package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What a killed pull left is no harm to a pull of something else into the same
// file: where that has no data there are zeros.
func TestE2ELeftoversOfAnother(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := newWire(t, newOlareg(t))
	full := writeFileAt(t, h.path("full.raw"), 24<<20, map[int64][]byte{0: fill(1, 12<<20), 12 << 20: prose(2, 12<<20)})
	part := writeFileAt(t, h.path("part.raw"), 16<<20, map[int64][]byte{3 << 20: fill(3, 1<<20), 9<<20 + 512: fill(4, 100), 12 << 20: fill(1, 1<<20)})
	h.ok("push", full, w.host+"/full:v1")
	h.ok("push", part, w.host+"/part:v1")
	pull := func(repo, dest string, more ...string) []string {
		return append([]string{"pull", "--cache", "none", "--unverified", w.host + "/" + repo + ":v1", dest}, more...)
	}
	for _, test := range []struct{ dest, as, then string }{
		{"x.raw", "raw", "raw"}, {"y.qcow2", "qcow2", "qcow2"}, {"z.raw", "qcow2", "raw"}, {"z.qcow2", "raw", "qcow2"},
	} {
		w.take()
		w.rate.Store(64 << 20)
		if h.killed(w, func(_, received int64) bool { return received > 8<<20 }, pull("full", test.dest, "-O", test.as)...) {
			t.Error("the pull was complete before it was killed")
		}
		w.rate.Store(0)
		if left, _ := filepath.Glob(h.path(".*.davit-part")); len(left) != 1 {
			t.Errorf("killed: left are %q", left)
		}
		h.ok(pull("part", test.dest, "-O", test.then)...)
		h.sameDisk(part, h.path(test.dest))
		if left, _ := filepath.Glob(h.path(".*.davit-part")); len(left) > 0 {
			t.Errorf("left are %q", left)
		}
	}
}

// Stopped by a signal, a pull says so and has written no file.
func TestE2EInterruptedPull(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := newWire(t, newOlareg(t))
	disk := writeFileAt(t, h.path("disk.raw"), 24<<20, map[int64][]byte{0: fill(1, 12<<20)})
	h.ok("push", "--cache", "none", disk, w.host+"/vm:v1")
	w.take()
	w.rate.Store(16 << 20)
	for _, dest := range []string{"x.raw", "x.qcow2", "x.zstd.qcow2"} {
		cmd := exec.Command(h.exe, "pull", "--cache", "none", "--unverified", w.host+"/vm:v1", dest)
		if strings.Contains(dest, "zstd") {
			cmd.Args = append(cmd.Args, "-O", "qcow2:zstd")
		}
		cmd.Dir, cmd.Env = h.dir, h.env
		w.take()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		w.watch = func(_, received int64) {
			if received > 1<<20 {
				cmd.Process.Signal(os.Interrupt)
				w.watch = nil
			}
		}
		w.mu.Unlock()
		err := cmd.Wait()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 130 {
			t.Errorf("%s: %v, want exit code 130", dest, err)
		}
		if _, err := os.Stat(h.path(dest)); err == nil {
			t.Errorf("%s is there", dest)
		}
	}
}

// A file that the local store remembers and that was changed since is a seed as
// far as it goes.
func TestE2EChangedSeed(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	w := newWire(t, newOlareg(t))
	content := map[int64][]byte{0: fill(1, 6<<20), 10<<20 + 4096: prose(2, 4<<20)}
	disk := writeFileAt(t, h.path("disk.raw"), 16<<20, content)
	want := writeFileAt(t, h.path("want.raw"), 16<<20, content)
	h.ok("push", disk, w.host+"/vm:v1")
	for i, damage := range []func(){
		func() {},
		func() { // nobody can tell before it is read
			info, err := os.Stat(disk)
			if err != nil {
				t.Fatal(err)
			}
			writeFileAt(t, disk, 16<<20, map[int64][]byte{5000: fill(9, 2<<20)})
			if err := os.Chtimes(disk, info.ModTime(), info.ModTime()); err != nil {
				t.Fatal(err)
			}
		},
		func() { writeFileAt(t, disk, 16<<20, map[int64][]byte{9000: fill(10, 2<<20)}) },
		func() { writeFileAt(t, disk, 5<<20, nil) },
		func() { os.Remove(disk) },
		func() { os.Mkdir(disk, 0o700) },
	} {
		damage()
		for _, dest := range []string{"x.raw", "x.qcow2"} {
			h.ok("pull", "--unverified", w.host+"/vm:v1", dest)
			h.sameDisk(want, h.path(dest))
			os.Remove(h.path(dest)) // or it is the better seed
		}
		if got := w.take().received; i == 0 && got > 1<<20 || i == 1 && got > 12<<20 {
			t.Errorf("%d: %d bytes were fetched", i, got)
		}
	}
}

// Layers of another repository of the same registry are mounted, those of
// another place copied, and a disk from stdin is a disk.
func TestE2EReuseFromElsewhere(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name  string
		start func(*testing.T) server
	}{
		{"olareg", newOlareg},
		{"docker-registry 2.8", func(t *testing.T) server { return newDistribution(t, "docker-registry") }},
		{"distribution 3", func(t *testing.T) server { return newDistribution(t, "registry") }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			w := newWire(t, kind.start(t))
			disk := writeFileAt(t, h.path("disk.raw"), 16<<20, map[int64][]byte{0: fill(1, 6<<20)})
			first := h.report("push", disk, w.host+"/vm:v1")
			w.take()
			second := h.report("push", "--cache", "none", "--reuse", w.host+"/vm:v1", disk, w.host+"/other:v1")
			if x := w.take(); x.sent > 64<<10 {
				t.Errorf("into another repository %d bytes were sent", x.sent)
			}
			if second.Digest != first.Digest {
				t.Errorf("in another repository it is %s, was %s", second.Digest, first.Digest)
			}
			third := h.report("push", "--cache", "none", "--reuse", w.host+"/vm:v1", disk, "oci:layout:v1")
			if third.Digest != first.Digest {
				t.Errorf("in a layout it is %s, was %s", third.Digest, first.Digest)
			}
			for _, ref := range []string{w.host + "/other:v1", "oci:layout:v1"} {
				h.ok("pull", "--cache", "none", "--unverified", ref, "x.raw")
				h.sameDisk(disk, h.path("x.raw"))
				os.Remove(h.path("x.raw"))
			}
			h.tool("sh", "-c", h.exe+" push --cache none - oci:layout:stdin <disk.raw && "+h.exe+" pull --cache none --unverified oci:layout:stdin - >stdout.raw")
			h.sameDisk(disk, h.path("stdout.raw"))
		})
	}
}

// Several disks come out as they went in, also when two are the same.
func TestE2ESeveralDisks(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	a := writeFileAt(t, h.path("a.raw"), 8<<20, map[int64][]byte{0: prose(1, 3<<20)})
	b := writeFileAt(t, h.path("b.raw"), 4<<20, map[int64][]byte{1 << 20: prose(1, 2<<20)})
	empty := writeFileAt(t, h.path("empty.raw"), 1<<20, nil)
	for _, more := range [][]string{nil, {"--compat", "gitlab"}, {"--compression", "xz"}, {"--compression", "none"}} {
		ref := "oci:" + t.TempDir() + "/layout:v1"
		args := append([]string{"push", "--cache", "none", "system=" + a, "data=" + b, "copy=" + a, "empty=" + empty, ref}, more...)
		first := h.report(args...)
		if again := h.report(args...); again.Digest != first.Digest || again.Layers.New != 0 {
			t.Errorf("%q: pushed again it is %s with %d new layers, was %s", more, again.Digest, again.Layers.New, first.Digest)
		}
		h.ok("pull", "--cache", "none", "--unverified", "-O", "raw", ref, "out/")
		for name, want := range map[string]string{"system": a, "data": b, "copy": a, "empty": empty} {
			h.sameDisk(want, h.path("out/"+name+".raw"))
		}
		h.ok("pull", "--cache", "none", "--unverified", "--disk", "data", ref, "data.qcow2")
		h.sameDisk(b, h.path("data.qcow2"))
		os.Remove(h.path("data.qcow2"))
		h.ok("verify", "--cache", "none", "--deep", "--key", h.pub(ref), ref)
		if err := os.RemoveAll(h.path("out")); err != nil {
			t.Fatal(err)
		}
	}
}

// pub signs an artifact and returns the public key.
func (h *host) pub(ref string) string {
	h.t.Helper()
	if _, err := os.Stat(h.path("davit.key")); err != nil {
		h.key("davit")
	}
	h.ok("sign", "--key", "davit.key", ref)
	return "davit.pub"
}
