package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/redact"
	"github.com/davit-oci/davit/registry/internal/reference"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// A client sends requests to one registry: it knows the scheme, logs in, tries again what may pass, and gives up when nothing moves.
type client struct {
	host    string // as in the reference; the key of credentials and options
	api     string // the host that is dialled
	o       Options
	auth    *auth.Client
	conns   *transports
	stats   *oci.Stats
	reached atomic.Bool // an answer has come: from now on a refused connection is a registry that restarts

	onLoopback, offLoopback atomic.Bool // where connections to the registry have gone
	lookedUp                sync.Map    // by name: why it is refused, or ""

	schemeMu sync.Mutex
	scheme   string // "" until known
}

func newClient(host string, credential auth.CredentialFunc, o Options, s *oci.Stats) (*client, error) {
	for _, service := range o.host(host).TokenServices {
		if !reference.ValidHost(strings.ToLower(service)) {
			return nil, fmt.Errorf("%w: token service %q of %s is not HOST[:PORT]", reference.ErrMalformed, service, host)
		}
	}
	c := &client{host: host, api: host, o: o, stats: s}
	c.conns = &transports{o: o, c: c}
	if host == "docker.io" || host == "index.docker.io" {
		c.api = "registry-1.docker.io" // the one registry whose API is not at its name
	}
	c.auth = &auth.Client{
		Client:   &http.Client{Transport: c.conns, CheckRedirect: c.redirected},
		Header:   http.Header{"User-Agent": {o.UserAgent}},
		Cache:    auth.NewCache(),
		ClientID: "davit",
		// Where requests may go is decided in one place, elsewhere.go.
		BlockedRealmPrefixes: []netip.Prefix{},
		Credential: func(ctx context.Context, hostport string) (auth.Credential, error) {
			return c.credentialFor(ctx, hostport, credential)
		},
	}
	if host := o.host(c.host); host.PlainHTTP || hostIn(o.PlainHTTP, c.host) {
		c.scheme = "http"
	} else if !loopback(c.api) {
		c.scheme = "https"
	}
	// Settings that cannot work are reported now and not at the first request, where they would look like the network's fault.
	_, err := c.conns.forHost(c.api, false)
	return c, err
}

func hostIn(list []string, host string) bool {
	return slices.ContainsFunc(list, func(h string) bool { return h == "*" || strings.EqualFold(h, host) })
}

func loopback(hostport string) bool {
	host := (&url.URL{Host: hostport}).Hostname()
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// base is the URL that paths of the API are appended to.
func (c *client) base(ctx context.Context) (*url.URL, error) {
	c.schemeMu.Lock()
	defer c.schemeMu.Unlock()
	if c.scheme == "" {
		scheme, err := c.probe(ctx)
		if err != nil {
			return nil, err
		}
		c.scheme = scheme
	}
	return &url.URL{Scheme: c.scheme, Host: c.api}, nil
}

const probeTimeout = 5 * time.Second

// probe finds out whether a loopback host speaks TLS. Whether its certificate is good is not asked: a host that speaks TLS badly is
// never spoken to without.
func (c *client) probe(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	addr := c.api
	if (&url.URL{Host: addr}).Port() == "" {
		// Without a port the two schemes are at different ones, and a connection is the answer.
		if conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(strings.Trim(addr, "[]"), "443")); err == nil {
			return "https", conn.Close()
		}
		return "http", ctx.Err()
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return "", fmt.Errorf("connecting to %s: %w", c.api, err)
	}
	defer conn.Close()
	err = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}).HandshakeContext(ctx)
	// An alert, for instance because we show no client certificate, is TLS too; crypto/tls gives them this form.
	if alert, ok := errors.AsType[*net.OpError](err); err == nil || ok && alert.Op == "remote error" {
		return "https", nil
	}
	return "http", nil
}

// A request can be sent more than once.
type request struct {
	method string
	path   string     // below /v2/, escaped
	query  url.Values // added to what is in url
	url    *url.URL   // instead of path
	header http.Header
	body   func() (io.ReadCloser, error) // nil: none
	size   int64                         // of body
	// scopes are those of the distribution token spec that the request needs; they are the key under which tokens are kept.
	scopes []string
}

// commitTimeout is how long a registry may think after it has got a whole blob: behind object stores it copies and hashes it first.
const commitTimeout = 10 * time.Minute

var errIdle = errors.New("no byte moved")

