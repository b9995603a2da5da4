package main

import (
	"cmp"
	"fmt"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/machine"
)

// What logical sectors a disk has: of 512 bytes, or of 4096. Partition tables
// count in sectors, so that a guest which sees its disk in others finds no
// partition, and does not start.
//
// The size goes from the source to whatever can say it: a VHDX, libvirt's
// domain, an artifact. What cannot is told as a loss, and where a whole machine
// is written that could not use its disk, that is refused.

// sectorOf is what the model of a machine has of a disk: 0 for the usual size.
func sectorOf(r disk.Reader) int { return usualIsZero(disk.SectorSize(r)) }

func usualIsZero(size int) int {
	if size == disk.DefaultSector {
		return 0
	}
	return size
}

// addSectors brings what an artifact knows of its disks into its machines, whose
// OVF cannot say it.
func addSectors(e *machine.Envelope, m *artifact.Manifest) {
	if len(e.Disks) != len(m.Disks) {
		return // whoever needs the disks finds out
	}
	for i := range e.Disks {
		if m.Disks[i].Sector == disk.LargeSector {
			e.SetSectorSize(i, disk.LargeSector)
		}
	}
}

// sectorLoss is what a disk with sectors of that size loses in d alone.
func (d destination) sectorLoss(size int) []machine.Loss {
	size = cmp.Or(size, disk.DefaultSector)
	reason := ""
	switch {
	case d.described, d.format.RecordsSector():
	case d.kind == toDevice:
		if d.sector != 0 && d.sector != size {
			reason = fmt.Sprintf("the device has sectors of %d bytes, and partitions that count in others are not found", d.sector)
		}
	case size == disk.DefaultSector:
	case d.format == disk.Raw, d.format == disk.QCOW2, d.format == disk.QCOW2Zlib, d.format == disk.QCOW2Zstd:
		reason = fmt.Sprintf("%s does not say it, and the guest finds its partitions only if it gets such sectors (QEMU: logical_block_size=%d)", d.format, size)
	default:
		reason = fmt.Sprintf("%s cannot say it: the guest gets sectors of %d bytes, and does not find its partitions", d.format, disk.DefaultSector)
	}
	if reason == "" {
		return nil
	}
	return []machine.Loss{{Field: "logicalSectorSize", Value: fmt.Sprint(size), Reason: reason}}
}

// deviceSector is the size of the sectors of a block device, 0 if it cannot be
// asked.
func deviceSector(path string) int {
	img, err := disk.Open(path, disk.OpenOptions{Format: disk.Raw})
	if err != nil {
		return 0 // whoever writes to it finds out
	}
	defer img.Close()
	return disk.SectorSize(img)
}
