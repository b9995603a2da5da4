package vmdk_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// What QEMU cannot make is built here, from "Virtual Disk Format 5.0" and not by
// the code under test.

const sectorSize = 512

// A hosted is a hosted sparse extent. The zero value is as VMware writes it,
// version 1 with a redundant grain directory, without a descriptor.
type hosted struct {
	version    uint32 // 0: 1
	flags      uint32 // besides those that follow from the rest
	grainSize  int    // sectors; 0: 128
	gtes       int    // 0: 512
	capacity   int    // sectors; 0: of the content
	descriptor string
	stream     string // "" no compression, else where the grain directory is: "head", "tail", "footer"
	bare       string // without markers: "size", in four bytes, or "nothing" before the grain
	padding    int    // bytes after the end of stream
	cutLast    bool   // the last grain is as long as the disk has of it
	unclean    bool   // shutdown

	// kinds are the kinds of grains, again and again: d data, z zeroed, and u
	// unallocated. "": d
	kinds string
}

func (h hosted) defaults() hosted {
	if h.version == 0 {
		h.version = 1
	}
	if h.grainSize == 0 {
		h.grainSize = 128
	}
	if h.gtes == 0 {
		h.gtes = 512
	}
	if h.kinds == "" {
		h.kinds = "d"
	}
	return h
}

// kind is the kind of a grain.
func (h hosted) kind(grain int) byte { return h.kinds[grain%len(h.kinds)] }

// disk is the content of the extent: that of content where there is data, and
// that of parent where nothing is allocated.
func (h hosted) disk(content, parent []byte) []byte {
	h = h.defaults()
	out := bytes.Clone(content)
	for off := 0; off < len(out); off += h.grainSize * sectorSize {
		grain := out[off:min(len(out), off+h.grainSize*sectorSize)]
		switch h.kind(off / sectorSize / h.grainSize) {
		case 'u':
			clear(grain)
			copy(grain, parent[min(off, len(parent)):])
		case 'z':
			clear(grain)
		}
	}
	return out
}

type image struct{ b []byte }

func (i *image) sector() int { return len(i.b) / sectorSize }

// align adds zeros up to a multiple of n sectors.
func (i *image) align(n int) {
	for len(i.b)%(n*sectorSize) != 0 {
		i.b = append(i.b, 0)
	}
}

// put puts b at a sector.
func (i *image) put(at int, b []byte) {
	if need := at*sectorSize + len(b); need > len(i.b) {
		i.b = append(i.b, make([]byte, need-len(i.b))...)
	}
	copy(i.b[at*sectorSize:], b)
}

func entries(table []uint32) []byte {
	b, _ := binary.Append(nil, binary.LittleEndian, table)
	return b
}

func (i *image) marker(value, kind int) {
	i.align(1)
	b := make([]byte, sectorSize)
	binary.LittleEndian.PutUint64(b, uint64(value))
	binary.LittleEndian.PutUint32(b[12:], uint32(kind))
	i.b = append(i.b, b...)
}

