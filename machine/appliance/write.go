package appliance

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"github.com/davit-oci/davit/machine"
)

// A Package is an OVF package that is going to be written: descriptor,
// manifest, certificate, disks and other files.
type Package struct {
	// Name is that of the descriptor, without extension, as [machine.FileName]
	// makes one. Nothing of the file or folder that is written gets into it: a
	// package has the same bytes wherever it is written.
	Name string

	// Envelope is what the descriptor describes. Its Files are those of the
	// package, in this order, under the names that they get there, which are
	// plain ASCII and no paths. Their sizes are filled in by [Writer.Close]; so
	// this must not change until then.
	Envelope *machine.Envelope

	// Descriptor returns the OVF of an envelope. Only the digits of File.Size
	// may make a difference to its length.
	Descriptor func(*machine.Envelope) ([]byte, error)

	// Key signs the manifest; nil: the package has no certificate.
	Key *Key
}

// A Writer writes an OVF package, in one pass and without temporary copies.
//
// [Writer.Create] is called for each file of the envelope, in order; then
// [Writer.Close]. The same package with the same content of files has the same
// bytes.
type Writer struct {
	p    Package
	out  packageOutput
	room int // bytes of the descriptor, whatever the sizes are

	envelope machine.Envelope // of p, with sizes
	sums     []string         // of the envelope's files, in hex; as many as are complete
	current  *memberWriter    // the file that is being written, number len(sums)
	err      error            // of Create or a write: there will be no package
}

// packageOutput is where the files of a package go: the members of an archive,
// or files.
type packageOutput interface {
	// reserve takes the place of a small file, of which write comes last.
	reserve(name string, size int64) error
	// create begins a file of unknown size behind those that are there; finish
	// ends it.
	create(name string) (io.Writer, error)
	finish(name string, size int64) error
	// write writes the small file whose place is reserved.
	write(name string, data []byte) error
	// close ends the package.
	close() error
}

// NewOVA starts an OVA: the package as one archive, in f, which is empty. The
// caller closes it. Errors name the limit that an OVA has and the package does
// not keep.
func NewOVA(f io.WriterAt, p Package) (*Writer, error) {
	return newWriter(&archive{f: f, places: make(map[string]place)}, p)
}

// NewFolder starts a package as files. Each of them, the descriptor too, goes
// to what create returns for its name, in the order in which they are complete.
// Who made them closes them, and makes them appear when Close has returned.
func NewFolder(create func(name string) (io.Writer, error), p Package) (*Writer, error) {
	return newWriter(&folder{open: create}, p)
}

// Names of the small files of a package.
func (w *Writer) descriptor() string  { return w.p.Name + ".ovf" }
func (w *Writer) manifest() string    { return w.p.Name + ".mf" }
func (w *Writer) certificate() string { return w.p.Name + ".cert" }

func newWriter(out packageOutput, p Package) (*Writer, error) {
	w := &Writer{p: p, out: out, envelope: *p.Envelope}
	w.envelope.Files = append([]machine.File(nil), p.Envelope.Files...)
	if err := w.checkNames(); err != nil {
		return nil, err
	}
	// How long the descriptor gets is known when the files are there. It comes
	// before them, so its place is as large as the largest sizes make it.
	for i := range w.envelope.Files {
		w.envelope.Files[i].Size = machine.MaxCapacity
	}
	longest, err := p.Descriptor(&w.envelope)
	if err != nil {
		return nil, err
	}
	w.room = len(longest)

	// The order of DSP0243: descriptor, manifest and certificate, which so can
	// be checked before the first disk has come, and the files as References
	// has them.
	err = out.reserve(w.descriptor(), int64(w.room))
	if err == nil {
		err = out.reserve(w.manifest(), int64(len(w.manifestOf("", make([]string, len(w.envelope.Files))))))
	}
	if err == nil && p.Key != nil {
		err = out.reserve(w.certificate(), int64(p.Key.certificateSize(w.manifest())))
	}
	if err != nil {
		return nil, err
	}
	return w, nil
}

// maxMemberName is what a header of ustar has room for.
const maxMemberName = 100

func (w *Writer) checkNames() error {
	if len(w.envelope.Files) > machine.MaxDisks {
		return fmt.Errorf("%d files in a package, more than %d", len(w.envelope.Files), machine.MaxDisks)
	}
	names := []string{w.descriptor(), w.manifest(), w.certificate()}
	for _, f := range w.envelope.Files {
		names = append(names, f.Name)
	}
	seen := make(map[string]bool)
	for _, name := range names {
		if !isMemberName(name) {
			return fmt.Errorf("%q cannot be the name of a file in a package", name)
		}
		lower := strings.ToLower(name)
		if seen[lower] {
			return fmt.Errorf("two files of the package are called %q", name)
		}
		seen[lower] = true
	}
	return nil
}

