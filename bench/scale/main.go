// Scale shows that memory and time go with what changes, not with how large
// disks and what is reused are:
//
//	go run ./bench/scale
//
// It builds the table of what three artifacts of 100 GB hold, as a push does,
// and looks up the chunks of a disk in it; and it packs and restores a disk of 1
// TiB that is mostly empty, beside one of 8 GiB with the same data, and one of
// 100 GB that is full (about five minutes). It prints
// times and the peak of resident memory, of a process for each. The artifacts
// are made up: directories and indexes that are right in every byte, over
// frames that nobody has.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/chunker"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/verify"
)

func main() {
	one := flag.String("run", "", "one of the parts, in this process: bases, reuse, 8G, 1T, full")
	gb := flag.Int64("base", 100, "`GB` of each of the three bases")
	flag.Parse()
	if *one != "" {
		if err := part(context.Background(), *one, *gb<<30); err != nil {
			fmt.Fprintln(os.Stderr, "scale:", err)
			os.Exit(1)
		}
		return
	}
	for _, p := range []string{"bases", "reuse", "8G", "1T", "full"} {
		cmd := exec.Command(os.Args[0], "-run", p, "-base", fmt.Sprint(*gb))
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			fmt.Fprintf(os.Stderr, "scale: %s: %v\n", p, err)
			os.Exit(1)
		}
	}
}

// The limit of --max-memory, and what davit tells Go's runtime to stay below.
const maxMemory = 256 << 20

func part(ctx context.Context, name string, base int64) error {
	debug.SetMemoryLimit(maxMemory * 3 / 4)
	scratch, err := os.MkdirTemp("", "davit-scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	switch name {
	case "bases":
		return openBases(ctx, scratch, base, 64<<20)
	case "reuse":
		return openBases(ctx, scratch, base, 2<<30)
	case "8G":
		return packAndRestore(ctx, scratch, sparseDisk{madeDisk{8 << 30}, 8 << 30 / 256})
	case "1T":
		return packAndRestore(ctx, scratch, sparseDisk{madeDisk{1 << 40}, 1 << 40 / 256})
	case "full":
		return packAndRestore(ctx, scratch, fullDisk(base))
	}
	return fmt.Errorf("no part is called %s", name)
}

func say(what string, start time.Time) error {
	peak, err := peakMemory()
	if err != nil {
		return err
	}
	fmt.Printf("%-62s %7.1f s  peak %4d MiB\n", what, time.Since(start).Seconds(), peak>>20)
	if peak > maxMemory {
		return fmt.Errorf("%s: %d MiB are over the limit of %d", what, peak>>20, int64(maxMemory)>>20)
	}
	return nil
}

// peakMemory is the most memory that was resident at once; 0 where the system does not say.
func peakMemory() (int64, error) {
	f, err := os.Open("/proc/self/status")
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if kb, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			var n int64
			_, err := fmt.Sscan(kb, &n)
			return n << 10, err
		}
	}
	return 0, errors.New("/proc/self/status has no VmHWM")
}

// openBases opens three bases and packs a disk of which half is in them.
func openBases(ctx context.Context, scratch string, size, sourceSize int64) error {
	store := &store{dir: scratch, files: map[digest.Digest]string{}}
	var descs []ocispec.Descriptor
	for number := range uint64(3) {
		desc, err := makeBase(store, number, size)
		if err != nil {
			return err
		}
		descs = append(descs, desc)
	}
	// Making them has taken memory that opening them does not.
	debug.FreeOSMemory()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("resetting the peak: %w", err)
	}
	start := time.Now()
	var bases []*artifact.Base
	for _, desc := range descs {
		found, err := verify.Unverified(ctx, store, desc)
		if err != nil {
			return err
		}
		b, err := artifact.OpenBase(ctx, store, found.Subject, artifact.OpenOptions{Scratch: scratch, Jobs: 8})
		if err != nil {
			return err
		}
		defer b.Close()
		bases = append(bases, b)
	}
	chunks := 3 * size / chunkSize
	if err := say(fmt.Sprintf("three bases of %d GB opened, %.1f million chunks", size>>30, float64(chunks)/1e6), start); err != nil {
		return err
	}

	start = time.Now()
	var d disk.Reader = madeDisk{size: sourceSize}
	packed, err := artifact.Pack(ctx, discard{}, []artifact.Source{{Name: "disk0", Reader: d}}, artifact.PackOptions{
		Bases: bases, Scratch: scratch, MaxMemory: maxMemory / 2})
	if err != nil {
		return err
	}
	defer packed.Close()
	if packed.Reused == 0 || packed.New == 0 {
		return fmt.Errorf("%d bytes were found in the bases and %d not, want some of both", packed.Reused, packed.New)
	}
	return say(fmt.Sprintf("a disk of %d MB packed against them, %d MB found", sourceSize>>20, packed.Reused>>20), start)
}

