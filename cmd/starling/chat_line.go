package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/starling-chat/starling/cmd/starling/internal/tui"
	"github.com/starling-chat/starling/node/api"
)

const (
	// backlog is how many messages of the conversation are shown first on a terminal.
	backlog = 20
	// maxInputLine bounds one line of input; a longer one is refused as a whole. It is far over
	// the longest text, so that the node's own error about the limit is what is seen.
	maxInputLine = 256 << 10 // bytes
	// linger is how long a node of our own stays after piped input ended, so that what was accepted
	// can reach somebody who is near. It ends as soon as everything was handed on.
	linger = 3 * time.Second
	// calmTicks is for how many looks nothing must wait before the node may end: gossip says that it
	// took a message, not that it has left.
	calmTicks = 4
	// rememberedMessages is how many messages can be answered or changed by a short id.
	rememberedMessages = 1000
)

// lineChat is the conversation line by line: one goroutine reads lines and sends them, one prints
// events.
type lineChat struct {
	app    *app
	client *api.Client
	own    bool // the node runs in this process
	tty    bool // somebody types
	prefix string
	count  int
	failed error // the first line that was not accepted

	islands map[string]bool // rooms that were said to be split; for the goroutine that prints

	mu     sync.Mutex // guards everything below
	target string
	stands map[string]string // how this user was last seen to stand with private rooms
	sent   map[string]bool   // client ids of lines typed here, until their echo
	seen   *recent
	known  []api.Message // the last messages shown, for short ids
}

func newLineChat(a *app, c *api.Client, target string, own bool) *lineChat {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	return &lineChat{
		app: a, client: c, own: own, tty: isTerminal(a.stdin),
		prefix: "chat-" + hex.EncodeToString(id), target: target,
		sent: map[string]bool{}, seen: newRecent(rememberedMessages), islands: map[string]bool{}, stands: map[string]string{},
	}
}

// run opens the conversation and returns when the input ends or /quit is typed. The event stream
// stands before the conversation is announced: whatever is said from then on is printed.
func (l *lineChat) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	standing, opened, printed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() { printed <- l.printEvents(ctx, standing, opened) }() // ends with ctx; waited for below
	select {
	case <-standing:
	case err := <-printed:
		return err
	}
	err := l.open(ctx)
	if err == nil {
		l.showBacklog(ctx)
		close(opened)
		err = l.readLines(ctx)
	}
	if err == nil && !l.tty {
		l.settle(ctx)
	}
	cancel()
	<-printed
	if err == nil {
		err = l.failed
	}
	return err
}

// open joins the room that was named, or chooses the conversation that was used last.
func (l *lineChat) open(ctx context.Context) error {
	if l.target == "" {
		return l.chooseTarget(ctx)
	}
	return l.enter(ctx, l.target)
}

// enter makes target the conversation; a room is joined if need be.
func (l *lineChat) enter(ctx context.Context, target string) error {
	if strings.HasPrefix(target, "@") {
		page, err := l.client.History(ctx, api.HistoryQuery{Target: target, N: 1})
		if err != nil {
			return err
		}
		if len(page) > 0 {
			target = page[0].Target
		}
		l.setTarget(target)
		l.info("talking with %s; only the two of you can read it", target)
		return nil
	}
	room, err := l.client.Join(ctx, api.JoinRequest{Room: target})
	if err != nil {
		return err
	}
	l.entered(room)
	return nil
}

// entered makes a joined room the conversation, and says what there is to know about it.
func (l *lineChat) entered(room api.Conversation) {
	l.setTarget(room.Target)
	l.mu.Lock()
	l.stands[room.Target] = room.Membership
	l.mu.Unlock()
	if room.Membership == api.MembershipPending {
		l.info("%s: %s", room.Target, room.Note)
		return
	}
	l.info("%s: %s, /help for help", room.Target, membersAndPeers(room))
	if room.Membership == api.MembershipMember {
		l.info("%s", room.Policy)
	}
	if room.Topic != "" {
		l.info("topic: %s", room.Topic)
	}
	if room.Note != "" {
		l.info("%s", room.Note)
	}
}

func (l *lineChat) setTarget(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
}

func (l *lineChat) here() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.target
}

func (l *lineChat) chooseTarget(ctx context.Context) error {
	all, err := l.client.Conversations(ctx)
	if err != nil {
		return err
	}
	var last api.Conversation
	for _, c := range all {
		if last.Target == "" || c.LastAt.After(last.LastAt.Time) {
			last = c
		}
	}
	if last.Target == "" {
		l.info("no conversation yet: /join #lobby, or /help")
		return nil
	}
	return l.enter(ctx, last.Target)
}

