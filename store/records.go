package store

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"

	"github.com/davit-oci/davit/internal/own"
)

// records is a file of JSON records, one on a line, that survive kill -9. Several
// processes can use it at the same time: a record is there as a whole or not at
// all.
type records struct{ path string }

// maxRecord is the largest record in bytes. A record is read into memory.
const maxRecord = 64 << 20

// append adds a record and waits until it is on stable storage. It makes the
// file if there is none.
func (r records) append(record any) error {
	line, err := json.Marshal(record)
	if err != nil {
		return err
	}
	if len(line) >= maxRecord {
		return fmt.Errorf("a record of %d bytes", len(line))
	}
	f, err := own.OpenOrCreate(r.path, os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// A line that a killed process has left half done must not swallow this one.
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if n := info.Size(); n > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, n-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	// One write: systems append it as a whole.
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	return f.Sync()
}

// all gives the records in the order in which they were written, without what a
// killed process has left half done. A record is valid until the next one. An
// error is the last thing given. A file that does not exist has no records.
func (r records) all() iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		f, err := own.Open(r.path, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, maxRecord+1)
		lines.Split(wholeLines)
		for lines.Scan() {
			if line := lines.Bytes(); json.Valid(line) && !yield(line, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(nil, err)
		}
	}
}

// wholeLines is bufio.ScanLines without a last line that does not end.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF {
		return len(data), nil, nil
	}
	return 0, nil, nil
}

// remove removes the file. It need not exist.
func (r records) remove() error {
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
