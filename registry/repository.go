package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/davit-oci/davit/registry/internal/layout"
	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/reference"
	"github.com/davit-oci/davit/registry/internal/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options say how a registry is reached. The zero value is right for most.
type Options struct {
	// PlainHTTP are the hosts (HOST[:PORT]) spoken to without TLS; "*" is every host. A loopback host is tried with TLS first and
	// without it if it does not speak TLS.
	PlainHTTP []string
	// Insecure are the hosts whose certificates are not checked; "*" is every host.
	Insecure []string
	// CAFile is a file of PEM certificates that are trusted in addition to the system's.
	CAFile string
	// Hosts are settings of single hosts, by HOST[:PORT].
	Hosts map[string]HostOptions

	// AuthFile is the first file in which credentials are looked up; see [Login] for the others.
	AuthFile string
	// OnLogin is called with each password and token that is looked up and the user name beside it, which are sent and stored together, so
	// that the caller can keep them out of messages; nil: never. Either can be "".
	OnLogin func(user, secret string)

	// Jobs is the number of connections that are kept open to a host; default 8.
	Jobs int
	// IdleTimeout ends a request on which no byte moves for so long; default 60 s. There is no limit on the whole of a transfer.
	IdleTimeout time.Duration
	// Retries is how often something is tried again that failed for reasons that may pass; default 5, negative: never.
	Retries int
	// Backoff is the wait before the first retry, doubled for each one after it; default 250 ms.
	Backoff time.Duration
	// UserAgent defaults to "davit".
	UserAgent string
}

// HostOptions are settings of one host. What is in Options counts as well.
type HostOptions struct {
	PlainHTTP  bool
	Insecure   bool
	CAFile     string
	ClientCert string // PEM file with certificate and, if ClientKey is empty, key
	ClientKey  string // PEM file with the key
	// TokenServices (HOST[:PORT]) get the host's credentials though they are not of its domain. Those that are need not be named.
	TokenServices []string
	// Mirrors (HOST[:PORT][/PATH]) are asked first, in order, for what is named by a digest; tags are always the registry's own. They
	// need no trust beyond that: what they get wrong is refused like any other content. Their own settings are in Hosts too.
	Mirrors []string
}

func (o Options) remote() remote.Options {
	hosts := make(map[string]remote.HostOptions, len(o.Hosts))
	for host, h := range o.Hosts {
		hosts[host] = remote.HostOptions(h)
	}
	return remote.Options{
		PlainHTTP:   o.PlainHTTP,
		Insecure:    o.Insecure,
		CAFile:      o.CAFile,
		Hosts:       hosts,
		AuthFile:    o.AuthFile,
		OnLogin:     o.OnLogin,
		Jobs:        o.Jobs,
		IdleTimeout: o.IdleTimeout,
		Retries:     o.Retries,
		Backoff:     o.Backoff,
		UserAgent:   o.UserAgent,
	}
}

// MaxManifest is the size in bytes over which manifests, indexes and referrer lists are refused: the limit that the distribution spec
// asks of registries. It bounds what a registry can make us hold in memory.
const MaxManifest = oci.MaxManifest

// What [Repository.Push] keeps of a blob in memory: one that can be read twice only if it is small, any other up to a limit.
const (
	maxPushSmall  = 1 << 20
	maxPushMemory = 32 << 20
)

// A backend is what differs between a registry, a layout and an archive. Descriptors it gets have been checked by oci.Check.
type backend interface {
	Resolve(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, error) // of a manifest
	Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error)       // verified
	FetchRange(ctx context.Context, desc ocispec.Descriptor, off, n int64) (io.ReadCloser, error)
	Exists(ctx context.Context, desc ocispec.Descriptor) (bool, error)

	PushManifest(ctx context.Context, desc ocispec.Descriptor, content []byte) error
	PushBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error
	Mount(ctx context.Context, desc ocispec.Descriptor, from string) (bool, error)

	Tag(ctx context.Context, desc ocispec.Descriptor, tag string) error
	Tags(ctx context.Context) ([]string, error)
	Referrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) // places to look, also beside an error
	PushReferrer(ctx context.Context, subject, desc ocispec.Descriptor, content []byte) error

	Close() error
}

// A Repository is a place for manifests and blobs: a repository of a registry, an image layout, or an archive of one.
// It is safe for concurrent use.
type Repository struct {
	ref     Reference
	backend backend
	stats   *oci.Stats
}

