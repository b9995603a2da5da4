package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/davit-oci/davit/internal/own"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/redact"
	"github.com/davit-oci/davit/registry/internal/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// layout is an OCI image layout (image-spec, "OCI Image Layout Specification"), whatever its files are in.
//
// oras-go's oci.Store was not used: it writes index.json in place, so that a kill at the wrong moment leaves a layout without one, and
// two processes that push at once lose each other's tags.
type layout struct {
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
	// open finds a blob, or says ErrNotFound.
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

	// maxLayoutIndex bounds index.json, which is read into memory: some 100,000 manifests.
	maxLayoutIndex = 32 << 20
)

func parseLayoutIndex(b []byte) (ocispec.Index, error) {
	var index ocispec.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return ocispec.Index{}, fmt.Errorf("parsing %s: %w", indexFile, err)
	}
	return index, nil
}

func formatLayoutIndex(index ocispec.Index) ([]byte, error) {
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

func (l *layout) resolve(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, error) {
	index, err := l.files.index()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := ocispec.Descriptor{Digest: digest.Digest(tagOrDigest)}
	if !reference.ValidDigest(desc.Digest) {
		i := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Annotations[ocispec.AnnotationRefName] == tagOrDigest })
		if i < 0 {
			return ocispec.Descriptor{}, fmt.Errorf("resolving %s: %w", tagOrDigest, ErrNotFound)
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
	if size > MaxManifest {
		return ocispec.Descriptor{}, fmt.Errorf("resolving %s: a manifest of %d bytes, over the limit of %d", tagOrDigest, size, MaxManifest)
	}
	content, err := oci.ReadVerified(io.NewSectionReader(blob, 0, size), ocispec.Descriptor{Digest: desc.Digest, Size: size})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("resolving %s: %w", tagOrDigest, err)
	}
	l.stats.Fetched.Add(size)
	found := ocispec.Descriptor{MediaType: oci.ManifestType(content, desc.MediaType), Digest: desc.Digest, Size: size}
	if !IsManifest(found.MediaType) {
		return ocispec.Descriptor{}, fmt.Errorf("resolving %s: media type %q is not that of a manifest", tagOrDigest, redact.Line(found.MediaType))
	}
	return found, nil
}

func (l *layout) manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	rc, err := l.fetchRange(ctx, desc, 0, desc.Size)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return oci.ReadVerified(rc, desc)
}

