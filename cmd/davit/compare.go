package main

import (
	"context"
	"fmt"
	"iter"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/opencontainers/go-digest"
)

// chunks are the chunks of a disk in order, or an error as the last.
type chunks = iter.Seq2[artifact.Chunk, error]

// A comparison is where two disks differ, by chunks.
type comparison struct {
	same, changed           int   // chunks
	sameBytes, changedBytes int64 // plain
	areas                   []disk.Extent
}

// The most areas that are told apart. Whatever is beyond the last becomes part
// of it, so that two unlike disks of terabytes do not take all memory.
const maxAreas = 100_000

// compareChunks compares two disks that are cut by one profile. Equal content
// at another place is a difference.
func compareChunks(a, b chunks) (comparison, error) {
	nextA, stopA := iter.Pull2(a)
	defer stopA()
	nextB, stopB := iter.Pull2(b)
	defer stopB()
	x, err, okA := nextA()
	if err != nil {
		return comparison{}, err
	}
	y, err, okB := nextB()
	if err != nil {
		return comparison{}, err
	}

	var c comparison
	onlyA, onlyB := 0, 0
	for okA || okB {
		stepA := okA && (!okB || x.Offset <= y.Offset)
		stepB := okB && (!okA || y.Offset <= x.Offset)
		switch {
		case stepA && stepB && x == y:
			c.same++
			c.sameBytes += x.Length
		default:
			if stepA {
				onlyA++
				c.add(x)
			}
			if stepB {
				onlyB++
				c.add(y)
			}
		}
		if stepA {
			if x, err, okA = nextA(); err != nil {
				return comparison{}, err
			}
		}
		if stepB {
			if y, err, okB = nextB(); err != nil {
				return comparison{}, err
			}
		}
	}
	c.changed = max(onlyA, onlyB)
	return c, nil
}

// add marks the range of a chunk as changed. Chunks come in order of offset.
func (c *comparison) add(chunk artifact.Chunk) {
	end := chunk.Offset + chunk.Length
	n := len(c.areas)
	if n == 0 || n < maxAreas && chunk.Offset > c.areas[n-1].End() {
		c.areas = append(c.areas, disk.Extent{Offset: chunk.Offset, Length: chunk.Length})
		c.changedBytes += chunk.Length
		return
	}
	last := &c.areas[n-1]
	if more := end - last.End(); more > 0 {
		c.changedBytes += min(more, chunk.Length)
		last.Length += more
	}
}

// A scannedDisk is a disk that is read and cut; digest is known at the end.
type scannedDisk struct {
	digest digest.Digest
}

// scanChunks reads r and yields its chunks.
func (s *scannedDisk) scanChunks(ctx context.Context, r disk.Reader, o artifact.ScanOptions) chunks {
	return func(yield func(artifact.Chunk, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		found := make(chan artifact.Chunk, 1024)
		failed := make(chan error, 1)
		go func() {
			defer close(found)
			o.Found = func(c artifact.Chunk) error {
				select {
				case found <- c:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			sum, err := artifact.Scan(ctx, r, o)
			s.digest = artifact.Digest(sum)
			failed <- err
		}()
		for c := range found {
			if !yield(c, nil) {
				cancel()
				for range found { // until the goroutine has ended
				}
				return
			}
		}
		if err := <-failed; err != nil {
			yield(artifact.Chunk{}, err)
		}
	}
}

// noChunks is an empty disk.
func noChunks(func(artifact.Chunk, error) bool) {}

// checkProfile says whether a disk of an artifact can be compared with a file.
func checkProfile(d *artifact.Disk) error {
	if !d.Index.Profile.Known() {
		return fmt.Errorf("disk %s is cut by profile %s: %w", d.Name, d.Index.Profile, artifact.ErrNewer)
	}
	return nil
}
