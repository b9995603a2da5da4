package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// runChild is the main of a process that a test starts from its own binary, to kill it or to give it an environment.
func runChild(what string, args []string) int {
	ctx := context.Background()
	var err error
	switch what {
	case "resolve":
		err = childResolve(ctx, args[0])
		if errors.Is(err, ErrNotFound) {
			fmt.Fprint(os.Stdout, "not found")
			return 0
		}
	case "push":
		err = childPush(ctx, args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stdout, err)
		return 1
	}
	return 0
}

func childResolve(ctx context.Context, name string) error {
	ref, err := ParseReference(name)
	if err != nil {
		return err
	}
	r, err := Open(ctx, ref, Options{PlainHTTP: []string{"*"}})
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = r.Resolve(ctx, "")
	return err
}

// childPush pushes artifact after artifact until it is killed, and says the tag of each one that is done.
func childPush(ctx context.Context, name string) error {
	ref, err := ParseReference(name)
	if err != nil {
		return err
	}
	for i := range 1000 {
		r, err := Open(ctx, ref, Options{})
		if err != nil {
			return err
		}
		blob := noise(uint64(os.Getpid()*1000+i), 300<<10)
		config := []byte("{}")
		if err := r.Push(ctx, describe(ocispec.MediaTypeEmptyJSON, config), bytes.NewReader(config)); err != nil {
			return err
		}
		layer := describe(blobType, blob)
		if err := r.PushBlob(ctx, layer, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(blob)), nil }); err != nil {
			return err
		}
		m := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[{"mediaType":%q,"digest":%q,"size":%d}]}`,
			ocispec.MediaTypeImageManifest, ocispec.MediaTypeEmptyJSON, describe("", config).Digest, blobType, layer.Digest, layer.Size)
		desc := describe(ocispec.MediaTypeImageManifest, m)
		if err := r.Push(ctx, desc, bytes.NewReader(m)); err != nil {
			return err
		}
		tag := fmt.Sprintf("p%d-%d", os.Getpid(), i)
		if err := r.Tag(ctx, desc, tag); err != nil {
			return err
		}
		if err := r.Close(); err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, tag)
	}
	return nil
}
