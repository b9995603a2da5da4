package artifact

import (
	"crypto/sha256"
	"slices"
)

// A LayerID names a layer and the directory that a line of the layer table
// takes for its own, both by content. That each frame of the layer holds what
// the directory says is true of a LayerID for ever, whichever artifact lists
// it. It is not true of what is stored under the layer's digest somewhere: that
// these are the layer's bytes is known where they were read, or written.
//
// The digest of the layer is not enough: the same bytes can have another
// directory for somebody who reads them with another codec.
type LayerID [sha256.Size]byte

func (l *IndexLayer) id(mediaType string) LayerID {
	return sha256.Sum256(l.append([]byte("davit layer 1\x00" + mediaType + "\x00")))
}

// Checked returns the layers that are known to be there and to hold what their
// directories say: those that Pack has written, and those that CheckReused has
// read.
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

// Checked returns the layers that [Image.Check] has read whole. What was fetched
// by ranges is not among them, all frames of a layer either: nobody has seen
// whether they and its directory are what the digest of the layer says.
func (im *Image) Checked() []LayerID {
	im.mu.Lock()
	defer im.mu.Unlock()
	return slices.Clone(im.good)
}

func (im *Image) checked(id LayerID) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.good = append(im.good, id)
}
