package tui

import (
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var verb = regexp.MustCompile(`%(\[\d\])?[a-z]`)

// verbs gives the formatting verbs of a phrase by the argument they stand for.
func verbs(s string) []string {
	var out []string
	for i, v := range verb.FindAllString(strings.ReplaceAll(s, "%%", ""), -1) {
		n := strconv.Itoa(i + 1)
		if v[1] == '[' {
			n = v[2:3]
		}
		out = append(out, n+v[len(v)-1:])
	}
	slices.Sort(out)
	return out
}

func TestLanguagesSayTheSame(t *testing.T) {
	han := regexp.MustCompile(`\p{Han}`)
	for key, row := range phrases {
		if row[0] == "" || row[1] == "" {
			t.Errorf("%q is empty in a language", key)
		}
		if !slices.Equal(verbs(row[0]), verbs(row[1])) {
			t.Errorf("%q has the arguments %v in English and %v in Chinese", key, verbs(row[0]), verbs(row[1]))
		}
		if strings.Count(row[0], "\t") != strings.Count(row[1], "\t") {
			t.Errorf("%q has its tab in one language only", key)
		}
		if han.MatchString(row[0]) || !han.MatchString(row[1]) && key != "policy" && key != "settings" && key != "setting" && key != "usage" {
			t.Errorf("%q seems to be in the wrong column", key)
		}
	}
	if len(languages) != len(phrases["loading"]) {
		t.Error("the columns do not fit the languages")
	}
}

// TestEveryPhraseIsThereAndUsed reads the package's source: what is looked up must exist, and what
// exists must be looked up.
func TestEveryPhraseIsThereAndUsed(t *testing.T) {
	set := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]*ast.File{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		if files[name], err = parser.ParseFile(set, name, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	// Lookups whose key is no literal, with what keeps their keys in order: each is checked by a test
	// of its own below, or passes a literal on.
	computed := map[string]bool{"helpKey(name)": true, "key": true, "by.key": true, "impossible[name]": true}
	written := map[string]bool{}
	for name, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			if decl, ok := n.(*ast.ValueSpec); ok && strings.HasSuffix(strings.ToLower(decl.Names[0].Name), "phrases") {
				return false // the catalogue itself
			}
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				s, err := strconv.Unquote(lit.Value)
				if err == nil {
					written[s] = true
				}
			}
			if key, ok := lookedUp(n); ok {
				checkLookup(t, set, name, key, computed)
			}
			return true
		})
	}
	if len(written) < 100 {
		t.Fatalf("read only %d strings of the source", len(written))
	}
	for key := range phrases {
		if !written[key] && !strings.HasPrefix(key, helpKey("")) {
			t.Errorf("the phrase %q is never used", key)
		}
	}
	for name, key := range impossible {
		if _, ok := phrases[key]; !ok {
			t.Errorf("/%s answers with %q, which is not in the catalogue", name, key)
		}
	}
	for name := range commands {
		_, ok := phrases[helpKey(name)]
		_, cannot := impossible[name]
		if ok == cannot {
			t.Errorf("/%s: help %v, impossible %v", name, ok, cannot)
		}
	}
	for _, by := range []string{"on the lan", "direct", "punched", "relayed"} {
		if _, ok := phrases[by]; !ok {
			t.Errorf("%q is missing", by)
		}
	}
}

// lookedUp gives the key expression of a call of t or text.
func lookedUp(n ast.Node) (ast.Expr, bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return nil, false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || sel.Sel.Name != "t" && sel.Sel.Name != "text" {
		return nil, false
	}
	if x, ok := sel.X.(*ast.Ident); ok && sel.Sel.Name == "text" && x.Name == "p" {
		return nil, false // painter.text lays out a message
	}
	return call.Args[0], true
}

