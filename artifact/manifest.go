package artifact

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/strictjson"
)

// MaxManifest is the largest manifest that is read, in bytes: what registries
// accept, and a bound on what parsing costs.
const MaxManifest = 4 << 20

// A Manifest is the manifest of a machine image, in davit's words.
type Manifest struct {
	OVF         ocispec.Descriptor   // the config, or a layer in the gitlab form
	Disks       []DiskDescriptor     // in the order of the OVF's Disk elements
	Layers      []ocispec.Descriptor // with chunks, in the order of the layer table
	Files       []ocispec.Descriptor // of the package, in the order of the OVF's References
	Originals   []ocispec.Descriptor // how to build the source's package again: recipe and parts
	Annotations map[string]string
	Subject     *ocispec.Descriptor

	// Others are blobs that nothing of this package reads but [Image.Check]:
	// layers of types unknown here, and the config of the gitlab form. They
	// are not encoded.
	Others []ocispec.Descriptor

	// Gitlab says that the manifest has the form that GitLab's allow list
	// lets through: no artifactType, an OCI image config.
	Gitlab bool
}

// A DiskDescriptor describes the index of a disk.
type DiskDescriptor struct {
	Index  ocispec.Descriptor
	Name   string
	Size   int64 // virtual size, in bytes
	Sector int   // bytes of the sectors that the guest sees, 512 or 4096; 0: not said, which is 512
	Digest sum   // disk digest
	Head   sum   // SHA-256 of the index's head
}

var emptyJSON = ocispec.DescriptorEmptyJSON

// gitlabConfig is the config blob of the gitlab form.
var gitlabConfig = []byte(`{"architecture":"unknown","os":"unknown","rootfs":{"type":"layers","diff_ids":[]}}`)

// diskName is what a disk may be called: it becomes part of file names.
var diskName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// ValidDiskName reports whether a disk may have that name.
func ValidDiskName(s string) bool { return diskName.MatchString(s) }

func isChunkLayer(mediaType string) bool {
	return mediaType == TypeLayer || mediaType == TypeLayerZstd || mediaType == TypeLayerXZ
}

// Descriptor returns the descriptor of the index with its annotations.
func (d *DiskDescriptor) descriptor() ocispec.Descriptor {
	desc := d.Index
	desc.MediaType = TypeIndex
	desc.Annotations = map[string]string{
		AnnotationName:   d.Name,
		AnnotationDigest: string(Digest(d.Digest)),
		AnnotationSize:   strconv.FormatInt(d.Size, 10),
		AnnotationHead:   string(Digest(d.Head)),
	}
	if d.Sector != 0 && d.Sector != disk.DefaultSector {
		desc.Annotations[AnnotationSector] = strconv.Itoa(d.Sector)
	}
	return desc
}

// Encode returns the bytes of the manifest: compact JSON, members in the
// order of the image spec, annotations sorted.
func (m *Manifest) Encode() ([]byte, error) {
	out := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: TypeArtifact,
		Config:       m.OVF,
		Layers:       []ocispec.Descriptor{},
		Subject:      m.Subject,
		Annotations:  m.Annotations,
	}
	for i := range m.Disks {
		out.Layers = append(out.Layers, m.Disks[i].descriptor())
	}
	out.Layers = append(out.Layers, m.Layers...)
	if m.Gitlab {
		out.ArtifactType = ""
		out.Config = descriptorOf(ocispec.MediaTypeImageConfig, gitlabConfig)
		out.Layers = append(out.Layers, m.OVF)
	}
	out.Layers = append(out.Layers, m.Files...)
	out.Layers = append(out.Layers, m.Originals...)
	if m.withoutLayers() {
		empty := emptyJSON
		empty.Data = nil
		out.Layers = append(out.Layers, empty)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(out); err != nil {
		return nil, fmt.Errorf("encoding manifest: %w", err)
	}
	raw := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(raw) > MaxManifest {
		return nil, fmt.Errorf("the manifest would have %d bytes, more than %d", len(raw), MaxManifest)
	}
	return raw, nil
}

// withoutLayers reports whether a manifest has the empty blob in the place of
// layers: the image spec wants one at least.
func (m *Manifest) withoutLayers() bool {
	return len(m.Disks)+len(m.Layers)+len(m.Files)+len(m.Originals) == 0 && !m.Gitlab
}

