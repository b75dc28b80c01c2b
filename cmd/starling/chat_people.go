package main

import (
	"context"
	"strings"

	"github.com/starling-chat/starling/node/api"
)

// This file has the commands of line mode that are about people.

// person is who a command is about: the one named, or the other side of the conversation.
func (l *lineChat) person(args []string) (string, error) {
	if len(args) > 0 {
		return atName(args[0]), nil
	}
	if here := l.here(); strings.HasPrefix(here, "@") {
		return here, nil
	}
	return "", usagef("nobody is named: add @NAME")
}

// atName makes a TARGET of a name as people type it.
func atName(who string) string {
	if strings.HasPrefix(who, "@") || strings.HasPrefix(who, linkPrefix) {
		return who
	}
	return "@" + who
}

// linkPrefix begins every invite and contact link.
const linkPrefix = "starling:"

// follow does what a link is for: it joins the room, or goes to the conversation with the person.
func (l *lineChat) follow(ctx context.Context, link string) error {
	p, err := l.client.AddContact(ctx, api.ContactRequest{Who: link})
	if err == nil {
		l.info("added %s (%s)", contactName(p), p.Fingerprint)
		return l.enter(ctx, "@"+p.Account)
	}
	room, err := l.client.Join(ctx, api.JoinRequest{Room: link})
	if err != nil {
		return err
	}
	l.entered(room)
	return nil
}

func (l *lineChat) query(ctx context.Context, args []string, _ string) error {
	return l.enter(ctx, atName(args[0]))
}

func (l *lineChat) who(ctx context.Context, args []string, _ string) error {
	who, err := l.person(args)
	if err != nil {
		return err
	}
	v, err := l.client.Verification(ctx, who)
	if err != nil {
		return err
	}
	return l.app.showVerification(v, false)
}

// verify shows what two people compare, and takes the answer.
func (l *lineChat) verify(ctx context.Context, args []string, _ string) error {
	trust := ""
	if n := len(args); n > 0 {
		switch args[n-1] {
		case "yes":
			trust = api.TrustVerified
		case "no":
			trust = api.TrustUnverified
		}
		if trust != "" {
			args = args[:n-1]
		}
	}
	who, err := l.person(args)
	if err != nil {
		return err
	}
	if trust != "" {
		return l.app.setTrust(ctx, l.client, who, trust)
	}
	v, err := l.client.Verification(ctx, who)
	if err != nil {
		return err
	}
	if err := l.app.showVerification(v, false); err != nil {
		return err
	}
	l.info("compare it by voice or face to face; /verify %s yes when both of you see the same", who)
	return nil
}

func (l *lineChat) contact(ctx context.Context, args []string, _ string) error {
	if len(args) == 0 || args[0] == "list" {
		contacts, err := l.client.Contacts(ctx)
		if err != nil {
			return err
		}
		rows := make([][]string, len(contacts))
		for i, p := range contacts {
			rows[i] = []string{contactName(p), p.Fingerprint, p.State, p.Trust, orDash(p.Path), p.Account}
		}
		return l.app.printTable(nil, rows)
	}
	if len(args) < 2 {
		return usagef("usage: %s", chatCommands()["contact"].usage)
	}
	action, whom, name := args[0], atName(args[1]), strings.Join(args[2:], " ")
	if action == "add" {
		p, err := l.client.AddContact(ctx, api.ContactRequest{Who: whom, Petname: name})
		if err != nil {
			return err
		}
		l.info("added %s (%s)", contactName(p), p.Fingerprint)
		return nil
	}
	return l.client.ChangeContact(ctx, api.ContactChange{Who: whom, Action: action, Petname: name})
}

// changing is a command that does one thing to a contact.
func changing(action string) func(*lineChat, context.Context, []string, string) error {
	return func(l *lineChat, ctx context.Context, args []string, _ string) error {
		who, err := l.person(args)
		if err != nil {
			return err
		}
		if err := l.client.ChangeContact(ctx, api.ContactChange{Who: who, Action: action}); err != nil {
			return err
		}
		l.info("done: %s %s", action, who)
		return nil
	}
}

func (l *lineChat) ping(ctx context.Context, args []string, _ string) error {
	peer := ""
	if len(args) > 0 {
		peer = args[0]
	} else {
		who, err := l.person(nil)
		if err != nil {
			return err
		}
		peer = who
	}
	res, err := l.client.Ping(ctx, peer)
	if err != nil {
		return err
	}
	return l.app.say("%s %s %.1f ms %s", res.PeerID, res.Path, res.RTTMS, res.Addr)
}

func (l *lineChat) doctor(ctx context.Context, _ []string, _ string) error {
	report, err := l.client.Doctor(ctx)
	if err != nil {
		return err
	}
	return l.app.printTable(nil, doctorRows(report))
}