func (l *layout) fetchRange(ctx context.Context, desc ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	blob, err := l.files.open(desc.Digest)
	if err != nil {
		return nil, fmt.Errorf("reading blob %s: %w", desc.Digest, err)
	}
	if blob.Size() != desc.Size {
		blob.Close()
		return nil, fmt.Errorf("%w: %s has %d bytes in the layout, not %d", ErrDigestMismatch, desc.Digest, blob.Size(), desc.Size)
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

// exists reports whether the blob is there, with the bytes that it is named by. A registry has looked at these when it took them. In a
// layout nobody has: whoever can write to it can put anything under a name, and disks fail. So they are hashed, once in a process.
func (l *layout) exists(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	blob, err := l.files.open(desc.Digest)
	if errors.Is(err, ErrNotFound) {
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
	if errors.Is(err, ErrDigestMismatch) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading blob %s: %w", desc.Digest, err)
	}
	l.stats.Fetched.Add(desc.Size)
	l.Verified(desc)
	return true, nil
}

// A soundBlob is a key of layout.sound.
type soundBlob struct {
	digest digest.Digest
	size   int64
}

// Verified notes that the bytes of a blob were read, and are those of its digest.
func (l *layout) Verified(desc ocispec.Descriptor) {
	l.sound.Store(soundBlob{desc.Digest, desc.Size}, true)
}

func (l *layout) isSound(desc ocispec.Descriptor) bool {
	_, ok := l.sound.Load(soundBlob{desc.Digest, desc.Size})
	return ok
}

func (l *layout) pushBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	if there, err := l.exists(ctx, desc); err != nil || there {
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

func (l *layout) mount(context.Context, ocispec.Descriptor, string) (bool, error) { return false, nil }

// pushManifest lists the manifest in index.json at once, without a name, as a registry keeps what was pushed by digest.
func (l *layout) pushManifest(ctx context.Context, desc ocispec.Descriptor, content []byte) error {
	if err := l.missingBlobs(ctx, desc, content); err != nil {
		return err
	}
	if err := l.pushBlob(ctx, desc, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }); err != nil {
		return err
	}
	if _, err := l.manifest(ctx, desc); err != nil {
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
func (l *layout) missingBlobs(ctx context.Context, desc ocispec.Descriptor, content []byte) error {
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
				there[i], err = l.exists(gctx, d)
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

func (l *layout) tag(ctx context.Context, desc ocispec.Descriptor, tag string) error {
	content, err := l.manifest(ctx, desc)
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

func (l *layout) tags(context.Context) ([]string, error) {
	index, err := l.files.index()
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, d := range index.Manifests {
		if t := d.Annotations[ocispec.AnnotationRefName]; ValidTag(t) {
			tags = append(tags, t)
		}
	}
	return tags, nil
}

func (l *layout) pushReferrer(ctx context.Context, _, desc ocispec.Descriptor, content []byte) error {
	return l.pushManifest(ctx, desc, content)
}

func (l *layout) close() error { return l.files.close() }

// dirFiles is a layout in a directory.
//
// A kill at any moment leaves a valid layout: blobs, oci-layout and index.json appear by rename, each after what it needs.
// Processes that change index.json at the same time take turns.
type dirFiles struct {
	dir   string
	ready atomic.Bool // prepare has succeeded
}

func openLayout(dir string, s *oci.Stats) (backend, error) {
	f := &dirFiles{dir: dir}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("opening layout: %w", err)
	case !info.IsDir():
		return nil, fmt.Errorf("opening layout: %s is not a directory", dir)
	default:
		if err := f.check(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("opening layout %s: %w", dir, err)
		}
	}
	return &layout{files: f, stats: s}, nil
}

func (f *dirFiles) path(name string) string { return filepath.Join(f.dir, filepath.FromSlash(name)) }

func (f *dirFiles) blob(d digest.Digest) string { return f.path(blobsDir + "/" + d.Encoded()) }

// check says whether the directory is a layout; fs.ErrNotExist: it has no oci-layout.
func (f *dirFiles) check() error {
	b, err := own.ReadAny(f.path(layoutFile), 4096)
	if err != nil {
		return err
	}
	return checkLayoutFile(b)
}

// prepare makes the directory a layout.
func (f *dirFiles) prepare(ctx context.Context) error {
	if f.ready.Load() {
		return nil
	}
	if err := f.check(); errors.Is(err, fs.ErrNotExist) {
		// Only an empty directory becomes one; what a killed prepare has left is as good as nothing.
		entries, err := os.ReadDir(f.dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, e := range entries {
			if n := e.Name(); n != "blobs" && n != indexFile && n != layoutFile && n != lockName && !wholefile.IsTemp(n) {
				return fmt.Errorf("%s is neither empty nor an OCI layout", f.dir)
			}
		}
	} else if err != nil {
		return err
	}
	if err := mayWriteTo(f.dir); err != nil {
		return err
	}
	// The user has named the folder, and nothing in it: no link of others that is there is followed, whoever's folder it lies in.
	for _, dir := range []string{"blobs", blobsDir} {
		if _, err := own.Resolve(f.path(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if _, err := own.MkdirAll(f.path(blobsDir), 0o777); err != nil {
		return err
	}
	wholefile.Sweep(f.dir)
	if !exists(f.path(layoutFile)) {
		if err := wholefile.Replace(f.path(layoutFile), []byte(layoutContent), 0o666); err != nil {
			return err
		}
	}
	// A layout without index.json is not one: it is made at once and not with the first manifest.
	if !exists(f.path(indexFile)) {
		if err := f.update(ctx, func(*ocispec.Index) {}); err != nil {
			return err
		}
	}
	f.ready.Store(true)
	return nil
}

func (f *dirFiles) index() (ocispec.Index, error) {
	b, err := own.ReadAny(f.path(indexFile), maxLayoutIndex)
	if errors.Is(err, fs.ErrNotExist) {
		return ocispec.Index{}, nil
	}
	if err != nil {
		return ocispec.Index{}, err
	}
	return parseLayoutIndex(b)
}

// lockName is the file that is there while index.json is changed.
const lockName = ".davit-lock"

func (f *dirFiles) update(ctx context.Context, change func(*ocispec.Index)) error {
	if err := mayWriteTo(f.dir); err != nil {
		return err
	}
	release, err := wholefile.Lock(ctx, f.path(lockName))
	if err != nil {
		return err
	}
	defer release()
	index, err := f.index()
	if err != nil {
		return err
	}
	change(&index)
	b, err := formatLayoutIndex(index)
	if err != nil {
		return err
	}
	if old, err := own.ReadAny(f.path(indexFile), maxLayoutIndex); err == nil && bytes.Equal(old, b) {
		return nil
	}
	return wholefile.Replace(f.path(indexFile), b, 0o666)
}

func (f *dirFiles) open(d digest.Digest) (layoutBlob, error) { return openBlobFile(f.blob(d)) }

func (f *dirFiles) put(ctx context.Context, desc ocispec.Descriptor, content io.Reader) error {
	if err := f.prepare(ctx); err != nil {
		return err
	}
	p, err := wholefile.CreateTemp(f.dir, 0o666)
	if err != nil {
		return err
	}
	defer p.Close()
	if err := oci.CopyVerified(ctx, p, content, desc); err != nil {
		return err
	}
	return p.Commit(f.blob(desc.Digest))
}

func (f *dirFiles) close() error { return nil }

// A blobFile is an open file and the size it had then.
type blobFile struct {
	*os.File
	size int64
}

func (b blobFile) Size() int64 { return b.size }

func openBlobFile(path string) (layoutBlob, error) {
	file, err := own.OpenAny(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, err
	}
	return blobFile{file, info.Size()}, nil
}

// mayWriteTo returns an error if the path of a folder leads through a link of another user. The folder need not exist.
func mayWriteTo(dir string) error {
	_, err := own.Resolve(dir + string(filepath.Separator))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
