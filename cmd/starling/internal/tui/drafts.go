package tui

import (
	"context"
	"encoding/json"

	tea "charm.land/bubbletea/v2"
)

// draft is what is being written in a conversation: it is kept in the node as it is typed, so that
// neither a crash nor a change of the terminal loses it.
type draft struct {
	Text  string `json:"text,omitempty"`
	Reply string `json:"reply,omitempty"` // id of the message that is answered
	Edit  string `json:"edit,omitempty"`  // id of the own message whose text this is,
	Kept  string `json:"kept,omitempty"`  // and what was being written before

	loaded bool
	saving bool
	saved  string // as the node has it
}

// draftText is how the node keeps a draft; nothing for none.
func (d *draft) draftText() string {
	if d.Text == "" && d.Edit == "" && d.Kept == "" {
		return ""
	}
	b, err := json.Marshal(d)
	if err != nil {
		return ""
	}
	return string(b)
}

// maxDraft bounds a draft: the node keeps settings of 64 KiB.
const maxDraft = 64<<10 - 1<<10 // bytes

// draftKey names a conversation's draft among the settings, whose keys have at most 64 bytes.
func draftKey(id string) string {
	const prefix = "tui.draft."
	return prefix + id[:min(len(id), 64-len(prefix))]
}

// turn lets one at a time change what the node keeps of the input, so that what is saved last, when
// the user leaves, is what stays.
type turn struct {
	token chan struct{} // whoever has put one in may change something
	over  bool          // nobody may any more; guarded by the token
}

func newTurn() *turn { return &turn{token: make(chan struct{}, 1)} }

// take waits for the turn and does f, unless it is over.
func (t *turn) take(ctx context.Context, f func() error) error {
	select {
	case t.token <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-t.token }()
	if t.over {
		return context.Canceled
	}
	return f()
}

// end waits for the turn and keeps it.
func (t *turn) end(ctx context.Context) {
	_ = t.take(ctx, func() error { // when it takes too long there is nothing more to wait for
		t.over = true
		return nil
	})
}

// keepInput notes what stands in the input.
func (m *model) keepInput() {
	if r := m.rooms[m.current]; r != nil {
		r.writing.Text = m.input.String()
	}
}

// keepDraft saves what is being written in the conversation on screen, if it changed.
func (m *model) keepDraft() tea.Cmd {
	m.keepInput()
	return m.saveDraft(m.current)
}

// saveDraft hands a draft to the node; one save is on its way at a time, so that an older one never
// comes last.
func (m *model) saveDraft(id string) tea.Cmd {
	r := m.rooms[id]
	if r == nil || r.writing.saving || !r.writing.loaded || m.outage != nil {
		return nil
	}
	text := r.writing.draftText()
	if text == r.writing.saved || len(text) > maxDraft {
		return nil
	}
	r.writing.saving = true
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		err := m.turn.take(ctx, func() error { return m.api.SetSetting(ctx, draftKey(id), text) })
		return func(m *model) tea.Cmd {
			w := &m.room(id).writing
			w.saving = false
			if err == nil {
				w.saved = text
			} else if !undecided(err) {
				m.fail(err)
				w.saved = text // it will not be taken the next time either
			}
			if id != m.current && err == nil {
				return m.saveDraft(id)
			}
			return nil
		}, nil
	})
}

// loadDraft brings back what was being written when the program last ran.
func (m *model) loadDraft(id string) tea.Cmd {
	if m.room(id).writing.loaded {
		return nil
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		text, err := m.api.Setting(ctx, draftKey(id))
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.restoreDraft(id, text)
			return nil
		}, nil
	})
}

func (m *model) restoreDraft(id, text string) {
	w := &m.room(id).writing
	if w.loaded {
		return
	}
	w.loaded, w.saved = true, text
	var kept draft
	if text == "" || json.Unmarshal([]byte(text), &kept) != nil {
		return
	}
	written := w.Text
	if id == m.current {
		written = m.input.String()
	}
	w.Text, w.Reply, w.Edit, w.Kept = kept.Text+written, kept.Reply, kept.Edit, kept.Kept
	if id == m.current {
		m.input.set(w.Text)
	}
}

// startEdit puts an own message into the input; what stood there comes back afterwards.
func (m *model) startEdit(id, text string) {
	r := m.rooms[m.current]
	if r.writing.Edit == "" {
		r.writing.Kept = m.input.String()
	}
	r.writing.Edit, r.writing.Reply = id, ""
	m.input.set(text)
}

// stopEdit leaves the message that was being edited or answered as it is.
func (m *model) stopEdit() {
	r := m.rooms[m.current]
	if r == nil {
		return
	}
	w := &r.writing
	if w.Edit != "" {
		m.input.file(m.input.String())
		m.input.set(w.Kept)
	}
	w.Edit, w.Kept, w.Reply = "", "", ""
}
