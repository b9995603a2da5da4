package remote_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/davit-oci/davit/registry"
)

// challenging is a registry that asks for credentials as it likes, and takes alice's or a token of its service.
func challenging(t *testing.T, service http.HandlerFunc, challenge func(url string) []string) (host string) {
	t.Helper()
	registry := newOlareg(t, true)
	var url string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, basic := r.BasicAuth()
		switch right := user == "alice" && password == "wonder:land"; {
		case r.URL.Path == "/token" && service != nil:
			service(w, r)
		case r.URL.Path == "/token" && right:
			fmt.Fprint(w, `{"token":"a-token"}`)
		case basic && right, r.Header.Get("Authorization") == "Bearer a-token":
			registry.ServeHTTP(w, r)
		default:
			w.Header()["Www-Authenticate"] = challenge(url)
			w.WriteHeader(401)
		}
	}))
	t.Cleanup(s.Close)
	url = s.URL
	return strings.TrimPrefix(url, "http://")
}

func TestLoginWithManyChallenges(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, fields string }{
		{"Negotiate, then Basic", "Negotiate\nBasic realm=\"x\""},
		{"Negotiate and Basic in one field", `Negotiate, Basic realm="x"`},
		{"Negotiate, then Bearer", "Negotiate\nBearer realm=\"URL/token\",service=\"a\""},
		{"everything in one field", `Negotiate, NTLM, Digest realm="a, b", nonce=x, Bearer Realm="URL/token",Service="a", Basic realm="x"`},
		{"names in capitals", `BEARER REALM="URL/token", SERVICE="a"`},
		{"a realm that is relative", `Bearer realm="/token"`},
		{"a realm without quotes", `Bearer realm=URL/token,service=a`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			host := challenging(t, nil, func(url string) []string { return strings.Split(strings.ReplaceAll(c.fields, "URL", url), "\n") })
			file := filepath.Join(t.TempDir(), "auth.json")
			if err := registry.Login(t.Context(), host, "alice", "wrong", Options{AuthFile: file}); !errors.Is(err, ErrUnauthorized) {
				t.Errorf("a wrong password: got %v", err)
			}
			if err := registry.Login(t.Context(), host, "alice", "wonder:land", Options{AuthFile: file}); err != nil {
				t.Error(err)
			}
			r := open(t, host+"/test", Options{AuthFile: file})
			desc, _ := artifact(t, r, nil, "application/x-test", noise(1, 2<<20))
			if err := r.Tag(t.Context(), desc, "v1"); err != nil {
				t.Error(err)
			}
		})
	}
}

// A way to log in that is not known is named: logging in does not help.
func TestUnknownSchemes(t *testing.T) {
	t.Parallel()
	for fields, want := range map[string]string{
		"Negotiate": "offers to log in by negotiate only",
		"Negotiate abc==\nNTLM\nDigest realm=\"x, y\"": "offers to log in by negotiate, ntlm, digest only",
		"": "",
	} {
		host := challenging(t, nil, func(string) []string { return strings.Split(fields, "\n") })
		_, err := open(t, host+"/test", Options{AuthFile: authFileWith(t, host, "alice", "wonder:land")}).Resolve(t.Context(), "v1")
		_, unknown := errors.AsType[*registry.SchemeError](err)
		if !errors.Is(err, ErrUnauthorized) || unknown != (want != "") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", fields, err, want)
		}
		if err := registry.Login(t.Context(), host, "alice", "wonder:land", Options{AuthFile: filepath.Join(t.TempDir(), "auth.json")}); !strings.Contains(err.Error(), want) {
			t.Errorf("%q: login: %v, want %q", fields, err, want)
		}
	}
}

