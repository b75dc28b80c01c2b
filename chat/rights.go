package chat

import (
	"context"
	"fmt"

	"github.com/starling-chat/starling/chat/wire"
)

// This file is what a role in a private room is good for besides membership: who may post, who may delete
// what others said, and how much an author may say. docs/spec/rooms.md, section 9 states the rules.

// roleStep is a role from a clock reading on.
type roleStep struct {
	At   wire.HLC
	Role wire.Role
}

// roleAt returns the role of the last of some steps, which lie in the order of the line, that is not after
// a clock reading; false if there is none.
func roleAt(steps []roleStep, at wire.HLC) (wire.Role, bool) {
	for i := len(steps) - 1; i >= 0; i-- {
		if steps[i].At <= at {
			return steps[i].Role, true
		}
	}
	return 0, false
}

// posts says whether events of a kind need the role to post.
func posts(kind wire.Kind) bool {
	return kind == wire.KindMessage || kind == wire.KindEdit || kind == wire.KindTopic
}

// postRole returns the lowest role that may post at a clock reading.
func (m *membership) postRole(at wire.HLC) wire.Role {
	role, _ := roleAt(m.Posting, at)
	return max(role, wire.RoleMember)
}

// mayPost says whether somebody who is a member, or whose event stands, may say what a kind is at a clock
// reading. That the account was removed since does not matter: its spells decide that.
func (m *membership) mayPost(a wire.AccountID, kind wire.Kind, at wire.HLC) bool {
	if !posts(kind) {
		return true
	}
	need := m.postRole(at)
	if need == wire.RoleMember {
		return true
	}
	role, _ := roleAt(m.Roles[a], at)
	return max(role, wire.RoleMember) >= need
}

// restricted says whether some role to post was ever above member.
func (m *membership) restricted() bool {
	for _, s := range m.Posting {
		if s.Role > wire.RoleMember {
			return true
		}
	}
	return false
}

// mayPostNow says why a kind of event cannot be said at a clock reading.
func (r *room) mayPostNow(kind wire.Kind, at wire.HLC) error {
	m := r.members()
	if m.mayPost(r.s.self.account, kind, at) {
		return nil
	}
	return fmt.Errorf("%w: in #%s only %s may post, and you are %s", ErrDenied, r.name(), atLeast(m.postRole(at)), m.role(r.s.self.account))
}

// atLeast names those of a role and above.
func atLeast(role wire.Role) string {
	switch role {
	case wire.RoleModerator:
		return "moderators and admins"
	case wire.RoleAdmin:
		return "admins"
	case wire.RoleOwner:
		return "the owners"
	default:
		return "members"
	}
}

// ruling is a question whether one account's redaction reaches what another one said.
type ruling struct {
	Redaction wire.EventID
	Author    wire.AccountID
}

// maxRulings bounds the answers that are remembered.
const maxRulings = 4096

// reaches says whether a redaction takes away what somebody else said: by the membership events that are
// before it, its author is moderator or higher, and the other one has a lower role or none. What comes to be
// known later of roles changes nothing, since what was deleted does not come back.
func (l *ledger) reaches(redaction wire.EventID, by, author wire.AccountID, parents []wire.EventID) bool {
	q := ruling{redaction, author}
	if answer, ok := l.rulings[q]; ok {
		return answer
	}
	only := make(map[wire.EventID]bool)
	for _, p := range parents {
		if l.events[p] == nil {
			continue
		}
		only[p] = true
		for id := range l.before(p) {
			only[id] = true
		}
	}
	m := l.evaluate(only)
	answer := m.role(by) >= wire.RoleModerator && m.role(author) < m.role(by)
	if l.rulings == nil || len(l.rulings) >= maxRulings {
		l.rulings = make(map[ruling]bool)
	}
	l.rulings[q] = answer
	return answer
}

// mayRedact says whether this user may delete what somebody else said in the room.
func (r *room) mayRedact(author wire.AccountID) error {
	if !r.private {
		return fmt.Errorf("%w: the message is by somebody else, and a public room has no moderators", ErrDenied)
	}
	m := r.members()
	own, theirs := m.role(r.s.self.account), m.role(author)
	switch {
	case own < wire.RoleModerator:
		return fmt.Errorf("%w: the message is by somebody else; in #%s only moderators and admins delete what others said, and you are %s", ErrDenied, r.name(), own)
	case theirs >= own:
		return fmt.Errorf("%w: the message is by somebody who is %s, and you are %s; only who has a higher role may delete it", ErrDenied, theirs, own)
	}
	return nil
}

// overruled says whether a redaction by somebody else than a message's author takes it away. find returns an
// event that is not stored yet.
func (r *room) overruled(ctx context.Context, m *modifier, author wire.AccountID, find func(wire.EventID) *wire.Event) (bool, error) {
	if !r.private || m.Kind != wire.KindRedact || m.Account == author {
		return false, nil
	}
	r.mu.RLock()
	trusted := r.ledger.trusted[m.Account]
	r.mu.RUnlock()
	if !trusted {
		return false, nil
	}
	ev := find(m.ID)
	if ev == nil {
		var err error
		if ev, err = r.eventByID(ctx, m.ID); err != nil || ev == nil {
			return false, err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ledger.reaches(m.ID, m.Account, author, ev.Header.Parents), nil
}

// pace returns how much an author may say: what the room's policy sets, or what holds everywhere. An author
// holds itself to exactly that; of others slack is taken too, since what was held up on the way comes at once.
func (r *room) pace(slack bool) (rate, burst float64) {
	rate, burst = r.s.cfg.Limits.AuthorRate, r.s.cfg.Limits.AuthorBurst
	if !r.private {
		return rate, burst
	}
	p := &r.members().Policy
	if p.RatePerMinute != 0 {
		rate = float64(p.RatePerMinute) / 60
		burst = max(1, float64(p.RatePerMinute))
	}
	if p.Burst != 0 {
		burst = float64(p.Burst)
	}
	if slack && (p.RatePerMinute != 0 || p.Burst != 0) {
		burst += rate * paceSlack.Seconds()
	}
	return rate, burst
}
