package tui

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// This file has the commands whose answer is a page to read.

// report asks the node and shows what text makes of the answer.
func report[T any](m *model, title string, ask func(ctx context.Context) (T, error), text func(m *model, v T) string) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		v, err := ask(ctx)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.show(&pager{title: title, text: text(m, v)})
			return nil
		}, nil
	})
}

func (m *model) cmdPeers(string) tea.Cmd {
	return report(m, m.t("peers title"), m.api.Peers, func(m *model, peers []api.Peer) string {
		var b strings.Builder
		for _, p := range peers {
			name := m.name(p.Nick)
			if p.Nick == "" {
				name = "-"
			}
			if p.Relay {
				name += " " + m.t("a relay")
			}
			fmt.Fprintf(&b, "%s %8.1f ms  %s  %s\n    %s\n", m.fit(m.name(p.Path), 8), p.RTTMS, m.name(p.PeerID), name, m.line(p.Addr))
		}
		return b.String()
	})
}

func (m *model) cmdStatus(string) tea.Cmd {
	return report(m, m.t("status title"), m.api.Status, func(m *model, s api.Status) string {
		var b strings.Builder
		for _, p := range s.Problems {
			fmt.Fprintf(&b, "! %s\n", m.line(p))
		}
		keys := m.t("keys plain")
		if s.Encrypted {
			keys = m.t("keys protected")
		}
		b.WriteString(m.t("status program", m.line(s.Version), m.line(s.Network), m.line(s.Home)) + "\n")
		b.WriteString(m.t("status peers", s.Peers.Total, s.Peers.LAN, s.Peers.Direct, s.Peers.Punched, s.Peers.Relayed, m.line(s.Reachability)) + "\n")
		b.WriteString(m.t("status chat", s.Rooms, s.Unread, s.Outbox, s.Gaps) + "\n")
		if s.Away.Mailboxes > 0 {
			b.WriteString(m.t("status away", s.Away.Mailboxes) + "\n")
		} else {
			b.WriteString(m.t("status lost") + "\n")
		}
		b.WriteString(m.t("status disk", m.line(s.Storage.State), s.Storage.Messages, s.Storage.FreeBytes>>20) + "\n")
		b.WriteString(keys + "\n")
		b.WriteString(m.t("status traffic", s.Gossip.Published, s.Gossip.Delivered, s.Gossip.Dropped, s.BytesIn>>10, s.BytesOut>>10) + "\n")
		for _, r := range s.Relays {
			state := m.t("relay away")
			switch {
			case r.Reserved:
				state = m.t("relay reserved", r.Topics)
			case r.Connected:
				state = m.t("relay connected", r.Topics)
			}
			fmt.Fprintf(&b, "%s %s %s\n", m.name(r.PeerID), state, m.line(r.Error))
		}
		for _, a := range s.Addrs {
			b.WriteString(m.line(a) + "\n")
		}
		return b.String()
	})
}

func (m *model) cmdDoctor(string) tea.Cmd {
	m.say(m.t("checking"))
	return report(m, m.t("doctor title"), m.api.Doctor, func(m *model, d api.Doctor) string {
		m.flash = ""
		var b strings.Builder
		for _, c := range d.Checks {
			fmt.Fprintf(&b, "%s %s: %s\n", m.fit(m.name(c.Status), 5), m.line(c.Name), m.line(c.Detail))
			if c.Hint != "" {
				fmt.Fprintf(&b, "      %s\n", m.line(c.Hint))
			}
		}
		return b.String()
	})
}

func (m *model) cmdPing(args string) tea.Cmd {
	who := m.who(args)
	if strings.HasPrefix(args, "/") || len(args) > 40 { // an address or a peer id
		who = args
	}
	if who == "" {
		return m.usage("ping")
	}
	m.say(m.t("checking"))
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		r, err := m.api.Ping(ctx, who)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.say(fmt.Sprintf("%s: %.1f ms, %s, %s", m.line(who), r.RTTMS, m.name(r.Path), m.line(r.Addr)))
			return nil
		}, nil
	})
}

