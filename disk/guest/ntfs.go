package guest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// An ntfs is an NTFS volume: all of it, even its own tables, lies in files. A
// file is a record of the master file table (MFT), and its content is one of
// the attributes there. The names are those of the Linux-NTFS documentation.
// Clusters have numbers on the volume (LCN) and in their attribute (VCN).
type ntfs struct {
	v           volume
	clusterSize int64
	clusters    int64
	recordSize  int64
	mft         ntfsStream
}

// Records of the MFT that are always the same.
const (
	ntfsMFT     = 0
	ntfsLogFile = 2
	ntfsVolume  = 3
	ntfsRoot    = 5
	ntfsBitmap  = 6
)

// openNTFS wants a volume that Windows has closed for good, without shadow copies.
func openNTFS(v volume) (iter.Seq2[disk.Extent, error], error) {
	n, err := readNTFSBoot(v)
	if err != nil {
		return nil, err
	}
	for _, step := range []func() error{
		n.openMFT, n.checkVolume, n.checkLogFile, n.checkHibernation, n.checkShadowCopies,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	bitmap, err := n.attribute(ntfsBitmap, attrData, "")
	if err != nil {
		return nil, fmt.Errorf("$Bitmap: %w", err)
	}
	// What is not initialised reads as zeros, which would be free.
	if need := virtual.DivUp(n.clusters, 8); bitmap.initialized < need {
		return nil, notClean("$Bitmap has %d bytes for %d clusters", bitmap.initialized, n.clusters)
	}
	return func(yield func(disk.Extent, error) bool) { n.free(bitmap, yield) }, nil
}

// # $Boot

func readNTFSBoot(v volume) (*ntfs, error) {
	b, err := load(v, 0, 512, "boot sector")
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	if string(b[3:11]) != "NTFS    " || b[510] != 0x55 || b[511] != 0xaa {
		return nil, unknown("boot sector that is none of NTFS")
	}
	// Fields of FAT: reserved sectors, tables, entries in the root, sectors.
	for _, i := range []int{14, 15, 16, 17, 18, 19, 20, 22, 23, 32, 33, 34, 35} {
		if b[i] != 0 {
			return nil, unknown("boot sector that is not only of NTFS")
		}
	}
	sectorSize := int64(le.Uint16(b[11:]))
	if bits.OnesCount64(uint64(sectorSize)) != 1 || sectorSize < 256 || sectorSize > 4096 {
		return nil, unknown("NTFS with sectors of %d bytes", sectorSize)
	}
	sectorsPerCluster := int64(b[13])
	if b[13] > 0x80 { // a power of 2
		sectorsPerCluster = 1 << min(-int8(b[13]), 31)
	}
	n := &ntfs{v: v, clusterSize: sectorsPerCluster * sectorSize}
	if bits.OnesCount64(uint64(n.clusterSize)) != 1 || n.clusterSize < 256 || n.clusterSize > 2<<20 {
		return nil, unknown("NTFS with clusters of %d sectors", sectorsPerCluster)
	}
	sectors := le.Uint64(b[40:])
	if sectors > uint64(v.Size()/sectorSize) {
		return nil, notClean("NTFS of %d sectors of %d bytes: the volume has %d bytes", sectors, sectorSize, v.Size())
	}
	n.clusters = int64(sectors) / sectorsPerCluster
	if n.clusters == 0 {
		return nil, notClean("NTFS without clusters")
	}
	if n.recordSize, err = n.sizeOf(b[64], "record"); err != nil {
		return nil, err
	}

	// The first records of the MFT are always where it begins, enough for the
	// one that says where it goes on.
	lcn := le.Uint64(b[48:])
	need := virtual.DivUp(n.recordSize, n.clusterSize)
	if lcn == 0 || lcn >= uint64(n.clusters) || need > n.clusters-int64(lcn) {
		return nil, notClean("MFT at cluster %d of %d", lcn, n.clusters)
	}
	n.mft = ntfsStream{n: n, runs: []ntfsRun{{0, int64(lcn), need}}, size: n.recordSize, initialized: n.recordSize}
	return n, nil
}

// sizeOf is the size of a record: in clusters if b is positive, else a power
// of two, in bytes.
func (n *ntfs) sizeOf(b byte, what string) (int64, error) {
	size := int64(int8(b)) * n.clusterSize
	if size < 0 {
		size = 1 << min(-int64(int8(b)), 62)
	}
	if bits.OnesCount64(uint64(size)) != 1 || size < 512 || size > 64<<10 {
		return 0, unknown("NTFS with %ss of %d bytes", what, size)
	}
	return size, nil
}

// # FILE records

const fixupStride = 512 // of any sector size

// fixup checks the update sequence of a record and puts back what it took the
// place of: the last two bytes of each stride are a number, so that a record
// that was half written shows.
func fixup(b []byte, magic string) error {
	le := binary.LittleEndian
	if string(b[:4]) != magic {
		return notClean("%q in the place of a record %q", b[:4], magic)
	}
	off, n := int(le.Uint16(b[4:])), int(le.Uint16(b[6:]))
	if n != len(b)/fixupStride+1 || off+2*n > fixupStride-2 {
		return notClean("update sequence of %d words at %d in %d bytes", n, off, len(b))
	}
	sequence := b[off:][:2*n]
	for i := 1; i < n; i++ {
		last := b[i*fixupStride-2:][:2]
		if !bytes.Equal(last, sequence[:2]) {
			return notClean("a record %q was half written", magic)
		}
		copy(last, sequence[2*i:])
	}
	return nil
}

// A reference names a file: a number in the MFT, and above its 48 bits how
// often that was used before.
type reference uint64

func (r reference) number() int64 { return int64(r & (1<<48 - 1)) }

// openMFT finds all of the MFT.
func (n *ntfs) openMFT() error {
	// Its runs come to be known while they are read: those behind the first
	// are listed in records that lie in those before.
	b, err := n.record(ntfsMFT)
	if err != nil {
		return err
	}
	first := n.mft.runs[0].lcn
	n.mft = ntfsStream{n: n}
	if err := n.gather(b, ntfsMFT, attrData, "", &n.mft); err != nil {
		return fmt.Errorf("$MFT: %w", err)
	}
	if len(n.mft.runs) == 0 || n.mft.runs[0].lcn != first {
		return notClean("the MFT is not where the boot sector has it")
	}
	return nil
}

// record reads a record of the MFT that is in use.
func (n *ntfs) record(number int64) ([]byte, error) {
	if number < 0 || number >= n.mft.initialized/n.recordSize {
		return nil, notClean("record %d: the MFT has %d", number, n.mft.initialized/n.recordSize)
	}
	b := make([]byte, n.recordSize)
	if err := n.mft.read(b, number*n.recordSize); err != nil {
		return nil, fmt.Errorf("record %d of the MFT: %w", number, err)
	}
	if err := fixup(b, "FILE"); err != nil {
		return nil, fmt.Errorf("record %d of the MFT: %w", number, err)
	}
	le := binary.LittleEndian
	if flags := le.Uint16(b[22:]); flags&1 == 0 {
		return nil, notClean("record %d of the MFT is not in use", number)
	}
	used := le.Uint32(b[24:])
	if int64(used) > n.recordSize || used < 48 {
		return nil, notClean("record %d of the MFT has %d bytes", number, used)
	}
	return b[:used], nil
}

// # Attributes

const (
	attrList              = 0x20
	attrVolumeInformation = 0x70
	attrData              = 0x80
	attrIndexRoot         = 0x90
	attrIndexAllocation   = 0xa0
	attrBitmap            = 0xb0
	attrEnd               = 0xffffffff

	// attrListMax is what Windows allows.
	attrListMax = 256 << 10

	// ntfsMaxRuns is more than an attribute list of that size has room for in
	// files that anybody has seen: it bounds the memory for one attribute, with 24
	// bytes each.
	ntfsMaxRuns = 1 << 16
)

// A ntfsAttr is an attribute, or a piece of it.
type ntfsAttr struct {
	kind      uint32
	name      string
	flags     uint16 // compressed, encrypted, sparse
	instance  uint16
	resident  bool
	content   []byte // if resident
	lowestVCN int64  // and what follows: if not
	pairs     []byte // mapping pairs
	highest   int64  // VCN
	size      int64
	inited    int64
}

// attributes parses those of a record.
func (n *ntfs) attributes(record []byte) ([]ntfsAttr, error) {
	var attrs []ntfsAttr
	le := binary.LittleEndian
	off := int(le.Uint16(record[20:]))
	for {
		if off > len(record)-4 {
			return nil, notClean("a record has no end of attributes")
		}
		b := record[off:]
		if le.Uint32(b) == attrEnd {
			return attrs, nil
		}
		if len(b) < 24 || le.Uint32(b[4:]) < 24 || uint64(le.Uint32(b[4:])) > uint64(len(b)) {
			return nil, notClean("an attribute is not inside its record")
		}
		b = b[:le.Uint32(b[4:])]
		off += len(b)

		a := ntfsAttr{kind: le.Uint32(b), flags: le.Uint16(b[12:]), instance: le.Uint16(b[14:]), resident: b[8] == 0}
		name, ok := utf16At(b, int(le.Uint16(b[10:])), int(b[9]))
		if !ok {
			return nil, notClean("the name of an attribute is not inside of it")
		}
		a.name = name
		if a.resident {
			length, at := uint64(le.Uint32(b[16:])), uint64(le.Uint16(b[20:]))
			if at > uint64(len(b)) || length > uint64(len(b))-at {
				return nil, notClean("content of %d bytes is not inside its attribute", length)
			}
			a.content = b[at:][:length]
		} else {
			if len(b) < 64 || int(le.Uint16(b[32:])) > len(b) {
				return nil, notClean("mapping pairs are not inside their attribute")
			}
			a.lowestVCN, a.highest = int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:]))
			a.size, a.inited = int64(le.Uint64(b[48:])), int64(le.Uint64(b[56:]))
			a.pairs = b[le.Uint16(b[32:]):]
		}
		attrs = append(attrs, a)
	}
}

