package main

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// packageOVF is an OVF in the manner of those that ovftool is tested with.
const packageOVF = `<?xml version="1.0" encoding="UTF-8"?>
<ovf:Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
  <References><File ovf:id="file1" ovf:href="disk.vmdk" ovf:size="1"/></References>
  <DiskSection><Info>Disks</Info>
    <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="1048576" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>
  </DiskSection>
  <VirtualSystem ovf:id="vm"><Info>A machine</Info>
    <VirtualHardwareSection><Info>Hardware</Info>
      <Item><rasd:ElementName>SCSI 0</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:ElementName>disk</rasd:ElementName><rasd:HostResource>ovf:/disk/disk1</rasd:HostResource><rasd:InstanceID>2</rasd:InstanceID><rasd:Parent>1</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</ovf:Envelope>
`

// A parcel is an OVF with the one file that it names, and what else is beside it.
type parcel struct {
	ovf     []byte
	file    string
	content []byte // of the file; nil: it is not there
	plain   []byte // what content is when it is not compressed
	beside  map[string][]byte
}

// Seven of the negative OVFs that VMware tests ovftool with are well-formed: the fault is in a file beside them, of which the
// corpus has none. A push refuses each of these faults, and takes the same package without it.
func TestFaultsBesideAnOVF(t *testing.T) {
	h := newHost(t)
	at := newOlareg(t)
	disk := h.stream(1 << 20)
	for _, test := range []struct {
		name, ovf string // of ovftool's
		fault     func(p *parcel)
		want      string // empty: there is no fault
	}{
		{"certificate that signs another manifest", "DigitalCertificates/Neg/valid_certificate.ovf", func(p *parcel) { p.sign(t, "SHA256(x)= 00\n") }, "wrong digest in the package: vm.mf, signed in vm.cert"},
		{"create type that nobody has", "DiskSection/Neg/invalid_createType_disk.ovf", func(p *parcel) {
			p.content = bytes.Replace(p.content, []byte(`createType="streamOptimized"`), []byte(`createType="streamOptimally"`), 1)
		}, `createType "streamOptimally"`},
		{"delta without its parent, OVF 0.9", "DiskSection/Neg/invalid_delta_reference_disk.ovf", (*parcel).delta, `needs a backing file: "base.vmdk"`},
		{"delta without its parent", "DiskSection_1_0/Neg/invalid_delta_reference_disk.ovf", (*parcel).delta, `needs a backing file: "base.vmdk"`},
		{"file that is said to be compressed", "Envelope/Neg/gzip_compression.ovf", func(p *parcel) { p.content = p.plain }, "gzip"},
		{"file that is not there", "HttpLocators/Neg/valid_no_disk.ovf", func(p *parcel) { p.content = nil }, "file is missing"},
		// An Envelope of OVF 1 has no ovf:version, in the schema or in any product's. ovftool refuses it for another reason, or for none.
		{"OVF 1 without a version", "Envelope_1_0/Neg/invalid_no_version.ovf", func(*parcel) {}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			ovfs := map[string][]byte{"own": []byte(packageOVF)}
			if strings.Contains(test.ovf, "gzip") {
				ovfs["own"] = []byte(strings.Replace(packageOVF, `ovf:href`, `ovf:compression="gzip" ovf:href`, 1))
			}
			path := filepath.Join("../../../shared/corpus/ovf/vmware__govmomi/ovf/fixtures/external/OVFToolTemplates/OVF/xmltestfiles", test.ovf)
			switch data, err := os.ReadFile(path); {
			case err == nil: // its disk was in a folder of all tests
				ovfs["ovftool's"] = bytes.ReplaceAll(data, []byte("../../../vmdk/"), nil)
			case !errors.Is(err, fs.ErrNotExist):
				t.Fatal(err)
			}
			for whose, ovf := range ovfs {
				_, rest, _ := bytes.Cut(ovf, []byte(`ovf:href="`))
				file, _, _ := bytes.Cut(rest, []byte(`"`))
				for _, faulty := range []bool{false, true} {
					p := &parcel{ovf, string(file), slices.Clone(disk), disk, map[string][]byte{}}
					if bytes.Contains(ovf, []byte(`ovf:compression="gzip"`)) {
						p.content = gzipped(t, disk)
					}
					if faulty {
						test.fault(p)
					}
					r := h.run("push", "--cache", "none", p.write(t), at.host+"/faults/x:"+fmt.Sprint(faulty))
					if want := test.want; faulty && want != "" {
						if r.code == 0 || !strings.Contains(r.stderr, want) {
							t.Errorf("%s OVF: exit code %d, %s; want %q", whose, r.code, r.stderr, want)
						}
					} else if r.code != 0 {
						t.Errorf("%s OVF, without a fault: exit code %d, %s", whose, r.code, r.stderr)
					}
				}
			}
		})
	}
}

