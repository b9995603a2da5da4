package appliance

import (
	"context"
	"errors"
)

var errTODO = errors.New("not written yet")

// Open opens the appliance at path: a file or a folder that holds one OVF. What
// a file is its content says, not its name.
//
// Errors are [ErrNotMachine] for what describes no machine, for which only the
// beginning of the file was read; [ErrMissing]; [ErrDigest] for an OVF or a
// signature that is not right; [machine.ErrMalformed] and
// [machine.ErrUnsupported], and those of [os.Open].
func Open(path string, o Options) (*Appliance, error) {
	return nil, errTODO
}

// Disk says where the content of Envelope.Disks[i] is. A file that is
// compressed as a whole is decompressed into a temporary file, which Close
// removes: that can take long, and ctx ends it.
func (a *Appliance) Disk(ctx context.Context, i int) (Source, error) { return Source{}, errTODO }

// Files are the files that travel as they are, neither the descriptor nor those
// of disks: in the order of the descriptor's, then others in the order of the
// package, then the manifest and the certificate.
func (a *Appliance) Files() []File { return nil }

// Verify reads what was not read yet of files that the manifest names, and
// compares the digests of all. What Disk and Files gave must not be in use any
// more. The report is there beside an error that is [ErrDigest].
func (a *Appliance) Verify(ctx context.Context) (Report, error) { return Report{}, errTODO }

// Close closes all files. Nothing that came from a may be used after it.
func (a *Appliance) Close() error { return nil }