// do sends rq once, following redirects and logging in where that is asked for. An answer with a status other than those in want is
// a *responseError. The caller closes the body, which ends with an error when it stalls.
func (c *client) do(ctx context.Context, rq request, want ...int) (*http.Response, error) {
	base, err := c.base(ctx)
	if err != nil {
		return nil, err
	}
	u := rq.url
	if u == nil {
		if u, err = base.Parse("/v2/" + rq.path); err != nil {
			return nil, err
		}
	}
	if len(rq.query) > 0 {
		v := *u
		q := v.Query()
		for k, values := range rq.query {
			q[k] = values
		}
		v.RawQuery = q.Encode()
		u = &v
	}

	parent := ctx
	ctx, w := watch(ctx, c.o.IdleTimeout)
	ctx = auth.WithScopesForHost(withLogin(ctx), u.Host, rq.scopes...)
	req, err := http.NewRequestWithContext(ctx, rq.method, u.String(), nil)
	if err != nil {
		w.end()
		return nil, redact.Error(err)
	}
	for k, v := range rq.header {
		req.Header[k] = v
	}
	// Blobs are stored as they are named; a transport that recompresses them would only cost, or break ranges.
	req.Header.Set("Accept-Encoding", "identity")
	body := &uploads{ctx: parent, rq: rq, w: w, sent: &c.stats.Sent}
	if rq.body != nil && rq.size > 0 {
		req.ContentLength = rq.size
		req.GetBody = body.next
		if req.Body, err = req.GetBody(); err != nil {
			w.end()
			return nil, err
		}
	}

	w.arm()
	resp, err := c.auth.Do(req)
	w.disarm()
	if err != nil {
		stalled := errors.Is(context.Cause(ctx), errIdle)
		w.end()
		body.wait()
		source := body.failed.Load()
		switch {
		case parent.Err() != nil:
			return nil, context.Cause(parent)
		case source != nil:
			return nil, source
		case stalled:
			err = fmt.Errorf("%s %s: %w for %v", rq.method, withoutQuery(u), errIdle, c.o.IdleTimeout)
		}
		return nil, c.clientError(loginOf(ctx), err)
	}
	c.reached.Store(true)
	resp.Body = &download{rc: resp.Body, w: w, parent: parent, ctx: ctx, timeout: c.o.IdleTimeout}
	if !slices.Contains(want, resp.StatusCode) {
		answer := newResponseError(resp)
		body.wait()
		if l := loginOf(ctx); len(l.unknown) > 0 && resp.StatusCode == http.StatusUnauthorized {
			return nil, &SchemeError{c.host, l.unknown, answer}
		}
		return nil, answer
	}
	return resp, nil
}

// clientError makes an error of net/http or oras-go one of this package: fit to print, and an ErrUnauthorized if it is about that.
func (c *client) clientError(l *login, err error) error {
	if e, ok := errors.AsType[*elsewhereError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*TokenServiceError](err); ok {
		return e
	}
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		return fmt.Errorf("%w: no credentials for %s", ErrUnauthorized, c.host)
	}
	if e, ok := errors.AsType[*tokenError](err); ok {
		return c.tokenError(l, e)
	}
	return redact.Error(err)
}

// A sourceError comes from what was to be sent. It is not the network's, and trying again would not help.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

// maxWait is how long a registry can make us wait between two tries. One that asks for more gets an error instead of patience.
const maxWait = 5 * time.Minute

// retry calls f until it succeeds, fails for good or has failed too often. try counts from 0.
func (c *client) retry(ctx context.Context, f func(try int) error) error {
	for try := 0; ; try++ {
		err := f(try)
		if err == nil {
			return nil
		}
		if again, err := c.pause(ctx, err, try); !again {
			return err
		}
	}
}

// pause reports whether what failed with err should be tried again, having failed try times before, and if so waits first. If not, it
// returns the error to give up with.
func (c *client) pause(ctx context.Context, err error, try int) (bool, error) {
	if !c.mayPass(err) {
		return false, err
	}
	return c.wait(ctx, err, try)
}

