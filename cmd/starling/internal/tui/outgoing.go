package tui

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// outgoing are the messages that were entered and that the node has not answered for. One is on its
// way at a time, so that they arrive in the order in which they were written; each has a client id,
// so that repeating one whose answer was lost makes no second message.
type outgoing struct {
	prefix string
	count  int
	queue  []api.SendRequest
	busy   bool // the first is on its way
}

func newPrefix() string {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails (crypto/rand)
	return "tui-" + hex.EncodeToString(id)
}

// send hands a request to the node, after those before it.
func (m *model) send(req api.SendRequest) tea.Cmd {
	o := &m.outgoing
	o.count++
	req.ClientID = fmt.Sprintf("%s-%d", o.prefix, o.count)
	o.queue = append(o.queue, req)
	return m.sendNext()
}

// sendNext sends the first waiting request unless one is on its way.
func (m *model) sendNext() tea.Cmd {
	o := &m.outgoing
	if o.busy || len(o.queue) == 0 || m.outage != nil {
		return nil
	}
	o.busy = true
	req := o.queue[0]
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		_, err := m.api.Send(ctx, req)
		return func(m *model) tea.Cmd {
			m.outgoing.busy = false
			if undecided(err) {
				return nil // the next tick or hello repeats it
			}
			m.outgoing.queue = m.outgoing.queue[1:]
			if err != nil {
				m.refused(req, err)
			}
			return m.sendNext()
		}, nil
	})
}

// undecided says whether an error leaves open if the message was accepted.
func undecided(err error) bool {
	if err == nil {
		return false
	}
	var e *api.Error
	return !errors.As(err, &e) || e.Code == api.CodeNotRunning || e.Code == api.CodeTimeout
}

// refused gives a text that the node did not take back to its writer.
func (m *model) refused(req api.SendRequest, err error) {
	m.fail(err)
	if req.Text == "" || req.Action == api.ActionReact {
		return
	}
	m.input.file(req.Text)
	c := m.find(m.current)
	if c != nil && c.Target == req.Target && m.input.empty() {
		m.input.set(req.Text)
	}
}

// fail shows why something was not done, with what to type next.
func (m *model) fail(err error) {
	var e *api.Error
	if errors.As(err, &e) && len(e.Candidates) > 0 {
		text := m.line(e.Message) + ":"
		for _, c := range e.Candidates {
			text += "\n  " + m.nickOf(c.Nick, c.Fingerprint, true) + "  @" + m.name(c.Account)
		}
		m.say(text)
		return
	}
	m.say(m.line(AsTyped(err.Error())))
}

// finishTimeout bounds what is still done after the user left.
const finishTimeout = 3 * time.Second

// finish hands over what was entered last and keeps what was being written. Nobody calls Update any
// more. It says how many messages the node did not take; they are kept as drafts.
func (m *model) finish(ctx context.Context) (left int) {
	ctx, cancel := context.WithTimeout(ctx, finishTimeout)
	defer cancel()
	o := &m.outgoing
	for len(o.queue) > 0 {
		if _, err := m.api.Send(ctx, o.queue[0]); err != nil {
			break
		}
		o.queue = o.queue[1:]
	}
	m.keepInput()
	for _, req := range o.queue {
		if c := m.findTarget(req.Target); c != nil && (req.Action == "" || req.Action == api.ActionMessage) {
			w := &m.room(c.ID).writing
			if w.Text != "" {
				w.Text = "\n" + w.Text
			}
			w.Text = req.Text + w.Text
		}
	}
	m.turn.end(ctx)
	if m.settled && m.pastSaved != m.input.filed {
		_ = m.api.SetSetting(ctx, settingPast, pastText(m.input.past)) // as below
	}
	for id, r := range m.rooms {
		if r.writing.saving || r.writing.draftText() != r.writing.saved {
			_ = m.api.SetSetting(ctx, draftKey(id), r.writing.draftText()) // the node may be gone
		}
	}
	return len(o.queue)
}
