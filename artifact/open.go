package artifact

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"sort"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/fetch"
	"github.com/davit-oci/davit/internal/subject"
)

// maxOVF is the largest OVF that is read, in bytes.
const maxOVF = 16 << 20

// OpenOptions are the options of [Open].
type OpenOptions struct {
	Scratch string  // folder for temporary files; empty is the system's
	Jobs    int     // directories fetched at once; 0 is 1
	Memory  *Memory // that several images share; nil is one of its own
}

// An Image is an artifact that is read. Safe for concurrent use.
type Image struct {
	*Manifest
	Descriptor ocispec.Descriptor
	Raw        []byte  // the manifest
	Disks      []*Disk // hides Manifest.Disks, which they describe

	src     Fetcher
	scratch *scratch
	heads   int64 // bytes of its Memory that heads take

	mu   sync.Mutex
	dirs map[IndexLayer]*loading
	good []LayerID // that were read whole
}

// A loading is a directory that is fetched once, by whoever needs it first.
type loading struct {
	mu  sync.Mutex
	dir *directory
}

// A Disk is a disk of an image. Safe for concurrent use.
type Disk struct {
	DiskDescriptor
	Index *Index

	im     *Image
	blob   io.ReaderAt          // the index, checked as a whole
	layers []ocispec.Descriptor // of the layer table
}

// Open reads the manifest and the indexes of an artifact and checks them, as
// docs/spec.md, "What a reader refuses" says. s is a verify.Subject: package
// verify makes it from a signature, a digest that the user named, or the word
// that the artifact need not be verified. All that Open and the [Image] read
// hangs on its digest.
//
// The error is a [*RefusedError] where the bytes are at fault, and wraps
// [ErrNotArtifact], [ErrNewer] or [ErrMemory] where it is something else. Of
// the zero Subject it wraps verify.ErrNoSubject, and nothing is fetched.
//
// The caller closes the image.
func Open(ctx context.Context, src Fetcher, s subject.Subject, o OpenOptions) (*Image, error) {
	if s == (subject.Subject{}) {
		return nil, fmt.Errorf("opening an artifact: %w", subject.ErrZero)
	}
	desc, raw := s.Descriptor(), s.Manifest()
	m, err := ParseManifest(raw, desc)
	if err != nil {
		return nil, err
	}
	if o.Memory == nil {
		o.Memory = NewMemory(0)
	}
	im := &Image{Manifest: m, Descriptor: desc, Raw: raw, src: src, scratch: newScratch(o.Scratch, o.Memory), dirs: map[IndexLayer]*loading{}}
	layers := make(map[sum]ocispec.Descriptor, len(m.Layers))
	for _, l := range m.Layers {
		s, _ := parseDigest(l.Digest)
		layers[s] = l
	}
	for i := range m.Disks {
		d := &Disk{DiskDescriptor: m.Disks[i], im: im}
		for _, other := range im.Disks { // two disks of one content
			if other.DiskDescriptor.Index.Digest == d.DiskDescriptor.Index.Digest && other.DiskDescriptor.Index.Size == d.DiskDescriptor.Index.Size {
				d.blob = other.blob
			}
		}
		if err := d.open(ctx, layers); err != nil {
			return nil, errors.Join(err, im.Close())
		}
		im.Disks = append(im.Disks, d)
	}
	return im, nil
}

// open fetches the index and checks what can be told without directories.
func (d *Disk) open(ctx context.Context, layers map[sum]ocispec.Descriptor) error {
	size := d.DiskDescriptor.Index.Size
	if d.blob == nil {
		var err error
		if d.blob, err = d.im.fetchIndex(ctx, d.DiskDescriptor.Index); err != nil {
			return err
		}
	}
	head := make([]byte, min(indexHeader, size))
	if _, err := d.blob.ReadAt(head, 0); err != nil && err != io.EOF {
		return fmt.Errorf("reading the index of %s: %w", d.Name, err)
	}
	n, err := headLength(head, size, d.Name)
	if err != nil {
		return err
	}
	if err := d.im.scratch.memory.head(n); err != nil {
		return fmt.Errorf("index of %s: %w", d.Name, err)
	}
	d.im.heads += n
	head = make([]byte, n)
	if _, err := d.blob.ReadAt(head, 0); err != nil && err != io.EOF {
		return fmt.Errorf("reading the index of %s: %w", d.Name, err)
	}
	if got := sha256.Sum256(head); got != d.Head {
		return refuse(PartIndex, "of "+d.Name, "its head hashes to %s, the manifest says %s", Digest(got), Digest(d.Head))
	}
	if d.Index, err = parseHead(head, size, d.Name); err != nil {
		return err
	}
	if d.Index.Size != d.Size {
		return refuse(PartIndex, "of "+d.Name, "the virtual size is %d bytes, the manifest says %d", d.Index.Size, d.Size)
	}
	if d.Index.DiskDigest != d.Digest {
		return refuse(PartIndex, "of "+d.Name, "the disk digest is %s, the manifest says %s", Digest(d.Index.DiskDigest), Digest(d.Digest))
	}
	for i := range d.Index.Layers {
		l := &d.Index.Layers[i]
		desc, ok := layers[l.Digest]
		if !ok {
			return refuse(PartIndex, "of "+d.Name, "layer %s is not in the manifest", Digest(l.Digest))
		}
		if desc.Size != l.Size {
			return refuse(PartIndex, "of "+d.Name, "layer %s has %d bytes, the manifest says %d", desc.Digest, l.Size, desc.Size)
		}
		d.layers = append(d.layers, desc)
	}
	return nil
}

