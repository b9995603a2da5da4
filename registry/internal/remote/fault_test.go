package remote_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A fault answers some requests itself, in the place of a registry, and says whether it did.
type fault func(w http.ResponseWriter, r *http.Request, registry http.Handler) bool

// faulty is a registry behind a fault. Requests are counted by method and what they are for.
type faulty struct {
	host  string
	names string // HOST/REPO

	mu    sync.Mutex
	count map[string]int
	log   []string
	fault fault
}

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{count: make(map[string]int)}
	registry := newOlareg(t, true)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.mu.Lock()
		f.count[kind(r)]++
		f.log = append(f.log, fmt.Sprintf("%s %s %s", r.Method, r.URL, r.Header.Get("Range")))
		fault := f.fault
		f.mu.Unlock()
		if fault == nil || !fault(w, r, registry) {
			registry.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("requests:\n%s", strings.Join(f.log, "\n"))
		}
	})
	f.host = strings.TrimPrefix(s.URL, "http://")
	f.names = f.host + "/test"
	return f
}

// kind is "GET blob", "PUT upload", "GET manifest", "GET tags", "GET referrers" or "GET other".
func kind(r *http.Request) string {
	for _, k := range [][2]string{{"/blobs/uploads/", "upload"}, {"/blobs/", "blob"}, {"/manifests/", "manifest"}, {"/tags/", "tags"}, {"/referrers/", "referrers"}} {
		if strings.Contains(r.URL.Path, k[0]) {
			return r.Method + " " + k[1]
		}
	}
	return r.Method + " other"
}

func (f *faulty) set(fault fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
	clear(f.count)
	f.log = nil
}

func (f *faulty) counted(kind string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.count[kind]
}

// times lets a fault happen n times to requests of a kind.
func times(n int64, what string, f fault) fault {
	var left atomic.Int64
	left.Store(n)
	return func(w http.ResponseWriter, r *http.Request, registry http.Handler) bool {
		if kind(r) != what || left.Add(-1) < 0 {
			return false
		}
		return f(w, r, registry)
	}
}

const always = 1 << 40

func status(code int, header ...string) fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
		return true
	}
}

// rewrite changes an answer of the registry.
func rewrite(change func(*httptest.ResponseRecorder)) fault {
	return func(w http.ResponseWriter, r *http.Request, registry http.Handler) bool {
		rec := httptest.NewRecorder()
		registry.ServeHTTP(rec, r)
		change(rec)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()) // the client may be gone
		return true
	}
}

// reset sends an answer's headers and n bytes of its body and then resets the connection.
func reset(n int) fault {
	return func(w http.ResponseWriter, r *http.Request, registry http.Handler) bool {
		rec := httptest.NewRecorder()
		registry.ServeHTTP(rec, r)
		resp := rec.Result()
		body := rec.Body.Bytes()
		conn, buf, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(buf, "HTTP/1.1 %d X\r\n", resp.StatusCode)
		_ = resp.Header.Write(buf)
		buf.WriteString("\r\n")
		buf.Write(body[:min(n, len(body))])
		buf.Flush()
		time.Sleep(time.Millisecond) //nolint:forbidigo // a reset also takes back what was not read yet; some of it should arrive
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
		return true
	}
}

// stall sends an answer's headers and n bytes of its body and then nothing until the client goes.
func stall(n int) fault {
	return func(w http.ResponseWriter, r *http.Request, registry http.Handler) bool {
		rec := httptest.NewRecorder()
		registry.ServeHTTP(rec, r)
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:min(n, rec.Body.Len())])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
}

