package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// pushOriginal sends what is needed to build the files of the source again, byte
// for byte, beside what c has of them. It reads them once more.
func (p *pusher) pushOriginal(ctx context.Context, c *artifact.Content) ([]ocispec.Descriptor, error) {
	files, err := p.sourceFiles(c)
	if err != nil {
		return nil, fmt.Errorf("keeping the original: %w", err)
	}
	recipe, parts, err := appliance.NewRecipe(ctx, files)
	if err != nil {
		return nil, fmt.Errorf("keeping the original: %w", err)
	}
	data, err := recipe.Encode()
	if err != nil {
		return nil, fmt.Errorf("keeping the original: %w", err)
	}
	var descs []ocispec.Descriptor
	push := func(desc ocispec.Descriptor, open func() io.Reader) error {
		descs = append(descs, desc)
		return p.target.PushBlob(ctx, desc, func() (io.ReadCloser, error) { return io.NopCloser(open()), nil })
	}
	for _, part := range parts {
		desc := ocispec.Descriptor{MediaType: artifact.TypeOriginalPart, Digest: digest.Digest(part.Digest), Size: part.Size}
		if err := push(desc, part.Open); err != nil {
			return nil, err
		}
	}
	desc := ocispec.Descriptor{MediaType: artifact.TypeOriginal, Digest: digest.FromBytes(data), Size: int64(len(data))}
	return descs, push(desc, func() io.Reader { return bytes.NewReader(data) })
}

// checkOriginal refuses files that no original can have, before anything is sent.
func (p *pusher) checkOriginal() error {
	files, err := p.sourceFiles(new(artifact.Content))
	if err == nil {
		err = appliance.CheckNames(files)
	}
	if err != nil {
		return fmt.Errorf("keeping the original: %w", err)
	}
	return nil
}

// sourceFiles are all files that c was made of.
func (p *pusher) sourceFiles(c *artifact.Content) (files []appliance.SourceFile, err error) {
	add := func(name string, f *os.File) error {
		size, err := f.Seek(0, io.SeekEnd) // of a device as well
		if err != nil {
			return err
		}
		files = append(files, appliance.SourceFile{Name: name, Content: io.NewSectionReader(f, 0, size), Members: []appliance.Member{{Size: size}}})
		return nil
	}
	names := make([]string, len(p.images)) // of the files of disks
	if p.machines != nil {
		stored := make(map[string]string)
		if p.machines.OwnOVF {
			stored[p.machines.Descriptor.Name] = string(digest.FromBytes(c.OVF))
		}
		for _, f := range c.Files {
			stored[f.Annotations[ocispec.AnnotationTitle]] = string(f.Digest)
		}
		if files, err = p.machines.SourceFiles(stored); err != nil {
			return nil, err
		}
		for i, d := range p.machines.Envelope.Disks {
			names[i] = d.File
		}
	} else {
		for i, img := range p.images {
			names[i] = img.Name + extensions(img.Path)
			if err := add(names[i], img.File()); err != nil {
				return nil, err
			}
		}
	}
	paths := make(map[string]string) // where, by name
	for i, img := range p.images {
		if paths[names[i]], err = realPath(img.Path); err != nil && len(img.MoreFiles()) > 0 {
			return nil, err
		}
	}
	for i, img := range p.images {
		for _, f := range img.MoreFiles() {
			name, err := relativeTo(img.Path, f.Name())
			if err != nil {
				return nil, err
			}
			at, err := realPath(f.Name())
			if err != nil {
				return nil, err
			}
			name = path.Join(path.Dir(names[i]), name)
			other, ok := paths[name]
			if ok && other == at {
				continue // disks can share one
			}
			if ok || slices.ContainsFunc(files, func(have appliance.SourceFile) bool { return have.Name == name }) {
				return nil, fmt.Errorf("two files would be called %s, and %s is one of them: push the disks one by one", name, at)
			}
			paths[name] = at
			if err := add(name, f); err != nil {
				return nil, err
			}
		}
	}
	return files, nil
}

// extensions are those of a file's name that say what it is: .qcow2, .raw.xz.
func extensions(name string) string {
	ext := filepath.Ext(name)
	switch strings.ToLower(ext) {
	case ".gz", ".xz", ".zst", ".bz2":
		ext = filepath.Ext(strings.TrimSuffix(name, ext)) + ext
	}
	if !machine.IsPlainName("disk" + ext) {
		return ""
	}
	return ext
}

