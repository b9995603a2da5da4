package guest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestNTFS(t *testing.T) {
	for name, test := range map[string]struct {
		size int64
		args string
	}{
		"clusters of 4096":           {6 << 20, "-c 4096 @"},
		"clusters of 512":            {6 << 20, "-c 512 @"},
		"clusters of 64 KiB":         {12 << 20, "-c 65536 @"},
		"clusters of 2 MiB":          {48 << 20, "-c 2097152 @"},
		"sectors of 4096":            {8 << 20, "-s 4096 -c 4096 @"},
		"sectors of 1024":            {8 << 20, "-s 1024 -c 8192 @"},
		"shorter than its partition": {8 << 20, "-s 512 @ 9999"},
	} {
		t.Run(name, func(t *testing.T) {
			path := stale(t, test.size)
			before, after, _ := strings.Cut(test.args, "@")
			tool(t, "mkntfs", slices.Concat(strings.Fields("-F -f -q "+before), []string{path}, strings.Fields(after))...)
			files := ntfsFiles(t, path)

			clusters, clusterSize := ntfsFree(t, path)
			var free int64
			for _, e := range trimFile(t, path, openNTFS) {
				free += e.Length
			}
			if want := clusters * clusterSize; free != want {
				t.Errorf("%d bytes are free, ntfsinfo has %d", free, want)
			}

			if after = strings.TrimSpace(after); after == "" { // else it looks for the second boot sector elsewhere
				tool(t, "ntfsfix", "-n", path)
			}
			tool(t, "ntfsresize", "--info", "-f", path)
			for name, want := range files {
				if got := tool(t, "ntfscat", path, name); got != string(want) {
					t.Errorf("%s has changed", name)
				}
			}
		})
	}
}

// ntfsFiles copies files into a volume, small and large, and returns them.
func ntfsFiles(t *testing.T, path string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	host := filepath.Join(t.TempDir(), "file")
	for i := range 8 {
		name := fmt.Sprintf("file%d", i)
		files[name] = bytes.Repeat([]byte(name+"..."), 1+i*i*900)
		if err := os.WriteFile(host, files[name], 0o600); err != nil {
			t.Fatal(err)
		}
		tool(t, "ntfscp", "-f", "-q", path, host, name)
	}
	return files
}

// ntfsFree is what ntfsinfo counts.
func ntfsFree(t *testing.T, path string) (clusters, clusterSize int64) {
	t.Helper()
	out := tool(t, "ntfsinfo", "-m", path)
	free := regexp.MustCompile(`Free Clusters: (\d+)`).FindStringSubmatch(out)
	size := regexp.MustCompile(`Cluster Size: (\d+)`).FindStringSubmatch(out)
	if free == nil || size == nil {
		t.Fatalf("ntfsinfo says %s", out)
	}
	return number(t, free[1]), number(t, size[1])
}

