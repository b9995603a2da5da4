// Package strictjson refuses JSON that two parsers could read as two documents, before the real parser reads it. All JSON that comes from
// registries and is believed goes through it.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxDepth bounds the objects and arrays that are open at once. Manifests need four levels and signatures ten. The limit bounds the
// memory that a document can take.
const maxDepth = 32

// names are the members that encoding/json looks for when it reads a manifest or an image index. It ignores case, other parsers do not.
var names = []string{
	"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests",
	"subject", "annotations", "digest", "size", "urls", "data", "platform",
}

// Check refuses what is not exactly one JSON value in UTF-8, a name that an object has twice, and values that are nested too deep. It is
// for readers that compare the case of names.
func Check(data []byte) error {
	return check(data, rules{})
}

// CheckNames refuses what [Check] refuses, and names that encoding/json would take for a member of a manifest though their case is
// another. In annotations any names are allowed. It is for manifests of other tools.
func CheckNames(data []byte) error {
	return check(data, rules{names: true})
}

// CheckManifest refuses what [CheckNames] refuses, and what docs/spec.md, "What a reader refuses" says of JSON: anything but an object,
// bytes after it, names that are equal but for case, null for a member of the image spec, descriptors with URLs or without a size. It is
// for manifests and image indexes.
func CheckManifest(data []byte) error {
	if err := check(data, rules{names: true, manifest: true}); err != nil {
		return err
	}
	// It is one value, with nothing but white space around it.
	if !bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")) {
		return errors.New("it is not a JSON object")
	}
	if !bytes.HasSuffix(data, []byte("}")) {
		return errors.New("there is something after the JSON object")
	}
	return nil
}

// rules say what is refused besides what [Check] refuses.
type rules struct {
	names    bool // names in another case
	manifest bool // what only [CheckManifest] refuses
}

// A level is an object or array that is open.
type level struct {
	seen        map[string]bool // names; nil for an array
	annotations bool            // names are the author's to choose
	name        string          // of the member that is being read
	value       bool            // the next token is its value
	known       bool            // the values of an array belong to a member of the image spec
}

// member reports whether the next value belongs to a member of the image spec.
func (l *level) member() bool {
	if l.seen == nil {
		return l.known
	}
	return l.annotations || slices.Contains(names, l.name)
}

func check(data []byte, r rules) error {
	if !utf8.Valid(data) {
		return errors.New("it is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var stack []level
	for {
		token, err := dec.Token()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("it is not JSON: %w", err)
		}
		var top *level
		if len(stack) > 0 {
			top = &stack[len(stack)-1]
		}
		switch {
		case token == json.Delim('{') || token == json.Delim('['):
			if len(stack) == maxDepth {
				return fmt.Errorf("it is nested more than %d levels deep", maxDepth)
			}
			var next level
			if top != nil {
				next.annotations = top.annotations || top.name == "annotations"
				next.known = top.member()
			}
			if token == json.Delim('{') {
				next.seen = make(map[string]bool)
			}
			stack = append(stack, next)
			continue
		case token == json.Delim('}') || token == json.Delim(']'):
			if r.manifest && !top.annotations && top.seen["digest"] && !top.seen["size"] {
				return errors.New("a descriptor has no size")
			}
			stack = stack[:len(stack)-1]
		case top != nil && top.seen != nil && !top.value:
			top.name, _ = token.(string)
			top.value = true
			if err := r.addName(top); err != nil {
				return err
			}
			continue
		case r.manifest && token == nil && top != nil && top.member():
			return errors.New("it has a null")
		}
		// A value is complete.
		if len(stack) == 0 {
			break
		}
		stack[len(stack)-1].value = false
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("it is more than one JSON value")
	}
	return nil
}

// addName notes the name of a member, or refuses it.
func (r rules) addName(l *level) error {
	id := l.name
	if r.manifest && !l.annotations {
		if id == "urls" {
			return errors.New("a descriptor has urls")
		}
		id = asciiLower(id)
	}
	if r.names && !l.annotations {
		for _, known := range names {
			if l.name != known && strings.EqualFold(l.name, known) {
				return fmt.Errorf("the key %.100q is %q in another case", l.name, known)
			}
		}
	}
	if l.seen[id] {
		return fmt.Errorf("the key %.100q is there twice", l.name)
	}
	l.seen[id] = true
	return nil
}

func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
