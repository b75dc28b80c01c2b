package tui

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

func itoa(n int) string { return strconv.Itoa(n) }

// Widths from which the side columns are shown, and what they take.
const (
	listFrom, listWidth       = 60, 18
	membersFrom, membersWidth = 100, 20
	maxInputRows              = 6
	minWidth, minHeight       = 20, 6
)

func (m *model) listWidth() int {
	if m.width < listFrom {
		return 0
	}
	return listWidth
}

func (m *model) membersWidth() int {
	c := m.find(m.current)
	if m.width < membersFrom || c == nil || c.Kind != "room" {
		return 0
	}
	return membersWidth
}

// bodyWidth and bodyHeight are the size of the message window, in cells.
func (m *model) bodyWidth() int {
	w := m.width
	if l := m.listWidth(); l > 0 {
		w -= l + 1
	}
	if r := m.membersWidth(); r > 0 {
		w -= r + 1
	}
	return max(w, 1)
}

func (m *model) inputWidth() int { return max(2, m.width-cells(m.prompt())) }

func (m *model) prompt() string {
	if m.me.Nick == "" || m.width < 40 {
		return "> "
	}
	nick := api.EscapeNick(m.me.Nick)
	return fit(nick, min(cells(nick), 16)) + "> "
}

func (m *model) inputRows() (rows []string, row, col int) {
	rows, row, col = m.input.layout(m.inputWidth())
	most := min(maxInputRows, max(1, m.height/3))
	if over := len(rows) - most; over > 0 { // keep the cursor's row in sight
		top := min(max(0, row-most+1), over)
		rows, row = rows[top:top+most], row-top
	}
	return rows, row, col
}

// bodyHeight is what the topic line, the notices, the status bar and the input leave.
func (m *model) bodyHeight() int {
	rows, _, _ := m.inputRows()
	return max(1, m.height-2-len(rows)-len(m.notes()))
}

// notes are the lines between messages and status bar: gaps, typing, what is being answered or
// edited, and what the last command said.
func (m *model) notes() []string {
	var out []string
	if c := m.find(m.current); c != nil {
		for i, g := range c.Gaps {
			if i == 2 {
				break
			}
			out = append(out, m.theme.warn.Render(m.t("gap", g.Count, m.nickOf(g.Nick, "", false))))
		}
	}
	r := m.rooms[m.current]
	if r != nil && !r.following {
		if n := len(r.entries) - 1 - r.bottom; n > 0 || !r.atEnd {
			out = append(out, m.theme.dim.Render(m.t("more below", n)))
		}
	}
	if r != nil && len(r.typing) > 0 {
		var names []string
		for _, t := range r.typing {
			names = append(names, t.nick)
		}
		slices.Sort(names)
		out = append(out, m.theme.dim.Render(m.t("typing", strings.Join(names, ", "))))
	}
	if r != nil && r.editing != "" {
		out = append(out, m.theme.accent.Render(m.t("editing")))
	}
	if r != nil && r.replyTo != "" {
		if e := r.byID[r.replyTo]; e != nil {
			out = append(out, m.theme.accent.Render(m.t("replying", m.nickOf(e.msg.Nick, e.msg.Fingerprint, e.msg.NickShared), api.Escape(e.msg.Text))))
		}
	}
	if m.flash != "" {
		out = append(out, m.theme.accent.Render(m.flash))
	}
	return out
}

// View implements tea.Model.
func (m *model) View() tea.View {
	if m.width < minWidth || m.height < minHeight {
		v := tea.NewView(strings.Join(wrap(m.t("too small"), max(1, m.width)), "\n"))
		v.AltScreen = true
		return v
	}
	width, height := m.bodyWidth(), m.bodyHeight()
	body, cursor := m.body(width, height)
	list := m.listLines(m.listWidth(), height)
	members := m.memberLines(m.membersWidth(), height)

	var b strings.Builder
	b.WriteString(m.topicLine())
	for i := range height {
		b.WriteByte('\n')
		if list != nil {
			b.WriteString(list[i] + m.theme.dim.Render("│"))
		}
		b.WriteString(fit(body[i], width))
		if members != nil {
			b.WriteString(m.theme.dim.Render("│") + members[i])
		}
	}
	for _, n := range m.notes() {
		b.WriteString("\n" + fit(n, m.width))
	}
	b.WriteString("\n" + m.statusLine())
	rows, row, col := m.inputRows()
	prompt := m.prompt()
	for i, r := range rows {
		if i == 0 {
			b.WriteString("\n" + m.theme.bold.Render(prompt) + r)
		} else {
			b.WriteString("\n" + strings.Repeat(" ", cells(prompt)) + r)
		}
	}
	v := tea.NewView(b.String())
	v.AltScreen = true
	v.WindowTitle = m.title()
	if cursor == nil {
		cursor = tea.NewCursor(cells(prompt)+col, m.height-len(rows)+row)
	}
	if _, ok := m.overlay.(*question); !ok {
		v.Cursor = cursor
	}
	return v
}

func (m *model) title() string {
	c := m.find(m.current)
	if c == nil {
		return "starling"
	}
	return "starling " + api.EscapeNick(c.Target)
}

