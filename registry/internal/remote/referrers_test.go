package remote_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// listing answers the referrers API, or a tag, with these entries.
func listing(entries ...ocispec.Descriptor) fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		_ = json.NewEncoder(w).Encode(ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: entries})
		return true
	}
}

func answer(body string) fault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		fmt.Fprint(w, body)
		return true
	}
}

// A heap is n places where nothing is.
func heap(n int) []ocispec.Descriptor {
	list := make([]ocispec.Descriptor, n)
	for i := range list {
		list[i] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(i)), Size: 700}
	}
	return list
}

func TestReferrersAreNotBelieved(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	r := open(t, f.names, Options{})
	subject, _ := artifact(t, r, nil, "application/x-test", []byte("subject"))
	other, _ := artifact(t, r, nil, "application/x-test", []byte("other"))
	mine, _ := artifact(t, r, &subject, "application/x-sig", []byte("mine"))
	foreign, _ := artifact(t, r, &other, "application/x-sig", []byte("foreign"))
	gone := describe(ocispec.MediaTypeImageManifest, []byte("gone"))
	lying := mine
	lying.ArtifactType, lying.Annotations = "application/x-something-else", map[string]string{"lie": "yes"}
	huge, wrongSize, negative := mine, mine, mine
	huge.Size, wrongSize.Size, negative.Size = registry.MaxManifest+1, mine.Size-1, -1
	odd := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: "../../etc/passwd"}
	sha512 := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.SHA512.FromString(""), Size: 2}
	for _, c := range []struct {
		name  string
		fault fault
		ok    bool
		n     int
	}{
		{"lies in the list", listing(lying, lying, foreign, gone, subject, other), true, 1},
		{"too large, and right", listing(huge, mine), false, 1},
		{"a wrong size, and the right one", listing(wrongSize, negative, mine), false, 1},
		{"a digest that is none", listing(odd, mine), false, 1},
		{"a digest of another kind", listing(sha512, mine), false, 1},
		{"one listed many times", listing(slices.Repeat([]ocispec.Descriptor{mine}, 5000)...), true, 1},
		{"1001 others before it", listing(append(heap(1001), mine)...), true, 1},
		{"an entry of another form", answer(`{"manifests":[7,{"size":"much"},` + asJSON(mine) + `,null]}`), false, 1},
		{"a list that breaks off", answer(`{"manifests":[` + asJSON(mine) + `,{"digest":"sha`), false, 1},
		{"403", status(403), true, 0}, // there is no such API for us, and nobody has put anything elsewhere
		{"503", status(503), false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.set(times(always, "GET referrers", c.fault))
			got, err := open(t, f.names, Options{Retries: -1}).ReadReferrers(t.Context(), subject)
			if (err == nil) != c.ok || len(got) != c.n {
				t.Fatalf("got %v, %v", got, err)
			}
			if err != nil && errors.Is(err, ErrIncomplete) != (c.n > 0) {
				t.Errorf("got %v", err)
			}
			if c.n > 0 && (got[0].Digest != mine.Digest || got[0].ArtifactType != "application/x-sig" || got[0].Annotations["lie"] != "") {
				t.Errorf("got %+v", got[0])
			}
		})
	}
	t.Run("a referrer that is damaged", func(t *testing.T) {
		f.set(func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			if !strings.HasSuffix(r.URL.Path, string(mine.Digest)) {
				return false
			}
			return rewrite(func(rec *httptest.ResponseRecorder) { rec.Body.Bytes()[20] ^= 1 })(w, r, h)
		})
		got, err := open(t, f.names, Options{}).ReadReferrers(t.Context(), subject)
		if len(got) != 0 || !errors.Is(err, ErrIncomplete) || !errors.Is(err, ErrDigestMismatch) {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// Where the API answers with an index, even an empty one, neither tags are listed nor the tag of the schema is asked for.
func TestReferrersAPIIsAllThatIsAsked(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	r := open(t, f.names, Options{})
	subject, _ := artifact(t, r, nil, "application/x-test", []byte("subject"))
	for n := range 2 {
		f.set(nil)
		got, err := r.Referrers(t.Context(), subject)
		if err != nil || len(got) != n {
			t.Errorf("got %v, %v; want %d", got, err, n)
		}
		if len(f.log) != 1 || f.counted("GET referrers") != 1 {
			t.Errorf("requests: %q", f.log)
		}
		artifact(t, r, &subject, "application/x-sig", []byte("mine"))
	}
	// What is no index is no answer of the API.
	for name, c := range map[string]struct {
		fault fault
		tags  int
	}{
		"an empty index":      {answer(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`), 0},
		"an index of nothing": {answer(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":null}`), 0},
		"404":                 {status(404), 1},
		"a page for humans":   {answer("<html>"), 1},
		"an empty object":     {answer("{}"), 1},
		"a list of tags":      {answer(`{"name":"x","tags":[]}`), 1},
		"null":                {answer("null"), 1},
	} {
		f.set(times(always, "GET referrers", c.fault))
		if got, err := r.Referrers(t.Context(), subject); err != nil || len(got) != 0 {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
		if tags, index := f.counted("GET tags"), f.counted("GET manifest"); tags != c.tags || index != c.tags {
			t.Errorf("%s: tags listed %d times, index asked for %d times, want %d: %q", name, tags, index, c.tags, f.log)
		}
	}
}

// A list without end is read up to a limit; what came before it counts.
func TestReferrersWithoutEnd(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	subject, _ := artifact(t, open(t, f.names, Options{}), nil, "application/x-test", []byte("subject"))
	mine := heap(1)[0]
	var pages atomic.Int64
	forever := func(entries int) fault {
		return func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			w.Header().Set("Link", fmt.Sprintf(`</v2/test/referrers/x?page=%d>; rel="next"`, pages.Add(1)))
			return listing(heap(entries)...)(w, r, h)
		}
	}
	second := func(then fault) fault {
		return func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			if r.URL.RawQuery != "" {
				return then(w, r, h)
			}
			w.Header().Set("Link", `</v2/test/referrers/x?page=2>; rel="next"`)
			return listing(mine)(w, r, h)
		}
	}
	for _, c := range []struct {
		name  string
		fault fault
		most  int // requests
		ends  bool
	}{
		{"pages without end", forever(1000), 200, true},
		{"pages of one", forever(1), remote.MaxReferrerPages, true},
		{"one page, longer than what is read", listing(heap(60_000)...), 1, true},
		{"one page of short entries", answer(`{"manifests":[` + asJSON(mine) + strings.Repeat(",{}", 1<<20) + `]}`), 1, true},
		{"pages in a circle", func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
			w.Header().Set("Link", `</v2/test/referrers/x?page=1>; rel="next"`)
			return listing(mine)(w, r, h)
		}, 2, true},
		{"a second page that is none", second(answer("<html>")), 2, true},
		{"a second page that is not there", second(status(404)), 2, true},
		{"a second page that fails", second(status(503)), 2, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.set(times(always, "GET referrers", c.fault))
			got, err := open(t, f.names, Options{Retries: -1}).Referrers(t.Context(), subject)
			if len(got) == 0 || got[0].Digest != mine.Digest {
				t.Errorf("the first entry is lost: got %d", len(got))
			}
			if err == nil || errors.Is(err, ErrIncomplete) != c.ends || errors.Is(err, fs.ErrInvalid) != c.ends {
				t.Errorf("got %v", err)
			}
			if n := f.counted("GET referrers"); n > c.most {
				t.Errorf("%d requests, want %d at most", n, c.most)
			}
			if n := f.counted("GET tags"); n > 0 {
				t.Error("tags were listed")
			}
		})
	}
}

