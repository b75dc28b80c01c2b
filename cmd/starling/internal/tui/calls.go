package tui

import (
	"context"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// This file has the calls that load what is on the screen. Each returns a command whose answer
// changes the model.

// callTimeout bounds a call that the user does not wait for with patience.
const callTimeout = 10 * time.Second

// firstRoom is where somebody who has no conversation yet begins.
const firstRoom = "#lobby"

// start loads everything but messages: when the event stream begins to stand, and after a reset.
func (m *model) start() tea.Cmd {
	first := !m.settled
	load := m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		var got map[string]string
		var err error
		if first {
			if got, err = m.getSettings(ctx); err != nil {
				return nil, err
			}
		}
		me, err := m.api.Me(ctx)
		if err != nil {
			return nil, err
		}
		contacts, err := m.api.Contacts(ctx)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			if got != nil && !m.settled {
				m.settled = true
				m.applySettings(got)
				m.restorePast(got[settingPast])
				if m.wanted == "" {
					m.wanted = got[settingOpen]
				}
			}
			m.setMe(me)
			clear(m.contacts)
			for _, k := range contacts {
				m.contacts[k.Account] = k
			}
			return m.loadConversations()
		}, nil
	})
	return tea.Batch(load, m.loadStatus())
}

func (m *model) setMe(me api.Me) {
	m.me = me
	if m.nick != me.Nick {
		m.nick = me.Nick
		m.style++
	}
}

// loadConversations loads the list, and goes to where the user wants to be if that is not settled.
func (m *model) loadConversations() tea.Cmd {
	if m.listing {
		m.listAgain = true
		return nil
	}
	m.listing = true
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		list, err := m.api.Conversations(ctx)
		return func(m *model) tea.Cmd {
			m.listing = false
			if err != nil {
				m.listAgain = false
				m.fail(err)
				return nil
			}
			m.setConversations(list)
			if m.listAgain {
				m.listAgain = false
				return m.loadConversations()
			}
			return m.arrive()
		}, nil
	})
}

// arrive sees to it that some conversation is on the screen.
func (m *model) arrive() tea.Cmd {
	switch {
	case m.wanted != "":
		target := m.wanted
		m.wanted = ""
		return m.goTo(target)
	case m.find(m.current) != nil:
		return m.open(m.current)
	case len(m.conversations) > 0:
		return m.open(m.conversations[0].ID)
	case m.current == "":
		return m.goTo(firstRoom)
	}
	m.current = ""
	return nil
}

func (m *model) join(req api.JoinRequest) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		c, err := m.api.Join(ctx, req)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.conversation(c)
			cmd := m.open(c.ID)
			if c.Policy != "" {
				m.say(m.t("policy", m.title(&c), m.line(c.Policy)))
			}
			return cmd
		}, nil
	})
}

// follow does what a link is for: it joins the room, or opens a conversation with the person.
func (m *model) follow(link string) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		k, err := m.api.AddContact(ctx, api.ContactRequest{Who: link})
		if err != nil {
			c, joinErr := m.api.Join(ctx, api.JoinRequest{Room: link})
			if joinErr != nil {
				return nil, joinErr
			}
			return func(m *model) tea.Cmd {
				m.conversation(c)
				return m.open(c.ID)
			}, nil
		}
		return func(m *model) tea.Cmd {
			m.contacts[k.Account] = k
			cmd := m.openDirect(k.Account, k.Trust)
			m.say(m.t("contact added", m.nickOf(k.Nick, k.Fingerprint, true)))
			return cmd
		}, nil
	})
}

// query opens a direct conversation. Nobody is told before something is written.
func (m *model) query(who string) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		v, err := m.api.Verification(ctx, who)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd { return m.openDirect(v.Account, v.Trust) }, nil
	})
}

// openDirect goes to the conversation with an account, which the node lists once something was said.
func (m *model) openDirect(account, trust string) tea.Cmd {
	i := slices.IndexFunc(m.conversations, func(c api.Conversation) bool { return c.Kind == kindDirect && c.Account == account })
	if i >= 0 {
		return m.open(m.conversations[i].ID)
	}
	c := api.Conversation{ID: account, Target: "@" + account, Kind: kindDirect, Account: account, Members: 2, Trust: trust}
	m.opened[c.ID] = c
	m.conversation(c)
	return m.open(c.ID)
}

func (m *model) loadStatus() tea.Cmd {
	if m.statusLag {
		return nil
	}
	m.statusLag = true
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		st, err := m.api.Status(ctx)
		return func(m *model) tea.Cmd {
			m.statusLag = false
			if err == nil {
				m.status = st
			}
			return nil // when the node is gone the stream of events says so
		}, nil
	})
}

func (m *model) loadMembers() tea.Cmd {
	c, r := m.here()
	if c == nil || c.Kind != kindRoom {
		return nil
	}
	r.stale = false
	id, target := c.ID, c.Target
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		list, err := m.api.Members(ctx, target)
		if err != nil {
			return nil, err
		}
		slices.SortStableFunc(list, func(a, b api.Member) int {
			if a.Online != b.Online {
				if a.Online {
					return -1
				}
				return 1
			}
			return strings.Compare(strings.ToLower(a.Nick), strings.ToLower(b.Nick))
		})
		return func(m *model) tea.Cmd {
			m.room(id).members = list
			return nil
		}, nil
	})
}

