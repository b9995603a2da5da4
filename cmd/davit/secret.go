package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/davit-oci/davit/internal/secret"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// learnSecrets returns what keeps secrets out of messages. It knows those that
// the program was given: whatever is wrong with a word of the command line, a
// message may quote it.
func learnSecrets(args, environ []string) *secret.Filter {
	f := new(secret.Filter)
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		switch {
		case isPath(value):
		case secret.Names(name):
			f.Know(value)
		case slices.Contains(ownVariables, name):
			f.LearnInput(notInAFolder(value))
		default:
			f.Learn(value)
		}
	}
	for i, arg := range args {
		name, value, assigned := strings.Cut(arg, "=")
		// No flag takes a password. Some will try all the same.
		if strings.HasPrefix(arg, "-") && secret.Names(name) || strings.HasPrefix(arg, "-p") && !isFlag(name[1:]) {
			if !assigned && i+1 < len(args) {
				value = args[i+1]
			}
			f.Know(value)
			if strings.HasPrefix(arg, "-p") {
				f.Know(arg)
				f.Know(arg[2:])
			}
		}
		if isPath(arg) {
			continue
		}
		if assigned {
			if isPath(value) {
				value = ""
			}
			value = notInAFolder(value)
			f.LearnInput(value)
			arg = name + "=" + value
		}
		f.LearnInput(notInAFolder(arg))
	}
	return f
}

// isFlag says whether a flag of any command is called so: with one dash it is a
// slip, and nobody's password.
func isFlag(name string) bool {
	var find func(*cobra.Command) bool
	find = func(cmd *cobra.Command) bool {
		return cmd.Flags().Lookup(name) != nil || cmd.PersistentFlags().Lookup(name) != nil || slices.ContainsFunc(cmd.Commands(), find)
	}
	return find(newRoot(&globals{}))
}

// ownVariables are read by davit, and a message can quote them.
var ownVariables = []string{"DAVIT_CACHE", "DAVIT_CONFIG", "DAVIT_POLICY", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE",
	"SOURCE_DATE_EPOCH", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"}

// isPath says whether s is the name of a file that exists, which is no secret
// even if it looks like one.
func isPath(s string) bool {
	_, err := os.Lstat(s)
	return err == nil
}

// notInAFolder returns what of a word is not the name of a folder that exists:
// of oci:/home/me/Build2026x64/vm:v1 that is vm:v1, if the rest is there. Long
// names with capitals and numbers in them look like secrets, and are none.
func notInAFolder(s string) string {
	for _, scheme := range []string{"oci:", "oci-archive:"} {
		s = strings.TrimPrefix(s, scheme)
	}
	rest := s
	for i := range len(s) {
		if !os.IsPathSeparator(s[i]) || i == 0 {
			continue
		}
		if !isPath(s[:i]) {
			break
		}
		rest = s[i+1:]
	}
	return rest
}

// refuseKeys refuses a private key in the place of anything else. davit takes
// keys as files only, and what is given may be published, or written as a name.
func refuseKeys(cmd *cobra.Command, args []string) (err error) {
	_, usage, _ := strings.Cut(cmd.Use, " ")
	for _, arg := range args {
		if secret.LooksLikeKey(arg) {
			return withHint(usagef("this looks like a private key, not like %s", cmp.Or(usage, "an argument")), "%s", cmd.UseLine())
		}
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if err != nil || !secret.LooksLikeKey(f.Value.String()) {
			return
		}
		what, _ := pflag.UnquoteUsage(f)
		like := what
		if what == "FILE" || what == "" {
			like = "the name of a file"
		}
		err = withHint(usagef("--%s: this looks like a private key, not like %s", f.Name, like),
			"%s", strings.TrimSpace(fmt.Sprintf("%s --%s %s %s", cmd.CommandPath(), f.Name, what, usage)))
	})
	return err
}

// errNoSecret is returned where a secret is needed and nobody can be asked.
var errNoSecret = errors.New("no terminal to ask on, and DAVIT_PASSWORD is not set")

// passphrase returns the passphrase of a key file: from the environment, empty
// if it says so, or from the terminal. A new one is asked for twice.
func (g *globals) passphrase(ctx context.Context, file string, fresh bool) ([]byte, error) {
	for _, name := range []string{"DAVIT_PASSWORD", "COSIGN_PASSWORD"} {
		if passphrase, ok := os.LookupEnv(name); ok {
			g.stderr.secrets.Know(passphrase)
			return []byte(passphrase), nil
		}
	}
	first, err := g.ask(ctx, "Passphrase for "+file+": ")
	if err != nil || !fresh {
		return first, err
	}
	second, err := g.ask(ctx, "The same again: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, errors.New("the two passphrases differ")
	}
	return first, nil
}

// ask reads a secret from the terminal, without showing it.
func (g *globals) ask(ctx context.Context, prompt string) ([]byte, error) {
	fd := int(g.stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, errNoSecret
	}
	before, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(g.stderr, printable(prompt))
	defer fmt.Fprintln(g.stderr)

	type answer struct {
		secret []byte
		err    error
	}
	// Reading from a terminal cannot be cancelled: on a signal the goroutine
	// stays behind, and the process ends.
	answered := make(chan answer, 1)
	go func() {
		secret, err := term.ReadPassword(fd)
		answered <- answer{secret, err}
	}()
	select {
	case a := <-answered:
		g.stderr.secrets.Know(string(a.secret))
		return a.secret, a.err
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), term.Restore(fd, before))
	}
}

// The longest line that is taken for a password.
const maxPassword = 64 << 10

// readPassword reads a password from a pipe: all of the first line.
func readPassword(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxPassword)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
	if len(line) == 0 {
		return "", errors.New("no password on stdin")
	}
	return string(line), nil
}
