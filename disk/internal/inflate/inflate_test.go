package inflate

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

// contents are plain texts that make an encoder do different things.
func contents() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	random := make([]byte, 70000)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	var words bytes.Buffer
	for words.Len() < 65536 {
		fmt.Fprintf(&words, "%d %x\n", r.IntN(50), r.IntN(1<<20)&r.IntN(1<<20))
	}
	// Frequencies as in the Fibonacci sequence have the longest codes.
	var long []byte
	for s, n, next := 0, 1, 1; len(long) < 60000; s, n, next = s+1, next, n+next {
		long = append(long, bytes.Repeat([]byte{byte(s)}, n)...)
	}
	r.Shuffle(len(long), func(i, j int) { long[i], long[j] = long[j], long[i] })

	all := map[string][]byte{
		"nothing":    {},
		"one byte":   {7},
		"zeros":      make([]byte, 65536),
		"random":     random,
		"words":      words.Bytes()[:65536],
		"long codes": long,
		"mixed":      bytes.Join([][]byte{random[:20000], words.Bytes()[:20000], make([]byte, 20000), random[:5536]}, nil),
	}
	for distance := 1; distance <= 20; distance++ {
		all[fmt.Sprintf("period of %d", distance)] = bytes.Repeat(random[:distance], 3000/distance)
	}
	return all
}

func deflate(t testing.TB, level int, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(plain)
	w.Close()
	return b.Bytes()
}

func TestDeflate(t *testing.T) {
	var d Decoder // one for all: nothing of a stream may reach the next
	rubbish := bytes.Repeat([]byte{0xa5}, 100)
	for name, want := range contents() {
		for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
			t.Run(fmt.Sprintf("%s at level %d", name, level), func(t *testing.T) {
				packed := deflate(t, level, want)
				for _, src := range [][]byte{packed, append(packed[:len(packed):len(packed)], rubbish...)} {
					got := make([]byte, len(want))
					n, err := d.Deflate(got, src)
					if n != len(want) || err != nil || !bytes.Equal(got, want) {
						t.Errorf("Deflate = %d, %v; want %d bytes, and the content", n, err, len(want))
					}
				}
				got := make([]byte, len(want)+1000)
				n, err := d.Deflate(got, packed)
				if n != len(want) || err != nil || !bytes.Equal(got[:n], want) {
					t.Errorf("with room for more: %d, %v; want %d bytes, and the content", n, err, len(want))
				}
			})
		}
	}
}

func TestDeflateAStreamThatIsTooLong(t *testing.T) {
	var d Decoder
	for name, want := range contents() {
		packed := deflate(t, flate.DefaultCompression, want)
		for _, less := range []int{1, 2, 3, 7, 250, 300, len(want)} {
			if less > len(want) || less == 0 {
				continue
			}
			got := make([]byte, len(want)-less)
			n, err := d.Deflate(got, packed)
			if n != len(got) || !errors.Is(err, ErrTooLong) || !bytes.Equal(got, want[:n]) {
				t.Errorf("%s, %d bytes of %d: %d, %v; want the first bytes and ErrTooLong", name, len(got), len(want), n, err)
			}
		}
	}
}

func TestDeflateAStreamThatIsCutShort(t *testing.T) {
	var d Decoder
	for name, plain := range contents() {
		plain = plain[:min(len(plain), 1000)]
		for _, level := range []int{flate.NoCompression, flate.BestSpeed, flate.DefaultCompression} {
			packed := deflate(t, level, plain)
			for cut := range packed {
				got := make([]byte, len(plain))
				n, err := d.Deflate(got, packed[:cut])
				if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.Equal(got[:n], plain[:n]) {
					t.Fatalf("%s at level %d, %d bytes of %d: %d, %v; want io.ErrUnexpectedEOF, and what is right",
						name, level, cut, len(packed), n, err)
				}
			}
		}
	}
}

