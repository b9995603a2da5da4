package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/disk"
)

// A Source is a disk to pack.
type Source struct {
	Name   string      // see [ValidDiskName]
	Reader disk.Reader // sectors of 4096 bytes that it tells of ([disk.SectorSize]) are noted
}

// PackOptions are the options of [Pack]. What decides the bytes of the
// artifact is Profile, Codec, Bases and Scrub, and nothing else.
type PackOptions struct {
	Profile chunker.Profile // 0 is [chunker.Profile1]
	Codec   Codec

	// Bases are artifacts whose layers may be referenced, in this order.
	Bases []*Base

	// Without are layers of the bases that must not be referenced.
	Without map[digest.Digest]bool

	// Scrub rewrites every layer that holds a chunk the disks do not need.
	Scrub bool

	// Journal remembers the layers that an earlier Pack has pushed, so that
	// they are not compressed again. It may be nil.
	Journal Journal

	Jobs      int    // blobs pushed at once; 0 is 8
	MaxMemory int64  // bytes that buffers may take; 0 is 128 MiB
	Scratch   string // folder for temporary files; empty is the system's

	Progress func(bytes int64)             // is told of disk data that was cut; may be nil
	Found    func(disk int, c Chunk) error // is told of every chunk in order; may be nil
}

// Packed is what [Pack] made: the parts of a manifest, and what it cost.
type Packed struct {
	Disks  []DiskDescriptor
	Layers []ocispec.Descriptor // as in the layer table: kept ones first

	Kept     int     // layers that were there before
	DataSize []int64 // bytes of data in each disk, without holes

	Reused int64 // plain bytes found in layers of the bases
	New    int64 // plain bytes written to new layers
	Dead   int64 // plain bytes of kept layers that the disks do not need
	Blobs  int64 // bytes of new layers and indexes, as stored

	// From says which base each kept layer was taken from.
	From []int

	packer *packer
	table  []IndexLayer // of Layers

	mu   sync.Mutex
	good []LayerID // of kept layers that were checked
}

// Pack cuts disks into chunks, pushes those that no base holds to target in new
// layers, and pushes an index for each disk. [Publish] does the rest. The bases'
// layers must still be made available by the caller where they are not in the
// same repository.
//
// Memory does not depend on the size of the disks or bases. Disks are read
// once, in parallel; chunks of a base's layer that is rewritten are read again.
// The caller closes the result.
func Pack(ctx context.Context, target Pusher, disks []Source, o PackOptions) (*Packed, error) {
	if o.Profile == 0 {
		o.Profile = chunker.Profile1
	}
	if o.Jobs <= 0 {
		o.Jobs = 8
	}
	if o.MaxMemory <= 0 {
		o.MaxMemory = 128 << 20
	}
	for _, d := range disks {
		// What no reader would take, and what an image file can claim at no cost.
		if size := d.Reader.Size(); size > maxVirtualSize {
			return nil, fmt.Errorf("disk %s has a virtual size of %d bytes, more than 2^58", d.Name, size)
		}
	}
	enc, err := newEncoder(o.Codec)
	if err != nil {
		return nil, err
	}
	defer enc.close()
	p := &packer{o: o, target: target, enc: enc, sources: disks, fresh: newChunkTable(o.Scratch)}
	packed, err := p.pack(ctx)
	if err != nil {
		return nil, errors.Join(err, p.close())
	}
	return packed, nil
}

// Close removes temporary files.
func (p *Packed) Close() error { return p.packer.close() }

// A packer is the state of one Pack.
type packer struct {
	o      PackOptions
	target Pusher
	enc    *encoder
	base   *baseTable
	fresh  *chunkTable // new chunks: digest to number, counted over all new layers
	seen   *recordFile // every chunk of every disk in order

	sources []Source
	layers  *layerWriter
	pushes  *errgroup.Group
	push    func(func(context.Context) error) // in the background
	disks   []packedDisk

	packed Packed
	values []uint64 // of look-ups
}

// A packedDisk is what is known of a disk when it has been read.
type packedDisk struct {
	Source
	regions []IndexRegion // Number and Identity
	chunks  int64
	digest  sum
	data    int64
}

// A ref says where a chunk is stored: in the bases if it is below the number
// of their chunks, else in the new layers.
type ref = uint64

// seenRecord: u32 region, u16 start, u16 blocks, u64 ref.
const seenRecord = 16

