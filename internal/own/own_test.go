package own

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func refused(t *testing.T, what string, err error, why string) {
	t.Helper()
	var foreign *Error
	if !errors.As(err, &foreign) || !strings.Contains(foreign.Why, why) {
		t.Errorf("%s: %v, want %q", what, err, why)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// openers are the ways to open what is there.
func openers(t *testing.T, dir string) map[string]func(name string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return map[string]func(string) (*os.File, error){
		"Open":         func(name string) (*os.File, error) { return Open(filepath.Join(dir, name), os.O_RDWR) },
		"OpenIn":       func(name string) (*os.File, error) { return OpenIn(root, name, os.O_RDWR) },
		"OpenOrCreate": func(name string) (*os.File, error) { return OpenOrCreate(filepath.Join(dir, name), os.O_RDWR, 0o600) },
	}
}

func TestOpenOurs(t *testing.T) {
	dir := t.TempDir()
	for name, open := range openers(t, dir) {
		path := filepath.Join(dir, name)
		write(t, path, "old")
		f, err := open(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := f.WriteAt([]byte("new"), 0); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f.Close()
		if got, _ := os.ReadFile(path); string(got) != "new" {
			t.Errorf("%s: the file has %q", name, got)
		}
	}
	if f, err := OpenOrCreate(filepath.Join(dir, "fresh"), os.O_RDWR, 0o600); err != nil {
		t.Error(err)
	} else {
		f.Close()
	}
	for name, open := range openers(t, dir) {
		if name != "OpenOrCreate" {
			if _, err := open("missing"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s of what is not there: %v", name, err)
			}
		}
	}
}

// A link in the place of a file is not followed, whoever has made it, and what it
// points to does not come into being.
func TestOpenFollowsNoLink(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "target"), "untouched")
	for _, link := range []struct{ name, to string }{{"link", "target"}, {"dangling", "made"}} {
		if err := os.Symlink(link.to, filepath.Join(dir, link.name)); err != nil {
			if runtime.GOOS == "windows" {
				t.Skipf("%v: an administrator, or the developer mode, runs this test", err)
			}
			t.Fatal(err)
		}
		for name, open := range openers(t, dir) {
			_, err := open(link.name)
			refused(t, name+" "+link.name, err, "is a symbolic link")
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "made")); !errors.Is(err, os.ErrNotExist) {
		t.Error("what the link points to has been made")
	}
}

func TestOpenNoHardLink(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "target"), "untouched")
	if err := os.Link(filepath.Join(dir, "target"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, open := range openers(t, dir) {
		_, err := open("link")
		refused(t, name, err, "is a hard link: the file has 2 names")
	}
}

func TestCheckFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := CheckFolder(filepath.Join(dir, "folder")); err != nil {
		t.Error(err)
	}
	write(t, filepath.Join(dir, "file"), "")
	refused(t, "a file", CheckFolder(filepath.Join(dir, "file")), "is no folder")
}

// Locks are removed, and made again, while others open them: that is no fault of
// theirs.
func TestOpenWhatComesAndGoes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 5000 {
				f, err := OpenOrCreate(path, os.O_RDWR, 0o600)
				if runtime.GOOS == "windows" && errors.Is(err, os.ErrPermission) { // it is about to go
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				os.Remove(path)
				f.Close()
			}
		}()
	}
	for range 4 {
		<-done
	}
}

func TestReadNoMoreThanTheLimit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	write(t, path, "12345")
	for name, read := range map[string]func(string, int64) ([]byte, error){"ReadFile": ReadFile, "ReadAny": ReadAny} {
		if b, err := read(path, 5); err != nil || string(b) != "12345" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if b, err := read(path, 4); err == nil {
			t.Errorf("%s reads %d bytes of at most 4", name, len(b))
		}
	}
}
