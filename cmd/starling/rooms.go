package main

import (
	"context"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

func (a *app) roomsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rooms", Short: "List the joined rooms", Args: noArgs,
		RunE: a.frontend(func(ctx context.Context, c *api.Client, _ []string) error {
			all, err := c.Conversations(ctx)
			if err != nil {
				return err
			}
			rooms := slices.DeleteFunc(all, func(c api.Conversation) bool { return c.Kind != "room" })
			if a.global.json {
				return printObjects(a, rooms)
			}
			if len(rooms) == 0 {
				a.note("no room is joined; join one with `starling join '#lobby'`")
				return nil
			}
			rows := make([][]string, len(rooms))
			for i, r := range rooms {
				rows[i] = []string{
					r.Target, strconv.Itoa(r.Unread), strconv.Itoa(r.Members), strconv.Itoa(r.Peers),
					strconv.Itoa(missingMessages(r)), accessWords(r), orDash(r.Topic),
				}
			}
			return a.printTable([]string{"ROOM", "UNREAD", "MEMBERS", "CONNECTED", "MISSING", "ACCESS", "TOPIC"}, rows)
		}),
	}
}

// accessWords says who gets into a room, and of a private one how this user stands there unless as a member.
func accessWords(c api.Conversation) string {
	if c.Membership == "" || c.Membership == api.MembershipMember {
		return c.Access
	}
	return c.Access + ", " + c.Membership
}

func missingMessages(c api.Conversation) int {
	n := 0
	for _, g := range c.Gaps {
		n += g.Count
	}
	return n
}

func (a *app) membersCommand() *cobra.Command {
	return &cobra.Command{
		Use: "members ROOM", Short: "List who was seen in a room", Args: takes(1, 1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			members, err := c.Members(ctx, args[0])
			if err != nil {
				return err
			}
			if a.global.json {
				return printObjects(a, members)
			}
			return a.printTable([]string{"NICK", "FINGERPRINT", "ROLE", "PATH", "SEEN", "ACCOUNT"}, memberRows(members))
		}),
	}
}

func memberRows(members []api.Member) [][]string {
	rows := make([][]string, len(members))
	for i, m := range members {
		name := who(m.Nick, m.Fingerprint, m.NickShared)
		if m.Petname != "" {
			name = api.EscapeNick(m.Petname)
		}
		path, seen := orDash(m.Path), ago(m.LastSeen)
		if m.Online {
			seen = "online"
		}
		if m.Own {
			path, seen = "you", "online"
		}
		rows[i] = []string{name, m.Fingerprint, orDash(m.Role), path, seen, m.Account}
	}
	return rows
}

func (a *app) digestCommand() *cobra.Command {
	return &cobra.Command{
		Use: "digest ROOM", Short: "Say what a conversation holds; equal on converged nodes", Args: takes(1, 1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			d, err := c.Digest(ctx, args[0])
			if err != nil {
				return err
			}
			if a.global.json {
				return a.printJSON(d)
			}
			line := plural(d.Count, "message") + " " + d.SHA256
			if d.Gaps > 0 {
				line += " (" + strconv.Itoa(d.Gaps) + " missing)"
			}
			return a.say("%s", line)
		}),
	}
}
