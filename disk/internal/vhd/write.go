package vhd

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"iter"
	"os"

	"github.com/davit-oci/davit/disk/internal/blocks"
	"github.com/davit-oci/davit/disk/internal/raw"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// What we write.
const (
	// blockSize is the default, which XenServer insists on.
	blockSize = 2 << 20

	// A block begins with its bitmap, which is put at the end of a page, so that
	// the data is at whole pages: disks with physical sectors of 4 KiB are slow
	// otherwise, and such files have holes. The rest of the page is not used;
	// XenServer does it this way, too.
	page   = 4096
	stride = page + blockSize

	batAt = footerSize + headerSize

	// maxSize is that of a dynamic disk by the specification. The sectors of its
	// file can still be numbered with 32 bits. Hyper-V and QEMU have the limit for
	// fixed disks as well.
	maxSize = 2040 << 30

	// fixedUnit is what Azure wants the size of a disk to be a multiple of.
	fixedUnit = 1 << 20
)

// DiskSize is the virtual size that a dynamic image of a disk of size bytes has:
// whole sectors.
func DiskSize(size int64) (int64, error) { return diskSize(size, sectorSize) }

// FixedDiskSize is that of a fixed image: whole MiB, at least one. A footer
// alone is no disk to anybody.
func FixedDiskSize(size int64) (int64, error) { return diskSize(max(1, size), fixedUnit) }

func diskSize(size, unit int64) (int64, error) {
	if size > maxSize {
		return 0, virtual.Unsupported("virtual size of %d bytes in a VHD, which ends at 2040 GiB", size)
	}
	return virtual.RoundUp(size, unit), nil
}

// NewFixed lays out a fixed image, the bytes of the disk and a footer, and
// writes the footer. The data is then written in any order. The id is the
// Unique ID.
func NewFixed(f *os.File, size int64, data iter.Seq2[virtual.Extent, error], id [16]byte) (*raw.Writer, error) {
	rounded, err := FixedDiskSize(size)
	if err != nil {
		return nil, err
	}
	w, err := raw.NewDenseWriter(f, rounded, data)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(encodeFooter(rounded, typeFixed, id), rounded)
	return w, err
}

// NewWriter lays out a dynamic image and writes all of it but the data, which is
// then written in any order. The file is
//
//	copy of the footer | dynamic disk header | BAT | data blocks | footer
//
// where the blocks are those that hold data, in the order of the disk. The id is
// the Unique ID.
func NewWriter(f *os.File, size int64, data iter.Seq2[virtual.Extent, error], id [16]byte) (*blocks.Writer, error) {
	rounded, err := DiskSize(size)
	if err != nil {
		return nil, err
	}
	m, err := blocks.NewMap(blockSize, size, data)
	if err != nil {
		return nil, err
	}
	entries := virtual.DivUp(rounded, blockSize)
	start := virtual.RoundUp(batAt+4*entries, page) // of the page before the first block
	end := start + m.Len()*stride
	w, err := blocks.NewWriter(f, m, blocks.Layout{
		Size:   rounded,
		First:  start + page,
		Stride: stride,
		End:    end + footerSize,
		Dense:  true,
	}, data)
	if err != nil {
		return nil, err
	}
	footer := encodeFooter(rounded, typeDynamic, id)
	if _, err := f.WriteAt(append(bytes.Clone(footer), encodeHeader(entries)...), 0); err != nil {
		return nil, err
	}
	if err := writeTable(f, m, entries, start); err != nil {
		return nil, err
	}
	if err := writeBitmaps(f, m, start); err != nil {
		return nil, err
	}
	_, err = f.WriteAt(footer, end)
	return w, err
}

