package ratchet

import (
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// That one person can read all of it in an afternoon is a condition under which the package
// exists (docs/adr/0003-own-ratchet.md).
func TestUnderAThousandLines(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		file := fset.AddFile(name, -1, len(src))
		var s scanner.Scanner
		s.Init(file, src, nil, 0)
		lines := map[int]bool{}
		for {
			pos, tok, lit := s.Scan()
			if tok == token.EOF {
				break
			}
			if tok != token.SEMICOLON || lit == ";" {
				lines[file.Line(pos)] = true
			}
		}
		total += len(lines)
	}
	if total == 0 || total >= 1000 {
		t.Errorf("%d lines of code, comments and empty lines not counted", total)
	}
	t.Logf("%d lines of code", total)
}