// stream is a VMDK of n bytes as an OVF has it.
func (h *host) stream(n int64) []byte {
	h.t.Helper()
	writeFileAt(h.t, h.path("disk.img"), n, map[int64][]byte{4096: fill(1, 70_000)})
	h.ok("convert", "--force", "-f", "raw", "-O", "vmdk:stream", "disk.img", "disk.vmdk")
	data, err := os.ReadFile(h.path("disk.vmdk"))
	if err != nil {
		h.t.Fatal(err)
	}
	return data
}

// delta makes the disk one that needs another.
func (p *parcel) delta() {
	const none = "parentCID=ffffffff\n"
	at := bytes.Index(p.content, []byte(none))
	end := at + bytes.IndexByte(p.content[at:], 0) // of the descriptor, behind which there is room
	text := slices.Concat([]byte("parentCID=12345678\nparentFileNameHint=\"base.vmdk\"\n"), p.content[at+len(none):end])
	copy(p.content[at:], text)
}

// sign adds a manifest, and the signature of another one.
func (p *parcel) sign(t *testing.T, other string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(other))
	signature, err := key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	p.beside["vm.mf"] = fmt.Appendf(nil, "SHA256(vm.ovf)= %x\nSHA256(%s)= %x\n", sha256.Sum256(p.ovf), p.file, sha256.Sum256(p.content))
	p.beside["vm.cert"] = fmt.Appendf(nil, "SHA256(vm.mf)= %x\n%s", signature, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// write writes the package and returns the path of its OVF.
func (p *parcel) write(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	p.beside["vm.ovf"] = p.ovf
	if p.content != nil {
		p.beside[p.file] = p.content
	}
	for name, content := range p.beside {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "vm.ovf")
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write(data)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A disk that is compressed as a whole is unpacked where all sources are, and no further than it can be large.
func TestCompressedDisksOfAPackage(t *testing.T) {
	h := newHost(t)
	disk := h.stream(1 << 20)
	want := fileDigest(t, h.path("disk.img"))
	whole := gzipped(t, disk)
	if err := os.WriteFile(h.path("x"), disk, 0o600); err != nil { // for bzip2, which Go does not write
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, compression string
		content           []byte
		flags             []string
		want              string // empty: it is unpacked
	}{
		{"gzip", "gzip", whole, nil, ""},
		{"gzip in two pieces", "gzip", slices.Concat(gzipped(t, disk[:1000]), gzipped(t, disk[1000:])), nil, ""},
		{"bzip2", "bzip2", nil, nil, ""},
		{"not compressed", "gzip", disk, nil, "which the OVF calls gzip"},
		{"cut", "gzip", whole[:len(whole)-20], nil, "cut short"},
		{"cut in the sum", "gzip", whole[:len(whole)-4], nil, "cut short"},
		{"wrong sum", "gzip", slices.Concat(whole[:len(whole)-8], make([]byte, 8)), nil, "checksum"},
		{"bomb", "gzip", gzipped(t, make([]byte, 20<<20)), nil, "too many for its disk"},
		{"more than is allowed", "gzip", whole, []string{"--max-unpacked", "1K"}, "--max-unpacked allows"},
		{"no disk", "gzip", gzipped(t, []byte("a text")), nil, "what came out"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.compression == "bzip2" {
				h := host{t, h.dir, h.exe, h.env}
				test.content = []byte(h.tool("bzip2", "-c", "x"))
			}
			p := &parcel{[]byte(strings.Replace(packageOVF, "ovf:href", `ovf:compression="`+test.compression+`" ovf:href`, 1)), "disk.vmdk", test.content, nil, map[string][]byte{}}
			r := h.run(append([]string{"convert", "--force", "-O", "raw", p.write(t), "out.img"}, test.flags...)...)
			switch {
			case test.want != "":
				if r.code == 0 || !strings.Contains(r.stderr, test.want) {
					t.Errorf("exit code %d, %s; want %q", r.code, r.stderr, test.want)
				}
			case r.code != 0:
				t.Error(r.stderr)
			default:
				if got := fileDigest(t, h.path("out.img")); got != want {
					t.Errorf("another disk: %s", got)
				}
			}
		})
	}
}
