//go:build unix

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// What another user of the host may have put into a folder that davit writes
// into. Root can be that user, too: its files are given away.

const nobody = 65534

// Tests make folders for stores, which others must not be able to write to.
func init() { syscall.Umask(0o022) } //nolint:gochecknoinits // of the process, and Unix alone has one

// needRoot skips a test that needs a second user.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("files of a second user are needed: root runs this test")
	}
}

func give(t *testing.T, path string) {
	t.Helper()
	if err := os.Lchown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
}

// link makes a symbolic link of nobody's.
func link(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path); err != nil {
		t.Fatal(err)
	}
	give(t, path)
}

// A plant is what somebody can put in the place of a file that davit makes for
// itself.
type plant struct {
	what string // in the words of davit
	put  func(path string) error
}

func plants(victim string) []plant {
	withMode := func(mode os.FileMode) func(string) error {
		return func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, mode)) }
	}
	all := []plant{
		{"is a symbolic link", func(path string) error { return os.Symlink(victim, path) }},
		{"is a symbolic link", func(path string) error { return os.Symlink(victim+".made", path) }},
		{"is a hard link: the file has 2 names", func(path string) error { return os.Link(victim, path) }},
		{"is not a regular file", func(path string) error { return syscall.Mkfifo(path, 0o666) }},
		{"is not a regular file", func(path string) error { return os.Mkdir(path, 0o777) }},
		{"can be written to by others (mode 0666)", withMode(0o666)},
		{"can be written to by others (mode 0620)", withMode(0o620)},
	}
	if os.Geteuid() == 0 {
		all = append(all, plant{"belongs to user 65534", func(path string) error {
			return errors.Join(os.WriteFile(path, []byte("theirs"), 0o600), os.Chown(path, nobody, nobody))
		}})
	}
	return all
}

// refusesPlants runs davit with each plant at path: it must say what is there and
// leave that, and the victim, as they are.
func refusesPlants(t *testing.T, h *host, path string, args ...string) {
	t.Helper()
	victim := h.path("victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range plants(victim) {
		os.RemoveAll(path)
		if err := p.put(path); err != nil {
			t.Fatal(err)
		}
		before := h.tree()
		r := h.run(args...)
		if r.code != exitFailed || !strings.Contains(r.stderr, filepath.Base(path)+" "+p.what) || !strings.Contains(r.stderr, "remove it") {
			t.Errorf("%s that %s: exit code %d\n%s", path, p.what, r.code, r.stderr)
		}
		if after := h.tree(); after != before {
			t.Errorf("%s that %s: before\n%safter\n%s", path, p.what, before, after)
		}
	}
	os.RemoveAll(path)
	h.ok(args...)
}

