package layout_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	orasoci "oras.land/oras-go/v2/content/oci"
)

// checkLayout fails if a layout is not one, or lacks something that it refers to, or has a blob that is not its name.
func checkLayout(t *testing.T, dir string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, indexFile))
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(b, &index); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, layoutFile)); err != nil || string(b) != layoutContent {
		t.Fatalf("%s: %q, %v", layoutFile, b, err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, blobsDir))
	if err != nil {
		t.Fatal(err)
	}
	blobs := make(map[digest.Digest][]byte)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, blobsDir, e.Name()))
		d := digest.FromBytes(b)
		if err != nil || d.Encoded() != e.Name() {
			t.Errorf("blob %s is %s, %v", e.Name(), d, err)
		}
		blobs[d] = b
	}
	for _, d := range index.Manifests {
		var m ocispec.Manifest
		if err := json.Unmarshal(blobs[d.Digest], &m); err != nil {
			t.Errorf("manifest %s: %v", d.Digest, err)
		}
		for _, l := range append(m.Layers, m.Config) {
			if int64(len(blobs[l.Digest])) != l.Size {
				t.Errorf("manifest %s: layer %s has %d bytes, not %d", d.Digest, l.Digest, len(blobs[l.Digest]), l.Size)
			}
		}
	}
}

// killed runs a child of this test binary, kills it a while after the first line it wrote, and returns what it wrote.
func killed(t *testing.T, what, arg string, after time.Duration) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0], arg)
	cmd.Env = append(os.Environ(), "DAVIT_TEST_CHILD="+what)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for s := bufio.NewScanner(out); s.Scan(); {
		if lines == nil {
			defer time.AfterFunc(after, func() { cmd.Process.Kill() }).Stop()
		}
		lines = append(lines, s.Text())
	}
	_ = cmd.Wait() // it was killed
	return lines
}

