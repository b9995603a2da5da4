package chunker_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"testing"

	"github.com/davit-oci/davit/chunker"
)

// The vectors are made by a program that was written from the specification
// alone; testdata/vectors/README.md says what the script of a case means.

type vector struct {
	Name       string            `json:"name"`
	Script     []json.RawMessage `json:"script"`
	Offset     int               `json:"offset"`
	Size       int               `json:"size"`
	SHA256     string            `json:"sha256"`
	Digest     string            `json:"digest"`
	Regions    [][2]any          `json:"regions"`
	ChunkCount int               `json:"chunkCount"`
	Chunks     [][3]any          `json:"chunks"`
}

func loadVectors(t testing.TB) []vector {
	t.Helper()
	b, err := os.ReadFile("../testdata/vectors/chunker.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Profile chunker.Profile `json:"profile"`
		Cases   []vector        `json:"cases"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	if file.Profile != chunker.Profile1 || len(file.Cases) == 0 {
		t.Fatalf("chunker.json has %d cases of profile %s", len(file.Cases), file.Profile)
	}
	return file.Cases
}

// A vectorDisk is the content that the script of a case describes, padded to
// whole blocks: zeros, data, zeros.
type vectorDisk struct {
	offset, size int
	data         []byte
}

func (v *vector) disk(t testing.TB) *vectorDisk {
	t.Helper()
	data := v.run(t, nil, v.Script)
	d := &vectorDisk{offset: v.Offset, size: v.Size, data: data[:min(len(data), v.Size-v.Offset)]}
	if v.Size > 128<<20 {
		return d // hashing its zeros would take longer than all else
	}
	h := sha256.New()
	zeros := make([]byte, 1<<20)
	hashZeros := func(n int) {
		for ; n > 0; n -= min(n, len(zeros)) {
			h.Write(zeros[:min(n, len(zeros))])
		}
	}
	hashZeros(d.offset)
	h.Write(d.data)
	hashZeros(d.size - d.offset - len(d.data))
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != v.SHA256 {
		t.Fatalf("%s: the generated disk hashes to %s, want %s", v.Name, got, v.SHA256)
	}
	return d
}

// at returns a region up to the end of its data; nil if it has none.
func (d *vectorDisk) at(number int) []byte {
	start := number * chunker.RegionSize
	end := min((d.size+chunker.BlockSize-1)&^(chunker.BlockSize-1), start+chunker.RegionSize)
	from, to := max(start, d.offset), min(end, d.offset+len(d.data))
	if from >= to {
		return nil
	}
	// What follows the data is holes, which are cut like the end of the region.
	n := (to - start + chunker.BlockSize - 1) &^ (chunker.BlockSize - 1)
	if from == start && n <= to-start {
		return d.data[from-d.offset : to-d.offset]
	}
	region := make([]byte, n)
	copy(region[from-start:], d.data[from-d.offset:to-d.offset])
	return region
}

func (v *vector) run(t testing.TB, b []byte, steps []json.RawMessage) []byte {
	for _, raw := range steps {
		var step []json.RawMessage
		var op string
		if json.Unmarshal(raw, &step) != nil || json.Unmarshal(step[0], &op) != nil {
			t.Fatalf("%s: bad step %s", v.Name, raw)
		}
		number := func(i int) (n int) {
			if err := json.Unmarshal(step[i], &n); err != nil {
				t.Fatalf("%s: bad step %s", v.Name, raw)
			}
			return n
		}
		switch op {
		case "times":
			var inner []json.RawMessage
			if err := json.Unmarshal(step[2], &inner); err != nil {
				t.Fatal(err)
			}
			for range number(1) {
				b = v.run(t, b, inner)
			}
		case "repeat":
			from, n := number(1), number(2)
			b = append(b, b[from*chunker.BlockSize:(from+n)*chunker.BlockSize]...)
		default:
			for range number(1) {
				b = append(b, v.block(t, op, len(b)/chunker.BlockSize)...)
			}
		}
	}
	return b
}

func (v *vector) block(t testing.TB, op string, k int) []byte {
	b := make([]byte, 0, chunker.BlockSize)
	if op == "hole" {
		return b[:chunker.BlockSize]
	}
	for i := range 128 {
		seed := append([]byte(v.Name), binary.LittleEndian.AppendUint64(nil, uint64(k))...)
		s := sha256.Sum256(append(seed, byte(i)))
		b = append(b, s[:]...)
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	nonce := func(low bool) {
		for n := uint64(0); ; n++ {
			binary.LittleEndian.PutUint64(b, n)
			if (crc32.Checksum(b, table) < 1<<28) == low {
				return
			}
		}
	}
	switch op {
	case "raw":
	case "tail", "lowtail":
		b[4079] = 1
		clear(b[4080:])
		if op == "lowtail" {
			nonce(true)
		}
	case "plain", "low":
		b[4095] = 1
		nonce(op == "low")
	case "almost":
		b[4080] = 1
		clear(b[4081:])
		nonce(false)
	default:
		t.Fatalf("%s: unknown step %q", v.Name, op)
	}
	return b
}

type cut struct{ start, blocks int }

// cutRegion cuts a region, given whole.
func cutRegion(region []byte) (cuts []cut) {
	for at := 0; at < len(region); {
		if n := chunker.Holes(region[at:]); n > 0 {
			at += n * chunker.BlockSize
			continue
		}
		n := chunker.Profile1.Next(region[at:])
		cuts = append(cuts, cut{at / chunker.BlockSize, n})
		at += n * chunker.BlockSize
	}
	return cuts
}

func TestVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			b := v.disk(t)
			disk := chunker.NewDisk(chunker.Profile1)
			count, regions := 0, 0
			for number := 0; number*chunker.RegionSize < v.Size; number++ {
				region := b.at(number)
				var id chunker.Region
				for _, c := range cutRegion(region) {
					data := region[c.start*chunker.BlockSize : (c.start+c.blocks)*chunker.BlockSize]
					sum := sha256.Sum256(data)
					id.Add(c.start, c.blocks, &sum)
					if len(v.Chunks) > 0 && count < len(v.Chunks) {
						want := v.Chunks[count]
						got := [3]any{float64(number*chunker.RegionBlocks + c.start), float64(c.blocks), hex.EncodeToString(sum[:])}
						if got != want {
							t.Fatalf("chunk %d is %v, want %v", count, got, want)
						}
					}
					count++
				}
				if id.Chunks() == 0 {
					continue
				}
				sum := id.Identity()
				disk.Add(uint32(number), &sum)
				if got := [2]any{float64(number), hex.EncodeToString(sum[:])}; regions >= len(v.Regions) || got != v.Regions[regions] {
					t.Fatalf("region %v, want %v", got, v.Regions)
				}
				regions++
			}
			if count != v.ChunkCount || regions != len(v.Regions) {
				t.Errorf("%d chunks in %d regions, want %d in %d", count, regions, v.ChunkCount, len(v.Regions))
			}
			if got := fmt.Sprintf("sha256:%x", disk.Digest()); got != v.Digest {
				t.Errorf("disk digest %s, want %s", got, v.Digest)
			}
		})
	}
}

// Where data stops being there to look at, the cuts are the same: a chunk only
// depends on the blocks it could still have.
func TestWindowIsEnough(t *testing.T) {
	for _, v := range loadVectors(t) {
		if v.Size > 16<<20 {
			continue
		}
		region := v.disk(t).at(0)
		for _, c := range cutRegion(region) {
			rest := region[c.start*chunker.BlockSize:]
			if len(rest) <= chunker.Window {
				break
			}
			if got := chunker.Profile1.Next(rest[:chunker.Window]); got != c.blocks {
				t.Fatalf("%s: the chunk at block %d has %d blocks, but %d when only a window is there", v.Name, c.start, c.blocks, got)
			}
		}
	}
}

// benchDisk is data of a usual kind: files with slack, some large.
func benchDisk() []byte {
	b := make([]byte, chunker.RegionSize)
	state := uint64(1)
	for i := 0; i < len(b); i += 8 {
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
		binary.LittleEndian.PutUint64(b[i:], state)
	}
	for i, k := 0, 0; i < len(b); k++ {
		i += (1 + k*k%97) * chunker.BlockSize
		if i <= len(b) {
			clear(b[i-64 : i])
		}
	}
	return b
}

// BenchmarkCut is the decision alone; it must be at least 4 times as fast as
// BenchmarkSHA256 in the same run.
func BenchmarkCut(b *testing.B) {
	region := benchDisk()
	b.SetBytes(int64(len(region)))
	for b.Loop() {
		cutRegion(region)
	}
}

func BenchmarkSHA256(b *testing.B) {
	region := benchDisk()
	b.SetBytes(int64(len(region)))
	for b.Loop() {
		sha256.Sum256(region)
	}
}