func deflated(b []byte) []byte {
	var out bytes.Buffer
	w := zlib.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// build builds the extent of a disk.
func (h hosted) build(content []byte) []byte {
	h = h.defaults()
	le := binary.LittleEndian
	capacity := h.capacity
	if capacity == 0 {
		capacity = len(content) / sectorSize
	}
	grains := (capacity + h.grainSize - 1) / h.grainSize
	tables := (grains + h.gtes - 1) / h.gtes
	tableSectors := (h.gtes*4 + sectorSize - 1) / sectorSize
	gdSectors := (tables*4 + sectorSize - 1) / sectorSize

	flags := h.flags | 1
	gdOffset, rgdOffset := uint64(0), 0
	var f image
	f.put(0, make([]byte, sectorSize))
	descriptorSectors := 0
	if h.descriptor != "" {
		descriptorSectors = (len(h.descriptor) + sectorSize) / sectorSize
		f.put(1, append([]byte(h.descriptor), make([]byte, sectorSize-len(h.descriptor)%sectorSize)...))
	}
	place := func() (gd int, gts []uint32) {
		gd = f.sector()
		for n := range tables {
			gts = append(gts, uint32(gd+gdSectors+n*tableSectors))
		}
		f.b = append(f.b, make([]byte, (gdSectors+tables*tableSectors)*sectorSize)...)
		return gd, gts
	}
	var gd int
	var gts []uint32
	if h.stream == "" {
		// Nothing must come from the redundant one.
		flags |= 2
		var redundant []uint32
		rgdOffset, redundant = place()
		f.put(rgdOffset, entries(redundant))
		for _, gt := range redundant {
			f.put(int(gt), bytes.Repeat([]byte{2, 0, 0, 0}, h.gtes))
		}
	}
	if h.stream == "" || h.stream == "head" {
		gd, gts = place()
		gdOffset = uint64(gd)
	}
	f.align(h.grainSize)
	overHead := f.sector()

	// Grains, in any order if they need not be in that of the disk.
	gtes := make([]uint32, tables*h.gtes)
	order := rand.New(rand.NewPCG(1, 2)).Perm(grains)
	if h.stream != "" {
		for n := range order {
			order[n] = n
		}
		flags |= 1 << 16
		if h.bare == "" {
			flags |= 1 << 17
		}
	}
	for _, n := range order {
		switch h.kind(n) {
		case 'u':
			continue
		case 'z':
			flags |= 4
			gtes[n] = 1
			continue
		}
		size := h.grainSize * sectorSize
		grain := content[n*size : min(len(content), (n+1)*size)]
		if !h.cutLast {
			grain = append(bytes.Clone(grain), make([]byte, size-len(grain))...)
		}
		f.align(1)
		gtes[n] = uint32(f.sector())
		if h.stream != "" {
			grain = deflated(grain)
			front := make([]byte, 12)
			le.PutUint64(front, uint64(n*h.grainSize))
			le.PutUint32(front[8:], uint32(len(grain)))
			switch h.bare {
			case "size":
				front = front[8:]
			case "nothing":
				front = nil
			}
			f.b = append(f.b, front...)
		}
		f.b = append(f.b, grain...)
	}
	f.align(1)

	// Tables
	if h.stream == "tail" || h.stream == "footer" {
		for n := range tables {
			f.marker(tableSectors, 1)
			gts = append(gts, uint32(f.sector()))
			f.put(f.sector(), make([]byte, tableSectors*sectorSize))
			_ = n
		}
		f.marker(gdSectors, 2)
		gd = f.sector()
		gdOffset = uint64(gd)
		f.put(gd, make([]byte, gdSectors*sectorSize))
	}
	f.put(gd, entries(gts))
	for n, gt := range gts {
		f.put(int(gt), entries(gtes[n*h.gtes:(n+1)*h.gtes]))
	}

	header := make([]byte, sectorSize)
	copy(header, "KDMV")
	le.PutUint32(header[4:], h.version)
	le.PutUint32(header[8:], flags)
	le.PutUint64(header[12:], uint64(capacity))
	le.PutUint64(header[20:], uint64(h.grainSize))
	if h.descriptor != "" {
		le.PutUint64(header[28:], 1)
		le.PutUint64(header[36:], uint64(descriptorSectors))
	}
	le.PutUint32(header[44:], uint32(h.gtes))
	le.PutUint64(header[48:], uint64(rgdOffset))
	le.PutUint64(header[56:], gdOffset)
	le.PutUint64(header[64:], uint64(overHead))
	if h.unclean {
		header[72] = 1
	}
	copy(header[73:], "\n \r\n")
	if h.stream != "" {
		header[77] = 1
	}
	if h.stream == "footer" {
		f.marker(1, 3)
		f.b = append(f.b, header...)
		le.PutUint64(header[56:], 1<<64-1)
	}
	if h.stream != "" && h.bare == "" {
		f.marker(0, 0)
	}
	f.put(0, header)
	f.b = append(f.b, make([]byte, h.padding)...)
	return f.b
}

// describe makes a descriptor of these lines. With nothing but an empty line
// before the first, QEMU takes that for two.
func describe(createType string, lines ...string) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Disk DescriptorFile\nversion=1\nCID=0000abcd\nparentCID=ffffffff\ncreateType=\"%s\"\n\n# Extent description\n", createType)
	for _, line := range lines {
		fmt.Fprintln(&b, line)
	}
	return b.String()
}

