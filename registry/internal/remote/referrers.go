package remote

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/redact"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// Referrers lists places to look, also beside an error.
func (r *Repository) Referrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if list, offered, err := r.referrersAPI(ctx, subject.Digest); offered || err != nil {
		return list, err
	}
	return r.referrersByTag(ctx, subject.Digest)
}

// maxReferrerPages bounds a list of referrers: pages can be empty, and each name a next one.
const maxReferrerPages = 1000

// referrersAPI asks the registry's own list. A registry that offers one must have in it what the index of the tag schema had before
// ("Enabling the Referrers API" of the distribution spec), and all that was pushed since: nothing else has to be asked.
func (r *Repository) referrersAPI(ctx context.Context, subject digest.Digest) (list []ocispec.Descriptor, offered bool, err error) {
	rq := request{
		method: http.MethodGet,
		path:   r.repository + "/referrers/" + string(subject),
		header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}},
		scopes: r.pull,
	}
	l := oci.ReferrerList{Left: oci.MaxReferrerList}
	seen := make(map[string]bool)
	start := time.Now()
	for page := range maxReferrerPages {
		content, next, err := r.referrerPage(ctx, rq, l.Left)
		switch {
		case page == 0 && notOffered(err):
			return nil, false, nil
		case notOffered(err):
			return l.Entries, true, oci.Incompletef("page %d of the list: %w", page+1, err)
		case err != nil:
			return l.Entries, page > 0, err
		}
		isIndex, err := l.Add(content)
		switch {
		case page == 0 && !isIndex: // a page for humans, from a server that answers everything with one
			return nil, false, nil
		case err != nil:
			return l.Entries, true, err
		case !isIndex:
			return l.Entries, true, oci.Incompletef("page %d of the list is no image index", page+1)
		case next == "":
			return l.Entries, true, l.Incomplete()
		case seen[next]:
			return l.Entries, true, oci.Incompletef("pages of the list go in circles")
		case time.Since(start) > oci.MaxReferrerTime:
			return l.Entries, true, oci.Incompletef("the list goes on after %v", oci.MaxReferrerTime)
		}
		seen[next] = true
		if rq.query, err = url.ParseQuery(next); err != nil {
			return l.Entries, true, oci.Incompletef("page %d of the list has an unusable Link header", page+1)
		}
	}
	return l.Entries, true, oci.Incompletef("the list has more than %d pages", maxReferrerPages)
}

// referrerPage reads a page, up to one byte more than it may have.
func (r *Repository) referrerPage(ctx context.Context, rq request, limit int) (content []byte, next string, err error) {
	err = r.c.retry(ctx, func(int) error {
		resp, err := r.c.do(ctx, rq, http.StatusOK)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		next = nextPage(resp)
		content, err = io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
		r.c.stats.Fetched.Add(int64(len(content)))
		return redact.Error(err)
	})
	return content, next, err
}

// notOffered reports whether a registry refuses a request of a kind that it need not serve: it has no such API, or keeps this one to
// itself. Who may not read at all has failed before, with the manifest itself.
func notOffered(err error) bool {
	e, ok := errors.AsType[*responseError](err)
	return ok && (e.status/100 == 4 || e.status == http.StatusNotImplemented) &&
		e.status != http.StatusTooManyRequests && e.status != http.StatusRequestTimeout && !e.limited
}

// referrersByTag is for a registry without the API.
func (r *Repository) referrersByTag(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	var lists [2][]ocispec.Descriptor
	var errs [2]error
	var g errgroup.Group
	g.Go(func() error {
		lists[0], errs[0] = r.taggedReferrers(ctx, subject)
		return nil
	})
	g.Go(func() error {
		lists[1], errs[1] = r.referrersIndex(ctx, subject)
		return nil
	})
	_ = g.Wait() // its functions return nil: an error of one list does not end the other
	list := slices.Concat(lists[:]...)
	for _, err := range errs { // one that may pass is worth more
		if err != nil && !errors.Is(err, oci.ErrIncomplete) {
			return list, err
		}
	}
	return list, cmp.Or(errs[:]...)
}

