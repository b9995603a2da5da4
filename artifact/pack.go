package artifact

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"sort"
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

	// Push stores a blob. It is called concurrently, up to Jobs times; open
	// gives the content and can be called again.
	Push func(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error

	// Journal remembers the layers that an earlier Pack has pushed, so that
	// they are not compressed again. It may be nil.
	Journal Journal

	Jobs      int    // blobs pushed at once; 0 is 8
	MaxMemory int64  // bytes that buffers may take; 0 is 128 MiB
	Scratch   string // folder for temporary files; empty is the system's

	Progress func(bytes int64)             // is told of disk data that was cut; may be nil
	Found    func(disk int, c Chunk) error // is told of every chunk in order; may be nil
}

// A Journal remembers pushed layers. Its methods are called concurrently.
type Journal interface {
	// Find returns the layer that begins with a chunk, if it is still where it
	// was pushed to.
	Find(ctx context.Context, first [sha256.Size]byte) (LayerRecord, bool)

	// Done says that a layer was pushed.
	Done(LayerRecord) error
}

// A LayerRecord is a layer that was pushed, and what it was made from.
type LayerRecord struct {
	First  [sha256.Size]byte // digest of its first chunk
	Recipe [sha256.Size]byte // SHA-256 of the lengths and digests of all its chunks
	Codec  string
	Layer  IndexLayer
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

// Pack cuts disks into chunks, pushes those that no base holds in new layers,
// and pushes an index for each disk. The bases' layers must still be made
// available by the caller where they are not in the same repository.
//
// Memory does not depend on the size of the disks or bases. Disks are read
// once, in parallel; chunks of a base's layer that is rewritten are read again.
// The caller closes the result.
func Pack(ctx context.Context, disks []Source, o PackOptions) (*Packed, error) {
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
	p := &packer{o: o, enc: enc, sources: disks, fresh: newChunkTable(o.Scratch)}
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
	o     PackOptions
	enc   *encoder
	base  *baseTable
	fresh *chunkTable // new chunks: digest to number, counted over all new layers
	seen  *recordFile // every chunk of every disk in order

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

// readDisk cuts a disk and records where each of its chunks is stored.
func (p *packer) readDisk(ctx context.Context, src Source) error {
	d := packedDisk{Source: src}
	content := chunker.NewDisk(p.o.Profile)
	var region chunker.Region
	number := uint32(0)
	endRegion := func() {
		if n := region.Chunks(); n > 0 {
			id := region.Identity()
			content.Add(number, &id)
			d.regions = append(d.regions, IndexRegion{Number: number, Identity: id})
			d.chunks += int64(n)
		}
	}
	err := scan(ctx, src.Reader, p.o.Profile, p.o.MaxMemory/2, func(n uint32, chunks []foundChunk) error {
		if n != number {
			endRegion()
			number = n
		}
		for i := range chunks {
			c := &chunks[i]
			r, err := p.store(c, chunkSource{len(p.disks), n, c.start, c.blocks})
			if err != nil {
				return err
			}
			region.Add(c.start, c.blocks, &c.digest)
			off := int64(n)*chunker.RegionSize + int64(c.start)*chunker.BlockSize
			d.data += min(int64(len(c.data)), src.Reader.Size()-off) // without padding
			if err := p.seen.add(func(b []byte) {
				binary.LittleEndian.PutUint32(b, n)
				binary.LittleEndian.PutUint16(b[4:], uint16(c.start))
				binary.LittleEndian.PutUint16(b[6:], uint16(c.blocks))
				binary.LittleEndian.PutUint64(b[8:], r)
			}); err != nil {
				return err
			}
			if p.o.Progress != nil {
				p.o.Progress(int64(len(c.data)))
			}
			if p.o.Found != nil {
				if err := p.o.Found(len(p.disks), Chunk{off, int64(len(c.data)), c.digest}); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	endRegion()
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

// finalRef returns the layer, in the table, and the number of a chunk.
func (p *packer) finalRef(r ref) (layer, chunk int, err error) {
	if r < p.base.chunks {
		kept, ok, err := p.keptRef(r)
		if err != nil {
			return 0, 0, err
		}
		if ok {
			l := p.base.layerOf(kept)
			return p.base.position[l], int(kept - p.base.first[l]), nil
		}
		_, e, err := p.base.chunk(r)
		if err != nil {
			return 0, 0, err
		}
		if p.values, err = p.fresh.lookup(p.values, &e.digest); err != nil || len(p.values) == 0 {
			return 0, 0, errors.Join(err, errors.New("a chunk of a rewritten layer was lost"))
		}
		r = p.base.chunks + p.values[0]
	}
	n := r - p.base.chunks
	l := sort.Search(len(p.layers.starts), func(i int) bool { return p.layers.starts[i] > n }) - 1
	return p.packed.Kept + l, int(n - p.layers.starts[l]), nil
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

// finish writes the indexes.
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

// writeIndex writes and pushes the index of disk i.
func (p *packer) writeIndex(ctx context.Context, i int, table []IndexLayer) (d DiskDescriptor, err error) {
	f, err := tempFile(p.o.Scratch)
	if err != nil {
		return d, err
	}
	defer removeTemp(f)
	src := &p.disks[i]
	x := Index{Profile: p.o.Profile, Size: src.Reader.Size(), DiskDigest: src.digest, Layers: table, Regions: src.regions}
	if x.headSize() > maxHead {
		return d, fmt.Errorf("its head would have %d bytes, more than %d", x.headSize(), maxHead)
	}
	w := bufio.NewWriterSize(io.NewOffsetWriter(f, x.headSize()), 1<<18)
	at := x.headSize()
	var page pageWriter
	n := -1
	endPage := func() error {
		if n < 0 {
			return nil
		}
		b := page.bytes()
		r := &x.Regions[n]
		r.PageOffset, r.PageLength, r.PageDigest = at, uint32(len(b)), sha256.Sum256(b)
		at += int64(len(b))
		_, err := w.Write(b)
		page = pageWriter{b: b[:0]}
		return err
	}
	err = p.eachChunk(i, func(region uint32, start, blocks int, r ref) error {
		if n < 0 || x.Regions[n].Number != region {
			if err := endPage(); err != nil {
				return err
			}
			n++
		}
		layer, chunk, err := p.finalRef(r)
		page.add(start, blocks, layer, chunk)
		return err
	})
	if err == nil {
		err = endPage()
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return d, err
	}
	head := x.encodeHead()
	if _, err := f.WriteAt(head, 0); err != nil {
		return d, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, at)); err != nil {
		return d, err
	}
	d = DiskDescriptor{
		Name: src.Name, Size: x.Size, Digest: src.digest, Head: sha256.Sum256(head),
		Index: ocispec.Descriptor{MediaType: TypeIndex, Digest: Digest(sumOf(h)), Size: at},
	}
	if disk.SectorSize(src.Reader) == 4096 {
		d.Sector = 4096
	}
	return d, p.o.Push(ctx, d.Index, func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(f, 0, at)), nil
	})
}

func sumOf(h hash.Hash) (s sum) {
	h.Sum(s[:0])
	return s
}

// A layerWriter puts chunks into frames and frames into layers, in order;
// frames are compressed in parallel. A finished layer is pushed from its file.
type layerWriter struct {
	p     *packer
	ctx   context.Context // of the Pack that it is a part of
	queue chan *frameJob
	free  chan *frameJob // bounds the memory of frames
	slots *errgroup.Group

	cur    *frameJob
	starts []uint64 // number of the first chunk of each layer
	chunks uint64
	plain  int64 // in the current layer

	// Of the current layer: what it is made from, and, while it looks like one
	// of the journal, that one and where its chunks can be read again.
	record   LayerRecord
	recipe   hash.Hash
	known    *LayerRecord
	skipped  []chunkSource
	skippedD []sum

	// Written by run only.
	done []doneLayer
}

type doneLayer struct {
	IndexLayer
	desc ocispec.Descriptor
}

// A frameJob is a frame that is collected, compressed and written; or the end
// of a layer; or a layer that the journal has.
type frameJob struct {
	plain   []byte
	stored  []byte
	chunks  []chunkEntry
	encoded chan error

	end   *LayerRecord
	known *LayerRecord
}

func newLayerWriter(ctx context.Context, p *packer) *layerWriter {
	n := min(2*runtime.GOMAXPROCS(0)+2, max(4, int(p.o.MaxMemory/8/maxFramePlain)))
	w := &layerWriter{p: p, ctx: ctx, queue: make(chan *frameJob, n), free: make(chan *frameJob, n), slots: &errgroup.Group{}}
	w.slots.SetLimit(runtime.GOMAXPROCS(0))
	for range n {
		w.free <- &frameJob{}
	}
	return w
}

// add adds a new chunk and returns its number.
func (w *layerWriter) add(c *foundChunk, src chunkSource) (uint64, error) {
	if n := len(w.starts); w.plain > 0 {
		if w.plain+int64(len(c.data)) > layerLimit(len(w.p.base.layers), n) || w.chunks-w.starts[n-1] >= maxLayerChunks {
			if err := w.endLayer(); err != nil {
				return 0, err
			}
		}
	}
	if w.plain == 0 {
		w.startLayer(&c.digest)
	}
	w.recipe.Write(append(binary.LittleEndian.AppendUint16(nil, uint16(c.blocks)), c.digest[:]...))
	w.plain += int64(len(c.data))
	w.chunks++
	if w.known != nil {
		w.skipped = append(w.skipped, src)
		w.skippedD = append(w.skippedD, c.digest)
		return w.chunks - 1, nil
	}
	return w.chunks - 1, w.addData(c)
}

func (w *layerWriter) startLayer(first *sum) {
	w.starts = append(w.starts, w.chunks)
	w.record = LayerRecord{First: *first, Codec: w.p.enc.codec.String()}
	w.recipe = sha256.New()
	if w.p.o.Journal != nil {
		if l, ok := w.p.o.Journal.Find(w.ctx, *first); ok && l.Codec == w.record.Codec {
			w.known = &l
		}
	}
}

// addData adds a chunk to the current frame.
func (w *layerWriter) addData(c *foundChunk) error {
	if w.cur != nil && len(w.cur.plain)+len(c.data) > maxFramePlain {
		if err := w.endFrame(); err != nil {
			return err
		}
	}
	if w.cur == nil {
		select {
		case w.cur = <-w.free:
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
		w.cur.plain, w.cur.chunks = w.cur.plain[:0], w.cur.chunks[:0]
		if w.cur.plain == nil {
			w.cur.plain = make([]byte, 0, maxFramePlain)
		}
	}
	w.cur.plain = append(w.cur.plain, c.data...)
	w.cur.chunks = append(w.cur.chunks, chunkEntry{blocks: uint16(c.blocks), digest: c.digest})
	return nil
}

func (w *layerWriter) endFrame() error {
	job := w.cur
	w.cur = nil
	job.encoded = make(chan error, 1)
	select {
	case w.queue <- job:
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
	w.slots.Go(func() (err error) {
		job.stored, err = w.p.enc.encode(job.stored[:0], job.plain)
		job.encoded <- err
		return nil
	})
	return nil
}

// endLayer ends the current layer, if it has chunks.
func (w *layerWriter) endLayer() error {
	if w.plain == 0 {
		return nil
	}
	w.plain = 0
	w.record.Recipe = sumOf(w.recipe)
	job := &frameJob{end: &w.record}
	if w.known != nil {
		if w.known.Recipe == w.record.Recipe {
			job = &frameJob{known: w.known}
		} else if err := w.unskip(); err != nil {
			return err
		}
		w.known, w.skipped, w.skippedD = nil, nil, nil
	}
	if w.cur != nil {
		if err := w.endFrame(); err != nil {
			return err
		}
	}
	record := w.record
	if job.end != nil {
		job.end = &record
	}
	select {
	case w.queue <- job:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// unskip reads the chunks again that were not compressed because the layer
// looked like one that is there.
func (w *layerWriter) unskip() error {
	buf := make([]byte, chunker.MaxChunk)
	for i, src := range w.skipped {
		data, err := w.p.readAgain(src, &w.skippedD[i], buf)
		if err != nil {
			return err
		}
		if err := w.addData(&foundChunk{blocks: src.blocks, digest: w.skippedD[i], data: data}); err != nil {
			return err
		}
	}
	return nil
}

func (w *layerWriter) stop() { close(w.queue) }

// run writes frames and layers until stop is called.
func (w *layerWriter) run() error {
	defer w.slots.Wait()
	var l *layerFile
	defer func() {
		if l != nil {
			removeTemp(l.f)
		}
	}()
	for job := range w.queue {
		if job.known != nil {
			layer := job.known.Layer
			w.done = append(w.done, doneLayer{layer, ocispec.Descriptor{MediaType: w.p.enc.codec.mediaType(), Digest: Digest(layer.Digest), Size: layer.Size}})
			continue
		}
		if job.end != nil {
			done, err := l.finish(w.p.enc)
			if err != nil {
				return err
			}
			w.done = append(w.done, done)
			job.end.Layer = done.IndexLayer
			w.push(done.desc, l.f, job.end)
			l = nil
			continue
		}
		select {
		case err := <-job.encoded:
			if err != nil {
				return fmt.Errorf("compressing a frame: %w", err)
			}
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
		if l == nil {
			f, err := tempFile(w.p.o.Scratch)
			if err != nil {
				return err
			}
			l = &layerFile{f: f, h: sha256.New(), mediaType: w.p.enc.codec.mediaType()}
		}
		l.dir.addFrame(job.stored, len(job.plain), len(job.chunks))
		for i := range job.chunks {
			l.dir.addChunk(int(job.chunks[i].blocks), &job.chunks[i].digest)
		}
		if err := l.write(job.stored); err != nil {
			return err
		}
		w.free <- job
	}
	return w.ctx.Err()
}

// push pushes a layer in the background and removes its file. It waits while
// as many as may be are being pushed, which bounds the space they take.
func (w *layerWriter) push(desc ocispec.Descriptor, f *os.File, record *LayerRecord) {
	w.p.push(func(ctx context.Context) error {
		defer removeTemp(f)
		err := w.p.o.Push(ctx, desc, func() (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(f, 0, desc.Size)), nil
		})
		if err != nil || w.p.o.Journal == nil {
			return err
		}
		return w.p.o.Journal.Done(*record)
	})
}

// A layerFile is a layer that is being written.
type layerFile struct {
	f         *os.File
	h         hash.Hash
	size      int64
	dir       dirBuilder
	mediaType string
}

func (l *layerFile) write(b []byte) error {
	l.h.Write(b)
	l.size += int64(len(b))
	if _, err := l.f.Write(b); err != nil {
		return fmt.Errorf("spooling a layer: %w", err)
	}
	return nil
}

// finish appends the directory.
func (l *layerFile) finish(enc *encoder) (d doneLayer, err error) {
	plain := l.dir.plain()
	stored, err := enc.encode(nil, plain)
	if err != nil {
		return d, fmt.Errorf("compressing a directory: %w", err)
	}
	d.DirOffset, d.DirStored, d.DirPlain = l.size, uint32(len(stored)), uint32(len(plain))
	d.DirDigest, d.Chunks = sha256.Sum256(stored), uint32(len(l.dir.chunks)/dirChunkSize)
	if err := l.write(stored); err != nil {
		return d, err
	}
	d.Digest, d.Size = sumOf(l.h), l.size
	d.desc = ocispec.Descriptor{MediaType: l.mediaType, Digest: Digest(d.Digest), Size: l.size}
	return d, nil
}

// A recordFile is a list of records of one size, kept in a file.
type recordFile struct {
	f    *os.File
	w    *bufio.Writer
	size int
	buf  []byte
}

func newRecordFile(dir string, size int) (*recordFile, error) {
	f, err := tempFile(dir)
	if err != nil {
		return nil, err
	}
	return &recordFile{f, bufio.NewWriterSize(f, 1<<16), size, make([]byte, size)}, nil
}

func (r *recordFile) add(fill func(b []byte)) error {
	fill(r.buf)
	if _, err := r.w.Write(r.buf); err != nil {
		return fmt.Errorf("writing scratch file: %w", err)
	}
	return nil
}

// each calls f with count records after the first skip.
func (r *recordFile) each(skip, count int64, f func(b []byte) error) error {
	if err := r.w.Flush(); err != nil {
		return fmt.Errorf("writing scratch file: %w", err)
	}
	in := bufio.NewReaderSize(io.NewSectionReader(r.f, skip*int64(r.size), count*int64(r.size)), 1<<16)
	b := make([]byte, r.size)
	for range count {
		if _, err := io.ReadFull(in, b); err != nil {
			return fmt.Errorf("reading scratch file: %w", err)
		}
		if err := f(b); err != nil {
			return err
		}
	}
	return nil
}

func (r *recordFile) close() error { return removeTemp(r.f) }
