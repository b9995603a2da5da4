package secret

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"strings"
)

// A span is where in a text a secret is.
type span struct{ start, end int }

// LooksLikeKey says whether there is a private key in s, whole or in part: in
// PEM with its lines joined in any way, in base64, in hex, as openssl prints it,
// or of age or PuTTY.
func LooksLikeKey(s string) bool {
	return pemKey.MatchString(s) || otherKey.MatchString(s) || len(findEncodedKeys(s)) > 0
}

const pemLabel = ` [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-*`

// pemKey is a key in PEM. One that is cut off goes to where a message would go
// on; the colons are of its headers (RFC 1421).
var pemKey = regexp.MustCompile(`(?i)(-*\s*BEGIN` + pemLabel +
	"(?:[^\"'`<>]*?END" + pemLabel + "|(?:[^\"'`<>:]|: ?4,ENCRYPTED|: ?[A-Z0-9-]+,[0-9A-F]+)*))")

// pemMarks are no secret.
var pemMarks = regexp.MustCompile(`(?i)-*\s*(?:BEGIN|END)` + pemLabel)

var otherKey = regexp.MustCompile(`(?is)(Proc-Type: ?4,ENCRYPTED|DEK-Info: ?[A-Z0-9-]+,[0-9A-F]+|AGE-SECRET-KEY-[A-Z0-9-]{8,}|PuTTY-User-Key-File-[0-9]: ?[^"']*|"(?:d|p|q|dp|dq|qi|k)"\s*:\s*"[A-Za-z0-9_-]{16,}"` +
	`|(?:\b|\\[nrt])(?:priv|privateExponent|prime[12]|exponent[12]|coefficient):(?:\s|\\[nrt])*[0-9a-f]{2}(?:(?::|\s|\\[nrt])+[0-9a-f]{2}){7,})`)

// forms are what secrets look like in any text. The first group is the secret.
var forms = []*regexp.Regexp{
	pemKey,
	otherKey,
	regexp.MustCompile(`(?i)(-*\s*END` + pemLabel + `)`),
	// Tokens that say whose they are: GitHub, GitLab, Docker, AWS, Slack, npm,
	// PyPI, Google, Hugging Face, HashiCorp, Stripe, DigitalOcean, SendGrid.
	regexp.MustCompile(`\b(gh[a-z]_[A-Za-z0-9]{10,}|github_pat_\w{10,}|gl[a-z]{1,8}-[A-Za-z0-9_-]{16,}|dckr_[a-z]+_[A-Za-z0-9_-]{10,}` +
		`|(?:AKIA|ASIA)[A-Z0-9]{12,}|xox[a-z]-[A-Za-z0-9-]{10,}|npm_[A-Za-z0-9]{20,}|pypi-[A-Za-z0-9_-]{20,}|AIza[A-Za-z0-9_-]{20,}|ya29\.[A-Za-z0-9_-]{10,}` +
		`|hf_[A-Za-z]{20,}|hv[sb]\.[A-Za-z0-9_-]{10,}|[sr]k_(?:live|test)_[A-Za-z0-9]{10,}|do[op]_v1_[a-f0-9]{20,}|SG\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})`),
	regexp.MustCompile(`\b(eyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)*)`), // a JSON web token
	// Headers of HTTP.
	regexp.MustCompile(`(?i)\bauthorization"?\s*[:=]\s*"?([^\s",;]+(?:\s+[^\s",;]+)?)`),
	regexp.MustCompile(`(?i)\b(?:set-)?cookie"?\s*:\s*"?([^\s"]+)`),
	// URLs: who logs in, and what storage backends sign in the query.
	regexp.MustCompile(`(?i)[a-z][a-z0-9+.-]*://([^\s"'/?#<>]+)@`),
	regexp.MustCompile(`(?i)[a-z][a-z0-9+.-]*://[^\s"'?#<>]*[?#]([^\s"'<>]*[^\s"'<>:;,.)])`),
	regexp.MustCompile(`(?i)[?&;](?:x-amz-[a-z-]+|x-goog-[a-z-]+|sig|signature|key|code|auth|` + secretName + `|[a-z]+[_-]` + secretName + `)=([^\s"'&;<>]+)`),
	// Assignments.
	regexp.MustCompile("(?i)" + secretName + "\\s*=\\s*([^\\s\"'`&,;<>()]{5,}[^\\s\"'`&,;<>():])"),
	regexp.MustCompile("(?i)(?:" + secretName + "|\\bauth|identitytoken|registrytoken)[\"']?\\s*[:=]\\s*[\"']([^\"']{4,})[\"']"),
}

