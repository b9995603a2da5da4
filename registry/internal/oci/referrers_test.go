package oci

import (
	"strings"
	"testing"
)

const testDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// What of a list is kept does not grow beyond the list: maps of annotations would.
func TestReferrersKeepFewAnnotations(t *testing.T) {
	t.Parallel()
	var l ReferrerList
	l.Left = MaxReferrerList
	entry := func(notes string) string {
		return `{"digest":"` + testDigest + `","annotations":` + notes + `}`
	}
	long := `{"a":"` + strings.Repeat("x", maxListedNotes) + `"}`
	ok, err := l.Add([]byte(`{"manifests":[` + strings.Join([]string{entry(`{"a":"b"}`), entry(long), entry(`7`)}, ",") + `]}`))
	if !ok || err != nil || len(l.Entries) != 3 {
		t.Fatalf("got %v, %v, %v", ok, err, l.Entries)
	}
	if l.Entries[0].Annotations["a"] != "b" || len(l.Entries[1].Annotations)+len(l.Entries[2].Annotations) != 0 {
		t.Errorf("got %v", l.Entries)
	}
}
