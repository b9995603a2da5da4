package appliance

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/davit-oci/davit/machine"
)

// plainOVF stands for the OVF of an envelope: its files with their sizes.
func plainOVF(e *machine.Envelope) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("<Envelope>\n")
	for _, f := range e.Files {
		fmt.Fprintf(&b, "  <File ovf:href=%q ovf:size=\"%d\"/>\n", f.Name, f.Size)
	}
	b.WriteString("</Envelope>\n")
	return b.Bytes(), nil
}

func packageOf(names ...string) Package {
	e := &machine.Envelope{Machines: []*machine.Machine{{ID: "vm"}}}
	for _, name := range names {
		e.Files = append(e.Files, machine.File{Name: name, Size: -1})
	}
	return Package{Name: "vm", Envelope: e, Descriptor: plainOVF}
}

// content of files of a package.
var content = map[string][]byte{
	"disk0.vmdk": noise(1, 70001),
	"disk1.vmdk": noise(2, 1024),
	"cd.iso":     {},
}

// writeAll writes the files of a package, in pieces that are not of its blocks.
func writeAll(t *testing.T, w *Writer, p Package) {
	t.Helper()
	for _, f := range p.Envelope.Files {
		dst, err := w.Create(f.Name)
		if err != nil {
			t.Fatal(err)
		}
		for piece := range slices.Chunk(content[f.Name], 1000) {
			if _, err := dst.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func newOVA(t *testing.T, p Package) []byte {
	t.Helper()
	var f memoryFile
	w, err := NewOVA(&f, p)
	if err != nil {
		t.Fatal(err)
	}
	writeAll(t, w, p)
	return f.data
}

func TestOVAMembers(t *testing.T) {
	p := packageOf("disk0.vmdk", "disk1.vmdk", "cd.iso")
	p.Key = testKey(t)
	ova := newOVA(t, p)

	files := make(map[string][]byte)
	var order []string
	r := tar.NewReader(bytes.NewReader(ova))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Format != tar.FormatUSTAR || h.Typeflag != tar.TypeReg || h.Mode != 0o644 || h.Uid != 0 || h.Gid != 0 || h.Uname+h.Gname != "" || h.ModTime.UTC().Year() != 1980 {
			t.Errorf("the header of %s is %+v", h.Name, h)
		}
		order = append(order, h.Name)
		if files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"vm.ovf", "vm.mf", "vm.cert", "disk0.vmdk", "disk1.vmdk", "cd.iso"}; !slices.Equal(order, want) {
		t.Errorf("got the members %q, want %q", order, want)
	}
	for name, want := range content {
		if !bytes.Equal(files[name], want) {
			t.Errorf("%s has another content", name)
		}
	}
	ovf := string(files["vm.ovf"])
	for _, want := range []string{`"disk0.vmdk" ovf:size="70001"/>`, `"disk1.vmdk" ovf:size="1024"/>`, `"cd.iso" ovf:size="0"/>`} {
		if !strings.Contains(ovf, want) {
			t.Errorf("no %s in the descriptor:\n%s", want, ovf)
		}
	}
	var manifest strings.Builder
	for _, name := range []string{"vm.ovf", "disk0.vmdk", "disk1.vmdk", "cd.iso"} {
		fmt.Fprintf(&manifest, "SHA256(%s)= %x\n", name, sha256.Sum256(files[name]))
	}
	if got := string(files["vm.mf"]); got != manifest.String() {
		t.Errorf("got the manifest\n%swant\n%s", got, manifest.String())
	}
	if tail := ova[len(ova)-1024:]; len(ova)%512 != 0 || !isZero(tail) || isZero(ova[len(ova)-1536:]) && len(content["cd.iso"]) > 0 {
		t.Error("it does not end with two blocks of zeros")
	}
}

// The same package with the same files has the same bytes, also in a file that
// was not empty in places where nothing is but padding, and as a folder.
func TestPackagesAreDeterministic(t *testing.T) {
	p := packageOf("disk0.vmdk", "disk1.vmdk", "cd.iso")
	p.Key = testKey(t)
	first := newOVA(t, p)
	if !bytes.Equal(newOVA(t, p), first) {
		t.Error("an OVA that is written twice is two")
	}
	used := memoryFile{noise(3, len(first))}
	w, err := NewOVA(&used, p)
	if err != nil {
		t.Fatal(err)
	}
	writeAll(t, w, p)
	if !bytes.Equal(used.data, first) {
		t.Error("not all bytes of an OVA are written")
	}

	folder := make(map[string]*bytes.Buffer)
	w, err = NewFolder(func(name string) (io.Writer, error) {
		folder[name] = new(bytes.Buffer)
		return folder[name], nil
	}, p)
	if err != nil {
		t.Fatal(err)
	}
	writeAll(t, w, p)
	r := tar.NewReader(bytes.NewReader(first))
	for range 6 {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		want, _ := io.ReadAll(r)
		if folder[h.Name] == nil || !bytes.Equal(folder[h.Name].Bytes(), want) {
			t.Errorf("%s of the folder is not that of the OVA", h.Name)
		}
	}
	if len(folder) != 6 {
		t.Errorf("the folder has %q", slices.Sorted(maps.Keys(folder)))
	}
}

// The descriptor takes the room of the largest sizes, whatever the sizes are:
// what it is filled with does not tell them.
func TestDescriptorIsFilled(t *testing.T) {
	for _, c := range []struct{ doc, want string }{
		{"<a/>\n", "<a/>     \n"},
		{"<a/>", "<a/>      "},
		{"<abcdef/>\n", "<abcdef/>\n"},
	} {
		if got, err := fill([]byte(c.doc), 10); err != nil || string(got) != c.want {
			t.Errorf("%q is filled to %q, %v; want %q", c.doc, got, err, c.want)
		}
	}
	if _, err := fill([]byte("<abcdefg/>\n"), 10); err == nil {
		t.Error("a descriptor that is longer than foreseen is cut")
	}
}

// What ustar cannot say, and only that, is said as GNU tar does.
func TestHeadersOfLargeMembers(t *testing.T) {
	for _, c := range []struct {
		size   int64
		format tar.Format
	}{
		{0, tar.FormatUSTAR},
		{1<<33 - 1, tar.FormatUSTAR},
		{1 << 33, tar.FormatGNU},
		{1<<58 + 12345, tar.FormatGNU},
	} {
		h, err := tar.NewReader(bytes.NewReader(tarHeader("disk.vmdk", c.size))).Next()
		if err != nil {
			t.Errorf("%d bytes: %v", c.size, err)
			continue
		}
		if h.Size != c.size || h.Format != c.format || h.Name != "disk.vmdk" {
			t.Errorf("%d bytes in %v: got %d bytes of %s in %v", c.size, c.format, h.Size, h.Name, h.Format)
		}
	}
}

func TestPackagesThatCannotBeWritten(t *testing.T) {
	for _, c := range []struct {
		name  string
		p     Package
		write func(w *Writer) error
		want  string
	}{
		{"a path", packageOf("a/b.vmdk"), nil, `"a/b.vmdk" cannot be the name`},
		{"a path of Windows", packageOf(`a\b.vmdk`), nil, "cannot be the name"},
		{"a hidden file", packageOf(".vmdk"), nil, "cannot be the name"},
		{"a name that breaks the manifest", packageOf("a)= 0\nSHA256(b"), nil, "cannot be the name"},
		{"a name that is not ASCII", packageOf("é.vmdk"), nil, "cannot be the name"},
		{"a name longer than a header", packageOf(strings.Repeat("a", 101)), nil, "cannot be the name"},
		{"no name", packageOf(""), nil, "cannot be the name"},
		{"two names that are one on some systems", packageOf("a.vmdk", "A.vmdk"), nil, `two files of the package are called "A.vmdk"`},
		{"the name of the descriptor", packageOf("VM.OVF"), nil, "two files of the package"},
		{"the name of the manifest", packageOf("vm.mf"), nil, "two files of the package"},
		{"the name of the certificate", packageOf("vm.cert"), nil, "two files of the package"},
		{"a descriptor that fails", Package{Name: "vm", Envelope: &machine.Envelope{}, Descriptor: func(*machine.Envelope) ([]byte, error) {
			return nil, errors.New("no machine")
		}}, nil, "no machine"},
		{"a file out of order", packageOf("a", "b"), func(w *Writer) error {
			_, err := w.Create("b")
			return err
		}, "the next file of the package is a"},
		{"a file too many", packageOf("a"), func(w *Writer) error {
			w.Create("a")
			_, err := w.Create("b")
			return err
		}, "no more than 1 files"},
		{"a file that is not written", packageOf("a", "b"), func(w *Writer) error {
			w.Create("a")
			return w.Close()
		}, "b of the package was not written"},
		{"an error that was not looked at", packageOf("a"), func(w *Writer) error {
			w.Create("b")
			return w.Close()
		}, "the next file of the package is a"},
		{"a write to the file before", packageOf("a", "b"), func(w *Writer) error {
			a, _ := w.Create("a")
			w.Create("b")
			_, err := a.Write([]byte("x"))
			return err
		}, "has ended"},
		{"a write after the end", packageOf("a"), func(w *Writer) error {
			a, _ := w.Create("a")
			w.Close()
			_, err := a.Write([]byte("x"))
			return err
		}, "is closed"},
		{"a second end", packageOf(), func(w *Writer) error {
			w.Close()
			return w.Close()
		}, "is closed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := NewOVA(new(memoryFile), c.p)
			if err == nil && c.write != nil {
				err = c.write(w)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// fullFile has room for some bytes.
type fullFile struct {
	memoryFile
	room int64
}

var errFull = errors.New("the file is full")

func (f *fullFile) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.room {
		return 0, errFull
	}
	return f.memoryFile.WriteAt(p, off)
}

func TestPackageInAFullFile(t *testing.T) {
	p := packageOf("disk0.vmdk", "cd.iso")
	size := len(newOVA(t, p))
	for room := 0; room <= size; room += 512 {
		w, err := NewOVA(&fullFile{room: int64(room)}, p)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range p.Envelope.Files {
			if dst, err := w.Create(f.Name); err == nil {
				dst.Write(content[f.Name]) // its error is Close's as well
			}
		}
		if err := w.Close(); errors.Is(err, errFull) != (room < size) {
			t.Errorf("with %d of %d bytes: %v", room, size, err)
		}
	}
}
