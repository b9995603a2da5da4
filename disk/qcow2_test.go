package disk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

// createEdited makes an image with qemu-img create and qemu-io.
func createEdited(t *testing.T, path, format, options string, size int, seed uint64) {
	t.Helper()
	args := []string{"qemu-img", "create", "-q", "-f", format}
	if options != "" {
		args = append(args, strings.Fields(options)...)
	}
	disktest.QEMU(t, append(args, path, fmt.Sprint(size))...)
	disktest.Edit(t, path, format, size, seed)
}

func TestQCOW2DataFile(t *testing.T) {
	t.Parallel()
	for seed, o := range []string{
		"cluster_size=512", "cluster_size=64k", "cluster_size=2M",
		"cluster_size=16k,extended_l2=on", "cluster_size=64k,extended_l2=on,data_file_raw=on",
		"data_file_raw=on", "data_file_raw=on,preallocation=falloc",
		"preallocation=metadata", "preallocation=full", "preallocation=metadata,extended_l2=on",
	} {
		t.Run(o, func(t *testing.T) {
			t.Parallel()
			const size = 2<<20 + 512
			dir := t.TempDir()
			path := filepath.Join(dir, "image")
			// A comma in an option is written twice.
			data := strings.ReplaceAll(filepath.Join(dir, "data.raw"), ",", ",,")
			createEdited(t, path, "qcow2", "-o data_file="+data+","+o, size, uint64(seed))
			testImage(t, path, disk.OpenOptions{BackingDir: dir}, disktest.Flat(t, path))
			img, err := disk.Open(path, disk.OpenOptions{})
			wantError(t, img, err, disk.ErrBackingFile, "data.raw")
		})
	}
}

// An image has its data in one file and continues in another, which has a data
// file as well.
func TestQCOW2DataFileInChains(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	base, top := filepath.Join(dir, "sub", "base"), filepath.Join(dir, "top")
	createEdited(t, base, "qcow2", "-o cluster_size=4k,data_file="+filepath.Join(dir, "sub", "data"), 1<<20, 1)
	createEdited(t, top, "qcow2", "-b sub/base -F qcow2 -o cluster_size=64k,data_file="+filepath.Join(dir, "data"), 3<<20+512, 2)
	want := disktest.Flat(t, top)
	testImage(t, top, disk.OpenOptions{BackingDir: dir}, want)

	// The same with names that are relative to the image that has them.
	renameDataFile(t, base, "data")
	renameDataFile(t, top, "data")
	testImage(t, top, disk.OpenOptions{BackingDir: dir}, want)
	img, err := disk.Open(top, disk.OpenOptions{BackingDir: filepath.Join(dir, "sub")})
	wantError(t, img, err, disk.ErrBackingFile, "outside of")
}

