package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/internal/space"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/delivery"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/verify"
)

// The exit codes of the contract. A panic ends with none of them.
const (
	exitOK       = 0
	exitFailed   = 1  // or cannot tell: network, I/O, a bad image
	exitUsage    = 2  // nothing was touched
	exitRefused  = 3  // not trusted, or not what a digest says
	exitNotFound = 4  // no such tag, disk, snapshot
	exitDiffers  = 5  // diff --exit-code only
	exitBug      = 70 // EX_SOFTWARE
)

// exitCode is the one way from an error to an exit code.
func exitCode(err error) int {
	var interrupt interruptError
	switch {
	case err == nil:
		return exitOK
	case isUsage(err):
		return exitUsage
	case len(refusals(err)) > 0: // wins over 1, and over a signal that came meanwhile
		return exitRefused
	case errors.As(err, &interrupt):
		return interrupt.exitCode()
	case isNotFound(err):
		return exitNotFound
	case errors.Is(err, errDiffers):
		return exitDiffers
	}
	return exitFailed
}

// errDiffers is what diff --exit-code returns; it is no failure and prints none.
var errDiffers = errors.New("differs")

// A usageError is the caller's mistake, found before anything was touched.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}

func isUsage(err error) bool {
	var usage usageError
	var disk *source.WhichDiskError
	var machine *machine.WhichError
	return errors.As(err, &usage) || errors.As(err, &disk) || errors.As(err, &machine)
}

// A refusedError is a refusal by the command itself. Libraries have their own
// errors for it; see [refusals].
type refusedError struct {
	code string // for programs: "no-trust-source"
	error
}

func (e refusedError) Unwrap() error { return e.error }

// refusals returns why an error means exit 3, nothing if it does not.
func refusals(err error) []reason {
	var (
		refused   refusedError
		untrusted *verify.UntrustedError
		malformed *artifact.RefusedError
	)
	switch {
	case errors.As(err, &untrusted):
		var reasons []reason
		for _, r := range untrusted.Reasons {
			reasons = append(reasons, reason{Code: string(r.Code), Digest: r.Digest.String(), Why: r.Why})
		}
		return reasons
	case errors.As(err, &refused):
		return []reason{{Code: refused.code, Why: err.Error()}}
	case errors.As(err, &malformed):
		code := "malformed"
		if errors.Is(malformed, verify.ErrDigestMismatch) {
			code = string(verify.DigestMismatch)
		}
		return []reason{{Code: code, Part: malformed.Part, Why: err.Error()}}
	case errors.Is(err, verify.ErrMalformedIndex):
		return []reason{{Code: "malformed", Why: err.Error()}}
	case errors.Is(err, artifact.ErrNotArtifact):
		return []reason{{Code: "not-an-artifact", Why: err.Error()}}
	case errors.Is(err, verify.ErrDigestMismatch):
		return []reason{{Code: string(verify.DigestMismatch), Why: err.Error()}}
	case errors.Is(err, appliance.ErrDigest):
		return []reason{{Code: "package-digest", Why: err.Error()}}
	}
	return nil
}

// errNotFound is for what a command itself looks for and does not find: a
// disk's name in an artifact.
var errNotFound = errors.New("not found")

func isNotFound(err error) bool {
	return errors.Is(err, errNotFound) || errors.Is(err, source.ErrNotFound) || errors.Is(err, registry.ErrNotFound) || errors.Is(err, disk.ErrUnknownSnapshot) ||
		errors.Is(err, machine.ErrNotFound) || errors.Is(err, delivery.ErrMissing)
}

// An interruptError is the cause of a context that a signal has ended.
type interruptError struct{ os.Signal }

func (e interruptError) Error() string { return "stopped by signal: " + e.Signal.String() }

func (e interruptError) exitCode() int {
	if n, ok := e.Signal.(syscall.Signal); ok {
		return 128 + int(n)
	}
	return 130
}

// A hintError is an error that its reader can mend, with the command that does.
type hintError struct {
	error
	hint string
}

func (e hintError) Unwrap() error { return e.error }

// withHint adds a command to try. The innermost hint is printed, since it knows most.
func withHint(err error, format string, args ...any) error {
	return hintError{err, fmt.Sprintf(format, args...)}
}

// messageOf is an error in words, with the flag that changes it.
func messageOf(err error) string {
	if tooLarge, ok := errors.AsType[*source.LimitError](err); ok {
		return fmt.Sprintf("%v: --max-unpacked allows %s", err, (*size)(&tooLarge.Limit))
	}
	if _, exists := errors.AsType[*wholefile.ExistsError](err); exists {
		return err.Error() + ": --force replaces it"
	}
	return err.Error()
}

// hintOf returns the hint to print after a command has failed, "" for none.
func hintOf(command string, err error) (hint string) {
	_, hopeless := errors.AsType[*registry.SchemeError](err)
	if errors.Is(err, registry.ErrUnauthorized) && command != "login" && !hopeless {
		hint = "davit login HOST"
	}
	if errors.Is(err, artifact.ErrMemory) {
		hint = "--max-memory SIZE, of more than there is now"
	}
	if errors.Is(err, space.ErrFull) {
		hint = "--cache DIR, in a file system with more space"
	}
	if foreign, ok := errors.AsType[*registry.TokenServiceError](err); ok {
		hint = fmt.Sprintf("if it is theirs, in config.yaml: registries: {%q: {tokenServices: [%q]}}", foreign.Registry, foreign.Service)
	}
	if h := hintForSource(err); h != "" {
		hint = h
	}
	var h hintError
	for errors.As(err, &h) {
		hint, err = h.hint, h.error
	}
	return hint
}

func asError[T any](err error, target *T) bool { return errors.As(err, target) }

// closeInto closes what a function has opened. Only closing writes an archive,
// so that its error counts.
func closeInto(err *error, c io.Closer) {
	if closing := c.Close(); *err == nil {
		*err = closing
	}
}
