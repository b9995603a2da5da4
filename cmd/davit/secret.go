package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// errNoSecret is returned where a secret is needed and nobody can be asked.
var errNoSecret = errors.New("no terminal to ask on, and DAVIT_PASSWORD is not set")

// passphrase returns the passphrase of a key file: from the environment, empty
// if it says so, or from the terminal. A new one is asked for twice.
func (g *globals) passphrase(ctx context.Context, file string, fresh bool) ([]byte, error) {
	for _, name := range []string{"DAVIT_PASSWORD", "COSIGN_PASSWORD"} {
		if secret, ok := os.LookupEnv(name); ok {
			return []byte(secret), nil
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
