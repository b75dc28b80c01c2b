package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// decoderName is what functions are called that make something of bytes or text.
var decoderName = regexp.MustCompile(`^(?i:parse|decode|unmarshal)|^(ReadFrame|ReadHeader|CheckSealed|CheckLookup|Unwrap|readLines)$`)

// leadsOn is what functions are called that call decoders and are none.
var leadsOn = regexp.MustCompile(`^(?i:read|open|check|unseal)`)

// harmless are the functions of that name which read nothing that a peer, the disk, or a link brings, with what
// they read instead.
var harmless = map[string]string{
	"chat.parsePrekey":            "a row of fixed size that the store authenticated",
	"chat.parseStored":            "records that the store authenticated; wire's FuzzSealed has their form",
	"chat.decodeRow":              "JSON rows that the store authenticated",
	"cmd/starling.parseAge":       "what the user types",
	"cmd/starling.parseCondition": "what the user types",
	"cmd/starling.parseSize":      "what the user types",
	"cmd/starling.parseTime":      "what the user types",
	"node.parsePeer":              "what the user types",
	"node/natlab.parseSubnet":     "constants of tests",
	"node/apiserver.parseWait":    "one of a few words from the own front-end",
	"node/relay.parseRules":       "the operator's own lists",
	"storage.parseHeadSlot":       "what is under a seal, and FuzzSealed has the seal",
	"storage.parseStreamID":       "eight bytes under a seal",
}

// TestEveryDecoderIsFuzzed looks for decoders that no fuzz target of their package reaches.
func TestEveryDecoderIsFuzzed(t *testing.T) {
	used := make(map[string]bool)
	decoders, targets := 0, 0
	for _, dir := range packageDirs(t) {
		p := readPackage(t, filepath.Join("..", dir))
		targets += len(p.fuzz)
		reached := p.reach()
		for name, fn := range p.funcs {
			if !decoderName.MatchString(name) || !takesInput(fn) {
				continue
			}
			decoders++
			full := dir + "." + name
			if _, ok := harmless[full]; ok {
				used[full] = true
				continue
			}
			if !reached[name] {
				t.Errorf("%s: no fuzz target reaches it", full)
			}
		}
	}
	for name := range harmless {
		if !used[name] {
			t.Errorf("%s is excused and does not exist", name)
		}
	}
	if decoders < 60 || targets < 50 {
		t.Errorf("found %d decoders and %d targets: the search is broken", decoders, targets)
	}
	t.Logf("%d decoders, %d fuzz targets, %d excused", decoders, targets, len(harmless))
}

// packageDirs lists the directories below the root that hold Go source that ships.
func packageDirs(t *testing.T) []string {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || path != ".." && strings.HasPrefix(d.Name(), ".") || strings.HasSuffix(d.Name(), "test") || d.Name() == "bench") {
			return fs.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(path, ".go") {
			dir, err := filepath.Rel("..", filepath.Dir(path))
			if err != nil {
				return err
			}
			if dir = filepath.ToSlash(dir); !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// source is the functions of a package by name; methods of one name count as one function.
type source struct {
	funcs map[string]*ast.FuncDecl
	names map[string]map[string]bool // function or variable: what it calls
	fuzz  []string
}

func readPackage(t *testing.T, dir string) *source {
	t.Helper()
	p := &source{funcs: make(map[string]*ast.FuncDecl), names: make(map[string]map[string]bool)}
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			if vars, ok := d.(*ast.GenDecl); ok && vars.Tok == token.VAR {
				for _, spec := range vars.Specs {
					for _, id := range spec.(*ast.ValueSpec).Names {
						p.uses(id.Name, spec)
					}
				}
			}
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			id := fn.Name.Name
			p.uses(id, fn.Body)
			switch test := strings.HasSuffix(name, "_test.go"); {
			case test && strings.HasPrefix(id, "Fuzz"):
				p.fuzz = append(p.fuzz, id)
			case !test:
				p.funcs[id] = fn
			}
		}
	}
	return p
}

// uses notes what a function or variable calls, and which decoders it hands on.
func (p *source) uses(id string, body ast.Node) {
	if p.names[id] == nil {
		p.names[id] = make(map[string]bool)
	}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			switch called := n.Fun.(type) {
			case *ast.Ident:
				p.names[id][called.Name] = true
			case *ast.SelectorExpr:
				p.names[id][called.Sel.Name] = true
			}
		case *ast.IndexExpr:
			if table, ok := n.X.(*ast.Ident); ok {
				p.names[id][table.Name] = true
			}
		case *ast.Ident:
			if decoderName.MatchString(n.Name) {
				p.names[id][n.Name] = true
			}
		}
		return true
	})
}

// reach returns the names that the fuzz targets come to.
func (p *source) reach() map[string]bool {
	reached := make(map[string]bool)
	next := slices.Clone(p.fuzz)
	for len(next) > 0 {
		id := next[len(next)-1]
		next = next[:len(next)-1]
		if p.funcs[id] != nil && !decoderName.MatchString(id) && !leadsOn.MatchString(id) {
			continue // names that many methods share would lead anywhere
		}
		for used := range p.names[id] {
			if !reached[used] {
				reached[used] = true
				next = append(next, used)
			}
		}
	}
	return reached
}

// takesInput says whether a function takes bytes, a text, a reader or a decoder, or is a method that may hold one.
func takesInput(fn *ast.FuncDecl) bool {
	for _, f := range fn.Type.Params.List {
		switch typ := f.Type.(type) {
		case *ast.ArrayType:
			if id, ok := typ.Elt.(*ast.Ident); ok && id.Name == "byte" {
				return true
			}
		case *ast.Ident:
			if typ.Name == "string" {
				return true
			}
		case *ast.StarExpr:
			if id, ok := typ.X.(*ast.Ident); ok && id.Name == "decoder" {
				return true
			}
		case *ast.SelectorExpr:
			if typ.Sel.Name == "Reader" {
				return true
			}
		}
	}
	return false
}
