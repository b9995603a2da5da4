package remote_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/registry/internal/registrytest"
)

// The tests use package registry, as programs do.
type (
	Options     = registry.Options
	HostOptions = registry.HostOptions
	Reference   = registry.Reference
	Repository  = registry.Repository
)

var (
	Open           = registry.Open
	ParseReference = registry.ParseReference

	ErrNotFound           = registry.ErrNotFound
	ErrUnauthorized       = registry.ErrUnauthorized
	ErrDigestMismatch     = registry.ErrDigestMismatch
	ErrIncomplete         = registry.ErrIncomplete
	ErrMalformedReference = registry.ErrMalformedReference
)

var (
	olaregHost = registrytest.OlaregHost
	newOlareg  = registrytest.NewOlareg
	open       = registrytest.Open
	describe   = registrytest.Describe
	noise      = registrytest.Noise
	pushBytes  = registrytest.Push
	artifact   = registrytest.Artifact
	readAll    = registrytest.ReadAll
)

const blobType = registrytest.BlobType

const testDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestMain(m *testing.M) {
	registrytest.Main(m, map[string]func(context.Context, string) error{"resolve": childResolve})
}

// childResolve resolves a reference by plain HTTP.
func childResolve(ctx context.Context, name string) error {
	ref, err := ParseReference(name)
	if err != nil {
		return err
	}
	r, err := Open(ctx, ref, Options{PlainHTTP: []string{"*"}})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = r.Resolve(ctx, "")
	if errors.Is(err, ErrNotFound) {
		fmt.Fprint(os.Stdout, "not found")
		return nil
	}
	return err
}