// isMemberName says whether a header has room for a name, every program reads it
// as the same one, and it needs no quoting in a manifest.
func isMemberName(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' || strings.IndexByte(`*?"<>|()=`, c) >= 0 {
			return false
		}
	}
	return machine.IsPlainName(s) && s[0] != '.' && s[len(s)-1] != '.' && len(s) <= maxMemberName
}

// Create begins the next file of the package, which is called name, and ends
// the one before. Its bytes are written to what it returns, in order, each once.
func (w *Writer) Create(name string) (io.Writer, error) {
	if w.err == nil {
		w.err = w.begin(name)
	}
	if w.err != nil {
		return nil, w.err
	}
	return w.current, nil
}

func (w *Writer) begin(name string) error {
	if err := w.finish(); err != nil {
		return err
	}
	files := w.envelope.Files
	if len(w.sums) == len(files) {
		return fmt.Errorf("%s: the package has no more than %d files", name, len(files))
	}
	if want := files[len(w.sums)].Name; name != want {
		return fmt.Errorf("%s: the next file of the package is %s", name, want)
	}
	dst, err := w.out.create(name)
	if err != nil {
		return err
	}
	w.current = &memberWriter{w: w, dst: dst, hash: sha256.New()}
	return nil
}

// finish ends the file that is being written.
func (w *Writer) finish() error {
	if w.current == nil {
		return nil
	}
	f := &w.envelope.Files[len(w.sums)]
	f.Size = w.current.size
	w.sums = append(w.sums, fmt.Sprintf("%x", w.current.hash.Sum(nil)))
	w.current = nil
	return w.out.finish(f.Name, f.Size)
}

// memberWriter takes the content of a file.
type memberWriter struct {
	w    *Writer
	dst  io.Writer
	hash hash.Hash
	size int64
}

func (m *memberWriter) Write(p []byte) (int, error) {
	if m.w.err != nil {
		return 0, m.w.err
	}
	if m.w.current != m {
		return 0, errors.New("write to a file of a package that has ended")
	}
	n, err := m.dst.Write(p)
	m.hash.Write(p[:n])
	m.size += int64(n)
	m.w.err = err // bytes may be missing: no package
	return n, err
}

// Close writes descriptor, manifest and certificate, which tell what the files
// before them were. Without it there is no package.
func (w *Writer) Close() error {
	if w.err == nil {
		w.err = w.end()
	}
	err := w.err
	if err == nil {
		w.err = errors.New("the package is closed")
	}
	return err
}

func (w *Writer) end() error {
	if err := w.finish(); err != nil {
		return err
	}
	if n := len(w.sums); n < len(w.envelope.Files) {
		return fmt.Errorf("%s of the package was not written", w.envelope.Files[n].Name)
	}
	ovf, err := w.p.Descriptor(&w.envelope)
	if err != nil {
		return err
	}
	if ovf, err = fill(ovf, w.room); err != nil {
		return err
	}
	manifest := w.manifestOf(fmt.Sprintf("%x", sha256.Sum256(ovf)), w.sums)
	if err := w.out.write(w.descriptor(), ovf); err != nil {
		return err
	}
	if err := w.out.write(w.manifest(), manifest); err != nil {
		return err
	}
	if w.p.Key != nil {
		cert, err := w.p.Key.certificate(w.manifest(), manifest)
		if err != nil {
			return err
		}
		if err := w.out.write(w.certificate(), cert); err != nil {
			return err
		}
	}
	return w.out.close()
}

// fill brings an XML document to a length, with white space between its last
// element and its last line break.
func fill(doc []byte, size int) ([]byte, error) {
	if len(doc) > size {
		return nil, fmt.Errorf("the descriptor has %d bytes, %d were foreseen", len(doc), size)
	}
	body := strings.TrimSuffix(string(doc), "\n")
	end := string(doc[len(body):])
	return []byte(body + strings.Repeat(" ", size-len(doc)) + end), nil
}

// manifestOf returns the manifest, in the spelling of ovftool: ESXi does not
// read one with a space before the parenthesis. Sums are in hex; empty ones
// leave room.
func (w *Writer) manifestOf(descriptor string, files []string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "SHA256(%s)= %64s\n", w.descriptor(), descriptor)
	for i, f := range w.envelope.Files {
		fmt.Fprintf(&b, "SHA256(%s)= %64s\n", f.Name, files[i])
	}
	return []byte(b.String())
}

// folder is a package as files.
type folder struct {
	open func(name string) (io.Writer, error)
}

func (f *folder) reserve(string, int64) error { return nil }

func (f *folder) create(name string) (io.Writer, error) { return f.open(name) }

func (f *folder) finish(string, int64) error { return nil }

func (f *folder) write(name string, data []byte) error {
	dst, err := f.open(name)
	if err != nil {
		return err
	}
	_, err = dst.Write(data)
	return err
}

func (f *folder) close() error { return nil }