func fetchRange(t *testing.T, r *Repository, desc ocispec.Descriptor, off, n int64) ([]byte, error) {
	t.Helper()
	rc, err := r.FetchRange(t.Context(), desc, off, n)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

// faultIdle is for cases about stalls. The others have the default: a busy machine is not to look stalled.
const faultIdle = 400 * time.Millisecond

func idleFor(name string) time.Duration {
	if strings.Contains(name, "stall") {
		return faultIdle
	}
	return 0
}

func TestFetchOverFaults(t *testing.T) {
	t.Parallel()
	content := noise(1, 1<<20)
	const off, n = 1000, 900 << 10
	for _, c := range []struct {
		name     string
		fault    fault
		requests int   // 0: do not count
		err      error // nil: the right bytes
	}{
		{"no fault", nil, 1, nil},
		{"reset in the middle", times(3, "GET blob", reset(280<<10)), 4, nil},
		{"many resets, each after some progress", times(3, "GET blob", reset(260<<10)), 0, nil},
		{"reset before the first byte", times(2, "GET blob", reset(0)), 3, nil},
		{"a byte per connection is no progress", times(always, "GET blob", reset(1)), 0, errAny},
		{"503", times(3, "GET blob", status(503)), 4, nil},
		{"500, 502, 504", times(3, "GET blob", status(504)), 4, nil},
		{"503 for ever", times(always, "GET blob", status(503)), 6, errAny},
		{"429", times(2, "GET blob", status(429, "Retry-After", "0")), 3, nil},
		{"a rate limit that is a 403", times(1, "GET blob", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			http.Error(w, "denied: You have exceeded a secondary Rate Limit", 403)
			return true
		}), 2, nil},
		{"403", times(always, "GET blob", status(403)), 2, ErrUnauthorized},
		{"401", times(always, "GET blob", status(401)), 1, ErrUnauthorized},
		{"404", times(always, "GET blob", status(404)), 1, ErrNotFound},
		{"asked to wait for a day", times(always, "GET blob", status(429, "Retry-After", "86400")), 1, errAny},
		{"206 that ends early", times(2, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) {
			rec.Header().Del("Content-Length")
			rec.Body.Truncate(rec.Body.Len() / 2)
		})), 3, nil},
		{"206 of less than was asked for", times(2, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) {
			first, _, size, err := remote.ParseContentRange(rec.Header().Get("Content-Range"))
			if err != nil {
				panic(err)
			}
			rec.Header().Del("Content-Length")
			rec.Body.Truncate(300 << 10)
			rec.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", first, first+300<<10-1, size))
		})), 3, nil},
		{"206 of less than was asked for, and something else behind it", times(1, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) {
			rec.Header().Del("Content-Length")
			rec.Body.Truncate(300 << 10)
			rec.Body.Write(make([]byte, 5000))
			rec.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+300<<10-1, len(content)))
		})), 2, nil},
		{"206 with more than it says", times(always, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) {
			rec.Header().Del("Content-Length")
			rec.Body.WriteString("more")
		})), 1, nil},
		{"Content-Range of another place, once", times(1, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) {
			rec.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", n-1, len(content)))
		})), 2, nil},
		{"Content-Range of another place, always", times(always, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) {
			rec.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", n-1, len(content)))
		})), 3, nil},
		{"no Content-Range, always", times(always, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) { rec.Header().Del("Content-Range") })), 3, nil},
		{"no Content-Range, and no whole blob either", times(always, "GET blob", func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			if r.Header.Get("Range") == "" {
				return status(404)(w, r, h)
			}
			return rewrite(func(rec *httptest.ResponseRecorder) { rec.Header().Del("Content-Range") })(w, r, h)
		}), 3, ErrNotFound},
		{"no Content-Range", times(1, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) { rec.Header().Del("Content-Range") })), 2, nil},
		{"Content-Range without the size", times(always, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) {
			rec.Header().Set("Content-Range", strings.Replace(rec.Header().Get("Content-Range"), fmt.Sprintf("/%d", len(content)), "/*", 1))
		})), 1, nil},
		{"Content-Range of a blob of another size", times(always, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) {
			rec.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, len(content)+1))
		})), 1, ErrDigestMismatch},
		{"416 for everything", times(always, "GET blob", status(416)), 2, errAny},
		{"416 for each range", toRanges(status(416)), 2, nil},
		{"416 for each range, and resets", func() fault {
			resets := times(2, "GET blob", reset(500<<10))
			return func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
				return toRanges(status(416))(w, r, h) || resets(w, r, h)
			}
		}(), 4, nil},
		{"416 for each range, of a blob that is another", toRanges(func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			return status(416, "Content-Range", "bytes */100")(w, r, h)
		}), 2, nil},
		{"403 for each range", toRanges(status(403)), 2, nil},
		{"501 for each range", toRanges(status(501)), 2, nil},
		{"500 for each range", toRanges(status(500)), 7, nil},
		{"the whole blob instead of the range", times(always, "GET blob", withoutRange), 1, nil},
		{"the whole blob instead of the range, and resets", times(2, "GET blob", func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			r.Header.Del("Range")
			return reset(500<<10)(w, r, h)
		}), 3, nil},
		{"a whole blob of another size", times(always, "GET blob", func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			_, _ = w.Write(content[:1<<19])
			return true
		}), 0, errAny},
		{"gzip that nobody asked for", times(always, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) {
			rec.Header().Set("Content-Encoding", "gzip")
		})), 1, errAny},
		{"a body that stalls", times(2, "GET blob", stall(1<<18)), 3, nil},
		{"headers that stall", times(1, "GET blob", func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			<-r.Context().Done()
			return true
		}), 2, nil},
		{"stalls for ever", times(always, "GET blob", stall(10)), 0, remote.ErrIdle},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			desc := pushBytes(t, open(t, f.names, Options{}), blobType, content)
			r := open(t, f.names, Options{IdleTimeout: idleFor(c.name)})
			f.set(c.fault)
			got, err := fetchRange(t, r, desc, off, n)
			switch {
			case c.err == nil && (err != nil || !bytes.Equal(got, content[off:off+n])):
				t.Errorf("got %d bytes, %v", len(got), err)
			case c.err == errAny && (err == nil || errors.Is(err, ErrDigestMismatch) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnauthorized)):
				t.Errorf("got %v", err)
			case c.err != nil && c.err != errAny && !errors.Is(err, c.err):
				t.Errorf("got %v, want %v", err, c.err)
			}
			if got := f.counted("GET blob"); c.requests != 0 && got != c.requests {
				t.Errorf("got %d requests, want %d (%v)", got, c.requests, err)
			}
		})
	}
}