func checkLookup(t *testing.T, set *token.FileSet, file string, key ast.Expr, computed map[string]bool) {
	if lit, ok := key.(*ast.BasicLit); ok {
		s, _ := strconv.Unquote(lit.Value)
		if _, ok := phrases[s]; !ok {
			t.Errorf("%s looks up %q, which is not in the catalogue", set.Position(key.Pos()), s)
		}
		return
	}
	var b bytes.Buffer
	printExpr(&b, key)
	if !computed[b.String()] {
		t.Errorf("%s looks up %s, whose keys no test knows", file, b.String())
	}
}

func printExpr(b *bytes.Buffer, e ast.Expr) {
	switch e := e.(type) {
	case *ast.Ident:
		b.WriteString(e.Name)
	case *ast.SelectorExpr:
		printExpr(b, e.X)
		b.WriteString("." + e.Sel.Name)
	case *ast.CallExpr:
		printExpr(b, e.Fun)
		b.WriteString("(")
		for _, a := range e.Args {
			printExpr(b, a)
		}
		b.WriteString(")")
	case *ast.IndexExpr:
		printExpr(b, e.X)
		b.WriteString("[")
		printExpr(b, e.Index)
		b.WriteString("]")
	default:
		b.WriteString("?")
	}
}

func TestLanguageIsPicked(t *testing.T) {
	for _, c := range []struct {
		explicit, setting string
		environ           []string
		want              string
	}{
		{"", "", nil, "en"},
		{"", "", []string{"LANG=zh_CN.UTF-8"}, "zh"},
		{"", "", []string{"LANG=zh_CN.UTF-8", "LC_ALL=C.UTF-8"}, "en"},
		{"", "en", []string{"LANG=zh_CN.UTF-8"}, "en"},
		{"zh", "en", nil, "zh"},
		{"", "klingon", []string{"LANG=de_DE.UTF-8"}, "en"},
	} {
		if got := pickLanguage(c.explicit, c.setting, c.environ); got != c.want {
			t.Errorf("pickLanguage(%q, %q, %q) = %q, want %q", c.explicit, c.setting, c.environ, got, c.want)
		}
	}
}

func TestChineseScreen(t *testing.T) {
	n := newFakeNode(t)
	n.settings[settingLang] = "zh"
	d := newDriver(t, n, 100, 24)
	d.wants("成员 2", "这里还没有消息")
	d.enter("/kick bob")
	d.wants("公开房间")
	d.enter("/help")
	d.wants("帮助", "Esc 关闭")
	for line := range strings.SplitSeq(d.screen(), "\n") {
		if byRune.width(line) > 100 {
			t.Errorf("too wide: %q", line)
		}
	}
	d.keys("esc")
	d.enter("/lang en")
	d.wants("members 2")
	if n.setting(settingLang) != "en" {
		t.Error("the language is not kept")
	}
}

func TestUsable(t *testing.T) {
	for _, c := range []struct {
		name    string
		environ []string
		ok      bool
		says    string
	}{
		{"usual", []string{"TERM=xterm-256color", "LANG=en_US.UTF-8"}, true, ""},
		{"utf8 by another name", []string{"TERM=screen", "LC_ALL=C.utf8"}, true, ""},
		{"no TERM", []string{"LANG=C.UTF-8"}, false, "line mode"},
		{"dumb", []string{"TERM=dumb", "LANG=C.UTF-8"}, false, "TERM is \"dumb\""},
		{"C", []string{"TERM=xterm", "LANG=C"}, false, "LANG=C.UTF-8"},
		{"nothing set", []string{"TERM=xterm"}, false, "UTF-8"},
		{"LC_ALL wins", []string{"TERM=xterm", "LANG=C.UTF-8", "LC_ALL=C"}, false, "UTF-8"},
	} {
		ok, says := Usable(c.environ)
		if ok != c.ok || !strings.Contains(says, c.says) {
			t.Errorf("%s: %v, %q", c.name, ok, says)
		}
	}
}

