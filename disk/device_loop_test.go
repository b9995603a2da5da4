//go:build linux && loop

// Tests of block devices. They need root and free loop devices, which not all
// machines have: go test -tags loop -run Device ./disk

package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// loop is a block device full of rubbish.
func loop(t *testing.T, size int, args ...string) string {
	t.Helper()
	path := disktest.WriteFile(t, "device", bytes.Repeat([]byte{0xee}, size))
	device := run(t, append(append([]string{"losetup", "--find", "--show"}, args...), path)...)
	t.Cleanup(func() { run(t, "losetup", "--detach", device) })
	return device
}

func TestDevice(t *testing.T) {
	const size = 12 << 20
	device := loop(t, size)
	var f *os.File
	wrote := int64(0)
	err := disktest.TestWriter(disktest.Target{
		Create: func(n int64, data iter.Seq2[disk.Extent, error]) (disk.Writer, error) {
			if f != nil {
				f.Close() // of a writer that was given up
			}
			var err error
			if f, err = disk.OpenDevice(device, n); err != nil {
				return nil, err
			}
			wrote = n
			return disk.NewWriter(f, disk.Raw, n, data, disk.WriteOptions{})
		},
		Open: func() (disk.Reader, error) {
			if err := errors.Join(f.Sync(), f.Close()); err != nil {
				return nil, err
			}
			img, err := disk.Open(device, disk.OpenOptions{Format: disk.Raw})
			if err != nil {
				return nil, err
			}
			if img.Size() != size {
				t.Errorf("size of the device is %d", img.Size())
			}
			return io.NewSectionReader(img, 0, wrote), nil
		},
	})
	if err != nil {
		t.Error(err)
	}
}

// A device says what sectors it has, and its content in another format does not.
func TestDeviceSectors(t *testing.T) {
	for _, want := range []int{512, 4096} {
		device := loop(t, 8<<20, "--sector-size", fmt.Sprint(want))
		img, err := disk.Open(device, disk.OpenOptions{Format: disk.Raw})
		if err != nil {
			t.Fatal(err)
		}
		if got := img.SectorSize(); got != want {
			t.Errorf("sectors of %d bytes, want %d", got, want)
		}
		img.Close()
	}
	device := loop(t, 8<<20, "--sector-size", "4096")
	disktest.QEMU(t, "qemu-img", "create", "-q", "-f", "qcow2", device, "16M")
	img, err := disk.Open(device, disk.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if got := img.SectorSize(); img.Format() != disk.QCOW2 || got != 0 {
		t.Errorf("%s on a device: sectors of %d bytes", img.Format(), got)
	}
}

func TestOpenDeviceRefuses(t *testing.T) {
	device := loop(t, 8<<20)
	if f, err := disk.OpenDevice(device, 8<<20+1); !errors.Is(err, disk.ErrTooSmall) || f != nil {
		t.Errorf("too small: got %v, %v", f, err)
	}

	f, err := disk.OpenDevice(device, 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := disk.OpenDevice(device, 8<<20); !errors.Is(err, disk.ErrInUse) || f != nil {
		t.Errorf("open already: got %v, %v", f, err)
	}
	f.Close()

	run(t, "mkfs.ext4", "-q", "-F", device)
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", device, dir)
	defer run(t, "umount", dir)
	if f, err := disk.OpenDevice(device, 512); !errors.Is(err, disk.ErrInUse) || f != nil {
		t.Errorf("mounted: got %v, %v", f, err)
	}
}
