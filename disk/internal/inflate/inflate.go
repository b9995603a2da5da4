// Package inflate decodes deflate streams (RFC 1951), bare or as zlib streams
// (RFC 1950), from memory to memory. Its text follows these two, with their
// words.
//
// A cluster of an image is small and its size is known. A decoder that has all
// of its input and all of its output before it needs no window, no state to
// stop in, and can look and copy several bytes at a time where it is not near
// an end: it takes less than half of the time of one that is an [io.Reader].
package inflate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
)

// ErrTooLong says that the stream has more bytes than dst, which is full of the
// first.
var ErrTooLong = errors.New("deflate stream is longer than it should be")

// A Decoder decodes one stream after another. The zero value is ready. It is
// not safe for concurrent use, and large: keep it.
type Decoder struct {
	in

	// Huffman codes of the block that is being decoded.
	litlen [litlenSize]entry
	dist   [distSize]entry
	fixed  bool // they are those of fixed blocks

	lengths [maxLitlen + maxDist]uint8
	codelen [1 << codelenBits]entry // the code that lengths are coded in
}

// Deflate decodes the stream that src begins with and returns how many bytes
// of dst it has filled: fewer than all if the stream ends before. What src has
// behind the stream does not matter. What dst has behind these bytes, and all
// of it after an error, is undefined, but for [ErrTooLong].
//
// A stream that is cut short is [io.ErrUnexpectedEOF].
func (d *Decoder) Deflate(dst, src []byte) (int, error) {
	n, err := d.inflate(dst, src)
	d.src = nil
	return n, err
}

// Zlib does the same with a zlib stream, of which it checks the checksum.
func (d *Decoder) Zlib(dst, src []byte) (int, error) {
	if len(src) < 2 {
		return 0, io.ErrUnexpectedEOF
	}
	switch header := binary.BigEndian.Uint16(src); {
	case header%31 != 0, src[0]&15 != 8, src[0]>>4 > 7:
		return 0, fmt.Errorf("zlib header %#04x", header)
	case src[1]&(1<<5) != 0:
		return 0, errors.New("zlib stream needs a dictionary")
	}
	n, err := d.inflate(dst, src[2:])
	rest := d.src[d.next():]
	d.src = nil
	if err != nil {
		return n, err
	}
	if len(rest) < 4 {
		return n, io.ErrUnexpectedEOF
	}
	if got, want := adler32.Checksum(dst[:n]), binary.BigEndian.Uint32(rest); got != want {
		return n, fmt.Errorf("zlib checksum %#08x, not %#08x", got, want)
	}
	return n, nil
}

// # Input

// An in gives out the bits of src, the lowest bit of a byte first.
//
// The lowest n bits of buf are what was taken out of src[:at] but not given
// out. Above them buf has what follows in src, or zeros.
type in struct {
	src []byte
	at  int
	buf uint64
	n   uint
}

// fill makes n at least 56, or all that there is.
func (b *in) fill() {
	for b.n < 56 && b.at < len(b.src) {
		b.buf |= uint64(b.src[b.at]) << b.n
		b.at++
		b.n += 8
	}
}

// take gives out the next n bits, which fill has made sure of; if not, err says
// that src has ended.
func (b *in) take(n uint) (uint64, error) {
	if n > b.n {
		return 0, io.ErrUnexpectedEOF
	}
	v := b.buf & (1<<n - 1)
	b.buf >>= n
	b.n -= n
	return v, nil
}

// next is the first byte of src that no bit was given out of.
func (b *in) next() int { return b.at - int(b.n/8) }

// # Blocks

const (
	maxLitlen = 286 // symbols that a dynamic block may have
	maxDist   = 30
)

// What is wrong with a stream.
var (
	errType           = errors.New("deflate block of an unknown type")
	errStored         = errors.New("stored deflate block whose length does not match its check")
	errSymbols        = errors.New("deflate block with more symbols than there are")
	errNoEnd          = errors.New("deflate block without a code for its end")
	errRepetition     = errors.New("code lengths are repeated before the first or after the last symbol")
	errOversubscribed = errors.New("more Huffman codes than there can be")
	errIncomplete     = errors.New("incomplete Huffman code")
	errCode           = errors.New("undefined code in a deflate block")
	errDistance       = errors.New("distance to before the start of a deflate stream")
)

