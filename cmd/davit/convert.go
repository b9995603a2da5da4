package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/internal/wholefile"
	"github.com/davit-oci/davit/machine"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/delivery"
	"github.com/spf13/cobra"
)

type convertOptions struct {
	*globals
	source sourceFlags
	deliveryFlags
	trimFlag
	bare machineFlags // the machine of a bare disk
}

func newConvert(g *globals) *cobra.Command {
	o := convertOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "convert SOURCE DEST",
		Short: "Write a disk image, or a machine, in another format",
		Long: `Write a disk image, or a machine with its disks, in another format. No registry
takes part.

SOURCE is a disk image, "-" for a raw disk on stdin, or a machine: an OVA, an OVF
or a folder with one, a VMX, a libvirt domain, a .vbox. DEST is a file, a folder,
a block device, or "-" for a raw disk on stdout.

` + targetsHelp + `

A disk image gets a machine of one CPU and 1 GiB of memory, unless flags or a
file describe another one. ` + machineFileHelp,
		Args: exactArgs("SOURCE", "DEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runConvert(cmd.Context(), cmd.OutOrStdout(), args[0], args[1], o)
		},
	}
	o.source.flags(cmd)
	o.deliveryFlags.flags(cmd)
	o.trimFlag.flags(cmd)
	o.bare.flags(cmd)
	return cmd
}

type convertReport struct {
	report
	Files   []writtenFile     `json:"files"`
	Losses  []machine.Loss    `json:"losses"`
	Trimmed int64             `json:"trimmed"`           // as that of push
	Package *appliance.Report `json:"package,omitempty"` // as that of push
	Bytes   writtenBytes      `json:"bytes"`
	Seconds float64           `json:"seconds"`
}

// A writtenFile is an entry of files[] in the JSON of convert and pull.
type writtenFile struct {
	Path   string      `json:"path"`
	Format disk.Format `json:"format"`
	Disk   string      `json:"disk"`
	Size   int64       `json:"size"` // in bytes; of a disk, virtual
}

type writtenBytes struct {
	Written int64 `json:"written"`
}

func runConvert(ctx context.Context, stdout io.Writer, from, to string, o convertOptions) (err error) {
	start := time.Now()
	src := parseSource(from)
	src.name = cmp.Or(src.name, "disk0")
	key, err := o.resolveMachine(to)
	if err != nil {
		return err
	}
	if o.bare.given() && o.target.machine == nil {
		return withHint(usagef("only a disk is written: flags describe a machine"), "-O FORMAT, one of %s", targetNames)
	}
	if err := o.bare.load(o.stderr.secrets); err != nil {
		return err
	}
	store := &lazyStore{ctx: ctx, g: o.globals}
	defer closeInto(&err, store)
	machines, err := o.openMachines(ctx, src, store.Scratch)
	if err != nil {
		return err
	}
	if machines != nil {
		defer closeInto(&err, machines)
	}
	r := convertReport{report: newReport("davit convert")}
	if o.target.machine != nil {
		err = o.convertMachine(ctx, src, machines, store.Scratch, to, key, &r)
	} else {
		err = o.convertDisk(ctx, src, machines, store.Scratch, to, &r)
	}
	if failed, ok := errors.AsType[*source.Error](err); ok {
		if err = failed; machines != nil {
			err = machines.Explain(ctx, failed)
		}
	}
	if err != nil {
		return err
	}
	if machines != nil {
		r.Package = machines.Report
	}
	r.Seconds = time.Since(start).Seconds()
	if to == "-" {
		stdout = o.stderr
	}
	if o.json {
		return writeJSON(stdout, r)
	}
	return nil
}

