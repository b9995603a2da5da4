package vmdk

import (
	"bytes"
	"errors"
	"io"

	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/klauspost/compress/zlib"
)

// An inflater reads compressed grains, one after the other.
type inflater struct {
	src    []byte
	reader io.ReadCloser
}

// read reads n bytes; they are valid until the next call.
func (d *inflater) read(file virtual.Reader, off, n int64) ([]byte, error) {
	if int64(cap(d.src)) < n {
		d.src = make([]byte, n)
	}
	b := d.src[:n]
	if n, err := file.ReadAt(b, off); n < len(b) {
		return nil, err
	}
	return b, nil
}

// zlib decompresses the stream that src begins with to the front of dst, and
// returns how long it is.
func (d *inflater) zlib(dst, src []byte) (int, error) {
	var err error
	if d.reader == nil {
		d.reader, err = zlib.NewReader(bytes.NewReader(src))
	} else {
		err = d.reader.(zlib.Resetter).Reset(bytes.NewReader(src), nil)
	}
	if err != nil {
		return 0, err
	}
	n, one := 0, make([]byte, 1)
	for err == nil {
		p := dst[n:]
		if len(p) == 0 { // for the checksum
			p = one
		}
		var m int
		if m, err = d.reader.Read(p); m > 0 && n == len(dst) {
			return 0, errors.New("zlib stream is longer than it should be")
		}
		n += m
	}
	if err != io.EOF {
		return 0, err
	}
	return n, nil
}