// Open prepares access to the repository that ref is in; its tag and digest are what [Repository.Resolve] takes for "".
// A registry is not contacted yet. A layout or an archive need not exist: the first write makes it.
// The caller must call Close, which writes an archive; it fails, and changes nothing, if ctx has ended.
func Open(ctx context.Context, ref Reference, o Options) (*Repository, error) {
	r := &Repository{ref: ref, stats: new(oci.Stats)}
	var err error
	switch ref.Kind {
	case Remote:
		r.backend, err = remote.Open(ref.Host, ref.Repository, o.remote(), r.stats)
	case Layout:
		r.backend, err = layout.OpenDir(ref.Path, r.stats)
	case Archive:
		r.backend, err = layout.OpenArchive(ctx, ref.Path, r.stats)
	default:
		err = fmt.Errorf("opening %s: unknown kind of reference", ref)
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// Reference is the one that the repository was opened by.
func (r *Repository) Reference() Reference { return r.ref }

// Resolve finds the manifest of a tag, a digest, or TAG@DIGEST; "" stands for what the reference given to [Open] says, "latest" if
// it says nothing. The manifest has been fetched and its digest computed here, not read from a header. Where a tag and a digest are
// given and disagree, the error is an [ErrDigestMismatch]; where there is none, [ErrNotFound].
func (r *Repository) Resolve(ctx context.Context, name string) (ocispec.Descriptor, error) {
	tag, want := r.ref.TagOrLatest(), r.ref.Digest
	if name != "" {
		rest, d, ok := cutDigest(name, Remote)
		switch {
		case ok:
			tag, want = rest, digest.Digest(d)
		case anyDigestPattern.MatchString(name):
			tag, want = "", digest.Digest(name)
		default:
			tag, want = name, ""
		}
	}
	if tag != "" && !ValidTag(tag) || want != "" && !reference.ValidDigest(want) {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %.200q is neither tag nor digest", ErrMalformedReference, name)
	}
	if tag == "" {
		return r.backend.Resolve(ctx, string(want))
	}
	desc, err := r.backend.Resolve(ctx, tag)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if want != "" && desc.Digest != want {
		return ocispec.Descriptor{}, fmt.Errorf("%w: %s:%s is %s, not %s", ErrDigestMismatch, r.ref.Name(), tag, desc.Digest, want)
	}
	return desc, nil
}

// Manifest is the content of a manifest or index, of at most [MaxManifest] bytes, verified.
func (r *Repository) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if err := oci.CheckManifest(desc); err != nil {
		return nil, err
	}
	return r.backend.Manifest(ctx, desc)
}

// Fetch reads a manifest or a blob whole. A manifest is verified before Fetch returns; a blob while it is read: the Read that would
// give io.EOF gives an [ErrDigestMismatch] instead if the bytes were not those of desc. A broken transfer is resumed. The caller
// closes the reader.
func (r *Repository) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if IsManifest(desc.MediaType) {
		b, err := r.Manifest(ctx, desc)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	if err := oci.Check(desc); err != nil {
		return nil, err
	}
	rc, err := r.backend.FetchRange(ctx, desc, 0, desc.Size)
	if err != nil {
		return nil, err
	}
	var verified func()
	if b, ok := r.backend.(interface{ Verified(ocispec.Descriptor) }); ok {
		verified = func() { b.Verified(desc) }
	}
	return oci.NewVerifier(rc, desc, verified), nil
}

// FetchRange reads n bytes of a blob from offset off. The bytes are unverified: whoever calls must know a digest for just them and
// check it before using them. A broken transfer is resumed where it stopped; fewer than n bytes never end in io.EOF. A blob that the
// registry says has another size than desc is an [ErrDigestMismatch]. The caller closes the reader.
func (r *Repository) FetchRange(ctx context.Context, desc ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	if err := oci.Check(desc); err != nil {
		return nil, err
	}
	if off < 0 || n < 0 || n > desc.Size || off > desc.Size-n {
		return nil, fmt.Errorf("fetching %d bytes at %d of %s: it has %d", n, off, desc.Digest, desc.Size)
	}
	return r.backend.FetchRange(ctx, desc, off, n)
}

// Exists reports whether the manifest or blob is there. Of a registry, its word is all that this rests on; in a layout or an archive the bytes
// are hashed.
func (r *Repository) Exists(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if err := oci.Check(desc); err != nil {
		return false, err
	}
	return r.backend.Exists(ctx, desc)
}

// Push writes a manifest by its digest, or a blob. A manifest is read back after it was written; if the registry misses a blob that it
// names, the error is an [ErrManifestBlobUnknown]. A blob of more than 1 MiB is read from content as often as need be if that is an
// io.ReadSeeker, from its start; otherwise it is kept in memory and must not have more than 32 MiB. Content that does not match desc is
// an [ErrDigestMismatch], or what [Repository.PushBlob] says.
func (r *Repository) Push(ctx context.Context, desc ocispec.Descriptor, content io.Reader) error {
	if IsManifest(desc.MediaType) {
		if err := oci.CheckManifest(desc); err != nil {
			return err
		}
		b, err := oci.ReadVerified(content, desc)
		if err != nil {
			return err
		}
		return r.backend.PushManifest(ctx, desc, b)
	}
	if s, ok := content.(io.ReadSeeker); ok && desc.Size > maxPushSmall {
		return r.PushBlob(ctx, desc, func() (io.ReadCloser, error) {
			_, err := s.Seek(0, io.SeekStart)
			return io.NopCloser(s), err
		})
	}
	if desc.Size > maxPushMemory {
		return fmt.Errorf("pushing %s: %d bytes are more than is kept in memory", desc.Digest, desc.Size)
	}
	if err := oci.Check(desc); err != nil {
		return err
	}
	b, err := oci.ReadVerified(content, desc)
	if err != nil {
		return err
	}
	return r.backend.PushBlob(ctx, desc, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil })
}

