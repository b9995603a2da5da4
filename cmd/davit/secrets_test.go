package main

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A testSecret is a value that somebody gives to davit, and what of it is secret.
type testSecret struct {
	name   string
	value  string
	secret string
}

// leak is how many characters of a secret in a row are too many.
const leak = 12

// testSecrets are secrets as they get onto command lines: by $(cat FILE), by a
// variable of a CI system that has no line breaks, cut, or within a reference.
func testSecrets(t *testing.T) (all []testSecret) {
	t.Helper()
	add := func(name, value, secret string) { all = append(all, testSecret{name, value, secret}) }
	// The same keys each time: a part of a key is a path of its own kind.
	random := func(n int) (b []byte) {
		for i := byte(0); len(b) < n; i++ {
			sum := sha256.Sum256([]byte{i})
			b = append(b, sum[:]...)
		}
		return b[:n]
	}
	ed := ed25519.NewKeyFromSeed(random(32))
	ec, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), random(32))
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	// As a key of 2048 bits begins, which takes a second to make.
	pkcs1 := append([]byte{0x30, 0x82, 0x04, 0xA3, 2, 1, 0, 2, 0x82, 1, 1, 0}, random(1179)...)
	big := append([]byte{0x30, 0x82, 0x04, 0xBD, 2, 1, 0, 0x30, 13, 6, 9, 0x2A, 0x86, 0x48, 0x86, 0xF7, 13, 1, 1, 1, 5, 0, 4, 0x82, 0x04, 0xA7}, pkcs1...)
	cosign := fmt.Appendf(nil, `{"kdf":{"name":"scrypt","params":{"N":65536,"r":8,"p":1},"salt":%q},"cipher":{"name":"nacl/secretbox","nonce":%q},"ciphertext":%q}`,
		base64.StdEncoding.EncodeToString(random(32)), base64.StdEncoding.EncodeToString(random(24)), base64.StdEncoding.EncodeToString(random(154)))
	inPEM := func(label string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: label, Bytes: der}))
	}
	keys := map[string]string{
		"PKCS #8 EC":      inPEM("PRIVATE KEY", pkcs8(ec)),
		"PKCS #8 Ed25519": inPEM("PRIVATE KEY", pkcs8(ed)),
		"PKCS #8 RSA":     inPEM("PRIVATE KEY", big),
		"SEC 1":           inPEM("EC PRIVATE KEY", sec1),
		"PKCS #1":         inPEM("RSA PRIVATE KEY", pkcs1),
		"cosign":          inPEM("ENCRYPTED SIGSTORE PRIVATE KEY", cosign),
		"old and encrypted": strings.Replace(inPEM("RSA PRIVATE KEY", pkcs8(ed)), "KEY-----\n",
			"KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,0123456789ABCDEF0123456789ABCDEF\n\n", 1),
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		key := keys[name]
		var body string
		for _, line := range strings.Split(key, "\n") {
			if !strings.HasPrefix(line, "-----") && !strings.Contains(line, ":") {
				body += line
			}
		}
		key = strings.TrimSuffix(key, "\n") // as $(cat FILE) does
		bare := key[strings.Index(key, "KEY-----\n")+len("KEY-----\n") : strings.LastIndex(key, "\n-----END")]
		add(name, key, body)
		add(name+", CRLF", strings.ReplaceAll(key, "\n", "\r\n"), body)
		add(name+`, \n`, strings.ReplaceAll(key, "\n", `\n`), body)
		add(name+", in one line", strings.ReplaceAll(key, "\n", " "), body)
		add(name+", without line breaks", strings.ReplaceAll(key, "\n", ""), body)
		add(name+", cut off", key[:len(key)*2/3], body[:len(body)*2/3])
		add(name+", in quotes", `"`+key+`"`, body)
		add(name+", base64 of PEM", base64.StdEncoding.EncodeToString([]byte(key)), base64.StdEncoding.EncodeToString([]byte(key)))
		add(name+", behind K=", "k="+key, body)
		if !strings.Contains(bare, ":") {
			add(name+", without header", bare, body)
			add(name+", without header in one line", body, body)
		}
	}
	add("DER in hex", hex.EncodeToString(pkcs8(ec)), hex.EncodeToString(pkcs8(ec)))
	middle := strings.Split(inPEM("PRIVATE KEY", big), "\n")[5]
	add("a line of a key", middle, middle)

	const password = "Zk4/7q+W-hunter2_x9"
	add("user and password", "ci:"+password+"@registry.example.com/vm:v1", password)
	add("user and password without /", "ci:"+password+"@registry.example.com", password)
	add("user, password and digest", "ci:"+password+"@registry.example.com/vm@sha256:"+strings.Repeat("a", 64), password)
	add("user and password in a URL", "https://ci:"+password+"@registry.example.com/v2/", password)
	add("behind a name", "disk0=ci:"+password+"@registry.example.com/vm", password)
	add("token as user", "https://"+strings.Repeat("t0kEn", 5)+"@registry.example.com/v2/", strings.Repeat("t0kEn", 5))
	tokens := map[string]string{
		"GitHub":       "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",
		"GitHub, fine": "github_pat_" + "11ABCDEFG0aBcDeFgHiJkL_mNoPqRsTuVwXyZ0123456789",
		"GitLab":       "glpat-" + "x9Zk47qWhunterAB12cd",
		"Docker":       "dckr_pat_" + "x9Zk47qWhunterAB12cdEF_56-7",
		"AWS":          "AKIA" + "IOSFODNN7EXAMPLE",
		"AWS secret":   "wJalrXUtnFEMI/K7MDENG" + "/bPxRfiCYEXAMPLEKEY",
		"JWT":          "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
		"age":          "AGE-SECRET-KEY-1" + "QQPQ5KLDSE7P6GZ2JN4ZHN5TWVWVCKV3UWKJ0K8D2D8F3XK4QYSLQ0Q7Q",
	}
	for _, name := range slices.Sorted(maps.Keys(tokens)) {
		add("token of "+name, tokens[name], tokens[name])
	}
	token := "x9Zk47qWhunterAB12cdEF567"
	add("header", "Bearer "+token, token)
	add("basic", "Authorization: Basic "+base64.StdEncoding.EncodeToString([]byte("ci:"+password)), base64.StdEncoding.EncodeToString([]byte("ci:"+password)))
	add("assignment", "password="+token, token)
	add("presigned URL", "https://bucket.example.com/disk.img?X-Amz-Signature="+token+"&X-Amz-Expires=60", token)
	add("SAS URL", "https://bucket.example.com/disk.img?sv=1&sig=Zk4/7q/"+token+"/x%3D", token)
	return all
}

