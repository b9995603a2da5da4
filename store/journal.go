package store

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/davit-oci/davit/artifact"
)

// A Journal remembers the layers that a push to a repository has finished, so
// that the next push, after this one was killed, compresses and sends none of
// them again. It is safe for concurrent use, by several processes too.
type Journal struct {
	records records

	mu     sync.Mutex
	layers map[[sha256.Size]byte]artifact.LayerRecord // by first chunk
}

// Journal reads the journal of pushes to a repository, whose name can be any
// text. What cannot be read is not in it: that is done again.
func (s *Store) Journal(repository string) *Journal {
	j := &Journal{
		records: records{s.path(journalDir, nameOf("push "+repository)+".jsonl")},
		layers:  make(map[[sha256.Size]byte]artifact.LayerRecord),
	}
	for raw, err := range j.records.all() {
		var r artifact.LayerRecord
		if err == nil && json.Unmarshal(raw, &r) == nil {
			j.layers[r.First] = r
		}
	}
	return j
}

// Find returns the finished layer that begins with a chunk. Whether the registry
// still has it must be asked there.
func (j *Journal) Find(first [sha256.Size]byte) (r artifact.LayerRecord, ok bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r, ok = j.layers[first]
	return r, ok
}

// Done adds a finished layer. It returns when the record is on stable storage.
func (j *Journal) Done(r artifact.LayerRecord) error {
	j.mu.Lock()
	j.layers[r.First] = r
	j.mu.Unlock()
	if err := j.records.append(r); err != nil {
		return fmt.Errorf("writing journal: %w", err)
	}
	return nil
}

// Remove removes the journal. It is called when a push is complete.
func (j *Journal) Remove() error { return j.records.remove() }
