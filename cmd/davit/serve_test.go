package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program starts davit and returns it with its stdout.
func program(t *testing.T, stdin io.Reader, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "davit", args...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "XDG_CACHE_HOME=", "XDG_CONFIG_HOME=", "DAVIT_CACHE=", "DAVIT_CONFIG=")
	cmd.Stdin = stdin
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, bufio.NewReader(stdout)
}

// wantExit waits for the program.
func wantExit(t *testing.T, cmd *exec.Cmd, want int) {
	t.Helper()
	err := cmd.Wait()
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if code != want {
		t.Errorf("exit code %d, want %d", code, want)
	}
}

func TestRegistryServe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by serve")
	for _, test := range []struct {
		signal os.Signal
		code   int
	}{{syscall.SIGTERM, 143}, {os.Interrupt, 130}} {
		cmd, stdout := program(t, nil, "registry", "serve", "--listen", "127.0.0.1:0", "--dir", dir)
		line, err := stdout.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		url := strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(url, "http://127.0.0.1:") {
			t.Fatalf("first line %q", line)
		}

		// What the first has taken the second has, though no manifest names it yet.
		blob := url + "/v2/vm/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
		if test.signal == syscall.SIGTERM {
			resp, err := http.Post(url+"/v2/vm/blobs/uploads/?digest="+blob[strings.LastIndex(blob, "/")+1:], "application/octet-stream", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusCreated {
				t.Fatalf("uploading a blob: %s", resp.Status)
			}
		}
		resp, err := http.Get(blob)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("fetching the blob: %s", resp.Status)
		}

		if err := cmd.Process.Signal(test.signal); err != nil {
			t.Fatal(err)
		}
		if rest, _ := io.ReadAll(stdout); len(rest) > 0 {
			t.Errorf("more than one line on stdout: %q", rest)
		}
		wantExit(t, cmd, test.code)
	}
}

func TestRegistryServeErrors(t *testing.T) {
	cmd, _ := program(t, nil, "registry", "serve", "--listen", "nonsense")
	wantExit(t, cmd, exitUsage)
	cmd, _ = program(t, nil, "registry", "serve", "--listen", "192.0.2.1:0")
	wantExit(t, cmd, exitFailed)
}

// A signal ends what waits for its input, and nothing is left.
func TestInterrupted(t *testing.T) {
	for _, test := range []struct {
		signal os.Signal
		code   int
	}{{os.Interrupt, 130}, {syscall.SIGTERM, 143}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		dir := t.TempDir()
		dest := filepath.Join(dir, "x.raw")
		cmd, _ := program(t, r, "convert", "--cache", filepath.Join(dir, "cache"), "-", dest)
		r.Close()
		if _, err := w.Write(make([]byte, 32<<10)); err != nil {
			t.Fatal(err)
		}
		// The scratch file says that it has begun to read.
		scratch := filepath.Join(dir, "cache", "scratch", "*", "spooled-*")
		for deadline := time.Now().Add(30 * time.Second); ; {
			if found, _ := filepath.Glob(scratch); len(found) > 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatal("nothing was read")
			}
			time.Sleep(10 * time.Millisecond) //nolint:forbidigo // another process
		}
		if err := cmd.Process.Signal(test.signal); err != nil {
			t.Fatal(err)
		}
		wantExit(t, cmd, test.code)
		if found, _ := filepath.Glob(scratch); len(found) > 0 {
			t.Errorf("left behind: %v", found)
		}
		if _, err := os.Stat(dest); err == nil {
			t.Error("the interrupted file has its name")
		}
	}
}