// tree is all that is in the host's folder.
func (h *host) tree() string {
	h.t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprint(&b, path, " ", info.Mode(), " ", info.Sys().(*syscall.Stat_t).Uid)
		if d.Type().IsRegular() {
			fmt.Fprint(&b, " ", fileDigest(h.t, path))
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return b.String()
}

func (h *host) mode(name string) os.FileMode {
	h.t.Helper()
	info, err := os.Lstat(h.path(name))
	if err != nil {
		h.t.Fatal(err)
	}
	return info.Mode()
}

// smallLayout pushes a disk to the layout l.
func smallLayout(t *testing.T, h *host) (disk string) {
	t.Helper()
	disk = writeFileAt(t, h.path("disk.raw"), 1<<20, map[int64][]byte{0: fill(1, 200_000)})
	h.ok("push", "--cache", "none", disk, "oci:l:v1")
	return disk
}

func TestE2EPlantedPart(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	smallLayout(t, h)
	pull := []string{"pull", "--cache", "none", "--unverified", "oci:l:v1"}
	refusesPlants(t, h, h.path(".x.raw.davit-part"), append(pull, "x.raw")...)
	refusesPlants(t, h, h.path(".y.qcow2.davit-part"), append(pull, "--force", "y.qcow2")...)
	refusesPlants(t, h, h.path(".z.vmdk.davit-part"), "convert", "disk.raw", "z.vmdk")
	if err := os.Mkdir(h.path("vm"), 0o755); err != nil {
		t.Fatal(err)
	}
	refusesPlants(t, h, h.path("vm/.disk0.vmdk.davit-part"), append(pull, "-O", "vmware", "vm")...)
	refusesPlants(t, h, h.path(".vm.ova.davit-part"), append(pull, "vm.ova")...)
}

// A part is its user's alone. The file has the mode that the umask gives, whatever
// the part had, and not more than the one that it replaces.
func TestE2EModeOfWhatIsWritten(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	disk := smallLayout(t, h)
	for umask, want := range map[string]os.FileMode{"022": 0o644, "002": 0o664, "077": 0o600} {
		for _, dest := range []string{"fresh", "resumed", "replaced", "private", "open"} {
			dest += umask + ".raw"
			want := want
			switch {
			case strings.HasPrefix(dest, "resumed"):
				if err := os.WriteFile(h.path("."+dest+".davit-part"), []byte("half"), 0o600); err != nil {
					t.Fatal(err)
				}
			case strings.HasPrefix(dest, "replaced"):
				os.WriteFile(h.path(dest), nil, 0o644)
				want &= 0o644
			case strings.HasPrefix(dest, "private"):
				os.WriteFile(h.path(dest), nil, 0o600)
				want = 0o600
			case strings.HasPrefix(dest, "open"):
				os.WriteFile(h.path(dest), nil, 0o666)
				os.Chmod(h.path(dest), 0o666)
			}
			r := h.exec("sh", "-c", `umask `+umask+` && exec "$@"`, "sh", h.exe, "pull", "--cache", "none", "--unverified", "--force", "oci:l:v1", dest)
			if r.code != 0 {
				t.Errorf("%s: exit code %d\n%s", dest, r.code, r.stderr)
			} else if got := h.mode(dest); got != want {
				t.Errorf("%s: mode %v, want %v", dest, got, want)
			}
			h.sameDisk(disk, h.path(dest))
		}
	}
	if left, _ := filepath.Glob(h.path(".*")); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
}

// Somebody else's link would say which file is written.
func TestE2ELinkOfAnotherUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	h := newHost(t)
	disk := smallLayout(t, h)
	for _, dir := range []string{"shared", "vm", "secret"} {
		if err := os.Mkdir(h.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(h.path("shared"), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	victim := h.path("secret/victim.raw")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	link(t, victim, h.path("shared/x.raw"))
	link(t, victim+".made", h.path("shared/dangling.raw"))
	link(t, h.path("secret"), h.path("shared/folder"))
	link(t, "/dev/null", h.path("shared/device.raw"))
	link(t, victim, h.path("vm/disk0.vmdk"))
	if err := os.Symlink("shared/x.raw", h.path("chain.raw")); err != nil {
		t.Fatal(err)
	}
	before := h.tree()
	for dest, flags := range map[string][]string{
		"shared/x.raw": nil, "shared/dangling.raw": nil, "chain.raw": nil, "shared/folder/new.raw": nil, "shared/device.raw": nil,
		"shared/folder": {"-O", "raw"}, "shared/folder/": {"-O", "raw"}, "shared/folder/sub/": {"-O", "vmware"}, "vm": {"-O", "vmware"},
	} {
		for _, args := range [][]string{{"pull", "--cache", "none", "--unverified", "--force", "oci:l:v1", dest}, {"convert", "--force", disk, dest}} {
			r := h.run(append(args, flags...)...)
			if r.code != exitFailed || !strings.Contains(r.stderr, "is a symbolic link of user 65534, which is not followed: remove it, or choose another destination") {
				t.Errorf("%q: exit code %d\n%s", args, r.code, r.stderr)
			}
		}
		if after := h.tree(); after != before {
			t.Fatalf("%s: before\n%safter\n%s", dest, before, after)
		}
	}

	// A link of the user's own stays one, to the new content.
	if err := os.Symlink("secret/victim.raw", h.path("own.raw")); err != nil {
		t.Fatal(err)
	}
	h.ok("pull", "--cache", "none", "--unverified", "--force", "oci:l:v1", "own.raw")
	if h.mode("own.raw")&os.ModeSymlink == 0 {
		t.Error("a link of the user's own was replaced")
	}
	h.sameDisk(disk, victim)
}

// A lock that is none is told at once, and what it leads to is not made.
func TestE2EPlantedLock(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	disk := smallLayout(t, h)
	refusesPlants(t, h, h.path("l/.davit-lock"), "tag", "oci:l:v1", "v2")
	h.ok("push", "--cache", "none", disk, "oci-archive:a.tar:v1")
	refusesPlants(t, h, h.path(".a.tar.davit-lock"), "tag", "oci-archive:a.tar:v1", "v2")
}

// What a store says is believed: that of somebody else says what they like.
func TestE2EStoreOfAnotherUser(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	disk := smallLayout(t, h)
	push := func(store string) result { return h.run("push", "--cache", store, disk, "oci:l:v1") }
	fresh := func(name string) string {
		if r := push(h.path(name)); r.code != 0 {
			t.Fatalf("a store of our own: exit code %d\n%s", r.code, r.stderr)
		}
		return h.path(name)
	}
	faults := map[string]func(store string) error{
		"can be written to by others (mode 0777)":         func(s string) error { return os.Chmod(s, 0o777) },
		"can be written to by others (mode 0770)":         func(s string) error { return os.Chmod(s, 0o770) },
		"journal can be written to by others (mode 0777)": func(s string) error { return os.Chmod(filepath.Join(s, "journal"), 0o777) },
		"lists is a symbolic link": func(s string) error {
			return errors.Join(os.Rename(filepath.Join(s, "lists"), s+".lists"), os.Symlink(s+".lists", filepath.Join(s, "lists")))
		},
		"journal is no folder": func(s string) error {
			return errors.Join(os.RemoveAll(filepath.Join(s, "journal")), os.WriteFile(filepath.Join(s, "journal"), nil, 0o600))
		},
	}
	if os.Geteuid() == 0 {
		faults["belongs to user 65534"] = func(s string) error { return os.Chown(s, nobody, nobody) }
		faults["disks belongs to user 65534"] = func(s string) error { return os.Chown(filepath.Join(s, "disks"), nobody, nobody) }
		faults["is a symbolic link of user 65534, which is not followed"] = func(s string) error {
			return errors.Join(os.Rename(s, s+".real"), os.Symlink(s+".real", s), os.Lchown(s, nobody, nobody))
		}
	}
	n := 0
	for what, fault := range faults {
		store := fresh(fmt.Sprint("store", n))
		n++
		if err := fault(store); err != nil {
			t.Fatal(err)
		}
		r := push(store)
		if r.code != exitFailed || !strings.Contains(r.stderr, what+": what a store says is believed, so this one is not used\nhint: --cache DIR") {
			t.Errorf("a store that %s: exit code %d\n%s", what, r.code, r.stderr)
		}
	}

	// A link of the user's own to a store of the user's own is one.
	fresh("elsewhere")
	if err := os.Symlink("elsewhere", h.path("link")); err != nil {
		t.Fatal(err)
	}
	fresh("link")
}

// The same the other way round: davit is nobody's, and root's are the files.
func TestE2EAsAnotherUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	h := newHost(t)
	disk := smallLayout(t, h)

	// Folders of tests are closed to others.
	dir, err := os.MkdirTemp("", "davit-nobody-") //nolint:usetesting // another user must get into it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	work, home := filepath.Join(dir, "work"), filepath.Join(dir, "home")
	for _, err := range []error{os.Chmod(dir, 0o755), os.Mkdir(work, 0o777), os.Chmod(work, 0o777|os.ModeSticky), os.Mkdir(home, 0o755)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	exe := filepath.Join(dir, "davit")
	for from, to := range map[string]string{h.exe: exe, disk: filepath.Join(work, "disk.raw")} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (int, string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), exe, args...)
		cmd.Dir, cmd.Env = work, []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + work}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		err := cmd.Run()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), stderr.String()
	}
	fails := func(want string, args ...string) {
		t.Helper()
		if code, stderr := run(args...); code != exitFailed || !strings.Contains(stderr, want) {
			t.Errorf("davit %q: exit code %d, want %q\n%s", args, code, want, stderr)
		}
	}
	write := func(name string, mode os.FileMode) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("root's"), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}

	if code, stderr := run("push", "--cache", "none", "disk.raw", "oci:l:v1"); code != 0 {
		t.Fatalf("exit code %d\n%s", code, stderr)
	}
	pull := []string{"pull", "--cache", "none", "--unverified", "--force", "oci:l:v1"}
	write("work/.x.raw.davit-part", 0o666)
	fails("belongs to root: nothing is written to it", append(pull, "x.raw")...)
	write("work/l/.davit-lock", 0o666)
	fails(".davit-lock belongs to root: it is no lock of this user", "tag", "oci:l:v1", "v2")
	write("home/.cache/davit/note", 0o644)
	fails(".cache/davit belongs to root: what a store says is believed", "push", "disk.raw", "oci:l:v1")

	// Links of root are the system's: /tmp itself may be one.
	if err := os.Symlink(work, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if code, stderr := run(append(pull, filepath.Join(dir, "link", "y.raw"))...); code != 0 {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
	h.sameDisk(disk, filepath.Join(work, "y.raw"))
}

// All that a user names is a way to write, and nothing is made on it before it is
// known whose links it leads by.
func TestE2EOtherPlacesByLinksOfAnotherUser(t *testing.T) {
	t.Parallel()
	needRoot(t)
	h := newHost(t)
	disk := smallLayout(t, h)
	if err := errors.Join(os.Mkdir(h.path("shared"), 0o755), os.Chmod(h.path("shared"), 0o777|os.ModeSticky), os.Mkdir(h.path("target"), 0o755)); err != nil {
		t.Fatal(err)
	}
	link(t, h.path("target"), h.path("shared/link"))
	there := h.path("shared/link")
	before := h.tree()
	fails := func(env []string, args ...string) {
		t.Helper()
		with := &host{h.t, h.dir, h.exe, append(slices.Clone(h.env), env...)}
		r := with.run(args...)
		if r.code != exitFailed || !strings.Contains(r.stderr, "is a symbolic link of user 65534, which is not followed") {
			t.Errorf("%s davit %q: exit code %d\n%s", env, args, r.code, r.stderr)
		}
		if after := h.tree(); after != before {
			t.Fatalf("%s davit %q: before\n%safter\n%s", env, args, before, after)
		}
	}
	fails(nil, "key", "generate", "-o", there+"/new")
	fails([]string{"DAVIT_PASSWORD=", "COSIGN_PASSWORD="}, "key", "generate", "-o", "shared/link/new")
	fails(nil, "registry", "serve", "--listen", "127.0.0.1:0", "--dir", there+"/a/b")
	fails(nil, "registry", "serve", "--listen", "127.0.0.1:0", "--dir", there)
	push := []string{"push", disk, "oci:l:v2"}
	fails(nil, append(push, "--cache", there+"/a/b")...)
	fails([]string{"XDG_CACHE_HOME=" + there}, push...)
	fails([]string{"DAVIT_CACHE=" + there + "/c"}, push...)
	fails([]string{"TMPDIR=" + there}, append(push, "--cache", "none")...)

	// Links of the user's own are followed.
	if err := os.Symlink("target", h.path("own")); err != nil {
		t.Fatal(err)
	}
	h.ok("key", "generate", "-o", "own/key")
	with := &host{h.t, h.dir, h.exe, append(slices.Clone(h.env), "TMPDIR="+h.path("own"))}
	with.ok(append(push, "--cache", "none")...)
	left, err := os.ReadDir(h.path("target"))
	if err != nil || len(left) != 2 { // the keys
		t.Errorf("left: %v, %v", left, err)
	}
}

// A repository that somebody else's link leads to is none.
func TestRegistryServeFollowsNoForeignLink(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	served, target := filepath.Join(dir, "served"), filepath.Join(dir, "target")
	for _, d := range []string{"served/inside", "target", "served/own"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link(t, target, filepath.Join(served, "theirs"))
	link(t, target, filepath.Join(served, "inside", "blobs"))
	link(t, filepath.Join(target, "oci-layout"), filepath.Join(served, "own", "oci-layout"))
	if err := os.Symlink("inside", filepath.Join(served, "ours")); err != nil {
		t.Fatal(err)
	}
	cmd, stdout := program(t, nil, "registry", "serve", "--listen", "127.0.0.1:0", "--dir", served)
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	})
	line, err := stdout.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	const body = "a blob"
	for repository, want := range map[string]int{
		"theirs": 403, "theirs/below": 403, "inside": 403, "inside/below": 403, "own": 403, "new": 201, "new/below": 201,
	} {
		resp, err := http.Post(strings.TrimSpace(line)+"/v2/"+repository+"/blobs/uploads/?digest=sha256:"+fmt.Sprintf("%x", sha256.Sum256([]byte(body))),
			"application/octet-stream", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want || want == 403 && !strings.Contains(string(answer), "is a symbolic link of user 65534") {
			t.Errorf("%s: %s, want %d\n%s", repository, resp.Status, want, answer)
		}
	}
	if made, err := os.ReadDir(target); err != nil || len(made) > 0 {
		t.Errorf("made: %v, %v", made, err)
	}
}
