// Package xz reads .xz files: https://tukaani.org/xz/xz-file-format-1.2.1.txt,
// whose words it uses. What is in a Block is decoded by ulikunitz/xz/lzma.
//
// That module's own reader of Streams is not used: it allocates whatever
// dictionary a Block Header asks for, up to 4 GiB, and keeps a record of every
// Block until the Index comes.
package xz

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// magic is what a Stream begins with.
const magic = "\xfd7zXZ\x00"

// MaxDictionary limits the dictionary that a Block may ask for, in bytes. It is
// allocated at once. xz -9 uses as much as this.
const MaxDictionary = 64 << 20

// A Reader reads the Streams of a file, one after another, and the Stream
// Padding between and after them. Like xz it refuses whatever else follows.
// Checks are verified when a Block has been read, so that what Read has
// returned before an error may be wrong.
//
// Errors are [virtual.ErrUnsupported] for filters other than LZMA2, larger
// dictionaries and unknown Checks, those of the file, or say what is wrong.
type Reader struct {
	in    *counter
	begun bool // there was a Stream
	err   error

	// The Stream that is being read; check 0 before its header and after its footer.
	flags  [2]byte // Stream Flags
	check  *checkType
	blocks records

	// The Block that is being read, nil between Blocks.
	block    *lzma.Reader2
	chunks   *chunks   // what block reads from
	hash     hash.Hash // nil: the Check is None
	header   int64     // its size
	plain    int64     // Uncompressed Size so far
	declared struct{ compressed, plain int64 }
}

// NewReader returns a Reader of the file that r reads from its begin.
func NewReader(r *bufio.Reader) *Reader { return &Reader{in: &counter{r: r}} }

func (z *Reader) Read(p []byte) (n int, err error) {
	for n == 0 && len(p) > 0 && z.err == nil {
		if z.block == nil {
			z.err = z.next()
			continue
		}
		n, err = z.block.Read(p)
		z.plain += int64(n)
		if z.hash != nil {
			z.hash.Write(p[:n])
		}
		switch {
		case z.declared.plain >= 0 && z.plain > z.declared.plain:
			z.err = errors.New("a block is larger than its header says")
		case errors.Is(err, io.EOF) && z.block.EOS():
			z.err = z.blockEnd()
		case errors.Is(err, io.EOF): // a chunk is too short for its first five bytes
			z.err = io.ErrUnexpectedEOF
		default:
			z.err = err
		}
	}
	return n, z.err
}

// next goes to the next Block. Its error is io.EOF where the file may end.
func (z *Reader) next() error {
	if z.check == nil {
		if err := z.padding(); err != nil {
			return err
		}
		return z.streamHeader()
	}
	size, err := z.in.ReadByte()
	switch {
	case err != nil:
		return unexpected(err)
	case size != 0:
		return z.blockHeader(size)
	}
	return z.streamEnd()
}

// padding reads Stream Padding: zeros, a multiple of four.
func (z *Reader) padding() error {
	for n := 0; ; n++ {
		b, err := z.in.r.Peek(1)
		switch {
		case len(b) > 0 && b[0] == 0 && z.begun:
			if _, err := z.in.r.Discard(1); err != nil {
				return err
			}
			continue
		case n%4 != 0:
			return errors.New("stream padding is not a multiple of four bytes")
		case len(b) == 0 && !z.begun:
			return unexpected(err)
		case len(b) == 0:
			return err
		}
		return nil
	}
}

// A checkType is how the content of Blocks is protected.
type checkType struct {
	id   byte
	size int
	new  func() hash.Hash // nil: none
}

var checkTypes = []checkType{
	{0x00, 0, nil},
	{0x01, 4, func() hash.Hash { return reversed{crc32.NewIEEE()} }},
	{0x04, 8, func() hash.Hash { return reversed{crc64.New(ecma)} }},
	{0x0a, sha256.Size, sha256.New},
}

var ecma = crc64.MakeTable(crc64.ECMA)

// reversed stores a sum as little endian.
type reversed struct{ hash.Hash }

func (r reversed) Sum(b []byte) []byte {
	sum := r.Hash.Sum(nil)
	for i := range sum {
		b = append(b, sum[len(sum)-1-i])
	}
	return b
}

// 2.1.1. Stream Header.
func (z *Reader) streamHeader() error {
	var b [12]byte // Header Magic Bytes, Stream Flags, CRC32
	if _, err := io.ReadFull(z.in, b[:]); err != nil {
		return unexpected(err)
	}
	switch {
	case string(b[:6]) != magic && !z.begun:
		return errors.New("not an xz file")
	case string(b[:6]) != magic:
		return errors.New("what follows the last stream is not an xz stream")
	case crc32.ChecksumIEEE(b[6:8]) != binary.LittleEndian.Uint32(b[8:]):
		return errors.New("checksum of a stream header")
	case b[6] != 0 || b[7]&0xf0 != 0:
		return virtual.Unsupported("xz stream flags %#02x %#02x", b[6], b[7])
	}
	z.begun, z.flags, z.blocks = true, [2]byte(b[6:]), records{hash: sha256.New()}
	for i, t := range checkTypes {
		if t.id == b[7] {
			z.check = &checkTypes[i]
			return nil
		}
	}
	return virtual.Unsupported("xz integrity check %d", b[7])
}