// utf16At is the string of n characters at off of b.
func utf16At(b []byte, off, n int) (string, bool) {
	if n == 0 {
		return "", true
	}
	if off > len(b) || 2*n > len(b)-off {
		return "", false
	}
	u := make([]uint16, n)
	for i := range u {
		u[i] = binary.LittleEndian.Uint16(b[off+2*i:])
	}
	return string(utf16.Decode(u)), true
}

// attribute is all of an attribute of a file.
func (n *ntfs) attribute(record int64, kind uint32, name string) (*ntfsStream, error) {
	b, err := n.record(record)
	if err != nil {
		return nil, err
	}
	s := &ntfsStream{n: n}
	return s, n.gather(b, record, kind, name, s)
}

// errNoAttribute is [ErrNotClean] where the attribute has to be there.
var errNoAttribute = notClean("an attribute is missing")

// gather puts all pieces of an attribute of a file together; b is its record.
// Usually there is one piece. What does not fit in one record is in others,
// which are listed in an attribute of its own.
func (n *ntfs) gather(b []byte, record int64, kind uint32, name string, s *ntfsStream) error {
	attrs, err := n.attributes(b)
	if err != nil {
		return err
	}
	list := slices.IndexFunc(attrs, func(a ntfsAttr) bool { return a.kind == attrList })
	if list < 0 {
		for _, a := range attrs {
			if a.kind == kind && a.name == name {
				if err := s.append(a); err != nil {
					return err
				}
			}
		}
		return s.check()
	}

	content := &ntfsStream{n: n}
	if err := content.append(attrs[list]); err != nil {
		return err
	}
	if err := content.check(); err != nil {
		return fmt.Errorf("attribute list: %w", err)
	}
	if content.size > attrListMax {
		return notClean("attribute list of %d bytes", content.size)
	}
	entries := make([]byte, content.size)
	if err := content.read(entries, 0); err != nil {
		return err
	}
	// The list is in the order of the pieces.
	le := binary.LittleEndian
	for len(entries) > 0 {
		if len(entries) < 26 || le.Uint16(entries[4:]) < 26 || int(le.Uint16(entries[4:])) > len(entries) {
			return notClean("attribute list with an entry that is not inside")
		}
		e := entries[:le.Uint16(entries[4:])]
		entries = entries[len(e):]
		entryName, ok := utf16At(e, int(e[7]), int(e[6]))
		if !ok {
			return notClean("attribute list with a name that is not inside")
		}
		if le.Uint32(e) != kind || entryName != name {
			continue
		}
		piece, err := n.piece(attrs, record, reference(le.Uint64(e[16:])), kind, name, le.Uint16(e[24:]))
		if err != nil {
			return err
		}
		if err := s.append(piece); err != nil {
			return err
		}
	}
	return s.check()
}

