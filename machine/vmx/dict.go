package vmx

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/davit-oci/davit/internal/charset"
	"github.com/davit-oci/davit/machine"
)

// Limits of a VMX.
const (
	maxEntries = 1 << 16 // real ones have some hundreds
	maxShown   = 60      // bytes of a value in an error
)

// A dictionary is a VMX as its lines say it:
//
//	name = "value" # comment
//
// A value without quotes has no space in it. A name is any text without spaces,
// "=" and "#"; case does not matter. In a value |22 is the byte of that number.
type dictionary struct {
	entries  map[string]*entry // by name in lower case
	order    []*entry          // of the lines
	encoding string            // that was guessed, as the file says none
	err      error             // of a value that was asked for; the first
}

type entry struct {
	name  string // as it is written
	value string
	line  int
	used  bool
}

// parseDictionary reads the lines of a VMX, as VMware does: a line that is not
// well-formed is an error. So is a name with two values: libvirt takes the
// first, others the last, and VMware opens no VMX that has a name twice. The
// same value again is none, as builders of machines wrote it.
func parseDictionary(data []byte) (*dictionary, error) {
	if len(data) > machine.MaxDescriptor {
		return nil, machine.Malformed("%d bytes, more than %d", len(data), machine.MaxDescriptor)
	}
	data = bytes.TrimPrefix(data, []byte("\xEF\xBB\xBF"))
	d := &dictionary{entries: make(map[string]*entry)}
	n := 0
	for line := range bytes.Lines(data) {
		n++
		e, err := parseLine(strings.TrimRight(string(line), "\r\n"))
		if err != nil {
			return nil, machine.Malformed("line %d: %v", n, err)
		}
		if e == nil {
			continue
		}
		e.line = n
		key := strings.ToLower(e.name)
		if old := d.entries[key]; old != nil {
			if old.value != e.value {
				return nil, machine.Malformed("line %d: %s has another value on line %d", n, e.name, old.line)
			}
			continue
		}
		if len(d.order) == maxEntries {
			return nil, machine.Malformed("line %d: more than %d entries", n, maxEntries)
		}
		d.entries[key] = e
		d.order = append(d.order, e)
	}
	return d, d.decode()
}

// parseLine returns nil for a line without an entry.
func parseLine(line string) (*entry, error) {
	if strings.IndexByte(line, 0) >= 0 {
		return nil, fmt.Errorf("a NUL byte")
	}
	const space = " \t"
	line = strings.TrimLeft(line, space)
	if line == "" || line[0] == '#' {
		return nil, nil
	}
	i := strings.IndexAny(line, space+"=#")
	if i <= 0 {
		return nil, fmt.Errorf("%q is not of the form name = \"value\"", shorten(line))
	}
	e := &entry{name: line[:i]}
	rest, ok := strings.CutPrefix(strings.TrimLeft(line[i:], space), "=")
	if !ok {
		return nil, fmt.Errorf("no \"=\" after %q", shorten(e.name))
	}
	rest = strings.TrimLeft(rest, space)
	if quoted, ok := strings.CutPrefix(rest, `"`); ok {
		end := strings.IndexByte(quoted, '"')
		if end < 0 {
			return nil, fmt.Errorf("no quote at the end of %s", e.name)
		}
		e.value, rest = quoted[:end], quoted[end+1:]
	} else {
		end := strings.IndexAny(rest, space+"#")
		if end < 0 {
			end = len(rest)
		}
		e.value, rest = rest[:end], rest[end:]
	}
	if rest = strings.TrimLeft(rest, space); rest != "" && rest[0] != '#' {
		return nil, fmt.Errorf("%q after the value of %s", shorten(rest), e.name)
	}
	if e.value = unescape(e.value); strings.IndexByte(e.value, 0) >= 0 {
		return nil, fmt.Errorf("a NUL byte in %s", e.name)
	}
	return e, nil
}

// unescape replaces |22 by the byte. What is no escape is left, as VMware does.
func unescape(s string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '|')
		if i < 0 || len(s)-i < 3 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
			b.WriteByte(byte(n))
			s = s[i+3:]
		} else {
			b.WriteByte('|')
			s = s[i+1:]
		}
	}
}

