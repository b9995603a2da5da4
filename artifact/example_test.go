package artifact_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/verify"
)

// A store has blobs in memory. A registry, or a layout in a folder, does as well.
// It takes one blob at a time, which is why Jobs is 1 below.
type store map[digest.Digest][]byte

func (s store) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	b, ok := s[d.Digest]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s store) Push(_ context.Context, d ocispec.Descriptor, content io.Reader) (err error) {
	s[d.Digest], err = io.ReadAll(content)
	return err
}

// A disk becomes an artifact. What is left for the caller is to sign the
// descriptor, and then to tag it.
func ExamplePublish() {
	ctx := context.Background()
	repo := store{}
	disk := bytes.NewReader(bytes.Repeat([]byte("content of a disk "), 1<<16))
	packed, err := artifact.Pack(ctx, repo, []artifact.Source{{Name: "disk0", Reader: disk}}, artifact.PackOptions{Jobs: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer packed.Close()
	desc, err := artifact.Publish(ctx, repo, artifact.Content{
		OVF:      []byte(`<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"/>`),
		Packed:   packed,
		Platform: "linux/amd64",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(desc.MediaType)
	fmt.Println(len(packed.Layers), "layer,", len(repo), "blobs and manifests")
	// Output:
	// application/vnd.oci.image.manifest.v1+json
	// 1 layer, 4 blobs and manifests
}

// The disk of an artifact becomes a compressed qcow2 image. The user has named
// the artifact by its digest; package verify has the other ways to trust one.
func ExampleDisk_Restore() {
	ctx := context.Background()
	blobs := store{}
	desc := pushed(ctx, blobs)
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "disk.qcow2")

	restore := func() error {
		trusted, err := verify.Pinned(ctx, blobs, desc, desc.Digest)
		if err != nil {
			return err
		}
		img, err := artifact.Open(ctx, blobs, trusted.Subject, artifact.OpenOptions{Scratch: dir})
		if err != nil {
			return err
		}
		defer img.Close()
		d := img.Disk("root")
		f, err := disk.Create(path, disk.QCOW2Zstd, d.Reader(ctx), disk.CreateOptions{})
		if err != nil {
			return err
		}
		defer f.Abort() // does nothing after Close
		if _, err := d.Restore(ctx, f, artifact.RestoreOptions{}); err != nil {
			return err
		}
		return f.Close() // now there is a file at path
	}
	if err := restore(); err != nil {
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

// pushed is an artifact with one disk.
func pushed(ctx context.Context, blobs store) ocispec.Descriptor {
	content := bytes.NewReader(append([]byte("boot sector"), make([]byte, 100<<20)...))
	packed, err := artifact.Pack(ctx, blobs, []artifact.Source{{Name: "root", Reader: content}}, artifact.PackOptions{Jobs: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer packed.Close()
	desc, err := artifact.Publish(ctx, blobs, artifact.Content{OVF: []byte("<Envelope/>"), Packed: packed})
	if err != nil {
		log.Fatal(err)
	}
	return desc
}

// Some bytes of a disk are read out of a registry, without the disk. Whatever
// takes an io.ReaderAt can read so: a partition table, a file system.
func ExampleDisk_Reader() {
	ctx := context.Background()
	blobs := store{}
	desc := pushed(ctx, blobs)
	trusted, err := verify.Pinned(ctx, blobs, desc, desc.Digest)
	if err != nil {
		log.Fatal(err)
	}
	img, err := artifact.Open(ctx, blobs, trusted.Subject, artifact.OpenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer img.Close()
	r := img.Disk("root").Reader(ctx)
	word := make([]byte, 6)
	if _, err := r.ReadAt(word, 5); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%q, at byte 5 of %d\n", word, r.Size())
	// Output: "sector", at byte 5 of 104857611
}

// The machine of an artifact is described by an OVF.
func ExampleImage_ReadOVF() {
	ctx := context.Background()
	blobs := store{}
	desc := pushed(ctx, blobs)
	trusted, err := verify.Pinned(ctx, blobs, desc, desc.Digest)
	if err != nil {
		log.Fatal(err)
	}
	img, err := artifact.Open(ctx, blobs, trusted.Subject, artifact.OpenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer img.Close()
	ovf, err := img.ReadOVF(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", ovf)
	// Output: <Envelope/>
}

// The digest of a disk says whether two disks have the same content, in
// whatever files they are.
func ExampleScan() {
	content := bytes.NewReader(append([]byte("boot sector"), make([]byte, 100<<20)...))
	sum, err := artifact.Scan(context.Background(), content, artifact.ScanOptions{
		Found: func(c artifact.Chunk) error {
			fmt.Printf("%d bytes at %d\n", c.Length, c.Offset)
			return nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(artifact.Digest(sum))
	// Output:
	// 4096 bytes at 0
	// sha256:a8358fe8cab3943a9e50085dbe3d2d9100066cea2a716bf864b93f2dd8c6d51d
}
