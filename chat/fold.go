package chat

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/starling-chat/starling/chat/wire"
)

// This file is the fold: what a set of events means. Everything in it depends on the set alone and
// not on the order in which its events came; docs/spec/chat.md states the rules.

// stamp is an event's place in its room's order: clock reading, then sealed id.
type stamp struct {
	HLC    wire.HLC
	Sealed wire.SealedID
}

func (a stamp) compare(b stamp) int {
	if c := cmp.Compare(a.HLC, b.HLC); c != 0 {
		return c
	}
	return bytes.Compare(a.Sealed[:], b.Sealed[:])
}

// register holds the claim with the greatest stamp of all that were offered.
type register[T any] struct {
	Value T
	At    stamp
}

// offer takes the claim if it is newer than what is held, and says whether it did.
func (r *register[T]) offer(v T, at stamp) bool {
	if r.At.compare(at) >= 0 {
		return false
	}
	r.Value, r.At = v, at
	return true
}

// modifier is an event about another one: an edit, a redaction or a reaction.
type modifier struct {
	At      stamp
	ID      wire.EventID
	Kind    wire.Kind
	Account wire.AccountID
	Text    string // an edit's text, a reaction's symbol
	Remove  bool   // a reaction that is taken back
	Names   bool   // an edit that mentions this user
	ByRole  bool   // a redaction by somebody whose role lets it reach the message; not stored
}

// folded is what a message has become.
type folded struct {
	Text      string
	Names     bool // it mentions this user
	Edited    bool
	Redacted  bool
	Reactions []foldedReaction
}

// foldedReaction is one symbol and who gave it, ordered by account.
type foldedReaction struct {
	Symbol string
	By     []wire.AccountID
}

// maxShownReactions bounds the distinct reactions shown at one message.
const maxShownReactions = 64

// foldMessage applies the modifiers of a message to it, in any order and with any repetition:
//
//   - Only the author's edits count, and only redactions by the author or by who has the role for it.
//   - One redaction takes text, edits and reactions away for good.
//   - The edit with the greatest stamp gives the text.
//   - Of one account's reactions with one symbol the one with the greatest stamp counts.
func foldMessage(author wire.AccountID, text string, names bool, mods []modifier) folded {
	f := folded{Text: text, Names: names}
	var edit register[*modifier]
	type claim struct {
		account wire.AccountID
		symbol  string
	}
	reactions := make(map[claim]*register[bool])
	for i := range mods {
		m := &mods[i]
		switch {
		case m.Kind == wire.KindRedact && (m.Account == author || m.ByRole):
			return folded{Redacted: true}
		case m.Kind == wire.KindEdit && m.Account == author:
			edit.offer(m, m.At)
		case m.Kind == wire.KindReact:
			key := claim{m.Account, m.Text}
			if reactions[key] == nil {
				reactions[key] = &register[bool]{}
			}
			reactions[key].offer(!m.Remove, m.At)
		}
	}
	if edit.Value != nil {
		f.Text, f.Names, f.Edited = edit.Value.Text, edit.Value.Names, true
	}
	by := make(map[string][]wire.AccountID)
	for key, given := range reactions {
		if given.Value {
			by[key.symbol] = append(by[key.symbol], key.account)
		}
	}
	for _, symbol := range slices.Sorted(maps.Keys(by)) {
		if len(f.Reactions) == maxShownReactions {
			break
		}
		accounts := by[symbol]
		slices.SortFunc(accounts, func(a, b wire.AccountID) int { return bytes.Compare(a[:], b[:]) })
		f.Reactions = append(f.Reactions, foldedReaction{Symbol: symbol, By: accounts})
	}
	return f
}

