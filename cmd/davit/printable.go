package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/davit-oci/davit/machine"
)

// What files and registries say is printed, and a terminal obeys some of it. It
// gets none of that: what is not printable is escaped where the text stays the
// same by that, in JSON and XML, and replaced elsewhere. JSON and XML are so in
// a pipe, too, since most pipes end at a terminal.

// printable returns s in one line with nothing that a terminal would obey, and
// nothing that cannot be seen.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !machine.Visible(r):
			return utf8.RuneError
		}
		return r
	}, s)
}

// printableLines is printable for several lines, which stay.
func printableLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		fields := strings.Split(line, "\t")
		for n, field := range fields {
			fields[n] = printable(field)
		}
		lines[i] = strings.Join(fields, "\t")
	}
	return strings.Join(lines, "\n")
}

// writeJSON writes v, one object, to a result.
func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(printableJSON(b.Bytes()))
	return err
}

// printableJSON returns JSON with the same value, in which all that is not
// printable is escaped.
func printableJSON(data []byte) []byte {
	return escapeRunes(data, func(b []byte, r rune) []byte {
		if r >= 1<<16 {
			high, low := utf16.EncodeRune(r)
			return fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		}
		return fmt.Appendf(b, `\u%04x`, r)
	})
}

// printableXML returns XML with the same texts, in which all that is not
// printable is a reference. What no XML can have is U+FFFD.
func printableXML(data []byte) []byte {
	const mark = "\uFEFF" // of UTF-8, which moves nothing at the beginning
	rest, marked := bytes.CutPrefix(data, []byte(mark))
	out := escapeRunes(rest, func(b []byte, r rune) []byte {
		if r < ' ' || r == '\uFFFE' || r == '\uFFFF' {
			return utf8.AppendRune(b, utf8.RuneError)
		}
		return fmt.Appendf(b, "&#x%X;", r)
	})
	if marked {
		out = append([]byte(mark), out...)
	}
	return out
}

// escapeRunes returns UTF-8 in which escape has written what is not printable.
// Line ends and tabs stay; a carriage return alone, which would let a line be
// written over, is a line end, as in XML and for JSON.
func escapeRunes(data []byte, escape func(b []byte, r rune) []byte) []byte {
	out := make([]byte, 0, len(data))
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError: // or there is no UTF-8
			out = utf8.AppendRune(out, r)
		case r == '\r' && (i+1 == len(data) || data[i+1] != '\n'):
			out = append(out, '\n')
		case r == '\n', r == '\t', r == '\r', r < utf8.RuneSelf && r >= ' ' && r != 0x7F,
			// Spaces of other widths are escaped, too: in JSON nothing is lost by it.
			r >= utf8.RuneSelf && machine.Visible(r) && unicode.IsPrint(r):
			out = append(out, data[i:i+n]...)
		default:
			out = escape(out, r)
		}
		i += n
	}
	return out
}
