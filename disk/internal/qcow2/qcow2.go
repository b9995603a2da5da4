// Package qcow2 will read and write QEMU's qcow2 images.
package qcow2

import (
	"io"
	"iter"
	"os"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

type Options struct {
	Snapshot string
	Backing  func(name, format string) (virtual.Reader, error)
}

type Compression uint8

const (
	Zlib Compression = 0
	Zstd Compression = 1
)

type stub interface {
	io.WriterAt
	io.Closer
}

func Open(r virtual.Reader, o Options) (virtual.Reader, error) {
	return nil, virtual.Unsupported("format qcow2 (not yet)")
}

func NewWriter(f *os.File, size int64, data iter.Seq2[virtual.Extent, error]) (stub, error) {
	return nil, virtual.Unsupported("format qcow2 (not yet)")
}

func NewCompressor(f *os.File, size int64, c Compression, jobs int) (stub, error) {
	return nil, virtual.Unsupported("format qcow2 (not yet)")
}
