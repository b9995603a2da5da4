package appliance

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/davit-oci/davit/machine"
)

// noise is content that has no runs of zeros.
func noise(seed uint64, n int) []byte {
	b := make([]byte, 0, n+7)
	for r := rand.NewPCG(seed, 0); len(b) < n; {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64()|0x0101010101010101)
	}
	return b[:n:n]
}

// blobStore is a registry's repository.
type blobStore map[string][]byte

func (s blobStore) put(b []byte) string {
	d := sha256.Sum256(b)
	digest := "sha256:" + hex.EncodeToString(d[:])
	s[digest] = b
	return digest
}

func (s blobStore) list() (listed []Blob) {
	for d, b := range s {
		listed = append(listed, Blob{d, int64(len(b))})
	}
	return listed
}

func (s blobStore) fetch(_ context.Context, b Blob) (io.ReadCloser, error) {
	data, ok := s[b.Digest]
	if !ok {
		return nil, fmt.Errorf("%s: not found", b.Digest)
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// memoryFile is a file that grows as it is written.
type memoryFile struct{ data []byte }

func (f *memoryFile) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(f.data)) {
		f.data = append(f.data, make([]byte, end-int64(len(f.data)))...)
	}
	return copy(f.data[off:], p), nil
}

// memoryFolder takes the files of Restore.
type memoryFolder map[string]*memoryFile

func (m memoryFolder) create(name string, size int64) (io.WriterAt, error) {
	if size > 64<<20 {
		return nil, fmt.Errorf("%s of %d bytes: the folder is full", name, size)
	}
	m[name] = &memoryFile{make([]byte, size)}
	return m[name], nil
}

// keep pushes an original: the parts and the recipe, which it returns.
func keep(t *testing.T, s blobStore, files []SourceFile, partSize int64) (recipe []byte, parts []Part) {
	t.Helper()
	r, parts, err := newRecipe(t.Context(), files, partSize)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		data, err := io.ReadAll(p.Open())
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(data)) != p.Size || p.Size > partSize {
			t.Errorf("a part of %d bytes has %d", p.Size, len(data))
		}
		if got := s.put(data); got != p.Digest {
			t.Errorf("part %s has the digest %s", p.Digest, got)
		}
	}
	recipe, err = r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return recipe, parts
}

// restore pulls an original.
func restore(ctx context.Context, s blobStore, recipe []byte) (memoryFolder, error) {
	r, err := ParseRecipe(recipe, s.list())
	if err != nil {
		return nil, err
	}
	m := make(memoryFolder)
	return m, r.Restore(ctx, s.fetch, m.create)
}

func checkSame(t *testing.T, s blobStore, recipe []byte, want map[string][]byte) {
	t.Helper()
	got, err := restore(t.Context(), s, recipe)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("%d files came back, not %d", len(got), len(want))
	}
	for name, data := range want {
		if got[name] == nil || !bytes.Equal(got[name].data, data) {
			t.Errorf("%s is not what it was", name)
		}
	}
}

func whole(name string, data []byte) SourceFile {
	return SourceFile{Name: name, Content: bytes.NewReader(data), Members: []Member{{Size: int64(len(data))}}}
}

// tarOf returns an archive, and where its members are.
func tarOf(t *testing.T, format tar.Format, members []tarMember) (archive []byte, places []Member) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := &tar.Header{Format: format, Name: m.name, Size: int64(len(m.data)), Mode: 0o640, Uname: "root", ModTime: time.Unix(1700000000, 0)}
		if format == tar.FormatPAX {
			h.ModTime = time.Unix(1700000000, 5)
			h.PAXRecords = map[string]string{"DAVIT.note": strings.Repeat("x", 700)}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		places = append(places, Member{Offset: int64(b.Len()), Size: h.Size})
		w.Write(m.data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), places
}

type tarMember struct {
	name string
	data []byte
}

