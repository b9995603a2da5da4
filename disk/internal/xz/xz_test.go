package xz

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"hash/crc64"
	"io"
	"runtime"
	"strings"
	"testing"

	ulikunitz "github.com/ulikunitz/xz"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// A testBlock is a Block in the words of the specification. Its zero value with
// Data is a right one.
type testBlock struct {
	data   string
	flags  byte
	fields []byte // between flags and padding; nil: LZMA2 with 4 KiB
	chunks []byte // nil: data, as it is
	pad    byte
	badSum bool
}

func (b testBlock) header() []byte {
	fields := b.fields
	if fields == nil {
		fields = []byte{0x21, 1, 0}
	}
	h := append([]byte{0, b.flags}, fields...)
	for len(h)%4 != 0 {
		h = append(h, b.pad)
	}
	h[0] = byte(len(h) / 4)
	return binary.LittleEndian.AppendUint32(h, crc32.ChecksumIEEE(h))
}

func (b testBlock) compressed() []byte {
	if b.chunks != nil {
		return b.chunks
	}
	n := len(b.data) - 1
	return append(append([]byte{1, byte(n >> 8), byte(n)}, b.data...), 0)
}

// A testStream is a Stream; its functions change what is written before it gets a checksum.
type testStream struct {
	check        byte
	blocks       []testBlock
	changeHeader func([]byte)
	changeIndex  func([]byte) []byte
	changeFooter func([]byte)
}

func (s testStream) bytes() []byte {
	header := []byte{0xfd, '7', 'z', 'X', 'Z', 0, 0, s.check}
	if s.changeHeader != nil {
		s.changeHeader(header)
	}
	out := binary.LittleEndian.AppendUint32(header, crc32.ChecksumIEEE(header[6:]))
	index := binary.AppendUvarint([]byte{0}, uint64(len(s.blocks)))
	for _, b := range s.blocks {
		start := len(out)
		out = append(append(out, b.header()...), b.compressed()...)
		unpadded := len(out) - start
		for len(out)%4 != 0 {
			out = append(out, b.pad)
		}
		sum := checkOf(s.check, b.data)
		unpadded += len(sum)
		if b.badSum {
			sum[0] ^= 1
		}
		out = append(out, sum...)
		index = binary.AppendUvarint(binary.AppendUvarint(index, uint64(unpadded)), uint64(len(b.data)))
	}
	for len(index)%4 != 0 {
		index = append(index, 0)
	}
	if s.changeIndex != nil {
		index = s.changeIndex(index)
	}
	out = binary.LittleEndian.AppendUint32(append(out, index...), crc32.ChecksumIEEE(index))
	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4))
	footer = append(footer, 0, s.check)
	if s.changeFooter != nil {
		s.changeFooter(footer)
	}
	out = binary.LittleEndian.AppendUint32(out, crc32.ChecksumIEEE(footer))
	return append(append(out, footer...), "YZ"...)
}

func checkOf(check byte, data string) []byte {
	switch check {
	case 1:
		return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(data)))
	case 4:
		return binary.LittleEndian.AppendUint64(nil, crc64.Checksum([]byte(data), crc64.MakeTable(crc64.ECMA)))
	case 10:
		sum := sha256.Sum256([]byte(data))
		return sum[:]
	}
	return nil
}

func read(b []byte) ([]byte, error) {
	return io.ReadAll(NewReader(bufio.NewReader(bytes.NewReader(b))))
}

// declared are the fields of a block header with both sizes.
func declared(compressed, plain uint64) []byte {
	return append(binary.AppendUvarint(binary.AppendUvarint(nil, compressed), plain), 0x21, 1, 0)
}

