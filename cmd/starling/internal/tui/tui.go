// Package tui is the terminal UI: conversations at the left, messages in the middle, members at
// the right, a status bar that is always true, and an input line with readline's keys. It speaks to a
// node through [api.Client] and to nothing else, so it can do what any bot can do and no more.
//
// It follows the Elm architecture of bubbletea: one model, changed only by Update, drawn by View. Calls to
// the node run as commands outside of Update; the event stream comes in through one goroutine
// that [Run] waits for. What peers wrote passes [api.Escape], [api.EscapeText] or [api.EscapeNick] before it
// is laid out (see escape.go of node/api): there is no other way onto the screen.
package tui

import (
	"context"
	"errors"
	"fmt"
	"os"
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
}

// Usable tells whether a terminal of that description can show the UI. When it cannot, the reason is
// a sentence for the user.
func Usable(environ []string) (ok bool, reason string) {
	env := func(name string) string { return lookup(environ, name) }
	switch term := env("TERM"); {
	case term == "" || term == "dumb":
		return false, fmt.Sprintf("TERM is %q, which cannot show a full screen: using line mode", term)
	}
	locale := env("LC_ALL")
	if locale == "" {
		locale = env("LC_CTYPE")
	}
	if locale == "" {
		locale = env("LANG")
	}
	if !isUTF8(locale) {
		return false, fmt.Sprintf("the locale %q is not UTF-8: using line mode (set LANG=C.UTF-8 for the full screen)", locale)
	}
	return true, ""
}

// Run shows the UI until the user quits or ctx ends. It restores the terminal before it returns.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Environ == nil {
		cfg.Environ = os.Environ()
	}
	ctx, cancel := context.WithCancel(ctx)
	m := newModel(ctx, cfg)
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithEnvironment(cfg.Environ))
	fed := make(chan struct{})
	go func() { // ends with cancel, waited for below
		defer close(fed)
		feed(ctx, cfg.Client, p.Send)
	}()
	_, err := p.Run()
	m.saveDrafts(context.WithoutCancel(ctx))
	cancel()
	<-fed
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil || errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("terminal UI: %w", err)
	}
	return nil
}

// Messages from the event stream.
type (
	eventMsg  api.Event
	outageMsg struct{ err error }
)

// feed passes the node's events on until ctx ends. The client reconnects by itself; each outage
// is told once.
func feed(ctx context.Context, client *api.Client, send func(tea.Msg)) {
	for ctx.Err() == nil {
		for ev, err := range client.Events(ctx, 0) {
			if err != nil {
				send(outageMsg{err})
				continue
			}
			send(eventMsg(ev))
		}
		select { // the stream ended for good, as when the node refuses: ask again, slowly
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}
