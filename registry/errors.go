package registry

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
	"unicode"

	"github.com/davit-oci/davit/internal/fetch"
	"github.com/opencontainers/go-digest"
)

var (
	// ErrNotFound: there is no such tag, manifest, blob or repository. From a registry it means 404 to accepted credentials. It is an
	// [fs.ErrNotExist] for those who do not know this package.
	ErrNotFound error = notFoundError{}

	// ErrUnauthorized: the registry answered 401 or 403, or it asks for credentials and there are none.
	ErrUnauthorized = errors.New("unauthorized")

	// ErrDigestMismatch: bytes are not what their digest or size says, or a tag and a digest that were named together disagree.
	// It is an [fs.ErrInvalid] for those who do not know this package, and the value of the same name in package verify.
	ErrDigestMismatch = fetch.ErrDigestMismatch

	// ErrIncomplete: there is more than what is returned with it, and asking again will not bring it: beyond a limit, or wrong where it
	// is kept. It is an [fs.ErrInvalid], too.
	ErrIncomplete error = incompleteError{}

	// ErrManifestBlobUnknown: the registry refused a manifest because it has no blob of a name in it, whatever HEAD had said, and went
	// on refusing it. A [*BlobUnknownError] has the digests.
	ErrManifestBlobUnknown = errors.New("manifest names a blob that is unknown to the registry")

	// ErrMalformedReference: a name that [ParseReference] refuses.
	ErrMalformedReference = errors.New("malformed reference")
)

type notFoundError struct{}

func (notFoundError) Error() string        { return "not found" }
func (notFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// mismatch turns what package fetch finds wrong with content into an [ErrDigestMismatch].
func mismatch(err error) error {
	if f, ok := errors.AsType[*fetch.Fault](err); ok {
		return fmt.Errorf("%w: %s %s", ErrDigestMismatch, f.Digest, f.Why)
	}
	return err
}

// An invalidError is about what is wrong, and will be: no fault of the network. It is an [fs.ErrInvalid].
type invalidError struct{ error }

func (e invalidError) Unwrap() error        { return e.error }
func (e invalidError) Is(target error) bool { return target == fs.ErrInvalid }

func invalidf(format string, args ...any) error { return invalidError{fmt.Errorf(format, args...)} }

// isInvalid reports whether err is about content, or a name for it, that is wrong for good.
func isInvalid(err error) bool { return errors.Is(err, fs.ErrInvalid) }

type incompleteError struct{ error }

func (e incompleteError) Unwrap() error { return e.error }
func (e incompleteError) Is(target error) bool {
	return target == ErrIncomplete || target == fs.ErrInvalid
}

func (e incompleteError) Error() string {
	if e.error == nil {
		return "incomplete"
	}
	return e.error.Error()
}

func incompletef(format string, args ...any) error {
	return incompleteError{fmt.Errorf(format, args...)}
}

// A BlobUnknownError is an [ErrManifestBlobUnknown] with the digests of the blobs that have to be pushed again; there are none where the
// registry names none and says of each that it is there. It is no [ErrNotFound], whatever the status was: nothing was looked for.
type BlobUnknownError struct {
	Digests []digest.Digest
	err     error // told, but not what this error is
}

func (e *BlobUnknownError) Error() string        { return e.err.Error() }
func (e *BlobUnknownError) Is(target error) bool { return target == ErrManifestBlobUnknown }

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

const (
	maxErrorBody = 64 << 10 // an error page is read only this far, whatever its length
	maxMessage   = 300      // of a registry's own words in our error
)

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
		text += ": " + printable(strings.TrimSuffix(cmp.Or(c.Code, "")+" "+c.Message, " "))
		break
	}
	return text
}

func (e *responseError) Is(target error) bool {
	switch target {
	case ErrNotFound, fs.ErrNotExist:
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

// blobUnknown turns the refusal of a manifest into a [*BlobUnknownError], if it is one.
func blobUnknown(err error) error {
	e, ok := errors.AsType[*responseError](err)
	if !ok || !e.has("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN") {
		return err
	}
	u := &BlobUnknownError{err: err}
	for _, c := range e.codes {
		for _, m := range digestPattern.FindAllString(string(c.Detail)+" "+c.Message, 16) {
			if d := digest.Digest(m); !slices.Contains(u.Digests, d) {
				u.Digests = append(u.Digests, d)
			}
		}
	}
	return u
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

// A redactedError prints without what may be a secret: queries of URLs (storage backends sign in them, token services log in with
// them) and user information. The error it wraps is there for errors.Is and errors.As only.
type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }

// redact is for errors that others made: net/http and oras-go print URLs in full.
func redact(err error) error {
	if err == nil {
		return nil
	}
	text := redactText(err.Error())
	if text == err.Error() {
		return err
	}
	return &redactedError{text, err}
}

var (
	urlQuery = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://[^\s"'?#<>]*)[?#][^\s"'<>]*`)
	urlUser  = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^\s"'/?#<>@]*@`)

	// What follows is a secret whatever it looks like: the field that carries one is named.
	authField = regexp.MustCompile(`(?i)(authorization\\?["']?\s*[:=]\s*\\?["']?(?:basic|bearer|negotiate|ntlm|token)\s+)([A-Za-z0-9._~+/-]+=*)`)
	// What follows may be one, or the next word of a sentence.
	authWord = regexp.MustCompile(`(?i)(\b(?:bearer|basic)\s+|authorization\\?["']?\s*[:=]\s*\\?["']?)([A-Za-z0-9._~+/-]+=*)`)
	// Words, alone or joined as in "user/password": letters in one of the ways in which words are written.
	plainWords = regexp.MustCompile(`^([A-Z]?[a-z]+|[A-Z]+)([._~+/-]+([A-Z]?[a-z]+|[A-Z]+))*[._~+/-]*$`)
)

const hidden = "(not shown)"

func redactText(s string) string {
	s = urlUser.ReplaceAllString(s, "$1")
	s = urlQuery.ReplaceAllString(s, "$1")
	s = authField.ReplaceAllString(s, "${1}"+hidden)
	return hideCredentials(s)
}

// hideCredentials takes away the token68 (RFC 9110 section 11.2) behind the name of a scheme. Sentences have these names too: "basic
// credential not found" and the challenge "Bearer realm=…" stay as they are.
func hideCredentials(s string) string {
	var b strings.Builder
	end := 0
	for _, m := range authWord.FindAllStringSubmatchIndex(s, -1) {
		word := s[m[4]:m[5]]
		if plainWords.MatchString(word) || isParameter(word, s[m[5]:]) {
			continue
		}
		b.WriteString(s[end:m[4]])
		b.WriteString(hidden)
		end = m[5]
	}
	b.WriteString(s[end:])
	return b.String()
}

// isParameter tells name="value" of a challenge from a token68, whose "=" are at its end.
func isParameter(word, rest string) bool {
	name, padding := strings.CutSuffix(word, "=")
	return padding && plainWords.MatchString(name) && rest != "" && !strings.ContainsRune(" \t\r\n,;.)]}", rune(rest[0]))
}

// printable makes one short line of text that a stranger wrote, fit for a terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, redactText(s))
	s = strings.TrimSpace(s)
	if r := []rune(s); len(r) > maxMessage {
		s = string(r[:maxMessage]) + "…"
	}
	return s
}