// piece finds the piece of an attribute that an attribute list names: in base,
// the attributes of the record with the list, or in an extension of it.
func (n *ntfs) piece(base []ntfsAttr, record int64, ref reference, kind uint32, name string, instance uint16) (ntfsAttr, error) {
	attrs := base
	if ref.number() != record {
		b, err := n.record(ref.number())
		if err != nil {
			return ntfsAttr{}, err
		}
		le := binary.LittleEndian
		if base := reference(le.Uint64(b[32:])); base.number() != record || le.Uint16(b[16:]) != uint16(ref>>48) {
			return ntfsAttr{}, notClean("record %d of the MFT does not belong to record %d", ref.number(), record)
		}
		if attrs, err = n.attributes(b); err != nil {
			return ntfsAttr{}, err
		}
	}
	for _, a := range attrs {
		if a.kind == kind && a.name == name && a.instance == instance {
			return a, nil
		}
	}
	return ntfsAttr{}, notClean("record %d of the MFT has no attribute %#x", ref.number(), kind)
}

// An ntfsStream is the content of an attribute.
type ntfsStream struct {
	n           *ntfs
	resident    []byte    // not nil: all of it
	runs        []ntfsRun // ascending, without gaps
	size        int64
	initialized int64 // what is behind reads as zeros
}

