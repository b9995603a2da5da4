package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/sign"
	"github.com/davit-oci/davit/verify"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// trustFlags says whose signatures count.
type trustFlags struct {
	keys     []string
	bind     string
	policies []string

	// Of pull alone.
	pull       bool // REF@DIGEST is a trust source, too
	unverified bool
}

func (t *trustFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&t.keys, "key", nil, "public key `FILE`; again: any of them")
	f.StringVar(&t.bind, "bind", "", "`REPO` that the signature must name, or any")
	// Known so that it is refused for what it is, and never ignored.
	f.StringArrayVar(&t.policies, "policy", nil, "")
	f.Lookup("policy").Hidden = true
}

// pullFlags are the flags of pull, which can also do without a signature.
func (t *trustFlags) pullFlags(cmd *cobra.Command) {
	t.pull = true
	t.flags(cmd)
	cmd.Flags().BoolVar(&t.unverified, "unverified", false, "accept the artifact unsigned")
}

// A trust is the decision whom to believe, made before anything is fetched.
// The zero value believes nobody.
type trust struct {
	policy     verify.Policy
	pinned     digest.Digest // the reference names it; empty: the policy decides
	unverified bool          // anything goes
}

// resolve decides whose signatures count for ref: the flags', else the
// environment's, else the configuration's. The system's policy always counts
// as well, and this build cannot evaluate policies: where there is one, the
// answer is no.
func (t *trustFlags) resolve(g *globals, ref registry.Reference) (trust, error) {
	given := len(t.keys) > 0 || len(t.policies) > 0
	if t.unverified && given {
		return trust{}, usagef("--unverified and --key: one of them")
	}
	if t.bind != "" && t.unverified {
		return trust{}, usagef("--unverified and --bind: one of them")
	}
	bind, err := parseBind(t.bind)
	if err != nil {
		return trust{}, err
	}
	keys, err := loadPublicKeys(t.keys)
	if err != nil {
		return trust{}, err
	}

	switch {
	case g.config.systemPolicy:
		return trust{}, policyError("the policy of this system, in " + g.system)
	case len(t.policies) > 0:
		return trust{}, policyError("--policy")
	case given:
		p := verify.Policy{Keys: keys, Bind: bind}
		if ref.Digest == "" { // a digest is what it is, whatever tags lead there
			p.Tag = ref.TagOrLatest()
		}
		if ref.Kind == registry.Remote {
			p.Name = ref.Name()
		}
		return trust{policy: p}, nil
	case t.unverified && g.config.ForbidUnverified != nil && *g.config.ForbidUnverified:
		return trust{}, refusedError{"unverified-forbidden", errors.New("--unverified: the configuration forbids it")}
	case t.unverified:
		return trust{unverified: true}, nil
	case os.Getenv("DAVIT_POLICY") != "":
		return trust{}, policyError("$DAVIT_POLICY")
	case len(g.config.Policy) > 0:
		return trust{}, policyError("the policy of the configuration")
	case t.pull && ref.Digest != "":
		return trust{pinned: ref.Digest}, nil
	}
	return trust{}, t.noTrustSource(ref)
}

func policyError(where string) error {
	return refusedError{string(unsupportedPolicy), fmt.Errorf("%s: this build of davit cannot evaluate policies, so it refuses", where)}
}

// unsupportedPolicy is the reason code where a policy decides that nobody can evaluate.
const unsupportedPolicy verify.Code = "policy-unsupported"

// noTrustSource says what can be done about it.
func (t *trustFlags) noTrustSource(ref registry.Reference) error {
	ways, hint := "--key FILE says whose signatures count", "davit verify --key FILE REF"
	if t.pull {
		ways += "; REF@DIGEST pins what is pulled; --unverified accepts anything"
		hint = "davit pull --key FILE REF DEST, or davit pull REF@DIGEST DEST, or davit pull --unverified REF DEST"
	}
	return withHint(refusedError{string(verify.NoTrustSource), fmt.Errorf("%s: no trust source: %s", ref, ways)}, "%s", hint)
}

// parseBind reads the value of --bind.
func parseBind(s string) (string, error) {
	if s == "" || s == verify.BindAny {
		return s, nil
	}
	ref, err := parseRepo(s)
	if err != nil {
		return "", err
	}
	if ref.Kind != registry.Remote {
		return "", usagef("--bind %s: not HOST/REPO", s)
	}
	return ref.Name(), nil
}

// artifact fetches the manifest desc and decides. The warnings of the result
// have been told.
func (t trust) artifact(ctx context.Context, g *globals, repo *registry.Repository, desc ocispec.Descriptor) (*verify.Result, error) {
	passed, err := t.decide(ctx, repo, desc)
	if err != nil {
		return nil, err
	}
	for _, w := range passed.Warnings {
		g.stderr.warn("%s", w)
	}
	return passed, nil
}

