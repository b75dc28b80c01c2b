package tui

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// editor is the input: text of any number of lines with readline's keys. It works on grapheme
// clusters, so that one key press never leaves half a character behind.
type editor struct {
	metric
	text   []string // grapheme clusters; "\n" is a line break
	cursor int      // 0 to len(text)
	killed string   // what ctrl+k, ctrl+u and ctrl+w took, for ctrl+y

	past   []string // inputs sent or cleared, oldest first
	recall int      // index into past while browsing, len(past) when not
	fresh  string   // what was being written before browsing began
	filed  int      // how many inputs were filed, to see that past changed
}

// maxPast bounds the input history.
const maxPast = 200

func (e *editor) clusters(s string) []string {
	var out []string
	for s != "" {
		c, _ := e.first(s)
		s = s[len(c):]
		out = append(out, c)
	}
	return out
}

func (e *editor) String() string { return strings.Join(e.text, "") }

func (e *editor) empty() bool { return len(e.text) == 0 }

// bytes is how long the text is.
func (e *editor) bytes() (n int) {
	for _, c := range e.text {
		n += len(c)
	}
	return n
}

func (e *editor) set(s string) {
	e.text = e.clusters(s)
	e.cursor = len(e.text)
	e.recall = len(e.past)
}

// insert puts text at the cursor. Neighbours may join with it into one cluster.
func (e *editor) insert(s string) {
	if s == "" {
		return
	}
	from, to := e.cursor, e.cursor
	for from > 0 && e.cursor-from < 2 && e.text[from-1] != "\n" {
		from--
	}
	if to < len(e.text) {
		to++
	}
	before := strings.Join(e.text[from:e.cursor], "") + s
	around := e.clusters(before + strings.Join(e.text[e.cursor:to], ""))
	at, n := from, 0
	for _, c := range around {
		if n >= len(before) {
			break
		}
		n += len(c)
		at++
	}
	e.text = slices.Replace(e.text, from, to, around...)
	e.cursor = at
}

// take removes text[from:to] and returns it. What it leaves may join into one cluster.
func (e *editor) take(from, to int) string {
	s := strings.Join(e.text[from:to], "")
	e.text = slices.Delete(e.text, from, to)
	e.cursor = from
	if from > 0 && from < len(e.text) {
		around := e.clusters(e.text[from-1] + e.text[from])
		if len(around) != 2 {
			e.text = slices.Replace(e.text, from-1, from+1, around...)
			e.cursor = from - 1 + len(around)
		}
	}
	return s
}

// file puts a text into the input history.
func (e *editor) file(s string) {
	if s != "" && (len(e.past) == 0 || e.past[len(e.past)-1] != s) {
		e.past = append(e.past, s)
		if len(e.past) > maxPast {
			e.past = slices.Delete(e.past, 0, len(e.past)-maxPast)
		}
		e.filed++
	}
	e.recall = len(e.past)
}

// remember files a finished input and empties the line.
func (e *editor) remember() {
	e.file(e.String())
	e.set("")
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
	if to == len(e.past) {
		e.set(e.fresh)
	} else {
		e.set(e.past[to])
	}
	e.recall = to
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
	"ctrl+k":    func(e *editor) { e.kill(e.cursor, e.lineEnd()) },
	"ctrl+u":    func(e *editor) { e.kill(e.lineStart(), e.cursor) },
	"ctrl+w":    func(e *editor) { e.kill(e.wordLeft(), e.cursor) },
	"alt+d":     func(e *editor) { e.kill(e.cursor, e.wordRight()) },
	"ctrl+y":    func(e *editor) { e.insert(e.killed) },
	"alt+b":     func(e *editor) { e.cursor = e.wordLeft() },
	"alt+f":     func(e *editor) { e.cursor = e.wordRight() },
	"ctrl+t": func(e *editor) {
		i := e.cursor
		if i > 0 && i == len(e.text) {
			i-- // at the end readline takes the last two
		}
		if i > 0 {
			e.text[i-1], e.text[i] = e.text[i], e.text[i-1]
			e.cursor = i + 1
		}
	},
}

// kill takes text away for ctrl+y; what was killed before stays when there is nothing to take.
func (e *editor) kill(from, to int) {
	if from < to {
		e.killed = e.take(from, to)
	}
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

// cell is a place in the input as it is drawn.
type cell struct{ row, col int }

// layout breaks the input into rows of at most width cells and says where each cluster, and the end,
// is drawn. The last column is left for the cursor.
func (e *editor) layout(width int) (rows []string, places []cell) {
	width = max(width, 3)
	places = make([]cell, 0, len(e.text)+1)
	var line strings.Builder
	n := 0
	flush := func() {
		rows = append(rows, line.String())
		line.Reset()
		n = 0
	}
	for _, c := range e.text {
		if c == "\n" {
			places = append(places, cell{len(rows), n})
			flush()
			continue
		}
		shown := e.cut(e.shown(c), width-1)
		w := e.width(shown)
		if n+w > width-1 {
			flush()
		}
		places = append(places, cell{len(rows), n})
		line.WriteString(shown)
		n += w
	}
	places = append(places, cell{len(rows), n})
	flush()
	return rows, places
}

// moveRow moves the cursor to the row above or below, as near to its column as can be; false when
// there is no such row.
func (e *editor) moveRow(step, width int) bool {
	_, places := e.layout(width)
	at := places[e.cursor]
	best, nearest := -1, 0
	for i, p := range places {
		if d := max(p.col-at.col, at.col-p.col); p.row == at.row+step && (best < 0 || d < nearest) {
			best, nearest = i, d
		}
	}
	if best < 0 {
		return false
	}
	e.cursor = best
	return true
}

// shown is how a cluster of the input is drawn.
func (e *editor) shown(c string) string {
	if c == "\n" || len(c) == 1 && c[0] >= ' ' && c[0] < utf8.RuneSelf {
		return c
	}
	return e.line(c)
}