// delta is a descriptor whose parent has this name.
func delta(parent, createType string, lines ...string) string {
	b := bytes.Replace([]byte(describe(createType, lines...)), []byte("parentCID=ffffffff"),
		fmt.Appendf(nil, "parentCID=0000abcd\nparentFileNameHint=%q", parent), 1)
	return string(b)
}

// cowd builds an ESXi host sparse extent.
func cowd(content []byte, grainSize int, kinds string) []byte {
	h := hosted{grainSize: grainSize, kinds: kinds}.defaults()
	le := binary.LittleEndian
	grains := (len(content)/sectorSize + grainSize - 1) / grainSize
	tables := (grains + 4095) / 4096
	var f image
	header := make([]byte, 2048)
	copy(header, "COWD")
	for off, value := range map[int]int{
		4: 1, 8: 3, 12: len(content) / sectorSize, 16: grainSize, 20: 4, 24: (tables + 127) &^ 127, // a sector of them at least
		32: 10, 36: 255, 40: 63, 1060: 1, 1636: 1,
	} {
		le.PutUint32(header[off:], uint32(value))
	}
	f.put(0, header)
	f.put(4, make([]byte, (tables*4+sectorSize-1)/sectorSize*sectorSize))
	for t := range tables {
		gtes := make([]uint32, 4096)
		var data []byte
		gt := f.sector()
		used := false
		for n := range gtes {
			grain := t*4096 + n
			if off := grain * grainSize * sectorSize; grain < grains && h.kind(grain) == 'd' {
				gtes[n] = uint32(gt + 32 + len(data)/sectorSize)
				size := grainSize * sectorSize
				data = append(data, content[off:min(len(content), off+size)]...)
				data = append(data, make([]byte, max(0, off+size-len(content)))...)
				used = true
			}
		}
		if used {
			f.put(4, nil)
			le.PutUint32(f.b[4*sectorSize+4*t:], uint32(gt))
			f.put(gt, entries(gtes))
			f.b = append(f.b, data...)
		}
	}
	le.PutUint32(f.b[28:], uint32(f.sector()))
	return f.b
}

// seSparse builds a space-efficient sparse extent, as QEMU's block/vmdk.c reads
// them. Kind n is a grain that the guest has unmapped.
func seSparse(content []byte, kinds string) []byte {
	h := hosted{grainSize: 8, kinds: kinds}.defaults()
	le := binary.LittleEndian
	const grain = 8 * sectorSize
	grains := (len(content) + grain - 1) / grain
	tables := (grains + 4095) / 4096
	const volatile, gd, gt = 1, 4, 8
	start := gt + (tables+1)*64
	var f image
	f.put(start-1, make([]byte, sectorSize))
	field := func(at int, n int, value uint64) { le.PutUint64(f.b[at*sectorSize+8*n:], value) }
	for n, value := range map[int]uint64{
		0: 0xcafebabe, 1: 0x200000001, 2: uint64(len(content) / sectorSize), 3: 8, 4: 64,
		10: volatile, 11: 1, 12: 2, 13: 1, 14: 2, 15: 1, 16: gd, 17: 4, 18: gt, 19: uint64(tables+1) * 64,
		24: uint64(start), 25: uint64(grains) * 8,
	} {
		field(0, n, value)
	}
	field(volatile, 0, 0xcafecafe)
	order := rand.New(rand.NewPCG(3, 4)).Perm(grains)
	for n := range grains {
		table := n/4096 + 1 // the first is not used
		var entry uint64
		switch h.kind(n) {
		case 'u':
			continue
		case 'n':
			entry = 1 << 60
		case 'z':
			entry = 2 << 60
		case 'd':
			at := uint64(order[n])
			entry = 3<<60 | at&0xfff<<48 | at>>12
			block := make([]byte, grain)
			copy(block, content[n*grain:])
			f.put(start+8*order[n], block)
		}
		field(gd, n/4096, 1<<60|uint64(table))
		le.PutUint64(f.b[(gt+table*64)*sectorSize+8*(n%4096):], entry)
	}
	return f.b
}