// modifierOf returns what an edit, redaction or reaction does, or false for any other body.
func modifierOf(at stamp, id wire.EventID, author wire.AccountID, body wire.Body, self wire.AccountID) (modifier, bool) {
	m := modifier{At: at, ID: id, Kind: body.EventKind(), Account: author}
	switch b := body.(type) {
	case *wire.EditBody:
		m.Text, m.Names = b.Text, slices.Contains(b.Mentions, self)
	case *wire.RedactBody:
	case *wire.ReactBody:
		m.Text, m.Remove = b.Symbol, b.Remove
	default:
		return modifier{}, false
	}
	return m, true
}

// member is what a room's events say about one account.
type member struct {
	Nick    register[string] // from profile events
	Present register[bool]   // true after a join or any other event, false after a leave
	Seen    wire.HLC         // the newest event by the account that lies not in the future
	Devices map[wire.DeviceID]bool
}

// presentOnly says whether the account counts as a member: its last word was not a leave.
func (m *member) presentOnly() bool { return m.Present.Value }

// maxMembers bounds the accounts that are kept of one room. What others say is shown all the same, under
// their fingerprints.
const maxMembers = 16384

// maxDevicesShown bounds the devices kept of one member.
const maxDevicesShown = wire.MaxDevices

// roster is the fold of a room's profiles, joins, leaves and topics. It has no lock of its own.
type roster struct {
	members map[wire.AccountID]*member
	topic   register[string]
	nicks   map[string]int // how many present members claim a nick, by its folded form
}

func newRoster() *roster {
	return &roster{members: make(map[wire.AccountID]*member), nicks: make(map[string]int)}
}

// foldNick is the form under which two nicks are the same.
func foldNick(nick string) string { return strings.ToLower(nick) }

// rosterChange says what an event changed.
type rosterChange struct {
	member bool // the row of its author
	nick   bool
	joined bool // the author became present, or ceased to be
	topic  bool
}

// apply folds one verified event in.
func (r *roster) apply(at stamp, h *wire.Header, body wire.Body) rosterChange {
	var c rosterChange
	m := r.members[h.Account()]
	if m == nil && len(r.members) >= maxMembers {
		if b, ok := body.(*wire.TopicBody); ok {
			c.topic = r.topic.offer(b.Text, at)
		}
		return c
	}
	if m == nil {
		m = &member{Devices: make(map[wire.DeviceID]bool)}
		r.members[h.Account()] = m
		c.member = true
	}
	was := m.presentOnly()
	oldNick := m.Nick.Value
	r.claim(m, -1)
	_, leaves := body.(*wire.LeaveBody)
	c.member = m.Present.offer(!leaves, at) || c.member
	switch b := body.(type) {
	case *wire.ProfileBody:
		m.Nick.offer(b.Nick, at)
	case *wire.TopicBody:
		c.topic = r.topic.offer(b.Text, at)
	}
	if h.HLC > m.Seen {
		m.Seen, c.member = h.HLC, true
	}
	if !m.Devices[h.Device()] && len(m.Devices) < maxDevicesShown {
		m.Devices[h.Device()] = true
		c.member = true
	}
	r.claim(m, +1)
	c.nick = m.Nick.Value != oldNick
	c.joined = was != m.presentOnly()
	c.member = c.member || c.nick || c.joined
	return c
}

// claim counts a present member's nick in or out.
func (r *roster) claim(m *member, by int) {
	if m.Nick.Value == "" || !m.presentOnly() {
		return
	}
	key := foldNick(m.Nick.Value)
	if r.nicks[key] += by; r.nicks[key] == 0 {
		delete(r.nicks, key)
	}
}

// put restores a member that was stored.
func (r *roster) put(id wire.AccountID, m *member) {
	r.members[id] = m
	r.claim(m, +1)
}

// present counts the members.
func (r *roster) present() int {
	n := 0
	for _, m := range r.members {
		if m.presentOnly() {
			n++
		}
	}
	return n
}

// shared says whether another present member claims the same nick.
func (r *roster) shared(nick string) bool { return nick != "" && r.nicks[foldNick(nick)] > 1 }
