// Package credentials keeps user names and passwords of registries where podman and docker keep them: in auth files, and with the
// credential helpers that these name. [Find] is for each request that has to log in, [Save] and [Remove] are for davit login and logout.
//
// Every function takes the path of the auth file that the user has named, "" if there is none. Besides that, $REGISTRY_AUTH_FILE,
// podman's two places and docker's one are looked at, in this order. No error quotes a file, which has passwords in it.
package credentials

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/davit-oci/davit/internal/own"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/redact"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// authFile is what podman and docker write, as far as it concerns us.
type authFile struct {
	Auths       map[string]authEntry `json:"auths"`
	CredHelpers map[string]string    `json:"credHelpers"`
	CredsStore  string               `json:"credsStore"`
}

type authEntry struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

const (
	maxAuthFile = 4 << 20       // bytes, which are read into memory
	lockSuffix  = ".davit-lock" // of the file that exists while an auth file is changed
)

// files are the files that may have credentials, the first that has some for a host decides:
// the one that the user has named, $REGISTRY_AUTH_FILE, podman's two places and docker's one.
func files(named string) []string {
	var files []string
	add := func(base string, rest ...string) {
		if base != "" {
			files = append(files, filepath.Join(append([]string{base}, rest...)...))
		}
	}
	add(named)
	add(os.Getenv("REGISTRY_AUTH_FILE"))
	add(os.Getenv("XDG_RUNTIME_DIR"), "containers", "auth.json")
	home, _ := os.UserHomeDir() // "" if there is none, and then nothing is looked up in it
	if config := os.Getenv("XDG_CONFIG_HOME"); config != "" {
		add(config, "containers", "auth.json")
	} else if home != "" {
		add(home, ".config", "containers", "auth.json")
	}
	if docker := os.Getenv("DOCKER_CONFIG"); docker != "" {
		add(docker, "config.json")
	} else if home != "" {
		add(home, ".docker", "config.json")
	}
	return files
}

// Find returns the credential for a repository of a host (HOST[:PORT], lower-case), [auth.EmptyCredential] if there is none.
func Find(ctx context.Context, named, host, repository string) (auth.Credential, error) {
	for _, path := range files(named) {
		f, err := readAuthFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return auth.EmptyCredential, err
		}
		c, err := f.lookup(ctx, host, repository)
		if err != nil {
			return auth.EmptyCredential, fmt.Errorf("reading credentials of %s in %s: %w", host, path, err)
		}
		if c != auth.EmptyCredential {
			return c, nil
		}
	}
	return auth.EmptyCredential, nil
}

// readAuthFile: a parse error does not quote the file, which has passwords in it.
func readAuthFile(path string) (authFile, error) {
	b, err := own.ReadAny(path, maxAuthFile)
	if err != nil {
		return authFile{}, fmt.Errorf("reading credentials: %w", err)
	}
	var f authFile
	if len(bytes.TrimSpace(b)) == 0 {
		return f, nil
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return authFile{}, fmt.Errorf("reading credentials: %s is not the JSON of an auth file", path)
	}
	return f, nil
}

// lookup: a helper for the host, then an entry that has something in it, then the file's helper for all hosts.
func (f authFile) lookup(ctx context.Context, host, repository string) (auth.Credential, error) {
	for _, key := range hostKeys(host) {
		if helper := f.CredHelpers[key]; helper != "" {
			return helperGet(ctx, helper, key)
		}
	}
	for _, key := range entryKeys(host, repository) {
		if e, ok := f.entry(key); ok {
			c, err := e.credential()
			if err != nil || c != auth.EmptyCredential {
				return c, err
			}
		}
	}
	if f.CredsStore != "" {
		for _, key := range hostKeys(host) {
			if c, err := helperGet(ctx, f.CredsStore, key); err != nil || c != auth.EmptyCredential {
				return c, err
			}
		}
	}
	return auth.EmptyCredential, nil
}

