package tui

import (
	"context"
	"maps"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/starling-chat/starling/node/api"
)

// model is the whole state of the UI. Only Update and what it calls change it.
type model struct {
	ctx context.Context // ends with the program; for calls to the node
	api *api.Client
	cfg Config

	painter
	width, height int
	blurred       bool // the terminal said that it lost the focus

	conversations []api.Conversation          // rooms, then direct ones, then requests; by name
	opened        map[string]api.Conversation // direct ones that were opened and have no message yet
	contacts      map[string]api.Contact      // by account
	rooms         map[string]*room            // by conversation id
	current, last string                      // conversation ids
	wanted        string                      // a TARGET to go to once conversations are known
	settled       bool                        // the settings were loaded
	listing       bool                        // the conversations are being loaded,
	listAgain     bool                        // and changed meanwhile
	status        api.Status
	me            api.Me
	outage        error // why there is no connection to the node
	now           time.Time

	input     editor
	overlay   overlay
	flash     string // what a command said, above the status bar
	flashAt   time.Time
	quitting  bool // ctrl+c was pressed on an empty input
	complete  completion
	settings  settings
	typedAt   time.Time // when the others were last told that the user types
	rangAt    time.Time // when the bell last rang
	outgoing  outgoing
	bare      bool // the side columns are hidden, so that a terminal's own selection takes text alone
	foreign   bool // something came that needs a newer version
	statusLag bool // the status is being loaded

	turn       *turn
	pastSaved  int  // input.filed as the node has it
	pastSaving bool // it is on its way there
}

func newModel(ctx context.Context, cfg Config) *model {
	m := &model{
		ctx: ctx, api: cfg.Client, cfg: cfg,
		opened: map[string]api.Conversation{}, contacts: map[string]api.Contact{}, rooms: map[string]*room{},
		wanted: cfg.Open, now: time.Now(), width: 80, height: 24,
		settings: settings{bell: true}, turn: newTurn(),
	}
	m.zone = cfg.Zone
	if m.zone == nil {
		m.zone = time.Local
	}
	m.theme = pickTheme("", cfg.Environ)
	m.words = newCatalog(pickLanguage(cfg.Language, "", cfg.Environ))
	m.outgoing.prefix = newPrefix()
	return m
}

// Init implements tea.Model. What there is to show is loaded once the event stream says hello, so
// that nothing can fall between the two.
func (m *model) Init() tea.Cmd { return tick() }

type tickMsg time.Time

// tick redraws the clock, keeps drafts, and asks for the status now and then.
func tick() tea.Cmd {
	return tea.Tick(time.Second, func(t time.Time) tea.Msg { return tickMsg(t) })
}

// Update implements tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		if p, ok := m.overlay.(*pager); ok {
			p.lay(m)
		}
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case tea.PasteMsg:
		return m, m.paste(msg.Content)
	case tea.ModeReportMsg:
		m.modeReport(msg)
	case tea.BlurMsg:
		m.blurred = true
	case tea.FocusMsg:
		m.blurred = false
		return m, m.seen()
	case tickMsg:
		return m, tea.Batch(tick(), m.tick(time.Time(msg)))
	case eventsMsg:
		return m, m.events(msg)
	case answerMsg:
		return m, msg(m)
	case errorMsg:
		m.fail(msg.err)
	}
	return m, nil
}

// modeReport hears how the terminal counts cells; the renderer does too, and both must agree.
func (m *model) modeReport(msg tea.ModeReportMsg) {
	if msg.Mode == ansi.ModeUnicodeCore && !msg.Value.IsNotRecognized() && !msg.Value.IsPermanentlyReset() {
		m.metric, m.input.metric = byCluster, byCluster
		m.style++
	}
}

// statusPeriod is how often the status is asked for besides the events about it, in seconds.
const statusPeriod = 5

// flashFor is how long an answer stays at least.
const flashFor = 20 * time.Second

