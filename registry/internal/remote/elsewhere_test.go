package remote_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/registry/internal/remote"
)

// A victim is somebody on this machine whom nobody but this machine should reach.
type victim struct {
	*httptest.Server
	asked atomic.Int64
}

func newVictim(t *testing.T, start func(http.Handler) *httptest.Server) *victim {
	v := new(victim)
	v.Server = start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v.asked.Add(1)
		w.Header().Set("Docker-Content-Digest", testDigest)
		w.WriteHeader(http.StatusCreated)
	}))
	t.Cleanup(v.Close)
	return v
}

func (v *victim) port() string {
	_, port, _ := net.SplitHostPort(v.Listener.Addr().String())
	return port
}

// outside is a server at an address of this machine that is not on loopback.
func outside(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil || !prefix.Addr().IsGlobalUnicast() {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort(prefix.Addr().String(), "0"))
		if err != nil {
			continue
		}
		s := httptest.NewUnstartedServer(h)
		s.Listener.Close()
		s.Listener = l
		s.Start()
		t.Cleanup(s.Close)
		return s
	}
	t.Skip("this machine has no address but loopback: a network interface would run this")
	return nil
}

// leading is a registry that leads to a place in one of the ways in which a registry can.
func leading(way, place string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		switch {
		case way == "realm":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+place+`/token"`)
			w.WriteHeader(401)
		case r.Method == http.MethodHead && way != "redirect":
			w.WriteHeader(404)
		case way == "redirect":
			http.Redirect(w, r, place+"/secret", 307)
		case way == "upload" && r.Method == http.MethodPost, way == "PATCH" && r.Method == http.MethodPatch:
			w.Header().Set("Location", place+"/upload?state=1")
			w.WriteHeader(202)
		case way == "PATCH" && r.Method == http.MethodPost, way == "upload of PUT" && r.Method == http.MethodPost:
			w.Header().Set("Location", "/v2/test/blobs/uploads/1")
			w.WriteHeader(202)
		case way == "PATCH" && r.Method == http.MethodPut:
			w.WriteHeader(413)
		case way == "upload of PUT" && r.Method == http.MethodPut:
			http.Redirect(w, r, place+"/upload", 307)
		default:
			w.WriteHeader(200)
		}
	}
}

// try reads and writes all that leads somewhere. It returns the errors.
func try(t *testing.T, r *Repository) (errs []error) {
	content := noise(1, 2<<20)
	desc := describe(blobType, content)
	_, err := fetchRange(t, r, desc, 0, 10)
	errs = append(errs, err)
	errs = append(errs, r.Push(t.Context(), desc, bytes.NewReader(content)))
	_, err = r.Mount(t.Context(), desc, "other")
	errs = append(errs, err)
	_, err = r.Resolve(t.Context(), "v1")
	return append(errs, err)
}

// Whoever answers for a registry cannot make us ask others in its place: nobody who is not meant gets a single request.
func TestNobodyElseIsAsked(t *testing.T) {
	t.Parallel()
	plain, secure := httptest.NewServer, httptest.NewTLSServer
	out := func(h http.Handler) *httptest.Server { return outside(t, h) }
	for _, c := range []struct {
		name     string
		registry func(http.Handler) *httptest.Server
		victim   func(http.Handler) *httptest.Server
		place    string // PORT is the victim's
		ways     []string
		why      string
	}{
		{"https to http", secure, plain, "http://127.0.0.1:PORT", []string{"realm", "redirect", "upload", "PATCH", "upload of PUT"}, "from https to http"},
		{"https to http, with a user", secure, plain, "http://a:b@127.0.0.1:PORT", []string{"redirect", "upload"}, "from https to http"},
		{"an upload elsewhere", plain, plain, "http://127.0.0.1:PORT", []string{"upload", "PATCH", "upload of PUT"}, "an upload stays"},
		{"an upload to another name of the host", plain, plain, "http://localhost:PORT", []string{"upload", "PATCH", "upload of PUT"}, "an upload stays"},
		{"no http at all", plain, plain, "gopher://127.0.0.1:PORT", []string{"redirect", "upload"}, ""},
		{"loopback", out, plain, "http://127.0.0.1:PORT", []string{"realm", "redirect"}, "127.0.0.1"},
		{"loopback by name", out, plain, "http://localhost:PORT", []string{"realm", "redirect"}, ""},
		{"loopback as IPv6", out, plain, "http://[::ffff:127.0.0.1]:PORT", []string{"redirect"}, "127.0.0.1"},
		{"this host on this network", out, plain, "http://0.0.0.0:PORT", []string{"redirect"}, "0.0.0.0"},
		{"loopback in an odd form", out, plain, "http://127.1:PORT", []string{"redirect"}, "usual form"},
		{"loopback as a number", out, plain, "http://2130706433:PORT", []string{"redirect"}, "usual form"},
		{"loopback, with TLS", out, secure, "https://127.0.0.1:PORT", []string{"realm", "redirect", "upload", "PATCH", "upload of PUT"}, "127.0.0.1"},
		{"loopback by name, with TLS", out, secure, "https://localhost:PORT", []string{"realm", "redirect", "upload", "PATCH", "upload of PUT"}, ""},
		{"metadata", plain, plain, "http://169.254.169.254", []string{"redirect"}, "metadata"},
		{"metadata, for an upload", out, plain, "https://169.254.169.254", []string{"upload", "realm"}, "metadata"},
	} {
		for _, way := range c.ways {
			t.Run(c.name+", by "+way, func(t *testing.T) {
				t.Parallel()
				v := newVictim(t, c.victim)
				place := strings.ReplaceAll(c.place, "PORT", v.port())
				s := c.registry(leading(way, place))
				t.Cleanup(s.Close)
				home, err := url.Parse(s.URL)
				if err != nil {
					t.Fatal(err)
				}
				o := Options{Insecure: []string{"*"}, Retries: 1, AuthFile: authFileWith(t, home.Host, "alice", "hunter2-hunter2")}
				if home.Scheme == "http" {
					o.PlainHTTP = []string{home.Host}
				}
				for _, anonymous := range []bool{false, true} {
					if anonymous {
						o.AuthFile = writeTemp(t, "{}")
					}
					told := false
					for _, err := range try(t, open(t, home.Host+"/test", o)) {
						checkNoSecrets(t, err)
						_, foreign := errors.AsType[*registry.TokenServiceError](err)
						told = told || foreign || err != nil && strings.Contains(err.Error(), c.why)
					}
					if !told {
						t.Errorf("no error says why: %q", c.why)
					}
				}
				if n := v.asked.Load(); n > 0 {
					t.Errorf("the victim was asked %d times", n)
				}
			})
		}
	}
}

