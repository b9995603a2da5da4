package disk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

func TestFormats(t *testing.T) {
	for _, test := range []struct {
		name    string
		format  disk.Format
		inOrder bool
		ext     string
	}{
		{"raw", disk.Raw, false, ".raw"},
		{"img", disk.Raw, false, ".raw"},
		{"qcow2", disk.QCOW2, false, ".qcow2"},
		{"qcow2:zlib", disk.QCOW2Zlib, true, ".qcow2"},
		{"qcow2:zstd", disk.QCOW2Zstd, true, ".qcow2"},
		{"vmdk", disk.VMDK, false, ".vmdk"},
		{"vmdk:sparse", disk.VMDK, false, ".vmdk"},
		{"vmdk:stream", disk.VMDKStream, true, ".vmdk"},
		{"vdi", disk.VDI, false, ".vdi"},
		{"vhd", disk.VHD, false, ".vhd"},
		{"vhd:dynamic", disk.VHD, false, ".vhd"},
		{"vhd:fixed", disk.VHDFixed, false, ".vhd"},
		{"vpc", disk.VHD, false, ".vhd"},
		{"vhdx", disk.VHDX, false, ".vhdx"},
	} {
		f, err := disk.ParseFormat(test.name)
		if err != nil || f != test.format || f.InOrder() != test.inOrder || f.Ext() != test.ext {
			t.Errorf("ParseFormat(%q) = %q, %v; in order: %t, extension %q", test.name, f, err, f.InOrder(), f.Ext())
		}
	}
	for _, name := range []string{"", "vmdk:flat", "qcow2:lz4", "RAW", "qed"} {
		if f, err := disk.ParseFormat(name); f != "" || !errors.Is(err, disk.ErrUnsupported) {
			t.Errorf("ParseFormat(%q) = %q, %v", name, f, err)
		}
	}
	for path, want := range map[string]disk.Format{
		"a/b.raw": disk.Raw, "b.IMG": disk.Raw, "c.QCow2": disk.QCOW2, "qcow2": "", "a.qcow2/b": "", "a.qed": "",
		"a.vmdk": disk.VMDK, "a.VDI": disk.VDI, "a.vhd": disk.VHD, "a.vhdx": disk.VHDX,
	} {
		if got, ok := disk.FormatOf(path); got != want || ok != (want != "") {
			t.Errorf("FormatOf(%q) = %q, %t", path, got, ok)
		}
	}
}

// wantError wants a refusal that is kind, says what is wrong, and has no image.
func wantError(t *testing.T, img *disk.Image, err, kind error, says string) {
	t.Helper()
	if !errors.Is(err, kind) || err != nil && !strings.Contains(err.Error(), says) {
		t.Errorf("got error %v, want one that is %q and says %s", err, kind, says)
	}
	if img != nil {
		t.Error("there is an image besides the error")
		img.Close()
	}
}

func TestOtherFormatsAreNotTakenForRaw(t *testing.T) {
	at := func(off int, magic string) []byte {
		b := make([]byte, 4096)
		copy(b[(off+len(b))%len(b):], magic)
		return b
	}
	for says, content := range map[string][]byte{
		"format QCOW":  at(0, "QFI\xfb\x00\x00\x00\x01"),
		"format QED":   at(0, "QED\x00"),
		"format DMG":   at(-512, "koly"),
		"VMware":       at(0, "\xd2\xbe\xd2\xbe\x08"),
		"VirtualBox":   at(0, "\x7fVirtualBox SavedState V2.0\n"),
		"saved memory": at(0, "LibvirtQemudSave"),
	} {
		path := disktest.WriteFile(t, "image", content)
		img, err := disk.Open(path, disk.OpenOptions{})
		wantError(t, img, err, disk.ErrUnsupported, says)
		testImage(t, path, disk.OpenOptions{Format: disk.Raw}, content)
	}

	// Nor are formats that are read, where there is no more than a beginning.
	for name, content := range map[string][]byte{
		"qcow2":           at(0, "QFI\xfb\x00\x00\x00\x03"),
		"VMDK":            at(0, "KDMV\x01"),
		"COWD":            at(0, "COWD\x01"),
		"VMDK descriptor": []byte("# Disk DescriptorFile\nversion=1\n"),
		"VDI":             at(0x40, "\x7f\x10\xda\xbe\x01\x00\x01\x00"),
		"VHDX":            at(0, "vhdxfile"),
		"dynamic VHD":     at(0, "conectix"),
	} {
		path := disktest.WriteFile(t, "image", content)
		if img, err := disk.Open(path, disk.OpenOptions{}); err == nil {
			t.Errorf("%s of %d bytes is opened", name, len(content))
			img.Close()
		}
		testImage(t, path, disk.OpenOptions{Format: disk.Raw}, content)
	}
}

