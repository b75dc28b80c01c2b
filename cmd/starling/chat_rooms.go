package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/starling-chat/starling/node/api"
)

// This file has the commands of line mode that are about conversations: where to talk, who is let in,
// and what was said.

// switchTo lists the conversations, or goes to one.
func (l *lineChat) switchTo(ctx context.Context, args []string, _ string) error {
	if len(args) > 0 {
		return l.enter(ctx, args[0])
	}
	all, err := l.client.Conversations(ctx)
	if err != nil {
		return err
	}
	rows := make([][]string, len(all))
	for i, c := range all {
		mark := ""
		switch {
		case c.Target == l.here():
			mark = "*"
		case c.Request:
			mark = "?"
		}
		rows[i] = []string{mark, c.Target, fmt.Sprintf("%d new", c.Unread), c.Topic}
	}
	return l.app.printTable(nil, rows)
}

// invite prints a link, or sends one to somebody.
func (l *lineChat) invite(ctx context.Context, args []string, _ string) error {
	req := api.InviteRequest{}
	if here := l.here(); strings.HasPrefix(here, "#") {
		req.Target = here
	}
	guest := ""
	for _, word := range args {
		d, err := time.ParseDuration(word)
		switch {
		case word == "once":
			req.OneTime = true
		case word == "me":
			req.Target = ""
		case err == nil && d > 0:
			req.ExpiryMS = d.Milliseconds()
		case strings.HasPrefix(word, "@"):
			guest = word
		default:
			req.Target = word
		}
	}
	if guest != "" && req.Target == "" {
		return usagef("into which room? /invite #ROOM %s", guest)
	}
	if guest != "" {
		private, err := l.private(ctx, req.Target)
		if err != nil {
			return err
		}
		req.OneTime = private // who knows a public room's name is in anyway
	}
	made, err := l.client.CreateInvite(ctx, req)
	switch {
	case err != nil:
		return err
	case guest == "":
		return l.app.say("%s", made.Link)
	}
	if err := l.send(ctx, api.SendRequest{Target: guest, Text: made.Link}); err != nil {
		return err
	}
	l.info("sent an invite into %s to %s", req.Target, guest)
	return nil
}

func (l *lineChat) private(ctx context.Context, target string) (bool, error) {
	all, err := l.client.Conversations(ctx)
	return slices.ContainsFunc(all, func(c api.Conversation) bool { return c.Target == target && c.Access == "private" }), err
}

// create makes a private room and talks there.
func (l *lineChat) create(ctx context.Context, args []string, _ string) error {
	req := api.CreateRoomRequest{Name: strings.TrimPrefix(args[0], "#")}
	if len(args) > 1 {
		req.History = args[1]
	}
	room, err := l.client.CreateRoom(ctx, req)
	if err != nil {
		return err
	}
	l.entered(room)
	l.info("only who is invited gets in: /invite @NAME")
	return nil
}

// membership is a command that does one thing to a member of a private room.
func membership(action string) func(*lineChat, context.Context, []string, string) error {
	return func(l *lineChat, ctx context.Context, args []string, rest string) error {
		who := atName(args[0])
		reason := strings.TrimSpace(strings.TrimPrefix(rest, args[0]))
		err := l.client.ChangeMember(ctx, api.MemberChange{Target: l.here(), Who: who, Action: action, Reason: reason})
		if err != nil {
			return err
		}
		l.info("done: %s %s", action, who)
		return nil
	}
}

func (l *lineChat) op(ctx context.Context, args []string, _ string) error {
	role := "admin"
	if len(args) > 1 {
		role = args[1]
	}
	return l.role(ctx, args[0], role)
}

func (l *lineChat) deop(ctx context.Context, args []string, _ string) error {
	return l.role(ctx, args[0], "member")
}

func (l *lineChat) role(ctx context.Context, who, role string) error {
	who = atName(who)
	if err := l.client.ChangeMember(ctx, api.MemberChange{Target: l.here(), Who: who, Action: api.MemberRole, Role: role}); err != nil {
		return err
	}
	l.info("%s is %s now", who, role)
	return nil
}

func (l *lineChat) policy(ctx context.Context, args []string, _ string) error {
	req := api.PolicyRequest{Target: l.here()}
	switch args[0] {
	case "history":
		req.History = args[1]
	case "invite":
		req.Invite = args[1]
	case "post":
		req.Post = args[1]
	default:
		return usagef("usage: %s", chatCommands()["policy"].usage)
	}
	return l.client.SetPolicy(ctx, req)
}

func muting(muted bool) func(*lineChat, context.Context, []string, string) error {
	return func(l *lineChat, ctx context.Context, _ []string, _ string) error {
		return l.client.SetMuted(ctx, l.here(), muted)
	}
}

func (l *lineChat) read(ctx context.Context, _ []string, _ string) error {
	all, err := l.client.Conversations(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.Unread > 0 {
			if err := l.client.MarkRead(ctx, c.Target, c.LastSeq); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *lineChat) search(ctx context.Context, args []string, rest string) error {
	q := api.SearchQuery{Query: rest, In: l.here()}
	if args[0] == "-all" {
		q.Query, q.In = strings.TrimSpace(strings.TrimPrefix(rest, args[0])), ""
	}
	found, err := l.client.Search(ctx, q)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		l.info("nothing found")
	}
	return l.listed(found)
}

// listed prints messages with the ids that other commands take.
func (l *lineChat) listed(messages []api.Message) error {
	for _, m := range messages {
		l.mu.Lock()
		l.remember(m)
		l.mu.Unlock()
		if err := l.app.say("%s %s", m.ID[:min(8, len(m.ID))], messageLine(m, l.here())); err != nil {
			return err
		}
	}
	return nil
}

// raw shows a message so that nothing in it can hide.
func (l *lineChat) raw(_ context.Context, args []string, _ string) error {
	ref := "^"
	if len(args) > 0 {
		ref = args[0]
	}
	m, err := l.find(ref)
	if err != nil {
		return err
	}
	return l.app.printTable(nil, [][]string{
		{"id", m.ID}, {"account", m.Account}, {"nick", strconv.QuoteToASCII(m.Nick)}, {"text", strconv.QuoteToASCII(m.Text)},
	})
}

// set changes the settings that the node itself looks at.
func (l *lineChat) set(ctx context.Context, args []string, _ string) error {
	if args[0] != "typing" && args[0] != "receipts" || args[1] != "on" && args[1] != "off" {
		return usagef("usage: %s", chatCommands()["set"].usage)
	}
	if err := l.client.SetSetting(ctx, args[0], args[1]); err != nil {
		return err
	}
	l.info("%s is %s", args[0], args[1])
	return nil
}
