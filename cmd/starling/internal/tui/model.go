package tui

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// model is the whole state of the UI. Only Update and what it calls change it.
type model struct {
	ctx context.Context // ends with the program; for calls to the node
	api *api.Client
	cfg Config

	painter
	width, height int

	conversations []api.Conversation // rooms, then direct ones, each by target
	rooms         map[string]*room   // by conversation id
	current, last string             // conversation ids
	wanted        string             // a TARGET to go to once it is listed
	status        api.Status
	me            api.Me
	outage        error // why there is no connection to the node
	now           time.Time

	input     editor
	overlay   overlay
	flash     string // one line over the input: what a command said
	quitting  bool   // ctrl+c was pressed on an empty input
	complete  completion
	typingOn  bool
	bell      bool
	typedAt   time.Time // when we last told that we type
	membersAt map[string]time.Time
}

func newModel(ctx context.Context, cfg Config) *model {
	m := &model{
		ctx: ctx, api: cfg.Client, cfg: cfg,
		rooms: map[string]*room{}, wanted: cfg.Open, now: time.Now(), bell: true,
		width: 80, height: 24, membersAt: map[string]time.Time{},
	}
	m.zone = time.Local
	m.theme = pickTheme("", cfg.Environ)
	m.words = newCatalog(pickLanguage(cfg.Language, "", cfg.Environ))
	return m
}

func (m *model) t(key string, args ...any) string { return m.words.text(key, args...) }

// Init implements tea.Model.
func (m *model) Init() tea.Cmd { return tea.Batch(m.loadSettings(), tick()) }

type tickMsg time.Time

// tick redraws the clock and asks for the status now and then.
func tick() tea.Cmd {
	return tea.Tick(time.Second, func(t time.Time) tea.Msg { return tickMsg(t) })
}

// Update implements tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		return m, nil
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case tea.PasteMsg:
		return m, m.paste(msg.Content)
	case tickMsg:
		m.now = time.Time(msg)
		m.forgetTypists()
		if m.now.Second()%5 == 0 && m.outage == nil {
			return m, tea.Batch(tick(), m.loadStatus())
		}
		return m, tick()
	case eventMsg:
		return m, m.event(api.Event(msg))
	case outageMsg:
		m.outage = msg.err
		return m, nil
	case answerMsg:
		return m, msg(m)
	case errorMsg:
		m.flash = api.Escape(msg.err.Error())
		return m, nil
	}
	return m, nil
}

// answerMsg is what a call to the node brought, as a change to the model.
type answerMsg func(*model) tea.Cmd

// errorMsg is a failed call, for the user to read.
type errorMsg struct{ err error }

// call runs f beside the UI; its answer is applied in Update.
func (m *model) call(f func(ctx context.Context) (func(*model) tea.Cmd, error)) tea.Cmd {
	return func() tea.Msg {
		apply, err := f(m.ctx)
		switch {
		case err != nil && m.ctx.Err() != nil:
			return nil
		case err != nil:
			return errorMsg{err}
		case apply == nil:
			return nil
		}
		return answerMsg(apply)
	}
}

// event applies one event of the node's stream.
func (m *model) event(ev api.Event) tea.Cmd {
	if m.outage != nil {
		m.outage = nil
	}
	switch ev.Type {
	case api.EventHello, api.EventReset:
		for _, r := range m.rooms {
			r.loaded = false
		}
		return tea.Batch(m.loadAll(), m.loadStatus())
	case api.EventMessage, api.EventUpdate:
		if ev.Message != nil {
			return m.message(*ev.Message, ev.Type == api.EventMessage)
		}
	case api.EventConversation:
		if ev.Conversation != nil {
			return m.conversation(*ev.Conversation)
		}
	case api.EventContact:
		return m.loadAll()
	case api.EventStatus:
		if ev.Status != nil {
			m.status = *ev.Status
		}
	case api.EventTyping:
		if ev.Typing != nil {
			m.typed(*ev.Typing)
		}
	}
	return nil
}

