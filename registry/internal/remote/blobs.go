package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/redact"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (r *Repository) blobPath(d digest.Digest) string { return r.repository + "/blobs/" + string(d) }

// FetchRange sends the first request before it returns, so that a missing blob is an error here and not in the middle of reading.
func (r *Repository) FetchRange(ctx context.Context, desc ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	b := &rangeReader{ctx: ctx, r: r, desc: desc, off: off, end: off + n}
	if n == 0 {
		return b, nil
	}
	for _, m := range r.mirrors {
		b.from = m
		if b.open() == nil {
			return b, nil
		}
	}
	b.from = r
	for {
		err := b.open()
		if err == nil {
			b.tries = 0
			return b, nil
		}
		if err := b.failed(err); err != nil {
			return nil, err
		}
	}
}

// A rangeReader reads [off, end) of a blob over as many responses as it takes. It holds a context because it is an io.Reader.
type rangeReader struct {
	ctx      context.Context
	r        *Repository
	from     *Repository // r, or a mirror of it until that fails
	desc     ocispec.Descriptor
	off, end int64         // what is still to be read
	body     io.ReadCloser // positioned at off, or nil
	tries    int           // failures since enough has been read for progress
	progress int64

	ranged  bool // the last request was for a range
	noRange bool // the whole blob is asked for, and what is before off thrown away
	never   bool // and that will not change
	closed  bool
}

// enoughProgress is how much a connection must bring before its failure counts as the first one again. A registry that gives a byte
// per request is given up; one that is cut every few MB is read to the end.
const enoughProgress = 256 << 10

var (
	errShort  = errors.New("the response ended early")
	errClosed = errors.New("read after Close")
)

