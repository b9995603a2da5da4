package remote_test

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestMirrors(t *testing.T) {
	t.Parallel()
	content := noise(1, 1<<20)
	layer := describe(blobType, content)
	for _, c := range []struct {
		name   string
		fault  fault // of the mirror
		filled bool  // the mirror has what the registry has
		asked  int   // the registry for the blob
	}{
		{"the mirror has it", nil, true, 0},
		{"the mirror does not", nil, false, 1},
		{"the mirror is broken", status(503), true, 1},
		{"the mirror wants a password", status(401, "WWW-Authenticate", `Basic realm="x"`), true, 1},
		{"the mirror breaks in the middle", times(always, "GET blob", reset(100<<10)), true, 1},
		{"the mirror has another manifest", times(always, "GET manifest", rewrite(func(rec *httptest.ResponseRecorder) { rec.Body.Bytes()[3] ^= 1 })), true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			origin, mirror := newFaulty(t), newFaulty(t)
			first := open(t, origin.names, Options{})
			desc, manifest := artifact(t, first, nil, "application/x-test", content)
			if err := first.Tag(t.Context(), desc, "v1"); err != nil {
				t.Fatal(err)
			}
			if c.filled {
				artifact(t, open(t, mirror.host+"/cache/of/test", Options{}), nil, "application/x-test", content)
			}
			origin.set(nil)
			mirror.set(func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
				if r.Header.Get("Authorization") != "" || r.URL.Query().Get("ns") != origin.host {
					t.Errorf("%s asked of the mirror with %q", r.URL, r.Header.Get("Authorization"))
				}
				return c.fault != nil && c.fault(w, r, h)
			})
			r := open(t, origin.names, Options{
				AuthFile: authFileWith(t, origin.host, "alice", "secret"),
				Hosts:    map[string]HostOptions{origin.host: {Mirrors: []string{mirror.host + "/cache/of"}}},
			})
			if got, err := r.Resolve(t.Context(), "v1"); err != nil || got.Digest != desc.Digest || mirror.counted("GET manifest") != 0 {
				t.Errorf("Resolve = %v, %v", got, err)
			}
			mirrored := Options{Hosts: map[string]HostOptions{origin.host: {Mirrors: []string{mirror.host + "/cache/of"}}}}
			again := open(t, origin.names, mirrored)
			if got, err := again.Manifest(t.Context(), desc); err != nil || !bytes.Equal(got, manifest) {
				t.Errorf("Manifest: %v", err)
			}
			if got, err := open(t, origin.names, mirrored).Resolve(t.Context(), string(desc.Digest)); err != nil || got.Size != desc.Size {
				t.Errorf("Resolve by digest = %v, %v", got, err)
			}
			got, err := fetchRange(t, r, layer, 1000, 900<<10)
			if err != nil || !bytes.Equal(got, content[1000:1000+900<<10]) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
			if n := origin.counted("GET blob"); n != c.asked {
				t.Errorf("the registry was asked %d times, want %d", n, c.asked)
			}
		})
	}
	ref := Reference{Host: "a.b", Repository: "test"}
	if r, err := Open(t.Context(), ref, Options{Hosts: map[string]HostOptions{"a.b": {Mirrors: []string{"https://x"}}}}); !errors.Is(err, ErrMalformedReference) {
		r.Close()
		t.Errorf("got %v", err)
	}
}
