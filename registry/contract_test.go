package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/davit-oci/davit/registry"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The backends that have to pass the contract. name is a place nobody has written to yet; a registry is shared by all tests that ask
// for it.
var backends = []struct {
	name string
	open func(t *testing.T) (name string)
}{
	{"olareg", func(t *testing.T) string { return olaregHost(t, true) + "/" + newName() }},
	{"olareg without referrers", func(t *testing.T) string { return olaregHost(t, false) + "/" + newName() }},
	{"docker-registry", func(t *testing.T) string {
		return registryHost(t, "docker-registry") + "/" + newName()
	}},
	{"distribution", func(t *testing.T) string {
		return registryHost(t, "registry") + "/" + newName()
	}},
	{"layout", func(t *testing.T) string { return "oci:" + filepath.Join(t.TempDir(), "layout") }},
	{"archive", func(t *testing.T) string { return "oci-archive:" + filepath.Join(t.TempDir(), "archive.tar") }},
}

// TestContract is what a caller may rely on, whatever is behind a reference.
func TestContract(t *testing.T) {
	t.Parallel()
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range contract {
				t.Run(c.name, func(t *testing.T) { c.test(t, b.open(t)) })
			}
		})
	}
}

var contract = []struct {
	name string
	test func(t *testing.T, name string)
}{
	{"what is pushed is fetched", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		content := noise(1, 3<<20+17)
		desc, manifest := artifact(t, r, nil, "application/x-test", content)
		if err := r.Tag(t.Context(), desc, "v1"); err != nil {
			t.Fatal(err)
		}

		for _, n := range []string{"v1", string(desc.Digest), "v1@" + string(desc.Digest)} {
			got, err := r.Resolve(t.Context(), n)
			if err != nil || got.Digest != desc.Digest || got.Size != desc.Size || got.MediaType != desc.MediaType {
				t.Errorf("Resolve(%q) = %v, %v; want %v", n, got, err, desc)
			}
		}
		rc, err := r.Fetch(t.Context(), desc)
		if got := readAll(t, rc, err); !bytes.Equal(got, manifest) {
			t.Errorf("manifest: got %q", got)
		}
		blob := describe(blobType, content)
		rc, err = r.Fetch(t.Context(), blob)
		if got := readAll(t, rc, err); !bytes.Equal(got, content) {
			t.Errorf("blob: got %d other bytes", len(got))
		}
		for _, s := range [][2]int64{{0, 1}, {0, 0}, {1, 4096}, {blob.Size - 1, 1}, {blob.Size, 0}, {12345, 1 << 20}, {0, blob.Size}} {
			rc, err := r.FetchRange(t.Context(), blob, s[0], s[1])
			if got := readAll(t, rc, err); !bytes.Equal(got, content[s[0]:s[0]+s[1]]) {
				t.Errorf("range %v: got %d other bytes", s, len(got))
			}
		}
		for _, s := range [][2]int64{{-1, 1}, {0, -1}, {0, blob.Size + 1}, {blob.Size, 1}, {1, blob.Size}, {1 << 62, 1 << 62}} {
			if rc, err := r.FetchRange(t.Context(), blob, s[0], s[1]); err == nil {
				rc.Close()
				t.Errorf("range %v: no error", s)
			}
		}
		for _, d := range []ocispec.Descriptor{desc, blob} {
			if ok, err := r.Exists(t.Context(), d); !ok || err != nil {
				t.Errorf("Exists(%s) = %v, %v", d.MediaType, ok, err)
			}
		}
	}},
	{"empty blob", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		desc := pushBytes(t, r, blobType, nil)
		rc, err := r.Fetch(t.Context(), desc)
		if got := readAll(t, rc, err); len(got) != 0 {
			t.Errorf("got %d bytes", len(got))
		}
	}},
	{"what is not there is not found", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		check := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: got %v, want ErrNotFound", what, err)
			}
		}
		missing := describe(blobType, []byte("nobody pushed this"))
		missingManifest := describe(ocispec.MediaTypeImageManifest, []byte(`{"nobody":"pushed this"}`))
		for i := range 2 { // before and after there is a repository
			_, err := r.Resolve(t.Context(), "")
			check("latest", err)
			_, err = r.Resolve(t.Context(), string(missing.Digest))
			check("digest", err)
			_, err = r.Fetch(t.Context(), missing)
			check("blob", err)
			_, err = r.FetchRange(t.Context(), missing, 1, 1)
			check("range", err)
			_, err = r.Fetch(t.Context(), missingManifest)
			check("manifest", err)
			check("tagging", r.Tag(t.Context(), missingManifest, "v1"))
			for _, d := range []ocispec.Descriptor{missing, missingManifest} {
				if ok, err := r.Exists(t.Context(), d); ok || err != nil {
					t.Errorf("Exists = %v, %v", ok, err)
				}
			}
			if got, err := r.Referrers(t.Context(), missingManifest); len(got) > 0 || err != nil {
				t.Errorf("Referrers = %v, %v", got, err)
			}
			if i == 0 {
				artifact(t, r, nil, "application/x-test", []byte("something"))
			}
		}
	}},
	{"content that is not its digest is refused", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		desc := describe(blobType, []byte("the right content"))
		for _, content := range []string{"the wrong content", "too short", "much longer than the right content"} {
			if err := r.Push(t.Context(), desc, strings.NewReader(content)); !errors.Is(err, ErrDigestMismatch) {
				t.Errorf("Push of %q: got %v, want ErrDigestMismatch", content, err)
			}
			err := r.PushBlob(t.Context(), desc, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil })
			if err == nil {
				t.Errorf("PushBlob of %q: no error", content)
			}
		}
		if ok, err := r.Exists(t.Context(), desc); ok || err != nil {
			t.Errorf("Exists = %v, %v", ok, err)
		}
	}},
	{"a tag and another digest disagree", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		a, _ := artifact(t, r, nil, "application/x-a")
		b, _ := artifact(t, r, nil, "application/x-b")
		if err := r.Tag(t.Context(), a, "v1"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Resolve(t.Context(), "v1@"+string(b.Digest)); !errors.Is(err, ErrDigestMismatch) {
			t.Errorf("got %v, want ErrDigestMismatch", err)
		}
	}},
	{"a tag moves, and the manifest it leaves stays", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		a, _ := artifact(t, r, nil, "application/x-a")
		b, _ := artifact(t, r, nil, "application/x-b")
		for _, d := range []ocispec.Descriptor{a, a, b} {
			if err := r.Tag(t.Context(), d, "v1"); err != nil {
				t.Fatal(err)
			}
			got, err := r.Resolve(t.Context(), "v1")
			if err != nil || got.Digest != d.Digest {
				t.Errorf("Resolve = %v, %v; want %v", got.Digest, err, d.Digest)
			}
		}
		if _, err := r.Resolve(t.Context(), string(a.Digest)); err != nil {
			t.Error(err)
		}
		if got, err := r.Tags(t.Context()); err != nil || !slices.Equal(got, []string{"v1"}) {
			t.Errorf("Tags = %q, %v", got, err)
		}
	}},
	{"tags are in natural order, and those of tools are hidden", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		desc, _ := artifact(t, r, nil, "application/x-test")
		hex := desc.Digest.Encoded()
		for _, tag := range []string{"v10", "v9", "1.0", "latest", "sha256-" + hex, "sha256-" + hex + ".sig", "sha256-" + hex + "." + hex[:16], "sha256-x"} {
			if err := r.Tag(t.Context(), desc, tag); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := r.Tags(t.Context()); err != nil || !slices.Equal(got, []string{"1.0", "latest", "sha256-x", "v9", "v10"}) {
			t.Errorf("Tags = %q, %v", got, err)
		}
	}},
	{"a manifest whose blob is missing is refused", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		missing := describe(blobType, []byte("never pushed"))
		b, err := json.Marshal(ocispec.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2},
			MediaType: ocispec.MediaTypeImageManifest,
			Config:    pushBytes(t, r, ocispec.MediaTypeEmptyJSON, []byte("{}")),
			Layers:    []ocispec.Descriptor{missing},
		})
		if err != nil {
			t.Fatal(err)
		}
		err = r.Push(t.Context(), describe(ocispec.MediaTypeImageManifest, b), bytes.NewReader(b))
		unknown, ok := errors.AsType[*registry.BlobUnknownError](err)
		if !errors.Is(err, ErrManifestBlobUnknown) || !ok || !slices.Equal(unknown.Digests, []digest.Digest{missing.Digest}) {
			t.Errorf("got %v (%v), want ErrManifestBlobUnknown with %s", err, unknown, missing.Digest)
		}
	}},
	{"a blob is sent once", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		content := noise(2, 1<<20)
		desc := pushBytes(t, r, blobType, content)
		before, _, _ := r.Stats()
		if before < desc.Size {
			t.Errorf("sent %d bytes, of a blob of %d", before, desc.Size)
		}
		if err := r.PushBlob(t.Context(), desc, func() (io.ReadCloser, error) { return nil, errors.New("opened again") }); err != nil {
			t.Error(err)
		}
		if after, _, _ := r.Stats(); after != before {
			t.Errorf("sent %d bytes more", after-before)
		}
	}},
	{"the source's error ends a push", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		desc := describe(blobType, noise(3, 2<<20))
		broken, opened := errors.New("the disk is broken"), 0
		err := r.PushBlob(t.Context(), desc, func() (io.ReadCloser, error) {
			opened++
			return io.NopCloser(io.MultiReader(bytes.NewReader(noise(3, 1<<20)), failing{broken})), nil
		})
		if !errors.Is(err, broken) || opened != 1 {
			t.Errorf("got %v after %d tries, want %v after 1", err, opened, broken)
		}
	}},
	{"referrers are found", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		subject, _ := artifact(t, r, nil, "application/x-test", []byte("subject"))
		other, _ := artifact(t, r, nil, "application/x-test", []byte("other"))
		if err := r.Tag(t.Context(), subject, "v1"); err != nil {
			t.Fatal(err)
		}
		var want []digest.Digest
		for i := range 3 {
			desc, _ := artifact(t, r, &subject, fmt.Sprintf("application/x-sig%d", i), fmt.Append(nil, "signature ", i))
			want = append(want, desc.Digest)
		}
		artifact(t, r, &other, "application/x-sig", []byte("signature of another"))

		slices.Sort(want)
		listed, err := r.Referrers(t.Context(), subject)
		if digests := digestsOf(listed); err != nil || !slices.Equal(slices.Sorted(slices.Values(digests)), want) {
			t.Errorf("listed are %v, %v\nwant %v", digests, err, want)
		}
		got, err := r.ReadReferrers(t.Context(), subject)
		if err != nil {
			t.Fatal(err)
		}
		if digests := digestsOf(got); !slices.Equal(digests, want) {
			t.Errorf("got %v\nwant %v", digests, want)
		}
		for _, d := range got {
			if !strings.HasPrefix(d.ArtifactType, "application/x-sig") || d.Annotations["test"] != d.ArtifactType || d.MediaType != ocispec.MediaTypeImageManifest {
				t.Errorf("got %+v", d)
			}
		}
		if tags, err := r.Tags(t.Context()); err != nil || !slices.Equal(tags, []string{"v1"}) {
			t.Errorf("Tags = %q, %v", tags, err)
		}
	}},
	{"no referrer is lost to another writer", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		subject, _ := artifact(t, r, nil, "application/x-test", []byte("subject"))
		var want []digest.Digest
		type pushed struct {
			desc     ocispec.Descriptor
			manifest []byte
		}
		var all []pushed
		empty := pushBytes(t, r, ocispec.MediaTypeEmptyJSON, []byte("{}"))
		for i := range 8 {
			b, err := json.Marshal(ocispec.Manifest{
				Versioned:    specs.Versioned{SchemaVersion: 2},
				MediaType:    ocispec.MediaTypeImageManifest,
				ArtifactType: "application/x-sig",
				Config:       empty,
				Layers:       []ocispec.Descriptor{empty},
				Subject:      &subject,
				Annotations:  map[string]string{"n": fmt.Sprint(i)},
			})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, pushed{describe(ocispec.MediaTypeImageManifest, b), b})
			want = append(want, digest.FromBytes(b))
		}
		var wg sync.WaitGroup
		for _, p := range all {
			wg.Go(func() {
				if err := r.PushReferrer(t.Context(), p.desc, p.manifest); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got, err := r.Referrers(t.Context(), subject)
		slices.Sort(want)
		if digests := slices.Sorted(slices.Values(digestsOf(got))); err != nil || !slices.Equal(digests, want) {
			t.Errorf("got %d of %d: %v", len(digests), len(want), err)
		}
	}},
	{"many at once", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				content := noise(uint64(100+i%12), 200<<10) // some of them twice
				desc := describe(blobType, content)
				if err := r.Push(t.Context(), desc, bytes.NewReader(content)); err != nil {
					t.Error(err)
					return
				}
				rc, err := r.FetchRange(t.Context(), desc, 1000, 100<<10)
				if err != nil {
					t.Error(err)
					return
				}
				defer rc.Close()
				if got, err := io.ReadAll(rc); err != nil || !bytes.Equal(got, content[1000:1000+100<<10]) {
					t.Errorf("got %d other bytes, %v", len(got), err)
				}
			})
		}
		wg.Wait()
	}},
	{"what was pushed is there for the next one", func(t *testing.T, name string) {
		ref, err := ParseReference(name)
		if err != nil {
			t.Fatal(err)
		}
		var descs []ocispec.Descriptor
		for i, tag := range []string{"v1", "v2", "v1"} {
			r, err := Open(t.Context(), ref, Options{})
			if err != nil {
				t.Fatal(err)
			}
			desc, _ := artifact(t, r, nil, fmt.Sprintf("application/x-test%d", i), noise(uint64(i), 5000), []byte("common"))
			if err := r.Tag(t.Context(), desc, tag); err != nil {
				t.Fatal(err)
			}
			descs = append(descs, desc)
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		r := open(t, name, Options{})
		if tags, err := r.Tags(t.Context()); err != nil || !slices.Equal(tags, []string{"v1", "v2"}) {
			t.Errorf("Tags = %q, %v", tags, err)
		}
		for n, want := range map[string]ocispec.Descriptor{"v1": descs[2], "v2": descs[1], string(descs[0].Digest): descs[0]} {
			if got, err := r.Resolve(t.Context(), n); err != nil || got.Digest != want.Digest {
				t.Errorf("Resolve(%s) = %v, %v; want %v", n, got.Digest, err, want.Digest)
			}
		}
	}},
	{"an end of the context is an end", func(t *testing.T, name string) {
		r := open(t, name, Options{})
		content := noise(9, 1<<20)
		desc := pushBytes(t, r, blobType, content)
		ctx, cancel := context.WithCancelCause(t.Context())
		rc, err := r.FetchRange(ctx, desc, 0, desc.Size)
		if err != nil {
			t.Fatal(err)
		}
		defer rc.Close()
		if _, err := rc.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		cause := errors.New("the user is gone")
		cancel(cause)
		if _, err := io.ReadAll(rc); !errors.Is(err, cause) {
			t.Errorf("got %v, want %v", err, cause)
		}
	}},
}

