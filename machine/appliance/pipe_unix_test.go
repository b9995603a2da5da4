//go:build unix

package appliance

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Who opens a pipe waits until somebody else does.
func TestPipesAreNotOpened(t *testing.T) {
	path := newPacket("", nil, []fileOf{{name: "cd.iso"}}).without("cd.iso").folder(t)
	pipe := filepath.Join(filepath.Dir(path), "cd.iso")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if a, err := Open(t.Context(), path, Options{}); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a file of the package: %v, %v", a, err)
	}
	if a, err := Open(t.Context(), pipe, Options{}); err == nil || !strings.Contains(err.Error(), "not a machine") {
		t.Errorf("the package: %v, %v", a, err)
	}
}