// What a registry legitimately leads to is followed.
func TestElsewhereIsFollowed(t *testing.T) {
	t.Parallel()
	content := noise(1, 1<<20)
	desc := describe(blobType, content)
	storage := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Referer") != "" {
			t.Errorf("storage got %v", r.Header)
		}
		if r.Method == http.MethodPut {
			if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, content) {
				t.Errorf("storage got %d bytes, %v", len(got), err)
			}
			w.WriteHeader(201)
			return
		}
		_, _ = w.Write(content)
	})
	for _, c := range []struct {
		name              string
		registry, storage func(*testing.T, http.Handler) *httptest.Server
		way               string
	}{
		{"loopback to loopback", plainServer, plainServer, "redirect"},
		{"loopback to TLS on loopback", plainServer, tlsServer, "redirect"},
		{"loopback to elsewhere", plainServer, outside, "redirect"},
		{"elsewhere to elsewhere", outside, outside, "redirect"},
		{"TLS to TLS", tlsServer, tlsServer, "redirect"},
		{"TLS to TLS, an upload", tlsServer, tlsServer, "upload"},
		{"plain to TLS, an upload", plainServer, tlsServer, "upload"},
		{"TLS to TLS, a redirected upload", tlsServer, tlsServer, "upload of PUT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			to := c.storage(t, storage)
			s := c.registry(t, leading(c.way, strings.Replace(to.URL, "://", "://user:pw@", 1)))
			home, err := url.Parse(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			o := Options{Insecure: []string{"*"}, Retries: -1}
			if home.Scheme == "http" {
				o.PlainHTTP = []string{home.Host}
			}
			r := open(t, home.Host+"/test", o)
			if c.way == "redirect" {
				if got, err := fetchRange(t, r, desc, 0, desc.Size); err != nil || !bytes.Equal(got, content) {
					t.Errorf("got %d bytes, %v", len(got), err)
				}
			} else if err := r.Push(t.Context(), desc, bytes.NewReader(content)); err != nil {
				t.Error(err)
			}
		})
	}
}

func plainServer(t *testing.T, h http.Handler) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func tlsServer(t *testing.T, h http.Handler) *httptest.Server {
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	return s
}

