package disk_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
)

// names are the files in a folder.
func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

// A file appears when it is complete.
func TestCreate(t *testing.T) {
	content := disktest.Mixture(3<<20+4096, 1)
	for _, format := range writable {
		dir := t.TempDir()
		path := filepath.Join(dir, "disk")
		f, err := disk.Create(path, format, disktest.Sparse(content), disk.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := disk.Copy(t.Context(), f, disktest.Sparse(content), disk.CopyOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: there before Close: %v", format, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		f.Abort() // has nothing left to do
		if err := f.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: closed again: %v", format, err)
		}
		if got := names(t, dir); len(got) != 1 || got[0] != "disk" {
			t.Errorf("%s: the folder has %q", format, got)
		}
		img, err := disk.Open(path, disk.OpenOptions{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(content))
		if _, err := img.ReadAt(got, 0); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s: wrong content, %v", format, err)
		}
		img.Close()
	}
}

// Nothing is left of a file that is not complete, and the one that was there is
// as it was.
func TestCreateLeavesNothing(t *testing.T) {
	r := bytes.NewReader(disktest.Mixture(4<<20, 1))
	p := make([]byte, 1<<20)
	for name, test := range map[string]struct {
		format disk.Format
		write  func(f *disk.File)
		want   error // of Close; nil: any
	}{
		"aborted":        {disk.VDI, func(f *disk.File) { f.Abort() }, disk.ErrAborted},
		"aborted stream": {disk.VMDKStream, func(f *disk.File) { disk.Abort(f) }, disk.ErrAborted},
		"wrong order": {disk.QCOW2Zstd, func(f *disk.File) {
			f.WriteAt(p, 1<<20)
			f.WriteAt(p, 0)
		}, disk.ErrOutOfOrder},
		"beyond the end": {disk.Raw, func(f *disk.File) { f.WriteAt(p, 4<<20) }, nil},
		"failed copy": {disk.QCOW2, func(f *disk.File) {
			disk.Copy(t.Context(), f, brokenReader{r, fs.ErrPermission}, disk.CopyOptions{})
		}, disk.ErrAborted},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "disk")
		for _, old := range []bool{false, true} {
			if old {
				if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			f, err := disk.Create(path, test.format, r, disk.CreateOptions{Replace: old})
			if err != nil {
				t.Fatal(err)
			}
			test.write(f)
			for range 2 {
				if err := f.Close(); err == nil || test.want != nil && !errors.Is(err, test.want) {
					t.Errorf("%s: closed: %v", name, err)
				}
			}
			got := names(t, dir)
			if !old && len(got) > 0 {
				t.Errorf("%s: the folder has %q", name, got)
			}
			if old && (len(got) != 1 || string(disktest.ReadFile(t, path)) != "old") {
				t.Errorf("%s: the folder has %q, or the old file has changed", name, got)
			}
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	dir := t.TempDir()
	r := bytes.NewReader(make([]byte, 1<<20))
	path := filepath.Join(dir, "disk")
	if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	if f, err := disk.Create(path, disk.Raw, r, disk.CreateOptions{}); !errors.Is(err, fs.ErrExist) || f != nil {
		t.Errorf("a file that is there: got %v, %v", f, err)
	}
	if f, err := disk.Create(dir, disk.Raw, r, disk.CreateOptions{Replace: true}); err == nil || f != nil {
		t.Errorf("a folder: got %v, %v", f, err)
	}
	if f, err := disk.Create(filepath.Join(dir, "none", "disk"), disk.Raw, r, disk.CreateOptions{}); !errors.Is(err, fs.ErrNotExist) || f != nil {
		t.Errorf("in no folder: got %v, %v", f, err)
	}
	if f, err := disk.Create(path, "qed", r, disk.CreateOptions{Replace: true}); !errors.Is(err, disk.ErrUnsupported) || f != nil {
		t.Errorf("unknown format: got %v, %v", f, err)
	}
	if runtime.GOOS != "windows" {
		link := filepath.Join(dir, "link")
		if err := os.Symlink(path, link); err != nil {
			t.Fatal(err)
		}
		if f, err := disk.Create(link, disk.Raw, r, disk.CreateOptions{}); !errors.Is(err, fs.ErrExist) || f != nil {
			t.Errorf("a link: got %v, %v", f, err)
		}
		os.Remove(link)
	}

	// Two at a time.
	first, err := disk.Create(path, disk.Raw, r, disk.CreateOptions{Replace: true})
	if err != nil {
		t.Fatal(err)
	}
	if f, err := disk.Create(path, disk.Raw, r, disk.CreateOptions{Replace: true}); err == nil || f != nil {
		t.Errorf("while another one writes it: got %v, %v", f, err)
	}
	first.Abort()
	if string(disktest.ReadFile(t, path)) != "old" {
		t.Error("the old file has changed")
	}

	// Somebody else is quicker.
	other := filepath.Join(dir, "other")
	f, err := disk.Create(other, disk.Raw, r, disk.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(other, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); !errors.Is(err, fs.ErrExist) || string(disktest.ReadFile(t, other)) != "theirs" {
		t.Errorf("a file that came meanwhile: got %v", err)
	}
	if got := names(t, dir); len(got) != 2 {
		t.Errorf("the folder has %q", got)
	}
}

// What others could not read before, they cannot read now; and what a disk says
// of itself is in its image.
func TestCreateKeeps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.vhdx")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := sectors{bytes.NewReader(disktest.Mixture(1<<20, 1)), 4096}
	f, err := disk.Create(path, disk.VHDX, r, disk.CreateOptions{Replace: true})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	if err := disk.Copy(t.Context(), f, r, disk.CopyOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := disk.Open(path, disk.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	if got := disk.SectorSize(img); got != 4096 {
		t.Errorf("sectors of %d bytes", got)
	}
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

type sectors struct {
	*bytes.Reader
	size int
}

func (s sectors) SectorSize() int { return s.size }
