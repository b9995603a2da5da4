package programs

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// What a skipped test says to install is what make test installs, or part of
// any Debian.
func TestPackages(t *testing.T) {
	essential := []string{"bash", "coreutils", "dash", "dpkg", "gzip", "tar", "util-linux"}
	script, err := os.ReadFile("../../.ci/packages")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(script), "\nwant=(\n")
	list, _, ok := strings.Cut(list, "\n)\n")
	if !ok {
		t.Fatal(".ci/packages has no list")
	}
	var installed []string
	for line := range strings.Lines(list) {
		line, _, _ = strings.Cut(line, "#")
		installed = append(installed, strings.Fields(line)...)
	}
	for name, from := range packages {
		for _, p := range strings.Fields(from) {
			if !slices.Contains(installed, p) && !slices.Contains(essential, p) {
				t.Errorf("%s is of %s, which .ci/packages does not install", name, p)
			}
		}
	}
}

// What is said to be built is what .ci/tools builds.
func TestBuilt(t *testing.T) {
	script, err := os.ReadFile("../../.ci/tools")
	if err != nil {
		t.Fatal(err)
	}
	for name := range built {
		if !strings.Contains(string(script), "/"+name+"@") && !strings.Contains(string(script), "$bin/"+name) {
			t.Errorf(".ci/tools does not build %s", name)
		}
	}
}
