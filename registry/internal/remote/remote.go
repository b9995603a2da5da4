// Package remote speaks the OCI distribution protocol to a registry. [Open] gives a [Repository]: manifests, blobs, tags and referrers.
// [Ping] tries a password.
//
// A client logs in, tries again what may pass, and gives up when no byte moves. Blobs are read by ranges and go on where a transfer broke
// off. Mirrors are asked first for what has a digest. Where a registry may lead is decided in one place, elsewhere.go. Manifests are
// hashed before they are returned; ranges of blobs are not checked here. No error has a secret or the query of a URL in it.
package remote

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/davit-oci/davit/registry/internal/credentials"
	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/redact"
	"github.com/davit-oci/davit/registry/internal/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// A Repository is one of a registry that speaks the OCI distribution spec 1.1, or an older one. It is safe for concurrent
// use. Descriptors that it gets have been checked by [oci.Check], those of manifests by [oci.CheckManifest].
type Repository struct {
	c          *client
	name       string   // HOST/REPO
	repository string   // below /v2/
	pull, push []string // token scopes

	mirrors []*Repository // asked first for what has a digest
	ns      url.Values    // for a mirror: whose content is asked for, which is how one mirror serves many registries

	refusesRanges atomic.Bool // they are errors, or cannot be told apart
	refusesHead   atomic.Bool // of blobs: GET is asked instead
	doubted       sync.Map    // by digest: blobs that HEAD finds and that a manifest was refused for
	written       sync.Map    // by digest: what the registry has taken from us
	cache         manifestCache
}

// Open prepares access to a repository. Bytes are counted in s. The registry is not contacted yet. The caller closes the repository.
func Open(host, repository string, o Options, s *oci.Stats) (*Repository, error) {
	if !reference.ValidHost(host) || !reference.ValidRepository(repository) {
		return nil, fmt.Errorf("%w: %q", reference.ErrMalformed, host+"/"+repository)
	}
	o = o.withDefaults()
	r, err := newRepository(host, repository, o, s)
	if err != nil {
		return nil, err
	}
	for _, mirror := range o.Hosts[host].Mirrors {
		at, prefix, _ := strings.Cut(strings.Trim(mirror, "/"), "/")
		mirrored := path.Join(prefix, repository)
		if at = strings.ToLower(at); !reference.ValidHost(at) || !reference.ValidRepository(mirrored) {
			return nil, fmt.Errorf("%w: mirror %q of %s", reference.ErrMalformed, mirror, host)
		}
		once := o
		once.Retries = 0 // the next one may have it, and the registry does
		m, err := newRepository(at, mirrored, once, s)
		if err != nil {
			return nil, err
		}
		m.ns = url.Values{"ns": {host}}
		r.mirrors = append(r.mirrors, m)
	}
	return r, nil
}

func newRepository(host, repository string, o Options, s *oci.Stats) (*Repository, error) {
	credential := func(ctx context.Context, _ string) (auth.Credential, error) {
		c, err := credentials.Find(ctx, o.AuthFile, host, repository)
		if o.OnLogin != nil {
			for _, s := range []string{c.Password, c.RefreshToken, c.AccessToken} {
				o.OnLogin(c.Username, s)
			}
		}
		return c, err
	}
	c, err := newClient(host, credential, o, s)
	if err != nil {
		return nil, fmt.Errorf("preparing to reach %s: %w", host, err)
	}
	return &Repository{
		c:          c,
		name:       host + "/" + repository,
		repository: repository,
		pull:       []string{auth.ScopeRepository(repository, auth.ActionPull)},
		push:       []string{auth.ScopeRepository(repository, auth.ActionPull, auth.ActionPush)},
	}, nil
}

// Close releases connections.
func (r *Repository) Close() error {
	for _, m := range append(r.mirrors, r) {
		m.c.conns.close()
	}
	return nil
}

func (r *Repository) manifestPath(tagOrDigest string) string {
	return r.repository + "/manifests/" + tagOrDigest
}

// Resolve gets the manifest itself, not only its headers: one request instead of two for whoever reads it next, and no header to
// believe.
func (r *Repository) Resolve(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, error) {
	if reference.ValidDigest(digest.Digest(tagOrDigest)) {
		for _, m := range r.mirrors {
			if desc, content, err := m.getManifest(ctx, tagOrDigest, oci.ManifestTypes, oci.MaxManifest); err == nil {
				r.cache.put(desc.Digest, content)
				return desc, nil
			}
		}
	}
	desc, content, err := r.getManifest(ctx, tagOrDigest, oci.ManifestTypes, oci.MaxManifest)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("resolving %s in %s: %w", tagOrDigest, r.name, err)
	}
	r.cache.put(desc.Digest, content)
	return desc, nil
}

