package registry

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const testDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

var goodReferences = []struct {
	in   string
	want Reference
	out  string // String(); in if empty
}{
	{in: "registry.example.com/debian", want: Reference{Host: "registry.example.com", Repository: "debian"}},
	{in: "localhost/a/b/c:v1", want: Reference{Host: "localhost", Repository: "a/b/c", Tag: "v1"}},
	{in: "localhost:5000/a__b/c--d.e", want: Reference{Host: "localhost:5000", Repository: "a__b/c--d.e"}},
	{in: "box:5000/vm:latest", want: Reference{Host: "box:5000", Repository: "vm", Tag: "latest"}},
	{in: "127.0.0.1:80/vm@" + testDigest, want: Reference{Host: "127.0.0.1:80", Repository: "vm", Digest: testDigest}},
	{in: "[::1]:5000/vm:v1@" + testDigest, want: Reference{Host: "[::1]:5000", Repository: "vm", Tag: "v1", Digest: testDigest}},
	{in: "[::1]/vm", want: Reference{Host: "[::1]", Repository: "vm"}},
	{in: "Registry.EXAMPLE.com/vm", want: Reference{Host: "registry.example.com", Repository: "vm"}, out: "registry.example.com/vm"},
	{in: "a.b/vm:" + strings.Repeat("t", 128), want: Reference{Host: "a.b", Repository: "vm", Tag: strings.Repeat("t", 128)}},

	{in: "oci:dir", want: Reference{Kind: Layout, Path: "dir"}},
	{in: "oci:dir:v1", want: Reference{Kind: Layout, Path: "dir", Tag: "v1"}},
	{in: "oci:./dir/sub:v1@" + testDigest, want: Reference{Kind: Layout, Path: "./dir/sub", Tag: "v1", Digest: testDigest}},
	{in: "oci:/abs/dir@" + testDigest, want: Reference{Kind: Layout, Path: "/abs/dir", Digest: testDigest}},
	{in: "oci:a:b/c", want: Reference{Kind: Layout, Path: "a:b/c"}},
	{in: "oci:a:b/c:d:e", want: Reference{Kind: Layout, Path: "a:b/c:d", Tag: "e"}},
	{in: `oci:C:\vms\store`, want: Reference{Kind: Layout, Path: `C:\vms\store`}},
	{in: `oci:C:\vms\store:v1`, want: Reference{Kind: Layout, Path: `C:\vms\store`, Tag: "v1"}},
	{in: `oci:C:/vms/store:v1`, want: Reference{Kind: Layout, Path: `C:/vms/store`, Tag: "v1"}},
	{in: "oci:C:", want: Reference{Kind: Layout, Path: "C:"}},
	{in: "oci:l:v1", want: Reference{Kind: Layout, Path: "l", Tag: "v1"}}, // on Windows l: is a drive
	{in: "oci:c:store:v1", want: Reference{Kind: Layout, Path: "c:store", Tag: "v1"}},
	{in: "oci:me@home", want: Reference{Kind: Layout, Path: "me@home"}},
	{in: "oci:me@home/dir:v1", want: Reference{Kind: Layout, Path: "me@home/dir", Tag: "v1"}},
	{in: "oci-archive:disk.tar:v1", want: Reference{Kind: Archive, Path: "disk.tar", Tag: "v1"}},
	{in: "oci-archive:/tmp/disk.tar", want: Reference{Kind: Archive, Path: "/tmp/disk.tar"}},
}

func TestParseReference(t *testing.T) {
	for _, c := range goodReferences {
		got, err := ParseReference(c.in)
		if err != nil || got != c.want {
			t.Errorf("ParseReference(%q) = %+v, %v\nwant %+v", c.in, got, err, c.want)
			continue
		}
		if want := c.out; got.String() != want && (want != "" || got.String() != c.in) {
			t.Errorf("%q prints as %q", c.in, got)
		}
	}
}

