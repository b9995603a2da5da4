package vhdx

import (
	"fmt"
	"hash/crc32"
	"slices"
	"sort"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// # 2.3 Log

const (
	logSector = 4 * kib

	// maxLog and maxUpdates bound the time and the memory of a replay. Hyper-V
	// and QEMU make logs of 1 MiB, in which there is no place for more than
	// 32768 updates.
	maxLog     = 256 * mib
	maxUpdates = 1 << 18
)

// A log is a ring of sectors: places in it are counted from its beginning.
type log struct {
	file   virtual.Reader
	region region
	guid   guid
	sector []byte // that was read last
	left   int64  // sectors that may be read, so that a crafted log takes no longer than a large one
}

// An update is a range of the file that the log has changed.
type update struct {
	region
	data     bool  // else zeros
	sector   int64 // of the log that has the data, but for its ends:
	leading  [8]byte
	trailing [4]byte
}

func (u *update) end() int64 { return u.offset + u.length }

// replay returns file as it is when its log is replayed (2.3.3).
func replay(file virtual.Reader, h header) (virtual.Reader, error) {
	if h.log.length > maxLog {
		return nil, virtual.Unsupported("a log of %d bytes", h.log.length)
	}
	if err := virtual.Inside(file, "log", h.log.offset, h.log.length); err != nil {
		return nil, err
	}
	l := &log{file: file, region: h.log, guid: h.logGUID, sector: make([]byte, logSector), left: 8 * h.log.length / logSector}
	entries, err := l.entries()
	if err != nil {
		return nil, err
	}
	active := activeSequence(entries, h.log.length)
	if active == nil {
		return nil, virtual.Corrupt("no valid sequence of entries; start and stop the virtual machine, or attach the disk to one, for Hyper-V to repair it")
	}
	head := active[len(active)-1]
	if size := file.Size(); head.flushed > uint64(size) {
		return nil, virtual.Corrupt("the file was cut short: it has %d bytes, and had at least %d", size, head.flushed)
	}
	if head.last > maxOffset {
		return nil, virtual.Corrupt("entry %d: a file of %d bytes", head.sequence, head.last)
	}

	count := 0
	for _, e := range active {
		count += int(e.descriptors)
	}
	if count > maxUpdates {
		return nil, virtual.Unsupported("a log with %d updates", count)
	}
	size := max(file.Size(), int64(head.last))
	updates := make([]update, 0, count)
	for _, e := range active {
		_, ok, err := l.entry(e.place, func(u update) {
			if u.length > 0 {
				updates = append(updates, u)
				size = max(size, u.end())
			}
		})
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, virtual.Corrupt("entry %d changes while it is read", e.sequence)
		}
	}
	return newReplayed(l, size, updates), nil
}

// readSector reads a sector of the log; places go round.
func (l *log) readSector(place int64) error {
	if l.left--; l.left < 0 {
		return virtual.Corrupt("too many broken entries")
	}
	return virtual.ReadZeroExtended(l.file, l.sector, l.region.offset+place%l.region.length)
}

// # 2.3.1 Log Entry

const (
	entryHeaderSize = 64
	descriptorSize  = 32
)

type entry struct {
	place, length int64
	tail          int64
	sequence      uint64
	descriptors   uint32
	flushed, last uint64
}

