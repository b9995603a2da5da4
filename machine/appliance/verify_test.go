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
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/davit-oci/davit/machine"
)

const (
	sum1   = "0123456789abcdef0123456789abcdef01234567"
	sum256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	sum512 = sum256 + sum256
)

func TestSpellingsOfManifests(t *testing.T) {
	for _, test := range []struct{ name, manifest, want string }{
		{"ovftool", "SHA256(x.ovf)= " + sum256 + "\nSHA256(x-disk1.vmdk)= " + sum256 + "\n", "SHA256 x.ovf, SHA256 x-disk1.vmdk"},
		{"openssl 3", "SHA2-256(x.ovf)= " + sum256, "SHA256 x.ovf"},
		{"openssl 3, 512 bits", "SHA2-512(x.ovf)= " + sum512, "SHA512 x.ovf"},
		{"BSD", "SHA1 (x.ovf) = " + sum1, "SHA1 x.ovf"},
		{"sha1sum", sum1 + "  x.ovf\n" + sum1 + "  y.vmdk\n", "SHA1 x.ovf, SHA1 y.vmdk"},
		{"sha256sum of binary", sum256 + " *x.ovf\n", "SHA256 x.ovf"},
		{"sha512sum", sum512 + "  x.ovf\n", "SHA512 x.ovf"},
		{"no spaces", "SHA512(x.ovf)=" + sum512, "SHA512 x.ovf"},
		{"many spaces", "  SHA256 (x.ovf)   =   " + sum256 + "  \t\n", "SHA256 x.ovf"},
		{"lower-case algorithm", "sha256(x.ovf)= " + sum256, "SHA256 x.ovf"},
		{"algorithm with a dash", "SHA-1(x.ovf)= " + sum1, "SHA1 x.ovf"},
		{"upper-case digest", "SHA1(x.ovf)= " + strings.ToUpper(sum1), "SHA1 x.ovf"},
		{"Windows", "\ufeffSHA1(x.ovf)= " + sum1 + "\r\n\r\nSHA1(y.vmdk)= " + sum1 + "\r\n", "SHA1 x.ovf, SHA1 y.vmdk"},
		{"blank lines and a comment", "\n# made by x\n\nSHA1(x.ovf)= " + sum1 + "\n\n", "SHA1 x.ovf"},
		{"spaces in a name", "SHA1(my x.ovf)= " + sum1, "SHA1 my x.ovf"},
		{"parentheses in a name", "SHA1(x (1).ovf)= " + sum1, "SHA1 x (1).ovf"},
		{"= in a name", "SHA1(x)= y.ovf)= " + sum1, "SHA1 x)= y.ovf"},
		{"UTF-8", "SHA1(größe.ovf)= " + sum1, "SHA1 größe.ovf"},
		{"./", "SHA1(./x.ovf)= " + sum1, "SHA1 x.ovf"},
		{"the same line twice", "SHA1(x.ovf)= " + sum1 + "\nSHA1(x.ovf)= " + sum1, "SHA1 x.ovf"},
		{"several algorithms", "SHA1(x.ovf)= " + sum1 + "\nSHA256(y.vmdk)= " + sum256, "SHA1 x.ovf, SHA256 y.vmdk"},
		{"nothing", "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			digests, err := parseManifest([]byte(test.manifest))
			var got []string
			for _, d := range digests {
				got = append(got, d.algorithm+" "+d.name)
				if d.want[0] != 0x01 || d.want[1] != 0x23 {
					t.Errorf("digest %x", d.want)
				}
			}
			if err != nil || strings.Join(got, ", ") != test.want {
				t.Errorf("%q, %v; want %q", got, err, test.want)
			}
		})
	}
}

