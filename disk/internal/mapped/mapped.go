// Package mapped reads disks that lie in a file in pieces: a format says by a
// lookup in its tables where a range of the disk is, and the package does the
// rest. It reads plain ranges, decompresses blocks, several at the same time,
// goes on in the parent of a differencing image, and finds the extents that
// hold data without reading any.
package mapped

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// A Run is a range of the disk that is mapped in one way.
type Run struct {
	Kind   Kind
	Length int64

	// Host is the offset of the first byte in the file if Kind is Data. If it
	// is Compressed, it is what Decompress gets.
	Host int64
}

// A Kind is a way to map a range.
type Kind uint8

// The ways to map a range.
const (
	Unallocated Kind = iota // as in the parent, else zeros
	Zeros
	Data
	Compressed // up to the end of one block
)

// Join lengthens r by next, if together they are one run.
func (r *Run) Join(next Run) bool {
	if r.Kind != next.Kind || r.Kind == Compressed || r.Kind == Data && next.Host != r.Host+r.Length {
		return false
	}
	r.Length += next.Length
	return true
}

// A Mapping is what a format knows about an image.
type Mapping struct {
	File   virtual.Reader
	Parent virtual.Reader // nil: none; a shorter one ends in zeros
	Size   int64          // of the disk in bytes

	// Lookup finds how the disk is mapped from off on, for up to limit bytes;
	// both lie inside of the disk. The run may end before the mapping changes,
	// but is never empty and never longer than limit. What it maps to Data is
	// in the file; what is not there reads as zeros. It is safe for concurrent
	// use.
	Lookup func(off, limit int64) (Run, error)

	// BlockSize is the size of the blocks that may be compressed, in bytes; 0:
	// none is. Block n begins at n*BlockSize of the disk.
	BlockSize int64

	// Decompress fills block, of BlockSize, with the compressed block that
	// Lookup gave this host for. It is safe for concurrent use.
	Decompress func(block []byte, host int64) error
}

// An Image is the content of a disk. It is safe for concurrent use.
type Image struct {
	m       Mapping
	blocks  []slot        // decompressed
	readers chan struct{} // a place for each CPU that may decompress whole blocks
}

// blockCache bounds decompressed blocks, in bytes, but for two blocks that there
// always are.
const blockCache = 1 << 20

// New returns the disk that m maps. It reads nothing.
func New(m Mapping) *Image {
	i := &Image{m: m}
	if m.BlockSize > 0 {
		i.blocks = make([]slot, max(2, blockCache/m.BlockSize))
		i.readers = make(chan struct{}, runtime.GOMAXPROCS(0))
	}
	return i
}

// Size is the virtual size in bytes.
func (i *Image) Size() int64 { return i.m.Size }

// ReadAt reads the content of the disk.
func (i *Image) ReadAt(p []byte, off int64) (int, error) {
	return virtual.ReadAt(p, off, i.m.Size, i.read)
}

func (i *Image) read(p []byte, off int64) error {
	var whole fan // blocks that need not wait for each other
	err := i.readRuns(p, off, &whole)
	return errors.Join(err, whole.wait())
}

func (i *Image) readRuns(p []byte, off int64, whole *fan) error {
	for len(p) > 0 {
		r, err := i.m.Lookup(off, int64(len(p)))
		if err != nil {
			return err
		}
		part := p[:r.Length]
		switch {
		case r.Kind == Unallocated:
			err = i.readParent(part, off)
		case r.Kind == Zeros:
			clear(part)
		case r.Kind == Data:
			err = virtual.ReadZeroExtended(i.m.File, part, r.Host)
		case r.Length == i.m.BlockSize:
			whole.run(i.readers, func() error { return i.m.Decompress(part, r.Host) })
		default:
			err = i.readCompressed(part, r.Host, off/i.m.BlockSize, off%i.m.BlockSize)
		}
		if err != nil {
			return err
		}
		p, off = p[r.Length:], off+r.Length
	}
	return nil
}

// readParent reads from the parent; a short one ends in zeros.
func (i *Image) readParent(p []byte, off int64) error {
	if i.m.Parent == nil {
		clear(p)
		return nil
	}
	return virtual.ReadZeroExtended(i.m.Parent, p, off)
}

// A slot holds a decompressed block.
type slot struct {
	mu    sync.Mutex
	valid bool
	host  int64
	data  []byte
}