// entry finds a key as it is, or one that docker's older versions wrote for it: a URL of which only the host counts.
func (f authFile) entry(key string) (authEntry, bool) {
	if e, ok := f.Auths[key]; ok {
		return e, true
	}
	if strings.Contains(key, "/") {
		return authEntry{}, false
	}
	for _, old := range []string{
		"https://" + key, "https://" + key + "/", "https://" + key + "/v1/", "https://" + key + "/v2/",
		"http://" + key, "http://" + key + "/", "http://" + key + "/v1/", "http://" + key + "/v2/",
	} {
		if e, ok := f.Auths[old]; ok {
			return e, true
		}
	}
	return authEntry{}, false
}

// entryKeys are the keys an entry for a repository may have, the most specific first: podman knows namespaces
// (containers-auth.json(5)).
func entryKeys(host, repository string) []string {
	var keys []string
	for path := repository; path != ""; {
		keys = append(keys, host+"/"+path)
		cut := strings.LastIndexByte(path, '/')
		path = path[:max(cut, 0)]
	}
	return append(keys, hostKeys(host)...)
}

const dockerHubKey = "https://index.docker.io/v1/"

func hostKeys(host string) []string {
	switch host {
	case "docker.io", "index.docker.io", "registry-1.docker.io":
		return []string{"docker.io", dockerHubKey, "index.docker.io", "registry-1.docker.io"}
	}
	return []string{host}
}

func (e authEntry) credential() (auth.Credential, error) {
	c := auth.Credential{Username: e.Username, Password: e.Password, RefreshToken: e.IdentityToken, AccessToken: e.RegistryToken}
	if e.Auth == "" {
		return c, nil
	}
	b, err := base64.StdEncoding.DecodeString(e.Auth)
	if err != nil {
		return auth.EmptyCredential, errors.New("the auth field is not base64")
	}
	user, password, ok := strings.Cut(string(b), ":")
	if !ok || user == "" {
		return auth.EmptyCredential, errors.New("the auth field is not USER:PASSWORD")
	}
	c.Username, c.Password = user, strings.TrimRight(password, "\x00")
	return c, nil
}

var helperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// helper runs docker-credential-NAME. The name comes from a file and must stay a name.
func helper(name string) (credentials.Store, error) {
	if !helperName.MatchString(name) {
		return nil, fmt.Errorf("%.50q is not the name of a credential helper", name)
	}
	return credentials.NewNativeStore(name), nil
}

func helperGet(ctx context.Context, name, key string) (auth.Credential, error) {
	h, err := helper(name)
	if err != nil {
		return auth.EmptyCredential, err
	}
	c, err := h.Get(ctx, key)
	if err != nil {
		return auth.EmptyCredential, fmt.Errorf("asking credential helper %s: %w", name, redact.Error(err))
	}
	return c, nil
}

