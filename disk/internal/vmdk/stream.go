package vmdk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/davit-oci/davit/disk/internal/gather"
	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/klauspost/compress/zlib"
)

// # Stream-Optimized Compressed

const (
	// streamOverHead is where VMware's streams have their first marker.
	// VirtualBox starts there when it imports one.
	streamOverHead = 128

	// streamLevel costs a third of the CPU time of zlib at its default level,
	// which qemu-img uses, for files that are 4 to 5 % larger. From 7 on the
	// time doubles for less than 2 %.
	streamLevel = 6

	// maxPacked is what VirtualBox and open-vmdk have room for when they read a
	// grain: its size and a sector, with the marker.
	maxPacked = grainBytes + sectorSize - grainMarkerSize
)

// A Stream writes a streamOptimized image, in ascending order and each byte of
// it once. It is not safe for concurrent use; compression itself is concurrent.
//
// A grain table follows the grains that it maps, the grain directory follows
// all of them, and as the header cannot know where that is, a footer repeats
// the header and says it.
type Stream struct {
	*gather.Writer
	w         io.Writer
	header    header
	next      int64  // sector that is written next
	directory []byte // grain directory
	table     []byte // grain table that is being filled
	index     int64  // its place in the directory; -1: there is none
}

// NewStream starts an image of a disk of size bytes, whose bytes go to w one
// after another. It does not close w.
func NewStream(w io.Writer, size int64, o WriteOptions) (*Stream, error) {
	rounded, err := DiskSize(size)
	if err != nil {
		return nil, err
	}
	descriptor, err := encodeDescriptor("streamOptimized", rounded, o)
	if err != nil {
		return nil, err
	}
	s := &Stream{w: w, header: newHeader(rounded), table: make([]byte, gtBytes), index: -1}
	s.directory = make([]byte, virtual.RoundUp(4*gtCount(rounded), sectorSize))
	s.Writer, err = gather.New(gather.Options{Size: size, BlockSize: grainBytes, NewCompress: newGrainCompressor, Jobs: o.Jobs, Append: s.append})
	if err != nil {
		return nil, err
	}

	// The technical note knows versions 1 and 2 only, but ESXi refuses streams
	// of version 1: "sparse VMDK version too old". That there is no redundant
	// directory shows in the flags.
	s.header.version = 3
	s.header.flags |= flagCompressed | flagMarkers
	s.header.compressAlgorithm = compressionDeflate
	s.header.gdOffset = gdAtEnd
	s.header.overHead = streamOverHead
	head := make([]byte, streamOverHead*sectorSize)
	copy(head, s.header.encode())
	copy(head[descriptorOffset*sectorSize:], descriptor)
	return s, s.write(head)
}

// NewStreamFile is NewStream for a regular file, of which nothing remains.
func NewStreamFile(f *os.File, size int64, o WriteOptions) (*Stream, error) {
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	return NewStream(io.NewOffsetWriter(f, 0), size, o)
}

// newGrainCompressor returns a function that makes a marker, without its LBA,
// and the grain behind it: whole sectors. The note says RFC 1951 but means 1950:
// what VMware writes has the header and the checksum of zlib.
func newGrainCompressor() (gather.Compress, error) {
	z, err := zlib.NewWriterLevel(io.Discard, streamLevel)
	if err != nil {
		return nil, err
	}
	var marker [grainMarkerSize]byte
	var padding [sectorSize]byte
	return func(dst, src []byte) ([]byte, error) {
		buf := bytes.NewBuffer(append(dst, marker[:]...))
		z.Reset(buf)
		if _, err := z.Write(src); err != nil {
			return nil, err
		}
		if err := z.Close(); err != nil {
			return nil, err
		}
		b := buf.Bytes()
		size := len(b) - len(dst) - grainMarkerSize
		if size > maxPacked { // deflate stores what does not shrink
			return nil, fmt.Errorf("a grain of %d bytes deflated to %d", len(src), size)
		}
		binary.LittleEndian.PutUint32(b[len(dst)+8:], uint32(size))
		return append(b, padding[:-(grainMarkerSize+size)&(sectorSize-1)]...), nil
	}, nil
}

// append writes a grain, and first the table of the ones before it if another
// one maps it.
func (s *Stream) append(grain int64, _, packed []byte) error {
	if index := grain / gtEntries; index != s.index {
		if err := s.finishTable(); err != nil {
			return err
		}
		s.index = index
	}
	binary.LittleEndian.PutUint64(packed, uint64(grain*grainSectors))
	place, err := s.place()
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(s.table[4*(grain%gtEntries):], place)
	return s.write(packed)
}

// finishTable writes the grain table that is being filled, if there is one.
// Those without grains are left out, as VirtualBox does.
func (s *Stream) finishTable() error {
	if s.index < 0 {
		return nil
	}
	if err := s.writeMarker(markerGT, gtSectors); err != nil {
		return err
	}
	place, err := s.place()
	if err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(s.directory[4*s.index:], place)
	err = s.write(s.table)
	clear(s.table)
	return err
}

// place is the next sector, as tables have it.
func (s *Stream) place() (uint32, error) {
	if s.next > math.MaxUint32 {
		return 0, virtual.Unsupported("a VMDK whose file is larger than %d bytes", int64(maxFile))
	}
	return uint32(s.next), nil
}

// writeMarker announces metadata.
func (s *Stream) writeMarker(kind uint32, sectors int64) error {
	b := make([]byte, sectorSize)
	binary.LittleEndian.PutUint64(b, uint64(sectors))
	binary.LittleEndian.PutUint32(b[12:], kind)
	return s.write(b)
}

// write writes whole sectors.
func (s *Stream) write(b []byte) error {
	s.next += int64(len(b) / sectorSize)
	_, err := s.w.Write(b)
	return err
}

// Close writes what is left and completes the image. Without its end the file
// is none: the header points to the footer.
func (s *Stream) Close() error {
	if err := s.Writer.Close(); err != nil {
		return err
	}
	if err := s.finishTable(); err != nil {
		return err
	}
	if err := s.writeMarker(markerGD, int64(len(s.directory)/sectorSize)); err != nil {
		return err
	}
	footer := s.header
	footer.gdOffset = uint64(s.next)
	if err := s.write(s.directory); err != nil {
		return err
	}
	if err := s.writeMarker(markerFooter, 1); err != nil {
		return err
	}
	if err := s.write(footer.encode()); err != nil {
		return err
	}
	return s.writeMarker(markerEOS, 0)
}
