package registry

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/davit-oci/davit/internal/own"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// A Store is what this host keeps between two runs: content by digest, layers that a push has finished, notes of what was pushed and
// pulled, and where disk files are. It is safe for concurrent use, by several processes too, and after kill -9 it is as it was before
// what was being written.
//
// The embedded Area is an OCI image layout's blobs, which other tools can read.
type Store struct {
	*Area
	// Spool has the finished layers of pushes that were not, or not yet, completed.
	Spool *Area

	dir  string
	temp io.Closer // the lock of a store that ends with Close, else nil

	mu      sync.Mutex
	scratch map[string]func() error // cleanups that have not run
}

// The folders of a store, beside those of an image layout.
const (
	spoolDir    = "spool/sha256"
	scratchDir  = "scratch"
	journalDir  = "journal"
	checkedFile = "checked.jsonl"
	disksDir    = "disks"

	// tempStore is how folders of stores without a place of their own begin.
	tempStore = "davit-store-"
)

// NoStore as a directory means a store that is removed by Close.
const NoStore = "none"

// StoreDir is where the store is: dir if it is not empty, else $DAVIT_CACHE, $XDG_CACHE_HOME/davit or ~/.cache/davit.
func StoreDir(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	if dir = os.Getenv("DAVIT_CACHE"); dir != "" {
		return dir, nil
	}
	if dir = os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "davit"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding a place for the local store: %w", err)
	}
	return filepath.Join(home, ".cache", "davit"), nil
}

// OpenStore opens the store in dir, as [StoreDir] understands it, and makes it if need be. It removes the scratch files of processes
// that were killed. [NoStore] makes one in the system's temporary folder. The caller must call Close.
//
// What a store says is believed, and disks may hold secrets: one that is not this user's alone is an [own.Error].
func OpenStore(ctx context.Context, dir string) (*Store, error) {
	dir, err := StoreDir(dir)
	if err != nil {
		return nil, err
	}
	s := &Store{scratch: make(map[string]func() error)}
	if dir == NoStore {
		root, err := own.Resolve(os.TempDir() + string(filepath.Separator))
		if err != nil {
			return nil, fmt.Errorf("making a temporary store: %w", err)
		}
		sweepLocked(root, tempStore)
		var lock *os.File
		if dir, lock, err = lockedDir(root, tempStore); err != nil {
			return nil, fmt.Errorf("making a temporary store: %w", err)
		}
		s.dir, s.temp = dir, lock
	}
	if dir, err = filepath.Abs(dir); err == nil {
		err = s.prepare(ctx, dir)
	}
	if err != nil {
		if s.temp != nil {
			s.Close()
		}
		return nil, fmt.Errorf("opening the local store: %w", err)
	}
	return s, nil
}