func TestManifestsThatAreRefused(t *testing.T) {
	for _, test := range []struct {
		name, manifest string
		want           error
	}{
		{"another line", "hello\n", machine.ErrMalformed},
		{"another line after a good one", "SHA1(x.ovf)= " + sum1 + "\nhello\n", machine.ErrMalformed},
		{"two digests of one file", "SHA1(x.ovf)= " + sum1 + "\nSHA1(x.ovf)= " + strings.Repeat("0", 40), ErrDigest},
		{"two digests of one file, but for case", "SHA1(x.ovf)= " + sum1 + "\nSHA1(X.ovf)= " + sum1, machine.ErrMalformed},
		{"two algorithms for one file, but for case", "SHA1(x.ovf)= " + sum1 + "\nSHA256(X.ovf)= " + sum256, machine.ErrMalformed},
		{"two digests of one file among other algorithms", "SHA1(x.ovf)= " + sum1 + "\nSHA256(x.ovf)= " + sum256 + "\n" + strings.Repeat("0", 40) + "  x.ovf", ErrDigest},
		{"digest of another algorithm", "SHA256(x.ovf)= " + sum1, machine.ErrMalformed},
		{"digest that is too long", "SHA1(x.ovf)= " + sum1 + "00", machine.ErrMalformed},
		{"digest of half a byte", "SHA1(x.ovf)= " + sum1[1:], machine.ErrMalformed},
		{"digest that is no hex", "SHA1(x.ovf)= " + strings.Repeat("g", 40), machine.ErrMalformed},
		{"no digest", "SHA1(x.ovf)=", machine.ErrMalformed},
		{"no =", "SHA1(x.ovf) " + sum1, machine.ErrMalformed},
		{"no name", "SHA1()= " + sum1, machine.ErrMalformed},
		{"no name, of sha1sum", sum1 + "  ", machine.ErrMalformed},
		{"MD5", "MD5(x.ovf)= " + sum1[:32], machine.ErrUnsupported},
		{"MD5, of md5sum", sum1[:32] + "  x.ovf", machine.ErrUnsupported},
		{"unknown algorithm", "SHA3-256(x.ovf)= " + sum256, machine.ErrUnsupported},
		{"SHA-224", "SHA224(x.ovf)= " + sum256[:56], machine.ErrUnsupported},
		{"name out of the folder", "SHA1(../x.ovf)= " + sum1, machine.ErrMalformed},
		{"absolute name", "SHA1(/etc/passwd)= " + sum1, machine.ErrMalformed},
		{"UTF-16", "\xff\xfeS\x00H\x00A\x001\x00", machine.ErrMalformed},
		{"Latin-1", "SHA1(gr\xf6\xdfe.ovf)= " + sum1, machine.ErrMalformed},
		{"byte 0", "SHA1(x\x00.ovf)= " + sum1, machine.ErrMalformed},
		{"too large", strings.Repeat("\n", maxManifest+1), machine.ErrMalformed},
		{"too many", manyLines(maxMembers + 1), machine.ErrMalformed},
	} {
		t.Run(test.name, func(t *testing.T) {
			if d, err := parseManifest([]byte(test.manifest)); !errors.Is(err, test.want) || d != nil {
				t.Errorf("%v, %v; want %v", d, err, test.want)
			}
		})
	}
}

func manyLines(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "SHA1(%d)= %s\n", i, sum1)
	}
	return b.String()
}

