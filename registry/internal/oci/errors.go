package oci

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/davit-oci/davit/internal/fetch"
	"github.com/opencontainers/go-digest"
)

var (
	// ErrNotFound says that there is no such tag, manifest, blob or repository. From a registry it means 404 to accepted credentials. It is an
	// [fs.ErrNotExist] for those who do not know this package.
	ErrNotFound error = notFoundError{}

	// ErrDigestMismatch says that bytes are not what their digest or size says, or a tag and a digest that were named together disagree.
	// It is an [fs.ErrInvalid] for those who do not know this package.
	ErrDigestMismatch = fetch.ErrDigestMismatch

	// ErrIncomplete says that there is more than what is returned with it, and asking again will not bring it: beyond a limit, or wrong where it
	// is kept. It is an [fs.ErrInvalid], too.
	ErrIncomplete error = incompleteError{}

	// ErrManifestBlobUnknown says that the registry refused a manifest because it has no blob of a name in it, whatever HEAD had said, and went
	// on refusing it. A [*BlobUnknownError] has the digests.
	ErrManifestBlobUnknown = errors.New("manifest names a blob that is unknown to the registry")
)

type notFoundError struct{}

func (notFoundError) Error() string        { return "not found" }
func (notFoundError) Is(target error) bool { return target == fs.ErrNotExist }

// An invalidError is about what is wrong, and will be: no fault of the network. It is an [fs.ErrInvalid].
type invalidError struct{ error }

func (e invalidError) Unwrap() error        { return e.error }
func (e invalidError) Is(target error) bool { return target == fs.ErrInvalid }

// Invalidf makes an error that is an [fs.ErrInvalid].
func Invalidf(format string, args ...any) error { return invalidError{fmt.Errorf(format, args...)} }

// IsInvalid reports whether err is about content, or a name for it, that is wrong for good.
func IsInvalid(err error) bool { return errors.Is(err, fs.ErrInvalid) }

type incompleteError struct{ error }

func (e incompleteError) Unwrap() error { return e.error }
func (e incompleteError) Is(target error) bool {
	return target == ErrIncomplete || target == fs.ErrInvalid
}

func (e incompleteError) Error() string {
	if e.error == nil {
		return "incomplete"
	}
	return e.error.Error()
}

// Incompletef makes an [ErrIncomplete].
func Incompletef(format string, args ...any) error {
	return incompleteError{fmt.Errorf(format, args...)}
}

// A BlobUnknownError is an [ErrManifestBlobUnknown] with the digests of the blobs that have to be pushed again; there are none where the
// registry names none and says of each that it is there. It is no [ErrNotFound], whatever the status was: nothing was looked for.
type BlobUnknownError struct {
	Digests []digest.Digest
	err     error // told, but not what this error is
}

// BlobUnknown makes a [BlobUnknownError] that reads as err.
func BlobUnknown(digests []digest.Digest, err error) *BlobUnknownError {
	return &BlobUnknownError{digests, err}
}

func (e *BlobUnknownError) Error() string { return e.err.Error() }

// Is makes it an [ErrManifestBlobUnknown].
func (e *BlobUnknownError) Is(target error) bool { return target == ErrManifestBlobUnknown }