// toRanges lets a fault happen to requests for a range of a blob.
func toRanges(f fault) fault {
	return func(w http.ResponseWriter, r *http.Request, registry http.Handler) bool {
		return r.Header.Get("Range") != "" && f(w, r, registry)
	}
}

var errAny = errors.New("any error, of no kind that is told apart")

func withoutRange(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
	r.Header.Del("Range")
	h.ServeHTTP(w, r)
	return true
}

// A whole blob that is called a part of itself is the blob.
func TestWholeBlobAsPartialContent(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	r := open(t, f.names, Options{Backoff: time.Millisecond})
	content := noise(1, 100_000)
	desc := pushBytes(t, r, blobType, content)
	as206 := func(body []byte) fault {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) bool {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(body)
			return true
		}
	}
	f.set(times(always, "GET blob", as206(content)))
	if got, err := fetchRange(t, r, desc, 0, desc.Size); err != nil || !bytes.Equal(got, content) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	if n := f.counted("GET blob"); n != 1 {
		t.Errorf("asked %d times", n)
	}
	f.set(times(always, "GET blob", as206(content[:1000])))
	if got, err := fetchRange(t, r, desc, 0, desc.Size); err == nil {
		t.Errorf("a part that does not say which: got %d bytes", len(got))
	}
}

// Where HEAD is not known, GET says the same.
func TestNoHead(t *testing.T) {
	t.Parallel()
	for _, code := range []int{http.StatusMethodNotAllowed, http.StatusNotImplemented} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			f := newFaulty(t)
			r := open(t, f.names, Options{Backoff: time.Millisecond})
			noHead := func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
				if r.Method == http.MethodHead {
					w.WriteHeader(code)
				}
				return r.Method == http.MethodHead
			}
			f.set(noHead)
			content := noise(1, 100_000)
			desc, _ := artifact(t, r, nil, "application/x-test", content)
			if err := r.Tag(t.Context(), desc, "v1"); err != nil {
				t.Fatal(err)
			}
			if n := f.counted("PUT upload"); n != 2 {
				t.Errorf("%d uploads, want those of the blob and of the config", n)
			}
			pushBytes(t, r, blobType, content)
			if n := f.counted("PUT upload"); n != 2 {
				t.Error("what is there was sent again")
			}
			blob := describe(blobType, content)
			for _, there := range []ocispec.Descriptor{blob, desc} {
				if ok, err := r.Exists(t.Context(), there); err != nil || !ok {
					t.Errorf("Exists = %v, %v", ok, err)
				}
			}
			if ok, err := r.Exists(t.Context(), describe(blobType, noise(2, 100))); err != nil || ok {
				t.Errorf("of what is not there: Exists = %v, %v", ok, err)
			}
			other := blob
			other.Size++
			if ok, err := r.Exists(t.Context(), other); err != nil || ok {
				t.Errorf("of another size: Exists = %v, %v", ok, err)
			}

			// Nor GET: then it is sent.
			f.set(func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
				if kind(r) == "GET blob" {
					w.WriteHeader(http.StatusMethodNotAllowed)
					return true
				}
				return noHead(w, r, h)
			})
			pushBytes(t, open(t, f.names, Options{}), blobType, content)
			if n := f.counted("PUT upload"); n != 1 {
				t.Errorf("%d uploads, want 1", n)
			}
		})
	}
}

// Who refuses ranges is asked for one once, and what it gives instead is checked like any other.
func TestRefusedRanges(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]fault{
		"416":              status(416),
		"no Content-Range": rewrite(func(rec *httptest.ResponseRecorder) { rec.Header().Del("Content-Range") }),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFaulty(t)
			r := open(t, f.names, Options{Backoff: time.Millisecond})
			content := noise(1, 1<<20)
			desc := pushBytes(t, r, blobType, content)
			f.set(toRanges(refusal))
			for _, off := range []int64{0, 1, 500_000, desc.Size - 10} {
				if got, err := fetchRange(t, r, desc, off, 10); err != nil || !bytes.Equal(got, content[off:off+10]) {
					t.Errorf("at %d: got %d bytes, %v", off, len(got), err)
				}
			}
			if got := f.counted("GET blob"); got > 6 {
				t.Errorf("%d requests for four ranges", got)
			}
			// Another size is another blob.
			f.set(times(always, "GET blob", func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
				if r.Header.Get("Range") == "" {
					_, _ = w.Write(content[:1000])
					return true
				}
				return refusal(w, r, h)
			}))
			if _, err := fetchRange(t, r, desc, 500, 10); !errors.Is(err, ErrDigestMismatch) {
				t.Errorf("got %v, want ErrDigestMismatch", err)
			}
		})
	}
}

