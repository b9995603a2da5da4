package main

import (
	"context"
	"fmt"
	"io"

	"github.com/davit-oci/davit/disk"
	"github.com/spf13/cobra"
)

type inspectOptions struct {
	*globals
	source sourceFlags
}

func newInspect(g *globals) *cobra.Command {
	o := inspectOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "inspect SOURCE",
		Short: "Show what is in a disk image",
		Args:  exactArgs("SOURCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runInspect(cmd.Context(), cmd.OutOrStdout(), args[0], o)
		},
	}
	o.source.flags(cmd)
	return cmd
}

type inspectReport struct {
	report
	Disks []inspectedDisk `json:"disks"`
}

type inspectedDisk struct {
	Name        string      `json:"name"`
	VirtualSize int64       `json:"virtualSize"`
	DataSize    int64       `json:"dataSize"` // not known to be zeros
	Format      disk.Format `json:"format,omitempty"`
	File        string      `json:"file,omitempty"`
}

func runInspect(ctx context.Context, stdout io.Writer, name string, o inspectOptions) error {
	return inspectFile(ctx, stdout, name, o)
}

func inspectFile(ctx context.Context, stdout io.Writer, name string, o inspectOptions) error {
	src := parseSource(name)
	if src.name == "" {
		src.name = "disk0"
	}
	img, err := o.source.open(ctx, o.globals, src)
	if err != nil {
		return err
	}
	defer img.Close()
	d := inspectedDisk{src.name, img.Size(), 0, img.Format(), src.path}
	for e, err := range disk.Extents(img) {
		if err != nil {
			return fmt.Errorf("%s: %w", src.path, err)
		}
		d.DataSize += e.Length
	}
	if o.json {
		return writeJSON(stdout, inspectReport{newReport("davit inspect"), []inspectedDisk{d}})
	}
	_, err = fmt.Fprintf(stdout, "%s: %s, %s of %s may hold data\n", printable(d.File), d.Format, humanBytes(d.DataSize), humanBytes(d.VirtualSize))
	return err
}