// Without the API: davit's own tag counts whatever the index of the tag schema says, and one bad tag or entry costs itself.
func TestReferrersByTag(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		index func(mine ocispec.Descriptor) any // nil: davit's
		tag   func(t *testing.T, r *Repository, subject, mine ocispec.Descriptor)
		ok    bool
	}{
		{name: "as davit writes it", ok: true},
		{name: "a wrong size in the index", index: func(mine ocispec.Descriptor) any {
			mine.Size++
			return ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{mine}}
		}},
		{name: "40,000 entries in the index", index: func(ocispec.Descriptor) any {
			var entries []string
			for i := range 40_000 {
				entries = append(entries, `{"digest":"`+string(digest.FromString(fmt.Sprint(i)))+`","size":700}`)
			}
			return json.RawMessage(`{"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[` + strings.Join(entries, ",") + `]}`)
		}},
		{name: "an index of another form", index: func(ocispec.Descriptor) any {
			return json.RawMessage(`{"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[{"size":"x"},[],7]}`)
		}},
		{name: "an image under the tag of the index", index: func(ocispec.Descriptor) any {
			return json.RawMessage(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{},"layers":[]}`)
		}, ok: true},
		{name: "tags that name something else", tag: func(t *testing.T, r *Repository, subject, mine ocispec.Descriptor) {
			for i := range 20 {
				if err := r.Tag(t.Context(), subject, fmt.Sprintf("%s.%016x", oci.ReferrersTag(subject.Digest), i)); err != nil {
					t.Fatal(err)
				}
			}
		}, ok: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			f.set(times(always, "GET referrers", status(404)))
			r := open(t, f.names, Options{})
			subject, _ := artifact(t, r, nil, "application/x-test", []byte("subject"))
			mine, _ := artifact(t, r, &subject, "application/x-sig", []byte("mine"))
			if c.index != nil {
				body := asJSON(c.index(mine))
				f.set(func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
					switch {
					case kind(r) == "GET referrers":
						return status(404)(w, r, h)
					case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, oci.ReferrersTag(subject.Digest)):
						return answer(body)(w, r, h)
					}
					return false
				})
			}
			if c.tag != nil {
				c.tag(t, r, subject, mine)
			}
			got, err := r.ReadReferrers(t.Context(), subject)
			if len(got) != 1 || got[0].Digest != mine.Digest || (err == nil) != c.ok || err != nil && !errors.Is(err, ErrIncomplete) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// Headers are asked for, not manifests: whoever can push can tag 4 MiB as often as they like.
func TestTaggedReferrersAreNotFetched(t *testing.T) {
	t.Parallel()
	registry := newOlareg(t, false)
	var gets atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") {
			gets.Add(1)
		}
		registry.ServeHTTP(w, r)
	}))
	defer s.Close()
	r := open(t, strings.TrimPrefix(s.URL, "http://")+"/test", Options{})
	subject, _ := artifact(t, r, nil, "application/x-test", []byte("subject"))
	for i := range 5 {
		artifact(t, r, &subject, "application/x-sig", fmt.Append(nil, i))
	}
	gets.Store(0)
	if got, err := r.Referrers(t.Context(), subject); err != nil || len(got) != 5 {
		t.Errorf("got %v, %v", got, err)
	}
	if n := gets.Load(); n != 1 { // the index of the tag schema
		t.Errorf("%d manifests were fetched", n)
	}
}

// Not every registry answers HEAD, or says in the headers what a tag is.
func TestTaggedReferrersWithoutHeaders(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]fault{
		"405":       status(405),
		"no digest": rewrite(func(rec *httptest.ResponseRecorder) { rec.Header().Del("Docker-Content-Digest") }),
		"no length": rewrite(func(rec *httptest.ResponseRecorder) { rec.Header().Del("Content-Length") }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			noAPI := times(always, "GET referrers", status(404))
			f.set(noAPI)
			r := open(t, f.names, Options{})
			subject, _ := artifact(t, r, nil, "application/x-test", []byte("subject"))
			mine, _ := artifact(t, r, &subject, "application/x-sig", []byte("mine"))
			f.set(func(w http.ResponseWriter, r *http.Request, h http.Handler) bool {
				switch {
				case r.Method == http.MethodHead:
					return head(w, r, h)
				case strings.HasSuffix(r.URL.Path, oci.ReferrersTag(subject.Digest)): // the index is lost
					return status(404)(w, r, h)
				}
				return noAPI(w, r, h)
			})
			if got, err := r.Referrers(t.Context(), subject); err != nil || len(got) != 1 || got[0].Digest != mine.Digest {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

// A registry that says it keeps the list, and is late or loses an entry, is asked again; one that never lists it fails the push, since
// nobody would find the signature.
func TestReferrerThatIsNotListed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		late int64 // how many lists lack it
		ok   bool
	}{{"late", 2, true}, {"never", always, false}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t)
			r := open(t, f.names, Options{})
			subject, _ := artifact(t, r, nil, "application/x-test", []byte("subject"))
			empty := pushBytes(t, r, ocispec.MediaTypeEmptyJSON, []byte("{}"))
			b := []byte(asJSON(ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/x-sig", Config: empty,
				Layers: []ocispec.Descriptor{empty}, Subject: &subject}))
			b = bytes.Replace(b, []byte(`"schemaVersion":0`), []byte(`"schemaVersion":2`), 1)
			f.set(times(c.late, "GET referrers", listing()))
			err := r.PushReferrer(t.Context(), describe(ocispec.MediaTypeImageManifest, b), b)
			if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "list of referrers does not have it") {
				t.Errorf("got %v", err)
			}
			if n := f.counted("GET tags"); n > 0 {
				t.Error("tags were listed, where the API answers")
			}
		})
	}
}

// The size that a list says is all that is read: 4 MiB behind each of 700 bytes would be a heap.
func TestLongerManifestIsNotReadToItsEnd(t *testing.T) {
	t.Parallel()
	f := newFaulty(t)
	r := open(t, f.names, Options{})
	b := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","annotations":{"x":"` + strings.Repeat("x", 3<<20) + `"}}`)
	f.set(times(always, "GET manifest", answer(string(b))))
	desc := describe(ocispec.MediaTypeImageManifest, b)
	desc.Size = 700
	_, before, _ := r.Stats()
	if _, err := r.Manifest(t.Context(), desc); !errors.Is(err, ErrDigestMismatch) {
		t.Errorf("got %v", err)
	}
	if _, after, _ := r.Stats(); after-before > 1000 {
		t.Errorf("%d bytes were read", after-before)
	}
}
