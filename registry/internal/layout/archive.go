package layout

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/davit-oci/davit/internal/own"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/redact"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// archiveFiles is a layout in a tar file. Reading does not unpack: the offsets of the members are found once, and blobs are read from
// where they are. What is written is kept beside the archive until close, which writes a new archive and renames it. Of two processes
// that write at once, the one that closes later keeps what the other one has added.
type archiveFiles struct {
	ctx  context.Context // for close, which has none: the one given to OpenArchive
	path string
	base *os.File // nil: no such file yet
	old  *archiveContent

	mu      sync.Mutex
	closed  bool
	added   *wholefile.Temp              // new blobs, one after the other
	size    int64                        // of added, including what is being written
	blobs   map[digest.Digest]section    // in added
	changes []func(index *ocispec.Index) // to index.json, in order
}

// A section is a part of a file.
type section struct{ off, size int64 }

// archiveContent is what a tar file has in it.
type archiveContent struct {
	index ocispec.Index
	blobs map[digest.Digest]section
}

const (
	// maxArchiveMembers bounds the memory for the members of a hostile archive: 15 MB.
	maxArchiveMembers = 1 << 16
	maxMemberName     = 4096
)

// OpenArchive opens the layout in a tar file. It need not exist. Close writes it; it fails, and changes nothing, if ctx has ended.
func OpenArchive(ctx context.Context, path string, s *oci.Stats) (*Layout, error) {
	f := &archiveFiles{ctx: ctx, path: path, blobs: make(map[digest.Digest]section)}
	var err error
	if f.base, f.old, err = readArchive(ctx, path); err != nil {
		return nil, fmt.Errorf("opening archive %s: %w", path, err)
	}
	return &Layout{files: f, stats: s}, nil
}