func (b *rangeReader) Read(p []byte) (int, error) {
	if b.closed {
		return 0, errClosed
	}
	if b.off == b.end {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if b.ctx.Err() != nil { // what has arrived already would go on for a while
		return 0, context.Cause(b.ctx)
	}
	p = p[:min(int64(len(p)), b.end-b.off)]
	for {
		if b.body != nil {
			n, err := b.body.Read(p)
			b.off += int64(n)
			b.progress += int64(n)
			b.r.c.stats.Fetched.Add(int64(n))
			if n > 0 {
				return n, nil // if err is not nil, the next Read gets it again
			}
			if err == nil {
				continue
			}
			b.body.Close()
			b.body = nil
			if err == io.EOF {
				err = errShort
			}
			if err := b.failed(fmt.Errorf("after %d bytes: %w", b.progress, redact.Error(err))); err != nil {
				return 0, err
			}
		}
		if err := b.open(); err != nil {
			if err := b.failed(err); err != nil {
				return 0, err
			}
		}
	}
}

// failed returns nil when it is time for another try.
func (b *rangeReader) failed(err error) error {
	if b.from != b.r {
		b.from, b.progress = b.r, 0
		return nil
	}
	if b.progress >= enoughProgress {
		b.tries, b.progress = 0, 0
	}
	ranged := b.ranged && b.ctx.Err() == nil
	if ranged && b.doubtsRanges(err) {
		return nil
	}
	again, failure := b.r.c.pause(b.ctx, err, b.tries)
	b.tries++
	if again {
		return nil
	}
	if ranged && statusOf(err) == http.StatusInternalServerError {
		b.noRange = true
		return nil
	}
	return fmt.Errorf("fetching blob %s: %w", b.desc.Digest, failure)
}

// doubtsRanges reports whether the next request should be for the whole blob: a registry, or a proxy before it, that cannot give
// parts may still give that.
func (b *rangeReader) doubtsRanges(err error) bool {
	switch statusOf(err) {
	case http.StatusRequestedRangeNotSatisfiable:
		b.noRange, b.never = true, true
	case http.StatusBadRequest, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusPreconditionFailed, http.StatusNotImplemented:
		b.noRange = !b.r.c.mayPass(err) // a rate limit can be a 403
	default:
		// One that mixes up a range may do better the next time.
		b.never = errors.Is(err, errBadRange) && b.tries > 0
		b.noRange = b.never
	}
	return b.noRange
}

// open requests what is left, beginning at the registry: a redirect's target may have expired since.
func (b *rangeReader) open() error {
	rq := request{
		method: http.MethodGet,
		path:   b.from.blobPath(b.desc.Digest),
		query:  b.from.ns,
		header: http.Header{"Accept": {"*/*"}},
		scopes: b.from.pull,
	}
	whole := b.off == 0 && b.end == b.desc.Size || b.noRange || b.from.refusesRanges.Load()
	b.ranged = !whole
	if b.ranged {
		rq.header.Set("Range", fmt.Sprintf("bytes=%d-%d", b.off, b.end-1))
	}
	resp, err := b.from.c.do(b.ctx, rq, http.StatusOK, http.StatusPartialContent)
	if err != nil {
		return b.from.late(b.desc.Digest, err)
	}
	if err := b.accept(resp); err != nil {
		resp.Body.Close()
		return err
	}
	b.body = resp.Body
	return nil
}

// accept checks that resp is the blob, or a part of it that begins at off, and leaves its body there.
func (b *rangeReader) accept(resp *http.Response) error {
	where := withoutQuery(resp.Request.URL)
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return fmt.Errorf("GET %s: answered in content encoding %q", where, redact.Line(e))
	}
	// All of it, as was asked for: that it is called a part changes nothing.
	all := resp.StatusCode == http.StatusPartialContent && !b.ranged && resp.Header.Get("Content-Range") == "" && resp.ContentLength == b.desc.Size
	if resp.StatusCode == http.StatusPartialContent && !all {
		first, last, size, err := parseContentRange(resp.Header.Get("Content-Range"))
		switch {
		case err != nil:
			return fmt.Errorf("GET %s: %w: %w", where, errBadRange, err)
		case first != b.off || last >= b.end:
			return fmt.Errorf("GET %s: %w: asked for bytes %d-%d, got %d-%d", where, errBadRange, b.off, b.end-1, first, last)
		case size >= 0 && size != b.desc.Size:
			return fmt.Errorf("%w: %s has %d bytes in the registry, not %d", oci.ErrDigestMismatch, b.desc.Digest, size, b.desc.Size)
		}
		// What comes after last is not the blob's. If it ends before end, the rest is asked for next.
		resp.Body = &limited{resp.Body, last - first + 1}
		return nil
	}

	if resp.ContentLength >= 0 && resp.ContentLength != b.desc.Size {
		return fmt.Errorf("%w: %s has %d bytes in the registry, not %d", oci.ErrDigestMismatch, b.desc.Digest, resp.ContentLength, b.desc.Size)
	}
	if b.never { // it gives what it did not give by range: the next reader need not ask
		b.from.refusesRanges.Store(true)
	}
	n, err := io.CopyN(io.Discard, resp.Body, b.off)
	b.r.c.stats.Fetched.Add(n)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errShort
		}
		return fmt.Errorf("GET %s: skipping to byte %d: %w", where, b.off, redact.Error(err))
	}
	return nil
}

// errBadRange: a proxy or cache that mixes up ranges may do better the next time.
var errBadRange = fmt.Errorf("wrong Content-Range: %w", errShort)

type limited struct {
	io.ReadCloser
	n int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.n <= 0 {
		return 0, io.EOF
	}
	n, err := l.ReadCloser.Read(p[:min(int64(len(p)), l.n)])
	l.n -= int64(n)
	return n, err
}

