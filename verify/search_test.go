package verify_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/davit-oci/davit/verify"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What somebody with push rights and without the key can put in front of a signature: it is found all the same, and what is fetched is
// bounded.
func TestSignatureInAHeap(t *testing.T) {
	sign := func(s *store, subject ocispec.Descriptor) {
		s.attach(subject, alice.bundle(statement(subject)))
	}
	_, subject := newStore()
	lookAlikes := make([][]byte, 10_000)
	for i := range lookAlikes {
		lookAlikes[i] = mallory.bundle(statement(subject, "1800000000", fmt.Sprint(1800000000+i)))
	}
	lookAlike := func(s *store, subject ocispec.Descriptor, i int) ocispec.Descriptor {
		return s.attach(subject, lookAlikes[i])
	}
	padded := func(n int, i int) []byte { return append(slices.Clip(lookAlikes[i]), strings.Repeat(" ", n)...) }
	for _, tt := range []struct {
		name  string
		build func(s *store, subject ocispec.Descriptor)
		keys  []keyPair
		want  verify.Code // empty: found
		most  int64       // fetched, in KiB
	}{
		{name: "200 look-alikes before it", build: func(s *store, subject ocispec.Descriptor) {
			for i := range 200 {
				lookAlike(s, subject, i)
			}
			sign(s, subject)
		}, most: 600},
		{name: "9,999 look-alikes before it", build: func(s *store, subject ocispec.Descriptor) {
			for i := range 9999 {
				lookAlike(s, subject, i)
			}
			sign(s, subject)
		}, most: 32 << 10},
		{name: "2,000 look-alikes with a hint of the policy, and two keys", keys: []keyPair{bob, alice}, build: func(s *store, subject ocispec.Descriptor) {
			for i := range 2000 {
				s.attach(subject, []byte(edited(string(lookAlikes[i]), mallory.hint, bob.hint)))
			}
			sign(s, subject)
		}, most: 32 << 10},
		{name: "10,000 before it that are smaller", build: func(s *store, subject ocispec.Descriptor) {
			for i := range 10_000 {
				s.attach(subject, []byte(fmt.Sprint(i)))
			}
			s.attach(subject, alice.bundle(statement(subject)), func(m *ocispec.Manifest) { m.Annotations = map[string]string{"a": "larger than the others"} })
		}, want: verify.TooMany, most: 32 << 10},
		{name: "9,999 times one bundle before it", build: func(s *store, subject ocispec.Descriptor) {
			b := mallory.bundle(statement(subject))
			for i := range 9999 {
				s.attach(subject, b, func(m *ocispec.Manifest) { m.Annotations = map[string]string{"n": fmt.Sprint(i)} })
			}
			sign(s, subject)
		}, most: 10 << 10},
		{name: "20 MiB of large bundles before it", build: func(s *store, subject ocispec.Descriptor) {
			for i := range 20 {
				s.attach(subject, padded(1<<20-1000, i))
			}
			sign(s, subject)
		}, most: 17 << 10},
		{name: "40 MiB of bundles that are twice as large", build: func(s *store, subject ocispec.Descriptor) {
			for i := range 9000 {
				s.attach(subject, padded(4000, i))
			}
			sign(s, subject)
		}, most: 32 << 10},
		{name: "50 MiB of large manifests before it", build: func(s *store, subject ocispec.Descriptor) {
			for i := range 200 {
				s.attach(subject, mallory.bundle("x"), func(m *ocispec.Manifest) {
					m.Annotations = map[string]string{"n": fmt.Sprint(i), "x": strings.Repeat("x", 250<<10)}
				})
			}
			sign(s, subject)
		}, most: 17 << 10},
		{name: "5,000 wrong sizes of its own manifest, and 100 look-alikes", build: func(s *store, subject ocispec.Descriptor) {
			for i := range 100 {
				lookAlike(s, subject, i)
			}
			sign(s, subject)
			right := s.referrers[100]
			for i := range 5000 {
				wrong := right
				wrong.Size = int64(i + 1)
				if wrong.Size != right.Size {
					s.referrers = append(s.referrers, wrong)
				}
			}
			slices.Reverse(s.referrers)
		}, most: 20 << 10},
		{name: "20,000 referrers of another kind before it", build: func(s *store, subject ocispec.Descriptor) {
			for i := range 20_000 {
				s.referrers = append(s.referrers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/spdx+json",
					Digest: digest.FromString(fmt.Sprint(i)), Size: 5})
			}
			sign(s, subject)
		}, most: 10},
		{name: "10,000 that are not there", build: func(s *store, subject ocispec.Descriptor) {
			for i := range 9999 {
				s.referrers = append(s.referrers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: bundleType,
					Digest: digest.FromString(fmt.Sprint(i)), Size: 500})
			}
			sign(s, subject)
		}, most: 10},
		{name: "large itself, behind more than is looked at", build: func(s *store, subject ocispec.Descriptor) {
			for i := range 9000 {
				s.attach(subject, padded(4000, i))
			}
			s.attach(subject, append(alice.bundle(statement(subject)), strings.Repeat(" ", 8000)...))
		}, want: verify.TooMany, most: 32 << 10},
	} {
		t.Run(tt.name, inBubble(func(t *testing.T) {
			s, subject := newStore()
			tt.build(s, subject)
			var fetched atomic.Int64
			s.onFetch = func(d ocispec.Descriptor) { fetched.Add(int64(len(s.blobs[d.Digest]))) }
			p := trust(tt.keys...)
			if tt.keys == nil {
				p = trust(alice)
			}
			if tt.want != "" {
				e := mustRefuse(t, s, subject, p)
				if r := e.Reasons[0]; r.Code != tt.want || !strings.Contains(r.Why, "were not looked at") {
					t.Errorf("got %+v", r)
				}
			} else if got, err := verify.Artifact(t.Context(), s, subject, p); err != nil {
				t.Errorf("not found: %.500v", err)
			} else if n := counted(got.Signatures); n != 1 {
				t.Errorf("%d counted", n)
			}
			if n := fetched.Load() >> 10; n > tt.most {
				t.Errorf("%d KiB were fetched, more than %d", n, tt.most)
			}
		}))
	}
}

