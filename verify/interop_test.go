package verify_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/davit-oci/davit/internal/programs"
	"github.com/davit-oci/davit/sign"
	"github.com/davit-oci/davit/verify"
	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote"
)

// A cosign is the real program in a home of its own, with a passphrase of its own.
type cosign struct {
	path string
	home string
}

const passphrase = "hunter2"

// newCosign is the cosign 3 that .ci/tools builds.
func newCosign(t *testing.T) cosign {
	t.Helper()
	return cosign{programs.Need(t, "cosign"), t.TempDir()}
}

// run returns what cosign prints to stdout, and its error with what it prints to stderr.
func (c cosign) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.path, args...)
	cmd.Dir = c.home
	cmd.Env = append(os.Environ(), "HOME="+c.home, "DOCKER_CONFIG="+c.home, "COSIGN_PASSWORD="+passphrase)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("cosign %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out), nil
}

func (c cosign) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.run(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// sign signs without a public log, or the world would hear of the test.
func (c cosign) sign(t *testing.T, key, ref string, more ...string) {
	t.Helper()
	c.must(t, append([]string{"sign", "--key", key, "--tlog-upload=false", "--use-signing-config=false", "-y", "--allow-http-registry"}, append(more, ref)...)...)
}

func (c cosign) verify(t *testing.T, key, ref string, more ...string) error {
	t.Helper()
	_, err := c.run(t, append([]string{"verify", "--key", key, "--insecure-ignore-tlog=true", "--allow-http-registry"}, append(more, ref)...)...)
	return err
}

func (c cosign) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.home, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func (c cosign) read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.home, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// A repository is a real one, over a socket, as a Source.
type repository struct {
	*remote.Repository
	name string // HOST/REPO
}

func (r repository) Referrers(ctx context.Context, d ocispec.Descriptor) (all []ocispec.Descriptor, err error) {
	err = r.Repository.Referrers(ctx, d, "", func(page []ocispec.Descriptor) error {
		all = append(all, page...)
		return nil
	})
	return all, err
}

// newRepository starts a registry, with or without the referrers API, that has the manifest of the tests in it.
func newRepository(t *testing.T, referrersAPI bool) (repository, ocispec.Descriptor) {
	t.Helper()
	server := olareg.New(config.Config{
		Storage: config.ConfigStorage{StoreType: config.StoreMem},
		API:     config.ConfigAPI{Referrer: config.ConfigAPIReferrer{Enabled: &referrersAPI}},
	})
	t.Cleanup(func() { server.Close() })
	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)

	name := strings.TrimPrefix(listener.URL, "http://") + "/team/vm"
	repo, err := remote.NewRepository(name)
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	manifest := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.davit.vm.v1",` +
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`)
	subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	pushAll(t, repository{repo, name}, sign.Blob{Descriptor: subject, Data: manifest},
		sign.Blob{Descriptor: ocispec.DescriptorEmptyJSON, Data: []byte("{}")})
	if err := repo.Tag(t.Context(), subject, "v1"); err != nil {
		t.Fatal(err)
	}
	return repository{repo, name}, subject
}

// pushAll pushes the blobs, and the manifest last.
func pushAll(t *testing.T, r repository, manifest sign.Blob, blobs ...sign.Blob) {
	t.Helper()
	for _, b := range append(blobs, manifest) {
		if ok, err := r.Exists(t.Context(), b.Descriptor); err == nil && ok {
			continue
		}
		if err := r.Push(t.Context(), b.Descriptor, bytes.NewReader(b.Data)); err != nil {
			t.Fatal(err)
		}
	}
}

// attachOurs signs with package sign and pushes it.
func attachOurs(t *testing.T, r repository, key *sign.Key, subject ocispec.Descriptor, what sign.Subject) {
	t.Helper()
	bundle, err := sign.Bundle(t.Context(), key, what)
	if err != nil {
		t.Fatal(err)
	}
	manifest, blobs, err := sign.Referrer(subject, bundle, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pushAll(t, r, manifest, blobs...)
}

func TestInteropWithCosign(t *testing.T) {
	c := newCosign(t)

	// One pair from either tool; the other side must read both. scrypt makes this slow, so once for all.
	c.must(t, "generate-key-pair")
	theirs, err := sign.LoadKey(c.read(t, "cosign.key"), func() ([]byte, error) { return []byte(passphrase), nil })
	if err != nil {
		t.Fatal(err)
	}
	private, public, err := sign.GenerateKey([]byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, "davit.key", private)
	c.write(t, "davit.pub", public)
	ours, err := sign.LoadKey(private, func() ([]byte, error) { return []byte(passphrase), nil })
	if err != nil {
		t.Fatal(err)
	}

	t.Run("keys", func(t *testing.T) {
		if got := c.must(t, "public-key", "--key", "davit.key"); got != string(public) {
			t.Errorf("cosign reads our key as %q, want %q", got, public)
		}
		if got, err := theirs.PublicPEM(); err != nil || !bytes.Equal(got, c.read(t, "cosign.pub")) {
			t.Errorf("we read cosign's key as %q, %v", got, err)
		}
	})

	for _, api := range []bool{true, false} {
		t.Run(fmt.Sprintf("referrers API %t", api), func(t *testing.T) {
			t.Run("cosign signs with our key", func(t *testing.T) {
				r, subject := newRepository(t, api)
				c.sign(t, "davit.key", r.name+"@"+subject.Digest.String())
				got := mustAccept(t, r, subject, ours)
				if got.Signatures[0].Name != "" || len(got.Warnings) != 0 {
					t.Errorf("got %+v", got)
				}
				mustRefuse(t, r, subject, verify.Policy{Keys: []*verify.Key{publicOf(t, theirs)}})
				mustRefuse(t, r, subject, verify.Policy{Keys: []*verify.Key{publicOf(t, ours)}, Bind: r.name})
			})
			t.Run("cosign signs with annotations", func(t *testing.T) {
				r, subject := newRepository(t, api)
				c.sign(t, "cosign.key", r.name+"@"+subject.Digest.String(), "-a", "env=prod")
				mustAccept(t, r, subject, theirs)
			})
			t.Run("cosign reads a bare signature", func(t *testing.T) {
				r, subject := newRepository(t, api)
				attachOurs(t, r, theirs, subject, sign.Subject{Digest: subject.Digest})
				if err := c.verify(t, "cosign.pub", r.name+":v1"); err != nil {
					t.Error(err)
				}
				if err := c.verify(t, "davit.pub", r.name+":v1"); err == nil {
					t.Error("cosign verifies with another key: the test shows nothing")
				}
				mustAccept(t, r, subject, theirs)
			})
			t.Run("cosign reads a signature with name, tags and sequence", func(t *testing.T) {
				r, subject := newRepository(t, api)
				attachOurs(t, r, ours, subject, sign.Subject{
					Digest: subject.Digest, Name: r.name, Annotations: annotations(t, 1_800_000_000, "v1", "latest")})
				if err := c.verify(t, "davit.pub", r.name+":v1"); err != nil {
					t.Error(err)
				}
				if err := c.verify(t, "davit.pub", r.name+":v1", "-a", "vnd.davit.sequence=1800000000"); err != nil {
					t.Error(err)
				}
				if err := c.verify(t, "davit.pub", r.name+":v1", "-a", "vnd.davit.sequence=1"); err == nil {
					t.Error("cosign does not see the annotations: the test shows nothing")
				}
				got := mustAccept(t, r, subject, ours)
				if sig := got.Signatures[0]; sig.Name != r.name || !slices.Equal(sig.Tags, []string{"latest", "v1"}) || sig.Sequence != 1_800_000_000 {
					t.Errorf("got %+v", sig)
				}
			})
			t.Run("signatures of both side by side", func(t *testing.T) {
				r, subject := newRepository(t, api)
				attachOurs(t, r, ours, subject, sign.Subject{Digest: subject.Digest, Name: r.name})
				c.sign(t, "cosign.key", r.name+"@"+subject.Digest.String())
				mustAccept(t, r, subject, ours)
				mustAccept(t, r, subject, theirs)
				for _, key := range []string{"davit.pub", "cosign.pub"} {
					if err := c.verify(t, key, r.name+":v1"); err != nil {
						t.Error(err)
					}
				}
			})
			t.Run("attestation only", func(t *testing.T) {
				r, subject := newRepository(t, api)
				c.must(t, "attest", "--key", "cosign.key", "--type", "custom", "--predicate", c.write(t, "p.json", []byte(`{"a":1}`)),
					"--tlog-upload=false", "--use-signing-config=false", "-y", "--allow-http-registry", r.name+"@"+subject.Digest.String())
				e := mustRefuse(t, r, subject, verify.Policy{Keys: []*verify.Key{publicOf(t, theirs)}})
				if e.Reasons[0].Code != verify.NotASignature {
					t.Errorf("got %+v", e.Reasons)
				}
			})
		})
	}

	t.Run("the manifest that attaches it", func(t *testing.T) {
		r, subject := newRepository(t, true)
		c.sign(t, "cosign.key", r.name+"@"+subject.Digest.String())
		got := mustAccept(t, r, subject, theirs)
		listed, err := r.Referrers(t.Context(), subject)
		if err != nil || len(listed) != 1 {
			t.Fatal(listed, err)
		}
		created, err := time.Parse(time.RFC3339, listed[0].Annotations[ocispec.AnnotationCreated])
		if err != nil {
			t.Fatal(err)
		}
		bundle := fetchAll(t, r, ocispec.Descriptor{MediaType: bundleType, Digest: got.Signatures[0].Digest, Size: sizeOf(t, r, got.Signatures[0].Digest)})
		manifest, _, err := sign.Referrer(subject, bundle, created)
		if err != nil {
			t.Fatal(err)
		}
		if want := fetchAll(t, r, listed[0]); !bytes.Equal(manifest.Data, want) {
			t.Errorf("we write  %s\ncosign is  %s", manifest.Data, want)
		}
	})

	// cosign sign hashes by the curve's size and uses Ed25519ph, cosign verify expects neither: see newKey in both packages.
	for _, kind := range []string{"P-384", "Ed25519", "RSA"} {
		t.Run(kind, func(t *testing.T) {
			plain := plainKey(t, kind)
			key, err := sign.LoadKey(plain, nil)
			if err != nil {
				t.Fatal(err)
			}
			c.must(t, "import-key-pair", "--key", c.write(t, kind+".pem", plain), "--output-key-prefix", kind, "-y")

			r, subject := newRepository(t, true)
			c.sign(t, kind+".key", r.name+"@"+subject.Digest.String())
			mustAccept(t, r, subject, key)

			r, subject = newRepository(t, true)
			attachOurs(t, r, key, subject, sign.Subject{Digest: subject.Digest, Name: r.name})
			mustAccept(t, r, subject, key)
			if err := c.verify(t, kind+".pub", r.name+":v1"); err != nil {
				t.Error(err)
			}
		})
	}
}

func mustAccept(t *testing.T, r repository, subject ocispec.Descriptor, key *sign.Key) *verify.Result {
	t.Helper()
	got, err := verify.Artifact(t.Context(), r, subject, verify.Policy{Keys: []*verify.Key{publicOf(t, key)}, Name: r.name})
	if err != nil {
		t.Fatal(err)
	}
	if n := counted(got.Signatures); n != 1 {
		t.Errorf("%d signatures counted in %+v", n, got.Signatures)
	}
	return got
}

func sizeOf(t *testing.T, r repository, d digest.Digest) int64 {
	t.Helper()
	desc, err := r.Blobs().Resolve(t.Context(), d.String())
	if err != nil {
		t.Fatal(err)
	}
	return desc.Size
}

func fetchAll(t *testing.T, r repository, d ocispec.Descriptor) []byte {
	t.Helper()
	rc, err := r.Fetch(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
