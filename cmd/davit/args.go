package main

import (
	"strings"

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
