// Package docs holds the project's documents, and the tests that keep the code to what they say.
package docs

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/starling-chat/starling"

// layer is one row of the table in architecture.md.
type layer struct {
	packages []string // patterns: a path, or path/* for everything below it
	imports  []string
}

var code = regexp.MustCompile("`([^`]+)`")

func quoted(cell string) []string {
	var out []string
	for _, m := range code.FindAllStringSubmatch(cell, -1) {
		out = append(out, m[1])
	}
	return out
}

func readLayers(t *testing.T) []layer {
	t.Helper()
	b, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(b), "| package | one sentence | may import (ours) |")
	if !ok {
		t.Fatal("architecture.md has lost its layer table")
	}
	var layers []layer
	for _, line := range strings.Split(table, "\n")[2:] {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			break
		}
		layers = append(layers, layer{packages: quoted(cells[1]), imports: quoted(cells[3])})
	}
	return layers
}

func matches(pattern, pkg string) bool {
	prefix, wild := strings.CutSuffix(pattern, "*")
	if wild {
		return strings.HasPrefix(pkg, prefix)
	}
	return pattern == pkg
}

func anyMatch(patterns []string, pkg string) bool {
	for _, p := range patterns {
		if matches(p, pkg) {
			return true
		}
	}
	return false
}

// layerOf prefers an exact row to a wildcard one.
func layerOf(layers []layer, pkg string) *layer {
	var wild *layer
	for i := range layers {
		for _, p := range layers[i].packages {
			if p == pkg {
				return &layers[i]
			}
			if matches(p, pkg) {
				wild = &layers[i]
			}
		}
	}
	return wild
}

// forbidden returns the imports of pkg that its row does not allow; ok is false when it has no row.
func forbidden(layers []layer, pkg string, imports []string) (bad []string, ok bool) {
	l := layerOf(layers, pkg)
	if l == nil {
		return nil, false
	}
	for _, imp := range imports {
		rel, ours := strings.CutPrefix(imp, module+"/")
		if ours && !anyMatch(l.imports, rel) && !anyMatch([]string{pkg + "/*"}, rel) {
			bad = append(bad, rel)
		}
	}
	return bad, true
}

func TestImportsFollowTheLayerTable(t *testing.T) {
	layers := readLayers(t)
	if len(layers) < 10 {
		t.Fatalf("read only %d rows of the layer table", len(layers))
	}
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkg := strings.TrimPrefix(p.ImportPath, module+"/")
		bad, ok := forbidden(layers, pkg, p.Imports)
		if !ok {
			t.Errorf("%s has no row in the layer table of docs/architecture.md", pkg)
		}
		for _, b := range bad {
			t.Errorf("%s imports %s, which docs/architecture.md does not allow", pkg, b)
		}
	}
}

func TestForbiddenSeesAForbiddenImport(t *testing.T) {
	layers := readLayers(t)
	for _, c := range []struct {
		pkg, imp string
		bad      bool
	}{
		{"chat", "chat/wire", false},
		{"chat", "node", true},
		{"storage", "chat/wire", true},
		{"cmd/starling/internal/tui", "node/api", false},
		{"cmd/starling/internal/tui", "storage", true},
		{"node/api", "chat", true},
	} {
		bad, ok := forbidden(layers, c.pkg, []string{module + "/" + c.imp, "fmt"})
		if !ok || (len(bad) > 0) != c.bad {
			t.Errorf("%s importing %s: forbidden %v, row found %v", c.pkg, c.imp, bad, ok)
		}
	}
}

// Size limits of docs/conventions.md.
const (
	maxFileLines        = 700
	maxFunctionLines    = 100
	maxInterfaceMethods = 4
)

func TestFilesFunctionsAndInterfacesStaySmall(t *testing.T) {
	fset := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		if n := fset.File(f.Pos()).LineCount(); n > maxFileLines {
			t.Errorf("%s has %d lines, more than %d: split it by idea", path, n, maxFileLines)
		}
		checkSizes(t, fset, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkSizes(t *testing.T, fset *token.FileSet, f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if lines := fset.Position(n.End()).Line - fset.Position(n.Pos()).Line + 1; lines > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, more than %d", fset.Position(n.Pos()), n.Name.Name, lines, maxFunctionLines)
			}
		case *ast.InterfaceType:
			if n.Methods.NumFields() > maxInterfaceMethods {
				t.Errorf("%s: an interface of %d methods, more than %d", fset.Position(n.Pos()), n.Methods.NumFields(), maxInterfaceMethods)
			}
		}
		return true
	})
}

func TestTopLevelHoldsOnlyTheHouse(t *testing.T) {
	allowed := map[string]bool{
		"node": true, "discovery": true, "chat": true, "storage": true, "cmd": true, "docs": true,
		"go.mod": true, "go.sum": true, "README.md": true, "LICENSE": true,
		"SECURITY.md": true, "CONTRIBUTING.md": true, "CHANGELOG.md": true,
	}
	cmd := exec.Command("git", "ls-tree", "--name-only", "HEAD")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Skip("not a git checkout")
	}
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		if !allowed[name] && !strings.HasPrefix(name, ".") {
			t.Errorf("%s does not belong at the top level", name)
		}
	}
}

// relativeLink finds links to files of the repository in a document.
var relativeLink = regexp.MustCompile(`\]\(([^)#:\s]+)(?:#[^)]*)?\)`)

func TestLinksBetweenDocumentsLead(t *testing.T) {
	docs, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"adr", "spec", "guide", "bench"} {
		more, err := filepath.Glob(dir + "/*.md")
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, more...)
	}
	for _, doc := range append(docs, "../README.md") {
		b, err := os.ReadFile(doc)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, m := range relativeLink.FindAllStringSubmatch(string(b), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(doc), m[1])); err != nil {
				t.Errorf("%s links to %s, which does not exist", doc, m[1])
			}
		}
	}
}
