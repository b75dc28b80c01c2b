package chat

import (
	"bytes"
	"cmp"
	"container/heap"
	"maps"
	"slices"

	"github.com/starling-chat/starling/chat/wire"
)

// This file is the merge: which accounts a private room's membership events make members, with which
// roles, and which epochs they announce. It does no I/O, and depends on the set of events alone and not
// on the order in which they came; docs/spec/rooms.md, section 9 states the rules.

// memberEvent is a membership event as the merge sees it. Whoever adds one has verified it.
type memberEvent struct {
	ID      wire.EventID
	HLC     wire.HLC
	Author  wire.AccountID
	Device  wire.DeviceID
	Seq     uint64
	Parents []wire.EventID
	Body    wire.Body
}

// compare orders events of which neither is before the other.
func (e *memberEvent) compare(o *memberEvent) int {
	if c := cmp.Compare(e.HLC, o.HLC); c != 0 {
		return c
	}
	return bytes.Compare(e.ID[:], o.ID[:])
}

// ledger is a private room's membership events. It has no lock of its own.
type ledger struct {
	room   wire.RoomID // the id of the create event
	events map[wire.EventID]*memberEvent
	state  *membership // of all events; nil when it must be computed

	trusted map[wire.AccountID]bool // whom some event, with or without effect, made moderator or more
	rulings map[ruling]bool         // answers of reaches; nil after every change
}

func newLedger(room wire.RoomID) *ledger {
	return &ledger{room: room, events: make(map[wire.EventID]*memberEvent), trusted: make(map[wire.AccountID]bool)}
}

// add takes an event in and says whether it was new.
func (l *ledger) add(e *memberEvent) bool {
	if l.events[e.ID] != nil || len(l.events) >= wire.MaxMembershipEvents {
		return false
	}
	if _, creates := e.Body.(*wire.CreateBody); creates != (wire.RoomID(e.ID) == l.room) {
		return false // another room's beginning, or this one's without being one
	}
	l.events[e.ID] = e
	l.state, l.rulings = nil, nil
	switch b := e.Body.(type) {
	case *wire.CreateBody:
		l.trusted[e.Author] = true
	case *wire.AddBody:
		l.trusted[b.Account] = l.trusted[b.Account] || b.Role >= wire.RoleModerator
	case *wire.RoleBody:
		l.trusted[b.Account] = l.trusted[b.Account] || b.Role >= wire.RoleModerator
	}
	return true
}

// now returns what all events amount to.
func (l *ledger) now() *membership {
	if l.state == nil {
		l.state = l.evaluate(nil)
	}
	return l.state
}

// past returns what an event and those before it amount to: what its author knew.
func (l *ledger) past(id wire.EventID) *membership {
	only := l.before(id)
	only[id] = true
	return l.evaluate(only)
}

// before returns the events that are before one.
func (l *ledger) before(id wire.EventID) map[wire.EventID]bool {
	found := make(map[wire.EventID]bool)
	next := []wire.EventID{id}
	for len(next) > 0 {
		e := l.events[next[len(next)-1]]
		next = next[:len(next)-1]
		if e == nil {
			continue
		}
		for _, p := range e.Parents {
			if !found[p] {
				found[p] = true
				next = append(next, p)
			}
		}
	}
	return found
}

// waiting orders the events whose ancestors have all been placed.
type waitingLine []*memberEvent

func (w waitingLine) Len() int           { return len(w) }
func (w waitingLine) Less(i, j int) bool { return w[i].compare(w[j]) < 0 }
func (w waitingLine) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waitingLine) Push(x any)        { *w = append(*w, x.(*memberEvent)) }
func (w *waitingLine) Pop() any {
	old := *w
	e := old[len(old)-1]
	*w = old[:len(old)-1]
	return e
}

// line places the events in topological order; of those that may come next the smallest by clock, then
// id, does. Events of which an ancestor is unknown are not in it. only, if not nil, leaves out others.
func (l *ledger) line(only map[wire.EventID]bool) []*memberEvent {
	root := l.events[wire.EventID(l.room)]
	if root == nil {
		return nil
	}
	open := make(map[wire.EventID]int, len(l.events))
	children := make(map[wire.EventID][]*memberEvent, len(l.events))
	for id, e := range l.events {
		if e == root || only != nil && !only[id] {
			continue
		}
		open[id] = len(e.Parents)
		for _, p := range e.Parents {
			children[p] = append(children[p], e)
		}
	}
	list := make([]*memberEvent, 0, len(l.events))
	next := &waitingLine{root}
	for next.Len() > 0 {
		e := heap.Pop(next).(*memberEvent)
		list = append(list, e)
		for _, c := range children[e.ID] {
			if open[c.ID]--; open[c.ID] == 0 {
				heap.Push(next, c)
			}
		}
	}
	return list
}

