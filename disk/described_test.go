package disk_test

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

// An image must not publish what somebody hides beside it, unless they allow it.
func TestHiddenSecondFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, ".hidden"), 0o700); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(dir, ".hidden", "base")
	disktest.Make(t, base, "raw", disktest.Mixture(1<<20, 1))
	if err := os.Symlink(filepath.Join(".hidden", "base"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	images := map[string]string{"data": filepath.Join(dir, "data"), "backing": filepath.Join(dir, "backing"), "link": filepath.Join(dir, "by-link"),
		"extent": filepath.Join(dir, "extent.vmdk")}
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", ".hidden/base", "-F", "raw", images["backing"])
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "link", "-F", "raw", images["link"])
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+filepath.Join(dir, ".hidden", "data"), images["data"], "1M")
	descriptor := "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 2048 FLAT \".extent\" 0\n"
	if err := os.WriteFile(images["extent"], []byte(descriptor), 0o600); err != nil {
		t.Fatal(err)
	}
	disktest.Make(t, filepath.Join(dir, ".extent"), "raw", disktest.Mixture(1<<20, 2))
	for name, path := range images {
		for _, o := range []disk.OpenOptions{{BackingDir: dir}, {BackingDir: dir, Extents: true}} {
			img, err := disk.Open(path, o)
			wantError(t, img, err, disk.ErrBackingFile, "a part of its path begins with a dot")
			o.Hidden = true
			if img, err = disk.Open(path, o); err != nil {
				t.Errorf("%s, allowed: %v", name, err)
				continue
			}
			img.Close()
		}
	}
	img, err := disk.Open(images["extent"], disk.OpenOptions{Extents: true, Hidden: true}) // of what is beside it nobody allowed anything
	wantError(t, img, err, disk.ErrBackingFile, "begins with a dot")
}

