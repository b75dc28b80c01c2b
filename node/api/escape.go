package api

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxMarks is how many combining marks and joiners may follow one base character before the rest
// of the run is replaced by one U+FFFD. Living scripts stay below six; a longer run only serves
// to paint over the neighbouring lines.
const MaxMarks = 6

// tabWidth is how many spaces [EscapeText] writes for a tab: a terminal's own tab stops
// depend on the column, which the caller that lays out does not want to track.
const tabWidth = 4

// noName stands for a nick without anything visible in it.
const noName = "?"

// Escape makes text from a peer safe for one line of a terminal, a log or a table. The result
// holds no newline, no control character, no bidirectional control and no invalid UTF-8: each is
// shown as an escape such as \n, \x1b, \u202e. Joiners that emoji and several scripts need stay.
// A backslash of the text stays as it is, so the result is for reading, not for parsing.
//
// Escape, [EscapeText] and [EscapeNick] are the one choke point between peers and everything a
// person sees outside JSON. All three are idempotent.
func Escape(s string) string { return escape(s, oneLine) }

// EscapeText is [Escape] for callers that lay out several lines: a newline (also CR LF) stays as
// "\n", a tab becomes four spaces.
func EscapeText(s string) string { return escape(s, manyLines) }

// EscapeNick is [Escape] for names. A name must not look like another by what cannot be seen:
// zero-width characters are shown as escapes too (except inside an emoji), whitespace of
// any kind becomes single spaces, and a name with nothing visible becomes "?".
func EscapeNick(s string) string {
	s = escape(s, name)
	if s == "" {
		return noName
	}
	return s
}

type escapeMode int

const (
	oneLine escapeMode = iota
	manyLines
	name
)

func escape(s string, mode escapeMode) string {
	if plain(s, mode) {
		return s
	}
	e := escaper{mode: mode}
	e.out.Grow(len(s) + len(s)/4)
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			e.visible(fmt.Sprintf(`\x%02x`, s[i]))
		case r == '\r' && mode == manyLines && i+1 < len(s) && s[i+1] == '\n':
			// The newline that follows says it all.
		default:
			e.rune(r)
		}
		i += size
	}
	return e.out.String()
}

// plain reports whether s is printable ASCII that every mode leaves alone, which is most text.
func plain(s string, mode escapeMode) bool {
	for i := range len(s) {
		c := s[i]
		if c >= 0x7f || c < 0x20 && (c != '\n' || mode != manyLines) {
			return false
		}
		if c == ' ' && mode == name && (i == 0 || i == len(s)-1 || s[i-1] == ' ') {
			return false
		}
	}
	return true
}

type escaper struct {
	out   strings.Builder
	mode  escapeMode
	marks int  // combining marks since the last base character
	last  rune // last rune written as itself
	space bool // name mode: a space is due before the next visible rune
}

func (e *escaper) rune(r rune) {
	switch {
	case e.mode == name && isSpace(r):
		e.space = e.out.Len() > 0
	case r == '\n' && e.mode == manyLines:
		e.base(r)
	case r == '\n':
		e.visible(`\n`)
	case r == '\r':
		e.visible(`\r`)
	case r == '\t' && e.mode == manyLines:
		e.base(' ')
		e.out.WriteString(strings.Repeat(" ", tabWidth-1))
	case r == '\t':
		e.visible(`\t`)
	case r < 0x20 || r == 0x7f:
		e.visible(fmt.Sprintf(`\x%02x`, r))
	case isJoiner(r) || unicode.In(r, unicode.Mn, unicode.Me):
		e.mark(r)
	case isDangerous(r) || e.mode == name && isInvisible(r):
		e.visible(quoteRune(r))
	default:
		e.base(r)
	}
}

// mark writes a character that changes the one before it.
func (e *escaper) mark(r rune) {
	if e.mode == name && isInvisible(r) && !e.inEmoji() {
		e.visible(quoteRune(r))
		return
	}
	e.marks++
	switch {
	case e.marks <= MaxMarks:
		e.flushSpace()
		e.out.WriteRune(r)
		e.last = r
	case e.marks == MaxMarks+1:
		e.out.WriteRune(utf8.RuneError)
	}
}

// inEmoji reports whether a joiner or variation selector here continues an emoji.
func (e *escaper) inEmoji() bool {
	if e.space {
		return false
	}
	return unicode.In(e.last, unicode.So, unicode.Sk) || e.last == variation16
}

func (e *escaper) base(r rune) {
	e.flushSpace()
	e.out.WriteRune(r)
	e.last, e.marks = r, 0
}

func (e *escaper) visible(s string) {
	e.flushSpace()
	e.out.WriteString(s)
	e.last, e.marks = 0, 0
}

func (e *escaper) flushSpace() {
	if e.space {
		e.out.WriteByte(' ')
		e.space, e.marks, e.last = false, 0, ' '
	}
}

func quoteRune(r rune) string {
	if r > 0xffff {
		return fmt.Sprintf(`\U%08x`, r)
	}
	return fmt.Sprintf(`\u%04x`, r)
}

const (
	zeroWidthNonJoiner = '\u200c' // Persian and several Indic scripts need it
	zeroWidthJoiner    = '\u200d' // emoji and Indic scripts need it
	variation16        = '\ufe0f' // asks for the emoji form
	softHyphen         = '\u00ad'
	brailleBlank       = '\u2800'
)

func isJoiner(r rune) bool { return r == zeroWidthJoiner || r == zeroWidthNonJoiner }

func isSpace(r rune) bool {
	return unicode.IsSpace(r) || unicode.Is(unicode.Z, r) || r == brailleBlank
}

// isDangerous says what no terminal may get from a peer, in a text or a name: C1, line and paragraph
// separators, format characters (all bidirectional controls, tags, the byte order mark), noncharacters.
func isDangerous(r rune) bool {
	switch {
	case r >= 0x80 && r < 0xa0:
		return true
	case unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp):
		return r != softHyphen
	case r&0xfffe == 0xfffe, r >= 0xfdd0 && r <= 0xfdef:
		return true
	}
	return false
}

// isInvisible says what takes no ink and so may not hide in a name.
func isInvisible(r rune) bool {
	switch r {
	case softHyphen, '\u034f', '\u115f', '\u1160', '\u17b4', '\u17b5', '\u3164', '\uffa0':
		return true // soft hyphen, grapheme joiner, Hangul fillers, Khmer inherent vowels
	}
	return isJoiner(r) || r >= 0xfe00 && r <= 0xfe0f || r >= 0x180b && r <= 0x180f || r >= 0xe0100 && r <= 0xe01ef
}