type ntfsRun struct {
	vcn, lcn, n int64 // lcn < 0: a hole
}

// end is the VCN that the next piece begins with.
func (s *ntfsStream) end() int64 {
	if len(s.runs) == 0 {
		return 0
	}
	last := s.runs[len(s.runs)-1]
	return last.vcn + last.n
}

// append adds the next piece.
func (s *ntfsStream) append(a ntfsAttr) error {
	if a.flags != 0 {
		return notClean("attribute %#x of the system is compressed, encrypted or sparse (%#x)", a.kind, a.flags)
	}
	if s.resident != nil || a.resident && len(s.runs) > 0 {
		return notClean("attribute %#x is there twice", a.kind)
	}
	if a.resident {
		s.resident = append([]byte{}, a.content...)
		s.size, s.initialized = int64(len(a.content)), int64(len(a.content))
		return nil
	}
	vcn := s.end()
	if a.lowestVCN != vcn {
		return notClean("a piece of attribute %#x is missing", a.kind)
	}
	if vcn == 0 { // only the first piece has sizes
		s.size, s.initialized = a.size, a.inited
	}

	// Mapping pairs: how many bytes of length and of offset, in one byte; the
	// length in clusters; the distance from the last LCN. No distance, a hole.
	lcn := int64(0)
	for p := a.pairs; len(p) > 0 && p[0] != 0; {
		lengthBytes, offsetBytes := int(p[0]&0x0f), int(p[0]>>4)
		if lengthBytes == 0 || lengthBytes > 8 || offsetBytes > 8 || len(p) < 1+lengthBytes+offsetBytes {
			return notClean("mapping pair %#x of attribute %#x", p[0], a.kind)
		}
		r := ntfsRun{vcn, -1, signed(p[1:][:lengthBytes])}
		if offsetBytes > 0 {
			lcn += signed(p[1+lengthBytes:][:offsetBytes]) // wraps around, to be refused below
			r.lcn = lcn
			if lcn < 0 || lcn >= s.n.clusters || r.n > s.n.clusters-lcn {
				return notClean("attribute %#x has %d clusters at cluster %d of %d", a.kind, r.n, lcn, s.n.clusters)
			}
		}
		// So no attribute is larger than the volume, wherever its runs are.
		if r.n <= 0 || r.n > s.n.clusters-vcn {
			return notClean("attribute %#x has more clusters than the volume", a.kind)
		}
		if len(s.runs) == ntfsMaxRuns {
			return unknown("NTFS with a system file in more than %d pieces", ntfsMaxRuns)
		}
		s.runs = append(s.runs, r)
		vcn += r.n
		p = p[1+lengthBytes+offsetBytes:]
	}
	if a.highest != vcn-1 {
		return notClean("attribute %#x ends at VCN %d, its runs at %d", a.kind, a.highest, vcn-1)
	}
	return nil
}

