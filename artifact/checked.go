package artifact

import (
	"crypto/sha256"
	"slices"
)

// A LayerID names a layer and the directory that a line of the layer table
// takes for its own, both by content. That each frame of the layer holds what
// the directory says is true of a LayerID for ever, whichever artifact lists
// it, so a host can keep a record of those that it has checked.
//
// The digest of the layer is not enough: the same bytes can have another
// directory for somebody who reads them with another codec.
type LayerID [sha256.Size]byte

func (l *IndexLayer) id(mediaType string) LayerID {
	return sha256.Sum256(l.append([]byte("davit layer 1\x00" + mediaType + "\x00")))
}

// Checked returns the layers that are known to hold what their directories say:
// those that Pack has written, and those that CheckReused has read.
func (p *Packed) Checked() []LayerID {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := slices.Clone(p.good)
	for i := p.Kept; i < len(p.Layers); i++ {
		all = append(all, p.table[i].id(p.Layers[i].MediaType))
	}
	return all
}

func (p *Packed) checked(id LayerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.good = append(p.good, id)
}

// Checked returns the layers of which every frame was read through im and
// found to hold what the directory says. What came from seeds was not read.
func (im *Image) Checked() []LayerID {
	im.mu.Lock()
	defer im.mu.Unlock()
	var all []LayerID
	for l, load := range im.dirs {
		load.mu.Lock()
		if dir := load.dir; dir != nil && dir.good.len() == dir.frames {
			all = append(all, l.id(dir.layer.MediaType))
		}
		load.mu.Unlock()
	}
	return all
}
