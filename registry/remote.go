package registry

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// remote is a repository of a registry that speaks the OCI distribution spec 1.1, or an older one.
type remote struct {
	c          *client
	name       string   // HOST/REPO
	repository string   // below /v2/
	pull, push []string // token scopes

	mirrors []*remote  // asked first for what has a digest
	ns      url.Values // for a mirror: whose content is asked for, which is how one mirror serves many registries

	ignoresRanges atomic.Bool
	cache         manifestCache
}

func openRemote(ref Reference, o Options, s *stats) (*remote, error) {
	if !validHost(ref.Host) || !repositoryPattern.MatchString(ref.Repository) {
		return nil, fmt.Errorf("%w: %q", ErrMalformedReference, ref.Name())
	}
	r, err := newRemote(ref.Host, ref.Repository, o, s)
	if err != nil {
		return nil, err
	}
	for _, mirror := range o.Hosts[ref.Host].Mirrors {
		host, prefix, _ := strings.Cut(strings.Trim(mirror, "/"), "/")
		repository := path.Join(prefix, ref.Repository)
		if host = strings.ToLower(host); !validHost(host) || !repositoryPattern.MatchString(repository) {
			return nil, fmt.Errorf("%w: mirror %q of %s", ErrMalformedReference, mirror, ref.Host)
		}
		mirrored := o
		mirrored.Retries = 0 // the next one may have it, and the registry does
		m, err := newRemote(host, repository, mirrored, s)
		if err != nil {
			return nil, err
		}
		m.ns = url.Values{"ns": {ref.Host}}
		r.mirrors = append(r.mirrors, m)
	}
	return r, nil
}

func newRemote(host, repository string, o Options, s *stats) (*remote, error) {
	credential := func(ctx context.Context, _ string) (auth.Credential, error) {
		return lookupCredential(ctx, o, host, repository)
	}
	c, err := newClient(host, credential, o, s)
	if err != nil {
		return nil, fmt.Errorf("preparing to reach %s: %w", host, err)
	}
	return &remote{
		c:          c,
		name:       host + "/" + repository,
		repository: repository,
		pull:       []string{auth.ScopeRepository(repository, auth.ActionPull)},
		push:       []string{auth.ScopeRepository(repository, auth.ActionPull, auth.ActionPush)},
	}, nil
}

func (r *remote) close() error {
	for _, m := range append(r.mirrors, r) {
		m.c.conns.close()
	}
	return nil
}

func (r *remote) manifestPath(tagOrDigest string) string {
	return r.repository + "/manifests/" + tagOrDigest
}

// resolve gets the manifest itself, not only its headers: one request instead of two for whoever reads it next, and no header to
// believe.
func (r *remote) resolve(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, error) {
	if validDigest(digest.Digest(tagOrDigest)) {
		for _, m := range r.mirrors {
			if desc, content, err := m.getManifest(ctx, tagOrDigest, manifestTypes); err == nil {
				r.cache.put(desc.Digest, content)
				return desc, nil
			}
		}
	}
	desc, content, err := r.getManifest(ctx, tagOrDigest, manifestTypes)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("resolving %s in %s: %w", tagOrDigest, r.name, err)
	}
	r.cache.put(desc.Digest, content)
	return desc, nil
}

func (r *remote) manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	content, ok := r.cache.get(desc.Digest)
	if !ok {
		var err error
		for _, m := range r.mirrors {
			// A mirror that has it wrong is one that does not have it.
			if _, content, err = m.getManifest(ctx, string(desc.Digest), []string{desc.MediaType}); err == nil && verifyBytes(content, desc) == nil {
				ok = true
				break
			}
		}
		if !ok {
			if _, content, err = r.getManifest(ctx, string(desc.Digest), []string{desc.MediaType}); err != nil {
				return nil, fmt.Errorf("fetching manifest %s: %w", desc.Digest, err)
			}
		}
	}
	if err := verifyBytes(content, desc); err != nil {
		return nil, err
	}
	r.cache.put(desc.Digest, content)
	return content, nil
}

