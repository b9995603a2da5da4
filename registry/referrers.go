package registry

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
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// What a registry, or somebody with push rights, can make us read when referrers are listed. A list is only places to look: what is
// beyond a limit is told ([ErrIncomplete]) and takes nothing from what is before it.
const (
	maxReferrerList    = 8 << 20          // of all pages of the API: 10,000 entries as registries write them have some 5 MiB
	maxReferrerEntries = 1 << 16          // entries of lists, which can be as short as "{}"
	maxReferrerPages   = 1000             // pages can be empty, and each name a next one
	maxReferrers       = 10_000           // tags of referrers that are asked for, and referrers that are read
	maxReferrerBytes   = 16 << 20         // of the manifests of referrers that are read
	maxReferrerTime    = 10 * time.Second // after which no further page or manifest is asked for
	maxListedNotes     = 4 << 10          // annotations of an entry of a list; those that are longer are left out
	referrerJobs       = 64               // referrers asked for at a time: thousands in maxReferrerTime
)

// Referrers are the places to look for manifests whose subject is the one given. They are what lists say: nothing of an entry has been
// fetched or checked, and the size, type and annotations of one are claims. No filter is applied; callers pick by what the manifest
// itself says. None is no error.
//
// Where a registry has the referrers API, its answer is all there is. Where it has none, davit's own tags and the index of the referrers
// tag schema are; the tags come first, since each took a push, and one push writes an index of thousands. What was listed before an
// error is returned with it, and is as good as without; an [ErrIncomplete] means that the rest will not come by asking again.
func (r *Repository) Referrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if err := checkManifestDescriptor(subject); err != nil {
		return nil, err
	}
	list, err := r.backend.referrers(ctx, subject)
	if err != nil {
		err = fmt.Errorf("listing referrers of %s: %w", subject.Digest, err)
	}
	return uniqueReferrers(list), err
}

// ReadReferrers are the manifests whose subject is the one given, sorted by digest. Each has been fetched and verified; MediaType,
// ArtifactType and Annotations are the manifest's own, whatever a list said of it. With an [ErrIncomplete] comes what could be read.
func (r *Repository) ReadReferrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	list, listing := r.Referrers(ctx, subject)
	if listing != nil && !errors.Is(listing, ErrIncomplete) {
		return nil, listing
	}
	found, reading := readReferrers(ctx, subject, list, r.backend.manifest)
	if reading != nil && !errors.Is(reading, ErrIncomplete) {
		return nil, fmt.Errorf("reading referrers of %s: %w", subject.Digest, reading)
	}
	return found, cmp.Or(listing, reading)
}