// A web page in a browser on this machine can reach what listens on loopback.
func TestRegistryServeRefusesWebPages(t *testing.T) {
	serve := func(listen string) string {
		cmd, stdout := program(t, nil, "registry", "serve", "--listen", listen)
		t.Cleanup(func() {
			cmd.Process.Signal(os.Interrupt)
			cmd.Wait()
		})
		line, err := stdout.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSuffix(line, "\n")
	}
	local, public := serve("127.0.0.1:0"), serve("0.0.0.0:0")
	port := local[strings.LastIndex(local, ":"):]
	const body = "pushed by a page"
	push := "/v2/vm/blobs/uploads/?digest=sha256:" + fmt.Sprintf("%x", sha256.Sum256([]byte(body)))
	for _, test := range []struct {
		name   string
		url    string
		host   string
		header string // NAME: VALUE
		want   int
	}{
		{"a program", local, "", "", 201},
		{"localhost", local, "localhost" + port, "", 201},
		{"LOCALHOST. and another port", local, "LOCALHOST.:80", "", 201},
		{"without a port", local, "127.0.0.1", "", 201},
		{"another address of loopback", local, "127.9.9.9" + port, "", 201},
		{"IPv6", local, "[::1]" + port, "", 201},
		{"a name below localhost", local, "registry.localhost" + port, "", 201},
		{"a name that was moved here", local, "attacker.example.com" + port, "", 421},
		{"a name that looks like localhost", local, "localhost.example.com" + port, "", 421},
		{"a name that looks like an address", local, "127.0.0.1.example.com" + port, "", 421},
		{"another address", local, "192.0.2.1" + port, "", 421},
		{"any address", local, "0.0.0.0" + port, "", 421},
		{"an origin", local, "", "Origin: https://attacker.example.com", 403},
		{"no origin at all", local, "", "Origin: null", 403},
		{"its own origin", local, "", "Origin: " + local, 403},
		{"a form", local, "", "Sec-Fetch-Site: cross-site", 403},
		{"a sibling", local, "", "Sec-Fetch-Site: same-site", 403},
		{"typed by a person", local, "", "Sec-Fetch-Site: none", 201},
		{"a public address, by name", public, "build7.example.com", "", 201},
		{"a public address, from a page", public, "build7.example.com", "Origin: https://attacker.example.com", 403},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodOptions} {
				url := test.url + push
				if method != http.MethodPost {
					url = test.url + "/v2/"
				}
				req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", "application/octet-stream")
				req.Host = test.host
				if name, value, ok := strings.Cut(test.header, ": "); ok {
					req.Header.Set(name, value)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				switch {
				case test.want < 400 && method == http.MethodGet && resp.StatusCode != http.StatusOK,
					test.want < 400 && method == http.MethodPost && resp.StatusCode != test.want,
					test.want >= 400 && resp.StatusCode != test.want:
					t.Errorf("%s: %s, want %d", method, resp.Status, test.want)
				}
				for name := range resp.Header {
					if strings.HasPrefix(name, "Access-Control-") {
						t.Errorf("%s: the answer has %s", method, name)
					}
				}
			}
		})
	}
}

// curl and programs that name no type find a manifest, too.
func TestRegistryServeAnyManifestType(t *testing.T) {
	cmd, stdout := program(t, nil, "registry", "serve", "--listen", "127.0.0.1:0")
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	})
	line, err := stdout.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	url := strings.TrimSpace(line) + "/v2/vm/manifests/v1"
	const index = "application/vnd.oci.image.index.v1+json"
	status := func(method, accept, body string) int {
		t.Helper()
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", index)
		if accept != "" {
			req.Header.Set("Accept", accept)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := status(http.MethodPut, "", `{"schemaVersion":2,"mediaType":"`+index+`","manifests":[]}`); got != http.StatusCreated {
		t.Fatalf("pushing a manifest: status %d", got)
	}
	for accept, want := range map[string]int{"": 200, "*/*": 200, "text/html, */*;q=0.1": 200, index: 200, "application/vnd.oci.image.manifest.v1+json": 404} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			if got := status(method, accept, ""); got != want {
				t.Errorf("%s with Accept %q: status %d, want %d", method, accept, got, want)
			}
		}
	}
}
