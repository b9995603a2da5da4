package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/registry/internal/redact"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// A challenge is one of the ways to log in that an answer with status 401 offers.
type challenge struct {
	scheme string            // lower-case
	params map[string]string // by lower-case name; a token68 is none
}

// parseChallenges reads the fields of WWW-Authenticate (RFC 9110 section 11.6.1): each is a list of challenges, whose parameters are
// lists with the same comma. It is lenient where servers are sloppy: a value without quotes goes to the next comma or space.
func parseChallenges(fields []string) []challenge {
	var list []challenge
	s := strings.Join(fields, ",")
	for {
		s = strings.TrimLeft(s, " \t,")
		if s == "" {
			return list
		}
		scheme, rest := cutToken(s)
		if scheme == "" {
			s = s[1:] // garbage
			continue
		}
		c := challenge{strings.ToLower(scheme), make(map[string]string)}
		s = rest
		if strings.HasPrefix(s, " ") || strings.HasPrefix(s, "\t") {
			s = c.parseParams(s)
		}
		list = append(list, c)
	}
}

// parseParams reads what follows a scheme, and returns what follows that.
func (c *challenge) parseParams(s string) (rest string) {
	if rest, ok := cutToken68(strings.TrimLeft(s, " \t")); ok {
		return rest
	}
	for {
		s = strings.TrimLeft(s, " \t,")
		name, rest := cutToken(s)
		value, ok := strings.CutPrefix(strings.TrimLeft(rest, " \t"), "=")
		if name == "" || !ok {
			return s
		}
		value, s = cutValue(strings.TrimLeft(value, " \t"))
		if name = strings.ToLower(name); c.params[name] == "" {
			c.params[name] = value
		}
	}
}

// cutToken68 cuts what some schemes have instead of parameters (RFC 9110 section 11.2): its "=" are at the end.
func cutToken68(s string) (rest string, ok bool) {
	n := 0
	for n < len(s) && (isDigit(s[n]) || isLetter(s[n]) || strings.IndexByte("-._~+/", s[n]) >= 0) {
		n++
	}
	rest = strings.TrimLeft(strings.TrimLeft(s[n:], "="), " \t")
	return rest, n > 0 && (rest == "" || rest[0] == ',')
}

// cutToken cuts a token (RFC 9110 section 5.6.2) from the front.
func cutToken(s string) (token, rest string) {
	n := 0
	for n < len(s) && (isDigit(s[n]) || isLetter(s[n]) || strings.IndexByte("!#$%&'*+-.^_`|~", s[n]) >= 0) {
		n++
	}
	return s[:n], s[n:]
}

// cutValue cuts a quoted string, or what there is up to the next comma or space.
func cutValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		n := strings.IndexAny(s, " \t,")
		if n < 0 {
			n = len(s)
		}
		return s[:n], s[n:]
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// choose picks the challenge that is answered: Bearer, else Basic; those of which we know nothing are left aside.
func choose(list []challenge) (challenge, bool) {
	for _, usable := range []func(challenge) bool{
		func(c challenge) bool { return c.scheme == "bearer" && c.params["realm"] != "" },
		func(c challenge) bool { return c.scheme == "basic" },
		func(c challenge) bool { return c.scheme == "bearer" },
	} {
		for _, c := range list {
			if usable(c) {
				return c, true
			}
		}
	}
	return challenge{}, false
}

// String is the challenge as oras-go reads it: of one field, the first scheme only, and parameters in lower case.
func (c challenge) String() string {
	if c.scheme != "bearer" {
		return c.scheme
	}
	var params []string
	for _, name := range []string{"realm", "service", "scope"} {
		if v, ok := c.params[name]; ok {
			params = append(params, name+"="+strconv.Quote(v))
		}
	}
	return c.scheme + " " + strings.Join(params, ",")
}

// A login is what becomes known while one request of ours logs in.
type login struct {
	realm       *url.URL // of the token service that the registry named
	noPasswords bool     // nothing is known to log in with
	unknown     []string // the schemes of a challenge, where all of them are
}

type loginKey struct{}

func withLogin(ctx context.Context) context.Context {
	return context.WithValue(ctx, loginKey{}, new(login))
}

func loginOf(ctx context.Context) *login {
	l, _ := ctx.Value(loginKey{}).(*login)
	if l == nil {
		l = new(login)
	}
	return l
}

