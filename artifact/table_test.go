package artifact

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"
)

// A table that has spilled and merged many times finds every number of every
// digest, and nothing for digests that were never added.
func TestChunkTable(t *testing.T) {
	table := newChunkTable(t.TempDir())
	defer table.close()
	name := func(i int) sum { return sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i))) }

	const n = 9*tableMemory + 77
	for i := range n {
		d := name(i)
		if err := table.add(&d, uint64(i)); err != nil {
			t.Fatal(err)
		}
		if i%1000 == 0 { // a second holder, lower than the first
			d := name(i / 2)
			if err := table.add(&d, uint64(i)+1<<40); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(table.runs) > 3*tableFanout {
		t.Errorf("%d runs are left after merging", len(table.runs))
	}
	var got []uint64
	for i := 0; i < n; i += 97 {
		d := name(i)
		var err error
		if got, err = table.lookup(got, &d); err != nil {
			t.Fatal(err)
		}
		want := []uint64{uint64(i)}
		if 2*i < n && 2*i%1000 == 0 {
			want = append(want, uint64(2*i)+1<<40)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("lookup(%d) = %v, want %v", i, got, want)
		}
	}
	for i := n; i < n+1000; i++ {
		d := name(i)
		if got, err := table.lookup(got, &d); err != nil || len(got) != 0 {
			t.Fatalf("lookup of what was never added = %v, %v", got, err)
		}
	}
}
