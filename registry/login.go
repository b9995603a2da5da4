package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/davit-oci/davit/registry/internal/credentials"
	"github.com/davit-oci/davit/registry/internal/reference"
	"github.com/davit-oci/davit/registry/internal/remote"
)

// Login checks user name and password against the registry's /v2/ and stores them: in the first file that exists of Options.AuthFile,
// $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json, $XDG_CONFIG_HOME/containers/auth.json and docker's config.json (in
// $DOCKER_CONFIG or ~/.docker), which is the order in which they are looked up too; if there is none, docker's is made. An AuthFile or
// $REGISTRY_AUTH_FILE is made if it does not exist. If the file names a credential helper for the host, that gets the password.
// A refusal is an [ErrUnauthorized], and nothing is stored.
func Login(ctx context.Context, host, user, password string, o Options) error {
	host, err := loginHost(host)
	if err != nil {
		return err
	}
	if user == "" || password == "" {
		return fmt.Errorf("logging in to %s: user name and password are needed", host)
	}
	err = remote.Ping(ctx, host, user, password, o.remote())
	if errors.Is(err, ErrNotFound) {
		//nolint:errorlint // It is no ErrNotFound for who logs in: nothing was looked for.
		return fmt.Errorf("logging in to %s: it does not answer as a registry at /v2/: check the name of the host: %v", host, err)
	}
	if err != nil {
		return fmt.Errorf("logging in to %s: %w", host, err)
	}
	return credentials.Save(ctx, o.AuthFile, host, user, password)
}

// Logout removes the credentials of a host from the first file that has some, and from the helper that the file names for it. If none
// has, the error is an [ErrNotFound].
func Logout(ctx context.Context, host string, o Options) error {
	host, err := loginHost(host)
	if err != nil {
		return err
	}
	return credentials.Remove(ctx, o.AuthFile, host)
}

// loginHost reads HOST[:PORT]. Here a host needs neither dot nor port: nothing else can be meant.
func loginHost(s string) (string, error) {
	host := strings.ToLower(s)
	if !reference.ValidHost(host) {
		return "", fmt.Errorf("%w: %.200q is no host", ErrMalformedReference, s)
	}
	return host, nil
}
