package store

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"github.com/davit-oci/davit/artifact"
)

// A checkedRecord is a line of the file of checked layers.
type checkedRecord struct {
	Layers []string `json:"layers"` // in hex
}

// maxChecked bounds the file of checked layers, in bytes. It is a memory of work
// that need not be done again, so that a file that is full begins anew.
const maxChecked = 4 << 20

func (s *Store) checked() records { return records{s.path(checkedFile)} }

// RecordChecked notes layers that this host has read, or written, as a whole, so
// that they need not be read again before something is signed.
func (s *Store) RecordChecked(layers []artifact.LayerID) error {
	known := s.Checked()
	var r checkedRecord
	for _, l := range layers {
		if !known[l] {
			known[l] = true
			r.Layers = append(r.Layers, hex.EncodeToString(l[:]))
		}
	}
	if len(r.Layers) == 0 {
		return nil
	}
	file := s.checked()
	fail := func(err error) error { return fmt.Errorf("writing the checked layers: %w", err) }
	if info, err := os.Stat(file.path); err == nil && info.Size() > maxChecked {
		if err := file.remove(); err != nil {
			return fail(err)
		}
	}
	if err := file.append(r); err != nil {
		return fail(err)
	}
	return nil
}

// Checked returns the layers that [Store.RecordChecked] has noted. What cannot be
// read was not noted.
func (s *Store) Checked() map[artifact.LayerID]bool {
	checked := make(map[artifact.LayerID]bool)
	for raw, err := range s.checked().all() {
		var r checkedRecord
		if err != nil || json.Unmarshal(raw, &r) != nil {
			continue
		}
		for _, l := range r.Layers {
			var id artifact.LayerID
			if b, err := hex.DecodeString(l); err == nil && len(b) == len(id) {
				checked[artifact.LayerID(b)] = true
			}
		}
	}
	return checked
}
