package secret_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/davit-oci/davit/internal/secret"
)

const key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIBn6SNHb8mWDJtQkYlLWfzFfYDGMRkP1YkRcXmAyQ2XjoAoGCCqGSM49\n" +
	"AwEHoUQDQgAE1Q1p7sO8oF0yYbM4Q2V2wG5h3C4kF2cQ1M3l3tYy9l5A0i9b2x1f\nVQxwXzB0aWs8Yw==\n-----END EC PRIVATE KEY-----"

// What no program may hide: a filter that mangles messages is turned off by the first who needs them.
func TestHideLeavesTheRest(t *testing.T) {
	f := new(secret.Filter)
	f.Learn(key)
	f.Know("correct horse battery staple")
	f.LearnInput("ci:hunter2-x9Zk4@registry.example.com/vm:v1")
	for _, text := range []string{
		`file ../../../../etc/passwd: "../../../../etc/passwd" lies outside of /home/me, and its folder was not allowed`,
		`"a/secret": "a/secret" is missing`,
		"",
		"push: asking for the passphrase: no terminal to ask on, and DAVIT_PASSWORD is not set",
		"GET https://registry.example.com/v2/vm/manifests/v1: 401 Unauthorized: basic credential not found",
		"Basic Authentication, Bearer token missing, bearer authorization is not supported",
		"registry.example.com:5000/a/vm:v1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"localhost:5000/vm@latest: a digest is sha256: and 64 lower-case hex digits",
		"oci:/tmp/a@b/c:v1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"open /home/Me/.cache/davit/scratch/QEMU-2024/VirtualMachines/Debian12Generic/disk0.qcow2: no such file or directory",
		`open C:\Users\me@example\disk.vmdk: The system cannot find the file specified.`,
		"oci:/srv/vm:v1@sha256:12: a digest is sha256: and 64 lower-case hex digits", "oci:vm:v1@md5:abc", "oci:a@b/c:v1", "oci:C:/Users/me@home/vm:v1",
		"open work@2024/disk.qcow2: no such file or directory", "node_modules/@scope/x", "root=a@b/c",
		"commit 3f786850e387550fdabed836e6dc881de23001b",
		"signed by CN=me,emailAddress=me@example.com",
		"key MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEzD7b1Lw5mS9pT3hQ8kR2vX6yB4nJ0cGfHaKdWsUeZiNtOqYxMrPlVuCjEgIbFo",
		"-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----",
		"key hint oQVr7r6Aoo4q0cR3Yy9kV0aQ2s1Yl3c2v5r9q8w7E6Y=",
		"qemu-img convert --object secret,id=key,file=PASSWORD --image-opts driver=qcow2,encrypt.key-secret=key,file.filename=a -O qcow2 plain.qcow2",
		"davit login -u USER --password-stdin registry.example.com",
		`PEM type "ENCRYPTED PRIVATE KEY" is not one of a private key that davit knows`,
		"properties[0].password: it is not true or false; the token service answers 503",
		"guest https://libosinfo.org/linux/2022/debian/12",
		"00:50:56:00:00:01", "GB18030", "50% of 1.2 GB, 3 left",
	} {
		if got := f.Hide(text); got != text {
			t.Errorf("Hide(%q)\n     = %q", text, got)
		}
	}
}

func TestHideByForm(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"open " + key + ": no such file", "open (not shown): no such file"},
		{`open "` + strings.ReplaceAll(key[:90], "\n", `\n`) + `": no such file`, `open "(not shown)": no such file`},
		{"open Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,7C78CF238AEA7320850A471F9DDEB67F\n\n: no", "open (not shown)\n\n: no"},
		{`passwd: "hunter2"`, `passwd: "(not shown)"`},
		{`hunter2: token: "hunter2"`, `hunter2: token: "(not shown)"`},
		{"https://ci:p@ss@h/v2/: refused", "https://(not shown)@h/v2/: refused"},
		{"GET https://h/v2/?sig=abc&x=1: 403", "GET https://h/v2/?(not shown): 403"},
		{"malformed reference: \"ci:p/w@h/vm\": no host", "malformed reference: \"(not shown)@h/vm\": no host"},
		{"Authorization: Basic Y2k6cGFzcw==", "Authorization: (not shown)"},
		{"got Bearer abcDEF123456", "got Bearer (not shown)"},
		{"no token ghp_16C7e42F292c6912E7710c838347 here", "no token (not shown) here"},
		{`{"auths":{"h":{"auth":"Y2k6cGFzcw=="}}}`, `{"auths":{"h":{"auth":"(not shown)"}}}`},
		{"password=hunter22, user=ci", "password=(not shown), user=ci"},
		{"open token=hunter22: no such file", "open token=(not shown): no such file"},
		{"open oci:ci:p/w@h.example.com/vm:v1: no such file", "open oci:(not shown)@h.example.com/vm:v1: no such file"},
		{"oci-archive:ci:pw@localhost/vm.tar", "oci-archive:(not shown)@localhost/vm.tar"},
		{"oci:https://ci:pw@h/vm", "oci:https://(not shown)@h/vm"},
		{"oci://ci:pw@h/vm", "oci://(not shown)@h/vm"},
		{"read //ci:pw@h/vm: is a directory", "read //(not shown)@h/vm: is a directory"},
	} {
		got := (*secret.Filter)(nil).Hide(test.text)
		if got != test.want {
			t.Errorf("Hide(%q)\n     = %q\nwant = %q", test.text, got, test.want)
		}
		if again := (*secret.Filter)(nil).Hide(got); again != got {
			t.Errorf("Hide(%q)\n     = %q", got, again)
		}
	}
}

