package artifact

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/davit-oci/davit/internal/subject"
)

// A Base is an artifact whose layers another one may reference.
type Base struct {
	*Image
	layers []baseLayer
}

// OpenBase opens an artifact to be a base, as [Open] does, and checks the
// directories of all its layers. Frames are not looked at; see
// [Packed.CheckReused].
func OpenBase(ctx context.Context, src Fetcher, s subject.Subject, o OpenOptions) (*Base, error) {
	im, err := Open(ctx, src, s, o)
	if err != nil {
		return nil, err
	}
	b := &Base{Image: im}
	if err := b.load(ctx, max(1, o.Jobs)); err != nil {
		return nil, errors.Join(err, im.Close())
	}
	return b, nil
}

func (b *Base) load(ctx context.Context, jobs int) error {
	type line struct {
		disk *Disk
		i    int
	}
	var lines []line // of layer tables, each layer once
	seen := map[sum]bool{}
	for _, d := range b.Disks {
		if !d.Index.Profile.Known() {
			return fmt.Errorf("disk %s is cut by profile %s: %w", d.Name, d.Index.Profile, ErrNewer)
		}
		for i := range d.Index.Layers {
			if l := &d.Index.Layers[i]; !seen[l.Digest] {
				seen[l.Digest] = true
				lines = append(lines, line{d, i})
			}
		}
	}
	b.layers = make([]baseLayer, len(lines))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for n, l := range lines {
		g.Go(func() error {
			dir, err := l.disk.directory(ctx, l.i)
			b.layers[n] = baseLayer{IndexLayer: l.disk.Index.Layers[l.i], desc: l.disk.layers[l.i], dir: dir}
			return err
		})
	}
	return g.Wait()
}

// A baseLayer is a layer of a base.
type baseLayer struct {
	IndexLayer
	desc ocispec.Descriptor
	dir  *directory
	from int // which base
}

// A baseTable is the chunks of all layers of the bases, each layer once, and
// which of them are used.
type baseTable struct {
	layers []baseLayer
	first  []uint64 // ref of the first chunk of each layer
	chunks uint64   // of all layers
	table  *chunkTable
	used   []uint64 // a bit for each chunk

	live, all []int64 // blocks of each layer
	keep      []bool
	position  []int // in the new layer table, of layers that are kept

	entry [1]chunkEntry
}

func newBaseTable(dir string, bases []*Base, without map[digest.Digest]bool) (*baseTable, error) {
	t := &baseTable{table: newChunkTable(dir)}
	seen := map[sum]bool{}
	for from, b := range bases {
		for _, l := range b.layers {
			if seen[l.Digest] || without[l.desc.Digest] {
				continue
			}
			seen[l.Digest] = true
			l.from = from
			if err := t.addLayer(l); err != nil {
				return nil, errors.Join(err, t.close())
			}
		}
	}
	t.used = make([]uint64, t.chunks/64+1)
	t.live = make([]int64, len(t.layers))
	t.position = make([]int, len(t.layers))
	return t, nil
}

func (t *baseTable) addLayer(l baseLayer) error {
	t.layers = append(t.layers, l)
	t.first = append(t.first, t.chunks)
	t.all = append(t.all, l.dir.blocks)
	var entries []chunkEntry
	for at := 0; at < l.dir.chunks; at += len(entries) {
		var err error
		if entries, err = l.dir.chunkEntries(entries[:0], at, min(1024, l.dir.chunks-at)); err != nil {
			return err
		}
		for i := range entries {
			if err := t.table.add(&entries[i].digest, t.chunks); err != nil {
				return err
			}
			t.chunks++
		}
	}
	return nil
}

// layerOf returns the layer of a chunk.
func (t *baseTable) layerOf(r ref) int {
	return sort.Search(len(t.first), func(i int) bool { return t.first[i] > r }) - 1
}

// chunk returns the layer and the entry of a chunk.
func (t *baseTable) chunk(r ref) (layer int, e *chunkEntry, err error) {
	layer = t.layerOf(r)
	if _, err := t.layers[layer].dir.chunkEntries(t.entry[:0], int(r-t.first[layer]), 1); err != nil {
		return 0, nil, err
	}
	return layer, &t.entry[0], nil
}

// use notes that the new disks need a chunk.
func (t *baseTable) use(r ref, blocks int64) {
	if bit := uint64(1) << (r % 64); t.used[r/64]&bit == 0 {
		t.used[r/64] |= bit
		t.live[t.layerOf(r)] += blocks
	}
}

// withDead says which layers hold a chunk that is on none of the new disks,
// whichever layer it belongs to.
func (t *baseTable) withDead() ([]bool, error) {
	dead := make([]bool, len(t.layers))
	var entries []chunkEntry
	var values []uint64
	for l := range t.layers {
		dir := t.layers[l].dir
		for at := 0; at < dir.chunks && !dead[l]; at += len(entries) {
			var err error
			if entries, err = dir.chunkEntries(entries[:0], at, min(1024, dir.chunks-at)); err != nil {
				return nil, err
			}
			for i := range entries {
				if values, err = t.table.lookup(values, &entries[i].digest); err != nil {
					return nil, err
				}
				dead[l] = dead[l] || t.used[values[0]/64]>>(values[0]%64)&1 == 0
			}
		}
	}
	return dead, nil
}

func (t *baseTable) close() error { return t.table.close() }

// CheckReusedOptions are the options of [Packed.CheckReused].
type CheckReusedOptions struct {
	Jobs int // layers read at once; 0 is 8

	// Known, if it is not nil, says which layers need not be read: layer, of the
	// artifact PackOptions.Bases[base]. It is not called concurrently.
	Known func(base int, layer LayerID) bool
}

// CheckReused reads the layers of bases that the new artifact keeps: every frame,
// also of chunks that the new disks do not need. So whoever trusts the signature
// of the new artifact can build on all of its layers. The bases must still be
// open. An error that a base is to blame for is a [BaseError].
func (p *Packed) CheckReused(ctx context.Context, o CheckReusedOptions) error {
	if o.Jobs <= 0 {
		o.Jobs = 8
	}
	t := p.packer.base
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(o.Jobs)
	for l := range t.layers {
		layer := &t.layers[l]
		if !t.keep[l] || o.Known != nil && o.Known(layer.from, layer.id()) {
			continue
		}
		g.Go(func() error {
			if err := p.packer.o.Bases[layer.from].checkFrames(ctx, layer.dir, nil); err != nil {
				return &BaseError{layer.from, err}
			}
			p.checked(layer.id())
			return nil
		})
	}
	return g.Wait()
}

// A BaseError is an error that a base is to blame for.
type BaseError struct {
	Base int // index into PackOptions.Bases
	Err  error
}

func (e *BaseError) Error() string { return e.Err.Error() }
func (e *BaseError) Unwrap() error { return e.Err }

func (l *baseLayer) id() LayerID { return l.IndexLayer.id(l.desc.MediaType) }
