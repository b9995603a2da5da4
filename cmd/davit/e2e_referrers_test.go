package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/davit-oci/davit/sign"
	"github.com/olareg/olareg"
	olaregconfig "github.com/olareg/olareg/config"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A crowd is a registry to which somebody has pushed much without a key. What
// they pushed is listed before what olareg lists, in pages.
type crowd struct {
	host string

	mu       sync.Mutex
	content  map[digest.Digest][]byte
	listed   map[digest.Digest][]ocispec.Descriptor // by subject
	tagged   map[string]string                      // tag: what it answers
	noAPI    bool
	broken   digest.Digest // the subject whose referrers cannot be listed
	requests []string
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	p := &crowd{content: map[digest.Digest][]byte{}, listed: map[digest.Digest][]ocispec.Descriptor{}, tagged: map[string]string{}}
	o := olareg.New(olaregconfig.Config{Storage: olaregconfig.ConfigStorage{StoreType: olaregconfig.StoreMem}})
	t.Cleanup(func() { o.Close() })
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.requests = append(p.requests, r.Method+" "+r.URL.Path)
		last := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		mine, isMine := p.content[digest.Digest(last)]
		switch {
		case strings.Contains(r.URL.Path, "/referrers/") && (p.noAPI || p.broken == digest.Digest(last)):
			status := http.StatusNotFound
			if !p.noAPI {
				status = http.StatusInternalServerError
			}
			w.WriteHeader(status)
		case strings.Contains(r.URL.Path, "/referrers/"):
			p.list(w, r, o, digest.Digest(last))
		case r.Method == http.MethodGet && p.tagged[last] != "":
			fmt.Fprint(w, p.tagged[last])
		case r.Method == http.MethodGet && isMine:
			w.Header().Set("Content-Length", strconv.Itoa(len(mine)))
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			}
			w.Write(mine)
		default:
			o.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	p.host = strings.TrimPrefix(s.URL, "http://")
	return p
}

func (p *crowd) list(w http.ResponseWriter, r *http.Request, o http.Handler, subject digest.Digest) {
	answer := httptest.NewRecorder()
	o.ServeHTTP(answer, r)
	var index ocispec.Index
	if err := json.Unmarshal(answer.Body.Bytes(), &index); err != nil {
		panic(err)
	}
	all := slices.Concat(p.listed[subject], index.Manifests)
	from, _ := strconv.Atoi(r.URL.Query().Get("from"))
	const page = 400
	if from+page < len(all) {
		w.Header().Set("Link", fmt.Sprintf(`<%s?from=%d>; rel="next"`, r.URL.Path, from+page))
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	_ = json.NewEncoder(w).Encode(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: all[min(from, len(all)):min(from+page, len(all))]})
}

// attach puts a bundle in front of the list of subject.
func (p *crowd) attach(t *testing.T, subject ocispec.Descriptor, bundle []byte) {
	t.Helper()
	manifest, blobs, err := sign.Referrer(subject, bundle, time.Unix(1_800_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range append(blobs, manifest) {
		p.content[b.Descriptor.Digest] = b.Data
	}
	p.listed[subject.Digest] = append(p.listed[subject.Digest], manifest.Descriptor)
}

// take returns the requests since the last take.
func (p *crowd) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.requests
	p.requests = nil
	return all
}

func (p *crowd) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// strangersKey signs what nobody trusts.
func strangersKey(t *testing.T) *sign.Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.LoadKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// subjectOf is the descriptor of an artifact.
func (h *host) subjectOf(ref string) ocispec.Descriptor {
	h.t.Helper()
	raw := []byte(h.ok("inspect", "--raw", ref))
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
}

// Somebody with push rights cannot hide a signature, nor make commands fail
// that look at a repository.
func TestE2ELookAlikes(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := newCrowd(t)
	h.key("davit")
	disk := writeFileAt(t, h.path("disk.raw"), 1<<20, map[int64][]byte{0: prose(1, 1<<19)})
	vm := p.host + "/team/vm"
	h.ok("push", "--sign", "--key", "davit.key", disk, vm+":v1")
	h.ok("push", "-a", "other=one", disk, vm+":v2")
	subject := h.subjectOf(vm + ":v1")
	stranger := strangersKey(t)
	for i := range 1001 {
		bundle, err := sign.Bundle(t.Context(), stranger, sign.Subject{Digest: subject.Digest, Name: vm,
			Annotations: map[string]string{"vnd.davit.sequence": strconv.Itoa(1_800_000_000 + i), "vnd.davit.tags": "v1"}})
		if err != nil {
			t.Fatal(err)
		}
		p.attach(t, subject, bundle)
	}

	r := h.exits(0, "verify", "--key", "davit.pub", "--bind", vm, vm+":v1")
	if strings.Contains(r.stderr, "warning") || strings.Count(r.stderr, "\n") > 40 {
		t.Errorf("found, but:\n%s", r.stderr)
	}
	h.ok("pull", "--cache", "none", "--key", "davit.pub", vm+":v1", "pulled.raw")
	h.sameDisk(disk, h.path("pulled.raw"))
	if out := h.ok("inspect", vm+":v1"); !strings.Contains(out, "1002 signatures, not checked") {
		t.Errorf("inspect: %s", out)
	}
	out := h.ok("ls", "-l", vm)
	if !strings.Contains(out, "1002") || !strings.Contains(out, "v2") {
		t.Errorf("ls -l: %s", out)
	}
	h.refuses([]string{"there is no signature"}, "pull", "--key", "davit.pub", vm+":v2", "x.raw")

	// All by others: refused, in a few lines.
	h.key("other")
	r = h.exits(exitRefused, "verify", "--key", "other.pub", vm+":v1")
	if !strings.Contains(r.stderr, "signature: 986 more") || strings.Count(r.stderr, "\n") > 40 {
		t.Errorf("refused with\n%s", r.stderr)
	}

	// Junk of the largest size does not hide it, either, nor is much of it read.
	for i := range 20 {
		p.attach(t, subject, append([]byte(strconv.Itoa(i)), strings.Repeat(" ", 1<<20-10)...))
	}
	h.ok("verify", "--key", "davit.pub", "--bind", vm, vm+":v1")

	// The list of one tag cannot be had: the others are listed.
	p.set(func() { p.broken = subject.Digest })
	r = h.exits(0, "ls", "-l", vm)
	if !strings.Contains(r.stdout, "v2") || !strings.Contains(r.stdout, "?") || !strings.Contains(r.stderr, "warning: v1: signatures not counted") {
		t.Errorf("ls -l: %s%s", r.stdout, r.stderr)
	}
	if out := h.ok("ls", "-l", "--json", vm); !strings.Contains(out, `"signatures": null`) || !strings.Contains(out, `"signatures": 0`) {
		t.Errorf("ls -l --json: %s", out)
	}
	h.exits(exitFailed, "verify", "--key", "davit.pub", vm+":v1") // nobody can tell
}

// Where the registry lists referrers, nothing else is asked.
func TestE2EReferrersAreAskedForOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := newCrowd(t)
	h.key("davit")
	disk := writeFileAt(t, h.path("disk.raw"), 1<<20, map[int64][]byte{0: prose(1, 1<<19)})
	vm := p.host + "/vm"
	h.ok("push", disk, vm+":v1")
	for _, args := range [][]string{
		{"sign", "--key", "davit.key", vm + ":v1"}, {"verify", "--key", "davit.pub", vm + ":v1"}, {"verify", "--deep", "--key", "davit.pub", vm + ":v1"},
		{"sign", "--key", "davit.key", vm + ":v1"}, {"pull", "--key", "davit.pub", vm + ":v1", "x.raw"}, {"inspect", vm + ":v1"}, {"tag", vm + ":v1", "v2"},
	} {
		p.take()
		h.ok(args...)
		lists := 0
		for _, r := range p.take() {
			if strings.Contains(r, "/tags/list") || strings.Contains(r, "/manifests/sha256-") {
				t.Errorf("davit %s: %s", strings.Join(args, " "), r)
			}
			if strings.Contains(r, "/referrers/") {
				lists++
			}
		}
		if lists == 0 {
			t.Errorf("davit %s: the referrers were not asked for", strings.Join(args, " "))
		}
	}
}

