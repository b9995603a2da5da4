package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/davit-oci/davit/registry/internal/redact"
	"golang.org/x/net/publicsuffix"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// A registry can send us elsewhere: by a redirect, by the Location of an upload, by the realm of its token service. Whoever can answer
// in its place can, too. One rule holds for all of them, wherever a request of ours may come from:
//
//   - Nothing goes from https to http.
//   - What changes something, an upload and its cancellation above all, stays at the registry's origin or goes to https.
//   - No connection is made, after the name was resolved, to loopback, link-local, multicast and metadata addresses: behind them are
//     services that trust whoever reaches them. A registry that is on loopback itself may lead to loopback. Private addresses
//     (RFC 1918) are not among them: registries of private networks keep their blobs there.
//   - Credentials are for the registry and for a token service of its domain, or one that the configuration names.
//
// Pages of lists (Link) need no rule: only their queries are used.

// An elsewhereError is a place that a registry has led to, and that was not gone to.
type elsewhereError struct{ registry, where, why string }

func (e *elsewhereError) Error() string {
	return fmt.Sprintf("%s leads to %s, which is refused: %s", e.registry, e.where, e.why)
}

func (c *client) refuse(where, format string, args ...any) error {
	return &elsewhereError{c.host, redact.Line(where), fmt.Sprintf(format, args...)}
}

// A TokenServiceError says that a registry wants credentials to be sent to a host that is not of its domain. They were not sent.
type TokenServiceError struct {
	Registry string // as in the reference
	Service  string // HOST[:PORT]
}

func (e *TokenServiceError) Error() string {
	return fmt.Sprintf("the token service that %s names is %s, of another domain: credentials are not sent there", e.Registry, e.Service)
}

const maxRedirects = 10

// redirected is asked before a redirect is followed.
func (c *client) redirected(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return c.refuse(withoutQuery(req.URL), "more than %d redirects", maxRedirects)
	}
	req.Header.Del("Referer") // it is a URL with a query
	req.URL = settle(via[len(via)-1].URL, req.URL)
	return nil
}

// tokenRedirect looks at a redirect of the token service before net/http and oras-go do: what oras-go refuses it has no type for, and it
// would be tried again, with the password, as what may pass is.
func (c *client) tokenRedirect(req *http.Request, resp *http.Response) error {
	location, err := resp.Location()
	if err != nil || resp.StatusCode < 300 {
		return nil //nolint:nilerr // without a location it is no redirect
	}
	u := settle(req.URL, location)
	if err := c.downgrades(req.URL, u); err != nil {
		return err
	}
	again := resp.StatusCode == http.StatusTemporaryRedirect || resp.StatusCode == http.StatusPermanentRedirect
	if again && req.Body != nil && req.Body != http.NoBody && !sameOrigin(u, loginOf(req.Context()).realm) {
		return c.refuse(withoutQuery(u), "what is sent to a token service is sent nowhere else")
	}
	resp.Header.Set("Location", u.String())
	return nil
}

// settle makes of a URL that a registry has given the one that is meant.
func settle(from, to *url.URL) *url.URL {
	u := *to
	u.User = nil
	if from.Scheme == "https" && u.Scheme == "http" && strings.EqualFold(u.Hostname(), from.Hostname()) &&
		(u.Port() == "" || u.Port() == "80" || u.Port() == from.Port()) {
		// Registries behind a proxy that ends TLS often do not know that they are reached by it.
		u.Scheme, u.Host = "https", from.Host
	}
	if sameOrigin(&u, from) {
		u.Host = from.Host // tokens are kept by the spelling of the host
	}
	return &u
}