// wait is pause for what is known to be worth another try.
func (c *client) wait(ctx context.Context, err error, try int) (bool, error) {
	if ctx.Err() != nil || try >= c.o.Retries {
		return false, err
	}
	wait := c.o.Backoff << min(try, 8)
	wait += rand.N(wait/2 + 1)
	if e := answerOf(err); e != nil && e.retryAfter > 0 {
		if e.retryAfter > maxWait {
			return false, fmt.Errorf("%w; the registry asks to come back in %v", err, e.retryAfter)
		}
		wait = max(wait, e.retryAfter)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return true, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
}

// mayPass reports whether err is of the kind that goes away by itself.
func (c *client) mayPass(err error) bool {
	if _, ok := errors.AsType[*sourceError](err); ok || isElsewhere(err) {
		return false
	}
	if _, ok := errors.AsType[*lateError](err); ok {
		return true
	}
	if e, ok := errors.AsType[*tokenError](err); ok && e.without {
		return true
	}
	if e := answerOf(err); e != nil {
		switch e.status {
		case http.StatusTooManyRequests, http.StatusRequestTimeout:
			return true
		case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
			return false
		}
		return e.status >= 500 || e.limited
	}

	dns, isDNS := errors.AsType[*net.DNSError](err)
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case isDNS && dns.IsNotFound, isCertificate, errors.Is(err, http.ErrSchemeMismatch):
		return false
	case errors.Is(err, syscall.ECONNREFUSED):
		return c.reached.Load()
	}
	_, isTransfer := errors.AsType[*url.Error](err)
	_, isNetwork := errors.AsType[*net.OpError](err)
	return isTransfer || isNetwork || errors.Is(err, errIdle) || errors.Is(err, errShort) || errors.Is(err, errUnlisted) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)
}

// A watchdog ends a request on which nothing moves, by its context. It runs only while we wait for the other side.
type watchdog struct {
	timer  *time.Timer
	cancel context.CancelCauseFunc
	idle   time.Duration
}

func watch(ctx context.Context, idle time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{cancel: cancel, idle: idle}
	w.timer = time.AfterFunc(idle, func() { cancel(errIdle) })
	w.timer.Stop()
	return ctx, w
}

func (w *watchdog) arm()    { w.timer.Reset(w.idle) }
func (w *watchdog) disarm() { w.timer.Stop() }
func (w *watchdog) end()    { w.timer.Stop(); w.cancel(nil) }

// download is a body that comes in: the clock runs during Read only, since a slow consumer is not a stalled registry.
type download struct {
	rc          io.ReadCloser
	w           *watchdog
	parent, ctx context.Context // only to tell errors apart
	timeout     time.Duration
}

func (d *download) Read(p []byte) (int, error) {
	d.w.arm()
	n, err := d.rc.Read(p)
	d.w.disarm()
	if err != nil && !errors.Is(err, io.EOF) {
		switch {
		case d.parent.Err() != nil:
			err = context.Cause(d.parent)
		case errors.Is(context.Cause(d.ctx), errIdle):
			err = fmt.Errorf("%w for %v", errIdle, d.timeout)
		}
	}
	return n, err
}

func (d *download) Close() error {
	err := d.rc.Close()
	d.w.end()
	return err
}

// uploads are the bodies of one request that goes out: it may be sent again after a redirect, or after logging in. net/http may read a
// body even after it has returned the answer, so the next one is not opened before the last one was closed.
type uploads struct {
	ctx    context.Context // for wait
	rq     request
	w      *watchdog
	sent   *atomic.Int64
	last   *upload
	failed atomic.Pointer[sourceError]
}

func (u *uploads) next() (io.ReadCloser, error) {
	u.wait()
	rc, err := u.rq.body()
	if err != nil {
		source := &sourceError{err}
		u.failed.Store(source)
		return nil, source
	}
	u.last = &upload{uploads: u, rc: rc, left: u.rq.size, closed: make(chan struct{})}
	return u.last, nil
}

// wait returns when no body is in use.
func (u *uploads) wait() {
	if u.last == nil {
		return
	}
	select {
	case <-u.last.closed:
	case <-u.ctx.Done():
	}
}

// upload is a body that goes out: the clock runs between Reads, while the transport writes, and stops during them.
// A source that is shorter or longer than it was said to be is an error of the source.
type upload struct {
	*uploads
	rc     io.ReadCloser
	left   int64
	mu     sync.Mutex // held by Read
	closed chan struct{}
	once   sync.Once
}

func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.w.disarm()
	n, err := u.rc.Read(p)
	u.left -= int64(n)
	u.sent.Add(int64(n))
	var source error
	switch {
	case u.left < 0:
		source = errors.New("content to push is longer than its descriptor says")
	case err == io.EOF && u.left > 0:
		source = fmt.Errorf("content to push ends %d bytes early: %w", u.left, io.ErrUnexpectedEOF)
	case err != nil && err != io.EOF:
		source = err
	}
	if source != nil {
		u.failed.Store(&sourceError{source})
		return n, source
	}
	if u.left == 0 {
		u.w.timer.Reset(max(u.w.idle, commitTimeout))
	} else {
		u.w.arm()
	}
	return n, err
}