// page asks for messages and gives them to put.
func (m *model) page(id string, ask func(ctx context.Context) ([]api.Message, error), put func(*room, []api.Message)) tea.Cmd {
	r := m.room(id)
	r.loading, r.since = true, m.now
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		list, err := ask(ctx)
		return func(m *model) tea.Cmd {
			r := m.room(id)
			r.loading = false
			if err != nil {
				r.early = nil
				m.fail(err)
				return nil
			}
			put(r, list)
			r.caughtUp()
			return tea.Batch(m.loadQuoted(id), m.seen())
		}, nil
	})
}

func (m *model) history(q api.HistoryQuery) func(ctx context.Context) ([]api.Message, error) {
	return func(ctx context.Context) ([]api.Message, error) { return m.api.History(ctx, q) }
}

func (m *model) loadNewest(c api.Conversation) tea.Cmd {
	ask := m.history(api.HistoryQuery{Target: c.Target, N: pageSize})
	return tea.Batch(m.loadDraft(c.ID), m.page(c.ID, ask, (*room).newest))
}

// refill loads the window of a conversation again after events were missed, where the reader is.
func (m *model) refill(id string) tea.Cmd {
	c, r := m.find(id), m.rooms[id]
	switch {
	case c == nil || r == nil || r.loading:
		return nil
	case r.following || len(r.entries) == 0:
		return m.loadNewest(*c)
	}
	skip := r.skip
	return m.loadAround(*c, r.entries[min(r.bottom, len(r.entries)-1)].msg.ID, func(r *room, i int) { r.bottom, r.skip = i, skip })
}

// askAgain is after how long the node is asked once more for what is older than all that is here: it
// asks members and mirrors, who may have come meanwhile.
const askAgain = 20 * time.Second

func (m *model) loadOlder() tea.Cmd {
	c, r := m.here()
	if c == nil || r.loading || !r.loaded || r.first() == "" || r.atStart && m.now.Sub(r.asked) < askAgain {
		return nil
	}
	r.asked = m.now
	return m.page(c.ID, m.history(api.HistoryQuery{Target: c.Target, N: pageSize, Before: r.first()}), (*room).older)
}

func (m *model) loadNewer() tea.Cmd {
	c, r := m.here()
	if c == nil || r.loading || r.atEnd || !r.loaded {
		return nil
	}
	return m.page(c.ID, m.history(api.HistoryQuery{Target: c.Target, N: pageSize, After: r.lastID()}), (*room).newer)
}

// loadAround goes to a message wherever it is; show places the view, given its index.
func (m *model) loadAround(c api.Conversation, id string, show func(r *room, i int)) tea.Cmd {
	ask := func(ctx context.Context) ([]api.Message, error) {
		hit, err := m.api.Message(ctx, id)
		if err != nil {
			return nil, err
		}
		before, err := m.api.History(ctx, api.HistoryQuery{Target: c.Target, N: pageSize, Before: id})
		if err != nil {
			return nil, err
		}
		after, err := m.api.History(ctx, api.HistoryQuery{Target: c.Target, N: pageSize, After: id})
		return slices.Concat(before, []api.Message{hit}, after), err
	}
	return tea.Batch(m.loadDraft(c.ID), m.page(c.ID, ask, func(r *room, page []api.Message) {
		r.around(page)
		if i := r.index(id); i >= 0 {
			r.atStart, r.atEnd = i < pageSize, len(page)-i-1 < pageSize
			show(r, i)
		}
	}))
}

// maxUnreadPages bounds how far back the first unread message is looked for.
const maxUnreadPages = 20

// loadUnread goes to the first message that was unread when the conversation was opened, however
// many came after it.
func (m *model) loadUnread(c api.Conversation, from uint64, before string) tea.Cmd {
	ask := func(ctx context.Context) ([]api.Message, error) {
		var all []api.Message
		for range maxUnreadPages {
			page, err := m.api.History(ctx, api.HistoryQuery{Target: c.Target, N: 1000, Before: before})
			if err != nil {
				return nil, err
			}
			all = append(page, all[:min(len(all), pageSize)]...)
			if len(page) == 0 || slices.ContainsFunc(page, func(m api.Message) bool { return m.Seq < from }) {
				break
			}
			before = page[0].ID
		}
		i := slices.IndexFunc(all, func(m api.Message) bool { return m.Seq >= from && !m.Own && m.Kind == api.KindMessage })
		if i < 0 {
			i = 0
		}
		return all[max(0, i-pageSize):min(len(all), i+pageSize)], nil
	}
	return m.page(c.ID, ask, func(r *room, page []api.Message) {
		if len(page) > 0 {
			r.around(page)
			m.revealUnread(r)
		}
	})
}

// loadQuoted loads the messages that replies in the window answer and that lie outside of it.
func (m *model) loadQuoted(id string) tea.Cmd {
	r := m.room(id)
	ids := r.unquoted()
	if len(ids) == 0 {
		return nil
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		var list []api.Message
		for _, ref := range ids {
			msg, err := m.api.Message(ctx, ref)
			if err != nil {
				msg = api.Message{ID: ref, Redacted: true} // not here; it is not asked for again
			}
			list = append(list, msg)
		}
		return func(m *model) tea.Cmd {
			m.room(id).quote(list)
			return nil
		}, nil
	})
}

func (m *model) markRead(c api.Conversation, seq uint64) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		err := m.api.MarkRead(ctx, c.Target, seq)
		return func(m *model) tea.Cmd {
			m.room(c.ID).reading = false
			if c := m.find(c.ID); c != nil && err == nil && c.ReadSeq < seq {
				c.ReadSeq = seq
				if c.LastSeq <= seq {
					c.Unread, c.Mentions = 0, 0
				}
			}
			if err != nil {
				return nil // tried again with the next message
			}
			return m.seen()
		}, nil
	})
}
