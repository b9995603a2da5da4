package remote_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/davit-oci/davit/registry"
)

// A tokenRegistry asks for bearer tokens of a service of its own, and takes each for a limited number of requests.
type tokenRegistry struct {
	host         string
	uses         int64 // of a token
	user, secret string
	refresh      string // an identity token that is also accepted

	mu     sync.Mutex
	left   map[string]int64
	scopes []string
	issued int
}

func newTokenRegistry(t *testing.T) *tokenRegistry {
	r := &tokenRegistry{uses: always, user: "alice", secret: "wonder:land", refresh: "identity", left: make(map[string]int64)}
	registry := newOlareg(t, true)
	service := httptest.NewServer(http.HandlerFunc(r.issue))
	t.Cleanup(service.Close)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		token := strings.TrimPrefix(req.Header.Get("Authorization"), "Bearer ")
		r.left[token]--
		ok := r.left[token] >= 0
		r.mu.Unlock()
		if !ok {
			// "localhost" is not the registry's own "127.0.0.1": a token service may be elsewhere.
			realm := strings.Replace(service.URL, "127.0.0.1", "localhost", 1)
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test"`, realm))
			w.WriteHeader(401)
			return
		}
		registry.ServeHTTP(w, req)
	}))
	t.Cleanup(s.Close)
	r.host = strings.TrimPrefix(s.URL, "http://")
	return r
}

func (r *tokenRegistry) issue(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	user, password, _ := req.BasicAuth()
	if !(user == r.user && password == r.secret) && !(req.Method == "POST" && req.FormValue("refresh_token") == r.refresh) {
		http.Error(w, "no", 401)
		return
	}
	r.issued++
	token := fmt.Sprintf("token-%d", r.issued)
	r.left[token] = r.uses
	r.scopes = append(r.scopes, req.Form["scope"]...)
	_ = json.NewEncoder(w).Encode(map[string]string{"token": token, "access_token": token})
}

// authFileWith writes an auth file with one user.
func authFileWith(t *testing.T, host, user, password string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "auth.json")
	content := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTokens(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		uses int64
		auth func(r *tokenRegistry) string
	}{
		{"password", always, func(r *tokenRegistry) string { return authFileWith(t, r.host, r.user, r.secret) }},
		{"identity token", always, func(r *tokenRegistry) string {
			path := filepath.Join(t.TempDir(), "auth.json")
			content := fmt.Sprintf(`{"auths":{%q:{"auth":%q,"identitytoken":"identity"}}}`, r.host, base64.StdEncoding.EncodeToString([]byte("x:")))
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}},
		{"tokens that last for one request", 1, func(r *tokenRegistry) string { return authFileWith(t, r.host, r.user, r.secret) }},
		{"tokens that last for three requests", 3, func(r *tokenRegistry) string { return authFileWith(t, r.host, r.user, r.secret) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTokenRegistry(t)
			tr.uses = c.uses
			r := open(t, tr.host+"/test", Options{AuthFile: c.auth(tr)})
			content := noise(1, 2<<20)
			desc, _ := artifact(t, r, nil, "application/x-test", content)
			if err := r.Tag(t.Context(), desc, "v1"); err != nil {
				t.Fatal(err)
			}
			rc, err := r.Fetch(t.Context(), describe(blobType, content))
			if got := readAll(t, rc, err); !bytes.Equal(got, content) {
				t.Errorf("got %d bytes", len(got))
			}
			if c.uses == always && tr.issued > 4 {
				t.Errorf("%d tokens for one repository: %q", tr.issued, tr.scopes)
			}
		})
	}
}

func TestRefusedCredentials(t *testing.T) {
	t.Parallel()
	tr := newTokenRegistry(t)
	for name, file := range map[string]string{
		"wrong password": authFileWith(t, tr.host, "alice", "hunter2-hunter2"),
		"none":           authFileWith(t, "other.example", "alice", "hunter2-hunter2"),
	} {
		r := open(t, tr.host+"/test", Options{AuthFile: file})
		_, err := r.Resolve(t.Context(), "v1")
		if !errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %v, want ErrUnauthorized", name, err)
		}
		checkNoSecrets(t, err)
	}
}