var (
	scheme     = regexp.MustCompile(`(?i)\b(?:bearer|basic|negotiate)[\s:]+([A-Za-z0-9._~+/=-]{8,})`)
	encoded    = regexp.MustCompile(`[A-Za-z0-9+/_-]{20,}(?:(?:\s|\\[nr])+[A-Za-z0-9+/_-]{20,})*(?:(?:(?:\s|\\[nr])+[A-Za-z0-9+/_-]{1,76})?={1,2})?`)
	hexPairs   = regexp.MustCompile(`(?i)\b[0-9a-f]{2}(?:(?:[:.,\s-]|\\[nrt])+[0-9a-f]{2}){19,}\b`)
	base64Run  = regexp.MustCompile(`[A-Za-z0-9+/]{24,}`)
	userAtHost = regexp.MustCompile("[^\\s\"'`<>()]+@[^\\s\"'`<>()]+")
	ownDigest  = regexp.MustCompile(`@[a-z0-9+._-]*sha[0-9]+:[^@]*$`)
	urlScheme  = regexp.MustCompile(`^(?:[A-Za-z][A-Za-z0-9+.-]*:)?//`)

	folderScheme = regexp.MustCompile(`^oci(?:-archive)?:`)
	portOfHost   = regexp.MustCompile(`^[0-9]{1,5}(?:/|$)`)
)

// find returns where in text there is what looks like a secret.
func find(text string) (spans []span) {
	for _, form := range forms {
		for _, m := range form.FindAllStringSubmatchIndex(text, -1) {
			if !repeated(text, m[2], m[3]) {
				spans = append(spans, span{m[2], m[3]})
			}
		}
	}
	for _, m := range scheme.FindAllStringSubmatchIndex(text, -1) {
		if mixed(text[m[2]:m[3]]) {
			spans = append(spans, span{m[2], m[3]})
		}
	}
	for _, m := range userAtHost.FindAllStringIndex(text, -1) {
		if s, ok := userInfo(text[m[0]:m[1]]); ok {
			spans = append(spans, span{m[0] + s.start, m[0] + s.end})
		}
	}
	return append(spans, findEncodedKeys(text)...)
}

// repeated says whether a value is what it is assigned to, as in the reason of a
// file: etc/passwd: "etc/passwd" is missing. It was said already.
func repeated(text string, start, end int) bool {
	name := strings.TrimRight(text[:start], " \t:=\"'")
	return len(name) < start && strings.HasSuffix(name, text[start:end])
}

// mixed tells a token from a word: "Basic credential", "Bearer Authentication".
func mixed(s string) bool {
	inside := s[1:]
	return strings.ContainsAny(s, "0123456789=") || strings.ToLower(inside) != inside && strings.ToUpper(s) != s
}

