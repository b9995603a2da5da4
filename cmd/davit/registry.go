package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/davit-oci/davit/internal/own"
	"github.com/olareg/olareg"
	olaregconfig "github.com/olareg/olareg/config"
	"github.com/spf13/cobra"
)

func newRegistry(g *globals) *cobra.Command {
	return newGroup("registry", "A small registry for trying things out", newRegistryServe(g))
}

type registryServeOptions struct {
	*globals
	listen string
	dir    string
}

func newRegistryServe(g *globals) *cobra.Command {
	o := registryServeOptions{globals: g}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a registry on this machine, in memory or in a folder",
		Long: `Run a registry on this machine until it is stopped.

It keeps everything in memory, or in a folder with --dir. It speaks plain http
and knows no users: leave it on the loopback address, or behind something that
does. Web pages are refused: requests with an Origin, and, on the loopback
address, for another host than localhost, 127.0.0.1, [::1] or that of --listen.
The first line on stdout is its address; port 0 takes any free port.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runRegistryServe(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.listen, "listen", "127.0.0.1:5000", "`HOST:PORT` to listen at")
	cmd.Flags().StringVar(&o.dir, "dir", "", "keep everything in `DIR`")
	return cmd
}

// How long a stopping server waits for the requests that it is answering.
const shutdownTimeout = 5 * time.Second

// runRegistryServe writes to stdout at once: who started it waits for the address.
func runRegistryServe(ctx context.Context, o registryServeOptions) error {
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return usagef("--listen %s: not HOST:PORT", o.listen)
	}
	conf := olaregconfig.Config{Storage: olaregconfig.ConfigStorage{StoreType: olaregconfig.StoreMem}}
	// olareg takes the layout file away from a repository that has blobs and
	// no manifest yet, and then does not find the blobs: a push that goes on
	// after a restart would have to send them again.
	keep := false
	conf.Storage.GC.EmptyRepo = &keep
	if o.dir != "" {
		dir, err := own.MkdirAll(o.dir, 0o777)
		if err == nil {
			dir, err = filepath.Abs(dir)
		}
		if err != nil {
			return err
		}
		conf.Storage.StoreType, conf.Storage.RootDir = olaregconfig.StoreDir, dir
	}
	if o.verbose {
		conf.Log = slog.New(slog.NewTextHandler(o.stderr, nil))
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	address := listener.Addr().(*net.TCPAddr)
	if !address.IP.IsLoopback() {
		o.stderr.warn("%s is not a loopback address: whoever reaches it can write to this registry", address)
	}
	registry := olareg.New(conf)
	handler := oneManifestAtATime(anyManifestType(registry))
	if o.dir != "" {
		handler = withoutForeignLinks(conf.Storage.RootDir, handler)
	}
	server := &http.Server{
		Handler:           fromPrograms(o.listen, address.AddrPort().Addr().Unmap(), handler),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}

	url := "http://" + servedAt(o.listen, address)
	if o.json {
		err = writeJSON(o.stdout, struct {
			report
			URL string `json:"url"`
		}{newReport("davit registry serve"), url})
	} else {
		_, err = fmt.Fprintln(o.stdout, url)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing the result: %w", err), listener.Close(), registry.Close())
	}

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err = <-served:
	case <-ctx.Done():
		err = context.Cause(ctx)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
		<-served //nolint:errcheck // it was closed
	}
	return errors.Join(err, registry.Close())
}

// servedAt returns the address as a client on this machine writes it.
func servedAt(listen string, address *net.TCPAddr) string {
	host, _, _ := net.SplitHostPort(listen)
	if host == "" || address.IP.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, fmt.Sprint(address.Port))
}

// oneManifestAtATime serializes what changes lists of referrers: olareg 0.1.2
// loses entries that are pushed at the same moment.
func oneManifestAtATime(h http.Handler) http.Handler {
	var mu sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			mu.Lock()
			defer mu.Unlock()
		}
		h.ServeHTTP(w, r)
	})
}

// anyManifestType answers who takes a manifest of any type, as curl does: olareg
// 0.1.2 finds only what is named.
func anyManifestType(h http.Handler) http.Handler {
	all := []string{"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
		"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accept := strings.Join(r.Header.Values("Accept"), ",")
		if strings.Contains(r.URL.Path, "/manifests/") && (accept == "" || strings.Contains(accept, "*/*") || strings.Contains(accept, "application/*")) {
			r.Header["Accept"] = all
		}
		h.ServeHTTP(w, r)
	})
}

// withoutForeignLinks refuses requests to repositories that another user's
// symbolic link leads to, or out of: olareg writes by way of any link, and
// removes what is no longer needed when it is only read.
func withoutForeignLinks(dir string, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		repository, _ := strings.CutPrefix(r.URL.Path, "/v2/")
		for _, name := range []string{repository, r.URL.Query().Get("from")} {
			if err := checkRepositoryLinks(dir, name); err != nil {
				refuse(w, http.StatusForbidden, "%v", err)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// checkRepositoryLinks looks at the folders on the way to name, which goes on
// behind the repository's, and at what olareg has in each.
func checkRepositoryLinks(dir, name string) error {
	for elem := range strings.SplitSeq(name, "/") {
		if elem == "" || elem == "." || elem == ".." || !filepath.IsLocal(elem) { // in no repository's name
			return nil
		}
		dir = filepath.Join(dir, elem)
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, inside := range []string{"", "oci-layout", "index.json", "_uploads", "blobs", "blobs/sha256", "blobs/sha512"} {
			if _, err := own.Resolve(filepath.Join(dir, inside)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}