// leaked returns a part of the secret that text has, "" if it has none. Case
// does not matter: hosts are written in lower case.
func (s testSecret) leaked(text string) string {
	folded := strings.ToLower(text)
	for i := 0; i+leak <= len(s.secret); i++ {
		if strings.Contains(folded, strings.ToLower(s.secret[i:i+leak])) {
			return s.secret[i : i+leak]
		}
	}
	return ""
}

// runHere runs the command in this process and returns what it printed. A new
// process for each of some ten thousand calls would take minutes.
func runHere(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	dir := t.TempDir()
	before := [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	defer func() { os.Stdin, os.Stdout, os.Stderr = before[0], before[1], before[2] }()
	var files [3]*os.File
	for i, name := range []string{os.DevNull, filepath.Join(dir, "stdout"), filepath.Join(dir, "stderr")} {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	os.Stdin, os.Stdout, os.Stderr = files[0], files[1], files[2]
	code = run(filepath.Join(dir, "etc"), args)
	read := func(f *os.File) string {
		data, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	return code, read(files[1]), read(files[2])
}

// ownHome gives this process a home, a current folder and no credentials.
func ownHome(t *testing.T) {
	t.Helper()
	home := t.TempDir()
	t.Chdir(t.TempDir())
	t.Setenv("HOME", home)
	for _, name := range []string{"XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"} {
		t.Setenv(name, filepath.Join(home, name))
	}
	for _, name := range []string{"DAVIT_CONFIG", "DAVIT_CACHE", "DAVIT_POLICY", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"} {
		t.Setenv(name, "")
	}
}

type commandCall struct {
	cmd  *cobra.Command
	args []string
}

// everyCommand is each command that does something, with arguments that are
// well-formed and lead to nothing.
func everyCommand(t *testing.T) (all []commandCall) {
	t.Helper()
	nothing := map[string][]string{
		"REF": {"oci:none:v1"}, "REF...": {"oci:none:v1"}, "REPO": {"oci:none"}, "TAG...": {"v2"}, "REF|SOURCE": {"oci:none:v1"},
		"SOURCE": {"none.raw"}, "SOURCE...": {"none.raw"}, "DEST": {"none.qcow2"}, "A": {"none.raw"}, "B": {"none.raw"}, "HOST": {"registry.example.com"},
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			walk(c)
		}
		if cmd.HasSubCommands() {
			return
		}
		var args []string
		for _, word := range strings.Fields(cmd.Use)[1:] {
			switch {
			case nothing[word] != nil:
				args = append(args, nothing[word]...)
			case word == "--key":
				args = append(args, "--key", "none.key")
			case word == "FILE", strings.HasPrefix(word, "["), word == strings.ToLower(word):
			default:
				t.Errorf("%s: what is %s? This test has no value for it", cmd.CommandPath(), word)
			}
		}
		if cmd.CommandPath() == "davit registry serve" {
			args = append(args, "--listen", "192.0.2.1:0") // else it would serve
		}
		all = append(all, commandCall{cmd, args})
	}
	walk(newRoot(&globals{}))
	return all
}

// Whatever a secret is given as, no message has it: each flag and each argument
// of each command, also of those that do not exist yet when this is written.
func TestNoSecretInMessages(t *testing.T) {
	secrets := testSecrets(t)
	ownHome(t)
	if err := os.WriteFile("none.key", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	try := func(s testSecret, args ...string) {
		t.Helper()
		_, stdout, stderr := runHere(t, args...)
		// The name of a file that is there is no secret.
		made, err := filepath.Glob("*")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range made {
			if name != "none.key" {
				os.RemoveAll(name)
			}
		}
		for name, text := range map[string]string{"stdout": stdout, "stderr": stderr} {
			if part := s.leaked(text); part != "" {
				shown := make([]string, len(args))
				for i, a := range args {
					shown[i] = strings.ReplaceAll(a, s.value, "SECRET")
				}
				t.Errorf("%s, in davit %s: %s has %q:\n%s", s.name, strings.Join(shown, " "), name, part, text)
			}
		}
	}
	// All forms of a secret in all places are 100,000 calls: each place gets its
	// turn of them, and three that break what is done with values in their own
	// ways: lines, signs of paths and references, nothing to go by.
	always := someInRaces(secretsNamed(t, secrets, "PKCS #8 EC", "user and password", "a line of a key"))
	turn := 0
	turns := func() []testSecret {
		turn++
		return append(always, secrets[turn%len(secrets)])
	}
	for _, call := range everyCommand(t) {
		cmd, args := call.cmd, call.args
		path := strings.Fields(cmd.CommandPath())[1:]
		with := func(more ...string) []string {
			return append(append(append([]string{}, path...), more...), args...)
		}
		var flags []*pflag.Flag
		add := func(f *pflag.Flag) { flags = append(flags, f) }
		cmd.LocalFlags().VisitAll(add)
		own := len(flags)
		cmd.InheritedFlags().VisitAll(add)
		for i := range args {
			for _, s := range turns() {
				some := append([]string{}, args...)
				some[i] = s.value
				try(s, append(append([]string{}, path...), some...)...)
				try(s, append(append(append([]string{}, path...), "--json"), some...)...)
			}
		}
		for i, f := range flags {
			some := turns()
			if i >= own { // every command has them, and none does anything else with them
				some = some[len(always):]
			}
			// A flag comes last, since the last one counts.
			for _, s := range some {
				try(s, append(with(), "--"+f.Name+"="+s.value)...)
				if f.NoOptDefVal == "" {
					try(s, append(with(), "--"+f.Name, s.value, "-v")...)
				}
				if f.Shorthand != "" {
					try(s, append(with(), "-"+f.Shorthand+s.value)...)
				}
			}
		}
		for _, s := range turns() {
			try(s, with(s.value)...) // one too many
			try(s, append(with(), s.value)...)
			try(s, with("--no-such-flag", s.value)...)
			try(s, with("--"+s.value)...)
			try(s, with("-p"+s.value)...)
		}
	}
	for _, s := range someInRaces(secrets) {
		try(s, s.value)
		try(s, "help", s.value)
		try(s, "key", s.value)
		try(s, "__complete", "pull", "--key", s.value, "--no-such-flag", "")
		try(s, "__complete", s.value, "")
		try(s, "push", "none.raw", "oci:none:v1", "--sign", "--key", s.value)
		try(s, "push", "none.raw", s.value)
		try(s, "push", s.value, "oci:none:v1")
		try(s, "pull", "oci:none:v1", "x.raw", "--key", s.value)
		try(s, "pull", "--unverified", s.value, "x.raw")
		try(s, "convert", "none.raw", s.value)
		try(s, "sign", "oci:none:v1", "--key="+s.value)
		try(s, "login", "-u", "ci", "-p", s.value, "registry.example.com")
	}
}

// someInRaces is one in six of the secrets if the race detector is on, which makes
// each call ten times slower. CI runs the tests without it, too.
func someInRaces(all []testSecret) (some []testSecret) {
	if !raceDetector {
		return all
	}
	for i := 0; i < len(all); i += 6 {
		some = append(some, all[i])
	}
	return some
}

func secretsNamed(t *testing.T, all []testSecret, names ...string) (found []testSecret) {
	t.Helper()
	for _, name := range names {
		for _, s := range all {
			if s.name == name {
				found = append(found, s)
			}
		}
	}
	if len(found) != len(names) {
		t.Fatalf("of %q only %d", names, len(found))
	}
	return found
}

// The same for what comes by variables and files.
func TestNoSecretInMessagesOfFiles(t *testing.T) {
	secrets := someInRaces(secretsNamed(t, testSecrets(t), "PKCS #8 EC", "SEC 1, in one line", "cosign", "old and encrypted, cut off", "PKCS #8 RSA, without header",
		"a line of a key", "user and password", "user and password in a URL", "token as user", "token of GitHub", "token of AWS secret", "header", "assignment",
		"SAS URL"))
	for _, name := range []string{"DAVIT_CONFIG", "DAVIT_CACHE", "DAVIT_POLICY", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "HTTPS_PROXY",
		"XDG_CACHE_HOME", "XDG_CONFIG_HOME", "SOURCE_DATE_EPOCH"} {
		t.Run(name, func(t *testing.T) {
			ownHome(t)
			os.WriteFile("a.raw", make([]byte, 4096), 0o600)
			for _, s := range secrets {
				t.Setenv(name, s.value)
				for _, args := range [][]string{
					{"push", "a.raw", "oci:l:v1"}, {"pull", "oci:none:v1", "x.raw"}, {"convert", "-", "x.raw"},
					{"ls", "https://registry.example.com"}, {"logout", "registry.example.com"},
				} {
					_, stdout, stderr := runHere(t, args...)
					if part := s.leaked(stdout + stderr); part != "" {
						t.Errorf("%s: davit %v prints %q:\n%s%s", s.name, args, part, stdout, stderr)
					}
				}
			}
		})
	}
	ownHome(t)
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a.raw", string(make([]byte, 4096)))
	for _, s := range secrets {
		quoted := fmt.Sprintf("%q", s.value)
		for _, text := range []string{s.value, "cache: " + quoted, "jobs: " + quoted, quoted + ": 1", "maxMemory: " + s.value,
			"registries: {registry.example.com: {mirrors: " + quoted + "}}", "registries: {registry.example.com: {caFile: " + quoted + "}}",
			"policy: " + quoted, "password: " + s.value, "memory: " + quoted, "firmware: " + quoted, "nics: [{type: " + quoted + "}]",
			"disks: [{name: " + quoted + ", bus: sata}]", "disks: [{bus: " + quoted + "}]", "tpm: " + s.value, "properties: [{key: " + quoted + ", value: [}]"} {
			write("secret.yaml", text)
			write("config.json", text)
			for _, args := range [][]string{
				{"ls", "--config", "secret.yaml", "oci:none"},
				{"push", "--machine-file", "secret.yaml", "a.raw", "oci:l:v1"},
				{"push", "--config", "secret.yaml", "a.raw", "oci:l:v1"},
				{"logout", "--auth-file", "config.json", "registry.example.com"},
				{"key", "public", "--key", "config.json"},
				{"pull", "--key", "config.json", "oci:none:v1", "x.raw"},
				{"convert", "-O", "ova", "--cert-key", "config.json", "a.raw", "x.ova"},
				{"convert", "secret.yaml", "x.raw"},
				{"machine", "show", "secret.yaml"},
			} {
				code, stdout, stderr := runHere(t, args...)
				if code == exitOK && args[0] != "push" && args[0] != "convert" { // it was no secret to davit
					stdout = ""
				}
				if part := s.leaked(stdout + stderr); part != "" {
					t.Errorf("%s: davit %v of %q prints %q:\n%s%s", s.name, args, text, part, stdout, stderr)
				}
			}
			os.Remove("x.raw")
			os.Remove("x.ova")
		}
	}
}

// What is in a folder that exists is not hidden, whatever that is called.
func TestNamesOfFoldersAreShown(t *testing.T) {
	ownHome(t)
	const folder = "TestE2ELyingIndexIsNotSigned629585497/003"
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{folder, filepath.Join(here, folder)} {
		for _, test := range []struct {
			args []string
			want string
		}{
			{[]string{"push", path + "/none.raw", "oci:l:v1"}, path + "/none.raw"},
			{[]string{"pull", "oci:" + path + "/new:v1", "x.raw"}, "oci:" + path + "/new:v1"},
			{[]string{"pull", "oci-archive:" + path + "/new.tar:v1", "x.raw"}, "oci-archive:" + path + "/new.tar:v1"},
			{[]string{"key", "public", "--key=" + path}, path}, // a folder
			{[]string{"key", "public", "--key=" + path + "/none.key"}, path + "/none.key"},
		} {
			if _, _, stderr := runHere(t, test.args...); !strings.Contains(stderr, test.want) {
				t.Errorf("davit %v does not name it: %s", test.args, stderr)
			}
		}
	}
}

// A flag with one dash is a slip, and is shown; what follows the -p of other
// tools is a password.
func TestFlagWithOneDashIsShown(t *testing.T) {
	ownHome(t)
	for _, name := range []string{"-platform", "-plain-http", "-progress", "-password-stdin"} {
		if _, _, stderr := runHere(t, "pull", name, "linux/arm64", "oci:l:v1", "x.raw"); !strings.Contains(stderr, " in "+name+"\n") {
			t.Errorf("davit pull %s: %s", name, stderr)
		}
	}
	if _, _, stderr := runHere(t, "login", "-phunter2x", "registry.example.com"); strings.Contains(stderr, "hunter2x") {
		t.Errorf("davit login -phunter2x: %s", stderr)
	}
}

// A registry can send back what it got, and a message would quote it.
func TestNoSecretInAnswers(t *testing.T) {
	ownHome(t)
	const user, password = "robot", "hunter2-Zk4qW9xT"
	t.Setenv("DAVIT_PASSWORD", "pass phrase for the key")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, secret, ok := r.BasicAuth()
		if !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"errors":[{"code":"DENIED","message":"%s may not log in with %s, nor with pass phrase for the key"}]}`, got, secret)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	if err := os.WriteFile("auth.json", []byte(`{"auths":{"`+host+`":{"auth":"`+auth+`"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := runHere(t, "ls", "--auth-file", "auth.json", host+"/vm")
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, "robot may not log in with (not shown), nor with (not shown)") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// The JSON of a refusal says why, and is JSON.
func TestNoSecretInRefusals(t *testing.T) {
	ownHome(t)
	token := "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a"
	code, stdout, stderr := runHere(t, "pull", "--json", `oci:a "quoted" folder: `+token+":v1", "x.raw")
	var report refusedReport
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != exitRefused || len(report.Reasons) != 1 {
		t.Fatalf("exit code %d, stdout %q: %v", code, stdout, err)
	}
	if why := report.Reasons[0].Why; strings.Contains(stdout+stderr, token) || !strings.HasPrefix(why, `oci:a "quoted" folder: (not shown):v1: no trust source`) {
		t.Errorf("why: %q; stderr: %s", why, stderr)
	}
}
