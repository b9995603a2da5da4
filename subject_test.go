package davit_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// program is a program of another module that reads an artifact. %OPEN% is how it opens it.
const program = `package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/davit-oci/davit/artifact"
	"github.com/davit-oci/davit/verify"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

type store map[digest.Digest][]byte

func (s store) put(mediaType, content string) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(content), Size: int64(len(content))}
	s[d.Digest] = []byte(content)
	return d
}

func (s store) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(s[d.Digest])), nil
}

func main() {
	ctx, s := context.Background(), store{}
	m := artifact.Manifest{OVF: s.put(artifact.TypeOVF, "<Envelope/>")}
	raw, err := m.Encode()
	if err != nil {
		panic(err)
	}
	desc := s.put(ocispec.MediaTypeImageManifest, string(raw))
	if err := open(ctx, s, desc); errors.Is(err, verify.ErrNoSubject) {
		fmt.Println("refused")
	} else if err != nil {
		panic(err)
	} else {
		fmt.Println("opened")
	}
}

func open(ctx context.Context, s store, desc ocispec.Descriptor) error {
	%OPEN%
	if err == nil {
		err = img.Close()
	}
	return err
}
`

// Nobody outside this module reads an artifact that package verify has not let through.
func TestSubjectCannotBeMade(t *testing.T) {
	folder := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(name string) []byte {
		t.Helper()
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	// A module that requires what this one does, in the same versions.
	mod := bytes.Replace(read("go.mod"), []byte("module "+module), []byte("module example.com/stranger"), 1)
	write("go.mod", append(mod, "\nrequire "+module+" v0.0.0\n\nreplace "+module+" => "+here+"\n"...))
	write("go.sum", read("go.sum"))

	for name, tt := range map[string]struct {
		open     string
		extra    string // import
		refusal  string // the compiler's
		printing string // without one
	}{
		"unverified": {
			open:     `found, err := verify.Unverified(ctx, s, desc); if err != nil { return err }; img, err := artifact.Open(ctx, s, found.Subject, artifact.OpenOptions{})`,
			printing: "opened",
		},
		"zero": {
			open: `if _, err := artifact.OpenBase(ctx, s, verify.Subject{}, artifact.OpenOptions{}); !errors.Is(err, verify.ErrNoSubject) { panic(err) }
				img, err := artifact.Open(ctx, s, new(verify.Result).Subject, artifact.OpenOptions{})`,
			printing: "refused",
		},
		"descriptor": {
			open:    `img, err := artifact.Open(ctx, s, desc, artifact.OpenOptions{})`,
			refusal: "cannot use desc",
		},
		"descriptor-base": {
			open:    `img, err := artifact.OpenBase(ctx, s, desc, artifact.OpenOptions{})`,
			refusal: "cannot use desc",
		},
		"converted": {
			open:    `img, err := artifact.Open(ctx, s, verify.Subject(desc), artifact.OpenOptions{})`,
			refusal: "cannot convert desc",
		},
		"literal": {
			open:    `img, err := artifact.Open(ctx, s, verify.Subject{desc}, artifact.OpenOptions{})`,
			refusal: "implicit assignment to unexported field",
		},
		"internal": {
			open:    `img, err := artifact.Open(ctx, s, subject.New(desc, nil, "key"), artifact.OpenOptions{})`,
			extra:   `import "` + module + `/internal/subject"`,
			refusal: "use of internal package",
		},
	} {
		t.Run(name, func(t *testing.T) {
			main := strings.Replace(program, "%OPEN%", tt.open, 1)
			main = strings.Replace(main, "package main\n", "package main\n"+tt.extra+"\n", 1)
			write(name+"/main.go", []byte(main))
			cmd := exec.CommandContext(t.Context(), "go", "run", "-mod=mod", "./"+name)
			cmd.Dir = folder
			cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "GOPROXY=off")
			out, err := cmd.CombinedOutput()
			switch {
			case tt.refusal != "" && err == nil:
				t.Errorf("it runs, and prints %q", out)
			case tt.refusal != "" && !strings.Contains(string(out), tt.refusal):
				t.Errorf("the compiler says, instead of %q:\n%s", tt.refusal, out)
			case tt.refusal == "" && (err != nil || strings.TrimSpace(string(out)) != tt.printing):
				t.Errorf("%v, want that it prints %q:\n%s", err, tt.printing, out)
			}
		})
	}
}

// Inside this module the constructor of subjects is package verify's. The table of imports says who else reads them.
func TestSubjectIsMadeByVerify(t *testing.T) {
	makers := 0
	for _, p := range list(t, "", "./...") {
		name := local(p.ImportPath)
		files, err := filepath.Glob(filepath.Join(name, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			as := ""
			for _, i := range f.Imports {
				if i.Path.Value == `"`+module+`/internal/subject"` {
					as = "subject"
					if i.Name != nil {
						as = i.Name.Name
					}
				}
			}
			if as == "." {
				t.Errorf("%s imports internal/subject without its name", file)
			}
			if as == "" {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				s, ok := n.(*ast.SelectorExpr)
				if !ok || s.Sel.Name != "New" {
					return true
				}
				if x, ok := s.X.(*ast.Ident); ok && x.Name == as {
					makers++
					if name != "verify" {
						t.Errorf("%s makes a subject", file)
					}
				}
				return true
			})
		}
	}
	if makers == 0 {
		t.Error("nobody makes subjects, and somebody must")
	}
}