// getManifest fetches and hashes. Asked by digest, it gives no other content.
func (r *remote) getManifest(ctx context.Context, tagOrDigest string, accept []string) (desc ocispec.Descriptor, content []byte, err error) {
	err = r.c.retry(ctx, func(int) error {
		resp, err := r.c.do(ctx, request{
			method: http.MethodGet,
			path:   r.manifestPath(tagOrDigest),
			query:  r.ns,
			header: http.Header{"Accept": {strings.Join(accept, ", ")}},
			scopes: r.pull,
		}, http.StatusOK)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		where := withoutQuery(resp.Request.URL)
		if content, err = r.readSmall(resp); err != nil {
			return fmt.Errorf("GET %s: %w", where, err)
		}

		desc = ocispec.Descriptor{
			MediaType: manifestType(content, resp.Header.Get("Content-Type")),
			Digest:    digest.FromBytes(content),
			Size:      int64(len(content)),
		}
		want := cmp.Or(resp.Header.Get("Docker-Content-Digest"), string(desc.Digest))
		if validDigest(digest.Digest(tagOrDigest)) {
			want = tagOrDigest
		}
		if want != string(desc.Digest) && strings.HasPrefix(want, "sha256:") {
			return fmt.Errorf("%w: GET %s gave %s, not %s", ErrDigestMismatch, where, desc.Digest, printable(want))
		}
		if !IsManifest(desc.MediaType) {
			return fmt.Errorf("GET %s: media type %q is not that of a manifest", where, printable(desc.MediaType))
		}
		return nil
	})
	return desc, content, err
}

// readSmall reads a body that has to fit into MaxManifest.
func (r *remote) readSmall(resp *http.Response) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifest+1))
	r.c.stats.fetched.Add(int64(len(b)))
	if err != nil {
		return nil, redact(err)
	}
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("more than %d bytes", MaxManifest)
	}
	return b, nil
}

// manifestType is the manifest's own word on what it is, else the header's. The digest covers only the former.
func manifestType(content []byte, header string) string {
	var m struct {
		MediaType string            `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Layers    []json.RawMessage `json:"layers"`
	}
	if json.Unmarshal(content, &m) == nil && m.MediaType != "" {
		return m.MediaType
	}
	if t, _, err := mime.ParseMediaType(header); err == nil && IsManifest(t) {
		return t
	}
	switch {
	case m.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case m.Layers != nil:
		return ocispec.MediaTypeImageManifest
	}
	return header
}

// pushManifest writes by digest and reads back: what is signed and tagged next is what the registry has, not what we think we sent.
func (r *remote) pushManifest(ctx context.Context, desc ocispec.Descriptor, content []byte) error {
	if _, err := r.putManifest(ctx, desc, content, string(desc.Digest)); err != nil {
		return fmt.Errorf("pushing manifest %s: %w", desc.Digest, err)
	}
	if _, _, err := r.getManifest(ctx, string(desc.Digest), []string{desc.MediaType}); err != nil {
		return fmt.Errorf("reading manifest %s back: %w", desc.Digest, err)
	}
	r.cache.put(desc.Digest, content)
	return nil
}

// putManifest returns the headers of the answer.
func (r *remote) putManifest(ctx context.Context, desc ocispec.Descriptor, content []byte, tagOrDigest string) (header http.Header, err error) {
	err = r.c.retry(ctx, func(int) error {
		resp, err := r.c.do(ctx, request{
			method: http.MethodPut,
			path:   r.manifestPath(tagOrDigest),
			header: http.Header{"Content-Type": {desc.MediaType}},
			body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
			size:   int64(len(content)),
			scopes: r.push,
		}, http.StatusCreated, http.StatusOK, http.StatusAccepted)
		if err != nil {
			return err
		}
		resp.Body.Close()
		header = resp.Header
		if got := header.Get("Docker-Content-Digest"); strings.HasPrefix(got, "sha256:") && got != string(desc.Digest) {
			return fmt.Errorf("%w: the registry calls it %s", ErrDigestMismatch, printable(got))
		}
		return nil
	})
	return header, blobUnknown(err)
}

func (r *remote) tag(ctx context.Context, desc ocispec.Descriptor, tag string) error {
	content, err := r.manifest(ctx, desc)
	if err == nil {
		_, err = r.putManifest(ctx, desc, content, tag)
	}
	if err != nil {
		return fmt.Errorf("tagging %s as %s: %w", desc.Digest, tag, err)
	}
	return nil
}

// What a registry can make us read when it lists tags.
const (
	tagsPerPage = 1000
	maxTagPages = 1000
	maxTags     = 200_000
)

var errTooManyTags = fmt.Errorf("more than %d tags", maxTags)

// tags gives every tag, tools' own too.
func (r *remote) tags(ctx context.Context) ([]string, error) {
	var tags []string
	rq := request{
		method: http.MethodGet,
		path:   r.repository + "/tags/list",
		query:  url.Values{"n": {fmt.Sprint(tagsPerPage)}},
		scopes: r.pull,
	}
	err := r.pages(ctx, rq, maxTagPages, errTooManyTags, func(page []byte) error {
		var list struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(page, &list); err != nil {
			return fmt.Errorf("parsing the list: %w", err)
		}
		if len(list.Tags) > maxTags-len(tags) {
			return errTooManyTags
		}
		for _, t := range list.Tags {
			if ValidTag(t) { // what is no tag could not be asked for either
				tags = append(tags, t)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing tags of %s: %w", r.name, err)
	}
	return tags, nil
}

// pages sends rq and follows the Link headers (RFC 8288, as the distribution spec uses it). Only the query of a link counts: a
// registry cannot send us elsewhere with it.
func (r *remote) pages(ctx context.Context, rq request, limit int, tooMany error, page func([]byte) error) error {
	seen := make(map[string]bool)
	for range limit {
		var content []byte
		var next string
		err := r.c.retry(ctx, func(int) error {
			resp, err := r.c.do(ctx, rq, http.StatusOK)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			next = nextPage(resp)
			content, err = r.readSmall(resp)
			return err
		})
		if err != nil {
			return err
		}
		if err := page(content); err != nil {
			return err
		}
		if next == "" {
			return nil
		}
		if seen[next] {
			return errors.New("its pages go in circles")
		}
		seen[next] = true
		if rq.query, err = url.ParseQuery(next); err != nil {
			return errors.New("unusable Link header")
		}
	}
	return tooMany
}

// nextPage is the query of the link with rel=next, or "".
func nextPage(resp *http.Response) string {
	for _, link := range strings.Split(strings.Join(resp.Header.Values("Link"), ","), ",") {
		target, params, ok := strings.Cut(strings.TrimSpace(link), ">")
		target, isLink := strings.CutPrefix(target, "<")
		if !ok || !isLink || !strings.Contains(strings.ReplaceAll(strings.ToLower(params), `"`, ""), "rel=next") {
			continue
		}
		if u, err := url.Parse(target); err == nil {
			return u.RawQuery
		}
	}
	return ""
}

