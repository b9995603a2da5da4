package machine_test

import (
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
)

func TestFileName(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"plain", "web01", "web01"},
		{"allowed punctuation stays", "a.b_c-d", "a.b_c-d"},
		{"case stays", "WebServer", "WebServer"},
		{"a space is a dash", "Ubuntu 24.04 LTS", "Ubuntu-24.04-LTS"},
		{"a run of others is one dash", "a /\\:*?\"<>| b", "a-b"},
		{"others at the ends go", " (web) ", "web"},
		{"letters beyond ASCII go", "Müller Köln", "M-ller-K-ln"},
		{"a letter that looks like ASCII is not", "p\u0430th", "p-th"},
		{"nothing is left", "日本語", "vm"},
		{"empty", "", "vm"},
		{"dots only", "...", "vm"},
		{"parent directory", "../../etc/passwd", "etc-passwd"},
		{"absolute path", "/etc/passwd", "etc-passwd"},
		{"path of Windows", `C:\Windows\system32`, "C-Windows-system32"},
		{"hidden file", ".bashrc", "bashrc"},
		{"option of a command", "--force", "force"},
		{"option behind a dot", ".-rf", "rf"},
		{"dot that Windows drops", "name.", "name"},
		{"alternate stream", "disk.vmdk:stream", "disk.vmdk-stream"},
		{"control characters", "a\x00b\nc\x1b[31md", "a-b-c-31md"},
		{"right to left", "gpj\u202eexe.vmdk", "gpj-exe.vmdk"},
		{"no UTF-8", "a\xffb\xc3", "a-b"},
		{"shell", "$(reboot);`id`&", "reboot-id"},
		{"device", "CON", "_CON"},
		{"device in lower case", "nul", "_nul"},
		{"device with an extension", "aux.disk1.vmdk", "_aux.disk1.vmdk"},
		{"numbered device", "Com1", "_Com1"},
		{"device that trimming uncovers", " .LPT9. ", "_LPT9"},
		{"device with a superscript digit", "COM\u00b9", "COM"},
		{"no device", "CONSOLE", "CONSOLE"},
		{"no numbered device", "COM10", "COM10"},
		{"63 bytes", strings.Repeat("x", 63), strings.Repeat("x", 63)},
		{"64 bytes", strings.Repeat("x", 64), strings.Repeat("x", 63)},
		{"cut before a dot", strings.Repeat("x", 62) + ".vmdk", strings.Repeat("x", 62)},
		{"cut makes no device", "NUL." + strings.Repeat("x", 64), "_NUL." + strings.Repeat("x", 58)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := machine.FileName(test.in, "vm"); got != test.want {
				t.Errorf("FileName(%q) = %q, want %q", test.in, got, test.want)
			}
			if again := machine.FileName(test.want, "vm"); again != test.want {
				t.Errorf("FileName(%q) = %q, not the same again", test.want, again)
			}
		})
	}
}

func FuzzFileName(f *testing.F) {
	f.Add("Ubuntu 24.04")
	f.Add("../.-CON.-x")
	f.Add("\xff\x00日本")
	f.Fuzz(func(t *testing.T, s string) {
		name := machine.FileName(s, "vm")
		if name == "" || len(name) > 63 || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "-") || strings.HasSuffix(name, ".") {
			t.Errorf("FileName(%q) = %q", s, name)
		}
		if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "" {
			t.Errorf("FileName(%q) = %q has other characters", s, name)
		}
		if err := machine.CheckName(name); err != nil {
			t.Errorf("FileName(%q): %v", s, err)
		}
		if again := machine.FileName(name, "vm"); again != name {
			t.Errorf("FileName(%q) = %q, and of that %q", s, name, again)
		}
	})
}

func TestIsPlainName(t *testing.T) {
	for name, plain := range map[string]bool{
		"a.iso": true, "My disk (1).vmdk": true, "größe.vmdk": true, ".hidden": true, "..a": true,
		"": false, ".": false, "..": false, "a/b": false, "/a": false, `a\b`: false, "c:a": false, "a:stream": false,
		"nul": false, "COM1.vmdk": false, "a\nb": false, "a\x00": false, "a\xff": false, "\u202egnp.exe": false,
		"CON": false, "con.txt": false, "Aux .vmdk": false, "prn.": false, "NUL.tar.gz": false, "lpt0": false, "COM\u00b9": false,
		"lpt\u00b3.iso": false, "CONIN$": false, "conout$.x": false,
		"console": true, "com": true, "com10": true, "nul1": true, "COM\u2074": true, "a.con": true, "~1": true,
		"foo.": false, "foo ": false, "foo.vmdk. ": false, " foo": true, "...": false,
		"a<b": false, "a>b": false, `a"b`: false, "a|b": false, "a?": false, "*": false,
		"a\u200bb": false, "a\u200db": false, "\ufeffa": false, "a\u2066b": false, "a\u00adb": false, "a\u0085b": false, "a\u2028b": false,
		"a\ufe0f": false, "a\u3164": false, "a\u115f": false, "a\U000e0041": false, "a\u034fb": false, "\ue000": false,
		"日本語.iso": true, "e\u0301.iso": true, "a\u3000b": true,
		".a.davit-part": false, ".A.DAVIT-PART": false, ".davit-lock": false, ".x.davit-lock": false, ".davit-tmp-x": false,
		".a.1-0.davit-tmp": false, "a.davit-part": true, ".davit": true, "davit-tmp": true,
		strings.Repeat("n", 255): true, strings.Repeat("n", 256): false, strings.Repeat("ä", 128): false,
	} {
		if machine.IsPlainName(name) != plain {
			t.Errorf("IsPlainName(%q) = %t", name, !plain)
		}
	}
}
