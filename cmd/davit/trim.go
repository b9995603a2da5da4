package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/guest"
	"github.com/spf13/cobra"
)

// trimFlag is whether free blocks of the guest are left out.
type trimFlag struct{ trim bool }

func (t *trimFlag) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&t.trim, "trim", false, "drop the blocks that the guest's file systems say are free\n(ext2, ext3, ext4, XFS, NTFS, FAT)")
}

// apply returns what to read of an image, and how many bytes of free blocks
// that leaves out. It says what it did to each partition, after prefix.
func (t *trimFlag) apply(ctx context.Context, g *globals, img *image, prefix string) (disk.Reader, int64, error) {
	if !t.trim {
		return img, 0, nil
	}
	r, reports, err := guest.Trim(ctx, img)
	if err != nil {
		err = fmt.Errorf("trimming %s: %w", img.path, err)
		if errors.Is(err, guest.ErrNotClean) {
			err = withHint(err, "shut the guest down cleanly or check its file system (fsck, chkdsk), or leave out --trim")
		}
		return nil, 0, err
	}
	var freed int64
	for _, p := range reports {
		where := prefix + "whole disk"
		if p.Number > 0 {
			where = fmt.Sprintf("%spartition %d", prefix, p.Number)
		}
		if p.Filesystem != "" {
			where += " (" + p.Filesystem + ")"
		}
		switch p.Kept {
		case "":
			g.say("%s: %.1f MB of free blocks dropped", where, float64(p.Freed)/1e6)
		case p.Filesystem:
			g.say("%s: left as it is", where)
		default:
			g.say("%s: left as it is: %s", where, p.Kept)
		}
		freed += p.Freed
	}
	return r, freed, nil
}

// applyAll is apply for several images.
func (t *trimFlag) applyAll(ctx context.Context, g *globals, images []*image) (disks []disk.Reader, freed int64, err error) {
	for _, img := range images {
		prefix := ""
		if len(images) > 1 {
			prefix = img.name + ": "
		}
		r, n, err := t.apply(ctx, g, img, prefix)
		if err != nil {
			return nil, 0, err
		}
		disks, freed = append(disks, r), freed+n
	}
	return disks, freed, nil
}