// referrersIndex reads the index of the referrers tag schema.
func (r *Repository) referrersIndex(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	desc, content, err := r.getManifest(ctx, oci.ReferrersTag(subject), oci.ManifestTypes, oci.MaxManifest)
	switch {
	case errors.Is(err, oci.ErrNotFound):
		return nil, nil
	case oci.IsInvalid(err):
		return nil, oci.Incompletef("the index of the tag %s: %w", oci.ReferrersTag(subject), err)
	case err != nil || !oci.IsIndex(desc.MediaType): // something else has this tag
		return nil, err
	}
	l := oci.ReferrerList{Left: oci.MaxManifest}
	if _, err := l.Add(content); err != nil {
		return l.Entries, err
	}
	return l.Entries, l.Incomplete()
}

// referrerSuffix is what davit puts behind the tag of the schema.
var referrerSuffix = regexp.MustCompile(`^[0-9a-f]{16}$`)

// taggedReferrers asks for what davit's own tags name. Where a registry says it in the headers, nothing is fetched: whoever can push
// could have tagged much.
func (r *Repository) taggedReferrers(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	all, err := r.Tags(ctx)
	if notOffered(err) || errors.Is(err, errTooManyTags) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, tag := range all {
		if suffix, ok := strings.CutPrefix(tag, oci.ReferrersTag(subject)+"."); ok && referrerSuffix.MatchString(suffix) {
			tags = append(tags, tag)
		}
	}
	start := time.Now()
	found := make([]*ocispec.Descriptor, len(tags))
	left := max(0, len(tags)-oci.MaxReferrers)
	var size atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(oci.ReferrerJobs)
	for i, tag := range tags[:len(tags)-left] {
		if size.Load() > oci.MaxReferrerBytes || time.Since(start) > oci.MaxReferrerTime {
			left += len(tags[:len(tags)-left]) - i
			break
		}
		g.Go(func() error {
			desc, fetched, err := r.lookUp(gctx, tag)
			size.Add(fetched)
			switch {
			case errors.Is(err, oci.ErrNotFound), oci.IsInvalid(err): // deleted since, or something else has this tag
				return nil
			case err != nil:
				return err
			}
			if oci.ReferrerTag(subject, desc.Digest) == tag {
				found[i] = &desc
			}
			return nil
		})
	}
	err = g.Wait()
	if err == nil && left > 0 {
		err = oci.Incompletef("%d tags of referrers more than are looked at", left)
	}
	var list []ocispec.Descriptor
	for _, d := range found {
		if d != nil {
			list = append(list, *d)
		}
	}
	return list, err
}

// lookUp is what the registry says a tag is, as a place to look. It fetches the manifest only if the headers do not say it.
func (r *Repository) lookUp(ctx context.Context, tag string) (desc ocispec.Descriptor, fetched int64, err error) {
	err = r.c.retry(ctx, func(int) error {
		resp, err := r.c.do(ctx, request{
			method: http.MethodHead,
			path:   r.manifestPath(tag),
			header: http.Header{"Accept": {strings.Join(oci.ManifestTypes, ", ")}},
			scopes: r.pull,
		}, http.StatusOK)
		if err != nil {
			return err
		}
		resp.Body.Close()
		desc = ocispec.Descriptor{
			MediaType: oci.ManifestType(nil, resp.Header.Get("Content-Type")),
			Digest:    digest.Digest(resp.Header.Get("Docker-Content-Digest")),
			Size:      resp.ContentLength,
		}
		return nil
	})
	if err != nil && !oci.IsInvalid(err) && statusOf(err) != http.StatusNotImplemented || err == nil && oci.CheckManifest(desc) == nil {
		return desc, 0, err
	}
	desc, err = r.Resolve(ctx, tag)
	return desc, desc.Size, err
}

