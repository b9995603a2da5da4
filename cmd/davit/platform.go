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
	"github.com/davit-oci/davit/verify"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// choosePlatform goes from an index of artifacts for several platforms to the
// one that is wanted, that of this host if platform is "".
func choosePlatform(ctx context.Context, repo *registry.Repository, s verify.Subject, platform string) (verify.Subject, error) {
	if !s.IsIndex() {
		return s, isForPlatform(s.Manifest(), platform)
	}
	index, err := s.Index()
	if err != nil {
		return verify.Subject{}, err
	}
	want := cmp.Or(platform, "linux/"+runtime.GOARCH)
	var found []string
	for _, m := range index.Manifests {
		have := platformOf(m)
		found = append(found, cmp.Or(have, "none"))
		switch {
		case !samePlatform(want, have, platform == ""):
		case !registry.IsManifest(m.MediaType):
			return verify.Subject{}, fmt.Errorf("in the index: %s: %.100q is not the type of a manifest", m.Digest, m.MediaType)
		default:
			return s.Child(ctx, repo, m)
		}
	}
	return verify.Subject{}, fmt.Errorf("platform %s: %w: the index has %s", want, errNotFound, strings.Join(found, ", "))
}

// isForPlatform refuses a single artifact that is for another platform than the
// one that was asked for.
func isForPlatform(manifest []byte, platform string) error {
	if platform == "" {
		return nil
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return nil //nolint:nilerr // artifact.Open reports what is wrong with it
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
