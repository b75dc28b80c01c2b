package tui

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"
	"rsc.io/qr"

	"github.com/starling-chat/starling/node/api"
)

// This file has the commands whose answer is a page to read.

// report asks the node and shows what text makes of the answer.
func report[T any](m *model, title string, ask func(ctx context.Context) (T, error), text func(m *model, v T) string) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		v, err := ask(ctx)
		return func(m *model) tea.Cmd {
			m.show(m.t(title), text(m, v))
			return nil
		}, err
	})
}

func (m *model) cmdPeers(string) tea.Cmd {
	return report(m, "peers title", m.api.Peers, func(_ *model, peers []api.Peer) string {
		var b strings.Builder
		for _, p := range peers {
			name := api.EscapeNick(p.Nick)
			if p.Relay {
				name += " (relay)"
			}
			fmt.Fprintf(&b, "%-8s %8.1f ms  %s  %s %s\n", api.EscapeNick(p.Path), p.RTTMS, api.EscapeNick(p.PeerID), name, api.Escape(p.Addr))
		}
		return b.String()
	})
}

func (m *model) cmdStatus(string) tea.Cmd {
	return report(m, "status title", m.api.Status, func(_ *model, s api.Status) string {
		var b strings.Builder
		for _, p := range s.Problems {
			fmt.Fprintf(&b, "! %s\n", api.Escape(p))
		}
		fmt.Fprintf(&b, "version %s  network %s  home %s\n", api.Escape(s.Version), api.Escape(s.Network), api.Escape(s.Home))
		fmt.Fprintf(&b, "peers %d (lan %d, direct %d, punched %d, relayed %d)  reachability %s\n",
			s.Peers.Total, s.Peers.LAN, s.Peers.Direct, s.Peers.Punched, s.Peers.Relayed, api.Escape(s.Reachability))
		fmt.Fprintf(&b, "rooms %d  unread %d  outbox %d  gaps %d\n", s.Rooms, s.Unread, s.Outbox, s.Gaps)
		fmt.Fprintf(&b, "storage %s, %d messages, %d MiB free  keys %s\n", api.Escape(s.Storage.State), s.Storage.Messages,
			s.Storage.FreeBytes>>20, map[bool]string{true: "under a passphrase", false: "without a passphrase"}[s.Encrypted])
		fmt.Fprintf(&b, "gossip published %d delivered %d dropped %d\n", s.Gossip.Published, s.Gossip.Delivered, s.Gossip.Dropped)
		for _, r := range s.Relays {
			fmt.Fprintf(&b, "relay %s connected %v reserved %v topics %d %s\n", api.EscapeNick(r.PeerID), r.Connected, r.Reserved, r.Topics, api.Escape(r.Error))
		}
		for _, a := range s.Addrs {
			fmt.Fprintf(&b, "%s\n", api.Escape(a))
		}
		return b.String()
	})
}

func (m *model) cmdDoctor(string) tea.Cmd {
	m.flash = m.t("loading")
	return report(m, "doctor title", m.api.Doctor, func(m *model, d api.Doctor) string {
		m.flash = ""
		var b strings.Builder
		for _, c := range d.Checks {
			fmt.Fprintf(&b, "%-5s %s: %s\n", api.EscapeNick(c.Status), api.Escape(c.Name), api.Escape(c.Detail))
			if c.Hint != "" {
				fmt.Fprintf(&b, "      %s\n", api.Escape(c.Hint))
			}
		}
		return b.String()
	})
}

func (m *model) cmdPing(who string) tea.Cmd {
	if who == "" {
		return m.usage("ping")
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		r, err := m.api.Ping(ctx, who)
		return func(m *model) tea.Cmd {
			m.flash = fmt.Sprintf("%s: %.1f ms, %s, %s", api.EscapeNick(who), r.RTTMS, api.EscapeNick(r.Path), api.Escape(r.Addr))
			return nil
		}, err
	})
}

func (m *model) cmdNames(string) tea.Cmd {
	c := m.find(m.current)
	if c == nil || c.Kind != "room" {
		return m.usage("names")
	}
	target := c.Target
	return report(m, "members", func(ctx context.Context) ([]api.Member, error) { return m.api.Members(ctx, target) },
		func(m *model, list []api.Member) string {
			var b strings.Builder
			for _, w := range list {
				state := ""
				if w.Online {
					state = w.Path
				}
				fmt.Fprintf(&b, "%s  %s  %s %s\n", m.nickOf(w.Nick, w.Fingerprint, w.NickShared), api.EscapeNick(w.Fingerprint), api.EscapeNick(state), api.EscapeNick(w.Role))
			}
			return b.String()
		})
}

func (m *model) cmdWhois(who string) tea.Cmd {
	if who == "" {
		return m.usage("whois")
	}
	who = at(who)
	return report(m, "whois title", func(ctx context.Context) (api.Verification, error) { return m.api.Verification(ctx, who) },
		func(m *model, v api.Verification) string {
			text := fmt.Sprintf("%s\n%s\n%s\n", api.EscapeNick(v.Nick), api.EscapeNick(v.Account), api.EscapeNick(v.Trust))
			for _, r := range m.rooms {
				for _, w := range r.members {
					if w.Account == v.Account {
						return text + fmt.Sprintf("fingerprint %s  path %s\n", api.EscapeNick(w.Fingerprint), api.EscapeNick(w.Path))
					}
				}
			}
			return text
		})
}