func (t trust) decide(ctx context.Context, repo *registry.Repository, desc ocispec.Descriptor) (*verify.Result, error) {
	switch {
	case t.unverified:
		passed, err := verify.Unverified(ctx, repo, desc)
		if err != nil {
			return nil, err
		}
		passed.Warnings = append(passed.Warnings, fmt.Sprintf("%s is used unverified: whoever can write to the registry can have put anything there",
			repo.Reference().WithDigest(desc.Digest)))
		return passed, nil
	case t.pinned != "":
		return verify.Pinned(ctx, repo, desc, t.pinned)
	}
	return verify.Artifact(ctx, repo, desc, t.policy)
}

// verifiedBy is what the JSON of pull says about trust.
func verifiedBy(passed *verify.Result) any {
	return struct {
		By         verify.Voucher     `json:"by"`
		Signatures []verify.Signature `json:"signatures"`
	}{passed.Subject.VouchedBy(), list(passed.Signatures)}
}

// loadPublicKeys reads the files of --key for those who verify.
func loadPublicKeys(paths []string) ([]*verify.Key, error) {
	var keys []*verify.Key
	for _, path := range paths {
		data, err := readKeyFile(path)
		if err != nil {
			return nil, err
		}
		key, err := verify.LoadPublicKey(data)
		if errors.Is(err, verify.ErrPrivateKey) {
			return nil, withHint(fmt.Errorf("%s: %w", path, err), "davit key public --key %s", path)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// The largest key file. It keeps an image that was named by mistake out of memory.
const maxKeyFile = 1 << 20

func readKeyFile(path string) ([]byte, error) {
	if path == "" {
		return nil, usagef("--key: no file given")
	}
	if strings.Contains(path, "://") {
		return nil, usagef("--key %s: this build of davit reads keys from files only", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("%s: too large for a key", path)
	}
	return data, nil
}

// signerFlags says who signs.
type signerFlags struct {
	keys []string
}

func (s *signerFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&s.keys, "key", nil, "private key `FILE` to sign with; again: with each of them")
}

// load reads the keys, asking for passphrases where needed. It returns at least one.
func (s *signerFlags) load(ctx context.Context, g *globals) ([]*sign.Key, error) {
	if len(s.keys) == 0 {
		return nil, withHint(usagef("--key is missing: a signature needs a key"), "davit key generate")
	}
	var keys []*sign.Key
	for _, path := range s.keys {
		key, err := loadSigningKey(ctx, g, path)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func loadSigningKey(ctx context.Context, g *globals, path string) (*sign.Key, error) {
	data, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	key, err := sign.LoadKey(data, func() ([]byte, error) { return g.passphrase(ctx, path, false) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// attachSignatures signs subject with every key and pushes the signatures
// beside desc. Each is read back and verified before the next step builds on
// it. It returns the digests of the bundles.
func attachSignatures(ctx context.Context, repo *registry.Repository, desc ocispec.Descriptor, keys []*sign.Key, subject sign.Subject) ([]digest.Digest, error) {
	var bundles []digest.Digest
	for _, key := range keys {
		bundle, err := sign.Bundle(ctx, key, subject)
		if err != nil {
			return nil, err
		}
		manifest, blobs, err := sign.Referrer(desc, bundle, time.Now())
		if err != nil {
			return nil, err
		}
		for _, b := range blobs {
			if err := repo.Push(ctx, b.Descriptor, strings.NewReader(string(b.Data))); err != nil {
				return nil, fmt.Errorf("pushing signature: %w", err)
			}
		}
		if err := repo.PushReferrer(ctx, manifest.Descriptor, manifest.Data); err != nil {
			return nil, fmt.Errorf("pushing signature: %w", err)
		}
		signed := digest.FromBytes(bundle)
		if err := readBack(ctx, repo, desc, key, signed); err != nil {
			return nil, fmt.Errorf("reading signature %s back: %w", signed, err)
		}
		bundles = append(bundles, signed)
	}
	return bundles, nil
}

// readBack verifies, as a stranger would, that the signature just made counts.
func readBack(ctx context.Context, repo *registry.Repository, desc ocispec.Descriptor, key *sign.Key, bundle digest.Digest) error {
	public, err := publicKey(key)
	if err != nil {
		return err
	}
	result, err := verify.Artifact(ctx, repo, desc, verify.Policy{Keys: []*verify.Key{public}, Bind: verify.BindAny})
	if err != nil {
		return err
	}
	for _, s := range result.Signatures {
		if s.Digest == bundle && s.Counted {
			return nil
		}
	}
	return errors.New("the registry does not list it")
}

// publicKey is the half of key that verifies.
func publicKey(key *sign.Key) (*verify.Key, error) {
	pem, err := key.PublicPEM()
	if err != nil {
		return nil, err
	}
	return verify.LoadPublicKey(pem)
}
