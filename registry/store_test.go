package registry

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestStoreDir(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("DAVIT_CACHE", "")
	check := func(in, want string) {
		t.Helper()
		if got, err := StoreDir(in); err != nil || got != want {
			t.Errorf("StoreDir(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	if runtime.GOOS == "linux" {
		check("", filepath.Join(home, ".cache", "davit"))
	}
	t.Setenv("XDG_CACHE_HOME", "/xdg")
	check("", filepath.Join("/xdg", "davit"))
	t.Setenv("DAVIT_CACHE", NoStore)
	check("", NoStore)
	check("/explicit", "/explicit")
}

func TestArea(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	for name, a := range map[string]*Area{"blobs": s.Area, "spool": s.Spool} {
		content := noise(1, 10_000)
		desc := describe(blobType, content)
		if _, ok := a.Has(desc.Digest); ok {
			t.Errorf("%s: there before Put", name)
		}
		if _, err := a.Open(desc.Digest); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", name, err)
		}
		if err := a.Put(t.Context(), desc, bytes.NewReader(content[1:])); !errors.Is(err, ErrDigestMismatch) {
			t.Errorf("%s: got %v, want ErrDigestMismatch", name, err)
		}
		for range 2 {
			if err := a.Put(t.Context(), desc, bytes.NewReader(content)); err != nil {
				t.Fatal(err)
			}
		}
		b, err := a.Open(desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(io.NewSectionReader(b, 0, b.Size())); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: got %d bytes, %v", name, len(got), err)
		}
		b.Close()
		if size, ok := a.Has(desc.Digest); !ok || size != desc.Size {
			t.Errorf("%s: Has = %d, %v", name, size, ok)
		}

		d, err := a.Create()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Write([]byte("drafted")); err != nil {
			t.Fatal(err)
		}
		if err := d.Commit(); err != nil || d.Digest() != digest.FromString("drafted") || d.Size() != 7 {
			t.Errorf("%s: %v, %v, %d", name, err, d.Digest(), d.Size())
		}
		d.Close()
		dropped, err := a.Create()
		if err != nil {
			t.Fatal(err)
		}
		dropped.Close()

		var all []digest.Digest
		for d := range a.All() {
			all = append(all, d)
		}
		want := []digest.Digest{desc.Digest, d.Digest()}
		slices.Sort(want)
		if !slices.Equal(all, want) {
			t.Errorf("%s: All = %v, want %v", name, all, want)
		}
		for range 2 {
			if err := a.Remove(desc.Digest); err != nil {
				t.Error(err)
			}
		}
		for _, bad := range []digest.Digest{"", "../../x", "sha256:..", "sha512:" + desc.Digest[7:]} {
			if _, err := a.Open(bad); err == nil {
				t.Errorf("%s: digest %q: no error", name, bad)
			}
			if err := a.Remove(bad); err == nil {
				t.Errorf("%s: digest %q: no error", name, bad)
			}
		}
	}
}

func TestOpenVerifiedRemovesWhatIsDamaged(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	content := noise(1, 1000)
	desc := describe(blobType, content)
	if err := s.Put(t.Context(), desc, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.OpenVerified(desc.Digest, 1000); err != nil || !bytes.Equal(got, content) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if _, err := s.OpenVerified(desc.Digest, 999); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("over the limit: %v", err)
	}
	content[5] ^= 1
	if err := os.WriteFile(filepath.Join(s.Dir(), blobsDir, desc.Digest.Encoded()), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenVerified(desc.Digest, 1000); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if _, ok := s.Has(desc.Digest); ok {
		t.Error("damaged content is still there")
	}
}

func TestScratch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	a, cleanup, err := s.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := s.Scratch()
	if err != nil {
		t.Fatal(err)
	}
	openStore(t, dir) // another process's would do the same: locks are of the open file
	for _, d := range []string{a, b} {
		if err := os.WriteFile(filepath.Join(d, "x"), nil, 0o600); err != nil {
			t.Errorf("swept while in use: %v", err)
		}
	}
	for range 2 {
		if err := cleanup(); err != nil {
			t.Error(err)
		}
	}
	if exists(a) {
		t.Error("there after cleanup")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, scratchDir)); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if _, _, err := s.Scratch(); err == nil {
		t.Error("a scratch folder after Close")
	}
}

