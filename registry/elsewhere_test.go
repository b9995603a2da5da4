package registry

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

	"github.com/davit-oci/davit/registry/internal/oci"
)

func TestUnreachable(t *testing.T) {
	client := func(host string) *client {
		c, err := newClient(host, nil, Options{}.withDefaults(), new(oci.Stats))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	far, near := client("registry.example"), client("localhost:5000")
	for addr, want := range map[string]string{ // who may not be sent there
		"127.0.0.1": "far", "127.255.3.4": "far", "::1": "far", "::ffff:127.0.0.1": "far", "::ffff:7f00:1": "far",
		"::127.0.0.1": "far", "64:ff9b::7f00:1": "far", "64:ff9b:1::7f00:1": "far", "2002:7f00:1::": "far", "::ffff:0:127.0.0.1": "far",
		"0.0.0.0": "both", "0.1.2.3": "both", "::": "both", "169.254.169.254": "both", "169.254.0.1": "both", "fe80::1": "both", "fe80::1%eth0": "both",
		"::ffff:169.254.169.254": "both", "64:ff9b::a9fe:a9fe": "both", "2002:a9fe:a9fe::1": "both", "::169.254.169.254": "both",
		"fd00:ec2::254": "both", "100.100.100.200": "both", "168.63.129.16": "both", "192.0.0.192": "both", "fd20:ce::254": "both",
		"224.0.0.1": "both", "239.255.255.250": "both", "ff02::1": "both", "ff05::2": "both", "255.255.255.255": "both",
		"10.0.0.1": "", "172.16.3.4": "", "192.168.1.1": "", "fd12:3456::1": "", "100.64.0.1": "", // where private registries keep their blobs
		"192.0.2.1": "", "8.8.8.8": "", "2001:db8::1": "", "64:ff9b::808:808": "", "2002:808:808::1": "", "::ffff:8.8.8.8": "", "128.0.0.1": "", "126.255.255.255": "",
	} {
		a := netip.MustParseAddr(addr)
		if got := far.unreachable(a); (got == "") != (want == "") {
			t.Errorf("%s: got %q for a registry elsewhere, want %q", addr, got, want)
		}
		if got := near.unreachable(a); (got == "") != (want != "both") {
			t.Errorf("%s: got %q for a registry on loopback, want %q", addr, got, want)
		}
	}
	// One answer from elsewhere is enough to be elsewhere.
	c := client("registry.example")
	c.onLoopback.Store(true)
	if !c.local() {
		t.Error("a name that is on loopback is not local")
	}
	c.offLoopback.Store(true)
	if c.local() {
		t.Error("a name that is here and there is local")
	}
}

func TestOwnTokenService(t *testing.T) {
	for _, c := range []struct {
		registry, service string
		own               bool
	}{
		{"docker.io", "https://auth.docker.io/token", true},
		{"ghcr.io", "https://ghcr.io/token", true},
		{"registry.gitlab.com", "https://gitlab.com/jwt/auth", true},
		{"registry.example.com:5050", "https://gitlab.example.com/jwt/auth", true},
		{"registry.cn-hangzhou.aliyuncs.com", "https://dockerauth.cn-hangzhou.aliyuncs.com/auth", true},
		{"rg.fr-par.scw.cloud", "https://api.scaleway.com/registry-internal/v1/token", true},
		{"a.b.corp", "https://auth.b.corp/", true},
		{"registry:5000", "https://registry:5001/token", true},
		{"192.0.2.1:5000", "http://192.0.2.1:5001/token", true},
		{"REGISTRY.example.com", "https://registry.EXAMPLE.com:444/token", true},
		{"localhost:5000", "http://127.0.0.1:5001/token", true},
		{"named.example", "https://auth.example.net/token", true},
		{"named.example", "https://auth.example.net:8443/token", true},
		{"named.example", "https://port.example.net:8443/token", true},

		{"named.example", "https://port.example.net/token", false},
		{"named.example", "https://xauth.example.net/token", false},
		{"ghcr.io", "https://evil.example/token", false},
		{"ghcr.io", "https://ghcr.io.evil.example/token", false},
		{"ghcr.io", "https://evil-ghcr.io/token", false},
		{"a.co.uk", "https://b.co.uk/token", false},
		{"a.github.io", "https://b.github.io/token", false},
		{"registry.corp", "https://gitlab.corp/token", false},
		{"registry:5000", "https://auth/token", false},
		{"192.0.2.1", "https://192.0.2.2/token", false},
		{"10.1.2.3", "https://9.1.2.3/token", false},
		{"registry.example.com", "http://127.0.0.1:5001/token", false},
		{"localhost:5000", "https://auth.example.com/token", false},
		{"scw.cloud", "https://evil.scaleway.com/token", false},
	} {
		o := Options{Hosts: map[string]HostOptions{"named.example": {TokenServices: []string{"auth.example.net", "port.example.net:8443"}}}}
		client, err := newClient(c.registry, nil, o.withDefaults(), new(oci.Stats))
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(c.service)
		if err != nil {
			t.Fatal(err)
		}
		if got := client.ownTokenService(u); got != c.own {
			t.Errorf("%s, %s: got %v", c.registry, c.service, got)
		}
	}
}

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
	plain := func(h http.Handler) *httptest.Server { return httptest.NewServer(h) }
	secure := func(h http.Handler) *httptest.Server { return httptest.NewTLSServer(h) }
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
						_, foreign := errors.AsType[*TokenServiceError](err)
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
	registry := newOlareg(t, true)
	s := plainServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer a-token" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+foreign.URL+`/token"`)
			w.WriteHeader(401)
			return
		}
		registry.ServeHTTP(w, r)
	}))
	host := strings.TrimPrefix(s.URL, "http://")
	at := strings.TrimPrefix(foreign.URL, "http://")
	for _, file := range []string{
		authFileWith(t, host, "alice", "hunter2-hunter2"),
		writeTemp(t, fmt.Sprintf(`{"auths":{%q:{"auth":"eDp5","identitytoken":"hunter2"}}}`, host)),
	} {
		_, err := open(t, host+"/test", Options{AuthFile: file}).Resolve(t.Context(), "v1")
		e, ok := errors.AsType[*TokenServiceError](err)
		if !ok || e.Registry != host || e.Service != at || errors.Is(err, ErrUnauthorized) || asked.Load() != 0 {
			t.Errorf("got %v, asked %d times", err, asked.Load())
		}
		checkNoSecrets(t, err)
	}
	if err := Login(t.Context(), host, "alice", "hunter2-hunter2", Options{AuthFile: writeTemp(t, "{}")}); err == nil || asked.Load() != 0 {
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
	v := newVictim(t, func(h http.Handler) *httptest.Server { return httptest.NewServer(h) })
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
	v := newVictim(t, func(h http.Handler) *httptest.Server { return httptest.NewServer(h) })
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
	if err == nil || n.Load() > maxRedirects+2 {
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
	if foreign, ok := errors.AsType[*TokenServiceError](err); ok || err == nil || !strings.Contains(err.Error(), "metadata address") {
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
			_, err := open(t, host+"/test", Options{Insecure: []string{"*"}, AuthFile: file, Retries: 3, backoff: 1}).Tags(t.Context())
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
