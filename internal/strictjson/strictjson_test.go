package strictjson

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	all := []func([]byte) error{Check, CheckNames, CheckManifest}
	const (
		anyone   = 0 // index of the first check that refuses
		names    = 1
		manifest = 2
		none     = 3
	)
	for _, tt := range []struct {
		name, in string
		refused  int // by this check and the stricter ones
	}{
		{"object", `{"a":{"b":[1,{"c":null}]},"d":"e"}`, none},
		{"white space before and within", " \n{ \"a\" :\t1 }", none},
		{"one key in two objects", `{"a":{"x":1},"b":{"x":1}}`, none},
		{"one key in two objects of an array", `{"a":[{"x":1},{"x":1}]}`, none},
		{"key that is a value elsewhere", `{"a":"b","b":"a"}`, none},
		{"annotations may have any names", `{"annotations":{"Digest":"x","digest":"y","SIZE":"z","urls":"u"}}`, none},
		{"null for a member nobody knows", `{"a":null,"b":[null]}`, none},
		{"descriptor", `{"config":{"digest":"x","size":1}}`, none},
		{"depth at the limit", strings.Repeat(`{"a":`, maxDepth) + "1" + strings.Repeat("}", maxDepth), none},

		{"scalar", `1`, manifest},
		{"array", `[{"x":1}]`, manifest},
		{"white space after", "{} \n", manifest},
		{"two unknown keys that differ in case", `{"Foo":1,"foo":2}`, manifest},
		{"urls", `{"config":{"urls":[]}}`, manifest},
		{"descriptor without a size", `{"config":{"digest":"x"}}`, manifest},
		{"descriptor without a size in an array", `{"layers":[{"digest":"x"}]}`, manifest},
		{"null for a known member", `{"layers":null}`, manifest},
		{"null in an array of a known member", `{"layers":[null]}`, manifest},
		{"null for an annotation", `{"annotations":{"a":null}}`, manifest},

		{"case variant", `{"Digest":1}`, names},
		{"case variant by an odd letter", `{"\u017fize":1}`, names},
		{"case variant in an array", `{"layers":[{"mediatype":"x"}]}`, names},
		{"case variant of annotations", `{"Annotations":{}}`, names},
		{"case variant beside annotations", `{"annotations":{"x":"y"},"Subject":{}}`, names},
		{"case variant of manifests", `{"Manifests":[]}`, names},

		{"empty", ``, anyone},
		{"duplicate", `{"a":1,"a":2}`, anyone},
		{"duplicate with a nested value between", `{"a":{"b":[]},"a":1}`, anyone},
		{"duplicate by escape", `{"a":1,"\u0061":2}`, anyone},
		{"duplicate deep inside", `[[{"x":{"a":1,"a":1}}]]`, anyone},
		{"duplicate in annotations", `{"annotations":{"a":"1","a":"2"}}`, anyone},
		{"two values", `{} {}`, anyone},
		{"garbage after", `{} x`, anyone},
		{"cut off", `{"a":`, anyone},
		{"cut off in a key", `{"a`, anyone},
		{"wrong bracket", `{"a":1]`, anyone},
		{"no comma", `{"a":1 "b":2}`, anyone},
		{"comma at the end", `{"a":1,}`, anyone},
		{"not UTF-8", "{\"a\":\"\xff\"}", anyone},
		{"byte order mark", "\ufeff{}", anyone},
		{"objects too deep", strings.Repeat(`{"a":`, maxDepth+1) + "1" + strings.Repeat("}", maxDepth+1), anyone},
		{"arrays too deep", strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1), anyone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i, check := range all {
				if err := check([]byte(tt.in)); (err == nil) != (i < tt.refused) {
					t.Errorf("check %d: got %v, want refused: %t", i, err, i >= tt.refused)
				}
			}
		})
	}
}
