package tui

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/text/unicode/norm"
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
	cells := 0
	for at := 0; at < len(s); {
		if n := sequence(s[at:]); n > 0 {
			at += n
			continue
		}
		c, n := w.first(s[at:])
		cells += n
		at += len(c)
	}
	return cells
}

// sequence is the length of the escape sequence that s begins with, as styles and hyperlinks have
// them; 0 for none.
func sequence(s string) int {
	if len(s) < 2 || s[0] != '\x1b' {
		return 0
	}
	switch s[1] {
	case '[':
		for i := 2; i < len(s); i++ {
			if s[i] >= '@' && s[i] <= '~' {
				return i + 1
			}
		}
	case ']':
		if end := strings.Index(s, "\x1b\\"); end > 0 {
			return end + 2
		}
	}
	return len(s)
}

// first splits the first grapheme cluster off plain text. Where terminals that count code points may
// take more cells than the renderer believes, for the spacing marks of Indic scripts, it gives the
// larger number: a line may then look short, and never runs over its end.
func (w metric) first(s string) (cluster string, cells int) {
	if s[0] < utf8.RuneSelf && (len(s) == 1 || s[1] < utf8.RuneSelf) {
		if s[0] < ' ' {
			return s[:1], 0
		}
		return s[:1], 1
	}
	cluster, cells = ansi.FirstGraphemeCluster(s, ansi.Method(w))
	if w == byRune && len(cluster) > utf8.UTFMax {
		cells = max(cells, runeCells(cluster))
	}
	return cluster, cells
}

// runeCells adds up what the code points of a cluster take on a terminal that knows no clusters.
// Emoji that are joined or toned are not among them: settle takes those apart.
func runeCells(cluster string) (cells int) {
	for i, r := range cluster {
		switch {
		case unicode.Is(unicode.Mc, r):
			cells++
		case i == 0 || unicode.In(r, unicode.Devanagari, unicode.Bengali, unicode.Gujarati, unicode.Malayalam, unicode.Oriya, unicode.Telugu):
			cells += ansi.WcWidth.StringWidth(string(r)) // a consonant joined to the one before
		}
	}
	return cells
}

// fit cuts or pads a styled string to exactly n cells.
func (w metric) fit(s string, n int) string {
	s = w.cut(s, n)
	return s + spaces(n-w.width(s))
}

// cut shortens a styled string to at most n cells. Sequences behind the cut stay, since they end
// styles.
func (w metric) cut(s string, n int) string {
	if len(s) <= n || w.width(s) <= n {
		return s
	}
	var b strings.Builder
	cells, full := 0, n <= 0
	for at := 0; at < len(s); {
		if size := sequence(s[at:]); size > 0 {
			b.WriteString(s[at : at+size])
			at += size
			continue
		}
		c, wide := w.first(s[at:])
		at += len(c)
		switch {
		case full:
		case cells+wide > n-1:
			full = true
			b.WriteString("…")
		default:
			cells += wide
			b.WriteString(c)
		}
	}
	return b.String()
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
	c, long := firstRunes(c, maxClusterRunes)
	if c[0] < utf8.RuneSelf {
		// The renderer takes an ASCII character for a cell of its own and loses what joins it. As one
		// code point, where there is one, it is shown whole.
		if c = norm.NFC.String(c); c[0] < utf8.RuneSelf {
			c = c[:1]
		}
		cells = w.width(c)
	}
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
	}
	if long || w == byRune {
		cells = w.width(c)
	}
	if first, _ := utf8.DecodeRuneInString(c); cells == 0 || unicode.In(first, unicode.M) {
		c = dottedRing + c // a mark without anything to stand on
		cells = w.width(c)
	}
	for cells > maxClusterCells && w.oneCluster(c) {
		_, size := utf8.DecodeLastRuneInString(c)
		c, long = c[:len(c)-size], true
		cells = w.width(c)
	}
	if long {
		c += string(utf8.RuneError)
	}
	return c
}

// firstRunes cuts s after n code points, and says whether it did.
func firstRunes(s string, n int) (string, bool) {
	for i := range s {
		if n == 0 {
			return s[:i], true
		}
		n--
	}
	return s, false
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