// Manifest returns a verified manifest.
func (r *Repository) Manifest(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	content, ok := r.cache.get(desc.Digest)
	if !ok {
		var err error
		for _, m := range r.mirrors {
			// A mirror that has it wrong is one that does not have it.
			if _, content, err = m.getManifest(ctx, string(desc.Digest), []string{desc.MediaType}, desc.Size); err == nil && oci.Verify(content, desc) == nil {
				ok = true
				break
			}
		}
		if !ok {
			if _, content, err = r.getManifest(ctx, string(desc.Digest), []string{desc.MediaType}, desc.Size); err != nil {
				return nil, fmt.Errorf("fetching manifest %s: %w", desc.Digest, err)
			}
		}
	}
	if err := oci.Verify(content, desc); err != nil {
		return nil, err
	}
	r.cache.put(desc.Digest, content)
	return content, nil
}

// getManifest fetches and hashes up to limit bytes: what is longer is not read to its end. Asked by digest, it gives no other content.
func (r *Repository) getManifest(ctx context.Context, tagOrDigest string, accept []string, limit int64) (desc ocispec.Descriptor, content []byte, err error) {
	err = r.c.retry(ctx, func(int) error {
		resp, err := r.c.do(ctx, request{
			method: http.MethodGet,
			path:   r.manifestPath(tagOrDigest),
			query:  r.ns,
			header: http.Header{"Accept": {strings.Join(accept, ", ")}},
			scopes: r.pull,
		}, http.StatusOK)
		if err != nil {
			return r.late(digest.Digest(tagOrDigest), err)
		}
		defer resp.Body.Close()
		where := withoutQuery(resp.Request.URL)
		if content, err = r.readSmall(resp, limit); err != nil {
			return fmt.Errorf("GET %s: %w", where, err)
		}

		desc = ocispec.Descriptor{
			MediaType: oci.ManifestType(content, resp.Header.Get("Content-Type")),
			Digest:    digest.FromBytes(content),
			Size:      int64(len(content)),
		}
		want := cmp.Or(resp.Header.Get("Docker-Content-Digest"), string(desc.Digest))
		if reference.ValidDigest(digest.Digest(tagOrDigest)) {
			want = tagOrDigest
		}
		if want != string(desc.Digest) && strings.HasPrefix(want, "sha256:") {
			return fmt.Errorf("%w: GET %s gave %s, not %s", oci.ErrDigestMismatch, where, desc.Digest, redact.Line(want))
		}
		if !oci.IsManifest(desc.MediaType) {
			return oci.Invalidf("GET %s: media type %q is not that of a manifest", where, redact.Line(desc.MediaType))
		}
		return nil
	})
	return desc, content, err
}

// readSmall reads a body that may have up to limit bytes.
func (r *Repository) readSmall(resp *http.Response, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	r.c.stats.Fetched.Add(int64(len(b)))
	if err != nil {
		return nil, redact.Error(err)
	}
	if int64(len(b)) > limit {
		if limit < oci.MaxManifest { // it was said to have so many
			return nil, fmt.Errorf("%w: more than %d bytes", oci.ErrDigestMismatch, limit)
		}
		return nil, oci.Invalidf("more than %d bytes", limit)
	}
	return b, nil
}

// PushManifest writes by digest and reads back: what is signed and tagged next is what the registry has, not what we think we sent.
func (r *Repository) PushManifest(ctx context.Context, desc ocispec.Descriptor, content []byte) error {
	if _, err := r.putManifest(ctx, desc, content, string(desc.Digest)); err != nil {
		return fmt.Errorf("pushing manifest %s: %w", desc.Digest, err)
	}
	// A registry that does not have it yet is asked again; see late.
	if _, _, err := r.getManifest(ctx, string(desc.Digest), []string{desc.MediaType}, desc.Size); err != nil {
		return fmt.Errorf("reading manifest %s back: %w", desc.Digest, err)
	}
	r.cache.put(desc.Digest, content)
	return nil
}

