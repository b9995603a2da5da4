// Package appliance opens and writes virtual appliances: machines with all
// their files.
//
// [Open] takes an OVA, an OVF, a folder with one, a VMX, a libvirt domain or a
// .vbox, and gives the machine, its disks ([Appliance.Disk]) and the files that
// travel with them as they are ([Appliance.Files]). Nothing is unpacked:
// members of an OVA are read in place. What was read is hashed on the way, and
// [Appliance.Verify] compares it at the end with the package's manifest.
//
// Every name in a descriptor is hostile. Files are opened in the folder of the
// descriptor and in [Options].BackingDir, nowhere else. This package does not
// read the formats of disks; its caller does.
package appliance

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/davit-oci/davit/machine"
)

var (
	// ErrNotMachine says that a file describes no machine. It may be a disk.
	ErrNotMachine = errors.New("not a machine")

	// ErrNoOVF says that a folder describes no machine. It is no disk either.
	ErrNoOVF = errors.New("not a machine: there is no .ovf in it")

	// ErrDigest says that a file is not the one that the manifest of its
	// package names, or that the manifest is not the one that was signed.
	ErrDigest = errors.New("wrong digest in the package")

	// ErrMissing says that a file that the descriptor names is not there, or
	// not where it may be opened.
	ErrMissing = errors.New("file is missing")

	// ErrHidden says that the path of a file has a part that begins with a dot,
	// and that BackingDir does not allow it.
	ErrHidden = errors.New("file is not opened")
)

// A RemoteError is an [ErrMissing] of what is no file on this host at all, but
// in a network, or in a storage pool of libvirt's.
type RemoteError struct {
	URL    string // of a pool, volume:POOL/VOLUME
	Format string // of a disk, as package disk names formats; empty: not said
}

func (e *RemoteError) Error() string {
	where := "in a network"
	if strings.HasPrefix(e.URL, "volume:") {
		where = "in a storage pool"
	}
	return fmt.Sprintf("%v: %q is %s, and not a file of this host", ErrMissing, e.URL, where)
}

func (e *RemoteError) Unwrap() error { return ErrMissing }

// remoteName is a name that no file has: package libvirt makes them.
var remoteName = regexp.MustCompile(`^(?:volume:|[A-Za-z][A-Za-z0-9+.-]+://)`)

// Options say how far [Open] may go. The zero value opens files beside the
// descriptor only, and refuses a package that is not what its manifest says.
type Options struct {
	// BackingDir is the folder in which the files of a VMX, a libvirt domain or
	// a .vbox may lie, besides the descriptor's own; none if empty. Symbolic
	// links must not lead out. OVFs have all files in their folder.
	//
	// A file whose path below the descriptor's folder has a part that begins with
	// a dot is opened if it lies in BackingDir, also that of an OVF.
	BackingDir string

	// Unverified accepts a package whose manifest or certificate is wrong:
	// [Report].Wrong says what is.
	Unverified bool

	// DescriptorOnly opens no file that the descriptor names, so that there
	// need be none. Disk, Files and Verify fail.
	DescriptorOnly bool
}

// Kind is what an appliance was described by.
type Kind string

// The kinds of appliances.
const (
	OVA        Kind = "ova"
	OVF        Kind = "ovf"
	VMX        Kind = "vmx"
	Libvirt    Kind = "libvirt"
	VirtualBox Kind = "vbox"
)

// A Section is the content of a file. ReadAt is safe for concurrent use, until
// the appliance is closed. Packages disk and io have functions for it.
type Section interface {
	io.ReaderAt
	Size() int64
}

