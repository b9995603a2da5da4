package artifact

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A single bit that is not as it was is found. Whoever pulls is told what did
// not match, or gets the right disk, because the bit is none that a pull reads;
// [Image.Check], which reads all, finds every one.
func TestBitFlips(t *testing.T) {
	for _, name := range []string{
		"ok-dead-chunk", "ok-package", "ok-compat-gitlab", "ok-manifest-unknown-layer", "deep-dead-frame", "packed xz",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := artifactVector{name: name, store: newMemory()}
			var err error
			if name == "packed xz" { // the vectors ask for 8 MiB of dictionary a frame, which is slow
				text := bytes.Repeat([]byte("the quick brown fox "), 1000)
				v.desc, _ = v.store.pack(t, []Source{{"disk0", bytes.NewReader(text)}}, PackOptions{Codec: Codec{Name: "xz"}})
			} else if v, err = loadVector(filepath.Join("../testdata/vectors", name+".vec")); err != nil {
				t.Fatal(err)
			}
			f := newFlipper(t, v)
			for _, d := range slices.Sorted(maps.Keys(v.store.blobs)) {
				f.flip(t, d)
			}
			t.Logf("%d flips, of which a pull saw %d", f.flips, f.refused)
			if f.refused == 0 {
				t.Error("a pull saw no flip")
			}
		})
	}
}

// A flipper flips the bits of an artifact, one after the other.
type flipper struct {
	*artifactVector
	scratch string
	disks   map[string][]byte
	parts   map[string][]string // what a message may name, by blob

	flips, refused int
}

func newFlipper(t *testing.T, v artifactVector) *flipper {
	f := &flipper{artifactVector: &v, scratch: t.TempDir(), disks: map[string][]byte{}, parts: map[string][]string{}}
	im := v.store.open(t, v.desc)
	// A vector of a flipped bit is mended first.
	for _, l := range im.Layers {
		if b := v.store.blobs[string(l.Digest)]; checkBlob(PartLayer, l, b) != nil {
			mend(t, l.Digest.String(), b)
		}
	}
	for _, d := range im.Disks {
		f.disks[d.Name], _ = restore(t, im, d.Name, RestoreOptions{}, nil)
	}
	if err := im.Check(t.Context(), CheckOptions{Jobs: 1}); err != nil {
		t.Fatalf("before any flip: %v", err)
	}

	f.parts[string(v.desc.Digest)] = []string{PartManifest}
	f.parts[string(im.OVF.Digest)] = []string{PartConfig}
	for _, d := range im.Manifest.Disks {
		f.parts[string(d.Index.Digest)] = []string{PartIndex}
	}
	for _, l := range im.Layers {
		f.parts[string(l.Digest)] = []string{PartFrame, PartDirectory, PartLayer}
	}
	for _, l := range im.Files {
		f.parts[string(l.Digest)] = []string{PartFile}
	}
	for _, l := range im.Others {
		f.parts[string(l.Digest)] = []string{PartBlob}
	}
	return f
}

// mend finds the bit that makes b hash to d.
func mend(t *testing.T, d string, b []byte) {
	for bit := range 8 * len(b) {
		b[bit/8] ^= 1 << (bit % 8)
		if string(descriptorOf("", b).Digest) == d {
			return
		}
		b[bit/8] ^= 1 << (bit % 8)
	}
	t.Fatalf("%s is more than a bit away from what it was", d)
}

func (f *flipper) flip(t *testing.T, d string) {
	whole := f.store.blobs[d]
	if f.parts[d] == nil {
		return // nothing names it
	}
	flipped := bytes.Clone(whole)
	f.store.blobs[d] = flipped
	defer func() { f.store.blobs[d] = whole }()

	// Every byte has a bit flipped, and every position in a byte its turn.
	for bit := 0; bit < 8*len(whole); bit += 7 {
		flipped[bit/8] ^= 1 << (bit % 8)
		f.flips++
		if err := f.pull(t, bit%2 == 0); err != nil {
			f.refused++
			f.named(t, d, bit, err)
		}
		f.named(t, d, bit, f.check(t))
		flipped[bit/8] ^= 1 << (bit % 8)
	}
}

// pull returns an error, or all disks are right.
func (f *flipper) pull(t *testing.T, inOrder bool) error {
	im, err := openUnverified(t.Context(), f.store, f.desc, OpenOptions{Scratch: f.scratch})
	if err != nil {
		return err
	}
	defer im.Close()
	for _, d := range im.Disks {
		w := &target{b: make([]byte, d.Size), ordered: inOrder}
		if _, err := d.Restore(t.Context(), w, RestoreOptions{Jobs: 1}); err != nil {
			return err
		}
		if !bytes.Equal(w.b, f.disks[d.Name]) {
			return fmt.Errorf("disk %s is wrong, and no error", d.Name)
		}
	}
	return nil
}

func (f *flipper) check(t *testing.T) error {
	im, err := openUnverified(t.Context(), f.store, f.desc, OpenOptions{Scratch: f.scratch})
	if err != nil {
		return err
	}
	defer im.Close()
	return im.Check(t.Context(), CheckOptions{Jobs: 1})
}

// named says whether the error is a refusal that names the part and the blob.
func (f *flipper) named(t *testing.T, d string, bit int, err error) {
	t.Helper()
	part := refusedPart(err)
	if part == "" {
		t.Errorf("bit %d of byte %d of %s: got %v, want a refusal", bit%8, bit/8, d, err)
		return
	}
	if !slices.Contains(f.parts[d], part) {
		t.Errorf("bit %d of byte %d of %s: refused for the %s, want one of %v", bit%8, bit/8, d, part, f.parts[d])
	}
	if !strings.Contains(err.Error(), d) {
		t.Errorf("bit %d of byte %d: the message does not name %s: %v", bit%8, bit/8, d, err)
	}
}