// A registry behind a proxy that ends TLS names itself by http, and is meant by https.
func TestHTTPNameOfAnHTTPSRegistry(t *testing.T) {
	t.Parallel()
	registry := newOlareg(t, true)
	s := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			fmt.Fprint(w, `{"token":"a-token"}`)
		case r.Header.Get("Authorization") != "Bearer a-token":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, r.Host))
			w.WriteHeader(401)
		case kind(r) == "POST upload":
			rewrite(func(rec *httptest.ResponseRecorder) {
				u, err := url.Parse(rec.Header().Get("Location"))
				if err != nil {
					panic(err)
				}
				rec.Header().Set("Location", "http://"+r.Host+u.RequestURI())
			})(w, r, registry)
		case r.Method == http.MethodGet && !r.URL.Query().Has("again"):
			http.Redirect(w, r, "http://"+r.Host+r.URL.Path+"?again=1", 307)
		default:
			registry.ServeHTTP(w, r)
		}
	}))
	host := strings.TrimPrefix(s.URL, "https://")
	r := open(t, host+"/test", Options{Insecure: []string{host}, AuthFile: authFileWith(t, host, "alice", "hunter2-hunter2")})
	content := noise(1, 2<<20)
	if err := r.Push(t.Context(), describe(blobType, content), bytes.NewReader(content)); err != nil {
		t.Error(err)
	}
	if _, err := r.Resolve(t.Context(), "v1"); !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrUnauthorized) { // a redirect has no Authorization
		t.Error(err)
	}
}

// Credentials go to the registry and to whom the configuration names.
func TestForeignTokenService(t *testing.T) {
	t.Parallel()
	var got atomic.Pointer[http.Header]
	var asked atomic.Int64
	service := func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		got.Store(&r.Header)
		fmt.Fprint(w, `{"token":"a-token"}`)
	}
	foreign := outside(t, http.HandlerFunc(service))
	stored := newOlareg(t, true)
	s := plainServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer a-token" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+foreign.URL+`/token"`)
			w.WriteHeader(401)
			return
		}
		stored.ServeHTTP(w, r)
	}))
	host := strings.TrimPrefix(s.URL, "http://")
	at := strings.TrimPrefix(foreign.URL, "http://")
	for _, file := range []string{
		authFileWith(t, host, "alice", "hunter2-hunter2"),
		writeTemp(t, fmt.Sprintf(`{"auths":{%q:{"auth":"eDp5","identitytoken":"hunter2"}}}`, host)),
	} {
		_, err := open(t, host+"/test", Options{AuthFile: file}).Resolve(t.Context(), "v1")
		e, ok := errors.AsType[*registry.TokenServiceError](err)
		if !ok || e.Registry != host || e.Service != at || errors.Is(err, ErrUnauthorized) || asked.Load() != 0 {
			t.Errorf("got %v, asked %d times", err, asked.Load())
		}
		checkNoSecrets(t, err)
	}
	if err := registry.Login(t.Context(), host, "alice", "hunter2-hunter2", Options{AuthFile: writeTemp(t, "{}")}); err == nil || asked.Load() != 0 {
		t.Errorf("login: %v, asked %d times", err, asked.Load())
	}
	// Nothing secret goes there without credentials, but http is no way to get a token from elsewhere.
	if _, err := open(t, host+"/test", Options{}).Resolve(t.Context(), "v1"); err == nil || !strings.Contains(err.Error(), "has to have https") || asked.Load() != 0 {
		t.Errorf("without credentials: %v, asked %d times", err, asked.Load())
	}
	o := Options{AuthFile: authFileWith(t, host, "alice", "hunter2-hunter2"), Hosts: map[string]HostOptions{host: {TokenServices: []string{at}}}}
	if r, err := Open(t.Context(), Reference{Host: host, Repository: "test"}, Options{Hosts: map[string]HostOptions{host: {TokenServices: []string{foreign.URL}}}}); !errors.Is(err, ErrMalformedReference) {
		r.Close()
		t.Errorf("a URL for a host: %v", err)
	}
	if _, err := open(t, host+"/test", o).Resolve(t.Context(), "v1"); !errors.Is(err, ErrNotFound) || !strings.HasPrefix(got.Load().Get("Authorization"), "Basic ") {
		t.Errorf("as configured: %v", err)
	}
}

// A foreign host that asks for credentials is not answered, neither with some nor without.
func TestOthersDoNotAsk(t *testing.T) {
	t.Parallel()
	v := newVictim(t, httptest.NewServer)
	for _, challenge := range []string{`Basic realm="x"`, `Bearer realm="` + v.URL + `/token"`} {
		storage := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(401)
		}))
		for _, way := range []string{"redirect", "upload"} {
			s := plainServer(t, leading(way, storage.URL))
			host := strings.TrimPrefix(s.URL, "http://")
			for _, err := range try(t, open(t, host+"/test", Options{Insecure: []string{"*"}, AuthFile: authFileWith(t, host, "alice", "hunter2-hunter2")}))[:1] {
				if way == "redirect" && !errors.Is(err, ErrUnauthorized) {
					t.Errorf("%s, %s: got %v", challenge, way, err)
				}
			}
		}
	}
	if n := v.asked.Load(); n > 0 {
		t.Errorf("asked %d times", n)
	}
}

// A proxy connects in our place, and may itself be on this machine: that it is does not make the registry local.
func TestProxyIsNotSentElsewhere(t *testing.T) {
	t.Parallel()
	v := newVictim(t, httptest.NewServer)
	for place, why := range map[string]string{
		v.URL:                                   "on this machine",
		"http://localhost:" + v.port():          "",
		"http://LOCALHOST.:" + v.port():         "of this machine",
		"http://a.localhost:" + v.port():        "of this machine",
		"http://127.1:" + v.port():              "usual form",
		"http://169.254.169.254/latest":         "metadata",
		"http://metadata.google.internal/x":     "of its cloud",
		"http://[64:ff9b::a9fe:a9fe]/latest":    "metadata",
		"http://[::ffff:127.0.0.1]:" + v.port(): "on this machine",
	} {
		var asked []string
		proxy := plainServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.String())
			http.Redirect(w, r, place, 307)
		}))
		cmd := exec.CommandContext(t.Context(), os.Args[0], "registry.example/test:v1")
		cmd.Env = append(os.Environ(), "DAVIT_TEST_CHILD=resolve", "HTTP_PROXY="+proxy.URL, "NO_PROXY=")
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), why) || !slices.Equal(asked, []string{"http://registry.example/v2/test/manifests/v1"}) {
			t.Errorf("%s: got %q, %v; the proxy was asked for %q", place, out, err, asked)
		}
	}
	if n := v.asked.Load(); n > 0 {
		t.Errorf("the victim was asked %d times", n)
	}
}

func TestRedirectsEnd(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	s := plainServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, fmt.Sprintf("/v2/%d", n.Add(1)), 307)
	}))
	_, err := open(t, strings.TrimPrefix(s.URL, "http://")+"/test", Options{}).Resolve(t.Context(), "v1")
	if err == nil || n.Load() > remote.MaxRedirects+2 {
		t.Errorf("got %v after %d redirects", err, n.Load())
	}
}

// That a token service is at an address which no registry may lead to is the error, and not that nobody has configured it: a hint would
// advise to send it credentials.
func TestForeignTokenServiceAtMetadata(t *testing.T) {
	t.Parallel()
	s := plainServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://169.254.169.254/token"`)
		w.WriteHeader(401)
	}))
	host := strings.TrimPrefix(s.URL, "http://")
	_, err := open(t, host+"/test", Options{AuthFile: authFileWith(t, host, "alice", "hunter2-hunter2")}).Resolve(t.Context(), "v1")
	if foreign, ok := errors.AsType[*registry.TokenServiceError](err); ok || err == nil || !strings.Contains(err.Error(), "metadata address") {
		t.Errorf("got %v, %v", err, foreign)
	}
}

