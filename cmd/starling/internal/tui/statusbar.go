package tui

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/starling-chat/starling/node/api"
)

// This file says how things stand: the topic line on top, the notes and the status bar above the
// input.

// topicLine is the name, the topic and, at its right, who is there.
func (m *model) topicLine() string {
	c := m.find(m.current)
	if c == nil {
		return m.theme.bar.paint(m.fit(" starling", m.width))
	}
	text := " " + m.title(c)
	if c.Topic != "" {
		text += "  " + m.line(c.Topic)
	}
	side := m.presence(c) + " "
	if m.metric.width(side) > m.width/2 {
		side = ""
	}
	return m.theme.bar.paint(m.fit(text, m.width-m.metric.width(side)) + side)
}

// presence is, for a room, how many are in it, and for a person, whether they can be reached and
// whether their key was compared.
func (m *model) presence(c *api.Conversation) string {
	var parts []string
	if c.Muted {
		parts = append(parts, m.t("is muted"))
	}
	if c.Kind == kindRoom {
		if c.Access != "" && c.Access != "public" {
			parts = append(parts, m.name(c.Access))
		}
		return strings.Join(append(parts, m.t("seen connected", c.Members, c.Peers)), ", ")
	}
	parts = append(parts, m.trust(c.Trust))
	if path := m.contacts[c.Account].Path; path != "" {
		parts = append(parts, m.name(path))
	} else if c.Peers > 0 {
		parts = append(parts, m.t("online"))
	} else {
		parts = append(parts, m.t("offline"))
	}
	return strings.Join(parts, ", ")
}

// notes are the lines between messages and status bar: what is wrong, what is missing, who types,
// what is being answered or edited, and what the last command said.
func (m *model) notes() []string {
	var out []string
	add := func(style ink, text string) {
		for _, line := range m.metric.lines(text, m.width) {
			out = append(out, style.paint(m.fit(line, m.width)))
		}
	}
	one := func(style ink, text string) { out = append(out, style.paint(m.fit(text, m.width))) }
	for _, p := range m.problems() {
		add(m.theme.warn, p)
	}
	c, r := m.here()
	if c != nil && m.overlay == nil {
		m.roomNotes(c, r, one, add)
	}
	if n := len(m.outgoing.queue); n > 0 && m.outage != nil {
		one(m.theme.warn, m.t("waiting to be accepted", n))
	}
	if size := m.input.bytes(); size > maxText {
		one(m.theme.warn, m.t("over the limit", size, maxText))
	}
	if m.flash != "" {
		add(m.theme.accent, m.flash)
	}
	if most := max(3, m.height/3); len(out) > most {
		out = out[:most]
	}
	return out
}

// maxText is what a message may hold; the node refuses more.
const maxText = 16 << 10 // bytes

func (m *model) roomNotes(c *api.Conversation, r *room, one, add func(ink, string)) {
	if c.Request {
		add(m.theme.mark, m.t("request", m.title(c)))
	}
	if key := map[string]string{
		api.MembershipPending: "pending", api.MembershipKeyless: "keyless", api.MembershipRemoved: "was removed",
	}[c.Membership]; key != "" {
		add(m.theme.warn, m.t(key))
	}
	if c.Split != nil {
		var names []string
		for _, nick := range c.Split.Nicks {
			names = append(names, m.name(nick))
		}
		add(m.theme.warn, m.t("split", m.title(c), m.enumerate(names)))
	}
	if c.Trust == api.TrustChanged {
		add(m.theme.warn, m.t("key changed", m.title(c)))
	}
	for _, g := range c.Gaps {
		if r.byID[g.After] == nil { // otherwise it is shown where it is
			one(m.theme.warn, m.gap(g))
			break
		}
	}
	if r.loading && r.loaded && m.now.Sub(r.since) >= time.Second {
		one(m.theme.dim, m.t("asking older"))
	}
	if !r.following && r.loaded {
		one(m.theme.dim, m.t("more below"))
	}
	if len(r.typing) > 0 {
		var names []string
		for _, t := range r.typing {
			names = append(names, t.nick)
		}
		one(m.theme.dim, m.t("typing", m.enumerate(names)))
	}
	if r.writing.Edit != "" {
		one(m.theme.accent, m.t("editing"))
	}
	if id := r.writing.Reply; id != "" {
		one(m.theme.accent, m.t("replying", m.quotation(r, id)))
	}
}