// convertDisk writes one disk: SOURCE, or that of the machine.
func (o *convertOptions) convertDisk(ctx context.Context, src argument, machines *source.Machines, scratch func() (string, error), to string, r *convertReport) (err error) {
	number, name := 0, src.name
	if machines != nil {
		if number, err = machines.Find(o.disk); err != nil {
			return err
		}
		name = machines.Names[number]
	}
	dest, err := o.target.resolve(to, name)
	if err != nil {
		return err
	}
	var img *source.Image
	if machines != nil {
		img, err = machines.OpenDisk(ctx, number)
	} else {
		img, err = o.source.open(ctx, o.globals, src, scratch)
	}
	if err != nil {
		return err
	}
	defer closeInto(&err, img)
	if r.Losses, err = dest.fit(img.Size(), img.SectorSize()); err != nil {
		return err
	}
	warnLosses(o.globals, dest.path, r.Losses)
	contents, trimmed, err := o.trimFlag.apply(ctx, []*source.Image{img}, o.source.options(o.globals, scratch))
	if err != nil {
		return err
	}
	content := contents[0]
	p := o.begin("converting "+filepath.Base(src.path), dataSize(content))
	defer p.end()
	err = dest.write(img.Size(), o.stdout, func(f *os.File) error {
		err := writeDisk(ctx, f, dest, content, o.globals, p)
		if err != nil || machines == nil {
			return err
		}
		return machines.Verify(ctx)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", dest.path, err)
	}
	r.Files = []writtenFile{{dest.path, dest.format, img.Name, img.Size()}}
	r.Trimmed, r.Bytes.Written = trimmed, p.done.Load()
	return nil
}

// openMachines opens a SOURCE that describes machines, nil if it is a disk.
func (o *convertOptions) openMachines(ctx context.Context, src argument, scratch func() (string, error)) (*source.Machines, error) {
	m, err := o.source.openMachines(ctx, src.path, o.source.options(o.globals, scratch))
	switch {
	case err != nil:
		return nil, err
	case m != nil && src.named:
		return nil, errors.Join(errNamed(src), m.Close())
	case m != nil && o.bare.given():
		return nil, errors.Join(errMachineGiven(src.path), m.Close())
	case m != nil:
		return m, nil
	case o.disk != "":
		return nil, usagef("--disk %s: SOURCE is one disk", o.disk)
	case o.machine != "":
		return nil, usagef("--machine %s: SOURCE describes no machine", o.machine)
	}
	return nil, nil
}

// A destination is a DEST argument that has been looked at.
type destination struct {
	path    string
	kind    destKind
	format  disk.Format
	force   bool
	adapter string // as disk.WriteOptions has it

	described bool // a description goes along, and who writes that tells what it does not say of the disk
	sector    int  // bytes of a device's sectors; 0: not known
}

type destKind int

const (
	toFile destKind = iota
	toDevice
	toStdout
	toMember // of a package; path is not that of a file, but its name's end is the member's
)

// resolve looks at DEST before any work is spent on it: what it is, which
// format it gets, and whether it may be written. In a folder the file is
// called DISK.EXT.
func (t *targetFlags) resolve(path, disk string) (destination, error) {
	d := destination{path: path, format: t.format.Format, force: t.force}
	if t.machine != nil {
		return d, withHint(usagef("-O %s: a format of machines; here disks are written", t.machine.Name), "-O FORMAT, one of %s", formatNames)
	}
	if path == "" {
		return d, usagef("DEST is empty")
	}
	if path == "-" {
		d.kind = toStdout
		return d, d.rawOnly("stdout")
	}
	real, err := wholefile.Resolve(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	info, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	switch {
	case err == nil && info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice:
		d.kind, d.path = toDevice, real
		if err := d.rawOnly("a device"); err != nil {
			return d, err
		}
		if !t.force {
			return d, fmt.Errorf("%s: a device, whose content would be lost: --force writes it", path)
		}
		d.sector = deviceSector(path)
		return d, nil
	case err == nil && info.IsDir(), strings.HasSuffix(path, "/"):
		if d.format == "" {
			return d, withHint(usagef("%s is a folder: -O is missing", path), "-O FORMAT, or a file with an extension")
		}
		name := disk + d.format.Ext()
		if !machine.IsPlainName(name) { // a device on Windows; no disk has a name that begins so
			name = "_" + name
		}
		d.path = filepath.Join(path, name)
	case d.format == "":
		if d.format, err = formatOf(path); err != nil {
			return d, err
		}
	}
	_, err = wholefile.Check(d.path, t.force)
	return d, err
}

// rawOnly settles the format of a place that takes nothing but the raw bytes.
func (d *destination) rawOnly(where string) error {
	if d.format != "" && d.format != disk.Raw {
		return usagef("-O %s: %s takes raw only", d.format, where)
	}
	d.format = disk.Raw
	return nil
}

// formatOf guesses the format of a new file.
func formatOf(path string) (disk.Format, error) {
	if format, ok := disk.FormatOf(path); ok {
		return format, nil
	}
	err := usagef("%s: the extension says no format: -O is missing", path)
	for _, t := range delivery.Targets() {
		if t.Ext == strings.ToLower(filepath.Ext(path)) && !t.Archive {
			return "", withHint(err, "-O %s, and a folder as DEST", t.Name)
		}
	}
	return "", err
}

// fit says what a disk of size bytes, in sectors of sector bytes, loses in the
// format of d, and refuses a disk that is too large for it.
func (d destination) fit(size int64, sector int) ([]machine.Loss, error) {
	got, err := d.format.DiskSize(size, sector)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path, err)
	}
	losses := []machine.Loss{}
	if got != size {
		reason := fmt.Sprintf("%s rounds it up to %d: %d zero bytes were added", d.format, got, got-size)
		losses = append(losses, machine.Loss{Field: "size", Value: fmt.Sprint(size), Reason: reason})
	}
	return append(losses, d.sectorLoss(sector)...), nil
}

