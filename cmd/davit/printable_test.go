package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/ovf"
)

// hostileText is what no terminal is to get: it moves the cursor by C1, turns
// the direction of what follows, and has what cannot be seen.
const hostileText = "web\u009b2J\u0085\u202egnp\u2066\u200b\u00ad\u3164\ufeff\U000e0041 é 日本"

// unprintable returns what of hostileText is in s.
func unprintable(s string) (found []rune) {
	for _, r := range s {
		if r != '\n' && r != '\t' && !machine.Visible(r) {
			found = append(found, r)
		}
	}
	return found
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain":           "plain",
		"a\nb\tc":         "a b c",
		"\x1b[2J\a\u202e": "\uFFFD[2J\uFFFD\uFFFD",
		"\xff":            "\uFFFD",
		"größe 12 €":      "größe 12 €",
		hostileText:       "web\uFFFD2J \uFFFDgnp\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD é 日本",
		"a\u3000b\u00a0c": "a b c",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestPrintableJSON(t *testing.T) {
	value := map[string]any{hostileText: hostileText + "\x7f\x1b\\u009b \"<&>\U0010ffff"}
	var raw strings.Builder
	e := json.NewEncoder(&raw)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		t.Fatal(err)
	}
	shown := printableJSON([]byte(raw.String()))
	if found := unprintable(string(shown)); len(found) > 0 {
		t.Errorf("%U in %s", found, shown)
	}
	var got map[string]any
	if err := json.Unmarshal(shown, &got); err != nil || len(got) != 1 || got[hostileText] != value[hostileText] {
		t.Errorf("the value is %q, %v; want %q", got, err, value)
	}
	// What is printable is as it was, byte for byte: it has a digest.
	for _, same := range []string{"{}", "{\n\t\"a\": \"é 日本 \\u009b\"\r\n}\n", "{\"\\ufffd\":1}", "\ufffd"} {
		if got := string(printableJSON([]byte(same))); got != same {
			t.Errorf("%q became %q", same, got)
		}
	}
	if got, want := string(printableJSON([]byte("{\"a\":1,\r\"b\":2}\xff"))), "{\"a\":1,\n\"b\":2}\ufffd"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestPrintableXML(t *testing.T) {
	for in, want := range map[string]string{
		"<?xml version=\"1.0\"?>\r\n<a b=\"é\">\t日本</a>\n": "<?xml version=\"1.0\"?>\r\n<a b=\"é\">\t日本</a>\n",
		"\ufeff<a>\u009b2J\u202e</a>":                      "\ufeff<a>&#x9B;2J&#x202E;</a>",
		"<a>\x1b[2J\x00\xff\ufffe\r</a>":                   "<a>\ufffd[2J\ufffd\ufffd\ufffd\n</a>",
	} {
		if got := string(printableXML([]byte(in))); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// Nothing that davit prints or writes about a machine has what a terminal obeys
// or nobody can see, wherever it came from.
func TestNothingUnprintable(t *testing.T) {
	ownHome(t)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ok := func(args ...string) string {
		t.Helper()
		code, stdout, stderr := runHere(t, args...)
		if code != exitOK {
			t.Fatalf("davit %q: exit code %d\n%s", args, code, stderr)
		}
		for name, text := range map[string]string{"stdout": stdout, "stderr": stderr} {
			if found := unprintable(text); len(found) > 0 {
				t.Errorf("davit %q: %s has %U:\n%s", args, name, found, text)
			}
		}
		return stdout
	}
	quoted, err := json.Marshal(hostileText)
	if err != nil {
		t.Fatal(err)
	}
	write("a.raw", strings.Repeat("a disk..", 512))
	// YAML reads escapes as JSON has them, but for pairs.
	quoted = bytes.ReplaceAll(printableJSON(quoted), []byte(`\udb40\udc41`), []byte(`\U000e0041`))
	write("a.raw", strings.Repeat("a disk..", 512))
	write("m.yaml", "name: "+string(quoted)+"\ndescription: "+string(quoted)+"\nnics: [{type: e1000, network: "+string(quoted)+"}]\n"+
		"properties: [{key: k, value: "+string(quoted)+", label: "+string(quoted)+"}]\n")
	ok("push", "-a", "note="+hostileText, "--machine-file", "m.yaml", "a.raw", "oci:l:v1")

	// In JSON and in XML the text is the same.
	var manifest struct{ Annotations map[string]string }
	if err := json.Unmarshal([]byte(ok("inspect", "--raw", "oci:l:v1")), &manifest); err != nil || manifest.Annotations["note"] != hostileText {
		t.Errorf("--raw: %v, note %q", err, manifest.Annotations["note"])
	}
	if err := json.Unmarshal([]byte(ok("inspect", "--json", "oci:l:v1")), &manifest); err != nil || manifest.Annotations["note"] != hostileText {
		t.Errorf("--json: %v, note %q", err, manifest.Annotations["note"])
	}
	stored := ok("inspect", "--ovf", "oci:l:v1")
	e, err := ovf.Parse([]byte(stored))
	if err != nil || e.Machines[0].Name != hostileText || e.Machines[0].Properties[0].Value != hostileText {
		t.Errorf("--ovf: %v, %+v", err, e)
	}
	if err := xml.Unmarshal([]byte(stored), new(struct{})); err != nil {
		t.Errorf("--ovf: %v", err)
	}
	ok("inspect", "oci:l:v1")
	ok("machine", "show", "oci:l:v1")
	var shown struct{ Name string }
	if err := json.Unmarshal([]byte(ok("machine", "show", "--json", "oci:l:v1")), &shown); err != nil || shown.Name != hostileText {
		t.Errorf("machine show --json: %v, name %q", err, shown.Name)
	}
	ok("ls", "-l", "oci:l")

	// An OVF of somebody else has the characters themselves.
	write("a.ovf", strings.NewReplacer("&#x9B;", "\u009b", "&#x202E;", "\u202e", "&#x85;", "\u0085").Replace(stored))
	if found := unprintable(readFile(t, "a.ovf")); len(found) == 0 {
		t.Fatal("nothing to hide in the OVF")
	}
	write("disk0.img", strings.Repeat("a disk..", 512))
	ok("push", "a.ovf", "oci:l:v2")
	ok("inspect", "--ovf", "oci:l:v2")
	ok("machine", "show", "a.ovf")

	// Descriptors.
	for _, target := range []string{"vmware", "libvirt", "hyperv", "ovf", "virtualbox"} {
		ok("machine", "convert", "-O", target, "a.ovf", target+"/")
		files, err := filepath.Glob(target + "/*")
		if err != nil || len(files) == 0 {
			t.Fatal(target, files, err)
		}
		for _, file := range files {
			// PowerShell wants its mark, and its line ends.
			text := strings.TrimPrefix(strings.ReplaceAll(readFile(t, file), "\r\n", "\n"), "\ufeff")
			if found := unprintable(text); len(found) > 0 {
				t.Errorf("%s has %U", file, found)
			}
			if found := unprintable(file); len(found) > 0 {
				t.Errorf("the name of %q has %U", file, found)
			}
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
