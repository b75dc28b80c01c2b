package tui

import (
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// key handles one key press: an overlay first, then the keys of the screen, then the input.
func (m *model) key(msg tea.KeyPressMsg) tea.Cmd {
	k := msg.Keystroke()
	if k != "ctrl+c" {
		m.quitting = false
	}
	if m.overlay != nil {
		if k == "esc" || k == "ctrl+c" {
			m.overlay = nil
			return nil
		}
		return m.overlay.key(m, msg)
	}
	if k != "tab" {
		m.complete = completion{}
	}
	if f := screenKeys[k]; f != nil {
		return f(m)
	}
	if n, ok := strings.CutPrefix(k, "alt+"); ok && len(n) == 1 && n[0] >= '1' && n[0] <= '9' {
		if i := int(n[0] - '1'); i < len(m.conversations) {
			return m.open(m.conversations[i].ID)
		}
		return nil
	}
	if f := edits[k]; f != nil {
		f(&m.input)
		return nil
	}
	if msg.Text != "" {
		m.input.insert(clean(msg.Text))
		return m.tellTyping()
	}
	return nil
}

// clean drops what is no text from what was typed or pasted: control and escape bytes.
func clean(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n") // terminals paste CR
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case r < 0x20, r >= 0x7f && r < 0xa0:
			return -1
		}
		return r
	}, s)
}

var screenKeys map[string]func(*model) tea.Cmd

func init() {
	screenKeys = map[string]func(*model) tea.Cmd{
		"enter":    (*model).enter,
		"esc":      (*model).escape,
		"ctrl+c":   (*model).interrupt,
		"tab":      (*model).tab,
		"up":       func(m *model) tea.Cmd { return m.recall(-1) },
		"down":     func(m *model) tea.Cmd { return m.recall(1) },
		"pgup":     func(m *model) tea.Cmd { return m.scrollBy(-(m.bodyHeight() - 2)) },
		"pgdown":   func(m *model) tea.Cmd { return m.scrollBy(m.bodyHeight() - 2) },
		"alt+u":    (*model).toUnread,
		"ctrl+n":   func(m *model) tea.Cmd { return m.step(1) },
		"alt+down": func(m *model) tea.Cmd { return m.step(1) },
		"ctrl+p":   func(m *model) tea.Cmd { return m.step(-1) },
		"alt+up":   func(m *model) tea.Cmd { return m.step(-1) },
		"alt+a":    (*model).nextActive,
		"alt+/":    func(m *model) tea.Cmd { return m.open(m.last) },
		"ctrl+g":   (*model).quickSwitch,
		"ctrl+f": func(m *model) tea.Cmd {
			m.overlay = newSearch(m)
			return nil
		},
		"ctrl+l": func(*model) tea.Cmd { return tea.ClearScreen },
		"f1":     func(m *model) tea.Cmd { return m.command("help") },
		"home":   func(m *model) tea.Cmd { return m.edge("home", -1<<20) },
		"end":    func(m *model) tea.Cmd { return m.edge("end", 1<<20) },
	}
}

// edge moves in the input, or with an empty input to the oldest or newest message.
func (m *model) edge(key string, lines int) tea.Cmd {
	if len(m.input.text) > 0 {
		edits[key](&m.input)
		return nil
	}
	c, r := m.find(m.current), m.rooms[m.current]
	if c == nil || r == nil {
		return nil
	}
	if lines > 0 && !r.atEnd {
		return m.loadNewest(*c)
	}
	if lines > 0 {
		r.following = true
		return m.markRead(c.ID, r.lastSeq())
	}
	return m.scrollBy(lines)
}

// interrupt clears the input first and quits on the second press; what was cleared can be recalled.
func (m *model) interrupt() tea.Cmd {
	if len(m.input.text) > 0 {
		m.input.remember()
		m.stopEditing()
		m.flash = m.t("cleared")
		return m.keepDraft()
	}
	if m.quitting {
		return tea.Quit
	}
	m.quitting = true
	m.flash = m.t("press again")
	return nil
}

func (m *model) escape() tea.Cmd {
	m.flash = ""
	m.stopEditing()
	return nil
}

func (m *model) stopEditing() {
	if r := m.rooms[m.current]; r != nil && (r.editing != "" || r.replyTo != "") {
		if r.editing != "" {
			m.input.set(r.draft)
		}
		r.editing, r.replyTo = "", ""
	}
}

// recall browses the input history from the first or last row of the input.
func (m *model) recall(step int) tea.Cmd {
	rows, row, _ := m.input.layout(m.inputWidth())
	if step < 0 && row > 0 || step > 0 && row < len(rows)-1 {
		m.moveRow(step)
		return nil
	}
	m.input.browse(step)
	return nil
}

// moveRow moves the cursor to the row above or below, as near to its column as can be.
func (m *model) moveRow(step int) {
	_, row, col := m.input.layout(m.inputWidth())
	best, bestDistance := m.input.cursor, 1<<30
	at := m.input.cursor
	for i := range len(m.input.text) + 1 {
		m.input.cursor = i
		_, r, c := m.input.layout(m.inputWidth())
		if d := max(c-col, col-c); r == row+step && d < bestDistance {
			best, bestDistance = i, d
		}
	}
	m.input.cursor = at
	if bestDistance < 1<<30 {
		m.input.cursor = best
	}
}

