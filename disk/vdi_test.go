package disk_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

// VirtualBox keeps a machine's snapshots in a folder below that of its first
// disk, and knows parents by UUID only.
func TestVDISnapshots(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "Snapshots"), 0o700); err != nil {
		t.Fatal(err)
	}
	const size = 2 << 20
	content := disktest.Mixture(size, 1)
	base := filepath.Join(dir, "machine.vdi")
	create(t, base, disk.VDI, bytes.NewReader(content), disk.WriteOptions{})

	// A snapshot is an empty disk that is made to continue in another.
	parent := disktest.ReadFile(t, base)
	for _, name := range []string{"{first}.vdi", "{second}.VDI"} {
		path := filepath.Join(dir, "Snapshots", name)
		create(t, path, disk.VDI, disktest.Sparse(make([]byte, size)), disk.WriteOptions{})
		image := disktest.ReadFile(t, path)
		binary.LittleEndian.PutUint32(image[76:], 4) // differencing
		copy(image[424:456], parent[392:424])        // UUIDs of the parent, and of its state
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		parent = image
	}
	second := filepath.Join(dir, "Snapshots", "{second}.VDI")
	testImage(t, second, disk.OpenOptions{BackingDir: dir}, content)

	// Other machines' disks, which are looked at to find the parent, are no part of it.
	for _, name := range []string{"another.vdi", filepath.Join("Snapshots", "another.vdi")} {
		create(t, filepath.Join(dir, name), disk.VDI, bytes.NewReader(content), disk.WriteOptions{})
	}
	wantFiles(t, second, disk.OpenOptions{BackingDir: dir}, second, filepath.Join(dir, "Snapshots", "{first}.vdi"), base)

	img, err := disk.Open(second, disk.OpenOptions{})
	wantError(t, img, err, disk.ErrBackingFile, "UUID {")
	img, err = disk.Open(second, disk.OpenOptions{BackingDir: filepath.Join(dir, "Snapshots")})
	wantError(t, img, err, disk.ErrBackingFile, "UUID {") // of the first disk
}

// wantFiles says whether the image at path consists of these files.
func wantFiles(t *testing.T, path string, o disk.OpenOptions, want ...string) {
	t.Helper()
	img, err := disk.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	var got []string
	for _, f := range img.Files() {
		got = append(got, filepath.Clean(f.Name()))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s consists of %q, want %q", path, got, want)
	}
}
