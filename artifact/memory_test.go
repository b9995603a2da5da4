package artifact

import (
	"bytes"
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/davit-oci/davit/internal/space"
)

// Directories are loaded at once only as far as the memory goes, whatever the
// number of jobs. One that is too large for it is loaded alone, if it wants no
// more than twice as much.
func TestMemoryOfLoads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(100)
		large, err := m.load(t.Context(), 200)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.load(t.Context(), 201); !errors.Is(err, ErrMemory) {
			t.Errorf("more than twice what is allowed: %v, want ErrMemory", err)
		}
		var loaded atomic.Int64
		end := make(chan bool)
		for range 3 {
			go func() {
				done, err := m.load(context.Background(), 40)
				if err != nil {
					t.Error(err)
					return
				}
				loaded.Add(1)
				<-end
				done()
			}()
		}
		synctest.Wait()
		if n := loaded.Load(); n != 0 {
			t.Errorf("beside one that needs all the memory %d were loaded", n)
		}
		large()
		synctest.Wait()
		if n := loaded.Load(); n != 2 {
			t.Errorf("%d of 40 bytes were loaded at once with 100, want 2", n)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("stopped")
		cancel(why)
		if _, err := m.load(ctx, 40); !errors.Is(err, why) {
			t.Errorf("waiting ended with %v", err)
		}
		close(end)
		synctest.Wait()
		if n := loaded.Load(); n != 3 {
			t.Errorf("%d were loaded in the end, want 3", n)
		}
	})
}

// The heads of all artifacts that are open count together.
func TestMemoryOfHeads(t *testing.T) {
	m := newMemory()
	desc, _ := m.pack(t, []Source{{"disk0", bytes.NewReader(testDisk(9, 1<<20))}}, PackOptions{})
	head := m.open(t, desc).Disks[0].Index.headSize()
	shared := NewMemory(2 * head)
	open := func() (*Image, error) {
		return openUnverified(t.Context(), m, desc, OpenOptions{Scratch: t.TempDir(), Memory: shared})
	}
	var all []*Image
	for range 2 {
		im, err := open()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, im)
	}
	if _, err := open(); !errors.Is(err, ErrMemory) {
		t.Errorf("a third artifact: %v, want ErrMemory", err)
	}
	for _, im := range all {
		im.Close()
	}
	im, err := open()
	if err != nil {
		t.Fatalf("after the others were closed: %v", err)
	}
	im.Close()
}

func TestScratchLeavesSpace(t *testing.T) {
	if _, known := space.Free(t.TempDir()); !known {
		t.Skip("this system does not say how much space is free: Linux and macOS do")
	}
	s := newScratch(t.TempDir(), NewMemory(0))
	defer s.close()
	if _, err := s.reserve(math.MaxInt64 / 2); !errors.Is(err, space.ErrFull) {
		t.Errorf("got %v", err)
	}
}
