package appliance

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	_ "crypto/sha1" // crypto.SHA1.New
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/davit-oci/davit/machine"
)

// maxCertificates limits those in a .cert: a chain has three.
const maxCertificates = 16

// A signature is what a .cert holds.
type signature struct {
	algorithm string // SHA256
	hash      crypto.Hash
	key       string // "RSA" or "EC" where the line says it
	value     []byte
	chain     []*x509.Certificate // the signer's first
	cms       bool                // a second signature, which is not checked
}

// parseCertificate reads a .cert (DSP0243, "Integrity and authenticity"): a
// line as of a manifest, whose value is the signature over the manifest, and
// the signer's certificate in PEM. Certificates of the chain follow.
//
// VirtualBox adds the signature as CMS, for which the standard has no place.
func parseCertificate(data []byte) (*signature, error) {
	if len(data) > maxManifest {
		return nil, machine.Malformed("%d bytes, more than %d", len(data), maxManifest)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	head, blocks := data, []byte(nil)
	if i := bytes.Index(data, []byte("-----BEGIN ")); i >= 0 {
		head, blocks = data[:i], data[i:]
	}
	s := new(signature)
	if err := s.parseCertificates(blocks); err != nil {
		return nil, err
	}
	if err := s.parseLine(head); err != nil {
		return nil, err
	}
	if len(s.chain) == 0 {
		return nil, machine.Malformed("it has no certificate")
	}
	return s, nil
}

// parseLine reads the signature. Its hex may go on in the next lines; after
// them is text about the certificate, as openssl writes some.
func (s *signature) parseLine(head []byte) error {
	line, rest, _ := strings.Cut(strings.TrimSpace(string(head)), "\n")
	if line == "" {
		if s.cms {
			return machine.Unsupported("its signature is CMS (PKCS#7) alone")
		}
		return machine.Malformed("it has no signature")
	}
	algorithm, _, value, err := cutDigest(strings.TrimSpace(line))
	if err != nil {
		return machine.Malformed("%q is no signature", shorten(line))
	}
	if key, plain, ok := strings.Cut(algorithm, "-"); ok { // openssl 3 names the key: RSA-SHA2-256
		s.key = strings.Replace(key, "ECDSA", "EC", 1)
		algorithm = algorithmName(plain)
	}
	for line := range strings.SplitSeq(rest, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.ContainsFunc(line, func(r rune) bool { return !unicode.Is(unicode.ASCII_Hex_Digit, r) }) {
			break
		}
		value += line
	}
	s.algorithm = algorithm
	s.hash = map[string]crypto.Hash{"SHA1": crypto.SHA1, "SHA256": crypto.SHA256, "SHA512": crypto.SHA512}[algorithm]
	if s.hash == 0 || s.key != "" && s.key != "RSA" && s.key != "EC" {
		return machine.Unsupported("a signature of %q", shorten(line[:strings.IndexByte(line, '(')]))
	}
	if s.value, err = hex.DecodeString(value); err != nil || len(s.value) == 0 {
		return machine.Malformed("the signature %q is not hex", shorten(value))
	}
	return nil
}

func (s *signature) parseCertificates(data []byte) error {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == "CERTIFICATE" || block.Type == "X509 CERTIFICATE" || block.Type == "TRUSTED CERTIFICATE":
			if len(s.chain) == maxCertificates {
				return machine.Malformed("more than %d certificates", maxCertificates)
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return machine.Malformed("certificate %d: %w", len(s.chain), err)
			}
			s.chain = append(s.chain, c)
		case block.Type == "CMS" || block.Type == "PKCS7":
			s.cms = true
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return machine.Malformed("there is a private key in it, which is about to be published")
		}
	}
	return nil
}

// check verifies the signature over a manifest, by the first certificate.
func (s *signature) check(manifest []byte) error {
	h := s.hash.New()
	h.Write(manifest)
	sum := h.Sum(nil)
	var err error
	kind := "RSA"
	switch key := s.chain[0].PublicKey.(type) {
	case *rsa.PublicKey:
		err = rsa.VerifyPKCS1v15(key, s.hash, sum, s.value)
	case *ecdsa.PublicKey:
		kind = "EC"
		if !ecdsa.VerifyASN1(key, sum, s.value) {
			err = errors.New("verification error")
		}
	default:
		return machine.Unsupported("a key that is neither RSA nor ECDSA")
	}
	if err == nil && s.key != "" && s.key != kind {
		err = fmt.Errorf("it is said to be of %s, and the key is %s", s.key, kind)
	}
	if err != nil {
		return fmt.Errorf("the signature is not that of %q: %w", printable(s.chain[0].Subject.String()), err)
	}
	return nil
}

// report describes the signer. Roots are those of this system; whom they do not
// vouch for is reported, and not refused: nobody said who is to sign.
func (s *signature) report(name string, roots *x509.CertPool, now time.Time) *Certificate {
	leaf := s.chain[0]
	c := &Certificate{
		Name:       name,
		Subject:    printable(leaf.Subject.String()),
		Issuer:     printable(leaf.Issuer.String()),
		NotBefore:  leaf.NotBefore.UTC(),
		NotAfter:   leaf.NotAfter.UTC(),
		SelfSigned: bytes.Equal(leaf.RawIssuer, leaf.RawSubject),
		Algorithm:  s.algorithm,
		CMS:        s.cms,
	}
	between := x509.NewCertPool()
	for _, i := range s.chain[1:] {
		between.AddCert(i)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, // DSP0243 asks for none
	})
	c.Trusted = err == nil
	c.Chain = "trusted"
	if err != nil {
		c.Chain = "untrusted: " + printable(strings.TrimPrefix(err.Error(), "x509: "))
	}
	return c
}

// printable is s without what a terminal would obey.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '\ufffd'
		}
		return r
	}, s)
}