// parseContentRange reads "bytes FIRST-LAST/SIZE" (RFC 9110 section 14.4). size is -1 for "*".
func parseContentRange(h string) (first, last, size int64, err error) {
	fail := func() (int64, int64, int64, error) {
		return 0, 0, 0, fmt.Errorf("%q", redact.Line(h))
	}
	rest, ok := strings.CutPrefix(h, "bytes ")
	if !ok {
		return fail()
	}
	span, total, ok := strings.Cut(rest, "/")
	if !ok {
		return fail()
	}
	a, z, ok := strings.Cut(span, "-")
	if !ok {
		return fail()
	}
	number := func(s string) int64 {
		n, err := strconv.ParseUint(s, 10, 63)
		if err != nil {
			return -1
		}
		return int64(n)
	}
	first, last, size = number(a), number(z), number(total)
	if first < 0 || last < first || total != "*" && size <= last {
		return fail()
	}
	return first, last, size, nil
}

func (b *rangeReader) Close() error {
	b.closed = true
	if b.body != nil {
		b.body.Close() // an error of a response that is not wanted any more says nothing
		b.body = nil
	}
	return nil
}

// Exists reports whether the manifest or blob is there. A registry's word is all it rests on.
func (r *Repository) Exists(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	if _, doubted := r.doubted.Load(desc.Digest); doubted {
		return false, nil
	}
	rq := request{method: http.MethodHead, path: r.blobPath(desc.Digest), scopes: r.pull}
	if oci.IsManifest(desc.MediaType) {
		rq.path = r.manifestPath(string(desc.Digest))
		rq.header = http.Header{"Accept": {desc.MediaType}}
	}
	return r.head(ctx, desc, rq)
}

// head asks whether desc is there, by rq or, of a registry that knows no HEAD, by GET.
func (r *Repository) head(ctx context.Context, desc ocispec.Descriptor, rq request) (bool, error) {
	found := false
	err := r.c.retry(ctx, func(int) error {
		if r.refusesHead.Load() {
			rq.method = http.MethodGet
			if !oci.IsManifest(desc.MediaType) && desc.Size > 1 {
				rq.header = http.Header{"Range": {"bytes=0-0"}} // as little as can be asked for
			}
		}
		resp, err := r.c.do(ctx, rq, http.StatusOK, http.StatusPartialContent)
		if code := statusOf(err); rq.method == http.MethodHead && (code == http.StatusMethodNotAllowed || code == http.StatusNotImplemented) {
			r.refusesHead.Store(true)
			return errNoHead
		}
		if err != nil {
			return err
		}
		resp.Body.Close()
		size := resp.ContentLength
		if resp.StatusCode == http.StatusPartialContent {
			if _, _, size, err = parseContentRange(resp.Header.Get("Content-Range")); err != nil {
				size = -1
			}
		}
		// Something of another size is not it: to a push that is a reason to send it again.
		found = size < 0 || size == desc.Size
		return nil
	})
	if errors.Is(err, errNoHead) {
		return r.head(ctx, desc, rq)
	}
	if errors.Is(err, oci.ErrNotFound) {
		return false, nil
	}
	if code := statusOf(err); rq.method == http.MethodGet && code/100 == 4 && code != http.StatusUnauthorized && !r.c.mayPass(err) {
		return false, nil // nothing is known of it: whether it is there shows when it is read or pushed
	}
	if err != nil {
		return false, fmt.Errorf("looking for %s: %w", desc.Digest, err)
	}
	return found, nil
}

var errNoHead = errors.New("the registry knows no HEAD")

// PushBlob sends HEAD, then POST and PUT ("POST then PUT" of the distribution spec), and tries again as a whole: half an upload is worth
// nothing on many registries, and the rest of them differ in how they say what they have.
func (r *Repository) PushBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	chunked := false
	_, doubted := r.doubted.LoadAndDelete(desc.Digest)
	err := r.c.retry(ctx, func(try int) error {
		if !doubted || try > 0 {
			// Also before each further try: the answer to the last one may be all that was lost.
			found, err := r.head(ctx, desc, request{method: http.MethodHead, path: r.blobPath(desc.Digest), scopes: r.push})
			if err != nil || found {
				return err
			}
		}
		if !chunked {
			err := r.putBlob(ctx, desc, open)
			if statusOf(err) != http.StatusRequestEntityTooLarge {
				return err
			}
			chunked = true // from now on for this blob; another may be small enough
		}
		return r.patchBlob(ctx, desc, open)
	})
	if err != nil {
		if e, ok := errors.AsType[*responseError](err); ok && e.has("DIGEST_INVALID") {
			err = fmt.Errorf("%w: %w", oci.ErrDigestMismatch, err)
		}
		return fmt.Errorf("pushing blob %s: %w", desc.Digest, err)
	}
	return nil
}

