package tui

import (
	"context"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// overlay is a view that takes the place of the messages until Esc. It gets every key but Esc.
type overlay interface {
	key(m *model, msg tea.KeyPressMsg) tea.Cmd
	// draw returns at most height lines and, when it has an input, the cursor's place in them.
	draw(m *model, width, height int) (lines []string, row, col int, cursor bool)
}

// pager shows text that may be longer than the screen.
type pager struct {
	title string
	lines []string
	top   int
}

func (p *pager) key(m *model, msg tea.KeyPressMsg) tea.Cmd {
	page := m.bodyHeight() - 2
	switch msg.Keystroke() {
	case "up", "k":
		p.top--
	case "down", "j":
		p.top++
	case "pgup", "b":
		p.top -= page
	case "pgdown", "space":
		p.top += page
	case "home":
		p.top = 0
	case "end":
		p.top = len(p.lines)
	case "q", "enter":
		m.overlay = nil
	}
	p.top = max(0, min(p.top, len(p.lines)-page))
	return nil
}

func (p *pager) draw(m *model, width, height int) ([]string, int, int, bool) {
	out := []string{m.theme.bold.Render(fit(p.title, width))}
	for _, line := range p.lines[min(p.top, len(p.lines)):] {
		if len(out) == height-1 {
			break
		}
		out = append(out, fit(line, width))
	}
	return append(out, m.theme.dim.Render(m.t("close"))), 0, 0, false
}

// show opens a pager. Lines are escaped by whoever made them.
func (m *model) show(title, text string) {
	if strings.TrimSpace(text) == "" {
		text = m.t("nothing")
	}
	var lines []string
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		lines = append(lines, wrap(line, m.bodyWidth())...)
	}
	m.overlay = &pager{title: title, lines: lines}
}

// question waits for one of a few letters.
type question struct {
	text    string
	answers map[string]func(*model) tea.Cmd
}

func (q *question) key(m *model, msg tea.KeyPressMsg) tea.Cmd {
	f := q.answers[strings.ToLower(msg.Text)]
	if f == nil {
		return nil
	}
	m.overlay = nil
	return f(m)
}

func (q *question) draw(m *model, width, height int) ([]string, int, int, bool) {
	var out []string
	for _, line := range wrap(q.text, width) {
		out = append(out, m.theme.bold.Render(line))
	}
	return append(out, wrap(api.EscapeText(m.input.String()), width)...), 0, 0, false
}

// choice is one line of a picker.
type choice struct {
	label string // escaped
	pick  func(*model) tea.Cmd
}

// picker filters a list by what is typed.
type picker struct {
	title   string
	filter  editor
	choices []choice
	at      int
	// ask, if set, makes the list anew from what was typed when Enter is pressed on a changed text.
	ask   func(m *model, text string) tea.Cmd
	asked string
}

func (p *picker) shown() []choice {
	want := strings.ToLower(p.filter.String())
	if want == "" || p.ask != nil {
		return p.choices
	}
	var out []choice
	for _, c := range p.choices {
		if strings.Contains(strings.ToLower(c.label), want) {
			out = append(out, c)
		}
	}
	return out
}

func (p *picker) key(m *model, msg tea.KeyPressMsg) tea.Cmd {
	list := p.shown()
	switch k := msg.Keystroke(); {
	case k == "up" || k == "ctrl+p":
		p.at--
	case k == "down" || k == "ctrl+n":
		p.at++
	case k == "enter":
		if text := p.filter.String(); p.ask != nil && text != p.asked {
			p.asked, p.at = text, 0
			return p.ask(m, text)
		}
		if p.at < len(list) {
			m.overlay = nil
			return list[p.at].pick(m)
		}
	case edits[k] != nil:
		edits[k](&p.filter)
		p.at = 0
	case msg.Text != "":
		p.filter.insert(clean(msg.Text))
		p.at = 0
	}
	p.at = max(0, min(p.at, len(p.shown())-1))
	return nil
}

func (p *picker) draw(m *model, width, height int) ([]string, int, int, bool) {
	head := p.title + ": "
	rows, _, col := p.filter.layout(max(2, width-cells(head)))
	out := []string{m.theme.bold.Render(head) + rows[0]}
	list := p.shown()
	top := max(0, p.at-(height-3))
	for i := top; i < len(list) && len(out) < height-1; i++ {
		line := fit(list[i].label, width)
		if i == p.at {
			line = m.theme.bar.Render(fit("> "+list[i].label, width))
		}
		out = append(out, line)
	}
	if len(list) == 0 && (p.ask == nil || p.asked != "") {
		out = append(out, m.theme.dim.Render(m.t("no hits")))
	}
	return append(out, m.theme.dim.Render(m.t("close"))), 0, cells(head) + col, true
}

// quickSwitch offers every conversation by name, those with something unread first.
func (m *model) quickSwitch() tea.Cmd {
	p := &picker{title: m.t("switch")}
	for _, unread := range []bool{true, false} {
		for _, c := range m.conversations {
			if (c.Unread > 0) != unread {
				continue
			}
			label := api.EscapeNick(c.Target)
			if unread {
				label += " (" + itoa(c.Unread) + ")"
			}
			p.choices = append(p.choices, choice{label, func(m *model) tea.Cmd { return m.open(c.ID) }})
		}
	}
	m.overlay = p
	return nil
}

// newSearch searches the conversation on screen, or everywhere when none is.
func newSearch(m *model) *picker {
	p := &picker{title: m.t("search")}
	in := ""
	if c := m.find(m.current); c != nil {
		in = c.Target
	}
	p.ask = func(m *model, text string) tea.Cmd {
		return m.search(p, api.SearchQuery{Query: text, In: in, N: pageSize})
	}
	return p
}

func (m *model) search(p *picker, q api.SearchQuery) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		hits, err := m.api.Search(ctx, q)
		return func(m *model) tea.Cmd {
			p.choices = nil
			for _, h := range hits {
				label := h.SentAt.In(m.zone).Format("2006-01-02 15:04") + " " +
					m.nickOf(h.Nick, h.Fingerprint, h.NickShared) + ": " + api.Escape(h.Text)
				p.choices = append(p.choices, choice{label, func(m *model) tea.Cmd { return m.jump(h) }})
			}
			return nil
		}, err
	})
}

// jump goes to a message found by search.
func (m *model) jump(msg api.Message) tea.Cmd {
	c := m.find(msg.Conversation)
	if c == nil {
		return nil
	}
	open := m.open(c.ID)
	return tea.Batch(open, m.loadAround(*c, msg.ID))
}
