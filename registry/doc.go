// Package registry moves content-addressed bytes to and from OCI registries, image layouts and archives of layouts.
//
// [ParseReference] reads a name, [Open] gives a [Repository] for it, and the methods of the Repository are the same whatever is behind
// it:
//
//	ref, err := registry.ParseReference("registry.example.com/vm/debian:13")
//	repo, err := registry.Open(ctx, ref, registry.Options{})
//	defer repo.Close()
//	desc, err := repo.Resolve(ctx, "")
//	rc, err := repo.Fetch(ctx, desc)
//
// Nothing that a registry sends is believed: manifests are hashed before they are returned, whole blobs while they are read. Ranges of
// blobs cannot be checked here, since only the artifact format knows digests of parts; see [Repository.FetchRange].
//
// A Repository checks what it is given and hands it to a backend: internal/remote speaks the protocol, internal/layout reads and writes
// layouts and archives. internal/credentials knows where podman and docker keep passwords.
//
// The package does not know what an artifact is, whom to trust, or what an exit code is. Its errors are told apart with errors.Is:
// [ErrNotFound], [ErrUnauthorized], [ErrDigestMismatch], [ErrManifestBlobUnknown] and [ErrMalformedReference].
package registry
