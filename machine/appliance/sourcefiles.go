package appliance

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// SourceFiles are all files that the appliance was opened from, as they are, of
// which [NewRecipe] makes an original: the archive, or the descriptor, the
// files of disks, and Files. Blobs are the digests of what the artifact has of
// them, by File.Name; the descriptor's may be among them.
//
// An archive is called as its descriptor is: what it is called on this host
// gets into no artifact. Of a machine that is not in an OVF, files that the
// image of a disk names in turn (extents, backing files) are not among them: who
// opens the image knows them.
func (a *Appliance) SourceFiles(blobs map[string]string) ([]SourceFile, error) {
	if a.options.DescriptorOnly {
		return nil, errDescriptorOnly
	}
	if a.Kind == OVA {
		name := path.Base(a.Descriptor.Name)
		f := SourceFile{Name: strings.TrimSuffix(name, path.Ext(name)) + ".ova", Content: a.source}
		for _, m := range a.archive {
			if digest := blobs[m.name]; digest != "" {
				f.Members = append(f.Members, Member{Offset: m.offset, Size: m.Size(), Digest: digest})
			}
		}
		return []SourceFile{f}, nil
	}
	files := []SourceFile{sourceFile(a.Descriptor.Name, a.Descriptor.Content, blobs)}
	add := func(name string, s Section) {
		if !slices.ContainsFunc(files, func(f SourceFile) bool { return f.Name == name }) {
			files = append(files, sourceFile(name, s, blobs))
		}
	}
	for _, d := range a.Disks {
		if d.File == "" {
			continue
		}
		if whole := a.chunks[d.File]; whole != nil {
			for _, p := range whole.files {
				add(p.name, p.Section)
			}
			continue
		}
		if f, ok := a.paths[d.File]; ok {
			s, err := f.open()
			if err != nil {
				return nil, fmt.Errorf("opening %q: %w", d.File, reason(err))
			}
			a.closeLater(s.Close)
			add(d.File, s)
			continue
		}
		add(d.File, a.members[d.File])
	}
	for _, f := range a.files {
		add(f.Name, f.Content)
	}
	return files, nil
}

// sourceFile is a file whose bytes may be those of a blob.
func sourceFile(name string, s Section, blobs map[string]string) SourceFile {
	return SourceFile{Name: name, Content: s, Members: []Member{{Size: s.Size(), Digest: blobs[name]}}}
}
