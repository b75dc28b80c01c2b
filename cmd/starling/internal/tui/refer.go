package tui

import (
	"slices"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// This file has the commands that are about a message: which one is meant, and what is done to it.
// A message is named by a number counted from the newest, by @nick for the last one of somebody, or
// by the beginning of its id; without any the command takes what is most likely meant.

// minIDPrefix is from how many characters on a word is taken for the beginning of an id.
const minIDPrefix = 8

// spoken goes through the messages that somebody wrote in the conversation on screen, newest first.
func (r *room) spoken(yield func(api.Message) bool) {
	for _, e := range slices.Backward(r.entries) {
		if e.msg.Kind == api.KindMessage && !e.msg.Redacted && !yield(e.msg) {
			return
		}
	}
}

// refer finds the message that the first word of the arguments names; named is false when the word is
// no name of one, and then all of it is rest.
func (r *room) refer(args string) (msg api.Message, rest string, named, ok bool) {
	word, rest, _ := strings.Cut(args, " ")
	rest = strings.TrimSpace(rest)
	n, err := strconv.Atoi(word)
	who, byNick := strings.CutPrefix(word, "@")
	byID := len(word) >= minIDPrefix && strings.Trim(word, "0123456789abcdef") == ""
	switch {
	case err == nil && n > 0 && n <= maxLoaded:
	case byNick && who != "", byID:
	default:
		return msg, args, false, false
	}
	r.spoken(func(m api.Message) bool {
		switch {
		case byNick:
			ok = strings.EqualFold(m.Nick, who) || strings.EqualFold(m.Account, who)
		case byID:
			ok = strings.HasPrefix(m.ID, word)
		default:
			n--
			ok = n == 0
		}
		if ok {
			msg = m
		}
		return !ok
	})
	return msg, rest, true, ok
}

// last is the newest message of the user's own, or of the others.
func (r *room) last(own bool) (msg api.Message, ok bool) {
	r.spoken(func(m api.Message) bool {
		if ok = m.Own == own; ok {
			msg = m
		}
		return !ok
	})
	return msg, ok
}

// meant gives the message that the arguments name, or the last own or other one. It says so itself
// when there is none.
func (m *model) meant(args string, own bool) (target string, msg api.Message, rest string, ok bool) {
	c, r := m.here()
	if c == nil {
		m.say(m.t("no conversation"))
		return "", msg, "", false
	}
	msg, rest, named, ok := r.refer(args)
	if !named {
		msg, ok = r.last(own)
	}
	switch {
	case !ok:
		m.say(m.t("no message"))
	case own && !msg.Own:
		ok = false
		m.say(m.t("not yours"))
	}
	return c.Target, msg, rest, ok
}

// choose lets the user pick one of the messages that were said last.
func (m *model) choose(title string, own bool, pick func(m *model, msg api.Message) tea.Cmd) tea.Cmd {
	_, r := m.here()
	if r == nil {
		m.say(m.t("no conversation"))
		return nil
	}
	p := &picker{title: title, filter: editor{metric: m.metric}}
	r.spoken(func(msg api.Message) bool {
		if msg.Own || !own {
			label := msg.SentAt.In(m.zone).Format("15:04") + " " + m.nickOf(msg.Nick, msg.Fingerprint, msg.NickShared) + ": " + m.line(msg.Text)
			p.choices = append(p.choices, choice{label, func(m *model) tea.Cmd { return pick(m, msg) }})
		}
		return true
	})
	m.overlay = p
	return nil
}

// cmdReply answers at once when a text is given; otherwise what is written next is the answer.
func (m *model) cmdReply(args string) tea.Cmd {
	answer := func(m *model, msg api.Message) tea.Cmd {
		m.rooms[m.current].writing.Reply = msg.ID
		return nil
	}
	if args == "" {
		return m.choose(m.t("reply to which"), false, answer)
	}
	target, msg, text, ok := m.meant(args, false)
	switch {
	case !ok:
		return nil
	case text == "":
		return answer(m, msg)
	}
	return tea.Batch(m.send(api.SendRequest{Target: target, Text: text, ReplyTo: msg.ID}), m.toEnd())
}

// cmdEdit changes the last own message to a text, or puts the one that is named into the input.
func (m *model) cmdEdit(args string) tea.Cmd {
	target, msg, text, ok := m.meant(args, true)
	switch {
	case !ok:
		return nil
	case text == "":
		m.startEdit(msg.ID, msg.Text)
		return nil
	}
	return m.send(api.SendRequest{Target: target, Text: text, Action: api.ActionEdit, Ref: msg.ID})
}

// moderates says whether the user may delete what the arguments name although others said it. The node
// knows better whose messages; this is for who may delete nobody's.
func (m *model) moderates(args string) bool {
	c, r := m.here()
	if c == nil || c.Access != "private" || c.Role == "" || c.Role == "member" {
		return false
	}
	_, _, named, _ := r.refer(args)
	return named
}

// cmdDelete asks first: what others have seen does not come back.
func (m *model) cmdDelete(args string) tea.Cmd {
	target, msg, _, ok := m.meant(args, !m.moderates(args))
	if !ok {
		return nil
	}
	m.overlay = &question{
		text: m.t("delete question", m.cut(m.line(msg.Text), 60)),
		answers: map[string]func(*model) tea.Cmd{
			"y": func(m *model) tea.Cmd {
				return m.send(api.SendRequest{Target: target, Action: api.ActionRedact, Ref: msg.ID})
			},
			"n": func(*model) tea.Cmd { return nil },
		},
	}
	return nil
}

// cmdReact gives a reaction; - takes it back.
func (m *model) cmdReact(args string) tea.Cmd {
	if args == "" {
		return m.choose(m.t("react to which"), false, func(m *model, msg api.Message) tea.Cmd {
			m.input.set("/react " + msg.ID[:min(len(msg.ID), minIDPrefix)] + " ")
			return nil
		})
	}
	target, msg, text, ok := m.meant(args, false)
	switch {
	case !ok:
		return nil
	case text == "":
		return m.usage("react")
	case text == "-":
		text = ""
	}
	return m.send(api.SendRequest{Target: target, Text: text, Action: api.ActionReact, Ref: msg.ID})
}

// cmdRaw shows a message so that nothing in it can hide: every byte beyond printable ASCII by its
// number.
func (m *model) cmdRaw(args string) tea.Cmd {
	c, r := m.here()
	if c == nil {
		return nil
	}
	if _, _, named, _ := r.refer(args); !named {
		args = "1"
	}
	_, msg, _, ok := m.meant(args, false)
	if !ok {
		return nil
	}
	text := m.t("raw", m.name(msg.ID), m.name(msg.Account), m.name(msg.Device), msg.SentAt.UTC().Format("2006-01-02T15:04:05.000Z"),
		strconv.QuoteToASCII(msg.Nick), len(msg.Text), strconv.QuoteToASCII(msg.Text))
	m.show(&pager{title: m.t("raw title"), text: text})
	return nil
}
