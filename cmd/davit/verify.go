package main

import (
	"context"
	"fmt"
	"io"

	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/verify"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

type verifyOptions struct {
	*globals
	registryFlags
	trustFlags
}

func newVerify(g *globals) *cobra.Command {
	o := verifyOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "verify REF",
		Short: "Say whether an artifact is signed by someone you trust",
		Long: `Say whether an artifact is signed by someone you trust, and how that is known.

The chain of trust is printed on stderr, the digest that passed on stdout.`,
		Args: exactArgs("REF"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runVerify(cmd.Context(), cmd.OutOrStdout(), args[0], o)
		},
	}
	o.registryFlags.flags(cmd)
	o.trustFlags.flags(cmd)
	return cmd
}

type verifyReport struct {
	report
	Verdict    string             `json:"verdict"` // "accepted", "refused"
	Reasons    []reason           `json:"reasons,omitempty"`
	Ref        string             `json:"ref"`
	Digest     digest.Digest      `json:"digest,omitempty"`
	Chain      []verify.Link      `json:"chain"`
	Policies   []struct{}         `json:"policies"` // none yet
	Signatures []verify.Signature `json:"signatures"`
}

func runVerify(ctx context.Context, stdout io.Writer, name string, o verifyOptions) (err error) {
	ref, err := parseRef(name)
	if err != nil {
		return err
	}
	r := verifyReport{report: newReport("davit verify"), Verdict: "accepted", Ref: ref.String(), Policies: []struct{}{}}
	defer func() {
		// A refusal is a result, too: it says as much as there is to say.
		if reasons := refusals(err); len(reasons) > 0 && o.json {
			r.Verdict, r.Reasons = "refused", reasons
			r.Chain, r.Signatures = list(r.Chain), list(r.Signatures)
			writeJSON(stdout, r)
		}
	}()

	trust, err := o.trustFlags.resolve(o.globals, ref)
	if err != nil {
		return err
	}
	repo, err := o.open(ctx, o.globals, ref)
	if err != nil {
		return err
	}
	defer closeInto(&err, repo)
	desc, err := repo.Resolve(ctx, "")
	if err != nil {
		return err
	}
	r.Ref, r.Digest = ref.WithDigest(desc.Digest).String(), desc.Digest

	passed, err := o.check(ctx, &r, repo, desc, trust)
	if err != nil {
		return err
	}
	r.Chain, r.Signatures = list(passed.Chain), list(passed.Signatures)
	if o.json {
		return writeJSON(stdout, r)
	}
	_, err = fmt.Fprintln(stdout, r.Ref)
	return err
}

// check decides, prints the chain, and leaves in r what a refusal knows.
func (o *verifyOptions) check(ctx context.Context, r *verifyReport, repo *registry.Repository, desc ocispec.Descriptor, t trust) (*trusted, error) {
	passed, err := t.artifact(ctx, o.globals, repo, desc)
	var untrusted *verify.UntrustedError
	if asError(err, &untrusted) {
		r.Chain, r.Signatures = untrusted.Chain, untrusted.Signatures
		o.printChain(untrusted.Chain)
	}
	if err != nil {
		return nil, err
	}
	o.printChain(passed.Chain)
	return passed, nil
}

func (g *globals) printChain(chain []verify.Link) {
	if g.quiet {
		return
	}
	for _, link := range chain {
		mark := "ok     "
		if !link.OK {
			mark = "refused"
		}
		g.stderr.line("%s  %s %s: %s", mark, link.Link, link.Subject, link.Why)
	}
}
