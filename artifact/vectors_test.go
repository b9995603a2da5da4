package artifact

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/davit-oci/davit/verify"
)

// An artifactVector is a file of testdata/vectors; its README says what is in it.
type artifactVector struct {
	name   string
	header map[string]string
	store  *memory
	desc   ocispec.Descriptor
}

func loadVectors(t testing.TB) []artifactVector {
	t.Helper()
	paths, err := filepath.Glob("../testdata/vectors/*.vec")
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) < 200 {
		t.Fatalf("found only %d vectors", len(paths))
	}
	var all []artifactVector
	for _, path := range paths {
		v, err := loadVector(path)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, v)
	}
	return all
}

func loadVector(path string) (v artifactVector, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return v, err
	}
	v = artifactVector{name: strings.TrimSuffix(filepath.Base(path), ".vec"), header: map[string]string{}, store: newMemory()}
	r := bufio.NewReader(bytes.NewReader(b))
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return v, err
		}
		if line = strings.TrimSuffix(line, "\n"); line == "" {
			break
		}
		key, value, _ := strings.Cut(line, ": ")
		v.header[key] = value
	}
	mediaType := v.header["mediaType"]
	if mediaType == "" {
		mediaType = ocispec.MediaTypeImageManifest
	}
	v.desc = ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(v.header["manifest"])}
	for {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			return v, nil
		}
		if err != nil {
			return v, err
		}
		f := strings.Fields(line)
		n, err := strconv.Atoi(f[2])
		if err != nil {
			return v, err
		}
		blob := make([]byte, n)
		if _, err := io.ReadFull(r, blob); err != nil {
			return v, err
		}
		r.ReadByte()
		if len(f) == 5 {
			at, _ := strconv.Atoi(f[3])
			spaces, _ := strconv.Atoi(f[4])
			blob = bytes.Join([][]byte{blob[:at], bytes.Repeat([]byte(" "), spaces), blob[at:]}, nil)
		}
		if len(v.store.blobs) == 0 {
			v.desc.Size = int64(len(blob))
		}
		v.store.blobs["sha256:"+f[1]] = blob
	}
}

// pullAll reads all disks, in the given order, and compares them with what the
// vector says.
func (v *artifactVector) pullAll(t testing.TB, inOrder bool) error {
	im, err := openUnverified(t.Context(), v.store, v.desc, OpenOptions{Scratch: t.TempDir()})
	if err != nil {
		return err
	}
	defer im.Close()
	for _, d := range im.Disks {
		if d.Size > 1<<30 {
			return fmt.Errorf("the disk of %d bytes is too large for a test", d.Size)
		}
		w := &target{b: make([]byte, d.Size), ordered: inOrder}
		if _, err := d.Restore(t.Context(), w, RestoreOptions{}); err != nil {
			return err
		}
		r := d.Reader(t.Context())
		if got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size())); err != nil {
			return err
		} else if !bytes.Equal(got, w.b) {
			return fmt.Errorf("disk %s: read and restored content differ", d.Name)
		}
		if v.header["expect"] != "ok" {
			continue
		}
		prefix := "disk." + d.Name + "."
		if got, want := strconv.FormatInt(d.Size, 10), v.header[prefix+"size"]; got != want {
			t.Errorf("disk %s has %s bytes, want %s", d.Name, got, want)
		}
		if got, want := fmt.Sprintf("%x", sha256.Sum256(w.b)), v.header[prefix+"sha256"]; got != want {
			t.Errorf("disk %s hashes to %s, want %s", d.Name, got, want)
		}
		if got, want := string(Digest(d.Digest)), v.header[prefix+"digest"]; got != want {
			t.Errorf("disk %s has the digest %s, want %s", d.Name, got, want)
		}
	}
	if v.header["expect"] == "ok" {
		want := 0
		for k := range v.header {
			if strings.HasPrefix(k, "disk.") && strings.HasSuffix(k, ".size") {
				want++
			}
		}
		if len(im.Disks) != want {
			t.Errorf("%d disks, want %d", len(im.Disks), want)
		}
	}
	return nil
}

// Every vector is read as it says, by both ways of writing a disk.
func TestVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		t.Run(v.name, func(t *testing.T) {
			for _, inOrder := range []bool{false, true} {
				v.expect(t, v.header["expect"], v.pullAll(t, inOrder))
			}
			deep := v.header["deep"]
			if deep == "" {
				deep = v.header["expect"]
			}
			if v.header["profile"] != "" || strings.Contains(v.name, "profile") && deep == "ok" {
				return
			}
			v.expect(t, deep, v.checkAll(t))
		})
	}
}

func (v *artifactVector) checkAll(t testing.TB) error {
	im, err := openUnverified(t.Context(), v.store, v.desc, OpenOptions{Scratch: t.TempDir()})
	if err != nil {
		return err
	}
	defer im.Close()
	return im.Check(t.Context(), CheckOptions{Jobs: 2})
}

func (v *artifactVector) expect(t *testing.T, want string, err error) {
	t.Helper()
	part := refusedPart(err)
	switch want {
	case "ok":
		if err != nil {
			t.Errorf("refused: %v; %s", err, v.header["note"])
		}
	case "refused":
		if part == "" && !errors.Is(err, ErrNotArtifact) {
			t.Errorf("not refused: %v; %s", err, v.header["note"])
			return
		}
		said := false
		for _, word := range strings.FieldsFunc(v.header["reason"], func(r rune) bool { return r == ',' || r == ' ' }) {
			said = said || strings.Contains(err.Error(), word)
		}
		if !said {
			t.Errorf("the message does not name %q: %v", v.header["reason"], err)
		}
	case "newer":
		if !errors.Is(err, ErrNewer) || part != "" {
			t.Errorf("got %v, want that a newer davit is needed", err)
		}
	case "any":
	default:
		t.Errorf("expect: %q is unknown", want)
	}
}

// refusedPart is the part of an artifact that err refuses, "" if it refuses
// none. Package verify has compared the manifest with its digest before an
// artifact is opened.
func refusedPart(err error) string {
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return refused.Part
	}
	if _, ok := errors.AsType[*verify.UntrustedError](err); ok {
		return PartManifest
	}
	return ""
}
