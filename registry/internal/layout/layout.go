// Package layout keeps repositories in OCI image layouts: [OpenDir] in a folder, [OpenArchive] in a tar file. Other tools read and write
// the same layouts. Several processes can write to one at the same time, and a kill at any moment leaves a valid one.
//
// A layout is not believed: what it lists is checked, links in it are not followed where something is written, and a tar file is read
// in place and never unpacked.
package layout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/redact"
	"github.com/davit-oci/davit/registry/internal/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// A Layout is an OCI image layout (image-spec, "OCI Image Layout Specification"), whatever its files are in.
//
// oras-go's oci.Store was not used: it writes index.json in place, so that a kill at the wrong moment leaves a layout without one, and
// two processes that push at once lose each other's tags.
//
// It is safe for concurrent use. Descriptors that it gets have been checked by [oci.Check], those of manifests by [oci.CheckManifest].
type Layout struct {
	files layoutFiles
	stats *oci.Stats
	sound sync.Map // by soundBlob: those whose bytes this process has hashed, or written
}

// layoutFiles are the files of a layout: a directory or a tar file.
type layoutFiles interface {
	// index is what index.json says now; an empty one if there is none yet.
	index() (ocispec.Index, error)
	// update changes index.json, whole or not at all. f may be called more than once.
	update(ctx context.Context, f func(*ocispec.Index)) error
	// open finds a blob, or says oci.ErrNotFound.
	open(d digest.Digest) (layoutBlob, error)
	// put writes a blob, after checking that it is what desc says, also in the place of one that is there.
	put(ctx context.Context, desc ocispec.Descriptor, content io.Reader) error
	close() error
}

type layoutBlob interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

const (
	layoutFile    = ocispec.ImageLayoutFile
	layoutContent = `{"imageLayoutVersion":"` + ocispec.ImageLayoutVersion + `"}`
	indexFile     = ocispec.ImageIndexFile
	blobsDir      = "blobs/sha256"

	// maxIndex bounds index.json, which is read into memory: some 100,000 manifests.
	maxIndex = 32 << 20
)

func parseIndex(b []byte) (ocispec.Index, error) {
	var index ocispec.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return ocispec.Index{}, fmt.Errorf("parsing %s: %w", indexFile, err)
	}
	return index, nil
}

func formatIndex(index ocispec.Index) ([]byte, error) {
	index.Versioned = specs.Versioned{SchemaVersion: 2}
	index.MediaType = ocispec.MediaTypeImageIndex
	if index.Manifests == nil {
		index.Manifests = []ocispec.Descriptor{}
	}
	return json.Marshal(index)
}

func checkLayoutFile(b []byte) error {
	var l ocispec.ImageLayout
	if err := json.Unmarshal(b, &l); err != nil {
		return fmt.Errorf("parsing %s: %w", layoutFile, err)
	}
	if l.Version != ocispec.ImageLayoutVersion {
		return fmt.Errorf("layout version %q, only %s is known", redact.Line(l.Version), ocispec.ImageLayoutVersion)
	}
	return nil
}

// Resolve finds a manifest and computes its digest.
func (l *Layout) Resolve(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, error) {
	index, err := l.files.index()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{Digest: digest.Digest(tagOrDigest)}
	if !reference.ValidDigest(desc.Digest) {
		i := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Annotations[ocispec.AnnotationRefName] == tagOrDigest })
		if i < 0 {
			return ocispec.Descriptor{}, fmt.Errorf("resolving %s: %w", tagOrDigest, oci.ErrNotFound)
		}
		desc = index.Manifests[i]
		if err := oci.Check(desc); err != nil {
			return ocispec.Descriptor{}, fmt.Errorf("resolving %s: %w", tagOrDigest, err)
		}
	}

	blob, err := l.files.open(desc.Digest)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("resolving %s: %w", tagOrDigest, err)
	}
	defer blob.Close()
	size := blob.Size()
	if size > oci.MaxManifest {
		return ocispec.Descriptor{}, fmt.Errorf("resolving %s: a manifest of %d bytes, over the limit of %d", tagOrDigest, size, oci.MaxManifest)
	}
	content, err := oci.ReadVerified(io.NewSectionReader(blob, 0, size), ocispec.Descriptor{Digest: desc.Digest, Size: size})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("resolving %s: %w", tagOrDigest, err)
	}
	l.stats.Fetched.Add(size)
	found := ocispec.Descriptor{MediaType: oci.ManifestType(content, desc.MediaType), Digest: desc.Digest, Size: size}
	if !oci.IsManifest(found.MediaType) {
		return ocispec.Descriptor{}, fmt.Errorf("resolving %s: media type %q is not that of a manifest", tagOrDigest, redact.Line(found.MediaType))
	}
	return found, nil
}