// challenged leaves the one challenge in resp that is to be answered.
func (c *client) challenged(resp *http.Response) error {
	const field = "WWW-Authenticate"
	offered := parseChallenges(resp.Header.Values(field))
	chosen, ok := choose(offered)
	resp.Header.Del(field)
	if !c.isHome(resp.Request.URL) {
		return nil // whoever else asks gets nothing
	}
	if !ok {
		l := loginOf(resp.Request.Context())
		for _, o := range offered {
			l.unknown = append(l.unknown, o.scheme)
		}
		return nil
	}
	if realm := chosen.params["realm"]; chosen.scheme == "bearer" && realm != "" {
		u, err := resp.Request.URL.Parse(realm)
		if err != nil {
			return nil //nolint:nilerr // whoever needs the token finds out, and says it better
		}
		u = settle(resp.Request.URL, u)
		if err := c.downgrades(resp.Request.URL, u); err != nil {
			return err
		}
		loginOf(resp.Request.Context()).realm = u
		chosen.params["realm"] = u.String()
	}
	resp.Header.Set(field, chosen.String())
	return nil
}

// A SchemeError says that a registry offers only ways to log in that davit does not know. It is an [ErrUnauthorized] that no credentials change.
type SchemeError struct {
	Registry string   // as in the reference
	Schemes  []string // lower-case

	answer error
}

func (e *SchemeError) Error() string {
	return fmt.Sprintf("%s offers to log in by %.100s only, and davit logs in by Basic and Bearer: %v",
		e.Registry, redact.Line(strings.Join(slices.Compact(slices.Clone(e.Schemes)), ", ")), e.answer)
}

func (e *SchemeError) Unwrap() error { return e.answer }

// asksForToken reports whether req is one to the token service, or one that the token service has redirected.
func asksForToken(req *http.Request) bool {
	realm := loginOf(req.Context()).realm
	for req.Response != nil {
		req = req.Response.Request
	}
	return realm != nil && sameOrigin(req.URL, realm) && req.URL.EscapedPath() == realm.EscapedPath()
}

// A tokenError is an answer of the token service. That it has no token says nothing about what was asked of the registry: its 404 is
// not that of a tag.
type tokenError struct {
	answer  *responseError
	without bool // it is a success, and has no token: of a proxy that is busy, say
}

func (e *tokenError) Error() string {
	if e.without {
		return e.answer.Error() + ", and there is no token in the answer"
	}
	return e.answer.Error()
}

func (e *tokenError) Is(target error) bool {
	return target == ErrUnauthorized && e.answer.Is(ErrUnauthorized)
}

// maxToken bounds what is looked through for a token, in bytes.
const maxToken = 1 << 20

// checkToken makes sure that an answer of the token service has a token.
func checkToken(resp *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxToken))
	if err != nil {
		resp.Body.Close()
		return err
	}
	var token struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if len(body) < maxToken && (json.Unmarshal(body, &token) != nil || token.Token == "" && token.AccessToken == "") {
		return &tokenError{newResponseError(resp), true}
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(body), resp.Body), resp.Body}
	return nil
}

func (c *client) tokenError(l *login, e *tokenError) error {
	if e.answer.Is(ErrUnauthorized) {
		if l.noPasswords {
			return fmt.Errorf("%w: no credentials for %s, and its token service gives nothing without: %w", ErrUnauthorized, c.host, e)
		}
		return fmt.Errorf("logging in to %s: %w: %w", c.host, ErrUnauthorized, e)
	}
	return fmt.Errorf("asking the token service of %s: %w", c.host, e)
}

// credentialFor is what oras-go asks for when it answers a challenge.
func (c *client) credentialFor(ctx context.Context, hostport string, lookup auth.CredentialFunc) (auth.Credential, error) {
	if hostport != c.api {
		return auth.EmptyCredential, nil // a redirect's target gets nothing of ours
	}
	credential, err := lookup(ctx, hostport)
	if err != nil {
		return auth.EmptyCredential, err
	}
	l := loginOf(ctx)
	l.noPasswords = credential == auth.EmptyCredential
	// An access token goes to the registry itself.
	if !l.noPasswords && credential.AccessToken == "" && l.realm != nil && !c.ownTokenService(l.realm) {
		if err := c.permitsAddress(l.realm); err != nil { // no setting would change that
			return auth.EmptyCredential, err
		}
		return auth.EmptyCredential, &TokenServiceError{c.host, redact.Line(l.realm.Host)}
	}
	return credential, nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