// What is wrong with a package is found: at once where its OVF or signature is
// wrong, and at the end of reading where a disk is.
func TestPackagesThatAreNotWhatTheirManifestSays(t *testing.T) {
	good := newPacket("SHA256", twoDisks, isoFile)
	signed := sign(t, good, "")
	flip := func(p packet, name string) packet {
		data := bytes.Clone(p.get(name))
		data[len(data)-1] ^= 1
		return p.set(name, data)
	}
	withLine := func(p packet, line string) packet {
		return p.set("vm.mf", append(bytes.Clone(p.get("vm.mf")), line...))
	}
	for _, test := range []struct {
		name   string
		packet packet
		atOnce bool // refused by Open, not by Verify
		digest bool // the error is ErrDigest
		want   string
	}{
		{"a byte of the OVF", good.set("vm.ovf", bytes.Replace(good.get("vm.ovf"), []byte("hardware"), []byte("Hardware"), 1)), true, true, "vm.ovf has SHA256"},
		{"a byte of the first disk", flip(good, "disk1.vmdk"), false, true, "disk1.vmdk has SHA256"},
		{"a byte of the second disk", flip(good, "sub/disk2.vmdk"), false, true, "sub/disk2.vmdk has SHA256"},
		{"a byte of another file", flip(good, "cd.iso"), false, true, "cd.iso has SHA256"},
		{"a file that is not there", withLine(good, "SHA256(gone.txt)= "+sum256), true, true, "gone.txt, which vm.mf names"},
		{"a manifest that is none", good.set("vm.mf", []byte("hello")), true, false, "vm.mf: line 1: malformed: "},
		{"a digest that is not known", withLine(good, "MD5(disk1.vmdk)= "+sum256[:32]), true, false, "unsupported"},
		{"one file by two names", withLine(good, "SHA256(disk1%2evmdk)= "+sum256), true, false, "two lines"},
		{"a byte of a signed manifest", signed.set("vm.mf", append([]byte("\n"), signed.get("vm.mf")...)), true, true, "not that of"},
		{"a certificate without a manifest", signed.without("vm.mf"), true, false, "there is none"},
		{"a certificate that is none", signed.set("vm.cert", []byte("hello")), true, false, "no signature"},
		{"a signed package with a file that is not signed", signed.set("more.txt", []byte("x")), true, true, "does not name more.txt"},
	} {
		for _, form := range []string{"ova", "folder"} {
			t.Run(test.name+" "+form, func(t *testing.T) {
				var path string
				if form == "ova" {
					path = test.packet.ova(t, tar.FormatUSTAR)
				} else if path = test.packet.folder(t); strings.Contains(test.want, "more.txt") {
					return // a file of the folder is none of the package
				}
				a, err := Open(t.Context(), path, Options{})
				if test.atOnce != (err != nil) {
					t.Fatalf("Open: %v", err)
				}
				if err == nil {
					for i := range a.Disks {
						s, err := a.Disk(i)
						if err != nil {
							t.Fatal(err)
						}
						readSection(t, s.Section)
					}
					var r Report
					r, err = a.Verify(t.Context())
					if len(r.Wrong) != 1 || !strings.Contains(r.Wrong[0], test.want) || len(r.Files) < 5 {
						t.Errorf("report %+v", r)
					}
					a.Close()
				}
				if err == nil || !strings.Contains(err.Error(), test.want) || errors.Is(err, ErrDigest) != test.digest {
					t.Errorf("%v; want %q", err, test.want)
				}

				// As it is: everything opens, and is reported.
				a = mustOpen(t, path, Options{Unverified: true})
				if s, err := a.Disk(0); err != nil || !bytes.Equal(readSection(t, s.Section), test.packet.get("disk1.vmdk")) {
					t.Errorf("disk %+v, %v", s, err)
				}
				r, err := a.Verify(t.Context())
				if err != nil || len(r.Wrong) != 1 || !strings.Contains(r.Wrong[0], test.want) {
					t.Errorf("unverified: %+v, %v", r, err)
				}
			})
		}
	}
}

func TestSeveralFaultsAreAllReported(t *testing.T) {
	p := newPacket("SHA1", twoDisks, isoFile).set("disk1.vmdk", []byte("x")).set("cd.iso", []byte("y"))
	r, err := mustOpen(t, p.ova(t, tar.FormatUSTAR), Options{}).Verify(t.Context())
	if !errors.Is(err, ErrDigest) || len(r.Wrong) != 2 || !strings.Contains(err.Error(), "and 1 more") {
		t.Errorf("%+v, %v", r, err)
	}
	for _, f := range r.Files {
		if want := f.Name != "disk1.vmdk" && f.Name != "cd.iso"; f.OK != want || (f.Got == f.Want) != want || f.Algorithm != "SHA1" {
			t.Errorf("%+v", f)
		}
	}
}

