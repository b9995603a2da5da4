package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
	"os"
	"runtime"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/davit-oci/davit/chunker"
)

// A Journal remembers pushed layers. Its methods are called concurrently.
type Journal interface {
	// Find returns the layer that begins with a chunk, if it is still where it
	// was pushed to.
	Find(ctx context.Context, first [sha256.Size]byte) (LayerRecord, bool)

	// Done says that a layer was pushed.
	Done(LayerRecord) error
}

// A LayerRecord is a layer that was pushed, and what it was made from.
type LayerRecord struct {
	First  [sha256.Size]byte // digest of its first chunk
	Recipe [sha256.Size]byte // SHA-256 of the lengths and digests of all its chunks
	Codec  string            // as [Codec.String] writes it
	Layer  IndexLayer
}

// Descriptor returns the descriptor of the layer.
func (r *LayerRecord) Descriptor() ocispec.Descriptor {
	name, _, _ := strings.Cut(r.Codec, ":")
	return ocispec.Descriptor{MediaType: Codec{Name: name}.mediaType(), Digest: Digest(r.Layer.Digest), Size: r.Layer.Size}
}

// A layerWriter puts chunks into frames and frames into layers, in order;
// frames are compressed in parallel. A finished layer is pushed from its file.
type layerWriter struct {
	p     *packer
	ctx   context.Context // of the Pack that it is a part of
	queue chan *frameJob
	free  chan *frameJob // bounds the memory of frames
	slots *errgroup.Group

	cur    *frameJob
	starts []uint64 // number of the first chunk of each layer
	chunks uint64
	plain  int64 // in the current layer

	// Of the current layer: what it is made from, and, while it looks like one
	// of the journal, that one and where its chunks can be read again.
	record   LayerRecord
	recipe   hash.Hash
	known    *LayerRecord
	skipped  []chunkSource
	skippedD []sum

	// Written by run only.
	done []doneLayer
}

type doneLayer struct {
	IndexLayer
	desc ocispec.Descriptor
}

// A frameJob is a frame that is collected, compressed and written; or the end
// of a layer; or a layer that the journal has.
type frameJob struct {
	plain   []byte
	stored  []byte
	chunks  []chunkEntry
	encoded chan error

	end   *LayerRecord
	known *LayerRecord
}

func newLayerWriter(ctx context.Context, p *packer) *layerWriter {
	n := min(2*runtime.GOMAXPROCS(0)+2, max(4, int(p.o.MaxMemory/8/maxFramePlain)))
	w := &layerWriter{p: p, ctx: ctx, queue: make(chan *frameJob, n), free: make(chan *frameJob, n), slots: &errgroup.Group{}}
	w.slots.SetLimit(runtime.GOMAXPROCS(0))
	for range n {
		w.free <- &frameJob{}
	}
	return w
}

// add adds a new chunk and returns its number.
func (w *layerWriter) add(c *foundChunk, src chunkSource) (uint64, error) {
	if n := len(w.starts); w.plain > 0 {
		if w.plain+int64(len(c.data)) > layerLimit(len(w.p.base.layers), n) || w.chunks-w.starts[n-1] >= maxLayerChunks {
			if err := w.endLayer(); err != nil {
				return 0, err
			}
		}
	}
	if w.plain == 0 {
		w.startLayer(&c.digest)
	}
	w.recipe.Write(append(binary.LittleEndian.AppendUint16(nil, uint16(c.blocks)), c.digest[:]...))
	w.plain += int64(len(c.data))
	w.chunks++
	if w.known != nil {
		w.skipped = append(w.skipped, src)
		w.skippedD = append(w.skippedD, c.digest)
		return w.chunks - 1, nil
	}
	return w.chunks - 1, w.addData(c)
}

func (w *layerWriter) startLayer(first *sum) {
	w.starts = append(w.starts, w.chunks)
	w.record = LayerRecord{First: *first, Codec: w.p.enc.codec.String()}
	w.recipe = sha256.New()
	if w.p.o.Journal != nil {
		if l, ok := w.p.o.Journal.Find(w.ctx, *first); ok && l.Codec == w.record.Codec {
			w.known = &l
		}
	}
}