func TestReader(t *testing.T) {
	ab := []testBlock{{data: "a"}, {data: "bcd"}}
	for name, test := range map[string]struct {
		file []byte
		want string
	}{
		"no check":                    {testStream{blocks: ab}.bytes(), "abcd"},
		"CRC32":                       {testStream{check: 1, blocks: ab}.bytes(), "abcd"},
		"CRC64":                       {testStream{check: 4, blocks: ab}.bytes(), "abcd"},
		"SHA-256":                     {testStream{check: 10, blocks: ab}.bytes(), "abcd"},
		"no blocks":                   {testStream{check: 1}.bytes(), ""},
		"an empty block":              {testStream{check: 1, blocks: []testBlock{{chunks: []byte{0}}}}.bytes(), ""},
		"sizes in the header":         {testStream{blocks: []testBlock{{data: "abc", flags: 0xc0, fields: declared(7, 3)}}}.bytes(), "abc"},
		"dictionary of 64 MiB":        {testStream{blocks: []testBlock{{data: "abc", fields: []byte{0x21, 1, 28}}}}.bytes(), "abc"},
		"two streams":                 {append(testStream{blocks: ab}.bytes(), testStream{check: 4, blocks: ab}.bytes()...), "abcdabcd"},
		"padding between and at last": {append(append(append(testStream{blocks: ab}.bytes(), make([]byte, 8)...), testStream{blocks: ab}.bytes()...), 0, 0, 0, 0), "abcdabcd"},
	} {
		if got, err := read(test.file); string(got) != test.want || err != nil {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, test.want)
		}
		if oracle, err := byModule(test.file); string(oracle) != test.want || err != nil {
			t.Errorf("%s: the module reads %q, %v, want %q", name, oracle, err, test.want)
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	one := func(b testBlock) []byte { return testStream{check: 4, blocks: []testBlock{b}}.bytes() }
	a := []testBlock{{data: "a"}}
	right := testStream{check: 1, blocks: a}.bytes()
	for name, test := range map[string]struct {
		file        []byte
		says        string
		unsupported bool
	}{
		"nothing":                     {nil, "unexpected EOF", false},
		"another file":                {bytes.Repeat([]byte("another file"), 2), "not an xz file", false},
		"padding first":               {append(make([]byte, 4), right...), "not an xz file", false},
		"padding of three":            {append(right[:len(right):len(right)], 0, 0, 0), "stream padding", false},
		"garbage behind":              {append(right[:len(right):len(right)], "some garbage"...), "follows the last stream", false},
		"a short stream header":       {right[:11], "unexpected EOF", false},
		"stream flags":                {testStream{changeHeader: func(b []byte) { b[6] = 1 }}.bytes(), "stream flags", true},
		"an unknown check":            {testStream{changeHeader: func(b []byte) { b[7] = 2 }}.bytes(), "check 2", true},
		"block flags":                 {one(testBlock{data: "a", flags: 4}), "block flags", true},
		"filter Delta":                {one(testBlock{data: "a", flags: 1, fields: []byte{3, 1, 0, 0x21, 1, 0}}), "filter Delta", true},
		"filter BCJ x86":              {one(testBlock{data: "a", flags: 1, fields: []byte{4, 0, 0x21, 1, 0}}), "filter BCJ x86", true},
		"an unknown filter":           {one(testBlock{data: "a", fields: []byte{0x7f, 0}}), "filter 0x7f", true},
		"LZMA2 twice":                 {one(testBlock{data: "a", flags: 1, fields: []byte{0x21, 1, 0, 0x21, 1, 0}}), "LZMA2 filter", false},
		"LZMA2 with two properties":   {one(testBlock{data: "a", fields: []byte{0x21, 2, 0, 0}}), "LZMA2 filter", false},
		"LZMA2 with reserved bits":    {one(testBlock{data: "a", fields: []byte{0x21, 1, 0x40}}), "LZMA2 filter", false},
		"a dictionary of 96 MiB":      {one(testBlock{data: "a", fields: []byte{0x21, 1, 29}}), "dictionary of 100663296", true},
		"a dictionary of 6 GiB":       {one(testBlock{data: "a", fields: []byte{0x21, 1, 41}}), "LZMA2 filter", false},
		"a dictionary of 4 GiB":       {one(testBlock{data: "a", fields: []byte{0x21, 1, 40}}), "dictionary of 4294967296", true},
		"properties beyond":           {one(testBlock{data: "a", fields: []byte{0x21, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}}), "leave a block header", false},
		"no filter":                   {one(testBlock{data: "a", fields: []byte{}, pad: 0xff}), "leave a block header", false},
		"fields after the filters":    {one(testBlock{data: "a", pad: 1}), "unknown fields", true},
		"an integer of 64 bits":       {one(testBlock{data: "a", flags: 0x40, fields: append(bytes.Repeat([]byte{0xff}, 9), 1)}), "63 bits", false},
		"an integer with a zero byte": {one(testBlock{data: "a", flags: 0x40, fields: []byte{0x85, 0}}), "too many bytes", false},
		"more plain than declared":    {one(testBlock{data: "abc", flags: 0xc0, fields: declared(7, 2)}), "larger than", false},
		"less plain than declared":    {one(testBlock{data: "abc", flags: 0xc0, fields: declared(7, 4)}), "another size", false},
		"more bytes than declared":    {one(testBlock{data: "abc", flags: 0xc0, fields: declared(6, 3)}), "another size", false},
		"a wrong check":               {one(testBlock{data: "a", badSum: true}), "checksum of a block", false},
		"an unknown chunk":            {one(testBlock{data: "a", chunks: []byte{3, 0, 0, 0}}), "lzma", false},
		"a chunk before a reset":      {one(testBlock{data: "a", chunks: []byte{2, 0, 0, 'a', 0}}), "lzma", false},
		"too few records":             {testStream{blocks: a, changeIndex: func([]byte) []byte { return make([]byte, 4) }}.bytes(), "number of blocks", false},
		"a record of another size":    {testStream{blocks: a, changeIndex: func(b []byte) []byte { b[3]++; return b }}.bytes(), "other sizes", false},
		"padding of the index":        {testStream{changeIndex: func(b []byte) []byte { b[3] = 1; return b }}.bytes(), "padding", false},
		"footer with other flags":     {testStream{check: 1, changeFooter: func(b []byte) { b[5] = 4 }}.bytes(), "other flags", false},
		"footer with another size":    {testStream{changeFooter: func(b []byte) { b[0]++ }}.bytes(), "size of the index", false},
		"a wrong last stream":         {append(right[:len(right):len(right)], one(testBlock{data: "a", badSum: true})...), "checksum of a block", false},
	} {
		before := allocated()
		got, err := read(test.file)
		if err == nil || !strings.Contains(err.Error(), test.says) || errors.Is(err, virtual.ErrUnsupported) != test.unsupported {
			t.Errorf("%s: got %q, error %v, want one that says %s, unsupported %t", name, got, err, test.says, test.unsupported)
		}
		if n := allocated() - before; n > 1<<20 {
			t.Errorf("%s: allocated %d KiB", name, n>>10)
		}
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// Each byte is protected by a checksum, or by what has to be equal to it.
func TestNoByteCanChange(t *testing.T) {
	for _, check := range []byte{1, 4, 10} {
		file := testStream{check: check, blocks: []testBlock{{data: "some data"}, {data: "more"}}}.bytes()
		for i := range file {
			for _, bit := range []byte{1, 0x80} {
				changed := bytes.Clone(file)
				changed[i] ^= bit
				if got, err := read(changed); err == nil {
					t.Errorf("check %d: byte %d changed by %#x is read as %q", check, i, bit, got)
				}
			}
			if got, err := read(file[:i]); err == nil {
				t.Errorf("check %d: the first %d bytes are read as %q", check, i, got)
			}
		}
	}
}

// byModule reads with the reader of the module, another one but for the decoder.
func byModule(b []byte) ([]byte, error) {
	r, err := ulikunitz.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// What is read is read alike by the module's own reader. That one reads some
// files that are refused here: it takes a chunk or a stream that is cut off for
// one that ends.
func FuzzReader(f *testing.F) {
	for _, check := range []byte{0, 1, 4, 10} {
		f.Add(testStream{check: check, blocks: []testBlock{{data: "a"}, {data: "bcd"}}}.bytes())
	}
	f.Add(testStream{blocks: []testBlock{{data: "abc", flags: 0xc0, fields: declared(7, 3)}}}.bytes())
	f.Add(append(testStream{check: 1}.bytes(), 0, 0, 0, 0))
	var packed bytes.Buffer
	w, err := ulikunitz.WriterConfig{DictCap: 1 << 16, BlockSize: 3000}.NewWriter(&packed)
	if err != nil {
		f.Fatal(err)
	}
	w.Write([]byte(strings.Repeat("a line of text\n", 500)))
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(packed.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 20
		got, err := io.ReadAll(io.LimitReader(NewReader(bufio.NewReader(bytes.NewReader(b))), limit))
		if len(got) == limit || err != nil {
			return
		}
		if want, err := byModule(b); err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d bytes, and the module %d, %v", len(got), len(want), err)
		}
	})
}