// warnLosses warns of what gets lost in, or on the way to, what is named.
func warnLosses(g *globals, name string, lost []machine.Loss) {
	for _, l := range lost {
		g.stderr.warn("%s: %s", name, lossText(l))
	}
}

// write opens the destination for a disk of size bytes, and lets do fill it. A
// file appears whole or not at all.
func (d destination) write(size int64, stdout *os.File, do func(*os.File) error) error {
	switch d.kind {
	case toStdout:
		return do(stdout)
	case toDevice:
		f, err := disk.OpenDevice(d.path, size)
		if err != nil {
			return err
		}
		if err := do(f); err != nil {
			f.Close()
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	}
	return wholefile.Write(d.path, d.force, do)
}

// options are those for a disk in sectors of sector bytes.
func (d destination) options(sector int) disk.WriteOptions {
	return disk.WriteOptions{Name: filepath.Base(d.path), Adapter: d.adapter, SectorSize: sector}
}

// writeDisk writes the content of img to f, which is new or a device.
func writeDisk(ctx context.Context, f *os.File, dest destination, img disk.Reader, g *globals, p *progress) error {
	var w disk.Writer
	if dest.kind == toStdout {
		w = disk.NewStreamWriter(f, img.Size())
	} else {
		var err error
		w, err = disk.NewWriter(f, dest.format, img.Size(), disk.Extents(img), dest.options(disk.SectorSize(img)))
		if err != nil {
			return err
		}
	}
	return fillDisk(ctx, w, img, g, p)
}

// fillDisk writes the content of img to w, and closes it.
func fillDisk(ctx context.Context, w disk.Writer, img disk.Reader, g *globals, p *progress) error {
	if err := disk.Copy(ctx, w, img, disk.CopyOptions{Jobs: g.jobs, Progress: p.add}); err != nil {
		return err
	}
	return w.Close()
}

// dataSize is how many bytes of r are not known to be zeros, 0 if that cannot
// be told.
func dataSize(r disk.Reader) int64 {
	var n int64
	for e, err := range disk.Extents(r) {
		if err != nil {
			return 0
		}
		n += e.Length
	}
	return n
}