// userInfo finds USER:PASSWORD in USER:PASSWORD@HOST/REPO, and in a URL. A
// password may have any sign in it, so the last @ counts. It is none of a
// REPO@DIGEST, of HOST:PORT/REPO@..., of a file name or an e-mail address. Of
// what is in front of a folder's name only a host behind it makes one.
func userInfo(word string) (span, bool) {
	folder := len(folderScheme.FindString(word))
	start := folder + len(urlScheme.FindString(word[folder:]))
	rest := word[start:]
	if i := ownDigest.FindStringIndex(rest); i != nil {
		rest = rest[:i[0]]
	}
	at := strings.LastIndexByte(rest, '@')
	if at <= 0 || at == len(rest)-1 {
		return span{}, false
	}
	before, after := rest[:at], rest[at+1:]
	user, password, colon := strings.Cut(before, ":")
	host, _, path := strings.Cut(after, "/")
	named := path && (host == "localhost" || strings.ContainsAny(host, ".:"))
	switch {
	case strings.ContainsAny(user, `/\`):
		return span{}, false
	case !colon:
		return span{start, start + at}, start > folder || named
	case folder > 0 && start == folder && !named:
		return span{}, false
	case portOfHost.MatchString(password) && !strings.Contains(after, "/"):
		return span{}, false
	case len(user) == 1 && strings.IndexAny(password, `/\`) == 0: // C:\
		return span{}, false
	}
	return span{start, start + at}, true
}

// findEncodedKeys finds private keys in base64 and hex, and base64 of one in PEM.
func findEncodedKeys(text string) (spans []span) {
	for _, m := range encoded.FindAllStringIndex(text, -1) {
		for i := m[0]; i < m[1]; i++ {
			// It need not begin the run: a flag, a folder can stand before it. The
			// letters are what keys begin with.
			if strings.IndexByte("MeLbQ32", text[i]) >= 0 && encodedKey(text[i:m[1]]) {
				spans = append(spans, span{i, m[1]})
				break
			}
		}
	}
	for _, m := range hexPairs.FindAllStringIndex(text, -1) {
		var b []byte
		var at []int // of each in text
		for i := m[0]; i < m[1]; {
			switch {
			case hexAt(text, i):
				b, at = append(b, unhex(text[i:i+2])), append(at, i)
				i += 2
			case text[i] == '\\':
				i += 2
			default:
				i++
			}
		}
		for i := range b {
			if privateDER(b[i:]) || privatePEM(b[i:min(len(b), i+64)]) {
				spans = append(spans, span{at[i], m[1]})
				break
			}
		}
	}
	return spans
}

// keyWithoutHeader says whether s is nothing but a private key in base64, and
// perhaps a flag.
func keyWithoutHeader(s string) bool {
	return len(findEncodedKeys(s)) > 0 && !strings.ContainsFunc(s, func(r rune) bool {
		return r > 0x7F || !wordByte(byte(r)) && !strings.ContainsRune("+/_-=\\ \r\n\t", r)
	})
}

// encodedKey looks at the beginning of base64 or hex.
func encodedKey(s string) bool {
	head := s[:min(len(s), 96)]
	if i := strings.IndexAny(head, " \r\n\t\\="); i >= 0 {
		head = head[:i]
	}
	if len(head) < 20 {
		return false
	}
	if b, err := hex.DecodeString(head[:len(head)&^1]); err == nil {
		return privateDER(b) || privatePEM(b)
	}
	head = strings.NewReplacer("-", "+", "_", "/").Replace(head)
	b, err := base64.StdEncoding.DecodeString(head[:len(head)&^3])
	if err != nil {
		return false
	}
	return privateDER(b) ||
		privatePEM(b) ||
		bytes.HasPrefix(b, []byte(`{"kdf"`)) || // cosign's
		bytes.HasPrefix(b, []byte("openssh-key-v1\x00")) ||
		bytes.HasPrefix(b, []byte("AGE-SECRET-KEY-"))
}

// privatePEM says whether b has the first line of a private key in PEM.
func privatePEM(b []byte) bool {
	return bytes.Contains(b, []byte("-----BEGIN")) && bytes.Contains(b, []byte("PRIVATE"))
}

// privateDER says whether b begins as a private key does: a version comes first
// (PKCS #1, PKCS #8, SEC 1, PKCS #12), or the name of a cipher with a password
// (PKCS #5, PKCS #12). Public keys and certificates begin otherwise.
func privateDER(b []byte) bool {
	rest, ok := sequence(b)
	if !ok {
		return false
	}
	if len(rest) >= 4 && rest[0] == 2 && rest[1] == 1 && rest[2] <= 3 {
		return rest[3] == 0x30 || rest[3] == 0x02 || rest[3] == 0x04
	}
	if rest, ok = sequence(rest); !ok {
		return false
	}
	oid := []byte{6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1} // and 5, or 12: the length of the latter's is 10
	if len(rest) < len(oid)+1 || rest[0] != 6 || rest[1] != 9 && rest[1] != 10 {
		return false
	}
	return bytes.Equal(rest[2:len(oid)], oid[2:]) && (rest[len(oid)] == 5 || rest[len(oid)] == 12)
}

// sequence returns what follows the tag and the length of a SEQUENCE.
func sequence(b []byte) ([]byte, bool) {
	if len(b) < 2 || b[0] != 0x30 {
		return nil, false
	}
	n := 2
	if b[1] >= 0x80 {
		n += int(b[1] & 0x7F)
	}
	if b[1] > 0x84 || n > len(b) {
		return nil, false
	}
	return b[n:], true
}

// given are what may be secrets in a text that the program was given.
var given = []*regexp.Regexp{
	// A key that is cut off, to the end.
	regexp.MustCompile(`(?is)BEGIN` + pemLabel + `(.*?)(?:-+\s*END |\z)`),
	// One whose beginning is missing.
	regexp.MustCompile(`(?i)\A([A-Z0-9+/=\\\s]*?)-+\s*END` + pemLabel),
	// YAML and the like, where a value has no quotes.
	regexp.MustCompile(`(?im)(?:` + secretName + `|\bauth)["']?[ \t]*[:=][ \t]*["']?([^"'\r\n]{4,})`),
	// What stands in a query alone.
	regexp.MustCompile(`[?&][A-Za-z0-9_.-]+=([^\s"'&]{12,})`),
}

func findGiven(text string) (spans []span) {
	for _, form := range given {
		for _, m := range form.FindAllStringSubmatchIndex(text, -1) {
			spans = append(spans, span{m[2], m[3]})
		}
	}
	// Of USER:PASSWORD the password alone, too: a message may have no more.
	for _, m := range userAtHost.FindAllStringIndex(text, -1) {
		if s, ok := userInfo(text[m[0]:m[1]]); ok {
			user, _, colon := strings.Cut(text[m[0]+s.start:m[0]+s.end], ":")
			if colon {
				spans = append(spans, span{m[0] + s.start + len(user) + 1, m[0] + s.end})
			}
		}
	}
	return spans
}

// random says whether a run of base64 looks like chance: a token, a line from
// the middle of a key. Digests are hex and paths are words, in which the kind of sign
// changes less often. A public key begins as one.
func random(run string) bool {
	if strings.HasPrefix(run, "MFkw") || strings.HasPrefix(run, "MIIBI") || strings.HasPrefix(run, "MCow") {
		return false
	}
	kinds := [3]int{}
	changes, last := 0, -1
	for i := range len(run) {
		var kind int
		switch c := run[i]; {
		case '0' <= c && c <= '9':
			kind = 0
		case 'a' <= c && c <= 'z':
			kind = 1
		case 'A' <= c && c <= 'Z':
			kind = 2
		default:
			continue
		}
		kinds[kind]++
		if last >= 0 && kind != last {
			changes++
		}
		last = kind
	}
	least := len(run) * 3 / 10
	if len(run) < 40 { // a name with numbers in it
		least = len(run) * 4 / 10
	}
	return kinds[0] > 0 && kinds[1] > 0 && kinds[2] > 0 && changes > least
}
