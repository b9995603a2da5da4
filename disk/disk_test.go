package disk_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
)

// wantError wants a refusal that is kind, says what is wrong, and has no image.
func wantError(t *testing.T, img *disk.Image, err, kind error, says string) {
	t.Helper()
	if !errors.Is(err, kind) || err != nil && !strings.Contains(err.Error(), says) {
		t.Errorf("got error %v, want one that is %q and says %s", err, kind, says)
	}
	if img != nil {
		t.Error("there is an image besides the error")
		img.Close()
	}
}
