package vmdk_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/disktest"
	"github.com/davit-oci/davit/disk/internal/virtual"
	"github.com/davit-oci/davit/disk/internal/vmdk"
)

func TestReadDescriptor(t *testing.T) {
	content := disktest.Mixture(10*sectorSize, 1)
	usual := describe("vmfs", `RW 10 VMFS "disk-flat.vmdk"`)
	for name, test := range map[string]struct{ descriptor, extent string }{
		"usual":                   {usual, "disk-flat.vmdk"},
		"CR LF":                   {strings.ReplaceAll(usual, "\n", "\r\n"), "disk-flat.vmdk"},
		"byte order mark":         {"\ufeff" + usual, "disk-flat.vmdk"},
		"comment in front":        {"\n# by hand\n\n" + usual, "disk-flat.vmdk"},
		"signature in lower case": {strings.ToLower(usual), "disk-flat.vmdk"},
		"keys in upper case":      {strings.ToUpper(usual), "DISK-FLAT.VMDK"},
		"spaces around":           {strings.ReplaceAll(usual, "=", " = "), "disk-flat.vmdk"},
		"unknown keys":            {usual + "ddb.digestType=\"1\"\nchangeTrackPath=\"x\"\n=\nisNativeSnapshot=\"yes\"\n", "disk-flat.vmdk"},
		"version 4":               {strings.Replace(usual, "version=1", "version=4", 1), "disk-flat.vmdk"},
		"no line end":             {strings.TrimSpace(usual), "disk-flat.vmdk"},
		"padded":                  {usual + strings.Repeat("\x00", 3000), "disk-flat.vmdk"},
		"shorter ID, by QEMU":     {strings.Replace(usual, "0000abcd", "abcd", 1) + "\x00\n\x00\n" + strings.Repeat("\x00", 100), "disk-flat.vmdk"},
		"no create type":          {strings.Replace(usual, "createType", "type", 1), "disk-flat.vmdk"},
		"a key twice":             {usual + "parentCID=12345678\n", "disk-flat.vmdk"},
		"spaces in the name":      {strings.Replace(usual, "disk", "my  disk = 1", 1), "my  disk = 1-flat.vmdk"},
		"UTF-8":                   {strings.Replace(usual, "disk", "Größe €", 1), "Größe €-flat.vmdk"},
		"UTF-8, said":             {strings.Replace(usual, "disk", "Größe €", 1) + "encoding=\"UTF-8\"", "Größe €-flat.vmdk"},
		"Windows-1252":            {strings.Replace(usual, "disk", "Gr\xf6\xdfe \x80", 1) + "encoding=\"windows-1252\"", "Größe €-flat.vmdk"},
		"Windows-1252, unsaid":    {strings.Replace(usual, "disk", "Gr\xf6\xdfe \x80", 1), "Größe €-flat.vmdk"},
		"other, but ASCII":        {usual + "encoding=\"Shift_JIS\"", "disk-flat.vmdk"},
		"unknown, but ASCII":      {usual + "encoding=\"klingon\"", "disk-flat.vmdk"},
		"GBK":                     {strings.Replace(usual, "disk", "\xb4\xc5\xc5\xcc", 1) + "encoding=\"GBK\"", "磁盘-flat.vmdk"},
		"GB18030":                 {strings.Replace(usual, "disk", "\xb4\xc5\x81\x30\x81\x30", 1) + "encoding=\"GB18030\"", "磁\u0080-flat.vmdk"},
		"Big5":                    {strings.Replace(usual, "disk", "\xba\xcf\xba\xd0", 1) + "encoding=\"Big5\"", "磁碟-flat.vmdk"},
		"Big5 with a backslash":   {strings.Replace(usual, "disk", "\xb3\x5c", 1) + "encoding=\"Big5\"", "許-flat.vmdk"},
		"Shift_JIS":               {strings.Replace(usual, "disk", "\x95\x5c\x83\x5c", 1) + "encoding=\"Shift_JIS\"", "表ソ-flat.vmdk"},
		"EUC-JP":                  {strings.Replace(usual, "disk", "\xa5\xc7", 1) + "encoding=\"EUC-JP\"", "デ-flat.vmdk"},
		"EUC-KR":                  {strings.Replace(usual, "disk", "\xb5\xf0", 1) + "encoding=\"EUC-KR\"", "디-flat.vmdk"},
		"windows-1251":            {strings.Replace(usual, "disk", "\xe4\xe8\xf1\xea", 1) + "encoding=\"windows-1251\"", "диск-flat.vmdk"},
		"windows-1250":            {strings.Replace(usual, "disk", "\x9e", 1) + "encoding=\"windows-1250\"", "ž-flat.vmdk"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, test.extent, content)
			testImage(t, write(t, dir, "image.vmdk", []byte(test.descriptor)), content)
		})
	}
}

