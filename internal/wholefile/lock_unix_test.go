//go:build unix

package wholefile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/davit-oci/davit/internal/own"
)

const nobody = 65534

// What is in the place of a lock and is none is told at once. Nothing that a link leads to comes into being.
func TestLockWaitsForLocksOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, ".davit-lock")
	plants := map[string]func() error{
		"is a symbolic link": func() error { return os.Symlink(filepath.Join(dir, "made"), path) },
		"is a hard link": func() error {
			return errors.Join(os.WriteFile(path+".other", nil, 0o600), os.Link(path+".other", path))
		},
		"is not a regular file":       func() error { return syscall.Mkfifo(path, 0o600) },
		"can be written to by others": func() error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, 0o666)) },
	}
	if os.Geteuid() == 0 {
		plants["belongs to user 65534"] = func() error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, nobody, nobody)) }
	}
	for what, plant := range plants {
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		_, err := Lock(t.Context(), path)
		if foreign := (*own.Error)(nil); !errors.As(err, &foreign) || !strings.Contains(err.Error(), what) {
			t.Errorf("Lock of what %s: %v", what, err)
		}
		if err := os.Remove(path); err != nil {
			t.Errorf("what %s is gone: %v", what, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "made")); err == nil {
		t.Error("what the link points to has been made")
	}
	release, err := Lock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	release()
}
