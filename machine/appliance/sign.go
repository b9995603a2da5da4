package appliance

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// A Key signs the manifests of packages.
type Key struct {
	private *rsa.PrivateKey
	chain   []*x509.Certificate // that of the key first
}

// ParseKey returns the key of a PEM file: a private key and the certificates
// that vouch for it, in any order. Text and blocks of other kinds are skipped.
//
// The key is RSA. Products that read packages verify nothing else, and
// signatures of other kinds are different each time.
func ParseKey(file []byte) (*Key, error) {
	k := new(Key)
	for block, rest := pem.Decode(file); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "CERTIFICATE":
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("certificate %d: %w", len(k.chain), err)
			}
			k.chain = append(k.chain, cert)
		case "RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY":
			if k.private != nil {
				return nil, errors.New("there are two private keys")
			}
			var err error
			if k.private, err = parsePrivate(block); err != nil {
				return nil, err
			}
		}
	}
	if k.private == nil {
		return nil, errors.New("there is no private key in PEM")
	}
	return k, k.sortChain()
}

func parsePrivate(block *pem.Block) (*rsa.PrivateKey, error) {
	if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
		return nil, errors.New("the private key is encrypted")
	}
	if block.Type == "EC PRIVATE KEY" {
		return nil, errors.New("the private key is not RSA")
	}
	if block.Type == "RSA PRIVATE KEY" {
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("the private key: %w", err)
		}
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the private key: %w", err)
	}
	private, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the private key is not RSA")
	}
	return private, nil
}

// sortChain brings the certificate of the key to the front, and behind each the
// one that issued it. What belongs to none of them is an error: a package that
// is signed is not to carry what nobody looked at.
func (k *Key) sortChain() error {
	rest := k.chain
	k.chain = nil
	take := func(fits func(*x509.Certificate) bool) bool {
		for i, c := range rest {
			if fits(c) {
				k.chain = append(k.chain, c)
				rest = append(rest[:i:i], rest[i+1:]...)
				return true
			}
		}
		return false
	}
	if !take(func(c *x509.Certificate) bool { return k.private.PublicKey.Equal(c.PublicKey) }) {
		return errors.New("no certificate is that of the private key")
	}
	for len(rest) > 0 {
		last := k.chain[len(k.chain)-1]
		if !take(func(c *x509.Certificate) bool { return last.CheckSignatureFrom(c) == nil }) {
			return fmt.Errorf("certificate %q is not of the chain", rest[0].Subject)
		}
	}
	return nil
}

// certificate returns the certificate file of a manifest (DSP0243, "Integrity
// and authenticity"): the signature in the spelling of a digest, then the chain.
func (k *Key) certificate(name string, manifest []byte) ([]byte, error) {
	sum := sha256.Sum256(manifest)
	signature, err := rsa.SignPKCS1v15(nil, k.private, crypto.SHA256, sum[:])
	if err != nil {
		return nil, fmt.Errorf("signing the manifest: %w", err)
	}
	return k.certificateFile(name, signature), nil
}

func (k *Key) certificateFile(name string, signature []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "SHA256(%s)= %x\n", name, signature)
	for _, c := range k.chain {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

// certificateSize is the length of every certificate file of the key.
func (k *Key) certificateSize(name string) int {
	return len(k.certificateFile(name, make([]byte, k.private.Size())))
}