// startUpload opens an upload session. It returns the header of the answer, and where the session goes on.
func (r *Repository) startUpload(ctx context.Context) (http.Header, *url.URL, error) {
	resp, err := r.c.do(ctx, request{
		method: http.MethodPost,
		path:   r.repository + "/blobs/uploads/",
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		scopes: r.push,
	}, http.StatusAccepted)
	if err != nil {
		return nil, nil, err
	}
	resp.Body.Close()
	u, err := location(resp)
	return resp.Header, u, err
}

// location is where a session goes on. It may be relative, and may have a query that must be kept.
func location(resp *http.Response) (*url.URL, error) {
	u, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, fmt.Errorf("%s %s: no usable Location in the answer", resp.Request.Method, withoutQuery(resp.Request.URL))
	}
	return settle(resp.Request.URL, u), nil
}

// expectContinue is the size from which a body waits for the registry's consent: a 401 or 413 then costs a round trip and not the
// body, and is not lost to a reset either.
const expectContinue = 1 << 20

func (r *Repository) putBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	_, u, err := r.startUpload(ctx)
	if err != nil {
		return err
	}
	rq := request{
		method: http.MethodPut,
		url:    u,
		query:  url.Values{"digest": {string(desc.Digest)}},
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		body:   open,
		size:   desc.Size,
		scopes: r.push,
	}
	if err := r.commit(ctx, rq, desc); err != nil {
		r.cancelUpload(ctx, u)
		return err
	}
	return nil
}

// commit sends the request that ends an upload. 201 is what the distribution spec has for success; of any other, the blob itself is the
// proof.
func (r *Repository) commit(ctx context.Context, rq request, desc ocispec.Descriptor) error {
	resp, err := r.sendBody(ctx, rq, http.StatusCreated, http.StatusOK, http.StatusAccepted, http.StatusNoContent)
	if err != nil {
		return err
	}
	r.written.Store(desc.Digest, true)
	if resp.StatusCode == http.StatusCreated {
		return resp.Body.Close()
	}
	answer := newResponseError(resp)
	found, err := r.head(ctx, desc, request{method: http.MethodHead, path: r.blobPath(desc.Digest), scopes: r.push})
	if err == nil && !found {
		err = fmt.Errorf("%w, and the blob is not there", answer)
	}
	return err
}

// sendBody sends rq once the registry consents, if its body is large enough to ask.
func (r *Repository) sendBody(ctx context.Context, rq request, want ...int) (*http.Response, error) {
	if rq.size >= expectContinue {
		rq.header.Set("Expect", "100-continue")
	}
	resp, err := r.c.do(ctx, rq, want...)
	if statusOf(err) == http.StatusExpectationFailed {
		delete(rq.header, "Expect")
		resp, err = r.c.do(ctx, rq, want...)
	}
	return resp, err
}

// patchChunk is what a request of a chunked upload carries at first: under the 100 MB at which the common proxies stop.
const (
	patchChunk    = 32 << 20
	minPatchChunk = 1 << 20
	maxPatchChunk = 1 << 30 // of what a registry may ask for
)

// patchBlob uploads in several requests, for proxies that limit one. It does not hold chunks in memory: a chunk that fails starts the
// whole again.
func (r *Repository) patchBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	size := int64(patchChunk)
	for {
		err := r.patchBlobBy(ctx, desc, open, size)
		if statusOf(err) == http.StatusRequestEntityTooLarge && size > minPatchChunk {
			size /= 4
			continue
		}
		return err
	}
}

