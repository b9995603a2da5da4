package xmltree

import (
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/davit-oci/davit/machine"
)

func TestParse(t *testing.T) {
	root, err := Parse([]byte(`<?xml version="1.0"?><!-- c --><a xmlns="urn:a" xmlns:x="urn:x" x:k="1" k="2"> <b>t<!-- c -->&amp;&#65;</b>` + "\n" + `<x:b/><b c="3"/></a>`))
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := root.Attr("urn:x", "k"); v != "1" || !ok || root.Get("k") != "2" || root.Get("none") != "" {
		t.Errorf("attributes of %+v", root.Attrs)
	}
	all := root.All("b")
	if len(all) != 2 || all[0].Text != "t&A" || all[1].Line != 2 || all[1].Get("c") != "3" || root.Child("b") != all[0] {
		t.Errorf("children %+v", all)
	}
	if root.Path("b", "c").TextOf() != "" || (*Element)(nil).Child("x") != nil {
		t.Error("what is not there has text")
	}
}

func TestParseEncodings(t *testing.T) {
	utf16 := func(order binary.AppendByteOrder, s string) (b []byte) {
		for _, c := range utf16.Encode([]rune(s)) {
			b = order.AppendUint16(b, c)
		}
		return b
	}
	const want = "Grüße \U0001F5A5"
	for name, doc := range map[string][]byte{
		"UTF-8":                        []byte("<a>" + want + "</a>"),
		"UTF-8 that says so":           []byte(`<?xml version="1.0" encoding="utf-8"?><a>` + want + "</a>"),
		"UTF-8 with a mark":            []byte("\ufeff<a>" + want + "</a>"),
		"UTF-8 that is called UTF-16":  []byte(`<?xml version="1.0" encoding="utf-16"?><a>` + want + "</a>"),
		"UTF-16, big-endian":           utf16(binary.BigEndian, "\ufeff"+`<?xml version="1.0" encoding="UTF-16"?><a>`+want+"</a>"),
		"UTF-16, little-endian":        utf16(binary.LittleEndian, "\ufeff"+`<?xml version="1.0" encoding="UTF-16"?><a>`+want+"</a>"),
		"UTF-16 without a declaration": utf16(binary.LittleEndian, "\ufeff<a>"+want+"</a>"),
		"ISO-8859-1":                   []byte(`<?xml version="1.0" encoding="ISO-8859-1"?><a>Gr` + "\xfc\xdf" + `e &#x1F5A5;</a>`),
		"windows-1252":                 []byte(`<?xml version="1.0" encoding="windows-1252"?><a>Gr` + "\xfc\xdf" + `e &#x1F5A5;</a>`),
		"GB18030":                      []byte(`<?xml version="1.0" encoding="GB18030"?><a>Gr` + "\xa8\xb9\x81\x30\x89\x38" + `e &#x1F5A5;</a>`),
		"ASCII":                        []byte(`<?xml version="1.0" encoding="US-ASCII"?><a>Gr&#252;&#xdf;e &#x1F5A5;</a>`),
	} {
		t.Run(name, func(t *testing.T) {
			root, err := Parse(doc)
			if err != nil || root.Text != want {
				t.Errorf("Parse = %+v, %v; want the text %q", root, err, want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"nothing":                 "",
		"no XML":                  "QFI\xfb",
		"cut short":               "<a><b>",
		"document type":           "<!DOCTYPE a><a/>",
		"entity":                  `<!DOCTYPE a [<!ENTITY x "1">]><a>&x;</a>`,
		"unknown entity":          "<a>&x;</a>",
		"attribute twice":         `<a b="1" b="2"/>`,
		"attribute twice by URN":  `<a xmlns:x="u" xmlns:y="u" x:b="1" y:b="2"/>`,
		"two documents":           "<a/><a/>",
		"text after the end":      "<a/>x",
		"depth":                   strings.Repeat("<a>", maxDepth+1) + strings.Repeat("</a>", maxDepth+1),
		"elements":                "<a>" + strings.Repeat("<b/>", maxElements) + "</a>",
		"size":                    "<a>" + strings.Repeat(" ", machine.MaxDescriptor) + "</a>",
		"other encoding":          `<?xml version="1.0" encoding="EBCDIC-CP-DK"?><a/>`,
		"half a UTF-16 character": "\xff\xfe<\x00a",
		"UTF-16 of half a pair":   "\xff\xfe<\x00a\x00>\x00\x3d\xd8<\x00/\x00a\x00>\x00",
		"UTF-16 that ends in one": "\xff\xfe<\x00a\x00/\x00>\x00\x3d\xd8",
		"UTF-16 without its mark": "<\x00a\x00/\x00>\x00",
		"no UTF-8":                "<a>\xff</a>",
		"control character":       "<a>&#1;</a>",
	} {
		t.Run(name, func(t *testing.T) {
			if root, err := Parse([]byte(doc)); !errors.Is(err, machine.ErrMalformed) || root != nil {
				t.Errorf("Parse = %v, %v; want ErrMalformed", root, err)
			}
		})
	}
}