func TestResumeFetchesOnlyTheRest(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	r := open(t, f.names, Options{})
	content := noise(1, 4<<20)
	desc := pushBytes(t, r, blobType, content)
	f.set(times(2, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) {
		rec.Header().Del("Content-Length")
		rec.Body.Truncate(1 << 20)
	})))
	_, before, _ := r.Stats()
	rc, err := r.Fetch(t.Context(), desc)
	if got := readAll(t, rc, err); !bytes.Equal(got, content) {
		t.Errorf("got %d bytes", len(got))
	}
	if _, after, _ := r.Stats(); after-before != desc.Size {
		t.Errorf("fetched %d bytes of a blob of %d", after-before, desc.Size)
	}
}

func TestFetchVerifiesWholeBlobs(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	r := open(t, f.names, Options{})
	desc := pushBytes(t, r, blobType, noise(1, 1<<20))
	f.set(times(always, "GET blob", rewrite(func(rec *httptest.ResponseRecorder) { rec.Body.Bytes()[500_000] ^= 1 })))
	rc, err := r.Fetch(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if _, err := io.ReadAll(rc); !errors.Is(err, ErrDigestMismatch) {
		t.Errorf("got %v, want ErrDigestMismatch", err)
	}
}

// A consumer that is slower than the idle timeout is no stall.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	content := noise(1, 8<<20)
	desc := pushBytes(t, open(t, f.names, Options{}), blobType, content)
	f.set(nil)
	r := open(t, f.names, Options{IdleTimeout: faultIdle})
	rc, err := r.Fetch(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * faultIdle) //nolint:forbidigo // being slow is what is tested
	if got := readAll(t, rc, nil); !bytes.Equal(got, content) || f.counted("GET blob") != 1 {
		t.Errorf("got %d bytes by %d requests", len(got), f.counted("GET blob"))
	}
}

func TestRetryAfterIsWaitedFor(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	r := open(t, f.names, Options{})
	desc := pushBytes(t, r, blobType, []byte("content"))
	f.set(times(1, "GET blob", status(429, "Retry-After", "1")))
	start := time.Now()
	if _, err := fetchRange(t, r, desc, 0, 1); err != nil || time.Since(start) < time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

// resetUpload reads n bytes of a request and then resets the connection.
func resetUpload(n int64) fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		_, _ = io.CopyN(io.Discard, r.Body, n)
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
		return true
	}
}