// 3.1. Block Header, whose first byte has been read.
func (z *Reader) blockHeader(size byte) error {
	h := make([]byte, (int(size)+1)*4)
	h[0] = size
	if _, err := io.ReadFull(z.in, h[1:]); err != nil {
		return unexpected(err)
	}
	body, sum := h[:len(h)-4], h[len(h)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return errors.New("checksum of a block header")
	}
	dictionary, err := z.parseBlockHeader(body[1], bytes.NewReader(body[2:]))
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("fields leave a block header")
	} else if err != nil {
		return err
	}

	// No match goes back further than the Block is long.
	if z.declared.plain >= 0 {
		dictionary = max(lzma.MinDictCap, min(dictionary, z.declared.plain))
	}
	z.header, z.plain, z.in.n = int64(len(h)), 0, 0
	if z.hash = nil; z.check.new != nil {
		z.hash = z.check.new()
	}
	z.chunks = &chunks{r: z.in}
	z.block, err = lzma.Reader2Config{DictCap: int(dictionary)}.NewReader2(z.chunks)
	return unexpected(err)
}

func (z *Reader) parseBlockHeader(flags byte, fields *bytes.Reader) (dictionary int64, err error) {
	if flags&0x3c != 0 {
		return 0, virtual.Unsupported("xz block flags %#02x", flags)
	}
	z.declared.compressed, z.declared.plain = -1, -1
	if flags&0x40 != 0 {
		if z.declared.compressed, err = integer(fields); err != nil {
			return 0, err
		}
	}
	if flags&0x80 != 0 {
		if z.declared.plain, err = integer(fields); err != nil {
			return 0, err
		}
	}
	if dictionary, err = filters(fields, int(flags&3)+1); err != nil {
		return 0, err
	}
	for fields.Len() > 0 {
		if b, _ := fields.ReadByte(); b != 0 {
			return 0, virtual.Unsupported("xz block header with unknown fields")
		}
	}
	return dictionary, nil
}

// filterNames are those of 5.3 but LZMA2, which is the only one read.
var filterNames = map[int64]string{
	0x03: "Delta", 0x04: "BCJ x86", 0x05: "BCJ PowerPC", 0x06: "BCJ IA-64", 0x07: "BCJ ARM",
	0x08: "BCJ ARM-Thumb", 0x09: "BCJ SPARC", 0x0a: "BCJ ARM64", 0x0b: "BCJ RISC-V",
}

// 3.1.5. List of Filter Flags. It returns the Dictionary Size of 5.3.1, LZMA2.
func filters(r *bytes.Reader, count int) (dictionary int64, err error) {
	const lzma2 = 0x21
	for i := range count {
		id, err := integer(r)
		if err != nil {
			return 0, err
		}
		size, err := integer(r)
		if err != nil {
			return 0, err
		}
		if size > int64(r.Len()) {
			return 0, io.ErrUnexpectedEOF
		}
		properties := make([]byte, size)
		if _, err := io.ReadFull(r, properties); err != nil {
			return 0, err
		}
		switch {
		case id != lzma2:
			name, ok := filterNames[id]
			if !ok {
				name = fmt.Sprintf("%#x", id)
			}
			return 0, virtual.Unsupported("xz filter %s", name)
		case i != count-1 || len(properties) != 1 || properties[0] > 40:
			return 0, errors.New("properties of an LZMA2 filter")
		}
		bits := properties[0]
		dictionary = int64(2|bits&1) << (bits/2 + 11)
	}
	if dictionary > MaxDictionary {
		return 0, virtual.Unsupported("xz dictionary of %d bytes, more than %d", dictionary, MaxDictionary)
	}
	return dictionary, nil
}

// blockEnd reads 3.3, Block Padding, and 3.4, Check.
func (z *Reader) blockEnd() error {
	compressed := z.in.n
	if !z.chunks.ended {
		return errors.New("a chunk of a block has another size than its header says")
	}
	if z.declared.compressed >= 0 && z.declared.compressed != compressed || z.declared.plain >= 0 && z.declared.plain != z.plain {
		return errors.New("a block has another size than its header says")
	}
	if err := z.in.zeros(padLen(compressed)); err != nil {
		return err
	}
	stored := make([]byte, z.check.size)
	if _, err := io.ReadFull(z.in, stored); err != nil {
		return unexpected(err)
	}
	if z.hash != nil && !bytes.Equal(z.hash.Sum(nil), stored) {
		return errors.New("checksum of a block")
	}
	z.blocks.add(z.header+compressed+int64(z.check.size), z.plain)
	z.block = nil
	return nil
}

