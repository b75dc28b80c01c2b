package tui

import (
	"strings"

	tea "charm.land/bubbletea/v2"
)

// overlay is a view that takes the place of the messages until Esc. It gets every key but Esc.
type overlay interface {
	key(m *model, msg tea.KeyPressMsg) tea.Cmd
	// draw returns at most height lines and, when something is typed in it, the cursor's place.
	draw(m *model, width, height int) (lines []string, cursor cell, typed bool)
}

// close ends an overlay.
func (m *model) closeOverlay() tea.Cmd {
	m.overlay = nil
	return m.seen()
}

// pager shows text that may be longer than the screen.
type pager struct {
	title string
	text  string                // escaped
	make  func(m *model) string // makes the text anew for the width of the screen
	whole bool                  // its lines must not be broken: a drawing
	keys  string                // what answers do, for the last line
	// answers are further keys; each closes the pager.
	answers map[string]func(*model) tea.Cmd
	lines   []string
	top     int
}

// show opens a pager.
func (m *model) show(p *pager) {
	m.overlay = p
	p.lay(m)
	if strings.TrimSpace(p.text) == "" {
		p.text = m.t("nothing")
		p.lay(m)
	}
}

// lay breaks the text to the width of the screen.
func (p *pager) lay(m *model) {
	if p.make != nil {
		p.text = p.make(m)
	}
	text := strings.TrimRight(p.text, "\n")
	if p.whole {
		p.lines = strings.Split(text, "\n")
	} else {
		p.lines = m.metric.lines(text, m.contentWidth())
	}
}

func (p *pager) key(m *model, msg tea.KeyPressMsg) tea.Cmd {
	page := max(1, m.contentHeight()-2)
	if f := p.answers[strings.ToLower(msg.Text)]; f != nil {
		m.overlay = nil
		return f(m)
	}
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
		return m.closeOverlay()
	}
	p.top = max(0, min(p.top, len(p.lines)-page))
	return nil
}

func (p *pager) draw(m *model, width, height int) ([]string, cell, bool) {
	out := []string{m.theme.bold.paint(m.fit(p.title, width))}
	p.top = max(0, min(p.top, len(p.lines)-(height-2)))
	rest := p.lines[p.top:]
	shown := rest[:min(len(rest), max(0, height-2))]
	for _, line := range shown {
		out = append(out, m.cut(line, width))
	}
	for len(out) < height-1 {
		out = append(out, "")
	}
	foot := m.t("close")
	if len(shown) < len(p.lines) {
		foot = m.t("page", p.top+len(shown), len(p.lines)) + "  " + foot
	}
	if p.keys != "" {
		foot = p.keys + "  " + foot
	}
	return append(out, m.theme.dim.paint(m.cut(foot, width))), cell{}, false
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
	return tea.Batch(f(m), m.seen())
}

func (q *question) draw(m *model, width, height int) ([]string, cell, bool) {
	var out []string
	for _, line := range m.metric.lines(q.text, width) {
		out = append(out, m.theme.bold.paint(line))
	}
	return append(out, m.metric.lines(m.metric.body(m.input.String()), width)...), cell{}, false
}

// choice is one line of a picker.
type choice struct {
	label string // escaped
	pick  func(*model) tea.Cmd
}

// picker is a list that is filtered by what is typed, or asked for anew.
type picker struct {
	title   string
	filter  editor
	choices []choice
	at      int
	// ask, if set, makes the list from what was typed when Enter is pressed on a changed text.
	ask     func(m *model, text string) tea.Cmd
	asked   string
	waiting bool
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
	case k == "pgup":
		p.at -= max(1, m.contentHeight()-3)
	case k == "pgdown":
		p.at += max(1, m.contentHeight()-3)
	case k == "enter" && p.ask != nil && p.filter.String() != p.asked:
		return p.search(m)
	case k == "enter":
		if p.at < len(list) {
			m.overlay = nil
			return tea.Batch(list[p.at].pick(m), m.seen())
		}
	case edits[k] != nil && k != "alt+enter":
		edits[k](&p.filter)
		p.at = 0
	case msg.Text != "":
		p.filter.insert(strings.ReplaceAll(clean(msg.Text), "\n", " "))
		p.at = 0
	}
	p.at = max(0, min(p.at, len(p.shown())-1))
	return nil
}

