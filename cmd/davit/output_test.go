package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteFile(t *testing.T) {
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

	if err := writeFile(path, false, content("one")); err != nil {
		t.Fatal(err)
	}
	want("one")
	if err := writeFile(path, false, content("two")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("writing over a file without force: %v", err)
	}
	want("one")
	broken := errors.New("broken")
	err := writeFile(path, true, func(f *os.File) error {
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
	if err := writeFile(path, true, content("three")); err != nil {
		t.Fatal(err)
	}
	want("three")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v; want that of the file before", info.Mode(), err)
	}

	// Somebody was quicker.
	other := filepath.Join(t.TempDir(), "other")
	err = writeFile(other, false, func(*os.File) error { return os.WriteFile(other, []byte("theirs"), 0o600) })
	if got, _ := os.ReadFile(other); !errors.Is(err, fs.ErrExist) || string(got) != "theirs" {
		t.Errorf("a file that appeared meanwhile: %v, content %q", err, got)
	}
	if err := writeFile(t.TempDir(), true, content("")); err == nil {
		t.Error("a folder was replaced")
	}
}

func TestWriteNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "davit.key")
	if err := writeNew(path, 0o600, []byte("one")); err != nil {
		t.Fatal(err)
	}
	err := writeNew(path, 0o600, []byte("two"))
	if got, _ := os.ReadFile(path); !errors.Is(err, fs.ErrExist) || string(got) != "one" {
		t.Errorf("writing over a key: %v, content %q", err, got)
	}
}

func TestWriteFileKeepsLinks(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	err := writeFile(link, true, func(f *os.File) error {
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

func TestSize(t *testing.T) {
	for in, want := range map[string]size{"1": 1, "4096": 4096, "1K": 1 << 10, "256M": 256 << 20, "2g": 2 << 30, "3T": 3 << 40} {
		got, err := parseSize(in)
		if err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", in, got, err, want)
		}
		if again, err := parseSize(got.String()); err != nil || again != got {
			t.Errorf("%d is printed as %q, which reads as %d, %v", got, got.String(), again, err)
		}
	}
	for _, in := range []string{"", "0", "K", "1.5G", "-1", "1KB", "1P", " 1", "8388608T", "99999999999999999999"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", in, got)
		}
	}
}