// A VHD is told by either of its footers.
func TestDamagedVHD(t *testing.T) {
	content := disktest.Mixture(3<<20, 1)
	for _, format := range []disk.Format{disk.VHD, disk.VHDFixed} {
		path := filepath.Join(t.TempDir(), "image")
		create(t, path, format, bytes.NewReader(content), disk.WriteOptions{})
		image := disktest.ReadFile(t, path)
		damaged := [][]byte{image}
		if format == disk.VHD {
			head, tail := bytes.Clone(image), bytes.Clone(image)
			clear(head[:512])
			clear(tail[len(tail)-512:])
			damaged = append(damaged, head, tail)
		}
		for i, b := range damaged {
			img, err := disk.Open(disktest.WriteFile(t, "image", b), disk.OpenOptions{})
			if err != nil {
				t.Fatalf("%s, damage %d: %v", format, i, err)
			}
			if img.Format() != disk.VHD {
				t.Errorf("%s, damage %d: taken for %s", format, i, img.Format())
			}
			if err := disktest.TestReader(img, content); err != nil {
				t.Errorf("%s, damage %d: %v", format, i, err)
			}
			img.Close()
		}
	}
}

// The guest of a fixed VHD owns its first sector.
func TestVHDWithAnotherHeader(t *testing.T) {
	content := disktest.Mixture(1<<20, 1)
	copy(content, "QFI\xfb\x00\x00\x00\x03")
	path := filepath.Join(t.TempDir(), "image")
	create(t, path, disk.VHDFixed, bytes.NewReader(content), disk.WriteOptions{})
	img, err := disk.Open(path, disk.OpenOptions{})
	wantError(t, img, err, disk.ErrUnsupported, "a VHD by its end and qcow2 by its beginning")
	testImage(t, path, disk.OpenOptions{Format: disk.VHD}, content)
}

func TestOpenRefuses(t *testing.T) {
	img, err := disk.Open(filepath.Join(t.TempDir(), "none"), disk.OpenOptions{})
	wantError(t, img, err, fs.ErrNotExist, "none")
	img, err = disk.Open(t.TempDir(), disk.OpenOptions{})
	wantError(t, img, err, disk.ErrUnsupported, "neither")
	img, err = disk.Open(disktest.WriteFile(t, "image", nil), disk.OpenOptions{Format: disk.QCOW2})
	wantError(t, img, err, disk.ErrCorrupt, "not a qcow2 image")
	img, err = disk.Open(disktest.WriteFile(t, "image", nil), disk.OpenOptions{Format: "qed"})
	wantError(t, img, err, disk.ErrUnsupported, `"qed"`)
}

func TestRaw(t *testing.T) {
	for _, size := range []int{0, 1, 511, 4096, 1<<20 + 77} {
		content := disktest.Mixture(size, 1)
		testImage(t, disktest.WriteFile(t, "image", content), disk.OpenOptions{}, content)
	}
}

func TestHolesOfRawAreNoData(t *testing.T) {
	path := disktest.WriteFile(t, "image", nil)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("data"), 8<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1<<40 + 1); err != nil {
		t.Fatal(err)
	}
	img, err := disk.Open(path, disk.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if !disktest.KnowsHoles(t) {
		return
	}
	e, err := disk.NextExtent(img, 0)
	if err != nil || e.Offset > 8<<20 || e.Offset < 7<<20 || e.Length > 2<<20 {
		t.Errorf("first extent is %+v, %v", e, err)
	}
	if e, err := disk.NextExtent(img, e.End()); err != nil || e.Length != 0 {
		t.Errorf("second extent is %+v, %v", e, err)
	}
}

