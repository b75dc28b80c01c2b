package main

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"github.com/starling-chat/starling/node/api"
)

type tailFlags struct {
	n      int
	follow bool
	since  uint64
	all    bool
}

func (a *app) tailCommand() *cobra.Command {
	var f tailFlags
	var resume bool
	cmd := &cobra.Command{
		Use: "tail [TARGET...]", Short: "Show the last messages and, with -f, what follows",
		Long: "Show the last messages of the given conversations, or of all, and with -f what follows.\n\n" +
			"With --json each line is a message, and a followed one has a \"cursor\": given back as --since\n" +
			"it continues there. Nothing is left out silently: after a gap in the event stream the missed\n" +
			"messages are fetched from the history. With --all each line is an event as the API has it.",
		Args: takes(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			resume = cmd.Flags().Changed("since")
			if f.n < 0 {
				return usagef("-n %d is negative", f.n)
			}
			if resume && !cmd.Flags().Changed("n") {
				f.n = 0
			}
			ctx := cmd.Context()
			if a.global.timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, a.global.timeout)
				defer cancel()
			}
			c := a.client()
			defer c.Close()
			t := &tailer{app: a, client: c, flags: f, resume: resume}
			if err := t.find(ctx, args); err != nil {
				return err
			}
			if f.follow || resume {
				return t.follow(ctx)
			}
			return t.last(ctx)
		},
	}
	cmd.Flags().IntVarP(&f.n, "n", "n", 10, "begin with at most this many of each conversation")
	cmd.Flags().BoolVarP(&f.follow, "follow", "f", false, "go on with what follows")
	cmd.Flags().Uint64Var(&f.since, "since", 0, "go on after the event with this `CURSOR`; without -f only to the present")
	cmd.Flags().BoolVar(&f.all, "all", false, "print every event, not only messages")
	return cmd
}

// tailer prints the end of conversations and follows them.
type tailer struct {
	app    *app
	client *api.Client
	flags  tailFlags
	resume bool              // --since was given
	only   map[string]bool   // ids of the conversations to show; nil shows all
	names  []string          // what can be asked for history
	newest map[string]uint64 // conversation id -> highest arrival number printed
	seen   *recent
}

// followed is a message with the place in the event stream that it had.
type followed struct {
	api.Message
	Cursor uint64 `json:"cursor,omitempty"`
}

// find resolves the targets, so that a name that does not exist is an error and not silence.
func (t *tailer) find(ctx context.Context, targets []string) error {
	t.newest, t.seen = map[string]uint64{}, newRecent(4*pageSize)
	all, err := t.client.Conversations(ctx)
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		for _, c := range all {
			t.names = append(t.names, c.Target)
		}
		return nil
	}
	t.only = map[string]bool{}
	for _, target := range targets {
		id, err := conversationOf(ctx, t.client, all, target)
		if err != nil {
			return err
		}
		t.only[id] = true
		t.names = append(t.names, target)
	}
	return nil
}

// conversationOf gives the id of the conversation that a target names.
func conversationOf(ctx context.Context, c *api.Client, all []api.Conversation, target string) (string, error) {
	for _, conv := range all {
		if conv.Target == target || conv.ID == target {
			return conv.ID, nil
		}
	}
	page, err := c.History(ctx, api.HistoryQuery{Target: target, N: 1})
	if err != nil {
		return "", err
	}
	if len(page) == 1 {
		return page[0].Conversation, nil
	}
	v, err := c.Verification(ctx, target) // a person without any message yet
	if err == nil {
		return v.Account, nil
	}
	return "", &api.Error{Code: api.CodeNotFound, Message: target + " is no conversation", Hint: "see `starling rooms` and `starling contact list`"}
}

// last prints the newest messages of each conversation, in the order in which they were sent.
func (t *tailer) last(ctx context.Context) error {
	if t.flags.n == 0 {
		return nil
	}
	var found []api.Message
	for _, name := range t.names {
		page, err := lastMessages(ctx, t.client, api.HistoryQuery{Target: name}, t.flags.n)
		if err != nil {
			return err
		}
		found = append(found, page...)
	}
	return t.printSorted(found)
}

func (t *tailer) printSorted(found []api.Message) error {
	slices.SortStableFunc(found, func(a, b api.Message) int { return a.SentAt.Compare(b.SentAt.Time) })
	for _, m := range found {
		if err := t.print(m, 0); err != nil {
			return err
		}
	}
	return nil
}

// print shows a message once.
func (t *tailer) print(m api.Message, cursor uint64) error {
	t.newest[m.Conversation] = max(t.newest[m.Conversation], m.Seq)
	if !t.seen.add(m.ID) {
		return nil
	}
	if t.app.global.json {
		return t.app.printJSON(followed{Message: m, Cursor: cursor})
	}
	return t.app.say("%s", messageLine(m, t.here()))
}

// here leaves the conversation out of the lines when there is only one.
func (t *tailer) here() string {
	if len(t.only) == 1 {
		return anyConversation
	}
	return ""
}