func TestPushOverFaults(t *testing.T) {
	t.Parallel()
	content := noise(1, 3<<20)
	// limit refuses bodies over n bytes, as proxies do.
	limit := func(n int64) fault {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if r.ContentLength <= n {
				return false
			}
			w.WriteHeader(413)
			return true
		}
	}
	for _, c := range []struct {
		name  string
		fault fault
		err   error
		count map[string]int
	}{
		{"no fault", nil, nil, map[string]int{"HEAD blob": 1, "POST upload": 1, "PUT upload": 1}},
		{"reset in the middle", times(2, "PUT upload", resetUpload(1<<20)), nil, map[string]int{"POST upload": 3, "PUT upload": 3}},
		{"reset at the start", times(2, "POST upload", resetUpload(0)), nil, map[string]int{"PUT upload": 1}},
		{"503 at the end", times(2, "PUT upload", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(503)
			return true
		}), nil, map[string]int{"POST upload": 3, "PUT upload": 3}},
		{"503 at the start", times(2, "POST upload", status(503)), nil, map[string]int{"POST upload": 3, "PUT upload": 1}},
		{"429", times(1, "PUT upload", status(429, "Retry-After", "0")), nil, map[string]int{"PUT upload": 2}},
		{"503 for ever", times(always, "PUT upload", status(503)), errAny, map[string]int{"PUT upload": 6}},
		{"403", times(always, "POST upload", status(403)), ErrUnauthorized, map[string]int{"POST upload": 1}},
		{"the answer is lost", times(1, "PUT upload", func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			h.ServeHTTP(httptest.NewRecorder(), r)
			return resetUpload(0)(w, r, h)
		}), nil, map[string]int{"PUT upload": 1, "HEAD blob": 2}},
		{"PUT is answered 200", times(always, "PUT upload", rewrite(func(rec *httptest.ResponseRecorder) { rec.Code = 200 })), nil, map[string]int{"PUT upload": 1, "HEAD blob": 2}},
		{"PUT is answered 204", times(always, "PUT upload", rewrite(func(rec *httptest.ResponseRecorder) { rec.Code = 204; rec.Body.Reset() })), nil, map[string]int{"PUT upload": 1, "HEAD blob": 2}},
		{"PUT is answered by a page", times(always, "PUT upload", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, "<html>please log in")
			return true
		}), errAny, map[string]int{"PUT upload": 1}},
		{"HEAD finds something of another size", times(1, "HEAD blob", status(200, "Content-Length", "5")), nil, map[string]int{"PUT upload": 1}},
		{"no Expect here", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if r.Header.Get("Expect") == "" {
				return false
			}
			w.WriteHeader(417)
			return true
		}, nil, map[string]int{"PUT upload": 2, "POST upload": 1}},
		{"413 of what is over 2 MB", limit(2 << 20), nil, map[string]int{"PATCH upload": 4}},
		{"413 of what is over 2 MB, by a proxy that reads nothing and resets", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if r.ContentLength <= 2<<20 {
				return false
			}
			if r.Header.Get("Expect") == "" {
				t.Errorf("%s of %d bytes without Expect", r.Method, r.ContentLength)
			}
			conn, buf, err := w.(http.Hijacker).Hijack()
			if err != nil {
				panic(err)
			}
			buf.WriteString("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			buf.Flush()
			if tcp := conn.(*net.TCPConn); tcp.CloseWrite() == nil {
				_, _ = io.Copy(io.Discard, tcp) // until the client has it: what is reset here is only what it sends in spite of it
				tcp.SetLinger(0)
			}
			conn.Close()
			return true
		}, nil, map[string]int{"PATCH upload": 4, "PUT upload": 2}},
		{"413, and PATCH is answered 201", patched(2<<20, func(rec *httptest.ResponseRecorder) { rec.Code = 201 }), nil, map[string]int{"PATCH upload": 4}},
		{"413, and PATCH is answered 204", patched(2<<20, func(rec *httptest.ResponseRecorder) { rec.Code = 204 }), nil, map[string]int{"PATCH upload": 4}},
		{"413, and PATCH is answered 200", patched(2<<20, func(rec *httptest.ResponseRecorder) { rec.Code = 200 }), errAny, nil},
		{"413, and PATCH is answered without Location", func() fault {
			var state string
			return func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
				if state != "" && r.Method != http.MethodPost && strings.Contains(state, r.URL.Path) {
					now, err := url.Parse(state)
					if err != nil {
						panic(err)
					}
					q := now.Query()
					q["digest"] = r.URL.Query()["digest"]
					r.URL.RawQuery = q.Encode()
				}
				return patched(2<<20, func(rec *httptest.ResponseRecorder) {
					state = rec.Header().Get("Location")
					rec.Header().Del("Location")
				})(w, r, h)
			}
		}(), nil, map[string]int{"PATCH upload": 4}},
		{"no Expect here, and 413", func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			if r.Header.Get("Expect") != "" {
				w.WriteHeader(417)
				return true
			}
			return limit(2<<20)(w, r, h)
		}, nil, map[string]int{"PATCH upload": 8}},
		{"413, and a redirect of a PATCH after its body", func() fault {
			moved := times(1, "PATCH upload", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
				_, _ = io.Copy(io.Discard, r.Body)
				http.Redirect(w, r, r.URL.String(), 307)
				return true
			})
			return func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
				return limit(2<<20)(w, r, h) || moved(w, r, h)
			}
		}(), nil, map[string]int{"PATCH upload": 5}},
		{"413 before and after", limit(1 << 10), errAny, nil},
		{"no Location", times(always, "POST upload", status(202)), errAny, map[string]int{"PUT upload": 0}},
		{"a Location that is no place for blobs", times(always, "POST upload", status(202, "Location", "file:///etc/passwd")), errAny, nil},
		{"a relative Location with a query", rewriteLocation, nil, map[string]int{"PUT upload": 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			r := open(t, f.names, Options{IdleTimeout: idleFor(c.name)})
			f.set(c.fault)
			desc := describe(blobType, content)
			inUse := atomic.Int32{}
			err := r.PushBlob(t.Context(), desc, func() (io.ReadCloser, error) {
				if inUse.Add(1) > 1 {
					t.Error("two readers at the same time")
				}
				return closing{bytes.NewReader(content), func() { inUse.Add(-1) }}, nil
			})
			switch {
			case c.err == nil && err != nil:
				t.Error(err)
			case c.err == errAny && (err == nil || errors.Is(err, ErrDigestMismatch) || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnauthorized)):
				t.Errorf("got %v", err)
			case c.err != nil && c.err != errAny && !errors.Is(err, c.err):
				t.Errorf("got %v, want %v", err, c.err)
			}
			for k, want := range c.count {
				if got := f.counted(k); got != want {
					t.Errorf("got %d × %s, want %d (%v)", got, k, want, err)
				}
			}
			if c.err == nil {
				f.set(nil)
				rc, err := r.Fetch(t.Context(), desc)
				if got := readAll(t, rc, err); !bytes.Equal(got, content) {
					t.Errorf("the registry has %d other bytes", len(got))
				}
			}
		})
	}
}

func TestPushStalls(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	done := make(chan struct{})
	f.set(times(1, "PUT upload", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		_, _ = io.CopyN(io.Discard, r.Body, 1000)
		<-done
		panic(http.ErrAbortHandler)
	}))
	defer close(done)
	r := open(t, f.names, Options{IdleTimeout: 5 * faultIdle}) // the second try is a real upload, on what may be a busy machine
	content := noise(1, 24<<20)                                // more than fits into the buffers of a connection
	desc := describe(blobType, content)
	err := r.PushBlob(t.Context(), desc, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil || f.counted("PUT upload") < 2 {
		t.Errorf("%d tries: %v", f.counted("PUT upload"), err)
	}
}

// patched refuses bodies over n bytes, and changes the answers to those that are sent by PATCH.
func patched(n int64, change func(*httptest.ResponseRecorder)) fault {
	return func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
		if r.ContentLength > n {
			w.WriteHeader(413)
			return true
		}
		return kind(r) == "PATCH upload" && rewrite(change)(w, r, h)
	}
}

