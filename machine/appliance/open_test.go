package appliance

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/davit-oci/davit/machine"
)

// A fileOf a package, and what its OVF says of it.
type fileOf struct {
	name  string
	data  []byte
	attrs string // of the File element, besides id and href
	href  string // empty: name
}

// ovfOf is an OVF of one machine: its disks first, then files.
func ovfOf(disks, files []fileOf) string {
	var references, section, items strings.Builder
	for i, f := range slices.Concat(disks, files) {
		href := f.href
		if href == "" {
			href = f.name
		}
		fmt.Fprintf(&references, "<File ovf:id=\"file%d\" ovf:href=\"%s\" %s/>\n", i, href, f.attrs)
	}
	for i, d := range disks {
		ref := fmt.Sprintf(`ovf:fileRef="file%d"`, i)
		if d.name == "" && d.href == "" {
			ref = ""
		}
		fmt.Fprintf(&section, `<Disk ovf:diskId="d%d" %s ovf:capacity="1048576" ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/>`+"\n", i, ref)
		fmt.Fprintf(&items, "<Item><rasd:AddressOnParent>%d</rasd:AddressOnParent><rasd:ElementName>disk</rasd:ElementName><rasd:HostResource>ovf:/disk/d%d</rasd:HostResource>"+
			"<rasd:InstanceID>%d</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>\n", i, i, i+10)
	}
	for i, f := range files {
		if strings.HasSuffix(f.name, ".iso") {
			fmt.Fprintf(&items, "<Item><rasd:AddressOnParent>%d</rasd:AddressOnParent><rasd:ElementName>cd</rasd:ElementName><rasd:HostResource>ovf:/file/file%d</rasd:HostResource>"+
				"<rasd:InstanceID>%d</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>15</rasd:ResourceType></Item>\n", i+20, len(disks)+i, i+100)
		}
	}
	return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1" xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
<References>
` + references.String() + `</References>
<DiskSection><Info>disks</Info>
` + section.String() + `</DiskSection>
<VirtualSystem ovf:id="vm"><Info>machine</Info><VirtualHardwareSection><Info>hardware</Info>
<Item><rasd:ElementName>CPU</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
<Item><rasd:AllocationUnits>byte * 2^20</rasd:AllocationUnits><rasd:ElementName>memory</rasd:ElementName><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>4</rasd:ResourceType><rasd:VirtualQuantity>64</rasd:VirtualQuantity></Item>
<Item><rasd:Address>0</rasd:Address><rasd:ElementName>SATA</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>AHCI</rasd:ResourceSubType><rasd:ResourceType>20</rasd:ResourceType></Item>
` + items.String() + `</VirtualHardwareSection></VirtualSystem>
</Envelope>
`
}

// A packet is the files of a package, in order.
type packet []tarMember

// newPacket is a package with an OVF and files, and mf unless it is "".
func newPacket(algorithm string, disks, files []fileOf) packet {
	p := packet{{"vm.ovf", []byte(ovfOf(disks, files))}}
	for _, f := range slices.Concat(disks, files) {
		if f.name != "" {
			p = append(p, tarMember{f.name, f.data})
		}
	}
	if algorithm == "" {
		return p
	}
	return slices.Insert(p, 1, tarMember{"vm.mf", manifestOf(algorithm, p)})
}

func manifestOf(algorithm string, p packet) []byte {
	var b bytes.Buffer
	for _, m := range p {
		h := algorithms[algorithm]()
		h.Write(m.data)
		fmt.Fprintf(&b, "%s(%s)= %x\n", algorithm, m.name, h.Sum(nil))
	}
	return b.Bytes()
}

// set replaces a member, or adds it.
func (p packet) set(name string, data []byte) packet {
	p = slices.Clone(p)
	if i := slices.IndexFunc(p, func(m tarMember) bool { return m.name == name }); i >= 0 {
		p[i].data = data
		return p
	}
	return append(p, tarMember{name, data})
}

func (p packet) without(name string) packet {
	return slices.DeleteFunc(slices.Clone(p), func(m tarMember) bool { return m.name == name })
}

func (p packet) get(name string) []byte {
	return p[slices.IndexFunc(p, func(m tarMember) bool { return m.name == name })].data
}

// ova writes the package as an OVA, and folder as a folder whose OVF it names.
func (p packet) ova(t *testing.T, format tar.Format) string {
	t.Helper()
	archive, _ := tarOf(t, format, p)
	return writeFile(t, filepath.Join(t.TempDir(), "x.ova"), archive)
}

func (p packet) folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, m := range p {
		path := filepath.Join(dir, filepath.FromSlash(m.name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, path, m.data)
	}
	return filepath.Join(dir, "vm.ovf")
}

func writeFile(t *testing.T, path string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readSection(t *testing.T, s Section) []byte {
	t.Helper()
	data, err := io.ReadAll(io.NewSectionReader(s, 0, s.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// readDisk returns the file of a disk, unpacked.
func readDisk(t *testing.T, s Source) []byte {
	t.Helper()
	data := readSection(t, s.Section)
	if s.Compression == "" {
		return data
	}
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if data, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return data
}

func mustOpen(t *testing.T, path string, o Options) *Appliance {
	t.Helper()
	a, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

var (
	twoDisks = []fileOf{{name: "disk1.vmdk", data: noise(11, 70001)}, {name: "sub/disk2.vmdk", data: noise(12, 1024)}}
	isoFile  = []fileOf{{name: "cd.iso", data: cdOf(noise(13, 5000))}, {name: "vm.nvram", data: nvramOf(noise(14, 264))}}
)

func TestPackagesInEveryForm(t *testing.T) {
	for _, algorithm := range []string{"", "SHA1", "SHA256", "SHA512"} {
		p := newPacket(algorithm, twoDisks, isoFile)
		dotted := slices.Clone(p)
		for i := range dotted {
			dotted[i].name = "./" + dotted[i].name
		}
		last := slices.Concat(p[1:], p[:1])
		inFolder := func(folder string, p packet) packet { // as of "tar cf vm.ova folder"
			p = slices.Clone(p)
			for i := range p {
				p[i].name = folder + p[i].name
			}
			return p
		}
		folder := p.folder(t)
		for _, test := range []struct{ name, path string }{
			{"ustar", p.ova(t, tar.FormatUSTAR)},
			{"GNU", p.ova(t, tar.FormatGNU)},
			{"PAX", p.ova(t, tar.FormatPAX)},
			{"names with ./", dotted.ova(t, tar.FormatGNU)},
			{"the OVF last", last.ova(t, tar.FormatUSTAR)},
			{"in a folder", inFolder("vm/", p).ova(t, tar.FormatUSTAR)},
			{"in ./ and folders", inFolder("./my vms/vm/", p).ova(t, tar.FormatGNU)},
			{"in a folder of a long name", inFolder(strings.Repeat("größe", 40)+"/", last).ova(t, tar.FormatPAX)},
			{"OVF", folder},
			{"folder", filepath.Dir(folder)},
		} {
			t.Run(algorithm+" "+test.name, func(t *testing.T) {
				a := mustOpen(t, test.path, Options{})
				if want := map[bool]Kind{true: OVA, false: OVF}[strings.HasSuffix(test.path, ".ova")]; a.Kind != want {
					t.Errorf("kind %q, want %q", a.Kind, want)
				}
				if !bytes.Equal(a.OVF, p.get("vm.ovf")) || a.Descriptor.Name != "vm.ovf" {
					t.Errorf("the OVF %s is %q", a.Descriptor.Name, a.OVF)
				}
				for i, d := range twoDisks {
					s, err := a.Disk(i)
					if err != nil || s.Name != d.name || s.Format != "vmdk" || !bytes.Equal(readSection(t, s.Section), d.data) {
						t.Errorf("disk %d: %s, %s, %v", i, s.Name, s.Format, err)
					}
				}
				var names []string
				for _, f := range a.Files() {
					names = append(names, f.Name+" "+string(f.Role))
					if !bytes.Equal(readSection(t, f.Content), p.get(f.Name)) {
						t.Errorf("%s has other bytes", f.Name)
					}
				}
				want := []string{"cd.iso cd", "vm.nvram nvram"}
				if algorithm != "" {
					want = append(want, "vm.mf manifest")
				}
				if !slices.Equal(names, want) {
					t.Errorf("files %q, want %q", names, want)
				}
				r, err := a.Verify(t.Context())
				if err != nil || len(r.Wrong) > 0 || len(r.Unlisted) > 0 {
					t.Errorf("Verify: %+v, %v", r, err)
				}
				if algorithm != "" && (len(r.Files) != 5 || !slices.Equal(r.Algorithms, []string{algorithm}) || slices.ContainsFunc(r.Files, func(f FileReport) bool { return !f.OK || f.Got != f.Want })) {
					t.Errorf("report %+v", r)
				}
				if (r.Manifest == "") != (algorithm == "") {
					t.Errorf("manifest %q", r.Manifest)
				}
			})
		}
	}
}

// An archive may end in many ways, and begin with what is no file.
func TestArchivesOfRealProducts(t *testing.T) {
	p := newPacket("SHA256", twoDisks, isoFile)
	plain, places := tarOf(t, tar.FormatUSTAR, p)
	end := places[len(places)-1].Offset + places[len(places)-1].Size
	entry := func(h tar.Header, data string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if h.Size = int64(len(data)); h.Typeflag != tar.TypeXGlobalHeader {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, data)
		w.Flush()
		return b.Bytes()
	}
	for _, test := range []struct {
		name    string
		archive []byte
	}{
		{"no blocks of zeros at the end", plain[:len(plain)-1024]},
		{"one block of zeros at the end", plain[:len(plain)-512]},
		{"no padding of the last member", plain[:end]},
		{"many blocks of zeros", slices.Concat(plain, make([]byte, 10240))},
		{"folders", slices.Concat(entry(tar.Header{Typeflag: tar.TypeDir, Name: "./"}, ""), entry(tar.Header{Typeflag: tar.TypeDir, Name: "sub/"}, ""), plain)},
		{"attributes of macOS", slices.Concat(entry(tar.Header{Name: "./._vm.ovf"}, "Mac OS X"), plain)},
		{"a comment of all members", slices.Concat(entry(tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "x"}}, ""), plain)},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := mustOpen(t, writeFile(t, filepath.Join(t.TempDir(), "x.ova"), test.archive), Options{})
			if r, err := a.Verify(t.Context()); err != nil || len(r.Files) != 5 {
				t.Errorf("Verify: %+v, %v", r, err)
			}
		})
	}
}

func TestArchivesThatAreRefused(t *testing.T) {
	p := newPacket("", twoDisks[:1], nil)
	headers := func(hs ...tar.Header) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, m := range p {
			w.WriteHeader(&tar.Header{Name: m.name, Size: int64(len(m.data))})
			w.Write(m.data)
		}
		for _, h := range hs {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		return b.Bytes()
	}
	many := make([]tar.Header, maxMembers)
	for i := range many {
		many[i].Name = fmt.Sprint(i)
	}
	good := headers()
	gnuSparse := headers(tar.Header{Format: tar.FormatGNU, Name: "hole.vmdk"})
	i := bytes.Index(gnuSparse, []byte("hole.vmdk"))
	gnuSparse[i+156] = tar.TypeGNUSparse
	checksum(gnuSparse[i : i+512])

	for _, test := range []struct {
		name    string
		archive []byte
		want    string
	}{
		{"cut in a member", good[:len(good)/2], "ends in"},
		{"cut in a header", slices.Concat(good[:len(good)-1024], good[:100]), "unexpected EOF"},
		{"a header that is none", slices.Concat(good[:len(good)-1024], bytes.Repeat([]byte("x"), 512)), "invalid tar header"},
		{"symbolic link", headers(tar.Header{Typeflag: tar.TypeSymlink, Name: "a.vmdk", Linkname: "/etc/passwd"}), "no regular file"},
		{"hard link", headers(tar.Header{Typeflag: tar.TypeLink, Name: "a.vmdk", Linkname: "vm.ovf"}), "no regular file"},
		{"device", headers(tar.Header{Typeflag: tar.TypeBlock, Name: "a.vmdk"}), "no regular file"},
		{"pipe", headers(tar.Header{Typeflag: tar.TypeFifo, Name: "a.vmdk"}), "no regular file"},
		{"sparse member of GNU", gnuSparse, "holes"},
		{"sparse member of PAX", paxEntry(t, good, map[string]string{"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,0", "GNU.sparse.size": "0", "GNU.sparse.numblocks": "1"}), "holes"},
		{"path of all members", headers(tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"path": "x"}}), "of all members"},
		{"absolute name", headers(tar.Header{Name: "/etc/passwd"}), "no name"},
		{"name out of the folder", headers(tar.Header{Name: "../a.vmdk"}), "no name"},
		{"name out of the folder, behind ./", headers(tar.Header{Name: "./../a.vmdk"}), "no name"},
		{"name out of the folder, in the middle", headers(tar.Header{Name: "a/../../b"}), "no name"},
		{"folder out of the folder", headers(tar.Header{Typeflag: tar.TypeDir, Name: "../"}), "no name"},
		{"name of Windows", headers(tar.Header{Name: `a\b.vmdk`}), "no name"},
		{"drive of Windows", headers(tar.Header{Name: `C:b.vmdk`}), "no name"},
		{"control character", headers(tar.Header{Name: "a\n.vmdk"}), "no name"},
		{"name that is no UTF-8", headers(tar.Header{Format: tar.FormatGNU, Name: "a\xff.vmdk"}), "no name"},
		{"one name twice", headers(tar.Header{Name: "disk1.vmdk"}), "two members"},
		{"one name twice, but for case", headers(tar.Header{Name: "DISK1.vmdk"}), "two members"},
		{"one name twice, but for ./", headers(tar.Header{Name: "./disk1.vmdk"}), "two members"},
		{"two OVFs", headers(tar.Header{Name: "other.ovf"}), "two OVFs"},
		{"two manifests, both of other names", headers(tar.Header{Name: "a.mf"}, tar.Header{Name: "b.mf"}), "2 .mf files"},
		{"too many members", headers(many...), "entries"},
		{"no OVF", tarOfNames(t, "vm.mf", "disk1.vmdk"), "no .ovf"},
		{"a file whose name an artifact cannot have", headers(tar.Header{Name: "note:b.txt"}), "cannot be kept"},
		{"a certificate without manifest", headers(tar.Header{Name: "vm.cert"}), "there is none"},
		{"no tar archive", []byte("hello"), "no tar archive"},
		{"compressed as a whole", gzipped(good), "gunzip"},
		{"nothing", nil, "no tar archive"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := Open(t.Context(), writeFile(t, filepath.Join(t.TempDir(), "x.ova"), test.archive), Options{})
			checkRefused(t, a, err, test.want)
		})
	}
}

// checkRefused wants an error that is not [ErrNotMachine] and has some words.
func checkRefused(t *testing.T, a *Appliance, err error, want string) {
	t.Helper()
	if err == nil || a != nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("Open = %v, %v; want %q", a, err, want)
	}
	for _, kind := range []error{machine.ErrMalformed, machine.ErrUnsupported, ErrMissing, ErrDigest, fs.ErrNotExist} {
		if errors.Is(err, kind) && !errors.Is(err, ErrNotMachine) {
			return
		}
	}
	if !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("%v is of no kind", err)
	}
}

func checksum(header []byte) {
	copy(header[148:156], "        ")
	sum := 0
	for _, c := range header[:512] {
		sum += int(c)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
}

// paxEntry adds an empty file with records that archive/tar does not write.
func paxEntry(t *testing.T, archive []byte, records map[string]string) []byte {
	t.Helper()
	var text string
	for k, v := range records {
		n := len(k) + len(v) + 3
		for len(fmt.Sprint(n))+len(k)+len(v)+3 != n {
			n = len(fmt.Sprint(n)) + len(k) + len(v) + 3
		}
		text += fmt.Sprintf("%d %s=%s\n", n, k, v)
	}
	header := func(kind byte, name string, size int) []byte {
		h := make([]byte, 512)
		copy(h, name)
		copy(h[124:], fmt.Sprintf("%011o", size))
		copy(h[257:], "ustar\x0000")
		h[156] = kind
		checksum(h)
		return h
	}
	return slices.Concat(header('x', "PaxHeaders/hole", len(text)), []byte(text), make([]byte, 512-len(text)), header('0', "hole.vmdk", 0), archive)
}

func tarOfNames(t *testing.T, names ...string) []byte {
	var members []tarMember
	for _, name := range names {
		members = append(members, tarMember{name, []byte("x")})
	}
	archive, _ := tarOf(t, tar.FormatUSTAR, members)
	return archive
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

// Sizes of more than 8 GiB, in both forms that there are: the members are holes
// in a sparse file, with bytes at the end.
func TestMembersOver8GiB(t *testing.T) {
	const size = 9<<30 + 5
	for _, format := range []tar.Format{tar.FormatGNU, tar.FormatPAX} {
		t.Run(format.String(), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.ova")
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			disks := []fileOf{{name: "big.vmdk"}, {name: "disk2.vmdk"}}
			var off int64
			for _, m := range []struct {
				name string
				size int64
				tail string
			}{{"vm.ovf", int64(len(ovfOf(disks, nil))), ovfOf(disks, nil)}, {"big.vmdk", size, "end"}, {"disk2.vmdk", 6, "second"}} {
				var b bytes.Buffer
				h := tar.Header{Format: format, Name: m.name, Size: m.size, ModTime: time.Unix(1, 0)}
				if err := tar.NewWriter(&b).WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
				f.WriteAt(b.Bytes(), off)
				off += int64(b.Len()) + m.size
				f.WriteAt([]byte(m.tail), off-int64(len(m.tail)))
				off = (off + 511) &^ 511
			}
			if err := f.Truncate(off + 1024); err != nil {
				t.Fatal(err)
			}
			a := mustOpen(t, path, Options{})
			for i, want := range []string{"end", "second"} {
				s, err := a.Disk(i)
				if err != nil {
					t.Fatal(err)
				}
				tail := make([]byte, len(want))
				if _, err := s.Section.ReadAt(tail, s.Section.Size()-int64(len(want))); err != nil || string(tail) != want {
					t.Errorf("disk %d ends in %q, %v", i, tail, err)
				}
			}
			if s, _ := a.Disk(0); s.Section.Size() != size {
				t.Errorf("%d bytes, want %d", s.Section.Size(), int64(size))
			}
		})
	}
}

func TestReferencesOfAnOVF(t *testing.T) {
	disk := noise(21, 3000)
	for _, test := range []struct {
		name  string
		disk  fileOf
		files map[string][]byte
		want  string // of the error; empty: the disk is opened
	}{
		{"URI", fileOf{href: "my%20disk.vmdk"}, map[string][]byte{"my disk.vmdk": disk}, ""},
		{"name that looks like a URI", fileOf{href: "my%20disk.vmdk"}, map[string][]byte{"my%20disk.vmdk": disk, "my disk.vmdk": nil}, ""},
		{"umlaut", fileOf{href: "größe.vmdk"}, map[string][]byte{"größe.vmdk": disk}, ""},
		{"./", fileOf{href: "./disk.vmdk"}, map[string][]byte{"disk.vmdk": disk}, ""},
		{"folder", fileOf{href: "a/b/disk.vmdk"}, map[string][]byte{"a/b/disk.vmdk": disk}, ""},
		{"gzip", fileOf{href: "disk.vmdk.gz", attrs: `ovf:compression="gzip"`}, map[string][]byte{"disk.vmdk.gz": gzipped(disk)}, ""},
		{"gzip in two pieces", fileOf{href: "disk.vmdk.gz", attrs: `ovf:compression="gzip"`}, map[string][]byte{"disk.vmdk.gz": slices.Concat(gzipped(disk[:1000]), gzipped(disk[1000:]))}, ""},
		{"parts", fileOf{href: "disk.vmdk", attrs: `ovf:size="3000" ovf:chunkSize="1000"`},
			map[string][]byte{"disk.vmdk.000000000": disk[:1000], "disk.vmdk.000000001": disk[1000:2000], "disk.vmdk.000000002": disk[2000:]}, ""},
		{"parts, the last of which is smaller", fileOf{href: "disk.vmdk", attrs: `ovf:chunkSize="2000"`},
			map[string][]byte{"disk.vmdk.000000000": disk[:2000], "disk.vmdk.000000001": disk[2000:]}, ""},
		{"gzip in parts", fileOf{href: "d.gz", attrs: `ovf:chunkSize="2000" ovf:compression="gzip"`},
			map[string][]byte{"d.gz.000000000": gzipped(disk)[:2000], "d.gz.000000001": gzipped(disk)[2000:]}, ""},

		{"missing", fileOf{href: "disk.vmdk"}, nil, `file is missing: "disk.vmdk"`},
		{"missing part", fileOf{href: "disk.vmdk", attrs: `ovf:size="3000" ovf:chunkSize="1000"`},
			map[string][]byte{"disk.vmdk.000000000": disk[:1000], "disk.vmdk.000000001": disk[1000:2000]}, `file is missing: "disk.vmdk.000000002"`},
		{"part of another size", fileOf{href: "disk.vmdk", attrs: `ovf:chunkSize="1000"`},
			map[string][]byte{"disk.vmdk.000000000": disk[:999], "disk.vmdk.000000001": disk[999:1500]}, "another size"},
		{"part that is too large", fileOf{href: "disk.vmdk", attrs: `ovf:chunkSize="1000"`}, map[string][]byte{"disk.vmdk.000000000": disk[:1001]}, "parts of 1000 bytes"},
		{"web", fileOf{href: "https://example.com/disk.vmdk"}, nil, "download it first"},
		{"file URL", fileOf{href: "file:///etc/passwd"}, nil, "download it first"},
		{"absolute", fileOf{href: "/etc/passwd"}, nil, "no name of a file"},
		{"out of the folder", fileOf{href: "../secret.vmdk"}, nil, "no name of a file"},
		{"out of the folder, as a URI", fileOf{href: "%2e%2e%2fsecret.vmdk"}, nil, "is missing"},
		{"out of the folder and back", fileOf{href: "a/../../x/secret.vmdk"}, nil, "no name of a file"},
	} {
		for _, form := range []string{"ova", "folder"} {
			t.Run(test.name+" "+form, func(t *testing.T) {
				p := packet{{"vm.ovf", []byte(ovfOf([]fileOf{test.disk}, nil))}}
				for name, data := range test.files {
					p = p.set(name, data)
				}
				var path string
				if form == "ova" {
					path = p.ova(t, tar.FormatPAX)
				} else {
					path = p.folder(t)
					writeFile(t, filepath.Join(filepath.Dir(path), "..", "secret.vmdk"), disk)
				}
				a, err := Open(t.Context(), path, Options{})
				if test.want != "" {
					checkRefused(t, a, err, test.want)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				s, err := a.Disk(0)
				if err != nil || !bytes.Equal(readDisk(t, s), disk) {
					t.Errorf("disk %+v, %v", s, err)
				}
				if err := a.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// A CD image that was cut into parts is looked at in one piece: no part but the
// first needs to look like one.
func TestCDImagesInParts(t *testing.T) {
	cd, text := cdOf(noise(22, 9000)), bytes.Repeat([]byte("a diary\n"), 6000)
	gz := gzipped(cd)
	for _, test := range []struct {
		name   string
		data   []byte
		attrs  string
		beside string // of another file of the OVF
		want   string // of the error in a folder; in an archive nothing is private
	}{
		{"CD image", cd, "", "", ""},
		{"of a size that is said", cd, fmt.Sprintf(`ovf:size="%d"`, len(cd)), "", ""},
		{"gzip", gz, `ovf:compression="gzip"`, "", ""},
		{"text", text, "", "", `"cd.iso": it is not what the descriptor says: no CD image`},
		{"a part that is a CD of its own", cd, "", "cd.iso.000000002", `"cd.iso.000000002": it is not what the descriptor says: no CD image`},
	} {
		size := (len(test.data) + 2) / 3
		cds := []fileOf{{name: "cd.iso", attrs: fmt.Sprintf(`ovf:chunkSize="%d" %s`, size, test.attrs)}}
		if test.beside != "" {
			cds = append(cds, fileOf{name: "other.iso", href: test.beside})
		}
		for _, form := range []string{"ova", "folder"} {
			t.Run(test.name+" "+form, func(t *testing.T) {
				p := packet{{"vm.ovf", []byte(ovfOf(nil, cds))}}
				n := 0
				for part := range slices.Chunk(test.data, size) {
					p = p.set(fmt.Sprintf("cd.iso.%09d", n), part)
					n++
				}
				var path string
				if form == "ova" {
					path = p.ova(t, tar.FormatPAX)
				} else {
					path = p.folder(t)
				}
				a, err := Open(t.Context(), path, Options{})
				if form == "folder" && test.want != "" {
					if a != nil || !errors.Is(err, ErrNotMedium) || !strings.Contains(err.Error(), test.want) {
						t.Errorf("Open: %v, want %q", err, test.want)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				defer a.Close()
				var got []byte
				for _, f := range a.Files() {
					data, err := io.ReadAll(io.NewSectionReader(f.Content, 0, f.Content.Size()))
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, data...)
				}
				if !bytes.Equal(got, test.data) {
					t.Errorf("the parts have %d bytes, want %d", len(got), len(test.data))
				}
			})
		}
	}
}

// What is compressed says how, and how large it can get.
func TestCompressedDisks(t *testing.T) {
	data := gzipped(noise(1, 5000))
	for attrs, want := range map[string]Source{
		`ovf:compression="gzip"`:     {Name: "d.gz", Format: "vmdk", Compression: "gzip", Limit: 1<<20 + 1<<16 + 16<<20},
		`ovf:compression="identity"`: {Name: "d.gz", Format: "vmdk"},
	} {
		p := newPacket("", []fileOf{{name: "d.gz", data: data, attrs: attrs}}, nil)
		s, err := mustOpen(t, p.ova(t, tar.FormatUSTAR), Options{}).Disk(0)
		if err != nil || !bytes.Equal(readSection(t, s.Section), data) {
			t.Fatalf("%s: %+v, %v", attrs, s, err)
		}
		if s.Section = nil; s != want {
			t.Errorf("%s: %+v, want %+v", attrs, s, want)
		}
	}
}

func TestOpenEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	p := newPacket("SHA256", twoDisks, isoFile)
	for _, path := range []string{p.ova(t, tar.FormatUSTAR), p.folder(t)} {
		if a, err := Open(ctx, path, Options{}); !errors.Is(err, enough) {
			t.Errorf("Open(%s) = %v, %v; want why its context ended", path, a, err)
		}
	}
}

func TestFilesOfAFolderThatAreRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // no links without a privilege
	}
	for _, test := range []struct {
		name string
		make func(dir, path string) error
		ok   bool
	}{
		{"link out of the folder", func(_, path string) error { return os.Symlink("/etc/passwd", path) }, false},
		{"link to a device", func(_, path string) error { return os.Symlink("/dev/zero", path) }, false},
		{"folder", func(_, path string) error { return os.Mkdir(path, 0o700) }, false},
		{"link within the folder", func(_, path string) error { return os.Symlink("vm.ovf", path) }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := packet{{"vm.ovf", []byte(ovfOf([]fileOf{{name: "disk.vmdk"}}, nil))}}.folder(t)
			if err := test.make(filepath.Dir(path), filepath.Join(filepath.Dir(path), "disk.vmdk")); err != nil {
				t.Fatal(err)
			}
			a, err := Open(t.Context(), path, Options{})
			if (err == nil) != test.ok {
				t.Errorf("Open: %v", err)
			}
			if err == nil {
				a.Close()
			}
		})
	}
}

func TestFilesThatNothingNeeds(t *testing.T) {
	// A file of the References that is not there, and one that is.
	p := newPacket("", twoDisks[:1], []fileOf{{name: "notes.txt", data: []byte("x")}, {name: "cd.iso", data: cdOf([]byte("y"))}})
	a := mustOpen(t, p.without("notes.txt").ova(t, tar.FormatUSTAR), Options{})
	if len(a.Envelope.Files) != 2 || len(a.Machines[0].Unread) == 0 || a.Machines[0].Unread[len(a.Machines[0].Unread)-1].Value != "notes.txt" {
		t.Errorf("files %v, unread %v", a.Envelope.Files, a.Machines[0].Unread)
	}
	if a, err := Open(t.Context(), p.without("cd.iso").ova(t, tar.FormatUSTAR), Options{}); !errors.Is(err, ErrMissing) {
		t.Errorf("without its CD image: %v, %v", a, err)
	}
	// A member that no reference names travels; a file of the folder does not.
	extra := newPacket("", twoDisks[:1], nil).set("README.txt", []byte("hello"))
	if f := mustOpen(t, extra.ova(t, tar.FormatUSTAR), Options{}).Files(); len(f) != 1 || f[0].Name != "README.txt" {
		t.Errorf("files of the archive: %v", f)
	}
	if f := mustOpen(t, extra.folder(t), Options{}).Files(); len(f) != 0 {
		t.Errorf("files of the folder: %v", f)
	}
}

func TestFilesThatDifferInCaseAlone(t *testing.T) {
	p := newPacket("", nil, []fileOf{{name: "a.iso"}, {name: "A.ISO"}})
	dir := p.folder(t)
	if names, err := namesIn(filepath.Dir(dir)); err != nil || len(names) < 3 {
		return // one file, on this system
	}
	if a, err := Open(t.Context(), dir, Options{}); !errors.Is(err, machine.ErrMalformed) || !strings.Contains(err.Error(), "two files") {
		t.Errorf("Open = %v, %v", a, err)
	}
}

func TestDescriptorOnly(t *testing.T) {
	p := newPacket("SHA256", twoDisks, isoFile)
	for _, f := range append(slices.Clone(twoDisks), isoFile...) {
		p = p.without(f.name)
	}
	a := mustOpen(t, p.folder(t), Options{DescriptorOnly: true})
	if len(a.Disks) != 2 || a.Machines[0].CPUs != 1 {
		t.Errorf("%+v", a.Envelope)
	}
	if s, err := a.Disk(0); err == nil {
		t.Errorf("disk %+v", s)
	}
	if r, err := a.Verify(t.Context()); err == nil {
		t.Errorf("Verify: %+v", r)
	}
	if _, err := a.SourceFiles(nil); err == nil {
		t.Error("SourceFiles: no error")
	}
}

func TestBlankDisk(t *testing.T) {
	ovf := strings.Replace(ovfOf([]fileOf{{}}, nil), `<File ovf:id="file0" ovf:href="" />`, "", 1)
	a := mustOpen(t, packet{{"vm.ovf", []byte(ovf)}}.folder(t), Options{})
	if s, err := a.Disk(0); err != nil || s != (Source{}) {
		t.Errorf("disk %+v, %v", s, err)
	}
}

func TestFolders(t *testing.T) {
	one := newPacket("SHA256", twoDisks[:1], nil)
	for _, test := range []struct {
		name  string
		files packet
		want  string
	}{
		{"no OVF", packet{{"disk.vmdk", nil}}, "not a machine"},
		{"two OVFs", one.set("other.ovf", one[0].data), "there are 2 OVFs"},
		{"nothing", nil, "not a machine"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := Open(t.Context(), filepath.Dir(test.files.folder(t)), Options{})
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open = %v, %v", a, err)
			}
		})
	}
	// In a folder of several packages a manifest is of the OVF that has its name.
	path := one.set("other.ovf", []byte(ovfOf(twoDisks[:1], nil))).folder(t)
	r, err := mustOpen(t, filepath.Join(filepath.Dir(path), "other.ovf"), Options{}).Verify(t.Context())
	if err != nil || r.Manifest != "" {
		t.Errorf("other.ovf: %+v, %v", r, err)
	}
	// Alone, it may have another name: the OVF was renamed, or the manifest.
	renamed := packet{one[0], {"old.mf", one.get("vm.mf")}, one[2]}
	if r, err := mustOpen(t, renamed.folder(t), Options{}).Verify(t.Context()); err != nil || r.Manifest != "old.mf" {
		t.Errorf("manifest of another name: %+v, %v", r, err)
	}
}

func TestWhatAFileIs(t *testing.T) {
	archive, _ := tarOf(t, tar.FormatGNU, newPacket("", nil, nil))
	v7 := slices.Clone(archive)
	clear(v7[257:265])
	checksum(v7[:512])
	plainTar := tarOfNames(t, "disk.raw")
	ovf := ovfOf(nil, nil)
	domain := "<!-- a domain -->\n<domain type='kvm'><name>x</name><memory>1024</memory><os><type>hvm</type></os></domain>"
	const vmx = "#!/usr/bin/vmware\n.encoding = \"UTF-8\"\nConfig.Version = \"8\"\nvirtualHW.version = \"19\"\nmemsize = \"64\"\n"
	large := func(s string) string { return s + strings.Repeat("\n", machine.MaxDescriptor) }

	for _, test := range []struct {
		name, file, data string
		want             Kind // empty: ErrNotMachine, "!": another error
	}{
		{"OVA", "x.ova", string(archive), OVA},
		{"OVA of tar 7", "x.ova", string(v7), OVA},
		{"OVA in capitals", "X.OVA", string(archive), OVA},
		{"OVA of another name", "x", string(archive), OVA},
		{"tar", "x.tar", string(archive), OVA},
		{"tar of something else", "x.tar", string(plainTar), "!"},
		{"raw disk that begins with a tar archive", "x.img", string(plainTar), ""},
		{"OVF", "x.ovf", ovf, OVF},
		{"OVF of another name", "x", ovf, OVF},
		{"OVF with a mark", "x.ovf", "\ufeff" + ovf, OVF},
		{"raw disk that begins with an OVF", "x.img", large(ovf), ""},
		{"OVF that is too large", "x.ovf", large(ovf), "!"},
		{"XML of another kind", "x.ovf", "<html/>", "!"},
		{"no XML", "x.ovf", "hello", "!"},
		{"empty OVF", "x.ovf", "", "!"},
		{"domain", "x.xml", domain, Libvirt},
		{"domain of another name", "x", domain, Libvirt},
		{"XML of another program", "x.xml", "<configuration/>", "!"},
		{"XML of another program and another name", "x.svg", "<svg/>", ""},
		{"VMX", "x.vmx", vmx, VMX},
		{"VMX of another name", "x.txt", vmx, VMX},
		{"template", "x.vmtx", vmx, VMX},
		{"raw disk that begins with a VMX", "x.img", large(vmx), ""},
		{"VMX that is none", "x.vmx", "\x00\x01", "!"},
		{"extents of a VMDK", "x.vmdk", "# Disk DescriptorFile\nversion=1\nCID=fffffffe\n", ""},
		{"text", "README.md", "hello = world\n", ""},
		{"nothing", "x.img", "", ""},
		{"zeros", "x.img", strings.Repeat("\x00", 4096), ""},
		{"compressed OVA", "x.ova.gz", string(gzipped(archive)), "!"},
		{"compressed disk", "x.img.gz", string(gzipped(archive)), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := Open(t.Context(), writeFile(t, filepath.Join(t.TempDir(), test.file), []byte(test.data)), Options{DescriptorOnly: true})
			switch test.want {
			case "":
				if !errors.Is(err, ErrNotMachine) {
					t.Errorf("Open = %v, %v; want ErrNotMachine", a, err)
				}
			case "!":
				if err == nil || errors.Is(err, ErrNotMachine) {
					t.Errorf("Open = %v, %v; want another error", a, err)
				}
			default:
				if err != nil || a.Kind != test.want {
					t.Errorf("Open = %+v, %v", a, err)
				}
			}
			if a != nil {
				a.Close()
			}
		})
	}
	if a, err := Open(t.Context(), filepath.Join(t.TempDir(), "none.ova"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v, %v", a, err)
	}
}

func TestSourceFilesOfPackages(t *testing.T) {
	p := newPacket("SHA256", twoDisks, isoFile)
	iso := sha256.Sum256(p.get("cd.iso"))
	blobs := map[string]string{"cd.iso": "sha256:" + hex.EncodeToString(iso[:])}
	ova := p.ova(t, tar.FormatGNU)
	files, err := mustOpen(t, ova, Options{}).SourceFiles(blobs)
	if err != nil || len(files) != 1 || files[0].Name != "vm.ova" || len(files[0].Members) != 1 {
		t.Fatalf("of an OVA: %+v, %v", files, err)
	}
	if r, parts, err := NewRecipe(t.Context(), files); err != nil || len(parts) == 0 || r.Files[0].Name != "vm.ova" {
		t.Errorf("recipe %+v, %d parts, %v", r, len(parts), err)
	}
	files, err = mustOpen(t, p.folder(t), Options{}).SourceFiles(blobs)
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	if want := []string{"vm.ovf", "disk1.vmdk", "sub/disk2.vmdk", "cd.iso", "vm.nvram", "vm.mf"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("of a folder: %q, %v; want %q", names, err, want)
	}
	if _, _, err := NewRecipe(t.Context(), files); err != nil {
		t.Error(err)
	}
}
