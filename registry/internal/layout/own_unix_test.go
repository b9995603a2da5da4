//go:build unix

package layout_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/davit-oci/davit/internal/own"
	"github.com/davit-oci/davit/internal/wholefile"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const nobody = 65534

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("files of a second user are needed: root runs this test")
	}
}

// An archive is written when it is closed: what ends the push ends the wait for its lock, too, and nothing is written.
func TestArchiveWaitsUntilItsContextEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.tar")

	signal := errors.New("stopped by signal")
	for _, test := range []struct {
		name string
		lock bool
	}{{"waiting for the lock", true}, {"without a lock to wait for", false}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		r := openNow(ctx, t, path)
		tagBytes(t, r, "{}")
		release := func() {}
		if test.lock {
			var err error
			if release, err = wholefile.Lock(t.Context(), filepath.Join(dir, ".a.tar"+lockName)); err != nil {
				t.Fatal(err)
			}
		}
		cancel(signal)
		if err := r.Close(); !errors.Is(err, signal) {
			t.Errorf("%s: Close says %v", test.name, err)
		}
		release()
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("%s: left are %v (%v)", test.name, entries, err)
		}
	}
}

func openNow(ctx context.Context, t *testing.T, path string) *Repository {
	t.Helper()
	ref, err := ParseReference("oci-archive:" + path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(ctx, ref, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// tagBytes pushes a manifest of no meaning and tags it.
func tagBytes(t *testing.T, r *Repository, config string) {
	t.Helper()
	c := pushBytes(t, r, ocispec.MediaTypeEmptyJSON, []byte(config))
	m, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": ocispec.MediaTypeImageManifest, "config": c, "layers": []any{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Tag(t.Context(), pushBytes(t, r, ocispec.MediaTypeImageManifest, m), "v1"); err != nil {
		t.Fatal(err)
	}
}

// Nothing is written by way of somebody else's link: into a layout, or beside an archive.
func TestPlacesByLinksOfOthers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	ours := open(t, "oci:"+filepath.Join(dir, "ours"), Options{})
	tagBytes(t, ours, "{}")
	for _, err := range []error{
		os.Mkdir(target, 0o755), os.Symlink("target", filepath.Join(dir, "theirs")), os.Lchown(filepath.Join(dir, "theirs"), nobody, nobody),
		os.Symlink("ours", filepath.Join(dir, "layout")), os.Lchown(filepath.Join(dir, "layout"), nobody, nobody),
		os.Mkdir(filepath.Join(dir, "half"), 0o755), os.Symlink("../target", filepath.Join(dir, "half/blobs")), os.Lchown(filepath.Join(dir, "half/blobs"), nobody, nobody),
		os.MkdirAll(filepath.Join(dir, "deep/blobs"), 0o755), os.Chown(filepath.Join(dir, "deep/blobs"), nobody, nobody),
		os.Symlink("../../target", filepath.Join(dir, "deep/blobs/sha256")), os.Lchown(filepath.Join(dir, "deep/blobs/sha256"), nobody, nobody),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"oci:" + filepath.Join(dir, "theirs"), "oci:" + filepath.Join(dir, "half"), "oci:" + filepath.Join(dir, "deep"), "oci:" + filepath.Join(dir, "layout"), "oci-archive:" + filepath.Join(dir, "theirs", "a.tar")} {
		content := []byte(name)
		err := open(t, name, Options{}).Push(t.Context(), describe(blobType, content), bytes.NewReader(content))
		if foreign := (*own.Error)(nil); !errors.As(err, &foreign) {
			t.Errorf("%s: %v", name, err)
		}
	}
	layout := open(t, "oci:"+filepath.Join(dir, "layout"), Options{})
	desc, err := layout.Resolve(t.Context(), "v1")
	if err != nil {
		t.Errorf("reading: %v", err)
	}
	if err := layout.Tag(t.Context(), desc, "v2"); err == nil {
		t.Error("a layout by somebody else's link got a tag")
	}
	if entries, err := os.ReadDir(target); err != nil || len(entries) > 0 {
		t.Errorf("the target has %v (%v)", entries, err)
	}
}
