package davit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/davit-oci/davit"

// imports is the architecture: which package may import what. A name without a dot in its first element is a package of ours, any
// other is a module, of which every package is meant. The standard library is open to all.
//
// Arrows that are missing on purpose: disk knows nothing of OCI. artifact reaches registries through two small interfaces of its own.
// It does not import verify, which alone makes the subjects that artifact reads by: both import internal/subject, and nobody else does.
// sign and verify never import each other, so that neither can come to rely on what the other believes. oras-go is the business of
// registry alone; cobra and the terminal are the command's.
//
// Somebody who adds a line here adds it knowingly, and says in the commit what the import replaces and what it links.
var imports = map[string]struct {
	may   []string // what the package imports
	tests []string // what its tests import besides that, and besides the package itself
}{
	".":       {tests: []string{"artifact", "disk", "machine", "machine/ovf", "registry", "sign", "verify", imageSpec}}, // its example is the whole way
	"chunker": {},
	"disk": {
		may: []string{"disk/internal/hostfile", "disk/internal/qcow2", "disk/internal/raw", "disk/internal/vdi", "disk/internal/vhd",
			"disk/internal/vhdx", "disk/internal/virtual", "disk/internal/vmdk", "disk/internal/xz", "internal/beneath", "internal/sparse",
			"internal/wholefile", compress, sync, sys}, // sync to read several pieces at the same time; artifact links it anyway
		tests: []string{"disk/disktest"},
	},
	"disk/disktest": {may: []string{"disk", "internal/programs"}},
	"disk/guest":    {may: []string{"disk", "disk/internal/virtual"}, tests: []string{"disk/disktest"}},
	// The formats' common ground: how they are written in any order, compressed, and read.
	"disk/internal/blocks":   {may: []string{"disk/internal/hostfile", "disk/internal/virtual"}, tests: []string{"disk", "disk/disktest"}},
	"disk/internal/gather":   {may: []string{"disk/internal/virtual"}},
	"disk/internal/mapped":   {may: []string{"disk/internal/virtual"}, tests: []string{"disk/disktest"}},
	"disk/internal/hostfile": {may: []string{sys}},
	"disk/internal/inflate":  {},
	"disk/internal/qcow2": {
		may:   []string{"disk/internal/blocks", "disk/internal/gather", "disk/internal/inflate", "disk/internal/mapped", "disk/internal/virtual", compress},
		tests: []string{"disk", "disk/disktest"},
	},
	"disk/internal/raw": {may: []string{"disk/internal/hostfile", "disk/internal/virtual"}},
	"disk/internal/vdi": {
		may:   []string{"disk/internal/blocks", "disk/internal/mapped", "disk/internal/virtual"},
		tests: []string{"disk", "disk/disktest"},
	},
	"disk/internal/vhd": {
		may:   []string{"disk/internal/blocks", "disk/internal/mapped", "disk/internal/raw", "disk/internal/virtual"},
		tests: []string{"disk", "disk/disktest"},
	},
	"disk/internal/vhdx": {
		may:   []string{"disk/internal/blocks", "disk/internal/mapped", "disk/internal/virtual"},
		tests: []string{"disk", "disk/disktest"},
	},
	"disk/internal/virtual": {},
	"disk/internal/vmdk": { // zlib to compress: that of the standard library takes three times as long
		may: []string{"disk/internal/blocks", "disk/internal/gather", "disk/internal/inflate", "disk/internal/mapped",
			"disk/internal/virtual", "internal/charset", compress},
		tests: []string{"disk", "disk/disktest", "disk/internal/hostfile", "disk/internal/raw"},
	},
	"disk/internal/xz": {may: []string{"disk/internal/virtual", xz}}, // of the module only what decodes a block: its reader is unbounded
	"artifact": {
		may:   []string{"chunker", "disk", "internal/fetch", "internal/space", "internal/strictjson", "internal/subject", imageSpec, goDigest, compress, xz, sync},
		tests: []string{"disk/disktest", "verify"}, // verify makes subjects
	},
	// What is behind a reference is below it: the protocol and its credentials, which alone know oras-go, and layouts.
	"registry": {
		may: []string{"registry/internal/credentials", "registry/internal/layout", "registry/internal/oci", "registry/internal/reference",
			"registry/internal/remote", imageSpec, goDigest},
		tests: []string{"registry/internal/registrytest"},
	},
	"registry/internal/credentials": {
		may: []string{"internal/own", "internal/wholefile", "registry/internal/oci", "registry/internal/redact", oras},
	},
	"registry/internal/layout": {
		may: []string{"internal/own", "internal/wholefile", "registry/internal/oci", "registry/internal/redact", "registry/internal/reference",
			imageSpec, goDigest, sync},
		tests: []string{"registry", "registry/internal/registrytest", oras},
	},
	"registry/internal/oci":          {may: []string{"internal/fetch", "registry/internal/reference", imageSpec, goDigest, sync}},
	"registry/internal/redact":       {},
	"registry/internal/reference":    {may: []string{goDigest}},
	"registry/internal/registrytest": {may: []string{"registry", "internal/programs", olareg, imageSpec, goDigest}},
	"registry/internal/remote": {
		may: []string{"registry/internal/credentials", "registry/internal/oci", "registry/internal/redact", "registry/internal/reference",
			oras, imageSpec, goDigest, net, sync},
		tests: []string{"registry", "registry/internal/registrytest"},
	},
	// What it keeps are records of layers, lists of chunks and seeds: words of artifact, which does not know it.
	"store":              {may: []string{"artifact", "disk", "internal/own", "internal/wholefile", goDigest}},
	"internal/beneath":   {},                                   // what images and descriptors may name of the host, which is one rule
	"internal/own":       {},                                   // whether what is there is ours
	"internal/wholefile": {may: []string{"internal/own", sys}}, // files that appear whole, and locks
	"internal/charset":   {may: []string{text}},                // encodings of names, in descriptors of disks as of machines
	"internal/bundle":    {},                                   // the form of a signature, which sign writes and verify reads
	"internal/secret":    {},
	"internal/space":     {may: []string{sys}},
	"internal/sparse":    {}, // zeros become holes, of disks as of what is spooled
	// What a user names as the source of disks: opened, unpacked, with its machines.
	"internal/source": {may: []string{"artifact", "disk", "disk/guest", "internal/space", "internal/sparse", "machine", "machine/appliance", "machine/ovf"}, tests: []string{"internal/programs"}},
	"sign":            {may: []string{"internal/bundle", imageSpec, goDigest, sigstore, systemslib}},
	"verify": {
		may:   []string{"internal/bundle", "internal/fetch", "internal/strictjson", "internal/subject", imageSpec, goDigest, sigstore, sigstoreGo, inToto, protobuf},
		tests: []string{"sign", olareg, oras}, // a real registry between the two, and the real cosign
	},

	// What content must be before it is parsed, and before it is believed.
	"internal/strictjson": {},
	"internal/fetch":      {may: []string{imageSpec, goDigest}},
	"internal/subject":    {may: []string{"internal/fetch", "internal/strictjson", imageSpec, goDigest}},

	"machine": {},
	// Descriptors, one package each; none knows another. Package appliance finds the files that they name, and opens them.
	"machine/appliance":        {may: []string{"internal/beneath", "machine", "machine/libvirt", "machine/ovf", "machine/vbox", "machine/vmx"}},
	"machine/delivery":         {may: []string{"artifact", "disk", "disk/guest", "internal/wholefile", "machine", "machine/appliance", "machine/hyperv", "machine/libvirt", "machine/ovf", "machine/vmx"}},
	"machine/hyperv":           {may: []string{"machine"}},
	"machine/internal/attach":  {may: []string{"machine"}},
	"machine/internal/xmltree": {may: []string{"machine", "internal/charset"}},
	"machine/libvirt":          {may: []string{"machine", "machine/internal/xmltree"}},
	"machine/ovf":              {may: []string{"machine", "machine/internal/attach", "machine/internal/xmltree"}},
	"machine/vbox":             {may: []string{"machine", "machine/internal/xmltree"}},
	"machine/vmx":              {may: []string{"machine", "machine/internal/attach", "internal/charset"}},
	"bench/scale":              {may: []string{"artifact", "chunker", "disk", "verify", imageSpec, goDigest}}, // measures the real code with made-up artifacts
	"cmd/davit": {
		may: []string{"artifact", "chunker", "disk", "disk/guest", "internal/fetch", "internal/own", "internal/secret", "internal/source", "internal/space", "internal/wholefile",
			"machine", "machine/appliance", "machine/delivery", "machine/ovf", "registry", "sign", "store", "verify",
			imageSpec, goDigest, cobra, pflag, term, sync, olareg, yaml},
		tests: []string{"machine/libvirt", "machine/vmx", testscript},
	},
	"internal/programs": {}, // other people's, which any test may run
}

