package wholefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/internal/own"
)

// TestSetAppearTogether wants all files of a command or none, where one of
// them cannot get its name although it could when it was begun.
func TestSetAppearTogether(t *testing.T) {
	begin := func(t *testing.T, force bool) (out *Set, dir string) {
		dir, out = t.TempDir(), new(Set)
		for _, name := range []string{"a", "b", "c"} {
			if err := out.Write(filepath.Join(dir, name), force, []byte("new")); err != nil {
				t.Fatal(err)
			}
		}
		return out, dir
	}
	check := func(t *testing.T, dir string, want map[string]string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != len(want) {
			t.Errorf("the folder has %v (%v)", entries, err)
		}
		for name, content := range want {
			if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != content {
				t.Errorf("%s has %q (%v)", name, got, err)
			}
		}
	}

	t.Run("somebody was quicker", func(t *testing.T) {
		out, dir := begin(t, false)
		write(t, filepath.Join(dir, "c"), "other")
		if err := out.Commit(); err == nil {
			t.Error("no error")
		}
		out.Abandon(true)
		check(t, dir, map[string]string{"c": "other"})
	})
	t.Run("a part is taken away", func(t *testing.T) {
		out, dir := begin(t, false)
		os.Remove(filepath.Join(dir, ".c.davit-part"))
		if err := out.Commit(); err == nil {
			t.Error("no error")
		}
		out.Abandon(true)
		check(t, dir, nil)
	})
	t.Run("what was replaced is told", func(t *testing.T) {
		out, dir := begin(t, true)
		write(t, filepath.Join(dir, "a"), "old")
		os.Remove(filepath.Join(dir, ".c.davit-part"))
		if err := out.Commit(); err == nil || !strings.Contains(err.Error(), "replaced before that: "+filepath.Join(dir, "a")) {
			t.Errorf("error %v", err)
		}
		out.Abandon(true)
		check(t, dir, map[string]string{"a": "new"})
	})
	t.Run("all", func(t *testing.T) {
		out, dir := begin(t, false)
		if err := out.Commit(); err != nil {
			t.Error(err)
		}
		out.Abandon(true)
		check(t, dir, map[string]string{"a": "new", "b": "new", "c": "new"})
	})
}

// TestPartThatGotItsName is of two runs for one file: the second opens the part
// while the first still writes it, and must not go on in what has its name.
func TestPartThatGotItsName(t *testing.T) {
	folder := openFolder(t, t.TempDir())
	first, err := openPart(folder, "a", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openPart(folder, "a", false); err == nil || !strings.Contains(err.Error(), "another davit is writing it") {
		t.Errorf("a part was opened twice: %v", err)
	}
	late, err := own.OpenIn(folder, first.part(), os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	id, err := late.Stat()
	if err != nil {
		t.Fatal(err)
	}
	second := Part{id: id, folder: folder, name: "a"}
	if !second.has(second.part()) {
		t.Error("a part has not its name")
	}
	if err := first.commit(); err != nil {
		t.Fatal(err)
	}
	if second.has(second.part()) {
		t.Error("a file that was delivered is taken for its part")
	}
}

func openFolder(t *testing.T, dir string) *os.Root {
	t.Helper()
	folder, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { folder.Close() })
	return folder
}

// TestSetBelow is of files that an artifact has named: they get no further
// than the folder that the user has.
func TestSetBelow(t *testing.T) {
	outside, top := t.TempDir(), filepath.Join(t.TempDir(), "top")
	write(t, filepath.Join(outside, "victim"), "untouched")
	for _, dir := range []string{top, filepath.Join(top, "there")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{
		"out": outside, "in": "there", "there/out": outside, "file": filepath.Join(outside, "victim"), "dangling": filepath.Join(outside, "made"),
	} {
		if err := os.Symlink(to, filepath.Join(top, name)); err != nil {
			t.Skipf("%v: a system with symbolic links runs this test", err)
		}
	}
	write(t, filepath.Join(top, "plain"), "in the way")

	var out Set
	for name, want := range map[string]string{
		"out/a": "out: a symbolic link, which is not followed", "in/a": "in: a symbolic link", "there/out/sub/a": "out: a symbolic link",
		"file": "file: a symbolic link", "dangling": "dangling: a symbolic link", "plain/a": "plain: ",
	} {
		if _, err := out.CreateBelow(top, name, true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	for _, name := range []string{"a", "there/a", "new/folder/a", "new/folder/b"} {
		if _, err := out.CreateBelow(top, name, false); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	out.Abandon(false)
	if entries, err := os.ReadDir(outside); err != nil || len(entries) != 1 {
		t.Errorf("outside: %v (%v)", entries, err)
	}
	if got, err := os.ReadFile(filepath.Join(outside, "victim")); err != nil || string(got) != "untouched" {
		t.Errorf("the victim has %q (%v)", got, err)
	}
	if entries, err := os.ReadDir(top); err != nil || len(entries) != 6 {
		t.Errorf("after it was abandoned: %v (%v)", entries, err)
	}
}

func TestWrite(t *testing.T) {
	content := func(s string) func(*os.File) error {
		return func(f *os.File) error {
			_, err := f.WriteString(s)
			return err
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, strings.Repeat("n", 255)) // the longest name there is
	want := func(s string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != s {
			t.Errorf("content %q, %v; want %q", got, err, s)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("in the folder: %v, %v; want one file", entries, err)
		}
	}

	if err := Write(path, false, content("one")); err != nil {
		t.Fatal(err)
	}
	want("one")
	if err := Write(path, false, content("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("writing over a file without force: %v", err)
	}
	want("one")
	broken := errors.New("broken")
	err := Write(path, true, func(f *os.File) error {
		f.WriteString("half")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want the callback's", err)
	}
	want("one")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Write(path, true, content("three")); err != nil {
		t.Fatal(err)
	}
	want("three")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v; want that of the file before", info.Mode(), err)
	}

	// Somebody was quicker.
	other := filepath.Join(t.TempDir(), "other")
	err = Write(other, false, func(*os.File) error { return os.WriteFile(other, []byte("theirs"), 0o600) })
	if got, _ := os.ReadFile(other); !errors.Is(err, fs.ErrExist) || string(got) != "theirs" {
		t.Errorf("a file that appeared meanwhile: %v, content %q", err, got)
	}
	if err := Write(t.TempDir(), true, content("")); err == nil {
		t.Error("a folder was replaced")
	}
}

func TestWriteKeepsLinks(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	err := Write(link, true, func(f *os.File) error {
		_, err := f.WriteString("new")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(target); string(got) != "new" {
		t.Errorf("target has %q", got)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("the link became %v, %v", info.Mode(), err)
	}
}

func TestWriteNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "davit.key")
	if err := WriteNew(path, 0o600, []byte("one")); err != nil {
		t.Fatal(err)
	}
	err := WriteNew(path, 0o600, []byte("two"))
	if got, _ := os.ReadFile(path); !errors.Is(err, fs.ErrExist) || string(got) != "one" {
		t.Errorf("writing over a key: %v, content %q", err, got)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
