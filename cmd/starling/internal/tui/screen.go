package tui

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// Widths from which the side columns are shown, and what they take.
const (
	listFrom, listWidth       = 60, 18
	membersFrom, membersWidth = 100, 20
	maxInputRows              = 6
	minWidth, minHeight       = 20, 6
)

// An overlay has the whole width: what it shows, a QR code above all, needs it.
func (m *model) listWidth() int {
	if m.width < listFrom || m.overlay != nil || m.bare {
		return 0
	}
	return listWidth
}

func (m *model) membersWidth() int {
	c := m.find(m.current)
	if m.width < membersFrom || m.overlay != nil || m.bare || c == nil || c.Kind != kindRoom {
		return 0
	}
	return membersWidth
}

// contentWidth and contentHeight are the size of the message window, in cells.
func (m *model) contentWidth() int {
	w := m.width
	if l := m.listWidth(); l > 0 {
		w -= l + 1
	}
	if r := m.membersWidth(); r > 0 {
		w -= r + 1
	}
	return max(w, 1)
}

func (m *model) contentHeight() int { return m.frame().height }

func (m *model) inputWidth() int { return max(2, m.width-m.metric.width(m.prompt())) }

func (m *model) prompt() string {
	if m.me.Nick == "" || m.width < 40 {
		return "> "
	}
	return m.cut(m.name(m.me.Nick), 16) + "> "
}

// frame is how the rows of the screen are shared out: topic, content, notes, status bar, input.
type frame struct {
	height int // of the content
	notes  []string
	rows   []string // of the input
	cursor cell     // in rows
}

func (m *model) frame() frame {
	rows, places := m.input.layout(m.inputWidth())
	f := frame{rows: rows, cursor: places[m.input.cursor]}
	most := min(maxInputRows, max(1, m.height/3))
	if over := len(rows) - most; over > 0 { // keep the cursor's row in sight
		top := min(max(0, f.cursor.row-most+1), over)
		f.rows, f.cursor.row = rows[top:top+most], f.cursor.row-top
	}
	f.notes = m.notes()
	left := m.height - 2 - len(f.rows)
	f.notes = f.notes[:min(len(f.notes), max(0, left-1))]
	f.height = max(1, left-len(f.notes))
	return f
}

// View implements tea.Model.
func (m *model) View() tea.View {
	if m.width < minWidth || m.height < minHeight {
		lines := m.metric.lines(m.t("too small", minWidth, minHeight), max(1, m.width))
		v := tea.NewView(strings.Join(lines[:min(len(lines), max(1, m.height))], "\n"))
		v.AltScreen, v.ReportFocus = true, true
		return v
	}
	f, width := m.frame(), m.contentWidth()
	content, cursor := m.content(width, f.height)
	list := m.listLines(m.listWidth(), f.height)
	members := m.memberLines(m.membersWidth(), f.height)
	edge := m.theme.dim.paint("│")

	var b strings.Builder
	b.WriteString(m.topicLine())
	for i := range f.height {
		b.WriteByte('\n')
		if list != nil {
			b.WriteString(list[i] + edge)
		}
		if members == nil {
			b.WriteString(m.cut(content[i], width))
		} else {
			b.WriteString(m.fit(content[i], width) + edge + members[i])
		}
	}
	for _, n := range f.notes {
		b.WriteString("\n" + n)
	}
	b.WriteString("\n" + m.statusLine())
	prompt := m.prompt()
	indent := m.metric.width(prompt)
	for i, r := range f.rows {
		if i == 0 {
			b.WriteString("\n" + m.theme.bold.paint(prompt) + r)
		} else {
			b.WriteString("\n" + spaces(indent) + r)
		}
	}
	v := tea.NewView(b.String())
	v.AltScreen, v.ReportFocus = true, true
	v.WindowTitle = m.windowTitle()
	if m.overlay == nil {
		cursor = tea.NewCursor(indent+f.cursor.col, m.height-len(f.rows)+f.cursor.row)
	}
	v.Cursor = cursor
	return v
}