// A manifest that names less than the package has is what some products write.
func TestFilesThatAManifestDoesNotName(t *testing.T) {
	p := newPacket("", twoDisks, isoFile)
	p = p.set("vm.mf", manifestOf("SHA256", p[:2]))
	r, err := mustOpen(t, p.ova(t, tar.FormatUSTAR), Options{}).Verify(t.Context())
	if want := []string{"sub/disk2.vmdk", "cd.iso", "vm.nvram"}; err != nil || !slices.Equal(r.Unlisted, want) {
		t.Errorf("%q, %v; want %q", r.Unlisted, err, want)
	}
}

func TestDigestOfPartsAndOfCompressedFiles(t *testing.T) {
	data := noise(31, 5000)
	whole := gzipped(data)
	disks := []fileOf{{href: "d.gz", attrs: fmt.Sprintf(`ovf:size="%d" ovf:chunkSize="3000" ovf:compression="gzip"`, len(whole))}}
	p := packet{{"vm.ovf", []byte(ovfOf(disks, nil))}, {"d.gz.000000000", whole[:3000]}, {"d.gz.000000001", whole[3000:]}}
	p = append(p, tarMember{"vm.mf", manifestOf("SHA512", p)})
	a := mustOpen(t, p.ova(t, tar.FormatUSTAR), Options{})
	if s, err := a.Disk(0); err != nil || s.Name != "d.gz.000000000" || !bytes.Equal(readDisk(t, s), data) {
		t.Errorf("disk %+v, %v", s, err)
	}
	if f := a.Files(); len(f) != 1 {
		t.Errorf("files %v", f)
	}
	if r, err := a.Verify(t.Context()); err != nil || len(r.Files) != 3 || len(r.Unlisted) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// sign adds a certificate, whose line begins with prefix ("": SHA256).
func sign(t *testing.T, p packet, prefix string) packet {
	t.Helper()
	cert, err := testKey(t).certificate("vm.mf", p.get("vm.mf"))
	if err != nil {
		t.Fatal(err)
	}
	if prefix != "" {
		cert = bytes.Replace(cert, []byte("SHA256"), []byte(prefix), 1)
	}
	return p.set("vm.cert", cert)
}

func TestSignedPackages(t *testing.T) {
	good := newPacket("SHA256", twoDisks, isoFile)
	signed := sign(t, good, "")
	line, rest, _ := bytes.Cut(signed.get("vm.cert"), []byte("\n"))
	for _, test := range []struct {
		name string
		cert []byte
	}{
		{"ovftool", signed.get("vm.cert")},
		{"openssl 3", sign(t, good, "RSA-SHA2-256").get("vm.cert")},
		{"openssl 1", sign(t, good, "RSA-SHA256").get("vm.cert")},
		{"Windows", bytes.ReplaceAll(signed.get("vm.cert"), []byte("\n"), []byte("\r\n"))},
		{"wrapped", slices.Concat(line[:100], []byte("\n"), line[100:], []byte("\n"), rest)},
		{"text before certificates", slices.Concat(line, []byte("\nBag Attributes\n    friendlyName: x\nsubject=/CN=vendor\n"), rest)},
		{"a second signature as CMS", slices.Concat(signed.get("vm.cert"), []byte("-----BEGIN CMS-----\nMAAA\n-----END CMS-----\n"))},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := mustOpen(t, good.set("vm.cert", test.cert).ova(t, tar.FormatUSTAR), Options{})
			r, err := a.Verify(t.Context())
			if err != nil || r.Certificate == nil {
				t.Fatalf("Verify: %+v, %v", r, err)
			}
			c := r.Certificate
			if !c.SignedOK || c.Name != "vm.cert" || c.Subject != "CN=vendor" || c.Issuer != "CN=middle" || c.SelfSigned || c.Algorithm != "SHA256" ||
				c.CMS != bytes.Contains(test.cert, []byte("CMS")) {
				t.Errorf("certificate %+v", c)
			}
			// No root of this system vouches for a key that was just made.
			if c.Trusted || !strings.HasPrefix(c.Chain, "untrusted: ") {
				t.Errorf("chain %q", c.Chain)
			}
			files := a.Files()
			if last := files[len(files)-1]; last.Name != "vm.cert" || last.Role != RoleCertificate || !bytes.Equal(readSection(t, last.Content), test.cert) {
				t.Errorf("files %v", files)
			}
		})
	}
}

