package ovf

import (
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/davit-oci/davit/machine"
)

// document is an XML document that grows from the top: two spaces for each
// level, one element a line.
type document struct {
	b    strings.Builder
	open []string // names of the elements that are open
}

// attrs are the names and values of attributes, in turn. One whose name ends in
// "?" is not written without a value.
type attrs []string

// begin starts an element.
func (d *document) begin(name string, a ...string) {
	d.tag(name, a)
	d.b.WriteString(">\n")
	d.open = append(d.open, name)
}

// end ends the element that was begun last.
func (d *document) end() {
	last := len(d.open) - 1
	name := d.open[last]
	d.open = d.open[:last]
	d.indent()
	d.b.WriteString("</" + name + ">\n")
}

// empty writes an element that has attributes alone.
func (d *document) empty(name string, a ...string) {
	d.tag(name, a)
	d.b.WriteString("/>\n")
}

// text writes an element with text in it, as it is.
func (d *document) text(name, text string, a ...string) {
	d.tag(name, a)
	d.b.WriteString(">" + escape(text) + "</" + name + ">\n")
}

// number is text of a number.
func (d *document) number(name string, n int64, a ...string) {
	d.text(name, strconv.FormatInt(n, 10), a...)
}

func (d *document) tag(name string, a attrs) {
	d.indent()
	d.b.WriteString("<" + name)
	for i := 0; i+1 < len(a); i += 2 {
		name, optional := strings.CutSuffix(a[i], "?")
		if a[i+1] != "" || !optional {
			d.b.WriteString(" " + name + `="` + escape(a[i+1]) + `"`)
		}
	}
}

func (d *document) indent() {
	d.b.WriteString(strings.Repeat("  ", len(d.open)))
}

// escape writes what would be markup or lost, quotes and line breaks included,
// as references, and what cannot be seen as well: the text is the same, and a
// terminal that gets the file does not obey it. What XML cannot hold is gone
// before: see sayable.
func escape(s string) string {
	var escaped, b strings.Builder
	_ = xml.EscapeText(&escaped, []byte(s)) // a Builder does not fail
	for _, r := range escaped.String() {
		if machine.Visible(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, "&#x%X;", r)
		}
	}
	return b.String()
}

// sayable is s with a U+FFFD for each byte that is not UTF-8 and each character
// that XML 1.0 cannot hold, not even as a reference: control characters but
// tab, line feed and carriage return, and the two that are no characters.
func sayable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < ' ' && r != '\t' && r != '\n' && r != '\r', r == '\uFFFE', r == '\uFFFF':
			return utf8.RuneError
		}
		return r
	}, s)
}