var badReferences = []string{
	"", "debian", "debian:13", "library/debian", "foo/bar:v1", // no default host
	"./a.b/c", "../a.b/c", "/a.b/c", `.\a.b/c`, `\\host/share`,
	"localhost", "localhost:5000", "registry.example.com", "registry.example.com/",
	"a.b/Upper", "a.b/x//y", "a.b/x/", "a.b/.x", "a.b/x_", "a.b/x..y", "a.b/x___y", "a.b/é",
	"a.b/vm:", "a.b/vm:-x", "a.b/vm:a/b", "a.b/vm:" + strings.Repeat("t", 129), "a.b/vm:a:b", "a.b/vm: v1",
	"a.b/vm@", "a.b/vm@sha256:abc", "a.b/vm@sha512:" + strings.Repeat("a", 128), "a.b/vm@" + strings.ToUpper(testDigest),
	"a.b/vm@" + testDigest + "0", "a.b/vm@" + testDigest + "@" + testDigest, "a.b/vm@" + testDigest + ":v1",
	"a.b:/vm", "a.b:0/vm", "a.b:65536/vm", "a.b:x/vm", "a.b:080/vm", "a..b/vm", "-a.b/vm", "a_b.c/vm", "[::1/vm", "[::1]5000/vm", "[fe80::1%eth0]/vm",
	"user@a.b/vm", "user:pass@a.b/vm", "https://a.b/vm", "C:/vm", `C:\vm`,
	"oci:", "oci::v1", "oci:dir:", "oci:dir:bad tag", "oci:dir@sha256:abc", "oci:@" + testDigest, "oci-archive:", "oci:dir@sha512:" + strings.Repeat("a", 128),
	"a.b/vm\n", "oci:dir\x00", "a.b/" + strings.Repeat("x", 256), "oci:" + strings.Repeat("x", 5000),
}

func TestParseReferenceRefuses(t *testing.T) {
	for _, s := range badReferences {
		if got, err := ParseReference(s); !errors.Is(err, ErrMalformedReference) {
			t.Errorf("ParseReference(%.100q) = %+v, %v; want ErrMalformedReference", s, got, err)
		}
	}
}

func TestReferenceParts(t *testing.T) {
	parse := func(s string) Reference {
		r, err := ParseReference(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for in, want := range map[string]string{
		"a.b/vm":                      "latest",
		"a.b/vm:v1":                   "v1",
		"a.b/vm@" + testDigest:        "",
		"a.b/vm:v1@" + testDigest:     "v1",
		"oci:dir":                     "latest",
		"oci-archive:f@" + testDigest: "",
	} {
		if got := parse(in).TagOrLatest(); got != want {
			t.Errorf("TagOrLatest of %q is %q, want %q", in, got, want)
		}
	}
	r := parse("a.b/vm:v1@" + testDigest)
	for got, want := range map[string]string{
		r.Name():                          "a.b/vm",
		r.WithDigest(testDigest).String(): "a.b/vm@" + testDigest,
		r.WithTag("v2").String():          "a.b/vm:v2",
		parse("oci:dir:v1").Name():        "oci:dir",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// FuzzParseReference: what is read prints as something that is read as the same, and holds nothing that could leave a URL's path.
func FuzzParseReference(f *testing.F) {
	for _, c := range goodReferences {
		f.Add(c.in)
	}
	for _, s := range badReferences {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			if !errors.Is(err, ErrMalformedReference) || r != (Reference{}) {
				t.Errorf("%q: %+v, %v", s, r, err)
			}
			return
		}
		again, err := ParseReference(r.String())
		if err != nil || again != r {
			t.Errorf("%q is %+v, prints as %q and is then %+v, %v", s, r, r, again, err)
		}
		if r.Kind == Remote && (strings.ContainsAny(r.Host+r.Repository+r.Tag, "?#%@ \\") || strings.Contains("/"+r.Repository+"/", "/../")) {
			t.Errorf("%q is %+v", s, r)
		}
		if _, err := ParseReference(r.Name()); err != nil && r.Kind == Remote {
			t.Errorf("%q has the name %q: %v", s, r.Name(), err)
		}
	})
}

func TestSortTags(t *testing.T) {
	want := []string{"0", "00", "1", "1.2", "1.10", "02", "2", "10", "99999999999999999999998", "99999999999999999999999", "a", "a-1", "a1", "a1b", "a2", "a10", "latest", "v1", "v1.0", "v1.0-rc1", "v1.0-rc10"}
	got := slices.Clone(want)
	slices.Reverse(got)
	SortTags(got)
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// FuzzCompareTags: the order is one, else sorting by it would not end in one place.
func FuzzCompareTags(f *testing.F) {
	f.Add("v1", "v01", "v10")
	f.Add("a", "1", "")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		sign := func(n int) int { return max(-1, min(1, n)) }
		if sign(CompareTags(a, b)) != -sign(CompareTags(b, a)) || (CompareTags(a, b) == 0) != (a == b) {
			t.Errorf("%q and %q: %d, %d", a, b, CompareTags(a, b), CompareTags(b, a))
		}
		if CompareTags(a, b) <= 0 && CompareTags(b, c) <= 0 && CompareTags(a, c) > 0 {
			t.Errorf("%q ≤ %q ≤ %q, but not %q ≤ %q", a, b, c, a, c)
		}
	})
}
