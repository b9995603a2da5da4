// Package vmdk reads and writes the virtual disks of VMware.
//
// The code follows "Virtual Disk Format 5.0", a technical note of VMware, with
// its words; section names in comments are of that text. A disk is one or more
// extents, which a descriptor lists: a text, in a file of its own or embedded
// in the only extent. [Open] reads them all: simple extents (FLAT, VMFS, ZERO),
// hosted sparse ones, compressed or not, those of ESX (VMFSSPARSE, SESPARSE),
// and deltas with their parents.
//
// Left out on purpose: devices and raw device mappings, encryption, repair by
// the redundant grain directory.
package vmdk

import (
	"bytes"
	"fmt"
	"path"
	"sort"
	"strings"

	"github.com/davit-oci/davit/disk/internal/mapped"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// Options are how an image is opened.
type Options struct {
	// Folder opens the extents of a descriptor file, and parents. If it is nil
	// an image that needs them is [virtual.ErrBackingFile].
	Folder virtual.Folder
}

// An Image is the content of a disk. It is safe for concurrent use.
type Image struct {
	*mapped.Image
	descriptor *descriptor

	extents []extent // in order, without gaps
	size    int64
	files   files

	// Of all extents, as there may be thousands; two, so that directories and
	// tables do not push each other out.
	directories, tables mapped.Tables
}

// An extent is a range of the disk, and where the files have it.
type extent struct {
	start, length int64
	kind          mapped.Kind // Data or Zeros, if not sparse
	host          int64       // of Data
	sparse        *sparse
}

// maxExtents bounds open files. A disk of 8 TB in extents of 2 GB has as many.
const maxExtents = 4096

// Open reads the descriptor and the headers of the extents, and opens the
// parent, if there is one. Memory is bounded whatever they say: a descriptor of
// 1 MiB, two caches of tables and one of decompressed grains of 1 MiB each (at
// least two grains), and three grains for each compressed one that is being
// read, one per CPU and one per place in the cache; all that for each parent
// again.
func Open(file virtual.Reader, o Options) (*Image, error) {
	i := &Image{}
	if err := i.open(file, o.Folder); err != nil {
		return nil, err
	}
	m := mapped.Mapping{File: i.files.reader(), Size: i.size, Lookup: i.lookup}
	i.directories.File, i.tables.File = m.File, m.File
	var err error
	if m.Parent, err = i.descriptor.openParent(o.Folder); err != nil {
		return nil, err
	}
	if s := i.extents; len(s) == 1 && s[0].sparse != nil && s[0].sparse.compressed {
		m.BlockSize, m.Decompress = s[0].sparse.grainSize, s[0].sparse.readCompressed
	}
	i.Image = mapped.New(m)
	return i, nil
}

func (i *Image) open(file virtual.Reader, folder virtual.Folder) error {
	start, err := virtual.ReadHead(file, headerSize)
	if err != nil {
		return err
	}
	switch {
	case hasMagic(start, magic):
		if i.descriptor, err = readEmbedded(file); err != nil {
			return err
		}
		return i.openSelf(file, (*sparse).openHosted)
	case hasMagic(start, cowMagic):
		if i.descriptor, err = readRoot(file); err != nil {
			return err
		}
		return i.openSelf(file, (*sparse).openCOW)
	case hasMagic(start, seMagic):
		return errNoDescriptor
	}
	if i.descriptor, err = readDescriptor(file); err != nil {
		return err
	}
	return i.openExtents(folder)
}

// hasMagic reports whether b begins with this magic number and has room for a
// header.
func hasMagic(b []byte, magic string) bool {
	return len(b) == headerSize && bytes.HasPrefix(b, []byte(magic))
}

// openSelf opens a file that is a disk by itself: the only extent, with the
// descriptor in it. Whatever the descriptor calls that extent, it is this file:
// renaming a disk does not change what is in it.
func (i *Image) openSelf(file virtual.Reader, open func(*sparse) error) error {
	s := i.sparse(openFile{Reader: file})
	if _, err := i.files.add(file); err != nil {
		return err
	}
	if err := open(s); err != nil {
		return err
	}
	switch lines := i.descriptor.extents; {
	case len(lines) > 1:
		return virtual.Unsupported("a sparse extent whose descriptor has %d extents", len(lines))
	case len(lines) == 1 && lines[0].size > s.size:
		// Other than that the header's capacity is the size, as for QEMU and
		// VMware's open-vmdk: it is what the tables map. Writers round up to
		// whole grains there, or nowhere.
		return virtual.Corrupt("the descriptor has %d bytes, the sparse extent %d", lines[0].size, s.size)
	}
	return i.add(extent{length: s.size, sparse: s})
}

func (i *Image) add(e extent) error {
	if e.length > maxSize-i.size {
		return virtual.Corrupt("extents of more than %d bytes", int64(maxSize))
	}
	e.start = i.size
	i.size += e.length
	i.extents = append(i.extents, e)
	return nil
}

// maxSize keeps all offsets far below 2^63.
const maxSize = 1 << 60

func (i *Image) sparse(f openFile) *sparse {
	return &sparse{directories: &i.directories, tables: &i.tables, base: f.base, file: f.Reader}
}

// openExtents opens the extents that the descriptor names.
func (i *Image) openExtents(folder virtual.Folder) error {
	if len(i.descriptor.extents) == 0 {
		return virtual.Corrupt("descriptor without extents")
	}
	opened := map[string]openFile{} // one file may have several extents
	for n, line := range i.descriptor.extents {
		e := extent{length: line.size, kind: mapped.Zeros}
		if line.kind != "ZERO" {
			f, ok := opened[line.name]
			if !ok {
				var err error
				if f, err = i.openExtent(line.name, folder); err != nil {
					return err
				}
				opened[line.name] = f
			}
			var err error
			if e, err = i.extent(line, f, n == 0); err != nil {
				return fmt.Errorf("opening extent %d, %q: %w", n+1, line.name, err)
			}
		}
		if err := i.add(e); err != nil {
			return err
		}
	}
	return nil
}

type openFile struct {
	virtual.Reader
	base int64
}

func (i *Image) openExtent(name string, folder virtual.Folder) (openFile, error) {
	local, err := i.descriptor.fileName(name)
	if err != nil {
		return openFile{}, err
	}
	if folder == nil {
		return openFile{}, fmt.Errorf("%w: extent %q", virtual.ErrBackingFile, name)
	}
	file, err := folder.Extent(local)
	if err != nil {
		return openFile{}, err
	}
	base, err := i.files.add(file)
	return openFile{file, base}, err
}

// extent is what a line of the descriptor says of the file f. The first is the
// beginning of the disk.
func (i *Image) extent(line extentLine, f openFile, first bool) (extent, error) {
	if line.kind == "FLAT" || line.kind == "VMFS" { // Simple Extents
		if size := f.Size(); line.offset > size || line.size > size-line.offset {
			return extent{}, virtual.Corrupt("%d bytes at %#x: the file ends at %#x", line.size, line.offset, size)
		}
		check := virtual.CheckDisk
		if !first && strings.EqualFold(path.Ext(line.name), ".vmdk") {
			// A split disk is cut anywhere, also before a file of its guest. What is
			// named so is nobody's archive or picture.
			check = virtual.CheckPart
		}
		if err := check(f, virtual.Sector); err != nil {
			return extent{}, err
		}
		return extent{length: line.size, kind: mapped.Data, host: f.base + line.offset}, nil
	}

	// What a sparse extent is its own header knows better than the line: in a
	// snapshot of a split disk SPARSE may be either kind. A descriptor in it
	// says nothing; the one that named it does.
	s := i.sparse(f)
	start, err := virtual.ReadHead(f, headerSize)
	if err != nil {
		return extent{}, err
	}
	switch {
	case hasMagic(start, magic):
		err = s.openHosted()
	case hasMagic(start, cowMagic):
		err = s.openCOW()
	case hasMagic(start, seMagic):
		err = s.openSESparse()
	default:
		err = virtual.Corrupt("not a sparse extent")
	}
	if err != nil {
		return extent{}, err
	}
	if s.compressed && len(i.descriptor.extents) > 1 {
		return extent{}, virtual.Unsupported("compressed grains in a disk of %d extents", len(i.descriptor.extents))
	}
	// Here the line's size is the size, for the extents behind it have their
	// places by it. A capacity may be rounded up to whole grains.
	if line.size > s.size {
		return extent{}, virtual.Corrupt("the descriptor has %d bytes, the sparse extent %d", line.size, s.size)
	}
	s.size = line.size
	return extent{length: line.size, sparse: s}, nil
}

// lookup finds how the disk is mapped from off on, for up to limit bytes.
func (i *Image) lookup(off, limit int64) (mapped.Run, error) {
	n := sort.Search(len(i.extents), func(n int) bool { return i.extents[n].start+i.extents[n].length > off })
	e := &i.extents[n]
	in := off - e.start
	limit = min(limit, e.length-in)
	if e.sparse == nil {
		return mapped.Run{Kind: e.kind, Length: limit, Host: e.host + in}, nil
	}
	r, err := e.sparse.lookup(in, limit)
	if err != nil {
		return r, fmt.Errorf("mapping disk offset %#x: %w", off, err)
	}
	return r, nil
}
