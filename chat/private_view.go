package chat

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/starling-chat/starling/chat/wire"
)

// This file is how a private room's membership is shown.

// inLog returns the clock reading of a membership event that is known.
func (r *room) inLog(id wire.EventID) (wire.HLC, bool) {
	if !r.private {
		return 0, false
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.ledger.events[id]
	if e == nil {
		return 0, false
	}
	return e.HLC, true
}

// newMember says whether an event is about the membership of a private room, and not known yet.
func (r *room) newMember(ev *wire.Event) bool {
	if !r.private || ev == nil || !ev.Header.Kind.Membership() {
		return false
	}
	_, known := r.inLog(ev.ID)
	return !known
}

// hadEffect says whether an event did something, as far as it is about membership.
func (r *room) hadEffect(ev *wire.Event) bool {
	return !r.private || !ev.Header.Kind.Membership() || r.members().effect[ev.ID]
}

// placeNext puts an own event behind what is known, and returns the epoch to say it under. Membership
// events name membership events only, so that who may not read the rest can check them; and they may be
// said under an old key, since nothing in them is secret from a former member.
func (r *room) placeNext(c *chain, kind wire.Kind) (*epoch, error) {
	heads, clocks := r.heads()
	if kind.Membership() {
		// What it changes holds from its clock reading on, which therefore comes after all that is known.
		c.parents, c.clocks = heads, append(clocks, c.clocks...)
	} else {
		if err := r.writable(); err != nil {
			return nil, err
		}
		for i, p := range c.parents {
			if len(heads) < wire.MaxParents && !slices.Contains(heads, p) {
				heads, clocks = append(heads, p), append(clocks, c.clocks[i])
			}
		}
		c.parents, c.clocks = heads, clocks
	}
	slices.SortFunc(c.parents, func(a, b wire.EventID) int { return bytes.Compare(a[:], b[:]) })
	return r.current(), nil
}

// memberText says what a membership event did.
func (r *room) memberText(v view) string {
	if !r.private {
		return ""
	}
	by := r.nick(v.event.Header.Account()).Nick
	name := func(a wire.AccountID) string { return r.nick(a).Nick }
	because := func(reason string) string {
		if reason == "" {
			return ""
		}
		return ": " + reason
	}
	switch b := v.body.(type) {
	case *wire.CreateBody:
		return by + " made the room"
	case *wire.AddBody:
		if b.Role > wire.RoleMember {
			return fmt.Sprintf("%s let %s in as %s", by, name(b.Account), b.Role)
		}
		return fmt.Sprintf("%s let %s in", by, name(b.Account))
	case *wire.RemoveBody:
		return fmt.Sprintf("%s removed %s%s", by, name(b.Account), because(b.Reason))
	case *wire.RoleBody:
		return fmt.Sprintf("%s made %s %s", by, name(b.Account), b.Role)
	case *wire.PolicyBody:
		return fmt.Sprintf("%s changed the room's policy: %s", by, policyWords(b))
	case *wire.BanBody:
		if b.Lift {
			return fmt.Sprintf("%s took the ban of %s back", by, name(b.Account))
		}
		return fmt.Sprintf("%s banned %s%s", by, name(b.Account), because(b.Reason))
	}
	return ""
}

// policyWords says what newcomers get, and what is not as everywhere.
func policyWords(p *wire.PolicyBody) string {
	text := "newcomers see nothing of what was said before they came"
	if p.ShareHistory {
		text = "newcomers get everything that the members still hold"
	}
	if p.PostRole > wire.RoleMember {
		text += "; only " + atLeast(p.PostRole) + " may post"
	}
	if p.RatePerMinute != 0 {
		text += fmt.Sprintf("; each may say %d things a minute", p.RatePerMinute)
	}
	if p.Burst != 0 {
		text += fmt.Sprintf("; each may say %d at once", p.Burst)
	}
	return text
}

// describe fills in what a conversation says of a private room.
func (r *room) describe(c *Conversation) {
	if !r.private {
		return
	}
	m := r.members()
	c.Membership, c.Members = r.standsNow(), len(m.Members)
	c.History = HistoryNone
	if m.Policy.ShareHistory {
		c.History = HistoryAll
	}
	c.Policy = policyWords(&m.Policy)
	c.Post = max(m.Policy.PostRole, wire.RoleMember).String()
	if role := m.role(r.s.self.account); role != 0 {
		c.Role = role.String()
	}
	if err := r.writable(); err != nil {
		switch c.Membership {
		case MembershipKeyless:
			c.Note = "waiting for the room's new key; it comes as soon as somebody who may admit members is met"
		default:
			c.Note = "you are no member any more; what was said before stays readable"
		}
	}
}

// listed returns the accounts to list as members, and their roles.
func (r *room) listed() map[wire.AccountID]wire.Role {
	list := make(map[wire.AccountID]wire.Role)
	if r.private {
		for a, s := range r.members().Members {
			list[a] = s.Role
		}
		return list
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for a, m := range r.roster.members {
		if m.presentOnly() {
			list[a] = wire.RoleMember
		}
	}
	return list
}