// signed is a little-endian number of 1 to 8 bytes.
func signed(b []byte) int64 {
	v := uint64(0)
	for i, x := range b {
		v |= uint64(x) << (8 * i)
	}
	unused := 64 - 8*len(b)
	return int64(v<<unused) >> unused
}

// check wants all pieces of one attribute.
func (s *ntfsStream) check() error {
	if s.resident != nil {
		return nil
	}
	if len(s.runs) == 0 {
		return errNoAttribute
	}
	if s.size < 0 || s.size > s.end()*s.n.clusterSize || s.initialized < 0 || s.initialized > s.size {
		return notClean("attribute of %d bytes, %d of them initialised, in %d clusters", s.size, s.initialized, s.end())
	}
	return nil
}

// read fills p from off; all of it has to be initialised and on the volume.
func (s *ntfsStream) read(p []byte, off int64) error {
	if off < 0 || off > s.initialized || int64(len(p)) > s.initialized-off {
		return notClean("%d bytes at %d of an attribute of %d", len(p), off, s.initialized)
	}
	if s.resident != nil {
		copy(p, s.resident[off:])
		return nil
	}
	for len(p) > 0 {
		vcn := off / s.n.clusterSize
		i, found := slices.BinarySearchFunc(s.runs, vcn, func(r ntfsRun, vcn int64) int {
			switch {
			case r.vcn+r.n <= vcn:
				return -1
			case r.vcn > vcn:
				return 1
			}
			return 0
		})
		if !found || s.runs[i].lcn < 0 {
			return notClean("hole at VCN %d of a system file", vcn)
		}
		r := s.runs[i]
		at := r.lcn*s.n.clusterSize + off - r.vcn*s.n.clusterSize
		length := min(int64(len(p)), (r.lcn+r.n)*s.n.clusterSize-at)
		if err := readVolume(s.n.v, p[:length], at); err != nil {
			return fmt.Errorf("reading %d bytes at %#x: %w", length, at, err)
		}
		p, off = p[length:], off+length
	}
	return nil
}

// # $Volume

// ntfsMountedOnNT4 is the one flag of $VOLUME_INFORMATION that does not mean
// that Windows has something left to do: repair, resize the log, upgrade,
// delete a change journal, look over what chkdsk has done.
const ntfsMountedOnNT4 = 0x0008