// evaluate walks the line until no more events turn out to be void.
func (l *ledger) evaluate(only map[wire.EventID]bool) *membership {
	line := l.line(only)
	void := make(map[wire.EventID]bool)
	for {
		m := newMembership()
		m.void = void
		w := &walk{l: l, line: line, membership: m}
		if w.run() {
			m.finish(l, line)
			return m
		}
	}
}

// announced is an epoch as a membership event announces it.
type announced struct {
	Number uint32
	Topic  wire.TopicKey
	Event  wire.EventID
	Author wire.AccountID
}

// spell is a time during which an account was a member.
type spell struct {
	From  uint32 // number of the newest epoch when the account was added
	Ended bool
	// Marks say what stands of a spell that ended; nil while it lasts.
	Marks []wire.Mark
}

// standing is how a member stands.
type standing struct {
	Role  wire.Role
	place int // in the line, of being added: who is earlier is more senior
}

// membership is what a set of membership events amounts to.
type membership struct {
	Members map[wire.AccountID]*standing
	Spells  map[wire.AccountID][]spell
	Banned  map[wire.AccountID]int64 // until, Unix ms; 0 is for ever
	Spent   map[wire.InviteToken]wire.EventID
	Revoked map[wire.InviteToken]bool
	Policy  wire.PolicyBody
	Name    string
	// Posting is the policy's role to post, and Roles what each account was made, in the order of the line.
	// That an account ceased to be a member is not among its roles.
	Posting []roleStep
	Roles   map[wire.AccountID][]roleStep
	// Epochs are those that count, by number.
	Epochs []announced
	// Announced are all, those that lost to another of the same number included.
	Announced map[wire.TopicKey]announced
	// Heads are the events that no other one names, at most as many as an event may name, newest kept.
	Heads []wire.EventID
	// Missing are ids that events name as parents and that are not known.
	Missing []wire.EventID

	void    map[wire.EventID]bool
	effect  map[wire.EventID]bool
	refused map[wire.EventID]bool // adds by somebody with the right that have no effect all the same
}

func newMembership() *membership {
	return &membership{
		Members: make(map[wire.AccountID]*standing), Spells: make(map[wire.AccountID][]spell),
		Banned: make(map[wire.AccountID]int64), Spent: make(map[wire.InviteToken]wire.EventID),
		Revoked: make(map[wire.InviteToken]bool), Announced: make(map[wire.TopicKey]announced),
		Roles:  make(map[wire.AccountID][]roleStep),
		effect: make(map[wire.EventID]bool), refused: make(map[wire.EventID]bool),
	}
}

// role returns an account's role; 0 for who is no member.
func (m *membership) role(a wire.AccountID) wire.Role {
	if s := m.Members[a]; s != nil {
		return s.Role
	}
	return 0
}

// inviteRole is the lowest role that may add members.
func (m *membership) inviteRole() wire.Role {
	if m.Policy.InviteRole != 0 {
		return m.Policy.InviteRole
	}
	return wire.RoleAdmin
}

// mayAdd says whether an account may add members.
func (m *membership) mayAdd(a wire.AccountID) bool { return m.role(a) >= m.inviteRole() }

// newest returns the epoch that counts now; its topic is zero without a create event.
func (m *membership) newest() announced {
	if len(m.Epochs) == 0 {
		return announced{}
	}
	return m.Epochs[len(m.Epochs)-1]
}

// banned says whether an account must not be added at a time.
func (m *membership) banned(a wire.AccountID, at wire.HLC) bool {
	until, ok := m.Banned[a]
	return ok && (until == 0 || at.Time().UnixMilli() < until)
}

// allowed says whether an account's event, sealed under an epoch's number, may be one of a member, and
// if only what its marks lead to stands, which those are.
func (m *membership) allowed(a wire.AccountID, number uint32) (always bool, marks []wire.Mark) {
	for _, s := range m.Spells[a] {
		if number < s.From {
			continue
		}
		if !s.Ended {
			return true, nil
		}
		marks = append(marks, s.Marks...)
	}
	return false, marks
}

