package tui

import (
	"context"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// quickSwitch offers every conversation by name, those with something unread first.
func (m *model) quickSwitch() tea.Cmd {
	p := &picker{title: m.t("switch"), filter: editor{metric: m.metric}}
	for _, unread := range []bool{true, false} {
		for i := range m.conversations {
			c := &m.conversations[i]
			if (c.Unread > 0) != unread {
				continue
			}
			label, id := m.title(c), c.ID
			if unread {
				label += " (" + strconv.Itoa(c.Unread) + ")"
			}
			if c.Topic != "" {
				label += "  " + m.line(c.Topic)
			}
			p.choices = append(p.choices, choice{label, func(m *model) tea.Cmd { return m.open(id) }})
		}
	}
	m.overlay = p
	return nil
}

// cmdSearch searches the conversation on screen; with -all before the words, everywhere.
func (m *model) cmdSearch(words string) tea.Cmd {
	q := api.SearchQuery{N: pageSize}
	rest, everywhere := strings.CutPrefix(words+" ", "-all ")
	where := m.t("everywhere")
	if c := m.find(m.current); c != nil && !everywhere {
		q.In, where = c.Target, m.title(c)
	}
	p := &picker{title: m.t("search", where), filter: editor{metric: m.metric}}
	p.ask = func(m *model, text string) tea.Cmd {
		q.Query = text
		return m.search(p, q)
	}
	m.overlay = p
	p.filter.set(strings.TrimSpace(rest))
	if p.filter.empty() {
		return nil
	}
	return p.search(m)
}

func (m *model) search(p *picker, q api.SearchQuery) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		hits, err := m.api.Search(ctx, q)
		return func(m *model) tea.Cmd {
			p.waiting = false
			if err != nil {
				m.fail(err)
				return nil
			}
			if q.Query != p.asked {
				return nil // asked again meanwhile
			}
			for _, h := range hits {
				label := h.SentAt.In(m.zone).Format("2006-01-02 15:04") + " "
				if c := m.find(h.Conversation); q.In == "" && c != nil {
					label += m.title(c) + " "
				}
				label += m.nickOf(h.Nick, h.Fingerprint, h.NickShared) + ": " + m.line(h.Text)
				p.choices = append(p.choices, choice{label, func(m *model) tea.Cmd { return m.jump(h) }})
			}
			return nil
		}, nil
	})
}

// jump goes to a message and marks it.
func (m *model) jump(msg api.Message) tea.Cmd {
	c := m.find(msg.Conversation)
	if c == nil {
		return nil
	}
	id, conversation := msg.ID, *c
	place := func(r *room, i int) {
		r.hit = id
		m.style++
		r.following = false // which takes a line of the window
		m.reveal(r, i, m.contentHeight()/2, m.contentWidth(), m.contentHeight())
	}
	r := m.room(c.ID)
	if i := r.index(id); r.loaded && i >= 0 {
		cmd := m.open(c.ID)
		place(r, i)
		return cmd
	}
	r.loaded, r.entries = false, nil
	load := m.loadAround(conversation, id, place)
	return tea.Batch(load, m.open(c.ID))
}