// An Appliance is machines with their files. Its methods are safe for
// concurrent use, but for Close.
type Appliance struct {
	Kind Kind

	// Envelope is what the descriptor says, without the CD images and firmware
	// variables that are not there: those are in Unread.
	*machine.Envelope

	// Descriptor is the file that describes the machines: the .ovf, the .vmx.
	Descriptor File

	// OVF is the source's own OVF; nil: Kind is neither OVA nor OVF.
	OVF []byte

	options  Options
	warnings []string
	source   *fileSection // the file that was opened
	archive  []member     // of an OVA, in its order
	report   Report       // as far as it is known
	wrong    []error
	files    []File
	signing  []File // manifest and certificate

	certificate string // File.Name; empty: there is none

	// Of a package with an OVF.
	lookup  func(name string) (Section, error) // opens a file, or is fs.ErrNotExist
	similar func(name string) []string         // files whose names differ from it in case alone
	folder  string                             // of an archive, in which the OVF lies, with a slash; or empty
	onHost  bool                               // the files are of the host, not of an archive
	members map[string]Section                 // those that were opened, by name
	listed  []*listed                          // in the manifest's order
	hashing *hashing
	chunks  map[string]*parts // files that were cut, by File.Name

	paths map[string]located // of another appliance, by File.Name

	mu      sync.Mutex
	closers []func() error
}

// A Source is where the content of a disk is: nowhere, in a Section, or in the
// file at Path.
type Source struct {
	// Name is that of the file in the package, or of the first of its parts.
	// Empty: the disk is blank, it has a capacity and all of it is zero.
	Name string

	// Format is that of the file, as package disk names formats; empty: the
	// descriptor does not say, and the content does.
	Format string

	// Section is the file, for disk.OpenReader. It is hashed as it is read, for
	// [Appliance.Verify]. Nil: it is a file of its own at Path.
	Section Section

	// Compression is what Section is compressed by as a whole. Then it
	// is for disk.NewDecompressor, and what comes out of it, of no more than
	// Limit bytes, is the file. Empty: it is not compressed.
	Compression string
	Limit       int64

	// Path is for disk.Open, and lies in the descriptor's folder or in
	// Options.BackingDir. It may name further files, which may lie in BackingDir;
	// Hidden is for those as well.
	Path       string
	BackingDir string
	Hidden     bool
}

// Role is what a file is in its package.
type Role string

// The roles of files.
const (
	RoleDescriptor  Role = "descriptor"
	RoleDisk        Role = "disk"
	RoleFile        Role = "file" // anything that was referred to
	RoleCD          Role = "cd"   // the image of a CD
	RoleNVRAM       Role = "nvram"
	RoleManifest    Role = "manifest"
	RoleCertificate Role = "certificate"
)

// A File is a file of the package. Its Content is hashed as it is read, for
// [Appliance.Verify].
type File struct {
	Name    string // relative, with slashes, the same on every system
	Role    Role
	Content Section
}

// A Report is how a package compares with its manifest and certificate.
type Report struct {
	Manifest    string       `json:"manifest"`   // File.Name; empty: the package has none, nothing was compared
	Algorithms  []string     `json:"algorithms"` // of the manifest: SHA1, SHA256, SHA512
	Files       []FileReport `json:"files"`      // in the manifest's order
	Unlisted    []string     `json:"unlisted"`   // files of the package that the manifest does not name
	Certificate *Certificate `json:"certificate,omitempty"`
	Wrong       []string     `json:"wrong"` // why the package is refused; empty: it is whole
}

// A FileReport is how a file compares with its line in the manifest.
type FileReport struct {
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	OK        bool   `json:"ok"`
	Want      string `json:"want"` // hex, lower case
	Got       string `json:"got"`  // empty: there is no such file
}

// A Certificate is whoever signed the manifest. That the signature holds says
// that the package is theirs; Chain says who vouches for the name.
type Certificate struct {
	Name       string    `json:"name"` // File.Name
	Subject    string    `json:"subject"`
	Issuer     string    `json:"issuer"`
	NotBefore  time.Time `json:"notBefore"`
	NotAfter   time.Time `json:"notAfter"`
	SelfSigned bool      `json:"selfSigned"`
	Algorithm  string    `json:"algorithm"`     // SHA256
	SignedOK   bool      `json:"signedOk"`      // the signature is the leaf's, over the manifest
	Trusted    bool      `json:"trusted"`       // the chain ends at a root of this system, and is valid now
	Chain      string    `json:"chain"`         // "trusted", or "untrusted: " and why
	CMS        bool      `json:"cms,omitempty"` // there is a second signature, as CMS, which was not checked
}