// Two processes write and are killed at random moments, again and again: the layout or archive is always one, and what was said to be
// done is there.
func TestKill(t *testing.T) {
	t.Parallel()
	for _, prefix := range []string{"oci:", "oci-archive:"} {
		t.Run(prefix, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "store")
			var mu sync.Mutex
			var done []string
			for range 4 {
				var wg sync.WaitGroup
				for range 2 {
					wg.Go(func() {
						lines := killed(t, "push", prefix+path, rand.N(200*time.Millisecond))
						mu.Lock()
						defer mu.Unlock()
						done = append(done, lines...)
					})
				}
				wg.Wait()
				if prefix == "oci:" && exists(path) {
					if exists(filepath.Join(path, indexFile)) {
						checkLayout(t, path)
					}
				}
			}
			if len(done) == 0 {
				t.Fatal("no push came to its end")
			}
			r := open(t, prefix+path, Options{})
			tags, err := r.Tags(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, tag := range done {
				if !slices.Contains(tags, tag) {
					t.Errorf("%s is lost: %v", tag, done)
				}
				desc, err := r.Resolve(t.Context(), tag)
				if err != nil {
					t.Fatal(err)
				}
				b, err := r.Manifest(t.Context(), desc)
				if err != nil {
					t.Fatal(err)
				}
				var m ocispec.Manifest
				if err := json.Unmarshal(b, &m); err != nil {
					t.Fatal(err)
				}
				rc, err := r.Fetch(t.Context(), m.Layers[0])
				readAll(t, rc, err)
			}
			// Files of the killed are swept, once they are old.
			old := time.Now().Add(-2 * (10 * time.Minute))
			dir := path
			if prefix != "oci:" {
				dir = filepath.Dir(path)
			}
			left, err := filepath.Glob(filepath.Join(dir, ".davit-tmp-"+"*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range left {
				if err := os.Chtimes(f, old, old); err != nil {
					t.Fatal(err)
				}
			}
			wholefile.Sweep(dir)
			if left, _ := filepath.Glob(filepath.Join(dir, ".davit-tmp-"+"*")); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// A sweep leaves what somebody is writing, however old it looks.
func TestSweepLeavesLiveFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, err := wholefile.CreateTemp(dir, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	old := time.Now().Add(-2 * (10 * time.Minute))
	if err := os.Chtimes(p.Name(), old, old); err != nil {
		t.Fatal(err)
	}
	wholefile.Sweep(dir)
	if !exists(p.Name()) {
		t.Error("swept while it was open")
	}
}

// What oras-go writes we read, and the other way round.
func TestLayoutOfOtherTools(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours := open(t, "oci:"+dir, Options{})
	desc, _ := artifact(t, ours, nil, "application/x-test", noise(1, 1000))
	if err := ours.Tag(t.Context(), desc, "v1"); err != nil {
		t.Fatal(err)
	}
	sig, _ := artifact(t, ours, &desc, "application/x-sig", []byte("signature"))

	theirs, err := orasoci.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := theirs.Resolve(t.Context(), "v1"); err != nil || got.Digest != desc.Digest {
		t.Errorf("oras-go resolves v1 to %v, %v", got.Digest, err)
	}
	if got, err := theirs.Predecessors(t.Context(), desc); err != nil || len(got) != 1 || got[0].Digest != sig.Digest {
		t.Errorf("oras-go finds referrers %v, %v", got, err)
	}
	if err := theirs.Tag(t.Context(), desc, "v2"); err != nil {
		t.Fatal(err)
	}
	if tags, err := ours.Tags(t.Context()); err != nil || !slices.Equal(tags, []string{"v1", "v2"}) {
		t.Errorf("Tags = %q, %v", tags, err)
	}
	if got, err := ours.Referrers(t.Context(), desc); err != nil || len(got) != 1 || got[0].Digest != sig.Digest {
		t.Errorf("Referrers = %v, %v", got, err)
	}
}

func TestDamagedLayout(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := open(t, "oci:"+dir, Options{})
	blob := noise(1, 1000)
	desc, _ := artifact(t, r, nil, "application/x-test", blob)
	if err := r.Tag(t.Context(), desc, "v1"); err != nil {
		t.Fatal(err)
	}
	file := func(d digest.Digest) string { return filepath.Join(dir, blobsDir, d.Encoded()) }
	change := func(path string, f func([]byte) []byte) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	layer := describe(blobType, blob)

	change(file(layer.Digest), flip)
	rc, err := r.Fetch(t.Context(), layer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(rc); !errors.Is(err, ErrDigestMismatch) {
		t.Errorf("a flipped bit in a blob: %v", err)
	}
	rc.Close()
	change(file(layer.Digest), func(b []byte) []byte { return b[:10] })
	if _, err := r.FetchRange(t.Context(), layer, 0, 1); !errors.Is(err, ErrDigestMismatch) {
		t.Errorf("a shortened blob: %v", err)
	}
	change(file(desc.Digest), flip)
	if _, err := r.Resolve(t.Context(), "v1"); !errors.Is(err, ErrDigestMismatch) {
		t.Errorf("a flipped bit in a manifest: %v", err)
	}
	change(filepath.Join(dir, indexFile), func([]byte) []byte {
		return []byte(`{"manifests":[{"digest":"sha256:../../../etc/passwd","annotations":{"org.opencontainers.image.ref.name":"v1"}}]}`)
	})
	if _, err := r.Resolve(t.Context(), "v1"); err == nil || errors.Is(err, ErrNotFound) {
		t.Errorf("a digest that is a path: %v", err)
	}
	change(filepath.Join(dir, layoutFile), func([]byte) []byte { return []byte(`{"imageLayoutVersion":"2.0.0"}`) })
	if r, err := Open(t.Context(), r.Reference(), Options{}); err == nil {
		r.Close()
		t.Error("a layout of another version: no error")
	}

	// A folder with something else in it does not become a layout.
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := []byte("blob")
	if err := open(t, "oci:"+other, Options{}).Push(t.Context(), describe(blobType, b), bytes.NewReader(b)); err == nil {
		t.Error("a folder with a thesis is a layout now")
	}
}

// tarOf makes an archive of headers and their content.
func tarOf(t testing.TB, members ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range members {
		content := h.Uname // the one field that is not needed here
		h.Uname, h.Size, h.Mode = "", int64(len(content)), 0o644
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHostileArchives(t *testing.T) {
	t.Parallel()
	layoutMember := tar.Header{Name: layoutFile, Uname: layoutContent}
	indexMember := tar.Header{Name: indexFile, Uname: `{"schemaVersion":2,"manifests":[]}`}
	blob := []byte("content")
	blobName := blobsDir + "/" + digest.FromBytes(blob).Encoded()
	good := tarOf(t, layoutMember, indexMember, tar.Header{Name: blobName, Uname: string(blob)})
	for _, c := range []struct {
		name    string
		archive []byte
		ok      bool
	}{
		{"plain", good, true},
		{"with ./ before each name", tarOf(t, tar.Header{Name: "./", Typeflag: tar.TypeDir}, tar.Header{Name: "./" + layoutFile, Uname: layoutContent},
			tar.Header{Name: "./" + indexFile, Uname: indexMember.Uname}, tar.Header{Name: "./" + blobName, Uname: string(blob)}), true},
		{"with a file more", tarOf(t, layoutMember, indexMember, tar.Header{Name: "manifest.json", Uname: "[]"}), true},
		{"no index", tarOf(t, layoutMember), false},
		{"no oci-layout", tarOf(t, indexMember), false},
		{"index twice", tarOf(t, layoutMember, indexMember, indexMember), false},
		{"blob twice", tarOf(t, layoutMember, indexMember, tar.Header{Name: blobName}, tar.Header{Name: blobName}), false},
		{"blob twice, spelt differently", tarOf(t, layoutMember, indexMember, tar.Header{Name: blobName}, tar.Header{Name: "./" + blobName}), false},
		{"a name that leaves", tarOf(t, layoutMember, indexMember, tar.Header{Name: "../x"}), false},
		{"a name that leaves and comes back", tarOf(t, layoutMember, indexMember, tar.Header{Name: "blobs/../../x"}), false},
		{"an absolute name", tarOf(t, layoutMember, indexMember, tar.Header{Name: "/etc/passwd"}), false},
		{"a Windows name", tarOf(t, layoutMember, indexMember, tar.Header{Name: `blobs\sha256`}), false},
		{"a symbolic link", tarOf(t, layoutMember, indexMember, tar.Header{Name: blobName, Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), false},
		{"a hard link", tarOf(t, layoutMember, indexMember, tar.Header{Name: blobName, Typeflag: tar.TypeLink, Linkname: indexFile}), false},
		{"a device", tarOf(t, layoutMember, indexMember, tar.Header{Name: blobName, Typeflag: tar.TypeChar}), false},
		{"cut off in a blob", good[:len(good)-1024-510], false},
		{"cut off in a header", good[:600], false},
		{"empty", nil, false},
		{"no tar", noise(1, 10_000), false},
		{"index that is no JSON", tarOf(t, layoutMember, tar.Header{Name: indexFile, Uname: "{"}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "archive.tar")
			if err := os.WriteFile(path, c.archive, 0o600); err != nil {
				t.Fatal(err)
			}
			r, err := Open(t.Context(), Reference{Kind: registry.Archive, Path: path}, Options{})
			if (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
			if err == nil {
				r.Close()
			}
		})
	}
}

// An archive shows nothing before Close, is the same file for the same content, and is a tar file to others.
func TestArchiveIsDeterministic(t *testing.T) {
	t.Parallel()
	var files [2][]byte
	for i := range files {
		path := filepath.Join(t.TempDir(), "archive.tar")
		r, err := Open(t.Context(), Reference{Kind: registry.Archive, Path: path}, Options{})
		if err != nil {
			t.Fatal(err)
		}
		blobs := [][]byte{noise(1, 1000), noise(2, 2000), noise(3, 512)}
		if i == 1 { // another order of arrival
			for _, b := range slices.Backward(blobs) {
				pushBytes(t, r, blobType, b)
			}
		}
		desc, _ := artifact(t, r, nil, "application/x-test", blobs...)
		if err := r.Tag(t.Context(), desc, "v1"); err != nil {
			t.Fatal(err)
		}
		if exists(path) {
			t.Error("there before Close")
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		if files[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(filepath.Dir(path))
		if err != nil || len(left) != 1 {
			t.Errorf("beside it: %v, %v", left, err)
		}
	}
	if !bytes.Equal(files[0], files[1]) {
		t.Error("two files")
	}
	n := 0
	for tr := tar.NewReader(bytes.NewReader(files[0])); ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, tr); err != nil {
			t.Errorf("%s: %v", h.Name, err)
		}
	}
	if n != 2+5+2 {
		t.Errorf("%d members", n)
	}
}

// Blobs without a manifest, as a push that fails leaves them, do not touch the archive.
func TestArchiveAfterAFailedPush(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "archive.tar")
	r, err := Open(t.Context(), Reference{Kind: registry.Archive, Path: path}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	pushBytes(t, r, blobType, noise(1, 1000))
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Two archives open at once: the one that closes last keeps what the first one added.
func TestArchiveKeepsWhatOthersAdd(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "archive.tar")
	var open2 [2]*Repository
	for i := range open2 {
		var err error
		if open2[i], err = Open(t.Context(), Reference{Kind: registry.Archive, Path: path}, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range open2 {
		desc, _ := artifact(t, r, nil, "application/x-test", noise(uint64(i), 1000))
		if err := r.Tag(t.Context(), desc, fmt.Sprint("v", i)); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range open2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r := open(t, "oci-archive:"+path, Options{})
	if tags, err := r.Tags(t.Context()); err != nil || strings.Join(tags, " ") != "v0 v1" {
		t.Errorf("Tags = %q, %v", tags, err)
	}
	for _, tag := range []string{"v0", "v1"} {
		if _, err := r.Resolve(t.Context(), tag); err != nil {
			t.Error(err)
		}
	}
}

// A file of a blob's name and size is not the blob. What is to be pushed is written in its place, in a layout as in an archive, and no
// manifest gets in that names one.
func TestFileInThePlaceOfABlob(t *testing.T) {
	t.Parallel()
	for _, kind := range []registry.Kind{registry.Layout, registry.Archive} {
		t.Run(fmt.Sprint(kind), func(t *testing.T) {
			t.Parallel()
			ref := Reference{Kind: kind, Path: filepath.Join(t.TempDir(), "place")}
			blobs := [][]byte{noise(1, 1000), noise(2, 2000)}
			within := func(f func(r *Repository)) {
				t.Helper()
				r, err := Open(t.Context(), ref, Options{})
				if err != nil {
					t.Fatal(err)
				}
				f(r)
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
			}
			var desc ocispec.Descriptor
			var manifest []byte
			within(func(r *Repository) {
				desc, manifest = artifact(t, r, nil, "application/x-test", blobs...)
				if err := r.Tag(t.Context(), desc, "v1"); err != nil {
					t.Fatal(err)
				}
			})
			damage := func(content []byte) {
				t.Helper()
				path := ref.Path
				if kind == registry.Layout {
					path = filepath.Join(path, blobsDir, digest.FromBytes(content).Encoded())
				}
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				i := bytes.Index(b, content)
				b[i+len(content)/2] ^= 1
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}

			damage(blobs[1])
			layer := describe(blobType, blobs[1])
			within(func(r *Repository) {
				if there, err := r.Exists(t.Context(), layer); err != nil || there {
					t.Errorf("a damaged blob: Exists = %v, %v", there, err)
				}
				err := r.Push(t.Context(), desc, bytes.NewReader(manifest))
				unknown, ok := errors.AsType[*registry.BlobUnknownError](err)
				if !ok || !slices.Equal(unknown.Digests, []digest.Digest{layer.Digest}) {
					t.Errorf("a manifest that names a damaged blob: %v", err)
				}
			})
			within(func(r *Repository) {
				pushBytes(t, r, blobType, blobs[1])
				if err := r.Push(t.Context(), desc, bytes.NewReader(manifest)); err != nil {
					t.Error(err)
				}
			})
			within(func(r *Repository) {
				for _, b := range blobs {
					rc, err := r.Fetch(t.Context(), describe(blobType, b))
					if err != nil {
						t.Fatal(err)
					}
					if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, b) {
						t.Errorf("after it was pushed again: %d bytes, %v", len(got), err)
					}
					rc.Close()
				}
			})

			damage(manifest)
			within(func(r *Repository) {
				if err := r.Push(t.Context(), desc, bytes.NewReader(manifest)); err != nil {
					t.Fatal(err)
				}
				if got, err := r.Resolve(t.Context(), "v1"); err != nil || got.Digest != desc.Digest {
					t.Errorf("a damaged manifest that was pushed again: %v, %v", got.Digest, err)
				}
			})
		})
	}
}

// Unchanged blobs are hashed once in a process.
func TestBlobsAreHashedOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	blob := noise(1, 100_000)
	desc, manifest := artifact(t, open(t, "oci:"+dir, Options{}), nil, "application/x-test", blob)
	r := open(t, "oci:"+dir, Options{})
	rc, err := r.Fetch(t.Context(), describe(blobType, blob))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, rc); err != nil {
		t.Fatal(err)
	}
	rc.Close()
	_, before, _ := r.Stats()
	if there, err := r.Exists(t.Context(), describe(blobType, blob)); err != nil || !there {
		t.Errorf("Exists = %v, %v", there, err)
	}
	if _, after, _ := r.Stats(); after != before {
		t.Errorf("%d bytes of what was read whole were read again", after-before)
	}
	for range 2 {
		if err := r.Push(t.Context(), desc, bytes.NewReader(manifest)); err != nil {
			t.Fatal(err)
		}
	}
	if _, after, _ := r.Stats(); after-before > 10_000 { // the manifest, when it is read back, and the config
		t.Errorf("%d bytes were read to push a manifest twice", after-before)
	}
}
