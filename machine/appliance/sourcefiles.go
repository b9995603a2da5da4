package appliance

import "errors"

// SourceFiles are all files that the appliance was opened from, as they are, of
// which [NewRecipe] makes an original: the archive, or the descriptor, the
// files of disks, and Files. Blobs are the digests of what the artifact has of
// them, by File.Name; the descriptor's may be among them.
//
// An archive is called as its descriptor is: what it is called on this host
// gets into no artifact. Of a machine that is not in an OVF, files that the
// image of a disk names in turn (extents, backing files) are not among them.
func (a *Appliance) SourceFiles(blobs map[string]string) ([]SourceFile, error) {
	return nil, errors.New("no appliance was opened")
}
