package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/davit-oci/davit/internal/programs"
	"github.com/opencontainers/go-digest"
)

// The tests of e2e_*_test.go run the program that is released, against real
// registries over real sockets, and compare with other people's tools.

// buildOnce builds davit, without the race detector: what is tested is the
// program, and it is run hundreds of times.
var buildOnce = sync.OnceValues(func() (string, error) {
	self, err := exec.LookPath("davit") // testscript has put it into a folder that it removes at the end
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(filepath.Dir(self)), "real", "davit")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// A host is a machine that davit runs on: a folder, and a local store and
// settings of its own.
type host struct {
	t   testing.TB
	dir string
	exe string
	env []string
}

func newHost(t testing.TB) *host {
	t.Helper()
	if testing.Short() {
		t.Skip("runs the real program; go test without -short runs it")
	}
	exe, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, dir: t.TempDir(), exe: exe}
	home := t.TempDir()
	h.env = []string{
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "HOME=" + home, "TMPDIR=" + home,
		"DOCKER_CONFIG=" + home, "DAVIT_PASSWORD=e2e", "COSIGN_PASSWORD=e2e",
	}
	return h
}

// path returns the path of a file in the host's folder.
func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// A result is what a run of a program came to.
type result struct {
	code           int
	stdout, stderr string
}

// run runs davit, which must not panic and says why it failed.
func (h *host) run(args ...string) result {
	h.t.Helper()
	r := h.exec(h.exe, args...)
	if strings.Contains(r.stderr, "goroutine ") {
		h.t.Errorf("davit %s: a panic\n%s", strings.Join(args, " "), r.stderr)
	}
	if r.code != 0 && !strings.Contains(r.stderr, "davit: error: ") {
		h.t.Errorf("davit %s: exit code %d, and no word about it\n%s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r
}

func (h *host) exec(name string, args ...string) result {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), name, args...)
	cmd.Dir, cmd.Env = h.dir, h.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// ok runs davit, which must succeed, and returns its stdout.
func (h *host) ok(args ...string) string {
	h.t.Helper()
	return h.exits(0, args...).stdout
}

// exits runs davit, which must end with that code.
func (h *host) exits(code int, args ...string) result {
	h.t.Helper()
	r := h.run(args...)
	if r.code != code {
		h.t.Fatalf("davit %s: exit code %d, want %d\n%s", strings.Join(args, " "), r.code, code, r.stderr)
	}
	return r
}

// tool runs another program, which must succeed, and returns its stdout.
func (h *host) tool(name string, args ...string) string {
	h.t.Helper()
	r := h.exec(programs.Need(h.t, name), args...)
	if r.code != 0 {
		h.t.Fatalf("%s %s: exit code %d\n%s%s", name, strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// report runs davit with --json and returns what it says.
func (h *host) report(args ...string) (r e2eReport) {
	h.t.Helper()
	out := h.ok(append([]string{"--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
	return r
}

type e2eReport struct {
	Ref        string
	Digest     digest.Digest
	DiskDigest digest.Digest
	Layers     struct{ New, Kept int }
	ReusedFrom []string
	Bytes      struct{ Read, Sent, Reused, Fetched, Seeded, Cached, Written int64 }
}

// files returns the names and digests of all files in the host's folder.
func (h *host) files() string {
	h.t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(h.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		_, err = fmt.Fprintln(&b, path, fileDigest(h.t, path))
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return b.String()
}

// A server is a registry that is a program, with its storage in a folder.
type server struct {
	host string
	dir  string
}

// newOlareg starts davit's own registry.
func newOlareg(t *testing.T) server {
	t.Helper()
	h := newHost(t)
	cmd := exec.Command(h.exe, "registry", "serve", "--listen", "127.0.0.1:0", "--dir", h.dir)
	cmd.Env = h.env
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	return server{startServer(t, cmd, out, regexp.MustCompile(`^http://(\S+)`)), h.dir}
}

// newDistribution starts a registry of the distribution project: its own
// program of version 3, or Debian's of version 2.8.
func newDistribution(t *testing.T, program string) server {
	t.Helper()
	path := programs.Need(t, program)
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `version: 0.1
log: {level: info, formatter: text}
storage: {filesystem: {rootdirectory: %q}, delete: {enabled: true}}
http: {addr: "127.0.0.1:0"}
`, filepath.Join(dir, "data")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "serve", config)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=none"}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	return server{startServer(t, cmd, out, regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)), filepath.Join(dir, "data")}
}

// startServer starts a program and waits until it says where it listens.
func startServer(t *testing.T, cmd *exec.Cmd, out io.Reader, says *regexp.Regexp) string {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if m := says.FindStringSubmatch(line); m != nil {
			go io.Copy(io.Discard, lines)
			return m[1]
		}
		if err != nil {
			t.Fatalf("%s does not say where it listens: %v", cmd.Path, err)
		}
	}
}

// A wire is a proxy in front of a registry that counts what goes through.
type wire struct {
	host string
	rate atomic.Int64 // bytes a second in either direction, 0 is no limit

	mu       sync.Mutex
	sent     int64 // bytes of request bodies
	received int64 // bytes of response bodies
	uploads  int   // requests that bring a blob
	puts     int   // of manifests
	watch    func(sent, received int64)
}

func newWire(t *testing.T, to server) *wire {
	t.Helper()
	w := &wire{}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: to.host})
			r.Out.Host = r.In.Host // the registry says where to go on: here
		},
		ModifyResponse: func(r *http.Response) error {
			r.Body = &counted{r.Body, w, &w.received}
			return nil
		},
		FlushInterval: -1,
		ErrorHandler: func(rw http.ResponseWriter, r *http.Request, err error) { // a killed client
			rw.WriteHeader(http.StatusBadGateway)
		},
	}
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		defer func() {
			if e := recover(); e != nil && e != http.ErrAbortHandler {
				panic(e)
			}
		}()
		blob := strings.Contains(r.URL.Path, "/blobs/")
		w.mu.Lock()
		switch {
		case blob && (r.Method == http.MethodPost && !r.URL.Query().Has("mount") || r.Method == http.MethodPut || r.Method == http.MethodPatch):
			w.uploads++
		case r.Method == http.MethodPut:
			w.puts++
		}
		w.mu.Unlock()
		r.Body = &counted{r.Body, w, &w.sent}
		proxy.ServeHTTP(rw, r)
	}))
	t.Cleanup(s.Close)
	w.host = strings.TrimPrefix(s.URL, "http://")
	return w
}

