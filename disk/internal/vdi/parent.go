package vdi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/davit-oci/davit/disk/internal/virtual"
)

// A uuid is an RTUUID: as in a GUID of Windows, its first three fields are
// little endian.
type uuid [16]byte

func (u uuid) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("{%08x-%04x-%04x-%x-%x}", le.Uint32(u[:]), le.Uint16(u[4:]), le.Uint16(u[6:]), u[8:10], u[10:])
}

// openParent finds the parent by its UUID.
func (h *header) openParent(folder virtual.Folder) (virtual.Reader, error) {
	missing := fmt.Errorf("%w: its parent is the VDI with UUID %v", virtual.ErrBackingFile, h.uuidLinkage)
	if folder == nil {
		return nil, missing
	}
	candidates, err := virtual.Candidates(folder, h.uuidLinkage.String()+".vdi")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", missing, err)
	}
	var changed error
	for _, name := range candidates {
		file, below, err := folder.Parent(name)
		if err != nil {
			// One of them is this image: that would be a loop.
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, virtual.ErrCorrupt) {
				missing = fmt.Errorf("%w: %w", missing, err)
			}
			continue
		}
		parent, err := readHeader(file)
		if err != nil || parent.uuidCreate != h.uuidLinkage {
			virtual.Forget(folder, file)
			continue
		}
		// VirtualBox refused this once, and does not look any more. But what is in
		// the parent now is not what this image was made for.
		if h.uuidParentModify != (uuid{}) && h.uuidParentModify != parent.uuidModify {
			changed = virtual.Corrupt("parent %q was changed: its modification UUID is %v, not %v", name, parent.uuidModify, h.uuidParentModify)
			virtual.Forget(folder, file)
			continue
		}
		r, err := Open(file, Options{Folder: below})
		if err != nil {
			return nil, fmt.Errorf("opening parent %q: %w", name, err)
		}
		return r, nil
	}
	if changed != nil {
		return nil, changed
	}
	return nil, missing
}