// statusLine is the bar over the input. What does not fit is what matters least.
func (m *model) statusLine() string {
	parts := []string{m.now.In(m.zone).Format("15:04")}
	if c := m.find(m.current); c != nil {
		parts = append(parts, m.title(c))
	}
	if m.outage != nil {
		parts = append(parts, m.t("detached"))
	} else if m.status.Schema > 0 {
		parts = append(parts, m.peersPart())
		if n := m.status.Outbox; n > 0 {
			parts = append(parts, m.t("outbox", n))
		}
		if n := m.status.Gaps; n > 0 {
			parts = append(parts, m.t("gaps", n))
		}
	}
	if act := m.activity(); act != "" {
		parts = append(parts, m.t("active", act))
	}
	bar := "[" + strings.Join(parts, "] [") + "]"
	if m.metric.width(bar) > m.width && len(parts) > 2 && m.find(m.current) != nil {
		parts = slices.Delete(parts, 1, 2) // the conversation stands on top, too
		bar = "[" + strings.Join(parts, "] [") + "]"
	}
	return m.theme.bar.paint(m.fit(bar, m.width))
}

// peersPart counts the connected peers by path.
func (m *model) peersPart() string {
	p := m.status.Peers
	if p.Total == 0 {
		return m.whyAlone()
	}
	text := m.t("peers", p.Total)
	if m.width < membersFrom {
		if p.Relayed > 0 {
			text += ", " + m.t("relayed", p.Relayed)
		}
		return text
	}
	for _, by := range []struct {
		key string
		n   int
	}{{"on the lan", p.LAN}, {"direct", p.Direct}, {"punched", p.Punched}, {"relayed", p.Relayed}} {
		if by.n > 0 {
			text += ", " + m.t(by.key, by.n)
		}
	}
	return text
}

// whyAlone says why nobody is connected, as far as the node knows.
func (m *model) whyAlone() string {
	s := &m.status
	answers := slices.ContainsFunc(s.Relays, func(r api.Relay) bool { return r.Connected })
	switch {
	case !s.Ready:
		return m.t("starting")
	case len(s.Addrs) == 0:
		return m.t("no network")
	case len(s.Relays) > 0 && !answers:
		return m.t("no relay")
	}
	return m.t("alone")
}

// activity lists the conversations with something unread, by number, and by name what speaks to the
// user.
func (m *model) activity() string {
	var active []string
	for i := range m.conversations {
		c := &m.conversations[i]
		if c.Unread == 0 || c.Muted || m.watched(c) || c.ID == m.current {
			continue
		}
		name := strconv.Itoa(i + 1)
		if c.Kind == kindDirect || c.Mentions > 0 {
			name = m.title(c) + "(" + strconv.Itoa(c.Unread) + ")"
		}
		active = append(active, name)
	}
	return strings.Join(active, ",")
}

const (
	// diskLow is below how much free space the user is warned.
	diskLow = 200 << 20 // bytes
	// clockOff is how wrong the clock may be: beyond, others put off what comes from here.
	clockOff = 2 * time.Minute
)

// problems are the things the user should know, worst first.
func (m *model) problems() []string {
	if m.outage != nil {
		return []string{m.t("node gone")}
	}
	s := &m.status
	var out []string
	switch {
	case s.Storage.State == "read_only":
		out = append(out, m.t("disk full"))
	case s.Storage.State == "no_history":
		out = append(out, m.t("no history"))
	case s.Storage.FreeBytes > 0 && s.Storage.FreeBytes < diskLow:
		out = append(out, m.t("disk low", s.Storage.FreeBytes>>20))
	}
	if skew := time.Duration(s.ClockSkewMS) * time.Millisecond; skew.Abs() > clockOff {
		out = append(out, m.t("clock", skew.Abs().Round(time.Second)))
	}
	for _, p := range s.Problems {
		out = append(out, m.line(p))
	}
	if m.foreign {
		out = append(out, m.t("newer version"))
	}
	const most = 2
	return slices.Clip(out[:min(len(out), most)])
}