// entry reads the log entry at a place and reports whether it is valid. Each
// gets its updates, those of an entry that turns out not to be valid as well;
// it may be nil.
func (l *log) entry(place int64, each func(update)) (e entry, ok bool, err error) {
	b := l.sector
	if err := l.readSector(place); err != nil {
		return e, false, err
	}

	// 2.3.1.1 Entry Header. Sizes of the file are not asked to be a multiple
	// of 1 MiB: it makes no difference.
	if string(b[:4]) != "loge" || readGUID(b[32:]) != l.guid {
		return e, false, nil
	}
	e = entry{
		place:       place,
		length:      int64(le.Uint32(b[8:])),
		tail:        int64(le.Uint32(b[12:])),
		sequence:    le.Uint64(b[16:]),
		descriptors: le.Uint32(b[24:]),
		flushed:     le.Uint64(b[48:]),
		last:        le.Uint64(b[56:]),
	}
	descriptorSectors := virtual.DivUp(entryHeaderSize+descriptorSize*int64(e.descriptors), logSector)
	if e.length%logSector != 0 || e.length > l.region.length || descriptorSectors > e.length/logSector ||
		e.tail%logSector != 0 || e.tail >= l.region.length || e.sequence == 0 {
		return e, false, nil
	}

	// Descriptors, then data sectors, the first for the first data descriptor.
	want := le.Uint32(b[4:])
	clear(b[4:8])
	crc, left := uint32(0), int(e.descriptors)
	next := place + descriptorSectors*logSector // data sector of the next data descriptor
	dataEnd := next
	for off := int64(0); off < e.length; off += logSector {
		descriptors := b
		if off == 0 {
			descriptors = b[entryHeaderSize:]
		} else if err := l.readSector(place + off); err != nil {
			return e, false, err
		}
		crc = crc32.Update(crc, castagnoli, b)
		switch {
		case off < descriptorSectors*logSector:
			for ; left > 0 && len(descriptors) > 0; descriptors = descriptors[descriptorSize:] {
				u, ok := e.descriptor(descriptors[:descriptorSize], next)
				if !ok {
					return e, false, nil
				}
				if u.data {
					next += logSector
				}
				if each != nil {
					each(u)
				}
				left--
			}
			dataEnd = next
		case place+off < dataEnd && !e.dataSector(b):
			return e, false, nil
		}
	}
	return e, dataEnd <= place+e.length && crc == want, nil
}

// descriptor parses a descriptor of e; data is where the log has the sector of
// the next data descriptor.
func (e *entry) descriptor(b []byte, data int64) (update, bool) {
	u := update{region: region{length: logSector}}
	off := le.Uint64(b[16:])
	switch string(b[:4]) {
	case "zero": // 2.3.1.2 Zero Descriptor
		length := le.Uint64(b[8:])
		if length%logSector != 0 || length > maxOffset {
			return u, false
		}
		u.length = int64(length)
	case "desc": // 2.3.1.3 Data Descriptor
		u.data, u.sector = true, data
		copy(u.trailing[:], b[4:8])
		copy(u.leading[:], b[8:16])
	default:
		return u, false
	}
	u.offset = int64(off)
	return u, off%logSector == 0 && off <= maxOffset && u.length <= maxOffset-u.offset && le.Uint64(b[24:]) == e.sequence
}

// dataSector reports whether b is a data sector of e (2.3.1.4).
func (e *entry) dataSector(b []byte) bool {
	return string(b[:4]) == "data" && le.Uint32(b[4:]) == uint32(e.sequence>>32) && le.Uint32(b[4092:]) == uint32(e.sequence)
}

// entries finds all valid entries. No entry begins inside of another: data
// sectors and descriptors have their own signatures.
func (l *log) entries() ([]entry, error) {
	var all []entry
	for place := int64(0); place < l.region.length; {
		e, ok, err := l.entry(place, nil)
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, e)
			place += e.length
		} else {
			place += logSector
		}
	}
	return all, nil
}

// # 2.3.2 Log Sequence

// activeSequence finds the newest valid and complete sequence (2.3.3): of the
// longest runs of entries that follow each other, those whose head entry points
// to a tail in the same run; of these, the one whose head has the greatest
// sequence number. The specification's steps find the same one, in quadratic
// time. It is nil if there is none. Entries are ascending.
func activeSequence(entries []entry, length int64) []entry {
	follows := func(a, b entry) bool {
		return b.place == (a.place+a.length)%length && b.sequence == a.sequence+1
	}
	// The log is a ring: begin where a run does.
	for n := 1; n < len(entries); n++ {
		if !follows(entries[n-1], entries[n]) {
			entries = slices.Concat(entries[n:], entries[:n])
			break
		}
	}

	var active []entry
	for len(entries) > 0 {
		n := 1
		for n < len(entries) && follows(entries[n-1], entries[n]) {
			n++
		}
		run, head := entries[:n], entries[n-1]
		tail := slices.IndexFunc(run, func(e entry) bool { return e.place == head.tail })
		if tail >= 0 && (active == nil || head.sequence > active[len(active)-1].sequence) {
			active = run[tail:]
		}
		entries = entries[n:]
	}
	return active
}