func (d *Decoder) inflate(dst, src []byte) (n int, err error) {
	d.in = in{src: src}
	for last := uint64(0); last == 0; {
		d.fill()
		if last, err = d.take(1); err != nil {
			return n, err
		}
		kind, err := d.take(2)
		if err != nil {
			return n, err
		}
		switch kind {
		case 0:
			n, err = d.stored(dst, n)
		case 1:
			d.fixedCodes()
			n, err = d.compressed(dst, n)
		case 2:
			if err = d.dynamicCodes(); err == nil {
				n, err = d.compressed(dst, n)
			}
		default:
			err = errType
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// stored copies a block that is not compressed (3.2.4) to dst[n:].
func (d *Decoder) stored(dst []byte, n int) (int, error) {
	at := d.next()
	d.in = in{src: d.src, at: at}
	if len(d.src)-at < 4 {
		return n, io.ErrUnexpectedEOF
	}
	length := binary.LittleEndian.Uint16(d.src[at:])
	if length != ^binary.LittleEndian.Uint16(d.src[at+2:]) {
		return n, errStored
	}
	at += 4
	part := d.src[at:min(len(d.src), at+int(length))]
	m := copy(dst[n:], part)
	d.at = at + m
	switch {
	case m < len(part):
		return n + m, ErrTooLong
	case m < int(length):
		return n + m, io.ErrUnexpectedEOF
	}
	return n + m, nil
}

// fixedCodes are those of 3.2.6.
func (d *Decoder) fixedCodes() {
	if d.fixed {
		return
	}
	var lengths [288 + 32]uint8
	for s := range lengths {
		switch {
		case s < 144:
			lengths[s] = 8
		case s < 256:
			lengths[s] = 9
		case s < 280:
			lengths[s] = 7
		case s < 288:
			lengths[s] = 8
		default:
			lengths[s] = 5
		}
	}
	// Both are complete.
	_, _ = makeTable(d.litlen[:], litlenBits, lengths[:288], litlenEntry)
	_, _ = makeTable(d.dist[:], distBits, lengths[288:], distEntry)
	d.fixed = true
}

// codelenOrder is the order in which code lengths for the code length alphabet
// are given.
var codelenOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// dynamicCodes reads the codes before a block (3.2.7).
func (d *Decoder) dynamicCodes() error {
	d.fixed = false
	head, err := d.take(14)
	if err != nil {
		return err
	}
	litlens, dists, codelens := int(head&31)+257, int(head>>5&31)+1, int(head>>10)+4
	if litlens > maxLitlen || dists > maxDist {
		return errSymbols
	}
	var lengths [19]uint8
	for _, s := range codelenOrder[:codelens] {
		d.fill()
		n, err := d.take(3)
		if err != nil {
			return err
		}
		lengths[s] = uint8(n)
	}
	complete, err := makeTable(d.codelen[:], codelenBits, lengths[:], codelenEntry)
	if err == nil && !complete {
		err = errIncomplete
	}
	if err != nil {
		return fmt.Errorf("code of code lengths: %w", err)
	}
	if err := d.codeLengths(d.lengths[:litlens+dists]); err != nil {
		return err
	}
	if d.lengths[endOfBlock] == 0 {
		return errNoEnd
	}
	if _, err := makeTable(d.litlen[:], litlenBits, d.lengths[:litlens], litlenEntry); err != nil {
		return fmt.Errorf("literal/length code: %w", err)
	}
	if _, err := makeTable(d.dist[:], distBits, d.lengths[litlens:litlens+dists], distEntry); err != nil {
		return fmt.Errorf("distance code: %w", err)
	}
	return nil
}

// codeLengths reads the lengths of both codes, as one sequence.
func (d *Decoder) codeLengths(lengths []uint8) error {
	for i := 0; i < len(lengths); {
		d.fill()
		e := d.codelen[d.buf&(1<<codelenBits-1)]
		bits, err := d.take(e.bits())
		if err != nil {
			return err
		}
		symbol := uint8(e.value())
		if symbol < 16 {
			lengths[i] = symbol
			i++
			continue
		}
		// The code's extra bits come after it.
		repeat := codelenRepeat[symbol-16] + int(bits>>e.codeBits())
		value := uint8(0)
		if symbol == 16 {
			if i == 0 {
				return errRepetition
			}
			value = lengths[i-1]
		}
		if repeat > len(lengths)-i {
			return errRepetition
		}
		for range repeat {
			lengths[i] = value
			i++
		}
	}
	return nil
}