// certificateOf returns a .cert for a manifest by a key of any kind.
func certificateOf(t *testing.T, key crypto.Signer, template x509.Certificate, h crypto.Hash, name, manifest string) []byte {
	t.Helper()
	template.SerialNumber = big.NewInt(1)
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	sum := h.New()
	sum.Write([]byte(manifest))
	value, err := key.Sign(rand.Reader, sum.Sum(nil), h)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, "%s(x.mf)= %x\n%s", name, value, pemOf("CERTIFICATE", der))
}

func TestCertificateFiles(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := testPKI().key
	now := time.Now()
	template := x509.Certificate{Subject: pkix.Name{CommonName: "me\x1b[2J"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	const manifest = "SHA1(x.ovf)= " + sum1
	for _, test := range []struct {
		name string
		cert []byte
		ok   bool
	}{
		{"RSA, SHA-1", certificateOf(t, rsaKey, template, crypto.SHA1, "SHA1", manifest), true},
		{"RSA, SHA-256", certificateOf(t, rsaKey, template, crypto.SHA256, "SHA256", manifest), true},
		{"RSA, SHA-512", certificateOf(t, rsaKey, template, crypto.SHA512, "SHA512", manifest), true},
		{"ECDSA", certificateOf(t, ec, template, crypto.SHA256, "EC-SHA2-256", manifest), true},
		{"ECDSA of openssl 1", certificateOf(t, ec, template, crypto.SHA256, "ECDSA-SHA256", manifest), true},
		{"ECDSA without saying so", certificateOf(t, ec, template, crypto.SHA512, "SHA512", manifest), true},
		{"ECDSA of another manifest", certificateOf(t, ec, template, crypto.SHA256, "SHA256", manifest+" "), false},
		{"RSA of another manifest", certificateOf(t, rsaKey, template, crypto.SHA256, "SHA256", manifest+" "), false},
		{"another algorithm than is said", certificateOf(t, rsaKey, template, crypto.SHA256, "SHA512", manifest), false},
		{"another key than is said", certificateOf(t, rsaKey, template, crypto.SHA256, "EC-SHA256", manifest), false},
		{"another certificate", slices.Concat(bytes.SplitAfter(certificateOf(t, rsaKey, template, crypto.SHA256, "SHA256", manifest), []byte("\n"))[0], []byte(pemOf("CERTIFICATE", testPKI().other))), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, err := parseCertificate(test.cert)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.check([]byte(manifest)); (err == nil) != test.ok {
				t.Errorf("check: %v", err)
			}
			if test.ok {
				if c := s.report("x.cert", x509.NewCertPool(), now); !c.SelfSigned || c.Subject != "CN=me\ufffd[2J" || c.Trusted {
					t.Errorf("%+v", c)
				}
			}
		})
	}
}

func TestChains(t *testing.T) {
	key := testPKI()
	cert, err := testKey(t).certificate("x.mf", nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := parseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	pool := func(der []byte) *x509.CertPool {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		p := x509.NewCertPool()
		p.AddCert(c)
		return p
	}
	leaf := s.chain[0]
	valid := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2)
	alone := &signature{algorithm: "SHA256", chain: s.chain[:1]}
	for _, test := range []struct {
		name  string
		s     *signature
		roots *x509.CertPool
		now   time.Time
		want  string
	}{
		{"whole", s, pool(key.root), valid, "trusted"},
		{"another root", s, pool(key.other), valid, "unknown authority"},
		{"no root", s, x509.NewCertPool(), valid, "unknown authority"},
		{"without what is between", alone, pool(key.root), valid, "unknown authority"},
		{"expired", s, pool(key.root), leaf.NotAfter.Add(time.Hour), "expired"},
		{"not valid yet", s, pool(key.root), leaf.NotBefore.Add(-time.Hour), "not yet valid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := test.s.report("x.cert", test.roots, test.now)
			if !strings.Contains(c.Chain, test.want) || c.Trusted != (test.want == "trusted") || strings.HasPrefix(c.Chain, "untrusted: ") == c.Trusted {
				t.Errorf("%+v; want %q", c, test.want)
			}
		})
	}
}

