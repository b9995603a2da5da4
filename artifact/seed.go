package artifact

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"

	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/disk"
)

// Seeds are disks that are here already, and so need not be fetched where a
// chunk is the same. What they are said to hold is a hint: every chunk is
// hashed when it is used. Safe for concurrent use once all are added.
type Seeds struct {
	mu    sync.Mutex
	table *chunkTable
	disks []disk.Reader
}

// seedOffsetBits is how many bits of a table value are the offset, in blocks.
const seedOffsetBits = 48

// NewSeeds returns no seeds; dir is the folder for temporary files.
func NewSeeds(dir string) *Seeds { return &Seeds{table: newChunkTable(dir)} }

// Add reads a disk and adds its chunks, cut by the given profile.
func (s *Seeds) Add(ctx context.Context, r disk.Reader, p chunker.Profile, memory int64) error {
	number := s.addDisk(r)
	return scan(ctx, r, p, memory, func(region uint32, chunks []foundChunk) error {
		for i := range chunks {
			off := int64(region)*chunker.RegionSize + int64(chunks[i].start)*chunker.BlockSize
			if err := s.addChunk(number, off, &chunks[i].digest); err != nil {
				return err
			}
		}
		return nil
	})
}

// AddDisk adds the chunks that an artifact's disk has, in r, which holds its
// content. Nothing is read now.
func (s *Seeds) AddDisk(ctx context.Context, r disk.Reader, d *Disk) error {
	number := s.addDisk(r)
	for c, err := range d.Chunks(ctx) {
		if err != nil {
			return err
		}
		if err := s.addChunk(number, c.Offset, &c.Digest); err != nil {
			return err
		}
	}
	return nil
}

func (s *Seeds) addDisk(r disk.Reader) int {
	s.disks = append(s.disks, r)
	return len(s.disks) - 1
}

func (s *Seeds) addChunk(number int, off int64, digest *sum) error {
	return s.table.add(digest, uint64(number)<<seedOffsetBits|uint64(off/chunker.BlockSize))
}

// read reads a chunk into buf and reports whether it was found and is right.
// A seed that cannot be read or has changed is the same as none.
func (s *Seeds) read(buf []byte, digest *sum) (bool, error) {
	if s == nil {
		return false, nil
	}
	s.mu.Lock()
	values, err := s.table.lookup(nil, digest)
	s.mu.Unlock()
	if err != nil {
		return false, fmt.Errorf("looking up a seed: %w", err)
	}
	for _, v := range values {
		r := s.disks[v>>seedOffsetBits]
		off := int64(v&(1<<seedOffsetBits-1)) * chunker.BlockSize
		if readPadded(r, buf, off) && sha256.Sum256(buf) == *digest {
			return true, nil
		}
	}
	return false, nil
}

// has reports whether a seed is said to hold a chunk.
func (s *Seeds) has(digest *sum) (bool, error) {
	if s == nil {
		return false, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	values, err := s.table.lookup(nil, digest)
	return len(values) > 0, err
}

// Close removes temporary files. The disks are the caller's to close.
func (s *Seeds) Close() error {
	if s == nil {
		return nil
	}
	return s.table.close()
}

// readPadded fills buf with what r holds at off, with zeros beyond its end,
// and reports whether it could be read.
func readPadded(r disk.Reader, buf []byte, off int64) bool {
	n := min(int64(len(buf)), r.Size()-off)
	if n <= 0 {
		return false
	}
	got, err := r.ReadAt(buf[:n], off)
	if int64(got) < n && (err != nil || err == io.EOF) {
		return false
	}
	clear(buf[n:])
	return true
}
