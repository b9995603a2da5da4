package main

import (
	"crypto/sha256"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/store"
)

// A checkedRecord is the layers that this host has written, or read as a whole.
//
// The bytes of a layer hold what its directory says, wherever they are: that is
// noted once. Whether a place has these bytes is noted for each repository. A
// registry takes bytes under their own digest only, but davit does not believe that
// of every registry: what was found in one repository does not count in another. In
// a layout or an archive, everybody who can write to the folder can change a file at
// any time. There the bytes are hashed whenever they are used, and the note saves
// only the rest of the work.
type checkedRecord map[artifact.LayerID]bool

// has reports whether a layer of this repository is known to hold what its
// directory says, if, where [checksDigests] is false, its bytes have its digest.
func (c checkedRecord) has(repo *registry.Repository, layer artifact.LayerID) bool {
	if checksDigests(repo) {
		return c[inRepository(repo, layer)]
	}
	return c[layer]
}

// recordChecked notes layers that were written to this repository, or read in it.
func recordChecked(store *store.Store, repo *registry.Repository, layers []artifact.LayerID) error {
	var notes []artifact.LayerID
	for _, l := range layers {
		notes = append(notes, l)
		if checksDigests(repo) {
			notes = append(notes, inRepository(repo, l))
		}
	}
	return store.RecordChecked(notes)
}

// checksDigests reports whether what is under a digest has been looked at by
// whoever took it, and stays.
func checksDigests(repo *registry.Repository) bool {
	return repo.Reference().Kind == registry.Remote
}

func inRepository(repo *registry.Repository, layer artifact.LayerID) artifact.LayerID {
	return sha256.Sum256(append([]byte("davit checked 1\x00"+repo.Reference().Name()+"\x00"), layer[:]...))
}