// keyForms are the key as tools print it.
func keyForms(t *testing.T) map[string]string {
	block, _ := pem.Decode([]byte(key))
	if block == nil {
		t.Fatal("no PEM")
	}
	pairs := func(b []byte, sep string) string {
		var s []string
		for _, c := range b {
			s = append(s, fmt.Sprintf("%02x", c))
		}
		return strings.Join(s, sep)
	}
	const text = "Private-Key: (256 bit)\npriv:\n    19:fa:48:d1:db:f2:65:83:26:d4:24:62:52:d6:7f:\n    31:5f:60:31:8c:46\npub:\n    04:d5\n"
	return map[string]string{
		"the hex of its DER":           pairs(block.Bytes, ""),
		"the hex of its PEM":           pairs([]byte(key), ""),
		"the hex of its PEM, as words": pairs([]byte(key), " "),
		"its DER with colons":          pairs(block.Bytes, ":"),
		"in capitals":                  strings.ToUpper(pairs(block.Bytes, ":")),
		"on lines":                     strings.ReplaceAll(pairs(block.Bytes, ":"), ":03:", ":03\n    "),
		"on lines, quoted":             strings.ReplaceAll(pairs(block.Bytes, ":"), ":03:", `:03\n`),
		"openssl -text":                text,
		"openssl -text, quoted":        strings.ReplaceAll(text, "\n", `\n`),
		"openssl -text of RSA":         strings.ReplaceAll(text, "priv:", "privateExponent:"),
	}
}