// walk is one pass along the line.
type walk struct {
	l    *ledger
	line []*memberEvent
	*membership
}

// run applies the events of the line. It returns false as soon as more events turned out to be void, for
// the walk to begin again.
func (w *walk) run() bool {
	for place, e := range w.line {
		if w.void[e.ID] {
			continue
		}
		if b, ok := e.Body.(*wire.RemoveBody); ok && w.mayRemove(e.Author, b.Account) {
			if w.overruled(e, b.Account, place) {
				w.void[e.ID] = true
				return false
			}
			if w.voidConcurrent(e, b.Account) {
				return false
			}
		}
		w.effect[e.ID] = w.apply(e, place)
	}
	return true
}

// mayRemove says whether an account may remove another one now.
func (m *membership) mayRemove(by, target wire.AccountID) bool {
	role := m.role(by)
	return role >= wire.RoleAdmin && by != target && m.Members[target] != nil && m.role(target) <= role
}

// overruled says whether the target of a removal removed its author at the same time and is more senior:
// of a higher role, or of the same and added earlier.
func (w *walk) overruled(e *memberEvent, target wire.AccountID, place int) bool {
	author, other := w.Members[e.Author], w.Members[target]
	if other.Role < author.Role || other.Role == author.Role && author.place < other.place {
		return false
	}
	var before map[wire.EventID]bool
	for _, o := range w.line[place+1:] {
		b, ok := o.Body.(*wire.RemoveBody)
		if !ok || w.void[o.ID] || o.Author != target || b.Account != e.Author {
			continue
		}
		if before = w.l.before(o.ID); !before[e.ID] {
			return true
		}
	}
	return false
}

// voidConcurrent makes void what the target of a removal did at the same time, and says whether there was any.
func (w *walk) voidConcurrent(e *memberEvent, target wire.AccountID) bool {
	before := w.l.before(e.ID)
	more := false
	for _, o := range w.line {
		if o.Author != target || o.ID == e.ID || w.void[o.ID] || before[o.ID] || w.l.before(o.ID)[e.ID] {
			continue
		}
		w.void[o.ID] = true
		more = true
	}
	return more
}

// apply does what an event says, if its author may, and says whether it has effect.
func (w *walk) apply(e *memberEvent, place int) bool {
	if b, ok := e.Body.(*wire.CreateBody); ok {
		w.Name = b.Name
		w.setPolicy(e, &b.Policy)
		w.announce(e, 0, b.Topic)
		w.enter(e, e.Author, wire.RoleOwner, place)
		return true
	}
	w.note(e)
	role := w.role(e.Author)
	if role == 0 {
		return false
	}
	switch b := e.Body.(type) {
	case *wire.AddBody:
		return w.addMember(e, b, place)
	case *wire.RemoveBody:
		if !w.mayRemove(e.Author, b.Account) {
			return false
		}
		w.announce(e, b.Epoch, b.Topic)
		w.exit(b.Account, b.Marks)
	case *wire.RoleBody:
		target := w.Members[b.Account]
		if role < wire.RoleAdmin || b.Role > role || target == nil || target.Role >= role && b.Account != e.Author {
			return false
		}
		target.Role = b.Role
		w.Roles[b.Account] = append(w.Roles[b.Account], roleStep{e.HLC, b.Role})
	case *wire.PolicyBody:
		if role < wire.RoleAdmin {
			return false
		}
		w.setPolicy(e, b)
	case *wire.EpochBody:
		return role >= min(wire.RoleAdmin, w.inviteRole()) && w.announce(e, b.Epoch, b.Topic)
	case *wire.RevokeBody:
		if role < w.inviteRole() {
			return false
		}
		w.Revoked[b.Invite] = true
	case *wire.LeaveBody:
		w.exit(e.Author, []wire.Mark{{Device: e.Device, Seq: e.Seq, Last: e.ID}})
	case *wire.BanBody:
		if role < wire.RoleModerator || w.role(b.Account) >= role {
			return false
		}
		if b.Lift {
			delete(w.Banned, b.Account)
			break
		}
		w.Banned[b.Account] = 0
		if !b.Until.IsZero() {
			w.Banned[b.Account] = b.Until.UnixMilli()
		}
	default:
		return false
	}
	return true
}