func (n *ntfs) checkVolume() error {
	s, err := n.attribute(ntfsVolume, attrVolumeInformation, "")
	if err != nil {
		return fmt.Errorf("$Volume: %w", err)
	}
	b := s.resident
	if len(b) < 12 {
		return notClean("$Volume has no information")
	}
	if major, minor := b[8], b[9]; major != 1 && major != 3 {
		return unknown("NTFS %d.%d", major, minor)
	}
	if flags := binary.LittleEndian.Uint16(b[10:]); flags&^ntfsMountedOnNT4 != 0 {
		return notClean("Windows has to repair it (flags %#x)", flags)
	}
	return nil
}

// # $LogFile

const (
	restartVolumeIsClean = 0x0002
	logFileNoClient      = 0xffff
	logFileMaxPage       = 64 << 10
)

// checkLogFile wants a journal that is empty, or was closed: two restart pages,
// at its beginning and a page behind that, and the newer one counts.
func (n *ntfs) checkLogFile() error {
	s, err := n.attribute(ntfsLogFile, attrData, "")
	if err != nil {
		return fmt.Errorf("$LogFile: %w", err)
	}
	head := make([]byte, 512)
	if err := s.read(head, 0); err != nil {
		return fmt.Errorf("$LogFile: %w", err)
	}
	le := binary.LittleEndian
	if le.Uint32(head) == math.MaxUint32 {
		return s.wantOnes()
	}

	pageSize := int64(le.Uint32(head[16:]))
	if string(head[:4]) != "RSTR" || bits.OnesCount64(uint64(pageSize)) != 1 || pageSize < 512 || pageSize > logFileMaxPage {
		return notClean("the journal has no restart page (%q)", head[:4])
	}
	var newest int64
	clean := false
	for _, off := range []int64{0, pageSize} {
		b := make([]byte, pageSize)
		if err := s.read(b, off); err != nil {
			return fmt.Errorf("$LogFile: %w", err)
		}
		if err := fixup(b, "RSTR"); err != nil {
			return fmt.Errorf("$LogFile: %w", err)
		}
		// Windows 8 and later use version 2 while the volume is mounted, and
		// turn it into 1.1 when they let go of it.
		if minor, major := le.Uint16(b[26:]), le.Uint16(b[28:]); major != 1 {
			return notClean("it was not unmounted (journal of version %d.%d)", major, minor)
		}
		area := int(le.Uint16(b[24:]))
		if area > len(b)-16 {
			return notClean("restart area at %d of %d bytes", area, len(b))
		}
		lsn, client, flags := int64(le.Uint64(b[area:])), le.Uint16(b[area+12:]), le.Uint16(b[area+14:])
		ok := client == logFileNoClient || flags&restartVolumeIsClean != 0
		switch {
		case off == 0 || lsn > newest:
			newest, clean = lsn, ok
		case lsn == newest:
			clean = clean && ok
		}
	}
	if !clean {
		return notClean("there is a journal to replay, or Windows sleeps")
	}
	return nil
}

// wantOnes wants only 0xff in all of s: what mkntfs and ntfs-3g make of the
// journal of a clean volume.
func (s *ntfsStream) wantOnes() error {
	p := make([]byte, 64<<10)
	for off := int64(0); off < s.initialized; off += int64(len(p)) {
		p = p[:min(int64(len(p)), s.initialized-off)]
		if err := s.read(p, off); err != nil {
			return fmt.Errorf("$LogFile: %w", err)
		}
		for _, b := range p {
			if b != 0xff {
				return notClean("the journal has no restart page, and is not empty")
			}
		}
	}
	return nil
}

// # Hibernation

const (
	hiberfile       = "hiberfil.sys"
	hiberHeaderSize = 4096

	// maxRootIndex is what of the root folder is looked through: hundreds of
	// thousands of names.
	maxRootIndex = 64 << 20
)

