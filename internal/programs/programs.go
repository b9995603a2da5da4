// Package programs finds the programs that tests ask for a second opinion, or
// for files that are not davit's own work: QEMU, makers of file systems, other
// registries. A machine may lack any of them: then their tests are skipped, and
// say what would run them.
package programs

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// packages are those of Debian that have a program: .ci/packages installs them.
var packages = map[string]string{
	"7zz":                "7zip",
	"bash":               "bash",
	"bzip2":              "bzip2",
	"cp":                 "coreutils",
	"debugfs":            "e2fsprogs",
	"docker-registry":    "docker-registry",
	"dpkg-deb":           "dpkg",
	"dumpe2fs":           "e2fsprogs",
	"e2fsck":             "e2fsprogs",
	"fsck.fat":           "dosfstools",
	"gzip":               "gzip",
	"mcopy":              "mtools",
	"mdel":               "mtools",
	"mke2fs":             "e2fsprogs",
	"mkfs.fat":           "dosfstools",
	"mkfs.vfat":          "dosfstools",
	"mkfs.xfs":           "xfsprogs",
	"mkntfs":             "ntfs-3g",
	"mkswap":             "util-linux",
	"mmd":                "mtools",
	"ntfscat":            "ntfs-3g",
	"ntfscp":             "ntfs-3g",
	"ntfsfix":            "ntfs-3g",
	"ntfsinfo":           "ntfs-3g",
	"ntfsresize":         "ntfs-3g",
	"openssl":            "openssl",
	"qemu-img":           "qemu-utils",
	"qemu-io":            "qemu-utils",
	"qemu-system-x86_64": "qemu-system-x86 seabios",
	"sfdisk":             "fdisk",
	"sgdisk":             "gdisk",
	"sh":                 "dash",
	"skopeo":             "skopeo",
	"swtpm_setup":        "swtpm-tools ovmf",
	"tar":                "tar",
	"virsh":              "libvirt-clients",
	"virt-qemu-run":      "libvirt-daemon-driver-qemu",
	"xfs_db":             "xfsprogs",
	"xfs_repair":         "xfsprogs",
	"xmllint":            "libxml2-utils",
	"xz":                 "xz-utils",
	"zstd":               "zstd",
}

// built are the programs that .ci/tools builds.
var built = map[string]bool{"cosign": true, "crane": true, "govcsim": true, "oras": true, "registry": true}

// tools is where .ci/tools builds; it is asked for before a test sets another
// home folder.
var tools = func() string {
	if dir := os.Getenv("DAVIT_TOOLS"); dir != "" {
		return dir
	}
	home, _ := os.UserHomeDir() // without one there are no tools
	return filepath.Join(home, ".cache", "davit-tools", "bin")
}()

// Need returns the path of a program, or skips the test and says what would run
// it. Administrators' programs need not be in a user's PATH; those of .ci/tools
// are never taken from there, where one of that name may be in another version.
func Need(t testing.TB, name string) string {
	t.Helper()
	if built[name] {
		path, err := exec.LookPath(filepath.Join(tools, name))
		if err != nil {
			t.Skipf("%s is missing; what would run this test: .ci/tools", name)
		}
		return path
	}
	from := packages[name]
	if from == "" {
		t.Fatalf("package programs does not say where %s comes from", name)
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	t.Skipf("%s is missing; what would run this test: apt-get install %s", name, from)
	return ""
}
