package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/internal/programs"
	"github.com/davit-oci/davit/registry"
	"github.com/davit-oci/davit/sign"
	"github.com/olareg/olareg"
	olaregconfig "github.com/olareg/olareg/config"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"davit": main,
		// The same on a host whose /etc/davit is $ETC.
		"davit-on-host": func() { os.Exit(run(os.Getenv("ETC"), os.Args[1:])) }, //nolint:forbidigo // this is a main
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("HOME", home)
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
			e.Setenv("XDG_CACHE_HOME", filepath.Join(home, ".cache"))
			e.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "run"))
			e.Setenv("NO_PROXY", "127.0.0.1")
			e.Values[testKey{}] = e.T()
			return os.Mkdir(home, 0o700)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"need":     cmdNeed,
			"exits":    cmdExits,
			"disk":     cmdDisk,
			"gpt":      cmdGPT,
			"mbr":      cmdMBR,
			"sectors":  cmdSectors,
			"mark":     cmdMark,
			"image":    cmdImage,
			"index":    cmdIndex,
			"key":      cmdKey,
			"registry": cmdRegistry,
			"mode":     cmdMode,
			"json":     cmdJSON,
			"field":    cmdField,
			"flip":     cmdFlip,
		},
	})
}

type testKey struct{} // of the test that a script is

// need PROGRAM...: or the script is skipped, and says what would run it.
func cmdNeed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: need PROGRAM...")
	}
	for _, name := range args {
		dir := filepath.Dir(programs.Need(ts.Value(testKey{}).(testing.TB), name))
		if path := ts.Getenv("PATH"); !slices.Contains(filepath.SplitList(path), dir) {
			ts.Setenv("PATH", path+string(filepath.ListSeparator)+dir)
		}
	}
}

// exits CODE PROGRAM ARG...: the program ends with that exit code, and without
// the words of a panic.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		code = exit.ExitCode()
	}
	stderr := ts.ReadFile("stderr")
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
	if strings.Contains(stderr, "goroutine ") {
		ts.Fatalf("a panic")
	}
	if failed := code != 0 && code != exitDiffers; failed != strings.Contains(stderr, "davit: error: ") {
		ts.Fatalf("exit code %d, and an error on stderr: %t", code, !failed)
	}
	if strings.Count(stderr, "\nhint: ") > 1 {
		ts.Fatalf("more than one hint")
	}
}

// disk FILE SIZE [SEED]: a raw disk with a few ranges of random bytes.
func cmdDisk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: disk FILE SIZE [SEED]")
	}
	size, err := parseSize(args[1])
	ts.Check(err)
	seed := uint64(1)
	if len(args) > 2 {
		seed, err = strconv.ParseUint(args[2], 10, 64)
		ts.Check(err)
	}
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	ts.Check(f.Truncate(int64(size)))
	random := rand.New(rand.NewPCG(seed, 0))
	for range 8 {
		p := make([]byte, min(int64(size), 1+random.Int64N(200_000)))
		for i := range p {
			p[i] = byte(random.Uint32())
		}
		_, err := f.WriteAt(p, random.Int64N(int64(size)-int64(len(p))+1))
		ts.Check(err)
	}
}

// mark KIND FILE: writes into a file what makes it the image of a CD, or the
// variables of a firmware.
func cmdMark(ts *testscript.TestScript, neg bool, args []string) {
	marks := map[string]struct {
		offset int64
		text   string
	}{"cd": {16 * 2048, "\x01CD001\x01"}, "nvram": {0, "MRVN"}}
	if neg || len(args) != 2 || marks[args[0]].text == "" {
		ts.Fatalf("usage: mark cd|nvram FILE")
	}
	f, err := os.OpenFile(ts.MkAbs(args[1]), os.O_RDWR|os.O_CREATE, 0o600)
	ts.Check(err)
	defer f.Close()
	_, err = f.WriteAt([]byte(marks[args[0]].text), marks[args[0]].offset)
	ts.Check(err)
}

// registry [USER:PASSWORD]: an empty registry at $REG, gone with the script.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 1 {
		ts.Fatalf("usage: registry [USER:PASSWORD]")
	}
	o := olareg.New(olaregconfig.Config{Storage: olaregconfig.ConfigStorage{StoreType: olaregconfig.StoreMem}})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if len(args) > 0 && user+":"+password != args[0] {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		o.ServeHTTP(w, r)
	}))
	ts.Defer(func() {
		server.Close()
		o.Close()
	})
	ts.Setenv("REG", strings.TrimPrefix(server.URL, "http://"))
}

// image REF [NOTE]: pushes a manifest of no meaning to a registry or layout;
// notes make digests different. $DIGEST is its digest.
func cmdImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: image REF [NOTE]")
	}
	ts.Setenv("DIGEST", pushImage(ts, args[0], strings.Join(args[1:], " ")).Digest.String())
}

func pushImage(ts *testscript.TestScript, name, note string) ocispec.Descriptor {
	ctx := context.Background()
	ref, err := registry.ParseReference(name)
	ts.Check(err)
	if ref.Kind != registry.Remote {
		ref.Path = ts.MkAbs(ref.Path)
	}
	repo, err := registry.Open(ctx, ref, registry.Options{})
	ts.Check(err)
	defer repo.Close()
	manifest, err := json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example",
		Config:       ocispec.DescriptorEmptyJSON,
		Layers:       []ocispec.Descriptor{ocispec.DescriptorEmptyJSON},
		Annotations:  map[string]string{"note": note},
	})
	ts.Check(err)
	ts.Check(repo.Push(ctx, ocispec.DescriptorEmptyJSON, strings.NewReader("{}")))
	desc := ocispec.Descriptor{
		MediaType: ocispec.MediaTypeImageManifest,
		Digest:    digest.FromBytes(manifest),
		Size:      int64(len(manifest)),
	}
	ts.Check(repo.Push(ctx, desc, bytes.NewReader(manifest)))
	ts.Check(repo.Tag(ctx, desc, ref.TagOrLatest()))
	return desc
}

