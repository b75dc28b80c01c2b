package tui

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
	"github.com/rivo/uniseg"
)

// cells is the number of terminal cells that a styled string takes.
func cells(s string) int { return ansi.StringWidth(s) }

// fit cuts or pads a styled string to exactly n cells.
func fit(s string, n int) string {
	if n <= 0 {
		return ""
	}
	w := cells(s)
	if w > n {
		s = ansi.Truncate(s, n, "…")
		w = cells(s)
	}
	return s + strings.Repeat(" ", max(0, n-w))
}

// right pads a styled string at its left to n cells, or cuts it.
func right(s string, n int) string {
	if w := cells(s); w < n {
		return strings.Repeat(" ", n-w) + s
	}
	return fit(s, n)
}

// wrap breaks plain text into lines of at most n cells, at spaces where there are any.
func wrap(s string, n int) []string {
	n = max(n, 1)
	var out []string
	for line := range strings.SplitSeq(s, "\n") {
		out = append(out, wrapLine(line, n)...)
	}
	return out
}

// wrapLine breaks one line. It goes by grapheme clusters, so that neither a wide character nor an
// emoji of several code points is ever cut in two.
func wrapLine(s string, n int) []string {
	var out []string
	var line strings.Builder
	width, space := 0, -1 // space: bytes of line up to and with its last space
	for g := uniseg.NewGraphemes(s); g.Next(); {
		c := g.Str()
		w := cells(c)
		if width+w > n && width > 0 {
			text := line.String()
			rest := ""
			if space > 0 && c != " " {
				text, rest = text[:space], text[space:]
			}
			out = append(out, strings.TrimRight(text, " "))
			line.Reset()
			line.WriteString(rest)
			width, space = cells(rest), -1
			if c == " " {
				continue // a space that does not fit is the break itself
			}
		}
		line.WriteString(c)
		width += w
		if c == " " {
			space = line.Len()
		}
	}
	return append(out, line.String())
}
