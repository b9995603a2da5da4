package main

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/rogpeppe/go-internal/testscript"
)

// What a disk loses where nothing says which sectors it has.
func TestSectorLoss(t *testing.T) {
	for _, test := range []struct {
		name string
		to   destination
		size int
		want string // in the reason; empty: no loss
	}{
		{"usual disk in a file", destination{format: disk.VMDK}, 0, ""},
		{"usual disk, said", destination{format: disk.Raw}, 512, ""},
		{"VHDX", destination{format: disk.VHDX}, 4096, ""},
		{"VMDK", destination{format: disk.VMDKStream}, 4096, "vmdk:stream cannot say it"},
		{"fixed VHD", destination{format: disk.VHDFixed}, 4096, "vhd:fixed cannot say it"},
		{"qcow2", destination{format: disk.QCOW2Zstd}, 4096, "qcow2:zstd does not say it"},
		{"stdout", destination{format: disk.Raw, kind: toStdout}, 4096, "raw does not say it"},
		{"beside a descriptor", destination{format: disk.QCOW2, described: true}, 4096, ""},
		{"device with such sectors", destination{format: disk.Raw, kind: toDevice, sector: 4096}, 4096, ""},
		{"device with usual sectors", destination{format: disk.Raw, kind: toDevice, sector: 512}, 4096, "the device has sectors of 512 bytes"},
		{"usual disk on a device with others", destination{format: disk.Raw, kind: toDevice, sector: 4096}, 0, "the device has sectors of 4096 bytes"},
		{"usual disk on a usual device", destination{format: disk.Raw, kind: toDevice, sector: 512}, 512, ""},
		{"device that cannot be asked", destination{format: disk.Raw, kind: toDevice}, 4096, ""},
	} {
		got := test.to.sectorLoss(test.size)
		if (len(got) > 0) != (test.want != "") || len(got) > 0 && !strings.Contains(got[0].Reason, test.want) {
			t.Errorf("%s: losses %v, want %q", test.name, got, test.want)
		}
	}
}

// gpt FILE SECTOR [MORE]: a raw disk of 16 MiB and MORE bytes with a partition
// at 1 MiB, in a GUID partition table for sectors of that size.
func cmdGPT(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: gpt FILE SECTOR [MORE]")
	}
	sector, err := strconv.Atoi(args[1])
	ts.Check(err)
	p := make([]byte, 16<<20)
	if len(args) > 2 {
		more, err := strconv.Atoi(args[2])
		ts.Check(err)
		p = append(p, make([]byte, more)...)
	}
	le := binary.LittleEndian
	copy(p[446:], "\x00\x00\x02\x00\xee\xff\xff\xff\x01\x00\x00\x00\xff\xff\xff\xff")
	p[510], p[511] = 0x55, 0xaa
	entries := p[16*sector:][:128*128]
	copy(entries, "\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4unique to itself")
	le.PutUint64(entries[32:], uint64(1<<20/sector))
	le.PutUint64(entries[40:], uint64(15<<20/sector-1))
	header := p[sector:][:92]
	copy(header, "EFI PART\x00\x00\x01\x00\x5c")
	for at, value := range map[int]int{24: 1, 32: len(p)/sector - 1, 40: 200, 48: len(p)/sector - 200, 72: 16} {
		le.PutUint64(header[at:], uint64(value))
	}
	le.PutUint32(header[80:], 128)
	le.PutUint32(header[84:], 128)
	le.PutUint32(header[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(header[16:], crc32.ChecksumIEEE(header))
	copy(p[1<<20:], bytes.Repeat([]byte("content "), 10_000))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), p, 0o600))
}

// mbr FILE SECTOR: a raw disk of 16 MiB with a partition at 1 MiB, in a master
// boot record that counts in sectors of that size.
func cmdMBR(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mbr FILE SECTOR")
	}
	sector, err := strconv.Atoi(args[1])
	ts.Check(err)
	p := make([]byte, 16<<20)
	copy(p[446:], "\x80\x00\x02\x00\x83\xff\xff\xff")
	binary.LittleEndian.PutUint32(p[454:], uint32(1<<20/sector))
	binary.LittleEndian.PutUint32(p[458:], uint32(14<<20/sector))
	p[510], p[511] = 0x55, 0xaa
	copy(p[1<<20:], bytes.Repeat([]byte("content "), 10_000))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), p, 0o600))
}

// sectors FILE N: the metadata of the VHDX says logical sectors of N bytes. With
// "make" behind it, it is made to. The layout of a small image is the same.
func cmdSectors(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: sectors FILE N [make]")
	}
	want, err := strconv.ParseUint(args[1], 10, 32)
	ts.Check(err)
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	table := bytes.Index(b, []byte("metadata\x00\x00"))
	item := bytes.Index(b, []byte("\x1d\xbf\x41\x81\x6f\xa9\x09\x47\xba\x47\xf2\x33\xa8\xfa\xab\x5f"))
	if table < 0 || item < 0 {
		ts.Fatalf("%s is no VHDX", args[0])
	}
	value := b[table+int(binary.LittleEndian.Uint32(b[item+16:])):][:4]
	if len(args) > 2 {
		binary.LittleEndian.PutUint32(value, uint32(want))
		ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
	} else if got := binary.LittleEndian.Uint32(value); uint64(got) != want {
		ts.Fatalf("%s has sectors of %d bytes, want %d", args[0], got, want)
	}
}
