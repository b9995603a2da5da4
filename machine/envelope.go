package machine

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ErrNotFound is wrapped by errors about a machine that an envelope does not
// have.
var ErrNotFound = errors.New("not found")

// A WhichError says that an envelope has several machines, and that one of them
// must be named.
type WhichError struct {
	IDs []string // of the machines; at least two
}

func (e *WhichError) Error() string {
	return fmt.Sprintf("%d machines: which one? It has %s", len(e.IDs), quoteAll(e.IDs))
}

func quoteAll(ids []string) string {
	var quoted []string
	for _, id := range ids {
		quoted = append(quoted, strconv.Quote(id))
	}
	return strings.Join(quoted, ", ")
}

// Only returns a copy of e that has one of its machines, and the disks of that
// machine: the machine with this ID, or with an empty id the only one. Errors are
// [ErrNotFound] and [WhichError].
func (e *Envelope) Only(id string) (*Envelope, error) {
	var ids []string
	var found []*Machine
	for _, m := range e.Machines {
		ids = append(ids, m.ID)
		if id == "" || m.ID == id {
			found = append(found, m)
		}
	}
	switch {
	case len(e.Machines) == 0 && id == "":
		return nil, fmt.Errorf("machine: %w: the collection has none", ErrNotFound)
	case len(found) == 0:
		return nil, fmt.Errorf("machine %q: %w: it has %s", id, ErrNotFound, cmp.Or(quoteAll(ids), "none"))
	case len(found) > 1 && id == "":
		return nil, &WhichError{ids}
	case len(found) > 1:
		return nil, fmt.Errorf("machine %q: %d machines have this ID", id, len(found))
	}
	one := *e
	one.Machines = found
	one.Disks = nil
	used := make(map[string]bool)
	for _, d := range found[0].Disks {
		used[d.Name] = true
	}
	for _, d := range e.Disks {
		if used[d.Name] || len(e.Machines) == 1 {
			one.Disks = append(one.Disks, d)
		}
	}
	return &one, nil
}

// AllUnread is what the descriptor says and the model does not hold, of the
// envelope and of its machines.
func (e *Envelope) AllUnread() []Loss {
	losses := e.Unread
	for _, m := range e.Machines {
		losses = slices.Concat(losses, m.Unread)
	}
	return losses
}

// Field is how a [Loss] names a field of machine i: with several machines it
// begins with the machine, as in "machines[1].nics[0].type".
func (e *Envelope) Field(i int, field string) string {
	if len(e.Machines) == 1 {
		return field
	}
	return fmt.Sprintf("machines[%d].%s", i, field)
}

// AddFile adds a file of this name to e.Files, unless e has it. An empty name adds
// nothing.
func (e *Envelope) AddFile(name string) {
	if name == "" || slices.ContainsFunc(e.Files, func(f File) bool { return f.Name == name }) {
		return
	}
	e.Files = append(e.Files, File{ID: fmt.Sprint("file", len(e.Files)), Name: name, Size: -1})
}

// SectorSize is what the envelope says of the logical sectors of the disk with
// this name, in bytes; 0 if it says nothing.
func (e *Envelope) SectorSize(disk string) int {
	for _, m := range e.Machines {
		for _, d := range m.Disks {
			if d.Name == disk && d.SectorSize != 0 {
				return d.SectorSize
			}
		}
	}
	return 0
}

// SetSectorSize says that disk i of the envelope has logical sectors of size
// bytes, also where the disk is attached. The usual size, 512, is noted as 0.
func (e *Envelope) SetSectorSize(i, size int) {
	if size == 512 {
		size = 0
	}
	e.Disks[i].SectorSize = size
	for _, m := range e.Machines {
		for n := range m.Disks {
			if m.Disks[n].Name == e.Disks[i].Name {
				m.Disks[n].SectorSize = size
			}
		}
	}
}

// Base is the last element of a path of any system.
func Base(path string) string {
	return path[strings.LastIndexAny(path, `/\`)+1:]
}
