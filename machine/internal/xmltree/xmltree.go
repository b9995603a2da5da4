// Package xmltree reads an XML document from a stranger as a tree.
//
// It is strict where XML is dangerous or has two meanings: no document type,
// no entities but the five of XML, one root, no attribute twice, and limits on
// size, depth and number of elements. It reads UTF-8, UTF-16 and what package charset knows.
// What names and values mean is for the reader of a format to say.
package xmltree

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/davit-oci/davit/internal/charset"
	"github.com/davit-oci/davit/machine"
)

// Limits of a document, beside [machine.MaxDescriptor].
const (
	maxDepth    = 640     // elements within elements; most have 12, VirtualBox's up to 250 snapshots are nested by two each
	maxElements = 1 << 18 // some 60 MB as a tree; real ones have at most 50,000
	maxAttrs    = 256     // of an element, each compared with all others
)

// An Element is an element with all that is in it.
type Element struct {
	Name     xml.Name // Space is the namespace, or the prefix if it was not declared
	Attrs    []xml.Attr
	Children []*Element
	Text     string // directly in it, in one piece, as it is
	Line     int    // where it begins, from 1
}

// Parse returns the root element of a document. Errors are
// [machine.ErrMalformed].
func Parse(data []byte) (*Element, error) {
	if len(data) > machine.MaxDescriptor {
		return nil, machine.Malformed("%d bytes, more than %d", len(data), machine.MaxDescriptor)
	}
	root, err := parse(data)
	if err != nil {
		return nil, machine.Malformed("%w", err)
	}
	return root, nil
}

func parse(data []byte) (*Element, error) {
	data, err := decode(data)
	if err != nil {
		return nil, err
	}
	d := xml.NewDecoder(bytes.NewReader(data))
	d.CharsetReader = reencoded
	var (
		root  *Element
		open  []*Element
		texts [][]byte // of the elements in open
		count int
	)
	for {
		token, err := d.Token()
		line, _ := d.InputPos()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err // a syntax error has its line
		}
		bad := func(format string, args ...any) (*Element, error) {
			return nil, fmt.Errorf("line %d: %s", line, fmt.Sprintf(format, args...))
		}
		switch t := token.(type) {
		case xml.Directive:
			return bad("it has a document type")
		case xml.StartElement:
			if len(open) == 0 && root != nil {
				return bad("two documents in one")
			}
			if len(open) == maxDepth {
				return bad("elements nested deeper than %d", maxDepth)
			}
			if count++; count > maxElements {
				return bad("more than %d elements", maxElements)
			}
			if len(t.Attr) > maxAttrs {
				return bad("<%s> has more than %d attributes", t.Name.Local, maxAttrs)
			}
			e := &Element{Name: t.Name, Attrs: t.Attr, Line: line}
			for i, a := range e.Attrs {
				for _, b := range e.Attrs[:i] {
					if a.Name == b.Name {
						return bad("<%s> has two attributes %s", t.Name.Local, a.Name.Local)
					}
				}
			}
			if len(open) == 0 {
				root = e
			} else {
				parent := open[len(open)-1]
				parent.Children = append(parent.Children, e)
			}
			open, texts = append(open, e), append(texts, nil)
		case xml.EndElement:
			n := len(open) - 1
			open[n].Text = string(texts[n])
			open, texts = open[:n], texts[:n]
		case xml.CharData:
			if len(open) > 0 {
				n := len(open) - 1
				texts[n] = append(texts[n], t...)
			} else if len(bytes.TrimSpace(t)) > 0 {
				return bad("text outside of the document")
			}
		}
	}
	if root == nil {
		return nil, errors.New("no XML document")
	}
	return root, nil
}

// The marks of an encoding at the beginning of a document.
const (
	bomUTF8    = "\xef\xbb\xbf"
	bomUTF16BE = "\xfe\xff"
	bomUTF16LE = "\xff\xfe"
)

// decode returns the document without its mark, and in UTF-8 if that was one of
// UTF-16.
func decode(data []byte) ([]byte, error) {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte(bomUTF8)):
		return data[len(bomUTF8):], nil
	case bytes.HasPrefix(data, []byte(bomUTF16BE)):
		order = binary.BigEndian
	case bytes.HasPrefix(data, []byte(bomUTF16LE)):
		order = binary.LittleEndian
	default:
		return data, nil
	}
	if len(data)%2 != 0 {
		return nil, errors.New("UTF-16 of an odd number of bytes")
	}
	text := make([]byte, 0, len(data)/2)
	for i := len(bomUTF16BE); i < len(data); i += 2 {
		r := rune(order.Uint16(data[i:]))
		if utf16.IsSurrogate(r) {
			if i += 2; i < len(data) {
				r = utf16.DecodeRune(r, rune(order.Uint16(data[i:])))
			}
			if i == len(data) || r == utf8.RuneError {
				return nil, errors.New("UTF-16 with half a character")
			}
		}
		text = utf8.AppendRune(text, r)
	}
	return text, nil
}

// reencoded reads what a document declares to be in another encoding than UTF-8.
func reencoded(name string, r io.Reader) (io.Reader, error) {
	switch strings.ToLower(name) {
	case "utf-16", "utf-16le", "utf-16be":
		// Either decode has seen to it, or it is not true: the declaration was read
		// as bytes. Programs on .NET that make their XML as a string write that.
		return r, nil
	}
	from, ok := charset.Find(name)
	if !ok {
		return nil, machine.Unsupported("encoding %.40q is not read: save it as UTF-8", name)
	}
	return from.NewDecoder().Reader(r), nil
}

// Attr returns the value of the attribute with that name and namespace.
func (e *Element) Attr(space, local string) (value string, ok bool) {
	if e == nil {
		return "", false
	}
	for _, a := range e.Attrs {
		if a.Name.Local == local && a.Name.Space == space {
			return a.Value, true
		}
	}
	return "", false
}

// Get returns the value of the attribute of that name without a namespace,
// or "".
func (e *Element) Get(local string) string {
	v, _ := e.Attr("", local)
	return v
}

// Child returns the first child element of that name in the namespace of e,
// nil if there is none. It can be called on nil.
func (e *Element) Child(local string) *Element {
	for _, c := range e.All(local) {
		return c
	}
	return nil
}

// All returns the child elements of that name in the namespace of e. It can be
// called on nil.
func (e *Element) All(local string) []*Element {
	if e == nil {
		return nil
	}
	var all []*Element
	for _, c := range e.Children {
		if c.Name.Local == local && c.Name.Space == e.Name.Space {
			all = append(all, c)
		}
	}
	return all
}

// Path is the first element at the end of a path of [Element.Child].
func (e *Element) Path(locals ...string) *Element {
	for _, local := range locals {
		e = e.Child(local)
	}
	return e
}

// TextOf is the text of e without space around it; "" for nil.
func (e *Element) TextOf() string {
	if e == nil {
		return ""
	}
	return strings.TrimSpace(e.Text)
}
