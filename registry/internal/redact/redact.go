// Package redact makes text of others fit to be shown: errors and messages that may have passwords, tokens or signed URLs in them, and
// may be long or move the cursor. [Error] is for errors, [Line] for what a registry or an archive says.
package redact

import (
	"regexp"
	"strings"
	"unicode"
)

// A redactedError prints without what may be a secret: queries of URLs (storage backends sign in them, token services log in with
// them) and user information. The error it wraps is there for errors.Is and errors.As only.
type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string { return e.text }
func (e *redactedError) Unwrap() error { return e.err }

// Error is for errors that others made: net/http and oras-go print URLs in full. What err is, the result is, too.
func Error(err error) error {
	if err == nil {
		return nil
	}
	shown := text(err.Error())
	if shown == err.Error() {
		return err
	}
	return &redactedError{shown, err}
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

func text(s string) string {
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

const maxLine = 300 // of a registry's own words in our error, in characters

// Line makes one short line of text that a stranger wrote, fit for a terminal.
func Line(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, text(s))
	s = strings.TrimSpace(s)
	if r := []rune(s); len(r) > maxLine {
		s = string(r[:maxLine]) + "…"
	}
	return s
}