type counted struct {
	io.ReadCloser
	w *wire
	n *int64
}

func (c *counted) Read(p []byte) (int, error) {
	rate := c.w.rate.Load()
	if rate > 0 { // a slow network: pieces of 10 ms
		p = p[:min(int64(len(p)), max(1, rate/100))]
	}
	n, err := c.ReadCloser.Read(p)
	c.w.mu.Lock()
	*c.n += int64(n)
	if c.w.watch != nil {
		c.w.watch(c.w.sent, c.w.received)
	}
	if rate > 0 { // under the lock, so that it is the rate of all connections
		time.Sleep(time.Duration(n) * time.Second / time.Duration(rate)) //nolint:forbidigo // this is a slow wire
	}
	c.w.mu.Unlock()
	return n, err
}

// traffic is what went through a wire.
type traffic struct {
	sent, received int64
	uploads, puts  int
}

// take returns what went through since it was called last.
func (w *wire) take() traffic {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := traffic{w.sent, w.received, w.uploads, w.puts}
	w.sent, w.received, w.uploads, w.puts = 0, 0, 0, 0
	return x
}

func fileDigest(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d:%x", n, h.Sum(nil))
}

// sameDisk wants a pulled file to hold the raw disk want.
func (h *host) sameDisk(want, got string) {
	h.t.Helper()
	info, err := os.Stat(want)
	if err != nil {
		h.t.Fatal(err)
	}
	if filepath.Ext(got) == ".raw" {
		if a, b := fileDigest(h.t, want), fileDigest(h.t, got); a != b {
			h.t.Errorf("%s is %s, want %s", filepath.Base(got), b, a)
		}
	}
	format := qemuFormat(got)
	if info.Size()%512 == 0 {
		h.tool("qemu-img", "compare", "-f", "raw", "-F", format, want, got) // zeros at the end do not count
		return
	}
	if format != "raw" { // whole sectors or more: zeros at the end
		raw := got + ".as-raw"
		h.tool("qemu-img", "convert", "-f", format, "-O", "raw", got, raw)
		a, err := os.ReadFile(want)
		if err != nil {
			h.t.Fatal(err)
		}
		b, err := os.ReadFile(raw)
		if err != nil {
			h.t.Fatal(err)
		}
		if len(b)%512 != 0 || len(b)-len(a) >= 1<<20 || !bytes.Equal(append(a, make([]byte, len(b)-len(a))...), b) {
			h.t.Errorf("%s has %d bytes for %d, or others", filepath.Base(got), len(b), len(a))
		}
		os.Remove(raw)
	}
}

// qemuFormat is QEMU's name for the format that the extension of a file says.
func qemuFormat(path string) string {
	if ext := strings.TrimPrefix(filepath.Ext(path), "."); ext != "vhd" {
		return ext
	}
	return "vpc"
}

// fill returns n bytes that no codec makes smaller.
func fill(seed uint64, n int) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	b := make([]byte, n)
	rand.NewChaCha8(key).Read(b)
	return b
}

// prose returns n bytes that a codec makes a third.
func prose(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 0, n+16)
	for len(b) < n {
		b = fmt.Appendf(b, "%x lines of text, ", rng.Uint32())
	}
	return b[:n]
}

func writeFileAt(t testing.TB, path string, size int64, pieces map[int64][]byte) string {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for off, b := range pieces {
		if _, err := f.WriteAt(b, off); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

// killed runs davit and kills it, without a word of warning, when after says so.
func (h *host) killed(w *wire, after func(sent, received int64) bool, args ...string) (done bool) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, h.exe, args...) // its end by a context is SIGKILL
	cmd.Dir, cmd.Env = h.dir, h.env
	w.mu.Lock()
	w.watch = func(sent, received int64) {
		if after(sent, received) {
			cancel()
		}
	}
	w.mu.Unlock()
	err := cmd.Run()
	w.mu.Lock()
	w.watch = nil
	w.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		h.t.Fatalf("davit %s: %v", strings.Join(args, " "), err)
	}
	return err == nil
}
