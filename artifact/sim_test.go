package artifact

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-oci/davit/chunker"
)

// A simulation is a disk that is pushed week after week, without data: chunks
// are numbers, the encoder halves whatever it gets. The rules of plan.go decide
// what is kept, and pages and manifests are the real ones.
type simulation struct {
	rng    *rand.Rand
	slots  []simSlot // of the disk, in order
	layers []simLayer

	stored int64 // of all layers ever written
}

// A simSlot is a place on the disk with the chunk that is there now.
type simSlot struct {
	region, start, blocks int
	layer                 int // in the table, -1 if it is new
	chunk                 int // in the layer
}

type simLayer struct {
	all    int64 // blocks
	chunks int
}

// One chunk in two places needs no simulation: it only makes less new.
func newSimulation(size int64, seed uint64) *simulation {
	s := &simulation{rng: rand.New(rand.NewPCG(seed, 0))}
	region, at := 0, 0
	for int64(region)*chunker.RegionSize+int64(at)*chunker.BlockSize < size {
		// Most chunks are small files; they have 20 blocks in the mean.
		n := 1 + s.rng.IntN(16)
		if s.rng.IntN(6) == 0 {
			n = 16 + s.rng.IntN(chunker.MaxBlocks-15)
		}
		n = min(n, chunker.RegionBlocks-at)
		s.slots = append(s.slots, simSlot{region, at, n, -1, 0})
		if at += n; at == chunker.RegionBlocks {
			region, at = region+1, 0
		}
	}
	return s
}

// update changes a part of the data: half of it in files that change often,
// the other half anywhere; each file is a few chunks.
func (s *simulation) update(part float64) (changed int64) {
	var total int64
	for i := range s.slots {
		total += int64(s.slots[i].blocks)
	}
	want := int64(part * float64(total))
	for changed < want {
		at := s.rng.IntN(len(s.slots))
		if s.rng.IntN(2) == 0 {
			at /= 10
		}
		for n := 1 + s.rng.IntN(8); n > 0 && at < len(s.slots); n-- {
			if slot := &s.slots[at]; slot.layer >= 0 {
				slot.layer = -1
				changed += int64(slot.blocks)
			}
			at++
		}
	}
	return changed * chunker.BlockSize
}

// simPush is what one push came to.
type simPush struct {
	layers, kept int
	written      int64 // plain bytes
	directories  int64 // stored, of the new layers
	manifest     int
}

// push pushes what the disk holds now, like Pack does.
func (s *simulation) push(t *testing.T) (p simPush) {
	t.Helper()
	bases := len(s.layers)
	live, all := make([]int64, bases), make([]int64, bases)
	for i := range s.slots {
		if l := s.slots[i].layer; l >= 0 {
			live[l] += int64(s.slots[i].blocks)
		}
	}
	for i, l := range s.layers {
		all[i] = l.all
	}
	var fresh []simLayer
	open := false
	store := func(slot *simSlot) {
		n := len(fresh)
		if open && (fresh[n-1].all+int64(slot.blocks))*chunker.BlockSize > layerLimit(bases, n) || open && fresh[n-1].chunks == maxLayerChunks {
			open = false
		}
		if !open {
			fresh = append(fresh, simLayer{})
			open = true
			n++
		}
		l := &fresh[n-1]
		slot.layer, slot.chunk = bases+n-1, l.chunks
		l.chunks++
		l.all += int64(slot.blocks)
	}
	for i := range s.slots {
		if s.slots[i].layer < 0 {
			store(&s.slots[i])
		}
	}
	open = false
	keep := keepLayers(live, all, len(fresh), nil)
	for i := range s.slots {
		if l := s.slots[i].layer; l < bases && !keep[l] {
			store(&s.slots[i])
		}
	}

	var table []simLayer
	position := make([]int, bases+len(fresh))
	for i, l := range s.layers {
		if keep[i] {
			position[i] = len(table)
			table = append(table, l)
		}
	}
	p.kept = len(table)
	for i, l := range fresh {
		position[bases+i] = len(table)
		table = append(table, l)
		p.written += l.all * chunker.BlockSize
		// A digest does not compress.
		p.directories += dirHeader + dirFrameSize*(1+l.all*chunker.BlockSize/maxFramePlain) + dirChunkSize*int64(l.chunks)
	}
	for i := range s.slots {
		s.slots[i].layer = position[s.slots[i].layer]
	}
	s.layers = table
	s.stored += p.written / 2
	p.layers = len(table)
	p.manifest = s.manifestSize(t)
	return p
}

