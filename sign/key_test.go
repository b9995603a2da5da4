package sign_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/davit-oci/davit/sign"
	"github.com/opencontainers/go-digest"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
)

// plainKeys makes one key of each kind, once: RSA keys are slow.
var plainKeys = sync.OnceValue(func() map[string][]byte {
	keys := make(map[string][]byte)
	add := func(name, pemType string, der []byte, err error) {
		if err != nil {
			panic(err)
		}
		keys[name] = pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})
	}
	ec := func(c elliptic.Curve) *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			panic(err)
		}
		return key
	}
	pkcs8 := func(name string, key any) {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		add(name, "PRIVATE KEY", der, err)
	}
	p256 := ec(elliptic.P256())
	pkcs8("p256", p256)
	pkcs8("p384", ec(elliptic.P384()))
	pkcs8("p521", ec(elliptic.P521()))
	pkcs8("p224", ec(elliptic.P224()))
	der, err := x509.MarshalECPrivateKey(p256)
	add("sec1", "EC PRIVATE KEY", der, err)

	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	pkcs8("ed25519", ed)
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	pkcs8("rsa2048", big)
	add("pkcs1", "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(big), nil)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		panic(err)
	}
	pkcs8("rsa1024", small)
	der, err = x509.MarshalPKIXPublicKey(p256.Public())
	add("public", "PUBLIC KEY", der, err)
	add("certificate", "CERTIFICATE", []byte("x"), nil)
	add("pbes2", "ENCRYPTED PRIVATE KEY", []byte("x"), nil)
	add("garbage", "PRIVATE KEY", []byte("x"), nil)
	return keys
})

func plainPEM(t *testing.T, name string) []byte {
	t.Helper()
	data, ok := plainKeys()[name]
	if !ok {
		t.Fatalf("no key %q", name)
	}
	return bytes.Clone(data)
}

func answer(s string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(s), nil }
}

