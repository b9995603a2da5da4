//go:build unix

package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/wholefile"
)

const nobody = 65534

// Tests make folders for stores, which others must not be able to write to.
func init() { syscall.Umask(0o022) } //nolint:gochecknoinits // of the process, and Unix alone has one

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("files of a second user are needed: root runs this test")
	}
}

// A record that somebody else can have written is none.
func TestRecordsOfOthers(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	if err := s.RecordChecked([]artifact.LayerID{layerID("x")}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := remember(t, s, DiskFile{Path: path, Format: disk.Raw, Digest: testDigest}); err != nil {
		t.Fatal(err)
	}
	one := layerOf("one")
	if err := s.Journal("key").Done(one); err != nil {
		t.Fatal(err)
	}
	check := func(when string, want int) {
		t.Helper()
		files, err := s.DiskFiles()
		records := 0
		if _, ok := s.Journal("key").Find(one.First); ok {
			records++
		}
		if got := len(s.Checked()); got != want || len(files) != want || records != want || err != nil {
			t.Errorf("%s: %d checked layers, %d disk files, %d records of a journal (%v); want %d of each", when, got, len(files), records, err, want)
		}
	}
	check("ours", 1)

	all := []string{s.path(checkedFile)}
	for _, dir := range []string{disksDir, journalDir} {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil || len(entries) != 1 {
			t.Fatalf("%s: %v (%v)", dir, entries, err)
		}
		all = append(all, s.path(dir, entries[0].Name()))
	}
	for _, path := range all {
		if err := os.Link(path, path+".other"); err != nil {
			t.Fatal(err)
		}
	}
	check("hard links", 0)
	for _, path := range all {
		os.Remove(path + ".other")
	}
	check("ours again", 1)
	for _, path := range all {
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	check("others can write to them", 0)
	if err := s.Journal("key").Done(one); err == nil {
		t.Error("the journal was written to")
	}
	if os.Geteuid() != 0 {
		return // the rest is of a second user
	}
	for _, path := range all {
		if err := errors.Join(os.Chmod(path, 0o600), os.Chown(path, nobody, nobody)); err != nil {
			t.Fatal(err)
		}
	}
	check("they belong to somebody else", 0)
}

// A sweep removes what is ours.
func TestSweepLeavesTheFilesOfOthers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	for _, name := range []string{".davit-tmp-" + "theirs", "davit-store-1" + lockSuffix} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chown(path, nobody, nobody), os.Chtimes(path, time.Time{}, time.Unix(0, 0))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "davit-store-1"), 0o755); err != nil {
		t.Fatal(err)
	}
	wholefile.Sweep(dir)
	sweepLocked(dir, tempStore)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("left are %v (%v)", entries, err)
	}
	ours := filepath.Join(dir, ".davit-tmp-"+"ours")
	if err := errors.Join(os.WriteFile(ours, nil, 0o600), os.Chtimes(ours, time.Time{}, time.Unix(0, 0))); err != nil {
		t.Fatal(err)
	}
	wholefile.Sweep(dir)
	if _, err := os.Lstat(ours); !errors.Is(err, fs.ErrNotExist) {
		t.Error("what was left behind by us stays")
	}
}

// A list of chunks that somebody else can have written is not read.
func TestListsOfOthers(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := remember(t, s, DiskFile{Path: path, Format: disk.Raw, Digest: testDigest}); err != nil {
		t.Fatal(err)
	}
	seeds := func() (n int) {
		seeds := artifact.NewSeeds(t.TempDir())
		defer seeds.Close()
		for _, img := range s.AddSeeds(seeds) {
			n++
			img.Close()
		}
		return n
	}
	if n := seeds(); n != 1 {
		t.Errorf("ours: %d seeds", n)
	}
	if err := os.Chmod(s.path(listsDir, entries(t, s, listsDir)[0]), 0o666); err != nil {
		t.Fatal(err)
	}
	if n := seeds(); n != 0 {
		t.Errorf("others can write to it: %d seeds", n)
	}
}