// search asks for what was typed.
func (p *picker) search(m *model) tea.Cmd {
	p.asked, p.at, p.choices = p.filter.String(), 0, nil
	if p.waiting = strings.TrimSpace(p.asked) != ""; !p.waiting {
		return nil
	}
	return p.ask(m, p.asked)
}

func (p *picker) draw(m *model, width, height int) ([]string, cell, bool) {
	head := m.cut(p.title, width/2) + ": "
	indent := m.metric.width(head)
	rows, places := p.filter.layout(max(3, width-indent))
	at := places[p.filter.cursor]
	out := []string{m.theme.bold.paint(head) + rows[at.row]}
	list := p.shown()
	for i := max(0, p.at-(height-3)); i < len(list) && len(out) < height-1; i++ {
		if i == p.at {
			out = append(out, m.theme.bar.paint(m.fit("> "+list[i].label, width)))
		} else {
			out = append(out, m.cut("  "+list[i].label, width))
		}
	}
	switch {
	case p.waiting:
		out = append(out, m.theme.dim.paint(m.t("loading")))
	case p.ask != nil && p.filter.String() != p.asked:
		out = append(out, m.theme.dim.paint(m.t("enter searches")))
	case len(list) == 0 && (p.ask == nil || p.asked != ""):
		out = append(out, m.theme.dim.paint(m.t("no hits")))
	}
	for len(out) < height-1 {
		out = append(out, "")
	}
	return append(out[:max(1, height-1)], m.theme.dim.paint(m.cut(m.t("picker keys"), width))), cell{0, indent + at.col}, true
}

// listing is a list whose lines something can be done with by one key.
type listing struct {
	title string
	rows  []row
	keys  string // what the keys do, for the last line
	at    int
	// act does what a key means for a row; the listing stays open.
	act func(m *model, id, key string) tea.Cmd
}

// row is one line of a listing.
type row struct {
	id    string
	label string // escaped
}

func (l *listing) key(m *model, msg tea.KeyPressMsg) tea.Cmd {
	switch k := msg.Keystroke(); {
	case k == "up":
		l.at--
	case k == "down":
		l.at++
	case k == "pgup":
		l.at -= max(1, m.contentHeight()-3)
	case k == "pgdown":
		l.at += max(1, m.contentHeight()-3)
	case l.at < len(l.rows) && (k == "enter" || msg.Text != ""):
		return l.act(m, l.rows[l.at].id, strings.ToLower(k))
	}
	l.at = max(0, min(l.at, len(l.rows)-1))
	return nil
}

func (l *listing) draw(m *model, width, height int) ([]string, cell, bool) {
	out := []string{m.theme.bold.paint(m.fit(l.title, width))}
	l.at = max(0, min(l.at, len(l.rows)-1))
	for i := max(0, l.at-(height-3)); i < len(l.rows) && len(out) < height-1; i++ {
		if i == l.at {
			out = append(out, m.theme.bar.paint(m.fit("> "+l.rows[i].label, width)))
		} else {
			out = append(out, m.cut("  "+l.rows[i].label, width))
		}
	}
	if len(l.rows) == 0 {
		out = append(out, m.theme.dim.paint(m.t("nothing")))
	}
	for len(out) < height-1 {
		out = append(out, "")
	}
	foot := m.t("close")
	if len(l.rows) > 0 {
		foot = l.keys + "  " + foot
	}
	return append(out, m.theme.dim.paint(m.cut(foot, width))), cell{}, false
}
