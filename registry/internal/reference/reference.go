// Package reference says what the parts of a reference may look like: hosts, repositories, tags and digests, as the distribution spec
// defines them. What it lets through is safe in a URL and, except for hosts, in a path.
package reference

import (
	"errors"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

// ErrMalformed is wrapped by errors about a name that is none.
var ErrMalformed = errors.New("malformed reference")

// The grammars of the distribution spec ("Pulling manifests"); a repository is limited to 255 characters there too.
var (
	repositoryPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
	hostPattern       = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*\.?$`)
	digestPattern     = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

const maxRepository = 255

// ValidRepository reports whether s can be the path of a repository, without the host.
func ValidRepository(s string) bool {
	return len(s) <= maxRepository && repositoryPattern.MatchString(s)
}

// ValidTag reports whether s can be a tag.
func ValidTag(s string) bool { return tagPattern.MatchString(s) }

// ValidDigest reports whether d is a SHA-256 digest, the only kind that davit knows, in its only spelling.
func ValidDigest(d digest.Digest) bool { return digestPattern.MatchString(string(d)) }

// ValidHost reports whether s is HOST[:PORT] in lower case; HOST can be an IPv6 address in brackets.
func ValidHost(s string) bool {
	var host, port string
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return false
		}
		addr, err := netip.ParseAddr(s[1:end])
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return false
		}
		if s[end+1:] == "" {
			return true
		}
		var ok bool
		if port, ok = strings.CutPrefix(s[end+1:], ":"); !ok {
			return false
		}
	} else {
		var hasPort bool
		if host, port, hasPort = strings.Cut(s, ":"); !hasPort {
			return hostPattern.MatchString(s)
		}
		if !hostPattern.MatchString(host) {
			return false
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && port[0] != '0'
}
