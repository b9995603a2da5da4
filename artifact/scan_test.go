package artifact

import (
	"bytes"
	"errors"
	"testing"

	"github.com/davit-oci/davit/chunker"
)

// What is found by Scan is what Pack records, and the zero options are right.
func TestScan(t *testing.T) {
	content := testDisk(9, 5<<20+100)
	m := newMemory()
	desc, p := m.pack(t, []Source{{"disk0", bytes.NewReader(content)}}, PackOptions{})
	d := m.open(t, desc).Disk("disk0")

	if got, err := Scan(t.Context(), bytes.NewReader(content), ScanOptions{}); err != nil || got != d.Digest {
		t.Errorf("digest %x, want %x, %v", got, d.Digest, err)
	}
	var found []Chunk
	told := int64(0)
	got, err := Scan(t.Context(), bytes.NewReader(content), ScanOptions{
		Profile:  chunker.Profile1,
		Memory:   1,
		Found:    func(c Chunk) error { found = append(found, c); return nil },
		Progress: func(n int64) { told += n },
	})
	if err != nil || got != d.Digest {
		t.Errorf("with options: digest %x, want %x, %v", got, d.Digest, err)
	}
	if told < p.DataSize[0] || told >= p.DataSize[0]+chunker.BlockSize {
		t.Errorf("told of %d bytes of %d", told, p.DataSize[0])
	}
	i := 0
	for want, err := range d.Chunks(t.Context()) {
		if err != nil || i >= len(found) || found[i] != want {
			t.Fatalf("chunk %d of %d is not %+v, %v", i, len(found), want, err)
		}
		i++
	}
	if i != len(found) {
		t.Errorf("%d chunks, want %d", len(found), i)
	}

	broken := errors.New("broken")
	if _, err := Scan(t.Context(), bytes.NewReader(content), ScanOptions{Found: func(Chunk) error { return broken }}); err != broken {
		t.Errorf("an error of Found: %v", err)
	}
	seeds := NewSeeds(t.TempDir())
	defer seeds.Close()
	if _, err := Scan(t.Context(), bytes.NewReader(content), ScanOptions{Profile: 7}); !errors.Is(err, ErrNewer) {
		t.Errorf("an unknown profile: %v", err)
	}
	if err := seeds.Add(t.Context(), bytes.NewReader(content), SeedOptions{Profile: 7}); !errors.Is(err, ErrNewer) {
		t.Errorf("a seed of an unknown profile: %v", err)
	}
}