// relativeTo is the name of a file that the image at path names, as a name in
// the folder of that. An original is one folder.
func relativeTo(image, name string) (string, error) {
	var real [2]string
	for i, p := range []string{filepath.Dir(image), name} {
		var err error
		if real[i], err = realPath(p); err != nil {
			return "", err
		}
	}
	rel, err := filepath.Rel(real[0], real[1])
	if err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%s continues in %s, which lies outside of its folder", image, name)
	}
	return filepath.ToSlash(rel), nil
}

// realPath is absolute, and has no symbolic links.
func realPath(name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// pullOriginal writes the files that the artifact was pushed from.
func (o *pullOptions) pullOriginal(ctx context.Context, repo *registry.Repository, m *artifact.Manifest, dest string) (files []writtenFile, err error) {
	files = []writtenFile{}
	recipe, err := readRecipe(ctx, repo, m)
	if err != nil {
		return nil, err
	}
	paths, folder, err := originalPaths(recipe, dest)
	if err != nil || o.dryRun {
		return files, err
	}
	var total int64
	for _, f := range recipe.Files {
		total += f.Size
	}
	show := o.begin("pulling the original", total)
	defer show.end()
	var out wholefile.Set
	defer func() { out.Abandon(false) }()
	if folder != "" {
		if err := out.Folder(folder); err != nil {
			return nil, err
		}
	}
	fetch := func(ctx context.Context, b appliance.Blob) (io.ReadCloser, error) {
		rc, err := repo.Fetch(ctx, ocispec.Descriptor{MediaType: artifact.TypeOriginalPart, Digest: digest.Digest(b.Digest), Size: b.Size})
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{source.Counting(rc, show.add), rc}, nil
	}
	create := func(name string, size int64) (io.WriterAt, error) {
		var part *wholefile.Part
		var err error
		if folder != "" {
			if part, err = out.CreateBelow(folder, name, o.target.force); err == nil {
				err = part.Empty()
			}
		} else {
			part, err = out.CreateEmpty(dest, o.target.force)
		}
		if err != nil {
			return nil, err
		}
		files = append(files, writtenFile{Path: paths[name], Format: "original", Size: size})
		return part, part.Truncate(size)
	}
	if err := recipe.Restore(ctx, fetch, create); err != nil {
		return nil, err
	}
	return files, out.Commit()
}

func readRecipe(ctx context.Context, repo *registry.Repository, m *artifact.Manifest) (*appliance.Recipe, error) {
	i := slices.IndexFunc(m.Originals, func(d ocispec.Descriptor) bool { return d.MediaType == artifact.TypeOriginal })
	if i < 0 {
		return nil, errors.New("it was pushed without --keep-original: what compressed its disks would not give the same bytes again")
	}
	data, err := readBlob(ctx, repo, m.Originals[i], "the recipe of the original", appliance.MaxRecipe)
	if err != nil {
		return nil, err
	}
	listed := []appliance.Blob{{Digest: string(m.OVF.Digest), Size: m.OVF.Size}}
	for _, d := range slices.Concat(m.Files, m.Originals) {
		listed = append(listed, appliance.Blob{Digest: string(d.Digest), Size: d.Size})
	}
	recipe, err := appliance.ParseRecipe(data, listed)
	if err != nil {
		return nil, refusedError{"malformed", err}
	}
	return recipe, nil
}

// originalPaths says where the files of a recipe go, by name: to dest, if it is
// one file, or into the folder that dest is.
func originalPaths(recipe *appliance.Recipe, dest string) (paths map[string]string, folder string, err error) {
	info, err := os.Stat(dest)
	isDir := err == nil && info.IsDir() || strings.HasSuffix(dest, "/")
	if dest == "-" {
		return nil, "", usagef("--original: DEST is a file or a folder")
	}
	if len(recipe.Files) == 1 && !isDir {
		return map[string]string{recipe.Files[0].Name: dest}, "", nil
	}
	if err == nil && !isDir {
		return nil, "", usagef("%s: the original has %d files; DEST must be a folder", dest, len(recipe.Files))
	}
	paths = make(map[string]string)
	for _, f := range recipe.Files {
		paths[f.Name] = filepath.Join(dest, filepath.FromSlash(f.Name))
	}
	return paths, filepath.Clean(dest), nil
}
