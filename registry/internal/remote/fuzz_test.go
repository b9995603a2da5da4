package remote

import (
	"fmt"
	"testing"
)

// FuzzContentRange wants of any header that it is refused, or that its numbers,
// written as RFC 9110 does, are those that it holds.
func FuzzContentRange(f *testing.F) {
	for _, h := range []string{"bytes 0-9/10", "bytes 5-5/*", "bytes */10", "bytes 9-0/10", "bytes 0-10/10", "bytes -1-2/3", "bytes 0-9223372036854775807/*", "items 0-1/2", "bytes 00-01/2"} {
		f.Add(h)
	}
	f.Fuzz(func(t *testing.T, h string) {
		first, last, size, err := parseContentRange(h)
		if err != nil {
			return
		}
		if first < 0 || last < first || size != -1 && size <= last {
			t.Fatalf("%q: %d to %d of %d", h, first, last, size)
		}
		total := "*"
		if size >= 0 {
			total = fmt.Sprint(size)
		}
		a, z, n, err := parseContentRange(fmt.Sprintf("bytes %d-%d/%s", first, last, total))
		if err != nil || a != first || z != last || n != size {
			t.Errorf("%q: %d to %d of %d, and then %d to %d of %d: %v", h, first, last, size, a, z, n, err)
		}
	})
}