func TestHideFormsOfAKey(t *testing.T) {
	for name, s := range keyForms(t) {
		if !secret.LooksLikeKey(s) {
			t.Errorf("%s: %q is no key", name, s)
		}
		got := (*secret.Filter)(nil).Hide("open " + s + ": no such file")
		if want := "open (not shown): no such file"; strings.Contains(s, "priv") && strings.Contains(got, "48:d1") || !strings.Contains(s, "priv") && got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// What was given is hidden in the forms in which it is sent, stored and quoted.
func TestHideEncoded(t *testing.T) {
	for _, password := range []string{"hunter2", "Sw0rdFish9", "p&ss/w?rd", "correct horse battery staple 9", "Ünter>>>den?Linden"} {
		f := new(secret.Filter)
		f.KnowLogin("robot$builder-of-images", password)
		login := []byte("robot$builder-of-images:" + password)
		all := []byte(password)
		for name, s := range map[string]string{
			"as it is":                   password,
			"in base64":                  base64.StdEncoding.EncodeToString(login),
			"without padding":            base64.RawStdEncoding.EncodeToString(login),
			"for URLs":                   base64.URLEncoding.EncodeToString(login),
			"for URLs, without padding":  base64.RawURLEncoding.EncodeToString(login),
			"alone in base64":            base64.StdEncoding.EncodeToString(all),
			"alone, for URLs":            base64.RawURLEncoding.EncodeToString(all),
			"in hex":                     hex.EncodeToString(all),
			"in capital hex":             strings.ToUpper(hex.EncodeToString(all)),
			"escaped in a URL":           url.QueryEscape(password),
			"escaped in a path":          url.PathEscape(password),
			"every byte of it escaped":   "%" + strings.TrimSuffix(strings.ReplaceAll(fmt.Sprintf("% x", all), " ", "%"), "%"),
			"in JSON":                    string(must(json.Marshal(password))),
			"quoted":                     strconv.QuoteToASCII(password),
			"in base64 in JSON in a log": `answer: "{\"auth\":\"` + base64.StdEncoding.EncodeToString(login) + `\"}"`,
		} {
			got := f.Hide("got " + s + " from x")
			for _, bad := range []string{s, strings.TrimRight(s, "="), password} {
				if strings.Contains(got, bad) {
					t.Errorf("%q %s: %q", password, name, got)
				}
			}
			if !strings.HasPrefix(got, "got ") || !strings.HasSuffix(got, " from x") {
				t.Errorf("%q %s: %q", password, name, got)
			}
		}
		for _, text := range []string{"logged in as robot$builder-of-images", "the rest of 0123456789abcdef stays, and so do fish9 and horses"} {
			if got := f.Hide(text); got != text {
				t.Errorf("%q became %q", text, got)
			}
		}
	}
	// A part of a short one is, too, unless it is a part of words.
	f := new(secret.Filter)
	f.Know("Sw0rdFish9")
	f.Know("passwords")
	for text, want := range map[string]string{
		"xSw0rdFish9x": "x(not shown)x", "cut: Sw0rdFis": "cut: (not shown)", "rdFish9": "(not shown)", "Sw0rd": "Sw0rd",
		"the password": "the password", "no passwords": "no (not shown)",
	} {
		if got := f.Hide(text); got != want {
			t.Errorf("Hide(%q) = %q, want %q", text, got, want)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A message has parts of what was given: a host in lower case, the last element of a path, the beginning of a value.
func TestHideParts(t *testing.T) {
	for name, test := range map[string]struct {
		learn      func(f *secret.Filter)
		text, want string
	}{
		"lower case":       {func(f *secret.Filter) { f.LearnInput("ci:Hunter2xyZk4qW@h") }, "host hunter2xyzk4qw@h", "host (not shown)@h"},
		"the end":          {func(f *secret.Filter) { f.Know("abcdefgh/IJKLMNOPQRST") }, "IJKLMNOPQRST.raw", "(not shown).raw"},
		"quoted":           {func(f *secret.Filter) { f.Know("one line of it\nanother line") }, `"one line of it\nanother line"`, `"(not shown)"`},
		"escaped":          {func(f *secret.Filter) { f.Know("abcdefghijkl+mnopqrstuvwx") }, "/abcdefghijkl%2Bmnopqrstuvwx", "/(not shown)"},
		"short":            {func(f *secret.Filter) { f.Know("hunter2") }, "no hunter2, but hunter22", "no (not shown), but hunter22"},
		"a flag's":         {func(f *secret.Filter) { f.LearnInput("password: tr0ub4dor and 3") }, "is tr0ub4dor and 3", "is (not shown)"},
		"the end of a key": {func(f *secret.Filter) { f.LearnInput("HhHGHTAz\n" + key[120:]) }, `open "HhHGHTAz\n` + key[120:140] + `"`, `open "(not shown)"`},
		"with no letters":  {func(f *secret.Filter) { f.Know("........") }, "a........", "a(not shown)"},
	} {
		f := new(secret.Filter)
		test.learn(f)
		if got := f.Hide(test.text); got != test.want {
			t.Errorf("%s: Hide(%q) = %q, want %q", name, test.text, got, test.want)
		}
	}
}

// An input that is no file is quoted when it is missing: names stay, tokens do not.
func TestLearnInput(t *testing.T) {
	for _, name := range []string{
		"Win11_23H2_EnglishInternational_x64v2.iso", "/home/Me/VirtualMachines/DebianBookworm12Generic2024/disk0.qcow2", "debian-12-genericcloud-amd64-20240717-1811.qcow2",
		"registry.example.com/Team42/vm:v1.2.3-RC4-build20240717T181122Z", "3f786850e387550fdabed836e6dc881de23001b3f786850e387550fdabed836e6",
		"8f14e45f-ceea-467f-ab5d-0123456789ab", "oci-archive:/tmp/TestPushThenPull1234567890/001/archive.tar", "XDG_CACHE_HOME/Build2024Images/nightly",
	} {
		f := new(secret.Filter)
		f.LearnInput(name)
		if got := f.Hide("open " + name); got != "open "+name {
			t.Errorf("%q became %q", name, got)
		}
	}
	for _, token := range []string{"x9Zk47qWhunTerAB12cdEF56", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "Zk4qW9xTa7Lm2PsQ8vYb3NcRd6Ef-1GhJ5kU0iO"} {
		f := new(secret.Filter)
		f.LearnInput(token)
		if got := f.Hide("open " + token); strings.Contains(got, token[:12]) {
			t.Errorf("%q became %q", token, got)
		}
	}
}

func TestLooksLikeKey(t *testing.T) {
	for _, s := range []string{key, strings.ReplaceAll(key, "\n", " "), key[:60], key[31:], "AGE-SECRET-KEY-1QQPQ5KLDSE7P6GZ2JN4"} {
		if !secret.LooksLikeKey(s) {
			t.Errorf("%q is no key", s)
		}
	}
	for _, s := range []string{"", "k.pem", "private.key", "/etc/keys/PRIVATE KEY", "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n"} {
		if secret.LooksLikeKey(s) {
			t.Errorf("%q is a key", s)
		}
	}
}

// Hide is for every line that is printed: it may not take long, whatever a registry says.
func FuzzHide(f *testing.F) {
	f.Add(key, "open "+key)
	f.Add("ci:pass@h/x", "a@b@c:d@e/f?sig=x")
	f.Add("password=\xff\xfe", "\\n%2")
	f.Fuzz(func(t *testing.T, given, text string) {
		hides := new(secret.Filter)
		hides.LearnInput(given)
		hidden := hides.Hide(text)
		if again := hides.Hide(hidden); strings.Count(again, secret.Hidden) < strings.Count(hidden, secret.Hidden) {
			t.Errorf("hiding %q twice makes %q of %q", text, again, hidden)
		}
		whole := new(secret.Filter)
		whole.Know(given)
		if got := whole.Hide("x " + given + " y"); len(strings.TrimSpace(given)) >= 12 && strings.Contains(got, strings.TrimSpace(given)) {
			t.Errorf("%q is in %q", given, got)
		}
	})
}
