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
			return m.seen()
		}
		if _, typing := m.overlay.(*picker); typing || msg.Mod != tea.ModAlt || msg.Code <= ' ' || msg.Code >= 0x7f {
			return m.overlay.key(m, msg)
		}
		m.overlay = nil
		if k == "alt+/" || screenKeys[k] == nil && (msg.Code < '0' || msg.Code > '9') {
			// Esc and the key after it, so quick that the terminal made one of them: the page is left,
			// and what is typed next is a command.
			msg = tea.KeyPressMsg{Code: msg.Code, Text: string(msg.Code)}
		}
		return tea.Batch(m.seen(), m.key(msg))
	}
	if k != "tab" && k != "shift+tab" {
		m.complete = completion{}
	}
	if f := screenKeys[k]; f != nil {
		return f(m)
	}
	if n, ok := strings.CutPrefix(k, "alt+"); ok && len(n) == 1 && n[0] >= '0' && n[0] <= '9' {
		i := (int(n[0]-'0') + 9) % 10 // 0 is the tenth, as on the keyboard
		if i < len(m.conversations) {
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
	}, strings.ToValidUTF8(s, "\ufffd"))
}

var screenKeys map[string]func(*model) tea.Cmd

func init() {
	screenKeys = map[string]func(*model) tea.Cmd{
		"enter":     (*model).enter,
		"esc":       (*model).escape,
		"ctrl+c":    (*model).interrupt,
		"tab":       func(m *model) tea.Cmd { return m.tab(1) },
		"shift+tab": func(m *model) tea.Cmd { return m.tab(-1) },
		"up":        func(m *model) tea.Cmd { return m.recall(-1) },
		"down":      func(m *model) tea.Cmd { return m.recall(1) },
		"pgup":      func(m *model) tea.Cmd { return m.scrollBy(-max(1, m.contentHeight()-2)) },
		"pgdown":    func(m *model) tea.Cmd { return m.scrollBy(max(1, m.contentHeight()-2)) },
		"shift+up":  func(m *model) tea.Cmd { return m.scrollBy(-1) },
		"shift+down": func(m *model) tea.Cmd {
			return m.scrollBy(1)
		},
		"alt+u":    (*model).toUnread,
		"ctrl+n":   func(m *model) tea.Cmd { return m.step(1) },
		"alt+down": func(m *model) tea.Cmd { return m.step(1) },
		"ctrl+p":   func(m *model) tea.Cmd { return m.step(-1) },
		"alt+up":   func(m *model) tea.Cmd { return m.step(-1) },
		"alt+a":    (*model).nextActive,
		"alt+l": func(m *model) tea.Cmd {
			m.bare = !m.bare
			return nil
		},
		"alt+/":  func(m *model) tea.Cmd { return m.open(m.last) },
		"ctrl+g": (*model).quickSwitch,
		"ctrl+f": func(m *model) tea.Cmd { return m.cmdSearch("") },
		"ctrl+l": func(*model) tea.Cmd { return tea.ClearScreen },
		"f1":     func(m *model) tea.Cmd { return m.cmdHelp("") },
		"home":   func(m *model) tea.Cmd { return m.edge("home") },
		"end":    func(m *model) tea.Cmd { return m.edge("end") },
	}
}

// edge moves in the input, or with an empty input to the oldest message loaded or the newest of all.
func (m *model) edge(key string) tea.Cmd {
	if !m.input.empty() {
		edits[key](&m.input)
		return nil
	}
	if key == "home" {
		return m.scrollBy(-1 << 20)
	}
	return m.toEnd()
}

func (m *model) toEnd() tea.Cmd {
	c, r := m.here()
	if c == nil {
		return nil
	}
	if r.hit = ""; !r.atEnd {
		return m.loadNewest(*c)
	}
	r.following, r.skip = true, 0
	return m.seen()
}

// interrupt clears the input first and quits on the second press; what was cleared can be recalled.
func (m *model) interrupt() tea.Cmd {
	if !m.input.empty() {
		if r := m.rooms[m.current]; r != nil && r.writing.Edit != "" {
			m.stopEdit()
			return m.keepDraft()
		}
		m.input.remember()
		m.stopEdit()
		m.say(m.t("cleared"))
		return m.keepDraft()
	}
	if m.quitting {
		return tea.Quit
	}
	m.quitting = true
	m.say(m.t("press again"))
	return nil
}

func (m *model) escape() tea.Cmd {
	m.flash = ""
	m.stopEdit()
	if r := m.rooms[m.current]; r != nil {
		r.hit = ""
		m.style++
	}
	return m.keepDraft()
}

// recall moves between the rows of the input, and from its first or last one through the history.
func (m *model) recall(step int) tea.Cmd {
	if !m.input.moveRow(step, m.inputWidth()) {
		m.input.browse(step)
	}
	return nil
}

