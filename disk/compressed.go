package disk

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/bzip2"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/davit-oci/davit/disk/internal/xz"
)

// ErrCompressed says that the file is compressed, or an archive, and whether there is a
// disk in it remains to be seen. Every such error is a [CompressedError], and
// [ErrUnsupported] as well.
var ErrCompressed = errors.New("compressed file")

// A CompressedError says what a file is compressed by. [NewDecompressor] reads
// gzip, xz, zstd and bzip2.
type CompressedError struct {
	By string // "gzip", "7z"
}

func (e *CompressedError) Error() string {
	return fmt.Sprintf("%v: %v: %s (if these are the bytes of a disk, say that it is raw)", ErrUnsupported, ErrCompressed, e.By)
}

// Is is for [errors.Is].
func (e *CompressedError) Is(target error) bool {
	return target == ErrCompressed || target == ErrUnsupported
}

// headLen is how many bytes of a file say what it is.
const headLen = 512

// decompressors read what [virtual.CompressedBy] names. The rest is only known so
// that nobody takes it for the bytes of a disk.
var decompressors = map[string]func(*bufio.Reader) (io.ReadCloser, error){
	"gzip": openGzip, "xz": openXZ, "zstd": openZstd, "bzip2": openBzip2,
}

// NewDecompressor reads the plain bytes of a file that r reads from its begin:
// of all members, streams or frames that it is made of, one after another.
// Zeros after a gzip member, stream padding of xz and skippable frames of zstd
// are passed over. Whatever else follows is [ErrCorrupt], as for xz and zstd;
// gzip and bzip2 would only warn, but who packed a disk put nothing behind it.
//
// It takes up to 64 MiB of memory for xz, 128 MiB for zstd, and little for the
// others. Checksums are verified at the end of what they are for: a disk is
// good when Read returned [io.EOF]. An error of Read is [ErrCorrupt],
// [ErrUnsupported] for what needs more memory or has filters for machine code,
// or that of r.
//
// NewDecompressor itself fails with a [CompressedError] if it knows what it
// cannot read, and with [ErrUnsupported] if the file is not compressed at all.
// Whoever unpacks what others made must put a limit to it.
func NewDecompressor(r io.Reader) (io.ReadCloser, error) {
	in := &input{r: r}
	in.buf = bufio.NewReaderSize(readerFunc(in.read), 64<<10)
	head, err := in.buf.Peek(headLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	by := virtual.CompressedBy(head)
	if by == "" {
		return nil, virtual.Unsupported("not a compressed file")
	}
	d := &decompressor{by: by, in: in}
	open := decompressors[by]
	if open == nil {
		return nil, &CompressedError{by}
	}
	d.plain, err = open(in.buf)
	return d, err
}

// An input keeps the error of the file, which a decoder may take for its own,
// and does not ask again: bzip2 reads on for a whole block.
type input struct {
	r    io.Reader
	buf  *bufio.Reader
	err  error
	ends bool
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func (in *input) read(p []byte) (int, error) {
	if in.ends {
		return 0, cmp.Or(in.err, io.EOF)
	}
	n, err := in.r.Read(p)
	if in.ends = err != nil; in.ends && !errors.Is(err, io.EOF) {
		in.err = err
	}
	return n, err
}

// A decompressor says in words of this package what is wrong with a file.
type decompressor struct {
	by    string
	in    *input
	plain io.ReadCloser
}

func (d *decompressor) Read(p []byte) (int, error) {
	n, err := d.plain.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	_, atEnd := d.in.buf.Peek(1)
	switch {
	case d.in.err != nil:
		err = d.in.err
	case errors.Is(err, ErrUnsupported):
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded):
		err = virtual.Unsupported("zstd window of more than %d bytes", maxZstdWindow)
	case errors.Is(err, zstd.ErrUnknownDictionary):
		err = virtual.Unsupported("zstd dictionary")
	case errors.Is(err, io.ErrUnexpectedEOF) && errors.Is(atEnd, io.EOF):
		err = virtual.Corrupt("%s: the file is cut short", d.by)
	case errors.Is(err, io.ErrUnexpectedEOF):
		err = virtual.Corrupt("%s: compressed data ends early", d.by)
	default:
		err = virtual.Corrupt("%s: %w", d.by, err)
	}
	return n, err
}

func (d *decompressor) Close() error { return d.plain.Close() }

func openXZ(r *bufio.Reader) (io.ReadCloser, error) { return io.NopCloser(xz.NewReader(r)), nil }

func openBzip2(r *bufio.Reader) (io.ReadCloser, error) { return io.NopCloser(bzip2.NewReader(r)), nil }

// maxZstdWindow is what the zstd program takes without --memory, and what its
// highest level needs.
const maxZstdWindow = 128 << 20

func openZstd(r *bufio.Reader) (io.ReadCloser, error) {
	z, err := zstd.NewReader(r,
		zstd.WithDecoderConcurrency(1), // reads no more than it says, and leaves no goroutine
		zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxZstdWindow),
		zstd.WithDecoderMaxMemory(maxZstdWindow)) // of single segments, whose window is their size
	if err != nil {
		return nil, err
	}
	return z.IOReadCloser(), nil
}

// A gzipReader reads the members of a file one by one, to see what follows each.
type gzipReader struct {
	in     *bufio.Reader
	member *gzip.Reader
	err    error
}

func openGzip(r *bufio.Reader) (io.ReadCloser, error) { return io.NopCloser(&gzipReader{in: r}), nil }

func (z *gzipReader) Read(p []byte) (n int, err error) {
	for n == 0 && len(p) > 0 && z.err == nil {
		if z.member == nil {
			z.member = new(gzip.Reader)
			z.err = z.header()
			continue
		}
		n, z.err = z.member.Read(p)
		if errors.Is(z.err, io.EOF) {
			z.err = z.next()
		}
	}
	return n, z.err
}

// next goes to the next member, if there is one.
func (z *gzipReader) next() error {
	switch head, err := z.in.Peek(2); {
	case len(head) > 0 && head[0] == 0:
		return z.padding()
	case len(head) == 0:
		return err
	case !bytes.Equal(head, []byte("\x1f\x8b")):
		return errors.New("what follows the last member is not a gzip member")
	}
	return z.header()
}

// header begins a member. The module ignores flags that RFC 1952, 2.3.1.2,
// wants to be refused, and calls a header that is cut short the end of the file.
func (z *gzipReader) header() error {
	if head, _ := z.in.Peek(4); len(head) == 4 && head[3]&0xe0 != 0 {
		return virtual.Unsupported("gzip flags %#02x", head[3])
	}
	err := z.member.Reset(z.in)
	z.member.Multistream(false)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// padding reads zeros to the end of the file: what tapes are filled up with.
func (z *gzipReader) padding() error {
	for {
		b, err := z.in.ReadByte()
		if err != nil {
			return err
		}
		if b != 0 {
			return errors.New("what follows the last member is not a gzip member")
		}
	}
}