// sameOrigin: "https://host" and "https://host:443" are the same.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(hostPort(a), hostPort(b))
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// permits is asked before any request is sent.
func (c *client) permits(req *http.Request) error {
	home := c.home()
	from, u := home, req.URL
	if req.Response != nil { // req follows a redirect
		from = req.Response.Request.URL
	}
	if err := c.downgrades(from, u); err != nil {
		return err
	}
	where := withoutQuery(u)
	switch {
	case sameOrigin(u, home):
		return nil
	case u.Scheme == "https":
	case asksForToken(req):
		if !c.ownTokenService(u) {
			return c.refuse(where, "a token service that is elsewhere has to have https")
		}
	case req.Method != http.MethodGet && req.Method != http.MethodHead:
		return c.refuse(where, "an upload stays at the registry, or goes to https")
	}
	return c.permitsAddress(u)
}

// permitsAddress looks at a host that is an address and no name.
func (c *client) permitsAddress(u *url.URL) error {
	host := u.Hostname()
	if addr, err := netip.ParseAddr(host); err == nil {
		if why := c.unreachable(addr); why != "" {
			return c.refuse(withoutQuery(u), "%s", why)
		}
	} else if endsInNumber(host) {
		return c.refuse(withoutQuery(u), "the host is no address in the usual form") // "127.1", "0x7f000001": some resolvers take them
	}
	return nil
}

func (c *client) downgrades(from, to *url.URL) error {
	switch {
	case to.Scheme != "https" && to.Scheme != "http":
		return c.refuse(withoutQuery(to), "neither https nor http")
	case to.Scheme == "http" && from.Scheme == "https":
		return c.refuse(withoutQuery(to), "nothing goes from https to http")
	}
	return nil
}

func endsInNumber(host string) bool {
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	last := labels[len(labels)-1]
	return last != "" && (strings.Trim(last, "0123456789") == "" || strings.HasPrefix(strings.ToLower(last), "0x"))
}

// home is the registry's own origin. Its scheme is known when the first request is sent.
func (c *client) home() *url.URL {
	c.schemeMu.Lock()
	defer c.schemeMu.Unlock()
	return &url.URL{Scheme: c.scheme, Host: c.api}
}

// isHome reports whether u is of the registry itself, or of the one with TLS at the same name.
func (c *client) isHome(u *url.URL) bool {
	home := c.home()
	upgraded := &url.URL{Scheme: "https", Host: home.Hostname()}
	return sameOrigin(u, home) || home.Scheme == "http" && hostPort(home) == hostPort(&url.URL{Scheme: "http", Host: home.Hostname()}) && sameOrigin(u, upgraded)
}

// local reports whether the registry is on loopback: by its name, or by every connection to it so far.
func (c *client) local() bool {
	return loopback(c.api) || c.onLoopback.Load() && !c.offLoopback.Load()
}

// dial connects to a host, of which addr has the name. All addresses but those of the registry itself, which the user has named, are
// looked at after they were resolved and before they are used.
func (c *client) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := newDialer()
	own := strings.EqualFold(addr, hostPort(c.home()))
	if !own {
		d.Control = func(_, resolved string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(resolved)
			if err != nil {
				return c.refuse(addr, "%s is no address", resolved)
			}
			if why := c.unreachable(ap.Addr()); why != "" {
				return c.refuse(addr, "%s", why)
			}
			return nil
		}
	}
	conn, err := d.DialContext(ctx, network, addr)
	if tcp, ok := conn.(*net.TCPConn); ok && own {
		if remote, ok := tcp.RemoteAddr().(*net.TCPAddr); ok && remote.IP.IsLoopback() {
			c.onLoopback.Store(true)
		} else {
			c.offLoopback.Store(true)
		}
	}
	return conn, err
}

func newDialer() *net.Dialer {
	return &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 15 * time.Second}
}

// lookupTimeout is how long a name is looked up that the proxy is going to look up anyway.
const lookupTimeout = 2 * time.Second