// escape is what VMware escapes: quotes, pipes and control characters. No value
// ends its string or its line.
func escape(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c == '"' || c == '|' || c == 0x7F || c < ' ' && c != '\t' {
			fmt.Fprintf(&b, "|%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// decode makes UTF-8 of names and values. Escapes are bytes of the encoding.
func (d *dictionary) decode() error {
	name := "UTF-8"
	if e := d.get(".encoding"); e != nil {
		name = e.value
	} else if !d.all(utf8.ValidString) {
		// From before there was .encoding, in that of the host: most likely
		// this one, in which all bytes have a meaning.
		name, d.encoding = "windows-1252", "windows-1252"
	}
	if strings.EqualFold(name, "UTF-8") || strings.EqualFold(name, "UTF8") {
		if !d.all(utf8.ValidString) {
			return machine.Malformed("it is not in UTF-8, which .encoding says")
		}
		return nil
	}
	from, ok := charset.Find(name)
	if !ok {
		return machine.Unsupported("encoding %.40q is not read: save it as UTF-8", name)
	}
	for _, e := range d.order {
		for _, s := range []*string{&e.name, &e.value} {
			var err error
			if *s, err = charset.Decode(from, *s); err != nil {
				return machine.Malformed("%s: it is not in %.40s, which .encoding says", shorten(e.name), name)
			}
		}
	}
	return nil
}

func (d *dictionary) all(ok func(string) bool) bool {
	for _, e := range d.order {
		if !ok(e.name) || !ok(e.value) {
			return false
		}
	}
	return true
}

// get returns the entry of a name, nil if there is none.
func (d *dictionary) get(name string) *entry {
	e := d.entries[strings.ToLower(name)]
	if e != nil {
		e.used = true
	}
	return e
}

// text returns the value of a name; "" if there is none.
func (d *dictionary) text(name string) string {
	if e := d.get(name); e != nil {
		return e.value
	}
	return ""
}

// word is text without space around it and in lower case.
func (d *dictionary) word(name string) string {
	return strings.ToLower(strings.TrimSpace(d.text(name)))
}

// list returns the words between commas.
func (d *dictionary) list(name string) []string {
	var words []string
	for word := range strings.SplitSeq(d.word(name), ",") {
		if word = strings.TrimSpace(word); word == "" {
			continue
		}
		if len(words) == machine.MaxDisks {
			d.fail(d.get(name), "has more than %d words", machine.MaxDisks)
			return nil
		}
		words = append(words, word)
	}
	return words
}

// number returns a number from 0 to most; absent if there is none.
func (d *dictionary) number(name string, absent, most int64) int64 {
	e := d.get(name)
	if e == nil || strings.TrimSpace(e.value) == "" {
		return absent
	}
	n, err := strconv.ParseUint(strings.TrimSpace(e.value), 10, 63)
	if errors.Is(err, strconv.ErrSyntax) {
		d.fail(e, "is not a number")
		return absent
	}
	if err != nil || n > uint64(most) {
		d.fail(e, "is more than %d", most)
		return absent
	}
	return int64(n)
}

// truth returns a value that is TRUE or FALSE; absent if there is none.
func (d *dictionary) truth(name string, absent bool) bool {
	switch d.word(name) {
	case "":
		return absent
	case "true", "yes", "on", "y", "t", "1":
		return true
	case "false", "no", "off", "n", "f", "0":
		return false
	}
	d.fail(d.get(name), "is neither TRUE nor FALSE")
	return absent
}

// fail keeps the first error.
func (d *dictionary) fail(e *entry, format string, args ...any) {
	if d.err == nil {
		d.err = machine.Malformed("line %d: %s = %q %s", e.line, e.name, shorten(e.value), fmt.Sprintf(format, args...))
	}
}

func shorten(s string) string {
	if len(s) <= maxShown {
		return s
	}
	return strings.ToValidUTF8(s[:maxShown], "") + "…"
}