// rewriteLocation makes a session's place relative, with a query that must come back.
func rewriteLocation(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
	if kind(r) == "PUT upload" {
		if r.URL.Query().Get("_state") != "a b&c" {
			w.WriteHeader(400)
			return true
		}
		return false
	}
	if kind(r) != "POST upload" {
		return false
	}
	return rewrite(func(rec *httptest.ResponseRecorder) {
		u, err := url.Parse(rec.Header().Get("Location"))
		if err != nil {
			panic(err)
		}
		rec.Header().Set("Location", u.Path[strings.LastIndex(u.Path, "/")+1:]+"?"+u.RawQuery+"&_state=a+b%26c")
	})(w, r, h)
}

type closing struct {
	io.Reader
	closed func()
}

func (c closing) Close() error { c.closed(); return nil }

// A registry that does not mount says so without an error.
func TestMountIsRefused(t *testing.T) {
	t.Parallel()
	content := noise(1, 1<<20)
	t.Run("a session that comes instead is cancelled", func(t *testing.T) {
		f := newFaulty(t)
		r := open(t, f.names, Options{})
		if ok, err := r.Mount(t.Context(), describe(blobType, content), "other"); ok || err != nil || f.counted("DELETE upload") != 1 {
			t.Errorf("Mount = %v, %v; %d cancelled", ok, err, f.counted("DELETE upload"))
		}
	})
	t.Run("a registry that does not know it", func(t *testing.T) {
		f := newFaulty(t)
		f.set(times(always, "POST upload", status(405)))
		r := open(t, f.names, Options{})
		if ok, err := r.Mount(t.Context(), describe(blobType, content), "other"); ok || err != nil {
			t.Errorf("Mount = %v, %v", ok, err)
		}
	})
}

func TestManifestsAreNotBelieved(t *testing.T) {
	t.Parallel()
	flip := rewrite(func(rec *httptest.ResponseRecorder) {
		b := rec.Body.Bytes()
		b[bytes.Index(b, []byte(`"test"`))+1] ^= 1
	})
	for _, c := range []struct {
		name  string
		fault fault
		err   error
	}{
		{"a flipped bit", flip, ErrDigestMismatch},
		{"a header with another digest", rewrite(func(rec *httptest.ResponseRecorder) { rec.Header().Set("Docker-Content-Digest", testDigest) }), nil},
		{"too long", rewrite(func(rec *httptest.ResponseRecorder) {
			rec.Header().Del("Content-Length")
			rec.Body.Write(make([]byte, registry.MaxManifest))
		}), errAny},
		{"a page for humans", rewrite(func(rec *httptest.ResponseRecorder) {
			rec.Header().Del("Content-Length")
			rec.Header().Set("Content-Type", "text/html")
			rec.Body = bytes.NewBufferString("<html>")
		}), ErrDigestMismatch},
		{"cut off once", times(1, "GET manifest", rewrite(func(rec *httptest.ResponseRecorder) {
			rec.Body.Truncate(rec.Body.Len() / 2)
		})), nil},
		{"503 once", times(1, "GET manifest", status(503)), nil},
		{"reset once", times(1, "GET manifest", reset(20)), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			desc, _ := artifact(t, open(t, f.names, Options{}), nil, "application/x-test")
			f.set(times(always, "GET manifest", c.fault))
			r := open(t, f.names, Options{})
			if _, err := r.Manifest(t.Context(), desc); c.err == nil && err != nil || c.err == errAny && err == nil || c.err != nil && c.err != errAny && !errors.Is(err, c.err) {
				t.Errorf("got %v, want %v", err, c.err)
			}
		})
	}
	t.Run("a tag's header with another digest", func(t *testing.T) {
		f := newFaulty(t)
		r := open(t, f.names, Options{})
		desc, _ := artifact(t, r, nil, "application/x-test")
		if err := r.Tag(t.Context(), desc, "v1"); err != nil {
			t.Fatal(err)
		}
		f.set(times(always, "GET manifest", flip))
		if _, err := r.Resolve(t.Context(), "v1"); !errors.Is(err, ErrDigestMismatch) {
			t.Errorf("got %v, want ErrDigestMismatch", err)
		}
	})
	t.Run("a tag of more than the limit", func(t *testing.T) {
		f := newFaulty(t)
		f.set(times(always, "GET manifest", func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			_, _ = io.WriteString(w, `{"annotations":{"a":"`+strings.Repeat("x", registry.MaxManifest)+`"}}`)
			return true
		}))
		if desc, err := open(t, f.names, Options{}).Resolve(t.Context(), "v1"); err == nil || errors.Is(err, ErrDigestMismatch) {
			t.Errorf("got %v, %v", desc, err)
		}
	})
	t.Run("a push is read back", func(t *testing.T) {
		f := newFaulty(t)
		r := open(t, f.names, Options{})
		f.set(times(always, "GET manifest", flip))
		b, err := json.Marshal(ocispec.Manifest{
			MediaType:   ocispec.MediaTypeImageManifest,
			Config:      pushBytes(t, r, ocispec.MediaTypeEmptyJSON, []byte("{}")),
			Layers:      []ocispec.Descriptor{},
			Annotations: map[string]string{"test": ""},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Push(t.Context(), describe(ocispec.MediaTypeImageManifest, b), bytes.NewReader(b)); !errors.Is(err, ErrDigestMismatch) {
			t.Errorf("got %v, want ErrDigestMismatch", err)
		}
	})
}

// A registry may not have at once what it has just taken. A push has not looked for
// anything, so that it never ends as what does not find it.
func TestWrittenAndNotThereYet(t *testing.T) {
	t.Parallel()
	absent := status(http.StatusNotFound)
	push := func(t *testing.T, r *Repository) (subject ocispec.Descriptor, err error) {
		b, err := json.Marshal(ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest,
			Config:    pushBytes(t, r, ocispec.MediaTypeEmptyJSON, []byte("{}")),
			Layers:    []ocispec.Descriptor{},
		})
		if err != nil {
			t.Fatal(err)
		}
		desc := describe(ocispec.MediaTypeImageManifest, b)
		return desc, r.Push(t.Context(), desc, bytes.NewReader(b))
	}
	t.Run("a manifest, twice", func(t *testing.T) {
		f := newFaulty(t)
		f.set(times(2, "GET manifest", absent))
		if _, err := push(t, open(t, f.names, Options{})); err != nil {
			t.Error(err)
		}
		if n := f.counted("GET manifest"); n != 3 {
			t.Errorf("asked %d times, want 3", n)
		}
	})
	t.Run("a manifest, always", func(t *testing.T) {
		f := newFaulty(t)
		f.set(times(always, "GET manifest", absent))
		_, err := push(t, open(t, f.names, Options{}))
		if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "does not give it back") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a referrer", func(t *testing.T) {
		f := newFaulty(t)
		r := open(t, f.names, Options{})
		subject, err := push(t, r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(ocispec.Manifest{
			MediaType: ocispec.MediaTypeImageManifest,
			Config:    pushBytes(t, r, ocispec.MediaTypeEmptyJSON, []byte("{}")),
			Layers:    []ocispec.Descriptor{},
			Subject:   &subject,
		})
		if err != nil {
			t.Fatal(err)
		}
		f.set(times(1, "GET manifest", absent))
		if err := r.PushReferrer(t.Context(), describe(ocispec.MediaTypeImageManifest, b), b); err != nil {
			t.Error(err)
		}
	})
	t.Run("a blob", func(t *testing.T) {
		f := newFaulty(t)
		r := open(t, f.names, Options{})
		want := []byte("some blob")
		desc := pushBytes(t, r, "application/octet-stream", want)
		f.set(times(2, "GET blob", absent))
		if got, err := fetchRange(t, r, desc, 0, desc.Size); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %q, %v", got, err)
		}
	})
	t.Run("what nobody has pushed", func(t *testing.T) {
		f := newFaulty(t)
		if _, err := open(t, f.names, Options{}).Resolve(t.Context(), "gone"); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	})
}

