package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/registry"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

type loginOptions struct {
	*globals
	registryFlags
	user          string
	passwordStdin bool
}

func newLogin(g *globals) *cobra.Command {
	o := loginOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "login HOST",
		Short: "Keep credentials for a registry",
		Long: `Keep credentials for a registry, after the registry has accepted them, where
docker and podman keep theirs.`,
		Args: onlyHost,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLogin(cmd.Context(), cmd.OutOrStdout(), args[0], o)
		},
	}
	o.registryFlags.flags(cmd)
	cmd.Flags().StringVarP(&o.user, "username", "u", "", "`USER` name (default: asked for)")
	cmd.Flags().BoolVar(&o.passwordStdin, "password-stdin", false, "read the password from stdin")
	return cmd
}

// onlyHost wants HOST. What else is given may be a password, so nothing of it is
// said.
func onlyHost(cmd *cobra.Command, args []string) error {
	user, _ := cmd.Flags().GetString("username")
	var err error
	switch {
	case len(args) > 1:
		err = usagef("%d arguments: takes only HOST; no argument and no flag has the password", len(args))
	case len(args) == 1 && strings.Contains(args[0], "@"):
		err = usagef("HOST: the name of a registry alone, without user name and password")
	case strings.Contains(user, ":"):
		err = usagef("--username: no user name has a colon in it; no argument and no flag has the password")
	default:
		return exactArgs("HOST")(cmd, args)
	}
	return withHint(err, "davit login -u USER --password-stdin HOST")
}

type loginReport struct {
	report
	Host string `json:"host"`
	User string `json:"user,omitempty"`
}

func runLogin(ctx context.Context, stdout io.Writer, host string, o loginOptions) error {
	interactive := term.IsTerminal(int(o.stdin.Fd()))
	if o.passwordStdin && o.user == "" {
		return usagef("--password-stdin: -u USER is missing")
	}
	if !o.passwordStdin && !interactive {
		return withHint(usagef("no terminal to ask for a password on"), "davit login -u USER --password-stdin %s", host)
	}
	if o.user == "" {
		user, err := o.askName(ctx)
		if err != nil {
			return err
		}
		o.user = user
	}
	var password string
	if o.passwordStdin {
		line, err := readPassword(source.Interruptible(ctx, o.stdin))
		if err != nil {
			return err
		}
		password = line
	} else {
		secret, err := o.ask(ctx, "Password for "+o.user+" at "+host+": ")
		if err != nil {
			return err
		}
		password = string(secret)
	}

	o.stderr.secrets.KnowLogin(o.user, password)
	err := registry.Login(ctx, host, o.user, password, o.options(o.globals))
	if errors.Is(err, registry.ErrMalformedReference) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	if o.json {
		return writeJSON(stdout, loginReport{newReport("davit login"), host, o.user})
	}
	o.say("logged in to %s as %s", host, o.user)
	return nil
}

// askName reads a user name from the terminal.
func (g *globals) askName(ctx context.Context) (string, error) {
	fmt.Fprint(g.stderr, "User name: ")
	type answer struct {
		name string
		err  error
	}
	// As in ask, the goroutine stays behind on a signal.
	answered := make(chan answer, 1)
	go func() {
		name, err := bufio.NewReader(io.LimitReader(g.stdin, maxPassword)).ReadString('\n')
		answered <- answer{strings.TrimSpace(name), err}
	}()
	select {
	case a := <-answered:
		if a.err == nil && a.name == "" {
			return "", errors.New("no user name given")
		}
		return a.name, a.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

type logoutOptions struct {
	*globals
	registryFlags
}

func newLogout(g *globals) *cobra.Command {
	o := logoutOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "logout HOST",
		Short: "Forget credentials for a registry",
		Args:  exactArgs("HOST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLogout(cmd.Context(), cmd.OutOrStdout(), args[0], o)
		},
	}
	o.registryFlags.flags(cmd)
	return cmd
}

func runLogout(ctx context.Context, stdout io.Writer, host string, o logoutOptions) error {
	err := registry.Logout(ctx, host, o.options(o.globals))
	if errors.Is(err, registry.ErrMalformedReference) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	if o.json {
		return writeJSON(stdout, loginReport{report: newReport("davit logout"), Host: host})
	}
	o.say("logged out of %s", host)
	return nil
}