// smallNTFS is the image of a volume with clusters of 512 bytes, and a file in
// its root folder: its name and content.
func smallNTFS(t testing.TB, name, content string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ntfs")
	create(t, path, 3<<20)
	tool(t, "mkntfs", "-F", "-f", "-q", "-c", "512", path)
	if name != "" {
		host := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(host, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		tool(t, "ntfscp", "-f", "-q", path, host, name)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var le = binary.LittleEndian

const ntfsRecordSize = 1024

func recordAt(b []byte, number int) []byte {
	return b[int(le.Uint64(b[48:]))*512+number*ntfsRecordSize:][:ntfsRecordSize]
}

// editRecord changes a record of the MFT, between undoing its fixups and doing
// them again.
func editRecord(b []byte, number int, do func(r []byte)) {
	r := recordAt(b, number)
	usa := int(le.Uint16(r[4:]))
	for i := 1; i <= ntfsRecordSize/512; i++ {
		copy(r[i*512-2:], r[usa+2*i:][:2])
	}
	do(r)
	usa = int(le.Uint16(r[4:]))
	for i := 1; i <= ntfsRecordSize/512; i++ {
		copy(r[usa+2*i:], r[i*512-2:][:2])
		copy(r[i*512-2:], r[usa:][:2])
	}
}

// attrs are the attributes of a record, whose fixups are undone.
func attrs(r []byte) (all [][]byte) {
	for b := r[le.Uint16(r[20:]):]; le.Uint32(b) != 0xffffffff; b = b[le.Uint32(b[4:]):] {
		all = append(all, bytes.Clone(b[:le.Uint32(b[4:])]))
	}
	return all
}

func setAttrs(r []byte, all ...[]byte) {
	off := int(le.Uint16(r[20:]))
	for _, a := range all {
		off += copy(r[off:], a)
	}
	le.PutUint32(r[off:], 0xffffffff)
	le.PutUint32(r[off+4:], 0)
	le.PutUint32(r[24:], uint32(off+8))
}

func attrIndex(all [][]byte, kind uint32) int {
	return slices.IndexFunc(all, func(a []byte) bool { return le.Uint32(a) == kind })
}

// editAttr changes the first attribute of a kind.
func editAttr(b []byte, number int, kind uint32, do func(a []byte)) {
	editRecord(b, number, func(r []byte) {
		all := attrs(r)
		do(all[attrIndex(all, kind)])
		setAttrs(r, all...)
	})
}

// firstRun is where the content of an attribute begins, and how many clusters
// are in its first run.
func firstRun(a []byte) (lcn, n int) {
	p := a[le.Uint16(a[32:]):]
	for i := range int(p[0] & 15) {
		n |= int(p[1+i]) << (8 * i)
	}
	for i := range int(p[0] >> 4) {
		lcn |= int(p[1+int(p[0]&15)+i]) << (8 * i)
	}
	return lcn, n
}

// data is the first run of a file's content.
func data(b []byte, number int) []byte {
	var content []byte
	editRecord(b, number, func(r []byte) {
		all := attrs(r)
		lcn, n := firstRun(all[attrIndex(all, 0x80)])
		content = b[lcn*512:][:n*512]
	})
	return content
}

// split makes two pieces of a file's content: the second begins with VCN vcn,
// lies at lcn, and has its attribute in the record extension.
func split(b []byte, number, extension, vcn, lcn int) {
	var second []byte
	var base uint64
	var total int
	editRecord(b, number, func(r []byte) {
		all := attrs(r)
		i := attrIndex(all, 0x80)
		a := all[i]
		first, n := firstRun(a)
		total = n
		base = uint64(number) | uint64(le.Uint16(r[16:]))<<48

		piece := func(from, to, at int) []byte {
			p := bytes.Clone(a[:64])
			le.PutUint64(p[16:], uint64(from))
			le.PutUint64(p[24:], uint64(to-1))
			le.PutUint16(p[32:], 64)
			p = append(p, 0x44)
			p = le.AppendUint32(p, uint32(to-from))
			p = le.AppendUint32(p, uint32(at))
			p = append(p, make([]byte, 80-len(p))...)
			le.PutUint32(p[4:], uint32(len(p)))
			return p
		}
		all[i] = piece(0, vcn, first)
		second = piece(vcn, total, lcn)
		le.PutUint16(second[14:], 0)

		var list []byte
		entry := func(a []byte, ref uint64) {
			e := make([]byte, 32)
			copy(e, a[:4])
			le.PutUint16(e[4:], 32)
			e[7] = 26
			if a[8] != 0 {
				copy(e[8:16], a[16:24])
			}
			le.PutUint64(e[16:], ref)
			copy(e[24:26], a[14:16])
			list = append(list, e...)
		}
		for j, a := range all {
			entry(a, base)
			if j == i {
				entry(second, uint64(extension)|1<<48)
			}
		}
		attr := make([]byte, 24)
		attr[0] = 0x20
		le.PutUint32(attr[4:], uint32(24+len(list)))
		le.PutUint16(attr[14:], 99)
		le.PutUint32(attr[16:], uint32(len(list)))
		le.PutUint16(attr[20:], 24)
		setAttrs(r, slices.Insert(all, 1, append(attr, list...))...)
	})
	editRecord(b, extension, func(r []byte) {
		le.PutUint16(r[16:], 1)
		le.PutUint16(r[22:], 1)
		le.PutUint64(r[32:], base)
		setAttrs(r, second)
	})
}

// A fragmented $Bitmap, and a fragmented MFT, go on in other records.
func TestNTFSAttributeLists(t *testing.T) {
	b := smallNTFS(t, "", "")
	before, err := freeOf(bytes.NewReader(b), openNTFS)
	if err != nil {
		t.Fatal(err)
	}

	// The second half of the bitmap moves to where the file system is free.
	free := before[len(before)-1]
	lcn := int(free.Offset / 512)
	copy(b[lcn*512:][:512], data(b, 6)[512:])
	split(b, 6, 16, 1, lcn)
	clear(data(b, 6)[512:]) // the old place, were it read: all free
	after, err := freeOf(bytes.NewReader(b), openNTFS)
	if err != nil || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("bitmap in two pieces: got %v, %v, want %v", after, err, before)
	}
	path := filepath.Join(t.TempDir(), "ntfs")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	clusters, size := ntfsFree(t, path)
	for _, e := range after {
		clusters -= e.Length / size
	}
	if clusters != 0 {
		t.Errorf("ntfsinfo has %d more free clusters", clusters)
	}

	// The MFT from record 16 on, which is then found through record 15.
	var mft int
	editRecord(b, 0, func(r []byte) {
		all := attrs(r)
		mft, _ = firstRun(all[attrIndex(all, 0x80)])
	})
	split(b, 0, 15, 32, mft+32)
	after, err = freeOf(bytes.NewReader(b), openNTFS)
	if err != nil || fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("MFT in two pieces: got %v, %v, want %v", after, err, before)
	}

	for says, do := range map[string]func(b []byte){
		"does not belong to record 6":    func(b []byte) { editRecord(b, 16, func(r []byte) { r[32] = 7 }) },
		"does not belong to record 0":    func(b []byte) { editRecord(b, 15, func(r []byte) { r[16] = 2 }) },
		"record 16 of the MFT is not in": func(b []byte) { editRecord(b, 16, func(r []byte) { r[22] = 0 }) },
		"a piece of attribute 0x80 is":   func(b []byte) { editAttr(b, 16, 0x80, func(a []byte) { a[16] = 2 }) },
		"has no attribute 0x80":          func(b []byte) { editAttr(b, 16, 0x80, func(a []byte) { a[14] = 9 }) },
		"an entry that is not inside":    func(b []byte) { editAttr(b, 6, 0x20, func(a []byte) { a[24+4] = 0 }) },
		"attribute list of 300000":       func(b []byte) { longList(b) },
		"record 65552: the MFT has":      func(b []byte) { editAttr(b, 6, 0x20, func(a []byte) { a[24+32*listed(a)+18] = 1 }) },
		"a name that is not inside":      func(b []byte) { editAttr(b, 6, 0x20, func(a []byte) { a[24+6] = 200 }) },
		"is compressed, encrypted or sp": func(b []byte) { editAttr(b, 6, 0x20, func(a []byte) { a[12] = 1 }) },
	} {
		b := bytes.Clone(b)
		do(b)
		wantRefused(t, bytes.NewReader(b), openNTFS, ErrNotClean, says)
	}
}

// listed is which entry of an attribute list names record 16.
func listed(a []byte) int {
	for i := 0; ; i++ {
		if le.Uint16(a[24+32*i+16:]) == 16 {
			return i
		}
	}
}

// longList makes the attribute list of $Bitmap one that is in clusters, and
// longer than Windows allows.
func longList(b []byte) {
	editRecord(b, 6, func(r []byte) {
		all := attrs(r)
		a := make([]byte, 80)
		a[0], a[4], a[8], a[32] = 0x20, 80, 1, 64
		le.PutUint64(a[24:], 999)
		le.PutUint64(a[48:], 300000)
		le.PutUint64(a[56:], 300000)
		copy(a[64:], []byte{0x22, 0xe8, 0x03, 0x00, 0x01})
		all[attrIndex(all, 0x20)] = a
		setAttrs(r, all...)
	})
}

func TestNTFSRefuses(t *testing.T) {
	clean := smallNTFS(t, "", "")
	bitmap := func(do func(a []byte)) func(b []byte) {
		return func(b []byte) { editAttr(b, 6, 0x80, do) }
	}
	pairs := func(p ...byte) func(b []byte) {
		return bitmap(func(a []byte) { copy(a[le.Uint16(a[32:]):], p) })
	}
	for name, test := range map[string]struct {
		do   func(b []byte)
		want error
		says string
	}{
		"no boot sector":            {func(b []byte) { b[3] = 'n' }, errUnknown, "none of NTFS"},
		"no end of the boot sector": {func(b []byte) { b[510] = 0 }, errUnknown, "none of NTFS"},
		"FAT as well":               {func(b []byte) { b[16] = 2 }, errUnknown, "not only of NTFS"},
		"sectors of 768":            {func(b []byte) { b[12] = 3 }, errUnknown, "sectors of 768"},
		"sectors of 8192":           {func(b []byte) { b[12] = 0x20 }, errUnknown, "sectors of 8192"},
		"clusters of 3 sectors":     {func(b []byte) { b[13] = 3 }, errUnknown, "clusters of 3"},
		"clusters of 4 MiB":         {func(b []byte) { b[13] = 0xf3 }, errUnknown, "clusters of 8192"},
		"huge clusters":             {func(b []byte) { b[13] = 0x81 }, errUnknown, "clusters of"},
		"cut short":                 {func(b []byte) { b[42] = 1 }, ErrNotClean, "the volume has"},
		"far cut short":             {func(b []byte) { b[47] = 0x80 }, ErrNotClean, "the volume has"},
		"no clusters":               {func(b []byte) { clear(b[40:48]) }, ErrNotClean, "without clusters"},
		"records of 256 bytes":      {func(b []byte) { b[64] = 0xf8 }, errUnknown, "records of 256"},
		"records of 128 KiB":        {func(b []byte) { b[64] = 0xef }, errUnknown, "records of 131072"},
		"records of nothing":        {func(b []byte) { b[64] = 0 }, errUnknown, "records of 0"},
		"MFT nowhere":               {func(b []byte) { clear(b[48:56]) }, ErrNotClean, "MFT at cluster 0"},
		"MFT outside":               {func(b []byte) { b[55] = 0x80 }, ErrNotClean, "MFT at cluster"},
		"MFT elsewhere":             {func(b []byte) { copy(b[48:56], []byte{60, 0}); copy(b[60*512:], recordAt(bytes.Clone(clean), 0)) }, ErrNotClean, "not where the boot sector"},

		"no record":            {func(b []byte) { recordAt(b, 3)[0] = 'B' }, ErrNotClean, `in the place of a record "FILE"`},
		"half written":         {func(b []byte) { recordAt(b, 6)[510]++ }, ErrNotClean, "half written"},
		"update sequence":      {func(b []byte) { recordAt(b, 6)[6] = 4 }, ErrNotClean, "update sequence"},
		"far update sequence":  {func(b []byte) { recordAt(b, 6)[5] = 4 }, ErrNotClean, "update sequence"},
		"record of a file":     {func(b []byte) { editRecord(b, 6, func(r []byte) { r[22] = 0 }) }, ErrNotClean, "not in use"},
		"too long a record":    {func(b []byte) { editRecord(b, 6, func(r []byte) { r[25] = 5 }) }, ErrNotClean, "has 1"},
		"far attributes":       {func(b []byte) { editRecord(b, 6, func(r []byte) { r[21] = 4 }) }, ErrNotClean, "no end of attributes"},
		"attribute of nothing": {func(b []byte) { editRecord(b, 6, func(r []byte) { r[le.Uint16(r[20:])+4] = 0 }) }, ErrNotClean, "not inside its record"},
		"long attribute":       {func(b []byte) { editRecord(b, 6, func(r []byte) { r[le.Uint16(r[20:])+7] = 0x80 }) }, ErrNotClean, "not inside its record"},
		"long content":         {func(b []byte) { editRecord(b, 6, func(r []byte) { r[le.Uint16(r[20:])+19] = 0x80 }) }, ErrNotClean, "not inside its attribute"},
		"long name":            {func(b []byte) { editRecord(b, 6, func(r []byte) { r[le.Uint16(r[20:])+9] = 0x80 }) }, ErrNotClean, "name of an attribute"},

		"dirty":               {volumeFlags(0x0001), ErrNotClean, "flags 0x1"},
		"log to resize":       {volumeFlags(0x0002), ErrNotClean, "flags 0x2"},
		"to upgrade":          {volumeFlags(0x0004), ErrNotClean, "flags 0x4"},
		"changed by chkdsk":   {volumeFlags(0x8000), ErrNotClean, "flags 0x8000"},
		"NTFS 4":              {func(b []byte) { editAttr(b, 3, 0x70, func(a []byte) { a[24+8] = 4 }) }, errUnknown, "NTFS 4.1"},
		"no information":      {func(b []byte) { editAttr(b, 3, 0x70, func(a []byte) { a[16] = 8 }) }, ErrNotClean, "no information"},
		"another information": {func(b []byte) { editAttr(b, 3, 0x70, func(a []byte) { a[0] = 0x71 }) }, ErrNotClean, "missing"},

		"bitmap too short":       {bitmap(func(a []byte) { le.PutUint64(a[48:], 700); le.PutUint64(a[56:], 700) }), ErrNotClean, "700 bytes for"},
		"bitmap not initialised": {bitmap(func(a []byte) { le.PutUint64(a[56:], 512) }), ErrNotClean, "512 bytes for"},
		"bitmap over its end":    {bitmap(func(a []byte) { a[55] = 0x7f }), ErrNotClean, "attribute of"},
		"bitmap of less than 0":  {bitmap(func(a []byte) { a[55] = 0x80; a[63] = 0x80 }), ErrNotClean, "attribute of"},
		"bitmap sparse":          {bitmap(func(a []byte) { a[13] = 0x80 }), ErrNotClean, "sparse"},
		"bitmap with a hole":     {pairs(0x01, 2, 0), ErrNotClean, "hole"},
		"no run":                 {pairs(0), ErrNotClean, "ends at VCN"},
		"run of no length":       {pairs(0x10, 2, 2), ErrNotClean, "mapping pair"},
		"run of length 0":        {pairs(0x11, 0, 40), ErrNotClean, "more clusters than"},
		"run of length -1":       {pairs(0x11, 0xff, 40), ErrNotClean, "clusters"},
		"run before the volume":  {pairs(0x11, 2, 0x80), ErrNotClean, "at cluster -128"},
		"run behind the volume":  {pairs(0x21, 2, 0xff, 0x7f), ErrNotClean, "at cluster 32767"},
		"run of 9 bytes":         {pairs(0x91, 2), ErrNotClean, "mapping pair"},
		"$Boot is free":          {func(b []byte) { data(b, 6)[0] &^= 1 }, ErrNotClean, "boot sector as free"},

		"journal of zeros":         {func(b []byte) { clear(data(b, 2)) }, ErrNotClean, "no restart page"},
		"journal not all empty":    {func(b []byte) { data(b, 2)[70000] = 0 }, ErrNotClean, "is not empty"},
		"journal to replay":        {restart(1, 0, 0, 7, 0, 0), ErrNotClean, "journal to replay"},
		"newer of two is first":    {restart(1, 0, 0, 6, 0, 2), ErrNotClean, "journal to replay"},
		"newer of two is second":   {restart(1, 0, 2, 8, 0, 0), ErrNotClean, "journal to replay"},
		"only one of two is clean": {restart(1, 0, 0, 7, 0, 2), ErrNotClean, "journal to replay"},
		"fast start":               {restart(2, 0, 2, 7, 0, 2), ErrNotClean, "version 2."},
		"half restart page":        {func(b []byte) { restart(1, 0, 2, 7, 0, 2)(b); data(b, 2)[4096+1022]++ }, ErrNotClean, "half written"},
		"one restart page":         {func(b []byte) { restart(1, 0, 2, 7, 0, 2)(b); clear(data(b, 2)[4096:8192]) }, ErrNotClean, "in the place of"},
		"restart area outside":     {func(b []byte) { restart(1, 0, 2, 7, 0, 2)(b); data(b, 2)[25] = 0x10 }, ErrNotClean, "restart area"},
		"pages of 1 MiB":           {func(b []byte) { restart(1, 0, 2, 7, 0, 2)(b); data(b, 2)[17] = 0; data(b, 2)[18] = 0x10 }, ErrNotClean, "no restart page"},

		"shadow copies":               {shadows(0x02), errUnknown, "shadow copies, which"},
		"store of a shadow copy":      {shadows(0x03), errUnknown, "shadow copies, which"},
		"shadow copies elsewhere":     {func(b []byte) { shadows(0)(b); b[0x1e00+80] = 1 }, errUnknown, "another volume"},
		"catalog outside":             {func(b []byte) { shadows(0)(b); b[0x1e00+50] = 0xff }, ErrNotClean, "volume ends"},
		"catalog far outside":         {func(b []byte) { shadows(0)(b); b[0x1e00+55] = 0xff }, ErrNotClean, "catalog of shadow copies at"},
		"no catalog":                  {func(b []byte) { shadows(0)(b); b[0x1e00+50] = 0x10 }, ErrNotClean, "no catalog"},
		"catalog that ends in itself": {func(b []byte) { shadows(0)(b); copy(b[catalogAt+40:], b[0x1e00+48:][:8]) }, ErrNotClean, "no end"},
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(clean)
			test.do(b)
			wantRefused(t, bytes.NewReader(b), openNTFS, test.want, test.says)
		})
	}
	wantRefused(t, bytes.NewReader(nil), openNTFS, ErrNotClean, "volume ends")

	for name, do := range map[string]func(b []byte){
		"as it was":            func([]byte) {},
		"mounted on NT4":       volumeFlags(0x0008),
		"closed journal":       restart(1, 0xffff, 0, 7, 0xffff, 0),
		"clean journal":        restart(1, 0, 2, 7, 0, 2),
		"clean since the last": restart(1, 0, 0, 8, 0, 2),
		"shadow copies gone":   shadows(0x01),
		"no shadow copies":     func(b []byte) { shadows(0)(b); clear(b[0x1e00+48:][:8]) },
	} {
		b := bytes.Clone(clean)
		do(b)
		if _, err := freeOf(bytes.NewReader(b), openNTFS); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func volumeFlags(flags uint16) func(b []byte) {
	return func(b []byte) {
		editAttr(b, 3, 0x70, func(a []byte) { le.PutUint16(a[24+10:], flags) })
	}
}

// restart writes the two restart pages of the journal: the first with LSN 7.
func restart(version, client1, flags1 uint16, lsn2 uint64, client2, flags2 uint16) func(b []byte) {
	return func(b []byte) {
		page := func(p []byte, lsn uint64, client, flags uint16) {
			clear(p)
			copy(p, "RSTR")
			le.PutUint16(p[4:], 30)
			le.PutUint16(p[6:], 9)
			le.PutUint32(p[16:], 4096)
			le.PutUint32(p[20:], 4096)
			le.PutUint16(p[24:], 48)
			le.PutUint16(p[26:], 1)
			le.PutUint16(p[28:], version)
			le.PutUint16(p[30:], 5)
			for i := 1; i <= 8; i++ {
				le.PutUint16(p[i*512-2:], 5)
			}
			le.PutUint64(p[48:], lsn)
			le.PutUint16(p[48+8:], 1)
			le.PutUint16(p[48+10:], 0xffff)
			le.PutUint16(p[48+12:], client)
			le.PutUint16(p[48+14:], flags)
		}
		log := data(b, 2)
		page(log[:4096], 7, client1, flags1)
		page(log[4096:8192], lsn2, client2, flags2)
	}
}

// catalogAt is free in smallNTFS.
const catalogAt = 0x2f0000

// shadows writes the header of shadow copies, and a catalog with an entry of a
// kind among unused ones.
func shadows(kind byte) func(b []byte) {
	const id = "\x6b\x87\x08\x38\x76\xc1\x48\x4e\xb7\xae\x04\x04\x6e\x6c\xc7\x52"
	return func(b []byte) {
		header := b[0x1e00:]
		copy(header, id)
		header[16], header[20] = 1, 1
		le.PutUint64(header[48:], catalogAt)
		catalog := b[catalogAt:][:16<<10]
		copy(catalog, id)
		catalog[16], catalog[20] = 1, 2
		catalog[128] = 1
		catalog[16<<10-128] = kind
	}
}

func TestNTFSHibernation(t *testing.T) {
	for name, test := range map[string]struct{ name, content, says string }{
		"of Windows XP":    {"hiberfil.sys", "hibr" + strings.Repeat("\x00", 5000), "Windows sleeps"},
		"of Windows 10":    {"hiberfil.sys", "HIBR" + strings.Repeat("memory..", 5000), "Windows sleeps"},
		"capital letters":  {"HIBERFIL.SYS", "HIBR" + strings.Repeat("memory..", 5000), "Windows sleeps"},
		"of another disk":  {"hiberfil.sys", "no memory", "Windows sleeps"},
		"woken up":         {"hiberfil.sys", "RSTR" + strings.Repeat("memory..", 5000), ""},
		"not yet asleep":   {"hiberfil.sys", strings.Repeat("\x00", 8192), ""},
		"of somebody else": {"hiberfil.sy", "HIBR" + strings.Repeat("\x00", 8192), ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := smallNTFS(t, test.name, test.content)
			if test.says != "" {
				wantRefused(t, bytes.NewReader(b), openNTFS, ErrNotClean, test.says)
			} else if _, err := freeOf(bytes.NewReader(b), openNTFS); err != nil {
				t.Error(err)
			}
		})
	}
}

