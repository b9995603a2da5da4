package source

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/programs"
	"github.com/davit-oci/davit/internal/space"
)

// spooledBytes is the size of all files in a scratch folder.
func spooledBytes(t *testing.T, dir string) (n int64) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

// repeated reads member n times.
func repeated(member []byte, n int) io.Reader {
	readers := make([]io.Reader, n)
	for i := range readers {
		readers[i] = bytes.NewReader(member)
	}
	return io.MultiReader(readers...)
}

func TestBombs(t *testing.T) {
	const limit = 1 << 20
	zeros := make([]byte, 8<<20)
	for name, level := range map[string]string{"gzip": "-9", "xz": "-1", "zstd": "-3", "bzip2": "-9"} {
		cmd := exec.CommandContext(t.Context(), programs.Need(t, name), level)
		cmd.Stdin = bytes.NewReader(zeros)
		member, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		// 8 GiB.
		plain, err := disk.NewDecompressor(repeated(member, 1024))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		_, err = spool(t.Context(), dir, plain, limit)
		if tooLarge := (*LimitError)(nil); !errors.As(err, &tooLarge) || tooLarge.Limit != limit {
			t.Errorf("%s: got error %v", name, err)
		}
		plain.Close()
		if n := spooledBytes(t, dir); n > 0 {
			t.Errorf("%s: %d bytes are left", name, n)
		}
	}
}

func TestSpoolTakesExactlyItsLimit(t *testing.T) {
	content := bytes.Repeat([]byte("davit"), 500_000)
	path, err := spool(t.Context(), t.TempDir(), bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes were spooled of %d, %v", len(got), len(content), err)
	}
}

// An error of what is read is one, also where it looks like the end.
func TestSpoolReportsErrors(t *testing.T) {
	for _, want := range []error{io.ErrUnexpectedEOF, errors.New("broken")} {
		r := io.MultiReader(strings.NewReader("data"), readerFunc(func([]byte) (int, error) { return 0, want }))
		if _, err := spool(t.Context(), t.TempDir(), r, 1<<20); !errors.Is(err, want) {
			t.Errorf("got error %v, want %v", err, want)
		}
	}
}

func TestSpoolEndsWithItsContext(t *testing.T) {
	stopped := errors.New("stopped")
	ctx, stop := context.WithCancelCause(t.Context())
	dir := t.TempDir()
	reads := 0
	endless := readerFunc(func(p []byte) (int, error) {
		if reads++; reads == 3 {
			stop(stopped)
		}
		p[0]++
		return len(p), nil
	})
	if _, err := spool(ctx, dir, endless, 1<<40); !errors.Is(err, stopped) {
		t.Errorf("got error %v", err)
	}
	if n := spooledBytes(t, dir); n > 0 {
		t.Errorf("%d bytes are left", n)
	}
}

func TestSpoolLeavesSpaceToOthers(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "spooled"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	asked := 0
	for name, test := range map[string]struct {
		free  int64
		known bool
		ok    bool
	}{
		"much":    {1 << 40, true, true},
		"little":  {space.Left + 3, true, false},
		"enough":  {space.Left + 4, true, true},
		"unknown": {0, false, true},
	} {
		s := &spoolFile{File: f, free: func(string) (int64, bool) { asked++; return test.free, test.known }}
		_, err := s.WriteAt([]byte("data"), 0)
		if (err == nil) != test.ok || !test.ok && !errors.Is(err, space.ErrFull) {
			t.Errorf("%s: got error %v", name, err)
		}
		if _, again := s.WriteAt([]byte("more"), 4); (again == nil) != test.ok {
			t.Errorf("%s: got error %v when more is written", name, again)
		}
	}
	if asked != 5 {
		t.Errorf("the file system was asked %d times", asked)
	}
	if n, known := space.Free(f.Name()); known && n <= 0 {
		t.Errorf("%d bytes are free", n)
	}
}
