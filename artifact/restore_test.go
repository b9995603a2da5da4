package artifact

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/davit-oci/davit/chunker"
)

// A restore that is cancelled says so, wherever it is: else half a disk would
// get its name.
func TestRestoreCancelled(t *testing.T) {
	m := newMemory()
	content := make([]byte, 3*chunker.RegionSize)
	for at := 0; at < len(content); at += chunker.RegionSize {
		copy(content[at:], testDisk(uint64(at), 1<<20))
	}
	desc, _ := m.pack(t, []Source{{"disk0", bytes.NewReader(content)}}, PackOptions{})
	d := m.open(t, desc).Disk("disk0")
	seeds := NewSeeds(t.TempDir())
	defer seeds.Close()
	if err := seeds.Add(t.Context(), bytes.NewReader(content), SeedOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, inOrder := range []bool{false, true} {
		// Nothing has to be fetched, so that no request ends it.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := &target{b: make([]byte, d.Size), ordered: inOrder}
		if _, err := d.Restore(ctx, w, RestoreOptions{Seeds: seeds}); !errors.Is(err, context.Canceled) {
			t.Errorf("in order %v, cancelled before it began: %v", inOrder, err)
		}

		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		w = &target{b: make([]byte, d.Size), ordered: inOrder}
		_, err := d.Restore(ctx, w, RestoreOptions{Seeds: seeds, Jobs: 1, Progress: func(int64) { cancel() }})
		if err == nil && !bytes.Equal(w.b, content) {
			t.Errorf("in order %v, cancelled when it had begun: no error, and the disk is not whole", inOrder)
		}
	}
}