// scrollBy moves the view and loads what comes into it.
func (m *model) scrollBy(lines int) tea.Cmd {
	c, r := m.here()
	if c == nil || !r.loaded {
		return nil
	}
	moved := m.scroll(r, lines, m.contentWidth(), m.contentHeight())
	switch {
	case lines < 0 && (moved > lines || r.bottom < pageSize/2):
		return m.loadOlder()
	case lines > 0 && r.bottom > len(r.entries)-pageSize/2 && !r.atEnd:
		return m.loadNewer()
	}
	return m.seen()
}

// toUnread shows the first unread message at the top of the window.
func (m *model) toUnread() tea.Cmd {
	c, r := m.here()
	if c == nil || !r.loaded {
		return nil
	}
	i := r.firstUnread()
	switch {
	case r.unreadFrom == 0 || i < 0 && r.atStart:
		m.say(m.t("nothing unread"))
		return nil
	case i <= 0 && !r.atStart && r.first() != "":
		return m.loadUnread(*c, r.unreadFrom, r.first())
	}
	m.revealUnread(r)
	return m.seen()
}

func (m *model) revealUnread(r *room) {
	if i := r.firstUnread(); i >= 0 {
		r.following = false // which takes a line of the window
		m.reveal(r, i, 0, m.contentWidth(), m.contentHeight())
	}
}

// typingEvery is how often the others are told that this user types.
const typingEvery = 4 * time.Second

// tellTyping tells the others that this user writes, if they want that told.
func (m *model) tellTyping() tea.Cmd {
	c := m.find(m.current)
	if !m.settings.typing || c == nil || m.outage != nil || m.now.Sub(m.typedAt) < typingEvery || strings.HasPrefix(m.input.String(), "/") {
		return nil
	}
	m.typedAt = m.now
	target := c.Target
	return func() tea.Msg {
		_ = m.api.Typing(m.ctx, target) // a live signal: what does not get through is not missed
		return nil
	}
}

// maxInput bounds what can be written at once. It is far over the 16 KiB that a message may have, so
// that a text can be cut to size here.
const maxInput = 48 << 10 // bytes

// paste puts pasted text into the input; several lines ask first whether they are one message.
func (m *model) paste(text string) tea.Cmd {
	text = strings.TrimRight(clean(text), "\n")
	if m.overlay != nil {
		return m.overlay.key(m, tea.KeyPressMsg{Text: strings.ReplaceAll(text, "\n", " ")})
	}
	if len(text)+m.input.bytes() > maxInput {
		m.say(m.t("too long", (len(text)+1023)>>10))
		return nil
	}
	before, cursor := slices.Clone(m.input.text), m.input.cursor
	m.input.insert(text)
	lines := strings.Count(text, "\n") + 1
	if lines == 1 {
		return nil
	}
	m.overlay = &question{
		text: m.t("paste question", lines),
		answers: map[string]func(*model) tea.Cmd{
			"y": (*model).enter,
			"e": func(m *model) tea.Cmd { return m.keepDraft() },
			"n": func(m *model) tea.Cmd {
				m.input.text, m.input.cursor = before, cursor
				return nil
			},
		},
	}
	return nil
}

// enter sends the input, or runs it as a command.
func (m *model) enter() tea.Cmd {
	typed := strings.TrimRight(m.input.String(), "\n ")
	if strings.TrimSpace(typed) == "" {
		return nil
	}
	if name, ok := strings.CutPrefix(typed, "/"); ok && !strings.HasPrefix(name, "/") {
		m.input.remember()
		m.flash = ""
		cmd := m.command(name)
		return tea.Batch(cmd, m.keepDraft())
	}
	return m.sendInput(strings.TrimPrefix(typed, "/"))
}

// sendInput sends what was written to the conversation on screen.
func (m *model) sendInput(text string) tea.Cmd {
	c, r := m.here()
	switch {
	case c == nil:
		m.say(m.t("no conversation"))
		return nil
	case m.outage != nil:
		m.say(m.t("not sent"))
		return nil
	case c.Request:
		m.overlay = &question{text: m.t("answer request", m.title(c)), answers: map[string]func(*model) tea.Cmd{
			"y": func(m *model) tea.Cmd {
				if c := m.find(m.current); c != nil {
					c.Request = false
				}
				return m.sendInput(text)
			},
			"n": func(*model) tea.Cmd { return nil },
		}}
		return nil
	}
	w := &r.writing
	req := api.SendRequest{Target: c.Target, Text: text, ReplyTo: w.Reply}
	kept := ""
	if w.Edit != "" {
		req.Action, req.Ref, req.ReplyTo, kept = api.ActionEdit, w.Edit, "", w.Kept
	}
	m.input.remember()
	m.input.set(kept)
	w.Edit, w.Kept, w.Reply = "", "", ""
	m.flash, r.unreadFrom = "", 0
	return tea.Batch(m.send(req), m.keepDraft(), m.toEnd())
}
