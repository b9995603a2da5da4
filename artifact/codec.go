package artifact

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// A Codec is how the frames of a layer are compressed. The zero value is
// zstd at its default level.
type Codec struct {
	Name  string // "zstd", "xz" or "none"; empty is zstd
	Level int    // of zstd, 1 to 22; 0 is the default
}

// DefaultLevel is the level of zstd that is used when none is named. Level 3
// is 4 % smaller and makes a cold push a third slower: docs/design.md.
const DefaultLevel = 1

// ParseCodec reads zstd[:LEVEL], xz or none.
func ParseCodec(s string) (Codec, error) {
	name, level, hasLevel := strings.Cut(s, ":")
	switch {
	case (name == "xz" || name == "none") && !hasLevel:
		return Codec{Name: name}, nil
	case name == "zstd" && !hasLevel:
		return Codec{Name: name, Level: DefaultLevel}, nil
	case name == "zstd":
		n, err := strconv.Atoi(level)
		if err == nil && n >= 1 && n <= 22 {
			return Codec{Name: name, Level: n}, nil
		}
		return Codec{}, fmt.Errorf("compression level %q is not between 1 and 22", level)
	}
	return Codec{}, fmt.Errorf("unknown compression %q: it is zstd, zstd:LEVEL, xz or none", s)
}

// String returns what [ParseCodec] reads.
func (c Codec) String() string {
	if c.Name == "" || c.Name == "zstd" {
		return "zstd:" + strconv.Itoa(cmp.Or(c.Level, DefaultLevel))
	}
	return c.Name
}

// mediaType returns the type of layers in this codec.
func (c Codec) mediaType() string {
	switch c.Name {
	case "xz":
		return TypeLayerXZ
	case "none":
		return TypeLayer
	default:
		return TypeLayerZstd
	}
}

// An encoder compresses frames. It is safe for concurrent use.
type encoder struct {
	codec Codec
	zstd  *zstd.Encoder
}

func newEncoder(c Codec) (*encoder, error) {
	e := &encoder{codec: c}
	if c.mediaType() != TypeLayerZstd {
		return e, nil
	}
	// No checksum: every frame has a SHA-256 in the directory. The window
	// decides the bytes, so it is part of the encoder's version.
	var err error
	e.zstd, err = zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(cmp.Or(c.Level, DefaultLevel))),
		zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(maxFramePlain),
		zstd.WithLowerEncoderMem(true),
		zstd.WithZeroFrames(true))
	return e, err
}

// encode appends one frame that holds plain to dst.
func (e *encoder) encode(dst, plain []byte) ([]byte, error) {
	switch e.codec.Name {
	case "none":
		return append(dst, plain...), nil
	case "xz":
		out := bytes.NewBuffer(dst)
		w, err := xz.WriterConfig{DictCap: max(1<<16, min(len(plain), maxDictionary)), CheckSum: xz.CRC32}.NewWriter(out)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(plain); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		return out.Bytes(), nil
	default:
		return e.zstd.EncodeAll(plain, dst), nil
	}
}

func (e *encoder) close() {
	if e.zstd != nil {
		e.zstd.Close()
	}
}

// maxDictionary is the largest window a decoder must keep, in bytes: what a
// frame may make it allocate beside its declared size.
const maxDictionary = 8 << 20

var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) { return newZstdDecoder(0) })

// newZstdDecoder returns a decoder of several frames at once; 0 is one for each processor.
func newZstdDecoder(concurrency int) (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(concurrency),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(1<<32),
		zstd.WithDecoderMaxWindow(1<<32))
}

// largeFrame is the size from which on a frame, which is then a directory, gets
// a decoder of its own: a decoder holds on to what it has decoded last.
const largeFrame = 1 << 20

// decodeFrame decompresses one frame of a layer of the given type into
// exactly plain bytes. buf is used for the result where it is large enough.
// Its errors say what is wrong with the frame. No frame makes it use more
// memory than plain and maxDictionary.
func decodeFrame(mediaType string, stored []byte, plain int, buf []byte) ([]byte, error) {
	if cap(buf) < plain {
		buf = make([]byte, 0, plain)
	}
	buf = buf[:0:plain]
	switch mediaType {
	case TypeLayer:
		if len(stored) != plain {
			return nil, fmt.Errorf("it holds %d bytes, not %d", len(stored), plain)
		}
		return append(buf, stored...), nil
	case TypeLayerZstd:
		if err := checkZstd(stored, plain); err != nil {
			return nil, err
		}
		d, err := zstdDecoder()
		if plain >= largeFrame {
			if d, err = newZstdDecoder(1); err == nil {
				defer d.Close()
			}
		}
		if err != nil {
			return nil, err
		}
		out, err := d.DecodeAll(stored, buf)
		if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
			return nil, fmt.Errorf("it holds more than %d bytes", plain)
		}
		if err != nil {
			return nil, fmt.Errorf("it is no zstd frame: %w", err)
		}
		if len(out) != plain {
			return nil, fmt.Errorf("it holds %d bytes, not %d", len(out), plain)
		}
		return out, nil
	case TypeLayerXZ:
		if err := checkXZ(stored, plain); err != nil {
			return nil, err
		}
		r, err := xz.ReaderConfig{DictCap: 1 << 16, SingleStream: true}.NewReader(bytes.NewReader(stored))
		if err != nil {
			return nil, fmt.Errorf("it is no xz stream: %w", err)
		}
		out := buf[:plain]
		if _, err := io.ReadFull(r, out); err != nil {
			return nil, fmt.Errorf("it is no xz stream of %d bytes: %w", plain, err)
		}
		// The end has the checksum and the index.
		switch n, err := r.Read(make([]byte, 1)); {
		case n != 0:
			return nil, fmt.Errorf("it does not end after %d bytes", plain)
		case !errors.Is(err, io.EOF):
			return nil, fmt.Errorf("it does not end after %d bytes: %w", plain, err)
		}
		return out, nil
	}
	return nil, fmt.Errorf("unknown layer type %q", mediaType)
}