// What a registry can make us read when it lists referrers.
const (
	maxReferrers     = 1000
	maxReferrerPages = 100
)

var errTooManyReferrers = fmt.Errorf("more than %d referrers", maxReferrers)

// referrers merges what the registry's API says, the index of the referrers tag schema and our own tag per referrer: artifacts that
// were copied by other tools, or to a registry that was upgraded later, have some of them in one place and some in another. No filter is
// sent, since registries differ in what they compare it with.
func (r *remote) referrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	var lists [3][]ocispec.Descriptor
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		lists[0], err = r.referrersAPI(gctx, subject.Digest)
		return err
	})
	g.Go(func() (err error) {
		lists[1], err = r.referrersIndex(gctx, subject.Digest)
		return err
	})
	g.Go(func() (err error) {
		lists[2], err = r.taggedReferrers(gctx, subject.Digest)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("listing referrers of %s: %w", subject.Digest, err)
	}
	found, err := checkReferrers(ctx, subject, slices.Concat(lists[:]...), r.c.o.Jobs, r.manifest)
	if err != nil {
		return nil, fmt.Errorf("listing referrers of %s: %w", subject.Digest, err)
	}
	return found, nil
}

// referrersAPI: no answer that means "no such API" is an error.
func (r *remote) referrersAPI(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	var list []ocispec.Descriptor
	rq := request{
		method: http.MethodGet,
		path:   r.repository + "/referrers/" + string(subject),
		header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}},
		scopes: r.pull,
	}
	err := r.pages(ctx, rq, maxReferrerPages, errTooManyReferrers, func(page []byte) error {
		var index ocispec.Index
		if err := json.Unmarshal(page, &index); err != nil {
			return nil // a page for humans, from a server that answers everything with one
		}
		if len(index.Manifests) > maxReferrers-len(list) {
			return errTooManyReferrers
		}
		list = append(list, index.Manifests...)
		return nil
	})
	if notOffered(err) {
		return nil, nil
	}
	return list, err
}

// notOffered reports whether a registry refuses a request of a kind that it need not serve: it has no such API, or keeps this one to
// itself. Who may not read at all has failed before, with the manifest itself.
func notOffered(err error) bool {
	e, ok := errors.AsType[*responseError](err)
	return ok && (e.status/100 == 4 || e.status == http.StatusNotImplemented) &&
		e.status != http.StatusTooManyRequests && e.status != http.StatusRequestTimeout && !e.limited
}

