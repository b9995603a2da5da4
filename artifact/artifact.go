// Package artifact turns the content of disks into the blobs of an OCI
// artifact and back: the format of docs/spec.md.
//
// To write one, [Pack] cuts disks into chunks, puts the new ones into layers
// and says in an index per disk where every byte is; [Publish] ties them together
// in a manifest. To read one, [Open] takes what package verify has let through
// and checks the manifest and the indexes; every [Disk] of the [Image] is then a
// reader of its content, and [Disk.Restore] writes it to a file, fetching only
// what is not there yet.
//
// Whatever is read is hashed before it is believed: manifest, index, page,
// layer directory, frame, chunk, in this order. Content that is not what a
// digest or the format says is a [RefusedError].
//
// The package knows no registry: blobs come from a [Fetcher] and go to a
// [Pusher]. It does not check signatures either: only package verify makes the
// subject that Open takes, and no other package can.
package artifact

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-oci/davit/internal/fetch"
)

// The media types of version 1. A layer's codec is the suffix of its type.
const (
	TypeArtifact    = "application/vnd.davit.vm.v1"
	TypeOVF         = "application/vnd.davit.ovf.v1+xml"
	TypeIndex       = "application/vnd.davit.disk.index.v1"
	TypeLayer       = "application/vnd.davit.disk.layer.v1"
	TypeLayerZstd   = "application/vnd.davit.disk.layer.v1+zstd"
	TypeLayerXZ     = "application/vnd.davit.disk.layer.v1+xz"
	TypeOVFManifest = "application/vnd.davit.ovf.manifest.v1"
	TypeOVFCert     = "application/vnd.davit.ovf.certificate.v1+pem"
	TypeNVRAM       = "application/vnd.davit.nvram.v1"
	TypeFile        = "application/vnd.davit.file.v1"

	// What is needed to build the source's package again, byte for byte.
	TypeOriginal     = "application/vnd.davit.original.v1+json"
	TypeOriginalPart = "application/vnd.davit.original.part.v1"
)

// The annotations of version 1.
const (
	AnnotationName     = "vnd.davit.disk.name"
	AnnotationDigest   = "vnd.davit.disk.digest"
	AnnotationSize     = "vnd.davit.disk.size"
	AnnotationSector   = "vnd.davit.disk.sector"
	AnnotationHead     = "vnd.davit.index.head"
	AnnotationPlatform = "vnd.davit.platform"

	// AnnotationUnverified says that the digests of the source's package were
	// not enforced when it was pushed.
	AnnotationUnverified = "vnd.davit.package.unverified"
)

// ErrNewer is wrapped by errors about an artifact that is well-formed as far
// as it can be told, but needs a newer davit.
var ErrNewer = errors.New("needs a newer davit")

// ErrNotArtifact is wrapped by errors about a manifest that is something else
// than a machine image: a container image, a Helm chart.
var ErrNotArtifact = errors.New("not a davit artifact")

// The parts of an artifact that a [RefusedError] can be about.
const (
	PartManifest  = "manifest"
	PartConfig    = "config"
	PartIndex     = "index"
	PartPage      = "page"
	PartDisk      = "disk"
	PartFile      = "file"
	PartRegion    = "region"
	PartDirectory = "directory"
	PartFrame     = "frame"
	PartChunk     = "chunk"
	PartLayer     = "layer"
	PartBlob      = "blob" // of a type that is unknown here
)

// A RefusedError says that content is not what a digest or the format says it
// is. It is never a matter of trying again with the same bytes.
type RefusedError struct {
	Part  string // one of the Part constants
	Where string // which one, such as "3 of layer sha256:…"; may be empty
	Why   string

	kind error
}

func (e *RefusedError) Error() string {
	if e.Where == "" {
		return e.Part + ": " + e.Why
	}
	return e.Part + " " + e.Where + ": " + e.Why
}

// Unwrap makes errors.Is find the ErrDigestMismatch of packages registry and verify where a blob as a whole is not what its digest says.
func (e *RefusedError) Unwrap() error { return e.kind }

func refuse(part, where, why string, args ...any) error {
	return &RefusedError{Part: part, Where: where, Why: fmt.Sprintf(why, args...)}
}

// A Fetcher gives the blobs of a repository. The stores of oras-go are
// Fetchers. The bytes need not be checked; this package does.
type Fetcher interface {
	Fetch(ctx context.Context, target ocispec.Descriptor) (io.ReadCloser, error)
}

// A RangeFetcher is a Fetcher that can give n bytes of a blob from offset off.
// A Fetcher that is none is read from the start of the blob.
type RangeFetcher interface {
	FetchRange(ctx context.Context, target ocispec.Descriptor, off, n int64) (io.ReadCloser, error)
}

func fetchRange(ctx context.Context, src Fetcher, desc ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	if r, ok := src.(RangeFetcher); ok {
		return r.FetchRange(ctx, desc, off, n)
	}
	rc, err := src.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, rc, off); err != nil {
		rc.Close()
		return nil, fmt.Errorf("skipping to byte %d of %s: %w", off, desc.Digest, err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.LimitReader(rc, n), rc}, nil
}

// readRange returns n bytes of a blob from offset off, not checked.
func readRange(ctx context.Context, src Fetcher, desc ocispec.Descriptor, off, n int64) ([]byte, error) {
	rc, err := fetchRange(ctx, src, desc, off, n)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b := make([]byte, n)
	if _, err := io.ReadFull(rc, b); err != nil {
		return nil, fmt.Errorf("reading %d bytes at %d of %s: %w", n, off, desc.Digest, err)
	}
	return b, nil
}

// fetchAll returns a blob of at most limit bytes, checked against its descriptor.
func fetchAll(ctx context.Context, src Fetcher, part string, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	b, err := fetch.All(ctx, src, desc, limit)
	if f, ok := errors.AsType[*fetch.Fault](err); ok {
		return nil, refuseFault(part, f)
	}
	return b, err
}

// checkBlob refuses b if it is not the content of desc.
func checkBlob(part string, desc ocispec.Descriptor, b []byte) error {
	if f, ok := errors.AsType[*fetch.Fault](fetch.Check(b, desc)); ok {
		return refuseFault(part, f)
	}
	return nil
}

// readError is what to say when reading a blob has failed: a refusal if its
// bytes are at fault.
func readError(part string, desc ocispec.Descriptor, err error) error {
	if f, ok := errors.AsType[*fetch.Fault](err); ok {
		return refuseFault(part, f)
	}
	return fmt.Errorf("reading %s: %w", desc.Digest, err)
}

// refuseFault makes a refusal of what package fetch finds wrong with a blob.
func refuseFault(part string, f *fetch.Fault) error {
	return &RefusedError{Part: part, Where: string(f.Digest), Why: f.Why, kind: f.Kind}
}

type sum = [sha256.Size]byte

func sumOf(h hash.Hash) (s sum) {
	h.Sum(s[:0])
	return s
}

// Digest returns the text form of a SHA-256 digest.
func Digest(s [sha256.Size]byte) digest.Digest {
	return digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(s[:]))
}

// parseDigest returns the bytes of a digest, which must be sha256 in lower-case hex.
func parseDigest(d digest.Digest) (s sum, ok bool) {
	const prefix = "sha256:"
	if len(d) != len(prefix)+2*len(s) || d[:len(prefix)] != prefix {
		return s, false
	}
	for _, c := range []byte(d[len(prefix):]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return s, false
		}
	}
	_, err := hex.Decode(s[:], []byte(d[len(prefix):]))
	return s, err == nil
}
