package beneath

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

func TestFind(t *testing.T) {
	dir := filepath.Join(t.TempDir(), ".home") // what the user named may be hidden
	for _, name := range []string{"disk", "a/disk", ".ssh/id", "a/.config/x", ".netrc", "..rc", "a..b/x"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	links := runtime.GOOS != "windows"
	if links {
		for link, to := range map[string]string{
			"file": ".ssh/id", "folder": ".ssh", "twice": "folder", "good": "a", ".good": "disk",
			"back": "a/../disk", "out": "../" + filepath.Base(filepath.Dir(dir)), "up": "..",
		} {
			if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
				t.Fatal(err)
			}
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, test := range []struct {
		name string
		want string // where it is; empty: hidden
		link bool
	}{
		{"disk", "disk", false},
		{"./disk", "disk", false},
		{"a/../disk", "disk", false},
		{"a..b/x", "a..b/x", false},
		{".ssh/id", "", false},
		{"./.ssh/id", "", false},
		{"a/../.ssh/id", "", false},
		{"a/.config/x", "", false},
		{".netrc", "", false},
		{"..rc", "", false},
		{`a\.config\x`, "", false},
		{"\u200c.ssh/id", "", false},
		{"\ufeff\ufe0f.netrc", "", false},
		{".gone", "", false}, // whether it is there is nobody's business either
		{"good/disk", "a/disk", true},
		{"back", "disk", true},
		{"file", "", true},
		{"folder/id", "", true},
		{"twice/id", "", true},
		{".good", "", true},
	} {
		if test.link && !links {
			continue
		}
		got, info, err := Find(root, filepath.FromSlash(test.name), false)
		if test.want == "" {
			if !errors.Is(err, ErrHidden) {
				t.Errorf("Find(%q) = %q, %v; want ErrHidden", test.name, got, err)
			}
			continue
		}
		if err != nil || filepath.ToSlash(got) != test.want || info.Size() == 0 {
			t.Errorf("Find(%q) = %q, %v; want %q", test.name, got, err, test.want)
		}
	}

	// What is allowed is found, and still nothing outside.
	if got, _, err := Find(root, filepath.FromSlash(".ssh/id"), true); err != nil || filepath.ToSlash(got) != ".ssh/id" {
		t.Errorf("Find = %q, %v", got, err)
	}
	if _, _, err := Find(root, "gone", false); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	for _, name := range []string{"../x", "up", "out"} {
		if got, _, err := Find(root, name, true); err == nil {
			t.Errorf("Find(%q) = %q", name, got)
		}
	}
}
