package disk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
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
				check(img, err)
			}
			// What the user names is what they say.
			if _, err := disk.OpenReader(bytes.NewReader(test.data), disk.OpenOptions{Format: disk.Raw}); err != nil {
				t.Error(err)
			}
		})
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