// renameDataFile changes the header extension that names the data file, from
// something longer.
func renameDataFile(t *testing.T, path, name string) {
	t.Helper()
	be := binary.BigEndian
	b := disktest.ReadFile(t, path)
	at := bytes.Index(b, []byte("DATA"))
	if at < 0 || len(name) > 8 || be.Uint32(b[at+4:]) < 24 {
		t.Fatalf("%s cannot be told of a data file %s", path, name)
	}
	// What of the old name is too long becomes an extension that is skipped.
	room := (be.Uint32(b[at+4:]) + 7) &^ 7
	be.PutUint32(b[at+4:], uint32(len(name)))
	copy(b[at+8:], append([]byte(name), make([]byte, 8)...)[:8])
	be.PutUint32(b[at+16:], 0x01010101)
	be.PutUint32(b[at+20:], room-16)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestQCOW2DataFileIsNotOpened(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inside := filepath.Join(dir, "a-long-name-for-the-folder-inside")
	if err := os.Mkdir(inside, 0o700); err != nil {
		t.Fatal(err)
	}
	// A raw extent that is called .vmdk is a guest's: what it says lies beside is none of the exception.
	path := filepath.Join(inside, "disk-flat.vmdk")
	createEdited(t, path, "qcow2", "-o data_file="+filepath.Join(inside, "secret"), 1<<20, 1)
	for name, test := range map[string]struct {
		o    disk.OpenOptions
		as   string
		kind error
		says string
	}{
		"beside a .vmdk":    {disk.OpenOptions{Extents: true}, "secret", disk.ErrBackingFile, "secret"},
		"nowhere":           {disk.OpenOptions{}, "secret", disk.ErrBackingFile, "secret"},
		"outside":           {disk.OpenOptions{BackingDir: inside}, "../b", disk.ErrBackingFile, "outside of"},
		"absolute, outside": {disk.OpenOptions{BackingDir: inside}, "/etc/rc", disk.ErrBackingFile, "outside of"},
		"missing":           {disk.OpenOptions{BackingDir: inside}, "none", os.ErrNotExist, "none"},
		"of a protocol":     {disk.OpenOptions{BackingDir: inside}, "nbd://a", disk.ErrBackingFile, "not the name of a file"},
		"a folder":          {disk.OpenOptions{BackingDir: dir}, ".", disk.ErrUnsupported, "not a regular file"},
	} {
		renamed := filepath.Join(inside, "renamed.vmdk")
		if err := os.WriteFile(renamed, disktest.ReadFile(t, path), 0o600); err != nil {
			t.Fatal(err)
		}
		renameDataFile(t, renamed, test.as)
		test.o.Format = disk.QCOW2
		img, err := disk.Open(renamed, test.o)
		if !errors.Is(err, test.kind) {
			t.Errorf("%s: got error %v", name, err)
		}
		wantError(t, img, err, test.kind, test.says)
	}
}

// What the tables of an image with a data file may say and QEMU does not write.
func TestQCOW2DataFileTables(t *testing.T) {
	t.Parallel()
	be := binary.BigEndian
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=64k,data_file="+filepath.Join(dir, "data"), path, "1M")
	disktest.QEMU(t, "qemu-io", "-t", "unsafe", "-f", "qcow2", "-c", "write -P 1 0 64k", "-c", "write -P 2 512k 64k", path)
	image := disktest.ReadFile(t, path)
	l2 := int(be.Uint64(image[be.Uint64(image[40:]):]) & (1<<56 - 512))
	if first := be.Uint64(image[l2:]); first != 1<<63 {
		t.Fatalf("the first cluster is %#x", first)
	}
	for name, test := range map[string]struct {
		entry uint64 // of the first cluster
		says  string // "": as QEMU reads it
	}{
		"at 0":            {1 << 63, ""},
		"unallocated":     {0, ""},
		"zeros":           {1<<63 | 1, ""},
		"another cluster": {1<<63 | 512<<10, "not at its place"},
		"compressed":      {1 << 62, "compressed cluster"},
		"beyond the file": {1<<63 | 64<<20, "the file ends"},
		"not aligned":     {1<<63 | 512, "not aligned"},
	} {
		be.PutUint64(image[l2:], test.entry)
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		if test.says == "" {
			testImage(t, path, disk.OpenOptions{BackingDir: dir}, disktest.Flat(t, path))
			continue
		}
		img, err := disk.Open(path, disk.OpenOptions{BackingDir: dir})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = img.ReadAt(make([]byte, 512), 0)
		wantError(t, nil, err, disk.ErrCorrupt, test.says)
		img.Close()
	}
}

func TestQCOW2RefusesEncryption(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "image")
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=key,data=secret", "-o", "encrypt.format=aes,encrypt.key-secret=key", path, "1M")
	img, err := disk.Open(path, disk.OpenOptions{})
	wantError(t, img, err, disk.ErrEncrypted, "AES")
	wantError(t, img, err, disk.ErrUnsupported, "AES")

	// A LUKS key takes QEMU long, and not every machine can measure how long.
	b := disktest.ReadFile(t, path)
	b[35] = 2
	img, err = disk.Open(disktest.WriteFile(t, "image", b), disk.OpenOptions{})
	wantError(t, img, err, disk.ErrEncrypted, "LUKS")
}

// Whatever format a backing file has, under qcow2's name for it.
func TestQCOW2OnEveryFormat(t *testing.T) {
	t.Parallel()
	for seed, base := range []string{
		"raw", "qcow2", "vmdk -o subformat=monolithicSparse", "vmdk -o subformat=monolithicFlat", "vmdk -o subformat=twoGbMaxExtentSparse",
		"vdi", "vdi -o static=on", "vpc", "vpc -o subformat=fixed", "vhdx", "vhdx -o subformat=fixed",
	} {
		t.Run(base, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			format, options, _ := strings.Cut(base, " ")
			// A size that VHD's cylinders, heads and sectors can say.
			createEdited(t, filepath.Join(dir, "base"), format, options, 2088960, uint64(seed))
			top := filepath.Join(dir, "top")
			createEdited(t, top, "qcow2", "-b base -F "+format+" -o cluster_size=4k", 4<<20, uint64(seed+100))
			testImage(t, top, disk.OpenOptions{BackingDir: dir}, disktest.Flat(t, top))
			img, err := disk.Open(top, disk.OpenOptions{})
			wantError(t, img, err, disk.ErrBackingFile, `"base"`)
		})
	}
}