// Save stores a password for a host: in the first file that exists. If none exists, docker's is made; a file that the user has named is
// made if it does not exist, also by $REGISTRY_AUTH_FILE. If the file names a credential helper for the host, that gets the password.
func Save(ctx context.Context, named, host, user, password string) error {
	path, err := loginFile(named)
	if err != nil {
		return err
	}
	return changeAuthFile(ctx, path, host, func(name string, auths map[string]json.RawMessage) error {
		key := hostKeys(host)[0]
		if name != "" {
			h, err := helper(name)
			if err != nil {
				return err
			}
			if err := h.Put(ctx, helperKey(host), auth.Credential{Username: user, Password: password}); err != nil {
				return fmt.Errorf("giving the password to credential helper %s: %w", name, redact.Error(err))
			}
			return nil
		}
		if key == "docker.io" {
			key = dockerHubKey
		}
		entry, err := json.Marshal(map[string]string{"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password))})
		if err != nil {
			return err
		}
		auths[key] = entry
		return nil
	})
}

func helperKey(host string) string {
	if keys := hostKeys(host); len(keys) > 1 {
		return dockerHubKey
	}
	return host
}

// Remove removes the credentials of a host from the first file that has some, and from the helper that the file names for it. If none
// has, the error is an [oci.ErrNotFound].
func Remove(ctx context.Context, named, host string) error {
	for _, path := range files(named) {
		f, err := readAuthFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		c, err := f.lookup(ctx, host, "")
		if err != nil {
			return fmt.Errorf("logging out of %s: %w", host, err)
		}
		if c == auth.EmptyCredential {
			continue
		}
		return changeAuthFile(ctx, path, host, func(name string, auths map[string]json.RawMessage) error {
			if name != "" {
				h, err := helper(name)
				if err != nil {
					return err
				}
				if err := h.Delete(ctx, helperKey(host)); err != nil {
					return fmt.Errorf("removing the password from credential helper %s: %w", name, redact.Error(err))
				}
			}
			for _, key := range hostKeys(host) {
				for k := range auths {
					trimmed := strings.TrimPrefix(strings.TrimPrefix(k, "https://"), "http://")
					trimmed = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(trimmed, "/"), "/v1"), "/v2")
					if k == key || trimmed == key {
						delete(auths, k)
					}
				}
			}
			return nil
		})
	}
	return fmt.Errorf("logging out of %s: no credentials: %w", host, oci.ErrNotFound)
}

// loginFile is the file that a login is written to.
func loginFile(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	if f := os.Getenv("REGISTRY_AUTH_FILE"); f != "" {
		return f, nil
	}
	all := files(named)
	for _, f := range all {
		if _, err := os.Lstat(f); !errors.Is(err, fs.ErrNotExist) {
			return f, nil
		}
	}
	if len(all) == 0 {
		return "", errors.New("no place for credentials: neither home directory nor DOCKER_CONFIG")
	}
	return all[len(all)-1], nil
}

// changeAuthFile lets change work on the entries of the file and replaces it as a whole, with all that we do not know in it.
// change gets the name of the helper that keeps the host's password, or "".
func changeAuthFile(ctx context.Context, path, host string, change func(helper string, auths map[string]json.RawMessage) error) error {
	fail := func(err error) error { return fmt.Errorf("writing credentials of %s to %s: %w", host, path, err) }
	// The file may be a link into the user's dotfiles, and is to stay one.
	if target, err := own.Resolve(path); err == nil {
		path = target
	} else if foreign := (*own.Error)(nil); errors.As(err, &foreign) {
		return fail(err)
	}
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	if _, err := own.MkdirAll(dir, 0o700); err != nil {
		return fail(err)
	}
	release, err := wholefile.Lock(ctx, filepath.Join(dir, "."+name+lockSuffix))
	if err != nil {
		return fail(err)
	}
	defer release()

	known, err := readAuthFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all := make(map[string]json.RawMessage)
	if b, err := own.ReadAny(path, maxAuthFile); err == nil && len(bytes.TrimSpace(b)) > 0 {
		if err := json.Unmarshal(b, &all); err != nil {
			return fail(errors.New("it is not the JSON of an auth file"))
		}
	}
	auths := make(map[string]json.RawMessage)
	if b, ok := all["auths"]; ok {
		if err := json.Unmarshal(b, &auths); err != nil || auths == nil {
			auths = make(map[string]json.RawMessage)
		}
	}

	helperOf := known.CredsStore
	for _, key := range hostKeys(host) {
		if h := known.CredHelpers[key]; h != "" {
			helperOf = h
		}
	}
	if err := change(helperOf, auths); err != nil {
		return fail(err)
	}
	if all["auths"], err = json.Marshal(auths); err != nil {
		return fail(err)
	}
	b, err := json.MarshalIndent(all, "", "\t")
	if err != nil {
		return fail(err)
	}
	if err := wholefile.Replace(path, append(b, '\n'), 0o600); err != nil {
		return fail(err)
	}
	return nil
}
