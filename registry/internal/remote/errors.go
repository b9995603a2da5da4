package remote

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/redact"
	"github.com/opencontainers/go-digest"
)

// ErrUnauthorized says that the registry answered 401 or 403, or asks for credentials and there are none.
var ErrUnauthorized = errors.New("unauthorized")

// A responseError is an answer of a registry that is not the one that was asked for.
type responseError struct {
	method     string
	where      string // URL without user, query and fragment
	status     int
	codes      []errorCode
	retryAfter time.Duration // 0: not given
	limited    bool          // a rate limit that says so in other ways than by 429
}

// errorCode is an entry of the body that the distribution spec ("Error Codes") defines.
type errorCode struct {
	Code    string          `json:"code"`
	Message string          `json:"message"`
	Detail  json.RawMessage `json:"detail"`
}

const maxErrorBody = 64 << 10 // bytes: an error page is read only this far, whatever its length

// newResponseError reads what is worth reading of resp's body and closes it.
func newResponseError(resp *http.Response) *responseError {
	defer resp.Body.Close()
	e := &responseError{
		method:     resp.Request.Method,
		where:      withoutQuery(resp.Request.URL),
		status:     resp.StatusCode,
		retryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var parsed struct {
		Errors []errorCode `json:"errors"`
	}
	if json.Unmarshal(body, &parsed) == nil {
		e.codes = parsed.Errors
	}
	// GHCR's rate limit is a 403 whose text says so.
	e.limited = e.status == http.StatusForbidden &&
		(e.retryAfter > 0 || strings.Contains(strings.ToLower(string(body)), "rate limit"))
	return e
}

func (e *responseError) Error() string {
	text := fmt.Sprintf("%s %s: %d %s", e.method, e.where, e.status, http.StatusText(e.status))
	for _, c := range e.codes {
		if c.Code == "" && c.Message == "" {
			continue
		}
		text += ": " + redact.Line(strings.TrimSuffix(cmp.Or(c.Code, "")+" "+c.Message, " "))
		break
	}
	return text
}

func (e *responseError) Is(target error) bool {
	switch target {
	case oci.ErrNotFound, fs.ErrNotExist:
		return e.status == http.StatusNotFound
	case fs.ErrInvalid: // a request that this registry will never answer
		switch e.status {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout, http.StatusTooManyRequests:
			return false
		}
		return e.status/100 == 4
	case ErrUnauthorized:
		return e.status == http.StatusUnauthorized || e.status == http.StatusForbidden && !e.limited
	}
	return false
}

// answerOf is the answer that err is about, the registry's or its token service's, or nil.
func answerOf(err error) *responseError {
	if e, ok := errors.AsType[*responseError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*tokenError](err); ok {
		return e.answer
	}
	return nil
}

// statusOf is the status of the registry's answer that err is about, or 0.
func statusOf(err error) int {
	if e, ok := errors.AsType[*responseError](err); ok {
		return e.status
	}
	return 0
}

func (e *responseError) has(codes ...string) bool {
	return slices.ContainsFunc(e.codes, func(c errorCode) bool { return slices.Contains(codes, c.Code) })
}

var digestPattern = regexp.MustCompile(`sha256:[0-9a-f]{64}`)

// blobUnknown turns the refusal of a manifest into a [*oci.BlobUnknownError], if it is one.
func blobUnknown(err error) error {
	e, ok := errors.AsType[*responseError](err)
	if !ok || !e.has("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN") {
		return err
	}
	var digests []digest.Digest
	for _, c := range e.codes {
		for _, m := range digestPattern.FindAllString(string(c.Detail)+" "+c.Message, 16) {
			if d := digest.Digest(m); !slices.Contains(digests, d) {
				digests = append(digests, d)
			}
		}
	}
	return oci.BlobUnknown(digests, err)
}

// retryAfter reads the header of RFC 9110 section 10.2.3, a number of seconds or a date. 0: nothing to wait for.
func retryAfter(h string, now time.Time) time.Duration {
	if h = strings.TrimSpace(h); h == "" {
		return 0
	}
	if n, err := strconv.ParseInt(h, 10, 32); err == nil {
		return time.Duration(max(n, 0)) * time.Second
	}
	if t, err := http.ParseTime(h); err == nil && t.After(now) {
		return t.Sub(now)
	}
	return 0
}

func withoutQuery(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}