func (u *upload) Close() error {
	err := u.rc.Close()
	u.mu.Lock() // it is out of use when the last Read has returned
	defer u.mu.Unlock()
	u.once.Do(func() { close(u.closed) })
	return err
}

// transports are the connections: HTTP/1.1 only, since over HTTP/2 all streams to a host share one connection and its window
// (measured at 20 ms: 43 against 222 MB/s with eight uploads). A host with TLS settings has connections of its own, so that what is
// allowed for one registry does not hold for a host that it redirects to.
type transports struct {
	o Options
	c *client

	mu sync.Mutex
	m  map[route]*http.Transport
}

// A route is what requests have in common that may share connections.
type route struct {
	host    string // "" for those without settings
	proxied bool   // the user's proxy connects, not we
}

// RoundTrip is where every request passes: those of ours, those that follow a redirect, and those for tokens.
func (t *transports) RoundTrip(req *http.Request) (*http.Response, error) {
	tr, err := t.forRequest(req)
	if err != nil {
		if req.Body != nil {
			req.Body.Close() // as a RoundTripper must
		}
		return nil, err
	}
	resp, err := tr.RoundTrip(req)
	switch {
	case err != nil:
		return nil, err
	case asksForToken(req):
		if resp.StatusCode >= 400 {
			return nil, &tokenError{answer: newResponseError(resp)}
		}
		if resp.StatusCode == http.StatusOK {
			if err := checkToken(resp); err != nil {
				return nil, err
			}
		}
		if err := t.c.tokenRedirect(req, resp); err != nil {
			resp.Body.Close()
			return nil, err
		}
	case resp.StatusCode == http.StatusUnauthorized:
		if err := t.c.challenged(resp); err != nil {
			resp.Body.Close()
			return nil, err
		}
	}
	return resp, nil
}

func (t *transports) forRequest(req *http.Request) (*http.Transport, error) {
	if err := t.c.permits(req); err != nil {
		return nil, err
	}
	proxy, err := http.ProxyFromEnvironment(req)
	if err != nil {
		return nil, err
	}
	if proxy != nil {
		if err := t.c.permitsProxied(req.Context(), req.URL); err != nil {
			return nil, err
		}
	}
	return t.forHost(req.URL.Host, proxy != nil)
}

func (t *transports) forHost(host string, proxied bool) (*http.Transport, error) {
	key := route{strings.ToLower(host), proxied}
	if _, ok := t.o.Hosts[key.host]; !ok && !hostIn(t.o.Insecure, key.host) {
		key.host = ""
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if tr := t.m[key]; tr != nil {
		return tr, nil
	}
	config, err := t.o.tls(key.host)
	if err != nil {
		return nil, err
	}
	tr := &http.Transport{
		DialContext:            t.c.dial,
		TLSClientConfig:        config,
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
		TLSHandshakeTimeout:    30 * time.Second,
		DisableCompression:     true,
		MaxIdleConns:           4 * max(t.o.Jobs, oci.ReferrerJobs),
		MaxIdleConnsPerHost:    max(t.o.Jobs, oci.ReferrerJobs),
		IdleConnTimeout:        90 * time.Second,
		ExpectContinueTimeout:  2 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         64 << 10,
		WriteBufferSize:        64 << 10,
	}
	if proxied {
		tr.Proxy, tr.DialContext = http.ProxyFromEnvironment, newDialer().DialContext
	}
	if t.m == nil {
		t.m = make(map[route]*http.Transport)
	}
	t.m[key] = tr
	return tr, nil
}

func (t *transports) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, tr := range t.m {
		tr.CloseIdleConnections()
	}
}

// tls is the configuration for a host; "" for one without settings of its own.
func (o Options) tls(host string) (*tls.Config, error) {
	h := o.Hosts[host]
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: host != "" && (h.Insecure || hostIn(o.Insecure, host)),
	}
	for _, file := range []string{o.CAFile, h.CAFile} {
		if file == "" {
			continue
		}
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading CA file: %w", err)
		}
		if config.RootCAs == nil {
			// On failure there is no system pool; what the file has is then all that is trusted.
			if config.RootCAs, err = x509.SystemCertPool(); err != nil {
				config.RootCAs = x509.NewCertPool()
			}
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("reading CA file %s: no certificate in it", file)
		}
	}
	if h.ClientCert != "" {
		key := h.ClientKey
		if key == "" {
			key = h.ClientCert
		}
		pair, err := tls.LoadX509KeyPair(h.ClientCert, key)
		if err != nil {
			return nil, fmt.Errorf("reading client certificate %s: %w", h.ClientCert, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
