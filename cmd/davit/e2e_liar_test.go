package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/sign"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A liar is an artifact of somebody with push rights and no key, well-formed
// and a lie: its directory promises the chunks of the piece at 1 MiB, and the
// frame has something else. Disks that lack the piece can be built upon it and
// be pulled; those that have it cannot.
type liar struct {
	*host
	layout string // its only tag is v0
	lacks  string // a disk without the piece
	has    string // a disk with it
	desc   ocispec.Descriptor
}

func newLiar(t *testing.T) *liar {
	t.Helper()
	l := &liar{host: newHost(t), layout: filepath.Join(t.TempDir(), "layout")}
	kept, piece := prose(1, 1<<20), prose(2, 512<<10)
	l.lacks = writeFileAt(t, l.path("lacks.raw"), 4<<20, map[int64][]byte{0: kept, 2 << 20: prose(3, 1<<18)})
	l.has = writeFileAt(t, l.path("has.raw"), 4<<20, map[int64][]byte{0: kept, 1 << 20: piece, 2 << 20: prose(3, 1<<18)})
	attacker := newHost(t)
	attacker.ok("push", "--compression", "none",
		writeFileAt(t, attacker.path("disk.raw"), 4<<20, map[int64][]byte{0: kept, 1 << 20: piece}), "oci:"+l.layout+":v0")

	f := forge(t, l.layout)
	layer := &f.manifest.Layers[1]
	b := f.read(f.blob(layer.Digest))
	dir := bytes.Index(b, []byte("DAVITDR1"))
	// Junk in the last frame, whose digest is then put right.
	frames := int(binary.LittleEndian.Uint32(b[dir+8:]))
	last := dir + 16 + (frames-1)*44
	stored := int(binary.LittleEndian.Uint32(b[last:]))
	clear(b[dir-4096 : dir])
	rename(b[last+12:last+44], digest.FromBytes(b[dir-stored:dir]))
	f.index(func(index []byte) {
		f.put(layer, b)
		rename(index[76:76+32], layer.Digest)
		rename(index[76+56:76+88], digest.FromBytes(b[dir:]))
	})
	f.save()
	var index ocispec.Index
	f.decode(filepath.Join(l.layout, "index.json"), &index)
	l.desc = index.Manifests[0]
	l.key("davit")
	return l
}

func (l *liar) ref(tag string) string { return "oci:" + l.layout + ":" + tag }

// canBePulled says that what a tag names now is signed by the key, and is that disk.
func (l *liar) canBePulled(tag, key, want string) {
	l.t.Helper()
	l.ok("pull", "--force", "--cache", "none", "--key", key+".pub", l.ref(tag), "x.raw")
	l.sameDisk(want, l.path("x.raw"))
	l.ok("verify", "--cache", "none", "--deep", "--key", key+".pub", l.ref(tag))
}