func TestOriginalArchives(t *testing.T) {
	ovf, iso, disk := []byte("<Envelope/>"), noise(1, 70000), slices.Concat(noise(2, 300<<10), make([]byte, 900<<10), noise(3, 5), make([]byte, 100<<10))
	members := []tarMember{{"vm.ovf", ovf}, {"vm.mf", nil}, {"disk.vmdk", disk}, {"cd.iso", iso}}
	long := slices.Clone(members)
	long[2].name = strings.Repeat("folder/", 30) + "disk.vmdk"
	for _, c := range []struct {
		name    string
		format  tar.Format
		members []tarMember
		change  func([]byte) []byte
	}{
		{"ustar", tar.FormatUSTAR, members, nil},
		{"GNU", tar.FormatGNU, members, nil},
		{"GNU with a long name", tar.FormatGNU, long, nil},
		{"pax", tar.FormatPAX, long, nil},
		{"records of 10240 bytes", tar.FormatUSTAR, members, func(b []byte) []byte { return append(b, make([]byte, 10240-len(b)%10240)...) }},
		{"a megabyte of zeros at the end", tar.FormatUSTAR, members, func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) }},
		{"no blocks of zeros at the end", tar.FormatUSTAR, members, func(b []byte) []byte { return b[:len(b)-1024] }},
		{"one block of zeros and a half", tar.FormatUSTAR, members, func(b []byte) []byte { return b[:len(b)-256] }},
		{"padding that is not zero", tar.FormatUSTAR, members, func(b []byte) []byte { b[512+len(ovf)+7] = 'x'; return b }},
		{"rubbish after the end", tar.FormatUSTAR, members, func(b []byte) []byte { return append(b, noise(4, 200<<10)...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			data, places := tarOf(t, c.format, c.members)
			if c.change != nil {
				data = c.change(data)
			}
			s := make(blobStore)
			places[0].Digest = s.put(ovf)
			places[3].Digest = s.put(iso)
			recipe, parts := keep(t, s, []SourceFile{{"vm.ova", bytes.NewReader(data), places}}, 1<<20)
			checkSame(t, s, recipe, map[string][]byte{"vm.ova": data})

			stored := int64(len(recipe))
			for _, p := range parts {
				stored += p.Size
			}
			// The disk's bytes but its zeros, and what follows the end.
			if limit := int64(400<<10 + 16<<10); stored > limit && c.name != "rubbish after the end" {
				t.Errorf("%d bytes are stored, more than %d", stored, limit)
			}
		})
	}
}

func TestOriginalFolders(t *testing.T) {
	big := noise(5, 200<<10)
	sparse := make([]byte, 3<<20)
	copy(sparse[1<<20:], noise(6, 1000))
	for _, c := range []struct {
		name  string
		files map[string][]byte
		parts int
	}{
		{"a file that is not small", map[string][]byte{"vm.nvram": noise(7, 5000)}, 1},
		{"an empty file", map[string][]byte{"vm.mf": {}}, 0},
		{"a file of one byte", map[string][]byte{"vm.mf": {0}}, 0},
		{"small files get into the recipe", map[string][]byte{"vm.vmx": []byte("a = b\n"), "vm.nvram": append(noise(7, 100), make([]byte, 8<<10)...)}, 0},
		{"equal disks are stored once", map[string][]byte{"a.vmdk": big, "b/a.vmdk": big}, 4},
		{"parts end where they are full", map[string][]byte{"a.vmdk": big[:128<<10], "b.vmdk": big[:128<<10+1]}, 3},
		{"holes are not stored", map[string][]byte{"disk.raw": sparse}, 1},
		{"all is a hole", map[string][]byte{"disk.raw": make([]byte, 3<<20)}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var files []SourceFile
			for name, data := range c.files {
				files = append(files, whole(name, data))
			}
			slices.SortFunc(files, func(a, b SourceFile) int { return strings.Compare(a.Name, b.Name) })
			s := make(blobStore)
			recipe, parts := keep(t, s, files, 64<<10)
			if len(parts) != c.parts {
				t.Errorf("%d parts, not %d", len(parts), c.parts)
			}
			checkSame(t, s, recipe, c.files)
		})
	}
}

// The recipe of a disk whose zeros and data take turns stays below what is read.
func TestOriginalRecipeIsBounded(t *testing.T) {
	data := make([]byte, 8<<20)
	for i := 0; i < len(data); i += 2 * minPartZeros {
		copy(data[i:], noise(uint64(i), minPartZeros))
	}
	s := make(blobStore)
	recipe, parts := keep(t, s, []SourceFile{whole("disk.raw", data)}, maxPart)
	if len(parts) != 1 || len(recipe) > 16<<10 {
		t.Errorf("%d parts and %d bytes of recipe", len(parts), len(recipe))
	}
	checkSame(t, s, recipe, map[string][]byte{"disk.raw": data})

	var small []SourceFile
	for i := range machine.MaxDisks {
		small = append(small, whole(fmt.Sprintf("log%d", i), noise(uint64(i), 1000)))
	}
	recipe, _ = keep(t, s, small, maxPart)
	if len(recipe) > MaxRecipe {
		t.Errorf("%d bytes of recipe", len(recipe))
	}
	if _, err := ParseRecipe(recipe, s.list()); err != nil {
		t.Error(err)
	}
}

