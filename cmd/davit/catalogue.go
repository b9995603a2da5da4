package main

import (
	"bufio"
	"context"
	"os"
	"path/filepath"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/own"
	"github.com/davit-oci/davit/registry"
	"github.com/opencontainers/go-digest"
)

// The catalogue remembers files that davit wrote or read, with a list of their
// chunks, so that later pulls need not fetch what is on this host. What it says
// is a hint: each chunk is hashed when it is used. That something could not be
// remembered is no failure.

// A chunkList is a list of chunks that is being written.
type chunkList struct {
	f *os.File
	*bufio.Writer
}

func newChunkList(dir string) (*chunkList, error) {
	f, err := os.CreateTemp(dir, "chunks-")
	if err != nil {
		return nil, err
	}
	return &chunkList{f, bufio.NewWriterSize(f, 1<<16)}, nil
}

// listPath is where the list of the chunks of a disk is kept.
func listPath(store *registry.Store, d digest.Digest) string {
	return filepath.Join(store.Dir(), "lists", d.Encoded())
}

// keep moves the list into the store.
func (l *chunkList) keep(store *registry.Store, d digest.Digest) (string, error) {
	if err := l.Flush(); err != nil {
		return "", err
	}
	if err := l.f.Close(); err != nil {
		return "", err
	}
	path := listPath(store, d)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	return path, os.Rename(l.f.Name(), path)
}

// remember puts the files that were pushed into the catalogue.
func (out *pushed) remember() {
	for i, img := range out.p.images {
		if img.Spooled || out.p.cache == registry.NoStore {
			continue
		}
		d := artifact.Digest(out.Disks[i].Digest)
		list, err := out.lists[i].keep(out.p.store, d)
		if err != nil {
			continue
		}
		rememberFile(out.p.store, img.Path, img.Format(), d, list)
	}
}

func rememberFile(store *registry.Store, path string, format disk.Format, d digest.Digest, list string) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return
	}
	info, err := os.Stat(abs)
	if err != nil || !info.Mode().IsRegular() {
		return
	}
	store.Remember(registry.DiskFile{Path: abs, Format: string(format), DiskDigest: d, ChunkList: list})
}

// rememberPulled puts a file that was pulled into the catalogue.
func (g *globals) rememberPulled(ctx context.Context, store *registry.Store, path string, format disk.Format, d *artifact.Disk) {
	if g.cache == registry.NoStore {
		return
	}
	scratch, cleanup, err := store.Scratch()
	if err != nil {
		return
	}
	defer cleanup()
	list, err := newChunkList(scratch)
	if err != nil {
		return
	}
	for c, err := range d.Chunks(ctx) {
		if err != nil || artifact.WriteChunk(list, &c) != nil {
			return
		}
	}
	if kept, err := list.keep(store, artifact.Digest(d.Digest)); err == nil {
		rememberFile(store, path, format, artifact.Digest(d.Digest), kept)
	}
}

// maxRemembered is how many files of the catalogue are used as seeds: the
// youngest, since every list that is read costs time.
const maxRemembered = 8

// addRemembered adds files of the catalogue to the seeds of a pull. The format
// is the recorded one: a guest that wrote a header onto its own disk is not
// believed, and no second file opens.
func addRemembered(store *registry.Store, seeds *artifact.Seeds) (opened []*disk.Image) {
	files, err := store.DiskFiles()
	if err != nil {
		return nil
	}
	for _, f := range files {
		if len(opened) == maxRemembered {
			break
		}
		img, err := disk.Open(f.Path, disk.OpenOptions{Format: disk.Format(f.Format)})
		if err != nil {
			continue
		}
		list, err := own.Open(f.ChunkList, os.O_RDONLY)
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
