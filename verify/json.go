package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// How checkJSON compares the keys of an object.
type keyRule int

const (
	// exactKeys refuses equal keys only: for protobuf JSON, whose readers compare case and refuse unknown names.
	exactKeys keyRule = iota

	// foldKeys also refuses keys that encoding/json would take for another: it ignores case where other readers do not.
	foldKeys
)

// maxDepth bounds the nesting of documents that are at most a few levels deep.
const maxDepth = 64

// manifestKeys are the names that encoding/json looks for when it reads a manifest.
var manifestKeys = []string{
	"schemaVersion", "mediaType", "artifactType", "config", "layers", "subject", "annotations", "digest", "size", "urls", "data", "platform",
}

// checkJSON refuses documents that two readers could understand in two ways: keys that stand twice, text that is not UTF-8, a
// second document after the first. A document with one meaning is left to the real parser.
func checkJSON(data []byte, rule keyRule) error {
	if !utf8.Valid(data) {
		return errors.New("not UTF-8")
	}
	// The object or array that each level is in; names is nil for an array.
	type level struct {
		names map[string]bool
		free  bool // names are the author's to choose
		key   string
		value bool // the next token is a value, not a name
	}
	var (
		stack []level
		dec   = json.NewDecoder(bytes.NewReader(data))
	)
	dec.UseNumber()
	for {
		token, err := dec.Token()
		if err != nil {
			return fmt.Errorf("not JSON: %w", unexpected(err))
		}
		if d, ok := token.(json.Delim); ok && (d == '{' || d == '[') {
			if len(stack) == maxDepth {
				return fmt.Errorf("more than %d levels deep", maxDepth)
			}
			var next level
			if len(stack) > 0 {
				parent := stack[len(stack)-1]
				next.free = parent.free || parent.key == "annotations"
			}
			if d == '{' {
				next.names = make(map[string]bool)
			}
			stack = append(stack, next)
			continue
		}
		if d, ok := token.(json.Delim); ok && (d == '}' || d == ']') {
			stack = stack[:len(stack)-1]
		} else if n := len(stack); n > 0 && stack[n-1].names != nil && !stack[n-1].value {
			top := &stack[n-1]
			top.key, _ = token.(string)
			if err := checkName(top.key, top.names, rule, top.free); err != nil {
				return err
			}
			top.names[top.key] = true
			top.value = true
			continue
		}
		// A value is complete.
		if len(stack) == 0 {
			break
		}
		stack[len(stack)-1].value = false
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}

func checkName(name string, names map[string]bool, rule keyRule, free bool) error {
	if names[name] {
		return fmt.Errorf("the key %.100q stands twice", name)
	}
	if rule == exactKeys || free {
		return nil
	}
	for _, known := range manifestKeys {
		if name != known && strings.EqualFold(name, known) {
			return fmt.Errorf("the key %.100q is %q in another case", name, known)
		}
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
