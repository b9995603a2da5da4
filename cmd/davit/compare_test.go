package main

import (
	"errors"
	"slices"
	"testing"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/guest"
)

// diskOf is chunks of 4 KiB: each letter is the content of a block, a space a hole.
func diskOf(content string) chunks {
	return func(yield func(artifact.Chunk, error) bool) {
		for i, c := range []byte(content) {
			if c != ' ' && !yield(artifact.Chunk{Offset: int64(i) * 4096, Length: 4096, Digest: [32]byte{c}}, nil) {
				return
			}
		}
	}
}

func TestCompareChunks(t *testing.T) {
	for _, test := range []struct {
		name, a, b    string
		same, changed int
		areas         []disk.Extent // in blocks
	}{
		{"empty disks are equal", "", "  ", 0, 0, nil},
		{"equal", "ab c", "ab c", 3, 0, nil},
		{"one changed", "abc", "aXc", 2, 1, []disk.Extent{{Offset: 1, Length: 1}}},
		{"neighbours are one area", "abcd", "aXYd", 2, 2, []disk.Extent{{Offset: 1, Length: 2}}},
		{"a hole where data was", "abc", "a c", 2, 1, []disk.Extent{{Offset: 1, Length: 1}}},
		{"data where a hole was", "a c", "abc", 2, 1, []disk.Extent{{Offset: 1, Length: 1}}},
		{"the same elsewhere is a change", "ab  ", "  ab", 0, 2, []disk.Extent{{Offset: 0, Length: 4}}},
		{"against nothing", "ab", "", 0, 2, []disk.Extent{{Offset: 0, Length: 2}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := compareChunks(diskOf(test.a), diskOf(test.b))
			if err != nil {
				t.Fatal(err)
			}
			var bytes int64
			var areas []disk.Extent
			for _, e := range got.areas {
				areas = append(areas, disk.Extent{Offset: e.Offset / 4096, Length: e.Length / 4096})
				bytes += e.Length
			}
			if got.same != test.same || got.changed != test.changed || !slices.Equal(areas, test.areas) ||
				got.sameBytes != int64(test.same)*4096 || got.changedBytes != bytes {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestCompareChunksOverlap(t *testing.T) {
	large := func(yield func(artifact.Chunk, error) bool) {
		yield(artifact.Chunk{Offset: 0, Length: 3 * 4096, Digest: [32]byte{'x'}}, nil)
	}
	got, err := compareChunks(large, diskOf("ab"))
	if err != nil || got.changed != 2 || got.changedBytes != 3*4096 || len(got.areas) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestCompareChunksErrors(t *testing.T) {
	broken := errors.New("broken")
	late := func(yield func(artifact.Chunk, error) bool) {
		for c := range diskOf("ab") {
			if !yield(c, nil) {
				return
			}
		}
		yield(artifact.Chunk{}, broken)
	}
	if _, err := compareChunks(late, diskOf("ab")); !errors.Is(err, broken) {
		t.Errorf("error of the first: %v", err)
	}
	if _, err := compareChunks(diskOf("ab"), late); !errors.Is(err, broken) {
		t.Errorf("error of the second: %v", err)
	}
}

func TestLocate(t *testing.T) {
	table := []guest.Partition{{Number: 1, Start: 100, End: 200, Filesystem: "ext4"}, {Number: 2, Start: 200, End: 300}}
	got := locate("disk0", []disk.Extent{{Offset: 50, Length: 300}, {Offset: 400, Length: 100}}, table, 450)
	want := []diffArea{
		{"disk0", 0, "", 50, 50}, {"disk0", 1, "ext4", 100, 100}, {"disk0", 2, "", 200, 100}, {"disk0", 0, "", 300, 50},
		{"disk0", 0, "", 400, 50}, // the end of the last block is beyond the disk
	}
	if !slices.Equal(got, want) {
		t.Errorf("located %+v, want %+v", got, want)
	}
}
