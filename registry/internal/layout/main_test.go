package layout_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/registry/internal/registrytest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The tests use package registry, as programs do.
type (
	Options    = registry.Options
	Reference  = registry.Reference
	Repository = registry.Repository
)

var (
	Open           = registry.Open
	ParseReference = registry.ParseReference

	ErrNotFound       = registry.ErrNotFound
	ErrDigestMismatch = registry.ErrDigestMismatch
)

var (
	open      = registrytest.Open
	describe  = registrytest.Describe
	noise     = registrytest.Noise
	pushBytes = registrytest.Push
	artifact  = registrytest.Artifact
	readAll   = registrytest.ReadAll
)

const blobType = registrytest.BlobType

const (
	layoutFile    = ocispec.ImageLayoutFile
	layoutContent = `{"imageLayoutVersion":"1.0.0"}`
	indexFile     = ocispec.ImageIndexFile
	blobsDir      = "blobs/sha256"
	lockName      = ".davit-lock"
)

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestMain(m *testing.M) {
	registrytest.Main(m, map[string]func(context.Context, string) error{"push": childPush})
}

// childPush pushes artifact after artifact until it is killed, and says the tag of each one that is done.
func childPush(ctx context.Context, name string) error {
	ref, err := ParseReference(name)
	if err != nil {
		return err
	}
	for i := range 1000 {
		r, err := Open(ctx, ref, Options{})
		if err != nil {
			return err
		}
		blob := noise(uint64(os.Getpid()*1000+i), 300<<10)
		config := []byte("{}")
		if err := r.Push(ctx, describe(ocispec.MediaTypeEmptyJSON, config), bytes.NewReader(config)); err != nil {
			return err
		}
		layer := describe(blobType, blob)
		if err := r.PushBlob(ctx, layer, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil }); err != nil {
			return err
		}
		m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
			ocispec.MediaTypeImageManifest, ocispec.MediaTypeEmptyJSON, describe("", config).Digest, blobType, layer.Digest, layer.Size)
		desc := describe(ocispec.MediaTypeImageManifest, m)
		if err := r.Push(ctx, desc, bytes.NewReader(m)); err != nil {
			return err
		}
		tag := fmt.Sprintf("p%d-%d", os.Getpid(), i)
		if err := r.Tag(ctx, desc, tag); err != nil {
			return err
		}
		if err := r.Close(); err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, tag)
	}
	return nil
}