// fetchIndex fetches an index whole and checks it.
func (im *Image) fetchIndex(ctx context.Context, desc ocispec.Descriptor) (io.ReaderAt, error) {
	if desc.Size <= 4<<20 {
		b, err := fetchAll(ctx, im.src, PartIndex, desc, 4<<20)
		if err != nil {
			return nil, err
		}
		return im.scratch.keep(b)
	}
	rc, err := im.src.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	whole := fetch.Reader(rc, desc)
	buf := make([]byte, 1<<20)
	first := int64(-1)
	for {
		n, err := io.ReadFull(whole, buf)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return nil, readError(PartIndex, desc, err)
		}
		if n > 0 {
			// Only this function puts into the file while an image is opened.
			off, err := im.scratch.put(buf[:n])
			if err != nil {
				return nil, err
			}
			if first < 0 {
				first = off
			}
		}
		if err != nil {
			break
		}
	}
	return io.NewSectionReader(im.scratch, first, desc.Size), nil
}

// Close removes temporary files.
func (im *Image) Close() error {
	im.scratch.memory.free(0, im.heads)
	im.heads = 0
	return im.scratch.close()
}

// ReadOVF fetches and checks the OVF.
func (im *Image) ReadOVF(ctx context.Context) ([]byte, error) {
	return fetchAll(ctx, im.src, PartConfig, im.OVF, maxOVF)
}

// Disk returns the disk of that name, or nil.
func (im *Image) Disk(name string) *Disk {
	for _, d := range im.Disks {
		if d.Name == name {
			return d
		}
	}
	return nil
}

// directory returns the directory of layer i of the table, fetched at most once.
func (d *Disk) directory(ctx context.Context, i int) (*directory, error) {
	l := &d.Index.Layers[i]
	d.im.mu.Lock()
	load := d.im.dirs[*l]
	if load == nil {
		load = &loading{}
		d.im.dirs[*l] = load
	}
	d.im.mu.Unlock()

	load.mu.Lock()
	defer load.mu.Unlock()
	if load.dir == nil {
		dir, err := fetchDirectory(ctx, d.im.src, d.layers[i], l, d.im.scratch)
		if err != nil {
			return nil, err
		}
		load.dir = dir
	}
	return load.dir, nil
}

// A place is a chunk of a region and where it is stored.
type place struct {
	start int // block in the region
	layer int // in the layer table
	chunk int // in the layer
	chunkEntry
}

// region appends the chunks of region i of the table to dst, after it has
// checked its page, the directories and its identity.
func (d *Disk) region(ctx context.Context, i int, dst []place) ([]place, error) {
	r := &d.Index.Regions[i]
	where := fmt.Sprintf("of region %d of %s", r.Number, d.Name)
	page := make([]byte, r.PageLength)
	if _, err := d.blob.ReadAt(page, r.PageOffset); err != nil && err != io.EOF {
		return nil, fmt.Errorf("reading the index of %s: %w", d.Name, err)
	}
	if err := checkPage(page, r, where); err != nil {
		return nil, err
	}
	runs, err := parsePage(page, d.Index.Layers, where)
	if err != nil {
		return nil, err
	}
	left := d.Index.Size - int64(r.Number)*chunker.RegionSize
	end := int(min(chunker.RegionBlocks, (left+chunker.BlockSize-1)/chunker.BlockSize))
	var id chunker.Region
	var entries []chunkEntry
	at := 0
	for _, run := range runs {
		dir, err := d.directory(ctx, run.layer)
		if err != nil {
			return nil, err
		}
		if entries, err = dir.chunkEntries(entries[:0], run.first, run.count); err != nil {
			return nil, err
		}
		at += run.start
		for j := range entries {
			n := int(entries[j].blocks)
			if n > end-at {
				return nil, refuse(PartPage, where, "a run leaves the region or the disk at block %d", at)
			}
			id.Add(at, n, &entries[j].digest)
			dst = append(dst, place{at, run.layer, run.first + j, entries[j]})
			at += n
		}
	}
	if got := id.Identity(); got != r.Identity {
		return nil, refuse(PartRegion, fmt.Sprintf("%d of %s", r.Number, d.Name), "its chunks hash to %s, not %s", Digest(got), Digest(r.Identity))
	}
	return dst, nil
}

