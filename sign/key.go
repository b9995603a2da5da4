package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/davit-oci/davit/internal/bundle"
	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Errors of [LoadKey].
var (
	// ErrPassphrase is returned when a key does not open with the passphrase. Authenticated encryption cannot tell a wrong
	// passphrase from a damaged file.
	ErrPassphrase = errors.New("wrong passphrase, or a damaged key file")

	// ErrPassphraseRequired is returned for an encrypted key when there is no way to ask for a passphrase.
	ErrPassphraseRequired = errors.New("the key is encrypted and no passphrase was given")

	// ErrPublicKey is returned for a file that holds a public key.
	ErrPublicKey = errors.New("this is a public key; signing needs the private one")
)

// PEM types of the encrypted key files of cosign: now, and before version 2.
const (
	pemSigstore = "ENCRYPTED SIGSTORE PRIVATE KEY"
	pemCosign   = "ENCRYPTED COSIGN PRIVATE KEY"
)

// maxKeyFile bounds what is parsed as a key, so that a disk image named by mistake is not decoded as PEM.
const maxKeyFile = 64 << 10

// A Key signs. It is safe for concurrent use; its zero value cannot sign.
type Key struct {
	signer signature.Signer
	public crypto.PublicKey
	hint   string
}

// PublicPEM returns the public key, as a file that package verify and cosign load.
func (k *Key) PublicPEM() ([]byte, error) {
	return cryptoutils.MarshalPublicKeyToPEM(k.public)
}

// Hint names the key in bundles: base64 of the SHA-256 of its public key.
func (k *Key) Hint() string {
	return k.hint
}

// GenerateKey makes an ECDSA P-256 key. private is cosign's encrypted key file (scrypt with N = 65536, then NaCl secretbox) and
// public a PEM file. An empty passphrase encrypts too, as in cosign, and protects nothing.
func GenerateKey(passphrase []byte) (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generating key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding private key: %w", err)
	}
	sealed, err := encrypted.Encrypt(der, passphrase)
	if err != nil {
		return nil, nil, fmt.Errorf("encrypting private key: %w", err)
	}
	public, err = cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("encoding public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemSigstore, Bytes: sealed}), public, nil
}

// LoadKey reads a private key: cosign's encrypted file, or plain PEM (PKCS #8, SEC 1, PKCS #1) with an ECDSA key on a NIST
// curve, an Ed25519 key, or an RSA key of 2048, 3072 or 4096 bits. passphrase is called at most once, and only when the key is
// encrypted and the rest of the file is sound. Errors to tell apart: [ErrPassphrase], [ErrPassphraseRequired], [ErrPublicKey],
// and whatever passphrase returns.
func LoadKey(data []byte, passphrase func() ([]byte, error)) (*Key, error) {
	block, err := onePrivateBlock(data)
	if err != nil {
		return nil, err
	}
	var private any
	switch block.Type {
	case pemSigstore, pemCosign:
		private, err = decrypt(block.Bytes, passphrase)
	case "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PUBLIC KEY", "RSA PUBLIC KEY":
		return nil, ErrPublicKey
	default:
		return nil, fmt.Errorf("reading key: PEM type %q is not one of a private key that davit knows", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("reading key: %w", err)
	}
	return newKey(private)
}

// onePrivateBlock returns the key's block. A file with two keys is refused: which of them signs must not depend on the reader.
func onePrivateBlock(data []byte) (*pem.Block, error) {
	if len(data) > maxKeyFile {
		return nil, fmt.Errorf("reading key: %d bytes are too many for a key file", len(data))
	}
	var found *pem.Block
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		switch {
		case block == nil && found == nil:
			return nil, errors.New("reading key: not a PEM file")
		case block == nil:
			return found, nil
		case block.Type == "EC PARAMETERS":
			// openssl ecparam -genkey writes the curve's name before the key, which names it again.
		case found != nil:
			return nil, errors.New("reading key: the file holds more than one key")
		default:
			found = block
		}
	}
}

// decrypt opens the content of an encrypted key file. Its shape is checked first, so that what remains to go wrong in the
// library, which has no error values, is the passphrase, and so that nobody is asked for the passphrase of a broken file.
func decrypt(sealed []byte, passphrase func() ([]byte, error)) (any, error) {
	var shape struct {
		KDF struct {
			Name   string `json:"name"`
			Params struct {
				N int `json:"N"`
				R int `json:"r"`
				P int `json:"p"`
			} `json:"params"`
		} `json:"kdf"`
		Cipher struct {
			Name  string `json:"name"`
			Nonce []byte `json:"nonce"`
		} `json:"cipher"`
	}
	if err := json.Unmarshal(sealed, &shape); err != nil {
		return nil, fmt.Errorf("encrypted key: %w", err)
	}
	n := shape.KDF.Params.N
	switch {
	case shape.KDF.Name != "scrypt", shape.Cipher.Name != "nacl/secretbox":
		return nil, fmt.Errorf("encrypted key: %q with %q is not cosign's encryption", shape.KDF.Name, shape.Cipher.Name)
	// The three strengths that the library knows. Any other could be a file that wants all memory.
	case n != 1<<15 && n != 1<<16 && n != 1<<17, shape.KDF.Params.R != 8, shape.KDF.Params.P != 1:
		return nil, errors.New("encrypted key: unknown scrypt parameters")
	case len(shape.Cipher.Nonce) != 24:
		return nil, fmt.Errorf("encrypted key: nonce of %d bytes", len(shape.Cipher.Nonce))
	}

	if passphrase == nil {
		return nil, ErrPassphraseRequired
	}
	secret, err := passphrase()
	if err != nil {
		return nil, fmt.Errorf("asking for the passphrase: %w", err)
	}
	der, err := encrypted.Decrypt(sealed, secret)
	if err != nil {
		return nil, ErrPassphrase
	}
	return x509.ParsePKCS8PrivateKey(der)
}

func newKey(private any) (*Key, error) {
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("reading key: a %T cannot sign", private)
	}
	public := signer.Public()
	if err := bundle.CheckKey(public); err != nil {
		return nil, fmt.Errorf("reading key: %w", err)
	}
	// SHA-256 for every curve, and Ed25519 without a hash before it: this is what "cosign verify --key" expects unless it is told
	// otherwise, though "cosign sign" itself writes SHA-384 for P-384 and Ed25519ph, which its own verify then refuses.
	s, err := signature.LoadSigner(private, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("reading key: %w", err)
	}
	hint, err := bundle.KeyHint(public)
	if err != nil {
		return nil, err
	}
	return &Key{signer: s, public: public, hint: hint}, nil
}