// encodeFooter makes a footer. Who reads it takes its size for the disk's only
// if he likes the Creator Application, see [footer.validate]: before 10.0, QEMU
// cuts other disks off at the end of their geometry. So we are Windows.
func encodeFooter(size int64, diskType uint32, id [16]byte) []byte {
	be := binary.BigEndian
	b := make([]byte, 0, footerSize)
	b = append(b, footerCookie...)
	b = be.AppendUint32(b, 2)                // Features: reserved, always set
	b = be.AppendUint32(b, versionMajor<<16) // File Format Version
	if diskType == typeFixed {
		b = be.AppendUint64(b, 1<<64-1) // Data Offset, as products write it
	} else {
		b = be.AppendUint64(b, footerSize)
	}
	b = be.AppendUint32(b, 0)            // Time Stamp: images depend on nothing but the disk
	b = append(b, "win "...)             // Creator Application
	b = be.AppendUint32(b, 0x000a0000)   // Creator Version: 10.0
	b = append(b, "Wi2k"...)             // Creator Host OS
	b = be.AppendUint64(b, uint64(size)) // Original Size
	b = be.AppendUint64(b, uint64(size)) // Current Size
	b = append(b, geometry(size)...)
	b = be.AppendUint32(b, diskType)
	b = be.AppendUint32(b, 0) // Checksum
	b = append(b, id[:]...)
	b = append(b, make([]byte, footerSize-len(b))...) // Saved State: no
	be.PutUint32(b[checksumAt:], checksum(b, checksumAt))
	return b
}

// # Appendix: CHS Calculation

func geometry(size int64) []byte {
	const most = 65535 * 16 * 255
	total := min(size/sectorSize, most)
	var sectors, heads, cylinderTimesHeads int64
	track := func(s, h int64) { sectors, heads, cylinderTimesHeads = s, h, total/s }
	if total >= 65535*16*63 {
		track(255, 16)
	} else {
		track(17, max(4, (total/17+1023)/1024))
		if cylinderTimesHeads >= heads*1024 || heads > 16 {
			track(31, 16)
		}
		if cylinderTimesHeads >= heads*1024 {
			track(63, 16)
		}
	}
	b := binary.BigEndian.AppendUint16(nil, uint16(cylinderTimesHeads/heads))
	return append(b, byte(heads), byte(sectors))
}

// encodeHeader makes the header of a dynamic disk.
func encodeHeader(entries int64) []byte {
	be := binary.BigEndian
	b := make([]byte, 0, headerSize)
	b = append(b, headerCookie...)
	b = be.AppendUint64(b, 1<<64-1)                   // Data Offset: nothing follows
	b = be.AppendUint64(b, batAt)                     // Table Offset
	b = be.AppendUint32(b, versionMajor<<16)          // Header Version
	b = be.AppendUint32(b, uint32(entries))           // Max Table Entries
	b = be.AppendUint32(b, blockSize)                 // Block Size
	b = append(b, make([]byte, headerSize-len(b))...) // no parent
	be.PutUint32(b[headerChecksumAt:], checksum(b, headerChecksumAt))
	return b
}

// writeTable writes the block allocation table, which "is always extended to a
// sector boundary" with unused entries.
func writeTable(f *os.File, m *blocks.Map, entries, start int64) error {
	w := bufio.NewWriterSize(io.NewOffsetWriter(f, batAt), 1<<20)
	for place := range m.Places(virtual.RoundUp(4*entries, sectorSize) / 4) {
		entry := uint32(unused)
		if place >= 0 {
			entry = uint32((start + place*stride + page - bitmapSize(blockSize)) / sectorSize)
		}
		_, _ = w.Write(binary.BigEndian.AppendUint32(w.AvailableBuffer(), entry)) // errors stay until Flush
	}
	return w.Flush()
}

// writeBitmaps writes the page before each block. All sectors of a block are
// there, as QEMU has them, so that nobody has to write the bitmap again.
func writeBitmaps(f *os.File, m *blocks.Map, start int64) error {
	b := make([]byte, page)
	for n := range bitmapSize(blockSize) {
		b[page-1-n] = 0xff
	}
	for place := range m.All() {
		if _, err := f.WriteAt(b, start+place*stride); err != nil {
			return err
		}
	}
	return nil
}
