// Command dead finds functions and methods that nothing but tests uses. What it finds must be exported, shown by an example and listed in
// .ci/deadcode.allow; what is listed there and used after all fails as well.
//
// The tool deadcode finds functions that no program of ours reaches. It takes every exported method of a value in an interface for
// reached, since reflection could call it; so dead looks itself for methods and exported functions that no source but tests names.
//
// Packages that import testing serve tests: what is in them must be used by tests.
//
//	go run .ci/dead.go -deadcode ~/.cache/davit-tools/bin/deadcode
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	module    = "github.com/davit-oci/davit"
	allowFile = ".ci/deadcode.allow"
)

func main() {
	deadcode := flag.String("deadcode", "deadcode", "the `program` deadcode")
	flag.Parse()
	faults, err := check(*deadcode)
	if err != nil {
		fmt.Fprintln(os.Stderr, "dead:", err)
		os.Exit(1)
	}
	for _, f := range faults {
		fmt.Println(f)
	}
	if len(faults) > 0 {
		os.Exit(1)
	}
}

// check returns what is wrong, a line each.
func check(deadcode string) (faults []string, err error) {
	pkgs, err := list()
	if err != nil {
		return nil, err
	}
	allowed, err := readAllowed()
	if err != nil {
		return nil, err
	}
	var product, support []string
	for _, p := range pkgs {
		switch {
		case !p.ours():
		case slices.Contains(p.Imports, "testing"):
			support = append(support, p.ImportPath)
		default:
			product = append(product, p.ImportPath)
		}
	}

	// Name of each dead function, and where it is.
	dead, err := unreached(deadcode, product...)
	if err != nil {
		return nil, err
	}
	c, err := checkTypes(pkgs, product)
	if err != nil {
		return nil, err
	}
	// What an interface has is dead with the function that makes the value, which is listed as well.
	maps.DeleteFunc(dead, func(name, _ string) bool { return c.defined[name] != nil && c.implied(c.defined[name]) })
	maps.Copy(dead, c.unnamed())
	for _, name := range slices.Sorted(maps.Keys(dead)) {
		switch shown, err := shownByExample(pkgs, name); {
		case err != nil:
			return nil, err
		case !allowed[name]:
			faults = append(faults, fmt.Sprintf("%s: %s is used by nothing but tests: delete it, with them; or write an example and add it to %s", dead[name], name, allowFile))
		case !shown:
			faults = append(faults, fmt.Sprintf("%s: %s is in %s, and no example of its package shows it", dead[name], name, allowFile))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(allowed)) {
		if dead[name] == "" {
			faults = append(faults, fmt.Sprintf("%s: %s is used or does not exist: take it out", allowFile, name))
		}
	}

	untested, err := unreached(deadcode, "-test", "./...")
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(untested)) {
		if pkg, _, _ := strings.Cut(name, "."); slices.Contains(support, module+"/"+pkg) {
			faults = append(faults, fmt.Sprintf("%s: %s serves tests, and none uses it", untested[name], name))
		}
	}
	return faults, nil
}

// goPackage is what we need of "go help list".
type goPackage struct {
	ImportPath, Dir, Export            string
	Standard                           bool
	GoFiles, TestGoFiles, XTestGoFiles []string
	Imports                            []string
}

// list returns all packages that ours link, each after those that it imports.
func list() ([]*goPackage, error) {
	out, err := exec.Command("go", "list", "-deps", "-export", "-json=ImportPath,Dir,Export,Standard,GoFiles,TestGoFiles,XTestGoFiles,Imports", "./...").Output()
	if err != nil {
		return nil, said("go list", err)
	}
	var all []*goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := new(goPackage)
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
}

func (p *goPackage) ours() bool {
	return p.ImportPath == module || strings.HasPrefix(p.ImportPath, module+"/")
}

// readAllowed reads a name a line, with comments after #.
func readAllowed() (map[string]bool, error) {
	f, err := os.Open(allowFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	allowed := make(map[string]bool)
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, _, _ := strings.Cut(lines.Text(), "#")
		if name = strings.TrimSpace(name); name != "" {
			allowed[name] = true
		}
	}
	return allowed, lines.Err()
}

// unreached returns what deadcode lists: where functions are, by "folder.Function" or "folder.Type.Method".
func unreached(deadcode string, args ...string) (map[string]string, error) {
	out, err := exec.Command(deadcode, append([]string{"-json"}, args...)...).Output()
	if err != nil {
		return nil, said(deadcode, err)
	}
	var all []struct {
		Path  string
		Funcs []struct {
			Name     string
			Position struct {
				File string
				Line int
			}
		}
	}
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("reading what %s says: %w", deadcode, err)
	}
	found := make(map[string]string)
	for _, p := range all {
		for _, f := range p.Funcs {
			found[folder(p.Path)+"."+f.Name] = fmt.Sprintf("%s:%d", f.Position.File, f.Position.Line)
		}
	}
	return found, nil
}

// folder is that of a package of ours.
func folder(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func said(program string, err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("%s: %w\n%s", program, err, exit.Stderr)
	}
	return fmt.Errorf("%s: %w", program, err)
}

// checkTypes reads all files of ours but tests.
func checkTypes(pkgs []*goPackage, product []string) (*checker, error) {
	c := &checker{
		fset:    token.NewFileSet(),
		checked: make(map[string]*types.Package),
		seen:    make(map[*types.Package]bool),
		defined: make(map[string]*types.Func),
		used:    make(map[string]bool),
		called:  make(map[string]bool),
		wanting: make(map[string][]*types.Interface),
	}
	exports := make(map[string]string)
	for _, p := range pkgs {
		exports[p.ImportPath] = p.Export
	}
	c.binary = importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	for _, p := range pkgs {
		if p.ours() {
			if err := c.check(p, slices.Contains(product, p.ImportPath)); err != nil {
				return nil, err
			}
		}
	}
	for _, p := range c.checked {
		c.addInterfaces(p)
	}
	for _, p := range c.checked {
		for _, name := range p.Scope().Names() {
			if t, ok := p.Scope().Lookup(name).(*types.TypeName); ok && !types.IsInterface(t.Type()) {
				c.implement(t.Type())
			}
		}
	}
	return c, nil
}