func (m *model) message(msg api.Message, fresh bool) tea.Cmd {
	r := m.room(msg.Conversation)
	delete(r.typing, msg.Account)
	if !fresh {
		if r.byID[msg.ID] != nil {
			r.put(msg)
		}
		return nil
	}
	if r.loaded || r.loading {
		r.arrived(msg)
	}
	var cmds []tea.Cmd
	if msg.Conversation == m.current && r.following && m.overlay == nil {
		cmds = append(cmds, m.markRead(msg.Conversation, msg.Seq))
	}
	if c := m.find(msg.Conversation); c != nil && !msg.Own && !c.Muted && m.bell && (msg.Mention || c.Kind == "dm") && msg.Kind == api.KindMessage {
		cmds = append(cmds, notify(m.nickOf(msg.Nick, msg.Fingerprint, msg.NickShared)))
	}
	return tea.Batch(cmds...)
}

// notify rings the bell and asks the terminal for a notification (OSC 9). Only the escaped nick goes
// into it, never the text.
func notify(who string) tea.Cmd {
	return tea.Raw("\a\x1b]9;starling: " + who + "\x1b\\")
}

// typingFor is how long somebody counts as typing after the last signal.
const typingFor = 6 * time.Second

func (m *model) typed(t api.Typing) {
	m.room(t.Conversation).typing[t.Account] = typist{api.EscapeNick(t.Nick), m.now.Add(typingFor)}
}

// forgetTypists drops who has not typed for a while.
func (m *model) forgetTypists() {
	if r := m.rooms[m.current]; r != nil {
		maps.DeleteFunc(r.typing, func(_ string, t typist) bool { return m.now.After(t.until) })
	}
}

func (m *model) room(id string) *room {
	r := m.rooms[id]
	if r == nil {
		r = newRoom()
		m.rooms[id] = r
	}
	return r
}

func (m *model) find(id string) *api.Conversation {
	i := slices.IndexFunc(m.conversations, func(c api.Conversation) bool { return c.ID == id })
	if i < 0 {
		return nil
	}
	return &m.conversations[i]
}

func (m *model) findTarget(target string) *api.Conversation {
	want := strings.ToLower(target)
	i := slices.IndexFunc(m.conversations, func(c api.Conversation) bool {
		return strings.ToLower(c.Target) == want || c.Account != "" && "@"+c.Account == target
	})
	if i < 0 {
		return nil
	}
	return &m.conversations[i]
}

// conversation takes the new state of one conversation.
func (m *model) conversation(c api.Conversation) tea.Cmd {
	if old := m.find(c.ID); old != nil {
		*old = c
	} else {
		m.conversations = append(m.conversations, c)
		sortConversations(m.conversations)
	}
	if c.ID == m.current && m.now.Sub(m.membersAt[c.ID]) > 2*time.Second {
		return m.loadMembers(c)
	}
	return nil
}

// sortConversations puts rooms first, then direct conversations, requests last.
func sortConversations(list []api.Conversation) {
	rank := func(c api.Conversation) string {
		switch {
		case c.Request:
			return "3"
		case c.Kind == "dm":
			return "2"
		}
		return "1"
	}
	slices.SortStableFunc(list, func(a, b api.Conversation) int {
		return strings.Compare(rank(a)+strings.ToLower(a.Target), rank(b)+strings.ToLower(b.Target))
	})
}

// open shows a conversation: its draft in the input, the unread mark where it was when it was opened.
func (m *model) open(id string) tea.Cmd {
	c := m.find(id)
	if c == nil {
		return nil
	}
	var cmds []tea.Cmd
	if m.current != id {
		if old := m.rooms[m.current]; old != nil {
			cmds = append(cmds, m.keepDraft())
			old.unreadFrom = 0
		}
		m.last, m.current = m.current, id
		r := m.room(id)
		m.input.set(r.draft)
		if c.Unread > 0 {
			r.unreadFrom = c.ReadSeq + 1
		}
	}
	m.flash = ""
	r := m.room(id)
	if !r.loaded && !r.loading {
		cmds = append(cmds, m.loadNewest(*c))
	} else if r.following {
		cmds = append(cmds, m.markRead(id, r.lastSeq()))
	}
	cmds = append(cmds, m.loadMembers(*c), m.saveSetting("tui.open", c.Target))
	return tea.Batch(cmds...)
}
