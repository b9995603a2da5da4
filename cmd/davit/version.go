package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func newVersion(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Say which davit this is",
		Args:              exactArgs(),
		PersistentPreRunE: noConfig,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runVersion(cmd.OutOrStdout(), g)
		},
	}
}

type versionReport struct {
	report
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Time     string `json:"time,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func runVersion(stdout io.Writer, g *globals) error {
	r := versionReport{
		report:   newReport("davit version"),
		Version:  "devel",
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			r.Version = v
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				r.Commit = s.Value
			case "vcs.modified":
				r.Modified = s.Value == "true"
			case "vcs.time":
				r.Time = s.Value
			}
		}
	}
	if g.json {
		return writeJSON(stdout, r)
	}
	fmt.Fprintf(stdout, "davit %s", r.Version)
	if r.Commit != "" {
		fmt.Fprintf(stdout, " (%.12s)", r.Commit)
	}
	_, err := fmt.Fprintf(stdout, " %s %s\n", r.Go, r.Platform)
	return err
}
