package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/opencontainers/go-digest"
)

const testDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func remember(t *testing.T, s *Store, f DiskFile) error {
	t.Helper()
	list, err := s.NewChunkList()
	if err != nil {
		t.Fatal(err)
	}
	if err := list.Add(artifact.Chunk{Offset: 4096, Length: 4096}); err != nil {
		t.Fatal(err)
	}
	return s.Remember(f, list)
}

// entries are the names in a folder of the store.
func entries(t *testing.T, s *Store, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(s.path(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestDiskFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	var paths []string
	for i, name := range []string{"changed", "touched", "removed", "kept"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(1_700_000_000+int64(i), 123456789)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		if err := remember(t, s, DiskFile{Path: path, Format: "raw", Digest: testDigest}); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	want := DiskFile{Path: paths[3], Format: "raw", Digest: testDigest}
	if files, err := openStore(t, dir).DiskFiles(); err != nil || len(files) != 4 || files[0] != want {
		t.Errorf("got %+v, %v", files, err)
	}
	if lists := entries(t, s, listsDir); !slices.Equal(lists, []string{digest.Digest(testDigest).Encoded()}) {
		t.Errorf("lists are %q", lists)
	}
	if err := os.WriteFile(paths[0], []byte("another size"), 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := errors.Join(os.Chtimes(paths[1], now, now), os.Remove(paths[2])); err != nil {
		t.Fatal(err)
	}
	if files, err := s.DiskFiles(); err != nil || len(files) != 1 || files[0] != want {
		t.Errorf("got %+v, %v", files, err)
	}
	for what, f := range map[string]DiskFile{
		"a file that does not exist": {Path: paths[2], Digest: testDigest},
		"a folder":                   {Path: dir, Digest: testDigest},
		"a digest that is a path":    {Path: paths[3], Digest: "sha256:../../x"},
		"no digest":                  {Path: paths[3]},
	} {
		if err := remember(t, s, f); err == nil {
			t.Errorf("%s was remembered", what)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if lists := entries(t, s, listsDir); len(lists) != 1 {
		t.Errorf("after Close, lists are %q", lists)
	}
	if _, err := s.NewChunkList(); err == nil {
		t.Error("a list after Close")
	}
}

// The youngest files become seeds, as the format that is recorded.
func TestAddSeeds(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	var want []string
	for i := range maxSeeds + 2 {
		path := filepath.Join(t.TempDir(), "disk.raw")
		content := make([]byte, 1<<16)
		copy(content, "QFI\xfb") // a guest wrote the header of qcow2
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(1_700_000_000+int64(i), 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		d := digest.FromString(fmt.Sprint(i))
		if err := remember(t, s, DiskFile{Path: path, Format: disk.Raw, Digest: d}); err != nil {
			t.Fatal(err)
		}
		switch i {
		case maxSeeds + 1: // its list is lost
			if err := os.Remove(s.path(listsDir, d.Encoded())); err != nil {
				t.Fatal(err)
			}
		case 0: // too old
		default:
			want = append([]string{path}, want...)
		}
	}
	seeds := artifact.NewSeeds(t.TempDir())
	defer seeds.Close()
	opened := s.AddSeeds(seeds)
	for _, img := range opened {
		if img.Format() != disk.Raw || img.Size() != 1<<16 {
			t.Errorf("opened as %s of %d bytes", img.Format(), img.Size())
		}
		img.Close()
	}
	if len(opened) != len(want) {
		t.Errorf("%d seeds, want %d", len(opened), len(want))
	}
}
