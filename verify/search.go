package verify

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/davit-oci/davit/internal/bundle"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Limits of what we look at. Whoever can push to a repository can attach as much as they like to an artifact, and must neither hide a
// signature behind it nor make us fetch all of it. A signature as cosign writes it is two documents of about 1 KB; with certificates
// and log entries it is about 12 KB.
const (
	maxReferrers        = 10_000           // referrers looked at, those listed as signatures first
	maxReferrerManifest = 256 << 10        // the manifest of a referrer
	maxBundle           = 1 << 20          // a bundle
	maxBytes            = 16 << 20         // bundles in all, and as much of the manifests that attach them
	maxTime             = 10 * time.Second // in all, if there are more than few
	few                 = 8                // referrers may take the time they need
	fetches             = 64               // documents fetched at the same time: thousands in maxTime, of a registry that is not near
)

// share is the part of maxBytes that each of maxReferrers has. Documents up to this size are fetched in their turn, since maxBytes is
// enough for all of them; larger ones wait, and the smallest is next. So no heap of large documents is in front of a small signature.
const share = maxBytes / maxReferrers

// An id is what makes two documents the same one to look at. By size and type too: a list that is wrong about one of them must not take
// the place of the right one.
type id struct {
	digest    digest.Digest
	size      int64
	mediaType string
}

func idOf(d ocispec.Descriptor) id { return id{d.Digest, d.Size, d.MediaType} }

// choose returns the referrers to look at, each once, and the number of those beyond the limit. What is listed as a signature comes
// first; but a listing's type is a hint that some registries get wrong, so no type is left out. One of each digest comes first, since a
// thousand sizes of one digest are a thousand entries. Otherwise the order of the list stays: it has first what took most to get there.
func choose(listed []ocispec.Descriptor) (candidates []ocispec.Descriptor, left int) {
	type ranked struct {
		ocispec.Descriptor
		nth, likeliness int
	}
	var all []ranked
	seen := make(map[id]bool)
	nth := make(map[digest.Digest]int)
	for _, d := range listed {
		like := likeliness(d)
		if seen[idOf(d)] || like == other && d.MediaType != ocispec.MediaTypeImageManifest {
			continue
		}
		seen[idOf(d)] = true
		all = append(all, ranked{d, nth[d.Digest], like})
		nth[d.Digest]++
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(a.nth, b.nth), cmp.Compare(a.likeliness, b.likeliness))
	})
	for _, r := range all[:min(len(all), maxReferrers)] {
		candidates = append(candidates, r.Descriptor)
	}
	return candidates, len(all) - len(candidates)
}

// How likely an entry of a list is a signature.
const (
	signatureOrUnknown = iota
	anotherBundle
	other
)

func likeliness(d ocispec.Descriptor) int {
	predicate, says := d.Annotations[bundle.AnnotationPredicateType]
	switch {
	case d.ArtifactType == "", d.ArtifactType == bundle.MediaType && (!says || predicate == bundle.PredicateType):
		return signatureOrUnknown
	case d.ArtifactType == bundle.MediaType:
		return anotherBundle
	}
	return other
}

// A search looks at referrers until all have been looked at, or a limit is reached.
type search struct {
	src     Source
	subject ocispec.Descriptor
	keys    []*Key
	policy  Policy
	few     bool // no more than few

	mu        sync.Mutex
	turn      *sync.Cond // tasks have changed, or over
	tasks     taskQueue
	running   int
	manifests int64 // bytes of them that may still be fetched
	bundles   int64
	begun     map[id]bool // bundles

	late, over bool
	cancel     context.CancelFunc

	found  []*Signature
	unseen int // referrers that were not looked at to the end
}

// A task is the next step with one referrer: fetching its manifest, then its bundle, then trying the keys that its hint does not name.
type task struct {
	step step
	desc ocispec.Descriptor // to be fetched
	sig  *Signature
	read *signedBundle // whose other keys are to be tried
	turn int
}

type step int

const (
	fetchManifest step = iota
	fetchBundle
	tryOtherKeys
)

// look fills found with a Signature for each bundle among the candidates.
func (s *search) look(ctx context.Context, candidates []ocispec.Descriptor, deadline time.Time) {
	ctx, s.cancel = context.WithCancel(ctx)
	defer s.cancel()
	s.turn = sync.NewCond(&s.mu)
	s.manifests, s.bundles = maxBytes, maxBytes
	s.begun = make(map[id]bool)
	s.few = len(candidates) <= few
	for i, d := range candidates {
		s.tasks = append(s.tasks, &task{step: fetchManifest, desc: d, sig: &Signature{Referrer: d.Digest}, turn: i})
	}
	heap.Init(&s.tasks)

	clock := time.AfterFunc(time.Until(deadline), func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.late = true
		s.endIfLate()
	})
	defer clock.Stop()
	var workers sync.WaitGroup
	for range min(fetches, len(candidates)) {
		workers.Go(func() { s.work(ctx) })
	}
	workers.Wait()
	s.unseen += len(s.tasks)
}

