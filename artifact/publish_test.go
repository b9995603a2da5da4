package artifact

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A recorder is a [Target] that notes what comes in which order.
type recorder struct {
	*memory
	order []string // media types
	lies  bool     // gives another manifest than it got
}

func (r *recorder) Push(ctx context.Context, d ocispec.Descriptor, content io.Reader) error {
	r.order = append(r.order, d.MediaType)
	return r.memory.Push(ctx, d, content)
}

func (r *recorder) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	rc, err := r.memory.Fetch(ctx, d)
	if err != nil || !r.lies {
		return rc, err
	}
	b, err := io.ReadAll(rc)
	return io.NopCloser(bytes.NewReader(bytes.ToUpper(b))), err
}

func TestPublish(t *testing.T) {
	file := func(t *testing.T, p Pusher, mediaType, name, content string) ocispec.Descriptor {
		desc, err := PushFile(t.Context(), p, File{Type: mediaType, Name: name, Content: strings.NewReader(content)})
		if err != nil {
			t.Fatal(err)
		}
		return desc
	}
	ovf := []byte("<Envelope/>")
	for _, test := range []struct {
		name    string
		content func(t *testing.T, r *recorder) Content
		order   []string
		refused string
	}{
		{"a machine without disks and files has the empty blob", func(*testing.T, *recorder) Content {
			return Content{OVF: ovf}
		}, []string{TypeOVF, ocispec.MediaTypeEmptyJSON, ocispec.MediaTypeImageManifest}, ""},
		{"a file is a layer", func(t *testing.T, r *recorder) Content {
			return Content{OVF: ovf, Files: []ocispec.Descriptor{file(t, r, TypeNVRAM, "vm.nvram", "variables")}}
		}, []string{TypeNVRAM, TypeOVF, ocispec.MediaTypeImageManifest}, ""},
		{"GitLab's form has a config of its own", func(*testing.T, *recorder) Content {
			return Content{OVF: ovf, Gitlab: true}
		}, []string{TypeOVF, ocispec.MediaTypeImageConfig, ocispec.MediaTypeImageManifest}, ""},
		{"a file of a type that no file has", func(t *testing.T, r *recorder) Content {
			return Content{OVF: ovf, Files: []ocispec.Descriptor{file(t, r, "text/plain", "notes.txt", "notes")}}
		}, []string{"text/plain"}, "the manifest would be refused: a package file has a type that no package file has"},
		{"a part of an original that is a file", func(t *testing.T, r *recorder) Content {
			return Content{OVF: ovf, Originals: []ocispec.Descriptor{file(t, r, TypeFile, "x", "x")}}
		}, []string{TypeFile}, "the manifest would be refused: a package file has a type that no package file has"},
		{"a part of an original of an unknown type", func(t *testing.T, r *recorder) Content {
			return Content{OVF: ovf, Originals: []ocispec.Descriptor{file(t, r, "text/plain", "x", "x")}}
		}, []string{"text/plain"}, "the manifest would be refused: a part of the original has a type that no part has"},
		{"two files of one name", func(t *testing.T, r *recorder) Content {
			f := file(t, r, TypeFile, "a.iso", "CD")
			return Content{OVF: ovf, Files: []ocispec.Descriptor{f, f}}
		}, []string{TypeFile}, `two files are called "a.iso"`},
		{"a target that gives another manifest back", func(_ *testing.T, r *recorder) Content {
			r.lies = true
			return Content{OVF: ovf}
		}, []string{TypeOVF, ocispec.MediaTypeEmptyJSON, ocispec.MediaTypeImageManifest}, "reading the manifest back: "},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &recorder{memory: newMemory()}
			c := test.content(t, r)
			desc, err := Publish(t.Context(), r, c)
			if !slices.Equal(r.order, test.order) {
				t.Errorf("pushed %q, want %q", r.order, test.order)
			}
			if test.refused != "" {
				if err == nil || !strings.Contains(err.Error(), test.refused) || desc.Digest != "" {
					t.Errorf("got %v, %v; want an error with %q", desc.Digest, err, test.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m, err := ParseManifest(r.blobs[string(desc.Digest)], desc)
			if err != nil {
				t.Fatal(err)
			}
			if m.Gitlab != c.Gitlab || len(m.Files) != len(c.Files) || string(r.blobs[string(m.OVF.Digest)]) != string(ovf) {
				t.Errorf("got %+v", m)
			}
			// Whatever the manifest names is there.
			for _, d := range slices.Concat([]ocispec.Descriptor{m.OVF}, m.Files, m.Others) {
				if _, ok := r.blobs[string(d.Digest)]; !ok {
					t.Errorf("a blob of type %s was not pushed", d.MediaType)
				}
			}
			if dry, err := Publish(t.Context(), new(DryRun), c); err != nil || dry.Digest != desc.Digest {
				t.Errorf("a dry run says %v, %v; want %v", dry.Digest, err, desc.Digest)
			}
		})
	}
}

func TestPublishAnnotations(t *testing.T) {
	c := Content{
		OVF:         []byte("<Envelope/>"),
		Annotations: map[string]string{"a": "b", ocispec.AnnotationCreated: "replaced", AnnotationPlatform: "kept"},
		Created:     time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)),
		Unverified:  true,
		Base:        BaseImage{"registry.example.com/base:1", Digest(sum{})},
	}
	before := maps.Clone(c.Annotations)
	m := newMemory()
	desc, err := Publish(t.Context(), m, c)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseManifest(m.blobs[string(desc.Digest)], desc)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"a":                               "b",
		ocispec.AnnotationCreated:         "2026-01-02T02:04:05Z",
		AnnotationPlatform:                "kept",
		AnnotationUnverified:              "true",
		ocispec.AnnotationBaseImageName:   "registry.example.com/base:1",
		ocispec.AnnotationBaseImageDigest: string(Digest(sum{})),
	}
	if !maps.Equal(got.Annotations, want) {
		t.Errorf("got %q, want %q", got.Annotations, want)
	}
	if !maps.Equal(c.Annotations, before) {
		t.Errorf("the caller's map was changed: %q", c.Annotations)
	}
}

// Where a target can begin again, it may.
func TestPushFileAgain(t *testing.T) {
	content := strings.NewReader("content")
	p := &repeating{memory: newMemory()}
	desc, err := PushFile(t.Context(), p, File{Type: TypeFile, Name: "f", Content: content})
	if err != nil || string(p.blobs[string(desc.Digest)]) != "content" || p.tries != 3 {
		t.Errorf("got %v, %v after %d tries", desc, err, p.tries)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := PushFile(ctx, p, File{Type: TypeFile, Name: "f", Content: content}); !errors.Is(err, stop) {
		t.Errorf("got %v, want %v", err, stop)
	}
}

type repeating struct {
	*memory
	tries int
}

func (p *repeating) PushBlob(ctx context.Context, desc ocispec.Descriptor, open func() (io.ReadCloser, error)) error {
	for p.tries = 1; ; p.tries++ {
		rc, err := open()
		if err != nil {
			return err
		}
		if p.tries < 3 { // the transfer breaks
			_, _ = io.CopyN(io.Discard, rc, 3)
			rc.Close()
			continue
		}
		defer rc.Close()
		return p.memory.Push(ctx, desc, rc)
	}
}
