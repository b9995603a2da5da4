package davit_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/ovf"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/sign"
	"github.com/davit-oci/davit/verify"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The whole way, up and down: a disk is packed, published and signed, and the tag
// moves last. Then the artifact is verified, and its disk becomes a qcow2 image. A
// layout in a folder stands for a registry: the reference is all that differs.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	private, public, err := sign.GenerateKey(nil)
	if err != nil {
		log.Fatal(err)
	}
	ref, err := registry.ParseReference("oci:" + filepath.Join(dir, "layout") + ":v1")
	if err != nil {
		log.Fatal(err)
	}
	repo, err := registry.Open(ctx, ref, registry.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer repo.Close()

	content := bytes.NewReader(append([]byte("boot sector"), make([]byte, 100<<20-11)...))
	if err := push(ctx, repo, content, private); err != nil {
		log.Fatal(err)
	}
	if err := pull(ctx, repo, filepath.Join(dir, "root.qcow2"), public); err != nil {
		log.Fatal(err)
	}

	img, err := disk.Open(filepath.Join(dir, "root.qcow2"), disk.OpenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer img.Close()
	head := make([]byte, 11)
	if _, err := img.ReadAt(head, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s of %d bytes: %s\n", img.Format(), img.Size(), head)
	// Output: qcow2 of 104857600 bytes: boot sector
}

// push makes an artifact of one disk. Nothing names it until it is signed.
func push(ctx context.Context, repo *registry.Repository, content disk.Reader, private []byte) error {
	key, err := sign.LoadKey(private, func() ([]byte, error) { return nil, nil })
	if err != nil {
		return err
	}
	packed, err := artifact.Pack(ctx, repo, []artifact.Source{{Name: "root", Reader: content}}, artifact.PackOptions{})
	if err != nil {
		return err
	}
	defer packed.Close()
	desc, err := artifact.Publish(ctx, repo, artifact.Content{
		OVF:    ovf.Bare([]machine.Disk{{Name: "root", Capacity: content.Size()}}),
		Packed: packed,
	})
	if err != nil {
		return err
	}
	if err := attachSignature(ctx, repo, desc, key); err != nil {
		return err
	}
	return repo.Tag(ctx, desc, "v1")
}

func attachSignature(ctx context.Context, repo *registry.Repository, desc ocispec.Descriptor, key *sign.Key) error {
	bundle, err := sign.Bundle(ctx, key, sign.Subject{Digest: desc.Digest})
	if err != nil {
		return err
	}
	manifest, blobs, err := sign.Referrer(desc, bundle, time.Now())
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if err := repo.Push(ctx, b.Descriptor, bytes.NewReader(b.Data)); err != nil {
			return err
		}
	}
	return repo.PushReferrer(ctx, manifest.Descriptor, manifest.Data)
}

// pull writes the disk of the artifact that the tag names, if the key has signed
// it.
func pull(ctx context.Context, repo *registry.Repository, path string, public []byte) error {
	key, err := verify.LoadPublicKey(public)
	if err != nil {
		return err
	}
	desc, err := repo.Resolve(ctx, "v1")
	if err != nil {
		return err
	}
	trusted, err := verify.Artifact(ctx, repo, desc, verify.Policy{Keys: []*verify.Key{key}})
	if err != nil {
		return err
	}
	img, err := artifact.Open(ctx, repo, trusted.Subject, artifact.OpenOptions{})
	if err != nil {
		return err
	}
	defer img.Close()
	d := img.Disk("root")
	f, err := disk.Create(path, disk.QCOW2, d.Reader(ctx), disk.CreateOptions{})
	if err != nil {
		return err
	}
	defer f.Abort() // does nothing after Close
	if _, err := d.Restore(ctx, f, artifact.RestoreOptions{}); err != nil {
		return err
	}
	return f.Close()
}
