package verify

import (
	"strings"
	"testing"
)

func TestCheckJSON(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		rule     keyRule
		ok       bool
	}{
		{"object", `{"a":{"b":[1,{"c":null}]},"d":"e"}`, foldKeys, true},
		{"one key in two objects", `{"a":{"x":1},"b":{"x":1}}`, foldKeys, true},
		{"one key in two objects of an array", `[{"x":1},{"x":1}]`, foldKeys, true},
		{"key that is a value elsewhere", `{"a":"b","b":"a"}`, foldKeys, true},
		{"scalar", `1`, foldKeys, true},
		{"white space after", "{} \n", foldKeys, true},
		{"annotations may have any names", `{"annotations":{"Digest":"x","digest":"y","SIZE":"z"}}`, foldKeys, true},
		{"case that nobody confuses", `{"Foo":1,"foo":2}`, foldKeys, true},
		{"case under exact keys", `{"Digest":1}`, exactKeys, true},
		{"depth at the limit", strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth), foldKeys, true},

		{"empty", ``, foldKeys, false},
		{"duplicate", `{"a":1,"a":2}`, exactKeys, false},
		{"duplicate with a nested value between", `{"a":{"b":[]},"a":1}`, exactKeys, false},
		{"duplicate by escape", `{"a":1,"\u0061":2}`, exactKeys, false},
		{"duplicate deep inside", `[[{"x":{"a":1,"a":1}}]]`, exactKeys, false},
		{"duplicate in annotations", `{"annotations":{"a":"1","a":"2"}}`, foldKeys, false},
		{"case variant", `{"Digest":1}`, foldKeys, false},
		{"case variant by an odd letter", `{"\u017fize":1}`, foldKeys, false},
		{"case variant in an array", `{"layers":[{"mediatype":"x"}]}`, foldKeys, false},
		{"case variant of annotations", `{"Annotations":{}}`, foldKeys, false},
		{"case variant beside annotations", `{"annotations":{"x":"y"},"Subject":{}}`, foldKeys, false},
		{"two values", `{} {}`, foldKeys, false},
		{"garbage after", `{} x`, foldKeys, false},
		{"cut off", `{"a":`, foldKeys, false},
		{"cut off in a key", `{"a`, foldKeys, false},
		{"wrong bracket", `{"a":1]`, foldKeys, false},
		{"no comma", `{"a":1 "b":2}`, foldKeys, false},
		{"comma at the end", `{"a":1,}`, foldKeys, false},
		{"not UTF-8", "{\"a\":\"\xff\"}", foldKeys, false},
		{"byte order mark", "\ufeff{}", foldKeys, false},
		{"too deep", strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), foldKeys, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := checkJSON([]byte(tt.in), tt.rule); (err == nil) != tt.ok {
				t.Errorf("got %v, want ok: %t", err, tt.ok)
			}
		})
	}
}
