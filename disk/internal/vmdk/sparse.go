package vmdk

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"sync"

	"github.com/davit-oci/davit/disk/internal/inflate"
	"github.com/davit-oci/davit/disk/internal/mapped"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// A sparse extent has a grain directory, whose entries are the places of grain
// tables, whose entries are the places of grains. The kinds differ in sizes and
// in what the entries mean.
type sparse struct {
	directories, tables *mapped.Tables
	base                int64 // of the file in what those two read
	file                virtual.Reader

	size      int64 // of the extent; the last grain may reach beyond it
	grainSize int64
	gd        int64 // offset of the grain directory in the file, as all offsets here
	gtes      int64 // entries of a grain table
	entrySize int64 // of both

	// table is the offset of the grain table of a directory's entry; 0: there
	// is none. Whether it is in the file is checked by who calls.
	table func(entry uint64) (int64, error)

	// grain is the kind of a grain by its table's entry, and its offset in the
	// file if it has one. Whether it is in the file is checked by who calls.
	grain func(entry uint64) (mapped.Kind, int64, error)

	compressed bool
	markers    bool
	inflaters  sync.Pool // of *inflater
}

const (
	// maxGrainSize is QEMU's limit, 1 GiB.
	maxGrainSize = 1 << 30

	// maxCompressedGrainSize bounds what is decompressed at a time. Products
	// write 64 KiB, VMware's readers allow no more.
	maxCompressedGrainSize = 2 << 20

	// maxGDEs is QEMU's limit. It bounds the walk over an empty disk.
	maxGDEs = 32 << 20

	// maxGTEs is far above the 512 of the specification and the 4096 of ESX.
	maxGTEs = 64 << 10
)

// gdes is the number of entries of the grain directory.
func (s *sparse) gdes() int64 { return virtual.DivUp(s.size, s.span()) }

// span is how much of the disk a grain table maps.
func (s *sparse) span() int64 { return s.gtes * s.grainSize }

// check refuses sizes that make no sense, and a grain directory that is not all
// in the file.
func (s *sparse) check() error {
	switch {
	case s.grainSize < sectorSize || s.grainSize > maxGrainSize || bits.OnesCount64(uint64(s.grainSize)) != 1:
		return virtual.Corrupt("grains of %d bytes", s.grainSize)
	case s.compressed && s.grainSize > maxCompressedGrainSize:
		return virtual.Unsupported("compressed grains of %d bytes", s.grainSize)
	case s.gtes < 1 || s.gtes > maxGTEs:
		return virtual.Corrupt("grain tables of %d entries", s.gtes)
	case s.gdes() > maxGDEs:
		return virtual.Corrupt("grain directory of %d entries", s.gdes())
	case s.size == 0:
		return nil
	case s.gd == 0:
		return virtual.Corrupt("no grain directory")
	}
	return virtual.Inside(s.file, "grain directory", s.gd, s.gdes()*s.entrySize)
}

// sectors is an offset or a size of n sectors, in bytes. What would overflow is
// more than any file has.
func sectors(n uint64) int64 { return int64(min(n, 1<<62/sectorSize)) * sectorSize }

func (s *sparse) entry(b []byte) uint64 {
	if s.entrySize == 8 {
		return binary.LittleEndian.Uint64(b)
	}
	return uint64(binary.LittleEndian.Uint32(b))
}

// # Grain Directory

// grainTable is the offset of the grain table with this index; 0: there is none.
func (s *sparse) grainTable(index int64) (int64, error) {
	b, err := s.directories.At(s.base + s.gd + index*s.entrySize)
	if err != nil {
		return 0, fmt.Errorf("reading grain directory: %w", err)
	}
	off, err := s.table(s.entry(b))
	if off == 0 || err != nil {
		return 0, err
	}
	return off, virtual.Inside(s.file, "grain table", off, s.entries(index)*s.entrySize)
}

// entries is how many entries the grain table with this index needs: no more
// than there are grains left.
func (s *sparse) entries(index int64) int64 {
	return min(s.gtes, virtual.DivUp(s.size-index*s.span(), s.grainSize))
}

// # Grain Table

