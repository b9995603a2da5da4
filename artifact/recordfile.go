package artifact

import (
	"bufio"
	"fmt"
	"io"
	"os"
)

// A recordFile is a list of records of one size, kept in a file.
type recordFile struct {
	f    *os.File
	w    *bufio.Writer
	size int
	buf  []byte
}

func newRecordFile(dir string, size int) (*recordFile, error) {
	f, err := tempFile(dir)
	if err != nil {
		return nil, err
	}
	return &recordFile{f, bufio.NewWriterSize(f, 1<<16), size, make([]byte, size)}, nil
}

func (r *recordFile) add(fill func(b []byte)) error {
	fill(r.buf)
	if _, err := r.w.Write(r.buf); err != nil {
		return fmt.Errorf("writing scratch file: %w", err)
	}
	return nil
}

// each calls f with count records after the first skip.
func (r *recordFile) each(skip, count int64, f func(b []byte) error) error {
	if err := r.w.Flush(); err != nil {
		return fmt.Errorf("writing scratch file: %w", err)
	}
	in := bufio.NewReaderSize(io.NewSectionReader(r.f, skip*int64(r.size), count*int64(r.size)), 1<<16)
	b := make([]byte, r.size)
	for range count {
		if _, err := io.ReadFull(in, b); err != nil {
			return fmt.Errorf("reading scratch file: %w", err)
		}
		if err := f(b); err != nil {
			return err
		}
	}
	return nil
}

func (r *recordFile) close() error { return removeTemp(r.f) }
