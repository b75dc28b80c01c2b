package tui

import (
	"maps"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// Kinds of [api.Conversation].
const (
	kindRoom   = "room"
	kindDirect = "dm"
)

func (m *model) find(id string) *api.Conversation {
	i := slices.IndexFunc(m.conversations, func(c api.Conversation) bool { return c.ID == id })
	if i < 0 {
		return nil
	}
	return &m.conversations[i]
}

// findTarget finds a conversation by what a user calls it.
func (m *model) findTarget(target string) *api.Conversation {
	want := strings.ToLower(target)
	i := slices.IndexFunc(m.conversations, func(c api.Conversation) bool {
		return strings.ToLower(c.Target) == want || c.Account != "" && strings.ToLower("@"+c.Account) == want ||
			c.Kind == kindDirect && strings.ToLower("@"+m.contacts[c.Account].Petname) == want
	})
	if i < 0 {
		return nil
	}
	return &m.conversations[i]
}

// title is what a conversation is called on the screen.
func (m *model) title(c *api.Conversation) string {
	if c.Kind == kindDirect && c.Target == "@"+c.Account {
		if k, ok := m.contacts[c.Account]; ok && k.Nick != "" && k.Nick != k.Fingerprint {
			return "@" + m.nickOf(k.Nick, k.Fingerprint, true)
		}
		return m.cut(m.name(c.Target), 10)
	}
	return m.name(c.Target)
}

// setConversations takes the list as the node gave it and keeps what was opened without a message.
func (m *model) setConversations(list []api.Conversation) {
	for _, c := range list {
		delete(m.opened, c.ID)
	}
	list = slices.AppendSeq(list, maps.Values(m.opened))
	sortConversations(list)
	m.conversations = list
	for _, c := range list {
		m.room(c.ID).setGaps(c.Gaps)
	}
}

// conversation takes the new state of one conversation.
func (m *model) conversation(c api.Conversation) {
	if c.LastSeq > 0 || c.Kind == kindRoom {
		delete(m.opened, c.ID)
	}
	r := m.room(c.ID)
	r.setGaps(c.Gaps)
	r.stale = true
	if old := m.find(c.ID); old != nil && old.Target == c.Target && old.Request == c.Request {
		if old.Membership == api.MembershipPending && c.Membership == api.MembershipMember {
			m.say(m.t("let in", m.title(&c), m.line(c.Policy)))
		}
		*old = c
		return
	}
	m.conversations = slices.DeleteFunc(m.conversations, func(old api.Conversation) bool { return old.ID == c.ID })
	m.conversations = append(m.conversations, c)
	sortConversations(m.conversations)
}

// contact takes the new state of one contact. What it changes in the list of conversations, a
// request that was answered or a block, the node knows best.
func (m *model) contact(k api.Contact) tea.Cmd {
	old, known := m.contacts[k.Account]
	m.contacts[k.Account] = k
	if known && old.State == k.State && old.Petname == k.Petname && old.Nick == k.Nick && old.Trust == k.Trust {
		return nil // where somebody is seen changes all the time
	}
	return m.loadConversations()
}

// sortConversations puts rooms first, then direct conversations, requests last.
func sortConversations(list []api.Conversation) {
	rank := func(c api.Conversation) string {
		switch {
		case c.Request:
			return "3"
		case c.Kind == kindDirect:
			return "2"
		}
		return "1"
	}
	slices.SortStableFunc(list, func(a, b api.Conversation) int {
		return strings.Compare(rank(a)+strings.ToLower(a.Target)+a.ID, rank(b)+strings.ToLower(b.Target)+b.ID)
	})
}

// open shows a conversation: its draft in the input, the unread mark where it was when it was
// opened.
func (m *model) open(id string) tea.Cmd {
	c := m.find(id)
	if c == nil {
		return nil
	}
	m.overlay, m.flash = nil, ""
	var cmds []tea.Cmd
	r := m.room(id)
	if m.current != id {
		cmds = append(cmds, m.leave())
		m.last, m.current = m.current, id
		m.input.set(r.writing.Text)
		if c.Unread > 0 {
			r.unreadFrom = c.ReadSeq + 1
		}
		cmds = append(cmds, m.saveSetting(settingOpen, c.Target))
	}
	if !r.loaded && !r.loading {
		cmds = append(cmds, m.loadNewest(*c))
	}
	return tea.Batch(append(cmds, m.seen(), m.loadMembers())...)
}

// leave keeps what was being written in the conversation on screen.
func (m *model) leave() tea.Cmd {
	r := m.rooms[m.current]
	if r == nil {
		return nil
	}
	r.unreadFrom = 0
	return m.keepDraft()
}

// seen marks the conversation on screen as read when its newest message can be seen.
func (m *model) seen() tea.Cmd {
	c, r := m.here()
	if c == nil || m.blurred || m.overlay != nil || !r.loaded || !r.following || r.reading {
		return nil
	}
	seq := r.lastSeq()
	if seq == 0 || seq <= c.ReadSeq {
		return nil
	}
	r.reading = true
	return m.markRead(*c, seq)
}

// watched says whether the user is looking at the end of a conversation, so that nothing in it
// counts as unread.
func (m *model) watched(c *api.Conversation) bool {
	r := m.rooms[c.ID]
	return c.ID == m.current && !m.blurred && m.overlay == nil && r != nil && r.following
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
	urgent := func(c *api.Conversation) bool { return c.Mentions > 0 || c.Kind == kindDirect }
	for i := range m.conversations {
		c := &m.conversations[i]
		if c.Unread > 0 && c.ID != m.current && !c.Muted && (best == "" || urgent(c) && !urgent(m.find(best))) {
			best = c.ID
		}
	}
	if best == "" {
		return nil
	}
	return m.open(best)
}

// goTo opens a target, joining a room that is not joined yet.
func (m *model) goTo(target string) tea.Cmd {
	if c := m.findTarget(target); c != nil {
		return m.open(c.ID)
	}
	switch {
	case strings.HasPrefix(target, linkPrefix):
		return m.follow(target)
	case strings.HasPrefix(target, "@"):
		return m.query(target)
	}
	if c := m.findTarget("#" + strings.TrimPrefix(target, "#")); c != nil {
		return m.open(c.ID)
	}
	return m.join(api.JoinRequest{Room: target})
}

// linkPrefix begins every invite and contact link.
const linkPrefix = "starling:"