// discard reads blobs that are pushed, as a registry would, and forgets them.
type discard struct{}

func (discard) Push(_ context.Context, _ ocispec.Descriptor, content io.Reader) error {
	_, err := io.Copy(io.Discard, content)
	return err
}

const (
	// chunkSize is the size of all chunks that are made: a little more than
	// the mean of real disks, 128 chunks to 6 MiB.
	chunkBlocks = 12
	chunkSize   = chunkBlocks * chunker.BlockSize
	frameChunks = 10
	layerChunks = 1 << 17
)

// madeChunk writes the chunk of that number: its blocks are different from each
// other, none is a hole or a tail, and only the last is a tail, so that it is cut
// where it ends.
func madeChunk(p []byte, number uint64) {
	for block := range chunkBlocks {
		b := p[block*chunker.BlockSize:][:chunker.BlockSize]
		x := number*chunkBlocks + uint64(block) + 1
		for i := 0; i < len(b); i += 8 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			binary.LittleEndian.PutUint64(b[i:], x)
		}
		if block == chunkBlocks-1 {
			clear(b[chunker.BlockSize-16:])
		}
	}
}

// A madeDisk is full of made chunks, of which every second group is in the first base.
type madeDisk struct{ size int64 }

func (d madeDisk) Size() int64 { return d.size }

