package vmdk

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// # Delta links

// openParent opens the parent of the disk, nil if it has none.
func (d *descriptor) openParent(folder virtual.Folder) (virtual.Reader, error) {
	switch {
	case d.parentCID != noParent:
		return d.openByHint(folder)
	case d.parentUUID != "":
		return d.openByUUID(folder)
	}
	return nil, nil
}

// openByHint opens the file that the hint names: as it is, else beside the
// image, for disks are moved together.
func (d *descriptor) openByHint(folder virtual.Folder) (virtual.Reader, error) {
	if d.parentHint == "" {
		return nil, virtual.Corrupt("a delta that does not name its parent")
	}
	if folder == nil {
		return nil, fmt.Errorf("%w: parent %q", virtual.ErrBackingFile, d.parentHint)
	}
	name, err := d.fileName(d.parentHint)
	if err != nil {
		return nil, err
	}
	file, next, err := folder.Parent(name)
	if last := path.Base(name); notOpened(err) && last != name {
		if f, n, other := folder.Parent(last); other == nil {
			file, next, err = f, n, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", virtual.ErrBackingFile, err)
	}
	if err != nil {
		return nil, err
	}
	parent, err := Open(file, Options{Folder: next})
	if err != nil {
		return nil, fmt.Errorf("opening parent %q: %w", d.parentHint, err)
	}

	// The content ID changes with the first write to a disk after it was
	// opened. Somebody who wrote to the parent has broken the delta.
	if parent.descriptor.cid != d.parentCID {
		return nil, virtual.Corrupt("%q is not the parent, or has changed since: it has content ID %08x, wanted %08x",
			d.parentHint, parent.descriptor.cid, d.parentCID)
	}
	return parent, nil
}

func notOpened(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, virtual.ErrBackingFile)
}

// # Differencing images of VirtualBox

// openByUUID finds the parent by its UUID. VirtualBox does not use content IDs:
// all its images have the parentCID ffffffff and no hint.
func (d *descriptor) openByUUID(folder virtual.Folder) (virtual.Reader, error) {
	missing := fmt.Errorf("%w: its parent is the VMDK of VirtualBox with UUID %s", virtual.ErrBackingFile, d.parentUUID)
	if folder == nil {
		return nil, missing
	}
	candidates, err := virtual.Candidates(folder, "{"+d.parentUUID+"}.vmdk")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", missing, err)
	}
	for _, name := range candidates {
		file, next, err := folder.Parent(name)
		if err != nil {
			continue // it is not there, or is this image: that would be a loop
		}
		c, err := peek(file)
		if err != nil || c.uuid != d.parentUUID {
			virtual.Forget(folder, file)
			continue
		}
		if d.parentModification != "" && d.parentModification != c.modification {
			missing = virtual.Corrupt("parent %q has changed since: its modification UUID is %q, not %q",
				name, c.modification, d.parentModification)
			virtual.Forget(folder, file)
			continue
		}
		parent, err := Open(file, Options{Folder: next})
		if err != nil {
			return nil, fmt.Errorf("opening parent %q: %w", name, err)
		}
		return parent, nil
	}
	return nil, missing
}

// peek reads the descriptor of a file that may be the parent.
func peek(file virtual.Reader) (*descriptor, error) {
	start, err := virtual.ReadHead(file, headerSize)
	if err != nil {
		return nil, err
	}
	if !hasMagic(start, magic) {
		return readDescriptor(file)
	}
	return readEmbedded(file)
}