// lookup finds how the extent is mapped from off on, for up to limit bytes, all
// inside of it. The run may end before the mapping changes, but is never empty.
func (s *sparse) lookup(off, limit int64) (mapped.Run, error) {
	index := off / s.span()
	gt, err := s.grainTable(index)
	if err != nil {
		return mapped.Run{}, err
	}
	if gt == 0 {
		return mapped.Run{Kind: mapped.Unallocated, Length: min(s.emptyFrom(off, limit, gt, gt), limit)}, nil
	}

	first := off % s.span() / s.grainSize
	b, err := s.tables.At(s.base + gt + first*s.entrySize)
	if err != nil {
		return mapped.Run{}, fmt.Errorf("reading grain table: %w", err)
	}
	b = b[:min(int64(len(b)), (s.entries(index)-first)*s.entrySize)]

	r, err := s.grainRun(b, off)
	if err != nil {
		return mapped.Run{}, err
	}
	for b = b[s.entrySize:]; r.Length < limit && len(b) > 0 && s.join(&r, b, off); {
		b = b[s.entrySize:]
	}
	if len(b) == 0 && r.Kind == mapped.Unallocated && r.Length < limit {
		if hole := s.hole(gt); s.isEmpty(index, gt, hole) {
			r.Length = s.emptyFrom(off, limit, gt, hole)
		}
	}
	r.Length = min(r.Length, limit)
	return r, nil
}

// hole is the end of the hole of the file that begins at gt or before it; gt if
// there is none. Hosted sparse extents have all their tables from the start: 64
// MiB for a disk of 1 TB with nothing in it.
func (s *sparse) hole(gt int64) int64 {
	e, err := virtual.NextExtent(s.file, gt)
	switch {
	case err != nil:
		return gt
	case e.Length == 0:
		return s.file.Size()
	}
	return e.Offset
}

// emptyFrom is how many bytes from off on are mapped by the grain table of off,
// which is empty, and by the empty ones after it. It looks no further than limit.
// From and to are a hole of the file, in both.
func (s *sparse) emptyFrom(off, limit, from, to int64) int64 {
	end := (off/s.span() + 1) * s.span()
	for end-off < limit && s.isEmpty(end/s.span(), from, to) {
		end += s.span()
	}
	return end - off
}

// isEmpty reports whether there is no grain table with this index, or it lies in
// a hole of the file. What is wrong with it, and in join with a grain, is for the
// call that begins there.
func (s *sparse) isEmpty(index, from, to int64) bool {
	gt, err := s.grainTable(index)
	return err == nil && (gt == 0 || gt >= from && to-gt >= s.entries(index)*s.entrySize)
}

// join lengthens r, which begins at off, by the grain of the entry that b begins
// with, if together they are one run.
func (s *sparse) join(r *mapped.Run, b []byte, off int64) bool {
	next, err := s.grainRun(b, off+r.Length)
	return err == nil && r.Join(next)
}

// grainRun is the mapping of one grain from off on, by the table's entry that b
// begins with. It may reach beyond the extent.
func (s *sparse) grainRun(b []byte, off int64) (mapped.Run, error) {
	kind, host, err := s.grain(s.entry(b))
	if err != nil {
		return mapped.Run{}, err
	}
	in := off % s.grainSize
	r := mapped.Run{Kind: kind, Length: s.grainSize - in}
	switch kind {
	case mapped.Data:
		// The last grain may be cut down to what the disk has of it; any other
		// that is cut is missing, although QEMU reads zeros.
		if err := virtual.Inside(s.file, "grain", host, min(s.grainSize, s.size-(off-in))); err != nil {
			return mapped.Run{}, err
		}
		r.Host = s.base + host + in
	case mapped.Compressed:
		r.Host = off - in // it takes an LBA to check it
	}
	return r, nil
}

// # Hosted Sparse Extents