// answering answers a first run's questions, and gives what it said.
func answering(w *Welcome, answers ...string) *bytes.Buffer {
	var out bytes.Buffer
	w.Out, w.MaxNick, w.Environ = &out, 8, []string{"LANG=C.UTF-8"}
	next := func(q string) (string, error) {
		out.WriteString(q + "\n")
		if len(answers) == 0 {
			return "", errors.New("nobody answers")
		}
		a := answers[0]
		answers = answers[1:]
		return a, nil
	}
	w.Line, w.Secret = next, next
	return &out
}

func TestWelcome(t *testing.T) {
	t.Run("enter answers everything", func(t *testing.T) {
		w := Welcome{}
		out := answering(&w, "", "")
		got, err := w.Ask("/home/x/keys")
		if err != nil || got != (Answers{}) {
			t.Errorf("%+v, %v", got, err)
		}
		for _, want := range []string{"/home/x/keys", "your IP address", "your nick:", "passphrase"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%q is missing in\n%s", want, out)
			}
		}
	})
	t.Run("a passphrase is asked for twice", func(t *testing.T) {
		w := Welcome{}
		answering(&w, "ada", "one", "two", "three", "three")
		if got, err := w.Ask("keys"); err != nil || got != (Answers{Nick: "ada", Passphrase: "three"}) {
			t.Errorf("%+v, %v", got, err)
		}
	})
	t.Run("words in place of a nick", func(t *testing.T) {
		var tried []string
		w := Welcome{NoPassphrase: true, Restore: func(p string) error {
			if tried = append(tried, p); len(tried) == 1 {
				return errors.New("word 3 is not in the list")
			}
			return nil
		}}
		words := strings.TrimSpace(strings.Repeat("word ", 24))
		out := answering(&w, "much too long a nick", words, words)
		got, err := w.Ask("keys")
		if err != nil || !got.Restored || got.Nick != "" {
			t.Errorf("%+v, %v", got, err)
		}
		if !strings.Contains(out.String(), "at most 8 bytes") || !strings.Contains(out.String(), "word 3 is not in the list") {
			t.Errorf("it says\n%s", out)
		}
	})
}

func TestWelcomePhrase(t *testing.T) {
	words := strings.Fields(strings.Repeat("alpha beta gamma delta ", 6))
	third := func(n int) int { return 2 } // words 3 and 6
	t.Run("the phrase is taken off the screen", func(t *testing.T) {
		for _, width := range []int{30, 44, 80, 200} {
			w := Welcome{Width: width, Erase: true, Pick: third}
			out := answering(&w, "", "")
			if err := w.ShowPhrase(strings.Join(words, " ")); err != nil {
				t.Fatal(err)
			}
			text, erase, _ := strings.Cut(out.String(), "\x1b[")
			lines := strings.Count(text, "\n")
			if !strings.HasPrefix(erase, strconv.Itoa(lines)+"A\x1b[J") {
				t.Errorf("width %d: %d lines are followed by %q", width, lines, erase)
			}
			for line := range strings.SplitSeq(text, "\n") {
				if len(line) > width && !strings.Contains(line, "Enter") {
					t.Errorf("width %d: %q is too long", width, line)
				}
			}
		}
	})
	for _, c := range []struct {
		name    string
		answers []string
		shown   int // how often the words are shown
		says    string
	}{
		{"two words are asked for", []string{"", "gamma", "beta"}, 1, "Right"},
		{"in any case", []string{"", "Gamma", " BETA "}, 1, "Right"},
		{"enter skips", []string{"", ""}, 1, "Not checked"},
		{"enter skips the second", []string{"", "gamma", ""}, 1, "Not checked"},
		{"a wrong word shows them again", []string{"", "delta", "", "gamma", "alpha", "", "gamma", "beta"}, 3, "not word 6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := Welcome{Pick: third}
			out := answering(&w, c.answers...)
			if err := w.ShowPhrase(strings.Join(words, " ")); err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(out.String(), "These words are your account"); got != c.shown {
				t.Errorf("shown %d times, want %d", got, c.shown)
			}
			if !strings.Contains(out.String(), c.says) {
				t.Errorf("%q is missing in\n%s", c.says, out)
			}
		})
	}
}