func (t *tailer) follow(ctx context.Context) error {
	since, until := uint64(0), uint64(0)
	if t.resume {
		since = t.flags.since
		if !t.flags.follow {
			var err error
			if until, err = presentCursor(ctx, t.client); err != nil {
				return err
			}
			if until <= since {
				return nil
			}
		}
	}
	hello := false
	for ev, err := range t.client.Events(ctx, since) {
		if err != nil {
			if !hello {
				return err // no node, or a node that refuses: not an outage to wait out
			}
			t.app.warn(err)
			continue
		}
		if ev.Type == api.EventHello && !hello {
			hello = true
			if err := t.last(ctx); err != nil {
				return err
			}
		}
		if err := t.event(ctx, ev); err != nil {
			return err
		}
		if until != 0 && ev.Cursor >= until {
			return nil
		}
	}
	return ctx.Err()
}

// presentCursor asks for the cursor of the newest event.
func presentCursor(ctx context.Context, c *api.Client) (uint64, error) {
	for ev, err := range c.Events(ctx, 0) {
		return ev.Cursor, err
	}
	return 0, ctx.Err()
}

func (t *tailer) event(ctx context.Context, ev api.Event) error {
	if t.flags.all {
		if err := t.printEvent(ev); err != nil {
			return err
		}
	}
	switch ev.Type {
	case api.EventReset:
		return t.catchUp(ctx)
	case api.EventMessage:
		if t.only != nil && !t.only[ev.Message.Conversation] {
			return nil
		}
		if t.flags.all {
			t.newest[ev.Message.Conversation] = max(t.newest[ev.Message.Conversation], ev.Message.Seq)
			t.seen.add(ev.Message.ID)
			return nil
		}
		return t.print(*ev.Message, ev.Cursor)
	}
	return nil
}

func (t *tailer) printEvent(ev api.Event) error {
	if t.app.global.json {
		return t.app.printJSON(ev)
	}
	switch {
	case ev.Message != nil:
		return t.app.say("%d %s %s", ev.Cursor, ev.Type, messageLine(*ev.Message, ""))
	case ev.Conversation != nil:
		return t.app.say("%d %s %s: %d unread, %s", ev.Cursor, ev.Type, ev.Conversation.Target, ev.Conversation.Unread, membersAndPeers(*ev.Conversation))
	case ev.Contact != nil:
		return t.app.say("%d %s %s: %s, %s", ev.Cursor, ev.Type, api.EscapeNick(ev.Contact.Nick), ev.Contact.State, ev.Contact.Trust)
	case ev.Typing != nil:
		return t.app.say("%d %s %s", ev.Cursor, ev.Type, api.EscapeNick(ev.Typing.Nick))
	default:
		return t.app.say("%d %s", ev.Cursor, ev.Type)
	}
}

// resetTail is how many messages of a conversation are shown after a reset when nothing tells which
// were missed.
const resetTail = 50

// catchUp fetches what the event stream could not replay.
func (t *tailer) catchUp(ctx context.Context) error {
	all, err := t.client.Conversations(ctx)
	if err != nil {
		return err
	}
	var found []api.Message
	for _, c := range all {
		if t.only != nil && !t.only[c.ID] {
			continue
		}
		after, known := t.newest[c.ID]
		if !known && t.resume {
			t.app.note("starling: the cursor is too old to say what was missed in %s; its last messages follow", api.Escape(c.Target))
			after = c.LastSeq - min(c.LastSeq, resetTail)
		}
		missed, err := t.missed(ctx, c, after)
		if err != nil {
			return err
		}
		found = append(found, missed...)
	}
	return t.printSorted(found)
}

// missed walks back through a conversation and collects what arrived after the arrival number after.
// Display order is not arrival order, so it goes on until it has as many as arrived, or until it
// is as far back without finding one.
func (t *tailer) missed(ctx context.Context, c api.Conversation, after uint64) ([]api.Message, error) {
	if c.LastSeq <= after {
		return nil, nil
	}
	want := c.LastSeq - after
	q := api.HistoryQuery{Target: c.Target, N: pageSize}
	var found []api.Message
	for walked := uint64(0); ; {
		page, err := t.client.History(ctx, q)
		var e *api.Error
		if errors.As(err, &e) && e.Code == api.CodeNotFound {
			return found, nil // left meanwhile
		}
		if err != nil {
			return nil, err
		}
		before := len(found)
		for _, m := range page {
			if m.Seq > after {
				found = append(found, m)
			}
		}
		walked += uint64(len(page))
		if len(page) < q.N || uint64(len(found)) >= want || walked >= want && len(found) == before {
			return found, nil
		}
		q.Before = page[0].ID
	}
}

// recent remembers the last ids, so that nothing is printed twice where the history and the event
// stream overlap.
type recent struct {
	ids  map[string]bool
	ring []string
	next int
}

func newRecent(size int) *recent {
	return &recent{ids: make(map[string]bool, size), ring: make([]string, size)}
}

// add says whether id is new.
func (r *recent) add(id string) bool {
	if r.ids[id] {
		return false
	}
	delete(r.ids, r.ring[r.next])
	r.ring[r.next] = id
	r.next = (r.next + 1) % len(r.ring)
	r.ids[id] = true
	return true
}