// A token service that leads to where nothing may go is asked once: each time it is sent the password.
func TestTokenServiceRedirect(t *testing.T) {
	t.Parallel()
	other := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"token":"a-token"}`) }))
	port := other.URL[strings.LastIndex(other.URL, ":"):]
	for _, c := range []struct {
		name, to string
		identity bool // sent by POST
		why      string
	}{
		{"to http", "http://registry.example/token", false, "nothing goes from https to http"},
		{"to no web address", "ftp://registry.example/token", false, "neither https nor http"},
		{"of a POST, to http", "http://registry.example/token", true, "nothing goes from https to http"},
		{"of a POST, to another origin", "https://127.0.0.1" + port + "/token", true, "is sent nowhere else"},
		{"to another origin", "https://127.0.0.1" + port + "/token", false, ""},
		{"to its own http name", "http://HOST/token?again=1", false, ""},
		{"of a POST, to its own http name", "http://HOST/token?again=1", true, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			s := tlsServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/token" && r.URL.Query().Has("again"):
					fmt.Fprint(w, `{"token":"a-token","access_token":"a-token"}`)
				case r.URL.Path == "/token":
					asked.Add(1)
					w.Header().Set("Location", strings.Replace(c.to, "HOST", r.Host, 1))
					w.WriteHeader(307)
				case r.Header.Get("Authorization") == "Bearer a-token":
					fmt.Fprint(w, `{"name":"test","tags":[]}`)
				default:
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="x"`, r.Host))
					w.WriteHeader(401)
				}
			}))
			host := strings.TrimPrefix(s.URL, "https://")
			file := authFileWith(t, host, "alice", "hunter2-hunter2")
			if c.identity {
				file = writeTemp(t, fmt.Sprintf(`{"auths":{%q:{"auth":"YWxpY2U6","identitytoken":"hunter2-hunter2"}}}`, host))
			}
			_, err := open(t, host+"/test", Options{Insecure: []string{"*"}, AuthFile: file, Retries: 3, Backoff: 1}).Tags(t.Context())
			switch {
			case c.why == "" && err != nil:
				t.Error(err)
			case c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why) || strings.Contains(err.Error(), "rejected")):
				t.Errorf("got %v, want %q", err, c.why)
			}
			checkNoSecrets(t, err)
			if n := asked.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}
