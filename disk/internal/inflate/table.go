package inflate

import "math/bits"

// An entry of a decoding table says what the next bits of the stream mean.
//
//	bits 0 to 5    how many bits that takes: the code and its extra bits
//	bits 8 to 11   how many of them are the code
//	bits 13 to 15  what kind of entry it is, if neither a length nor a distance
//	bits 16 to 30  its value
//	bit 31         it is a literal
//
// The value of a length or distance is its smallest; the extra bits are added.
// That of a subtable is its place in the table: its index are as many bits of
// the stream as bits 8 to 11 say, after the ones that are taken.
type entry uint32

const (
	literal   entry = 1 << 31
	special   entry = 1 << 15
	subtable  entry = special | 1<<14
	end       entry = special | 1<<13
	undefined entry = special
	kinds     entry = 7 << 13
)

func (e entry) bits() uint     { return uint(e & 63) }
func (e entry) codeBits() uint { return uint(e >> 8 & 15) }
func (e entry) kind() entry    { return e & kinds }
func (e entry) value() int     { return int(e >> 16 & (1<<15 - 1)) }

// Tables are indexed with as many bits; a code that is longer goes on in a
// subtable. Sizes are the most that a complete code of up to 15 bits can need,
// as zlib's examples/enough.c counts them.
const (
	maxBits = 15

	litlenBits = 11
	litlenSize = 2342 // enough 288 11 15

	distBits = 8
	distSize = 402 // enough 32 8 15

	codelenBits = 7 // they are no longer
)

const endOfBlock = 256

// lengthBase and lengthExtra are the table of lengths in 3.2.5, from symbol 257
// on; distBase and distExtra that of distances.
var (
	lengthBase  = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthExtra = [29]uint8{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase    = [maxDist]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769,
		1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distExtra = [maxDist]uint8{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// codelenRepeat is how often the symbols 16 to 18 of 3.2.7 repeat at least.
var codelenRepeat = [3]int{3, 3, 11}

// litlenEntry, distEntry and codelenEntry are the entries of a symbol that lack
// the bits of its code.

func litlenEntry(symbol int) entry {
	switch {
	case symbol < endOfBlock:
		return literal | entry(symbol)<<16
	case symbol == endOfBlock:
		return end
	case symbol-257 < len(lengthBase):
		return entry(lengthBase[symbol-257])<<16 | entry(lengthExtra[symbol-257])
	}
	return undefined // 286 and 287 have codes in fixed blocks
}

func distEntry(symbol int) entry {
	if symbol < len(distBase) {
		return entry(distBase[symbol])<<16 | entry(distExtra[symbol])
	}
	return undefined
}

func codelenEntry(symbol int) entry {
	extra := [19]entry{16: 2, 17: 3, 18: 7}
	return entry(symbol)<<16 | extra[symbol]
}

// makeTable makes the decoding table of the code with these lengths (3.2.2),
// which is indexed with tableBits bits.
//
// A code has to be complete: every sequence of bits means something. The one
// that is not, but allowed, has at most one symbol, with a code of one bit: of
// a block with one distance, or none.
func makeTable(table []entry, tableBits int, lengths []uint8, of func(symbol int) entry) (complete bool, err error) {
	var count [maxBits + 1]int
	for _, n := range lengths {
		count[n]++
	}

	// The codes of a length come after those of the length before.
	var first [maxBits + 1]uint16
	code, longest := 0, 0
	for n := 1; n <= maxBits; n++ {
		code <<= 1
		first[n] = uint16(code)
		if code += count[n]; code > 1<<n {
			return false, errOversubscribed
		}
		if count[n] > 0 {
			longest = n
		}
	}
	complete = code == 1<<maxBits
	if !complete && longest > 1 {
		return false, errIncomplete
	}

	main := table[:1<<tableBits]
	for i := range main {
		main[i] = undefined
	}
	next := first
	for symbol, n := range lengths {
		if n == 0 || int(n) > tableBits {
			continue
		}
		e := of(symbol) + entry(n)<<8 + entry(n)
		for i := int(reverse(next[n], int(n))); i < len(main); i += 1 << n {
			main[i] = e
		}
		next[n]++
	}

	// The first code of a subtable, when the longest come first, says how many
	// bits it is indexed with.
	place := len(main)
	for n := longest; n > tableBits; n-- {
		code := first[n]
		for symbol := range lengths {
			if int(lengths[symbol]) != n {
				continue
			}
			reversed := int(reverse(code, n))
			code++
			pointer := &main[reversed&(len(main)-1)]
			if *pointer == undefined {
				*pointer = subtable | entry(place)<<16 | entry(n-tableBits)<<8 | entry(tableBits)
				place += 1 << (n - tableBits)
			}
			sub := table[pointer.value():][:1<<pointer.codeBits()]
			rest := n - tableBits
			e := of(symbol) + entry(rest)<<8 + entry(rest)
			for i := reversed >> tableBits; i < len(sub); i += 1 << rest {
				sub[i] = e
			}
		}
	}
	return complete, nil
}

// reverse is a code of n bits with its first bit as the lowest.
func reverse(code uint16, n int) uint16 { return bits.Reverse16(code) >> (16 - n) }
