package tui

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"
)

// settingPast holds what was entered, for the next run: a JSON list of texts, oldest first.
const settingPast = "tui.past"

// maxPastBytes bounds what is kept of it; the node keeps settings of 64 KiB. What is older goes first.
const maxPastBytes = 32 << 10 // bytes

// pastText is how the node keeps the input history.
func pastText(past []string) string {
	var kept []string
	size := 0
	for _, s := range slices.Backward(past) {
		b, err := json.Marshal(withoutSecret(s))
		if size += len(b) + 1; err != nil || size > maxPastBytes {
			break
		}
		kept = append(kept, string(b))
	}
	slices.Reverse(kept)
	return "[" + strings.Join(kept, ",") + "]"
}

// withoutSecret takes the password out of a command that joins a room.
func withoutSecret(s string) string {
	words := strings.Fields(s)
	if len(words) > 2 && (words[0] == "/join" || words[0] == "/j") {
		return words[0] + " " + words[1]
	}
	return s
}

// restorePast puts what was entered in earlier runs before what was entered in this one.
func (m *model) restorePast(text string) {
	var old []string
	if text == "" || json.Unmarshal([]byte(text), &old) != nil {
		return
	}
	for i, s := range old {
		old[i] = clean(s)
	}
	recalling := len(m.input.past) - m.input.recall
	m.input.past = slices.Concat(old, m.input.past)
	m.input.past = m.input.past[max(0, len(m.input.past)-maxPast):]
	m.input.recall = max(0, len(m.input.past)-recalling)
}

// keepPast saves the input history when something was added to it. One save is on its way at a time.
func (m *model) keepPast() tea.Cmd {
	if !m.settled || m.pastSaving || m.pastSaved == m.input.filed {
		return nil
	}
	m.pastSaving = true
	text, filed := pastText(m.input.past), m.input.filed
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		err := m.turn.take(ctx, func() error { return m.api.SetSetting(ctx, settingPast, text) })
		return func(m *model) tea.Cmd {
			if m.pastSaving = false; err == nil {
				m.pastSaved = filed
			}
			return nil // the next tick tries again
		}, nil
	})
}
