package disk_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

// A descriptor's extents open if it is called .vmdk and they lie beside it, or
// if they lie in the folder that the user names; parents open only there.
func TestVMDKFiles(t *testing.T) {
	const size = 2<<20 + 512
	for seed, subformat := range []string{"monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"} {
		t.Run(subformat, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "disk.vmdk")
			disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat="+subformat, path, fmt.Sprint(size))
			disktest.Edit(t, path, "vmdk", size, uint64(seed))
			content := disktest.Flat(t, path)
			testImage(t, path, disk.OpenOptions{Extents: true}, content)
			testImage(t, path, disk.OpenOptions{BackingDir: dir}, content)

			img, err := disk.Open(path, disk.OpenOptions{})
			wantError(t, img, err, disk.ErrBackingFile, `"disk-`)

			renamed := filepath.Join(dir, "disk")
			if err := os.Rename(path, renamed); err != nil {
				t.Fatal(err)
			}
			img, err = disk.Open(renamed, disk.OpenOptions{Extents: true})
			wantError(t, img, err, disk.ErrBackingFile, `"disk-`)
			testImage(t, renamed, disk.OpenOptions{BackingDir: dir}, content)

			extents, err := filepath.Glob(filepath.Join(dir, "disk-*"))
			if err != nil || len(extents) != 1 {
				t.Fatal(extents, err)
			}
			name := fmt.Sprintf("extent %q", filepath.Base(extents[0]))
			if err := os.Remove(extents[0]); err != nil {
				t.Fatal(err)
			}
			img, err = disk.Open(renamed, disk.OpenOptions{BackingDir: dir})
			wantError(t, img, err, fs.ErrNotExist, name)
			if err := os.Mkdir(extents[0], 0o700); err != nil {
				t.Fatal(err)
			}
			img, err = disk.Open(renamed, disk.OpenOptions{BackingDir: dir})
			wantError(t, img, err, disk.ErrUnsupported, name)
		})
	}
}

// An original holds the files of its disks, all and no others.
func TestFilesOfAnImage(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", in("disk.vmdk"), "1M")
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", in("base.qcow2"), "1M")
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", in("top.qcow2"))
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+in("data.raw"), in("data.qcow2"), "1M")
	wantFiles(t, in("disk.vmdk"), disk.OpenOptions{Extents: true}, in("disk.vmdk"), in("disk-flat.vmdk"))
	wantFiles(t, in("top.qcow2"), disk.OpenOptions{BackingDir: dir}, in("top.qcow2"), in("base.qcow2"))
	wantFiles(t, in("data.qcow2"), disk.OpenOptions{BackingDir: dir}, in("data.qcow2"), in("data.raw"))
	wantFiles(t, in("base.qcow2"), disk.OpenOptions{BackingDir: dir}, in("base.qcow2"))
}

func TestVMDKParents(t *testing.T) {
	t.Parallel()
	const size = 2<<20 + 512
	dir := t.TempDir()
	var path string
	var backing []string
	for n, subformat := range []string{"twoGbMaxExtentFlat", "monolithicSparse", "monolithicSparse"} {
		path = filepath.Join(dir, fmt.Sprint(n, ".vmdk"))
		create := append([]string{"qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=" + subformat}, backing...)
		disktest.QEMU(t, append(create, path, fmt.Sprint(size))...)
		disktest.Edit(t, path, "vmdk", size, uint64(n))
		backing = []string{"-b", fmt.Sprint(n, ".vmdk"), "-F", "vmdk"}
	}
	content := disktest.Flat(t, path)
	testImage(t, path, disk.OpenOptions{BackingDir: dir}, content)
	img, err := disk.Open(path, disk.OpenOptions{Extents: true})
	wantError(t, img, err, disk.ErrBackingFile, "1.vmdk")

	// A parent that is not where the hint says is looked for beside the image.
	moved := filepath.Join(dir, "moved.vmdk")
	header, rest := string(disktest.ReadFile(t, path)[:512]), string(disktest.ReadFile(t, path)[512:])
	rest = strings.Replace(rest, "\x00", "", 1) // behind the descriptor, for the place that a longer name takes
	image := header + strings.Replace(rest, `Hint="1.vmdk"`, `Hint="/1.vmdk"`, 1)
	if err := os.WriteFile(moved, []byte(image), 0o600); err != nil {
		t.Fatal(err)
	}
	testImage(t, moved, disk.OpenOptions{BackingDir: dir}, content)

	if err := os.Remove(filepath.Join(dir, "1.vmdk")); err != nil {
		t.Fatal(err)
	}
	img, err = disk.Open(path, disk.OpenOptions{BackingDir: dir})
	wantError(t, img, err, disk.ErrBackingFile, `parent "1.vmdk"`)
}