func (r *remote) referrersIndex(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	desc, content, err := r.getManifest(ctx, referrersTag(subject), manifestTypes)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil || !isIndex(desc.MediaType) {
		return nil, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(content, &index); err != nil {
		return nil, nil // something else has this tag
	}
	return index.Manifests, nil
}

func (r *remote) taggedReferrers(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	tags, err := r.tags(ctx)
	if notOffered(err) || errors.Is(err, errTooManyTags) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []ocispec.Descriptor
	for _, tag := range tags {
		suffix, ok := strings.CutPrefix(tag, referrersTag(subject)+".")
		if !ok || !referrerSuffix.MatchString(suffix) {
			continue
		}
		if len(list) == maxReferrers {
			return nil, errTooManyReferrers
		}
		desc, err := r.resolve(ctx, tag)
		if errors.Is(err, ErrNotFound) {
			continue // deleted since
		}
		if err != nil {
			return nil, err
		}
		list = append(list, desc)
	}
	return list, nil
}

// checkReferrers fetches every manifest of a merged list once and keeps those that say themselves that they refer to subject.
// One that is listed and not there is left out: lists outlive what is in them.
func checkReferrers(ctx context.Context, subject ocispec.Descriptor, list []ocispec.Descriptor, jobs int,
	fetch func(context.Context, ocispec.Descriptor) ([]byte, error),
) ([]ocispec.Descriptor, error) {
	list = slices.DeleteFunc(list, func(d ocispec.Descriptor) bool { return checkManifestDescriptor(d) != nil })
	list = sortReferrers(list)
	if len(list) > maxReferrers {
		return nil, errTooManyReferrers
	}

	keep := make([]*ocispec.Descriptor, len(list))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(jobs)
	for i, desc := range list {
		g.Go(func() error {
			content, err := fetch(gctx, desc)
			if errors.Is(err, ErrNotFound) {
				return nil
			}
			if err != nil {
				return err
			}
			m, err := parseReferrer(content)
			if err != nil || m.Subject == nil || m.Subject.Digest != subject.Digest {
				return nil
			}
			if m.MediaType != "" {
				desc.MediaType = m.MediaType
			}
			d := m.describe(desc)
			keep[i] = &d
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var found []ocispec.Descriptor
	for _, d := range keep {
		if d != nil && IsManifest(d.MediaType) {
			found = append(found, *d)
		}
	}
	return found, nil
}

// sortReferrers sorts by digest and drops what is there twice.
func sortReferrers(list []ocispec.Descriptor) []ocispec.Descriptor {
	slices.SortFunc(list, func(a, b ocispec.Descriptor) int {
		return cmp.Or(cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.Size, b.Size))
	})
	return slices.CompactFunc(list, func(a, b ocispec.Descriptor) bool { return a.Digest == b.Digest && a.Size == b.Size })
}

func (r *remote) pushReferrer(ctx context.Context, subject, desc ocispec.Descriptor, content []byte) error {
	fail := func(err error) error {
		return fmt.Errorf("pushing referrer %s of %s: %w", desc.Digest, subject.Digest, err)
	}
	header, err := r.putManifest(ctx, desc, content, string(desc.Digest))
	if err != nil {
		return fail(err)
	}
	if _, _, err := r.getManifest(ctx, string(desc.Digest), []string{desc.MediaType}); err != nil {
		return fail(fmt.Errorf("reading it back: %w", err))
	}
	if header.Get("OCI-Subject") == string(subject.Digest) {
		// The registry says that it keeps the list. Some lose entries of it when two writers come at once (olareg 0.1.2 does); then it
		// is treated like one that does not keep a list.
		list, err := r.referrersAPI(ctx, subject.Digest)
		if err != nil {
			return fail(fmt.Errorf("reading the list back: %w", err))
		}
		if slices.ContainsFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == desc.Digest }) {
			return nil
		}
	}

	// A tag of its own first: it is complete by itself, and the index below can be lost to another writer, before or after we read it
	// back (5 of 8 survived when it was measured).
	if _, err := r.putManifest(ctx, desc, content, referrerTag(subject.Digest, desc.Digest)); err != nil {
		return fail(err)
	}
	// The index is for other tools. It gets all that is known now, so that each writer repairs what was lost before it.
	known, err := r.referrers(ctx, subject)
	if err != nil {
		return fail(err)
	}
	if !slices.ContainsFunc(known, func(d ocispec.Descriptor) bool { return d.Digest == desc.Digest }) {
		known = append(known, desc)
	}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: known,
	})
	if err != nil {
		return fail(err)
	}
	indexDesc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(index), Size: int64(len(index))}
	if _, err := r.putManifest(ctx, indexDesc, index, referrersTag(subject.Digest)); err != nil {
		return fail(err)
	}
	return nil
}

// A manifestCache keeps the last few manifests: what is resolved is nearly always read next.
type manifestCache struct {
	mu    sync.Mutex
	order []digest.Digest // oldest first
	m     map[digest.Digest][]byte
	size  int
}

const maxManifestCache = 2 * MaxManifest

func (c *manifestCache) get(d digest.Digest) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.m[d]
	return bytes.Clone(b), ok
}

func (c *manifestCache) put(d digest.Digest, content []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.m[d]; ok {
		return
	}
	if c.m == nil {
		c.m = make(map[digest.Digest][]byte)
	}
	c.m[d] = bytes.Clone(content)
	c.order = append(c.order, d)
	c.size += len(content)
	for c.size > maxManifestCache {
		c.size -= len(c.m[c.order[0]])
		delete(c.m, c.order[0])
		c.order = c.order[1:]
	}
}
