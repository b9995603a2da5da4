package credentials

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/davit-oci/davit/registry/internal/oci"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// FuzzAuthFile logs out of a host with any auth file: afterwards nothing is
// found for the host, and whatever else was in the file is still there. A file
// that cannot be read stays as it is.
func FuzzAuthFile(f *testing.F) {
	for _, text := range []string{
		`{"auths":{"registry.example.com":{"auth":"Y2k6cGFzcw=="}}}`,
		`{"auths":{"https://registry.example.com/v1/":{"username":"ci","password":"pass"},"other":{"auth":"YTpi"}},"HttpHeaders":{"A":"b"}}`,
		`{"auths":{"registry.example.com/vm":{"auth":"Y2k6cGFzcw=="},"registry.example.com":{"identitytoken":"t"}}}`,
		`{"auths":{"http://registry.example.com/v2/":{"registrytoken":"t"},"registry.example.com":{"auth":"?"}}}`,
		`{"auths":null,"credsStore":""}`,
		`{"auths":[]}`,
		"",
	} {
		f.Add([]byte(text))
	}
	const host = "registry.example.com"
	ctx := context.Background()
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, name := range []string{"XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE"} {
			t.Setenv(name, "")
		}
		dir := t.TempDir()
		for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "DOCKER_CONFIG"} {
			t.Setenv(name, filepath.Join(dir, "none"))
		}
		path := filepath.Join(dir, "auth.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		before, err := readAuthFile(path)
		if err == nil && (before.CredsStore != "" || len(before.CredHelpers) > 0) {
			return // a helper is a program: which one is the file's choice
		}
		var whole map[string]any
		_ = json.Unmarshal(data, &whole) // what is no JSON has nothing to keep

		if err := Remove(ctx, path, host); err != nil {
			if after, readErr := os.ReadFile(path); readErr != nil || string(after) != string(data) {
				t.Errorf("%v, and the file is %q: %v", err, after, readErr)
			}
			if c, findErr := Find(ctx, path, host, ""); errors.Is(err, oci.ErrNotFound) && (findErr != nil || c != auth.EmptyCredential) {
				t.Errorf("%v, and then %q is found: %v", err, c.Username, findErr)
			}
			return
		}
		if c, err := Find(ctx, path, host, ""); err != nil || c != auth.EmptyCredential {
			t.Errorf("logged out, and %q is still found: %v", c.Username, err)
		}
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var changed map[string]any
		if err := json.Unmarshal(after, &changed); err != nil {
			t.Fatalf("%q is written: %v", after, err)
		}
		delete(whole, "auths")
		delete(changed, "auths")
		if !reflect.DeepEqual(whole, changed) {
			t.Errorf("%q became %q", data, after)
		}
		left, err := readAuthFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for key, entry := range before.Auths {
			got, ok := left.Auths[key]
			if !ok && !strings.Contains(key, host) {
				t.Errorf("the entry of %q is gone", key)
			}
			if ok && got != entry {
				t.Errorf("the entry of %q changed", key)
			}
		}
	})
}
