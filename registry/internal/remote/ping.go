package remote

import (
	"context"
	"fmt"
	"net/http"

	"github.com/davit-oci/davit/registry/internal/oci"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// Ping asks the registry's /v2/ with a user name and a password. A refusal is an [ErrUnauthorized].
func Ping(ctx context.Context, host, user, password string, o Options) error {
	credential := auth.Credential{Username: user, Password: password}
	c, err := newClient(host, func(context.Context, string) (auth.Credential, error) { return credential, nil }, o.withDefaults(), new(oci.Stats))
	if err != nil {
		return fmt.Errorf("preparing to reach %s: %w", host, err)
	}
	defer c.conns.close()
	return c.retry(ctx, func(int) error {
		resp, err := c.do(ctx, request{method: http.MethodGet}, http.StatusOK)
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
}