// inBubble is f where no time passes while it computes: how fast this machine is, is not what is tested.
func inBubble(f func(*testing.T)) func(*testing.T) {
	return func(t *testing.T) { synctest.Test(t, f) }
}

// A bundle that is attached a thousand times is fetched once.
func TestEqualBundlesAreFetchedOnce(t *testing.T) {
	s, subject := newStore()
	b := alice.bundle(statement(subject))
	for i := range 1000 {
		s.attach(subject, b, func(m *ocispec.Manifest) { m.Annotations = map[string]string{"n": fmt.Sprint(i)} })
	}
	var n atomic.Int64
	s.onFetch = func(d ocispec.Descriptor) {
		if d.MediaType == bundleType {
			n.Add(1)
		}
	}
	got, err := verify.Artifact(t.Context(), s, subject, trust(alice))
	if err != nil || n.Load() != 1 || len(got.Signatures) != 1 {
		t.Errorf("fetched %d times; %v, %v", n.Load(), got, err)
	}
}

// Whoever holds no key can still copy a signature, a space more in each. All count; people read a few.
func TestManyOfOneSignatureAreAFewLines(t *testing.T) {
	s, subject := newStore()
	b := alice.bundle(statement(subject))
	for range 300 {
		b = append(b, ' ')
		s.attach(subject, slices.Clone(b))
	}
	p := trust(alice)
	p.Name, p.Tag = "example.com/other", "v9"
	got, err := verify.Artifact(t.Context(), s, subject, p)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(got.Warnings); n != 6 || !strings.Contains(got.Warnings[5], "595 more") {
		t.Errorf("%d warnings: %q", n, got.Warnings)
	}
}

