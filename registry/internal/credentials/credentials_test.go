package credentials

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func TestOrder(t *testing.T) {
	dirs := make(map[string]string)
	for _, k := range []string{"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "HOME"} {
		dirs[k] = t.TempDir()
		t.Setenv(k, dirs[k])
	}
	explicit := filepath.Join(t.TempDir(), "explicit.json")
	env := filepath.Join(t.TempDir(), "env.json")
	t.Setenv("REGISTRY_AUTH_FILE", env)
	write := func(path, host, user string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		content := fmt.Sprintf(`{"auths":{%q:{"auth":%q},"empty.example":{}}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":secret")))
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files := []string{
		explicit, env,
		filepath.Join(dirs["XDG_RUNTIME_DIR"], "containers", "auth.json"),
		filepath.Join(dirs["XDG_CONFIG_HOME"], "containers", "auth.json"),
		filepath.Join(dirs["DOCKER_CONFIG"], "config.json"),
	}
	for i, f := range files {
		write(f, "a.example", fmt.Sprint("user", i))
	}
	user := func(host, repository string) string {
		t.Helper()
		c, err := Find(t.Context(), explicit, host, repository)
		if err != nil {
			t.Error(err)
		}
		return c.Username
	}
	for i, f := range files {
		if got, want := user("a.example", "vm"), fmt.Sprint("user", i); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		write(f, "b.example", "other") // it is there, and has nothing for a.example
	}
	if got := user("a.example", "vm"); got != "" {
		t.Errorf("got %q from nowhere", got)
	}
	if got := user("empty.example", "vm"); got != "" {
		t.Errorf("got %q from an empty entry", got)
	}
	t.Setenv("DOCKER_CONFIG", "")
	write(filepath.Join(dirs["HOME"], ".docker", "config.json"), "a.example", "home")
	if got := user("a.example", "vm"); got != "home" {
		t.Errorf("got %q, want home", got)
	}
}

func TestKeys(t *testing.T) {
	entry := func(user string) string {
		return fmt.Sprintf(`{"auth":%q}`, base64.StdEncoding.EncodeToString([]byte(user+":p:w")))
	}
	file := filepath.Join(t.TempDir(), "auth.json")
	content := `{"auths":{
		"a.example/team/vm": ` + entry("vm") + `,
		"a.example/team": ` + entry("team") + `,
		"a.example": ` + entry("host") + `,
		"https://old.example/v1/": ` + entry("old") + `,
		"https://index.docker.io/v1/": ` + entry("hub") + `,
		"plain.example": {"username":"plain","password":"p:w"},
		"bad.example": {"auth":"%%%"}
	}}`
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"a.example team/vm": "vm", "a.example team/vm/x": "vm", "a.example team/vmx": "team", "a.example team": "team", "a.example teams": "host",
		"a.example:5000 vm": "", "old.example vm": "old", "docker.io library/x": "hub", "plain.example x": "plain", "c.example x": "",
	} {
		host, repository, _ := strings.Cut(name, " ")
		c, err := Find(t.Context(), file, host, repository)
		if err != nil || c.Username != want || want != "" && c.Password != "p:w" {
			t.Errorf("%s: got %q, %v; want %q", name, c.Username, err, want)
		}
	}
	if _, err := Find(t.Context(), file, "bad.example", "x"); err == nil || strings.Contains(err.Error(), "%%%") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(file, []byte(`{"auths":{"a.example":{"auth":"hunter2"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(t.Context(), file, "a.example", "x"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestHelpers(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the helper is a shell script; a Unix system would run this")
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	script := `#!/bin/sh
read line
case "$1 $line" in
"get a.example") echo '{"ServerURL":"a.example","Username":"alice","Secret":"from helper"}' ;;
"get t.example") echo '{"ServerURL":"t.example","Username":"<token>","Secret":"identity"}' ;;
"get "*) echo "credentials not found in native keychain"; exit 1 ;;
store*) echo "$line" > "` + dir + `/stored" ;;
erase*) echo "$line" > "` + dir + `/erased" ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "docker-credential-test"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "auth.json")
	for content, want := range map[string][3]string{
		`{"credHelpers":{"a.example":"test"}}`:                                    {"alice", "from helper", ""},
		`{"credHelpers":{"t.example":"test"}}`:                                    {"", "", ""},
		`{"credsStore":"test"}`:                                                   {"alice", "from helper", ""},
		`{"credsStore":"test","auths":{"a.example":{}}}`:                          {"alice", "from helper", ""},
		`{"credsStore":"test","auths":{"a.example":{"auth":"Ym9iOnBhc3M="}}}`:     {"bob", "pass", ""},
		`{"credHelpers":{"a.example":"test"},"auths":{"a.example":{"auth":"x"}}}`: {"alice", "from helper", ""},
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Find(t.Context(), file, "a.example", "vm")
		if got := [3]string{c.Username, c.Password, c.RefreshToken}; err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", content, got, err, want)
		}
	}
	if c, err := Find(t.Context(), writeTemp(t, `{"credsStore":"test"}`), "t.example", "vm"); err != nil || c.RefreshToken != "identity" {
		t.Errorf("got %+v, %v", c, err)
	}
	// A helper's name that is a path would run this.
	t.Chdir(t.TempDir())
	if err := os.Mkdir("docker-credential-..", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("docker-credential-../test", []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"../test", "te st", "test;x", "/bin/sh"} {
		content, err := json.Marshal(map[string]string{"credsStore": name})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Find(t.Context(), writeTemp(t, string(content)), "a.example", "vm"); err == nil {
			t.Errorf("helper %q: no error", name)
		}
	}

	// The helper gets the password, and no file does.
	path := writeTemp(t, `{"credsStore":"test"}`)
	if err := Save(t.Context(), path, "a.example", "alice", "hunter2"); err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile(filepath.Join(dir, "stored"))
	if err != nil || !strings.Contains(string(stored), "hunter2") {
		t.Errorf("stored %q, %v", stored, err)
	}
	if b, err := os.ReadFile(path); err != nil || strings.Contains(string(b), "hunter2") {
		t.Errorf("%s, %v", b, err)
	}
	if err := Remove(t.Context(), path, "a.example"); err != nil {
		t.Error(err)
	}
	if erased, err := os.ReadFile(filepath.Join(dir, "erased")); err != nil || string(erased) != "a.example\n" {
		t.Errorf("erased %q, %v", erased, err)
	}
}

func writeTemp(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "auth.json")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// Two logins at the same time are two logins.
func TestSaveAtTheSameTime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "auth.json")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if err := Save(t.Context(), path, fmt.Sprintf("host%d.example", i), "a", "b"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	f, err := readAuthFile(path)
	if err != nil || len(f.Auths) != 8 {
		t.Errorf("got %v, %v", f.Auths, err)
	}
}

// No test reads the credentials of whoever runs it.
func TestMain(m *testing.M) {
	for _, k := range []string{"XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "HOME", "REGISTRY_AUTH_FILE"} {
		os.Unsetenv(k)
	}
	m.Run()
}