// rootBlock is the first index block of the root folder, its fixups undone by
// the caller if they matter: it is 4 KiB, in one run.
func rootBlock(b []byte) []byte {
	var block []byte
	editRecord(b, 5, func(r []byte) {
		all := attrs(r)
		lcn, _ := firstRun(all[attrIndex(all, 0xa0)])
		block = b[lcn*512:][:4096]
	})
	return block
}

// entryOf is the entry of the root folder for hiberfil.sys.
func entryOf(b []byte) []byte {
	block := rootBlock(b)
	for e := block[24+le.Uint32(block[24:]):]; le.Uint16(e[12:])&2 == 0; e = e[le.Uint16(e[8:]):] {
		if e[16+64] == 12 && e[16+66] == 'h' && e[16+68] == 'i' {
			return e[:le.Uint16(e[8:])]
		}
	}
	return nil
}

func TestNTFSRootFolder(t *testing.T) {
	asleep := smallNTFS(t, "hiberfil.sys", "HIBR"+strings.Repeat("memory..", 600))
	for name, test := range map[string]struct {
		do   func(b []byte)
		want error
		says string
	}{
		"small enough for its record": {func(b []byte) {
			entry := bytes.Clone(entryOf(b))
			editRecord(b, 5, func(r []byte) {
				all := attrs(r)
				root := all[attrIndex(all, 0x90)]
				header := root[le.Uint16(root[20:]):][:32]
				le.PutUint32(header[16:], 16)
				le.PutUint32(header[20:], uint32(16+len(entry)+16))
				le.PutUint32(header[24:], uint32(16+len(entry)+16))
				last := make([]byte, 16)
				last[8], last[12] = 16, 2
				root = slices.Concat(root[:int(le.Uint16(root[20:]))+32], entry, last)
				le.PutUint32(root[4:], uint32(len(root)))
				le.PutUint32(root[16:], uint32(32+len(entry)+16))
				setAttrs(r, append(all[:attrIndex(all, 0x90)], root)...)
			})
		}, ErrNotClean, "Windows sleeps"},
		"block that is not used":   {func(b []byte) { editAttr(b, 5, 0xb0, func(a []byte) { a[le.Uint16(a[20:])] = 0 }) }, nil, ""},
		"block that is none":       {func(b []byte) { rootBlock(b)[0] = 'B' }, ErrNotClean, `record "INDX"`},
		"block half written":       {func(b []byte) { rootBlock(b)[1023]++ }, ErrNotClean, "half written"},
		"index that is too long":   {func(b []byte) { rootBlock(b)[24+5] = 0x10 }, ErrNotClean, "index of"},
		"entry of nothing":         {func(b []byte) { e := entryOf(b); e[8], e[9] = 0, 0 }, ErrNotClean, "not inside"},
		"entry without its key":    {func(b []byte) { e := entryOf(b); e[8], e[9] = 24, 0 }, ErrNotClean, "entry of 24 bytes"},
		"name that is too long":    {func(b []byte) { entryOf(b)[16+64] = 255 }, ErrNotClean, "name that is not inside"},
		"entry of no record":       {func(b []byte) { entryOf(b)[2] = 1 }, ErrNotClean, "record 6"},
		"blocks of 3 KiB":          {func(b []byte) { editAttr(b, 5, 0x90, func(a []byte) { a[le.Uint16(a[20:])+9] = 0x0c }) }, ErrNotClean, "index blocks of 3072"},
		"no root":                  {func(b []byte) { editAttr(b, 5, 0x90, func(a []byte) { a[16] = 8 }) }, ErrNotClean, "no index root"},
		"root without header":      {func(b []byte) { editAttr(b, 5, 0x90, func(a []byte) { a[16] = 20 }) }, ErrNotClean, "without a header"},
		"memory that has no end":   {func(b []byte) { editAttr(b, int(le.Uint32(entryOf(b))), 0x80, func(a []byte) { a[56], a[57] = 0, 2 }) }, ErrNotClean, "of 512 bytes"},
		"memory that is not there": {func(b []byte) { editRecord(b, int(le.Uint32(entryOf(b))), func(r []byte) { r[22] = 0 }) }, ErrNotClean, "not in use"},
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(asleep)
			test.do(b)
			if test.want != nil {
				wantRefused(t, bytes.NewReader(b), openNTFS, test.want, test.says)
			} else if _, err := freeOf(bytes.NewReader(b), openNTFS); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNTFSMutations(t *testing.T) {
	b := smallNTFS(t, "hiberfil.sys", strings.Repeat("\x00", 8192))
	mutate(t, b, openNTFS, 0, 96)
	mutate(t, b, openNTFS, 500, 512)
	mft := int(le.Uint64(b[48:])) * 512
	for _, record := range []int{0, 2, 3, 5, 6} {
		at := mft + record*ntfsRecordSize
		mutate(t, b, openNTFS, at, at+64)
		end := at + int(le.Uint32(b[at+24:]))
		mutate(t, b, openNTFS, end-88, end)
	}
}

func FuzzNTFS(f *testing.F) {
	plain := smallNTFS(f, "hiberfil.sys", strings.Repeat("\x00", 8192))
	pieces := bytes.Clone(plain)
	split(pieces, 6, 16, 1, catalogAt/512)
	copy(pieces[catalogAt:], data(plain, 6)[512:])
	log := bytes.Clone(plain)
	restart(1, 0, 2, 7, 0, 2)(log)
	shadows(1)(log)
	mft := uint32(le.Uint64(plain[48:])) * 512
	fuzzOpener(f, openNTFS, [][]byte{plain, pieces, log}, 11, 13, 40, 48, 64, 0x1e00+48,
		mft+4, mft+20, mft+24, mft+200, mft+3*1024+22, mft+5*1024+200, mft+6*1024+56+4, mft+6*1024+300, mft+16*1024+100)
}