const (
	cobra      = "github.com/spf13/cobra"
	compress   = "github.com/klauspost/compress"
	goDigest   = "github.com/opencontainers/go-digest"
	imageSpec  = "github.com/opencontainers/image-spec"
	inToto     = "github.com/in-toto/attestation"
	olareg     = "github.com/olareg/olareg"
	net        = "golang.org/x/net" // of it publicsuffix alone: whose domain a name is in
	oras       = "oras.land/oras-go/v2"
	pflag      = "github.com/spf13/pflag"
	protobuf   = "google.golang.org/protobuf"
	sigstore   = "github.com/sigstore/sigstore"
	sigstoreGo = "github.com/sigstore/sigstore-go"
	sync       = "golang.org/x/sync"
	sys        = "golang.org/x/sys"
	systemslib = "github.com/secure-systems-lab/go-securesystemslib"
	term       = "golang.org/x/term"
	testscript = "github.com/rogpeppe/go-internal"
	text       = "golang.org/x/text"
	xz         = "github.com/ulikunitz/xz"
	yaml       = "go.yaml.in/yaml/v3"
)

// systems are those davit is released for: what one of them imports, counts.
var systems = []string{"linux", "darwin", "windows"}

func TestImports(t *testing.T) {
	got := map[string]*goPackage{}
	for _, system := range systems {
		for _, p := range list(t, system, "./...") {
			name := local(p.ImportPath)
			if got[name] == nil {
				got[name] = p
				continue
			}
			got[name].Imports = append(got[name].Imports, p.Imports...)
			got[name].TestImports = append(got[name].TestImports, p.TestImports...)
			got[name].XTestImports = append(got[name].XTestImports, p.XTestImports...)
		}
	}
	required := requirements(t)

	for name, p := range got {
		rule, ok := imports[name]
		if !ok {
			t.Errorf("package %s is not in the table", name)
			continue
		}
		for _, path := range unlisted(p.Imports, rule.may) {
			t.Errorf("%s imports %s, which the table does not allow", name, path)
		}
		allowed := slices.Concat(rule.may, rule.tests, []string{name, "internal/programs"})
		tests := slices.Concat(p.TestImports, p.XTestImports)
		for _, path := range unlisted(tests, allowed) {
			t.Errorf("the tests of %s import %s, which the table does not allow", name, path)
		}
		for _, a := range unused(rule.may, p.Imports) {
			t.Errorf("%s does not import %s: take it out of the table", name, a)
		}
		for _, a := range unused(rule.tests, tests) {
			t.Errorf("the tests of %s do not import %s: take it out of the table", name, a)
		}
		for _, a := range rule.tests {
			if slices.Contains(rule.may, a) {
				t.Errorf("the tests of %s may import %s, as %s may: take it out of the table's tests", name, a, name)
			}
		}
	}
	for name, rule := range imports {
		if got[name] == nil {
			t.Errorf("package %s is in the table and does not exist", name)
		}
		for _, allowed := range slices.Concat(rule.may, rule.tests) {
			if external(allowed) {
				if !slices.Contains(required, allowed) {
					t.Errorf("%s may import module %s, which go.mod does not require", name, allowed)
				}
			} else if got[allowed] == nil {
				t.Errorf("%s may import package %s, which does not exist", name, allowed)
			}
		}
	}
}

