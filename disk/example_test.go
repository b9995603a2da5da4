package disk_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/davit-oci/davit/disk"
)

// A disk is written to a compressed qcow2 image and read back. What order the
// format wants is no matter of the caller's.
func ExampleCreate() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "disk.qcow2")

	content := bytes.NewReader(append([]byte("boot sector"), make([]byte, 100<<20)...)) // any Reader is a disk
	write := func() error {
		f, err := disk.Create(path, disk.QCOW2Zstd, content, disk.CreateOptions{})
		if err != nil {
			return err
		}
		defer f.Abort() // does nothing after Close
		if err := disk.Copy(ctx, f, content, disk.CopyOptions{}); err != nil {
			return err
		}
		return f.Close() // now there is a file at path
	}
	if err := write(); err != nil {
		log.Fatal(err)
	}

	img, err := disk.Open(path, disk.OpenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer img.Close()
	head := make([]byte, 11)
	if _, err := img.ReadAt(head, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s of %d bytes: %s\n", img.Format(), img.Size(), head)
	// Output: qcow2 of 104858112 bytes: boot sector
}

// A raw disk goes to a pipe, which cannot seek.
func ExampleNewStreamWriter() {
	content := bytes.NewReader([]byte("the bytes of a disk\n"))
	w := disk.NewStreamWriter(os.Stdout, content.Size())
	if err := disk.Copy(context.Background(), w, content, disk.CopyOptions{}); err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	// Output: the bytes of a disk
}