func (r *Repository) patchBlobBy(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error), size int64) (err error) {
	answer, u, err := r.startUpload(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			r.cancelUpload(ctx, u)
		}
	}()
	if n, err := strconv.ParseInt(answer.Get("OCI-Chunk-Min-Length"), 10, 64); err == nil && n <= maxPatchChunk {
		size = max(size, n)
	}
	content := &rewinder{open: open}
	defer content.Close()

	for off := int64(0); off < desc.Size; {
		n := min(size, desc.Size-off)
		rq := request{
			method: http.MethodPatch,
			url:    u,
			header: http.Header{
				"Content-Type":  {"application/octet-stream"},
				"Content-Range": {fmt.Sprintf("%d-%d", off, off+n-1)},
			},
			body:   func() (io.ReadCloser, error) { return content.section(off, n) },
			size:   n,
			scopes: r.push,
		}
		// 201 is what ECR answers.
		resp, err := r.sendBody(ctx, rq, http.StatusAccepted, http.StatusNoContent, http.StatusCreated)
		if err != nil {
			return err
		}
		resp.Body.Close()
		off += n
		if resp.Header.Get("Location") == "" {
			continue // the session stays where it is
		}
		if u, err = location(resp); err != nil {
			return err
		}
	}
	return r.commit(ctx, request{
		method: http.MethodPut,
		url:    u,
		query:  url.Values{"digest": {string(desc.Digest)}},
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		scopes: r.push,
	}, desc)
}

// A rewinder gives sections of a content that can be opened more than once: in order without a step back, and again by opening anew.
type rewinder struct {
	open func() (io.ReadCloser, error)
	rc   io.ReadCloser
	pos  int64
}

// section ends the use of the one before it.
func (c *rewinder) section(off, n int64) (io.ReadCloser, error) {
	if c.rc == nil || c.pos > off {
		c.Close()
		rc, err := c.open()
		if err != nil {
			return nil, err
		}
		c.rc, c.pos = rc, 0
	}
	if _, err := io.CopyN(io.Discard, c, off-c.pos); err != nil {
		return nil, fmt.Errorf("reading the content to push again, up to byte %d: %w", off, err)
	}
	return io.NopCloser(io.LimitReader(c, n)), nil
}

func (c *rewinder) Read(p []byte) (int, error) {
	n, err := c.rc.Read(p)
	c.pos += int64(n)
	return n, err
}

func (c *rewinder) Close() {
	if c.rc != nil {
		c.rc.Close() // it was only read
		c.rc = nil
	}
}

// cancelUpload is a courtesy; registries also forget sessions by themselves.
func (r *Repository) cancelUpload(ctx context.Context, u *url.URL) {
	if resp, err := r.c.do(ctx, request{method: http.MethodDelete, url: u, scopes: r.push},
		http.StatusNoContent, http.StatusAccepted, http.StatusOK); err == nil {
		resp.Body.Close()
	}
}

// Mount is false without an error where the registry does not do that.
func (r *Repository) Mount(ctx context.Context, desc ocispec.Descriptor, from string) (mounted bool, err error) {
	err = r.c.retry(ctx, func(int) error {
		resp, err := r.c.do(ctx, request{
			method: http.MethodPost,
			path:   r.repository + "/blobs/uploads/",
			query:  url.Values{"mount": {string(desc.Digest)}, "from": {from}},
			scopes: append([]string{"repository:" + from + ":pull"}, r.push...),
		}, http.StatusCreated, http.StatusAccepted)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusCreated {
			mounted = true
			r.written.Store(desc.Digest, true)
			r.c.stats.Mounted.Add(desc.Size)
			return nil
		}
		if u, err := location(resp); err == nil {
			r.cancelUpload(ctx, u)
		}
		return nil
	})
	if code := statusOf(err); code/100 == 4 && code != http.StatusUnauthorized && code != http.StatusTooManyRequests {
		return false, nil // it refuses the idea; whether it also refuses the blob, the push will show
	}
	if err != nil {
		return false, fmt.Errorf("mounting blob %s from %s: %w", desc.Digest, from, err)
	}
	return mounted, nil
}