func TestLoadKeyPlain(t *testing.T) {
	mustNotAsk := func() ([]byte, error) {
		t.Error("asked for the passphrase of a key that is not encrypted")
		return nil, nil
	}
	for _, name := range []string{"p256", "p384", "p521", "sec1", "ed25519", "rsa2048", "pkcs1"} {
		t.Run(name, func(t *testing.T) {
			key, err := sign.LoadKey(plainPEM(t, name), mustNotAsk)
			if err != nil {
				t.Fatal(err)
			}
			public, err := key.PublicPEM()
			if err != nil || !strings.HasPrefix(string(public), "-----BEGIN PUBLIC KEY-----\n") {
				t.Errorf("public key %q, %v", public, err)
			}
			if _, err := sign.Bundle(t.Context(), key, sign.Subject{Digest: digest.FromString("x")}); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("openssl's EC PARAMETERS before the key", func(t *testing.T) {
		data := append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), plainPEM(t, "sec1")...)
		if _, err := sign.LoadKey(data, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestLoadKeyRefuses(t *testing.T) {
	for _, name := range []string{"p224", "rsa1024", "public", "certificate", "pbes2", "garbage"} {
		t.Run(name, func(t *testing.T) {
			if _, err := sign.LoadKey(plainPEM(t, name), answer("")); err == nil {
				t.Error("loaded")
			} else if got, want := errors.Is(err, sign.ErrPublicKey), name == "public"; got != want {
				t.Errorf("%v: is ErrPublicKey: %t, want %t", err, got, want)
			}
		})
	}
	for name, data := range map[string][]byte{
		"empty":           nil,
		"not PEM":         []byte("hello"),
		"two keys":        append(plainPEM(t, "p256"), plainPEM(t, "p384")...),
		"a file too big":  append(plainPEM(t, "p256"), make([]byte, 64<<10)...),
		"private, public": append(plainPEM(t, "p256"), plainPEM(t, "public")...),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := sign.LoadKey(data, answer("")); err == nil {
				t.Error("loaded")
			}
		})
	}
}

func TestGenerateKey(t *testing.T) {
	private, public, err := sign.GenerateKey([]byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(private)
	if block == nil || block.Type != "ENCRYPTED SIGSTORE PRIVATE KEY" || len(rest) != 0 {
		t.Fatalf("not cosign's file: %s", private)
	}
	if !bytes.Contains(block.Bytes, []byte(`{"kdf":{"name":"scrypt","params":{"N":65536,"r":8,"p":1}`)) {
		t.Errorf("not cosign's parameters: %s", block.Bytes)
	}
	asked := 0
	key, err := sign.LoadKey(private, func() ([]byte, error) { asked++; return []byte("correct horse"), nil })
	if err != nil {
		t.Fatal(err)
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
	if got, err := key.PublicPEM(); err != nil || !bytes.Equal(got, public) {
		t.Errorf("PublicPEM is %s, %v\nGenerateKey said %s", got, err, public)
	}
	if _, err := sign.LoadKey(private, answer("incorrect horse")); !errors.Is(err, sign.ErrPassphrase) {
		t.Errorf("wrong passphrase: %v", err)
	}
	if _, err := sign.LoadKey(private, nil); !errors.Is(err, sign.ErrPassphraseRequired) {
		t.Errorf("nobody to ask: %v", err)
	}
	cancelled := errors.New("cancelled")
	if _, err := sign.LoadKey(private, func() ([]byte, error) { return nil, cancelled }); !errors.Is(err, cancelled) {
		t.Errorf("cancelled prompt: %v", err)
	}
}

// testdata/cosign.key was made by cosign 3.1.3 generate-key-pair with the passphrase "hunter2".
func TestLoadKeyOfCosign(t *testing.T) {
	data, err := os.ReadFile("testdata/cosign.key")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/cosign.pub")
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.LoadKey(data, answer("hunter2"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := key.PublicPEM(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	if got, want := key.Hint(), "myfqEhk56S2VhNgzU9jZwQVg89WtBS0QLg4svRYvnhI="; got != want {
		t.Errorf("hint %s, cosign writes %s", got, want)
	}
}

// cosign 1 wrote another header and the first of scrypt's strengths.
func TestLoadKeyOfOldCosign(t *testing.T) {
	block, _ := pem.Decode(plainPEM(t, "p256"))
	sealed, err := encrypted.EncryptWithCustomKDFParameters(block.Bytes, []byte("old"), encrypted.Legacy)
	if err != nil {
		t.Fatal(err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED COSIGN PRIVATE KEY", Bytes: sealed})
	if _, err := sign.LoadKey(data, answer("old")); err != nil {
		t.Error(err)
	}
}

// A file that cannot be opened with any passphrase is refused before anyone is asked for one.
func TestLoadKeyDoesNotAskForNothing(t *testing.T) {
	const good = `{"kdf":{"name":"scrypt","params":{"N":65536,"r":8,"p":1},"salt":"AAAA"},` +
		`"cipher":{"name":"nacl/secretbox","nonce":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},"ciphertext":"AAAA"}`
	file := func(content string) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED SIGSTORE PRIVATE KEY", Bytes: []byte(content)})
	}
	if _, err := sign.LoadKey(file(good), answer("x")); !errors.Is(err, sign.ErrPassphrase) {
		t.Errorf("well-formed: %v, want ErrPassphrase", err)
	}
	for name, edit := range map[string][2]string{
		"not JSON":               {good, "{"},
		"other KDF":              {"scrypt", "argon2"},
		"other cipher":           {"nacl/secretbox", "aes"},
		"4 TiB of scrypt memory": {"65536", "4294967296"},
		"weak scrypt":            {"65536", "2"},
		"other block size":       {`"r":8`, `"r":800`},
		"other parallelism":      {`"p":1`, `"p":100`},
		"short nonce":            {`"nonce":"AAAA`, `"nonce":"`},
	} {
		t.Run(name, func(t *testing.T) {
			broken := strings.Replace(good, edit[0], edit[1], 1)
			if broken == good {
				t.Fatal("the edit changes nothing")
			}
			_, err := sign.LoadKey(file(broken), func() ([]byte, error) {
				t.Error("asked")
				return nil, nil
			})
			if err == nil || errors.Is(err, sign.ErrPassphrase) {
				t.Errorf("%v, want another error than ErrPassphrase", err)
			}
		})
	}
}
