package artifact

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sort"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-oci/davit/disk"
)

// writeIndex writes and pushes the index of disk i.
func (p *packer) writeIndex(ctx context.Context, i int, table []IndexLayer) (d DiskDescriptor, err error) {
	f, err := tempFile(p.o.Scratch)
	if err != nil {
		return d, err
	}
	defer removeTemp(f) //nolint:errcheck // a scratch file
	src := &p.disks[i]
	x := Index{Profile: p.o.Profile, Size: src.Reader.Size(), DiskDigest: src.digest, Layers: table, Regions: src.regions}
	if x.headSize() > maxHead {
		return d, fmt.Errorf("its head would have %d bytes, more than %d", x.headSize(), maxHead)
	}
	w := bufio.NewWriterSize(io.NewOffsetWriter(f, x.headSize()), 1<<18)
	at := x.headSize()
	var page pageWriter
	n := -1
	endPage := func() error {
		if n < 0 {
			return nil
		}
		b := page.bytes()
		r := &x.Regions[n]
		r.PageOffset, r.PageLength, r.PageDigest = at, uint32(len(b)), sha256.Sum256(b)
		at += int64(len(b))
		_, err := w.Write(b)
		page = pageWriter{b: b[:0]}
		return err
	}
	err = p.eachChunk(i, func(region uint32, start, blocks int, r ref) error {
		if n < 0 || x.Regions[n].Number != region {
			if err := endPage(); err != nil {
				return err
			}
			n++
		}
		layer, chunk, err := p.finalRef(r)
		page.add(start, blocks, layer, chunk)
		return err
	})
	if err == nil {
		err = endPage()
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return d, err
	}
	head := x.encodeHead()
	if _, err := f.WriteAt(head, 0); err != nil {
		return d, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, at)); err != nil {
		return d, err
	}
	d = DiskDescriptor{
		Name: src.Name, Size: x.Size, Digest: src.digest, Head: sha256.Sum256(head),
		Index: ocispec.Descriptor{MediaType: TypeIndex, Digest: Digest(sumOf(h)), Size: at},
	}
	if disk.SectorSize(src.Reader) == 4096 {
		d.Sector = 4096
	}
	return d, pushBlob(ctx, p.target, d.Index, func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(f, 0, at)), nil
	})
}

// finalRef returns the layer, in the table, and the number of a chunk.
func (p *packer) finalRef(r ref) (layer, chunk int, err error) {
	if r < p.base.chunks {
		kept, ok, err := p.keptRef(r)
		if err != nil {
			return 0, 0, err
		}
		if ok {
			l := p.base.layerOf(kept)
			return p.base.position[l], int(kept - p.base.first[l]), nil
		}
		_, e, err := p.base.chunk(r)
		if err != nil {
			return 0, 0, err
		}
		if p.values, err = p.fresh.lookup(p.values, &e.digest); err != nil || len(p.values) == 0 {
			return 0, 0, errors.Join(err, errors.New("a chunk of a rewritten layer was lost"))
		}
		r = p.base.chunks + p.values[0]
	}
	n := r - p.base.chunks
	l := sort.Search(len(p.layers.starts), func(i int) bool { return p.layers.starts[i] > n }) - 1
	return p.packed.Kept + l, int(n - p.layers.starts[l]), nil
}