func TestNoStore(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := openStore(t, NoStore)
	other := openStore(t, NoStore)
	if s.Dir() == other.Dir() {
		t.Error("two of them in one place")
	}
	if err := s.Put(t.Context(), describe(blobType, nil), bytes.NewReader(nil)); err != nil {
		t.Error(err)
	}
	for _, s := range []*Store{s, other} {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

type record struct{ N int }

func records(t *testing.T, j *Journal) []int {
	t.Helper()
	var list []int
	for b, err := range j.Records() {
		var r record
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r.N)
	}
	return list
}

func TestJournal(t *testing.T) {
	t.Parallel()
	s := openStore(t, t.TempDir())
	j := s.Journal("a key: with / and \x00")
	defer j.Close()
	if got := records(t, j); got != nil {
		t.Errorf("got %v", got)
	}
	for n := range 3 {
		if err := j.Append(record{n}); err != nil {
			t.Fatal(err)
		}
	}
	if got := records(t, s.Journal("another")); got != nil {
		t.Errorf("got %v", got)
	}

	// A killed process leaves half a line; the next record is not lost in it.
	f, err := os.OpenFile(j.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"N":9`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	again := s.Journal("a key: with / and \x00")
	defer again.Close()
	if got := records(t, again); !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("got %v", got)
	}
	if err := again.Append(record{3}); err != nil {
		t.Fatal(err)
	}
	if got := records(t, j); !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Errorf("got %v", got)
	}

	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			if err := []*Journal{j, again}[n%2].Append(record{100 + n}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := records(t, j); len(got) != 24 {
		t.Errorf("got %d records", len(got))
	}
	for range 2 {
		if err := j.Remove(); err != nil {
			t.Error(err)
		}
	}
	if got := records(t, j); got != nil {
		t.Errorf("got %v", got)
	}
}

// FuzzJournal: whatever is in the file, records are JSON, and one that is appended is there afterwards.
func FuzzJournal(f *testing.F) {
	f.Add([]byte("{\"N\":1}\n"))
	f.Add([]byte("{\"N\":1}\n{\"N\":"))
	f.Add([]byte("\n\nnull\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		j := &Journal{path: filepath.Join(t.TempDir(), "j")}
		defer j.Close()
		if err := os.WriteFile(j.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		read := func() (n int, last string) {
			for r, err := range j.Records() {
				if err != nil || !json.Valid(r) {
					t.Fatalf("%q, %v", r, err)
				}
				n, last = n+1, string(r)
			}
			return n, last
		}
		before, _ := read()
		if err := j.Append(record{42}); err != nil {
			t.Fatal(err)
		}
		// A last line without an end may become a record of its own by what Append puts behind it.
		if after, last := read(); last != `{"N":42}` || after < before+1 || after > before+2 {
			t.Errorf("%d records, then %d, the last %s", before, after, last)
		}
	})
}

func TestRecordChecked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	a, b, c := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b")), sha256.Sum256([]byte("c"))
	if len(s.Checked()) != 0 {
		t.Error("something is checked by nobody")
	}
	for _, layers := range [][][sha256.Size]byte{{a}, {a, b}, {}} {
		if err := s.RecordChecked(layers...); err != nil {
			t.Fatal(err)
		}
	}
	// What is not a record is not one, and hides none.
	path := filepath.Join(dir, "checked.jsonl")
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("{\"layers\":[\"00\",\"" + strings.Repeat("zz", 32) + "\",\"" + strings.Repeat("00", 40) + "\"]}\n{\"lay"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := s.RecordChecked(c); err != nil {
		t.Fatal(err)
	}
	got := openStore(t, dir).Checked()
	if len(got) != 3 || !got[a] || !got[b] || !got[c] {
		t.Errorf("got %d layers: %v", len(got), got)
	}
	// It has an end.
	if err := os.Truncate(path, maxChecked+1); err != nil {
		t.Fatal(err)
	}
	d := sha256.Sum256([]byte("d"))
	if err := s.RecordChecked(d); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 1000 {
		t.Errorf("got %v, %v", info, err)
	}
	if got := s.Checked(); !got[d] {
		t.Errorf("got %v", got)
	}
}

func TestDiskFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, dir)
	var paths []string
	for i, name := range []string{"changed", "touched", "removed", "kept", "forgotten"} {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(1_700_000_000+int64(i), 123456789)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		if err := s.Remember(DiskFile{Path: path, Format: "raw", DiskDigest: testDigest, ChunkList: "list"}); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	if files, err := openStore(t, dir).DiskFiles(); err != nil || len(files) != 5 || files[0].Path != paths[4] || files[0].Size != 9 || files[0].ChunkList != "list" {
		t.Errorf("got %+v, %v", files, err)
	}
	if err := os.WriteFile(paths[0], []byte("another size"), 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := errors.Join(os.Chtimes(paths[1], now, now), os.Remove(paths[2]), s.Forget(paths[4]), s.Forget(paths[4])); err != nil {
		t.Fatal(err)
	}
	if files, err := s.DiskFiles(); err != nil || len(files) != 1 || files[0].Path != paths[3] {
		t.Errorf("got %+v, %v", files, err)
	}
	if err := s.Remember(DiskFile{Path: paths[2]}); err == nil {
		t.Error("a file that is not there was remembered")
	}
}

// Processes write to one store and are killed; what they said to be done is there, and their scratch folders are gone after the next
// OpenStore.
func TestStoreAfterKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var mu sync.Mutex
	done := 0
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			lines := killed(t, "store", dir, time.Duration(100+50*i)*time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			done += len(lines)
		})
	}
	wg.Wait()
	s := openStore(t, dir)
	n := 0
	j := s.Journal("shared")
	for b, err := range j.Records() {
		if err != nil {
			t.Fatal(err)
		}
		var r struct{ Digest digest.Digest }
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Spool.OpenVerified(r.Digest, 1<<20); err != nil {
			t.Error(err)
		}
		n++
	}
	if n < done {
		t.Errorf("%d records, but %d were written", n, done)
	}
	if done == 0 {
		t.Error("nothing was written")
	}
	entries, err := os.ReadDir(filepath.Join(dir, scratchDir))
	if err != nil || len(entries) != 0 {
		t.Errorf("scratch folders of the killed: %v, %v", entries, err)
	}
	checkLayout(t, dir)
	for d := range s.Spool.All() {
		if _, err := s.Spool.OpenVerified(d, 1<<20); err != nil {
			t.Error(fmt.Errorf("%s: %w", d, err))
		}
	}
}