func (s *Store) prepare(ctx context.Context, dir string) error {
	// Users have it in another file system, by a link.
	real, err := own.MkdirAll(dir, 0o700)
	if err != nil {
		return err
	}
	s.dir = real
	s.Area = &Area{dir: s.path(blobsDir), temp: s.dir}
	s.Spool = &Area{dir: s.path(spoolDir), temp: s.dir}
	// The outer ones first: what is in a folder of somebody else is as good as theirs.
	for _, d := range []string{"", "blobs", blobsDir, "spool", spoolDir, scratchDir, journalDir, disksDir} {
		if err := os.Mkdir(s.path(d), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := own.CheckFolder(s.path(d)); err != nil {
			return err
		}
	}
	for name, content := range map[string]string{
		layoutFile: layoutContent,
		indexFile:  `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[]}`,
	} {
		if !exists(s.path(name)) {
			if err := wholefile.Replace(s.path(name), []byte(content), 0o600); err != nil {
				return err
			}
		}
	}
	for _, d := range []string{"", disksDir} {
		wholefile.Sweep(s.path(d))
	}
	sweepLocked(s.path(scratchDir), "")
	return ctx.Err()
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// Dir is the folder of the store.
func (s *Store) Dir() string { return s.dir }

// Close removes scratch folders, and a [NoStore] store as a whole.
func (s *Store) Close() error {
	s.mu.Lock()
	cleanups := s.scratch
	s.scratch = nil
	s.mu.Unlock()
	var errs []error
	for _, cleanup := range cleanups {
		errs = append(errs, cleanup())
	}
	if s.temp != nil {
		lock := s.temp.(*os.File)
		errs = append(errs, os.RemoveAll(s.dir), wholefile.RemoveLocked(lock, lock.Name()))
		s.temp = nil
	}
	return errors.Join(errs...)
}

// Scratch makes a folder for one purpose of this process. It is removed by cleanup, by Close, or, when the process was killed, by the
// next OpenStore.
func (s *Store) Scratch() (dir string, cleanup func() error, err error) {
	dir, lock, err := lockedDir(s.path(scratchDir), "")
	if err != nil {
		return "", nil, fmt.Errorf("making a scratch folder: %w", err)
	}
	remove := sync.OnceValue(func() error {
		err := os.RemoveAll(dir)
		return errors.Join(err, wholefile.RemoveLocked(lock, lock.Name()))
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.scratch == nil {
		return "", nil, errors.Join(errors.New("making a scratch folder: the store is closed"), remove())
	}
	s.scratch[dir] = remove
	return dir, func() error {
		s.mu.Lock()
		delete(s.scratch, dir)
		s.mu.Unlock()
		return remove()
	}, nil
}

// A folder of a process is beside a file of the same name and this ending, which the process has locked.
const lockSuffix = ".lock"

// lockedDir makes a folder that [sweepLocked] leaves alone as long as lock is open.
func lockedDir(root, prefix string) (dir string, lock *os.File, err error) {
	for {
		f, err := os.CreateTemp(root, prefix+"*"+lockSuffix)
		if err != nil {
			return "", nil, err
		}
		ok, err := wholefile.TryLock(f)
		if err != nil {
			wholefile.RemoveLocked(f, f.Name())
			return "", nil, err
		}
		if !ok || !wholefile.IsNamed(f, f.Name()) { // a sweep was faster; it removes the file
			f.Close()
			continue
		}
		dir := f.Name()[:len(f.Name())-len(lockSuffix)]
		err = os.Mkdir(dir, 0o700)
		if errors.Is(err, fs.ErrExist) { // somebody else's, where all can write
			wholefile.RemoveLocked(f, f.Name())
			continue
		}
		if err != nil {
			wholefile.RemoveLocked(f, f.Name())
			return "", nil, err
		}
		return dir, f, nil
	}
}

// sweepLocked removes the folders of processes that are gone, which is when their locks can be had. What cannot be removed stays.
func sweepLocked(root, prefix string) {
	locks, err := filepath.Glob(filepath.Join(root, prefix+"*"+lockSuffix))
	if err != nil {
		return
	}
	for _, path := range locks {
		f, err := own.Open(path, os.O_RDWR)
		if err != nil {
			continue
		}
		if ok, err := wholefile.TryLock(f); err != nil || !ok || !wholefile.IsNamed(f, path) {
			f.Close()
			continue
		}
		if os.RemoveAll(path[:len(path)-len(lockSuffix)]) == nil {
			wholefile.RemoveLocked(f, f.Name())
		} else {
			f.Close()
		}
	}
}

// An Area is a folder of files named by their SHA-256. What is in it was verified when it was written.
type Area struct{ dir, temp string }

func (a *Area) path(d digest.Digest) (string, error) {
	if !validDigest(d) {
		return "", fmt.Errorf("%.100q: not a sha256 digest", d)
	}
	return filepath.Join(a.dir, d.Encoded()), nil
}

// Create begins content whose digest is not known yet. The caller must call Close.
func (a *Area) Create() (*Draft, error) {
	p, err := wholefile.CreateTemp(a.temp, 0o600)
	if err != nil {
		return nil, fmt.Errorf("writing to the local store: %w", err)
	}
	return &Draft{area: a, p: p, hash: sha256.New()}, nil
}

// A Draft is content of an Area while it is being written. It is not safe for concurrent use.
type Draft struct {
	area *Area
	p    *wholefile.Temp
	hash hash.Hash
	size int64
}

func (d *Draft) Write(b []byte) (int, error) {
	n, err := d.p.Write(b)
	_, _ = d.hash.Write(b[:n]) // a hash never fails
	d.size += int64(n)
	return n, err
}

// Size is the number of bytes written so far, Digest their digest.
func (d *Draft) Size() int64 { return d.size }

func (d *Draft) Digest() digest.Digest {
	return digest.NewDigestFromBytes(digest.SHA256, d.hash.Sum(nil))
}

// Commit makes the content appear under its digest, on stable storage.
func (d *Draft) Commit() error {
	path, err := d.area.path(d.Digest())
	if err != nil {
		return err
	}
	if err := d.p.Commit(path); err != nil {
		return fmt.Errorf("writing to the local store: %w", err)
	}
	return nil
}

// Close removes what was not committed.
func (d *Draft) Close() error { return d.p.Close() }

// Put writes content, unless it is there. Content that does not match desc is an [ErrDigestMismatch] and not kept.
func (a *Area) Put(ctx context.Context, desc ocispec.Descriptor, content io.Reader) error {
	if err := checkDescriptor(desc); err != nil {
		return err
	}
	if size, ok := a.Has(desc.Digest); ok && size == desc.Size {
		return nil
	}
	d, err := a.Create()
	if err != nil {
		return err
	}
	defer d.Close()
	if err := copyVerified(ctx, d.p, content, desc); err != nil {
		return fmt.Errorf("writing to the local store: %w", err)
	}
	path, err := a.path(desc.Digest)
	if err != nil {
		return err
	}
	if err := d.p.Commit(path); err != nil {
		return fmt.Errorf("writing to the local store: %w", err)
	}
	return nil
}

// A Blob is content of an Area: an io.ReaderAt that is safe for concurrent use, with a size.
type Blob struct{ layoutBlob }

// Open opens content; [ErrNotFound] if it is not there. It was verified when it was written; disks fail since, so verify what is read,
// as if it came from a registry. The caller must call Close.
func (a *Area) Open(d digest.Digest) (*Blob, error) {
	path, err := a.path(d)
	if err != nil {
		return nil, err
	}
	b, err := openBlobFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading %s from the local store: %w", d, err)
	}
	return &Blob{b}, nil
}

// OpenVerified reads content of at most limit bytes and verifies it. What has gone bad is removed and counts as not there:
// [ErrNotFound].
func (a *Area) OpenVerified(d digest.Digest, limit int64) ([]byte, error) {
	b, err := a.Open(d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.Size() > limit {
		return nil, fmt.Errorf("reading %s from the local store: it has %d bytes, over the limit of %d", d, b.Size(), limit)
	}
	content, err := readVerified(io.NewSectionReader(b, 0, b.Size()), ocispec.Descriptor{Digest: d, Size: b.Size()})
	if errors.Is(err, ErrDigestMismatch) {
		b.Close()
		if err := a.Remove(d); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("reading %s from the local store: its file was damaged and is removed: %w", d, ErrNotFound)
	}
	return content, err
}

// Has gives the size of content that is there.
func (a *Area) Has(d digest.Digest) (size int64, ok bool) {
	path, err := a.path(d)
	if err != nil {
		return 0, false
	}
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return 0, false
	}
	return info.Size(), true
}

// Remove removes content. It need not be there.
func (a *Area) Remove(d digest.Digest) error {
	path, err := a.path(d)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// All are the digests and sizes of what is there, in order of digests.
func (a *Area) All() iter.Seq2[digest.Digest, int64] {
	return func(yield func(digest.Digest, int64) bool) {
		entries, err := os.ReadDir(a.dir)
		if err != nil {
			return
		}
		for _, e := range entries {
			d := digest.NewDigestFromEncoded(digest.SHA256, e.Name())
			if size, ok := a.Has(d); ok && !yield(d, size) {
				return
			}
		}
	}
}

// nameOf turns any text into a file name.
func nameOf(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}

// A Journal is a list of records that survive kill -9. It is safe for concurrent use, also when several processes have it open; each
// record is whole or not there.
type Journal struct {
	path string
	mu   sync.Mutex
	f    *os.File // nil until the first Append
}

// maxRecord bounds a line of a journal, which is read into memory.
const maxRecord = 64 << 20

// Journal is the one for key, which may be any text. It comes into being with its first record. The caller must call Close.
func (s *Store) Journal(key string) *Journal {
	return &Journal{path: s.path(journalDir, nameOf(key)+".jsonl")}
}

// Append adds a record, as JSON on a line, to stable storage.
func (j *Journal) Append(record any) error {
	line, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("writing journal: %w", err)
	}
	if len(line) >= maxRecord {
		return fmt.Errorf("writing journal: a record of %d bytes", len(line))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil {
		if j.f, err = own.OpenOrCreate(j.path, os.O_RDWR|os.O_APPEND, 0o600); err != nil {
			return fmt.Errorf("writing journal: %w", err)
		}
	}
	// A line that a killed process has left half done must not swallow this one.
	if info, err := j.f.Stat(); err != nil {
		return fmt.Errorf("writing journal: %w", err)
	} else if n := info.Size(); n > 0 {
		last := make([]byte, 1)
		if _, err := j.f.ReadAt(last, n-1); err != nil {
			return fmt.Errorf("writing journal: %w", err)
		}
		if last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	// One write: systems append it as a whole.
	if _, err := j.f.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing journal: %w", err)
	}
	if err := j.f.Sync(); err != nil {
		return fmt.Errorf("writing journal: %w", err)
	}
	return nil
}

// Records gives the records in the order in which they were written, without what a killed process left half done. A record is valid
// until the next one. An error is the last thing given; no journal is no records.
func (j *Journal) Records() iter.Seq2[json.RawMessage, error] {
	return func(yield func(json.RawMessage, error) bool) {
		f, err := own.Open(j.path, os.O_RDONLY)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield(nil, fmt.Errorf("reading journal: %w", err))
			return
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, maxRecord+1)
		lines.Split(wholeLines)
		for lines.Scan() {
			if line := lines.Bytes(); json.Valid(line) && !yield(line, nil) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(nil, fmt.Errorf("reading journal: %w", err))
		}
	}
}

// wholeLines is bufio.ScanLines without a last line that does not end.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF {
		return len(data), nil, nil
	}
	return 0, nil, nil
}

// Remove removes the journal. Records of other processes that have it open are lost.
func (j *Journal) Remove() error {
	err := j.Close()
	if e := os.Remove(j.path); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

// Close ends the use of the journal. It stays where it is.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.f == nil {
		return nil
	}
	err := j.f.Close()
	j.f = nil
	return err
}

