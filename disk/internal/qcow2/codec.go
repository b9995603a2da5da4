package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/davit-oci/davit/disk/internal/inflate"
	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// A Compression is the compression type of an image.
type Compression uint8

// The compression types of the specification.
const (
	Zlib Compression = 0 // in fact raw deflate
	Zstd Compression = 1
)

// A decompressor fills dst from what src begins with; src has rubbish behind
// it. It is safe for concurrent use.
type decompressor func(dst, src []byte) error

func newDecompressor(c Compression) (decompressor, error) {
	switch c {
	case Zlib:
		return newInflate(), nil
	case Zstd:
		return unzstd()
	}
	return nil, virtual.Unsupported("compression type %d", c)
}

func newInflate() decompressor {
	decoders := sync.Pool{New: func() any { return new(inflate.Decoder) }}
	return func(dst, src []byte) error {
		d := decoders.Get().(*inflate.Decoder)
		defer decoders.Put(d)
		n, err := d.Deflate(dst, src)
		if n == len(dst) {
			return nil // as in QEMU, which does not mind a stream that is longer
		}
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
}

func unzstd() (decompressor, error) {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(0), // one state per CPU
		zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true)) // dst never grows
	if err != nil {
		return nil, err
	}
	return func(dst, src []byte) error {
		// A cluster may be several frames, and only their own headers say
		// where the last one ends.
		out := dst[:0:len(dst)]
		for len(out) < len(dst) {
			n, err := frameLength(src)
			if err != nil {
				return err
			}
			before := len(out)
			if out, err = d.DecodeAll(src[:n], out); err != nil {
				return err
			}
			if len(out) == before {
				return errors.New("empty zstd frame")
			}
			src = src[n:]
		}
		return nil
	}, nil
}

// frameLength is the length of the zstd frame that b begins with (RFC 8878,
// 3.1.1).
func frameLength(b []byte) (int, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return 0, err
	}
	if h.Skippable {
		return 0, errors.New("skippable zstd frame")
	}
	n := h.HeaderSize
	for last := false; !last; {
		if len(b)-n < 3 {
			return 0, io.ErrUnexpectedEOF
		}
		block := uint32(b[n]) | uint32(binary.LittleEndian.Uint16(b[n+1:]))<<8
		last = block&1 != 0
		size := int(block >> 3)
		if block>>1&3 == 1 { // one byte, repeated
			size = 1
		}
		if n += 3; size > len(b)-n {
			return 0, io.ErrUnexpectedEOF
		}
		n += size
	}
	if h.HasCheckSum {
		n += 4
	}
	if n > len(b) {
		return 0, io.ErrUnexpectedEOF
	}
	return n, nil
}

// newCompressor returns a function that appends the compressed form of src to
// dst, and nothing else. It is not safe for concurrent use. Its output depends
// on src alone.
func newCompressor(c Compression) (func(dst, src []byte) ([]byte, error), error) {
	switch c {
	case Zlib:
		// QEMU's own window. Its reader accepts more, others need not.
		w, err := flate.NewWriterWindow(io.Discard, 4<<10)
		if err != nil {
			return nil, err
		}
		return func(dst, src []byte) ([]byte, error) {
			buf := bytes.NewBuffer(dst)
			w.Reset(buf)
			if _, err := w.Write(src); err != nil {
				return nil, err
			}
			err := w.Close()
			return buf.Bytes(), err
		}, nil
	case Zstd:
		e, err := zstd.NewWriter(nil,
			zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false),
			zstd.WithWindowSize(clusterSize),
			zstd.WithEncoderLevel(zstd.SpeedDefault))
		if err != nil {
			return nil, err
		}
		return func(dst, src []byte) ([]byte, error) {
			return e.EncodeAll(src, dst), nil
		}, nil
	}
	return nil, fmt.Errorf("compression type %d", c)
}