// Manifest returns a verified manifest.
func (l *Layout) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	rc, err := l.FetchRange(ctx, desc, 0, desc.Size)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return oci.ReadVerified(rc, desc)
}

// FetchRange reads n bytes of a blob from offset off, unverified.
func (l *Layout) FetchRange(ctx context.Context, desc ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	blob, err := l.files.open(desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("reading blob %s: %w", desc.Digest, err)
	}
	if blob.Size() != desc.Size {
		blob.Close()
		return nil, fmt.Errorf("%w: %s has %d bytes in the layout, not %d", oci.ErrDigestMismatch, desc.Digest, blob.Size(), desc.Size)
	}
	return &blobSection{io.NewSectionReader(blob, off, n), blob, ctx, &l.stats.Fetched, n}, nil
}

// blobSection holds a context because it is an io.Reader.
type blobSection struct {
	r     *io.SectionReader
	blob  io.Closer
	ctx   context.Context
	count *atomic.Int64
	left  int64
}

func (s *blobSection) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	n, err := s.r.Read(p)
	s.count.Add(int64(n))
	s.left -= int64(n)
	if err == io.EOF && s.left > 0 {
		err = io.ErrUnexpectedEOF // somebody shortens the file
	}
	return n, err
}

func (s *blobSection) Close() error { return s.blob.Close() }

// Exists reports whether the blob is there, with the bytes that it is named by. A registry has looked at these when it took them. In a
// layout nobody has: whoever can write to it can put anything under a name, and disks fail. So they are hashed, once in a process.
func (l *Layout) Exists(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	blob, err := l.files.open(desc.Digest)
	if errors.Is(err, oci.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer blob.Close()
	if blob.Size() != desc.Size {
		return false, nil
	}
	if l.isSound(desc) {
		return true, nil
	}
	err = oci.CopyVerified(ctx, io.Discard, io.NewSectionReader(blob, 0, desc.Size), desc)
	if errors.Is(err, oci.ErrDigestMismatch) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading blob %s: %w", desc.Digest, err)
	}
	l.stats.Fetched.Add(desc.Size)
	l.Verified(desc)
	return true, nil
}

// A soundBlob is a key of Layout.sound.
type soundBlob struct {
	digest digest.Digest
	size   int64
}

// Verified notes that the bytes of a blob were read, and are those of its digest.
func (l *Layout) Verified(desc ocispec.Descriptor) {
	l.sound.Store(soundBlob{desc.Digest, desc.Size}, true)
}

func (l *Layout) isSound(desc ocispec.Descriptor) bool {
	_, ok := l.sound.Load(soundBlob{desc.Digest, desc.Size})
	return ok
}

// PushBlob writes a blob unless it is there.
func (l *Layout) PushBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	if there, err := l.Exists(ctx, desc); err != nil || there {
		return err
	}
	content, err := open()
	if err != nil {
		return err
	}
	defer content.Close()
	if err := l.files.put(ctx, desc, content); err != nil {
		return fmt.Errorf("writing blob %s: %w", desc.Digest, err)
	}
	l.stats.Sent.Add(desc.Size)
	l.Verified(desc)
	return nil
}

// Mount is always false: there is no other repository.
func (l *Layout) Mount(context.Context, ocispec.Descriptor, string) (bool, error) { return false, nil }

// PushManifest lists the manifest in index.json at once, without a name, as a registry keeps what was pushed by digest.
func (l *Layout) PushManifest(ctx context.Context, desc ocispec.Descriptor, content []byte) error {
	if err := l.missingBlobs(ctx, desc, content); err != nil {
		return err
	}
	if err := l.PushBlob(ctx, desc, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }); err != nil {
		return err
	}
	if _, err := l.Manifest(ctx, desc); err != nil {
		return fmt.Errorf("reading manifest %s back: %w", desc.Digest, err)
	}
	m, err := oci.ParseReferrer(content)
	if err != nil {
		return err
	}
	return l.files.update(ctx, func(index *ocispec.Index) {
		if !slices.ContainsFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Digest == desc.Digest }) {
			entry := ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size}
			entry.ArtifactType = m.ArtifactType
			index.Manifests = append(index.Manifests, entry)
		}
	})
}

