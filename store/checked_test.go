package store

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/artifact"
)

func layerID(s string) artifact.LayerID { return sha256.Sum256([]byte(s)) }

func TestRecordChecked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	a, b, c := layerID("a"), layerID("b"), layerID("c")
	if len(s.Checked()) != 0 {
		t.Error("something is checked by nobody")
	}
	for _, layers := range [][]artifact.LayerID{{a}, {a, b}, {}} {
		if err := s.RecordChecked(layers); err != nil {
			t.Fatal(err)
		}
	}
	// What is not a record is not one, and hides none.
	path := filepath.Join(dir, checkedFile)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("{\"layers\":[\"00\",\"" + strings.Repeat("zz", 32) + "\",\"" + strings.Repeat("00", 40) + "\"]}\n{\"lay"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := s.RecordChecked([]artifact.LayerID{c}); err != nil {
		t.Fatal(err)
	}
	got := openStore(t, dir).Checked()
	if len(got) != 3 || !got[a] || !got[b] || !got[c] {
		t.Errorf("got %d layers: %v", len(got), got)
	}
	// It has an end.
	if err := os.Truncate(path, maxChecked+1); err != nil {
		t.Fatal(err)
	}
	d := layerID("d")
	if err := s.RecordChecked([]artifact.LayerID{d}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 1000 {
		t.Errorf("got %v, %v", info, err)
	}
	if got := s.Checked(); !got[d] {
		t.Errorf("got %v", got)
	}
}