func TestCertificateFilesThatAreRefused(t *testing.T) {
	p := testPKI()
	leaf := pemOf("CERTIFICATE", p.leaf)
	const line = "SHA256(x.mf)= 0123\n"
	for _, test := range []struct {
		name, cert string
		want       error
	}{
		{"nothing", "", machine.ErrMalformed},
		{"no certificate", line, machine.ErrMalformed},
		{"no signature", leaf, machine.ErrMalformed},
		{"text for a signature", "hello\n" + leaf, machine.ErrMalformed},
		{"a signature that is no hex", "SHA256(x.mf)= xyz\n" + leaf, machine.ErrMalformed},
		{"a signature of half a byte", "SHA256(x.mf)= 012\n" + leaf, machine.ErrMalformed},
		{"an empty signature", "SHA256(x.mf)=\n" + leaf, machine.ErrMalformed},
		{"a certificate that is none", line + pemOf("CERTIFICATE", []byte("hello")), machine.ErrMalformed},
		{"a private key", line + leaf + pemOf("PRIVATE KEY", pkcs8(t, p.key)), machine.ErrMalformed},
		{"too many certificates", line + strings.Repeat(leaf, maxCertificates+1), machine.ErrMalformed},
		{"too large", line + strings.Repeat("\n", maxManifest) + leaf, machine.ErrMalformed},
		{"CMS alone", "-----BEGIN PKCS7-----\nMAAA\n-----END PKCS7-----\n", machine.ErrUnsupported},
		{"MD5", "MD5(x.mf)= 0123\n" + leaf, machine.ErrUnsupported},
		{"another algorithm of RSA", "RSA-PSS-SHA256(x.mf)= 0123\n" + leaf, machine.ErrUnsupported},
		{"another key", "ED25519-SHA512(x.mf)= 0123\n" + leaf, machine.ErrUnsupported},
	} {
		t.Run(test.name, func(t *testing.T) {
			if s, err := parseCertificate([]byte(test.cert)); !errors.Is(err, test.want) || s != nil {
				t.Errorf("%v, %v; want %v", s, err, test.want)
			}
		})
	}
}

