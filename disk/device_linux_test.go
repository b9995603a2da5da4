package disk

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Real devices are in device_loop_test.go.

func TestOpenDeviceRefusesFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, filepath.Dir(path), "/dev/null"} {
		if f, err := OpenDevice(path, 512); !errors.Is(err, ErrUnsupported) || f != nil {
			t.Errorf("OpenDevice(%s) = %v, %v", path, f, err)
		}
	}
	if f, err := OpenDevice(path+"2", 512); !errors.Is(err, os.ErrNotExist) || f != nil {
		t.Errorf("OpenDevice of nothing = %v, %v", f, err)
	}
}

func TestMountedAt(t *testing.T) {
	const mountinfo = `22 28 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 28 8:17 /sub /mnt/with\040space rw - xfs /dev/sdb1 rw
`
	for _, test := range []struct {
		devices []string
		want    string
	}{
		{[]string{"8:1"}, "/"},
		{[]string{"8:16", "8:17"}, `/mnt/with\040space`},
		{[]string{"8:16"}, ""},
		{[]string{"0:2"}, ""},
		{[]string{"1"}, ""},
	} {
		if got := mountedAt([]byte(mountinfo), test.devices); got != test.want {
			t.Errorf("mountedAt(%q) = %q, want %q", test.devices, got, test.want)
		}
	}
}

func TestPartitions(t *testing.T) {
	sysfs := t.TempDir()
	for name, content := range map[string]string{
		"8:0/dev":            "8:0\n",
		"8:0/sda1/dev":       "8:1\n",
		"8:0/sda1/partition": "1\n",
		"8:0/sda2/dev":       "259:3\n",
		"8:0/sda2/partition": "2\n",
		"8:0/queue/dev":      "1:1\n",
	} {
		path := filepath.Join(sysfs, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := partitions(sysfs, "8:0"), []string{"8:0", "8:1", "259:3"}; !slices.Equal(got, want) {
		t.Errorf("partitions = %q, want %q", got, want)
	}
	if got, want := partitions(sysfs, "8:1"), []string{"8:1"}; !slices.Equal(got, want) {
		t.Errorf("partitions of a partition = %q, want %q", got, want)
	}
}