func (p *packer) pack(ctx context.Context) (*Packed, error) {
	var err error
	if p.base, err = newBaseTable(p.o.Scratch, p.o.Bases, p.o.Without); err != nil {
		return nil, err
	}
	if p.seen, err = newRecordFile(p.o.Scratch, seenRecord); err != nil {
		return nil, err
	}
	// Pushes go on when all is packed, and end everything when one fails.
	pushCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	p.pushes = &errgroup.Group{}
	p.pushes.SetLimit(p.o.Jobs)
	p.push = func(f func(context.Context) error) {
		p.pushes.Go(func() error {
			err := f(pushCtx)
			if err != nil {
				cancel()
			}
			return err
		})
	}
	g, gctx := errgroup.WithContext(pushCtx)
	p.layers = newLayerWriter(gctx, p)

	g.Go(p.layers.run)
	g.Go(func() error {
		defer p.layers.stop()
		for _, d := range p.sources {
			if err := p.readDisk(gctx, d); err != nil {
				return fmt.Errorf("packing %s: %w", d.Name, err)
			}
		}
		if err := p.layers.endLayer(); err != nil {
			return err
		}
		return p.rewrite(gctx)
	})
	if err = g.Wait(); err != nil {
		cancel()
	}
	if e := p.pushes.Wait(); e != nil && (err == nil || errors.Is(err, context.Canceled)) {
		err = e
	}
	if err != nil {
		return nil, err
	}
	return p.finish(ctx)
}

// finish writes the indexes and sums up.
func (p *packer) finish(ctx context.Context) (*Packed, error) {
	out := &p.packed
	out.packer = p
	var table []IndexLayer
	for i, l := range p.base.layers {
		if p.base.keep[i] {
			p.base.position[i] = len(table)
			table = append(table, l.IndexLayer)
			out.Layers = append(out.Layers, l.desc)
			out.From = append(out.From, l.from)
			out.Dead += (p.base.all[i] - p.base.live[i]) * chunker.BlockSize
		}
	}
	out.Kept = len(table)
	for i := range p.layers.done {
		table = append(table, p.layers.done[i].IndexLayer)
		out.Layers = append(out.Layers, p.layers.done[i].desc)
		out.Blobs += p.layers.done[i].desc.Size
	}
	out.table = table
	for i := range p.disks {
		d, err := p.writeIndex(ctx, i, table)
		if err != nil {
			return nil, fmt.Errorf("writing the index of %s: %w", p.disks[i].Name, err)
		}
		out.Disks = append(out.Disks, d)
		out.DataSize = append(out.DataSize, p.disks[i].data)
		out.Blobs += d.Index.Size
	}
	return out, nil
}

func (p *packer) close() error {
	errs := []error{p.fresh.close()}
	if p.base != nil {
		errs = append(errs, p.base.close())
	}
	if p.seen != nil {
		errs = append(errs, p.seen.close())
	}
	return errors.Join(errs...)
}

// readDisk cuts a disk and records where each of its chunks is stored.
func (p *packer) readDisk(ctx context.Context, src Source) error {
	d := packedDisk{Source: src}
	content := chunker.NewDisk(p.o.Profile)
	scanned := ScanOptions{Profile: p.o.Profile, Memory: p.o.MaxMemory / 2}
	err := scanRegions(ctx, src.Reader, scanned, func(region uint32, c *foundChunk) error {
		r, err := p.store(c, chunkSource{len(p.disks), region, c.start, c.blocks})
		if err != nil {
			return err
		}
		if err := p.seen.add(func(b []byte) {
			binary.LittleEndian.PutUint32(b, region)
			binary.LittleEndian.PutUint16(b[4:], uint16(c.start))
			binary.LittleEndian.PutUint16(b[6:], uint16(c.blocks))
			binary.LittleEndian.PutUint64(b[8:], r)
		}); err != nil {
			return err
		}
		found := c.chunk(region)
		d.data += min(found.Length, src.Reader.Size()-found.Offset) // without padding
		if p.o.Progress != nil {
			p.o.Progress(found.Length)
		}
		if p.o.Found == nil {
			return nil
		}
		return p.o.Found(len(p.disks), found)
	}, func(region uint32, identity *sum, chunks int) {
		content.Add(region, identity)
		d.regions = append(d.regions, IndexRegion{Number: region, Identity: *identity})
		d.chunks += int64(chunks)
	})
	if err != nil {
		return err
	}
	d.digest = content.Digest()
	p.disks = append(p.disks, d)
	return nil
}

