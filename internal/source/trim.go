package source

import (
	"context"
	"fmt"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/disk/guest"
)

// Trim returns disks without the blocks that the guests' file systems say are
// free, and how many bytes of data that leaves out. It tells what it did to each
// partition. Errors are those of [guest.Trim], in an [Error]. The disks are valid
// as long as the images.
func Trim(ctx context.Context, images []*Image, o Options) (disks []disk.Reader, freed int64, err error) {
	for _, img := range images {
		prefix := ""
		if len(images) > 1 {
			prefix = img.Name + ": "
		}
		r, n, err := trim(ctx, img, prefix, o)
		if err != nil {
			return nil, 0, err
		}
		disks, freed = append(disks, r), freed+n
	}
	return disks, freed, nil
}

func trim(ctx context.Context, img *Image, prefix string, o Options) (_ disk.Reader, freed int64, err error) {
	r, reports, err := guest.Trim(ctx, img)
	if err != nil {
		return nil, 0, &Error{img.Path, o.BackingDir, fmt.Errorf("trimming %s: %w", img.Path, err)}
	}
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
			o.note("%s: %.1f MB of free blocks dropped", where, float64(p.Freed)/1e6)
		case p.Filesystem:
			o.note("%s: left as it is", where)
		default:
			o.note("%s: left as it is: %s", where, p.Kept)
		}
		freed += p.Freed
	}
	return r, freed, nil
}