// openHosted fills s in by the header of its file.
func (s *sparse) openHosted() error {
	h, err := readHeader(s.file, 0)
	if err != nil {
		return err
	}
	if h.gdOffset == gdAtEnd {
		if h, err = readFooter(s.file); err != nil {
			return err
		}
	}

	if n := sectors(h.overHead); n > s.file.Size() { // found here rather than when the walk is there
		return virtual.Corrupt("metadata of %d bytes: the file ends at %#x, it is cut short", n, s.file.Size())
	}
	s.size, s.grainSize = sectors(h.capacity), sectors(h.grainSize)
	s.gtes, s.entrySize = int64(h.numGTEsPerGT), 4
	s.compressed, s.markers = h.flags&flagCompressed != 0, h.flags&flagMarkers != 0
	s.inflaters.New = func() any { return &inflater{} }

	// The grain tables of the redundant directory are a copy, for repair. The
	// flag says that they are kept up, not that they are better; VMware, QEMU
	// and VirtualBox read by gdOffset.
	s.gd = sectors(h.gdOffset)
	s.table = func(entry uint64) (int64, error) { return sectors(entry), nil }
	s.grain = func(entry uint64) (mapped.Kind, int64, error) {
		switch {
		case entry == gteUnallocated:
			return mapped.Unallocated, 0, nil
		case entry == gteZeroed && h.flags&flagZeroedGrain != 0:
			return mapped.Zeros, 0, nil
		case entry == gteZeroed: // where the descriptor is
			return 0, 0, virtual.Corrupt("zeroed grain in an extent without them")
		case s.compressed:
			return mapped.Compressed, sectors(entry), nil
		}
		return mapped.Data, sectors(entry), nil
	}
	return s.check()
}

// readHeader reads the header or footer at off, and refuses what it does not
// know.
func readHeader(file virtual.Reader, off int64) (*header, error) {
	b, err := virtual.ReadPart(file, "header", off, headerSize)
	if err != nil {
		return nil, err
	}
	h, err := parseHeader(b)
	if err != nil {
		return nil, err
	}
	unknown := h.flags &^ (1<<16 - 1) &^ (flagCompressed | flagMarkers) // the lower ones are no harm to readers
	switch {
	case h.version == 0:
		return nil, virtual.Corrupt("sparse extent of version 0")
	case h.version > 3: // 3 is 1 with changed block tracking, or compressed
		return nil, virtual.Unsupported("sparse extent of version %d", h.version)
	case unknown != 0:
		return nil, virtual.Unsupported("sparse extent with flags %#x", unknown)
	case h.flags&flagNewLineTest != 0 && string(h.newLines[:]) != newLineTest:
		return nil, virtual.Corrupt("line ends were converted: the file was transferred as text")
	case h.flags&flagMarkers != 0 && h.flags&flagCompressed == 0:
		return nil, virtual.Corrupt("markers without compression")
	case h.flags&flagCompressed == 0 && h.compressAlgorithm != compressionNone:
		return nil, virtual.Corrupt("compression algorithm %d without compression", h.compressAlgorithm)
	case h.flags&flagCompressed != 0 && h.compressAlgorithm != compressionDeflate:
		return nil, virtual.Unsupported("compression algorithm %d", h.compressAlgorithm)
	case h.capacity > maxSize/sectorSize:
		return nil, virtual.Corrupt("capacity of %d sectors", h.capacity)
	}
	return h, nil
}

// # Stream-Optimized Compressed Sparse Extents

// maxPadding is how much may follow the end-of-stream marker: stores that keep
// whole blocks add zeros.
const maxPadding = 1 << 20

// readFooter reads the footer, which is the header with the place of the grain
// directory: it lies between its marker and the end-of-stream marker, in the
// last sectors of the file.
func readFooter(file virtual.Reader) (*header, error) {
	end, err := endOfStream(file)
	if err != nil {
		return nil, err
	}
	b, err := virtual.ReadPart(file, "footer marker", end-2*sectorSize, sectorSize)
	if err != nil {
		return nil, err
	}
	if size, kind := binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:]); size != 0 || kind != markerFooter {
		return nil, virtual.Corrupt("no footer at the end of the stream: the file is cut short")
	}
	h, err := readHeader(file, end-sectorSize)
	if err != nil {
		return nil, fmt.Errorf("reading footer: %w", err)
	}
	if h.gdOffset == gdAtEnd {
		return nil, virtual.Corrupt("no grain directory")
	}
	return h, nil
}

// endOfStream is where the end-of-stream marker begins, a sector of zeros: the
// first that nothing but zeros follow.
func endOfStream(file virtual.Reader) (int64, error) {
	end := file.Size() &^ (sectorSize - 1)
	limit := max(3*sectorSize, end-maxPadding)
	b := make([]byte, sectorSize)
	for off := end; off > limit; off -= sectorSize {
		if n, err := file.ReadAt(b, off-sectorSize); n < len(b) {
			return 0, fmt.Errorf("reading end of stream: %w", err)
		}
		if [sectorSize]byte(b) != [sectorSize]byte{} {
			if off == end {
				break
			}
			return off, nil
		}
	}
	return 0, virtual.Corrupt("no footer at the end of the stream: the file is cut short")
}