func TestTagPages(t *testing.T) {
	t.Parallel()
	page := func(n int, next string) fault {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			if next != "" {
				w.Header().Set("Link", "<"+next+`>; rel="next"`)
			}
			fmt.Fprintf(w, `{"name":"test","tags":["v%d","not a tag","sha256-%s"]}`, n, testDigest[7:])
			return true
		}
	}
	for _, c := range []struct {
		name  string
		fault fault
		want  []string
		ok    bool
	}{
		{"one page", page(1, ""), []string{"v1"}, true},
		{"two pages", func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			if r.URL.Query().Get("last") == "" {
				return page(1, "/v2/test/tags/list?last=v1&n=1")(w, r, h)
			}
			return page(2, "")(w, r, h)
		}, []string{"v1", "v2"}, true},
		{"a link to another host stays here", func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			if r.URL.Query().Get("last") == "" {
				return page(1, "http://192.0.2.1/v2/test/tags/list?last=v1")(w, r, h)
			}
			return page(2, "")(w, r, h)
		}, []string{"v1", "v2"}, true},
		{"pages in a circle", page(1, "/v2/test/tags/list?last=v1"), nil, false},
		{"pages without end", func() fault {
			var n atomic.Int64
			return func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
				return page(1, fmt.Sprintf("/v2/test/tags/list?last=%d", n.Add(1)))(w, r, h)
			}
		}(), nil, false},
		{"no JSON", func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			fmt.Fprint(w, "<html>")
			return true
		}, nil, false},
		{"null", func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			fmt.Fprint(w, `{"name":"test","tags":null}`)
			return true
		}, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			f.set(times(always, "GET tags", c.fault))
			got, err := open(t, f.names, Options{}).Tags(t.Context())
			if !slices.Equal(got, c.want) || (err == nil) != c.ok {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
			if n := f.counted("GET tags"); strings.Contains(c.name, "circle") && n > 2 {
				t.Errorf("went round %d times", n)
			}
		})
	}
}

