package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOutputsAppearTogether wants all files of a command or none, where one of
// them cannot get its name although it could when it was begun.
func TestOutputsAppearTogether(t *testing.T) {
	begin := func(t *testing.T, force bool) (out *outputs, dir string) {
		dir, out = t.TempDir(), new(outputs)
		for _, name := range []string{"a", "b", "c"} {
			if err := out.write(filepath.Join(dir, name), force, []byte("new")); err != nil {
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
		if err := out.commit(); err == nil {
			t.Error("no error")
		}
		out.abandon(false)
		check(t, dir, map[string]string{"c": "other"})
	})
	t.Run("a part is taken away", func(t *testing.T) {
		out, dir := begin(t, false)
		os.Remove(partPath(filepath.Join(dir, "c")))
		if err := out.commit(); err == nil {
			t.Error("no error")
		}
		out.abandon(false)
		check(t, dir, nil)
	})
	t.Run("what was replaced is told", func(t *testing.T) {
		out, dir := begin(t, true)
		write(t, filepath.Join(dir, "a"), "old")
		os.Remove(partPath(filepath.Join(dir, "c")))
		if err := out.commit(); err == nil || !strings.Contains(err.Error(), "replaced before that: "+filepath.Join(dir, "a")) {
			t.Errorf("error %v", err)
		}
		out.abandon(false)
		check(t, dir, map[string]string{"a": "new"})
	})
	t.Run("all", func(t *testing.T) {
		out, dir := begin(t, false)
		if err := out.commit(); err != nil {
			t.Error(err)
		}
		out.abandon(false)
		check(t, dir, map[string]string{"a": "new", "b": "new", "c": "new"})
	})
}

// TestPartThatGotItsName is of two runs for one file: the second opens the part
// while the first still writes it, and must not go on in what has its name.
func TestPartThatGotItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	first, err := openPart(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openPart(path, false); err == nil {
		t.Error("a part was opened twice")
	}
	late, err := openOwn(first.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if !isNamed(late, partPath(path)) {
		t.Error("a part has not its name")
	}
	if err := first.commit(); err != nil {
		t.Fatal(err)
	}
	if isNamed(late, partPath(path)) {
		t.Error("a file that was delivered is taken for its part")
	}
}