// permitsProxied is asked besides permits when a proxy connects in our place: the proxy can be on this machine, or in a cloud of its own.
// What the name resolves to is looked at here where that is possible; where no names can be resolved, the proxy's word counts.
func (c *client) permitsProxied(ctx context.Context, u *url.URL) error {
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if sameOrigin(u, c.home()) {
		return nil
	}
	if slices.Contains(metadataNames, host) || !c.local() && (host == "localhost" || strings.HasSuffix(host, ".localhost")) {
		return c.refuse(withoutQuery(u), "a name of this machine or of its cloud")
	}
	why, ok := c.lookedUp.Load(host)
	if !ok {
		why = ""
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		addrs, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		for _, addr := range addrs {
			if w := c.unreachable(addr); w != "" {
				why = w
			}
		}
		c.lookedUp.Store(host, why)
	}
	if why != "" {
		return c.refuse(withoutQuery(u), "%s", why)
	}
	return nil
}

// metadataNames are those that clouds give their metadata services.
var metadataNames = []string{"metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal"}

// special are addresses that mean something else on every machine, or that clouds answer with secrets of the machine: the list of
// oras-go, all of multicast, and Oracle's old metadata service.
var special = append(auth.DefaultBlockedRealmPrefixes(),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("192.0.0.192/32"))

// unreachable says why a registry must not make us connect to addr, "" if it may.
func (c *client) unreachable(addr netip.Addr) string {
	for _, a := range readings(addr) {
		switch {
		case a.IsLoopback():
			if !c.local() {
				return fmt.Sprintf("%s is on this machine, and the registry is not", addr)
			}
		case a.IsLinkLocalUnicast(), slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) }):
			return fmt.Sprintf("%s is a link-local, multicast or metadata address", addr)
		}
	}
	return ""
}

// readings are addr and the IPv4 addresses that are in it: as IPv4-mapped, -compatible and -translated, of NAT64 and of 6to4.
func readings(addr netip.Addr) []netip.Addr {
	addr = addr.Unmap().WithZone("")
	list := []netip.Addr{addr}
	if addr.Is4() || addr.IsLoopback() || addr.IsUnspecified() {
		return list
	}
	b := addr.As16()
	for _, embedded := range embeddings {
		if embedded.in.Contains(addr) {
			at := embedded.at
			list = append(list, netip.AddrFrom4([4]byte{b[at[0]], b[at[1]], b[at[2]], b[at[3]]}))
		}
	}
	return list
}

var embeddings = []struct {
	in netip.Prefix
	at [4]int
}{
	{netip.MustParsePrefix("::/96"), [4]int{12, 13, 14, 15}},
	{netip.MustParsePrefix("::ffff:0:0:0/96"), [4]int{12, 13, 14, 15}},
	{netip.MustParsePrefix("64:ff9b::/96"), [4]int{12, 13, 14, 15}},
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{12, 13, 14, 15}}, // RFC 8215: a prefix of the network's choice; this is how /96 has it
	{netip.MustParsePrefix("2002::/16"), [4]int{2, 3, 4, 5}},
}

// ownTokenService reports whether the registry's credentials are for the service at u: it is on the registry's host, in its domain, on
// the same machine, or named by the configuration.
func (c *client) ownTokenService(u *url.URL) bool {
	service, registry := strings.ToLower(u.Hostname()), strings.ToLower((&url.URL{Host: c.api}).Hostname())
	switch {
	case service == registry, loopback(u.Host) && c.local():
		return true
	case slices.ContainsFunc(c.o.host(c.host).TokenServices, func(s string) bool {
		return strings.EqualFold(s, u.Host) || strings.EqualFold(s, service) || strings.EqualFold(s, hostPort(u))
	}):
		return true
	}
	domain := registrable(registry)
	return domain != "" && (domain == registrable(service) || service == knownTokenServices[domain])
}

// registrable is the part of a name that somebody has registered, "" for addresses and names of one part.
func registrable(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	domain, err := publicsuffix.EffectiveTLDPlusOne(strings.TrimSuffix(host, "."))
	if err != nil {
		return ""
	}
	return domain
}

// knownTokenServices are those of registries whose makers have them at another domain of theirs.
var knownTokenServices = map[string]string{"scw.cloud": "api.scaleway.com"}

func isElsewhere(err error) bool {
	_, refused := errors.AsType[*elsewhereError](err)
	_, foreign := errors.AsType[*TokenServiceError](err)
	return refused || foreign
}
