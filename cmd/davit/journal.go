package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"sync"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A pushJournal remembers the layers that a push to a repository has finished,
// so that the next one, after this was killed, compresses and sends none of
// them again. It is removed when a push is complete.
type pushJournal struct {
	repo    *registry.Repository
	journal *registry.Journal

	mu      sync.Mutex
	records map[[sha256.Size]byte]artifact.LayerRecord // by first chunk
}

func openJournal(store *registry.Store, repo *registry.Repository) *pushJournal {
	j := &pushJournal{
		repo:    repo,
		journal: store.Journal("push " + repo.Reference().Name()),
		records: map[[sha256.Size]byte]artifact.LayerRecord{},
	}
	// What cannot be read is done again.
	for raw, err := range j.journal.Records() {
		var r artifact.LayerRecord
		if err == nil && json.Unmarshal(raw, &r) == nil {
			j.records[r.First] = r
		}
	}
	return j
}

// Find implements [artifact.Journal]: the registry is asked whether it still
// has the layer.
func (j *pushJournal) Find(ctx context.Context, first [sha256.Size]byte) (artifact.LayerRecord, bool) {
	j.mu.Lock()
	r, ok := j.records[first]
	j.mu.Unlock()
	if !ok {
		return r, false
	}
	there, err := j.repo.Exists(ctx, ocispec.Descriptor{
		MediaType: artifact.TypeLayer, Digest: artifact.Digest(r.Layer.Digest), Size: r.Layer.Size})
	return r, err == nil && there
}

// Done implements [artifact.Journal].
func (j *pushJournal) Done(r artifact.LayerRecord) error {
	j.mu.Lock()
	j.records[r.First] = r
	j.mu.Unlock()
	return j.journal.Append(r)
}
