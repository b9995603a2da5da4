// Package secret keeps private keys, passwords and tokens out of messages.
//
// A [Filter] hides two things. What has the form of a secret is hidden in
// every text. What the program was given, in its arguments, its environment or
// its files, is known by its content: a part of it is hidden wherever it turns
// up, cut, quoted, in lower case or as the last element of a path.
//
// A filter is the second line. The first is not to put a secret into an error.
package secret

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Hidden stands where a secret was.
const Hidden = "(not shown)"

const (
	// maxLearned bounds what is looked at of one text, and is beyond any key.
	maxLearned = 1 << 20

	// maxWindows bounds the memory of a filter, about 64 bytes for each.
	maxWindows = 1 << 18

	// window is how many letters and digits of a long secret give it away. It is
	// longer than most words, so that a password made of words hides no others.
	window = 10

	longSecret  = 12 // letters and digits; what has fewer is hidden as a whole
	shortSecret = 6  // characters; what has fewer is like too much that is no secret

	// A secret of middling length is also given away by part letters and digits of
	// it, if they are both: a part of a word would hide that word everywhere.
	middling = 8
	part     = 7

	maxEncoded = 4096 // bytes; what has more is no password or token
)

// A Filter hides secrets. It is safe for concurrent use. The zero value knows
// what secrets look like, but none by its content; nil stays so.
type Filter struct {
	mu      sync.RWMutex
	windows map[string]struct{} // of long secrets, folded
	parts   map[string]struct{} // of middling ones
	short   []string            // in lower case
}

// Know makes value a secret, whatever it looks like, also in base64 and in hex.
func (f *Filter) Know(value string) {
	if f == nil {
		return
	}
	f.know(value)
	if len(value) >= shortSecret && len(value) <= maxEncoded {
		f.know(base64.RawStdEncoding.EncodeToString([]byte(value)))
		f.know(base64.RawURLEncoding.EncodeToString([]byte(value)))
		f.know(hex.EncodeToString([]byte(value)))
	}
}

// KnowLogin makes a password a secret, and what is sent of it: user name and
// password in base64, as HTTP and auth files have them. The name is none.
func (f *Filter) KnowLogin(user, password string) {
	f.Know(password)
	if password != "" {
		f.Know(base64.StdEncoding.EncodeToString([]byte(user + ":" + password)))
	}
}

func (f *Filter) know(value string) {
	value = strings.TrimSpace(pemMarks.ReplaceAllString(value, " "))
	if len(value) > maxLearned {
		value = value[:maxLearned]
	}
	folded, _ := fold(value)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(folded) < longSecret {
		if value = lowerASCII(value); len(value) >= shortSecret && !slices.Contains(f.short, value) {
			f.short = append(f.short, value)
		}
		if f.parts == nil {
			f.parts = make(map[string]struct{})
		}
		for i := 0; len(folded) >= middling && i+part <= len(folded) && len(f.parts) < maxWindows; i++ {
			if w := folded[i : i+part]; bytes.ContainsAny(w, "0123456789") && bytes.ContainsAny(w, "abcdefghijklmnopqrstuvwxyz") {
				f.parts[string(w)] = struct{}{}
			}
		}
		return
	}
	if f.windows == nil {
		f.windows = make(map[string]struct{})
	}
	for i := 0; i+window <= len(folded) && len(f.windows) < maxWindows; i++ {
		f.windows[string(folded[i:i+window])] = struct{}{}
	}
}

// Learn looks for secrets in a text that the program was given. It is bolder
// than Hide, since what it finds matters only where it turns up again.
func (f *Filter) Learn(text string) {
	if len(text) > maxLearned {
		text = text[:maxLearned]
	}
	for _, s := range append(find(text), findGiven(text)...) {
		f.Know(text[s.start:s.end])
	}
}

// LearnInput is Learn for what messages quote: a word of the command line, a
// configuration file. A part of a key in it may have no form any more.
func (f *Filter) LearnInput(text string) {
	f.Learn(text)
	if len(text) > maxLearned {
		text = text[:maxLearned]
	}
	if keyWithoutHeader(text) {
		f.Know(text)
	}
	for _, run := range base64Run.FindAllString(text, -1) {
		if random(run) {
			f.Know(run)
		}
	}
}

// Hide returns text with [Hidden] in the place of secrets. Hidden twice, a text
// is as it was hidden once.
func (f *Filter) Hide(text string) string {
	parts := strings.Split(text, Hidden)
	for i, part := range parts {
		parts[i] = f.hide(part)
	}
	return strings.Join(parts, Hidden)
}