// says runs a command that succeeds and leaves the lying artifact out of what it builds.
func (l *liar) says(args ...string) {
	l.t.Helper()
	r := l.run(args...)
	if r.code != 0 || !strings.Contains(r.stderr, "davit: warning: ") || !strings.Contains(r.stderr, "hash to") {
		l.t.Fatalf("davit %s: exit code %d, want 0 and a warning of the lying artifact\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
}

// A signature is not trust in what was never read: each of these ways has led
// to a signed artifact that nobody could pull.
func TestE2ELyingBaseIsNeverSigned(t *testing.T) {
	t.Parallel()
	t.Run("a push that uses only its true chunks comes first", func(t *testing.T) {
		t.Parallel()
		l := newLiar(t)
		l.says("push", "--sign", "--key", "davit.key", l.lacks, l.ref("v1"))
		l.canBePulled("v1", "davit", l.lacks)
		l.ok("push", "--sign", "--key", "davit.key", l.has, l.ref("v1"))
		l.canBePulled("v1", "davit", l.has)
	})
	t.Run("the same by two hosts", func(t *testing.T) {
		t.Parallel()
		l := newLiar(t)
		l.says("push", "--cache", "none", "--sign", "--key", "davit.key", l.lacks, l.ref("v1"))
		l.ok("push", "--cache", "none", "--sign", "--key", "davit.key", l.has, l.ref("v1"))
		l.canBePulled("v1", "davit", l.has)
	})
	t.Run("an unsigned push by this host comes first", func(t *testing.T) {
		t.Parallel()
		l := newLiar(t)
		l.ok("push", l.has, l.ref("v1"))
		l.says("push", "--sign", "--key", "davit.key", l.has, l.ref("v1"))
		l.canBePulled("v1", "davit", l.has)
	})
	t.Run("a pull that a seed has filled comes first", func(t *testing.T) {
		t.Parallel()
		l := newLiar(t)
		l.key("other")
		l.signedWithoutALook("other")
		seed := writeFileAt(t, l.path("seed.raw"), 4<<20, map[int64][]byte{0: prose(1, 1<<20), 1 << 20: prose(2, 512<<10)})
		l.ok("pull", "--key", "other.pub", "--seed", seed, l.ref("v0"), "pulled.raw")
		l.says("push", "--sign", "--key", "davit.key", l.has, l.ref("v0"))
		l.canBePulled("v0", "davit", l.has)
	})
	t.Run("another tool has signed it with the key", func(t *testing.T) {
		t.Parallel()
		l := newLiar(t)
		l.signedWithoutALook("davit")
		l.says("push", "--sign", "--key", "davit.key", l.has, l.ref("v0"))
		l.canBePulled("v0", "davit", l.has)
	})
	t.Run("it is to be signed as it is", func(t *testing.T) {
		t.Parallel()
		l := newLiar(t)
		before := l.exits(0, "inspect", "--referrers", l.ref("v0")).stdout
		l.refuses([]string{"not signed", "hash to"}, "sign", "--key", "davit.key", l.ref("v0"))
		if after := l.exits(0, "inspect", "--referrers", l.ref("v0")).stdout; after != before {
			t.Errorf("refused, and the referrers are now\n%s", after)
		}
		l.ok("push", l.has, l.ref("v1")) // unsigned, upon it
		l.refuses([]string{"not signed", "hash to"}, "sign", "--key", "davit.key", l.ref("v1"))
	})
	t.Run("it was named", func(t *testing.T) {
		t.Parallel()
		l := newLiar(t)
		l.refuses([]string{"reused", "hash to"}, "push", "--sign", "--key", "davit.key", "--reuse", l.ref("v0"), l.lacks, l.ref("v1"))
	})
}

// signedWithoutALook signs the artifact as a tool does that knows manifests only.
func (l *liar) signedWithoutALook(name string) {
	l.t.Helper()
	data, err := os.ReadFile(l.path(name + ".key"))
	if err != nil {
		l.t.Fatal(err)
	}
	key, err := sign.LoadKey(data, func() ([]byte, error) { return []byte("e2e"), nil })
	if err != nil {
		l.t.Fatal(err)
	}
	ref, err := registry.ParseReference(l.ref("v0"))
	if err != nil {
		l.t.Fatal(err)
	}
	repo, err := registry.Open(l.t.Context(), ref, registry.Options{})
	if err != nil {
		l.t.Fatal(err)
	}
	defer repo.Close()
	if _, err := attachSignatures(l.t.Context(), repo, l.desc, []*sign.Key{key}, sign.Subject{Digest: l.desc.Digest}); err != nil {
		l.t.Fatal(err)
	}
}

// An index is signed if what it says of its artifacts is true: a pull refuses
// what has another size.
func TestE2ELyingIndexIsNotSigned(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.key("davit")
	layout := filepath.Join(t.TempDir(), "layout")
	h.ok("push", writeFileAt(t, h.path("disk.raw"), 1<<20, map[int64][]byte{0: prose(1, 1<<18)}), "oci:"+layout+":v1")
	desc := layoutIndex(t, layout).Manifests[0]
	wrong := desc
	wrong.Size++
	tagIndex(t, layout, "wrong", wrong)
	tagIndex(t, layout, "many", slices.Repeat([]ocispec.Descriptor{desc}, 100)...)

	for _, more := range [][]string{nil, {"--any"}} {
		h.refuses([]string{"not signed", desc.Digest.String()}, append([]string{"sign", "--key", "davit.key", "oci:" + layout + ":wrong"}, more...)...)
	}
	if stdout := h.exits(0, "inspect", "--json", "--referrers", "oci:"+layout+":wrong").stdout; strings.Contains(stdout, "bundle") {
		t.Errorf("refused, and signed:\n%s", stdout)
	}

	// Listed many times, an artifact is signed, and read, once.
	h.ok("sign", "--key", "davit.key", "oci:"+layout+":many")
	r := h.exits(0, "verify", "--deep", "--key", "davit.pub", "oci:"+layout+":many")
	if n := strings.Count(r.stderr, "named by the index"); n != 1 {
		t.Errorf("the artifact was read %d times", n)
	}
}

func layoutIndex(t *testing.T, layout string) (index ocispec.Index) {
	t.Helper()
	(&forgery{t: t}).decode(filepath.Join(layout, "index.json"), &index)
	return index
}

// tagIndex puts an index of these artifacts, for this host, into a layout.
func tagIndex(t *testing.T, layout, tag string, artifacts ...ocispec.Descriptor) {
	t.Helper()
	f := &forgery{t: t, layout: layout}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, a := range artifacts {
		index.Manifests = append(index.Manifests, ocispec.Descriptor{MediaType: a.MediaType, Digest: a.Digest, Size: a.Size,
			Platform: &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}})
	}
	raw, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: index.MediaType, Annotations: map[string]string{ocispec.AnnotationRefName: tag}}
	f.put(&desc, raw)
	all := layoutIndex(t, layout)
	all.Manifests = append(all.Manifests, desc)
	b, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(layout, "index.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What was read as a whole in a repository need not be read again there: by
// verify --deep, or by the push that has written or signed it.
func TestE2EWhatWasCheckedIsKnown(t *testing.T) {
	t.Parallel()
	s := newOlareg(t)
	w := newWire(t, s)
	ref := func(repo string) string { return w.host + "/" + repo + ":v1" }
	builder, h := newHost(t), newHost(t)
	h.key("davit")
	first := map[int64][]byte{0: prose(1, 4<<20)}
	second := map[int64][]byte{0: prose(1, 4<<20), 8 << 20: prose(2, 4096)}
	old := writeFileAt(t, h.path("old.raw"), 16<<20, first)
	next := writeFileAt(t, h.path("next.raw"), 16<<20, second)
	for _, repo := range []string{"read", "cold"} {
		builder.ok("push", old, ref(repo))
	}
	builder.key("own")
	builder.ok("sign", "--key", "own.key", ref("read"))
	h.ok("verify", "--deep", "--key", builder.path("own.pub"), ref("read"))

	received := func(args ...string) int64 {
		w.take()
		h.ok(args...)
		return w.take().received
	}
	cold := received("push", "--cache", "none", "--sign", "--key", "davit.key", next, ref("cold"))
	known := received("push", "--sign", "--key", "davit.key", next, ref("read"))
	again := received("push", "--cache", "none", "--sign", "--key", "davit.key", next, ref("cold"))
	builder.ok("push", "--sign", "--key", "own.key", next, ref("audited"))
	auditor := newHost(t)
	auditor.key("davit")
	auditor.ok("verify", "--deep", "--key", builder.path("own.pub"), ref("audited"))
	w.take()
	auditor.ok("sign", "--key", "davit.key", ref("audited"))
	audited := w.take().received
	builder.ok("push", next, ref("later"))
	signed := received("sign", "--cache", "none", "--key", "davit.key", ref("later"))
	w.take()
	builder.ok("sign", "--key", "own.key", ref("later"))
	own := w.take().received
	if signed < 100<<10 {
		t.Errorf("what nobody has checked was signed after %d bytes were fetched", signed)
	}
	if audited > signed/2 {
		t.Errorf("after verify --deep of all of it %d bytes were fetched to sign it, %d without", audited, signed)
	}
	if own > signed/2 {
		t.Errorf("to sign what this host has pushed %d bytes were fetched, %d to sign what it has not", own, signed)
	}
	if cold < 100<<10 {
		t.Fatalf("a push that signs what nobody has checked fetched %d bytes", cold)
	}
	if known > cold/2 {
		t.Errorf("after verify --deep of all of it %d bytes were fetched to check what is signed, %d without", known, cold)
	}
	if again > cold/2 {
		t.Errorf("what the key has signed was fetched again: %d bytes, %d the first time", again, cold)
	}
}

// What lies under a blob's name in a layout or an archive is what somebody has
// put there. Neither that it has the right size nor that this host, or the key,
// has seen the real one says that it can be pulled.
func TestE2EPlantedBlobIsNeverSigned(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"oci", "oci-archive"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.key("davit")
			h.key("other")
			content := map[int64][]byte{0: prose(1, 1<<20), 2 << 20: prose(2, 1<<18)}
			disk := writeFileAt(t, h.path("disk.raw"), 4<<20, content)
			content[3<<20] = prose(3, 1<<18)
			next := writeFileAt(t, h.path("next.raw"), 4<<20, content)
			place := filepath.Join(t.TempDir(), "place")
			ref := func(tag string) string { return kind + ":" + place + ":" + tag }
			layer := layerOf(t, h, disk)

			whole := func(disk, tag string) {
				t.Helper()
				h.ok("pull", "--cache", "none", "--key", "davit.pub", ref(tag), "x.raw")
				h.sameDisk(disk, h.path("x.raw"))
				if err := os.Remove(h.path("x.raw")); err != nil { // it would be a seed
					t.Fatal(err)
				}
				h.ok("verify", "--cache", "none", "--deep", "--key", "davit.pub", ref(tag))
			}
			damage := func() {
				t.Helper()
				path := place
				if kind == "oci" {
					path = filepath.Join(place, "blobs", "sha256", digest.FromBytes(layer).Encoded())
				}
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				i := bytes.Index(b, layer)
				if i < 0 {
					t.Fatal("the layer is not there")
				}
				b[i+len(layer)/3] ^= 1
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}

			if kind == "oci" { // before anything else is there
				file := filepath.Join(place, "blobs", "sha256", digest.FromBytes(layer).Encoded())
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, make([]byte, len(layer)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			h.ok("push", "--sign", "--key", "davit.key", disk, ref("v1"))
			whole(disk, "v1")

			damage()
			h.refuses([]string{"not signed"}, "sign", "--key", "other.key", ref("v1"))
			// The key has signed it, and this host has written it.
			h.ok("push", "--sign", "--key", "davit.key", next, ref("v2"))
			whole(next, "v2")
			h.ok("push", "--sign", "--key", "davit.key", disk, ref("v1"))
			whole(disk, "v1")

			damage()
			h.ok("push", disk, ref("v1"))
			whole(disk, "v1")

			damage()
			h.ok("push", "--reuse", "none", "--sign", "--key", "davit.key", disk, ref("v3"))
			whole(disk, "v3")
		})
	}
}

// layerOf returns the layer that a push of a disk makes.
func layerOf(t *testing.T, h *host, disk string) []byte {
	t.Helper()
	layout := filepath.Join(t.TempDir(), "layout")
	h.ok("push", "--cache", "none", disk, "oci:"+layout+":v1")
	f := forge(t, layout)
	return f.read(f.blob(f.manifest.Layers[1].Digest))
}

// A note that a layer was checked, and a signature, are about the repository
// where it was: what is in a folder, or in a registry that does not look at what
// it takes, is read.
func TestE2EWhatWasCheckedElsewhereIsRead(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.key("davit")
	content := map[int64][]byte{0: prose(1, 1<<20), 2 << 20: prose(2, 1<<18)}
	disk := writeFileAt(t, h.path("disk.raw"), 4<<20, content)
	content[3<<20] = prose(3, 1<<18)
	next := writeFileAt(t, h.path("next.raw"), 4<<20, content)
	host := newOlareg(t).host
	h.ok("push", "--sign", "--key", "davit.key", disk, host+"/image:v1")

	layout := filepath.Join(t.TempDir(), "layout")
	newHost(t).ok("push", disk, "oci:"+layout+":v1")
	f := forge(t, layout)
	flipBit(t, f.blob(f.manifest.Layers[1].Digest), 8*1000)
	h.refuses([]string{"not signed"}, "sign", "--key", "davit.key", "oci:"+layout+":v1")
	h.refuses([]string{"does not match its digest"}, "push", "--sign", "--key", "davit.key", "--reuse", "oci:"+layout+":v1", next, host+"/other:v1")
	h.refuses([]string{"not signed"}, "sign", "--key", "davit.key", careless(t, layout))
}

// careless is a registry that has taken the blobs of a layout as they are.
func careless(t *testing.T, layout string) (ref string) {
	blob := func(d string) string {
		return filepath.Join(layout, "blobs", "sha256", strings.TrimPrefix(d, "sha256:"))
	}
	host := newMoody(t, newOlareg(t), func(w http.ResponseWriter, r *http.Request) bool {
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		if r.Method != http.MethodGet && r.Method != http.MethodHead || strings.Contains(r.URL.Path, "/referrers/") {
			return false
		}
		if strings.Contains(r.URL.Path, "/manifests/") {
			index := layoutIndex(t, layout)
			w.Header().Set("Content-Type", index.Manifests[0].MediaType)
			if name == "v1" {
				name = index.Manifests[0].Digest.String()
			}
		}
		b, err := os.ReadFile(blob(name))
		if err != nil {
			return false
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
		return true
	})
	return host + "/image:v1"
}

// A layer whose frames and directory are right, under a digest that is not its
// own: a pull by ranges finds nothing wrong, and no registry that looks would
// take a copy.
func TestE2ELayerOfAnotherDigestIsNotSigned(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.key("davit")
	disk := writeFileAt(t, h.path("disk.raw"), 4<<20, map[int64][]byte{0: prose(1, 1<<20)})
	layout := filepath.Join(t.TempDir(), "layout")
	newHost(t).ok("push", disk, "oci:"+layout+":v1")
	f := forge(t, layout)
	layer := &f.manifest.Layers[1]
	b := f.read(f.blob(layer.Digest))
	layer.Digest = digest.FromString("another")
	if err := os.WriteFile(f.blob(layer.Digest), b, 0o600); err != nil {
		t.Fatal(err)
	}
	f.index(func(index []byte) { rename(index[76:76+32], layer.Digest) })
	f.save()

	for _, ref := range []string{"oci:" + layout + ":v1", careless(t, layout)} {
		h.ok("pull", "--unverified", "--force", ref, "x.raw")
		h.sameDisk(disk, h.path("x.raw"))
		h.refuses([]string{"not signed"}, "sign", "--key", "davit.key", ref)
		h.refuses([]string{"does not match its digest"}, "push", "--sign", "--key", "davit.key", "--reuse", ref, disk, ref+"2")
	}
}
