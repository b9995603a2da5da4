package vhdx_test

import (
	"fmt"
	"io/fs"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/vhdx"
	"github.com/davit-oci/davit/disk/internal/virtual"
)

// A VHDX file is at least 4 MiB long, and nearly all of that is zeros. So the
// fuzzer gets the parts that are not, and their places are fixed.
var parts = []struct{ at, length int64 }{
	{64 * kib, 128},                // headers
	{128 * kib, 128},               //
	{192 * kib, 128},               // region table
	{metadataAt, 256},              // metadata table
	{metadataAt + 64*kib, 1024},    // metadata items
	{batAt, 256},                   // BAT
	{logAt, 32 * kib},              // log
	{logAt + mib - 8*kib, 8 * kib}, // its end
	{4 * mib, 64 * kib},            // data, bitmaps
}

func split(i *image) (all [9][]byte) {
	for n, p := range parts {
		b := make([]byte, p.length)
		i.ReadAt(b, p.at)
		for len(b) > 0 && b[len(b)-1] == 0 {
			b = b[:len(b)-1]
		}
		all[n] = b
	}
	return all
}

func join(all [9][]byte, blocks uint8) *image {
	i := &image{memory: &memory{size: 4*mib + int64(blocks)*mib}}
	i.patch(0, []byte("vhdxfile"))
	for n, p := range parts {
		i.patch(p.at, all[n][:min(int64(len(all[n])), p.length)])
	}
	i.memory.size = 4*mib + int64(blocks)*mib
	for n := range 2 {
		i.header(n, func([]byte) {})
	}
	i.regions(0, func([]byte) {})
	for _, from := range []int64{0, mib - 8*kib} { // the log's
		for place := from; place < from+32*kib && place < mib; place += page {
			i.edit(logAt+place, page, func(b []byte) {
				if n := le.Uint32(b[8:]); string(b[:4]) == "loge" && n >= page && n%page == 0 && int64(n) <= mib-place {
					whole := make([]byte, n)
					i.ReadAt(whole, logAt+place)
					seal(whole)
					copy(b, whole)
				}
			})
		}
	}
	return i
}

// FuzzOpen wants of any file that it is refused as what it is, or that all ways
// to read it agree with each other, in bounded memory. Checksums are right:
// what has a wrong one is not looked at, and the fuzzer would not find out.
func FuzzOpen(f *testing.F) {
	add := func(i *image) {
		p := split(i)
		f.Add(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], uint8((i.memory.size-4*mib)/mib))
	}
	text := disktest.Mixture(mib, 30)
	for _, sector := range []int64{512, 4096} {
		i := newImage(3*mib+sector, mib, sector, nil)
		i.block(0, 6, text)
		i.block(1, 2, nil)
		i.block(3, 6, text)
		add(i)
		i.log(0, logEntry{sequence: 1, updates: []logUpdate{i.sectorOf(batAt+16, 4*mib|6), {off: batAt + 4096, length: 8192}}})
		i.dirty()
		add(i)
		next := i.log(mib-8192, logEntry{sequence: 5, tail: mib - 8192, updates: []logUpdate{{off: batAt, length: 4096}}})
		i.log(next, logEntry{sequence: 6, tail: mib - 8192, updates: []logUpdate{i.sectorOf(batAt, 4*mib|6)}})
		add(i)
		i = newImage(2*mib, mib, sector, locator("parent_linkage", "{"+dataGUID+"}", "relative_path", fmt.Sprint(sector)))
		i.bitmap(0, 1, 5, 6, 7, 8, 300)
		i.block(0, 7, text)
		i.block(1, 7, text)
		add(i)
	}
	parents := map[string]virtual.Reader{}
	for _, sector := range []int64{512, 4096} {
		parent := newImage(mib, mib, sector, nil)
		parent.block(0, 6, text)
		parents[fmt.Sprint("/", sector)] = parent
	}

	f.Fuzz(func(t *testing.T, h1, h2, regions, table, items, bat, log, logEnd, data []byte, blocks uint8) {
		i := join([9][]byte{h1, h2, regions, table, items, bat, log, logEnd, data}, blocks%4)
		disktest.Explore(t, disktest.Suspect{
			Open: func() (disk.Reader, error) {
				return vhdx.Open(i, vhdx.Options{Folder: folder{parents, "/", new([]string)}})
			},
			Refusals: []error{fs.ErrNotExist},
			Limit:    4 * mib,
		})
	})
}
