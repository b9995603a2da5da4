package disk_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

// Images have paths of the host that they were on. Where nothing is there, the
// folder that the user names is looked in, and told of.
func TestMovedSecondFiles(t *testing.T) {
	t.Parallel()
	gone := filepath.Join(t.TempDir(), "gone", "images") // where all were made
	if err := os.MkdirAll(gone, 0o700); err != nil {
		t.Fatal(err)
	}
	at := func(dir, name string) string { return filepath.Join(dir, name) }
	createEdited(t, at(gone, "base.qcow2"), "qcow2", "", 1<<20, 1)
	createEdited(t, at(gone, "middle.qcow2"), "qcow2", "-F qcow2 -b "+at(gone, "base.qcow2"), 1<<20, 2)
	createEdited(t, at(gone, "top.qcow2"), "qcow2", "-F qcow2 -b "+at(gone, "middle.qcow2"), 1<<20, 3)
	createEdited(t, at(gone, "split.qcow2"), "qcow2", "-o data_file="+at(gone, "split.raw"), 1<<20, 4)
	disktest.Make(t, at(gone, "whole-flat.vmdk"), "raw", disktest.Mixture(1<<20, 5))
	descriptor := fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"vmfs\"\nRW 2048 VMFS %q\n", filepath.ToSlash(at(gone, "whole-flat.vmdk")))
	if err := os.WriteFile(at(gone, "whole.vmdk"), []byte(descriptor), 0o600); err != nil {
		t.Fatal(err)
	}
	windows := at(gone, "windows.qcow2")
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", windows, "1M")
	disktest.QEMU(t, "qemu-img", "rebase", "-u", "-F", "qcow2", "-b", `C:\images\base.qcow2`, windows)
	content := map[string][]byte{
		"top.qcow2": disktest.Flat(t, at(gone, "top.qcow2")), "split.qcow2": disktest.Flat(t, at(gone, "split.qcow2")),
		"whole.vmdk": disktest.ReadFile(t, at(gone, "whole-flat.vmdk")), "windows.qcow2": disktest.Flat(t, at(gone, "base.qcow2")),
	}

	home, shelf := t.TempDir(), t.TempDir() // the images are in one, what they continue in is in the other
	for name := range content {
		if err := os.Rename(at(gone, name), at(home, name)); err != nil {
			t.Fatal(err)
		}
	}
	// What is where the image says, and not in what is allowed, was not moved.
	for _, name := range []string{"base.qcow2", "middle.qcow2", "split.raw", "whole-flat.vmdk"} {
		if err := os.WriteFile(at(shelf, name), disktest.ReadFile(t, at(gone, name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"top.qcow2", "split.qcow2", "whole.vmdk"} {
		img, err := disk.Open(at(home, name), disk.OpenOptions{BackingDir: shelf})
		wantError(t, img, err, disk.ErrBackingFile, "is outside of "+shelf)
	}
	if err := os.RemoveAll(gone); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]disk.MovedFile{
		"top.qcow2":     {{Name: at(gone, "middle.qcow2"), Path: at(shelf, "middle.qcow2")}, {Name: at(gone, "base.qcow2"), Path: at(shelf, "base.qcow2")}},
		"split.qcow2":   {{Name: at(gone, "split.raw"), Path: at(shelf, "split.raw")}},
		"whole.vmdk":    {{Name: at(gone, "whole-flat.vmdk"), Path: at(shelf, "whole-flat.vmdk")}},
		"windows.qcow2": {{Name: `C:\images\base.qcow2`, Path: at(shelf, "base.qcow2")}},
	} {
		t.Run(name, func(t *testing.T) {
			path := at(home, name)
			testImage(t, path, disk.OpenOptions{BackingDir: shelf}, content[name])
			img, err := disk.Open(path, disk.OpenOptions{BackingDir: shelf})
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			if got := img.Moved(); !slices.Equal(got, want) {
				t.Errorf("moved %v, want %v", got, want)
			}
			img, err = disk.Open(path, disk.OpenOptions{})
			wantError(t, img, err, disk.ErrBackingFile, "")
			img, err = disk.Open(path, disk.OpenOptions{BackingDir: home}) // where nothing of it is
			wantError(t, img, err, disk.ErrBackingFile, "outside of")
		})
	}

	// An image may have the name of its backing file, and is not that.
	if err := os.Rename(at(home, "top.qcow2"), at(home, "middle.qcow2")); err != nil {
		t.Fatal(err)
	}
	testImage(t, at(home, "middle.qcow2"), disk.OpenOptions{BackingDir: shelf}, content["top.qcow2"])
	img, err := disk.Open(at(home, "middle.qcow2"), disk.OpenOptions{BackingDir: home})
	wantError(t, img, err, disk.ErrBackingFile, "outside of")

	// A chain that comes back to an image in it is a loop, also where it was moved.
	loop := t.TempDir()
	disktest.QEMU(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "/gone/b.qcow2", at(loop, "a.qcow2"), "1M")
	disktest.QEMU(t, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", "/gone/a.qcow2", at(loop, "b.qcow2"), "1M")
	img, err = disk.Open(at(loop, "a.qcow2"), disk.OpenOptions{BackingDir: loop})
	wantError(t, img, err, disk.ErrCorrupt, "is a loop")

	// What is no path of a file, and what is hidden, is not looked for.
	for _, name := range []string{"nbd://host/base.qcow2", `json:{"file.filename":"/x/base.qcow2"}`, "/gone/..", "/gone/.ssh"} {
		disktest.QEMU(t, "qemu-img", "rebase", "-u", "-F", "qcow2", "-b", name, at(home, "windows.qcow2"))
		img, err := disk.Open(at(home, "windows.qcow2"), disk.OpenOptions{BackingDir: shelf})
		wantError(t, img, err, disk.ErrBackingFile, "")
	}
}
