package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

// pageSize is how many messages are asked for at once; the API takes at most 1,000.
const pageSize = 500

func (a *app) historyCommand() *cobra.Command {
	var n int
	var before, since string
	cmd := &cobra.Command{
		Use: "history TARGET", Short: "Show the messages of a room or a person, oldest first", Args: takes(1, 1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			q := api.HistoryQuery{Target: args[0], Before: before}
			if n < 1 {
				return usagef("-n %d: give how many messages to show", n)
			}
			if since != "" {
				t, err := parseTime(since, time.Now())
				if err != nil {
					return err
				}
				q.Since = api.Time{Time: t}
			}
			messages, err := lastMessages(ctx, c, q, n)
			if err != nil {
				return err
			}
			return a.printMessages(messages)
		}),
	}
	cmd.Flags().IntVarP(&n, "n", "n", 50, "show at most this many, the newest")
	cmd.Flags().StringVar(&before, "before", "", "the `ID` of a message: show what came just before it")
	cmd.Flags().StringVar(&since, "since", "", "a `TIME` such as 2026-01-31T08:00:00Z, or how long ago, such as 2h")
	return cmd
}

// parseTime reads a moment, or how long it is past.
func parseTime(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, usagef("time %q is not understood: use 2026-01-31T08:00:00Z, 2026-01-31, or how long ago, such as 90m", text)
}

// lastMessages walks back in pages until n messages are found or the conversation begins.
func lastMessages(ctx context.Context, c *api.Client, q api.HistoryQuery, n int) ([]api.Message, error) {
	var pages [][]api.Message
	for n > 0 {
		q.N = min(n, pageSize)
		page, err := c.History(ctx, q)
		if err != nil {
			return nil, err
		}
		if len(page) == 0 {
			break
		}
		pages = append(pages, page)
		n -= len(page)
		if len(page) < q.N {
			break
		}
		q.Before = page[0].ID
	}
	slices.Reverse(pages)
	return slices.Concat(pages...), nil
}

// printMessages prints messages one a line, or one object a line.
func (a *app) printMessages(messages []api.Message) error {
	if a.global.json {
		return printObjects(a, messages)
	}
	for _, m := range messages {
		if err := a.say("%s", messageLine(m, "")); err != nil {
			return err
		}
	}
	return nil
}

// messageLine shows a message on one line; here is the conversation that needs no mention. It is
// escaped.
func messageLine(m api.Message, here string) string {
	parts := []string{clock(m.SentAt)}
	if m.Target != here && here != anyConversation {
		parts = append(parts, api.Escape(m.Target))
	}
	parts = append(parts, messageBody(m))
	if m.Edited {
		parts = append(parts, "(edited)")
	}
	for _, r := range m.Reactions {
		parts = append(parts, "["+api.Escape(r.Text)+" "+strings.Join(escapeNicks(r.Nicks), " ")+"]")
	}
	switch m.State {
	case api.StateFailed:
		parts = append(parts, "(not sent: "+api.Escape(m.Reason)+")")
	case api.StateQueued:
		if !strings.HasPrefix(m.Target, "#") {
			parts = append(parts, "(waiting)")
		}
	}
	return strings.Join(parts, " ")
}

// anyConversation leaves the conversation out of every line.
const anyConversation = "*"

func messageBody(m api.Message) string {
	name := who(m.Nick, m.Fingerprint, m.NickShared)
	switch m.Kind {
	case api.KindJoin:
		return "-> " + name + " joined"
	case api.KindLeave:
		return "<- " + name + " left"
	case api.KindTopic:
		return "-- " + name + " set the topic: " + api.Escape(m.Text)
	case api.KindProfile:
		return "-- ~" + api.Escape(m.Fingerprint) + " is now known as " + api.EscapeNick(m.Text)
	case api.KindMember, api.KindNotice:
		return "-- " + api.Escape(m.Text)
	case api.KindUnknown:
		return "-- a message that needs a newer version of starling"
	}
	if m.Redacted {
		return "<" + name + "> (deleted)"
	}
	reply := ""
	if m.ReplyTo != "" {
		reply = "(reply) "
	}
	switch m.Style {
	case api.StyleAction:
		return "* " + name + " " + reply + api.Escape(m.Text)
	case api.StyleNotice:
		return "-" + name + "- " + reply + api.Escape(m.Text)
	}
	return "<" + name + "> " + reply + api.Escape(m.Text)
}

func escapeNicks(nicks []string) []string {
	out := make([]string, len(nicks))
	for i, n := range nicks {
		out[i] = api.EscapeNick(n)
	}
	return out
}

func (a *app) searchCommand() *cobra.Command {
	var q api.SearchQuery
	cmd := &cobra.Command{
		Use: "search QUERY", Short: "Find messages that hold every word, newest first", Args: takes(1, -1),
		RunE: a.frontend(func(ctx context.Context, c *api.Client, args []string) error {
			q.Query = strings.Join(args, " ")
			found, err := c.Search(ctx, q)
			if err != nil {
				return err
			}
			if len(found) == 0 {
				a.note("nothing found")
			}
			return a.printMessages(found)
		}),
	}
	cmd.Flags().StringVar(&q.In, "in", "", "only in this `TARGET`")
	cmd.Flags().StringVar(&q.From, "from", "", "only by this person, as `@NAME`")
	cmd.Flags().IntVarP(&q.N, "n", "n", 50, "show at most this many")
	return cmd
}
