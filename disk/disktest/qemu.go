package disktest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/programs"
)

// QEMU runs qemu-img or qemu-io, which decide what an image holds, and returns
// what it prints.
func QEMU(t testing.TB, args ...string) string {
	t.Helper()
	out, err := qemu(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func qemu(t testing.TB, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), programs.Need(t, args[0]), args[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Flat is what QEMU says that an image holds; args end with its path.
func Flat(t testing.TB, args ...string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flat.raw")
	QEMU(t, append(append([]string{"qemu-img", "convert", "-t", "unsafe", "-O", "raw"}, args...), path)...)
	return ReadFile(t, path)
}

// Make has QEMU make an image of this content; args are options of qemu-img
// convert.
func Make(t testing.TB, path, format string, content []byte, args ...string) {
	t.Helper()
	source := WriteFile(t, "source.raw", content)
	args = append([]string{"qemu-img", "convert", "-t", "unsafe", "-f", "raw", "-O", format}, args...)
	QEMU(t, append(args, source, path)...)
}

// Edit has QEMU change a disk so that it has blocks of all kinds: data, parts of
// blocks, zeros, and, where the format has them, discarded ones.
func Edit(t testing.TB, path, format string, size int, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(9, seed))
	args := []string{"qemu-io", "-t", "unsafe", "-f", format}
	for range 12 {
		off := random.IntN(size/512) * 512
		n := min(512*(1+random.IntN(size/4096)), size-off)
		switch random.IntN(4) {
		case 0:
			args = append(args, "-c", fmt.Sprintf("write -z %d %d", off, n))
		case 1:
			args = append(args, "-c", fmt.Sprintf("discard %d %d", off, n))
		default:
			args = append(args, "-c", fmt.Sprintf("write -P %d %d %d", 1+random.IntN(255), off, n))
		}
	}
	QEMU(t, append(args, path)...)
}

// CreateFile creates a file, which is open as long as the test.
func CreateFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// WriteFile writes a file in a folder of its own.
func WriteFile(t testing.TB, name string, content []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ReadFile reads a file.
func ReadFile(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// KnowsHoles is true where tests of holes mean something: the file system of
// temporary files has them, and we can ask.
func KnowsHoles(t testing.TB) bool {
	t.Helper()
	f := CreateFile(t)
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	img, err := disk.Open(f.Name(), disk.OpenOptions{Format: disk.Raw})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	e, err := disk.NextExtent(img, 0)
	return err == nil && e.Length == 0
}