// endIfLate ends the search when its time is up. A few referrers go on: a slow network is no reason to refuse what is signed. The
// caller holds mu.
func (s *search) endIfLate() {
	counted := func(sig *Signature) bool { return sig.Counted }
	if s.late && !s.over && (!s.few || slices.ContainsFunc(s.found, counted)) {
		s.over = true
		s.cancel()
		s.turn.Broadcast()
	}
}

func (s *search) work(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for !s.over && len(s.tasks) == 0 && s.running > 0 {
			s.turn.Wait()
		}
		if s.over || len(s.tasks) == 0 {
			return
		}
		t := heap.Pop(&s.tasks).(*task)
		if !s.charge(t) {
			s.unseen++
			continue
		}
		s.running++
		s.mu.Unlock()
		next, err := s.do(ctx, t)
		s.mu.Lock()
		s.running--
		s.settle(t, next, err)
		s.turn.Broadcast()
	}
}

// charge takes what t is going to fetch from what may be. What is beyond the limit of one document is refused and not fetched.
func (s *search) charge(t *task) bool {
	left, limit := &s.manifests, int64(maxReferrerManifest)
	switch t.step {
	case fetchBundle:
		left, limit = &s.bundles, maxBundle
	case tryOtherKeys:
		return true
	}
	if t.desc.Size < 0 || t.desc.Size > limit {
		return true
	}
	if t.desc.Size > *left {
		return false
	}
	*left -= t.desc.Size
	return true
}

// do takes one step with a referrer. It returns the next one, or what became of the referrer.
func (s *search) do(ctx context.Context, t *task) (next *task, err error) {
	switch t.step {
	case fetchManifest:
		if t.desc.MediaType != ocispec.MediaTypeImageManifest {
			return nil, refusef(Malformed, "it is listed as a %.100q, not as an image manifest", t.desc.MediaType)
		}
		data, err := fetchContent(ctx, s.src, plain(t.desc), maxReferrerManifest)
		if err != nil {
			return nil, err
		}
		layer, err := parseReferrer(data, s.subject)
		if err != nil {
			return nil, err
		}
		return &task{step: fetchBundle, desc: layer, sig: t.sig, turn: t.turn}, nil
	case fetchBundle:
		data, err := fetchContent(ctx, s.src, t.desc, maxBundle)
		if err != nil {
			return nil, err
		}
		b, err := readBundle(t.sig, data, s.subject)
		if err != nil {
			return nil, err
		}
		likely := b.hinted(s.keys)
		if err := b.check(t.sig, likely, s.policy); err == nil || len(likely) == len(s.keys) || !isUntrusted(err) {
			return nil, err
		}
		return &task{step: tryOtherKeys, sig: t.sig, read: b, turn: t.turn}, nil
	default:
		return nil, t.read.check(t.sig, s.keys, s.policy)
	}
}

func isUntrusted(err error) bool {
	r, ok := asRefusal(err)
	return ok && r.code == UntrustedKey
}

// settle notes what became of t. The caller holds mu.
func (s *search) settle(t *task, next *task, err error) {
	if next != nil {
		if next.step == fetchBundle {
			if s.begun[idOf(next.desc)] {
				return // attached once more: what it is has been seen, or will be
			}
			s.begun[idOf(next.desc)] = true
			next.sig.Digest = next.desc.Digest
		}
		heap.Push(&s.tasks, next)
		return
	}
	sig := t.sig
	r, refused := asRefusal(err)
	switch {
	case errors.Is(err, errOtherKind):
		return
	case err == nil:
		sig.Counted = true
	case refused:
		sig.Code, sig.Why, sig.err = r.code, r.why, r.err
	case errors.Is(err, fs.ErrNotExist):
		sig.Code, sig.Why = Missing, "it is listed, but not there"
	case s.over:
		s.unseen++
		return
	case errors.Is(err, fs.ErrInvalid):
		sig.Code, sig.Why, sig.err = Malformed, "it cannot be read: "+err.Error(), err
	default:
		sig.Code, sig.Why, sig.err = notFetched, "could not be fetched", err
	}
	s.found = append(s.found, sig)
	s.endIfLate()
}

// A taskQueue is a heap: the task that costs least is first. Of those that cost no more than their share, what has been begun goes on
// first, so that a search that ends early has seen some to the end; then the order of the candidates counts.
type taskQueue []*task

func (q taskQueue) Len() int { return len(q) }

func (q taskQueue) Less(i, j int) bool {
	a, b := q[i], q[j]
	return cmp.Or(
		cmp.Compare(a.cost(), b.cost()),
		-cmp.Compare(a.step, b.step),
		cmp.Compare(a.turn, b.turn),
	) < 0
}

func (q taskQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *taskQueue) Push(x any)   { *q = append(*q, x.(*task)) }
func (q *taskQueue) Pop() any {
	old := *q
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return t
}

// cost is what a task is ordered by. Keys that a hint does not name are tried when nothing else is left to do: each is work for the
// CPU, and an honest hint names its key.
func (t *task) cost() int64 {
	if t.step == tryOtherKeys {
		return maxBytes // more than any document that is fetched
	}
	return max(t.desc.Size, share)
}