// A Chunk is a chunk of a disk.
type Chunk struct {
	Offset int64 // in bytes
	Length int64 // in bytes, whole blocks: the last one may go beyond the disk
	Digest [sha256.Size]byte
}

// Chunks yields the chunks of the disk in order. It ends with the first error.
func (d *Disk) Chunks(ctx context.Context) iter.Seq2[Chunk, error] {
	return func(yield func(Chunk, error) bool) {
		var places []place
		for i := range d.Index.Regions {
			var err error
			if places, err = d.region(ctx, i, places[:0]); err != nil {
				yield(Chunk{}, err)
				return
			}
			base := int64(d.Index.Regions[i].Number) * chunker.RegionSize
			for j := range places {
				p := &places[j]
				if !yield(Chunk{base + int64(p.start)*chunker.BlockSize, int64(p.blocks) * chunker.BlockSize, p.digest}, nil) {
					return
				}
			}
		}
	}
}

// Extents yields the ranges of the disk that hold data, in order and as long
// as they can be. It ends with the first error.
func (d *Disk) Extents(ctx context.Context) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		var x disk.Extent
		for c, err := range d.Chunks(ctx) {
			if err != nil {
				yield(disk.Extent{}, err)
				return
			}
			length := min(c.Length, d.Size-c.Offset)
			if x.Length > 0 && x.Offset+x.Length == c.Offset {
				x.Length += length
				continue
			}
			if x.Length > 0 && !yield(x, nil) {
				return
			}
			x = disk.Extent{Offset: c.Offset, Length: length}
		}
		if x.Length > 0 {
			yield(x, nil)
		}
	}
}

// DataSize returns how many bytes of the disk hold data.
func (d *Disk) DataSize(ctx context.Context) (n int64, err error) {
	for x, err := range d.Extents(ctx) {
		if err != nil {
			return 0, err
		}
		n += x.Length
	}
	return n, nil
}

// A DiskReader reads the content of a disk from where it is stored, frame by
// frame, and checks it. It has a context because [io.ReaderAt] has none.
// Safe for concurrent use.
type DiskReader struct {
	ctx context.Context
	d   *Disk

	mu      sync.Mutex
	frames  frameCache
	regions map[int][]place
}

// Reader returns a reader of the content that lives as long as ctx and the image.
func (d *Disk) Reader(ctx context.Context) *DiskReader {
	return &DiskReader{ctx: ctx, d: d, regions: map[int][]place{}, frames: frameCache{max: 16}}
}

// Size returns the virtual size in bytes.
func (r *DiskReader) Size() int64 { return r.d.Size }

// SectorSize is what [disk.SectorSize] calls.
func (r *DiskReader) SectorSize() int { return r.d.Sector }

// NextExtent implements the optional method of [disk.Reader]: data is known to
// the chunk, and an extent ends with its region at the latest.
func (r *DiskReader) NextExtent(off int64) (disk.Extent, error) {
	if off < 0 {
		return disk.Extent{}, fmt.Errorf("finding data at offset %d: negative offset", off)
	}
	regions := r.d.Index.Regions
	i := sort.Search(len(regions), func(i int) bool { return (int64(regions[i].Number)+1)*chunker.RegionSize > off })
	for ; i < len(regions) && off < r.d.Size; i++ {
		x, err := r.extentIn(i, off)
		if err != nil || x.Length > 0 {
			return x, err
		}
	}
	return disk.Extent{}, nil
}

