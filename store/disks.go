package store

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/own"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/opencontainers/go-digest"
)

// The catalogue remembers files that davit wrote or read, with a list of their
// chunks, so that later pulls need not fetch what is on this host. What it says
// is a hint: each chunk is hashed when it is used.

// A DiskFile is a file with the content of a disk, as davit wrote or read it
// once.
type DiskFile struct {
	Path   string        `json:"path"` // of a regular file; absolute in what DiskFiles returns
	Format disk.Format   `json:"format"`
	Digest digest.Digest `json:"diskDigest"`
}

// A diskRecord is a DiskFile in the catalogue. Only size and time of the file are
// watched.
type diskRecord struct {
	DiskFile
	Size   int64     `json:"size"`  // of the file, in bytes
	MTime  time.Time `json:"mtime"` // of the file
	Chunks string    `json:"chunkList,omitempty"`
}

// maxDiskRecord is the largest record of the catalogue in bytes.
const maxDiskRecord = 1 << 20

// A ChunkList is a list of the chunks of one disk while it is written. It is not
// safe for concurrent use. [Store.Remember] keeps it; the store's Close removes
// one that was not kept.
type ChunkList struct {
	file *wholefile.Temp
	buf  *bufio.Writer
}

// NewChunkList begins a list.
func (s *Store) NewChunkList() (*ChunkList, error) {
	f, err := wholefile.CreateTemp(s.path(listsDir), 0o600)
	if err == nil {
		err = s.removeAtClose(f.Name(), f.Close)
	}
	if err != nil {
		return nil, fmt.Errorf("making a list of chunks: %w", err)
	}
	return &ChunkList{f, bufio.NewWriterSize(f, 1<<16)}, nil
}

// Add adds a chunk.
func (l *ChunkList) Add(c artifact.Chunk) error { return artifact.WriteChunk(l.buf, &c) }

// Remember puts a file with the content of a disk into the catalogue, in the
// place of what was known of its path. The list has the disk's chunks, and cannot
// be used afterwards.
func (s *Store) Remember(f DiskFile, chunks *ChunkList) error {
	if err := s.remember(f, chunks); err != nil {
		return fmt.Errorf("remembering %s: %w", f.Path, err)
	}
	return nil
}

func (s *Store) remember(f DiskFile, chunks *ChunkList) error {
	if err := f.Digest.Validate(); err != nil {
		return err
	}
	path, err := filepath.Abs(f.Path)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	list := s.path(listsDir, f.Digest.Encoded())
	if err := chunks.buf.Flush(); err != nil {
		return err
	}
	if err := chunks.file.Commit(list); err != nil {
		return err
	}
	s.forget(chunks.file.Name())
	f.Path = path
	b, err := json.Marshal(diskRecord{DiskFile: f, Size: info.Size(), MTime: info.ModTime(), Chunks: list})
	if err != nil {
		return err
	}
	return wholefile.Replace(s.path(disksDir, nameOf(path)+".json"), b, 0o600)
}

// RememberDisk is Remember for a file that holds a disk of an artifact: the
// artifact has the list of its chunks, which is fetched where it is not known
// yet. The Digest of f need not be set.
func (s *Store) RememberDisk(ctx context.Context, f DiskFile, d *artifact.Disk) error {
	list, err := s.NewChunkList()
	if err != nil {
		return err
	}
	for c, err := range d.Chunks(ctx) {
		if err == nil {
			err = list.Add(c)
		}
		if err != nil {
			return fmt.Errorf("remembering %s: %w", f.Path, err)
		}
	}
	f.Digest = artifact.Digest(d.Digest)
	return s.Remember(f, list)
}

// DiskFiles returns the files of the catalogue that still have the size and time
// they had, the youngest first. Whoever reads one must verify what they read.
func (s *Store) DiskFiles() ([]DiskFile, error) {
	records, err := s.diskRecords()
	var files []DiskFile
	for _, r := range records {
		files = append(files, r.DiskFile)
	}
	return files, err
}

func (s *Store) diskRecords() ([]diskRecord, error) {
	entries, err := os.ReadDir(s.path(disksDir))
	if err != nil {
		return nil, fmt.Errorf("reading the catalogue of disk files: %w", err)
	}
	var files []diskRecord
	for _, e := range entries {
		if wholefile.IsTemp(e.Name()) {
			continue
		}
		b, err := own.ReadFile(s.path(disksDir, e.Name()), maxDiskRecord)
		if err != nil {
			continue // removed by another process, or not ours
		}
		var f diskRecord
		if json.Unmarshal(b, &f) != nil || nameOf(f.Path)+".json" != e.Name() {
			continue
		}
		info, err := os.Stat(f.Path)
		if err != nil || !info.Mode().IsRegular() || info.Size() != f.Size || !info.ModTime().Equal(f.MTime) {
			continue
		}
		files = append(files, f)
	}
	slices.SortStableFunc(files, func(a, b diskRecord) int { return b.MTime.Compare(a.MTime) })
	return files, nil
}

// maxSeeds is how many files of the catalogue become seeds: the youngest, since
// every list that is read costs time.
const maxSeeds = 8

// AddSeeds adds files of the catalogue to the seeds of a pull. The caller closes
// the images when the seeds are not used any more.
//
// The format is the recorded one: a guest that wrote a header onto its own disk
// is not believed, and no second file opens.
func (s *Store) AddSeeds(seeds *artifact.Seeds) (opened []*disk.Image) {
	files, err := s.diskRecords()
	if err != nil {
		return nil // it is a hint
	}
	for _, f := range files {
		if len(opened) == maxSeeds {
			break
		}
		img, err := disk.Open(f.Path, disk.OpenOptions{Format: f.Format})
		if err != nil {
			continue
		}
		list, err := own.Open(f.Chunks, os.O_RDONLY)
		if err != nil {
			img.Close()
			continue
		}
		err = seeds.AddList(img, list)
		list.Close()
		opened = append(opened, img)
		if err != nil {
			break
		}
	}
	return opened
}