// checkHibernation wants no sleeping Windows, whose memory knows better than
// the disk. That of a fast start has closed no volume either.
func (n *ntfs) checkHibernation() error {
	ref, err := n.findInRoot(hiberfile)
	if err != nil {
		return fmt.Errorf("root folder: %w", err)
	}
	if ref == 0 {
		return nil
	}
	s, err := n.attribute(ref.number(), attrData, "")
	if err != nil {
		return fmt.Errorf("%s: %w", hiberfile, err)
	}
	b := make([]byte, hiberHeaderSize)
	if s.initialized < hiberHeaderSize {
		// ntfs-3g has it of volumes that are not the one Windows starts from.
		return notClean("Windows sleeps (%s of %d bytes)", hiberfile, s.initialized)
	}
	if err := s.read(b, 0); err != nil {
		return fmt.Errorf("%s: %w", hiberfile, err)
	}
	if strings.EqualFold(string(b[:4]), "HIBR") {
		return notClean("Windows sleeps (%s)", hiberfile)
	}
	return nil
}

// findInRoot finds a file in the root folder; 0: there is none. The names are
// in a B-tree, whose order takes a table of its own to know: all are looked at.
func (n *ntfs) findInRoot(name string) (reference, error) {
	const index = "$I30"
	root, err := n.attribute(ntfsRoot, attrIndexRoot, index)
	if err != nil {
		return 0, err
	}
	b := root.resident
	if len(b) < 16 {
		return 0, notClean("no index root")
	}
	le := binary.LittleEndian
	blockSize := int64(le.Uint32(b[8:]))
	ref, err := findInNode(b[16:], name)
	if ref != 0 || err != nil {
		return ref, err
	}

	blocks, err := n.attribute(ntfsRoot, attrIndexAllocation, index)
	if err == errNoAttribute { //nolint:errorlint // it is this error, not that of something below
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if bits.OnesCount64(uint64(blockSize)) != 1 || blockSize < 512 || blockSize > 64<<10 {
		return 0, notClean("index blocks of %d bytes", blockSize)
	}
	if blocks.initialized > maxRootIndex {
		return 0, unknown("NTFS with a root folder of %d MiB", blocks.initialized>>20)
	}
	// Which blocks are used: others can have names that are long gone.
	bitmap, err := n.attribute(ntfsRoot, attrBitmap, index)
	if err != nil {
		return 0, err
	}
	used := make([]byte, min(virtual.DivUp(blocks.initialized/blockSize, 8), bitmap.initialized))
	if err := bitmap.read(used, 0); err != nil {
		return 0, err
	}
	b = make([]byte, blockSize)
	for i := range min(blocks.initialized/blockSize, 8*int64(len(used))) {
		if used[i/8]>>(i%8)&1 == 0 {
			continue
		}
		if err := blocks.read(b, i*blockSize); err != nil {
			return 0, err
		}
		if err := fixup(b, "INDX"); err != nil {
			return 0, err
		}
		if ref, err := findInNode(b[24:], name); ref != 0 || err != nil {
			return ref, err
		}
	}
	return 0, nil
}

// findInNode looks for name in a node of an index; b begins with the header of it.
func findInNode(b []byte, name string) (reference, error) {
	const lastEntry = 0x02
	if len(b) < 16 {
		return 0, notClean("index without a header")
	}
	le := binary.LittleEndian
	off, length := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:]))
	if length > uint64(len(b)) || off > length {
		return 0, notClean("index of %d bytes at %d in %d bytes", length, off, len(b))
	}
	for b = b[off:length]; ; {
		if len(b) < 16 || le.Uint16(b[8:]) < 16 || int(le.Uint16(b[8:])) > len(b) {
			return 0, notClean("index with an entry that is not inside")
		}
		e := b[:le.Uint16(b[8:])]
		b = b[len(e):]
		if le.Uint16(e[12:])&lastEntry != 0 {
			return 0, nil
		}
		// The key is a $FILE_NAME: its length in characters at 64, itself at 66.
		if len(e) < 16+66 {
			return 0, notClean("index with an entry of %d bytes", len(e))
		}
		found, ok := utf16At(e, 16+66, int(e[16+64]))
		if !ok {
			return 0, notClean("index with a name that is not inside")
		}
		if strings.EqualFold(found, name) {
			return reference(le.Uint64(e)), nil
		}
	}
}

