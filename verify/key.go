package verify

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/davit-oci/davit/internal/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"
)

// ErrPrivateKey is returned by [LoadPublicKey] for a file that holds a private key.
var ErrPrivateKey = errors.New("this is a private key; use the .pub")

// maxKeyFile bounds what is parsed as a key, so that a disk image named by mistake is not decoded as PEM.
const maxKeyFile = 64 << 10

// A Key is a public key whose signatures count. It is safe for concurrent use; its zero value trusts nothing.
type Key struct {
	hint     string
	material []root.TrustedMaterial // one for each way that the key may sign
}

// Hint names the key: base64 of the SHA-256 of its DER encoding.
func (k *Key) Hint() string {
	return k.hint
}

func (k *Key) usable() bool {
	return k != nil && len(k.material) > 0
}

// LoadPublicKey reads a PEM file with one public key (PKIX): ECDSA on a NIST curve, Ed25519, or RSA of 2048, 3072 or 4096 bits.
// A private key, encrypted or not, is refused with [ErrPrivateKey]: who verifies should not hold one.
func LoadPublicKey(data []byte) (*Key, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("reading public key: %d bytes are too many for a key file", len(data))
	}
	block, rest := pem.Decode(data)
	if block == nil {
		return nil, errors.New("reading public key: not a PEM file")
	}
	switch {
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, fmt.Errorf("reading public key: %w", ErrPrivateKey)
	case block.Type != "PUBLIC KEY":
		return nil, fmt.Errorf("reading public key: PEM type %q, not PUBLIC KEY", block.Type)
	}
	// Whoever appends a key to a file must not be ignored, nor trusted by accident.
	if more, _ := pem.Decode(rest); more != nil {
		return nil, errors.New("reading public key: the file holds more than one")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading public key: %w", err)
	}
	return newKey(public)
}

func newKey(public crypto.PublicKey) (*Key, error) {
	if err := bundle.CheckKey(public); err != nil {
		return nil, fmt.Errorf("reading public key: %w", err)
	}
	hint, err := bundle.KeyHint(public)
	if err != nil {
		return nil, err
	}
	// cosign verify expects SHA-256 for every curve and Ed25519 without a hash before it, and package sign writes that; cosign sign
	// writes the hash of the curve's own size, and Ed25519ph. Each is as strong as its key, so both count.
	ways := [][]signature.LoadOption{{options.WithHash(crypto.SHA256)}}
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		switch key.Params().BitSize {
		case 384:
			ways = append(ways, []signature.LoadOption{options.WithHash(crypto.SHA384)})
		case 521:
			ways = append(ways, []signature.LoadOption{options.WithHash(crypto.SHA512)})
		}
	case ed25519.PublicKey:
		ways = append(ways, []signature.LoadOption{options.WithED25519ph()})
	}
	key := &Key{hint: hint}
	for _, way := range ways {
		v, err := signature.LoadVerifierWithOpts(public, way...)
		if err != nil {
			return nil, fmt.Errorf("reading public key: %w", err)
		}
		expiring := root.NewExpiringKey(v, time.Time{}, time.Time{}) // keys that do not expire
		key.material = append(key.material, root.NewTrustedPublicKeyMaterial(
			func(string) (root.TimeConstrainedVerifier, error) { return expiring, nil }))
	}
	return key, nil
}