// checkZstd walks the blocks of b: exactly one frame of RFC 8878 without
// dictionary, that asks for no more memory than it may.
func checkZstd(b []byte, plain int) error {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return fmt.Errorf("it is no zstd frame: %w", err)
	}
	window := uint64(max(maxDictionary, plain))
	switch {
	case h.Skippable:
		return errors.New("it is a skippable frame")
	case h.DictionaryID != 0:
		return fmt.Errorf("it needs dictionary %d", h.DictionaryID)
	case h.HasFCS && h.FrameContentSize != uint64(plain):
		return fmt.Errorf("it says that it holds %d bytes, not %d", h.FrameContentSize, plain)
	case !h.SingleSegment && h.WindowSize > window:
		return fmt.Errorf("its window of %d bytes is over the limit of %d", h.WindowSize, window)
	}
	// A Dictionary_ID field that is there and zero is one, too.
	if len(b) > 4 && b[4]&3 != 0 {
		return errors.New("it has a dictionary ID")
	}
	for at := h.HeaderSize; ; {
		if len(b)-at < 3 {
			return errors.New("it ends within a block")
		}
		v := uint32(b[at]) | uint32(b[at+1])<<8 | uint32(b[at+2])<<16
		last, kind, size := v&1 != 0, v>>1&3, int(v>>3)
		if kind == 1 { // one byte, repeated
			size = 1
		}
		at += 3
		if kind == 3 || size > len(b)-at {
			return errors.New("it ends within a block")
		}
		at += size
		if !last {
			continue
		}
		if h.HasCheckSum {
			at += 4
		}
		if at != len(b) {
			return errors.New("it is not exactly one zstd frame")
		}
		return nil
	}
}

// checkXZ walks the blocks and LZMA2 chunks of b without decoding them: one
// xz stream, LZMA2 as its only filter, a dictionary within bounds, plain
// bytes. The decoder would allocate whatever dictionary a block header names.
func checkXZ(b []byte, plain int) error {
	errEnd := errors.New("it is not exactly one xz stream")
	if len(b) < 32 || !bytes.Equal(b[:6], []byte("\xfd7zXZ\x00")) {
		return errors.New("it is no xz stream")
	}
	checkSize, ok := map[byte]int{0: 0, 1: 4, 4: 8, 10: 32}[b[7]]
	if b[6] != 0 || !ok {
		return errors.New("its integrity check is unknown")
	}
	at, total := 12, 0
	for {
		if at >= len(b) {
			return errEnd
		}
		if b[at] == 0 {
			break // the index
		}
		header := (int(b[at]) + 1) * 4
		if header > len(b)-at {
			return errEnd
		}
		h := b[at+1 : at+header-4]
		flags := h[0]
		h = h[1:]
		if flags&0x3f != 0 {
			return errors.New("it has other filters than LZMA2")
		}
		for bit := byte(0x40); bit != 0; bit <<= 1 {
			if flags&bit != 0 {
				_, n := binary.Uvarint(h)
				if n <= 0 {
					return errEnd
				}
				h = h[n:]
			}
		}
		if len(h) < 3 || h[0] != 0x21 || h[1] != 1 {
			return errors.New("it has other filters than LZMA2")
		}
		if d := h[2]; d > 40 || (uint64(2|d&1)<<(d/2+11)) > maxDictionary {
			return fmt.Errorf("its dictionary is over the limit of %d bytes", maxDictionary)
		}
		at += header
		start := at
		for {
			if len(b)-at < 6 {
				return errEnd
			}
			c := b[at]
			if c == 0 {
				at++
				break
			}
			switch {
			case c >= 0x80:
				total += int(c&0x1f)<<16 + int(binary.BigEndian.Uint16(b[at+1:])) + 1
				size := int(binary.BigEndian.Uint16(b[at+3:])) + 1
				at += 5 + size
				if c >= 0xc0 {
					at++
				}
			case c <= 2:
				size := int(binary.BigEndian.Uint16(b[at+1:])) + 1
				total += size
				at += 3 + size
			default:
				return errors.New("it is no LZMA2 data")
			}
			if total > plain {
				return fmt.Errorf("it holds more than %d bytes", plain)
			}
		}
		at += (4 - (at-start)%4) % 4
		at += checkSize
	}
	if total != plain {
		return fmt.Errorf("it holds %d bytes, not %d", total, plain)
	}
	// Index: indicator, records, padding, CRC-32; then the footer of 12 bytes.
	if len(b)-at < 8+12 {
		return errEnd
	}
	foot := b[len(b)-12:]
	if size := (uint64(binary.LittleEndian.Uint32(foot[4:])) + 1) * 4; size != uint64(len(b)-at-12) {
		return errEnd
	}
	return nil
}
