package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/starling-chat/starling/node/api"
)

// printEvents prints what happens until ctx ends. It closes standing when the stream stands, and
// prints nothing before opened is closed.
func (l *lineChat) printEvents(ctx context.Context, standing chan<- struct{}, opened <-chan struct{}) error {
	first := true
	for ev, err := range l.client.Events(ctx, 0) {
		switch {
		case err != nil && first:
			return err
		case err != nil:
			l.info("%v", err)
		case ev.Type == api.EventHello && first:
			first = false
			close(standing)
			select {
			case <-opened:
			case <-ctx.Done():
			}
		case ev.Type == api.EventHello:
			l.info("connected to the node again")
		case ev.Type == api.EventReset:
			l.info("some messages may have been missed: /history shows them")
		case ev.Message != nil:
			l.message(ev.Type, *ev.Message)
		case ev.Conversation != nil:
			l.split(*ev.Conversation)
			l.standing(*ev.Conversation)
		case ev.Contact != nil && ev.Contact.State == "request":
			l.info("%s wants to write to you: /accept @%s", contactName(*ev.Contact), ev.Contact.Account)
		}
	}
	return ctx.Err()
}

// split says when a room falls into islands, and when it is one again.
func (l *lineChat) split(c api.Conversation) {
	was := l.islands[c.Target]
	l.islands[c.Target] = c.Split != nil
	switch {
	case c.Split != nil && !was:
		l.info("%s is in islands: what %s say comes late, and the node works on joining them", c.Target, strings.Join(c.Split.Nicks, ", "))
	case c.Split == nil && was:
		l.info("%s is one room again", c.Target)
	}
}

// standing says when this user was let into a private room, or is no member any more.
func (l *lineChat) standing(c api.Conversation) {
	if c.Access != "private" || c.Membership == api.MembershipKeyless { // lasts a moment at every change of the key
		return
	}
	l.mu.Lock()
	was, known := l.stands[c.Target]
	l.stands[c.Target] = c.Membership
	l.mu.Unlock()
	switch {
	case known && was == c.Membership:
	case c.Membership == api.MembershipRemoved:
		l.info("%s: %s", c.Target, c.Note)
	case c.Membership == api.MembershipMember && was == api.MembershipPending:
		l.info("you are in %s: %s; %s", c.Target, plural(c.Members, "member"), c.Policy)
	}
}

// showBacklog prints how the conversation went before; in a pipe it is only remembered, for /reply
// and the like.
func (l *lineChat) showBacklog(ctx context.Context) {
	if l.here() == "" {
		return
	}
	page, err := l.client.History(ctx, api.HistoryQuery{Target: l.here(), N: backlog})
	if err != nil {
		l.complain(err)
		return
	}
	for _, m := range page {
		if l.tty {
			l.message(api.EventMessage, m)
			continue
		}
		l.mu.Lock()
		l.remember(m)
		l.mu.Unlock()
	}
}

// message prints a message once, and later what became of it when that matters.
func (l *lineChat) message(kind string, m api.Message) {
	l.mu.Lock()
	isNew := l.seen.add(m.ID)
	typed := l.sent[m.ClientID]
	if typed && kind == api.EventMessage {
		delete(l.sent, m.ClientID)
	}
	here := l.target
	l.remember(m)
	l.mu.Unlock()

	switch {
	case kind == api.EventUpdate && m.State == api.StateFailed:
		l.print(m, here)
	case kind == api.EventUpdate && (m.Edited || m.Redacted) && !m.Own:
		l.print(m, here)
	case kind != api.EventMessage || !isNew:
	case typed && l.tty: // it stands on the terminal as it was typed
	default:
		l.print(m, here)
	}
}

func (l *lineChat) print(m api.Message, here string) {
	if l.app.global.json {
		_ = l.app.printJSON(m) // a broken pipe ends the process
		return
	}
	fmt.Fprintln(l.app.stdout, api.Escape(messageLine(m, here)))
}

// remember keeps the last messages for /reply, /edit, /delete and /react; mu is held.
func (l *lineChat) remember(m api.Message) {
	for i := range l.known {
		if l.known[i].ID == m.ID {
			l.known[i] = m
			return
		}
	}
	if len(l.known) == rememberedMessages {
		l.known = l.known[1:]
	}
	l.known = append(l.known, m)
}

// find gives the newest remembered message of the conversation whose id begins with ref; "^" is
// the last one by somebody else, "" the last own one.
func (l *lineChat) find(ref string) (api.Message, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.known) - 1; i >= 0; i-- {
		m := l.known[i]
		if m.Target != l.target || m.Kind != api.KindMessage || m.Redacted {
			continue
		}
		switch {
		case ref == "" && m.Own, ref == "^" && !m.Own, len(ref) >= minPrefix && strings.HasPrefix(m.ID, ref):
			return m, nil
		}
	}
	return api.Message{}, &api.Error{Code: api.CodeNotFound, Message: fmt.Sprintf("no message %q here", ref), Hint: "/history shows the messages with their ids; ^ is the last one by somebody else"}
}
