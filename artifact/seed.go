package artifact

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
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
	disks []seedDisk
}

type seedDisk struct {
	disk.Reader
	listed bool // its chunks are from a list
}

// seedOffsetBits is how many bits of a table value are the offset, in blocks.
const seedOffsetBits = 48

// NewSeeds returns no seeds; dir is the folder for temporary files.
func NewSeeds(dir string) *Seeds { return &Seeds{table: newChunkTable(dir)} }

// SeedOptions are the options of [Seeds.Add], which mean what they mean to
// [Scan]. The zero value is right.
type SeedOptions struct {
	Profile  chunker.Profile // that of the disk that is restored; 0 is [chunker.Profile1]
	Memory   int64           // bounds the buffers, in bytes; 0 is [DefaultMemory]
	Progress func(bytes int64)
}

// Add reads a disk and adds its chunks.
func (s *Seeds) Add(ctx context.Context, r disk.Reader, o SeedOptions) error {
	number := s.addDisk(r, false)
	_, err := Scan(ctx, r, ScanOptions{Profile: o.Profile, Memory: o.Memory, Progress: o.Progress, Found: func(c Chunk) error {
		return s.addChunk(number, c.Offset, &c.Digest)
	}})
	return err
}

// AddDisk adds the chunks that an artifact's disk has, in r, which holds its
// content. Nothing is read now.
func (s *Seeds) AddDisk(ctx context.Context, r disk.Reader, d *Disk) error {
	number := s.addDisk(r, false)
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

// AddList adds the chunks of a list that [WriteChunk] wrote, of the disk r.
func (s *Seeds) AddList(r disk.Reader, list io.Reader) error {
	number := s.addDisk(r, true)
	in := bufio.NewReaderSize(list, 1<<16)
	var b [chunkListRecord]byte
	for {
		switch _, err := io.ReadFull(in, b[:]); err {
		case nil:
		case io.EOF:
			return nil
		default:
			return fmt.Errorf("reading a list of chunks: %w", err)
		}
		d := sum(b[8:])
		off := int64(binary.LittleEndian.Uint64(b[:]) % (1 << seedOffsetBits))
		if err := s.addChunk(number, off*chunker.BlockSize, &d); err != nil {
			return err
		}
	}
}

// chunkListRecord: u64 offset in blocks, digest.
const chunkListRecord = 8 + sha256.Size

// WriteChunk adds a chunk to a list of the chunks of a disk.
func WriteChunk(w io.Writer, c *Chunk) error {
	var b [chunkListRecord]byte
	binary.LittleEndian.PutUint64(b[:], uint64(c.Offset/chunker.BlockSize))
	copy(b[8:], c.Digest[:])
	_, err := w.Write(b[:])
	return err
}

func (s *Seeds) addDisk(r disk.Reader, listed bool) int {
	s.disks = append(s.disks, seedDisk{r, listed})
	return len(s.disks) - 1
}

func (s *Seeds) addChunk(number int, off int64, digest *sum) error {
	return s.table.add(digest, uint64(number)<<seedOffsetBits|uint64(off/chunker.BlockSize))
}

// A seedKind says where a chunk was found.
type seedKind int

const (
	noSeed seedKind = iota
	readSeed
	listedSeed
)

// read reads a chunk into buf and says where it was found, if it is right. A
// seed that cannot be read or has changed is the same as none.
func (s *Seeds) read(buf []byte, digest *sum) (seedKind, error) {
	if s == nil {
		return noSeed, nil
	}
	s.mu.Lock()
	values, err := s.table.lookup(nil, digest)
	s.mu.Unlock()
	if err != nil {
		return noSeed, fmt.Errorf("looking up a seed: %w", err)
	}
	for _, v := range values {
		r := s.disks[v>>seedOffsetBits]
		off := int64(v&(1<<seedOffsetBits-1)) * chunker.BlockSize
		if readPadded(r, buf, off) && sha256.Sum256(buf) == *digest {
			if r.listed {
				return listedSeed, nil
			}
			return readSeed, nil
		}
	}
	return noSeed, nil
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
	if int64(got) < n || err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	clear(buf[n:])
	return true
}
