package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// ErrNotClean means that a file system has a journal to replay, was not
// unmounted, or contradicts itself: what it says is free may not be.
var ErrNotClean = errors.New("file system is not clean")

// errUnknown: a file system has something about it that its opener does not
// know. It is left as it is, for the reason that the error gives.
var errUnknown = errors.New("unknown")

// notClean returns an error that is [ErrNotClean] and says why.
func notClean(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrNotClean, fmt.Errorf(format, args...))
}

// unknown returns an error that is errUnknown and reads as it is written here,
// as in "feature 0x1000".
func unknown(format string, args ...any) error {
	return unknownError{fmt.Sprintf(format, args...)}
}

type unknownError struct{ what string }

func (e unknownError) Error() string        { return e.what }
func (e unknownError) Is(target error) bool { return target == errUnknown }

// A volume is what a file system lies on: a partition, or a whole disk. Its
// ReadAt fails once the caller's context is done.
type volume = disk.Reader

// An opener reads the superblock of a file system and returns the ranges of
// the volume, in bytes, that it says are free: ascending, not overlapping, not
// empty, inside the volume; they may touch. Its error is errUnknown, ErrNotClean or
// one of reading. The sequence may end with an error, and then nothing is
// trimmed. It keeps no more than a few MiB, whatever the file system says.
type opener func(v volume) (iter.Seq2[disk.Extent, error], error)

// openers are the file systems that can be trimmed, by the names that
// [Partition] has for them.
var openers = map[string]opener{
	"ext2": ext,
	"ext3": ext,
	"ext4": ext,
	"fat":  openFAT,
	"ntfs": openNTFS,
	"xfs":  openXFS,
}

// A Report is what [Trim] has done to a partition.
type Report struct {
	Partition

	// Freed is how many bytes of free blocks were dropped that were not known
	// to be zeros before.
	Freed int64

	// Kept says why the partition was left as it is, "" if it was trimmed.
	// Where its file system alone is the reason, it is the name of that.
	Kept string
}

// Trim returns r without the blocks that its file systems say are free: they
// read as zeros, and no extent has them. A block is 4 KiB of the disk, at a
// multiple of that, as chunks have them; what is not all free is as it was, and
// so is everything outside of partitions. The Reader is valid as long as r is.
//
// There is a report for each partition, or one for a disk without. What Trim
// does not know, or could take for two things, it leaves as it is and says so.
// A file system that is [ErrNotClean] is an error.
func Trim(ctx context.Context, r disk.Reader) (disk.Reader, []Report, error) {
	watched := &watchedReader{ctx: ctx, r: r}
	reports := inventory(watched)
	if watched.err != nil {
		return nil, nil, fmt.Errorf("reading the partition table: %w", watched.err)
	}
	var free freeList
	for i := range reports {
		p := &reports[i]
		if p.Kept != "" {
			continue
		}
		err := trimPartition(watched, p, &free)
		switch {
		case errors.Is(err, errUnknown):
			p.Kept = err.Error()
		case err != nil && p.Number == 0:
			return nil, nil, fmt.Errorf("%s: %w", p.Filesystem, err)
		case err != nil:
			return nil, nil, fmt.Errorf("partition %d (%s): %w", p.Number, p.Filesystem, err)
		}
	}
	if err := countFreed(ctx, r, reports, free.ranges); err != nil {
		return nil, nil, err
	}
	if len(free.ranges) == 0 {
		return r, reports, nil
	}
	return &trimmed{r, free.ranges}, reports, nil
}

// inventory is a report for each partition, in the order of the disk, with what
// is known before its file system is read.
func inventory(r disk.Reader) []Report {
	t := readTable(r)
	whole := Report{Partition: Partition{End: r.Size()}}
	if len(t.partitions) == 0 {
		whole.Kept = t.doubt
		if whole.Kept == "" {
			whole.identify(r)
		}
		return []Report{whole}
	}
	// Something that has a partition table in it, or a table over the remains
	// of something.
	if names := allSignatures(r); len(names) > 0 {
		t.doubtf("the disk as a whole looks like %s", names[0])
	}
	slices.SortFunc(t.partitions, func(a, b Partition) int {
		if a.Start != b.Start {
			return int(min(max(a.Start-b.Start, -1), 1))
		}
		return a.Number - b.Number
	})
	reports := make([]Report, len(t.partitions))
	end, last := int64(0), 0 // the partition that reaches farthest so far
	for i, p := range t.partitions {
		reports[i].Partition = p
		if p.Start < end {
			reports[i].Kept = fmt.Sprintf("it overlaps partition %d", t.partitions[last].Number)
			reports[last].Kept = fmt.Sprintf("it overlaps partition %d", p.Number)
		}
		if p.End > end {
			end, last = p.End, i
		}
	}
	for i := range reports {
		p := &reports[i]
		p.identify(section(r, p.Partition))
		if p.Filesystem == verity {
			// They are of free blocks as well, and any partition can be theirs.
			t.doubtf("partition %d has checksums of blocks (%s)", p.Number, verity)
		}
	}
	for i := range reports {
		if t.doubt != "" {
			reports[i].Kept = t.doubt
		}
	}
	return reports
}

// identify notes which file system is on v, and why it has to stay as it is.
func (p *Report) identify(v volume) {
	names := allSignatures(v)
	if len(names) > 0 {
		p.Filesystem = names[0]
	}
	switch {
	case p.Kept != "":
	case len(names) > 1:
		p.Kept = fmt.Sprintf("it looks like %s and like %s", names[0], names[1])
	case len(names) == 0 && p.kind != "":
		p.Kept = fmt.Sprintf("its type is %s", p.kind)
	case len(names) == 0:
		p.Kept = "unknown content"
	case openers[names[0]] == nil:
		p.Kept = names[0]
	case p.kind != "":
		p.Kept = fmt.Sprintf("its type is %s", p.kind)
	}
}

