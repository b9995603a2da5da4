package registry

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/davit-oci/davit/internal/programs"
	"github.com/olareg/olareg"
	olaregconfig "github.com/olareg/olareg/config"
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

var names struct {
	sync.Mutex
	n int
}

// newName is the name of a repository that no other test uses.
func newName() string {
	names.Lock()
	defer names.Unlock()
	names.n++
	return fmt.Sprintf("test/repo%d", names.n)
}

func olaregHost(t *testing.T, referrers bool) string {
	t.Helper()
	s := httptest.NewServer(newOlareg(t, referrers))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func newOlareg(t *testing.T, referrers bool) http.Handler {
	s := olareg.New(olaregconfig.Config{
		Storage: olaregconfig.ConfigStorage{StoreType: olaregconfig.StoreMem},
		API:     olaregconfig.ConfigAPI{Referrer: olaregconfig.ConfigAPIReferrer{Enabled: &referrers}},
	})
	t.Cleanup(func() { s.Close() })
	// olareg 0.1.2 changes its lists of referrers without a lock, and loses what is pushed at the same time.
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			mu.Lock()
			defer mu.Unlock()
		}
		s.ServeHTTP(w, r)
	})
}

var (
	listening  = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)
	registries struct {
		sync.Mutex
		hosts map[string]string
		stop  []func()
	}
)

func TestMain(m *testing.M) {
	if child := os.Getenv("DAVIT_TEST_CHILD"); child != "" {
		os.Exit(runChild(child, os.Args[1:])) //nolint:forbidigo // this is a main
	}
	// No test reads or changes the credentials of whoever runs it.
	empty, err := os.MkdirTemp("", "davit-registry-test-")
	if err != nil {
		panic(err)
	}
	registries.stop = append(registries.stop, func() { os.RemoveAll(empty) })
	for _, k := range []string{"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "DOCKER_CONFIG", "HOME"} {
		os.Setenv(k, empty)
	}
	for _, k := range []string{"REGISTRY_AUTH_FILE", "DAVIT_CACHE", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
		os.Unsetenv(k)
	}
	code := m.Run()
	for _, stop := range registries.stop {
		stop()
	}
	os.Exit(code) //nolint:forbidigo // this is a main
}

// registryHost starts a registry that is a program, once for all tests.
func registryHost(t *testing.T, name string) string {
	t.Helper()
	path := programs.Need(t, name)
	registries.Lock()
	defer registries.Unlock()
	if host := registries.hosts[path]; host != "" {
		return host
	}

	dir, err := os.MkdirTemp("", "davit-registry-test-")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: info, formatter: text}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: "127.0.0.1:0"}
`, filepath.Join(dir, "data"))
	if err := os.WriteFile(filepath.Join(dir, "config.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "serve", filepath.Join(dir, "config.yml"))
	// A registry takes REGISTRY_AUTH_FILE for a setting of its own.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=none"}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	registries.stop = append(registries.stop, func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	})

	address := make(chan string, 1)
	go func() {
		var log strings.Builder
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				address <- m[1]
				break
			}
			fmt.Fprintln(&log, lines.Text())
		}
		io.Copy(io.Discard, out)
		close(address)
	}()
	select {
	case host, ok := <-address:
		if !ok {
			t.Fatalf("%s ended before it listened", name)
		}
		if registries.hosts == nil {
			registries.hosts = make(map[string]string)
		}
		registries.hosts[path] = host
		return host
	case <-time.After(30 * time.Second):
		t.Fatalf("%s does not say where it listens", name)
	}
	return ""
}

// open opens a name for as long as the test runs.
func open(t *testing.T, name string, o Options) *Repository {
	t.Helper()
	ref, err := ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	if o.backoff == 0 {
		o.backoff = time.Millisecond
	}
	// Cleanup comes after the end of the test's context, with which an archive is not written.
	r, err := Open(context.WithoutCancel(t.Context()), ref, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return r
}

func describe(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

const blobType = "application/vnd.davit.disk.layer.v1"

// noise is content that differs with its seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	_, _ = rand.NewChaCha8(key).Read(b) // it never fails
	return b
}

func pushBytes(t *testing.T, r *Repository, mediaType string, b []byte) ocispec.Descriptor {
	t.Helper()
	desc := describe(mediaType, b)
	if err := r.Push(t.Context(), desc, bytes.NewReader(b)); err != nil {
		t.Fatalf("Push: %v", err)
	}
	return desc
}

// artifact pushes blobs and a manifest that names them.
func artifact(t *testing.T, r *Repository, subject *ocispec.Descriptor, artifactType string, blobs ...[]byte) (ocispec.Descriptor, []byte) {
	t.Helper()
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType,
		Config:       pushBytes(t, r, ocispec.MediaTypeEmptyJSON, []byte("{}")),
		Subject:      subject,
		Annotations:  map[string]string{"test": artifactType},
	}
	for _, b := range blobs {
		m.Layers = append(m.Layers, pushBytes(t, r, blobType, b))
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	desc := describe(m.MediaType, b)
	if subject != nil {
		err = r.PushReferrer(t.Context(), desc, b)
	} else {
		err = r.Push(t.Context(), desc, bytes.NewReader(b))
	}
	if err != nil {
		t.Fatalf("pushing the manifest: %v", err)
	}
	return desc, b
}

func readAll(t *testing.T, rc io.ReadCloser, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return b
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
		unknown, ok := errors.AsType[*BlobUnknownError](err)
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

func digestsOf(list []ocispec.Descriptor) []digest.Digest {
	var digests []digest.Digest
	for _, d := range list {
		digests = append(digests, d.Digest)
	}
	return digests
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