func TestDeflateAStoredBlockThatIsCutShort(t *testing.T) {
	var d Decoder
	whole := []byte{1, 3, 0, 0xfc, 0xff, 'A', 'B', 'C'}
	for cut := range whole {
		if n, err := d.Deflate(make([]byte, 10), whole[:cut]); !errors.Is(err, io.ErrUnexpectedEOF) || n != max(0, cut-5) {
			t.Errorf("%d bytes of %d: %d, %v; want io.ErrUnexpectedEOF", cut, len(whole), n, err)
		}
	}
}

func TestDeflateAllocatesNothing(t *testing.T) {
	plain := contents()["mixed"]
	packed := deflate(t, flate.DefaultCompression, plain)
	d, dst := new(Decoder), make([]byte, len(plain))
	if n := testing.AllocsPerRun(10, func() { d.Deflate(dst, packed) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// bitWriter writes streams that no encoder does.
type bitWriter struct {
	b []byte
	n int
}

// add writes the n low bits of v, the lowest first.
func (w *bitWriter) add(v, n int) *bitWriter {
	for i := range n {
		if w.n%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.n/8] |= byte(v>>i&1) << (w.n % 8)
		w.n++
	}
	return w
}

// codes writes bits in the order of the text.
func (w *bitWriter) codes(bits string) *bitWriter {
	for _, bit := range bits {
		if bit != ' ' {
			w.add(int(bit-'0'), 1)
		}
	}
	return w
}

// dynamic begins a last block with these code lengths, each of which is written
// as a code of 4 bits: of 16 symbols each is its own code.
func dynamic(litlens, dists map[int]int) *bitWriter {
	w := new(bitWriter).add(1, 1).add(2, 2).add(29, 5).add(29, 5).add(15, 4)
	for _, symbol := range codelenOrder {
		if symbol < 16 {
			w.add(4, 3)
		} else {
			w.add(0, 3)
		}
	}
	put := func(lengths map[int]int, n int) {
		for symbol := range n {
			w.codes(fmt.Sprintf("%04b", lengths[symbol]))
		}
	}
	put(litlens, 286)
	put(dists, 30)
	return w
}

func fixed() *bitWriter { return new(bitWriter).add(1, 1).add(1, 2) }

func TestDeflateByHand(t *testing.T) {
	var d Decoder
	// Symbols: a literal A, the end, a length of 3.
	litlens := map[int]int{'A': 1, 256: 2, 257: 2}
	long := map[int]int{}
	for n := 1; n <= 15; n++ {
		long[n] = n
	}
	long[256] = 15

	for _, test := range []struct {
		name string
		src  *bitWriter
		want string
		fail error
	}{
		{name: "one distance, of one bit", src: dynamic(litlens, map[int]int{0: 1}).codes("0 11 0 10"), want: "AAAA"},
		{name: "no distance, and none used", src: dynamic(litlens, nil).codes("0 0 0 10"), want: "AAA"},
		{name: "no distance, but one used", src: dynamic(litlens, nil).codes("0 11 0 10 0000000"), fail: errCode},
		{name: "one distance, and the other used", src: dynamic(litlens, map[int]int{0: 1}).codes("0 11 1 10 0000000"), fail: errCode},
		{name: "one distance, of two bits", src: dynamic(litlens, map[int]int{0: 2}).codes("0 10"), fail: errIncomplete},
		{name: "two distances, of two bits", src: dynamic(litlens, map[int]int{0: 2, 1: 2}).codes("0 10"), fail: errIncomplete},
		{name: "three distances of one bit", src: dynamic(litlens, map[int]int{0: 1, 1: 1, 2: 1}).codes("0 10"), fail: errOversubscribed},
		{name: "literals only to the end of a block", src: dynamic(map[int]int{256: 1}, nil).codes("0"), want: ""},
		{name: "no end of the block", src: dynamic(map[int]int{'A': 1, 'B': 1}, nil).codes("0"), fail: errNoEnd},
		{name: "incomplete literals", src: dynamic(map[int]int{'A': 2, 256: 2}, nil).codes("00 01"), fail: errIncomplete},
		{name: "too many literals", src: dynamic(map[int]int{'A': 1, 'B': 1, 256: 1}, nil).codes("0"), fail: errOversubscribed},
		{name: "codes of all lengths", src: dynamic(long, nil).codes("0 10 11110 111111111110 1111111111110 111111111111110 111111111111111"),
			want: "\x01\x02\x05\x0c\x0d\x0f"},
		{name: "distance to before the start", src: dynamic(litlens, map[int]int{1: 1}).codes("0 11 0 10"), fail: errDistance},

		{name: "fixed codes", src: fixed().codes("00110000 0000001 00000 00000000 0000000"), want: "\x00\x00\x00\x00"},
		{name: "a fixed length without a meaning", src: fixed().codes("00110000 11000110 0000000000"), fail: errCode},
		{name: "a fixed distance without a meaning", src: fixed().codes("00110000 0000001 11110 00000000000"), fail: errCode},
		{name: "a block of type 3", src: new(bitWriter).add(1, 1).add(3, 2).add(0, 20), fail: errType},
		{name: "287 literals", src: new(bitWriter).add(1, 1).add(2, 2).add(30, 5).add(0, 5).add(0, 4).add(0, 100), fail: errSymbols},
		{name: "31 distances", src: new(bitWriter).add(1, 1).add(2, 2).add(0, 5).add(30, 5).add(0, 4).add(0, 100), fail: errSymbols},
		{name: "a code of code lengths with one code", src: new(bitWriter).add(1, 1).add(2, 2).add(0, 5).add(0, 5).add(0, 4).
			add(0, 3).add(0, 3).add(0, 3).add(1, 3).add(0, 300), fail: errIncomplete},
		{name: "a repetition of nothing", src: new(bitWriter).add(1, 1).add(2, 2).add(0, 5).add(0, 5).add(0, 4).
			add(1, 3).add(0, 3).add(0, 3).add(1, 3).codes("1 00").add(0, 300), fail: errRepetition},
		{name: "a repetition beyond the last symbol", src: new(bitWriter).add(1, 1).add(2, 2).add(0, 5).add(0, 5).add(0, 4).
			add(0, 3).add(0, 3).add(1, 3).add(1, 3).codes("1 1111111 1 1111111").add(0, 300), fail: errRepetition},
		{name: "a stored block that is not what it says", src: new(bitWriter).add(1, 8).add(3, 16).add(3, 16).add(0, 24), fail: errStored},
		{name: "a stored block", src: new(bitWriter).add(1, 8).add(3, 16).add(^3, 16).add('A', 8).add('B', 8).add('C', 8), want: "ABC"},
		{name: "an empty stored block, then a fixed one", src: new(bitWriter).add(0, 8).add(0, 16).add(^0, 16).add(1, 1).add(1, 2).
			codes("01110001 0000000"), want: "A"},
	} {
		t.Run(test.name, func(t *testing.T) {
			// Near the end of the input, and not.
			for _, src := range [][]byte{test.src.b, append(test.src.b, make([]byte, 50)...)} {
				got := make([]byte, 1000)
				n, err := d.Deflate(got, src)
				if !errors.Is(err, test.fail) || err == nil && string(got[:n]) != test.want {
					t.Errorf("%q, %v; want %q, %v", got[:n], err, test.want, test.fail)
				}
			}
		})
	}
}

func TestZlib(t *testing.T) {
	var d Decoder
	dst := make([]byte, 80000)
	for name, want := range contents() {
		var b bytes.Buffer
		w := zlib.NewWriter(&b)
		w.Write(want)
		w.Close()
		for _, rubbish := range []string{"", "x", "a sector's rest"} {
			n, err := d.Zlib(dst, append(b.Bytes(), rubbish...))
			if err != nil || !bytes.Equal(dst[:n], want) {
				t.Errorf("%s: %d, %v; want %d bytes, and the content", name, n, err, len(want))
			}
		}
	}

	good := []byte{0x78, 0x9c, 0x4b, 0x04, 0x00, 0x00, 0x62, 0x00, 0x62} // "a"
	if n, err := d.Zlib(dst, good); string(dst[:n]) != "a" || err != nil {
		t.Fatalf("%q, %v; want \"a\"", dst[:n], err)
	}
	for cut := range good {
		if _, err := d.Zlib(dst, good[:cut]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: %v; want io.ErrUnexpectedEOF", cut, err)
		}
	}
	if n, err := d.Zlib(nil, good); n != 0 || !errors.Is(err, ErrTooLong) {
		t.Errorf("without room: %d, %v; want ErrTooLong", n, err)
	}
	for _, test := range []struct {
		name string
		at   int
		b    []byte
	}{
		{"another method", 0, []byte{0x79, 0x18}},
		{"a window that is too large", 0, []byte{0x88, 0x1c}},
		{"a header whose check fails", 1, []byte{0x9d}},
		{"a dictionary", 0, []byte{0x78, 0xbb}},
		{"a wrong checksum", 8, []byte{0x63}},
		{"a wrong checksum, in its first byte", 5, []byte{0x01}},
	} {
		bad := bytes.Clone(good)
		copy(bad[test.at:], test.b)
		if _, err := d.Zlib(dst, bad); err == nil || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v; want an error about it", test.name, err)
		}
	}
}

// FuzzDeflate compares with the standard library, which reads all but two
// streams that zlib refuses, as we do.
func FuzzDeflate(f *testing.F) {
	for name, plain := range contents() {
		plain = plain[:min(len(plain), 300)] // or minimizing takes all the time
		for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, flate.BestSpeed, flate.DefaultCompression} {
			if level == flate.DefaultCompression || len(name) > 8 {
				f.Add(deflate(f, level, plain), uint16(len(plain)))
				f.Add(deflate(f, level, plain), uint16(len(plain)+fastOut))
			}
		}
	}
	f.Add(fixed().codes("00110000 0000001 00000 00000000 0000000").b, uint16(9))
	f.Add(dynamic(map[int]int{'A': 1, 256: 2, 257: 2}, map[int]int{0: 1}).codes("0 11 0 10").b, uint16(4))
	f.Add([]byte{1, 3, 0, 0xfc, 0xff, 'A', 'B', 'C'}, uint16(3))

	oracle := flate.NewReader(nil)
	buf, wantBuf := make([]byte, 1<<16), make([]byte, 1<<16+1)
	f.Fuzz(func(t *testing.T, src []byte, size uint16) {
		n, err := new(Decoder).Deflate(buf[:size], src) // new, so that coverage depends on nothing else
		got := buf[:n]

		oracle.(flate.Resetter).Reset(bytes.NewReader(src), nil)
		m, wantErr := io.ReadFull(oracle, wantBuf[:int(size)+1])
		want := wantBuf[:m]
		if errors.Is(wantErr, io.EOF) || errors.Is(wantErr, io.ErrUnexpectedEOF) {
			_, wantErr = oracle.Read(wantBuf[m:][:1]) // which of the two it is
			if errors.Is(wantErr, io.EOF) {
				wantErr = nil
			}
		}
		switch {
		case err == nil:
			if wantErr != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes; want %d, %v, and the same", n, len(want), wantErr)
			}
		case errors.Is(err, ErrTooLong):
			// The library wants as many bits for a literal as the end of a
			// block takes, even if src has fewer.
			if n != int(size) || len(want) < n && wantErr == nil || !bytes.HasPrefix(want, got) && !bytes.HasPrefix(got, want) {
				t.Errorf("%d bytes, %v; want %d, %v, and the same", n, err, len(want), wantErr)
			}
		case errors.Is(err, errNoEnd), errors.Is(err, errIncomplete):
		case len(want) <= int(size) && wantErr == nil:
			t.Errorf("%v; want %d bytes", err, len(want))
		}
	})
}

func BenchmarkDeflate(b *testing.B) {
	for name, plain := range contents() {
		if len(plain) < 60000 {
			continue
		}
		packed, dst := deflate(b, flate.DefaultCompression, plain), make([]byte, len(plain))
		b.Run(name, func(b *testing.B) {
			var d Decoder
			b.SetBytes(int64(len(plain)))
			for b.Loop() {
				if _, err := d.Deflate(dst, packed); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
