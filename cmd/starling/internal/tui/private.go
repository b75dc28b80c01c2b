package tui

import (
	"context"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// This file has the commands of private rooms: who is let in, who may do what, and who has to go.

// Roles of [api.Member] and what stands before a nick for them.
const (
	roleMember    = "member"
	roleModerator = "moderator"
	roleAdmin     = "admin"
	roleOwner     = "owner"
)

func roleMark(role string) string {
	switch role {
	case roleOwner, roleAdmin:
		return "@"
	case roleModerator:
		return "+"
	}
	return ""
}

// privateRoom gives the private room on screen, and says why a command means nothing elsewhere.
func (m *model) privateRoom() *api.Conversation {
	c := m.find(m.current)
	if c == nil || c.Kind != kindRoom || c.Access != "private" {
		m.say(m.t("public room"))
		return nil
	}
	return c
}

// cmdCreate makes a private room.
func (m *model) cmdCreate(args string) tea.Cmd {
	words := strings.Fields(args)
	if len(words) == 0 || len(words) > 2 {
		return m.usage("create")
	}
	req := api.CreateRoomRequest{Name: strings.TrimPrefix(words[0], "#")}
	if len(words) == 2 {
		req.History = words[1]
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		c, err := m.api.CreateRoom(ctx, req)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.conversation(c)
			cmd := m.open(c.ID)
			m.say(m.t("room created", m.title(&c)))
			return cmd
		}, nil
	})
}

// changeMember does one thing to a member of the private room on screen.
func (m *model) changeMember(command, args, action string) tea.Cmd {
	who, reason, _ := strings.Cut(args, " ")
	if who == "" {
		return m.usage(command)
	}
	c := m.privateRoom()
	if c == nil {
		return nil
	}
	req := api.MemberChange{Target: c.Target, Who: at(who), Action: action, Reason: strings.TrimSpace(reason)}
	change := func(m *model) tea.Cmd {
		return tea.Batch(m.do(func(ctx context.Context) error { return m.api.ChangeMember(ctx, req) }), m.loadMembers())
	}
	if action == api.MemberUnban {
		return change(m)
	}
	text := m.t("remove question", m.line(req.Who), m.title(c))
	if action == api.MemberBan {
		text = m.t("ban question", m.line(req.Who), m.title(c))
	}
	m.overlay = &question{
		text:    text,
		answers: map[string]func(*model) tea.Cmd{"y": change, "n": func(*model) tea.Cmd { return nil }},
	}
	return nil
}

// cmdOp gives somebody a role; without one, that of an admin.
func (m *model) cmdOp(args string) tea.Cmd {
	who, role, _ := strings.Cut(args, " ")
	if role = strings.TrimSpace(role); role == "" {
		role = roleAdmin
	}
	return m.setRole("op", who, role)
}

func (m *model) setRole(command, who, role string) tea.Cmd {
	if who == "" {
		return m.usage(command)
	}
	c := m.privateRoom()
	if c == nil {
		return nil
	}
	req := api.MemberChange{Target: c.Target, Who: at(who), Action: api.MemberRole, Role: role}
	return m.do(func(ctx context.Context) error { return m.api.ChangeMember(ctx, req) })
}

// cmdPolicy shows what a private room allows, or changes it for everybody.
func (m *model) cmdPolicy(args string) tea.Cmd {
	c := m.find(m.current)
	if c == nil || c.Kind != kindRoom {
		m.say(m.t("only in rooms"))
		return nil
	}
	if args == "" {
		m.say(m.t("policy", m.title(c), m.line(c.Policy)))
		return nil
	}
	if c = m.privateRoom(); c == nil {
		return nil
	}
	req := api.PolicyRequest{Target: c.Target}
	switch what, value, _ := strings.Cut(args, " "); what {
	case "history":
		req.History = strings.TrimSpace(value)
	case "invite":
		req.Invite = strings.TrimSpace(value)
	case "post":
		req.Post = strings.TrimSpace(value)
	default:
		return m.usage("policy")
	}
	return m.do(func(ctx context.Context) error { return m.api.SetPolicy(ctx, req) })
}

// cmdInvite makes a link: into the room on screen or named, or, elsewhere, to the user. Somebody who is
// named is sent it.
func (m *model) cmdInvite(args string) tea.Cmd {
	req := api.InviteRequest{}
	if c := m.find(m.current); c != nil && c.Kind == kindRoom {
		req.Target = c.Target
	}
	guest := ""
	for _, word := range strings.Fields(args) {
		d, err := time.ParseDuration(word)
		switch {
		case word == "list":
			return m.listInvites(&listing{title: m.t("invites title"), keys: m.t("invite keys"), act: (*model).inviteKey})
		case word == "once":
			req.OneTime = true
		case word == "me" || word == "-me":
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
		m.say(m.t("only in rooms"))
		return nil
	}
	if c := m.findTarget(req.Target); guest != "" && c != nil && c.Access == "private" {
		req.OneTime = true // who knows a public room's name is in anyway
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		inv, err := m.api.CreateInvite(ctx, req)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			if guest != "" {
				m.say(m.t("invite sent", m.line(req.Target), m.line(guest)))
				return m.send(api.SendRequest{Target: guest, Text: inv.Link})
			}
			m.showInvite(req, inv)
			return nil
		}, nil
	})
}

func (m *model) showInvite(req api.InviteRequest, inv api.Invite) {
	m.show(&pager{title: m.t("invite title"), whole: true, make: func(m *model) string {
		text := m.t("invite me")
		if req.Target != "" {
			text = m.t("invite room", m.line(req.Target))
		}
		if !inv.ExpiresAt.IsZero() {
			text += "\n" + m.t("invite until", inv.ExpiresAt.In(m.zone).Format("2006-01-02 15:04"))
		}
		if inv.OneTime {
			text += "\n" + m.t("invite once")
		}
		return m.withQR(text+"\n\n"+m.line(inv.Link), inv.Link)
	}})
}

func (m *model) listInvites(l *listing) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		list, err := m.api.Invites(ctx)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			l.rows = nil
			for _, inv := range list {
				label := m.name(inv.Target)
				if inv.Target == "" {
					label = m.t("you")
				}
				if !inv.ExpiresAt.IsZero() {
					label += "  " + m.t("invite until", inv.ExpiresAt.In(m.zone).Format("2006-01-02 15:04"))
				}
				if inv.OneTime {
					label += "  " + m.t("invite once")
				}
				if inv.Used {
					label += "  " + m.t("invite used")
				}
				l.rows = append(l.rows, row{inv.ID, label + "  " + m.line(inv.Link)})
			}
			m.overlay = l
			return nil
		}, nil
	})
}

func (m *model) inviteKey(id, key string) tea.Cmd {
	l, ok := m.overlay.(*listing)
	if !ok || key != "r" {
		return nil
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		if err := m.api.RevokeInvite(ctx, id); err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			if m.overlay != overlay(l) {
				return nil
			}
			return m.listInvites(l)
		}, nil
	})
}
