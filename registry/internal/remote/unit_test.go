package remote

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/davit-oci/davit/registry/internal/oci"
)

// What is said to speak plain HTTP is spoken to in it; what is not on this machine and not said to, never is.
func TestScheme(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"registry.example.com": "https", "192.0.2.1:5000": "https", "plain.example:80": "http", "named.example": "http", "docker.io": "https",
	} {
		o := Options{PlainHTTP: []string{"plain.example:80"}, Hosts: map[string]HostOptions{"named.example": {PlainHTTP: true}}}.withDefaults()
		c, err := newClient(host, nil, o, new(oci.Stats))
		if err != nil || c.scheme != want {
			t.Errorf("%s: got %q, %v; want %q", host, c.scheme, err, want)
		}
	}
	for host, want := range map[string]bool{"localhost": true, "localhost:5000": true, "127.0.0.1:1": true, "127.9.9.9": true, "[::1]:5": true,
		"localhost.example": false, "128.0.0.1": false, "[::2]:5": false, "127.0.0.1.example": false} {
		if got := loopback(host); got != want {
			t.Errorf("loopback(%q) = %v", host, got)
		}
	}
}

func TestUnreachable(t *testing.T) {
	client := func(host string) *client {
		c, err := newClient(host, nil, Options{}.withDefaults(), new(oci.Stats))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	far, near := client("registry.example"), client("localhost:5000")
	for addr, want := range map[string]string{ // who may not be sent there
		"127.0.0.1": "far", "127.255.3.4": "far", "::1": "far", "::ffff:127.0.0.1": "far", "::ffff:7f00:1": "far",
		"::127.0.0.1": "far", "64:ff9b::7f00:1": "far", "64:ff9b:1::7f00:1": "far", "2002:7f00:1::": "far", "::ffff:0:127.0.0.1": "far",
		"0.0.0.0": "both", "0.1.2.3": "both", "::": "both", "169.254.169.254": "both", "169.254.0.1": "both", "fe80::1": "both", "fe80::1%eth0": "both",
		"::ffff:169.254.169.254": "both", "64:ff9b::a9fe:a9fe": "both", "2002:a9fe:a9fe::1": "both", "::169.254.169.254": "both",
		"fd00:ec2::254": "both", "100.100.100.200": "both", "168.63.129.16": "both", "192.0.0.192": "both", "fd20:ce::254": "both",
		"224.0.0.1": "both", "239.255.255.250": "both", "ff02::1": "both", "ff05::2": "both", "255.255.255.255": "both",
		"10.0.0.1": "", "172.16.3.4": "", "192.168.1.1": "", "fd12:3456::1": "", "100.64.0.1": "", // where private registries keep their blobs
		"192.0.2.1": "", "8.8.8.8": "", "2001:db8::1": "", "64:ff9b::808:808": "", "2002:808:808::1": "", "::ffff:8.8.8.8": "", "128.0.0.1": "", "126.255.255.255": "",
	} {
		a := netip.MustParseAddr(addr)
		if got := far.unreachable(a); (got == "") != (want == "") {
			t.Errorf("%s: got %q for a registry elsewhere, want %q", addr, got, want)
		}
		if got := near.unreachable(a); (got == "") != (want != "both") {
			t.Errorf("%s: got %q for a registry on loopback, want %q", addr, got, want)
		}
	}
	// One answer from elsewhere is enough to be elsewhere.
	c := client("registry.example")
	c.onLoopback.Store(true)
	if !c.local() {
		t.Error("a name that is on loopback is not local")
	}
	c.offLoopback.Store(true)
	if c.local() {
		t.Error("a name that is here and there is local")
	}
}

func TestOwnTokenService(t *testing.T) {
	for _, c := range []struct {
		registry, service string
		own               bool
	}{
		{"docker.io", "https://auth.docker.io/token", true},
		{"ghcr.io", "https://ghcr.io/token", true},
		{"registry.gitlab.com", "https://gitlab.com/jwt/auth", true},
		{"registry.example.com:5050", "https://gitlab.example.com/jwt/auth", true},
		{"registry.cn-hangzhou.aliyuncs.com", "https://dockerauth.cn-hangzhou.aliyuncs.com/auth", true},
		{"rg.fr-par.scw.cloud", "https://api.scaleway.com/registry-internal/v1/token", true},
		{"a.b.corp", "https://auth.b.corp/", true},
		{"registry:5000", "https://registry:5001/token", true},
		{"192.0.2.1:5000", "http://192.0.2.1:5001/token", true},
		{"REGISTRY.example.com", "https://registry.EXAMPLE.com:444/token", true},
		{"localhost:5000", "http://127.0.0.1:5001/token", true},
		{"named.example", "https://auth.example.net/token", true},
		{"named.example", "https://auth.example.net:8443/token", true},
		{"named.example", "https://port.example.net:8443/token", true},

		{"named.example", "https://port.example.net/token", false},
		{"named.example", "https://xauth.example.net/token", false},
		{"ghcr.io", "https://evil.example/token", false},
		{"ghcr.io", "https://ghcr.io.evil.example/token", false},
		{"ghcr.io", "https://evil-ghcr.io/token", false},
		{"a.co.uk", "https://b.co.uk/token", false},
		{"a.github.io", "https://b.github.io/token", false},
		{"registry.corp", "https://gitlab.corp/token", false},
		{"registry:5000", "https://auth/token", false},
		{"192.0.2.1", "https://192.0.2.2/token", false},
		{"10.1.2.3", "https://9.1.2.3/token", false},
		{"registry.example.com", "http://127.0.0.1:5001/token", false},
		{"localhost:5000", "https://auth.example.com/token", false},
		{"scw.cloud", "https://evil.scaleway.com/token", false},
	} {
		o := Options{Hosts: map[string]HostOptions{"named.example": {TokenServices: []string{"auth.example.net", "port.example.net:8443"}}}}
		client, err := newClient(c.registry, nil, o.withDefaults(), new(oci.Stats))
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(c.service)
		if err != nil {
			t.Fatal(err)
		}
		if got := client.ownTokenService(u); got != c.own {
			t.Errorf("%s, %s: got %v", c.registry, c.service, got)
		}
	}
}

func TestChallenges(t *testing.T) {
	for _, c := range []struct {
		name   string
		fields []string
		want   string
	}{
		{"Basic", []string{`Basic realm="x"`}, `basic`},
		{"shouted", []string{`BASIC realm="Sonatype Nexus Repository Manager"`}, `basic`},
		{"Bearer", []string{`Bearer realm="https://a/t",service="s",scope="repository:r:pull,push"`},
			`bearer realm="https://a/t",service="s",scope="repository:r:pull,push"`},
		{"Negotiate first, in fields", []string{`Negotiate`, `Basic realm="x"`}, `basic`},
		{"Negotiate first, in one field", []string{`Negotiate, Basic realm="x"`}, `basic`},
		{"Negotiate with a token68", []string{`Negotiate oYG2MIGzoAMKAQ==, Basic realm="x"`}, `basic`},
		{"NTLM, Digest and what nobody knows", []string{`NTLM, Digest realm="a, b", qop="auth,auth-int", nonce=abc, Hoba challenge="x\", Basic realm=\"y", Bearer realm="https://a/t"`},
			`bearer realm="https://a/t"`},
		{"Bearer before Basic, wherever it stands", []string{`Basic realm="x"`, `Negotiate, Bearer realm="https://a/t"`}, `bearer realm="https://a/t"`},
		{"a Bearer without realm is worse than Basic", []string{`Bearer service="x", Basic realm="y"`}, `basic`},
		{"a Bearer without realm is better than nothing", []string{`Negotiate, Bearer`}, `bearer `},
		{"names in capitals", []string{`bearer Realm="https://a/t", SERVICE="s",Scope="x"`}, `bearer realm="https://a/t",service="s",scope="x"`},
		{"spaces around the equals sign", []string{`Bearer realm = "https://a/t" ,	service	=	s`}, `bearer realm="https://a/t",service="s"`},
		{"quotes and commas in a value", []string{`Bearer service="a \"b\", Basic realm=c\\", realm="https://a/t"`}, `bearer realm="https://a/t",service="a \"b\", Basic realm=c\\"`},
		{"a value without quotes", []string{`Bearer realm=https://a/t,service=s`}, `bearer realm="https://a/t",service="s"`},
		{"empty elements", []string{`, ,Negotiate,,`, ``, ` , Basic realm=x,`}, `basic`},
		{"a quote that does not end", []string{`Bearer realm="https://a/t`}, `bearer realm="https://a/t"`},
		{"a scheme in a value", []string{`Digest realm="Basic realm=x"`}, ``},
		{"garbage", []string{"\x00=\",,\"\xff@@ = =, Basic"}, `basic`},
		{"nothing that is known", []string{`Negotiate, NTLM`}, ``},
		{"nothing", nil, ``},
	} {
		chosen, ok := choose(parseChallenges(c.fields))
		if got := chosen.String(); ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzChallenges(f *testing.F) {
	for _, s := range []string{`Negotiate, Basic realm="x"`, `Bearer realm="https://a/t",service="s"`, `Digest nonce="a\"b", NTLM TlRM==`, `a b c=, "`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges([]string{s}) {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) {
				t.Errorf("scheme %q", c.scheme)
			}
			// What is given to oras-go reads back as the same.
			again, ok := choose(parseChallenges([]string{c.String()}))
			if !ok || c.scheme != "bearer" {
				continue
			}
			for _, name := range []string{"realm", "service", "scope"} {
				if again.params[name] != c.params[name] && isASCII(c.params[name]) {
					t.Errorf("%s: %q became %q", name, c.params[name], again.params[name])
				}
			}
		}
	})
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for h, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"120":                           2 * time.Minute,
		" 7 ":                           7 * time.Second,
		"-5":                            0,
		"soon":                          0,
		"99999999999999999999":          0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute,
		"Fri, 02 Jan 2026 03:03:05 GMT": 0,
	} {
		if got := retryAfter(h, now); got != want {
			t.Errorf("%q: got %v, want %v", h, got, want)
		}
	}
}

func TestParseContentRange(t *testing.T) {
	for h, want := range map[string][3]int64{
		"bytes 0-0/1":     {0, 0, 1},
		"bytes 10-19/100": {10, 19, 100},
		"bytes 10-19/*":   {10, 19, -1},
	} {
		if a, z, size, err := parseContentRange(h); err != nil || [3]int64{a, z, size} != want {
			t.Errorf("%q: got %d %d %d %v, want %v", h, a, z, size, err, want)
		}
	}
	for _, h := range []string{"", "bytes", "bytes */100", "bytes 0-1", "bytes 5-4/10", "bytes 0-10/10", "bytes -1-4/10", "bytes 0-+1/10", "items 0-1/2",
		"bytes 0-99999999999999999999/*", "bytes 0-1/-1", "bytes 0-1/x", "bytes 0x0-1/2"} {
		if a, z, size, err := parseContentRange(h); err == nil {
			t.Errorf("%q: got %d %d %d", h, a, z, size)
		}
	}
}