// checkNoSecrets fails if the text of an error has something of a password, a token or a URL's query.
func checkNoSecrets(t *testing.T, err error) {
	t.Helper()
	for _, secret := range []string{"hunter2", base64.StdEncoding.EncodeToString([]byte("alice:hunter2-hunter2"))[:12], "token-", "?", "scope=", "Signature"} {
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%q is in %q", secret, err)
		}
	}
}

// A redirect to another origin, even to another port of the same host, gets no Authorization.
func TestRedirectsLoseAuthorization(t *testing.T) {
	t.Parallel()
	content := noise(1, 1<<20)
	var leaked atomic.Bool
	fail := atomic.Int64{}
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" {
			leaked.Store(true)
		}
		if r.URL.Query().Get("Signature") != fmt.Sprint(fail.Load()) {
			http.Error(w, "expired: Signature=hunter2", 403)
			return
		}
		fail.Add(1) // good for one request
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(storage.Close)
	user, password := "alice", "hunter2-hunter2"
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(401)
			return
		}
		http.Redirect(w, r, fmt.Sprintf("%s/bucket?Signature=%d", storage.URL, fail.Load()), 307)
	}))
	t.Cleanup(registry.Close)
	host := strings.TrimPrefix(registry.URL, "http://")
	r := open(t, host+"/test", Options{AuthFile: authFileWith(t, host, user, password)})
	desc := describe(blobType, content)
	for range 3 {
		if got, err := fetchRange(t, r, desc, 1000, 2000); err != nil || !bytes.Equal(got, content[1000:3000]) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
	}
	if leaked.Load() {
		t.Error("Authorization went to another origin")
	}

	// Errors of the storage do not show what it was asked with.
	fail.Store(-1 << 40)
	storage.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, `{"errors":[{"code":"DENIED","message":"https://x.example/y?Signature=hunter2 Bearer hunter2hunter2"}]}`, 403)
	})
	_, err := fetchRange(t, r, desc, 0, 1)
	if !errors.Is(err, ErrUnauthorized) {
		t.Errorf("got %v, want ErrUnauthorized", err)
	}
	checkNoSecrets(t, err)
	storage.Close()
	_, err = fetchRange(t, open(t, host+"/test", Options{AuthFile: authFileWith(t, host, user, password), Retries: -1}), desc, 0, 1)
	if err == nil {
		t.Error("no error")
	}
	checkNoSecrets(t, err)
}

func TestUploadElsewhereHasNoAuthorization(t *testing.T) {
	t.Parallel()
	var leaked, got atomic.Bool
	var asks atomic.Bool
	storage := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked.Store(leaked.Load() || r.Header.Get("Authorization") != "")
		got.Store(true)
		if asks.Load() {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(401)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(201)
	}))
	t.Cleanup(storage.Close)
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(401)
			return
		}
		if r.Method == http.MethodHead {
			w.WriteHeader(404)
			return
		}
		w.Header().Set("Location", storage.URL+"/upload?Signature=x")
		w.WriteHeader(202)
	}))
	t.Cleanup(registry.Close)
	host := strings.TrimPrefix(registry.URL, "http://")
	r := open(t, host+"/test", Options{
		AuthFile: authFileWith(t, host, "alice", "hunter2-hunter2"),
		Insecure: []string{strings.TrimPrefix(storage.URL, "https://")},
	})
	content := noise(1, 2<<20)
	pushBytes(t, r, blobType, content)
	if leaked.Load() || !got.Load() {
		t.Errorf("leaked %v, got %v", leaked.Load(), got.Load())
	}
	asks.Store(true) // and it may ask as it likes
	if err := r.Push(t.Context(), describe(blobType, content), bytes.NewReader(content)); !errors.Is(err, ErrUnauthorized) || leaked.Load() {
		t.Errorf("asked by the other host: got %v, leaked %v", err, leaked.Load())
	}
}

