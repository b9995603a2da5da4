package store

import (
	"crypto/sha256"
	"testing"

	"github.com/davit-oci/davit/artifact"
)

func layerOf(content string) artifact.LayerRecord {
	return artifact.LayerRecord{
		First:  sha256.Sum256([]byte(content)),
		Recipe: sha256.Sum256([]byte("recipe of " + content)),
		Codec:  "zstd",
		Layer:  artifact.IndexLayer{Digest: sha256.Sum256([]byte("layer of " + content)), Size: 100, Chunks: 3},
	}
}

func TestJournal(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	const name = "a.b/vm: with / and \x00"
	first, again := s.Journal(name), s.Journal(name)
	a, b := layerOf("a"), layerOf("b")
	if _, ok := first.Find(a.First); ok {
		t.Error("it has a layer before one is done")
	}
	// Two processes push to one repository.
	if err := first.Done(a); err != nil {
		t.Fatal(err)
	}
	if err := again.Done(b); err != nil {
		t.Fatal(err)
	}
	newer := a
	newer.Codec = "xz"
	if err := first.Done(newer); err != nil {
		t.Fatal(err)
	}
	for when, j := range map[string]*Journal{"the one that wrote it": first, "the next one": s.Journal(name)} {
		if got, ok := j.Find(a.First); !ok || got != newer {
			t.Errorf("%s: got %+v, %v", when, got, ok)
		}
	}
	if got, ok := s.Journal(name).Find(b.First); !ok || got != b {
		t.Errorf("of another process: got %+v, %v", got, ok)
	}
	if _, ok := s.Journal("a.b/other").Find(a.First); ok {
		t.Error("it is in the journal of another repository")
	}
	for range 2 {
		if err := first.Remove(); err != nil {
			t.Error(err)
		}
	}
	if _, ok := s.Journal(name).Find(a.First); ok {
		t.Error("it is there after Remove")
	}
}
