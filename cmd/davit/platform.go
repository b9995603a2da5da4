package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// choosePlatform goes from an index of artifacts for several platforms to the
// one that is wanted, that of this host if platform is "". The index was
// verified, so its digest vouches for it.
func choosePlatform(ctx context.Context, repo *registry.Repository, t *trusted, platform string) (*trusted, error) {
	if t.Subject.MediaType != ocispec.MediaTypeImageIndex {
		return t, isForPlatform(t.Manifest, platform)
	}
	index, err := parseIndex(t.Manifest)
	if err != nil {
		return nil, err
	}
	want := cmp.Or(platform, "linux/"+runtime.GOARCH)
	var found []string
	for _, m := range index.Manifests {
		have := platformOf(m)
		found = append(found, cmp.Or(have, "none"))
		if samePlatform(want, have, platform == "") {
			return t.child(ctx, repo, m)
		}
	}
	return nil, fmt.Errorf("platform %s: %w: the index has %s", want, errNotFound, strings.Join(found, ", "))
}

// child goes from an index that passed to a manifest in it.
func (t *trusted) child(ctx context.Context, repo *registry.Repository, m ocispec.Descriptor) (*trusted, error) {
	out := *t
	out.Subject = ocispec.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: m.Size}
	raw, err := repo.Manifest(ctx, out.Subject)
	if err != nil {
		return nil, fmt.Errorf("in the index: %w", err)
	}
	out.Manifest = raw
	return &out, nil
}

// isForPlatform refuses a single artifact that is for another platform than the
// one that was asked for.
func isForPlatform(manifest []byte, platform string) error {
	if platform == "" {
		return nil
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil // is found out, and better said, by who opens it
	}
	if have := m.Annotations[artifact.AnnotationPlatform]; have != "" && !samePlatform(platform, have, false) {
		return fmt.Errorf("platform %s: %w: the artifact is for %s", platform, errNotFound, have)
	}
	return nil
}

// samePlatform compares OS/ARCH[/VARIANT]; anyOS compares the architecture only.
func samePlatform(want, have string, anyOS bool) bool {
	if !anyOS {
		return want == have || strings.HasPrefix(have, want+"/")
	}
	w, h := strings.Split(want, "/"), strings.Split(have, "/")
	return len(h) >= 2 && w[1] == h[1]
}

// platformArchitecture is the ARCH of OS/ARCH[/VARIANT].
func platformArchitecture(platform string) string {
	if parts := strings.Split(platform, "/"); len(parts) > 1 {
		return parts[1]
	}
	return ""
}

// checkPlatform says whether s is OS/ARCH[/VARIANT].
func checkPlatform(s string) error {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 {
		return usagef("--platform %s: not OS/ARCH[/VARIANT]", s)
	}
	for _, p := range parts {
		if p == "" || strings.ContainsFunc(p, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("_.-", r)
		}) {
			return usagef("--platform %s: not OS/ARCH[/VARIANT]", s)
		}
	}
	return nil
}