// No file opens but by a descriptor, and each refusal says why.
func TestReadDescriptorRefused(t *testing.T) {
	usual := describe("vmfs", `RW 10 VMFS "disk-flat.vmdk"`)
	with := func(line string) string { return describe("custom", line) }
	nine := disktest.Mixture(9*sectorSize, 1)
	sparse, stream := hosted{}.build(nine), hosted{stream: "head"}.build(nine)
	for name, test := range map[string]struct {
		content string
		kind    error
		words   string
	}{
		// What a guest may have written to its disk.
		"disk with a descriptor":         {usual + strings.Repeat("\x00", 1024) + "data", disk.ErrCorrupt, "say that it is raw"},
		"small disk with a descriptor":   {usual + "\x00" + strings.Repeat("d", 17), disk.ErrCorrupt, "say that it is raw"},
		"large disk with a descriptor":   {usual + strings.Repeat("\n", 1<<20), disk.ErrCorrupt, "say that it is raw"},
		"disk with a descriptor inside":  {"data\n" + usual, disk.ErrCorrupt, "say that it is raw"},
		"disk with a descriptor, behind": {strings.Repeat("\x00", 512) + usual, disk.ErrCorrupt, "say that it is raw"},
		"empty":                          {"", disk.ErrCorrupt, "say that it is raw"},
		"start of a header":              {"KDMV", disk.ErrCorrupt, "say that it is raw"},
		"start of a COWD header":         {"COWD" + strings.Repeat("\x00", 1000), disk.ErrCorrupt, "COWD header"},

		"no extents":                  {describe("vmfs"), disk.ErrCorrupt, "without extents"},
		"a line that says nothing":    {usual + "RWX 10 VMFS \"x\"\n", disk.ErrCorrupt, "line 9"},
		"no size":                     {with(`RW FLAT "x"`), disk.ErrCorrupt, "size"},
		"negative size":               {with(`RW -10 FLAT "x"`), disk.ErrCorrupt, `"-10" sectors`},
		"size beyond all":             {with(`RW 9223372036854775807 ZERO`), disk.ErrCorrupt, "sectors"},
		"sizes beyond all":            {with(strings.Repeat("RW 2000000000000000 ZERO\n", 2)), disk.ErrCorrupt, "extents of more than"},
		"no name":                     {with(`RW 10 FLAT`), disk.ErrCorrupt, "no name"},
		"half a name":                 {with(`RW 10 FLAT "x`), disk.ErrCorrupt, "no name"},
		"empty name":                  {with(`RW 10 FLAT ""`), disk.ErrCorrupt, "no name"},
		"name without quotes":         {with(`RW 10 FLAT x.vmdk`), disk.ErrCorrupt, "in quotes"},
		"offset that is none":         {with(`RW 10 FLAT "x" y`), disk.ErrCorrupt, `"y" sectors`},
		"unknown type":                {with(`RW 10 HOLLOW "x"`), disk.ErrUnsupported, "type HOLLOW"},
		"raw device mapping":          {with(`RW 10 VMFSRDM "x"`), disk.ErrUnsupported, "VMFSRDM"},
		"raw device":                  {with(`RW 10 VMFSRAW "x"`), disk.ErrUnsupported, "VMFSRAW"},
		"no access":                   {with(`NOACCESS 10 ZERO`), disk.ErrUnsupported, "NOACCESS"},
		"device of Linux":             {with(`RW 10 FLAT "/dev/sda" 0`), disk.ErrUnsupported, "device"},
		"device of Windows":           {with(`RW 10 FLAT "\\.\PhysicalDrive0" 0`), disk.ErrUnsupported, "device"},
		"device of ESXi":              {with(`RW 10 VMFS "/vmfs/devices/disks/x"`), disk.ErrUnsupported, "device"},
		"object":                      {with(`RW 10 VMFS "vsan://5d6c"`), disk.ErrUnsupported, "export the disk"},
		"fullDevice":                  {describe("fullDevice", `RW 10 FLAT "x" 0`), disk.ErrUnsupported, `"fullDevice"`},
		"partitionedDevice":           {describe("partitionedDevice", `RW 10 FLAT "x" 0`), disk.ErrUnsupported, `"partitionedDevice"`},
		"vmfsRaw":                     {describe("vmfsRaw", `RW 10 FLAT "x" 0`), disk.ErrUnsupported, `"vmfsRaw"`},
		"vmfsRDM":                     {describe("vmfsRDM", `RW 10 FLAT "x" 0`), disk.ErrUnsupported, `"vmfsRDM"`},
		"create type that nobody has": {describe("monolithicHollow", `RW 10 FLAT "x" 0`), disk.ErrUnsupported, `"monolithicHollow"`},
		"version 5":                   {strings.Replace(usual, "version=1", "version=5", 1), disk.ErrUnsupported, `version "5"`},
		"encrypted":                   {usual + "encryption.keySafe = \"vmware:key\"\n", disk.ErrUnsupported, "encryption"},
		"encrypted by a filter":       {usual + "ddb.iofilters = \"vmwarevmcrypt\"\n", disk.ErrUnsupported, "encryption"},
		"CID that is none":            {strings.Replace(usual, "0000abcd", "xyz", 1), disk.ErrCorrupt, "cid"},
		"CID that is too long":        {strings.Replace(usual, "ffffffff", "1ffffffff", 1), disk.ErrCorrupt, "parentcid"},
		"name in an unknown encoding": {strings.Replace(usual, "disk", "\x83\x66", 1) + "encoding=\"klingon\"", disk.ErrUnsupported, `in encoding "klingon"`},
		"name that is no Shift_JIS":   {strings.Replace(usual, "disk", "\x83", 1) + "encoding=\"Shift_JIS\"", disk.ErrCorrupt, "not in Shift_JIS"},
		"name that is no UTF-8":       {strings.Replace(usual, "disk", "\xb4\xc5", 1) + "encoding=\"UTF-8\"", disk.ErrCorrupt, "not in UTF-8"},
		"too many extents":            {with(strings.Repeat("RW 1 ZERO\n", 4097)), disk.ErrUnsupported, "more than 4096 extents"},
		"name without a delta":        {usual + "parentFileNameHint=\"x.vmdk\"\n", disk.ErrCorrupt, `no parent, but names "x.vmdk"`},
		"delta without a name":        {strings.Replace(with("RW 10 ZERO"), "ffffffff", "12345678", 1), disk.ErrCorrupt, "does not name its parent"},
		"extent that is not there":    {usual, fs.ErrNotExist, `"disk-flat.vmdk"`},
		"extent outside":              {with(`RW 10 FLAT "../../x"`), disk.ErrBackingFile, `"../../x"`},
		"extent at an absolute path":  {with(`RW 10 FLAT "/etc/passwd"`), disk.ErrBackingFile, `"/etc/passwd"`},
		"parent outside":              {delta("/etc/passwd", "custom", "RW 10 ZERO"), disk.ErrBackingFile, `"/etc/passwd"`},
		"parent that is not there":    {delta("x.vmdk", "custom", "RW 10 ZERO"), disk.ErrBackingFile, `"x.vmdk"`},
		"parent that is no image":     {delta("short", "custom", "RW 10 ZERO"), disk.ErrCorrupt, `opening parent "short"`},
		"its own parent":              {delta("image.vmdk", "custom", "RW 10 ZERO"), disk.ErrCorrupt, "loop"},

		// short has nine sectors, sparse as many, sub is a descriptor.
		"flat extent that is cut":     {with(`RW 10 FLAT "short" 0`), disk.ErrCorrupt, "the file ends at 0x1200"},
		"offset beyond the file":      {with(`RW 1 FLAT "short" 9`), disk.ErrCorrupt, "the file ends at 0x1200"},
		"offset far beyond the file":  {with(`RW 1 FLAT "short" 2000000000000000`), disk.ErrCorrupt, "the file ends at 0x1200"},
		"sparse extent that is none":  {with(`RW 9 SPARSE "short"`), disk.ErrCorrupt, "not a sparse extent"},
		"extent that is a descriptor": {with(`RW 9 SPARSE "sub.vmdk"`), disk.ErrCorrupt, "not a sparse extent"},
		"sparse extent that is short": {with(`RW 10 SPARSE "sparse"`), disk.ErrCorrupt, "the descriptor has 5120 bytes, the sparse extent 4608"},
		"compressed and more":         {with("RW 9 SPARSE \"stream\"\nRW 1 ZERO"), disk.ErrUnsupported, "compressed grains in a disk of 2 extents"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "short", nine)
			write(t, dir, "sparse", sparse)
			write(t, dir, "stream", stream)
			write(t, dir, "sub.vmdk", []byte(describe("custom", "RW 9 ZERO")))
			_, err := open(t, write(t, dir, "image.vmdk", []byte(test.content)))
			wantError(t, err, test.kind, test.words)
		})
	}
}