// index REF REF...: pushes an index of manifests that image has pushed. $DIGEST
// is its digest.
func cmdIndex(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: index REF REF...")
	}
	ctx := context.Background()
	ref, err := registry.ParseReference(args[0])
	ts.Check(err)
	if ref.Kind != registry.Remote {
		ref.Path = ts.MkAbs(ref.Path)
	}
	repo, err := registry.Open(ctx, ref, registry.Options{})
	ts.Check(err)
	defer repo.Close()
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, name := range args[1:] {
		named, err := registry.ParseReference(name)
		ts.Check(err)
		desc, err := repo.Resolve(ctx, named.Tag)
		ts.Check(err)
		child := struct{ Annotations map[string]string }{}
		manifest, err := repo.Manifest(ctx, desc)
		ts.Check(err)
		ts.Check(json.Unmarshal(manifest, &child))
		if platform, ok := child.Annotations[artifact.AnnotationPlatform]; ok {
			desc.Annotations = map[string]string{artifact.AnnotationPlatform: platform}
		}
		index.Manifests = append(index.Manifests, desc)
	}
	raw, err := json.Marshal(index)
	ts.Check(err)
	desc := ocispec.Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	ts.Check(repo.Push(ctx, desc, bytes.NewReader(raw)))
	ts.Check(repo.Tag(ctx, desc, ref.Tag))
	ts.Setenv("DIGEST", desc.Digest.String())
}

// key NAME: a key pair, NAME.key and NAME.pub, that needs no passphrase. Those
// of "davit key generate" cost half a second whenever they are used.
func cmdKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: key NAME")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".key"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".pub"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
}

// mode FILE MODE: the file's permissions are these, in octal.
func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE MODE")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// json FILE FIELD VALUE: the file is one JSON object, and has that value at
// FIELD, as in "files.0.path". A number is compared as it is printed; any value
// of "*" will do.
func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: json FILE FIELD VALUE")
	}
	value := field(ts, args[0], args[1])
	got := fmt.Sprint(value)
	if l, ok := value.([]any); ok {
		got = fmt.Sprintf("%d entries", len(l))
	}
	if args[2] != "*" && got != args[2] {
		ts.Fatalf("%s is %q, want %q", args[1], got, args[2])
	}
}

// field NAME FIELD: $NAME is that field of the JSON on stdout; of a digest, the
// name that its blob has in a layout.
func cmdField(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: field NAME FIELD")
	}
	ts.Setenv(args[0], strings.Replace(fmt.Sprint(field(ts, "stdout", args[1])), "sha256:", "sha256/", 1))
}

// flip FILE OFFSET: one bit of the file is another. Before the end if negative.
func cmdFlip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: flip FILE OFFSET")
	}
	path := ts.MkAbs(args[0])
	data, err := os.ReadFile(path)
	ts.Check(err)
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	if at < 0 {
		at += len(data)
	}
	data[at] ^= 0x10
	ts.Check(os.Chmod(path, 0o600))
	ts.Check(os.WriteFile(path, data, 0o600))
}

func field(ts *testscript.TestScript, file, name string) any {
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(file)))
	d.UseNumber()
	var object map[string]any
	ts.Check(d.Decode(&object))
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		ts.Fatalf("%s is more than one JSON object", file)
	}
	var value any = object
	for _, step := range strings.Split(name, ".") {
		switch v := value.(type) {
		case map[string]any:
			field, ok := v[step]
			if !ok {
				ts.Fatalf("%s: no %q in %v", name, step, v)
			}
			value = field
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(v) {
				ts.Fatalf("%s: no entry %q of %d", name, step, len(v))
			}
			value = v[i]
		default:
			ts.Fatalf("%s: nothing at %q", name, step)
		}
	}
	return value
}

// A signature counts when it can be read, not when a registry took it.
func TestSignatureIsReadBack(t *testing.T) {
	private, _, err := sign.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := sign.LoadKey(private, func() ([]byte, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	o := olareg.New(olaregconfig.Config{Storage: olaregconfig.ConfigStorage{StoreType: olaregconfig.StoreMem}})
	defer o.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// All that is larger than an empty config comes back with another byte.
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			answer := httptest.NewRecorder()
			o.ServeHTTP(answer, r)
			if body := answer.Body.Bytes(); len(body) > 2 {
				body[len(body)/2] ^= 1
			}
			maps.Copy(w.Header(), answer.Header())
			w.WriteHeader(answer.Code)
			w.Write(answer.Body.Bytes())
			return
		}
		o.ServeHTTP(w, r)
	}))
	defer server.Close()

	ref, err := registry.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/vm:v1")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := registry.Open(t.Context(), ref, registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	manifest := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"` +
		ocispec.DescriptorEmptyJSON.Digest.String() + `","size":2},"layers":[]}`)
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(manifest), Size: int64(len(manifest))}
	if err := repo.Push(t.Context(), ocispec.DescriptorEmptyJSON, strings.NewReader("{}")); err != nil {
		t.Fatal(err)
	}
	if err := repo.Push(t.Context(), desc, bytes.NewReader(manifest)); err != nil {
		t.Fatal(err)
	}
	_, err = attachSignatures(t.Context(), repo, desc, []*sign.Key{key}, sign.Subject{Digest: desc.Digest})
	if err == nil {
		t.Error("a registry that gives back something else was believed to have the signature")
	}
}