func (w *walk) addMember(e *memberEvent, b *wire.AddBody, place int) bool {
	role := w.role(e.Author)
	if role < w.inviteRole() || w.Members[b.Account] != nil {
		return false
	}
	w.refused[e.ID] = true
	if b.Role > role || w.banned(b.Account, e.HLC) {
		return false
	}
	if b.Invite != (wire.InviteToken{}) {
		if _, spent := w.Spent[b.Invite]; spent || w.Revoked[b.Invite] {
			return false
		}
		w.Spent[b.Invite] = e.ID
	}
	delete(w.refused, e.ID)
	w.enter(e, b.Account, b.Role, place)
	return true
}

func (w *walk) setPolicy(e *memberEvent, p *wire.PolicyBody) {
	w.Policy = *p
	w.Posting = append(w.Posting, roleStep{e.HLC, max(p.PostRole, wire.RoleMember)})
}

func (w *walk) enter(e *memberEvent, a wire.AccountID, role wire.Role, place int) {
	w.Members[a] = &standing{Role: role, place: place}
	w.Roles[a] = append(w.Roles[a], roleStep{e.HLC, role})
	w.Spells[a] = append(w.Spells[a], spell{From: w.newest().Number})
}

func (w *walk) exit(a wire.AccountID, marks []wire.Mark) {
	delete(w.Members, a)
	list := w.Spells[a]
	last := &list[len(list)-1]
	last.Ended, last.Marks = true, marks
}

// note remembers an announced epoch whether or not it counts: its secret may have been handed out.
func (w *walk) note(e *memberEvent) {
	switch b := e.Body.(type) {
	case *wire.RemoveBody:
		w.Announced[b.Topic] = announced{b.Epoch, b.Topic, e.ID, e.Author}
	case *wire.EpochBody:
		w.Announced[b.Topic] = announced{b.Epoch, b.Topic, e.ID, e.Author}
	}
}

// announce begins an epoch, if its number is the next one and its topic key is new.
func (w *walk) announce(e *memberEvent, number uint32, topic wire.TopicKey) bool {
	if uint64(number) != uint64(len(w.Epochs)) ||
		slices.ContainsFunc(w.Epochs, func(a announced) bool { return a.Topic == topic }) {
		return false
	}
	a := announced{number, topic, e.ID, e.Author}
	w.Epochs = append(w.Epochs, a)
	w.Announced[topic] = a
	return true
}

// finish finds the heads and what is missing.
func (m *membership) finish(l *ledger, line []*memberEvent) {
	named := make(map[wire.EventID]bool)
	placed := make(map[wire.EventID]bool, len(line))
	for _, e := range line {
		placed[e.ID] = true
		for _, p := range e.Parents {
			named[p] = true
		}
	}
	for _, e := range line {
		if !named[e.ID] {
			m.Heads = append(m.Heads, e.ID)
		}
	}
	m.Heads = m.Heads[max(0, len(m.Heads)-wire.MaxParents):]
	missing := make(map[wire.EventID]bool)
	for id, e := range l.events {
		if placed[id] {
			continue
		}
		for _, p := range e.Parents {
			if l.events[p] == nil {
				missing[p] = true
			}
		}
	}
	if len(line) == 0 {
		missing[wire.EventID(l.room)] = true
	}
	m.Missing = slices.SortedFunc(maps.Keys(missing), func(a, b wire.EventID) int { return bytes.Compare(a[:], b[:]) })
}

// changeDue says whether the newest epoch's secret is, or may be, in the hands of somebody who is no
// member: its author did not know of their leaving, or a member let them in whom the merge refused.
func (l *ledger) changeDue() bool {
	m := l.now()
	newest := m.newest()
	if newest.Event.IsZero() {
		return false
	}
	for a := range l.past(newest.Event).Members {
		if m.Members[a] == nil {
			return true
		}
	}
	known := l.before(newest.Event)
	for id := range m.refused {
		if b := l.events[id].Body.(*wire.AddBody); !known[id] && m.Members[b.Account] == nil {
			return true
		}
	}
	return false
}

// after returns the events that are not before any of the given ones nor among them, in the order of the
// line: what somebody who knows those lacks.
func (l *ledger) after(known ...wire.EventID) []*memberEvent {
	has := make(map[wire.EventID]bool)
	for _, id := range known {
		has[id] = true
		maps.Copy(has, l.before(id))
	}
	return slices.DeleteFunc(l.line(nil), func(e *memberEvent) bool { return has[e.ID] })
}
