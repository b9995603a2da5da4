package store

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

type record struct{ N int }

func numbers(t *testing.T, r records) []int {
	t.Helper()
	var list []int
	for b, err := range r.all() {
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

func TestRecords(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "r.jsonl")
	r := records{path}
	if got := numbers(t, r); got != nil {
		t.Errorf("got %v", got)
	}
	for n := range 3 {
		if err := r.append(record{n}); err != nil {
			t.Fatal(err)
		}
	}

	// A killed process leaves half a line; the next record is not lost in it.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"N":9`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if got := numbers(t, r); !slices.Equal(got, []int{0, 1, 2}) {
		t.Errorf("got %v", got)
	}
	if err := r.append(record{3}); err != nil {
		t.Fatal(err)
	}
	if got := numbers(t, r); !slices.Equal(got, []int{0, 1, 2, 3}) {
		t.Errorf("got %v", got)
	}

	var wg sync.WaitGroup
	for n := range 20 {
		wg.Go(func() {
			if err := r.append(record{100 + n}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := numbers(t, r); len(got) != 24 {
		t.Errorf("got %d records", len(got))
	}
	for range 2 {
		if err := r.remove(); err != nil {
			t.Error(err)
		}
	}
	if got := numbers(t, r); got != nil {
		t.Errorf("got %v", got)
	}
}

// FuzzRecords: whatever is in the file, records are JSON, and one that is appended is there afterwards.
func FuzzRecords(f *testing.F) {
	f.Add([]byte("{\"N\":1}\n"))
	f.Add([]byte("{\"N\":1}\n{\"N\":"))
	f.Add([]byte("\n\nnull\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := records{filepath.Join(t.TempDir(), "r")}
		if err := os.WriteFile(r.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		read := func() (n int, last string) {
			for r, err := range r.all() {
				if err != nil || !json.Valid(r) {
					t.Fatalf("%q, %v", r, err)
				}
				n, last = n+1, string(r)
			}
			return n, last
		}
		before, _ := read()
		if err := r.append(record{42}); err != nil {
			t.Fatal(err)
		}
		// A last line without an end may become a record of its own by what append puts behind it.
		if after, last := read(); last != `{"N":42}` || after < before+1 || after > before+2 {
			t.Errorf("%d records, then %d, the last %s", before, after, last)
		}
	})
}