// records are those of the Blocks of a Stream, so many that only their hash is kept.
type records struct {
	n    int64
	hash hash.Hash
}

func (r *records) add(unpadded, plain int64) {
	r.n++
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(unpadded))
	binary.LittleEndian.PutUint64(b[8:], uint64(plain))
	r.hash.Write(b[:])
}

// streamEnd reads 4, Index, whose Index Indicator has been read, and 2.1.2,
// Stream Footer.
func (z *Reader) streamEnd() error {
	index := &summed{r: z.in, crc: crc32.ChecksumIEEE([]byte{0}), n: 1}
	count, err := integer(index)
	if err != nil {
		return err
	}
	if count != z.blocks.n {
		return errors.New("the index has another number of blocks")
	}
	listed := records{hash: sha256.New()}
	for range count {
		unpadded, err := integer(index)
		if err != nil {
			return err
		}
		plain, err := integer(index)
		if err != nil {
			return err
		}
		listed.add(unpadded, plain)
	}
	if !bytes.Equal(listed.hash.Sum(nil), z.blocks.hash.Sum(nil)) {
		return errors.New("the index has other sizes of blocks")
	}
	for range padLen(index.n) {
		if b, err := index.ReadByte(); err != nil || b != 0 {
			return cmp.Or(unexpected(err), errNotZero)
		}
	}

	var b [4 + 12]byte // CRC32 of the Index; CRC32, Backward Size, Stream Flags, Footer Magic Bytes
	if _, err := io.ReadFull(z.in, b[:]); err != nil {
		return unexpected(err)
	}
	footer := b[4:]
	switch {
	case binary.LittleEndian.Uint32(b[:]) != index.crc:
		return errors.New("checksum of an index")
	case string(footer[10:]) != "YZ":
		return errors.New("a stream has no footer")
	case binary.LittleEndian.Uint32(footer) != crc32.ChecksumIEEE(footer[4:10]):
		return errors.New("checksum of a stream footer")
	case (int64(binary.LittleEndian.Uint32(footer[4:]))+1)*4 != index.n+4:
		return errors.New("a stream footer has another size of the index")
	case [2]byte(footer[8:]) != z.flags:
		return errors.New("a stream footer has other flags than the header")
	}
	z.check = nil
	return nil
}

// 1.2. Multibyte Integers: at most 63 bits, in as few bytes as possible.
func integer(r io.ByteReader) (int64, error) {
	var n int64
	for shift := 0; shift < 63; shift += 7 {
		b, err := r.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		n |= int64(b&0x7f) << shift
		if b&0x80 == 0 {
			if b == 0 && shift > 0 {
				return 0, errors.New("an integer has too many bytes")
			}
			return n, nil
		}
	}
	return 0, errors.New("an integer of more than 63 bits")
}

func padLen(n int64) int { return int(-n & 3) }

var errNotZero = errors.New("padding is not zero")

// unexpected is err; an end of the file is not expected where it is called.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// A counter counts the bytes that are read.
type counter struct {
	r *bufio.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// zeros reads n bytes of padding.
func (c *counter) zeros(n int) error {
	for range n {
		if b, err := c.ReadByte(); err != nil || b != 0 {
			return cmp.Or(unexpected(err), errNotZero)
		}
	}
	return nil
}

// chunks follows the chunks of LZMA2 in what is read. The decoder stops where it has
// all content of a chunk, and takes what follows for the next one, whatever size
// the chunk said it has: only at the real end both have seen the end marker.
type chunks struct {
	r     io.Reader
	left  int    // bytes of the chunk's content
	head  []byte // of the header that is being read
	ended bool   // the end marker was the last byte
}

func (c *chunks) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	for rest := p[:n]; len(rest) > 0; {
		if k := min(c.left, len(rest)); k > 0 {
			c.left, rest = c.left-k, rest[k:]
			continue
		}
		c.head, rest = append(c.head, rest[0]), rest[1:]
		c.header()
	}
	return n, err
}

// header looks at a chunk's header, which may not be complete yet.
func (c *chunks) header() {
	control := c.head[0]
	size := 6 // with new properties
	switch {
	case control == 0:
		size = 1
	case control < 0x80: // not compressed
		size = 3
	case control < 0xc0:
		size = 5
	}
	c.ended = control == 0
	if len(c.head) < size {
		return
	}
	switch {
	case control >= 0x80:
		c.left = int(binary.BigEndian.Uint16(c.head[3:])) + 1
	case control > 0:
		c.left = int(binary.BigEndian.Uint16(c.head[1:])) + 1
	}
	c.head = c.head[:0]
}

// summed makes a CRC32 of the bytes that are read, and counts them.
type summed struct {
	r   *counter
	crc uint32
	n   int64
}

func (s *summed) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.crc = crc32.Update(s.crc, crc32.IEEETable, []byte{b})
		s.n++
	}
	return b, err
}