// The index of the tag schema is lost to another writer; what davit wrote is found, and the next writer repairs the index.
func TestLostReferrersIndex(t *testing.T) {
	t.Parallel()
	r := open(t, olaregHost(t, false)+"/test", Options{})
	subject, _ := artifact(t, r, nil, "application/x-test", []byte("subject"))
	first, _ := artifact(t, r, &subject, "application/x-sig", []byte("first"))

	empty, err := json.Marshal(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}})
	if err != nil {
		t.Fatal(err)
	}
	desc := describe(ocispec.MediaTypeImageIndex, empty)
	if err := r.Push(t.Context(), desc, bytes.NewReader(empty)); err != nil {
		t.Fatal(err)
	}
	if err := r.Tag(t.Context(), desc, oci.ReferrersTag(subject.Digest)); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ReadReferrers(t.Context(), subject); err != nil || len(got) != 1 || got[0].Digest != first.Digest {
		t.Errorf("got %v, %v", got, err)
	}
	artifact(t, r, &subject, "application/x-sig", []byte("second"))
	if desc, err = r.Resolve(t.Context(), oci.ReferrersTag(subject.Digest)); err != nil {
		t.Fatal(err)
	}
	b, err := r.Manifest(t.Context(), desc)
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(b, &index); err != nil || len(index.Manifests) != 2 {
		t.Errorf("the index has %v, %v", index.Manifests, err)
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	r := open(t, f.names, Options{})
	f.set(times(always, "GET manifest", status(429, "Retry-After", "100")))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := r.Resolve(ctx, "v1"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > 5*time.Second {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
}

// A registry that says of a blob that it is unknown may have lost it, or only be slow.
func TestManifestBlobUnknown(t *testing.T) {
	t.Parallel()
	content := noise(1, 100<<10)
	layer := describe(blobType, content)
	refuse := func(status int, code, detail string) fault {
		return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"blob unknown to registry","detail":%s}]}`, code, detail)
			return true
		}
	}
	lost := func(w http.ResponseWriter, r *http.Request, h http.Handler) bool { // HEAD does not find the layer
		if strings.HasSuffix(r.URL.Path, string(layer.Digest)) && r.Method == http.MethodHead {
			w.WriteHeader(404)
			return true
		}
		return false
	}
	for _, c := range []struct {
		name  string
		fault fault
		ok    bool
		puts  int
		want  []digest.Digest // that have to be pushed again
	}{
		{"400 once", times(1, "PUT manifest", refuse(400, "BLOB_UNKNOWN", "null")), true, 2, nil},
		{"404 once", times(1, "PUT manifest", refuse(404, "MANIFEST_BLOB_UNKNOWN", "null")), true, 2, nil},
		{"404 three times, with the digest of what is there", times(3, "PUT manifest", refuse(404, "MANIFEST_BLOB_UNKNOWN", `{"digest":"`+string(layer.Digest)+`"}`)), true, 4, nil},
		{"404, and HEAD does not find a layer", func() fault {
			refused := times(1, "PUT manifest", refuse(404, "MANIFEST_BLOB_UNKNOWN", "null"))
			return func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
				return refused(w, r, h) || lost(w, r, h)
			}
		}(), false, 1, []digest.Digest{layer.Digest}},
		{"404 for ever", times(always, "PUT manifest", refuse(404, "BLOB_UNKNOWN", "null")), false, 6, nil},
		{"400 for ever, by name", times(always, "PUT manifest", refuse(400, "BLOB_UNKNOWN", `["`+string(layer.Digest)+`","`+testDigest+`"]`)), false, 6, []digest.Digest{layer.Digest}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			r := open(t, f.names, Options{Backoff: time.Millisecond})
			config := pushBytes(t, r, ocispec.MediaTypeEmptyJSON, []byte("{}"))
			pushBytes(t, r, blobType, content)
			b, err := json.Marshal(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{layer}})
			if err != nil {
				t.Fatal(err)
			}
			f.set(c.fault)
			err = r.Push(t.Context(), describe(ocispec.MediaTypeImageManifest, b), bytes.NewReader(b))
			unknown, isUnknown := errors.AsType[*registry.BlobUnknownError](err)
			if c.ok != (err == nil) || !c.ok && (!isUnknown || !slices.Equal(unknown.Digests, c.want)) {
				t.Errorf("got %v (%+v), want %v", err, unknown, c.want)
			}
			if errors.Is(err, ErrNotFound) {
				t.Errorf("%v is taken for something that was looked for", err)
			}
			if got := f.counted("PUT manifest"); got != c.puts {
				t.Errorf("put %d times, want %d", got, c.puts)
			}
			if len(c.want) == 0 || c.puts == 1 {
				return
			}
			// What the registry says by name is believed more than what it says when asked: it is sent, though HEAD finds it.
			f.set(nil)
			for range 2 {
				if err := r.PushBlob(t.Context(), layer, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }); err != nil {
					t.Error(err)
				}
			}
			if got := f.counted("PUT upload"); got != 1 {
				t.Errorf("sent %d times, want once", got)
			}
		})
	}
}
