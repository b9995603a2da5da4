package disk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"unicode/utf16"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"golang.org/x/sys/unix"
)

// A guest writes what it likes onto its disk: also the header of a format that
// names another file. Whatever becomes of the disk, nobody opens that file.
func TestGuestsOpenNoFiles(t *testing.T) {
	const size = 2 << 20
	secrets := bytes.Repeat([]byte("secret, "), 1<<17)
	buffer := make([]byte, size)
	headers := map[string]func(name string) []byte{
		"qcow2 with a backing file": withBacking,
		"VMDK descriptor": func(name string) []byte {
			return []byte("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n" +
				"RW 2048 FLAT \"" + name + "\" 0\n")
		},
		"VMDK descriptor with a parent": func(name string) []byte {
			return []byte("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=12345677\ncreateType=\"monolithicFlat\"\n" +
				"parentFileNameHint=\"" + name + "\"\nRW 2048 ZERO\n")
		},
		"sparse VMDK with a parent": func(name string) []byte {
			b := make([]byte, 64<<10)
			le := binary.LittleEndian
			copy(b, "KDMV")
			le.PutUint32(b[4:], 1)
			le.PutUint32(b[8:], 1)
			le.PutUint64(b[12:], 2048) // capacity
			le.PutUint64(b[20:], 128)  // grain size
			le.PutUint64(b[28:], 1)    // descriptor
			le.PutUint64(b[36:], 20)
			le.PutUint32(b[44:], 512)
			le.PutUint64(b[56:], 21) // grain directory
			le.PutUint64(b[64:], 128)
			copy(b[73:], "\n \r\n")
			copy(b[512:], "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=12345677\ncreateType=\"monolithicSparse\"\n"+
				"parentFileNameHint=\""+name+"\"\nRW 2048 SPARSE \""+name+"\"\n")
			return b
		},
		"differencing VHD": func(name string) []byte {
			b := make([]byte, 8<<10)
			be := binary.BigEndian
			copy(b, "conectix")
			be.PutUint32(b[8:], 2)
			be.PutUint32(b[12:], 0x10000)
			be.PutUint64(b[16:], 512)
			be.PutUint64(b[40:], 1<<20)
			be.PutUint64(b[48:], 1<<20)
			be.PutUint32(b[60:], 4)
			be.PutUint32(b[64:], sum(b[:512]))
			h := b[512:1536]
			copy(h, "cxsparse")
			be.PutUint64(h[8:], 1<<64-1)
			be.PutUint64(h[16:], 2048)
			be.PutUint32(h[24:], 0x10000)
			be.PutUint32(h[28:], 1)
			be.PutUint32(h[32:], 2<<20)
			for i, c := range utf16.Encode([]rune(name)) {
				be.PutUint16(h[64+2*i:], c)
			}
			be.PutUint32(h[36:], sum(h))
			copy(b[2048:], "\xff\xff\xff\xff")
			return b
		},
	}
	for what, header := range headers {
		for _, file := range []string{"disk.raw", "disk.img", "disk.vmdk", "disk.qcow2", "disk.vhd"} {
			for _, absolute := range []bool{false, true} {
				dir := t.TempDir()
				secret := filepath.Join(dir, "secret")
				if err := os.WriteFile(secret, secrets, 0o600); err != nil {
					t.Fatal(err)
				}
				name := "secret"
				if absolute {
					name = secret
				}
				content := make([]byte, size)
				copy(content, header(name))
				path := filepath.Join(dir, file)
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				opened := watchOpen(t, secret)
				for _, format := range []disk.Format{"", disk.QCOW2, disk.VMDK, disk.VHD, disk.VHDX, disk.VDI} {
					img, err := disk.Open(path, disk.OpenOptions{Format: format, Extents: true})
					if err == nil {
						got := buffer[:min(size, img.Size())]
						clear(got)
						img.ReadAt(got, 0) // may fail, but not with the secret
						if bytes.Contains(got, []byte("secret, secret")) {
							t.Errorf("%s in %s, opened as %q, shows the other file", what, file, format)
						}
						img.Close()
					}
				}
				if opened() {
					t.Errorf("%s in %s: the other file was opened", what, file)
				}
				if disktest.ReadFile(t, secret); !opened() {
					t.Fatal("an open that is not seen: this tests nothing")
				}
				img, err := disk.Open(path, disk.OpenOptions{Format: disk.Raw})
				if err != nil {
					t.Fatal(err)
				}
				got := buffer
				if n, err := img.ReadAt(got, 0); n < size || !bytes.Equal(got, content) {
					t.Errorf("%s in %s: as raw it reads as something else: %v", what, file, err)
				}
				img.Close()
			}
		}
	}
}

// withBacking is a qcow2 header, with a table that maps nothing.
func withBacking(name string) []byte {
	b := make([]byte, 2<<16)
	be := binary.BigEndian
	copy(b, "QFI\xfb")
	be.PutUint32(b[4:], 3)
	be.PutUint64(b[8:], 1024)
	be.PutUint32(b[16:], uint32(len(name)))
	be.PutUint32(b[20:], 16)
	be.PutUint64(b[24:], 1<<20)
	be.PutUint32(b[36:], 1)
	be.PutUint64(b[40:], 1<<16)
	be.PutUint32(b[96:], 4)
	be.PutUint32(b[100:], 104)
	be.PutUint32(b[104:], 0xe2792aca) // its format
	be.PutUint32(b[108:], 3)
	copy(b[112:], "raw")
	copy(b[1024:], name)
	return b
}

// sum is the checksum of a VHD's structures, whose field for it is zero.
func sum(b []byte) uint32 {
	var n uint32
	for _, c := range b {
		n += uint32(c)
	}
	return ^n
}

// watchOpen returns a function that tells whether the file at path was opened
// meanwhile.
func watchOpen(t *testing.T, path string) (opened func() bool) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if _, err := unix.InotifyAddWatch(fd, path, unix.IN_OPEN); err != nil {
		t.Fatal(err)
	}
	return func() bool {
		n, err := unix.Read(fd, make([]byte, 4096))
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		return n > 0
	}
}