// An edited image is a qcow2 image after do.
func edited(t *testing.T, options string, do func(b []byte)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	source := disktest.WriteFile(t, "source.raw", disktest.Mixture(1<<20, 1))
	disktest.QEMU(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", options, source, path)
	b := disktest.ReadFile(t, path)
	do(b)
	return disktest.WriteFile(t, "edited", b)
}

func TestQCOW2RefusesByName(t *testing.T) {
	be := binary.BigEndian
	for name, test := range map[string]struct {
		do   func(b []byte)
		kind error
		says string
	}{
		"version 4":              {func(b []byte) { b[7] = 4 }, disk.ErrUnsupported, "version 4"},
		"AES":                    {func(b []byte) { b[35] = 1 }, disk.ErrUnsupported, "AES"},
		"LUKS":                   {func(b []byte) { b[35] = 2 }, disk.ErrUnsupported, "LUKS"},
		"other encryption":       {func(b []byte) { b[35] = 3 }, disk.ErrUnsupported, "encryption method 3"},
		"corrupt bit":            {func(b []byte) { b[79] |= 2 }, disk.ErrCorrupt, "marked as corrupt"},
		"external data file":     {func(b []byte) { b[79] |= 4 }, disk.ErrUnsupported, "external data file"},
		"unknown bit":            {func(b []byte) { b[72] |= 0x80 }, disk.ErrUnsupported, "bit 63"},
		"unknown bit, named":     {func(b []byte) { b[79] |= 0x20; rename(b, 5, "time travel") }, disk.ErrUnsupported, `"time travel" (bit 5)`},
		"compression type":       {func(b []byte) { b[79] |= 8; b[104] = 9 }, disk.ErrUnsupported, "compression type 9"},
		"zstd without its bit":   {func(b []byte) { b[104] = 1 }, disk.ErrCorrupt, "contradicts"},
		"zlib with a bit":        {func(b []byte) { b[79] |= 8 }, disk.ErrCorrupt, "contradicts"},
		"small subclusters":      {func(b []byte) { b[79] |= 16; b[23] = 13 }, disk.ErrCorrupt, "subclusters"},
		"clusters of 256 bytes":  {func(b []byte) { b[23] = 8 }, disk.ErrUnsupported, "2^8"},
		"clusters of 4 MiB":      {func(b []byte) { b[23] = 22 }, disk.ErrUnsupported, "2^22"},
		"huge header":            {func(b []byte) { b[100] = 0x70 }, disk.ErrCorrupt, "header length"},
		"huge extension":         {func(b []byte) { b[116] = 0x70 }, disk.ErrCorrupt, "extension"},
		"huge disk":              {func(b []byte) { b[24] = 0x7f }, disk.ErrUnsupported, "virtual size"},
		"huge L1 table":          {func(b []byte) { b[36] = 0x7f }, disk.ErrCorrupt, "L1 table"},
		"short L1 table":         {func(b []byte) { be.PutUint32(b[36:], 0) }, disk.ErrCorrupt, "L1 table"},
		"L1 table after the end": {func(b []byte) { b[42] = 1 }, disk.ErrCorrupt, "the file ends"},
		"L1 table not aligned":   {func(b []byte) { b[46]++ }, disk.ErrCorrupt, "start of a cluster"},
		"L1 table nowhere":       {func(b []byte) { be.PutUint64(b[40:], 0) }, disk.ErrCorrupt, "L1 table"},
		"backing file nowhere":   {func(b []byte) { b[8] = 1 }, disk.ErrCorrupt, "backing file name"},
	} {
		t.Run(name, func(t *testing.T) {
			path := edited(t, "cluster_size=64k", test.do)
			img, err := disk.Open(path, disk.OpenOptions{})
			wantError(t, img, err, test.kind, test.says)
		})
	}
}

// rename gives the first entry of the feature name table to another bit.
func rename(b []byte, bit byte, name string) {
	table := bytes.Index(b, []byte("\x68\x03\xf8\x57"))
	b[table+9] = bit
	copy(b[table+10:][:46], name+"\x00")
}

func TestDirtyImagesAreRead(t *testing.T) {
	path := edited(t, "lazy_refcounts=on", func(b []byte) { b[79] |= 1 })
	testImage(t, path, disk.OpenOptions{}, disktest.Mixture(1<<20, 1))
}

// What a table says is wrong when it is read, with the rest of the disk intact.
func TestQCOW2RefusesTables(t *testing.T) {
	be := binary.BigEndian
	l2 := func(b []byte) []byte { // the first entry that is used
		table := b[be.Uint64(b[be.Uint64(b[40:]):])&(1<<56-512):]
		for be.Uint64(table) == 0 {
			table = table[8:]
		}
		return table
	}
	for says, do := range map[string]func(b []byte){
		"L2 table of 4096 bytes at 0x1000000000": func(b []byte) { be.PutUint64(b[be.Uint64(b[40:]):], 0x10<<32) },
		"L2 table at 0x":                         func(b []byte) { b[be.Uint64(b[40:])+6] |= 2 },
		"not aligned":                            func(b []byte) { l2(b)[6] |= 2 },
		"data cluster at 0x":                     func(b []byte) { l2(b)[2] = 1 },
		"compressed cluster at 0x":               func(b []byte) { l2(b)[0] = 0x40; l2(b)[2] = 1 },
	} {
		img, err := disk.Open(edited(t, "cluster_size=4k", do), disk.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = img.ReadAt(make([]byte, img.Size()), 0)
		wantError(t, nil, err, disk.ErrCorrupt, says)
		img.Close()
	}

	for says, path := range map[string]string{
		"version 2":   edited(t, "cluster_size=4k,compat=0.10", func(b []byte) { l2(b)[7] |= 1 }),
		"subcluster ": edited(t, "cluster_size=16k,extended_l2=on", func(b []byte) { copy(l2(b)[8:], "\xff\xff\xff\xff\xff\xff\xff\xff") }),
	} {
		img, err := disk.Open(path, disk.OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = img.ReadAt(make([]byte, img.Size()), 0)
		wantError(t, nil, err, disk.ErrCorrupt, says)
		img.Close()
	}
}

// A file that is cut short is refused; or the cut is in its last data cluster,
// where QEMU makes such files itself, and the rest of that reads as zeros.
func TestTruncatedImages(t *testing.T) {
	t.Parallel()
	for _, o := range []string{"", "-c", "-c -o compression_type=zstd", "-o extended_l2=on,cluster_size=16k"} {
		source := disktest.WriteFile(t, "source.raw", disktest.Mixture(300<<10, 3))
		path := filepath.Join(t.TempDir(), "image")
		args := []string{"qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k"}
		disktest.QEMU(t, append(append(args, strings.Fields(o)...), source, path)...)
		image := disktest.ReadFile(t, path)
		whole, err := readAll(path)
		if err != nil {
			t.Fatal(err)
		}
		for cut := len(image) - 1; cut > 0; cut -= 1 + len(image)/150 {
			short := disktest.WriteFile(t, "short", image[:cut])
			got, err := readAll(short)
			switch {
			case err == nil && bytes.Equal(got, whole):
			case err == nil && !strings.Contains(o, "-c") && len(image)-cut < 16<<10:
				if !bytes.Equal(got, disktest.Flat(t, short)) {
					t.Errorf("%s: %d of %d bytes: QEMU reads something else", o, cut, len(image))
				}
			case !errors.Is(err, disk.ErrCorrupt):
				t.Errorf("%s: %d of %d bytes: got error %v", o, cut, len(image), err)
			}
		}
	}
}

func TestBackingFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	inside := filepath.Join(dir, "inside")
	content := disktest.Mixture(1<<20, 1)
	for _, d := range []string{inside, filepath.Join(inside, "sub"), filepath.Join(dir, "outside")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, "base"), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	overlay := func(name, backing, format string) string {
		t.Helper()
		path := filepath.Join(inside, name)
		disktest.QEMU(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", backing, path, "1M")
		b := disktest.ReadFile(t, path)
		if format != "raw" { // -u, but QEMU knows what it would refuse
			at := bytes.Index(b, []byte("\xe2\x79\x2a\xca"))
			if format == "" {
				copy(b[at:], "\x01\x01\x01\x01") // an extension that is skipped
			} else {
				binary.BigEndian.PutUint32(b[at+4:], uint32(copy(b[at+8:at+16], format)))
			}
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	symlink := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(inside, name)); err != nil {
			t.Fatal(err)
		}
	}
	symlink("sub/base", "link")
	symlink("../outside/base", "link-out")
	symlink("..", "up")
	symlink(filepath.Join(dir, "outside"), "dir-out")
	symlink("base-loop", "base-loop")

	// A raw disk whose guest wrote a header onto it stays raw.
	evil := disktest.ReadFile(t, overlay("evil-overlay", filepath.Join(dir, "outside", "base"), "raw"))
	if err := os.WriteFile(filepath.Join(inside, "evil"), evil, 0o600); err != nil {
		t.Fatal(err)
	}
	overlay("middle", "base", "raw")
	overlay("sub/middle", "../base", "raw")
	overlay("loop", "loop", "qcow2")
	overlay("loop2", "loop3", "qcow2")
	overlay("loop3", "loop2", "qcow2")
	overlay("deep0", "base", "raw")
	for n := 1; n <= 31; n++ {
		overlay(fmt.Sprint("deep", n), fmt.Sprint("deep", n-1), "qcow2")
	}

	padded := func(b []byte) []byte { return append(bytes.Clone(b), make([]byte, 1<<20-len(b))...) }
	for name, test := range map[string]struct {
		backing, format string
		want            []byte
		err             error
		says            string
	}{
		"relative":                   {backing: "base", format: "raw", want: content},
		"below":                      {backing: "sub/base", format: "raw", want: content},
		"out and in again":           {backing: "../inside/base", format: "raw", want: content},
		"absolute":                   {backing: filepath.Join(inside, "base"), format: "raw", want: content},
		"with file:":                 {backing: "file:base", format: "raw", want: content},
		"symlink":                    {backing: "link", format: "raw", want: content},
		"chain":                      {backing: "middle", format: "qcow2", want: content},
		"relative to each image":     {backing: "sub/middle", format: "qcow2", want: content},
		"chain of 30":                {backing: "deep28", format: "qcow2", want: content},
		"raw with a header":          {backing: "evil", format: "raw", want: padded(evil)},
		"no format, looks like none": {backing: "base", want: content},

		"no format, looks like one": {backing: "middle", err: disk.ErrBackingFile, says: "does not record the format"},
		"header of a guest":         {backing: "evil", err: disk.ErrBackingFile, says: "does not record the format"},
		"as the wrong format":       {backing: "base", format: "qcow2", err: disk.ErrCorrupt, says: "not a qcow2"},
		"as another format":         {backing: "base", format: "qed", err: disk.ErrUnsupported, says: `"qed"`},
		"outside":                   {backing: "../outside/base", format: "raw", err: disk.ErrBackingFile, says: "outside of"},
		"absolute outside":          {backing: "/etc/hostname", format: "raw", err: disk.ErrBackingFile, says: "outside of"},
		"symlink out":               {backing: "link-out", format: "raw", says: "escapes"},
		"symlink up":                {backing: "up/outside/base", format: "raw", says: "escapes"},
		"absolute symlink out":      {backing: "dir-out/base", format: "raw", says: "escapes"},
		"symlink to itself":         {backing: "base-loop", format: "raw", says: "base-loop"},
		"missing":                   {backing: "missing", format: "raw", err: fs.ErrNotExist, says: "missing"},
		"folder":                    {backing: "sub", format: "raw", err: disk.ErrUnsupported, says: "regular file"},
		"protocol":                  {backing: "nbd://localhost/base", format: "raw", err: disk.ErrBackingFile, says: "not the name of a file"},
		"JSON":                      {backing: `json:{"file.filename":"base"}`, format: "raw", err: disk.ErrBackingFile, says: "not the name of a file"},
		"itself":                    {backing: "loop", format: "qcow2", err: disk.ErrCorrupt, says: "loop"},
		"loop":                      {backing: "loop2", format: "qcow2", err: disk.ErrCorrupt, says: "loop"},
		"chain of 33":               {backing: "deep31", format: "qcow2", err: disk.ErrUnsupported, says: "more than 32"},
	} {
		t.Run(name, func(t *testing.T) {
			path := overlay("image", test.backing, test.format)
			img, err := disk.Open(path, disk.OpenOptions{})
			wantError(t, img, err, disk.ErrBackingFile, fmt.Sprintf("%q", test.backing))
			if test.want != nil {
				testImage(t, path, disk.OpenOptions{BackingDir: inside}, test.want)
				return
			}
			img, err = disk.Open(path, disk.OpenOptions{BackingDir: inside})
			if test.err == nil && err != nil {
				test.err = err
			}
			wantError(t, img, err, test.err, test.says)
		})
	}

	// Both folders may be called by other names than their own.
	overlay("image", "base", "raw")
	if err := os.Symlink(inside, filepath.Join(dir, "alias")); err != nil {
		t.Fatal(err)
	}
	testImage(t, filepath.Join(dir, "alias", "image"), disk.OpenOptions{BackingDir: inside}, content)
	testImage(t, filepath.Join(inside, "image"), disk.OpenOptions{BackingDir: filepath.Join(dir, "alias")}, content)
}

// Real images, see testdata/disks/ORIGIN.md. Their base, a raw disk, is not
// there, so one of zeros stands in.
func TestCorpus(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "testdata", "disks"))); err != nil {
		t.Fatal(err)
	}
	base, err := os.Create(filepath.Join(dir, "cirros.raw"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(base.Truncate(46137344), base.Close()); err != nil {
		t.Fatal(err)
	}
	images, err := filepath.Glob(filepath.Join(dir, "*.qcow2"))
	if err != nil || len(images) != 3 {
		t.Fatalf("got images %q, %v, want three", images, err)
	}
	for _, path := range images {
		img, err := disk.Open(path, disk.OpenOptions{BackingDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer img.Close()
		copied := filepath.Join(t.TempDir(), "copy.raw")
		create(t, copied, disk.Raw, img, disk.WriteOptions{})
		disktest.QEMU(t, "qemu-img", "compare", "-f", "qcow2", "-F", "raw", path, copied)
	}
}

func TestReaderContractHoldsForBytes(t *testing.T) {
	if err := disktest.TestReader(bytes.NewReader(disktest.Mixture(100000, 1)), disktest.Mixture(100000, 1)); err != nil {
		t.Error(err)
	}
}

// A suite that finds nothing tests nothing.
func TestReaderContractFindsFaults(t *testing.T) {
	content := disktest.Mixture(100000, 1)
	wrong := bytes.Clone(content)
	wrong[77777]++
	for name, r := range map[string]disk.Reader{
		"short":         bytes.NewReader(content[:99999]),
		"wrong byte":    bytes.NewReader(wrong),
		"wrong extents": noData{bytes.NewReader(content)},
		"no EOF":        noEOF{bytes.NewReader(content)},
	} {
		if err := disktest.TestReader(r, content); err == nil {
			t.Errorf("%s: no fault", name)
		}
	}
}

type noData struct{ *bytes.Reader }

func (noData) NextExtent(int64) (disk.Extent, error) { return disk.Extent{}, nil }

type noEOF struct{ *bytes.Reader }

func (r noEOF) ReadAt(p []byte, off int64) (int, error) {
	n, _ := r.Reader.ReadAt(p, off)
	return n, nil
}

// An image that is a part of something else reads as one in a file of its own, and opens nothing.
func TestOpenReader(t *testing.T) {
	var stream bytes.Buffer
	content := bytes.Repeat([]byte("content of a disk"), 10000)
	w, err := disk.NewVMDKStream(&stream, int64(len(content)), disk.WriteOptions{Name: "a.vmdk"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteAt(content, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	member := io.NewSectionReader(bytes.NewReader(append([]byte("before"), stream.Bytes()...)), 6, int64(stream.Len()))
	img, err := disk.OpenReader(member, disk.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	got := make([]byte, len(content))
	if n, err := img.ReadAt(got, 0); n < len(got) || !bytes.Equal(got, content) || img.Format() != disk.VMDK {
		t.Errorf("%s: read %d bytes, %v", img.Format(), n, err)
	}

	descriptor := []byte("# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\nRW 8 FLAT \"disk_test.go\" 0\n")
	if _, err := disk.OpenReader(bytes.NewReader(descriptor), disk.OpenOptions{Extents: true, BackingDir: "."}); !errors.Is(err, disk.ErrBackingFile) {
		t.Errorf("a descriptor in an archive: %v, want ErrBackingFile", err)
	}
}