// A checkedRecord is a line of the journal of checked layers.
type checkedRecord struct {
	Layers []string `json:"layers"` // in hex
}

// maxChecked bounds the journal of checked layers, in bytes. It is a memory of work that need not be done again, so that a journal
// that is full begins anew.
const maxChecked = 4 << 20

func (s *Store) checked() *Journal { return &Journal{path: s.path(checkedFile)} }

// RecordChecked notes layers that this host has read, or written, as a whole. What a layer is, and what it was checked for, is in the
// name that the caller gives it; see artifact.LayerID.
func (s *Store) RecordChecked(layers ...[sha256.Size]byte) error {
	known := s.Checked()
	var r checkedRecord
	for _, l := range layers {
		if !known[l] {
			known[l] = true
			r.Layers = append(r.Layers, hex.EncodeToString(l[:]))
		}
	}
	if len(r.Layers) == 0 {
		return nil
	}
	j := s.checked()
	defer j.Close()
	if info, err := os.Stat(j.path); err == nil && info.Size() > maxChecked {
		if err := j.Remove(); err != nil {
			return err
		}
	}
	return j.Append(r)
}

// Checked returns what [Store.RecordChecked] has noted. What cannot be read was not noted.
func (s *Store) Checked() map[[sha256.Size]byte]bool {
	checked := make(map[[sha256.Size]byte]bool)
	for raw, err := range s.checked().Records() {
		var r checkedRecord
		if err != nil || json.Unmarshal(raw, &r) != nil {
			continue
		}
		for _, l := range r.Layers {
			if b, err := hex.DecodeString(l); err == nil && len(b) == sha256.Size {
				checked[[sha256.Size]byte(b)] = true
			}
		}
	}
	return checked
}