func TestOriginalSourcesThatCannotBeKept(t *testing.T) {
	data := noise(8, 5000)
	for _, c := range []struct {
		name  string
		files []SourceFile
		want  string
	}{
		{"no files", nil, "it has 0 files"},
		{"a path out of the folder", []SourceFile{whole("../a", data)}, `"../a" is no name of a file`},
		{"a name that is no text", []SourceFile{whole("a\xff", data)}, "is no name"},
		{"a device of Windows", []SourceFile{whole("sub/CON", data)}, `the file "sub/CON" cannot be kept under its name: "CON": the name of a device on Windows`},
		{"two names that are one on some systems", []SourceFile{whole("a", data), whole("A", data)}, `two files are called "A"`},
		{"a file that is a folder, too", []SourceFile{whole("a/b", data), whole("A", data)}, `"A" is a file and a folder`},
		{"a member of another content", []SourceFile{{"a", bytes.NewReader(data), []Member{{0, 10, "sha256:" + strings.Repeat("0", 64)}}}}, "wrong digest"},
		{"members that overlap", []SourceFile{{"a", bytes.NewReader(data), []Member{{0, 10, ""}, {9, 1, ""}}}}, "overlaps"},
		{"a member beyond the end", []SourceFile{{"a", bytes.NewReader(data), []Member{{4000, 1001, ""}}}}, "overlaps"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := NewRecipe(t.Context(), c.files)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// Of a stretch that repeats nothing is used twice but whole blobs.
const sixBytes = "sha256:bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721" // abcdef

func TestRecipesThatAreRefused(t *testing.T) {
	const (
		sumABC  = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // abc
		sumSix  = "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721"
		sumNone = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	)
	s := make(blobStore)
	if s.put([]byte("abcdef")) != sixBytes {
		t.Fatal("the digest is another")
	}
	file := func(name string, size int, sum, segments string) string {
		return fmt.Sprintf(`{"name":%q,"size":%d,"sha256":%q,"segments":[%s]}`, name, size, sum, segments)
	}
	recipe := func(blobs string, files ...string) string {
		return `{"files":[` + strings.Join(files, ",") + `],"blobs":[` + blobs + `]}`
	}
	abc := file("a", 3, sumABC, `{"data":"YWJj"}`)
	six := `{"digest":"` + sixBytes + `","size":6}`
	seven := `{"digest":"` + s.put([]byte("abcdefg")) + `","size":7}`
	for _, c := range []struct {
		name, recipe, want string // empty: it is accepted
	}{
		{"bytes of the recipe", recipe("", abc), ""},
		{"an empty file", recipe("", file("a", 0, sumNone, "")), ""},
		{"a blob", recipe(six, file("a", 6, sumSix, `{"blob":0,"size":6}`)), ""},
		{"a blob in two pieces", recipe(six, file("a", 6, sumSix, `{"blob":0,"size":2},{"blob":0,"size":4}`)), ""},

		{"the example of docs/spec.md", recipe(six, file("vm.img", 521, "bd4e1fb743690c7cc6df22d5b4d43d78d39a6832cf4b835d6215fcfd76cd9003", `{"data":"YWJj"},{"zeros":512},{"blob":0,"size":6}`)), ""},

		{"nothing", "", "unexpected end of JSON"},
		{"no files", recipe(""), "it has 0 files"},
		{"space before it", " " + recipe("", abc), "canonical"},
		{"a line break after it", recipe("", abc) + "\n", "canonical"},
		{"a member that is unknown", strings.Replace(recipe("", abc), `"blobs"`, `"mode":1,"blobs"`, 1), "canonical"},
		{"a member that is there twice", strings.Replace(recipe("", abc), `"size":3`, `"size":4,"size":3`, 1), "canonical"},
		{"a member in another case", strings.Replace(recipe("", abc), `"size"`, `"Size"`, 1), "canonical"},
		{"null for no blobs", strings.Replace(recipe("", abc), `[]`, `null`, 1), "canonical"},
		{"null for no segments", strings.Replace(recipe("", file("a", 0, sumNone, "")), `[]`, `null`, 1), "canonical"},
		{"base64 with a line break", strings.Replace(recipe("", abc), "YWJj", `YW\nJj`, 1), "canonical"},
		{"a segment of nothing", recipe("", file("a", 3, sumABC, `{"data":"YWJj"},{}`)), "segment 1 is not one of"},
		{"a segment of two kinds", recipe("", file("a", 4, sumABC, `{"data":"YWJj","zeros":1}`)), "segment 0 is not one of"},
		{"less than no zeros", recipe("", file("a", 3, sumABC, `{"data":"YWJj"},{"zeros":-1}`)), "segment 1 is not one of"},
		{"bytes of a blob that is not named", recipe("", file("a", 3, sumABC, `{"size":3}`)), "segment 0 is not one of"},
		{"a path out of the folder", recipe("", file("../a", 3, sumABC, `{"data":"YWJj"}`)), "is no name"},
		{"an absolute path", recipe("", file("/a", 3, sumABC, `{"data":"YWJj"}`)), "is no name"},
		{"this folder", recipe("", file("./a", 3, sumABC, `{"data":"YWJj"}`)), "is no name"},
		{"a device of Windows", recipe("", file("CON", 3, sumABC, `{"data":"YWJj"}`)), "the name of a device"},
		{"a device of Windows with an extension", recipe("", file("sub/nul.txt", 3, sumABC, `{"data":"YWJj"}`)), "the name of a device"},
		{"a folder that is a device of Windows", recipe("", file("lpt1/a", 3, sumABC, `{"data":"YWJj"}`)), "the name of a device"},
		{"a dot at the end", recipe("", file("foo.", 3, sumABC, `{"data":"YWJj"}`)), "ends with no dot"},
		{"a space at the end of a folder", recipe("", file("foo /a", 3, sumABC, `{"data":"YWJj"}`)), "ends with no dot and no space"},
		{"text from right to left", strings.ReplaceAll(recipe("", file("a#gpj.exe", 3, sumABC, `{"data":"YWJj"}`)), "#", "\u202e"), "characters that do not show"},
		{"a wildcard", recipe("", file("a?", 3, sumABC, `{"data":"YWJj"}`)), "on every system has none of"},
		{"the part of another file", recipe("", file("a", 3, sumABC, `{"data":"YWJj"}`)+","+file(".a.davit-part", 3, sumABC, `{"data":"YWJj"}`)), "temporary files of davit"},
		{"a lock of davit", recipe("", file("sub/.DAVIT-lock", 3, sumABC, `{"data":"YWJj"}`)), "temporary files of davit"},
		{"a folder without name", recipe("", file("a//b", 3, sumABC, `{"data":"YWJj"}`)), "is no name"},
		{"a name too long", recipe("", file(strings.Repeat("a", 256), 3, sumABC, `{"data":"YWJj"}`)), "under its name"},
		{"a name that moves the cursor", strings.Replace(recipe("", abc), `"a"`, `"a\u001b"`, 1), "is no name"},
		{"a path of Windows", recipe("", file("c:a", 3, sumABC, `{"data":"YWJj"}`)), "is no name"},
		{"one name twice", recipe("", abc, abc), "two files"},
		{"a file in a file", recipe("", abc, file("A/b", 3, sumABC, `{"data":"YWJj"}`)), "a file and a folder"},
		{"a digest in capitals", strings.Replace(recipe("", abc), "ba78", "BA78", 1), "no SHA-256"},
		{"a negative size", recipe("", file("a", -1, sumNone, "")), "a size of -1"},
		{"more than it says", recipe("", file("a", 2, sumABC, `{"data":"YWJj"}`)), "have more than its 2 bytes"},
		{"less than it says", recipe("", file("a", 4, sumABC, `{"data":"YWJj"}`)), "end 1 bytes before"},
		{"zeros without end", recipe("", `{"name":"a","size":9223372036854775807,"sha256":"`+sumABC+`","segments":[{"zeros":9223372036854775807}]}`), "or more than 70368744177664 in all"},
		{"sizes whose sum is too large", recipe("", file("a", 1<<46, sumABC, `{"zeros":70368744177664}`), file("b", 1, sumABC, `{"zeros":1}`)), "in all"},
		{"a blob that the manifest has not", recipe(`{"digest":"sha256:`+sumABC+`","size":3}`, file("a", 3, sumABC, `{"blob":0,"size":3}`)), "does not list"},
		{"a blob of another size", recipe(`{"digest":"`+sixBytes+`","size":5}`, file("a", 5, sumABC, `{"blob":0,"size":5}`)), "has 5 bytes, the manifest says 6"},
		{"a blob that is there twice", recipe(six+","+six, file("a", 12, sumABC, `{"blob":0,"size":6},{"blob":1,"size":6}`)), "twice"},
		{"a blob that is not there", recipe(six, file("a", 6, sumABC, `{"blob":1,"size":6}`)), "is of blob 1"},
		{"a blob before the first", recipe(six, file("a", 6, sumABC, `{"blob":-1,"size":6}`)), "is of blob -1"},
		{"a blob beyond the last", recipe(six, file("a", 12, sumABC, `{"blob":0,"size":6},{"blob":1,"size":6}`)), "is of blob 1"},
		{"the second blob first", recipe(six+","+seven, file("a", 13, sumABC, `{"blob":1,"size":7},{"blob":0,"size":6}`)), "is of blob 1"},
		{"a blob in another", recipe(six+","+seven, file("a", 19, sumABC, `{"blob":0,"size":6},{"blob":1,"size":7},{"blob":0,"size":3},{"blob":1,"size":3}`)), "leaves blob 0"},
		{"nothing of a blob", recipe(six, file("a", 6, sumABC, `{"blob":0},{"blob":0,"size":6}`)), "segment 0 is not one of"},
		{"less than nothing of a blob", recipe(six, file("a", 6, sumABC, `{"blob":0,"size":-1},{"blob":0,"size":7}`)), "segment 0 is not one of"},
		{"a blob that is not used", recipe(six, abc), "0 of 1 blobs"},
		{"the begin of a blob alone", recipe(six, file("a", 5, sumABC, `{"blob":0,"size":5}`)), "1 before a blob"},
		{"more than a blob has", recipe(six, file("a", 7, sumABC, `{"blob":0,"size":7}`)), "leaves blob 0"},
		{"a blob over the end of a file", recipe(six, file("a", 3, sumABC, `{"blob":0,"size":3}`), file("b", 3, sumABC, `{"blob":0,"size":3}`)), "before a blob"},
		{"another content than the digest", recipe("", file("a", 3, sumABC, `{"data":"YWJk"}`)), "wrong digest"},
		{"a million of segments", recipe("", file("a", 0, sumNone, strings.Repeat("{},", 1<<20)+"{}")), "more than 131072"},
		{"more than is read", strings.Repeat(" ", MaxRecipe+1), "more than 4194304"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := restore(t.Context(), s, []byte(c.recipe))
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if !errors.Is(err, machine.ErrMalformed) && !errors.Is(err, ErrDigest) {
				t.Errorf("%v is neither malformed nor of another digest", err)
			}
		})
	}
}

func TestOriginalBlobsThatAreNotTheirDigest(t *testing.T) {
	data := noise(9, 300<<10)
	for _, c := range []struct {
		name   string
		change func([]byte) []byte
		want   error
	}{
		{"a byte is another", func(b []byte) []byte { b[1000] ^= 1; return b }, ErrDigest},
		{"cut", func(b []byte) []byte { return b[:1000] }, io.ErrUnexpectedEOF},
		{"empty", func(b []byte) []byte { return nil }, io.EOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := make(blobStore)
			recipe, parts := keep(t, s, []SourceFile{whole("a", data)}, maxPart)
			r, err := ParseRecipe(recipe, s.list())
			if err != nil {
				t.Fatal(err)
			}
			s[parts[0].Digest] = c.change(bytes.Clone(data))
			if err := r.Restore(t.Context(), s.fetch, make(memoryFolder).create); !errors.Is(err, c.want) || !strings.Contains(err.Error(), parts[0].Digest) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A recipe of any bytes makes the files that its digests name, or an error.
func FuzzRecipe(f *testing.F) {
	s := make(blobStore)
	s.put([]byte("abcdef"))
	s.put(noise(10, 5000))
	archive, places := tarOf(&testing.T{}, tar.FormatUSTAR, []tarMember{{"vm.ovf", []byte("abcdef")}, {"vm.vmdk", noise(10, 5000)}})
	places[0].Digest = sixBytes
	r, _, err := NewRecipe(context.Background(), []SourceFile{{"vm.ova", bytes.NewReader(archive), places}, whole("a/b", []byte("x"))})
	if err != nil {
		f.Fatal(err)
	}
	seed, err := r.Encode()
	if err != nil {
		f.Fatal(err)
	}
	if _, err := restore(f.Context(), s, seed); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"files":[{"name":"a","size":9,"sha256":"","segments":[{"blob":0,"size":6},{"zeros":3}]}],"blobs":[{"digest":"` + sixBytes + `","size":6}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := restore(t.Context(), s, data)
		if err != nil {
			return
		}
		r, _ := ParseRecipe(data, s.list())
		for _, want := range r.Files {
			sum := sha256.Sum256(files[want.Name].data)
			if hex.EncodeToString(sum[:]) != want.SHA256 || int64(len(files[want.Name].data)) != want.Size {
				t.Errorf("%s is not what the recipe says", want.Name)
			}
		}
		if again, err := r.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("its canonical form is another: %s", again)
		}
	})
}
