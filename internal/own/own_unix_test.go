//go:build unix

package own

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// nobody is another user, for whom the tests that run as root make files.
const nobody = 65534

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

// A pipe has no other end, and nobody waits for one.
func TestOpenDoesNotWait(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, open := range openers(t, dir) {
		_, err := open("pipe")
		refused(t, name, err, "is not a regular file")
	}
	_, err := OpenAny(filepath.Join(dir, "pipe"))
	refused(t, "OpenAny", err, "is not a regular file")
	for name, open := range openers(t, dir) {
		_, err := open(".")
		refused(t, name+" of a folder", err, "is not a regular file")
	}
}

func TestOthersCanWrite(t *testing.T) {
	dir := t.TempDir()
	for mode, why := range map[os.FileMode]string{0o620: "(mode 0620)", 0o602: "(mode 0602)", 0o666: "(mode 0666)"} {
		path := filepath.Join(dir, "file")
		write(t, path, "")
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		for name, open := range openers(t, dir) {
			_, err := open("file")
			refused(t, name, err, "can be written to by others "+why)
		}
		folder := filepath.Join(dir, "folder"+why)
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(folder, mode|0o100); err != nil {
			t.Fatal(err)
		}
		refused(t, "folder", CheckFolder(folder), "can be written to by others")
	}
	path := filepath.Join(dir, "readable")
	write(t, path, "")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, open := range openers(t, dir) {
		f, err := open("readable")
		if err != nil {
			t.Errorf("%s of what others can read: %v", name, err)
			continue
		}
		f.Close()
	}
}

func TestOtherUser(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "theirs")
	give(t, filepath.Join(dir, "file"))
	for name, open := range openers(t, dir) {
		_, err := open("file")
		refused(t, name, err, "belongs to user 65534")
	}
	give(t, dir)
	refused(t, "folder", CheckFolder(dir), "belongs to user 65534")
}

func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, name := range []string{"a", "a/b", "shared"} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, "a/b/file", "")
	for name, to := range map[string]string{
		"link": "a/b/file", "folder": "a/b", "a/up": "../a/b", "a/absolute": dir + "/a/b/file", "chain": "link",
		"loop": "loop", "dangling": "a/nothing", "a/b/back": "..",
	} {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	for in, want := range map[string]string{
		"a/b/file": "a/b/file", "new": "new", "./a//b/../b/new": "./a//b/../b/new", dir + "/new": dir + "/new",
		"link": "a/b/file", "chain": "a/b/file", "folder/file": "a/b/file", "folder/new": "a/b/new", "folder/": "a/b/",
		"a/up/file": "a/../a/b/file", "a/absolute": dir + "/a/b/file", "dangling": "a/nothing", "folder/../up/file": "a/b/../../a/b/file",
		"a/b/back/b/new": "a/b/../b/new",
	} {
		got, err := Resolve(in)
		if err != nil || got != want {
			t.Errorf("Resolve(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"loop", "loop/x", "nothing/x", "link/x"} {
		if got, err := Resolve(in); err == nil {
			t.Errorf("Resolve(%q) = %q", in, got)
		}
	}
}

func TestResolveOtherUser(t *testing.T) {
	needRoot(t)
	t.Chdir(t.TempDir())
	for _, name := range []string{"ours", "theirs", "target"} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	give(t, "theirs")
	for name, to := range map[string]string{
		"ours/foreign": "../target", "theirs/foreign": "../target", "theirs/file": "../target/file", "ours/own": "foreign/file",
	} {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
		if name != "ours/own" {
			give(t, name)
		}
	}
	if got, err := Resolve("theirs/foreign/x"); err != nil || got != "theirs/../target/x" {
		t.Errorf("on the way, in its owner's folder: %q, %v", got, err)
	}
	// It is called as the user has called it.
	if err := os.Symlink("target", "here"); err != nil {
		t.Fatal(err)
	}
	give(t, "here")
	if _, err := Resolve("here/x"); err == nil || err.Error() != "here is a symbolic link of user 65534, which is not followed" {
		t.Errorf("a link in this folder: %v", err)
	}
	for _, in := range []string{"ours/foreign", "ours/foreign/x", "ours/own", "theirs/file", "theirs/foreign"} {
		_, err := Resolve(in)
		refused(t, in, err, "is a symbolic link of user 65534, which is not followed")
	}
}

func TestMkdirAll(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, name := range []string{"there", "target"} {
		if err := os.Mkdir(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, "file", "")
	for name, to := range map[string]string{"link": "target", "dangling": "new", "lost": "nothing/new"} {
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	for in, want := range map[string]string{
		"there": "there", "a": "a", "b/c/d": "b/c/d", "e/f/": "e/f", "./g//h": "./g//h", dir + "/i/j": dir + "/i/j", "": "",
		"link/k/l": "target/k/l", "dangling": "new",
	} {
		got, err := MkdirAll(in, 0o755)
		if in == "" {
			if err == nil {
				t.Error("a folder without a name was made")
			}
			continue
		}
		if info, serr := os.Stat(want); err != nil || got != want || serr != nil || !info.IsDir() {
			t.Errorf("MkdirAll(%q) = %q, %v; want %q, and %v", in, got, err, want, serr)
		}
	}
	for _, in := range []string{"lost", "file", "file/x"} {
		if got, err := MkdirAll(in, 0o755); err == nil {
			t.Errorf("MkdirAll(%q) = %q", in, got)
		}
	}
}

func TestMkdirAllOtherUser(t *testing.T) {
	needRoot(t)
	t.Chdir(t.TempDir())
	if err := os.Mkdir("target", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", "theirs"); err != nil {
		t.Fatal(err)
	}
	give(t, "theirs")
	for _, in := range []string{"theirs", "theirs/", "theirs/x", "theirs/x/y/"} {
		_, err := MkdirAll(in, 0o755)
		refused(t, in, err, "is a symbolic link of user 65534, which is not followed")
	}
	if made, err := os.ReadDir("target"); err != nil || len(made) > 0 {
		t.Errorf("made: %v, %v", made, err)
	}
}
