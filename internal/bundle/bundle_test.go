package bundle

import (
	"slices"
	"strings"
	"testing"
)

func TestTags(t *testing.T) {
	for _, tt := range []struct {
		name string
		tags []string
		want string
	}{
		{"one", []string{"v1"}, "v1"},
		{"sorted", []string{"v2", "v10", "latest"}, "latest,v10,v2"},
		{"each once", []string{"v1", "v1"}, "v1"},
		{"as long as a tag can be", []string{strings.Repeat("x", 128)}, strings.Repeat("x", 128)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := slices.Clone(tt.tags)
			got, err := FormatTags(tt.tags)
			if err != nil || got != tt.want {
				t.Fatalf("got %q, %v, want %q", got, err, tt.want)
			}
			if !slices.Equal(tt.tags, before) {
				t.Error("the caller's slice is sorted")
			}
			again, err := ParseTags(got)
			if err != nil || strings.Join(again, ",") != tt.want {
				t.Errorf("parsed as %q, %v", again, err)
			}
		})
	}
}

func TestNoTagsAreNoClaim(t *testing.T) {
	if got, err := FormatTags(nil); err == nil {
		t.Errorf("written %q", got)
	}
	if got, err := ParseTags(""); err == nil {
		t.Errorf("read as %q", got)
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"", "example.com/vm", "127.0.0.1:5000/a/b_c", "[::1]:5000/x", strings.Repeat("x", 511)} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"a b", "a\nb", "a\x1b[2J", "a\x7f", "é", strings.Repeat("x", 512)} {
		if CheckName(name) == nil {
			t.Errorf("%q is a name", name)
		}
	}
}

// One claim has one text: what ParseTags and ParseSequence accept, their counterparts write.
func FuzzClaims(f *testing.F) {
	for _, s := range []string{"", "v1", "a,b", "b,a", "a,,b", ",", "0", "007", "-1", "+1", "1800000000", "9223372036854775808"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if tags, err := ParseTags(s); err == nil {
			if again, err := FormatTags(tags); err != nil || again != s {
				t.Errorf("tags %q are written %q, %v", s, again, err)
			}
		}
		if n, err := ParseSequence(s); err == nil {
			if again, err := FormatSequence(n); err != nil || again != s {
				t.Errorf("sequence %q is written %q, %v", s, again, err)
			}
		}
	})
}
