package tui

import (
	"context"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// This file has the calls to the node. Each returns a command whose answer changes the model.

// callTimeout bounds a call that the user does not wait for with patience.
const callTimeout = 10 * time.Second

// firstRoom is where somebody who has no conversation yet begins.
const firstRoom = "#lobby"

// Settings kept in the node.
const (
	settingOpen   = "tui.open"
	settingTheme  = "tui.theme"
	settingLang   = "tui.lang"
	settingTyping = "tui.typing"
	settingBell   = "tui.bell"
	settingLinks  = "tui.links"
	draftPrefix   = "tui.draft."
)

func (m *model) loadSettings() tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		got := map[string]string{}
		for _, key := range []string{settingOpen, settingTheme, settingLang, settingTyping, settingBell, settingLinks} {
			v, err := m.api.Setting(ctx, key)
			if err != nil {
				return nil, err
			}
			got[key] = v
		}
		return func(m *model) tea.Cmd {
			m.theme = pickTheme(got[settingTheme], m.cfg.Environ)
			m.words = newCatalog(pickLanguage(m.cfg.Language, got[settingLang], m.cfg.Environ))
			m.typingOn = got[settingTyping] == "on"
			m.bell = got[settingBell] != "off"
			m.links = got[settingLinks] == "on"
			m.style++
			if m.wanted == "" {
				m.wanted = got[settingOpen]
			}
			return m.loadAll()
		}, nil
	})
}

func (m *model) saveSetting(key, value string) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		return nil, m.api.SetSetting(ctx, key, value)
	})
}

// loadAll loads the conversations and whatever of them is open.
func (m *model) loadAll() tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		list, err := m.api.Conversations(ctx)
		if err != nil {
			return nil, err
		}
		me, err := m.api.Me(ctx)
		if err != nil {
			return nil, err
		}
		sortConversations(list)
		return func(m *model) tea.Cmd {
			m.conversations, m.me = list, me
			if m.wanted != "" {
				return m.goTo(m.wanted)
			}
			if len(list) == 0 {
				return m.goTo(firstRoom)
			}
			if m.find(m.current) == nil {
				return m.open(list[0].ID)
			}
			return m.open(m.current)
		}, nil
	})
}

// goTo opens a target, joining a room that is not joined yet.
func (m *model) goTo(target string) tea.Cmd {
	m.wanted = ""
	if c := m.findTarget(target); c != nil {
		return m.open(c.ID)
	}
	if strings.HasPrefix(target, "@") {
		return m.query(target)
	}
	return m.join(api.JoinRequest{Room: target})
}

func (m *model) join(req api.JoinRequest) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		c, err := m.api.Join(ctx, req)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd { return tea.Batch(m.conversation(c), m.open(c.ID)) }, nil
	})
}

// query opens a direct conversation, which exists once somebody is a contact or was met.
func (m *model) query(who string) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		if _, err := m.api.AddContact(ctx, api.ContactRequest{Who: who}); err != nil {
			return nil, err
		}
		list, err := m.api.Conversations(ctx)
		if err != nil {
			return nil, err
		}
		sortConversations(list)
		return func(m *model) tea.Cmd {
			m.conversations = list
			if c := m.findTarget(who); c != nil {
				return m.open(c.ID)
			}
			return nil
		}, nil
	})
}

func (m *model) loadStatus() tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		st, err := m.api.Status(ctx)
		return func(m *model) tea.Cmd {
			m.status = st
			return nil
		}, err
	})
}

func (m *model) loadMembers(c api.Conversation) tea.Cmd {
	if c.Kind != "room" {
		return nil
	}
	m.membersAt[c.ID] = m.now
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		list, err := m.api.Members(ctx, c.Target)
		return func(m *model) tea.Cmd {
			m.room(c.ID).members = list
			return nil
		}, err
	})
}

// page asks for messages and gives them to put.
func (m *model) page(c api.Conversation, q api.HistoryQuery, put func(*room, []api.Message)) tea.Cmd {
	m.room(c.ID).loading = true
	q.Target = c.Target
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		list, err := m.api.History(ctx, q)
		return func(m *model) tea.Cmd {
			r := m.room(c.ID)
			r.loading = false
			put(r, list)
			if c.ID == m.current && r.following {
				return m.markRead(c.ID, r.lastSeq())
			}
			return nil
		}, err
	})
}

func (m *model) loadNewest(c api.Conversation) tea.Cmd {
	draft := m.loadDraft(c.ID)
	return tea.Batch(draft, m.page(c, api.HistoryQuery{N: pageSize}, (*room).newest))
}

func (m *model) loadOlder(c api.Conversation) tea.Cmd {
	r := m.room(c.ID)
	if r.loading || r.atStart || !r.loaded {
		return nil
	}
	return m.page(c, api.HistoryQuery{N: pageSize, Before: r.first()}, (*room).older)
}

func (m *model) loadNewer(c api.Conversation) tea.Cmd {
	r := m.room(c.ID)
	if r.loading || r.atEnd || !r.loaded {
		return nil
	}
	return m.page(c, api.HistoryQuery{N: pageSize, After: r.lastID()}, (*room).newer)
}

// loadAround goes to a message wherever it is.
func (m *model) loadAround(c api.Conversation, id string) tea.Cmd {
	m.room(c.ID).loading = true
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		hit, err := m.api.Message(ctx, id)
		if err != nil {
			return nil, err
		}
		before, err := m.api.History(ctx, api.HistoryQuery{Target: c.Target, N: pageSize, Before: id})
		return func(m *model) tea.Cmd {
			r := m.room(c.ID)
			r.around(append(before, hit))
			return m.loadNewer(c)
		}, err
	})
}

func (m *model) markRead(id string, seq uint64) tea.Cmd {
	c := m.find(id)
	if c == nil || seq == 0 || seq <= c.ReadSeq {
		return nil
	}
	c.ReadSeq, c.Unread, c.Mentions = seq, 0, 0
	target := c.Target
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		return nil, m.api.MarkRead(ctx, target, seq)
	})
}

// send gives a request to the node. What could not be accepted comes back into the input.
func (m *model) send(req api.SendRequest) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		_, err := m.api.Send(ctx, req)
		if err == nil {
			return nil, nil
		}
		return func(m *model) tea.Cmd {
			m.flash = api.Escape(err.Error())
			if m.input.String() == "" && (req.Action == "" || req.Action == api.ActionMessage) {
				m.input.set(req.Text)
			}
			return nil
		}, nil
	})
}

func (m *model) keepDraft() tea.Cmd {
	r := m.rooms[m.current]
	if r == nil || r.editing != "" {
		return nil
	}
	text := m.input.String()
	if text == r.draft {
		return nil
	}
	r.draft = text
	return m.saveSetting(draftPrefix+m.current, text)
}

func (m *model) loadDraft(id string) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		text, err := m.api.Setting(ctx, draftPrefix+id)
		return func(m *model) tea.Cmd {
			r := m.room(id)
			if r.draft == "" && text != "" {
				r.draft = text
				if id == m.current && m.input.String() == "" {
					m.input.set(text)
				}
			}
			return nil
		}, err
	})
}

// saveDrafts keeps the draft of the conversation on screen when the UI ends.
func (m *model) saveDrafts(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if r := m.rooms[m.current]; r != nil && r.editing == "" && m.input.String() != r.draft {
		_ = m.api.SetSetting(ctx, draftPrefix+m.current, m.input.String()) // the node may be gone
	}
}