// putManifest returns the headers of the answer. A registry that misses a blob of the manifest is asked for each of them. If it has
// all, its storage is only slow to agree with itself: the manifest is put again. If not, the [oci.BlobUnknownError] says which are missing.
func (r *Repository) putManifest(ctx context.Context, desc ocispec.Descriptor, content []byte, tagOrDigest string) (header http.Header, err error) {
	for try := 0; ; try++ {
		header, err = r.putManifestOnce(ctx, desc, content, tagOrDigest)
		unknown, ok := errors.AsType[*oci.BlobUnknownError](blobUnknown(err))
		if !ok {
			return header, err
		}
		needed := blobsOf(content)
		missing, err := r.missing(ctx, needed)
		if err != nil {
			return nil, fmt.Errorf("%w; %w", unknown, err)
		}
		if len(missing) > 0 {
			return nil, oci.BlobUnknown(missing, unknown)
		}
		if again, err := r.c.wait(ctx, unknown, try); !again {
			// What it says of a blob by name is more than what it says of all of them.
			unknown.Digests = slices.DeleteFunc(unknown.Digests, func(d digest.Digest) bool {
				return !slices.ContainsFunc(needed, func(n ocispec.Descriptor) bool { return n.Digest == d })
			})
			for _, d := range unknown.Digests {
				r.doubted.Store(d, true)
			}
			if ctx.Err() != nil {
				return nil, err
			}
			return nil, oci.BlobUnknown(unknown.Digests, fmt.Errorf("%w (asked for each of its blobs, the registry says that it has them all)", unknown))
		}
	}
}

func (r *Repository) putManifestOnce(ctx context.Context, desc ocispec.Descriptor, content []byte, tagOrDigest string) (header http.Header, err error) {
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
			return fmt.Errorf("%w: the registry calls it %s", oci.ErrDigestMismatch, redact.Line(got))
		}
		r.written.Store(desc.Digest, true)
		return nil
	})
	return header, err
}

// late makes of an answer that d is not there one that may pass, if the registry has taken it from us: its storage is slow to agree with
// itself.
func (r *Repository) late(d digest.Digest, err error) error {
	if _, taken := r.written.Load(d); !taken || !errors.Is(err, oci.ErrNotFound) {
		return err
	}
	return &lateError{err}
}

// A lateError is no [ErrNotFound]: who pushes has not looked for anything.
type lateError struct{ err error }

func (e *lateError) Error() string {
	return fmt.Sprintf("%v: the registry has taken it, and does not give it back", e.err)
}

// blobsOf are the blobs that a manifest names.
func blobsOf(manifest []byte) []ocispec.Descriptor {
	var m struct {
		Config *ocispec.Descriptor  `json:"config"`
		Layers []ocispec.Descriptor `json:"layers"`
	}
	if json.Unmarshal(manifest, &m) != nil {
		return nil
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	return slices.DeleteFunc(m.Layers, func(d ocispec.Descriptor) bool { return oci.Check(d) != nil })
}

// missing are those of the blobs that the registry does not have.
func (r *Repository) missing(ctx context.Context, blobs []ocispec.Descriptor) ([]digest.Digest, error) {
	there := make([]bool, len(blobs))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.c.o.Jobs)
	for i, desc := range blobs {
		g.Go(func() (err error) {
			there[i], err = r.head(gctx, desc, request{method: http.MethodHead, path: r.blobPath(desc.Digest), scopes: r.push})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var missing []digest.Digest
	for i, desc := range blobs {
		if !there[i] && !slices.Contains(missing, desc.Digest) {
			missing = append(missing, desc.Digest)
		}
	}
	return missing, nil
}

// Tag lets a tag name a manifest that was pushed.
func (r *Repository) Tag(ctx context.Context, desc ocispec.Descriptor, tag string) error {
	content, err := r.Manifest(ctx, desc)
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

// Tags gives every tag, tools' own too.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
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
			if reference.ValidTag(t) { // what is no tag could not be asked for either
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
func (r *Repository) pages(ctx context.Context, rq request, limit int, tooMany error, page func([]byte) error) error {
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
			content, err = r.readSmall(resp, oci.MaxManifest)
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

// A manifestCache keeps the last few manifests: what is resolved is nearly always read next.
type manifestCache struct {
	mu    sync.Mutex
	order []digest.Digest // oldest first
	m     map[digest.Digest][]byte
	size  int
}

const maxManifestCache = 2 * oci.MaxManifest

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
