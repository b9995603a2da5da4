package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/davit-oci/davit/artifact"
)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir)
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

func TestPlace(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("DAVIT_CACHE", "")
	check := func(in, want string) {
		t.Helper()
		if got, err := place(in); err != nil || got != want {
			t.Errorf("place(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	if runtime.GOOS == "linux" {
		check("", filepath.Join(home, ".cache", "davit"))
	}
	t.Setenv("XDG_CACHE_HOME", "/xdg")
	check("", filepath.Join("/xdg", "davit"))
	t.Setenv("DAVIT_CACHE", None)
	check("", None)
	check("/explicit", "/explicit")
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
	if _, err := os.Lstat(a); err == nil {
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

func TestNone(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s := openStore(t, None)
	other := openStore(t, None)
	if s.dir == other.dir {
		t.Error("two of them in one place")
	}
	if err := s.RecordChecked([]artifact.LayerID{{1}}); err != nil {
		t.Error(err)
	}
	if _, err := s.NewChunkList(); err != nil {
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

// Processes write to one store and are killed. What they said to be done is there, and their scratch folders are gone after the next
// Open.
func TestStoreAfterKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var mu sync.Mutex
	var done []string
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			lines := killed(t, dir, fmt.Sprint("process", i), time.Duration(100+50*i)*time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			done = append(done, lines...)
		})
	}
	wg.Wait()
	if len(done) == 0 {
		t.Fatal("nothing was written")
	}
	s := openStore(t, dir)
	journal, checked := s.Journal("shared"), s.Checked()
	for _, name := range done {
		want := layerOf(name)
		if got, ok := journal.Find(want.First); !ok || got != want {
			t.Errorf("%s is not in the journal: %+v, %v", name, got, ok)
		}
		if !checked[layerID(name)] {
			t.Errorf("%s is not among the checked layers", name)
		}
	}
	if left := entries(t, s, scratchDir); len(left) != 0 {
		t.Errorf("scratch folders of the killed: %q", left)
	}
}

// killed runs a child of this test binary, kills it a while after the first line it wrote, and returns the whole lines that it wrote.
func killed(t *testing.T, dir, name string, after time.Duration) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0], dir, name)
	cmd.Env = append(os.Environ(), "DAVIT_TEST_CHILD=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Error(err)
		return nil
	}
	if err := cmd.Start(); err != nil {
		t.Error(err)
		return nil
	}
	var lines []string
	for s := bufio.NewScanner(out); s.Scan(); {
		if lines == nil {
			defer time.AfterFunc(after, func() { cmd.Process.Kill() }).Stop()
		}
		lines = append(lines, s.Text())
	}
	_ = cmd.Wait() // it was killed
	return lines
}

func TestMain(m *testing.M) {
	if os.Getenv("DAVIT_TEST_CHILD") != "" {
		if err := child(context.Background(), os.Args[1], os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1) //nolint:forbidigo // this is a main
		}
		return
	}
	m.Run()
}

// child writes to a store until it is killed, and says what is done.
func child(ctx context.Context, dir, name string) error {
	s, err := Open(ctx, dir)
	if err != nil {
		return err
	}
	defer s.Close()
	scratch, _, err := s.Scratch()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(scratch, "file"), []byte("scratch"), 0o600); err != nil {
		return err
	}
	j := s.Journal("shared")
	for i := range 10_000 {
		n := fmt.Sprint(name, "-", i)
		if err := j.Done(layerOf(n)); err != nil {
			return err
		}
		if err := s.RecordChecked([]artifact.LayerID{layerID(n)}); err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, n)
	}
	return nil
}