// PushBlob writes a blob unless it is there. open gives its content from the start and is called once per try; the readers are not
// used at the same time. Its errors are returned as they are and nothing is tried again after one.
func (r *Repository) PushBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	if err := oci.Check(desc); err != nil {
		return err
	}
	return r.backend.PushBlob(ctx, desc, open)
}

// Mount makes a blob of another repository of the same registry appear in this one. False without an error: the registry does not do
// that (or there is no registry), and the blob has to be pushed.
func (r *Repository) Mount(ctx context.Context, desc ocispec.Descriptor, fromRepository string) (bool, error) {
	if err := oci.Check(desc); err != nil {
		return false, err
	}
	if !reference.ValidRepository(fromRepository) {
		return false, fmt.Errorf("%w: %.200q is no repository", ErrMalformedReference, fromRepository)
	}
	return r.backend.Mount(ctx, desc, fromRepository)
}

// Tag lets tag name the manifest desc, which must have been pushed.
func (r *Repository) Tag(ctx context.Context, desc ocispec.Descriptor, tag string) error {
	if err := oci.CheckManifest(desc); err != nil {
		return err
	}
	if !ValidTag(tag) {
		return fmt.Errorf("%w: %.200q is no tag", ErrMalformedReference, tag)
	}
	return r.backend.Tag(ctx, desc, tag)
}

// Tags are those of the repository in natural order ([SortTags]), without the ones that tools make for signatures and referrers.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	all, err := r.backend.Tags(ctx)
	if err != nil {
		return nil, err
	}
	tags := slices.DeleteFunc(all, toolTag)
	SortTags(tags)
	return slices.Compact(tags), nil
}

// PushReferrer pushes a manifest that has a subject, by digest, so that [Repository.Referrers] of that subject finds it; desc is its
// own descriptor, and its blobs must have been pushed. On a registry without the referrers API it also gets a tag and an entry in the
// index of the tag schema, as the distribution spec says ("Pushing Manifests with Subject").
func (r *Repository) PushReferrer(ctx context.Context, desc ocispec.Descriptor, manifest []byte) error {
	if err := oci.CheckManifest(desc); err != nil {
		return err
	}
	if err := oci.Verify(manifest, desc); err != nil {
		return err
	}
	m, err := oci.ParseReferrer(manifest)
	if err != nil {
		return fmt.Errorf("pushing referrer %s: %w", desc.Digest, err)
	}
	if m.Subject == nil || oci.CheckManifest(*m.Subject) != nil {
		return fmt.Errorf("pushing referrer %s: it has no subject", desc.Digest)
	}
	return r.backend.PushReferrer(ctx, *m.Subject, m.Describe(desc), manifest)
}

// Stats are the bytes of blobs and manifests that were sent, fetched and mounted so far, repetitions included. For layouts and
// archives: written, read, 0.
func (r *Repository) Stats() (sent, fetched, mounted int64) {
	return r.stats.Sent.Load(), r.stats.Fetched.Load(), r.stats.Mounted.Load()
}

// Close releases connections and files. For an archive that was changed it writes the new file, and only then does any of it show.
func (r *Repository) Close() error { return r.backend.Close() }

// IsManifest reports whether content of the media type is stored as a manifest rather than as a blob.
func IsManifest(mediaType string) bool { return oci.IsManifest(mediaType) }