// The list itself can be wrong, or end early. What it has counts.
func TestIncompleteList(t *testing.T) {
	reset := errors.New("connection reset")
	breaksOff := fmt.Errorf("page 2 is no index: %w", fs.ErrInvalid)
	for _, tt := range []struct {
		name   string
		fail   error
		signed bool
		code   verify.Code // of a refusal
	}{
		{"breaks off behind it", breaksOff, true, ""},
		{"the network fails behind it", reset, true, ""},
		{"breaks off", breaksOff, false, verify.Incomplete},
		{"the network fails", reset, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, subject := newStore()
			s.attach(subject, mallory.bundle(statement(subject)))
			if tt.signed {
				s.attach(subject, alice.bundle(statement(subject)))
			}
			s.listFail, s.partly = tt.fail, true
			switch {
			case tt.signed:
				got, err := verify.Artifact(t.Context(), s, subject, trust(alice))
				if err != nil || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "not complete") {
					t.Errorf("got %v, %v", got, err)
				}
			case tt.code != "":
				if r := mustRefuse(t, s, subject, trust(alice)).Reasons[0]; r.Code != tt.code || !strings.Contains(r.Why, "page 2") {
					t.Errorf("got %+v", r)
				}
			default:
				if _, err := verify.Artifact(t.Context(), s, subject, trust(alice)); !errors.Is(err, reset) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
}

// A source that checks what it gives says so of one entry; that costs the entry.
func TestEntryThatTheSourceRefuses(t *testing.T) {
	s, subject := newStore()
	d := s.attach(subject, alice.bundle(statement(subject, "v1", "v0")))
	s.fail[d.Digest] = fmt.Errorf("content has 7 bytes, not 8: %w", fs.ErrInvalid)
	e := mustRefuse(t, s, subject, trust(alice))
	if r := e.Reasons[0]; r.Code != verify.Malformed || !strings.Contains(r.Why, "7 bytes") || r.Digest != d.Digest {
		t.Errorf("got %+v", r)
	}
	s.attach(subject, alice.bundle(statement(subject)))
	if _, err := verify.Artifact(t.Context(), s, subject, trust(alice)); err != nil {
		t.Error(err)
	}
}

// slow takes its time for each document that is not the manifest; those it was told take longer.
type slow struct {
	*store
	each, list time.Duration
	stuck      map[digest.Digest]bool
}

func (s slow) Referrers(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	time.Sleep(s.list) //nolint:forbidigo // in the time of synctest
	return s.store.Referrers(ctx, d)
}

func (s slow) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	wait := s.each
	if s.stuck[d.Digest] {
		wait = time.Hour
	}
	if d.Digest == digest.FromBytes(artifact) {
		wait = 0
	}
	select {
	case <-time.After(wait):
		return s.store.Fetch(ctx, d)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestTimeIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name       string
		each, list time.Duration
		heap       int // look-alikes
		stuck      int // of them
		signed     bool
		first      bool // in the list
		most       time.Duration
		want       verify.Code // empty: accepted
		warned     bool
	}{
		{name: "one that takes a minute", each: time.Minute, signed: true, most: 2 * time.Minute},
		{name: "one, and a list that takes a minute", list: time.Minute, each: time.Second, signed: true, most: 62 * time.Second},
		{name: "4,000 look-alikes before it, at a registry that is far", each: time.Second / 20, heap: 4000, signed: true, most: 10 * time.Second},
		{name: "thousands, each a second", each: time.Second, heap: 3000, most: 10 * time.Second, want: verify.TooMany},
		{name: "thousands, each a second, the signature first", each: time.Second, heap: 3000, signed: true, first: true, most: 10 * time.Second, warned: true},
		{name: "one beside some that are stuck", heap: 5, stuck: 5, signed: true, most: 10 * time.Second, warned: true},
		{name: "one behind many that are stuck", heap: 200, stuck: 63, signed: true, most: 10 * time.Second, warned: true},
		{name: "many, and a list that takes a minute", list: time.Minute, heap: 50, each: time.Second / 10, signed: true, most: 65 * time.Second},
		{name: "all stuck", heap: 100, stuck: 100, most: 10 * time.Second, want: verify.TooMany},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(func(t *testing.T) {
				s, subject := newStore()
				stuck := make(map[digest.Digest]bool)
				for i := range tt.heap {
					d := s.attach(subject, mallory.bundle(statement(subject, "1800000000", fmt.Sprint(1800000000+i))))
					stuck[d.Digest] = i < tt.stuck
				}
				if tt.signed {
					d := s.attach(subject, alice.bundle(statement(subject)))
					if tt.first {
						s.referrers = slices.Insert(s.referrers, 0, d)
					}
				}
				start := time.Now()
				got, err := verify.Artifact(t.Context(), slow{s, tt.each, tt.list, stuck}, subject, trust(alice))
				if took := time.Since(start); took > tt.most {
					t.Errorf("took %v, more than %v", took, tt.most)
				}
				e, _ := errors.AsType[*verify.UntrustedError](err)
				switch {
				case tt.want != "" && (e == nil || e.Reasons[0].Code != tt.want):
					t.Errorf("got %v, %v", got, err)
				case tt.want == "" && err != nil:
					t.Errorf("got %v", err)
				case tt.want == "" && (len(got.Warnings) > 0) != tt.warned:
					t.Errorf("warnings are %q", got.Warnings)
				}
			})(t)
		})
	}
}

// What a hint does not name is tried, too, and last.
func TestHintSaysWhatIsTriedFirst(t *testing.T) {
	s, subject := newStore()
	policy := []keyPair{alice, bob}
	for _, signer := range policy {
		for _, hint := range []string{alice.hint, bob.hint, mallory.hint, "none"} {
			s.referrers = nil
			s.attach(subject, []byte(edited(string(signer.bundle(statement(subject))), signer.hint, hint)))
			got, err := verify.Artifact(t.Context(), s, subject, trust(policy...))
			if err != nil || got.Signatures[0].KeyHint != signer.hint {
				t.Errorf("hint %s: got %v, %v", cmp.Or(hint, "none"), got, err)
			}
		}
	}
}

// Ten thousand refused signatures are a result that programs can read.
func TestRefusalOfAHeapIsBounded(t *testing.T) {
	s, subject := newStore()
	for i := range 3000 {
		s.attach(subject, []byte(fmt.Sprint(i)))
	}
	e := mustRefuse(t, s, subject, trust(alice))
	data, err := json.Marshal(e.Signatures)
	if err != nil || len(e.Signatures) != 3000 || len(data) > 2<<20 {
		t.Errorf("%d signatures, %d bytes, %v", len(e.Signatures), len(data), err)
	}
}