// extentIn is the first extent of region i at or after off.
func (r *DiskReader) extentIn(i int, off int64) (x disk.Extent, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	places, err := r.places(i)
	if err != nil {
		return x, err
	}
	base := int64(r.d.Index.Regions[i].Number) * chunker.RegionSize
	for j := placeAt(places, off-base); j < len(places); j++ {
		start := base + int64(places[j].start)*chunker.BlockSize
		end := min(r.d.Size, start+int64(places[j].blocks)*chunker.BlockSize)
		switch {
		case x.Length == 0:
			x.Offset = max(start, off)
		case start > x.End():
			return x, nil
		}
		x.Length = end - x.Offset
	}
	return x, nil
}

// ReadAt implements [io.ReaderAt].
func (r *DiskReader) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 || off >= r.d.Size {
		return 0, io.EOF
	}
	if int64(len(p)) > r.d.Size-off {
		p = p[:r.d.Size-off]
		err = io.EOF
	}
	clear(p)
	regions := r.d.Index.Regions
	for at := off; at < off+int64(len(p)); {
		number := at / chunker.RegionSize
		end := min(off+int64(len(p)), (number+1)*chunker.RegionSize)
		i := sort.Search(len(regions), func(i int) bool { return int64(regions[i].Number) >= number })
		if i < len(regions) && int64(regions[i].Number) == number {
			if err := r.readRegion(i, p[at-off:end-off], at-number*chunker.RegionSize); err != nil {
				return 0, err
			}
		}
		at = end
	}
	return len(p), err
}

// readRegion reads from offset off of region i into p, which is zeros.
func (r *DiskReader) readRegion(i int, p []byte, off int64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	places, err := r.places(i)
	if err != nil {
		return err
	}
	const block = chunker.BlockSize
	first := placeAt(places, off)
	for ; first < len(places); first++ {
		pl := &places[first]
		start := int64(pl.start) * block
		if start >= off+int64(len(p)) {
			break
		}
		chunk, err := r.chunk(pl)
		if err != nil {
			return err
		}
		if chunk, err = r.d.unpad(int64(r.d.Index.Regions[i].Number)*chunker.RegionSize+start, chunk); err != nil {
			return err
		}
		if start >= off {
			copy(p[start-off:], chunk)
		} else {
			copy(p, chunk[off-start:])
		}
	}
	return nil
}

// places are the chunks of region i. The caller holds the lock.
func (r *DiskReader) places(i int) ([]place, error) {
	if places, ok := r.regions[i]; ok {
		return places, nil
	}
	places, err := r.d.region(r.ctx, i, nil)
	if err != nil {
		return nil, err
	}
	if len(r.regions) >= 4 {
		clear(r.regions)
	}
	r.regions[i] = places
	return places, nil
}

// placeAt is the first of places that ends after off, in bytes of the region.
func placeAt(places []place, off int64) int {
	return sort.Search(len(places), func(i int) bool {
		return int64(places[i].start+int(places[i].blocks))*chunker.BlockSize > off
	})
}

// chunk returns the checked bytes of a chunk.
func (r *DiskReader) chunk(p *place) ([]byte, error) {
	f, ok := r.frames.get(p.layer, int(p.frame))
	if !ok {
		dir, err := r.d.directory(r.ctx, p.layer)
		if err != nil {
			return nil, err
		}
		e, err := dir.frame(int(p.frame))
		if err != nil {
			return nil, err
		}
		stored, err := readRange(r.ctx, r.d.im.src, dir.layer, e.offset, int64(e.stored))
		if err != nil {
			return nil, err
		}
		if f, err = dir.decode(int(p.frame), &e, stored, nil); err != nil {
			return nil, err
		}
		r.frames.put(p.layer, int(p.frame), f)
	}
	return f.chunk(p.chunk), nil
}

// A frameCache keeps the frames that were used last.
type frameCache struct {
	max    int
	frames []cachedFrame // last used last
}

type cachedFrame struct {
	layer, number int
	*frame
}

func (c *frameCache) get(layer, number int) (*frame, bool) {
	for i := len(c.frames) - 1; i >= 0; i-- {
		if f := c.frames[i]; f.layer == layer && f.number == number {
			copy(c.frames[i:], c.frames[i+1:])
			c.frames[len(c.frames)-1] = f
			return f.frame, true
		}
	}
	return nil, false
}

// put adds a frame and returns the one that had to go, if any.
func (c *frameCache) put(layer, number int, f *frame) (old *frame) {
	if len(c.frames) == c.max {
		old = c.frames[0].frame
		c.frames = append(c.frames[:0], c.frames[1:]...)
	}
	c.frames = append(c.frames, cachedFrame{layer, number, f})
	return old
}