// A registry without the API, whose index of the tag schema anybody can write.
func TestE2EWrongFallbackIndex(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := newCrowd(t)
	p.noAPI = true
	h.key("davit")
	disk := writeFileAt(t, h.path("disk.raw"), 1<<20, map[int64][]byte{0: prose(1, 1<<19)})
	vm := p.host + "/vm"
	h.ok("push", "--sign", "--key", "davit.key", disk, vm+":v1")
	subject := h.subjectOf(vm + ":v1")
	tag := "sha256-" + subject.Digest.Encoded()
	h.ok("verify", "--key", "davit.pub", vm+":v1")
	var entry struct {
		Referrers []struct {
			Digest digest.Digest
			Size   int64
		}
	}
	if err := json.Unmarshal([]byte(h.ok("inspect", "--json", vm+":v1")), &entry); err != nil || len(entry.Referrers) != 1 {
		t.Fatalf("%v, %v", entry, err)
	}
	real := entry.Referrers[0]
	index := func(entries ...string) string {
		return `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[` + strings.Join(entries, ",") + `]}`
	}
	item := func(d digest.Digest, size int64) string {
		return fmt.Sprintf(`{"mediaType":"%s","digest":"%s","size":%d,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`, ocispec.MediaTypeImageManifest, d, size)
	}
	var heap []string
	for i := range 15_000 {
		heap = append(heap, item(digest.FromString(strconv.Itoa(i)), 1))
	}
	for name, body := range map[string]string{
		"a wrong size":            index(item(real.Digest, real.Size+1)),
		"a wrong size and more":   index(item(real.Digest, 1), item(real.Digest, real.Size), item("sha256:", 7), item(subject.Digest, subject.Size)),
		"more than is looked at":  index(heap...),
		"other media types":       index(strings.ReplaceAll(item(real.Digest, real.Size), ocispec.MediaTypeImageManifest, "text/plain")),
		"entries of another form": index(`7`, `{"size":"x"}`, `null`),
		"cut off":                 index()[:40],
		"empty":                   index(),
		"something else":          `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{},"layers":[]}`,
	} {
		p.set(func() { p.tagged[tag] = body })
		if r := h.run("verify", "--key", "davit.pub", vm+":v1"); r.code != 0 {
			t.Errorf("%s: exit code %d\n%s", name, r.code, r.stderr)
		}
		if r := h.run("ls", "-l", vm); r.code != 0 || !strings.Contains(r.stdout, "v1") {
			t.Errorf("%s: ls -l: exit code %d\n%s%s", name, r.code, r.stdout, r.stderr)
		}
		if r := h.run("inspect", vm+":v1"); r.code != 0 || !strings.Contains(r.stdout, "1 signature, not checked") {
			t.Errorf("%s: inspect: exit code %d\n%s%s", name, r.code, r.stdout, r.stderr)
		}
	}
	// Other commands that write a signature mend it.
	p.set(func() { clear(p.tagged) })
	os.Remove(h.path("x.raw"))
	h.ok("pull", "--key", "davit.pub", vm+":v1", "x.raw")
}