// errUnlisted: a registry says that it keeps the list of referrers, and the list lacks what was pushed. It may be late; and some lose
// entries when two writers come at once (olareg 0.1.2 does).
var errUnlisted = errors.New("the registry has taken it, but its list of referrers does not have it")

// PushReferrer pushes a manifest that refers to subject, and sees to it that it is found: desc is as the entry of a list has it.
func (r *Repository) PushReferrer(ctx context.Context, subject, desc ocispec.Descriptor, content []byte) error {
	fail := func(err error) error {
		return fmt.Errorf("pushing referrer %s of %s: %w", desc.Digest, subject.Digest, err)
	}
	header, err := r.putManifest(ctx, desc, content, string(desc.Digest))
	if err != nil {
		return fail(err)
	}
	if _, _, err := r.getManifest(ctx, string(desc.Digest), []string{desc.MediaType}, desc.Size); err != nil {
		return fail(fmt.Errorf("reading it back: %w", err))
	}
	if header.Get("OCI-Subject") == string(subject.Digest) {
		listed, err := r.awaitListed(ctx, subject.Digest, desc, content)
		if err != nil {
			return fail(err)
		}
		if listed {
			return nil
		}
	}

	// A tag of its own first: it is complete by itself, and the index below can be lost to another writer, before or after we read it
	// back (5 of 8 survived when it was measured).
	if _, err := r.putManifest(ctx, desc, content, oci.ReferrerTag(subject.Digest, desc.Digest)); err != nil {
		return fail(err)
	}
	if err := r.mendIndex(ctx, subject.Digest, desc); err != nil {
		return fail(err)
	}
	return nil
}

// awaitListed reports whether the referrers API lists desc. Readers ask nothing else where there is one, so that one that does not list
// it is an error. No API is not. Whether it is behind the end of what is read of a list, nobody can tell; who verifies cannot, either.
func (r *Repository) awaitListed(ctx context.Context, subject digest.Digest, desc ocispec.Descriptor, content []byte) (listed bool, err error) {
	var failed error // what goes wrong with a request was tried again already
	err = r.c.retry(ctx, func(try int) error {
		if try > 0 {
			if _, failed = r.putManifest(ctx, desc, content, string(desc.Digest)); failed != nil {
				return nil //nolint:nilerr // failed is looked at below
			}
		}
		list, offered, err := r.referrersAPI(ctx, subject)
		if err != nil && !errors.Is(err, oci.ErrIncomplete) {
			failed = fmt.Errorf("reading the list back: %w", err)
			return nil
		}
		listed = err != nil || slices.ContainsFunc(list, func(d ocispec.Descriptor) bool { return d.Digest == desc.Digest })
		if offered && !listed {
			return errUnlisted
		}
		return nil
	})
	if failed != nil {
		return false, failed
	}
	return listed, err
}

// mendIndex puts desc into the index of the tag schema, which is for other tools. The index gets all that is known now, so that each
// writer repairs what was lost before it.
func (r *Repository) mendIndex(ctx context.Context, subject digest.Digest, desc ocispec.Descriptor) error {
	known, err := r.referrersByTag(ctx, subject)
	if err != nil && !errors.Is(err, oci.ErrIncomplete) {
		return fmt.Errorf("listing the others: %w", err)
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{desc}}
	for _, d := range oci.UniqueReferrers(known) {
		if d.Digest == desc.Digest || oci.CheckManifest(d) != nil {
			continue
		}
		if d.ArtifactType == "" { // of a tag of davit's, which the index has lost
			if content, err := r.Manifest(ctx, d); err == nil {
				if m, err := oci.ParseReferrer(content); err == nil {
					d = m.Describe(d)
				}
			}
		}
		index.Manifests = append(index.Manifests, d)
	}
	content, err := json.Marshal(index)
	if err != nil || len(content) > oci.MaxManifest {
		return err // a heap of others leaves no place; davit finds its own by their tags
	}
	indexDesc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(content), Size: int64(len(content))}
	_, err = r.putManifest(ctx, indexDesc, content, oci.ReferrersTag(subject))
	return err
}