// trimPartition adds to free what the file system of p says is free. With
// errUnknown it has added nothing.
func trimPartition(r disk.Reader, p *Report, free *freeList) error {
	v := section(r, p.Partition)
	ranges, err := openers[p.Filesystem](v)
	if err != nil {
		return err
	}
	var last disk.Extent // what the next range may touch
	for e, err := range virtual.Ascending(ranges, v.Size()) {
		switch {
		case err != nil:
			free.forget(p.Start)
			return err
		case last.End() == e.Offset:
			last.Length += e.Length
			continue
		}
		free.add(p.Start+last.Offset, p.Start+last.End())
		last = e
	}
	free.add(p.Start+last.Offset, p.Start+last.End())
	return nil
}

func section(r disk.Reader, p Partition) volume {
	return io.NewSectionReader(r, p.Start, p.End-p.Start)
}

// countFreed sets Freed of all reports: what of the free ranges r has data in.
func countFreed(ctx context.Context, r disk.Reader, reports []Report, free []disk.Extent) error {
	var data disk.Extent // at or after the range that is looked at
	i := 0
	for _, f := range free {
		for reports[i].End <= f.Offset {
			i++
		}
		for off := f.Offset; off < f.End(); off = data.End() {
			if data.End() <= off {
				if err := ctx.Err(); err != nil {
					return err
				}
				var err error
				if data, err = disk.NextExtent(r, off); err != nil {
					return err
				}
				if data.Length == 0 {
					return nil
				}
			}
			reports[i].Freed += max(0, min(data.End(), f.End())-max(data.Offset, off))
		}
	}
	return nil
}

// block is the unit in which free space is dropped: that of chunks.
const block = 4096

// maxRanges is how many free ranges are kept in memory, 16 bytes each. A
// terabyte in ranges of 1 MiB fits in.
const maxRanges = 1 << 20

// A freeList is the free ranges of a disk: whole blocks, in ascending order.
// Of too many the shortest are forgotten: they stay on the disk.
type freeList struct {
	ranges   []disk.Extent
	shortest int64 // what is shorter is not added
}

func (l *freeList) add(start, end int64) {
	start = virtual.RoundUp(start, block)
	end &^= block - 1
	if end-start < max(l.shortest, block) {
		return
	}
	l.ranges = append(l.ranges, disk.Extent{Offset: start, Length: end - start})
	for len(l.ranges) > maxRanges {
		l.shortest = max(2*l.shortest, 2*block)
		l.ranges = slices.DeleteFunc(l.ranges, func(e disk.Extent) bool { return e.Length < l.shortest })
	}
}

// forget takes back what begins at start or later.
func (l *freeList) forget(start int64) {
	l.ranges = slices.DeleteFunc(l.ranges, func(e disk.Extent) bool { return e.Offset >= start })
}

// trimmed is a disk without its free ranges.
type trimmed struct {
	r    disk.Reader
	free []disk.Extent // ascending
}

func (t *trimmed) Size() int64 { return t.r.Size() }

// SectorSize is what [disk.SectorSize] calls.
func (t *trimmed) SectorSize() int { return disk.SectorSize(t.r) }

// after is the index of the first free range that ends after off.
func (t *trimmed) after(off int64) int {
	i, _ := slices.BinarySearchFunc(t.free, off, func(e disk.Extent, off int64) int {
		if e.End() <= off {
			return -1
		}
		return 1
	})
	return i
}

func (t *trimmed) ReadAt(p []byte, off int64) (int, error) {
	return virtual.ReadAt(p, off, t.Size(), func(p []byte, off int64) error {
		for i := t.after(off); len(p) > 0; i++ {
			used, end := int64(len(p)), int64(len(p))
			if i < len(t.free) {
				used = min(end, max(0, t.free[i].Offset-off))
				end = min(end, t.free[i].End()-off)
			}
			if n, err := t.r.ReadAt(p[:used], off); int64(n) < used {
				return err
			}
			clear(p[used:end])
			p, off = p[end:], off+end
		}
		return nil
	})
}

func (t *trimmed) NextExtent(off int64) (disk.Extent, error) {
	for {
		e, err := disk.NextExtent(t.r, off)
		if err != nil || e.Length == 0 {
			return e, err
		}
		i := t.after(e.Offset)
		if i == len(t.free) || e.End() <= t.free[i].Offset {
			return e, nil
		}
		if e.Offset < t.free[i].Offset {
			return disk.Extent{Offset: e.Offset, Length: t.free[i].Offset - e.Offset}, nil
		}
		off = t.free[i].End()
	}
}

// A watchedReader reads until its context is done, which it has since an
// [io.ReaderAt] is given none. It remembers the first error, for those who take
// what cannot be read for what is not there.
type watchedReader struct {
	ctx context.Context
	r   disk.Reader
	err error
}

func (w *watchedReader) Size() int64 { return w.r.Size() }

func (w *watchedReader) SectorSize() int { return disk.SectorSize(w.r) }

func (w *watchedReader) ReadAt(p []byte, off int64) (int, error) {
	if err := w.ctx.Err(); err != nil {
		w.err = errors.Join(w.err, err)
		return 0, err
	}
	n, err := w.r.ReadAt(p, off)
	if n < len(p) && err != nil && !errors.Is(err, io.EOF) && w.err == nil {
		w.err = err
	}
	return n, err
}