// readReferrers fetches every manifest of a list and keeps those that say themselves that they refer to subject. What is larger than its
// share of the limit comes last. One that is listed and not there is left out: lists outlive what is in them. One that is wrong costs
// itself.
func readReferrers(ctx context.Context, subject ocispec.Descriptor, list []ocispec.Descriptor,
	fetch func(context.Context, ocispec.Descriptor) ([]byte, error),
) ([]ocispec.Descriptor, error) {
	list = slices.Clone(list)
	const share = maxReferrerBytes / maxReferrers
	slices.SortStableFunc(list, func(a, b ocispec.Descriptor) int { return cmp.Compare(max(a.Size, share), max(b.Size, share)) })

	var (
		keep  = make([]*ocispec.Descriptor, len(list))
		wrong = make([]error, len(list))
		start = time.Now()
		size  int64
		left  int
	)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(referrerJobs)
	for i, desc := range list {
		if wrong[i] = checkManifestDescriptor(desc); wrong[i] != nil {
			continue
		}
		if i >= maxReferrers || desc.Size > maxReferrerBytes-size || time.Since(start) > maxReferrerTime {
			left++
			continue
		}
		size += desc.Size
		g.Go(func() error {
			d, err := readReferrer(gctx, fetch, subject, desc)
			if isInvalid(err) {
				wrong[i] = err
				return nil
			}
			keep[i] = d
			return err
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
	slices.SortFunc(found, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
	wrong = slices.DeleteFunc(wrong, func(err error) bool { return err == nil })
	switch {
	case len(wrong) > 0:
		return found, incompletef("%d of the referrers listed cannot be read: %w", len(wrong), wrong[0])
	case left > 0:
		return found, incompletef("%d referrers more than are looked at", left)
	}
	return found, nil
}

// uniqueReferrers drops what is there twice, and keeps of two the one that says what it is, at the place of the first. Sizes and types
// of one digest differ where a list is wrong about it; which of them is, only fetching tells.
func uniqueReferrers(list []ocispec.Descriptor) []ocispec.Descriptor {
	type id struct {
		digest    digest.Digest
		size      int64
		mediaType string
	}
	at := make(map[id]int, len(list))
	var unique []ocispec.Descriptor
	for _, d := range list {
		i, twice := at[id{d.Digest, d.Size, d.MediaType}]
		switch {
		case !twice:
			at[id{d.Digest, d.Size, d.MediaType}] = len(unique)
			unique = append(unique, d)
		case unique[i].ArtifactType == "":
			unique[i] = d
		}
	}
	return unique
}

func (r *remote) referrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if list, offered, err := r.referrersAPI(ctx, subject.Digest); offered || err != nil {
		return list, err
	}
	return r.referrersByTag(ctx, subject.Digest)
}

// referrersAPI asks the registry's own list. A registry that offers one must have in it what the index of the tag schema had before
// ("Enabling the Referrers API" of the distribution spec), and all that was pushed since: nothing else has to be asked.
func (r *remote) referrersAPI(ctx context.Context, subject digest.Digest) (list []ocispec.Descriptor, offered bool, err error) {
	rq := request{
		method: http.MethodGet,
		path:   r.repository + "/referrers/" + string(subject),
		header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}},
		scopes: r.pull,
	}
	l := referrerList{left: maxReferrerList}
	seen := make(map[string]bool)
	start := time.Now()
	for page := range maxReferrerPages {
		content, next, err := r.referrerPage(ctx, rq, l.left)
		switch {
		case page == 0 && notOffered(err):
			return nil, false, nil
		case notOffered(err):
			return l.entries, true, incompletef("page %d of the list: %w", page+1, err)
		case err != nil:
			return l.entries, page > 0, err
		}
		isIndex, err := l.add(content)
		switch {
		case page == 0 && !isIndex: // a page for humans, from a server that answers everything with one
			return nil, false, nil
		case err != nil:
			return l.entries, true, err
		case !isIndex:
			return l.entries, true, incompletef("page %d of the list is no image index", page+1)
		case next == "":
			return l.entries, true, l.wrong()
		case seen[next]:
			return l.entries, true, incompletef("pages of the list go in circles")
		case time.Since(start) > maxReferrerTime:
			return l.entries, true, incompletef("the list goes on after %v", maxReferrerTime)
		}
		seen[next] = true
		if rq.query, err = url.ParseQuery(next); err != nil {
			return l.entries, true, incompletef("page %d of the list has an unusable Link header", page+1)
		}
	}
	return l.entries, true, incompletef("the list has more than %d pages", maxReferrerPages)
}

// referrerPage reads a page, up to one byte more than it may have.
func (r *remote) referrerPage(ctx context.Context, rq request, limit int) (content []byte, next string, err error) {
	err = r.c.retry(ctx, func(int) error {
		resp, err := r.c.do(ctx, rq, http.StatusOK)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		next = nextPage(resp)
		content, err = io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
		r.c.stats.fetched.Add(int64(len(content)))
		return redact(err)
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

// A referrerList gathers the entries of lists.
type referrerList struct {
	entries    []ocispec.Descriptor
	left       int // bytes that may still be read
	unreadable int // entries
}

// listedReferrer is an entry of a list, as far as it is of use. Annotations are parsed when they are known to be few.
type listedReferrer struct {
	MediaType    string          `json:"mediaType"`
	ArtifactType string          `json:"artifactType"`
	Digest       digest.Digest   `json:"digest"`
	Size         int64           `json:"size"`
	Annotations  json.RawMessage `json:"annotations"`
}

// add takes the entries of an image index, and reports whether content is one. It goes through the text entry by entry: an entry that
// cannot be read costs itself, a text that breaks off what is behind the break.
func (l *referrerList) add(content []byte) (isIndex bool, err error) {
	tooLong := len(content) > l.left
	l.left -= min(len(content), l.left)
	dec := json.NewDecoder(bytes.NewReader(content))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return false, nil
	}
	broken := func(err error) (bool, error) {
		if tooLong {
			err = fmt.Errorf("more than %d bytes", maxReferrerList)
		}
		return isIndex, incompletef("the list: %w", err)
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return broken(err)
		}
		if key != "manifests" {
			var value json.RawMessage
			if err := dec.Decode(&value); err != nil {
				return broken(err)
			}
			isIndex = isIndex || key == "mediaType" && string(value) == `"`+ocispec.MediaTypeImageIndex+`"`
			continue
		}
		open, err := dec.Token()
		if err != nil {
			return broken(err)
		}
		if open == nil {
			continue // null
		}
		if open != json.Delim('[') {
			return broken(errors.New("manifests is no array"))
		}
		isIndex = true
		for dec.More() {
			var e listedReferrer
			err := dec.Decode(&e)
			if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
				l.unreadable++
				continue
			}
			if err != nil {
				return broken(err)
			}
			if len(l.entries) == maxReferrerEntries {
				return isIndex, incompletef("more than %d referrers are listed", maxReferrerEntries)
			}
			l.entries = append(l.entries, e.descriptor())
		}
		if _, err := dec.Token(); err != nil {
			return broken(err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return broken(err)
	}
	if tooLong {
		return broken(nil)
	}
	return isIndex, nil
}

func (e listedReferrer) descriptor() ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: e.MediaType, Digest: e.Digest, Size: e.Size, ArtifactType: e.ArtifactType}
	if len(e.Annotations) <= maxListedNotes {
		_ = json.Unmarshal(e.Annotations, &d.Annotations) // annotations that are none are no reason to look elsewhere
	}
	return d
}

// wrong is an [ErrIncomplete] if there were entries that could not be read.
func (l *referrerList) wrong() error {
	if l.unreadable == 0 {
		return nil
	}
	return incompletef("%d entries of the list cannot be read", l.unreadable)
}

// referrersByTag is for a registry without the API.
func (r *remote) referrersByTag(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
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
	g.Wait() // no error: those of one list do not end the other
	list := slices.Concat(lists[:]...)
	for _, err := range errs { // one that may pass is worth more
		if err != nil && !errors.Is(err, ErrIncomplete) {
			return list, err
		}
	}
	return list, cmp.Or(errs[:]...)
}

// referrersIndex reads the index of the referrers tag schema.
func (r *remote) referrersIndex(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	desc, content, err := r.getManifest(ctx, referrersTag(subject), manifestTypes, MaxManifest)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, nil
	case isInvalid(err):
		return nil, incompletef("the index of the tag %s: %w", referrersTag(subject), err)
	case err != nil || !isIndex(desc.MediaType): // something else has this tag
		return nil, err
	}
	l := referrerList{left: MaxManifest}
	if _, err := l.add(content); err != nil {
		return l.entries, err
	}
	return l.entries, l.wrong()
}