// The token service is tried again like the registry, at the start and in the middle of a transfer.
func TestTokenServiceIsTriedAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		answer func(n int64, w http.ResponseWriter) bool // to the n-th request; false: a token
		ok     bool
		asked  int64 // 0: do not count
		err    error
	}{
		{"503 twice", func(n int64, w http.ResponseWriter) bool { return n <= 2 && fails(w, 503) }, true, 0, nil},
		{"500 once", func(n int64, w http.ResponseWriter) bool { return n <= 1 && fails(w, 500) }, true, 0, nil},
		{"429 with Retry-After", func(n int64, w http.ResponseWriter) bool {
			w.Header().Set("Retry-After", "0")
			return n <= 2 && fails(w, 429)
		}, true, 0, nil},
		{"a lost connection", func(n int64, w http.ResponseWriter) bool {
			if n <= 1 {
				panic(http.ErrAbortHandler)
			}
			return false
		}, true, 0, nil},
		{"each second time, all along", func(n int64, w http.ResponseWriter) bool { return n%2 == 0 && fails(w, 503) }, true, 0, nil},
		{"a page of a proxy, once", func(n int64, w http.ResponseWriter) bool {
			if n == 1 {
				fmt.Fprint(w, "<html><body>Busy</body></html>")
			}
			return n == 1
		}, true, 0, nil},
		{"no token, twice", func(n int64, w http.ResponseWriter) bool {
			if n <= 2 {
				fmt.Fprint(w, "{}")
			}
			return n <= 2
		}, true, 0, nil},
		{"no token for ever", func(n int64, w http.ResponseWriter) bool { fmt.Fprint(w, "{}"); return true }, false, 6, nil},
		{"503 for ever", func(n int64, w http.ResponseWriter) bool { return fails(w, 503) }, false, 6, nil},
		{"asked to wait for a day", func(n int64, w http.ResponseWriter) bool {
			w.Header().Set("Retry-After", "86400")
			return fails(w, 503)
		}, false, 1, nil},
		{"401", func(n int64, w http.ResponseWriter) bool { return fails(w, 401) }, false, 1, ErrUnauthorized},
		{"403", func(n int64, w http.ResponseWriter) bool { return fails(w, 403) }, false, 1, ErrUnauthorized},
		{"404 is not that of a tag", func(n int64, w http.ResponseWriter) bool { return fails(w, 404) }, false, 1, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var asked, uses atomic.Int64
			stored := newOlareg(t, true)
			var url string
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/token":
					if n := asked.Add(1); !c.answer(n, w) {
						uses.Store(3)
						fmt.Fprint(w, `{"token":"a-token"}`)
					}
				case r.Header.Get("Authorization") == "Bearer a-token" && uses.Add(-1) >= 0:
					stored.ServeHTTP(w, r)
				default:
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token"`, url))
					w.WriteHeader(401)
				}
			}))
			t.Cleanup(s.Close)
			url = s.URL
			r := open(t, strings.TrimPrefix(url, "http://")+"/test", Options{AuthFile: authFileWith(t, strings.TrimPrefix(url, "http://"), "alice", "hunter2-hunter2"), Backoff: time.Millisecond})
			if !c.ok {
				_, err := r.Resolve(t.Context(), "v1")
				if err == nil || errors.Is(err, ErrNotFound) || errors.Is(err, ErrUnauthorized) != (c.err != nil) || asked.Load() != c.asked {
					t.Errorf("got %v after %d requests, want %d", err, asked.Load(), c.asked)
				}
				if err := registry.Login(t.Context(), strings.TrimPrefix(url, "http://"), "alice", "hunter2-hunter2", Options{AuthFile: writeTemp(t, "{}"), Retries: -1}); err == nil {
					t.Error("a login that nobody has checked")
				}
				checkNoSecrets(t, err)
				return
			}
			desc, _ := artifact(t, r, nil, "application/x-test", noise(1, 2<<20), noise(2, 2<<20), noise(3, 100))
			if err := r.Tag(t.Context(), desc, "v1"); err != nil {
				t.Error(err)
			}
			if asked.Load() < 4 {
				t.Errorf("%d tokens: none was asked for in the middle", asked.Load())
			}
		})
	}
}

func fails(w http.ResponseWriter, status int) bool {
	http.Error(w, "busy", status)
	return true
}

// Without credentials the answer of a token service that wants some says so.
func TestNoCredentialsForTokens(t *testing.T) {
	t.Parallel()
	host := challenging(t, func(w http.ResponseWriter, _ *http.Request) { fails(w, 401) },
		func(url string) []string { return []string{`Bearer realm="` + url + `/token"`} })
	_, err := open(t, host+"/test", Options{}).Resolve(t.Context(), "v1")
	if !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "no credentials for "+host) {
		t.Errorf("got %v", err)
	}
}