func (s *simulation) manifestSize(t *testing.T) int {
	m := Manifest{OVF: descriptorOf(TypeOVF, nil)}
	d := DiskDescriptor{Index: descriptorOf(TypeIndex, []byte("index")), Name: "disk0", Size: 1 << 40}
	d.Index.Size = 1 << 30
	m.Disks = append(m.Disks, d)
	for i, l := range s.layers {
		desc := descriptorOf(TypeLayerZstd, binary.LittleEndian.AppendUint32(nil, uint32(i)))
		desc.Size = l.all * chunker.BlockSize / 2
		m.Layers = append(m.Layers, desc)
	}
	raw, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	desc := descriptorOf(ocispec.MediaTypeImageManifest, raw)
	if _, err := ParseManifest(raw, desc); err != nil {
		t.Fatal(err)
	}
	return len(raw)
}

// indexSize is the size of the index of the disk as it is now.
func (s *simulation) indexSize() int64 {
	x := Index{Layers: make([]IndexLayer, len(s.layers))}
	pages := int64(0)
	var w pageWriter
	last := -1
	end := func() {
		pages += int64(len(w.bytes()))
		w = pageWriter{b: w.b[:0]}
	}
	for i := range s.slots {
		slot := &s.slots[i]
		if slot.region != last {
			end()
			last = slot.region
			x.Regions = append(x.Regions, IndexRegion{})
		}
		w.add(slot.start, slot.blocks, slot.layer, slot.chunk)
	}
	end()
	return x.headSize() + pages
}

func (s *simulation) live() (n int64) {
	for i := range s.slots {
		n += int64(s.slots[i].blocks) * chunker.BlockSize
	}
	return n
}

// Two years of weekly updates of 5 %: what a manifest names stays few, what is
// said about data stays small beside it, and what is kept is not mostly dead.
func TestTwoYearsOfUpdates(t *testing.T) {
	for _, gb := range []int64{4, 58} {
		t.Run(fmt.Sprintf("%d GB", gb), func(t *testing.T) {
			s := newSimulation(gb<<30, uint64(gb))
			first := s.push(t)
			most, largest, rewritten := first.layers, first.manifest, int64(0)
			for week := 1; week <= 104; week++ {
				changed := s.update(0.05)
				p := s.push(t)
				most, largest = max(most, p.layers), max(largest, p.manifest)
				rewritten += p.written - changed
				if week%26 == 0 { // the index of all chunks takes the time
					said, limit := s.indexSize()+p.directories, p.written/2/50
					if said > limit {
						t.Errorf("week %d: index and directories have %d bytes, more than 2 %% of the %d that were written", week, said, p.written/2)
					}
				}
			}
			dead := int64(0)
			for _, l := range s.layers {
				dead += l.all * chunker.BlockSize
			}
			dead -= s.live()
			updates := int64(104 * 0.05 * float64(s.live()))
			t.Logf("at most %d layers and %d bytes of manifest; %d %% of the updates were written once more; all versions take %.1f times the first; %d %% of what the last one names is dead",
				most, largest, rewritten*100/updates, float64(s.stored)/float64(first.written/2), dead*100/(dead+s.live()))
			if most > 400 {
				t.Errorf("%d layers, more than 400", most)
			}
			if largest > 1<<20 {
				t.Errorf("a manifest of %d bytes, more than 1 MiB", largest)
			}
			// Every layer is a quarter alive or it goes.
			if dead > 3*s.live() {
				t.Errorf("%d bytes are dead, %d live", dead, s.live())
			}
			if rewritten > 2*updates {
				t.Errorf("updates of %d bytes made the writer rewrite %d", updates, rewritten)
			}
		})
	}
}

// A small update every day adds a layer every day, until there are too many.
func TestManySmallUpdates(t *testing.T) {
	s := newSimulation(1<<30, 9)
	s.push(t)
	most, rewrites, changed, written := 0, 0, int64(0), int64(0)
	last := 0
	for range 1000 {
		changed += s.update(0.0005)
		p := s.push(t)
		written += p.written
		most = max(most, p.layers)
		if p.layers < last-10 {
			rewrites++
		}
		last = p.layers
	}
	t.Logf("at most %d layers, brought down %d times; %.1f times the updates were written", most, rewrites, float64(written)/float64(changed))
	if most > 400 {
		t.Errorf("%d layers, more than 400", most)
	}
	if rewrites == 0 || rewrites > 20 {
		t.Errorf("the layers were brought down %d times in 1000 days", rewrites)
	}
	if written > 5*changed {
		t.Errorf("updates of %d bytes made the writer write %d", changed, written)
	}
}

