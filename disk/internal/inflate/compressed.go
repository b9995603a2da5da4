package inflate

import "encoding/binary"

// compressed decodes a block (3.2.3) to dst[n:] by the codes in d.
func (d *Decoder) compressed(dst []byte, n int) (int, error) {
	n, ended, err := d.fast(dst, n)
	for !ended && err == nil {
		n, ended, err = d.careful(dst, n)
	}
	return n, err
}

// careful decodes one symbol, with all checks.
func (d *Decoder) careful(dst []byte, n int) (_ int, ended bool, err error) {
	d.fill()
	e, length, err := d.symbol(d.litlen[:], litlenBits)
	switch {
	case err != nil:
		return n, false, err
	case e.kind() == end:
		return n, true, nil
	case n == len(dst):
		return n, false, ErrTooLong
	case e&literal != 0:
		dst[n] = byte(length)
		return n + 1, false, nil
	}
	d.fill()
	_, distance, err := d.symbol(d.dist[:], distBits)
	if err != nil {
		return n, false, err
	}
	if distance > n {
		return n, false, errDistance
	}
	stop := min(len(dst), n+length)
	for i := n; i < stop; i++ {
		dst[i] = dst[i-distance]
	}
	if n+length > stop {
		return stop, false, ErrTooLong
	}
	return stop, false, nil
}

// symbol takes a symbol and its extra bits, and returns its entry and the value
// that they make.
func (d *Decoder) symbol(table []entry, tableBits uint) (entry, int, error) {
	e := table[d.buf&(1<<tableBits-1)]
	if e.kind() == subtable {
		if _, err := d.take(e.bits()); err != nil {
			return 0, 0, err
		}
		e = table[e.value()+int(d.buf&(1<<e.codeBits()-1))]
	}
	bits, err := d.take(e.bits())
	if err != nil {
		return 0, 0, err
	}
	if e.kind() == undefined {
		return 0, 0, errCode
	}
	return e, e.value() + int(bits>>e.codeBits()), nil
}

// What a round of fast may read and write at most: a fill takes up to 7 bytes
// of 8 that it looks at; there are three literals, a copy, and what that writes
// too much.
const (
	fastIn  = 7 + 8
	fastOut = 3 + 258 + 16
)

// fast decodes while neither src nor dst is near its end. It is the same as
// careful, but that it has all of its state at hand, and fills 8 bytes at once.
//
// A fill gives 56 bits: three literals out of the table (33 bits), then a
// length (20); and after the next one, a distance (28).
func (d *Decoder) fast(dst []byte, n int) (_ int, ended bool, err error) {
	src, at, buf, have := d.src, d.at, d.buf, uint64(d.n)
	litlen, dist := &d.litlen, &d.dist

	// Bits of have above the lowest six mean nothing in here: so an entry can
	// be subtracted from it as it is.
	for len(src)-at >= fastIn && len(dst)-n >= fastOut {
		buf |= binary.LittleEndian.Uint64(src[at:]) << (have & 63)
		at += int(^have >> 3 & 7)
		have |= 56

		e := litlen[buf&(1<<litlenBits-1)]
		if e&literal != 0 {
			buf >>= e & 63
			have -= uint64(e)
			dst[n] = byte(e >> 16)
			n++
			if e = litlen[buf&(1<<litlenBits-1)]; e&literal != 0 {
				buf >>= e & 63
				have -= uint64(e)
				dst[n] = byte(e >> 16)
				n++
				if e = litlen[buf&(1<<litlenBits-1)]; e&literal != 0 {
					buf >>= e & 63
					have -= uint64(e)
					dst[n] = byte(e >> 16)
					n++
					continue
				}
			}
		}
		if e&special != 0 {
			if e.kind() == subtable {
				buf >>= e & 63
				have -= uint64(e)
				e = litlen[e.value()+int(buf&(1<<e.codeBits()-1))]
			}
			if e&special != 0 {
				buf >>= e & 63
				have -= uint64(e)
				if ended = e.kind() == end; !ended {
					err = errCode
				}
				break
			}
			if e&literal != 0 {
				buf >>= e & 63
				have -= uint64(e)
				dst[n] = byte(e >> 16)
				n++
				continue
			}
		}
		length := e.value() + int(buf&(1<<(e&63)-1)>>(e>>8&15))
		buf >>= e & 63
		have -= uint64(e)

		buf |= binary.LittleEndian.Uint64(src[at:]) << (have & 63)
		at += int(^have >> 3 & 7)
		have |= 56

		e = dist[buf&(1<<distBits-1)]
		if e&special != 0 {
			if e.kind() == subtable {
				buf >>= e & 63
				have -= uint64(e)
				e = dist[e.value()+int(buf&(1<<e.codeBits()-1))]
			}
			if e&special != 0 {
				err = errCode
				break
			}
		}
		distance := e.value() + int(buf&(1<<(e&63)-1)>>(e>>8&15))
		buf >>= e & 63
		have -= uint64(e)

		if distance > n {
			err = errDistance
			break
		}
		stop := n + length
		switch from := n - distance; {
		case distance >= length && length > 32:
			copy(dst[n:stop], dst[from:])
		case distance >= 8:
			for {
				binary.LittleEndian.PutUint64(dst[n:], binary.LittleEndian.Uint64(dst[from:]))
				if n += 8; n >= stop {
					break
				}
				from += 8
			}
		case distance == 1:
			word := uint64(dst[from]) * 0x0101010101010101
			for ; n < stop; n += 8 {
				binary.LittleEndian.PutUint64(dst[n:], word)
			}
		default:
			// Of each word, distance bytes are right and the others written over.
			for ; n < stop; n, from = n+distance, from+distance {
				binary.LittleEndian.PutUint64(dst[n:], binary.LittleEndian.Uint64(dst[from:]))
			}
		}
		n = stop
	}
	d.at, d.buf, d.n = at, buf, uint(have&63)
	return n, ended, err
}
