package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// killSeed is logged, and makes a run again what it was.
var killSeed = uint64(time.Now().UnixNano())

// A push that was killed leaves no tag, and the next one sends what is missing.
func TestE2EKilledPush(t *testing.T) {
	t.Parallel()
	const jobs = 1
	h := newHost(t)
	// Three layers: the first hold 48 MiB of data each.
	const size = 120 << 20
	pieces := map[int64][]byte{}
	for i := range int64(12) { // of each 10 MiB, a fifth is random
		pieces[i*10<<20] = fill(uint64(i), 2<<20)
		pieces[i*10<<20+2<<20] = prose(uint64(i), 8<<20)
	}
	disk := writeFileAt(t, h.path("disk.raw"), size, pieces)
	s := newOlareg(t)
	w := newWire(t, s)
	h.ok("push", "--cache", "none", "--jobs", fmt.Sprint(jobs), disk, w.host+"/cold:v1")
	cold := w.take().sent
	largest := int64(0)
	for _, path := range blobFiles(t, s.dir) {
		if info, err := os.Stat(path); err == nil {
			largest = max(largest, info.Size())
		}
	}

	rng := rand.New(rand.NewPCG(killSeed, 0))
	t.Logf("seed %d, cold %d bytes, the largest layer %d", killSeed, cold, largest)
	for i := range 10 {
		// The registry is slow, so that layers wait for it and the kill comes in their midst.
		w.rate.Store(64 << 20)
		at := rng.Int64N(cold)
		h := &host{t: t, dir: h.dir, exe: h.exe, env: h.env}
		args := []string{"push", "--jobs", fmt.Sprint(jobs), "--cache", t.TempDir(), disk, fmt.Sprintf("%s/vm%d:v1", w.host, i)}
		if h.killed(w, func(sent, _ int64) bool { return sent >= at }, args...) {
			t.Errorf("killed when %d of %d bytes were sent, the push was complete", at, cold)
		}
		if r := h.run("inspect", args[len(args)-1]); r.code != exitNotFound {
			t.Errorf("killed when %d bytes were sent: the tag is there: exit code %d\n%s", at, r.code, r.stderr)
		}
		w.rate.Store(0)
		h.ok(args...)
		total := w.take().sent
		if limit := cold*21/20 + jobs*largest; total > limit {
			t.Errorf("killed when %d bytes were sent: both runs sent %d, cold is %d, the limit %d", at, total, cold, limit)
		}
		if i%5 == 0 {
			h.ok("pull", "--cache", "none", "--unverified", args[len(args)-1], "x.raw")
			h.sameDisk(disk, h.path("x.raw"))
			os.Remove(h.path("x.raw"))
		}
		w.take()
	}
}

// A pull that was killed leaves no file under the final name, or the one that
// was there, and the next one fetches what is missing.
func TestE2EKilledPull(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const size = 64 << 20
	pieces := map[int64][]byte{}
	for i := range int64(8) {
		pieces[i*8<<20] = fill(uint64(i), 1<<20)
		pieces[i*8<<20+1<<20] = prose(uint64(i), 4<<20)
	}
	disk := writeFileAt(t, h.path("disk.raw"), size, pieces)
	w := newWire(t, newOlareg(t))
	ref := w.host + "/vm:v1"
	h.ok("push", "--cache", "none", disk, ref)
	w.take()
	h.ok("pull", "--cache", "none", "--unverified", ref, "cold.raw")
	cold := w.take().received

	rng := rand.New(rand.NewPCG(killSeed, 1))
	t.Logf("seed %d, cold %d bytes", killSeed, cold)
	for i := range 10 {
		dest := []string{"x.raw", "x.qcow2", "x.vmdk", "x.vdi", "x.vhd", "x.vhdx"}[i%6]
		h := &host{t: t, dir: t.TempDir(), exe: h.exe, env: h.env}
		args := []string{"pull", "--cache", "none", "--unverified", ref, dest}
		old := ""
		if i >= 8 { // there is a file already
			writeFileAt(t, h.path(dest), 4096, map[int64][]byte{0: []byte("what was there before")})
			old = fileDigest(t, h.path(dest))
			args = append(args, "--force")
		}
		at := rng.Int64N(cold)
		w.rate.Store(64 << 20)
		if h.killed(w, func(_, received int64) bool { return received >= at }, args...) {
			t.Errorf("killed when %d of %d bytes were fetched, the pull was complete", at, cold)
		}
		if _, err := os.Stat(h.path(dest)); err == nil && (old == "" || fileDigest(t, h.path(dest)) != old) {
			t.Errorf("killed when %d bytes were fetched: %s is there", at, dest)
		}
		w.rate.Store(0)
		h.ok(args...)
		if total := w.take().received; total > cold*13/10 {
			t.Errorf("%s, killed when %d bytes were fetched: both runs fetched %d, cold is %d", dest, at, total, cold)
		}
		h.sameDisk(disk, h.path(dest))
		if left, _ := filepath.Glob(h.path(".*")); len(left) > 0 {
			t.Errorf("%s: left behind: %q", dest, left)
		}
	}
}
