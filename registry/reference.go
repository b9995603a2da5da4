package registry

import (
	"fmt"
	"regexp"
	"runtime"
	"strings"

	"github.com/davit-oci/davit/registry/internal/reference"
	"github.com/opencontainers/go-digest"
)

// A Kind says what a [Reference] points into.
type Kind int

// What a Reference can point into.
const (
	Remote  Kind = iota // a repository of a registry: HOST[:PORT]/REPO
	Layout              // an OCI image layout: oci:DIR
	Archive             // a tar file of one: oci-archive:FILE
)

func (k Kind) prefix() string {
	switch k {
	case Layout:
		return "oci:"
	case Archive:
		return "oci-archive:"
	}
	return ""
}

// A Reference names a repository and, in it, a tag, a digest, both or neither.
// It is comparable; two are equal when they print the same.
type Reference struct {
	Kind       Kind
	Host       string // Remote: host, lower-case, and port if one was given
	Repository string // Remote: path of the repository, without the host
	Path       string // Layout, Archive: path of the directory or file, as it was given
	Tag        string // empty when none was given; see TagOrLatest
	Digest     digest.Digest
}

// anyDigestPattern is what looks like a digest, of whatever algorithm.
var anyDigestPattern = regexp.MustCompile(`^[A-Za-z0-9+._-]+:[0-9a-zA-Z]*$`)

const maxReference = 4096 // in bytes; longer than any path that a system opens

// ParseReference reads
//
//	HOST[:PORT]/REPO[:TAG][@DIGEST]   oci:DIR[:TAG][@DIGEST]   oci-archive:FILE[:TAG][@DIGEST]
//
// There is no default host: HOST contains "." or ":" or is localhost. What begins with ./ ../ or / is a path and no reference.
// A layout's tag follows the last ":" after the last / or \, except that C: is a drive; C:NAME is one on Windows only. Only
// SHA-256 digests are known. The error is an [ErrMalformedReference].
func ParseReference(s string) (Reference, error) {
	fail := func(format string, args ...any) (Reference, error) {
		return Reference{}, fmt.Errorf("%w: %.200q: %s", ErrMalformedReference, s, fmt.Sprintf(format, args...))
	}
	if len(s) > maxReference {
		return fail("longer than %d bytes", maxReference)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fail("control character")
	}

	r := Reference{Kind: Remote}
	rest := s
	for _, k := range []Kind{Layout, Archive} {
		if after, ok := strings.CutPrefix(s, k.prefix()); ok {
			r.Kind, rest = k, after
		}
	}

	rest, d, ok := cutDigest(rest, r.Kind)
	if ok {
		if !reference.ValidDigest(digest.Digest(d)) {
			return fail("a digest is sha256: and 64 lower-case hex digits")
		}
		r.Digest = digest.Digest(d)
	}

	rest, tag, ok := cutTag(rest, r.Kind)
	if ok {
		if !reference.ValidTag(tag) {
			return fail("%q is no tag", tag)
		}
		r.Tag = tag
	}

	if r.Kind != Remote {
		if rest == "" {
			return fail("no path")
		}
		r.Path = rest
		return r, nil
	}

	if isPath(s) {
		return fail("a path, not a reference")
	}
	host, repository, ok := strings.Cut(rest, "/")
	host = strings.ToLower(host)
	if !ok || !looksLikeHost(host) {
		return fail("no host: write HOST/REPO; HOST has a dot or a port, or is localhost")
	}
	if !reference.ValidHost(host) {
		return fail("%q is no host", host)
	}
	if !reference.ValidRepository(repository) {
		return fail("%q is no repository: lower-case letters, digits, separators . _ - and slashes", repository)
	}
	r.Host, r.Repository = host, repository
	return r, nil
}

// cutDigest splits at the last @. In a path it does so only where a digest follows, since file names may contain @.
func cutDigest(s string, k Kind) (rest, digest string, found bool) {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return s, "", false
	}
	if k != Remote && !anyDigestPattern.MatchString(s[at+1:]) {
		return s, "", false
	}
	return s[:at], s[at+1:], true
}

// cutTag splits at the last colon of the last part of the path.
func cutTag(s string, k Kind) (rest, tag string, found bool) {
	separators := "/"
	if k != Remote {
		separators = `/\`
	}
	colon := strings.LastIndexByte(s, ':')
	if colon < 0 || colon < strings.LastIndexAny(s, separators) {
		return s, "", false
	}
	if k == Remote && !strings.Contains(s, "/") {
		return s, "", false // HOST:PORT without a repository; the caller says so
	}
	if k != Remote && colon == 1 && isLetter(s[0]) && (runtime.GOOS == "windows" || len(s) == 2) {
		return s, "", false // C: is a drive, where there are drives; l:v1 is a folder elsewhere
	}
	return s[:colon], s[colon+1:], true
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

func isPath(s string) bool {
	for _, p := range []string{"./", "../", "/", `.\`, `..\`, `\`} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

func looksLikeHost(s string) bool { return strings.ContainsAny(s, ".:") || s == "localhost" }

// Name is the repository alone: HOST/REPO, oci:DIR or oci-archive:FILE.
func (r Reference) Name() string {
	if r.Kind == Remote {
		return r.Host + "/" + r.Repository
	}
	return r.Kind.prefix() + r.Path
}

// String is the reference as [ParseReference] reads it.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + string(r.Digest)
	}
	return s
}

// TagOrLatest is the tag, "latest" when the reference has neither tag nor digest, or "" when it has only a digest.
func (r Reference) TagOrLatest() string {
	if r.Tag == "" && r.Digest == "" {
		return "latest"
	}
	return r.Tag
}

// WithDigest is the same repository with d and without a tag: the pinned reference.
func (r Reference) WithDigest(d digest.Digest) Reference {
	r.Tag, r.Digest = "", d
	return r
}

// WithTag is the same repository with tag and without a digest.
func (r Reference) WithTag(tag string) Reference {
	r.Tag, r.Digest = tag, ""
	return r
}

// ValidTag reports whether s can be a tag.
func ValidTag(s string) bool { return reference.ValidTag(s) }
