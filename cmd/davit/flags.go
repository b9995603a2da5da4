package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/disk"
	"github.com/davit-oci/davit/internal/own"
	"github.com/davit-oci/davit/internal/source"
	"github.com/davit-oci/davit/machine/appliance"
	"github.com/davit-oci/davit/machine/delivery"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/store"
	"github.com/spf13/cobra"
)

// globals is what every command has: the global flags, the configuration, and
// the three files of the process.
type globals struct {
	json      bool
	quiet     bool
	verbose   bool
	progress  string // auto, tty, plain, json, none; after load never auto
	jobs      int
	maxMemory size
	cache     string // as store.Open takes it

	tables *artifact.Memory // a quarter of maxMemory, for all artifacts that are open

	system     string // /etc/davit
	configFile string // --config
	config     config // what the files say, the user's over the system's

	stdin  *os.File
	stdout *os.File // only for streams and servers: results go to the writer that runX gets
	stderr *console
}

func (g *globals) flags(root *cobra.Command) {
	f := root.PersistentFlags()
	f.BoolVar(&g.json, "json", false, "print one JSON object")
	f.BoolVarP(&g.quiet, "quiet", "q", false, "no progress, only warnings and errors")
	f.BoolVarP(&g.verbose, "verbose", "v", false, "say more")
	f.StringVar(&g.progress, "progress", "auto", "`HOW` to show progress: auto, tty, plain, json, none")
	f.IntVar(&g.jobs, "jobs", 8, "`N` transfers at once")
	g.maxMemory = 256 << 20
	f.Var(&g.maxMemory, "max-memory", "stay below `SIZE`")
	f.StringVar(&g.cache, "cache", "", "`DIR` of the local store, or none (default: the user's cache folder)")
	f.StringVar(&g.configFile, "config", "", "configuration `FILE` (default: $XDG_CONFIG_HOME/davit/config.yaml)")
}

// The share of --max-memory that Go's heap may have. The rest is for what the
// runtime does not count: the binary's pages, stacks in system calls, buffers
// of the kernel on our behalf.
const memoryPercent = 85

// load completes the global settings: flag over environment over the user's
// file over the system's.
func (g *globals) load(cmd *cobra.Command) error {
	given := cmd.Flags().Changed
	switch g.progress {
	case "auto", "tty", "plain", "json", "none":
	default:
		return usagef("--progress %s: not one of auto, tty, plain, json, none", g.progress)
	}
	if g.jobs < 1 {
		return usagef("--jobs %d: not at least 1", g.jobs)
	}
	if given("cache") && g.cache == "" {
		return usagef(`--cache: no folder given ("none" for no cache)`)
	}

	err := g.loadConfig()
	if err != nil {
		return err
	}
	if !given("jobs") && g.config.Jobs > 0 {
		g.jobs = g.config.Jobs
	}
	if !given("max-memory") && g.config.MaxMemory > 0 {
		g.maxMemory = g.config.MaxMemory
	}
	g.tables = artifact.NewMemory(int64(g.maxMemory) / 4)
	debug.SetMemoryLimit(int64(g.maxMemory) / 100 * memoryPercent)
	if g.cache == "" && os.Getenv("DAVIT_CACHE") == "" {
		g.cache = g.config.Cache
	}
	g.progress = progressMode(g.progress, g.quiet, g.stderr)
	return nil
}

// store opens the local store. The caller closes it.
func (g *globals) store(ctx context.Context) (*store.Store, error) {
	store, err := store.Open(ctx, g.cache)
	if foreign := (*own.Error)(nil); errors.As(err, &foreign) {
		return nil, withHint(fmt.Errorf("%w: what a store says is believed, so this one is not used", err), "--cache DIR, a folder that only you can write to, or --cache none")
	}
	return store, err
}

// openOptions are those of every artifact that is opened.
func (g *globals) openOptions(scratch string) artifact.OpenOptions {
	return artifact.OpenOptions{Scratch: scratch, Jobs: g.jobs, Memory: g.tables}
}

// A size is a number of bytes, written with K, M, G or T of 1024.
type size int64

