package disk_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

// A child that Windows made, which names its parent by ".\win8.vhd".
func TestVHDChild(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	product := func(name string) []byte {
		return disktest.ReadFile(t, filepath.Join("internal", "vhd", "testdata", "disks", name))
	}
	child := filepath.Join(dir, "child.vhd")
	if err := os.WriteFile(child, product("win8-child.vhd"), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err := disk.Open(child, disk.OpenOptions{})
	wantError(t, img, err, disk.ErrBackingFile, `"win8.vhd"`)
	img, err = disk.Open(child, disk.OpenOptions{BackingDir: dir})
	wantError(t, img, err, disk.ErrBackingFile, `"win8.vhd"`)

	parent := filepath.Join(dir, "win8.vhd")
	if err := os.WriteFile(parent, product("vbox.vhd"), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err = disk.Open(child, disk.OpenOptions{BackingDir: dir})
	wantError(t, img, err, disk.ErrCorrupt, `"win8.vhd" is not the parent`)

	if err := os.WriteFile(parent, product("win8.vhd"), 0o600); err != nil {
		t.Fatal(err)
	}
	img, err = disk.Open(child, disk.OpenOptions{BackingDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if e, err := img.NextExtent(0); img.Size() != 40<<20 || e.Length != 0 || err != nil {
		t.Errorf("got %d bytes, extent %+v, %v, want an empty disk of 40 MiB", img.Size(), e, err)
	}
}

// A fixed disk is known by its footer, and the guest of a raw disk that makes
// one gets no more from it than a shorter disk.
func TestFixedVHDIsDetected(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "image")
	content := disktest.Mixture(2<<20, 1)
	create(t, path, disk.VHDFixed, disktest.Sparse(content), disk.WriteOptions{})
	img, err := disk.Open(path, disk.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if img.Format() != disk.VHD {
		t.Errorf("is %s", img.Format())
	}
	img.Close()
	testImage(t, path, disk.OpenOptions{}, content)
	testImage(t, path, disk.OpenOptions{Format: disk.Raw}, disktest.ReadFile(t, path))
}
