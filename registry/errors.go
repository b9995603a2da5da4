package registry

import (
	"github.com/davit-oci/davit/registry/internal/oci"
	"github.com/davit-oci/davit/registry/internal/reference"
	"github.com/davit-oci/davit/registry/internal/remote"
)

var (
	// ErrNotFound says that there is no such tag, manifest, blob or repository. From a registry it means 404 to accepted credentials. It is an
	// [fs.ErrNotExist] for those who do not know this package.
	ErrNotFound = oci.ErrNotFound

	// ErrUnauthorized says that the registry answered 401 or 403, or asks for credentials and there are none.
	ErrUnauthorized = remote.ErrUnauthorized

	// ErrDigestMismatch says that bytes are not what their digest or size says, or a tag and a digest that were named together disagree.
	// It is an [fs.ErrInvalid] for those who do not know this package, and the value of the same name in package verify.
	ErrDigestMismatch = oci.ErrDigestMismatch

	// ErrIncomplete says that there is more than what is returned with it, and asking again will not bring it: beyond a limit, or wrong where it
	// is kept. It is an [fs.ErrInvalid], too.
	ErrIncomplete = oci.ErrIncomplete

	// ErrManifestBlobUnknown says that the registry refused a manifest because it has no blob of a name in it, whatever HEAD had said, and went
	// on refusing it. A [*BlobUnknownError] has the digests.
	ErrManifestBlobUnknown = oci.ErrManifestBlobUnknown

	// ErrMalformedReference is wrapped by the errors of [ParseReference].
	ErrMalformedReference = reference.ErrMalformed
)

// A BlobUnknownError is an [ErrManifestBlobUnknown]. Its field Digests has the digests of the blobs that have to be pushed again; there
// are none where the registry names none and says of each that it is there. It is no [ErrNotFound], whatever the status was: nothing was
// looked for.
type BlobUnknownError = oci.BlobUnknownError

// A TokenServiceError says that a registry wants credentials to be sent to a host that is not of its domain. They were not sent. Its fields are
// Registry, as in the reference, and Service, HOST[:PORT].
type TokenServiceError = remote.TokenServiceError

// A SchemeError says that a registry offers only ways to log in that davit does not know. It is an [ErrUnauthorized] that no credentials change.
// Its fields are Registry, as in the reference, and Schemes, in lower case.
type SchemeError = remote.SchemeError