func parseSize(s string) (size, error) {
	digits, shift := s, 0
	if s != "" {
		if i := strings.IndexByte("KMGT", s[len(s)-1]&^0x20); i >= 0 {
			digits, shift = s[:len(s)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n == 0 || n > math.MaxInt64>>shift {
		return 0, fmt.Errorf("%q is no size: a number with K, M, G or T", s)
	}
	return size(n << shift), nil
}

func (s *size) Set(text string) (err error) { *s, err = parseSize(text); return err }
func (s *size) Type() string                { return "SIZE" }

func (s *size) UnmarshalText(text []byte) error { return s.Set(string(text)) }

func (s *size) String() string {
	for i, unit := range []string{"T", "G", "M", "K"} {
		if shift := 40 - 10*i; *s != 0 && *s&(1<<shift-1) == 0 {
			return strconv.FormatInt(int64(*s)>>shift, 10) + unit
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

// registryFlags is how registries are reached.
type registryFlags struct {
	plainHTTP hosts
	insecure  hosts
	caFile    string
	authFile  string
}

func (r *registryFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Var(&r.plainHTTP, "plain-http", "speak http, not https, to `HOST`")
	f.Var(&r.insecure, "insecure", "do not check the TLS certificate of `HOST`")
	f.Lookup("plain-http").NoOptDefVal = allHosts
	f.Lookup("insecure").NoOptDefVal = allHosts
	f.StringVar(&r.caFile, "ca-file", "", "trust the TLS authorities in `FILE` as well")
	f.StringVar(&r.authFile, "auth-file", "", "credentials `FILE` (default: as docker and podman)")
}

// allHosts is the value of --plain-http and --insecure without a value.
const allHosts = "*"

// hosts is a set of registries that a flag was given for.
type hosts []string

func (h *hosts) Set(host string) error {
	if host == "" {
		return errors.New(`no host after "="`)
	}
	*h = append(*h, host)
	return nil
}

func (h *hosts) Type() string   { return "HOST" }
func (h *hosts) String() string { return strings.Join(*h, ",") }

func (r *registryFlags) options(g *globals) registry.Options {
	o := registry.Options{
		PlainHTTP: r.plainHTTP,
		Insecure:  r.insecure,
		CAFile:    r.caFile,
		AuthFile:  r.authFile,
		OnLogin:   g.stderr.secrets.KnowLogin,
		Jobs:      g.jobs,
		Hosts:     make(map[string]registry.HostOptions),
	}
	for host, c := range g.config.Registries {
		o.Hosts[host] = registry.HostOptions{
			PlainHTTP:  c.PlainHTTP != nil && *c.PlainHTTP,
			CAFile:     c.CAFile,
			ClientCert: c.ClientCert,
			Mirrors:    c.Mirrors,

			TokenServices: c.TokenServices,
		}
	}
	return o
}

// open prepares access to the repository of ref. The caller closes it.
func (r *registryFlags) open(ctx context.Context, g *globals, ref registry.Reference) (*registry.Repository, error) {
	return registry.Open(ctx, ref, r.options(g))
}

// sourceFlags is how image files are read.
type sourceFlags struct {
	format      formatValue
	backingDir  string
	snapshot    string
	maxUnpacked size
}

func (s *sourceFlags) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.VarP(&s.format, "source-format", "f", "`FORMAT` of the source (default: by its content; raw ends guessing)")
	f.StringVar(&s.backingDir, "backing-dir", "", "`DIR` that backing files, parents and extents may lie in (default: none is opened,\nbut the extents beside a descriptor named .vmdk)")
	f.StringVar(&s.snapshot, "snapshot", "", "read the internal snapshot `NAME`")
	s.maxUnpacked = source.DefaultMaxUnpacked
	f.Var(&s.maxUnpacked, "max-unpacked", "unpack no compressed source that is larger than `SIZE`")
}

// options are those of a source that is opened with scratch space of store.
func (s *sourceFlags) options(g *globals, scratch func() (string, error)) source.Options {
	return source.Options{
		Format: s.format.Format, BackingDir: s.backingDir, Snapshot: s.snapshot, MaxUnpacked: int64(s.maxUnpacked),
		Stdin: g.stdin, Scratch: scratch, Observer: observer{g},
	}
}

// open opens a SOURCE that is a disk.
func (s *sourceFlags) open(ctx context.Context, g *globals, arg argument, scratch func() (string, error)) (*source.Image, error) {
	if arg.path == "-" && s.format.Format != "" && s.format.Format != disk.Raw {
		return nil, usagef("-f %s: what comes from stdin is a raw disk", s.format.Format)
	}
	return source.Open(ctx, arg.name, arg.path, s.options(g, scratch))
}

// openMachines opens a SOURCE that describes machines, nil if it is a disk. What
// -f says the format of is a disk.
func (s *sourceFlags) openMachines(ctx context.Context, path string, o source.Options) (*source.Machines, error) {
	if s.format.Format != "" || path == "-" {
		return nil, nil
	}
	m, err := source.OpenMachines(ctx, path, o)
	if errors.Is(err, appliance.ErrNotMachine) {
		return nil, nil
	}
	if err == nil && s.snapshot != "" {
		return nil, errors.Join(usagef("--snapshot: %s is no disk", path), m.Close())
	}
	return m, err
}

// A lazyStore opens the local store when somebody wants scratch space of it.
type lazyStore struct {
	ctx  context.Context
	g    *globals
	open *store.Store
}

func (l *lazyStore) Scratch() (string, error) {
	if l.open == nil {
		store, err := l.g.store(l.ctx)
		if err != nil {
			return "", err
		}
		l.open = store
	}
	dir, _, err := l.open.Scratch()
	return dir, err
}

func (l *lazyStore) Close() error {
	if l.open == nil {
		return nil
	}
	return l.open.Close()
}

// formatNames are the formats that are written. For reading, their variants are
// one.
const formatNames = "raw, qcow2[:zlib|:zstd], vmdk[:sparse|:stream], vdi, vhd[:dynamic|:fixed], vhdx"

// targetFlags is what is written where.
type targetFlags struct {
	format  formatValue
	machine *delivery.Target // -O names one of these, and no format of disks
	force   bool
}

// flags adds the flags of a command that writes the formats of the given names.
func (t *targetFlags) flags(cmd *cobra.Command, names string) {
	f := cmd.Flags()
	f.VarP((*targetValue)(t), "target-format", "O", "`FORMAT` to write:\n"+names+"\n(default: the extension of DEST; devices and -: raw)")
	f.BoolVar(&t.force, "force", false, "replace an existing file; needed for a device")
}

// A formatValue is a flag for a format of disk images; empty: not given.
type formatValue struct{ disk.Format }

func (v *formatValue) Set(s string) (err error) {
	v.Format, err = disk.ParseFormat(s)
	return err
}

func (v *formatValue) Type() string   { return "FORMAT" }
func (v *formatValue) String() string { return string(v.Format) }

// A targetValue is the flag -O: a format of disks, or a target for machines.
type targetValue targetFlags

func (v *targetValue) Set(s string) error {
	if v.machine = delivery.Find(s); v.machine != nil {
		v.format = formatValue{}
		return nil
	}
	return v.format.Set(s)
}

func (v *targetValue) Type() string { return "FORMAT" }

func (v *targetValue) String() string {
	if v.machine != nil {
		return v.machine.Name
	}
	return v.format.String()
}