func TestMount(t *testing.T) {
	t.Parallel()
	content := noise(1, 1<<20)
	for _, b := range backends {
		t.Run(b.name, func(t *testing.T) {
			from := b.open(t)
			ref, err := ParseReference(from)
			if err != nil {
				t.Fatal(err)
			}
			if ref.Kind != registry.Remote {
				r := open(t, from, Options{})
				if ok, err := r.Mount(t.Context(), describe(blobType, content), "test"); ok || err != nil {
					t.Errorf("Mount = %v, %v", ok, err)
				}
				return
			}
			desc := pushBytes(t, open(t, from, Options{}), blobType, content)
			r := open(t, ref.Host+"/"+newName(), Options{})
			if ok, err := r.Mount(t.Context(), desc, ref.Repository); !ok || err != nil {
				t.Errorf("Mount = %v, %v", ok, err)
			}
			if ok, err := r.Exists(t.Context(), desc); !ok || err != nil {
				t.Errorf("Exists = %v, %v", ok, err)
			}
			if sent, _, mounted := r.Stats(); sent != 0 || mounted != desc.Size {
				t.Errorf("sent %d, mounted %d", sent, mounted)
			}
			if ok, err := r.Mount(t.Context(), describe(blobType, []byte("missing")), ref.Repository); ok || err != nil {
				t.Errorf("Mount of what is not there = %v, %v", ok, err)
			}
		})
	}
}

func digestsOf(list []ocispec.Descriptor) []digest.Digest {
	var digests []digest.Digest
	for _, d := range list {
		digests = append(digests, d.Digest)
	}
	return digests
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