// taggedReferrers asks for what davit's own tags name. Where a registry says it in the headers, nothing is fetched: whoever can push
// could have tagged much.
func (r *remote) taggedReferrers(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	all, err := r.tags(ctx)
	if notOffered(err) || errors.Is(err, errTooManyTags) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, tag := range all {
		if suffix, ok := strings.CutPrefix(tag, referrersTag(subject)+"."); ok && referrerSuffix.MatchString(suffix) {
			tags = append(tags, tag)
		}
	}
	start := time.Now()
	found := make([]*ocispec.Descriptor, len(tags))
	left := max(0, len(tags)-maxReferrers)
	var size atomic.Int64
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(referrerJobs)
	for i, tag := range tags[:len(tags)-left] {
		if size.Load() > maxReferrerBytes || time.Since(start) > maxReferrerTime {
			left += len(tags[:len(tags)-left]) - i
			break
		}
		g.Go(func() error {
			desc, fetched, err := r.lookUp(gctx, tag)
			size.Add(fetched)
			switch {
			case errors.Is(err, ErrNotFound), isInvalid(err): // deleted since, or something else has this tag
				return nil
			case err != nil:
				return err
			}
			if referrerTag(subject, desc.Digest) == tag {
				found[i] = &desc
			}
			return nil
		})
	}
	err = g.Wait()
	if err == nil && left > 0 {
		err = incompletef("%d tags of referrers more than are looked at", left)
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
func (r *remote) lookUp(ctx context.Context, tag string) (desc ocispec.Descriptor, fetched int64, err error) {
	err = r.c.retry(ctx, func(int) error {
		resp, err := r.c.do(ctx, request{
			method: http.MethodHead,
			path:   r.manifestPath(tag),
			header: http.Header{"Accept": {strings.Join(manifestTypes, ", ")}},
			scopes: r.pull,
		}, http.StatusOK)
		if err != nil {
			return err
		}
		resp.Body.Close()
		desc = ocispec.Descriptor{
			MediaType: manifestType(nil, resp.Header.Get("Content-Type")),
			Digest:    digest.Digest(resp.Header.Get("Docker-Content-Digest")),
			Size:      resp.ContentLength,
		}
		return nil
	})
	if err != nil && !isInvalid(err) && statusOf(err) != http.StatusNotImplemented || err == nil && checkManifestDescriptor(desc) == nil {
		return desc, 0, err
	}
	desc, err = r.resolve(ctx, tag)
	return desc, desc.Size, err
}

// errUnlisted: a registry says that it keeps the list of referrers, and the list lacks what was pushed. It may be late; and some lose
// entries when two writers come at once (olareg 0.1.2 does).
var errUnlisted = errors.New("the registry has taken it, but its list of referrers does not have it")

func (r *remote) pushReferrer(ctx context.Context, subject, desc ocispec.Descriptor, content []byte) error {
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
	if _, err := r.putManifest(ctx, desc, content, referrerTag(subject.Digest, desc.Digest)); err != nil {
		return fail(err)
	}
	if err := r.mendIndex(ctx, subject.Digest, desc); err != nil {
		return fail(err)
	}
	return nil
}

// awaitListed reports whether the referrers API lists desc. Readers ask nothing else where there is one, so that one that does not list
// it is an error. No API is not. Whether it is behind the end of what is read of a list, nobody can tell; who verifies cannot, either.
func (r *remote) awaitListed(ctx context.Context, subject digest.Digest, desc ocispec.Descriptor, content []byte) (listed bool, err error) {
	var failed error // what goes wrong with a request was tried again already
	err = r.c.retry(ctx, func(try int) error {
		if try > 0 {
			if _, failed = r.putManifest(ctx, desc, content, string(desc.Digest)); failed != nil {
				return nil
			}
		}
		list, offered, err := r.referrersAPI(ctx, subject)
		if err != nil && !errors.Is(err, ErrIncomplete) {
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
func (r *remote) mendIndex(ctx context.Context, subject digest.Digest, desc ocispec.Descriptor) error {
	known, err := r.referrersByTag(ctx, subject)
	if err != nil && !errors.Is(err, ErrIncomplete) {
		return fmt.Errorf("listing the others: %w", err)
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{desc}}
	for _, d := range uniqueReferrers(known) {
		if d.Digest == desc.Digest || checkManifestDescriptor(d) != nil {
			continue
		}
		if d.ArtifactType == "" { // of a tag of davit's, which the index has lost
			if content, err := r.manifest(ctx, d); err == nil {
				if m, err := parseReferrer(content); err == nil {
					d = m.describe(d)
				}
			}
		}
		index.Manifests = append(index.Manifests, d)
	}
	content, err := json.Marshal(index)
	if err != nil || len(content) > MaxManifest {
		return err // a heap of others leaves no place; davit finds its own by their tags
	}
	indexDesc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(content), Size: int64(len(content))}
	_, err = r.putManifest(ctx, indexDesc, content, referrersTag(subject))
	return err
}

// referrers reads the manifests that index.json lists, and those that a listed index has in it: other tools copy the referrers tag
// schema into layouts as an index. A layout holds all there is, not the referrers of one subject, so that each has to be read; those
// that cannot be read could be referrers and are listed as such.
func (l *layout) referrers(ctx context.Context, subject ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	index, err := l.files.index()
	if err != nil {
		return nil, err
	}
	list := slices.Clone(index.Manifests)
	for _, d := range index.Manifests {
		if d.Annotations[ocispec.AnnotationRefName] != referrersTag(subject.Digest) || !isIndex(d.MediaType) || checkManifestDescriptor(d) != nil {
			continue
		}
		content, err := l.manifest(ctx, d)
		if errors.Is(err, ErrNotFound) || isInvalid(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		inner := referrerList{left: MaxManifest}
		if _, err := inner.add(content); err != nil {
			continue
		}
		list = append(list, inner.entries...)
	}
	list = slices.DeleteFunc(list, func(d ocispec.Descriptor) bool {
		return checkManifestDescriptor(d) != nil || d.Digest == subject.Digest
	})
	list = uniqueReferrers(list)
	slices.SortStableFunc(list, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Size, b.Size) })

	start := time.Now()
	found := make([]*ocispec.Descriptor, len(list))
	left := 0
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(layoutJobs)
	for i, desc := range list {
		if time.Since(start) > maxReferrerTime {
			left = len(list) - i
			break
		}
		g.Go(func() error {
			d, err := readReferrer(gctx, l.manifest, subject, desc)
			if isInvalid(err) {
				found[i] = &desc
				return nil
			}
			found[i] = d
			return err
		})
	}
	err = g.Wait()
	if err == nil && left > 0 {
		err = incompletef("%d manifests of the layout were not looked at within %v", left, maxReferrerTime)
	}
	var refer []ocispec.Descriptor
	for _, d := range found {
		if d != nil {
			refer = append(refer, *d)
		}
	}
	return refer, err
}

// readReferrer fetches what is listed as a referrer of subject. It returns what the manifest says of itself, nil if it is not there or
// does not refer to subject.
func readReferrer(ctx context.Context, fetch func(context.Context, ocispec.Descriptor) ([]byte, error), subject, desc ocispec.Descriptor) (*ocispec.Descriptor, error) {
	content, err := fetch(ctx, desc)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := parseReferrer(content)
	if err != nil || m.Subject == nil || m.Subject.Digest != subject.Digest {
		return nil, nil
	}
	desc.MediaType = cmp.Or(m.MediaType, desc.MediaType)
	d := m.describe(desc)
	return &d, nil
}

// layoutJobs is how many manifests of a layout are read at a time.
const layoutJobs = 4