// missingBlobs refuses what a registry would refuse: a manifest whose blobs are not there. One with other bytes than it is named by is
// not there, and can be pushed.
func (l *Layout) missingBlobs(ctx context.Context, desc ocispec.Descriptor, content []byte) error {
	var m struct {
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(content, &m); err != nil {
		return fmt.Errorf("pushing manifest %s: %w", desc.Digest, err)
	}
	needed := m.Layers
	if m.Config != nil {
		needed = append(needed, *m.Config)
	}
	needed = append(needed, m.Manifests...)
	there := make([]bool, len(needed))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, d := range needed {
		g.Go(func() (err error) {
			if err = oci.Check(d); err == nil {
				there[i], err = l.Exists(gctx, d)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("pushing manifest %s: %w", desc.Digest, err)
	}
	var missing []digest.Digest
	for i, d := range needed {
		if !there[i] {
			missing = append(missing, d.Digest)
		}
	}
	if len(missing) > 0 {
		return oci.BlobUnknown(missing, fmt.Errorf("pushing manifest %s: the layout lacks blob %s, or has something else under its name", desc.Digest, missing[0]))
	}
	return nil
}

// Tag lets a tag name a manifest that was pushed.
func (l *Layout) Tag(ctx context.Context, desc ocispec.Descriptor, tag string) error {
	content, err := l.Manifest(ctx, desc)
	if err != nil {
		return fmt.Errorf("tagging %s as %s: %w", desc.Digest, tag, err)
	}
	m, err := oci.ParseReferrer(content)
	if err != nil {
		return err
	}
	return l.files.update(ctx, func(index *ocispec.Index) { setTag(index, desc, m.ArtifactType, tag) })
}

// setTag gives tag to desc. Every manifest stays listed: one that loses its last name stays without one.
func setTag(index *ocispec.Index, desc ocispec.Descriptor, artifactType, tag string) {
	named := func(d ocispec.Descriptor) bool { return d.Annotations[ocispec.AnnotationRefName] != "" }
	for i := range index.Manifests {
		d := &index.Manifests[i]
		if d.Annotations[ocispec.AnnotationRefName] == tag {
			d.Annotations = cloneWithout(d.Annotations, ocispec.AnnotationRefName)
		}
	}
	entry := ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: desc.Size, ArtifactType: artifactType}
	if i := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Digest == desc.Digest }); i >= 0 {
		entry = index.Manifests[i]
	}
	entry.Annotations = cloneWithout(entry.Annotations, ocispec.AnnotationRefName)
	if entry.Annotations == nil {
		entry.Annotations = make(map[string]string)
	}
	entry.Annotations[ocispec.AnnotationRefName] = tag
	index.Manifests = append(index.Manifests, entry)

	// An entry without a name is only there for a manifest that no other entry lists.
	listed := make(map[digest.Digest]bool)
	for _, d := range index.Manifests {
		if named(d) {
			listed[d.Digest] = true
		}
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool {
		if named(d) {
			return false
		}
		double := listed[d.Digest]
		listed[d.Digest] = true
		return double
	})
}

func cloneWithout(m map[string]string, key string) map[string]string {
	var c map[string]string
	for k, v := range m {
		if k == key {
			continue
		}
		if c == nil {
			c = make(map[string]string)
		}
		c[k] = v
	}
	return c
}

// Tags gives every tag, those of tools as well.
func (l *Layout) Tags(context.Context) ([]string, error) {
	index, err := l.files.index()
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, d := range index.Manifests {
		if t := d.Annotations[ocispec.AnnotationRefName]; reference.ValidTag(t) {
			tags = append(tags, t)
		}
	}
	return tags, nil
}

// PushReferrer is PushManifest: a layout has no list of referrers.
func (l *Layout) PushReferrer(ctx context.Context, _, desc ocispec.Descriptor, content []byte) error {
	return l.PushManifest(ctx, desc, content)
}

// Close writes an archive that was changed.
func (l *Layout) Close() error { return l.files.close() }