// Four images, of sizes and clusters that go up and down; zeros over data, and
// data that was discarded over zeros.
func TestQCOW2LongChains(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var path, backing string
	for n, o := range []struct {
		options string
		size    int
	}{
		{"cluster_size=2M", 3<<20 + 512},
		{"cluster_size=512,compat=0.10", 1 << 20},
		{"cluster_size=16k,extended_l2=on", 4<<20 + 1024},
		{"cluster_size=64k,lazy_refcounts=on,refcount_bits=1", 2<<20 + 1536},
	} {
		path = filepath.Join(dir, fmt.Sprint(n))
		createEdited(t, path, "qcow2", backing+" -o "+o.options, o.size, uint64(n+40))
		disktest.QEMU(t, "qemu-io", "-t", "unsafe", "-f", "qcow2", "-c", fmt.Sprintf("write -P %d 100k 300k", n+1), "-c", "write -z 150k 70k", "-c", "discard 256k 64k", path)
		testImage(t, path, disk.OpenOptions{BackingDir: dir}, disktest.Flat(t, path))
		backing = fmt.Sprintf("-b %d -F qcow2", n)
	}
}

func TestQCOW2SnapshotsOfEverySort(t *testing.T) {
	t.Parallel()
	for _, o := range []string{"cluster_size=512", "cluster_size=64k,compat=0.10", "cluster_size=16k,extended_l2=on", "cluster_size=2M", "refcount_bits=64"} {
		t.Run(o, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "image")
			createEdited(t, filepath.Join(dir, "base"), "qcow2", "", 1<<20, 7)
			createEdited(t, path, "qcow2", "-b base -F qcow2 -o "+o, 2<<20, 8)
			sizes := map[string]int{"": 1 << 20, "large": 2 << 20, "small": 1 << 20}
			disktest.QEMU(t, "qemu-img", "snapshot", "-c", "large", path)
			if strings.Contains(o, "compat=0.10") { // which cannot shrink then
				sizes[""], sizes["small"] = 2<<20, 2<<20
			} else {
				disktest.QEMU(t, "qemu-img", "resize", "-q", "--shrink", path, "1M")
			}
			disktest.Edit(t, path, "qcow2", 1<<20, 9)
			disktest.QEMU(t, "qemu-img", "snapshot", "-c", "small", path)
			disktest.QEMU(t, "qemu-io", "-t", "unsafe", "-f", "qcow2", "-c", "write -P 99 0 1M", path)

			for name, size := range sizes {
				// QEMU reads as much of a snapshot as the disk has now.
				args := []string{path}
				if name != "" {
					args = []string{"-l", name, path}
				}
				want := disktest.Flat(t, args...)
				img, err := disk.Open(path, disk.OpenOptions{BackingDir: dir, Snapshot: name})
				if err != nil {
					t.Fatal(err)
				}
				if got := make([]byte, min(size, len(want))); img.Size() != int64(size) {
					t.Errorf("snapshot %q has %d bytes, want %d", name, img.Size(), size)
				} else if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, want[:len(got)]) {
					t.Errorf("snapshot %q differs, %v", name, err)
				}
				img.Close()
			}
			// What QEMU says that a larger snapshot holds, after going back to it.
			if sizes["large"] > sizes[""] {
				disktest.QEMU(t, "qemu-img", "snapshot", "-a", "large", path)
				testImage(t, path, disk.OpenOptions{BackingDir: dir, Snapshot: "large"}, disktest.Flat(t, path))
			}
		})
	}
}

// A snapshot of a running machine is half of it: its disk waits for what was in
// memory. The active state is not concerned.
func TestQCOW2SnapshotsWithMachineState(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "image")
	createEdited(t, path, "qcow2", "-o cluster_size=512", 2<<20, 3)
	disktest.QEMU(t, "qemu-img", "snapshot", "-c", "running", path)
	image := disktest.ReadFile(t, path)
	content := disktest.Flat(t, path)
	for name, patch := range map[string]func(entry []byte){
		"in 32 bits": func(entry []byte) { binary.BigEndian.PutUint32(entry[32:], 1<<20) },
		"in 64 bits": func(entry []byte) { binary.BigEndian.PutUint64(entry[40:], 1<<20) },
	} {
		b := bytes.Clone(image)
		patch(b[binary.BigEndian.Uint64(b[64:]):])
		path := disktest.WriteFile(t, "image", b)
		img, err := disk.Open(path, disk.OpenOptions{Snapshot: "running"})
		wantError(t, img, err, disk.ErrUnsupported, `snapshot "running" with the saved memory`)
		if list := disktest.QEMU(t, "qemu-img", "snapshot", "-l", path); name == "in 64 bits" && !strings.Contains(list, "1 MiB") {
			t.Errorf("%s: QEMU knows of no state:\n%s", name, list)
		}
		testImage(t, path, disk.OpenOptions{}, content)
	}
}

// What an image has besides the disk does not matter to who reads that.
func TestQCOW2Bitmaps(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "image")
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "2M")
	disktest.QEMU(t, "qemu-img", "bitmap", "--add", "-g", "64k", path, "daily")
	disktest.QEMU(t, "qemu-img", "bitmap", "--add", "--disable", path, "weekly")
	disktest.Edit(t, path, "qcow2", 2<<20, 5)
	testImage(t, path, disk.OpenOptions{}, disktest.Flat(t, path))
}