func (m *model) cmdNames(string) tea.Cmd {
	c := m.find(m.current)
	if c == nil || c.Kind != kindRoom {
		m.say(m.t("only in rooms"))
		return nil
	}
	target := c.Target
	ask := func(ctx context.Context) ([]api.Member, error) { return m.api.Members(ctx, target) }
	return report(m, m.t("names title", m.title(c)), ask, func(m *model, list []api.Member) string {
		var b strings.Builder
		for _, w := range list {
			name := m.nickOf(w.Nick, w.Fingerprint, w.NickShared)
			if w.Petname != "" {
				name = m.name(w.Petname) + " (" + name + ")"
			}
			state := m.t("offline")
			switch {
			case w.Own:
				state = m.t("you")
			case w.Path != "":
				state = m.name(w.Path)
			case w.Online:
				state = m.t("online")
			}
			fmt.Fprintf(&b, "%s %s %s %s\n", m.fit(name, max(20, m.metric.width(name))), m.name(w.Fingerprint), state, m.line(w.Role))
		}
		return b.String()
	})
}

// cmdOutbox lists what has not arrived, or does one thing to one message.
func (m *model) cmdOutbox(args string) tea.Cmd {
	action, id, _ := strings.Cut(args, " ")
	if action == api.OutboxRetry || action == api.OutboxCancel {
		if id = strings.TrimSpace(id); id == "" {
			return m.usage("outbox")
		}
		return m.do(func(ctx context.Context) error { return m.api.ChangeOutbox(ctx, id, action) })
	}
	l := &listing{title: m.t("outbox title"), keys: m.t("outbox keys"), act: (*model).outboxKey}
	return m.loadOutbox(l)
}

func (m *model) loadOutbox(l *listing) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		list, err := m.api.Outbox(ctx)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			l.rows = nil
			for _, e := range list {
				label := e.CreatedAt.In(m.zone).Format("01-02 15:04") + " " + m.name(e.Target) + " " + m.t("attempts", m.name(e.State), e.Attempts)
				if !e.NextAttempt.IsZero() {
					label += " " + m.t("next attempt", e.NextAttempt.In(m.zone).Format("15:04:05"))
				}
				l.rows = append(l.rows, row{e.ID, label + " " + m.line(e.Reason)})
			}
			m.overlay = l
			return nil
		}, nil
	})
}

func (m *model) outboxKey(id, key string) tea.Cmd {
	l, ok := m.overlay.(*listing)
	action := map[string]string{"r": api.OutboxRetry, "c": api.OutboxCancel}[key]
	if !ok || action == "" {
		return nil
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		if err := m.api.ChangeOutbox(ctx, id, action); err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			if m.overlay != overlay(l) {
				return nil
			}
			return m.loadOutbox(l)
		}, nil
	})
}

func (m *model) cmdHistory(args string) tea.Cmd {
	c := m.find(m.current)
	n := 50
	if args != "" {
		v, err := strconv.Atoi(args)
		if err != nil || v < 1 || v > 1000 {
			return m.usage("history")
		}
		n = v
	}
	if c == nil {
		return nil
	}
	ask := m.history(api.HistoryQuery{Target: c.Target, N: n})
	return report(m, m.t("history title", m.title(c)), ask, func(m *model, list []api.Message) string {
		var b strings.Builder
		for _, h := range list {
			text := m.line(h.Text)
			if h.Kind != api.KindMessage {
				text = "-- " + m.name(h.Kind) + " " + text
			}
			fmt.Fprintf(&b, "%s %s %s: %s\n", h.SentAt.In(m.zone).Format("01-02 15:04"), m.name(h.ID[:min(len(h.ID), minIDPrefix)]),
				m.nickOf(h.Nick, h.Fingerprint, h.NickShared), text)
		}
		return b.String()
	})
}
