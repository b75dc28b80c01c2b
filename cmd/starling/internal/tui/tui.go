// Package tui is the terminal UI: conversations at the left, messages in the middle, members at
// the right, a status bar that is always true, and an input line with readline's keys. It speaks to a
// node through [api.Client] and to nothing else, so it can do what any bot can do and no more.
//
// It follows the Elm architecture of bubbletea: one model, changed only by Update, drawn by View. Calls to
// the node run as commands outside of Update; the event stream comes in through one goroutine
// that [Run] waits for. What peers wrote passes [api.Escape], [api.EscapeText] or [api.EscapeNick] before it
// is laid out (see escape.go): there is no other way onto the screen.
package tui

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// Config is what the UI needs.
type Config struct {
	Client *api.Client
	// Open is the conversation to begin with, as TARGET; empty is the one last looked at, or #lobby.
	Open string
	// Language is en or zh; empty follows the setting kept in the node, then the locale.
	Language string
	// Environ is the process environment, as os.Environ returns it; nil takes that.
	Environ []string
	// Zone is for the times shown; nil is the local one.
	Zone *time.Location
}

// Usable tells whether a terminal of that description can show the UI. When it cannot, the reason is
// a sentence for the user.
func Usable(environ []string) (ok bool, reason string) {
	switch term := lookup(environ, "TERM"); term {
	case "", "dumb", "unknown":
		return false, fmt.Sprintf("TERM is %q, which cannot show a full screen: using line mode", term)
	}
	locale := ""
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale = lookup(environ, name); locale != "" {
			break
		}
	}
	if l := strings.ToLower(locale); !strings.Contains(l, "utf-8") && !strings.Contains(l, "utf8") {
		return false, fmt.Sprintf("the locale %q is not UTF-8: using line mode (set LANG=C.UTF-8 for the full screen)", locale)
	}
	return true, ""
}

// Run shows the UI until the user quits or ctx ends. It restores the terminal before it returns,
// hands over what was entered last, and keeps what was being written. Unaccepted is the number of
// messages that the node did not take; they are drafts now if it takes those.
func Run(ctx context.Context, cfg Config) (unaccepted int, err error) {
	if cfg.Environ == nil {
		cfg.Environ = os.Environ()
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	m := newModel(inner, cfg)
	p := tea.NewProgram(m, tea.WithEnvironment(cfg.Environ), tea.WithoutSignalHandler())
	// A signal to end is a quiet Quit, so that the last frame is drawn and the terminal restored.
	defer context.AfterFunc(ctx, p.Quit)()
	fed := make(chan struct{})
	go func() { // ends with cancel, waited for below
		defer close(fed)
		feed(inner, cfg.Client, p.Send)
	}()
	_, err = p.Run()
	unaccepted = m.finish(context.WithoutCancel(ctx))
	cancel()
	<-fed
	if err != nil && !errors.Is(err, tea.ErrInterrupted) {
		return unaccepted, fmt.Errorf("terminal UI: %w", err)
	}
	return unaccepted, nil
}

// fed is one thing that the event stream yields.
type fed struct {
	event api.Event
	err   error // no connection, and why
}

// eventsMsg is what came since the last one, oldest first.
type eventsMsg []fed

const (
	// feedAhead is how many events may wait for the screen. When they are more the node keeps them,
	// and when it has to drop some it says so with a reset.
	feedAhead = 256
	// framePause is the least time between two batches: a flood is drawn sixty times a second.
	framePause = 16 * time.Millisecond
	// streamPause is how long to wait before asking again for a stream that was refused.
	streamPause = time.Second
)

// feed passes the node's events on until ctx ends. The client reconnects by itself; each outage is
// told once. During a flood events come in batches, so that drawing does not fall behind.
func feed(ctx context.Context, client *api.Client, send func(tea.Msg)) {
	queue := make(chan fed, feedAhead)
	go func() { // ends with ctx, and with it the loop below
		defer close(queue)
		for ctx.Err() == nil {
			for ev, err := range client.Events(ctx, 0) {
				select {
				case queue <- fed{ev, err}:
				case <-ctx.Done():
					return
				}
			}
			pause(ctx, streamPause)
		}
	}()
	for first := range queue {
		batch := eventsMsg{first}
		for more := true; more && len(batch) < feedAhead; {
			select {
			case next, ok := <-queue:
				if more = ok; ok {
					batch = append(batch, next)
				}
			default:
				more = false
			}
		}
		send(batch)
		pause(ctx, framePause)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