func (m *model) cmdVerify(args string) tea.Cmd {
	who, answer, _ := strings.Cut(args, " ")
	if who == "" {
		return m.usage("verify")
	}
	who = at(who)
	trust := map[string]string{"yes": "verified", "no": "unverified"}[strings.TrimSpace(answer)]
	if trust == "" {
		return report(m, "verify title", func(ctx context.Context) (api.Verification, error) { return m.api.Verification(ctx, who) },
			func(m *model, v api.Verification) string {
				name := api.EscapeNick(who)
				return m.t("compare", name, name) + "\n\n" + api.EscapeText(v.SafetyNumber) + "\n\n" + qrText(v.QR)
			})
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		_, err := m.api.SetTrust(ctx, who, trust)
		return func(m *model) tea.Cmd {
			m.flash = m.t("setting", api.EscapeNick(who), trust)
			return m.loadAll()
		}, err
	})
}

func (m *model) cmdInvite(target string) tea.Cmd {
	if target == "" {
		if c := m.find(m.current); c != nil && c.Kind == "room" {
			target = c.Target
		}
	}
	return report(m, "invite title", func(ctx context.Context) (api.Invite, error) {
		return m.api.CreateInvite(ctx, api.InviteRequest{Target: target})
	}, func(m *model, inv api.Invite) string {
		return m.t("invite made") + "\n\n" + api.Escape(inv.Link) + "\n\n" + qrText(inv.Link)
	})
}

// qrText draws a QR code with half blocks, dark modules as spaces so that it scans on a dark
// background; nothing when the text is too long for one.
func qrText(text string) string {
	if text == "" {
		return ""
	}
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return ""
	}
	const quiet = 2 // modules of margin that readers need
	dark := func(x, y int) bool { return code.Black(x, y) }
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			switch upper, lower := dark(x, y), dark(x, y+1); {
			case !upper && !lower:
				b.WriteRune('█')
			case !upper:
				b.WriteRune('▀')
			case !lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (m *model) cmdOutbox(args string) tea.Cmd {
	action, id, _ := strings.Cut(args, " ")
	if action == "retry" || action == "cancel" {
		if id = strings.TrimSpace(id); id == "" {
			return m.usage("outbox")
		}
		return m.do(func(ctx context.Context) error { return m.api.ChangeOutbox(ctx, id, action) })
	}
	return report(m, "outbox title", m.api.Outbox, func(m *model, list []api.OutboxEntry) string {
		var b strings.Builder
		for _, e := range list {
			next := ""
			if !e.NextAttempt.IsZero() {
				next = e.NextAttempt.In(m.zone).Format("15:04:05")
			}
			fmt.Fprintf(&b, "%s  %s  %s  %d  %s  %s\n", api.EscapeNick(e.ID), api.EscapeNick(e.Target), api.EscapeNick(e.State), e.Attempts, next, api.Escape(e.Reason))
		}
		return b.String()
	})
}

func (m *model) cmdHistory(args string) tea.Cmd {
	c := m.find(m.current)
	if c == nil {
		return nil
	}
	n := 50
	if args != "" {
		v, err := strconv.Atoi(args)
		if err != nil || v < 1 || v > 1000 {
			return m.usage("history")
		}
		n = v
	}
	target := c.Target
	return report(m, "history title", func(ctx context.Context) ([]api.Message, error) {
		return m.api.History(ctx, api.HistoryQuery{Target: target, N: n})
	}, func(m *model, list []api.Message) string {
		var b strings.Builder
		for _, h := range list {
			fmt.Fprintf(&b, "%s %s: %s\n", h.SentAt.In(m.zone).Format("01-02 15:04"), m.nickOf(h.Nick, h.Fingerprint, h.NickShared), api.Escape(h.Text))
		}
		return b.String()
	})
}

func (m *model) cmdContact(args string) tea.Cmd {
	words := strings.Fields(args)
	if len(words) < 2 {
		return m.usage("contact")
	}
	name := strings.Join(words[2:], " ")
	if words[0] == "add" {
		return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
			_, err := m.api.AddContact(ctx, api.ContactRequest{Who: words[1], Petname: name})
			return func(m *model) tea.Cmd {
				m.flash = m.t("done")
				return m.loadAll()
			}, err
		})
	}
	return m.changeContact("contact", words[1], words[0], name)
}

func (m *model) changeContact(command, who, action, name string) tea.Cmd {
	if who == "" {
		return m.usage(command)
	}
	who = at(who)
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		err := m.api.ChangeContact(ctx, api.ContactChange{Who: who, Action: action, Petname: name})
		return func(m *model) tea.Cmd {
			m.flash = m.t("done")
			return m.loadAll()
		}, err
	})
}

func (m *model) typingSignal(target string) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		return nil, m.api.Typing(ctx, target)
	})
}