// readRecord reads a file of at most limit bytes that is believed.
func readRecord(path string, limit int64) ([]byte, error) {
	f, err := own.Open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, limit)
}

// A DiskFile is a file with the content of a disk, as davit wrote or read it once. Only its size and time are watched: whoever uses it
// must verify what they read.
type DiskFile struct {
	Path       string        `json:"path"` // absolute
	Format     string        `json:"format"`
	Size       int64         `json:"size"`  // of the file, in bytes
	MTime      time.Time     `json:"mtime"` // of the file
	DiskDigest digest.Digest `json:"diskDigest"`
	ChunkList  string        `json:"chunkList,omitempty"` // path of a list of the disk's chunks
}

// Remember puts a file into the catalogue, in the place of what was known of the path. Size and MTime may be zero: they are taken from
// the file.
func (s *Store) Remember(f DiskFile) error {
	path, err := filepath.Abs(f.Path)
	if err != nil {
		return fmt.Errorf("remembering disk file: %w", err)
	}
	f.Path = path
	if f.Size == 0 && f.MTime.IsZero() {
		info, err := os.Stat(path)
		if err != nil {
			return fmt.Errorf("remembering disk file: %w", err)
		}
		f.Size, f.MTime = info.Size(), info.ModTime()
	}
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("remembering disk file: %w", err)
	}
	if err := wholefile.Replace(s.path(disksDir, nameOf(f.Path)+".json"), b, 0o600); err != nil {
		return fmt.Errorf("remembering disk file: %w", err)
	}
	return nil
}

// Forget removes a file from the catalogue. It need not be in it.
func (s *Store) Forget(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	if err := os.Remove(s.path(disksDir, nameOf(path)+".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// DiskFiles are the files of the catalogue that are still there with the size and time they had, the youngest first.
func (s *Store) DiskFiles() ([]DiskFile, error) {
	entries, err := os.ReadDir(s.path(disksDir))
	if err != nil {
		return nil, fmt.Errorf("reading the catalogue of disk files: %w", err)
	}
	var files []DiskFile
	for _, e := range entries {
		if wholefile.IsTemp(e.Name()) {
			continue
		}
		b, err := readRecord(s.path(disksDir, e.Name()), 1<<20)
		if err != nil {
			continue // forgotten by another process
		}
		var f DiskFile
		if json.Unmarshal(b, &f) != nil || nameOf(f.Path)+".json" != e.Name() {
			continue
		}
		info, err := os.Stat(f.Path)
		if err != nil || !info.Mode().IsRegular() || info.Size() != f.Size || !info.ModTime().Equal(f.MTime) {
			continue
		}
		files = append(files, f)
	}
	slices.SortStableFunc(files, func(a, b DiskFile) int { return b.MTime.Compare(a.MTime) })
	return files, nil
}
