package space_test

import (
	"errors"
	"testing"

	"github.com/davit-oci/davit/internal/space"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	free, known := space.Free(dir)
	if !known {
		t.Skip("this system does not say how much space is free: Linux and macOS do")
	}
	if err := space.Check(dir, 2*free); !errors.Is(err, space.ErrFull) {
		t.Errorf("more than there is: %v", err)
	}
	if err := space.Check(dir, free-space.Left/2); !errors.Is(err, space.ErrFull) {
		t.Errorf("the last of it: %v", err)
	}
	if err := space.Check(dir, 1); free > 2*space.Left && err != nil {
		t.Errorf("a byte: %v", err)
	}
}