// readCompressed reads p from byte in of the compressed block number index.
func (i *Image) readCompressed(p []byte, host, index, in int64) error {
	// Others that want the same block wait for it rather than decompress it a
	// second time.
	s := &i.blocks[index%int64(len(i.blocks))]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.data == nil {
		s.data = make([]byte, i.m.BlockSize)
	}
	if !s.valid || s.host != host {
		s.valid, s.host = false, host
		if err := i.m.Decompress(s.data, host); err != nil {
			return err
		}
		s.valid = true
	}
	copy(p, s.data[in:])
	return nil
}

// A fan does several things at the same time.
type fan struct {
	wg   sync.WaitGroup
	mu   sync.Mutex
	errs []error
}

// run waits for a place in limit, then starts do.
func (f *fan) run(limit chan struct{}, do func() error) {
	limit <- struct{}{}
	f.wg.Go(func() {
		err := do()
		<-limit
		if err != nil {
			f.mu.Lock()
			f.errs = append(f.errs, err)
			f.mu.Unlock()
		}
	})
}

// wait returns one of the errors: those of one read have one cause.
func (f *fan) wait() error {
	f.wg.Wait()
	if len(f.errs) == 0 {
		return nil
	}
	return f.errs[0]
}

// maxExtent bounds the walk of one call of NextExtent over tables, in bytes of
// the disk, so that asking again and again inside of one extent is not slow.
const maxExtent = 256 << 20

// NextExtent is the first range at or after off that may hold data. It walks
// tables, not data, and knows the holes of the file and of the parents.
func (i *Image) NextExtent(off int64) (virtual.Extent, error) {
	if off < 0 {
		return virtual.Extent{}, fmt.Errorf("finding data at offset %d: negative offset", off)
	}
	var found virtual.Extent
	for off < i.m.Size && found.Length < maxExtent {
		r, err := i.m.Lookup(off, i.m.Size-off)
		if err == nil {
			r, off, err = i.skipHole(r, off)
		}
		if err != nil && found.Length == 0 {
			return virtual.Extent{}, err
		}
		if err != nil {
			break
		}
		switch {
		case r.Length == 0 && found.Length > 0:
			return found, nil
		case r.Length == 0:
			continue
		case found.Length == 0:
			found = virtual.Extent{Offset: off, Length: r.Length}
		case off != found.End():
			return found, nil
		default:
			found.Length += r.Length
		}
		off += r.Length
	}
	return found, nil //nolint:nilerr // an error behind an extent is for the call that begins there
}

// skipHole cuts r, the run at off, down to the first range of it that may hold
// data, and returns that and where it starts: with a length of 0 the end of r.
func (i *Image) skipHole(r Run, off int64) (Run, int64, error) {
	var below virtual.Reader
	at := off
	switch r.Kind {
	case Compressed:
		return r, off, nil
	case Data:
		below, at = i.m.File, r.Host
	case Unallocated:
		below = i.m.Parent
	}
	if below == nil {
		return Run{}, off + r.Length, nil
	}
	e, err := virtual.NextExtent(below, at)
	if err != nil {
		return Run{}, 0, err
	}
	if e.Length == 0 || e.Offset-at >= r.Length {
		return Run{}, off + r.Length, nil
	}
	skip := e.Offset - at
	r.Length = min(r.Length-skip, e.Length)
	return r, off + skip, nil
}

const (
	tableCache = 1 << 20 // bytes; with entries of 8 bytes for 64 KiB each it maps 8 GiB
	pageSize   = 4 << 10
)

// Tables reads the tables of a file through a cache of pages. It is
// direct-mapped: a page has one place, and no lock is needed to look there.
type Tables struct {
	File  virtual.Reader
	pages [tableCache / pageSize]atomic.Pointer[page]
}

type page struct {
	offset int64
	data   [pageSize]byte
}

// At returns what the file has from off to the end of off's page of 4 KiB, and
// zeros after its end. It is not to be changed. Off is not negative; if it is a
// multiple of the size of an entry, at least one entry is whole.
func (t *Tables) At(off int64) ([]byte, error) {
	start := off &^ (pageSize - 1)
	place := &t.pages[start/pageSize%int64(len(t.pages))]
	p := place.Load()
	if p == nil || p.offset != start {
		p = &page{offset: start}
		if err := virtual.ReadZeroExtended(t.File, p.data[:], start); err != nil {
			return nil, err
		}
		place.Store(p)
	}
	return p.data[off-start:], nil
}
