package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/internal/programs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// key makes a key pair, NAME.key and NAME.pub, in the host's folder.
func (h *host) key(name string) {
	h.t.Helper()
	h.ok("key", "generate", "-o", name)
}

// blobFiles returns the files of all blobs in the storage of a registry or in a
// layout, by digest.
func blobFiles(t *testing.T, dir string) map[digest.Digest]string {
	t.Helper()
	found := map[digest.Digest]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || !strings.Contains(path, "blobs") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.Base(path)
		if name == "data" { // as distribution keeps them
			name = filepath.Base(filepath.Dir(path))
		}
		if digest.FromBytes(b).Encoded() == name {
			found[digest.FromBytes(b)] = path
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatalf("%s has no blobs", dir)
	}
	return found
}

// flipBit flips a bit of a file and returns the function that flips it back.
func flipBit(t *testing.T, path string, bit int64) (back func()) {
	t.Helper()
	flip := func() {
		// A blob can be read-only, or have several names.
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[bit/8] ^= 1 << (bit % 8)
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flip()
	return flip
}

// refuses wants a command to be refused, to say one of the words, and to leave
// the folder as it was.
func (h *host) refuses(words []string, args ...string) {
	h.t.Helper()
	before := h.files()
	r := h.run(args...)
	if r.code != exitRefused {
		h.t.Errorf("davit %s: exit code %d, want %d\n%s", strings.Join(args, " "), r.code, exitRefused, r.stderr)
	}
	if !slices.ContainsFunc(words, func(w string) bool { return strings.Contains(r.stderr, w) }) {
		h.t.Errorf("davit %s: the message names none of %q:\n%s", strings.Join(args, " "), words, r.stderr)
	}
	if after := h.files(); after != before {
		h.t.Errorf("davit %s: the folder has changed from\n%sto\n%s", strings.Join(args, " "), before, after)
	}
	if r.stdout != "" {
		h.t.Errorf("davit %s: refused, and on stdout: %s", strings.Join(args, " "), r.stdout)
	}
}

// A host that knows a key gets what was signed with it and nothing else.
func TestE2ESigned(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name  string
		start func(*testing.T) server
	}{
		{"olareg", newOlareg},
		{"docker-registry 2.8", func(t *testing.T) server { return newDistribution(t, "docker-registry") }},
		{"distribution 3", func(t *testing.T) server { return newDistribution(t, "registry") }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			publisher, puller := newHost(t), newHost(t)
			publisher.key("davit")
			publisher.key("other")
			for _, f := range []string{"davit.pub", "other.pub"} {
				b, err := os.ReadFile(publisher.path(f))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(puller.path(f), b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := kind.start(t)
			vm := s.host + "/team/vm"
			disk := writeFileAt(t, publisher.path("disk.raw"), 6<<20, map[int64][]byte{0: prose(1, 1<<20), 3 << 20: fill(2, 1<<20)})
			evil := writeFileAt(t, publisher.path("evil.raw"), 6<<20, map[int64][]byte{0: prose(7, 1<<20), 3 << 20: fill(2, 1<<20)})

			// Not signed.
			publisher.ok("push", evil, vm+":unsigned")
			for _, dest := range []string{"x.raw", "x.qcow2", "new/x.raw", "-"} {
				puller.refuses([]string{"there is no signature"}, "pull", "--key", "davit.pub", vm+":unsigned", dest)
			}
			puller.refuses([]string{"no trust source"}, "pull", vm+":unsigned", "x.raw")

			// Signed, also by another.
			publisher.ok("push", "--sign", "--key", "davit.key", disk, vm+":v1")
			puller.refuses([]string{"not trusted"}, "pull", "--key", "other.pub", vm+":v1", "x.raw")
			puller.ok("pull", "--key", "davit.pub", vm+":v1", "signed.raw")
			puller.sameDisk(disk, puller.path("signed.raw"))
			puller.ok("verify", "--deep", "--key", "davit.pub", "--disk", "signed.raw", vm+":v1")

			// Signed again is a new signature at most, and accepted.
			publisher.ok("push", "--sign", "--key", "davit.key", disk, vm+":v1")
			puller.ok("pull", "--cache", "none", "--key", "davit.pub", vm+":v1", "again.qcow2")

			// A file that is there stays there.
			puller.refuses([]string{"there is no signature"}, "pull", "--force", "--key", "davit.pub", vm+":unsigned", "signed.raw")

			// The tag moves to what nobody signed.
			publisher.ok("push", evil, vm+":v1")
			puller.refuses([]string{"there is no signature"}, "pull", "--key", "davit.pub", vm+":v1", "x.raw")

			// A byte is altered where the registry keeps it.
			pinned := strings.TrimSpace(publisher.ok("push", "--sign", "--key", "davit.key", disk, vm+":v2"))
			puller.ok("verify", "--deep", "--key", "davit.pub", vm+":v2")
			var largest string
			var size int64
			for _, path := range blobFiles(t, s.dir) {
				if info, err := os.Stat(path); err == nil && info.Size() > size && !strings.Contains(publisher.ok("inspect", "--raw", vm+":unsigned"), filepath.Base(path)) {
					largest, size = path, info.Size()
				}
			}
			for _, ref := range []string{vm + ":v2", pinned} {
				back := flipBit(t, largest, size*4)
				puller.refuses([]string{"frame", "chunk"}, "pull", "--cache", "none", "--key", "davit.pub", ref, "x.raw")
				puller.refuses([]string{"frame", "chunk"}, "pull", "--cache", "none", "--key", "davit.pub", ref, "x.qcow2")
				puller.refuses([]string{"frame", "chunk"}, "verify", "--cache", "none", "--deep", "--key", "davit.pub", ref)
				back()
			}
			puller.ok("verify", "--deep", "--cache", "none", "--key", "davit.pub", vm+":v2")
		})
	}
}

// cosign takes our signatures and we take its, but an attestation alone is none.
func TestE2ECosign(t *testing.T) {
	t.Parallel()
	programs.Need(t, "cosign")
	h := newHost(t)
	h.key("davit")
	s := newOlareg(t)
	vm := s.host + "/team/vm"
	cosign := func(args ...string) { h.t.Helper(); h.tool("cosign", args...) }
	disk := writeFileAt(t, h.path("disk.raw"), 1<<20, map[int64][]byte{0: prose(1, 1<<19)})

	h.ok("push", "--sign", "--key", "davit.key", disk, vm+":ours")
	cosign("verify", "--key", "davit.pub", "--insecure-ignore-tlog=true", "--allow-http-registry", vm+":ours")

	pinned := h.report("push", "--reuse", "none", "-a", "who=cosign", disk, vm+":theirs").Ref
	h.refuses([]string{"there is no signature"}, "pull", "--key", "davit.pub", vm+":theirs", "x.raw")
	if err := os.WriteFile(h.path("predicate.json"), []byte(`{"said":"nothing"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cosign("attest", "--key", "davit.key", "--tlog-upload=false", "--use-signing-config=false", "-y", "--allow-http-registry",
		"--type", "custom", "--predicate", "predicate.json", pinned)
	h.refuses([]string{"signature"}, "pull", "--key", "davit.pub", vm+":theirs", "x.raw")
	cosign("sign", "--key", "davit.key", "--tlog-upload=false", "--use-signing-config=false", "-y", "--allow-http-registry", pinned)
	h.ok("pull", "--key", "davit.pub", vm+":theirs", "x.raw")
	h.sameDisk(disk, h.path("x.raw"))
}

// One bit, anywhere in any blob of a signed artifact, signature included: a
// pull refuses or does not read it, and verify --deep finds it.
func TestE2EBitFlips(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.key("davit")
	layout := t.TempDir() + "/layout"
	ref := "oci:" + layout + ":v1"
	content := writeFileAt(t, h.path("disk.raw"), 2<<20, map[int64][]byte{0: prose(1, 200_000), 1 << 20: fill(2, 30_000)})
	h.ok("push", "--sign", "--key", "davit.key", content, ref)
	h.ok("verify", "--cache", "none", "--deep", "--key", "davit.pub", ref)
	blobs := blobFiles(t, layout)
	if len(blobs) < 6 { // manifest, OVF, index, layer; the signature's manifest and bundle
		t.Fatalf("only %d blobs", len(blobs))
	}
	rng := rand.New(rand.NewPCG(11, 11))
	for d, path := range blobs {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			bit := rng.Int64N(8 * info.Size())
			what := fmt.Sprintf("bit %d of the %d bytes of %s", bit, info.Size(), d)
			back := flipBit(t, path, bit)
			before := h.files()
			dest := []string{"x.raw", "x.qcow2", "x.raw"}[i]
			r := h.run("pull", "--cache", "none", "--key", "davit.pub", ref, dest)
			switch {
			case r.code == 0: // not read
				h.sameDisk(content, h.path(dest))
				os.Remove(h.path(dest))
			case r.code != exitRefused:
				t.Errorf("%s: pull: exit code %d\n%s", what, r.code, r.stderr)
			case !strings.Contains(r.stderr, d.Encoded()[:12]):
				t.Errorf("%s: pull: the message does not name it:\n%s", what, r.stderr)
			}
			if after := h.files(); after != before {
				t.Errorf("%s: pull: the folder has changed:\n%s", what, after)
				os.Remove(h.path(dest))
			}
			if r := h.run("verify", "--cache", "none", "--deep", "--key", "davit.pub", ref); r.code != exitRefused {
				t.Errorf("%s: verify --deep: exit code %d, want %d\n%s%s", what, r.code, exitRefused, r.stdout, r.stderr)
			}
			back()
		}
	}
	h.ok("verify", "--cache", "none", "--deep", "--key", "davit.pub", ref)
}

// A forgery is an artifact in a layout whose blobs were altered, with all
// digests that name them, up to the tag.
type forgery struct {
	t        *testing.T
	layout   string
	manifest ocispec.Manifest
}

func forge(t *testing.T, layout string) *forgery {
	t.Helper()
	f := &forgery{t: t, layout: layout}
	var index ocispec.Index
	f.decode(filepath.Join(layout, "index.json"), &index)
	f.decode(f.blob(index.Manifests[0].Digest), &f.manifest)
	return f
}

func (f *forgery) decode(path string, v any) {
	f.t.Helper()
	if err := json.Unmarshal(f.read(path), v); err != nil {
		f.t.Fatal(err)
	}
}

func (f *forgery) read(path string) []byte {
	f.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

func (f *forgery) blob(d digest.Digest) string {
	return filepath.Join(f.layout, "blobs", "sha256", d.Encoded())
}

// put writes a blob and makes the descriptor its.
func (f *forgery) put(desc *ocispec.Descriptor, b []byte) {
	f.t.Helper()
	desc.Digest, desc.Size = digest.FromBytes(b), int64(len(b))
	if err := os.WriteFile(f.blob(desc.Digest), b, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// index changes the index of the first disk.
func (f *forgery) index(change func(b []byte)) {
	l := &f.manifest.Layers[0]
	b := f.read(f.blob(l.Digest))
	change(b)
	head := 76 + 92*int(b[68]) + 80*int(b[72])
	l.Annotations["vnd.davit.index.head"] = digest.FromBytes(b[:head]).String()
	f.put(l, b)
}

// save writes the manifest and the layout's own index.
func (f *forgery) save() {
	f.t.Helper()
	raw, err := json.Marshal(f.manifest)
	if err != nil {
		f.t.Fatal(err)
	}
	var index ocispec.Index
	path := filepath.Join(f.layout, "index.json")
	f.decode(path, &index)
	f.put(&index.Manifests[0], raw)
	b, err := json.Marshal(index)
	if err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// An artifact that lies about itself is not built upon: a push that would use
// it by itself says so and goes on without; one that was told to use it is
// refused. Either way before anything is signed and before a tag moves.
func TestE2ELyingBase(t *testing.T) {
	t.Parallel()
	// Not compressed, so that a forger needs no encoder: data, then the directory.
	layerParts := func(f *forgery) (layer *ocispec.Descriptor, b []byte, dir int) {
		layer = &f.manifest.Layers[1]
		b = f.read(f.blob(layer.Digest))
		return layer, b, bytes.Index(b, []byte("DAVITDR1"))
	}
	for _, lie := range []struct {
		name  string
		forge func(f *forgery)
		words []string
	}{
		{"the index names another directory", func(f *forgery) {
			f.index(func(b []byte) { b[76+56] ^= 1 })
		}, []string{"directory"}},
		{"the index says that a layer has another size", func(f *forgery) {
			f.index(func(b []byte) { b[76+32] ^= 1 })
		}, []string{"index"}},
		{"frames hold other data than their directory says", func(f *forgery) {
			layer, b, dir := layerParts(f)
			// Other data in the first frame, whose digest is then put right.
			b[5000] ^= 1
			stored := int(b[dir+16]) | int(b[dir+17])<<8 | int(b[dir+18])<<16
			sum := digest.FromBytes(b[:stored])
			rename(b[dir+28:dir+60], sum)
			f.index(func(index []byte) {
				f.put(layer, b)
				rename(index[76:76+32], layer.Digest)
				rename(index[76+56:76+88], digest.FromBytes(b[dir:]))
			})
		}, []string{"chunk"}},
		{"the directory says other digests than the region", func(f *forgery) {
			layer, b, dir := layerParts(f)
			b[len(b)-1] ^= 1 // of the last chunk
			f.index(func(index []byte) {
				f.put(layer, b)
				rename(index[76:76+32], layer.Digest)
				rename(index[76+56:76+88], digest.FromBytes(b[dir:]))
			})
		}, []string{"region", "chunk"}},
		{"a layer ends before its directory", func(f *forgery) {
			layer, b, dir := layerParts(f)
			f.index(func(index []byte) {
				f.put(layer, b[:dir])
				rename(index[76:76+32], layer.Digest)
			})
		}, []string{"index", "directory", "layer"}},
		{"a layer is shorter where it is kept", func(f *forgery) {
			layer, b, dir := layerParts(f)
			if err := os.WriteFile(f.blob(layer.Digest), b[:dir+20], 0o600); err != nil {
				f.t.Fatal(err)
			}
		}, []string{"layer", "size"}},
	} {
		t.Run(lie.name, func(t *testing.T) {
			t.Parallel()
			liar, h := newHost(t), newHost(t)
			h.key("davit")
			layout := t.TempDir() + "/layout"
			ref := "oci:" + layout + ":v1"
			content := writeFileAt(t, h.path("disk.raw"), 4<<20, map[int64][]byte{0: prose(1, 1<<20), 2 << 20: prose(2, 1<<20)})
			next := writeFileAt(t, h.path("next.raw"), 4<<20, map[int64][]byte{0: prose(1, 1<<20), 2 << 20: prose(2, 1<<20), 3 << 20: prose(3, 1<<18)})
			liar.ok("push", "--compression", "none", content, ref)
			f := forge(t, layout)
			lie.forge(f)
			f.save()

			state := func() string { // tags and signatures
				list := func(args ...string) string { return h.exits(0, args...).stdout }
				return list("ls", "oci:"+layout) + string(f.read(filepath.Join(layout, "index.json")))
			}
			before := state()
			h.refuses(append(lie.words, "reused"), "push", "--sign", "--key", "davit.key", "--reuse", ref, next, "oci:"+layout+":v2")
			if after := state(); after != before {
				t.Errorf("refused, and the layout has changed from\n%sto\n%s", before, after)
			}

			r := h.run("push", "--sign", "--key", "davit.key", next, ref)
			if r.code != 0 {
				t.Fatalf("with a lying artifact under the tag that moves: exit code %d\n%s", r.code, r.stderr)
			}
			if !strings.Contains(r.stderr, "davit: warning: ") {
				t.Errorf("not a word about the lying artifact:\n%s", r.stderr)
			}
			h.ok("verify", "--cache", "none", "--deep", "--key", "davit.pub", ref)
			h.ok("pull", "--cache", "none", "--key", "davit.pub", ref, "x.raw")
			h.sameDisk(next, h.path("x.raw"))
		})
	}
}

// rename writes a digest over another one.
func rename(old []byte, d digest.Digest) { hex.Decode(old, []byte(d.Encoded())) }