func (d madeDisk) ReadAt(p []byte, off int64) (int, error) {
	var chunk [chunkSize]byte
	n := 0
	for n < len(p) && off+int64(n) < d.size {
		at := off + int64(n)
		i := uint64(at / chunkSize)
		if i/64%2 == 1 {
			i |= 1 << 40 // not in a base
		}
		madeChunk(chunk[:], i)
		n += copy(p[n:], chunk[at%chunkSize:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// A store has blobs in files, or as the last part of a blob of which the first
// part is nowhere.
type store struct {
	dir   string
	mu    sync.Mutex
	files map[digest.Digest]string
}

func (s *store) put(desc ocispec.Descriptor, b []byte) error {
	path := s.dir + "/" + desc.Digest.Encoded()
	s.mu.Lock()
	s.files[desc.Digest] = path
	s.mu.Unlock()
	return os.WriteFile(path, b, 0o600)
}

func (s *store) Push(_ context.Context, desc ocispec.Descriptor, content io.Reader) error {
	path := s.dir + "/" + desc.Digest.Encoded()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.files[desc.Digest] = path
	s.mu.Unlock()
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

func (s *store) Fetch(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	s.mu.Lock()
	path := s.files[desc.Digest]
	s.mu.Unlock()
	return os.Open(path)
}

func (s *store) FetchRange(ctx context.Context, desc ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	rc, err := s.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	f := rc.(*os.File)
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	off -= desc.Size - info.Size()
	if off < 0 {
		return nil, errors.Join(fmt.Errorf("%s: the frames of made layers are nowhere", desc.Digest), f.Close())
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, off, n), f}, nil
}

// makeBase makes an artifact of one disk: docs/spec.md in a few lines.
func makeBase(s *store, number uint64, size int64) (ocispec.Descriptor, error) {
	le := binary.LittleEndian
	chunks := size / chunkSize
	m := artifact.Manifest{OVF: blob(artifact.TypeOVF, []byte("<Envelope/>"))}
	var table []byte
	digests := make([]byte, 0, chunks*sha256.Size)
	var buf [chunkSize]byte
	for first := int64(0); first < chunks; first += layerChunks {
		n := min(layerChunks, chunks-first)
		frames := (n + frameChunks - 1) / frameChunks
		dir := le.AppendUint32(le.AppendUint32([]byte("DAVITDR1"), uint32(frames)), uint32(n))
		stored := int64(0)
		for f := range frames {
			k := min(frameChunks, n-f*frameChunks)
			id := sha256.Sum256(le.AppendUint64(le.AppendUint64(nil, number), uint64(first+f)))
			dir = le.AppendUint32(le.AppendUint32(le.AppendUint32(dir, uint32(k*chunkSize)), uint32(k*chunkSize)), uint32(k))
			dir = append(dir, id[:]...)
			stored += k * chunkSize
		}
		for c := range n {
			// Only the first chunks of the first base have content.
			var id [sha256.Size]byte
			if number == 0 && first+c < 1<<16 {
				madeChunk(buf[:], uint64(first+c))
				id = sha256.Sum256(buf[:])
			} else {
				id = sha256.Sum256(le.AppendUint64(le.AppendUint64(nil, number), uint64(first+c)|1<<63))
			}
			dir = append(le.AppendUint16(dir, chunkBlocks), id[:]...)
			digests = append(digests, id[:]...)
		}
		dirDigest := sha256.Sum256(dir)
		layer := sha256.Sum256(append(dirDigest[:], byte(number), byte(first>>17), byte(first>>25)))
		desc := ocispec.Descriptor{MediaType: artifact.TypeLayer, Digest: artifact.Digest(layer), Size: stored + int64(len(dir))}
		if err := s.put(desc, dir); err != nil {
			return desc, err
		}
		m.Layers = append(m.Layers, desc)
		table = append(table, layer[:]...)
		table = le.AppendUint64(le.AppendUint64(table, uint64(desc.Size)), uint64(stored))
		table = le.AppendUint32(le.AppendUint32(table, uint32(len(dir))), uint32(len(dir)))
		table = le.AppendUint32(append(table, dirDigest[:]...), uint32(n))
	}

	// As many chunks as fit into a region, one after the other.
	const perRegion = chunker.RegionBlocks / chunkBlocks
	var regionTable, pages []byte
	regions := (chunks + perRegion - 1) / perRegion
	head := 76 + int64(len(table)) + 80*regions
	content := chunker.NewDisk(chunker.Profile1)
	for r := range regions {
		var region chunker.Region
		var page []byte
		first, n := r*perRegion, min(perRegion, chunks-r*perRegion)
		for c := range n {
			id := [sha256.Size]byte(digests[(first+c)*sha256.Size:])
			region.Add(int(c)*chunkBlocks, chunkBlocks, &id)
		}
		for c := first; c < first+n; {
			k := min(first+n, (c/layerChunks+1)*layerChunks) - c
			for _, v := range []int64{0, c / layerChunks, c % layerChunks, k} {
				page = binary.AppendUvarint(page, uint64(v))
			}
			c += k
		}
		id := region.Identity()
		content.Add(uint32(r), &id)
		pageDigest := sha256.Sum256(page)
		regionTable = append(le.AppendUint32(regionTable, uint32(r)), id[:]...)
		regionTable = le.AppendUint32(le.AppendUint64(regionTable, uint64(head)+uint64(len(pages))), uint32(len(page)))
		regionTable = append(regionTable, pageDigest[:]...)
		pages = append(pages, page...)
	}
	d := artifact.DiskDescriptor{Name: "disk0", Size: regions * chunker.RegionSize, Digest: content.Digest()}
	index := append([]byte("DAVITIX1"), make([]byte, 16)...)
	index = le.AppendUint64(le.AppendUint32(index, uint32(chunker.Profile1)), uint64(d.Size))
	index = append(index, d.Digest[:]...)
	index = le.AppendUint32(le.AppendUint32(index, uint32(len(m.Layers))), uint32(regions))
	index = append(append(index, table...), regionTable...)
	d.Head = sha256.Sum256(index)
	index = append(index, pages...)
	d.Index = blob(artifact.TypeIndex, index)
	m.Disks = append(m.Disks, d)
	raw, err := m.Encode()
	if err != nil {
		return d.Index, err
	}
	desc := blob(ocispec.MediaTypeImageManifest, raw)
	return desc, errors.Join(s.put(d.Index, index), s.put(desc, raw))
}

func blob(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// A sparseDisk has a GB of made chunks, in 256 pieces all over it.
type sparseDisk struct {
	madeDisk
	step int64 // from piece to piece
}

const pieceSize = 4 << 20

func (d sparseDisk) NextExtent(off int64) (disk.Extent, error) { //nolint:unparam // as package disk wants it
	at := off / d.step * d.step
	if off >= at+pieceSize {
		at += d.step
	}
	if at >= d.size {
		return disk.Extent{}, nil
	}
	return disk.Extent{Offset: at, Length: pieceSize}, nil
}

// A fullDisk has data everywhere, in files of 48 KiB: no chunk is there twice,
// and all compress well, so that it takes time but no space.
type fullDisk int64

var text = bytes.Repeat([]byte("no chunk is there twice, all of them compress well. "), chunker.BlockSize/52+1)[:chunker.BlockSize]

func (d fullDisk) Size() int64 { return int64(d) }

func (d fullDisk) ReadAt(p []byte, off int64) (int, error) {
	var block [chunker.BlockSize]byte
	n := 0
	for n < len(p) && off < int64(d) {
		number := off / chunker.BlockSize
		copy(block[:], text)
		binary.LittleEndian.PutUint64(block[:], uint64(number))
		if number%12 == 11 { // the end of a file
			clear(block[chunker.BlockSize-100:])
		}
		k := copy(p[n:], block[off%chunker.BlockSize:])
		n += k
		off += int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// packAndRestore packs a disk, and restores it.
func packAndRestore(ctx context.Context, scratch string, d disk.Reader) error {
	size := d.Size()
	start := time.Now()
	s := &store{dir: scratch, files: map[digest.Digest]string{}}
	packed, err := artifact.Pack(ctx, s, []artifact.Source{{Name: "disk0", Reader: d}}, artifact.PackOptions{
		Scratch: scratch, MaxMemory: maxMemory / 2})
	if err != nil {
		return err
	}
	defer packed.Close()
	if err := say(fmt.Sprintf("%d GiB of disk with %d MB of data packed", size>>30, packed.DataSize[0]>>20), start); err != nil {
		return err
	}

	start = time.Now()
	desc, err := artifact.Publish(ctx, s, artifact.Content{OVF: []byte("<Envelope/>"), Packed: packed})
	if err != nil {
		return err
	}
	found, err := verify.Unverified(ctx, s, desc)
	if err != nil {
		return err
	}
	img, err := artifact.Open(ctx, s, found.Subject, artifact.OpenOptions{Scratch: scratch})
	if err != nil {
		return err
	}
	defer img.Close()
	w := &checker{d: d}
	if _, err := img.Disk("disk0").Restore(ctx, w, artifact.RestoreOptions{}); err != nil {
		return err
	}
	sort.Slice(w.wrong, func(i, j int) bool { return w.wrong[i] < w.wrong[j] })
	if len(w.wrong) > 0 || w.n != packed.DataSize[0] {
		return fmt.Errorf("restored %d bytes of %d, wrong at %v", w.n, packed.DataSize[0], w.wrong[:min(5, len(w.wrong))])
	}
	return say(fmt.Sprintf("%d GiB of disk restored and compared", size>>30), start)
}

// A checker is a [disk.Writer] that compares with the disk.
type checker struct {
	d     disk.Reader
	mu    sync.Mutex
	wrong []int64
	n     int64
}

func (c *checker) WriteAt(p []byte, off int64) (int, error) {
	want := make([]byte, len(p))
	if n, err := c.d.ReadAt(want, off); n < len(p) {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += int64(len(p))
	if !bytes.Equal(p, want) {
		c.wrong = append(c.wrong, off)
	}
	return len(p), nil
}

func (c *checker) Close() error { return nil }