// The limits of a table of layers hold wherever it starts, also for bases of
// several artifacts with more layers than any has.
func TestKeepLayersLimits(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 500 {
		n, fresh := rng.IntN(1600), rng.IntN(450)
		live, all := make([]int64, n), make([]int64, n)
		for i := range n {
			all[i] = 1 + rng.Int64N(1000)
			live[i] = rng.Int64N(all[i] + 1)
		}
		keep := keepLayers(live, all, fresh, nil)
		kept, candidates := 0, 0
		worstKept, bestDropped := int64(1<<62), int64(-1)
		for i, k := range keep {
			alive := live[i] > 0 && 4*live[i] >= all[i]
			if alive {
				candidates++
			}
			switch {
			case k && !alive:
				t.Fatalf("a layer of %d blocks is kept for %d", all[i], live[i])
			case k:
				kept++
				worstKept = min(worstKept, live[i])
			case alive:
				bestDropped = max(bestDropped, live[i])
			}
		}
		if bestDropped > worstKept {
			t.Fatalf("a layer with %d blocks is dropped, one with %d kept", bestDropped, worstKept)
		}
		switch {
		case fresh == 0 || fresh+candidates <= 384:
			if kept != candidates {
				t.Fatalf("%d of %d layers are kept beside %d new ones", kept, candidates, fresh)
			}
		case kept+fresh != max(256, fresh):
			t.Fatalf("%d layers are kept of %d beside %d new ones, want 256 in all", kept, candidates, fresh)
		}

		scrub := make([]bool, len(live))
		for i := range scrub {
			scrub[i] = live[i] != all[i]
		}
		for i, k := range keepLayers(live, all, fresh, scrub) {
			if k && scrub[i] {
				t.Fatalf("scrubbing keeps a layer of %d blocks for %d", all[i], live[i])
			}
		}
	}
}

// What a push says about its data is small beside it: 2 % of an update, or 64
// KB for 1 GB. Here it is a disk of a sixteenth of that, and the layers are real.
func TestIndexOverhead(t *testing.T) {
	const size = 64 << 20
	const limit = 64 << 10 / 16
	content := make([]byte, size)
	rng := rand.New(rand.NewPCG(8, 8))
	const words = "the quick brown fox jumps over a lazy dog while nobody looks "
	for at := 0; at < size; { // files, each with slack in its last block
		n := min(size-at, 500+rng.IntN(120_000))
		for i := at; i < at+n; i += 12 {
			copy(content[i:at+n], words[rng.IntN(len(words)-12):][:12])
		}
		at = (at + n + 32 + chunker.BlockSize - 1) &^ (chunker.BlockSize - 1)
	}
	m := newMemory()
	said := func(p *Packed) (n int64) {
		for _, l := range p.packer.layers.done {
			n += int64(l.DirStored)
		}
		return n + p.Disks[0].Index.Size
	}
	base, p := m.pack(t, []Source{{"disk0", bytes.NewReader(content)}}, PackOptions{})
	if got := said(p); got > max(limit, p.Blobs/50) {
		t.Errorf("first push: index and directories have %d bytes of %d", got, p.Blobs)
	}
	for _, update := range []struct {
		name          string
		writes, bytes int
	}{{"1 MB in one place", 1, 1 << 20}, {"16 scattered blocks", 16, 4096}, {"5 % scattered", 200, 16 << 10}} {
		changed := bytes.Clone(content)
		for range update.writes {
			at := rng.IntN(size-update.bytes) &^ (chunker.BlockSize - 1)
			for i := range update.bytes {
				changed[at+i] = byte(rng.Uint32())
			}
		}
		_, p := m.pack(t, []Source{{"disk0", bytes.NewReader(changed)}}, PackOptions{Bases: []*Base{m.base(t, base)}})
		got := said(p)
		t.Logf("%s: index and directories have %d bytes, the update %d", update.name, got, p.Blobs)
		if got > max(limit, p.Blobs/50) {
			t.Errorf("%s: index and directories have %d bytes, more than 2 %% of %d and more than %d", update.name, got, p.Blobs, limit)
		}
	}
}

// Layers grow with their number, so that a large disk has few, and a limit
// never goes down within one push.
func TestLayerLimits(t *testing.T) {
	var sizes []string
	for _, bases := range []int{0, 31, 100, 400, 1500} {
		last := int64(0)
		for j := 1; j <= 500; j++ {
			l := layerLimit(bases, j)
			if l < last || l < firstLayerPlain || l > firstLayerPlain<<7 {
				t.Fatalf("layerLimit(%d, %d) = %d after %d", bases, j, l, last)
			}
			last = l
		}
	}
	for _, gb := range []int64{1, 10, 100, 1000} {
		n := sort.Search(1000, func(n int) bool {
			sum := int64(0)
			for j := 1; j <= n; j++ {
				sum += layerLimit(0, j)
			}
			return sum >= gb<<30
		})
		sizes = append(sizes, fmt.Sprintf("%d GB: %d", gb, n))
		if n > maxLayers {
			t.Errorf("a first push of %d GB has %d layers", gb, n)
		}
	}
	t.Log(strings.Join(sizes, ", "))
}
