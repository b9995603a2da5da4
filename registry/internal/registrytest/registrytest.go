// Package registrytest has what the tests of package registry and of the packages below it need: registries to talk to, and content to
// push. Its functions end the test when they fail.
package registrytest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/davit-oci/davit/internal/programs"
	"github.com/davit-oci/davit/registry"
	"github.com/olareg/olareg"
	olaregconfig "github.com/olareg/olareg/config"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var names struct {
	sync.Mutex
	n int
}

// NewName is the name of a repository that no other test uses.
func NewName() string {
	names.Lock()
	defer names.Unlock()
	names.n++
	return fmt.Sprintf("test/repo%d", names.n)
}

// OlaregHost is HOST:PORT of a NewOlareg.
func OlaregHost(t *testing.T, referrers bool) string {
	t.Helper()
	s := httptest.NewServer(NewOlareg(t, referrers))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// NewOlareg is a registry in memory, with the referrers API or without.
func NewOlareg(t *testing.T, referrers bool) http.Handler {
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

// Main runs the tests of a package, so that they neither read nor change the credentials of whoever runs them. With $DAVIT_TEST_CHILD it
// runs one of children instead, with the first argument: tests start their own binary to kill it, or to give it an environment.
func Main(m *testing.M, children map[string]func(ctx context.Context, arg string) error) {
	if child := children[os.Getenv("DAVIT_TEST_CHILD")]; child != nil {
		if err := child(context.Background(), os.Args[1]); err != nil {
			fmt.Fprintln(os.Stdout, err)
			os.Exit(1) //nolint:forbidigo // this is a main
		}
		return
	}
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
	m.Run()
	for _, stop := range registries.stop {
		stop()
	}
}

// Host starts a registry that is a program, once for all tests.
func Host(t *testing.T, name string) string {
	t.Helper()
	path := programs.Need(t, name)
	registries.Lock()
	defer registries.Unlock()
	if host := registries.hosts[path]; host != "" {
		return host
	}

	dir, err := os.MkdirTemp("", "davit-registry-test-") //nolint:usetesting // the registry outlives this test
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
	cmd := exec.Command(path, "serve", filepath.Join(dir, "config.yml")) //nolint:noctx // the registry outlives this test
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
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
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
		_, _ = io.Copy(io.Discard, out)
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

// Open opens a name for as long as the test runs.
func Open(t *testing.T, name string, o registry.Options) *registry.Repository {
	t.Helper()
	ref, err := registry.ParseReference(name)
	if err != nil {
		t.Fatal(err)
	}
	if o.Backoff == 0 {
		o.Backoff = time.Millisecond
	}
	// Cleanup comes after the end of the test's context, with which an archive is not written.
	r, err := registry.Open(context.WithoutCancel(t.Context()), ref, o)
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

// Describe is the descriptor of b.
func Describe(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// BlobType is the type of blobs that tests push.
const BlobType = "application/vnd.davit.disk.layer.v1"

// Noise is content that differs with its seed.
func Noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	key[0], key[1], key[2] = byte(seed), byte(seed>>8), byte(seed>>16)
	_, _ = rand.NewChaCha8(key).Read(b) // it never fails
	return b
}

// Push pushes b.
func Push(t *testing.T, r *registry.Repository, mediaType string, b []byte) ocispec.Descriptor {
	t.Helper()
	desc := Describe(mediaType, b)
	if err := r.Push(t.Context(), desc, bytes.NewReader(b)); err != nil {
		t.Fatalf("Push: %v", err)
	}
	return desc
}

// Artifact pushes blobs and a manifest that names them.
func Artifact(t *testing.T, r *registry.Repository, subject *ocispec.Descriptor, artifactType string, blobs ...[]byte) (ocispec.Descriptor, []byte) {
	t.Helper()
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType,
		Config:       Push(t, r, ocispec.MediaTypeEmptyJSON, []byte("{}")),
		Subject:      subject,
		Annotations:  map[string]string{"test": artifactType},
	}
	for _, b := range blobs {
		m.Layers = append(m.Layers, Push(t, r, BlobType, b))
	}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	desc := Describe(m.MediaType, b)
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

// ReadAll takes what Fetch returns.
func ReadAll(t *testing.T, rc io.ReadCloser, err error) []byte {
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