func descriptorOf(mediaType string, b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// ParseManifest parses and checks a manifest, as docs/spec.md, "What a reader
// refuses" says. The caller has checked that raw has the digest of desc; its
// size and media type are checked here. The error wraps [ErrNotArtifact] when
// the manifest is a proper one of something else.
func ParseManifest(raw []byte, desc ocispec.Descriptor) (*Manifest, error) {
	bad := func(why string, args ...any) (*Manifest, error) {
		return nil, refuse(PartManifest, string(desc.Digest), why, args...)
	}
	if err := checkBlob(PartManifest, desc, raw); err != nil {
		return nil, err
	}
	if len(raw) > MaxManifest {
		return bad("it has %d bytes, more than %d", len(raw), MaxManifest)
	}
	if err := strictjson.CheckManifest(raw); err != nil {
		return bad("%v", err)
	}
	var in struct {
		ocispec.Manifest
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return bad("%v", err)
	}
	switch {
	case in.MediaType == "":
		return bad("it has no mediaType")
	case in.MediaType != desc.MediaType:
		return bad("its mediaType is %q, its descriptor says %q", in.MediaType, desc.MediaType)
	case in.Manifests != nil && in.Layers != nil:
		return bad("it has both layers and manifests")
	case in.MediaType != ocispec.MediaTypeImageManifest:
		return nil, fmt.Errorf("manifest %s of type %q: %w", desc.Digest, in.MediaType, ErrNotArtifact)
	case in.SchemaVersion != 2:
		return bad("its schemaVersion is %d", in.SchemaVersion)
	case len(in.Layers) == 0:
		return bad("it has no layers")
	}
	m := &Manifest{OVF: in.Config, Annotations: in.Annotations, Subject: in.Subject}
	switch {
	case in.ArtifactType == TypeArtifact && in.Config.MediaType == TypeOVF:
	case in.ArtifactType == "" && in.Config.MediaType == ocispec.MediaTypeImageConfig &&
		slices.ContainsFunc(in.Layers, func(l ocispec.Descriptor) bool { return l.MediaType == TypeOVF }):
		m.Gitlab = true
	case in.ArtifactType == TypeArtifact || in.Config.MediaType == TypeOVF:
		return bad("its artifactType is %q and its config is of type %q", in.ArtifactType, in.Config.MediaType)
	default:
		what := in.ArtifactType
		if what == "" {
			what = in.Config.MediaType
		}
		// Refused as well, but the reason is not an attack.
		return nil, fmt.Errorf("%w: %w", ErrNotArtifact, refuse(PartManifest, string(desc.Digest), "it is of type %q", what))
	}
	if err := checkDescriptor(in.Config); err != nil {
		return bad("its config: %v", err)
	}
	if m.Gitlab {
		m.Others = append(m.Others, in.Config)
	}

	seen := map[string]bool{}
	names := map[string]bool{}
	titles := map[string]bool{}
	for i, l := range in.Layers {
		if err := checkDescriptor(l); err != nil {
			return bad("layer %d: %v", i, err)
		}
		switch {
		case isChunkLayer(l.MediaType):
			if seen[string(l.Digest)] {
				return bad("layer %s is there twice", l.Digest)
			}
			seen[string(l.Digest)] = true
			m.Layers = append(m.Layers, l)
		case l.MediaType == TypeIndex:
			d, err := parseDisk(l)
			if err != nil {
				return bad("layer %d: %v", i, err)
			}
			if lower := strings.ToLower(d.Name); names[lower] {
				return bad("two disks are called %q", d.Name)
			} else {
				names[lower] = true
			}
			m.Disks = append(m.Disks, d)
		case l.MediaType == TypeOVF:
			if m.OVF.MediaType == TypeOVF {
				return bad("it has two OVFs")
			}
			m.OVF = l
		case strings.HasPrefix(l.MediaType, "application/vnd.davit.disk."):
			return nil, fmt.Errorf("manifest %s: %w: a layer is of type %q", desc.Digest, ErrNewer, l.MediaType)
		case isPackageFile(l.MediaType):
			title := l.Annotations[ocispec.AnnotationTitle]
			if err := checkTitle(title); err != nil {
				return bad("layer %d: %v", i, err)
			}
			if lower := strings.ToLower(title); titles[lower] {
				return bad("two files are called %q", title)
			} else {
				titles[lower] = true
			}
			m.Files = append(m.Files, l)
		case l.MediaType == TypeOriginal || l.MediaType == TypeOriginalPart:
			m.Originals = append(m.Originals, l)
		default:
			m.Others = append(m.Others, l)
		}
	}
	return m, nil
}

func isPackageFile(mediaType string) bool {
	return mediaType == TypeFile || mediaType == TypeNVRAM || mediaType == TypeOVFManifest || mediaType == TypeOVFCert
}

func checkDescriptor(d ocispec.Descriptor) error {
	if d.MediaType == "" {
		return errors.New("its descriptor has no mediaType")
	}
	if _, ok := parseDigest(d.Digest); !ok {
		return fmt.Errorf("%q is no SHA-256 digest in lower-case hex", d.Digest)
	}
	if d.Size < 0 {
		return errors.New("its size is negative")
	}
	return nil
}

// checkTitle says whether a package file may have that name: a relative path,
// with slashes, that means the same file on every system.
func checkTitle(s string) error {
	bad := len(s) > 255 || s == "" || strings.ContainsAny(s, "\\:") || strings.ContainsFunc(s, unicode.IsControl)
	for _, e := range strings.Split(s, "/") {
		bad = bad || e == "" || e == "." || e == ".."
	}
	if bad {
		return fmt.Errorf("%q cannot be the name of a file", s)
	}
	return nil
}

func parseDisk(l ocispec.Descriptor) (d DiskDescriptor, err error) {
	d = DiskDescriptor{Index: l, Name: l.Annotations[AnnotationName]}
	if !ValidDiskName(d.Name) {
		return d, fmt.Errorf("annotation %s is %q", AnnotationName, d.Name)
	}
	var ok bool
	if d.Digest, ok = parseDigest(digest.Digest(l.Annotations[AnnotationDigest])); !ok {
		return d, fmt.Errorf("annotation %s is %q", AnnotationDigest, l.Annotations[AnnotationDigest])
	}
	if d.Head, ok = parseDigest(digest.Digest(l.Annotations[AnnotationHead])); !ok {
		return d, fmt.Errorf("annotation %s is %q", AnnotationHead, l.Annotations[AnnotationHead])
	}
	size := l.Annotations[AnnotationSize]
	if d.Size, err = strconv.ParseInt(size, 10, 64); err != nil || d.Size < 0 || strconv.FormatInt(d.Size, 10) != size {
		return d, fmt.Errorf("annotation %s is %q", AnnotationSize, size)
	}
	// Who ignored one that it does not know would write a disk whose guest finds no partition.
	switch sector, ok := l.Annotations[AnnotationSector]; {
	case !ok:
	case sector == "512", sector == "4096":
		d.Sector, _ = strconv.Atoi(sector)
	default:
		return d, fmt.Errorf("annotation %s is %q", AnnotationSector, sector)
	}
	return d, nil
}
