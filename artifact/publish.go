package artifact

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Pusher stores blobs and manifests. Push is called concurrently. What is
// there already is no error. The stores of oras-go have this method; those that
// return an error for what is there need a wrapper.
type Pusher interface {
	Push(ctx context.Context, desc ocispec.Descriptor, content io.Reader) error
}

// A BlobPusher is a Pusher that may read a blob again, from its start, after a
// transfer broke. open is called once for each try.
type BlobPusher interface {
	PushBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error
}

// A Target is where an artifact is published, such as a repository.
type Target interface {
	Fetcher
	Pusher
}

// Content is what [Publish] makes an artifact of.
type Content struct {
	OVF    []byte  // describes the machine; its Disk elements are in the order of Packed.Disks
	Packed *Packed // the disks; nil is a machine without disks

	// Files of the package, as [PushFile] returned them, in the order of the
	// OVF's References.
	Files []ocispec.Descriptor

	// Originals are what is needed to build the source's package again: blobs of
	// [TypeOriginalPart], then one of [TypeOriginal]. They must have been pushed.
	Originals []ocispec.Descriptor

	Annotations map[string]string // of the manifest; those below replace them
	Created     time.Time         // zero: not noted
	Platform    string            // OS/ARCH[/VARIANT]; empty: not noted
	Unverified  bool              // the digests of the source's package were not enforced
	Base        BaseImage         // zero: not noted

	// Gitlab asks for the form that GitLab's registry accepts; see [Manifest].
	Gitlab bool
}

// A BaseImage is the artifact that another one was made from.
type BaseImage struct {
	Name   string
	Digest digest.Digest
}

// Publish pushes what [Pack] and [PushFile] have left to do, which is the OVF and
// the manifest, and returns the manifest's descriptor. Nothing names the artifact
// yet: the caller signs it, then tags it.
//
// The manifest comes after all of its blobs, and only if [ParseManifest] takes
// it. It is then read back, and is a [RefusedError] if it is not the same.
func Publish(ctx context.Context, t Target, c Content) (ocispec.Descriptor, error) {
	m := c.manifest()
	raw, err := m.Encode()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	desc := descriptorOf(ocispec.MediaTypeImageManifest, raw)
	if err := acceptable(raw, desc, m); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("the manifest would be refused: %w", err)
	}
	for _, b := range m.ownBlobs(c.OVF) {
		if err := pushBlob(ctx, t, b.desc, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.data)), nil }); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if err := t.Push(ctx, desc, bytes.NewReader(raw)); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("pushing the manifest: %w", err)
	}
	if _, err := fetchAll(ctx, t, PartManifest, desc, MaxManifest); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("reading the manifest back: %w", err)
	}
	return desc, nil
}

func (c *Content) manifest() *Manifest {
	m := &Manifest{
		OVF:         descriptorOf(TypeOVF, c.OVF),
		Files:       c.Files,
		Originals:   c.Originals,
		Annotations: c.annotations(),
		Gitlab:      c.Gitlab,
	}
	if c.Packed != nil {
		m.Disks, m.Layers = c.Packed.Disks, c.Packed.Layers
	}
	return m
}

// annotations returns nil if there are none.
func (c *Content) annotations() map[string]string {
	m := maps.Clone(c.Annotations)
	set := func(key, value string) {
		if m == nil {
			m = make(map[string]string)
		}
		m[key] = value
	}
	if !c.Created.IsZero() {
		set(ocispec.AnnotationCreated, c.Created.UTC().Format(time.RFC3339))
	}
	if c.Platform != "" {
		set(AnnotationPlatform, c.Platform)
	}
	if c.Unverified {
		set(AnnotationUnverified, "true")
	}
	if c.Base != (BaseImage{}) {
		set(ocispec.AnnotationBaseImageName, c.Base.Name)
		set(ocispec.AnnotationBaseImageDigest, string(c.Base.Digest))
	}
	return m
}

// acceptable reads a manifest as everybody will, and looks whether they find what
// went into it where it belongs: files of another type would be something else.
func acceptable(raw []byte, desc ocispec.Descriptor, m *Manifest) error {
	read, err := ParseManifest(raw, desc)
	if err != nil {
		return err
	}
	if len(read.Files) != len(m.Files) {
		return errors.New("a package file has a type that no package file has")
	}
	if len(read.Originals) != len(m.Originals) {
		return errors.New("a part of the original has a type that no part has")
	}
	return nil
}

type ownBlob struct {
	desc ocispec.Descriptor
	data []byte
}

// ownBlobs are the blobs that the manifest names and that are neither disks nor
// files: what [Manifest.Encode] makes config and layers of.
func (m *Manifest) ownBlobs(ovf []byte) []ownBlob {
	blobs := []ownBlob{{m.OVF, ovf}}
	if m.Gitlab {
		blobs = append(blobs, ownBlob{descriptorOf(ocispec.MediaTypeImageConfig, gitlabConfig), gitlabConfig})
	}
	if m.withoutLayers() {
		blobs = append(blobs, ownBlob{emptyJSON, emptyJSON.Data})
	}
	return blobs
}

// A File is a file that an artifact has as it is.
type File struct {
	Type    string // [TypeFile], [TypeNVRAM], [TypeOVFManifest] or [TypeOVFCert]
	Name    string // relative to the folder of the OVF, with slashes
	Content interface {
		io.ReaderAt
		Size() int64
	}
}

// PushFile pushes a file of the source's package, and returns what
// [Content.Files] wants of it. The file is read twice, and must not change
// meanwhile.
func PushFile(ctx context.Context, p Pusher, f File) (ocispec.Descriptor, error) {
	size := f.Content.Size()
	h := sha256.New()
	if _, err := io.Copy(h, contextReader{ctx, io.NewSectionReader(f.Content, 0, size)}); err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("reading %s: %w", f.Name, err)
	}
	desc := ocispec.Descriptor{
		MediaType:   f.Type,
		Digest:      Digest(sumOf(h)),
		Size:        size,
		Annotations: map[string]string{ocispec.AnnotationTitle: f.Name},
	}
	err := pushBlob(ctx, p, desc, func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(f.Content, 0, size)), nil })
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("pushing %s: %w", f.Name, err)
	}
	return desc, nil
}

// A contextReader ends when ctx does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(b)
}

func pushBlob(ctx context.Context, p Pusher, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	if b, ok := p.(BlobPusher); ok {
		return b.PushBlob(ctx, desc, open)
	}
	rc, err := open()
	if err != nil {
		return err
	}
	defer rc.Close()
	return p.Push(ctx, desc, rc)
}

// A DryRun is a [Target] that takes everything and keeps only the manifest, which
// [Publish] reads back. The zero value is ready to use.
type DryRun struct{ manifest []byte }

// Push implements [Pusher].
func (d *DryRun) Push(_ context.Context, desc ocispec.Descriptor, content io.Reader) (err error) {
	if desc.MediaType == ocispec.MediaTypeImageManifest {
		d.manifest, err = io.ReadAll(content)
	}
	return err
}

// PushBlob implements [BlobPusher]. It does not open the blob.
func (d *DryRun) PushBlob(context.Context, ocispec.Descriptor, func() (io.ReadCloser, error)) error {
	return nil
}

// Fetch implements [Fetcher], of the manifest alone.
func (d *DryRun) Fetch(context.Context, ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(d.manifest)), nil
}
