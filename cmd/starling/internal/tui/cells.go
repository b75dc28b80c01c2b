package tui

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// metric counts the cells that text takes on the terminal. It must count as the renderer does: one
// code point at a time, or whole grapheme clusters once the terminal has said that it does that too
// (mode 2027, see https://contour-terminal.org/vt-extensions/unicode-core/). The zero value is the
// former.
type metric ansi.Method

const (
	byRune    = metric(ansi.WcWidth)
	byCluster = metric(ansi.GraphemeWidth)
)

// width is the number of cells of a styled string.
func (w metric) width(s string) int {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return ansi.Method(w).StringWidth(s)
		}
	}
	return len(s)
}

// first splits the first grapheme cluster off plain text.
func (w metric) first(s string) (cluster string, cells int) {
	if s[0] < utf8.RuneSelf && (len(s) == 1 || s[1] < utf8.RuneSelf) {
		if s[0] < ' ' {
			return s[:1], 0
		}
		return s[:1], 1
	}
	return ansi.FirstGraphemeCluster(s, ansi.Method(w))
}

// fit cuts or pads a styled string to exactly n cells.
func (w metric) fit(s string, n int) string {
	if n <= 0 {
		return ""
	}
	have := w.width(s)
	if have > n {
		s = ansi.Method(w).Truncate(s, n, "…")
		have = w.width(s)
	}
	return s + spaces(n-have)
}

// cut shortens a styled string to at most n cells.
func (w metric) cut(s string, n int) string {
	if w.width(s) <= n {
		return s
	}
	return ansi.Method(w).Truncate(s, max(n, 0), "…")
}

// right pads a styled string at its left to n cells, or cuts it.
func (w metric) right(s string, n int) string {
	if have := w.width(s); have < n {
		return spaces(n-have) + s
	}
	return w.fit(s, n)
}

const blanks = "                                                                                                                                "

func spaces(n int) string {
	switch {
	case n <= 0:
		return ""
	case n <= len(blanks):
		return blanks[:n]
	}
	return strings.Repeat(" ", n)
}

const (
	// maxClusterRunes and maxClusterCells bound one grapheme cluster on the screen. The longest in
	// use, families of emoji with skin tones, have eleven code points; the renderer takes four cells.
	maxClusterRunes = 12
	maxClusterCells = 4

	joiner      = '\u200d'
	textForm    = '\ufe0e'
	emojiForm   = '\ufe0f'
	softHyphen  = '\u00ad'
	dottedRing  = "◌"
	firstTone   = '\U0001f3fb'
	lastTone    = '\U0001f3ff'
	keycapFrame = '\u20e3'
)

// settle rewrites escaped text so that terminals agree on how many cells it takes: otherwise one
// emoji moves everything to its right, on that line, for as long as it is seen. On a terminal that
// counts code points, joined emoji stand side by side, skin tones and the choice between text and
// emoji form are left out. What is left out is seen with /raw.
func (w metric) settle(s string) string {
	at := strings.IndexFunc(s, func(r rune) bool { return r >= 0x80 })
	if at < 0 {
		return s
	}
	at = max(0, at-1) // what follows may join the character before it
	var b strings.Builder
	b.Grow(len(s))
	b.WriteString(s[:at])
	for rest := s[at:]; rest != ""; {
		c, cells := w.first(rest)
		rest = rest[len(c):]
		if len(c) == 1 {
			b.WriteString(c)
			continue
		}
		b.WriteString(w.settleCluster(c, cells))
	}
	return b.String()
}

func (w metric) settleCluster(c string, cells int) string {
	if w == byRune {
		c = strings.Map(func(r rune) rune {
			switch {
			case r == textForm, r == emojiForm, r == softHyphen, r == keycapFrame, r == joiner:
				return -1
			case r >= firstTone && r <= lastTone && !strings.HasPrefix(c, string(r)):
				return -1
			}
			return r
		}, c)
		if c == "" {
			return ""
		}
		cells = w.width(c)
	}
	if cells == 0 {
		return dottedRing + c // a mark without anything to stand on
	}
	for n := utf8.RuneCountInString(c); n > maxClusterRunes || cells > maxClusterCells && w.oneCluster(c); n-- {
		_, size := utf8.DecodeLastRuneInString(c)
		c = c[:len(c)-size]
		if n-1 <= maxClusterRunes && w.width(c) <= maxClusterCells {
			return c + string(utf8.RuneError)
		}
		cells = w.width(c)
	}
	return c
}

