// Package charset reads the encodings that descriptors are in beside UTF-8: of
// the code page that the host had on which they were written.
package charset

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding"
	"golang.org/x/text/encoding/htmlindex"
	"golang.org/x/text/encoding/ianaindex"
	"golang.org/x/text/encoding/unicode"
)

// codePages are the names that Windows and Java have for the encodings of East
// Asia, and that neither browsers nor IANA know.
var codePages = map[string]string{
	"cp932": "Shift_JIS", "windows-932": "Shift_JIS", "ms932": "Shift_JIS",
	"cp936": "GBK", "windows-936": "GBK", "ms936": "GBK",
	"cp949": "EUC-KR", "ms949": "EUC-KR",
	"cp950": "Big5", "windows-950": "Big5", "ms950": "Big5",
}

// Find returns the encoding of a name, as browsers understand it or as IANA has
// it; false: it is not known. What has no meaning in an encoding becomes U+FFFD.
// ISO-8859-1 is taken for windows-1252, since nobody means its control characters.
func Find(name string) (encoding.Encoding, bool) {
	name = strings.TrimSpace(name)
	if known, ok := codePages[strings.ToLower(name)]; ok {
		name = known
	}
	e, err := htmlindex.Get(name)
	if err != nil {
		e, err = ianaindex.IANA.Encoding(name)
	}
	return e, err == nil && e != nil && e != encoding.Replacement
}

// Decode returns text in this encoding as UTF-8. An error is for text that the
// encoding does not have.
func Decode(e encoding.Encoding, text string) (string, error) {
	if e == unicode.UTF8 { // whose decoder would replace what is none
		if !utf8.ValidString(text) {
			return "", fmt.Errorf("%.80q is not in this encoding", text)
		}
		return text, nil
	}
	s, err := e.NewDecoder().String(text)
	if err != nil || strings.ContainsRune(s, utf8.RuneError) {
		return "", fmt.Errorf("%.80q is not in this encoding", text)
	}
	return s, nil
}
