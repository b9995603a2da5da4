package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
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
	_, refused := refusalCode(err)
	switch {
	case err == nil:
		return exitOK
	case isUsage(err):
		return exitUsage
	case refused: // wins over 1, and over a signal that came meanwhile
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
	return errors.As(err, &usage)
}

// A refusedError is a refusal by the command itself. Libraries have their own
// errors for it; see [refusalCode].
type refusedError struct {
	code string // for programs: "no-trust-source"
	error
}

func (e refusedError) Unwrap() error { return e.error }

// refusalCode returns the reason code of an error that means exit 3.
func refusalCode(err error) (code string, ok bool) {
	var refused refusedError
	switch {
	case errors.As(err, &refused):
		return refused.code, true
	}
	return "", false
}

// errNotFound is for what a command itself looks for and does not find: a
// disk's name in an artifact.
var errNotFound = errors.New("not found")

func isNotFound(err error) bool {
	return errors.Is(err, errNotFound)
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

func hintOf(err error) (hint string) {
	var h hintError
	for errors.As(err, &h) {
		hint, err = h.hint, h.error
	}
	return hint
}

func asError[T any](err error, target *T) bool { return errors.As(err, target) }
