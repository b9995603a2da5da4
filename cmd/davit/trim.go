package main

import (
	"context"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/source"
	"github.com/spf13/cobra"
)

// trimFlag is whether free blocks of the guest are left out.
type trimFlag struct{ trim bool }

func (t *trimFlag) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&t.trim, "trim", false, "drop the blocks that the guest's file systems say are free\n(ext2, ext3, ext4, XFS, NTFS, FAT)")
}

// apply returns what to read of images, and how many bytes of free blocks that
// leaves out.
func (t *trimFlag) apply(ctx context.Context, images []*source.Image, o source.Options) ([]disk.Reader, int64, error) {
	if t.trim {
		return source.Trim(ctx, images, o)
	}
	disks := make([]disk.Reader, len(images))
	for i, img := range images {
		disks[i] = img
	}
	return disks, 0, nil
}