func (f *Filter) hide(text string) string {
	spans := find(text)
	if f != nil {
		spans = append(spans, f.known(text)...)
	}
	if len(spans) == 0 {
		return text
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.start, b.start) })
	var b strings.Builder
	end := 0
	for _, s := range spans {
		if s.start >= end && s.start < s.end {
			// The lines of a key are one word.
			if between := text[end:s.start]; end == 0 || strings.Trim(lineEscapes.Replace(between), "/+=-_ \r\n\t") != "" {
				b.WriteString(between)
				b.WriteString(Hidden)
			}
		}
		end = max(end, s.end)
	}
	b.WriteString(text[end:])
	return b.String()
}

var lineEscapes = strings.NewReplacer(`\r`, "", `\n`, "")

// known returns where parts of known secrets are, as they were given or with
// escapes in the place of characters.
func (f *Filter) known(text string) []span {
	f.mu.RLock()
	defer f.mu.RUnlock()
	spans := f.knownIn(text)
	if plain, at := unescape(text); len(plain) < len(text) {
		for _, s := range f.knownIn(plain) {
			spans = append(spans, span{at[s.start], at[s.end]})
		}
	}
	return spans
}

func (f *Filter) knownIn(text string) (spans []span) {
	folded, at := fold(text)
	find := func(windows map[string]struct{}, n int) {
		for i := 0; len(windows) > 0 && i+n <= len(folded); i++ {
			if _, ok := windows[string(folded[i:i+n])]; ok {
				spans = append(spans, span{at[i], at[i+n-1] + 1})
			}
		}
	}
	find(f.windows, window)
	find(f.parts, part)
	if len(f.short) > 0 {
		lower := lowerASCII(text)
		for _, word := range f.short {
			for from := 0; ; {
				i := strings.Index(lower[from:], word)
				if i < 0 {
					break
				}
				start, end := from+i, from+i+len(word)
				// As a word, not within one.
				within := start > 0 && wordByte(lower[start-1]) && wordByte(lower[start]) ||
					end < len(lower) && wordByte(lower[end]) && wordByte(lower[end-1])
				if !within {
					spans = append(spans, span{start, end})
				}
				from = start + 1
			}
		}
	}
	return spans
}

// fold returns the letters and digits of s, in lower case, and where each is.
// Escapes are left out, as are all signs: a secret is the same however it was
// quoted or broken into lines.
func fold(s string) (folded []byte, at []int) {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && i+1 < len(s) && strings.IndexByte("nrt", s[i+1]) >= 0:
			i++
		case c == '%' && i+2 < len(s) && hexByte(s[i+1]) && hexByte(s[i+2]):
			i += 2
		case wordByte(c):
			if 'A' <= c && c <= 'Z' {
				c |= 0x20
			}
			folded, at = append(folded, c), append(at, i)
		}
	}
	return folded, at
}

// unescape returns s with characters in the place of escapes, those of URLs
// (%26), of JSON and Go (\u0026, \x26, \"), and where in s each of them is.
func unescape(s string) (plain string, at []int) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); {
		n, c := 1, s[i]
		switch {
		case c == '%' && hexAt(s, i+1):
			n, c = 3, unhex(s[i+1:i+3])
		case c == '\\' && strings.HasPrefix(s[i+1:], "u00") && hexAt(s, i+4):
			n, c = 6, unhex(s[i+4:i+6])
		case c == '\\' && strings.HasPrefix(s[i+1:], "x") && hexAt(s, i+2):
			n, c = 4, unhex(s[i+2:i+4])
		case c == '\\' && i+1 < len(s):
			n, c = 2, s[i+1]
			if j := strings.IndexByte("nrt", c); j >= 0 {
				c = "\n\r\t"[j]
			}
		}
		b, at = append(b, c), append(at, i)
		i += n
	}
	return string(b), append(at, len(s))
}

// hexAt says whether two hexadecimal digits are at i.
func hexAt(s string, i int) bool {
	return i+2 <= len(s) && !strings.ContainsFunc(s[i:i+2], func(r rune) bool { return r > 0x7F || !hexByte(byte(r)) })
}

func unhex(s string) byte {
	n, _ := strconv.ParseUint(s, 16, 8) // of two digits that were looked at
	return byte(n)
}

// lowerASCII keeps the length of s, unlike [strings.ToLower].
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] |= 0x20
		}
	}
	return string(b)
}

func wordByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c >= 0x80
}

func hexByte(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

// secretName is how what holds a secret is called: in an assignment, a flag, a
// variable of the environment.
const secretName = `(?:password|passwd|passphrase|token|secret|api[_-]?key|access[_-]?key|private[_-]?key|credentials?)`

var namesSecret = regexp.MustCompile(`(?i)(?:^|[_.-])` + secretName + `$`)

// Names says whether what is called so holds a secret, as "DAVIT_PASSWORD" and
// "--token" do.
func Names(name string) bool { return namesSecret.MatchString(name) }
