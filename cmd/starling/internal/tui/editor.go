package tui

import (
	"slices"
	"strings"

	"github.com/rivo/uniseg"
)

// editor is the input: text of any number of lines with readline's keys. It works on grapheme
// clusters, so that one key press never leaves half a character behind.
type editor struct {
	text   []string // grapheme clusters; "\n" is a line break
	cursor int      // 0 to len(text)
	killed string   // what ctrl+k, ctrl+u and ctrl+w took, for ctrl+y

	past   []string // inputs sent or cleared, oldest first
	recall int      // index into past while browsing, len(past) when not
	fresh  string   // what was being written before browsing began
}

// maxPast bounds the input history.
const maxPast = 200

func clusters(s string) []string {
	var out []string
	for g := uniseg.NewGraphemes(s); g.Next(); {
		if c := g.Str(); c == "\r\n" {
			out = append(out, "\n")
		} else {
			out = append(out, c)
		}
	}
	return out
}

func (e *editor) String() string { return strings.Join(e.text, "") }

func (e *editor) set(s string) {
	e.text = clusters(s)
	e.cursor = len(e.text)
}

// insert puts text at the cursor. Neighbours may join with it into one cluster.
func (e *editor) insert(s string) {
	before := strings.Join(e.text[:e.cursor], "") + s
	after := strings.Join(e.text[e.cursor:], "")
	e.text = clusters(before + after)
	e.cursor = 0
	for n := 0; e.cursor < len(e.text) && n < len(before); e.cursor++ {
		n += len(e.text[e.cursor])
	}
}

// take removes text[from:to] and returns it.
func (e *editor) take(from, to int) string {
	s := strings.Join(e.text[from:to], "")
	e.text = slices.Delete(e.text, from, to)
	e.cursor = from
	return s
}

// remember files a finished input and empties the line.
func (e *editor) remember() string {
	s := e.String()
	if s != "" && (len(e.past) == 0 || e.past[len(e.past)-1] != s) {
		e.past = append(e.past, s)
		if len(e.past) > maxPast {
			e.past = slices.Delete(e.past, 0, len(e.past)-maxPast)
		}
	}
	e.recall = len(e.past)
	e.set("")
	return s
}

// browse steps through past inputs; false when there is nothing further.
func (e *editor) browse(step int) bool {
	to := e.recall + step
	if to < 0 || to > len(e.past) {
		return false
	}
	if e.recall == len(e.past) {
		e.fresh = e.String()
	}
	e.recall = to
	if to == len(e.past) {
		e.set(e.fresh)
	} else {
		e.set(e.past[to])
	}
	return true
}

func (e *editor) lineStart() int {
	i := e.cursor
	for i > 0 && e.text[i-1] != "\n" {
		i--
	}
	return i
}

func (e *editor) lineEnd() int {
	i := e.cursor
	for i < len(e.text) && e.text[i] != "\n" {
		i++
	}
	return i
}

func isWordSpace(c string) bool { return c == " " || c == "\n" || c == "\t" }

func (e *editor) wordLeft() int {
	i := e.cursor
	for i > 0 && isWordSpace(e.text[i-1]) {
		i--
	}
	for i > 0 && !isWordSpace(e.text[i-1]) {
		i--
	}
	return i
}

func (e *editor) wordRight() int {
	i := e.cursor
	for i < len(e.text) && isWordSpace(e.text[i]) {
		i++
	}
	for i < len(e.text) && !isWordSpace(e.text[i]) {
		i++
	}
	return i
}

// edits maps keystrokes to what they do to the input.
var edits = map[string]func(*editor){
	"left":  func(e *editor) { e.cursor = max(0, e.cursor-1) },
	"right": func(e *editor) { e.cursor = min(len(e.text), e.cursor+1) },
	"home":  func(e *editor) { e.cursor = e.lineStart() },
	"end":   func(e *editor) { e.cursor = e.lineEnd() },
	"backspace": func(e *editor) {
		if e.cursor > 0 {
			e.take(e.cursor-1, e.cursor)
		}
	},
	"delete": func(e *editor) {
		if e.cursor < len(e.text) {
			e.take(e.cursor, e.cursor+1)
		}
	},
	"alt+enter": func(e *editor) { e.insert("\n") },
	"ctrl+k":    func(e *editor) { e.killed = e.take(e.cursor, e.lineEnd()) },
	"ctrl+u":    func(e *editor) { e.killed = e.take(e.lineStart(), e.cursor) },
	"ctrl+w":    func(e *editor) { e.killed = e.take(e.wordLeft(), e.cursor) },
	"alt+d": func(e *editor) {
		at := e.cursor
		e.killed = e.take(at, e.wordRight())
	},
	"ctrl+y": func(e *editor) { e.insert(e.killed) },
	"alt+b":  func(e *editor) { e.cursor = e.wordLeft() },
	"alt+f":  func(e *editor) { e.cursor = e.wordRight() },
	"ctrl+t": func(e *editor) {
		if i := e.cursor; i > 0 && i < len(e.text) {
			e.text[i-1], e.text[i] = e.text[i], e.text[i-1]
			e.cursor++
		}
	},
}

func init() {
	for alias, key := range map[string]string{
		"ctrl+b": "left", "ctrl+a": "home", "ctrl+e": "end",
		"ctrl+h": "backspace", "ctrl+d": "delete", "shift+enter": "alt+enter", "ctrl+j": "alt+enter",
		"alt+backspace": "ctrl+w", "ctrl+left": "alt+b", "ctrl+right": "alt+f", "alt+left": "alt+b", "alt+right": "alt+f",
	} {
		edits[alias] = edits[key]
	}
}

// layout breaks the input into rows of at most width cells and says where the cursor is.
func (e *editor) layout(width int) (rows []string, row, col int) {
	width = max(width, 2)
	var line strings.Builder
	n := 0
	flush := func() {
		rows = append(rows, line.String())
		line.Reset()
		n = 0
	}
	for i, c := range e.text {
		w := cells(c)
		if c != "\n" && n+w > width-1 { // the last column is left for the cursor
			flush()
		}
		if i == e.cursor {
			row, col = len(rows), n
		}
		if c == "\n" {
			flush()
			continue
		}
		line.WriteString(c)
		n += w
	}
	if e.cursor == len(e.text) {
		row, col = len(rows), n
	}
	flush()
	return rows, row, col
}