// A huge is a file that begins with these bytes, and has zeros behind them.
type huge []byte

func (huge) Size() int64 { return 1 << 59 }

func (h huge) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(h)) {
		copy(p, h[off:])
	}
	return len(p), nil
}

type hugeFolder struct{ shelf }

func (hugeFolder) Extent(string) (virtual.Reader, error) { return huge{}, nil }

// Offsets in many huge files do not overflow.
func TestHugeFiles(t *testing.T) {
	one := describe("custom", `RW 1000 FLAT "a" 1000000000000000`)
	img, err := vmdk.Open(strings.NewReader(one), vmdk.Options{Folder: hugeFolder{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := disktest.TestReader(img, make([]byte, 1000*sectorSize)); err != nil {
		t.Error(err)
	}
	many := one + "RW 1 FLAT \"b\"\nRW 1 FLAT \"c\"\n"
	_, err = vmdk.Open(strings.NewReader(many), vmdk.Options{Folder: hugeFolder{}})
	wantError(t, err, disk.ErrCorrupt, "extent files of more than")

	// There is room for a directory of any size, but nobody wants to walk it.
	sparse := hosted{grainSize: 1, gtes: 1, descriptor: describe("monolithicSparse")}.build(make([]byte, sectorSize))
	_, err = vmdk.Open(huge(poke(sparse, 12+4, 1)), vmdk.Options{})
	wantError(t, err, disk.ErrCorrupt, "grain directory of 4294967297 entries")
}

// Without a folder nothing opens, and the error says what would.
func TestNoFolder(t *testing.T) {
	h := hosted{descriptor: delta("base.vmdk", "monolithicSparse", `RW 10 SPARSE "x"`)}
	for want, content := range map[string][]byte{
		`extent "disk-flat.vmdk"`: []byte(describe("vmfs", `RW 10 VMFS "disk-flat.vmdk"`)),
		`parent "base.vmdk"`:      h.build(make([]byte, 10*sectorSize)),
		"UUID 11111111-2222-3333-4444-555555555555": hosted{descriptor: describe("monolithicSparse", `RW 10 SPARSE "x"`,
			`ddb.uuid.parent="11111111-2222-3333-4444-555555555555"`)}.build(make([]byte, 10*sectorSize)),
	} {
		_, err := vmdk.Open(bytes.NewReader(content), vmdk.Options{})
		wantError(t, err, disk.ErrBackingFile, want)
	}
}

// A parent may be called by paths of other systems, and is looked for beside the
// image if it is not there.
func TestParentNames(t *testing.T) {
	base, top := disktest.Mixture(100*sectorSize, 1), disktest.Mixture(100*sectorSize, 2)
	for hint, want := range map[string][]string{
		"base.vmdk":                  {"base.vmdk"},
		"sub/base.vmdk":              {"sub/base.vmdk", "base.vmdk"},
		`C:\VMs\old place\base.vmdk`: {"C:/VMs/old place/base.vmdk", "base.vmdk"},
		"/vmfs/volumes/5f/base.vmdk": {"/vmfs/volumes/5f/base.vmdk", "base.vmdk"},
		`..\base.vmdk`:               {"../base.vmdk", "base.vmdk"},
	} {
		t.Run(hint, func(t *testing.T) {
			dir := t.TempDir()
			h := hosted{grainSize: 8, kinds: "ud"}
			hb := hosted{descriptor: describe("monolithicSparse", line(base, "SPARSE", "x"))}
			write(t, dir, "base.vmdk", hb.build(base))
			h.descriptor = strings.Replace(delta("HINT", "monolithicSparse", line(top, "SPARSE", "x")), "HINT", hint, 1)
			path := write(t, dir, "top.vmdk", h.build(top))
			testImage(t, path, h.disk(top, base))

			in := newFolder(t, dir)
			if _, err := openIn(t, path, in); err != nil || !slices.Equal(*in.opened, want) {
				t.Errorf("opened %q, %v, want %q", *in.opened, err, want)
			}
		})
	}
}

// VirtualBox's differencing images name no parent; the UUID says which it is.
// QEMU reads them as if there were none.
func TestVirtualBoxParents(t *testing.T) {
	base, top := disktest.Mixture(100*sectorSize, 1), disktest.Mixture(100*sectorSize, 2)
	const id = "12345678-9abc-def0-1234-56789abcdef0"
	none := `ddb.uuid.parent="00000000-0000-0000-0000-000000000000"`
	uuid := func(key, id string) string { return fmt.Sprintf("ddb.uuid.%s=%q", key, id) }
	build := func(h hosted, content []byte, lines ...string) []byte {
		h.descriptor = describe("monolithicSparse", append(lines, line(content, "SPARSE", "x"))...)
		return h.build(content)
	}
	dir := t.TempDir()
	h := hosted{grainSize: 8, kinds: "ud"}
	write(t, dir, "a.txt", []byte("text"))
	write(t, dir, "another.VMDK", build(hosted{}, top, uuid("image", strings.Replace(id, "1", "2", 1)), none))
	write(t, dir, "not an image.vmdk", []byte("text"))
	path := write(t, dir, "child.vmdk", build(h, top, uuid("image", strings.Replace(id, "1", "3", 1)), uuid("parent", id),
		uuid("modification", id), uuid("parentmodification", id)))
	_, err := open(t, path)
	wantError(t, err, disk.ErrBackingFile, id)

	// A snapshot of it is in a folder below; other disks there do not matter.
	h1 := hosted{grainSize: 8, kinds: "du"}
	write(t, dir, "Parent.VMDK", build(hosted{}, base, uuid("image", strings.ToUpper(id)), none, uuid("modification", id)))
	testImage(t, path, h.disk(top, base))
	snapshot := strings.Replace(id, "1", "4", 1)
	write(t, dir, "Snapshots/{"+snapshot+"}.vmdk", build(h1, top, uuid("image", snapshot), uuid("parent", id)))
	path = write(t, dir, "Snapshots/last.vmdk", build(h, base, uuid("image", strings.Replace(id, "1", "5", 1)), uuid("parent", snapshot)))
	img, err := openIn(t, path, in(newFolder(t, dir), "Snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	if err := disktest.TestReader(img, h.disk(base, h1.disk(top, base))); err != nil {
		t.Error(err)
	}

	write(t, dir, "Parent.VMDK", build(hosted{}, base, uuid("image", id), none, uuid("modification", strings.Replace(id, "9", "8", 1))))
	_, err = open(t, filepath.Join(dir, "child.vmdk"))
	wantError(t, err, disk.ErrCorrupt, `"Parent.VMDK" has changed since`)
}

// in is the folder with this name in f.
func in(f folder, name string) folder {
	f.dir = filepath.Join(f.dir, name)
	return f
}

// A parent whose content ID is not known is none.
func TestParentIdentity(t *testing.T) {
	content := disktest.Mixture(100*sectorSize, 1)
	for name, parent := range map[string][]byte{
		"another ID": hosted{descriptor: strings.Replace(describe("monolithicSparse", line(content, "SPARSE", "x")), "abcd", "abce", 1)}.build(content),
		"no ID":      hosted{descriptor: strings.Replace(describe("monolithicSparse", line(content, "SPARSE", "x")), "CID=0000abcd", "", 1)}.build(content),
		"COWD":       cowd(content, 1, "d"),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "base.vmdk", parent)
			_, err := open(t, write(t, dir, "top.vmdk", []byte(delta("base.vmdk", "custom", "RW 10 ZERO"))))
			wantError(t, err, disk.ErrCorrupt, `"base.vmdk" is not the parent`)
		})
	}
}

// # Sparse extents that contradict themselves

// poke changes little-endian fields of an image: pairs of offset and value, of 4
// bytes, from the end of the image if the offset is negative.
func poke(b []byte, pairs ...int) []byte {
	b = bytes.Clone(b)
	for ; len(pairs) > 0; pairs = pairs[2:] {
		off := pairs[0]
		if off < 0 {
			off += len(b)
		}
		binary.LittleEndian.PutUint32(b[off:], uint32(pairs[1]))
	}
	return b
}

func TestSparseRefused(t *testing.T) {
	content := disktest.Mixture(200<<10, 1)
	descriptor := describe("monolithicSparse", line(content, "SPARSE", "x"))
	plain := hosted{descriptor: descriptor}.build(content)
	stream := hosted{descriptor: descriptor, version: 3, stream: "footer"}.build(content)
	bare := hosted{descriptor: descriptor, version: 3, stream: "head", bare: "nothing"}.build(content)
	root := cowd(content, 1, "d")
	const gdOffset, gtes, capacity, grainSize = 56, 44, 12, 20
	le := binary.LittleEndian
	gd := int(le.Uint32(plain[gdOffset:])) * sectorSize
	gt := int(le.Uint32(plain[gd:])) * sectorSize
	footer := len(stream) - 2*sectorSize
	tail := int(le.Uint32(stream[footer+gdOffset:])) * sectorSize
	streamGT := int(le.Uint32(stream[tail:])) * sectorSize
	grain := int(le.Uint32(stream[streamGT:])) * sectorSize
	bareGT := int(le.Uint32(bare[int(le.Uint32(bare[gdOffset:]))*sectorSize:])) * sectorSize
	const end = 1 << 24 // sectors, beyond the end of all

	for name, test := range map[string]struct {
		image []byte
		kind  error
		words string
	}{
		"version 0":                              {poke(plain, 4, 0), disk.ErrCorrupt, "version 0"},
		"version 4":                              {poke(plain, 4, 4), disk.ErrUnsupported, "version 4"},
		"unknown flag":                           {poke(plain, 8, 1<<18), disk.ErrUnsupported, "flags 0x40000"},
		"transferred as text":                    {poke(plain, 72, 0x0a0d200a), disk.ErrCorrupt, "transferred as text"},
		"markers alone":                          {poke(plain, 8, 1<<17), disk.ErrCorrupt, "markers without compression"},
		"algorithm alone":                        {poke(plain, 77, 1), disk.ErrCorrupt, "algorithm 1 without"},
		"algorithm 2":                            {poke(stream, 77, 2), disk.ErrUnsupported, "algorithm 2"},
		"no algorithm":                           {poke(stream, 77, 0), disk.ErrUnsupported, "algorithm 0"},
		"capacity beyond all":                    {poke(plain, capacity+4, 1<<30), disk.ErrCorrupt, "capacity"},
		"capacity that needs a larger directory": {poke(plain, capacity+4, 16), disk.ErrCorrupt, "grain directory of 4194308 bytes"},
		"capacity below the descriptor's":        {poke(plain, capacity, 399), disk.ErrCorrupt, "the descriptor has 204800 bytes, the sparse extent 204288"},
		"no grain size":                          {poke(plain, grainSize, 0), disk.ErrCorrupt, "grains of 0 bytes"},
		"odd grain size":                         {poke(plain, grainSize, 100), disk.ErrCorrupt, "grains of 51200 bytes"},
		"huge grains":                            {poke(plain, grainSize, 1<<22), disk.ErrCorrupt, "grains of"},
		"grains beyond all":                      {poke(plain, grainSize+4, 1<<31), disk.ErrCorrupt, "grains of"},
		"huge compressed grains":                 {poke(stream, grainSize, 1<<13, footer+grainSize, 1<<13), disk.ErrUnsupported, "compressed grains of 4194304 bytes"},
		"no table entries":                       {poke(plain, gtes, 0), disk.ErrCorrupt, "tables of 0 entries"},
		"huge tables":                            {poke(plain, gtes, 1<<20), disk.ErrCorrupt, "tables of 1048576 entries"},
		"no directory":                           {poke(plain, gdOffset, 0), disk.ErrCorrupt, "no grain directory"},
		"directory outside":                      {poke(plain, gdOffset, end), disk.ErrCorrupt, "grain directory of 4 bytes"},
		"directory far outside":                  {poke(plain, gdOffset+4, 1<<31), disk.ErrCorrupt, "grain directory of 4 bytes"},
		"table outside":                          {poke(plain, gd, end), disk.ErrCorrupt, "grain table of 16 bytes"},
		"grain outside":                          {poke(plain, gt+4, end), disk.ErrCorrupt, "grain of 65536 bytes"},
		"zeroed grain":                           {poke(plain, gt+4, 1), disk.ErrCorrupt, "zeroed grain"},
		"metadata cut off":                       {plain[:127*sectorSize], disk.ErrCorrupt, "metadata of 65536 bytes"},
		"metadata beyond all":                    {poke(plain, 64+4, 1<<31), disk.ErrCorrupt, "metadata of"},
		"cut off":                                {plain[:len(plain)-sectorSize], disk.ErrCorrupt, "grain of 65536 bytes"},
		"descriptor outside":                     {poke(plain, 28, end), disk.ErrCorrupt, "descriptor of"},
		"descriptor far outside":                 {poke(plain, 28+4, 1<<31), disk.ErrCorrupt, "descriptor of"},
		"huge descriptor":                        {append(poke(plain, 36, 4096), make([]byte, 2<<20)...), disk.ErrCorrupt, "descriptor of 2097152 bytes"},
		"no descriptor":                          {poke(plain, 28, 0), disk.ErrUnsupported, "extent without a descriptor"},
		"empty descriptor":                       {hosted{descriptor: "\n"}.build(content), disk.ErrUnsupported, "extent without a descriptor"},
		"descriptor of a split disk": {hosted{descriptor: describe("twoGbMaxExtentSparse", "RW 10 ZERO", "RW 10 ZERO")}.build(content),
			disk.ErrUnsupported, "2 extents"},
		"encrypted": {hosted{descriptor: descriptor + "encryption.keySafe=\"x\""}.build(content), disk.ErrUnsupported, "encryption"},

		"stream without its end":        {stream[:len(stream)-sectorSize], disk.ErrCorrupt, "cut short"},
		"stream without its footer":     {stream[:len(stream)-3*sectorSize], disk.ErrCorrupt, "cut short"},
		"half a stream":                 {stream[:len(stream)/2], disk.ErrCorrupt, "cut short"},
		"stream, no more than a header": {stream[:20*sectorSize], disk.ErrCorrupt, "cut short"},
		"stream of zeros":               {append(bytes.Clone(stream[:20*sectorSize]), make([]byte, 1<<20)...), disk.ErrCorrupt, "cut short"},
		"footer without its marker":     {poke(stream, footer-sectorSize+12, 2), disk.ErrCorrupt, "cut short"},
		"footer that is none":           {poke(stream, footer, 2), disk.ErrCorrupt, "reading footer"},
		"footer without a directory":    {poke(stream, footer+gdOffset, -1, footer+gdOffset+4, -1), disk.ErrCorrupt, "no grain directory"},
		"grain of another LBA":          {poke(stream, grain, 128), disk.ErrCorrupt, "it has LBA 128, wanted 0"},
		"grain of no bytes":             {poke(stream, grain+8, 0), disk.ErrCorrupt, ": 0 bytes"},
		"grain of many bytes":           {poke(stream, grain+8, 1<<20), disk.ErrCorrupt, ": 1048576 bytes"},
		"grain of too few bytes":        {poke(stream, grain+8, 20), disk.ErrCorrupt, "grain at"},
		"grain that is no zlib":         {poke(stream, grain+12, 0), disk.ErrCorrupt, "grain at"},
		"grain that is changed":         {poke(stream, grain+30, 0x12345678), disk.ErrCorrupt, "grain at"},
		"grain at the end":              {poke(stream, streamGT, len(stream)/sectorSize), disk.ErrCorrupt, "grain marker of 12 bytes"},
		"compressed grain outside":      {poke(stream, streamGT, end), disk.ErrCorrupt, "grain marker of 12 bytes"},

		"bare grain that is changed": {poke(bare, int(le.Uint32(bare[bareGT:]))*sectorSize+30, 0x12345678), disk.ErrCorrupt, "grain at"},
		"bare grain outside":         {poke(bare, bareGT, end), disk.ErrCorrupt, "grain of 1 bytes"},

		"COWD version 3":          {poke(root, 4, 3), disk.ErrUnsupported, "COWD extent of version 3"},
		"COWD without grains":     {poke(root, 16, 0), disk.ErrCorrupt, "grains of 0 bytes"},
		"COWD, directory outside": {poke(root, 20, end), disk.ErrCorrupt, "grain directory"},
		"COWD, few entries":       {poke(root, 24, 0), disk.ErrCorrupt, "grain directory of 0 entries"},
		"COWD, grain in header":   {poke(root, int(le.Uint32(root[4*sectorSize:]))*sectorSize, 3), disk.ErrCorrupt, "in the header"},
		"COWD child":              {poke(root, 32, 0x65736162), disk.ErrUnsupported, "extent without a descriptor"},
		"seSparse":                {seSparse(content, "d"), disk.ErrUnsupported, "extent without a descriptor"},
	} {
		t.Run(name, func(t *testing.T) {
			img, err := open(t, write(t, t.TempDir(), "image.vmdk", test.image))
			if err == nil {
				_, err = img.ReadAt(make([]byte, min(img.Size(), 300<<10)), 0)
			}
			wantError(t, err, test.kind, test.words)
		})
	}
}

func TestSESparseRefused(t *testing.T) {
	content := disktest.Mixture(200<<10, 1)
	extent := seSparse(content, "d")
	const gd, gt, first = 4 * sectorSize, (8 + 64) * sectorSize, 8
	for name, test := range map[string]struct {
		image []byte
		kind  error
		words string
	}{
		"version":                     {poke(extent, first, 2), disk.ErrUnsupported, "version 0x200000002"},
		"grain size":                  {poke(extent, 3*8, 16), disk.ErrUnsupported, "grains of 16 sectors"},
		"table size":                  {poke(extent, 4*8, 16), disk.ErrUnsupported, "tables of 16"},
		"flags":                       {poke(extent, 5*8, 1), disk.ErrUnsupported, "flags 0x1"},
		"capacity":                    {poke(extent, 2*8+4, 1<<30), disk.ErrCorrupt, "capacity"},
		"no volatile header":          {poke(extent, sectorSize, 0), disk.ErrCorrupt, "no volatile header"},
		"volatile header outside":     {poke(extent, 10*8, 1<<24), disk.ErrCorrupt, "reading volatile header"},
		"volatile header far outside": {poke(extent, 10*8+4, 1<<30), disk.ErrCorrupt, "volatile header"},
		"journal":                     {poke(extent, sectorSize+3*8, 1), disk.ErrUnsupported, "journal"},
		"directory outside":           {poke(extent, 16*8, 1<<24), disk.ErrCorrupt, "grain directory"},
		"small directory":             {poke(extent, 17*8, 0), disk.ErrCorrupt, "grain directory of 0 entries"},
		"directory entry":             {poke(extent, gd+4, 1<<29), disk.ErrCorrupt, "grain directory entry"},
		"table outside":               {poke(extent, gd, 1<<24), disk.ErrCorrupt, "grain table of"},
		"tables far outside":          {poke(extent, 18*8+4, 1<<31), disk.ErrCorrupt, "grain table of"},
		"table entry":                 {poke(extent, gt+4, 4<<28), disk.ErrCorrupt, "grain table entry"},
		"unallocated with more":       {poke(extent, gt, 1, gt+4, 0), disk.ErrCorrupt, "grain table entry"},
		"grain outside":               {poke(extent, gt, 1<<24), disk.ErrCorrupt, "grain of 4096 bytes"},
		"grains far outside":          {poke(extent, 24*8+4, 1<<31), disk.ErrCorrupt, "grain of 4096 bytes"},
		"cut off":                     {extent[:len(extent)-sectorSize], disk.ErrCorrupt, "grain of 4096 bytes"},
		"no more than a header":       {extent[:sectorSize], disk.ErrCorrupt, "reading volatile header"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, "x", test.image)
			img, err := open(t, write(t, dir, "image.vmdk", []byte(describe("seSparse", line(content, "SESPARSE", "x")))))
			if err == nil {
				_, err = img.ReadAt(make([]byte, min(img.Size(), 300<<10)), 0)
			}
			wantError(t, err, test.kind, test.words)
		})
	}
}
