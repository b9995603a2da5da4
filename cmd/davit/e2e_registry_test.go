package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// newMoody is a registry before which somebody answers some requests in its place, and says whether he did.
func newMoody(t *testing.T, to server, answers func(w http.ResponseWriter, r *http.Request) bool) (host string) {
	t.Helper()
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: to.host})
		r.Out.Host = r.In.Host
	}}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !answers(w, r) {
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// What a registry has lost is sent again, and what it only says it has lost is not.
func TestE2EBlobUnknown(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	disk := writeFileAt(t, h.path("disk.raw"), 4<<20, map[int64][]byte{0: fill(1, 400_000), 2 << 20: prose(2, 300_000)})
	isPut := func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/")
	}
	refuse := func(w http.ResponseWriter, r *http.Request, status int) bool {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}`)
		return true
	}
	pulls := func(t *testing.T, ref string) {
		h := host{t, h.dir, h.exe, h.env}
		out := filepath.Join(t.TempDir(), "out.raw")
		h.ok("pull", "--cache", "none", "--unverified", ref, out)
		if fileDigest(t, out) != fileDigest(t, disk) {
			t.Error("another disk came back")
		}
	}

	t.Run("slow storage", func(t *testing.T) {
		var puts, uploads atomic.Int64
		at := newMoody(t, newOlareg(t), func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				uploads.Add(1)
			}
			return isPut(r) && puts.Add(1) == 1 && refuse(w, r, 404)
		})
		h := host{t, h.dir, h.exe, h.env}
		r := h.run("push", "--cache", "none", disk, at+"/vm:v1")
		if r.code != 0 || strings.Contains(r.stderr, "sent again") {
			t.Fatalf("exit code %d: %s", r.code, r.stderr)
		}
		sent := uploads.Load()
		pulls(t, at+"/vm:v1")
		puts.Store(0)
		if r := h.run("push", "--cache", "none", disk, at+"/vm:v1"); r.code != 0 || uploads.Load() != sent {
			t.Errorf("exit code %d, %d more uploads: %s", r.code, uploads.Load()-sent, r.stderr)
		}
	})

	t.Run("lost layers", func(t *testing.T) {
		to := newOlareg(t)
		var puts atomic.Int64
		at := newMoody(t, to, func(w http.ResponseWriter, r *http.Request) bool {
			if !isPut(r) || puts.Add(1) != 1 {
				return false
			}
			blobs, err := filepath.Glob(filepath.Join(to.dir, "vm", "blobs", "sha256", "*"))
			if err != nil || len(blobs) == 0 {
				t.Errorf("%d blobs, %v", len(blobs), err)
			}
			for _, blob := range blobs {
				if err := os.Remove(blob); err != nil {
					t.Error(err)
				}
			}
			return refuse(w, r, 400)
		})
		h := host{t, h.dir, h.exe, h.env}
		r := h.run("push", "--cache", "none", disk, at+"/vm:v1")
		if r.code != 0 || !strings.Contains(r.stderr, "the registry has lost blobs of "+at+"/vm; they are sent again") {
			t.Fatalf("exit code %d: %s", r.code, r.stderr)
		}
		pulls(t, at+"/vm:v1")
	})

	t.Run("for ever", func(t *testing.T) {
		at := newMoody(t, newOlareg(t), func(w http.ResponseWriter, r *http.Request) bool { return isPut(r) && refuse(w, r, 404) })
		h := host{t, h.dir, h.exe, h.env}
		r := h.run("push", "--cache", "none", disk, at+"/vm:v1")
		if r.code != exitFailed || strings.Contains(r.stderr, "sent again") || !strings.Contains(r.stderr, "MANIFEST_BLOB_UNKNOWN") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	})
}

// A token service of another domain gets credentials where the configuration says so.
func TestE2EForeignTokenService(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	service := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		fmt.Fprint(w, `{"token":"a-token"}`)
	})}
	at := outside(t, service)
	host := newMoody(t, newOlareg(t), func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer a-token" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+at+`/token"`)
		w.WriteHeader(401)
		return true
	})
	h := newHost(t)
	write := func(name, content string) {
		if err := os.WriteFile(h.path(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("auth.json", fmt.Sprintf(`{"auths":{%q:{"auth":"YWxpY2U6aHVudGVyMg=="}}}`, host)) // alice:hunter2
	write("config.yaml", fmt.Sprintf("registries:\n  %q:\n    tokenServices: [%q]\n", host, at))
	for _, args := range [][]string{
		{"ls", "--auth-file", "auth.json", host + "/vm"},
		{"push", "--cache", "none", "--auth-file", "auth.json", "auth.json", host + "/vm:v1"},
	} {
		r := h.run(args...)
		if r.code != exitFailed || asked.Load() != 0 || !strings.Contains(r.stderr, "credentials are not sent there") ||
			!strings.Contains(r.stderr, fmt.Sprintf("registries: {%q: {tokenServices: [%q]}}", host, at)) {
			t.Errorf("%q: exit code %d, asked %d times: %s", args, r.code, asked.Load(), r.stderr)
		}
	}
	h.ok("push", "--cache", "none", "--config", "config.yaml", "--auth-file", "auth.json", "-f", "raw", "auth.json", host+"/vm:v1")
	if asked.Load() == 0 {
		t.Error("the token service was not asked")
	}
}

// A registry that offers only ways to log in that davit does not know is said to do so, and nobody is told to log in.
func TestE2EUnknownSchemes(t *testing.T) {
	t.Parallel()
	host := newMoody(t, newOlareg(t), func(w http.ResponseWriter, r *http.Request) bool {
		w.Header()["Www-Authenticate"] = []string{"Negotiate", "NTLM"}
		w.WriteHeader(401)
		return true
	})
	r := newHost(t).run("ls", host+"/vm")
	if r.code != exitFailed || !strings.Contains(r.stderr, host+" offers to log in by negotiate, ntlm only") || strings.Contains(r.stderr, "hint:") {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
}

// outside serves at an address of this machine that is not on loopback.
func outside(t *testing.T, s *http.Server) (host string) {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		ip, ok := a.(*net.IPNet)
		if !ok || !ip.IP.IsGlobalUnicast() {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort(ip.IP.String(), "0"))
		if err != nil {
			continue
		}
		go s.Serve(l)
		t.Cleanup(func() { s.Close() })
		return l.Addr().String()
	}
	t.Skip("this machine has no address but loopback: a network interface would run this")
	return ""
}

// A registry that sends back what it was sent does not get it printed, in whatever form.
func TestE2EEchoedPassword(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const user, password = "robot", "Sw0rd&Fish9"
	login := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	forms := []string{login, strings.TrimRight(login, "="), login[:14], base64.URLEncoding.EncodeToString([]byte(password)), hex.EncodeToString([]byte(password)),
		password, url.QueryEscape(password), strings.ToUpper(password[:8])}
	at := newMoody(t, server{}, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":%q}]}`, "no entry for <"+strings.Join(forms, "> <")+">")
		return true
	})
	h.env = append(h.env, "DOCKER_CONFIG="+h.dir)
	if err := os.WriteFile(h.path("config.json"), fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, at, login), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ls", at + "/vm"}, {"inspect", at + "/vm:v1"}, {"verify", "--json", "--key", "x.pub", at + "/vm:v1"}} {
		r := h.run(args...)
		if r.code == 0 || args[0] != "verify" && !strings.Contains(r.stderr, "no entry for <(not shown)") {
			t.Errorf("%q: exit code %d\n%s", args, r.code, r.stderr)
		}
		for _, form := range forms {
			if strings.Contains(r.stdout+r.stderr, form) {
				t.Errorf("%q: %s is shown\n%s%s", args, form, r.stdout, r.stderr)
			}
		}
	}
}