// The table above holds for packages of ours; this is what must not come in behind the modules that they import. The first three
// would more than double the binary: cloud providers' keys are reached through sigstore's plugin protocol instead.
func TestImportsLinked(t *testing.T) {
	banned := []string{
		"cloud.google.com/go", "github.com/aws/aws-sdk-go-v2", "github.com/Azure/azure-sdk-for-go",
		"cuelang.org/go", "github.com/open-policy-agent/opa", // policies come later, and are to be weighed then
	}
	for _, system := range systems {
		for _, p := range list(t, system, "-deps", "./cmd/davit") {
			for _, b := range banned {
				if p.ImportPath == b || strings.HasPrefix(p.ImportPath, b+"/") {
					t.Errorf("on %s the command links %s", system, p.ImportPath)
				}
			}
		}
	}
}

// unlisted is what paths has that is neither the standard library's nor allowed, sorted.
func unlisted(paths, allowed []string) []string {
	bad := map[string]bool{}
	for _, path := range paths {
		if path == "C" {
			bad[path] = true // the released binaries are static
			continue
		}
		if !external(path) {
			continue
		}
		name := local(path)
		if !slices.ContainsFunc(allowed, func(a string) bool { return covers(a, name) }) {
			bad[name] = true
		}
	}
	return slices.Sorted(maps.Keys(bad))
}

// unused is what of allowed no path needs.
func unused(allowed, paths []string) (idle []string) {
	for _, a := range allowed {
		if !slices.ContainsFunc(paths, func(path string) bool { return covers(a, local(path)) }) {
			idle = append(idle, a)
		}
	}
	return idle
}

// covers reports whether an entry of the table allows the package of that name.
func covers(entry, name string) bool {
	return name == entry || external(entry) && strings.HasPrefix(name, entry+"/")
}

// external tells a module's package from one of the standard library, or from a name of ours in the table.
func external(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return strings.Contains(strings.TrimPrefix(first, "."), ".")
}

// local is a package's name in the table: its folder, if it is one of ours.
func local(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

// goPackage is what we need of "go help list".
type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func list(t *testing.T, system string, args ...string) []*goPackage {
	t.Helper()
	out := goCommand(t, system, append([]string{"list", "-json=ImportPath,Imports,TestImports,XTestImports"}, args...)...)
	var packages []*goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(goPackage)
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// requirements are the modules that go.mod names.
func requirements(t *testing.T) []string {
	t.Helper()
	var mod struct{ Require []struct{ Path string } }
	if err := json.Unmarshal(goCommand(t, "", "mod", "edit", "-json"), &mod); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, r := range mod.Require {
		paths = append(paths, r.Path)
	}
	return paths
}

func goCommand(t *testing.T, system string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = os.Environ()
	if system != "" {
		cmd.Env = append(cmd.Env, "GOOS="+system, "GOARCH=amd64", "CGO_ENABLED=0")
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return out
}