// readCompressed fills grain with the compressed grain at off of the extent. It
// is what the package mapped calls Decompress.
func (s *sparse) readCompressed(grain []byte, off int64) error {
	gt, err := s.grainTable(off / s.span())
	if err != nil {
		return err
	}
	b, err := s.tables.At(s.base + gt + off%s.span()/s.grainSize*s.entrySize)
	if err != nil {
		return fmt.Errorf("reading grain table: %w", err)
	}
	_, host, err := s.grain(s.entry(b))
	if err != nil {
		return err
	}
	n, err := s.decompress(grain, host, off/sectorSize)
	if want := min(s.grainSize, s.size-off); err == nil && int64(n) < want {
		err = virtual.Corrupt("%d bytes, wanted %d", n, want)
	}
	if err != nil {
		return fmt.Errorf("reading the compressed grain of disk offset %#x: %w", off, err)
	}
	clear(grain[n:])
	return nil
}

// maxCompressed is how large a compressed grain may be: twice as large as the
// grain, as in QEMU, and what zlib adds to the smallest ones.
func (s *sparse) maxCompressed() int64 { return 2*s.grainSize + 64 }

// decompress reads the compressed grain at host, which begins at the sector lba
// of the disk, and returns how many bytes it has. The last one may have no more
// than the disk has of it.
func (s *sparse) decompress(grain []byte, host, lba int64) (int, error) {
	d := s.inflaters.Get().(*inflater)
	defer s.inflaters.Put(d)
	if !s.markers {
		return s.decompressBare(d, grain, host)
	}

	// Markers
	var marker [grainMarkerSize]byte
	if err := virtual.Inside(s.file, "grain marker", host, grainMarkerSize); err != nil {
		return 0, err
	}
	if n, err := s.file.ReadAt(marker[:], host); n < len(marker) {
		return 0, fmt.Errorf("reading grain marker at %#x: %w", host, err)
	}
	at, size := binary.LittleEndian.Uint64(marker[:]), int64(binary.LittleEndian.Uint32(marker[8:]))
	if at != uint64(lba) {
		return 0, virtual.Corrupt("grain marker at %#x: it has LBA %d, wanted %d", host, at, lba)
	}
	if size == 0 || size > s.maxCompressed() {
		return 0, virtual.Corrupt("grain marker at %#x: %d bytes", host, size)
	}
	host += grainMarkerSize
	if err := virtual.Inside(s.file, "grain", host, size); err != nil {
		return 0, err
	}
	src, err := d.read(s.file, host, size)
	if err != nil {
		return 0, fmt.Errorf("reading grain at %#x: %w", host, err)
	}
	n, err := d.Zlib(grain, src)
	if err != nil {
		return 0, virtual.Corrupt("grain at %#x: %w", host, err)
	}
	return n, nil
}

// decompressBare reads a grain without a marker. The specification does not say
// how long it is: VMware's open-vmdk has its size in four bytes before it, QEMU
// has nothing. The checksum tells which of the two it is.
func (s *sparse) decompressBare(d *inflater, grain []byte, host int64) (int, error) {
	if err := virtual.Inside(s.file, "grain", host, 1); err != nil {
		return 0, err
	}
	src, err := d.read(s.file, host, min(s.maxCompressed()+4, s.file.Size()-host))
	if err != nil {
		return 0, fmt.Errorf("reading grain at %#x: %w", host, err)
	}
	if len(src) > 4 {
		if size := int64(binary.LittleEndian.Uint32(src)); size <= int64(len(src))-4 {
			if n, err := d.Zlib(grain, src[4:4+size]); err == nil {
				return n, nil
			}
		}
	}
	n, err := d.Zlib(grain, src)
	if err != nil {
		return 0, virtual.Corrupt("grain at %#x: %w", host, err)
	}
	return n, nil
}

// An inflater reads compressed grains, one after the other.
type inflater struct {
	inflate.Decoder
	src []byte
}

// read reads n bytes, which are valid until the next call.
func (d *inflater) read(file virtual.Reader, off, n int64) ([]byte, error) {
	if int64(cap(d.src)) < n {
		d.src = make([]byte, n)
	}
	b := d.src[:n]
	if n, err := file.ReadAt(b, off); n < len(b) {
		return nil, err
	}
	return b, nil
}
