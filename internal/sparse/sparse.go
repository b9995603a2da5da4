// Package sparse leaves zeros out of files.
package sparse

import "io"

// Unit is the length in bytes from which on zeros are left out. A multiple of
// it is a good length for the pieces that are given to [Write].
const Unit = 64 << 10

// Write writes p at off of w, which has zeros there already. It leaves out every
// [Unit] of p that is zeros.
func Write(w io.WriterAt, p []byte, off int64) error {
	for start := 0; start < len(p); {
		end := min(len(p), start+Unit)
		if isZero(p[start:end]) {
			start = end
			continue
		}
		for end < len(p) && !isZero(p[end:min(len(p), end+Unit)]) {
			end = min(len(p), end+Unit)
		}
		if _, err := w.WriteAt(p[start:end], off+int64(start)); err != nil {
			return err
		}
		start = end
	}
	return nil
}

func isZero(p []byte) bool {
	// Compared with itself, shifted by one: memequal is as fast as it gets.
	return len(p) == 0 || p[0] == 0 && string(p[1:]) == string(p[:len(p)-1])
}