// store returns where a chunk is, and writes it to a new layer if it is nowhere.
func (p *packer) store(c *foundChunk, src chunkSource) (r ref, err error) {
	if p.values, err = p.base.table.lookup(p.values, &c.digest); err != nil {
		return 0, err
	}
	if len(p.values) > 0 {
		p.base.use(p.values[0], int64(c.blocks))
		p.packed.Reused += int64(len(c.data))
		return p.values[0], nil
	}
	return p.storeNew(c, src)
}

func (p *packer) storeNew(c *foundChunk, src chunkSource) (r ref, err error) {
	if p.values, err = p.fresh.lookup(p.values, &c.digest); err != nil {
		return 0, err
	}
	if len(p.values) > 0 {
		return p.base.chunks + p.values[0], nil
	}
	n, err := p.layers.add(c, src)
	if err != nil {
		return 0, err
	}
	p.packed.New += int64(len(c.data))
	return p.base.chunks + n, p.fresh.add(&c.digest, n)
}

// rewrite decides which layers of the bases are kept, and writes the chunks
// that are then in no layer to further new ones. They are read from the
// source again, in the order in which the disks need them.
func (p *packer) rewrite(ctx context.Context) error {
	var scrub []bool
	if p.o.Scrub {
		var err error
		if scrub, err = p.base.withDead(); err != nil {
			return err
		}
	}
	p.base.keep = keepLayers(p.base.live, p.base.all, len(p.layers.starts), scrub)
	lost := false
	for i, k := range p.base.keep {
		lost = lost || !k && p.base.live[i] > 0
	}
	if !lost {
		return nil
	}
	buf := make([]byte, chunker.MaxChunk)
	for i := range p.disks {
		if err := p.eachChunk(i, func(region uint32, start, blocks int, r ref) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if r >= p.base.chunks {
				return nil
			}
			if _, ok, err := p.keptRef(r); ok || err != nil {
				return err
			}
			_, e, err := p.base.chunk(r)
			if err != nil {
				return err
			}
			src := chunkSource{i, region, start, blocks}
			data, err := p.readAgain(src, &e.digest, buf)
			if err != nil {
				return err
			}
			_, err = p.storeNew(&foundChunk{start: start, blocks: blocks, digest: e.digest, data: data}, src)
			return err
		}); err != nil {
			return err
		}
	}
	return p.layers.endLayer()
}

// A chunkSource is where on the disks a chunk is.
type chunkSource struct {
	disk   int
	region uint32
	start  int // block in the region
	blocks int
}

// readAgain reads a chunk into buf once more.
func (p *packer) readAgain(src chunkSource, digest *sum, buf []byte) ([]byte, error) {
	d := p.sources[src.disk]
	off := int64(src.region)*chunker.RegionSize + int64(src.start)*chunker.BlockSize
	data := buf[:src.blocks*chunker.BlockSize]
	if !readPadded(d.Reader, data, off) {
		return nil, fmt.Errorf("reading %d bytes at %d of disk %s again: %w", len(data), off, d.Name, io.ErrUnexpectedEOF)
	}
	if sha256.Sum256(data) != *digest {
		return nil, fmt.Errorf("disk %s has changed at byte %d while it was read", d.Name, off)
	}
	return data, nil
}

// keptRef returns where a chunk of the bases is among the layers that are
// kept; ok is false if it is in none of them.
func (p *packer) keptRef(r ref) (kept ref, ok bool, err error) {
	if p.base.keep[p.base.layerOf(r)] {
		return r, true, nil
	}
	_, e, err := p.base.chunk(r)
	if err != nil {
		return 0, false, err
	}
	if p.values, err = p.base.table.lookup(p.values, &e.digest); err != nil {
		return 0, false, err
	}
	for _, v := range p.values {
		if p.base.keep[p.base.layerOf(v)] {
			return v, true, nil
		}
	}
	return 0, false, nil
}

// eachChunk calls f with the chunks of disk i in order.
func (p *packer) eachChunk(i int, f func(region uint32, start, blocks int, r ref) error) error {
	var skip int64
	for j := range p.disks[:i] {
		skip += p.disks[j].chunks
	}
	return p.seen.each(skip, p.disks[i].chunks, func(b []byte) error {
		le := binary.LittleEndian
		return f(le.Uint32(b), int(le.Uint16(b[4:])), int(le.Uint16(b[6:])), le.Uint64(b[8:]))
	})
}