// certificates are a CA and what it has signed for 127.0.0.1 and for a client, as PEM files.
type certificates struct {
	ca, client string
	server     tls.Certificate
	pool       *x509.CertPool
}

func newCertificates(t *testing.T) certificates {
	t.Helper()
	dir := t.TempDir()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	sign := func(template, parent *x509.Certificate, k, by *ecdsa.PrivateKey) []byte {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &k.PublicKey, by)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	write := func(name string, blocks ...*pem.Block) string {
		var b bytes.Buffer
		for _, block := range blocks {
			if err := pem.Encode(&b, block); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	caKey, serverKey, clientKey := key(), key(), key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER := sign(ca, ca, caKey, caKey)
	serverDER := sign(&x509.Certificate{SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, ca, serverKey, caKey)
	clientDER := sign(&x509.Certificate{SerialNumber: big.NewInt(3), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, ca, clientKey, caKey)
	clientPKCS8, err := x509.MarshalPKCS8PrivateKey(clientKey)
	if err != nil {
		t.Fatal(err)
	}
	c := certificates{
		ca:     write("ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: caDER}),
		client: write("client.pem", &pem.Block{Type: "CERTIFICATE", Bytes: clientDER}, &pem.Block{Type: "PRIVATE KEY", Bytes: clientPKCS8}),
		server: tls.Certificate{Certificate: [][]byte{serverDER}, PrivateKey: serverKey},
		pool:   x509.NewCertPool(),
	}
	parsed, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	c.pool.AddCert(parsed)
	return c
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certs := newCertificates(t)
	serve := func(auth tls.ClientAuthType, max uint16) string {
		s := httptest.NewUnstartedServer(newOlareg(t, true))
		s.TLS = &tls.Config{Certificates: []tls.Certificate{certs.server}, ClientAuth: auth, ClientCAs: certs.pool, MaxVersion: max}
		s.Config.ErrorLog = log.New(io.Discard, "", 0) //nolint:forbidigo // refused handshakes are what is tested
		s.StartTLS()
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "https://")
	}
	plain := serve(tls.NoClientCert, 0)
	mutual := serve(tls.RequireAndVerifyClientCert, 0)
	mutual12 := serve(tls.RequireAndVerifyClientCert, tls.VersionTLS12)
	for _, c := range []struct {
		name string
		host string
		o    Options
		ok   bool
	}{
		{"a certificate nobody knows", plain, Options{}, false},
		{"CA file", plain, Options{CAFile: certs.ca}, true},
		{"CA file of the host", plain, Options{Hosts: map[string]HostOptions{plain: {CAFile: certs.ca}}}, true},
		{"CA file of another host", plain, Options{Hosts: map[string]HostOptions{mutual: {CAFile: certs.ca}}}, false},
		{"not checked", plain, Options{Insecure: []string{plain}}, true},
		{"not checked anywhere", plain, Options{Insecure: []string{"*"}}, true},
		{"not checked elsewhere", plain, Options{Insecure: []string{mutual}}, false},
		{"host not checked", plain, Options{Hosts: map[string]HostOptions{plain: {Insecure: true}}}, true},
		{"client certificate", mutual, Options{CAFile: certs.ca, Hosts: map[string]HostOptions{mutual: {ClientCert: certs.client}}}, true},
		{"no client certificate", mutual, Options{CAFile: certs.ca}, false},
		{"client certificate, TLS 1.2", mutual12, Options{CAFile: certs.ca, Hosts: map[string]HostOptions{mutual12: {ClientCert: certs.client}}}, true},
		{"no client certificate, TLS 1.2", mutual12, Options{CAFile: certs.ca}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Retries = -1
			_, err := open(t, c.host+"/test", c.o).Resolve(t.Context(), "v1")
			// The registry has nothing: to be told so is to have reached it.
			if errors.Is(err, ErrNotFound) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
	for name, o := range map[string]Options{
		"no CA file":         {CAFile: filepath.Join(t.TempDir(), "missing.pem")},
		"CA file without CA": {CAFile: os.Args[0]},
	} {
		if r, err := Open(t.Context(), Reference{Host: "a.b", Repository: "test"}, o); err == nil {
			r.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

// TestProxy runs in a process of its own: net/http reads the environment once.
func TestProxy(t *testing.T) {
	t.Parallel()
	var asked atomic.Value
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.URL.String())
		w.WriteHeader(404)
	}))
	t.Cleanup(proxy.Close)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "registry.example/test:v1")
	cmd.Env = append(os.Environ(), "DAVIT_TEST_CHILD=resolve", "HTTP_PROXY="+proxy.URL, "NO_PROXY=")
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "not found" || asked.Load() != "http://registry.example/v2/test/manifests/v1" {
		t.Errorf("got %q, %v; the proxy was asked for %v", out, err, asked.Load())
	}
}

func TestLogin(t *testing.T) {
	for _, k := range []string{"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "HOME"} {
		t.Setenv(k, t.TempDir())
	}
	tr := newTokenRegistry(t)
	file := filepath.Join(os.Getenv("DOCKER_CONFIG"), "config.json")

	if err := registry.Login(t.Context(), tr.host, "alice", "wrong", Options{}); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("got %v, want ErrUnauthorized", err)
	}
	if _, err := os.Lstat(file); err == nil {
		t.Error("a refused login was stored")
	}

	// Whatever it is, nobody has looked for something that is not there.
	none := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(none.Close)
	err := registry.Login(t.Context(), strings.TrimPrefix(none.URL, "http://"), tr.user, tr.secret, Options{})
	if err == nil || errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "does not answer as a registry at /v2/") {
		t.Errorf("no registry: %v", err)
	}
	if _, err := os.Lstat(file); err == nil {
		t.Error("a login that nobody has checked was stored")
	}

	podman := filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "containers", "auth.json")
	if err := os.MkdirAll(filepath.Dir(podman), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, podman} {
		if path == podman {
			if err := os.WriteFile(path, []byte(`{"auths":{"x.example":{"auth":"eDp5","extra":1}},"HttpHeaders":{"A":"b"}}`), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := registry.Login(t.Context(), tr.host, tr.user, tr.secret, Options{}); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
		if _, err := open(t, tr.host+"/test", Options{}).Resolve(t.Context(), "v1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("after login: %v", err)
		}
	}
	b, err := os.ReadFile(podman)
	if err != nil || !strings.Contains(string(b), `"HttpHeaders"`) || !strings.Contains(string(b), `"extra"`) {
		t.Errorf("after login: %s, %v", b, err)
	}

	for range 2 { // it is in both files now
		if err := registry.Logout(t.Context(), tr.host, Options{}); err != nil {
			t.Error(err)
		}
	}
	if err := registry.Logout(t.Context(), tr.host, Options{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
	if b, err := os.ReadFile(podman); err != nil || strings.Contains(string(b), tr.host) || !strings.Contains(string(b), "x.example") {
		t.Errorf("after logout: %s, %v", b, err)
	}
	for _, host := range []string{"", "a b", "a/b", "https://a.b"} {
		if err := registry.Login(t.Context(), host, "a", "b", Options{}); !errors.Is(err, ErrMalformedReference) {
			t.Errorf("host %q: got %v", host, err)
		}
	}
}

// The first error that most users meet.
func TestNoCredentials(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(401)
	}))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	_, err := open(t, host+"/test", Options{}).Resolve(t.Context(), "v1")
	if !errors.Is(err, ErrUnauthorized) || !strings.HasSuffix(err.Error(), "unauthorized: no credentials for "+host) {
		t.Errorf("got %v", err)
	}
}

func writeTemp(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}