// The OVAs of the corpus, where it is: what davit says of each, and why. All
// were made by other programs; the files of most are cut to a few bytes, after
// which a manifest was made anew, with sha1sum.
func TestCorpusOVAs(t *testing.T) {
	expected := map[string]int{ // files in the manifest; -1: refused
		"disks/govmomi/ttylinux-pc_i486-16.1.ova":                                  2,
		"disks/vm-operator/Vcf-License-Server-9.1.0.0.25262073.ova":                3,
		"disks/vm-operator/esxvmovf-25262174.ova":                                  2,
		"disks/vm-operator/ttylinux-pc_i486-16.1.ova":                              3,
		"disks/vm-operator/uber.ova":                                               5,
		"ova/openstack__glance/testserver-no-disk.ova":                             -1, // its disk is not in it
		"ova/vmware-tanzu__vm-operator/Vcf-License-Server-9.1.0.0.25262073.ova":    3,
		"ova/vmware-tanzu__vm-operator/nsx-unified-appliance-9.1.0.0.25262063.ova": 2,
		"ova/vmware-tanzu__vm-operator/uber.ova":                                   5,
	}
	const corpus = "../../../shared/corpus"
	if _, err := os.Stat(corpus); err != nil {
		return // it is not on every machine
	}
	for name, files := range expected {
		t.Run(name, func(t *testing.T) {
			if files < 0 {
				if a, err := Open(t.Context(), filepath.Join(corpus, name), Options{}); !errors.Is(err, ErrMissing) {
					t.Errorf("Open = %v, %v", a, err)
				}
				return
			}
			a := mustOpen(t, filepath.Join(corpus, name), Options{})
			for i := range a.Disks {
				s, err := a.Disk(i)
				if err != nil {
					t.Fatal(err)
				}
				if s.Section != nil {
					readSection(t, s.Section)
				}
			}
			r, err := a.Verify(t.Context())
			if err != nil || len(r.Files) != files || len(r.Unlisted) > 0 {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

// FuzzManifest: what was read, and is written in the first spelling, is read as
// the same.
func FuzzManifest(f *testing.F) {
	f.Add([]byte("SHA256(x.ovf)= " + sum256 + "\nSHA1 (a (b).vmdk) = " + sum1 + "\n"))
	f.Add([]byte("\ufeff" + sum1 + "  x.ovf\r\n" + sum512 + " *y z\r\n"))
	f.Add([]byte("sha2-512(ö)=" + sum512 + "\n#\n\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		digests, err := parseManifest(data)
		if err != nil {
			if !errors.Is(err, machine.ErrMalformed) && !errors.Is(err, machine.ErrUnsupported) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		var b bytes.Buffer
		for _, d := range digests {
			fmt.Fprintf(&b, "%s(%s)= %x\n", d.algorithm, d.name, d.want)
		}
		again, err := parseManifest(b.Bytes())
		if err != nil || !slices.EqualFunc(digests, again, func(a, b digest) bool {
			return a.name == b.name && a.algorithm == b.algorithm && bytes.Equal(a.want, b.want)
		}) {
			t.Errorf("read %v, and from what was written %v, %v", digests, again, err)
		}
	})
}

// FuzzCertificate: a signature over something else never holds.
func FuzzCertificate(f *testing.F) {
	sum := sha256.Sum256([]byte("manifest"))
	value, err := rsa.SignPKCS1v15(nil, testPKI().key, crypto.SHA256, sum[:])
	if err != nil {
		f.Fatal(err)
	}
	leaf := pemOf("CERTIFICATE", testPKI().leaf)
	f.Add(fmt.Appendf(nil, "SHA256(x.mf)= %x\n%s", value, leaf))
	f.Add(fmt.Appendf(nil, "RSA-SHA2-256(x.mf)= %x\n%x\n\nsubject=x\n%s%s", value[:100], value[100:], leaf, pemOf("CMS", nil)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseCertificate(data)
		if err != nil {
			if !errors.Is(err, machine.ErrMalformed) && !errors.Is(err, machine.ErrUnsupported) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		if s.check([]byte("another manifest")) == nil {
			t.Error("the signature holds for another manifest")
		}
		s.report("x.cert", x509.NewCertPool(), time.Unix(0, 0))
	})
}

// FuzzTar: members lie in the archive, have names that are safe and differ, and
// are those that archive/tar finds by reading all of it.
func FuzzTar(f *testing.F) {
	for _, format := range []tar.Format{tar.FormatUSTAR, tar.FormatGNU, tar.FormatPAX} {
		archive, _ := tarOf(&testing.T{}, format, packet{{"./vm.ovf", []byte("<Envelope/>")}, {strings.Repeat("long/", 18) + "disk.vmdk", make([]byte, 600)}, {"vm.mf", nil}})
		f.Add(archive)
		f.Add(archive[:len(archive)-1500])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		members, err := readTar(t.Context(), bytes.NewReader(data), int64(len(data)))
		if err != nil {
			if !errors.Is(err, machine.ErrMalformed) {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		known := make(map[string]bool)
		for _, m := range members {
			if m.offset < 0 || m.Size() < 0 || m.Size() > int64(len(data))-m.offset {
				t.Fatalf("%q has %d bytes at %d, of %d", m.name, m.Size(), m.offset, len(data))
			}
			if !filepath.IsLocal(filepath.FromSlash(m.name)) || known[strings.ToLower(m.name)] {
				t.Errorf("a member is called %q", m.name)
			}
			known[strings.ToLower(m.name)] = true
			if got := readSection(t, m.Section); !bytes.Equal(got, data[m.offset:][:m.Size()]) {
				t.Errorf("%q has other bytes", m.name)
			}
		}
	})
}