// readArchive finds the members. A file that does not exist is an empty archive.
func readArchive(ctx context.Context, path string) (*os.File, *archiveContent, error) {
	file, err := own.OpenAny(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &archiveContent{}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	content, err := scanArchive(ctx, file, info.Size())
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, content, nil
}

var blobMember = regexp.MustCompile(`^blobs/sha256/([0-9a-f]{64})$`)

func scanArchive(ctx context.Context, file io.ReadSeeker, size int64) (*archiveContent, error) {
	c := &archiveContent{blobs: make(map[digest.Digest]section)}
	seen := make(map[[sha256.Size]byte]bool) // by the SHA-256 of the name, which can be long
	small := make(map[string][]byte)
	for tr := tar.NewReader(file); ; {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading tar: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, err := memberName(h)
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		if len(seen) == maxArchiveMembers {
			return nil, fmt.Errorf("more than %d members", maxArchiveMembers)
		}
		id := sha256.Sum256([]byte(name))
		if seen[id] {
			return nil, fmt.Errorf("member %q is there twice", redact.Line(name))
		}
		seen[id] = true

		if name == indexFile || name == layoutFile {
			if h.Size > maxIndex {
				return nil, fmt.Errorf("member %q has more than %d bytes", name, maxIndex)
			}
			if small[name], err = io.ReadAll(tr); err != nil {
				return nil, fmt.Errorf("reading member %q: %w", name, err)
			}
			continue
		}
		m := blobMember.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		// archive/tar reads headers by blocks and nothing ahead, so that the file stands at the data now.
		off, err := file.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		if off > size || h.Size > size-off {
			return nil, fmt.Errorf("member %q is cut off", name)
		}
		c.blobs[digest.NewDigestFromEncoded(digest.SHA256, m[1])] = section{off, h.Size}
	}
	if small[layoutFile] == nil || small[indexFile] == nil {
		return nil, fmt.Errorf("not an OCI archive: no %s or no %s in it", layoutFile, indexFile)
	}
	if err := checkLayoutFile(small[layoutFile]); err != nil {
		return nil, err
	}
	var err error
	c.index, err = parseIndex(small[indexFile])
	return c, err
}

// memberName refuses what does not belong into a layout: links, devices, sparse files (whose data is not where it seems) and names
// that leave the archive.
func memberName(h *tar.Header) (string, error) {
	name := h.Name
	if len(name) > maxMemberName {
		return "", fmt.Errorf("member with a name of %d bytes", len(name))
	}
	sparse := false
	for k := range h.PAXRecords {
		sparse = sparse || strings.HasPrefix(k, "GNU.sparse.")
	}
	if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeDir || sparse {
		return "", fmt.Errorf("member %q is neither file nor directory", redact.Line(name))
	}
	name = strings.TrimSuffix(name, "/")
	for strings.HasPrefix(name, "./") {
		name = name[2:]
	}
	if name == "." || name == "" {
		if h.Typeflag == tar.TypeDir {
			return ".", nil
		}
		return "", errors.New("member without a name")
	}
	if !fs.ValidPath(name) || strings.ContainsAny(name, `\`) {
		return "", fmt.Errorf("member %q: not a name within the archive", redact.Line(h.Name))
	}
	return name, nil
}

func (f *archiveFiles) index() (ocispec.Index, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return apply(f.old.index, f.changes), nil
}

// apply leaves what it is given as it is.
func apply(index ocispec.Index, changes []func(*ocispec.Index)) ocispec.Index {
	index.Manifests = slices.Clone(index.Manifests)
	for _, change := range changes {
		change(&index)
	}
	return index
}

func (f *archiveFiles) update(_ context.Context, change func(*ocispec.Index)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	f.changes = append(f.changes, change)
	return nil
}

// memberBlob is a blob in a file that stays open.
type memberBlob struct{ *io.SectionReader }

func (memberBlob) Close() error { return nil }

func (f *archiveFiles) open(d digest.Digest) (layoutBlob, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil, os.ErrClosed
	}
	if s, ok := f.blobs[d]; ok {
		return memberBlob{io.NewSectionReader(f.added, s.off, s.size)}, nil
	}
	if s, ok := f.old.blobs[d]; ok {
		return memberBlob{io.NewSectionReader(f.base, s.off, s.size)}, nil
	}
	return nil, oci.ErrNotFound
}

// put may be called from several goroutines: each writes to its own part of the file.
func (f *archiveFiles) put(ctx context.Context, desc ocispec.Descriptor, content io.Reader) error {
	at, err := f.reserve(desc.Size)
	if err != nil {
		return err
	}
	if err := oci.CopyVerified(ctx, io.NewOffsetWriter(f.added, at), content, desc); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blobs[desc.Digest] = section{at, desc.Size}
	return nil
}

func (f *archiveFiles) reserve(size int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return 0, os.ErrClosed
	}
	if f.added == nil {
		dir := filepath.Dir(f.path)
		if err := mayWriteTo(dir); err != nil {
			return 0, err
		}
		if _, err := own.MkdirAll(dir+string(filepath.Separator), 0o777); err != nil {
			return 0, err
		}
		wholefile.Sweep(dir)
		var err error
		if f.added, err = wholefile.CreateTemp(dir, 0o600); err != nil {
			return 0, err
		}
	}
	at := f.size
	f.size += size
	return at, nil
}

// close writes the archive if index.json has changed. Blobs that no manifest came for are not worth a new file.
func (f *archiveFiles) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	var err error
	if len(f.changes) > 0 {
		if err = f.write(); err != nil {
			err = fmt.Errorf("writing archive %s: %w", f.path, err)
		}
	}
	if f.added != nil {
		f.added.Close()
	}
	if f.base != nil {
		f.base.Close()
	}
	return err
}

// write is deterministic: the same blobs and the same index give the same file.
func (f *archiveFiles) write() error {
	dir, name := filepath.Split(f.path)
	if dir == "" {
		dir = "."
	}
	if err := mayWriteTo(dir); err != nil {
		return err
	}
	release, err := wholefile.Lock(f.ctx, filepath.Join(dir, "."+name+lockName))
	if err != nil {
		return err
	}
	defer release()

	// Another process may have renamed its own archive over the one that we read.
	base, old, err := readArchive(f.ctx, f.path)
	if err != nil {
		return err
	}
	if base != nil {
		defer base.Close()
	}
	index, err := formatIndex(apply(old.index, f.changes))
	if err != nil {
		return err
	}

	out, err := wholefile.CreateTemp(dir, 0o666)
	if err != nil {
		return err
	}
	defer out.Close()
	w := &archiveWriter{out: out.File}
	w.dir("blobs/")
	w.dir(blobsDir + "/")
	// Those of the file that was opened, those of the file that is there now, which normally are the same, and ours, which can be in the
	// place of one that was damaged.
	type member struct {
		file *os.File
		s    section
	}
	all := make(map[digest.Digest]member)
	for d, s := range f.old.blobs {
		all[d] = member{f.base, s}
	}
	for d, s := range old.blobs {
		all[d] = member{base, s}
	}
	for d, s := range f.blobs {
		all[d] = member{f.added.File, s}
	}
	for _, d := range slices.Sorted(maps.Keys(all)) {
		if f.ctx.Err() != nil {
			return context.Cause(f.ctx)
		}
		w.file(blobsDir+"/"+d.Encoded(), nil, all[d].file, all[d].s)
	}
	w.file(indexFile, bytes.NewReader(index), nil, section{0, int64(len(index))})
	w.file(layoutFile, strings.NewReader(layoutContent), nil, section{0, int64(len(layoutContent))})
	if err := w.end(); err != nil {
		return err
	}
	// Where open files cannot be replaced, these would be in the way.
	if base != nil {
		base.Close()
	}
	if f.base != nil {
		f.base.Close()
	}
	return out.Commit(f.path)
}

// An archiveWriter writes members. Headers are archive/tar's; data goes from file to file, which lets systems that can do so share it
// instead of copying. The first error ends it.
type archiveWriter struct {
	out *os.File
	err error
}

func (w *archiveWriter) header(h *tar.Header) {
	if w.err != nil {
		return
	}
	var b bytes.Buffer
	if w.err = tar.NewWriter(&b).WriteHeader(h); w.err == nil {
		_, w.err = w.out.Write(b.Bytes())
	}
}

func (w *archiveWriter) dir(name string) {
	w.header(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755})
}

func (w *archiveWriter) file(name string, content io.Reader, from *os.File, s section) {
	w.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: s.size})
	if w.err != nil {
		return
	}
	if from != nil {
		if _, w.err = from.Seek(s.off, io.SeekStart); w.err != nil {
			return
		}
		content = io.LimitReader(from, s.size)
	}
	n, err := io.Copy(w.out, content)
	if err == nil && n != s.size {
		err = io.ErrUnexpectedEOF
	}
	if err == nil {
		_, err = w.out.Write(make([]byte, -s.size&511)) // members are padded to blocks of 512
	}
	w.err = err
}

func (w *archiveWriter) end() error {
	if w.err == nil {
		_, w.err = w.out.Write(make([]byte, 1024))
	}
	return w.err
}