// body is the message window, or the overlay in its place.
func (m *model) body(width, height int) (lines []string, cursor *tea.Cursor) {
	r := m.rooms[m.current]
	switch {
	case m.overlay != nil:
		out, row, col, has := m.overlay.draw(m, width, height)
		lines = out
		if has {
			x := col
			if l := m.listWidth(); l > 0 {
				x += l + 1
			}
			cursor = tea.NewCursor(x, row+1)
		}
	case r == nil:
		lines = []string{m.t("no conversation")}
	case !r.loaded:
		lines = []string{m.t("loading")}
	default:
		lines, _ = m.painter.view(r, width, height)
	}
	for len(lines) < height {
		lines = append(lines, "")
	}
	return lines[:height], cursor
}

func (m *model) topicLine() string {
	c := m.find(m.current)
	text := "starling"
	if c != nil {
		text = api.EscapeNick(c.Target)
		if c.Topic != "" {
			text += "  " + api.Escape(c.Topic)
		}
		if c.Trust != "" {
			text += "  [" + api.EscapeNick(c.Trust) + "]"
		}
	}
	return m.theme.bar.Render(fit(" "+text, m.width))
}

// listLines is the conversation list at the left.
func (m *model) listLines(width, height int) []string {
	if width == 0 {
		return nil
	}
	var out []string
	at := 0
	for i, c := range m.conversations {
		mark := itoa(i+1) + " "
		if i >= 9 {
			mark = "  "
		}
		count := ""
		switch {
		case c.Mentions > 0:
			count = " " + itoa(c.Unread) + "!"
		case c.Unread > 0:
			count = " " + itoa(c.Unread)
		}
		if c.Request {
			mark = "? "
		}
		line := fit(mark+api.EscapeNick(c.Target), width-cells(count)) + count
		switch {
		case c.ID == m.current:
			line, at = m.theme.bar.Render(line), i
		case c.Mentions > 0 || c.Unread > 0 && c.Kind == "dm":
			line = m.theme.mark.Render(line)
		case c.Unread > 0:
			line = m.theme.bold.Render(line)
		case c.Muted:
			line = m.theme.dim.Render(line)
		}
		out = append(out, line)
	}
	if top := at - height + 1; top > 0 {
		out = out[top:]
	}
	return pad(out, width, height)
}

func pad(lines []string, width, height int) []string {
	for len(lines) < height {
		lines = append(lines, strings.Repeat(" ", width))
	}
	return lines[:height]
}

// memberLines is the member list at the right: who is connected first, with how.
func (m *model) memberLines(width, height int) []string {
	r := m.rooms[m.current]
	if width == 0 || r == nil {
		return nil
	}
	list := slices.Clone(r.members)
	slices.SortStableFunc(list, func(a, b api.Member) int {
		if a.Online != b.Online {
			if a.Online {
				return -1
			}
			return 1
		}
		return strings.Compare(strings.ToLower(a.Nick), strings.ToLower(b.Nick))
	})
	out := []string{m.theme.dim.Render(fit(fmt.Sprintf("%s %d", m.t("members"), len(list)), width))}
	for _, who := range list {
		name := m.nickOf(who.Nick, who.Fingerprint, who.NickShared)
		if who.Petname != "" {
			name = api.EscapeNick(who.Petname)
		}
		path := who.Path
		if path != "" {
			path = " " + path
		}
		line := fit(name, width-cells(path))
		if who.Online || who.Own {
			line = m.theme.nick(who.Account).Render(line) + m.theme.dim.Render(path)
		} else {
			line = m.theme.dim.Render(line + path)
		}
		out = append(out, line)
	}
	return pad(out, width, height)
}

// statusLine is the bar over the input. It says first what is wrong.
func (m *model) statusLine() string {
	parts := []string{m.now.In(m.zone).Format("15:04")}
	if c := m.find(m.current); c != nil {
		parts = append(parts, api.EscapeNick(c.Target))
	}
	if p := m.problem(); p != "" {
		line := "[" + strings.Join(parts, "] [") + "] " + p
		return m.theme.warn.Render(fit(line, m.width))
	}
	peers := m.t("peers", m.status.Peers.Total)
	if n := m.status.Peers.Relayed; n > 0 {
		peers += ", " + m.t("relayed", n)
	}
	parts = append(parts, peers)
	if n := m.status.Outbox; n > 0 {
		parts = append(parts, m.t("outbox", n))
	}
	if n := m.status.Gaps; n > 0 {
		parts = append(parts, m.t("gaps", n))
	}
	var active []string
	for i, c := range m.conversations {
		if c.Unread > 0 && c.ID != m.current && !c.Muted {
			name := itoa(i + 1)
			if c.Kind == "dm" || c.Mentions > 0 {
				name = api.EscapeNick(c.Target) + "(" + itoa(c.Unread) + ")"
			}
			active = append(active, name)
		}
	}
	if len(active) > 0 {
		parts = append(parts, m.t("active", strings.Join(active, ",")))
	}
	return m.theme.bar.Render(fit("["+strings.Join(parts, "] [")+"]", m.width))
}

// problem is the worst thing the user should know, or nothing.
func (m *model) problem() string {
	switch {
	case m.outage != nil:
		return m.t("node gone")
	case m.status.Storage.State == "read_only" || m.status.Storage.State == "no_history":
		return m.t("disk")
	case len(m.status.Problems) > 0:
		return api.Escape(m.status.Problems[0])
	case m.status.Schema > 0 && m.status.Peers.Total == 0:
		return m.t("not connected", m.t("nobody"))
	}
	return ""
}
