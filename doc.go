// Package davit carries virtual machine images through OCI registries.
//
//	push   image files ─▶ machine (OVF, disks) ─▶ disk.Reader ─▶ chunks ─▶ layers + index ─▶ manifest ─▶ signature ─▶ tag
//	pull   tag ─▶ digest ─▶ verified signature ─▶ index ─▶ missing chunks only ─▶ verified chunks ─▶ disk writer ─▶ file
//
// A [disk.Reader] is where everything meets: a qcow2 file, an artifact in a
// registry and a byte slice are Readers. docs/architecture.md has each package in a
// sentence and says where to add things. docs/library.md shows programs that use
// the packages. docs/spec.md is the format of the artifact, docs/design.md says why
// it is so.
//
// This package has no code yet. The steps of push and pull, in their order, are
// runPush and runPull in cmd/davit.
//
// [disk.Reader]: https://pkg.go.dev/github.com/davit-oci/davit/disk#Reader
package davit