func (m *model) tick(now time.Time) tea.Cmd {
	m.now = now
	m.forgetTypists()
	if m.flash != "" && now.Sub(m.flashAt) > flashFor {
		m.flash = ""
	}
	if m.outage != nil {
		return nil
	}
	cmds := []tea.Cmd{m.keepDraft(), m.keepPast(), m.sendNext()}
	if now.Second()%statusPeriod == 0 {
		cmds = append(cmds, m.loadStatus())
	}
	if r := m.rooms[m.current]; r != nil && r.stale {
		cmds = append(cmds, m.loadMembers())
	}
	return tea.Batch(cmds...)
}

// say shows an answer above the status bar. The text is escaped by whoever made it.
func (m *model) say(text string) { m.flash, m.flashAt = text, m.now }

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

// events applies what came from the node's stream, oldest first.
func (m *model) events(list eventsMsg) tea.Cmd {
	var cmds []tea.Cmd
	for _, f := range list {
		if f.err != nil {
			m.outage = f.err
			continue
		}
		cmds = append(cmds, m.event(f.event))
	}
	return tea.Batch(append(cmds, m.seen())...)
}

func (m *model) event(ev api.Event) tea.Cmd {
	m.outage = nil
	switch ev.Type {
	case api.EventHello:
		return tea.Batch(m.start(), m.sendNext())
	case api.EventReset:
		for _, r := range m.rooms {
			r.loaded = false
		}
		return tea.Batch(m.start(), m.refill(m.current))
	case api.EventMessage, api.EventUpdate:
		if ev.Message != nil {
			return m.message(*ev.Message, ev.Type == api.EventMessage)
		}
	case api.EventConversation:
		if ev.Conversation != nil {
			m.conversation(*ev.Conversation)
		}
	case api.EventContact:
		if ev.Contact != nil {
			return m.contact(*ev.Contact)
		}
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
	if !fresh {
		r.update(msg)
		return nil
	}
	delete(r.typing, msg.Account)
	m.foreign = m.foreign || msg.Kind == api.KindUnknown
	r.arrived(msg)
	var quote tea.Cmd
	if msg.ReplyTo != "" && msg.Conversation == m.current {
		quote = m.loadQuoted(msg.Conversation)
	}
	return tea.Batch(quote, m.alert(msg))
}

// bellPause is the least time between two bells.
const bellPause = 3 * time.Second

// alert rings the bell and asks the terminal for a notification (OSC 9) when somebody speaks to the
// user and the user does not see it. Only the escaped name goes into it, never the text.
func (m *model) alert(msg api.Message) tea.Cmd {
	c := m.find(msg.Conversation)
	if c == nil || msg.Own || c.Muted || !m.settings.bell || msg.Kind != api.KindMessage || !m.mentions(msg) && c.Kind != kindDirect {
		return nil
	}
	if r := m.rooms[m.current]; msg.Conversation == m.current && !m.blurred && m.overlay == nil && r.following {
		return nil
	}
	if m.now.Sub(m.rangAt) < bellPause {
		return nil
	}
	m.rangAt = m.now
	who := m.nickOf(msg.Nick, msg.Fingerprint, msg.NickShared)
	return tea.Raw("\a\x1b]9;starling: " + who + "\x1b\\")
}

// typingFor is how long somebody counts as typing after the last signal.
const typingFor = 6 * time.Second

func (m *model) typed(t api.Typing) {
	if t.Account != m.me.Account {
		m.room(t.Conversation).typing[t.Account] = typist{m.nickOf(t.Nick, t.Account, false), m.now.Add(typingFor)}
	}
}

// forgetTypists drops who has not typed for a while.
func (m *model) forgetTypists() {
	for _, r := range m.rooms {
		maps.DeleteFunc(r.typing, func(_ string, t typist) bool { return m.now.After(t.until) })
	}
}

// here gives the conversation on screen and what is held of it; nil before there is one.
func (m *model) here() (*api.Conversation, *room) {
	c := m.find(m.current)
	if c == nil {
		return nil, nil
	}
	return c, m.room(c.ID)
}

func (m *model) room(id string) *room {
	r := m.rooms[id]
	if r == nil {
		r = newRoom()
		m.rooms[id] = r
	}
	return r
}