// # Shadow copies
//
// A shadow copy has what has changed since; the rest it reads from the volume,
// from clusters that are long free as well. So free is not free while there is
// one. After Joachim Metz, "Volume Shadow Snapshot (VSS)", libvshadow.

const (
	vssID            = "\x6b\x87\x08\x38\x76\xc1\x48\x4e\xb7\xae\x04\x04\x6e\x6c\xc7\x52"
	vssHeader        = 0x1e00
	vssCatalogBlock  = 16 << 10
	vssMaxBlocks     = 64 // 8128 entries; Windows makes at most 512 copies
	vssEntry         = 128
	vssUnusedEntries = 1 // types 0 and 1
)

func (n *ntfs) checkShadowCopies() error {
	if n.v.Size() < vssHeader+128 {
		return nil
	}
	b, err := load(n.v, vssHeader, 128, "header of shadow copies")
	if err != nil {
		return err
	}
	if string(b[:16]) != vssID {
		return nil
	}
	le := binary.LittleEndian
	if own, store := b[64:80], b[80:96]; !bytes.Equal(own, store) && !bytes.Equal(store, make([]byte, 16)) {
		return unknown("NTFS with shadow copies on another volume, which need the free clusters")
	}
	block := le.Uint64(b[48:])
	for range vssMaxBlocks {
		if block == 0 {
			return nil
		}
		if block > math.MaxInt64 {
			return notClean("catalog of shadow copies at %#x", block)
		}
		b, err := load(n.v, int64(block), vssCatalogBlock, "catalog of shadow copies")
		if err != nil {
			return err
		}
		if string(b[:16]) != vssID {
			return notClean("no catalog of shadow copies at %#x", block)
		}
		for off := vssEntry; off < len(b); off += vssEntry {
			if le.Uint64(b[off:]) > vssUnusedEntries {
				return unknown("NTFS with shadow copies, which need the free clusters")
			}
		}
		block = le.Uint64(b[40:])
	}
	return notClean("the catalog of shadow copies has no end")
}

// # $Bitmap

// bitmapChunk is how much of the bitmap is read at a time, in bytes.
const bitmapChunk = 64 << 10

// free yields the clusters whose bit is 0. The copy of the boot sector behind
// the last cluster is nobody's.
func (n *ntfs) free(bitmap *ntfsStream, yield func(disk.Extent, error) bool) {
	g := gatherer{yield: yield, unit: n.clusterSize}
	need := virtual.DivUp(n.clusters, 8)
	p := make([]byte, min(bitmapChunk, need))
	for off := int64(0); off < need; off += int64(len(p)) {
		p = p[:min(int64(len(p)), need-off)]
		if err := bitmap.read(p, off); err != nil {
			yield(disk.Extent{}, fmt.Errorf("$Bitmap: %w", err))
			return
		}
		if off == 0 && p[0]&1 == 0 {
			yield(disk.Extent{}, notClean("$Bitmap has the boot sector as free"))
			return
		}
		for i, b := range p {
			first := (off + int64(i)) * 8
			switch {
			case b == 0xff:
			case b == 0 && n.clusters-first >= 8:
				if !g.add(first, 8) {
					return
				}
			default:
				for bit := range min(8, n.clusters-first) {
					if b>>bit&1 == 0 && !g.add(first+bit, 1) {
						return
					}
				}
			}
		}
	}
	g.flush()
}
