// Package davit carries virtual machine images through OCI registries.
//
//	push   image files ─▶ machine (OVF, disks) ─▶ disk.Reader ─▶ chunks ─▶ layers + index ─▶ manifest ─▶ signature ─▶ tag
//	pull   tag ─▶ digest ─▶ verified signature ─▶ index ─▶ missing chunks only ─▶ verified chunks ─▶ disk writer ─▶ file
//
// [disk.Reader] is the waist of the hourglass: a qcow2 file, an artifact in a
// registry and a byte slice all are one. Start reading at cmd/davit/push.go
// and cmd/davit/pull.go; they are the two lines above. Then follow the folder
// names: disk, chunker, artifact, registry, store, sign, verify. docs/spec.md is the
// format of the artifact, docs/design.md says why it is so.
//
// This package has no code.
package davit