// unnamed returns the functions and methods that no file but tests names. A method that an interface has need not be named.
func (c *checker) unnamed() map[string]string {
	found := make(map[string]string)
	for name, f := range c.defined {
		if !c.used[f.FullName()] && !c.implied(f) {
			at := c.fset.Position(f.Pos())
			found[name] = fmt.Sprintf("%s:%d", at.Filename, at.Line)
		}
	}
	return found
}

// A checker knows what is defined and named in files that are not tests.
type checker struct {
	fset    *token.FileSet
	binary  types.Importer            // of packages that are not ours
	checked map[string]*types.Package // ours
	seen    map[*types.Package]bool   // by addInterfaces

	defined map[string]*types.Func        // by "folder.Function" or "folder.Type.Method"
	used    map[string]bool               // by types.Func.FullName
	called  map[string]bool               // those that an interface may call, by types.Func.FullName
	wanting map[string][]*types.Interface // by the names of their methods
}

// Import implements [types.Importer]: ours are those that were checked, so that a type is the same for all.
func (c *checker) Import(path string) (*types.Package, error) {
	if p := c.checked[path]; p != nil {
		return p, nil
	}
	return c.binary.Import(path)
}

func (c *checker) check(p *goPackage, product bool) error {
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(c.fset, filepath.Join(folder(p.ImportPath), name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	info := &types.Info{Defs: make(map[*ast.Ident]types.Object), Uses: make(map[*ast.Ident]types.Object), Types: make(map[ast.Expr]types.TypeAndValue)}
	pkg, err := (&types.Config{Importer: c}).Check(p.ImportPath, c.fset, files, info)
	if err != nil {
		return err
	}
	c.checked[p.ImportPath] = pkg
	for _, o := range info.Uses {
		if f, ok := o.(*types.Func); ok {
			c.used[f.Origin().FullName()] = true
		}
	}
	for _, tv := range info.Types {
		c.addInterface(tv.Type) // those without a name, too
	}
	if !product {
		return nil
	}
	for _, o := range info.Defs {
		f, ok := o.(*types.Func)
		if !ok || f.Name() == "main" || f.Name() == "init" || f.Name() == "_" {
			continue
		}
		recv := f.Signature().Recv()
		if recv == nil {
			c.defined[folder(p.ImportPath)+"."+f.Name()] = f
		} else if named := receiver(recv.Type()); named != nil && !types.IsInterface(named) {
			c.defined[folder(p.ImportPath)+"."+named.Obj().Name()+"."+f.Name()] = f
		}
	}
	return nil
}

func receiver(t types.Type) *types.Named {
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	named, _ := t.(*types.Named)
	return named
}

// addInterfaces adds those of a package and of all that it imports.
func (c *checker) addInterfaces(p *types.Package) {
	if c.seen[p] {
		return
	}
	c.seen[p] = true
	for _, name := range p.Scope().Names() {
		if t, ok := p.Scope().Lookup(name).(*types.TypeName); ok {
			c.addInterface(t.Type())
		}
	}
	for _, q := range p.Imports() {
		c.addInterfaces(q)
	}
}

func (c *checker) addInterface(t types.Type) {
	if t == nil {
		return
	}
	if i, ok := t.Underlying().(*types.Interface); ok {
		for m := range i.Methods() {
			if !slices.Contains(c.wanting[m.Name()], i) {
				c.wanting[m.Name()] = append(c.wanting[m.Name()], i)
			}
		}
	}
}

// implement notes the methods by which t, or a pointer to it, is what an interface wants. They may be those of a type that it embeds.
func (c *checker) implement(t types.Type) {
	methods := types.NewMethodSet(types.NewPointer(t))
	for i := range methods.Len() {
		f := methods.At(i).Obj().(*types.Func)
		if c.called[f.FullName()] {
			continue
		}
		c.called[f.FullName()] = slices.ContainsFunc(c.wanting[f.Name()], func(i *types.Interface) bool {
			return types.Implements(types.NewPointer(t), i)
		})
	}
}

// implied reports whether f need not be named to be called.
func (c *checker) implied(f *types.Func) bool {
	if f.Signature().Recv() == nil {
		return false
	}
	switch f.Name() {
	case "Is", "As", "Unwrap": // package errors asks for them
		return true
	}
	return c.called[f.FullName()]
}

// shownByExample reports whether an example in the folder of a function uses its name.
func shownByExample(pkgs []*goPackage, name string) (bool, error) {
	dir, rest, _ := strings.Cut(name, ".")
	want := rest[strings.LastIndex(rest, ".")+1:]
	i := slices.IndexFunc(pkgs, func(p *goPackage) bool { return folder(p.ImportPath) == dir })
	if i < 0 || !ast.IsExported(want) {
		return false, nil
	}
	for _, file := range slices.Concat(pkgs[i].TestGoFiles, pkgs[i].XTestGoFiles) {
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(pkgs[i].Dir, file), nil, 0)
		if err != nil {
			return false, err
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(fn.Name.Name, "Example") {
				continue
			}
			shown := false
			ast.Inspect(fn, func(n ast.Node) bool {
				if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == want {
					shown = true
				}
				return !shown
			})
			if shown {
				return true, nil
			}
		}
	}
	return false, nil
}
