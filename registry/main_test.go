package registry_test

import (
	"testing"

	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/registry/internal/registrytest"
)

// The tests use package registry, as programs do.
type (
	Options = registry.Options
)

var (
	Open           = registry.Open
	ParseReference = registry.ParseReference

	ErrNotFound            = registry.ErrNotFound
	ErrDigestMismatch      = registry.ErrDigestMismatch
	ErrManifestBlobUnknown = registry.ErrManifestBlobUnknown
)

var (
	newName      = registrytest.NewName
	olaregHost   = registrytest.OlaregHost
	registryHost = registrytest.Host
	open         = registrytest.Open
	describe     = registrytest.Describe
	noise        = registrytest.Noise
	pushBytes    = registrytest.Push
	artifact     = registrytest.Artifact
	readAll      = registrytest.ReadAll
)

const blobType = registrytest.BlobType

func TestMain(m *testing.M) { registrytest.Main(m, nil) }
