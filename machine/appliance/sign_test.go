package appliance

import (
	"archive/tar"
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/davit-oci/davit/internal/programs"
)

// pki is a root, what it vouches for, and a stranger.
type pki struct {
	key                       *rsa.PrivateKey // of leaf
	root, middle, leaf, other []byte          // DER; other is the stranger's
}

var testPKI = sync.OnceValue(func() pki {
	var p pki
	makeKey := func() *rsa.PrivateKey {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		return key
	}
	rootKey, middleKey, strangerKey := makeKey(), makeKey(), makeKey()
	p.key = makeKey()
	serial := int64(0)
	certify := func(name string, ca bool, key *rsa.PrivateKey, issuer *x509.Certificate, issuerKey *rsa.PrivateKey) (*x509.Certificate, []byte) {
		serial++
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IsCA: ca, BasicConstraintsValid: true,
			NotBefore: time.Unix(1700000000, 0), NotAfter: time.Unix(4000000000, 0), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
		if issuer == nil {
			issuer = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, issuer, &key.PublicKey, issuerKey)
		if err != nil {
			panic(err)
		}
		return c, der
	}
	root, der := certify("root", true, rootKey, nil, rootKey)
	p.root = der
	middle, der := certify("middle", true, middleKey, root, rootKey)
	p.middle = der
	_, p.leaf = certify("vendor", false, p.key, middle, middleKey)
	_, p.other = certify("stranger", true, strangerKey, nil, strangerKey)
	return p
})

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func testKey(t *testing.T) *Key {
	t.Helper()
	p := testPKI()
	k, err := ParseKey([]byte(pemOf("PRIVATE KEY", pkcs8(t, p.key)) + pemOf("CERTIFICATE", p.leaf) + pemOf("CERTIFICATE", p.middle)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeys(t *testing.T) {
	p := testPKI()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	key := pemOf("PRIVATE KEY", pkcs8(t, p.key))
	leaf, middle, root, other := pemOf("CERTIFICATE", p.leaf), pemOf("CERTIFICATE", p.middle), pemOf("CERTIFICATE", p.root), pemOf("CERTIFICATE", p.other)
	for _, c := range []struct {
		name, file string
		chain      [][]byte // nil: it is refused
		want       string
	}{
		{"PKCS #8", key + leaf, [][]byte{p.leaf}, ""},
		{"PKCS #1", pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(p.key)) + leaf, [][]byte{p.leaf}, ""},
		{"in any order, with text between", "Bag Attributes\n" + root + "x\n" + middle + leaf + key, [][]byte{p.leaf, p.middle, p.root}, ""},
		{"parameters are skipped", pemOf("DH PARAMETERS", []byte{1}) + key + leaf, [][]byte{p.leaf}, ""},
		{"nothing", "", nil, "no private key"},
		{"certificates alone", leaf, nil, "no private key"},
		{"a key alone", key, nil, "no certificate is that of the private key"},
		{"the certificate of another key", key + other, nil, "no certificate is that of the private key"},
		{"a certificate of no use", key + leaf + middle + other, nil, `certificate "CN=stranger" is not of the chain`},
		{"a chain with a gap", key + leaf + root, nil, `certificate "CN=root" is not of the chain`},
		{"two keys", key + key + leaf, nil, "two private keys"},
		{"an elliptic curve", pemOf("PRIVATE KEY", pkcs8(t, ec)) + leaf, nil, "not RSA"},
		{"an elliptic curve as openssl ecparam writes it", pemOf("EC PRIVATE KEY", sec1) + leaf, nil, "not RSA"},
		{"an encrypted key", pemOf("ENCRYPTED PRIVATE KEY", []byte{1}) + leaf, nil, "is encrypted"},
		{"an encrypted key of old", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n" + leaf, nil, "is encrypted"},
		{"a broken key", pemOf("PRIVATE KEY", []byte{1}) + leaf, nil, "the private key: "},
		{"a broken certificate", key + pemOf("CERTIFICATE", []byte{1}), nil, "certificate 0: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := ParseKey([]byte(c.file))
			if c.chain == nil {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var chain [][]byte
			for _, cert := range k.chain {
				chain = append(chain, cert.Raw)
			}
			if !slices.EqualFunc(chain, c.chain, bytes.Equal) {
				t.Errorf("the chain has %d certificates, or another order", len(chain))
			}
		})
	}
}

// What a package is signed with holds for the standard library and, where there
// is one, for openssl.
func TestCertificateOfPackage(t *testing.T) {
	p := packageOf("disk0.vmdk")
	p.Key = testKey(t)
	files := make(map[string][]byte)
	r := tar.NewReader(bytes.NewReader(newOVA(t, p)))
	for range 3 {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name], _ = io.ReadAll(r)
	}
	line, rest, _ := strings.Cut(string(files["vm.cert"]), "\n")
	value, ok := strings.CutPrefix(line, "SHA256(vm.mf)= ")
	signature, err := hex.DecodeString(value)
	if !ok || err != nil {
		t.Fatalf("the first line is %q", line)
	}
	pki := testPKI()
	if want := pemOf("CERTIFICATE", pki.leaf) + pemOf("CERTIFICATE", pki.middle); rest != want {
		t.Errorf("got the certificates\n%s\nwant\n%s", rest, want)
	}
	sum := sha256.Sum256(files["vm.mf"])
	if err := rsa.VerifyPKCS1v15(&pki.key.PublicKey, crypto.SHA256, sum[:], signature); err != nil {
		t.Error(err)
	}

	openssl := programs.Need(t, "openssl") // for the rest of this test
	dir := t.TempDir()
	public, err := x509.MarshalPKIXPublicKey(&pki.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"vm.mf": files["vm.mf"], "sig": signature, "pub.pem": []byte(pemOf("PUBLIC KEY", public))} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), openssl, "dgst", "-sha256", "-verify", "pub.pem", "-signature", "sig", "vm.mf")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("openssl: %v\n%s", err, out)
	}
}
