package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Copied by anybody's tool, the artifact is the artifact: the same digest, and
// it can be pulled.
func TestE2EOthersCopy(t *testing.T) {
	t.Parallel()
	for _, kind := range []struct {
		name  string
		start func(*testing.T) server
	}{
		{"olareg", newOlareg},
		{"distribution 3", func(t *testing.T) server { return newDistribution(t, "registry") }},
		{"docker-registry 2.8", func(t *testing.T) server { return newDistribution(t, "docker-registry") }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			s := kind.start(t)
			disk := writeFileAt(t, h.path("disk.raw"), 8<<20, map[int64][]byte{0: prose(1, 1<<20), 5 << 20: fill(2, 1<<20)})
			ref := s.host + "/team/vm:v1"
			want := h.report("push", disk, ref)
			for _, tool := range []struct {
				name string
				args []string
				to   string
			}{
				{"oras", []string{"cp", "--from-plain-http", "--to-plain-http", ref}, s.host + "/oras/vm:v1"},
				{"oras", []string{"cp", "--from-plain-http", "--to-oci-layout", ref}, h.path("layout") + ":v1"},
				{"crane", []string{"copy", "--insecure", ref}, s.host + "/crane/vm:v1"},
				{"skopeo", []string{"copy", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://" + ref}, "docker://" + s.host + "/skopeo/vm:v1"},
				{"skopeo", []string{"copy", "--insecure-policy", "--src-tls-verify=false", "docker://" + ref}, "oci:" + h.path("skopeo") + ":v1"},
			} {
				h.tool(tool.name, append(tool.args, tool.to)...)
				to := strings.TrimPrefix(tool.to, "docker://")
				if filepath.IsAbs(to) {
					to = "oci:" + to
				}
				got := h.report("pull", "--cache", "none", "--unverified", to, "x.raw")
				if got.Digest != want.Digest || got.DiskDigest != want.DiskDigest {
					t.Errorf("%s %s to %s: %s of disk %s, want %s of %s", tool.name, tool.args[0], to, got.Digest, got.DiskDigest, want.Digest, want.DiskDigest)
				}
				h.sameDisk(disk, h.path("x.raw"))
				if err := os.Remove(h.path("x.raw")); err != nil {
					t.Fatal(err)
				}
			}
			// And back from the layout that a tool has written, pushed onto the original.
			back := h.report("push", "--cache", "none", "--reuse", "oci:"+h.path("layout")+":v1", disk, s.host+"/back/vm:v1")
			if back.Digest != want.Digest {
				t.Errorf("packed again on its copy: %s, want %s", back.Digest, want.Digest)
			}

			// A bare disk has no files that oras pull would write: its layers have no titles.
			into := h.path("pulled")
			h.tool("oras", "pull", "--plain-http", "-o", into, ref)
			if entries, _ := os.ReadDir(into); len(entries) > 0 {
				t.Errorf("oras pull has written %v", entries)
			}
		})
	}
}