// # 2.3.3 Log Replay

// A replayed is a file with the updates of its log. It has no data of its own,
// but knows where it is. It is safe for concurrent use: nothing changes.
type replayed struct {
	log     *log
	size    int64
	updates []update
	bounds  []int64 // ascending: where updates begin and end
	owners  []int32 // the update that says what is there, up to the next bound; -1: the file does
}

// newReplayed sorts out which update was the last to each place.
func newReplayed(l *log, size int64, updates []update) *replayed {
	r := &replayed{log: l, size: size, updates: updates}
	r.bounds = make([]int64, 0, 2*len(updates))
	for _, u := range updates {
		r.bounds = append(r.bounds, u.offset, u.end())
	}
	slices.Sort(r.bounds)
	r.bounds = slices.Compact(r.bounds)

	// From the newest on, each takes what is left. Free is a way to the next
	// place that nobody has taken, which gets shorter each time it is gone.
	r.owners = make([]int32, len(r.bounds))
	free := make([]int32, len(r.bounds))
	for n := range free {
		r.owners[n], free[n] = -1, int32(n)
	}
	next := func(n int32) int32 {
		for free[n] != n {
			free[n] = free[free[n]]
			n = free[n]
		}
		return n
	}
	for u := range slices.Backward(updates) {
		first, _ := slices.BinarySearch(r.bounds, updates[u].offset)
		for n := next(int32(first)); r.bounds[n] < updates[u].end(); n = next(n) {
			r.owners[n], free[n] = int32(u), n+1
		}
	}
	return r
}

// Size is the size that the file gets by the replay.
func (r *replayed) Size() int64 { return r.size }

// at is the update that has off, nil if none, and where that ends to be so.
func (r *replayed) at(off int64) (*update, int64) {
	n := sort.Search(len(r.bounds), func(n int) bool { return r.bounds[n] > off })
	end := r.size
	if n < len(r.bounds) {
		end = r.bounds[n]
	}
	if n == 0 || r.owners[n-1] < 0 {
		return nil, end
	}
	return &r.updates[r.owners[n-1]], end
}

// ReadAt reads the file as it is after the replay.
func (r *replayed) ReadAt(p []byte, off int64) (int, error) {
	return virtual.ReadAt(p, off, r.size, func(p []byte, off int64) error {
		for len(p) > 0 {
			u, end := r.at(off)
			part := p[:min(int64(len(p)), end-off)]
			if err := r.read(part, off, u); err != nil {
				return err
			}
			p, off = p[len(part):], off+int64(len(part))
		}
		return nil
	})
}

func (r *replayed) read(p []byte, off int64, u *update) error {
	switch {
	case u == nil:
		return virtual.ReadZeroExtended(r.log.file, p, off)
	case !u.data:
		clear(p)
		return nil
	}
	b := make([]byte, logSector)
	place := r.log.region.offset + u.sector%r.log.region.length
	if err := virtual.ReadZeroExtended(r.log.file, b, place); err != nil {
		return fmt.Errorf("reading log: %w", err)
	}
	copy(b, u.leading[:])
	copy(b[logSector-len(u.trailing):], u.trailing[:])
	copy(p, b[off-u.offset:])
	return nil
}

// NextExtent knows the holes of the file and the zeros of the log.
func (r *replayed) NextExtent(off int64) (virtual.Extent, error) {
	for off < r.size {
		u, end := r.at(off)
		switch {
		case u != nil && u.data:
			return virtual.Extent{Offset: off, Length: end - off}, nil
		case u == nil:
			e, err := virtual.NextExtent(r.log.file, off)
			if err != nil {
				return virtual.Extent{}, err
			}
			if e.Length > 0 && e.Offset < end {
				return virtual.Extent{Offset: e.Offset, Length: min(e.Length, end-e.Offset)}, nil
			}
		}
		off = end
	}
	return virtual.Extent{}, nil
}
