package layout

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/davit-oci/davit/registry/internal/reference"
	"github.com/opencontainers/go-digest"
)

// FuzzArchive: no archive makes us read what is not in it.
func FuzzArchive(f *testing.F) {
	blob := "content"
	f.Add(smallArchive(f, blob))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := scanArchive(context.Background(), bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for d, s := range c.blobs {
			if !reference.ValidDigest(d) || s.off < 0 || s.size < 0 || s.off > int64(len(b))-s.size {
				t.Errorf("blob %s at %d+%d of %d", d, s.off, s.size, len(b))
			}
		}
	})
}

// How many members an archive has, who made it decides; how many are taken,
// and so what is kept of them, does not depend on that.
func TestArchiveOfManyMembers(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	defer r.Close() // ends the writer
	go func() {
		tw := tar.NewWriter(w)
		for i := range 2 * maxArchiveMembers {
			if tw.WriteHeader(&tar.Header{Name: fmt.Sprint(strings.Repeat("x/", 1500), i), Typeflag: tar.TypeReg, Mode: 0o644}) != nil {
				return
			}
		}
		w.CloseWithError(tw.Close())
	}()
	_, err := scanArchive(t.Context(), struct {
		io.Reader
		io.Seeker
	}{Reader: r}, 0)
	if err == nil || !strings.Contains(err.Error(), "more than 65536 members") {
		t.Errorf("got %v", err)
	}
}

// smallArchive is an archive with one blob.
func smallArchive(t testing.TB, blob string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range [][2]string{{layoutFile, layoutContent}, {indexFile, `{"manifests":[]}`}, {blobsDir + "/" + digest.FromString(blob).Encoded(), blob}} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: m[0], Size: int64(len(m[1])), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m[1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