func (w metric) oneCluster(s string) bool {
	c, _ := w.first(s)
	return len(c) == len(s)
}

// span is a range of bytes of a text.
type span struct{ from, to int }

// wrap breaks plain settled text into lines of at most n cells: at its newlines, at spaces, beside
// Chinese and Japanese characters, and only then inside words. Spaces at a break belong to no line;
// every other byte is in exactly one. A cluster wider than n has a line to itself.
func (w metric) wrap(s string, n int) []span {
	n = max(n, 1)
	var out []span
	for start := 0; ; {
		end := strings.IndexByte(s[start:], '\n')
		if end < 0 {
			return w.wrapLine(out, s, span{start, len(s)}, n)
		}
		out = w.wrapLine(out, s, span{start, start + end}, n)
		start += end + 1
	}
}

// wrapLine appends the lines of s[in], which has no newline.
func (w metric) wrapLine(out []span, s string, in span, n int) []span {
	line := in.from   // where the line begins
	breakEnd := line  // the best place to end it,
	breakNext := line // and where the next would begin; there is none while that is line itself
	cells, sinceBreak := 0, 0
	before := ""
	for at := in.from; at < in.to; {
		c, wide := w.first(s[at:in.to])
		if at > line && c != " " && breaksBetween(before, c) {
			breakEnd, breakNext, sinceBreak = at, at, 0
			if before == " " {
				breakEnd = line + len(strings.TrimRight(s[line:at], " "))
			}
		}
		if cells+wide > n && at > line && c != " " {
			switch {
			case breakNext > line && breakEnd > line:
				out = append(out, span{line, breakEnd})
				line, cells = breakNext, sinceBreak
			case breakNext > line: // an indent as wide as the line
				line, cells = breakNext, sinceBreak
			default:
				out = append(out, span{line, at})
				line, cells = at, 0
			}
			breakNext, sinceBreak = line, cells
			continue // this cluster may still not fit
		}
		cells += wide
		sinceBreak += wide
		before = c
		at += len(c)
	}
	end := in.to
	if cells > n { // spaces that hang over the edge
		end = line + len(strings.TrimRight(s[line:in.to], " "))
	}
	return append(out, span{line, max(end, line)})
}

// breaksBetween says whether a line may end between two neighbouring clusters.
func breaksBetween(before, after string) bool {
	if before == " " {
		return true
	}
	if before == "" || before[0] < utf8.RuneSelf && after[0] < utf8.RuneSelf {
		return false
	}
	a, _ := utf8.DecodeRuneInString(before)
	b, _ := utf8.DecodeRuneInString(after)
	return (isIdeographic(a) || isIdeographic(b)) && !strings.ContainsRune(neverFirst, b) && !strings.ContainsRune(neverLast, a)
}

// neverFirst and neverLast are punctuation that Chinese and Japanese typesetting keeps away from the
// beginning or the end of a line.
const (
	neverFirst = "，。、；：？！）」』】》〉〕”’…—～·ー々,.;:?!)]}%"
	neverLast  = "（「『【《〈〔“‘([{$"
)

func isIdeographic(r rune) bool {
	return r >= 0x2e80 && (unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana) ||
		r >= 0x3000 && r < 0x3040 || r >= 0xff00 && r < 0xff61)
}

// lines is wrap for text that needs no further marks.
func (w metric) lines(s string, n int) []string {
	spans := w.wrap(s, n)
	out := make([]string, len(spans))
	for i, sp := range spans {
		out[i] = s[sp.from:sp.to]
	}
	return out
}
