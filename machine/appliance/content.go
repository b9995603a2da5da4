package appliance

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/davit-oci/davit/machine"
)

// errDescriptorOnly is a mistake of the caller.
var errDescriptorOnly = errors.New("the appliance was opened for its descriptor only")

// unpackSlack is by how much what was compressed may exceed the disk in it: for
// the tables of an image, and blocks that grew.
const unpackSlack = 16 << 20

// Disk says where the content of Envelope.Disks[i] is.
func (a *Appliance) Disk(i int) (Source, error) {
	if a.options.DescriptorOnly {
		return Source{}, errDescriptorOnly
	}
	d := a.Disks[i]
	if d.File == "" {
		return Source{}, nil
	}
	if f, ok := a.paths[d.File]; ok {
		s := Source{Name: d.File, Format: d.Format, Path: f.path, BackingDir: a.options.BackingDir}
		s.Hidden = s.BackingDir != ""
		// A raw disk that is not said to be one could name a second file.
		if d.Format != "" && f.local != "" && s.BackingDir == "" {
			s.BackingDir = f.in.real()
		}
		return s, nil
	}
	if d.Parent != "" {
		return Source{}, machine.Unsupported("disk %s is a delta to disk %s", d.Name, d.Parent)
	}
	n := slices.IndexFunc(a.Envelope.Files, func(f machine.File) bool { return f.Name == d.File })
	if n < 0 {
		return Source{}, machine.Malformed("disk %s is in no file", d.Name)
	}
	f := a.Envelope.Files[n]
	s := Source{Name: f.Name, Format: d.Format}
	if whole := a.chunks[f.Name]; whole != nil {
		s.Name, s.Section = whole.files[0].name, whole
	} else {
		s.Section = a.members[f.Name]
	}
	if f.Compression != "" {
		s.Compression, s.Limit = f.Compression, d.Capacity+d.Capacity/16+unpackSlack
	}
	return s, nil
}

// Warnings say what was taken though it is not as it should be, of the
// descriptor first.
func (a *Appliance) Warnings() []string { return slices.Concat(a.Envelope.Warnings, a.warnings) }

// Files are the files that travel as they are, neither the descriptor nor those
// of disks: in the order of the descriptor's, then others of the package, then
// the manifest and the certificate. Their names differ even without regard to
// case.
func (a *Appliance) Files() []File { return slices.Clone(a.files) }

// A listed file is one that the manifest names.
type listed struct {
	digest
	file *hashedSection // nil: it is not there
	sum  int            // which of those of the file
}

// check compares the file with its digest, of which it returns the hex.
func (l *listed) check(ctx context.Context, manifest string) (string, error) {
	sums, err := l.file.sums(ctx)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", l.name, err)
	}
	sum := sums[l.sum]
	if !bytes.Equal(sum, l.want) {
		return hex.EncodeToString(sum), wrongDigest("%s has %s %x, and %s says %x", l.name, l.algorithm, sum, manifest, l.want)
	}
	return hex.EncodeToString(sum), nil
}

// wrongDigest says that a package is not what its manifest says.
func wrongDigest(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrDigest, fmt.Sprintf(format, args...))
}

// Verify reads what was not read yet of files that the manifest names, and
// compares the digests of all. It is called when what Disk and Files gave was
// read. The report is there beside an error that is [ErrDigest], which says
// what is wrong first.
func (a *Appliance) Verify(ctx context.Context) (Report, error) {
	if a.options.DescriptorOnly {
		return Report{}, errDescriptorOnly
	}
	r := a.report
	r.Algorithms = append([]string{}, r.Algorithms...) // none is [] in JSON
	r.Unlisted = append([]string{}, r.Unlisted...)
	r.Files, r.Wrong = []FileReport{}, []string{}
	wrong := slices.Clone(a.wrong)
	for _, l := range a.listed {
		f := FileReport{Name: l.name, Algorithm: l.algorithm, Want: hex.EncodeToString(l.want)}
		if l.file != nil {
			var err error
			f.Got, err = l.check(ctx, r.Manifest)
			if err != nil && f.Got == "" {
				return Report{}, err
			}
			f.OK = err == nil
			if err != nil && l.name != a.Descriptor.Name { // of which it is known since Open
				wrong = append(wrong, err)
			}
		}
		r.Files = append(r.Files, f)
	}
	for _, err := range wrong {
		r.Wrong = append(r.Wrong, err.Error())
	}
	if len(wrong) == 0 || a.options.Unverified {
		return r, nil
	}
	if len(wrong) > 1 {
		return r, fmt.Errorf("%w (and %d more)", wrong[0], len(wrong)-1)
	}
	return r, wrong[0]
}

func (a *Appliance) closeLater(c func() error) {
	a.mu.Lock()
	a.closers = append(a.closers, c)
	a.mu.Unlock()
}

// Close closes all files. Nothing that came from a may be used after it.
func (a *Appliance) Close() error {
	var errs []error
	for _, c := range slices.Backward(a.closers) {
		errs = append(errs, c())
	}
	a.closers = nil
	return errors.Join(errs...)
}
