package appliance

import (
	"bytes"
	"crypto/sha1" // many packages have no other digest
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/davit-oci/davit/machine"
)

// maxManifest limits a manifest and a certificate, in bytes.
const maxManifest = 4 << 20

// algorithms are those of DSP0243, by the names that they have in reports.
var algorithms = map[string]func() hash.Hash{
	"SHA1":   sha1.New,
	"SHA256": sha256.New,
	"SHA512": sha512.New,
}

// A digest is a line of a manifest: what a file ought to be.
type digest struct {
	name      string
	algorithm string
	want      []byte
}

// parseManifest reads a .mf, in all spellings that programs write:
//
//	SHA256(x.ovf)= 0123…      ovftool, openssl before 3, DSP0243
//	SHA2-256(x.ovf)= 0123…    openssl 3
//	SHA256 (x.ovf) = 0123…    BSD, shasum --tag
//	0123…  x.ovf              sha256sum; "*x.ovf" if it was read as binary
//
// A file can have several digests, one of each algorithm. Two that differ are
// refused: who reads only one of the lines would be told another story.
func parseManifest(data []byte) ([]digest, error) {
	if len(data) > maxManifest {
		return nil, machine.Malformed("%d bytes, more than %d", len(data), maxManifest)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return nil, machine.Malformed("it is no text in UTF-8")
	}
	type key struct{ name, algorithm string }
	var (
		digests []digest
		lines   = make(map[key]digest)
		names   = make(map[string]string) // by themselves in lower case
		n       int
	)
	for line := range strings.SplitSeq(string(data), "\n") {
		n++
		line = strings.Trim(line, " \t\r")
		if line == "" || line[0] == '#' {
			continue
		}
		d, err := parseDigest(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		lower := strings.ToLower(d.name)
		if name, known := names[lower]; known && name != d.name {
			return nil, machine.Malformed("line %d: %q is %q but for the case of letters", n, d.name, name)
		} else if !known && len(names) == maxMembers {
			return nil, machine.Malformed("more than %d files", maxMembers)
		}
		names[lower] = d.name
		k := key{lower, d.algorithm}
		if other, twice := lines[k]; twice {
			if !bytes.Equal(d.want, other.want) { // whatever the file is, it is not what one of them says
				return nil, wrongDigest("line %d: a second, different digest of %q", n, d.name)
			}
			continue
		}
		lines[k] = d
		digests = append(digests, d)
	}
	return digests, nil
}

// parseDigest reads a line that has a digest.
func parseDigest(line string) (d digest, err error) {
	sum, name, plain := strings.Cut(line, " ")
	if plain && isHex(sum) {
		d.algorithm = map[int]string{32: "MD5", 40: "SHA1", 64: "SHA256", 128: "SHA512"}[len(sum)]
		name = name[min(1, len(name)):] // a second space, or "*"
	} else if d.algorithm, name, sum, err = cutDigest(line); err != nil {
		return digest{}, err
	}
	newHash := algorithms[d.algorithm]
	if newHash == nil {
		return digest{}, machine.Unsupported("digests of %q (SHA1, SHA256 and SHA512 are)", d.algorithm)
	}
	if d.want, err = hex.DecodeString(sum); err != nil || len(d.want) != newHash().Size() {
		return digest{}, machine.Malformed("%q is no digest of %s", shorten(sum), d.algorithm)
	}
	if d.name, err = memberName(name); err != nil {
		return digest{}, machine.Malformed("%w", err)
	}
	if d.name == "" {
		return digest{}, machine.Malformed("a digest of no file")
	}
	return d, nil
}

// cutDigest takes ALGORITHM(NAME)= VALUE apart, as it is in a manifest and in a
// certificate. The name may have parentheses.
func cutDigest(line string) (algorithm, name, value string, err error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return "", "", "", machine.Malformed("%q is no digest", shorten(line))
	}
	value, ok := strings.CutPrefix(strings.TrimLeft(line[end+1:], " \t"), "=")
	if !ok {
		return "", "", "", machine.Malformed("%q is no digest", shorten(line))
	}
	return algorithmName(strings.ToUpper(strings.TrimSpace(line[:open]))), line[open+1 : end], strings.Trim(value, " \t"), nil
}

// algorithmName spells SHA2-256 and SHA-256 as SHA256.
func algorithmName(s string) string {
	for _, spelling := range []string{"SHA2-", "SHA-"} {
		if bits, ok := strings.CutPrefix(s, spelling); ok {
			return "SHA" + bits
		}
	}
	return s
}

func isHex(s string) bool {
	return len(s) >= 32 && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.Is(unicode.ASCII_Hex_Digit, r) })
}

// shorten is for messages.
func shorten(s string) string {
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}
