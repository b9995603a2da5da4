//go:build unix

package credentials

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const nobody = 65534

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// A link in the place of the lock is not followed. The file with credentials may itself be a link of the user's, and of nobody else.
func TestFileOfOthers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, victim := filepath.Join(dir, "auth.json"), filepath.Join(dir, "victim")
	change := func() error {
		return changeAuthFile(t.Context(), path, "a.b", func(_ string, auths map[string]json.RawMessage) error {
			auths["a.b"] = json.RawMessage(`{"auth":"dTpw"}`)
			return nil
		})
	}
	lock := filepath.Join(dir, ".auth.json"+lockSuffix)
	if err := os.Symlink(victim, lock); err != nil {
		t.Fatal(err)
	}
	if err := change(); err == nil || !strings.Contains(err.Error(), "is a symbolic link") || exists(path) || exists(victim) {
		t.Errorf("with a link in the place of its lock: %v", err)
	}
	os.Remove(lock)

	if err := os.WriteFile(victim, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("victim", path); err != nil {
		t.Fatal(err)
	}
	if err := change(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(victim); err != nil || !bytes.Contains(b, []byte("dTpw")) {
		t.Errorf("a link of the user's own is not followed: %q (%v)", b, err)
	}
	if os.Geteuid() != 0 {
		return // the rest is of a second user
	}
	if err := errors.Join(os.WriteFile(victim, []byte("{}"), 0o600), os.Lchown(path, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	if err := change(); err == nil || !strings.Contains(err.Error(), "is a symbolic link of user 65534, which is not followed") {
		t.Errorf("by somebody else's link: %v", err)
	}
	if b, _ := os.ReadFile(victim); string(b) != "{}" {
		t.Errorf("somebody else's link was followed: %s", b)
	}
}