// addData adds a chunk to the current frame.
func (w *layerWriter) addData(c *foundChunk) error {
	if w.cur != nil && len(w.cur.plain)+len(c.data) > maxFramePlain {
		if err := w.endFrame(); err != nil {
			return err
		}
	}
	if w.cur == nil {
		select {
		case w.cur = <-w.free:
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
		w.cur.plain, w.cur.chunks = w.cur.plain[:0], w.cur.chunks[:0]
		if w.cur.plain == nil {
			w.cur.plain = make([]byte, 0, maxFramePlain)
		}
	}
	w.cur.plain = append(w.cur.plain, c.data...)
	w.cur.chunks = append(w.cur.chunks, chunkEntry{blocks: uint16(c.blocks), digest: c.digest})
	return nil
}

func (w *layerWriter) endFrame() error {
	job := w.cur
	w.cur = nil
	job.encoded = make(chan error, 1)
	select {
	case w.queue <- job:
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
	w.slots.Go(func() (err error) {
		job.stored, err = w.p.enc.encode(job.stored[:0], job.plain)
		job.encoded <- err
		return nil
	})
	return nil
}

// endLayer ends the current layer, if it has chunks.
func (w *layerWriter) endLayer() error {
	if w.plain == 0 {
		return nil
	}
	w.plain = 0
	w.record.Recipe = sumOf(w.recipe)
	job := &frameJob{end: &w.record}
	if w.known != nil {
		if w.known.Recipe == w.record.Recipe {
			job = &frameJob{known: w.known}
		} else if err := w.unskip(); err != nil {
			return err
		}
		w.known, w.skipped, w.skippedD = nil, nil, nil
	}
	if w.cur != nil {
		if err := w.endFrame(); err != nil {
			return err
		}
	}
	record := w.record
	if job.end != nil {
		job.end = &record
	}
	select {
	case w.queue <- job:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// unskip reads the chunks again that were not compressed because the layer
// looked like one that is there.
func (w *layerWriter) unskip() error {
	buf := make([]byte, chunker.MaxChunk)
	for i, src := range w.skipped {
		data, err := w.p.readAgain(src, &w.skippedD[i], buf)
		if err != nil {
			return err
		}
		if err := w.addData(&foundChunk{blocks: src.blocks, digest: w.skippedD[i], data: data}); err != nil {
			return err
		}
	}
	return nil
}

func (w *layerWriter) stop() { close(w.queue) }

// run writes frames and layers until stop is called.
func (w *layerWriter) run() error {
	defer w.slots.Wait() //nolint:errcheck // its functions return nil
	var l *layerFile
	defer func() {
		if l != nil {
			_ = removeTemp(l.f)
		}
	}()
	for job := range w.queue {
		if job.known != nil {
			w.done = append(w.done, doneLayer{job.known.Layer, job.known.Descriptor()})
			continue
		}
		if job.end != nil {
			done, err := l.finish(w.p.enc)
			if err != nil {
				return err
			}
			w.done = append(w.done, done)
			job.end.Layer = done.IndexLayer
			w.push(done.desc, l.f, job.end)
			l = nil
			continue
		}
		select {
		case err := <-job.encoded:
			if err != nil {
				return fmt.Errorf("compressing a frame: %w", err)
			}
		case <-w.ctx.Done():
			return w.ctx.Err()
		}
		if l == nil {
			f, err := tempFile(w.p.o.Scratch)
			if err != nil {
				return err
			}
			l = &layerFile{f: f, h: sha256.New(), mediaType: w.p.enc.codec.mediaType()}
		}
		l.dir.addFrame(job.stored, len(job.plain), len(job.chunks))
		for i := range job.chunks {
			l.dir.addChunk(int(job.chunks[i].blocks), &job.chunks[i].digest)
		}
		if err := l.write(job.stored); err != nil {
			return err
		}
		w.free <- job
	}
	return w.ctx.Err()
}

// push pushes a layer in the background and removes its file. It waits while
// as many as may be are being pushed, which bounds the space they take.
func (w *layerWriter) push(desc ocispec.Descriptor, f *os.File, record *LayerRecord) {
	w.p.push(func(ctx context.Context) error {
		defer removeTemp(f) //nolint:errcheck // a scratch file
		err := pushBlob(ctx, w.p.target, desc, func() (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(f, 0, desc.Size)), nil
		})
		if err != nil || w.p.o.Journal == nil {
			return err
		}
		return w.p.o.Journal.Done(*record)
	})
}

// A layerFile is a layer that is being written.
type layerFile struct {
	f         *os.File
	h         hash.Hash
	size      int64
	dir       dirBuilder
	mediaType string
}

func (l *layerFile) write(b []byte) error {
	l.h.Write(b)
	l.size += int64(len(b))
	if _, err := l.f.Write(b); err != nil {
		return fmt.Errorf("spooling a layer: %w", err)
	}
	return nil
}

// finish appends the directory.
func (l *layerFile) finish(enc *encoder) (d doneLayer, err error) {
	plain := l.dir.plain()
	stored, err := enc.encode(nil, plain)
	if err != nil {
		return d, fmt.Errorf("compressing a directory: %w", err)
	}
	d.DirOffset, d.DirStored, d.DirPlain = l.size, uint32(len(stored)), uint32(len(plain))
	d.DirDigest, d.Chunks = sha256.Sum256(stored), uint32(len(l.dir.chunks)/dirChunkSize)
	if err := l.write(stored); err != nil {
		return d, err
	}
	d.Digest, d.Size = sumOf(l.h), l.size
	d.desc = ocispec.Descriptor{MediaType: l.mediaType, Digest: Digest(d.Digest), Size: l.size}
	return d, nil
}
