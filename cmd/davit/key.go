package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/sign"
	"github.com/spf13/cobra"
)

func newKey(g *globals) *cobra.Command {
	return newGroup("key", "Make keys for signing, and print public ones", newKeyGenerate(g), newKeyPublic(g))
}

type keyGenerateOptions struct {
	*globals
	out string
}

func newKeyGenerate(g *globals) *cobra.Command {
	o := keyGenerateOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Make a key pair for signing",
		Long: `Make a key pair for signing: PREFIX.key, encrypted with a passphrase, and
PREFIX.pub for those who verify. cosign reads both. Files are never overwritten.

The passphrase is $DAVIT_PASSWORD, else $COSIGN_PASSWORD, else asked for.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runKeyGenerate(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	cmd.Flags().StringVarP(&o.out, "out", "o", "davit", "`PREFIX` of the two files")
	return cmd
}

type keyGenerateReport struct {
	report
	Private string `json:"private"`
	Public  string `json:"public"`
}

func runKeyGenerate(ctx context.Context, stdout io.Writer, o keyGenerateOptions) error {
	if o.out == "" {
		return usagef("-o: no prefix given")
	}
	r := keyGenerateReport{newReport("davit key generate"), o.out + ".key", o.out + ".pub"}
	// Before anybody is asked for a passphrase.
	for _, path := range []string{r.Private, r.Public} {
		_, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			_, err = wholefile.Resolve(path)
		} else if err == nil {
			err = fmt.Errorf("%s: %w", path, fs.ErrExist)
		}
		if err != nil {
			return withHint(err, "davit key generate -o PREFIX")
		}
	}
	passphrase, err := o.passphrase(ctx, r.Private, true)
	if err != nil {
		return err
	}
	private, public, err := sign.GenerateKey(passphrase)
	if err != nil {
		return err
	}
	if err := wholefile.WriteNew(r.Private, 0o600, private); err != nil {
		return err
	}
	if err := wholefile.WriteNew(r.Public, 0o644, public); err != nil {
		return errors.Join(err, os.Remove(r.Private))
	}
	if o.json {
		return writeJSON(stdout, r)
	}
	o.say("wrote %s and %s", r.Private, r.Public)
	return nil
}

type keyPublicOptions struct {
	*globals
	key string
}

func newKeyPublic(g *globals) *cobra.Command {
	o := keyPublicOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "public --key FILE",
		Short: "Print the public key of a key pair",
		Args:  exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runKeyPublic(cmd.Context(), cmd.OutOrStdout(), o)
		},
	}
	cmd.Flags().StringVar(&o.key, "key", "", "`FILE` of the private key")
	return cmd
}

func runKeyPublic(ctx context.Context, stdout io.Writer, o keyPublicOptions) error {
	if o.key == "" {
		return usagef("--key is missing")
	}
	key, err := loadSigningKey(ctx, o.globals, o.key)
	if err != nil {
		return err
	}
	pem, err := key.PublicPEM()
	if err != nil {
		return err
	}
	if o.json {
		return writeJSON(stdout, struct {
			report
			Public string `json:"public"`
			Hint   string `json:"keyHint"`
		}{newReport("davit key public"), string(pem), key.Hint()})
	}
	_, err = stdout.Write(pem)
	return err
}