func (m *model) windowTitle() string {
	c := m.find(m.current)
	if c == nil {
		return "starling"
	}
	title := "starling " + m.title(c)
	unread := 0
	for i := range m.conversations {
		if c := &m.conversations[i]; !c.Muted && !m.watched(c) && (c.Mentions > 0 || c.Kind == kindDirect && c.Unread > 0) {
			unread++
		}
	}
	if unread > 0 {
		title = "(" + strconv.Itoa(unread) + ") " + title
	}
	return title
}

// content is the message window, or the overlay in its place.
func (m *model) content(width, height int) (lines []string, cursor *tea.Cursor) {
	r := m.rooms[m.current]
	switch {
	case m.overlay != nil:
		var at cell
		var typed bool
		lines, at, typed = m.overlay.draw(m, width, height)
		if typed {
			cursor = tea.NewCursor(at.col, at.row+1)
		}
	case m.find(m.current) == nil && m.settled:
		lines = []string{m.t("no conversation")}
	case r == nil || !r.loaded && len(r.entries) == 0:
		lines = []string{m.t("loading")}
	default:
		lines = m.view(r, width, height)
	}
	for len(lines) < height {
		lines = append(lines, "")
	}
	return lines[:height], cursor
}

// listLines is the conversation list at the left.
func (m *model) listLines(width, height int) []string {
	if width == 0 {
		return nil
	}
	at := slices.IndexFunc(m.conversations, func(c api.Conversation) bool { return c.ID == m.current })
	top := max(0, at-height+1)
	out := make([]string, 0, height)
	for i := top; i < len(m.conversations) && len(out) < height; i++ {
		out = append(out, m.listLine(i, width))
	}
	return pad(out, width, height)
}

func (m *model) listLine(i, width int) string {
	c := &m.conversations[i]
	mark, count := "  ", ""
	switch {
	case c.Request:
		mark = "? "
	case i < 10:
		mark = strconv.Itoa((i+1)%10) + " "
	}
	unread, mentions := c.Unread, c.Mentions
	if m.watched(c) {
		unread, mentions = 0, 0
	}
	switch {
	case mentions > 0:
		count = " " + strconv.Itoa(unread) + "!"
	case unread > 0:
		count = " " + strconv.Itoa(unread)
	case m.rooms[c.ID] != nil && m.rooms[c.ID].writing.Text != "" && c.ID != m.current:
		count = " …" // something is being written there
	}
	line := m.fit(mark+m.title(c), width-m.metric.width(count)) + count
	switch {
	case c.ID == m.current:
		return m.theme.bar.paint(line)
	case c.Muted:
		return m.theme.dim.paint(line)
	case mentions > 0 || unread > 0 && c.Kind == kindDirect:
		return m.theme.mark.paint(line)
	case unread > 0:
		return m.theme.bold.paint(line)
	}
	return line
}

func pad(lines []string, width, height int) []string {
	for len(lines) < height {
		lines = append(lines, spaces(width))
	}
	return lines[:height]
}

// memberLines is the member list at the right: who is connected first, with how.
func (m *model) memberLines(width, height int) []string {
	r := m.rooms[m.current]
	if width == 0 || r == nil {
		return nil
	}
	online := 0
	for _, who := range r.members {
		if who.Online || who.Own {
			online++
		}
	}
	out := []string{m.theme.dim.paint(m.fit(m.t("members", len(r.members), online), width))}
	for i, who := range r.members {
		if len(out) == height-1 && i < len(r.members)-1 {
			out = append(out, m.theme.dim.paint(m.fit(fmt.Sprintf("+%d", len(r.members)-i), width)))
			break
		}
		if len(out) == height {
			break
		}
		out = append(out, m.memberLine(who, width))
	}
	return pad(out, width, height)
}

func (m *model) memberLine(who api.Member, width int) string {
	path := ""
	if who.Path != "" {
		path = " " + m.cut(m.name(who.Path), width/2)
	}
	left := width - m.metric.width(path)
	mark := roleMark(who.Role)
	name := mark + m.nickIn(who.Nick, who.Fingerprint, who.NickShared, left-len(mark))
	if who.Petname != "" {
		name = mark + m.name(who.Petname)
	}
	name = m.fit(name, left)
	if who.Online || who.Own {
		return m.theme.nick(who.Account).paint(name) + m.theme.dim.paint(path)
	}
	return m.theme.dim.paint(name + path)
}