// info prints a line of our own, marked as such.
func (l *lineChat) info(format string, args ...any) {
	if !l.app.global.quiet {
		fmt.Fprintln(l.app.stderr, "-- "+api.Escape(fmt.Sprintf(format, args...)))
	}
}

// complain prints why a line was not done; in a pipe the first one decides the exit code.
func (l *lineChat) complain(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	var e *api.Error
	if errors.As(err, &e) {
		here := *e
		here.Hint = tui.AsTyped(e.Hint)
		err = &here
	}
	l.app.warn(err)
	if l.failed == nil && !l.tty {
		_, code := verdict(err)
		l.failed = &silentError{code: code}
	}
}

// readLines sends what is typed until the end of the input, /quit, or ctx.
func (l *lineChat) readLines(ctx context.Context) error {
	lines, failed := make(chan string), make(chan error, 1)
	// A read of a terminal cannot be interrupted: this goroutine ends with the input or the process.
	go func() {
		failed <- readInput(ctx, l.app.stdin, lines)
		close(lines)
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case line, ok := <-lines:
			if !ok {
				return <-failed
			}
			quit, err := l.line(ctx, line)
			if err != nil {
				l.complain(err)
			}
			if quit {
				return nil
			}
		}
	}
}

// readInput passes lines on, without their ends; what is too long becomes a line that is over every
// limit, so that it is refused like any other.
func readInput(ctx context.Context, in io.Reader, lines chan<- string) error {
	r := bufio.NewReaderSize(in, maxInputLine)
	for {
		b, err := r.ReadSlice('\n')
		line := strings.TrimRight(string(b), "\r\n")
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if line != "" {
			select {
			case lines <- line:
			case <-ctx.Done():
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the input: %w", err)
		}
	}
}

// line does one line of input: a command, or a message.
func (l *lineChat) line(ctx context.Context, line string) (quit bool, err error) {
	if !utf8.ValidString(line) {
		return false, usagef("a line is not valid UTF-8 and was not sent; convert it first, for example with `iconv -t UTF-8`")
	}
	if text, ok := strings.CutPrefix(line, "//"); ok {
		return false, l.say(ctx, "/"+text)
	}
	if strings.HasPrefix(line, "/") {
		return l.command(ctx, line)
	}
	return false, l.say(ctx, line)
}

// say sends a text to the conversation.
func (l *lineChat) say(ctx context.Context, text string) error {
	return l.send(ctx, api.SendRequest{Target: l.here(), Text: text})
}

func (l *lineChat) send(ctx context.Context, req api.SendRequest) error {
	if req.Target == "" {
		return usagef("no conversation is open: /join #lobby, or /msg @NAME TEXT")
	}
	l.count++
	req.ClientID = fmt.Sprintf("%s-%d", l.prefix, l.count)
	if req.Action == "" {
		l.mu.Lock()
		l.sent[req.ClientID] = true
		l.mu.Unlock()
	}
	_, err := l.client.Send(ctx, req)
	if err != nil {
		l.mu.Lock()
		delete(l.sent, req.ClientID)
		l.mu.Unlock()
	}
	return err
}

// echoed says whether every line that was sent has come back as an event.
func (l *lineChat) echoed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.sent) == 0
}

// settle waits, for a moment at most, until everything sent here was printed; and, when the node is
// ours and about to end, until it was handed to somebody. What was not is durable, and goes out when
// a node runs again.
func (l *lineChat) settle(ctx context.Context) {
	if l.count == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, linger)
	defer cancel()
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for calm := 0; calm < calmTicks; calm++ {
		switch {
		case !l.echoed():
			calm = -1
		case !l.own:
			return
		}
		page, err := l.client.History(ctx, api.HistoryQuery{Target: l.here(), N: min(l.count, pageSize)})
		if err != nil {
			return
		}
		if l.anyWaiting(page) || !l.company(ctx) {
			calm = -1
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// company says whether anybody is connected who shares the conversation.
func (l *lineChat) company(ctx context.Context) bool {
	all, err := l.client.Conversations(ctx)
	if err != nil {
		return false
	}
	for _, c := range all {
		if c.Target == l.here() {
			return c.Peers > 0
		}
	}
	return false
}

func (l *lineChat) anyWaiting(page []api.Message) bool {
	for _, m := range page {
		if strings.HasPrefix(m.ClientID, l.prefix) && (m.State == api.StateAccepted || m.State == api.StateQueued) {
			return true
		}
	}
	return false
}
