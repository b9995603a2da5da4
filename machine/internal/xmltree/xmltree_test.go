package xmltree

import (
	"strings"
	"testing"
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

func TestParseRefuses(t *testing.T) {
	for name, doc := range map[string]string{
		"nothing":                "",
		"no XML":                 "QFI\xfb",
		"cut short":              "<a><b>",
		"document type":          "<!DOCTYPE a><a/>",
		"entity":                 `<!DOCTYPE a [<!ENTITY x "1">]><a>&x;</a>`,
		"unknown entity":         "<a>&x;</a>",
		"attribute twice":        `<a b="1" b="2"/>`,
		"attribute twice by URN": `<a xmlns:x="u" xmlns:y="u" x:b="1" y:b="2"/>`,
		"two documents":          "<a/><a/>",
		"text after the end":     "<a/>x",
		"depth":                  strings.Repeat("<a>", maxDepth+1) + strings.Repeat("</a>", maxDepth+1),
		"elements":               "<a>" + strings.Repeat("<b/>", maxElements) + "</a>",
		"size":                   "<a>" + strings.Repeat(" ", maxSize) + "</a>",
		"other encoding":         `<?xml version="1.0" encoding="ISO-8859-1"?><a/>`,
		"no UTF-8":               "<a>\xff</a>",
		"control character":      "<a>&#1;</a>",
	} {
		t.Run(name, func(t *testing.T) {
			if root, err := Parse([]byte(doc)); err == nil || root != nil {
				t.Errorf("Parse = %v, %v; want an error", root, err)
			}
		})
	}
}