// What is known of a second file for which no folder was allowed: who is told to
// allow the folder of the image must not publish what it hides there.
func TestSecondFilesWithoutAFolder(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	dir := filepath.Join(t.TempDir(), ".images") // which the user has named
	for _, sub := range []string{".gnupg", "old"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	content := disktest.Mixture(1<<20, 1)
	for _, path := range []string{filepath.Join(dir, ".gnupg", "secring.gpg"), filepath.Join(dir, "base"), filepath.Join(dir, "old", "moved"), filepath.Join(dir, "moved"), filepath.Join(outside, "base")} {
		disktest.Make(t, path, "raw", content)
	}
	for link, to := range map[string]string{"link": ".gnupg/secring.gpg", "folder": ".gnupg", "out": outside} {
		if err := os.Symlink(filepath.FromSlash(to), filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "old", "moved")); err != nil {
		t.Fatal(err)
	}
	const nowhere, hidden, none = "nowhere", "hidden", "none"
	for _, test := range []struct{ name, want string }{ // else: it is in the folder
		{"base", ""},
		{"./old/../base", ""},
		{filepath.Join(dir, "base"), ""},
		{"/gone/base", ""}, // found by its last element
		{`C:\vm\base`, ""},
		{"old/moved", ""},
		{".gnupg/secring.gpg", hidden},
		{filepath.Join(dir, ".gnupg", "secring.gpg"), hidden},
		{"link", hidden},
		{"folder/secring.gpg", hidden},
		{"/gone/.netrc", hidden},
		{"out/base", nowhere},
		{filepath.Join(outside, "base"), nowhere},
		{"gone", nowhere},
		{`json:{"file.filename":"base"}`, none},
		{"nbd://localhost/base", none},
	} {
		path := filepath.Join(dir, "image")
		disktest.QEMU(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", test.name, "-F", "raw", path, "1M")
		descriptor := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nRW 2048 FLAT %q 0\n", strings.ReplaceAll(test.name, `"`, "'"))
		if err := os.WriteFile(path+".txt", []byte(descriptor), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{path, path + ".txt"} {
			if path != filepath.Join(dir, "image") && strings.ContainsAny(test.name, `\:`) {
				continue // what is another thing in a VMDK
			}
			img, err := disk.Open(path, disk.OpenOptions{Extents: true})
			wantError(t, img, err, disk.ErrBackingFile, "")
			var second *disk.BackingFileError
			got := none
			switch found := errors.As(err, &second); {
			case errors.Is(err, disk.ErrHidden):
				got = hidden
			case found && second.Folder == "":
				got = nowhere
			case found:
				got = strings.TrimPrefix(second.Folder, dir)
			}
			if got != test.want || second != nil && second.Continues {
				t.Errorf("%s: %q: %v, which is %q, want %q", filepath.Base(path), test.name, err, got, test.want)
			}
		}
	}
	path := filepath.Join(dir, "image")
	disktest.QEMU(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "base", "-F", "qcow2", path, "1M")
	var second *disk.BackingFileError
	if _, err := disk.Open(path, disk.OpenOptions{}); !errors.As(err, &second) || !second.Continues {
		t.Errorf("a backing file that may have one: %v", err)
	}
}

// A raw file that somebody else named must look like a disk.
func TestDescribedRawDisks(t *testing.T) {
	key := strings.Repeat("-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n", 40)
	utf16le := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(key)) {
		utf16le = binary.LittleEndian.AppendUint16(utf16le, u)
	}
	sectors := func(b []byte) []byte { return b[:len(b)/512*512] }
	noise := make([]byte, 64<<10)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	with := func(at int, mark string) []byte {
		b := bytes.Clone(noise)
		copy(b[at:], mark)
		return b
	}
	tarHeader := func(format tar.Format) string {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Name: "home/.ssh/id_ed25519", Mode: 0o600, Size: 1, Format: format}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	v7 := []byte(tarHeader(tar.FormatUSTAR))
	clear(v7[257:])
	copy(v7[148:], "        ")
	sum := 0
	for _, c := range v7[:512] {
		sum += int(c)
	}
	copy(v7[148:], fmt.Sprintf("%06o\x00 ", sum))
	const oldCpio = "\xc7\x71\x01\x00\x02\x00\xa4\x81\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01\x00a\x00"
	utf16be := make([]byte, len(utf16le))
	for i := range utf16le {
		utf16be[i] = utf16le[i^1]
	}
	utf16of := func(text string) (b []byte) {
		for _, u := range utf16.Encode([]rune(text)) {
			b = binary.LittleEndian.AppendUint16(b, u)
		}
		return b
	}
	both := func(b []byte, at int, mark string) []byte {
		copy(b[at:], mark)
		return b
	}
	log := bytes.Repeat([]byte("Nov 30 15:42:13 host kernel: nothing of interest\n"), 8<<10)
	for _, test := range []struct {
		name string
		data []byte
		says string // empty: it is a disk
	}{
		{"a key", []byte(key), "it is text"},
		{"a key of whole sectors", sectors([]byte(key)), "it is text"},
		{"a key in UTF-16", utf16le, "it is text"},
		{"a password", []byte("hunter2\n"), "it is text"},
		{"a text in windows-1251", []byte("\xef\xe0\xf0\xee\xeb\xfc \xee\xf2 \xf1\xe5\xf0\xe2\xe5\xf0\xe0: abcdefg1234567\r\n"), "it is text"},
		{"a long log", sectors(log), "it is text"},
		{"less than a sector", noise[:100], "100 bytes, no whole number of sectors"},
		{"a part of a sector", noise[:1025], "1025 bytes, no whole number of sectors"},
		{"SQLite", with(0, "SQLite format 3\x00"), "SQLite"},
		{"Berkeley DB", with(12, "\x62\x31\x05\x00"), "Berkeley DB"},
		{"KeePass", with(0, "\x03\xd9\xa2\x9a"), "KeePass"},
		{"the registry of Windows", with(0, "regf"), "Windows registry"},
		{"a tar archive", with(0, tarHeader(tar.FormatGNU)), "a tar archive"},
		{"a tar archive of version 7", with(0, string(v7)), "a tar archive"},
		{"a cpio archive", with(0, "070701"), "a cpio archive"},
		{"a cpio archive of binary headers", with(0, oldCpio), "a cpio archive"},
		{"a ZIP archive", with(0, "PK\x03\x04"), "a ZIP archive"},
		{"gzip", with(0, "\x1f\x8b\x08"), "compressed by gzip"},
		{"xz", with(0, "\xfd7zXZ\x00"), "compressed by xz"},
		{"7z", with(0, "7z\xbc\xaf\x27\x1c"), "compressed by 7z"},
		{"a journal of systemd", with(0, "LPKSHHRH"), "a journal of systemd"},
		{"a core", with(0, "\x7fELF"), "an ELF file"},
		{"age", with(0, "age-encryption.org/v1\n"), "encrypted by age"},
		{"PKCS #12", with(0, "\x30\x82\x04\x00\x02\x01\x03\x30"), "a key or a certificate"},
		{"PKCS #12 of BER", with(0, "\x30\x80\x02\x01\x03\x30"), "a key or a certificate"},
		{"a certificate", both(bytes.Clone(noise[:1024]), 0, "\x30\x82\x03\xfc\x30\x82"), "a key or a certificate"},
		{"a key of OpenPGP", with(0, "\x95\x03\xbe\x04\x5f\x00\x00\x00\x01"), "a key of OpenPGP"},
		{"encrypted by OpenPGP", with(0, "\x85\x02\x0c\x03"), "encrypted by OpenPGP"},
		{"a JPEG picture", with(0, "\xff\xd8\xff\xe0"), "a JPEG picture"},
		{"saved memory", with(0, "\xd2\xbe\xd2\xbe"), "saved memory of a VMware machine"},
		{"UTF-16 without a mark", sectors(utf16le[2:]), "it is text"},
		{"UTF-16 of the other order", sectors(utf16be[2:]), "it is text"},
		{"much UTF-16", bytes.Repeat(sectors(utf16le), 33), "it is text"},
		{"much UTF-16 of Russian", sectors(utf16of(strings.Repeat("\u043f\u0430\u0440\u043e\u043b\u044c \u043e\u0442 \u0441\u0435\u0440\u0432\u0435\u0440\u0430 \u0442\u0430\u043a\u043e\u0439-\u0442\u043e\r\n", 9999))), "it is text"},
		{"a boot sector behind an ELF header", both(with(0, "\x7fELF"), 510, "\x55\xaa"), ""},
		{"GPT behind JPEG", both(with(0, "\xff\xd8\xff\xe0"), 512, "EFI PART"), ""},
		{"GPT of 4096-byte sectors behind JPEG", both(with(0, "\xff\xd8\xff\xe0"), 4096, "EFI PART"), ""},
		{"the copy of GPT, and gzip", both(with(0, "\x1f\x8b\x08"), len(noise)-512, "EFI PART"), ""},
		{"LVM behind ZIP", both(with(0, "PK\x03\x04"), 512, "LABELONE"), ""},
		{"a CD image behind SQLite", both(with(0, "SQLite format 3\x00"), 0x8001, "CD001"), ""},
		{"ext behind ELF", both(both(with(0, "\x7fELF"), 1024, "\x01\x00\x00\x00\x01"+strings.Repeat("\x00", 0x33)+"\x53\xef"), 1024+0x4c, "\x01\x00\x00\x00"), ""},
		{"swap behind ELF", both(with(0, "\x7fELF"), 4086, "SWAPSPACE2"), ""},
		{"nothing", nil, ""},
		{"one sector", noise[:512], ""},
		{"noise", noise, ""},
		{"a boot sector", with(510, "\x55\xaa"), ""},
		{"zeros", make([]byte, 4096), ""},
		{"a pattern of letters", bytes.Repeat([]byte("A"), 4096), ""},
		{"a log at the beginning of a disk", append(sectors(log), noise...), ""},
		{"a log at the end of a disk", append(bytes.Clone(noise), sectors(log)...), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			check := func(img *disk.Image, err error) {
				t.Helper()
				if test.says != "" {
					wantError(t, img, err, disk.ErrNotDisk, test.says)
				} else if err != nil {
					t.Error(err)
				} else if img.Size() != int64(len(test.data)) {
					t.Errorf("%d bytes, want %d", img.Size(), len(test.data))
				}
			}
			for _, format := range []disk.Format{disk.Raw, ""} {
				img, err := disk.OpenReader(bytes.NewReader(test.data), disk.OpenOptions{Format: format, Described: true})
				if format == "" && err != nil && disk.Looks(bytes.NewReader(test.data)) != "" {
					wantError(t, img, err, disk.ErrUnsupported, "say that it is raw") // whoever named it
					continue
				}
				check(img, err)
			}
			// What the user names is what they say.
			if _, err := disk.OpenReader(bytes.NewReader(test.data), disk.OpenOptions{Format: disk.Raw}); err != nil {
				t.Error(err)
			}
		})
	}
}

// Who made an image may name a private archive for its raw part, as who made a
// descriptor may.
func TestRawPartsOfImages(t *testing.T) {
	t.Parallel()
	noise := make([]byte, 64<<10)
	random := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	archive := append(bytes.Clone(noise[:257]), append([]byte("ustar\x00"), noise[263:]...)...)
	picture := append([]byte("\xff\xd8\xff\xe0"), noise[4:]...)
	dir := t.TempDir()
	for name, data := range map[string][]byte{"backup.tar": archive, "disk-f001.vmdk": noise, "disk-f002.vmdk": picture, "disk-f003.vmdk": archive,
		"a.jpg": picture} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	descriptor := func(names ...string) string {
		text := "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n"
		for _, name := range names {
			text += fmt.Sprintf("RW 128 FLAT %q 0\n", name)
		}
		return text
	}
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "backup.tar", "-F", "raw", filepath.Join(dir, "backing.qcow2"), "64K")
	for name, text := range map[string]string{
		"one.vmdk": descriptor("backup.tar"), "first.vmdk": descriptor("disk-f002.vmdk", "disk-f001.vmdk"),
		"second.vmdk": descriptor("disk-f001.vmdk", "a.jpg"), "split.vmdk": descriptor("disk-f001.vmdk", "disk-f002.vmdk", "disk-f003.vmdk"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, says := range map[string]string{
		"backing.qcow2": "it is a tar archive", "one.vmdk": "it is a tar archive", "first.vmdk": "it is a JPEG picture", "second.vmdk": "it is a JPEG picture",
		"split.vmdk": "", // is cut before a file of its guest
	} {
		img, err := disk.Open(filepath.Join(dir, name), disk.OpenOptions{BackingDir: dir, Extents: true})
		if says != "" {
			wantError(t, img, err, disk.ErrNotDisk, says)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			img.Close()
		}
	}
}

// A file of one format that is called another is said to be that, and not a
// damaged one of the other.
func TestFilesOfAnotherFormatThanSaid(t *testing.T) {
	t.Parallel()
	content := disktest.Mixture(1<<20, 1)
	dir := t.TempDir()
	files := map[disk.Format]string{}
	for format, args := range map[disk.Format][]string{disk.QCOW2: {"qcow2"}, disk.VMDK: {"vmdk", "-o", "subformat=streamOptimized"},
		disk.VDI: {"vdi"}, disk.VHD: {"vpc"}, disk.VHDX: {"vhdx"}} {
		files[format] = filepath.Join(dir, string(format))
		disktest.Make(t, files[format], args[0], content, args[1:]...)
	}
	for is, path := range files {
		for said := range files {
			img, err := disk.Open(path, disk.OpenOptions{Format: said})
			if is == said {
				if err != nil {
					t.Errorf("%s: %v", is, err)
				} else {
					img.Close()
				}
				continue
			}
			var other *disk.FormatError
			if wantError(t, img, err, disk.ErrCorrupt, "it is "+is.Title()+", not "+said.Title()); !errors.As(err, &other) || other.Said != said || other.Found != is.Title() {
				t.Errorf("%s called %s: %+v", is, said, other)
			}
		}
		if got := disk.Looks(bytes.NewReader(disktest.ReadFile(t, path))); got != is.Title() {
			t.Errorf("%s looks like %q", is, got)
		}
	}
	qed := append([]byte("QED\x00"), make([]byte, 4092)...)
	img, err := disk.OpenReader(bytes.NewReader(qed), disk.OpenOptions{Format: disk.VMDK})
	wantError(t, img, err, disk.ErrCorrupt, "it is QED, not VMDK")
	if got := disk.Looks(bytes.NewReader(content)); got != "" {
		t.Errorf("a raw disk looks like %q", got)
	}
	// What looks like nothing may be a damaged one.
	img, err = disk.OpenReader(bytes.NewReader(content), disk.OpenOptions{Format: disk.QCOW2})
	wantError(t, img, err, disk.ErrCorrupt, "not a qcow2 image")
}
