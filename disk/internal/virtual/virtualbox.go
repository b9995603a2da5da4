package virtual

import (
	"path"
	"strings"
)

// maxCandidates bounds the files that are opened to find a parent.
const maxCandidates = 256

// Candidates are the names of the files that may be the parent of an image
// of VirtualBox. None of its formats has a name of it, but a UUID: VirtualBox
// looks into its registry. There, a snapshot is in a folder Snapshots, where it
// is called by its own UUID, which is first, and the disk that all began with in
// the folder above.
func Candidates(f Folder, first string) ([]string, error) {
	beside, err := f.NamesIn(".")
	if err != nil {
		return nil, err
	}
	above, _ := f.NamesIn("..") // which may be out of bounds

	names := []string{first}
	add := func(dir string, found []string) {
		for _, name := range found {
			if strings.EqualFold(path.Ext(name), path.Ext(first)) && len(names) < maxCandidates {
				names = append(names, path.Join(dir, name))
			}
		}
	}
	add(".", beside)
	add("..", above)
	return names, nil
}
