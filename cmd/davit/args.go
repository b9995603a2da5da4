package main

import (
	"os"
	"strings"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/registry"
	"github.com/spf13/cobra"
)

// exactArgs wants one argument for each name: exactArgs("REPO").
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef("%s is missing", names[len(args)])
		}
		if len(args) > len(names) {
			return tooMany(names, args[len(names)])
		}
		return nil
	}
}

// minArgs wants an argument for each name and takes more of the last.
func minArgs(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef("%s is missing", names[len(args)])
		}
		return nil
	}
}

func tooMany(names []string, extra string) error {
	if len(names) == 0 {
		return usagef("%q: takes no arguments", extra)
	}
	return usagef("%q: takes only %s", extra, strings.Join(names, " "))
}

// parseRef reads a REF; what is none is a usage error.
func parseRef(s string) (registry.Reference, error) {
	ref, err := registry.ParseReference(s)
	if err != nil {
		return ref, usageError{err}
	}
	return ref, nil
}

// parseRepo reads a REPO: a REF with neither tag nor digest.
func parseRepo(s string) (registry.Reference, error) {
	ref, err := parseRef(s)
	if err != nil {
		return ref, err
	}
	if ref.Tag != "" || ref.Digest != "" {
		return ref, usagef("%s: a repository is meant, without tag and digest", s)
	}
	return ref, nil
}

// An argument is a SOURCE: a file, and the name that was given to its disk.
type argument struct {
	name  string // "" if none was given
	path  string // "-" is stdin
	named bool   // the name was given
}

// parseSource reads PATH or NAME=PATH. An existing file wins over a name.
func parseSource(s string) argument {
	name, path, ok := strings.Cut(s, "=")
	if !ok || path == "" || !artifact.ValidDiskName(name) {
		return argument{path: s}
	}
	if _, err := os.Lstat(s); err == nil {
		return argument{path: s}
	}
	return argument{name, path, true}
}

// isFile says whether an argument that may be REF or SOURCE is a SOURCE: a file
// that exists, or what cannot be a reference.
func isFile(s string) bool {
	if s == "-" {
		return true
	}
	if _, err := os.Stat(s); err == nil {
		return true
	}
	if strings.HasPrefix(s, "oci:") || strings.HasPrefix(s, "oci-archive:") {
		return false
	}
	host, _, slash := strings.Cut(s, "/")
	return !slash || strings.HasPrefix(host, ".") || host != "localhost" && !strings.ContainsAny(host, ".:")
}