func (m *model) step(by int) tea.Cmd {
	i := slices.IndexFunc(m.conversations, func(c api.Conversation) bool { return c.ID == m.current })
	if n := len(m.conversations); n > 0 {
		return m.open(m.conversations[((i+by)%n+n)%n].ID)
	}
	return nil
}

// nextActive goes to the next conversation with something unread, mentions and direct ones first.
func (m *model) nextActive() tea.Cmd {
	best := ""
	urgent := func(c api.Conversation) bool { return c.Mentions > 0 || c.Kind == "dm" }
	for _, c := range m.conversations {
		if c.Unread > 0 && c.ID != m.current && !c.Muted && (best == "" || urgent(c) && !urgent(*m.find(best))) {
			best = c.ID
		}
	}
	if best == "" {
		return nil
	}
	return m.open(best)
}

func (m *model) scrollBy(lines int) tea.Cmd {
	c, r := m.find(m.current), m.rooms[m.current]
	if c == nil || r == nil {
		return nil
	}
	height := m.bodyHeight()
	// A jump to the edge moves within what is loaded: no conversation is walked line by line.
	if limit := 3 * maxLoaded; lines < -limit {
		lines = -limit
	}
	m.scroll(r, lines, m.bodyWidth(), height)
	if lines < 0 {
		if _, top := m.painter.view(r, m.bodyWidth(), height); top || r.bottom < pageSize/2 {
			return m.loadOlder(*c)
		}
		return nil
	}
	if r.bottom > len(r.entries)-pageSize/2 && !r.atEnd {
		return m.loadNewer(*c)
	}
	if r.following {
		return m.markRead(c.ID, r.lastSeq())
	}
	return nil
}

// toUnread scrolls so that the first unread message is at the top of the window.
func (m *model) toUnread() tea.Cmd {
	r := m.rooms[m.current]
	if r == nil || r.unreadFrom == 0 {
		return nil
	}
	i := slices.IndexFunc(r.entries, func(e *entry) bool { return e.msg.Seq >= r.unreadFrom && !e.msg.Own })
	if i < 0 {
		return nil
	}
	lines := 0
	for at := i; at < len(r.entries); at++ {
		lines += len(m.block(r, at, m.bodyWidth()))
		if lines >= m.bodyHeight() {
			r.following, r.bottom, r.skip = false, at, lines-m.bodyHeight()
			return nil
		}
	}
	r.following = r.atEnd
	return nil
}

// tellTyping tells the others that this user writes, if they want that told: once in a few seconds.
func (m *model) tellTyping() tea.Cmd {
	c := m.find(m.current)
	if !m.typingOn || c == nil || m.now.Sub(m.typedAt) < 4*time.Second || strings.HasPrefix(m.input.String(), "/") {
		return nil
	}
	m.typedAt = m.now
	return m.typingSignal(c.Target)
}

// paste puts pasted text into the input; several lines ask first whether they are one message.
func (m *model) paste(text string) tea.Cmd {
	text = strings.TrimRight(clean(text), "\n")
	if m.overlay != nil {
		return m.overlay.key(m, tea.KeyPressMsg{Text: strings.ReplaceAll(text, "\n", " ")})
	}
	m.input.insert(text)
	if lines := strings.Count(text, "\n") + 1; lines > 1 {
		before := strings.TrimSuffix(m.input.String(), text)
		m.overlay = &question{
			text: m.t("paste question", lines),
			answers: map[string]func(*model) tea.Cmd{
				"y": (*model).enter,
				"e": func(*model) tea.Cmd { return nil },
				"n": func(m *model) tea.Cmd {
					m.input.set(before)
					return nil
				},
			},
		}
	}
	return nil
}

// enter sends the input, or runs it as a command.
func (m *model) enter() tea.Cmd {
	text := strings.TrimRight(m.input.String(), "\n ")
	if strings.TrimSpace(text) == "" {
		return nil
	}
	if name, ok := strings.CutPrefix(text, "/"); ok && !strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "me ") {
		m.input.remember()
		m.flash = ""
		return tea.Batch(m.command(name), m.keepDraft())
	}
	c := m.find(m.current)
	if c == nil {
		m.flash = m.t("no conversation")
		return nil
	}
	text = strings.TrimPrefix(text, "/")
	if strings.HasPrefix(m.input.String(), "/me ") {
		text = "/" + text
	}
	r := m.room(c.ID)
	req := api.SendRequest{Target: c.Target, Text: text, ReplyTo: r.replyTo}
	if r.editing != "" {
		req.Action, req.Ref = api.ActionEdit, r.editing
	}
	m.input.remember()
	r.editing, r.replyTo, r.unreadFrom = "", "", 0
	m.flash = ""
	cmds := []tea.Cmd{m.send(req), m.keepDraft()}
	if !r.atEnd {
		cmds = append(cmds, m.loadNewest(*c))
	}
	r.following = r.atEnd
	return tea.Batch(cmds...)
}
